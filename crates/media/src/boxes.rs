//! The boxes of MP4 (ISO/IEC 14496-12, section 4.2): sizes, types, children.
//!
//! Refuses a size that is smaller than the box's header or larger than its parent. Does not know
//! the fields of any box.

use super::{MediaError, u32_at, u64_at};

/// The boxes of a complete file, in order.
pub fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = Result<&[u8], MediaError>> {
    core::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let cut = MediaError::Malformed("a box is truncated");
        let next = box_size(bytes).and_then(|size| size.and_then(|size| bytes.split_at_checked(size)).ok_or(cut));
        match next {
            Ok((whole, rest)) => {
                bytes = rest;
                Some(Ok(whole))
            }
            Err(error) => {
                bytes = &[];
                Some(Err(error))
            }
        }
    })
}

/// A box's type, four letters.
#[must_use]
pub fn kind(raw: &[u8]) -> &[u8] {
    raw.get(4..8).unwrap_or_default()
}

/// The size of the first box, including its header; `None` if the header is incomplete.
///
/// # Errors
/// The size is invalid.
pub fn box_size(bytes: &[u8]) -> Result<Option<usize>, MediaError> {
    let (size, head) = match u32_at(bytes, 0) {
        Some(1) => match u64_at(bytes, 8) {
            Some(size) => (usize::try_from(size).map_err(|_| MediaError::TooLarge)?, 16),
            None => return Ok(None),
        },
        Some(size) if bytes.len() >= 8 => (usize::try_from(size).map_err(|_| MediaError::TooLarge)?, 8),
        _ => return Ok(None),
    };
    if size < head {
        return Err(MediaError::Malformed("a box's size"));
    }
    Ok(Some(size))
}

/// The children of a box that has no fields of its own.
pub fn children(parent: &[u8]) -> impl Iterator<Item = Result<&[u8], MediaError>> {
    let head = if u32_at(parent, 0) == Some(1) { 16 } else { 8 };
    boxes(parent.get(head..).unwrap_or_default())
}

/// The first child box of a type.
///
/// # Errors
/// A box before it is invalid.
pub fn find<'a>(parent: &'a [u8], wanted: &[u8; 4]) -> Result<Option<&'a [u8]>, MediaError> {
    for child in children(parent) {
        let child = child?;
        if kind(child) == wanted {
            return Ok(Some(child));
        }
    }
    Ok(None)
}
