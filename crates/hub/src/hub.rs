//! The machine: what relays, the engine, the webhook and the API say, and what follows from it.
//!
//! Owns its parts and the queues between them and the shell. After each `handle_*` or command the
//! caller drains: [`Hub::poll_request`] for the engine, [`Hub::poll_subscribe`] for the webhook,
//! [`Hub::poll_answer`] for the API, [`Hub::poll_notice`] for the webhook's events,
//! [`Hub::poll_note`] for the log, and [`Hub::poll_ready`] for relays that have something to be
//! written. Nothing waits here; the time is an argument. All queues are bounded.

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use business::{Business, Ended, RelayId};
use wire::{Track, page::MessageId};

use super::{
    FleetKey, Name,
    admission::{Admission, QuestionId, Subscribe, Verdict},
    call::{Answer, ApiId},
    counters::Counters,
    engine::{Bell, Doorbell, LinkHash, Position, Refusal, Reply, Request, StreamId},
    following::Followed,
    memory::Moment,
    note::Note,
    notice::{Notice, Notices},
    purpose::{Purpose, Ticket},
    settings::Settings,
};

/// What happens once a second.
const TICK: Duration = Duration::from_secs(1);
/// Lines for the log in that time; more are counted.
const NOTES_PER_TICK_MAX: u64 = 100;

/// A relay that is connected.
#[derive(Clone, Debug)]
pub(crate) struct Connected {
    pub name: String,
    /// Which of the secrets it has.
    pub secret: usize,
    pub since: Duration,
}

/// What this hub knows of the engine's revocations.
#[derive(Debug)]
pub(crate) enum Revocations {
    /// The engine is asked at each tick.
    Unknown,
    /// The engine had lost some, and is told of them again.
    Restoring {
        /// Those without an answer yet.
        waiting: BTreeSet<Ticket>,
        /// The engine did not take one.
        has_failed: bool,
    },
    /// Both know the same.
    Known,
}

/// The hub.
#[derive(Debug)]
pub struct Hub {
    pub(crate) settings: Settings,
    pub(crate) business: Business,
    pub(crate) admission: Admission,
    pub(crate) topics: BTreeMap<Name, Followed>,
    pub(crate) names: BTreeMap<u32, Name>,
    /// Requests that wait for topics.
    pub(crate) waiting: usize,
    pub(crate) relays: BTreeMap<RelayId, Connected>,
    requests: VecDeque<(Ticket, Request)>,
    under_way: BTreeMap<Ticket, Purpose>,
    next_ticket: u64,
    /// Streams of media that come to this hub.
    pub(crate) streams: BTreeSet<StreamId>,
    /// Calls of the API that wait for the engine.
    pub(crate) calls: usize,
    answers: VecDeque<(ApiId, Answer)>,
    pub(crate) notices: Notices,
    notes: VecDeque<Note>,
    /// Notes in this second, and those of them that were left out.
    noted: u64,
    unnoted: u64,
    position: Option<Position>,
    is_asking_position: bool,
    /// Nobody is admitted before they are known.
    pub(crate) revocations: Revocations,
    /// The log has a line about an engine without room for them.
    is_full_noted: bool,
    /// Since when the engine has not answered.
    pub(crate) engine_lost: Option<Duration>,
    next_tick: Duration,
    pub(crate) counters: Counters,
}

impl Hub {
    /// A hub without relays. It asks the engine for the revocations first.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mut hub = Self {
            business: Business::new(settings.business.clone()),
            admission: Admission::new(settings.admission.clone()),
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            waiting: 0,
            relays: BTreeMap::new(),
            requests: VecDeque::new(),
            under_way: BTreeMap::new(),
            next_ticket: 0,
            streams: BTreeSet::new(),
            calls: 0,
            answers: VecDeque::new(),
            notices: Notices::new(settings.limits.notices_max),
            notes: VecDeque::new(),
            noted: 0,
            unnoted: 0,
            position: None,
            is_asking_position: false,
            revocations: Revocations::Unknown,
            is_full_noted: false,
            engine_lost: None,
            next_tick: Duration::ZERO,
            counters: Counters::default(),
            settings,
        };
        hub.request(Purpose::Revocations, Request::Revocations);
        hub
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Notices that were dropped since the queue was full.
    #[must_use]
    pub const fn notices_dropped(&self) -> u64 {
        self.notices.dropped
    }

    /// Whether relays are served: not while the engine can't be reached.
    #[must_use]
    pub fn serves(&self, now: Duration) -> bool {
        self.engine_lost.is_none_or(|since| now < since.saturating_add(self.settings.times.engine_lost))
    }

    /// The key of the fleet: topics' numbers and tokens are made with it.
    #[must_use]
    pub const fn fleet_key(&self) -> &FleetKey {
        &self.settings.fleet_key
    }

    /// Why the token or link with this hash was revoked, if it was.
    #[must_use]
    pub fn revoked_by(&self, now: Duration, hash: &LinkHash) -> Option<Arc<str>> {
        self.admission.revoked_by(now, hash)
    }

    /// Whether the webhook rests after too many calls without an answer.
    #[must_use]
    pub const fn webhook_rests(&self) -> bool {
        self.admission.rests()
    }

    // The webhook.

    /// The next call of the webhook `subscribe`, to be answered by
    /// [`handle_verdict`](Self::handle_verdict).
    pub fn poll_subscribe(&mut self, now: Duration) -> Option<(QuestionId, Subscribe)> {
        let question = self.admission.poll_call(now)?;
        self.counters.subscribes += 1;
        Some(question)
    }

    /// Takes the webhook's answer.
    pub fn handle_verdict(&mut self, now: Duration, question: QuestionId, verdict: Verdict) {
        self.counters.subscribes_failed += u64::from(verdict == Verdict::NoAnswer);
        for (asker, decision) in self.admission.answered(now, question, verdict) {
            self.decided(now, asker, decision);
        }
        self.drain(now, 0);
    }

    // The engine.

    pub(crate) fn request(&mut self, purpose: Purpose, request: Request) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.under_way.insert(ticket, purpose);
        self.requests.push_back((ticket, request));
        ticket
    }

    /// The next request to the engine, to be answered by [`handle_reply`](Self::handle_reply).
    pub fn poll_request(&mut self) -> Option<(Ticket, Request)> {
        self.requests.pop_front()
    }

    /// Takes the engine's answer.
    pub fn handle_reply(&mut self, now: Moment, ticket: Ticket, reply: Reply) {
        let Some(purpose) = self.under_way.remove(&ticket) else { return };
        if reply == Reply::Unavailable {
            self.counters.engine_failures += 1;
            self.engine_lost.get_or_insert(now.at);
        } else {
            self.engine_lost = None;
        }
        match purpose {
            Purpose::Attach(name) => self.attached(now.at, ticket, &name, reply),
            Purpose::Read(name, track) => self.read(now.at, ticket, &name, track, reply),
            Purpose::Reread(name) => self.reread(&name, reply),
            Purpose::Position => self.positioned(reply),
            Purpose::Revocations => self.take_revocations(now.at, reply),
            Purpose::Restore => self.restored(ticket, &reply),
            Purpose::Api(id, step) => self.stepped(now, id, step, reply),
        }
        self.drain(now.at, 0);
    }

    /// Takes a doorbell.
    pub fn handle_doorbell(&mut self, doorbell: Doorbell) {
        let Doorbell { topic, what } = doorbell;
        let Some(row) = self.topics.get_mut(&topic) else { return };
        match what {
            Bell::Published(epoch, track, sequence) if row.epoch() == Some(epoch) => {
                row.rung(track, sequence);
                self.read_on(&topic);
            }
            // Of an epoch before, or of one that the hub has not heard of.
            Bell::Published(..) => self.attach(&topic),
            Bell::Removed(sequence) => {
                let request =
                    Request::Read { topic: topic.clone(), track: Track::Messages, from: sequence, count_max: 1 };
                self.request(Purpose::Reread(topic), request);
            }
            Bell::Changed => self.attach(&topic),
        }
    }

    fn positioned(&mut self, reply: Reply) {
        self.is_asking_position = false;
        let Reply::Position(now) = reply else { return };
        let Some(before) = self.position.replace(now.clone()) else { return };
        let is_new_reign = now.reign != before.reign;
        if is_new_reign {
            self.note(Note::Reign);
            // The one before may have been told of revocations that this one never heard of.
            self.revocations = Revocations::Unknown;
        }
        let has_moved =
            |row: &Followed| is_new_reign || now.counts.get(row.partition) != before.counts.get(row.partition);
        let moved: Vec<Name> =
            self.topics.iter().filter(|(_, row)| has_moved(row)).map(|(name, _)| name.clone()).collect();
        moved.iter().for_each(|name| self.attach(name));
    }

    fn take_revocations(&mut self, now: Duration, reply: Reply) {
        // Otherwise they are asked for again at the next tick.
        let Reply::Revocations(rows) = reply else { return };
        let kept: BTreeMap<LinkHash, u64> = rows.iter().map(|(link, _, ttl_s)| (*link, *ttl_s)).collect();
        let known = self.admission.revocations(now);
        // A second less is one of rounding.
        let lost = known.filter(|(link, _, ttl_s)| kept.get(link).is_none_or(|kept_s| kept_s + 1 < *ttl_s));
        let lost: Vec<_> = lost.collect();
        let restore = |(link, reason, ttl_s)| self.request(Purpose::Restore, Request::Revoke { link, reason, ttl_s });
        let waiting = lost.into_iter().map(restore).collect();
        for (link, reason, ttl_s) in rows {
            self.admission.revoke(link, reason, now.saturating_add(Duration::from_secs(ttl_s)));
        }
        self.revocations = Revocations::Restoring { waiting, has_failed: false };
        self.end_restoring();
    }

    fn restored(&mut self, ticket: Ticket, reply: &Reply) {
        // An answer to an earlier comparison says nothing about this one.
        let Revocations::Restoring { waiting, has_failed } = &mut self.revocations else { return };
        if !waiting.remove(&ticket) {
            return;
        }
        *has_failed |= *reply != Reply::Done;
        // One line for all of them, until they are taken.
        if matches!(reply, Reply::Refused(Refusal::Full(_))) && !core::mem::replace(&mut self.is_full_noted, true) {
            self.note(Note::RevocationsFull);
        }
        self.end_restoring();
    }

    /// With all answers, all are known. Where one was not taken, nobody is admitted, and all are
    /// compared again at the next tick.
    fn end_restoring(&mut self) {
        let Revocations::Restoring { waiting, has_failed } = &self.revocations else { return };
        if !waiting.is_empty() {
            return;
        }
        if *has_failed {
            self.revocations = Revocations::Unknown;
        } else {
            self.revocations = Revocations::Known;
            self.is_full_noted = false;
        }
    }

    // The rest.

    pub(crate) fn answer(&mut self, id: ApiId, answer: Answer) {
        self.answers.push_back((id, answer));
    }

    /// The next answer to a call of the API.
    pub fn poll_answer(&mut self) -> Option<(ApiId, Answer)> {
        self.answers.pop_front()
    }

    /// The next notice to be sent.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop()
    }

    /// Queues a notice. A page whose message has no room is not told that it was received.
    pub(crate) fn tell(&mut self, notice: Notice) {
        if let Err(Notice::PageMessage { topic, id: Some(id), .. }) = self.notices.push(notice) {
            self.forget_message(&topic, &id);
        }
    }

    /// The company's API has a page's message: the page is told.
    pub fn confirm(&mut self, topic: &Name, id: &MessageId) {
        self.business.confirm(self.settings.fleet_key.number(topic), id);
    }

    /// The company's API won't have a page's message: the page hears nothing, and may send it
    /// again.
    pub fn forget_message(&mut self, topic: &Name, id: &MessageId) {
        self.business.forget_message(self.settings.fleet_key.number(topic), id);
    }

    pub(crate) fn note(&mut self, note: Note) {
        self.noted += 1;
        if self.noted <= NOTES_PER_TICK_MAX {
            self.notes.push_back(note);
        } else {
            self.unnoted += 1;
        }
    }

    /// The next line for the log.
    pub fn poll_note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    /// See [`Business::poll_ready`].
    pub fn poll_ready(&mut self) -> Option<RelayId> {
        self.business.poll_ready()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.admission.deadline().map_or(self.next_tick, |at| at.min(self.next_tick))
    }

    /// Handles the deadline.
    pub fn handle_timeout(&mut self, now: Duration) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now.saturating_add(TICK);
        self.admission.tidy(now);
        self.noted = 0;
        if let count @ 1.. = core::mem::take(&mut self.unnoted) {
            self.note(Note::LeftOut { count });
        }
        if !self.serves(now) {
            let relays: Vec<RelayId> = self.relays.keys().copied().collect();
            for relay in relays {
                self.business.disconnect(relay, Ended::Closed("the engine can't be reached".to_owned()));
            }
        }
        if !core::mem::replace(&mut self.is_asking_position, true) {
            if matches!(self.revocations, Revocations::Unknown) {
                self.request(Purpose::Revocations, Request::Revocations);
            }
            self.request(Purpose::Position, Request::Position);
        }
        self.tend(now);
        self.drain(now, 0);
    }
}
