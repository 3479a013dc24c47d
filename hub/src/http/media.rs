//! Picture and sound in one request: `PUT` or `POST /v1/topics/{topic}/media`.
//!
//! Owns the body without end: it is read as it comes, and each chunk is published before more is
//! read. A pause of 10 s ends the request, so does the hub's own end; an encoder that has ended
//! ends it well. Logs each refusal, since encoders don't show the answer. Refuses more streams than
//! have a place. Doesn't know containers: `ingest.rs` and [`media`] do.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http_body_util::BodyExt as _;
use hyper::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, EXPECT},
};
use serde::Serialize;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::{
    Api, answers,
    asked::{self, Asked},
    body::Reply,
    places,
    problem::Problem,
};
use crate::ingest::{Fault, Ingest, Limits};

/// The next bytes must come within this time.
pub const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often a stream asks for its lease.
pub const KEEP_EVERY: Duration = Duration::from_secs(1);

/// What a stream came to.
#[derive(Serialize)]
struct Ended {
    mime: String,
    groups: u64,
    chunks: u64,
}

/// `PUT` or `POST /v1/topics/{topic}/media`.
pub async fn receive(asked: &mut Asked<'_>) -> Result<Reply, Problem> {
    let [] = asked.parameters([])?;
    let topic = asked.topic()?;
    let _place = place(asked.api)?;
    let limits = Limits { chunk_size_max: asked.limits.chunk_size_max, group_size_max: asked.limits.group_size_max };
    let (shared, caller) = (Arc::clone(&asked.api.shared), &asked.caller);
    let mut ingest = Ingest::new(shared, topic, caller.hash(), caller.token(), limits);
    // Nothing was read yet: an encoder that waits for `100 Continue` gets this answer instead.
    ingest.may_begin().await.map_err(problem)?;
    let mut keep = interval(KEEP_EVERY);
    keep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let pause = sleep(PAUSE_MAX);
    let ended = asked.api.ended();
    tokio::pin!(pause, ended);
    loop {
        let part = tokio::select! {
            part = asked.body.frame() => part,
            () = &mut pause => return Err(paused()),
            () = &mut ended => return Err(ending()),
            _ = keep.tick() => {
                ingest.keep().await.map_err(problem)?;
                continue;
            }
        };
        let Some(part) = part else { break };
        let part =
            part.map_err(|error| Problem::bad("broken_body", format!("the stream broke off: {error}")).closing())?;
        // Trailers mean nothing here.
        let Ok(bytes) = part.into_data() else { continue };
        ingest.push(&bytes).await.map_err(problem)?;
        pause.as_mut().reset(Instant::now() + PAUSE_MAX);
    }
    let told = ingest.told();
    if told.mime.is_empty() {
        return Err(Problem::value("the stream ended before its header was whole").closing());
    }
    Reply::json(&Ended { mime: told.mime.clone(), groups: told.groups, chunks: told.chunks })
}

/// The place of a stream.
pub fn place(api: &Api) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(&api.streams).try_acquire_owned().map_err(|_| {
        let detail = "there is no room: streams reached their limit; end one, or raise [limits] streams";
        Problem::new(StatusCode::INSUFFICIENT_STORAGE, "full", detail).closing()
    })
}

/// Why a stream ended before its end.
pub fn problem(fault: Fault) -> Problem {
    match fault {
        Fault::Media(detail) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_media", detail),
        Fault::Answer(answer) => answers::problem(answer, "there is no such topic"),
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
            // Nobody's mistake.
            "broken_body" | "ending" => log::info!("{topic}: the stream from {client} has ended: {detail}"),
            _ => log::warn!("{topic}: the stream from {client} was refused with {status}: {detail}"),
        }
    }
}

fn ending() -> Problem {
    Problem::unavailable("ending", "the hub ends or restarts; connect again").closing()
}

fn paused() -> Problem {
    let detail = format!("nothing came for {} s; connect again when the encoder goes on", PAUSE_MAX.as_secs());
    Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", detail).closing()
}
