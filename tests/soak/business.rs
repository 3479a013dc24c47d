//! The business server of the soak: rooms that publish on all four tracks, and scheduled faults.
//!
//! Owns the far ends of the uplink (two addresses), the rooms' counters, and the calendar of
//! faults: connections that end in order, with a reset, in mid-frame or with garbage, that fall
//! silent, or that move to the second address; new epochs; revoked links, ended topics, kicked
//! pages. From pings and pongs it knows what the relay has received for certain, which the relay
//! must then deliver or report to its pages.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use business::{Ended, Event, Limits, RelayId, Settings};
use relay::time::Jitter;
use socket2::SockRef;
use wire::Track;
use wire::uplink::{Grant, Since, marked};

use super::clock;
use super::content::{self, Place};
use super::view::Closed;

/// The uplink's shared secret.
pub const SECRET: &str = "a secret of the soak";
/// Link `room-N` leads to topic N, for 1 to this.
pub const ROOMS: u32 = 96;
/// Links `brief-…` lead to topics from this number on.
const BRIEF: u32 = 10_000;
/// Messages kept for replay, and their bytes: some have 66 000.
const HELD: (usize, usize) = (300, 1 << 20);
/// Messages replayed to a late page.
const LATE: u16 = 50;
/// Bytes buffered for a relay that reads nothing.
const OUT_SIZE_MAX: usize = 4 << 20;
/// Milliseconds between publications of a topic, by track.
const QUIET_MS: [u64; 4] = [10_000, 1_000, 2_000, 2_000];
/// The same while the rings fill: a ring's 1 024 frames take 41 s.
const FILL_MS: [u64; 4] = [200, 40, 40, 40];

/// How often each fault occurs, seconds.
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    /// Milliseconds between publications of a hot topic, by track.
    pub hot_ms: [u64; 4],
    /// The rings are filled for this long at first, so that every index row and block has been
    /// touched once.
    pub fill_s: u64,
    pub drop_s: u64,
    pub epoch_s: u64,
    pub freeze_s: u64,
    pub move_s: u64,
    pub revoke_s: u64,
    pub end_s: u64,
}

/// A periodic fault, and when it is next due.
struct Due {
    every: Duration,
    at: Instant,
}

impl Due {
    fn new(every_s: u64, now: Instant) -> Self {
        let every = Duration::from_secs(every_s);
        Self { every, at: now + every }
    }

    /// Whether it is due. The next interval is drawn between 0.5 and 1.5 of the period.
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
    due: [Instant; 4],
    /// The first round of pings whose pongs prove what the relay has of the topic.
    sure_from: u32,
    used: Instant,
}

/// An unanswered ping.
struct Ping {
    nonce: u32,
    round: u32,
    /// Each topic as the ping was sent: number, epoch and next message.
    places: Vec<(u32, u64, u64)>,
}

struct Uplink {
    id: RelayId,
    stream: TcpStream,
    out: Vec<u8>,
    sent: usize,
    is_up: bool,
    is_frozen: bool,
    is_over: bool,
    accepted: HashSet<u32>,
    asked: Vec<(Instant, u32, String, Option<Since>)>,
    pings: VecDeque<Ping>,
}

/// Publications and requests so far.
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
    machine: business::Business,
    start: Instant,
    uplinks: Vec<Uplink>,
    rooms: BTreeMap<u32, Room>,
    sure: HashMap<(u32, u64), u64>,
    /// Ended epochs.
    pub closed: Closed,
    /// Faults since the last report.
    pub events: Vec<&'static str>,
    pub done: Done,
    /// No more publications and faults.
    pub is_quiet: bool,
    jitter: Jitter,
    hot_ms: [u64; 4],
    fills_until: Instant,
    epoch: u64,
    /// Rounds of pings so far.
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
        let limits =
            Limits { messages_max: HELD.0, messages_size_max: HELD.1, receipts_max: 10_000, ..Limits::default() };
        let settings = Settings { secrets: vec![SECRET.into()], limits, ..Settings::default() };
        let mut business = Self {
            listeners: listeners.map(Some),
            addresses,
            machine: business::Business::new(settings),
            start: now,
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

    /// The two addresses that it listens on.
    pub fn addresses(&self) -> [SocketAddr; 2] {
        self.addresses
    }

    /// Whether a relay is connected and read from.
    pub fn is_up(&self) -> bool {
        self.uplinks.iter().any(|uplink| uplink.is_up && !uplink.is_frozen)
    }

    /// The next message of a topic, where `epoch` is its current one.
    pub fn next_message(&self, topic: u32, epoch: u64) -> Option<u64> {
        let open = self.machine.topic(topic).filter(|open| open.epoch() == epoch)?;
        Some(open.track(Track::Messages).next())
    }

    /// Does what is due.
    pub fn turn(&mut self, now: Instant) -> Result<(), String> {
        self.accept(now);
        for index in 0..self.uplinks.len() {
            self.read(index, now);
        }
        self.hear(now)?;
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
            self.close_brief(now);
        }
        for uplink in self.uplinks.iter_mut().filter(|uplink| !uplink.is_frozen) {
            take(&mut self.machine, uplink);
            uplink.is_over |= write(uplink).is_err();
        }
        while self.machine.poll_ready().is_some() {}
        let machine = &mut self.machine;
        self.uplinks.retain(|uplink| !uplink.is_over || disconnect(machine, uplink.id));
        Ok(())
    }

    fn open(&mut self, topic: u32, now: Instant) {
        self.epoch += 1;
        self.machine.open(topic, self.epoch);
        let interval = if content::HOT.contains(&topic) { self.hot_ms } else { QUIET_MS };
        let jitter = &mut self.jitter;
        let due = interval.map(|ms| now + Duration::from_millis(jitter.below(ms)));
        self.rooms.insert(topic, Room { due, sure_from: 0, used: now });
    }

    /// Forgets short-lived topics without pages for 2 minutes.
    fn close_brief(&mut self, now: Instant) {
        for (topic, _) in self.rooms.extract_if(BRIEF.., |_, room| now >= room.used + Duration::from_secs(120)) {
            self.machine.forget(topic, "soak");
        }
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
            // The relay has given up on a silent connection.
            let machine = &mut self.machine;
            self.uplinks.retain(|uplink| !uplink.is_frozen || disconnect(machine, uplink.id));
            let mut random = [0; 12];
            random[..8].copy_from_slice(&self.jitter.bits().to_le_bytes());
            let id = self.machine.connect(now - self.start, marked(random));
            self.uplinks.push(Uplink {
                id,
                stream,
                out: Vec::new(),
                sent: 0,
                is_up: false,
                is_frozen: false,
                is_over: false,
                accepted: HashSet::new(),
                asked: Vec::new(),
                pings: VecDeque::new(),
            });
        }
    }

    fn read(&mut self, index: usize, now: Instant) {
        let Some(uplink) = self.uplinks.get_mut(index).filter(|uplink| !uplink.is_frozen) else { return };
        let mut bytes = [0; 64 * 1024];
        match uplink.stream.read(&mut bytes) {
            Ok(size @ 1..) => drop(self.machine.received(now - self.start, uplink.id, &bytes[..size])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // The relay has switched to another connection.
            Ok(0) | Err(_) => uplink.is_over = true,
        }
    }

    /// Handles the relay's frames.
    fn hear(&mut self, now: Instant) -> Result<(), String> {
        while let Some(event) = self.machine.poll_event() {
            let of = |relay: RelayId, uplinks: &mut Vec<Uplink>| uplinks.iter().position(|uplink| uplink.id == relay);
            match event {
                Event::RelayUp { relay, .. } => {
                    self.done.connections += 1;
                    self.uplinks.iter_mut().filter(|uplink| uplink.id == relay).for_each(|uplink| uplink.is_up = true);
                }
                // Closed by the soak. Any other end is the relay's fault.
                Event::RelayDown { why: Ended::Closed(_), .. } => {}
                Event::RelayDown { why, .. } => return Err(format!("the uplink: {why}")),
                Event::Asked { relay, request, link, since, .. } => {
                    self.done.requests += 1;
                    let at = now + Duration::from_millis(self.jitter.below(100));
                    // One in 400 is never answered: the relay times out after 10 s.
                    if (self.is_quiet || self.jitter.below(400) > 0)
                        && let Some(index) = of(relay, &mut self.uplinks)
                    {
                        self.uplinks[index].asked.push((at, request, link, since));
                    }
                }
                Event::Unsubscribed { relay, topic } => {
                    if let Some(index) = of(relay, &mut self.uplinks) {
                        self.uplinks[index].accepted.remove(&topic);
                    }
                    self.unsure(topic);
                }
                Event::PageMessage { topic, relay, page, id, .. } => {
                    self.done.page_messages += 1;
                    id.iter().for_each(|id| self.machine.confirm(topic, id));
                    if !self.is_quiet && self.jitter.below(40) == 0 {
                        self.machine.kick(relay, page, "soak");
                    }
                }
                Event::Pong { relay, nonce } => {
                    if let Some(index) = of(relay, &mut self.uplinks) {
                        self.answered(index, nonce);
                    }
                }
                Event::Audience { .. } => {}
            }
        }
        Ok(())
    }

    /// A pong proves that the relay has everything sent before the ping.
    fn answered(&mut self, index: usize, nonce: u32) {
        while let Some(ping) = self.uplinks[index].pings.pop_front_if(|ping| ping.nonce <= nonce) {
            for (topic, epoch, next) in ping.places {
                let is_sure = self.rooms.get(&topic).is_some_and(|room| ping.round >= room.sure_from);
                if is_sure && topic < BRIEF {
                    self.sure.insert((topic, epoch), next);
                }
            }
        }
    }

    /// Answers the requests whose delay is over.
    fn answer(&mut self, index: usize, now: Instant) {
        let Some(uplink) = self.uplinks.get_mut(index) else { return };
        let relay = uplink.id;
        let due: Vec<_> = uplink.asked.extract_if(.., |asked| asked.0 <= now).collect();
        for (_, request, link, since) in due {
            let Some((topic, grant)) = meaning(&link) else {
                self.machine.deny(relay, request, "the soak knows no such link");
                continue;
            };
            if !self.rooms.contains_key(&topic) {
                self.open(topic, now);
            }
            if let Some(room) = self.rooms.get_mut(&topic) {
                room.used = now;
            }
            let is_open = self.machine.topic(topic).is_some();
            if !is_open {
                self.epoch += 1;
                self.machine.open(topic, self.epoch);
            }
            if self.machine.accept(relay, request, (topic, grant), since).is_ok() {
                self.uplinks[index].accepted.insert(topic);
            }
        }
    }

    fn publish(&mut self, now: Instant) {
        let quiet_ms = if now < self.fills_until { FILL_MS } else { QUIET_MS };
        for (&topic, room) in &mut self.rooms {
            let Some(epoch) = self.machine.topic(topic).map(business::Topic::epoch) else { continue };
            let interval = if content::HOT.contains(&topic) { self.hot_ms } else { quiet_ms };
            if self.uplinks.iter().any(|uplink| uplink.accepted.contains(&topic)) {
                room.used = now;
            }
            for track in Track::ALL {
                let every = Duration::from_millis(interval[track.index()]);
                let due = &mut room.due[track.index()];
                while *due <= now {
                    // A backlog of more than a second is skipped.
                    *due = (*due + every).max(now.checked_sub(Duration::from_secs(1)).unwrap_or(now));
                    let Some(sequence) = self.machine.topic(topic).map(|open| open.track(track).next()) else { break };
                    self.room.clear();
                    content::write(Place { topic, epoch, track, sequence }, &mut self.room);
                    if self.machine.publish(topic, track, content::part(track, sequence), &self.room).is_ok() {
                        self.done.published[track.index()] += 1;
                    }
                }
            }
        }
    }

    fn ping_all(&mut self) {
        self.ping += 1;
        for uplink in self.uplinks.iter_mut().filter(|uplink| uplink.is_up && !uplink.is_frozen) {
            // Frames not taken yet would be sent after the ping.
            if !take(&mut self.machine, uplink) {
                continue;
            }
            let places = uplink.accepted.iter().filter_map(|topic| {
                let open = self.machine.topic(*topic)?;
                Some((*topic, open.epoch(), open.track(Track::Messages).next()))
            });
            let places = places.collect();
            let Some(nonce) = self.machine.ping(uplink.id) else { continue };
            uplink.pings.push_back(Ping { nonce, round: self.ping, places });
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
            self.unsure(number);
            self.machine.revoke(&format!("{name}-{number}"), "soak");
        } else if self.ends.comes(now, jitter) {
            self.unsure(number);
            self.machine.end(number, "soak");
            for uplink in &mut self.uplinks {
                uplink.accepted.remove(&number);
            }
        }
    }

    /// The relay may now discard the topic: nothing is proven about it until the next ping.
    fn unsure(&mut self, topic: u32) {
        let Some(room) = self.rooms.get_mut(&topic) else { return };
        room.sure_from = self.ping + 1;
        if let Some(open) = self.machine.topic(topic) {
            self.sure.remove(&(topic, open.epoch()));
        }
    }

    /// Ends every connection, in one of four ways.
    fn hang_up(&mut self, how: u64) {
        for mut uplink in self.uplinks.drain(..) {
            take(&mut self.machine, &mut uplink);
            let _ = write(&mut uplink);
            match how {
                1 => drop(SockRef::from(&uplink.stream).set_linger(Some(Duration::ZERO))),
                // A length prefix with an incomplete body.
                2 => drop((&uplink.stream).write(&[9, 0, 0, 0, 4, 1])),
                3 => drop((&uplink.stream).write(&[0xff; 16])),
                _ => {}
            }
            disconnect(&mut self.machine, uplink.id);
        }
    }

    /// Starts a new epoch in every topic.
    fn restart(&mut self) {
        for (&topic, room) in &mut self.rooms {
            let before = self.machine.topic(topic).map(business::Topic::epoch);
            if let Some(next) = before.and_then(|epoch| self.sure.remove(&(topic, epoch))) {
                self.closed.insert((topic, before.unwrap_or_default()), next);
            }
            self.epoch += 1;
            self.machine.open(topic, self.epoch);
            room.sure_from = self.ping + 1;
        }
        // No page is still in an epoch this old.
        let oldest = self.epoch.saturating_sub(1_000);
        self.closed.retain(|(_, epoch), _| *epoch > oldest);
    }
}

/// A link's topic and grant.
fn meaning(link: &str) -> Option<(u32, Grant)> {
    let (name, number) = link.split_once('-')?;
    let number: u32 = number.parse().ok()?;
    let grant = Grant { shared: true, ttl_s: 60, page_messages: true, replay: LATE };
    match name {
        "room" => Some((number, grant)),
        "also" => Some((number, Grant { page_messages: false, replay: 5, ttl_s: 20, ..grant })),
        "single" => Some((number, Grant { shared: false, ttl_s: 0, ..grant })),
        "hot" => Some((content::HOT.start + number, grant)),
        "brief" => Some((BRIEF + number, grant)),
        _ => None,
    }
}

/// Disconnects a relay from the machine. Returns `false`, for use in `retain`.
fn disconnect(machine: &mut business::Business, relay: RelayId) -> bool {
    machine.disconnect(relay, Ended::Closed("soak".to_owned()));
    false
}

/// Takes the frames queued for the relay, up to the buffer's limit; whether that was all.
fn take(machine: &mut business::Business, uplink: &mut Uplink) -> bool {
    let mut frames: Vec<Arc<[u8]>> = Vec::new();
    let room = OUT_SIZE_MAX.saturating_sub(uplink.out.len() - uplink.sent);
    machine.take(uplink.id, room, &mut frames);
    let taken: usize = frames.iter().map(|frame| frame.len()).sum();
    frames.iter().for_each(|frame| uplink.out.extend_from_slice(frame));
    taken < room
}

/// Writes until the socket is full.
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
