//! Where the bench's connections come from.
//!
//! A relay on loopback sees many addresses, as it would of pages: it limits handshakes for each.
//! Owns how a number becomes an address. Doesn't know what a connection is for.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// One of the addresses of loopback, for a relay that is there too.
#[must_use]
pub fn source(relay: SocketAddr, number: usize) -> Option<Ipv4Addr> {
    let number = u32::try_from(number).unwrap_or_default();
    (relay.is_ipv4() && relay.ip().is_loopback()).then(|| Ipv4Addr::from(0x7f02_0001 + number % 0x00fc_0000))
}

/// Connects, from this address if there is one.
///
/// # Errors
/// The socket's.
pub fn from(source: Option<Ipv4Addr>, relay: SocketAddr, patience: Duration) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(relay), Type::STREAM, None)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    socket.connect_timeout(&relay.into(), patience)?;
    Ok(socket.into())
}
