//! The log: `simple_logger` on standard error; without times where the journal adds them.
//!
//! What one step reports may be reported thousands of times a second by a business server that does
//! something wrong: equal lines are counted and told once a second.

use std::fmt::Display;

use log::{Level, LevelFilter};

use crate::relay::time::Instant;

/// Lines that repeat are told at most this often, with a count.
const REPEAT_MS: u64 = 1_000;

/// Starts the log. A log that was started already stays as it is.
pub fn init(level: LevelFilter) {
    // Our own lines alone: what libraries trace holds the bytes of pages, links among them.
    let logger = simple_logger::SimpleLogger::new()
        .with_level(LevelFilter::Off)
        .with_module_level(env!("CARGO_PKG_NAME"), LevelFilter::Trace);
    let logger = if std::env::var_os("JOURNAL_STREAM").is_some() {
        logger.without_timestamps()
    } else {
        logger.with_utc_timestamps()
    };
    if logger.init().is_ok() {
        log::set_max_level(level);
    }
}

/// Holds back lines that come too often.
#[derive(Debug, Default)]
pub struct Repeats {
    since: Instant,
    lines: u32,
    held: u32,
    last: Option<(Level, String)>,
}

/// The name that lines of the machine's events bear.
const TARGET: &str = "sharelinkd";
/// Lines that go out at once within one second.
const BURST: u32 = 20;

impl Repeats {
    /// Logs a line, or holds it back.
    pub fn log(&mut self, level: Level, now: Instant, line: &dyn Display) {
        self.flush(now);
        if self.lines < BURST {
            self.lines += 1;
            log::log!(target: TARGET, level, "{line}");
        } else {
            self.held += 1;
            if log::log_enabled!(level) {
                self.last = Some((level, line.to_string()));
            }
        }
    }

    /// Tells how many were held back, once their second is over.
    pub fn flush(&mut self, now: Instant) {
        if now.since(self.since) < REPEAT_MS {
            return;
        }
        self.since = now;
        self.lines = 0;
        if let Some((level, line)) = self.last.take() {
            log::log!(target: TARGET, level, "{line} (and {} lines before it were held back)", self.held.saturating_sub(1));
        }
        self.held = 0;
    }
}
