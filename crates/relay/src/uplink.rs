//! The uplink's connection as the machine sees it: dialling, handshake, liveness, frames out and in.
//!
//! Owns the state of the one connection to the business server and the buffer of what goes there.
//! Refuses frames out of place and proofs that are wrong, each with a [`PeerError`] that ends the
//! connection and nothing else. Knows addresses only by their place in the configured list.

use super::{
    Relay,
    event::Event,
    fault::PeerError,
    inspect::UplinkRow,
    liveness::Liveness,
    time::{Instant, Jitter},
};
use alloc::boxed::Box;
use alloc::vec;
use heapless::Deque;
use wire::uplink::{
    HEAD_SIZE_MAX, Incoming, LENGTH_SIZE, ToBusiness, ToRelay, VERSION, business_proof, encode, proofs_equal,
    relay_proof,
};

/// A dial that is not answered is given up.
const DIAL_MS_MAX: u64 = 5_000;
/// The back-off's first and last step.
const RETRY_MS_MIN: u64 = 200;
const RETRY_MS_MAX: u64 = 30_000;
/// A connection that held for so long resets the back-off.
const HELD_MS: u64 = 10_000;
/// While a later address serves, the first one is tried again after so long, twice as long after each try that came to
/// nothing, at most [`RETURN_DOUBLINGS_MAX`] times: 16 min. Earlier would make pages pay for a server that comes and goes.
const RETURN_MS: u64 = 30_000;
const RETURN_DOUBLINGS_MAX: u32 = 5;
/// Room kept in the buffer for what must not wait for room: pings, pongs, unsubscribes. A small buffer keeps
/// less, so that the largest frame always fits into an empty one.
const RESERVE_SIZE_MAX: usize = 1024;

/// Topics that were unsubscribed lately, remembered until answers that crossed them are in.
const UNSUBSCRIBED_MAX: usize = 128;

/// Where the connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down { retry_at: Instant },
    Dialing { since: Instant },
    AwaitsChallenge,
    AwaitsWelcome { challenge: [u8; 16] },
    Up { since: Instant },
}

/// The uplink's connection.
#[derive(Debug)]
pub struct Uplink {
    state: State,
    /// Counts the connections whose handshake was done.
    connection: u64,
    /// Dials that failed in a row.
    failures: u32,
    addresses: u32,
    address: u32,
    /// When the first address is to be tried again, and tries that came to nothing.
    return_at: Instant,
    returns: u32,
    nonce: [u8; 16],
    liveness: Liveness,
    out: Box<[u8]>,
    out_start: usize,
    out_end: usize,
    /// Frames sent on this connection: the order of what the business server gets.
    order: u64,
    /// Frames queued on all of them.
    queued: u64,
    /// Topics that were unsubscribed lately on this connection, the oldest first, with their place in the order.
    unsubscribed: Deque<(u32, u64), UNSUBSCRIBED_MAX>,
}

impl Uplink {
    /// The connection as it is now.
    #[must_use]
    pub fn row(&self, now: Instant) -> UplinkRow {
        let (state, for_ms, retry_ms) = match self.state {
            State::Down { retry_at } => ("down", None, Some(retry_at.since(now))),
            State::Dialing { since } => ("dialing", Some(now.since(since)), None),
            State::AwaitsChallenge | State::AwaitsWelcome { .. } => ("handshake", None, None),
            State::Up { since } => ("up", Some(now.since(since)), None),
        };
        let returns = self.is_up() && self.return_at != Instant::NEVER;
        UplinkRow {
            state,
            address: self.address,
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

    /// A connection that is to be dialled at once.
    #[must_use]
    pub fn new(now: Instant, addresses: u32, out_size: u32) -> Self {
        Self {
            state: State::Down { retry_at: now },
            connection: 0,
            failures: 0,
            addresses: addresses.max(1),
            address: 0,
            return_at: Instant::NEVER,
            returns: 0,
            nonce: [0; 16],
            liveness: Liveness::new(now),
            out: vec![0; out_size as usize].into_boxed_slice(),
            out_start: 0,
            out_end: 0,
            order: 0,
            queued: 0,
            unsubscribed: Deque::new(),
        }
    }

    /// Whether the handshake is done.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// The number of the connection, from 1; it stays when the connection is lost.
    #[must_use]
    pub const fn connection(&self) -> u64 {
        self.connection
    }

    /// When something is to be done.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        match self.state {
            State::Down { retry_at } => retry_at,
            State::Dialing { .. } | State::AwaitsChallenge | State::AwaitsWelcome { .. } => self.ends_at(),
            State::Up { .. } => self.return_at.min(self.liveness.ping_at()).min(self.ends_at()),
        }
    }

    /// When the connection is to be given up unless something comes.
    fn ends_at(&self) -> Instant {
        match self.state {
            State::Down { .. } => Instant::NEVER,
            State::Dialing { since } => since.after(DIAL_MS_MAX),
            State::AwaitsChallenge | State::AwaitsWelcome { .. } => self.liveness.handshake_ends_at(),
            State::Up { .. } => self.liveness.ends_at(),
        }
    }

    /// Sends a frame; its place in the order, or `None` where there is no room.
    pub(super) fn send(&mut self, frame: &ToBusiness<'_>) -> Option<u64> {
        let spare = self.out.len().saturating_sub(LENGTH_SIZE + HEAD_SIZE_MAX);
        self.encode(frame, spare.min(RESERVE_SIZE_MAX))
    }

    /// Sends what a page says: in a quarter of the buffer, so that a business server that reads slowly is asked for links
    /// all the same.
    pub(super) fn send_of_page(&mut self, frame: &ToBusiness<'_>) -> Option<u64> {
        let spare = self.out.len().saturating_sub(LENGTH_SIZE + HEAD_SIZE_MAX);
        self.encode(frame, spare.min(self.out.len() / 4 * 3))
    }

    /// Sends a frame that must not wait for others.
    pub(super) fn send_reserved(&mut self, frame: &ToBusiness<'_>) -> Option<u64> {
        self.encode(frame, 0)
    }

    /// Sends `Unsubscribe` and remembers it; `false` where there is no room.
    pub(super) fn unsubscribe(&mut self, topic: u32) -> bool {
        let Some(order) = self.send_reserved(&ToBusiness::Unsubscribe { topic }) else { return false };
        self.unsubscribed.retain(|&(other, _)| other != topic);
        if self.unsubscribed.is_full() {
            self.unsubscribed.pop_front();
        }
        let _ = self.unsubscribed.push_back((topic, order));
        true
    }

    /// Whether a topic was unsubscribed lately, behind a place in the order.
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

    /// Checks the buffer's own order: for tests.
    pub(super) fn check(&self) {
        assert!(
            self.out_start <= self.out_end && self.out_end <= self.out.len(),
            "BOUND: the buffer to the business server has {} of {} bytes",
            self.out_end,
            self.out.len()
        );
    }

    fn begin(&mut self, now: Instant, nonce: [u8; 16]) {
        self.state = State::AwaitsChallenge;
        self.nonce = nonce;
        self.liveness = Liveness::new(now);
        self.forget_out();
    }

    /// What was to be written is of a connection that is no more.
    const fn forget_out(&mut self) {
        (self.out_start, self.out_end) = (0, 0);
    }

    /// Plans the next try of the first address, where another one serves.
    fn plan_return(&mut self, now: Instant, jitter: &mut Jitter) {
        let wait_ms = RETURN_MS << self.returns.min(RETURN_DOUBLINGS_MAX);
        self.return_at =
            if self.address == 0 { Instant::NEVER } else { now.after(wait_ms + jitter.below(wait_ms / 2)) };
    }

    fn fail(&mut self, now: Instant, jitter: &mut Jitter) {
        self.forget_out();
        match self.state {
            State::Up { since } if now.since(since) >= HELD_MS => {
                if self.address == 0 {
                    self.returns = 0;
                }
                (self.failures, self.address) = (0, 0);
            }
            _ => {
                self.failures = self.failures.saturating_add(1);
                self.address = (self.address + 1) % self.addresses;
            }
        }
        // The step grows once every address was tried; full jitter, so that boxes don't come back as one.
        let rounds = (self.failures / self.addresses).min(16);
        let step_ms = (RETRY_MS_MIN << rounds).min(RETRY_MS_MAX);
        self.state = State::Down { retry_at: now.after(1 + jitter.below(step_ms)) };
    }
}

impl Relay {
    /// Whether the business server is connected and proved itself.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.uplink.is_up()
    }

    /// Whether the business server has the relay's proof, and has not answered it.
    #[must_use]
    pub const fn awaits_welcome(&self) -> bool {
        matches!(self.uplink.state, State::AwaitsWelcome { .. })
    }

    /// When the connection has something to decide: a dial, a ping, its end.
    #[must_use]
    pub fn uplink_deadline(&self) -> Instant {
        self.uplink.deadline()
    }

    /// Which of the configured addresses is to be dialled now. Once told, the caller owes
    /// [`handle_uplink_connected`](Self::handle_uplink_connected) or
    /// [`handle_uplink_lost`](Self::handle_uplink_lost).
    pub fn poll_dial(&mut self, now: Instant) -> Option<usize> {
        match self.uplink.state {
            State::Down { retry_at } if retry_at <= now && !self.draining => {
                self.uplink.state = State::Dialing { since: now };
                self.counters.dials += 1;
                Some(self.uplink.address as usize)
            }
            _ => None,
        }
    }

    /// The dialled address answered. `nonce` is fresh and not to be guessed.
    pub fn handle_uplink_connected(&mut self, now: Instant, nonce: [u8; 16]) {
        self.uplink.begin(now, nonce);
    }

    /// The connection, or the attempt, is gone.
    pub fn handle_uplink_lost(&mut self, now: Instant) {
        let was_up = self.is_up();
        self.uplink.fail(now, &mut self.jitter);
        if was_up {
            self.counters.uplink_losses += 1;
            self.drop_requests(now);
            self.tell_uplink();
        }
    }

    /// Whether the first of the configured addresses is to be tried now, beside the connection to another one. It is given
    /// back by [`handle_uplink_returned`](Self::handle_uplink_returned) where it answers; else nothing is owed.
    pub fn poll_return(&mut self, now: Instant) -> bool {
        let is_due = self.is_up() && self.uplink.return_at <= now && !self.draining;
        if is_due {
            self.uplink.returns = self.uplink.returns.saturating_add(1);
            self.uplink.plan_return(now, &mut self.jitter);
        }
        is_due
    }

    /// The first address answers again: the connection to the other one ends, and
    /// [`handle_uplink_connected`](Self::handle_uplink_connected) or [`handle_uplink_lost`](Self::handle_uplink_lost) is owed.
    pub fn handle_uplink_returned(&mut self, now: Instant) {
        let was_up = self.is_up();
        (self.uplink.failures, self.uplink.address) = (0, 0);
        self.uplink.state = State::Dialing { since: now };
        self.uplink.forget_out();
        if was_up {
            self.counters.uplink_losses += 1;
            self.drop_requests(now);
            self.tell_uplink();
        }
    }

    /// So many bytes came from the business server: a part of a frame, or several. Each is a sign of life.
    pub fn handle_uplink_read(&mut self, now: Instant, size: usize) {
        if size > 0 {
            self.uplink.liveness.heard(now);
        }
        self.counters.uplink_bytes_in += size as u64;
    }

    /// One frame of the business server.
    ///
    /// # Errors
    /// Why the connection must end; nothing of the frame was used.
    pub fn handle_uplink(&mut self, now: Instant, incoming: Incoming<'_>) -> Result<(), PeerError> {
        self.uplink.liveness.framed(now);
        self.counters.uplink_frames_in += 1;
        match (self.uplink.state, incoming) {
            (State::Up { .. }, Incoming::Frame(frame)) => self.handle_frame(now, frame),
            (State::Up { .. }, Incoming::Oversize(oversize)) => {
                let (topic, track, sequence) = (oversize.topic, oversize.track, oversize.sequence);
                self.handle_oversize(topic, track, sequence, oversize.part, oversize.size);
                Ok(())
            }
            (State::AwaitsChallenge, Incoming::Frame(ToRelay::Challenge { version, nonce })) => {
                check_version(version)?;
                let proof = relay_proof(&self.settings.secret, &nonce, &self.uplink.nonce);
                let hello =
                    ToBusiness::Hello { version: VERSION, relay: &self.settings.name, nonce: self.uplink.nonce, proof };
                let _ = self.uplink.send_reserved(&hello);
                self.uplink.state = State::AwaitsWelcome { challenge: nonce };
                Ok(())
            }
            (State::AwaitsWelcome { challenge }, Incoming::Frame(ToRelay::Welcome { version, proof })) => {
                check_version(version)?;
                let expected = business_proof(&self.settings.secret, &self.uplink.nonce, &challenge);
                if !proofs_equal(&expected, &proof) {
                    return Err(PeerError::Proof);
                }
                self.uplink.state = State::Up { since: now };
                self.uplink.plan_return(now, &mut self.jitter);
                self.uplink.connection += 1;
                self.uplink.order = 0;
                self.uplink.unsubscribed.clear();
                self.events.add(Event::UplinkUp);
                self.tell_uplink();
                self.ask_everything_again(now);
                Ok(())
            }
            (state, incoming) => {
                let name = match incoming {
                    Incoming::Frame(frame) => frame.name(),
                    Incoming::Oversize(_) => "Publish",
                };
                let expected = if state == State::AwaitsChallenge { "Challenge" } else { "Welcome" };
                Err(PeerError::OutOfPlace { name, expected })
            }
        }
    }

    /// What is to be written to the business server.
    #[must_use]
    pub fn uplink_transmit(&self) -> &[u8] {
        self.uplink.out.get(self.uplink.out_start..self.uplink.out_end).unwrap_or_default()
    }

    /// Frames that were ever queued for the business server: where it grows, there is something new to be written.
    #[must_use]
    pub const fn uplink_queued(&self) -> u64 {
        self.uplink.queued
    }

    /// The business server took bytes that had waited for it: a sign of life, which what is written is not. The kernel takes
    /// as much for a peer that is gone.
    pub const fn uplink_took(&mut self, now: Instant) {
        self.uplink.liveness.heard(now);
    }

    /// Whether there was no sign of life for a while, and it matters whether the business server takes what waits for it.
    #[must_use]
    pub const fn is_uplink_quiet(&self, now: Instant) -> bool {
        self.is_up() && self.uplink.liveness.is_quiet(now)
    }

    /// So many bytes of it were written.
    pub fn uplink_wrote(&mut self, now: Instant, size: usize) {
        self.uplink.out_start = (self.uplink.out_start + size).min(self.uplink.out_end);
        self.counters.uplink_bytes_out += size as u64;
        self.ask_more(now);
    }

    /// Why the connection is to be given up, if it is.
    #[must_use]
    pub fn uplink_fault(&self, now: Instant) -> Option<PeerError> {
        if now < self.uplink.ends_at() {
            return None;
        }
        match self.uplink.state {
            State::Down { .. } => None,
            State::Dialing { .. } => Some(PeerError::Silent),
            _ => Some(self.uplink.liveness.fault(now, self.is_up())),
        }
    }

    /// Sends a `Ping` where nothing came for a while.
    pub(super) fn sweep_uplink(&mut self, now: Instant) {
        if self.is_up() && self.uplink.liveness.ping_at() <= now {
            self.uplink.liveness.pinged(now);
            let nonce = u32::try_from(self.jitter.below(1 << 32)).unwrap_or_default();
            let _ = self.uplink.send_reserved(&ToBusiness::Ping { nonce });
        }
    }

    fn handle_frame(&mut self, now: Instant, frame: ToRelay<'_>) -> Result<(), PeerError> {
        match frame {
            ToRelay::Publish { topic, track, sequence, part, data } => {
                self.published(now, topic, track, sequence, part, data);
            }
            ToRelay::Accept { request, topic, epoch, grant } => self.accepted(now, request, topic, epoch, grant),
            ToRelay::Deny { request, reason } => self.denied(now, request, reason),
            ToRelay::Revoke { link, reason } => self.revoked(now, link, reason),
            ToRelay::End { topic, reason } => self.ended(now, topic, reason),
            ToRelay::Kick { page, reason } => self.kicked(now, page, reason),
            ToRelay::Ping { nonce } => {
                // A peer that floods us with pings and reads no pongs gets fewer pongs.
                let _ = self.uplink.send_reserved(&ToBusiness::Pong { nonce });
            }
            ToRelay::Pong { .. } => {}
            ToRelay::Challenge { .. } | ToRelay::Welcome { .. } => {
                return Err(PeerError::OutOfPlace { name: frame.name(), expected: "anything else" });
            }
        }
        self.ask_more(now);
        Ok(())
    }
}

fn check_version(version: u16) -> Result<(), PeerError> {
    if version == VERSION { Ok(()) } else { Err(PeerError::Version(version)) }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{BOARD, Rig};
    use super::*;
    use wire::{
        Track,
        uplink::{Grant, Part},
    };

    #[test]
    fn the_largest_frame_fits_into_the_smallest_buffer() {
        let mut uplink = Uplink::new(Instant(0), 1, 644);
        let long = "x".repeat(512);
        assert!(uplink.send(&ToBusiness::PageMessage { topic: u32::MAX, page: u32::MAX, data: &long }).is_some());
        assert!(uplink.send(&ToBusiness::PageMessage { topic: 1, page: 1, data: &long }).is_none());
    }

    #[test]
    fn what_pages_say_leaves_most_of_the_buffer_to_requests() {
        let mut uplink = Uplink::new(Instant(0), 1, 8 * 1_024);
        let long = "x".repeat(512);
        while uplink.send_of_page(&ToBusiness::PageMessage { topic: 1, page: 1, data: &long }).is_some() {}
        let size = uplink.out_end - uplink.out_start;
        assert!((1_024..=2_048).contains(&size), "{size}");
        assert!(uplink.send(&ToBusiness::Audience { topic: 1, pages: 1 }).is_some());
        // The largest fits into the smallest buffer.
        let mut uplink = Uplink::new(Instant(0), 1, 1_024);
        assert!(uplink.send_of_page(&ToBusiness::PageMessage { topic: 1, page: 1, data: &long }).is_some());
    }

    #[test]
    fn a_small_frame_leaves_room_for_what_must_not_wait() {
        let mut uplink = Uplink::new(Instant(0), 1, 1_024);
        while uplink.send(&ToBusiness::Audience { topic: 1, pages: 1 }).is_some() {}
        assert!(uplink.send_reserved(&ToBusiness::Ping { nonce: 1 }).is_some());
    }

    #[test]
    fn what_was_not_written_is_forgotten_with_its_connection() {
        let mut rig = Rig::down(&BOARD);
        assert_eq!(rig.relay.poll_dial(rig.now), Some(0));
        rig.relay.handle_uplink_connected(rig.now, [1; 16]);
        let queued = rig.relay.uplink_queued();
        let challenge = Incoming::Frame(ToRelay::Challenge { version: VERSION, nonce: [2; 16] });
        rig.relay.handle_uplink(rig.now, challenge).unwrap();
        assert!(!rig.relay.uplink_transmit().is_empty() && rig.relay.uplink_queued() == queued + 1);
        rig.relay.handle_uplink_lost(rig.now);
        assert!(rig.relay.uplink_transmit().is_empty());
    }

    #[test]
    fn a_wrong_proof_ends_the_connection() {
        let mut rig = Rig::down(&BOARD);
        assert_eq!(rig.relay.poll_dial(rig.now), Some(0));
        rig.relay.handle_uplink_connected(rig.now, [1; 16]);
        rig.tell(ToRelay::Challenge { version: VERSION, nonce: [2; 16] });
        let welcome = Incoming::Frame(ToRelay::Welcome { version: VERSION, proof: [0; 32] });
        assert_eq!(rig.relay.handle_uplink(rig.now, welcome), Err(PeerError::Proof));
        assert!(!rig.relay.is_up());
    }

    #[test]
    fn a_frame_out_of_its_place_is_named() {
        let mut rig = Rig::down(&BOARD);
        assert_eq!(rig.relay.poll_dial(rig.now), Some(0));
        rig.relay.handle_uplink_connected(rig.now, [1; 16]);
        let error = rig.relay.handle_uplink(rig.now, Incoming::Frame(ToRelay::Ping { nonce: 1 }));
        assert_eq!(error.unwrap_err().to_string(), "Ping came where Challenge was expected");
    }

    #[test]
    fn addresses_take_turns_and_the_back_off_grows() {
        let mut rig = Rig::down(&BOARD);
        let mut dialled = Vec::new();
        for _ in 0..4 {
            let address = loop {
                match rig.relay.poll_dial(rig.now) {
                    Some(address) => break address,
                    None => rig.now = rig.now.after(10),
                }
            };
            dialled.push(address);
            rig.relay.handle_uplink_lost(rig.now);
        }
        assert_eq!(dialled, [0, 1, 0, 1]);
    }

    #[test]
    fn the_back_off_begins_anew_only_after_a_link_that_held() {
        let mut rig = Rig::up(&BOARD);
        // The longest of some waits, each a random part of its step, after links that broke so long after they were up.
        let mut longest = |held_ms: u64, losses: usize| {
            let mut longest_ms = 0;
            for _ in 0..losses {
                for _ in 0..held_ms / 5_000 {
                    rig.now = rig.now.after(5_000);
                    rig.tell(ToRelay::Ping { nonce: 1 });
                    let _ = rig.said();
                }
                rig.relay.handle_uplink_lost(rig.now);
                longest_ms = longest_ms.max(rig.relay.uplink_deadline().since(rig.now));
                rig.connect();
            }
            longest_ms
        };
        assert!(longest(10_000, 1) <= RETRY_MS_MIN);
        let grown = longest(5_000, 12);
        assert!(grown > 10 * RETRY_MS_MIN, "{grown} ms: a handshake alone begins the back-off anew");
        assert!(longest(10_000, 4) <= RETRY_MS_MIN, "a link that held does not begin it anew");
    }

    #[test]
    fn a_publication_for_a_topic_that_was_not_accepted_is_counted() {
        let mut rig = Rig::up(&BOARD);
        rig.messages(1..=1);
        assert_eq!(rig.relay.counters().unknown_topic, 1);
    }

    #[test]
    fn after_a_loss_topics_are_asked_for_from_the_relay_s_own_next() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.messages(1..=5);
        rig.said();
        rig.relay.handle_uplink_lost(rig.now);
        assert!(rig.read(page).contains(&r#"{"type":"uplink","up":false}"#.to_owned()));
        rig.connect();
        assert_eq!(rig.said(), ["Subscribe 2 link since 1 [0, 6, 0, 0]"]);
        assert_eq!(rig.read(page), [r#"{"type":"uplink","up":true}"#]);
        rig.messages(6..=6);
        assert_eq!(rig.relay.counters().unknown_topic, 1, "not accepted by this connection yet");
        rig.accept(2, 7, 1, super::super::rig::SHARED);
        rig.messages(6..=6);
        assert_eq!(rig.read(page), [super::super::rig::message(6)]);
    }

    #[test]
    fn a_publication_that_can_t_be_shown_costs_nobody_s_media() {
        let mut rig = Rig::up(&BOARD);
        rig.viewer();
        rig.publish(7, Track::Audio, 1, Part::Init { mime: "a" }, b"i");
        rig.publish(7, Track::Audio, 2, Part::Start, &[0; 150]);
        rig.publish(7, Track::Video, 1, Part::Continue, &[0; 9_000]);
        assert_eq!(rig.relay.counters().media_shed, 0);
    }

    #[test]
    fn an_audience_goes_out_once_a_second_and_the_last_value_always() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        assert_eq!(rig.said(), ["Audience 7 1"]);
        let other = rig.page();
        rig.subscribe(other, 1, "link");
        rig.relay.handle_page_closed(rig.now, page);
        rig.relay.handle_page_closed(rig.now, other);
        rig.pass(500);
        assert_eq!(rig.said(), [""; 0]);
        rig.pass(700);
        assert_eq!(rig.said()[0], "Audience 7 0");
        let _ = Grant::default();
    }
}
