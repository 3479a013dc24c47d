//! The business server of the soak: rooms that publish on all four tracks, and everything that goes wrong with it.
//!
//! Owns the uplink's far ends (two addresses), the rooms' counters, and the calendar of faults: connections that end in
//! order, with a reset, in mid-frame or with garbage, that fall silent, that move to the second address; new epochs; links
//! revoked, topics ended, pages kicked. It remembers what the relay has surely taken (by ping and pong), so that pages can be held to it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use relay::time::Jitter;
use socket2::SockRef;
use wire::Track;
use wire::uplink::{
    Deframer, Grant, HEAD_SIZE_MAX, LENGTH_SIZE, Part, Since, ToBusiness, ToRelay, VERSION, business_proof,
    decode_to_business, encode, relay_proof,
};

use super::clock;
use super::content::{self, Place};
use super::view::Closed;

/// Shared with the relay.
pub const SECRET: &str = "a secret of the soak";
/// Links `room-1` and so on lead to topics of these numbers.
pub const ROOMS: u32 = 96;
/// Links `brief-…` lead to topics from here on.
const BRIEF: u32 = 10_000;
/// Messages that can be published again.
const HELD: u64 = 300;
/// Messages for a late page.
const LATE: u64 = 50;
/// Nothing is published while so many bytes wait for the relay.
const OUT_SIZE_MAX: usize = 4 << 20;
/// Milliseconds between publications of a topic, by track.
const QUIET_MS: [u64; 4] = [10_000, 1_000, 2_000, 2_000];
/// The same while the rings are filled: the 1 024 frames that a ring holds are 41 s.
const FILL_MS: [u64; 4] = [200, 40, 40, 40];

/// How often what goes wrong, seconds.
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    /// Milliseconds between publications of a topic that publishes much, by track.
    pub hot_ms: [u64; 4],
    /// For so many seconds at first every ring is filled: every index row and every block that will be touched is touched.
    pub fill_s: u64,
    pub drop_s: u64,
    pub epoch_s: u64,
    pub freeze_s: u64,
    pub move_s: u64,
    pub revoke_s: u64,
    pub end_s: u64,
}

/// A thing that goes wrong, and when next.
struct Due {
    every: Duration,
    at: Instant,
}

impl Due {
    fn new(every_s: u64, now: Instant) -> Self {
        let every = Duration::from_secs(every_s);
        Self { every, at: now + every }
    }

    /// Whether it is time, with half as much and half as much again from then on.
    fn comes(&mut self, now: Instant, jitter: &mut Jitter) -> bool {
        let is_due = now >= self.at;
        if is_due {
            let ms = u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX);
            self.at = now + Duration::from_millis(ms / 2 + jitter.below(ms));
        }
        is_due
    }
}

struct Room {
    epoch: u64,
    next: [u64; 4],
    due: [Instant; 4],
    /// Pings from this one on tell what the relay has of it.
    sure_from: u32,
    used: Instant,
}

/// A ping without an answer: its number, and where each topic stood: epoch and next message.
type Ping = (u32, Vec<(u32, u64, u64)>);

struct Uplink {
    stream: TcpStream,
    deframer: Deframer,
    out: Vec<u8>,
    sent: usize,
    challenge: [u8; 16],
    is_up: bool,
    is_frozen: bool,
    is_over: bool,
    accepted: HashSet<u32>,
    asked: Vec<(Instant, u32, String, Option<Since>)>,
    pings: VecDeque<Ping>,
}

/// What was published and answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub published: [u64; 4],
    pub requests: u64,
    pub page_messages: u64,
    pub connections: u64,
}

/// The business server.
pub struct Business {
    listeners: [Option<TcpListener>; 2],
    addresses: [SocketAddr; 2],
    uplinks: Vec<Uplink>,
    rooms: BTreeMap<u32, Room>,
    sure: HashMap<(u32, u64), u64>,
    /// Epochs that are over.
    pub closed: Closed,
    /// What went wrong since it was last asked.
    pub events: Vec<&'static str>,
    pub done: Done,
    /// Nothing is published or broken any more.
    pub is_quiet: bool,
    jitter: Jitter,
    hot_ms: [u64; 4],
    fills_until: Instant,
    epoch: u64,
    ping: u32,
    ping_at: Instant,
    listens_at: [Instant; 2],
    drops: Due,
    epochs: Due,
    freezes: Due,
    moves: Due,
    revokes: Due,
    ends: Due,
    room: Vec<u8>,
}

impl Business {
    pub fn new(calendar: Calendar, seed: u64) -> Result<Self, String> {
        let bind = || TcpListener::bind("127.0.0.1:0").map_err(|error| format!("the business server: {error}"));
        let listeners = [bind()?, bind()?];
        let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); 2];
        for (listener, address) in listeners.iter().zip(&mut addresses) {
            listener.set_nonblocking(true).map_err(|error| error.to_string())?;
            *address = listener.local_addr().map_err(|error| error.to_string())?;
        }
        let now = clock::now();
        let mut business = Self {
            listeners: listeners.map(Some),
            addresses,
            uplinks: Vec::new(),
            rooms: BTreeMap::new(),
            sure: HashMap::new(),
            closed: HashMap::new(),
            events: Vec::new(),
            done: Done::default(),
            is_quiet: false,
            jitter: Jitter::new(seed),
            hot_ms: calendar.hot_ms,
            fills_until: now + Duration::from_secs(calendar.fill_s),
            epoch: 1,
            ping: 0,
            ping_at: now,
            listens_at: [now; 2],
            drops: Due::new(calendar.drop_s, now),
            epochs: Due::new(calendar.epoch_s, now),
            freezes: Due::new(calendar.freeze_s, now),
            moves: Due::new(calendar.move_s, now),
            revokes: Due::new(calendar.revoke_s, now),
            ends: Due::new(calendar.end_s, now),
            room: Vec::new(),
        };
        (1..=ROOMS).chain(content::HOT).for_each(|topic| business.open(topic, now));
        Ok(business)
    }

    /// Where the relay finds it.
    pub fn addresses(&self) -> [SocketAddr; 2] {
        self.addresses
    }

    /// Whether a relay is there and is heard.
    pub fn is_up(&self) -> bool {
        self.uplinks.iter().any(|uplink| uplink.is_up && !uplink.is_frozen)
    }

    /// The next message of a topic's running epoch.
    pub fn next_message(&self, topic: u32, epoch: u64) -> Option<u64> {
        self.rooms.get(&topic).filter(|room| room.epoch == epoch).map(|room| room.next[Track::Messages.index()])
    }

    /// Does what is due.
    pub fn turn(&mut self, now: Instant) -> Result<(), String> {
        self.accept(now);
        for index in 0..self.uplinks.len() {
            self.read(index, now)?;
        }
        for index in 0..self.uplinks.len() {
            self.answer(index, now);
        }
        if !self.is_quiet {
            self.go_wrong(now);
            self.publish(now);
        }
        if now >= self.ping_at {
            self.ping_at = now + Duration::from_secs(1);
            self.ping_all();
            self.rooms.retain(|topic, room| *topic < BRIEF || now < room.used + Duration::from_secs(120));
        }
        self.uplinks.retain_mut(|uplink| uplink.is_frozen || !uplink.is_over && write(uplink).is_ok());
        Ok(())
    }

    fn open(&mut self, topic: u32, now: Instant) {
        self.epoch += 1;
        let interval = if content::HOT.contains(&topic) { self.hot_ms } else { QUIET_MS };
        let jitter = &mut self.jitter;
        let due = interval.map(|ms| now + Duration::from_millis(jitter.below(ms)));
        self.rooms.insert(topic, Room { epoch: self.epoch, next: [1; 4], due, sure_from: 0, used: now });
    }

    fn accept(&mut self, now: Instant) {
        for index in 0..2 {
            if self.listeners[index].is_none() && now >= self.listens_at[index] {
                self.listeners[index] = TcpListener::bind(self.addresses[index]).ok();
                if let Some(listener) = &self.listeners[index] {
                    let _ = listener.set_nonblocking(true);
                }
            }
            let Some(listener) = &self.listeners[index] else { continue };
            let Ok((stream, _)) = listener.accept() else { continue };
            let _ = stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true));
            // The relay has given up what fell silent.
            self.uplinks.retain(|uplink| !uplink.is_frozen);
            let mut challenge = [0; 16];
            challenge[..8].copy_from_slice(&self.jitter.bits().to_le_bytes());
            let mut uplink = Uplink {
                stream,
                deframer: Deframer::new(64 * 1024),
                out: Vec::new(),
                sent: 0,
                challenge,
                is_up: false,
                is_frozen: false,
                is_over: false,
                accepted: HashSet::new(),
                asked: Vec::new(),
                pings: VecDeque::new(),
            };
            push(&mut uplink, &ToRelay::Challenge { version: VERSION, nonce: challenge }, 0);
            self.uplinks.push(uplink);
        }
    }

    fn read(&mut self, index: usize, now: Instant) -> Result<(), String> {
        let Some(uplink) = self.uplinks.get_mut(index).filter(|uplink| !uplink.is_frozen) else { return Ok(()) };
        match uplink.stream.read(uplink.deframer.space()) {
            Ok(size @ 1..) => uplink.deframer.filled(size),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // The relay has turned to another one.
            Ok(0) | Err(_) => {
                uplink.is_over = true;
                return Ok(());
            }
        }
        let mut answers = Vec::new();
        let mut kicked = Vec::new();
        while let Some(body) = uplink.deframer.next_body().map_err(|error| format!("the uplink: {error}"))? {
            let frame = decode_to_business(body).map_err(|error| format!("the uplink: {error:?}"))?;
            match frame {
                ToBusiness::Hello { nonce, proof, .. } => {
                    if proof != relay_proof(SECRET.as_bytes(), &uplink.challenge, &nonce) {
                        return Err("the relay's proof is wrong".to_owned());
                    }
                    let proof = business_proof(SECRET.as_bytes(), &nonce, &uplink.challenge);
                    answers.push(ToRelay::Welcome { version: VERSION, proof });
                    uplink.is_up = true;
                    self.done.connections += 1;
                }
                ToBusiness::Subscribe { request, link, since, .. } => {
                    self.done.requests += 1;
                    let at = now + Duration::from_millis(self.jitter.below(100));
                    // One in many is never answered: the relay gives it up after 10 s.
                    if self.is_quiet || self.jitter.below(400) > 0 {
                        uplink.asked.push((at, request, link.to_owned(), since));
                    }
                }
                ToBusiness::Unsubscribe { topic } => {
                    uplink.accepted.remove(&topic);
                    if let Some(room) = self.rooms.get_mut(&topic) {
                        room.sure_from = self.ping + 1;
                        self.sure.remove(&(topic, room.epoch));
                    }
                }
                ToBusiness::PageMessage { page, .. } => {
                    self.done.page_messages += 1;
                    if !self.is_quiet && self.jitter.below(40) == 0 {
                        kicked.push(page);
                    }
                }
                ToBusiness::Ping { nonce } => answers.push(ToRelay::Pong { nonce }),
                ToBusiness::Pong { nonce } => {
                    while let Some((number, places)) = uplink.pings.pop_front_if(|ping| ping.0 <= nonce) {
                        for (topic, epoch, next) in places {
                            let is_sure = self.rooms.get(&topic).is_some_and(|room| number >= room.sure_from);
                            if is_sure && topic < BRIEF {
                                self.sure.insert((topic, epoch), next);
                            }
                        }
                    }
                }
                ToBusiness::Audience { .. } => {}
            }
        }
        answers.iter().for_each(|answer| push(uplink, answer, 0));
        kicked.iter().for_each(|page| push(uplink, &ToRelay::Kick { page: *page, reason: "soak" }, 0));
        Ok(())
    }

    /// Answers what was asked long enough ago.
    fn answer(&mut self, index: usize, now: Instant) {
        let Some(uplink) = self.uplinks.get_mut(index) else { return };
        let due: Vec<_> = uplink.asked.extract_if(.., |asked| asked.0 <= now).collect();
        for (_, request, link, since) in due {
            let Some((topic, grant)) = meaning(&link) else {
                if let Some(uplink) = self.uplinks.get_mut(index) {
                    push(uplink, &ToRelay::Deny { request, reason: "the soak knows no such link" }, 0);
                }
                continue;
            };
            if !self.rooms.contains_key(&topic) {
                self.open(topic, now);
            }
            let Some((room, uplink)) = self.rooms.get_mut(&topic).zip(self.uplinks.get_mut(index)) else { continue };
            room.used = now;
            push(uplink, &ToRelay::Accept { request, topic, epoch: room.epoch, grant }, 0);
            uplink.accepted.insert(topic);
            for track in Track::ALL {
                let end = room.next[track.index()];
                let (epoch, next) = (room.epoch, since.map_or(0, |since| since.next[track.index()]));
                let wanted =
                    (since.is_some_and(|since| since.epoch == epoch) && (1..=end).contains(&next)).then_some(next);
                let from = match (track, wanted) {
                    (Track::State, Some(next)) => next.max(end - 1),
                    (Track::State, None) => end - 1,
                    (Track::Messages, Some(next)) => next.max(end.saturating_sub(HELD)),
                    (Track::Messages, None) => end.saturating_sub(LATE),
                    (_, Some(next)) if end == 1 || next >= content::group_of(end - 1) => next,
                    _ if end == 1 => 1,
                    _ => {
                        let group = content::group_of(end - 1);
                        let init = content::init_of(end - 1);
                        if init < group {
                            send(uplink, Place { topic, epoch, track, sequence: init }, &mut self.room);
                        }
                        group
                    }
                };
                for sequence in from.max(1)..end {
                    send(uplink, Place { topic, epoch, track, sequence }, &mut self.room);
                }
            }
        }
    }

    fn publish(&mut self, now: Instant) {
        let waits = self.uplinks.iter().filter(|uplink| !uplink.is_frozen).map(|uplink| uplink.out.len() - uplink.sent);
        if waits.max().unwrap_or(0) > OUT_SIZE_MAX {
            return;
        }
        let quiet_ms = if now < self.fills_until { FILL_MS } else { QUIET_MS };
        for (&topic, room) in &mut self.rooms {
            let interval = if content::HOT.contains(&topic) { self.hot_ms } else { quiet_ms };
            for track in Track::ALL {
                let every = Duration::from_millis(interval[track.index()]);
                let due = &mut room.due[track.index()];
                while *due <= now {
                    // What was held back for long is not made up for.
                    *due = (*due + every).max(now.checked_sub(Duration::from_secs(1)).unwrap_or(now));
                    let sequence = room.next[track.index()];
                    room.next[track.index()] += 1;
                    self.done.published[track.index()] += 1;
                    let place = Place { topic, epoch: room.epoch, track, sequence };
                    for uplink in &mut self.uplinks {
                        if uplink.is_up && !uplink.is_frozen && uplink.accepted.contains(&topic) {
                            room.used = now;
                            send(uplink, place, &mut self.room);
                        }
                    }
                }
            }
        }
    }

    fn ping_all(&mut self) {
        for uplink in self.uplinks.iter_mut().filter(|uplink| uplink.is_up && !uplink.is_frozen) {
            self.ping += 1;
            let places = uplink.accepted.iter().filter_map(|topic| {
                let room = self.rooms.get(topic)?;
                Some((*topic, room.epoch, room.next[Track::Messages.index()]))
            });
            uplink.pings.push_back((self.ping, places.collect()));
            push(uplink, &ToRelay::Ping { nonce: self.ping }, 0);
        }
    }

    fn go_wrong(&mut self, now: Instant) {
        let jitter = &mut self.jitter;
        if self.drops.comes(now, jitter) {
            let how = jitter.below(4);
            self.events.push(["closed", "reset", "cut in mid-frame", "garbage"][usize::try_from(how).unwrap_or(0)]);
            self.hang_up(how);
        }
        let jitter = &mut self.jitter;
        if self.epochs.comes(now, jitter) {
            self.events.push("new epoch");
            let how = jitter.below(2);
            self.hang_up(how);
            self.listeners = [None, None];
            self.listens_at = [now + Duration::from_millis(500 + self.jitter.below(2_500)); 2];
            self.restart();
        }
        let jitter = &mut self.jitter;
        if self.freezes.comes(now, jitter) {
            self.events.push("silent");
            self.uplinks.iter_mut().for_each(|uplink| uplink.is_frozen = true);
        }
        if self.moves.comes(now, jitter) {
            self.events.push("moved");
            self.listeners[0] = None;
            self.listens_at[0] = now + Duration::from_secs(15 + jitter.below(15));
            self.hang_up(0);
        }
        let jitter = &mut self.jitter;
        let number = u32::try_from(1 + jitter.below(u64::from(ROOMS))).unwrap_or(1);
        if self.revokes.comes(now, jitter) {
            let name = ["room", "also", "single"][usize::try_from(jitter.below(3)).unwrap_or(0)];
            let link = format!("{name}-{number}");
            self.forget(number, &ToRelay::Revoke { link: &link, reason: "soak" });
        } else if self.ends.comes(now, jitter) {
            self.forget(number, &ToRelay::End { topic: number, reason: "soak" });
            self.uplinks.iter_mut().for_each(|uplink| {
                uplink.accepted.remove(&number);
            });
        }
    }

    /// The relay may lose what it had of a topic.
    fn forget(&mut self, topic: u32, frame: &ToRelay<'_>) {
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        room.sure_from = self.ping + 1;
        self.sure.remove(&(topic, room.epoch));
        for uplink in self.uplinks.iter_mut().filter(|uplink| uplink.is_up && !uplink.is_frozen) {
            push(uplink, frame, 0);
        }
    }

    /// Every connection ends, in one of four ways.
    fn hang_up(&mut self, how: u64) {
        for mut uplink in self.uplinks.drain(..) {
            let _ = write(&mut uplink);
            match how {
                1 => drop(SockRef::from(&uplink.stream).set_linger(Some(Duration::ZERO))),
                2 => {
                    let place = Place { topic: 1, epoch: 0, track: Track::Messages, sequence: 1 };
                    uplink.out.clear();
                    uplink.sent = 0;
                    send(&mut uplink, place, &mut self.room);
                    uplink.out.truncate(uplink.out.len() / 2);
                    let _ = write(&mut uplink);
                }
                3 => drop((&uplink.stream).write(&[0xff; 16])),
                _ => {}
            }
        }
    }

    /// All counters begin anew.
    fn restart(&mut self) {
        let topics: Vec<u32> = self.rooms.keys().copied().collect();
        for topic in topics {
            self.epoch += 1;
            let Some(room) = self.rooms.get_mut(&topic) else { continue };
            if let Some(next) = self.sure.remove(&(topic, room.epoch)) {
                self.closed.insert((topic, room.epoch), next);
            }
            (room.epoch, room.next, room.sure_from) = (self.epoch, [1; 4], self.ping + 1);
        }
        // Nobody can be in an epoch that was over so many topics' epochs ago.
        let oldest = self.epoch.saturating_sub(1_000);
        self.closed.retain(|(_, epoch), _| *epoch > oldest);
    }
}

/// What a link shows and allows.
fn meaning(link: &str) -> Option<(u32, Grant)> {
    let (name, number) = link.split_once('-')?;
    let number: u32 = number.parse().ok()?;
    let grant = Grant { shared: true, ttl_s: 60, page_messages: true, replay: 50 };
    match name {
        "room" => Some((number, grant)),
        "also" => Some((number, Grant { page_messages: false, replay: 5, ttl_s: 20, ..grant })),
        "single" => Some((number, Grant { shared: false, ttl_s: 0, ..grant })),
        "hot" => Some((content::HOT.start + number, grant)),
        "brief" => Some((BRIEF + number, grant)),
        _ => None,
    }
}

fn send(uplink: &mut Uplink, place: Place, room: &mut Vec<u8>) {
    room.clear();
    content::write(place, room);
    let Place { topic, track, sequence, .. } = place;
    let part: Part<'_> = content::part(track, sequence);
    push(uplink, &ToRelay::Publish { topic, track, sequence, part, data: room }, room.len());
}

fn push(uplink: &mut Uplink, frame: &ToRelay<'_>, data_size: usize) {
    let from = uplink.out.len();
    uplink.out.resize(from + LENGTH_SIZE + HEAD_SIZE_MAX + data_size, 0);
    let size = uplink.out.get_mut(from..).and_then(|room| encode(frame, room)).unwrap_or(0);
    uplink.out.truncate(from + size);
}

/// Writes as much as the relay takes.
fn write(uplink: &mut Uplink) -> Result<(), ()> {
    while uplink.sent < uplink.out.len() {
        match uplink.stream.write(uplink.out.get(uplink.sent..).unwrap_or_default()) {
            Ok(0) => return Err(()),
            Ok(size) => uplink.sent += size,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return Err(()),
        }
    }
    if uplink.sent == uplink.out.len() {
        uplink.out.clear();
        uplink.sent = 0;
    } else if uplink.sent > 1 << 20 {
        uplink.out.drain(..uplink.sent);
        uplink.sent = 0;
    }
    Ok(())
}
