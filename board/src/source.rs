//! Parses a board file into a [`Board`], or returns all its errors.
//!
//! Owns the keys of `board/*.toml` (section and key; a key is named like its field) and the range
//! of each field. Refuses unknown and missing keys, wrong types and values out of range, all at
//! once, each with its line and a remedy; also checks the rules of `rules.rs`. Compiled into
//! `board/build.rs` and, for its tests, into the crate. Reads no files and knows no paths.

use super::limits::{Board, OFF, SPEEDS, TrackLimits};
use super::rules::rules;
use super::sum::memory_sum;
use super::table::size_text;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use document::{Document, Problem};

const KIB: u32 = 1024;
const MIB: u32 = 1024 * 1024;
/// The protocol's maximum for a publication.
const DATA_SIZE_MAX: u32 = MIB;
const HOUR_MS: u32 = 3_600_000;

/// Parses a board. `name` is the stem of its file.
///
/// # Errors
/// All errors, in the order of lines.
pub fn board(name: &'static str, text: &str) -> Result<Board, Vec<Problem>> {
    let mut source = Source { document: Document::parse(text) };
    let board = Board {
        name,
        target: source.target(),
        memory_budget: source.wide("", "memory_budget", u64::from(MIB), 1 << 40),
        demo: source.demo(),
        pages_max: source.number("tables", "pages_max", 1, 1_000_000),
        topics_max: source.number("tables", "topics_max", 1, 65_535),
        topics_per_page_max: source.number("tables", "topics_per_page_max", 1, 255),
        subscriptions_max: source.number("tables", "subscriptions_max", 1, 8_000_000),
        links_max: source.number("tables", "links_max", 1, 65_535),
        requests_max: source.number("tables", "requests_max", 1, 65_535),
        denials_max: source.number("tables", "denials_max", 1, 65_535),
        reasons_max: source.number("tables", "reasons_max", 1, 65_535),
        heads_max: source.number("tables", "heads_max", 1, 65_535),
        addresses_max: source.number("tables", "addresses_max", 1, 1_000_000),
        half_records_max: source.number("tables", "half_records_max", 4, 1_000_000),
        block_size: source.number("arena", "block_size", 64, MIB),
        blocks_max: source.number("arena", "blocks_max", 1, 16 * MIB),
        kept_blocks_max: source.number("arena", "kept_blocks_max", 1, MIB),
        state: source.track("track.state"),
        messages: source.track("track.messages"),
        audio: source.track("track.audio"),
        video: source.track("track.video"),
        init: source.track("track.init"),
        // Linux's minimum for each buffer, halved because it doubles the requested size.
        send_buffer_size: source.number("kernel", "send_buffer_size", 2304, 16 * MIB),
        receive_buffer_size: source.number("kernel", "receive_buffer_size", 1152, 16 * MIB),
        notsent_size_max: source.number("kernel", "notsent_size_max", 1, 16 * MIB),
        backlog_max: source.number("kernel", "backlog_max", 1, 65_535),
        user_timeout_ms: source.number("kernel", "user_timeout_ms", 1, HOUR_MS),
        kernel_size_max: source.wide("kernel", "kernel_size_max", u64::from(KIB), 1 << 40),
        head_ms_max: source.number("time", "head_ms_max", 1, HOUR_MS),
        first_subscribe_ms_max: source.number("time", "first_subscribe_ms_max", 1, HOUR_MS),
        unsubscribed_ms_max: source.number("time", "unsubscribed_ms_max", 1, HOUR_MS),
        ping_ms: source.number("time", "ping_ms", 1, HOUR_MS),
        alive_ms: source.number("time", "alive_ms", 1, HOUR_MS),
        dead_ms: source.number("time", "dead_ms", 1, HOUR_MS),
        stalled_ms_max: source.number("time", "stalled_ms_max", 1, HOUR_MS),
        media_lag_ms_max: source.number("time", "media_lag_ms_max", 1, HOUR_MS),
        close_ms_max: source.number("time", "close_ms_max", 1, HOUR_MS),
        page_asks_burst: source.number("page", "page_asks_burst", 1, 65_535),
        address_asks_burst: source.number("page", "address_asks_burst", 1, 1_000_000),
        address_asks_per_s: source.number("page", "address_asks_per_s", 1, 1_000_000),
        sends_burst: source.number("page", "sends_burst", 1, 65_535),
        uplink_out_size: source.number("uplink", "uplink_out_size", 1, 16 * MIB),
        serial_device: source.serial_device(),
        serial_speed: source.serial_speed(),
    };
    if source.document.problem_count() == 0 {
        for rule in rules(&board).iter().filter(|rule| !rule.holds) {
            let sum = if rule.text.contains("memory sum") { format!(" ({})", sum_text(&board)) } else { String::new() };
            source.document.refuse(1, format!("the limits contradict each other{sum}"), rule.text);
        }
    }
    let problems = source.document.finish();
    if problems.is_empty() { Ok(board) } else { Err(problems) }
}

/// The memory sum and the budget in one line.
#[must_use]
pub fn sum_text(board: &Board) -> String {
    let sum = memory_sum(board);
    format!(
        "memory sum {} (process {}, kernel {}) of a budget of {}",
        size_text(sum.total()),
        size_text(sum.process()),
        size_text(sum.kernel()),
        size_text(board.memory_budget)
    )
}

/// A document in which every key is required. A key that can't be read becomes its minimum, so that
/// parsing goes on: the error is recorded, and no board is returned.
struct Source<'i> {
    document: Document<'i>,
}

impl Source<'_> {
    fn track(&mut self, section: &'static str) -> TrackLimits {
        TrackLimits {
            data_size_max: self.number(section, "data_size_max", 1, DATA_SIZE_MAX),
            blocks_max: self.number(section, "blocks_max", 1, MIB),
            frames_max: self.number(section, "frames_max", 2, 65_535),
        }
    }

    fn number(&mut self, section: &'static str, key: &'static str, least: u32, most: u32) -> u32 {
        u32::try_from(self.wide(section, key, u64::from(least), u64::from(most))).unwrap_or(least)
    }

    fn wide(&mut self, section: &'static str, key: &'static str, least: u64, most: u64) -> u64 {
        let there = self.is_there(section, key);
        match self.document.number(section, key, least, most) {
            Some(number) => number.value,
            None => {
                if !there {
                    let place = if section.is_empty() {
                        "at the top of the file".to_owned()
                    } else {
                        format!("below [{section}]")
                    };
                    self.document.missing(section, key, format!("add `{key} = N` {place}, N from {least} to {most}"));
                }
                least
            }
        }
    }

    fn demo(&mut self) -> bool {
        if !self.is_there("", "demo") {
            let remedy = "add `demo = true`, or false for a binary smaller by 300 KB, at the top of the file";
            self.document.missing("", "demo", remedy.to_owned());
        }
        self.document.flag("", "demo").is_some_and(|flag| flag.value)
    }

    fn serial_device(&mut self) -> &'static str {
        if !self.is_there("serial", "device") {
            let remedy = "add `device = \"/dev/ttyS0\"`, the box's console tty, or \"off\", below [serial]";
            self.document.missing("serial", "device", remedy.to_owned());
        }
        let Some(device) = self.document.text("serial", "device") else { return OFF };
        if device.value != OFF && !device.value.starts_with("/dev/") {
            let what = format!("[serial] device = {:?} is not a device", device.value);
            self.document.refuse(device.line, what, "write the box's console tty, such as \"/dev/ttyS0\", or \"off\"");
        }
        String::leak(device.value)
    }

    fn serial_speed(&mut self) -> u32 {
        let before = self.document.problem_count();
        let speed = self.number("serial", "speed", 1_200, 4_000_000);
        if self.document.problem_count() == before && !SPEEDS.contains(&speed) {
            let line = self.document.section_line("serial").unwrap_or(1);
            let what = format!("[serial] speed = {speed} is not a speed of a serial line");
            self.document.refuse(line, what, "choose 115200, or the speed of the other end");
        }
        speed
    }

    fn target(&mut self) -> &'static str {
        if !self.is_there("", "target") {
            let remedy = "add `target = \"x86_64-unknown-linux-gnu\"`, or another of `rustc --print target-list`, at the top of the file";
            self.document.missing("", "target", remedy.to_owned());
        }
        let Some(target) = self.document.text("", "target") else { return "" };
        let is_triple = target.value.split('-').count() >= 3
            && target.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if !is_triple {
            self.document.refuse(
                target.line,
                format!("target = {:?} is not a target triple", target.value),
                "choose one of `rustc --print target-list`",
            );
        }
        String::leak(target.value)
    }

    fn is_there(&self, section: &str, key: &str) -> bool {
        self.document.contains(section, key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: &str = include_str!("../tiny.toml");

    fn errors(text: &str) -> Vec<String> {
        match board("tiny", text) {
            Ok(_) => Vec::new(),
            Err(problems) => problems
                .into_iter()
                .map(|problem| format!("{}: {}; {}", problem.line, problem.what, problem.remedy))
                .collect(),
        }
    }

    fn line_with(text: &str) -> usize {
        TINY.lines().position(|line| line.starts_with(text)).map_or(0, |index| index + 1)
    }

    fn changed(key: &str, with: &str) -> String {
        let lines = TINY.lines().map(|line| if line.starts_with(key) { with } else { line });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_board_files_give_the_constants() {
        assert_eq!(board("tiny", TINY), Ok(crate::TINY));
        assert_eq!(board("host", include_str!("../host.toml")), Ok(crate::HOST));
    }

    #[test]
    fn an_unknown_key_is_refused_by_its_line() {
        let line = line_with("pages_max");
        assert_eq!(
            errors(&changed("pages_max", "pages_max = 4\npage_max = 3")),
            [format!("{}: unknown key [tables] page_max; did you mean pages_max?", line + 1)]
        );
    }

    #[test]
    fn a_missing_key_is_refused_at_its_section() {
        assert_eq!(
            errors(&changed("pages_max", "")),
            [format!(
                "{}: [tables] pages_max is missing; add `pages_max = N` below [tables], N from 1 to 1000000",
                line_with("[tables]")
            )]
        );
        assert!(errors(&changed("target", ""))[0].starts_with("1: target is missing; add `target ="));
    }

    #[test]
    fn an_empty_file_lacks_every_key() {
        let found = errors("");
        let keys = TINY.lines().filter(|line| !line.starts_with('#') && line.contains(" = ")).count();
        assert_eq!(found.len(), keys, "{found:#?}");
        assert!(found.iter().all(|text| text.contains("is missing; add `")));
    }

    #[test]
    fn wrong_types_and_ranges_are_refused_all_at_once() {
        let text = changed("pages_max", "pages_max = \"4\"")
            .replace("topics_max = 2 ", "topics_max = 0 ")
            .replace("links_max = 3 ", "links_max = -3 ");
        let found = errors(&text);
        assert_eq!(found.len(), 3, "{found:#?}");
        assert!(
            found[0].contains("[tables] pages_max can't be a string; write a whole number from 1 to 1000000"),
            "{found:#?}"
        );
        assert!(found[1].contains("topics_max = 0 is out of range"), "{found:#?}");
        assert!(found[2].contains("links_max = -3 is out of range"), "{found:#?}");
    }

    #[test]
    fn contradicting_limits_are_refused() {
        let found = errors(&changed("memory_budget", "memory_budget = 1_048_576"));
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("memory sum") && found[0].contains("of a budget of 1.0 MiB"), "{found:?}");
    }

    #[test]
    fn a_target_is_a_triple() {
        assert!(errors(&changed("target", "target = \"arm\""))[0].contains("not a target triple"));
    }

    #[test]
    fn the_debug_text_of_a_board_is_its_constant() {
        // build.rs relies on it: every field must print as valid Rust.
        let text = format!("{:?}", crate::HOST);
        assert!(
            text.starts_with("Board { name: \"host\", target: \"")
                && text.contains("state: TrackLimits { data_size_max: "),
            "{text}"
        );
    }
}
