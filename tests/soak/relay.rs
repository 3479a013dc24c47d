//! The relay under the soak: the daemon as it is, in a process whose live heap blocks are counted.
//!
//! Owns the counting, by the allocator of `stats_alloc`, which only counts and hands on to the system's: blocks and bytes that the whole
//! process took and did not give back, told twice a second on standard output. A leak can be planted (blocks that are taken
//! and never given back, as often as standard input says), to show that the soak sees one. The rest is the product.

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

/// How often it is told.
const EVERY: Duration = Duration::from_millis(500);

/// Runs a relay with this configuration until it is told to end.
pub fn run(path: PathBuf) -> ExitCode {
    match Config::load(&path, board::SELECTED) {
        Ok(config) => {
            std::thread::spawn(tell);
            std::thread::spawn(listen);
            daemon::run(config, path)
        }
        Err(errors) => {
            errors.iter().for_each(|error| eprintln!("{error}"));
            ExitCode::FAILURE
        }
    }
}

/// Tells blocks and bytes; ends with the process.
fn tell() {
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

/// Hears how many blocks of how many bytes are to be lost. Where the watcher is gone, nobody would end the relay.
fn listen() {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let mut numbers = line.split(' ').filter_map(|word| word.parse::<usize>().ok());
        if let (Some(count), Some(size)) = (numbers.next(), numbers.next()) {
            (0..count).for_each(|_| std::mem::forget(vec![1_u8; size]));
        }
    }
    std::process::exit(1);
}
