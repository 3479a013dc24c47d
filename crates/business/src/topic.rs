//! One topic: its epoch and its four tracks.
//!
//! Owns nothing else. Doesn't know who watches it.

use wire::{
    Track,
    uplink::{Part, Since},
};

use super::{
    Limits, PublishError,
    history::{Bounds, Cursor, History, Publication},
};

/// Relays read the tracks in this order, as their pages are served.
const ORDER: [Track; 4] = [Track::Messages, Track::State, Track::Audio, Track::Video];

/// A topic that is open.
#[derive(Debug)]
pub struct Topic {
    epoch: u64,
    tracks: [History; 4],
}

/// A relay's place in a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursors([Cursor; 4]);

impl Topic {
    /// A topic of which nothing is kept, and whose next publications have these sequences.
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

    /// The running epoch.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What was published on a track.
    #[must_use]
    pub const fn track(&self, track: Track) -> &History {
        &self.tracks[track.index()]
    }

    /// Publishes under the track's next sequence, which it returns.
    ///
    /// # Errors
    /// The track can't carry it; nothing changed.
    pub(crate) fn publish(&mut self, track: Track, part: Part<'_>, data: &[u8]) -> Result<u64, PublishError> {
        let sequence = self.track(track).next();
        self.publish_as(track, sequence, part, data).map(|()| sequence)
    }

    /// Publishes under a sequence that somebody else gave: the next one, or a later one, which leaves a gap.
    ///
    /// # Errors
    /// The track can't carry it; nothing changed.
    pub(crate) fn publish_as(
        &mut self,
        track: Track,
        sequence: u64,
        part: Part<'_>,
        data: &[u8],
    ) -> Result<(), PublishError> {
        self.tracks[track.index()].publish(sequence, part, data)
    }

    /// Where a relay begins that was admitted: at its own place, or as a late page does.
    pub(crate) fn cursors(&self, since: Option<Since>, replay: u16) -> Cursors {
        let wanted = since.filter(|since| since.epoch == self.epoch).map_or([0; 4], |since| since.next);
        Cursors(Track::ALL.map(|track| self.track(track).cursor(wanted[track.index()], replay)))
    }

    /// The next publication for a relay, which is taken to be sent it.
    pub(crate) fn take(&self, cursors: &mut Cursors) -> Option<&Publication> {
        ORDER.into_iter().find_map(|track| self.track(track).take(&mut cursors.0[track.index()]))
    }
}
