//! What the hub holds in memory at most, worked out from its limits: one line for each owner.
//!
//! Owns the sum that `check` prints. Terms are limits times the greatest size of one thing, with
//! what rows and tree nodes cost. A term that no limit bounds has its own room, such as that of all
//! answers. Program, stacks, and what the allocator loses come on top.
//! Doesn't measure anything.

use std::fmt::Write as _;

use wire::{LINK_SIZE_MAX, PAGE_DATA_SIZE_MAX, REASON_SIZE_MAX, uplink::FRAME_SIZE_MAX};

use super::{
    Config,
    settings::{RECEIPTS_MAX, kib, size},
};
use crate::{
    http::BODIES_SIZE_MAX,
    relays::{HANDSHAKES_MAX, READ_SIZE, WRITE_SIZE},
    webhook::{BATCH_COUNT_MAX, BODY_SIZE_MAX, KEPT_MAX},
};

/// A row with its tree nodes, names and timers, in bytes: rounded up.
const ROW: usize = 512;
/// The buffers of a TLS connection, in bytes: also those of a handshake.
const TLS: usize = 128 << 10;
/// Read and write buffers of a connection to the API, and its TLS, in bytes.
const CONNECTION: usize = (128 << 10) + TLS;
/// What a stream holds until it is a chunk, and its row, in bytes.
const STREAM: usize = media::HELD_SIZE_MAX + ROW;
/// One frame and its row beside a track's bound: the newest is kept whatever its size.
const FRAME: usize = FRAME_SIZE_MAX + ROW;
/// A relay that has not authenticated: what comes in, and its TLS, in bytes.
const STRANGER: usize = READ_SIZE + FRAME_SIZE_MAX + TLS + ROW;
/// What is being written to a relay, as frames and as bytes, and its unanswered requests.
const RELAY: usize = STRANGER + 2 * (WRITE_SIZE + FRAME_SIZE_MAX) + business::REQUESTS_MAX * (LINK_SIZE_MAX + 128);
/// Relays that have not authenticated.
const STRANGERS: usize = 16;
/// A call of the webhook: question, head and answer, and its connection, in bytes.
const CALL: usize = 4 * BODY_SIZE_MAX + TLS + ROW;
/// An event under way to the webhook, as it is and as JSON, where a byte may become six.
const EVENT: usize = ROW + 7 * PAGE_DATA_SIZE_MAX + ROW;
/// A page's message that is known, in a tree that is half full, with its place in the order, in
/// bytes.
const RECEIPT: usize = 192;
/// A line of the file of revocations, in bytes, where a byte of the reason may become six.
const LINE: usize = 128 + 6 * REASON_SIZE_MAX;

/// The sum as lines of text.
pub fn sum(config: &Config) -> String {
    let whole = terms(config);
    let mut text = String::new();
    for (what, bytes) in whole {
        let _ = writeln!(text, "{what:<50} {:>10}", mib(bytes));
    }
    let total = whole.iter().fold(0_usize, |sum, (_, bytes)| sum.saturating_add(*bytes));
    let _ = writeln!(text, "{:<50} {:>10}", "together", mib(total));
    text
}

/// All bodies, or all answers, where the largest has this size. The large ones have half of the
/// room; one that is larger than that takes all of it.
fn bodies(largest: usize) -> usize {
    BODIES_SIZE_MAX.saturating_add(largest.saturating_sub(BODIES_SIZE_MAX / 2))
}

/// What holds memory, and how much at most, in bytes.
pub(super) fn terms(config: &Config) -> [(&'static str, usize); 18] {
    let numbers = &config.numbers;
    let times = |count: u32, each: usize| size(count).saturating_mul(each);
    // All frames that wait for one relay but publications, and a row for each of its topics.
    let answers = business::Limits::default().answers_size_max;
    let relay = RELAY.saturating_add(answers).saturating_add(times(numbers.watched_topics, ROW));
    let denials = hub::admission::Settings::default().denials_max;
    let has_tls = |certificate: bool| if certificate { config.uplink.listen.len() } else { 0 };
    let handshakes = has_tls(config.uplink.certificate.is_some()).saturating_mul(HANDSHAKES_MAX);
    // Here and in the machine, and once more in what one tells the other.
    let revocation = 3 * (ROW + REASON_SIZE_MAX);
    // The old file, which has doubled, is read, and the new one written.
    let line = if config.revocations_file.is_some() { 3 * LINE + ROW + REASON_SIZE_MAX } else { 0 };
    let (calls, is_told) = config.webhook.as_ref().map_or((0, false), |hook| (hook.calls_max, hook.events));
    // The batch under way has a call too.
    let calls = if calls == 0 { 0 } else { size(calls).saturating_add(KEPT_MAX).saturating_add(1) };
    let batches = if is_told { 3 * BATCH_COUNT_MAX } else { 0 };
    [
        (
            "engine: topics, history, idempotency keys",
            kib(numbers.engine_mib).saturating_mul(1024).saturating_add(FRAME),
        ),
        ("engine: revocations, here and in the machine", times(numbers.revocations, revocation)),
        ("revocations_file, while it is written anew", times(numbers.revocations, line)),
        ("rings of watched topics", kib(numbers.rings_mib).saturating_mul(1024).saturating_add(FRAME)),
        ("rows of watched topics", times(numbers.watched_topics, 4 * ROW)),
        ("relays: queues and buffers", times(numbers.relays, relay).saturating_add(STRANGERS * STRANGER)),
        ("relays: TLS handshakes", handshakes.saturating_mul(TLS)),
        ("API: connections", times(numbers.connections, CONNECTION)),
        // What is published is copied out of the body.
        ("API: bodies, and what is made of them", bodies(kib(numbers.batch_kib)).saturating_mul(2)),
        ("API: answers", bodies(numbers.answer_size_max())),
        ("API: answers about all relays", config.http().limits.fleets_size_max()),
        // A WebSocket holds a message besides.
        ("API: streams of picture and sound", times(numbers.streams, STREAM + CONNECTION + 3 * kib(numbers.chunk_kib))),
        ("requests of relays that wait", times(numbers.waiting, 2 * ROW + LINK_SIZE_MAX)),
        (
            "grants and denials",
            times(numbers.grants, 2 * ROW).saturating_add(denials.saturating_mul(ROW + REASON_SIZE_MAX)),
        ),
        ("pages' messages of the last 10 minutes", RECEIPTS_MAX * RECEIPT),
        ("webhook: calls under way", calls.saturating_mul(CALL)),
        ("webhook: events that wait", times(numbers.notices, ROW + PAGE_DATA_SIZE_MAX)),
        ("webhook: events under way", batches.saturating_mul(EVENT)),
    ]
}

fn mib(bytes: usize) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}
