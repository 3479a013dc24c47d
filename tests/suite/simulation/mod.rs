//! The machine under seeded random faults, against a naive model. [`page`] checks what each page
//! receives against docs/protocol.md, [`business`] is the other end of the uplink and checks the
//! relay's frames, `Relay::check` verifies the machine's invariants after every step, and [`rates`]
//! checks each rate limit.
//! Run by `seeds.rs`.

#![expect(clippy::cast_possible_truncation, reason = "numbers of the simulation's own making, all small")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a broken simulation fails its test")]

mod archive;
mod business;
pub(crate) mod page;
mod rates;
mod sealed;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::IpAddr;

use board::{Board, HOST, TINY, TrackLimits};
use relay::begun::{Counts, RUN_SIZE_MAX};
use relay::draft::Draft;
use relay::event::Event;
use relay::pages::{Peer, Refusal, Verdict};
use relay::preview::{PREVIEW_MS_MAX, Preview};
use relay::session::Session;
use relay::table::Id;
use relay::time::{Instant, Jitter};
use relay::topic::DropReason;
use relay::transmit::{Progress, Slices};
use relay::{Counters, Relay, Settings};
use wire::Track;
use wire::page::MessageId;
use wire::uplink::{Deframer, EXTENSIONS_MARK, ToRelay, VERSION};

use archive::{Archive, What};
use business::{Connection, Effect, Link, Room, SECRET, Server};
use page::{Ask, Page, Truth};
use rates::{Passed, network};
use sealed::Sealed;

use crate::seeds;

macro_rules! ensure {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}
pub(crate) use ensure;

const LINGER_MS: u64 = 3_000;
/// A page's due work is done within this time: each page is visited once a second, and time
/// advances by at most 2 s a step.
const SWEEP_MS: u64 = 3_500;

/// A board on which no ring is ever overtaken: every page gets everything that the relay has.
pub(crate) const ROOMY: Board = {
    const fn wide(limits: TrackLimits) -> TrackLimits {
        TrackLimits { blocks_max: 1_000, frames_max: 250, ..limits }
    }
    Board {
        pages_max: 12,
        topics_max: 3,
        topics_per_page_max: 3,
        subscriptions_max: 64,
        links_max: 8,
        requests_max: 4,
        reasons_max: 64,
        block_size: 64,
        blocks_max: 20_000,
        state: wide(TINY.state),
        messages: wide(TINY.messages),
        audio: wide(TINY.audio),
        video: wide(TINY.video),
        init: wide(TINY.init),
        page_asks_burst: 50,
        address_asks_burst: 50,
        stalled_ms_max: 20_000,
        dead_ms: 60_000,
        media_lag_ms_max: 10_000,
        kernel_size_max: 65_536,
        uplink_out_size: 8_192,
        ..TINY
    }
};

/// A board on which pages subscribe and send often, at rates above one in a tenth of a second, and
/// one network has many pages.
const HASTY: Board = Board {
    topics_per_page_max: 2,
    page_asks_burst: 12,
    address_asks_burst: 6,
    address_asks_per_s: 25,
    addresses_max: 64,
    sends_burst: 3,
    ..ROOMY
};

/// A board on which many pages are slow at the same time and none is closed for it: rings overtake
/// them inside frames, and the reserve holds only some of those frames.
const CROWDED: Board = Board {
    pages_max: 12,
    subscriptions_max: 24,
    page_asks_burst: 50,
    address_asks_burst: 50,
    kept_blocks_max: 16,
    // Records of several frames.
    notsent_size_max: 2_000,
    kernel_size_max: 65_536,
    stalled_ms_max: 20_000,
    user_timeout_ms: 30_000,
    dead_ms: 60_000,
    ..TINY
};

/// The uplink's connection, as the world sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Down,
    Dialing,
    Connected,
}

/// The machine, the world around it, and the model.
struct World {
    board: Board,
    is_roomy: bool,
    relay: Box<Relay>,
    now: Instant,
    rng: Jitter,
    draft: Draft,
    pages: Vec<Page>,
    opened: u32,
    archive: Archive,
    rooms: Vec<Room>,
    links: Vec<Link>,
    server: Server,
    wire: Wire,
    deframer: Deframer,
    /// Bytes that the relay encoded on this connection and the model has checked, and bytes
    /// written.
    observed: usize,
    written: usize,
    audience_at: HashMap<u32, u64>,
    /// The relay's own epoch and next sequences by topic, counted by the model.
    received: HashMap<u32, (u64, [u64; 4])>,
    delivered: HashSet<(u32, u64, u64)>,
    closed: HashMap<(u32, u64), Vec<(u64, bool)>>,
    /// Requests that passed the rate limit, by network.
    asks_passed: HashMap<Vec<u8>, Passed>,
    /// Positions of former pages: link, epoch, next message.
    places: VecDeque<(String, u64, u64)>,
    /// Whether pages read everything at once, so that the machine knows what they have seen.
    is_prompt: bool,
    is_traced: bool,
    /// Closed pages.
    left: VecDeque<Id<Session>>,
    settled: u64,
    settings: Settings,
    /// Counters of relays that were restarted since.
    spent: Vec<Counters>,
    /// Nothing crosses the uplink any more, and neither side has noticed.
    is_half_open: bool,
    /// When the draining relay exits.
    ends_at: Option<Instant>,
    /// For each link, its last request and the end of its last grant; and since when the uplink is
    /// up.
    asked_at: HashMap<String, u64>,
    granted: HashMap<String, Option<u64>>,
    up_since: Option<u64>,
    /// Crawlers waiting for a link's card, and since when.
    previews: Vec<(Id<Preview>, u64)>,
    /// Events in the world that no counter of the relay shows.
    deeds: BTreeMap<&'static str, u64>,
    /// The relay's last figures of overtaken frames, and the pages inside a frame when it lost one.
    overtaken: Counts,
    losers: Vec<Id<Session>>,
    /// The relay's connections since its start, and how often it was told of a page's message.
    connections: Vec<Connection>,
    confirmed: HashMap<(u32, MessageId), u64>,
}

/// The result of one seed.
struct Ran {
    counters: Vec<Counters>,
    deeds: BTreeMap<&'static str, u64>,
}

impl World {
    fn new(seed: u64, board: &Board, is_roomy: bool) -> Self {
        let mut rng = Jitter::new(seed);
        let now = beginning(&mut rng);
        let settings = Settings {
            name: "box".to_owned(),
            secret: SECRET.to_vec(),
            entries: 2,
            dead_after_ms: 30_000,
            linger_ms: LINGER_MS,
            pages_per_address: [None, None, Some(0), Some(2)][rng.below(4) as usize],
        };
        let mut archive = Archive::default();
        let (rooms, links) = business::scene(&mut archive, &mut rng);
        Self {
            board: *board,
            is_roomy,
            relay: Relay::new(board, settings.clone(), rng.bits(), now),
            settings,
            spent: Vec::new(),
            is_half_open: false,
            ends_at: None,
            asked_at: HashMap::new(),
            granted: HashMap::new(),
            up_since: None,
            previews: Vec::new(),
            deeds: BTreeMap::new(),
            overtaken: Counts::default(),
            losers: Vec::new(),
            connections: Vec::new(),
            confirmed: HashMap::new(),
            now,
            rng,
            draft: Draft::default(),
            pages: Vec::new(),
            opened: 0,
            archive,
            rooms,
            links,
            server: Server::default(),
            wire: Wire::Down,
            deframer: Deframer::new(board.data_size_max() as usize).with_extensions(),
            observed: 0,
            written: 0,
            audience_at: HashMap::new(),
            received: HashMap::new(),
            delivered: HashSet::new(),
            closed: HashMap::new(),
            asks_passed: HashMap::new(),
            places: VecDeque::new(),
            is_prompt: false,
            is_traced: std::env::var_os("SIM_TRACE").is_some(),
            left: VecDeque::new(),
            settled: 0,
        }
    }

    /// Prints an event if `SIM_TRACE` is set.
    fn note(&self, text: impl Fn(&Self) -> String) {
        if self.is_traced {
            eprintln!("{} {}", self.now.0, text(self));
        }
    }

    fn did(&mut self, deed: &'static str) {
        *self.deeds.entry(deed).or_default() += 1;
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.rng.below(n) == 0
    }

    fn any(&mut self, count: usize) -> usize {
        self.rng.below(count as u64) as usize
    }

    /// One random event in the world, and its consequences.
    fn step(&mut self) -> Result<(), String> {
        self.strike()?;
        match self.rng.below(100) {
            0..8 => self.open()?,
            8..18 => self.subscribe_some()?,
            18..20 => self.unsubscribe(),
            20..24 => self.send(),
            24 => self.say_garbage(),
            25..33 => self.change_speed(),
            33..36 => {
                if !self.pages.is_empty() && self.one_in(2) {
                    let page = self.any(self.pages.len());
                    self.gone(page)?;
                }
            }
            36..58 => self.publish_some(),
            // On large rings no burst overtakes a page.
            58..62 if self.board.messages.frames_max < 100 => self.burst()?,
            58..62 => self.publish_some(),
            62..72 => {
                let frames = 1 + self.rng.below(4);
                self.process(frames)?;
            }
            72..82 => self.answer_some(),
            82..85 => self.be_rude(),
            85 => self.preview(),
            86 => {
                if self.wire == Wire::Connected && self.one_in(2) {
                    self.lose_uplink();
                }
            }
            _ => {
                let hops = if self.one_in(8) { 1 + self.rng.below(40) } else { 1 + self.rng.below(3) };
                for _ in 0..hops {
                    let ms = 1 + self.rng.below(150);
                    self.pass(ms)?;
                }
            }
        }
        self.disturb()?;
        while let Some(index) =
            self.server.pending.iter().position(|asked| asked.due.is_some_and(|due| due <= self.now.0))
        {
            self.answer(index);
        }
        let frames = self.rng.below(3);
        self.flush(frames)?;
        let ms = self.rng.below(30);
        self.pass(ms)?;
        let budget = if self.one_in(4) { self.rng.below(4) } else { u64::MAX };
        self.serve(budget)?;
        self.settle()
    }

    /// Occasional larger faults.
    fn strike(&mut self) -> Result<(), String> {
        if self.ends_at.is_some_and(|at| at <= self.now) {
            self.restart();
        }
        match self.rng.below(400) {
            0 => self.restart(),
            1 if self.ends_at.is_none() => {
                self.did("a drain");
                self.relay.drain(self.now);
                self.ends_at = Some(self.now.after(self.rng.below(3_000)));
            }
            2 if self.wire == Wire::Connected => self.is_half_open = true,
            4..6 if self.wire == Wire::Connected => {
                // A busy business server: it reads and pings, but answers nothing for a while.
                self.did("a business server that is busy");
                for _ in 0..self.rng.below(30) {
                    self.process(10)?;
                    if self.one_in(5) && self.server.is_welcome {
                        self.push(&ToRelay::Ping { nonce: 8 }, Effect::None);
                    }
                    self.flush(3)?;
                    self.pass(1_000)?;
                    self.serve(u64::MAX)?;
                }
            }
            3 if self.wire == Wire::Connected => self.push_garbage(),
            _ => {}
        }
        if self.is_half_open {
            self.pass(2_000)?;
        }
        Ok(())
    }

    /// The relay is killed and restarted: pages and the business server lose their connections, and
    /// it has no state.
    fn restart(&mut self) {
        self.did("a restart of the relay");
        self.spent.push(*self.relay.counters());
        while !self.pages.is_empty() {
            self.remember(0);
        }
        self.left.clear();
        self.now = beginning(&mut self.rng);
        let seed = self.rng.bits();
        self.relay = Relay::new(&self.board, self.settings.clone(), seed, self.now);
        (self.wire, self.is_half_open, self.ends_at) = (Wire::Down, false, None);
        self.server = Server::default();
        (self.connections, self.confirmed) = (Vec::new(), HashMap::new());
        (self.observed, self.written, self.opened) = (0, 0, 0);
        self.overtaken = Counts::default();
        self.losers.clear();
        self.audience_at.clear();
        self.received.clear();
        self.delivered.clear();
        self.closed.clear();
        self.previews.clear();
        self.granted.clear();
        self.asks_passed.clear();
    }

    /// The business server answers some requests, in any order, some of them late and some never.
    fn answer_some(&mut self) {
        for _ in 0..1 + self.rng.below(3) {
            let index = self.any(self.server.pending.len().max(1));
            let now = self.now.0;
            let how = self.rng.below(12);
            let late_ms = 8_000 + self.rng.below(14_000);
            match self.server.pending.get_mut(index) {
                // Unanswered, or no longer awaited by the relay.
                Some(_) if how == 0 => drop(self.server.pending.remove(index)),
                Some(asked) if how == 1 && asked.due.is_none() => asked.due = Some(now + late_ms),
                Some(asked) if asked.due.is_some_and(|due| now < due) => {}
                _ => self.answer(index),
            }
        }
    }

    /// A crawler fetches a link.
    fn preview(&mut self) {
        let which = self.any(self.links.len() + 1);
        let name = self.links.get(which).map_or("nowhere".to_owned(), |link| link.name.clone());
        let address = IpAddr::from([10, 0, 1, self.rng.below(3) as u8]);
        if let Some(preview) = self.relay.handle_preview(self.now, address, &name) {
            self.did("a preview that waits");
            self.previews.push((preview, self.now.0));
        }
    }

    /// Previews get their cards, and none waits longer than the limit.
    fn see_previews(&mut self) -> Result<(), String> {
        let mut at = 0;
        while let Some(&(preview, since)) = self.previews.get(at) {
            if !self.relay.is_preview_over(self.now, preview) {
                ensure!(self.now.0 < since + PREVIEW_MS_MAX, "a preview waits since {since}");
                at += 1;
                continue;
            }
            self.previews.remove(at);
            if let Some(card) = self.relay.handle_preview_over(self.now, preview) {
                self.did("a preview with a card");
                let card: serde_json::Value = serde_json::from_slice(&card).map_err(|error| error.to_string())?;
                ensure!(card["type"] == "state", "a card of no state: {card}");
            }
        }
        Ok(())
    }

    /// The checks after every mutation.
    fn settle(&mut self) -> Result<(), String> {
        self.hear_events()?;
        self.judge_losses()?;
        self.observe()?;
        self.see_previews()?;
        self.up_since = if self.relay.is_up() { self.up_since.or(Some(self.now.0)) } else { None };
        self.check_renewals()?;
        self.settled += 1;
        self.check();
        let gone: Vec<u32> =
            self.received.keys().copied().filter(|&topic| self.relay.topic_index(topic).is_none()).collect();
        gone.into_iter().for_each(|topic| self.model_forgets(topic));
        ensure!(self.relay.pages() as usize == self.pages.len(), "pages were lost");
        self.check_places()
    }

    /// No page keeps a place in the table without a subscription.
    fn check_places(&mut self) -> Result<(), String> {
        let most = u64::from(self.board.unsubscribed_ms_max) + SWEEP_MS;
        for page in &mut self.pages {
            if !page.views.is_empty() || !page.asks.is_empty() {
                page.wanted = self.now.0;
            }
            let is_held = self.now.0 > page.wanted + most && self.relay.verdict(page.id) == Verdict::Serve;
            ensure!(
                !is_held || self.relay.is_blocked(page.id),
                "page {} keeps its place without a subscription",
                page.id
            );
        }
        Ok(())
    }

    /// The relay's events: none without a reason, and none lost.
    fn hear_events(&mut self) -> Result<(), String> {
        while let Some(event) = self.relay.poll_event() {
            self.did(if event.is_warning() { "a warning" } else { "a report" });
            let is_want_of_room =
                matches!(event, Event::Dropped { why: DropReason::Full, .. } | Event::KernelFull { .. });
            ensure!(!self.is_roomy || !is_want_of_room, "on a roomy board: {event}");
        }
        ensure!(self.relay.events_lost() == 0, "{} events were lost", self.relay.events_lost());
        Ok(())
    }

    /// An overtaken frame may be lost only if the reserve can't hold a whole frame for each page
    /// inside one. Only then may a page be cut inside a frame.
    fn judge_losses(&mut self) -> Result<(), String> {
        let (before, now) = (self.overtaken, self.relay.overtaken());
        self.overtaken = now;
        *self.deeds.entry("a frame kept for the pages inside").or_default() += now.kept - before.kept;
        *self.deeds.entry("a frame lost with pages inside").or_default() += now.lost - before.lost;
        if now.lost > before.lost {
            let (block, most) = (u64::from(self.board.block_size), self.board.frame_size_max());
            let run_max = RUN_SIZE_MAX.min(u64::from(self.board.notsent_size_max) / 4);
            let size = |page: &Page| match &page.sealed {
                Some(sealed) => sealed.kept_size(page, most, run_max),
                None => page.half_frame(most),
            };
            let inside = self.pages.iter().map(|page| (page.id, size(page))).filter(|(_, size)| *size > 0);
            let needed: u64 = inside.clone().map(|(_, size)| size.div_ceil(block)).sum();
            self.note(|world| {
                let sizes = world.pages.iter().map(|page| (page.id, page.bytes.len(), size(page))).collect::<Vec<_>>();
                format!("a frame was lost; pages need {sizes:?}")
            });
            ensure!(
                needed > self.board.kept_blocks_max.into(),
                "a frame was lost that could be kept: all pages' need {needed} of {} blocks",
                self.board.kept_blocks_max
            );
            self.losers.extend(inside.map(|(id, _)| id));
        }
        Ok(())
    }

    /// The kernel reports its queues for the pages: small for pages that read, anything for the
    /// others.
    fn measure(&mut self) {
        let board = *self.relay.board();
        let full = u64::from(2 * board.send_buffer_size);
        while let Some(page) = self.relay.poll_measure() {
            let holds = !self.is_roomy && self.relay.is_blocked(page);
            let size = if holds { self.rng.below(full + 1) } else { 0 };
            self.relay.handle_measured(page, u32::try_from(size).unwrap(), 0);
        }
        self.relay.handle_measures_done(self.now);
        self.check();
    }

    /// The invariants; on boards with large tables only now and then.
    fn check(&self) {
        let rarely = match self.board.blocks_max {
            0..1_000 => 1,
            1_000..30_000 => 2,
            _ => 16,
        };
        if self.settled.is_multiple_of(rarely) {
            self.relay.check();
        }
    }

    /// Time passes; the uplink dials, connects, reads and writes a little.
    fn pass(&mut self, ms: u64) -> Result<(), String> {
        self.observe()?;
        self.now = self.now.after(ms);
        for at in 0..self.pages.len() {
            if !self.pages[at].is_silent {
                self.relay.handle_page_heard(self.now, self.pages[at].id);
            }
        }
        if self.now >= self.relay.poll_timeout() {
            let dead = self.relay.counters().dead;
            self.relay.handle_timeout(self.now);
            let dead = self.relay.counters().dead - dead;
            let silent = self.pages.iter().filter(|page| page.is_silent).count() as u64;
            ensure!(dead <= silent, "{dead} pages are dead, and {silent} answer no ping");
            self.measure();
        }
        self.settle()?;
        let wire = self.wire;
        match wire {
            Wire::Down => {
                if self.relay.poll_dial(self.now).is_some() {
                    self.wire = Wire::Dialing;
                }
            }
            Wire::Dialing if self.is_prompt => self.connect(),
            Wire::Dialing if self.one_in(4) => self.lose_uplink(),
            Wire::Dialing if self.one_in(2) => self.connect(),
            Wire::Dialing => {}
            Wire::Connected if self.is_half_open => {}
            Wire::Connected => {
                let size = self.relay.uplink_transmit().len();
                let size = if self.one_in(3) { self.any(size + 1) } else { size };
                let bytes = self.relay.uplink_transmit()[..size].to_vec();
                self.server.inbox.extend(bytes);
                self.written += size;
                self.relay.uplink_wrote(self.now, size);
            }
        }
        if self.wire == Wire::Connected
            && let Some(entry) = self.relay.poll_knock(self.now)
            && !self.is_prompt
            && self.one_in(2)
        {
            if self.server.wants_to_end {
                self.did("a move to another entry");
            } else {
                self.did("a return to the first entry");
                ensure!(self.relay.uplink_row(self.now).entry != 0, "the first entry is left for itself");
                ensure!(entry == 0, "a return to another entry");
            }
            self.lose_wire();
            self.relay.handle_uplink_moved(self.now, entry);
            ensure!(self.relay.uplink_row(self.now).entry as usize == entry, "a move to another entry");
            self.forget_wire();
            self.wire = Wire::Dialing;
        }
        if self.wire != Wire::Down && self.relay.uplink_fault(self.now).is_some() {
            if self.is_half_open {
                self.did("an uplink given up in silence");
            }
            self.lose_uplink();
        }
        self.settle()
    }

    fn connect(&mut self) {
        (self.wire, self.is_half_open) = (Wire::Connected, false);
        self.server = Server { nonce: [self.rng.below(256) as u8; 16], ..Server::default() };
        if self.one_in(2) {
            self.server.nonce[12..].copy_from_slice(&EXTENSIONS_MARK);
        }
        (self.observed, self.written) = (0, 0);
        self.audience_at.clear();
        self.deframer.reset();
        let nonce = [self.rng.below(256) as u8; 16];
        self.relay.handle_uplink_connected(self.now, nonce);
        if !self.is_prompt && self.one_in(20) {
            self.push_garbage();
        }
        let nonce = self.server.nonce;
        self.push(&ToRelay::Challenge { version: VERSION, nonce }, Effect::None);
    }

    fn lose_uplink(&mut self) {
        self.lose_wire();
        self.relay.handle_uplink_lost(self.now);
        self.forget_wire();
    }

    fn lose_wire(&mut self) {
        (self.wire, self.is_half_open) = (Wire::Down, false);
        self.server = Server::default();
    }

    /// Bytes that the relay had queued on the lost connection are gone.
    fn forget_wire(&mut self) {
        (self.observed, self.written) = (0, self.relay.uplink_transmit().len());
        self.observed = self.written;
        self.written = 0;
    }

    /// Some frames of the business server arrive, split anywhere.
    fn flush(&mut self, frames: u64) -> Result<(), String> {
        for _ in 0..frames {
            if self.wire != Wire::Connected || self.is_half_open {
                return Ok(());
            }
            self.observe()?;
            let Some(outgoing) = self.server.outbox.pop_front() else { return Ok(()) };
            let mut bytes = &outgoing.bytes[..];
            while !bytes.is_empty() {
                let size = 1 + self.any(bytes.len());
                let (now, later) = bytes.split_at(size);
                self.deframer.space()[..size].copy_from_slice(now);
                self.deframer.filled(size);
                bytes = later;
                if let Err(fault) = self.hear() {
                    ensure!(outgoing.is_garbage, "a valid frame ended the connection: {fault}");
                    self.did("nonsense from the business server");
                    self.lose_uplink();
                    return self.settle();
                }
            }
            ensure!(!outgoing.is_garbage, "an invalid frame was accepted: {:?}", outgoing.bytes);
            self.delivered(outgoing.effect)?;
            self.note(|world| format!("relay got {:?}; its own next {:?}", outgoing.effect, world.received));
            self.settle()?;
            if self.is_prompt {
                self.serve(u64::MAX)?;
            }
        }
        Ok(())
    }

    /// The relay handles the complete frames.
    fn hear(&mut self) -> Result<(), String> {
        while let Some(incoming) = self.deframer.next_frame().map_err(|error| error.to_string())? {
            self.relay.handle_uplink(self.now, incoming).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn open(&mut self) -> Result<(), String> {
        let addresses =
            ["10.0.0.1", "10.0.0.2", "::ffff:10.0.0.1", "2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"];
        let address: IpAddr = addresses[self.any(addresses.len())].parse().unwrap();
        let address = address.to_canonical();
        let same = self.pages.iter().filter(|page| network(page.address) == network(address)).count() as u32;
        let is_short = 4 * self.relay.pages() > 3 * self.board.pages_max;
        let is_enough = match self.settings.pages_per_address {
            None => is_short && same >= self.board.pages_max / 4,
            Some(0) => false,
            Some(most) => same >= most,
        };
        let origin = ["", "https://a.example", "https://b.example", "https://c.example"][self.any(4)].to_owned();
        let full = self.relay.pages() == self.board.pages_max;
        match self.relay.handle_page_open(self.now, Peer { address, origin: &origin, is_anybody: false }) {
            Ok(id) => {
                ensure!(!full, "BOUND: a page beyond the table");
                ensure!(!is_enough, "BOUND: {same} pages of one network, and one more");
                ensure!(!self.relay.is_draining(), "a page was let in while the relay drains");
                self.opened += 1;
                let is_fast = self.rng.below(3) > 0;
                let credit = self.rng.below(3_000);
                let sealed = self.one_in(2).then(|| Box::new(Sealed::new(&mut self.rng)));
                self.pages.push(Page {
                    sealed,
                    id,
                    number: self.opened,
                    address,
                    origin,
                    bytes: Vec::new(),
                    views: HashMap::new(),
                    asks: BTreeMap::new(),
                    sees_up: true,
                    standing: page::Standing::default(),
                    ids: HashSet::new(),
                    told: HashMap::new(),
                    credit,
                    is_fast,
                    is_behind: true,
                    is_silent: self.rng.below(20) == 0,
                    next_id: self.rng.below(5) as u32,
                    sent: VecDeque::new(),
                    asked: Vec::new(),
                    frames: 0,
                    closing: false,
                    opened: self.now.0,
                    wanted: self.now.0,
                    passed: Vec::new(),
                    asks_passed: Passed::default(),
                    sends_passed: Passed::default(),
                });
                Ok(())
            }
            Err(Refusal::Full { .. }) => {
                ensure!(full, "a page was refused and the table is not full");
                Ok(())
            }
            Err(Refusal::Draining { .. }) => {
                ensure!(self.relay.is_draining(), "a page was refused for a drain while the relay does not drain");
                Ok(())
            }
            Err(Refusal::Address { .. }) => {
                ensure!(is_enough, "a page was refused for its network, which has {same}");
                Ok(())
            }
        }
    }

    fn say(&mut self, page: usize, text: &str) {
        self.relay.handle_page_text(self.now, self.pages[page].id, text);
    }

    /// A page subscribes once, or as fast as it can.
    fn subscribe_some(&mut self) -> Result<(), String> {
        if self.pages.is_empty() {
            return Ok(());
        }
        let page = self.any(self.pages.len());
        let which = self.any(self.links.len() + 1);
        if !self.one_in(8) {
            return self.subscribe(page, which);
        }
        // A duplicate subscription only takes a token.
        let name = self.pages[page].views.values().map(|view| view.link.clone()).min();
        let which = name.and_then(|name| self.links.iter().position(|link| link.name == name)).unwrap_or(which);
        let id = self.pages[page].id;
        for _ in 0..self.rng.below(20) {
            let Some(page) = self.pages.iter().position(|page| page.id == id) else { break };
            self.subscribe(page, which)?;
            let ms = self.rng.below(3);
            self.pass(ms)?;
            self.serve(u64::MAX)?;
        }
        Ok(())
    }

    fn subscribe(&mut self, page: usize, which: usize) -> Result<(), String> {
        let name = self.links.get(which).map_or("nowhere".to_owned(), |link| link.name.clone());
        let since = match self.rng.below(4) {
            0 => None,
            1 => Some((1 + self.rng.below(8), self.rng.below(40))),
            _ => {
                let places = self.places.iter().filter(|place| place.0 == name);
                let places: Vec<_> = places.map(|&(_, epoch, next)| (epoch, next)).collect();
                if places.is_empty() { None } else { Some(places[self.any(places.len())]) }
            }
        };
        let id = self.pages[page].next_id;
        self.pages[page].next_id += 1;
        let text = match since {
            None => format!(r#"{{"type":"subscribe","id":{id},"link":"{name}"}}"#),
            Some((epoch, next)) => format!(
                r#"{{"type":"subscribe","id":{id},"link":"{name}","since":{{"epoch":"{epoch}","next":[1,{next},3,0]}}}}"#
            ),
        };
        let since = since.filter(|&(_, next)| next > 0);
        let topic = self.links.get(which).map(|link| self.rooms[link.room].topic);
        let beyond = topic
            .zip(since)
            .is_some_and(|(topic, (epoch, next))| next > self.archive.next(topic, epoch, Track::Messages));
        if !self.pages[page].closing {
            self.pages[page].asks.insert(id, Ask { link: name.clone(), since, beyond, at: self.now.0 });
            self.pages[page].asked.push(name);
        }
        self.say(page, &text);
        Ok(())
    }

    fn unsubscribe(&mut self) {
        if !self.pages.is_empty() {
            let page = self.any(self.pages.len());
            let topic = 1 + self.rng.below(4);
            self.say(page, &format!(r#"{{"type":"unsubscribe","topic":{topic}}}"#));
        }
    }

    fn send(&mut self) {
        if self.pages.is_empty() {
            return;
        }
        let page = self.any(self.pages.len());
        let mut topics: Vec<u32> = self.pages[page].views.keys().copied().collect();
        topics.sort_unstable();
        let topic = if topics.is_empty() { 1 + self.rng.below(4) as u32 } else { topics[self.any(topics.len())] };
        let count = if self.one_in(6) { 8 } else { 1 + self.rng.below(2) };
        for _ in 0..count {
            let size = [3, 200, 512, 513][self.any(4)];
            let data = "s".repeat(size);
            self.pages[page].sent.push_back(data.clone());
            // With an id it wants to know what becomes of it; now and then it comes again.
            let mut id = String::new();
            if self.one_in(2) {
                let ids = &mut self.pages[page].ids;
                let number = ids.iter().next().copied().filter(|_| self.rng.below(4) == 0);
                let number = number.unwrap_or_else(|| (u128::from(self.rng.bits()) << 64 | 7).to_be_bytes());
                ids.insert(number);
                id = format!(r#","id":"{:032x}""#, u128::from_be_bytes(number));
            }
            let text = format!(r#"{{"type":"send","topic":{topic},"data":"{data}"{id}}}"#);
            self.say(page, &text);
            if self.one_in(3) {
                self.say(page, r#"{"type":"ping"}"#);
            }
        }
    }

    fn say_garbage(&mut self) {
        if self.pages.is_empty() {
            return;
        }
        let page = self.any(self.pages.len());
        match self.rng.below(5) {
            0 => self.relay.handle_page_binary(self.now, self.pages[page].id),
            1 => self.say(page, "{"),
            2 => self.say(page, r#"{"type":"subscribe","id":-1,"link":5}"#),
            3 => self.say(page, r#"{"type":"dance"}"#),
            _ => {
                let id = self.pages[page].next_id;
                self.pages[page].next_id += 1;
                if !self.pages[page].closing {
                    let ask = Ask { link: "no link".to_owned(), since: None, beyond: false, at: self.now.0 };
                    self.pages[page].asks.insert(id, ask);
                }
                self.say(page, &format!(r#"{{"type":"subscribe","id":{id},"link":"no link"}}"#));
            }
        }
    }

    fn change_speed(&mut self) {
        for _ in 0..3 {
            if !self.pages.is_empty() {
                let at = self.any(self.pages.len());
                let credit = [0, 1, 40, 300, 1_000, 5_000][self.any(6)];
                self.pages[at].credit += credit;
                if self.one_in(10) {
                    self.pages[at].is_fast ^= true;
                }
                if (credit > 0 || self.pages[at].is_fast) && self.relay.is_blocked(self.pages[at].id) {
                    self.relay.unblocked(self.pages[at].id);
                }
            }
        }
    }

    fn publish_some(&mut self) {
        let room = self.any(self.rooms.len());
        let burst = if self.one_in(6) { 1 + self.rng.below(12) } else { 1 + self.rng.below(3) };
        let track = Track::ALL[self.any(4)];
        for _ in 0..burst {
            let is_good = !self.one_in(10);
            let what = match (track.is_media(), self.rng.below(8)) {
                (false, _) => What::Whole,
                (_, 0) => What::Init,
                (_, 1..3) => What::Start,
                _ => What::Continue,
            };
            self.publish(room, track, what, is_good);
        }
        if self.one_in(8) {
            self.publish_again(room, track);
        }
    }

    /// Several pages enter a room at once, as far as they are admitted.
    fn gather(&mut self, room: usize) -> Result<(), String> {
        for _ in 0..3 {
            self.open()?;
        }
        let topic = self.rooms[room].topic;
        let names: Vec<_> = self.links.iter().filter(|link| link.room == room).map(|link| link.name.clone()).collect();
        for at in 0..self.pages.len() {
            if !self.pages[at].closing && !self.pages[at].views.contains_key(&topic) {
                let (id, name) = (self.pages[at].next_id, &names[self.rng.below(names.len() as u64) as usize]);
                self.pages[at].next_id += 1;
                self.pages[at].asks.insert(id, Ask { link: name.clone(), since: None, beyond: false, at: self.now.0 });
                self.pages[at].asked.push(name.clone());
                self.say(at, &format!(r#"{{"type":"subscribe","id":{id},"link":"{name}"}}"#));
            }
        }
        for _ in 0..3 {
            self.pass(20)?;
            self.process(100)?;
            while !self.server.pending.is_empty() {
                self.answer(0);
            }
            self.flush(u64::MAX)?;
            self.serve(u64::MAX)?;
        }
        Ok(())
    }

    /// Pages stop inside the frames of a burst, each in a different one, and the rest of it
    /// overtakes them.
    fn burst(&mut self) -> Result<(), String> {
        let room = self.any(self.rooms.len());
        self.gather(room)?;
        let track = Track::ALL[self.any(4)];
        let what = if track.is_media() { What::Start } else { What::Whole };
        self.publish(room, track, if track.is_media() { What::Init } else { What::Whole }, true);
        self.flush(u64::MAX)?;
        let topic = self.rooms[room].topic;
        let watching: Vec<_> =
            self.pages.iter().filter(|page| page.views.contains_key(&topic)).map(|page| page.id).collect();
        // Pages that stopped in the last one resume reading.
        for page in self.pages.iter_mut().filter(|page| watching.contains(&page.id)) {
            page.is_fast = true;
            self.relay.unblocked(page.id);
        }
        self.serve(u64::MAX)?;
        for id in watching {
            self.publish(room, track, what, true);
            self.flush(u64::MAX)?;
            if let Some(at) = self.pages.iter().position(|page| page.id == id) {
                (self.pages[at].is_fast, self.pages[at].credit) = (false, 1 + self.rng.below(60));
                self.relay.unblocked(id);
            }
            self.serve(u64::MAX)?;
        }
        for _ in 0..2 + self.rng.below(10) {
            self.publish(room, track, what, true);
        }
        self.flush(u64::MAX)
    }

    fn be_rude(&mut self) {
        if !self.server.is_welcome {
            return;
        }
        let link = self.any(self.links.len());
        match self.rng.below(8) {
            0 => {
                let name = self.links[link].name.clone();
                self.push(&ToRelay::Revoke { link: &name, reason: "taken back" }, Effect::None);
            }
            1 => self.end(link / 2),
            2 => {
                let page = self.rng.below(u64::from(self.opened) + 2) as u32;
                self.push(&ToRelay::Kick { page, reason: "out" }, Effect::None);
            }
            3 => self.links[link].is_dead = self.one_in(3),
            4 => {
                self.end(link / 2);
                self.new_epoch(link / 2);
            }
            5 => {
                self.new_epoch(link / 2);
                if self.one_in(2) {
                    self.lose_uplink();
                }
            }
            6 => self.push(&ToRelay::Ping { nonce: 7 }, Effect::None),
            _ => {
                // Answers without a request, publications without a subscriber.
                self.push(&ToRelay::Deny { request: 4_000_000_000, reason: "" }, Effect::None);
                let part = wire::uplink::Part::Whole;
                let publish = ToRelay::Publish { topic: 99, track: Track::Messages, sequence: 1, part, data: b"1" };
                self.push(&publish, Effect::None);
            }
        }
    }

    /// Serves pages until none is ready, or a budget is used up.
    fn serve(&mut self, budget: u64) -> Result<(), String> {
        let mut turns = 0;
        self.draft.begin(self.now);
        while turns < budget {
            let Some(id) = self.relay.poll_page() else { break };
            let Some(at) = self.pages.iter().position(|page| page.id == id) else {
                return Err(format!("NAME: page {id} is to be served and is gone"));
            };
            self.serve_page(at)?;
            if self.relay.poll_full() {
                self.measure();
                self.draft.begin(self.now);
            }
            self.check();
            turns += 1;
            ensure!(turns < 10_000, "pages are served without end");
        }
        Ok(())
    }

    fn serve_page(&mut self, at: usize) -> Result<(), String> {
        let id = self.pages[at].id;
        for _ in 0..200 {
            match self.relay.verdict(id) {
                Verdict::Cut => return self.gone(at),
                Verdict::Close(code, reason) => {
                    ensure!(self.pages[at].bytes.is_empty(), "page {id} is closed with {code} inside a frame");
                    ensure!(self.relay.is_between_frames(id), "page {id} is closed with {code} inside a frame");
                    let age = self.now.0 - self.pages[at].opened;
                    let least = match &*reason {
                        "no subscribe within the time for it" => self.board.first_subscribe_ms_max,
                        "no subscription for too long" => self.board.unsubscribed_ms_max,
                        _ => 0,
                    };
                    // The machine keeps such times in tenths of a second.
                    ensure!(age + 100 > least.into(), "page {id} is closed after {age} ms: {reason}");
                    if least > 0 {
                        self.did("a page that wanted nothing was closed");
                    }
                    if self.rng.below(3) > 0 {
                        return self.gone(at);
                    }
                    self.pages[at].closing = true;
                    return Ok(());
                }
                Verdict::Serve => {}
            }
            self.relay.plan(id, &mut self.draft);
            let plan = &self.draft;
            if plan.is_cut() {
                ensure!(!self.relay.is_between_frames(id), "page {id} is cut between two frames");
                ensure!(self.losers.contains(&id), "page {id} is cut inside a frame that was not lost");
                self.did("a page cut inside a frame that was lost");
                return self.gone(at);
            }
            if plan.is_empty() {
                ensure!(!plan.is_shortened(), "page {id} has more to send and nothing planned");
                let is_between = self.relay.is_between_frames(id);
                let page = &self.pages[at];
                let is_inside = page.sealed.as_ref().is_some_and(|sealed| sealed.is_inside());
                ensure!(
                    is_between == (page.bytes.is_empty() && !is_inside),
                    "page {id} and the relay disagree on whether it is inside a frame"
                );
                return Ok(());
            }
            if self.pages[at].sealed.is_some() {
                if self.write_sealed(at)? {
                    continue;
                }
                return Ok(());
            }
            let mut slices = Slices::new();
            let total = self.relay.gather(id, &self.draft, &mut slices);
            ensure!(total > 0, "page {id} has a plan without bytes");
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            ensure!(bytes.len() as u64 == total, "page {id}'s plan has {total} bytes, {} gathered", bytes.len());
            let is_cut_by_slices = slices.is_full();
            drop(slices);
            self.judge_gather(at, &bytes, is_cut_by_slices)?;
            let page = &mut self.pages[at];
            let room = if page.is_fast { total } else { total.min(page.credit) };
            let taken = if self.rng.below(3) == 0 { self.rng.below(room + 1) } else { room };
            page.credit = page.credit.saturating_sub(taken);
            self.relay.wrote(id, &self.draft, Progress::plain(taken));
            self.note(|_| format!("page {id} gets {}", String::from_utf8_lossy(&bytes[..taken as usize])));
            if taken == self.draft.size() && !self.draft.is_shortened() {
                self.pages[at].is_behind = false;
            }
            let read = self.read(at, &bytes[..taken as usize]);
            read.map_err(|error| format!("page {id} after {} frames: {error}", self.pages[at].frames))?;
            if taken < total {
                if self.is_prompt || self.pages[at].is_fast && self.rng.below(4) > 0 {
                    continue;
                }
                self.pages[at].is_behind = true;
                self.relay.blocked(id);
                return Ok(());
            }
        }
        Err(format!("page {id} is served without end"))
    }

    /// Writes to a page behind TLS; whether to go on.
    fn write_sealed(&mut self, at: usize) -> Result<bool, String> {
        let id = self.pages[at].id;
        let Some(mut sealed) = self.pages[at].sealed.take() else { return Ok(false) };
        sealed.disturb(&mut self.rng)?;
        let page = &mut self.pages[at];
        let (rng, credit) = (&mut self.rng, &mut page.credit);
        let is_fast = page.is_fast;
        let take = |offered: u64| {
            let room = if is_fast { offered } else { offered.min(*credit) };
            let taken = if rng.below(3) == 0 { rng.below(room + 1) } else { room };
            *credit = credit.saturating_sub(taken);
            taken
        };
        let resealed = sealed.resealed;
        let wrote = sealed.write(&self.relay, id, &self.draft, take)?;
        *self.deeds.entry("a record sealed again").or_default() += sealed.resealed - resealed;
        let mut before = self.pages[at].bytes.clone();
        for run in wrote.runs {
            ensure!(page::is_run(&before, &run), "page {id}: a record ends inside a frame that is not alone in it");
            before.extend(run);
        }
        self.relay.wrote(id, &self.draft, wrote.progress);
        self.pages[at].sealed = Some(sealed);
        self.note(|_| format!("page {id} gets {:?}, {}", wrote.progress, String::from_utf8_lossy(&wrote.plain)));
        if wrote.progress.size == self.draft.size() && wrote.progress.begun == 0 && !self.draft.is_shortened() {
            self.pages[at].is_behind = false;
        }
        let read = self.read(at, &wrote.plain);
        read.map_err(|error| format!("page {id} after {} frames: {error}", self.pages[at].frames))?;
        if wrote.is_whole || self.is_prompt || self.pages[at].is_fast && self.rng.below(4) > 0 {
            return Ok(true);
        }
        self.pages[at].is_behind = true;
        self.relay.blocked(id);
        Ok(false)
    }

    /// A gather ends between two frames. Without its last frame it is smaller than what the kernel
    /// keeps unsent, or, for a page that kept up so far, than the send buffer.
    fn judge_gather(&self, at: usize, bytes: &[u8], is_cut_by_slices: bool) -> Result<(), String> {
        let page = &self.pages[at];
        let (begins, is_between) = page.frames_with(bytes)?;
        let before_last = begins.last().map_or(0, |begin| begin.saturating_sub(page.bytes.len()));
        let most = if page.is_behind { self.board.notsent_size_max } else { self.board.send_buffer_size } as usize;
        ensure!(is_between || is_cut_by_slices, "page {}'s gather ends inside a frame", page.id);
        ensure!(before_last < most, "page {}'s gather has {before_last} bytes before its last frame", page.id);
        Ok(())
    }

    fn read(&mut self, at: usize, bytes: &[u8]) -> Result<(), String> {
        let now = self.now.0;
        let late = self.server.accepted.values().any(|&since| now >= since + 2_000);
        let truth = Truth {
            archive: &self.archive,
            closed: &self.closed,
            received: &self.received,
            delivered: &self.delivered,
            is_roomy: self.is_roomy,
            connections: &self.connections,
            confirmed: &self.confirmed,
            replay_is_late: late,
        };
        let page = &mut self.pages[at];
        page.read(&truth, bytes)?;
        let board = &self.board;
        for moment in std::mem::take(&mut page.passed) {
            page.asks_passed.add(moment, board.page_asks_burst, 1, "asks of a page")?;
            let of_network = self.asks_passed.entry(network(page.address)).or_default();
            of_network.add(moment, board.address_asks_burst, board.address_asks_per_s, "asks of a network")?;
        }
        Ok(())
    }

    /// A stale page id has no effect (NAME).
    fn disturb(&mut self) -> Result<(), String> {
        if self.left.is_empty() {
            return Ok(());
        }
        let id = self.left[self.rng.below(self.left.len() as u64) as usize];
        ensure!(self.relay.verdict(id) == Verdict::Cut, "NAME: page {id} is gone and resolves");
        self.draft.begin(self.now);
        self.relay.plan(id, &mut self.draft);
        ensure!(self.draft.is_empty(), "NAME: page {id} is gone and is written to");
        match self.rng.below(4) {
            0 => self.relay.handle_page_closed(self.now, id),
            1 => self.relay.handle_page_text(self.now, id, r#"{"type":"unsubscribe","topic":1}"#),
            2 => self.relay.blocked(id),
            _ => self.relay.unblocked(id),
        }
        self.settle()
    }

    /// A page's connection is gone; its positions are kept for a later visit.
    fn remember(&mut self, at: usize) -> Id<Session> {
        let page = self.pages.remove(at);
        // In a deterministic order.
        let views: BTreeMap<u32, page::View> = page.views.into_iter().collect();
        for view in views.into_values() {
            if let Some(next) = view.messages.filter(|_| !view.beyond) {
                self.places.push_back((view.link, view.epoch, next));
            }
        }
        while self.places.len() > 20 {
            self.places.pop_front();
        }
        page.id
    }

    /// The relay is notified that a page's connection is gone.
    fn gone(&mut self, at: usize) -> Result<(), String> {
        let id = self.remember(at);
        self.relay.handle_page_closed(self.now, id);
        self.left.push_back(id);
        if self.left.len() > 4 {
            self.left.pop_front();
        }
        ensure!(self.relay.verdict(id) == Verdict::Cut, "NAME: page {id} is gone and resolves");
        self.settle()
    }

    /// All faults end: pages read, requests are answered, and every page must have caught up.
    fn quiesce(&mut self) -> Result<(), String> {
        for link in &mut self.links {
            link.is_dead = false;
        }
        for page in &mut self.pages {
            (page.is_fast, page.is_silent) = (true, false);
        }
        if self.ends_at.is_some() {
            self.restart();
        }
        self.refresh_counters();
        self.be_good(3)?;
        if self.relay.is_up() {
            // Also a page that noticed nothing of the connections before.
            self.check_standing()?;
        }
        // Rooms with an epoch that the relay does not know yet need a new connection.
        if self.wire == Wire::Connected {
            self.lose_uplink();
        }
        for _ in 0..40 {
            if !self.relay.is_up() {
                self.be_good(10)?;
            }
        }
        self.be_good(150)?;
        ensure!(self.relay.is_up(), "the uplink did not come back");
        let old = self.server.under_way.values().find(|asked| asked.at + 1_000 < self.now.0);
        ensure!(old.is_none(), "a request is still under way: {old:?}");
        for at in 0..self.pages.len() {
            let page = &self.pages[at];
            ensure!(page.asks.is_empty(), "page {} got no answer to {:?}", page.id, page.asks);
            ensure!(page.sees_up || page.views.is_empty(), "page {} got no notice that the uplink is up", page.id);
            ensure!(page.bytes.is_empty(), "page {} has half a frame", page.id);
        }
        self.check_standing()?;
        self.check_receipts()?;
        self.check_grants()?;
        for room in 0..self.rooms.len() {
            self.probe(room)?;
        }
        self.be_good(15)?;
        self.check_audience()?;
        // All pages leave: only lingering topics remain, and then nothing.
        while !self.pages.is_empty() {
            self.gone(0)?;
        }
        self.be_good(LINGER_MS / 100 + 350)?;
        ensure!(self.server.subscribed.is_empty(), "the relay still has topics: {:?}", self.server.subscribed);
        let used = self.relay.in_use();
        ensure!(used == relay::InUse::default(), "rows are left behind: {used:?}");
        Ok(())
    }

    /// Advances tenths of a second in a world without faults.
    fn be_good(&mut self, ticks: u64) -> Result<(), String> {
        self.is_prompt = true;
        for _ in 0..ticks {
            self.pass(100)?;
            self.process(100)?;
            while !self.server.pending.is_empty() {
                self.answer(0);
            }
            self.flush(u64::MAX)?;
            for at in 0..self.pages.len() {
                if self.relay.is_blocked(self.pages[at].id) {
                    self.relay.unblocked(self.pages[at].id);
                }
            }
            self.serve(u64::MAX)?;
            self.settle()?;
        }
        Ok(())
    }

    /// One more publication on each track reaches every page that watches the room.
    fn probe(&mut self, room: usize) -> Result<(), String> {
        let topic = self.rooms[room].topic;
        let epoch = self.rooms[room].epoch;
        for (track, what) in [
            (Track::State, What::Whole),
            (Track::Messages, What::Whole),
            (Track::Audio, What::Init),
            (Track::Audio, What::Start),
            (Track::Audio, What::Continue),
            (Track::Video, What::Init),
            (Track::Video, What::Start),
        ] {
            let dropped = self.relay.counters().dropped;
            self.publish(room, track, what, true);
            self.be_good(2)?;
            let sequence = self.archive.next(topic, epoch, track) - 1;
            let is_new = self.relay.counters().dropped == dropped;
            for page in &self.pages {
                let Some(view) = page.views.get(&topic) else { continue };
                ensure!(view.epoch == epoch, "page {} is in epoch {}, not {epoch}", page.id, view.epoch);
                let name = track.name();
                let reached = match track {
                    Track::State => Some(view.state + 1),
                    Track::Messages => view.messages,
                    _ => view.media[track.index() - 2].next,
                };
                let is_init = view.media.get(track.index().wrapping_sub(2)).and_then(|media| media.init);
                let has_it = reached == Some(sequence + 1) || what == What::Init && is_init == Some(sequence);
                let is_excused = track.is_media() && (!is_new || what != What::Start && !self.is_roomy)
                    || what == What::Init && reached.is_none()
                    || track == Track::Messages && view.beyond
                    || what == What::Continue && !self.is_roomy;
                ensure!(
                    has_it || is_excused,
                    "page {} has not caught up with {name} of topic {topic}: {reached:?}, newest {sequence}",
                    page.id
                );
            }
        }
        Ok(())
    }

    /// Each page that knows the uplink for up knows what it may use and who it is there.
    fn check_standing(&self) -> Result<(), String> {
        let Some(last) = self.connections.last() else { return Ok(()) };
        for page in self.pages.iter().filter(|page| !page.views.is_empty() && page.sees_up && !page.closing) {
            let standing = &page.standing;
            let is_new = standing.connection + 1 == self.connections.len() && standing.author.is_some();
            ensure!(is_new, "page {} is an author of an older connection", page.id);
            ensure!(standing.has_receipts == last.has_receipts, "page {} was told wrong features", page.id);
        }
        Ok(())
    }

    /// Each page was told of its messages, but for those that the relay had no room for.
    fn check_receipts(&self) -> Result<(), String> {
        let told = |page: &Page, id: &MessageId| page.told.get(id).copied().unwrap_or(0);
        let owed = |((number, id), count): (&(u32, MessageId), &u64)| {
            let page = self.pages.iter().find(|page| page.number == *number)?;
            Some(count - told(page, id)).filter(|_| page.ids.contains(id))
        };
        let missing: u64 = self.confirmed.iter().filter_map(owed).sum();
        let dropped = self.relay.counters().receipts_dropped;
        ensure!(missing <= dropped, "{missing} messages were received and pages not told; {dropped} dropped");
        Ok(())
    }

    fn check_audience(&self) -> Result<(), String> {
        for topic in self.server.accepted.keys().filter(|topic| self.received.contains_key(topic)) {
            let pages = self.pages.iter().filter(|page| page.views.contains_key(topic)).count();
            let audience = self.server.audience.get(topic).map(|audience| audience.0 as usize);
            ensure!(
                audience == Some(pages),
                "topic {topic} has {pages} pages, the business server last got {audience:?}"
            );
        }
        Ok(())
    }
}

/// A relay's start time: usually 0, sometimes just before a counter of milliseconds (32 bits) or of
/// tenths of a second (a `Stamp`) overflows.
fn beginning(rng: &mut Jitter) -> Instant {
    let early = 1 + rng.below(100_000);
    Instant(match rng.below(8) {
        0 => u64::from(u32::MAX) - early,
        1 => u64::from(u32::MAX) * 100 - 20_000_000 - early,
        _ => early,
    })
}

/// Runs the requested seeds; their results.
fn simulate(board: &Board, is_roomy: bool, seeds: u64, steps: u64) -> Vec<Ran> {
    seeds::simulate(seeds, steps, |seed, steps, step| {
        let mut world = World::new(seed, board, is_roomy);
        while step.get() < steps {
            step.set(step.get() + 1);
            world.note(|_| format!("step {}", step.get()));
            world.step()?;
        }
        world.quiesce().map_err(|error| format!("at quiescence: {error}"))?;
        world.spent.push(*world.relay.counters());
        Ok(Ran { counters: world.spent, deeds: world.deeds })
    })
}

#[test]
fn every_page_gets_what_its_tracks_promise_on_the_tiny_board() {
    let runs = simulate(&TINY, false, 250, 400);
    if runs.len() >= 250 {
        // The world is bad enough: every outcome occurred.
        let all = |name: &str, count: fn(&Counters) -> u64| {
            let sum: u64 = runs.iter().flat_map(|run| &run.counters).map(count).sum();
            println!("{name}: {sum}");
            assert!(sum > 0, "{name} occurred in no seed");
        };
        all("pages refused for want of room", |counters| counters.refused_full);
        all("pages refused for their address", |counters| counters.refused_address);
        all("page faults", |counters| counters.page_faults);
        all("page messages", |counters| counters.page_messages);
        all("answers to messages dropped", |counters| counters.receipts_dropped);
        all("sends limited", |counters| counters.sends_limited);
        all("asks limited", |counters| counters.asks_limited);
        all("subscriptions", |counters| counters.subscribed);
        all("denials", |counters| counters.denied);
        all("slow pages closed", |counters| counters.closed_slow);
        all("pages cut", |counters| counters.cut);
        all("dead pages", |counters| counters.dead);
        all("superseded states", |counters| counters.superseded);
        all("gaps", |counters| counters.gaps.iter().sum());
        all("repeated inits", |counters| counters.inits_repeated);
        all("superfluous publications", |counters| counters.superfluous);
        all("dropped publications", |counters| counters.dropped);
        all("publications of unknown topics", |counters| counters.unknown_topic);
        all("media shed", |counters| counters.media_shed);
        all("unanswered requests", |counters| counters.requests_unanswered);
        all("topics refused", |counters| counters.topics_refused);
        all("uplink losses", |counters| counters.uplink_losses);
        for track in Track::ALL {
            let count = |run: &Ran| run.counters.iter().map(|counters| counters.deliveries[track.index()]).sum::<u64>();
            assert!(runs.iter().any(|run| count(run) > 0), "nothing was delivered on {}", track.name());
        }
        for deed in [
            "a restart of the relay",
            "a drain",
            "an uplink given up in silence",
            "nonsense from the business server",
            "a return to the first entry",
            "a relay asked to leave",
            "a move to another entry",
            "an answer given twice",
            "an answer given late",
            "a business server that is busy",
            "a link denied to nobody in particular",
            "a page denied by name",
            "a preview that waits",
            "a preview with a card",
            "an epoch that was there before",
            "counters that are used up",
            "a report",
            "a warning",
            "a page that wanted nothing was closed",
        ] {
            let sum: u64 = runs.iter().filter_map(|run| run.deeds.get(deed)).sum();
            println!("{deed}: {sum}");
            assert!(sum > 0, "{deed} occurred in no seed");
        }
    }
}

#[test]
fn every_page_gets_what_its_tracks_promise_on_the_host_board() {
    simulate(&HOST, false, 24, 400);
}

#[test]
fn no_rate_limit_is_exceeded_on_a_board_with_high_rates() {
    let runs = simulate(&HASTY, false, 40, 400);
    if runs.len() >= 40 {
        let counters = || runs.iter().flat_map(|run| &run.counters);
        assert!(counters().any(|counters| counters.asks_limited > 0), "no page subscribed too often");
        assert!(counters().any(|counters| counters.sends_limited > 0), "no page sent too much");
        assert!(counters().any(|counters| counters.refused_address > 0), "no network reached its share");
    }
}

#[test]
fn every_page_gets_everything_on_a_roomy_board() {
    simulate(&ROOMY, true, 60, 300);
}

#[test]
fn a_page_that_is_overtaken_inside_a_frame_finishes_it_on_a_crowded_board() {
    let runs = simulate(&CROWDED, false, 80, 400);
    if runs.len() >= 80 {
        for (deed, least) in [
            ("a frame kept for the pages inside", 400),
            ("a frame lost with pages inside", 10),
            ("a record sealed again", 1_000),
            ("a page cut inside a frame that was lost", 10),
        ] {
            let sum: u64 = runs.iter().filter_map(|run| run.deeds.get(deed)).sum();
            println!("{deed}: {sum}");
            assert!(sum >= least, "{deed}: {sum} times");
        }
    }
}
