//! DER, as far as a certificate needs it (X.690, 8 to 11): a reader over borrowed bytes.
//!
//! Owns tags, lengths, and the primitive values that `certificate` asks for. Refuses indefinite and
//! padded lengths, tags of more than one byte, and values whose length is more than what is there.
//! Each read shortens what is left, so that a walk ends. Doesn't know what a value means.

/// BOOLEAN.
pub const BOOLEAN: u8 = 0x01;
/// INTEGER.
pub const INTEGER: u8 = 0x02;
/// BIT STRING.
pub const BIT_STRING: u8 = 0x03;
/// OCTET STRING.
pub const OCTET_STRING: u8 = 0x04;
/// NULL.
pub const NULL: u8 = 0x05;
/// OBJECT IDENTIFIER.
pub const OBJECT_IDENTIFIER: u8 = 0x06;
/// UTCTime.
pub const UTC_TIME: u8 = 0x17;
/// GeneralizedTime.
pub const GENERALIZED_TIME: u8 = 0x18;
/// SEQUENCE and SEQUENCE OF.
pub const SEQUENCE: u8 = 0x30;

/// A value with its tag.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    /// Class, form and number.
    pub tag: u8,
    /// What the value holds.
    pub content: &'a [u8],
    /// Tag, length and content.
    pub whole: &'a [u8],
}

/// What is left to read.
#[derive(Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Over these bytes.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next value; `None`, with nothing read, if it isn't DER.
    pub fn any(&mut self) -> Option<Value<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        // The number 31 announces a tag of several bytes.
        if tag & 0x1F == 0x1F {
            return None;
        }
        let (size, rest) = length(rest)?;
        let (content, rest) = rest.split_at_checked(size)?;
        let whole = self.0.get(..self.0.len().checked_sub(rest.len())?)?;
        self.0 = rest;
        Some(Value { tag, content, whole })
    }

    /// The content of the next value if it has this tag; `None`, with nothing read, otherwise.
    pub fn next(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.value(tag).map(|value| value.content)
    }

    /// The next value if it has this tag; `None`, with nothing read, otherwise.
    pub fn value(&mut self, tag: u8) -> Option<Value<'a>> {
        let mut ahead = *self;
        let value = ahead.any().filter(|value| value.tag == tag)?;
        *self = ahead;
        Some(value)
    }

    /// Whether a value with this tag comes next.
    pub fn is_next(&self, tag: u8) -> bool {
        self.0.first() == Some(&tag)
    }

    /// The content of the next value if it has this tag and is the last.
    pub fn only(mut self, tag: u8) -> Option<&'a [u8]> {
        let content = self.next(tag)?;
        self.is_empty().then_some(content)
    }
}

/// A length, and what comes behind it. At most 3 bytes of length: nothing here is longer than that.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        return Some((first.into(), rest));
    }
    let count = usize::from(first & 0x7F);
    // 0x80 is an indefinite length.
    if !(1..=3).contains(&count) {
        return None;
    }
    let (digits, rest) = rest.split_at_checked(count)?;
    let size = digits.iter().fold(0, |size, digit| size << 8 | usize::from(*digit));
    // The shortest form only.
    let least = if count == 1 { 0x80 } else { 1 << (8 * (count - 1)) };
    (size >= least).then_some((size, rest))
}

/// Whether the content of an INTEGER is in its shortest form (X.690, 8.3.2). It may be negative.
pub fn is_integer(content: &[u8]) -> bool {
    match content {
        [] => false,
        [0x00, next, ..] => *next >= 0x80,
        [0xFF, next, ..] => *next < 0x80,
        _ => true,
    }
}

/// The bits of a positive INTEGER, from its content.
pub fn bits(content: &[u8]) -> Option<u32> {
    if !is_integer(content) {
        return None;
    }
    let digits = match content {
        [0x00, rest @ ..] => rest,
        digits => digits,
    };
    let first = *digits.first()?;
    if content.first()? & 0x80 != 0 {
        return None;
    }
    u32::try_from(digits.len()).ok()?.checked_mul(8)?.checked_sub(first.leading_zeros())
}

/// A BOOLEAN, from its content. 0xFF is true; DER has only this, and 0 for false.
pub const fn boolean(content: &[u8]) -> Option<bool> {
    match content {
        [0x00] => Some(false),
        [0xFF] => Some(true),
        _ => None,
    }
}

/// The bytes of a BIT STRING without unused bits, from its content.
pub const fn whole_bytes(content: &[u8]) -> Option<&[u8]> {
    match content {
        [0, bytes @ ..] => Some(bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_has_its_shortest_form() {
        let size = |bytes: &[u8]| length(bytes).map(|(size, _)| size);
        assert_eq!(size(&[0x7F]), Some(0x7F));
        assert_eq!(size(&[0x81, 0x80]), Some(0x80));
        assert_eq!(size(&[0x82, 1, 0]), Some(0x100));
        assert_eq!(size(&[0x83, 1, 0, 0]), Some(0x1_0000));
        for wrong in [
            &[][..],
            &[0x80],
            &[0x81, 0x7F],
            &[0x82, 0, 0xFF],
            &[0x83, 0, 0xFF, 0xFF],
            &[0x84, 1, 0, 0, 0],
            &[0xFF],
            &[0x82, 1],
        ] {
            assert_eq!(size(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_value_is_within_its_bytes() {
        let mut reader = Reader::new(&[0x02, 1, 5, 0x04, 2, 7]);
        assert!(reader.next(OCTET_STRING).is_none(), "an integer comes first");
        let value = reader.value(INTEGER).unwrap();
        assert_eq!((value.content, value.whole), (&[5][..], &[2, 1, 5][..]));
        assert!(reader.is_next(OCTET_STRING) && reader.any().is_none() && !reader.is_empty(), "a byte is missing");
        assert!(Reader::new(&[0x1F, 1, 0]).any().is_none(), "a tag of several bytes");
        assert!(Reader::new(&[0x05, 0, 0]).only(NULL).is_none(), "a byte is left");
    }

    #[test]
    fn numbers() {
        for (content, expected) in [
            (&[0][..], None),
            (&[1], Some(1)),
            (&[0x7F], Some(7)),
            (&[0, 0x80], Some(8)),
            (&[0, 0xC1, 2], Some(16)),
            (&[], None),
            (&[0x80], None),
            (&[0, 0x7F], None),
            (&[0xFF, 0x80], None),
        ] {
            assert_eq!(bits(content), expected, "{content:?}");
        }
        assert!(is_integer(&[0xFF, 0x7F]) && is_integer(&[0x80]) && !is_integer(&[0, 0]));
        assert_eq!(
            [boolean(&[0]), boolean(&[0xFF]), boolean(&[1]), boolean(&[])],
            [Some(false), Some(true), None, None]
        );
        assert_eq!([whole_bytes(&[0, 7]), whole_bytes(&[1, 6]), whole_bytes(&[])], [Some(&[7][..]), None, None]);
    }
}
