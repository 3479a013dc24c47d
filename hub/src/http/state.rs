//! The state of a topic: set it, show it.
//!
//! Owns `If-Match`: a state is set only in the place of the one whose sequence the caller read, so
//! that of two who set it at the same time one is told. Sequence 0 means that there is none yet.
//! Doesn't know what a state says; the newest one is all that pages need.

use hub::call::{Answer, Call};
use hyper::{HeaderMap, header::IF_MATCH};
use serde::Serialize;
use serde_json::value::RawValue;
use wire::Track;

use super::{
    answers::{self, problem},
    asked::Asked,
    body::Reply,
    messages::{append, idempotency_key},
    problem::Problem,
};

/// White space that a body may have around its value, in bytes.
const WHITE_SIZE_MAX: usize = 256;

/// A state as the API shows it.
#[derive(Serialize)]
struct State<'a> {
    epoch: String,
    sequence: u64,
    data: &'a RawValue,
}

/// `PUT /v1/topics/{topic}/state`.
pub async fn put(asked: &mut Asked<'_>) -> Result<Reply, Problem> {
    let [] = asked.parameters([])?;
    let (topic, key) = (asked.topic()?, idempotency_key(&asked.headers)?);
    let replaces = if_match(&asked.headers)?;
    let body = asked.json(asked.limits.json_size_max.saturating_add(WHITE_SIZE_MAX)).await?;
    let mut append = append(Track::State, &body.bytes, key.as_deref(), asked.limits.json_size_max)?;
    append.replaces = replaces;
    let published = answers::publish(&asked.api.shared, Call::Publish { topic, append }).await?;
    Ok(Reply::json(&published)?.with_sequence(published.sequence))
}

/// `GET /v1/topics/{topic}/state`.
pub async fn show(asked: &mut Asked<'_>) -> Result<Reply, Problem> {
    let [] = asked.parameters([])?;
    let none = "the topic has no state yet";
    match answers::call(&asked.api.shared, Call::Topic { topic: asked.topic()? }).await {
        Answer::Topic(view) => {
            let state = view.state.as_ref().ok_or_else(|| problem(Answer::Missing, none))?;
            let data = serde_json::from_slice(&state.data).map_err(|_| problem(Answer::Missing, none))?;
            let (epoch, sequence) = (view.attached.epoch.to_string(), state.sequence);
            Ok(Reply::json(&State { epoch, sequence, data })?.with_sequence(sequence))
        }
        other => Err(problem(other, "there is no such topic; the first publication opens it")),
    }
}

/// The sequence that the caller says is the newest state's.
fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let mut lines = headers.get_all(IF_MATCH).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let text = line.to_str().ok().filter(|_| lines.next().is_none());
    let number = text.and_then(|text| text.trim().strip_prefix('"')?.strip_suffix('"'));
    let number = number.filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    number.and_then(|number| number.parse().ok()).map(Some).ok_or_else(|| {
        let detail = "If-Match has the sequence of the newest state in quotes, as in \"7\"; \"0\" where there is none";
        Problem::bad("invalid_if_match", detail)
    })
}
