//! One track of one topic: its sequence, and the publications that relays may still need.
//!
//! Owns the sequence, the bounded ring of encoded frames, and the current init segment. A
//! [`Cursor`] is one relay's position in it. Refuses what no page could use: a chunk before its
//! init segment, a `Continue` outside of a group. Doesn't know what the bytes mean, or which relays
//! read.

use std::{collections::VecDeque, fmt, sync::Arc};

use wire::{
    DATA_SIZE_MAX, MIME_SIZE_MAX, SEQUENCE_END, Track,
    uplink::{LENGTH_SIZE, PREFIX_SIZE_MAX, Part, ToRelay, encode},
};

/// The limits of what a track keeps. The newest publication is kept whatever its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The number of publications.
    pub count_max: usize,
    /// Their size in bytes: the frames, and 64 for each. A media group that exceeds it loses its
    /// start: relays in the middle of it continue, others wait for the next group.
    pub size_max: usize,
}

/// Why a publication was refused. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// `Whole` belongs to state and messages, the others to audio and video.
    PartOfOtherTrack,
    /// More than 1 MiB of data, or a MIME type of more than 255 bytes.
    TooLarge,
    /// A chunk without an init segment before it, or a `Continue` without a `Start` or after a gap:
    /// it can't be decoded. The same holds for all chunks until the next `Start`.
    OutOfOrder,
    /// It was already published: its sequence is below the next.
    Superfluous,
    /// The epoch has no sequence left: reopen the topic.
    OutOfSequences,
    /// There is no such topic, or it has ended.
    Closed,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PartOfOtherTrack => "the part does not belong to the track",
            Self::TooLarge => "the data or the MIME type is too large",
            Self::OutOfOrder => "a chunk before its init segment or its group's start",
            Self::Superfluous => "it was already published",
            Self::OutOfSequences => "the epoch has no sequence left",
            Self::Closed => "the topic is closed",
        })
    }
}

/// The memory of a publication besides its frame, in bytes: its row and reference counts.
const PUBLICATION_SIZE: usize = 64;

/// One publication, encoded as the frame that is sent to every relay.
#[derive(Clone, Debug)]
pub struct Publication {
    sequence: u64,
    frame: Arc<[u8]>,
    data_size: usize,
}

impl Publication {
    /// Encodes it. `None` if it is too large for a frame.
    fn new(topic: u32, track: Track, sequence: u64, part: Part<'_>, data: &[u8]) -> Option<Self> {
        let mut bytes = vec![0; LENGTH_SIZE + PREFIX_SIZE_MAX + data.len()];
        let size = encode(&ToRelay::Publish { topic, track, sequence, part, data }, &mut bytes)?;
        let frame = bytes.get(..size)?.into();
        Some(Self { sequence, frame, data_size: data.len() })
    }

    /// Its sequence on the track.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The complete uplink frame.
    #[must_use]
    pub const fn frame(&self) -> &Arc<[u8]> {
        &self.frame
    }

    /// Its size in memory, in bytes.
    fn size(&self) -> usize {
        self.frame.len() + PUBLICATION_SIZE
    }

    /// The bytes for the pages: the end of the frame.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.frame.get(self.frame.len() - self.data_size..).unwrap_or_default()
    }
}

/// A relay's position on one track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The lowest sequence that still has to be sent to the relay.
    next: u64,
    /// Media: the sequence of the init segment that the relay has; 0: none.
    init: u64,
    /// Media: the relay has everything before `next` in the group, so that a `Continue` may follow.
    is_inside: bool,
}

/// The publications of one track.
#[derive(Debug)]
pub struct History {
    topic: u32,
    track: Track,
    bounds: Bounds,
    /// The sequence of the next publication.
    next: u64,
    kept: VecDeque<Publication>,
    kept_size: usize,
    /// Media: the current init segment.
    init: Option<Publication>,
    /// Media: the sequence of the current group's start; 0: no `Continue` may follow.
    group: u64,
}

impl History {
    /// A track without publications, whose next one has this sequence.
    pub(crate) const fn new(topic: u32, track: Track, bounds: Bounds, next: u64) -> Self {
        Self { topic, track, bounds, next, kept: VecDeque::new(), kept_size: 0, init: None, group: 0 }
    }

    /// The sequence of the next publication.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// The kept publications, oldest first; of media the current group and the one before it,
    /// without the init segment.
    pub fn kept(&self) -> impl DoubleEndedIterator<Item = &Publication> + ExactSizeIterator {
        self.kept.iter()
    }

    /// The current init segment, if the track is a media track and has one.
    #[must_use]
    pub const fn init(&self) -> Option<&Publication> {
        self.init.as_ref()
    }

    /// The memory of what is kept, in bytes: the frames, and 64 for each.
    #[must_use]
    pub fn size(&self) -> usize {
        self.kept_size + self.init.as_ref().map_or(0, Publication::size)
    }

    /// Publishes with a sequence, [`next`](Self::next) or a later one.
    ///
    /// # Errors
    /// The publication is invalid; nothing changed.
    pub(crate) fn publish(&mut self, sequence: u64, part: Part<'_>, data: &[u8]) -> Result<(), PublishError> {
        if self.track.is_media() == matches!(part, Part::Whole) {
            return Err(PublishError::PartOfOtherTrack);
        }
        if data.len() > DATA_SIZE_MAX || matches!(part, Part::Init { mime } if mime.len() > MIME_SIZE_MAX) {
            return Err(PublishError::TooLarge);
        }
        if sequence < self.next {
            return Err(PublishError::Superfluous);
        }
        if sequence >= SEQUENCE_END {
            return Err(PublishError::OutOfSequences);
        }
        let is_in_order = match part {
            Part::Whole | Part::Init { .. } => true,
            Part::Start => self.init.is_some(),
            // A gap ends the group.
            Part::Continue => self.group != 0 && sequence == self.next,
        };
        if !is_in_order {
            return Err(PublishError::OutOfOrder);
        }
        let publication =
            Publication::new(self.topic, self.track, sequence, part, data).ok_or(PublishError::TooLarge)?;
        self.next = sequence + 1;
        match part {
            Part::Init { .. } => {
                self.init = Some(publication);
                self.group = 0;
                self.forget_before(self.next);
            }
            Part::Start => {
                // Keep the group that ends, for relays that are still in the middle of it.
                self.forget_before(self.group);
                self.group = sequence;
                self.keep(publication);
            }
            Part::Whole | Part::Continue => self.keep(publication),
        }
        Ok(())
    }

    /// Puts other data in the place of a kept publication, not of media. Returns whether it was
    /// kept.
    pub(crate) fn replace(&mut self, sequence: u64, data: &[u8]) -> bool {
        let place = self.kept.binary_search_by_key(&sequence, Publication::sequence);
        let place = place.ok().filter(|_| !self.track.is_media());
        let Some(kept) = place.and_then(|place| self.kept.get_mut(place)) else { return false };
        let Some(new) = Publication::new(self.topic, self.track, sequence, Part::Whole, data) else { return false };
        let old = core::mem::replace(kept, new);
        self.kept_size = self.kept_size - old.size() + kept.size();
        true
    }

    fn keep(&mut self, publication: Publication) {
        self.kept_size += publication.size();
        self.kept.push_back(publication);
        while self.kept.len() > 1 && (self.kept.len() > self.bounds.count_max || self.kept_size > self.bounds.size_max)
        {
            self.forget_oldest();
        }
    }

    fn forget_before(&mut self, sequence: u64) {
        while self.kept.front().is_some_and(|oldest| oldest.sequence < sequence) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.kept.pop_front() {
            self.kept_size -= oldest.size();
        }
    }

    /// The cursor of a relay that wants everything from `wanted` on. If `wanted` is 0, or media
    /// from there is not completely kept, it is that of a late page, with the newest `replay`
    /// messages.
    pub(crate) fn cursor(&self, wanted: u64, replay: u16) -> Cursor {
        // Beyond the next sequence: the relay has received something that was never published here.
        let wanted = if wanted > self.next { 0 } else { wanted };
        let from_start = Cursor { next: wanted, ..Cursor::default() };
        match self.track {
            Track::State => from_start,
            Track::Messages if wanted > 0 => from_start,
            Track::Messages => {
                let newest = self.kept.len().saturating_sub(usize::from(replay));
                Cursor { next: self.kept.get(newest).map_or(self.next, Publication::sequence), ..Cursor::default() }
            }
            Track::Audio | Track::Video => {
                if wanted == 0 {
                    return Cursor::default();
                }
                let held = self.init.iter().chain(&self.kept).filter(|kept| kept.sequence >= wanted).count() as u64;
                if held != self.next - wanted {
                    return Cursor::default();
                }
                let init = self.init.as_ref().map_or(0, Publication::sequence);
                Cursor { next: wanted, init: if init < wanted { init } else { 0 }, is_inside: true }
            }
        }
    }

    /// Takes the next publication for a relay.
    pub(crate) fn take(&self, cursor: &mut Cursor) -> Option<&Publication> {
        if self.track.is_media() {
            return self.take_media(cursor);
        }
        let found = match self.track {
            Track::State => self.kept.back().filter(|newest| newest.sequence >= cursor.next),
            _ => self.kept.get(self.kept.partition_point(|kept| kept.sequence < cursor.next)),
        }?;
        cursor.next = found.sequence + 1;
        Some(found)
    }

    fn take_media(&self, cursor: &mut Cursor) -> Option<&Publication> {
        let init = self.init.as_ref()?;
        if cursor.init != init.sequence {
            cursor.init = init.sequence;
            if cursor.next <= init.sequence {
                let is_inside = cursor.is_inside && cursor.next == init.sequence;
                *cursor = Cursor { next: init.sequence + 1, init: init.sequence, is_inside };
            }
            return Some(init);
        }
        let find = |sequence| {
            let place = self.kept.partition_point(|kept| kept.sequence < sequence);
            self.kept.get(place).filter(|kept| kept.sequence == sequence)
        };
        let found = match find(cursor.next).filter(|_| cursor.is_inside) {
            Some(found) => found,
            None => find(self.group).filter(|start| start.sequence >= cursor.next)?,
        };
        cursor.next = found.sequence + 1;
        cursor.is_inside = true;
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { count_max: 500, size_max: 4 << 20 };
    const INIT: Part<'_> = Part::Init { mime: "video/mp4" };

    fn track(track: Track) -> History {
        History::new(7, track, BOUNDS, 1)
    }

    fn publish(history: &mut History, part: Part<'_>, data: &[u8]) -> Result<u64, PublishError> {
        let sequence = history.next();
        history.publish(sequence, part, data).map(|()| sequence)
    }

    /// The sequences of everything that is sent to a relay.
    fn rest(history: &History, cursor: &mut Cursor) -> Vec<u64> {
        std::iter::from_fn(|| history.take(cursor).map(Publication::sequence)).collect()
    }

    fn from(history: &History, wanted: u64, replay: u16) -> Vec<u64> {
        rest(history, &mut history.cursor(wanted, replay))
    }

    fn video() -> History {
        let mut video = track(Track::Video);
        for part in [INIT, Part::Start, Part::Continue, Part::Start, Part::Continue, Part::Continue] {
            publish(&mut video, part, &[1; 10]).unwrap();
        }
        video
    }

    #[test]
    fn a_late_relay_gets_the_newest() {
        let (mut state, mut messages) = (track(Track::State), track(Track::Messages));
        for text in ["1", "2", "3", "4", "5"] {
            publish(&mut state, Part::Whole, text.as_bytes()).unwrap();
            publish(&mut messages, Part::Whole, text.as_bytes()).unwrap();
        }
        assert_eq!(from(&state, 0, 3), [5]);
        assert_eq!(from(&messages, 0, 3), [3, 4, 5]);
        assert_eq!(from(&messages, 0, 0), [0; 0]);
        assert_eq!(from(&messages, 0, 9), [1, 2, 3, 4, 5]);
        assert_eq!(from(&video(), 0, 3), [1, 4, 5, 6]);
        assert_eq!(from(&track(Track::Audio), 0, 3), [0; 0]);
    }

    #[test]
    fn a_relay_that_comes_back_gets_what_it_lacks() {
        let (mut state, mut messages) = (track(Track::State), track(Track::Messages));
        for text in ["1", "2", "3", "4", "5"] {
            publish(&mut state, Part::Whole, text.as_bytes()).unwrap();
            publish(&mut messages, Part::Whole, text.as_bytes()).unwrap();
        }
        assert_eq!(from(&messages, 2, 1), [2, 3, 4, 5], "beyond the replay too");
        assert_eq!(from(&messages, 6, 3), [0; 0], "nothing is missing");
        assert_eq!(from(&messages, 7, 3), [3, 4, 5], "beyond the counter is 0");
        assert_eq!((from(&state, 3, 3), from(&state, 6, 3)), (vec![5], vec![]));
        for (wanted, expected) in [
            (7, &[][..]),
            (5, &[5, 6]),
            (4, &[4, 5, 6]),
            (2, &[2, 3, 4, 5, 6]),
            (1, &[1, 2, 3, 4, 5, 6]),
            (8, &[1, 4, 5, 6]),
        ] {
            assert_eq!(from(&video(), wanted, 3), expected, "{wanted}");
        }
        let mut video = video();
        publish(&mut video, Part::Start, &[1]).unwrap();
        assert_eq!(from(&video, 3, 3), [1, 7], "3 is gone: as for a late page");
    }

    #[test]
    fn a_relay_that_follows_gets_each_once() {
        let mut video = video();
        let mut cursor = video.cursor(0, 0);
        assert_eq!(rest(&video, &mut cursor), [1, 4, 5, 6]);
        for (part, sequence) in [(Part::Continue, 7), (Part::Start, 8), (INIT, 9), (Part::Start, 10)] {
            publish(&mut video, part, &[1]).unwrap();
            assert_eq!(rest(&video, &mut cursor), [sequence]);
        }
    }

    #[test]
    fn a_relay_that_reads_slowly_skips_to_what_it_can_use() {
        let mut video = video();
        let mut cursor = video.cursor(0, 0);
        assert_eq!(video.take(&mut cursor).map(Publication::sequence), Some(1));
        assert_eq!(video.take(&mut cursor).map(Publication::sequence), Some(4));
        publish(&mut video, Part::Start, &[1]).unwrap();
        assert_eq!(rest(&video, &mut cursor), [5, 6, 7], "the group before is kept for it");
        for _ in 0..2 {
            publish(&mut video, Part::Start, &[1]).unwrap();
            publish(&mut video, Part::Continue, &[1]).unwrap();
        }
        publish(&mut video, Part::Start, &[1]).unwrap();
        assert_eq!(rest(&video, &mut cursor), [12], "8 and 9 are gone");
        publish(&mut video, INIT, &[1]).unwrap();
        publish(&mut video, Part::Start, &[1]).unwrap();
        assert_eq!(rest(&video, &mut cursor), [13, 14]);

        let mut messages = History::new(7, Track::Messages, Bounds { count_max: 3, ..BOUNDS }, 1);
        let mut cursor = messages.cursor(0, 0);
        for _ in 0..9 {
            publish(&mut messages, Part::Whole, b"1").unwrap();
        }
        assert_eq!(rest(&messages, &mut cursor), [7, 8, 9]);
    }

    #[test]
    fn history_is_bounded_by_number_and_by_size() {
        let mut messages = History::new(7, Track::Messages, Bounds { count_max: 10, size_max: 1200 }, 1);
        for _ in 0..30 {
            publish(&mut messages, Part::Whole, b"1").unwrap();
        }
        assert_eq!((messages.kept().next().map(Publication::sequence), messages.kept().len()), (Some(21), 10));
        for _ in 0..9 {
            publish(&mut messages, Part::Whole, &[b'1'; 300]).unwrap();
        }
        assert_eq!(messages.kept().len(), 3);
        publish(&mut messages, Part::Whole, &[b'1'; 3000]).unwrap();
        assert_eq!(messages.kept().len(), 1, "the newest is kept whatever its size");
        assert_eq!(messages.kept_size, messages.kept().map(Publication::size).sum());
    }

    #[test]
    fn a_group_that_outgrows_its_bound_is_live_only() {
        let mut audio = History::new(7, Track::Audio, Bounds { size_max: 1100, ..BOUNDS }, 1);
        publish(&mut audio, INIT, &[]).unwrap();
        publish(&mut audio, Part::Start, &[0; 400]).unwrap();
        let mut inside = audio.cursor(0, 0);
        assert_eq!(rest(&audio, &mut inside), [1, 2]);
        publish(&mut audio, Part::Continue, &[0; 400]).unwrap();
        assert_eq!(from(&audio, 0, 0), [1, 2, 3]);
        publish(&mut audio, Part::Continue, &[0; 400]).unwrap();
        assert_eq!(from(&audio, 0, 0), [1]);
        assert_eq!(rest(&audio, &mut inside), [3, 4]);
        publish(&mut audio, Part::Start, &[0]).unwrap();
        assert_eq!(from(&audio, 0, 0), [1, 5]);
    }

    #[test]
    fn what_nobody_could_decode_is_refused() {
        let mut video = track(Track::Video);
        assert_eq!(publish(&mut video, Part::Start, &[]), Err(PublishError::OutOfOrder));
        publish(&mut video, INIT, &[]).unwrap();
        assert_eq!(publish(&mut video, Part::Continue, &[]), Err(PublishError::OutOfOrder));
        publish(&mut video, Part::Start, &[]).unwrap();
        assert_eq!(video.publish(4, Part::Continue, &[]), Err(PublishError::OutOfOrder), "3 is missing");
        publish(&mut video, INIT, &[]).unwrap();
        assert_eq!(publish(&mut video, Part::Continue, &[]), Err(PublishError::OutOfOrder));
        assert_eq!(publish(&mut video, Part::Whole, &[]), Err(PublishError::PartOfOtherTrack));
        let mut state = track(Track::State);
        assert_eq!(publish(&mut state, Part::Start, &[]), Err(PublishError::PartOfOtherTrack));
        assert_eq!(publish(&mut state, Part::Whole, &vec![0; DATA_SIZE_MAX + 1]), Err(PublishError::TooLarge));
        assert_eq!(state.publish(0, Part::Whole, &[]), Err(PublishError::Superfluous));
        assert_eq!(state.publish(SEQUENCE_END, Part::Whole, &[]), Err(PublishError::OutOfSequences));
        assert_eq!((from(&video, 0, 0), state.next()), (vec![3], 1), "nothing changed");
    }

    #[test]
    fn sequences_may_be_given_and_leave_gaps() {
        let mut messages = track(Track::Messages);
        let mut cursor = messages.cursor(0, 0);
        for sequence in [4, 5, 1 << 20] {
            messages.publish(sequence, Part::Whole, b"1").unwrap();
        }
        assert_eq!(rest(&messages, &mut cursor), [4, 5, 1 << 20]);
        assert_eq!(messages.publish(1 << 20, Part::Whole, b"1"), Err(PublishError::Superfluous));
    }
}
