//! Which version and which AEAD a connection negotiated, and what they add to each record.
//!
//! Owns the sizes of keys, nonces and tags. Only suites whose hash is SHA-256 are offered, so that
//! a key update needs no other (RFC 8446, 7.2).

use ring::aead::{AES_128_GCM, Algorithm, CHACHA20_POLY1305};

/// Size of a record's header, in bytes: content type, version, length.
pub const HEADER_SIZE: usize = 5;
/// Size of a record's tag, in bytes.
pub const TAG_SIZE: usize = 16;
/// Plaintext of one record, in bytes, at most (RFC 8446, 5.1).
pub const PLAIN_SIZE_MAX: usize = 1 << 14;
/// A record with its header, in bytes, at most: 256 bytes more than its plaintext (RFC 8446, 5.2).
pub const RECORD_SIZE_MAX: usize = HEADER_SIZE + PLAIN_SIZE_MAX + 256;

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 5246, with the AEADs of RFC 5288 and RFC 7905.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// An AEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aead {
    /// AES-128-GCM (RFC 5116).
    Aes128Gcm,
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305,
}

/// What was negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    /// The version.
    pub version: Version,
    /// The AEAD.
    pub aead: Aead,
}

impl Suite {
    /// Size of a key, in bytes.
    #[must_use]
    pub const fn key_size(self) -> usize {
        match self.aead {
            Aead::Aes128Gcm => 16,
            Aead::ChaCha20Poly1305 => 32,
        }
    }

    /// What a record has before its ciphertext, in bytes: the header, and for AES-GCM in TLS 1.2
    /// the explicit part of the nonce (RFC 5288, 3).
    #[must_use]
    pub const fn prefix_size(self) -> usize {
        match (self.version, self.aead) {
            (Version::Tls12, Aead::Aes128Gcm) => HEADER_SIZE + 8,
            _ => HEADER_SIZE,
        }
    }

    /// What sealing adds to a plaintext, in bytes: the prefix, in TLS 1.3 the content type, and the
    /// tag.
    #[must_use]
    pub const fn overhead(self) -> usize {
        self.prefix_size() + self.inner_size() + TAG_SIZE
    }

    /// What is encrypted behind a plaintext, in bytes: in TLS 1.3 the content type.
    pub(crate) const fn inner_size(self) -> usize {
        match self.version {
            Version::Tls12 => 0,
            Version::Tls13 => 1,
        }
    }

    pub(crate) fn algorithm(self) -> &'static Algorithm {
        match self.aead {
            Aead::Aes128Gcm => &AES_128_GCM,
            Aead::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }
}
