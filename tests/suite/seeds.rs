//! Runs a simulation over seeds.
//!
//! `SIM_SEED=n` runs one seed, `SIM_SEEDS=n` a number of seeds, `SIM_STEPS=n` steps of each;
//! `SIM_SECONDS=n` runs fresh seeds for that long. A failure prints its seed, its step and the
//! shortest failing prefix. Owns the panics of a run, which are failures like any other. Knows no
//! world.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs one seed; its result, or the failing step (the number of steps for the final check) and
/// why.
fn run<R>(
    seed: u64,
    steps: u64,
    world: &impl Fn(u64, u64, &Cell<u64>) -> Result<R, String>,
) -> Result<R, (u64, String)> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let other = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if IS_QUIET.get() {
                LAST.set(info.to_string());
            } else {
                other(info);
            }
        }));
    });
    IS_QUIET.set(true);
    let step = Cell::new(0);
    let result = catch_unwind(AssertUnwindSafe(|| world(seed, steps, &step)));
    IS_QUIET.set(false);
    match result {
        Ok(result) => result.map_err(|error| (step.get(), error)),
        Err(_) => Err((step.get(), LAST.take())),
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs the requested seeds; their results. `world` gets the seed and the number of steps, and
/// says at which step it is.
pub fn simulate<R>(seeds: u64, steps: u64, world: impl Fn(u64, u64, &Cell<u64>) -> Result<R, String>) -> Vec<R> {
    let steps = number("SIM_STEPS").unwrap_or(steps);
    #[expect(clippy::disallowed_methods, reason = "SIM_SECONDS is real time")]
    let begun = std::time::Instant::now();
    let (seeds, seconds) = match (number("SIM_SEED"), number("SIM_SECONDS")) {
        (Some(seed), _) => (seed..seed + 1, None),
        // Fresh seeds: a failure prints which.
        (None, Some(seconds)) => {
            let first = getrandom::u64().expect("the system gives random bytes") >> 8;
            (first..u64::MAX, Some(seconds))
        }
        (None, None) => (1..1 + number("SIM_SEEDS").unwrap_or(seeds), None),
    };
    let run_one = |seed| match run(seed, steps, &world) {
        Ok(result) => result,
        Err((step, error)) => {
            // A failing step is its own shortest prefix; a failing final check may fail earlier.
            let shortest = (0..step).find_map(|steps| run(seed, steps, &world).err().map(|error| (steps, error.1)));
            let (prefix, first) = shortest.unwrap_or((step, error.clone()));
            panic!(
                "SIM_SEED={seed} fails at step {step}: {error}\nthe shortest prefix that fails is SIM_STEPS={prefix}: {first}"
            );
        }
    };
    let is_time = |_: &u64| seconds.is_none_or(|seconds| begun.elapsed().as_secs() < seconds);
    let runs: Vec<_> = seeds.take_while(is_time).map(run_one).collect();
    println!("{} seeds of {steps} steps in {} s", runs.len(), begun.elapsed().as_secs());
    runs
}
