//! What the machine counts: every way out has a counter, every table says how much of it is in use.

/// What has happened since the start, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name says what is counted")]
pub struct Counters {
    pub pages_opened: u64,
    pub pages_closed: u64,
    pub refused_full: u64,
    pub refused_address: u64,
    pub page_frames: u64,
    pub page_faults: u64,
    pub page_messages: u64,
    pub sends_limited: u64,
    pub asks_limited: u64,
    pub subscribed: u64,
    pub denied: u64,
    pub closed: u64,
    pub closed_slow: u64,
    pub closed_for_memory: u64,
    pub cut: u64,
    pub dead: u64,
    pub blocked: u64,
    pub published: [u64; 4],
    pub deliveries: [u64; 4],
    pub missed: [u64; 4],
    pub superseded: u64,
    pub gaps: u64,
    pub inits_repeated: u64,
    pub bytes_sent: u64,
    pub writes: u64,
    pub superfluous: u64,
    pub dropped: u64,
    pub unknown_topic: u64,
    pub media_shed: u64,
    pub requests: u64,
    pub requests_unanswered: u64,
    pub topics_refused: u64,
    pub dials: u64,
    pub uplink_losses: u64,
}

/// Rows and blocks in use, each with a limit of the board.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name says what is counted")]
pub struct InUse {
    pub pages: u32,
    pub subscriptions: u32,
    pub topics: u32,
    pub links: u32,
    pub requests: u32,
    pub half_notices: u32,
    pub blocks: u32,
}
