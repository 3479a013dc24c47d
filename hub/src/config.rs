//! The hub's configuration: one TOML file, validated completely before anything starts.
//!
//! Owns the meaning and default of every key, and the rules between keys. Returns a typed
//! [`Config`], or *all* errors at once, each with its line and a remedy. Refuses unknown keys.
//! Never prints a secret. Reads the files that the configuration names; resolves no host names.
//! Values that the relay's configuration has too are parsed by its code. Knows nothing of sockets.

mod links;
mod numbers;
mod pusher;
mod render;
mod sections;
mod settings;
mod start;
mod sum;
mod uplink;
mod webhook;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use document::{Document, Problem, line_of};
use log::LevelFilter;
use sharelinkd::config::{
    ConfigError, FILE_SIZE_MAX, Network, Secret, Surroundings, Wrong, certificates::GROUP, file, with_surroundings,
};

pub use numbers::Numbers;
pub use sum::sum;

use crate::{http::ApiKey, tls};

/// The complete configuration, typed and validated.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[api]`: where back ends connect, and who may call.
    pub api: Api,
    /// `[uplink]`: where relays connect, and their secrets.
    pub uplink: Uplink,
    /// `[links]`: who may watch.
    pub links: Links,
    /// `[webhook]`; `None` is off.
    pub webhook: Option<Webhook>,
    /// `[pusher]`; `None` is off.
    pub pusher: Option<Pusher>,
    /// `[topics] fleet_key_file` and what it holds. `None`: made of the relays' secret, or random
    /// where there is none.
    pub fleet_key: Option<FromFile>,
    /// `[topics] revocations_file`: where revocations are kept; `None`: nowhere.
    pub revocations_file: Option<PathBuf>,
    /// The whole numbers of `[topics]` and `[limits]`.
    pub numbers: Numbers,
    /// `[log]`.
    pub log: Log,
    /// Remarks on files, one line each.
    pub file_notes: Vec<String>,
}

/// A file's resolved path and the secret in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromFile {
    /// Its path.
    pub file: PathBuf,
    /// What it holds. Of a webhook's secret, the decoded bytes.
    pub secret: Secret,
}

/// Where back ends connect, and who may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Api {
    /// At least one; port 0 takes any free one.
    pub listen: Vec<SocketAddr>,
    /// Whether listeners beyond loopback may do without TLS.
    pub plaintext: bool,
    /// Certificate chain and key, PEM; `None` is without TLS.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<Network>,
    /// Who may call.
    pub keys: Vec<ApiKey>,
}

/// Where relays connect, and their secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct Uplink {
    /// At least one; port 0 takes any free one.
    pub listen: Vec<SocketAddr>,
    /// Whether listeners beyond loopback may do without TLS.
    pub plaintext: bool,
    /// The secret of every relay that has none of its own; `None` if it stands in no file or there
    /// is none.
    pub secrets: Vec<FromFile>,
    /// The same, where it stands in the configuration itself.
    pub inline_secret: Option<Secret>,
    /// Relays that have a secret of their own.
    pub relays: Vec<Relay>,
    /// Certificate chain and key, PEM; `None` is without TLS.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The CA from which each relay must have a certificate, PEM.
    pub ca_file: Option<PathBuf>,
}

/// A relay with a secret of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// The name that it must have.
    pub name: String,
    /// Its secret.
    pub secret: FromFile,
}

/// Who may watch.
#[derive(Clone, Debug, PartialEq)]
pub struct Links {
    /// How that is decided.
    pub admission: hub::admission::Links,
    /// The keys of signed links: the first signs, all verify.
    pub keys: Vec<LinkKey>,
    /// Lifetime of a new link where the caller gives none, in seconds.
    pub ttl_s: u32,
    /// Lifetime of a grant that no webhook gave, in seconds.
    pub grant_ttl_s: u32,
    /// The public URL of the share pages, without a trailing slash.
    pub pages_url: Option<String>,
}

/// A key of signed links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkKey {
    /// Its number, which stands in each link.
    pub id: u8,
    /// The key.
    pub key: FromFile,
}

/// The company's endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// `http:` or `https:`.
    pub url: String,
    /// The keys that sign: one, or two during a rotation.
    pub secrets: Vec<FromFile>,
    /// Timeout of a call, in seconds.
    pub timeout_s: u32,
    /// `subscribe` calls under way.
    pub calls_max: u32,
    /// Whether events are sent, or `subscribe` alone.
    pub events: bool,
    /// The CA for `https:`; `None` is the system's.
    pub ca_file: Option<PathBuf>,
}

/// The app of Pusher's server libraries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pusher {
    /// Its number.
    pub app_id: String,
    /// The name of its secret; public.
    pub key: String,
    /// Its secret, or two during a change.
    pub secrets: Vec<FromFile>,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The level.
    pub level: LevelFilter,
    /// The format.
    pub format: Format,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Reads and validates a file. Relative paths are looked up as the relay does:
    /// in `$CREDENTIALS_DIRECTORY` if the file exists there, otherwise in the directory of the
    /// configuration.
    ///
    /// # Errors
    /// All errors, in the order of lines. What a start needs of this machine besides is looked at
    /// once the file itself is good.
    pub fn load(path: &Path) -> Result<Self, Vec<ConfigError>> {
        Self::load_with(path, None, || tls::system_roots().map(|_| ()))
    }

    /// Reads and validates the file for a reload, in a hub that runs with `running`. What a start
    /// needs and the hub has is a note at most: a reload may take a leaked key away.
    ///
    /// # Errors
    /// All errors. A file without any key is an error too, if it would change anything: an editor
    /// may leave an empty file for an instant while saving.
    pub fn load_again(path: &Path, running: &Self) -> Result<Self, Vec<ConfigError>> {
        Self::load_with(path, Some(running), || tls::system_roots().map(|_| ()))
    }

    fn load_with(
        path: &Path,
        running: Option<&Self>,
        roots: impl Fn() -> Result<(), Wrong>,
    ) -> Result<Self, Vec<ConfigError>> {
        let error = |line, what: String, remedy: &str| ConfigError {
            file: path.to_owned(),
            line,
            what,
            remedy: remedy.to_owned(),
        };
        let bytes = file::read(path, FILE_SIZE_MAX).map_err(|cause| {
            let otherwise =
                "name a file that exists and that the hub may read; `sharelink-hub config` prints one to start from";
            vec![error(0, format!("can't be read: {cause}"), file::remedy(cause.kind(), otherwise))]
        })?;
        let text = file::text(&bytes).map_err(|file::NoText { at, what, remedy }| {
            vec![error(at.map_or(0, |at| line_of(&bytes, at)), what.to_owned(), remedy)]
        })?;
        let refused = |problems: Vec<Problem>| {
            problems.into_iter().map(|Problem { line, what, remedy }| error(line, what, &remedy)).collect::<Vec<_>>()
        };
        let mut config = with_surroundings(path, |around| Self::parse(text, around)).map_err(refused)?;
        let needed = running.map_or_else(|| config.clone(), |running| config.clone().without_what_runs(running));
        let mut problems = start::refuse(&needed, text, &roots);
        if !problems.is_empty() {
            problems.sort_by_key(|problem| problem.line);
            return Err(refused(problems));
        }
        let sets_nothing = |line: &str| line.is_empty() || line.starts_with('[') && line.ends_with(']');
        if running.is_some_and(|running| config != *running) && text.lines().all(|line| sets_nothing(line.trim())) {
            return Err(vec![error(
                0,
                "is empty, but the running configuration is not the default one".to_owned(),
                "write the complete configuration and reload again; to use only defaults, put a comment into the file",
            )]);
        }
        if running.is_some() {
            let note = |Problem { what, remedy, .. }| format!("{what}; {remedy}: the next start is refused otherwise");
            config.file_notes.extend(start::refuse(&config, text, &roots).into_iter().map(note));
        }
        Ok(config)
    }

    /// What of it a reload has to look at: not the file of revocations that is open, nor the
    /// system's CAs where they were read.
    fn without_what_runs(mut self, running: &Self) -> Self {
        if self.revocations_file == running.revocations_file {
            self.revocations_file = None;
        }
        if self.has_system_roots() && running.has_system_roots() {
            self.webhook = None;
        }
        self
    }

    /// Whether the webhook is called by `https:` and trusts the system's CAs.
    pub fn has_system_roots(&self) -> bool {
        self.webhook.as_ref().is_some_and(|hook| hook.ca_file.is_none() && hook.url.starts_with("https:"))
    }

    /// Parses and validates the text of a configuration.
    ///
    /// # Errors
    /// All errors, in the order of lines.
    pub fn parse(text: &str, around: &Surroundings<'_>) -> Result<Self, Vec<Problem>> {
        let mut document = Document::parse(text);
        let mut reader = Reader { document: &mut document, around, notes: Vec::new() };
        let mut config = Self {
            api: sections::api(&mut reader),
            uplink: uplink::uplink(&mut reader),
            links: links::links(&mut reader),
            webhook: webhook::webhook(&mut reader),
            pusher: pusher::pusher(&mut reader),
            fleet_key: sections::fleet_key(&mut reader),
            revocations_file: sections::path(&mut reader, "topics", "revocations_file").map(|file| file.value),
            numbers: numbers::numbers(reader.document),
            log: sections::log(reader.document),
            file_notes: Vec::new(),
        };
        // Whether the group of the relay's service may read a file is nothing to the hub's.
        let closed = format!("can't be read by the group {GROUP}");
        let notes = reader.notes.into_iter().filter(|note| !note.contains(&closed));
        let group = format!("`chgrp {GROUP}`");
        config.file_notes = notes.map(|note| note.replace(&group, "`chgrp sharelink-hub`")).collect();
        sections::refuse_contradictions(&mut document, &config, text);
        pusher::refuse_doubles(&mut document, &config);
        let mut problems = document.finish();
        for problem in &mut problems {
            // The reader of documents and of certificates is the relay's.
            problem.remedy = problem.remedy.replace("`sharelinkd config`", "`sharelink-hub config`").replace(
                &format!("{GROUP}` and `chmod 640`, as in /etc/sharelinkd/tls"),
                "sharelink-hub` and `chmod 640`",
            );
        }
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// The configuration as shipped: every key with its default, commented.
    #[must_use]
    pub const fn default_text() -> &'static str {
        include_str!("../hub.toml")
    }
}

/// A document that is being read, with what is around it.
struct Reader<'r, 'i> {
    document: &'r mut Document<'i>,
    around: &'r Surroundings<'r>,
    /// Remarks on files.
    notes: Vec<String>,
}

#[cfg(test)]
mod tests;
