//! The whole numbers of `[topics]` and `[limits]`: one table of keys, ranges and defaults.
//!
//! Owns their keys, and which are allowed. The defaults are those of the machine where it has one.
//! Refuses numbers out of range. What they cost together is in `sum.rs`.

use document::Document;
use sharelinkd::config::sections::whole;

/// The values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// A topic is forgotten after this time without a publication, in seconds.
    pub history_s: u32,
    /// Picture and sound are forgotten after this time without a chunk, in seconds.
    pub media_s: u32,
    /// Messages that a topic keeps.
    pub messages: u32,
    /// Their size, in KiB.
    pub messages_kib: u32,
    /// What a track of picture or sound keeps, in KiB.
    pub media_kib: u32,
    /// Topics.
    pub topics: u32,
    /// Topics that relays hold at once.
    pub watched_topics: u32,
    /// All topics in the engine, in MiB.
    pub engine_mib: u32,
    /// What is kept for relays of all topics that they hold, in MiB.
    pub rings_mib: u32,
    /// Idempotency keys.
    pub idempotency_keys: u32,
    /// Revoked links.
    pub revocations: u32,
    /// Connected relays.
    pub relays: u32,
    /// Calls of the API that wait for the engine.
    pub calls: u32,
    /// Requests of relays that wait.
    pub waiting: u32,
    /// Grants that are remembered.
    pub grants: u32,
    /// Events that wait for the webhook.
    pub notices: u32,
    /// Connections to the API.
    pub connections: u32,
    /// The same from one address.
    pub connections_per_address: u32,
    /// Streams of picture and sound that come in at once.
    pub streams: u32,
    /// A chunk of picture, in KiB.
    pub chunk_kib: u32,
    /// A group of pictures, from a keyframe to the next, in KiB.
    pub group_kib: u32,
    /// A message or state, in KiB.
    pub json_kib: u32,
    /// The body of a batch, in KiB.
    pub batch_kib: u32,
}

/// A number's section, key, least and greatest value, and its place.
pub struct Number {
    /// The section.
    pub section: &'static str,
    /// The key.
    pub key: &'static str,
    range: (u64, u64),
    place: fn(&mut Numbers) -> &mut u32,
}

macro_rules! numbers {
    ($($section:literal $key:ident $least:literal..=$most:literal,)*) => {
        &[$(Number {
            section: $section,
            key: stringify!($key),
            range: ($least, $most),
            place: |numbers| &mut numbers.$key,
        },)*]
    };
}

/// All of them, in the order of the file.
pub const NUMBERS: &[Number] = numbers! {
    "topics" history_s 60..=2_592_000,
    "topics" media_s 10..=86_400,
    "topics" messages 1..=100_000,
    "topics" messages_kib 64..=1_048_576,
    "topics" media_kib 1024..=1_048_576,
    "limits" topics 1..=10_000_000,
    "limits" watched_topics 1..=1_000_000,
    "limits" engine_mib 1..=1_048_576,
    "limits" rings_mib 1..=1_048_576,
    "limits" idempotency_keys 1..=100_000_000,
    "limits" revocations 1..=10_000_000,
    "limits" relays 1..=4096,
    "limits" calls 1..=1_000_000,
    "limits" waiting 1..=1_000_000,
    "limits" grants 1..=10_000_000,
    "limits" notices 2..=10_000_000,
    "limits" connections 1..=100_000,
    "limits" connections_per_address 1..=100_000,
    "limits" streams 1..=10_000,
    "limits" chunk_kib 16..=1024,
    "limits" group_kib 64..=65_536,
    "limits" json_kib 1..=1023,
    "limits" batch_kib 1..=65_536,
};

impl Default for Numbers {
    fn default() -> Self {
        Self {
            history_s: 86_400,
            media_s: 180,
            messages: 1024,
            messages_kib: 256,
            media_kib: 4096,
            topics: 10_000,
            watched_topics: 1000,
            engine_mib: 256,
            rings_mib: 256,
            idempotency_keys: 100_000,
            revocations: 10_000,
            relays: 64,
            calls: 4096,
            waiting: 16_384,
            grants: 20_000,
            notices: 16_384,
            connections: 1024,
            connections_per_address: 256,
            streams: 64,
            chunk_kib: 512,
            group_kib: 1920,
            json_kib: 64,
            batch_kib: 1024,
        }
    }
}

impl Number {
    /// Its value.
    pub fn of(&self, numbers: &Numbers) -> u32 {
        *(self.place)(&mut numbers.clone())
    }
}

/// `[topics]` and `[limits]`.
pub fn numbers(document: &mut Document<'_>) -> Numbers {
    let mut numbers = Numbers::default();
    for Number { section, key, range: (least, most), place } in NUMBERS {
        if let Some(value) = whole(document, section, key, *least, *most) {
            *place(&mut numbers) = value;
        }
    }
    numbers
}
