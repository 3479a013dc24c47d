//! Who may watch: decides each request of a relay.
//!
//! Owns the ways to decide (signed links, the webhook `subscribe`, and `dev`, which admits
//! everybody), the grants and denials that are remembered, the calls of the webhook and who waits
//! for them, and the revocations. A herd on one link is one call. No answer is never a denial: who
//! waits for it stays unanswered, and the relay tells its pages to come back. All of it is bounded;
//! where something is full, the request stays unanswered too. Doesn't know topics: `topics.rs`
//! attaches and accepts.

mod remembered;
mod turns;

use core::time::Duration;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use business::RelayId;
use remembered::{Denials, Grants, Key};
use sha2::{Digest, Sha256};
use turns::Turns;
use wire::uplink::{Grant, Since};

pub use turns::QuestionId;

use super::{
    Name,
    engine::LinkHash,
    link::{self, LinkKey},
    rate::{Bucket, Rate},
};

/// A relay gives up a request after this time. Requests that are older are dropped.
const PATIENCE: Duration = Duration::from_secs(10);

/// A call without an answer is made again after this time, while somebody waits for it.
const RETRY: Duration = Duration::from_secs(1);

/// How links are decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// A link is the name of its topic, and everybody may watch.
    Dev,
    /// By what the link says itself.
    Signed,
    /// By the webhook.
    Webhook,
    /// By what the link says if it is signed, else by the webhook.
    SignedOrWebhook,
}

/// How to decide.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The way.
    pub links: Links,
    /// The keys of signed links: the first signs, all verify.
    pub keys: Vec<LinkKey>,
    /// The time to live of grants that no webhook gave, in seconds. A signed link that ends earlier
    /// has less.
    pub ttl_s: u32,
    /// In `dev`: messages for a late page.
    pub replay: u16,
    /// In `dev`: whether pages may send.
    pub page_messages: bool,
    /// Webhook calls under way.
    pub calls_max: usize,
    /// Webhook calls under way and waiting.
    pub queued_max: usize,
    /// Requests that wait for calls.
    pub waiting_max: usize,
    /// Grants that are remembered.
    pub grants_max: usize,
    /// Denials that are remembered.
    pub denials_max: usize,
    /// How long a denial is remembered.
    pub denial_ttl: Duration,
    /// For each relay, the requests for links that are not known.
    pub unknown: Rate,
    /// Calls without an answer, one after the other, after which none is made for a while.
    pub failures_max: u32,
    /// That while. After it one call is made, and if it is answered, all others are.
    pub rest: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            links: Links::Dev,
            keys: Vec::new(),
            ttl_s: 300,
            replay: 50,
            page_messages: true,
            calls_max: 32,
            queued_max: 4096,
            waiting_max: 16_384,
            grants_max: 20_000,
            denials_max: 10_000,
            denial_ttl: Duration::from_secs(10),
            unknown: Rate { burst: 400, per_s: 200 },
            failures_max: 5,
            rest: Duration::from_secs(5),
        }
    }
}

/// A request of a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The relay's connection.
    pub relay: RelayId,
    /// The number of the request.
    pub request: u32,
    /// The link.
    pub link: Arc<str>,
    /// What the relay has.
    pub since: Option<Since>,
    /// The page's address; empty for the link as a whole.
    pub address: Arc<str>,
    /// The page's `Origin`.
    pub origin: Arc<str>,
    /// When it came.
    pub at: Duration,
}

/// What is decided about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Show it this topic.
    Admit(Name, Grant),
    /// Nobody may watch; why.
    Deny(Arc<str>),
}

/// A call of the webhook that is to be made now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// The link.
    pub link: Arc<str>,
    /// The page's address and `Origin`; `None` for the link as a whole.
    pub page: Option<(Arc<str>, Arc<str>)>,
}

/// What the webhook said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The link shows this topic.
    Accept(Name, Grant),
    /// Nobody may watch; why.
    Deny(Arc<str>),
    /// Silence, a failure, or nonsense.
    NoAnswer,
}

/// The decisions of one hub.
#[derive(Debug)]
pub struct Admission {
    settings: Settings,
    grants: Grants,
    denials: Denials,
    revoked: BTreeMap<LinkHash, (Arc<str>, Duration)>,
    calls: BTreeMap<QuestionId, Question>,
    by_key: BTreeMap<Key, QuestionId>,
    turns: Turns,
    /// Calls that were not answered, and when to make them again.
    unanswered: VecDeque<(Duration, QuestionId)>,
    under_way: usize,
    waiting: usize,
    next_call: u64,
    rates: BTreeMap<RelayId, Bucket>,
    failures: u32,
    rests_until: Duration,
}

#[derive(Debug)]
struct Question {
    key: Key,
    waiting: Vec<Asker>,
    is_under_way: bool,
    is_renewal: bool,
}

impl Admission {
    /// Nothing is known yet.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self {
            grants: Grants::new(settings.grants_max),
            denials: Denials::new(settings.denials_max),
            settings,
            revoked: BTreeMap::new(),
            calls: BTreeMap::new(),
            by_key: BTreeMap::new(),
            turns: Turns::new(),
            unanswered: VecDeque::new(),
            under_way: 0,
            waiting: 0,
            next_call: 0,
            rates: BTreeMap::new(),
            failures: 0,
            rests_until: Duration::ZERO,
        }
    }

    /// Changes how it is decided from now on. What was granted holds until its time is over.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// How it is decided.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Decides a request. `None`: it waits for a call, or stays unanswered.
    pub fn decide(&mut self, now: Duration, unix_s: u64, asker: Asker) -> Option<Decision> {
        if let Some(reason) = self.revoked_for(now, &asker.link) {
            return Some(Decision::Deny(reason));
        }
        let Settings { links, ttl_s, .. } = self.settings;
        if links == Links::Dev {
            return Some(self.decide_dev(&asker.link));
        }
        if links != Links::Webhook {
            match link::verify(&self.settings.keys, &asker.link) {
                Some(signed) => {
                    let left_s = u64::from(signed.end_s).saturating_sub(unix_s);
                    if left_s == 0 {
                        return Some(Decision::Deny("this link has expired".into()));
                    }
                    let grant = Grant {
                        shared: signed.shared,
                        ttl_s: u32::try_from(left_s).unwrap_or(u32::MAX).min(ttl_s),
                        page_messages: signed.page_messages,
                        replay: signed.replay,
                    };
                    return Some(Decision::Admit(signed.topic, grant));
                }
                None if links == Links::Signed => return Some(Decision::Deny("there is no such link".into())),
                None => {}
            }
        }
        self.decide_by_webhook(now, asker)
    }

    fn decide_dev(&self, link: &str) -> Decision {
        let Settings { ttl_s, page_messages, replay, .. } = self.settings;
        match Name::new(link) {
            Some(topic) => Decision::Admit(topic, Grant { shared: true, ttl_s, page_messages, replay }),
            None => Decision::Deny("a link of at most 64 characters is the name of its room".into()),
        }
    }

    fn decide_by_webhook(&mut self, now: Duration, asker: Asker) -> Option<Decision> {
        let link = Arc::clone(&asker.link);
        if let Some((topic, grant, wants_refresh)) = self.grants.find(now, &link) {
            if wants_refresh {
                self.call((link, None), None, true);
            }
            return Some(Decision::Admit(topic, grant));
        }
        let page = (!asker.address.is_empty()).then(|| (Arc::clone(&asker.address), Arc::clone(&asker.origin)));
        let key = (link, page);
        if let Some(reason) = self.denials.find(now, &key) {
            return Some(Decision::Deny(reason));
        }
        let is_renewal = key.1.is_none() && self.grants.was_good(&key.0);
        if !is_renewal && !self.by_key.contains_key(&key) {
            let rate = self.settings.unknown;
            let bucket = self.rates.entry(asker.relay).or_insert_with(|| Bucket::full(rate, now));
            if !bucket.take(rate, now) {
                return None;
            }
        }
        self.call(key, Some(asker), is_renewal);
        None
    }

    /// Waits for the call of this key, which is begun if there is none.
    fn call(&mut self, key: Key, asker: Option<Asker>, is_renewal: bool) {
        if asker.is_some() && self.waiting >= self.settings.waiting_max {
            return;
        }
        let id = match self.by_key.get(&key) {
            Some(id) => *id,
            None if self.calls.len() >= self.settings.queued_max => return,
            None => {
                self.next_call += 1;
                let id = QuestionId(self.next_call);
                self.by_key.insert(key.clone(), id);
                self.calls.insert(id, Question { key, waiting: Vec::new(), is_under_way: false, is_renewal });
                self.turns.push(asker.as_ref().filter(|_| !is_renewal).map(|asker| asker.relay), id);
                id
            }
        };
        if let (Some(call), Some(asker)) = (self.calls.get_mut(&id), asker) {
            call.waiting.push(asker);
            self.waiting += 1;
        }
    }

    /// The next call to be made. Each is answered by [`answered`](Self::answered).
    pub fn poll_call(&mut self, now: Duration) -> Option<(QuestionId, Subscribe)> {
        // Also where none can be made now: otherwise `deadline` stays in the past.
        while let Some((_, id)) = self.unanswered.pop_front_if(|(at, _)| *at <= now) {
            match self.calls.get(&id).and_then(|call| call.waiting.first()) {
                Some(asker) => self.turns.push(Some(asker.relay), id),
                None => drop(self.forget(id)),
            }
        }
        let calls_max = if self.failures < self.settings.failures_max {
            self.settings.calls_max
        } else if now >= self.rests_until {
            // One, to see whether it answers again.
            1
        } else {
            0
        };
        if self.under_way >= calls_max {
            return None;
        }
        loop {
            let (relay, id) = self.turns.pop()?;
            let Some(call) = self.calls.get_mut(&id) else { continue };
            let before = call.waiting.len();
            call.waiting.retain(|asker| now.saturating_sub(asker.at) < PATIENCE);
            self.waiting -= before - call.waiting.len();
            if call.waiting.is_empty() && !call.is_renewal {
                self.forget(id);
                continue;
            }
            call.is_under_way = true;
            self.under_way += 1;
            self.turns.made(relay);
            let (link, page) = call.key.clone();
            return Some((id, Subscribe { link, page }));
        }
    }

    /// Takes a call's answer. Returns who is decided by it.
    pub fn answered(&mut self, now: Duration, id: QuestionId, verdict: Verdict) -> Vec<(Asker, Decision)> {
        let Some(call) = self.calls.get_mut(&id).filter(|call| call.is_under_way) else { return Vec::new() };
        call.is_under_way = false;
        self.under_way -= 1;
        if verdict == Verdict::NoAnswer {
            self.failures = self.failures.saturating_add(1);
            self.rests_until = now.saturating_add(self.settings.rest);
            // Whether somebody still waits then, `poll_call` looks.
            self.unanswered.push_back((now.saturating_add(RETRY), id));
            call.is_renewal = false;
            return Vec::new();
        }
        self.failures = 0;
        let Some(call) = self.forget(id) else { return Vec::new() };
        let decision = match (self.revoked_for(now, &call.key.0), verdict) {
            // Revoked while the webhook thought.
            (Some(reason), _) | (None, Verdict::Deny(reason)) => {
                self.grants.forget(&call.key.0);
                self.denials.keep(now.saturating_add(self.settings.denial_ttl), call.key, &reason);
                Decision::Deny(reason)
            }
            (None, Verdict::Accept(topic, grant)) => {
                self.grants.forget(&call.key.0);
                if grant.shared {
                    self.grants.keep(now, &call.key.0, topic.clone(), grant);
                }
                Decision::Admit(topic, grant)
            }
            (None, Verdict::NoAnswer) => return Vec::new(),
        };
        call.waiting.into_iter().map(|asker| (asker, decision.clone())).collect()
    }

    fn forget(&mut self, id: QuestionId) -> Option<Question> {
        let call = self.calls.remove(&id)?;
        self.by_key.remove(&call.key);
        self.waiting -= call.waiting.len();
        Some(call)
    }

    /// When [`poll_call`](Self::poll_call) may have a call that it has not now.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let rested = (!self.turns.is_empty() && self.rests() && self.under_way == 0).then_some(self.rests_until);
        let again = self.unanswered.front().map(|(at, _)| *at);
        rested.into_iter().chain(again).min()
    }

    /// Whether the webhook rests after too many calls without an answer.
    #[must_use]
    pub const fn rests(&self) -> bool {
        self.failures >= self.settings.failures_max
    }

    /// Revokes a link until then, or longer if it was revoked for longer before.
    pub fn revoke(&mut self, link: LinkHash, reason: Arc<str>, until: Duration) {
        let row = self.revoked.entry(link).or_insert((reason, until));
        row.1 = row.1.max(until);
    }

    /// The revocations that are in force, each with the seconds for which it still is.
    pub fn revocations(&self, now: Duration) -> impl Iterator<Item = (LinkHash, Arc<str>, u64)> {
        let in_force = self.revoked.iter().filter(move |(_, (_, until))| *until > now);
        in_force
            .map(move |(link, (reason, until))| (*link, Arc::clone(reason), until.saturating_sub(now).as_secs().max(1)))
    }

    /// Forgets what is remembered of a link: it was revoked.
    pub fn forget_link(&mut self, link: &str) {
        self.grants.forget(link);
    }

    /// Forgets revocations whose time is over.
    pub fn tidy(&mut self, now: Duration) {
        self.revoked.retain(|_, (_, until)| *until > now);
    }

    /// A relay is gone: nobody waits for it.
    pub fn relay_down(&mut self, relay: RelayId) {
        self.rates.remove(&relay);
        for call in self.calls.values_mut() {
            let before = call.waiting.len();
            call.waiting.retain(|asker| asker.relay != relay);
            self.waiting -= before - call.waiting.len();
        }
    }

    /// Whether a link was revoked, and why.
    #[must_use]
    pub fn revoked_for(&self, now: Duration, link: &str) -> Option<Arc<str>> {
        if self.revoked.is_empty() { None } else { self.revoked_by(now, &hash(link)) }
    }

    /// The same, by the hash of a link or token.
    pub fn revoked_by(&self, now: Duration, hash: &LinkHash) -> Option<Arc<str>> {
        let (reason, until) = self.revoked.get(hash)?;
        (*until > now).then(|| Arc::clone(reason))
    }
}

/// A link's hash, by which revocations are kept.
#[must_use]
pub fn hash(link: &str) -> LinkHash {
    Sha256::digest(link).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(relay: RelayId, request: u32, link: &str) -> Asker {
        let (link, address, origin) = (link.into(), "".into(), "".into());
        Asker { relay, request, link, since: None, address, origin, at: Duration::ZERO }
    }

    #[test]
    fn relays_take_turns_at_the_webhook() {
        let mut business = business::Business::new(business::Settings::default());
        let [greedy, other] = [0, 1].map(|_| business.connect(Duration::ZERO, [0; 16]));
        let settings = Settings { links: Links::Webhook, calls_max: 1, ..Settings::default() };
        let mut admission = Admission::new(settings);
        for request in 0..300 {
            admission.decide(Duration::ZERO, 0, asker(greedy, request, &format!("guess-{request}")));
        }
        for link in ["room-1", "room-2"] {
            admission.decide(Duration::ZERO, 0, asker(other, 1, link));
        }
        let mut asked = Vec::new();
        for _ in 0..5 {
            let (id, subscribe) = admission.poll_call(Duration::ZERO).unwrap();
            asked.push(subscribe.link);
            admission.answered(Duration::ZERO, id, Verdict::Deny("no".into()));
        }
        assert_eq!(
            asked.iter().map(|link| &**link).collect::<Vec<_>>(),
            ["guess-0", "room-1", "guess-1", "room-2", "guess-2"]
        );
        // What nobody waits for any more is forgotten, and costs no turn.
        let late = PATIENCE + RETRY;
        for link in ["room-3", "room-4"] {
            admission.decide(late, 0, Asker { at: late, ..asker(other, 2, link) });
            let (id, subscribe) = admission.poll_call(late).unwrap();
            assert_eq!(&*subscribe.link, link);
            admission.answered(late, id, Verdict::Deny("no".into()));
        }
        assert!(admission.calls.is_empty() && admission.turns.is_empty());
    }

    #[test]
    fn pages_of_a_link_that_was_good_have_a_rate_too() {
        let mut business = business::Business::new(business::Settings::default());
        let relay = business.connect(Duration::ZERO, [0; 16]);
        let unknown = Rate { burst: 2, per_s: 1 };
        let mut admission = Admission::new(Settings { links: Links::Webhook, unknown, ..Settings::default() });
        let mut now = Duration::ZERO;
        for shared in [true, false] {
            admission.decide(now, 0, Asker { at: now, ..asker(relay, 1, "room") });
            let (id, _) = admission.poll_call(now).unwrap();
            let grant = Grant { shared, ttl_s: 5, page_messages: false, replay: 0 };
            admission.answered(now, id, Verdict::Accept(Name::new("room").unwrap(), grant));
            // For pages that come alone it is none any more.
            assert_eq!(admission.grants.was_good("room"), shared);
            now += Duration::from_secs(10);
            if shared {
                for page in 0..100 {
                    let address = format!("192.0.2.{page}").into();
                    admission.decide(now, 0, Asker { at: now, address, ..asker(relay, page, "room") });
                }
                assert_eq!(admission.calls.len(), 2);
            }
            now += PATIENCE;
        }
    }

    #[test]
    fn nothing_is_due_while_no_call_can_be_made() {
        let mut business = business::Business::new(business::Settings::default());
        let relay = business.connect(Duration::ZERO, [0; 16]);
        let links = Links::Webhook;
        let rest = Duration::from_secs(60);
        let settings = Settings { links, calls_max: 1, failures_max: 2, rest, ..Settings::default() };
        let mut admission = Admission::new(settings);
        for link in ["a", "b"] {
            assert_eq!(admission.decide(Duration::ZERO, 0, asker(relay, 1, link)), None);
        }
        // The second call is under way when the first one is due again.
        let (first, _) = admission.poll_call(Duration::ZERO).unwrap();
        admission.answered(Duration::ZERO, first, Verdict::NoAnswer);
        let (second, _) = admission.poll_call(Duration::ZERO).unwrap();
        assert_eq!(admission.deadline(), Some(RETRY));
        assert_eq!(admission.poll_call(RETRY), None);
        assert_eq!(admission.deadline(), None);
        // It rests when the second one is.
        admission.answered(RETRY, second, Verdict::NoAnswer);
        assert_eq!(admission.poll_call(RETRY * 2), None);
        assert_eq!(admission.deadline(), Some(RETRY + rest));
    }
}
