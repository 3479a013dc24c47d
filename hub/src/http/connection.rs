//! One connection: its place, TLS, HTTP/1.1, and the timeout of each phase.
//!
//! Owns the socket from `accept` to its end. A head has 5 s and 16 KiB; an answer must make
//! progress; between two requests the client may pause. Refuses connections that have no place. The
//! time of a body is `body.rs`'s, since a route may take bodies without end; a connection that
//! becomes a WebSocket is `socket.rs`'s from there on. Doesn't know routes.

use std::{
    convert::Infallible,
    future::poll_fn,
    net::IpAddr,
    pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Api,
    places::{Full, Kind, Place, is_trusted},
    socket,
    studio::Upgrade,
    watched::{Phase, Watched},
};

/// A TLS handshake has this time.
const TLS_TIME: Duration = Duration::from_secs(5);
/// A head has this time from its first byte on; the first byte of a connection has the same.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// The maximum size of a head, in bytes; larger ones are answered by 431.
const HEAD_SIZE_MAX: usize = 16 << 10;
/// The maximum number of header lines; more are answered by 431.
const HEADERS_MAX: usize = 64;
/// The read buffer of a connection, in bytes.
const BUFFER_SIZE_MAX: usize = 64 << 10;
/// Some bytes of an answer must leave in this time.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// The pause between two requests, longer than the 60 s after which common clients and proxies
/// close: so they close first, and no request meets a closing connection.
const IDLE_TIME: Duration = Duration::from_secs(75);
/// After the server closed, the client has this time to close too.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// What a head that was too slow gets.
const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
/// What a connection without a place gets, if it is in clear.
const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n\
    Content-Type: application/problem+json\r\nContent-Length: 164\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\
    \"detail\":\"too many connections; close idle ones, or come back later\",\"code\":\"too_many_connections\"}";

/// The place of a new connection. `None`: it was refused.
pub fn admit(api: &Arc<Api>, stream: &TcpStream, peer: IpAddr, has_tls: bool) -> Option<Place> {
    let settings = api.settings();
    let limits = settings.limits;
    // A proxy has the connections of many clients.
    let client = (!is_trusted(&settings.trusted_proxies, peer)).then_some(peer);
    let (whole_max, client_max) = (limits.connections_max, limits.connections_per_address_max);
    let full = match api.places.take(Kind::Connection, client, whole_max, client_max) {
        Ok(place) => return Some(place),
        Err(full) => full,
    };
    if api.places.complains(api.shared.read(|_, _, now| now)) {
        match full {
            Full::Whole => log::warn!("the API has {whole_max} connections: others are refused"),
            Full::Client => log::warn!("the API has {client_max} connections from {peer}: others are refused"),
        }
    }
    if !has_tls {
        // As much as the socket takes at once, which is all of it.
        let _ = stream.try_write(NO_PLACE);
    }
    None
}

/// Serves a connection until its end.
pub async fn attend(api: Arc<Api>, stream: TcpStream, peer: IpAddr, tls: Option<TlsAcceptor>, _place: Place) {
    // An answer must not wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    match tls {
        None => converse(api, stream, peer).await,
        Some(tls) => match timeout(TLS_TIME, tls.accept(stream)).await {
            Ok(Ok(stream)) => converse(api, stream, peer).await,
            Ok(Err(error)) => log::debug!("a TLS handshake of {peer} with the API failed: {error}"),
            Err(_) => log::debug!("a TLS handshake of {peer} with the API took more than {} s", TLS_TIME.as_secs()),
        },
    }
}

/// Serves requests on a stream until its end.
pub async fn converse<S: AsyncRead + AsyncWrite + Unpin>(api: Arc<Api>, stream: S, peer: IpAddr) {
    let phase = Arc::new(watch::Sender::new(Phase::Fresh));
    let mut phases = phase.subscribe();
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&phase)));
    let served = Arc::clone(&api);
    // Set by the answer after which this is a WebSocket.
    let upgrade = Arc::new(OnceLock::new());
    let upgrades = Arc::clone(&upgrade);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        phase.send_replace(Phase::Serving);
        let (api, phase, upgrades) = (Arc::clone(&served), Arc::clone(&phase), Arc::clone(&upgrades));
        Box::pin(async move {
            let mut response = super::answer(&api, peer, request).await;
            if let Some(upgrade) = response.extensions_mut().remove::<Upgrade>() {
                let _ = upgrades.set(upgrade);
            }
            phase.send_replace(Phase::Answering);
            Ok::<_, Infallible>(response)
        })
    });
    let mut connection = http1::Builder::new()
        .max_header_size(HEAD_SIZE_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_SIZE_MAX)
        .header_read_timeout(None)
        .serve_connection(io, service);
    let ended = api.ended();
    tokio::pin!(ended);
    let mut is_ending = false;
    loop {
        let phase = *phases.borrow_and_update();
        tokio::select! {
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => {
                if let Err(error) = ended {
                    log::debug!("a connection of {peer} with the API has ended: {error}");
                    return;
                }
                break;
            }
            _ = phases.changed() => {}
            () = &mut ended, if !is_ending => {
                if phase == Phase::Fresh {
                    return;
                }
                is_ending = true;
                pin::Pin::new(&mut connection).graceful_shutdown();
            }
            () = overdue(phase) => {
                if phase == Phase::Head {
                    let mut io = connection.into_parts().io.into_inner();
                    let _ = timeout(LINGER_TIME, async { io.write_all(TOO_SLOW).await?; io.shutdown().await }).await;
                }
                return;
            }
        }
    }
    let parts = connection.into_parts();
    let mut io = parts.io.into_inner();
    match upgrade.get() {
        Some(_place) => socket::serve(&api, io.into_inner(), &parts.read_buf, peer).await,
        None => drop(timeout(LINGER_TIME, io.shutdown()).await),
    }
}

/// Ends when a connection was in a phase for too long.
async fn overdue(phase: Phase) {
    sleep(match phase {
        Phase::Fresh | Phase::Head => HEAD_TIME,
        Phase::Answering => WRITE_TIME,
        Phase::Idle => IDLE_TIME,
        Phase::Lingering => LINGER_TIME,
        Phase::Serving => return std::future::pending().await,
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_without_a_place_is_a_whole_answer() {
        let text = std::str::from_utf8(NO_PLACE).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{}", body.len());
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["code"], "too_many_connections");
    }
}
