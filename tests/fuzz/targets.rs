//! What each fuzz target does with its bytes, and what must then hold.
//!
//! Plain functions that panic where something is wrong: libFuzzer runs them from `fuzz_targets/`, and the suite replays
//! their corpora with them (`tests/suite/fuzzing.rs`), without libFuzzer.
#![allow(dead_code, reason = "each fuzz target uses one of them")]

#[path = "machine.rs"]
mod machine;

use std::net::IpAddr;
use std::path::Path;

use sharelinkd::board::{self, HOST, TINY};
use sharelinkd::config::{Config, Surroundings};
use sharelinkd::daemon::head::{self, Asked};
use sharelinkd::wire::page::{Notice, Request, decode_request};
use sharelinkd::wire::uplink::{Deframer, FrameError, Incoming, decode_to_business, decode_to_relay, encode};
use sharelinkd::wire::{is_link, json};

pub use machine::machine;

/// The uplink's bytes: however they are cut, the same frames and the same error; what is read and written again is the same value.
pub fn uplink(data: &[u8]) {
    let whole = deframed(data, &[usize::MAX]);
    // The first bytes say where to cut, too.
    let cuts: Vec<usize> = data.iter().take(16).map(|byte| usize::from(*byte % 23) + 1).collect();
    assert_eq!(deframed(data, &cuts), whole, "cut at {cuts:?}");
    assert_eq!(deframed(data, &[1]), whole, "a byte at a time");
    let mut out = vec![0; 2 << 20];
    if let Ok(frame) = decode_to_relay(data) {
        let size = encode(&frame, &mut out).expect("what was read can be written");
        assert_eq!(decode_to_relay(&out[4..size]), Ok(frame));
    }
    if let Ok(frame) = decode_to_business(data) {
        let size = encode(&frame, &mut out).expect("what was read can be written");
        assert_eq!(decode_to_business(&out[4..size]), Ok(frame));
    }
}

/// The frames that a stream has, as text, and its error, where it is read in pieces of these sizes, round and round.
fn deframed(data: &[u8], sizes: &[usize]) -> (Vec<String>, Option<FrameError>) {
    let mut deframer = Deframer::new(TINY.data_size_max() as usize);
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

/// What a page says: an answer or a reason, whatever it is. What is understood is what serde_json sees there.
pub fn page_json(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    match decode_request(text) {
        Ok(request) => {
            let value: serde_json::Value = serde_json::from_str(text).expect("what was understood is JSON");
            match request {
                Request::Subscribe { id, link, .. } => {
                    assert_eq!((value["type"].as_str(), value["id"].as_u64()), (Some("subscribe"), Some(id.into())));
                    assert_eq!(value["link"].as_str(), Some(&*link));
                    let _ = is_link(&link);
                }
                Request::Unsubscribe { topic } => assert_eq!(value["topic"].as_u64(), Some(topic.into())),
                Request::Send { topic, data } => {
                    assert_eq!(value["topic"].as_u64(), Some(topic.into()));
                    assert_eq!(value["data"].as_str(), Some(&*data));
                }
            }
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
    // Whatever a reason holds, the frame that tells it is JSON.
    let reason: String = text.chars().take(60).collect();
    let frame = Notice::Denied { id: 1, reason: &reason, retry_ms: Some(1) }.encode();
    let from = if frame[1] == 126 { 4 } else { 2 };
    let told: serde_json::Value = serde_json::from_slice(&frame[from..]).expect("a notice is JSON");
    assert_eq!(told["reason"].as_str(), Some(&*reason));
}

/// A request head: an answer or a page. What was begun as a head stays one, whatever comes behind it.
pub fn http_head(data: &[u8]) {
    let config = Config::parse(
        "[pages]\norigins = [\"https://share.example\"]\ntrusted_proxies = [\"10.0.0.0/8\", \"fd00::/8\"]\n",
        &HOST,
        &Surroundings { read_secret: &|_| Ok(Vec::new()), hostname: "box", runtime_directory: None },
    )
    .expect("a configuration that is good");
    let bytes = &data[..data.len().min(head::HEAD_SIZE_MAX)];
    let found = head::size(bytes);
    for end in 0..bytes.len() {
        match (head::size(&bytes[..end]), &found) {
            (Ok(Some(early)), Ok(Some(size))) => assert_eq!(early, *size, "the head ends where it ends"),
            (Ok(Some(_)), _) => panic!("a head of {end} bytes is none with more behind it"),
            (Err(_), Ok(_)) => panic!("what was refused at {end} bytes is good with more"),
            _ => {}
        }
    }
    let Ok(Some(size)) = found else { return };
    let peer: IpAddr = [10, 0, 0, 1].into();
    match head::read(&bytes[..size], &config.pages, peer) {
        Asked::Refused(answer) => {
            assert!((400..600).contains(&answer.code));
            assert!(answer.head().ends_with(b"\r\n\r\n"));
        }
        Asked::Path { path, .. } => assert!(!path.contains(['?', '#'])),
        Asked::SharePage { link, .. } => assert!(is_link(&link)),
        Asked::Upgrade(upgrade) => {
            let lines: Vec<&str> = upgrade.response.split("\r\n").collect();
            assert!(upgrade.response.starts_with("HTTP/1.1 101 ") && upgrade.response.ends_with("\r\n\r\n"));
            assert!(lines.iter().all(|line| !line.contains(['\r', '\n'])), "a line within a line");
            assert!(lines.len() < 12, "the request's lines are none of the answer's");
        }
    }
}

/// A configuration: taken, or refused with lines that there are and remedies.
pub fn config(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let read = |path: &Path| {
        if path.as_os_str().len().is_multiple_of(2) {
            Ok(b"a secret that is long enough".to_vec())
        } else {
            Err(std::io::ErrorKind::NotFound.into())
        }
    };
    let around = Surroundings { read_secret: &read, hostname: "box", runtime_directory: None };
    let parsed = Config::parse(text, &HOST, &around);
    let lines = u32::try_from(text.split('\n').count()).unwrap_or(u32::MAX);
    match &parsed {
        Ok(config) => {
            assert!(!config.uplink.addresses.is_empty() && !config.pages.listen.is_empty());
            assert!(board::memory_sum(&config.board).total() <= board::memory_sum(&HOST).total(), "limits were raised");
            assert!(config.notes().iter().all(|note| !note.is_empty()));
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(problem.line <= lines, "line {} of {lines}: {problem:?}", problem.line);
                assert!(!problem.what.is_empty() && !problem.remedy.is_empty(), "{problem:?}");
                assert!(!problem.what.contains('\n') && !problem.remedy.contains('\n'), "one line each: {problem:?}");
            }
        }
    }
    assert_eq!(parsed.is_ok(), Config::parse(text, &HOST, &around).is_ok());
}

/// Whether bytes are JSON: as serde_json sees it, but for what is said in `wire/json.rs`.
pub fn json(data: &[u8]) {
    let ours = json::is_value(data);
    let theirs = serde_json::from_slice::<serde_json::Value>(data);
    match theirs {
        Ok(_) => assert!(ours, "serde_json takes it"),
        // Grammar alone counts for us: a lone surrogate in an escape, or a number beyond f64, is a reader's own affair.
        Err(error) => {
            let text = error.to_string();
            let is_readers = ["surrogate", "recursion", "out of range", "hex escape", "unicode code point"];
            assert!(!ours || is_readers.iter().any(|known| text.contains(known)), "serde_json says {text}");
        }
    }
}
