//! The board's fields: everything that is fixed when the relay is built for a box.
//!
//! Owns the two structs shared by board files, machine and memory sum, and the values that follow
//! directly from their fields. Refuses nothing: ranges are checked by `source.rs`, rules between
//! fields by `rules.rs`; `sum.rs` computes the memory. Does not know which boards exist.
//! `board/build.rs` includes this file too, and generates constants from the `Debug` output, which
//! must therefore be valid Rust for the type of every field.

/// The limits of one track of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackLimits {
    /// The maximum size of one publication's data, in bytes. A larger one is dropped and reported
    /// as a gap.
    pub data_size_max: u32,
    /// The maximum number of arena blocks in this track's ring.
    pub blocks_max: u32,
    /// The maximum number of frames in this track's ring (one index row of 16 bytes each).
    pub frames_max: u32,
}

/// Everything that is fixed when the relay is built for a box. Sizes are in bytes, times in
/// milliseconds. A name that ends in `_max` is an upper bound that input may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Board {
    /// The board's name: the stem of its file in `board/`.
    pub name: &'static str,
    /// The Rust target triple that the board's binary is built for.
    pub target: &'static str,
    /// The budget for the memory of the process and of its sockets in the kernel, in bytes.
    pub memory_budget: u64,
    /// Whether the binary contains the demo, which takes 300 KB with its clip.
    pub demo: bool,

    // Tables: rows.
    /// Concurrent pages. One more row is used to refuse the next page with a proper response.
    pub pages_max: u32,
    /// Concurrent topics.
    pub topics_max: u32,
    /// Topics (and pending subscriptions) of one page.
    pub topics_per_page_max: u32,
    /// Subscriptions of all pages together.
    pub subscriptions_max: u32,
    /// Share links known at the same time: requested, granted, or remembered as denied.
    pub links_max: u32,
    /// Concurrent `Subscribe` requests to the business server.
    pub requests_max: u32,
    /// Pages denied by name, each remembered for 2 s.
    pub denials_max: u32,
    /// Distinct reasons (of `denied`, `end`, `Kick`) that still have to be sent.
    pub reasons_max: u32,
    /// HTTP request heads being read at the same time, 8 KiB each.
    pub heads_max: u32,
    /// Rows for the rate limit of subscriptions by address (IPv6: by /64). A hash table: two
    /// addresses may share a row.
    pub addresses_max: u32,
    /// Incomplete TLS records of pages that are kept at the same time, 16 KiB each. With more, a
    /// page's bytes wait in the kernel.
    pub half_records_max: u32,

    // The arena.
    /// The size of one arena block, in bytes.
    pub block_size: u32,
    /// Blocks in the arena, shared by the rings of all tracks.
    pub blocks_max: u32,
    /// Blocks that keep frames overwritten in their ring while pages were in the middle of them.
    pub kept_blocks_max: u32,
    /// The `state` ring of a topic.
    pub state: TrackLimits,
    /// The `messages` ring of a topic.
    pub messages: TrackLimits,
    /// The `audio` ring of a topic.
    pub audio: TrackLimits,
    /// The `video` ring of a topic.
    pub video: TrackLimits,
    /// The ring of init segments that belongs to each media ring.
    pub init: TrackLimits,

    // The pages' connections.
    /// `SO_SNDBUF` of a page's socket, as requested (Linux doubles it).
    pub send_buffer_size: u32,
    /// `SO_RCVBUF` of a page's socket, as requested (Linux doubles it).
    pub receive_buffer_size: u32,
    /// `TCP_NOTSENT_LOWAT` of a page's socket: the maximum number of unsent bytes in the kernel.
    pub notsent_size_max: u32,
    /// Established connections not accepted yet (`listen`'s backlog).
    pub backlog_max: u32,
    /// `TCP_USER_TIMEOUT` of a page's socket: the timeout for unacknowledged data.
    pub user_timeout_ms: u32,
    /// Bytes queued in the kernel for all pages together; near it, the slowest pages are closed.
    pub kernel_size_max: u64,
    /// Timeout for receiving a request head.
    pub head_ms_max: u32,
    /// Timeout for a page's first subscription, granted or pending, after its upgrade.
    pub first_subscribe_ms_max: u32,
    /// Timeout of a page without a live subscription, whatever it requests.
    pub unsubscribed_ms_max: u32,
    /// The interval of WebSocket pings.
    pub ping_ms: u32,
    /// An `alive` frame is sent if nothing else was sent for this time.
    pub alive_ms: u32,
    /// A page from which nothing was received for this time is dead, once a ping has had `ping_ms`
    /// to be answered.
    pub dead_ms: u32,
    /// A page with pending data that makes no progress for this time is closed with 1013.
    pub stalled_ms_max: u32,
    /// A page more than one group behind skips to the newest group once that is this old.
    pub media_lag_ms_max: u32,
    /// Timeout for a peer's close frame after ours; then it is cut off.
    pub close_ms_max: u32,
    /// Token bucket of a page's `subscribe` frames: the burst, refilled at 1 per second.
    pub page_asks_burst: u32,
    /// Token bucket of an address's `subscribe` frames: the burst.
    pub address_asks_burst: u32,
    /// Token bucket of an address's `subscribe` frames: the refill rate per second.
    pub address_asks_per_s: u32,
    /// Token bucket of a page's `send` frames: the burst, refilled at 1 per second.
    pub sends_burst: u32,

    // The uplink.
    /// The size of the output buffer to the business server, in bytes.
    pub uplink_out_size: u32,

    // The default of the console's serial line.
    /// The box's console tty, or [`OFF`].
    pub serial_device: &'static str,
    /// Its speed, one of [`SPEEDS`].
    pub serial_speed: u32,
}

/// The value for no serial line.
pub const OFF: &str = "off";

/// The speeds of a serial line that every Linux supports.
pub const SPEEDS: [u32; 18] = [
    1_200, 2_400, 4_800, 9_600, 19_200, 38_400, 57_600, 115_200, 230_400, 460_800, 500_000, 576_000, 921_600,
    1_000_000, 1_500_000, 2_000_000, 3_000_000, 4_000_000,
];

impl Board {
    /// The box's console tty; `None` if it has none.
    #[must_use]
    pub fn serial(&self) -> Option<&'static str> {
        Some(self.serial_device).filter(|device| *device != OFF)
    }

    /// The size of the largest publication of any track, in bytes. The uplink's input buffer must
    /// hold it completely.
    #[must_use]
    pub const fn data_size_max(&self) -> u32 {
        let tracks = [self.state, self.messages, self.audio, self.video, self.init];
        let mut largest = 0;
        let mut index = 0;
        while index < tracks.len() {
            if tracks[index].data_size_max > largest {
                largest = tracks[index].data_size_max;
            }
            index += 1;
        }
        largest
    }

    /// The maximum number of blocks in the media rings of one topic: audio, video, and the init
    /// segments of both.
    #[must_use]
    pub const fn media_blocks_per_topic(&self) -> u64 {
        self.audio.blocks_max as u64 + self.video.blocks_max as u64 + 2 * self.init.blocks_max as u64
    }

    /// Answers to pages' messages that may wait for their pages' sockets at once.
    #[must_use]
    pub const fn receipts_max(&self) -> u32 {
        let share = self.pages_max / 8;
        if share < 8 { 8 } else { share }
    }

    /// Blocks of the arena that are reserved for the `state` and `messages` rings of all topics.
    #[must_use]
    pub const fn guaranteed_blocks(&self) -> u64 {
        self.topics_max as u64 * (self.state.blocks_max as u64 + self.messages.blocks_max as u64)
    }
}
