//! The load: all pages and the business server in one process and one epoll loop.
//!
//! Owns the sockets' registrations and the pages' timers. Reports its counters once a second, as
//! one line of JSON on standard output. A violation is counted and quoted, and its page
//! disconnected. When standard input ends, it stops publishing, waits, and checks that every page
//! that reads got the very last message.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{BufRead, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};

use relay::time::Jitter;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::business::{Business, Calendar};
use super::clock;
use super::page::{Manner, Page, Tally, World};
use sharelinkd::bench::tls::Client;
use sharelinkd::config::Pin;

/// Events for each call of epoll.
const EVENTS_MAX: usize = 1024;
/// Bytes for each read.
const BUFFER_SIZE: usize = 256 * 1024;
/// Pages that connect in each second at first.
const ARRIVALS_PER_S: u32 = 1_000;
/// Pages connected while the rings fill: some in each room.
const FIRST: u32 = 400;
/// Violations that are quoted.
const QUOTED_MAX: usize = 20;
/// Time without publications before the end, once the uplink is up. A request that was ignored just
/// before times out after 10 s, is repeated within 2 s, and then answered.
const QUIET: Duration = Duration::from_secs(14);
/// Timeout for the uplink to come up.
const QUIET_MAX: Duration = Duration::from_secs(90);

/// What the load is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Places in the relay's table.
    pub pages: u32,
    /// Mean of a stay, seconds.
    pub stay_s: u64,
    pub calendar: Calendar,
    pub seed: u64,
}

struct Load {
    epoll: OwnedFd,
    pages: Vec<Page>,
    /// When each page acts next. An entry of the heap with another time is stale.
    due: Vec<Instant>,
    heap: BinaryHeap<Reverse<(Instant, usize)>>,
    /// The visit and the interest that each page is registered with.
    registered: Vec<(u32, EventFlags)>,
    business: Business,
    jitter: Jitter,
    tally: Tally,
    tls: Option<Client>,
    shown: Vec<Pin>,
    buffer: Vec<u8>,
    room: Vec<u8>,
    wrong: u64,
    quoted: Vec<String>,
    stay_s: u64,
    began: Instant,
}

/// Runs the load until standard input ends.
pub fn run(plan: Plan) -> Result<(), String> {
    let business = Business::new(plan.calendar, plan.seed)?;
    let [first, second] = business.addresses();
    say(&format!("{first} {second}"));
    let (sender, commands) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let relay = commands.recv().map_err(|error| error.to_string())?;
    // The address, and the keys that it may show by TLS.
    let mut words = relay.split(' ');
    let address = words.next().unwrap_or_default();
    let relay = address.parse().map_err(|error| format!("{address}: {error}"))?;
    let pins = words.map(pin).collect::<Option<Vec<_>>>().ok_or("a pin that is none")?;
    let mut load = Load::new(plan, business)?;
    load.tls = (!pins.is_empty()).then(|| Client::of(relay, pins)).transpose()?;
    load.serve(relay, &commands)
}

fn pin(digits: &str) -> Option<Pin> {
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(Pin(bytes))
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// The manner of each page.
fn population(pages: u32, stay_s: u64) -> Vec<Manner> {
    let mut manners = vec![Manner::Resident; usize::try_from((pages / 100).max(24)).unwrap_or(24)];
    for number in 0..48 {
        manners.push(match number % 4 {
            0 => Manner::Slow(6_000),
            1 => Manner::Slow(60_000),
            _ => Manner::Stopping,
        });
    }
    manners.extend([Manner::Garbage; 12]);
    manners.extend([Manner::HalfHead; 20]);
    manners.extend([Manner::Mute, Manner::Hasty, Manner::Web].repeat(6));
    // More than the table holds even while some are away, so that some are always refused.
    let pages = u64::from(pages);
    let all = pages + pages * 2 / stay_s + pages / 33 + 60;
    manners.resize(usize::try_from(all).unwrap_or(0).max(manners.len()), Manner::Steady);
    manners
}

impl Load {
    fn new(plan: Plan, business: Business) -> Result<Self, String> {
        let now = clock::now();
        let manners = population(plan.pages, plan.stay_s);
        let pages: Vec<Page> = (0..).zip(manners).map(|(number, manner)| Page::new(number, manner, now)).collect();
        // Only a few while the rings fill.
        let fills = Duration::from_secs(plan.calendar.fill_s);
        let arrives = |number: u32| {
            let later = if number < FIRST { Duration::ZERO } else { fills };
            now + later + Duration::from_secs(1) * number / ARRIVALS_PER_S
        };
        let due: Vec<Instant> = (0..).zip(&pages).map(|(number, _)| arrives(number)).collect();
        let heap = due.iter().zip(0..).map(|(at, index)| Reverse((*at, index))).collect();
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC).map_err(|error| format!("epoll: {error}"))?,
            registered: vec![(0, EventFlags::empty()); pages.len()],
            pages,
            due,
            heap,
            business,
            jitter: Jitter::new(plan.seed ^ 1),
            tally: Tally::default(),
            tls: None,
            shown: Vec::new(),
            buffer: vec![0; BUFFER_SIZE],
            room: Vec::new(),
            wrong: 0,
            quoted: Vec::new(),
            stay_s: plan.stay_s,
            began: now,
        })
    }

    fn serve(&mut self, relay: std::net::SocketAddr, commands: &Receiver<String>) -> Result<(), String> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut report_at = clock::now();
        let mut quiet_since = None;
        let mut up_since = None;
        loop {
            events.clear();
            let wait = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("epoll: {error}")),
            }
            let now = clock::now();
            for event in &events {
                self.ready(event, relay, now);
            }
            self.act(relay, now);
            self.business.turn(now)?;
            if now >= report_at {
                report_at = now + Duration::from_secs(1);
                self.report();
            }
            match quiet_since {
                None if commands.try_recv() == Err(TryRecvError::Disconnected) => {
                    self.business.is_quiet = true;
                    quiet_since = Some(now);
                }
                None => {}
                Some(since) => {
                    if !self.business.is_up() {
                        up_since = None;
                    } else if up_since.is_none() {
                        up_since = Some(now);
                    }
                    if now > since + QUIET_MAX {
                        return Err(format!("the relay did not connect to its business server within {QUIET_MAX:?}"));
                    }
                    if up_since.is_some_and(|up| now > up + QUIET) {
                        return self.conclude();
                    }
                }
            }
        }
    }

    fn with_page(
        &mut self,
        relay: std::net::SocketAddr,
        now: Instant,
        index: usize,
        what: impl FnOnce(&mut Page, &mut World<'_>) -> Result<Option<Instant>, String>,
    ) {
        let Some(page) = self.pages.get_mut(index) else { return };
        let seconds = now.saturating_duration_since(self.began).as_secs();
        let mut world = World {
            relay,
            tls: self.tls.as_ref(),
            shown: &mut self.shown,
            now,
            jitter: &mut self.jitter,
            closed: &self.business.closed,
            tally: &mut self.tally,
            buffer: &mut self.buffer,
            room: &mut self.room,
            stay_s: self.stay_s,
            is_quiet: self.business.is_quiet,
            brief: u32::try_from(seconds / 20 * 4).unwrap_or(0),
        };
        let outcome = what(page, &mut world);
        if outcome.is_err() {
            page.give_up(&mut world);
        }
        let returns_at = page.returns_at();
        let next = outcome.unwrap_or_else(|error| {
            self.violated(error);
            None
        });
        let next = match (returns_at, next) {
            (Some(at), _) | (None, Some(at)) => at,
            // A new errand may be due earlier.
            (None, None) => self.due[index].min(now + Duration::from_secs(1)),
        };
        if next != self.due[index] {
            self.due[index] = next;
            self.heap.push(Reverse((next, index)));
        }
        self.register(index);
    }

    /// A page's socket is ready.
    fn ready(&mut self, event: &Event, relay: std::net::SocketAddr, now: Instant) {
        let data = event.data.u64();
        let index = usize::try_from(data & 0xffff_ffff).unwrap_or(usize::MAX);
        let Some(page) = self.pages.get(index) else { return };
        if u64::from(page.visit) != data >> 32 || page.stream.is_none() {
            return;
        }
        let (connects, size_max) = (page.connects(), if page.views.is_fast { BUFFER_SIZE } else { 1_024 });
        let due = self.due[index];
        self.with_page(relay, now, index, |page, world| {
            if connects {
                page.connected(world)?
            } else {
                page.read(world, size_max)?
            }
            // A page without errands keeps its timer.
            Ok(Some(if page.has_errands() { due.min(world.now + Duration::from_secs(1)) } else { due }))
        });
    }

    /// Runs the pages whose timers are due.
    fn act(&mut self, relay: std::net::SocketAddr, now: Instant) {
        while let Some(Reverse((at, index))) = self.heap.peek().copied() {
            if at > now {
                return;
            }
            self.heap.pop();
            if self.due.get(index) == Some(&at) {
                self.with_page(relay, now, index, |page, world| page.act(world).map(Some));
            }
        }
    }

    fn register(&mut self, index: usize) {
        let (Some(page), Some(known)) = (self.pages.get(index), self.registered.get_mut(index)) else { return };
        let Some(stream) = &page.stream else {
            *known = (page.visit, EventFlags::empty());
            return;
        };
        let interest = match (page.connects(), page.listens()) {
            (true, _) => EventFlags::OUT,
            (false, true) => EventFlags::IN,
            (false, false) => EventFlags::empty(),
        };
        let data = EventData::new_u64(index as u64 | u64::from(page.visit) << 32);
        let was = if known.0 == page.visit { known.1 } else { EventFlags::empty() };
        let _ = match (was.is_empty(), interest.is_empty()) {
            (true, false) => epoll::add(&self.epoll, stream, data, interest),
            (false, true) => epoll::delete(&self.epoll, stream),
            (false, false) if was != interest => epoll::modify(&self.epoll, stream, data, interest),
            _ => Ok(()),
        };
        *known = (page.visit, interest);
    }

    fn report(&mut self) {
        let (tally, done) = (&self.tally, &self.business.done);
        let open = self.pages.iter().filter(|page| page.is_open()).count();
        let events = std::mem::take(&mut self.business.events);
        say(&serde_json::json!({
            "open": open, "wrong": self.wrong, "events": events,
            "connected": tally.connected, "upgraded": tally.upgraded, "refused": tally.refused, "left": tally.left,
            "subscribed": tally.subscribed, "resumed": tally.resumed, "denied": tally.denied, "ended": tally.ended,
            "closed_by_relay": tally.closed_by_relay, "cut": tally.cut, "kicked": tally.kicked, "garbage": tally.garbage,
            "silence_ms_max": tally.silence_ms_max, "frames": tally.seen.frames, "bytes": tally.seen.bytes,
            "seen": tally.seen.deliveries, "gapped": tally.seen.gapped, "gapped_good": tally.seen.gapped_good,
            "published": done.published, "requests": done.requests, "page_messages": done.page_messages,
            "connections": done.connections, "keys": self.shown.len(), "is_up": self.business.is_up(),
        }).to_string());
        self.tally.silence_ms_max = 0;
    }

    /// Counts a violation, and quotes the first ones.
    fn violated(&mut self, error: String) {
        self.wrong += 1;
        if self.quoted.len() < QUOTED_MAX {
            eprintln!("soak: violation: {error}");
            self.quoted.push(error);
        }
    }

    /// Checks that every page that reads received each message, or a gap for it.
    fn conclude(&mut self) -> Result<(), String> {
        let (mut held_to, mut others, mut wrong) = (0_u64, 0_u64, Vec::new());
        for page in &self.pages {
            if !page.is_settled() {
                others += 1;
                continue;
            }
            for view in &page.views.list {
                held_to += 1;
                let end = self.business.next_message(view.topic, view.epoch);
                let is_told = match (view.messages, end) {
                    (Some(next), Some(end)) => next == end,
                    // Only bad messages were published.
                    (None, Some(end)) => end <= 20,
                    (_, None) => false,
                };
                if !is_told {
                    wrong.push(format!("at the end: {view:?}, and {end:?} is next"));
                }
            }
        }
        wrong.into_iter().for_each(|error| self.violated(error));
        self.report();
        let receipts = self.tally.seen.receipts;
        say(&serde_json::json!({
            "held_to_the_end": held_to, "not_held": others, "receipts": receipts, "wrong": self.wrong,
            "quoted": self.quoted
        })
        .to_string());
        Ok(())
    }
}
