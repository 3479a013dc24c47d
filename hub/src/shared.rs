//! The machine, shared by all tasks: one lock, and a full drain after each change.
//!
//! Owns the lock, the clock, the engine in this process, and who waits for which answer. The lock
//! is never held while something waits, but for the disk: a revocation is written under it. Decides
//! nothing: what the machine wants done, it hands on: requests to the engine, questions to the
//! webhook, answers to the API, notes to the log.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use business::RelayId;
use hub::{
    Hub, Memory, Moment, Notice, Settings,
    admission::{QuestionId, Subscribe, Verdict},
    call::{Answer, ApiId, Call},
    engine::{Reply, Request, StreamId},
    memory::Limits,
};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::revocations::{self, Revocations};

/// The machine and what surrounds it.
pub struct Shared {
    inner: Mutex<Inner>,
    start: Instant,
    /// The machine's deadline may be an earlier one.
    rearm: Notify,
    /// The last relay is gone.
    no_relay: Notify,
    questions: mpsc::UnboundedSender<(QuestionId, Subscribe)>,
    notices: mpsc::Sender<Notice>,
}

struct Inner {
    hub: Hub,
    engine: Memory,
    revocations: Option<Revocations>,
    calls: HashMap<ApiId, oneshot::Sender<Answer>>,
    next_call: u64,
    wakeups: HashMap<RelayId, Arc<Notify>>,
    /// The hub ends: relays get what they have not taken yet, then the end of the connection.
    is_ending: bool,
    /// Until when the timekeeper sleeps.
    armed: Duration,
}

impl Inner {
    /// The engine's answer. With a file for revocations, one is on the disk before it is done.
    fn ask_engine(&mut self, now: Moment, request: Request) -> Reply {
        let now_s = now.unix_us / 1_000_000;
        let row = match &request {
            Request::Revoke { link, reason, ttl_s } => Some((*link, Arc::clone(reason), now_s.saturating_add(*ttl_s))),
            _ => None,
        };
        let reply = self.engine.handle(now, request);
        // One that is refused is not written down.
        let (Some(file), Some(row), Reply::Done) = (&mut self.revocations, row, &reply) else { return reply };
        match file.keep(&row, now_s) {
            Ok(()) => reply,
            Err(error) => {
                log::error!("a revocation can't be written to [topics] revocations_file: {error}");
                Reply::Unavailable
            }
        }
    }
}

/// What the machine wants to know or to tell by webhook.
pub struct Outgoing {
    /// Questions; each is answered by [`Shared::answer`]. The machine bounds how many are open.
    pub questions: mpsc::UnboundedReceiver<(QuestionId, Subscribe)>,
    /// Notices.
    pub notices: mpsc::Receiver<Notice>,
}

/// Notices that wait for the task that sends them; the machine has a longer queue behind it.
const NOTICES_MAX: usize = 256;

impl Shared {
    /// A hub with the engine `memory`. With revocations on disk: the file, and what it holds.
    pub fn new(
        settings: Settings,
        limits: Limits,
        kept: Option<(Revocations, Vec<revocations::Row>)>,
    ) -> (Arc<Self>, Outgoing) {
        let (questions, asked) = mpsc::unbounded_channel();
        let (notices, told) = mpsc::channel(NOTICES_MAX);
        // Another reign than that of any process before.
        let (start, unix_us) = (now(), moment_us());
        let mut engine = Memory::new(limits, unix_us);
        let (revocations, rows) = kept.map_or((None, Vec::new()), |(file, rows)| (Some(file), rows));
        for (link, reason, end_s) in rows {
            let ttl_s = end_s.saturating_sub(unix_us / 1_000_000);
            let now = Moment { at: Duration::ZERO, unix_us };
            if engine.handle(now, Request::Revoke { link, reason, ttl_s }) != Reply::Done {
                log::error!("a revocation of the file has no room: raise [limits] revocations");
            }
        }
        let inner = Inner {
            hub: Hub::new(settings),
            engine,
            revocations,
            calls: HashMap::new(),
            next_call: 0,
            wakeups: HashMap::new(),
            is_ending: false,
            armed: Duration::ZERO,
        };
        let shared =
            Self { inner: Mutex::new(inner), start, rearm: Notify::new(), no_relay: Notify::new(), questions, notices };
        shared.change(|_, _| ());
        (Arc::new(shared), Outgoing { questions: asked, notices: told })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic aborts the process, so the lock is never poisoned.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time, by both clocks.
    pub fn moment(&self) -> Moment {
        Moment { at: now().duration_since(self.start), unix_us: moment_us() }
    }

    /// Reads the machine.
    pub fn read<R>(&self, read: impl FnOnce(&Hub, &Memory, Duration) -> R) -> R {
        let inner = self.lock();
        read(&inner.hub, &inner.engine, self.moment().at)
    }

    /// Changes the machine, and carries out what follows.
    pub fn change<R>(&self, change: impl FnOnce(&mut Hub, Moment) -> R) -> R {
        let mut inner = self.lock();
        let now = self.moment();
        let result = change(&mut inner.hub, now);
        self.drain(&mut inner, now);
        result
    }

    fn drain(&self, inner: &mut Inner, now: Moment) {
        loop {
            while let Some((ticket, request)) = inner.hub.poll_request() {
                let reply = inner.ask_engine(now, request);
                inner.hub.handle_reply(now, ticket, reply);
            }
            let Some(doorbell) = inner.engine.poll_doorbell() else { break };
            inner.hub.handle_doorbell(doorbell);
        }
        while let Some((id, answer)) = inner.hub.poll_answer() {
            if let Some(caller) = inner.calls.remove(&id) {
                // It may have gone away; what it asked for is done all the same.
                let _ = caller.send(answer);
            }
        }
        while let Some(question) = inner.hub.poll_subscribe(now.at) {
            let _ = self.questions.send(question);
        }
        while let Ok(place) = self.notices.try_reserve() {
            let Some(notice) = inner.hub.poll_notice() else { break };
            place.send(notice);
        }
        while let Some(note) = inner.hub.poll_note() {
            if note.is_warning() { log::warn!("{note}") } else { log::info!("{note}") }
        }
        while let Some(ready) = inner.hub.poll_ready() {
            if let Some(wakeup) = inner.wakeups.get(&ready) {
                wakeup.notify_one();
            }
        }
        if inner.hub.deadline() < inner.armed {
            self.rearm.notify_one();
        }
    }

    /// Carries out a call of the API.
    pub async fn call(&self, call: Call) -> Answer {
        let answer = self.begin_call(call);
        answer.await.unwrap_or(Answer::Unavailable)
    }

    /// The same, for a caller that doesn't wait for the answer.
    pub fn tell(&self, call: Call) {
        drop(self.begin_call(call));
    }

    /// A stream's number: another one than that of any stream of any hub.
    pub fn new_stream(&self) -> StreamId {
        let mut random = [0; 8];
        // Without random bytes its own count and the clock tell streams apart.
        if getrandom::fill(&mut random).is_err() {
            random = (self.lock().next_call << 40 ^ moment_us()).to_be_bytes();
        }
        StreamId(u64::from_be_bytes(random))
    }

    /// Apart from the wait, so that the lock is given back before it.
    fn begin_call(&self, call: Call) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.lock();
        let now = self.moment();
        inner.next_call += 1;
        let id = ApiId(inner.next_call);
        inner.calls.insert(id, sender);
        inner.hub.handle_call(now, id, call);
        self.drain(&mut inner, now);
        receiver
    }

    /// Takes the webhook's answer.
    pub fn answer(&self, question: QuestionId, verdict: Verdict) {
        self.change(|hub, now| hub.handle_verdict(now.at, question, verdict));
    }

    /// Lets the machine do what is due, for ever.
    pub async fn keep_time(&self) {
        loop {
            let deadline = {
                let mut inner = self.lock();
                inner.armed = inner.hub.deadline();
                inner.armed
            };
            let at = self.start + deadline;
            tokio::select! {
                () = tokio::time::sleep_until(at.into()) => self.change(|hub, now| hub.handle_timeout(now.at)),
                () = self.rearm.notified() => {}
            }
        }
    }

    /// Adds a relay's connection. Its tasks are woken when there is something to be written.
    pub fn connect(&self, challenge: [u8; 16]) -> (RelayId, Arc<Notify>) {
        let mut inner = self.lock();
        let now = self.moment();
        let relay = inner.hub.connect(now.at, challenge);
        let wakeup = Arc::new(Notify::new());
        inner.wakeups.insert(relay, Arc::clone(&wakeup));
        self.drain(&mut inner, now);
        (relay, wakeup)
    }

    /// Removes a relay's connection.
    pub fn disconnect(&self, relay: RelayId, why: String) {
        if self.forget(relay) {
            self.no_relay.notify_one();
        }
        self.change(|hub, now| hub.disconnect(now.at, relay, business::Ended::Closed(why)));
    }

    /// Returns whether it was the last one.
    fn forget(&self, relay: RelayId) -> bool {
        let mut inner = self.lock();
        inner.wakeups.remove(&relay);
        inner.wakeups.is_empty()
    }

    /// Whether the hub ends: see [`Self::end_relays`].
    pub fn is_ending(&self) -> bool {
        self.lock().is_ending
    }

    /// Sends each relay what it has not taken yet, then the end of the connection; returns when all
    /// have closed theirs. That takes as long as they do.
    pub async fn end_relays(&self) {
        while self.ask_to_end() {
            // It may have been told of an earlier last one, so it looks again.
            self.no_relay.notified().await;
        }
    }

    /// Returns whether there is a relay.
    fn ask_to_end(&self) -> bool {
        let mut inner = self.lock();
        inner.is_ending = true;
        inner.wakeups.values().for_each(|wakeup| wakeup.notify_one());
        !inner.wakeups.is_empty()
    }

    /// See [`Hub::take`].
    pub fn take(&self, relay: RelayId, size: usize, frames: &mut Vec<Arc<[u8]>>) -> bool {
        self.lock().hub.take(relay, size, frames)
    }

    /// See [`Hub::took`].
    pub fn took(&self, relay: RelayId) {
        let now = self.moment().at;
        self.lock().hub.took(now, relay);
    }

    /// When a relay's connection has something due; `None` if it is gone.
    pub fn relay_deadline(&self, relay: RelayId) -> Option<Instant> {
        self.start.checked_add(self.lock().hub.relay_deadline(relay)?)
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the hub's clock")]
fn now() -> Instant {
    Instant::now()
}

/// Microseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "this is the hub's clock")]
pub fn moment_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
