//! The demo's clip: 8 s of video and 16 s of audio, played in an endless loop.
//!
//! Owns the two files of `clip/` (made once by `clip/make.sh`), split into chunks, and the
//! [`Player`] that schedules the chunks and rewrites their timestamps. Pure: the caller owns the
//! clock. Times are counted from the player's start in whole ticks, so that they don't drift over
//! many rounds. Knows neither the room nor pages.

use std::time::Duration;

use media::{MediaError, boxes, mp4, patch};
use wire::{Track, uplink::Part};

/// One of the clip's two tracks: an init segment, and chunks that form a seamless loop.
#[derive(Clone, Debug)]
pub struct Loop {
    /// The track it is published on.
    pub track: Track,
    /// Its MIME type.
    pub mime: &'static str,
    /// Its init segment.
    pub init: &'static [u8],
    chunks: Vec<Chunk>,
    /// Ticks per second.
    timescale: u64,
    /// The duration of one round, in ticks.
    length: u64,
}

#[derive(Clone, Copy, Debug)]
struct Chunk {
    bytes: &'static [u8],
    /// Time since the round's start, in ticks.
    at: u64,
    start: bool,
}

const VIDEO: &[u8] = include_bytes!("clip/video.mp4");
const AUDIO: &[u8] = include_bytes!("clip/audio.mp4");
const VIDEO_MIME: &str = "video/mp4; codecs=\"avc1.4d4015\"";
const AUDIO_MIME: &str = "audio/mp4; codecs=\"mp4a.40.2\"";
/// Chunks of 0.53 s in an audio group: about as long as a video group, so that a late page waits no
/// longer for audio.
const AUDIO_GROUP_CHUNKS: usize = 2;

/// The clip's audio and video.
///
/// # Errors
/// The files in the repository are damaged.
pub fn tracks() -> Result<[Loop; 2], MediaError> {
    Ok([Loop::new(Track::Audio, AUDIO_MIME, AUDIO)?, Loop::new(Track::Video, VIDEO_MIME, VIDEO)?])
}

impl Loop {
    fn new(track: Track, mime: &'static str, file: &'static [u8]) -> Result<Self, MediaError> {
        let (mut init_size, mut at) = (0, 0);
        let mut described = Vec::new();
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut length = 0;
        for raw in boxes::boxes(file) {
            let raw = raw?;
            let end = at + raw.len();
            match boxes::kind(raw) {
                b"moov" => (described, init_size) = (mp4::tracks(raw)?, end),
                b"moof" => {
                    let runs = mp4::runs(raw, &described)?;
                    let run = runs.first().ok_or(MediaError::Malformed("a fragment without samples"))?;
                    let start =
                        if track == Track::Audio { chunks.len().is_multiple_of(AUDIO_GROUP_CHUNKS) } else { run.key };
                    let data = boxes::boxes(file.get(end..).unwrap_or_default()).next();
                    let data = data.ok_or(MediaError::Malformed("a fragment without data"))??;
                    chunks.push(Chunk {
                        bytes: file.get(at..end + data.len()).unwrap_or_default(),
                        at: run.time,
                        start,
                    });
                    length = run.time.checked_add(run.duration).ok_or(MediaError::Malformed("a time out of range"))?;
                }
                _ => {}
            }
            at = end;
        }
        let timescale = described.first().map_or(0, |track| u64::from(track.timescale));
        if timescale == 0 || length == 0 || !chunks.first().is_some_and(|chunk| chunk.start && chunk.at == 0) {
            return Err(MediaError::Malformed("the clip has no chunk at 0"));
        }
        let init = file.get(..init_size).unwrap_or_default();
        Ok(Self { track, mime, init, chunks, timescale, length })
    }
}

/// A chunk that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The track it is published on.
    pub track: Track,
    /// `Start` or `Continue`.
    pub part: Part<'static>,
    /// Its bytes, with the timestamps of this round.
    pub data: Vec<u8>,
}

/// Plays both tracks in a loop.
#[derive(Debug)]
pub struct Player {
    heads: [Head; 2],
}

#[derive(Debug)]
struct Head {
    track: Loop,
    round: u64,
    index: usize,
    /// The number of the last fragment (`mfhd`).
    number: u32,
}

impl Player {
    /// A player at the clip's start.
    #[must_use]
    pub fn new(tracks: [Loop; 2]) -> Self {
        Self { heads: tracks.map(|track| Head { track, round: 0, index: 0, number: 0 }) }
    }

    /// The tracks, for their init segments.
    pub fn tracks(&self) -> impl Iterator<Item = &Loop> {
        self.heads.iter().map(|head| &head.track)
    }

    /// When the next chunk is due, from the player's start.
    #[must_use]
    pub fn due(&self) -> Duration {
        self.heads.iter().map(Head::due).min().unwrap_or_default()
    }

    /// Takes the next chunk that is due, of either track.
    ///
    /// # Errors
    /// The time exceeds its range, which does not happen in a machine's lifetime.
    pub fn take(&mut self) -> Result<Due, MediaError> {
        let head = self.heads.iter_mut().min_by_key(|head| head.due());
        let head = head.ok_or(MediaError::Malformed("a player without tracks"))?;
        let (time, chunk) = head.time().ok_or(MediaError::Malformed("a time out of range"))?;
        let mut data = chunk.bytes.to_vec();
        head.number = head.number.wrapping_add(1);
        patch::retime(&mut data, time, head.number)?;
        let part = if chunk.start { Part::Start } else { Part::Continue };
        let track = head.track.track;
        head.step();
        Ok(Due { track, part, data })
    }

    /// Skips to the first group of each track that isn't due before `time`.
    pub fn skip_to(&mut self, time: Duration) {
        for head in &mut self.heads {
            let round = Duration::from_secs_f64(head.track.length as f64 / head.track.timescale as f64);
            let rounds = time.as_nanos() / round.as_nanos().max(1);
            let whole = u64::try_from(rounds).unwrap_or(u64::MAX).saturating_sub(1);
            if whole > head.round {
                (head.round, head.index) = (whole, 0);
            }
            while head.due() < time || !head.time().is_some_and(|(_, chunk)| chunk.start) {
                head.step();
            }
        }
    }
}

impl Head {
    fn time(&self) -> Option<(u64, Chunk)> {
        let chunk = *self.track.chunks.get(self.index)?;
        Some((self.round.checked_mul(self.track.length)?.checked_add(chunk.at)?, chunk))
    }

    fn due(&self) -> Duration {
        let ticks = self.time().map_or(0, |(time, _)| time);
        let (seconds, rest) = (ticks / self.track.timescale, ticks % self.track.timescale);
        Duration::from_secs(seconds) + Duration::from_nanos(rest.saturating_mul(1_000_000_000) / self.track.timescale)
    }

    fn step(&mut self) {
        self.index += 1;
        if self.index >= self.track.chunks.len() {
            (self.round, self.index) = (self.round + 1, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The track's next chunk and its time.
    fn next_of(player: &mut Player, track: Track) -> (Due, u64) {
        loop {
            let due = player.take().unwrap();
            if due.track == track {
                let of = player.tracks().find(|t| t.track == track).unwrap();
                let described = mp4::tracks(boxes::boxes(of.init).nth(1).unwrap().unwrap()).unwrap();
                let moof = boxes::boxes(&due.data).next().unwrap().unwrap();
                let run = *mp4::runs(moof, &described).unwrap().first().unwrap();
                return (due, run.time);
            }
        }
    }

    #[test]
    fn the_rounds_join_without_a_gap() {
        for (track, length) in [(Track::Video, 8 * 24_000), (Track::Audio, 16 * 48_000)] {
            let mut player = Player::new(tracks().unwrap());
            let of = player.tracks().find(|t| t.track == track).unwrap().clone();
            assert_eq!(of.length, length);
            let described = mp4::tracks(boxes::boxes(of.init).nth(1).unwrap().unwrap()).unwrap();
            let mut expected = 0;
            for _ in 0..4 * of.chunks.len() {
                let (due, time) = next_of(&mut player, track);
                assert_eq!(time, expected);
                let moof = boxes::boxes(&due.data).next().unwrap().unwrap();
                expected += mp4::runs(moof, &described).unwrap().first().unwrap().duration;
            }
            assert_eq!(expected, 4 * length);
        }
    }

    #[test]
    fn a_group_begins_about_each_second() {
        let mut player = Player::new(tracks().unwrap());
        let mut starts = [0, 0];
        while player.due() < Duration::from_secs(16) {
            let due = player.take().unwrap();
            assert!(due.data.len() < 16_000, "{} bytes", due.data.len());
            if due.part == Part::Start {
                *starts.get_mut(usize::from(due.track == Track::Video)).unwrap() += 1;
            }
        }
        assert_eq!(starts, [15, 16]);
    }

    #[test]
    fn chunks_come_in_the_order_of_their_time() {
        let mut player = Player::new(tracks().unwrap());
        let mut last = Duration::ZERO;
        for _ in 0..500 {
            assert!(player.due() >= last);
            last = player.due();
            player.take().unwrap();
        }
    }

    #[test]
    fn a_skip_lands_on_groups_however_far_it_goes() {
        let year = Duration::from_secs(365 * 86_400);
        for to in [Duration::from_millis(1), Duration::from_millis(7_900), Duration::from_secs(3_601), 3 * year] {
            let mut player = Player::new(tracks().unwrap());
            player.take().unwrap();
            player.skip_to(to);
            assert!(
                player.due() >= to && player.due() < to + Duration::from_millis(1_100),
                "{:?} for {to:?}",
                player.due()
            );
            let first = player.take().unwrap();
            assert_eq!(first.part, Part::Start);
            let other = if first.track == Track::Video { Track::Audio } else { Track::Video };
            assert_eq!(next_of(&mut player, other).0.part, Part::Start);
        }
    }

    #[test]
    fn the_mime_types_are_what_the_files_hold() {
        let [audio, video] = tracks().unwrap();
        let at = |bytes: &[u8], name: &[u8]| bytes.windows(4).position(|w| w == name).unwrap();
        let avcc = at(video.init, b"avcC");
        let [_, profile, compatible, level] = *video.init.get(avcc + 4..).unwrap().first_chunk::<4>().unwrap();
        assert_eq!(VIDEO_MIME, format!("video/mp4; codecs=\"avc1.{profile:02x}{compatible:02x}{level:02x}\""));
        // The elementary stream descriptor: object type 0x40 (MPEG-4 audio), stream type 5 (audio);
        // then the AudioSpecificConfig: AAC-LC, 48 kHz, one channel. Without it, browsers reject
        // the init segment.
        assert!(audio.init.windows(2).any(|pair| pair == [0x40, 0x15]));
        assert!(audio.init.windows(3).any(|three| three == [2, 0x11, 0x88]));
        assert_eq!(AUDIO_MIME, "audio/mp4; codecs=\"mp4a.40.2\"");
    }

    #[test]
    fn the_clip_stays_small() {
        assert!(VIDEO.len() + AUDIO.len() <= 212_000);
    }
}
