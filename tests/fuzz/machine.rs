//! The machine under a list of operations decoded from the bytes: pages connect, send anything,
//! stall and leave; the business server answers, publishes and sends invalid frames; time passes;
//! the relay drains. After each operation the invariants of `Relay::check` hold, serving ends, and
//! `reader.rs` accepts what pages get.

use std::collections::HashMap;

use board::TINY;
use relay::draft::Draft;
use relay::pages::{Peer, Verdict};
use relay::session::Session;
use relay::table::Id;
use relay::time::Instant;
use relay::transmit::{Progress, Slices};
use relay::{Relay, Settings};
use wire::Track;
use wire::uplink::{Deframer, Grant, Part, ToBusiness, ToRelay, VERSION, business_proof, decode_to_business, encode};

/// Their fifth byte occurs nowhere else: showing it means showing too much of a link.
use super::reader::Reader;

const LINKS: [&str; 5] = ["alph~1", "brav~2", "char~3", "delt~4", "no such"];

/// Maximum operations: more make a run slow and find nothing else.
const OPERATIONS_MAX: usize = 2_000;

/// Decodes operations from the bytes.
pub struct Script<'a>(pub &'a [u8]);

impl Script<'_> {
    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u8) -> u8 {
        self.byte().unwrap_or(0) % n
    }

    /// At most `n` of the next bytes.
    pub fn bytes(&mut self, size: usize) -> Vec<u8> {
        let (bytes, rest) = self.0.split_at(size.min(self.0.len()));
        self.0 = rest;
        bytes.to_vec()
    }
}

/// The machine and its environment.
pub struct World {
    /// The machine.
    pub relay: Box<Relay>,
    /// Its time.
    pub now: Instant,
    draft: Draft,
    pages: Vec<(Id<Session>, Reader)>,
    deframer: Deframer,
    is_connected: bool,
    dialed: bool,
    inbox: Vec<u8>,
    asked: Vec<u32>,
    nonce: [u8; 16],
    next: HashMap<(u32, Track), u64>,
}

/// Runs the operations.
pub fn machine(data: &[u8]) {
    World::run(data);
}

impl World {
    /// The state after these operations.
    pub fn run(data: &[u8]) -> Self {
        let settings = Settings {
            name: "box".to_owned(),
            secret: b"secret".to_vec(),
            entries: 2,
            dead_after_ms: 30_000,
            linger_ms: 1_000,
            // `None`, no limit, and limits of one and of two.
            pages_per_address: (data.first().copied().unwrap_or(0) % 4).checked_sub(1).map(u32::from),
        };
        let mut world = Self {
            relay: Relay::new(&TINY, settings, 7, Instant(1)),
            now: Instant(1),
            draft: Draft::default(),
            pages: Vec::new(),
            deframer: Deframer::new(TINY.data_size_max() as usize),
            is_connected: false,
            dialed: false,
            inbox: Vec::new(),
            asked: Vec::new(),
            nonce: [3; 16],
            next: HashMap::new(),
        };
        let mut script = Script(data.get(1..).unwrap_or_default());
        for _ in 0..OPERATIONS_MAX {
            let Some(operation) = script.byte() else { break };
            world.operate(operation, &mut script);
            while world.relay.poll_event().is_some() {}
            world.relay.check();
            assert_eq!(world.relay.pages() as usize, world.pages.len(), "pages are lost");
        }
        world
    }

    fn operate(&mut self, operation: u8, script: &mut Script<'_>) {
        match operation % 16 {
            0 => self.open(script),
            1 | 2 => self.subscribe(script),
            3 => self.say(script),
            4 => {
                if let Some(at) = self.page(script) {
                    let page = self.pages.remove(at);
                    self.relay.handle_page_closed(self.now, page.0);
                }
            }
            5 => self.pass(u64::from(script.below(200)) * 10),
            6 => self.pass(u64::from(script.below(60)) * 1_000),
            7 => self.wire(),
            8 | 9 => self.answer(script),
            10 | 11 => self.publish(script),
            12 => self.business(script),
            13 => self.serve(usize::from(script.below(40)), usize::from(script.below(4))),
            14 => {
                if let Some(at) = self.page(script) {
                    self.relay.unblocked(self.pages[at].0);
                }
            }
            _ => match script.below(16) {
                0 => self.relay.drain(self.now),
                1 => self.lose(),
                2 => {
                    let size = script.below(255);
                    while let Some(page) = self.relay.poll_measure() {
                        self.relay.handle_measured(page, u32::from(size) * 40, 0);
                    }
                    self.relay.handle_measures_done(self.now);
                }
                _ => self.serve(usize::MAX, 50),
            },
        }
    }

    fn page(&self, script: &mut Script<'_>) -> Option<usize> {
        let at = usize::from(script.below(8));
        (at < self.pages.len()).then_some(at)
    }

    fn open(&mut self, script: &mut Script<'_>) {
        let address = [10, 0, 0, script.below(3)].into();
        let origin = ["", "https://a.example", "https://b.example", "https://c.example"][usize::from(script.below(4))];
        if let Ok(id) = self.relay.handle_page_open(self.now, Peer { address, origin, is_anybody: false }) {
            self.pages.push((id, Reader::default()));
        }
    }

    fn subscribe(&mut self, script: &mut Script<'_>) {
        let Some(at) = self.page(script) else { return };
        let link = LINKS[usize::from(script.below(5))];
        let since = match script.below(4) {
            0 => format!(r#","since":{{"epoch":"{}","next":[0,{},0,0]}}"#, script.below(3), script.below(30)),
            _ => String::new(),
        };
        let text = format!(r#"{{"type":"subscribe","id":{},"link":"{link}"{since}}}"#, script.below(200));
        self.relay.handle_page_text(self.now, self.pages[at].0, &text);
    }

    fn say(&mut self, script: &mut Script<'_>) {
        let Some(at) = self.page(script) else { return };
        let id = self.pages[at].0;
        let topic = script.below(4);
        let text = match script.below(5) {
            0 => format!(r#"{{"type":"unsubscribe","topic":{topic}}}"#),
            1 => format!(
                r#"{{"type":"send","topic":{topic},"data":"{}"}}"#,
                "x".repeat(usize::from(script.below(255)) * 3)
            ),
            2 => return self.relay.handle_page_binary(self.now, id),
            3 => return self.relay.handle_page_leaving(self.now, id),
            _ => {
                let size = usize::from(script.below(64)).min(script.0.len());
                String::from_utf8_lossy(&script.0[..size]).into_owned()
            }
        };
        self.relay.handle_page_text(self.now, id, &text);
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now.after(ms);
        if self.now >= self.relay.poll_timeout() {
            self.relay.handle_timeout(self.now);
        }
        if (self.is_connected || self.dialed) && self.relay.uplink_fault(self.now).is_some() {
            self.lose();
        }
    }

    fn lose(&mut self) {
        if self.is_connected || self.dialed {
            (self.is_connected, self.dialed) = (false, false);
            self.inbox.clear();
            self.asked.clear();
            self.relay.handle_uplink_lost(self.now);
        }
    }

    /// The uplink dials, connects, or moves the relay's bytes.
    fn wire(&mut self) {
        if !self.is_connected && !self.dialed {
            self.dialed = self.relay.poll_dial(self.now).is_some();
        } else if self.dialed {
            (self.is_connected, self.dialed) = (true, false);
            self.deframer.reset();
            self.relay.handle_uplink_connected(self.now, [9; 16]);
            self.tell(&ToRelay::Challenge { version: VERSION, nonce: self.nonce });
        } else {
            let bytes = self.relay.uplink_transmit().to_vec();
            self.relay.uplink_wrote(self.now, bytes.len());
            self.inbox.extend(bytes);
            self.hear();
        }
    }

    fn hear(&mut self) {
        while let Some(length) = self.inbox.first_chunk::<4>() {
            let size = u32::from_le_bytes(*length) as usize;
            let body: Vec<u8> = self.inbox.drain(..4 + size).skip(4).collect();
            match decode_to_business(&body).expect("a valid frame of the relay") {
                ToBusiness::Hello { nonce, .. } => {
                    let proof = business_proof(b"secret", &nonce, &self.nonce);
                    self.tell(&ToRelay::Welcome { version: VERSION, proof });
                }
                ToBusiness::Subscribe { request, .. } => self.asked.push(request),
                ToBusiness::Ping { nonce } => self.tell(&ToRelay::Pong { nonce }),
                _ => {}
            }
        }
    }

    fn tell(&mut self, frame: &ToRelay<'_>) {
        let mut bytes = [0; 4_096];
        let size = encode(frame, &mut bytes).expect("it fits");
        self.arrive(&bytes[..size]);
    }

    fn arrive(&mut self, bytes: &[u8]) {
        if !self.is_connected {
            return;
        }
        self.deframer.space()[..bytes.len()].copy_from_slice(bytes);
        self.deframer.filled(bytes.len());
        loop {
            match self.deframer.next_frame() {
                Ok(Some(incoming)) => {
                    if self.relay.handle_uplink(self.now, incoming).is_err() {
                        return self.lose();
                    }
                }
                Ok(None) => return,
                Err(_) => return self.lose(),
            }
        }
    }

    fn answer(&mut self, script: &mut Script<'_>) {
        let which = usize::from(script.below(8));
        let request = if which < self.asked.len() { self.asked.remove(which) } else { u32::from(script.below(9)) };
        if script.below(6) == 0 {
            return self.tell(&ToRelay::Deny { request, reason: "no" });
        }
        let flags = script.below(16);
        let grant = Grant {
            shared: flags & 1 == 0,
            ttl_s: u32::from(flags >> 1) * 3,
            page_messages: flags & 2 == 0,
            replay: u16::from(flags),
        };
        let (topic, epoch) = (u32::from(script.below(3)), u64::from(script.below(3)));
        self.tell(&ToRelay::Accept { request, topic, epoch, grant });
    }

    fn publish(&mut self, script: &mut Script<'_>) {
        let (topic, track) = (u32::from(script.below(3)), Track::ALL[usize::from(script.below(4))]);
        let next = self.next.entry((topic, track)).or_insert(1);
        let sequence = match script.below(12) {
            0 => u64::from(script.below(40)) + 1,
            1 => *next + u64::from(script.below(4)),
            2 => (1 << 53) - 1 - u64::from(script.below(3)),
            _ => *next,
        };
        *next = sequence + 1;
        let kind = script.below(4);
        let mime = "m".repeat(usize::from(script.below(255)));
        let part = match (track.is_media(), kind) {
            (false, _) => Part::Whole,
            (true, 0) => Part::Init { mime: &mime },
            (true, 1) => Part::Start,
            (true, _) => Part::Continue,
        };
        let size = usize::from(script.below(230));
        let data = if script.below(20) == 0 { "x".repeat(size) } else { format!("\"{}\"", "y".repeat(size)) };
        self.tell(&ToRelay::Publish { topic, track, sequence, part, data: data.as_bytes() });
    }

    fn business(&mut self, script: &mut Script<'_>) {
        match script.below(6) {
            0 => self.tell(&ToRelay::Revoke { link: LINKS[usize::from(script.below(5))], reason: "back" }),
            1 => self.tell(&ToRelay::End { topic: u32::from(script.below(3)), reason: "over" }),
            2 => self.tell(&ToRelay::Kick { page: u32::from(script.below(9)), reason: "out" }),
            3 => self.tell(&ToRelay::Ping { nonce: 5 }),
            _ => {
                let size = usize::from(script.below(24));
                self.arrive(&script.bytes(size));
            }
        }
    }

    /// Serves a number of pages. Each socket takes a multiple of seven bytes; from 50 on
    /// everything.
    fn serve(&mut self, room: usize, turns: usize) {
        self.draft.begin(self.now);
        for _ in 0..turns.saturating_add(1) {
            let Some(id) = self.relay.poll_page() else { return };
            let at = self.pages.iter().position(|page| page.0 == id).expect("a served page exists");
            self.serve_page(at, room.saturating_mul(7));
            self.relay.check();
        }
    }

    fn serve_page(&mut self, at: usize, mut room: usize) {
        let id = self.pages[at].0;
        for _ in 0..300 {
            match self.relay.verdict(id) {
                Verdict::Serve => {}
                Verdict::Cut | Verdict::Close(..) => {
                    self.pages.remove(at);
                    return self.relay.handle_page_closed(self.now, id);
                }
            }
            self.relay.plan(id, &mut self.draft);
            if self.draft.is_cut() {
                self.pages.remove(at);
                return self.relay.handle_page_closed(self.now, id);
            }
            if self.draft.is_empty() {
                return;
            }
            let mut slices = Slices::new();
            let total = self.relay.gather(id, &self.draft, &mut slices);
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            assert!(total > 0 && bytes.len() as u64 == total, "{total} bytes, {} gathered", bytes.len());
            drop(slices);
            let taken = bytes.len().min(room);
            room -= taken;
            self.relay.wrote(id, &self.draft, Progress::plain(taken as u64));
            self.pages[at].1.read(&bytes[..taken]);
            if taken < bytes.len() {
                return self.relay.blocked(id);
            }
        }
        panic!("a page is served without end");
    }
}
