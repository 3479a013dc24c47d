//! The uplink's signs of life: when a `Ping` is due, and when the connection counts as dead.
//!
//! Any byte is a sign of life, so a large frame may take its time on a slow line, but a whole frame
//! must arrive within minutes. Bytes that the peer acknowledges count too: a business server that
//! reads slowly is alive, and may not have read our `Ping` yet. Owns these times and their limits.
//! Doesn't know the contents of frames.

use super::{fault::PeerError, time::Instant};

/// A `Ping` is sent after this part of the time after which the uplink is dead, without a frame: so
/// two are sent before its end.
const PINGS: u64 = 3;
/// After this part of that time without a byte the uplink is quiet, before the first `Ping`.
const QUIETS: u64 = 6;
/// After this time without a whole frame the uplink is dead, however many bytes arrive: 3.7 KB/s
/// suffice for the largest frame. Pings ensure that a frame is due. Without this limit, a peer that
/// drips bytes would hold its pages forever. If the time without a byte is longer, that counts.
const FRAME_MS_MAX: u64 = 300_000;
/// A handshake is given up after this time without a byte.
const HANDSHAKE_SILENT_MS_MAX: u64 = 10_000;
/// A handshake that takes longer than this is given up, however many bytes arrive: it is two small
/// frames each way.
const HANDSHAKE_MS_MAX: u64 = 20_000;

/// Liveness of the peer on one connection.
#[derive(Clone, Copy, Debug)]
pub struct Liveness {
    /// When the handshake began.
    begun: Instant,
    /// The last sign of life: a byte received, or one acknowledged.
    heard: Instant,
    /// When the last whole frame was received.
    framed: Instant,
    /// When the last `Ping` was sent, if no frame was received since.
    pinged: Option<Instant>,
    /// After this time the uplink is dead if no byte was received and none acknowledged,
    /// milliseconds.
    dead_ms: u64,
}

impl Liveness {
    /// A new connection, dead after `dead_ms` milliseconds without a sign of life.
    pub const fn new(now: Instant, dead_ms: u64) -> Self {
        Self { begun: now, heard: now, framed: now, pinged: None, dead_ms }
    }

    /// Sets the time without a sign of life after which the connection is dead, milliseconds.
    pub const fn set_dead_after(&mut self, dead_ms: u64) {
        self.dead_ms = dead_ms;
    }

    /// Bytes were received, or the peer acknowledged some.
    pub const fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// A whole frame was received.
    pub const fn framed(&mut self, now: Instant) {
        (self.heard, self.framed, self.pinged) = (now, now, None);
    }

    /// A `Ping` was sent.
    pub const fn pinged(&mut self, now: Instant) {
        self.pinged = Some(now);
    }

    /// Milliseconds since the last sign of life.
    pub const fn silent_ms(&self, now: Instant) -> u64 {
        now.since(self.heard)
    }

    /// Whether it has been silent long enough that the kernel should be asked whether the peer
    /// acknowledged anything.
    pub const fn is_quiet(&self, now: Instant) -> bool {
        self.silent_ms(now) >= self.dead_ms / QUIETS
    }

    /// When the next `Ping` is due.
    pub fn ping_at(&self) -> Instant {
        self.pinged.unwrap_or(self.framed).after(self.dead_ms / PINGS)
    }

    /// When to give up the handshake unless something is received.
    pub fn handshake_ends_at(&self) -> Instant {
        self.heard.after(HANDSHAKE_SILENT_MS_MAX).min(self.begun.after(HANDSHAKE_MS_MAX))
    }

    /// The same for a connection whose handshake is done.
    pub fn ends_at(&self) -> Instant {
        self.heard.after(self.dead_ms).min(self.framed.after(self.frame_ms_max()))
    }

    /// The reason for giving up the connection.
    pub fn fault(&self, now: Instant, is_up: bool) -> PeerError {
        let (silent_ms, frame_ms) = match is_up {
            true => (self.dead_ms, self.frame_ms_max()),
            false => (HANDSHAKE_SILENT_MS_MAX, HANDSHAKE_MS_MAX),
        };
        if self.silent_ms(now) < silent_ms {
            PeerError::Slow { limit_s: frame_ms / 1000 }
        } else {
            PeerError::Silent { limit_s: silent_ms / 1000 }
        }
    }

    fn frame_ms_max(&self) -> u64 {
        FRAME_MS_MAX.max(self.dead_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{BOARD, Rig};
    use super::super::{Relay, Settings};
    use super::*;
    use wire::uplink::ToRelay;

    /// The rig's.
    const DEAD_MS: u64 = 30_000;

    #[test]
    fn a_silent_uplink_is_pinged_and_then_dead() {
        let mut rig = Rig::up(&BOARD);
        rig.pass(10_100);
        assert_eq!(rig.said(), ["Ping"]);
        assert_eq!(rig.relay.uplink_fault(rig.now), None);
        rig.pass(20_000);
        assert_eq!(rig.relay.uplink_fault(rig.now), Some(PeerError::Silent { limit_s: 30 }));
    }

    #[test]
    fn the_time_of_a_dead_uplink_is_configured_and_changes_at_once() {
        for (dead_s, frame_s) in [(2, 300), (600, 600)] {
            let mut rig = Rig::up(&BOARD);
            rig.relay.reconfigure(Settings { dead_after_ms: dead_s * 1_000, ..rig.settings() });
            let begun = rig.now;
            while rig.said().is_empty() {
                rig.pass(100);
            }
            let pinged_ms = rig.now.since(begun);
            assert!(
                (dead_s * 333..=dead_s * 334 + 200).contains(&pinged_ms),
                "{dead_s} s: pinged after {pinged_ms} ms"
            );
            assert!(rig.relay.is_uplink_quiet(rig.now), "before the ping is due");
            let ended = drips(&mut rig, 100, |_, _| {});
            assert_eq!(ended, (dead_s * 1_000 - pinged_ms, PeerError::Silent { limit_s: dead_s }));
            let mut rig = Rig::up(&BOARD);
            rig.relay.reconfigure(Settings { dead_after_ms: dead_s * 1_000, ..rig.settings() });
            let ended = drips(&mut rig, 1_000, |relay, now| relay.handle_uplink_read(now, 1));
            assert_eq!(ended, (frame_s * 1_000, PeerError::Slow { limit_s: frame_s }));
        }
    }

    /// One byte of a frame is received, or acknowledged, every `step_ms` until the connection is
    /// given up. Returns when, and why.
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
            assert_eq!(ended, (FRAME_MS_MAX, PeerError::Slow { limit_s: 300 }), "a byte every {step_ms} ms");
        }
        // A whole frame resets the minutes, and bytes that stop are silence.
        let mut rig = Rig::up(&BOARD);
        for _ in 0..20 {
            rig.relay.handle_uplink_read(rig.now, 1);
            rig.pass(29_000);
            rig.tell(ToRelay::Pong { nonce: 1 });
        }
        rig.relay.handle_uplink_read(rig.now, 1);
        assert_eq!(drips(&mut rig, DEAD_MS + 1_000, |_, _| {}), (DEAD_MS, PeerError::Silent { limit_s: 30 }));
    }

    #[test]
    fn what_is_taken_is_a_sign_of_life_and_what_is_written_is_none() {
        let mut rig = Rig::up(&BOARD);
        let ended = drips(&mut rig, 29_000, |relay, now| {
            assert!(relay.is_uplink_quiet(now));
            relay.uplink_took(now);
            assert!(!relay.is_uplink_quiet(now));
        });
        assert_eq!(ended, (FRAME_MS_MAX, PeerError::Slow { limit_s: 300 }));
        let mut rig = Rig::up(&BOARD);
        let ended = drips(&mut rig, 1_000, |relay, now| relay.uplink_wrote(now, 1));
        assert_eq!(
            ended,
            (DEAD_MS, PeerError::Silent { limit_s: 30 }),
            "the kernel buffers as much for a peer that is gone"
        );
    }

    #[test]
    fn a_handshake_that_drips_has_a_time_of_its_own() {
        let mut rig = Rig::down(&BOARD);
        assert_eq!(rig.relay.poll_dial(rig.now), Some(0));
        rig.relay.handle_uplink_connected(rig.now, [1; 16]);
        rig.relay.handle_uplink_read(rig.now, 1);
        assert_eq!(
            drips(&mut rig, 1_000, |relay, now| relay.handle_uplink_read(now, 1)),
            (HANDSHAKE_MS_MAX, PeerError::Slow { limit_s: 20 })
        );
        rig.relay.handle_uplink_lost(rig.now);
        let mut rig = Rig::down(&BOARD);
        assert_eq!(rig.relay.poll_dial(rig.now), Some(0));
        rig.relay.handle_uplink_connected(rig.now, [1; 16]);
        assert_eq!(drips(&mut rig, 60_000, |_, _| {}), (HANDSHAKE_SILENT_MS_MAX, PeerError::Silent { limit_s: 10 }));
    }
}
