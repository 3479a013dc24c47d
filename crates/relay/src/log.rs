//! The heart: a track's log, a ring of ready-to-send WebSocket frames in fixed-size blocks of one
//! arena.
//!
//! A [`Log`] is a byte sequence that grows at its end and is forgotten at its start. A place in it
//! is an absolute offset (`u64`, never reused), so a reader is just a number and needs nothing from
//! the log: an offset below [`Log::start`] was overtaken. An index beside the bytes has one
//! [`Entry`] for each frame. Frames are contiguous across blocks. The entries of one epoch cover
//! its sequences without a hole: what was lost is an entry of its own ([`Kind::Gap`]), sent like a
//! frame.
//!
//! The [`Store`] owns the memory of all logs: blocks, block directories, index rows, and the frames
//! that readers stopped inside ([`Begun`]). It is allocated once and touched when first used. A log
//! refuses a frame that it has no room for ([`Full`]) and forgets its own oldest frames to make
//! room; [`Log::forget_oldest`] is the only way out, and hands on what readers still need. Doesn't
//! know pages or topics, nor a clock.

use alloc::boxed::Box;
use alloc::{vec, vec::Vec};

use super::{
    begun::{Begun, Ends},
    table::as_usize,
    time::Stamp,
};

/// The kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A value that is complete in itself.
    Whole = 0,
    /// The frame that announces a gap; its sequences run to the next entry's.
    Gap = 1,
    /// The frame that announces a new epoch; it has no sequence.
    Epoch = 2,
    /// An init segment.
    Init = 3,
    /// The first chunk of a group.
    Start = 4,
    /// A further chunk of the group.
    Continue = 5,
}

/// One frame of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The offset of its first byte.
    pub at: u64,
    /// Its sequence; the first one of a gap; 0 for an epoch.
    pub sequence: u64,
    /// Its kind.
    pub kind: Kind,
    /// Size of the WebSocket header, after which the payload begins.
    pub header_size: u8,
}

/// Bits of an index row's second word: 53 of sequence, 3 of kind, 8 of header size.
const SEQUENCE_BITS: u32 = 53;
const KIND_BITS: u32 = 3;

impl Entry {
    fn pack(self) -> [u64; 2] {
        let header = u64::from(self.header_size) << (SEQUENCE_BITS + KIND_BITS);
        [self.at, self.sequence | (self.kind as u64) << SEQUENCE_BITS | header]
    }

    fn unpack([at, word]: [u64; 2]) -> Self {
        let kind = match word >> SEQUENCE_BITS & ((1 << KIND_BITS) - 1) {
            0 => Kind::Whole,
            1 => Kind::Gap,
            2 => Kind::Epoch,
            3 => Kind::Init,
            4 => Kind::Start,
            _ => Kind::Continue,
        };
        let header_size = word.to_be_bytes()[0];
        Self { at, sequence: word & ((1 << SEQUENCE_BITS) - 1), kind, header_size }
    }
}

/// The arena has no free block now; forgetting frames of other logs may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The memory of all logs.
#[derive(Debug)]
pub struct Store {
    block_size: usize,
    blocks: Box<[u8]>,
    directory: Box<[u32]>,
    index: Box<[u64]>,
    /// Blocks that were freed. They are used before fresh ones, since their memory was already
    /// touched.
    freed: Vec<u32>,
    /// Blocks from this one on were never used.
    fresh: u32,
    blocks_max: u32,
    /// Frames that readers stopped inside.
    pub begun: Begun,
}

impl Store {
    /// Memory for all logs: `blocks_max` blocks, and the directory and index rows.
    #[must_use]
    pub fn new(block_size: u32, blocks_max: u32, directory_rows: usize, index_rows: usize, begun: Begun) -> Self {
        Self {
            block_size: block_size as usize,
            blocks: vec![0; block_size as usize * blocks_max as usize].into_boxed_slice(),
            directory: vec![0; directory_rows].into_boxed_slice(),
            index: vec![0; index_rows * 2].into_boxed_slice(),
            freed: Vec::with_capacity(blocks_max as usize),
            fresh: 0,
            blocks_max,
            begun,
        }
    }

    /// Free blocks.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "at most blocks_max, a u32")]
    pub fn free(&self) -> u32 {
        self.blocks_max - self.fresh + self.freed.len() as u32
    }

    /// High-water mark of blocks in use: freed blocks are taken before fresh ones.
    #[must_use]
    pub const fn used_highest(&self) -> u32 {
        self.fresh
    }

    /// Checks the free blocks. For tests. `owners` has the owner of each block; free blocks are
    /// entered too.
    ///
    /// # Panics
    /// If a block is free twice or was never used.
    pub fn check(&self, owners: &mut [Option<(u32, usize)>]) {
        assert!(self.fresh <= self.blocks_max, "BOUND: the arena gave out more blocks than it has");
        for &block in &self.freed {
            assert!(block < self.fresh, "block {block} was given back and never taken");
            let owner = owners[block as usize].replace((u32::MAX, 0));
            assert_eq!(owner, None, "block {block} was given back twice");
        }
    }

    fn take(&mut self) -> Option<u32> {
        self.freed.pop().or_else(|| {
            (self.fresh < self.blocks_max).then(|| {
                self.fresh += 1;
                self.fresh - 1
            })
        })
    }

    fn bytes(&self, block: u32, from: usize, to: usize) -> &[u8] {
        let base = block as usize * self.block_size;
        &self.blocks[base + from..base + to]
    }

    /// The bytes of a range that [`Log::piece`] returned; valid only until the next publication.
    #[must_use]
    pub fn piece(&self, piece: &core::ops::Range<usize>) -> &[u8] {
        &self.blocks[piece.clone()]
    }
}

/// A log's rows in the store.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// The first directory row.
    pub directory: usize,
    /// Most blocks, and the number of directory rows.
    pub blocks_max: u32,
    /// The first index row.
    pub index: usize,
    /// Most frames, and the number of index rows.
    pub frames_max: u32,
}

/// One track's ring of frames.
#[derive(Debug)]
pub struct Log {
    extent: Extent,
    /// Offset of the oldest byte held.
    start: u64,
    /// Offset after the newest byte.
    end: u64,
    /// Number of the oldest entry held.
    first: u64,
    /// Number of the next entry.
    last: u64,
    /// Number of the current epoch's first entry.
    epoch_first: u64,
    /// Offset of the current epoch's first entry.
    epoch_at: u64,
    /// Number of the first entry of the epoch before the current one.
    before_first: u64,
    /// Offset of the newest entry other than a plain publication (gap, epoch, init), if any.
    special_at: Option<u64>,
    /// The sequence after the newest entry. 0: none yet.
    next_sequence: u64,
    /// The first sequence of this epoch. 0: none yet.
    base: u64,
    /// `next_sequence` when the previous epoch ended.
    next_before: u64,
    /// The list of its frames that readers stopped inside.
    begun: Ends,
}

impl Log {
    /// An empty log with its rows in the store.
    #[must_use]
    pub const fn new(extent: Extent) -> Self {
        Self {
            extent,
            start: 0,
            end: 0,
            first: 0,
            last: 0,
            epoch_first: 0,
            epoch_at: 0,
            before_first: 0,
            special_at: None,
            next_sequence: 0,
            base: 0,
            next_before: 0,
            begun: Ends::none(),
        }
    }

    /// The offset of the oldest byte held.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// The offset after the newest byte.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// The sequence after the newest entry of this epoch; 0 if there was none.
    #[must_use]
    pub const fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The first sequence of this epoch; 0 if there was none.
    #[must_use]
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// [`next_sequence`](Self::next_sequence) when the previous epoch ended.
    #[must_use]
    pub const fn next_before(&self) -> u64 {
        self.next_before
    }

    /// Whether there is anything other than a plain publication at or after an offset.
    #[must_use]
    pub fn is_special_since(&self, at: u64) -> bool {
        self.special_at.is_some_and(|special| special >= at)
    }

    /// Blocks that the log holds.
    #[must_use]
    pub fn blocks(&self, store: &Store) -> u32 {
        Self::span(store, self.start, self.end)
    }

    /// Frames that the log holds.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.last - self.first
    }

    /// An entry by its number; `None` if it is not held.
    #[must_use]
    pub fn entry(&self, store: &Store, number: u64) -> Option<Entry> {
        (self.first <= number && number < self.last).then(|| self.row(store, number))
    }

    /// The offset after the entry with this number.
    #[must_use]
    pub fn entry_end(&self, store: &Store, number: u64) -> u64 {
        self.entry(store, number + 1).map_or(self.end, |next| next.at)
    }

    /// The sequence after the entry with this number, within its epoch.
    #[must_use]
    pub fn entry_next(&self, store: &Store, number: u64) -> u64 {
        match self.entry(store, number + 1) {
            Some(Entry { kind: Kind::Epoch, .. }) => self.next_before,
            Some(next) => next.sequence,
            None => self.next_sequence,
        }
    }

    /// The numbers of the current epoch's entries that are held.
    #[must_use]
    pub fn current(&self) -> core::ops::Range<u64> {
        self.first.max(self.epoch_first)..self.last
    }

    /// The number of the oldest entry held.
    #[must_use]
    pub const fn oldest(&self) -> u64 {
        self.first
    }

    /// The number of the current epoch's first entry, held or not.
    #[must_use]
    pub const fn epoch_first(&self) -> u64 {
        self.epoch_first
    }

    /// The offset of the current epoch's first entry, held or not.
    #[must_use]
    pub const fn epoch_at(&self) -> u64 {
        self.epoch_at
    }

    /// The number of the entry that contains the byte at an offset.
    #[must_use]
    pub fn number_at(&self, store: &Store, at: u64) -> Option<u64> {
        if at < self.start || at >= self.end {
            return None;
        }
        Some(self.search(store, self.first..self.last, |entry| entry.at <= at) - 1)
    }

    /// The numbers of the previous epoch's entries that are held.
    #[must_use]
    pub fn before(&self) -> core::ops::Range<u64> {
        self.first.max(self.before_first)..self.epoch_first.max(self.first)
    }

    /// The number of the current epoch's entry that covers a sequence, if it is held.
    #[must_use]
    pub fn number_of(&self, store: &Store, sequence: u64) -> Option<u64> {
        (sequence < self.next_sequence).then(|| self.number_within(store, self.current(), sequence)).flatten()
    }

    /// The number of the last entry in `range` (of one epoch) that begins at or before a sequence.
    #[must_use]
    pub fn number_within(&self, store: &Store, range: core::ops::Range<u64>, sequence: u64) -> Option<u64> {
        let behind = self.search(store, range.clone(), |entry| entry.sequence <= sequence);
        (behind > range.start).then(|| behind - 1)
    }

    /// Appends a frame made of several pieces, after forgetting the log's oldest frames as its own
    /// limits require. `next` is the sequence after it.
    ///
    /// # Errors
    /// [`Full`] if the arena has no block for it: nothing was added, though frames of this log may
    /// have been forgotten.
    pub fn append(
        &mut self,
        store: &mut Store,
        kind: Kind,
        sequence: u64,
        next: u64,
        pieces: [&[u8]; 3],
    ) -> Result<u64, Full> {
        let size: usize = pieces.iter().map(|piece| piece.len()).sum();
        let end = self.end + size as u64;
        while self.first < self.last
            && (self.frames() >= u64::from(self.extent.frames_max)
                || Self::span(store, self.start, end) > self.extent.blocks_max)
        {
            self.forget_oldest(store);
        }
        if Self::span(store, self.start, end) > self.extent.blocks_max {
            return Err(Full);
        }
        self.grow(store, end)?;
        self.advance(sequence, next);
        let at = self.end;
        for piece in pieces {
            self.copy(store, piece);
        }
        let header_size = header_size(pieces[0]);
        let number = self.last;
        let slot = self.slot(number);
        let [low, high] = Entry { at, sequence, kind, header_size }.pack();
        store.index[slot] = low;
        store.index[slot + 1] = high;
        self.last += 1;
        if matches!(kind, Kind::Gap | Kind::Epoch | Kind::Init) {
            self.special_at = Some(at);
        }
        Ok(number)
    }

    /// Continues the log's sequences at `next` without an entry for those before it: a superseded
    /// state, or sequences that no page is owed.
    pub fn advance(&mut self, sequence: u64, next: u64) {
        if self.base == 0 && sequence != 0 {
            self.base = sequence;
        }
        if self.next_sequence != 0 && sequence > self.next_sequence {
            // Sequences without an entry: from here on frames can't be counted by sequence alone.
            self.special_at = Some(self.end);
        }
        self.next_sequence = next;
    }

    /// Begins a new epoch: the frames held stay for readers that are among them, and sequences
    /// start over.
    pub fn begin_epoch(&mut self) {
        self.next_before = self.next_sequence;
        self.before_first = self.epoch_first;
        self.epoch_first = self.last;
        self.epoch_at = self.end;
        self.next_sequence = 0;
        self.base = 0;
    }

    /// Forgets the oldest frame. Frees its blocks unless another frame is in them, and keeps what
    /// readers that stopped inside it still need.
    pub fn forget_oldest(&mut self, store: &mut Store) {
        if self.first == self.last {
            return;
        }
        self.first += 1;
        let start = if self.first == self.last { self.end } else { self.row(store, self.first).at };
        self.keep_begun(store, start);
        self.release(store, start);
    }

    /// Forgets everything and frees every block. The log must not be read any more, except for
    /// frames that readers stopped inside, which are kept.
    pub fn clear(&mut self, store: &mut Store) {
        self.first = self.last;
        self.keep_begun(store, self.end);
        let block_end = self.end.div_ceil(store.block_size as u64) * store.block_size as u64;
        self.end = block_end;
        self.release(store, block_end);
    }

    /// A reader stopped inside a frame that ends at `end`; `from` is the first byte that it lacks.
    /// `name` is the topic's row, and the log's place in the topic. Returns the frame's row in
    /// [`Begun`].
    pub fn enter(&mut self, store: &mut Store, name: (u32, u8), from: u64, end: u64, now: Stamp) -> Option<u32> {
        debug_assert!(self.start <= from && from < end && end <= self.end);
        store.begun.enter(&mut self.begun, name, from, end, now)
    }

    /// A reader that stopped inside a frame of this log has finished it, or is gone.
    pub fn leave(&mut self, store: &mut Store, frame: u32) {
        store.begun.leave(&mut self.begun, frame);
    }

    /// The list of its frames that readers stopped inside.
    #[must_use]
    pub const fn begun(&self) -> Ends {
        self.begun
    }

    /// Appends the bytes between two offsets to `out`, as slices for one `writev`, until `out` is
    /// full. Returns how many bytes that covers.
    pub fn slices<'a, const N: usize>(
        &self,
        store: &'a Store,
        from: u64,
        to: u64,
        out: &mut heapless::Vec<&'a [u8], N>,
    ) -> u64 {
        debug_assert!(self.start <= from && from <= to && to <= self.end);
        let block_size = store.block_size as u64;
        let mut at = from;
        while at < to {
            let (block, offset) = (at / block_size, at % block_size);
            let piece_end = to.min((block + 1) * block_size);
            let bytes =
                store.bytes(self.block(store, block), as_usize(offset), as_usize(piece_end - block * block_size));
            if out.push(bytes).is_err() {
                break;
            }
            at = piece_end;
        }
        at - from
    }

    /// The range of the store that has the bytes between two offsets; `None` unless one block has
    /// them all.
    #[must_use]
    pub fn piece(&self, store: &Store, from: u64, to: u64) -> Option<core::ops::Range<usize>> {
        let block_size = store.block_size as u64;
        let number = from / block_size;
        if from < self.start || to > self.end || from >= to || (to - 1) / block_size != number {
            return None;
        }
        let base = u64::from(self.block(store, number)) * block_size;
        let at = as_usize(base + from % block_size);
        Some(at..at + as_usize(to - from))
    }

    /// Checks the log's blocks and index. For tests. `owners` has the owner of each block.
    ///
    /// # Panics
    /// If a block is in two places or a frame is where it can't be.
    pub fn check(&self, store: &Store, owners: &mut [Option<(u32, usize)>], owner: (u32, usize)) {
        assert!(self.blocks(store) <= self.extent.blocks_max, "BOUND: log {owner:?} has too many blocks");
        assert!(self.frames() <= self.extent.frames_max.into(), "BOUND: log {owner:?} has too many frames");
        let block_size = store.block_size as u64;
        for number in self.start / block_size..self.end.div_ceil(block_size) {
            let block = self.block(store, number);
            assert!(block < store.fresh, "log {owner:?} has block {block}, which was never taken");
            let other = owners[block as usize].replace(owner);
            assert_eq!(other, None, "block {block} is in log {owner:?} and elsewhere");
        }
        let mut at = self.start;
        for number in self.first..self.last {
            let entry = self.row(store, number);
            assert!(
                if number == self.first { entry.at == at } else { entry.at > at } && entry.at < self.end,
                "log {owner:?}: frame {number} is at {} after {at}",
                entry.at
            );
            at = entry.at;
        }
        assert!(self.first < self.last || self.start == self.end, "log {owner:?} has bytes but no frame");
        assert!(self.before_first <= self.epoch_first && self.epoch_first <= self.last, "log {owner:?} mixes epochs");
    }

    fn search(&self, store: &Store, range: core::ops::Range<u64>, before: impl Fn(Entry) -> bool) -> u64 {
        let (mut low, mut high) = (range.start, range.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self.row(store, middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn grow(&mut self, store: &mut Store, end: u64) -> Result<(), Full> {
        let block_size = store.block_size as u64;
        let blocks = self.end.div_ceil(block_size)..end.div_ceil(block_size);
        if u64::from(store.free()) < blocks.end - blocks.start {
            return Err(Full);
        }
        for number in blocks {
            let Some(block) = store.take() else { return Err(Full) };
            let row = self.directory_row(number);
            store.directory[row] = block;
        }
        Ok(())
    }

    fn copy(&mut self, store: &mut Store, piece: &[u8]) {
        let block_size = store.block_size as u64;
        let mut piece = piece;
        while !piece.is_empty() {
            let (number, offset) = (self.end / block_size, as_usize(self.end % block_size));
            let (now, later) = piece.split_at(piece.len().min(store.block_size - offset));
            let base = self.block(store, number) as usize * store.block_size + offset;
            store.blocks[base..base + now.len()].copy_from_slice(now);
            self.end += now.len() as u64;
            piece = later;
        }
    }

    /// Keeps what readers still need of frames that begin before `start`, which are about to be
    /// forgotten.
    fn keep_begun(&mut self, store: &mut Store, start: u64) {
        let Store { begun, blocks, directory, block_size, .. } = store;
        while let Some((frame, needed)) = begun.overtaken(&self.begun, start) {
            let size = *block_size as u64;
            let (row_of, mut at) = (|number| self.directory_row(number), needed.start);
            let bytes = core::iter::from_fn(|| {
                let (number, offset) = (at / size, as_usize(at % size));
                let piece_end = needed.end.min((number + 1) * size);
                let piece_size = as_usize(piece_end.checked_sub(at).filter(|left| *left > 0)?);
                let base = directory[row_of(number)] as usize * *block_size + offset;
                at = piece_end;
                Some(&blocks[base..base + piece_size])
            });
            let mut list = self.begun;
            begun.keep(&mut list, frame, bytes);
            self.begun = list;
        }
    }

    fn release(&mut self, store: &mut Store, start: u64) {
        let block_size = store.block_size as u64;
        for number in self.start / block_size..start / block_size {
            let block = self.block(store, number);
            store.freed.push(block);
        }
        self.start = start;
    }

    fn block(&self, store: &Store, number: u64) -> u32 {
        store.directory[self.directory_row(number)]
    }

    fn directory_row(&self, block_number: u64) -> usize {
        self.extent.directory + as_usize(block_number % u64::from(self.extent.blocks_max))
    }

    fn row(&self, store: &Store, number: u64) -> Entry {
        let slot = self.slot(number);
        Entry::unpack([store.index[slot], store.index[slot + 1]])
    }

    fn slot(&self, number: u64) -> usize {
        2 * (self.extent.index + as_usize(number % u64::from(self.extent.frames_max)))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a log has at most blocks_max blocks, a u32, and one frame more"
    )]
    fn span(store: &Store, start: u64, end: u64) -> u32 {
        let block_size = store.block_size as u64;
        (end.div_ceil(block_size) - start / block_size) as u32
    }
}

/// The size of a WebSocket header (unmasked), by its second byte.
fn header_size(frame: &[u8]) -> u8 {
    match frame.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u32 = 16;

    fn log(store_blocks: u32, blocks_max: u32, frames_max: u32) -> (Store, Log) {
        let extent = Extent { directory: 0, blocks_max, index: 0, frames_max };
        let begun = Begun::new(4, BLOCK, 4);
        (Store::new(BLOCK, store_blocks, blocks_max as usize, frames_max as usize, begun), Log::new(extent))
    }

    fn read(store: &Store, log: &Log, from: u64, to: u64) -> Vec<u8> {
        let mut out = heapless::Vec::<&[u8], 64>::new();
        assert_eq!(log.slices(store, from, to, &mut out), to - from);
        out.iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn frames_cross_blocks_unbroken() {
        let (mut store, mut log) = log(8, 8, 8);
        for n in 1..=3_u8 {
            log.append(&mut store, Kind::Whole, n.into(), u64::from(n) + 1, [&[0x81, 20], &[n; 18], &[9]]).unwrap();
        }
        assert_eq!(log.end(), 63);
        assert_eq!(read(&store, &log, 21, 42), [vec![0x81, 20], vec![2; 18], vec![9]].concat());
        assert_eq!(log.number_at(&store, 41), Some(1));
        assert_eq!(log.number_of(&store, 3), Some(2));
        assert_eq!(log.number_of(&store, 4), None);
        assert_eq!(log.entry(&store, 1).unwrap().header_size, 2);
    }

    #[test]
    fn the_ring_forgets_its_oldest_by_bytes_and_by_frames() {
        let (mut store, mut log_by_bytes) = log(8, 4, 100);
        for n in 1..=50 {
            log_by_bytes.append(&mut store, Kind::Whole, n, n + 1, [&[1, 2], &[3; 10], &[]]).unwrap();
            assert!(log_by_bytes.blocks(&store) <= 4);
            assert_eq!(store.free() + log_by_bytes.blocks(&store), 8, "no block is lost");
        }
        assert_eq!(log_by_bytes.next_sequence(), 51);
        let (mut store, mut by_frames) = log(8, 8, 3);
        for n in 1..=5 {
            by_frames.append(&mut store, Kind::Whole, n, n + 1, [&[1, 2], &[], &[]]).unwrap();
        }
        assert_eq!(by_frames.frames(), 3);
        assert_eq!(by_frames.number_of(&store, 2), None);
        assert_eq!(by_frames.entry(&store, by_frames.number_of(&store, 3).unwrap()).unwrap().sequence, 3);
    }

    #[test]
    fn a_full_arena_adds_nothing() {
        let (mut store, mut log) = log(2, 4, 8);
        log.append(&mut store, Kind::Whole, 1, 2, [&[1, 2], &[0; 30], &[]]).unwrap();
        assert_eq!(log.append(&mut store, Kind::Whole, 2, 3, [&[1, 2], &[0; 30], &[]]), Err(Full));
        assert_eq!((log.end(), log.next_sequence(), log.frames()), (32, 2, 1));
        log.clear(&mut store);
        assert_eq!(store.free(), 2);
    }

    #[test]
    fn an_epoch_hides_what_came_before_from_newcomers_alone() {
        let (mut store, mut log) = log(8, 8, 8);
        log.append(&mut store, Kind::Whole, 7, 8, [&[1, 2], &[7], &[]]).unwrap();
        log.begin_epoch();
        log.append(&mut store, Kind::Epoch, 0, 0, [&[1, 2], &[0], &[]]).unwrap();
        log.append(&mut store, Kind::Whole, 1, 2, [&[1, 2], &[1], &[]]).unwrap();
        assert_eq!(log.number_of(&store, 7), None);
        assert_eq!(log.number_of(&store, 1), Some(2));
        assert_eq!(log.entry_next(&store, 0), 8);
        assert_eq!((log.base(), log.next_before()), (1, 8));
        assert!(log.is_special_since(3) && !log.is_special_since(4));
        assert_eq!(read(&store, &log, 0, 3), [1, 2, 7]);
    }
}
