//! The record layer from outside: known answers, rustls and OpenSSL as peers, mutations, counted
//! allocations. One binary.
#![cfg(test)]
#![expect(clippy::cast_possible_truncation, reason = "tests make bytes out of small numbers")]

extern crate sharelinkd_tls as tls;

mod allocations;
mod ciphers;
mod known_answers;
mod malformed;
mod openssl;
mod peers;

use tls::keys::Keys;
use tls::record::{Content, open, seal};
use tls::suite::{Aead, RECORD_SIZE_MAX, Suite, Version};

const SUITES: [Suite; 4] = [
    Suite { version: Version::Tls13, aead: Aead::Aes128Gcm },
    Suite { version: Version::Tls13, aead: Aead::ChaCha20Poly1305 },
    Suite { version: Version::Tls12, aead: Aead::Aes128Gcm },
    Suite { version: Version::Tls12, aead: Aead::ChaCha20Poly1305 },
];

/// Sizes of plaintexts: none, one byte, a message, a block of the arena, a full record.
const SIZES: [usize; 5] = [0, 1, 200, 4_064, 16_384];

/// Bytes out of hexadecimal digits, with any spaces between.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// Bytes that differ from place to place, never zero.
fn text(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 7 % 251) as u8 + 1).collect()
}

/// A key of the suite's length.
fn key(suite: Suite) -> Vec<u8> {
    (0x10..0x30).take(suite.key_size()).collect()
}

const IV: [u8; 12] = [0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xAB];

fn keys(suite: Suite, sequence: u64) -> Keys {
    Keys::new(suite, &key(suite), IV, sequence, [0; 32]).unwrap()
}

fn sealed(suite: Suite, keys: &Keys, ahead: u64, content: Content, plain: &[u8]) -> Vec<u8> {
    let mut out = vec![0; RECORD_SIZE_MAX];
    let size = seal(suite, keys, ahead, content, &[plain], &mut out).unwrap();
    out.truncate(size);
    out
}

/// Opens a record that must be good.
fn opened(suite: Suite, keys: &mut Keys, record: &[u8]) -> (Content, Vec<u8>) {
    let mut record = record.to_vec();
    let (content, range) = open(suite, keys, &mut record).unwrap();
    (content, record[range].to_vec())
}
