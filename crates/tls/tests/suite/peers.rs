//! rustls as the peer: it shakes hands in memory, is dropped on the server's side, and its client
//! reads what we seal and writes what we open.
#![cfg(test)]

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use rustls::client::ClientConnection;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::ServerConnection;
use rustls::{
    AlertDescription, CipherSuite, ClientConfig, ConnectionTrafficSecrets, Error, ExtractedSecrets, KeyLog,
    RootCertStore, ServerConfig,
};
use tls::alert::Alert;
use tls::certificate::{Certificate, KeyKind};
use tls::keys::Keys;
use tls::record::{Content, size};
use tls::suite::{Aead, Suite, Version};

use crate::{SIZES, SUITES, opened, sealed, text};

pub const CERTIFICATE: &[u8] = include_bytes!("../../testdata/server.der");
const KEY: &[u8] = include_bytes!("../../testdata/server.key.der");

/// What is left of a handshake: rustls's client, and our keys in place of its server.
pub struct Pair {
    pub client: ClientConnection,
    pub reading: Keys,
    pub writing: Keys,
}

/// The traffic secrets that the server logs.
#[derive(Debug, Default)]
pub struct Secrets(Mutex<Vec<(String, Vec<u8>)>>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        self.0.lock().unwrap().push((label.to_owned(), secret.to_vec()));
    }
}

impl Secrets {
    /// Zeros in TLS 1.2, which has none.
    fn find(&self, label: &str) -> [u8; 32] {
        let secrets = self.0.lock().unwrap();
        let found = secrets.iter().find(|(name, _)| name == label);
        found.map_or([0; 32], |(_, secret)| secret.as_slice().try_into().unwrap())
    }
}

/// rustls with one suite alone.
fn provider(suite: Suite) -> (Arc<CryptoProvider>, &'static rustls::SupportedProtocolVersion) {
    let (version, names) = match (suite.version, suite.aead) {
        (Version::Tls13, Aead::Aes128Gcm) => (&rustls::version::TLS13, CipherSuite::TLS13_AES_128_GCM_SHA256),
        (Version::Tls13, Aead::ChaCha20Poly1305) => {
            (&rustls::version::TLS13, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256)
        }
        (Version::Tls12, Aead::Aes128Gcm) => {
            (&rustls::version::TLS12, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
        }
        (Version::Tls12, Aead::ChaCha20Poly1305) => {
            (&rustls::version::TLS12, CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256)
        }
    };
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == names);
    assert_eq!(provider.cipher_suites.len(), 1);
    (Arc::new(provider), version)
}

pub fn server(suite: Suite) -> (ServerConnection, Arc<Secrets>) {
    let (provider, version) = provider(suite);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(CERTIFICATE)], PrivatePkcs8KeyDer::from(KEY).into())
        .unwrap();
    let secrets = Arc::new(Secrets::default());
    config.enable_secret_extraction = true;
    config.key_log = secrets.clone();
    (ServerConnection::new(Arc::new(config)).unwrap(), secrets)
}

fn client(suite: Suite) -> ClientConnection {
    let (provider, version) = provider(suite);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(CERTIFICATE)).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_secret_extraction = true;
    ClientConnection::new(Arc::new(config), ServerName::try_from("box.example").unwrap()).unwrap()
}

/// A handshake in memory, to the end: nothing is left to send.
fn shaken(suite: Suite) -> (ClientConnection, ServerConnection, Arc<Secrets>) {
    let (mut client, (mut server, secrets)) = (client(suite), server(suite));
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        feed(&mut client, &bytes).unwrap();
    }
    (client, server, secrets)
}

/// Our keys out of what rustls gives.
pub fn taken(suite: Suite, extracted: ExtractedSecrets, secrets: &Secrets) -> (Keys, Keys) {
    let keys = |(sequence, secrets): (u64, ConnectionTrafficSecrets), secret| {
        let (key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
            _ => panic!("another suite"),
        };
        Keys::new(suite, key.as_ref(), iv.as_ref().try_into().unwrap(), sequence, secret).unwrap()
    };
    let reading = keys(extracted.rx, secrets.find("CLIENT_TRAFFIC_SECRET_0"));
    let writing = keys(extracted.tx, secrets.find("SERVER_TRAFFIC_SECRET_0"));
    if suite.version == Version::Tls13 {
        assert!(reading.fit_secret(suite) && writing.fit_secret(suite), "logged secrets and extracted keys agree");
    }
    (reading, writing)
}

fn pair(suite: Suite) -> Pair {
    let (client, server, secrets) = shaken(suite);
    let (reading, writing) = taken(suite, server.dangerous_extract_secrets().unwrap(), &secrets);
    Pair { client, reading, writing }
}

/// What both ends of one handshake give: the client's, then the server's.
pub fn both_ends(suite: Suite) -> (ExtractedSecrets, ExtractedSecrets) {
    let (client, server, _) = shaken(suite);
    (client.dangerous_extract_secrets().unwrap(), server.dangerous_extract_secrets().unwrap())
}

/// Gives bytes to the client.
fn feed(client: &mut ClientConnection, mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

/// What the client has read.
fn read(client: &mut ClientConnection) -> Vec<u8> {
    let mut plain = Vec::new();
    loop {
        let mut space = [0; 4_096];
        match client.reader().read(&mut space) {
            Ok(0) | Err(_) => return plain,
            Ok(size) => plain.extend_from_slice(&space[..size]),
        }
    }
}

/// The records that the client sends.
fn records(client: &mut ClientConnection) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    let mut records = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some(size) = size(rest).unwrap() {
        let (record, behind) = rest.split_at(size);
        records.push(record.to_vec());
        rest = behind;
    }
    assert!(rest.is_empty());
    records
}

impl Pair {
    /// We send; the client reads it.
    fn down(&mut self, suite: Suite, plain: &[u8]) {
        let record = sealed(suite, &self.writing, 0, Content::ApplicationData, plain);
        self.writing.advance(1);
        feed(&mut self.client, &record).unwrap();
        assert!(read(&mut self.client) == plain, "{suite:?} {}", plain.len());
    }

    /// The client sends; we read it.
    fn up(&mut self, suite: Suite, plain: &[u8]) {
        self.client.writer().write_all(plain).unwrap();
        let mut got = Vec::new();
        for record in records(&mut self.client) {
            let (content, plain) = opened(suite, &mut self.reading, &record);
            assert_eq!(content, Content::ApplicationData);
            got.extend(plain);
        }
        assert!(got == plain, "{suite:?} {}", plain.len());
    }
}

#[test]
fn rustls_reads_what_we_seal_and_we_open_what_it_writes() {
    for suite in SUITES {
        let mut pair = pair(suite);
        for round in 0..3 {
            for size in SIZES {
                pair.down(suite, &text(size));
                pair.up(suite, &text(size + round));
            }
        }
        // Several records ahead of the keys, which advance when all are out.
        let out: Vec<u8> = (0..5)
            .flat_map(|ahead| sealed(suite, &pair.writing, ahead, Content::ApplicationData, &[ahead as u8]))
            .collect();
        feed(&mut pair.client, &out).unwrap();
        pair.writing.advance(5);
        assert_eq!(read(&mut pair.client), [0, 1, 2, 3, 4]);
        pair.down(suite, b"and on");
        // A record that went out in part, made again with the same bytes.
        let first = sealed(suite, &pair.writing, 0, Content::ApplicationData, b"cut and made again");
        feed(&mut pair.client, &first[..9]).unwrap();
        assert!(read(&mut pair.client).is_empty());
        let second = sealed(suite, &pair.writing, 0, Content::ApplicationData, b"cut and made again");
        feed(&mut pair.client, &second[9..]).unwrap();
        pair.writing.advance(1);
        assert_eq!(read(&mut pair.client), b"cut and made again");
        pair.up(suite, &text(40_000));
    }
}

#[test]
fn a_close_is_understood_both_ways() {
    for suite in SUITES {
        let mut pair = pair(suite);
        pair.client.send_close_notify();
        let close = records(&mut pair.client).pop().unwrap();
        let close = opened(suite, &mut pair.reading, &close);
        assert_eq!(close, (Content::Alert, Alert::CloseNotify.encode().to_vec()));
        feed(&mut pair.client, &sealed(suite, &pair.writing, 0, Content::Alert, &Alert::CloseNotify.encode())).unwrap();
        assert_eq!(pair.client.reader().read(&mut [0; 8]).unwrap(), 0, "a clean end");
    }
}

#[test]
fn a_fatal_alert_is_understood_both_ways() {
    for suite in SUITES {
        let mut one = pair(suite);
        let mut record = sealed(suite, &one.writing, 0, Content::ApplicationData, b"spoilt");
        *record.last_mut().unwrap() ^= 1;
        assert_eq!(feed(&mut one.client, &record), Err(Error::DecryptError));
        let alert = records(&mut one.client).pop().unwrap();
        let alert = opened(suite, &mut one.reading, &alert);
        assert_eq!(alert, (Content::Alert, Alert::BadRecordMac.encode().to_vec()));

        let theirs = [
            (Alert::UnexpectedMessage, AlertDescription::UnexpectedMessage),
            (Alert::BadRecordMac, AlertDescription::BadRecordMac),
            (Alert::RecordOverflow, AlertDescription::RecordOverflow),
            (Alert::IllegalParameter, AlertDescription::IllegalParameter),
            (Alert::DecodeError, AlertDescription::DecodeError),
            (Alert::ProtocolVersion, AlertDescription::ProtocolVersion),
            (Alert::InternalError, AlertDescription::InternalError),
        ];
        for (ours, theirs) in theirs {
            let mut pair = pair(suite);
            let record = sealed(suite, &pair.writing, 0, Content::Alert, &ours.encode());
            assert_eq!(feed(&mut pair.client, &record), Err(Error::AlertReceived(theirs)), "{ours}");
        }
    }
}

/// KeyUpdate messages (RFC 8446, 4.6.3).
const UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const UPDATE_AND_ANSWER: [u8; 5] = [24, 0, 0, 1, 1];

#[test]
fn keys_are_updated_both_ways() {
    for suite in &SUITES[..2] {
        let mut pair = pair(*suite);
        for round in 0..6 {
            pair.down(*suite, &text(100 + round));
            pair.up(*suite, &text(200 + round));
            // Ours: without an answer, and with one.
            let message = if round % 2 == 0 { UPDATE } else { UPDATE_AND_ANSWER };
            feed(&mut pair.client, &sealed(*suite, &pair.writing, 0, Content::Handshake, &message)).unwrap();
            pair.writing.advance(1);
            pair.writing.update(*suite);
            pair.down(*suite, b"under new keys");
            if round % 2 == 1 {
                pair.client.writer().write_all(b"behind its answer").unwrap();
                let mut records = records(&mut pair.client).into_iter();
                let answer = opened(*suite, &mut pair.reading, &records.next().unwrap());
                assert_eq!(answer, (Content::Handshake, UPDATE.to_vec()));
                pair.reading.update(*suite);
                let text = opened(*suite, &mut pair.reading, &records.next().unwrap());
                assert_eq!(text, (Content::ApplicationData, b"behind its answer".to_vec()));
                assert!(records.next().is_none());
            }
            // The client's.
            pair.client.refresh_traffic_keys().unwrap();
            for record in records(&mut pair.client) {
                let (content, plain) = opened(*suite, &mut pair.reading, &record);
                assert_eq!((content, &plain[..4]), (Content::Handshake, &UPDATE[..4]));
                pair.reading.update(*suite);
                if plain[4] == 1 {
                    feed(&mut pair.client, &sealed(*suite, &pair.writing, 0, Content::Handshake, &UPDATE)).unwrap();
                    pair.writing.advance(1);
                    pair.writing.update(*suite);
                }
            }
            assert_eq!(pair.reading.sequence(), 0);
        }
        pair.up(*suite, &text(16_384));
        pair.down(*suite, &text(16_384));
    }
}

/// Old keys are of no use once they were updated, nor the new ones before.
#[test]
fn an_update_that_only_one_side_makes_is_refused() {
    for suite in &SUITES[..2] {
        let mut pair = pair(*suite);
        pair.writing.update(*suite);
        let record = sealed(*suite, &pair.writing, 0, Content::ApplicationData, b"too early");
        assert_eq!(feed(&mut pair.client, &record), Err(Error::DecryptError));
    }
}

#[test]
fn rustls_reads_the_same_certificate() {
    let ours = Certificate::parse(CERTIFICATE).unwrap();
    let der = CertificateDer::from(CERTIFICATE);
    let theirs = rustls::server::ParsedCertificate::try_from(&der).unwrap();
    assert_eq!(ours.public_key, theirs.subject_public_key_info().as_ref());
    let key = ring::sign::any_supported_type(&PrivatePkcs8KeyDer::from(KEY).into()).unwrap();
    assert_eq!(ours.public_key, key.public_key().unwrap().as_ref());
    assert_eq!(ours.key_kind, KeyKind::P256);
}
