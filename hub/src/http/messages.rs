//! Messages of a topic: publish, list, take down.
//!
//! Owns what makes a publication of a body: one JSON value, whose bytes pages get unchanged but for
//! white space around it, and the caller's idempotency key. Batches and states use it too. Refuses
//! what is no JSON and what is larger than the limit. Numbers and history are the engine's.

use hub::{
    call::{Answer, Call},
    engine::{Append, KEY_SIZE_MAX, Key, Part},
};
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use wire::{SEQUENCE_END, Track};

use super::{
    answers::{self, problem},
    asked::Asked,
    body::Reply,
    problem::Problem,
    target,
};

/// White space that a body may have around its value, in bytes.
const WHITE_SIZE_MAX: usize = 256;
/// Messages that a list has where the caller says no number, and at most.
const LISTED: u64 = 100;
const LISTED_MAX: u64 = 1000;

/// Messages as the API shows them.
#[derive(Serialize)]
struct Messages<'a> {
    epoch: String,
    messages: Vec<Message<'a>>,
    /// Where the next list begins.
    next: u64,
}

#[derive(Serialize)]
struct Message<'a> {
    sequence: u64,
    data: &'a RawValue,
}

/// `POST /v1/topics/{topic}/messages`.
pub async fn post(asked: &mut Asked<'_>) -> Result<Reply, Problem> {
    let [durable] = asked.parameters(["durable"])?;
    if durable.as_deref().is_some_and(|durable| durable != "1") {
        return Err(Problem::bad("invalid_parameter", "the query parameter \"durable\" is 1, or left out"));
    }
    let (topic, key) = (asked.topic()?, idempotency_key(&asked.headers)?);
    let body = asked.json(asked.limits.json_size_max.saturating_add(WHITE_SIZE_MAX)).await?;
    let append = append(Track::Messages, &body.bytes, key.as_deref(), asked.limits.json_size_max)?;
    let mut published = answers::publish(&asked.api.shared, Call::Publish { topic, append }).await?;
    // The engine `memory` has no replica, so nothing is durable.
    published.durable = durable.is_some().then_some(false);
    let status = if durable.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok(Reply::json(&published)?.with_status(status))
}

/// `GET /v1/topics/{topic}/messages`.
pub async fn list(asked: &mut Asked<'_>) -> Result<Reply, Problem> {
    let [since, limit] = asked.parameters(["since", "limit"])?;
    let from = target::number("since", since.as_deref(), 1)?.max(1);
    if from >= SEQUENCE_END {
        return Err(Problem::bad("invalid_parameter", "the query parameter \"since\" is a sequence, below 2^53"));
    }
    let count_max = count("limit", limit.as_deref(), LISTED, LISTED_MAX)?;
    let call = Call::Messages { topic: asked.topic()?, from, count_max };
    match answers::call(&asked.api.shared, call).await {
        Answer::Messages { epoch, entries } => {
            let next = entries.last().map_or(from, |last| last.sequence.saturating_add(1));
            let messages = entries.iter().filter_map(|entry| {
                Some(Message { sequence: entry.sequence, data: serde_json::from_slice(&entry.data).ok()? })
            });
            Reply::json(&Messages { epoch: epoch.to_string(), messages: messages.collect(), next })
        }
        other => Err(problem(other, "there is no such topic; the first publication opens it")),
    }
}

/// `DELETE /v1/topics/{topic}/messages/{sequence}`.
pub async fn remove(asked: &mut Asked<'_>) -> Result<Reply, Problem> {
    let [] = asked.parameters([])?;
    let (topic, sequence) = (asked.topic()?, asked.sequence()?);
    asked.no_body().await?;
    match answers::remove(&asked.api.shared, Call::Remove { topic, sequence }).await? {
        Some(published) => Reply::json(&published),
        None => Ok(Reply::done()),
    }
}

/// What is published: one JSON value.
pub fn append(track: Track, bytes: &[u8], key: Option<&str>, size_max: usize) -> Result<Append, Problem> {
    let data = bytes.trim_ascii();
    if data.len() > size_max {
        let detail = format!("a publication has at most {size_max} bytes of JSON, and this one has {}", data.len());
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail));
    }
    if !wire::json::is_value(data) {
        let detail = format!(
            "a publication is one JSON value in UTF-8, at most {} levels deep, and this is none",
            wire::json::DEPTH_MAX
        );
        return Err(Problem::bad("invalid_json", detail));
    }
    let key = key.map(|text| {
        let content = Sha256::new().chain_update([track as u8]).chain_update(data).finalize().into();
        Key { text: text.into(), content }
    });
    Ok(Append { track, part: Part::Whole, data: data.into(), key, replaces: None, stream: None })
}

/// The caller's `Idempotency-Key`.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut lines = headers.get_all("idempotency-key").iter();
    let Some(line) = lines.next() else { return Ok(None) };
    match line.to_str() {
        Ok(text) if lines.next().is_none() => checked_key(text).map(|()| Some(text.to_owned())),
        _ => Err(invalid_key()),
    }
}

/// Refuses what is no idempotency key.
pub fn checked_key(text: &str) -> Result<(), Problem> {
    let is_key = (1..=KEY_SIZE_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_key { Ok(()) } else { Err(invalid_key()) }
}

fn invalid_key() -> Problem {
    let detail = format!("an idempotency key has 1 to {KEY_SIZE_MAX} visible ASCII characters; send one of them");
    Problem::bad("invalid_idempotency_key", detail)
}

/// A number of things to be listed.
pub fn count(name: &str, text: Option<&str>, default: u64, count_max: u64) -> Result<usize, Problem> {
    let count = target::number(name, text, default)?;
    if !(1..=count_max).contains(&count) {
        let detail = format!("the query parameter {name:?} is a number from 1 to {count_max}");
        return Err(Problem::bad("invalid_parameter", detail));
    }
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}
