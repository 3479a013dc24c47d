//! The uplink's signs of life: when a `Ping` is due, and when the connection is given up as dead.
//!
//! A byte is a sign of life, so that a large frame may take its time on a thin line; a whole frame is due within
//! minutes all the same. What the peer takes of our own is one too: a business server that reads slowly is there,
//! and may not have come to our `Ping` yet. Owns those times and the limits of them. Doesn't know what frames say.

use super::{fault::PeerError, time::Instant};

/// A `Ping` goes out when no frame came for so long.
const PING_MS: u64 = 10_000;
/// Without a byte for so long the uplink is quiet. Less than [`PING_MS`]: there are three turns with a `Ping` before it is dead.
const QUIET_MS: u64 = 5_000;
/// Without a byte for so long the uplink is dead: neither one that came, nor one that was taken.
const DEAD_MS: u64 = 30_000;
/// Without a whole frame for so long it is dead, however many bytes come: the largest takes that at 3.7 KB/s. Pings see to it that
/// one is due every 10 s. A peer that only drips would otherwise hold its pages for ever.
const FRAME_MS_MAX: u64 = 300_000;
/// A handshake in which nothing comes for so long is given up.
const HANDSHAKE_SILENT_MS_MAX: u64 = 10_000;
/// A handshake that is not done within this time is given up, however many bytes come: it is two small frames each way.
const HANDSHAKE_MS_MAX: u64 = 20_000;

/// What is known of the peer of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Liveness {
    /// When the handshake began.
    begun: Instant,
    /// The last sign of life: a byte that came, or one that was taken.
    heard: Instant,
    /// When the last whole frame came.
    framed: Instant,
    /// When it was last asked for one, if it was since.
    pinged: Option<Instant>,
}

impl Liveness {
    /// A connection begins.
    pub const fn new(now: Instant) -> Self {
        Self { begun: now, heard: now, framed: now, pinged: None }
    }

    /// Bytes came, or the peer took some.
    pub const fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// A whole frame came.
    pub const fn framed(&mut self, now: Instant) {
        (self.heard, self.framed, self.pinged) = (now, now, None);
    }

    /// The peer is asked for a frame.
    pub const fn pinged(&mut self, now: Instant) {
        self.pinged = Some(now);
    }

    /// Milliseconds since the last sign of life.
    pub const fn silent_ms(&self, now: Instant) -> u64 {
        now.since(self.heard)
    }

    /// Whether there was no sign of life for a while, so that it is worth asking the kernel for one.
    pub const fn is_quiet(&self, now: Instant) -> bool {
        self.silent_ms(now) >= QUIET_MS
    }

    /// When the next `Ping` is due.
    pub fn ping_at(&self) -> Instant {
        self.pinged.unwrap_or(self.framed).after(PING_MS)
    }

    /// When the handshake is to be given up unless something comes.
    pub fn handshake_ends_at(&self) -> Instant {
        self.heard.after(HANDSHAKE_SILENT_MS_MAX).min(self.begun.after(HANDSHAKE_MS_MAX))
    }

    /// The same of a connection whose handshake is done.
    pub fn ends_at(&self) -> Instant {
        self.heard.after(DEAD_MS).min(self.framed.after(FRAME_MS_MAX))
    }

    /// Why the connection is given up.
    pub const fn fault(&self, now: Instant, is_up: bool) -> PeerError {
        let silent_ms_max = if is_up { DEAD_MS } else { HANDSHAKE_SILENT_MS_MAX };
        if self.silent_ms(now) < silent_ms_max { PeerError::Slow } else { PeerError::Silent }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Relay;
    use super::super::rig::{BOARD, Rig};
    use super::*;
    use wire::uplink::ToRelay;

    #[test]
    fn a_silent_uplink_is_pinged_and_then_dead() {
        let mut rig = Rig::up(&BOARD);
        rig.pass(10_100);
        assert_eq!(rig.said(), ["Ping"]);
        assert_eq!(rig.relay.uplink_fault(rig.now), None);
        rig.pass(20_000);
        assert_eq!(rig.relay.uplink_fault(rig.now), Some(PeerError::Silent));
    }

    /// One byte of a frame comes, or was taken, after each `step_ms`, until the connection is given up: when, and why.
    fn drips(rig: &mut Rig, step_ms: u64, drip: impl Fn(&mut Relay, Instant)) -> (u64, PeerError) {
        let begun = rig.now;
        loop {
            for _ in 0..step_ms / 100 {
                rig.pass(100);
                assert!(rig.relay.uplink_deadline() > rig.now || rig.relay.uplink_fault(rig.now).is_some());
                if let Some(fault) = rig.relay.uplink_fault(rig.now) {
                    return (rig.now.since(begun), fault);
                }
            }
            drip(&mut rig.relay, rig.now);
        }
    }

    #[test]
    fn bytes_of_a_large_frame_are_signs_of_life_but_one_frame_takes_minutes_at_most() {
        for step_ms in [100, 29_000] {
            let mut rig = Rig::up(&BOARD);
            let ended = drips(&mut rig, step_ms, |relay, now| relay.handle_uplink_read(now, 1));
            assert_eq!(ended, (FRAME_MS_MAX, PeerError::Slow), "a byte each {step_ms} ms");
        }
        // A whole frame begins the minutes anew, and bytes that stop coming are silence.
        let mut rig = Rig::up(&BOARD);
        for _ in 0..20 {
            rig.relay.handle_uplink_read(rig.now, 1);
            rig.pass(29_000);
            rig.tell(ToRelay::Pong { nonce: 1 });
        }
        rig.relay.handle_uplink_read(rig.now, 1);
        assert_eq!(drips(&mut rig, DEAD_MS + 1_000, |_, _| {}), (DEAD_MS, PeerError::Silent));
    }

    #[test]
    fn what_is_taken_is_a_sign_of_life_and_what_is_written_is_none() {
        let mut rig = Rig::up(&BOARD);
        let ended = drips(&mut rig, 29_000, |relay, now| {
            assert!(relay.is_uplink_quiet(now));
            relay.uplink_took(now);
            assert!(!relay.is_uplink_quiet(now));
        });
        assert_eq!(ended, (FRAME_MS_MAX, PeerError::Slow));
        let mut rig = Rig::up(&BOARD);
        let ended = drips(&mut rig, 1_000, |relay, now| relay.uplink_wrote(now, 1));
        assert_eq!(ended, (DEAD_MS, PeerError::Silent), "a kernel takes as much for a peer that is gone");
    }

    #[test]
    fn a_handshake_that_drips_has_a_time_of_its_own() {
        let mut rig = Rig::down(&BOARD);
        assert_eq!(rig.relay.poll_dial(rig.now), Some(0));
        rig.relay.handle_uplink_connected(rig.now, [1; 16]);
        rig.relay.handle_uplink_read(rig.now, 1);
        assert_eq!(
            drips(&mut rig, 1_000, |relay, now| relay.handle_uplink_read(now, 1)),
            (HANDSHAKE_MS_MAX, PeerError::Slow)
        );
        rig.relay.handle_uplink_lost(rig.now);
        let mut rig = Rig::down(&BOARD);
        assert_eq!(rig.relay.poll_dial(rig.now), Some(0));
        rig.relay.handle_uplink_connected(rig.now, [1; 16]);
        assert_eq!(drips(&mut rig, 60_000, |_, _| {}), (HANDSHAKE_SILENT_MS_MAX, PeerError::Silent));
    }
}
