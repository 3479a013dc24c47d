//! Rate limits: token buckets that are exact for every rate and take eight bytes each.
//!
//! A bucket stores the time at which it will be full again (the generic cell rate algorithm). The
//! unit is thousandths of a token since the machine's start, that is, milliseconds times tokens per
//! second: an integer for every rate, so nothing is rounded and nothing is refilled twice. Owns the
//! arithmetic; the rates are the board's. Knows neither pages nor addresses nor a clock.

use super::time::Instant;

/// One token in the buckets' unit.
const TOKEN: u64 = 1_000;

/// The limit that a token bucket enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Capacity in tokens: what may be taken at once.
    pub burst: u32,
    /// Tokens refilled per second.
    pub per_s: u32,
}

/// A token bucket: a burst, refilled at a fixed rate. The default bucket is full. Use each bucket
/// with one [`Rate`] only; with another it counts wrongly.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// When it is full again, in thousandths of a token; a time in the past means full.
    full_at: u64,
}

impl Bucket {
    /// Takes a token, if there is one. In any `t` milliseconds at most `burst + t * per_s / 1000`
    /// are taken.
    pub fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let now = now.0.saturating_mul(rate.per_s.into());
        let full_at = self.full_at.max(now).saturating_add(TOKEN);
        let is_there = full_at - now <= u64::from(rate.burst) * TOKEN;
        if is_there {
            self.full_at = full_at;
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use board::ALL;

    /// Tokens taken in 10 s by a client that takes all there are every `step_ms`.
    fn taken(rate: Rate, begin: Instant, step_ms: usize) -> u64 {
        let mut bucket = Bucket::default();
        let mut take_all = |now| (0..10 * rate.burst).take_while(|_| bucket.take(rate, now)).count() as u64;
        (0..=10_000).step_by(step_ms).map(|ms| take_all(begin.after(ms))).sum()
    }

    #[test]
    fn a_bucket_admits_its_burst_and_its_rate_and_no_more() {
        let of_boards = ALL.iter().flat_map(|board| {
            [
                Rate { burst: board.address_asks_burst, per_s: board.address_asks_per_s },
                Rate { burst: board.page_asks_burst, per_s: 1 },
                Rate { burst: board.sends_burst, per_s: 1 },
            ]
        });
        let others = [1, 2, 3, 7, 10, 11, 99, 100, 101, 333, 999, 1_000, 1_001, 7_919];
        let others = others.into_iter().flat_map(|per_s| [1, 5, 2_000].map(|burst| Rate { burst, per_s }));
        for rate in of_boards.chain(others) {
            for begin in [0, 1, 99, u64::from(u32::MAX) - 5_000, 410_000_000_000] {
                for step_ms in [1, 3, 10, 100, 130] {
                    let last_ms = 10_000 / step_ms * step_ms;
                    let most = u64::from(rate.burst) + last_ms * u64::from(rate.per_s) / 1_000;
                    // A bucket that is full before the next call loses the overflow.
                    let is_wide = u64::from(rate.burst - 1) * 1_000 >= u64::from(rate.per_s) * step_ms;
                    let taken = taken(rate, Instant(begin), usize::try_from(step_ms).unwrap());
                    assert!(taken <= most, "{rate:?} from {begin} every {step_ms} ms: {taken} of {most}");
                    assert!(
                        !is_wide || taken + 1 >= most,
                        "{rate:?} from {begin} every {step_ms} ms: {taken} of {most}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_bucket_refills_with_time_up_to_its_burst() {
        let rate = Rate { burst: 5, per_s: 1 };
        let mut bucket = Bucket::default();
        assert_eq!((0..9).filter(|_| bucket.take(rate, Instant(70))).count(), 5);
        assert!(!bucket.take(rate, Instant(1_069)));
        assert!(bucket.take(rate, Instant(1_070)));
        assert!(!bucket.take(rate, Instant(1_070)));
        assert!(!bucket.take(rate, Instant(0)), "a clock that goes back refills nothing");
        assert_eq!((0..9).filter(|_| bucket.take(rate, Instant(60_000))).count(), 5);
    }
}
