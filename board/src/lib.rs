//! The board: every limit of the box that the relay is built for.
//!
//! `board/*.toml` are the sources. `board/build.rs` turns each of them into a constant of type
//! [`Board`], so that tests can run the machine on any board, and selects one, [`SELECTED`], by the
//! environment variable `SHARELINKD_BOARD` at build time (default: `host`). The build fails if the
//! memory sum of a board exceeds its budget.
//!
//! A board is data: this file knows no sockets, no clock and no configuration file. A configuration
//! can lower a board's limits, but never raise them (see `config.rs`).

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod drop_in;
mod limits;
mod rules;
mod sum;
mod table;

// Part of `board/build.rs`; here only for its tests.
#[cfg(test)]
mod source;

pub use drop_in::{DESCRIPTORS_EXTRA, descriptors, drop_in};
pub use limits::{Board, OFF, SPEEDS, TrackLimits};
pub use rules::{ENVELOPE_SIZE_MAX, INIT_ENVELOPE_SIZE_MAX, Rule, broken, rules};
pub use sum::*;
pub use table::{size_text, table};

// `pub const HOST: Board` and so on, one for each board; `ALL`, `SELECTED` and `TARGET`.
include!(concat!(env!("OUT_DIR"), "/boards.rs"));

/// Whether this is a 32-bit ARM processor, the one that can't afford handshakes with RSA.
pub const IS_ARM32: bool = cfg!(target_arch = "arm");

// Checks every board, not only the selected one. `rules.rs` explains each rule.
const _: () = {
    let mut index = 0;
    while index < ALL.len() {
        if let Some(text) = broken(ALL[index]) {
            panic!("{}", text);
        }
        index += 1;
    }
};

/// The board with this name, if the binary knows it.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Board> {
    ALL.iter().find(|board| board.name == name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boards_are_known_by_the_stem_of_their_file() {
        assert_eq!(by_name("tiny"), Some(&TINY));
        assert_eq!(by_name("host"), Some(&HOST));
        assert_eq!(by_name("Host"), None);
        assert!(ALL.contains(&SELECTED));
        assert!(TARGET.contains("linux"));
    }

    #[test]
    fn the_build_prints_the_memory_sum() {
        // Cargo keeps a build script's output next to its OUT_DIR, and shows lines of this kind.
        let path = std::path::Path::new(env!("OUT_DIR")).with_file_name("output");
        let output = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let sum = memory_sum(SELECTED);
        let [total, process, kernel, budget] =
            [sum.total(), sum.process(), sum.kernel(), SELECTED.memory_budget].map(size_text);
        let expected = format!(
            "cargo::warning=note: board {}: memory sum {total} (process {process}, kernel {kernel}) of a budget of {budget}",
            SELECTED.name
        );
        assert!(output.lines().any(|line| line == expected), "no {expected:?} in {output:?}");
    }

    #[test]
    fn the_host_board_has_the_limits_of_the_contract() {
        assert_eq!((HOST.pages_max, HOST.topics_per_page_max, HOST.sends_burst), (10_000, 8, 5));
        assert_eq!((HOST.head_ms_max, HOST.first_subscribe_ms_max, HOST.ping_ms), (5_000, 10_000, 25_000));
        assert_eq!((HOST.alive_ms, HOST.dead_ms), (15_000, 60_000));
        assert_eq!(HOST.video.data_size_max as usize, 1 << 20);
        // 1.2 Mbit/s over 300 ms are 45 000 bytes in flight.
        const { assert!(HOST.send_buffer_size >= 45_000) };
    }

    #[test]
    fn the_host_video_ring_is_seconds_of_video_beyond_its_largest_chunk() {
        let ring = u64::from(HOST.video.blocks_max) * u64::from(HOST.block_size);
        let spare = ring - u64::from(HOST.video.data_size_max + ENVELOPE_SIZE_MAX);
        assert!(spare / (1_200_000 / 8) >= 8, "{spare} bytes");
    }

    #[test]
    fn the_table_of_boards_is_correct() {
        let text = include_str!("../README.md");
        for board in ALL {
            let row = format!(
                "| {} | {} | {} | {} | {} | {} | {} | ",
                board.name,
                board.target,
                board.pages_max,
                board.topics_max,
                size_text(u64::from(board.blocks_max) * u64::from(board.block_size)),
                size_text(memory_sum(board).total()),
                size_text(board.memory_budget)
            );
            assert!(text.lines().any(|line| line.starts_with(&row)), "board/README.md lacks: {row}");
        }
    }
}
