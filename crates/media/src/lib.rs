//! Splits recordings of a browser's `MediaRecorder` into the parts of a media track.
//!
//! Owns the [`Splitter`]: it takes bytes in slices of any size, and returns the init segment,
//! groups that start at a keyframe, and their chunks. [`mp4`] and [`webm`] do the parsing. Pure,
//! with bounded memory and checked arithmetic: for any input, the result is pieces or a
//! [`MediaError`]. Refuses everything except WebM and fragmented MP4. Knows no codecs, no clock and
//! no room.

#![forbid(unsafe_code)]

use core::fmt;

use codecs::Codec;

pub mod boxes;
pub mod codecs;
pub mod mp4;
pub mod patch;
pub mod webm;

/// One piece of a recording, in the order in which a player needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The init segment.
    Init(Vec<u8>),
    /// The first chunk of a group: decoding it only needs the init segment.
    Start(Vec<u8>),
    /// A later chunk of the group.
    Continue(Vec<u8>),
}

impl Piece {
    /// The piece's bytes, owned.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Init(bytes) | Self::Start(bytes) | Self::Continue(bytes) => bytes,
        }
    }

    /// The piece's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Init(bytes) | Self::Start(bytes) | Self::Continue(bytes) => bytes,
        }
    }
}

/// Why a recording can't be split. The splitter must not be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaError {
    /// Neither WebM nor fragmented MP4.
    UnknownFormat,
    /// An element or a box larger than [`HELD_SIZE_MAX`], or that needs a larger buffer.
    TooLarge,
    /// An MP4 that is not fragmented, or not from its beginning.
    NotFragmented,
    /// An MP4 whose fragments say where they are in a file, so that no page can begin at one.
    FileOffsets,
    /// An MP4 whose header lacks a codec's configuration, which the encoder may have put elsewhere.
    NoConfiguration,
    /// A codec that pages don't play in this container.
    Codec(Codec),
    /// The bytes violate the format; the text says how.
    Malformed(&'static str),
}

impl fmt::Display for MediaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownFormat => f.write_str("the recording is neither WebM nor fragmented MP4"),
            Self::TooLarge => f.write_str("the recording has an element that is too large"),
            Self::NotFragmented => f.write_str("the recording is an MP4 that does not begin with fragments"),
            Self::FileOffsets => f.write_str("the recording's fragments have offsets from the start of a file"),
            Self::NoConfiguration => f.write_str("the recording's header lacks a codec's configuration"),
            Self::Codec(codec) => write!(f, "browsers don't play {codec} in this container"),
            Self::Malformed(what) => write!(f, "the recording is damaged: {what}"),
        }
    }
}

/// The maximum size of an incomplete element, in bytes: 1 MiB, a second at 8 Mbit/s and the maximum
/// of one publication. Larger ones are refused.
pub const HELD_SIZE_MAX: usize = 1 << 20;

/// Splits one recording into [`Piece`]s.
#[derive(Debug)]
pub struct Splitter {
    format: Format,
}

#[derive(Debug)]
enum Format {
    /// The first bytes, until the format can be detected.
    Unknown(Vec<u8>),
    Mp4(mp4::Splitter),
    Webm(webm::Splitter),
}

impl Default for Splitter {
    fn default() -> Self {
        Self { format: Format::Unknown(Vec::new()) }
    }
}

impl Splitter {
    /// Takes the recording's next bytes, and appends all complete pieces to `pieces`.
    ///
    /// # Errors
    /// The recording can't be split any further. Pieces already appended are valid.
    pub fn push(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) -> Result<(), MediaError> {
        match &mut self.format {
            Format::Mp4(mp4) => mp4.push(bytes, pieces),
            Format::Webm(webm) => webm.push(bytes, pieces),
            Format::Unknown(held) => {
                held.extend_from_slice(bytes);
                let Some(&head) = held.first_chunk::<8>() else { return Ok(()) };
                let all = core::mem::take(held);
                self.format = match head_format(head) {
                    Some(format) => format,
                    None => return Err(MediaError::UnknownFormat),
                };
                self.push_all(&all, pieces)
            }
        }
    }

    fn push_all(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) -> Result<(), MediaError> {
        match &mut self.format {
            Format::Mp4(mp4) => mp4.push(bytes, pieces),
            Format::Webm(webm) => webm.push(bytes, pieces),
            Format::Unknown(_) => Err(MediaError::UnknownFormat),
        }
    }

    /// Whether the recording has video; `None` before its init segment.
    #[must_use]
    pub fn has_video(&self) -> Option<bool> {
        match &self.format {
            Format::Mp4(mp4) => mp4.has_video(),
            Format::Webm(webm) => webm.has_video(),
            Format::Unknown(_) => None,
        }
    }
}

fn head_format(head: [u8; 8]) -> Option<Format> {
    if head.starts_with(&webm::MAGIC) {
        Some(Format::Webm(webm::Splitter::default()))
    } else if head.ends_with(b"ftyp") {
        Some(Format::Mp4(mp4::Splitter::default()))
    } else {
        None
    }
}

/// The big-endian `u16` at `at`.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

/// The big-endian `u32` at `at`.
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// The big-endian `u64` at `at`.
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_be_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDINGS: [(&str, &[u8], bool); 5] = [
        ("vp8 and Opus in WebM", include_bytes!("../testdata/vp8.webm"), true),
        ("vp9 and Opus in WebM", include_bytes!("../testdata/vp9.webm"), true),
        ("H.264 and Opus in Matroska", include_bytes!("../testdata/h264.mkv"), true),
        ("H.264 and Opus in MP4", include_bytes!("../testdata/h264.mp4"), true),
        ("Opus in WebM", include_bytes!("../testdata/opus.webm"), false),
    ];

    fn split(bytes: &[u8], slice: usize) -> (Vec<Piece>, Option<bool>, Result<(), MediaError>) {
        let (mut splitter, mut pieces) = (Splitter::default(), Vec::new());
        for part in bytes.chunks(slice) {
            if let Err(error) = splitter.push(part, &mut pieces) {
                return (pieces, splitter.has_video(), Err(error));
            }
        }
        (pieces, splitter.has_video(), Ok(()))
    }

    #[test]
    fn real_recordings_give_an_init_and_a_group_each_second() {
        for (name, bytes, video) in RECORDINGS {
            for slice in [bytes.len(), 4000, 333] {
                let (pieces, has_video, result) = split(bytes, slice);
                assert_eq!(result, Ok(()), "{name}");
                assert_eq!(has_video, Some(video), "{name}");
                assert!(matches!(pieces.first(), Some(Piece::Init(_))), "{name}: the init comes first");
                assert!(matches!(pieces.get(1), Some(Piece::Start(_))), "{name}: then a group");
                let count = |f: fn(&Piece) -> bool| pieces.iter().filter(|p| f(p)).count();
                assert_eq!(count(|p| matches!(p, Piece::Init(_))), 1, "{name}");
                let starts = count(|p| matches!(p, Piece::Start(_)));
                assert!((3..=4).contains(&starts), "{name}: {starts} groups in 3.6 s");
            }
        }
    }

    #[test]
    fn the_size_of_the_slices_changes_no_group() {
        for (name, bytes, _) in RECORDINGS {
            let starts = |slice| {
                let pieces = split(bytes, slice).0;
                pieces.into_iter().filter(|p| matches!(p, Piece::Start(_))).count()
            };
            assert_eq!(starts(1), starts(bytes.len()), "{name}");
        }
    }

    /// Sets every byte to values that are critical for lengths and counts, and truncates at many
    /// places.
    #[test]
    fn damaged_recordings_never_panic_and_never_grow() {
        let mut seed = 7_u32;
        for (_, bytes, _) in RECORDINGS {
            let head = bytes.get(..6000).unwrap_or(bytes);
            for at in 0..head.len().min(2500) {
                for value in [0, 0x7f, 0x80, 0xff] {
                    let mut damaged = head.to_vec();
                    *damaged.get_mut(at).unwrap() = value;
                    check(&damaged, 1024);
                }
            }
            for _ in 0..2000 {
                let mut damaged = head.to_vec();
                for _ in 0..8 {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let at = usize::try_from(seed >> 8).unwrap() % damaged.len();
                    *damaged.get_mut(at).unwrap() = u8::try_from(seed & 0xff).unwrap();
                }
                check(&damaged, 700);
            }
            for cut in (8..head.len()).step_by(7) {
                check(head.get(..cut).unwrap(), 97);
            }
        }

        fn check(bytes: &[u8], slice: usize) {
            let (pieces, ..) = split(bytes, slice);
            // A rebuilt cluster adds 22 bytes per chunk; nothing else may be added.
            let size: usize = pieces.iter().map(|p| p.bytes().len()).sum();
            assert!(size <= bytes.len() + pieces.len() * 32, "{size} bytes out of {}", bytes.len());
        }
    }

    #[test]
    fn other_formats_are_refused() {
        assert_eq!(split(b"RIFF....WAVEfmt ", 5).2, Err(MediaError::UnknownFormat));
        assert_eq!(split(&[0; 64], 64).2, Err(MediaError::UnknownFormat));
        assert_eq!(split(b"short", 1).2, Ok(()));
    }
}
