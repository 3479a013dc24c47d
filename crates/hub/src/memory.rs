//! The engine `memory`: topics in this process, and nothing else to install.
//!
//! Owns topics, idempotency keys and revocations, all bounded. It is also the model of every other
//! engine: what a [`Request`] means is defined here, the fence between two reigns included. Pure:
//! one call is one step, the time is an argument, and doorbells are polled. Doesn't know relays or
//! links. What it holds is gone with the process; the next one begins new epochs.

mod limits;
mod topic;

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    sync::Arc,
};

use business::PublishError;
use sha2::{Digest, Sha256};
use wire::Track;

pub use limits::Limits;
use topic::{ENTRY_SIZE, JUMP, KEY_SIZE, TOPIC_SIZE, Topic, Used, check};

use super::{
    Name,
    engine::{
        Append, Bell, Doorbell, Key, Lease, LinkHash, PARTITIONS, Part, Position, Refusal, Reply, Request, Room, Seen,
        StreamId,
    },
};

/// Expired topics that one call forgets, at most: more than it can open.
const SWEPT_MAX: usize = 8;

/// The engine's clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Time that only goes forward, from any start.
    pub at: Duration,
    /// Microseconds since 1970, as the clock on the wall says. Epochs are made of it.
    pub unix_us: u64,
}

/// The engine.
#[derive(Clone, Debug)]
pub struct Memory {
    limits: Limits,
    reign: u64,
    topics: BTreeMap<Name, Topic>,
    /// When to look whether something of a topic has expired.
    checks: BTreeSet<(Duration, Name)>,
    /// Bytes of all topics.
    size: usize,
    keys: usize,
    newest_epoch: u64,
    position: Box<[u64; PARTITIONS]>,
    revocations: BTreeMap<LinkHash, (Arc<str>, Duration)>,
    doorbells: VecDeque<Doorbell>,
}

impl Memory {
    /// An engine without topics, in this reign.
    #[must_use]
    pub fn new(limits: Limits, reign: u64) -> Self {
        Self {
            limits,
            reign,
            topics: BTreeMap::new(),
            checks: BTreeSet::new(),
            size: 0,
            keys: 0,
            newest_epoch: 0,
            position: Box::new([0; PARTITIONS]),
            revocations: BTreeMap::new(),
            doorbells: VecDeque::new(),
        }
    }

    /// Begins another reign, as a promoted replica or a restarted server does.
    pub const fn begin_reign(&mut self, reign: u64) {
        self.reign = reign;
    }

    /// Its limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The topics that it has.
    #[must_use]
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// The bytes that it counts against [`Limits::size_max`].
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Answers a request.
    pub fn handle(&mut self, now: Moment, request: Request) -> Reply {
        self.sweep(now.at);
        let answer = match request {
            Request::Append { topic, append, seen } => self.append(now, topic, append, seen),
            Request::Attach { topic, seen } => self.attach(now, &topic, seen),
            Request::Look { topic } => Ok(Reply::Attached(self.topics.get(&topic).map(|topic| topic.attached(now.at)))),
            Request::Read { topic, track, from, count_max } => self.read(&topic, track, from, count_max),
            Request::Remove { topic, sequence, tombstone } => self.remove(topic, sequence, &tombstone),
            Request::Lease { topic, track, lease, begins } => self.lease(now, &topic, track, lease, begins),
            Request::Release { topic, track, stream } => Ok(self.release(&topic, track, stream)),
            Request::End { topic, reason } => self.end(now, topic, Some(reason)),
            Request::Open { topic } => self.end(now, topic, None),
            Request::List { after, prefix, count_max } => Ok(self.list(&after, &prefix, count_max)),
            Request::Position => Ok(Reply::Position(Position { reign: self.reign, counts: self.position.clone() })),
            Request::Revoke { link, reason, ttl_s } => self.revoke(now.at, link, reason, ttl_s),
            Request::Revocations => Ok(self.revocations(now.at)),
        };
        answer.unwrap_or_else(Reply::Refused)
    }

    /// The next doorbell for the hubs.
    pub fn poll_doorbell(&mut self) -> Option<Doorbell> {
        self.doorbells.pop_front()
    }

    fn append(&mut self, now: Moment, name: Name, append: Append, seen: Seen) -> Result<Reply, Refusal> {
        let track = append.track;
        if let (Some(key), Some(topic)) = (&append.key, self.topics.get(&name))
            && let Some(used) = topic.keys.get(&key.text)
        {
            return match used.content == key.content && used.track == track {
                true => Ok(Reply::Appended { epoch: topic.epoch, sequence: used.sequence, is_repeated: true }),
                false => Err(Refusal::KeyReused),
            };
        }
        let (limits, reign) = (self.limits, self.reign);
        if append.key.is_some() && self.keys >= limits.keys_max {
            return Err(Refusal::Full(Room::Keys));
        }
        // Before a topic is opened for it: what is wrong in itself opens none.
        check(track, &append.part, &append.data).map_err(Refusal::Publication)?;
        let wanted = append.data.len() + ENTRY_SIZE + if append.key.is_some() { KEY_SIZE } else { 0 };
        if self.size + wanted + TOPIC_SIZE > limits.size_max {
            return Err(Refusal::Full(Room::Memory));
        }
        if !self.topics.contains_key(&name) {
            // A chunk needs an init segment, and no topic is opened in vain.
            if matches!(append.part, Part::Start | Part::Continue) {
                return Err(Refusal::Publication(PublishError::OutOfOrder));
            }
            if append.replaces.is_some_and(|expected| expected != 0) {
                return Err(Refusal::Replaced(0));
            }
        }
        let topic = self.open(now, &name, seen)?;
        let before = topic.size();
        topic.fence(reign, now.unix_us, seen);
        let key = append.key.clone();
        let result = topic.append(now.at, &limits, append);
        let epoch = topic.epoch;
        let mut keys_used = 0;
        if let (Ok(sequence), Some(Key { text, content })) = (&result, key) {
            topic.keys_by_age.push_back((now.at.saturating_add(limits.key_ttl), Arc::clone(&text)));
            topic.keys.insert(text, Used { content, track, sequence: *sequence });
            keys_used = 1;
        }
        let after = topic.size();
        self.size = self.size - before + after;
        self.keys += keys_used;
        self.touch(now.at, &name);
        let sequence = result?;
        self.ring(name, Bell::Published(epoch, track, sequence));
        Ok(Reply::Appended { epoch, sequence, is_repeated: false })
    }

    fn attach(&mut self, now: Moment, name: &Name, seen: Seen) -> Result<Reply, Refusal> {
        let reign = self.reign;
        let topic = self.open(now, name, seen)?;
        topic.fence(reign, now.unix_us, seen);
        let attached = topic.attached(now.at);
        self.touch(now.at, name);
        Ok(Reply::Attached(Some(attached)))
    }

    fn read(&self, name: &Name, track: Track, from: u64, count_max: usize) -> Result<Reply, Refusal> {
        let topic = self.topics.get(name).ok_or(Refusal::Missing)?;
        let entries = topic.read(track, from).take(count_max).cloned().collect();
        Ok(Reply::Entries { epoch: topic.epoch, entries })
    }

    fn remove(&mut self, name: Name, sequence: u64, tombstone: &Arc<[u8]>) -> Result<Reply, Refusal> {
        let topic = self.topics.get_mut(&name).ok_or(Refusal::Missing)?;
        if !(1..topic.next[Track::Messages.index()]).contains(&sequence) {
            return Err(Refusal::Missing);
        }
        let place = topic.messages.binary_search_by_key(&sequence, |entry| entry.sequence);
        if let Some(told) = topic.removed_at(place, tombstone) {
            return Ok(Reply::Appended { epoch: topic.epoch, sequence: told, is_repeated: true });
        }
        let before = topic.size();
        // One that is not kept any more may still be on pages' screens, so that is no error.
        if let Some(entry) = place.ok().and_then(|place| topic.messages.get_mut(place)) {
            let old = core::mem::replace(&mut entry.data, Arc::clone(tombstone));
            topic.messages_size = topic.messages_size + tombstone.len() - old.len();
        }
        self.size = self.size - before + topic.size();
        self.ring(name, Bell::Removed(sequence));
        Ok(Reply::Done)
    }

    fn end(&mut self, now: Moment, name: Name, reason: Option<Arc<str>>) -> Result<Reply, Refusal> {
        let topic = self.open(now, &name, Seen::default())?;
        let before = topic.size();
        topic.ended = reason;
        // What comes after it is opened again begins with an init segment.
        topic.forget_media();
        let after = topic.size();
        self.size = self.size - before + after;
        self.touch(now.at, &name);
        self.ring(name, Bell::Changed);
        Ok(Reply::Done)
    }

    fn lease(&mut self, now: Moment, name: &Name, track: Track, lease: Lease, begins: bool) -> Result<Reply, Refusal> {
        if !track.is_media() {
            return Err(Refusal::Publication(PublishError::PartOfOtherTrack));
        }
        self.open(now, name, Seen::default())?.lease(now.at, track, lease, begins)?;
        self.touch(now.at, name);
        Ok(Reply::Done)
    }

    fn release(&mut self, name: &Name, track: Track, stream: StreamId) -> Reply {
        if let Some(topic) = self.topics.get_mut(name) {
            topic.release(track, stream);
        }
        Reply::Done
    }

    fn list(&self, after: &str, prefix: &str, count_max: usize) -> Reply {
        // Names that begin alike stand together: the others are not looked at.
        let start = match (Name::new(after), Name::new(prefix)) {
            (Some(after), prefix) if prefix.as_ref().is_none_or(|prefix| *prefix <= after) => Bound::Excluded(after),
            (_, Some(prefix)) => Bound::Included(prefix),
            _ => Bound::Unbounded,
        };
        let names = self.topics.range((start, Bound::Unbounded));
        let names = names.take_while(|(name, _)| name.as_str().starts_with(prefix));
        let names = names.filter(|(name, _)| name.is_below(prefix));
        Reply::Topics(names.take(count_max).map(|(name, topic)| (name.clone(), topic.ended.is_some())).collect())
    }

    fn revoke(&mut self, now: Duration, link: LinkHash, reason: Arc<str>, ttl_s: u64) -> Result<Reply, Refusal> {
        // One whose time is over gives nothing to the new one.
        if self.revocations.get(&link).is_some_and(|(_, until)| *until <= now) {
            self.revocations.remove(&link);
        }
        if self.revocations.len() >= self.limits.revocations_max && !self.revocations.contains_key(&link) {
            self.revocations.retain(|_, (_, until)| *until > now);
            if self.revocations.len() >= self.limits.revocations_max {
                return Err(Refusal::Full(Room::Revocations));
            }
        }
        let until = now.saturating_add(Duration::from_secs(ttl_s));
        let row = self.revocations.entry(link).or_insert((reason, until));
        row.1 = row.1.max(until);
        Ok(Reply::Done)
    }

    fn revocations(&self, now: Duration) -> Reply {
        let in_force = self.revocations.iter().filter(|(_, (_, until))| *until > now);
        let row = |(link, (reason, until)): (&LinkHash, &(Arc<str>, Duration))| {
            (*link, Arc::clone(reason), until.saturating_sub(now).as_secs().max(1))
        };
        Reply::Revocations(in_force.map(row).collect())
    }

    /// The topic, opened if there is none.
    fn open(&mut self, now: Moment, name: &Name, seen: Seen) -> Result<&mut Topic, Refusal> {
        if !self.topics.contains_key(name) {
            if self.topics.len() >= self.limits.topics_max {
                return Err(Refusal::Full(Room::Topics));
            }
            if self.size + TOPIC_SIZE > self.limits.size_max {
                return Err(Refusal::Full(Room::Memory));
            }
            self.size += TOPIC_SIZE;
            // One that no topic ever had, also where the clock was set back, the hub saw a later
            // one, or a deposed process opens the topic at the same time.
            let from = now.unix_us.saturating_add(self.reign % JUMP);
            self.newest_epoch = from.max(self.newest_epoch + 1).max(seen.epoch + 1);
            let check = now.at.saturating_add(self.limits.history_ttl);
            self.checks.insert((check, name.clone()));
            let topic = Topic::new(self.newest_epoch, self.reign, now.at, check);
            self.topics.insert(name.clone(), topic);
        }
        self.topics.get_mut(name).ok_or(Refusal::Missing)
    }

    /// Notes that a topic is in use, and when to look at it next.
    fn touch(&mut self, now: Duration, name: &Name) {
        let Some(topic) = self.topics.get_mut(name) else { return };
        topic.touched = now;
        let check = topic.due(&self.limits);
        // A check that comes too early is made again; one that comes too late is not.
        if check < topic.check {
            self.checks.remove(&(topic.check, name.clone()));
            self.checks.insert((check, name.clone()));
            topic.check = check;
        }
    }

    /// Forgets what has expired, of a few topics.
    fn sweep(&mut self, now: Duration) {
        for _ in 0..SWEPT_MAX {
            match self.checks.first() {
                Some((at, _)) if *at <= now => {}
                _ => return,
            }
            let Some((_, name)) = self.checks.pop_first() else { return };
            let Some(topic) = self.topics.get_mut(&name) else { continue };
            let (before, keys) = (topic.size(), topic.keys.len());
            topic.expire(now, &self.limits);
            self.size = self.size - before + topic.size();
            self.keys = self.keys - keys + topic.keys.len();
            if now >= topic.touched.saturating_add(self.limits.history_ttl) {
                self.size -= topic.size();
                self.keys -= topic.keys.len();
                self.topics.remove(&name);
            } else {
                topic.check = topic.due(&self.limits);
                self.checks.insert((topic.check, name));
            }
        }
    }

    fn ring(&mut self, topic: Name, what: Bell) {
        if let Some(count) = self.position.get_mut(partition(&topic)) {
            *count += 1;
        }
        self.doorbells.push_back(Doorbell { topic, what });
    }
}

/// The partition that counts a topic's appends.
#[must_use]
pub fn partition(name: &Name) -> usize {
    Sha256::digest(name.as_str().as_bytes()).first().copied().map_or(0, usize::from)
}
