//! A table of fixed capacity whose rows are named by an index and a generation.
//!
//! Owns its rows (one allocation, made once). A row's generation grows each time the row is freed,
//! so an [`Id`] that outlived its row resolves to `None` (the invariant NAME). Refuses to grow:
//! [`Table::insert`] hands the value back. Doesn't know what a row means. Inside the machine, rows
//! refer to each other by bare index ([`NONE`] for none); ids are for the outside.

use alloc::vec::Vec;
use core::{fmt, marker::PhantomData};

/// No row, where a bare index is stored.
pub const NONE: u32 = u32::MAX;

/// Offsets within a block or a table fit `usize` on every board.
#[expect(clippy::cast_possible_truncation, reason = "offsets within a block or a table of this machine's memory")]
pub(super) const fn as_usize(offset: u64) -> usize {
    offset as usize
}

/// The id of a row; it prints as `#index.generation`.
pub struct Id<T> {
    index: u32,
    generation: u32,
    row: PhantomData<fn() -> T>,
}

impl<T> Id<T> {
    /// The row's index, for tables elsewhere that run parallel to this one.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.index
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Id<T> {}
impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.generation) == (other.index, other.generation)
    }
}
impl<T> Eq for Id<T> {}
impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}.{}", self.index, self.generation)
    }
}
impl<T> fmt::Display for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}.{}", self.index, self.generation)
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    row: Row<T>,
}

#[derive(Debug)]
enum Row<T> {
    Free { next: u32 },
    Used(T),
}

/// A table of fixed capacity.
#[derive(Debug)]
pub struct Table<T> {
    slots: Vec<Slot<T>>,
    capacity: u32,
    free: u32,
    len: u32,
    len_highest: u32,
}

impl<T> Table<T> {
    /// An empty table. Its memory is allocated now, and touched when rows are first used.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self { slots: Vec::with_capacity(capacity as usize), capacity, free: NONE, len: 0, len_highest: 0 }
    }

    /// Bytes of one row.
    pub const ROW_SIZE: usize = size_of::<Slot<T>>();

    /// Rows in use.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether no row is in use.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The most rows that it can hold.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// High-water mark of rows in use.
    #[must_use]
    pub const fn len_highest(&self) -> u32 {
        self.len_highest
    }

    /// Whether every row is in use.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    /// One past the highest index in use so far: the end of a walk over all rows.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a table has at most u32 rows")]
    pub fn end(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Adds a row and returns its index.
    ///
    /// # Errors
    /// The row itself, if the table is full.
    pub fn insert(&mut self, row: T) -> Result<u32, T> {
        if self.is_full() {
            return Err(row);
        }
        Ok(self.place(row))
    }

    /// Adds a row that is built from its index; `None` if the table is full.
    pub fn insert_with(&mut self, row: impl FnOnce(u32) -> T) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let index = if self.free == NONE { self.end() } else { self.free };
        Some(self.place(row(index)))
    }

    #[expect(clippy::cast_possible_truncation, reason = "a table has at most u32 rows")]
    fn place(&mut self, row: T) -> u32 {
        let index = match self.slots.get_mut(self.free as usize) {
            Some(slot) => {
                let index = self.free;
                if let Row::Free { next } = slot.row {
                    self.free = next;
                }
                slot.row = Row::Used(row);
                index
            }
            None => {
                self.slots.push(Slot { generation: 0, row: Row::Used(row) });
                self.slots.len() as u32 - 1
            }
        };
        self.len += 1;
        self.len_highest = self.len_highest.max(self.len);
        index
    }

    /// Removes a row: from now on ids that name it resolve to `None`.
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let slot = self.slots.get_mut(index as usize)?;
        if matches!(slot.row, Row::Free { .. }) {
            return None;
        }
        slot.generation = slot.generation.wrapping_add(1);
        let row = core::mem::replace(&mut slot.row, Row::Free { next: self.free });
        self.free = index;
        self.len -= 1;
        match row {
            Row::Used(row) => Some(row),
            Row::Free { .. } => None,
        }
    }

    /// The row at an index.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&T> {
        match self.slots.get(index as usize) {
            Some(Slot { row: Row::Used(row), .. }) => Some(row),
            _ => None,
        }
    }

    /// The row at an index, mutably.
    #[must_use]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.slots.get_mut(index as usize) {
            Some(Slot { row: Row::Used(row), .. }) => Some(row),
            _ => None,
        }
    }

    /// The id of the row at an index.
    #[must_use]
    pub fn id(&self, index: u32) -> Option<Id<T>> {
        match self.slots.get(index as usize) {
            Some(Slot { row: Row::Used(_), generation }) => {
                Some(Id { index, generation: *generation, row: PhantomData })
            }
            _ => None,
        }
    }

    /// The index of the row that an id names; `None` once that row is freed.
    #[must_use]
    pub fn resolve(&self, id: Id<T>) -> Option<u32> {
        (self.id(id.index)? == id).then_some(id.index)
    }

    /// Checks that the table has not grown.
    ///
    /// # Panics
    /// If it has more than `max` rows, or more than it was made for.
    pub fn check_size(&self, name: &str, max: u32) {
        let rows = self.end();
        assert!(self.capacity <= max && rows <= self.capacity && self.len <= rows, "BOUND: {name} has grown");
    }

    /// Checks the table's own order. For tests.
    ///
    /// # Panics
    /// If a row is neither used nor free, or there are more than `max`.
    pub fn check(&self, name: &str, max: u32) {
        self.check_size(name, max);
        let used = self.slots.iter().filter(|slot| matches!(slot.row, Row::Used(_))).count();
        assert_eq!(used, self.len as usize, "{name} counts its rows wrongly");
        let (mut free, mut at) = (0, self.free);
        while let Some(Slot { row: Row::Free { next }, .. }) = self.slots.get(at as usize) {
            (free, at) = (free + 1, *next);
            assert!(free <= self.slots.len(), "the free rows of {name} run in a circle");
        }
        assert_eq!(at, NONE, "a free row of {name} is in use");
        assert_eq!(used + free, self.slots.len(), "a free row of {name} is lost");
    }

    /// All rows in use, with their indices.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..self.end()).filter_map(|index| self.get(index).map(|row| (index, row)))
    }
}

impl<T> core::ops::Index<u32> for Table<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        match self.get(index) {
            Some(row) => row,
            None => panic!("no row {index}: the machine kept an index of a row that is gone"),
        }
    }
}

impl<T> core::ops::IndexMut<u32> for Table<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        match self.get_mut(index) {
            Some(row) => row,
            None => panic!("no row {index}: the machine kept an index of a row that is gone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_void_once_its_row_is_freed() {
        let mut table = Table::new(2);
        let a = table.insert("a").unwrap();
        let id = table.id(a).unwrap();
        assert_eq!(table.resolve(id), Some(a));
        assert_eq!(table.remove(a), Some("a"));
        assert_eq!(table.resolve(id), None);
        assert_eq!(table.remove(a), None);
        let b = table.insert("b").unwrap();
        assert_eq!(a, b, "rows are reused");
        assert_eq!(table.resolve(id), None, "but not their ids");
        assert_eq!(table.id(b).unwrap().to_string(), "#0.1");
    }

    #[test]
    fn a_full_table_hands_the_row_back() {
        let mut table = Table::new(1);
        table.insert(1).unwrap();
        assert_eq!(table.insert(2), Err(2));
        assert_eq!((table.len(), table.capacity(), table.is_full()), (1, 1, true));
    }
}
