//! The targets of `crates/tls`: records of a stranger, our own records and what becomes of them on
//! the way, and certificates.

use std::collections::BTreeSet;

use ring::aead::{AES_128_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use tls::alert::Alert;
use tls::certificate::{Certificate, NAME_SIZE_MAX, Name};
use tls::keys::Keys;
use tls::names::choose;
use tls::record::{Content, open, plain_size, seal, size, tag};
use tls::suite::{Aead, PLAIN_SIZE_MAX, RECORD_SIZE_MAX, Suite, TAG_SIZE, Version};

const KEY: [u8; 32] = [0x42; 32];
const IV: [u8; 12] = [0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xAB];

fn keys(suite: Suite, sequence: u64) -> Keys {
    Keys::new(suite, &KEY[..suite.key_size()], IV, sequence, [0; 32]).expect("a key of the right length")
}

/// The first byte chooses suite and kind, the rest is the kind's.
pub fn tls_open(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let version = if choice & 1 == 0 { Version::Tls13 } else { Version::Tls12 };
    let aead = if choice & 2 == 0 { Aead::Aes128Gcm } else { Aead::ChaCha20Poly1305 };
    let suite = Suite { version, aead };
    match (choice >> 2) % 3 {
        0 => strangers(suite, data),
        1 => mutated(suite, data),
        _ => forged(suite, data),
    }
}

/// Any bytes as a stream of records: no panic, no endless loop, an error that is one of the RFC's.
fn strangers(suite: Suite, data: &[u8]) {
    let mut keys = keys(suite, 0);
    let mut rest = data.to_vec();
    loop {
        let whole = match size(&rest) {
            Ok(Some(size)) => size,
            Ok(None) => return assert!(rest.len() < 5),
            Err(error) => return check_error(error),
        };
        assert!((5..=RECORD_SIZE_MAX).contains(&whole));
        if rest.len() < whole {
            let half = open(suite, &mut keys, &mut rest);
            return assert_eq!(half, Err(Alert::InternalError), "half a record");
        }
        let mut record = rest.drain(..whole).collect::<Vec<u8>>();
        let before = keys.sequence();
        match open(suite, &mut keys, &mut record) {
            Ok((content, range)) => {
                assert!(content != Content::ChangeCipherSpec && keys.sequence() == before + 1);
                assert!(range.start == suite.prefix_size() && range.end + TAG_SIZE <= whole);
            }
            Err(error) => {
                assert_eq!(keys.sequence(), before);
                return check_error(error);
            }
        }
    }
}

fn check_error(error: Alert) {
    assert!(error != Alert::CloseNotify && error.encode() == [2, error.code()] && !error.to_string().is_empty());
}

/// A record of ours, with the bytes that the input gives, opens to them; made again it is the same;
/// with any other bytes it doesn't open.
fn mutated(suite: Suite, data: &[u8]) {
    let Some((head, data)) = data.split_first_chunk::<12>() else { return };
    let [number @ .., content, ahead, cut, changes] = *head;
    let sequence = u64::from_be_bytes(number);
    let content = [Content::ApplicationData, Content::Handshake, Content::Alert, Content::ChangeCipherSpec]
        [usize::from(content % 4)];
    let (changed, plain) = data.split_at(data.len().min(3 * usize::from(changes % 8)));
    let writing = keys(suite, sequence);
    let mut out = vec![0xEE; plain.len() + 64];
    let parts: Vec<&[u8]> = plain.chunks(1 + usize::from(cut)).collect();
    let made = seal(suite, &writing, ahead.into(), content, &parts, &mut out);
    let may_be = sequence.checked_add(ahead.into()).is_some_and(|sequence| sequence < u64::MAX)
        && plain.len() <= PLAIN_SIZE_MAX
        && content != Content::ChangeCipherSpec
        && (content == Content::ApplicationData || !plain.is_empty());
    let Some(made) = made else { return assert!(!may_be && out.iter().all(|byte| *byte == 0xEE)) };
    assert!(may_be && writing.sequence() == sequence);
    assert!(out[made..].iter().all(|byte| *byte == 0xEE), "nothing behind the record");
    let record = &out[..made];
    assert_eq!((size(record), plain_size(suite, made)), (Ok(Some(made)), plain.len()));
    assert_eq!(tag(record), record[made - TAG_SIZE..]);

    let mut again = vec![0; made];
    let reading = || keys(suite, sequence + u64::from(ahead));
    assert_eq!(seal(suite, &reading(), 0, content, &[plain], &mut again), Some(made));
    assert!(again == record, "the same record, whatever its parts");
    assert_eq!(seal(suite, &reading(), 0, content, &[plain], &mut again[..made - 1]), None);

    let mut opened = record.to_vec();
    let mut keys = reading();
    let (found, range) = open(suite, &mut keys, &mut opened).expect("a good record");
    assert!(found == content && &opened[range] == plain && keys.sequence() == sequence + u64::from(ahead) + 1);

    let mut other = record.to_vec();
    for change in changed.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % made;
        other[at] ^= change[2];
    }
    if other != record {
        let mut keys = reading();
        let answer = open(suite, &mut keys, &mut other);
        assert!(answer.is_err() && keys.sequence() == sequence + u64::from(ahead), "{answer:?}");
    }
}

/// A peer that has the key and puts anything inside: the content is what is before the padding.
fn forged(suite: Suite, data: &[u8]) {
    let Some((&outer, data)) = data.split_first() else { return };
    // The last two bytes say how much padding follows.
    let Some((inner, &zeros)) = data.split_last_chunk::<2>() else { return };
    let inner = [inner, &vec![0; usize::from(u16::from_be_bytes(zeros)) % 17_000]].concat();
    let explicit = &IV[12 - (suite.prefix_size() - 5)..];
    let Ok(length) = u16::try_from(explicit.len() + inner.len() + TAG_SIZE) else { return };
    let Ok(inner_length) = u16::try_from(inner.len()) else { return };
    let header = [outer, 3, 3, length.to_be_bytes()[0], length.to_be_bytes()[1]];
    let aad = match suite.version {
        Version::Tls13 => header.to_vec(),
        Version::Tls12 => [&[0; 8], &header[..3], &inner_length.to_be_bytes()].concat(),
    };
    let algorithm = if suite.aead == Aead::Aes128Gcm { &AES_128_GCM } else { &CHACHA20_POLY1305 };
    let key = LessSafeKey::new(UnboundKey::new(algorithm, &KEY[..suite.key_size()]).expect("a key"));
    let mut body = inner.clone();
    let nonce = Nonce::assume_unique_for_key(IV);
    let made = key.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut body).expect("not too long");
    let mut record = [&header[..], explicit, &body, made.as_ref()].concat();

    let whole = size(&record);
    let answer = open(suite, &mut keys(suite, 0), &mut record);
    let (content, plain) = match suite.version {
        Version::Tls12 => (outer, &inner[..]),
        Version::Tls13 => match inner.iter().rposition(|byte| *byte != 0) {
            Some(last) if outer == 23 => (inner[last], &inner[..last]),
            _ => (0, &inner[..0]),
        },
    };
    let inner_max = PLAIN_SIZE_MAX + usize::from(suite.version == Version::Tls13);
    let is_good = inner.len() <= inner_max && (content == 23 || matches!(content, 21 | 22) && !plain.is_empty());
    match answer {
        Ok((found, range)) => {
            assert!(is_good && found.byte() == content && &record[range] == plain);
            assert_eq!(whole, Ok(Some(record.len())));
        }
        Err(error) => {
            assert!(!is_good && error != Alert::BadRecordMac, "{error}");
            check_error(error);
        }
    }
}

/// Any bytes as a certificate: refused, or read within its bounds; the same key that rustls finds.
pub fn certificate(data: &[u8]) {
    let certificate = match Certificate::parse(data) {
        Ok(certificate) => certificate,
        Err(malformed) => return assert!(malformed.to_string().starts_with("not an X.509 certificate: ")),
    };
    assert_eq!(Certificate::parse(data), Ok(certificate));
    // The years 0 and 9999.
    let years = -62_167_219_200..=253_402_300_799;
    assert!(years.contains(&certificate.not_before) && years.contains(&certificate.not_after));
    assert!(data.as_ptr_range().contains(&certificate.public_key.as_ptr()) && certificate.public_key[0] == 0x30);
    for name in certificate.names() {
        if let Name::Dns(name) = name {
            assert!((1..=NAME_SIZE_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
    let names: Vec<&str> = certificate.dns_names().collect();
    assert!(certificate.names().count() * 3 <= data.len());
    for name in names.iter().filter(|name| **name != "." && !name.eq_ignore_ascii_case("other.example")) {
        assert_eq!(
            choose([&["other.example"][..], &names].into_iter().map(|names| names.iter().copied()), name),
            1,
            "{name}"
        );
        let below = format!("a.{}", name.trim_start_matches("*."));
        let distinct: BTreeSet<usize> =
            (0..3).map(|_| choose(std::iter::once(names.iter().copied()), &below)).collect();
        assert_eq!(distinct, BTreeSet::from([0]));
    }
    // A part of it, or more, is none.
    for end in (0..data.len()).step_by(1 + data.len() / 64) {
        assert!(Certificate::parse(&data[..end]).is_err(), "cut at {end}");
    }
    assert!(Certificate::parse(&[data, &[0]].concat()).is_err());
    if let Ok(theirs) = ParsedCertificate::try_from(&CertificateDer::from(data)) {
        assert_eq!(certificate.public_key, theirs.subject_public_key_info().as_ref());
    }
}
