//! Which pages are served next: the queue of ready pages, and the walks over topics with new
//! publications.
//!
//! A page that has something of its own to be sent is in the ready queue, once. A topic with a new
//! publication is walked: the walk follows its ring of subscriptions from where the last walk
//! ended, and each page gets everything new on all of its tracks. Blocked pages are skipped until
//! their sockets are writable. Walks of several topics are served round-robin.

use heapless::Vec;

use super::{
    Relay,
    position::Cursor,
    session::Session,
    subscription::Subscription,
    table::{Id, NONE},
    texts::Reason,
    time::Instant,
};

/// The least pages per batch, even if little is left of the memory for the kernel's queues.
const TURN_MIN: usize = 16;

impl Relay {
    /// The next page to serve; `None` until something happens.
    pub fn poll_page(&mut self) -> Option<Id<Session>> {
        let mut next = Vec::<_, 1>::new();
        self.poll_pages(&mut next);
        next.pop()
    }

    /// Collects a batch of the next pages to serve, up to `into`'s capacity, and no more than may
    /// be written to before the kernel's queues have to be measured; fewer only if there are no
    /// more for now. Returns how many of the batch came from the ready queue. Those are first, and
    /// may occur again among the rest, in which each page occurs once.
    pub fn poll_pages<const N: usize>(&mut self, into: &mut Vec<Id<Session>, N>) -> usize {
        let batch_max = self.sessions.kernel().pages_before_full(&self.board).clamp(TURN_MIN.min(N), N);
        while into.len() < batch_max
            && let Some(page) = self.pop_ready()
        {
            into.extend(self.sessions.id(page));
        }
        let ready = into.len();
        let sessions = &self.sessions;
        let serves = |row: &Subscription| {
            let session = &sessions[row.page()];
            !session.is_blocked() && session.closing().is_none()
        };
        while into.len() < batch_max
            && let Some(row) = self.topics.next_of_walks(&self.subscriptions, serves)
        {
            into.extend(sessions.id(row.page()));
        }
        ready
    }

    fn pop_ready(&mut self) -> Option<u32> {
        while let Some(page) = self.sessions.pop_ready() {
            let session = &self.sessions[page];
            if !session.is_blocked() || session.is_cut() || session.closing().is_some() {
                return Some(page);
            }
        }
        None
    }

    /// Whether [`poll_page`](Self::poll_page) may return a page, now or once
    /// [`admit_more`](Self::admit_more) has made progress.
    #[must_use]
    pub fn has_pages_to_serve(&self) -> bool {
        self.sessions.has_ready() || self.topics.has_walks() || self.links.admitting().is_some()
    }

    /// The page's socket took no more: the page is skipped until [`unblocked`](Self::unblocked).
    pub fn blocked(&mut self, page: Id<Session>) {
        if let Some(page) = self.sessions.resolve(page) {
            self.sessions.block(page, &self.board);
            self.counters.blocked += 1;
        }
    }

    /// The page's socket is writable again.
    pub fn unblocked(&mut self, page: Id<Session>) {
        if let Some(page) = self.sessions.resolve(page) {
            self.sessions[page].unblock();
            self.push_ready(page);
        }
    }

    /// The page used up its writes for one turn and has more to be sent: it goes to the end of the
    /// queue.
    pub fn serve_again(&mut self, page: Id<Session>) {
        if let Some(page) = self.sessions.resolve(page) {
            self.push_ready(page);
        }
    }

    /// Whether the page's socket was full when it was last written to.
    #[must_use]
    pub fn is_blocked(&self, page: Id<Session>) -> bool {
        self.sessions.resolve(page).is_some_and(|page| self.sessions[page].is_blocked())
    }

    /// Puts a page into the ready queue: it has something of its own to be sent.
    pub(super) fn push_ready(&mut self, page: u32) {
        self.sessions.push_ready(page);
    }

    /// If the first replayed message is older than requested, the `since` places that pages claimed
    /// are beyond the topic's counter: ignores them.
    pub(super) fn void_claims(&mut self, topic: u32, replay_from: u64) {
        let mut walk = self.topics[topic].viewers.walk();
        while let Some(subscription) = self.subscriptions.next(&mut walk) {
            if let Some(live) = self.subscriptions.live_mut(subscription)
                && live.claimed
                && live.cursors[1].sequence >= replay_from
            {
                live.claimed = false;
                live.cursors[1] = Cursor::UNSET;
            }
        }
    }

    /// Notifies every page with a subscription of the uplink's state.
    pub(super) fn tell_uplink(&mut self) {
        for page in 0..self.sessions.end() {
            if self.sessions.get(page).is_some_and(|session| session.chain.first() != NONE) {
                self.push_ready(page);
            }
        }
    }

    /// Closes a page because it is too slow.
    pub(super) fn close_slow(&mut self, now: Instant, page: u32) {
        let retry_ms = self.retry_ms();
        self.counters.closed_slow += 1;
        self.close_page(now, page, 1013, Reason::Own(""), Some(retry_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{BOARD, Rig};

    #[test]
    fn each_page_is_served_once_for_a_publication() {
        let mut rig = Rig::up(&BOARD);
        let first = rig.viewer();
        let second = rig.page();
        rig.subscribe(second, 1, "link");
        while rig.relay.poll_page().is_some() {}
        rig.messages(1..=3);
        let served: alloc::vec::Vec<_> = core::iter::from_fn(|| rig.relay.poll_page()).collect();
        assert_eq!(served.len(), 2);
        assert!(served.contains(&first) && served.contains(&second));
        assert!(!rig.relay.has_pages_to_serve());
    }

    #[test]
    fn no_page_is_always_last() {
        let mut rig = Rig::up(&BOARD);
        rig.viewer();
        for _ in 0..2 {
            let page = rig.page();
            rig.subscribe(page, 1, "link");
        }
        while rig.relay.poll_page().is_some() {}
        let mut last: alloc::vec::Vec<_> = (1..=3)
            .map(|sequence| {
                rig.messages([sequence]);
                core::iter::from_fn(|| rig.relay.poll_page()).last().unwrap().index()
            })
            .collect();
        last.sort_unstable();
        last.dedup();
        assert_eq!(last.len(), 3, "three pages, three publications: each was last once");
    }

    #[test]
    fn a_blocked_page_is_skipped_until_its_socket_is_writable() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        while rig.relay.poll_page().is_some() {}
        rig.relay.blocked(page);
        rig.messages(1..=1);
        assert_eq!(rig.relay.poll_page(), None);
        rig.relay.unblocked(page);
        assert_eq!(rig.relay.poll_page(), Some(page));
    }

    #[test]
    fn a_page_that_disconnects_leaves_the_queue() {
        let mut rig = Rig::up(&BOARD);
        let pages = [rig.page(), rig.page(), rig.page()];
        for page in pages {
            rig.say(page, "garbage");
        }
        rig.relay.handle_page_closed(rig.now, pages[1]);
        rig.relay.check();
        let served: alloc::vec::Vec<_> = core::iter::from_fn(|| rig.relay.poll_page()).collect();
        assert_eq!(served, [pages[0], pages[2]]);
    }
}
