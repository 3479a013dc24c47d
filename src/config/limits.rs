//! `[limits]`: a board's limits as an operator may lower them.
//!
//! Owns the keys and which field of the board each one lowers. Refuses to raise any, and whatever breaks
//! a rule between limits. Knows nothing of what a limit is for: that is the board's.

use super::document::{At, Document};
use crate::board::{Board, rules};

/// One limit that may be lowered.
pub struct Limit {
    /// Its key below `[limits]`.
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

/// Every limit that may be lowered, in the order of the file as shipped.
pub const LIMITS: [Limit; 23] = [
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
    limit!("stalled_ms", 100, stalled_ms_max),
    limit!("media_lag_ms", 100, media_lag_ms_max),
    limit!("page_asks_burst", 1, page_asks_burst),
    limit!("address_asks_burst", 1, address_asks_burst),
    limit!("address_asks_per_s", 1, address_asks_per_s),
    limit!("sends_burst", 1, sends_burst),
    limit!("uplink_out_size", 1, uplink_out_size),
];

/// The board with its limits lowered. What follows from another limit follows it down: fewer links mean no more
/// topics or requests than those, fewer topics no more of them on a page.
pub fn lowered(document: &mut Document<'_>, board: &Board) -> Board {
    let mut lowered = *board;
    for limit in &LIMITS {
        let Some(At { line, value }) = document.number("limits", limit.key, 0, u64::MAX) else { continue };
        let (most, key) = ((limit.of)(board), limit.key);
        if value > most {
            document.refuse(
                line,
                format!("[limits] {key} = {value} is above the board's {most}"),
                format!(
                    "choose at most {most}, or a build for a larger board than {}: a configuration only lowers limits",
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
        }
    }
    lowered.topics_max = lowered.topics_max.min(lowered.links_max);
    lowered.requests_max = lowered.requests_max.min(lowered.links_max);
    lowered.topics_per_page_max = lowered.topics_per_page_max.min(lowered.topics_max).min(lowered.subscriptions_max);
    for rule in rules(&lowered).iter().filter(|rule| !rule.holds) {
        let line = document.section_line("limits").unwrap_or(0);
        document.refuse(
            line,
            "[limits] don't fit together",
            format!("{} (as named in board/{}.toml)", rule.text, board.name),
        );
    }
    lowered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::HOST;

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
            // One below the board's, and everything else as it was, but for what follows from it.
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
        let (_, problems) = lower("[limits]\narena_blocks = 100\n");
        assert!(
            problems.len() == 2 && problems[0].contains("the arena must hold")
                || problems[1].contains("the arena must hold"),
            "{problems:?}"
        );
    }
}
