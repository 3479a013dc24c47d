//! Who calls: the key of a request, and what it may do.
//!
//! Owns the check of `Authorization: Bearer KEY`: by SHA-256, over all keys, in constant time. Each
//! refusal names the missing scope or the prefix, never a key. Also refuses what a browser sends
//! for a page of another site: this API is for servers. Doesn't know what the routes do.

use std::sync::Arc;

use hub::Name;
use hyper::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE},
};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use super::{ApiKey, Scopes, Settings, problem::Problem};

/// What a route demands of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Messages, states, links.
    Publish,
    /// Topics and the fleet.
    Read,
    /// Ends, revocations, kicks.
    Admin,
}

/// A caller whose key is known.
#[derive(Clone)]
pub struct Caller {
    settings: Arc<Settings>,
    index: usize,
}

impl Scope {
    const fn is_of(self, scopes: Scopes) -> bool {
        match self {
            Self::Publish => scopes.publish,
            Self::Read => scopes.read,
            Self::Admin => scopes.admin,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

impl Caller {
    /// Finds the caller's key.
    pub fn of(settings: &Arc<Settings>, headers: &HeaderMap) -> Result<Self, Problem> {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        let Some(line) = lines.next() else {
            return Err(unknown("this route needs a key: send the header \"Authorization: Bearer KEY\""));
        };
        if lines.next().is_some() {
            return Err(unknown("there are several Authorization headers: send one"));
        }
        let Some((scheme, key)) = line.to_str().ok().and_then(|line| line.split_once(' ')) else {
            return Err(unknown("the Authorization header can't be read: send \"Authorization: Bearer KEY\""));
        };
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(unknown("the Authorization header has another scheme: send \"Authorization: Bearer KEY\""));
        }
        let hash: [u8; 32] = Sha256::digest(key.trim_matches(' ')).into();
        let mut found = u64::MAX;
        for (index, known) in (0_u64..).zip(&settings.keys) {
            found.conditional_assign(&index, known.hash.ct_eq(&hash));
        }
        let index = usize::try_from(found).ok().filter(|index| settings.keys.get(*index).is_some());
        let index = index.ok_or_else(|| unknown("the key is not known here: see [api] keys of the configuration"))?;
        Ok(Self { settings: Arc::clone(settings), index })
    }

    fn key(&self) -> Option<&ApiKey> {
        self.settings.keys.get(self.index)
    }

    /// The key's name, for logs.
    pub fn name(&self) -> &str {
        self.key().map_or("", |key| &key.name)
    }

    /// The prefix below which the key's topics are; empty: all topics.
    pub fn below(&self) -> &str {
        self.key().map_or("", |key| &key.below)
    }

    /// Refuses a caller whose key hasn't the scope.
    pub fn demand(&self, scope: Scope) -> Result<(), Problem> {
        if self.key().is_some_and(|key| scope.is_of(key.scopes)) {
            return Ok(());
        }
        let detail = format!("the key {:?} lacks the scope {:?}", self.name(), scope.name());
        Err(Problem::new(StatusCode::FORBIDDEN, "missing_scope", detail))
    }

    /// Refuses a caller whose key is not for this topic.
    pub fn demand_topic(&self, topic: &Name) -> Result<(), Problem> {
        if topic.is_below(self.below()) { Ok(()) } else { Err(self.outside("is for topics below")) }
    }

    /// Refuses a caller whose key is not for all topics.
    pub fn demand_all_topics(&self) -> Result<(), Problem> {
        if self.below().is_empty() { Ok(()) } else { Err(self.outside("can't do this: it is for topics below")) }
    }

    fn outside(&self, what: &str) -> Problem {
        let detail = format!("the key {:?} {what} {:?} alone", self.name(), self.below());
        Problem::new(StatusCode::FORBIDDEN, "outside_prefix", detail)
    }
}

fn unknown(detail: &str) -> Problem {
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "unknown_key", detail);
    problem.with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// Refuses what a browser sends for a page of another site.
pub fn refuse_other_sites(headers: &HeaderMap) -> Result<(), Problem> {
    let mut sites = headers.get_all("sec-fetch-site").iter();
    if sites.all(|site| matches!(site.as_bytes(), b"same-origin" | b"none")) {
        return Ok(());
    }
    let detail = "a page of another site made this call; call the API from your server, where the key is safe";
    Err(Problem::new(StatusCode::FORBIDDEN, "cross_site", detail))
}
