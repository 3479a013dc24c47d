//! What waits in the kernel for the pages: counted as it is written, measured, and kept below the board's cap.
//!
//! A socket's queues are memory of the relay's like any other, and the largest part of it where pages stall.
//! Each write counts at once, generously; the shell reads from the kernel what is really there, about once a
//! second for each page that may have something, and of all pages before anything more is written where the
//! count passes the cap. Where what was measured passes it, the pages that made no progress for the
//! longest time go first.

use super::{
    Relay,
    event::Event,
    session::Session,
    table::{Id, NONE},
    time::Instant,
};
use board::Board;

/// What a byte written counts until the kernel was asked: small writes that can't be merged take more than they hold.
const OVERHEAD: u64 = 2;
/// Closing begins when this part of the cap is left: what is written between two looks must have room too.
const RESERVE: u64 = 8;
/// Of that, so much is written before all are measured again.
const STEP: u64 = 32;
/// Pages are told apart by the tenths of a second without progress; older ones are all the same.
const AGES: usize = 256;
const AGE_MS: u64 = 100;

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

    /// Sets both; the size that it was.
    fn set(&mut self, size: u32, is_unread: bool) -> u32 {
        let before = self.size();
        self.0 = size.min(UNREAD - 1) | if is_unread { UNREAD } else { 0 };
        before
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

    /// Every `stride`th page is to be measured, from a row on.
    pub(super) const fn begin(&mut self, first: u32, stride: u32) {
        (self.next, self.stride) = (first, stride);
    }

    /// Bytes were written to a page.
    pub(super) fn count_written(&mut self, share: &mut KernelShare, size: u64) {
        let more = u32::try_from(size.saturating_mul(OVERHEAD)).unwrap_or(u32::MAX);
        self.set(share, share.size().saturating_add(more), share.is_unread());
    }

    /// Nothing is read from a page any more.
    pub(super) fn count_unread(&mut self, share: &mut KernelShare, board: &Board) {
        if !share.is_unread() {
            self.set(share, share.size().saturating_add(unread_max(board)), true);
        }
    }

    /// A page's share is that large now.
    fn set(&mut self, share: &mut KernelShare, size: u32, is_unread: bool) {
        let before = share.set(size, is_unread);
        self.total = self.total - u64::from(before) + u64::from(share.size());
    }

    /// A page is cut off or gone: its socket takes what it holds with it.
    pub(super) fn forget(&mut self, share: &mut KernelShare) {
        self.set(share, 0, share.is_unread());
    }
}

impl Relay {
    /// Whether all pages are to be measured before anything more is written; if so,
    /// [`poll_measure`](Self::poll_measure) names them.
    pub fn poll_full(&mut self) -> bool {
        let is_full = self.is_full();
        if is_full {
            self.sessions.kernel.begin(0, 1);
        }
        is_full
    }

    /// A page whose socket's queues are to be read from the kernel now. `None` until the next
    /// [`handle_timeout`](Self::handle_timeout) or [`poll_full`](Self::poll_full).
    pub fn poll_measure(&mut self) -> Option<Id<Session>> {
        while self.sessions.kernel.next < self.sessions.end() {
            let page = self.sessions.kernel.next;
            self.sessions.kernel.next += self.sessions.kernel.stride;
            let session = self.sessions.get(page).filter(|session| !session.is_cut());
            if session.is_some_and(|session| session.kernel.size() > 0 || session.blocked) {
                return self.sessions.id(page);
            }
        }
        self.sessions.kernel.next = NONE;
        None
    }

    /// The bytes that a page's socket holds in the kernel: what waits to go, and what came and waits.
    pub fn handle_measured(&mut self, page: Id<Session>, going: u32, come: u32) {
        let Some(page) = self.sessions.resolve(page).filter(|page| !self.sessions[*page].is_cut()) else { return };
        let blocked = self.sessions[page].blocked;
        // Nothing is read from a blocked page: it may send as much as its buffer takes, at any time.
        let come = if blocked { come.max(unread_max(&self.board)) } else { come };
        let (kernel, share) = self.sessions.kernel_of(page);
        kernel.set(share, going.saturating_add(come), blocked);
    }

    /// Everything that was to be measured is: where it is too much the slowest pages go.
    pub fn handle_measures_done(&mut self, now: Instant) {
        let limit = limit(&self.board);
        let held = self.sessions.kernel.total;
        self.sessions.kernel.highest = self.kernel_size_highest();
        if self.sessions.kernel.stride == 1 {
            let pages = if held > limit { self.close_slowest(now, held - limit) } else { 0 };
            if pages > 0 {
                self.events.add(Event::KernelFull { pages, held });
            }
            let kernel = &mut self.sessions.kernel;
            kernel.measure_above = limit.max(kernel.total + self.board.kernel_size_max / STEP);
        }
    }

    /// Whether what was counted passes the cap.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.sessions.kernel.total > self.sessions.kernel.measure_above
    }

    /// Pages that may be written to, each as much as its socket takes, before what was counted passes the cap.
    pub(super) fn pages_before_full(&self) -> usize {
        let of_each = OVERHEAD * 2 * u64::from(self.board.send_buffer_size);
        let kernel = &self.sessions.kernel;
        usize::try_from(kernel.measure_above.saturating_sub(kernel.total) / of_each).unwrap_or(usize::MAX)
    }

    /// Bytes in the kernel for all pages: measured, and what was written since at its most.
    #[must_use]
    pub const fn kernel_size(&self) -> u64 {
        self.sessions.kernel.total
    }

    /// What that may be before the slowest pages go.
    #[must_use]
    pub const fn kernel_cap(&self) -> u64 {
        limit(&self.board)
    }

    /// The most that [`kernel_size`](Self::kernel_size) was when the kernel had been asked: about ten times a second.
    #[must_use]
    pub fn kernel_size_highest(&self) -> u64 {
        self.sessions.kernel.highest.max(self.sessions.kernel.total)
    }

    /// Closes the pages that made no progress for the longest time until `excess` bytes are covered; how many.
    fn close_slowest(&mut self, now: Instant, excess: u64) -> u32 {
        let mut held = [0_u64; AGES];
        for (_, session) in self.sessions.iter() {
            held[age(session, now)] += u64::from(session.kernel.size());
        }
        // Everybody older than this age goes, and of this age as many as are needed.
        let mut oldest = AGES - 1;
        let mut left = excess;
        while oldest > 0 && held[oldest] < left {
            left -= held[oldest];
            oldest -= 1;
        }
        let mut closed = 0;
        for page in 0..self.sessions.end() {
            let Some(session) = self.sessions.get(page) else { continue };
            let (size, age) = (u64::from(session.kernel.size()), age(session, now));
            if size == 0 || age < oldest || age == oldest && left == 0 {
                continue;
            }
            if age == oldest {
                left = left.saturating_sub(size);
            }
            closed += 1;
            self.counters.closed_for_memory += 1;
            if session.blocked || session.closing().is_some() {
                // Its socket takes nothing, not even a close frame, or it had its time.
                self.cut(page);
            } else {
                self.close_slow(now, page);
            }
        }
        closed
    }
}

/// What all pages' sockets may hold before the slowest go.
pub(super) const fn limit(board: &Board) -> u64 {
    board.kernel_size_max - board.kernel_size_max / RESERVE
}

/// What a page may send that nothing is read from: its receive buffer, doubled as Linux does.
const fn unread_max(board: &Board) -> u32 {
    2 * board.receive_buffer_size
}

fn age(session: &Session, now: Instant) -> usize {
    usize::try_from(session.wrote_ms(now) / AGE_MS).map_or(AGES - 1, |age| age.min(AGES - 1))
}

#[cfg(test)]
mod tests {
    use super::super::pages::Verdict;
    use super::super::rig::{BOARD, Rig};

    /// Measures whoever is to be measured as holding `size`; how many they were.
    fn measure(rig: &mut Rig, size: u32) -> usize {
        let pages: Vec<_> = core::iter::from_fn(|| rig.relay.poll_measure()).collect();
        for page in &pages {
            rig.relay.handle_measured(*page, size, 0);
        }
        rig.relay.handle_measures_done(rig.now);
        rig.relay.check();
        pages.len()
    }

    #[test]
    fn what_is_written_counts_until_it_was_measured() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.messages(1..=1);
        let before = rig.relay.kernel_size();
        let size = rig.take(page, u64::MAX).len() as u64;
        assert_eq!(rig.relay.kernel_size(), before + 2 * size);
        let measured: usize = (0..10)
            .map(|_| {
                rig.pass(100);
                measure(&mut rig, 0)
            })
            .sum();
        assert_eq!((measured, rig.relay.kernel_size()), (1, 0), "once in a sweep, and not again");
        rig.take(page, u64::MAX);
        rig.relay.handle_page_closed(rig.now, page);
        assert_eq!(rig.relay.kernel_size(), 0);
    }

    #[test]
    fn past_the_cap_the_slowest_go_first_and_no_more_than_are_needed() {
        let mut rig = Rig::up(&BOARD);
        let pages = [rig.viewer(), rig.page(), rig.page(), rig.page()];
        for page in pages {
            rig.subscribe(page, 1, "link");
            rig.read(page);
        }
        let cap = u32::try_from(BOARD.kernel_size_max).unwrap();
        rig.relay.blocked(pages[1]);
        rig.pass(500);
        rig.messages(1..=1);
        for page in [pages[0], pages[2], pages[3]] {
            rig.read(page);
            rig.relay.handle_measured(page, cap / 4, 0);
        }
        rig.relay.handle_measured(pages[1], cap / 4, 0);
        assert!(rig.relay.poll_full());
        assert_eq!(measure(&mut rig, cap / 4), 4, "all are measured once the count passes the cap");
        assert!(!rig.relay.poll_full(), "and once only");
        assert_eq!(rig.relay.verdict(pages[1]), Verdict::Cut);
        for page in [pages[0], pages[2], pages[3]] {
            assert_eq!(rig.relay.verdict(page), Verdict::Serve);
        }
        assert_eq!(rig.relay.counters().closed_for_memory, 1);
    }
}
