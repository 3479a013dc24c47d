//! Traffic to pages' sockets: bytes by track, and the latency of publications.
//!
//! Owns the latency histogram and its inputs. One publication of each topic is measured at a time,
//! by its `Probe`; the next one is chosen once every page of the topic had its turn. Only pages
//! that were sent everything before it count: a page that catches up after its socket was full, or
//! that has just subscribed, says nothing about the relay. Latency is in whole milliseconds of the
//! machine's time: from the step that read the publication to the turn in which a socket took its
//! first byte. A delivery to pages in lockstep costs one comparison and one addition: what is the
//! same for all of them is multiplied when the next lockstep begins (`Tally`). No clock is read
//! here.

use core::cell::Cell;

use super::time::Instant;
use wire::Track;

/// Upper bounds of the histogram's buckets in milliseconds; one more bucket has the rest.
pub const BOUNDS_MS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000];

/// Latency of publications, from arrival to socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Deliveries by the lowest bound that they do not exceed.
    pub counts: [u64; BOUNDS_MS.len() + 1],
    /// Sum of all latencies in milliseconds.
    pub sum_ms: u64,
}

impl Latency {
    fn observe(&mut self, age_ms: u64, times: u64) {
        let place = BOUNDS_MS.iter().position(|bound| age_ms <= *bound).unwrap_or(BOUNDS_MS.len());
        self.counts[place] += times;
        self.sum_ms = self.sum_ms.saturating_add(age_ms.saturating_mul(times));
    }
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of frames by track, including repeated init segments and the gap and epoch frames of
    /// logs.
    pub sent: [u64; 4],
    /// Latency from arrival to socket.
    pub latency: Latency,
}

/// What one page's delivery in a lockstep adds to the totals.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    /// Bytes by track.
    pub sent: [u64; 4],
    /// Milliseconds since the measured publication arrived, if it is in the delivery.
    pub age_ms: Option<u64>,
}

/// The totals. Deliveries to pages in lockstep are only counted until the next lockstep.
#[derive(Debug, Default)]
pub(super) struct Tally {
    settled: Traffic,
    /// The lockstep that `share` and `times` belong to.
    lockstep: u64,
    share: Share,
    times: u64,
}

impl Tally {
    /// Counts a delivery to one page of a lockstep. `share` is what each of its pages adds;
    /// `number` is where the lockstep's number is kept (0: none yet).
    pub fn add_lockstep(&mut self, share: Share, number: &Cell<u64>) {
        if number.get() != self.lockstep || self.lockstep == 0 {
            self.settled = self.traffic();
            self.lockstep += 1;
            number.set(self.lockstep);
            (self.share, self.times) = (share, 0);
        }
        self.times += 1;
    }

    /// Adds bytes of a track that were sent to one page.
    pub fn add_bytes(&mut self, track: Track, size: u64) {
        self.settled.sent[track.index()] += size;
    }

    /// Adds a delivery of the measured publication to one page.
    pub fn add_age(&mut self, age_ms: u64) {
        self.settled.latency.observe(age_ms, 1);
    }

    /// All totals.
    pub fn traffic(&self) -> Traffic {
        let mut all = self.settled;
        for (sent, size) in all.sent.iter_mut().zip(self.share.sent) {
            *sent += size * self.times;
        }
        if let Some(age_ms) = self.share.age_ms.filter(|_| self.times > 0) {
            all.latency.observe(age_ms, self.times);
        }
        all
    }
}

/// The publication of a topic whose latency is measured.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probe {
    /// Its offset in the log of its track.
    at: u64,
    came: Instant,
    track: u8,
    /// Pages that have not had their turn yet, as of the last publication; 0: none is measured.
    left: u32,
    /// The walk's length when `left` was computed.
    walk: u32,
}

impl Probe {
    /// The walk over the topic's pages starts again, for `pages`; the previous one had not reached
    /// `walk_left`.
    pub fn walk_again(&mut self, walk_left: u32, pages: u32) {
        self.left = self.left.saturating_sub(self.walk.saturating_sub(walk_left));
        self.walk = pages;
    }

    /// A publication for `pages` arrived: measures it unless another is being measured.
    pub fn offer(&mut self, track: Track, at: u64, now: Instant, pages: u32) {
        if self.left == 0 {
            (self.at, self.came, self.left) = (at, now, pages);
            self.track = u8::try_from(track.index()).unwrap_or_default();
        }
    }

    /// The age of the measured publication if a page that goes from offset `before` to `to`
    /// receives it, or a newer state in its place.
    pub fn age_ms(&self, track: Track, before: u64, to: u64, now: Instant) -> Option<u64> {
        let is_passed = self.left > 0 && usize::from(self.track) == track.index() && before <= self.at && self.at < to;
        is_passed.then(|| now.since(self.came))
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{BOARD, Rig};
    use super::*;
    use wire::uplink::Part;

    fn count(rig: &Rig) -> u64 {
        rig.relay.traffic().latency.counts.iter().sum()
    }

    #[test]
    fn a_publication_is_timed_from_its_arrival_to_each_page_that_keeps_up() {
        let mut rig = Rig::up(&BOARD);
        let pages = [rig.viewer(), rig.page(), rig.page()];
        for page in pages {
            rig.subscribe(page, 1, "link");
            rig.read(page);
        }
        assert_eq!(count(&rig), 0, "what a newcomer is sent does not count");
        rig.messages(1..=1);
        let size = rig.take(pages[0], u64::MAX).len() as u64;
        rig.now = rig.now.after(7);
        rig.take(pages[1], u64::MAX);
        rig.now = rig.now.after(6_000);
        rig.take(pages[2], u64::MAX);
        let traffic = rig.relay.traffic();
        let mut counts = [0; BOUNDS_MS.len() + 1];
        (counts[0], counts[3], counts[BOUNDS_MS.len()]) = (1, 1, 1);
        assert_eq!(traffic.latency, Latency { counts, sum_ms: 7 + 6_007 });
        assert_eq!(traffic.sent, [0, 3 * size, 0, 0]);
    }

    #[test]
    fn pages_in_lockstep_are_counted_each() {
        let mut rig = Rig::up(&BOARD);
        let pages = [rig.viewer(), rig.page(), rig.page(), rig.page()];
        for page in pages {
            rig.subscribe(page, 1, "link");
            rig.read(page);
        }
        rig.publish(7, Track::State, 1, Part::Whole, b"{}");
        rig.messages(1..=1);
        for page in pages {
            rig.read(page);
        }
        while rig.relay.poll_page().is_some() {}
        let before = rig.relay.traffic();
        rig.publish(7, Track::State, 2, Part::Whole, b"{}");
        rig.messages(2..=3);
        rig.now = rig.now.after(3);
        rig.draft.begin(rig.now);
        let mut sent = 0;
        for page in pages {
            sent += rig.take_in_lockstep(page, u64::MAX).len() as u64;
            assert!(rig.draft.lockstep.is_some());
        }
        let traffic = rig.relay.traffic();
        assert_eq!(traffic.latency.counts[2], 4, "the first one of the walk is measured, the others are not");
        assert_eq!(traffic.latency.sum_ms - before.latency.sum_ms, 12);
        assert_eq!(traffic.sent.iter().sum::<u64>() - before.sent.iter().sum::<u64>(), sent);
        assert_eq!(rig.relay.counters().deliveries[..2], [8, 12]);
        // Another lockstep begins: what was counted for the previous one stays.
        rig.messages(4..=4);
        rig.take(pages[0], u64::MAX);
        assert_eq!(rig.relay.traffic().latency.counts[2], 4);
    }

    #[test]
    fn a_page_that_was_blocked_counts_again_once_it_has_caught_up() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.messages(1..=1);
        rig.take(page, 5);
        rig.relay.blocked(page);
        rig.now = rig.now.after(900);
        rig.relay.unblocked(page);
        let before = count(&rig);
        rig.messages(2..=2);
        while !rig.take(page, u64::MAX).is_empty() {}
        assert_eq!(count(&rig), before, "what waited for the page is not measured");
        while rig.relay.poll_page().is_some() {}
        rig.messages(3..=3);
        rig.read(page);
        assert_eq!(count(&rig), before + 1);
    }

    #[test]
    fn the_next_one_is_measured_once_every_page_had_its_turn() {
        let mut probe = Probe::default();
        probe.walk_again(0, 10);
        probe.offer(Track::Messages, 100, Instant(5), 10);
        assert_eq!(probe.age_ms(Track::Messages, 100, 150, Instant(9)), Some(4));
        assert_eq!(probe.age_ms(Track::Messages, 150, 180, Instant(9)), None, "the page had it");
        assert_eq!(probe.age_ms(Track::State, 100, 150, Instant(9)), None);
        // Six had their turn, then a publication arrived.
        probe.walk_again(4, 10);
        probe.offer(Track::Messages, 150, Instant(6), 10);
        assert_eq!(probe.age_ms(Track::Messages, 100, 150, Instant(9)), Some(4));
        // The other four, and one of them again.
        probe.walk_again(5, 10);
        probe.offer(Track::State, 0, Instant(8), 10);
        assert_eq!(probe.age_ms(Track::State, 0, 50, Instant(9)), Some(1));
    }
}
