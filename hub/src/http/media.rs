//! Picture and sound in one request: `PUT` or `POST /v1/topics/{topic}/media`.
//!
//! Owns the body without end: it is read as it comes, and each chunk is published before more is
//! read. A pause of 10 s ends the request, so does the hub's own end; an encoder that has ended
//! ends it well. The studio's WebSocket is carried by the same code, as another [`Source`]. Logs
//! each refusal, since encoders don't show the answer. Refuses more streams than have a place.
//! Doesn't know containers: `ingest.rs` and [`media`] do.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http_body_util::BodyExt as _;
use hub::engine::LinkHash;
use hyper::{
    HeaderMap, StatusCode,
    body::{Bytes, Incoming},
    header::{AUTHORIZATION, EXPECT},
};
use serde::Serialize;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::{
    Api, Limits, answers,
    asked::{self, Asked},
    auth::{self, Caller, Scope},
    body::Reply,
    places,
    problem::Problem,
};
use crate::ingest::{self, Fault, Ingest, Told};

/// The next bytes must come within this time.
pub const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The streams of one key or token to one topic: a picture and a sound, and their successors.
const OWN_MAX: usize = 4;
/// How often a stream asks for its lease.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// Where a stream's bytes come from.
pub trait Source {
    /// The next bytes, cut anywhere; `None` at the stream's end. Loses nothing if it is dropped.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem>;

    /// Learns what came of the bytes so far.
    async fn took(&mut self, _told: &Told) {}
}

/// What a stream came to.
#[derive(Serialize)]
pub struct Ended {
    mime: String,
    groups: u64,
    chunks: u64,
}

/// `PUT` or `POST /v1/topics/{topic}/media`.
pub async fn receive(asked: &mut Asked<'_>) -> Result<Reply, Problem> {
    let [] = asked.parameters([])?;
    let topic = asked.topic()?;
    let _place = place(asked.api, &asked.caller, &topic)?;
    let mut ingest = ingest(asked.api, topic, &asked.caller, asked.limits);
    Reply::json(&carry(asked.api, &asked.caller, &mut ingest, &mut asked.body).await?)
}

impl Source for Incoming {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        while let Some(part) = self.frame().await {
            let part =
                part.map_err(|error| Problem::bad("broken_body", format!("the stream broke off: {error}")).closing())?;
            // Trailers mean nothing here.
            if let Ok(bytes) = part.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

/// A caller's stream to a topic.
pub fn ingest(api: &Api, topic: hub::Name, caller: &Caller, limits: Limits) -> Ingest {
    let limits = ingest::Limits { chunk_size_max: limits.chunk_size_max, group_size_max: limits.group_size_max };
    Ingest::new(Arc::clone(&api.shared), topic, caller.hash(), caller.token(), limits)
}

/// Publishes all that comes from a source, and keeps the lease meanwhile, as long as the caller
/// may.
pub async fn carry(
    api: &Api,
    caller: &Caller,
    ingest: &mut Ingest,
    source: &mut impl Source,
) -> Result<Ended, Problem> {
    // Nothing was read yet: an encoder that waits for `100 Continue` gets this answer instead.
    ingest.may_begin().await.map_err(problem)?;
    let mut keep = interval(KEEP_EVERY);
    keep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (pause, header) = (sleep(PAUSE_MAX), sleep(PAUSE_MAX));
    let ended = api.ended();
    tokio::pin!(pause, header, ended);
    loop {
        let bytes = tokio::select! {
            bytes = source.next() => bytes?,
            () = &mut pause => return Err(paused()),
            // Bytes that drip don't hold a place.
            () = &mut header, if ingest.told().mime.is_empty() => return Err(headless()),
            () = &mut ended => return Err(ending()),
            _ = keep.tick() => {
                let still = caller.demand_still(&api.settings(), Scope::Ingest, ingest.topic());
                still.map_err(Problem::closing)?;
                ingest.keep().await.map_err(problem)?;
                continue;
            }
        };
        let Some(bytes) = bytes else { break };
        ingest.push(&bytes).await.map_err(problem)?;
        source.took(ingest.told()).await;
        pause.as_mut().reset(Instant::now() + PAUSE_MAX);
    }
    let Told { mime, groups, chunks } = ingest.told().clone();
    if mime.is_empty() {
        return Err(Problem::value("the stream ended before its header was whole").closing());
    }
    Ok(Ended { mime, groups, chunks })
}

/// The place of a stream, until it is dropped.
pub struct Place {
    _whole: OwnedSemaphorePermit,
    _own: Arc<()>,
}

/// How many streams come from each key or token to each topic.
#[derive(Default)]
pub struct Own(Mutex<HashMap<(LinkHash, hub::Name), Arc<()>>>);

/// A place for a stream of this caller to this topic.
pub fn place(api: &Api, caller: &Caller, topic: &hub::Name) -> Result<Place, Problem> {
    let own = {
        let mut rows = api.own_streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.retain(|_, own| Arc::strong_count(own) > 1);
        Arc::clone(rows.entry((caller.hash(), topic.clone())).or_default())
    };
    // The row and this one count too.
    if Arc::strong_count(&own) > OWN_MAX + 1 {
        let detail = format!("{OWN_MAX} streams of this key or token come to this topic; end one of them");
        return Err(Problem::busy("too_many_requests", detail).closing());
    }
    let whole = Arc::clone(&api.streams).try_acquire_owned().map_err(|_| {
        let detail = "there is no room: streams reached their limit; end one, or raise [limits] streams";
        Problem::new(StatusCode::INSUFFICIENT_STORAGE, "full", detail).closing()
    })?;
    Ok(Place { _whole: whole, _own: own })
}

/// Why a stream ended before its end.
fn problem(fault: Fault) -> Problem {
    match fault {
        Fault::Media(detail) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_media", detail),
        Fault::Answer(answer) => answers::problem(answer, "there is no such topic"),
        Fault::Expired => auth::expired(),
    }
    .closing()
}

/// Who asks to send a stream, for the log.
pub struct Sender {
    topic: String,
    client: IpAddr,
    /// It asks which key is wanted, as programs do that have it from their URL.
    is_asking: bool,
}

impl Sender {
    /// Of a request. A topic that can't be one is not repeated.
    pub fn of(api: &Api, peer: IpAddr, headers: &HeaderMap, topic: Option<&str>) -> Self {
        let topic = topic.filter(|topic| asked::topic(topic).is_ok()).unwrap_or("(no topic)").to_owned();
        let client = places::client(headers, &api.settings().trusted_proxies, peer);
        Self { topic, client, is_asking: !headers.contains_key(AUTHORIZATION) && headers.contains_key(EXPECT) }
    }

    /// Logs why the stream was refused, or has ended.
    pub fn tell(&self, problem: &Problem) {
        let Self { topic, client, is_asking } = self;
        let (status, detail) = (problem.status().as_u16(), problem.detail());
        match problem.code() {
            "unknown_key" if *is_asking => {}
            // Anybody can do this: one kind of line, which is written now and then.
            "unknown_key" => log::warn!("a stream from {client} was refused with {status}: {detail}"),
            // Nobody's mistake.
            "broken_body" | "ending" => log::info!("{topic}: the stream from {client} has ended: {detail}"),
            _ => log::warn!("{topic}: the stream from {client} was refused with {status}: {detail}"),
        }
    }
}

/// The hub ends.
pub fn ending() -> Problem {
    Problem::unavailable("ending", "the hub ends or restarts; connect again").closing()
}

fn headless() -> Problem {
    let detail = format!("the stream's header was not whole within {} s; connect again", PAUSE_MAX.as_secs());
    Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", detail).closing()
}

fn paused() -> Problem {
    let detail = format!("nothing came for {} s; connect again when the encoder goes on", PAUSE_MAX.as_secs());
    Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", detail).closing()
}
