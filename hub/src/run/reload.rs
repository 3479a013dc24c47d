//! A reload: what a new configuration changes while the hub runs.
//!
//! Owns which keys take effect at once, and which need a restart. A new configuration is taken as a
//! whole or not at all: a wrong one leaves the old one in force, and the log says why. Never logs a
//! value: some are secrets.

use std::{net::SocketAddr, path::Path, sync::Arc};

use rustls::RootCertStore;
use sharelinkd::config::ConfigError;

use super::{Parts, Running};
use crate::{config::Config, logging};

/// Sections and keys that need a restart.
const RESTART: [&str; 4] = ["api.listen", "uplink.listen", "topics.", "limits."];

impl Running {
    /// Reads the configuration again, and takes it if it is good.
    pub fn reload(&mut self, path: &Path) {
        let read = Config::load_again(path, &self.config).and_then(|config| {
            let error = |(what, remedy)| vec![ConfigError { file: path.to_owned(), line: 0, what, remedy }];
            let parts = Parts::of(&config, self.known_roots()).map_err(error)?;
            Ok((config, parts))
        });
        match read {
            Ok((config, parts)) => self.take(config, parts),
            Err(errors) => {
                errors.iter().for_each(|error| log::error!("{error}"));
                log::error!("the configuration stays as it was: {} error(s) in the new one", errors.len());
            }
        }
    }

    /// The system's CAs, if the webhook has them.
    fn known_roots(&self) -> Option<Arc<RootCertStore>> {
        let has_them = self.config.has_system_roots();
        self.webhook.borrow().as_ref().filter(|_| has_them).map(|hook| Arc::clone(&hook.roots))
    }

    fn take(&mut self, mut config: Config, parts: Parts) {
        let changes = self.config.changes(&config);
        let waits = |key: &String| RESTART.iter().any(|waits| key.starts_with(waits));
        let (waiting, taken): (Vec<_>, Vec<_>) = changes.iter().partition(|key| waits(key));
        let known = self.config.notes();
        for note in config.notes().iter().filter(|note| !known.contains(note)) {
            log::warn!("{note}");
        }
        for key in &waiting {
            log::warn!("{key} changed: takes effect after a restart");
        }
        // What needs a restart stays as it is, also where it is part of what does not.
        let listens =
            [(&self.config.api.listen, &config.api.listen), (&self.config.uplink.listen, &config.uplink.listen)];
        let [is_api_far, is_uplink_far] = listens.map(|(old, new)| old != new && is_far(old));
        config.api.listen.clone_from(&self.config.api.listen);
        config.uplink.listen.clone_from(&self.config.uplink.listen);
        config.numbers = self.config.numbers;
        config.fleet_key.clone_from(&self.config.fleet_key);
        config.revocations_file.clone_from(&self.config.revocations_file);
        // The new keys were checked against the new listeners. An old one beyond this machine must
        // not lose its TLS or its secrets to them.
        let mut parts = parts;
        if is_api_far && config.api.certificate.is_none() && !config.api.plaintext {
            log::warn!("[api] keeps its certificate until a restart: its listeners are beyond this machine");
            config.api.certificate.clone_from(&self.config.api.certificate);
            parts.api_tls = self.api_tls.borrow().clone();
        }
        let has_secret = config.secrets().0.iter().all(|secret| !secret.is_empty());
        let is_clear = config.uplink.certificate.is_none() && !config.uplink.plaintext;
        if is_uplink_far && (!has_secret || is_clear) {
            log::warn!("[uplink] stays as it is until a restart: its listeners are beyond this machine");
            config.uplink.clone_from(&self.config.uplink);
            parts.uplink_tls = self.uplink_tls.borrow().clone();
        }
        logging::set(config.log);
        let (secrets, owners) = config.secrets();
        self.shared.change(|hub, now| {
            hub.set_secrets(now.at, secrets, owners);
            hub.set_admission(config.admission());
        });
        self.http.send_replace(config.http().into());
        // Files may hold something else under the same names.
        self.api_tls.send_replace(parts.api_tls);
        self.uplink_tls.send_replace(parts.uplink_tls);
        self.webhook.send_replace(parts.webhook);
        self.config = config;
        match taken.as_slice() {
            [] => log::info!("reloaded: no key changed; certificates and CAs were read again"),
            taken => {
                let taken = taken.iter().map(|key| key.as_str()).collect::<Vec<_>>().join(", ");
                log::info!("reloaded: {taken} changed");
            }
        }
    }
}

fn is_far(listen: &[SocketAddr]) -> bool {
    listen.iter().any(|address| !address.ip().to_canonical().is_loopback())
}
