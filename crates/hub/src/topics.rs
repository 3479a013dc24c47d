//! Topics that relays hold: attached to the engine, read as the doorbells say, and let go.
//!
//! Owns nothing: it is the part of [`Hub`] that stands between `following.rs` and `Business`. A
//! topic's ring in `Business` holds what the engine keeps, under the engine's own sequences.

use core::time::Duration;

use business::{Ended, NotOpen, PublishError, RelayId};
use wire::{Track, uplink::Grant};

use super::{
    Name,
    admission::Asker,
    engine::{Attached, Entry, Reply, Request},
    following::Followed,
    hub::Hub,
    memory::partition,
    note::Note,
    notice::Notice,
    purpose::{Purpose, Ticket},
};

impl Hub {
    /// Shows a topic to who asked: now if it is loaded, or once it is.
    pub(crate) fn admit(&mut self, now: Duration, topic: Name, asker: Asker, grant: Grant) {
        let number = self.settings.fleet_key.number(&topic);
        if let Some(shown) = self.names.get(&number).filter(|shown| **shown != topic) {
            let note = Note::Collision { number, shown: shown.clone(), refused: topic };
            self.counters.collisions += 1;
            self.note(note);
            return self.deny(&asker, "this room can't be shown now: another one has its number");
        }
        if !self.topics.contains_key(&topic) {
            if self.topics.len() >= self.settings.business.limits.topics_max {
                self.counters.unanswered += 1;
                return self.note(Note::TooManyTopics { topic });
            }
            if self.rings_are_full(0) {
                self.counters.unanswered += 1;
                return self.note(Note::RingsFull);
            }
            self.names.insert(number, topic.clone());
            self.topics.insert(topic.clone(), Followed::new(number, partition(&topic), now));
        }
        let Some(row) = self.topics.get_mut(&topic) else { return };
        if row.is_loaded() {
            return self.accept(&topic, &asker, grant);
        }
        if self.waiting >= self.settings.limits.waiting_max {
            self.counters.unanswered += 1;
            return;
        }
        self.waiting += 1;
        row.waiting.push((asker, grant));
        self.attach(&topic);
    }

    fn accept(&mut self, topic: &Name, asker: &Asker, grant: Grant) {
        let Some(row) = self.topics.get_mut(topic) else { return };
        row.unheld_since = None;
        match self.business.accept(asker.relay, asker.request, (row.number, grant), asker.since) {
            Ok(()) => self.counters.accepted += 1,
            Err(NotOpen::Ended(reason)) => self.deny(asker, &reason),
            Err(NotOpen::Unknown) => self.counters.unanswered += 1,
        }
    }

    /// Asks the engine for a topic as a whole, unless that is under way.
    pub(crate) fn attach(&mut self, name: &Name) {
        let Some(row) = self.topics.get(name).filter(|row| row.attaching.is_none()) else { return };
        let request = Request::Attach { topic: name.clone(), seen: row.seen() };
        let ticket = self.request(Purpose::Attach(name.clone()), request);
        if let Some(row) = self.topics.get_mut(name) {
            row.attaching = Some(ticket);
        }
    }

    /// Takes what the engine says about a topic as a whole.
    pub(crate) fn attached(&mut self, now: Duration, ticket: Ticket, name: &Name, reply: Reply) {
        // Another ticket: the topic was let go and is followed anew since.
        let Some(row) = self.topics.get_mut(name).filter(|row| row.attaching == Some(ticket)) else { return };
        row.attaching = None;
        let attached = match reply {
            Reply::Attached(Some(attached)) => attached,
            // Who waits stays unanswered. A topic that is open is looked at again.
            _ => {
                if row.epoch().is_none() {
                    self.let_go(name, "");
                }
                return;
            }
        };
        row.refreshed = now;
        if let Some(reason) = &attached.ended {
            return self.let_go(name, reason);
        }
        match row.epoch() {
            Some(epoch) if epoch == attached.epoch => row.update(attached.next),
            Some(_) => {
                self.counters.epochs_lost += 1;
                self.note(Note::EpochLost { topic: name.clone() });
                self.send_away(name);
                self.begin(name, &attached);
            }
            None => self.begin(name, &attached),
        }
        self.read_on(name);
        self.accept_waiting(now, name);
    }

    /// Opens a topic's ring where the engine's own history begins.
    fn begin(&mut self, name: &Name, attached: &Attached) {
        let Some(row) = self.topics.get_mut(name) else { return };
        row.begin(attached);
        let mut first = attached.first;
        let inits = [Track::Audio, Track::Video].into_iter().zip(&attached.init);
        let inits = inits.filter_map(|(track, init)| Some((track, init.as_ref()?)));
        for (track, init) in inits.clone() {
            first[track.index()] = init.sequence;
        }
        let number = row.number;
        if !self.business.open_at(number, attached.epoch, first) {
            self.note(Note::TooManyTopics { topic: name.clone() });
            return self.let_go(name, "");
        }
        for (track, init) in inits {
            self.put(number, track, init);
        }
    }

    /// Relays that hold the topic come back, and learn its new epoch.
    fn send_away(&mut self, name: &Name) {
        let Some(row) = self.topics.get(name) else { return };
        let holders: Vec<RelayId> = self.business.pages_by_relay(row.number).map(|(relay, _)| relay).collect();
        let number = row.number;
        for relay in holders {
            self.business.disconnect(relay, Ended::Closed(format!("the topic {name} began a new epoch")));
        }
        self.business.forget(number, "");
    }

    /// Reads what the doorbells promised.
    pub(crate) fn read_on(&mut self, name: &Name) {
        while let Some((track, from)) = self.topics.get(name).and_then(Followed::next_read) {
            let count_max = self.settings.limits.read_max;
            let ticket = self.request(
                Purpose::Read(name.clone(), track),
                Request::Read { topic: name.clone(), track, from, count_max },
            );
            if let Some(row) = self.topics.get_mut(name) {
                row.began_read(track, ticket);
            }
        }
    }

    /// Takes what was read of a track.
    pub(crate) fn read(&mut self, now: Duration, ticket: Ticket, name: &Name, track: Track, reply: Reply) {
        // What an earlier row asked for begins elsewhere.
        let Some(row) = self.topics.get_mut(name).filter(|row| row.is_reading(track, ticket)) else { return };
        let Reply::Entries { epoch, entries } = reply else {
            row.ended_read(track, false);
            // A topic that is gone began anew, or will.
            return self.attach(name);
        };
        if row.epoch() != Some(epoch) {
            row.ended_read(track, false);
            return self.attach(name);
        }
        let (number, is_all) = (row.number, entries.len() < self.settings.limits.read_max);
        let new: Vec<&Entry> = entries.iter().filter(|entry| row.advance(track, entry.sequence)).collect();
        row.ended_read(track, is_all);
        for entry in new {
            self.counters.read += 1;
            self.put(number, track, entry);
        }
        self.read_on(name);
        self.accept_waiting(now, name);
    }

    /// Whether the relays' rings have no room for that many bytes more.
    pub(crate) fn rings_are_full(&self, size: usize) -> bool {
        self.business.kept_size() + size > self.settings.limits.rings_size_max
    }

    /// Puts a publication into the relays' ring. Where there is no room, it is left out: the next
    /// one leaves a gap, which pages are told.
    pub(crate) fn put(&mut self, number: u32, track: Track, entry: &Entry) {
        if self.rings_are_full(entry.data.len()) {
            self.counters.unkept += 1;
            return self.note(Note::RingsFull);
        }
        let put = self.business.publish_as(number, track, entry.sequence, entry.part.on_the_uplink(), &entry.data);
        // A chunk behind a hole can't be decoded: the ring waits for the next group, as pages do.
        debug_assert!(
            matches!(put, Ok(()) | Err(PublishError::OutOfOrder | PublishError::Superfluous)),
            "{put:?} of {track:?} {}",
            entry.sequence
        );
    }

    /// Takes a message's tombstone.
    pub(crate) fn reread(&mut self, name: &Name, reply: Reply) {
        let (Some(row), Reply::Entries { epoch, entries }) = (self.topics.get(name), reply) else { return };
        if let (Some(entry), true) = (entries.first(), row.epoch() == Some(epoch)) {
            self.business.replace(row.number, Track::Messages, entry.sequence, &entry.data);
        }
    }

    fn accept_waiting(&mut self, now: Duration, name: &Name) {
        let Some(row) = self.topics.get_mut(name).filter(|row| row.is_loaded()) else { return };
        let waiting = core::mem::take(&mut row.waiting);
        self.waiting -= waiting.len();
        for (asker, grant) in waiting {
            // It may have been revoked in the meantime.
            match self.admission.revoked_for(now, &asker.link) {
                Some(reason) => self.deny(&asker, &reason),
                None => self.accept(name, &asker, grant),
            }
        }
    }

    /// Stops following a topic. With a reason it has ended: pages are told, and who waits is
    /// denied. Without one, who waits stays unanswered.
    pub(crate) fn let_go(&mut self, name: &Name, reason: &str) {
        let Some(row) = self.topics.remove(name) else { return };
        self.names.remove(&row.number);
        self.waiting -= row.waiting.len();
        if reason.is_empty() {
            self.counters.unanswered += row.waiting.len() as u64;
        } else {
            row.waiting.iter().for_each(|(asker, _)| self.deny(asker, reason));
        }
        self.business.forget(row.number, reason);
        if row.audience.is_occupied {
            self.tell(Notice::Vacated { topic: name.clone() });
        }
    }

    /// Notes that a relay gave up a topic, which no other may have.
    pub(crate) fn unhold(&mut self, now: Duration, number: u32) {
        let Some(row) = self.names.get(&number).and_then(|name| self.topics.get_mut(name)) else { return };
        if row.unheld_since.is_none() && !self.business.is_held(number) {
            row.unheld_since = Some(now);
        }
    }

    /// Notes which topics no relay has any more.
    pub(crate) fn unhold_all(&mut self, now: Duration) {
        for row in self.topics.values_mut() {
            if row.unheld_since.is_none() && !self.business.is_held(row.number) {
                row.unheld_since = Some(now);
            }
        }
    }

    pub(crate) fn audience_changed(&mut self, number: u32, pages: u64) {
        let Some(row) = self.names.get(&number).and_then(|name| self.topics.get_mut(name)) else { return };
        row.audience.pages = pages;
    }

    /// Looks after all topics, once a second.
    pub(crate) fn tend(&mut self, now: Duration) {
        let times = self.settings.times;
        let names: Vec<Name> = self.topics.keys().cloned().collect();
        for name in names {
            let Some(row) = self.topics.get_mut(&name) else { continue };
            for notice in row.audience.tell(now, &times, &name) {
                self.tell(notice);
            }
            let Some(row) = self.topics.get_mut(&name) else { continue };
            let lingers = row.unheld_since.is_none_or(|since| now < since.saturating_add(times.linger));
            if !lingers && row.waiting.is_empty() {
                self.let_go(&name, "");
                continue;
            }
            if row.epoch().is_none() || now >= row.refreshed.saturating_add(times.refresh) {
                self.attach(&name);
            }
            self.read_on(&name);
        }
    }
}
