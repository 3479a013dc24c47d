//! The memory sum as text: a size for people, and a table with fixed columns.
//!
//! Owns the format alone. Refuses nothing. Knows nothing of what the terms mean; `sum.rs` has them.
//! `board/build.rs` includes this file too.

use super::limits::Board;
use super::sum::memory_sum;
use alloc::format;
use alloc::string::String;

/// A size for people: `1.5 MiB`, `640 B`. Rounded down to a tenth.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = bytes.saturating_mul(10) / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// The sum as a table with fixed columns, 78 wide: term, count, bytes of each, bytes, how known.
/// The last lines are the sums and the board's budget.
#[must_use]
pub fn table(board: &Board) -> String {
    use core::fmt::Write as _;
    let sum = memory_sum(board);
    let mut out = format!("{:<26}{:>10}{:>13}{:>15}  {}\n", "memory", "count", "bytes each", "bytes", "known by");
    for term in &sum.terms {
        let _ = writeln!(
            out,
            "{:<26}{:>10}{:>13}{:>15}  {}",
            term.name,
            term.count,
            term.size,
            term.bytes(),
            term.known.name()
        );
    }
    for (name, bytes) in
        [("process", sum.process()), ("kernel", sum.kernel()), ("sum", sum.total()), ("budget", board.memory_budget)]
    {
        let _ = writeln!(out, "{name:<26}{:>38}  {}", bytes, size_text(bytes));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HOST, TERM_COUNT};

    #[test]
    fn sizes_read_well() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1 << 20, "1.0 MiB"),
            (u64::MAX, "1677721.5 TiB"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }

    #[test]
    fn the_table_has_fixed_columns() {
        let text = table(&HOST);
        assert_eq!(text.lines().count(), 1 + TERM_COUNT + 4);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }
}
