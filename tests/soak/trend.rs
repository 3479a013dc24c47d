//! Whether a series grows, or only fluctuates.
//!
//! Samples are reduced to one median for each time bin, at least as long as a disturbance lasts. A
//! series grows if (1) the bins rise more often than by chance (Mann-Kendall), (2) the median of
//! all slopes between bins (Theil-Sen) exceeds a tolerance over the window, and (3) the second half
//! of the window alone exceeds half of that: filling up to a level is no leak. Knows only numbers.

/// Mann-Kendall's normal deviate that chance reaches in less than one of a thousand series.
const SURE: f64 = 3.1;
/// Fewer bins than this are not judged.
pub const BINS_MIN: usize = 10;

/// A series's trend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// The medians of the first and of the last fifth of the bins.
    pub first: f64,
    pub last: f64,
    /// Growth by the median slope: over the whole window, and over its second half.
    pub growth: f64,
    pub late_growth: f64,
    /// Mann-Kendall's statistic, in standard deviations.
    pub deviate: f64,
    pub tolerance: f64,
}

impl Trend {
    /// Whether it grows.
    pub fn grows(&self) -> bool {
        self.deviate > SURE && self.growth > self.tolerance && self.late_growth > self.tolerance / 2.0
    }
}

/// Judges samples (seconds, value) in bins of `bin_s` seconds; `None` if there are too few.
pub fn judge(samples: &[(f64, f64)], bin_s: f64, tolerance: f64) -> Option<Trend> {
    let bins = bins(samples, bin_s);
    if bins.len() < BINS_MIN {
        return None;
    }
    let fifth = bins.len() / 5;
    let half = bins.get(bins.len() / 2..)?;
    let values = |bins: &[(f64, f64)]| median(bins.iter().map(|bin| bin.1).collect());
    Some(Trend {
        first: values(bins.get(..fifth)?)?,
        last: values(bins.get(bins.len() - fifth..)?)?,
        growth: slope(&bins)? * span(&bins, bin_s),
        late_growth: slope(half)? * span(half, bin_s),
        deviate: deviate(&bins),
        tolerance,
    })
}

/// The midpoint and the median of each bin that has samples, without an incomplete last one.
fn bins(samples: &[(f64, f64)], bin_s: f64) -> Vec<(f64, f64)> {
    let Some(&(start, _)) = samples.first() else { return Vec::new() };
    let end = samples.last().map_or(start, |sample| sample.0);
    let mut found = Vec::new();
    let mut from = start;
    while from + bin_s <= end + 1.5 {
        let held = samples.iter().filter(|(at, value)| (from..from + bin_s).contains(at) && value.is_finite());
        if let Some(value) = median(held.map(|sample| sample.1).collect()) {
            found.push((from + bin_s / 2.0, value));
        }
        from += bin_s;
    }
    found
}

fn span(bins: &[(f64, f64)], bin_s: f64) -> f64 {
    match (bins.first(), bins.last()) {
        (Some(first), Some(last)) => last.0 - first.0 + bin_s,
        _ => 0.0,
    }
}

/// The median of a list.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (below, above) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some((below + above) / 2.0)
}

fn pairs(bins: &[(f64, f64)]) -> impl Iterator<Item = ((f64, f64), (f64, f64))> {
    bins.iter().enumerate().flat_map(|(at, first)| bins.iter().skip(at + 1).map(|second| (*first, *second)))
}

/// Theil-Sen: the median of the slopes between all pairs, per second.
fn slope(bins: &[(f64, f64)]) -> Option<f64> {
    median(pairs(bins).map(|(first, second)| (second.1 - first.1) / (second.0 - first.0)).collect())
}

/// Mann-Kendall's statistic as a normal deviate, corrected for ties.
fn deviate(bins: &[(f64, f64)]) -> f64 {
    let sum: f64 = pairs(bins).map(|(first, second)| sign(second.1 - first.1)).sum();
    let weight = |count: f64| count * (count - 1.0) * (2.0 * count + 5.0);
    let mut values: Vec<f64> = bins.iter().map(|bin| bin.1).collect();
    values.sort_by(f64::total_cmp);
    let ties: f64 = values.chunk_by(|a, b| a == b).map(|equal| weight(count(equal))).sum();
    let variance = (weight(count(bins)) - ties) / 18.0;
    if variance > 0.0 { (sum - sign(sum)) / variance.sqrt() } else { 0.0 }
}

fn sign(value: f64) -> f64 {
    if value > 0.0 {
        1.0
    } else if value < 0.0 {
        -1.0
    } else {
        0.0
    }
}

#[expect(clippy::cast_precision_loss, reason = "some hundreds of bins")]
fn count<T>(list: &[T]) -> f64 {
    list.len() as f64
}
