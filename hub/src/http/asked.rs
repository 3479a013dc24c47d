//! A request whose caller may make it, as a route reads it: path, query, headers, body.
//!
//! Owns the reading of topics' names and of bodies, each with the media type and the size that the
//! route says. Refuses a body where a route takes none. Doesn't know which routes there are.

use hub::Name;
use hyper::{HeaderMap, body::Incoming};
use serde::Deserialize;

use super::{
    Api, Limits,
    auth::Caller,
    body::{self, Received},
    problem::Problem,
    target,
};

/// The maximum size of a body that holds a few fields, in bytes.
pub const SMALL_SIZE_MAX: usize = 4 << 10;

/// A request whose caller may make it.
pub struct Asked<'a> {
    /// What all requests share.
    pub api: &'a Api,
    /// Who calls.
    pub caller: Caller,
    /// The limits of the API.
    pub limits: Limits,
    /// The topic of the path.
    pub topic: Option<Name>,
    /// The message of the path.
    pub sequence: Option<String>,
    /// The query.
    pub query: Option<String>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, not read yet.
    pub body: Incoming,
}

/// A topic's name.
pub fn topic(text: &str) -> Result<Name, Problem> {
    Name::new(text).ok_or_else(|| {
        let detail =
            format!("a topic's name has 1 to {} of the characters A-Z a-z 0-9 - _ . ~ : /", hub::NAME_SIZE_MAX);
        Problem::bad("invalid_topic", detail)
    })
}

/// The body of a route that may have none.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl Asked<'_> {
    /// The topic of the path.
    pub fn topic(&self) -> Result<Name, Problem> {
        self.topic.clone().ok_or_else(|| Problem::bad("invalid_topic", "the path has no topic"))
    }

    /// The message of the path.
    pub fn sequence(&self) -> Result<u64, Problem> {
        let text = self.sequence.as_deref().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        text.and_then(|text| text.parse().ok())
            .ok_or_else(|| Problem::bad("invalid_sequence", "behind messages/ stands a message's sequence, a number"))
    }

    /// The parameters of the query, in this order.
    pub fn parameters<const N: usize>(&self, names: [&str; N]) -> Result<[Option<String>; N], Problem> {
        target::parameters(self.query.as_deref(), names)
    }

    /// The body, which has this media type.
    pub async fn read(&mut self, media: &str, size_max: usize) -> Result<Received, Problem> {
        body::demand_type(&self.headers, media)?;
        body::read(&self.api.bodies, self.caller.name(), &mut self.body, size_max).await
    }

    /// The body, of JSON.
    pub async fn json(&mut self, size_max: usize) -> Result<Received, Problem> {
        self.read("application/json", size_max).await
    }

    /// The body, of JSON; none if it is empty.
    pub async fn optional_json(&mut self, size_max: usize) -> Result<Option<Received>, Problem> {
        if body::is_empty(&self.body) { Ok(None) } else { self.json(size_max).await.map(Some) }
    }

    /// Room for an answer of this size, in bytes.
    pub async fn answer_room(&self, size: usize) -> Result<body::Room, Problem> {
        self.api.answers.wait(self.caller.name(), size, self.limits.room_time).await
    }

    /// Refuses a body, but for an empty object.
    pub async fn no_body(&mut self) -> Result<(), Problem> {
        match self.optional_json(SMALL_SIZE_MAX).await? {
            Some(body) => body::parse::<Nothing>(&body.bytes).map(|_| ()),
            None => Ok(()),
        }
    }
}
