//! TLS: the same API behind it, a certificate that is replaced, and handshakes that don't come.
//!
//! Owns certificates made for the test alone. Which certificates the program loads, and how, is
//! tested where they are loaded.

use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::Full;
use hyper::Request;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::PrivateKeyDer};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use super::{DEADLINE, Server, got};

/// An acceptor with a new certificate, and a client that trusts it alone.
fn pair() -> (TlsAcceptor, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(["hub.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder().with_no_client_auth();
    let server = server.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)))
}

async fn health(server: &Server, connector: &TlsConnector) -> Result<u16, std::io::Error> {
    let stream = TcpStream::connect(server.address).await?;
    let stream = connector.connect("hub.example".try_into().unwrap(), stream).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/healthz").body(Full::<hyper::body::Bytes>::default()).unwrap();
    Ok(got(sender.send_request(request).await.unwrap()).await.status.as_u16())
}

#[tokio::test]
async fn a_new_certificate_holds_from_the_next_connection_on() {
    let server = Server::start().await;
    assert_eq!(server.call_as("", "GET", "/healthz", &[], "").await.status, 200);
    let (first, second) = (pair(), pair());
    server.tls.send_replace(Some(first.0));
    assert_eq!(health(&server, &first.1).await.unwrap(), 200);
    assert!(health(&server, &second.1).await.is_err());
    server.tls.send_replace(Some(second.0));
    assert_eq!(health(&server, &second.1).await.unwrap(), 200);
    assert!(health(&server, &first.1).await.is_err());
}

#[tokio::test]
async fn the_studios_websocket_goes_through_it() {
    let server = Server::start().await;
    let (acceptor, connector) = pair();
    server.tls.send_replace(Some(acceptor));
    let stream = TcpStream::connect(server.address).await.unwrap();
    let stream = connector.connect("hub.example".try_into().unwrap(), stream).await.unwrap();
    let mut request = "wss://hub.example/studio/ws".into_client_request().unwrap();
    request.headers_mut().insert("origin", "https://hub.example".parse().unwrap());
    let (mut socket, _) = client_async(request, stream).await.unwrap();
    socket.send(Message::text(r#"{"token":"slt_x","topic":"room"}"#)).await.unwrap();
    let said = timeout(DEADLINE, socket.next()).await.unwrap().unwrap().unwrap();
    assert!(said.to_text().unwrap().contains("unknown_key"), "{said}");
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_cut_off() {
    let server = Server::start().await;
    server.tls.send_replace(Some(pair().0));
    assert_eq!(server.raw(b"").await, "");
    assert!(!server.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.contains("HTTP/1.1"), "in clear");
}
