//! A topic: what the business server publishes under one number, as six logs.
//!
//! Owns the rules of the four tracks on the publishing side: which sequence is expected, what is a
//! gap, which chunk can be decoded, which group a late page may start with. Refuses publications
//! that are superfluous, not JSON, too large, or not decodable, each with its [`DropReason`]; what
//! pages miss by that becomes a gap entry of the log. Doesn't know pages, only how many there are.
//! What a page gets from a log is `cursor.rs`.

use super::{
    acceptance::Acceptance,
    log::{Entry, Extent, Kind, Log, Store},
    time::Instant,
    traffic::Probe,
    walks::Viewers,
};
use board::{Board, TrackLimits};
use wire::{
    MIME_SIZE_MAX, Track, json,
    page::{Encoded, Notice},
    uplink::Part,
};

/// Logs of one topic: one for each track, and one for the init segments of each media track.
pub const LOGS: usize = 6;
/// Index of the log of `audio`'s init segments; `video`'s follows.
const INIT_LOGS: usize = 4;

/// A topic of the business server.
#[derive(Debug)]
pub struct Topic {
    number: u32,
    epoch: u64,
    /// The logs: by track, then the two for init segments.
    pub logs: [Log; LOGS],
    next: [u64; 4],
    media: [Media; 2],
    /// Its live subscriptions.
    pub viewers: Viewers,
    /// Its state at the business server.
    pub acceptance: Acceptance,
    /// The publication whose latency is measured.
    pub(super) probe: Probe,
}

/// State of a media track besides its logs.
#[derive(Clone, Copy, Debug, Default)]
struct Media {
    /// A `Continue` may follow: it belongs to the newest group.
    running: bool,
    /// The sequence of the current init segment; 0 if there is none or it is unknown.
    init: u64,
    group: Option<Group>,
}

/// A group of media. A late page needs everything from its start on.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The entry of its first chunk.
    pub number: u64,
    /// The offset of its first chunk.
    pub at: u64,
    /// The sequence of its first chunk.
    pub sequence: u64,
    /// The sequence of the init segment that was current at its start.
    pub init: u64,
    /// When it started.
    pub started: Instant,
}

/// Why a publication was not added to its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Its sequence is below the expected one: it was replayed again.
    Superfluous,
    /// Its data is not a JSON value in UTF-8.
    NotJson,
    /// Its data is larger than the board allows for its track.
    TooLarge {
        /// Size of the data in bytes.
        size: usize,
        /// The limit in bytes.
        max: u32,
    },
    /// Its MIME type is longer than 255 bytes.
    MimeTooLong(usize),
    /// A chunk whose group or init segment is missing.
    Undecodable,
    /// The arena has no room, even after all media history was forgotten.
    Full,
}

impl Topic {
    /// Index rows of one topic's logs.
    #[must_use]
    pub const fn index_rows(board: &Board) -> usize {
        let media = board.audio.frames_max + board.video.frames_max + 2 * board.init.frames_max;
        (board.state.frames_max + board.messages.frames_max + media) as usize
    }

    /// Directory rows of one topic's logs.
    #[must_use]
    pub const fn directory_rows(board: &Board) -> usize {
        let media = board.audio.blocks_max + board.video.blocks_max + 2 * board.init.blocks_max;
        (board.state.blocks_max + board.messages.blocks_max + media) as usize
    }

    /// An empty topic for row `index` of its table.
    #[must_use]
    pub fn new(board: &Board, index: u32, number: u32, epoch: u64, acceptance: Acceptance) -> Self {
        let mut directory = index as usize * Self::directory_rows(board);
        let mut rows = index as usize * Self::index_rows(board);
        let limits = [board.state, board.messages, board.audio, board.video, board.init, board.init];
        let logs = limits.map(|TrackLimits { blocks_max, frames_max, .. }| {
            let log = Log::new(Extent { directory, blocks_max, index: rows, frames_max });
            directory += blocks_max as usize;
            rows += frames_max as usize;
            log
        });
        Self {
            number,
            epoch,
            logs,
            next: [0; 4],
            media: [Media::default(); 2],
            viewers: Viewers::default(),
            acceptance,
            probe: Probe::default(),
        }
    }

    /// Its number at the business server.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Its epoch.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The next sequence expected from the uplink, by track; 0 if unknown.
    #[must_use]
    pub const fn next(&self) -> [u64; 4] {
        self.next
    }

    /// The log of a track.
    #[must_use]
    pub const fn log(&self, track: Track) -> &Log {
        &self.logs[track.index()]
    }

    /// The log of a media track's init segments.
    #[must_use]
    pub const fn init_log(&self, track: Track) -> &Log {
        &self.logs[init_log_index(track)]
    }

    /// The newest state, if one is held.
    #[must_use]
    pub fn newest_state(&self, store: &Store) -> Option<(u64, Entry)> {
        let log = self.log(Track::State);
        let number = log.current().last()?;
        log.entry(store, number).map(|entry| (number, entry))
    }

    /// The group that a page may start with: the newest, if all of it and its init segment are
    /// held.
    #[must_use]
    pub fn group(&self, store: &Store, track: Track) -> Option<Group> {
        let group = self.media[media_index(track)].group?;
        self.log(track).entry(store, group.number)?;
        let init = self.init_log(track);
        let number = init.number_of(store, group.init)?;
        (init.entry(store, number)?.sequence == group.init).then_some(group)
    }

    /// The init segment that applies before a sequence: its entry in the init log, if it is held.
    #[must_use]
    pub fn init_before(&self, store: &Store, track: Track, sequence: u64) -> Option<(u64, Entry)> {
        let log = self.init_log(track);
        let number = log.number_within(store, log.current(), sequence)?;
        log.entry(store, number).map(|entry| (number, entry))
    }

    /// The first place at or after an offset where a page can start: an init segment or the start
    /// of a group.
    #[must_use]
    pub fn first_start(&self, store: &Store, track: Track, from: u64) -> Option<Entry> {
        let log = self.log(track);
        let group_at = self.media[media_index(track)].group.map_or(0, |group| group.at);
        if group_at < from && !log.is_special_since(from) {
            return None;
        }
        let mut number = log.number_at(store, from)?;
        while let Some(entry) = log.entry(store, number) {
            if matches!(entry.kind, Kind::Init | Kind::Start) {
                return Some(entry);
            }
            number += 1;
        }
        None
    }

    /// The offset from which a page that comes now is served: the start of the newest group, else
    /// an init segment that still awaits its first group, else the log's end.
    #[must_use]
    pub fn late_media(&self, store: &Store, track: Track) -> u64 {
        let log = self.log(track);
        let media = &self.media[media_index(track)];
        let has_group = media.group.is_some_and(|group| group.sequence > media.init);
        match self.group(store, track) {
            Some(group) => group.at,
            None if media.init != 0 && !has_group => log
                .number_of(store, media.init)
                .and_then(|number| log.entry(store, number))
                .filter(|entry| entry.sequence == media.init)
                .map_or(log.end(), |entry| entry.at),
            None => log.end(),
        }
    }

    /// The sequence that a page expects next once it has read all of a track; 0 if nothing set the
    /// counter: an init segment before the first group may be a repeated one, and no gap is sent
    /// for the hole after it.
    #[must_use]
    pub fn behind(&self, track: Track) -> u64 {
        let begun = !track.is_media() || self.media[media_index(track)].group.is_some();
        if begun { self.log(track).next_sequence() } else { 0 }
    }

    /// The newest group, held or not.
    #[must_use]
    pub fn newest_group(&self, track: Track) -> Option<Group> {
        self.media[media_index(track)].group
    }

    /// Most arena blocks that a frame with this much data needs, including a gap before it and the
    /// second copy of an init segment.
    #[must_use]
    pub fn blocks_needed(board: &Board, part: Part<'_>, data_size: usize) -> u32 {
        let copies = if matches!(part, Part::Init { .. }) { 2 } else { 1 };
        let size = data_size.saturating_add(FRAME_MARGIN_SIZE) / board.block_size as usize + 2;
        copies * u32::try_from(size).unwrap_or(u32::MAX / 2)
    }

    /// Appends a publication to its track's log. The caller makes sure that the arena has
    /// [`blocks_needed`](Self::blocks_needed).
    ///
    /// # Errors
    /// Why it was dropped. Its sequence is part of a gap from now on, unless it was `Superfluous`.
    #[expect(clippy::too_many_arguments, reason = "a publication's four fields, and what it changes")]
    pub fn publish(
        &mut self,
        store: &mut Store,
        board: &Board,
        now: Instant,
        track: Track,
        sequence: u64,
        part: Part<'_>,
        data: &[u8],
    ) -> Result<(), DropReason> {
        if self.is_superfluous(track, sequence) {
            return Err(DropReason::Superfluous);
        }
        if let Some(fault) = self.fault(board, track, sequence, part, data) {
            return Err(self.leave_out(store, track, sequence, part, fault));
        }
        match self.append(store, now, track, sequence, part, data) {
            Ok(()) => {
                self.next[track.index()] = sequence + 1;
                if track == Track::Messages {
                    self.acceptance.moved(now);
                }
                Ok(())
            }
            Err(_) => Err(self.leave_out(store, track, sequence, part, DropReason::Full)),
        }
    }

    /// Why a publication that is not superfluous can't be shown, however much room there is.
    #[must_use]
    pub fn fault(&self, board: &Board, track: Track, sequence: u64, part: Part<'_>, data: &[u8]) -> Option<DropReason> {
        let max = data_size_max(board, track, part);
        match part {
            _ if data.len() > max as usize => Some(DropReason::TooLarge { size: data.len(), max }),
            Part::Init { mime } if mime.len() > MIME_SIZE_MAX => Some(DropReason::MimeTooLong(mime.len())),
            Part::Whole if !json::is_value(data) => Some(DropReason::NotJson),
            _ if track.is_media() && !self.is_decodable(track, sequence, part) => Some(DropReason::Undecodable),
            _ => None,
        }
    }

    /// Whether a sequence was published already.
    #[must_use]
    pub const fn is_superfluous(&self, track: Track, sequence: u64) -> bool {
        sequence < self.next[track.index()]
    }

    /// Drops a publication that can't be used: its sequence becomes part of a gap.
    pub fn leave_out(
        &mut self,
        store: &mut Store,
        track: Track,
        sequence: u64,
        part: Part<'_>,
        drop: DropReason,
    ) -> DropReason {
        if self.is_superfluous(track, sequence) {
            return DropReason::Superfluous;
        }
        self.next[track.index()] = sequence + 1;
        if track.is_media() {
            let media = &mut self.media[media_index(track)];
            media.running = false;
            if matches!(part, Part::Init { .. }) {
                // What follows needs an init segment that no page has.
                media.init = 0;
            }
        } else if track == Track::Messages {
            // A gap in media goes before the next frame, one in messages at once. If even the gap
            // finds no room, it goes before the next message.
            let _ = self.append_gap(store, track, sequence + 1);
        }
        drop
    }

    /// Begins a new epoch; `false` if the topic is in it already.
    pub fn begin_epoch(&mut self, store: &mut Store, epoch: u64, now: Instant) -> bool {
        if self.epoch == epoch {
            return false;
        }
        self.epoch = epoch;
        self.next = [0; 4];
        self.media = [Media::default(); 2];
        self.acceptance.moved(now);
        for log in &mut self.logs {
            log.begin_epoch();
        }
        let notice = Notice::Epoch { topic: self.number, epoch }.encode();
        // The messages' ring has guaranteed blocks, so there is room. If not, each page's plan adds
        // the notice itself.
        let _ = self.logs[Track::Messages.index()].append(store, Kind::Epoch, 0, 0, [&notice, &[], &[]]);
        true
    }

    /// Frees all memory, except frames that pages stopped inside, which are kept while there is
    /// room.
    pub fn clear(&mut self, store: &mut Store) {
        for log in &mut self.logs {
            log.clear(store);
        }
    }

    /// Blocks that `state` and `messages` hold. Each topic is guaranteed as many as their rings may
    /// have.
    #[must_use]
    pub fn guaranteed_blocks(&self, store: &Store) -> u32 {
        self.log(Track::State).blocks(store) + self.log(Track::Messages).blocks(store)
    }

    /// The media log with the most blocks, and how many; `None` if all are empty.
    #[must_use]
    pub fn longest_media(&self, store: &Store) -> Option<(u32, usize)> {
        let media = [Track::Audio.index(), Track::Video.index()];
        let logs = media.into_iter().filter(|&log| self.logs[log].frames() > 0);
        logs.map(|log| (self.logs[log].blocks(store), log)).max()
    }

    fn is_decodable(&self, track: Track, sequence: u64, part: Part<'_>) -> bool {
        let media = &self.media[media_index(track)];
        match part {
            Part::Init { .. } => true,
            Part::Start => media.init != 0,
            Part::Continue => media.running && sequence == self.next[track.index()],
            Part::Whole => false,
        }
    }

    fn append(
        &mut self,
        store: &mut Store,
        now: Instant,
        track: Track,
        sequence: u64,
        part: Part<'_>,
        data: &[u8],
    ) -> Result<(), super::log::Full> {
        if track != Track::State {
            self.append_gap(store, track, sequence)?;
        }
        let encoded = Encoded::publication(self.number, track, sequence, part, data);
        let pieces = [&encoded.prefix[..], encoded.data, encoded.suffix];
        let kind = match part {
            Part::Whole => Kind::Whole,
            Part::Init { .. } => Kind::Init,
            Part::Start => Kind::Start,
            Part::Continue => Kind::Continue,
        };
        if kind == Kind::Init {
            self.logs[init_log_index(track)].append(store, kind, sequence, sequence + 1, pieces)?;
        }
        let at = self.log(track).end();
        let number = self.logs[track.index()].append(store, kind, sequence, sequence + 1, pieces)?;
        if track.is_media() {
            let media = &mut self.media[media_index(track)];
            match kind {
                Kind::Init => (media.init, media.running) = (sequence, false),
                Kind::Start => {
                    media.group = Some(Group { number, at, sequence, init: media.init, started: now });
                    media.running = true;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Appends a gap entry for the sequences missing before `sequence`.
    fn append_gap(&mut self, store: &mut Store, track: Track, sequence: u64) -> Result<(), super::log::Full> {
        let begun = !track.is_media() || self.media[media_index(track)].group.is_some();
        let log = &mut self.logs[track.index()];
        let from = log.next_sequence();
        if from == 0 || !begun || from >= sequence {
            // The first publication of an epoch, and in media the first group (the init segment
            // before it may be a repeated one): no page was promised what came before.
            if from < sequence {
                log.advance(sequence, sequence);
            }
            return Ok(());
        }
        let notice = Notice::Gap { topic: self.number, track, from, to: sequence - 1 }.encode();
        log.append(store, Kind::Gap, from, sequence, [&notice, &[], &[]]).map(drop)
    }
}

/// Most bytes of a frame besides its data, including a gap before it.
const FRAME_MARGIN_SIZE: usize = wire::page::PREFIX_SIZE_MAX + 128;

/// The board's limit for the data of a part of a track, in bytes.
#[must_use]
pub const fn data_size_max(board: &Board, track: Track, part: Part<'_>) -> u32 {
    match (track, part) {
        (_, Part::Init { .. }) => board.init.data_size_max,
        (Track::State, _) => board.state.data_size_max,
        (Track::Messages, _) => board.messages.data_size_max,
        (Track::Audio, _) => board.audio.data_size_max,
        (Track::Video, _) => board.video.data_size_max,
    }
}

/// Index of a media track's init log among the topic's logs.
#[must_use]
pub const fn init_log_index(track: Track) -> usize {
    INIT_LOGS + media_index(track)
}

/// The track that a log's frames or init segments belong to, by its index.
#[must_use]
pub const fn log_track(log: u8) -> Track {
    match log {
        0 => Track::State,
        1 => Track::Messages,
        2 | 4 => Track::Audio,
        _ => Track::Video,
    }
}

const fn media_index(track: Track) -> usize {
    debug_assert!(track.is_media());
    matches!(track, Track::Video) as usize
}

#[cfg(test)]
mod tests {
    use super::super::begun::Begun;
    use super::*;
    use board::TINY;

    fn topic() -> (Store, Topic) {
        let (directory, rows) = (Topic::directory_rows(&TINY), Topic::index_rows(&TINY));
        (
            Store::new(64, 80, directory, rows, Begun::new(4, 64, 8)),
            Topic::new(&TINY, 0, 7, 1, Acceptance::new(Instant(0), 1, Instant::NEVER, false)),
        )
    }

    fn publish(
        store: &mut Store,
        topic: &mut Topic,
        track: Track,
        sequence: u64,
        part: Part<'_>,
    ) -> Result<(), DropReason> {
        topic.publish(store, &TINY, Instant(0), track, sequence, part, b"1")
    }

    #[test]
    fn what_was_published_before_is_superfluous() {
        let (mut store, mut topic) = topic();
        assert_eq!(publish(&mut store, &mut topic, Track::Messages, 5, Part::Whole), Ok(()));
        assert_eq!(publish(&mut store, &mut topic, Track::Messages, 5, Part::Whole), Err(DropReason::Superfluous));
        assert_eq!(topic.next, [0, 6, 0, 0]);
    }

    #[test]
    fn a_hole_in_the_messages_is_an_entry_of_its_own() {
        let (mut store, mut topic) = topic();
        for sequence in [1, 4] {
            assert_eq!(publish(&mut store, &mut topic, Track::Messages, sequence, Part::Whole), Ok(()));
        }
        let log = topic.log(Track::Messages);
        let kinds: Vec<_> = log.current().filter_map(|n| log.entry(&store, n)).map(|e| (e.kind, e.sequence)).collect();
        assert_eq!(kinds, [(Kind::Whole, 1), (Kind::Gap, 2), (Kind::Whole, 4)]);
    }

    #[test]
    fn what_can_t_be_shown_says_why_and_leaves_a_gap() {
        let (mut store, mut topic) = topic();
        let mut publish = |sequence, data: &[u8]| {
            topic.publish(&mut store, &TINY, Instant(0), Track::Messages, sequence, Part::Whole, data)
        };
        assert_eq!(publish(1, b"1"), Ok(()));
        assert_eq!(publish(2, b"{"), Err(DropReason::NotJson));
        assert_eq!(publish(3, &[b'1'; 121]), Err(DropReason::TooLarge { size: 121, max: 120 }));
        assert_eq!(topic.log(Track::Messages).next_sequence(), 4);
    }

    #[test]
    fn a_chunk_without_its_group_or_init_can_t_be_decoded() {
        let (mut store, mut topic) = topic();
        let init = Part::Init { mime: "m" };
        for (sequence, part, result) in [
            (1, Part::Start, Err(DropReason::Undecodable)),
            (2, init, Ok(())),
            (3, Part::Continue, Err(DropReason::Undecodable)),
            (4, Part::Start, Ok(())),
            (5, Part::Continue, Ok(())),
            (7, Part::Continue, Err(DropReason::Undecodable)),
            (8, Part::Continue, Err(DropReason::Undecodable)),
            (9, Part::Start, Ok(())),
            (10, init, Ok(())),
            (11, Part::Continue, Err(DropReason::Undecodable)),
        ] {
            assert_eq!(publish(&mut store, &mut topic, Track::Video, sequence, part), result, "{sequence}");
        }
    }

    #[test]
    fn after_an_init_that_is_too_large_nothing_starts() {
        let (mut store, mut topic) = topic();
        let init = Part::Init { mime: "m" };
        assert_eq!(publish(&mut store, &mut topic, Track::Video, 1, init), Ok(()));
        let large = topic.publish(&mut store, &TINY, Instant(0), Track::Video, 2, init, &[0; 101]);
        assert_eq!(large, Err(DropReason::TooLarge { size: 101, max: 100 }));
        assert_eq!(publish(&mut store, &mut topic, Track::Video, 3, Part::Start), Err(DropReason::Undecodable));
    }

    #[test]
    fn a_group_that_outgrew_its_ring_is_given_to_no_further_page() {
        let (mut store, mut topic) = topic();
        assert_eq!(publish(&mut store, &mut topic, Track::Audio, 1, Part::Init { mime: "m" }), Ok(()));
        assert_eq!(publish(&mut store, &mut topic, Track::Audio, 2, Part::Start), Ok(()));
        for sequence in 3..=5 {
            assert!(topic.group(&store, Track::Audio).is_some());
            assert_eq!(publish(&mut store, &mut topic, Track::Audio, sequence, Part::Continue), Ok(()));
        }
        assert!(topic.group(&store, Track::Audio).is_some());
        assert_eq!(publish(&mut store, &mut topic, Track::Audio, 6, Part::Continue), Ok(()));
        assert!(topic.group(&store, Track::Audio).is_none());
    }

    #[test]
    fn a_new_epoch_resets_the_expected_sequences() {
        let (mut store, mut topic) = topic();
        assert_eq!(publish(&mut store, &mut topic, Track::Messages, 5, Part::Whole), Ok(()));
        assert!(topic.begin_epoch(&mut store, 2, Instant(0)));
        assert!(!topic.begin_epoch(&mut store, 2, Instant(0)));
        assert_eq!(publish(&mut store, &mut topic, Track::Messages, 1, Part::Whole), Ok(()));
        topic.clear(&mut store);
        assert_eq!(store.free(), 80);
    }
}
