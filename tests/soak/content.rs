//! The published data as a pure function of topic, epoch, track and sequence.
//!
//! So the business server keeps no history, and a page can compare every frame with what was
//! published. Knows which publications are bad on purpose (no JSON, too large), and at which
//! sequences init segments and groups begin.

use std::io::Write as _;

use wire::Track;
use wire::uplink::Part;

/// Sequences of media from one init to the next.
const CYCLE: u64 = 61;
/// Chunks of a group.
const GROUP: u64 = 6;
/// Filler, at least as long as the largest publication.
static FILLER: [u8; 70_000] = [b'x'; 70_000];
/// The MIME type of every init.
pub const MIME: &str = "video/webm";

/// Hot topics: they publish much, to few pages, most of which are slow.
pub const HOT: core::ops::Range<u32> = 900..904;

/// A place in a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub topic: u32,
    pub epoch: u64,
    pub track: Track,
    pub sequence: u64,
}

/// The part of a group that a sequence is.
pub fn part(track: Track, sequence: u64) -> Part<'static> {
    let place = (sequence - 1) % CYCLE;
    match track {
        Track::State | Track::Messages => Part::Whole,
        Track::Audio | Track::Video if place == 0 => Part::Init { mime: MIME },
        Track::Audio | Track::Video if (place - 1).is_multiple_of(GROUP) => Part::Start,
        Track::Audio | Track::Video => Part::Continue,
    }
}

/// The sequence of the init segment that a media sequence needs.
pub fn init_of(sequence: u64) -> u64 {
    sequence - (sequence - 1) % CYCLE
}

/// Whether a publication may be shown.
pub fn is_good(track: Track, sequence: u64) -> bool {
    match track {
        Track::State => sequence % 53 != 11,
        Track::Messages => !is_bad_json(sequence) && !is_large(sequence),
        Track::Audio | Track::Video => true,
    }
}

fn is_bad_json(sequence: u64) -> bool {
    sequence % 97 == 13
}

fn is_large(sequence: u64) -> bool {
    sequence % 307 == 17
}

/// Appends a publication's data.
pub fn write(place: Place, out: &mut Vec<u8>) {
    let Place { topic, epoch, track, sequence } = place;
    let filler = |size: usize| FILLER.get(..size).unwrap_or(&FILLER);
    let is_hot = HOT.contains(&topic);
    let vary = usize::try_from(sequence * 7919 % 128).unwrap_or(0);
    if track.is_media() {
        let size = match (track, is_hot) {
            (Track::Video, true) => 8_000,
            (Track::Video, false) => 2_000,
            (_, true) => 1_500,
            (_, false) => 300,
        };
        let _ = write!(out, "{topic}/{epoch}/{}/{sequence};", track.name());
        out.extend_from_slice(filler(size + vary));
        return;
    }
    let size = match track {
        Track::Messages if is_large(sequence) => 66_000,
        Track::Messages if is_hot => 600,
        Track::State if is_hot => 2_000,
        Track::Messages => 400,
        _ => 120,
    };
    let _ = write!(out, r#"{{"of":"{topic}/{epoch}/{}/{sequence}","text":""#, track.name());
    out.extend_from_slice(filler(size + vary));
    out.extend_from_slice(br#""}"#);
    if !is_good(track, sequence) && !is_large(sequence) {
        let _ = out.pop();
    }
}

/// Whether `data` is a publishable frame with exactly the published bytes. `room` is a reused
/// buffer.
pub fn is_verbatim(place: Place, data: &[u8], room: &mut Vec<u8>) -> bool {
    room.clear();
    write(place, room);
    is_good(place.track, place.sequence) && room == data
}
