//! Topics: show one, list them, end one, open it again.
//!
//! Owns what the API shows of a topic: its epoch, its messages' place, its newest state, whether it
//! has ended, and its audience by relay. A key with a prefix lists what is below it alone. Doesn't
//! publish: the first publication opens a topic by itself.

use std::sync::Arc;

use hub::{
    Name,
    call::{Answer, Call, TopicView},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wire::{REASON_SIZE_MAX, Track};

use super::{
    answers::{self, problem},
    asked::{Asked, SMALL_SIZE_MAX},
    body::{self, Reply},
    messages::count,
    problem::Problem,
};

/// Topics that a list has where the caller says no number, and at most.
const LISTED: u64 = 100;
const LISTED_MAX: u64 = 1000;
/// What viewers are told where the caller gives no reason.
pub const ENDED: &str = "this room has ended";

/// A topic as the API shows it.
#[derive(Serialize)]
struct Topic<'a> {
    topic: &'a str,
    epoch: String,
    /// Why it has ended; null if it has not.
    ended: Option<&'a str>,
    messages: Messages,
    live: Live,
    state: Option<State<'a>>,
    audience: Audience<'a>,
}

/// The messages that are kept: from `first` up to and without `next`.
#[derive(Serialize)]
struct Messages {
    first: u64,
    next: u64,
}

/// Whether picture and sound come in.
#[derive(Serialize)]
struct Live {
    audio: bool,
    video: bool,
}

#[derive(Serialize)]
struct State<'a> {
    sequence: u64,
    data: &'a RawValue,
}

#[derive(Serialize)]
struct Audience<'a> {
    pages: u64,
    relays: Vec<RelayAudience<'a>>,
}

#[derive(Serialize)]
struct RelayAudience<'a> {
    relay: &'a str,
    pages: u32,
}

#[derive(Serialize)]
struct Topics<'a> {
    topics: Vec<Listed<'a>>,
    /// Where the next list begins; null at the end.
    cursor: Option<&'a str>,
}

#[derive(Serialize)]
struct Listed<'a> {
    topic: &'a str,
    ended: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    reason: Option<String>,
}

/// `GET /v1/topics/{topic}`.
pub async fn show(asked: &mut Asked<'_>) -> Result<Reply, Problem> {
    let [] = asked.parameters([])?;
    let topic = asked.topic()?;
    match answers::call(&asked.api.shared, Call::Topic { topic: topic.clone() }).await {
        Answer::Topic(view) => shown(&topic, &view),
        other => Err(problem(other, "there is no such topic; the first publication opens it")),
    }
}

fn shown(topic: &Name, view: &TopicView) -> Result<Reply, Problem> {
    let place = Track::Messages.index();
    let state = view
        .state
        .as_ref()
        .and_then(|state| Some(State { sequence: state.sequence, data: serde_json::from_slice(&state.data).ok()? }));
    let relays: Vec<RelayAudience<'_>> =
        view.audience.iter().map(|(relay, pages)| RelayAudience { relay, pages: *pages }).collect();
    let [audio, video] = view.attached.is_live;
    let pages = relays.iter().map(|relay| u64::from(relay.pages)).sum();
    Reply::json(&Topic {
        topic: topic.as_str(),
        epoch: view.attached.epoch.to_string(),
        ended: view.attached.ended.as_deref(),
        messages: Messages { first: view.attached.first[place], next: view.attached.next[place] },
        live: Live { audio, video },
        state,
        audience: Audience { pages, relays },
    })
}

/// `GET /v1/topics`.
pub async fn list(asked: &mut Asked<'_>) -> Result<Reply, Problem> {
    let [cursor, below, limit] = asked.parameters(["cursor", "below", "limit"])?;
    let count_max = count("limit", limit.as_deref(), LISTED, LISTED_MAX)?;
    let after = match cursor {
        Some(cursor) if !cursor.is_empty() && Name::new(&cursor).is_none() => {
            let detail = "the query parameter \"cursor\" is the cursor of the list before";
            return Err(Problem::bad("invalid_parameter", detail));
        }
        cursor => cursor.unwrap_or_default(),
    };
    let prefix = match below {
        Some(below) if !below.is_empty() => {
            let name = Name::new(&below).ok_or_else(|| {
                Problem::bad("invalid_parameter", "the query parameter \"below\" is the beginning of topics' names")
            })?;
            asked.caller.demand_topic(&name)?;
            below
        }
        _ => asked.caller.below().to_owned(),
    };
    match answers::call(&asked.api.shared, Call::Topics { after, prefix, count_max }).await {
        Answer::Topics(rows) => {
            let topics: Vec<Listed<'_>> =
                rows.iter().map(|(name, ended)| Listed { topic: name.as_str(), ended: *ended }).collect();
            let cursor = topics.last().filter(|_| topics.len() >= count_max).map(|last| last.topic);
            Reply::json(&Topics { topics, cursor })
        }
        other => Err(problem(other, "there are no topics")),
    }
}

/// `DELETE /v1/topics/{topic}`.
pub async fn end(asked: &mut Asked<'_>) -> Result<Reply, Problem> {
    let [] = asked.parameters([])?;
    let topic = asked.topic()?;
    let body = asked.optional_json(SMALL_SIZE_MAX).await?;
    let said = body.as_ref().map(|body| body::parse::<End>(&body.bytes)).transpose()?.unwrap_or_default();
    let reason = reason(said.reason.as_deref(), ENDED)?;
    let call = Call::End { topic: topic.clone(), reason: Arc::clone(&reason) };
    answers::carry_out(&asked.api.shared, call, "there is no such topic").await?;
    log::info!("the API's key {:?} ended the topic {topic}: {reason:?}", asked.caller.name());
    Ok(Reply::done())
}

/// `POST /v1/topics/{topic}/open`.
pub async fn open(asked: &mut Asked<'_>) -> Result<Reply, Problem> {
    let [] = asked.parameters([])?;
    let topic = asked.topic()?;
    asked.no_body().await?;
    let call = Call::Open { topic: topic.clone() };
    answers::carry_out(&asked.api.shared, call, "there is no such topic").await?;
    log::info!("the API's key {:?} opened the topic {topic}", asked.caller.name());
    Ok(Reply::done())
}

/// What viewers are told.
pub fn reason(said: Option<&str>, default: &str) -> Result<Arc<str>, Problem> {
    let reason = said.unwrap_or(default);
    if (1..=REASON_SIZE_MAX).contains(&reason.len()) {
        Ok(reason.into())
    } else {
        Err(Problem::value(format!("\"reason\" has 1 to {REASON_SIZE_MAX} bytes; leave it out for the default")))
    }
}
