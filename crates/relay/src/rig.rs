//! A machine with a business server and pages, for unit tests. Every call checks the invariants,
//! and every page reads all that it is sent.

#![expect(clippy::unwrap_used, reason = "for tests only: a panic fails the test")]

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use super::{
    Relay, Settings,
    draft::Draft,
    pages::{Peer, Refusal, Verdict},
    session::Session,
    table::Id,
    time::Instant,
    transmit::{Progress, Slices},
};
use board::{Board, TINY};
use wire::{
    Track,
    uplink::{Grant, Incoming, Part, ToBusiness, ToRelay, VERSION, business_proof, decode_any_to_business},
};

/// A shared grant for a minute.
pub const SHARED: Grant = Grant { shared: true, ttl_s: 60, page_messages: true, replay: 2 };
/// A grant for one page.
pub const OWN: Grant = Grant { shared: false, ..SHARED };

/// The machine and its clock.
pub struct Rig {
    /// The machine.
    pub relay: Box<Relay>,
    /// The clock, which only tests advance.
    pub now: Instant,
    /// The draft of the page that is written to next.
    pub draft: Draft,
}

/// The board `tiny` with a larger burst of requests, and more time until the first `subscribe`, so
/// that denied pages stay.
pub const BOARD: Board = Board { page_asks_burst: 20, address_asks_burst: 50, first_subscribe_ms_max: 10_000, ..TINY };

fn settings() -> Settings {
    Settings {
        name: "box".into(),
        secret: b"secret".to_vec(),
        entries: 2,
        dead_after_ms: 30_000,
        linger_ms: 2_000,
        pages_per_address: None,
    }
}

impl Rig {
    /// A machine whose uplink is down.
    pub fn down(board: &Board) -> Self {
        let now = Instant(10_000);
        Self { relay: Relay::new(board, settings(), 7, now), now, draft: Draft::default() }
    }

    /// The settings that every machine begins with.
    #[must_use]
    pub fn settings(&self) -> Settings {
        settings()
    }

    /// A machine whose uplink is up.
    pub fn up(board: &Board) -> Self {
        let mut rig = Self::down(board);
        rig.connect();
        rig
    }

    /// Brings the uplink up.
    pub fn connect(&mut self) {
        self.connect_by([2; 16]);
    }

    /// The same, with this nonce of the business server.
    pub fn connect_by(&mut self, challenge: [u8; 16]) {
        while self.relay.poll_dial(self.now).is_none() {
            self.now = self.now.after(100);
        }
        self.relay.handle_uplink_connected(self.now, [1; 16]);
        self.tell(ToRelay::Challenge { version: VERSION, nonce: challenge });
        assert_eq!(self.said(), ["Hello"]);
        self.tell(ToRelay::Welcome {
            version: VERSION,
            proof: business_proof(b"secret", &self.relay.uplink.nonce(), &challenge),
        });
        assert!(self.relay.is_up());
    }

    /// The business server sends a frame.
    pub fn tell(&mut self, frame: ToRelay<'_>) {
        self.relay.handle_uplink(self.now, Incoming::Frame(frame)).unwrap();
        self.relay.check();
    }

    /// The business server accepts a request.
    pub fn accept(&mut self, request: u32, topic: u32, epoch: u64, grant: Grant) {
        self.tell(ToRelay::Accept { request, topic, epoch, grant });
    }

    /// Publishes messages of topic 7 with their sequence as data.
    pub fn messages(&mut self, sequences: impl IntoIterator<Item = u64>) {
        for sequence in sequences {
            let data = sequence.to_string();
            self.publish(7, Track::Messages, sequence, Part::Whole, data.as_bytes());
        }
    }

    /// The business server publishes.
    pub fn publish(&mut self, topic: u32, track: Track, sequence: u64, part: Part<'_>, data: &[u8]) {
        self.tell(ToRelay::Publish { topic, track, sequence, part, data });
    }

    /// The frames sent to the business server since the last call: their names with the request of
    /// a `Subscribe`, the topic of the others.
    pub fn said(&mut self) -> Vec<String> {
        let bytes = self.relay.uplink_transmit().to_vec();
        self.relay.uplink_wrote(self.now, bytes.len());
        let mut rest = &bytes[..];
        let mut said = Vec::new();
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let (body, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
            said.push(match decode_any_to_business(body).unwrap() {
                ToBusiness::Hello { .. } => "Hello".to_owned(),
                ToBusiness::Subscribe { request, link, since, page } => {
                    let by = if page.address.is_empty() { String::new() } else { format!(" by {}", page.address) };
                    match since {
                        Some(since) => format!("Subscribe {request} {link}{by} since {} {:?}", since.epoch, since.next),
                        None => format!("Subscribe {request} {link}{by}"),
                    }
                }
                ToBusiness::Unsubscribe { topic } => format!("Unsubscribe {topic}"),
                ToBusiness::Audience { topic, pages } => format!("Audience {topic} {pages}"),
                ToBusiness::PageMessage { page, data, .. } => format!("PageMessage {page} {data}"),
                ToBusiness::Ping { .. } => "Ping".to_owned(),
                ToBusiness::Pong { nonce } => format!("Pong {nonce}"),
                ToBusiness::Features { words } => format!("Features {words}"),
                ToBusiness::Send { page, id, data, .. } => format!("Send {page} {} {data}", id[0]),
            });
            rest = behind;
        }
        said
    }

    /// A page connects from loopback.
    pub fn page(&mut self) -> Id<Session> {
        self.page_at(Ipv4Addr::LOCALHOST)
    }

    /// A page connects from an address.
    pub fn page_at(&mut self, address: Ipv4Addr) -> Id<Session> {
        let address = IpAddr::V4(address);
        self.relay.handle_page_open(self.now, Peer { address, origin: "", is_anybody: true }).unwrap()
    }

    /// A page sends a text frame.
    pub fn say(&mut self, page: Id<Session>, text: &str) {
        self.relay.handle_page_text(self.now, page, text);
        self.relay.check();
    }

    /// A page subscribes to a link.
    pub fn subscribe(&mut self, page: Id<Session>, id: u32, link: &str) {
        self.say(page, &format!(r#"{{"type":"subscribe","id":{id},"link":"{link}"}}"#));
    }

    /// A page that watches topic 7 by the link `link`, which it is the first to request.
    pub fn viewer(&mut self) -> Id<Session> {
        let page = self.page();
        self.subscribe(page, 1, "link");
        let said = self.said();
        let request = said[0].split(' ').nth(1).unwrap().parse().unwrap();
        self.accept(request, 7, 1, SHARED);
        assert!(self.read(page)[0].contains("subscribed"));
        page
    }

    /// Three viewers of the link that have read their first notice.
    pub fn three_viewers(&mut self) -> [Id<Session>; 3] {
        let pages = [self.viewer(), self.page(), self.page()];
        for page in &pages[1..] {
            self.subscribe(*page, 1, "link");
            self.read(*page);
        }
        pages
    }

    /// The page's socket takes `size` bytes.
    pub fn take(&mut self, page: Id<Session>, size: u64) -> Vec<u8> {
        self.draft.begin(self.now);
        self.take_in_lockstep(page, size)
    }

    /// The same at the time of the previous take, so that the draft may serve pages in lockstep.
    pub fn take_in_lockstep(&mut self, page: Id<Session>, size: u64) -> Vec<u8> {
        self.relay.plan(page, &mut self.draft);
        let mut slices = Slices::new();
        let total = self.relay.gather(page, &self.draft, &mut slices);
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        drop(slices);
        bytes.truncate(usize::try_from(total.min(size)).unwrap());
        self.relay.wrote(page, &self.draft, Progress::plain(bytes.len() as u64));
        self.relay.check();
        bytes
    }

    /// The page's socket takes `size` bytes of records, which begin with the rest of the one that
    /// it took a part of before. Returns the frames' bytes in the records that are out as a whole.
    ///
    /// # Panics
    /// If that record is not made of the same bytes again.
    pub fn take_records(&mut self, page: Id<Session>, begun: &mut (Vec<u8>, usize), size: usize) -> Vec<u8> {
        self.draft.begin(self.now);
        self.relay.plan(page, &mut self.draft);
        let (mut took, mut left) = (Progress { socket: size as u64, ..Progress::default() }, size);
        let (mut bytes, mut slices) = (Vec::new(), Slices::new());
        while left > 0 {
            let most = if begun.1 > 0 { begun.0.len() as u64 } else { u64::MAX };
            if self.relay.run(page, &self.draft, took.size, most, &mut slices) == 0 {
                break;
            }
            let run = slices.concat();
            slices.clear();
            let (again, sent) = core::mem::take(begun);
            assert!(sent == 0 || run == again, "a record of other bytes: {run:?}, not {again:?}");
            took.size += run.len() as u64;
            let record_left = run.len() + RECORD_OVERHEAD - sent;
            if left < record_left {
                took.begun = run.len() as u64;
                *begun = (run, sent + left);
                left = 0;
            } else {
                left -= record_left;
                bytes.extend(run);
            }
        }
        drop(slices);
        self.relay.wrote(page, &self.draft, took);
        self.relay.check();
        bytes
    }

    /// Everything that a page receives now: the text of text frames, `track part sequence` of
    /// binary ones. The page answers a ping, as every WebSocket client does.
    pub fn read(&mut self, page: Id<Session>) -> Vec<String> {
        let frames = self.read_silently(page);
        if frames.iter().any(|frame| frame == PING) {
            self.relay.handle_page_heard(self.now, page);
        }
        frames
    }

    /// The same for a page that does not answer pings.
    pub fn read_silently(&mut self, page: Id<Session>) -> Vec<String> {
        let mut bytes = Vec::new();
        loop {
            let more = self.take(page, u64::MAX);
            if more.is_empty() {
                return frames(&bytes);
            }
            bytes.extend(more);
        }
    }

    /// A page connects from an address other than loopback.
    pub fn page_from(&mut self, address: &str, origin: &str) -> Result<Id<Session>, Refusal> {
        let peer = Peer { address: address.parse().unwrap(), origin, is_anybody: false };
        let page = self.relay.handle_page_open(self.now, peer);
        self.relay.check();
        page
    }

    /// Advances the clock in ticks.
    pub fn pass(&mut self, ms: u64) {
        let until = self.now.after(ms);
        while self.now < until {
            self.now = self.now.after(100);
            self.relay.handle_timeout(self.now);
            self.relay.check();
        }
    }

    /// Whether a page is being closed with a code.
    pub fn is_closed_with(&self, page: Id<Session>, code: u16) -> bool {
        matches!(self.relay.verdict(page), Verdict::Close(with, _) if with == code)
    }
}

/// What a record adds to the bytes in it.
pub const RECORD_OVERHEAD: usize = 22;

/// A ping in the result of [`Rig::read`].
pub const PING: &str = "opcode 9";

/// Decodes whole frames to text.
pub fn frames(mut bytes: &[u8]) -> Vec<String> {
    let mut frames = Vec::new();
    while let [first, second, ..] = *bytes {
        let (from, size) = match second {
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            size => (2, usize::from(size)),
        };
        let payload = &bytes[from..from + size];
        frames.push(match first & 0xf {
            1 => String::from_utf8(payload.to_vec()).unwrap(),
            2 => format!("{} {} {}", payload[0], payload[1], u64::from_be_bytes(payload[6..14].try_into().unwrap())),
            opcode => format!("opcode {opcode}"),
        });
        bytes = &bytes[from + size..];
    }
    frames
}

/// A message of topic 7 as [`Rig::messages`] publishes it.
pub fn message(sequence: u64) -> String {
    format!(r#"{{"type":"message","topic":7,"sequence":{sequence},"data":{sequence}}}"#)
}

/// A gap of topic 7.
pub fn gap(track: &str, from: u64, to: u64) -> String {
    format!(r#"{{"type":"gap","topic":7,"track":"{track}","from":{from},"to":{to}}}"#)
}
