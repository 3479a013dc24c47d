//! What each fuzz target does with its bytes, and the conditions that must hold.
//!
//! Plain functions that panic on a violation: libFuzzer runs them from `fuzz_targets/`, and the
//! suite replays their corpora with them (`tests/suite/fuzzing.rs`), without libFuzzer.
#![allow(dead_code, unused_imports, reason = "each fuzz target uses one of them")]
#![allow(clippy::duplicate_mod, reason = "the suite replays the targets, and has TLS clients of its own")]

#[path = "../suite/anyone.rs"]
mod anyone;
#[path = "console.rs"]
mod console;
#[path = "handshake.rs"]
mod handshakes;
#[path = "machine.rs"]
mod machine;
#[path = "dns.rs"]
mod name_servers;
#[path = "reader.rs"]
mod reader;
#[path = "tls.rs"]
mod tls_records;

use std::net::IpAddr;
use std::path::Path;

use board::{HOST, TINY};
use sharelinkd::config::certificate_notes::Report;
use sharelinkd::config::{Config, LIMITS, Secret, Surroundings};
use sharelinkd::daemon::head::{self, Asked, Response};
use wire::page::{Notice, Request, decode_request};
use wire::uplink::{
    Deframer, FrameError, Incoming, ToBusiness, ToRelay, decode_any_to_business, decode_any_to_relay,
    decode_to_business, decode_to_relay, encode,
};
use wire::{is_link, json};

pub use console::console;
pub use handshakes::handshake;
pub use machine::machine;
pub use name_servers::dns;
pub use tls_records::{certificate, tls_open};

/// The uplink's bytes: the same frames and the same error however they are split, and each value
/// survives a round trip.
pub fn uplink(data: &[u8]) {
    uplink_of(Deframer::new, data);
    uplink_of(|size_max| Deframer::new(size_max).with_extensions(), data);
    // Never longer than it was read: numbers may have been encoded with padding.
    let mut out = vec![0; data.len() + 4];
    match decode_any_to_relay(data) {
        Ok(frame) => {
            let size = encode(&frame, &mut out).expect("what was read can be written");
            assert_eq!(decode_any_to_relay(&out[4..size]), Ok(frame));
            let is_new = matches!(frame, ToRelay::Features { .. } | ToRelay::Away { .. } | ToRelay::Sent { .. });
            assert_eq!(decode_to_relay(data).ok(), (!is_new).then_some(frame), "version 1 has all others");
        }
        Err((byte, _)) => assert!(byte <= data.len() && decode_to_relay(data).is_err()),
    }
    match decode_any_to_business(data) {
        Ok(frame) => {
            let size = encode(&frame, &mut out).expect("what was read can be written");
            assert_eq!(decode_any_to_business(&out[4..size]), Ok(frame));
            let is_new = matches!(frame, ToBusiness::Features { .. } | ToBusiness::Send { .. });
            assert_eq!(decode_to_business(data).ok(), (!is_new).then_some(frame), "version 1 has all others");
        }
        Err((byte, _)) => assert!(byte <= data.len() && decode_to_business(data).is_err()),
    }
}

/// The same, for plain version 1 or with extensions.
fn uplink_of(deframer: impl Fn(usize) -> Deframer, data: &[u8]) {
    let deframed = |sizes: &[usize]| deframed(deframer(TINY.data_size_max() as usize), data, sizes);
    let whole = deframed(&[usize::MAX]);
    // The first bytes also choose the splits.
    let cuts: Vec<usize> = data.iter().take(16).map(|byte| usize::from(*byte % 23) + 1).collect();
    assert_eq!(deframed(&cuts), whole, "cut at {cuts:?}");
    assert_eq!(deframed(&[1]), whole, "a byte at a time");
    // Each error has its position: the frame after the last good one, and a byte within its length.
    if let (frames, Some(error)) = &whole {
        assert_eq!(error.frame, frames.len() as u64 + 1, "{error}");
        let (mut rest, mut size) = (data, 0);
        for _ in 0..error.frame {
            let (length, behind) = rest.split_first_chunk::<4>().expect("a frame with an error has a length");
            size = u32::from_le_bytes(*length) as usize;
            rest = behind.get(size..).unwrap_or_default();
        }
        assert!(error.byte <= size, "{error}, and the frame has {size}");
    }
}

/// The frames of a stream, as text, and its error, when it is read in pieces of these sizes in
/// turn.
fn deframed(mut deframer: Deframer, data: &[u8], sizes: &[usize]) -> (Vec<String>, Option<FrameError>) {
    let (mut frames, mut rest) = (Vec::new(), data);
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let space = deframer.space();
        assert!(!space.is_empty(), "no room for more, and every whole frame was taken");
        let size = rest.len().min(space.len()).min(*size);
        space[..size].copy_from_slice(&rest[..size]);
        deframer.filled(size);
        rest = &rest[size..];
        loop {
            match deframer.next_frame() {
                Ok(Some(Incoming::Frame(frame))) => frames.push(format!("{frame:?}")),
                Ok(Some(Incoming::Oversize(oversize))) => frames.push(format!("{oversize:?}")),
                Ok(None) => break,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return (frames, Some(error));
                }
            }
        }
    }
    (frames, None)
}

/// A page's text: a request or a reason for refusal. An accepted request equals what serde_json
/// reads.
pub fn page_json(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    match decode_request(text) {
        Ok(request) => {
            let value: serde_json::Value = match serde_json::from_str(text) {
                Ok(value) => value,
                // An unknown field is ignored, so its numbers and escapes are not read.
                Err(error) => return assert!(is_readers_own(&error), "understood is {error}"),
            };
            match request {
                Request::Subscribe { id, link, since } => {
                    let told = &value["since"];
                    assert_eq!(since.is_some(), !told.is_null());
                    if let Some(since) = since {
                        assert_eq!(told["epoch"].as_str().and_then(|epoch| epoch.parse().ok()), Some(since.epoch));
                        let next = told["next"].as_array().expect("an array");
                        assert!(
                            next.len() == 4 && next.iter().zip(since.next).all(|(told, next)| is_number(told, next))
                        );
                    }
                    assert!(value["type"].as_str() == Some("subscribe") && is_number(&value["id"], id.into()));
                    assert_eq!(value["link"].as_str(), Some(&*link));
                    let _ = is_link(&link);
                }
                Request::Unsubscribe { topic } => assert!(is_number(&value["topic"], topic.into())),
                Request::Send { topic, data, id } => {
                    assert!(is_number(&value["topic"], topic.into()));
                    assert_eq!(value["data"].as_str(), Some(&*data));
                    let digits = id.map(|id| format!("{:032x}", u128::from_be_bytes(id)));
                    assert_eq!(value["id"].as_str(), digits.as_deref());
                }
                Request::Ping => assert_eq!(value["type"].as_str(), Some("ping")),
            }
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
    // A page can send any text.
    let said = serde_json::json!({"type": "send", "topic": 7, "data": text, "more": [text]}).to_string();
    assert_eq!(decode_request(&said), Ok(Request::Send { topic: 7, data: text.into(), id: None }));
    // A notice is JSON whatever its reason contains.
    let reason: String = text.chars().take(60).collect();
    let frame = Notice::Denied { id: 1, reason: &reason, retry_ms: Some(1) }.encode();
    let from = if frame[1] == 126 { 4 } else { 2 };
    let told: serde_json::Value = serde_json::from_slice(&frame[from..]).expect("a notice is JSON");
    assert_eq!(told["reason"].as_str(), Some(&*reason));
}

/// Whether this is that number to serde_json, which reads `7.0` as a float, and not always as the
/// nearest one.
#[expect(clippy::cast_precision_loss, reason = "a float is what serde_json has")]
fn is_number(value: &serde_json::Value, number: u64) -> bool {
    let is_near = |float: f64| (float - number as f64).abs() <= number as f64 * 4.0 * f64::EPSILON;
    value.as_u64().map_or_else(|| value.as_f64().is_some_and(is_near), |told| told == number)
}

/// A request head: an answer or a page. A decision made on a part of the head stands, whatever
/// follows.
pub fn http_head(data: &[u8]) {
    let config = Config::parse(
        "[pages]\norigins = [\"https://share.example\"]\ntrusted_proxies = [\"10.0.0.0/8\", \"fd00::/8\"]\n",
        &HOST,
        &Surroundings { read_secret: &|_| Ok(Vec::new()), ..Surroundings::without_files("box") },
    )
    .expect("a configuration that is good");
    let bytes = &data[..data.len().min(head::HEAD_SIZE_MAX)];
    let found = head::size(bytes);
    // Of a long head only some prefixes, for speed.
    for end in (0..bytes.len()).step_by(1 + bytes.len() / 512) {
        match (head::size(&bytes[..end]), &found) {
            (Ok(Some(early)), Ok(Some(size))) => {
                assert_eq!(early, *size, "the end of the head depends on what follows")
            }
            (Ok(Some(_)), _) => panic!("a head of {end} bytes is rejected when more follows"),
            (Err(_), Ok(_)) => panic!("a head refused at {end} bytes is accepted when more follows"),
            _ => {}
        }
    }
    let size = match found {
        Ok(Some(size)) => size,
        Ok(None) => return assert!(bytes.len() < head::HEAD_SIZE_MAX, "a head that never ends"),
        Err(answer) => return check_answer(&answer),
    };
    let peer: IpAddr = [10, 0, 0, 1].into();
    match head::read(&bytes[..size], &config.pages, peer) {
        Asked::Refused(answer) => check_answer(&answer),
        Asked::Moved(answer) => {
            let to = answer.headers.split("\r\n").find_map(|line| line.strip_prefix("Location: /s/")).expect("a place");
            assert!(answer.code == 301 && is_link(to.split('?').next().unwrap_or_default()), "{answer:?}");
            assert!(
                !String::from_utf8_lossy(&bytes[..size]).contains(&format!(" /s/{to} ")),
                "a redirect to the same place"
            );
            // The target, the query and the line ends: nothing from the request adds a header line.
            assert_eq!(answer.head(None).iter().filter(|byte| **byte == b'\n').count(), 7, "{answer:?}");
        }
        Asked::File(answer) => {
            assert!(answer.code == if answer.body.is_empty() { 304 } else { 200 }, "{answer:?}");
            assert!(answer.headers.contains("\r\nETag: \"") && answer.headers.contains("Vary: "), "{answer:?}");
        }
        Asked::Path { path, .. } => assert!(!path.contains(['?', '#'])),
        Asked::SharePage(head::SharePage { link, host, .. }) => {
            assert!(is_link(&link));
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
            assert!(host.is_none_or(|host| host.bytes().all(is_plain)), "it ends up in a header line");
        }
        Asked::Upgrade(upgrade) => {
            let lines: Vec<&str> = upgrade.response.split("\r\n").collect();
            assert!(upgrade.response.starts_with("HTTP/1.1 101 ") && upgrade.response.ends_with("\r\n\r\n"));
            assert!(lines.iter().all(|line| !line.contains(['\r', '\n'])), "a line within a line");
            assert!(lines.len() < 12, "the answer contains lines of the request");
            let text = String::from_utf8_lossy(&bytes[..size]).into_owned();
            assert!(
                text.contains(&upgrade.origin) && upgrade.origin.bytes().all(|byte| byte >= b' '),
                "its own origin"
            );
            // Only a trusted proxy may report a page's address.
            let stranger: IpAddr = [192, 0, 2, 1].into();
            match head::read(&bytes[..size], &config.pages, stranger) {
                Asked::Upgrade(again) => assert_eq!((again.address, again.origin), (stranger, upgrade.origin)),
                other => panic!("the request depends on the peer: {other:?}"),
            }
        }
    }
}

/// A refusal is one complete answer: a status line that fits its code, header lines, and a body of
/// the declared size.
fn check_answer(answer: &Response) {
    assert!(matches!(answer.code, 400 | 403 | 405 | 414 | 426 | 431 | 505), "{answer:?}");
    let head = String::from_utf8(answer.head(None)).expect("a head is text");
    let (status, lines) = head.strip_suffix("\r\n\r\n").and_then(|head| head.split_once("\r\n")).expect("lines");
    assert!(status.starts_with(&format!("HTTP/1.1 {} ", answer.code)) && !status.contains("Unavailable"), "{status}");
    assert!(lines.split("\r\n").all(|line| line.contains(": ") && !line.contains(['\r', '\n'])), "{head:?}");
    assert!(
        lines.contains(&format!("Content-Length: {}", answer.body.len()))
            && (answer.is_head || !answer.body().is_empty())
    );
    assert_eq!(lines.matches("Connection: ").count(), 1, "{head:?}");
}

/// No output about a configuration may contain it.
const SECRET: &str = "a secret that is long enough";

/// A configuration: accepted, or refused with existing line numbers and remedies. An accepted one
/// fits the board, and its printed form parses to the same value.
pub fn config(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let read = |path: &Path| {
        if path.as_os_str().len().is_multiple_of(2) {
            Ok(SECRET.into())
        } else {
            Err(std::io::ErrorKind::NotFound.into())
        }
    };
    let check_pair = |_: &Path, key: &Path| {
        let is_note = key.as_os_str().len().is_multiple_of(2);
        let report = Report {
            notes: vec!["slow".to_owned()],
            names: vec!["a.example".to_owned()],
            about: "a.example; P-256".to_owned(),
        };
        if is_note { Ok(report) } else { Err(("is wrong".to_owned(), "write it right".to_owned())) }
    };
    let around = Surroundings { read_secret: &read, check_pair: &check_pair, ..Surroundings::without_files("box") };
    let parsed = Config::parse(text, &HOST, &around);
    let lines = u32::try_from(text.split('\n').count()).unwrap_or(u32::MAX);
    match &parsed {
        Ok(config) => {
            assert!(!config.uplink.addresses.is_empty() && !config.pages.listen.is_empty());
            assert!(board::memory_sum(&config.board).total() <= board::memory_sum(&HOST).total(), "limits were raised");
            for limit in &LIMITS {
                assert!((limit.of)(&config.board) <= (limit.of)(&HOST), "{} was raised", limit.key);
            }
            assert!(board::rules(&config.board).iter().all(|rule| rule.holds), "limits that don't fit together");
            assert!(config.notes().iter().all(|note| !note.is_empty() && !note.contains(['\n', '\r'])));
            let printed = config.to_string();
            assert!(text.contains(SECRET) || !printed.contains(SECRET), "the secret is printed");
            assert!(!printed.contains('\r'), "{printed:?}");
            // The secret is not printed: insert another one.
            let (mut config, mut printed) = (config.clone(), printed);
            if !config.uplink.secret.is_empty() {
                printed = printed.replacen("# secret: ", "secret_file = \"even\" #", 1);
                config.uplink.secret = Secret::new(SECRET.into());
            }
            let again = Config::parse(&printed, &HOST, &around).map_err(|told| format!("{told:?}"));
            assert_eq!(again, Ok(config), "read back from {printed}");
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(problem.line <= lines, "line {} of {lines}: {problem:?}", problem.line);
                assert!(!problem.what.is_empty() && !problem.remedy.is_empty(), "{problem:?}");
                assert!(
                    !problem.what.contains(char::is_control) && !problem.remedy.contains(char::is_control),
                    "one line each: {problem:?}"
                );
                let message = format!("{} {}", problem.what, problem.remedy);
                assert!(
                    text.contains(SECRET) || !message.contains(SECRET),
                    "the message contains the secret: {message}"
                );
            }
        }
    }
    assert_eq!(parsed.is_ok(), Config::parse(text, &HOST, &around).is_ok());
}

/// Whether bytes are JSON: as serde_json decides, except as documented in `wire/json.rs`. The
/// content must be what serde_json reads.
pub fn json(data: &[u8]) {
    let ours = json::is_value(data);
    if let (Some(ours), Ok(theirs)) = (json::Value::read(data), serde_json::from_slice(data)) {
        compare(ours, &theirs);
    }
    let theirs = serde_json::from_slice::<serde_json::Value>(data);
    match theirs {
        Ok(_) => assert!(ours, "serde_json accepts it"),
        Err(error) => assert!(!ours || is_readers_own(&error), "serde_json says {error}"),
    }
}

fn compare(ours: json::Value<'_>, theirs: &serde_json::Value) {
    match theirs {
        serde_json::Value::Object(members) => {
            // For a repeated name, serde_json too keeps the last value.
            for (name, theirs) in members {
                let [ours] = ours.last([name]);
                compare(ours.expect("a member that serde_json has"), theirs);
            }
            let names = ours.members().expect("an object").map(|(name, _)| name.resolved());
            assert!(names.into_iter().all(|name| members.contains_key(&*name)));
        }
        serde_json::Value::Array(items) => {
            let ours: Vec<_> = ours.items().expect("an array").collect();
            assert_eq!(ours.len(), items.len());
            ours.iter().zip(items).for_each(|(ours, theirs)| compare(*ours, theirs));
        }
        serde_json::Value::String(text) => {
            let ours = ours.text().expect("a string");
            assert!(ours.resolved() == **text && ours.is(text));
        }
        serde_json::Value::Number(number) => {
            let whole = ours.whole_number();
            assert!(whole.is_none_or(|whole| is_number(theirs, whole)), "{number}");
            assert!(number.as_u64().is_none_or(|number| whole == Some(number)), "{number}");
        }
        _ => assert!(ours.text().is_none() && ours.members().is_none() && ours.whole_number().is_none()),
    }
}

/// Only the grammar matters here: a lone surrogate in an escape, or a number beyond f64, is the
/// reader's concern.
fn is_readers_own(error: &serde_json::Error) -> bool {
    let text = error.to_string();
    ["surrogate", "recursion", "out of range", "hex escape", "unicode code point"]
        .iter()
        .any(|known| text.contains(known))
}

/// An encoder's stream: the same init segment, the same groups and the same end however it is cut,
/// and of MP4 the same chunks; nothing is invented and nothing grows; its codecs are words that a
/// page can ask for.
pub fn media(data: &[u8]) {
    let (pieces, end) = split(data, &[usize::MAX]);
    let cuts: Vec<usize> = data.iter().rev().take(16).map(|byte| usize::from(*byte % 61) + 1).collect();
    for sizes in [&cuts[..], &[1]] {
        let (cut, its_end) = split(data, sizes);
        assert_eq!(its_end, end, "cut at {sizes:?}");
        match pieces.first().map(|piece| piece.bytes().starts_with(&media::webm::MAGIC)) {
            // What comes at once is one chunk.
            Some(true) => assert_eq!(groups(&cut), groups(&pieces), "cut at {sizes:?}"),
            _ => assert_eq!(cut, pieces, "cut at {sizes:?}"),
        }
    }
    for (index, piece) in pieces.iter().enumerate() {
        let bytes = piece.bytes();
        assert!(!bytes.is_empty() && bytes.len() <= 2 * media::HELD_SIZE_MAX);
        match piece {
            media::Piece::Init(init) => {
                if let Ok(mime) = media::codecs::mime(init) {
                    assert!(mime.len() < 512 && mime.starts_with(['v', 'a']) && mime.ends_with('"'), "{mime}");
                    let is_plain = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
                    assert!(mime.bytes().all(is_plain) && mime.matches('"').count() == 2, "{mime}");
                }
            }
            media::Piece::Start(chunk) | media::Piece::Continue(chunk) => {
                assert!(index > 0, "no init segment");
                let _ = media::mp4::is_reordered(chunk);
            }
        }
    }
    // The parsers of parts take anything.
    let _ = (media::codecs::mime(data), media::mp4::is_reordered(data));
}

/// The init segments of a stream, and how many groups each has.
fn groups(pieces: &[media::Piece]) -> Vec<(&[u8], usize)> {
    let mut groups = Vec::new();
    for piece in pieces {
        match piece {
            media::Piece::Init(init) => groups.push((&init[..], 0)),
            media::Piece::Start(_) => groups.last_mut().expect("an init segment").1 += 1,
            media::Piece::Continue(_) => {}
        }
    }
    groups
}

/// The pieces of a stream, and its error, when it is read in pieces of these sizes in turn.
fn split(data: &[u8], sizes: &[usize]) -> (Vec<media::Piece>, Option<String>) {
    let (mut splitter, mut pieces, mut rest) = (media::Splitter::default(), Vec::new(), data);
    for size in sizes.iter().cycle() {
        let (part, behind) = rest.split_at((*size).min(rest.len()));
        if let Err(error) = splitter.push(part, &mut pieces) {
            return (pieces, Some(error.to_string()));
        }
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    (pieces, None)
}
