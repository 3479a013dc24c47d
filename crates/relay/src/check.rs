//! Checks the machine's invariants from its own tables: BOUND (nothing exceeds the board), NAME
//! (nothing refers to a row that is gone) and SUM as far as the tables show it (a cursor is before
//! the entry with its sequence).
//!
//! [`Relay::check_bounds`] compares sizes and counts only, a few dozen comparisons; the shell calls
//! it after every mutation, in release builds too. [`Relay::check`] walks everything and allocates;
//! tests and the simulation call it after each step. Both change nothing and panic with what is
//! wrong: each failure is a bug of the machine.

use super::{
    Relay,
    log::{Kind, Log},
    position::{Cursor, UNPLACED},
    session::Half,
    subscription::{Live, Stage, Subscription},
    table::NONE,
    texts::Reason,
    time::Instant,
    topic::{LOGS, Topic},
};
use alloc::{vec, vec::Vec};
use wire::Track;

impl Relay {
    /// Checks every invariant. To be called between two mutations.
    ///
    /// # Panics
    /// If an invariant is violated, with what is wrong.
    pub fn check(&self) {
        self.check_bounds();
        self.sessions.check(&self.board);
        self.topics.check(self.board.topics_max);
        self.links.check(self.board.links_max);
        self.check_sessions();
        self.check_subscriptions();
        self.check_links();
        self.check_requests();
        self.check_topics();
        self.check_texts();
        self.check_arena();
        self.check_begun();
    }

    /// Checks what costs almost nothing: BOUND as far as sizes show it.
    ///
    /// # Panics
    /// If an invariant is violated, with what is wrong.
    pub fn check_bounds(&self) {
        let board = &self.board;
        self.sessions.check_size(board);
        self.subscriptions.check_size("subscriptions", board.subscriptions_max);
        self.topics.check_size(board.topics_max);
        self.links.check_size(board.links_max);
        self.requests.check_size("requests", board.requests_max);
        self.previews.check_size(board);
        assert!(self.unanswered.count() <= board.requests_max as usize, "BOUND: too many requests remembered");
        assert!(self.denials.count() <= board.denials_max as usize, "BOUND: too many denied pages remembered");
        self.store.begun.check_size(board.pages_max);
        assert!(self.store.free() <= board.blocks_max, "BOUND: the arena has more free blocks than blocks");
        assert!(self.reasons.len() <= board.reasons_max as usize, "BOUND: more reasons than the board allows");
        self.uplink.check();
    }

    fn check_sessions(&self) {
        let mut chained = 0;
        self.sessions.receipts().check(self.sessions.iter().map(|(_, session)| &session.receipts));
        for (page, session) in self.sessions.iter() {
            assert_eq!(self.sessions.by_number(session.number()), Some(page), "page {page} has another's number");
            let (mut wanted, mut live, mut last) = (0_u16, 0_u16, NONE);
            for (at, row) in self.subscriptions.of(&session.chain) {
                assert_eq!(row.page(), page, "NAME: subscription {at} is in page {page}'s chain and is another's");
                wanted += u16::from(!matches!(row.stage(), Stage::Over { .. }));
                live += u16::from(row.live().is_some());
                chained += 1;
                last = at;
                assert!(chained <= self.subscriptions.len(), "page {page}'s chain runs in a circle");
            }
            let chain = &session.chain;
            let behind = if last == NONE { chain.first() } else { self.subscriptions.next_of_page(last) };
            assert_eq!(behind, NONE, "NAME: page {page} has subscription {behind}, which is gone");
            assert_eq!((chain.wanted(), chain.live()), (wanted, live), "page {page} counts its subscriptions wrongly");
            let per_page = self.board.topics_per_page_max + 1;
            assert!(u32::from(wanted) < per_page, "BOUND: page {page} has {wanted} topics");
            if let Half::Notice { notice, sent, run } = session.half {
                let size = notice.encode(&self.reasons).len();
                let is_half = 0 < sent && (usize::from(sent) < size || run > 0 && usize::from(sent) == size);
                assert!(is_half && run <= sent, "page {page}'s half notice is complete or not begun");
            }
        }
        assert_eq!(chained, self.subscriptions.len(), "a subscription is in no page's chain");
    }

    fn check_subscriptions(&self) {
        let rows = &*self.subscriptions;
        rows.check("subscriptions", self.board.subscriptions_max);
        let mut waiting = vec![NONE; rows.end() as usize];
        for (link, row) in self.links.iter() {
            row.waiting.ring().check(rows).iter().for_each(|at| waiting[*at as usize] = link);
        }
        let mut live = vec![NONE; rows.end() as usize];
        for (topic, row) in self.topics.iter() {
            row.viewers.ring().check(rows).iter().for_each(|at| live[*at as usize] = topic);
        }
        for (at, row) in rows.iter() {
            let (in_link, in_topic) = (waiting[at as usize], live[at as usize]);
            let asked = self.requests.iter().filter(|(_, request)| request.asker == at).count();
            assert_eq!(asked, usize::from(row.is_asked()), "subscription {at}'s request flag is wrong");
            match row.stage() {
                Stage::Waiting { .. } => {
                    assert_ne!(row.link(), NONE, "subscription {at} waits for no link");
                    assert_eq!((in_link, in_topic), (row.link(), NONE), "subscription {at} waits in another ring");
                }
                Stage::Live(live) => {
                    assert_eq!((in_link, in_topic), (NONE, live.topic()), "subscription {at} is in another ring");
                    let Some(link) = self.links.get(row.link()) else {
                        panic!("NAME: subscription {at} was made with link {}, which is gone", row.link())
                    };
                    assert_eq!(link.topic(), live.topic(), "subscription {at}'s link leads to another topic");
                    assert!(
                        live.own || !live.asks_again(),
                        "subscription {at} of a shared grant is requested by itself"
                    );
                    assert!(!(live.unconfirmed && live.behind_epoch), "subscription {at} is behind before it began");
                    self.check_cursors(at, live);
                }
                Stage::Over { .. } => {
                    assert_eq!((in_link, in_topic), (NONE, NONE), "subscription {at} is over and in a ring");
                    assert_eq!(row.link(), NONE, "subscription {at} is over and has a link");
                }
            }
        }
    }

    fn check_cursors(&self, at: u32, live: &Live) {
        let topic = &self.topics[live.topic()];
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
            let is_free = live.claimed || live.behind_epoch || log.next_sequence() == 0;
            assert!(
                is_free || cursor.sequence <= log.next_sequence(),
                "SUM: subscription {at}'s {name} cursor is at {} and the track at {}",
                cursor.sequence,
                log.next_sequence()
            );
        }
    }

    /// Checks that a cursor within its log is before the entry with the sequence it expects, or at
    /// the log's end.
    fn check_place(&self, at: u32, log: &Log, cursor: Cursor, behind_epoch: bool, track: Track) {
        let name = track.name();
        let Some(number) = log.number_at(&self.store, cursor.at) else {
            // Without a counter the page has been sent nothing: the epoch's first entry could not
            // be sent.
            let has_none = cursor.sequence == 0 && (track.is_media() || log.base() == log.next_sequence());
            let is_free = track == Track::State || has_none;
            let expected = if is_free { cursor.sequence } else { log.next_sequence() };
            assert!(!behind_epoch, "subscription {at} is behind the epoch and beyond its marker");
            assert_eq!(
                cursor.sequence, expected,
                "SUM: subscription {at} is at the end of {name} by its offset but not by its sequence"
            );
            return;
        };
        let Some(entry) = log.entry(&self.store, number) else { panic!("entry {number} of {name} is not held") };
        if track == Track::State {
            // A state cursor's offset is the log's end at the time it was set, not an entry.
            return;
        }
        assert_eq!(entry.at, cursor.at, "subscription {at}'s {name} cursor is inside a frame");
        if behind_epoch {
            assert!(number <= log.epoch_first(), "subscription {at} is behind the epoch and beyond its marker");
        }
        if cursor.sequence != 0 && entry.kind != Kind::Epoch {
            assert_eq!(
                entry.sequence, cursor.sequence,
                "SUM: subscription {at}'s {name} cursor is before another sequence"
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
        for (link, row) in self.links.iter() {
            self.requests.check(link, &row.asked);
            self.previews.check(link, &row.previewers);
            let watching = self.subscriptions.iter().filter(|(_, subscription)| subscription.link() == link);
            let watching = watching.filter_map(|(_, subscription)| subscription.live());
            let (live, again) =
                watching.fold((0, 0), |(live, again), row| (live + 1, again + u32::from(row.asks_again())));
            let counted = (row.watching.live(), row.watching.ask_again());
            assert_eq!(counted, (live, again), "link {link} counts its live pages wrongly");
            if let Some(trial) = row.on_trial() {
                let is_asked = self.requests.iter().any(|(_, request)| request.number == trial);
                assert!(is_asked, "link {link} is on trial and its request is gone");
            }
            let is_asked = row.asked.is_whole() || row.asks_again() || row.asked.is_held();
            let is_covered = row.renew_at() != Instant::NEVER || is_asked;
            assert!(
                !row.is_renewed() || !self.is_up() || is_covered || self.first_live(link) == NONE,
                "link {link}'s shared grant has pages and no renewal is planned or under way"
            );
            if row.topic() == NONE {
                assert_eq!(row.watching.live(), 0, "link {link} has pages and no topic");
            } else {
                let topic = self.topics.get(row.topic());
                assert!(topic.is_some(), "NAME: link {link} leads to a topic that is gone");
            }
        }
    }

    fn check_requests(&self) {
        let rows = &*self.requests;
        rows.check("requests", self.board.requests_max);
        for (index, request) in rows.iter() {
            let same = rows.iter().filter(|(_, other)| other.number == request.number).count();
            assert_eq!(same, 1, "request number {} is under way twice", request.number);
            let is_void = request.link == NONE && request.asker == NONE;
            let is_there = self.links.get(request.link).is_some();
            assert!(is_void || is_there, "NAME: request {index} is for a link that is gone");
            if request.asker == NONE {
                continue;
            }
            let link = self.subscriptions.get(request.asker).map(Subscription::link);
            assert_eq!(link, Some(request.link), "NAME: request {index} asks for a subscription of another link");
        }
        assert!(self.is_up() || self.requests.is_empty(), "requests are under way without an uplink");
    }

    fn check_topics(&self) {
        for (topic, row) in self.topics.iter() {
            let lingers = row.acceptance.forget_at() != Instant::NEVER;
            assert_eq!(row.viewers.is_empty(), lingers, "topic {topic} lingers with pages, or is never forgotten");
            row.check(&self.store);
        }
    }

    fn check_texts(&self) {
        let mut reasons = Vec::new();
        let mut note = |reason: Reason| {
            if let Reason::Given(id) = reason {
                reasons.push(id);
            }
        };
        for (_, session) in self.sessions.iter() {
            session.closing().iter().for_each(|close| note(close.reason));
            if let Half::Notice { notice, .. } = session.half {
                notice.reason().into_iter().for_each(&mut note);
            }
        }
        for (_, row) in self.subscriptions.iter() {
            let Stage::Over { reason, .. } = *row.stage() else { continue };
            note(reason);
        }
        for (_, link) in self.links.iter() {
            link.reasons().for_each(&mut note);
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

    /// Checks that each frame that pages are inside is whole in its ring or in the reserve, and
    /// that their offsets are within it.
    fn check_begun(&self) {
        let pages = self.sessions.iter().filter_map(|(_, session)| match session.half {
            Half::Frame { frame, at, run } => Some((frame, at - u64::from(run)..at)),
            Half::None | Half::Notice { .. } => None,
        });
        let logs =
            self.topics.iter().flat_map(|(topic, row)| (0..).zip(&row.logs).map(move |(at, log)| (topic, at, log)));
        let rings: Vec<_> = logs.map(|(topic, at, log)| ((topic, at), log.begun(), log.start()..log.end())).collect();
        self.store.begun.check(&pages.collect::<Vec<_>>(), &rings);
    }
}

impl Topic {
    /// Checks the topic's own fields against its logs.
    fn check(&self, store: &super::log::Store) {
        let number = self.number();
        for track in Track::ALL {
            let (log, next, name) = (self.log(track), self.next()[track.index()], track.name());
            assert!(log.next_sequence() <= next, "topic {number}: {name} holds more than was published");
            if track == Track::Messages {
                assert_eq!(log.next_sequence(), next, "topic {number}: {name} lacks what was published");
            }
            log.check_entries(store, track, number);
            if track.is_media()
                && let Some(group) = self.group(store, track)
            {
                let entry = log.entry(store, group.number);
                let is_start = entry.is_some_and(|entry| {
                    (entry.kind, entry.at, entry.sequence) == (Kind::Start, group.at, group.sequence)
                });
                assert!(is_start, "topic {number}: {name}'s newest group does not begin at its recorded entry");
                assert!(group.init < group.sequence, "topic {number}: {name}'s group came before its init");
            }
        }
    }
}

impl Log {
    /// Checks that the entries follow each other and that those of one epoch cover their sequences
    /// without a hole.
    fn check_entries(&self, store: &super::log::Store, track: Track, topic: u32) {
        let name = track.name();
        let mut before = None::<super::log::Entry>;
        for number in self.current() {
            let Some(entry) = self.entry(store, number) else { panic!("topic {topic}: entry {number} is not held") };
            if let Some(before) = before {
                assert!(before.at < entry.at, "topic {topic}: {name}'s entries overlap");
                let follows = match (before.kind, track) {
                    (Kind::Epoch, _) => entry.sequence == self.base() || entry.kind == Kind::Epoch,
                    // An init may be a repeated one, and a hole before the first group is not a
                    // gap.
                    (Kind::Gap | Kind::Init, _) | (_, Track::State) => entry.sequence > before.sequence,
                    _ => entry.sequence == before.sequence + 1,
                };
                assert!(follows, "SUM: topic {topic}: {name} goes from {before:?} to {entry:?}");
            }
            before = Some(entry);
        }
        match before {
            Some(newest) if matches!(newest.kind, Kind::Gap) => assert!(newest.sequence < self.next_sequence()),
            Some(newest) if newest.kind != Kind::Epoch => {
                assert_eq!(
                    newest.sequence + 1,
                    self.next_sequence(),
                    "SUM: topic {topic}: {name}'s next sequence is beyond what it holds"
                );
            }
            _ => {}
        }
    }
}
