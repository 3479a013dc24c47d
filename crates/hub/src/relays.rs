//! Relays: their connections, whose secret each has, and what their requests lead to.
//!
//! Owns who is connected. It is the part of [`Hub`] that stands before `Business`, which speaks the
//! uplink: it takes what the relays report and hands it to `admission.rs` and `topics.rs`.

use core::time::Duration;
use std::sync::Arc;

use business::{Ended, Event, RelayId};

use super::{
    admission::{Asker, Decision},
    hub::{Connected, Hub, Revocations},
    memory::Moment,
    note::Note,
    notice::Notice,
};

impl Hub {
    /// See [`Business::connect`].
    pub fn connect(&mut self, now: Duration, challenge: [u8; 16]) -> RelayId {
        let relay = self.business.connect(now, challenge);
        self.drain(now, 0);
        relay
    }

    /// See [`Business::received`].
    pub fn received(&mut self, now: Moment, relay: RelayId, bytes: &[u8]) -> bool {
        let is_good = self.business.received(now.at, relay, bytes);
        self.drain(now.at, now.unix_us / 1_000_000);
        is_good
    }

    /// See [`Business::take`].
    pub fn take(&mut self, relay: RelayId, size: usize, frames: &mut Vec<Arc<[u8]>>) -> bool {
        self.business.take(relay, size, frames)
    }

    /// See [`Business::took`].
    pub fn took(&mut self, now: Duration, relay: RelayId) {
        self.business.took(now, relay);
    }

    /// See [`Business::deadline`].
    #[must_use]
    pub fn relay_deadline(&self, relay: RelayId) -> Option<Duration> {
        self.business.deadline(relay)
    }

    /// See [`Business::handle_timeout`].
    pub fn handle_relay_timeout(&mut self, now: Duration, relay: RelayId) {
        self.business.handle_timeout(now, relay);
        self.drain(now, 0);
    }

    /// See [`Business::disconnect`].
    pub fn disconnect(&mut self, now: Duration, relay: RelayId, why: Ended) {
        self.business.disconnect(relay, why);
        self.drain(now, 0);
    }

    /// Changes secrets, and which relay has each. Relays without one of them are sent away.
    pub fn set_secrets(&mut self, now: Duration, secrets: Vec<Vec<u8>>, owners: Vec<Option<String>>) {
        let old = core::mem::replace(&mut self.settings.business.secrets, secrets.clone());
        self.settings.owners = owners;
        let mut gone = Vec::new();
        for (id, relay) in &mut self.relays {
            let place = secrets.iter().position(|secret| old.get(relay.secret) == Some(secret));
            match place {
                Some(place) if is_owner(self.settings.owners.get(place), &relay.name) => relay.secret = place,
                _ => gone.push(*id),
            }
        }
        self.business.set_secrets(secrets);
        for relay in gone {
            self.business.disconnect(relay, Ended::Closed("its secret was removed".to_owned()));
        }
        self.drain(now, 0);
    }

    /// Changes how it is decided who may watch.
    pub fn set_admission(&mut self, settings: super::admission::Settings) {
        self.admission.set(settings);
    }

    /// How it is decided who may watch.
    #[must_use]
    pub const fn admission(&self) -> &super::admission::Settings {
        self.admission.settings()
    }

    pub(crate) fn drain(&mut self, now: Duration, unix_s: u64) {
        while let Some(event) = self.business.poll_event() {
            self.handle_event(now, unix_s, event);
        }
    }

    fn handle_event(&mut self, now: Duration, unix_s: u64, event: Event) {
        match event {
            Event::RelayUp { relay, name, secret } => self.relay_up(now, relay, name, secret),
            Event::RelayDown { relay, name, why } => {
                self.admission.relay_down(relay);
                // A connection that never authenticated had no topics: it costs no look at all.
                if self.relays.remove(&relay).is_some() {
                    self.unhold_all(now);
                }
                self.note(Note::RelayDown { relay, name, why });
            }
            Event::Asked { relay, request, link, since, address, origin } => {
                self.counters.asked += 1;
                let [link, address, origin] = [link.into(), address.into(), origin.into()];
                let asker = Asker { relay, request, link, since, address, origin, at: now };
                // A relay asks for links alone; what is none can't be revoked by the API either.
                if !wire::is_link(&asker.link) {
                    return self.deny(&asker, "there is no such link");
                }
                if !matches!(self.revocations, Revocations::Known) {
                    self.counters.unanswered += 1;
                    return;
                }
                if let Some(decision) = self.admission.decide(now, unix_s, asker.clone()) {
                    self.decided(now, asker, decision);
                }
            }
            Event::Audience { topic, pages } => self.audience_changed(topic, pages),
            Event::Unsubscribed { topic, .. } => self.unhold(now, topic),
            Event::PageMessage { topic, relay, page, data, author, id } => {
                let (Some(name), Some(from)) = (self.names.get(&topic), self.relays.get(&relay)) else {
                    return id.into_iter().for_each(|id| self.business.forget_message(topic, &id));
                };
                self.counters.page_messages += 1;
                let (topic, relay, connection) = (name.clone(), from.name.clone(), relay.number());
                self.tell(Notice::PageMessage { topic, relay, connection, page, data, author, id });
            }
            Event::Pong { .. } => {}
        }
    }

    fn relay_up(&mut self, now: Duration, relay: RelayId, name: String, secret: usize) {
        if !is_owner(self.settings.owners.get(secret), &name) {
            let why = "its secret is that of a relay with another name".to_owned();
            return self.business.disconnect(relay, Ended::Closed(why));
        }
        if !self.serves(now) {
            return self.business.disconnect(relay, Ended::Closed("the engine can't be reached".to_owned()));
        }
        let is_double = self.relays.values().any(|other| other.name == name);
        self.note(Note::RelayUp { relay, name: name.clone(), is_double });
        self.relays.insert(relay, Connected { name, secret, since: now });
    }

    /// Carries out what was decided about a request.
    pub(crate) fn decided(&mut self, now: Duration, asker: Asker, decision: Decision) {
        match decision {
            Decision::Deny(reason) => self.deny(&asker, &reason),
            Decision::Admit(topic, grant) => self.admit(now, topic, asker, grant),
        }
    }

    pub(crate) fn deny(&mut self, asker: &Asker, reason: &str) {
        self.counters.denied += 1;
        self.business.deny(asker.relay, asker.request, reason);
    }
}

/// Whether a secret may be used under this name: of a relay, or of one of its workers (`host/2`).
fn is_owner(owner: Option<&Option<String>>, name: &str) -> bool {
    match owner {
        Some(Some(owner)) => {
            name.strip_prefix(owner.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        Some(None) => true,
        None => false,
    }
}
