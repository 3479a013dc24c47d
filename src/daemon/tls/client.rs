//! The uplink's TLS: one connection to a business server, as its client.
//!
//! Owns the state of TLS between a socket and the uplink's bytes, with bounded buffers, and the
//! words for everything that can go wrong. TLS 1.3 alone, no public roots, no resumption: the
//! uplink is one connection for days. No operation blocks: the caller polls the socket. Doesn't
//! know what the bytes mean, nor which address it is connected to.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{IpAddr, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{AlertDescription, CertificateError, ClientConfig, ClientConnection, Error, PeerIncompatible};

use super::super::budget::Budget;
use super::super::stream::Stream;
use super::verify::{NotItsKey, OtherKey, Verifier, pin_of};
use crate::config::ca;
use crate::config::certificates::load as loaded;
use crate::config::{Pin, UplinkAddress, UplinkTls};
use crate::date::date_text;

/// Bytes that wait to be sealed or sent, at most: what the socket doesn't take stays with the
/// machine, whose buffer is a term of the memory sum.
const OUT_SIZE_MAX: usize = 16 * 1024;

/// Bytes of the server's handshake, at most; usual ones have 2 to 8 KiB. rustls would collect a
/// message of 64 KiB.
const HANDSHAKE_SIZE_MAX: usize = 16 * 1024;

/// Bytes after that without plaintext, at most: more than one record has, and more than all tickets
/// that a server sends at once.
const SILENT_SIZE_MAX: usize = 20 * 1024;

/// A connection's TLS.
pub struct Client {
    connection: ClientConnection,
    verifier: Arc<Verifier>,
    /// The relay's own key, if it has a certificate.
    own: Option<Pin>,
    /// Bytes came since the last call of [`take_heard`](Self::take_heard).
    heard: bool,
    /// Whether the handshake is done.
    is_shaken: bool,
    /// Bytes that came since the last plaintext, or of the handshake.
    silent_size: usize,
}

/// What there is to read.
#[derive(Debug, PartialEq, Eq)]
pub enum Filled {
    /// Plaintext.
    Data,
    /// The peer has closed the connection.
    Closed,
    /// Nothing until the socket is readable.
    Nothing,
    /// The turn is spent.
    Spent,
}

/// Why a connection is over.
#[derive(Debug)]
pub enum Fault {
    /// The socket's error.
    Io(io::Error),
    /// TLS can't go on, and why, in the words of the log.
    Tls(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The name to verify, or to ask for: the configured one, else the entry's own, else its address.
fn server_name(settings: &UplinkTls, entry: &UplinkAddress) -> Result<ServerName<'static>, String> {
    let named = settings.name.as_deref().or(match entry {
        UplinkAddress::Name(name, _) => Some(name.as_str()),
        _ => None,
    });
    let Some(name) = named else {
        return Ok(ServerName::IpAddress(match entry {
            UplinkAddress::Tcp(address) => address.ip().into(),
            UplinkAddress::LinkLocal(ip, ..) => IpAddr::from(std::net::IpAddr::V6(*ip)),
            // Verified with a pin alone, and an address is not sent.
            UplinkAddress::Name(..) | UplinkAddress::Unix(_) => std::net::IpAddr::from([127, 0, 0, 1]).into(),
        }));
    };
    let name = name.trim_end_matches('.');
    ServerName::try_from(name.to_owned()).map_err(|_| format!("{name} can't be a name in a certificate"))
}

impl Client {
    /// TLS for a connection to an entry. Reads the certificates' files: so a renewal takes effect
    /// with the next dial.
    ///
    /// # Errors
    /// Why the files can't be used, in the words of the log.
    pub fn begin(settings: &UplinkTls, entry: &UplinkAddress) -> Result<Self, String> {
        let roots = settings.ca_file.as_deref().map(ca::roots).transpose();
        let pair = settings.certificate.as_ref().map(|(certificate, key)| loaded(certificate, key));
        let (roots, pair) = roots.and_then(|roots| Ok((roots, pair.transpose()?))).map_err(|(what, _)| what)?;
        let provider = default_provider();
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Arc::new(Verifier::new(roots, settings.pins.clone(), algorithms));
        let own = pair.as_ref().and_then(|pair| pin_of(pair.certified.cert.first()?).ok());
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Verifier>::clone(&verifier));
        let mut config = match pair {
            Some(pair) => {
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::unwrap_or_clone(pair.certified))))
            }
            None => config.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        let name = server_name(settings, entry)?;
        let mut connection = ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
        connection.set_buffer_limit(Some(OUT_SIZE_MAX));
        Ok(Self { connection, verifier, own, heard: false, is_shaken: false, silent_size: 0 })
    }

    /// The relay's own key, if it has a certificate.
    pub const fn own(&self) -> Option<Pin> {
        self.own
    }

    /// The key that the server showed, also if it is refused.
    pub fn shown(&self) -> Option<Pin> {
        self.verifier.shown()
    }

    /// The cipher suite, once the handshake is done.
    pub fn suite(&self) -> Option<&'static str> {
        let suite = self.connection.negotiated_cipher_suite().filter(|_| !self.connection.is_handshaking());
        suite.and_then(|suite| suite.suite().as_str())
    }

    /// Whether bytes came since the last call: a sign of life, even if they are no plaintext yet.
    pub const fn take_heard(&mut self) -> bool {
        std::mem::replace(&mut self.heard, false)
    }

    /// Reads from the socket until there is plaintext.
    ///
    /// # Errors
    /// The connection is over.
    pub fn fill(&mut self, stream: &Stream, budget: &mut Budget) -> Result<Filled, Fault> {
        loop {
            let state = match self.connection.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    // The alert, as far as the socket takes it.
                    let _ = self.flush(stream);
                    return Err(Fault::Tls(text_of(&error)));
                }
            };
            self.flush(stream)?;
            if !self.is_shaken && !self.connection.is_handshaking() {
                (self.is_shaken, self.silent_size) = (true, 0);
            }
            if state.plaintext_bytes_to_read() > 0 {
                self.silent_size = 0;
                return Ok(Filled::Data);
            }
            if state.peer_has_closed() {
                return Ok(Filled::Closed);
            }
            if budget.is_spent() {
                return Ok(Filled::Spent);
            }
            budget.step();
            match self.connection.read_tls(&mut Socket(stream)) {
                Ok(0) => return Ok(Filled::Closed),
                Ok(size) => {
                    self.heard = true;
                    budget.take(size);
                    self.silent_size += size;
                    if !self.is_shaken && self.silent_size > HANDSHAKE_SIZE_MAX {
                        return Err(Fault::Tls(format!("its handshake has more than {HANDSHAKE_SIZE_MAX} bytes")));
                    }
                    if self.silent_size > SILENT_SIZE_MAX {
                        return Err(Fault::Tls(format!(
                            "it sent more than {SILENT_SIZE_MAX} bytes with nothing in them"
                        )));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Filled::Nothing),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes plaintext, which [`fill`](Self::fill) found.
    ///
    /// # Errors
    /// There is none.
    pub fn take_plaintext(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.connection.reader().read(into)
    }

    /// Seals plaintext, as much as has room; [`flush`](Self::flush) sends it.
    ///
    /// # Errors
    /// None of rustls's own.
    pub fn seal(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.connection.writer().write(bytes)
    }

    /// Sends what is sealed; returns whether the socket has taken all of it.
    ///
    /// # Errors
    /// The socket's.
    pub fn flush(&mut self, stream: &Stream) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Socket(stream)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Ends our side, as far as the socket takes it.
    pub fn close(&mut self, stream: &Stream) {
        self.connection.send_close_notify();
        let _ = self.flush(stream);
    }
}

/// A stream for rustls.
struct Socket<'a>(&'a Stream);

impl io::Read for Socket<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl io::Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What went wrong, for somebody who can change a configuration or a certificate.
fn text_of(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::InvalidMessage(_) => "it does not speak TLS (is it configured there?)".to_owned(),
        Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13)
        | Error::AlertReceived(AlertDescription::ProtocolVersion) => "it does not speak TLS 1.3".to_owned(),
        Error::PeerIncompatible(why) => format!("it does not speak TLS 1.3 as the relay does: {why:?}"),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "it asks for the relay's certificate: set certificate_file and key_file below [uplink.tls]".to_owned()
        }
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::DecryptError => "a record was damaged on its way".to_owned(),
        error => error.to_string(),
    }
}

fn of_alert(alert: AlertDescription) -> String {
    use AlertDescription as A;
    match alert {
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateRevoked
        | A::CertificateExpired
        | A::CertificateUnknown
        | A::UnknownCA
        | A::AccessDenied
        | A::DecryptError => format!("it refused the relay's certificate ({alert:?})"),
        A::UnrecognisedName => "it has no certificate for the name that was asked for".to_owned(),
        alert => format!("it ended TLS ({alert:?})"),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    let date = |time: rustls::pki_types::UnixTime| {
        i64::try_from(time.as_secs()).map_or_else(|_| "never".to_owned(), date_text)
    };
    match error {
        CertificateError::UnknownIssuer => "its certificate is not from a CA in uplink.tls.ca_file".to_owned(),
        CertificateError::BadSignature => {
            "its certificate is not from a CA in uplink.tls.ca_file: the signature is another's".to_owned()
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("its certificate expired on {}", date(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("its certificate begins on {}: is the clock right?", date(*not_before))
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            if presented.is_empty() {
                return format!("its certificate has no name (subjectAltName), and {expected} is expected");
            }
            let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
            format!("its certificate is for {}, and {expected} is expected (uplink.tls.name)", names.join(", "))
        }
        CertificateError::Other(other) => {
            let (pinned, own) = (other.0.downcast_ref::<OtherKey>(), other.0.downcast_ref::<NotItsKey>());
            pinned
                .map(ToString::to_string)
                .or_else(|| own.map(ToString::to_string))
                .unwrap_or_else(|| other.to_string())
        }
        error => format!("its certificate can't be accepted: {error}"),
    }
}

/// A name as webpki prints it, `DnsName("b.example")`, without what is around it.
fn bare(name: &str) -> &str {
    name.split('"').nth(1).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::path::PathBuf;
    use std::process::{Child, ChildStdin, Command, Stdio};
    use std::thread;
    use std::time::Duration;

    use std::future::poll_fn;
    use std::task::Poll;

    use super::super::handshake::keys;
    use super::*;
    use ::tls::record::{self, Content};
    use ::tls::suite::Version;
    use rustls::crypto::CryptoProvider;
    use rustls::crypto::ring::cipher_suite;

    /// A directory with the certificates of a test, removed at its end.
    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    impl Folder {
        /// The CAs `ca` and `other`; for `b.example` and 127.0.0.1 the certificates `b` of the one
        /// and `stranger` of the other, `old` and `bare` (without names), and `box` for a relay.
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sharelinkd-client-{test}-{}", std::process::id()));
            // A killed process with this number may have left it.
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir(&path).unwrap();
            let folder = Self(path);
            let names = "subjectAltName=DNS:b.example,IP:127.0.0.1";
            for ca in ["ca", "other"] {
                folder.key(ca);
                folder.run("openssl", &format!("req -x509 -new -key {ca}.key -subj /CN=CA -days 3650 -out {ca}.pem"));
            }
            for (name, ca, extension) in [
                ("b", "ca", names),
                ("stranger", "other", names),
                ("bare", "ca", ""),
                ("box", "ca", ""),
                ("old", "ca", names),
            ] {
                folder.key(name);
                std::fs::write(folder.0.join("extensions"), format!("basicConstraints=CA:FALSE\n{extension}\n"))
                    .unwrap();
                folder.run("openssl", &format!("req -new -key {name}.key -subj /CN={name} -out {name}.csr"));
                let issue = format!(
                    "x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -days 30 -extfile extensions -out {name}.pem"
                );
                folder.run_at((name == "old").then_some("@2020-01-01 00:00:00"), "openssl", &issue);
            }
            folder
        }

        fn key(&self, name: &str) {
            self.run("openssl", &format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"));
        }

        fn run(&self, program: &str, line: &str) {
            self.run_at(None, program, line);
        }

        /// `at`: what libfaketime makes of the clock. The program `faketime` fails where a killed
        /// process with its own number has left a semaphore; the library does not mind.
        fn run_at(&self, at: Option<&str>, program: &str, line: &str) {
            let mut command = Command::new(program);
            command.current_dir(&self.0).args(line.split(' '));
            if let Some(at) = at {
                command.env("LD_PRELOAD", libfaketime()).env("FAKETIME", at);
            }
            let done = command.output().unwrap();
            assert!(done.status.success(), "{program} {line}: {}", String::from_utf8_lossy(&done.stderr));
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        /// The pin of a certificate, as the manual says to find it.
        fn pin(&self, name: &str) -> Pin {
            let script = format!(
                "openssl x509 -in {name}.pem -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary"
            );
            let done = Command::new("sh").current_dir(&self.0).args(["-c", &script]).output().unwrap();
            Pin(done.stdout.try_into().unwrap())
        }

        fn settings(&self, ca: &str) -> UplinkTls {
            UplinkTls {
                ca_file: (!ca.is_empty()).then(|| self.path(ca)),
                pins: Vec::new(),
                name: Some("b.example".to_owned()),
                certificate: None,
                notes: Vec::new(),
            }
        }

        /// OpenSSL as a server with these options, which says hello once it has shaken hands.
        fn server(&self, options: &str) -> Server {
            let mut process = Command::new("openssl")
                .current_dir(&self.0)
                .args("s_server -accept 127.0.0.1:0".split(' '))
                .args(options.split(' '))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut said = BufReader::new(process.stdout.take().unwrap());
            let mut line = String::new();
            let address = loop {
                line.clear();
                assert!(said.read_line(&mut line).unwrap() > 0, "openssl s_server {options} has ended");
                if let Some(address) = line.strip_prefix("ACCEPT ") {
                    break address.trim().parse().unwrap();
                }
            };
            let mut input = process.stdin.take().unwrap();
            input.write_all(b"hello\n").unwrap();
            Server { process, address, said, input: Some(input) }
        }
    }

    fn libfaketime() -> PathBuf {
        let mut found = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
        let library = |folder: PathBuf| Some(folder.join("faketime/libfaketime.so.1")).filter(|path| path.exists());
        found.find_map(library).expect("libfaketime is missing: install the package faketime")
    }

    struct Server {
        process: Child,
        address: SocketAddr,
        said: BufReader<std::process::ChildStdout>,
        input: Option<ChildStdin>,
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    /// Shakes hands on a connection and reads until something is said; returns it, or why not.
    fn hear(client: &mut Client, stream: &Stream) -> Result<String, String> {
        let heard = poll_fn(|context| {
            let mut budget = Budget::TURN;
            match client.fill(stream, &mut budget) {
                Ok(Filled::Data) => {
                    let mut bytes = [0; 100];
                    let size = client.take_plaintext(&mut bytes).unwrap();
                    return Poll::Ready(Ok(String::from_utf8_lossy(&bytes[..size]).into_owned()));
                }
                Ok(Filled::Closed) => return Poll::Ready(Err("closed".to_owned())),
                Ok(Filled::Spent) => context.waker().wake_by_ref(),
                Ok(Filled::Nothing) => {
                    if stream.poll_readable(context).is_ready() {
                        context.waker().wake_by_ref();
                    }
                }
                Err(Fault::Tls(why)) => return Poll::Ready(Err(why)),
                Err(Fault::Io(error)) => return Poll::Ready(Err(error.to_string())),
            }
            Poll::Pending
        });
        let late = async {
            smol::Timer::after(Duration::from_secs(20)).await;
            Err("late".to_owned())
        };
        smol::block_on(smol::future::or(heard, late))
    }

    fn dial(settings: &UplinkTls, address: SocketAddr) -> (Client, Stream) {
        let client = Client::begin(settings, &UplinkAddress::Tcp(address)).unwrap();
        (client, smol::block_on(Stream::connect_tcp(address)).unwrap())
    }

    fn said(settings: &UplinkTls, address: SocketAddr) -> Result<String, String> {
        let (mut client, stream) = dial(settings, address);
        hear(&mut client, &stream)
    }

    const HELLO: Result<&str, &str> = Ok("hello\n");

    fn plain(result: &Result<String, String>) -> Result<&str, &str> {
        result.as_deref().map_err(String::as_str)
    }

    #[test]
    fn openssl_is_spoken_to_both_ways_and_both_keys_are_known() {
        let folder = Folder::new("both-ways");
        let mut server = folder.server("-tls1_3 -cert b.pem -key b.key -Verify 1 -CAfile ca.pem -verify_return_error");
        let settings = UplinkTls {
            certificate: Some((folder.path("box.pem"), folder.path("box.key"))),
            pins: vec![folder.pin("stranger"), folder.pin("b")],
            ..folder.settings("ca.pem")
        };
        let (mut client, stream) = dial(&settings, server.address);
        assert_eq!((client.suite(), client.shown(), client.own()), (None, None, Some(folder.pin("box"))));
        assert_eq!(plain(&hear(&mut client, &stream)), HELLO);
        assert!(client.suite().is_some_and(|suite| suite.starts_with("TLS13_")), "{:?}", client.suite());
        assert_eq!((client.shown(), client.own()), (Some(folder.pin("b")), Some(folder.pin("box"))));
        assert!(client.take_heard() && !client.take_heard());
        assert_eq!(client.seal(b"a word of the relay\n").unwrap(), 20);
        assert!(client.flush(&stream).unwrap());
        let mut line = String::new();
        while !line.contains("a word of the relay") {
            line.clear();
            assert!(server.said.read_line(&mut line).unwrap() > 0);
        }
        // A key update of the server's, which asks for ours: both go on.
        let mut input = server.input.take().unwrap();
        input.write_all(b"K\n").unwrap();
        // OpenSSL takes what it reads together with a command for a part of it.
        let again = thread::spawn(move || {
            while input.write_all(b"after it\n").is_ok() {
                thread::sleep(Duration::from_millis(50));
            }
        });
        let mut heard = String::new();
        while !heard.contains("after it") {
            heard += &hear(&mut client, &stream).unwrap();
        }
        client.seal(b"and back\n").unwrap();
        assert!(client.flush(&stream).unwrap());
        while !line.contains("and back") {
            line.clear();
            assert!(server.said.read_line(&mut line).unwrap() > 0);
        }
        client.close(&stream);
        while hear(&mut client, &stream).is_ok() {}
        let _ = server.process.kill();
        again.join().unwrap();
    }

    #[test]
    fn whom_to_trust_is_a_matter_of_ca_and_pin_and_each_error_has_its_words() {
        let folder = Folder::new("trust");
        let with = |ca: &str, pins: &[Pin]| UplinkTls { pins: pins.to_vec(), ..folder.settings(ca) };
        let (right, wrong) = (folder.pin("b"), folder.pin("stranger"));
        let mismatch = format!("its key has the pin {right}, which is not in uplink.tls.pin");
        let not_from = "its certificate is not from a CA in uplink.tls.ca_file";
        let named = |name: &str| UplinkTls { name: Some(name.to_owned()), ..folder.settings("ca.pem") };
        for (settings, expected) in [
            (with("ca.pem", &[]), HELLO),
            (with("", &[right]), HELLO),
            (with("", &[wrong, right]), HELLO),
            (with("ca.pem", &[right]), HELLO),
            (named("127.0.0.1"), HELLO),
            (UplinkTls { name: None, ..with("", &[right]) }, HELLO),
            (with("", &[wrong]), Err(&mismatch)),
            (with("ca.pem", &[wrong]), Err(&mismatch)),
            (with("other.pem", &[right]), Err(not_from)),
            (named("c.example"), Err("its certificate is for b.example, ")),
            (named("10.0.0.1"), Err("its certificate is for b.example, ")),
        ] {
            let server = folder.server("-tls1_3 -cert b.pem -key b.key");
            let said = said(&settings, server.address);
            match expected {
                Ok(expected) => assert_eq!(said.as_deref(), Ok(expected), "{settings:?}"),
                Err(expected) => {
                    assert!(said.as_ref().is_err_and(|why| why.starts_with(expected)), "{settings:?}: {said:?}")
                }
            }
        }
        // A CA of the same name with another key is another CA.
        let stranger = folder.server("-tls1_3 -cert stranger.pem -key stranger.key");
        let refused = said(&with("ca.pem", &[]), stranger.address).unwrap_err();
        assert!(refused.starts_with(not_from), "{refused}");
        // By its pin alone, a certificate's dates and names don't count.
        let old = folder.server("-tls1_3 -cert old.pem -key old.key");
        assert_eq!(plain(&said(&with("", &[folder.pin("old")]), old.address)), HELLO);
        let old = folder.server("-tls1_3 -cert old.pem -key old.key");
        let expired = said(&with("ca.pem", &[folder.pin("old")]), old.address).unwrap_err();
        assert!(expired.starts_with("its certificate expired on ") && expired.contains("Jan 2020"), "{expired}");
        let bare = folder.server("-tls1_3 -cert bare.pem -key bare.key");
        let bare = said(&with("ca.pem", &[]), bare.address).unwrap_err();
        assert_eq!(bare, "its certificate has no name (subjectAltName), and b.example is expected");
    }

    #[test]
    fn the_relay_s_certificate_is_shown_where_it_is_asked_for() {
        let folder = Folder::new("client");
        let options = "-tls1_3 -cert b.pem -key b.key -Verify 1 -verify_return_error -CAfile";
        let with = |name: &str| {
            let own = (folder.path(&format!("{name}.pem")), folder.path(&format!("{name}.key")));
            UplinkTls { certificate: Some(own), ..folder.settings("ca.pem") }
        };
        let server = folder.server(&format!("{options} ca.pem"));
        assert_eq!(plain(&said(&with("box"), server.address)), HELLO);
        let missing = said(&folder.settings("ca.pem"), server.address).unwrap_err();
        assert_eq!(
            missing,
            "it asks for the relay's certificate: set certificate_file and key_file below [uplink.tls]"
        );
        let server = folder.server(&format!("{options} other.pem"));
        for name in ["box", "old"] {
            let refused = said(&with(name), server.address).unwrap_err();
            assert!(refused.starts_with("it refused the relay's certificate ("), "{refused}");
        }
        // Files that are gone since the configuration was read.
        let error = Client::begin(&with("none"), &UplinkAddress::Name("b.example".to_owned(), 1)).err().unwrap();
        assert!(error.contains("none.pem") && error.contains("can't be read"), "{error}");
    }

    #[test]
    fn a_server_with_the_pinned_certificate_and_another_key_is_refused() {
        let folder = Folder::new("another-key");
        let own = loaded(&folder.path("stranger.pem"), &folder.path("stranger.key")).unwrap();
        let shown = loaded(&folder.path("b.pem"), &folder.path("b.key")).unwrap();
        let forged = rustls::sign::CertifiedKey::new(shown.certified.cert.clone(), own.certified.key.clone());
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(forged)));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let config = Arc::new(config);
        let forger = thread::spawn(move || {
            for _ in 0..3 {
                let mut server = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = listener.accept().unwrap().0;
                let _ = server.complete_io(&mut stream);
            }
        });
        let pinned = |ca: &str| UplinkTls { pins: vec![folder.pin("b")], ..folder.settings(ca) };
        for settings in [pinned(""), pinned("ca.pem"), folder.settings("ca.pem")] {
            let refused = said(&settings, address).unwrap_err();
            assert_eq!(refused, "it does not have the key of its certificate", "{settings:?}");
        }
        forger.join().unwrap();
    }

    /// A server that says as much as rustls would take: a message of 64 KiB, in pieces.
    fn hostile(mut stream: TcpStream) {
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).unwrap();
        // The beginning of a `ServerHello` of the greatest length.
        let message: Vec<u8> = [2, 0, 0xff, 0xff].into_iter().chain(std::iter::repeat_n(0, 0xffff)).collect();
        for piece in message.chunks(16 * 1024) {
            let head = [22, 3, 3, u8::try_from(piece.len() >> 8).unwrap(), u8::try_from(piece.len() & 0xff).unwrap()];
            let _ = stream.write_all(&[&head[..], piece].concat());
        }
        let _ = stream.read_to_end(&mut Vec::new());
    }

    /// The most heap that a connection to such a server takes, in bytes.
    fn heap_of(settings: &UplinkTls, server: impl FnOnce(TcpStream) + Send + 'static) -> (u64, Result<String, String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || server(listener.accept().unwrap().0));
        let stream = smol::block_on(Stream::connect_tcp(address)).unwrap();
        let mut said = Ok(String::new());
        let heap = allocation_counter::measure(|| {
            let mut client = Client::begin(settings, &UplinkAddress::Tcp(address)).unwrap();
            while said.is_ok() {
                said = hear(&mut client, &stream);
            }
        });
        drop(stream);
        server.join().unwrap();
        (heap.bytes_max, said)
    }

    #[test]
    fn tls_holds_no_more_than_its_term_whatever_the_server_says() {
        let folder = Folder::new("heap");
        let settings = UplinkTls {
            certificate: Some((folder.path("box.pem"), folder.path("box.key"))),
            ..folder.settings("ca.pem")
        };
        let (hostile, why) = heap_of(&settings, hostile);
        assert_eq!(plain(&why), Err("its handshake has more than 16384 bytes"));
        // The largest files that are accepted: 8 CAs, and a chain of 8 certificates of 12 KiB.
        let names: Vec<String> = (0..70).map(|at| format!("DNS:a-name-of-some-size-{at}")).collect();
        std::fs::write(folder.path("extensions"), format!("subjectAltName={}\n", names.join(","))).unwrap();
        folder.run(
            "openssl",
            "x509 -req -in box.csr -CA ca.pem -CAkey ca.key -days 30 -extfile extensions -out large.pem",
        );
        let text = |name: &str| std::fs::read_to_string(folder.path(name)).unwrap();
        std::fs::write(folder.path("chain.pem"), text("large.pem").repeat(6)).unwrap();
        std::fs::write(folder.path("cas.pem"), text("other.pem").repeat(7) + &text("ca.pem")).unwrap();
        let largest = UplinkTls {
            certificate: Some((folder.path("chain.pem"), folder.path("box.key"))),
            ..folder.settings("cas.pem")
        };
        let server = folder.server("-tls1_3 -cert b.pem -key b.key -Verify 1");
        let stream = smol::block_on(Stream::connect_tcp(server.address)).unwrap();
        let large = allocation_counter::measure(|| {
            let mut client = Client::begin(&largest, &UplinkAddress::Tcp(server.address)).unwrap();
            assert_eq!(plain(&hear(&mut client, &stream)), HELLO);
        });
        let pair = loaded(&folder.path("b.pem"), &folder.path("b.key")).unwrap();
        let cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(CryptoProvider {
            cipher_suites,
            ..default_provider()
        }))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from((*pair.certified).clone())));
        config.enable_secret_extraction = true;
        let config = Arc::new(config);
        let shaking = Arc::clone(&config);
        // A ticket of the greatest length, in pieces.
        let (ticket, why) = heap_of(&settings, move |mut stream| {
            let mut server = rustls::ServerConnection::new(shaking).unwrap();
            server.complete_io(&mut stream).unwrap();
            let secrets = server.dangerous_extract_secrets().unwrap();
            let (suite, mut keys) = keys(Version::Tls13, secrets.tx, [0; 32]).unwrap();
            let message: Vec<u8> = [4, 0, 0xff, 0xff].into_iter().chain(std::iter::repeat_n(0, 0xffff)).collect();
            for piece in message.chunks(8 * 1024) {
                let mut record = vec![0; piece.len() + suite.overhead()];
                record::seal(suite, &keys, 0, Content::Handshake, &[piece], &mut record).unwrap();
                keys.advance(1);
                let _ = stream.write_all(&record);
            }
            let _ = stream.read_to_end(&mut Vec::new());
        });
        assert_eq!(plain(&why), Err("it sent more than 20480 bytes with nothing in them"));
        let (honest, why) = heap_of(&settings, move |mut stream| {
            let mut server = rustls::ServerConnection::new(config).unwrap();
            server.complete_io(&mut stream).unwrap();
            // As fast as the socket takes it, in the largest records.
            for _ in 0..200 {
                server.writer().write_all(&[0; 16 * 1024]).unwrap();
                while server.wants_write() {
                    server.write_tls(&mut stream).unwrap();
                }
            }
        });
        assert_eq!(plain(&why), Err("closed"));
        let most = [("hostile", hostile), ("ticket", ticket), ("large", large.bytes_max), ("honest", honest)];
        assert!(most.iter().all(|(_, size)| *size <= board::UPLINK_TLS_SIZE as u64), "{most:?}");
        println!("{most:?}");
    }

    #[test]
    fn what_is_no_tls_1_3_is_said() {
        let folder = Folder::new("no-tls");
        let old = folder.server("-tls1_2 -cert b.pem -key b.key");
        let refused = said(&folder.settings("ca.pem"), old.address).unwrap_err();
        assert_eq!(refused, "it does not speak TLS 1.3");
        for (answer, expected) in [
            (&b"\x13\0\0\0\0\x01 a challenge without TLS"[..], "it does not speak TLS (is it configured there?)"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it does not speak TLS (is it configured there?)"),
            (b"\x16\x03", "closed"),
            (b"", "closed"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = thread::spawn(move || {
                let mut stream: TcpStream = listener.accept().unwrap().0;
                let mut hello = [0; 5];
                stream.read_exact(&mut hello).unwrap();
                stream.write_all(answer).unwrap();
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
            });
            assert_eq!(plain(&said(&folder.settings("ca.pem"), address)), Err(expected));
            server.join().unwrap();
        }
    }
}
