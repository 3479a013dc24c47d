//! What the fuzzer does with the answers of name servers: any bytes behind our question, and
//! answers that are written here, whose meaning a naive model knows.
//!
//! Owns the model: aliases followed by name, addresses in their order. Knows only what a message
//! means (RFC 1035), not how the product reads one.

use std::net::IpAddr;

use sharelinkd::daemon::resolve::query::{ADDRESSES_MAX, Answer, Family, Question};

const ID: u16 = 0x1234;
const NAME: &str = "b.example";
/// The names of written answers: the one that is asked for, and more than aliases are followed.
const NAMES: u8 = 12;
/// Aliases that are followed, as the product's message says.
const ALIASES_MAX: usize = 8;
const IN: u16 = 1;

/// The first byte chooses the family, and whether the rest is a whole message, what follows a
/// header and our question, or records in three bytes each.
pub fn dns(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let family = if kind & 1 == 0 { Family::V4 } else { Family::V6 };
    let question = Question::new(NAME, family, ID).expect("a name");
    let query = question.encode().expect("a question");
    assert_eq!(question.parse(&query), None, "a question is no answer");
    match kind >> 1 & 3 {
        0 => any(&question, family, data),
        1 => {
            let Some((flags, rest)) = data.split_first_chunk::<4>() else { return };
            // The flags and the count of answers.
            let head = [&query[..2], &flags[..2], &[0, 1], &flags[2..], &[0; 4], &query[12..], rest].concat();
            any(&question, family, &head);
        }
        _ => written(&question, &query, family, data),
    }
}

fn any(question: &Question, family: Family, message: &[u8]) {
    let answer = question.parse(message);
    assert_eq!(question.parse(message), answer);
    let whole = question.parse_whole(message);
    assert_ne!(whole, Some(Answer::Truncated), "by TCP nothing is truncated");
    if answer != Some(Answer::Truncated) {
        assert_eq!(whole, answer);
    }
    if let Some(Answer::Addresses(found)) = &whole {
        assert!((1..=ADDRESSES_MAX).contains(&found.len()), "{found:?}");
        for ip in found {
            let octets = match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            assert_eq!(ip.is_ipv4(), family == Family::V4);
            assert!(!ip.is_unspecified() && !ip.is_multicast(), "{ip} can't be dialled");
            assert!(message.windows(octets.len()).any(|part| part == octets), "{ip} is not in the message");
        }
    }
    if whole.is_some() {
        // Of another question, and as a question, it is nothing.
        for (byte, bit) in [(0, 1), (1, 0x80), (2, 0x80), (2, 8)] {
            let mut other = message.to_vec();
            other[byte] ^= bit;
            assert_eq!(question.parse_whole(&other), None);
        }
    }
}

#[derive(Clone, Copy)]
enum Data {
    Alias(u8),
    Address(IpAddr),
    Other,
}

fn written(question: &Question, query: &[u8], family: Family, data: &[u8]) {
    let mut records = Vec::new();
    let mut message = [&query[..2], &[0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0], &query[12..]].concat();
    for record in data.chunks_exact(3).take(200) {
        let [owner, kind, value] = [record[0] % NAMES, record[1], record[2]];
        let class = if kind & 0x80 == 0 { IN } else { 3 };
        let (number, data) = match kind & 3 {
            0 => (5, Data::Alias(value % NAMES)),
            1 => (1, Data::Address(IpAddr::from([if value == 255 { 224 } else { 10 }, 0, 0, value]))),
            2 => (
                28,
                Data::Address(IpAddr::from([
                    if value == 255 { 0xff02 } else { 0xfd00 },
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    u16::from(value),
                ])),
            ),
            _ => (16, Data::Other),
        };
        // The name that is asked for also as a pointer to the question, and in capitals.
        if owner == 0 && kind & 0x40 > 0 {
            message.extend([0xc0, 12])
        } else {
            message.extend(labels(owner, kind & 0x20 > 0))
        }
        message.extend([number, class].map(u16::to_be_bytes).concat());
        message.extend([0, 0, 0, 60]);
        let bytes = match data {
            Data::Alias(target) => labels(target, false),
            Data::Address(IpAddr::V4(ip)) => ip.octets().to_vec(),
            Data::Address(IpAddr::V6(ip)) => ip.octets().to_vec(),
            Data::Other => vec![value],
        };
        message.extend(u16::try_from(bytes.len()).expect("short").to_be_bytes());
        message.extend(bytes);
        if class == IN {
            records.push((owner, data));
        }
    }
    let count = u16::try_from(data.chunks_exact(3).take(200).count()).expect("at most 200");
    message[6..8].copy_from_slice(&count.to_be_bytes());
    assert_eq!(question.parse(&message), Some(meaning(&records, family)));
    any(question, family, &message);
}

/// Where the aliases lead.
fn meaning(records: &[(u8, Data)], family: Family) -> Answer {
    let mut owner = 0;
    for _ in 0..=ALIASES_MAX {
        let own = || records.iter().filter(|record| record.0 == owner).map(|record| record.1);
        let can_be_dialled = |ip: &IpAddr| ip.is_ipv4() == (family == Family::V4) && !ip.is_multicast();
        let addresses = own().filter_map(|data| if let Data::Address(ip) = data { Some(ip) } else { None });
        let found: Vec<_> = addresses.filter(can_be_dialled).take(ADDRESSES_MAX).collect();
        if !found.is_empty() {
            return Answer::Addresses(found);
        }
        match own().find_map(|data| if let Data::Alias(target) = data { Some(target) } else { None }) {
            Some(target) => owner = target,
            None => return Answer::NoAddress,
        }
    }
    Answer::Aliases
}

/// A name as labels.
fn labels(number: u8, is_upper: bool) -> Vec<u8> {
    let name = if number == 0 { NAME.to_owned() } else { format!("n{number}.example") };
    let name = if is_upper { name.to_ascii_uppercase() } else { name };
    let mut out = Vec::new();
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).expect("a short label"));
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}
