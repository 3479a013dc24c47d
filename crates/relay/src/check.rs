//! The machine's invariants, checked from its own tables: BOUND (nothing exceeds the board), NAME (nothing
//! names a row that is gone) and SUM as far as tables show it (a cursor stands where its sequence is).
//!
//! [`Relay::check_bounds`] looks at sizes and counts alone, some tens of comparisons, and the shell calls it after every
//! mutation, in a release too. [`Relay::check`] walks everything: tests and the simulation call it after each step. It
//! allocates. Both change nothing, and panic with what is wrong: each failure is a bug of the machine.

use super::{
    Relay, UNSUBSCRIBED_MAX,
    log::{Kind, Log},
    preview::previews_max,
    session::{Cursor, Half, Live, Stage, Subscription, UNPLACED},
    table::{NONE, Table},
    texts::Reason,
    time::Instant,
    topic::{LOGS, Topic},
};
use alloc::{vec, vec::Vec};
use wire::Track;

impl Relay {
    /// Checks every invariant between two mutations.
    ///
    /// # Panics
    /// Where one doesn't hold, with what is wrong.
    pub fn check(&self) {
        self.check_bounds();
        self.check_tables();
        self.check_sessions();
        self.check_ready();
        self.check_subscriptions();
        self.check_links();
        self.check_requests();
        self.check_topics();
        self.check_texts();
        self.check_counted();
        self.check_previews();
        self.check_arena();
        self.check_begun();
    }

    /// Checks what costs next to nothing: BOUND as far as sizes tell it, and that nothing under way is counted that can't be.
    ///
    /// # Panics
    /// Where one doesn't hold, with what is wrong.
    pub fn check_bounds(&self) {
        let board = &self.board;
        self.sessions.check_size("sessions", board.pages_max);
        self.subscriptions.check_size("subscriptions", board.subscriptions_max);
        self.topics.check_size("topics", board.topics_max);
        self.links.check_size("links", board.links_max);
        self.requests.check_size("requests", board.requests_max);
        self.previews.check_size("previews", previews_max(board));
        assert!(self.unanswered.count() <= board.requests_max as usize, "BOUND: too many requests remembered");
        assert!(self.denials.count() <= board.denials_max as usize, "BOUND: too many denied pages remembered");
        assert!(self.good_links.len() <= board.links_max as usize, "BOUND: too many links remembered as accepted");
        assert!(self.admitting.len() <= board.links_max as usize, "BOUND: more links admit than there are");
        self.store.begun.check_size(board.pages_max);
        assert!(self.store.free() <= board.blocks_max, "BOUND: the arena has more free blocks than blocks");
        assert_eq!(self.ready_first == NONE, self.ready_last == NONE, "the ready queue has one end only");
        assert!(
            !self.sessions.is_empty() || self.kernel_size == 0,
            "no page is left, and {} B in the kernel",
            self.kernel_size
        );
        assert!(self.reasons.len() <= board.reasons_max as usize, "BOUND: more reasons than the board allows");
        self.networks.check_size("networks", board.pages_max);
        self.origins.check_size("origins", board.pages_max);
        assert_eq!(self.addresses.len(), board.addresses_max as usize, "BOUND: the table of addresses has changed");
        assert!(self.numbers.len() <= board.topics_max as usize, "BOUND: more numbers than topics");
        assert!(self.dirty.len() <= board.topics_max as usize, "BOUND: more dirty topics than topics");
        assert!(self.unsubscribed.len() <= UNSUBSCRIBED_MAX, "BOUND: too many topics remembered as unsubscribed");
        self.uplink.check();
    }

    fn check_tables(&self) {
        let board = &self.board;
        self.sessions.check("sessions", board.pages_max);
        self.subscriptions.check("subscriptions", board.subscriptions_max);
        self.topics.check("topics", board.topics_max);
        self.links.check("links", board.links_max);
        self.requests.check("requests", board.requests_max);
        self.previews.check("previews", previews_max(board));
    }

    fn check_sessions(&self) {
        let mut chained = vec![false; self.subscriptions.end() as usize];
        let kernel_size: u64 = self.sessions.iter().map(|(_, session)| u64::from(session.kernel_size)).sum();
        assert_eq!(self.kernel_size, kernel_size, "the kernel's bytes are counted wrongly");
        for (page, session) in self.sessions.iter() {
            let (mut wanted, mut live) = (0_u16, 0_u16);
            let mut at = session.first;
            while at != NONE {
                let Some(row) = self.subscriptions.get(at) else {
                    panic!("NAME: page {page} has subscription {at}, which is gone")
                };
                assert_eq!(row.page, page, "NAME: subscription {at} is in page {page}'s chain and is another's");
                let seen = core::mem::replace(&mut chained[at as usize], true);
                assert!(!seen, "page {page}'s chain meets subscription {at} twice");
                wanted += u16::from(!matches!(row.stage, Stage::Over { .. }));
                live += u16::from(row.live().is_some());
                at = row.sibling;
            }
            assert_eq!(session.subscriptions, wanted, "page {page} counts its subscriptions wrongly");
            assert_eq!(session.live, live, "page {page} counts wrongly what it watches");
            assert!(live == 0 || session.has_watched, "page {page} watches and never did");
            let per_page = self.board.topics_per_page_max + 1;
            assert!(u32::from(wanted) < per_page, "BOUND: page {page} has {wanted} topics");
            if let Half::Notice { notice, sent } = session.half {
                let size = notice.encode(&self.reasons).len();
                assert!(0 < sent && usize::from(sent) < size, "page {page}'s half notice is none");
            }
        }
        for (at, _) in self.subscriptions.iter() {
            assert!(chained[at as usize], "subscription {at} is in no page's chain");
        }
    }

    fn check_ready(&self) {
        let mut queued = vec![false; self.sessions.end() as usize];
        let (mut at, mut last) = (self.ready_first, NONE);
        while at != NONE {
            let Some(session) = self.sessions.get(at) else {
                panic!("NAME: page {at} is in the ready queue and is gone")
            };
            assert_eq!(session.ready_previous, last, "page {at} is chained backwards to another");
            let seen = core::mem::replace(&mut queued[at as usize], true);
            assert!(!seen, "page {at} is in the ready queue twice");
            (last, at) = (at, session.ready_next);
        }
        assert_eq!(self.ready_last, last, "the ready queue ends elsewhere");
        for (page, session) in self.sessions.iter() {
            assert_eq!(session.queued, queued[page as usize], "page {page} is wrong about being in the ready queue");
        }
    }

    fn check_subscriptions(&self) {
        let mut waiting = vec![NONE; self.subscriptions.end() as usize];
        for (link, row) in self.links.iter() {
            let ring = ring(&self.subscriptions, row.waiting);
            assert_eq!(ring.len(), row.waiting_count as usize, "link {link} counts its waiting pages wrongly");
            for at in ring {
                waiting[at as usize] = link;
            }
        }
        let mut live = vec![NONE; self.subscriptions.end() as usize];
        for (topic, row) in self.topics.iter() {
            let ring = ring(&self.subscriptions, row.walk);
            assert_eq!(ring.len(), row.pages as usize, "topic {topic} counts its pages wrongly");
            for at in ring {
                live[at as usize] = topic;
            }
        }
        for (at, row) in self.subscriptions.iter() {
            let (in_link, in_topic) = (waiting[at as usize], live[at as usize]);
            let asked = self.requests.iter().filter(|(_, request)| request.asker == at).count();
            match &row.stage {
                Stage::Waiting { asked: is_asked, .. } => {
                    assert!(row.link != NONE && in_link == row.link, "subscription {at} waits in another ring");
                    assert_eq!(in_topic, NONE, "waiting subscription {at} is in a topic's ring");
                    assert_eq!(asked, usize::from(*is_asked), "waiting subscription {at} is wrong about its request");
                }
                Stage::Live(live) => {
                    assert_eq!(in_link, NONE, "live subscription {at} is in a link's ring");
                    assert_eq!(in_topic, live.topic, "live subscription {at} is in another topic's ring");
                    let Some(link) = self.links.get(row.link) else {
                        panic!("NAME: subscription {at} was made with link {}, which is gone", row.link)
                    };
                    assert_eq!(link.topic, live.topic, "subscription {at}'s link leads elsewhere");
                    assert_eq!(asked, usize::from(live.asked), "live subscription {at} is wrong about its request");
                    assert!(live.own || !live.ask_again, "subscription {at} of a shared grant is asked for by itself");
                    assert!(!(live.unconfirmed && live.behind_epoch), "subscription {at} is behind before it began");
                    self.check_cursors(at, live);
                }
                Stage::Over { .. } => {
                    assert_eq!((in_link, in_topic, asked), (NONE, NONE, 0), "subscription {at} is over and in a list");
                    assert_eq!(row.link, NONE, "subscription {at} is over and has a link");
                }
            }
        }
    }

    fn check_cursors(&self, at: u32, live: &Live) {
        let topic = &self.topics[live.topic];
        for track in Track::ALL {
            let (log, cursor) = (topic.log(track), live.cursors[track.index()]);
            let name = track.name();
            if !cursor.is_placed() {
                let owes_init = cursor.at != UNPLACED;
                assert_eq!(owes_init, track.is_media() && owes_init, "subscription {at} is owed an init of {name}");
            } else {
                assert!(cursor.at <= log.end(), "subscription {at}'s {name} cursor is beyond the log");
                if cursor.at >= log.start() && !(live.behind_epoch && track != Track::Messages) {
                    self.check_place(at, log, cursor, live.behind_epoch, track);
                }
            }
            let is_free = live.claimed || live.behind_epoch || log.told() == 0;
            assert!(
                is_free || cursor.sequence <= log.told(),
                "SUM: subscription {at}'s {name} cursor is at {} and the track at {}",
                cursor.sequence,
                log.told()
            );
        }
    }

    /// A cursor in its log stands before the entry whose sequence it expects, or behind the newest.
    fn check_place(&self, at: u32, log: &Log, cursor: Cursor, behind_epoch: bool, track: Track) {
        let name = track.name();
        let Some(number) = log.number_at(&self.store, cursor.at) else {
            // Without a counter nothing was told: the epoch's first could not be shown.
            let has_none = cursor.sequence == 0 && (track.is_media() || log.base() == log.told());
            let is_free = track == Track::State || has_none;
            let told = if is_free { cursor.sequence } else { log.told() };
            assert!(!behind_epoch, "subscription {at} is behind the epoch and beyond its marker");
            assert_eq!(cursor.sequence, told, "SUM: subscription {at} is at the end of {name} by its place alone");
            return;
        };
        let Some(entry) = log.entry(&self.store, number) else { panic!("entry {number} of {name} is not held") };
        if track == Track::State {
            // A state's place is the log's end as it was.
            return;
        }
        assert_eq!(entry.at, cursor.at, "subscription {at}'s {name} cursor is inside a frame");
        if behind_epoch {
            assert!(number <= log.epoch_first(), "subscription {at} is behind the epoch and beyond its marker");
        }
        if cursor.sequence != 0 && entry.kind != Kind::Epoch {
            assert_eq!(
                entry.sequence, cursor.sequence,
                "SUM: subscription {at}'s {name} cursor stands before another sequence"
            );
        }
        if cursor.sequence == 0 && entry.kind != Kind::Epoch && !behind_epoch && !track.is_media() {
            assert_eq!(
                entry.sequence,
                log.base(),
                "SUM: subscription {at} has no counter and passed the base of {name}"
            );
        }
    }

    fn check_links(&self) {
        assert_eq!(self.link_hashes.len(), self.links.len() as usize, "links are indexed wrongly");
        assert!(self.link_hashes.is_sorted(), "the index of links is out of order");
        for (link, row) in self.links.iter() {
            assert_eq!(row.hash, self.hash_of(&row.name), "link {link} has another's hash");
            assert_eq!(self.find_link(&row.name), Some(link), "link {link} is there twice");
            let of = |wanted: fn(&Live) -> bool| {
                let live = self.subscriptions.iter().filter(|(_, sub)| sub.link == link);
                live.filter(|(_, sub)| sub.live().is_some_and(wanted)).count()
            };
            assert_eq!(row.live_count as usize, of(|_| true), "link {link} counts its live pages wrongly");
            let again = of(|live| live.ask_again);
            assert_eq!(row.ask_again_count as usize, again, "link {link} counts wrongly who is to be asked for again");
            let own =
                self.requests.iter().filter(|(_, request)| request.link == link && request.page.is_some()).count();
            assert_eq!(row.holds as usize, own, "link {link} is held by others than its pages' requests");
            let whole = self.requests.iter().find(|(_, request)| request.link == link && request.page.is_none());
            assert_eq!(row.request, whole.map_or(NONE, |(index, _)| index), "link {link} names another request");
            let whole =
                self.requests.iter().filter(|(_, request)| request.link == link && request.page.is_none()).count();
            assert!(whole <= 1, "link {link} was asked for as a whole {whole} times");
            if let Some(trial) = row.on_trial {
                let is_asked = self.requests.iter().any(|(_, request)| request.number == trial.request);
                assert!(is_asked, "link {link} is on trial and its request is gone");
            }
            let is_asked = row.request != NONE || row.ask_again || row.holds > 0;
            let is_settled = row.renew_at != Instant::NEVER || is_asked;
            assert!(
                !row.is_renewed() || !self.is_up() || is_settled || self.first_live(link) == NONE,
                "link {link}'s shared grant has pages and no renewal is planned or under way"
            );
            if row.topic == NONE {
                assert_eq!(row.live_count, 0, "link {link} has pages and no topic");
            } else {
                let topic = self.topics.get(row.topic);
                assert!(topic.is_some(), "NAME: link {link} leads to a topic that is gone");
            }
        }
    }

    fn check_requests(&self) {
        for (index, request) in self.requests.iter() {
            let is_void = request.link == NONE && request.asker == NONE;
            assert!(
                is_void || self.links.get(request.link).is_some(),
                "NAME: request {index} is for a link that is gone"
            );
            let same = self.requests.iter().filter(|(_, other)| other.number == request.number).count();
            assert_eq!(same, 1, "request number {} is under way twice", request.number);
            if request.asker != NONE {
                let asker = self.subscriptions.get(request.asker);
                let link = asker.map(|row| row.link);
                assert_eq!(link, Some(request.link), "NAME: request {index} asks for a subscription of another link");
            }
        }
        assert!(self.is_up() || self.requests.is_empty(), "requests are under way without an uplink");
    }

    fn check_topics(&self) {
        assert!(self.numbers.is_sorted_by(|a, b| a.0 < b.0), "the topics' numbers are not sorted");
        for &(number, topic) in &self.numbers {
            let row = self.topics.get(topic);
            assert!(row.is_some_and(|row| row.number == number), "NAME: number {number} is no topic's");
        }
        for (topic, row) in self.topics.iter() {
            let known = self.numbers.iter().any(|&(_, index)| index == topic);
            assert!(known, "topic {topic} is known by no number");
            assert_eq!(row.walk == NONE, row.pages == 0, "topic {topic} has pages and no ring, or a ring and none");
            assert!(row.walk_left <= row.pages, "topic {topic}'s walk is longer than its ring");
            let dirty = self.dirty.iter().filter(|&&dirty| dirty == topic).count();
            assert!(dirty <= 1, "topic {topic} is dirty twice");
            assert!(row.walk_left == 0 || dirty == 1, "topic {topic}'s walk is forgotten");
            let lingers = row.forget_at != Instant::NEVER;
            assert_eq!(row.pages == 0, lingers, "topic {topic} lingers with pages, or is never forgotten");
            row.check(&self.store);
        }
        for &topic in &self.dirty {
            assert!(self.topics.get(topic).is_some(), "NAME: dirty topic {topic} is gone");
        }
    }

    fn check_texts(&self) {
        let mut reasons = Vec::new();
        let mut note = |reason: Reason| {
            if let Reason::Told(id) = reason {
                reasons.push(id);
            }
        };
        for (_, session) in self.sessions.iter() {
            session.closing.iter().for_each(|close| note(close.reason));
            if let Half::Notice { notice, .. } = session.half {
                notice.reason().into_iter().for_each(&mut note);
            }
        }
        for (_, row) in self.subscriptions.iter() {
            let Stage::Over { reason, .. } = row.stage else { continue };
            note(reason);
        }
        for (_, link) in self.links.iter() {
            link.denied.iter().for_each(|denied| note(denied.reason));
            link.on_trial.iter().for_each(|trial| note(trial.reason));
        }
        self.denials.reasons().for_each(note);
        for (id, uses) in self.reasons.uses() {
            let count = reasons.iter().filter(|&&other| other == id).count();
            assert_eq!(uses as usize, count, "reason {:?} counts its uses wrongly", self.reasons.text(id));
        }
    }

    fn check_arena(&self) {
        let mut owners = vec![None; self.board.blocks_max as usize];
        self.store.check(&mut owners);
        let mut guaranteed = 0;
        for (topic, row) in self.topics.iter() {
            for log in 0..LOGS {
                row.logs[log].check(&self.store, &mut owners, (topic, log));
            }
            guaranteed += row.guaranteed_blocks(&self.store);
        }
        let held: u32 = self.topics.iter().flat_map(|(_, row)| &row.logs).map(|log| log.blocks(&self.store)).sum();
        assert_eq!(self.store.free() + held, self.board.blocks_max, "BOUND: blocks were lost, or are in two places");
        assert!(
            u64::from(self.store.free() + guaranteed) >= self.board.guaranteed_blocks(),
            "BOUND: media took blocks that state and messages are guaranteed"
        );
    }

    /// What pages stand inside is in its ring or in the reserve, whole and between its frame's ends.
    fn check_begun(&self) {
        let pages = self.sessions.iter().filter_map(|(_, session)| match session.half {
            Half::Frame { frame, at } => Some((frame, at)),
            Half::None | Half::Notice { .. } => None,
        });
        let logs =
            self.topics.iter().flat_map(|(topic, row)| (0..).zip(&row.logs).map(move |(at, log)| (topic, at, log)));
        let rings: Vec<_> = logs.map(|(topic, at, log)| ((topic, at), log.begun(), log.start()..log.end())).collect();
        self.store.begun.check(&pages.collect::<Vec<_>>(), &rings);
    }
}

impl Topic {
    /// Checks what the topic knows of its logs.
    fn check(&self, store: &super::log::Store) {
        let number = self.number;
        for track in Track::ALL {
            let (log, next, name) = (self.log(track), self.next[track.index()], track.name());
            assert!(log.told() <= next, "topic {number}: {name} told more than was published");
            if track == Track::Messages {
                assert_eq!(log.told(), next, "topic {number}: {name} did not tell everything at once");
            }
            log.check_entries(store, track, number);
            if track.is_media()
                && let Some(group) = self.group(store, track)
            {
                let entry = log.entry(store, group.number);
                let is_start = entry.is_some_and(|entry| {
                    (entry.kind, entry.at, entry.sequence) == (Kind::Start, group.at, group.sequence)
                });
                assert!(is_start, "topic {number}: {name}'s newest group does not begin where it says");
                assert!(group.init < group.sequence, "topic {number}: {name}'s group came before its init");
            }
        }
    }
}

impl Log {
    /// Checks that the entries stand behind each other and that those of one epoch cover their sequences.
    fn check_entries(&self, store: &super::log::Store, track: Track, topic: u32) {
        let name = track.name();
        let mut before = None::<super::log::Entry>;
        for number in self.current() {
            let Some(entry) = self.entry(store, number) else { panic!("topic {topic}: entry {number} is not held") };
            if let Some(before) = before {
                assert!(before.at < entry.at, "topic {topic}: {name}'s entries overlap");
                let follows = match (before.kind, track) {
                    (Kind::Epoch, _) => entry.sequence == self.base() || entry.kind == Kind::Epoch,
                    // An init may be a repeated one: before the first group its hole is not told.
                    (Kind::Gap | Kind::Init, _) | (_, Track::State) => entry.sequence > before.sequence,
                    _ => entry.sequence == before.sequence + 1,
                };
                assert!(follows, "SUM: topic {topic}: {name} goes from {before:?} to {entry:?}");
            }
            before = Some(entry);
        }
        match before {
            Some(newest) if matches!(newest.kind, Kind::Gap) => assert!(newest.sequence < self.told()),
            Some(newest) if newest.kind != Kind::Epoch => {
                assert_eq!(newest.sequence + 1, self.told(), "SUM: topic {topic}: {name} told more than it holds");
            }
            _ => {}
        }
    }
}

/// The ring that `head` points into, from there.
fn ring(subscriptions: &Table<Subscription>, head: u32) -> Vec<u32> {
    let mut seen = Vec::new();
    let mut at = head;
    while at != NONE {
        assert!(seen.len() < subscriptions.len() as usize, "a ring never comes back to its head {head}");
        seen.push(at);
        let Some(row) = subscriptions.get(at) else { panic!("NAME: subscription {at} is in a ring and is gone") };
        let Some(next) = subscriptions.get(row.next) else { panic!("NAME: subscription {at} points at nothing") };
        assert_eq!(next.previous, at, "the ring is broken between {at} and {}", row.next);
        at = if row.next == head { NONE } else { row.next };
    }
    seen
}
