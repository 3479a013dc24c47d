//! A connected socket of a request, a page or the uplink, with TLS or without. No operation waits,
//! except for connecting.
//!
//! Owns the descriptor, and how it is read, written and shut down. TCP and Unix sockets behave
//! alike. To wait, a task polls. A batch writes to the descriptor itself. Doesn't know what the
//! bytes mean.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::task::{Context, Poll};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use smol::Async;

use super::sending::{Taken, send_slices};
use super::tls::secured::Secured;
use relay::transmit::Slices;

/// A connection.
#[derive(Debug)]
pub struct Stream {
    socket: Async<OwnedFd>,
    /// Its TLS, once hands are shaken.
    secured: Option<Box<Secured>>,
}

impl Stream {
    /// Wraps a connected socket.
    ///
    /// # Errors
    /// The reactor's own.
    pub fn new(socket: impl Into<OwnedFd>) -> io::Result<Self> {
        Ok(Self { socket: Async::new(socket.into())?, secured: None })
    }

    /// The same connection, from now on by TLS.
    pub fn secure(self, secured: Box<Secured>) -> Self {
        Self { secured: Some(secured), ..self }
    }

    /// Its TLS; `None` if it is plain.
    pub fn secured(&self) -> Option<&Secured> {
        self.secured.as_deref()
    }

    /// Connects by TCP.
    ///
    /// # Errors
    /// The system's own.
    pub async fn connect_tcp(address: impl Into<SocketAddr>) -> io::Result<Self> {
        Self::new(Async::<TcpStream>::connect(address).await?.into_inner()?)
    }

    /// Connects to a Unix stream socket.
    ///
    /// # Errors
    /// The system's own.
    pub async fn connect_unix(path: &Path) -> io::Result<Self> {
        Self::new(Async::<UnixStream>::connect(path).await?.into_inner()?)
    }

    /// Reads what has arrived; 0 if the peer has closed its side.
    ///
    /// # Errors
    /// `WouldBlock` if nothing has arrived, or the socket's own; with TLS also those of
    /// [`Secured::read`].
    pub fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        match &self.secured {
            Some(secured) => secured.read(self.as_fd(), into),
            None => self.receive(into, RecvFlags::empty()),
        }
    }

    /// Reads and discards what has arrived, without looking into it.
    ///
    /// # Errors
    /// `WouldBlock` if nothing has arrived, or the socket's own.
    pub fn discard(&self, nowhere: &mut [u8]) -> io::Result<usize> {
        self.receive(nowhere, RecvFlags::empty())
    }

    /// Leaves what has arrived where it is: 1 if something has, 0 if the peer has closed its side.
    ///
    /// # Errors
    /// `WouldBlock` if nothing has arrived, or the socket's own.
    pub fn peek(&self) -> io::Result<usize> {
        if self.secured.as_ref().is_some_and(|secured| secured.has_plain()) {
            return Ok(1);
        }
        self.receive(&mut [0], RecvFlags::PEEK)
    }

    fn receive(&self, into: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        Ok(retry_on_intr(|| recv(self, &mut *into, flags))?.0)
    }

    /// Writes as much as the socket takes. What it doesn't take must be offered again: with TLS, a
    /// part of it may have left.
    ///
    /// # Errors
    /// `WouldBlock` if it is full, or the socket's own.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(secured) = &self.secured else {
            return Ok(retry_on_intr(|| send(self, bytes, SendFlags::NOSIGNAL))?);
        };
        let written = secured.write(self.as_fd(), &[], |at, most, out| {
            let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
            let run = rest.get(..rest.len().min(usize::try_from(most).unwrap_or(usize::MAX))).unwrap_or_default();
            if out.push(run).is_ok() { run.len() as u64 } else { 0 }
        })?;
        match usize::try_from(written.progress.size - written.progress.begun) {
            Ok(size @ 1..) => Ok(size),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Writes several slices by one call, without TLS; 0 if the socket is full.
    ///
    /// # Errors
    /// The socket's own.
    pub fn write_slices(&self, slices: &Slices<'_>) -> Taken {
        send_slices(self.as_fd(), slices)
    }

    /// Shuts down our side; with TLS, after `close_notify`.
    ///
    /// # Errors
    /// The connection is over already.
    pub fn end_writing(&self) -> Result<(), Errno> {
        self.answer_end();
        shutdown(self, Shutdown::Write)
    }

    /// With TLS: sends `close_notify`, in answer to the peer's before the connection is dropped.
    pub fn answer_end(&self) {
        if let Some(secured) = &self.secured {
            secured.close(self.as_fd());
        }
    }

    /// Ready if something has arrived or the peer has closed its side; otherwise the task is woken
    /// then.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_readable(context)
    }

    /// Ready if the socket takes bytes; otherwise the task is woken then.
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_writable(context)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Two ends of a connection on loopback.
    pub fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Stream::new(listener.accept().unwrap().0).unwrap(), far)
    }

    #[test]
    fn nothing_waits_whatever_the_socket_is() {
        let (near, far) = UnixStream::pair().unwrap();
        let unix: (Stream, OwnedFd) = (Stream::new(near).unwrap(), far.into());
        let (near, far) = pair();
        for (near, far) in [unix, (near, far.into())] {
            let mut far = std::fs::File::from(far);
            let mut bytes = [0; 8];
            assert_eq!(near.read(&mut bytes).unwrap_err().kind(), ErrorKind::WouldBlock);
            far.write_all(b"hello").unwrap();
            while near.peek().is_err() {}
            assert_eq!((near.peek().unwrap(), near.read(&mut bytes).unwrap()), (1, 5));
            assert_eq!(near.write(b"a").unwrap(), 1);
            assert_eq!(near.write_slices(&Slices::from_slice(&[b"bc", b"d"]).unwrap()), Ok(3));
            near.end_writing().unwrap();
            let mut said = Vec::new();
            far.read_to_end(&mut said).unwrap();
            assert_eq!(said, b"abcd");
            assert!(near.write(b"more").is_err(), "and the process lives");
            drop(far);
            while near.read(&mut bytes).is_err() {}
            assert_eq!(near.read(&mut bytes).unwrap(), 0);
        }
    }

    #[test]
    fn a_full_socket_takes_nothing() {
        let (near, _far) = pair();
        let bytes = [0; 65_536];
        while near.write(&bytes).is_ok() {}
        assert_eq!(near.write(&bytes).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(near.write_slices(&Slices::from_slice(&[&bytes[..], &bytes]).unwrap()), Ok(0));
    }
}
