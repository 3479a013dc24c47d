//! Share links and pages: make a link, revoke one, close a page.
//!
//! Owns the making of signed links. A link is a secret, so it comes in bodies alone, and logs show
//! its hash. Which kind of link there is, the configuration says: with admission by the webhook
//! there are none to be made here. Doesn't decide who may watch: `admission.rs` of the machine
//! does.

use std::sync::Arc;

use hub::{
    Name, PageId,
    admission::Links,
    call::Call,
    link::{self, Signed},
    token,
};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::{
    answers,
    asked::{Asked, SMALL_SIZE_MAX, topic},
    body::{self, Reply},
    problem::Problem,
    topics::reason,
};

/// The longest time to live of a link and of a revocation: 10 years, in seconds.
pub const LINK_TTL_S_MAX: u64 = 10 * 365 * 86_400;
/// A link that doesn't say its end is revoked for a day where the caller says nothing, in seconds:
/// time to make the webhook deny it.
const REVOKED_S: u64 = 86_400;
const REVOKED: &str = "this link was revoked";
const KICKED: &str = "you were removed from this room";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Make {
    topic: String,
    #[serde(default, deserialize_with = "body::whole")]
    ttl_s: Option<u64>,
    shared: Option<bool>,
    page_messages: Option<bool>,
    #[serde(default, deserialize_with = "body::whole")]
    replay: Option<u16>,
}

#[derive(Serialize)]
struct Made {
    link: String,
    /// The share page, if the configuration says where the pages are.
    url: Option<String>,
    /// When the link ends, in seconds since 1970; null: never.
    end: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    #[serde(default, deserialize_with = "body::text_if_there")]
    link: Option<String>,
    /// In place of a link: a token for picture and sound.
    #[serde(default, deserialize_with = "body::text_if_there")]
    token: Option<String>,
    reason: Option<String>,
    #[serde(default, deserialize_with = "body::whole")]
    ttl_s: Option<u64>,
}

#[derive(Serialize)]
struct Revoked {
    /// For how long the revocation is kept.
    ttl_s: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kick {
    page: String,
    reason: Option<String>,
}

/// `POST /v1/links`.
pub async fn make(asked: &mut Asked<'_>) -> Result<Reply, Problem> {
    let [] = asked.parameters([])?;
    let body = asked.json(SMALL_SIZE_MAX).await?;
    let said: Make = body::parse(&body.bytes)?;
    let topic = topic(&said.topic)?;
    asked.caller.demand_topic(&topic)?;
    let settings = asked.api.settings();
    let ttl_s = said.ttl_s.unwrap_or_else(|| u64::from(settings.link_ttl_s));
    if !(1..=LINK_TTL_S_MAX).contains(&ttl_s) {
        return Err(Problem::value(format!("\"ttl_s\" is a whole number from 1 to {LINK_TTL_S_MAX}, in seconds")));
    }
    let now_s = asked.api.shared.moment().unix_us / 1_000_000;
    let made = asked.api.shared.read(|hub, _, _| {
        let admission = hub.admission();
        match admission.links {
            Links::Dev => dev(&topic).map(|link| (link, None)),
            Links::Webhook => {
                Err(no_links("links are admitted by your webhook: hand out any link, and answer for it there"))
            }
            Links::Signed | Links::SignedOrWebhook => {
                let key = admission.keys.first().ok_or_else(|| {
                    no_links("there is no key for links: give one in [links] keys of the configuration")
                })?;
                let end_s = u32::try_from(now_s.saturating_add(ttl_s)).unwrap_or(u32::MAX);
                let signed = Signed {
                    topic,
                    shared: said.shared.unwrap_or(true),
                    page_messages: said.page_messages.unwrap_or(admission.page_messages),
                    replay: said.replay.unwrap_or(admission.replay),
                    end_s,
                };
                Ok((link::sign(key, &signed, random()?), Some(end_s)))
            }
        }
    });
    let (link, end) = made?;
    let url = settings.pages_url.as_ref().map(|pages| format!("{pages}/s/{link}"));
    Reply::json(&Made { link, url, end })
}

/// With admission `dev`, a link is its topic's name.
fn dev(topic: &Name) -> Result<String, Problem> {
    if wire::is_link(topic.as_str()) {
        return Ok(topic.to_string());
    }
    Err(Problem::value("with the admission \"dev\" a link is its topic's name, which then has no : and no /"))
}

fn no_links(detail: &str) -> Problem {
    Problem::new(StatusCode::CONFLICT, "no_signed_links", detail)
}

fn random() -> Result<[u8; 4], Problem> {
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("there are no random bytes: {error}"))
    })?;
    Ok(random)
}

/// `POST /v1/revoke`.
pub async fn revoke(asked: &mut Asked<'_>) -> Result<Reply, Problem> {
    let [] = asked.parameters([])?;
    let body = asked.json(SMALL_SIZE_MAX).await?;
    let Revoke { link, token, reason: why, ttl_s } = body::parse(&body.bytes)?;
    let (link, is_token) = match (link, token) {
        (Some(link), None) => (link, false),
        (None, Some(token)) => (token, true),
        _ => return Err(Problem::value("name what to revoke: either \"link\" or \"token\"")),
    };
    if !is_token && !wire::is_link(&link) {
        // A whole URL is not taken apart: whose page it is, nobody knows here.
        let detail = if link.contains("/s/") {
            "\"link\" is the part of the share URL behind /s/: send that alone".to_owned()
        } else {
            format!("\"link\" has 1 to {} of the characters A-Z a-z 0-9 - _ . ~", wire::LINK_SIZE_MAX)
        };
        return Err(Problem::value(detail));
    }
    let why = reason(why.as_deref(), REVOKED)?;
    let ttl_s = ttl_s.unwrap_or(REVOKED_S);
    if !(1..=LINK_TTL_S_MAX).contains(&ttl_s) {
        return Err(Problem::value(format!("\"ttl_s\" is a whole number from 1 to {LINK_TTL_S_MAX}, in seconds")));
    }
    let (said, way) = asked.api.shared.read(|hub, _, _| {
        let said = match hub.admission().links {
            _ if is_token => token::verify(hub.fleet_key(), &link).map(|token| (token.topic, Some(token.end_s))),
            Links::Dev => Name::new(&link).map(|topic| (topic, None)),
            _ => {
                let signed = link::verify(&hub.admission().keys, &link);
                signed.map(|signed| (signed.topic, Some(signed.end_s)))
            }
        };
        (said, hub.admission().links)
    });
    let (topic, end_s) = said.map_or((None, None), |(topic, end_s)| (Some(topic), end_s));
    if is_token && topic.is_none() {
        return Err(Problem::value("\"token\" is none that a hub of this fleet made"));
    }
    match &topic {
        Some(topic) => asked.caller.demand_topic(topic)?,
        // Which topic it shows, the webhook alone knows.
        None => asked.caller.demand_all_topics()?,
    }
    // A key may have been removed, and pages watch on by what it signed. What is no signed link at
    // all opens nothing, and may be a part of one that does.
    if !is_token && way == Links::Signed && !link::is_formed(&link) {
        let detail = "\"link\" is no signed link, so nobody may watch by it: \
                      send the whole part of the share URL behind /s/";
        return Err(Problem::value(detail));
    }
    // A link that says its own end is kept out until then, and one that is over for a moment.
    let now_s = asked.api.shared.moment().unix_us / 1_000_000;
    let left_s = end_s.map(|end_s| u64::from(end_s).saturating_sub(now_s).max(1));
    let ttl_s = left_s.unwrap_or(ttl_s);
    let shown = hub::shown(&link);
    let call = Call::Revoke { link, reason: Arc::clone(&why), ttl_s };
    answers::carry_out(&asked.api.shared, call, "there is no such link").await?;
    let what = if is_token { "token" } else { "link" };
    log::info!("the API's key {:?} revoked the {what} {shown}: {why:?}", asked.caller.name());
    Reply::json(&Revoked { ttl_s })
}

/// `POST /v1/kick`.
pub async fn kick(asked: &mut Asked<'_>) -> Result<Reply, Problem> {
    let [] = asked.parameters([])?;
    asked.caller.demand_all_topics()?;
    let body = asked.json(SMALL_SIZE_MAX).await?;
    let said: Kick = body::parse(&body.bytes)?;
    let reason = reason(said.reason.as_deref(), KICKED)?;
    let Some(PageId { connection, page, relay }) = PageId::parse(&said.page) else {
        let detail = "\"page\" is a page's id as webhooks have it: <connection>.<page>@<relay>";
        return Err(Problem::value(detail));
    };
    let call = Call::Kick { relay, connection, page, reason: Arc::clone(&reason) };
    answers::carry_out(&asked.api.shared, call, "no relay is connected under this name and number").await?;
    log::info!("the API's key {:?} closed the page {:?}: {reason:?}", asked.caller.name(), said.page);
    Ok(Reply::done())
}
