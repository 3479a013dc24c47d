//! The sections `[uplink]` and `[uplink.tls]`: where relays connect, and how each proves itself.
//!
//! Owns the rules between secrets: one for all, or one for each, and never the same twice. Refuses
//! a listener beyond this machine without a secret, and without TLS or consent. Knows nothing of
//! relays that are connected.

use document::At;
use sharelinkd::config::{
    Secret,
    address::listener,
    sections::{plain, some},
};
use wire::REASON_SIZE_MAX;

use super::{
    FromFile, Reader, Relay, Uplink,
    sections::{certificate, defaults, path, refuse_clear, secret_file},
};

/// The maximum number of relays with a secret of their own: each handshake tries all secrets.
const RELAYS_MAX: usize = 1024;
/// The secrets for all: the one in use and the next.
const SECRETS_MAX: usize = 2;

/// `[uplink]`.
pub fn uplink(reader: &mut Reader<'_, '_>) -> Uplink {
    let listen = some(reader.document, "uplink", "listen", listener).unwrap_or_else(|| defaults(7400));
    let plaintext = reader.document.flag("uplink", "plaintext").is_some_and(|flag| flag.value);
    let certificate = certificate(reader, "uplink.tls");
    refuse_clear(reader.document, "uplink", &listen, plaintext || certificate.is_set());
    let ca_file = path(reader, "uplink.tls", "ca_file");
    if let Some(At { line, value }) = &ca_file {
        match (reader.around.check_ca)(value) {
            Ok(notes) => reader.notes.extend(notes.iter().map(|note| format!("[uplink.tls] {note}"))),
            Err((what, remedy)) => reader.document.refuse(*line, format!("[uplink.tls] {what}"), remedy),
        }
        if !certificate.is_set() {
            let what = "[uplink.tls] ca_file is set, but nothing turns TLS on";
            reader.document.refuse(*line, what, "add certificate_file and key_file below [uplink.tls], or remove it");
        }
    }
    let before = reader.document.problem_count();
    let (inline_secret, secrets) = secrets(reader);
    let relays = relays(reader);
    let is_good = reader.document.problem_count() == before;
    if is_good {
        refuse_doubles(reader, inline_secret.as_ref(), &secrets, &relays);
    }
    let has_none = inline_secret.is_none() && secrets.is_empty() && relays.is_empty();
    for At { line, value } in listen.iter().filter(|at| !at.value.ip().to_canonical().is_loopback()) {
        if has_none && is_good {
            reader.document.refuse(
                *line,
                format!("[uplink] listen has {value}, beyond this machine, and there is no secret"),
                "set secret_file below [uplink], or relays with a secret for each; `sharelink-hub secret` makes one",
            );
        }
    }
    Uplink {
        listen: plain(listen),
        plaintext,
        secrets,
        inline_secret,
        relays,
        certificate: certificate.pair,
        ca_file: ca_file.map(|file| file.value),
    }
}

fn secrets(reader: &mut Reader<'_, '_>) -> (Option<Secret>, Vec<FromFile>) {
    let inline = reader.document.text("uplink", "secret").filter(|secret| !secret.value.is_empty());
    let files = reader.document.texts("uplink", "secret_file").unwrap_or_default();
    let files: Vec<_> = files.into_iter().filter(|file| !file.value.is_empty()).collect();
    if let Some(extra) = files.get(SECRETS_MAX) {
        let what = format!("[uplink] secret_file has {} entries", files.len());
        reader.document.refuse(extra.line, what, "list at most two: the secret in use and the next");
    }
    if let (Some(At { line, .. }), false) = (&inline, files.is_empty()) {
        reader.document.refuse(*line, "[uplink] has both secret and secret_file", "keep one of them");
    }
    if inline.is_some() {
        let note = (reader.around.exposed)(None);
        reader.notes.extend(note.map(|note| format!("[uplink] secret: {note}")));
    }
    let read = files.into_iter().take(SECRETS_MAX);
    let read = read.filter_map(|At { line, value }| secret_file(reader, ("uplink", "secret_file"), line, &value));
    let files = read.collect();
    (inline.map(|secret| Secret::new(secret.value.into_bytes())), files)
}

fn relays(reader: &mut Reader<'_, '_>) -> Vec<Relay> {
    let rows = reader.document.tables("uplink", "relays", ["name", "secret_file"]).unwrap_or_default();
    if let Some(extra) = rows.get(RELAYS_MAX) {
        let what = format!("[uplink] relays has {} entries", rows.len());
        reader.document.refuse(extra.line, what, format!("list at most {RELAYS_MAX}"));
    }
    let mut relays = Vec::new();
    for At { line, value: [name, file] } in rows.into_iter().take(RELAYS_MAX) {
        if name.is_empty() || name.len() > REASON_SIZE_MAX || name.chars().any(char::is_control) {
            let what = format!("[uplink] relays: name = {name:?} is not the name of a relay");
            let remedy = format!("write the relay's own [uplink] name: 1 to {REASON_SIZE_MAX} bytes");
            reader.document.refuse(line, what, remedy);
        }
        if let Some(secret) = secret_file(reader, ("uplink", "relays: secret_file"), line, &file) {
            relays.push(Relay { name, secret });
        }
    }
    relays
}

/// With one secret in two places it would be unclear whose a relay's proof is.
fn refuse_doubles(reader: &mut Reader<'_, '_>, inline: Option<&Secret>, files: &[FromFile], relays: &[Relay]) {
    let shared = inline.into_iter().chain(files.iter().map(|file| &file.secret));
    let named = shared.map(|secret| ("all relays", secret));
    let named: Vec<_> = named.chain(relays.iter().map(|relay| (relay.name.as_str(), &relay.secret.secret))).collect();
    for (index, (name, secret)) in named.iter().enumerate() {
        if let Some((other, _)) = named.iter().take(index).find(|(_, other)| other.bytes() == secret.bytes()) {
            let line = reader.document.section_line("uplink").unwrap_or(0);
            let what = format!("[uplink] {other:?} and {name:?} have the same secret");
            reader.document.refuse(line, what, "make one for each: sharelink-hub secret > FILE");
        }
    }
}
