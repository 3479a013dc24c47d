//! Calls of the API: what each asks of the engine, step by step, and what it answers.
//!
//! Owns nothing: it is the part of [`Hub`] that carries out a [`Call`]. A call that waits for the
//! engine counts, and with too many of them the next is refused.

use core::time::Duration;
use std::sync::Arc;

use wire::Track;

use super::{
    Name,
    admission::hash,
    call::{Answer, ApiId, Call, FleetView, RelayView, TopicView},
    engine::{Append, Attached, Entry, LinkHash, Part, Refusal, Reply, Request, Room, StreamId},
    hub::Hub,
    memory::Moment,
    notice::Notice,
    purpose::{Purpose, Step},
};

/// What stands in the place of a message that was taken down, and what tells pages to hide it.
fn removed(sequence: u64) -> Arc<[u8]> {
    format!("{{\"kind\":\"removed\",\"sequence\":{sequence}}}").into_bytes().into()
}

impl Hub {
    /// Carries out a call of the API, which is answered by [`poll_answer`](Self::poll_answer).
    pub fn handle_call(&mut self, now: Moment, id: ApiId, call: Call) {
        // What gives something back is always taken.
        let is_release = matches!(call, Call::Release { .. });
        if self.calls >= self.settings.limits.calls_max && !is_release {
            return self.answer(id, Answer::Busy);
        }
        let (step, request) = match call {
            Call::Publish { topic, append } => {
                if self.topics.contains_key(&topic) && self.rings_are_full(append.data.len()) {
                    return self.answer(id, Answer::Refused(Refusal::Full(Room::Rings)));
                }
                self.publishing(topic, append)
            }
            Call::Lease { topic, track, lease, begins, token } => {
                if let Some(reason) = token.and_then(|token| self.admission.revoked_by(now.at, &token)) {
                    self.stream_ended(topic, track, lease.stream);
                    return self.answer(id, Answer::Revoked(reason));
                }
                let step = Step::Leasing { topic: topic.clone(), track, stream: lease.stream };
                (step, Request::Lease { topic, track, lease, begins })
            }
            Call::Release { topic, track, stream } => {
                let step = Step::Releasing { topic: topic.clone(), track, stream };
                (step, Request::Release { topic, track, stream })
            }
            Call::Remove { topic, sequence } => {
                let tombstone = removed(sequence);
                (Step::Removing { topic: topic.clone(), sequence }, Request::Remove { topic, sequence, tombstone })
            }
            Call::Topic { topic } => (Step::Looking { topic: topic.clone() }, Request::Look { topic }),
            Call::Messages { topic, from, count_max } => {
                (Step::ReadingMessages, Request::Read { topic, track: Track::Messages, from, count_max })
            }
            Call::Topics { after, prefix, count_max } => (Step::Listing, Request::List { after, prefix, count_max }),
            Call::End { topic, reason } => {
                let step = Step::Ending { topic: topic.clone(), reason: Some(Arc::clone(&reason)) };
                (step, Request::End { topic, reason })
            }
            Call::Open { topic } => (Step::Ending { topic: topic.clone(), reason: None }, Request::Open { topic }),
            Call::Revoke { link, reason, ttl_s } => {
                let hash = hash(&link);
                let request = Request::Revoke { link: hash, reason: Arc::clone(&reason), ttl_s };
                (Step::Revoking { link, hash, reason, ttl_s }, request)
            }
            Call::Kick { relay, connection, page, reason } => {
                let answer = self.kick(&relay, connection, page, &reason);
                return self.answer(id, answer);
            }
            Call::Fleet => {
                let fleet = self.fleet(now.at);
                return self.answer(id, Answer::Fleet(fleet));
            }
        };
        self.calls += 1;
        self.request(Purpose::Api(id, step), request);
    }

    fn publishing(&self, topic: Name, append: Append) -> (Step, Request) {
        let (part, data) = (append.part.clone(), Arc::clone(&append.data));
        let step = Step::Publishing { topic: topic.clone(), track: append.track, part, data };
        let seen = self.topics.get(&topic).map(super::following::Followed::seen).unwrap_or_default();
        (step, Request::Append { topic, append, seen })
    }

    /// Takes what the engine says to a call's step.
    pub(crate) fn stepped(&mut self, now: Moment, id: ApiId, step: Step, reply: Reply) {
        self.calls -= 1;
        let answer = match (step, reply) {
            (Step::Leasing { topic, track, stream }, Reply::Done) => {
                if self.streams.insert(stream) {
                    self.tell(Notice::StreamStarted { topic, track });
                }
                Answer::Done
            }
            // Another stream has the track: it was told to have started, and the topic is live.
            (Step::Leasing { stream, .. }, Reply::Refused(Refusal::Leased)) => {
                self.streams.remove(&stream);
                Answer::Refused(Refusal::Leased)
            }
            // The topic has ended: the stream is over.
            (Step::Leasing { topic, track, stream }, Reply::Refused(refusal)) => {
                self.stream_ended(topic, track, stream);
                Answer::Refused(refusal)
            }
            // An engine that does not answer lets the lease run out.
            (Step::Releasing { topic, track, stream }, _) => {
                self.stream_ended(topic, track, stream);
                Answer::Done
            }
            // It is taken down, and nobody is there to be told.
            (Step::Announcing { .. }, Reply::Refused(Refusal::Ended(_))) => Answer::Done,
            // Whether the engine has it is not known: it holds here, and the caller sends it again.
            (Step::Revoking { link, hash, reason, ttl_s }, Reply::Unavailable) => {
                self.revoke(now.at, &link, hash, &reason, ttl_s);
                Answer::Unavailable
            }
            (_, Reply::Unavailable) => Answer::Unavailable,
            (_, Reply::Refused(Refusal::Missing)) => Answer::Missing,
            (_, Reply::Refused(refusal)) => Answer::Refused(refusal),
            (Step::Publishing { topic, track, part, data }, Reply::Appended { epoch, sequence, is_repeated }) => {
                if !is_repeated {
                    self.counters.published += 1;
                    self.published(&topic, epoch, track, Entry { sequence, part, data });
                }
                Answer::Published { epoch, sequence, is_repeated }
            }
            (Step::Removing { topic, sequence }, Reply::Done) => {
                let (track, data) = (Track::Messages, removed(sequence));
                let step = Step::Announcing { topic: topic.clone(), data: Arc::clone(&data) };
                let append = Append { track, part: Part::Whole, data, key: None, replaces: None, stream: None };
                let (_, request) = self.publishing(topic, append);
                self.calls += 1;
                self.request(Purpose::Api(id, step), request);
                return;
            }
            (Step::Removing { .. }, Reply::Appended { epoch, sequence, .. }) => {
                Answer::Published { epoch, sequence, is_repeated: true }
            }
            (Step::Announcing { topic, data }, Reply::Appended { epoch, sequence, .. }) => {
                self.published(&topic, epoch, Track::Messages, Entry { sequence, part: Part::Whole, data });
                Answer::Published { epoch, sequence, is_repeated: false }
            }
            (Step::Looking { .. }, Reply::Attached(None)) => Answer::Missing,
            (Step::Looking { topic }, Reply::Attached(Some(attached))) => {
                let track = Track::State;
                let from = attached.first[track.index()];
                if from < attached.next[track.index()] {
                    self.calls += 1;
                    let step = Step::ReadingState { topic: topic.clone(), attached };
                    self.request(Purpose::Api(id, step), Request::Read { topic, track, from, count_max: 1 });
                    return;
                }
                self.view(&topic, attached, None)
            }
            (Step::ReadingState { topic, attached }, Reply::Entries { entries, .. }) => {
                self.view(&topic, attached, entries.into_iter().next())
            }
            (Step::ReadingMessages, Reply::Entries { epoch, entries }) => Answer::Messages { epoch, entries },
            (Step::Listing, Reply::Topics(topics)) => Answer::Topics(topics),
            (Step::Ending { topic, reason }, Reply::Done) => {
                if let Some(reason) = reason {
                    self.let_go(&topic, &reason);
                }
                Answer::Done
            }
            (Step::Revoking { link, hash, reason, ttl_s }, Reply::Done) => {
                self.revoke(now.at, &link, hash, &reason, ttl_s);
                Answer::Done
            }
            // An engine that answers something else is broken: nobody knows what it did.
            _ => Answer::Unavailable,
        };
        self.answer(id, answer);
    }

    fn revoke(&mut self, now: Duration, link: &str, hash: LinkHash, reason: &Arc<str>, ttl_s: u64) {
        self.admission.revoke(hash, Arc::clone(reason), now.saturating_add(Duration::from_secs(ttl_s)));
        self.admission.forget_link(link);
        self.business.revoke(link, reason);
    }

    /// Takes a publication of this hub's own: what is the very next one need not be read.
    fn published(&mut self, topic: &Name, epoch: u64, track: Track, entry: Entry) {
        let Some(row) = self.topics.get_mut(topic) else { return };
        if row.epoch() != Some(epoch) {
            return self.attach(topic);
        }
        if row.is_next(track, entry.sequence) {
            let number = row.number;
            return self.put(number, track, &entry);
        }
        row.rung(track, entry.sequence);
        self.read_on(topic);
    }

    fn stream_ended(&mut self, topic: Name, track: Track, stream: StreamId) {
        if self.streams.remove(&stream) {
            self.tell(Notice::StreamEnded { topic, track });
        }
    }

    fn view(&self, topic: &Name, attached: Attached, state: Option<Entry>) -> Answer {
        let pages = self.topics.get(topic).map(|row| self.business.pages_by_relay(row.number));
        let named = |(relay, pages)| Some((self.relays.get(&relay)?.name.clone(), pages));
        let audience = pages.into_iter().flatten().filter_map(named).collect();
        Answer::Topic(Box::new(TopicView { attached, state, audience }))
    }

    fn kick(&mut self, relay: &str, connection: u64, page: u32, reason: &str) -> Answer {
        let found = self.relays.iter().find(|(id, row)| id.number() == connection && row.name == relay);
        let Some(id) = found.map(|(id, _)| *id) else { return Answer::Missing };
        self.business.kick(id, page, reason);
        Answer::Done
    }

    fn fleet(&self, now: Duration) -> FleetView {
        let relays = self.relays.iter().map(|(id, row)| {
            let (topics, pages) = self.business.held_by(*id);
            let up_s = now.saturating_sub(row.since).as_secs();
            RelayView { name: row.name.clone(), connection: id.number(), up_s, pages, topics }
        });
        FleetView { relays: relays.collect(), topics: self.topics.len(), engine_up: self.engine_lost.is_none() }
    }
}
