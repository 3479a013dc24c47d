//! The section `[pusher]`: the app as which Pusher's server libraries publish.
//!
//! Owns the form of its number and of its key, and that its secret is one of its own. Refuses what
//! a path or a query would have to encode, half a section, and secrets that can be guessed or that
//! open something else. Doesn't know what is signed: `http/pusher.rs` does.

use document::{At, Document};
use sha2::{Digest as _, Sha256};

use super::{
    Config, FromFile, Pusher, Reader,
    sections::{refuse_short, secret_file},
};

const SECTION: &str = "pusher";
/// The secret in use and the next.
const SECRETS_MAX: usize = 2;
/// An `app_id` and a key, in bytes: they come with each request.
const WORD_SIZE_MAX: usize = 64;

/// `[pusher]`; `None` without `app_id`.
pub fn pusher(reader: &mut Reader<'_, '_>) -> Option<Pusher> {
    let before = reader.document.problem_count();
    let [app_id, key] = ["app_id", "key"].map(|name| word(reader.document, name));
    let (secrets, secret_line) = secrets(reader);
    let Some(At { line, value: app_id }) = app_id else {
        // One that is wrong has its own error.
        if reader.document.problem_count() == before {
            let set = [("key", key.map(|key| key.line)), ("secret_file", secret_line)];
            for (name, line) in set.into_iter().filter_map(|(name, line)| Some((name, line?))) {
                let what = format!("[pusher] {name} is set, but there is no app_id");
                reader.document.refuse(line, what, "add app_id = \"1\" below [pusher], or remove the key");
            }
        }
        return None;
    };
    if reader.document.problem_count() > before {
        return None;
    }
    if key.is_none() {
        let remedy = "add key = \"shop\" below [pusher], and give the libraries the same";
        reader.document.refuse(line, "[pusher] app_id without key", remedy);
    }
    if secret_line.is_none() {
        let remedy = "add secret_file = \"pusher.secret\" below [pusher]; `sharelink-hub secret` makes one";
        reader.document.refuse(line, "[pusher] app_id without secret_file", remedy);
    }
    Some(Pusher { app_id, key: key?.value, secrets })
}

/// A word that stands in a path or a query as it is.
fn word(document: &mut Document<'_>, name: &'static str) -> Option<At<String>> {
    let at = document.text(SECTION, name).filter(|word| !word.value.is_empty())?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    if at.value.len() <= WORD_SIZE_MAX && at.value.bytes().all(is_plain) {
        return Some(at);
    }
    // It may be the secret, in the wrong place.
    let what = format!("[pusher] {name} is not 1 to {WORD_SIZE_MAX} of the characters A-Z a-z 0-9 - _ . ~");
    document.refuse(at.line, what, format!("write {name} = \"1\", or another short word"));
    None
}

/// The secrets, and the line of the first.
fn secrets(reader: &mut Reader<'_, '_>) -> (Vec<FromFile>, Option<u32>) {
    let files = reader.document.texts(SECTION, "secret_file").unwrap_or_default();
    let files: Vec<_> = files.into_iter().filter(|file| !file.value.is_empty()).collect();
    let line = files.first().map(|file| file.line);
    if let Some(extra) = files.get(SECRETS_MAX) {
        let what = format!("[pusher] secret_file has {} entries", files.len());
        reader.document.refuse(extra.line, what, "list at most two: the secret in use and the next");
    }
    let mut secrets = Vec::new();
    for At { line, value } in files.into_iter().take(SECRETS_MAX) {
        let Some(file) = secret_file(reader, (SECTION, "secret_file"), line, &value) else { continue };
        if !refuse_short(reader.document, "[pusher] secret_file", line, &file.secret) {
            secrets.push(file);
        }
    }
    (secrets, line)
}

/// Refuses a secret that is also used elsewhere: a leak of one would be a leak of both.
pub fn refuse_doubles(document: &mut Document<'_>, config: &Config) {
    let own = config.pusher.iter().flat_map(|pusher| &pusher.secrets);
    let uplink = &config.uplink;
    for secret in own.map(|file| file.secret.bytes()) {
        let hash: [u8; 32] = Sha256::digest(secret).into();
        let is = |file: &FromFile| file.secret.bytes() == secret;
        let other = [
            ("[api] keys", config.api.keys.iter().any(|key| key.hash == hash)),
            ("[uplink] secret", uplink.inline_secret.as_ref().is_some_and(|other| other.bytes() == secret)),
            ("[uplink] secret_file", uplink.secrets.iter().any(is)),
            ("[uplink] relays", uplink.relays.iter().any(|relay| is(&relay.secret))),
            ("[links] keys", config.links.keys.iter().any(|key| is(&key.key))),
            ("[topics] fleet_key_file", config.fleet_key.as_ref().is_some_and(is)),
        ];
        if let Some((name, _)) = other.iter().find(|(_, is_same)| *is_same) {
            let line = document.section_line(SECTION).unwrap_or(0);
            let what = format!("[pusher] secret_file and {name} have the same secret");
            document.refuse(line, what, "make one for each: sharelink-hub secret > FILE");
        }
    }
}
