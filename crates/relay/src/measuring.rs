//! Measuring what the kernel holds for the pages, and closing the slowest when it is too much.
//!
//! The shell reads the socket queues of each page that may have something in them about once a
//! second; where the count passes the cap, it reads those of all pages before it writes anything
//! more. If the measured total still passes the cap, the pages without progress for the longest
//! time are closed first. The counts are kept in `kernel_memory.rs`.

use super::{Relay, event::Event, kernel_memory::limit, session::Session, table::Id, time::Instant};

/// Pages are ranked by tenths of a second without progress, up to this many; older ones rank equal.
const AGES: usize = 256;
const AGE_MS: u64 = 100;

impl Relay {
    /// Whether all pages must be measured before anything more is written; if so,
    /// [`poll_measure`](Self::poll_measure) lists them.
    pub fn poll_full(&mut self) -> bool {
        let is_full = self.is_full();
        if is_full {
            self.sessions.kernel_mut().begin_measures(0, 1);
        }
        is_full
    }

    /// The next page whose socket queues must be read from the kernel. `None` until the next
    /// [`handle_timeout`](Self::handle_timeout) or [`poll_full`](Self::poll_full).
    pub fn poll_measure(&mut self) -> Option<Id<Session>> {
        let end = self.sessions.end();
        while let Some(page) = self.sessions.kernel_mut().next_measure(end) {
            let session = self.sessions.get(page).filter(|session| !session.is_cut());
            if session.is_some_and(|session| session.kernel.size() > 0 || session.is_blocked()) {
                return self.sessions.id(page);
            }
        }
        None
    }

    /// A page's socket was measured: bytes in its send queue, and in its receive queue.
    pub fn handle_measured(&mut self, page: Id<Session>, send_queue: u32, receive_queue: u32) {
        let Some(page) = self.sessions.resolve(page).filter(|page| !self.sessions[*page].is_cut()) else { return };
        self.sessions.measured(page, &self.board, send_queue, receive_queue);
    }

    /// The measurements are complete: closes the slowest pages if the total is too large.
    pub fn handle_measures_done(&mut self, now: Instant) {
        if self.sessions.kernel_mut().end_measures() {
            let (held, limit) = (self.kernel_size(), self.kernel_cap());
            let pages = if held > limit { self.close_slowest(now, held - limit) } else { 0 };
            if pages > 0 {
                self.events.add(Event::KernelFull { pages, held });
            }
            self.sessions.kernel_mut().plan_measures(&self.board);
        }
    }

    /// Whether the count passes the cap.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.sessions.kernel().is_full()
    }

    /// Bytes in the kernel for all pages: as measured, plus an upper bound for what was written
    /// since.
    #[must_use]
    pub const fn kernel_size(&self) -> u64 {
        self.sessions.kernel().total()
    }

    /// The cap for that, above which the slowest pages are closed.
    #[must_use]
    pub const fn kernel_cap(&self) -> u64 {
        limit(&self.board)
    }

    /// The high-water mark of [`kernel_size`](Self::kernel_size), taken after measurements: about
    /// ten times a second.
    #[must_use]
    pub fn kernel_size_highest(&self) -> u64 {
        self.sessions.kernel().highest()
    }

    /// Closes the pages without progress for the longest time until `excess` bytes are freed.
    /// Returns how many.
    fn close_slowest(&mut self, now: Instant, excess: u64) -> u32 {
        let mut held = [0_u64; AGES];
        for (_, session) in self.sessions.iter() {
            held[age(session, now)] += u64::from(session.kernel.size());
        }
        // All pages older than this age are closed, and of this age as many as are needed.
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
            if session.is_blocked() || session.closing().is_some() {
                // Its socket takes nothing, not even a close frame, or its close timeout has
                // passed.
                self.cut(page);
            } else {
                self.close_slow(now, page);
            }
        }
        closed
    }
}

fn age(session: &Session, now: Instant) -> usize {
    usize::try_from(session.wrote_ms(now) / AGE_MS).map_or(AGES - 1, |age| age.min(AGES - 1))
}

#[cfg(test)]
mod tests {
    use super::super::draft::Draft;
    use super::super::pages::Verdict;
    use super::super::rig::{BOARD, Rig};
    use super::super::transmit::Progress;

    /// Reports `size` bytes for each page that is due a measurement; returns how many there were.
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
        assert_eq!((measured, rig.relay.kernel_size()), (1, 0), "once per sweep, and not again");
        rig.take(page, u64::MAX);
        rig.relay.handle_page_closed(rig.now, page);
        assert_eq!(rig.relay.kernel_size(), 0);
    }

    #[test]
    fn control_frames_count_even_if_nothing_else_is_written() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.page();
        let mut draft = Draft::default();
        draft.begin(rig.now);
        rig.relay.plan(page, &mut draft);
        rig.relay.wrote(page, &draft, Progress { socket: 100, ..Progress::default() });
        assert_eq!(rig.relay.kernel_size(), 2 * 100);
        let measured: usize = (0..10)
            .map(|_| {
                rig.pass(100);
                measure(&mut rig, 700)
            })
            .sum();
        assert_eq!((measured, rig.relay.kernel_size()), (1, 700));
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
        assert!(!rig.relay.poll_full(), "and only once");
        assert_eq!(rig.relay.verdict(pages[1]), Verdict::Cut);
        for page in [pages[0], pages[2], pages[3]] {
            assert_eq!(rig.relay.verdict(page), Verdict::Serve);
        }
        assert_eq!(rig.relay.counters().closed_for_memory, 1);
    }
}
