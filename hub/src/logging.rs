//! The log: lines on standard error, as text or as JSON.
//!
//! Owns the format and the rate limit, which is the relay's: of lines that differ only in their
//! numbers a few are written at once, then one in 10 s. Under systemd text has the journal's
//! priorities in place of times. Never blocks: while standard error takes no line, lines are
//! dropped and counted. Doesn't decide what is worth a line.

use std::{
    io::{Write as _, stderr},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use log::{Level, LevelFilter, Log, Metadata, Record};
use relay::time::Instant;
use serde_json::Value;
use sharelinkd::{
    daemon::logging::{Repeats, takes_a_line},
    date::timestamp_text,
};

use crate::{
    config::{self, Format},
    shared::moment_us,
};

static LOGGER: OnceLock<Logger> = OnceLock::new();
/// Lines of this crate alone: a library's may hold what was sent.
const TARGET: &str = env!("CARGO_CRATE_NAME");
/// What an operator has asked for is written as a whole.
const UNLIMITED: [&str; 2] = [concat!(env!("CARGO_CRATE_NAME"), "::run"), concat!(env!("CARGO_CRATE_NAME"), "::dev")];

struct Logger {
    is_json: AtomicBool,
    is_journal: bool,
    repeats: Mutex<Repeats>,
    unwritten: AtomicU64,
}

/// Starts the log, or changes how it is.
pub fn set(log: config::Log) {
    let logger = LOGGER.get_or_init(|| Logger {
        is_json: AtomicBool::new(false),
        is_journal: std::env::var_os("JOURNAL_STREAM").is_some(),
        repeats: Mutex::default(),
        unwritten: AtomicU64::new(0),
    });
    logger.is_json.store(log.format == Format::Json, Ordering::Relaxed);
    // A second time there is one already: this.
    let _ = log::set_logger(logger);
    log::set_max_level(log.level);
}

/// Writes lines that were held back once their time is over, for ever.
pub async fn keep_on() {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if let Some(logger) = LOGGER.get() {
            logger.repeats().pass(now(), &mut |level, line| logger.write(level, TARGET, line));
        }
    }
}

/// Milliseconds of the wall clock: it only spaces lines.
fn now() -> Instant {
    Instant(moment_us() / 1000)
}

impl Logger {
    fn repeats(&self) -> MutexGuard<'_, Repeats> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, level: Level, target: &str, line: &str) {
        if !takes_a_line() {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let unwritten = self.unwritten.swap(0, Ordering::Relaxed);
        let is_json = self.is_json.load(Ordering::Relaxed);
        let mut text = String::new();
        if unwritten > 0 {
            let lost = format!("{unwritten} lines were not written: standard error was blocked");
            text = shown(moment_us(), is_json, self.is_journal, Level::Warn, TARGET, &lost);
        }
        text += &shown(moment_us(), is_json, self.is_journal, level, target, line);
        // There is nowhere to report a failure.
        let _ = stderr().write_all(text.as_bytes());
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        target.strip_prefix(TARGET).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            && metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) || log::max_level() == LevelFilter::Off {
            return;
        }
        let (level, target, line) = (record.level(), record.target(), record.args().to_string());
        if UNLIMITED.iter().any(|module| target.starts_with(module)) {
            return self.write(level, target, &line);
        }
        self.repeats().submit(level, now(), line, &mut |level, line| self.write(level, target, line));
    }

    fn flush(&self) {}
}

/// A line as it is written.
fn shown(unix_us: u64, is_json: bool, is_journal: bool, level: Level, target: &str, line: &str) -> String {
    let module = target.rsplit("::").next().unwrap_or(target);
    if is_json {
        let (time, level, line) = (timestamp_text(unix_us), level.as_str().to_ascii_lowercase(), Value::from(line));
        return format!("{{\"time\":\"{time}\",\"level\":\"{level}\",\"module\":\"{module}\",\"message\":{line}}}\n");
    }
    // A line stays one line, whatever a peer has called itself.
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if is_journal {
        let priority = match level {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug | Level::Trace => 7,
        };
        return format!("<{priority}>{line}\n");
    }
    format!("{} {level:<5} [{module}] {line}\n", timestamp_text(unix_us))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_is_one_line_in_either_format() {
        let at = 1_764_375_648_123_456;
        assert_eq!(
            shown(at, false, false, Level::Warn, "sharelink_hub::relays", "a\nb"),
            "2025-11-29T00:20:48.123Z WARN  [relays] a b\n"
        );
        assert_eq!(shown(at, false, true, Level::Error, "sharelink_hub", "a"), "<3>a\n");
        let line = shown(at, true, true, Level::Info, "sharelink_hub::run::reload", "\"a\"\n");
        let value: Value = serde_json::from_str(line.strip_suffix('\n').unwrap()).unwrap();
        assert_eq!(
            value,
            json!({ "time": "2025-11-29T00:20:48.123Z", "level": "info", "module": "reload", "message": "\"a\"\n" })
        );
    }
}
