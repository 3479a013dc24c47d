//! The connection to the business server: its state, when it is dialled and closed, and the frames
//! to send.
//!
//! Owns the state from `Down` to `Up`, the back-off, the choice of entry, the liveness timers and
//! the send buffer. A new connection begins with an empty buffer. Knows the entries of
//! `uplink.addresses` only by their rank; an entry that is a name may have several addresses, which
//! are the caller's. Incoming frames are handled in `uplink.rs`.

use super::{
    fault::PeerError,
    inspect::UplinkRow,
    liveness::Liveness,
    negotiated::{DOWN, Negotiated},
    time::{Instant, Jitter},
};
use alloc::boxed::Box;
use alloc::vec;
use heapless::Deque;
use wire::{
    page::Standing,
    uplink::{LENGTH_SIZE, PREFIX_SIZE_MAX, ToBusiness, encode, marked},
};

/// Timeout of a dial, for all addresses of an entry.
pub const DIAL_MS_MAX: u64 = 5_000;
/// Timeout for finding the addresses of an entry that is a name; the dial's own begins then. Enough
/// for two silent name servers and the usual timeout of 5 s.
pub const RESOLVE_MS_MAX: u64 = 15_000;
/// The back-off's first and longest step.
pub(super) const RETRY_MS_MIN: u64 = 200;
const RETRY_MS_MAX: u64 = 30_000;
/// A connection that was up for this time resets the back-off.
const HELD_MS: u64 = 10_000;
/// While a later entry serves, the first one is tried again after this time, doubled after each
/// failed try, at most [`RETURN_DOUBLINGS_MAX`] times: 16 min. If it were tried sooner, pages would
/// suffer from a server that comes and goes.
const RETURN_MS: u64 = 30_000;
const RETURN_DOUBLINGS_MAX: u32 = 5;
/// While a business server wants the relay to leave, an entry is tried after this time, or up to
/// twice as much.
const LEAVE_MS: u64 = 500;
/// Part of the buffer reserved for frames that can't wait for room: pings, pongs, unsubscribes. A
/// small buffer reserves less, so that the largest frame always fits into an empty one.
const RESERVE_SIZE_MAX: usize = 1024;

/// How many recently unsubscribed topics are remembered, to recognize answers that crossed the
/// `Unsubscribe`.
const UNSUBSCRIBED_MAX: usize = 128;

/// The connection's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Down { retry_at: Instant },
    Dialing { since: Instant, ends_at: Instant },
    AwaitsChallenge,
    AwaitsWelcome,
    Up { since: Instant },
}

/// The uplink's connection.
#[derive(Debug)]
pub struct Uplink {
    state: State,
    /// How many handshakes have been completed; the number of the connection.
    connection: u64,
    /// Attempts to connect that failed in a row.
    failures: u32,
    entries: u32,
    entry: u32,
    /// When the first entry is tried again, and how many such tries have failed.
    return_at: Instant,
    returns: u32,
    /// The business server wants the relay to leave: the entry to try next, and when.
    leaving: Option<(u32, Instant)>,
    pub(super) negotiated: Negotiated,
    nonce: [u8; 16],
    /// After this time without a sign of life a connection is dead, milliseconds.
    dead_ms: u64,
    liveness: Liveness,
    out: Box<[u8]>,
    out_start: usize,
    out_end: usize,
    /// Frames queued on this connection. A frame's number is its place in the order in which the
    /// business server gets them.
    order: u64,
    /// Frames queued on all connections.
    queued: u64,
    /// Topics that were recently unsubscribed on this connection, oldest first, with their frame's
    /// place in the order.
    unsubscribed: Deque<(u32, u64), UNSUBSCRIBED_MAX>,
}

impl Uplink {
    /// The connection's state for the console.
    #[must_use]
    pub fn row(&self, now: Instant) -> UplinkRow {
        let (state, for_ms, retry_ms) = match self.state {
            State::Down { retry_at } => ("down", None, Some(retry_at.since(now))),
            State::Dialing { since, .. } => ("dialing", Some(now.since(since)), None),
            State::AwaitsChallenge | State::AwaitsWelcome => ("handshake", None, None),
            State::Up { since } => ("up", Some(now.since(since)), None),
        };
        let returns = self.is_up() && self.return_at != Instant::NEVER;
        UplinkRow {
            state,
            entry: self.entry,
            for_ms,
            retry_ms,
            return_ms: returns.then(|| self.return_at.since(now)),
            heard_ms: self.liveness.silent_ms(now),
            connections: self.connection,
            failures: self.failures,
            out_size: self.out_end - self.out_start,
            sent: self.queued,
        }
    }

    /// A connection that will be dialled at once.
    #[must_use]
    pub fn new(now: Instant, entries: u32, dead_ms: u64, out_size: u32) -> Self {
        Self {
            state: State::Down { retry_at: now },
            connection: 0,
            failures: 0,
            entries: entries.max(1),
            entry: 0,
            return_at: Instant::NEVER,
            returns: 0,
            leaving: None,
            negotiated: Negotiated::default(),
            nonce: [0; 16],
            dead_ms,
            liveness: Liveness::new(now, dead_ms),
            out: vec![0; out_size as usize].into_boxed_slice(),
            out_start: 0,
            out_end: 0,
            order: 0,
            queued: 0,
            unsubscribed: Deque::new(),
        }
    }

    /// Whether the handshake is complete.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// The number of the connection, from 1; it stays the same after the connection is lost.
    #[must_use]
    pub const fn connection(&self) -> u64 {
        self.connection
    }

    /// When the connection next needs attention.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        match self.state {
            State::Down { retry_at } => retry_at,
            State::Dialing { .. } | State::AwaitsChallenge | State::AwaitsWelcome => self.ends_at(),
            State::Up { .. } => {
                let knock_at = self.leaving.map_or(self.return_at, |(_, at)| at);
                knock_at.min(self.liveness.ping_at()).min(self.ends_at())
            }
        }
    }

    /// When the connection or the attempt times out.
    fn ends_at(&self) -> Instant {
        match self.state {
            State::Down { .. } => Instant::NEVER,
            State::Dialing { ends_at, .. } => ends_at,
            State::AwaitsChallenge | State::AwaitsWelcome => self.liveness.handshake_ends_at(),
            State::Up { .. } => self.liveness.ends_at(),
        }
    }

    /// The connection's state.
    pub(super) const fn state(&self) -> State {
        self.state
    }

    /// Our nonce in the handshake.
    pub(super) const fn nonce(&self) -> [u8; 16] {
        self.nonce
    }

    /// The business server knows extensions: our nonce says that we do too.
    pub(super) fn mark_nonce(&mut self) {
        let mut random = [0; 12];
        random.copy_from_slice(&self.nonce[..12]);
        self.nonce = marked(random);
    }

    /// Sets the time after which a connection is dead, for the present one too.
    pub(super) const fn set_dead_after(&mut self, dead_ms: u64) {
        self.dead_ms = dead_ms;
        self.liveness.set_dead_after(dead_ms);
    }

    /// The rank of the entry to dial, if it is time; the state becomes `Dialing`.
    pub(super) fn dial(&mut self, now: Instant) -> Option<usize> {
        match self.state {
            State::Down { retry_at } if retry_at <= now => {
                self.state = State::Dialing { since: now, ends_at: now.after(DIAL_MS_MAX) };
                Some(self.entry as usize)
            }
            _ => None,
        }
    }

    /// The entry is a name: the dial has more time, until its addresses are known.
    pub(super) const fn resolves(&mut self, now: Instant) {
        self.limit_dial(now.after(RESOLVE_MS_MAX));
    }

    /// The entry's addresses are known: the dial's own time begins.
    pub(super) const fn resolved(&mut self, now: Instant) {
        self.limit_dial(now.after(DIAL_MS_MAX));
    }

    const fn limit_dial(&mut self, end: Instant) {
        if let State::Dialing { ends_at, .. } = &mut self.state {
            *ends_at = end;
        }
    }

    /// The challenge was received and answered.
    pub(super) fn challenged(&mut self, challenge: [u8; 16]) {
        self.state = State::AwaitsWelcome;
        self.negotiated = Negotiated::new(challenge);
    }

    /// What pages are told of the uplink: this connection, or [`DOWN`].
    pub(super) fn told(&self) -> u32 {
        if self.is_up() { self.negotiated.told(self.connection) } else { DOWN }
    }

    /// What a page may use on this connection, and who it is there.
    pub(super) fn standing(&self, page: u32) -> Standing {
        let is_up = self.told() != DOWN;
        if is_up { self.negotiated.standing(&self.nonce, page) } else { Standing::default() }
    }

    /// The handshake is complete.
    pub(super) fn welcomed(&mut self, now: Instant, jitter: &mut Jitter) {
        self.state = State::Up { since: now };
        self.plan_return(now, jitter);
        self.connection += 1;
        self.order = 0;
        self.unsubscribed.clear();
        self.leaving = None;
    }

    /// The business server ends this connection within a time: other entries are tried from now on,
    /// and at last this one, behind whose name another server may be. Relays that are told at once
    /// don't leave at once: the first try is in the first half of the time.
    pub(super) fn leave(&mut self, now: Instant, within_ms: u64, jitter: &mut Jitter) {
        let entry = (self.entry + 1) % self.entries;
        self.leaving.get_or_insert((entry, now.after(jitter.below(within_ms / 2 + 1))));
    }

    /// The entry to try now beside the connection: the first one, if another one serves; where the
    /// business server wants the relay to leave, each in turn. Schedules the next try.
    pub(super) fn take_knock(&mut self, now: Instant, jitter: &mut Jitter) -> Option<usize> {
        if !self.is_up() {
            return None;
        }
        if let Some((entry, at)) = self.leaving {
            if now < at {
                return None;
            }
            self.leaving = Some(((entry + 1) % self.entries, now.after(LEAVE_MS + jitter.below(LEAVE_MS))));
            return Some(entry as usize);
        }
        if now < self.return_at {
            return None;
        }
        self.returns = self.returns.saturating_add(1);
        self.plan_return(now, jitter);
        Some(0)
    }

    /// Another entry answers: its connection replaces the current one.
    pub(super) fn moved(&mut self, now: Instant, entry: usize) {
        (self.failures, self.entry) = (0, u32::try_from(entry).unwrap_or(0) % self.entries);
        self.state = State::Dialing { since: now, ends_at: now.after(DIAL_MS_MAX) };
        self.forget_out();
    }

    /// Data was received, or the peer took some of ours.
    pub(super) const fn heard(&mut self, now: Instant) {
        self.liveness.heard(now);
    }

    /// A whole frame was received.
    pub(super) const fn framed(&mut self, now: Instant) {
        self.liveness.framed(now);
    }

    /// Whether the peer has shown no sign of life for a while.
    pub(super) const fn is_quiet(&self, now: Instant) -> bool {
        self.is_up() && self.liveness.is_quiet(now)
    }

    /// Whether a `Ping` is due; if so, schedules the next.
    pub(super) fn take_ping(&mut self, now: Instant) -> bool {
        let is_due = self.is_up() && self.liveness.ping_at() <= now;
        if is_due {
            self.liveness.pinged(now);
        }
        is_due
    }

    /// Why the connection has to be closed, if it has.
    pub(super) fn fault(&self, now: Instant) -> Option<PeerError> {
        if now < self.ends_at() {
            return None;
        }
        match self.state {
            State::Down { .. } => None,
            State::Dialing { .. } => Some(PeerError::Silent { limit_s: DIAL_MS_MAX / 1000 }),
            _ => Some(self.liveness.fault(now, self.is_up())),
        }
    }

    /// The queued frames' bytes.
    #[must_use]
    pub fn transmit(&self) -> &[u8] {
        self.out.get(self.out_start..self.out_end).unwrap_or_default()
    }

    /// The first `size` queued bytes were written.
    pub(super) fn wrote(&mut self, size: usize) {
        self.out_start = (self.out_start + size).min(self.out_end);
    }

    /// Frames queued since the start.
    #[must_use]
    pub const fn queued(&self) -> u64 {
        self.queued
    }

    /// Queues a frame. Returns its place in the order, or `None` if there is no room.
    pub(super) fn send(&mut self, frame: &ToBusiness<'_>) -> Option<u64> {
        let spare = self.out.len().saturating_sub(LENGTH_SIZE + PREFIX_SIZE_MAX);
        self.encode(frame, spare.min(RESERVE_SIZE_MAX))
    }

    /// Queues a page's message. Pages' messages get a quarter of the buffer, so that requests still
    /// go out when the business server reads slowly.
    pub(super) fn send_of_page(&mut self, frame: &ToBusiness<'_>) -> Option<u64> {
        let spare = self.out.len().saturating_sub(LENGTH_SIZE + PREFIX_SIZE_MAX);
        self.encode(frame, spare.min(self.out.len() / 4 * 3))
    }

    /// Queues a frame that may use the reserved room.
    pub(super) fn send_reserved(&mut self, frame: &ToBusiness<'_>) -> Option<u64> {
        self.encode(frame, 0)
    }

    /// Queues `Unsubscribe` and remembers the topic. Returns `false` if there is no room.
    pub(super) fn unsubscribe(&mut self, topic: u32) -> bool {
        let Some(order) = self.send_reserved(&ToBusiness::Unsubscribe { topic }) else { return false };
        self.unsubscribed.retain(|&(other, _)| other != topic);
        if self.unsubscribed.is_full() {
            self.unsubscribed.pop_front();
        }
        let _ = self.unsubscribed.push_back((topic, order));
        true
    }

    /// Whether a topic was recently unsubscribed after a place in the order.
    pub(super) fn has_unsubscribed(&self, topic: u32, since: u64) -> bool {
        self.unsubscribed.iter().any(|&(other, order)| other == topic && order > since)
    }

    fn encode(&mut self, frame: &ToBusiness<'_>, reserve: usize) -> Option<u64> {
        if self.out_start > 0 {
            self.out.copy_within(self.out_start..self.out_end, 0);
            (self.out_start, self.out_end) = (0, self.out_end - self.out_start);
        }
        let room_end = self.out.len().saturating_sub(reserve);
        let room = self.out.get_mut(self.out_end..room_end)?;
        self.out_end += encode(frame, room)?;
        self.order += 1;
        self.queued += 1;
        Some(self.order)
    }

    /// Checks the buffer's offsets: called after every mutation.
    pub(super) fn check(&self) {
        assert!(
            self.out_start <= self.out_end && self.out_end <= self.out.len(),
            "BOUND: the buffer to the business server has {} of {} bytes",
            self.out_end,
            self.out.len()
        );
    }

    /// The dialled entry accepted the connection: the handshake begins.
    pub(super) fn begin(&mut self, now: Instant, nonce: [u8; 16]) {
        self.state = State::AwaitsChallenge;
        self.nonce = nonce;
        self.liveness = Liveness::new(now, self.dead_ms);
        self.forget_out();
    }

    /// Discards the queued bytes: they belong to a connection that is gone.
    const fn forget_out(&mut self) {
        (self.out_start, self.out_end) = (0, 0);
    }

    /// Schedules the next try of the first entry, if another one serves.
    fn plan_return(&mut self, now: Instant, jitter: &mut Jitter) {
        let wait_ms = RETURN_MS << self.returns.min(RETURN_DOUBLINGS_MAX);
        self.return_at = if self.entry == 0 { Instant::NEVER } else { now.after(wait_ms + jitter.below(wait_ms / 2)) };
    }

    /// The connection was lost or the attempt failed: chooses when and which entry to dial next.
    pub(super) fn fail(&mut self, now: Instant, jitter: &mut Jitter) {
        self.forget_out();
        match self.state {
            State::Up { since } if now.since(since) >= HELD_MS => {
                if self.entry == 0 {
                    self.returns = 0;
                }
                (self.failures, self.entry) = (0, 0);
            }
            _ => {
                self.failures = self.failures.saturating_add(1);
                self.entry = (self.entry + 1) % self.entries;
            }
        }
        // The step doubles once every entry was tried. Full jitter, so that many boxes don't
        // reconnect at the same time.
        let rounds = (self.failures / self.entries).min(16);
        let step_ms = (RETRY_MS_MIN << rounds).min(RETRY_MS_MAX);
        self.state = State::Down { retry_at: now.after(1 + jitter.below(step_ms)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dials, losses and returns at random, against the rules in their plain form.
    #[test]
    fn entries_are_tried_in_turn_and_only_the_first_is_returned_to() {
        for seed in 0..200 {
            let mut rng = Jitter::new(seed);
            let entries = 1 + u32::try_from(rng.below(4)).unwrap();
            let mut jitter = Jitter::new(seed);
            let mut uplink = Uplink::new(Instant(0), entries, 30_000, 1_024);
            let (mut now, mut expected, mut returns) = (Instant(0), 0, 0);
            for _ in 0..300 {
                now = now.max(uplink.deadline());
                assert_eq!(uplink.dial(now), Some(expected as usize), "seed {seed}");
                if rng.below(2) == 0 {
                    uplink.fail(now, &mut jitter);
                    expected = (expected + 1) % entries;
                    continue;
                }
                uplink.begin(now, [0; 16]);
                uplink.welcomed(now, &mut jitter);
                let mut held_ms = rng.below(100_000);
                let mut up_since = now;
                while held_ms > 0 {
                    let step_ms = held_ms.min(1 + rng.below(5_000));
                    held_ms -= step_ms;
                    now = now.after(step_ms);
                    uplink.heard(now);
                    let Some(entry) = uplink.take_knock(now, &mut jitter) else { continue };
                    assert_eq!(entry, 0, "seed {seed}");
                    assert_ne!(expected, 0, "seed {seed}: the first entry was left for itself");
                    assert!(now.since(up_since) >= RETURN_MS, "seed {seed}");
                    returns += 1;
                    if rng.below(2) == 0 {
                        // It answers, and serves from now on.
                        uplink.moved(now, 0);
                        uplink.begin(now, [0; 16]);
                        uplink.welcomed(now, &mut jitter);
                        (expected, up_since) = (0, now);
                    }
                }
                uplink.fail(now, &mut jitter);
                let held = now.since(up_since) >= HELD_MS;
                expected = if held { 0 } else { (expected + 1) % entries };
            }
            assert!(entries == 1 || returns > 0, "seed {seed}: no return was tried");
            assert!(entries > 1 || returns == 0, "seed {seed}");
        }
    }

    #[test]
    fn who_is_asked_to_leave_tries_every_entry_and_its_own_last() {
        let mut jitter = Jitter::new(7);
        let mut uplink = Uplink::new(Instant(0), 3, 30_000, 1_024);
        assert_eq!(uplink.dial(Instant(0)), Some(0));
        uplink.begin(Instant(0), [0; 16]);
        uplink.welcomed(Instant(0), &mut jitter);
        assert_eq!(uplink.take_knock(Instant(60_000), &mut jitter), None);
        uplink.leave(Instant(60_000), 10_000, &mut jitter);
        let (mut now, mut tried) = (Instant(60_000), Vec::new());
        while tried.len() < 6 {
            now = now.max(uplink.deadline());
            uplink.heard(now);
            uplink.leave(now, 0, &mut jitter);
            if let Some(entry) = uplink.take_knock(now, &mut jitter) {
                assert!(!tried.is_empty() || now.since(Instant(60_000)) <= 5_000);
                tried.push(entry);
            } else if uplink.take_ping(now) {
                uplink.framed(now);
            }
        }
        assert_eq!(tried, [1, 2, 0, 1, 2, 0]);
        uplink.moved(now, 2);
        uplink.begin(now, [0; 16]);
        uplink.welcomed(now, &mut jitter);
        // It serves, and the first one is tried again as ever.
        assert_eq!(uplink.take_knock(now.after(RETURN_MS - 1), &mut jitter), None);
        assert_eq!(uplink.take_knock(now.after(2 * RETURN_MS), &mut jitter), Some(0));
    }

    #[test]
    fn the_largest_frame_fits_into_the_smallest_buffer() {
        let mut uplink = Uplink::new(Instant(0), 1, 30_000, 644);
        let long = "x".repeat(512);
        assert!(uplink.send(&ToBusiness::PageMessage { topic: u32::MAX, page: u32::MAX, data: &long }).is_some());
        assert!(uplink.send(&ToBusiness::PageMessage { topic: 1, page: 1, data: &long }).is_none());
    }

    #[test]
    fn page_messages_leave_most_of_the_buffer_to_requests() {
        let mut uplink = Uplink::new(Instant(0), 1, 30_000, 8 * 1_024);
        let long = "x".repeat(512);
        while uplink.send_of_page(&ToBusiness::PageMessage { topic: 1, page: 1, data: &long }).is_some() {}
        let size = uplink.transmit().len();
        assert!((1_024..=2_048).contains(&size), "{size}");
        assert!(uplink.send(&ToBusiness::Audience { topic: 1, pages: 1 }).is_some());
        // The largest frame fits into the smallest buffer.
        let mut uplink = Uplink::new(Instant(0), 1, 30_000, 1_024);
        assert!(uplink.send_of_page(&ToBusiness::PageMessage { topic: 1, page: 1, data: &long }).is_some());
    }

    #[test]
    fn small_frames_leave_the_reserved_room_free() {
        let mut uplink = Uplink::new(Instant(0), 1, 30_000, 1_024);
        while uplink.send(&ToBusiness::Audience { topic: 1, pages: 1 }).is_some() {}
        assert!(uplink.send_reserved(&ToBusiness::Ping { nonce: 1 }).is_some());
    }
}
