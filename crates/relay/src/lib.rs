//! The machine: everything that the relay decides, and nothing that it does.
//!
//! Pure: no socket, no clock, no log, no task. The interface is sans-IO: `handle_*` reports what
//! happened, plain verbs are commands, `poll_*` returns what to do next, getters take `&self`, and
//! time is an argument. After each mutation the caller drains events, the uplink's bytes and pages.
//!
//! ```text
//! uplink frame -> uplink.rs -> publish.rs -> topic.rs -> log.rs   (encoded once, into a ring)
//!                      |                                    |
//!        answering.rs, asking.rs                        cursor.rs  (what a page gets next)
//!                      |                                    |
//!                 admission.rs                              |
//!                      |                                    |
//! page frame  -> pages.rs -> session.rs ------------> transmit.rs  (one plan, one writev)
//!                                                      fanout.rs   (which page is next)
//! ```
//!
//! All memory is allocated in [`Relay::new`]: tables of fixed capacity, the arena, the buffer to
//! the business server. Running out of room is a normal result (a refusal, a denial with a retry, a
//! gap), never a panic. A panic here is a bug of ours: an index was kept after its row was removed.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod acceptance;
mod admission;
mod answering;
mod asking;
pub mod begun;
mod check;
mod counters;
pub mod cursor;
mod denials;
pub mod draft;
pub mod event;
mod expiry;
mod fanout;
pub mod fault;
mod gather;
pub mod inspect;
mod interned;
mod kernel_memory;
pub mod link;
mod links;
mod liveness;
pub mod log;
mod measuring;
mod negotiated;
pub mod notice;
pub mod pages;
mod position;
pub mod preview;
mod previews;
mod publish;
pub mod rate;
mod ready;
mod receipts;
mod requests;
mod reserve;
mod retry;
#[cfg(any(test, feature = "rig"))]
pub mod rig;
mod ring;
pub mod session;
mod sessions;
mod subscription;
pub mod table;
pub mod texts;
pub mod time;
pub mod topic;
mod topic_life;
mod topics;
pub mod traffic;
pub mod transmit;
mod turns;
mod unanswered;
mod uplink;
mod uplink_connection;
mod waiting;
mod walks;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

pub use self::counters::{CLOSE_CODES, Counters, InUse};
pub use self::uplink_connection::{DIAL_MS_MAX, RESOLVE_MS_MAX};
use self::{
    begun::Begun,
    denials::Denials,
    draft::Draft,
    event::{Event, Events},
    interned::{Interned, Network, Origin},
    links::Links,
    log::Store,
    previews::{Preview, Previews},
    rate::Bucket,
    receipts::Receipts,
    requests::{Request, Requests},
    session::Session,
    sessions::Sessions,
    subscription::{Subscription, Subscriptions},
    table::{Id, Table},
    texts::{Reason, Texts},
    time::{Instant, Jitter},
    topic::Topic,
    topics::Topics,
    traffic::{Tally, Traffic},
    transmit::{Progress, Slices},
    unanswered::Unanswered,
    uplink_connection::Uplink,
};
use board::{self, Board};

/// The machine's clock tick. Each tick sweeps a tenth of the pages.
const TICK_MS: u64 = 100;
/// Ticks per sweep: every page is looked at once in that many ticks.
const TICKS_PER_SWEEP: u32 = 10;

/// The configuration, as far as the machine needs it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The relay's name in `Hello`.
    pub name: String,
    /// The secret shared with the business server.
    pub secret: Vec<u8>,
    /// How many entries `uplink.addresses` has.
    pub entries: u32,
    /// After this time without a sign of life of the business server the uplink is dead,
    /// milliseconds.
    pub dead_after_ms: u64,
    /// How long a topic without pages stays warm.
    pub linger_ms: u64,
    /// The most pages that one address may have, 0 for no limit. `None`: a quarter of the table,
    /// enforced only while the table is more than three quarters full.
    pub pages_per_address: Option<u32>,
}

/// The machine. It coordinates its parts; each part owns its rows, lists and counts.
#[derive(Debug)]
pub struct Relay {
    board: Board,
    settings: Settings,
    /// Pages' connections.
    sessions: Sessions,
    /// Pages' subscriptions to links, and their places in topics.
    subscriptions: Subscriptions,
    /// The topics that the business server publishes.
    topics: Topics,
    /// The bytes of all publications.
    store: Store,
    /// Share links and their grants.
    links: Links,
    /// Requests in flight to the business server.
    requests: Requests,
    /// Requests that timed out.
    unanswered: Unanswered,
    /// Recent denials of single pages.
    denials: Denials,
    previews: Previews,
    /// The business server's reasons that are in use.
    reasons: Texts,
    uplink: Uplink,
    counters: Counters,
    tally: Tally,
    events: Events,
    jitter: Jitter,
    hash_seed: u64,
    tick_at: Instant,
    tick: u32,
    draining: bool,
}

impl Relay {
    /// Creates the machine for a board and allocates all its memory; most of that is not touched
    /// before it is first used. `seed` is for jitter and hashes only: no secret depends on it.
    #[must_use]
    pub fn new(board: &Board, settings: Settings, seed: u64, now: Instant) -> Box<Self> {
        let mut jitter = Jitter::new(seed);
        let topics = board.topics_max as usize;
        let hash_seed = jitter.bits();
        Box::new(Self {
            board: *board,
            sessions: Sessions::new(board, hash_seed),
            subscriptions: Subscriptions::new(board.subscriptions_max),
            topics: Topics::new(board.topics_max),
            store: Store::new(
                board.block_size,
                board.blocks_max,
                topics * Topic::directory_rows(board),
                topics * Topic::index_rows(board),
                Begun::new(board.pages_max, board.block_size, board.kept_blocks_max),
            ),
            links: Links::new(board.links_max, hash_seed),
            requests: Requests::new(board.requests_max),
            unanswered: Unanswered::new(board.requests_max),
            denials: Denials::new(board.denials_max),
            previews: Previews::new(board),
            reasons: Texts::new(board.reasons_max),
            uplink: Uplink::new(now, settings.entries, settings.dead_after_ms, board.uplink_out_size),
            settings,
            counters: Counters::default(),
            tally: Tally::default(),
            events: Events::default(),
            jitter,
            hash_seed,
            tick_at: now.after(TICK_MS),
            tick: 0,
            draining: false,
        })
    }

    /// Advances the machine's time. Call it when [`poll_timeout`](Self::poll_timeout) is due, or
    /// earlier.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.tick_at {
            return;
        }
        // Missed ticks are caught up on, at most one full sweep of them.
        let missed = now.since(self.tick_at) / TICK_MS + 1;
        self.tick_at = now.after(TICK_MS);
        for _ in 0..missed.min(TICKS_PER_SWEEP.into()) {
            self.tick = (self.tick + 1) % TICKS_PER_SWEEP;
            let mut page = self.tick;
            while page < self.sessions.end() {
                self.sweep_page(now, page);
                page += TICKS_PER_SWEEP;
            }
        }
        self.sessions.kernel_mut().begin_measures(self.tick, TICKS_PER_SWEEP);
        self.sweep_uplink(now);
        self.sweep_links(now);
        self.denials.sweep(&mut self.reasons, now);
        self.admit_more(now);
        self.sweep_topics(now);
        self.ask_more(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.tick_at
    }

    /// Removes and returns the oldest event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.poll()
    }

    /// How many events were dropped because the ring was full between two calls of
    /// [`poll_event`](Self::poll_event).
    #[must_use]
    pub const fn events_lost(&self) -> u64 {
        self.events.lost()
    }

    /// Starts draining: no new page is accepted, and every page is closed with a time to come back.
    pub fn drain(&mut self, now: Instant) {
        if core::mem::replace(&mut self.draining, true) {
            return;
        }
        // If all pages reconnected at once they would overload the next relay, so their retries are
        // spread, the more so the more pages there are.
        let spread_ms = DRAIN_MS_MIN + u64::from(self.sessions.len()) * DRAIN_MS_PER_PAGE;
        for page in 0..self.sessions.end() {
            if self.sessions.get(page).is_some() {
                let retry_ms = DRAIN_MS_MIN / 2 + self.jitter.below(spread_ms);
                let retry_ms = u32::try_from(retry_ms).unwrap_or(u32::MAX);
                self.close_page(now, page, 1012, Reason::Own("the relay restarts"), Some(retry_ms));
            }
        }
    }

    /// Whether the relay is draining.
    #[must_use]
    pub const fn is_draining(&self) -> bool {
        self.draining
    }

    /// Applies the settings of a new configuration; connections and tables stay as they are.
    pub fn reconfigure(&mut self, settings: Settings) {
        self.uplink.set_dead_after(settings.dead_after_ms);
        self.settings = settings;
    }

    /// Fills the draft with what a page should be sent next, as of the draft's time; the draft
    /// stays empty if there is nothing. If the page is gone, the draft says to cut the connection.
    pub fn plan(&self, page: Id<Session>, draft: &mut Draft) {
        match self.sessions.resolve(page) {
            Some(page) => self.plan_index(page, draft),
            None => draft.cut(),
        }
    }

    /// Whether a page gets the same bytes as the page that the draft was last planned for: its
    /// cursors are the same, it has nothing else to be sent, and the bytes are one contiguous
    /// piece.
    #[must_use]
    pub fn is_in_lockstep(&self, page: Id<Session>, draft: &Draft) -> bool {
        self.sessions.resolve(page).is_some_and(|page| self.is_in_lockstep_index(page, draft))
    }

    /// The bytes for the pages in lockstep with the draft's page; empty where they are not one
    /// contiguous piece.
    #[must_use]
    pub fn piece(&self, draft: &Draft) -> &[u8] {
        draft.piece().map_or(&[], |piece| self.store.piece(piece))
    }

    /// Collects the draft's bytes for one `writev`; returns how many there are. The page must not
    /// have changed since the draft was planned.
    pub fn gather<'a>(&'a self, page: Id<Session>, draft: &'a Draft, out: &mut Slices<'a>) -> u64 {
        self.sessions.resolve(page).map_or(0, |page| self.gather_index(page, draft, out))
    }

    /// Collects the draft's next run from its offset `at` on: the bytes for one record over TLS, at
    /// most `most` and [`RUN_SIZE_MAX`](begun::RUN_SIZE_MAX), of one source. Where a record was
    /// begun, the first run must be asked for with its size. Returns the run's size; 0 if one write
    /// should offer no more. The page must not have changed since the draft was planned.
    pub fn run<'a>(&'a self, page: Id<Session>, draft: &'a Draft, at: u64, most: u64, out: &mut Slices<'a>) -> u64 {
        self.sessions.resolve(page).map_or(0, |page| self.run_index(page, draft, at, most, out))
    }

    /// The socket took a part of the draft. The page must not have changed since the draft was
    /// planned.
    pub fn wrote(&mut self, page: Id<Session>, draft: &Draft, took: Progress) {
        if let Some(page) = self.sessions.resolve(page) {
            self.wrote_index(page, draft, took);
        }
    }

    /// Whether the connection is between two of the relay's frames, so that control frames may be
    /// sent.
    #[must_use]
    pub fn is_between_frames(&self, page: Id<Session>) -> bool {
        self.sessions.resolve(page).is_some_and(|page| self.sessions[page].half == session::Half::None)
    }

    /// The counters since the start.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Throughput to the pages' sockets, and its latency.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.tally.traffic()
    }

    /// Rows and blocks that are in use now.
    #[must_use]
    pub fn in_use(&self) -> InUse {
        InUse {
            pages: self.sessions.len(),
            subscriptions: self.subscriptions.len(),
            topics: self.topics.len(),
            links: self.links.len(),
            requests: self.requests.len(),
            begun_frames: self.store.begun.len().0,
            kept_blocks: self.store.begun.kept_blocks().0,
            blocks: self.board.blocks_max - self.store.free(),
        }
    }

    /// Pages that are connected.
    #[must_use]
    pub fn pages(&self) -> u32 {
        self.sessions.len()
    }

    /// The board as the configuration lowered it.
    #[must_use]
    pub const fn board(&self) -> &Board {
        &self.board
    }

    fn hash_of(&self, text: &str) -> u64 {
        hash(self.hash_seed, text.as_bytes())
    }
}

/// The spread of the retries of a drain: a minimum, and an addition for each page.
const DRAIN_MS_MIN: u64 = 1_000;
const DRAIN_MS_PER_PAGE: u64 = 2;

// The memory sum is calculated with these row sizes: if a row grows, the sum must be updated.
const _: () = {
    assert!(Receipts::ROW_SIZE <= board::RECEIPT_SIZE);
    assert!(Table::<Session>::ROW_SIZE <= board::SESSION_SIZE);
    assert!(Table::<Subscription>::ROW_SIZE <= board::SUBSCRIPTION_SIZE);
    assert!(Table::<Topic>::ROW_SIZE <= board::TOPIC_SIZE);
    assert!(Links::ROW_SIZE <= board::LINK_SIZE);
    assert!(Table::<Request>::ROW_SIZE <= board::REQUEST_SIZE);
    assert!(Unanswered::ROW_SIZE <= board::UNANSWERED_SIZE);
    assert!(Denials::ROW_SIZE <= board::DENIAL_SIZE);
    assert!(Table::<Preview>::ROW_SIZE <= board::PREVIEW_SIZE);
    assert!(Begun::ROW_SIZE <= board::BEGUN_SIZE);
    assert!(Texts::ROW_SIZE <= board::TEXT_SIZE);
    assert!(size_of::<Bucket>() <= board::ADDRESS_SIZE);
    assert!(Interned::<Network>::ROW_SIZE <= board::NETWORK_SIZE);
    assert!(Interned::<Origin>::ROW_SIZE <= board::ORIGIN_SIZE);
};

/// FNV-1a with a secret seed. The result is mixed once more: rows are chosen by the low bits, and
/// with FNV alone those depend only on the seed's low bits.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let hash = bytes
        .iter()
        .fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    Jitter::new(hash).bits()
}
