//! One room, as its business server keeps it: what was published, and what a relay that subscribes
//! must be sent.
//!
//! Owns the epoch, the four sequences, the newest state, a bounded log of messages and, of each
//! media track, the init and the current group. Pure: no socket, no clock. Refuses a part that
//! doesn't belong to its track. Doesn't know what the bytes mean, nor who subscribed.

use core::fmt;
use std::{collections::VecDeque, rc::Rc};

use wire::{
    DATA_SIZE_MAX, MIME_SIZE_MAX, SEQUENCE_END, Track,
    uplink::{Part, Since},
};

/// Messages that a room keeps for relays that come back or come late.
pub const MESSAGES_MAX: usize = 500;
/// Bytes of messages that a room keeps: 256 KiB.
pub const MESSAGES_SIZE_MAX: usize = 256 * 1024;
/// Bytes of a media group that a room keeps: 2 MiB. A group that outgrows it goes on live, and
/// relays that subscribe then wait for the next one.
pub const GROUP_SIZE_MAX: usize = 2 * 1024 * 1024;

/// What a publication is; the owned counterpart of [`Part`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A state or a message.
    Whole,
    /// A media track's init segment, with its MIME type.
    Init(String),
    /// The first chunk of a group.
    Start,
    /// A further chunk of the group.
    Continue,
}

impl Kind {
    /// As it goes on the wire.
    #[must_use]
    pub fn as_part(&self) -> Part<'_> {
        match self {
            Self::Whole => Part::Whole,
            Self::Init(mime) => Part::Init { mime },
            Self::Start => Part::Start,
            Self::Continue => Part::Continue,
        }
    }
}

/// One publication. Immutable, so every relay's queue shares it.
#[derive(Debug, PartialEq, Eq)]
pub struct Publication {
    /// The room's epoch when it was published.
    pub epoch: u64,
    /// Its track.
    pub track: Track,
    /// Its place on the track.
    pub sequence: u64,
    /// What it is.
    pub kind: Kind,
    /// The bytes for the pages.
    pub data: Vec<u8>,
}

/// Why something can't be published. The room is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// `Whole` belongs to state and messages, the others to audio and video.
    PartOfOtherTrack,
    /// More than 1 MiB of data, or a MIME type of more than 255 bytes.
    TooLarge,
    /// A chunk without an init before it, or a `Continue` without a `Start`: nobody could decode it.
    OutOfOrder,
    /// No sequence is left in this epoch: open the room anew.
    OutOfSequences,
    /// There is no such room, or it is closed.
    Closed,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PartOfOtherTrack => "the part does not belong to the track",
            Self::TooLarge => "the data or the MIME type is too large",
            Self::OutOfOrder => "a chunk before its init or its group's start",
            Self::OutOfSequences => "the epoch has no sequence left",
            Self::Closed => "the room is closed",
        })
    }
}

/// A room that is open.
#[derive(Debug)]
pub struct Room {
    epoch: u64,
    /// The next sequence of each track.
    next: [u64; 4],
    state: Option<Rc<Publication>>,
    messages: VecDeque<Rc<Publication>>,
    messages_size: usize,
    audio: Media,
    video: Media,
}

#[derive(Debug, Default)]
struct Media {
    init: Option<Rc<Publication>>,
    /// The current group from its start; empty where none runs or it outgrew its bound.
    group: Vec<Rc<Publication>>,
    group_size: usize,
    /// Whether a `Continue` may follow.
    running: bool,
}

impl Room {
    /// An empty room. `epoch` must differ from every earlier one of the same topic: a relay takes
    /// a new epoch as word that all counters began anew.
    #[must_use]
    pub fn new(epoch: u64) -> Self {
        Self {
            epoch,
            next: [1; 4],
            state: None,
            messages: VecDeque::new(),
            messages_size: 0,
            audio: Media::default(),
            video: Media::default(),
        }
    }

    /// The running epoch.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The newest `count` messages' data, oldest first.
    pub fn newest_messages(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        let from = self.messages.len().saturating_sub(count);
        self.messages.range(from..).map(|message| message.data.as_slice())
    }

    /// Gives a publication its sequence and keeps what later subscribers need of it.
    ///
    /// # Errors
    /// It is not one that the track can carry; nothing changed.
    pub fn publish(&mut self, track: Track, kind: Kind, data: Vec<u8>) -> Result<Rc<Publication>, PublishError> {
        if track.is_media() == (kind == Kind::Whole) {
            return Err(PublishError::PartOfOtherTrack);
        }
        if data.len() > DATA_SIZE_MAX || matches!(&kind, Kind::Init(mime) if mime.len() > MIME_SIZE_MAX) {
            return Err(PublishError::TooLarge);
        }
        if let Some(media) = self.media(track) {
            let in_order = match kind {
                Kind::Start => media.init.is_some(),
                Kind::Continue => media.running,
                Kind::Whole | Kind::Init(_) => true,
            };
            if !in_order {
                return Err(PublishError::OutOfOrder);
            }
        }
        let next = self.next.get_mut(track.index()).filter(|next| **next < SEQUENCE_END);
        let next = next.ok_or(PublishError::OutOfSequences)?;
        let publication = Rc::new(Publication { epoch: self.epoch, track, sequence: *next, kind, data });
        *next += 1;
        self.keep(&publication);
        Ok(publication)
    }

    /// Everything that must follow an `Accept`, in the order in which it is to be sent.
    ///
    /// With `since` of this epoch: each track from there on, where all of that is held. Else, and on
    /// each track where it isn't: what a late page gets, of the messages the newest `replay`.
    #[must_use]
    pub fn replay(&self, since: Option<Since>, replay: u16) -> Vec<Rc<Publication>> {
        let next = since.filter(|since| since.epoch == self.epoch).map_or([0; 4], |since| since.next);
        let mut out = Vec::new();
        for track in Track::ALL {
            let wanted = next.get(track.index()).copied().unwrap_or(0);
            let counter = self.next.get(track.index()).copied().unwrap_or(0);
            // A next beyond the counter says that the relay saw something that this room never published.
            let wanted = if wanted > counter { 0 } else { wanted };
            match track {
                Track::State => out.extend(self.state.iter().filter(|state| state.sequence >= wanted).cloned()),
                Track::Messages if wanted == 0 => {
                    let from = self.messages.len().saturating_sub(usize::from(replay));
                    out.extend(self.messages.range(from..).cloned());
                }
                Track::Messages => {
                    out.extend(self.messages.iter().filter(|message| message.sequence >= wanted).cloned());
                }
                Track::Audio => out.extend(self.audio.replay(wanted, counter)),
                Track::Video => out.extend(self.video.replay(wanted, counter)),
            }
        }
        out
    }

    fn media(&mut self, track: Track) -> Option<&mut Media> {
        match track {
            Track::Audio => Some(&mut self.audio),
            Track::Video => Some(&mut self.video),
            Track::State | Track::Messages => None,
        }
    }

    fn keep(&mut self, publication: &Rc<Publication>) {
        match publication.track {
            Track::State => self.state = Some(Rc::clone(publication)),
            Track::Messages => {
                self.messages_size += publication.data.len();
                self.messages.push_back(Rc::clone(publication));
                while self.messages.len() > MESSAGES_MAX || self.messages_size > MESSAGES_SIZE_MAX {
                    let Some(oldest) = self.messages.pop_front() else { break };
                    self.messages_size -= oldest.data.len();
                }
            }
            Track::Audio => self.audio.keep(publication),
            Track::Video => self.video.keep(publication),
        }
    }
}

impl Media {
    fn keep(&mut self, publication: &Rc<Publication>) {
        match publication.kind {
            Kind::Init(_) => {
                self.init = Some(Rc::clone(publication));
                self.forget_group();
                self.running = false;
                return;
            }
            Kind::Start => {
                self.forget_group();
                self.running = true;
            }
            Kind::Continue if self.group.is_empty() => return,
            Kind::Continue | Kind::Whole => {}
        }
        self.group_size += publication.data.len();
        if self.group_size > GROUP_SIZE_MAX {
            self.forget_group();
        } else {
            self.group.push(Rc::clone(publication));
        }
    }

    fn forget_group(&mut self) {
        self.group.clear();
        self.group_size = 0;
    }

    /// From `wanted` up to `counter` where each of these is held, else the init and the current group.
    fn replay(&self, wanted: u64, counter: u64) -> impl Iterator<Item = Rc<Publication>> {
        let held = || self.init.iter().chain(&self.group);
        let ahead = held().filter(|publication| publication.sequence >= wanted).count() as u64;
        let from = if wanted > 0 && ahead == counter - wanted { wanted } else { 0 };
        held().filter(move |publication| publication.sequence >= from).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(room: &mut Room, track: Track, text: &str) -> u64 {
        room.publish(track, Kind::Whole, text.into()).unwrap().sequence
    }

    fn init() -> Kind {
        Kind::Init("video/mp4".into())
    }

    fn since(epoch: u64, next: [u64; 4]) -> Option<Since> {
        Some(Since { epoch, next })
    }

    fn sequences(room: &Room, track: Track, since: Option<Since>) -> Vec<u64> {
        room.replay(since, 3).iter().filter(|p| p.track == track).map(|p| p.sequence).collect()
    }

    fn with_video() -> Room {
        let mut room = Room::new(7);
        for kind in [init(), Kind::Start, Kind::Continue, Kind::Start, Kind::Continue, Kind::Continue] {
            room.publish(Track::Video, kind, vec![1; 10]).unwrap();
        }
        room
    }

    #[test]
    fn a_late_relay_gets_the_newest_of_each() {
        let mut room = with_video();
        for text in ["1", "2", "3", "4", "5"] {
            whole(&mut room, Track::Messages, text);
            whole(&mut room, Track::State, text);
        }
        assert_eq!(sequences(&room, Track::State, None), [5]);
        assert_eq!(sequences(&room, Track::Messages, None), [3, 4, 5]);
        assert_eq!(sequences(&room, Track::Video, None), [1, 4, 5, 6]);
        assert_eq!(sequences(&room, Track::Audio, None), [0; 0]);
        assert_eq!(room.replay(since(6, [1, 1, 1, 1]), 3), room.replay(None, 3), "another epoch is no since");
    }

    #[test]
    fn a_since_is_served_from_there() {
        let mut room = with_video();
        for text in ["1", "2", "3", "4", "5"] {
            whole(&mut room, Track::Messages, text);
            whole(&mut room, Track::State, text);
        }
        assert_eq!(sequences(&room, Track::Messages, since(7, [0, 2, 0, 0])), [2, 3, 4, 5], "beyond the replay too");
        assert_eq!(sequences(&room, Track::Messages, since(7, [0, 6, 0, 0])), [0; 0], "nothing is missing");
        assert_eq!(sequences(&room, Track::Messages, since(7, [0, 7, 0, 0])), [3, 4, 5], "beyond the counter is 0");
        assert_eq!(sequences(&room, Track::State, since(7, [3, 0, 0, 0])), [5]);
        assert_eq!(sequences(&room, Track::State, since(7, [6, 0, 0, 0])), [0; 0]);
    }

    #[test]
    fn media_since_is_served_where_all_of_it_is_held() {
        let room = with_video();
        let video = |next| sequences(&room, Track::Video, since(7, [0, 0, 0, next]));
        assert_eq!(video(7), [0; 0]);
        assert_eq!(video(5), [5, 6]);
        assert_eq!(video(4), [4, 5, 6]);
        assert_eq!(video(3), [1, 4, 5, 6], "3 is gone: as for a late page");
        assert_eq!(video(1), [1, 4, 5, 6]);
        assert_eq!(video(8), [1, 4, 5, 6]);
    }

    #[test]
    fn the_log_of_messages_is_bounded() {
        let mut room = Room::new(1);
        for _ in 0..MESSAGES_MAX + 20 {
            whole(&mut room, Track::Messages, "x");
        }
        let all = sequences(&room, Track::Messages, since(1, [0, 1, 0, 0]));
        assert_eq!((all.first(), all.len()), (Some(&21), MESSAGES_MAX));
        for _ in 0..9 {
            whole(&mut room, Track::Messages, &"y".repeat(MESSAGES_SIZE_MAX / 4));
        }
        assert_eq!(room.messages.len(), 4);
        assert_eq!(room.newest_messages(2).count(), 2);
    }

    #[test]
    fn a_group_that_outgrows_its_bound_is_live_only() {
        let mut room = Room::new(1);
        room.publish(Track::Audio, init(), vec![]).unwrap();
        room.publish(Track::Audio, Kind::Start, vec![0; DATA_SIZE_MAX]).unwrap();
        room.publish(Track::Audio, Kind::Continue, vec![0; DATA_SIZE_MAX]).unwrap();
        assert_eq!(sequences(&room, Track::Audio, None), [1, 2, 3]);
        room.publish(Track::Audio, Kind::Continue, vec![0]).unwrap();
        room.publish(Track::Audio, Kind::Continue, vec![0]).unwrap();
        assert_eq!(sequences(&room, Track::Audio, None), [1]);
        room.publish(Track::Audio, Kind::Start, vec![0]).unwrap();
        assert_eq!(sequences(&room, Track::Audio, None), [1, 6]);
    }

    #[test]
    fn what_nobody_could_decode_is_refused() {
        let mut room = Room::new(1);
        assert_eq!(room.publish(Track::Video, Kind::Start, vec![]), Err(PublishError::OutOfOrder));
        room.publish(Track::Video, init(), vec![]).unwrap();
        assert_eq!(room.publish(Track::Video, Kind::Continue, vec![]), Err(PublishError::OutOfOrder));
        room.publish(Track::Video, Kind::Start, vec![]).unwrap();
        room.publish(Track::Video, init(), vec![]).unwrap();
        assert_eq!(room.publish(Track::Video, Kind::Continue, vec![]), Err(PublishError::OutOfOrder));
        assert_eq!(room.publish(Track::Video, Kind::Whole, vec![]), Err(PublishError::PartOfOtherTrack));
        assert_eq!(room.publish(Track::State, Kind::Start, vec![]), Err(PublishError::PartOfOtherTrack));
        assert_eq!(room.publish(Track::State, Kind::Whole, vec![0; DATA_SIZE_MAX + 1]), Err(PublishError::TooLarge));
        assert_eq!(sequences(&room, Track::Video, None), [3]);
    }
}
