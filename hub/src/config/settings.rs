//! From the configuration to the settings of the machine, the API, the webhook and the log.
//!
//! Owns which key becomes which setting. Reads certificates and CAs anew, so that a reload takes
//! renewed files. Refuses nothing that the parser has let pass, but files may have changed since.

use std::{sync::Arc, time::Duration};

use hub::{FleetKey, admission, link, memory};
use rustls::RootCertStore;
use sharelinkd::config::{Wrong, ca};

use super::{Config, Numbers, Pusher, Webhook};
use crate::{http, tls, webhook};

/// What a list of 1000 has besides its publications, in bytes: a sequence or a topic's name each.
const LISTED_SIZE_MAX: usize = 128 << 10;
/// What a relay has in an answer, in bytes: its name, as it is and as JSON, with its numbers.
const RELAY_SHOWN_SIZE_MAX: usize = 4 << 10;
/// The text of all metrics, in bytes: none of it is about one relay.
const METRICS_SIZE_MAX: usize = 16 << 10;
/// Pages' messages with an id that are known for 10 minutes, and not passed on twice.
pub(super) const RECEIPTS_MAX: usize = 1 << 16;
/// An answer of the API waits this long for room.
const ROOM_TIME: Duration = Duration::from_secs(10);

impl Config {
    /// The machine's settings. Without a configured fleet key, it is made of the relays' secret, so
    /// that topics keep their numbers over a restart; without a secret this random one is taken.
    pub fn hub(&self, random: &[u8]) -> hub::Settings {
        let numbers = &self.numbers;
        let (secrets, owners) = self.secrets();
        let business = business::Settings {
            secrets,
            limits: business::Limits {
                relays_max: size(numbers.relays),
                topics_max: size(numbers.watched_topics),
                messages_max: size(numbers.messages),
                receipts_max: RECEIPTS_MAX,
                messages_size_max: kib(numbers.messages_kib),
                media_size_max: kib(numbers.media_kib),
                ..business::Limits::default()
            },
            ..business::Settings::default()
        };
        let secret = business.secrets.first().filter(|secret| !secret.is_empty());
        let made = secret.map(|secret| FleetKey::new(secret.clone()).derive(b"sharelink-hub fleet key"));
        let fleet_key = match &self.fleet_key {
            Some(key) => FleetKey::new(key.secret.bytes().to_vec()),
            None => made.unwrap_or_else(|| FleetKey::new(random.to_vec())),
        };
        hub::Settings {
            business,
            owners,
            fleet_key,
            admission: self.admission(),
            limits: hub::settings::Limits {
                calls_max: size(numbers.calls),
                waiting_max: size(numbers.waiting),
                notices_max: size(numbers.notices),
                rings_size_max: kib(numbers.rings_mib).saturating_mul(1024),
                ..hub::settings::Limits::default()
            },
            times: hub::settings::Times::default(),
        }
    }

    /// The relays' secrets, and for each the relay that has it.
    pub fn secrets(&self) -> (Vec<Vec<u8>>, Vec<Option<String>>) {
        let uplink = &self.uplink;
        let shared = uplink.inline_secret.iter().chain(uplink.secrets.iter().map(|file| &file.secret));
        let mut rows: Vec<_> = shared.map(|secret| (secret.bytes().to_vec(), None)).collect();
        let own = uplink.relays.iter();
        rows.extend(own.map(|relay| (relay.secret.secret.bytes().to_vec(), Some(relay.name.clone()))));
        // Only where nobody beyond this machine can connect: the parser has seen to that.
        if rows.is_empty() {
            rows.push((Vec::new(), None));
        }
        rows.into_iter().unzip()
    }

    /// How it is decided who may watch.
    pub fn admission(&self) -> admission::Settings {
        let keys = self.links.keys.iter();
        let defaults = admission::Settings::default();
        admission::Settings {
            links: self.links.admission,
            keys: keys.map(|key| link::LinkKey { id: key.id, key: key.key.secret.bytes().to_vec() }).collect(),
            ttl_s: self.links.grant_ttl_s,
            calls_max: self.webhook.as_ref().map_or(defaults.calls_max, |webhook| size(webhook.calls_max)),
            // Without a receiver, what a page sends would be lost without a word.
            page_messages: self.webhook.as_ref().is_some_and(|webhook| webhook.events),
            waiting_max: size(self.numbers.waiting),
            grants_max: size(self.numbers.grants),
            ..defaults
        }
    }

    /// The settings of the API.
    pub fn http(&self) -> http::Settings {
        let numbers = &self.numbers;
        http::Settings {
            keys: self.api.keys.clone(),
            trusted_proxies: self.api.trusted_proxies.clone(),
            pages_url: self.links.pages_url.clone(),
            link_ttl_s: self.links.ttl_s,
            pusher: self.pusher.as_ref().map(|Pusher { app_id, key, secrets }| http::App {
                id: app_id.clone(),
                key: key.clone(),
                secrets: secrets.iter().map(|file| file.secret.bytes().to_vec()).collect(),
            }),
            limits: http::Limits {
                connections_max: size(numbers.connections),
                connections_per_address_max: size(numbers.connections_per_address),
                json_size_max: kib(numbers.json_kib),
                batch_size_max: kib(numbers.batch_kib),
                chunk_size_max: kib(numbers.chunk_kib),
                group_size_max: kib(numbers.group_kib),
                answer_size_max: numbers.answer_size_max(),
                fleet_size_max: numbers.fleet_size_max(),
                room_time: ROOM_TIME,
            },
        }
    }

    /// The settings of the webhook; `None` is off. Where the system's CAs are needed and can't be
    /// read, these are taken.
    ///
    /// # Errors
    /// The CA can't be read.
    pub fn webhook(&self, known: Option<Arc<RootCertStore>>) -> Result<Option<Arc<webhook::Settings>>, Wrong> {
        let Some(Webhook { url, secrets, timeout_s, events, ca_file, calls_max: _ }) = &self.webhook else {
            return Ok(None);
        };
        let roots = match ca_file {
            Some(file) => Arc::new(ca::roots(file)?),
            None if url.starts_with("https:") => tls::system_roots_or(known)?,
            None => Arc::new(RootCertStore::empty()),
        };
        Ok(Some(Arc::new(webhook::Settings {
            url: url.clone(),
            secrets: secrets.iter().map(|file| file.secret.bytes().to_vec()).collect(),
            roots,
            timeout: Duration::from_secs((*timeout_s).into()),
            events: *events,
        })))
    }
}

impl Numbers {
    /// The largest answer of the API and what it is made of, in bytes: the messages of a topic, or
    /// a state, or a row for each relay. Text may need twice its size while it grows.
    pub fn answer_size_max(&self) -> usize {
        let publications = kib(self.messages_kib.max(self.json_kib)).saturating_add(LISTED_SIZE_MAX);
        publications.saturating_mul(3).max(size(self.relays).saturating_mul(RELAY_SHOWN_SIZE_MAX))
    }

    /// The largest answer about all relays, and what it is made of, in bytes.
    pub fn fleet_size_max(&self) -> usize {
        size(self.relays).saturating_mul(RELAY_SHOWN_SIZE_MAX).saturating_add(METRICS_SIZE_MAX)
    }

    /// The limits of the engine `memory`.
    pub fn engine(&self) -> memory::Limits {
        memory::Limits {
            topics_max: size(self.topics),
            size_max: kib(self.engine_mib).saturating_mul(1024),
            messages_max: size(self.messages),
            messages_size_max: kib(self.messages_kib),
            media_size_max: kib(self.media_kib),
            keys_max: size(self.idempotency_keys),
            revocations_max: size(self.revocations),
            history_ttl: Duration::from_secs(self.history_s.into()),
            media_ttl: Duration::from_secs(self.media_s.into()),
            ..memory::Limits::default()
        }
    }
}

/// A number as a count.
pub fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// KiB in bytes.
pub fn kib(number: u32) -> usize {
    size(number).saturating_mul(1024)
}
