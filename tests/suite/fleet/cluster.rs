//! A simulated engine behind a bad network: a primary, a replica that lags, and a primary that was
//! deposed and does not know it yet.
//!
//! The servers are [`Memory`], which is the model of every engine. Owns the requests and replies
//! that are under way, and the doorbells, which are late, doubled or lost. Doesn't know topics, and
//! doesn't judge: `mod.rs` does.

use std::time::Duration;

use hub::engine::{Doorbell, Reply, Request};
use hub::memory::Limits;
use hub::{Memory, Moment, Ticket};
use relay::time::Jitter;

/// The engine's servers, and a pipe from each hub.
pub struct Cluster {
    primary: Memory,
    replica: Memory,
    deposed: Option<Memory>,
    reign: u64,
    pipes: Vec<Pipe>,
    /// On average, one of this many doorbells is lost; with 0 none is.
    pub loses: u64,
    /// No lag: everything arrives at once.
    pub is_prompt: bool,
}

#[derive(Default)]
struct Pipe {
    is_cut: bool,
    /// It still speaks to the deposed primary.
    is_behind: bool,
    requests: Vec<(Duration, Ticket, Request)>,
    replies: Vec<(Duration, Ticket, Reply)>,
    bells: Vec<(Duration, Doorbell)>,
}

impl Cluster {
    pub fn new(hubs: usize) -> Self {
        let limits = Limits { messages_max: 200, ..Limits::default() };
        let primary = Memory::new(limits, 1);
        Self {
            replica: primary.clone(),
            primary,
            deposed: None,
            reign: 1,
            pipes: (0..hubs).map(|_| Pipe::default()).collect(),
            loses: 0,
            is_prompt: false,
        }
    }

    /// The replica gets all that the primary has.
    pub fn replicate(&mut self) {
        self.replica = self.primary.clone();
    }

    /// The replica becomes the primary. With `lives`, the old one goes on for the hubs that have
    /// not noticed.
    pub fn promote(&mut self, lives: bool) {
        let old = std::mem::replace(&mut self.primary, self.replica.clone());
        self.begin_reign();
        if lives {
            self.deposed = Some(old);
            self.pipes.iter_mut().for_each(|pipe| pipe.is_behind = true);
        } else {
            self.deposed = None;
            (0..self.pipes.len()).for_each(|hub| self.notice(hub));
        }
    }

    /// The engine comes back empty.
    pub fn flush(&mut self) {
        self.primary = Memory::new(Limits::default(), 0);
        self.begin_reign();
        self.replica = self.primary.clone();
    }

    fn begin_reign(&mut self) {
        // Like the random names that real servers give theirs.
        self.reign = self.reign.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.primary.begin_reign(self.reign >> 20);
    }

    /// A hub notices that there is another primary. What it asked the old one has no answer,
    /// whether or not it was done.
    pub fn notice(&mut self, hub: usize) {
        self.pipes[hub].is_behind = false;
        self.pipes[hub].fail();
        if self.pipes.iter().all(|pipe| !pipe.is_behind) {
            self.deposed = None;
        }
    }

    pub fn is_behind(&self, hub: usize) -> bool {
        self.pipes[hub].is_behind
    }

    /// Cuts a hub from the engine, or mends the cut.
    pub fn cut(&mut self, hub: usize, is_cut: bool) {
        self.pipes[hub].is_cut = is_cut;
        if is_cut {
            self.pipes[hub].fail();
        }
    }

    pub fn is_cut(&self, hub: usize) -> bool {
        self.pipes[hub].is_cut
    }

    /// A hub died: nobody waits for its replies.
    pub fn forget(&mut self, hub: usize) {
        let Pipe { is_cut, is_behind, .. } = self.pipes[hub];
        self.pipes[hub] = Pipe { is_cut, is_behind, ..Pipe::default() };
    }

    /// Takes a hub's request.
    pub fn ask(&mut self, now: Moment, hub: usize, ticket: Ticket, request: Request, rng: &mut Jitter) {
        let due = now.at + self.lag(rng);
        let pipe = &mut self.pipes[hub];
        if pipe.is_cut {
            pipe.replies.push((due, ticket, Reply::Unavailable));
        } else {
            pipe.requests.push((due, ticket, request));
        }
    }

    fn lag(&self, rng: &mut Jitter) -> Duration {
        let most = rng.below(200);
        Duration::from_millis(if self.is_prompt { 0 } else { rng.below(1 + most) })
    }

    /// Carries out what is due.
    pub fn work(&mut self, now: Moment, rng: &mut Jitter) {
        for hub in 0..self.pipes.len() {
            while let Some(at) = first_due(&self.pipes[hub].requests, now.at) {
                let (_, ticket, request) = self.pipes[hub].requests.remove(at);
                let is_behind = self.pipes[hub].is_behind;
                let server = self.deposed.as_mut().filter(|_| is_behind).unwrap_or(&mut self.primary);
                let reply = server.handle(now, request);
                let bells: Vec<Doorbell> = std::iter::from_fn(|| server.poll_doorbell()).collect();
                let due = now.at + self.lag(rng);
                self.pipes[hub].replies.push((due, ticket, reply));
                bells.into_iter().for_each(|bell| self.ring(now, &bell, is_behind, rng));
            }
        }
    }

    /// Rings at all hubs of the same server.
    fn ring(&mut self, now: Moment, bell: &Doorbell, is_behind: bool, rng: &mut Jitter) {
        for at in 0..self.pipes.len() {
            if self.pipes[at].is_behind != is_behind || self.pipes[at].is_cut {
                continue;
            }
            for _ in 0..1 + u64::from(rng.below(10) == 0) {
                let due = now.at + self.lag(rng);
                let is_lost = self.loses > 0 && rng.below(self.loses) == 0;
                self.pipes[at].bells.extend((!is_lost).then(|| (due, bell.clone())));
            }
        }
    }

    /// What has arrived at a hub, in any order.
    pub fn arrived(&mut self, now: Moment, hub: usize) -> (Vec<(Ticket, Reply)>, Vec<Doorbell>) {
        let pipe = &mut self.pipes[hub];
        let (mut replies, mut bells) = (Vec::new(), Vec::new());
        while let Some(at) = first_due(&pipe.replies, now.at) {
            let (_, ticket, reply) = pipe.replies.remove(at);
            replies.push((ticket, reply));
        }
        while let Some(at) = pipe.bells.iter().position(|(due, _)| *due <= now.at) {
            bells.push(pipe.bells.remove(at).1);
        }
        (replies, bells)
    }
}

impl Pipe {
    fn fail(&mut self) {
        let unanswered = self.requests.drain(..).map(|(due, ticket, _)| (due, ticket));
        let unanswered: Vec<_> =
            unanswered.chain(self.replies.drain(..).map(|(due, ticket, _)| (due, ticket))).collect();
        self.replies.extend(unanswered.into_iter().map(|(due, ticket)| (due, ticket, Reply::Unavailable)));
        self.bells.clear();
    }
}

fn first_due<T>(rows: &[(Duration, Ticket, T)], now: Duration) -> Option<usize> {
    rows.iter().position(|(due, ..)| *due <= now)
}
