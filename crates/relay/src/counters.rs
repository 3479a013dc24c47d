//! The machine's counters: every outcome has a counter, and every table reports how much of it is
//! in use.
//!
//! [`Counters`] only grow and are never reset; [`InUse`] is a snapshot. Both are plain values: the
//! machine's parts add to them, the console and the metrics read them. Bytes by track and latency
//! are counted in `traffic.rs`.

/// The close codes: the page closed, a protocol error, invalid UTF-8, a broken rule, a message too
/// big, a drain, and lack of room or progress.
pub const CLOSE_CODES: [u16; 7] = [1000, 1002, 1007, 1008, 1009, 1012, 1013];

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name says what is counted")]
pub struct Counters {
    pub pages_opened: u64,
    pub pages_closed: u64,
    pub refused_full: u64,
    pub refused_address: u64,
    pub refused_draining: u64,
    pub page_frames: u64,
    pub page_faults: u64,
    pub page_messages: u64,
    pub sends_limited: u64,
    pub receipts_dropped: u64,
    pub asks_limited: u64,
    pub asked: u64,
    pub subscribed: u64,
    pub denied: u64,
    pub closed: [u64; CLOSE_CODES.len()],
    pub closed_slow: u64,
    pub closed_for_memory: u64,
    pub cut: u64,
    pub dead: u64,
    pub blocked: u64,
    pub published: [u64; 4],
    pub deliveries: [u64; 4],
    pub missed: [u64; 4],
    pub superseded: u64,
    pub gaps: [u64; 4],
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
    pub uplink_frames_in: u64,
    pub uplink_bytes_in: u64,
    pub uplink_bytes_out: u64,
}

impl Counters {
    /// Counts the close of a page with a code.
    pub(super) fn count_close(&mut self, code: u16) {
        let place = CLOSE_CODES.iter().position(|known| *known == code);
        debug_assert!(place.is_some(), "close code {code} is not in CLOSE_CODES");
        if let Some(place) = place {
            self.closed[place] += 1;
        }
    }

    /// Every counter with its name; counters by track have one row for each track.
    #[must_use]
    pub fn rows(&self) -> [(&'static str, u64); 58] {
        // No `..` here: a new counter must be added to the list below, or this doesn't compile.
        let Self {
            pages_opened,
            pages_closed,
            refused_full,
            refused_address,
            refused_draining,
            page_frames,
            page_faults,
            page_messages,
            sends_limited,
            receipts_dropped,
            asks_limited,
            asked,
            subscribed,
            denied,
            closed,
            closed_slow,
            closed_for_memory,
            cut,
            dead,
            blocked,
            published,
            deliveries,
            missed,
            superseded,
            gaps,
            inits_repeated,
            bytes_sent,
            writes,
            superfluous,
            dropped,
            unknown_topic,
            media_shed,
            requests,
            requests_unanswered,
            topics_refused,
            dials,
            uplink_losses,
            uplink_frames_in,
            uplink_bytes_in,
            uplink_bytes_out,
        } = self;
        let [closed_1000, closed_1002, closed_1007, closed_1008, closed_1009, closed_1012, closed_1013] = closed;
        [
            ("pages_opened", *pages_opened),
            ("pages_closed", *pages_closed),
            ("refused_full", *refused_full),
            ("refused_address", *refused_address),
            ("refused_draining", *refused_draining),
            ("page_frames", *page_frames),
            ("page_faults", *page_faults),
            ("page_messages", *page_messages),
            ("sends_limited", *sends_limited),
            ("receipts_dropped", *receipts_dropped),
            ("asks_limited", *asks_limited),
            ("asked", *asked),
            ("subscribed", *subscribed),
            ("denied", *denied),
            ("closed_1000", *closed_1000),
            ("closed_1002", *closed_1002),
            ("closed_1007", *closed_1007),
            ("closed_1008", *closed_1008),
            ("closed_1009", *closed_1009),
            ("closed_1012", *closed_1012),
            ("closed_1013", *closed_1013),
            ("closed_slow", *closed_slow),
            ("closed_for_memory", *closed_for_memory),
            ("cut", *cut),
            ("dead", *dead),
            ("blocked", *blocked),
            ("published_state", published[0]),
            ("published_messages", published[1]),
            ("published_audio", published[2]),
            ("published_video", published[3]),
            ("deliveries_state", deliveries[0]),
            ("deliveries_messages", deliveries[1]),
            ("deliveries_audio", deliveries[2]),
            ("deliveries_video", deliveries[3]),
            ("missed_state", missed[0]),
            ("missed_messages", missed[1]),
            ("missed_audio", missed[2]),
            ("missed_video", missed[3]),
            ("superseded", *superseded),
            ("gaps_state", gaps[0]),
            ("gaps_messages", gaps[1]),
            ("gaps_audio", gaps[2]),
            ("gaps_video", gaps[3]),
            ("inits_repeated", *inits_repeated),
            ("bytes_sent", *bytes_sent),
            ("writes", *writes),
            ("superfluous", *superfluous),
            ("dropped", *dropped),
            ("unknown_topic", *unknown_topic),
            ("media_shed", *media_shed),
            ("requests", *requests),
            ("requests_unanswered", *requests_unanswered),
            ("topics_refused", *topics_refused),
            ("dials", *dials),
            ("uplink_losses", *uplink_losses),
            ("uplink_frames_in", *uplink_frames_in),
            ("uplink_bytes_in", *uplink_bytes_in),
            ("uplink_bytes_out", *uplink_bytes_out),
        ]
    }
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
    pub begun_frames: u32,
    pub kept_blocks: u32,
    pub blocks: u32,
}
