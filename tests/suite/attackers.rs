//! Connections that hold as much of a relay's memory as they can: pages and others, with TLS and
//! without.
//!
//! A page reads nothing, or a byte at a time, stops in the middle of a frame or of the longest
//! record, or floods. Others stop after each step of a handshake, or never begin one. `bounds.rs`
//! decides how many there are, and compares what they cost with the memory sum.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use board::Board;
use rustls::ClientConnection;
use socket2::{Domain, Socket, Type};

use crate::world::{masked, upgrade};
use crate::wss;

/// Where a relay's pages connect.
#[derive(Clone, Copy)]
pub struct Target {
    pub address: SocketAddr,
    pub is_tls: bool,
}

/// The plaintext of the longest record.
const RECORD: [u8; 16_384] = [b'x'; 16_384];

/// A connection with a tiny receive buffer, so that data for it queues at the relay. Every hundred
/// connections share a source address, as the board limits the rate for each address.
pub fn narrow(address: SocketAddr, number: usize) -> Option<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    let from = Ipv4Addr::new(127, 0, 1, u8::try_from(number / 100).unwrap() + 1);
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect_timeout(&address.into(), Duration::from_secs(5)).ok()?;
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    Some(stream)
}

/// A page that behaves badly, in one of four ways.
pub struct Attacker {
    socket: TcpStream,
    /// Its TLS.
    connection: Option<Box<ClientConnection>>,
    /// What it has begun to send.
    pending: Vec<u8>,
}

impl Attacker {
    /// A page with as many subscriptions as the board allows; `None` where the relay has no room.
    pub fn page(target: Target, board: &Board, number: usize) -> Option<Self> {
        let socket = narrow(target.address, number)?;
        let mut bytes = upgrade(target.address).into_bytes();
        let (seats, subscriptions) = (board.pages_max as usize, board.subscriptions_max as usize);
        for place in number * subscriptions / seats..(number + 1) * subscriptions / seats {
            let topic = place % board.topics_max as usize + 1;
            bytes.extend(masked(&format!(r#"{{"type":"subscribe","id":{topic},"link":"attacked-{topic}"}}"#)));
        }
        if number % 4 == 2 {
            // An unfinished frame of its own.
            bytes.extend(&masked(&"x".repeat(4_000))[..3_000]);
        }
        let mut first = [0; 12];
        let mut attacker = Self { socket, connection: None, pending: Vec::new() };
        if target.is_tls {
            let mut page = wss::shake(attacker.socket, &wss::tls13()).ok()?;
            page.write_all(&bytes).and_then(|()| page.flush()).ok()?;
            page.read_exact(&mut first).ok()?;
            let (mut connection, mut socket) = page.into_parts();
            let mut pending = Vec::new();
            if number % 4 == 2 || number % 8 == 7 {
                // And an unfinished record, of which it sends a byte at a time.
                let record = wss::records(&mut connection, &RECORD);
                let (now, later) = record.split_at(8_000);
                socket.write_all(now).ok()?;
                pending = later.to_vec();
            }
            attacker = Self { socket, connection: Some(Box::new(connection)), pending };
        } else {
            attacker.socket.write_all(&bytes).ok()?;
            attacker.socket.read_exact(&mut first).ok()?;
        }
        attacker.socket.set_nonblocking(true).unwrap();
        (&first == b"HTTP/1.1 101").then_some(attacker)
    }

    /// Goes on behaving badly; `false` if it was cut off.
    pub fn pester(&mut self, number: usize) -> bool {
        let done = match number % 4 {
            0 => self.socket.peek(&mut [0]),
            1 => self.socket.read(&mut [0]),
            _ => self.send_more(),
        };
        matches!(done, Ok(1..)) || done.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    fn send_more(&mut self) -> io::Result<usize> {
        if self.pending.len() > 1_000 {
            let sent = self.socket.write(&self.pending[..1])?;
            self.pending.drain(..sent);
            return Ok(sent);
        }
        let more = masked(r#"{"type":"subscribe","id":9,"link":"another"}"#);
        match &mut self.connection {
            None => return self.socket.write(&more),
            Some(connection) if self.pending.is_empty() => self.pending = wss::records(connection, &more),
            Some(_) => {}
        }
        let sent = self.socket.write(&self.pending)?;
        self.pending.drain(..sent);
        Ok(sent)
    }
}

/// A connection that never becomes a page, of a kind that `number` chooses; `None` if the relay
/// refused it.
pub fn stop_somewhere(target: Target, number: usize) -> Option<TcpStream> {
    let mut socket = narrow(target.address, number % 1000)?;
    if !target.is_tls {
        socket.write_all(b"GET /ws HTTP/1.1\r\nHost: half\r\nX-Half: ").ok()?;
        return Some(socket);
    }
    let mut hello = Vec::new();
    wss::fresh(&wss::tls13()).write_tls(&mut hello).unwrap();
    match number % 8 {
        0 => socket.write_all(b"GET / HTTP/1.1\r\nHost: plain\r\n\r\n").ok()?,
        // All but the last byte of the longest record that is taken.
        1 => socket.write_all(&[&[22, 3, 1, 0x1f, 0xfb][..], &[1; 8_186]].concat()).ok()?,
        // A hello in many records, without its end.
        2 => {
            let first = [&[22, 3, 1, 2, 0, 1, 0, 0x1f, 0x00][..], &[3; 508]].concat();
            let next = [&[22, 3, 1, 2, 0][..], &[3; 512]].concat();
            socket.write_all(&[first, next.repeat(14)].concat()).ok()?;
        }
        // A byte at a time.
        3 => {
            socket.set_nodelay(true).unwrap();
            hello[..60].chunks(1).try_for_each(|byte| socket.write_all(byte)).ok()?;
        }
        4 => socket.write_all(&hello).ok()?,
        // A hello that can't be read.
        5 => {
            hello[5..].fill(7);
            socket.write_all(&hello).ok()?;
        }
        // Hands are shaken.
        6 => socket = wss::shake(socket, &wss::tls13()).ok()?.into_parts().1,
        // And then a request begins.
        _ => {
            let (mut connection, shaken) = wss::shake(socket, &wss::tls13()).ok()?.into_parts();
            socket = shaken;
            let request = wss::records(&mut connection, &RECORD);
            socket.write_all(&request[..request.len() - 1]).ok()?;
        }
    }
    Some(socket)
}
