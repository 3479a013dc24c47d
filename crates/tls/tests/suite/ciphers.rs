//! rustls's own record ciphers beside ours, byte by byte: at sequences that no connection of a test
//! reaches, and at each size. The keys are those of a handshake.
#![cfg(test)]

use rustls::crypto::cipher::{
    InboundOpaqueMessage, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use rustls::crypto::ring::cipher_suite;
use rustls::{ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite};
use tls::keys::Keys;
use tls::record::Content;
use tls::suite::{Aead, Suite, Version};

use crate::peers::both_ends;
use crate::{SIZES, SUITES, opened, sealed, text};

const SEQUENCES: [u64; 8] =
    [0, 1, 0xFF, 0xFFFF_FFFF, 0x1_0000_0000, 0x0102_0304_0506_0708, 0x8000_0000_0000_0000, u64::MAX - 1];

const CONTENTS: [(Content, ContentType); 3] = [
    (Content::ApplicationData, ContentType::ApplicationData),
    (Content::Handshake, ContentType::Handshake),
    (Content::Alert, ContentType::Alert),
];

struct Ciphers {
    seal: Box<dyn MessageEncrypter>,
    open: Box<dyn MessageDecrypter>,
    key: Vec<u8>,
    iv: [u8; 12],
}

fn ciphers(suite: Suite) -> Ciphers {
    let theirs = match (suite.version, suite.aead) {
        (Version::Tls13, Aead::Aes128Gcm) => cipher_suite::TLS13_AES_128_GCM_SHA256,
        (Version::Tls13, Aead::ChaCha20Poly1305) => cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        (Version::Tls12, Aead::Aes128Gcm) => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        (Version::Tls12, Aead::ChaCha20Poly1305) => cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    };
    let of = |secrets| match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
        _ => panic!("another suite"),
    };
    // The same key at both ends.
    let (client, server) = both_ends(suite);
    let ((key, iv), (same_key, same_iv)) = (of(server.tx.1), of(client.rx.1));
    let bytes = key.as_ref().to_vec();
    assert_eq!(bytes, same_key.as_ref());
    let iv_bytes = iv.as_ref().try_into().unwrap();
    let (seal, open) = match theirs {
        SupportedCipherSuite::Tls13(theirs) => {
            (theirs.aead_alg.encrypter(key, iv), theirs.aead_alg.decrypter(same_key, same_iv))
        }
        SupportedCipherSuite::Tls12(theirs) => {
            let split = iv.as_ref().len() - theirs.aead_alg.key_block_shape().explicit_nonce_len;
            let (fixed, explicit) = iv.as_ref().split_at(split);
            (theirs.aead_alg.encrypter(key, fixed, explicit), theirs.aead_alg.decrypter(same_key, fixed))
        }
    };
    Ciphers { seal, open, key: bytes, iv: iv_bytes }
}

#[test]
fn far_sequences_give_rustlss_bytes() {
    for suite in SUITES {
        let mut theirs = ciphers(suite);
        let keys = |sequence| Keys::new(suite, &theirs.key, theirs.iv, sequence, [0; 32]).unwrap();
        for sequence in SEQUENCES {
            for (content, typ) in CONTENTS {
                for size in SIZES.into_iter().filter(|size| *size > 0 || content == Content::ApplicationData) {
                    let plain = text(size);
                    let payload = OutboundChunks::Single(&plain);
                    let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
                    let made = theirs.seal.encrypt(message, sequence).unwrap().encode();
                    let ahead = sequence.min(5);
                    let ours = sealed(suite, &keys(sequence - ahead), ahead, content, &plain);
                    assert!(ours == made, "{suite:?} {sequence} {content:?} {size}");

                    let opened = opened(suite, &mut keys(sequence), &made);
                    assert!(opened == (content, plain.clone()), "{suite:?} {sequence} {content:?} {size}");
                    let mut body = ours[5..].to_vec();
                    let outer = ContentType::from(ours[0]);
                    let message = InboundOpaqueMessage::new(outer, ProtocolVersion::TLSv1_2, &mut body);
                    let read = theirs.open.decrypt(message, sequence).unwrap();
                    assert!(read.typ == typ && read.payload == plain, "{suite:?} {sequence} {content:?} {size}");
                }
            }
        }
    }
}
