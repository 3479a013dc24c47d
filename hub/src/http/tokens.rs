//! Tokens for picture and sound: whoever has one may send to one topic, for a time.
//!
//! Owns their making. A token is a secret that a person or an encoder gets; a key of the API stays
//! on the back end. It is revoked as a link is, by `POST /v1/revoke`. Refuses topics that the
//! caller's key is not for. The format is the machine's.

use hub::{
    Name,
    token::{self, Token},
};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::{
    asked::{Asked, SMALL_SIZE_MAX},
    body::{self, Reply},
    problem::Problem,
    studio,
};
use crate::shared::Shared;

/// The time to live of a token where the caller says none, and at most: 12 hours and 10 years.
const TTL_S: u64 = 12 * 3600;
const TTL_S_MAX: u64 = super::LINK_TTL_S_MAX;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Make {
    #[serde(default, deserialize_with = "body::whole")]
    ttl_s: Option<u64>,
}

#[derive(Serialize)]
struct Made {
    token: String,
    /// When it ends, in seconds since 1970.
    end: u32,
    /// The page that goes live with it, as a path of the API.
    studio: String,
}

/// `POST /v1/topics/{topic}/ingest-tokens`.
pub async fn make(asked: &mut Asked<'_>) -> Result<Reply, Problem> {
    let [] = asked.parameters([])?;
    let topic = asked.topic()?;
    let body = asked.optional_json(SMALL_SIZE_MAX).await?;
    let said = body.map_or(Ok(Make::default()), |body| body::parse(&body.bytes))?;
    let ttl_s = said.ttl_s.unwrap_or(TTL_S);
    if !(1..=TTL_S_MAX).contains(&ttl_s) {
        return Err(Problem::value(format!("\"ttl_s\" is a whole number from 1 to {TTL_S_MAX}, in seconds")));
    }
    let made = Made::new(&asked.api.shared, topic, ttl_s).map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("there are no random bytes: {error}"))
    })?;
    Reply::json(&made)
}

/// The studio of a topic, with a new token, as a path of the API.
///
/// # Errors
/// There are no random bytes.
pub fn new_studio(shared: &Shared, topic: Name) -> Result<String, getrandom::Error> {
    Made::new(shared, topic, TTL_S).map(|made| made.studio)
}

impl Made {
    fn new(shared: &Shared, topic: Name, ttl_s: u64) -> Result<Self, getrandom::Error> {
        let now_s = shared.moment().unix_us / 1_000_000;
        let end_s = u32::try_from(now_s.saturating_add(ttl_s)).unwrap_or(u32::MAX);
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let said = Token { topic, end_s };
        let token = shared.read(|hub, _, _| token::sign(hub.fleet_key(), &said, random));
        let studio = studio::link(&said.topic, &token);
        Ok(Self { token, end: end_s, studio })
    }
}
