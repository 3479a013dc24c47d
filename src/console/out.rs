//! The output buffer: bounded, of whole lines, each cut to the screen's columns.

use super::text::{COLUMNS, plain, wrapped};

/// Bytes of output that wait for the line, at most: about 100 lines.
pub const OUT_SIZE_MAX: usize = 8 * 1024;
/// Low-water mark: a list continues, and a command runs, only while less than this waits. Above it
/// there is room for the longest answer that is not a list; below it the line is never idle.
pub const LOW_SIZE: usize = OUT_SIZE_MAX / 2;

/// The buffer.
#[derive(Debug)]
pub struct Out {
    bytes: Vec<u8>,
    written: usize,
    dropped: u64,
    /// Line ending: a terminal needs the CR.
    pub ends: &'static str,
}

impl Out {
    /// An empty buffer, fully allocated.
    pub fn new() -> Self {
        Self { bytes: Vec::with_capacity(OUT_SIZE_MAX), written: 0, dropped: 0, ends: "\r\n" }
    }

    /// Output to write.
    pub fn waiting(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// Reports that `size` bytes of it were written.
    pub fn wrote(&mut self, size: usize) {
        self.written = (self.written + size).min(self.bytes.len());
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
        }
    }

    /// Whether a list may continue, or a command may run.
    pub fn has_room(&self) -> bool {
        self.waiting().len() < LOW_SIZE
    }

    /// Adds lines, each cut to the screen's columns. Trailing blanks are removed, since they would
    /// cost a slow line time.
    pub fn say(&mut self, text: &str) {
        for line in text.split_inclusive('\n') {
            let (line, ends) = line.strip_suffix('\n').map_or((line, false), |line| (line, true));
            let line = line.get(..line.floor_char_boundary(COLUMNS)).unwrap_or_default();
            let line = if ends { line.trim_end_matches(' ') } else { line };
            self.put(line.as_bytes());
            if ends {
                self.put(self.ends.as_bytes());
            }
        }
    }

    /// Adds lines, wrapped rather than cut, as far as they and a prompt fit; then says how many
    /// more there are.
    pub fn say_whole(&mut self, text: &str) {
        const INDENT: &str = "  ";
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let line = plain(&line);
            let rows = || wrapped(&line, COLUMNS - INDENT.len());
            let size = line.len() + rows().count() * (INDENT.len() + self.ends.len());
            if self.waiting().len() + size + 2 * COLUMNS > OUT_SIZE_MAX {
                return self.say(&format!("[E6] {} more lines: see the log\n", 1 + lines.count()));
            }
            for (at, row) in rows().enumerate() {
                self.say(if at == 0 { "" } else { INDENT });
                self.say(row);
                self.say("\n");
            }
        }
    }

    /// Adds unrequested output that stands for `lines` lines, or counts them as dropped if the
    /// buffer is full.
    pub fn offer(&mut self, rows: &str, lines: u64) {
        if self.waiting().len() + rows.len() + 2 * COLUMNS > OUT_SIZE_MAX {
            return self.missed(lines);
        }
        self.report_dropped();
        self.say(rows);
    }

    /// Counts unrequested lines that were lost.
    pub fn missed(&mut self, lines: u64) {
        self.dropped = self.dropped.saturating_add(lines);
    }

    /// Reports the lines dropped since the last report.
    pub fn report_dropped(&mut self) {
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            self.say(&format!("[E6] {dropped} lines were dropped: this line was too slow\n"));
        }
    }

    /// Adds bytes unchanged, as far as they fit.
    pub fn put(&mut self, bytes: &[u8]) {
        if self.written > 0 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        let room = OUT_SIZE_MAX.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(bytes.get(..bytes.len().min(room)).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_by_itself_is_dropped_with_a_count_where_the_line_is_stuck() {
        let mut out = Out::new();
        for _ in 0..1_000 {
            out.offer("a line of some thirty bytes....\n", 1);
        }
        assert!(out.waiting().len() <= OUT_SIZE_MAX && out.bytes.capacity() == OUT_SIZE_MAX);
        let kept = out.waiting().split(|byte| *byte == b'\n').count() - 1;
        out.wrote(OUT_SIZE_MAX);
        out.offer("again\n", 1);
        let text = String::from_utf8_lossy(out.waiting()).into_owned();
        assert_eq!(text, format!("[E6] {} lines were dropped: this line was too slow\r\nagain\r\n", 1_000 - kept));
    }

    #[test]
    fn a_long_line_that_must_be_whole_goes_on_in_the_next_row() {
        let mut out = Out::new();
        let words = (0..40).map(|at| format!("word{at}")).collect::<Vec<_>>().join(" ");
        out.say_whole(&format!("{words}\n門\nend\n"));
        let text = String::from_utf8(out.waiting().to_vec()).unwrap();
        assert!(text.lines().all(|row| row.len() <= COLUMNS) && text.ends_with("\r\n?\r\nend\r\n"), "{text}");
        let joined = text.lines().take_while(|row| *row != "?").map(str::trim).collect::<Vec<_>>().join(" ");
        assert_eq!(joined, words);
    }

    #[test]
    fn nothing_is_wider_than_a_screen_nor_more_than_the_buffer() {
        let mut out = Out::new();
        out.say(&format!("{}\n", "門".repeat(100)));
        assert!(out.waiting().len() <= COLUMNS + 2);
        out.say(&"x\n".repeat(OUT_SIZE_MAX));
        assert_eq!(out.waiting().len(), OUT_SIZE_MAX);
        out.wrote(10);
        out.put(b"0123456789abcdef");
        assert!(out.waiting().ends_with(b"0123456789") && out.bytes.capacity() == OUT_SIZE_MAX);
    }
}
