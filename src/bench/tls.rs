//! TLS of the pages of bench and soak: rustls shakes hands, then records are opened where they were
//! read.
//!
//! Owns a page's keys, the way from records to plaintext and back, whom to trust (the key that the
//! relay shows first), and the tickets of pages that resume. Refuses key updates, which are due
//! after 16 million records: a shorter run measures the same.

use std::borrow::Cow;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, NamedGroup};

use super::source::{from, source};
use crate::config::Pin;
use crate::daemon::tls::handshake::keys;
use crate::daemon::tls::verify::{Verifier, pin_of};
use tls::keys::Keys;
use tls::record::{self, Content};
use tls::suite::{Suite, Version};

/// Handshake type of a ticket, which is passed over (RFC 8446, 4.6.1).
const NEW_SESSION_TICKET: u8 = 4;

/// The alert's number (RFC 8446, 6).
const CLOSE_NOTIFY: u8 = 0;

/// Tickets that the relay gives for each connection.
const TICKETS: usize = 2;

/// Addresses of visits for tickets begin here, behind that of the first visit; those of pages are
/// lower.
const TICKET_SOURCE: usize = 1 << 16;

/// Which suites of TLS 1.3 pages offer. The relay's order decides among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Suites {
    /// Both.
    #[default]
    Both,
    /// AES-128-GCM alone.
    Aes,
    /// ChaCha20-Poly1305 alone, as on a processor without instructions for AES.
    Chacha20,
}

/// The pages' side of handshakes.
#[derive(Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// Of pages that resume. Without them each handshake is a full one.
    tickets: Option<Arc<Tickets>>,
    /// Whether connections are only for their tickets.
    fetches: bool,
}

/// Tickets that the relay gave, each for one handshake.
#[derive(Default)]
struct Tickets(Mutex<Vec<Tls13ClientSessionValue>>);

/// One connection after its handshake.
pub struct Line {
    suite: Suite,
    read: Keys,
    write: Keys,
    /// The relay's key.
    pub shown: Pin,
    /// The record that is not yet whole.
    rest: Vec<u8>,
}

/// A handshake under way.
pub struct Shaking {
    connection: ClientConnection,
    /// Set if it has to resume a session.
    resumes: bool,
    /// The tickets, and how many of them end the handshake.
    fetched: Option<(Arc<Tickets>, usize)>,
    /// The record that is not yet whole.
    rest: Vec<u8>,
}

/// What became of a handshake.
pub enum Shaken {
    /// It goes on.
    Not(Box<Shaking>),
    /// It is done.
    Done(Box<Line>),
}

impl Client {
    /// A client that expects of the relay at this address the key that it shows now. With `tickets`
    /// it fetches that many first, and that many handshakes resume a session.
    ///
    /// # Errors
    /// The relay does not speak TLS 1.3, or gives no tickets.
    pub fn meet(relay: SocketAddr, suites: Suites, tickets: usize) -> Result<Self, String> {
        let (stranger, verifier) = Self::expecting(relay, Vec::new(), suites, false)?;
        // Refused, but only after the key was shown.
        let refused = stranger.visit(relay, TICKET_SOURCE - 1).err().unwrap_or_default();
        let pin = verifier.shown().ok_or(refused)?;
        let (mut client, _) = Self::expecting(relay, vec![pin], suites, tickets > 0)?;
        // A connection that resumes costs a ticket and brings two: so only the first is a full one.
        while let Some(count) = client.tickets.as_ref().map(|fetched| fetched.count()).filter(|count| *count < tickets)
        {
            client.visit(relay, TICKET_SOURCE + count)?;
        }
        client.fetches = false;
        Ok(client)
    }

    /// A client that expects one of these keys.
    ///
    /// # Errors
    /// rustls's own.
    pub fn of(relay: SocketAddr, pins: Vec<Pin>) -> Result<Self, String> {
        Ok(Self::expecting(relay, pins, Suites::Both, false)?.0)
    }

    fn expecting(
        relay: SocketAddr,
        pins: Vec<Pin>,
        suites: Suites,
        resumes: bool,
    ) -> Result<(Self, Arc<Verifier>), String> {
        // AES-256 is opened by nothing here; some servers would choose it.
        let cipher_suites = match suites {
            Suites::Both => vec![TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256],
            Suites::Aes => vec![TLS13_AES_128_GCM_SHA256],
            Suites::Chacha20 => vec![TLS13_CHACHA20_POLY1305_SHA256],
        };
        let provider = CryptoProvider { cipher_suites, ..default_provider() };
        let verifier = Arc::new(Verifier::new(None, pins, provider.signature_verification_algorithms));
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Verifier>::clone(&verifier))
            .with_no_client_auth();
        let tickets = resumes.then(Arc::<Tickets>::default);
        config.resumption = match &tickets {
            Some(tickets) => Resumption::store(Arc::<Tickets>::clone(tickets)),
            None => Resumption::disabled(),
        };
        config.enable_secret_extraction = true;
        let name = ServerName::IpAddress(relay.ip().into());
        Ok((Self { config: Arc::new(config), name, tickets, fetches: resumes }, verifier))
    }

    /// One handshake and no more, from the address with this number.
    fn visit(&self, relay: SocketAddr, number: usize) -> Result<(), String> {
        let mut stream = from(source(relay, number), relay, super::PATIENCE).map_err(|error| said(&error))?;
        stream.set_read_timeout(Some(super::PATIENCE)).map_err(|error| said(&error))?;
        self.shake(&mut stream).map(drop)
    }

    /// Begins a handshake; appends its first record to `out`.
    ///
    /// # Errors
    /// rustls's own.
    pub fn begin(&self, out: &mut Vec<u8>) -> Result<Box<Shaking>, String> {
        let connection =
            ClientConnection::new(Arc::clone(&self.config), self.name.clone()).map_err(|error| said(&error))?;
        let resumes = self.tickets.is_some() && !self.fetches;
        // The connection has taken its own.
        let fetched = self
            .tickets
            .as_ref()
            .filter(|_| self.fetches)
            .map(|tickets| (Arc::clone(tickets), tickets.count() + TICKETS));
        let mut shaking = Box::new(Shaking { connection, resumes, fetched, rest: Vec::new() });
        shaking.write(out);
        Ok(shaking)
    }

    /// Shakes hands on a blocking socket.
    ///
    /// # Errors
    /// The socket's or rustls's.
    pub fn shake(&self, stream: &mut TcpStream) -> Result<Line, String> {
        let mut out = Vec::new();
        let shaking = self.begin(&mut out)?;
        stream.write_all(&out).map_err(|error| said(&error))?;
        shaking.finish(stream)
    }
}

fn said(error: &dyn std::fmt::Display) -> String {
    format!("TLS: {error}")
}

impl Shaking {
    /// Goes on to the end, on a blocking socket.
    ///
    /// # Errors
    /// The socket's or rustls's.
    pub fn finish(self: Box<Self>, stream: &mut TcpStream) -> Result<Line, String> {
        let (mut shaking, mut out, mut bytes) = (self, Vec::new(), [0; 4096]);
        loop {
            let size = match stream.read(&mut bytes) {
                Ok(0) => return Err("TLS: the relay closed the connection during the handshake".to_owned()),
                read => read.map_err(|error| said(&error))?,
            };
            let shaken = shaking.take(&bytes[..size], &mut out)?;
            stream.write_all(&out).map_err(|error| said(&error))?;
            out.clear();
            match shaken {
                Shaken::Not(further) => shaking = further,
                Shaken::Done(line) => return Ok(*line),
            }
        }
    }

    /// Takes what the relay sent, and appends what is to be sent to it to `out`.
    ///
    /// # Errors
    /// rustls's own; `out` has the alert.
    pub fn take(mut self: Box<Self>, bytes: &[u8], out: &mut Vec<u8>) -> Result<Shaken, String> {
        self.rest.extend_from_slice(bytes);
        // Whole records, so that rustls has nothing of what comes behind the handshake.
        while self.connection.is_handshaking() || self.is_fetching() {
            let size = record::size(&self.rest).map_err(|alert| format!("TLS: {alert:?}"))?;
            let Some(size) = size.filter(|size| *size <= self.rest.len()) else { return Ok(Shaken::Not(self)) };
            let record: Vec<u8> = self.rest.drain(..size).collect();
            let mut unread = &record[..];
            while !unread.is_empty() {
                self.connection.read_tls(&mut unread).map_err(|error| said(&error))?;
                let processed = self.connection.process_new_packets();
                self.write(out);
                processed.map_err(|error| said(&error))?;
            }
        }
        if self.resumes && self.connection.handshake_kind() != Some(HandshakeKind::Resumed) {
            return Err("TLS: the relay did not resume the session".to_owned());
        }
        let certificate = self.connection.peer_certificates().and_then(<[_]>::first);
        let shown = certificate.and_then(|certificate| pin_of(certificate).ok()).ok_or("TLS: no certificate")?;
        let secrets = self.connection.dangerous_extract_secrets().map_err(|error| said(&error))?;
        let keys = |secrets| keys(Version::Tls13, secrets, [0; 32]).ok_or("TLS: a suite that the bench doesn't know");
        let ((suite, write), (_, read)) = (keys(secrets.tx)?, keys(secrets.rx)?);
        Ok(Shaken::Done(Box::new(Line { suite, read, write, shown, rest: self.rest })))
    }

    fn is_fetching(&self) -> bool {
        self.fetched.as_ref().is_some_and(|(tickets, wanted)| tickets.count() < *wanted)
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // Writing to a vector can't fail.
            let _ = self.connection.write_tls(out);
        }
    }
}

impl Tickets {
    fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No secrets, and small.
        out.write_str("Tickets")
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

impl Line {
    /// Seals `plain` as one record.
    ///
    /// # Errors
    /// It is too large for one.
    pub fn seal(&mut self, plain: &[u8]) -> Result<Vec<u8>, String> {
        let mut sealed = vec![0; plain.len() + self.suite.overhead()];
        record::seal(self.suite, &self.write, 0, Content::ApplicationData, &[plain], &mut sealed)
            .ok_or("TLS: a record that is too large")?;
        self.write.advance(1);
        Ok(sealed)
    }

    /// Opens the records in `bytes`, in place, and hands over each one's plaintext. Keeps what is
    /// not yet a whole record. Returns whether the relay may send more: `false` behind its
    /// `close_notify`.
    ///
    /// # Errors
    /// A record can't be opened, or `take` fails.
    pub fn open(&mut self, bytes: &mut [u8], take: impl FnMut(&[u8]) -> Result<(), String>) -> Result<bool, String> {
        if self.rest.is_empty() {
            let (used, is_open) = self.records(bytes, take)?;
            self.rest.extend_from_slice(&bytes[used..]);
            return Ok(is_open);
        }
        let mut whole = std::mem::take(&mut self.rest);
        whole.extend_from_slice(bytes);
        let (used, is_open) = self.records(&mut whole, take)?;
        whole.drain(..used);
        self.rest = whole;
        Ok(is_open)
    }

    /// Opens each whole record. Returns how many bytes they are, and as [`open`](Self::open).
    fn records(
        &mut self,
        bytes: &mut [u8],
        mut take: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(usize, bool), String> {
        let mut used = 0;
        loop {
            let size = record::size(&bytes[used..]).map_err(|alert| format!("TLS: {alert:?}"))?;
            let Some(record) = size.and_then(|size| bytes.get_mut(used..used + size)) else { return Ok((used, true)) };
            let whole = record.len();
            let (content, plain) =
                record::open(self.suite, &mut self.read, record).map_err(|alert| format!("TLS: {alert:?}"))?;
            match (content, &record[plain]) {
                (Content::ApplicationData, plain) => take(plain)?,
                (Content::Handshake, [NEW_SESSION_TICKET, ..]) => {}
                (Content::Alert, [_, CLOSE_NOTIFY]) => return Ok((used + whole, false)),
                (content, plain) => return Err(format!("TLS: the relay sent {content:?} {plain:02x?}")),
            }
            used += whole;
        }
    }
}

/// What is to be written for these bytes, by TLS or without.
///
/// # Errors
/// They are too many for one record.
pub fn sealed<'a>(line: Option<&mut Line>, plain: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
    line.map_or(Ok(Cow::Borrowed(plain)), |line| line.seal(plain).map(Cow::Owned))
}
