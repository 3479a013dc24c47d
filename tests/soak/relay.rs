//! The relay under the soak: the unchanged daemon, in a process that counts its live heap blocks.
//!
//! Owns the count: `stats_alloc` wraps the system allocator and counts. The whole process's live
//! blocks and bytes go to standard output twice a second. Standard input can plant a leak (blocks
//! that are never freed), to show that the soak detects one.

use std::alloc::System;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use sharelinkd::config::Config;
use sharelinkd::daemon;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Interval between two reports.
const EVERY: Duration = Duration::from_millis(500);

/// Runs a relay with this configuration until a signal ends it.
pub fn run(path: PathBuf) -> ExitCode {
    match Config::load(&path, board::SELECTED) {
        Ok(config) => {
            std::thread::spawn(report);
            std::thread::spawn(listen);
            daemon::run(config, path)
        }
        Err(errors) => {
            errors.iter().for_each(|error| eprintln!("{error}"));
            ExitCode::FAILURE
        }
    }
}

/// Reports live blocks and bytes until the process ends.
fn report() {
    let mut out = std::io::stdout();
    loop {
        std::thread::sleep(EVERY);
        let stats = COUNTED.stats();
        let blocks = stats.allocations.wrapping_sub(stats.deallocations);
        let size = stats.bytes_allocated.wrapping_sub(stats.bytes_deallocated);
        if writeln!(out, "{blocks} {size}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

/// Leaks as each line says: a count of blocks and their size. Ends the process when standard input
/// ends: without the watcher nothing else would.
fn listen() {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let mut numbers = line.split(' ').filter_map(|word| word.parse::<usize>().ok());
        if let (Some(count), Some(size)) = (numbers.next(), numbers.next()) {
            (0..count).for_each(|_| std::mem::forget(vec![1_u8; size]));
        }
    }
    std::process::exit(1);
}
