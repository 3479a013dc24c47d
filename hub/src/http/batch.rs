//! Many at once: one publication to many topics, and many operations in one request.
//!
//! Owns the order: operations on one topic are carried out one after the other, in the order of the
//! request; topics don't wait for each other, but for a bound on how many are under way. Each
//! operation has its own result, so one that is refused stops no other. What each one means is as
//! in its own route.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use hub::{Name, call::Call, engine::Append};
use hyper::{StatusCode, header::CONTENT_TYPE};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use tokio::{task::JoinSet, time::sleep};
use wire::Track;

use super::{
    answers::{self, Published},
    asked::{Asked, topic},
    auth::{Caller, Scope},
    body::{self, Reply},
    messages::{append, checked_key, idempotency_key},
    problem::{Document, Problem},
    topics::{ENDED, reason},
};

/// Topics of `POST /v1/publish`.
const TOPICS_MAX: usize = 100;
/// Operations of `POST /v1/batch`.
const OPERATIONS_MAX: usize = 1000;
/// Topics whose operations are under way at the same time.
const UNDER_WAY_MAX: usize = 32;
/// A batch has this time in all. After it, what was not answered is not known.
const BATCH_TIME: Duration = Duration::from_secs(30);
/// The room of `POST /v1/publish` for what stands around the value: names, quotes, white space, in
/// bytes.
const AROUND_SIZE: usize = 16 << 10;
/// What an operation and its result need at most, as they are and as JSON, in bytes.
const RESULT_SIZE_MAX: usize = 4 << 10;
const NDJSON: &str = "application/x-ndjson";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish<'a> {
    topics: Vec<String>,
    #[serde(borrow, default, deserialize_with = "body::any_value")]
    message: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "body::any_value")]
    state: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow, deserialize_with = "operations")]
    operations: Vec<&'a RawValue>,
}

/// Stops at one too many: a body of `1,1,1,...` has millions.
fn operations<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<&'a RawValue>, D::Error> {
    struct Operations;
    impl<'de> Visitor<'de> for Operations {
        type Value = Vec<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {OPERATIONS_MAX} operations")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut operations = Vec::new();
            while let Some(operation) = list.next_element()? {
                if operations.len() >= OPERATIONS_MAX {
                    return Err(A::Error::invalid_length(OPERATIONS_MAX + 1, &self));
                }
                operations.push(operation);
            }
            Ok(operations)
        }
    }
    deserializer.deserialize_seq(Operations)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation<'a> {
    op: String,
    topic: String,
    #[serde(borrow, default, deserialize_with = "body::any_value")]
    data: Option<&'a RawValue>,
    idempotency_key: Option<String>,
    #[serde(default, deserialize_with = "body::whole")]
    if_match: Option<u64>,
    #[serde(default, deserialize_with = "body::whole")]
    sequence: Option<u64>,
    reason: Option<String>,
}

#[derive(Serialize)]
struct Results {
    results: Vec<Outcome>,
}

/// The result of one operation.
#[derive(Serialize)]
struct Outcome {
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    status: u16,
    #[serde(flatten)]
    published: Option<Published>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Document>,
}

impl Outcome {
    fn of(result: Result<Option<Published>, Problem>) -> Self {
        let (status, published, problem) = match result {
            Ok(Some(published)) => (StatusCode::OK, Some(published), None),
            Ok(None) => (StatusCode::NO_CONTENT, None, None),
            Err(problem) => (problem.status(), None, Some(problem.document())),
        };
        Self { topic: None, status: status.as_u16(), published, problem }
    }
}

/// `POST /v1/publish`.
pub async fn publish(asked: &mut Asked<'_>) -> Result<Reply, Problem> {
    let [] = asked.parameters([])?;
    let (key, size_max) = (idempotency_key(&asked.headers)?, asked.limits.json_size_max);
    let body = asked.json(size_max.saturating_add(AROUND_SIZE)).await?;
    let Publish { topics, message, state } = body::parse(&body.bytes)?;
    let (track, value) = match (message, state) {
        (Some(message), None) => (Track::Messages, message),
        (None, Some(state)) => (Track::State, state),
        _ => return Err(Problem::value("the body has either \"message\" or \"state\"")),
    };
    if !(1..=TOPICS_MAX).contains(&topics.len()) {
        return Err(Problem::value(format!("\"topics\" has 1 to {TOPICS_MAX} names")));
    }
    let mut names: Vec<&String> = topics.iter().collect();
    names.sort();
    if let Some([twice, _]) = names.windows(2).find(|pair| matches!(pair, [a, b] if a == b)) {
        return Err(Problem::value(format!("\"topics\" has {twice:?} twice")));
    }
    let append = append(track, value.get().as_bytes(), key.as_deref(), size_max)?;
    let room = asked.answer_room(topics.len().saturating_mul(RESULT_SIZE_MAX)).await?;
    let planned = topics.iter().map(|text| {
        let name = topic(text)?;
        asked.caller.demand_topic(&name)?;
        Ok((name.clone(), Call::Publish { topic: name, append: append.clone() }))
    });
    let mut results = carry_out(asked, planned.collect()).await;
    for (outcome, topic) in results.iter_mut().zip(topics) {
        outcome.topic = Some(topic);
    }
    Ok(Reply::json(&Results { results })?.with_room(room))
}

/// `POST /v1/batch`.
pub async fn batch(asked: &mut Asked<'_>) -> Result<Reply, Problem> {
    let [] = asked.parameters([])?;
    let media = asked.headers.get(CONTENT_TYPE).and_then(|line| line.to_str().ok());
    let is_lines = media.is_some_and(|line| body::is_type(line, NDJSON));
    let media = if is_lines { NDJSON } else { "application/json" };
    let body = asked.read(media, asked.limits.batch_size_max).await?;
    // Each with its line, where it has one.
    let operations: Vec<(Option<usize>, &[u8])> = if is_lines {
        let lines = (1..).zip(body.bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii));
        let lines = lines.filter(|(_, text)| !text.is_empty()).take(OPERATIONS_MAX + 1);
        lines.map(|(line, text)| (Some(line), text)).collect()
    } else {
        let values = body::parse::<Batch<'_>>(&body.bytes)?.operations;
        values.into_iter().map(|value| (None, value.get().as_bytes())).collect()
    };
    if !(1..=OPERATIONS_MAX).contains(&operations.len()) {
        return Err(Problem::value(format!("a batch has 1 to {OPERATIONS_MAX} operations")));
    }
    let room = asked.answer_room(operations.len().saturating_mul(RESULT_SIZE_MAX)).await?;
    let size_max = asked.limits.json_size_max;
    let planned = operations.iter().map(|(_, operation)| plan(&asked.caller, operation, size_max));
    let mut results = carry_out(asked, planned.collect()).await;
    for (outcome, (line, _)) in results.iter_mut().zip(operations) {
        if let (Some(problem), Some(line)) = (&mut outcome.problem, line) {
            problem.at_line(line);
        }
    }
    Ok(Reply::json(&Results { results })?.with_room(room))
}

/// A call, and the topic on which it waits for the calls before it.
type Planned = Result<(Name, Call), Problem>;

/// Reads an operation.
fn plan(caller: &Caller, bytes: &[u8], size_max: usize) -> Planned {
    let operation: Operation<'_> = body::parse(bytes)?;
    let (scope, allowed): (Scope, &[&str]) = match operation.op.as_str() {
        "message" => (Scope::Publish, &["data", "idempotency_key"]),
        "state" => (Scope::Publish, &["data", "idempotency_key", "if_match"]),
        "remove" => (Scope::Publish, &["sequence"]),
        "end" => (Scope::Admin, &["reason"]),
        "open" => (Scope::Admin, &[]),
        other => {
            let detail = format!("there is no operation {other:?}; \"op\" is message, state, remove, end or open");
            return Err(Problem::bad("unknown_operation", detail));
        }
    };
    let given = [
        ("data", operation.data.is_some()),
        ("idempotency_key", operation.idempotency_key.is_some()),
        ("if_match", operation.if_match.is_some()),
        ("sequence", operation.sequence.is_some()),
        ("reason", operation.reason.is_some()),
    ];
    if let Some((field, _)) = given.iter().find(|(field, is_given)| *is_given && !allowed.contains(field)) {
        let detail = format!("the operation {:?} has no field {field:?}", operation.op);
        return Err(Problem::bad("invalid_body", detail));
    }
    caller.demand(scope)?;
    let topic = topic(&operation.topic)?;
    caller.demand_topic(&topic)?;
    let call = match operation.op.as_str() {
        "message" => Call::Publish { topic: topic.clone(), append: of(&operation, Track::Messages, size_max)? },
        "state" => Call::Publish { topic: topic.clone(), append: of(&operation, Track::State, size_max)? },
        "remove" => {
            let sequence = operation.sequence.ok_or_else(|| missing("remove", "sequence"))?;
            Call::Remove { topic: topic.clone(), sequence }
        }
        "end" => Call::End { topic: topic.clone(), reason: reason(operation.reason.as_deref(), ENDED)? },
        _ => Call::Open { topic: topic.clone() },
    };
    Ok((topic, call))
}

fn of(operation: &Operation<'_>, track: Track, size_max: usize) -> Result<Append, Problem> {
    let data = operation.data.ok_or_else(|| missing(&operation.op, "data"))?;
    let key = operation.idempotency_key.as_deref();
    key.map_or(Ok(()), checked_key)?;
    let append = append(track, data.get().as_bytes(), key, size_max)?;
    Ok(Append { replaces: operation.if_match, ..append })
}

fn missing(operation: &str, field: &str) -> Problem {
    Problem::bad("invalid_body", format!("the operation {operation:?} needs the field {field:?}"))
}

/// Carries out what is planned, and returns the results in the same order.
async fn carry_out(asked: &Asked<'_>, planned: Vec<Planned>) -> Vec<Outcome> {
    let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(planned.len());
    let mut chains: Vec<Vec<(usize, Call)>> = Vec::new();
    let mut chain_of: HashMap<Name, usize> = HashMap::new();
    for (index, planned) in planned.into_iter().enumerate() {
        match planned {
            Ok((topic, call)) => {
                let chain = *chain_of.entry(topic).or_insert(chains.len());
                match chains.get_mut(chain) {
                    Some(calls) => calls.push((index, call)),
                    None => chains.push(vec![(index, call)]),
                }
                outcomes.push(None);
            }
            Err(problem) => outcomes.push(Some(Outcome::of(Err(problem)))),
        }
    }
    let mut chains = chains.into_iter();
    let mut under_way = JoinSet::new();
    let deadline = sleep(BATCH_TIME);
    tokio::pin!(deadline);
    loop {
        while under_way.len() < UNDER_WAY_MAX
            && let Some(chain) = chains.next()
        {
            let shared = Arc::clone(&asked.api.shared);
            under_way.spawn(async move {
                let mut done = Vec::with_capacity(chain.len());
                for (index, call) in chain {
                    done.push((index, Outcome::of(carry_out_one(&shared, call).await)));
                }
                done
            });
        }
        let done = tokio::select! {
            done = under_way.join_next() => done,
            () = &mut deadline => None,
        };
        let Some(done) = done else { break };
        for (index, outcome) in done.unwrap_or_default() {
            if let Some(place) = outcomes.get_mut(index) {
                *place = Some(outcome);
            }
        }
    }
    // Whoever was cut off may have done it or not.
    let unknown = || Outcome::of(Err(answers::problem(hub::call::Answer::Unavailable, "")));
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unknown)).collect()
}

async fn carry_out_one(shared: &crate::shared::Shared, call: Call) -> Result<Option<Published>, Problem> {
    match call {
        Call::Publish { .. } => answers::publish(shared, call).await.map(Some),
        Call::Remove { .. } => answers::remove(shared, call).await,
        _ => answers::carry_out(shared, call, "there is no such topic").await.map(|()| None),
    }
}
