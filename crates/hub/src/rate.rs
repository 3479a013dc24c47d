//! A token bucket in fixed point: exact for every rate, whatever the steps of the clock.

use core::time::Duration;

/// A rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// As many at once.
    pub burst: u32,
    /// As many a second in the long run, at least 1.
    pub per_s: u32,
}

/// What is left of a rate.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Billionths of a token.
    nanos: u128,
    at: Duration,
}

const TOKEN: u128 = 1_000_000_000;

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn full(rate: Rate, now: Duration) -> Self {
        Self { nanos: u128::from(rate.burst) * TOKEN, at: now }
    }

    /// Takes one token, if there is one.
    pub fn take(&mut self, rate: Rate, now: Duration) -> bool {
        let grown = now.saturating_sub(self.at).as_nanos() * u128::from(rate.per_s);
        self.nanos = (self.nanos + grown).min(u128::from(rate.burst) * TOKEN);
        self.at = self.at.max(now);
        let has = self.nanos >= TOKEN;
        self.nanos -= if has { TOKEN } else { 0 };
        has
    }

    /// How long until there is a token again.
    #[must_use]
    pub fn wait(&self, rate: Rate) -> Duration {
        let missing = TOKEN.saturating_sub(self.nanos);
        Duration::from_nanos(u64::try_from(missing.div_ceil(u128::from(rate.per_s.max(1)))).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_admits_its_burst_and_its_rate() {
        for per_s in [1, 7, 13, 500] {
            let rate = Rate { burst: 10, per_s };
            let mut bucket = Bucket::full(rate, Duration::ZERO);
            let mut admitted = 0;
            for ms in 0..=10_000 {
                while bucket.take(rate, Duration::from_millis(ms)) {
                    admitted += 1;
                }
            }
            assert_eq!(admitted, 10 + 10 * per_s);
            assert!(bucket.wait(rate) <= Duration::from_secs(1));
        }
    }
}
