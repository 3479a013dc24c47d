//! A share link, and what the business server granted for it.
//!
//! A [`Link`] is kept while it is in use: pages wait for it or watch by it, a request for it is in
//! flight, or its grant or denial is still valid. Owns the predicates for that. The numbers of
//! waiting and watching pages are kept where they change (`waiting.rs`, `subscription.rs`), and so
//! are requests in flight (`requests.rs`). Decides nothing.

use core::fmt;

use heapless::String;

use super::{
    previews::Previewers, requests::Asked, subscription::Watching, table::NONE, texts::Reason, time::Instant,
    waiting::Waiting,
};
use wire::{LINK_SIZE_MAX, uplink::Grant};

/// A share link in use.
#[derive(Debug)]
pub struct Link {
    name: String<LINK_SIZE_MAX>,
    hash: u64,
    /// The topic that it was granted; [`NONE`] if none.
    topic: u32,
    /// The grant.
    grant: Grant,
    /// Until this time pages are admitted without a request.
    granted_until: Instant,
    /// When to renew the grant.
    renew_at: Instant,
    /// The denial of the link as a whole, if it was denied.
    denied: Option<Denied>,
    /// The link as a whole was denied, but one request that names a page must confirm it first.
    on_trial: Option<Trial>,
    /// The uplink connection on which a request for this link was last accepted; 0 for none.
    accepted_on: u64,
    /// Requests in flight for it.
    pub asked: Asked,
    /// Consecutive requests for the link as a whole that were given up.
    unanswered: u8,
    /// Consecutive `Accept`s that were handed back, so that the link is requested again from where
    /// the waiting pages are.
    replays: u8,
    /// The epoch that the last such `Accept` named.
    epoch: Option<u64>,
    /// The last grant was not shared: each page needs a request of its own.
    each: bool,
    /// On this connection the business server accepts only requests that name a page.
    by_name: bool,
    /// `by_name` on the previous connection.
    was_by_name: bool,
    /// The uplink was lost: request the link as a whole again.
    ask_again: bool,
    /// Subscriptions that wait for it.
    pub waiting: Waiting,
    /// Live subscriptions made with it.
    pub watching: Watching,
    /// Previews that wait for it.
    pub previewers: Previewers,
    /// Only previews have requested it so far.
    for_preview: bool,
    /// The network of the first page that requested it; [`NONE`] if none.
    network: u32,
    /// When it was last requested.
    used_at: Instant,
}

impl Link {
    /// A link of which nothing is known yet.
    #[must_use]
    pub const fn new(name: String<LINK_SIZE_MAX>, hash: u64, now: Instant) -> Self {
        Self {
            name,
            hash,
            topic: NONE,
            grant: Grant { shared: false, ttl_s: 0, page_messages: false, replay: 0 },
            granted_until: Instant(0),
            renew_at: Instant::NEVER,
            denied: None,
            on_trial: None,
            accepted_on: 0,
            asked: Asked::NOTHING,
            unanswered: 0,
            replays: 0,
            epoch: None,
            each: false,
            by_name: false,
            was_by_name: false,
            ask_again: false,
            waiting: Waiting::NOBODY,
            watching: Watching::NOBODY,
            previewers: Previewers::NOBODY,
            for_preview: false,
            network: NONE,
            used_at: now,
        }
    }

    /// The link itself, which is a secret.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hash under which it is indexed.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// Whether pages may be admitted without a request: it has a shared grant that has not expired.
    #[must_use]
    pub fn is_granted(&self, now: Instant) -> bool {
        self.grant.shared && now < self.granted_until && self.topic != NONE
    }

    /// The denial of the link as a whole, while it is remembered.
    #[must_use]
    pub fn denied_now(&self, now: Instant) -> Option<Denied> {
        self.denied.filter(|denied| now < denied.until)
    }

    /// The topic that it was granted; [`NONE`] if none.
    #[must_use]
    pub const fn topic(&self) -> u32 {
        self.topic
    }

    /// The grant.
    #[must_use]
    pub const fn grant(&self) -> &Grant {
        &self.grant
    }

    /// A page requests it. `network` is the page's.
    pub const fn used_by_page(&mut self, now: Instant, network: u32) {
        self.used_at = now;
        if core::mem::replace(&mut self.for_preview, false) {
            self.network = network;
        }
    }

    /// A preview is the first to request it.
    pub const fn set_for_preview(&mut self) {
        self.for_preview = true;
    }

    /// Whether only previews have requested it so far.
    #[must_use]
    pub const fn is_for_preview(&self) -> bool {
        self.for_preview
    }

    /// The network of the first page that requested it; [`NONE`] if none.
    #[must_use]
    pub const fn network(&self) -> u32 {
        self.network
    }

    /// The first page that requests it is of this network.
    pub const fn set_network(&mut self, network: u32) {
        self.network = network;
    }

    /// When it was last requested.
    #[must_use]
    pub const fn used_at(&self) -> Instant {
        self.used_at
    }

    /// A request for it was accepted. `is_named` if the request names a page. The reasons of
    /// earlier denials, which are void now.
    pub fn accepted(&mut self, request: u32, is_named: bool, connection: u64) -> [Option<Reason>; 2] {
        let trial = self.on_trial.take();
        self.by_name |= trial.is_some_and(|trial| trial.request == request);
        if !is_named {
            self.accepted_on = connection;
        }
        [trial.map(|trial| trial.reason), self.denied.take().map(|denied| denied.reason)]
    }

    /// It was accepted earlier on this connection, and the row freed since; only for named pages if
    /// `by_name`.
    pub const fn was_accepted(&mut self, connection: u64, by_name: bool) {
        self.by_name = by_name;
        self.accepted_on = if by_name { 0 } else { connection };
    }

    /// Whether a request for the whole was accepted on this connection.
    #[must_use]
    pub const fn is_accepted_on(&self, connection: u64) -> bool {
        self.accepted_on != 0 && self.accepted_on == connection
    }

    /// It leads to a topic, by a grant. Whether the whole was to be requested again.
    pub const fn lead_to(&mut self, topic: u32, grant: Grant) -> bool {
        self.topic = topic;
        self.grant = grant;
        core::mem::replace(&mut self.ask_again, false)
    }

    /// The grant is shared, for its time to live; it is renewed that much earlier.
    pub const fn grant_shared(&mut self, now: Instant, early_ms: u64) {
        let ttl_ms = self.ttl_ms();
        self.each = false;
        self.unanswered = 0;
        self.granted_until = now.after(ttl_ms);
        self.renew_at = if ttl_ms > 0 { now.after(ttl_ms - early_ms) } else { Instant::NEVER };
    }

    /// The grant is one page's.
    pub const fn grant_one(&mut self, now: Instant) {
        self.each = true;
        self.granted_until = now;
        self.renew_at = Instant::NEVER;
    }

    /// The grant's time to live, milliseconds.
    #[must_use]
    pub const fn ttl_ms(&self) -> u64 {
        self.grant.ttl_s as u64 * 1000
    }

    /// When to renew the grant.
    #[must_use]
    pub const fn renew_at(&self) -> Instant {
        self.renew_at
    }

    /// Whether its grant is one to be renewed, and no renewal is planned.
    #[must_use]
    pub fn lacks_renewal(&self) -> bool {
        self.is_renewed() && self.renew_at == Instant::NEVER
    }

    /// Renews the grant at this time.
    pub const fn renew_from(&mut self, at: Instant) {
        self.renew_at = at;
    }

    /// A renewal was sent.
    pub const fn renewing(&mut self) {
        self.renew_at = Instant::NEVER;
    }

    /// Counts a request for the whole that was given up; how many came before it in a row.
    pub const fn give_up(&mut self) -> u8 {
        let before = self.unanswered;
        self.unanswered = before.saturating_add(1);
        before
    }

    /// An `Accept` of this epoch is handed back: the link is requested again, from an earlier
    /// place.
    pub const fn replay_again(&mut self, epoch: u64) {
        self.replays += 1;
        self.epoch = Some(epoch);
    }

    /// An `Accept` counts: no replay is expected any more.
    pub const fn settle_replays(&mut self) {
        (self.replays, self.epoch) = (0, None);
    }

    /// Consecutive `Accept`s that were handed back.
    #[must_use]
    pub const fn replays(&self) -> u8 {
        self.replays
    }

    /// Whether the last `Accept` that was handed back named this epoch.
    #[must_use]
    pub fn is_named_epoch(&self, epoch: u64) -> bool {
        self.epoch == Some(epoch)
    }

    /// The last grant was not shared.
    #[must_use]
    pub const fn is_each(&self) -> bool {
        self.each
    }

    /// Whether the business server accepts only requests that name a page, on this connection.
    #[must_use]
    pub const fn is_by_name(&self) -> bool {
        self.by_name
    }

    /// Whether the connection before accepted only requests that name a page, and some of them
    /// watch.
    #[must_use]
    pub const fn watches_by_name(&self) -> bool {
        self.was_by_name && self.watching.live() > 0
    }

    /// Requests name a page from now on.
    pub const fn ask_by_name(&mut self) {
        (self.by_name, self.ask_again) = (true, false);
    }

    /// Whether the whole is to be requested again.
    #[must_use]
    pub const fn asks_again(&self) -> bool {
        self.ask_again
    }

    /// The whole is to be requested again.
    pub const fn set_ask_again(&mut self) {
        self.ask_again = true;
    }

    /// The uplink is back, and pages watch: `is_shared` if any of them do by a shared grant. The
    /// previous connection's grant admits nobody on this one, though another link may bring the
    /// topic back.
    pub const fn reconnect(&mut self, now: Instant, is_shared: bool) {
        self.ask_again = is_shared;
        self.renew_at = Instant::NEVER;
        self.granted_until = now;
        self.unanswered = 0;
        self.was_by_name = core::mem::replace(&mut self.by_name, false);
        self.waiting.uncover();
    }

    /// The uplink is back, and nobody watches.
    pub const fn forget_grant(&mut self, now: Instant) {
        self.end_grant(now);
        self.by_name = false;
    }

    /// The grant is revoked or denied; the topic that it led to.
    pub const fn revoke(&mut self, now: Instant) -> u32 {
        let topic = self.topic;
        self.end_grant(now);
        (self.each, self.ask_again) = (false, false);
        topic
    }

    /// The whole was denied; the reason of an earlier denial.
    pub fn deny(&mut self, denied: Denied) -> Option<Reason> {
        self.denied.replace(denied).map(|old| old.reason)
    }

    /// The whole was denied, and a request that names a page is to confirm it; the reason of an
    /// earlier denial.
    pub fn begin_trial(&mut self, trial: Trial) -> Option<Reason> {
        self.on_trial = Some(trial);
        self.denied.take().map(|old| old.reason)
    }

    /// The trial by the request with this number is over; the reason why the whole was denied.
    pub fn end_trial(&mut self, request: u32) -> Option<Reason> {
        self.on_trial.take_if(|trial| trial.request == request).map(|trial| trial.reason)
    }

    /// The request that is to confirm a denial of the whole, if there is one.
    #[must_use]
    pub fn on_trial(&self) -> Option<u32> {
        self.on_trial.map(|trial| trial.request)
    }

    /// The reasons that it holds.
    pub fn reasons(&self) -> impl Iterator<Item = Reason> {
        let denied = self.denied.map(|denied| denied.reason);
        denied.into_iter().chain(self.on_trial.map(|trial| trial.reason))
    }

    /// Ends its grant: waiting pages need a new request, and nothing is renewed.
    pub const fn end_grant(&mut self, now: Instant) {
        self.topic = NONE;
        self.granted_until = now;
        self.renew_at = Instant::NEVER;
        self.waiting.uncover();
    }

    /// Whether the row may be freed.
    #[must_use]
    pub fn is_idle(&self, now: Instant) -> bool {
        self.is_spare()
            && self.denied.is_none_or(|denied| denied.until <= now)
            && (self.topic == NONE || self.granted_until <= now)
    }

    /// Whether the row only remembers something: a denial, or a grant that no page uses.
    #[must_use]
    pub const fn is_spare(&self) -> bool {
        self.waiting.ring().is_empty()
            && self.watching.live() == 0
            && !self.asked.is_held()
            && !self.asked.is_whole()
            && self.previewers.is_empty()
    }

    /// Whether its pages depend on a shared grant that is renewed. A link that is requested again
    /// because the uplink was lost does not count as a renewal.
    #[must_use]
    pub const fn is_renewed(&self) -> bool {
        self.grant.shared && self.grant.ttl_s > 0 && self.watching.live() > 0 && !self.ask_again
    }

    /// Whether each page needs a request of its own.
    #[must_use]
    pub const fn asks_by_page(&self) -> bool {
        self.each || self.by_name
    }
}

/// A denial of a link as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Denied {
    /// Until when it is remembered.
    pub until: Instant,
    /// The reason.
    pub reason: Reason,
    /// No request that names a page has been tried yet: the next page may try one.
    pub untried: bool,
}

/// A denial of a link as a whole that one request in a page's name must confirm.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// The number of that request.
    pub request: u32,
    /// The reason for the denial of the whole.
    pub reason: Reason,
}

/// A link as logs and consoles may show it: its first four bytes. A link is printable ASCII
/// (`wire`), so these are four characters.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get(..4) {
            Some(beginning) if self.0.len() > 4 => write!(f, "{beginning}…"),
            _ => f.write_str(self.0),
        }
    }
}
