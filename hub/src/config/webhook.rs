//! The section `[webhook]`: the company's endpoint, which says who may watch and is told events.
//!
//! Owns the section's keys. Which URLs may be called says `webhook/url.rs`, which secrets are those
//! of Standard Webhooks `webhook/sign.rs`. Resolves no names: the client looks at the address again
//! when it dials.

use document::At;
use sharelinkd::config::{Secret, sections::whole};

use super::{
    FromFile, Reader, Webhook,
    sections::{path, secret_file},
};
use crate::webhook::{self, Url};

const SECTION: &str = "webhook";
/// The secret in use and the next.
const SECRETS_MAX: usize = 2;
const EXAMPLE: &str = "write \"https://api.example/sharelink\"";

/// `[webhook]`; `None` without `url`.
pub fn webhook(reader: &mut Reader<'_, '_>) -> Option<Webhook> {
    let url = reader.document.text(SECTION, "url").filter(|url| !url.value.is_empty());
    let secrets = secrets(reader);
    let timeout_s = whole(reader.document, SECTION, "timeout_s", 1, 9).unwrap_or(3);
    let calls_max = whole(reader.document, SECTION, "calls_max", 1, 1024).unwrap_or(32);
    let events = reader.document.flag(SECTION, "events").is_none_or(|flag| flag.value);
    let ca_file = path(reader, SECTION, "ca_file");
    if let Some(At { line, value }) = &ca_file {
        match (reader.around.check_ca)(value) {
            Ok(notes) => reader.notes.extend(notes.iter().map(|note| format!("[webhook] {note}"))),
            Err((what, remedy)) => reader.document.refuse(*line, format!("[webhook] {what}"), remedy),
        }
    }
    let Some(At { line, value: url }) = url else {
        for (key, line) in [("secret_files", secrets.1), ("ca_file", ca_file.map(|file| file.line))] {
            if let Some(line) = line {
                let what = format!("[webhook] {key} is set, but there is no url");
                reader.document.refuse(line, what, format!("{EXAMPLE} as url below [webhook], or remove the key"));
            }
        }
        return None;
    };
    // The URL itself may hold a secret, so it is not shown.
    if let Err(why) = Url::parse(&url) {
        let (what, remedy) = why.split_once(": ").unwrap_or((why, EXAMPLE));
        reader.document.refuse(line, format!("[webhook] url: {what}"), remedy);
    } else if secrets.1.is_none() {
        let remedy = "add secret_files = [\"webhook.1\"] below [webhook]; `sharelink-hub secret --webhook` makes one";
        reader.document.refuse(line, "[webhook] url without secret_files: calls would not be signed", remedy);
    }
    let ca_file = ca_file.map(|file| file.value);
    Some(Webhook { url, secrets: secrets.0, timeout_s, calls_max, events, ca_file })
}

/// The secrets, and the line of the first.
fn secrets(reader: &mut Reader<'_, '_>) -> (Vec<FromFile>, Option<u32>) {
    let files = reader.document.texts(SECTION, "secret_files").unwrap_or_default();
    let line = files.first().map(|file| file.line);
    if let Some(extra) = files.get(SECRETS_MAX) {
        let what = format!("[webhook] secret_files has {} entries", files.len());
        reader.document.refuse(extra.line, what, "list at most two: the secret in use and the next");
    }
    let mut secrets = Vec::new();
    for At { line, value } in files.into_iter().take(SECRETS_MAX) {
        let Some(FromFile { file, secret }) = secret_file(reader, (SECTION, "secret_files"), line, &value) else {
            continue;
        };
        match std::str::from_utf8(secret.bytes()).ok().and_then(|text| webhook::secret(text).ok()) {
            Some(bytes) => secrets.push(FromFile { file, secret: Secret::new(bytes) }),
            None => reader.document.refuse(
                line,
                format!("[webhook] secret_files {value:?} is not whsec_ and 24 to 64 bytes in base64"),
                "make one: sharelink-hub secret --webhook > FILE",
            ),
        }
    }
    (secrets, line)
}
