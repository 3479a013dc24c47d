//! Hubs, relays and pages together on a simulated engine, under seeded random faults: an engine
//! that lags, loses its newest writes at a promotion and numbers on; hubs and relays that die; a
//! webhook that fails. The machines are the real ones, `hub::Hub` and `relay::Relay`.
//!
//! Checked at every step: all pages and publishers agree on the content of each (topic, epoch,
//! track, sequence); pages get messages in order, and each number is delivered or reported by a
//! gap; no final denial without a reason; nothing of another topic; nobody is admitted by a revoked
//! link.
//! At the end all faults heal, and every page must show the newest of everything. Run by
//! `seeds.rs`.

#![expect(clippy::cast_possible_truncation, reason = "numbers of the simulation's own making, all small")]

mod cluster;
mod scene;
mod viewer;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use board::Board;
use business::RelayId;
use hub::admission::{QuestionId, Subscribe, Verdict};
use hub::call::{Answer, ApiId, Call};
use hub::engine::{Append, Part, Refusal};
use hub::{Hub, Moment, Name};
use relay::draft::Draft;
use relay::pages::{Peer, Verdict as PageVerdict};
use relay::time::{Instant, Jitter};
use relay::transmit::{Progress, Slices};
use relay::{Relay, Settings};
use wire::Track;
use wire::uplink::Deframer;

use crate::seeds::simulate;
use crate::simulation::{ROOMY, ensure};
use cluster::Cluster;
use scene::{DENIED, ENDED, LINKS, REVOKED, SECRET, hub_settings, names, webhook};
use viewer::{Ask, Shown, Viewer};

const HUBS: usize = 2;
const RELAYS: usize = 3;
const BOARD: Board = Board {
    pages_max: 16,
    topics_max: 8,
    topics_per_page_max: 8,
    links_max: 16,
    page_asks_burst: 250,
    address_asks_burst: 250,
    ..ROOMY
};
/// All clocks on walls begin here, in microseconds since 1970.
const BEGINNING_US: u64 = 1_700_000_000_000_000;

/// A hub, and what it waits for.
#[derive(Default)]
struct HubSide {
    hub: Option<Box<Hub>>,
    /// Which life of it this is: it knows what it was told in this one.
    life: u64,
    questions: Vec<(u64, QuestionId, Subscribe)>,
    calls: BTreeMap<ApiId, Op>,
}

/// What the API was asked for.
#[derive(Clone)]
enum Op {
    Publish { topic: usize, track: Track, data: Vec<u8> },
    End,
    Open,
    Revoke { link: &'static str },
}

/// A relay, its line to a hub, and its pages.
struct RelaySide {
    relay: Box<Relay>,
    draft: Draft,
    deframer: Deframer,
    line: Option<Line>,
    /// How many lines it has had.
    lines: u64,
    viewers: Vec<Viewer>,
}

struct Line {
    hub: usize,
    id: RelayId,
    up: VecDeque<u8>,
    down: VecDeque<u8>,
}

/// A link that was revoked: the lives of hubs that know it, and until when.
struct Revoked {
    link: &'static str,
    life: u64,
    at: u64,
    until: u64,
}

type Place = (usize, u64, usize, u64);

struct World {
    rng: Jitter,
    now: u64,
    names: Vec<Name>,
    cluster: Cluster,
    hubs: Vec<HubSide>,
    relays: Vec<RelaySide>,
    lives: u64,
    next_call: u64,
    next_text: u64,
    /// The webhook answers nothing until then.
    webhook_back: u64,
    /// The replica gets nothing until then.
    replica_back: u64,
    is_healed: bool,
    /// What the hubs say is about to be compared with what there is.
    is_counted: bool,
    /// The engine loses nothing in this run, so no message may be told as missing.
    keeps_all: bool,
    /// What each place of a track holds: topic, epoch, track, sequence.
    contents: BTreeMap<Place, Vec<u8>>,
    revoked: Vec<Revoked>,
    asked_to_revoke: BTreeSet<&'static str>,
    places: VecDeque<(&'static str, u64, u64)>,
    deeds: BTreeMap<&'static str, u64>,
    /// Answers since the last look, for the final check.
    answered: Vec<(Op, Answer)>,
    is_traced: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Jitter::new(seed);
        let relays = (0..RELAYS).map(|at| {
            let settings = Settings {
                name: format!("box-{at}"),
                secret: SECRET.to_vec(),
                entries: HUBS as u32,
                dead_after_ms: 30_000,
                linger_ms: 3_000,
                pages_per_address: Some(0),
            };
            RelaySide {
                relay: Relay::new(&BOARD, settings, rng.bits(), Instant(0)),
                draft: Draft::default(),
                deframer: Deframer::new(BOARD.data_size_max() as usize).with_extensions(),
                line: None,
                lines: 0,
                viewers: Vec::new(),
            }
        });
        let mut world = Self {
            relays: relays.collect(),
            rng,
            now: 0,
            names: names(),
            cluster: Cluster::new(HUBS),
            hubs: (0..HUBS).map(|_| HubSide::default()).collect(),
            lives: 0,
            next_call: 0,
            next_text: 0,
            webhook_back: 0,
            replica_back: 0,
            is_healed: false,
            is_counted: false,
            keeps_all: false,
            contents: BTreeMap::new(),
            revoked: Vec::new(),
            asked_to_revoke: BTreeSet::new(),
            places: VecDeque::new(),
            deeds: BTreeMap::new(),
            answered: Vec::new(),
            is_traced: std::env::var_os("SIM_TRACE").is_some(),
        };
        world.cluster.loses = [0, 2, 10][world.any(3)];
        world.keeps_all = world.one_in(3);
        (0..HUBS).for_each(|hub| world.start(hub));
        world
    }

    fn did(&mut self, deed: &'static str) {
        *self.deeds.entry(deed).or_default() += 1;
        self.note(|_| deed.to_owned());
    }

    fn note(&self, text: impl Fn(&Self) -> String) {
        if self.is_traced {
            eprintln!("{} {}", self.now, text(self));
        }
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.rng.below(n) == 0
    }

    fn any(&mut self, count: usize) -> usize {
        self.rng.below(count as u64) as usize
    }

    fn moment(&self) -> Moment {
        Moment { at: Duration::from_millis(self.now), unix_us: BEGINNING_US + self.now * 1000 }
    }

    fn start(&mut self, hub: usize) {
        self.lives += 1;
        let settings = hub_settings(self.any(2) == 0);
        self.hubs[hub] = HubSide { hub: Some(Box::new(Hub::new(settings))), life: self.lives, ..HubSide::default() };
    }

    fn step(&mut self) -> Result<(), String> {
        self.strike();
        match self.any(20) {
            0..6 => self.publish(),
            6 => self.call_some(),
            7..9 => self.open_page(),
            9..12 => self.subscribe_some(),
            12 => self.leave(),
            _ => {}
        }
        let ms = if self.one_in(10) { self.rng.below(3_000) } else { self.rng.below(60) };
        self.pass(ms)
    }

    fn strike(&mut self) {
        let is_lagging = self.now < self.replica_back;
        if !is_lagging && self.one_in(3) {
            self.cluster.replicate();
        }
        if is_lagging && !self.keeps_all && self.one_in(40) {
            self.did("a promotion of a replica that lags");
            let lives = self.one_in(2);
            self.cluster.promote(lives);
        }
        for hub in 0..HUBS {
            if self.cluster.is_behind(hub) && self.one_in(12) {
                self.cluster.notice(hub);
            }
            if self.hubs[hub].hub.is_none() && self.one_in(20) {
                self.start(hub);
            }
            if self.cluster.is_cut(hub) && self.one_in(20) {
                self.cluster.cut(hub, false);
            }
        }
        let hub = self.any(HUBS);
        match self.any(400) {
            0..9 if self.keeps_all => {}
            0..4 => {
                self.did("a promotion beside a primary that goes on");
                self.cluster.promote(true);
            }
            4..8 => {
                self.did("a promotion");
                self.cluster.promote(false);
            }
            8 => {
                self.did("an engine that is empty again");
                self.cluster.flush();
            }
            9..12 => {
                self.did("a hub cut from the engine");
                self.cluster.cut(hub, true);
            }
            12..15 => {
                self.did("a hub that died");
                self.hubs[hub] = HubSide::default();
                self.cluster.forget(hub);
                let lost = |line: &mut Line| line.hub == hub;
                (0..RELAYS).for_each(|at| {
                    if self.relays[at].line.as_mut().is_some_and(lost) {
                        self.lose_line(at);
                    }
                });
            }
            15..18 => {
                self.did("a line that broke");
                let at = self.any(RELAYS);
                self.hang_up(at);
                self.lose_line(at);
            }
            18..21 => {
                self.did("a webhook that fails");
                self.webhook_back = self.now + self.rng.below(20_000);
            }
            21..26 => {
                self.did("a replica that lags");
                self.replica_back = self.now + self.rng.below(20_000);
            }
            _ => {}
        }
    }

    // The API.

    fn call(&mut self, hub: usize, op: Op, call: Call) {
        self.next_call += 1;
        let (id, now) = (ApiId(self.next_call), self.moment());
        let side = &mut self.hubs[hub];
        let Some(machine) = &mut side.hub else { return };
        side.calls.insert(id, op);
        machine.handle_call(now, id, call);
    }

    /// A text that says which topic it is of, and that was never there before.
    fn text(&mut self, topic: usize) -> Vec<u8> {
        self.next_text += 1;
        format!(r#"{{"of":"{}","n":{}}}"#, self.names[topic], self.next_text).into_bytes()
    }

    fn publish(&mut self) {
        let (hub, topic) = (self.any(HUBS), self.any(self.names.len()));
        match self.any(4) {
            0 => self.publish_on(hub, topic, Track::State, Part::Whole),
            1 => {
                let part = [Part::Init { mime: "video/mp4".into() }, Part::Start, Part::Continue][self.any(3)].clone();
                self.publish_on(hub, topic, Track::Video, part);
            }
            _ => self.publish_on(hub, topic, Track::Messages, Part::Whole),
        }
    }

    fn publish_on(&mut self, hub: usize, topic: usize, track: Track, part: Part) {
        let data = self.text(topic);
        let append = Append { track, part, data: data.clone().into(), key: None, replaces: None, stream: None };
        self.call(hub, Op::Publish { topic, track, data }, Call::Publish { topic: self.names[topic].clone(), append });
    }

    /// Ends, opens or revokes.
    fn call_some(&mut self) {
        let (hub, topic) = (self.any(HUBS), self.names[self.rng.bits() as usize % self.names.len()].clone());
        match self.any(8) {
            0 => self.call(hub, Op::End, Call::End { topic, reason: ENDED.into() }),
            1..4 => self.call(hub, Op::Open, Call::Open { topic }),
            4 => {
                let link = LINKS[self.any(LINKS.len())].0;
                self.did("a link revoked");
                self.asked_to_revoke.insert(link);
                for hub in 0..HUBS {
                    let call = Call::Revoke { link: link.to_owned(), reason: REVOKED.into(), ttl_s: 20 };
                    self.call(hub, Op::Revoke { link }, call);
                }
            }
            _ => {}
        }
    }

    // Pages.

    fn open_page(&mut self) {
        let at = self.any(RELAYS);
        let side = &mut self.relays[at];
        let peer = Peer { address: IpAddr::from([10, 0, 0, 1]), origin: "", is_anybody: false };
        if let Ok(id) = side.relay.handle_page_open(Instant(self.now), peer) {
            side.viewers.push(Viewer::new(id));
            let (viewer, link) = (side.viewers.len() - 1, self.any(LINKS.len()));
            self.subscribe(at, viewer, link);
        }
    }

    fn subscribe_some(&mut self) {
        let at = self.any(RELAYS);
        if !self.relays[at].viewers.is_empty() {
            let (viewer, link) = (self.any(self.relays[at].viewers.len()), self.any(LINKS.len()));
            self.subscribe(at, viewer, link);
        }
    }

    fn subscribe(&mut self, at: usize, viewer: usize, link: usize) {
        let link = LINKS[link].0;
        let places: Vec<_> = self.places.iter().filter(|place| place.0 == link).copied().collect();
        let since = (!places.is_empty() && self.one_in(2)).then(|| places[self.any(places.len())]);
        let since = since.map(|(_, epoch, next)| (epoch, next));
        let side = &mut self.relays[at];
        let viewer = &mut side.viewers[viewer];
        let is_same =
            |other: &str| other == link || scene::topic_of(other).is_some_and(|of| Some(of) == scene::topic_of(link));
        let mut others = viewer.views.values().map(|view| view.link).chain(viewer.asks.values().map(|ask| ask.link));
        if others.any(is_same) {
            return;
        }
        viewer.next_id += 1;
        let id = viewer.next_id;
        viewer.asks.insert(id, Ask { link, since, at: self.now });
        let since = since
            .map_or(String::new(), |(epoch, next)| format!(r#","since":{{"epoch":"{epoch}","next":[0,{next},0,0]}}"#));
        let text = format!(r#"{{"type":"subscribe","id":{id},"link":"{link}"{since}}}"#);
        side.relay.handle_page_text(Instant(self.now), viewer.id, &text);
    }

    fn leave(&mut self) {
        let at = self.any(RELAYS);
        if !self.relays[at].viewers.is_empty() {
            let viewer = self.any(self.relays[at].viewers.len());
            self.close(at, viewer);
        }
    }

    fn close(&mut self, at: usize, viewer: usize) {
        let viewer = self.relays[at].viewers.swap_remove(viewer);
        self.places.extend(viewer.places());
        while self.places.len() > 30 {
            self.places.pop_front();
        }
        self.relays[at].relay.handle_page_closed(Instant(self.now), viewer.id);
    }

    // Time, and everything that moves by itself.

    fn pass(&mut self, ms: u64) -> Result<(), String> {
        let end = self.now + ms;
        loop {
            self.move_all()?;
            if self.now >= end {
                return Ok(());
            }
            self.now = (self.now + 50).min(end);
        }
    }

    fn move_all(&mut self) -> Result<(), String> {
        for _ in 0..3 {
            let now = self.moment();
            for hub in 0..HUBS {
                self.run_hub(hub)?;
            }
            self.cluster.work(now, &mut self.rng);
            for at in 0..RELAYS {
                self.run_relay(at)?;
            }
        }
        Ok(())
    }

    fn run_hub(&mut self, at: usize) -> Result<(), String> {
        let now = self.moment();
        let (replies, bells) = self.cluster.arrived(now, at);
        let side = &mut self.hubs[at];
        let Some(hub) = &mut side.hub else { return Ok(()) };
        for (ticket, reply) in replies {
            hub.handle_reply(now, ticket, reply);
        }
        bells.into_iter().for_each(|bell| hub.handle_doorbell(bell));
        if hub.deadline() <= now.at {
            hub.handle_timeout(now.at);
        }
        while let Some(place) = side.questions.iter().position(|(due, ..)| *due <= self.now) {
            let (_, question, subscribe) = side.questions.remove(place);
            let is_away = self.now < self.webhook_back;
            let verdict = if is_away { Verdict::NoAnswer } else { webhook(&self.names, &subscribe.link) };
            hub.handle_verdict(now.at, question, verdict);
        }
        while let Some((ticket, request)) = hub.poll_request() {
            self.cluster.ask(now, at, ticket, request, &mut self.rng);
        }
        while let Some((question, subscribe)) = hub.poll_subscribe(now.at) {
            let lag = if self.is_healed { 0 } else { self.rng.below(300) };
            side.questions.push((self.now + lag, question, subscribe));
        }
        while hub.poll_notice().is_some() || hub.poll_ready().is_some() {}
        let mut answers = Vec::new();
        while let Some((id, answer)) = hub.poll_answer() {
            answers.push((side.calls.remove(&id).ok_or("an answer to no call")?, answer));
        }
        let mut notes = Vec::new();
        while let Some(note) = hub.poll_note() {
            notes.push(note.to_string());
        }
        notes.iter().for_each(|note| self.note(|_| format!("hub {at}: {note}")));
        answers.into_iter().try_for_each(|(op, answer)| self.take_answer(at, op, answer))
    }

    fn take_answer(&mut self, hub: usize, op: Op, answer: Answer) -> Result<(), String> {
        match (&op, &answer) {
            (Op::Publish { topic, track, data }, Answer::Published { epoch, sequence, .. }) => {
                self.hold((*topic, *epoch, track.index(), *sequence), data)?;
                self.did("a publication");
            }
            (Op::Revoke { link }, Answer::Done) => {
                let life = self.hubs[hub].life;
                self.revoked.push(Revoked { link, life, at: self.now, until: self.now + 18_000 });
            }
            (_, Answer::Refused(Refusal::Publication(_) | Refusal::Ended(_)) | Answer::Done) => {}
            (_, Answer::Unavailable) => self.did("a call without an answer of the engine"),
            _ => return Err(format!("a call was answered by {answer:?}")),
        }
        self.answered.push((op, answer));
        Ok(())
    }

    /// One place holds one content.
    fn hold(&mut self, place: Place, data: &[u8]) -> Result<(), String> {
        let held = self.contents.entry(place).or_insert_with(|| data.to_vec());
        let lossy = String::from_utf8_lossy;
        ensure!(held == data, "two contents of {place:?}: {} and {}", lossy(held), lossy(data));
        Ok(())
    }

    fn run_relay(&mut self, at: usize) -> Result<(), String> {
        let now = Instant(self.now);
        let side = &mut self.relays[at];
        side.viewers.iter().for_each(|viewer| side.relay.handle_page_heard(now, viewer.id));
        if now >= side.relay.poll_timeout() {
            side.relay.handle_timeout(now);
            while let Some(page) = side.relay.poll_measure() {
                side.relay.handle_measured(page, 0, 0);
            }
            side.relay.handle_measures_done(now);
        }
        while side.relay.poll_event().is_some() {}
        self.dial(at);
        self.carry(at)?;
        if self.relays[at].line.is_some() && self.relays[at].relay.uplink_fault(now).is_some() {
            self.hang_up(at);
            self.lose_line(at);
        }
        self.serve(at)
    }

    fn dial(&mut self, at: usize) {
        let (now, nonce) = (Instant(self.now), [self.rng.below(256) as u8; 16]);
        let side = &mut self.relays[at];
        if side.line.is_some() {
            // At the end none moves, so that counts can be compared.
            if !self.is_counted
                && let Some(entry) = side.relay.poll_knock(now)
                && self.one_in(2)
                && self.hubs[entry].hub.is_some()
            {
                self.hang_up(at);
                self.relays[at].line = None;
                self.relays[at].deframer.reset();
                self.relays[at].relay.handle_uplink_moved(now, entry);
                self.connect(at, entry, nonce);
            }
            return;
        }
        let Some(entry) = side.relay.poll_dial(now) else { return };
        if self.hubs[entry].hub.is_some() { self.connect(at, entry, nonce) } else { side.relay.handle_uplink_lost(now) }
    }

    fn connect(&mut self, at: usize, hub: usize, nonce: [u8; 16]) {
        let (now, challenge) = (self.moment(), [self.rng.below(256) as u8; 16]);
        let Some(machine) = &mut self.hubs[hub].hub else { return };
        let id = machine.connect(now.at, challenge);
        let side = &mut self.relays[at];
        side.deframer.reset();
        side.relay.handle_uplink_connected(Instant(self.now), nonce);
        side.lines += 1;
        side.line = Some(Line { hub, id, up: VecDeque::new(), down: VecDeque::new() });
    }

    /// The hub notices that the line is gone.
    fn hang_up(&mut self, at: usize) {
        let now = self.moment();
        if let Some(line) = &self.relays[at].line
            && let Some(hub) = &mut self.hubs[line.hub].hub
        {
            hub.disconnect(now.at, line.id, business::Ended::Closed("it closed the connection".to_owned()));
        }
    }

    fn lose_line(&mut self, at: usize) {
        let side = &mut self.relays[at];
        if side.line.take().is_some() {
            side.deframer.reset();
            side.relay.handle_uplink_lost(Instant(self.now));
        }
    }

    /// Bytes move on the line, some of them.
    fn carry(&mut self, at: usize) -> Result<(), String> {
        let (now, instant) = (self.moment(), Instant(self.now));
        let is_all = self.is_healed || self.one_in(2);
        let most = if is_all { usize::MAX } else { self.any(400) };
        let side = &mut self.relays[at];
        let Some(line) = &mut side.line else { return Ok(()) };
        let Some(hub) = &mut self.hubs[line.hub].hub else { return Ok(()) };
        let bytes = side.relay.uplink_transmit().to_vec();
        line.up.extend(&bytes);
        side.relay.uplink_wrote(instant, bytes.len());
        let up: Vec<u8> = line.up.drain(..line.up.len().min(most)).collect();
        let mut frames = Vec::new();
        let is_there = (up.is_empty() || hub.received(now, line.id, &up)) && hub.take(line.id, 4096, &mut frames);
        frames.iter().for_each(|frame| line.down.extend(&frame[..]));
        let down: Vec<u8> = line.down.drain(..line.down.len().min(most)).collect();
        let mut down = &down[..];
        while !down.is_empty() {
            let space = side.deframer.space();
            let size = space.len().min(down.len());
            let (some, rest) = down.split_at(size);
            space[..size].copy_from_slice(some);
            side.deframer.filled(size);
            down = rest;
            while let Some(incoming) = side.deframer.next_frame().map_err(|error| error.to_string())? {
                side.relay.handle_uplink(instant, incoming).map_err(|error| format!("the hub's frame: {error}"))?;
            }
        }
        if !is_there {
            self.lose_line(at);
        }
        Ok(())
    }

    fn serve(&mut self, at: usize) -> Result<(), String> {
        let now = Instant(self.now);
        self.relays[at].draft.begin(now);
        while let Some(id) = self.relays[at].relay.poll_page() {
            loop {
                let side = &mut self.relays[at];
                let place = side.viewers.iter().position(|viewer| viewer.id == id).ok_or("no such page")?;
                if side.relay.verdict(id) != PageVerdict::Serve {
                    self.close(at, place);
                    break;
                }
                side.relay.plan(id, &mut side.draft);
                if side.draft.is_empty() {
                    break;
                }
                let mut slices = Slices::new();
                let total = side.relay.gather(id, &side.draft, &mut slices);
                let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
                drop(slices);
                side.relay.wrote(id, &side.draft, Progress::plain(total));
                let shown =
                    side.viewers[place].read(&bytes).map_err(|error| format!("relay {at}, page {id}: {error}"))?;
                shown.into_iter().try_for_each(|shown| self.judge(at, place, shown))?;
            }
            let side = &mut self.relays[at];
            if side.relay.poll_full() {
                while let Some(page) = side.relay.poll_measure() {
                    side.relay.handle_measured(page, 0, 0);
                }
                side.relay.handle_measures_done(now);
                side.draft.begin(now);
            }
        }
        Ok(())
    }

    /// Whether a page may be shown this.
    fn judge(&mut self, at: usize, viewer: usize, shown: Shown) -> Result<(), String> {
        self.note(|_| format!("relay {at}: {shown:?}"));
        match shown {
            Shown::Subscribed { link, asked_at, topic } => {
                self.did("a subscription");
                let life = self.relays[at].line.as_ref().map(|line| self.hubs[line.hub].life);
                let mut known = self.revoked.iter().filter(|row| row.link == link && Some(row.life) == life);
                let lines = self.relays[at].lines;
                if let Some(view) = self.relays[at].viewers[viewer].views.get_mut(&topic) {
                    view.line = lines;
                }
                let is_in = known.any(|row| row.at < asked_at && self.now < row.until);
                ensure!(!is_in, "a page got in by {link}, which was revoked");
                let wanted = scene::topic_of(link).map(|topic| scene::fleet_key().number(&self.names[topic]));
                ensure!(wanted == Some(topic), "{link} shows topic {topic}, not {wanted:?}");
            }
            Shown::Denied { link, reason, is_final: true } | Shown::Ended { link, reason } => {
                let is_there = match &*reason {
                    DENIED => scene::topic_of(link).is_none(),
                    // Also where the hub died before it said that it was done.
                    REVOKED => self.asked_to_revoke.contains(link),
                    ENDED => true,
                    // Of the other twin, which has the same number.
                    "this page has the topic already" => scene::is_twin(link),
                    _ => reason.contains("has its number") && scene::is_twin(link),
                };
                ensure!(is_there, "the page with {link} was told for good: {reason}");
                self.did("a final denial or end");
            }
            Shown::Denied { is_final: false, .. } => self.did("a denial for now"),
            Shown::Content { link, epoch, track, sequence, data } => {
                let topic = scene::topic_of(link).ok_or("content of a link that nobody may watch")?;
                let of = format!(r#""of":"{}""#, self.names[topic]);
                let text = String::from_utf8_lossy(&data);
                // The hub refuses the second of two twins, but knows nothing of what the relay was
                // given on an earlier line: see "Known limit" in hub/ARCHITECTURE.md.
                let mut views = self.relays[at].viewers[viewer].views.values();
                let is_old = views.any(|view| view.link == link && view.line != self.relays[at].lines);
                if !text.contains(&of) && is_old && scene::is_twin(link) {
                    self.did("twins mixed across two lines");
                    return Ok(());
                }
                ensure!(text.contains(&of), "the page with {link} got {text}");
                // An init segment has its MIME type in front.
                let from = data.iter().position(|byte| *byte == b'{').unwrap_or(0);
                self.hold((topic, epoch, track, sequence), &data[from..])?;
                self.did("a delivery");
            }
            Shown::Gap { of_messages, what } => {
                ensure!(!(of_messages && self.keeps_all), "nothing was lost, and a page was told so: {what}");
                self.did("a gap");
            }
            Shown::Epoch => self.did("a new epoch"),
        }
        Ok(())
    }

    // The end.

    /// All faults heal, and every page must show the newest of everything.
    fn finish(&mut self) -> Result<(), String> {
        self.is_healed = true;
        self.cluster.is_prompt = true;
        self.webhook_back = 0;
        for hub in 0..HUBS {
            self.cluster.cut(hub, false);
            self.cluster.notice(hub);
            if self.hubs[hub].hub.is_none() {
                self.start(hub);
            }
        }
        // Relays come back, revocations run out, denials are forgotten.
        self.pass(45_000)?;
        for topic in 0..self.names.len() {
            self.call(0, Op::Open, Call::Open { topic: self.names[topic].clone() });
        }
        self.pass(1_000)?;
        for at in 0..RELAYS {
            for _ in 0..3 {
                self.open_page_of(at);
            }
            for viewer in 0..self.relays[at].viewers.len() {
                (0..LINKS.len()).for_each(|link| self.subscribe(at, viewer, link));
            }
        }
        self.pass(15_000)?;
        for topic in 0..self.names.len() {
            self.answered.clear();
            let hub = self.any(HUBS);
            self.publish_on(hub, topic, Track::State, Part::Whole);
            self.publish_on(hub, topic, Track::Messages, Part::Whole);
            self.publish_on(hub, topic, Track::Video, Part::Init { mime: "video/mp4".into() });
            self.publish_on(hub, topic, Track::Video, Part::Start);
            self.pass(3_000)?;
            self.check_newest(topic)?;
        }
        self.is_counted = true;
        self.pass(5_000)?;
        self.check_audience()
    }

    fn open_page_of(&mut self, at: usize) {
        let side = &mut self.relays[at];
        let peer = Peer { address: IpAddr::from([10, 0, 0, 1]), origin: "", is_anybody: false };
        if let Ok(id) = side.relay.handle_page_open(Instant(self.now), peer) {
            side.viewers.push(Viewer::new(id));
        }
    }

    /// Every page shows what was published last.
    fn check_newest(&mut self, topic: usize) -> Result<(), String> {
        let placed = |track: Track| {
            self.answered.iter().rev().find_map(|(op, answer)| match (op, answer) {
                (Op::Publish { track: of, .. }, Answer::Published { epoch, sequence, .. }) if *of == track => {
                    Some((*epoch, *sequence))
                }
                _ => None,
            })
        };
        let [state, message, video] = [Track::State, Track::Messages, Track::Video].map(placed);
        let ((epoch, state), (_, message), (_, video)) =
            (state.ok_or("no state")?, message.ok_or("no message")?, video.ok_or("no video")?);
        let (mut pages, number) = (0, scene::fleet_key().number(&self.names[topic]));
        for (at, side) in self.relays.iter().enumerate() {
            for viewer in &side.viewers {
                let view = viewer.views.get(&number).filter(|view| scene::topic_of(view.link) == Some(topic));
                let Some(view) = view else {
                    ensure!(scene::is_twin_topic(topic), "relay {at}: page {} does not have topic {topic}", viewer.id);
                    continue;
                };
                pages += 1;
                let has = (view.epoch, view.state, view.next, view.chunks);
                let newest = (epoch, state, Some(message + 1), video);
                ensure!(has == newest, "relay {at}: page {} shows {has:?}, the newest is {newest:?}", viewer.id);
            }
        }
        ensure!(pages > 0 || scene::is_twin_topic(topic), "nobody watches topic {topic}");
        Ok(())
    }

    /// The hubs know how many pages there are.
    fn check_audience(&mut self) -> Result<(), String> {
        for topic in 0..self.names.len() {
            self.answered.clear();
            for hub in 0..HUBS {
                self.call(hub, Op::Open, Call::Topic { topic: self.names[topic].clone() });
            }
            self.take_views(topic)?;
        }
        Ok(())
    }

    fn take_views(&mut self, topic: usize) -> Result<(), String> {
        let number = scene::fleet_key().number(&self.names[topic]);
        let has =
            |viewer: &&Viewer| viewer.views.get(&number).is_some_and(|view| scene::topic_of(view.link) == Some(topic));
        let pages = self.relays.iter().flat_map(|side| &side.viewers).filter(has).count() as u32;
        let mut told = 0;
        for _ in 0..3 {
            let now = self.moment();
            for hub in 0..HUBS {
                let (replies, _) = self.cluster.arrived(now, hub);
                let Some(machine) = &mut self.hubs[hub].hub else { continue };
                replies.into_iter().for_each(|(ticket, reply)| machine.handle_reply(now, ticket, reply));
                while let Some((ticket, request)) = machine.poll_request() {
                    self.cluster.ask(now, hub, ticket, request, &mut self.rng);
                }
                while let Some((_, answer)) = machine.poll_answer() {
                    if let Answer::Topic(view) = answer {
                        told += view.audience.iter().map(|(_, pages)| pages).sum::<u32>();
                    }
                }
            }
            self.cluster.work(now, &mut self.rng);
        }
        ensure!(told == pages, "topic {topic} has {pages} pages, the hubs say {told}");
        Ok(())
    }
}

#[test]
fn nothing_is_lost_in_silence_whatever_fails() {
    let runs = simulate(120, 400, |seed, steps, step: &Cell<u64>| {
        let mut world = World::new(seed);
        while step.get() < steps {
            step.set(step.get() + 1);
            world.step()?;
        }
        world.finish().map_err(|error| format!("at the end: {error}"))?;
        Ok(world.deeds)
    });
    if runs.len() >= 120 {
        for deed in [
            "a promotion",
            "a promotion beside a primary that goes on",
            "a replica that lags",
            "a promotion of a replica that lags",
            "an engine that is empty again",
            "a hub cut from the engine",
            "a hub that died",
            "a line that broke",
            "a webhook that fails",
            "a link revoked",
            "a publication",
            "a delivery",
            "a gap",
            "a new epoch",
            "a subscription",
            "a final denial or end",
            "a denial for now",
            "a call without an answer of the engine",
        ] {
            let sum: u64 = runs.iter().filter_map(|run| run.get(deed)).sum();
            println!("{deed}: {sum}");
            assert!(sum > 0, "{deed} occurred in no seed");
        }
    }
}
