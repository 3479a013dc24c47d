//! `[limits]`: the limits of a board that an operator may lower.
//!
//! Owns the keys, and which field of the board each one lowers. Refuses to raise a limit or to
//! break a rule between limits. Does not know what a limit is for: that is documented with the
//! board.

use board::{Board, rules};
use document::{At, Document};

/// One limit that may be lowered.
pub struct Limit {
    /// Its key in `[limits]`.
    pub key: &'static str,
    least: u64,
    /// Its value in a board.
    pub of: fn(&Board) -> u64,
    set: fn(&mut Board, u64),
}

macro_rules! limit {
    ($key:literal, $least:literal, $($field:ident).+) => {
        Limit {
            key: $key,
            least: $least,
            of: |board| u64::from(board.$($field).+),
            set: |board, value| board.$($field).+ = value.try_into().unwrap_or(board.$($field).+),
        }
    };
}

/// Every limit that may be lowered, in the order of the shipped configuration.
pub const LIMITS: [Limit; 24] = [
    limit!("pages", 1, pages_max),
    limit!("topics", 1, topics_max),
    limit!("topics_per_page", 1, topics_per_page_max),
    limit!("subscriptions", 1, subscriptions_max),
    limit!("links", 1, links_max),
    limit!("requests", 1, requests_max),
    limit!("heads", 1, heads_max),
    limit!("arena_blocks", 1, blocks_max),
    limit!("state_size", 1, state.data_size_max),
    limit!("messages_size", 1, messages.data_size_max),
    limit!("audio_size", 1, audio.data_size_max),
    limit!("video_size", 1, video.data_size_max),
    limit!("init_size", 1, init.data_size_max),
    limit!("kernel_size", 1024, kernel_size_max),
    limit!("head_ms", 100, head_ms_max),
    limit!("first_subscribe_ms", 100, first_subscribe_ms_max),
    limit!("unsubscribed_ms", 100, unsubscribed_ms_max),
    limit!("stalled_ms", 100, stalled_ms_max),
    limit!("media_lag_ms", 100, media_lag_ms_max),
    limit!("page_asks_burst", 1, page_asks_burst),
    limit!("address_asks_burst", 1, address_asks_burst),
    limit!("address_asks_per_s", 1, address_asks_per_s),
    limit!("sends_burst", 1, sends_burst),
    limit!("uplink_out_size", 1, uplink_out_size),
];

/// The board with its limits lowered. Dependent limits are lowered with the one they depend on:
/// topics and requests to at most the links, topics of a page to at most the topics.
pub fn lowered(document: &mut Document<'_>, board: &Board) -> Board {
    let mut lowered = *board;
    let mut set = Vec::new();
    for limit in &LIMITS {
        let (most, key) = ((limit.of)(board), limit.key);
        let Some(At { line, value }) = document.number_within("limits", key, (0, u64::MAX), (limit.least, most)) else {
            continue;
        };
        if value > most {
            document.refuse(
                line,
                format!("[limits] {key} = {value} is above the board's {most}"),
                format!(
                    "choose at most {most}, or a build for a larger board than {}: a configuration can only lower limits",
                    board.name
                ),
            );
        } else if value < limit.least {
            document.refuse(
                line,
                format!("[limits] {key} = {value} is too low"),
                format!("choose {} to {most}", limit.least),
            );
        } else {
            (limit.set)(&mut lowered, value);
            set.push((limit, line, value));
        }
    }
    follow(&mut lowered);
    refuse_misfits(document, board, &lowered, &set);
    lowered
}

/// Lowers dependent limits to the limit that bounds them.
fn follow(board: &mut Board) {
    board.topics_max = board.topics_max.min(board.links_max);
    board.requests_max = board.requests_max.min(board.links_max);
    board.topics_per_page_max = board.topics_per_page_max.min(board.topics_max).min(board.subscriptions_max);
    board.half_records_max = board.half_records_max.min(board.pages_max);
    board.first_subscribe_ms_max = board.first_subscribe_ms_max.min(board.unsubscribed_ms_max);
}

/// Refuses the keys that break a rule between limits, each once, with the lowest value that keeps
/// all rules.
fn refuse_misfits(document: &mut Document<'_>, board: &Board, lowered: &Board, set: &[(&Limit, u32, u64)]) {
    let holds = |limit: &Limit, value: u64, rule: usize| {
        let mut tried = *lowered;
        (limit.set)(&mut tried, value);
        follow(&mut tried);
        rules(&tried).get(rule).is_some_and(|rule| rule.holds)
    };
    let mut misfits: Vec<(&Limit, u32, u64, u64, &str)> = Vec::new();
    for (index, rule) in rules(lowered).iter().enumerate().filter(|(_, rule)| !rule.holds) {
        let why = rule.text.split(": ").next().unwrap_or(rule.text);
        let blamed = set.iter().find(|(limit, ..)| holds(limit, (limit.of)(board), index));
        let Some((limit, line, value)) = blamed else {
            let line = document.section_line("limits").unwrap_or(0);
            document.refuse(line, format!("[limits] contradict each other: {why}"), "raise them, or remove some");
            continue;
        };
        // Bisects between the configured value, which is too low, and the board's, which is not.
        let (mut low, mut high) = (*value, (limit.of)(board));
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if holds(limit, middle, index) { high = middle } else { low = middle }
        }
        match misfits.iter_mut().find(|(known, ..)| known.key == limit.key) {
            Some(known) if known.3 < high => (known.3, known.4) = (high, why),
            Some(_) => {}
            None => misfits.push((limit, *line, *value, high, why)),
        }
    }
    for (limit, line, value, least, why) in misfits {
        let (key, most) = (limit.key, (limit.of)(board));
        document.refuse(
            line,
            format!("[limits] {key} = {value} is too low: {why}"),
            format!("choose {least} to {most}, or lower the limits that it depends on"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use board::HOST;

    fn lower(text: &str) -> (Board, Vec<String>) {
        let mut document = Document::parse(text);
        let board = lowered(&mut document, &HOST);
        (
            board,
            document
                .finish()
                .into_iter()
                .map(|problem| format!("{}: {}; {}", problem.line, problem.what, problem.remedy))
                .collect(),
        )
    }

    #[test]
    fn every_limit_is_lowered_by_its_own_key_alone() {
        for limit in &LIMITS {
            // One below the board's limit; everything else unchanged, except dependent limits.
            let value = (limit.of)(&HOST) - 1;
            let (board, problems) = lower(&format!("[limits]\n{} = {value}\n", limit.key));
            assert_eq!(problems, [""; 0], "{}", limit.key);
            assert_eq!((limit.of)(&board), value, "{}", limit.key);
            assert_eq!(
                LIMITS.iter().filter(|other| (other.of)(&board) != (other.of)(&HOST)).count(),
                1,
                "{}",
                limit.key
            );
        }
    }

    #[test]
    fn no_limit_is_raised_or_lowered_to_nothing() {
        for limit in &LIMITS {
            let most = (limit.of)(&HOST);
            let (board, problems) = lower(&format!("[limits]\n\n{} = {}\n", limit.key, most + 1));
            assert_eq!(board, HOST);
            assert!(
                matches!(problems.as_slice(), [text] if text.starts_with("3: ") && text.contains("above the board's")),
                "{problems:?}"
            );
            assert_eq!(lower(&format!("[limits]\n{} = 0\n", limit.key)).1.len(), 1);
        }
    }

    #[test]
    fn what_follows_from_a_limit_follows_it_down() {
        let (board, problems) = lower("[limits]\nlinks = 4\n");
        assert_eq!(problems, [""; 0]);
        assert_eq!((board.topics_max, board.requests_max, board.topics_per_page_max), (4, 4, 4));
    }

    #[test]
    fn limits_that_no_longer_fit_are_told() {
        let (_, problems) = lower("[limits]\npages = 10\n\narena_blocks = 100\nuplink_out_size = 10\n");
        assert_eq!(problems.len(), 2, "{problems:?}");
        // 128 topics of 48 + 66 blocks each, and the media of one topic: 96 + 1024 + 2 * 36.
        assert!(problems[0].starts_with("4: [limits] arena_blocks = 100 is too low: "), "{problems:?}");
        assert!(
            problems[0].contains("the arena must hold") && problems[0].contains("; choose 15784 to 49152"),
            "{problems:?}"
        );
        assert!(problems[1].starts_with("5: [limits] uplink_out_size = 10 is too low: "), "{problems:?}");
        assert!(problems[1].contains("; choose 644 to 65536"), "{problems:?}");
        assert!(problems.iter().all(|text| !text.contains("_max")), "{problems:?}");
        assert_eq!(lower("[limits]\narena_blocks = 15784\nuplink_out_size = 644\n").1, [""; 0]);
    }

    #[test]
    fn a_value_of_another_type_is_told_the_limit_s_own_range() {
        let (_, problems) = lower("[limits]\nkernel_size = \"1G\"\n");
        assert!(matches!(problems.as_slice(), [text] if text.contains("from 1024 to 268435456")), "{problems:?}");
    }
}
