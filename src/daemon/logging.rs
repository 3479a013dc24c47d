//! The log: lines on standard error, and the last of them in a ring for the console.
//!
//! Owns how lines go out: through `simple_logger`, with times, or under systemd (`JOURNAL_STREAM`) bare and with the
//! journal's priorities. A standard error that takes nothing (a full pipe, a reader that is gone) costs lines, which
//! are counted and told when it takes some again; it never holds up the relay, whose one thread writes them. What one step
//! reports may be reported thousands of times a second by a business server that does something wrong: such lines
//! are counted and told once a second; one line that comes again and again, every 10 s. Decides nothing about what is worth a line.

use std::fmt::Display;
use std::io::{Write as _, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use simple_logger::SimpleLogger;

use super::clock::Clock;
use crate::console::Lines;
use crate::relay::time::Instant;

/// Lines that repeat are told at most this often, with a count.
const REPEAT_MS: u64 = 1_000;
/// One line that comes again and again is told once in so long, with a count.
const SAME_MS: u64 = 10_000;
static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Starts the log. A log that was started already stays as it is.
pub fn init(level: LevelFilter, clock: Clock) {
    let logger = LOGGER.get_or_init(|| Logger {
        // Our own lines alone: what libraries trace holds the bytes of pages, links among them.
        plain: SimpleLogger::new()
            .with_level(LevelFilter::Off)
            .with_module_level(env!("CARGO_PKG_NAME"), LevelFilter::Trace)
            .with_utc_timestamps(),
        is_journal: std::env::var_os("JOURNAL_STREAM").is_some(),
        clock,
        kept: Mutex::default(),
        unwritten: AtomicU64::new(0),
        unwritten_ever: AtomicU64::new(0),
    });
    if log::set_logger(logger).is_ok() {
        log::set_max_level(level);
    }
}

/// Shows the last lines, and how many were not written because standard error took nothing. Nothing may be logged meanwhile.
pub fn with_lines<T>(see: impl FnOnce(&Lines, u64) -> T) -> T {
    match LOGGER.get().and_then(|logger| Some((logger, logger.kept.lock().ok()?))) {
        Some((logger, kept)) => see(&kept, logger.unwritten_ever.load(Ordering::Relaxed)),
        None => see(&Lines::default(), 0),
    }
}

struct Logger {
    plain: SimpleLogger,
    is_journal: bool,
    clock: Clock,
    kept: Mutex<Lines>,
    unwritten: AtomicU64,
    unwritten_ever: AtomicU64,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.plain.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        self.keep(record);
        if !takes_a_line() {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
            self.unwritten_ever.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let unwritten = self.unwritten.swap(0, Ordering::Relaxed);
        if unwritten > 0 {
            let _ = writeln!(
                stderr(),
                "{}{unwritten} lines were not written: standard error took none",
                self.prefix(Level::Warn)
            );
        }
        if self.is_journal {
            // A line that can't be written is nobody's fault here.
            let _ = writeln!(stderr(), "{}{}", self.prefix(record.level()), record.args());
        } else {
            self.plain.log(record);
        }
    }

    fn flush(&self) {}
}

impl Logger {
    /// The journal's own mark of a line's priority (`sd-daemon(3)`); nothing elsewhere.
    const fn prefix(&self, level: Level) -> &'static str {
        match level {
            _ if !self.is_journal => "",
            Level::Error => "<3>",
            Level::Warn => "<4>",
            Level::Info => "<6>",
            Level::Debug | Level::Trace => "<7>",
        }
    }

    fn keep(&self, record: &Record<'_>) {
        // Never waits: who panics while the console looks at these lines logs that on the same thread.
        if let Ok(mut kept) = self.kept.try_lock() {
            kept.add(self.clock.now(), record.level(), *record.args());
        }
    }
}

/// Whether standard error would take a line at once: a pipe says so where a whole page of it is free.
fn takes_a_line() -> bool {
    let stderr = stderr();
    let mut watched = [PollFd::new(&stderr, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut watched, Some(&now)) {
        Ok(_) => watched.iter().all(|descriptor| descriptor.revents() == PollFlags::OUT),
        Err(_) => false,
    }
}

/// Holds back lines that come too often: equal ones at once, any beyond a burst for their second.
#[derive(Debug, Default)]
pub struct Repeats {
    since: Instant,
    lines: u32,
    held: u32,
    last: Option<(Level, String)>,
    same: Option<Same>,
}

/// The newest line, and how often it came again.
#[derive(Debug)]
struct Same {
    level: Level,
    line: String,
    since: Instant,
    count: u32,
}

/// The name that lines of the machine's events bear.
const TARGET: &str = "sharelinkd";
/// Lines that go out at once within one second.
const BURST: u32 = 20;

impl Repeats {
    /// Logs a line, or holds it back.
    pub fn log(&mut self, level: Level, now: Instant, line: &dyn Display) {
        self.flush(now);
        if !log::log_enabled!(level) {
            return;
        }
        let line = line.to_string();
        if let Some(same) = self.same.as_mut().filter(|same| same.level == level && same.line == line) {
            same.count += 1;
            return;
        }
        self.tell_same();
        if self.lines < BURST {
            self.lines += 1;
            log::log!(target: TARGET, level, "{line}");
            self.same = Some(Same { level, line, since: now, count: 0 });
        } else {
            self.held += 1;
            self.last = Some((level, line));
        }
    }

    /// Tells how many were held back, once their time is over.
    pub fn flush(&mut self, now: Instant) {
        if self.same.as_ref().is_some_and(|same| now.since(same.since) >= SAME_MS) {
            self.tell_same();
        }
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

    fn tell_same(&mut self) {
        if let Some(Same { level, line, count: count @ 1.., .. }) = self.same.take() {
            log::log!(target: TARGET, level, "{line} ({count} times more)");
        }
    }
}
