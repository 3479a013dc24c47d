//! The section `[links]`: who may watch.
//!
//! Owns the words for the ways to decide, and the rows of keys for signed links. Refuses more than
//! two keys, a number twice, and keys that can be guessed. Doesn't know what a link says.

use document::{At, nearest};
use hub::admission::Links as Admission;
use sharelinkd::config::{
    origin::public_url,
    sections::{off_or, whole},
};

use super::{
    LinkKey, Links, Reader,
    sections::{refuse_short, secret_file},
};
use crate::http::LINK_TTL_S_MAX;

/// The words for the ways to decide.
pub const WORDS: [(&str, Admission); 4] = [
    ("signed", Admission::Signed),
    ("webhook", Admission::Webhook),
    ("signed or webhook", Admission::SignedOrWebhook),
    ("dev", Admission::Dev),
];
/// The key in use and the next.
const KEYS_MAX: usize = 2;

/// `[links]`.
pub fn links(reader: &mut Reader<'_, '_>) -> Links {
    Links {
        admission: admission(reader),
        keys: keys(reader),
        ttl_s: whole(reader.document, "links", "ttl_s", 1, LINK_TTL_S_MAX).unwrap_or(86_400),
        grant_ttl_s: whole(reader.document, "links", "grant_ttl_s", 10, 86_400).unwrap_or(300),
        pages_url: off_or(reader.document, "links", "pages_url", public_url),
    }
}

fn admission(reader: &mut Reader<'_, '_>) -> Admission {
    let Some(At { line, value }) = reader.document.text("links", "admission") else { return Admission::Signed };
    if let Some((_, way)) = WORDS.iter().find(|(word, _)| *word == value) {
        return *way;
    }
    let words = WORDS.map(|(word, _)| word);
    let remedy = match nearest(&value, words) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("choose one of {}", words.map(|word| format!("{word:?}")).join(", ")),
    };
    reader.document.refuse(line, format!("[links] admission = {value:?} is not a way to decide"), remedy);
    Admission::Signed
}

fn keys(reader: &mut Reader<'_, '_>) -> Vec<LinkKey> {
    let rows = reader.document.tables("links", "keys", ["id", "key_file"]).unwrap_or_default();
    if let Some(extra) = rows.get(KEYS_MAX) {
        let what = format!("[links] keys has {} entries", rows.len());
        reader.document.refuse(extra.line, what, "list at most two: the key that signs, and one that is still valid");
    }
    let mut keys: Vec<LinkKey> = Vec::new();
    for At { line, value: [id, file] } in rows.into_iter().take(KEYS_MAX) {
        let number = id.parse::<u8>().ok().filter(|number| number.to_string() == id);
        if number.is_none() {
            let what = format!("[links] keys: id = {id:?} is not a number from 0 to 255");
            reader.document.refuse(line, what, "write id = \"1\", and another one for the next key");
        }
        let key = secret_file(reader, ("links", "keys: key_file"), line, &file);
        let (Some(id), Some(key)) = (number, key) else { continue };
        if refuse_short(reader.document, "[links] keys: key_file", line, &key.secret) {
            continue;
        }
        if keys.iter().any(|other| other.id == id) {
            let what = format!("[links] keys: id = \"{id}\" is there twice");
            reader.document.refuse(line, what, "give the next key another number: links say by which they were signed");
            continue;
        }
        keys.push(LinkKey { id, key });
    }
    keys
}
