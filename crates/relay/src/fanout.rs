//! Who is to be served next: the queue of ready pages, and the walks over topics that have news.
//!
//! A page that has something of its own to be told stands in the ready queue, once. A topic that was
//! published to is walked: its ring of subscriptions is followed from where the last walk ended, and
//! each page gets everything that has gathered, on all of its tracks. A blocked page is passed by: its
//! socket will say when it can be written to. Walks of several topics take turns.

use heapless::Vec;

use super::{
    Relay,
    session::{Pace, Session, Stage},
    table::{Id, NONE},
    time::Instant,
};

/// Pages of one topic's walk before the next topic's has its turn.
const WALK_TURN: u32 = 64;
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
        let most = self.pages_before_full().clamp(TURN_MIN.min(N), N);
        while into.len() < most
            && let Some(page) = self.pop_ready()
        {
            into.extend(self.sessions.id(page));
        }
        let ready = into.len();
        while into.len() < most
            && let Some(&row) = self.dirty.front()
        {
            if self.walk(row, most, into) {
                self.dirty.pop_front();
                self.walk_turn = WALK_TURN;
            } else if self.walk_turn == 0 {
                self.dirty.rotate_left(1);
                self.walk_turn = WALK_TURN;
            }
        }
        ready
    }

    /// Goes on with a topic's walk; whether it is done.
    fn walk<const N: usize>(&mut self, row: u32, most: usize, into: &mut Vec<Id<Session>, N>) -> bool {
        let topic = &mut self.topics[row];
        while topic.walk_left > 0 && topic.walk != NONE {
            if self.walk_turn == 0 || into.len() >= most {
                return false;
            }
            let subscription = &self.subscriptions[topic.walk];
            topic.walk = subscription.next;
            topic.walk_left -= 1;
            self.walk_turn -= 1;
            let session = &self.sessions[subscription.page];
            if !session.blocked && session.closing.is_none() {
                into.extend(self.sessions.id(subscription.page));
            }
        }
        // The next walk begins with somebody else: nobody is always last.
        if topic.walk != NONE {
            topic.walk = self.subscriptions[topic.walk].next;
        }
        topic.walk_left = 0;
        true
    }

    /// Whether [`poll_page`](Self::poll_page) may have somebody, now or once
    /// [`admit_more`](Self::admit_more) has gone on.
    #[must_use]
    pub fn has_pages_to_serve(&self) -> bool {
        self.ready_first != NONE || !self.dirty.is_empty() || !self.admitting.is_empty()
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
            self.count_unread(page);
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

    pub(super) fn push_ready(&mut self, page: u32) {
        let session = &mut self.sessions[page];
        if core::mem::replace(&mut session.queued, true) {
            return;
        }
        session.ready_next = NONE;
        session.ready_previous = core::mem::replace(&mut self.ready_last, page);
        match session.ready_previous {
            NONE => self.ready_first = page,
            last => self.sessions[last].ready_next = page,
        }
    }

    fn pop_ready(&mut self) -> Option<u32> {
        while self.ready_first != NONE {
            let page = self.ready_first;
            self.leave_ready(page);
            let session = &self.sessions[page];
            if !session.blocked || session.cut || session.closing.is_some() {
                return Some(page);
            }
        }
        None
    }

    /// A session leaves the ready queue: it is served, or it goes away.
    pub(super) fn leave_ready(&mut self, page: u32) {
        let session = &mut self.sessions[page];
        if !core::mem::replace(&mut session.queued, false) {
            return;
        }
        let (previous, next) = (session.ready_previous, session.ready_next);
        match previous {
            NONE => self.ready_first = next,
            previous => self.sessions[previous].ready_next = next,
        }
        match next {
            NONE => self.ready_last = previous,
            next => self.sessions[next].ready_previous = previous,
        }
    }

    /// Every page of a topic has something to be sent.
    pub(super) fn mark_dirty(&mut self, topic: u32) {
        let row = &mut self.topics[topic];
        if row.pages == 0 {
            return;
        }
        if row.walk_left == 0 && !self.dirty.contains(&topic) {
            self.dirty.push_back(topic);
        }
        row.probe.walk_again(row.walk_left, row.pages);
        row.walk_left = row.pages;
    }

    /// A newcomer of the first message below the replay that was asked for shows that the pages' claims
    /// were beyond the topic's counter: they count as none.
    pub(super) fn void_claims(&mut self, topic: u32, replay_from: u64) {
        let mut subscription = self.topics[topic].walk;
        for _ in 0..self.topics[topic].pages {
            let row = &mut self.subscriptions[subscription];
            subscription = row.next;
            if let Stage::Live(live) = &mut row.stage
                && live.claimed
                && live.cursors[1].sequence >= replay_from
            {
                live.claimed = false;
                live.cursors[1] = super::session::Cursor { sequence: 0, at: super::session::UNPLACED };
            }
        }
    }

    /// Tells every page that has a subscription how the uplink is.
    pub(super) fn tell_uplink(&mut self) {
        for page in 0..self.sessions.end() {
            if self.sessions.get(page).is_some_and(|session| session.first != NONE) {
                self.push_ready(page);
            }
        }
    }

    /// A page that is too slow is closed.
    pub(super) fn close_slow(&mut self, now: Instant, page: u32) {
        let retry_ms = self.retry_ms();
        self.counters.closed_slow += 1;
        self.close_page(now, page, 1013, super::texts::Reason::Own(""), Some(retry_ms));
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
