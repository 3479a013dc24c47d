//! The fixed part of the fleet's world: topics, links, the webhook's answers, the hubs' settings.
//!
//! Two of the topics have the same number: a pair that was searched for. Knows no machine.

use std::time::Duration;

use hub::admission::{self, Links, Verdict};
use hub::settings::{Limits, Times};
use hub::{FleetKey, Name, Settings};
use wire::uplink::Grant;

pub const SECRET: &[u8] = b"secret";
pub const DENIED: &str = "this link is not yours";
pub const REVOKED: &str = "this link was revoked";
pub const ENDED: &str = "the room is closed";

/// Each link, with the place of its topic in [`names`].
pub const LINKS: [(&str, Option<usize>); 6] =
    [("a", Some(0)), ("also-a", Some(0)), ("b", Some(1)), ("x", Some(2)), ("y", Some(3)), ("nobodys", None)];

/// The topics. The last two have one number.
pub fn names() -> Vec<Name> {
    ["app/a", "app/b", "twin/104559", "twin/128253"].iter().map(|text| Name::new(text).unwrap()).collect()
}

/// A key that gives the twins one number.
pub fn fleet_key() -> FleetKey {
    FleetKey::new(b"fleet".to_vec())
}

pub fn topic_of(link: &str) -> Option<usize> {
    LINKS.iter().find(|(of, _)| *of == link).and_then(|(_, topic)| *topic)
}

pub fn is_twin(link: &str) -> bool {
    topic_of(link).is_some_and(is_twin_topic)
}

pub fn is_twin_topic(topic: usize) -> bool {
    topic >= 2
}

/// What the webhook says about a link.
pub fn webhook(names: &[Name], link: &str) -> Verdict {
    let grant = Grant { shared: true, ttl_s: 20, page_messages: true, replay: 20 };
    match topic_of(link) {
        Some(topic) => Verdict::Accept(names[topic].clone(), grant),
        None => Verdict::Deny(DENIED.into()),
    }
}

pub fn hub_settings(reads_little: bool) -> Settings {
    let limits = Limits { read_max: if reads_little { 2 } else { 64 }, ..Limits::default() };
    Settings {
        business: business::Settings { secrets: vec![SECRET.to_vec()], ..business::Settings::default() },
        owners: vec![None],
        fleet_key: fleet_key(),
        admission: admission::Settings { links: Links::Webhook, ..admission::Settings::default() },
        limits,
        times: Times { linger: Duration::from_secs(5), refresh: Duration::from_secs(30), ..Times::default() },
    }
}
