//! The soak: a relay with a full table, run for as long as you like under faults of every kind, and
//! sampled once a second.
//!
//! One program, three processes: the relay (`relay.rs`: the unchanged daemon with a counting
//! allocator), the load (`load.rs`: all pages and the business server), and the watcher
//! (`watch.rs`), which starts both, samples the relay, draws the picture and gives the verdict.
//! `tests/soak/run` runs it; `tests/soak/README.md` explains the picture.

#![allow(missing_docs, reason = "a program, not a library")]

mod business;
mod clock;
mod content;
mod line;
mod load;
mod page;
mod picture;
mod probe;
mod relay;
mod table;
mod trend;
mod verdict;
mod view;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use watch::Options;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let outcome = match words.next().as_deref() {
        Some("relay") => match words.next() {
            Some(path) => return relay::run(path.into()),
            None => Err("relay FILE".to_owned()),
        },
        Some("load") => options(words).and_then(|options| load::run(options.plan())),
        Some("watch") => options(words).and_then(|options| match watch::run(&options) {
            Ok(true) => Ok(()),
            Ok(false) => Err("failed".to_owned()),
            Err(error) => Err(error),
        }),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

const USAGE: &str = "watch [--tls] [--seconds N] [--warm-up N] [--pages N] [--leak BYTES] [--seed N] [--out FOLDER]";

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    while let Some(name) = words.next() {
        if name == "--tls" {
            options.is_secure = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{name} needs a value; {USAGE}"))?;
        let number = || value.parse::<u64>().map_err(|error| format!("{name} {value}: {error}"));
        match name.as_str() {
            "--seconds" => options.seconds = number()?,
            "--warm-up" => options.warm_up = Some(number()?),
            "--pages" => options.pages = u32::try_from(number()?).map_err(|error| format!("{name}: {error}"))?,
            "--leak" => options.leak = number()?,
            "--seed" => options.seed = number()?,
            "--out" => options.out = PathBuf::from(value),
            _ => return Err(format!("unknown {name}; {USAGE}")),
        }
    }
    Ok(options)
}
