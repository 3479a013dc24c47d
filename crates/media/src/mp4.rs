//! Fragmented MP4 (ISO/IEC 14496-12): splits a live recording or a clip into init and fragments.
//!
//! The init segment is `ftyp` and `moov`; each `moof` with its `mdat` is one chunk, unchanged
//! except by `patch.rs`. A chunk starts a group if it has a video keyframe (a sample whose
//! "non-sync" flag is clear); without video, a group starts every second. Index boxes are dropped.
//! Boxes of unknown size are refused: live recorders don't write them. Knows no codecs.

use super::{
    HELD_SIZE_MAX, MediaError, Piece,
    boxes::{box_size, boxes, children, find, kind},
    patch, u32_at, u64_at,
};

/// The flag of a sample that is not a sync sample (section 8.8.3.1).
const NON_SYNC: u32 = 0x0001_0000;
/// The maximum number of tracks of a recording: one video, one audio, and a reserve.
const TRACKS_MAX: usize = 4;

/// One track, as described in the init segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MovieTrack {
    /// The track's number in fragments.
    pub id: u32,
    /// Ticks per second.
    pub timescale: u32,
    /// Whether it is a video track.
    pub video: bool,
    default_duration: u32,
    default_flags: u32,
}

/// The samples of one track in a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The track's number.
    pub track: u32,
    /// The decode time of its first sample, in the track's ticks.
    pub time: u64,
    /// The duration of its samples, in the track's ticks.
    pub duration: u64,
    /// Whether one of its samples is a sync sample.
    pub key: bool,
}

/// Splits one recording. See [`super::Splitter`].
#[derive(Debug, Default)]
pub struct Splitter {
    held: Vec<u8>,
    /// `ftyp`, until `moov` is received.
    init: Vec<u8>,
    tracks: Option<Vec<MovieTrack>>,
    /// A `moof` whose `mdat` is still missing, and whether it starts a group.
    fragment: Option<(Vec<u8>, bool)>,
    /// The start time of the current group of a recording without video, in ticks.
    group_time: Option<u64>,
    group_begun: bool,
}

impl Splitter {
    /// See [`super::Splitter::push`].
    ///
    /// # Errors
    /// The recording is invalid or has a box that is too large.
    pub fn push(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) -> Result<(), MediaError> {
        let mut held = core::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        let mut rest = held.as_slice();
        while let Some(whole) = box_size(rest)? {
            if whole > HELD_SIZE_MAX {
                let is_file = kind(rest) == b"mdat" && self.fragment.is_none();
                return Err(if is_file { MediaError::NotFragmented } else { MediaError::TooLarge });
            }
            let Some(raw) = rest.get(..whole) else { break };
            self.whole_box(raw, pieces)?;
            rest = rest.get(whole..).unwrap_or_default();
        }
        let left = rest.len();
        held.drain(..held.len() - left);
        self.held = held;
        Ok(())
    }

    /// See [`super::Splitter::has_video`].
    #[must_use]
    pub fn has_video(&self) -> Option<bool> {
        self.tracks.as_ref().map(|tracks| tracks.iter().any(|track| track.video))
    }

    fn whole_box(&mut self, raw: &[u8], pieces: &mut Vec<Piece>) -> Result<(), MediaError> {
        match kind(raw) {
            b"ftyp" => self.init = raw.to_vec(),
            b"moov" => {
                if self.tracks.is_some() {
                    return Err(MediaError::Malformed("a second header"));
                }
                if find(raw, b"mvex")?.is_none() {
                    return Err(MediaError::NotFragmented);
                }
                self.tracks = Some(tracks(raw)?);
                let mut init = core::mem::take(&mut self.init);
                init.extend_from_slice(raw);
                pieces.push(Piece::Init(init));
            }
            b"moof" => {
                let start = self.begins_group(raw)?;
                let mut moof = raw.to_vec();
                let tracks = self.tracks.as_deref().unwrap_or_default();
                patch::mend_sound(&mut moof, |id| tracks.iter().any(|track| track.id == id && track.video))?;
                self.fragment = Some((moof, start));
            }
            b"mdat" => {
                let Some((mut chunk, start)) = self.fragment.take() else {
                    // Behind a header it is what that has in place of a first fragment.
                    return Err(MediaError::NotFragmented);
                };
                if chunk.len() + raw.len() > HELD_SIZE_MAX {
                    return Err(MediaError::TooLarge);
                }
                chunk.extend_from_slice(raw);
                self.group_begun |= start;
                if start {
                    pieces.push(Piece::Start(chunk));
                } else if self.group_begun {
                    pieces.push(Piece::Continue(chunk));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn begins_group(&mut self, moof: &[u8]) -> Result<bool, MediaError> {
        let tracks = self.tracks.as_deref().ok_or(MediaError::Malformed("a fragment before the header"))?;
        let runs = runs(moof, tracks)?;
        if let Some(video) = tracks.iter().find(|track| track.video) {
            return Ok(runs.iter().any(|run| run.track == video.id && run.key));
        }
        let Some(run) = runs.first() else { return Ok(false) };
        let second = tracks.iter().find(|track| track.id == run.track).map_or(1, |track| u64::from(track.timescale));
        let start = self.group_time.is_none_or(|from| run.time.saturating_sub(from) >= second);
        if start {
            self.group_time = Some(run.time);
        }
        Ok(start)
    }
}

/// The tracks of a `moov`.
///
/// # Errors
/// The box is invalid.
pub fn tracks(moov: &[u8]) -> Result<Vec<MovieTrack>, MediaError> {
    let mut tracks = Vec::new();
    for child in children(moov) {
        let child = child?;
        if kind(child) == b"trak" && tracks.len() < TRACKS_MAX {
            tracks.push(track(child)?);
        }
    }
    for extends in find(moov, b"mvex")?.into_iter().flat_map(children) {
        let extends = extends?;
        if kind(extends) != b"trex" {
            continue;
        }
        let field = |at| u32_at(extends, at).ok_or(MediaError::Malformed("trex is truncated"));
        let (id, duration, flags) = (field(12)?, field(20)?, field(28)?);
        for track in tracks.iter_mut().filter(|track| track.id == id) {
            (track.default_duration, track.default_flags) = (duration, flags);
        }
    }
    Ok(tracks)
}

fn track(trak: &[u8]) -> Result<MovieTrack, MediaError> {
    let need = |found: Option<_>, what| found.ok_or(MediaError::Malformed(what));
    let head = need(find(trak, b"tkhd")?, "a track without tkhd")?;
    let media = need(find(trak, b"mdia")?, "a track without mdia")?;
    let clock = need(find(media, b"mdhd")?, "a track without mdhd")?;
    let handler = need(find(media, b"hdlr")?, "a track without hdlr")?;
    // Before this field, version 1 has two times of 64 bits, version 0 two of 32 bits.
    let field = |of: &[u8]| u32_at(of, if of.get(8) == Some(&1) { 28 } else { 20 });
    let (Some(id), Some(timescale)) = (field(head), field(clock)) else {
        return Err(MediaError::Malformed("a track's header is truncated"));
    };
    if timescale == 0 {
        return Err(MediaError::Malformed("a timescale of 0"));
    }
    Ok(MovieTrack { id, timescale, video: handler.get(16..20) == Some(b"vide"), ..MovieTrack::default() })
}

/// The samples of each track in a `moof`.
///
/// # Errors
/// The box is invalid.
pub fn runs(moof: &[u8], tracks: &[MovieTrack]) -> Result<Vec<Run>, MediaError> {
    let mut runs = Vec::new();
    for part in children(moof) {
        let part = part?;
        if kind(part) == b"traf" && runs.len() < TRACKS_MAX {
            runs.push(run(part, tracks)?);
        }
    }
    Ok(runs)
}

fn run(traf: &[u8], tracks: &[MovieTrack]) -> Result<Run, MediaError> {
    let cut = MediaError::Malformed("a track fragment is truncated");
    let head = find(traf, b"tfhd")?.ok_or(MediaError::Malformed("a track fragment without tfhd"))?;
    let flags = u32_at(head, 8).ok_or(cut)?;
    let id = u32_at(head, 12).ok_or(cut)?;
    if flags & 0x1 != 0 {
        return Err(MediaError::FileOffsets);
    }
    let known = tracks.iter().find(|track| track.id == id);
    let known = known.ok_or(MediaError::Malformed("a fragment of an unknown track"))?;
    let (mut duration, mut sample_flags) = (known.default_duration, known.default_flags);
    // Base data offset, sample description, duration, size, flags: each is present only if its bit
    // is set.
    let mut at = 16;
    for (bit, size) in [(0x1, 8), (0x2, 4), (0x8, 4), (0x10, 4), (0x20, 4)] {
        if flags & bit != 0 {
            match bit {
                0x8 => duration = u32_at(head, at).ok_or(cut)?,
                0x20 => sample_flags = u32_at(head, at).ok_or(cut)?,
                _ => {}
            }
            at += size;
        }
    }
    let time = find(traf, b"tfdt")?.ok_or(MediaError::Malformed("a track fragment without tfdt"))?;
    let time = decode_time(time).ok_or(cut)?;
    let mut run = Run { track: id, time, duration: 0, key: false };
    for child in children(traf) {
        let child = child?;
        if kind(child) == b"trun" {
            samples(child, duration, sample_flags, &mut run)?;
        }
    }
    Ok(run)
}

/// Adds the samples of a `trun` to `run`: their durations, and whether one is a sync sample.
fn samples(trun: &[u8], duration: u32, flags: u32, run: &mut Run) -> Result<(), MediaError> {
    let cut = MediaError::Malformed("a run of samples is truncated");
    let has = u32_at(trun, 8).ok_or(cut)?;
    let count = u32_at(trun, 12).ok_or(cut)?;
    let mut at = if has & 0x1 != 0 { 20 } else { 16 };
    let first_flags = if has & 0x4 != 0 {
        at += 4;
        Some(u32_at(trun, at - 4).ok_or(cut)?)
    } else {
        None
    };
    // A row has 4 bytes for each of duration, size, flags and composition offset that is present.
    // Without rows, the box's size doesn't bound the count, so there is no loop over the samples.
    let row = 4 * usize::try_from((has & 0xf00).count_ones()).unwrap_or(4);
    let rows = trun.get(at..).unwrap_or_default();
    let count = usize::try_from(count).map_err(|_| cut)?;
    if count.checked_mul(row).is_none_or(|size| size > rows.len()) {
        return Err(cut);
    }
    let range = MediaError::Malformed("a duration out of range");
    if row == 0 {
        run.key |= count > 0 && first_flags.unwrap_or(flags) & NON_SYNC == 0 || count > 1 && flags & NON_SYNC == 0;
        let sum = (count as u64).checked_mul(u64::from(duration)).and_then(|all| run.duration.checked_add(all));
        run.duration = sum.ok_or(range)?;
        return Ok(());
    }
    for index in 0..count {
        let mut field = index * row;
        let mut take = |bit: u32| {
            let value = if has & bit != 0 { u32_at(rows, field) } else { None };
            field += if has & bit != 0 { 4 } else { 0 };
            value
        };
        let (own_duration, _size, own_flags) = (take(0x100), take(0x200), take(0x400));
        let first = if index == 0 { first_flags } else { None };
        let sample_flags = first.or(own_flags).unwrap_or(flags);
        run.key |= sample_flags & NON_SYNC == 0;
        let sum = run.duration.checked_add(u64::from(own_duration.unwrap_or(duration)));
        run.duration = sum.ok_or(range)?;
    }
    Ok(())
}

/// Whether a chunk has pictures that are shown in another order than they come in (B-frames): their
/// composition offsets differ. A player shows them that much later.
///
/// # Errors
/// A box is invalid.
pub fn is_reordered(chunk: &[u8]) -> Result<bool, MediaError> {
    let Some(moof) = boxes(chunk).next().transpose()? else { return Ok(false) };
    for part in children(moof) {
        let part = part?;
        for run in if kind(part) == b"traf" { Some(children(part)) } else { None }.into_iter().flatten() {
            let run = run?;
            if kind(run) == b"trun" && has_two_offsets(run) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn has_two_offsets(trun: &[u8]) -> bool {
    let has = u32_at(trun, 8).unwrap_or_default();
    if has & 0x800 == 0 {
        return false;
    }
    let first = 16 + 4 * (has & 0x5).count_ones() as usize;
    // The offset is the last field of a row.
    let row = 4 * (has & 0xf00).count_ones() as usize;
    let rows = trun.get(first..).unwrap_or_default().chunks_exact(row);
    let mut offsets = rows.filter_map(|fields| fields.last_chunk::<4>());
    offsets.next().is_some_and(|one| offsets.any(|other| one != other))
}

fn decode_time(tfdt: &[u8]) -> Option<u64> {
    if tfdt.get(8) == Some(&1) { u64_at(tfdt, 12) } else { u32_at(tfdt, 12).map(u64::from) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        [&u32::try_from(body.len() + 8).unwrap().to_be_bytes()[..], kind, body].concat()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn moov() -> Vec<u8> {
        let trak = |id: u32, scale: u32, handler: &[u8; 4]| {
            let head = boxed(b"tkhd", &words(&[0, 0, 0, id, 0]));
            let clock = boxed(b"mdhd", &words(&[0, 0, 0, scale, 0]));
            let handler = boxed(b"hdlr", &[&[0; 8], &handler[..], &[0; 8]].concat());
            boxed(b"trak", &[head, boxed(b"mdia", &[clock, handler].concat())].concat())
        };
        let trex = boxed(b"trex", &words(&[0, 1, 1, 500, 0, NON_SYNC]));
        boxed(b"moov", &[trak(1, 1000, b"vide"), trak(2, 48000, b"soun"), boxed(b"mvex", &trex)].concat())
    }

    fn fragment(video: &[u8], sound: bool) -> Vec<u8> {
        let tfdt = boxed(b"tfdt", &words(&[0, 77]));
        let picture = boxed(b"traf", &[boxed(b"tfhd", &words(&[0, 1])), tfdt.clone(), boxed(b"trun", video)].concat());
        let sound = if sound {
            boxed(b"traf", &[boxed(b"tfhd", &words(&[0, 2])), tfdt, boxed(b"trun", &words(&[0, 3]))].concat())
        } else {
            Vec::new()
        };
        boxed(b"moof", &[boxed(b"mfhd", &words(&[0, 1])), picture, sound].concat())
    }

    #[test]
    fn flags_come_from_the_sample_the_first_the_fragment_or_the_header() {
        let tracks = tracks(&moov()).unwrap();
        assert_eq!(
            tracks.iter().map(|t| (t.id, t.timescale, t.video)).collect::<Vec<_>>(),
            [(1, 1000, true), (2, 48000, false)]
        );
        let run = |trun: &[u8]| *runs(&fragment(trun, true), &tracks).unwrap().first().unwrap();
        assert_eq!(run(&words(&[0, 2])), Run { track: 1, time: 77, duration: 1000, key: false });
        assert!(run(&words(&[0x4, 2, 0x0200_0000])).key, "the first sample's flags");
        assert_eq!(run(&words(&[0x500, 2, 40, NON_SYNC, 50, 0])), Run { track: 1, time: 77, duration: 90, key: true });
        assert!(!run(&words(&[0x400, 2, NON_SYNC, NON_SYNC])).key);
    }

    #[test]
    fn pictures_in_another_order_are_seen() {
        let chunk = |trun: &[u32]| [fragment(&words(trun), true), boxed(b"mdat", &[])].concat();
        for (trun, expected) in [
            (&[0x800, 3, 80, 80, 80][..], false),
            (&[0x800, 3, 80, 160, 0], true),
            (&[0xf04, 2, 0, 40, 9, 0, 80, 40, 9, 0, 40], true),
            (&[0x500, 2, 40, 0, 50, 0], false),
            (&[0x800, 3], false),
        ] {
            assert_eq!(is_reordered(&chunk(trun)), Ok(expected), "{trun:x?}");
        }
    }

    #[test]
    fn offsets_from_the_start_of_the_file_are_refused() {
        let tracks = tracks(&moov()).unwrap();
        let head = boxed(b"tfhd", &words(&[1, 1, 0, 1000]));
        let part = boxed(b"traf", &[head, boxed(b"tfdt", &words(&[0, 77]))].concat());
        assert_eq!(runs(&boxed(b"moof", &part), &tracks), Err(MediaError::FileOffsets));
    }

    #[test]
    fn media_data_without_a_fragment_are_those_of_a_file() {
        for head in [&[][..], &moov()] {
            let mut pieces = Vec::new();
            let mut splitter = Splitter::default();
            splitter.push(head, &mut pieces).unwrap();
            assert_eq!(splitter.push(&boxed(b"mdat", &[0; 4]), &mut pieces), Err(MediaError::NotFragmented));
        }
    }

    #[test]
    fn a_count_that_the_box_does_not_hold_is_damage() {
        let tracks = tracks(&moov()).unwrap();
        let cut = Err(MediaError::Malformed("a run of samples is truncated"));
        for trun in [&[0x100, 2, 40][..], &[0xf00, u32::MAX]] {
            assert_eq!(runs(&fragment(&words(trun), false), &tracks), cut);
        }
    }

    #[test]
    fn a_fragment_of_one_track_is_retimed() {
        let tracks = tracks(&moov()).unwrap();
        let mut moved = fragment(&words(&[0, 1]), false);
        patch::retime(&mut moved, 5000, 9).unwrap();
        assert_eq!(runs(&moved, &tracks).unwrap().first().unwrap().time, 5000);
        assert_eq!(u32_at(&moved, 20), Some(9));
        assert_eq!(patch::retime(&mut moved, 1 << 32, 1), Err(MediaError::Malformed("a time beyond 32 bits")));
        let mut two = fragment(&words(&[0, 1]), true);
        assert!(patch::retime(&mut two, 1, 1).is_err());
        assert!(patch::retime(&mut [0; 5], 1, 1).is_err());
    }

    #[test]
    fn the_sound_of_a_real_recording_has_no_holes() {
        let (mut splitter, mut pieces) = (Splitter::default(), Vec::new());
        splitter.push(include_bytes!("../testdata/h264.mp4"), &mut pieces).unwrap();
        let tracks = splitter.tracks.unwrap();
        let sound = tracks.iter().find(|track| !track.video).unwrap().id;
        let mut end = None;
        for piece in pieces.iter().skip(1) {
            let moof = crate::boxes::boxes(piece.bytes()).next().unwrap().unwrap();
            let run = *runs(moof, &tracks).unwrap().iter().find(|run| run.track == sound).unwrap();
            // The recorder rounds each fragment's time: a difference of one tick, 21 µs, is not a
            // gap.
            assert!(run.time.abs_diff(end.unwrap_or(run.time)) <= 1, "{} behind {end:?}", run.time);
            end = Some(run.time + run.duration);
        }
        assert!(end.is_some());
    }

    #[test]
    fn a_box_of_unknown_or_impossible_size_is_refused() {
        let mut pieces = Vec::new();
        for size in [0_u32, 7] {
            let raw = [&size.to_be_bytes()[..], b"moof"].concat();
            assert_eq!(Splitter::default().push(&raw, &mut pieces), Err(MediaError::Malformed("a box's size")));
        }
        let claim = [&1_u32.to_be_bytes()[..], b"mdat", &u64::MAX.to_be_bytes()].concat();
        assert_eq!(Splitter::default().push(&claim, &mut pieces), Err(MediaError::NotFragmented));
        let claim = [&1_u32.to_be_bytes()[..], b"moof", &u64::MAX.to_be_bytes()].concat();
        assert_eq!(Splitter::default().push(&claim, &mut pieces), Err(MediaError::TooLarge));
    }
}
