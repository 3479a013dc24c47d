//! Parts of records that pages sent and that can't be handed on yet, in a fixed number of places.
//!
//! A page that sends a whole record at once, as browsers do, takes no place. The rest of a record
//! is kept while the peer still sends it, or while the page's turn is over. Where all places are
//! taken, a page is not read, and its bytes stay in its counted receive buffer. The page that has
//! held its place longest then loses it after [`HELD_MS_MAX`], and with it the connection. Owns the
//! places and their order. Knows no sockets and no keys.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use crate::clock::Clock;
use relay::time::Instant;

/// Milliseconds for which a place is kept while others wait for one.
const HELD_MS_MAX: u64 = 1_000;

/// The places, the one held longest first.
#[derive(Debug)]
pub struct Halves {
    places: RefCell<VecDeque<Rc<Kept>>>,
    places_max: usize,
    clock: Clock,
    cut: Cell<u64>,
}

/// A part of a record. Its bytes are gone once its place was taken from it.
#[derive(Debug)]
pub struct Kept {
    since: Instant,
    bytes: RefCell<Option<Part>>,
}

/// The bytes: of a record that is not here as a whole, or of its plaintext.
#[derive(Debug, Default)]
pub struct Part {
    /// The record from its first byte on, opened in place once it is whole.
    pub bytes: Vec<u8>,
    /// The plaintext that was not handed on, within `bytes`; empty until the record is whole.
    pub plain: Range<usize>,
}

impl Halves {
    /// Places for `places_max` pages.
    pub fn new(places_max: u32, clock: Clock) -> Self {
        let places = RefCell::new(VecDeque::new());
        Self { places, places_max: places_max as usize, clock, cut: Cell::new(0) }
    }

    /// A place for these bytes; gives them back if there is none.
    pub fn keep(&self, part: Part) -> Result<Rc<Kept>, Part> {
        let now = self.clock.now();
        let mut places = self.places.borrow_mut();
        if places.len() >= self.places_max {
            match places.front().filter(|oldest| now.since(oldest.since) >= HELD_MS_MAX) {
                Some(oldest) => drop(oldest.bytes.take()),
                None => return Err(part),
            }
            places.pop_front();
            self.cut.set(self.cut.get() + 1);
        }
        let half = Rc::new(Kept::new(now, part));
        places.push_back(Rc::clone(&half));
        Ok(half)
    }

    /// Whether a place may be had now.
    pub fn has_room(&self) -> bool {
        let places = self.places.borrow();
        places.len() < self.places_max
            || places.front().is_some_and(|oldest| self.clock.now().since(oldest.since) >= HELD_MS_MAX)
    }

    /// Frees a place.
    pub fn leave(&self, half: &Rc<Kept>) {
        let mut places = self.places.borrow_mut();
        if let Some(index) = places.iter().position(|other| Rc::ptr_eq(other, half)) {
            places.remove(index);
        }
    }

    /// Places in use.
    pub fn count(&self) -> usize {
        self.places.borrow().len()
    }

    /// Connections that lost their place to another.
    pub fn cut(&self) -> u64 {
        self.cut.get()
    }
}

impl Kept {
    /// These bytes, from now on.
    pub const fn new(now: Instant, part: Part) -> Self {
        Self { since: now, bytes: RefCell::new(Some(part)) }
    }

    /// Works on the bytes; `None` if the place was taken away.
    pub fn with<T>(&self, work: impl FnOnce(&mut Part) -> T) -> Option<T> {
        self.bytes.borrow_mut().as_mut().map(work)
    }

    /// Takes the bytes out.
    pub fn take(&self) -> Option<Part> {
        self.bytes.take()
    }
}
