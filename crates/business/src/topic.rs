//! One topic: its epoch and its four tracks.
//!
//! Owns nothing else. Doesn't know which relays have it.

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
        Self { epoch, tracks }
    }

    /// The current epoch.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The history of a track.
    #[must_use]
    pub const fn track(&self, track: Track) -> &History {
        &self.tracks[track.index()]
    }

    /// Publishes with the track's next sequence, which it returns.
    ///
    /// # Errors
    /// The publication is invalid; nothing changed.
    pub(crate) fn publish(&mut self, track: Track, part: Part<'_>, data: &[u8]) -> Result<u64, PublishError> {
        let sequence = self.track(track).next();
        self.publish_as(track, sequence, part, data).map(|()| sequence)
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
