//! Time as the machine knows it: an argument, in milliseconds since a start that the caller chose.
//!
//! There is no clock here (`clippy.toml` bans it outside the daemon). Rows of large tables hold a
//! [`Stamp`], half the size of an [`Instant`].

/// A point in time, in milliseconds since the caller's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub u64);

impl Instant {
    /// Later than every other instant: never.
    pub const NEVER: Self = Self(u64::MAX);

    /// The instant `ms` milliseconds later.
    #[must_use]
    pub const fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`; 0 if that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The instant, rounded down to a tenth of a second.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "saturates first: 13 years of uptime")]
    pub const fn stamp(self) -> Stamp {
        let tenths = self.0 / STAMP_MS;
        Stamp(if tenths > u32::MAX as u64 { u32::MAX } else { tenths as u32 })
    }
}

/// A point in time in tenths of a second, in four bytes: enough for 13 years of uptime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(u32);

/// Milliseconds in a stamp's unit.
const STAMP_MS: u64 = 100;

impl Stamp {
    /// Milliseconds from the stamp to `now`.
    #[must_use]
    pub const fn age_ms(self, now: Instant) -> u64 {
        now.0.saturating_sub(self.0 as u64 * STAMP_MS)
    }

    /// Whether it is earlier than another one.
    #[must_use]
    pub const fn is_before(self, other: Self) -> bool {
        self.0 < other.0
    }
}

/// A small pseudo-random generator for jitter (SplitMix64): seeded by the caller, not for secrets.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// A generator that returns the same numbers for the same seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    #[must_use]
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `end`; 0 where `end` is 0.
    #[must_use]
    pub const fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.bits() % end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_keep_tenths_and_saturate() {
        assert_eq!(Instant(12_345).stamp().age_ms(Instant(13_345)), 1_045);
        assert_eq!(Instant(5_000).stamp().age_ms(Instant(4_000)), 0);
        let _ = Instant::NEVER.stamp().age_ms(Instant(0));
        assert_eq!(Instant::NEVER.after(1), Instant::NEVER);
    }

    #[test]
    fn jitter_stays_below_its_end() {
        let mut jitter = Jitter::new(7);
        assert!((0..1_000).map(|_| jitter.below(10)).all(|n| n < 10));
        assert_eq!(jitter.below(0), 0);
    }
}
