//! One topic: its epoch and its four tracks.
//!
//! Owns nothing else. Counts the relays that have it and their pages; doesn't know which they are.

use wire::{
    Track,
    uplink::{Part, Since},
};

use super::{
    Limits, PublishError,
    history::{Bounds, Cursor, History, Publication},
};

/// The order in which tracks are sent to relays: what pages get first comes first. The relay's own
/// order for pages is `Planning::page` in `relay/transmit.rs`.
const ORDER: [Track; 4] = [Track::Messages, Track::State, Track::Audio, Track::Video];

/// An open topic.
#[derive(Debug)]
pub struct Topic {
    epoch: u64,
    tracks: [History; 4],
    relays: usize,
    pages: u64,
}

/// A relay's position in a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursors([Cursor; 4]);

impl Topic {
    /// A topic without publications, whose next ones have these sequences.
    pub(crate) fn new(number: u32, epoch: u64, next: [u64; 4], limits: &Limits) -> Self {
        let tracks = Track::ALL.map(|track| {
            let bounds = match track {
                Track::State => Bounds { count_max: 1, size_max: usize::MAX },
                Track::Messages => Bounds { count_max: limits.messages_max, size_max: limits.messages_size_max },
                Track::Audio | Track::Video => Bounds { count_max: usize::MAX, size_max: limits.media_size_max },
            };
            History::new(number, track, bounds, next[track.index()].max(1))
        });
        Self { epoch, tracks, relays: 0, pages: 0 }
    }

    /// The current epoch.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number of relays that have it.
    pub(crate) const fn relays(&self) -> usize {
        self.relays
    }

    /// The number of pages that these relays reported.
    pub(crate) const fn pages(&self) -> u64 {
        self.pages
    }

    /// Counts a relay that was admitted, without pages yet.
    pub(crate) const fn joined(&mut self) {
        self.relays += 1;
    }

    /// Counts a relay that is gone, which had this many pages.
    pub(crate) fn left(&mut self, pages: u32) {
        self.relays -= 1;
        self.pages -= u64::from(pages);
    }

    /// Counts a relay's pages, which were this many before.
    pub(crate) fn repaged(&mut self, before: u32, pages: u32) {
        self.pages = self.pages - u64::from(before) + u64::from(pages);
    }

    /// The memory of what its tracks keep, in bytes: the frames, and 64 for each.
    #[must_use]
    pub fn size(&self) -> usize {
        self.tracks.iter().map(History::size).sum()
    }

    /// The history of a track.
    #[must_use]
    pub const fn track(&self, track: Track) -> &History {
        &self.tracks[track.index()]
    }

    /// Publishes with a sequence assigned elsewhere: the next one, or a later one, which leaves a
    /// gap.
    ///
    /// # Errors
    /// The publication is invalid; nothing changed.
    pub(crate) fn publish_as(
        &mut self,
        track: Track,
        sequence: u64,
        part: Part<'_>,
        data: &[u8],
    ) -> Result<(), PublishError> {
        self.tracks[track.index()].publish(sequence, part, data)
    }

    /// Puts other data in the place of a kept publication. Returns whether it was kept.
    pub(crate) fn replace(&mut self, track: Track, sequence: u64, data: &[u8]) -> bool {
        self.tracks[track.index()].replace(sequence, data)
    }

    /// The cursors of a newly admitted relay: where it wants to resume, or those of a late page.
    pub(crate) fn cursors(&self, since: Option<Since>, replay: u16) -> Cursors {
        let wanted = since.filter(|since| since.epoch == self.epoch).map_or([0; 4], |since| since.next);
        Cursors(Track::ALL.map(|track| self.track(track).cursor(wanted[track.index()], replay)))
    }

    /// Takes the next publication for a relay.
    pub(crate) fn take(&self, cursors: &mut Cursors) -> Option<&Publication> {
        ORDER.into_iter().find_map(|track| self.track(track).take(&mut cursors.0[track.index()]))
    }
}
