//! A topic of the engine `memory`: counters, what is kept of each track, and the fence.
//!
//! Owns the rules of a topic: what may follow what, what is trimmed, what expires, and how counters
//! jump between two reigns. Doesn't know other topics, names or doorbells.

use core::time::Duration;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use business::PublishError;
use wire::{DATA_SIZE_MAX, MIME_SIZE_MAX, SEQUENCE_END, Track};

use super::limits::Limits;
use crate::engine::{Append, Attached, Entry, LEASE_QUIET, LEASE_TIME, Lease, Part, Refusal, Seen, StreamId};

/// By how much a counter jumps where a new reign begins: more than what one reign can have lost.
pub(super) const JUMP: u64 = 1 << 20;
/// The memory of an entry besides its bytes, of a key, and of a topic, in bytes: rows, names and
/// tree nodes, rounded up.
pub(super) const ENTRY_SIZE: usize = 96;
pub(super) const KEY_SIZE: usize = 256;
pub(super) const TOPIC_SIZE: usize = 1024;

/// A topic.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub epoch: u64,
    pub reign: u64,
    pub next: [u64; 4],
    pub state: Option<Entry>,
    pub messages: VecDeque<Entry>,
    pub messages_size: usize,
    media: [Media; 2],
    /// Who publishes audio and video.
    leases: [Option<Held>; 2],
    pub ended: Option<Arc<str>>,
    pub keys: BTreeMap<Arc<str>, Used>,
    /// Keys in the order in which they expire.
    pub keys_by_age: VecDeque<(Duration, Arc<str>)>,
    pub touched: Duration,
    pub check: Duration,
}

/// A media track.
#[derive(Clone, Debug, Default)]
struct Media {
    init: Option<Entry>,
    /// The group before the running one, and the running one.
    kept: VecDeque<Entry>,
    size: usize,
    /// The running group's start; 0: no `Continue` may follow.
    group: u64,
    touched: Duration,
}

/// A lease that was given.
#[derive(Clone, Copy, Debug)]
struct Held {
    lease: Lease,
    until: Duration,
    /// When the stream last published, or began.
    published: Duration,
}

/// An idempotency key that was used.
#[derive(Clone, Debug)]
pub(super) struct Used {
    pub content: [u8; 32],
    pub track: Track,
    pub sequence: u64,
}

/// Whether this can be published on the track at all.
pub(super) fn check(track: Track, part: &Part, data: &[u8]) -> Result<(), PublishError> {
    if track.is_media() == (*part == Part::Whole) {
        return Err(PublishError::PartOfOtherTrack);
    }
    if data.len() > DATA_SIZE_MAX || matches!(part, Part::Init { mime } if mime.len() > MIME_SIZE_MAX) {
        return Err(PublishError::TooLarge);
    }
    Ok(())
}

impl Topic {
    pub fn new(epoch: u64, reign: u64, now: Duration, check: Duration) -> Self {
        Self {
            epoch,
            reign,
            next: [1; 4],
            state: None,
            messages: VecDeque::new(),
            messages_size: 0,
            media: <[Media; 2]>::default(),
            leases: [None; 2],
            ended: None,
            keys: BTreeMap::new(),
            keys_by_age: VecDeque::new(),
            touched: now,
            check,
        }
    }

    /// Its bytes, as they count.
    pub fn size(&self) -> usize {
        let fixed = TOPIC_SIZE + self.keys.len() * KEY_SIZE;
        let whole = self.state.iter().map(Entry::size).sum::<usize>() + self.messages_size;
        let media = |media: &Media| media.size + media.init.iter().map(Entry::size).sum::<usize>();
        fixed + whole + self.media.iter().map(media).sum::<usize>()
    }

    /// The fence between two reigns: where another process numbers than before, counters jump above
    /// all that the one before can have given. They jump again if a hub has seen higher numbers:
    /// from a process that was deposed and gave its first ones later than this.
    pub fn fence(&mut self, reign: u64, unix_us: u64, seen: Seen) {
        let mut places = self.next.iter().zip(seen.highest);
        let is_overtaken = seen.epoch == self.epoch && places.any(|(next, highest)| highest >= *next);
        if self.reign == reign && !is_overtaken {
            return;
        }
        self.reign = reign;
        // Two processes that know the same, or whose clocks say the same, still give different
        // numbers.
        let apart = reign % JUMP;
        for (next, seen_highest) in self.next.iter_mut().zip(seen.highest) {
            let highest = if seen.epoch == self.epoch { seen_highest } else { 0 };
            *next = (*next + JUMP).max(highest + 1 + JUMP).max(unix_us) + apart;
            *next = (*next).min(SEQUENCE_END - 1);
        }
        self.media.iter_mut().for_each(|media| media.group = 0);
        // Under a number of the new reign, so that all pages get the same one.
        if let Some(state) = &mut self.state {
            let next = &mut self.next[Track::State.index()];
            state.sequence = *next;
            *next += 1;
        }
    }

    pub fn append(&mut self, now: Duration, limits: &Limits, append: Append) -> Result<u64, Refusal> {
        let Append { track, part, data, replaces, stream, key: _ } = append;
        if let Some(reason) = &self.ended {
            return Err(Refusal::Ended(Arc::clone(reason)));
        }
        if let Some(stream) = stream {
            self.prolong(now, track, stream)?;
        }
        let newest = self.state.as_ref().map_or(0, |state| state.sequence);
        if replaces.is_some_and(|expected| expected != newest) {
            return Err(Refusal::Replaced(newest));
        }
        let sequence = self.next[track.index()];
        if sequence >= SEQUENCE_END {
            return Err(Refusal::Publication(PublishError::OutOfSequences));
        }
        let entry = Entry { sequence, part, data };
        match track {
            Track::State => self.state = Some(entry),
            Track::Messages => {
                self.messages_size += entry.size();
                self.messages.push_back(entry);
                while self.messages.len() > limits.messages_max || self.messages_size > limits.messages_size_max {
                    // The newest is kept, whatever its size.
                    if self.messages.len() == 1 {
                        break;
                    }
                    self.messages_size -= self.messages.pop_front().map_or(0, |oldest| oldest.size());
                }
            }
            Track::Audio | Track::Video => self.medium(track).append(now, limits, entry)?,
        }
        self.next[track.index()] = sequence + 1;
        Ok(sequence)
    }

    /// Gives a media track to a stream, or prolongs what it has.
    pub fn lease(&mut self, now: Duration, track: Track, lease: Lease, begins: bool) -> Result<(), Refusal> {
        if let Some(reason) = &self.ended {
            return Err(Refusal::Ended(Arc::clone(reason)));
        }
        let place = self.leased(track);
        let published = match place {
            Some(held) if held.lease.stream == lease.stream => held.published,
            Some(held) if now < held.until => {
                let is_quiet = now >= held.published.saturating_add(LEASE_QUIET);
                // One that was overtaken does not take it back.
                if !begins || !is_quiet || held.lease.owner != lease.owner {
                    return Err(Refusal::Leased);
                }
                now
            }
            // What it had has run out, and perhaps another one was here.
            _ if !begins => return Err(Refusal::Leased),
            _ => now,
        };
        *place = Some(Held { lease, until: now.saturating_add(LEASE_TIME), published });
        Ok(())
    }

    /// Takes a track back from a stream, if it has it.
    pub fn release(&mut self, track: Track, stream: StreamId) {
        let place = self.leased(track);
        if place.is_some_and(|held| held.lease.stream == stream) {
            *place = None;
        }
    }

    /// A publication of the stream that has the track, or had it last.
    fn prolong(&mut self, now: Duration, track: Track, stream: StreamId) -> Result<(), Refusal> {
        match self.leased(track) {
            Some(held) if held.lease.stream == stream => {
                held.until = now.saturating_add(LEASE_TIME);
                held.published = now;
                Ok(())
            }
            _ => Err(Refusal::Leased),
        }
    }

    const fn leased(&mut self, track: Track) -> &mut Option<Held> {
        let [audio, video] = &mut self.leases;
        if matches!(track, Track::Audio) { audio } else { video }
    }

    /// Audio's or video's.
    const fn medium(&mut self, track: Track) -> &mut Media {
        let [audio, video] = &mut self.media;
        if matches!(track, Track::Audio) { audio } else { video }
    }

    pub fn read(&self, track: Track, from: u64) -> impl Iterator<Item = &Entry> {
        let [audio, video] = &self.media;
        let (alone, kept) = match track {
            Track::State => (&self.state, None),
            Track::Messages => (&None, Some(&self.messages)),
            Track::Audio => (&audio.init, Some(&audio.kept)),
            Track::Video => (&video.init, Some(&video.kept)),
        };
        // An init segment ends all groups, so it comes before what is kept.
        let kept = kept.map(|kept| kept.range(kept.partition_point(|entry| entry.sequence < from)..));
        alone.iter().filter(move |entry| entry.sequence >= from).chain(kept.into_iter().flatten())
    }

    /// Where pages were told that the message at this place was taken down, if it was and that is
    /// kept. `Err` is the place of a message that is not kept itself.
    pub fn removed_at(&self, place: Result<usize, usize>, tombstone: &Arc<[u8]>) -> Option<u64> {
        let after = match place {
            Ok(place) if self.messages.get(place).is_some_and(|entry| entry.data == *tombstone) => place + 1,
            Ok(_) => return None,
            Err(place) => place,
        };
        self.messages.iter().skip(after).find(|entry| entry.data == *tombstone).map(|entry| entry.sequence)
    }

    pub fn attached(&self, now: Duration) -> Attached {
        let mut first = self.next;
        let oldest = [
            self.state.as_ref().map(|state| state.sequence),
            self.messages.front().map(|oldest| oldest.sequence),
            self.media[0].start(),
            self.media[1].start(),
        ];
        first.iter_mut().zip(oldest).for_each(|(first, oldest)| *first = oldest.unwrap_or(*first));
        let init = [self.media[0].init.clone(), self.media[1].init.clone()];
        let is_live = self.leases.map(|held| held.is_some_and(|held| now < held.until));
        Attached { epoch: self.epoch, next: self.next, first, init, is_live, ended: self.ended.clone() }
    }

    pub fn forget_media(&mut self) {
        self.media = <[Media; 2]>::default();
    }

    pub fn expire(&mut self, now: Duration, limits: &Limits) {
        while self.keys_by_age.front().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, key)) = self.keys_by_age.pop_front() {
                self.keys.remove(&key);
            }
        }
        for media in &mut self.media {
            if now >= media.touched.saturating_add(limits.media_ttl) {
                *media = Media { touched: media.touched, ..Media::default() };
            }
        }
    }

    /// When something expires next.
    pub fn due(&self, limits: &Limits) -> Duration {
        let keys = self.keys_by_age.front().map(|(until, _)| *until);
        let media = self.media.iter().filter(|media| media.init.is_some());
        let media = media.map(|media| media.touched.saturating_add(limits.media_ttl));
        let whole = self.touched.saturating_add(limits.history_ttl);
        media.chain(keys).fold(whole, Duration::min)
    }
}

impl Media {
    fn append(&mut self, now: Duration, limits: &Limits, entry: Entry) -> Result<(), Refusal> {
        match entry.part {
            Part::Init { .. } => {
                *self = Self { init: Some(entry), touched: now, ..Self::default() };
                return Ok(());
            }
            Part::Start if self.init.is_some() => {
                // The group that ends is kept, for hubs in the middle of it.
                let ending = self.group;
                while self.kept.front().is_some_and(|oldest| oldest.sequence < ending) {
                    self.forget_oldest();
                }
                self.group = entry.sequence;
            }
            Part::Continue if self.group != 0 => {}
            _ => return Err(Refusal::Publication(PublishError::OutOfOrder)),
        }
        self.touched = now;
        self.size += entry.size();
        self.kept.push_back(entry);
        while self.size > limits.media_size_max && self.kept.len() > 1 {
            self.forget_oldest();
        }
        Ok(())
    }

    fn forget_oldest(&mut self) {
        self.size -= self.kept.pop_front().map_or(0, |oldest| oldest.size());
    }

    /// The running group's start, if it is kept.
    fn start(&self) -> Option<u64> {
        let place = self.kept.binary_search_by_key(&self.group, |entry| entry.sequence);
        (self.group != 0 && place.is_ok()).then_some(self.group)
    }
}

impl Entry {
    /// Its memory, as it counts, in bytes.
    pub(super) fn size(&self) -> usize {
        let mime = if let Part::Init { mime } = &self.part { mime.len() } else { 0 };
        ENTRY_SIZE + self.data.len() + mime
    }
}
