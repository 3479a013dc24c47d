//! The pages' memory in the kernel: the sum, each page's share, and which pages to measure next.
//!
//! A socket's queues are part of the relay's memory, and the largest part if pages stall. Each
//! write is counted at once with a pessimistic estimate; a measurement replaces the estimate by
//! what the kernel really holds. A share changes only here, together with the sum. Doesn't know
//! pages, nor what happens when the sum is too large: that is `measuring.rs`.

use super::table::NONE;
use board::Board;

/// Estimated kernel memory per written byte until it is measured: small writes that can't be merged
/// take more than their size.
const OVERHEAD: u64 = 2;
/// Pages are closed once less than 1/`RESERVE` of the cap is left; that rest has room for what is
/// written between two measurements.
const RESERVE: u64 = 8;
/// All pages are measured again after another 1/`STEP` of the cap was written.
const STEP: u64 = 32;

/// Bytes in the kernel for all pages, and which pages to measure next.
#[derive(Debug)]
pub struct KernelMemory {
    total: u64,
    highest: u64,
    /// The next row to measure, and the stride to the one after it.
    next: u32,
    stride: u32,
    /// When `total` is above this, all pages are measured.
    measure_above: u64,
}

/// Bytes in the kernel for one page: as measured, plus an upper bound of what was written since.
/// The highest bit is set if they include what the page may send while it is not read from.
#[derive(Debug, Default)]
pub struct KernelShare(u32);

/// The highest bit of a [`KernelShare`]; sizes stay below it.
const UNREAD: u32 = 1 << 31;

impl KernelShare {
    /// The size, bytes.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.0 & !UNREAD
    }

    const fn is_unread(&self) -> bool {
        self.0 & UNREAD != 0
    }
}

impl KernelMemory {
    /// Starts with nothing held.
    #[must_use]
    pub const fn new(board: &Board) -> Self {
        Self { total: 0, highest: 0, next: NONE, stride: 1, measure_above: limit(board) }
    }

    /// Bytes for all pages.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The highest total after a measurement.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.highest.max(self.total)
    }

    /// Whether all pages have to be measured before more is written.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.total > self.measure_above
    }

    /// How many pages may be written to, each as much as its socket takes, before all have to be
    /// measured.
    #[must_use]
    pub fn pages_before_full(&self, board: &Board) -> usize {
        let of_each = OVERHEAD * 2 * u64::from(board.send_buffer_size);
        usize::try_from(self.measure_above.saturating_sub(self.total) / of_each).unwrap_or(usize::MAX)
    }

    /// Schedules the measurement of every `stride`th page, starting at row `first`.
    pub const fn begin_measures(&mut self, first: u32, stride: u32) {
        (self.next, self.stride) = (first, stride);
    }

    /// The next row to measure, below `end`.
    pub fn next_measure(&mut self, end: u32) -> Option<u32> {
        let next = self.next;
        self.next = if next < end { next + self.stride } else { NONE };
        (next < end).then_some(next)
    }

    /// Ends a measurement; returns whether it was one of all pages.
    pub fn end_measures(&mut self) -> bool {
        self.highest = self.highest();
        self.stride == 1
    }

    /// Sets when all pages are measured again, after a measurement and the closing of pages that it
    /// led to.
    pub fn plan_measures(&mut self, board: &Board) {
        self.measure_above = limit(board).max(self.total + board.kernel_size_max / STEP);
    }

    /// Counts bytes written to a page.
    pub fn count_written(&mut self, share: &mut KernelShare, size: u64) {
        let more = u32::try_from(size.saturating_mul(OVERHEAD)).unwrap_or(u32::MAX);
        self.set(share, share.size().saturating_add(more), share.is_unread());
    }

    /// Counts a page that is no longer read from: it may fill its receive buffer.
    pub fn count_unread(&mut self, share: &mut KernelShare, board: &Board) {
        if !share.is_unread() {
            self.set(share, share.size().saturating_add(unread_max(board)), true);
        }
    }

    /// Records a measurement of a page's socket: `going` bytes wait to be sent, `come` to be read.
    pub fn measured(&mut self, share: &mut KernelShare, board: &Board, going: u32, come: u32, is_unread: bool) {
        // A page that isn't read from may fill its receive buffer at any time.
        let come = if is_unread { come.max(unread_max(board)) } else { come };
        self.set(share, going.saturating_add(come), is_unread);
    }

    /// Forgets a page that is cut or gone: its socket frees what it held.
    pub fn forget(&mut self, share: &mut KernelShare) {
        self.set(share, 0, share.is_unread());
    }

    fn set(&mut self, share: &mut KernelShare, size: u32, is_unread: bool) {
        let (before, size) = (share.size(), size.min(UNREAD - 1));
        share.0 = size | if is_unread { UNREAD } else { 0 };
        self.total = self.total - u64::from(before) + u64::from(size);
    }
}

/// What all pages' sockets may hold before the slowest pages are closed.
#[must_use]
pub const fn limit(board: &Board) -> u64 {
    board.kernel_size_max - board.kernel_size_max / RESERVE
}

/// The most that a page may send while it is not read from: its receive buffer, which Linux
/// doubles.
const fn unread_max(board: &Board) -> u32 {
    2 * board.receive_buffer_size
}
