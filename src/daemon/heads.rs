//! The places of connections that are not (yet) pages, and which connection is evicted when they
//! run short.
//!
//! Owns the fixed number of places and the order of eviction: first a connection whose answer has
//! arrived whole, which loses nothing; then silent ones; then those of the address (for IPv6, the
//! /64) that holds the most places, if it holds more than one. So a host that opens many
//! connections evicts its own, and accepting never waits for it. An answer that makes progress is
//! never evicted, nor a TLS handshake that waits for its turn. Refuses nobody: while no place can
//! be freed, the next connection waits in the kernel's backlog. Knows no sockets: an evicted
//! connection learns it from its [`Place`], and closes.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::task::{Poll, Waker};

use relay::time::Instant;

/// Milliseconds of silence after which a connection is evicted before all others. A shorter time
/// would evict clients whose request is on its way; a longer one would let a flood from thousands
/// of addresses keep others out.
const SILENT_MS_MAX: u64 = 250;
/// Milliseconds that a TLS handshake keeps its place for its peer: a round trip of a phone on a
/// poor line. Its own address doesn't take it earlier either: many viewers may share one, and come
/// at once. A flood of hellos keeps the places for as long.
const ROUND_TRIP_MS_MAX: u64 = 500;
/// Milliseconds that an incomplete head keeps its place, if its address holds no other.
const HEAD_MS_MAX: u64 = 1_000;
/// Places of one address that don't make it a crowd: browsers open at most this many connections to
/// a host. Such an address evicts only its own connections. Lower if there are few places.
const CROWD_MIN: usize = 6;
/// Milliseconds that an answer without any progress keeps its place, whatever its address holds:
/// enough for a phone that changes its cell.
const ANSWER_MS_MAX: u64 = 2_000;
/// Milliseconds that a scraper keeps its place while another one waits.
const SCRAPER_MS_MAX: u64 = 1_000;
/// Minimum progress of an answer: bytes acknowledged by the peer for each second.
pub const PROGRESS_PER_S: u64 = 512;

/// The places, oldest connection first.
#[derive(Debug)]
pub struct Heads {
    places: VecDeque<Rc<Place>>,
    /// Number of places held by each network.
    networks: HashMap<IpAddr, Rc<Cell<u32>>>,
    places_max: usize,
    are_scrapers: bool,
    cut: u64,
}

/// One connection's place, until it leaves or is evicted.
#[derive(Debug)]
pub struct Place {
    /// Since when its peer is waited for.
    since: Cell<Instant>,
    network: Option<IpAddr>,
    /// Places held by its network, this one included.
    held: Rc<Cell<u32>>,
    stage: Cell<Stage>,
    is_cut: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Accepted, and not read yet.
    New,
    /// Nothing has arrived.
    Silent,
    /// Part of its head has arrived.
    Head,
    /// A record of its TLS handshake waits for its turn.
    Turn,
    /// The next record of its TLS handshake, or the request behind it, has not arrived.
    Shaking,
    /// Its answer is being sent.
    Response {
        /// When sending began.
        since: Instant,
        /// Bytes acknowledged by the peer.
        arrived: u64,
    },
    /// Its whole answer has arrived.
    Answered,
}

impl Heads {
    /// Places for the pages' port.
    pub fn new(places_max: u32) -> Self {
        let (places_max, networks) = (places_max as usize, HashMap::new());
        Self { places: VecDeque::with_capacity(places_max), networks, places_max, are_scrapers: false, cut: 0 }
    }

    /// Places for scrapers: an answer may be evicted after a second even if it makes progress.
    pub fn of_scrapers(places_max: u32) -> Self {
        Self { are_scrapers: true, ..Self::new(places_max) }
    }

    /// Whether one more connection may [`enter`](Self::enter). Its address is known only once it is
    /// accepted, so there is room as soon as any place could be freed for a connection of the same
    /// address. If it turns out to be another's, there is one connection too many, and no further
    /// one is accepted until a place is freed.
    pub fn has_room(&mut self, now: Instant) -> bool {
        if self.places.len() > self.places_max {
            self.cut_one(now);
        }
        let is_own = !self.are_scrapers;
        self.places.len() < self.places_max
            || self.places.len() == self.places_max && self.places.iter().any(|p| self.rank(p, now, is_own).is_some())
    }

    /// Takes a place, and evicts another connection if all are taken. `network` is none for
    /// connections of a trusted proxy: each is another viewer's and counts for itself.
    pub fn enter(&mut self, now: Instant, network: Option<IpAddr>) -> Rc<Place> {
        let held = network.map(|network| Rc::clone(self.networks.entry(network).or_default())).unwrap_or_default();
        held.set(held.get() + 1);
        let (stage, is_cut, waker) = (Cell::new(Stage::New), Cell::new(false), RefCell::new(None));
        let since = Cell::new(now);
        let place = Rc::new(Place { since, network, held, stage, is_cut, waker });
        self.places.push_back(Rc::clone(&place));
        if self.places.len() > self.places_max {
            self.cut_for(now, Some(&place.held));
        }
        place
    }

    /// Evicts the connection with the lowest rank; `false` if none may be evicted.
    pub fn cut_one(&mut self, now: Instant) -> bool {
        self.cut_for(now, None)
    }

    /// The same for a new connection, whose network is the one counted by `held`.
    fn cut_for(&mut self, now: Instant, held: Option<&Rc<Cell<u32>>>) -> bool {
        let is_own = |place: &Place| held.is_some_and(|held| Rc::ptr_eq(held, &place.held));
        let ranked = self.places.iter().filter_map(|place| Some((self.rank(place, now, is_own(place))?, place)));
        // Of equal ranks, the first: the oldest connection.
        let Some(place) = ranked.min_by_key(|(rank, _)| *rank).map(|(_, place)| Rc::clone(place)) else { return false };
        self.leave(&place);
        self.cut += u64::from(!place.is_answered());
        place.is_cut.set(true);
        if let Some(waker) = place.waker.take() {
            waker.wake();
        }
        true
    }

    /// The rank for eviction, lowest first; `None` if it may not be evicted. `is_own`: the place
    /// would go to a connection of the same network.
    fn rank(&self, place: &Place, now: Instant, is_own: bool) -> Option<(u8, Reverse<u32>, bool, bool)> {
        let held = place.held.get() as usize;
        let is_crowd = held > (self.places_max / 8).clamp(1, CROWD_MIN);
        let age = now.since(place.since.get());
        let (is_due, rank) = match place.stage.get() {
            Stage::New | Stage::Turn => return None,
            Stage::Answered => return Some((0, Reverse(0), false, false)),
            Stage::Silent if age >= SILENT_MS_MAX => (true, 1),
            Stage::Silent => (is_own || is_crowd, 2),
            Stage::Head => (is_own || is_crowd || age >= HEAD_MS_MAX, 2),
            Stage::Shaking => (age >= ROUND_TRIP_MS_MAX, 2),
            Stage::Response { since, .. } if self.are_scrapers => (now.since(since) >= SCRAPER_MS_MAX, 2),
            Stage::Response { since, arrived } => {
                let earned = ANSWER_MS_MAX + arrived.saturating_mul(1000) / PROGRESS_PER_S;
                (held > self.places_max / 4 && now.since(since) >= earned, 2)
            }
        };
        let is_answer = matches!(place.stage.get(), Stage::Response { .. });
        is_due.then_some((rank, Reverse(if is_crowd { place.held.get() } else { 0 }), !is_own, is_answer))
    }

    /// Frees a place.
    pub fn leave(&mut self, place: &Rc<Place>) {
        let Some(index) = self.places.iter().position(|other| Rc::ptr_eq(other, place)) else { return };
        self.places.remove(index);
        place.held.set(place.held.get().saturating_sub(1));
        if let Some(network) = place.network.filter(|_| place.held.get() == 0) {
            self.networks.remove(&network);
        }
    }

    /// Whether the last quarter of the places is in use. Then requests should not hold a place for
    /// long.
    pub fn is_short(&self) -> bool {
        self.places.len() > self.places_max - self.places_max.div_ceil(4)
    }

    /// Places in use.
    pub fn count(&self) -> u32 {
        u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    /// Connections evicted before they were answered.
    pub const fn cut(&self) -> u64 {
        self.cut
    }
}

impl Place {
    /// The network that the place counts for; none for a trusted proxy's connection.
    pub const fn network(&self) -> Option<IpAddr> {
        self.network
    }

    /// Records that nothing has arrived yet.
    pub fn says_nothing(&self) {
        self.stage.set(Stage::Silent);
    }

    /// Records that part of the head has arrived.
    pub fn head_begins(&self) {
        self.stage.set(Stage::Head);
    }

    /// Records that a record of the TLS handshake waits for its turn.
    pub fn awaits_turn(&self) {
        self.stage.set(Stage::Turn);
    }

    /// Records that it is the peer's turn in the TLS handshake, or to send its request.
    pub fn awaits_peer(&self, now: Instant) {
        self.since.set(now);
        self.stage.set(Stage::Shaking);
    }

    /// Records that the peer acknowledged `arrived` bytes of an answer begun at `since`.
    pub fn answer_arrives(&self, since: Instant, arrived: u64) {
        self.stage.set(Stage::Response { since, arrived });
    }

    /// Whether the whole answer has arrived.
    pub fn is_answered(&self) -> bool {
        self.stage.get() == Stage::Answered
    }

    /// Records that the whole answer has arrived: anyone may take the place now.
    pub fn answer_arrived(&self) {
        self.stage.set(Stage::Answered);
    }

    /// Waits until the place is evicted.
    pub async fn cut(&self) {
        poll_fn(|context| {
            if self.is_cut.get() {
                return Poll::Ready(());
            }
            let mut waker = self.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *waker = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// The network of an address: for IPv6 the /64, since one host has a whole one.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(host: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, host]))
    }

    fn enter(heads: &mut Heads, ms: u64, host: u8, stage: Stage) -> Rc<Place> {
        let place = heads.enter(Instant(ms), of(host));
        place.stage.set(stage);
        place
    }

    fn cuts(places: &[&Rc<Place>]) -> Vec<bool> {
        places.iter().map(|place| place.is_cut.get()).collect()
    }

    #[test]
    fn the_address_that_holds_most_gives_to_itself_and_to_others() {
        let mut heads = Heads::new(4);
        let bystander = enter(&mut heads, 0, 1, Stage::Head);
        let many = [0, 1, 2].map(|ms| enter(&mut heads, ms, 2, Stage::Head));
        for ms in 3..1000 {
            enter(&mut heads, ms, 2, Stage::Head);
        }
        let late = enter(&mut heads, 1000, 3, Stage::Silent);
        enter(&mut heads, 1001, 2, Stage::Head);
        assert!(heads.has_room(Instant(1001)));
        assert_eq!(cuts(&[&bystander, &many[0], &many[1], &many[2], &late]), [false, true, true, true, false]);
        assert_eq!((heads.count(), heads.cut()), (4, 999));
    }

    #[test]
    fn who_is_silent_gives_before_who_has_begun_once_its_request_can_be_there() {
        let mut heads = Heads::new(3);
        let begun = [0, 0].map(|ms| enter(&mut heads, ms, 1, Stage::Head));
        let silent = enter(&mut heads, 1, 2, Stage::Silent);
        enter(&mut heads, 1 + SILENT_MS_MAX, 3, Stage::Silent);
        assert_eq!(cuts(&[&begun[0], &begun[1], &silent]), [false, false, true]);
        // The newest one is spared: its request may be on its way.
        enter(&mut heads, 2 + SILENT_MS_MAX, 4, Stage::Silent);
        assert_eq!(cuts(&[&begun[0], &begun[1]]), [true, false]);
    }

    #[test]
    fn of_many_addresses_with_a_place_each_none_gives_before_its_time_but_to_itself() {
        let mut heads = Heads::new(3);
        let one_each = [1, 2, 3].map(|host| enter(&mut heads, 0, host, Stage::Silent));
        // The address of the next connection is known only once it is accepted.
        assert!(heads.has_room(Instant(1)));
        let own = enter(&mut heads, 1, 2, Stage::Silent);
        assert_eq!(cuts(&[&one_each[0], &one_each[1], &one_each[2], &own]), [false, true, false, false]);
        let one_too_many = enter(&mut heads, 2, 4, Stage::Silent);
        assert!(heads.count() == 4 && !heads.has_room(Instant(SILENT_MS_MAX - 1)));
        assert!(heads.has_room(Instant(SILENT_MS_MAX)));
        assert_eq!(cuts(&[&one_each[0], &one_each[2], &own, &one_too_many]), [true, false, false, false]);
        assert_eq!(heads.count(), 3);
        // A connection that was not read yet may have sent everything.
        for place in [&one_each[2], &own, &one_too_many] {
            place.stage.set(Stage::New);
        }
        assert!(!heads.has_room(Instant(10_000)));
        let head = &own;
        head.head_begins();
        enter(&mut heads, HEAD_MS_MAX, 5, Stage::Head);
        assert_eq!((own.is_cut.get(), heads.count()), (false, 4));
        assert!(heads.has_room(Instant(1 + HEAD_MS_MAX)) && own.is_cut.get());
    }

    #[test]
    fn an_answer_that_makes_progress_is_never_cut_and_one_that_has_arrived_goes_first() {
        let mut heads = Heads::new(2);
        let since = Instant(0);
        let slow = enter(&mut heads, 0, 1, Stage::Response { since, arrived: 5 * PROGRESS_PER_S });
        let stuck = enter(&mut heads, 0, 1, Stage::Response { since, arrived: 0 });
        assert!(!heads.has_room(Instant(ANSWER_MS_MAX - 1)));
        assert!(heads.has_room(Instant(ANSWER_MS_MAX)));
        let next = enter(&mut heads, 5_000, 2, Stage::Silent);
        assert_eq!(cuts(&[&slow, &stuck]), [false, true]);
        slow.answer_arrived();
        enter(&mut heads, 5_001, 2, Stage::Silent);
        assert_eq!(cuts(&[&slow, &next]), [true, false]);
        assert_eq!(heads.cut(), 1, "one that is answered lost nothing");
    }

    #[test]
    fn a_handshake_is_not_cut_for_our_own_slowness_and_has_a_round_trip_for_its_own() {
        let mut heads = Heads::new(2);
        let ours = enter(&mut heads, 0, 1, Stage::Turn);
        let theirs = enter(&mut heads, 0, 3, Stage::New);
        theirs.awaits_peer(Instant(5_000));
        assert!(!heads.has_room(Instant(5_000 + ROUND_TRIP_MS_MAX - 1)));
        assert!(heads.has_room(Instant(5_000 + ROUND_TRIP_MS_MAX)));
        enter(&mut heads, 5_000 + ROUND_TRIP_MS_MAX, 2, Stage::Turn);
        assert_eq!(cuts(&[&ours, &theirs]), [false, true]);
    }

    #[test]
    fn a_browser_with_its_six_connections_gives_none_to_a_flood_from_many_addresses() {
        let mut heads = Heads::new(64);
        let browser = [0; CROWD_MIN].map(|ms| enter(&mut heads, ms, 200, Stage::Head));
        for number in 0..58 + 600 {
            enter(&mut heads, 1, u8::try_from(number % 58).unwrap(), Stage::Head);
        }
        assert!(browser.iter().all(|place| !place.is_cut.get()));
        assert_eq!((heads.count(), heads.cut()), (64, 600));
        // One more evicts one of its own.
        enter(&mut heads, 2, 200, Stage::Head);
        enter(&mut heads, 2, 201, Stage::Head);
        assert_eq!(browser.iter().filter(|place| place.is_cut.get()).count(), 1);
    }

    #[test]
    fn who_stands_for_itself_alone_is_no_crowd() {
        let mut heads = Heads::new(4);
        let proxied = [0, 0].map(|ms| heads.enter(Instant(ms), None));
        proxied.iter().for_each(|place| place.says_nothing());
        let two = [0, 0].map(|ms| enter(&mut heads, ms, 1, Stage::Silent));
        heads.enter(Instant(1), None);
        assert_eq!(cuts(&[&proxied[0], &proxied[1], &two[0], &two[1]]), [false, false, true, false]);
        for place in [&proxied[0], &proxied[1], &two[1]] {
            heads.leave(place);
        }
        assert_eq!((heads.count(), heads.networks.len()), (1, 0));
    }

    #[test]
    fn a_scraper_is_cut_for_another_after_a_second_however_much_it_took() {
        let mut heads = Heads::of_scrapers(1);
        let slow = enter(&mut heads, 0, 1, Stage::Response { since: Instant(0), arrived: 1 << 20 });
        assert!(!heads.has_room(Instant(SCRAPER_MS_MAX - 1)));
        enter(&mut heads, SCRAPER_MS_MAX, 2, Stage::Silent);
        assert_eq!(cuts(&[&slow]), [true]);
    }

    #[test]
    fn a_network_is_an_address_or_a_64() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network("127.0.0.9"), "127.0.0.9");
    }
}
