//! A topic that relays hold: the hub follows it in the engine and fills the relays' ring.
//!
//! Owns the place up to which each track was read, what the doorbells promised beyond it, and the
//! requests that wait for the topic. One read of a track is under way at a time, so entries come in
//! order. Doesn't read or publish itself: `topics.rs` does.

use core::time::Duration;

use wire::{Track, uplink::Grant};

use super::{
    Name,
    admission::Asker,
    engine::{Attached, Seen},
    notice::Notice,
    purpose::Ticket,
    settings::Times,
};

/// A topic that is followed.
#[derive(Debug)]
pub struct Followed {
    /// Its number on the uplink.
    pub number: u32,
    /// The partition of the engine that counts its changes.
    pub partition: usize,
    /// What the engine said it is; `None` while it was not asked yet, or has to be asked anew.
    epoch: Option<u64>,
    tracks: [Place; 4],
    /// Requests that are accepted once the topic is loaded.
    pub waiting: Vec<(Asker, Grant)>,
    /// The request to the engine for the topic as a whole that is under way.
    pub attaching: Option<Ticket>,
    /// When the engine was asked last about the whole.
    pub refreshed: Duration,
    /// Since when no relay has it.
    pub unheld_since: Option<Duration>,
    /// Pages, over all relays.
    pub audience: Audience,
}

/// What was told about a topic's audience.
#[derive(Debug, Default)]
pub struct Audience {
    /// Pages now.
    pub pages: u64,
    /// The number that was told last.
    pub told: u64,
    /// It was told that there is somebody.
    pub is_occupied: bool,
    /// When it may be told next.
    pub due: Duration,
    /// Since when there is nobody.
    pub empty_since: Option<Duration>,
}

impl Audience {
    /// What is to be told of it now.
    pub fn tell(&mut self, now: Duration, times: &Times, topic: &Name) -> Vec<Notice> {
        let mut notices = Vec::new();
        self.empty_since = if self.pages == 0 { self.empty_since.or(Some(now)) } else { None };
        if self.pages > 0 && !self.is_occupied {
            self.is_occupied = true;
            notices.push(Notice::Occupied { topic: topic.clone() });
        }
        if self.is_occupied && self.empty_since.is_some_and(|since| now >= since.saturating_add(times.vacated)) {
            self.is_occupied = false;
            notices.push(Notice::Vacated { topic: topic.clone() });
        }
        if self.pages != self.told && now >= self.due {
            self.told = self.pages;
            self.due = now.saturating_add(times.audience);
            notices.push(Notice::Audience { topic: topic.clone(), pages: self.pages });
        }
        notices
    }
}

/// Where the reading of a track is.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// The next sequence to be read.
    next: u64,
    /// One beyond the highest sequence of which the hub has heard.
    known: u64,
    /// Once `next` is here, the relays' ring has what was published before the hub followed.
    target: u64,
    /// The read that is under way, and what was known when it was made.
    reading: Option<(Ticket, u64)>,
}

impl Followed {
    /// A topic that the engine was not asked about.
    pub fn new(number: u32, partition: usize, now: Duration) -> Self {
        Self {
            number,
            partition,
            epoch: None,
            tracks: [Place::default(); 4],
            waiting: Vec::new(),
            attaching: None,
            refreshed: now,
            unheld_since: Some(now),
            audience: Audience::default(),
        }
    }

    /// Its epoch, once the engine said it.
    pub const fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// What was seen of it.
    pub fn seen(&self) -> Seen {
        let highest = self.tracks.map(|place| place.known.saturating_sub(1));
        self.epoch.map_or_else(Seen::default, |epoch| Seen { epoch, highest })
    }

    /// Begins at the engine's kept publications. Init segments are taken from `attached` itself.
    pub fn begin(&mut self, attached: &Attached) {
        self.epoch = Some(attached.epoch);
        for (place, (first, next)) in self.tracks.iter_mut().zip(attached.first.iter().zip(attached.next)) {
            *place = Place { next: *first, known: next, target: next, reading: None };
        }
    }

    /// Takes what the engine said about a topic that is followed already.
    pub fn update(&mut self, next: [u64; 4]) {
        for (place, next) in self.tracks.iter_mut().zip(next) {
            place.known = place.known.max(next);
        }
    }

    /// A doorbell: this sequence was published.
    pub fn rung(&mut self, track: Track, sequence: u64) {
        let place = &mut self.tracks[track.index()];
        place.known = place.known.max(sequence.saturating_add(1));
    }

    /// Whether this publication, of the hub's own making, is the very next one, so that it need not
    /// be read. It then counts as read.
    pub fn is_next(&mut self, track: Track, sequence: u64) -> bool {
        let place = &mut self.tracks[track.index()];
        let is_next = place.next == sequence && place.reading.is_none() && self.epoch.is_some();
        if is_next {
            place.next += 1;
            place.known = place.known.max(place.next);
        }
        is_next
    }

    /// The next read to be made: of which track, from where on.
    pub fn next_read(&self) -> Option<(Track, u64)> {
        self.epoch?;
        let mut tracks = Track::ALL.into_iter().map(|track| (track, self.tracks[track.index()]));
        let (track, place) = tracks.find(|(_, place)| place.reading.is_none() && place.next < place.known)?;
        Some((track, place.next))
    }

    /// A read was made.
    pub fn began_read(&mut self, track: Track, ticket: Ticket) {
        let place = &mut self.tracks[track.index()];
        place.reading = Some((ticket, place.known));
    }

    /// Whether this read is the one under way.
    pub fn is_reading(&self, track: Track, ticket: Ticket) -> bool {
        self.tracks[track.index()].reading.is_some_and(|(reading, _)| reading == ticket)
    }

    /// Whether an entry that was read is new. It then counts as read.
    pub fn advance(&mut self, track: Track, sequence: u64) -> bool {
        let place = &mut self.tracks[track.index()];
        let is_new = sequence >= place.next;
        if is_new {
            place.next = sequence.saturating_add(1);
            place.known = place.known.max(place.next);
        }
        is_new
    }

    /// A read has ended. If it returned all that was kept, what was known and not returned is gone.
    pub fn ended_read(&mut self, track: Track, is_all: bool) {
        let place = &mut self.tracks[track.index()];
        if let Some((_, known)) = place.reading.take().filter(|_| is_all) {
            place.next = place.next.max(known);
        }
    }

    /// Whether the relays' ring has what a late page needs.
    pub fn is_loaded(&self) -> bool {
        self.epoch.is_some() && self.tracks.iter().all(|place| place.next >= place.target)
    }
}
