//! What is computed from the handshake: proofs that the other side has the secret, and the names
//! of pages as authors.
//!
//! Owns what is signed: a label for each side, and both nonces in the order in which that side got
//! them. HMAC-SHA256. Compares in constant time. Knows no frames and refuses nothing itself.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// A page as the author of its messages: the same for relay and business server, different on each
/// connection of theirs. It says nothing about the page and is no secret.
pub type Author = [u8; 8];

/// The relay's proof in `Hello` that it knows the secret.
#[must_use]
pub fn relay_proof(secret: &[u8], challenge_nonce: &[u8; 16], hello_nonce: &[u8; 16]) -> [u8; 32] {
    proof(secret, b"sharelinkd relay", challenge_nonce, hello_nonce)
}

/// The business server's proof in `Welcome` that it knows the secret.
#[must_use]
pub fn business_proof(secret: &[u8], hello_nonce: &[u8; 16], challenge_nonce: &[u8; 16]) -> [u8; 32] {
    proof(secret, b"sharelinkd business", hello_nonce, challenge_nonce)
}

/// Compares two proofs in constant time.
#[must_use]
pub fn proofs_equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// HMAC-SHA256 (RFC 2104) over the label and both nonces.
fn proof(secret: &[u8], label: &[u8], first: &[u8; 16], second: &[u8; 16]) -> [u8; 32] {
    let mut mac = match Hmac::<Sha256>::new_from_slice(secret) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC takes a key of any length"),
    };
    mac.update(label);
    mac.update(first);
    mac.update(second);
    mac.finalize().into_bytes().into()
}

/// A page as an author on the connection with these nonces: the beginning of the SHA-256 of a
/// label, the nonces of `Challenge` and `Hello`, and the page's number, little-endian.
#[must_use]
pub fn author(challenge_nonce: &[u8; 16], hello_nonce: &[u8; 16], page: u32) -> Author {
    let hash = Sha256::new()
        .chain_update(b"sharelinkd author")
        .chain_update(challenge_nonce)
        .chain_update(hello_nonce)
        .chain_update(page.to_le_bytes())
        .finalize();
    let mut author = [0; 8];
    author.iter_mut().zip(hash).for_each(|(byte, from)| *byte = from);
    author
}
