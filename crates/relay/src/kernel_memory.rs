//! What the kernel holds for the pages: the sum, each page's share, and which pages are to be measured next.
//!
//! A socket's queues are the relay's memory like any other, and the largest part of it where pages stall. Each write
//! counts at once, generously; what the kernel really holds replaces that count when it is measured. A share changes only
//! here, together with the sum. Doesn't know pages, nor what follows from a sum that is too large: that is `measuring.rs`.

use super::table::NONE;
use board::Board;

/// What a written byte counts until it is measured: small writes that can't be merged take more than they hold.
const OVERHEAD: u64 = 2;
/// Closing begins when this part of the cap is left: what is written between two measurements must have room too.
const RESERVE: u64 = 8;
/// All pages are measured again once this part of the cap was written.
const STEP: u64 = 32;

/// Bytes in the kernel for all pages, and which pages are to be measured next.
#[derive(Debug)]
pub struct KernelMemory {
    total: u64,
    highest: u64,
    /// The next row to measure, and the stride to the one behind it.
    next: u32,
    stride: u32,
    /// Above this many bytes all pages are measured.
    measure_above: u64,
}

/// Bytes in the kernel for one page: as measured, and what was written since at its most. The highest bit is set where
/// they include what the page may send while nothing is read from it.
#[derive(Debug, Default)]
pub struct KernelShare(u32);

/// The highest bit of a [`KernelShare`]; sizes stay below it.
const UNREAD: u32 = 1 << 31;

impl KernelShare {
    /// Bytes.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.0 & !UNREAD
    }

    const fn is_unread(&self) -> bool {
        self.0 & UNREAD != 0
    }
}

impl KernelMemory {
    /// Nothing is held yet.
    #[must_use]
    pub const fn new(board: &Board) -> Self {
        Self { total: 0, highest: 0, next: NONE, stride: 1, measure_above: limit(board) }
    }

    /// Bytes for all pages.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The most that they were when they had been measured.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.highest.max(self.total)
    }

    /// Whether all pages are to be measured before anything more is written.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.total > self.measure_above
    }

    /// Pages that may be written to, each as much as its socket takes, before all are to be measured.
    #[must_use]
    pub fn pages_before_full(&self, board: &Board) -> usize {
        let of_each = OVERHEAD * 2 * u64::from(board.send_buffer_size);
        usize::try_from(self.measure_above.saturating_sub(self.total) / of_each).unwrap_or(usize::MAX)
    }

    /// Every `stride`th page is to be measured, from a row on.
    pub const fn begin_measures(&mut self, first: u32, stride: u32) {
        (self.next, self.stride) = (first, stride);
    }

    /// The next row to be measured, below `end`.
    pub fn next_measure(&mut self, end: u32) -> Option<u32> {
        let next = self.next;
        self.next = if next < end { next + self.stride } else { NONE };
        (next < end).then_some(next)
    }

    /// A measurement is over; whether it was one of all pages.
    pub fn end_measures(&mut self) -> bool {
        self.highest = self.highest();
        self.stride == 1
    }

    /// All pages were measured, and those that held too much are closed: when they are to be measured again.
    pub fn plan_measures(&mut self, board: &Board) {
        self.measure_above = limit(board).max(self.total + board.kernel_size_max / STEP);
    }

    /// Bytes were written to a page.
    pub fn count_written(&mut self, share: &mut KernelShare, size: u64) {
        let more = u32::try_from(size.saturating_mul(OVERHEAD)).unwrap_or(u32::MAX);
        self.set(share, share.size().saturating_add(more), share.is_unread());
    }

    /// Nothing is read from a page any more: it may fill its receive buffer.
    pub fn count_unread(&mut self, share: &mut KernelShare, board: &Board) {
        if !share.is_unread() {
            self.set(share, share.size().saturating_add(unread_max(board)), true);
        }
    }

    /// A page's socket was measured: `going` bytes wait to be sent, `come` to be read.
    pub fn measured(&mut self, share: &mut KernelShare, board: &Board, going: u32, come: u32, is_unread: bool) {
        // A page that isn't read may send as much as its buffer takes, at any time.
        let come = if is_unread { come.max(unread_max(board)) } else { come };
        self.set(share, going.saturating_add(come), is_unread);
    }

    /// A page is cut off or gone: its socket takes what it holds with it.
    pub fn forget(&mut self, share: &mut KernelShare) {
        self.set(share, 0, share.is_unread());
    }

    fn set(&mut self, share: &mut KernelShare, size: u32, is_unread: bool) {
        let (before, size) = (share.size(), size.min(UNREAD - 1));
        share.0 = size | if is_unread { UNREAD } else { 0 };
        self.total = self.total - u64::from(before) + u64::from(size);
    }
}

/// What all pages' sockets may hold before the slowest go.
#[must_use]
pub const fn limit(board: &Board) -> u64 {
    board.kernel_size_max - board.kernel_size_max / RESERVE
}

/// What a page may send that nothing is read from: its receive buffer, doubled as Linux does.
const fn unread_max(board: &Board) -> u32 {
    2 * board.receive_buffer_size
}
