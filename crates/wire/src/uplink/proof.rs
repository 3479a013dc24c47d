//! The handshake's proofs: who has the secret can say so, and no one learns it.
//!
//! Owns what is signed: a label for each side, and both nonces in the order in which that side got
//! them. HMAC-SHA256. Compares in constant time. Knows no frames and refuses nothing itself.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

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
