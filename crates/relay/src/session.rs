//! A session: one page's connection.
//!
//! One row of the session table. It holds no queue: what is still to be sent to the page is a few
//! flags and the cursors of its subscriptions. Owns the times when the page was last heard, written
//! to, notified and pinged, and whether it is being closed or cut, which is never undone. Doesn't
//! know what it is sent (`transmit.rs`), nor when it is given up (`expiry.rs`).

use core::net::IpAddr;

use super::{
    kernel_memory::KernelShare,
    negotiated::ANY,
    notice::OwnNotice,
    rate::Bucket,
    ready::{InQueue, ReadyLink},
    receipts::Waiting,
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
    /// The next `error` to send.
    pub error: Option<&'static str>,
    /// The `id` of a `subscribe` that was refused because the table of subscriptions is full.
    pub refused: Option<u32>,
    /// Protocol errors so far.
    pub faults: u8,
    /// The uplink's connection that the page knows, `DOWN` or `ANY`.
    pub known_uplink: u32,
    /// Answers to its messages.
    pub receipts: Waiting,
    /// A ping is due.
    pub ping_due: bool,
    /// An `alive` is due.
    pub alive_due: bool,
    /// The page asked for an `alive`, which comes behind the errors of what it sent before.
    pub alive_asked: bool,
    /// The socket is full: nothing is written until it is writable.
    blocked: bool,
    /// How far behind the page may be.
    pub pace: Pace,
    /// Limits its `subscribe` frames.
    pub asks: Bucket,
    /// Limits its `send` frames.
    pub sends: Bucket,
    opened: Stamp,
    heard: Stamp,
    wrote: Stamp,
    /// When anything but a ping was last sent.
    notified: Stamp,
    pinged: Stamp,
    /// When the first ping was sent after which nothing was heard; not later than `heard` if there
    /// is none.
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
    /// It may lack more than the newest publication, so its delays say nothing about the relay.
    CatchesUp,
    /// It was sent everything.
    KeepsUp,
}

/// A close that was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// The WebSocket close code.
    pub code: u16,
    /// The reason.
    pub reason: Reason,
    /// When to come back, in milliseconds.
    pub retry_ms: Option<u32>,
    /// When it was decided.
    pub at: Stamp,
}

/// What a full socket took only a part of, and which must be finished first: a frame, or over TLS a
/// run of frames in one record.
///
/// `run` are the last bytes that count as sent but are gathered once more, as the same run: their
/// record is not out as a whole, and sealing it again needs all of it. 0 without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// None: the connection is between two frames.
    None,
    /// The rest of a log's frame.
    Frame {
        /// Its row in [`Begun`](super::begun::Begun).
        frame: u32,
        /// The next byte to send: an offset of the log.
        at: u64,
        /// Bytes before `at` that are gathered once more.
        run: u16,
    },
    /// The rest of a notice, which is encoded again.
    Notice {
        /// The notice; it holds a use of its reason.
        notice: OwnNotice,
        /// Bytes sent so far.
        sent: u16,
        /// Bytes before `sent` that are gathered once more.
        run: u16,
    },
}

impl Half {
    /// Bytes that count as sent and are gathered once more, as the same run.
    #[must_use]
    pub const fn run(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Frame { run, .. } | Self::Notice { run, .. } => run as u64,
        }
    }
}

impl Session {
    /// The session of a page that has just connected. `network` and `origin` are rows of shared
    /// tables; `origin` is [`NONE`] if the page sent no `Origin`.
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
            known_uplink: ANY,
            receipts: Waiting::NONE,
            ping_due: false,
            alive_due: false,
            alive_asked: false,
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

    /// The page's number at the business server, never reused while the relay runs.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// The page's address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// The row of its network.
    #[must_use]
    pub const fn network(&self) -> u32 {
        self.network
    }

    /// The row of its `Origin`; [`NONE`] if it sent none.
    #[must_use]
    pub const fn origin(&self) -> u32 {
        self.origin
    }

    /// The network whose share of links and requests it counts for; [`NONE`] for loopback, which
    /// may be a proxy for anybody.
    #[must_use]
    pub const fn shares_with(&self) -> u32 {
        if self.address.is_loopback() { NONE } else { self.network }
    }

    /// The close that was decided, if any.
    #[must_use]
    pub const fn closing(&self) -> Option<Close> {
        self.closing
    }

    /// Decides to close the page; `false` if that was decided already.
    pub const fn close(&mut self, close: Close) -> bool {
        let is_first = self.closing.is_none();
        if is_first {
            self.closing = Some(close);
        }
        is_first
    }

    /// Whether the socket took no more: nothing is written or read until it does.
    #[must_use]
    pub const fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// The socket took no more. [`Sessions::block`](super::sessions::Sessions::block) counts what
    /// it may hold.
    pub(super) fn block(&mut self) {
        self.blocked = true;
        if self.pace == Pace::KeepsUp {
            self.pace = Pace::CatchesUp;
        }
    }

    /// The socket takes more again.
    pub const fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Whether it must be cut off.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cut
    }

    /// Decides to cut it off; `false` if that was decided already.
    pub const fn cut(&mut self) -> bool {
        !core::mem::replace(&mut self.cut, true)
    }

    /// Something was received from the page.
    pub const fn hear(&mut self, now: Instant) {
        self.heard = now.stamp();
    }

    /// The socket took bytes.
    pub const fn wrote(&mut self, now: Instant) {
        self.wrote = now.stamp();
    }

    /// Something other than a ping was sent, so no `alive` is due.
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

    /// Milliseconds since something was received from it.
    #[must_use]
    pub const fn heard_ms(&self, now: Instant) -> u64 {
        self.heard.age_ms(now)
    }

    /// Milliseconds since its socket took bytes.
    #[must_use]
    pub const fn wrote_ms(&self, now: Instant) -> u64 {
        self.wrote.age_ms(now)
    }

    /// Updates whether a ping or an `alive` is due; returns whether one is overdue now.
    pub const fn sweep(&mut self, now: Instant, board: &Board) -> bool {
        let ping_due = self.pinged.age_ms(now) >= board.ping_ms as u64;
        let alive_due = self.notified.age_ms(now) >= board.alive_ms as u64;
        self.ping_due |= ping_due;
        self.alive_due |= alive_due;
        ping_due || alive_due
    }

    /// Whether the page is dead: it was silent for the board's limit although a ping had time to be
    /// answered. A blocked page isn't read, and a page in the middle of a frame can't be pinged;
    /// both are judged by their progress instead.
    #[must_use]
    pub const fn is_dead(&self, now: Instant, board: &Board) -> bool {
        !self.blocked
            && self.heard.age_ms(now) > board.dead_ms as u64
            && self.heard.is_before(self.unanswered)
            && self.unanswered.age_ms(now) >= board.ping_ms as u64
    }
}
