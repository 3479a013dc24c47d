//! The machine: topics and relays.
//!
//! Owns both tables and the queue of events. Every call is short and completes before it returns.
//! After each call, drain it: [`poll_event`](Business::poll_event), then
//! [`poll_ready`](Business::poll_ready) for the relays that have something to be written. Refuses
//! topics and relays above its limits. Does not decide about links: it reports requests as events.

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use wire::{
    LINK_SIZE_MAX, REASON_SIZE_MAX, Track,
    uplink::{Grant, Part, Since, ToRelay},
};

use super::{
    PublishError, Settings, cut,
    event::{Event, NotOpen, RelayId},
    receipts::Receipts,
    relay::{Relay, Topics},
    session::{Ended, Input, Session},
    topic::Topic,
};

/// The maximum number of ended topics whose reason is remembered.
const ENDED_MAX: usize = 1024;

/// The topics, and the relays of one business server.
#[derive(Debug)]
pub struct Business {
    pub(super) settings: Settings,
    pub(super) topics: Topics,
    /// What all topics keep, in bytes.
    pub(super) kept_size: usize,
    /// Ended topics with their reason, the oldest first.
    ended: VecDeque<(u32, String)>,
    pub(super) relays: BTreeMap<RelayId, Relay>,
    pub(super) relays_up: usize,
    next_relay: u64,
    events: VecDeque<Event>,
    /// Topics whose audience has changed since it was last reported.
    audiences: BTreeSet<u32>,
    ready: VecDeque<RelayId>,
    pub(super) receipts: Receipts,
}

impl Business {
    /// A business server without topics.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            topics: BTreeMap::new(),
            kept_size: 0,
            ended: VecDeque::new(),
            relays: BTreeMap::new(),
            relays_up: 0,
            next_relay: 0,
            events: VecDeque::new(),
            audiences: BTreeSet::new(),
            ready: VecDeque::new(),
            receipts: Receipts::default(),
        }
    }

    /// Opens or reopens a topic. Its sequences start at 1, so `epoch` must be one that it never
    /// had. Relays that have the topic receive its end, and their pages subscribe again. `false` if
    /// the maximum number of topics is open.
    pub fn open(&mut self, topic: u32, epoch: u64) -> bool {
        self.open_at(topic, epoch, [1; 4])
    }

    /// Opens a topic that was published elsewhere before: `next` has the next sequence of each
    /// track. Earlier publications are not kept, so publish what relays may still need before
    /// admitting any.
    pub fn open_at(&mut self, topic: u32, epoch: u64, next: [u64; 4]) -> bool {
        self.end(topic, "the topic was reopened");
        self.ended.retain(|(ended, _)| *ended != topic);
        if self.topics.len() >= self.settings.limits.topics_max {
            return false;
        }
        self.topics.insert(topic, Topic::new(topic, epoch, next, &self.settings.limits));
        true
    }

    /// An open topic.
    #[must_use]
    pub fn topic(&self, topic: u32) -> Option<&Topic> {
        self.topics.get(&topic)
    }

    /// Publishes to every relay that has the topic, and returns the sequence.
    ///
    /// # Errors
    /// See [`PublishError`]; nothing was sent.
    pub fn publish(&mut self, topic: u32, track: Track, part: Part<'_>, data: &[u8]) -> Result<u64, PublishError> {
        let Some(open) = self.topics.get(&topic) else { return Err(PublishError::Closed) };
        let sequence = open.track(track).next();
        self.publish_as(topic, track, sequence, part, data).map(|()| sequence)
    }

    /// Like [`publish`](Self::publish), with a sequence assigned elsewhere: the next one, or a
    /// later one, which leaves a gap.
    ///
    /// # Errors
    /// See [`PublishError`]; nothing was sent.
    pub fn publish_as(
        &mut self,
        topic: u32,
        track: Track,
        sequence: u64,
        part: Part<'_>,
        data: &[u8],
    ) -> Result<(), PublishError> {
        let Some(open) = self.topics.get_mut(&topic) else { return Err(PublishError::Closed) };
        let size = open.size();
        open.publish_as(track, sequence, part, data)?;
        self.kept_size = self.kept_size - size + open.size();
        self.mark_pending(topic);
        Ok(())
    }

    /// Puts other data in the place of a kept publication of state or messages, for relays that
    /// have not received it yet. Returns whether it was kept.
    pub fn replace(&mut self, topic: u32, track: Track, sequence: u64, data: &[u8]) -> bool {
        let Some(open) = self.topics.get_mut(&topic) else { return false };
        let size = open.size();
        let was_kept = open.replace(track, sequence, data);
        self.kept_size = self.kept_size - size + open.size();
        was_kept
    }

    fn mark_pending(&mut self, topic: u32) {
        for (id, relay) in &mut self.relays {
            if relay.mark_pending(topic) {
                mark_ready(&mut self.ready, *id, relay);
            }
        }
    }

    /// Ends an open topic. Its pages receive the reason; so do pages that subscribe before it is
    /// reopened.
    pub fn end(&mut self, topic: u32, reason: &str) {
        let Some(closed) = self.topics.remove(&topic) else { return };
        self.kept_size -= closed.size();
        let reason = cut(reason, REASON_SIZE_MAX);
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back((topic, reason.to_owned()));
        self.audiences.insert(topic);
        let holders: Vec<RelayId> =
            self.relays.iter_mut().filter_map(|(id, relay)| relay.leave(topic).map(|_| *id)).collect();
        for relay in holders {
            self.send(relay, &ToRelay::End { topic, reason });
        }
    }

    /// Ends a topic if it is open, and forgets the reason: then [`accept`](Self::accept) returns
    /// [`NotOpen::Unknown`].
    pub fn forget(&mut self, topic: u32, reason: &str) {
        self.end(topic, reason);
        self.ended.retain(|(ended, _)| *ended != topic);
    }

    /// Revokes a share link: ends the subscriptions made with it, and denies the open requests for
    /// it. The caller must deny later requests.
    pub fn revoke(&mut self, link: &str, reason: &str) {
        // A longer one is not a link, and a relay would refuse the frame as invalid.
        if link.len() > LINK_SIZE_MAX {
            return;
        }
        let reason = cut(reason, REASON_SIZE_MAX);
        let relays: Vec<RelayId> = self.relays.keys().copied().collect();
        for relay in relays {
            self.send(relay, &ToRelay::Revoke { link, reason });
            while let Some(request) = self.relays.get_mut(&relay).and_then(|row| row.take_request_for(link)) {
                self.send(relay, &ToRelay::Deny { request, reason });
            }
        }
    }

    /// Closes one page, identified by the numbers of its [`Event::PageMessage`].
    pub fn kick(&mut self, relay: RelayId, page: u32, reason: &str) {
        self.send(relay, &ToRelay::Kick { page, reason: cut(reason, REASON_SIZE_MAX) });
    }

    /// Asks every relay that knows how to connect to another business server within this time.
    /// Returns how many were asked; the others notice when their connections end. They still get
    /// all that is published, until they are connected elsewhere.
    pub fn send_away(&mut self, within: Duration) -> usize {
        let within_s = u32::try_from(within.as_secs()).unwrap_or(u32::MAX);
        let asked: Vec<RelayId> =
            self.relays.iter().filter(|(_, row)| row.session.features().away).map(|(relay, _)| *relay).collect();
        for relay in &asked {
            self.send(*relay, &ToRelay::Away { within_s });
        }
        asked.len()
    }

    /// Sends a `Ping` to a relay, and returns its nonce, which the `Pong` repeats. `None` if the
    /// relay is gone. The `Ping` overtakes publications that were not [`take`](Self::take)n yet.
    pub fn ping(&mut self, relay: RelayId) -> Option<u32> {
        let row = self.relays.get_mut(&relay).filter(|row| row.is_counted)?;
        let nonce = row.session.ping();
        self.mark_ready_or_end(relay);
        Some(nonce)
    }

    /// Accepts a request. The relay then receives what it lacks of the topic, and all new
    /// publications. Does nothing if the request is not open any more: its relay is gone, its link
    /// was revoked, or it was already answered.
    ///
    /// # Errors
    /// The topic is not open; nothing was sent.
    pub fn accept(
        &mut self,
        relay: RelayId,
        request: u32,
        (topic, grant): (u32, Grant),
        since: Option<Since>,
    ) -> Result<(), NotOpen> {
        let Some(open) = self.topics.get_mut(&topic) else {
            let reason = self.ended.iter().find(|(ended, _)| *ended == topic);
            return Err(reason.map_or(NotOpen::Unknown, |(_, reason)| NotOpen::Ended(reason.clone())));
        };
        let Some(row) = self.relays.get_mut(&relay) else { return Ok(()) };
        if row.take_request(request)
            && row.session.push(&ToRelay::Accept { request, topic, epoch: open.epoch(), grant })
            && row.admit(topic, open.cursors(since, grant.replay))
        {
            open.joined();
        }
        self.mark_ready_or_end(relay);
        Ok(())
    }

    /// Denies a request. Does nothing if it is not open any more, like [`accept`](Self::accept).
    pub fn deny(&mut self, relay: RelayId, request: u32, reason: &str) {
        if self.relays.get_mut(&relay).is_some_and(|row| row.take_request(request)) {
            self.send(relay, &ToRelay::Deny { request, reason: cut(reason, REASON_SIZE_MAX) });
        }
    }

    /// Changes the [secrets](Settings::secrets) for the handshakes to come. Relays that are
    /// connected stay.
    pub fn set_secrets(&mut self, secrets: Vec<Vec<u8>>) {
        self.settings.secrets = secrets;
    }

    /// Adds a connection, with its first frame ready to be written. `challenge` must be random and
    /// new; one of [`wire::uplink::marked`] offers extensions. If the maximum number of
    /// connections has not authenticated yet, the oldest of them is closed: a relay only needs one
    /// round trip for it.
    pub fn connect(&mut self, now: Duration, challenge: [u8; 16]) -> RelayId {
        let limits = self.settings.limits;
        if self.relays.len() - self.relays_up >= limits.strangers_max
            && let Some(oldest) = self.relays.iter().find(|(_, relay)| !relay.is_counted).map(|(id, _)| *id)
        {
            self.disconnect(oldest, Ended::GaveWay);
        }
        self.next_relay += 1;
        let id = RelayId(self.next_relay);
        let session = Session::new(now, challenge, self.settings.times, &limits);
        let relay = self.relays.entry(id).or_insert(Relay::new(session));
        mark_ready(&mut self.ready, id, relay);
        id
    }

    /// Handles bytes from a relay. `false` if they violate the protocol, or the relay is already
    /// gone.
    pub fn received(&mut self, now: Duration, relay: RelayId, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let Some(row) = self.relays.get_mut(&relay) else { return false };
            let space = row.session.space();
            let (first, rest) = bytes.split_at(space.len().min(bytes.len()));
            space.iter_mut().zip(first).for_each(|(to, from)| *to = *from);
            row.session.filled(first.len());
            bytes = rest;
            while let Some(row) = self.relays.get_mut(&relay) {
                match row.session.next(now, &self.settings.secrets) {
                    Ok(Some(input)) => self.handle(now, relay, input),
                    Ok(None) => break,
                    Err(why) => self.disconnect(relay, why),
                }
            }
        }
        self.mark_ready_or_end(relay);
        self.relays.contains_key(&relay)
    }

    fn handle(&mut self, now: Duration, relay: RelayId, input: Input) {
        let Some(row) = self.relays.get_mut(&relay) else { return };
        match input {
            Input::Hello(name, secret) => {
                if self.relays_up >= self.settings.limits.relays_max {
                    row.name = name;
                    return self.disconnect(relay, Ended::TooManyRelays);
                }
                self.relays_up += 1;
                row.is_counted = true;
                row.name.clone_from(&name);
                self.events.push_back(Event::RelayUp { relay, name, secret });
            }
            Input::Subscribe { request, link, since, address, origin } => {
                row.add_request(request, &link);
                self.events.push_back(Event::Asked { relay, request, link, since, address, origin });
            }
            Input::Unsubscribe { topic } => {
                if let Some(pages) = row.leave(topic) {
                    self.topics.get_mut(&topic).into_iter().for_each(|open| open.left(pages));
                    self.events.push_back(Event::Unsubscribed { relay, topic });
                    self.audiences.insert(topic);
                }
            }
            Input::Audience { topic, pages } => {
                if let Some(before) = row.set_pages(topic, pages) {
                    self.topics.get_mut(&topic).into_iter().for_each(|open| open.repaged(before, pages));
                    self.audiences.insert(topic);
                }
            }
            // What was in flight when the topic ended or was unsubscribed is dropped.
            Input::PageMessage { topic, page, data, id } if row.has(topic) => {
                let author = row.session.author(page);
                if self.is_new(now, (topic, id), (relay, page)) {
                    self.events.push_back(Event::PageMessage { topic, relay, page, data, author, id });
                }
            }
            Input::PageMessage { .. } => {}
            Input::Pong { nonce } => self.events.push_back(Event::Pong { relay, nonce }),
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) for a relay; `None` if it is gone.
    #[must_use]
    pub fn deadline(&self, relay: RelayId) -> Option<Duration> {
        self.relays.get(&relay).map(|row| row.session.deadline())
    }

    /// Handles a relay's deadline: pings it, or disconnects it.
    pub fn handle_timeout(&mut self, now: Duration, relay: RelayId) {
        let Some(row) = self.relays.get_mut(&relay) else { return };
        match row.session.handle_timeout(now) {
            Ok(()) => self.mark_ready_or_end(relay),
            Err(why) => self.disconnect(relay, why),
        }
    }

    /// Removes a relay whose connection has ended or must end. Does nothing if it is already gone.
    pub fn disconnect(&mut self, relay: RelayId, why: Ended) {
        let Some(row) = self.relays.remove(&relay) else { return };
        if !row.is_ready {
            self.ready.push_back(relay);
        }
        self.relays_up -= usize::from(row.is_counted);
        for (topic, pages) in row.topics() {
            self.topics.get_mut(&topic).into_iter().for_each(|open| open.left(pages));
            if pages > 0 {
                self.audiences.insert(topic);
            }
        }
        self.events.push_back(Event::RelayDown { relay, name: row.name, why });
    }

    /// Takes the next frames to be written to a relay, until they have at least `size` bytes or
    /// there are no more. Answers come first, then its topics in round-robin. `false` if the relay
    /// is gone.
    pub fn take(&mut self, relay: RelayId, size: usize, frames: &mut Vec<Arc<[u8]>>) -> bool {
        let Some(row) = self.relays.get_mut(&relay) else { return false };
        let mut taken = 0;
        while taken < size {
            let Some(frame) = row.take(&self.topics) else { break };
            taken += frame.len();
            frames.push(frame);
        }
        true
    }

    /// Records a sign of life: a relay's full socket took bytes again.
    pub fn took(&mut self, now: Duration, relay: RelayId) {
        if let Some(row) = self.relays.get_mut(&relay) {
            row.session.took(now);
        }
    }

    /// The next event, oldest first; changes of audiences come after all others.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front().or_else(|| {
            let topic = self.audiences.pop_first()?;
            Some(Event::Audience { topic, pages: self.audience(topic) })
        })
    }

    /// A relay that has had something to be written since it was last returned: call
    /// [`take`](Self::take) until there is nothing. Also returns relays that are gone, whose
    /// sockets must be closed. Callers that always take from all relays must drain it too.
    pub fn poll_ready(&mut self) -> Option<RelayId> {
        let relay = self.ready.pop_front()?;
        if let Some(row) = self.relays.get_mut(&relay) {
            row.is_ready = false;
        }
        Some(relay)
    }

    pub(super) fn send(&mut self, relay: RelayId, frame: &ToRelay<'_>) {
        let Some(row) = self.relays.get_mut(&relay).filter(|row| row.is_counted) else { return };
        row.session.push(frame);
        self.mark_ready_or_end(relay);
    }

    /// Disconnects a relay whose queue has overflowed; otherwise marks it as ready.
    fn mark_ready_or_end(&mut self, relay: RelayId) {
        let Some(row) = self.relays.get_mut(&relay) else { return };
        if row.session.is_full() {
            return self.disconnect(relay, Ended::Unread(self.settings.limits.answers_size_max));
        }
        mark_ready(&mut self.ready, relay, row);
    }
}

fn mark_ready(ready: &mut VecDeque<RelayId>, id: RelayId, relay: &mut Relay) {
    if !relay.is_ready {
        relay.is_ready = true;
        ready.push_back(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;
    use wire::uplink::{
        Deframer, Incoming, PageInfo, ToBusiness, VERSION, author, business_proof, encode, marked, relay_proof,
    };

    const GRANT: Grant = Grant { shared: true, ttl_s: 60, page_messages: true, replay: 2 };
    const SECRET: &[u8] = b"s3cret";
    const CHALLENGE: [u8; 16] = [3; 16];

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn settings() -> Settings {
        Settings { secrets: vec![SECRET.to_vec()], ..Settings::default() }
    }

    /// A relay played by the test, without a socket.
    struct Peer {
        id: RelayId,
        deframer: Deframer,
    }

    impl Peer {
        fn connect(business: &mut Business) -> Self {
            Self { id: business.connect(Duration::ZERO, CHALLENGE), deframer: Deframer::new(1 << 20).with_extensions() }
        }

        fn join(business: &mut Business) -> Self {
            Self::join_by(business, CHALLENGE, [7; 16])
        }

        fn join_by(business: &mut Business, challenge: [u8; 16], nonce: [u8; 16]) -> Self {
            let id = business.connect(Duration::ZERO, challenge);
            let mut peer = Self { id, deframer: Deframer::new(1 << 20).with_extensions() };
            assert_eq!(peer.reads(business), [format!("Challenge {VERSION} {challenge:?}")]);
            let proof = relay_proof(SECRET, &challenge, &nonce);
            peer.sends(business, &ToBusiness::Hello { version: VERSION, relay: "by hand", nonce, proof });
            let proof = business_proof(SECRET, &nonce, &challenge);
            assert_eq!(peer.reads(business), [format!("Welcome {VERSION} {proof:?}")]);
            peer
        }

        fn sends(&self, business: &mut Business, frame: &ToBusiness<'_>) -> bool {
            let mut bytes = [0; 1024];
            let size = encode(frame, &mut bytes).unwrap();
            // In pieces, as from a socket.
            let (first, last) = bytes[..size].split_at(size / 2);
            business.received(Duration::ZERO, self.id, first) && business.received(Duration::ZERO, self.id, last)
        }

        fn requests(&self, business: &mut Business, request: u32, link: &str, since: Option<Since>) {
            self.sends(business, &ToBusiness::Subscribe { request, link, since, page: PageInfo::default() });
        }

        /// Everything pending for it, as text that is easy to compare.
        fn reads(&mut self, business: &mut Business) -> Vec<String> {
            let mut frames = Vec::new();
            business.take(self.id, usize::MAX, &mut frames);
            let mut texts = Vec::new();
            for frame in frames {
                let space = self.deframer.space();
                space[..frame.len()].copy_from_slice(&frame);
                self.deframer.filled(frame.len());
                let Ok(Some(Incoming::Frame(frame))) = self.deframer.next_frame() else { panic!("a whole frame") };
                texts.push(match frame {
                    ToRelay::Challenge { version, nonce } => format!("Challenge {version} {nonce:?}"),
                    ToRelay::Sent { page, id } => format!("Sent {page} {}", id[0]),
                    ToRelay::Welcome { version, proof } => format!("Welcome {version} {proof:?}"),
                    ToRelay::Accept { request, topic, epoch, .. } => {
                        format!("Accept {request} topic {topic} epoch {epoch}")
                    }
                    ToRelay::Publish { topic, track, sequence, part, data } => {
                        let part = if let Part::Init { mime } = part { mime.to_owned() } else { format!("{part:?}") };
                        format!("{topic} {} {sequence} {part} {}", track.name(), String::from_utf8_lossy(data))
                    }
                    ToRelay::Deny { request, reason } => format!("Deny {request} {reason}"),
                    ToRelay::End { topic, reason } => format!("End {topic} {reason}"),
                    ToRelay::Revoke { link, reason } => format!("Revoke {link} {reason}"),
                    ToRelay::Kick { page, reason } => format!("Kick {page} {reason}"),
                    ToRelay::Ping { nonce } => format!("Ping {nonce}"),
                    ToRelay::Pong { nonce } => format!("Pong {nonce}"),
                    ToRelay::Features { words } => format!("Features {words}"),
                    ToRelay::Away { within_s } => format!("Away {within_s}"),
                });
            }
            texts
        }
    }

    /// Accepts requests for the link "good" and denies others; returns all events.
    fn answer(business: &mut Business) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = business.poll_event() {
            if let Event::Asked { relay, request, link, since, .. } = &event {
                let known = if link == "good" { Ok((5, GRANT)) } else { Err(NotOpen::Unknown) };
                if let Err(why) = known.and_then(|row| business.accept(*relay, *request, row, *since)) {
                    business.deny(*relay, *request, &format!("{why:?}"));
                }
            }
            events.push(event);
        }
        events
    }

    fn publish(business: &mut Business, track: Track, part: Part<'_>, text: &str) {
        business.publish(5, track, part, text.as_bytes()).unwrap();
    }

    #[test]
    fn a_relay_gets_what_a_late_page_needs_and_then_everything() {
        let mut business = Business::new(settings());
        assert!(business.open(5, 70));
        for text in ["1", "2", "3"] {
            publish(&mut business, Track::Messages, Part::Whole, text);
            publish(&mut business, Track::State, Part::Whole, text);
        }
        for (part, text) in
            [(Part::Init { mime: "video/x" }, "i"), (Part::Start, "a"), (Part::Start, "b"), (Part::Continue, "c")]
        {
            publish(&mut business, Track::Video, part, text);
        }
        let mut relay = Peer::join(&mut business);
        relay.requests(&mut business, 9, "good", None);
        answer(&mut business);
        let expected = [
            "Accept 9 topic 5 epoch 70",
            "5 messages 2 Whole 2",
            "5 messages 3 Whole 3",
            "5 state 3 Whole 3",
            "5 video 1 video/x i",
            "5 video 3 Start b",
            "5 video 4 Continue c",
        ];
        assert_eq!(relay.reads(&mut business), expected);
        publish(&mut business, Track::Messages, Part::Whole, "4");
        assert_eq!(relay.reads(&mut business), ["5 messages 4 Whole 4"]);

        // Another relay, which returns with its cursors, and requests an unknown link.
        let mut other = Peer::join(&mut business);
        other.requests(&mut business, 1, "good", Some(Since { epoch: 70, next: [4, 2, 0, 4] }));
        other.requests(&mut business, 2, "bad", None);
        answer(&mut business);
        let expected = [
            "Accept 1 topic 5 epoch 70",
            "Deny 2 Unknown",
            "5 messages 2 Whole 2",
            "5 messages 3 Whole 3",
            "5 messages 4 Whole 4",
            "5 video 4 Continue c",
        ];
        assert_eq!(other.reads(&mut business), expected);

        relay.sends(&mut business, &ToBusiness::Unsubscribe { topic: 5 });
        publish(&mut business, Track::Messages, Part::Whole, "5");
        assert_eq!(relay.reads(&mut business), [""; 0], "nothing of a topic that it gave up");
        assert_eq!(other.reads(&mut business), ["5 messages 5 Whole 5"]);
    }

    #[test]
    fn a_relay_that_surely_has_a_topic_goes_on_where_it_is_and_another_begins_anew() {
        let mut business = Business::new(settings());
        business.open(5, 70);
        for text in ["1", "2", "3"] {
            publish(&mut business, Track::Messages, Part::Whole, text);
        }
        publish(&mut business, Track::Audio, Part::Init { mime: "audio/x" }, "i");
        publish(&mut business, Track::Audio, Part::Start, "a");
        let mut relay = Peer::join(&mut business);
        let all = ["5 messages 2 Whole 2", "5 messages 3 Whole 3", "5 audio 1 audio/x i", "5 audio 2 Start a"];
        // The answer to the first crosses the `Unsubscribe`: the relay drops what it receives, and
        // requests again.
        for request in [1, 2] {
            relay.requests(&mut business, request, "good", None);
            answer(&mut business);
            assert_eq!(relay.reads(&mut business)[1..], all, "request {request}");
        }
        relay.sends(&mut business, &ToBusiness::Audience { topic: 5, pages: 1 });
        relay.requests(&mut business, 3, "good", Some(Since { epoch: 70, next: [0, 1, 0, 0] }));
        answer(&mut business);
        assert_eq!(relay.reads(&mut business), ["Accept 3 topic 5 epoch 70"], "it has all that");
        publish(&mut business, Track::Audio, Part::Continue, "b");
        assert_eq!(relay.reads(&mut business), ["5 audio 3 Continue b"]);
        // In one read, as the relay may have sent it: the answer comes after the `Unsubscribe`.
        relay.requests(&mut business, 4, "good", None);
        relay.sends(&mut business, &ToBusiness::Unsubscribe { topic: 5 });
        answer(&mut business);
        relay.reads(&mut business);
        relay.requests(&mut business, 5, "good", None);
        answer(&mut business);
        let read = relay.reads(&mut business);
        assert_eq!(read[1..], [&all[..], &["5 audio 3 Continue b"]].concat());
    }

    #[test]
    fn a_link_that_is_revoked_admits_nobody_who_asked_before() {
        let mut business = Business::new(settings());
        business.open(5, 70);
        let mut relay = Peer::join(&mut business);
        relay.requests(&mut business, 1, "good", None);
        relay.requests(&mut business, 2, "other", None);
        business.revoke("good", "taken back");
        business.revoke(&"x".repeat(LINK_SIZE_MAX + 1), "no link at all");
        business.accept(relay.id, 1, (5, GRANT), None).unwrap();
        business.accept(relay.id, 2, (5, GRANT), None).unwrap();
        business.accept(relay.id, 2, (5, GRANT), None).unwrap();
        let expected = ["Revoke good taken back", "Deny 1 taken back", "Accept 2 topic 5 epoch 70"];
        assert_eq!(relay.reads(&mut business), expected, "each request is answered once");
    }

    #[test]
    fn only_a_relay_that_knows_extensions_gets_them() {
        let mut business = Business::new(settings());
        let nonces = [[7; 16], marked([7; 12]), marked([7; 12])];
        let [mut old, mut new, mut other] = nonces.map(|nonce| Peer::join_by(&mut business, marked([5; 12]), nonce));
        assert_eq!(business.send_away(Duration::from_secs(9)), 0, "nobody has named it");
        assert!(new.sends(&mut business, &ToBusiness::Features { words: "later away" }));
        assert!(other.sends(&mut business, &ToBusiness::Features { words: "later" }));
        for relay in [&mut new, &mut other] {
            assert_eq!(relay.reads(&mut business), ["Features away"]);
        }
        assert_eq!(business.send_away(Duration::from_secs(9)), 1);
        assert_eq!(new.reads(&mut business), ["Away 9"]);
        assert!(old.reads(&mut business).is_empty() && other.reads(&mut business).is_empty());
        // To those of plain version 1 it is no frame, whichever side that is.
        let plain = Peer::join_by(&mut business, CHALLENGE, marked([7; 12]));
        for relay in [old, plain] {
            assert!(!relay.sends(&mut business, &ToBusiness::Features { words: "away" }));
        }
    }

    #[test]
    fn a_topic_goes_on_with_counters_of_elsewhere() {
        let mut business = Business::new(settings());
        assert!(business.open_at(5, 70, [3, 1000, 0, 0]));
        let mut relay = Peer::join(&mut business);
        relay.requests(&mut business, 1, "good", Some(Since { epoch: 70, next: [3, 999, 0, 0] }));
        answer(&mut business);
        for (track, sequence) in [(Track::Messages, 1000), (Track::Messages, 1007), (Track::State, 3)] {
            business.publish_as(5, track, sequence, Part::Whole, b"1").unwrap();
        }
        let expected =
            ["Accept 1 topic 5 epoch 70", "5 messages 1000 Whole 1", "5 messages 1007 Whole 1", "5 state 3 Whole 1"];
        assert_eq!(relay.reads(&mut business), expected);
    }

    #[test]
    fn topics_take_turns_and_answers_come_first() {
        let mut business = Business::new(settings());
        let mut relay = Peer::join(&mut business);
        for topic in [5, 6] {
            business.open(topic, 1);
            relay.requests(&mut business, topic, "any", None);
            business.accept(relay.id, topic, (topic, GRANT), None).unwrap();
        }
        relay.reads(&mut business);
        for topic in [5, 5, 6] {
            business.publish(topic, Track::Messages, Part::Whole, b"1").unwrap();
        }
        business.kick(relay.id, 3, "");
        let read = relay.reads(&mut business);
        assert_eq!(read, ["Kick 3 ", "5 messages 1 Whole 1", "6 messages 1 Whole 1", "5 messages 2 Whole 1"]);
        assert_eq!(business.poll_ready(), Some(relay.id));
        assert_eq!(business.poll_ready(), None, "reported once");
    }

    #[test]
    fn a_topic_ends_and_opens_anew() {
        let mut business = Business::new(settings());
        business.open(5, 70);
        let mut relay = Peer::join(&mut business);
        relay.requests(&mut business, 1, "good", None);
        answer(&mut business);
        publish(&mut business, Track::State, Part::Whole, "1");
        business.end(5, "closed for today");
        assert_eq!(relay.reads(&mut business), ["Accept 1 topic 5 epoch 70", "End 5 closed for today"]);
        relay.requests(&mut business, 2, "good", None);
        answer(&mut business);
        assert_eq!(relay.reads(&mut business), ["Deny 2 Ended(\"closed for today\")"]);
        assert_eq!(business.publish(5, Track::State, Part::Whole, b"1"), Err(PublishError::Closed));
        business.open(5, 71);
        relay.requests(&mut business, 3, "good", Some(Since { epoch: 70, next: [1, 1, 0, 0] }));
        answer(&mut business);
        publish(&mut business, Track::State, Part::Whole, "2");
        assert_eq!(relay.reads(&mut business), ["Accept 3 topic 5 epoch 71", "5 state 1 Whole 2"]);
        business.revoke("good", "taken back");
        business.open(5, 72);
        assert_eq!(relay.reads(&mut business), ["Revoke good taken back", "End 5 the topic was reopened"]);
        business.forget(5, "gone");
        relay.requests(&mut business, 4, "good", None);
        answer(&mut business);
        assert_eq!(relay.reads(&mut business), ["Deny 4 Unknown"]);
    }

    #[test]
    fn audiences_add_up_and_leave_with_their_relay() {
        let mut business = Business::new(settings());
        business.open(5, 70);
        let (one, two) = (Peer::join(&mut business), Peer::join(&mut business));
        for (relay, pages) in [(&one, 3), (&two, 4)] {
            relay.requests(&mut business, 1, "good", None);
            answer(&mut business);
            relay.sends(&mut business, &ToBusiness::Audience { topic: 5, pages });
            relay.sends(&mut business, &ToBusiness::Audience { topic: 6, pages: 99 });
        }
        assert_eq!((business.audience(5), business.audience(6)), (7, 0));
        two.sends(&mut business, &ToBusiness::PageMessage { topic: 5, page: 12, data: "hi" });
        two.sends(&mut business, &ToBusiness::PageMessage { topic: 6, page: 12, data: "of no topic that it has" });
        business.disconnect(one.id, Ended::Closed("it left".to_owned()));
        let events = answer(&mut business);
        let audience = Event::Audience { topic: 5, pages: 4 };
        let (author, id) = (author(&CHALLENGE, &[7; 16], 12), None);
        let said = Event::PageMessage { topic: 5, relay: two.id, page: 12, data: "hi".to_owned(), author, id };
        let why = Ended::Closed("it left".to_owned());
        let down = Event::RelayDown { relay: one.id, name: "by hand".to_owned(), why };
        assert_eq!(events, [said, down, audience], "the newest number, once");
        assert_eq!(business.relays(), 1);
    }

    #[test]
    fn a_topic_is_held_until_its_last_relay_gives_it_up() {
        let mut business = Business::new(settings());
        business.open(5, 70);
        let (mut one, two) = (Peer::join(&mut business), Peer::join(&mut business));
        // Admitted twice, it has it once.
        for request in [1, 2] {
            one.requests(&mut business, request, "good", None);
            answer(&mut business);
        }
        two.requests(&mut business, 1, "good", None);
        answer(&mut business);
        for pages in [3, 2] {
            one.sends(&mut business, &ToBusiness::Audience { topic: 5, pages });
        }
        assert_eq!((business.is_held(5), business.audience(5), business.held_by(one.id)), (true, 2, (1, 2)));
        one.sends(&mut business, &ToBusiness::Unsubscribe { topic: 5 });
        one.sends(&mut business, &ToBusiness::Unsubscribe { topic: 5 });
        assert_eq!((business.is_held(5), business.audience(5)), (true, 0));
        business.disconnect(two.id, Ended::Closed("it left".to_owned()));
        assert!(!business.is_held(5));
        one.requests(&mut business, 3, "good", None);
        answer(&mut business);
        one.sends(&mut business, &ToBusiness::Audience { topic: 5, pages: 1 });
        business.open(5, 71);
        assert_eq!((business.is_held(5), business.audience(5)), (false, 0), "relays have it no more");
        one.reads(&mut business);
    }

    #[test]
    fn a_wrong_proof_a_wrong_version_and_garbage_end_the_connection() {
        let mut business = Business::new(settings());
        let proof = |secret| relay_proof(secret, &CHALLENGE, &[1; 16]);
        for (version, secret, why) in [(1, b"wrong.", Ended::Proof), (2, b"s3cret", Ended::Version(2))] {
            let relay = Peer::connect(&mut business);
            let hello = ToBusiness::Hello { version, relay: "x", nonce: [1; 16], proof: proof(secret) };
            assert!(!relay.sends(&mut business, &hello));
            let down = Event::RelayDown { relay: relay.id, name: String::new(), why };
            assert_eq!(answer(&mut business), [down]);
        }
        let eager = Peer::connect(&mut business);
        eager.requests(&mut business, 1, "good", None);
        assert!(matches!(answer(&mut business)[..], [Event::RelayDown { why: Ended::NoHello, .. }]));
        for garbage in [&[0, 0, 0, 0][..], &[1, 0, 0, 0, 99], &[3, 0, 0, 0, 5, 1, 9], &[255; 4], &[2, 0, 16, 0, 1, 1]] {
            let relay = Peer::join(&mut business);
            answer(&mut business);
            assert!(!business.received(Duration::ZERO, relay.id, garbage), "{garbage:?}");
            assert!(matches!(answer(&mut business)[..], [Event::RelayDown { why: Ended::Frame(_), .. }]));
            assert!(!business.take(relay.id, 1, &mut Vec::new()) && business.relays() == 0);
        }
        let mut relay = Peer::join(&mut business);
        assert!(business.received(Duration::ZERO, relay.id, &[2, 0, 0, 0, 5, 1]));
        assert_eq!(relay.reads(&mut business), ["Pong 1"]);
    }

    #[test]
    fn a_silent_relay_is_pinged_and_then_given_up() {
        let mut business = Business::new(settings());
        let mut relay = Peer::join(&mut business);
        answer(&mut business);
        assert_eq!(business.deadline(relay.id), Some(seconds(10)));
        for (at, reads, next) in [(9, &[][..], 10), (10, &["Ping 1"], 20), (20, &["Ping 2"], 30), (29, &[], 30)] {
            business.handle_timeout(seconds(at), relay.id);
            assert_eq!(
                (relay.reads(&mut business), business.deadline(relay.id)),
                (reads.iter().map(ToString::to_string).collect(), Some(seconds(next)))
            );
        }
        business.handle_timeout(seconds(30), relay.id);
        assert!(matches!(answer(&mut business)[..], [Event::RelayDown { why: Ended::Silent(_), .. }]));
        // A relay that reads is alive, but not forever.
        let thin = Peer::join(&mut business);
        answer(&mut business);
        for at in (20..300).step_by(20) {
            business.took(seconds(at), thin.id);
            business.handle_timeout(seconds(at + 9), thin.id);
            assert_eq!(answer(&mut business), []);
        }
        business.took(seconds(299), thin.id);
        business.handle_timeout(seconds(300), thin.id);
        assert!(matches!(answer(&mut business)[..], [Event::RelayDown { why: Ended::Silent(_), .. }]));
        let mute = Peer::connect(&mut business);
        business.handle_timeout(seconds(5), mute.id);
        assert!(matches!(answer(&mut business)[..], [Event::RelayDown { why: Ended::NoHandshake(_), .. }]));
    }

    #[test]
    fn a_message_with_an_id_is_an_event_once_and_its_page_is_told() {
        let limits = Limits { receipts_max: 9, ..Limits::default() };
        let mut business = Business::new(Settings { limits, ..settings() });
        business.open(5, 70);
        let mut relays = [7, 8].map(|n| Peer::join_by(&mut business, marked([n; 12]), marked([n; 12])));
        for relay in &mut relays {
            relay.sends(&mut business, &ToBusiness::Features { words: "away receipts" });
            relay.requests(&mut business, 1, "good", None);
            answer(&mut business);
            assert_eq!(relay.reads(&mut business), ["Features away receipts", "Accept 1 topic 5 epoch 70"]);
        }
        let send = |page, id: u8| ToBusiness::Send { topic: 5, page, id: [id; 16], data: "hi" };
        let [one, two] = &mut relays;
        one.sends(&mut business, &send(12, 1));
        two.sends(&mut business, &send(4, 1));
        let (author, id) = (author(&marked([7; 12]), &marked([7; 12]), 12), Some([1; 16]));
        let said = Event::PageMessage { topic: 5, relay: one.id, page: 12, data: "hi".to_owned(), author, id };
        assert_eq!(answer(&mut business), [said]);
        business.confirm(5, &[1; 16]);
        business.confirm(5, &[1; 16]);
        assert_eq!((one.reads(&mut business), two.reads(&mut business)), (vec![], vec!["Sent 4 1".to_owned()]));
        one.sends(&mut business, &send(12, 1));
        assert_eq!((answer(&mut business), one.reads(&mut business)), (vec![], vec!["Sent 12 1".to_owned()]));
        one.sends(&mut business, &send(12, 2));
        business.forget_message(5, &[2; 16]);
        one.sends(&mut business, &send(12, 2));
        assert_eq!(answer(&mut business).len(), 2, "what was lost may come again");
    }

    #[test]
    fn who_gives_no_receipts_is_sent_none_of_their_frames() {
        let mut business = Business::new(settings());
        let mut relay = Peer::join_by(&mut business, marked([7; 12]), marked([7; 12]));
        relay.sends(&mut business, &ToBusiness::Features { words: "away receipts" });
        assert_eq!(relay.reads(&mut business), ["Features away"]);
        assert!(!relay.sends(&mut business, &ToBusiness::Send { topic: 5, page: 1, id: [1; 16], data: "hi" }));
    }

    #[test]
    fn a_relay_that_does_not_read_costs_no_memory_and_one_that_only_asks_is_cut_off() {
        let limits = Limits {
            answers_size_max: 1000,
            media_size_max: 1000,
            relays_max: 1,
            strangers_max: 2,
            topics_max: 1,
            ..Limits::default()
        };
        let mut business = Business::new(Settings { limits, ..settings() });
        assert!(business.open(5, 70) && !business.open(6, 1) && business.open(5, 71));
        let relay = Peer::join(&mut business);
        relay.requests(&mut business, 1, "good", None);
        answer(&mut business);
        for part in [Part::Init { mime: "video/x" }, Part::Start].into_iter().chain([Part::Continue; 100]) {
            business.publish(5, Track::Video, part, &[0; 500]).unwrap();
        }
        assert!(business.topic(5).is_some_and(|topic| topic.track(Track::Video).kept().len() == 1));
        let silent = Peer::connect(&mut business);
        assert_eq!(business.poll_event(), None);
        let other = Peer::connect(&mut business);
        let _third = Peer::connect(&mut business);
        let gave_way = Event::RelayDown { relay: silent.id, name: String::new(), why: Ended::GaveWay };
        assert_eq!(answer(&mut business), [gave_way], "two connections may be unauthenticated");
        let proof = relay_proof(SECRET, &CHALLENGE, &[1; 16]);
        other.sends(&mut business, &ToBusiness::Hello { version: VERSION, relay: "other", nonce: [1; 16], proof });
        assert!(matches!(answer(&mut business)[..], [Event::RelayDown { why: Ended::TooManyRelays, .. }]));
        assert_eq!(business.relays(), 1);
        for nonce in 0..1000 {
            relay.sends(&mut business, &ToBusiness::Ping { nonce });
        }
        assert!(matches!(answer(&mut business)[..], [.., Event::RelayDown { why: Ended::Unread(1000), .. }]));
        assert_eq!(business.relays(), 0);
    }
}
