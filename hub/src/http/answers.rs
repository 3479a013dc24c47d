//! What the machine answers, as HTTP says it.
//!
//! Owns the words for each refusal: status, code, and the way out. A topic that has ended is 409,
//! an idempotency key with another content 422, too many calls 429, an engine that can't be reached
//! 503, and what is full 507 with the name of the limit and of its key in the configuration.
//! Doesn't know which route asked.

use std::time::Duration;

use hub::{
    call::{Answer, Call},
    engine::{Refusal, Room},
};
use hyper::StatusCode;
use serde::Serialize;
use tokio::time::timeout;

use super::problem::Problem;
use crate::shared::Shared;

/// The engine has this time. After it, whether it did what was asked is not known.
const ENGINE_TIME: Duration = Duration::from_secs(10);

/// Where something was published.
#[derive(Debug, Serialize)]
pub struct Published {
    /// The topic's epoch: 64 bits, so that it is a string.
    pub epoch: String,
    /// Its sequence on its track.
    pub sequence: u64,
    /// It had been published before under the same key.
    #[serde(skip_serializing_if = "is_false")]
    pub repeated: bool,
    /// Whether a replica has it; said where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durable: Option<bool>,
}

const fn is_false(value: &bool) -> bool {
    !*value
}

/// Asks the machine.
pub async fn call(shared: &Shared, call: Call) -> Answer {
    timeout(ENGINE_TIME, shared.call(call)).await.unwrap_or(Answer::Unavailable)
}

/// Publishes, or takes a message down.
pub async fn publish(shared: &Shared, call: Call) -> Result<Published, Problem> {
    match self::call(shared, call).await {
        Answer::Published { epoch, sequence, is_repeated } => {
            Ok(Published { epoch: epoch.to_string(), sequence, repeated: is_repeated, durable: None })
        }
        other => Err(problem(other, "there is no such topic, or it never had such a message")),
    }
}

/// Takes a message down; `None` where the topic has ended, so that nobody is told.
pub async fn remove(shared: &Shared, call: Call) -> Result<Option<Published>, Problem> {
    match self::call(shared, call).await {
        Answer::Published { epoch, sequence, .. } => {
            Ok(Some(Published { epoch: epoch.to_string(), sequence, repeated: false, durable: None }))
        }
        Answer::Done => Ok(None),
        other => Err(problem(other, "there is no such topic, or it never had such a message")),
    }
}

/// Does something that has no result.
pub async fn carry_out(shared: &Shared, call: Call, missing: &str) -> Result<(), Problem> {
    match self::call(shared, call).await {
        Answer::Done => Ok(()),
        other => Err(problem(other, missing)),
    }
}

/// Why there is no result.
pub fn problem(answer: Answer, missing: &str) -> Problem {
    match answer {
        Answer::Missing | Answer::Refused(Refusal::Missing) => {
            Problem::new(StatusCode::NOT_FOUND, "not_found", missing)
        }
        Answer::Refused(refusal) => refused(refusal),
        Answer::Revoked(reason) => {
            Problem::new(StatusCode::FORBIDDEN, "token_revoked", "the token was revoked: make a new one")
                .with_reason(&reason)
        }
        Answer::Busy => Problem::busy("busy", "too many calls wait for the engine; send it again"),
        // Any other answer is not one to what was asked, so nobody knows what was done.
        _ => Problem::unavailable(
            "engine_unavailable",
            "the engine does not answer, and whether it was done is not known; \
             send it again, a publication under the same idempotency key",
        ),
    }
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Missing => Problem::new(StatusCode::NOT_FOUND, "not_found", "there is no such topic"),
        Refusal::Ended(reason) => {
            let detail = "the topic has ended; open it again by POST /v1/topics/{topic}/open";
            Problem::new(StatusCode::CONFLICT, "topic_ended", detail).with_reason(&reason)
        }
        Refusal::Leased => {
            let detail = "another stream publishes this track of the topic: stop it first, or send to another topic; one of \
                          the same key or token gives way once it has sent nothing for 1 s";
            Problem::new(StatusCode::CONFLICT, "already_live", detail)
        }
        Refusal::KeyReused => {
            let detail = "this idempotency key was used for another content on this topic; use a new one for each";
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
        }
        Refusal::Replaced(sequence) => {
            let detail = match sequence {
                0 => "there is no state yet; to set the first, send 0 as the sequence in If-Match".to_owned(),
                _ => format!("the state is another one by now, with the sequence {sequence}: read it and try again"),
            };
            Problem::new(StatusCode::PRECONDITION_FAILED, "state_changed", detail).with_sequence(sequence)
        }
        Refusal::Publication(business::PublishError::TooLarge) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "a publication has at most 1 MiB")
        }
        Refusal::Publication(business::PublishError::OutOfSequences) => {
            let detail = "the topic has no sequence left; publish to another topic";
            Problem::new(StatusCode::CONFLICT, "out_of_sequences", detail)
        }
        Refusal::Publication(error) => Problem::value(format!("this can't be published: {error}")),
        Refusal::Full(room) => {
            let (what, key) = room_name(room);
            let detail =
                format!("there is no room: {what} reached their limit; raise [limits] {key} of the configuration");
            Problem::new(StatusCode::INSUFFICIENT_STORAGE, "full", detail)
        }
    }
}

/// What is full, and the key of `[limits]` that limits it.
const fn room_name(room: Room) -> (&'static str, &'static str) {
    match room {
        Room::Topics => ("topics", "topics"),
        Room::Memory => ("the bytes of all topics", "engine_mib"),
        Room::Keys => ("idempotency keys", "idempotency_keys"),
        Room::Revocations => ("revocations", "revocations"),
        Room::Rings => ("the bytes of watched topics", "rings_mib"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_status() {
        use business::PublishError as Wrong;
        for (refusal, status) in [
            (Refusal::Missing, 404),
            (Refusal::Ended("over".into()), 409),
            (Refusal::Leased, 409),
            (Refusal::KeyReused, 422),
            (Refusal::Replaced(7), 412),
            (Refusal::Publication(Wrong::TooLarge), 413),
            (Refusal::Publication(Wrong::OutOfSequences), 409),
            (Refusal::Publication(Wrong::OutOfOrder), 422),
            (Refusal::Full(Room::Topics), 507),
            (Refusal::Full(Room::Revocations), 507),
        ] {
            assert_eq!(problem(Answer::Refused(refusal.clone()), "x").status().as_u16(), status, "{refusal:?}");
        }
        for (answer, status) in [(Answer::Busy, 429), (Answer::Unavailable, 503), (Answer::Missing, 404)] {
            let problem = problem(answer, "x");
            assert_eq!(problem.status().as_u16(), status);
            assert_eq!(problem.headers().iter().any(|(name, _)| name == "retry-after"), status != 404);
        }
    }
}
