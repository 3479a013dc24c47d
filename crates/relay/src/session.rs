//! A session: one page's connection.
//!
//! One row of the table of sessions. It holds no queue: what is still to be sent to the page is a few flags, and the
//! cursors of its subscriptions. Owns when the page was heard, written to, notified and pinged, and whether it is being
//! closed: both only go forward. Doesn't know what it is sent (`transmit.rs`), nor when it is given up (`expiry.rs`).

use core::net::IpAddr;

use super::{
    kernel_memory::KernelShare,
    notice::OwnNotice,
    rate::Bucket,
    ready::{InQueue, ReadyLink},
    subscription::Chain,
    table::NONE,
    texts::Reason,
    time::{Instant, Stamp},
};
use board::Board;

/// One page's connection.
#[derive(Debug)]
pub struct Session {
    number: u32,
    address: IpAddr,
    network: u32,
    origin: u32,
    /// Its subscriptions.
    pub chain: Chain,
    ready: ReadyLink,
    pub(super) kernel: KernelShare,
    /// What was begun and not finished.
    pub half: Half,
    closing: Option<Close>,
    cut: bool,
    /// An error to be sent.
    pub error: Option<&'static str>,
    /// A `subscribe` that found no row at all: its `id`.
    pub refused: Option<u32>,
    /// Protocol errors so far.
    pub faults: u8,
    /// Whether the page believes that the uplink is up.
    pub told_up: bool,
    /// A ping is to be sent.
    pub ping_due: bool,
    /// An `alive` is to be sent.
    pub alive_due: bool,
    /// The socket took no more: nothing is written until it is writable.
    pub blocked: bool,
    /// How far behind it may be.
    pub pace: Pace,
    /// `subscribe` frames that it may send.
    pub asks: Bucket,
    /// `send` frames that it may send.
    pub sends: Bucket,
    opened: Stamp,
    heard: Stamp,
    wrote: Stamp,
    /// When it was last sent anything but a ping.
    notified: Stamp,
    pinged: Stamp,
    /// When the first ping went out that nothing was heard behind; not later than `heard` where there is none.
    unanswered: Stamp,
}

impl InQueue for Session {
    fn ready(&self) -> &ReadyLink {
        &self.ready
    }

    fn ready_mut(&mut self) -> &mut ReadyLink {
        &mut self.ready
    }
}

/// How far behind a page may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It never subscribed to anything.
    Newcomer,
    /// It may lack more than the newest: how soon it gets something says nothing about the relay.
    CatchesUp,
    /// It was sent everything that there was.
    KeepsUp,
}

/// A page is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// The WebSocket close code.
    pub code: u16,
    /// Why.
    pub reason: Reason,
    /// When it should come back, milliseconds.
    pub retry_ms: Option<u32>,
    /// Since when.
    pub at: Stamp,
}

/// The frame that a full socket cut in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// None: the connection stands between two frames.
    None,
    /// The rest of a log's frame.
    Frame {
        /// Its row among those that were begun.
        frame: u32,
        /// The next byte: an offset of the log.
        at: u64,
    },
    /// The rest of a notice, which is encoded once more.
    Notice {
        /// The notice; its reason is in use.
        notice: OwnNotice,
        /// Bytes sent.
        sent: u16,
    },
}

impl Session {
    /// The session of a page that has just come. `network` and `origin` are rows of the tables that pages share,
    /// [`NONE`] without an `Origin`.
    #[must_use]
    pub fn new(now: Instant, number: u32, address: IpAddr, network: u32, origin: u32) -> Self {
        let stamp = now.stamp();
        Self {
            number,
            address,
            network,
            origin,
            chain: Chain::new(now),
            ready: ReadyLink::OUT,
            kernel: KernelShare::default(),
            half: Half::None,
            closing: None,
            cut: false,
            error: None,
            refused: None,
            faults: 0,
            told_up: true,
            ping_due: false,
            alive_due: false,
            blocked: false,
            pace: Pace::Newcomer,
            asks: Bucket::default(),
            sends: Bucket::default(),
            opened: stamp,
            heard: stamp,
            wrote: stamp,
            notified: stamp,
            pinged: stamp,
            unanswered: stamp,
        }
    }

    /// The page's number at the business server: never used again while the relay runs.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Where the page is.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// The row of its network among those that pages come from.
    #[must_use]
    pub const fn network(&self) -> u32 {
        self.network
    }

    /// The row of the `Origin` that it came with; [`NONE`] without one.
    #[must_use]
    pub const fn origin(&self) -> u32 {
        self.origin
    }

    /// The network whose share of links and requests it counts for; [`NONE`] for loopback, which may be anybody's proxy.
    #[must_use]
    pub const fn shares_with(&self) -> u32 {
        if self.address.is_loopback() { NONE } else { self.network }
    }

    /// How the page is to be closed, if it is.
    #[must_use]
    pub const fn closing(&self) -> Option<Close> {
        self.closing
    }

    /// The page is to be closed; `false` where it is being closed already.
    pub const fn close(&mut self, close: Close) -> bool {
        let is_first = self.closing.is_none();
        if is_first {
            self.closing = Some(close);
        }
        is_first
    }

    /// Whether it is to be cut off.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cut
    }

    /// It is to be cut off; `false` where it is already.
    pub const fn cut(&mut self) -> bool {
        !core::mem::replace(&mut self.cut, true)
    }

    /// Something came from the page.
    pub const fn hear(&mut self, now: Instant) {
        self.heard = now.stamp();
    }

    /// The socket took something.
    pub const fn wrote(&mut self, now: Instant) {
        self.wrote = now.stamp();
    }

    /// Something other than a ping was sent: no `alive` is due.
    pub const fn notified(&mut self, now: Instant) {
        self.notified = now.stamp();
        self.alive_due = false;
    }

    /// A ping was sent.
    pub const fn pinged(&mut self, now: Instant) {
        self.ping_due = false;
        self.pinged = now.stamp();
        if !self.heard.is_before(self.unanswered) {
            self.unanswered = now.stamp();
        }
    }

    /// Milliseconds since it connected.
    #[must_use]
    pub const fn open_ms(&self, now: Instant) -> u64 {
        self.opened.age_ms(now)
    }

    /// Milliseconds since something came from it.
    #[must_use]
    pub const fn heard_ms(&self, now: Instant) -> u64 {
        self.heard.age_ms(now)
    }

    /// Milliseconds since its socket took something.
    #[must_use]
    pub const fn wrote_ms(&self, now: Instant) -> u64 {
        self.wrote.age_ms(now)
    }

    /// Finds out whether a ping, or an `alive`, is due; whether one became due now.
    pub const fn sweep(&mut self, now: Instant, board: &Board) -> bool {
        let ping_due = self.pinged.age_ms(now) >= board.ping_ms as u64;
        let alive_due = self.notified.age_ms(now) >= board.alive_ms as u64;
        self.ping_due |= ping_due;
        self.alive_due |= alive_due;
        ping_due || alive_due
    }

    /// Whether the page is dead: nothing was heard from it for the time that the board allows, although a ping has had time
    /// to be answered. A blocked page isn't read, and one in the middle of a frame can't be pinged: those are
    /// judged by their progress.
    #[must_use]
    pub const fn is_dead(&self, now: Instant, board: &Board) -> bool {
        !self.blocked
            && self.heard.age_ms(now) > board.dead_ms as u64
            && self.heard.is_before(self.unanswered)
            && self.unanswered.age_ms(now) >= board.ping_ms as u64
    }
}
