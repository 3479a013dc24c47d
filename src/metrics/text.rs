//! Prometheus's text format: families with their help and type, rows with their labels.
//!
//! Owns the syntax: one `HELP` and one `TYPE` line before the rows of a family, escaped label
//! values, times in seconds. Knows no individual metric.

use core::fmt::{self, Display, Write as _};

use super::Track;

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, their sum and their count.
    Histogram,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A time in milliseconds, printed in seconds.
pub struct Seconds(pub u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0 / 1000)?;
        match self.0 % 1000 {
            0 => Ok(()),
            ms => f.write_str(format!(".{ms:03}").trim_end_matches('0')),
        }
    }
}

/// A text under construction.
pub struct Text {
    out: String,
    family: &'static str,
}

impl Text {
    /// An empty text with room for this many bytes, allocated at once.
    #[must_use]
    pub fn with_capacity(size: usize) -> Self {
        Self { out: String::with_capacity(size), family: "" }
    }

    /// Begins a family.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.family = name;
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
    }

    /// Adds a row to the current family.
    pub fn row(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.part("", labels, value);
    }

    /// Adds a row whose name is that of the current family with a suffix.
    pub fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.out, "{}{suffix}", self.family);
        for (at, (name, value)) in labels.iter().enumerate() {
            let before = if at == 0 { "{" } else { "," };
            let _ = write!(self.out, "{before}{name}=\"{}\"", Escaped(value));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.out, "{close} {value}");
    }

    /// Adds a family of one counter.
    pub fn counter(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, Kind::Counter, help);
        self.row(&[], value);
    }

    /// Adds a family of one gauge.
    pub fn gauge(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, help);
        self.row(&[], value);
    }

    /// Adds a family whose rows differ in one label.
    pub fn labelled<'a>(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &str,
        label: &str,
        rows: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.family(name, kind, help);
        for (of, value) in rows {
            self.row(&[(label, of)], value);
        }
    }

    /// Adds a family of counters, one for each track.
    pub fn by_track(&mut self, name: &'static str, help: &str, values: [u64; 4]) {
        let tracks = [Track::State, Track::Messages, Track::Audio, Track::Video];
        self.labelled(name, Kind::Counter, help, "track", tracks.map(|track| (track.name(), values[track.index()])));
    }

    /// The completed text.
    pub fn finish(self) -> String {
        self.out
    }
}

/// A label's value, escaped.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' | '"' => write!(f, "\\{character}")?,
                '\n' => f.write_str("\\n")?,
                character => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_and_labels_are_escaped() {
        for (ms, text) in [(0, "0"), (1, "0.001"), (20, "0.02"), (1_000, "1"), (12_340, "12.34"), (5_005, "5.005")] {
            assert_eq!(Seconds(ms).to_string(), text);
        }
        let mut text = Text::with_capacity(64);
        text.family("a", Kind::Gauge, "What it is.");
        text.row(&[("b", "c\"d\\e\nf"), ("g", "h")], 3);
        assert_eq!(text.finish(), "# HELP a What it is.\n# TYPE a gauge\na{b=\"c\\\"d\\\\e\\nf\",g=\"h\"} 3\n");
    }
}
