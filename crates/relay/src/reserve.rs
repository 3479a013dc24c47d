//! Blocks for frames that their rings have forgotten while pages are still inside them.
//!
//! A frame is a chain of blocks, named by the first. All memory is allocated at the start and
//! touched when first used; freed blocks are used again before fresh ones. Owns blocks and chains.
//! Refuses more than it has (`take` returns `None`). `begun.rs` knows whose the frames are, and
//! which are evicted.

use alloc::boxed::Box;
use alloc::vec;

use heapless::Vec;

use super::table::{NONE, as_usize};

/// Blocks for frames that were overtaken.
#[derive(Debug)]
pub struct Reserve {
    block_size: usize,
    bytes: Box<[u8]>,
    /// The next block of the same frame, or of the free list.
    next: Box<[u32]>,
    /// Head of the free list.
    freed: u32,
    /// Blocks from this one on were never used.
    fresh: u32,
    used: u32,
}

impl Reserve {
    /// An empty reserve of `blocks_max` blocks.
    #[must_use]
    pub fn new(block_size: u32, blocks_max: u32) -> Self {
        Self {
            block_size: block_size as usize,
            bytes: vec![0; block_size as usize * blocks_max as usize].into_boxed_slice(),
            next: vec![0; blocks_max as usize].into_boxed_slice(),
            freed: NONE,
            fresh: 0,
            used: 0,
        }
    }

    /// Free blocks.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "at most blocks_max, a u32")]
    pub fn free(&self) -> u32 {
        self.next.len() as u32 - self.used
    }

    /// Blocks in use.
    #[must_use]
    pub const fn used(&self) -> u32 {
        self.used
    }

    /// High-water mark of blocks in use: freed blocks are taken before fresh ones.
    #[must_use]
    pub const fn used_highest(&self) -> u32 {
        self.fresh
    }

    /// Blocks needed for `size` bytes.
    #[must_use]
    pub const fn blocks(&self, size: u64) -> u64 {
        size.div_ceil(self.block_size as u64)
    }

    /// Copies `size` bytes into blocks of their own and returns the first block. The caller makes
    /// sure that enough blocks are free.
    pub fn take<'a>(&mut self, size: u64, bytes: impl Iterator<Item = &'a [u8]>) -> Option<u32> {
        let mut first = NONE;
        for _ in 0..self.blocks(size) {
            // Builds the chain from its end: each block goes before those already taken.
            let block = self.pop()?;
            *self.next.get_mut(block as usize)? = core::mem::replace(&mut first, block);
        }
        let (mut block, mut offset) = (first, 0);
        for mut piece in bytes {
            while !piece.is_empty() {
                if offset == self.block_size {
                    (block, offset) = (*self.next.get(block as usize)?, 0);
                }
                let (now, later) = piece.split_at(piece.len().min(self.block_size - offset));
                let at = block as usize * self.block_size + offset;
                self.bytes.get_mut(at..at + now.len())?.copy_from_slice(now);
                offset += now.len();
                piece = later;
            }
        }
        Some(first)
    }

    fn pop(&mut self) -> Option<u32> {
        let block = match self.next.get(self.freed as usize) {
            Some(next) => core::mem::replace(&mut self.freed, *next),
            None if (self.fresh as usize) < self.next.len() => {
                self.fresh += 1;
                self.fresh - 1
            }
            None => return None,
        };
        self.used += 1;
        Some(block)
    }

    /// Frees the chain of blocks that begins with this one.
    pub fn give_back(&mut self, first: u32) {
        let mut block = first;
        while let Some(next) = self.next.get_mut(block as usize) {
            let following = core::mem::replace(next, self.freed);
            self.freed = core::mem::replace(&mut block, following);
            self.used -= 1;
        }
    }

    /// Appends the bytes between two offsets of a frame that begins in block `first` to `out`.
    /// Returns how many bytes that covers.
    pub fn slices<'a, const N: usize>(&'a self, first: u32, from: u64, to: u64, out: &mut Vec<&'a [u8], N>) -> u64 {
        let size = self.block_size as u64;
        let (mut block, mut begin) = (first, 0);
        let mut at = from;
        while at < to {
            let Some(next) = self.next.get(block as usize) else { break };
            if at < begin + size {
                let base = u64::from(block) * size;
                let piece_end = to.min(begin + size);
                let piece = as_usize(base + at - begin)..as_usize(base + piece_end - begin);
                if out.push(self.bytes.get(piece).unwrap_or_default()).is_err() {
                    break;
                }
                at = piece_end;
            }
            (block, begin) = (*next, begin + size);
        }
        at - from
    }

    /// Checks that no more blocks are in use than exist.
    ///
    /// # Panics
    /// If there are more.
    pub fn check_size(&self) {
        let has_grown = self.used > self.fresh || self.fresh as usize > self.next.len();
        assert!(!has_grown, "BOUND: the reserve has more blocks in use than it has");
    }

    /// Checks its free blocks. For tests.
    ///
    /// # Panics
    /// If a block is free twice, is in two places, or was never used.
    pub fn check(&self) {
        let (mut free, mut block) = (0, self.freed);
        while block != NONE {
            assert!(block < self.fresh, "block {block} of the reserve was given back and never taken");
            assert!(free < self.fresh, "the reserve's free blocks never end");
            free += 1;
            block = self.next[block as usize];
        }
        assert_eq!(self.used + free, self.fresh, "BOUND: blocks of the reserve were lost, or are in two places");
    }
}
