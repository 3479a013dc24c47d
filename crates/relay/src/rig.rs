//! A machine with a business server and pages, for unit tests: every call drains, every page reads all.

#![expect(clippy::unwrap_used, reason = "it is for tests: what is not as it should be fails them")]

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
    transmit::Slices,
};
use board::{Board, TINY};
use wire::{
    Track,
    uplink::{Grant, Incoming, Part, ToBusiness, ToRelay, VERSION, business_proof, decode_to_business},
};

/// A shared grant for a minute.
pub const SHARED: Grant = Grant { shared: true, ttl_s: 60, page_messages: true, replay: 2 };
/// A grant for one page.
pub const OWN: Grant = Grant { shared: false, ..SHARED };

/// The machine and its clock.
pub struct Rig {
    /// The machine.
    pub relay: Box<Relay>,
    /// Time moves when a test moves it.
    pub now: Instant,
    /// What the next page is sent.
    pub draft: Draft,
}

/// The board `tiny` with room to ask often, and time to: pages that were denied stay.
pub const BOARD: Board = Board { page_asks_burst: 20, address_asks_burst: 50, first_subscribe_ms_max: 10_000, ..TINY };

impl Rig {
    /// A machine whose uplink is down.
    pub fn down(board: &Board) -> Self {
        let settings = Settings {
            name: "box".into(),
            secret: b"secret".to_vec(),
            addresses: 2,
            linger_ms: 2_000,
            pages_per_address: None,
        };
        let now = Instant(10_000);
        Self { relay: Relay::new(board, settings, 7, now), now, draft: Draft::default() }
    }

    /// A machine whose uplink is up.
    pub fn up(board: &Board) -> Self {
        let mut rig = Self::down(board);
        rig.connect();
        rig
    }

    /// The uplink comes up.
    pub fn connect(&mut self) {
        while self.relay.poll_dial(self.now).is_none() {
            self.now = self.now.after(100);
        }
        self.relay.handle_uplink_connected(self.now, [1; 16]);
        self.tell(ToRelay::Challenge { version: VERSION, nonce: [2; 16] });
        assert_eq!(self.said(), ["Hello"]);
        self.tell(ToRelay::Welcome { version: VERSION, proof: business_proof(b"secret", &[1; 16], &[2; 16]) });
        assert!(self.relay.is_up());
    }

    /// The business server says something.
    pub fn tell(&mut self, frame: ToRelay<'_>) {
        self.relay.handle_uplink(self.now, Incoming::Frame(frame)).unwrap();
        self.relay.check();
    }

    /// The business server admits whom a request was for.
    pub fn accept(&mut self, request: u32, topic: u32, epoch: u64, grant: Grant) {
        self.tell(ToRelay::Accept { request, topic, epoch, grant });
    }

    /// Messages of topic 7: their data is their sequence.
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

    /// What the relay said to the business server since the last call: names, and the request of a
    /// `Subscribe`, the topic of the others.
    pub fn said(&mut self) -> Vec<String> {
        let bytes = self.relay.uplink_transmit().to_vec();
        self.relay.uplink_wrote(self.now, bytes.len());
        let mut rest = &bytes[..];
        let mut said = Vec::new();
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let (body, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
            said.push(match decode_to_business(body).unwrap() {
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
            });
            rest = behind;
        }
        said
    }

    /// A page of this machine connects.
    pub fn page(&mut self) -> Id<Session> {
        self.page_at(Ipv4Addr::LOCALHOST)
    }

    /// A page connects from an address.
    pub fn page_at(&mut self, address: Ipv4Addr) -> Id<Session> {
        let address = IpAddr::V4(address);
        self.relay.handle_page_open(self.now, Peer { address, origin: "", is_anybody: true }).unwrap()
    }

    /// A page says something.
    pub fn say(&mut self, page: Id<Session>, text: &str) {
        self.relay.handle_page_text(self.now, page, text);
        self.relay.check();
    }

    /// A page subscribes to a link.
    pub fn subscribe(&mut self, page: Id<Session>, id: u32, link: &str) {
        self.say(page, &format!(r#"{{"type":"subscribe","id":{id},"link":"{link}"}}"#));
    }

    /// A page that has topic 7 by the link `link`, the first to ask.
    pub fn viewer(&mut self) -> Id<Session> {
        let page = self.page();
        self.subscribe(page, 1, "link");
        let said = self.said();
        let request = said[0].split(' ').nth(1).unwrap().parse().unwrap();
        self.accept(request, 7, 1, SHARED);
        assert!(self.read(page)[0].contains("subscribed"));
        page
    }

    /// Three pages of the link that have read their first notice.
    pub fn three_viewers(&mut self) -> [Id<Session>; 3] {
        let pages = [self.viewer(), self.page(), self.page()];
        for page in &pages[1..] {
            self.subscribe(*page, 1, "link");
            self.read(*page);
        }
        pages
    }

    /// The socket of a page takes so many bytes.
    pub fn take(&mut self, page: Id<Session>, size: u64) -> Vec<u8> {
        self.draft.begin(self.now);
        self.take_in_lockstep(page, size)
    }

    /// The same, in the moment of the take before.
    pub fn take_in_lockstep(&mut self, page: Id<Session>, size: u64) -> Vec<u8> {
        self.relay.plan(page, &mut self.draft);
        let mut slices = Slices::new();
        let total = self.relay.gather(page, &self.draft, &mut slices);
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        drop(slices);
        bytes.truncate(usize::try_from(total.min(size)).unwrap());
        self.relay.wrote(page, &self.draft, bytes.len() as u64);
        self.relay.check();
        bytes
    }

    /// Everything that a page gets now: the text of text frames, `track part sequence` of binary ones. It answers a ping,
    /// as every WebSocket does by itself.
    pub fn read(&mut self, page: Id<Session>) -> Vec<String> {
        let frames = self.read_silently(page);
        if frames.iter().any(|frame| frame == PING) {
            self.relay.handle_page_heard(self.now, page);
        }
        frames
    }

    /// The same for a page that answers no ping.
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

    /// A page from another address than loopback.
    pub fn page_from(&mut self, address: &str, origin: &str) -> Result<Id<Session>, Refusal> {
        let peer = Peer { address: address.parse().unwrap(), origin, is_anybody: false };
        let page = self.relay.handle_page_open(self.now, peer);
        self.relay.check();
        page
    }

    /// Time passes, in ticks.
    pub fn pass(&mut self, ms: u64) {
        let until = self.now.after(ms);
        while self.now < until {
            self.now = self.now.after(100);
            self.relay.handle_timeout(self.now);
            self.relay.check();
        }
    }

    /// Whether a page is to be closed with a code.
    pub fn is_closed_with(&self, page: Id<Session>, code: u16) -> bool {
        matches!(self.relay.verdict(page), Verdict::Close(with, _) if with == code)
    }
}

/// A ping as [`Rig::read`] gives it.
pub const PING: &str = "opcode 9";

/// Whole frames as text.
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
