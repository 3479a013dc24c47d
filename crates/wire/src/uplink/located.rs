//! Where in a frame decoding failed: postcard says what is wrong, not where.
//!
//! Owns a source for postcard that counts what it gave. A frame that failed is decoded a second
//! time with it, which only a peer with a fault pays for. Knows no frames and refuses nothing.

use alloc::rc::Rc;
use core::cell::Cell;

use postcard::de_flavors::Flavor;
use serde::Deserialize;

/// The offset of the value at which decoding failed. postcard's errors don't report it, so the
/// bytes are decoded again and counted.
pub(super) fn byte_of_error<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> usize {
    let last = Rc::new(Cell::new(0));
    let mut decoder = postcard::Deserializer::from_flavor(Counted { bytes, at: 0, last: Rc::clone(&last) });
    let _ = T::deserialize(&mut decoder);
    last.get()
}

/// A source for postcard that records the offset of the last read.
struct Counted<'de> {
    bytes: &'de [u8],
    at: usize,
    /// The offset of the last read, or of the first missing byte.
    last: Rc<Cell<usize>>,
}

impl<'de> Flavor<'de> for Counted<'de> {
    type Remainder = ();
    type Source = ();

    fn pop(&mut self) -> postcard::Result<u8> {
        self.last.set(self.at);
        let byte = self.bytes.get(self.at).ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        self.at += 1;
        Ok(*byte)
    }

    fn try_take_n(&mut self, size: usize) -> postcard::Result<&'de [u8]> {
        self.last.set(self.at);
        let end = self.at.checked_add(size).ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        let Some(taken) = self.bytes.get(self.at..end) else {
            self.last.set(self.bytes.len());
            return Err(postcard::Error::DeserializeUnexpectedEnd);
        };
        self.at = end;
        Ok(taken)
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}
