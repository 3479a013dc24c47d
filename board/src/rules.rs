//! The rules between a board's limits, each with its reason.
//!
//! Owns [`rules`]. They are evaluated in `const` context for every board, so that a board that
//! breaks one doesn't compile; by `board/build.rs`, which names the file; and for a board lowered
//! by a configuration. Refuses nothing by itself: the caller decides what a broken rule means. The
//! range of a single field is checked by `source.rs`. `board/build.rs` includes this file too.

use super::limits::{Board, TrackLimits};
use super::sum::memory_sum;

/// The maximum number of bytes that encoding adds to the data of a `state`, a message or a chunk:
/// WebSocket header 10, and JSON around the data 76 or a chunk's header 14; rounded up.
pub const ENVELOPE_SIZE_MAX: u32 = 96;
/// The maximum number of bytes that encoding adds to an init segment: WebSocket header 10, header
/// 14, MIME length 1 and text 255.
pub const INIT_ENVELOPE_SIZE_MAX: u32 = 280;
/// The maximum size of a frame to the business server (`HEAD_SIZE_MAX` of the wire, and its
/// length), in bytes.
pub const UPLINK_FRAME_SIZE_MAX: u32 = 644;

/// One rule, evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whether it holds.
    pub holds: bool,
    /// The rule, and what to change if it is broken.
    pub text: &'static str,
}

/// The number of rules.
pub const RULE_COUNT: usize = 22;

/// Every rule, evaluated for this board.
#[must_use]
pub const fn rules(board: &Board) -> [Rule; RULE_COUNT] {
    [
        // Messages must not be lost and a state is always retained, so their blocks are reserved
        // for every topic. Media can wait for the next group: its rings share the rest.
        rule(
            board.guaranteed_blocks() <= board.blocks_max as u64,
            "the arena must hold the state and messages rings of all topics: raise arena.blocks_max, or lower tables.topics_max or the rings' blocks_max",
        ),
        // Otherwise no topic could ever show media.
        rule(
            board.guaranteed_blocks() + board.media_blocks_per_topic() <= board.blocks_max as u64,
            "beyond the state and messages rings of all topics the arena must hold one topic's audio, video and init rings: raise arena.blocks_max, or lower the media rings' blocks_max",
        ),
        // The frame that pages are in the middle of, and the next one: with room for only one, each
        // publication would overwrite the frame of every page that has not finished it.
        rule(
            holds_two(board, &board.state, ENVELOPE_SIZE_MAX),
            "the state ring must hold its largest frame twice plus one block: raise track.state.blocks_max or lower its data_size_max",
        ),
        rule(
            holds_two(board, &board.messages, ENVELOPE_SIZE_MAX),
            "the messages ring must hold its largest frame twice plus one block: raise track.messages.blocks_max or lower its data_size_max",
        ),
        rule(
            holds_two(board, &board.audio, ENVELOPE_SIZE_MAX),
            "the audio ring must hold its largest frame twice plus one block: raise track.audio.blocks_max or lower its data_size_max",
        ),
        rule(
            holds_two(board, &board.video, ENVELOPE_SIZE_MAX),
            "the video ring must hold its largest frame twice plus one block: raise track.video.blocks_max or lower its data_size_max",
        ),
        // The current init segment, and the one that the newest group needs.
        rule(
            holds_two(board, &board.init, INIT_ENVELOPE_SIZE_MAX),
            "the init ring must hold its largest frame twice plus one block: raise track.init.blocks_max or lower its data_size_max",
        ),
        // A page in the middle of the largest frame must be able to finish it.
        rule(
            board.frame_size_max() <= board.kept_blocks_max as u64 * board.block_size as u64,
            "the reserve for frames overwritten in their ring must hold the largest frame: raise arena.kept_blocks_max or lower the tracks' data_size_max",
        ),
        // One page must be able to reach its own limits.
        rule(
            board.topics_per_page_max <= board.topics_max,
            "a page can't have more topics than there are: tables.topics_per_page_max must not exceed tables.topics_max",
        ),
        rule(
            board.topics_per_page_max <= board.subscriptions_max,
            "one page must be able to subscribe to all its topics: tables.subscriptions_max must be at least tables.topics_per_page_max",
        ),
        // More could never be used.
        rule(
            board.half_records_max <= board.pages_max,
            "a page keeps at most one half record: tables.half_records_max must not exceed tables.pages_max",
        ),
        // Every request is for a link, and every topic is reached through one.
        rule(
            board.requests_max <= board.links_max,
            "each pending request is for a link: tables.links_max must be at least tables.requests_max",
        ),
        rule(
            board.topics_max <= board.links_max,
            "each topic is reached through a link: tables.links_max must be at least tables.topics_max",
        ),
        // One lost pong must not be fatal.
        rule(
            board.ping_ms * 2 <= board.dead_ms,
            "a page must be pinged twice before it counts as dead: time.dead_ms must be at least twice time.ping_ms",
        ),
        // The page client takes missing `alive` frames for a dead relay, and can't see pings.
        rule(
            board.alive_ms <= board.ping_ms,
            "alive frames must be sent at least as often as pings: time.alive_ms must not exceed time.ping_ms",
        ),
        // The longer timeout is for pages that were denied with a retry.
        rule(
            board.first_subscribe_ms_max <= board.unsubscribed_ms_max,
            "a page that never subscribed must not stay longer than one that waits: time.first_subscribe_ms_max must not exceed time.unsubscribed_ms_max",
        ),
        // In this order: a slow page skips media, is closed by us (1013), is cut off by the kernel,
        // counts as dead.
        rule(
            board.media_lag_ms_max < board.stalled_ms_max,
            "a slow page must skip before it is closed: time.media_lag_ms_max must be below time.stalled_ms_max",
        ),
        rule(
            board.stalled_ms_max < board.user_timeout_ms && board.user_timeout_ms <= board.dead_ms,
            "a stalled page must be closed by the relay before the kernel cuts it off: time.stalled_ms_max < kernel.user_timeout_ms <= time.dead_ms",
        ),
        // The low-water mark limits unsent bytes in the kernel; above the send buffer it has no
        // effect.
        rule(
            board.notsent_size_max <= board.send_buffer_size,
            "a limit of unsent bytes above the send buffer has no effect: kernel.notsent_size_max must not exceed kernel.send_buffer_size",
        ),
        // Linux doubles both buffers. A single page must fit, or it would be closed as the slowest
        // page.
        rule(
            2 * (board.send_buffer_size as u64 + board.receive_buffer_size as u64) <= board.kernel_size_max,
            "it must hold one page's send and receive buffers, doubled as Linux does: raise kernel.kernel_size_max",
        ),
        // A frame is put into the buffer as a whole, or waits: one that never fits would wait
        // forever.
        rule(
            board.uplink_out_size >= UPLINK_FRAME_SIZE_MAX,
            "it must hold the largest frame to the business server, 644 bytes: raise uplink.uplink_out_size",
        ),
        // The memory is known at build time and never exceeded.
        rule(
            memory_sum(board).total() <= board.memory_budget,
            "the memory sum exceeds memory_budget: lower a limit or, if the box has the memory, raise the budget",
        ),
    ]
}

/// The text of the first broken rule, for assertions in `const` context.
#[must_use]
pub const fn broken(board: &Board) -> Option<&'static str> {
    let rules = rules(board);
    let mut index = 0;
    while index < RULE_COUNT {
        if !rules[index].holds {
            return Some(rules[index].text);
        }
        index += 1;
    }
    None
}

impl Board {
    /// The size of the largest encoded frame of any track, in bytes.
    #[must_use]
    pub const fn frame_size_max(&self) -> u64 {
        let init = self.init.data_size_max as u64 + INIT_ENVELOPE_SIZE_MAX as u64;
        let other = self.data_size_max() as u64 + ENVELOPE_SIZE_MAX as u64;
        if init > other { init } else { other }
    }
}

const fn rule(holds: bool, text: &'static str) -> Rule {
    Rule { holds, text }
}

/// Whether the track's ring holds two of its largest frames, plus one block, since it may start
/// anywhere in its first block.
const fn holds_two(board: &Board, track: &TrackLimits, envelope_size: u32) -> bool {
    let frame = track.data_size_max as u64 + envelope_size as u64;
    track.frames_max >= 2 && 2 * frame + board.block_size as u64 <= track.blocks_max as u64 * board.block_size as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ALL, TINY};

    #[test]
    fn every_board_holds_every_rule() {
        for board in ALL {
            assert_eq!(broken(board), None, "{}", board.name);
        }
    }

    #[test]
    fn each_broken_rule_names_the_key_to_change() {
        let cases: [(Board, &str); 11] = [
            (Board { blocks_max: 20, ..TINY }, "arena.blocks_max"),
            (Board { state: TrackLimits { blocks_max: 2, ..TINY.state }, ..TINY }, "track.state.blocks_max"),
            (Board { init: TrackLimits { frames_max: 1, ..TINY.init }, ..TINY }, "track.init"),
            (Board { kept_blocks_max: 5, ..TINY }, "arena.kept_blocks_max"),
            (Board { links_max: 1, ..TINY }, "tables.links_max"),
            (Board { half_records_max: 5, ..TINY }, "tables.half_records_max"),
            (Board { dead_ms: TINY.ping_ms, ..TINY }, "time.dead_ms"),
            (Board { stalled_ms_max: TINY.dead_ms, ..TINY }, "time.stalled_ms_max"),
            (Board { kernel_size_max: 100, ..TINY }, "kernel.kernel_size_max"),
            (Board { uplink_out_size: 100, ..TINY }, "uplink.uplink_out_size"),
            (Board { memory_budget: 1 << 20, ..TINY }, "memory_budget"),
        ];
        for (board, key) in cases {
            assert!(broken(&board).is_some_and(|text| text.contains(key)), "{key}: {:?}", broken(&board));
        }
    }
}
