//! What the hub holds in memory at most, worked out from its limits: one line for each owner.
//!
//! Owns the sum that `check` prints. Terms are limits times the greatest size of one thing, with
//! what rows and tree nodes cost. Program, stacks, and what the allocator loses come on top.
//! Doesn't measure anything.

use std::fmt::Write as _;

use wire::{DATA_SIZE_MAX, LINK_SIZE_MAX, PAGE_DATA_SIZE_MAX, REASON_SIZE_MAX};

use super::{
    Config,
    settings::{kib, size},
};
use crate::http::BODIES_SIZE_MAX;

/// A row with its tree nodes, names and timers, in bytes: rounded up.
const ROW: usize = 512;
/// Read and write buffers of a connection to the API, and its TLS, in bytes.
const CONNECTION: usize = 256 << 10;
/// What a stream holds until it is a chunk, and its row, in bytes.
const STREAM: usize = media::HELD_SIZE_MAX + ROW;
/// Read and write buffers of a relay, in bytes: `relays.rs`.
const RELAY: usize = 384 << 10;
/// One frame and its row beside a track's bound: the newest is kept whatever its size.
const FRAME: usize = DATA_SIZE_MAX + ROW;
/// Relays that have not authenticated, each with its buffers.
const STRANGERS: usize = 16;

/// The sum as lines of text.
pub fn sum(config: &Config) -> String {
    let numbers = &config.numbers;
    let times = |count: u32, each: usize| size(count).saturating_mul(each);
    // All frames that wait for one relay but publications, and its rows.
    let relay = RELAY + business::Limits::default().answers_size_max + ROW;
    let whole = [
        ("engine: topics, history, idempotency keys", kib(numbers.engine_mib).saturating_mul(1024)),
        ("engine: revocations, here and in the machine", times(numbers.revocations, 2 * (ROW + REASON_SIZE_MAX))),
        ("rings of watched topics", kib(numbers.rings_mib).saturating_mul(1024).saturating_add(FRAME)),
        ("rows of watched topics", times(numbers.watched_topics, 4 * ROW)),
        ("relays: queues and buffers", times(numbers.relays, relay).saturating_add(STRANGERS * relay)),
        ("API: connections", times(numbers.connections, CONNECTION)),
        ("API: bodies", BODIES_SIZE_MAX),
        // A WebSocket holds a message besides.
        ("API: streams of picture and sound", times(numbers.streams, STREAM + CONNECTION + 3 * kib(numbers.chunk_kib))),
        ("requests of relays that wait", times(numbers.waiting, 2 * ROW + LINK_SIZE_MAX)),
        ("grants and denials", times(numbers.grants, 2 * ROW).saturating_add(10_000 * (ROW + REASON_SIZE_MAX))),
        ("events for the webhook", times(numbers.notices, ROW + PAGE_DATA_SIZE_MAX)),
    ];
    let mut text = String::new();
    for (what, bytes) in whole {
        let _ = writeln!(text, "{what:<50} {:>10}", mib(bytes));
    }
    let total = whole.iter().fold(0_usize, |sum, (_, bytes)| sum.saturating_add(*bytes));
    let _ = writeln!(text, "{:<50} {:>10}", "together", mib(total));
    text
}

fn mib(bytes: usize) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}
