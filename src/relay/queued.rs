//! What waits in the kernel for the pages: counted as it is written, measured, and kept below the board's cap.
//!
//! A socket's queues are memory of the relay's like any other, and the largest part of it where pages stall.
//! Each write counts at once, generously; the shell reads from the kernel what is really there, about once a
//! second for each page that may have something, and all of them at once where the count passes the cap.
//! Where what was measured passes it, the pages that made no progress for the longest time go first.

use super::{
    Relay,
    event::Event,
    session::Session,
    table::{Id, NONE},
    time::Instant,
};
use crate::board::Board;

/// What a byte written counts until the kernel was asked: small writes that can't be merged take more than they hold.
const OVERHEAD: u64 = 2;
/// Closing begins when this part of the cap is left: what is written between two looks must have room too.
const RESERVE: u64 = 8;
/// Pages are told apart by the tenths of a second without progress; older ones are all the same.
const AGES: usize = 256;
const AGE_MS: u64 = 100;

impl Relay {
    /// A page whose socket's queues are to be read from the kernel now. `None` until the next
    /// [`handle_timeout`](Self::handle_timeout).
    pub fn poll_measure(&mut self) -> Option<Id<Session>> {
        while self.measure_next < self.sessions.end() {
            let page = self.measure_next;
            self.measure_next += self.measure_step;
            if self.sessions.get(page).is_some_and(|session| session.kernel_size > 0 || session.blocked) {
                return self.sessions.id(page);
            }
        }
        self.measure_next = NONE;
        None
    }

    /// The bytes of a page's socket in the kernel, both ways.
    pub fn handle_measured(&mut self, page: Id<Session>, size: u32) {
        if let Some(page) = self.sessions.resolve(page) {
            let before = core::mem::replace(&mut self.sessions[page].kernel_size, size);
            self.kernel_size = self.kernel_size - u64::from(before) + u64::from(size);
        }
    }

    /// Everything that was to be measured is: where it is too much the slowest pages go.
    pub fn handle_measures_done(&mut self, now: Instant) {
        let held = self.kernel_size;
        let limit = limit(&self.board);
        if held <= limit || self.measure_step != 1 {
            return;
        }
        let pages = self.close_slowest(now, held - limit);
        if pages > 0 {
            self.events.add(Event::KernelFull { pages, held });
        }
    }

    /// Bytes in the kernel for all pages: measured, and what was written since at its most.
    #[must_use]
    pub const fn kernel_size(&self) -> u64 {
        self.kernel_size
    }

    /// What is to be measured from now on: the pages of this tick, or all of them.
    pub(super) fn begin_measures(&mut self, tick: u32, ticks: u32) {
        let all = self.kernel_size > limit(&self.board);
        (self.measure_next, self.measure_step) = if all { (0, 1) } else { (tick, ticks) };
    }

    pub(super) fn count_kernel(&mut self, page: u32, size: u64) {
        let more = u32::try_from(size.saturating_mul(OVERHEAD)).unwrap_or(u32::MAX);
        let session = &mut self.sessions[page];
        let before = session.kernel_size;
        session.kernel_size = before.saturating_add(more);
        self.kernel_size += u64::from(session.kernel_size - before);
    }

    /// Closes the pages that made no progress for the longest time until `excess` bytes are covered; how many.
    fn close_slowest(&mut self, now: Instant, excess: u64) -> u32 {
        let mut held = [0_u64; AGES];
        for (_, session) in self.sessions.iter().filter(|(_, session)| !session.cut) {
            held[age(session, now)] += u64::from(session.kernel_size);
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
            let Some(session) = self.sessions.get(page).filter(|session| !session.cut) else { continue };
            let (size, age) = (u64::from(session.kernel_size), age(session, now));
            if size == 0 || age < oldest || age == oldest && left == 0 {
                continue;
            }
            if age == oldest {
                left = left.saturating_sub(size);
            }
            closed += 1;
            self.counters.closed_for_memory += 1;
            if session.blocked {
                // Its socket takes nothing, not even a close frame, and holds what it has until it is gone.
                self.cut(page);
            } else {
                self.close_slow(now, page);
            }
        }
        closed
    }
}

/// What all pages' sockets may hold before the slowest go.
const fn limit(board: &Board) -> u64 {
    board.kernel_size_max - board.kernel_size_max / RESERVE
}

fn age(session: &Session, now: Instant) -> usize {
    usize::try_from(session.wrote.age_ms(now) / AGE_MS).map_or(AGES - 1, |age| age.min(AGES - 1))
}

#[cfg(test)]
mod tests {
    use super::super::pages::Verdict;
    use super::super::rig::{BOARD, Rig};

    /// Measures whoever is to be measured as holding `size`; how many they were.
    fn measure(rig: &mut Rig, size: u32) -> usize {
        let pages: Vec<_> = core::iter::from_fn(|| rig.relay.poll_measure()).collect();
        for page in &pages {
            rig.relay.handle_measured(*page, size);
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
            rig.relay.handle_measured(page, cap / 4);
        }
        rig.relay.handle_measured(pages[1], cap / 4);
        assert_eq!(measure(&mut rig, cap / 4), 0, "nothing is measured between two ticks");
        assert_eq!(rig.relay.verdict(pages[1]), Verdict::Serve);
        rig.pass(100);
        assert_eq!(measure(&mut rig, cap / 4), 4, "all are measured once the count passes the cap");
        assert_eq!(rig.relay.verdict(pages[1]), Verdict::Cut);
        for page in [pages[0], pages[2], pages[3]] {
            assert_eq!(rig.relay.verdict(page), Verdict::Serve);
        }
        assert_eq!(rig.relay.counters().closed_for_memory, 1);
    }
}
