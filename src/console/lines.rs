//! The last lines of the log, each with its age and how often it came in a row.
//!
//! A ring of [`LINES_MAX`] lines of at most [`LINE_SIZE_MAX`] bytes: they are in the memory sum. A line that comes again at
//! once is counted, not kept twice. Lines are numbered from 1 in the order in which they came first, so that a
//! reader can tell what is new to it. It writes nothing and reads no clock.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};

use log::Level;

use crate::relay::time::Instant;

/// So many lines are kept.
pub const LINES_MAX: usize = 64;
/// So many bytes of each.
pub const LINE_SIZE_MAX: usize = 240;

/// A line, and how often it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1.
    pub number: u64,
    /// When it came last.
    pub at: Instant,
    /// How bad it is.
    pub level: Level,
    /// How often it came in a row.
    pub count: u32,
    /// What it says.
    pub text: String,
}

/// The ring.
#[derive(Debug, Default)]
pub struct Lines {
    ring: VecDeque<Line>,
    number: u64,
}

impl Lines {
    /// Keeps a line.
    pub fn add(&mut self, now: Instant, level: Level, line: fmt::Arguments<'_>) {
        // The oldest line's room is the newest one's.
        let spare = if self.ring.len() >= LINES_MAX { self.ring.pop_front() } else { None };
        let mut text = spare.map(|line| line.text).unwrap_or_default();
        text.clear();
        let _ = write!(text, "{line}");
        text.truncate(text.floor_char_boundary(LINE_SIZE_MAX));
        text.shrink_to(LINE_SIZE_MAX);
        if let Some(last) = self.ring.back_mut().filter(|last| last.level == level && last.text == text) {
            last.count = last.count.saturating_add(1);
            last.at = now;
            return;
        }
        self.number += 1;
        self.ring.push_back(Line { number: self.number, at: now, level, count: 1, text });
    }

    /// The lines, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Line> {
        self.ring.iter()
    }

    /// The number of the newest line; 0 where there is none.
    #[must_use]
    pub const fn newest(&self) -> u64 {
        self.number
    }

    /// The oldest line above a number.
    #[must_use]
    pub fn after(&self, number: u64) -> Option<&Line> {
        self.ring.iter().find(|line| line.number > number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &Lines) -> Vec<(u64, u32, &str)> {
        lines.iter().map(|line| (line.number, line.count, line.text.as_str())).collect()
    }

    #[test]
    fn repeats_are_counted_and_the_oldest_go() {
        let mut lines = Lines::default();
        for at in 0..3 {
            lines.add(Instant(at), Level::Warn, format_args!("a"));
        }
        lines.add(Instant(3), Level::Info, format_args!("a"));
        assert_eq!(texts(&lines), [(1, 3, "a"), (2, 1, "a")]);
        assert_eq!(lines.iter().next().map(|line| line.at), Some(Instant(2)));
        for number in 0..LINES_MAX {
            lines.add(Instant(4), Level::Info, format_args!("{number}"));
        }
        assert_eq!(lines.iter().count(), LINES_MAX);
        assert_eq!(lines.after(2).map(|line| line.text.as_str()), Some("0"));
        assert_eq!(lines.newest(), 2 + LINES_MAX as u64);
        assert_eq!(lines.after(lines.newest()), None);
    }

    #[test]
    fn a_line_keeps_its_beginning_and_no_more_memory() {
        let mut lines = Lines::default();
        for number in 0..3 * LINES_MAX {
            lines.add(Instant(0), Level::Info, format_args!("{number}{}", "é".repeat(4_000)));
        }
        assert!(lines.iter().all(|line| line.text.len() <= LINE_SIZE_MAX && line.text.capacity() <= 2 * LINE_SIZE_MAX));
    }
}
