//! The business server as in docs/protocol.md, naive and honest, but slow, forgetful and rude on
//! purpose; and what it may expect of the relay's frames.

use std::collections::{HashMap, HashSet, VecDeque};

use relay::time::Jitter;
use wire::Track;
use wire::page::MessageId;
use wire::uplink::{
    AWAY, Grant, Part, RECEIPTS, Since, ToBusiness, ToRelay, VERSION, business_proof, decode_any_to_business, encode,
    is_marked, relay_proof,
};

use super::archive::{Archive, Item, What};
use super::{World, ensure};

pub const SECRET: &[u8] = b"secret";
/// Messages that the business server keeps for replay.
const HELD: usize = 8;
/// Sequences stay below this.
const SEQUENCE_END: u64 = 1 << 53;

/// A link's room and grant.
pub struct Link {
    pub name: String,
    pub room: usize,
    /// Whether its grants are shared: always, never, or at random.
    pub shared: Option<bool>,
    pub ttl_s: u32,
    pub replay: u16,
    pub page_messages: bool,
    pub is_dead: bool,
    /// The business server decides by address here: it denies the link as a whole.
    pub is_shy: bool,
}

/// The address that is banned wherever pages are requested by name and grants are not shared.
pub const BANNED: &str = "10.0.0.2";
/// The reason that its pages get, and no others.
pub const BAN: &str = "you are banned";

/// A pending request.
pub struct Pending {
    pub request: u32,
    pub link: String,
    pub since: Option<Since>,
    /// The page that it names; empty for the link as a whole.
    pub address: String,
    /// When its answer is due, if it is delayed.
    pub due: Option<u64>,
}

/// A room behind links.
pub struct Room {
    pub topic: u32,
    pub epoch: u64,
}

/// A frame on its way to the relay.
pub struct Outgoing {
    pub bytes: Vec<u8>,
    pub effect: Effect,
    /// An invalid frame: the relay must end the connection.
    pub is_garbage: bool,
}

/// What a frame changes in the model once the relay has it.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    None,
    /// With the expiry of the grant, if it is shared and has one.
    Accept {
        request: u32,
        topic: u32,
        epoch: u64,
        shared: bool,
        until: Option<u64>,
    },
    Answer {
        request: u32,
    },
    Publish {
        topic: u32,
        track: Track,
        sequence: u64,
    },
    End {
        topic: u32,
    },
    Welcome,
    Features {
        receipts: bool,
    },
    Sent {
        page: u32,
        id: MessageId,
    },
}

/// The nonces of a connection on which the relay authenticated.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub challenge: [u8; 16],
    pub hello: [u8; 16],
    pub has_receipts: bool,
}

/// A `Subscribe` as sent.
#[derive(Clone, Debug)]
pub struct Asked {
    pub link: String,
    pub at: u64,
    pub is_whole: bool,
    /// The page that it names; empty for the link as a whole.
    pub address: String,
    /// The link was denied since: the relay ignores the answer.
    pub is_void: bool,
}

/// The server's side of one connection.
#[derive(Default)]
pub struct Server {
    /// The relay's subscriptions, with their epoch.
    pub subscribed: HashMap<u32, u64>,
    /// Pending requests.
    pub pending: Vec<Pending>,
    pub inbox: Vec<u8>,
    pub outbox: VecDeque<Outgoing>,
    /// Topics that the relay knows: the last audience reported for each.
    pub audience: HashMap<u32, (u32, u64)>,
    pub nonce: [u8; 16],
    pub is_welcome: bool,
    /// Requests whose answers have not reached the relay.
    pub under_way: HashMap<u32, Asked>,
    /// Topics accepted on this connection, and since when.
    pub accepted: HashMap<u32, u64>,
    pub numbers: HashSet<u32>,
    /// Links accepted on this connection: as shared, or for which address.
    pub shared: HashSet<String>,
    pub own: HashSet<(String, String)>,
    /// Whether it named `away`, and whether it asked the relay to leave.
    pub knows_away: bool,
    /// Whether it named `receipts`.
    pub knows_receipts: bool,
    pub wants_to_end: bool,
}

fn encoded(frame: &ToRelay<'_>) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 21];
    let size = encode(frame, &mut bytes).expect("every frame of the simulation fits");
    bytes.truncate(size);
    bytes
}

impl World {
    /// Sends a frame of the business server.
    pub fn push(&mut self, frame: &ToRelay<'_>, effect: Effect) {
        let bytes = encoded(frame);
        self.server.outbox.push_back(Outgoing { bytes, effect, is_garbage: false });
    }

    /// Sends something that must end the connection, at any point of the conversation.
    pub fn push_garbage(&mut self) {
        let (topic, sequence, data) = (1, 1, &b"1"[..]);
        let publish = |track, sequence, part| encoded(&ToRelay::Publish { topic, track, sequence, part, data });
        let framed = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_le_bytes()[..], body].concat();
        let mime = "m".repeat(300);
        let whole = encoded(&ToRelay::Pong { nonce: 1 });
        let known = [self.server.knows_away, self.server.knows_receipts, is_marked(&self.server.nonce)];
        let bytes = match self.rng.below(12 + known.iter().take_while(|known| !**known).count() as u64) {
            0 => vec![0; 4],
            1 => vec![0xff; 9],
            2 => framed(&[&whole[4..], b"x"].concat()),
            3 => framed(&whole[4..whole.len() - 1]),
            4 => framed(&[77, 1, 2]),
            5 => publish(Track::Messages, 0, Part::Whole),
            6 => publish(Track::State, SEQUENCE_END, Part::Whole),
            7 => publish(Track::Video, sequence, Part::Whole),
            8 => publish(Track::Messages, sequence, Part::Start),
            9 => framed(&[3, 1, 2, 0xff, 0xfe]),
            10 => framed(&[5, 200, 1]),
            12 => encoded(&ToRelay::Away { within_s: 5 }),
            13 => encoded(&ToRelay::Sent { page: 1, id: [1; 16] }),
            14 => encoded(&ToRelay::Features { words: AWAY }),
            _ => {
                // A MIME type that is too long is a fault of the publication, not of the frame:
                // only the publication is dropped. So cut it.
                let long = publish(Track::Audio, sequence, Part::Init { mime: &mime });
                framed(&long[4..long.len() - 2])
            }
        };
        self.server.outbox.push_back(Outgoing { bytes, effect: Effect::None, is_garbage: true });
    }

    /// The business server reads a number of whole frames.
    pub fn process(&mut self, frames: u64) -> Result<(), String> {
        for _ in 0..frames {
            let Some(length) = self.server.inbox.first_chunk::<4>() else { return Ok(()) };
            let size = u32::from_le_bytes(*length) as usize;
            if self.server.inbox.len() < 4 + size {
                return Ok(());
            }
            let body: Vec<u8> = self.server.inbox.drain(..4 + size).skip(4).collect();
            let frame = decode_any_to_business(&body).map_err(|error| format!("a frame of the relay: {error:?}"))?;
            self.process_frame(frame)?;
        }
        Ok(())
    }

    fn process_frame(&mut self, frame: ToBusiness<'_>) -> Result<(), String> {
        match frame {
            ToBusiness::Hello { version, relay, nonce, proof } => {
                ensure!(version == VERSION && relay == "box", "Hello says {version} {relay}");
                ensure!(proof == relay_proof(SECRET, &self.server.nonce, &nonce), "the relay's proof is wrong");
                let proof = business_proof(SECRET, &nonce, &self.server.nonce);
                self.connections.push(Connection { challenge: self.server.nonce, hello: nonce, has_receipts: false });
                self.push(&ToRelay::Welcome { version: VERSION, proof }, Effect::Welcome);
            }
            ToBusiness::Subscribe { request, link, since, page } => {
                let (link, address) = (link.to_owned(), page.address.to_owned());
                self.server.pending.push(Pending { request, link, since, address, due: None });
            }
            ToBusiness::Unsubscribe { topic } => {
                self.server.subscribed.remove(&topic);
                self.server.audience.remove(&topic);
            }
            ToBusiness::Audience { topic, pages } => {
                let now = self.now.0;
                self.server.audience.insert(topic, (pages, now));
            }
            ToBusiness::Ping { nonce } => self.push(&ToRelay::Pong { nonce }, Effect::None),
            ToBusiness::Features { .. } => {
                let words = ["away", "receipts away later", "receipts", ""][self.rng.below(4) as usize];
                self.server.knows_away = words.contains(AWAY);
                let receipts = words.contains(RECEIPTS);
                self.server.knows_receipts = receipts;
                self.push(&ToRelay::Features { words }, Effect::Features { receipts });
                if self.server.knows_away && self.rng.below(4) == 0 {
                    self.did("a relay asked to leave");
                    self.server.wants_to_end = true;
                    let within_s = self.rng.below(20) as u32;
                    self.push(&ToRelay::Away { within_s }, Effect::None);
                }
            }
            ToBusiness::Send { page, id, .. } => {
                // Now and then it answers twice, or never, or a page that sent nothing.
                for _ in 0..[0, 1, 1, 1, 2][self.rng.below(5) as usize] {
                    let page = if self.rng.below(20) == 0 { page + 1 } else { page };
                    self.push(&ToRelay::Sent { page, id }, Effect::Sent { page, id });
                }
            }
            ToBusiness::PageMessage { .. } | ToBusiness::Pong { .. } => {}
        }
        Ok(())
    }

    /// Answers a request: accepts it if its link is good.
    pub fn answer(&mut self, index: usize) {
        if index >= self.server.pending.len() {
            return;
        }
        let Pending { request, link: name, since, address, due } = self.server.pending.remove(index);
        if due.is_some() {
            self.did("an answer given late");
        }
        let Some(link) = self.links.iter().find(|link| link.name == name && !link.is_dead) else {
            let reason =
                ["no such link", "expired", "\"\\\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}"];
            let reason = reason[self.rng.below(3) as usize].repeat(1 + self.rng.below(9) as usize);
            self.push(&ToRelay::Deny { request, reason: &reason }, Effect::Answer { request });
            return;
        };
        if link.is_shy && address.is_empty() {
            self.did("a link denied to nobody in particular");
            self.push(&ToRelay::Deny { request, reason: "who asks?" }, Effect::Answer { request });
            return;
        }
        let shared = link.shared.unwrap_or_else(|| self.rng.below(2) == 0);
        if !shared && address == BANNED {
            self.did("a page denied by name");
            self.push(&ToRelay::Deny { request, reason: BAN }, Effect::Answer { request });
            return;
        }
        let link = self.links.iter().find(|link| link.name == name).expect("it was found");
        let grant = Grant { shared, ttl_s: link.ttl_s, page_messages: link.page_messages, replay: link.replay };
        let (topic, epoch, replay) = (self.rooms[link.room].topic, self.rooms[link.room].epoch, link.replay);
        let is_twice = self.rng.below(12) == 0;
        if is_twice {
            self.did("an answer given twice");
        }
        for _ in 0..1 + u64::from(is_twice) {
            let until = (shared && grant.ttl_s > 0).then(|| self.now.0 + u64::from(grant.ttl_s) * 1000);
            let effect = Effect::Accept { request, topic, epoch, shared, until };
            self.push(&ToRelay::Accept { request, topic, epoch, grant }, effect);
        }
        self.server.subscribed.insert(topic, epoch);
        for track in Track::ALL {
            self.replay(topic, epoch, track, since, replay);
        }
    }

    fn replay(&mut self, topic: u32, epoch: u64, track: Track, since: Option<Since>, replay: u16) {
        let history = self.archive.of(topic, epoch, track);
        let wanted = since.filter(|since| since.epoch == epoch).map_or(0, |since| since.next[track.index()]);
        let wanted = if wanted > history.next() { 0 } else { wanted };
        let all: Vec<u64> = history.items.keys().copied().collect();
        let mut chosen: Vec<u64> = match track {
            Track::State => all.iter().rev().take(1).copied().filter(|&sequence| sequence >= wanted).collect(),
            Track::Messages => {
                let held = &all[all.len().saturating_sub(HELD)..];
                match wanted {
                    0 => held[held.len().saturating_sub(replay.into())..].to_vec(),
                    _ => held.iter().copied().filter(|&sequence| sequence >= wanted).collect(),
                }
            }
            Track::Audio | Track::Video => {
                let start = history.newest(What::Start);
                let init = start.map_or(history.newest(What::Init).unwrap_or(0), |start| history.items[&start].init);
                let from = start.unwrap_or(u64::MAX);
                let is_held = wanted != 0 && wanted > init.max(1) && wanted <= from;
                let from = if is_held { wanted } else { from };
                all.iter()
                    .copied()
                    .filter(|&s| s >= from || (s == init && s >= wanted) || (start.is_none() && s == init))
                    .collect()
            }
        };
        if track == Track::Messages && self.rng.below(8) == 0 {
            // It may limit a replay; what it leaves out is a gap.
            chosen.drain(..chosen.len() / 2);
        }
        for sequence in chosen {
            self.push_publication(topic, epoch, track, sequence);
        }
    }

    fn push_publication(&mut self, topic: u32, epoch: u64, track: Track, sequence: u64) {
        let item = self.archive.item(topic, epoch, track, sequence).expect("only what was published").clone();
        let part = match item.what {
            What::Whole => Part::Whole,
            What::Init => Part::Init { mime: &item.mime },
            What::Start => Part::Start,
            What::Continue => Part::Continue,
        };
        let frame = ToRelay::Publish { topic, track, sequence, part, data: &item.data };
        self.push(&frame, Effect::Publish { topic, track, sequence });
    }

    /// Publishes something new in a room.
    pub fn publish(&mut self, room: usize, track: Track, what: What, is_good: bool) {
        let (topic, epoch) = (self.rooms[room].topic, self.rooms[room].epoch);
        let limits = match (track, what) {
            (_, What::Init) => self.board.init,
            (Track::State, _) => self.board.state,
            (Track::Messages, _) => self.board.messages,
            (Track::Audio, _) => self.board.audio,
            (Track::Video, _) => self.board.video,
        };
        let max = limits.data_size_max as usize;
        let mut rng = Jitter::new(self.rng.bits());
        let history = self.archive.of(topic, epoch, track);
        if rng.below(12) == 0 {
            // Something that no page will ever see.
            history.next = history.next() + 1 + rng.below(3);
        }
        let sequence = history.next();
        if sequence >= SEQUENCE_END {
            // Only a new epoch has more.
            self.did("counters that are used up");
            self.new_epoch(room);
            return;
        }
        history.next = sequence + 1;
        let init = history.newest(What::Init).unwrap_or(0);
        // The largest size, often only if that is small.
        let often = if max < 1_000 { 4 } else { 40 };
        let size = if rng.below(often) == 0 { max } else { 4 + rng.below(max.min(2_000) as u64 - 4) as usize };
        let mime = if rng.below(8) == 0 { "m".repeat(255) } else { "video/mp4".to_owned() };
        let mut data = if track.is_media() {
            (0..size).map(|_| rng.bits().to_be_bytes()[0]).collect()
        } else {
            format!("\"{}\"", "x".repeat(size - 2 - sequence.to_string().len().min(size - 2)) + &sequence.to_string())
                .into_bytes()
        };
        data.truncate(max);
        let mut good = true;
        if !is_good {
            good = false;
            if track.is_media() || rng.below(2) == 0 {
                let extra = if rng.below(2) == 0 { 1 } else { 2_000 };
                let last = data.pop().unwrap_or(b'x');
                data.resize(max + extra, b'x');
                data.push(last);
            } else {
                data.push(b',');
                data.truncate(max);
                data[0] = b',';
            }
        }
        history.items.insert(sequence, Item { what, mime, data, good, init });
        if self.server.subscribed.get(&topic) == Some(&epoch) {
            self.push_publication(topic, epoch, track, sequence);
        }
    }

    /// Publishes something again.
    pub fn publish_again(&mut self, room: usize, track: Track) {
        let (topic, epoch) = (self.rooms[room].topic, self.rooms[room].epoch);
        let Some(&(held, next)) = self.received.get(&topic) else { return };
        let next = if held == epoch { next[track.index()] } else { 0 };
        let sequences = self.archive.of(topic, epoch, track).items.keys().copied();
        let sequences: Vec<u64> = sequences.filter(|&sequence| sequence < next).collect();
        if self.server.subscribed.get(&topic) == Some(&epoch) && !sequences.is_empty() {
            let which = self.rng.below(sequences.len() as u64) as usize;
            // Only what was sent before: otherwise it would be new to the relay.
            self.push_publication(topic, epoch, track, sequences[which]);
        }
    }

    /// Ends a topic for all.
    pub fn end(&mut self, room: usize) {
        let topic = self.rooms[room].topic;
        if self.server.is_welcome {
            self.push(&ToRelay::End { topic, reason: "the room closed" }, Effect::End { topic });
            self.server.subscribed.remove(&topic);
            self.server.audience.remove(&topic);
        }
    }

    /// A room starts a new epoch, or returns to a former one: the relay learns it from the next
    /// `Accept`.
    pub fn new_epoch(&mut self, room: usize) {
        let is_back = self.rooms[room].epoch > 1 && self.one_in(4);
        if is_back {
            self.did("an epoch that was there before");
        }
        let room = &mut self.rooms[room];
        room.epoch = match self.rng.below(4) {
            _ if is_back => 1 + self.rng.below(room.epoch - 1),
            more => room.epoch + 1 + more % 3,
        };
        self.server.subscribed.remove(&room.topic);
    }

    /// Rooms near the end of their counters start a new epoch.
    pub fn refresh_counters(&mut self) {
        for room in &mut self.rooms {
            let next = |archive: &mut Archive, epoch, track| archive.of(room.topic, epoch, track).next();
            while Track::ALL.iter().any(|&track| next(&mut self.archive, room.epoch, track) > SEQUENCE_END - 100) {
                room.epoch += 1;
            }
        }
    }

    /// Checks frames that the relay has just encoded.
    pub fn observe(&mut self) -> Result<(), String> {
        let unseen = self.observed - self.written;
        let bytes = self.relay.uplink_transmit().get(unseen..).ok_or("bytes to the business server vanished")?.to_vec();
        let mut rest = &bytes[..];
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let (body, behind) =
                behind.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or("half a frame was encoded")?;
            let frame = decode_any_to_business(body).map_err(|error| format!("a frame of the relay: {error:?}"))?;
            self.note(|_| format!("relay says {frame:?}"));
            self.observe_frame(frame).map_err(|error| format!("{error}: {frame:?}"))?;
            rest = behind;
        }
        ensure!(rest.is_empty(), "half a length was encoded");
        self.observed += bytes.len();
        Ok(())
    }

    fn observe_frame(&mut self, frame: ToBusiness<'_>) -> Result<(), String> {
        if matches!(frame, ToBusiness::Hello { .. }) {
            return Ok(());
        }
        ensure!(self.server.is_welcome, "it comes before Welcome");
        match frame {
            ToBusiness::Hello { .. } => {}
            ToBusiness::Subscribe { request, link, since, page } => {
                ensure!(self.server.numbers.insert(request), "the request's number was used before");
                if !page.address.is_empty() {
                    let is_known = self.pages.iter().any(|other| {
                        other.address.to_string() == page.address
                            && (page.origin.is_empty() || other.origin == page.origin)
                            && other.asked.iter().any(|asked| asked == link)
                    });
                    ensure!(is_known, "no such page asked for that link");
                }
                let now = self.now.0;
                let young = self.server.under_way.values().filter(|asked| now < asked.at + 10_000);
                ensure!(young.clone().count() < self.board.requests_max as usize, "too many requests under way");
                // A link accepted by name only may have a request for each page.
                let is_shared =
                    self.links.iter().any(|other| other.name == link && other.shared == Some(true) && !other.is_shy);
                ensure!(
                    !is_shared || !young.clone().any(|asked| asked.link == link && !asked.is_void),
                    "a herd costs one request, and one is under way"
                );
                self.check_since(link, since, page.address.is_empty())?;
                self.asked_at.insert(link.to_owned(), now);
                let (link, is_whole) = (link.to_owned(), page.address.is_empty());
                let address = page.address.to_owned();
                self.server.under_way.insert(request, Asked { link, at: now, is_whole, address, is_void: false });
            }
            ToBusiness::Unsubscribe { topic } => {
                self.model_forgets(topic);
                self.server.accepted.remove(&topic);
            }
            ToBusiness::Audience { topic, .. } => {
                ensure!(self.server.accepted.contains_key(&topic), "that topic was not accepted");
                let last = self.audience_at.insert(topic, self.now.0);
                ensure!(last.is_none_or(|last| self.now.0 >= last + 1_000), "an audience within a second");
            }
            ToBusiness::PageMessage { page, data, .. } | ToBusiness::Send { page, data, .. } => {
                let Some(sender) = self.pages.iter_mut().find(|other| other.number == page) else {
                    return Err("no such page".to_owned());
                };
                ensure!(sender.sent.contains(&data.to_owned()), "the page never sent that");
                if let ToBusiness::Send { id, .. } = frame {
                    ensure!(self.server.knows_receipts, "the business server gives no receipts");
                    ensure!(sender.ids.contains(&id), "the page never sent that id");
                }
                let takes = self.links.iter().any(|link| link.page_messages && sender.asked.contains(&link.name));
                ensure!(takes, "the link takes no messages");
                sender.sends_passed.add(self.now.0, self.board.sends_burst, 1, "sends of a page")?;
            }
            ToBusiness::Features { words } => {
                ensure!(is_marked(&self.server.nonce) && words == "away receipts", "nobody asked for them");
            }
            ToBusiness::Ping { .. } | ToBusiness::Pong { .. } => {}
        }
        Ok(())
    }

    /// Whether the relay has no answer yet to any page's request for a link.
    fn still_waits(&self, page: &super::page::Page, link: &str) -> bool {
        let rows = self.relay.subscription_rows(page.id.index());
        let waits = rows.filter(|row| row.stage == "waiting" && row.link.is_some_and(|shown| shown.0 == link));
        waits.count() == page.asks.values().filter(|ask| ask.link == link).count()
    }

    /// The expected `since`: the relay's own position in a topic that it holds, a page's for a cold
    /// link, else none.
    fn check_since(&self, link: &str, since: Option<Since>, is_whole: bool) -> Result<(), String> {
        let room = self.links.iter().find(|other| other.name == link).map(|link| &self.rooms[link.room]);
        let own = room.and_then(|room| self.received.get(&room.topic));
        let is_watched = room.is_some_and(|room| {
            let watches = |page: &super::page::Page| {
                !page.closing && page.views.get(&room.topic).is_some_and(|view| view.link == link)
            };
            self.pages.iter().any(watches) && self.received.contains_key(&room.topic)
        });
        let Some(since) = since else {
            // A page that was just denied has not read it yet, and waits for nothing.
            let waiting = self.pages.iter().filter(|page| self.still_waits(page, link));
            let waiting = waiting.flat_map(|page| page.asks.values());
            // With all sequences used up there is none to resume from.
            let has_since = |ask: &super::page::Ask| ask.since.is_some_and(|(_, next)| next < SEQUENCE_END);
            let mut waiting = waiting.filter(|ask| ask.link == link && has_since(ask));
            let overdue = waiting.next().is_some() && self.is_prompt && is_whole;
            ensure!(!overdue, "a page waits with a since and none was sent");
            return Ok(());
        };
        if own.is_some_and(|&(epoch, next)| since == Since { epoch, next }) {
            return Ok(());
        }
        ensure!(!is_watched || !self.is_prompt, "pages watch it, and the relay's own is {own:?}");
        let waiting = self.pages.iter().flat_map(|page| page.asks.values());
        let is_asked = waiting.filter(|ask| ask.link == link).filter_map(|ask| ask.since).any(|(epoch, next)| {
            let from = next.saturating_sub(self.board.messages.frames_max.into()).max(1);
            since == Since { epoch, next: [0, from, 0, 0] }
        });
        ensure!(is_asked, "no page sent that since, and the relay's own is {own:?}");
        Ok(())
    }

    /// Watched shared grants are renewed: while the uplink is up, none is overdue by 30 s without a
    /// `Subscribe` within the last answer's time and the longest back-off.
    pub fn check_renewals(&self) -> Result<(), String> {
        const ANSWER_AND_BACK_OFF_MS: u64 = 10_000 + 30_000 + 500;
        let Some(up_since) = self.up_since.filter(|_| self.relay.is_up()) else { return Ok(()) };
        for (name, until) in &self.granted {
            let Some(until) = until.filter(|until| self.now.0 > until + 30_000) else { continue };
            let asked = self.asked_at.get(name).copied().unwrap_or(0).max(up_since).max(until);
            let is_watched = (0..self.relay.pages_end())
                .flat_map(|page| self.relay.subscription_rows(page))
                .any(|row| row.stage == "live" && row.link.is_some_and(|link| name.starts_with(&link.0[..4])));
            ensure!(
                !is_watched || self.now.0 <= asked + ANSWER_AND_BACK_OFF_MS,
                "link {name} has pages, its grant is over since {until}, and it was asked for last at {asked}"
            );
        }
        Ok(())
    }

    /// Each watching page was accepted on this connection: by a shared grant, or by one of its own.
    pub fn check_grants(&self) -> Result<(), String> {
        for page in &self.pages {
            for view in page.views.values() {
                let own = (view.link.clone(), page.address.to_string());
                ensure!(
                    self.server.shared.contains(&view.link) || self.server.own.contains(&own),
                    "page {} at {} watches by link {} that this connection did not accept for it",
                    page.id,
                    page.address,
                    view.link
                );
            }
        }
        Ok(())
    }

    /// The relay has discarded a topic, or never had it.
    pub fn model_forgets(&mut self, topic: u32) {
        self.received.remove(&topic);
        self.audience_at.remove(&topic);
        self.delivered.retain(|&(of, _, _)| of != topic);
    }

    /// The relay has received a frame of the business server.
    pub fn delivered(&mut self, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::None => {}
            Effect::Welcome => {
                ensure!(self.relay.is_up(), "the relay is not up after Welcome");
                self.server.is_welcome = true;
            }
            Effect::Answer { request } => {
                if let Some(denied) = self.server.under_way.remove(&request).filter(|asked| asked.is_whole) {
                    let same = self.server.under_way.values_mut().filter(|asked| asked.link == denied.link);
                    same.for_each(|asked| asked.is_void = true);
                }
            }
            Effect::Accept { request, topic, epoch, shared, until } => {
                if let Some(asked) = self.server.under_way.remove(&request) {
                    if shared {
                        self.server.shared.insert(asked.link.clone());
                    } else if !asked.is_whole {
                        self.server.own.insert((asked.link.clone(), asked.address));
                    }
                    self.granted.insert(asked.link, until);
                }
                if self.relay.topic_index(topic).is_none() {
                    return Ok(());
                }
                match self.received.get(&topic) {
                    Some(&(old, next)) if old != epoch => {
                        let has_good = self.delivered.iter().any(|&(of, in_epoch, sequence)| {
                            (of, in_epoch) == (topic, old) && self.archive.is_good(of, old, Track::Messages, sequence)
                        });
                        let end = (next[Track::Messages.index()], has_good);
                        self.closed.entry((topic, old)).or_default().push(end);
                        // The relay has discarded its state of an earlier time in that epoch.
                        self.delivered.retain(|&(of, in_epoch, _)| (of, in_epoch) != (topic, epoch));
                        self.received.insert(topic, (epoch, [0; 4]));
                    }
                    Some(_) => {}
                    None => drop(self.received.insert(topic, (epoch, [0; 4]))),
                }
                let now = self.now.0;
                self.server.accepted.entry(topic).or_insert(now);
            }
            Effect::Publish { topic, track, sequence } => {
                if self.server.accepted.contains_key(&topic)
                    && let Some((epoch, next)) = self.received.get_mut(&topic)
                    && sequence >= next[track.index()]
                {
                    next[track.index()] = sequence + 1;
                    if track == Track::Messages {
                        self.delivered.insert((topic, *epoch, sequence));
                    }
                }
            }
            Effect::End { topic } => {
                self.model_forgets(topic);
                self.server.accepted.remove(&topic);
            }
            Effect::Features { receipts } => {
                if let Some(connection) = self.connections.last_mut() {
                    connection.has_receipts = receipts;
                }
            }
            Effect::Sent { page, id } => *self.confirmed.entry((page, id)).or_default() += 1,
        }
        Ok(())
    }
}

/// A model of links and their rooms.
pub fn scene(archive: &mut Archive, rng: &mut Jitter) -> (Vec<Room>, Vec<Link>) {
    let rooms: Vec<Room> = (1..=3).map(|topic| Room { topic, epoch: 1 + rng.below(5) }).collect();
    for room in &rooms {
        if rng.below(4) == 0 {
            // Near the end of all counters.
            let track = Track::ALL[rng.below(4) as usize];
            archive.of(room.topic, room.epoch, track).next = SEQUENCE_END - 1 - rng.below(60);
        }
    }
    let mut link = |name: &str, room, shared, ttl_s| Link {
        name: name.to_owned(),
        room,
        shared,
        ttl_s,
        replay: [0, 2, 3, 50][rng.below(4) as usize],
        page_messages: rng.below(2) == 0,
        is_dead: false,
        is_shy: rng.below(3) == 0,
    };
    let links = vec![
        link("alpha", 0, Some(true), 30),
        link("bravo", 0, Some(false), 30),
        link("charlie", 1, Some(true), 2),
        link("delta", 1, None, 5),
        link("echo", 2, Some(true), 0),
        link(&"f".repeat(128), 2, None, 3),
    ];
    (rooms, links)
}
