//! The frozen vectors of both protocols against this implementation: decoded, rendered, encoded
//! again.
//!
//! A second implementation made the files (`tests/vectors/*/make.py`). If one of these tests fails,
//! do not change the files.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;

use wire::page::{Encoded, Notice};
use wire::uplink::{
    Deframer, Fault, Incoming, LENGTH_SIZE, Part, ToBusiness, ToRelay, author, business_proof, decode_any_to_business,
    decode_to_business, encode, relay_proof,
};
use wire::{DATA_SIZE_MAX, MIME_SIZE_MAX, Track};

type Case = HashMap<String, String>;

fn cases(file: &str) -> Vec<Case> {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let blocks = text.split("\n\n").map(|block| {
        let lines = block.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let pair = |line: &str| {
            let (key, value) = line.split_once(':').unwrap_or_else(|| panic!("{path}: no key in {line:?}"));
            (key.to_owned(), value.trim_start_matches(' ').to_owned())
        };
        lines.map(pair).collect::<Case>()
    });
    let cases: Vec<_> = blocks.filter(|case| !case.is_empty()).collect();
    assert!(cases.len() >= 6, "{path} has only {} cases", cases.len());
    cases
}

/// Tokens: hex digits, or one byte and a count.
fn bytes(tokens: &str) -> Vec<u8> {
    let hex = |digits: &str| -> Vec<u8> {
        digits
            .as_bytes()
            .chunks(2)
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
            .collect()
    };
    let token = |token: &str| match token.split_once('*') {
        Some((byte, count)) => hex(byte).repeat(count.parse().unwrap()),
        None => hex(token),
    };
    tokens.split_ascii_whitespace().flat_map(token).collect()
}

fn array<const N: usize>(tokens: &str) -> [u8; N] {
    bytes(tokens).try_into().unwrap()
}

fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn text(value: &str) -> String {
    if value.len() > 64 {
        return format!("#{}:{:016x}", value.len(), hash(value.as_bytes()));
    }
    let mut out = String::from("\"");
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => write!(out, "\\x{byte:02x}").unwrap(),
            0x20..=0x7e => out.push(byte.into()),
            _ => write!(out, "\\x{byte:02x}").unwrap(),
        }
    }
    out + "\""
}

fn data(value: &[u8]) -> String {
    if value.len() > 64 {
        return format!("#{}:{:016x}", value.len(), hash(value));
    }
    value.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn render_to_business(frame: &ToBusiness<'_>) -> String {
    match frame {
        ToBusiness::Hello { version, relay, nonce, proof } => {
            format!("Hello version={version} relay={} nonce={} proof={}", text(relay), data(nonce), data(proof))
        }
        ToBusiness::Subscribe { request, link, since, page } => {
            let since = since.map_or("none".to_owned(), |since| {
                let [state, messages, audio, video] = since.next;
                format!("{}/{state},{messages},{audio},{video}", since.epoch)
            });
            let (address, origin) = (text(page.address), text(page.origin));
            format!("Subscribe request={request} link={} since={since} address={address} origin={origin}", text(link))
        }
        ToBusiness::Unsubscribe { topic } => format!("Unsubscribe topic={topic}"),
        ToBusiness::Audience { topic, pages } => format!("Audience topic={topic} pages={pages}"),
        ToBusiness::PageMessage { topic, page, data } => {
            format!("PageMessage topic={topic} page={page} data={}", text(data))
        }
        ToBusiness::Send { topic, page, id, data: text_of } => {
            format!("Send topic={topic} page={page} id={} data={}", data(id), text(text_of))
        }
        ToBusiness::Ping { nonce } => format!("Ping nonce={nonce}"),
        ToBusiness::Pong { nonce } => format!("Pong nonce={nonce}"),
        ToBusiness::Features { words } => format!("Features words={}", text(words)),
    }
}

fn render_to_relay(frame: &ToRelay<'_>) -> String {
    match frame {
        ToRelay::Challenge { version, nonce } => format!("Challenge version={version} nonce={}", data(nonce)),
        ToRelay::Welcome { version, proof } => format!("Welcome version={version} proof={}", data(proof)),
        ToRelay::Accept { request, topic, epoch, grant } => format!(
            "Accept request={request} topic={topic} epoch={epoch} shared={} ttl_s={} page_messages={} replay={}",
            grant.shared, grant.ttl_s, grant.page_messages, grant.replay
        ),
        ToRelay::Deny { request, reason } => format!("Deny request={request} reason={}", text(reason)),
        ToRelay::Publish { topic, track, sequence, part, data: bytes } => {
            let part = match part {
                Part::Whole => "whole".to_owned(),
                Part::Init { mime } => format!("init mime={}", text(mime)),
                Part::Start => "start".to_owned(),
                Part::Continue => "continue".to_owned(),
            };
            let (track, bytes) = (track.name(), data(bytes));
            let bytes = if bytes.is_empty() { bytes } else { bytes.clone() };
            format!("Publish topic={topic} track={track} sequence={sequence} part={part} data={bytes}")
        }
        ToRelay::Revoke { link, reason } => format!("Revoke link={} reason={}", text(link), text(reason)),
        ToRelay::End { topic, reason } => format!("End topic={topic} reason={}", text(reason)),
        ToRelay::Ping { nonce } => format!("Ping nonce={nonce}"),
        ToRelay::Pong { nonce } => format!("Pong nonce={nonce}"),
        ToRelay::Kick { page, reason } => format!("Kick page={page} reason={}", text(reason)),
        ToRelay::Features { words } => format!("Features words={}", text(words)),
        ToRelay::Away { within_s } => format!("Away within_s={within_s}"),
        ToRelay::Sent { page, id } => format!("Sent page={page} id={}", data(id)),
    }
}

/// Decodes the single frame in the bytes, in one read or byte by byte: its text and its encoding,
/// or its fault.
fn read_to_relay(frame: &[u8], step: usize, is_extended: bool) -> Result<(String, Vec<u8>), Fault> {
    let deframer = Deframer::new(DATA_SIZE_MAX);
    let mut deframer = if is_extended { deframer.with_extensions() } else { deframer };
    for piece in frame.chunks(step) {
        deframer.space()[..piece.len()].copy_from_slice(piece);
        deframer.filled(piece.len());
        match deframer.next_frame().map_err(|error| error.fault)? {
            Some(Incoming::Frame(frame)) => {
                let mut out = vec![0; DATA_SIZE_MAX + 1024];
                let size = encode(&frame, &mut out).unwrap();
                return Ok((render_to_relay(&frame), out[..size].to_vec()));
            }
            Some(Incoming::Oversize(oversize)) => return Ok((format!("oversize {}", oversize.size), Vec::new())),
            None => {}
        }
    }
    panic!("the frame never became whole");
}

fn read_to_business(frame: &[u8], is_extended: bool) -> Result<(String, Vec<u8>), Fault> {
    let mut deframer = Deframer::new(DATA_SIZE_MAX);
    for piece in frame.chunks(1000) {
        deframer.space()[..piece.len()].copy_from_slice(piece);
        deframer.filled(piece.len());
        if let Some(body) = deframer.next_body().map_err(|error| error.fault)? {
            let decode = if is_extended { decode_any_to_business } else { decode_to_business };
            let frame = decode(body).map_err(|(_, fault)| fault)?;
            let mut out = vec![0; 4096];
            let size = encode(&frame, &mut out).unwrap();
            return Ok((render_to_business(&frame), out[..size].to_vec()));
        }
    }
    panic!("the frame never became whole");
}

fn class(fault: &Fault) -> &'static str {
    use postcard::Error::{
        DeserializeBadBool, DeserializeBadOption, DeserializeBadUtf8, DeserializeBadVarint, DeserializeUnexpectedEnd,
    };
    match fault {
        Fault::Length(_) => "length",
        Fault::Postcard(DeserializeUnexpectedEnd) => "truncated",
        Fault::Postcard(DeserializeBadUtf8) => "utf8",
        Fault::Postcard(DeserializeBadVarint) => "varint",
        Fault::Postcard(DeserializeBadBool) => "bool",
        Fault::Postcard(DeserializeBadOption) => "option",
        Fault::Postcard(_) => "variant",
        Fault::LeftOver(_) => "leftover",
        Fault::TooLong { .. } | Fault::TooLarge(_) => "limit",
        Fault::PartOfOtherTrack(_) => "part",
        Fault::Sequence(_) => "sequence",
    }
}

/// The directories, and whether their frames are of extensions.
const UPLINK: [(&str, bool); 2] = [("uplink-v1", false), ("uplink-v1-extensions", true)];

#[test]
fn every_frame_of_the_uplink_decodes_and_encodes_to_the_same_bytes() {
    for (directory, is_extended) in UPLINK {
        for file in ["to-relay.txt", "to-business.txt"] {
            for case in cases(&format!("{directory}/{file}")) {
                let name = format!("{directory}: {file}: {}", case["name"]);
                let frame = bytes(&case["hex"]);
                let read = |step, is_extended| match file {
                    "to-relay.txt" => read_to_relay(&frame, step, is_extended),
                    _ => read_to_business(&frame, is_extended),
                };
                let steps = if frame.len() < 2000 { &[60_000, 1][..] } else { &[60_000] };
                for step in steps {
                    let (value, encoded) = read(*step, is_extended).unwrap_or_else(|fault| panic!("{name}: {fault:?}"));
                    assert_eq!(value, case["is"], "{name}");
                    if !case.contains_key("only") {
                        assert!(encoded == frame, "{name} is written differently");
                    }
                }
                match read(60_000, !is_extended) {
                    // Who knows extensions reads version 1 as before.
                    Ok((value, _)) => assert!(!is_extended && value == case["is"], "{name}"),
                    Err(fault) => assert!(is_extended && class(&fault) == "variant", "{name}: {fault:?}"),
                }
            }
        }
    }
}

#[test]
fn every_wrong_frame_of_the_uplink_is_refused_for_what_is_wrong_with_it() {
    for (directory, is_extended) in UPLINK {
        for file in ["to-relay-invalid.txt", "to-business-invalid.txt"] {
            for case in cases(&format!("{directory}/{file}")) {
                let name = format!("{directory}: {file}: {}", case["name"]);
                let frame = bytes(&case["hex"]);
                let reading = match file {
                    "to-relay-invalid.txt" => read_to_relay(&frame, 60_000, is_extended),
                    _ => read_to_business(&frame, is_extended),
                };
                match (case.get("error"), reading) {
                    (Some(classes), Err(fault)) => {
                        let is_named = classes.split('|').any(|expected| expected.trim() == class(&fault));
                        assert!(is_named, "{name}: {fault:?} is not {classes}");
                    }
                    // A publication beyond a limit is the machine's to drop: here it is decoded, or
                    // reported as oversize.
                    (None, Ok((value, _))) => {
                        assert!(value.starts_with("Publish") || value.starts_with("oversize"), "{name}: {value}");
                    }
                    (_, reading) => panic!("{name}: {reading:?}"),
                }
            }
        }
    }
}

#[test]
fn proofs_are_those_of_the_vectors() {
    for case in cases("uplink-v1/handshake.txt") {
        let (secret, name) = (bytes(&case["secret"]), &case["name"]);
        let (challenge, hello) = (array(&case["challenge_nonce"]), array(&case["hello_nonce"]));
        assert_eq!(relay_proof(&secret, &challenge, &hello), array(&case["hello_proof"]), "{name}");
        assert_eq!(business_proof(&secret, &hello, &challenge), array(&case["welcome_proof"]), "{name}");
    }
}

#[test]
fn pages_are_the_authors_of_the_vectors() {
    for case in cases("uplink-v1-extensions/authors.txt") {
        let (challenge, hello) = (array(&case["challenge_nonce"]), array(&case["hello_nonce"]));
        let page = case["page"].parse().unwrap();
        assert_eq!(author(&challenge, &hello, page), array(&case["author"]), "{}", case["name"]);
    }
}

#[test]
fn every_media_frame_is_the_one_of_the_vectors() {
    for case in cases("page-v1/media.txt") {
        let (data, mime) = (bytes(&case["data"]), case.get("mime").map(|mime| String::from_utf8(bytes(mime)).unwrap()));
        let track = if case["track"] == "audio" { Track::Audio } else { Track::Video };
        let part = match (&case["part"][..], &mime) {
            ("init", Some(mime)) if mime.len() <= MIME_SIZE_MAX => Part::Init { mime },
            ("start", None) => Part::Start,
            ("continue", None) => Part::Continue,
            other => panic!("{other:?}"),
        };
        let (topic, sequence) = (case["topic"].parse().unwrap(), case["sequence"].parse().unwrap());
        let frame = Encoded::publication(topic, track, sequence, part, &data);
        assert!([&frame.prefix, frame.data, frame.suffix].concat() == bytes(&case["frame"]), "{}", case["name"]);
    }
}

#[test]
fn every_text_frame_is_the_one_of_the_vectors() {
    for case in cases("page-v1/text.txt") {
        let number =
            |key: &str| case[key].parse::<u64>().unwrap_or_else(|error| panic!("{}: {key}: {error}", case["name"]));
        let short = |key: &str| u32::try_from(number(key)).unwrap();
        let reason = case.get("reason").map(|reason| String::from_utf8(bytes(reason)).unwrap()).unwrap_or_default();
        let reason = &reason[..];
        let notice = match &case["type"][..] {
            kind @ ("state" | "message") => {
                let track = if kind == "state" { Track::State } else { Track::Messages };
                let data = bytes(&case["data"]);
                let frame = Encoded::publication(short("topic"), track, number("sequence"), Part::Whole, &data);
                assert!(
                    [&frame.prefix, frame.data, frame.suffix].concat() == bytes(&case["frame"]),
                    "{}",
                    case["name"]
                );
                continue;
            }
            "subscribed" => Notice::Subscribed {
                id: short("id"),
                topic: short("topic"),
                epoch: number("epoch"),
                page_messages: case["page_messages"] == "true",
                standing: None,
            },
            "denied" => {
                let retry_ms = case.get("retry").map(|retry| (retry.parse::<f64>().unwrap() * 1000.0).round());
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a test vector")]
                let retry_ms = retry_ms.map(|ms| ms as u32);
                Notice::Denied { id: short("id"), reason, retry_ms }
            }
            "gap" => {
                let track = Track::ALL.into_iter().find(|track| track.name() == case["track"]).unwrap();
                Notice::Gap { topic: short("topic"), track, from: number("from"), to: number("to") }
            }
            "epoch" => Notice::Epoch { topic: short("topic"), epoch: number("epoch") },
            "end" => Notice::End { topic: short("topic"), reason },
            "uplink" => Notice::Uplink { up: case["up"] == "true", standing: None },
            "alive" => Notice::Alive,
            "error" => Notice::Error { reason, id: None },
            other => panic!("{other}"),
        };
        let frame = notice.encode();
        let expected = bytes(&case["frame"]);
        assert!(frame == expected[..], "{}: {}", case["name"], String::from_utf8_lossy(&frame));
    }
}

#[test]
fn a_frame_announces_its_length_first() {
    let mut out = [0; 16];
    let size = encode(&ToBusiness::Ping { nonce: 5 }, &mut out).unwrap();
    assert_eq!(out[..size], [2, 0, 0, 0, 5, 5]);
    assert_eq!(size, LENGTH_SIZE + 2);
}
