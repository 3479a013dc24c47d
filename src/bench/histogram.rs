//! A histogram of times with fixed size: 32 buckets per power of two, so the error is below 3.2 %.

const STEPS: usize = 32;
const STEP_BITS: u32 = STEPS.ilog2();

/// A histogram of times in microseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; STEPS * 40], total: 0, max_us: 0 }
    }
}

impl Histogram {
    /// Adds `count` times of `us` microseconds.
    pub fn add(&mut self, us: u64, count: u64) {
        let last = self.counts.len() - 1;
        if let Some(place) = self.counts.get_mut(index(us).min(last)) {
            *place += count;
        }
        self.total += count;
        self.max_us = self.max_us.max(us);
    }

    /// The quantile `share` (0.5 is the median) in microseconds; 0 if the histogram is empty.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
    pub fn share_us(&self, share: f64) -> u64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return upper(index).min(self.max_us);
            }
        }
        self.max_us
    }

    /// The maximum in microseconds.
    #[must_use]
    pub const fn max_us(&self) -> u64 {
        self.max_us
    }
}

fn index(us: u64) -> usize {
    let us = us.max(1);
    let power = us.ilog2();
    if power < STEP_BITS {
        return usize::try_from(us).unwrap_or_default();
    }
    let step = us >> (power - STEP_BITS);
    (power - STEP_BITS + 1) as usize * STEPS + usize::try_from(step).unwrap_or_default() - STEPS
}

fn upper(index: usize) -> u64 {
    if index < STEPS {
        return index as u64;
    }
    let power = index / STEPS - 1;
    let step = index % STEPS + STEPS + 1;
    ((step as u64) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_within_three_hundredths() {
        let mut histogram = Histogram::default();
        for us in 1..=100_000 {
            histogram.add(us, 1);
        }
        for (share, expected) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999, 99_900.0), (0.00001, 1.0)] {
            let found = histogram.share_us(share) as f64;
            assert!((found / expected - 1.0).abs() < 0.035, "{share}: {found}");
        }
        assert_eq!(histogram.max_us(), 100_000);
    }

    #[test]
    fn every_time_is_below_its_bucket_s_end() {
        for us in (0..5_000).chain([1 << 20, u64::from(u32::MAX), 1 << 40]) {
            assert!(upper(index(us)) >= us && (us < 2 || upper(index(us) - 1) < us), "{us}");
        }
    }
}
