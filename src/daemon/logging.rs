//! The log: lines on standard error, and the last of them in a ring for the console.
//!
//! Owns the output: through `simple_logger` with timestamps, or under systemd (`JOURNAL_STREAM`)
//! without them and with the journal's priorities. The relay's one thread writes the lines and
//! never blocks on it: while standard error is full or closed, lines are dropped, counted and
//! reported later. Also owns the rate limit, since a faulty business server could cause thousands
//! of lines a second. Lines that differ only in their numbers are of one kind: the first few are
//! logged at once, then one every 10 s with the count of those held back; an exact repeat is held
//! back from the start. Any other lines beyond a burst are counted and reported once a second.
//! Doesn't decide what is worth a line.

use std::fmt::Display;
use std::io::{Write as _, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use simple_logger::SimpleLogger;

use crate::clock::Clock;
use crate::console::Lines;
use relay::time::Instant;

/// Window of the burst limit, in milliseconds.
const BURST_MS: u64 = 1_000;
/// Interval between two lines of one kind that is held back, in milliseconds.
const KIND_MS: u64 = 10_000;
static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Starts the log; does nothing if one is running.
pub fn init(level: LevelFilter, clock: Clock) {
    let logger = LOGGER.get_or_init(|| Logger {
        // Only our own lines: the libraries' traces contain the bytes of pages, links among them.
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

/// Shows the last lines, and how many were not written because standard error was blocked. Nothing
/// may be logged meanwhile.
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
                "{}{unwritten} lines were not written: standard error was blocked",
                self.prefix(Level::Warn)
            );
        }
        if self.is_journal {
            // There is nowhere to report a failure.
            let _ = writeln!(stderr(), "{}{}", self.prefix(record.level()), record.args());
        } else {
            self.plain.log(record);
        }
    }

    fn flush(&self) {}
}

impl Logger {
    /// The journal's mark of a line's priority (`sd-daemon(3)`); empty elsewhere.
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
        // Never blocks: a panic while the console reads these lines is logged on the same thread.
        if let Ok(mut kept) = self.kept.try_lock() {
            kept.add(self.clock.now(), record.level(), *record.args());
        }
    }
}

/// Whether standard error would take a line without blocking. A pipe is writable while a whole page
/// of it is free.
#[must_use]
pub fn takes_a_line() -> bool {
    let stderr = stderr();
    let mut watched = [PollFd::new(&stderr, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut watched, Some(&now)) {
        Ok(_) => watched.iter().all(|descriptor| descriptor.revents() == PollFlags::OUT),
        Err(_) => false,
    }
}

/// Rate limit for lines: by kind, and over all kinds by burst.
#[derive(Debug, Default)]
pub struct Repeats {
    since: Instant,
    lines: u32,
    held: u32,
    last: Option<(Level, String)>,
    kinds: Vec<Kind>,
}

/// Lines of the last 10 s that differ only in their numbers.
#[derive(Debug)]
struct Kind {
    level: Level,
    /// The newest one.
    line: String,
    since: Instant,
    /// Logged at once.
    logged: u32,
    /// Held back since the last one logged.
    held: u32,
    /// Whether all of those repeat the last one logged.
    is_same: bool,
}

/// Log target of these lines.
const TARGET: &str = "sharelinkd";
/// Lines logged at once within a second, at most.
const BURST: u32 = 20;
/// Lines of one kind logged at once within 10 s; after that, only the newest at the end of each
/// interval.
const FIRST: u32 = 5;
/// Kinds remembered; the oldest is dropped for a new one.
const KINDS_MAX: usize = 16;

impl Repeats {
    /// Logs a line, or holds it back.
    pub fn log(&mut self, level: Level, now: Instant, line: &dyn Display) {
        if !log::log_enabled!(level) {
            return;
        }
        self.submit(level, now, line.to_string(), &mut emit);
    }

    /// Reports held-back lines whose interval is over.
    pub fn flush(&mut self, now: Instant) {
        self.pass(now, &mut emit);
    }

    /// Hands a line to `emit`, or holds it back.
    pub fn submit(&mut self, level: Level, now: Instant, line: String, emit: &mut dyn FnMut(Level, &str)) {
        self.pass(now, emit);
        if let Some(kind) = self.kinds.iter_mut().find(|kind| kind.is_of(level, &line)) {
            let is_same = kind.line == line;
            if is_same || kind.logged >= FIRST {
                kind.is_same &= is_same;
                kind.held = kind.held.saturating_add(1);
                kind.line = line;
                return;
            }
        }
        if self.lines >= BURST {
            self.held += 1;
            self.last = Some((level, line));
            return;
        }
        self.lines += 1;
        let known = self.kinds.iter().position(|kind| kind.is_of(level, &line));
        let mut kind = match known {
            Some(place) => self.kinds.remove(place),
            None => Kind { level, line: String::new(), since: now, logged: 0, held: 0, is_same: true },
        };
        kind.report_held(emit);
        emit(level, &line);
        kind.logged += 1;
        kind.line = line;
        if self.kinds.len() >= KINDS_MAX {
            self.kinds.remove(0).report_held(emit);
        }
        self.kinds.push(kind);
    }

    /// Hands held-back lines whose interval is over to `emit`.
    pub fn pass(&mut self, now: Instant, emit: &mut dyn FnMut(Level, &str)) {
        self.kinds.retain_mut(|kind| {
            if now.since(kind.since) < KIND_MS {
                return true;
            }
            let goes_on = kind.held > 0;
            kind.report_held(emit);
            // While the kind recurs, it gets one line in each interval and none at once.
            (kind.since, kind.logged) = (now, FIRST);
            goes_on
        });
        if now.since(self.since) < BURST_MS {
            return;
        }
        self.since = now;
        self.lines = 0;
        if let Some((level, line)) = self.last.take() {
            // The count comes first: the console may cut the end of a line.
            emit(level, &format!("{} lines before this one were held back: {line}", self.held.saturating_sub(1)));
        }
        self.held = 0;
    }
}

impl Kind {
    fn is_of(&self, level: Level, line: &str) -> bool {
        self.level == level && is_one_kind(&self.line, line)
    }

    fn report_held(&mut self, emit: &mut dyn FnMut(Level, &str)) {
        let held = core::mem::take(&mut self.held);
        match (held, core::mem::replace(&mut self.is_same, true)) {
            (0, _) => {}
            (times, true) => emit(self.level, &format!("repeated {times} times: {}", self.line)),
            (1, false) => emit(self.level, &self.line),
            (held, false) => {
                emit(self.level, &format!("{} like this one were held back: {}", held - 1, self.line));
            }
        }
    }
}

fn emit(level: Level, line: &str) {
    log::log!(target: TARGET, level, "{line}");
}

/// Whether two lines differ only in their numbers.
fn is_one_kind(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    loop {
        match (one, other) {
            ([], []) => return true,
            ([a, ..], [b, ..]) if a.is_ascii_digit() && b.is_ascii_digit() => {
                (one, other) = (behind_number(one), behind_number(other));
            }
            ([a, rest @ ..], [b, others @ ..]) if a == b => (one, other) = (rest, others),
            _ => return false,
        }
    }
}

fn behind_number(text: &[u8]) -> &[u8] {
    let size = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.get(size..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is logged for lines that arrive at these times; then time passes until `end`.
    fn logged(lines: impl IntoIterator<Item = (u64, String)>, end: u64) -> Vec<String> {
        let (mut repeats, mut logged) = (Repeats::default(), Vec::new());
        let mut emit = |_: Level, line: &str| logged.push(line.to_owned());
        let mut at = 0;
        for (when, line) in lines {
            while at < when {
                at += 100;
                repeats.pass(Instant(at), &mut emit);
            }
            repeats.submit(Level::Warn, Instant(at), line, &mut emit);
        }
        while at < end {
            at += 100;
            repeats.pass(Instant(at), &mut emit);
        }
        logged
    }

    #[test]
    fn lines_that_differ_in_their_numbers_alone_are_one_kind() {
        assert!(is_one_kind("publication 9 of topic 7", "publication 10 of topic 7"));
        assert!(is_one_kind("3.2 s", "0.25 s") && is_one_kind("", ""));
        assert!(!is_one_kind("publication 9", "publication ") && !is_one_kind("a 1", "a x"));
        assert!(!is_one_kind("topic 7 ended", "topic 7 began") && !is_one_kind("1", "1a"));
    }

    #[test]
    fn a_flood_of_one_kind_is_told_five_times_at_once_and_then_once_in_ten_seconds() {
        let flood = (0..600).map(|n| (n * 50, format!("publication {n} was dropped")));
        let logged = logged(flood, 60_000);
        assert_eq!(logged[..5], [0, 1, 2, 3, 4].map(|n| format!("publication {n} was dropped")));
        assert!(
            logged[5].starts_with("19") && logged[5].contains(" like this one were held back: publication "),
            "{}",
            logged[5]
        );
        assert_eq!(logged[8..], ["publication 599 was dropped"], "{logged:#?}");
        // The count is complete: five logged at once, four logged later, and those held back before
        // them.
        let counted: u64 =
            logged[5..8].iter().map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap()).sum();
        assert_eq!(5 + 4 + counted, 600);
    }

    #[test]
    fn one_line_again_and_again_is_told_once_and_then_counted() {
        let logged = logged((0..30).map(|n| (n * 1_000, "the same".to_owned())), 60_000);
        assert_eq!(
            logged,
            ["the same", "repeated 9 times: the same", "repeated 10 times: the same", "repeated 10 times: the same"]
        );
    }

    #[test]
    fn what_is_rare_or_different_is_told_at_once_whatever_else_floods() {
        let mut lines: Vec<_> = (0..400).map(|n| (n * 25, format!("publication {n} was dropped"))).collect();
        lines.push((10_000, "the business server at 10.0.0.9:7400: it closed the connection".to_owned()));
        lines.sort_by_key(|(at, _)| *at);
        let logged = logged(lines, 9_900);
        assert!(logged.iter().any(|line| line.ends_with("it closed the connection")), "{logged:#?}");
        // A minute later the kind is forgotten.
        let logged = self::logged([(0, "topic 1 ended".to_owned()), (60_000, "topic 2 ended".to_owned())], 60_000);
        assert_eq!(logged.len(), 2);
    }

    #[test]
    fn beyond_a_burst_of_different_lines_the_rest_of_the_second_is_counted() {
        let words: Vec<String> = (0..60).map(|n| "x".repeat(n + 1)).collect();
        let logged = logged(words.into_iter().map(|line| (0, line)), 2_000);
        assert_eq!(logged.len(), 21, "{logged:#?}");
        assert!(logged[20].starts_with("39 lines before this one were held back: x"), "{}", logged[20]);
    }
}
