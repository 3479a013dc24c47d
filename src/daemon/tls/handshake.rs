//! Handshakes with rustls, which is dropped once it has negotiated the keys.
//!
//! rustls is fed whole records, one at a time, and no more once it no longer shakes hands: so
//! nothing of the page's own is ever inside it. Then the keys are taken out and the connection's
//! record layer is our own (`crates/tls`). Owns the suites and their order, tickets, and what is
//! logged of a failure. Refuses key exchange by P-384: with ring it costs 20 times as much as by
//! P-256, and the client chooses. The only file that knows
//! rustls as a server.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{Ticketer, cipher_suite, default_provider, kx_group};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig, ServerConnection};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ConnectionTrafficSecrets, HandshakeKind, KeyLog, ProtocolVersion, SupportedCipherSuite};
use zeroize::{Zeroize, Zeroizing};

use super::secured::Secured;
use crate::config::MinVersion;
use crate::config::certificates::Pair;
use tls::certificate::Certificate;
use tls::channel::Channel;
use tls::keys::Keys;
use tls::names::choose;
use tls::suite::{Aead, Suite, Version};

/// The protocol that is served, for ALPN.
const PROTOCOL: &[u8] = b"http/1.1";
/// Tickets for each handshake of TLS 1.3. A browser uses each once, and opens two connections
/// beside the first one for the parts of a share page.
const TICKETS: usize = 2;
/// Handshake type of a hello, in the first byte behind a record's header.
const CLIENT_HELLO: u8 = 1;
/// Extensions of a hello by which a client resumes: a ticket of TLS 1.2 (RFC 5077), a pre-shared
/// key of TLS 1.3 (RFC 8446, 4.2.11).
const SESSION_TICKET: u16 = 35;
const PRE_SHARED_KEY: u16 = 41;
/// Labels of the traffic secrets in a key log.
const CLIENT_SECRET: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER_SECRET: &str = "SERVER_TRAFFIC_SECRET_0";

/// What handshakes need: suites, certificates, tickets.
pub struct Acceptor {
    config: Arc<ServerConfig>,
    secrets: Arc<Secrets>,
}

/// A handshake under way.
pub struct Handshake {
    connection: ServerConnection,
    secrets: Arc<Secrets>,
    traffic: Traffic,
}

/// What a handshake needs next.
pub enum Next {
    /// The peer's next record.
    Record(Box<Handshake>),
    /// Nothing: it is done. A box, so that no other copy of the keys is on the heap.
    Done(Box<Secured>, Kind),
}

/// How much a handshake cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With a signature.
    Full,
    /// By a ticket.
    Resumed,
}

/// Why a handshake failed; prints as rustls says it.
#[derive(Debug)]
pub struct Failed(rustls::Error);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Acceptor {
    /// Handshakes with these certificates, the first for all other names. `tickets` are another
    /// acceptor's, which this one replaces: the sessions that it began can be resumed.
    ///
    /// # Errors
    /// The system has no random bytes for the tickets' keys.
    pub fn new(pairs: &[Pair], min_version: MinVersion, replaced: Option<&Self>) -> Result<Self, Failed> {
        let kx_groups = vec![kx_group::X25519, kx_group::SECP256R1];
        let provider = CryptoProvider { cipher_suites: suites(), kx_groups, ..default_provider() };
        let versions: &[_] = match min_version {
            MinVersion::V12 => &[&TLS13, &TLS12],
            MinVersion::V13 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(versions).map_err(Failed)?.with_no_client_auth();
        let mut config = builder.with_cert_resolver(Arc::new(Names::of(pairs)));
        let secrets = Arc::new(Secrets::default());
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.key_log = Arc::<Secrets>::clone(&secrets);
        config.enable_secret_extraction = true;
        config.ignore_client_order = true;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = TICKETS;
        config.ticketer = match replaced {
            Some(replaced) => Arc::clone(&replaced.config.ticketer),
            None => Ticketer::new().map_err(Failed)?,
        };
        Ok(Self { config: Arc::new(config), secrets })
    }

    /// Begins a handshake.
    ///
    /// # Errors
    /// rustls's own.
    pub fn begin(&self) -> Result<Box<Handshake>, Failed> {
        let connection = ServerConnection::new(Arc::clone(&self.config)).map_err(Failed)?;
        Ok(Box::new(Handshake { connection, secrets: Arc::clone(&self.secrets), traffic: Traffic::default() }))
    }
}

/// AES first where the processor has instructions for it, otherwise ChaCha20, which is faster then.
/// Only suites whose hash is SHA-256: a key update needs no other.
fn suites() -> Vec<SupportedCipherSuite> {
    let aes = [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ];
    let chacha20 = [
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    if has_aes() { [aes, chacha20].concat() } else { [chacha20, aes].concat() }
}

/// Whether the processor has instructions for AES-GCM.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

impl Handshake {
    /// Takes a whole record of the peer, and appends what is to be sent to `out`, also after an
    /// error: an alert. This is the step that may take a millisecond.
    ///
    /// # Errors
    /// The handshake failed.
    pub fn step(mut self: Box<Self>, record: &[u8], out: &mut Vec<u8>) -> Result<Next, Failed> {
        let fed = self.feed(record);
        self.secrets.0.lock().unwrap_or_else(PoisonError::into_inner).move_to(&mut self.traffic);
        while self.connection.wants_write() {
            // Writing to a vector can't fail.
            let _ = self.connection.write_tls(out);
        }
        fed?;
        if self.connection.is_handshaking() { Ok(Next::Record(self)) } else { self.finish() }
    }

    fn feed(&mut self, mut record: &[u8]) -> Result<(), Failed> {
        while !record.is_empty() {
            match self.connection.read_tls(&mut record) {
                Ok(1..) => self.connection.process_new_packets().map_err(Failed)?,
                _ => return Err(Failed(rustls::Error::General("a record that is too large".to_owned()))),
            };
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Next, Failed> {
        let version = match self.connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => Version::Tls13,
            _ => Version::Tls12,
        };
        let kind = match self.connection.handshake_kind() {
            Some(HandshakeKind::Resumed) => Kind::Resumed,
            _ => Kind::Full,
        };
        let mut traffic = Traffic::default();
        self.traffic.move_to(&mut traffic);
        let secrets = self.connection.dangerous_extract_secrets().map_err(Failed)?;
        let write = keys(version, secrets.tx, *traffic.server);
        let read = keys(version, secrets.rx, *traffic.client);
        let (Some((suite, write)), Some((_, read))) = (write, read) else {
            return Err(Failed(rustls::Error::General("keys of a suite that was not offered".to_owned())));
        };
        // Updated from another secret, zeros for example, the keys would be anybody's.
        if version == Version::Tls13 && !(write.fit_secret(suite) && read.fit_secret(suite)) {
            return Err(Failed(rustls::Error::General("traffic secrets that are not those of the keys".to_owned())));
        }
        Ok(Next::Done(Box::new(Secured::new(Channel::new(suite, write, read))), kind))
    }
}

/// The suite and keys of one direction, as rustls hands them over, with its traffic secret. `None`
/// for a suite that this program does not know.
pub(crate) fn keys(
    version: Version,
    (sequence, secrets): (u64, ConnectionTrafficSecrets),
    traffic: [u8; 32],
) -> Option<(Suite, Keys)> {
    let (aead, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Aead::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Aead::ChaCha20Poly1305, key, iv),
        _ => return None,
    };
    let suite = Suite { version, aead };
    let iv = iv.as_ref().try_into().ok()?;
    Some((suite, Keys::new(suite, key.as_ref(), iv, sequence, traffic)?))
}

/// The traffic secrets of TLS 1.3 in both directions, for key updates (RFC 8446, 7.1); zeros as
/// long as they are not known. Wiped when dropped.
#[derive(Default)]
struct Traffic {
    client: Zeroizing<[u8; 32]>,
    server: Zeroizing<[u8; 32]>,
}

impl Traffic {
    #[cfg(test)]
    fn is_unknown(&self) -> bool {
        *self.client == [0; 32] && *self.server == [0; 32]
    }

    /// Hands on what is known, and wipes it here: a plain move would leave a copy behind.
    fn move_to(&mut self, other: &mut Self) {
        for (from, to) in [(&mut self.client, &mut other.client), (&mut self.server, &mut other.server)] {
            if **from != [0; 32] {
                **to = **from;
                from.zeroize();
            }
        }
    }
}

/// Catches the traffic secrets of the handshake whose step is taken.
#[derive(Default)]
struct Secrets(Mutex<Traffic>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

impl KeyLog for Secrets {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let mut caught = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match label {
            CLIENT_SECRET => &mut caught.client,
            SERVER_SECRET => &mut caught.server,
            _ => return,
        };
        if secret.len() == place.len() {
            place.copy_from_slice(secret);
        }
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, CLIENT_SECRET | SERVER_SECRET)
    }
}

/// Chooses the certificate by the name that the client asks for; the first if it asks for none.
/// Reads the names anew for each handshake: that takes microseconds, and to keep them could take
/// more memory than the certificates.
#[derive(Debug)]
struct Names(Vec<Arc<CertifiedKey>>);

impl Names {
    fn of(pairs: &[Pair]) -> Self {
        Self(pairs.iter().map(|pair| Arc::clone(&pair.certified)).collect())
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let names = self.0.iter().map(|key| {
            let certificate = key.cert.first().and_then(|der| Certificate::parse(der).ok());
            certificate.into_iter().flat_map(|certificate| certificate.dns_names())
        });
        let index = choose(names, hello.server_name().unwrap_or_default());
        self.0.get(index).map(Arc::clone)
    }
}

/// Whether a record begins with a hello, and if so whether the client offers to resume a session. A
/// hello that can't be read doesn't resume; rustls says what is wrong with it.
pub fn hello(record: &[u8]) -> Option<bool> {
    let body = record.get(5..)?;
    (body.first() == Some(&CLIENT_HELLO)).then(|| resumes(body).unwrap_or(false))
}

/// RFC 8446, 4.1.2, and RFC 5246, 7.4.1.2.
fn resumes(mut hello: &[u8]) -> Option<bool> {
    // Type, length, version, random.
    skip(&mut hello, 4 + 2 + 32)?;
    for length_size in [1, 2, 1] {
        // The session's id, the suites, the compression methods.
        let size = number(&mut hello, length_size)?;
        skip(&mut hello, size)?;
    }
    number(&mut hello, 2)?;
    while !hello.is_empty() {
        let kind = u16::try_from(number(&mut hello, 2)?).ok()?;
        let size = number(&mut hello, 2)?;
        // A client of TLS 1.2 sends an empty ticket to say that it would take one.
        if kind == PRE_SHARED_KEY || kind == SESSION_TICKET && size > 0 {
            return Some(true);
        }
        skip(&mut hello, size)?;
    }
    Some(false)
}

fn skip(bytes: &mut &[u8], size: usize) -> Option<()> {
    *bytes = bytes.get(size..)?;
    Some(())
}

fn number(bytes: &mut &[u8], size: usize) -> Option<usize> {
    let (digits, behind) = bytes.split_at_checked(size)?;
    *bytes = behind;
    Some(digits.iter().fold(0, |number, digit| number << 8 | usize::from(*digit)))
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Read, Write};

    use rustls::client::ClientConnection;
    use rustls::crypto::SupportedKxGroup;
    use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
    use rustls::{ClientConfig, NoKeyLog, RootCertStore, SupportedProtocolVersion};
    use tls::channel::{Input, OWN_SIZE_MAX, Source};

    use super::*;
    use tls::record;

    const CERTIFICATE: &[u8] = include_bytes!("../../../crates/tls/testdata/server.der");
    const KEY: &[u8] = include_bytes!("../../../crates/tls/testdata/server.key.der");

    /// Handshakes with the tests' certificate.
    pub fn acceptor() -> Acceptor {
        let key = PrivatePkcs8KeyDer::from(KEY).into();
        let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
        let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(CERTIFICATE)], key));
        Acceptor::new(&[Pair { certified }], MinVersion::V12, None).unwrap()
    }

    fn client(version: &'static SupportedProtocolVersion, group: &'static dyn SupportedKxGroup) -> ClientConnection {
        let provider = CryptoProvider { kx_groups: vec![group], ..default_provider() };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(CERTIFICATE)).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(provider));
        let config = config.with_protocol_versions(&[version]).unwrap().with_root_certificates(roots);
        let name = ServerName::try_from("box.example").unwrap();
        ClientConnection::new(Arc::new(config.with_no_client_auth()), name).unwrap()
    }

    /// The records that a client sends.
    fn records(client: &mut ClientConnection) -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut records = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some(size) = record::size(rest).unwrap() {
            records.push(rest[..size].to_vec());
            rest = &rest[size..];
        }
        records
    }

    fn feed(client: &mut ClientConnection, mut bytes: &[u8]) -> Result<(), rustls::Error> {
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    fn shake(acceptor: &Acceptor, client: &mut ClientConnection) -> Result<Box<Secured>, Failed> {
        let mut handshake = acceptor.begin().unwrap();
        loop {
            for record in records(client) {
                let mut out = Vec::new();
                let next = handshake.step(&record, &mut out);
                assert!(acceptor.secrets.0.lock().unwrap().is_unknown(), "a step leaves no secret behind");
                let fed = feed(client, &out);
                match next? {
                    Next::Record(next) => handshake = next,
                    Next::Done(secured, _) => return fed.map(|()| secured).map_err(Failed),
                }
            }
        }
    }

    #[test]
    fn the_keys_go_on_where_rustls_ends_and_can_be_updated() {
        for version in [&TLS13, &TLS12] {
            let mut client = client(version, kx_group::X25519);
            let secured = shake(&acceptor(), &mut client).unwrap();
            let mut channel = secured.channel.borrow_mut();
            for round in 0..3 {
                let mut out = [0; 128];
                let size = channel.seal(0, Source::Outgoing, &[b"down"], &mut out).unwrap();
                feed(&mut client, &out[..size]).unwrap();
                channel.sent(&out[..size], size, |_| Source::Outgoing);
                let mut down = [0; 4];
                client.reader().read_exact(&mut down).unwrap();
                assert_eq!(&down, b"down", "{version:?}, round {round}");
                if version.version == ProtocolVersion::TLSv1_3 {
                    // It asks for ours, too.
                    client.refresh_traffic_keys().unwrap();
                }
                client.writer().write_all(b"up").unwrap();
                for mut record in records(&mut client) {
                    match channel.open(&mut record).unwrap() {
                        Input::Data(plain) => assert_eq!(&record[plain], b"up"),
                        other => assert_eq!(other, Input::Nothing),
                    }
                }
                while channel.has_own() {
                    let mut out = [0; OWN_SIZE_MAX];
                    let size = channel.own(&mut out).unwrap();
                    feed(&mut client, &out[..size]).unwrap();
                    assert!(channel.own_sent(&out[..size], size));
                }
            }
        }
    }

    #[test]
    fn without_the_traffic_secrets_a_handshake_fails() {
        for (version, needs_them) in [(&TLS13, true), (&TLS12, false)] {
            let mut acceptor = acceptor();
            let mut config = ServerConfig::clone(&acceptor.config);
            config.key_log = Arc::new(NoKeyLog {});
            acceptor.config = Arc::new(config);
            let shaken = shake(&acceptor, &mut client(version, kx_group::X25519));
            assert_eq!(shaken.is_err(), needs_them, "{version:?}");
        }
    }

    #[test]
    fn a_client_does_not_get_the_key_exchange_that_costs_most() {
        for version in [&TLS13, &TLS12] {
            for (group, is_fine) in
                [(kx_group::X25519, true), (kx_group::SECP256R1, true), (kx_group::SECP384R1, false)]
            {
                let shaken = shake(&acceptor(), &mut client(version, group));
                assert_eq!(shaken.is_ok(), is_fine, "{version:?} {group:?}");
            }
        }
    }
}
