//! The uplink's frames: a `u32` little-endian length, then that many bytes of postcard.
//!
//! Owns the encoding of both directions and the [`Deframer`], which splits a byte stream into
//! frames in a buffer of fixed size and skips the data of publications that are too large for it.
//! Refuses every frame that the protocol doesn't allow, with the frame's number
//! and the byte offset. Knows nothing of topics, requests or connections: frames are interpreted by
//! the relay and the business server.

mod extensions;
mod located;
mod proof;

use alloc::boxed::Box;
use alloc::vec;
use core::fmt;

pub use extensions::{AWAY, EXTENSIONS_MARK, FEATURES_SIZE_MAX, RECEIPTS, features, is_marked, marked};
use located::byte_of_error;
pub use proof::{Author, author, business_proof, proofs_equal, relay_proof};
use serde::{Deserialize, Serialize};

use super::{LINK_SIZE_MAX, PAGE_DATA_SIZE_MAX, REASON_SIZE_MAX, SEQUENCE_END, Track};

/// The protocol's version, in `Challenge`, `Hello` and `Welcome`.
pub const VERSION: u16 = 1;
/// The maximum length of a frame, in bytes.
pub const FRAME_SIZE_MAX: usize = 1_114_112;
/// The size of the length prefix, in bytes.
pub const LENGTH_SIZE: usize = 4;
/// The maximum size of a frame other than `Publish`, and of a `Publish` before its data, in bytes.
/// The largest is `Subscribe` with the longest link (128), address (45), origin (256) and numbers.
pub const PREFIX_SIZE_MAX: usize = 640;

/// A frame from the relay to the business server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToBusiness<'a> {
    /// Answers `Challenge`; `proof` is [`relay_proof`].
    Hello {
        /// [`VERSION`].
        version: u16,
        /// The relay's name, at most 256 bytes.
        relay: &'a str,
        /// Random, new for each connection; see [`EXTENSIONS_MARK`].
        nonce: [u8; 16],
        /// [`relay_proof`].
        proof: [u8; 32],
    },
    /// A subscription request.
    Subscribe {
        /// Chosen by the relay, echoed by `Accept` or `Deny`.
        request: u32,
        /// The share link.
        link: &'a str,
        /// Where the relay wants to resume each track.
        since: Option<Since>,
        /// The requesting page.
        page: PageInfo<'a>,
    },
    /// The relay drops a topic.
    Unsubscribe {
        /// The topic's number.
        topic: u32,
    },
    /// The current number of pages of a topic.
    Audience {
        /// The topic's number.
        topic: u32,
        /// Pages subscribed.
        pages: u32,
    },
    /// A message from a page.
    PageMessage {
        /// The topic's number.
        topic: u32,
        /// The page's number, not reused within one connection.
        page: u32,
        /// At most 512 bytes.
        data: &'a str,
    },
    /// Asks for a `Pong`.
    Ping {
        /// Echoed.
        nonce: u32,
    },
    /// Answers a `Ping`.
    Pong {
        /// The `Ping`'s.
        nonce: u32,
    },
    /// The extensions that the relay knows. Only where both nonces have [`EXTENSIONS_MARK`].
    Features {
        /// See [`features`].
        words: &'a str,
    },
    /// A message from a page that wants a `Sent`. Only where both named [`RECEIPTS`].
    Send {
        /// The topic's number.
        topic: u32,
        /// The page's number, not reused within one connection.
        page: u32,
        /// Random, chosen by the page. A message that is sent again has the same.
        id: [u8; 16],
        /// At most 512 bytes.
        data: &'a str,
    },
}

/// A frame from the business server to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToRelay<'a> {
    /// The first frame of a connection.
    Challenge {
        /// [`VERSION`].
        version: u16,
        /// Random, new for each connection; see [`EXTENSIONS_MARK`].
        nonce: [u8; 16],
    },
    /// Answers `Hello`; `proof` is [`business_proof`].
    Welcome {
        /// [`VERSION`].
        version: u16,
        /// [`business_proof`].
        proof: [u8; 32],
    },
    /// The link is valid and shows this topic.
    Accept {
        /// The `Subscribe`'s.
        request: u32,
        /// The number of the topic that the link shows, chosen by the business server.
        topic: u32,
        /// Changes when the topic's sequences have restarted.
        epoch: u64,
        /// What the link allows.
        grant: Grant,
    },
    /// The link is not valid.
    Deny {
        /// The `Subscribe`'s.
        request: u32,
        /// For the viewer, at most 256 bytes.
        reason: &'a str,
    },
    /// One publication.
    Publish {
        /// The topic's number.
        topic: u32,
        /// The track.
        track: Track,
        /// Increases by exactly 1 with each publication of the track.
        sequence: u64,
        /// The kind of publication.
        part: Part<'a>,
        /// The bytes for the pages.
        data: &'a [u8],
    },
    /// Ends every subscription made with the link, and its grant.
    Revoke {
        /// The share link.
        link: &'a str,
        /// For the viewer, at most 256 bytes.
        reason: &'a str,
    },
    /// Ends the topic for all pages.
    End {
        /// The topic's number.
        topic: u32,
        /// For the viewer, at most 256 bytes.
        reason: &'a str,
    },
    /// Asks for a `Pong`.
    Ping {
        /// Echoed.
        nonce: u32,
    },
    /// Answers a `Ping`.
    Pong {
        /// The `Ping`'s.
        nonce: u32,
    },
    /// Closes one page with 1008.
    Kick {
        /// The page's number.
        page: u32,
        /// For the viewer, at most 256 bytes.
        reason: &'a str,
    },
    /// The extensions that the business server knows; answers the relay's.
    Features {
        /// See [`features`].
        words: &'a str,
    },
    /// The business server will close this connection: the relay connects elsewhere before. Only
    /// where both named [`AWAY`].
    Away {
        /// Within this time, in seconds.
        within_s: u32,
    },
    /// The business server has a page's message. Only where both named [`RECEIPTS`].
    Sent {
        /// The page's number.
        page: u32,
        /// The `Send`'s.
        id: [u8; 16],
    },
}

/// Where a subscriber wants to resume each track of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// The epoch of the sequences.
    pub epoch: u64,
    /// The next expected sequence of each [`Track`]; 0: as for a late page.
    pub next: [u64; 4],
}

/// The page that requests a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageInfo<'a> {
    /// Textual IP address; empty if unknown.
    pub address: &'a str,
    /// The page's `Origin`; empty if unknown.
    pub origin: &'a str,
}

/// What a link allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Whether the relay may admit further pages by itself.
    pub shared: bool,
    /// How long this grant is valid, in seconds.
    pub ttl_s: u32,
    /// Whether messages from pages are forwarded.
    pub page_messages: bool,
    /// The maximum number of messages replayed to a late page.
    pub replay: u16,
}

/// The kind of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part<'a> {
    /// `state`, `messages`: a complete value.
    Whole,
    /// `audio`, `video`: the init segment.
    Init {
        /// The MIME type, at most 255 bytes.
        mime: &'a str,
    },
    /// `audio`, `video`: the first chunk of a group.
    Start,
    /// `audio`, `video`: a later chunk of the group.
    Continue,
}

impl ToRelay<'_> {
    /// The frame's name in logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Challenge { .. } => "Challenge",
            Self::Welcome { .. } => "Welcome",
            Self::Accept { .. } => "Accept",
            Self::Deny { .. } => "Deny",
            Self::Publish { .. } => "Publish",
            Self::Revoke { .. } => "Revoke",
            Self::End { .. } => "End",
            Self::Ping { .. } => "Ping",
            Self::Pong { .. } => "Pong",
            Self::Kick { .. } => "Kick",
            Self::Features { .. } => "Features",
            Self::Away { .. } => "Away",
            Self::Sent { .. } => "Sent",
        }
    }
}

/// Why a frame is invalid. The connection must be closed; nothing of the frame was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// The frame's number on its connection, from 1.
    pub frame: u64,
    /// The byte offset in the frame, from 0 after the length prefix.
    pub byte: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// An error in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The length prefix is 0 or above [`FRAME_SIZE_MAX`].
    Length(u32),
    /// The bytes are not a frame in postcard.
    Postcard(postcard::Error),
    /// This number of bytes is left over after the value.
    LeftOver(usize),
    /// A string or a byte string is longer than the protocol allows.
    TooLong {
        /// The field.
        field: &'static str,
        /// Its size, in bytes.
        size: usize,
        /// The maximum size, in bytes.
        max: usize,
    },
    /// A part that the track doesn't have.
    PartOfOtherTrack(Track),
    /// A sequence that is 0, or 2^53 or more.
    Sequence(u64),
    /// A frame other than `Publish` that is larger than any such frame can be. Its length, in
    /// bytes.
    TooLarge(u32),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame {}, byte {}: ", self.frame, self.byte)?;
        match self.fault {
            Fault::Length(n) => write!(f, "the length {n} is not between 1 and {FRAME_SIZE_MAX}"),
            Fault::Postcard(postcard::Error::DeserializeUnexpectedEnd) => f.write_str("unexpected end of the frame"),
            Fault::Postcard(postcard::Error::DeserializeBadUtf8) => f.write_str("a string is not UTF-8"),
            Fault::Postcard(postcard::Error::DeserializeBadVarint) => f.write_str("a number is out of range"),
            Fault::Postcard(postcard::Error::DeserializeBadBool) => f.write_str("a bool is neither 0 nor 1"),
            Fault::Postcard(postcard::Error::DeserializeBadOption) => f.write_str("an option is neither 0 nor 1"),
            Fault::Postcard(_) => f.write_str("an unknown variant, or invalid postcard"),
            Fault::LeftOver(1) => f.write_str("1 byte is left over after the value"),
            Fault::LeftOver(n) => write!(f, "{n} bytes are left over after the value"),
            Fault::TooLong { field, size, max } => write!(f, "{field} has {size} bytes, the maximum is {max}"),
            Fault::PartOfOtherTrack(track) => write!(f, "the part does not belong to the track {}", track.name()),
            Fault::Sequence(n) => write!(f, "the sequence {n} is not between 1 and 2^53 - 1"),
            Fault::TooLarge(n) => write!(f, "{n} bytes are too many for a frame that is not a Publish"),
        }
    }
}

/// A publication whose data is larger than the deframer's buffer: its data is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oversize {
    /// The topic's number.
    pub topic: u32,
    /// The track.
    pub track: Track,
    /// The publication's sequence.
    pub sequence: u64,
    /// The kind of publication; an init segment is without its MIME type.
    pub part: Part<'static>,
    /// The size of the data, in bytes.
    pub size: usize,
}

/// An item that the deframer found in the byte stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A valid frame.
    Frame(ToRelay<'a>),
    /// A publication that is too large for the buffer; its data is being skipped.
    Oversize(Oversize),
}

/// Splits a byte stream into frames, in a buffer of fixed size.
///
/// Read into [`space`](Self::space), report the number of bytes with [`filled`](Self::filled), then
/// take frames until there are no more. Bytes are only moved if a frame doesn't fit before the
/// buffer's end.
#[derive(Debug)]
pub struct Deframer {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    skip: usize,
    frames: u64,
    has_extensions: bool,
}

impl Deframer {
    /// Creates a deframer for publications of at most `data_size_max` bytes of data.
    #[must_use]
    pub fn new(data_size_max: usize) -> Self {
        let buffer = vec![0; Self::size(data_size_max)].into_boxed_slice();
        Self { buffer, start: 0, end: 0, skip: 0, frames: 0, has_extensions: false }
    }

    /// Takes the frames of extensions too: for a peer that may have been asked for them.
    #[must_use]
    pub fn with_extensions(self) -> Self {
        Self { has_extensions: true, ..self }
    }

    /// The size of the buffer that [`new`](Self::new) allocates, in bytes.
    #[must_use]
    pub const fn size(data_size_max: usize) -> usize {
        data_size_max + PREFIX_SIZE_MAX + READ_AHEAD_SIZE
    }

    /// Discards everything, for a new connection.
    pub fn reset(&mut self) {
        (self.start, self.end, self.skip, self.frames) = (0, 0, 0, 0);
    }

    /// The free space to read into. Never empty after all complete frames were taken.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < READ_AHEAD_SIZE {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// Reports that `size` bytes were read into [`space`](Self::space).
    pub fn filled(&mut self, size: usize) {
        self.end = (self.end + size).min(self.buffer.len());
        let skipped = self.skip.min(self.end - self.start);
        self.start += skipped;
        self.skip -= skipped;
    }

    /// The bytes of the next complete frame without its length prefix, for decoding the other
    /// direction.
    ///
    /// # Errors
    /// A length that is out of range, or larger than the buffer.
    pub fn next_body(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let Some(size) = self.next_length()? else { return Ok(None) };
        if size + LENGTH_SIZE > self.frame_size_max() {
            return Err(self.error(0, Fault::TooLarge(u32::try_from(size).unwrap_or(u32::MAX))));
        }
        let body = self.start + LENGTH_SIZE;
        if self.end < body + size {
            return Ok(None);
        }
        self.start = body + size;
        self.frames += 1;
        Ok(self.buffer.get(body..body + size))
    }

    /// The next frame from the business server, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// The frame's number, the byte and what is wrong. The deframer must not be used any more,
    /// except to reset it.
    pub fn next_frame(&mut self) -> Result<Option<Incoming<'_>>, FrameError> {
        let Some(size) = self.next_length()? else { return Ok(None) };
        let number = self.frames + 1;
        let located = |(byte, fault)| FrameError { frame: number, byte, fault };
        let body = self.start + LENGTH_SIZE;
        let held = self.end - body;
        if size + LENGTH_SIZE <= self.frame_size_max() {
            if held < size {
                return Ok(None);
            }
            self.start = body + size;
            self.frames = number;
            let bytes = self.buffer.get(body..body + size).unwrap_or_default();
            let frame = if self.has_extensions { decode_any_to_relay(bytes) } else { decode_to_relay(bytes) };
            return frame.map(|frame| Some(Incoming::Frame(frame))).map_err(located);
        }
        if held < PREFIX_SIZE_MAX {
            return Ok(None);
        }
        let bytes = self.buffer.get(body..body + PREFIX_SIZE_MAX).unwrap_or_default();
        let oversize = decode_oversize(bytes, size).map_err(located)?;
        let skipped = held.min(size);
        self.start = body + skipped;
        self.skip = size - skipped;
        self.frames = number;
        Ok(Some(Incoming::Oversize(oversize)))
    }

    fn frame_size_max(&self) -> usize {
        self.buffer.len() - READ_AHEAD_SIZE
    }

    fn next_length(&self) -> Result<Option<usize>, FrameError> {
        let held = self.buffer.get(self.start..self.end).unwrap_or_default();
        let Some(length) = held.first_chunk::<LENGTH_SIZE>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length);
        match usize::try_from(length) {
            Ok(size) if (1..=FRAME_SIZE_MAX).contains(&size) => Ok(Some(size)),
            _ => Err(self.error(0, Fault::Length(length))),
        }
    }

    fn error(&self, byte: usize, fault: Fault) -> FrameError {
        FrameError { frame: self.frames + 1, byte, fault }
    }
}

/// Decodes one frame of plain version 1 from the business server, and validates it.
///
/// # Errors
/// The byte offset and what is wrong there. A frame of an extension is an unknown variant.
pub fn decode_to_relay(bytes: &[u8]) -> Result<ToRelay<'_>, (usize, Fault)> {
    refuse_extensions(bytes, RELAY_VARIANTS)?;
    decode_any_to_relay(bytes)
}

/// Decodes one frame from the business server, of version 1 or of an extension, and validates it.
///
/// # Errors
/// The byte offset and what is wrong there.
pub fn decode_any_to_relay(bytes: &[u8]) -> Result<ToRelay<'_>, (usize, Fault)> {
    let frame: ToRelay<'_> = decode(bytes)?;
    let text = |field, text: &str, max| at_most(bytes, field, text.as_bytes(), max);
    match frame {
        ToRelay::Deny { reason, .. } | ToRelay::End { reason, .. } | ToRelay::Kick { reason, .. } => {
            text("reason", reason, REASON_SIZE_MAX)?;
        }
        ToRelay::Revoke { link, reason } => {
            text("link", link, LINK_SIZE_MAX)?;
            text("reason", reason, REASON_SIZE_MAX)?;
        }
        ToRelay::Features { words } => text("words", words, FEATURES_SIZE_MAX)?,
        ToRelay::Publish { track, sequence, part, .. } => check_publication(bytes, track, sequence, part)?,
        _ => {}
    }
    Ok(frame)
}

/// Decodes one frame of plain version 1 from a relay, for business servers, and checks its lengths.
///
/// # Errors
/// The byte offset and what is wrong there. A frame of an extension is an unknown variant.
pub fn decode_to_business(bytes: &[u8]) -> Result<ToBusiness<'_>, (usize, Fault)> {
    refuse_extensions(bytes, BUSINESS_VARIANTS)?;
    decode_any_to_business(bytes)
}

/// Decodes one frame from a relay, of version 1 or of an extension, and checks its lengths.
///
/// # Errors
/// The byte offset and what is wrong there.
pub fn decode_any_to_business(bytes: &[u8]) -> Result<ToBusiness<'_>, (usize, Fault)> {
    let frame: ToBusiness<'_> = decode(bytes)?;
    match frame {
        ToBusiness::Hello { relay, .. } => at_most(bytes, "relay", relay.as_bytes(), REASON_SIZE_MAX)?,
        ToBusiness::Subscribe { link, .. } => at_most(bytes, "link", link.as_bytes(), LINK_SIZE_MAX)?,
        ToBusiness::PageMessage { data, .. } | ToBusiness::Send { data, .. } => {
            at_most(bytes, "data", data.as_bytes(), PAGE_DATA_SIZE_MAX)?
        }
        ToBusiness::Features { words } => at_most(bytes, "words", words.as_bytes(), FEATURES_SIZE_MAX)?,
        _ => {}
    }
    Ok(frame)
}

/// The frames of version 1 in each direction; variants from here on are of extensions.
const RELAY_VARIANTS: u32 = 10;
const BUSINESS_VARIANTS: u32 = 7;

fn refuse_extensions(bytes: &[u8], variants: u32) -> Result<(), (usize, Fault)> {
    match postcard::take_from_bytes::<u32>(bytes) {
        Ok((variant, _)) if variant >= variants => Err((0, Fault::Postcard(postcard::Error::SerdeDeCustom))),
        // What is no number either is told by the decoder.
        _ => Ok(()),
    }
}

/// Encodes a frame with its length prefix to the front of `out`, and returns the number of bytes
/// written. `None` if it doesn't fit; the contents of `out` are then unspecified.
#[must_use]
pub fn encode<T: Serialize>(frame: &T, out: &mut [u8]) -> Option<usize> {
    let (length, body) = out.split_first_chunk_mut::<LENGTH_SIZE>()?;
    let size = postcard::to_slice(frame, body).ok()?.len();
    *length = u32::try_from(size).ok()?.to_le_bytes();
    Some(LENGTH_SIZE + size)
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, (usize, Fault)> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, left)) => Err((bytes.len() - left.len(), Fault::LeftOver(left.len()))),
        Err(error) => Err((byte_of_error::<T>(bytes), Fault::Postcard(error))),
    }
}

/// The part of a `Publish` before its data, without an `Init`'s MIME type.
#[derive(Deserialize)]
struct PublishPrefix {
    variant: u8,
    topic: u32,
    track: Track,
    sequence: u64,
    part: u8,
}

const PUBLISH_VARIANT: u8 = 4;
const INIT_VARIANT: u8 = 1;

/// Decodes the head of a frame of `size` bytes that is too large for the buffer.
fn decode_oversize(head: &[u8], size: usize) -> Result<Oversize, (usize, Fault)> {
    if head.first().is_some_and(|&variant| variant != PUBLISH_VARIANT) {
        return Err((0, Fault::TooLarge(u32::try_from(size).unwrap_or(u32::MAX))));
    }
    let (publish, rest) = take::<PublishPrefix>(head, head)?;
    debug_assert_eq!(publish.variant, PUBLISH_VARIANT);
    let part = match publish.part {
        0 => Part::Whole,
        INIT_VARIANT => Part::Init { mime: "" },
        2 => Part::Start,
        3 => Part::Continue,
        _ => return Err((head.len() - rest.len() - 1, Fault::Postcard(postcard::Error::SerdeDeCustom))),
    };
    check_publication(head, publish.track, publish.sequence, part)?;
    let rest = if publish.part == INIT_VARIANT {
        let (mime_size, rest) = take::<u32>(head, rest)?;
        rest.get(usize::try_from(mime_size).unwrap_or(usize::MAX)..)
    } else {
        Some(rest)
    };
    let PublishPrefix { topic, track, sequence, .. } = publish;
    let oversize = |size| Oversize { topic, track, sequence, part, size };
    // A MIME type that exceeds the head is too long itself: the publication is dropped in any case.
    let Some(rest) = rest else { return Ok(oversize(size)) };
    let (data_size, rest) = take::<u32>(head, rest)?;
    let (data_size, held) = (usize::try_from(data_size).unwrap_or(usize::MAX), size - (head.len() - rest.len()));
    match held.checked_sub(data_size) {
        Some(0) => Ok(oversize(data_size)),
        Some(left) => Err((size - left, Fault::LeftOver(left))),
        None => Err((size, Fault::Postcard(postcard::Error::DeserializeUnexpectedEnd))),
    }
}

/// Decodes a value from the front of `bytes`, a suffix of `frame`.
fn take<'a, T: Deserialize<'a>>(frame: &[u8], bytes: &'a [u8]) -> Result<(T, &'a [u8]), (usize, Fault)> {
    postcard::take_from_bytes(bytes)
        .map_err(|error| (frame.len() - bytes.len() + byte_of_error::<T>(bytes), Fault::Postcard(error)))
}

fn check_publication(bytes: &[u8], track: Track, sequence: u64, part: Part<'_>) -> Result<(), (usize, Fault)> {
    if track.is_media() == matches!(part, Part::Whole) {
        return Err((publish_field(bytes, 4), Fault::PartOfOtherTrack(track)));
    }
    if !(1..SEQUENCE_END).contains(&sequence) {
        return Err((publish_field(bytes, 3), Fault::Sequence(sequence)));
    }
    Ok(())
}

/// The offset of a field of `Publish`; the variant is field 0. All fields before it are varints.
fn publish_field(bytes: &[u8], field: usize) -> usize {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte < 0x80).map(|(at, _)| at + 1);
    ends.take(field).last().unwrap_or(0)
}

fn at_most(frame: &[u8], field: &'static str, value: &[u8], max: usize) -> Result<(), (usize, Fault)> {
    if value.len() <= max {
        return Ok(());
    }
    Err((offset(frame, value), Fault::TooLong { field, size: value.len(), max }))
}

/// The offset of a field that borrows from the frame.
fn offset(frame: &[u8], field: &[u8]) -> usize {
    (field.as_ptr() as usize).saturating_sub(frame.as_ptr() as usize)
}

/// Buffer space beyond the largest frame, in bytes: 64 KiB, about what a socket returns per read.
const READ_AHEAD_SIZE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(frame: &impl Serialize) -> Vec<u8> {
        let mut bytes = vec![0; 8_192];
        let size = encode(frame, &mut bytes).unwrap();
        bytes.truncate(size);
        bytes
    }

    fn feed(deframer: &mut Deframer, bytes: &[u8]) {
        deframer.space()[..bytes.len()].copy_from_slice(bytes);
        deframer.filled(bytes.len());
    }

    fn publish(data: &[u8]) -> ToRelay<'_> {
        ToRelay::Publish { topic: 7, track: Track::Video, sequence: 300, part: Part::Init { mime: "video/mp4" }, data }
    }

    #[test]
    fn frames_are_whole_wherever_the_stream_is_cut() {
        let stream = [bytes(&ToRelay::Ping { nonce: 1 }), bytes(&publish(b"data")), bytes(&ToRelay::Pong { nonce: 2 })];
        let stream = stream.concat();
        for cut in 0..=stream.len() {
            let mut deframer = Deframer::new(100);
            let mut found = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                feed(&mut deframer, part);
                while let Some(Incoming::Frame(frame)) = deframer.next_frame().unwrap() {
                    found.push(frame.name());
                }
            }
            assert_eq!(found, ["Ping", "Publish", "Pong"], "cut at {cut}");
        }
    }

    #[test]
    fn a_publication_that_is_too_large_is_named_and_skipped_wherever_it_is_cut() {
        let data = [5; 3_000];
        let stream = [bytes(&publish(&data)), bytes(&ToRelay::Ping { nonce: 9 })].concat();
        for cut in (0..=stream.len()).step_by(7) {
            let mut deframer = Deframer::new(100);
            let mut found = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                feed(&mut deframer, part);
                while let Some(incoming) = deframer.next_frame().unwrap() {
                    found.push(match incoming {
                        Incoming::Oversize(oversize) => (oversize.topic, oversize.sequence, oversize.size),
                        Incoming::Frame(ToRelay::Ping { nonce }) => (nonce, 0, 0),
                        Incoming::Frame(frame) => panic!("{frame:?}"),
                    });
                }
            }
            assert_eq!(found, [(7, 300, 3_000), (9, 0, 0)], "cut at {cut}");
        }
    }

    #[test]
    fn a_stream_of_large_frames_goes_through_the_buffer_again_and_again() {
        let (small, large) = (bytes(&publish(&[1; 90])), bytes(&publish(&[2; 5_000])));
        let mut deframer = Deframer::new(100);
        let mut found = 0;
        for round in 0..60 {
            for piece in [&small, &large][round % 2].chunks(1_000) {
                feed(&mut deframer, piece);
                while deframer.next_frame().unwrap().is_some() {
                    found += 1;
                }
                assert!(deframer.space().len() >= READ_AHEAD_SIZE);
            }
        }
        assert_eq!(found, 60);
    }

    #[test]
    fn a_length_out_of_range_ends_the_stream() {
        for length in [0, 1_114_113, u32::MAX] {
            let mut deframer = Deframer::new(100);
            feed(&mut deframer, &length.to_le_bytes());
            let error = deframer.next_frame().unwrap_err();
            assert_eq!(error, FrameError { frame: 1, byte: 0, fault: Fault::Length(length) });
        }
    }

    #[test]
    fn only_a_publication_may_be_too_large() {
        let mut deframer = Deframer::new(100);
        feed(&mut deframer, &5_000_u32.to_le_bytes());
        feed(&mut deframer, &[7; 1_000]);
        assert_eq!(deframer.next_frame().unwrap_err().fault, Fault::TooLarge(5_000));
    }

    #[test]
    fn errors_name_the_frame_and_the_byte() {
        let mut deframer = Deframer::new(100);
        feed(&mut deframer, &bytes(&ToRelay::Ping { nonce: 1 }));
        assert!(deframer.next_frame().unwrap().is_some());
        // A Publish on track 9.
        feed(&mut deframer, &[5, 0, 0, 0, 4, 7, 9, 1, 0]);
        let error = deframer.next_frame().unwrap_err();
        assert_eq!((error.frame, error.byte), (2, 2), "{error}");
        let byte = |bytes: &[u8]| decode_to_relay(bytes).unwrap_err().0;
        assert_eq!(byte(&[0x20]), 0, "no such frame");
        assert_eq!(byte(&[2, 1, 7, 1, 2, 60, 1, 0]), 4, "a grant that is shared or not, or 2");
        assert_eq!(byte(&[3, 7, 2, b'n', 0xff]), 3, "a text that is no UTF-8");
        assert_eq!(byte(&[3, 7, 200, 1, b'n']), 5, "the end, where more was announced");
    }

    #[test]
    fn what_the_contract_forbids_is_refused() {
        let refused = |frame: ToRelay<'_>| decode_to_relay(&bytes(&frame)[LENGTH_SIZE..]).map(|_| ()).unwrap_err();
        let whole = |track, sequence, part| ToRelay::Publish { topic: 1, track, sequence, part, data: b"" };
        assert_eq!(refused(whole(Track::Audio, 1, Part::Whole)).1, Fault::PartOfOtherTrack(Track::Audio));
        assert_eq!(refused(whole(Track::State, 1, Part::Start)), (4, Fault::PartOfOtherTrack(Track::State)));
        assert_eq!(refused(whole(Track::State, 0, Part::Whole)), (3, Fault::Sequence(0)));
        assert_eq!(refused(whole(Track::State, SEQUENCE_END, Part::Whole)).1, Fault::Sequence(SEQUENCE_END));
        let long = "x".repeat(257);
        let too_long = Fault::TooLong { field: "reason", size: 257, max: 256 };
        assert_eq!(refused(ToRelay::End { topic: 1, reason: &long }).1, too_long);
    }

    #[test]
    fn extensions_are_frames_only_for_those_who_negotiate_them() {
        let unknown = Err((0, Fault::Postcard(postcard::Error::SerdeDeCustom)));
        let long = "x".repeat(FEATURES_SIZE_MAX + 1);
        let too_long = Fault::TooLong { field: "words", size: 257, max: 256 };
        let sent = ToRelay::Sent { page: 3, id: [5; 16] };
        for frame in [ToRelay::Features { words: "away" }, ToRelay::Away { within_s: 9 }, sent] {
            let bytes = bytes(&frame);
            assert_eq!(decode_to_relay(&bytes[LENGTH_SIZE..]).map(|_| ()), unknown);
            assert_eq!(decode_any_to_relay(&bytes[LENGTH_SIZE..]), Ok(frame));
            let mut plain = Deframer::new(100);
            feed(&mut plain, &bytes);
            assert!(plain.next_frame().is_err());
            let mut extended = Deframer::new(100).with_extensions();
            feed(&mut extended, &bytes);
            assert_eq!(extended.next_frame(), Ok(Some(Incoming::Frame(frame))));
        }
        assert_eq!(
            decode_any_to_relay(&bytes(&ToRelay::Features { words: &long })[LENGTH_SIZE..]).unwrap_err().1,
            too_long
        );
        let send = ToBusiness::Send { topic: 1, page: 3, id: [5; 16], data: "hi" };
        for frame in [ToBusiness::Features { words: "away" }, send] {
            assert_eq!(decode_to_business(&bytes(&frame)[LENGTH_SIZE..]).map(|_| ()), unknown);
            assert_eq!(decode_any_to_business(&bytes(&frame)[LENGTH_SIZE..]), Ok(frame));
        }
        let frame = ToBusiness::Features { words: &long };
        assert_eq!(decode_any_to_business(&bytes(&frame)[LENGTH_SIZE..]).unwrap_err().1, too_long);
        // A variant in two bytes is the same variant.
        assert!(decode_to_relay(&[0x8a, 0x00, 0x00]).is_err());
        assert_eq!(features(" away  next ").collect::<Vec<_>>(), ["away", "next"]);
    }

    #[test]
    fn bytes_left_over_are_refused() {
        assert_eq!(decode_to_relay(&[7, 1, 0]), Err((2, Fault::LeftOver(1))));
        assert_eq!(decode_to_relay(&[7]), Err((1, Fault::Postcard(postcard::Error::DeserializeUnexpectedEnd))));
    }

    #[test]
    fn the_largest_frame_to_the_business_server_is_known() {
        let (link, origin) = ("l".repeat(128), "o".repeat(256));
        let address = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255";
        let since = Some(Since { epoch: u64::MAX, next: [u64::MAX; 4] });
        let page = PageInfo { address, origin: &origin };
        let frame = ToBusiness::Subscribe { request: u32::MAX, link: &link, since, page };
        assert!(bytes(&frame).len() <= LENGTH_SIZE + PREFIX_SIZE_MAX);
        let data = "d".repeat(512);
        let frame = ToBusiness::Send { topic: u32::MAX, page: u32::MAX, id: [255; 16], data: &data };
        assert!(bytes(&frame).len() <= LENGTH_SIZE + PREFIX_SIZE_MAX);
        assert_eq!(encode(&frame, &mut [0; 100]), None);
    }

    #[test]
    fn proofs_differ_by_side_and_by_order() {
        let (a, b) = ([1; 16], [2; 16]);
        assert_eq!(relay_proof(b"s", &a, &b), relay_proof(b"s", &a, &b));
        assert_ne!(relay_proof(b"s", &a, &b), relay_proof(b"s", &b, &a));
        assert_ne!(relay_proof(b"s", &a, &b), business_proof(b"s", &a, &b));
        assert!(proofs_equal(&[3; 32], &[3; 32]) && !proofs_equal(&[3; 32], &[4; 32]));
    }
}
