//! Records: how long one is, sealing one, opening one (RFC 8446, 5; RFC 5246, 6.2).
//!
//! Owns the wire form of a protected record in both versions. Works in place, in the caller's
//! memory: nothing is allocated, and the AEAD's key is expanded on the stack, for each write or
//! record that is opened.
//!
//! Refuses whatever can't be a protected record, and content that may not come after the handshake.
//! Doesn't know what a content means, or when keys change: that is the connection's.

use core::mem;
use core::ops::Range;

use ring::aead::{Aad, LessSafeKey, Nonce, UnboundKey};

use crate::alert::Alert;
use crate::keys::Keys;
use crate::suite::{Aead, HEADER_SIZE, PLAIN_SIZE_MAX, RECORD_SIZE_MAX, Suite, TAG_SIZE, Version};

/// What a record carries (RFC 8446, 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Only during a handshake.
    ChangeCipherSpec,
    /// Level and description: 2 bytes.
    Alert,
    /// Handshake messages, which may be cut anywhere.
    Handshake,
    /// The connection's own bytes.
    ApplicationData,
}

impl Content {
    /// Its number on the wire.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::ChangeCipherSpec => 20,
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::ApplicationData => 23,
        }
    }

    /// The content with this number on the wire.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            20 => Self::ChangeCipherSpec,
            21 => Self::Alert,
            22 => Self::Handshake,
            23 => Self::ApplicationData,
            _ => return None,
        })
    }
}

/// The size of the whole record that begins with these bytes, header included, in bytes. `None` if
/// they are fewer than [`HEADER_SIZE`].
///
/// # Errors
///
/// - [`Alert::UnexpectedMessage`]: no content has this outer number (RFC 8446, 5).
/// - [`Alert::DecodeError`]: the major version isn't 3, so this isn't TLS. A minor version is
///   judged by [`open`].
/// - [`Alert::RecordOverflow`]: longer than [`RECORD_SIZE_MAX`]. That is TLS 1.3's limit; TLS 1.2
///   allows more, but not with an AEAD whose plaintext fits a record.
pub fn size(bytes: &[u8]) -> Result<Option<usize>, Alert> {
    let Some([content, major, _minor, high, low]) = bytes.first_chunk::<HEADER_SIZE>().copied() else {
        return Ok(None);
    };
    if Content::from_byte(content).is_none() {
        return Err(Alert::UnexpectedMessage);
    }
    if major != 3 {
        return Err(Alert::DecodeError);
    }
    let size = HEADER_SIZE + usize::from(u16::from_be_bytes([high, low]));
    if size > RECORD_SIZE_MAX {
        return Err(Alert::RecordOverflow);
    }
    Ok(Some(size))
}

/// Seals one record, as [`Sealer::seal`] does.
#[must_use]
pub fn seal(suite: Suite, keys: &Keys, ahead: u64, content: Content, plain: &[&[u8]], out: &mut [u8]) -> Option<usize> {
    Sealer::new(suite, keys)?.seal(ahead, content, plain, out)
}

/// Seals records with one direction's keys. Expanding a key takes half of the time of a record of
/// 200 bytes, so one is made for each write.
pub struct Sealer<'a> {
    suite: Suite,
    keys: &'a Keys,
    key: LessSafeKey,
}

impl<'a> Sealer<'a> {
    /// Expands the key. `None` if it isn't one of the suite's.
    #[must_use]
    pub fn new(suite: Suite, keys: &'a Keys) -> Option<Self> {
        Some(Self { suite, keys, key: expanded(suite, keys)? })
    }

    /// Seals one record out of the concatenated `plain` slices into the start of `out`; returns
    /// its size in bytes. Its sequence is `keys.sequence() + ahead`; the keys are not advanced. The
    /// same arguments give the same bytes.
    ///
    /// `None`, with `out` unchanged, if the record doesn't fit `out`, the plaintext is over
    /// [`PLAIN_SIZE_MAX`], the sequences are used up, or the content is one that may not be sent: a
    /// change of cipher, or an alert or handshake without a byte (RFC 8446, 5.4; RFC 5246, 6.2.1).
    #[must_use]
    pub fn seal(&self, ahead: u64, content: Content, plain: &[&[u8]], out: &mut [u8]) -> Option<usize> {
        let Self { suite, keys, key } = self;
        let sequence = keys.sequence_ahead(ahead)?;
        let plain_size = plain.iter().try_fold(0_usize, |sum, part| sum.checked_add(part.len()))?;
        if plain_size > PLAIN_SIZE_MAX || !may_be_protected(content, plain_size) {
            return None;
        }
        let size = plain_size + suite.overhead();
        let length = u16::try_from(size - HEADER_SIZE).ok()?;
        let nonce = keys.nonce(sequence);

        let (header, rest) = out.get_mut(..size)?.split_first_chunk_mut::<HEADER_SIZE>()?;
        let (explicit, rest) = rest.split_at_mut_checked(suite.prefix_size() - HEADER_SIZE)?;
        let (body, tag) = rest.split_last_chunk_mut::<TAG_SIZE>()?;
        let outer = if suite.version == Version::Tls13 { Content::ApplicationData } else { content };
        let [high, low] = length.to_be_bytes();
        *header = [outer.byte(), 3, 3, high, low];
        // The nonce's last 8 bytes, or nothing.
        explicit.iter_mut().rev().zip(nonce.iter().rev()).for_each(|(to, from)| *to = *from);
        let mut space = &mut *body;
        for part in plain {
            let (here, behind) = mem::take(&mut space).split_at_mut_checked(part.len())?;
            here.copy_from_slice(part);
            space = behind;
        }
        // TLS 1.3: the inner content type. No padding.
        space.iter_mut().for_each(|byte| *byte = content.byte());

        let additional = Additional::new(*suite, sequence, *header, plain_size);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let made = key.seal_in_place_separate_tag(nonce, Aad::from(additional), body).ok()?;
        tag.copy_from_slice(made.as_ref());
        Some(size)
    }
}

/// Opens a whole record in place, header included, and advances the keys by one. Gives the inner
/// content type, and the range of the plaintext in `record`.
///
/// # Errors
///
/// The keys stay as they were, and what was in `record` is lost; the connection can't go on.
///
/// - As [`size`] says.
/// - [`Alert::InternalError`]: `record` isn't one whole record, or the sequences are used up.
/// - [`Alert::ProtocolVersion`]: a record of another version in TLS 1.2. TLS 1.3 ignores the field
///   (RFC 8446, 5.1), which is authenticated all the same.
/// - [`Alert::BadRecordMac`]: it can't be opened.
/// - [`Alert::RecordOverflow`]: a plaintext over [`PLAIN_SIZE_MAX`].
/// - [`Alert::UnexpectedMessage`]: not protected, a change of cipher, an alert or handshake without
///   a byte, or nothing but padding (RFC 8446, 5 and 5.4).
pub fn open(suite: Suite, keys: &mut Keys, record: &mut [u8]) -> Result<(Content, Range<usize>), Alert> {
    if size(record)? != Some(record.len()) {
        return Err(Alert::InternalError);
    }
    let sequence = keys.sequence_ahead(0).ok_or(Alert::InternalError)?;
    let key = expanded(suite, keys).ok_or(Alert::InternalError)?;
    let (header, rest) = record.split_first_chunk_mut::<HEADER_SIZE>().ok_or(Alert::InternalError)?;
    let outer = outer_content(suite.version, header)?;
    let start = suite.prefix_size();
    let (explicit, body) = rest.split_at_mut_checked(start - HEADER_SIZE).ok_or(Alert::BadRecordMac)?;
    let inner_size = body.len().checked_sub(TAG_SIZE).ok_or(Alert::BadRecordMac)?;
    if inner_size > PLAIN_SIZE_MAX + suite.inner_size() {
        return Err(Alert::RecordOverflow);
    }
    let nonce = match (suite.version, suite.aead) {
        (Version::Tls12, Aead::Aes128Gcm) => keys.explicit_nonce(*explicit.first_chunk().ok_or(Alert::InternalError)?),
        _ => keys.nonce(sequence),
    };
    let additional = Additional::new(suite, sequence, *header, inner_size);
    let inner = key
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(additional), body)
        .map_err(|_| Alert::BadRecordMac)?;
    let (content, plain_size) = match suite.version {
        Version::Tls12 => (outer, inner.len()),
        Version::Tls13 => unpadded(inner)?,
    };
    if !may_be_protected(content, plain_size) {
        return Err(Alert::UnexpectedMessage);
    }
    keys.advance(1);
    Ok((content, start..start + plain_size))
}

/// The size of the plaintext in a record that [`seal`] made, from the record's size, in bytes.
#[must_use]
pub const fn plain_size(suite: Suite, record_size: usize) -> usize {
    record_size.saturating_sub(suite.overhead())
}

/// The tag of a whole record: its last 16 bytes. Zeros for bytes that are too few to be one.
#[must_use]
pub fn tag(record: &[u8]) -> [u8; TAG_SIZE] {
    record.last_chunk().copied().unwrap_or_default()
}

/// The AEAD's key, ready for use, on the stack.
fn expanded(suite: Suite, keys: &Keys) -> Option<LessSafeKey> {
    UnboundKey::new(suite.algorithm(), keys.key(suite)?).ok().map(LessSafeKey::new)
}

/// Whether a protected record may have this content, of this size.
const fn may_be_protected(content: Content, plain_size: usize) -> bool {
    match content {
        Content::ChangeCipherSpec => false,
        Content::Alert | Content::Handshake => plain_size > 0,
        Content::ApplicationData => true,
    }
}

/// The content that the header of a protected record names.
fn outer_content(version: Version, header: &[u8; HEADER_SIZE]) -> Result<Content, Alert> {
    let [content, major, minor, ..] = *header;
    let content = Content::from_byte(content).ok_or(Alert::UnexpectedMessage)?;
    match version {
        Version::Tls13 if content != Content::ApplicationData => Err(Alert::UnexpectedMessage),
        Version::Tls12 if content == Content::ChangeCipherSpec => Err(Alert::UnexpectedMessage),
        Version::Tls12 if [major, minor] != [3, 3] => Err(Alert::ProtocolVersion),
        _ => Ok(content),
    }
}

/// The content type behind a TLS 1.3 plaintext and before its padding, and the plaintext's size
/// (RFC 8446, 5.4).
fn unpadded(inner: &[u8]) -> Result<(Content, usize), Alert> {
    let size = inner.iter().rposition(|byte| *byte != 0).ok_or(Alert::UnexpectedMessage)?;
    let content = inner.get(size).and_then(|byte| Content::from_byte(*byte));
    Ok((content.ok_or(Alert::UnexpectedMessage)?, size))
}

/// A record's additional data.
enum Additional {
    /// Sequence, content, version, size of the plaintext (RFC 5246, 6.2.3.3).
    Tls12([u8; 13]),
    /// The header (RFC 8446, 5.2).
    Tls13([u8; HEADER_SIZE]),
}

impl Additional {
    fn new(suite: Suite, sequence: u64, header: [u8; HEADER_SIZE], plain_size: usize) -> Self {
        match suite.version {
            Version::Tls13 => Self::Tls13(header),
            Version::Tls12 => {
                let [content, major, minor, ..] = header;
                let [a, b, c, d, e, f, g, h] = sequence.to_be_bytes();
                // No plaintext is longer than a length can say.
                let [high, low] = u16::try_from(plain_size).unwrap_or(u16::MAX).to_be_bytes();
                Self::Tls12([a, b, c, d, e, f, g, h, content, major, minor, high, low])
            }
        }
    }
}

impl AsRef<[u8]> for Additional {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Tls12(bytes) => bytes,
            Self::Tls13(bytes) => bytes,
        }
    }
}
