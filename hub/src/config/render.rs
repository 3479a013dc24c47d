//! The effective configuration as text, which `check` prints, and remarks on it.
//!
//! Owns order and format. The output is a valid configuration file that parses to the same
//! configuration, except for a secret in the file itself, of which only the size is printed, and
//! for the webhook's path and query, which may hold one.
//! Files are printed by their resolved paths. Refuses nothing.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use hub::admission::Links as Admission;
use sharelinkd::config::render::{List, Quoted, differing};

use super::{
    Api, Config, Format, FromFile, Links, Pusher, Uplink, Webhook, links::WORDS, numbers::NUMBERS,
    sections::SECRET_SIZE_GOOD,
};
use crate::{
    http::{ApiKey, Scopes},
    webhook,
};

impl Config {
    /// The keys whose values differ, such as `api.keys`: by name alone, since some are secrets.
    /// A file that holds another secret is named by its key.
    pub fn changes(&self, other: &Self) -> Vec<String> {
        let mut keys = differing(&self.to_string(), &other.to_string());
        let webhook = |config: &Self| config.webhook.as_ref().map(|webhook| webhook.secrets.clone());
        let url = |config: &Self| config.webhook.as_ref().map(|webhook| webhook.url.clone());
        let pusher = |config: &Self| config.pusher.as_ref().map(|pusher| pusher.secrets.clone());
        for (key, is_other) in [
            ("uplink.secret", self.uplink.inline_secret != other.uplink.inline_secret),
            ("uplink.secret_file", self.uplink.secrets != other.uplink.secrets),
            ("uplink.relays", self.uplink.relays != other.uplink.relays),
            ("links.keys", self.links.keys != other.links.keys),
            ("webhook.url", url(self) != url(other)),
            ("webhook.secret_files", webhook(self) != webhook(other)),
            ("pusher.secret_file", pusher(self) != pusher(other)),
            ("topics.fleet_key_file", self.fleet_key != other.fleet_key),
        ] {
            if is_other && !keys.iter().any(|known| known == key) {
                keys.push(key.to_owned());
            }
        }
        keys.sort_unstable();
        keys
    }

    /// Remarks on a valid configuration that an operator should know, one line each. Logged at
    /// start, printed by `check`.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.file_notes.clone();
        let mut note = |text: &str| notes.push(text.to_owned());
        if self.api.keys.is_empty() {
            note("[api] keys is empty: nobody may call the API; `sharelink-hub key` makes a key and prints its line");
        }
        let needs_keys = matches!(self.links.admission, Admission::Signed | Admission::SignedOrWebhook);
        if needs_keys && self.links.keys.is_empty() {
            note(
                "[links] keys is empty: no signed link is valid, and none can be made; `sharelink-hub secret > FILE` makes a key",
            );
        }
        if needs_keys && self.revocations_file.is_none() {
            note("[topics] revocations_file is off: after a restart a signed link that was revoked is valid again");
        }
        if self.links.admission == Admission::Dev {
            note(
                "[links] admission = \"dev\": everybody may watch every topic, and its name is its link; for development alone",
            );
        }
        if self.links.pages_url.is_none() {
            note("[links] pages_url is off: the API returns links without a URL");
        }
        // A name of one word is that of a container or of this machine.
        let url = self.webhook.as_ref().and_then(|webhook| webhook::Url::parse(&webhook.url).ok());
        let is_name = |url: &webhook::Url| url.host.contains('.') && url.host.parse::<IpAddr>().is_err();
        if let Some(url) = url.filter(|url| !url.is_tls && is_name(url)) {
            note(&format!(
                "[webhook] url {url} is not encrypted: where its name leads to a public address it is never called; use https:// unless the name leads to a private one"
            ));
        }
        let uplink = &self.uplink;
        let is_far = uplink.listen.iter().any(|address| !address.ip().to_canonical().is_loopback());
        for (section, is_without_effect) in [
            ("api", self.api.plaintext && self.api.certificate.is_some()),
            ("uplink", uplink.plaintext && uplink.certificate.is_some()),
        ] {
            if is_without_effect {
                note(&format!("[{section}] plaintext = true has no effect: the listener has TLS"));
            }
        }
        let shared = uplink.inline_secret.iter().chain(uplink.secrets.iter().map(|file| &file.secret));
        let own = uplink.relays.iter().map(|relay| &relay.secret.secret);
        let shortest = shared.chain(own).map(|secret| secret.bytes().len()).min();
        if let Some(size) = shortest.filter(|size| *size < SECRET_SIZE_GOOD && is_far && uplink.certificate.is_none()) {
            note(&format!(
                "[uplink] a secret has only {size} bytes, and relays beyond this machine rely on it: use at least {SECRET_SIZE_GOOD} random bytes"
            ));
        }
        notes
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { api, uplink, links, webhook, pusher, fleet_key, revocations_file, numbers, log, file_notes: _ } =
            self;
        write!(f, "{api}\n{uplink}\n{links}\n[webhook]\n")?;
        let off = Webhook {
            url: String::new(),
            secrets: Vec::new(),
            timeout_s: 3,
            calls_max: 32,
            events: true,
            ca_file: None,
        };
        write!(f, "{}\n[pusher]\n", webhook.as_ref().unwrap_or(&off))?;
        let off = Pusher { app_id: String::new(), key: String::new(), secrets: Vec::new() };
        write!(f, "{}\n[topics]\n", pusher.as_ref().unwrap_or(&off))?;
        match fleet_key {
            Some(FromFile { file, secret }) => writeln!(f, "fleet_key_file = {} # {secret}", File(Some(file)))?,
            None => writeln!(f, "fleet_key_file = \"\" # made of the relays' secret")?,
        }
        writeln!(f, "revocations_file = {}", File(revocations_file.as_deref()))?;
        let mut section = "topics";
        for number in NUMBERS {
            if number.section != section {
                section = number.section;
                writeln!(f, "\n[{section}]")?;
            }
            writeln!(f, "{} = {}", number.key, number.of(numbers))?;
        }
        let format = match log.format {
            Format::Text => "text",
            Format::Json => "json",
        };
        writeln!(f, "\n[log]\nlevel = \"{}\"\nformat = \"{format}\"", log.level.as_str().to_ascii_lowercase())
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[api]\nlisten = {}\nplaintext = {}", List(&self.listen), self.plaintext)?;
        write!(f, "{}", Pair(self.certificate.as_ref()))?;
        writeln!(f, "trusted_proxies = {}", List(&self.trusted_proxies))?;
        rows(f, "keys", &self.keys, |ApiKey { name, hash, scopes, below }| {
            let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            format!(
                "name = {}, hash = \"sha256:{hash}\", scopes = \"{}\", topics = {}",
                Quoted(name),
                scope_words(scopes),
                Quoted(below)
            )
        })
    }
}

/// The scopes as the configuration has them.
pub fn scope_words(scopes: &Scopes) -> String {
    let words =
        [("publish", scopes.publish), ("read", scopes.read), ("admin", scopes.admin), ("ingest", scopes.ingest)];
    let words: Vec<&str> = words.into_iter().filter_map(|(word, is_set)| is_set.then_some(word)).collect();
    words.join(" ")
}

impl fmt::Display for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[uplink]\nlisten = {}\nplaintext = {}", List(&self.listen), self.plaintext)?;
        if let Some(secret) = &self.inline_secret {
            writeln!(f, "# secret: {secret}")?;
        }
        let files: Vec<String> = self.secrets.iter().map(|file| file.file.display().to_string()).collect();
        writeln!(f, "secret_file = {}", List(&files))?;
        rows(f, "relays", &self.relays, |relay| {
            format!("name = {}, secret_file = {}", Quoted(&relay.name), File(Some(&relay.secret.file)))
        })?;
        write!(f, "\n[uplink.tls]\n{}", Pair(self.certificate.as_ref()))?;
        writeln!(f, "ca_file = {}", File(self.ca_file.as_deref()))
    }
}

impl fmt::Display for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = WORDS.iter().find(|(_, way)| *way == self.admission).map_or("", |(word, _)| word);
        writeln!(f, "[links]\nadmission = \"{word}\"")?;
        rows(f, "keys", &self.keys, |key| format!("id = \"{}\", key_file = {}", key.id, File(Some(&key.key.file))))?;
        writeln!(f, "ttl_s = {}\ngrant_ttl_s = {}", self.ttl_s, self.grant_ttl_s)?;
        writeln!(f, "pages_url = {}", Quoted(&self.pages_url.as_deref().unwrap_or("off")))
    }
}

impl fmt::Display for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<String> = self.secrets.iter().map(|file| file.file.display().to_string()).collect();
        // Where it can't be read it is empty.
        let url = webhook::Url::parse(&self.url).ok();
        let shown = url.as_ref().map(ToString::to_string).unwrap_or_default();
        let hidden = match url.is_some_and(|url| url.target != "/") {
            true => "    # and a path that is not shown: it may hold a secret",
            false => "",
        };
        writeln!(f, "url = {}{hidden}\nsecret_files = {}", Quoted(&shown), List(&files))?;
        writeln!(f, "timeout_s = {}\ncalls_max = {}\nevents = {}", self.timeout_s, self.calls_max, self.events)?;
        writeln!(f, "ca_file = {}", File(self.ca_file.as_deref()))
    }
}

impl fmt::Display for Pusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<String> = self.secrets.iter().map(|file| file.file.display().to_string()).collect();
        writeln!(f, "app_id = {}\nkey = {}", Quoted(&self.app_id), Quoted(&self.key))?;
        writeln!(f, "secret_file = {}", List(&files))
    }
}

/// A list of tables, one on each line.
fn rows<T>(f: &mut fmt::Formatter<'_>, key: &str, rows: &[T], row: impl Fn(&T) -> String) -> fmt::Result {
    if rows.is_empty() {
        return writeln!(f, "{key} = []");
    }
    writeln!(f, "{key} = [")?;
    for item in rows {
        writeln!(f, "    {{ {} }},", row(item))?;
    }
    writeln!(f, "]")
}

/// A certificate and its key.
struct Pair<'a>(Option<&'a (PathBuf, PathBuf)>);

impl fmt::Display for Pair<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (chain, key) = self.0.map_or((None, None), |(chain, key)| (Some(chain.as_path()), Some(key.as_path())));
        writeln!(f, "certificate_file = {}\nkey_file = {}", File(chain), File(key))
    }
}

/// A path in quotes; `""` without one.
struct File<'a>(Option<&'a Path>);

impl fmt::Display for File<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Quoted(&self.0.map_or(String::new(), |path| path.display().to_string())))
    }
}
