//! The last lines of the log, each with its time and its number of repeats.
//!
//! A ring of [`LINES_MAX`] lines of at most [`LINE_SIZE_MAX`] bytes, counted in the memory sum. A
//! line that repeats the one before it, apart from its numbers, replaces it and is counted: a
//! business server that is away for a night leaves one line, not a ring full. Lines are numbered
//! from 1, so that a reader knows which are new to it. Writes nothing and reads no clock.

use std::collections::VecDeque;
use std::fmt;

use log::Level;

use relay::time::Instant;

/// Lines kept.
pub const LINES_MAX: usize = 64;
/// Bytes kept of each line.
pub const LINE_SIZE_MAX: usize = 240;

/// A line with its repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number, counted from 1; of repeats, the newest one's.
    pub number: u64,
    /// When it came last.
    pub at: Instant,
    /// Its level.
    pub level: Level,
    /// How often it came in a row, ignoring numbers.
    pub count: u64,
    /// Its text.
    pub text: String,
}

/// The ring.
#[derive(Debug, Default)]
pub struct Lines {
    ring: VecDeque<Line>,
    number: u64,
}

impl Lines {
    /// Adds a line.
    pub fn add(&mut self, now: Instant, level: Level, line: fmt::Arguments<'_>) {
        let mut text = line.to_string();
        text.truncate(text.floor_char_boundary(LINE_SIZE_MAX));
        text.shrink_to(LINE_SIZE_MAX);
        self.number += 1;
        let number = self.number;
        match self.ring.back_mut().filter(|last| last.level == level && is_like(&last.text, &text)) {
            Some(last) => *last = Line { number, at: now, level, count: last.count + 1, text },
            None => {
                if self.ring.len() >= LINES_MAX {
                    self.ring.pop_front();
                }
                self.ring.push_back(Line { number, at: now, level, count: 1, text });
            }
        }
    }

    /// The lines, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Line> {
        self.ring.iter()
    }

    /// The number of the newest line; 0 if there is none.
    #[must_use]
    pub const fn newest(&self) -> u64 {
        self.number
    }

    /// The oldest line with a higher number.
    #[must_use]
    pub fn after(&self, number: u64) -> Option<&Line> {
        self.ring.iter().find(|line| line.number > number)
    }
}

/// Whether two lines differ only in their numbers.
fn is_like(one: &str, other: &str) -> bool {
    let words =
        |text| str::split(text, |letter: char| matches!(letter, '0'..='9' | '.')).filter(|word| !word.is_empty());
    words(one).eq(words(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &Lines) -> Vec<(u64, u64, &str)> {
        lines.iter().map(|line| (line.number, line.count, line.text.as_str())).collect()
    }

    /// A number written in letters, so that lines with different ones are not alike.
    fn letters(number: usize) -> String {
        ["i".repeat(number / 16), "j".repeat(number % 16)].concat()
    }

    #[test]
    fn repeats_are_counted_and_the_oldest_go() {
        let mut lines = Lines::default();
        for at in 0..3 {
            lines.add(Instant(at), Level::Warn, format_args!("a"));
        }
        lines.add(Instant(3), Level::Info, format_args!("a"));
        assert_eq!(texts(&lines), [(3, 3, "a"), (4, 1, "a")]);
        assert_eq!(lines.iter().next().map(|line| line.at), Some(Instant(2)));
        for number in 0..LINES_MAX {
            lines.add(Instant(4), Level::Info, format_args!("{}", letters(number)));
        }
        assert_eq!(lines.iter().count(), LINES_MAX);
        assert_eq!(lines.after(4).map(|line| line.text.as_str()), Some(""));
        assert_eq!(lines.newest(), 4 + LINES_MAX as u64);
        assert_eq!(lines.after(lines.newest()), None);
    }

    #[test]
    fn what_differs_in_its_numbers_alone_is_a_repeat_and_the_newest_is_kept() {
        let mut lines = Lines::default();
        for (port, wait) in [(7400, "0.1"), (7401, "12.5"), (7400, "30")] {
            lines.add(Instant(0), Level::Warn, format_args!("10.0.0.9:{port} is away; next try in {wait} s"));
        }
        lines.add(Instant(0), Level::Warn, format_args!("10.0.0.9:7400 is back"));
        assert_eq!(texts(&lines), [(3, 3, "10.0.0.9:7400 is away; next try in 30 s"), (4, 1, "10.0.0.9:7400 is back")]);
    }

    #[test]
    fn a_line_keeps_its_beginning_and_no_more_memory() {
        let mut lines = Lines::default();
        for number in 0..3 * LINES_MAX {
            lines.add(Instant(0), Level::Info, format_args!("{}{}", letters(number), "é".repeat(4_000)));
        }
        assert!(lines.iter().all(|line| line.text.len() <= LINE_SIZE_MAX && line.text.capacity() <= 2 * LINE_SIZE_MAX));
    }
}
