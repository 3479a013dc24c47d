//! Rate limits: token buckets that are exact for every rate and cost eight bytes each.
//!
//! A bucket is the moment at which it will be full again (the generic cell rate algorithm). That
//! moment is counted in thousandths of a token since the machine's time began, which is milliseconds
//! times tokens a second: whole numbers for every rate, so nothing is rounded and nothing that was
//! refilled once is refilled again. Owns the arithmetic; the rates are the board's. Knows neither
//! pages nor addresses, and no clock.

use super::time::Instant;

/// One token, in the unit that buckets count in.
const TOKEN: u64 = 1_000;

/// What a token bucket allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens of a full bucket: what may be taken at once.
    pub burst: u32,
    /// Tokens that it is refilled with each second.
    pub per_s: u32,
}

/// A token bucket: a burst, refilled at a fixed rate. The default one is full. It belongs to one
/// [`Rate`]; taken from by another it counts wrongly.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// When it is full again, in thousandths of a token; full if that is past.
    full_at: u64,
}

impl Bucket {
    /// Takes a token, where there is one. Over any time `t` in milliseconds at most
    /// `burst + t * per_s / 1000` are taken.
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

    /// Tokens taken by who takes all that there are every `step_ms` for 10 s.
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
                    // A bucket that is full before the next call loses what flows over.
                    let is_wide = u64::from(rate.burst - 1) * 1_000 >= u64::from(rate.per_s) * step_ms;
                    let taken = taken(rate, Instant(begin), usize::try_from(step_ms).unwrap());
                    assert!(taken <= most, "{rate:?} from {begin} each {step_ms} ms: {taken} of {most}");
                    assert!(
                        !is_wide || taken + 1 >= most,
                        "{rate:?} from {begin} each {step_ms} ms: {taken} of {most}"
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
        assert!(!bucket.take(rate, Instant(0)), "a clock that went back refills nothing");
        assert_eq!((0..9).filter(|_| bucket.take(rate, Instant(60_000))).count(), 5);
    }
}
