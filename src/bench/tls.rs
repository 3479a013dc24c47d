//! TLS of the bench's pages: rustls shakes hands, then records are opened where they were read.
//!
//! Owns a page's keys, the way from records to plaintext and back, and whom to trust: the key that
//! the relay shows first. Refuses key updates, which are due after 16 million records: a shorter
//! run measures the same.

use std::borrow::Cow;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection};

use crate::config::Pin;
use crate::daemon::tls::handshake::keys;
use crate::daemon::tls::verify::Verifier;
use tls::keys::Keys;
use tls::record::{self, Content};
use tls::suite::{HEADER_SIZE, RECORD_SIZE_MAX, Suite, Version};

/// Handshake type of a ticket, which is passed over (RFC 8446, 4.6.1).
const NEW_SESSION_TICKET: u8 = 4;

/// The pages' side of handshakes. Each is a full one.
#[derive(Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// One connection after its handshake.
pub struct Line {
    suite: Suite,
    read: Keys,
    write: Keys,
    /// The record that is not yet whole.
    rest: Vec<u8>,
}

impl Client {
    /// A client that expects of the relay at this address the key that it shows now.
    ///
    /// # Errors
    /// The relay does not speak TLS 1.3.
    pub fn meet(relay: SocketAddr) -> Result<Self, String> {
        let (stranger, verifier) = Self::expecting(relay, Vec::new())?;
        let mut stream = TcpStream::connect(relay).map_err(|error| format!("{relay}: {error}"))?;
        stream.set_read_timeout(Some(super::PATIENCE)).map_err(|error| error.to_string())?;
        // Refused, but only after the key was shown.
        let refused = stranger.shake(&mut stream).err().unwrap_or_default();
        match verifier.shown() {
            Some(pin) => Ok(Self::expecting(relay, vec![pin])?.0),
            None => Err(refused),
        }
    }

    fn expecting(relay: SocketAddr, pins: Vec<Pin>) -> Result<(Self, Arc<Verifier>), String> {
        let provider = default_provider();
        let verifier = Arc::new(Verifier::new(None, pins, provider.signature_verification_algorithms));
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Verifier>::clone(&verifier))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.enable_secret_extraction = true;
        Ok((Self { config: Arc::new(config), name: ServerName::IpAddress(relay.ip().into()) }, verifier))
    }

    /// The first record of a handshake.
    ///
    /// # Errors
    /// rustls's own.
    pub fn hello(&self) -> Result<Vec<u8>, String> {
        let mut hello = Vec::new();
        self.begin()?.write_tls(&mut hello).map_err(|error| error.to_string())?;
        Ok(hello)
    }

    fn begin(&self) -> Result<ClientConnection, String> {
        ClientConnection::new(Arc::clone(&self.config), self.name.clone()).map_err(|error| format!("TLS: {error}"))
    }

    /// Shakes hands on a blocking socket. Reads no byte behind the handshake.
    ///
    /// # Errors
    /// The socket's or rustls's.
    pub fn shake(&self, stream: &mut TcpStream) -> Result<Line, String> {
        let said = |error: &dyn std::fmt::Display| format!("TLS: {error}");
        let mut connection = self.begin()?;
        let mut record = vec![0; RECORD_SIZE_MAX];
        loop {
            while connection.wants_write() {
                connection.write_tls(stream).map_err(|error| said(&error))?;
            }
            if !connection.is_handshaking() {
                break;
            }
            let (header, body) = record.split_at_mut(HEADER_SIZE);
            stream.read_exact(header).map_err(|error| said(&error))?;
            let size = usize::from(u16::from_be_bytes([header[3], header[4]]));
            let body = body.get_mut(..size).ok_or("TLS: a record that is too large")?;
            stream.read_exact(body).map_err(|error| said(&error))?;
            let mut whole = &record[..HEADER_SIZE + size];
            while !whole.is_empty() {
                connection.read_tls(&mut whole).map_err(|error| said(&error))?;
                connection.process_new_packets().map_err(|error| said(&error))?;
            }
        }
        let secrets = connection.dangerous_extract_secrets().map_err(|error| said(&error))?;
        let keys = |secrets| keys(Version::Tls13, secrets, [0; 32]).ok_or("TLS: a suite that the bench doesn't know");
        let ((suite, write), (_, read)) = (keys(secrets.tx)?, keys(secrets.rx)?);
        Ok(Line { suite, read, write, rest: Vec::new() })
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
    /// not yet a whole record.
    ///
    /// # Errors
    /// A record can't be opened, the relay ends the connection, or `take` fails.
    pub fn open(&mut self, bytes: &mut [u8], take: impl FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
        if self.rest.is_empty() {
            let used = self.records(bytes, take)?;
            self.rest.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut whole = std::mem::take(&mut self.rest);
        whole.extend_from_slice(bytes);
        let used = self.records(&mut whole, take)?;
        whole.drain(..used);
        self.rest = whole;
        Ok(())
    }

    /// Opens each whole record. Returns how many bytes they are.
    fn records(
        &mut self,
        bytes: &mut [u8],
        mut take: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<usize, String> {
        let mut used = 0;
        loop {
            let size = record::size(&bytes[used..]).map_err(|alert| format!("TLS: {alert:?}"))?;
            let Some(record) = size.and_then(|size| bytes.get_mut(used..used + size)) else { return Ok(used) };
            let whole = record.len();
            let (content, plain) =
                record::open(self.suite, &mut self.read, record).map_err(|alert| format!("TLS: {alert:?}"))?;
            match (content, &record[plain]) {
                (Content::ApplicationData, plain) => take(plain)?,
                (Content::Handshake, [NEW_SESSION_TICKET, ..]) => {}
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
