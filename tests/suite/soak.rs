//! The soak's statistics: they detect a small leak in a noisy series, and no leak where there is
//! none.
//!
//! The soak itself is a separate program (`tests/soak/run`); `tests/run` runs a short one, which
//! does not judge trends. Here the statistics run on generated series: noise with bursts, a table
//! that fills, a random walk, and leaks.

use relay::time::Jitter;

#[path = "../soak/trend.rs"]
mod trend;

/// Seconds of a series, and pages that come and go in each second.
const SECONDS: u32 = 1_500;
const PAGES_PER_S: f64 = 50.0;
/// The soak's tolerance and bins for resident memory.
const TOLERANCE: f64 = 1_048_576.0;
const BIN_S: f64 = 30.0;

/// Between -1 and 1.
fn noise(jitter: &mut Jitter) -> f64 {
    f64::from(u32::try_from(jitter.below(2_001)).unwrap()) / 1_000.0 - 1.0
}

/// 200 MB with noise of 100 KB, and a burst of 6 MB for a few seconds about once a minute.
fn resident(seed: u64, more: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    let mut jitter = Jitter::new(seed);
    let mut burst = 0;
    let second = |at: u32| {
        if jitter.below(60) == 0 {
            burst = 4 + jitter.below(8);
        }
        burst = burst.saturating_sub(1);
        let at = f64::from(at);
        (at, 2e8 + 1e5 * noise(&mut jitter) + if burst > 0 { 6e6 } else { 0.0 } + more(at))
    };
    (0..SECONDS).map(second).collect()
}

fn grows(series: &[(f64, f64)]) -> bool {
    trend::judge(series, BIN_S, TOLERANCE).expect("enough bins").grows()
}

#[test]
fn a_series_that_only_fluctuates_does_not_grow() {
    for seed in 0..60 {
        assert!(!grows(&resident(seed, |_| 0.0)), "noise and bursts, seed {seed}");
        let wave = |at: f64| 2e6 * (at / 97.0).sin();
        assert!(!grows(&resident(seed, wave)), "a wave, seed {seed}");
        let filling = |at: f64| 1e7 * (1.0 - (-at / 120.0).exp());
        assert!(!grows(&resident(seed, filling)), "a ring that fills, seed {seed}");
    }
}

#[test]
fn a_random_walk_does_not_grow() {
    for seed in 0..60 {
        let mut jitter = Jitter::new(seed);
        let mut place = 2e8;
        let walk = |at: u32| {
            // Mean-reverting, like memory that is allocated and freed in random order.
            place += 4e4 * noise(&mut jitter) - (place - 2e8) / 60.0;
            (f64::from(at), place)
        };
        assert!(!grows(&(0..SECONDS).map(walk).collect::<Vec<_>>()), "seed {seed}");
    }
}

#[test]
fn a_leak_of_a_hundred_bytes_a_page_is_detected() {
    for seed in 0..60 {
        assert!(grows(&resident(seed, |at| 100.0 * PAGES_PER_S * at)), "seed {seed}");
    }
}

#[test]
fn a_leak_within_the_tolerance_and_a_decline_are_no_growth() {
    for seed in 0..60 {
        assert!(!grows(&resident(seed, |at| 10.0 * PAGES_PER_S * at)), "seed {seed}");
        assert!(!grows(&resident(seed, |at| -100.0 * PAGES_PER_S * at)), "seed {seed}");
    }
}

#[test]
fn too_few_bins_are_not_judged() {
    let series = resident(1, |at| 1e6 * at);
    let bins = f64::from(u32::try_from(trend::BINS_MIN).unwrap());
    let short: Vec<_> = series.into_iter().filter(|cell| cell.0 < BIN_S * (bins - 1.0)).collect();
    assert_eq!(trend::judge(&short, BIN_S, TOLERANCE), None);
}
