//! Who is to be served next: the queue of ready pages, and the walks over topics that have news.
//!
//! A page that has something of its own to be told stands in the ready queue, once. A topic that was
//! published to is walked: its ring of subscriptions is followed from where the last walk ended, and
//! each page gets everything that has gathered, on all of its tracks. A blocked page is passed by: its
//! socket will say when it can be written to. Walks of several topics take turns.

use heapless::Vec;

use super::{
    Relay,
    place::Cursor,
    session::{Pace, Session},
    subscription::Subscription,
    table::{Id, NONE},
    texts::Reason,
    time::Instant,
};

/// Pages that are served at once however little room is left in the kernel's share of the memory.
const TURN_MIN: usize = 16;

impl Relay {
    /// The next page to be served. `None` until something happens.
    pub fn poll_page(&mut self) -> Option<Id<Session>> {
        let mut next = Vec::<_, 1>::new();
        self.poll_pages(&mut next);
        next.pop()
    }

    /// The next pages to be served, as many as `into` has room for and as may be written to before the kernel is to be
    /// asked how much it holds; fewer where there are no more until something happens. Gives how many of them
    /// stand first and may come again behind: from there on each comes once.
    pub fn poll_pages<const N: usize>(&mut self, into: &mut Vec<Id<Session>, N>) -> usize {
        let most = self.sessions.kernel.pages_before_full(&self.board).clamp(TURN_MIN.min(N), N);
        while into.len() < most
            && let Some(page) = self.pop_ready()
        {
            into.extend(self.sessions.id(page));
        }
        let ready = into.len();
        let sessions = &self.sessions;
        let serves = |row: &Subscription| {
            let session = &sessions[row.page()];
            !session.blocked && session.closing().is_none()
        };
        while into.len() < most
            && let Some(row) = self.topics.next_of_walks(&self.subscriptions, serves)
        {
            into.extend(sessions.id(row.page()));
        }
        ready
    }

    fn pop_ready(&mut self) -> Option<u32> {
        while let Some(page) = self.sessions.pop_ready() {
            let session = &self.sessions[page];
            if !session.blocked || session.is_cut() || session.closing().is_some() {
                return Some(page);
            }
        }
        None
    }

    /// Whether [`poll_page`](Self::poll_page) may have somebody, now or once
    /// [`admit_more`](Self::admit_more) has gone on.
    #[must_use]
    pub fn has_pages_to_serve(&self) -> bool {
        self.sessions.has_ready() || self.topics.has_walks() || self.links.admitting().is_some()
    }

    /// The page's socket took no more: it is left alone until [`unblocked`](Self::unblocked).
    pub fn blocked(&mut self, page: Id<Session>) {
        if let Some(page) = self.sessions.resolve(page) {
            let session = &mut self.sessions[page];
            session.blocked = true;
            if session.pace == Pace::KeepsUp {
                session.pace = Pace::CatchesUp;
            }
            self.counters.blocked += 1;
            let (kernel, share) = self.sessions.kernel_of(page);
            kernel.count_unread(share, &self.board);
        }
    }

    /// The page's socket can be written to again.
    pub fn unblocked(&mut self, page: Id<Session>) {
        if let Some(page) = self.sessions.resolve(page) {
            self.sessions[page].blocked = false;
            self.push_ready(page);
        }
    }

    /// The page was written to as often as one turn allows, and more is ahead of it: it has another turn behind the others.
    pub fn serve_again(&mut self, page: Id<Session>) {
        if let Some(page) = self.sessions.resolve(page) {
            self.push_ready(page);
        }
    }

    /// Whether the page's socket took no more when it was last written to.
    #[must_use]
    pub fn is_blocked(&self, page: Id<Session>) -> bool {
        self.sessions.resolve(page).is_some_and(|page| self.sessions[page].blocked)
    }

    /// The page has something of its own to be sent.
    pub(super) fn push_ready(&mut self, page: u32) {
        self.sessions.push_ready(page);
    }

    /// The first replayed message is older than the one asked for, so the places that pages claimed lay beyond the topic's
    /// counter: they are ignored.
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

    /// Tells every page that has a subscription how the uplink is.
    pub(super) fn tell_uplink(&mut self) {
        for page in 0..self.sessions.end() {
            if self.sessions.get(page).is_some_and(|session| session.chain.first() != NONE) {
                self.push_ready(page);
            }
        }
    }

    /// A page that is too slow is closed.
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
    fn a_publication_comes_to_each_page_once() {
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
    fn nobody_is_always_last() {
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
    fn a_blocked_page_is_passed_by_until_it_can_be_written_to() {
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
    fn a_page_that_goes_leaves_the_queue() {
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
