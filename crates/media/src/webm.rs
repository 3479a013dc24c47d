//! WebM (a profile of Matroska, RFC 9559): splits a live recording into init and clusters.
//!
//! A recorder writes clusters of unknown size, starts few of them at a keyframe, and ends its time
//! slices anywhere. So the clusters are rebuilt: each chunk is one cluster of known size with the
//! recording's blocks. A new chunk starts before every video keyframe (without video, every
//! second), at the end of every slice, and at [`CHUNK_SIZE_MAX`]. Blocks before the first keyframe
//! are dropped, because they can't be decoded. Elements not named here are skipped.

use super::{HELD_SIZE_MAX, MediaError, Piece, u16_at};

/// The maximum size of the blocks in a chunk, in bytes: 64 KiB, so that a slow page skips little. A
/// single larger block is a chunk of its own.
pub const CHUNK_SIZE_MAX: usize = 64 * 1024;
/// The duration of a group without video, in ticks of 1 ms.
const SOUND_GROUP_TICKS: u64 = 1000;
/// A block's time is a signed 16-bit offset from its cluster's; a new cluster starts well before
/// that overflows.
const CLUSTER_TICKS_MAX: u64 = 30_000;

const SEGMENT: u32 = 0x1853_8067;
const TRACKS: u32 = 0x1654_ae6b;
const TRACK_ENTRY: u32 = 0xae;
const TRACK_NUMBER: u32 = 0xd7;
const TRACK_TYPE: u32 = 0x83;
const CLUSTER: u32 = 0x1f43_b675;
const TIMESTAMP: u32 = 0xe7;
const SIMPLE_BLOCK: u32 = 0xa3;
const BLOCK_GROUP: u32 = 0xa0;
const BLOCK: u32 = 0xa1;
const REFERENCE_BLOCK: u32 = 0xfb;
const CODEC_ID: u32 = 0x86;
const CODEC_PRIVATE: u32 = 0x63a2;
/// The type of a video track.
pub const VIDEO: u64 = 1;
/// The first bytes of a file: the id of its EBML header.
pub const MAGIC: [u8; 4] = [0x1a, 0x45, 0xdf, 0xa3];

/// Splits one WebM recording. See [`super::Splitter`].
#[derive(Debug, Default)]
pub struct Splitter {
    /// The bytes of an incomplete element.
    held: Vec<u8>,
    /// The init segment so far; empty once it was returned.
    init: Vec<u8>,
    init_done: bool,
    video_track: Option<u64>,
    cluster_time: u64,
    chunk: Option<Chunk>,
    /// The start time of the current group; `None` before the first.
    group_time: Option<u64>,
}

#[derive(Debug)]
struct Chunk {
    start: bool,
    time: u64,
    blocks: Vec<u8>,
}

/// An element's header: its id, the size of its body (`None`: unknown) and of the header itself.
#[derive(Clone, Copy)]
struct Head {
    id: u32,
    size: Option<usize>,
    head_size: usize,
}

/// A block's header, and the offset of its 16-bit time in the element.
struct Block {
    track: u64,
    key: bool,
    offset: i16,
    offset_at: usize,
}

impl Splitter {
    /// See [`super::Splitter::push`].
    ///
    /// # Errors
    /// The recording is invalid or has an element that is too large.
    pub fn push(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) -> Result<(), MediaError> {
        let result = self.elements(bytes, pieces);
        // What came before a fault is good.
        self.flush(pieces);
        result
    }

    /// Takes all elements that are complete.
    fn elements(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) -> Result<(), MediaError> {
        let mut held = core::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        let mut rest = held.as_slice();
        while let Some(taken) = self.element(rest, pieces)? {
            rest = rest.get(taken..).unwrap_or_default();
        }
        if rest.len() > HELD_SIZE_MAX {
            return Err(MediaError::TooLarge);
        }
        let left = rest.len();
        held.drain(..held.len() - left);
        self.held = held;
        Ok(())
    }

    /// See [`super::Splitter::has_video`].
    #[must_use]
    pub fn has_video(&self) -> Option<bool> {
        self.init_done.then_some(self.video_track.is_some())
    }

    /// Takes the first element of `bytes`. Returns its size, or `None` if more bytes are needed. Of
    /// Segment and Cluster only the header is taken: their children follow.
    fn element(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) -> Result<Option<usize>, MediaError> {
        let Some(head) = head(bytes)? else { return Ok(None) };
        if head.id == SEGMENT || head.id == CLUSTER {
            let raw = bytes.get(..head.head_size).unwrap_or_default();
            if head.id == CLUSTER {
                self.finish_init(pieces)?;
                self.cluster_time = 0;
            } else {
                self.keep_init(raw)?;
            }
            return Ok(Some(head.head_size));
        }
        let size = head.size.ok_or(MediaError::Malformed("an element of unknown size that isn't a cluster"))?;
        let whole = head.head_size.checked_add(size).ok_or(MediaError::TooLarge)?;
        if whole > HELD_SIZE_MAX {
            return Err(MediaError::TooLarge);
        }
        let Some(raw) = bytes.get(..whole) else { return Ok(None) };
        let body = raw.get(head.head_size..).unwrap_or_default();
        match head.id {
            TIMESTAMP => self.cluster_time = unsigned(body)?,
            SIMPLE_BLOCK => self.block(raw, &simple_block(body, head.head_size)?, pieces)?,
            BLOCK_GROUP => self.block(raw, &block_group(body, head.head_size)?, pieces)?,
            _ if self.init_done => {}
            _ => {
                if head.id == TRACKS {
                    self.video_track = video_track(body)?;
                }
                self.keep_init(raw)?;
            }
        }
        Ok(Some(whole))
    }

    fn keep_init(&mut self, raw: &[u8]) -> Result<(), MediaError> {
        if self.init_done {
            return Err(MediaError::Malformed("a second header"));
        }
        if self.init.len() + raw.len() > HELD_SIZE_MAX {
            return Err(MediaError::TooLarge);
        }
        self.init.extend_from_slice(raw);
        Ok(())
    }

    fn finish_init(&mut self, pieces: &mut Vec<Piece>) -> Result<(), MediaError> {
        if !self.init_done {
            if self.init.is_empty() {
                return Err(MediaError::Malformed("a cluster before the header"));
            }
            self.init_done = true;
            pieces.push(Piece::Init(core::mem::take(&mut self.init)));
        }
        Ok(())
    }

    /// Appends a block to its chunk, with its time relative to that chunk.
    fn block(&mut self, raw: &[u8], block: &Block, pieces: &mut Vec<Piece>) -> Result<(), MediaError> {
        if !self.init_done {
            return Err(MediaError::Malformed("a block before the first cluster"));
        }
        let time = self.cluster_time.checked_add_signed(i64::from(block.offset));
        let time = time.ok_or(MediaError::Malformed("a block before the time 0"))?;
        let start = match self.video_track {
            Some(video) => block.key && block.track == video,
            None => self.group_time.is_none_or(|from| time.saturating_sub(from) >= SOUND_GROUP_TICKS),
        };
        if start {
            self.group_time = Some(time);
        } else if self.group_time.is_none() {
            return Ok(());
        }
        let fits = self.chunk.as_ref().is_some_and(|chunk| {
            let within = time.checked_sub(chunk.time).is_some_and(|ticks| ticks <= CLUSTER_TICKS_MAX);
            within && chunk.blocks.len() + raw.len() <= CHUNK_SIZE_MAX
        });
        if start || !fits {
            self.flush(pieces);
        }
        let chunk = self.chunk.get_or_insert_with(|| Chunk { start, time, blocks: Vec::new() });
        let offset = time.checked_sub(chunk.time).and_then(|ticks| i16::try_from(ticks).ok());
        let offset = offset.ok_or(MediaError::Malformed("a block far from its cluster"))?;
        let at = chunk.blocks.len() + block.offset_at;
        chunk.blocks.extend_from_slice(raw);
        let place = chunk.blocks.get_mut(at..at + 2).ok_or(MediaError::Malformed("a block without time"))?;
        place.copy_from_slice(&offset.to_be_bytes());
        Ok(())
    }

    /// Returns the chunk as one cluster of known size.
    fn flush(&mut self, pieces: &mut Vec<Piece>) {
        let Some(chunk) = self.chunk.take() else { return };
        let body_size = 10 + chunk.blocks.len() as u64;
        let mut bytes = Vec::with_capacity(22 + chunk.blocks.len());
        bytes.extend_from_slice(&CLUSTER.to_be_bytes());
        bytes.extend_from_slice(&(0x0100_0000_0000_0000 | body_size).to_be_bytes());
        bytes.extend_from_slice(&[0xe7, 0x88]);
        bytes.extend_from_slice(&chunk.time.to_be_bytes());
        bytes.extend_from_slice(&chunk.blocks);
        pieces.push(if chunk.start { Piece::Start(bytes) } else { Piece::Continue(bytes) });
    }
}

/// Parses an element's header; `None` if it is incomplete.
fn head(bytes: &[u8]) -> Result<Option<Head>, MediaError> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let id_size = first.leading_zeros() as usize + 1;
    if id_size > 4 {
        return Err(MediaError::Malformed("an element's id"));
    }
    let Some(id) = bytes.get(..id_size) else { return Ok(None) };
    let id = id.iter().fold(0_u32, |id, &byte| id << 8 | u32::from(byte));
    let Some((size, size_size)) = vint(bytes.get(id_size..).unwrap_or_default())? else { return Ok(None) };
    let size = match size {
        None => None,
        Some(size) => Some(usize::try_from(size).map_err(|_| MediaError::TooLarge)?),
    };
    Ok(Some(Head { id, size, head_size: id_size + size_size }))
}

/// Parses a variable-size integer (RFC 8794, section 4). Returns its value, `None` for "unknown",
/// and its size.
fn vint(bytes: &[u8]) -> Result<Option<(Option<u64>, usize)>, MediaError> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let size = first.leading_zeros() as usize + 1;
    if size > 8 {
        return Err(MediaError::Malformed("an element's size"));
    }
    let Some(raw) = bytes.get(..size) else { return Ok(None) };
    let mask = (1_u64 << (7 * size)) - 1;
    let value = raw.iter().fold(0_u64, |value, &byte| value << 8 | u64::from(byte)) & mask;
    Ok(Some(((value != mask).then_some(value), size)))
}

/// Parses a variable-size integer that must be complete and known.
fn whole_vint(bytes: &[u8]) -> Result<(u64, usize), MediaError> {
    match vint(bytes)? {
        Some((Some(value), size)) => Ok((value, size)),
        _ => Err(MediaError::Malformed("a number is truncated")),
    }
}

fn unsigned(body: &[u8]) -> Result<u64, MediaError> {
    if body.len() > 8 {
        return Err(MediaError::Malformed("a number of more than 8 bytes"));
    }
    Ok(body.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

/// The children of a complete element: id, body, and the body's offset.
fn children(mut body: &[u8]) -> impl Iterator<Item = Result<(u32, &[u8], usize), MediaError>> {
    let all = body.len();
    core::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let at = all - body.len();
        let child = (|| {
            let cut = MediaError::Malformed("an element is truncated");
            let head = head(body)?.ok_or(cut)?;
            let end = head.head_size.checked_add(head.size.ok_or(cut)?).ok_or(cut)?;
            let child = body.get(head.head_size..end).ok_or(cut)?;
            body = body.get(end..).unwrap_or_default();
            Ok((head.id, child, at + head.head_size))
        })();
        if child.is_err() {
            body = &[];
        }
        Some(child)
    })
}

/// A track as its entry describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackEntry<'a> {
    /// 1 is video, 2 audio.
    pub kind: u64,
    /// Its codec's name.
    pub codec: &'a [u8],
    /// Its codec's configuration.
    pub private: &'a [u8],
}

/// The tracks of an init segment.
///
/// # Errors
/// It has no list of tracks, or is invalid; so may be what the iterator returns.
pub fn entries(mut init: &[u8]) -> Result<impl Iterator<Item = Result<TrackEntry<'_>, MediaError>>, MediaError> {
    let missing = MediaError::Malformed("a header without tracks");
    loop {
        let head = head(init)?.ok_or(missing)?;
        // Of the segment only the header: the tracks are among its children.
        let size = if head.id == SEGMENT { 0 } else { head.size.ok_or(missing)? };
        let end = head.head_size.checked_add(size).ok_or(MediaError::TooLarge)?;
        let whole = init.get(..end).ok_or(missing)?;
        if head.id == TRACKS {
            let body = whole.get(head.head_size..).unwrap_or_default();
            let rows = children(body).filter(|child| !matches!(child, Ok((id, ..)) if *id != TRACK_ENTRY));
            return Ok(rows.map(|row| entry(row?.1)));
        }
        init = init.get(end..).unwrap_or_default();
    }
}

fn entry(fields: &[u8]) -> Result<TrackEntry<'_>, MediaError> {
    let mut entry = TrackEntry::default();
    for field in children(fields) {
        match field? {
            (TRACK_TYPE, body, _) => entry.kind = unsigned(body)?,
            (CODEC_ID, body, _) => entry.codec = body,
            (CODEC_PRIVATE, body, _) => entry.private = body,
            _ => {}
        }
    }
    Ok(entry)
}

/// The number of the first video track.
fn video_track(tracks: &[u8]) -> Result<Option<u64>, MediaError> {
    for entry in children(tracks) {
        let (TRACK_ENTRY, entry, _) = entry? else { continue };
        let (mut number, mut kind) = (None, None);
        for field in children(entry) {
            match field? {
                (TRACK_NUMBER, body, _) => number = Some(unsigned(body)?),
                (TRACK_TYPE, body, _) => kind = Some(unsigned(body)?),
                _ => {}
            }
        }
        if kind == Some(VIDEO) {
            return Ok(number);
        }
    }
    Ok(None)
}

/// Parses a block: track number, 16 bits of time, 8 bits of flags. `at` is its offset in the
/// element.
fn simple_block(body: &[u8], at: usize) -> Result<Block, MediaError> {
    let (track, size) = whole_vint(body)?;
    let cut = MediaError::Malformed("a block is truncated");
    let offset = u16_at(body, size).ok_or(cut)?.cast_signed();
    let flags = *body.get(size + 2).ok_or(cut)?;
    Ok(Block { track, key: flags & 0x80 != 0, offset, offset_at: at + size })
}

/// Parses a block group, which has one block. It is a keyframe if it has no reference to another
/// block.
fn block_group(body: &[u8], at: usize) -> Result<Block, MediaError> {
    let (mut block, mut key) = (None, true);
    for child in children(body) {
        match child? {
            (BLOCK, inner, inner_at) => block = Some(simple_block(inner, at + inner_at)?),
            (REFERENCE_BLOCK, ..) => key = false,
            _ => {}
        }
    }
    let block = block.ok_or(MediaError::Malformed("a group without block"))?;
    Ok(Block { key, ..block })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(id: &[u8], body: &[u8]) -> Vec<u8> {
        [id, &[0x80 | u8::try_from(body.len()).unwrap()], body].concat()
    }

    fn header() -> Vec<u8> {
        let video = element(&[0xae], &[0xd7, 0x81, 1, 0x83, 0x81, 1]);
        let sound = element(&[0xae], &[0xd7, 0x81, 2, 0x83, 0x81, 2]);
        let tracks = element(&TRACKS.to_be_bytes(), &[video, sound].concat());
        [
            element(&0x1a45_dfa3_u32.to_be_bytes(), &[]),
            [&SEGMENT.to_be_bytes()[..], &[0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]].concat(),
            tracks,
        ]
        .concat()
    }

    fn cluster(time: u8) -> Vec<u8> {
        [&CLUSTER.to_be_bytes()[..], &[0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &[0xe7, 0x81, time]].concat()
    }

    fn simple(track: u8, offset: u8, flags: u8) -> Vec<u8> {
        element(&[0xa3], &[0x80 | track, 0, offset, flags, 9, 9])
    }

    #[test]
    fn a_group_begins_at_a_key_in_the_middle_of_a_cluster() {
        let (mut splitter, mut pieces) = (Splitter::default(), Vec::new());
        let recording = [
            header(),
            cluster(100),
            simple(2, 0, 0x80),
            simple(1, 5, 0x80),
            simple(2, 7, 0x80),
            simple(1, 50, 0x80),
            simple(1, 60, 0),
        ]
        .concat();
        splitter.push(&recording, &mut pieces).unwrap();
        let [Piece::Init(init), Piece::Start(first), Piece::Start(second)] = pieces.as_slice() else {
            panic!("{pieces:?}")
        };
        assert_eq!(*init, header());
        // Audio before the first keyframe is dropped; times are relative to 105 and to 150.
        let expected = |time: u8, blocks: Vec<u8>| {
            let mut bytes = CLUSTER.to_be_bytes().to_vec();
            bytes.extend_from_slice(&(0x0100_0000_0000_0000_u64 | (10 + blocks.len() as u64)).to_be_bytes());
            bytes.extend_from_slice(&[0xe7, 0x88, 0, 0, 0, 0, 0, 0, 0, time]);
            bytes.extend_from_slice(&blocks);
            bytes
        };
        assert_eq!(*first, expected(105, [simple(1, 0, 0x80), simple(2, 2, 0x80)].concat()));
        assert_eq!(*second, expected(150, [simple(1, 0, 0x80), simple(1, 10, 0)].concat()));
    }

    #[test]
    fn a_block_group_is_a_key_where_it_refers_to_nothing() {
        let (mut splitter, mut pieces) = (Splitter::default(), Vec::new());
        let block = element(&[0xa1], &[0x81, 0, 3, 0, 7]);
        let refers = element(&[0xfb], &[0xff]);
        let recording =
            [header(), cluster(1), element(&[0xa0], &block), element(&[0xa0], &[block, refers].concat())].concat();
        splitter.push(&recording, &mut pieces).unwrap();
        assert_eq!(pieces.len(), 2);
        assert!(matches!(pieces.get(1), Some(Piece::Start(_))));
    }

    #[test]
    fn a_time_that_leaves_its_range_is_damage() {
        for (time, offset) in
            [(vec![0xe7, 0x88, 255, 255, 255, 255, 255, 255, 255, 255], 1), (vec![0xe7, 0x81, 0], 0xffff_u16)]
        {
            let [high, low] = offset.to_be_bytes();
            let bad = element(&[0xa3], &[0x81, high, low, 0x80]);
            let recording = [header(), cluster(0), time, bad].concat();
            let (mut splitter, mut pieces) = (Splitter::default(), Vec::new());
            assert_eq!(splitter.push(&recording, &mut pieces), Err(MediaError::Malformed("a block before the time 0")));
        }
    }

    #[test]
    fn an_element_that_claims_too_much_is_refused_at_once() {
        let (mut splitter, mut pieces) = (Splitter::default(), Vec::new());
        let claim = [header(), cluster(0), vec![0xa3, 0x08, 0xff, 0xff, 0xff, 0xff]].concat();
        assert_eq!(splitter.push(&claim, &mut pieces), Err(MediaError::TooLarge));
    }

    #[test]
    fn what_came_before_a_fault_is_kept() {
        let (mut splitter, mut pieces) = (Splitter::default(), Vec::new());
        let recording = [header(), cluster(0), simple(1, 0, 0x80), vec![0]].concat();
        assert!(splitter.push(&recording, &mut pieces).is_err());
        assert!(matches!(&pieces[..], [Piece::Init(_), Piece::Start(_)]), "{pieces:?}");
    }
}
