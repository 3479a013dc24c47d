//! Who calls: the key of a request, and what it may do.
//!
//! Owns the check of `Authorization: Bearer KEY`: by SHA-256, over all keys, in constant time. Each
//! refusal names the missing scope or the prefix, never a key. Also refuses what a browser sends
//! for a page of another site: this API is for servers. Doesn't know what the routes do.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hub::{Name, admission::hash, engine::LinkHash, token};
use hyper::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE},
};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use super::{Api, ApiKey, Scopes, Settings, problem::Problem};
use crate::ingest::Token;

/// What a route demands of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Messages, states, links.
    Publish,
    /// Topics and the fleet.
    Read,
    /// Ends, revocations, kicks.
    Admin,
    /// Picture and sound.
    Ingest,
}

/// A caller whose key or token is known.
#[derive(Clone)]
pub struct Caller {
    settings: Arc<Settings>,
    by: By,
}

#[derive(Clone)]
enum By {
    /// A key: its place in the list.
    Key(usize),
    /// A token for picture and sound, with its topic.
    Token(Name, Token),
}

impl Scope {
    const fn is_of(self, scopes: Scopes) -> bool {
        match self {
            Self::Publish => scopes.publish,
            Self::Read => scopes.read,
            Self::Admin => scopes.admin,
            Self::Ingest => scopes.ingest,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Admin => "admin",
            Self::Ingest => "ingest",
        }
    }
}

/// The token's time is over.
pub fn expired() -> Problem {
    unknown("the token's time is over: make a new one")
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
        if token::is_token(key) {
            let detail = "this is a token for picture and sound: this route needs a key";
            return Err(unknown(detail));
        }
        Self::by_key(settings, key)
    }

    /// Finds who sends picture or sound: by a key or a token, which may also be the password of
    /// `Basic`, as programs send it that take it out of a URL.
    pub fn of_stream(api: &Api, settings: &Arc<Settings>, headers: &HeaderMap) -> Result<Self, Problem> {
        let wanted = || {
            let problem = unknown(
                "this route needs a key or a token: send \"Authorization: Bearer TOKEN\", or write it into the URL, \
                 as in https://user:TOKEN@host (ffmpeg behind a proxy: also -auth_type basic)",
            );
            problem.with(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"sharelink-hub\""))
        };
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return Err(wanted()) };
        let Some((scheme, said)) = line.to_str().ok().and_then(|line| line.split_once(' ')) else {
            return Err(wanted());
        };
        let secret = if scheme.eq_ignore_ascii_case("bearer") {
            said.trim_matches(' ').to_owned()
        } else if scheme.eq_ignore_ascii_case("basic") {
            let pair = STANDARD.decode(said.trim_matches(' ')).ok().and_then(|pair| String::from_utf8(pair).ok());
            let Some((_, password)) = pair.as_deref().and_then(|pair| pair.split_once(':')) else {
                return Err(wanted());
            };
            password.to_owned()
        } else {
            return Err(wanted());
        };
        Self::of_secret(api, settings, &secret)
    }

    /// Finds who has this key or token.
    pub fn of_secret(api: &Api, settings: &Arc<Settings>, secret: &str) -> Result<Self, Problem> {
        if !token::is_token(secret) {
            return Self::by_key(settings, secret);
        }
        let now_s = api.shared.moment().unix_us / 1_000_000;
        let read = api.shared.read(|hub, _, _| token::verify(hub.fleet_key(), secret));
        match read {
            Some(token) if u64::from(token.end_s) > now_s => Ok(Self {
                settings: Arc::clone(settings),
                by: By::Token(token.topic, Token { hash: hash(secret), end_s: token.end_s }),
            }),
            Some(_) => Err(expired()),
            None => Err(unknown("the token is not one of this hub: make one by POST /v1/topics/{topic}/ingest-tokens")),
        }
    }

    fn by_key(settings: &Arc<Settings>, key: &str) -> Result<Self, Problem> {
        Self::by_hash(settings, Sha256::digest(key.trim_matches(' ')).into())
    }

    fn by_hash(settings: &Arc<Settings>, hash: [u8; 32]) -> Result<Self, Problem> {
        let mut found = u64::MAX;
        for (index, known) in (0_u64..).zip(&settings.keys) {
            found.conditional_assign(&index, known.hash.ct_eq(&hash));
        }
        let index = usize::try_from(found).ok().filter(|index| settings.keys.get(*index).is_some());
        let index = index.ok_or_else(|| unknown("the key is not known here: see [api] keys of the configuration"))?;
        Ok(Self { settings: Arc::clone(settings), by: By::Key(index) })
    }

    fn key(&self) -> Option<&ApiKey> {
        match self.by {
            By::Key(index) => self.settings.keys.get(index),
            By::Token(..) => None,
        }
    }

    /// The key's name, for logs.
    pub fn name(&self) -> &str {
        self.key().map_or("a token", |key| &key.name)
    }

    /// The prefix below which the caller's topics are; empty: all topics.
    pub fn below(&self) -> &str {
        match &self.by {
            By::Key(_) => self.key().map_or("", |key| &key.below),
            By::Token(topic, _) => topic.as_str(),
        }
    }

    /// The hash of the key or token.
    pub fn hash(&self) -> LinkHash {
        match &self.by {
            By::Key(_) => self.key().map_or([0; 32], |key| key.hash),
            By::Token(_, token) => token.hash,
        }
    }

    /// The token, if it came by one.
    pub const fn token(&self) -> Option<Token> {
        match &self.by {
            By::Key(_) => None,
            By::Token(_, token) => Some(*token),
        }
    }

    /// Refuses a caller whose key hasn't the scope.
    pub fn demand(&self, scope: Scope) -> Result<(), Problem> {
        let has_scope = match &self.by {
            By::Key(_) => self.key().is_some_and(|key| scope.is_of(key.scopes)),
            By::Token(..) => scope == Scope::Ingest,
        };
        if has_scope {
            return Ok(());
        }
        let detail = format!("the key {:?} lacks the scope {:?}", self.name(), scope.name());
        Err(Problem::new(StatusCode::FORBIDDEN, "missing_scope", detail))
    }

    /// Refuses a caller whose key is not for this topic.
    pub fn demand_topic(&self, topic: &Name) -> Result<(), Problem> {
        match &self.by {
            By::Key(_) if topic.is_below(self.below()) => Ok(()),
            By::Key(_) => Err(self.outside("is for topics below")),
            By::Token(own, _) if topic == own => Ok(()),
            By::Token(own, _) => {
                let detail = format!("the token is for the topic {:?} alone: make one for this topic", own.as_str());
                Err(Problem::new(StatusCode::FORBIDDEN, "outside_prefix", detail))
            }
        }
    }

    /// Refuses a caller whose key is not for all topics.
    pub fn demand_all_topics(&self) -> Result<(), Problem> {
        if self.below().is_empty() { Ok(()) } else { Err(self.outside("can't do this: it is for topics below")) }
    }

    /// Refuses a caller whose key has gone since it called, or is no longer for this. Tokens stay:
    /// they are revoked.
    pub fn demand_still(&self, settings: &Arc<Settings>, scope: Scope, topic: &Name) -> Result<(), Problem> {
        if matches!(self.by, By::Token(..)) || Arc::ptr_eq(&self.settings, settings) {
            return Ok(());
        }
        let now = Self::by_hash(settings, self.hash())?;
        now.demand(scope)?;
        now.demand_topic(topic)
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
