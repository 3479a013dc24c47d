//! The MIME type of an init segment, with the codecs as players ask for them (RFC 6381).
//!
//! Owns the table of codecs that pages play, and how each is written: out of the sample entries of
//! an MP4's `stsd`, or of a WebM's track entries. Pure. Refuses codecs that no browser plays, by
//! name, and tracks that are neither picture nor sound. Knows no groups and no chunks.

use core::fmt::{self, Write as _};

use super::{
    MediaError,
    boxes::{boxes, children, find, kind},
    u32_at, webm,
};

/// The MIME type of an init segment: `video/mp4; codecs="avc1.42E01E,mp4a.40.2"`.
///
/// # Errors
/// It is no init segment of MP4 or WebM, or has a track that pages can't play.
pub fn mime(init: &[u8]) -> Result<String, MediaError> {
    if init.starts_with(&webm::MAGIC) { webm_mime(init) } else { mp4_mime(init) }
}

fn written(container: &str, tracks: &[(bool, String)]) -> Result<String, MediaError> {
    if tracks.is_empty() {
        return Err(MediaError::Malformed("it has neither picture nor sound"));
    }
    let medium = if tracks.iter().any(|(is_video, _)| *is_video) { "video" } else { "audio" };
    let codecs: Vec<&str> = tracks.iter().map(|(_, codec)| codec.as_str()).collect();
    Ok(format!("{medium}/{container}; codecs=\"{}\"", codecs.join(",")))
}

// MP4.

fn mp4_mime(init: &[u8]) -> Result<String, MediaError> {
    let mut tracks = Vec::new();
    for top in boxes(init) {
        let top = top?;
        if kind(top) != b"moov" {
            continue;
        }
        for child in children(top) {
            let child = child?;
            if kind(child) == b"trak" {
                tracks.push(mp4_track(child)?);
            }
        }
    }
    written("mp4", &tracks)
}

/// Whether a `trak` is video, and its codec.
fn mp4_track(trak: &[u8]) -> Result<(bool, String), MediaError> {
    let need =
        |found: Result<Option<_>, _>, what| found.and_then(|found| Option::ok_or(found, MediaError::Malformed(what)));
    let media = need(find(trak, b"mdia"), "a track without mdia")?;
    let handler = need(find(media, b"hdlr"), "a track without hdlr")?;
    let info = need(find(media, b"minf"), "a track without minf")?;
    let table = need(find(info, b"stbl"), "a track without stbl")?;
    let list = need(find(table, b"stsd"), "a track without stsd")?;
    let entry = boxes(list.get(16..).unwrap_or_default()).next();
    let entry = entry.ok_or(MediaError::Malformed("a track without a sample entry"))??;
    // Before the boxes of an entry: 78 bytes of a picture's fields, 28 of sound's.
    let (is_video, fields) = match handler.get(16..20) {
        Some(b"vide") => (true, 78),
        // `QuickTime` has 16 more in version 1.
        Some(b"soun") if entry.get(16..18) == Some(&[0, 1]) => (false, 44),
        Some(b"soun") => (false, 28),
        _ => return Err(MediaError::Malformed("a track that is neither picture nor sound")),
    };
    let inner = |wanted: &[u8; 4]| -> Result<&[u8], MediaError> {
        for child in boxes(entry.get(8 + fields..).unwrap_or_default()) {
            let child = child?;
            if kind(child) == wanted {
                let config = child.get(8..).unwrap_or_default();
                return if config.is_empty() { Err(MediaError::NoConfiguration) } else { Ok(config) };
            }
        }
        Err(MediaError::NoConfiguration)
    };
    let name = four(kind(entry));
    let codec = match name.as_str() {
        "avc1" | "avc3" => avc(&name, inner(b"avcC")?)?,
        "hvc1" | "hev1" => hevc(&name, inner(b"hvcC")?)?,
        "av01" => av1(inner(b"av1C")?)?,
        "vp08" | "vp09" => vp(&name, inner(b"vpcC")?)?,
        "mp4a" => mp4a(inner(b"esds")?)?,
        "Opus" => "opus".to_owned(),
        "fLaC" => "flac".to_owned(),
        "ac-3" | "ec-3" => name,
        _ => return Err(MediaError::Codec(Codec::new(name.as_bytes()))),
    };
    Ok((is_video, codec))
}

/// Four letters of a box's type.
fn four(letters: &[u8]) -> String {
    letters.iter().map(|letter| if letter.is_ascii_graphic() { char::from(*letter) } else { '?' }).collect()
}

const CUT: MediaError = MediaError::Malformed("a codec's configuration is truncated");

/// ISO/IEC 14496-15: profile, constraints, level.
fn avc(name: &str, config: &[u8]) -> Result<String, MediaError> {
    let &[_version, profile, constraints, level, ..] = config else { return Err(CUT) };
    Ok(format!("{name}.{profile:02X}{constraints:02X}{level:02X}"))
}

/// ISO/IEC 14496-15, annex E.3.
fn hevc(name: &str, config: &[u8]) -> Result<String, MediaError> {
    let (Some(&head), Some(compatible)) = (config.get(1), u32_at(config, 2)) else { return Err(CUT) };
    let (Some(constraints), Some(level)) = (config.get(6..12), config.get(12)) else { return Err(CUT) };
    let space = ["", "A", "B", "C"][usize::from(head >> 6)];
    let tier = if head & 0x20 == 0 { 'L' } else { 'H' };
    let mut text = format!("{name}.{space}{}.{:X}.{tier}{level}", head & 0x1f, compatible.reverse_bits());
    let used = constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for byte in constraints.iter().take(used) {
        // Writing to a string can't fail.
        let _ = write!(text, ".{byte:X}");
    }
    Ok(text)
}

/// AV1 in ISOBMFF, section 5: profile, level, tier, bits.
fn av1(config: &[u8]) -> Result<String, MediaError> {
    let &[_marker, first, second, ..] = config else { return Err(CUT) };
    let (profile, level) = (first >> 5, first & 0x1f);
    let tier = if second & 0x80 == 0 { 'M' } else { 'H' };
    let bits = match (second & 0x40 != 0, second & 0x20 != 0) {
        (false, _) => 8,
        (true, false) => 10,
        (true, true) => 12,
    };
    Ok(format!("av01.{profile}.{level:02}{tier}.{bits:02}"))
}

/// VP codecs in ISOBMFF: profile, level, bits, behind version and flags.
fn vp(name: &str, config: &[u8]) -> Result<String, MediaError> {
    let &[_, _, _, _, profile, level, bits, ..] = config else { return Err(CUT) };
    Ok(format!("{name}.{profile:02}.{level:02}.{:02}", bits >> 4))
}

/// ISO/IEC 14496-1: the object type, and of AAC the audio object type.
fn mp4a(config: &[u8]) -> Result<String, MediaError> {
    // Behind version and flags: an ES descriptor with an id and flags, then the decoder's.
    let stream = descriptor(config.get(4..).unwrap_or_default(), 3)?;
    let flags = *stream.get(2).ok_or(CUT)?;
    let url = if flags & 0x40 == 0 { 0 } else { 1 + usize::from(*stream.get(3).ok_or(CUT)?) };
    let skipped = 3 + if flags & 0x80 == 0 { 0 } else { 2 } + url + if flags & 0x20 == 0 { 0 } else { 2 };
    let decoder = descriptor(stream.get(skipped..).unwrap_or_default(), 4)?;
    let object = *decoder.first().ok_or(CUT)?;
    if object != 0x40 {
        return Ok(format!("mp4a.{object:02X}"));
    }
    let specific = descriptor(decoder.get(13..).unwrap_or_default(), 5)?;
    let &[first, ..] = specific else { return Err(CUT) };
    let kind = match first >> 3 {
        31 => {
            let &[_, second, ..] = specific else { return Err(CUT) };
            32 + ((first & 7) << 3 | second >> 5)
        }
        kind => kind,
    };
    Ok(format!("mp4a.40.{kind}"))
}

/// The body of a descriptor with this tag. Its length has 7 bits in each byte.
fn descriptor(bytes: &[u8], tag: u8) -> Result<&[u8], MediaError> {
    let Some((&first, mut rest)) = bytes.split_first() else { return Err(CUT) };
    if first != tag {
        return Err(MediaError::Malformed("an unknown descriptor in esds"));
    }
    let mut size = 0_usize;
    for _ in 0..4 {
        let Some((&byte, behind)) = rest.split_first() else { return Err(CUT) };
        (size, rest) = (size << 7 | usize::from(byte & 0x7f), behind);
        if byte & 0x80 == 0 {
            return rest.get(..size).ok_or(CUT);
        }
    }
    Err(CUT)
}

// WebM.

fn webm_mime(init: &[u8]) -> Result<String, MediaError> {
    let mut tracks = Vec::new();
    for entry in webm::entries(init)? {
        let webm::TrackEntry { kind, codec, private } = entry?;
        let codec = match codec {
            b"V_VP8" => "vp8".to_owned(),
            b"V_VP9" => "vp9".to_owned(),
            b"V_AV1" => av1(private)?,
            b"A_OPUS" => "opus".to_owned(),
            b"A_VORBIS" => "vorbis".to_owned(),
            other => return Err(MediaError::Codec(Codec::new(other))),
        };
        tracks.push((kind == webm::VIDEO, codec));
    }
    written("webm", &tracks)
}

/// The name of a codec, cut to what names have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Codec([u8; 24]);

impl Codec {
    fn new(name: &[u8]) -> Self {
        let mut cut = [0; 24];
        let graphic = name.iter().filter(|byte| byte.is_ascii_graphic());
        cut.iter_mut().zip(graphic).for_each(|(place, byte)| *place = *byte);
        Self(cut)
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take_while(|byte| **byte != 0).try_for_each(|byte| f.write_char(char::from(*byte)))
    }
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Piece, Splitter};

    fn mime_of(recording: &[u8]) -> Result<String, MediaError> {
        let mut pieces = Vec::new();
        Splitter::default().push(recording, &mut pieces)?;
        let Some(Piece::Init(init)) = pieces.first() else { return Err(MediaError::UnknownFormat) };
        mime(init)
    }

    #[test]
    fn the_recordings_of_browsers_have_the_type_that_players_ask_for() {
        for (recording, expected) in [
            (&include_bytes!("../testdata/vp8.webm")[..], Ok("video/webm; codecs=\"vp8,opus\"".to_owned())),
            (include_bytes!("../testdata/vp9.webm"), Ok("video/webm; codecs=\"vp9,opus\"".to_owned())),
            (include_bytes!("../testdata/opus.webm"), Ok("audio/webm; codecs=\"opus\"".to_owned())),
            (include_bytes!("../testdata/h264.mp4"), Ok("video/mp4; codecs=\"opus,avc1.42C015\"".to_owned())),
            (include_bytes!("../testdata/h264.mkv"), Err(MediaError::Codec(Codec::new(b"V_MPEG4/ISO/AVC")))),
        ] {
            assert_eq!(mime_of(recording), expected);
        }
    }

    #[test]
    fn a_header_without_a_configuration_has_no_type() {
        // `ffmpeg -f fifo` writes an empty avcC, a MOV may have none.
        let whole = include_bytes!("../testdata/h264.mp4");
        let place = whole.windows(4).position(|kind| kind == b"avcC").unwrap();
        let mut without = whole.to_vec();
        without[place] = b'x';
        assert_eq!(mime_of(&without), Err(MediaError::NoConfiguration));
        let size = u32::from_be_bytes(whole[place - 4..place].try_into().unwrap());
        let mut empty = whole.to_vec();
        // An empty box, and another one for what was in it.
        empty[place - 4..place].copy_from_slice(&8_u32.to_be_bytes());
        empty[place + 4..place + 8].copy_from_slice(&(size - 8).to_be_bytes());
        assert_eq!(mime_of(&empty), Err(MediaError::NoConfiguration));
    }

    #[test]
    fn codecs_are_written_as_their_documents_say() {
        assert_eq!(avc("avc1", &[1, 0x64, 0, 0x28]).unwrap(), "avc1.640028");
        let main = [1, 0x01, 0x60, 0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 93];
        assert_eq!(hevc("hvc1", &main).unwrap(), "hvc1.1.6.L93.B0");
        let ten = [1, 0x62, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 120];
        assert_eq!(hevc("hev1", &ten).unwrap(), "hev1.A2.4.H120", "space, tier, no constraints");
        assert_eq!(av1(&[0x81, 0x04, 0x0c, 0]).unwrap(), "av01.0.04M.08");
        assert_eq!(av1(&[0x81, 0x2d, 0xe0, 0]).unwrap(), "av01.1.13H.12");
        assert_eq!(vp("vp09", &[1, 0, 0, 0, 0, 31, 0x82]).unwrap(), "vp09.00.31.08");
        // AAC-LC as ffmpeg writes it, with lengths of four bytes.
        let low = [
            0, 0, 0, 0, 3, 0x80, 0x80, 0x80, 0x25, 0, 2, 0, 4, 0x80, 0x80, 0x80, 0x17, 0x40, 0x15, 0, 0, 0, 0, 1, 0xf4,
            0, 0, 1, 0xf4, 0, 5, 0x80, 0x80, 0x80, 5, 0x11, 0x90, 0x56, 0xe5, 0, 6, 0x80, 0x80, 0x80, 1, 2,
        ];
        assert_eq!(mp4a(&low).unwrap(), "mp4a.40.2");
        let mut mp3 = low;
        mp3[17] = 0x6b;
        assert_eq!(mp4a(&mp3).unwrap(), "mp4a.6B");
        // An object type above 31 has 11 bits.
        let mut long = low;
        [long[35], long[36]] = [0xf9, 0x40];
        assert_eq!(mp4a(&long).unwrap(), "mp4a.40.42");
        for cut in 0..35 {
            assert!(mp4a(&low[..cut]).is_err(), "{cut}");
        }
    }
}
