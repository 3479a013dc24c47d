//! Subscriptions: pages' interest in links, and their places in topics.
//!
//! Owns their table, the lists that they are in (a page's chain, a link's waiting ring, a topic's
//! ring), their stages, and every count that follows from a stage: of a page ([`Chain`]) and of a
//! link ([`Watching`]). A stage changes only here, together with its list and its counts. Doesn't
//! know why it changes: that is `admission.rs`.

use super::{
    position::Cursor,
    ring::{InRing, Ring, RingLink, Walk},
    table::{NONE, Table},
    texts::Reason,
    time::{Instant, Stamp},
    waiting::Waiting,
    walks::Viewers,
};

/// One page's interest in one link.
#[derive(Debug)]
pub struct Subscription {
    page: u32,
    link: u32,
    id: u32,
    /// The page's next subscription.
    sibling: u32,
    ring: RingLink,
    stage: Stage,
}

impl Subscription {
    /// The page's row.
    #[must_use]
    pub const fn page(&self) -> u32 {
        self.page
    }

    /// The link's row; [`NONE`] before it waits and once it is over.
    #[must_use]
    pub const fn link(&self) -> u32 {
        self.link
    }

    /// The page's own number for its `subscribe`.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Its stage.
    #[must_use]
    pub const fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Whether it waits.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting { .. })
    }

    /// Its state as a live subscription, if it is live.
    #[must_use]
    pub const fn live(&self) -> Option<&Live> {
        match &self.stage {
            Stage::Live(live) => Some(live),
            _ => None,
        }
    }

    /// Whether a request that names it is in flight.
    #[must_use]
    pub const fn is_asked(&self) -> bool {
        match &self.stage {
            Stage::Waiting { asked, .. } => *asked,
            Stage::Live(live) => live.asked,
            Stage::Over { .. } => false,
        }
    }
}

impl InRing for Subscription {
    fn ring(&self) -> &RingLink {
        &self.ring
    }

    fn ring_mut(&mut self) -> &mut RingLink {
        &mut self.ring
    }
}

/// The stages of a subscription.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// It waits for the business server's answer.
    Waiting {
        /// A request that names it is in flight.
        asked: bool,
        /// Since when.
        from: Stamp,
        /// The page's `since`: the epoch and the next message; 0 for a late page.
        since: (u64, u64),
        /// Its ticket among those that wait for the link: they increase in the order of arrival.
        ticket: u32,
    },
    /// It is served.
    Live(Live),
    /// It is over, and the page must still be notified.
    Over {
        /// The topic's number; `None` if the page never had the topic: then the notice is `denied`.
        topic: Option<u32>,
        /// The reason.
        reason: Reason,
        /// When it makes sense to ask again, in milliseconds.
        retry_ms: Option<u32>,
    },
}

/// A live subscription.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    topic: u32,
    /// Its place in each track.
    pub cursors: [Cursor; 4],
    /// `subscribed` is still to be sent.
    pub unconfirmed: bool,
    /// Its messages cursor is in the epoch before the topic's current one.
    pub behind_epoch: bool,
    /// Admitted by a grant that is not shared.
    pub own: bool,
    /// Its place in `messages` comes from the page's `since` alone, and the topic has not reached
    /// it yet.
    pub claimed: bool,
    ask_again: bool,
    asked: bool,
}

impl Live {
    /// A subscription that was just granted.
    #[must_use]
    pub const fn new(topic: u32, cursors: [Cursor; 4], own: bool, claimed: bool) -> Self {
        let (behind_epoch, ask_again, asked) = (false, false, false);
        Self { topic, cursors, unconfirmed: true, behind_epoch, own, claimed, ask_again, asked }
    }

    /// The topic's row.
    #[must_use]
    pub const fn topic(&self) -> u32 {
        self.topic
    }

    /// Whether it must be requested again in its page's name, since the uplink was lost.
    #[must_use]
    pub const fn asks_again(&self) -> bool {
        self.ask_again
    }

    /// Whether a request that names it is in flight.
    #[must_use]
    pub const fn is_asked(&self) -> bool {
        self.asked
    }

    /// Sets whether it must be requested again in its page's name. `watching` is that of its link.
    pub fn set_ask_again(&mut self, watching: &mut Watching, ask_again: bool) {
        let before = core::mem::replace(&mut self.ask_again, ask_again);
        watching.ask_again = watching.ask_again - u32::from(before) + u32::from(ask_again);
    }
}

/// A page's subscriptions, oldest first, with the counts that follow from them.
#[derive(Debug)]
pub struct Chain {
    first: u32,
    wanted: u16,
    live: u16,
    unsubscribed: Stamp,
    has_watched: bool,
    may_return: bool,
}

impl Chain {
    /// The chain of a page that has just connected.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { first: NONE, wanted: 0, live: 0, unsubscribed: now.stamp(), has_watched: false, may_return: false }
    }

    /// The first of its subscriptions; [`NONE`] if there is none.
    #[must_use]
    pub const fn first(&self) -> u32 {
        self.first
    }

    /// The number of subscriptions that wait or are live.
    #[must_use]
    pub const fn wanted(&self) -> u16 {
        self.wanted
    }

    /// The number of live subscriptions.
    #[must_use]
    pub const fn live(&self) -> u16 {
        self.live
    }

    /// Milliseconds without a live subscription; valid only while there is none.
    #[must_use]
    pub const fn unsubscribed_ms(&self, now: Instant) -> u64 {
        self.unsubscribed.age_ms(now)
    }

    /// Whether it ever had a live subscription.
    #[must_use]
    pub const fn has_watched(&self) -> bool {
        self.has_watched
    }

    /// Whether it got a denial with a retry since it last had a live subscription.
    #[must_use]
    pub const fn may_return(&self) -> bool {
        self.may_return
    }

    /// A `subscribe` of the page found the table full: it is denied with a retry.
    pub const fn refuse(&mut self) {
        self.may_return = true;
    }
}

/// Counts of the live subscriptions made with a link.
#[derive(Debug)]
pub struct Watching {
    live: u32,
    ask_again: u32,
}

impl Watching {
    /// None.
    pub const NOBODY: Self = Self { live: 0, ask_again: 0 };

    /// The number of live subscriptions.
    #[must_use]
    pub const fn live(&self) -> u32 {
        self.live
    }

    /// How many of them must be requested again, each in its page's name.
    #[must_use]
    pub const fn ask_again(&self) -> u32 {
        self.ask_again
    }
}

/// The table of subscriptions.
#[derive(Debug)]
pub struct Subscriptions {
    rows: Table<Subscription>,
}

/// The rows, to read. Rows come and go only by the methods here.
impl core::ops::Deref for Subscriptions {
    type Target = Table<Subscription>;

    fn deref(&self) -> &Table<Subscription> {
        &self.rows
    }
}

impl Subscriptions {
    /// An empty table for `subscriptions_max` subscriptions.
    #[must_use]
    pub fn new(subscriptions_max: u32) -> Self {
        Self { rows: Table::new(subscriptions_max) }
    }

    /// The subscription at an index as a live one, if it is live, mutably.
    #[must_use]
    pub fn live_mut(&mut self, index: u32) -> Option<&mut Live> {
        match &mut self.rows.get_mut(index)?.stage {
            Stage::Live(live) => Some(live),
            _ => None,
        }
    }

    /// A page's subscriptions, oldest first.
    pub fn of(&self, chain: &Chain) -> impl Iterator<Item = (u32, &Subscription)> {
        let mut at = chain.first;
        core::iter::from_fn(move || {
            let row = self.rows.get(at)?;
            Some((core::mem::replace(&mut at, row.sibling), row))
        })
    }

    /// A page's subscription if it has exactly one.
    #[must_use]
    pub fn only(&self, chain: &Chain) -> Option<&Subscription> {
        self.rows.get(chain.first).filter(|row| row.sibling == NONE)
    }

    /// The page's subscription after this one; [`NONE`] if it is the last.
    #[must_use]
    pub fn next_of_page(&self, index: u32) -> u32 {
        self.rows[index].sibling
    }

    /// The next subscription of a walk around a ring.
    pub fn next(&self, walk: &mut Walk) -> Option<u32> {
        walk.next(&self.rows)
    }

    /// The last subscription of a ring.
    #[must_use]
    pub fn last(&self, ring: &Ring) -> Option<&Subscription> {
        self.rows.get(ring.last(&self.rows))
    }

    /// Adds a subscription for a page; `None` if there is no room. `since` is the epoch and the
    /// next message, 0 if not given.
    pub fn insert(&mut self, chain: &mut Chain, now: Instant, page: u32, id: u32, since: (u64, u64)) -> Option<u32> {
        let stage = Stage::Waiting { asked: false, from: now.stamp(), since, ticket: 0 };
        let row = Subscription { page, link: NONE, id, sibling: NONE, ring: RingLink::NONE, stage };
        let index = self.rows.insert(row).ok()?;
        chain.wanted += 1;
        match self.of(chain).last() {
            Some((last, _)) => self.rows[last].sibling = index,
            None => chain.first = index,
        }
        Some(index)
    }

    /// Makes a subscription that was just inserted wait for a link.
    pub fn wait(&mut self, index: u32, link: u32, waiting: &mut Waiting) {
        let place = waiting.join(&mut self.rows, index);
        let row = &mut self.rows[index];
        row.link = link;
        if let Stage::Waiting { ticket, .. } = &mut row.stage {
            *ticket = place;
        }
    }

    /// Admits a waiting subscription. The lists are those of its page, its link and the topic.
    pub fn admit(
        &mut self,
        index: u32,
        live: Live,
        chain: &mut Chain,
        (waiting, watching): (&mut Waiting, &mut Watching),
        viewers: &mut Viewers,
    ) {
        waiting.leave(&mut self.rows, index);
        viewers.join(&mut self.rows, index);
        self.rows[index].stage = Stage::Live(live);
        watching.live += 1;
        chain.live += 1;
        chain.has_watched = true;
        chain.may_return = false;
    }

    /// Ends a waiting subscription. `waiting` is that of its link, `None` if it never waited for
    /// one. `over` is what its page is sent.
    pub fn deny(&mut self, index: u32, over: Stage, chain: &mut Chain, waiting: Option<&mut Waiting>) {
        if let Some(waiting) = waiting {
            waiting.leave(&mut self.rows, index);
        }
        self.finish(index, over, chain);
    }

    /// Ends a live subscription. The lists are those of its page, its link and its topic. `over` is
    /// what its page is sent.
    pub fn end(
        &mut self,
        now: Instant,
        index: u32,
        over: Stage,
        chain: &mut Chain,
        watching: &mut Watching,
        viewers: &mut Viewers,
    ) {
        viewers.leave(&mut self.rows, index);
        if let Some(live) = self.live_mut(index) {
            live.set_ask_again(watching, false);
        }
        watching.live -= 1;
        chain.live -= 1;
        chain.unsubscribed = now.stamp();
        self.finish(index, over, chain);
    }

    fn finish(&mut self, index: u32, over: Stage, chain: &mut Chain) {
        chain.wanted -= 1;
        if let Stage::Over { topic: None, retry_ms, .. } = over {
            chain.may_return |= retry_ms.is_some();
        }
        let row = &mut self.rows[index];
        row.link = NONE;
        row.stage = over;
    }

    /// Frees the row of a subscription that is over.
    pub fn remove(&mut self, index: u32, chain: &mut Chain) {
        let sibling = self.rows[index].sibling;
        if chain.first == index {
            chain.first = sibling;
        } else {
            let before = self.of(chain).find(|(_, row)| row.sibling == index).map(|(before, _)| before);
            if let Some(before) = before.and_then(|before| self.rows.get_mut(before)) {
                before.sibling = sibling;
            }
        }
        self.rows.remove(index);
    }

    /// Sets whether a request that names it is in flight.
    pub fn set_asked(&mut self, index: u32, now_asked: bool) {
        match self.rows.get_mut(index).map(|row| &mut row.stage) {
            Some(Stage::Waiting { asked, .. }) => *asked = now_asked,
            Some(Stage::Live(live)) => live.asked = now_asked,
            _ => {}
        }
    }
}

impl core::ops::Index<u32> for Subscriptions {
    type Output = Subscription;

    fn index(&self, index: u32) -> &Subscription {
        &self.rows[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_pages_and_links_follow_from_the_stages() {
        let now = Instant(1_000);
        let mut subscriptions = Subscriptions::new(3);
        let mut chain = Chain::new(now);
        let (mut waiting, mut watching, mut viewers) = (Waiting::NOBODY, Watching::NOBODY, Viewers::default());
        let rows: Vec<_> = (0..3).map(|id| subscriptions.insert(&mut chain, now, 7, id, (0, 0)).unwrap()).collect();
        assert_eq!(subscriptions.insert(&mut chain, now, 7, 3, (0, 0)), None);
        for row in &rows[..2] {
            subscriptions.wait(*row, 5, &mut waiting);
        }
        let live = Live::new(0, [Cursor::UNSET; 4], true, false);
        subscriptions.admit(rows[0], live, &mut chain, (&mut waiting, &mut watching), &mut viewers);
        assert_eq!(
            (chain.wanted(), chain.live(), waiting.ring().len(), watching.live(), viewers.len()),
            (3, 1, 1, 1, 1)
        );
        subscriptions.live_mut(rows[0]).unwrap().set_ask_again(&mut watching, true);
        assert_eq!(watching.ask_again(), 1);
        let denied = |reason, retry_ms| Stage::Over { topic: None, reason: Reason::Own(reason), retry_ms };
        subscriptions.deny(rows[2], denied("no", None), &mut chain, None);
        subscriptions.deny(rows[1], denied("later", Some(5)), &mut chain, Some(&mut waiting));
        let over = Stage::Over { topic: Some(1), reason: Reason::Own("over"), retry_ms: None };
        subscriptions.end(now, rows[0], over, &mut chain, &mut watching, &mut viewers);
        assert_eq!((chain.wanted(), chain.live(), watching.live(), watching.ask_again()), (0, 0, 0, 0));
        assert!(chain.may_return() && chain.has_watched() && viewers.is_empty() && waiting.ring().is_empty());
        assert_eq!(subscriptions.of(&chain).map(|(_, row)| row.id()).collect::<Vec<_>>(), [0, 1, 2]);
        for row in [rows[1], rows[0], rows[2]] {
            subscriptions.remove(row, &mut chain);
        }
        assert_eq!((chain.first(), subscriptions.len()), (NONE, 0));
    }
}
