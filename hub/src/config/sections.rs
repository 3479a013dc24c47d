//! The sections `[api]` and `[log]`, the fleet key, and what several sections share.
//!
//! Owns the syntax of an API key's row, how secrets and certificates are read from files, and the
//! rules between sections. Refuses listeners beyond this machine without TLS and without consent,
//! and files that can't be used. Knows nothing of how a value is used.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use document::{At, Document, nearest};
use hub::{NAME_SIZE_MAX, Name};
use log::LevelFilter;
use sharelinkd::config::{
    Secret, Wrong,
    address::listener,
    file,
    sections::{list, plain, some},
    values::{network, secret},
};

use super::{Api, Config, Format, FromFile, Log, Reader, start};
use crate::http::{ApiKey, Scopes};

/// The maximum number of API keys: each request is compared with all of them.
const KEYS_MAX: usize = 256;
/// The maximum number of trusted networks.
const PROXIES_MAX: usize = 256;
/// A shorter secret, in bytes, may be guessed by someone who recorded what it protects.
pub const SECRET_SIZE_GOOD: usize = 16;
const SCOPES: [&str; 4] = ["publish", "read", "admin", "ingest"];

/// `[api]`.
pub fn api(reader: &mut Reader<'_, '_>) -> Api {
    let listen = some(reader.document, "api", "listen", listener).unwrap_or_else(|| defaults(8090));
    let plaintext = reader.document.flag("api", "plaintext").is_some_and(|flag| flag.value);
    let certificate = certificate(reader, "api");
    refuse_clear(reader.document, "api", &listen, plaintext || certificate.is_set());
    let proxies = list(reader.document, "api", "trusted_proxies", PROXIES_MAX, network);
    Api {
        listen: plain(listen),
        plaintext,
        certificate: certificate.pair,
        trusted_proxies: plain(proxies.unwrap_or_default()),
        keys: keys(reader.document),
    }
}

/// The default of `listen`: this machine alone.
pub fn defaults(port: u16) -> Vec<At<SocketAddr>> {
    vec![At { line: 0, value: SocketAddr::from(([127, 0, 0, 1], port)) }]
}

/// Refuses listeners beyond this machine that are not encrypted.
pub fn refuse_clear(document: &mut Document<'_>, section: &str, listen: &[At<SocketAddr>], is_agreed: bool) {
    for At { line, value } in listen.iter().filter(|at| !at.value.ip().to_canonical().is_loopback() && !is_agreed) {
        let table = if section == "uplink" { "uplink.tls" } else { section };
        document.refuse(
            *line,
            format!("[{section}] listen has {value}, beyond this machine, without TLS"),
            format!("set certificate_file and key_file below [{table}], or write plaintext = true below [{section}] if a proxy on a private network or a tunnel protects it"),
        );
    }
}

fn keys(document: &mut Document<'_>) -> Vec<ApiKey> {
    let rows = document.tables("api", "keys", ["name", "hash", "scopes", "topics"]).unwrap_or_default();
    if let Some(extra) = rows.get(KEYS_MAX) {
        document.refuse(
            extra.line,
            format!("[api] keys has {} entries", rows.len()),
            format!("list at most {KEYS_MAX}"),
        );
    }
    let mut keys: Vec<ApiKey> = Vec::new();
    for At { line, value: [name, hash, scopes, below] } in rows {
        let before = document.problem_count();
        let mut refuse = |(what, remedy): Wrong| document.refuse(line, format!("[api] keys: {what}"), remedy);
        if name.is_empty() || name.len() > NAME_SIZE_MAX || name.chars().any(char::is_control) {
            let remedy = "write 1 to 64 bytes that say in a log whose key it is, such as \"shop\"";
            refuse((format!("name = {name:?} is not a name"), remedy.to_owned()));
        }
        let hash = key_hash(&hash).map_err(&mut refuse).unwrap_or_default();
        let scopes = key_scopes(&scopes).map_err(&mut refuse).unwrap_or_default();
        if !below.is_empty() && (Name::new(&below).is_none() || below.ends_with('/')) {
            let remedy = "write the beginning of topics' names before a /, such as \"shop\", or \"\" for all topics";
            refuse((format!("topics = {below:?} can't begin a topic's name"), remedy.to_owned()));
        }
        if document.problem_count() > before {
            continue;
        }
        if let Some(other) = keys.iter().find(|other| other.hash == hash) {
            let what = format!("[api] keys: {name:?} and {:?} have the same hash", other.name);
            document.refuse(line, what, "make each its own: sharelink-hub key");
            continue;
        }
        keys.push(ApiKey { name, hash, scopes, below });
    }
    keys
}

fn key_hash(text: &str) -> Result<[u8; 32], Wrong> {
    // What was written may be the key itself, so it isn't quoted.
    let wrong = || {
        let what = "hash is not sha256: and 64 hexadecimal digits".to_owned();
        (what, "write what `sharelink-hub key` prints: the hash, not the key".to_owned())
    };
    let digits = text.strip_prefix("sha256:").filter(|digits| digits.len() == 64).ok_or_else(wrong)?;
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'));
        *byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(wrong)?;
    }
    Ok(hash)
}

fn key_scopes(text: &str) -> Result<Scopes, Wrong> {
    let mut scopes = Scopes::default();
    for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
        match word {
            "publish" => scopes.publish = true,
            "read" => scopes.read = true,
            "admin" => scopes.admin = true,
            "ingest" => scopes.ingest = true,
            _ => {
                let remedy = match nearest(word, SCOPES) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("choose from {}", SCOPES.join(", ")),
                };
                return Err((format!("scopes has the unknown word {word:?}"), remedy));
            }
        }
    }
    if scopes == Scopes::default() {
        return Err(("scopes is empty".to_owned(), format!("choose from {}", SCOPES.join(", "))));
    }
    Ok(scopes)
}

/// A certificate and its key.
pub struct Certificate {
    /// The files; `None` if there are none, or they can't be used.
    pub pair: Option<(PathBuf, PathBuf)>,
    is_wrong: bool,
}

impl Certificate {
    /// Whether TLS is wanted.
    pub const fn is_set(&self) -> bool {
        self.pair.is_some() || self.is_wrong
    }
}

/// `certificate_file` and `key_file` of a section. They are read, so that a mistake shows here.
pub fn certificate(reader: &mut Reader<'_, '_>, section: &'static str) -> Certificate {
    let before = reader.document.problem_count();
    let [chain, key] = ["certificate_file", "key_file"].map(|name| path(reader, section, name));
    let (chain, key) = match (chain, key) {
        (None, None) => {
            return Certificate { pair: None, is_wrong: reader.document.problem_count() > before };
        }
        (Some(chain), Some(key)) => (chain, key),
        (Some(At { line, .. }), None) => {
            let what = format!("[{section}] certificate_file without key_file");
            reader.document.refuse(line, what, format!("add key_file below [{section}]"));
            return Certificate { pair: None, is_wrong: true };
        }
        (None, Some(At { line, .. })) => {
            let what = format!("[{section}] key_file without certificate_file");
            reader.document.refuse(line, what, format!("add certificate_file below [{section}]"));
            return Certificate { pair: None, is_wrong: true };
        }
    };
    match (reader.around.check_pair)(&chain.value, &key.value) {
        Ok(report) => {
            reader.notes.extend(report.notes.iter().map(|note| format!("[{section}] {note}")));
            Certificate { pair: Some((chain.value, key.value)), is_wrong: false }
        }
        Err((what, remedy)) => {
            reader.document.refuse(chain.line, format!("[{section}] {what}"), remedy);
            Certificate { pair: None, is_wrong: true }
        }
    }
}

/// The resolved path of a file; `None` if the key is missing or empty.
pub fn path(reader: &mut Reader<'_, '_>, section: &'static str, key: &'static str) -> Option<At<PathBuf>> {
    let At { line, value } = reader.document.text(section, key).filter(|file| !file.value.is_empty())?;
    resolved(reader, (section, key), line, &value).map(|value| At { line, value })
}

fn resolved(reader: &mut Reader<'_, '_>, (section, key): (&str, &str), line: u32, value: &str) -> Option<PathBuf> {
    if value.is_empty() || value.contains(char::is_control) {
        let what = format!("[{section}] {key} has {value:?}, which is not the path of a file");
        reader.document.refuse(line, what, "name a file: an absolute path, or one relative to this file");
        return None;
    }
    Some((reader.around.resolve)(Path::new(value)))
}

/// Reads a secret from the file of this name; a wrong one is refused.
pub fn secret_file(
    reader: &mut Reader<'_, '_>,
    (section, key): (&str, &str),
    line: u32,
    value: &str,
) -> Option<FromFile> {
    let file = resolved(reader, (section, key), line, value)?;
    let read = match (reader.around.read_secret)(&file) {
        Ok(bytes) => secret(&bytes),
        Err(cause) => {
            let otherwise = "name a file that the hub may read: an absolute path, or one relative to $CREDENTIALS_DIRECTORY, else to this file";
            Err((format!("can't be read: {cause}"), file::remedy(cause.kind(), otherwise).to_owned()))
        }
    };
    match read {
        Ok(secret) => {
            let note = (reader.around.exposed)(Some(&file));
            reader.notes.extend(note.map(|note| format!("[{section}] {key}: {note}")));
            Some(FromFile { file, secret })
        }
        Err((what, remedy)) => {
            reader.document.refuse(line, format!("[{section}] {key} {value:?} {what}"), remedy);
            None
        }
    }
}

/// Refuses a key that is too short to keep anything.
pub fn refuse_short(document: &mut Document<'_>, what: &str, line: u32, secret: &Secret) -> bool {
    let size = secret.bytes().len();
    if size < SECRET_SIZE_GOOD {
        let remedy = "make one that nobody can guess: sharelink-hub secret > FILE";
        document.refuse(line, format!("{what} has only {size} bytes, at least {SECRET_SIZE_GOOD} are needed"), remedy);
    }
    size < SECRET_SIZE_GOOD
}

/// `[topics] fleet_key_file`.
pub fn fleet_key(reader: &mut Reader<'_, '_>) -> Option<FromFile> {
    let At { line, value } = reader.document.text("topics", "fleet_key_file").filter(|file| !file.value.is_empty())?;
    let key = secret_file(reader, ("topics", "fleet_key_file"), line, &value)?;
    let is_short = refuse_short(reader.document, "[topics] fleet_key_file", line, &key.secret);
    (!is_short).then_some(key)
}

/// `[log]`.
pub fn log(document: &mut Document<'_>) -> Log {
    let level = document.text("log", "level").map_or(LevelFilter::Info, |At { line, value }| {
        value.parse().unwrap_or_else(|_| {
            let what = format!("[log] level = {value:?} is not a log level");
            document.refuse(line, what, "choose one of off, error, warn, info, debug, trace");
            LevelFilter::Info
        })
    });
    let format = document.text("log", "format").map_or(Format::Text, |At { line, value }| match value.as_str() {
        "text" => Format::Text,
        "json" => Format::Json,
        _ => {
            let remedy = "choose \"text\", or \"json\" for one object a line";
            document.refuse(line, format!("[log] format = {value:?} is not a format"), remedy);
            Format::Text
        }
    });
    Log { level, format }
}

/// Refuses what single sections can't see: listeners that collide, and admission without what it
/// needs.
pub fn refuse_contradictions(document: &mut Document<'_>, config: &Config, text: &str) {
    for api in &config.api.listen {
        let collides = |uplink: &&SocketAddr| {
            let covers = uplink.ip() == api.ip() || uplink.ip().is_unspecified() || api.ip().is_unspecified();
            uplink.port() == api.port() && api.port() != 0 && uplink.is_ipv4() == api.is_ipv4() && covers
        };
        if let Some(uplink) = config.uplink.listen.iter().find(collides) {
            // One of them may be the default.
            let lines = ["uplink", "api"].map(|section| start::line(text, section, "listen"));
            let line = lines.into_iter().find(|line| *line > 0).unwrap_or(0);
            let what = format!("[uplink] listen has {uplink} and [api] listen has {api}, which are the same");
            document.refuse(line, what, "give them different ports");
        }
    }
    let asks =
        matches!(config.links.admission, hub::admission::Links::Webhook | hub::admission::Links::SignedOrWebhook);
    // A webhook that is wrong has its own error.
    if asks && config.webhook.is_none() && document.problem_count() == 0 {
        let line = document.section_line("links").unwrap_or(0);
        let what = "[links] admission asks the webhook, and there is none";
        document.refuse(
            line,
            what,
            "set url and secret_files below [webhook], or admission = \"signed\" below [links]",
        );
    }
}
