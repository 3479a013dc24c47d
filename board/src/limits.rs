//! The board's fields: what is fixed when the relay is built for a box.
//!
//! Owns the two structs that every board file, the machine and the memory sum share, and the few
//! figures that follow from their fields alone. Refuses nothing: a field's range is `source.rs`'s,
//! what must hold between fields is `rules.rs`'s, and the bytes are `sum.rs`'s. Knows neither which
//! boards there are nor where the numbers come from. `board/build.rs` includes this file too, and
//! its `Debug` output is the Rust text of a constant: no field may have a type for which that is untrue.

/// The limits of one track of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackLimits {
    /// Bytes of one publication's data at most. A larger one is dropped and told as a gap.
    pub data_size_max: u32,
    /// Blocks of the arena that this track's ring may hold at most.
    pub blocks_max: u32,
    /// Frames that this track's ring may hold at most (one index row of 16 bytes each).
    pub frames_max: u32,
}

/// Everything that is fixed when the relay is built for a box. Sizes are bytes, times are
/// milliseconds, and a name that ends in `_max` is a bound that input may reach but not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Board {
    /// The board's name: the stem of its file under `board/`.
    pub name: &'static str,
    /// The Rust target triple that the board's binary is built for.
    pub target: &'static str,
    /// All memory of the process and of its sockets in the kernel, bytes.
    pub memory_budget: u64,
    /// Whether the binary has the demo in it, 300 KB with its clip.
    pub demo: bool,

    // Tables: rows.
    /// Pages connected at the same time; one more seat refuses politely.
    pub pages_max: u32,
    /// Topics held at the same time.
    pub topics_max: u32,
    /// Topics (and pending subscriptions) of one page.
    pub topics_per_page_max: u32,
    /// Subscriptions of all pages together.
    pub subscriptions_max: u32,
    /// Share links known at the same time: asked for, granted, or remembered as denied.
    pub links_max: u32,
    /// `Subscribe` requests under way at the business server at the same time.
    pub requests_max: u32,
    /// Pages remembered for 2 s that were denied by name.
    pub denials_max: u32,
    /// Different reasons (of `denied`, `end`, `Kick`) waiting to be told at the same time.
    pub reasons_max: u32,
    /// HTTP request heads being read at the same time, 8 KiB each.
    pub heads_max: u32,
    /// Addresses (of IPv6: /64) whose rate of asking is watched at the same time (a hash table: two may share).
    pub addresses_max: u32,

    // The arena.
    /// Bytes of one block of the arena.
    pub block_size: u32,
    /// Blocks of the arena, shared by the rings of all tracks.
    pub blocks_max: u32,
    /// Blocks for frames that their rings overtook while pages stood inside.
    pub kept_blocks_max: u32,
    /// The `state` ring of a topic.
    pub state: TrackLimits,
    /// The `messages` ring of a topic.
    pub messages: TrackLimits,
    /// The `audio` ring of a topic.
    pub audio: TrackLimits,
    /// The `video` ring of a topic.
    pub video: TrackLimits,
    /// The ring of init segments beside each media ring.
    pub init: TrackLimits,

    // The pages' connections.
    /// `SO_SNDBUF` of a page's socket, as asked for (Linux doubles it).
    pub send_buffer_size: u32,
    /// `SO_RCVBUF` of a page's socket, as asked for (Linux doubles it).
    pub receive_buffer_size: u32,
    /// `TCP_NOTSENT_LOWAT` of a page's socket: unsent bytes that the kernel takes at most.
    pub notsent_size_max: u32,
    /// Connections that the kernel may hold whole before they are accepted (`listen`'s backlog).
    pub backlog_max: u32,
    /// `TCP_USER_TIMEOUT` of a page's socket: unacknowledged for so long is dead.
    pub user_timeout_ms: u32,
    /// All pages' bytes in the kernel together; past it the slowest pages are closed first.
    pub kernel_size_max: u64,
    /// A request head must be whole within this time.
    pub head_ms_max: u32,
    /// A page must have a subscription, or wait for one, within this time after its upgrade.
    pub first_subscribe_ms_max: u32,
    /// A page without a live subscription is closed after this time, whatever it asks for.
    pub unsubscribed_ms_max: u32,
    /// A WebSocket ping goes out after so long.
    pub ping_ms: u32,
    /// An `alive` frame goes out when nothing else did for so long.
    pub alive_ms: u32,
    /// A page from which nothing came for this time is dead, once a ping has had `ping_ms` to be answered.
    pub dead_ms: u32,
    /// A page that has something ahead and makes no progress for so long is closed with 1013.
    pub stalled_ms_max: u32,
    /// A page that is more than one group behind skips to the newest group once that is so old.
    pub media_lag_ms_max: u32,
    /// A peer that doesn't answer our close frame is cut off after so long.
    pub close_ms_max: u32,
    /// `subscribe` frames that a page may send at once; one more each second from then on.
    pub page_asks_burst: u32,
    /// `subscribe` frames that an address may send at once.
    pub address_asks_burst: u32,
    /// `subscribe` frames that an address may send each second from then on.
    pub address_asks_per_s: u32,
    /// `send` frames that a page may send at once; one more each second from then on.
    pub sends_burst: u32,

    // The uplink.
    /// Bytes of the buffer for what goes to the business server.
    pub uplink_out_size: u32,

    // The engineer's serial line, where the configuration says nothing of it.
    /// The box's console tty, or [`OFF`].
    pub serial_device: &'static str,
    /// Its speed, one of [`SPEEDS`].
    pub serial_speed: u32,
}

/// The word for no serial line.
pub const OFF: &str = "off";

/// The speeds of a serial line that every Linux knows.
pub const SPEEDS: [u32; 18] = [
    1_200, 2_400, 4_800, 9_600, 19_200, 38_400, 57_600, 115_200, 230_400, 460_800, 500_000, 576_000, 921_600,
    1_000_000, 1_500_000, 2_000_000, 3_000_000, 4_000_000,
];

impl Board {
    /// The box's console tty; `None` where it has none.
    #[must_use]
    pub fn serial(&self) -> Option<&'static str> {
        Some(self.serial_device).filter(|device| *device != OFF)
    }

    /// Bytes of the largest publication that any track takes: what the uplink's input buffer must hold whole.
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

    /// Blocks that the media rings of one topic hold at most: audio, video, and the init segments of both.
    #[must_use]
    pub const fn media_blocks_per_topic(&self) -> u64 {
        self.audio.blocks_max as u64 + self.video.blocks_max as u64 + 2 * self.init.blocks_max as u64
    }

    /// Blocks of the arena that are set aside for the `state` and `messages` rings of all topics.
    #[must_use]
    pub const fn guaranteed_blocks(&self) -> u64 {
        self.topics_max as u64 * (self.state.blocks_max as u64 + self.messages.blocks_max as u64)
    }
}
