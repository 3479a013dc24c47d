//! What the webhook said and is remembered: shared grants, and denials.
//!
//! Owns both tables, which are bounded: of the grants, the one that was used least recently goes;
//! of the denials, the oldest. Doesn't know who waits for what.

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use wire::uplink::Grant;

use crate::Name;

/// What a call is about: a link, and the page if it is about one.
pub(super) type Key = (Arc<str>, Option<(Arc<str>, Arc<str>)>);

/// Shared grants of the webhook, by link. Where there are too many, the one that was used least
/// recently goes.
#[derive(Debug)]
pub(super) struct Grants {
    count_max: usize,
    rows: BTreeMap<Arc<str>, Granted>,
    by_use: BTreeMap<u64, Arc<str>>,
    uses: u64,
}

#[derive(Debug)]
struct Granted {
    topic: Name,
    grant: Grant,
    until: Duration,
    used: u64,
}

impl Grants {
    pub const fn new(count_max: usize) -> Self {
        Self { count_max, rows: BTreeMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }

    /// A grant with the time that is left of it, and whether it is in its last fifth.
    pub fn find(&mut self, now: Duration, link: &str) -> Option<(Name, Grant, bool)> {
        let row = self.rows.get_mut(link)?;
        let left_s = u32::try_from(row.until.saturating_sub(now).as_secs()).unwrap_or(u32::MAX);
        if left_s == 0 {
            return None;
        }
        self.uses += 1;
        let link = self.by_use.remove(&row.used)?;
        self.by_use.insert(self.uses, link);
        row.used = self.uses;
        let wants_refresh = u64::from(left_s) * 5 <= u64::from(row.grant.ttl_s);
        Some((row.topic.clone(), Grant { ttl_s: left_s, ..row.grant }, wants_refresh))
    }

    /// Whether there is or was a grant.
    pub fn was_good(&self, link: &str) -> bool {
        self.rows.contains_key(link)
    }

    pub fn keep(&mut self, now: Duration, link: &Arc<str>, topic: Name, grant: Grant) {
        self.forget(link);
        if self.rows.len() >= self.count_max
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.rows.remove(&oldest);
        }
        self.uses += 1;
        let until = now.saturating_add(Duration::from_secs(u64::from(grant.ttl_s)));
        self.by_use.insert(self.uses, Arc::clone(link));
        self.rows.insert(Arc::clone(link), Granted { topic, grant, until, used: self.uses });
    }

    pub fn forget(&mut self, link: &str) {
        if let Some(row) = self.rows.remove(link) {
            self.by_use.remove(&row.used);
        }
    }
}

/// Denials, which spare the webhook the same question.
#[derive(Debug)]
pub(super) struct Denials {
    count_max: usize,
    rows: BTreeMap<Key, (Arc<str>, Duration)>,
    by_age: BTreeSet<(Duration, Key)>,
}

impl Denials {
    pub const fn new(count_max: usize) -> Self {
        Self { count_max, rows: BTreeMap::new(), by_age: BTreeSet::new() }
    }

    pub fn find(&self, now: Duration, key: &Key) -> Option<Arc<str>> {
        let (reason, until) = self.rows.get(key)?;
        (*until > now).then(|| Arc::clone(reason))
    }

    pub fn keep(&mut self, until: Duration, key: Key, reason: &Arc<str>) {
        if let Some((_, old)) = self.rows.insert(key.clone(), (Arc::clone(reason), until)) {
            self.by_age.remove(&(old, key.clone()));
        }
        self.by_age.insert((until, key));
        while self.by_age.len() > self.count_max
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.rows.remove(&oldest);
        }
    }
}
