//! Picture and sound in one request: `PUT` or `POST /v1/topics/{topic}/media`.
//!
//! Owns the body without end: it is read as it comes, and each chunk is published before more is
//! read. A pause of 10 s ends the request, an encoder that has ended ends it well. Refuses more
//! streams than have a place. Doesn't know containers: `ingest.rs` and [`media`] do.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt as _;
use hyper::StatusCode;
use serde::Serialize;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::{Api, answers, asked::Asked, body::Reply, problem::Problem};
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
    let mut keep = interval(KEEP_EVERY);
    keep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let pause = sleep(PAUSE_MAX);
    tokio::pin!(pause);
    loop {
        let part = tokio::select! {
            part = asked.body.frame() => part,
            () = &mut pause => return Err(paused()),
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

fn paused() -> Problem {
    let detail = format!("nothing came for {} s; connect again when the encoder goes on", PAUSE_MAX.as_secs());
    Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", detail).closing()
}
