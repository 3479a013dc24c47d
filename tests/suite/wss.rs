//! Pages by TLS in tests: a certificate made by OpenSSL, and rustls's client on simple, blocking
//! sockets.
//!
//! A client trusts every server: what is tested is what the relay does, not whom it is. Records can
//! be taken out of a client before they are sent, so that a test can send parts of them.

use std::io::{self, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use async_tungstenite::tungstenite::{WebSocket, client};
use rustls::client::Resumption;
use rustls::{ClientConfig, ClientConnection, StreamOwned, SupportedProtocolVersion};

use crate::anyone;
use crate::world::{Folder, PATIENCE, upgrade_request};

/// A connection by TLS.
pub type Secured = StreamOwned<ClientConnection, TcpStream>;

/// A page by TLS.
pub type SecuredPage = WebSocket<Secured>;

/// The section `[tls]` of a relay's configuration, on any free port. Its certificate is made by
/// OpenSSL, once for all tests.
pub fn section() -> String {
    static FOLDER: OnceLock<Folder> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = Folder::new("wss");
        let made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=a.example -keyout key.pem -out chain.pem";
        let made = Command::new("openssl").current_dir(&folder.0).args(made.split(' ')).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        folder
    });
    let [chain, key] = ["chain.pem", "key.pem"].map(|name| folder.0.join(name));
    format!(
        "[tls]\nlisten = \"127.0.0.1:0\"\ncertificates = [{{ certificate_file = {chain:?}, key_file = {key:?} }}]\n"
    )
}

/// A client of these versions of TLS, without tickets: every handshake is a full one.
pub fn client_of(versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut config = anyone::client_of(versions);
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// A client of TLS 1.3, without tickets.
pub fn tls13() -> Arc<ClientConfig> {
    static CLIENT: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    Arc::clone(CLIENT.get_or_init(|| client_of(&[&rustls::version::TLS13])))
}

/// A handshake that has not begun.
pub fn fresh(client: &Arc<ClientConfig>) -> ClientConnection {
    let mut fresh = ClientConnection::new(Arc::clone(client), "a.example".try_into().unwrap()).unwrap();
    fresh.set_buffer_limit(None);
    fresh
}

/// Shakes hands on a blocking socket.
///
/// # Errors
/// The relay's alert, or what the socket says.
pub fn shake(mut socket: TcpStream, client: &Arc<ClientConfig>) -> io::Result<Secured> {
    let mut connection = fresh(client);
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(connection, socket))
}

/// The records that hold this plaintext, and that the client has to send by itself.
pub fn records(connection: &mut ClientConnection, plain: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    connection.writer().write_all(plain).unwrap();
    while connection.wants_write() {
        connection.write_tls(&mut records).unwrap();
    }
    records
}

/// Connects a page by TLS.
pub fn connect(address: std::net::SocketAddr) -> SecuredPage {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    client(upgrade_request("wss", address), shake(stream, &tls13()).unwrap()).expect("the upgrade").0
}
