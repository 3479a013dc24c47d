//! Records that must not be opened, and what must not be sealed: every bit flipped, sizes at and
//! over each limit, content out of place, replays. In each case the alert of the RFC.
#![cfg(test)]

use ring::aead::{AES_128_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use tls::alert::Alert;
use tls::keys::Keys;
use tls::record::{Content, open, seal, size, tag};
use tls::suite::{Aead, PLAIN_SIZE_MAX, RECORD_SIZE_MAX, Suite, TAG_SIZE, Version};

use crate::{IV, SUITES, key, keys, opened, sealed, text};

const SECRET_TEXT: &[u8] = b"nobody may see this text";

/// A good record around any inner bytes, which `seal` would not make; sequence 0.
fn forged(suite: Suite, header: [u8; 3], inner: &[u8]) -> Vec<u8> {
    let algorithm = match suite.aead {
        Aead::Aes128Gcm => &AES_128_GCM,
        Aead::ChaCha20Poly1305 => &CHACHA20_POLY1305,
    };
    let sealer = LessSafeKey::new(UnboundKey::new(algorithm, &key(suite)).unwrap());
    let prefix_size = suite.prefix_size();
    let mut record = header.to_vec();
    let length = (prefix_size - 5 + inner.len() + TAG_SIZE) as u16;
    record.extend(length.to_be_bytes());
    record.extend_from_slice(&IV[12 - (prefix_size - 5)..]);
    record.extend_from_slice(inner);
    let aad = match suite.version {
        Version::Tls13 => record[..5].to_vec(),
        Version::Tls12 => [&[0; 8], &header[..], &(inner.len() as u16).to_be_bytes()].concat(),
    };
    let nonce = Nonce::assume_unique_for_key(IV);
    let made = sealer.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut record[prefix_size..]).unwrap();
    record.extend_from_slice(made.as_ref());
    record
}

fn result(suite: Suite, record: &[u8]) -> Result<(Content, Vec<u8>), Alert> {
    let mut keys = keys(suite, 0);
    let mut record = record.to_vec();
    let answer = open(suite, &mut keys, &mut record);
    assert_eq!(keys.sequence(), u64::from(answer.is_ok()), "only a good record counts");
    answer.map(|(content, range)| (content, record[range].to_vec()))
}

#[test]
fn each_flipped_bit_is_refused_without_plaintext() {
    for suite in SUITES {
        let good = sealed(suite, &keys(suite, 7), 0, Content::ApplicationData, SECRET_TEXT);
        for bit in 0..good.len() * 8 {
            let mut record = good.clone();
            record[bit / 8] ^= 1 << (bit % 8);
            // Where the length is another, what a reader would take for the record.
            let Ok(Some(size)) = size(&record) else { continue };
            record.resize(size, 0);
            let mut keys = keys(suite, 7);
            let answer = open(suite, &mut keys, &mut record);
            assert!(answer.is_err(), "{suite:?} bit {bit}");
            assert_eq!(keys.sequence(), 7);
            assert!(!record.windows(4).any(|part| SECRET_TEXT.windows(4).any(|text| text == part)), "bit {bit}");
            if bit / 8 >= 5 {
                assert_eq!(answer, Err(Alert::BadRecordMac), "{suite:?} bit {bit}");
            }
        }
        assert_eq!(opened(suite, &mut keys(suite, 7), &good).1, SECRET_TEXT);
    }
}

#[test]
fn another_key_iv_or_sequence_is_refused() {
    for suite in SUITES {
        let good = sealed(suite, &keys(suite, 7), 0, Content::ApplicationData, SECRET_TEXT);
        let mut other = key(suite);
        other[3] ^= 1;
        let mut iv = IV;
        iv[0] ^= 1;
        let wrong = [
            keys(suite, 6),
            keys(suite, 8),
            Keys::new(suite, &other, IV, 7, [0; 32]).unwrap(),
            Keys::new(suite, &key(suite), iv, 7, [0; 32]).unwrap(),
        ];
        for mut keys in wrong {
            assert_eq!(open(suite, &mut keys, &mut good.clone()), Err(Alert::BadRecordMac), "{suite:?} {keys:?}");
        }
        // A replay.
        let mut keys = keys(suite, 7);
        opened(suite, &mut keys, &good);
        assert_eq!(open(suite, &mut keys, &mut good.clone()), Err(Alert::BadRecordMac));
    }
}

#[test]
fn a_header_is_judged_before_its_record() {
    assert_eq!(size(&[]), Ok(None));
    assert_eq!(size(&[0, 0, 0, 0]), Ok(None));
    assert_eq!(size(&[23, 3, 3, 0, 0]), Ok(Some(5)));
    assert_eq!(size(&[22, 3, 1, 1, 2, 3]), Ok(Some(5 + 0x102)));
    let [high, low] = ((1 << 14) + 256_u16).to_be_bytes();
    assert_eq!(size(&[23, 3, 3, high, low]), Ok(Some(RECORD_SIZE_MAX)));
    assert_eq!(size(&[23, 3, 3, high, low + 1]), Err(Alert::RecordOverflow));
    assert_eq!(size(&[23, 3, 3, 0xFF, 0xFF]), Err(Alert::RecordOverflow));
    for content in (0..=255).filter(|content| !(20..=23).contains(content)) {
        assert_eq!(size(&[content, 3, 3, 0, 0]), Err(Alert::UnexpectedMessage), "{content}");
        assert_eq!(Content::from_byte(content), None);
    }
    for content in 20..=23 {
        assert_eq!(Content::from_byte(content).unwrap().byte(), content);
    }
    for major in (0..=255).filter(|major| *major != 3) {
        assert_eq!(size(&[23, major, 3, 0, 0]), Err(Alert::DecodeError), "{major}");
    }
}

#[test]
fn a_record_is_one_and_whole() {
    for suite in SUITES {
        let good = sealed(suite, &keys(suite, 0), 0, Content::ApplicationData, b"text");
        for end in 0..good.len() {
            assert_eq!(result(suite, &good[..end]), Err(Alert::InternalError), "{end}");
        }
        assert_eq!(result(suite, &[&good[..], &[0]].concat()), Err(Alert::InternalError));
        // Whole, and too short for a tag.
        for length in 0..(suite.prefix_size() - 5 + TAG_SIZE) {
            let short = [&[23, 3, 3, 0, length as u8][..], &vec![9; length]].concat();
            assert_eq!(result(suite, &short), Err(Alert::BadRecordMac), "{suite:?} {length}");
        }
    }
}

#[test]
fn padding_is_stripped_and_a_record_of_padding_is_refused() {
    for suite in &SUITES[..2] {
        let inner = |plain: &[u8], content: u8, zeros: usize| [plain, &[content], &vec![0; zeros]].concat();
        let answer = |inner: &[u8]| result(*suite, &forged(*suite, [23, 3, 3], inner));
        for zeros in [0, 1, 100, 5_000] {
            let got = answer(&inner(b"text\0\0", 23, zeros));
            assert_eq!(got, Ok((Content::ApplicationData, b"text\0\0".to_vec())), "{zeros}");
            assert_eq!(answer(&inner(b"", 23, zeros)), Ok((Content::ApplicationData, Vec::new())));
            assert_eq!(answer(&inner(b"\x01\x00", 21, zeros)), Ok((Content::Alert, vec![1, 0])));
            assert_eq!(answer(&vec![0; zeros]), Err(Alert::UnexpectedMessage));
        }
        // The largest inner plaintext, of text and of padding, and one byte more.
        assert_eq!(answer(&inner(&text(PLAIN_SIZE_MAX), 22, 0)).unwrap().1.len(), PLAIN_SIZE_MAX);
        assert_eq!(answer(&inner(b"", 23, PLAIN_SIZE_MAX)), Ok((Content::ApplicationData, Vec::new())));
        assert_eq!(answer(&inner(&text(PLAIN_SIZE_MAX + 1), 23, 0)), Err(Alert::RecordOverflow));
        assert_eq!(answer(&inner(b"", 23, PLAIN_SIZE_MAX + 1)), Err(Alert::RecordOverflow));
    }
}

#[test]
fn content_out_of_place_is_refused() {
    for suite in &SUITES[..2] {
        for content in (1..=255).filter(|content| !(21..=23).contains(content)) {
            let record = forged(*suite, [23, 3, 3], &[7, content]);
            assert_eq!(result(*suite, &record), Err(Alert::UnexpectedMessage), "{content}");
        }
        for outer in 20..=22 {
            let record = forged(*suite, [outer, 3, 3], &[7, 23]);
            assert_eq!(result(*suite, &record), Err(Alert::UnexpectedMessage), "not protected");
        }
        // An alert in clear text, and a change of cipher: only during the handshake.
        assert_eq!(result(*suite, &[21, 3, 3, 0, 2, 1, 0]), Err(Alert::UnexpectedMessage));
        assert_eq!(result(*suite, &[20, 3, 3, 0, 1, 1]), Err(Alert::UnexpectedMessage));
        for content in [21, 22] {
            assert_eq!(result(*suite, &forged(*suite, [23, 3, 3], &[content])), Err(Alert::UnexpectedMessage));
        }
        // The version is ignored (RFC 8446, 5.1), and authenticated.
        assert!(result(*suite, &forged(*suite, [23, 3, 1], &[7, 23])).is_ok());
    }
    for suite in &SUITES[2..] {
        assert_eq!(result(*suite, &forged(*suite, [20, 3, 3], &[1])), Err(Alert::UnexpectedMessage));
        assert_eq!(result(*suite, &[20, 3, 3, 0, 1, 1]), Err(Alert::UnexpectedMessage));
        assert_eq!(result(*suite, &[21, 3, 3, 0, 2, 1, 0]), Err(Alert::BadRecordMac), "in clear text");
        for (content, byte) in [(Content::Alert, 21), (Content::Handshake, 22), (Content::ApplicationData, 23)] {
            // TLS 1.2 has no padding: zeros are text.
            assert_eq!(result(*suite, &forged(*suite, [byte, 3, 3], &[5, 0])), Ok((content, vec![5, 0])));
            let empty = result(*suite, &forged(*suite, [byte, 3, 3], &[]));
            let expected = if byte == 23 { Ok((content, Vec::new())) } else { Err(Alert::UnexpectedMessage) };
            assert_eq!(empty, expected);
        }
        for minor in [0, 1, 2, 4] {
            assert_eq!(result(*suite, &forged(*suite, [23, 3, minor], &[5])), Err(Alert::ProtocolVersion));
        }
        assert!(result(*suite, &forged(*suite, [23, 3, 3], &text(PLAIN_SIZE_MAX))).is_ok());
        let long = forged(*suite, [23, 3, 3], &text(PLAIN_SIZE_MAX + 1));
        assert_eq!(result(*suite, &long), Err(Alert::RecordOverflow));
    }
}

/// RFC 5288, 3: a sender chooses the explicit part as it likes.
#[test]
fn the_explicit_part_of_a_nonce_is_the_peers_choice() {
    let suite = SUITES[2];
    let record = forged(suite, [23, 3, 3], b"text");
    let mut iv = IV;
    iv[4..].fill(0x77);
    let mut keys = Keys::new(suite, &key(suite), iv, 0, [0; 32]).unwrap();
    assert_eq!(opened(suite, &mut keys, &record), (Content::ApplicationData, b"text".to_vec()));
}

#[test]
fn what_may_not_be_sent_is_not_sealed() {
    for suite in SUITES {
        let refused = |keys: &Keys, ahead, content, plain: &[&[u8]], space: usize| {
            let mut out = vec![0xEE; space];
            assert_eq!(seal(suite, keys, ahead, content, plain, &mut out), None, "{suite:?} {content:?}");
            assert!(out.iter().all(|byte| *byte == 0xEE), "nothing was written");
        };
        let fresh = keys(suite, 0);
        for plain in [&b""[..], b"\x01"] {
            refused(&fresh, 0, Content::ChangeCipherSpec, &[plain], 100);
        }
        refused(&fresh, 0, Content::Alert, &[], 100);
        refused(&fresh, 0, Content::Handshake, &[b"", b""], 100);
        let long = text(PLAIN_SIZE_MAX);
        refused(&fresh, 0, Content::ApplicationData, &[&long[..], b"1"], RECORD_SIZE_MAX);
        let size = 4 + suite.overhead();
        refused(&fresh, 0, Content::ApplicationData, &[b"te", b"xt"], size - 1);
        refused(&fresh, 0, Content::ApplicationData, &[b""], suite.overhead() - 1);
        let mut out = vec![0; size];
        let made = seal(suite, &fresh, 0, Content::ApplicationData, &[&b"t"[..], b"", b"ext"], &mut out);
        assert_eq!(made, Some(size));
        assert_eq!(out, sealed(suite, &fresh, 0, Content::ApplicationData, b"text"));
        assert_eq!(sealed(suite, &fresh, 0, Content::ApplicationData, &long).len(), PLAIN_SIZE_MAX + suite.overhead());
    }
}

#[test]
fn the_last_sequence_is_never_used() {
    for suite in SUITES {
        let mut last = keys(suite, u64::MAX - 1);
        let record = sealed(suite, &last, 0, Content::ApplicationData, b"last");
        let mut out = [0; 100];
        assert_eq!(seal(suite, &last, 1, Content::ApplicationData, &[b"1"], &mut out), None);
        assert_eq!(seal(suite, &keys(suite, 2), u64::MAX - 1, Content::ApplicationData, &[b"1"], &mut out), None);
        opened(suite, &mut last, &record);
        assert_eq!(open(suite, &mut last, &mut record.clone()), Err(Alert::InternalError));
        assert_eq!(seal(suite, &last, 0, Content::ApplicationData, &[b"1"], &mut out), None);
    }
}

#[test]
fn a_tag_tells_plaintexts_apart() {
    for suite in SUITES {
        let keys = keys(suite, 5);
        let one = sealed(suite, &keys, 0, Content::ApplicationData, b"one");
        assert_eq!(tag(&one), tag(&sealed(suite, &keys, 0, Content::ApplicationData, b"one")));
        for (ahead, content, plain) in [
            (0, Content::ApplicationData, &b"onf"[..]),
            (0, Content::ApplicationData, b"ones"),
            (0, Content::Handshake, b"one"),
            (1, Content::ApplicationData, b"one"),
        ] {
            assert_ne!(tag(&one), tag(&sealed(suite, &keys, ahead, content, plain)));
        }
    }
    assert_eq!(tag(&[1; 15]), [0; 16]);
}
