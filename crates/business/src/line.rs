//! A relay's connection, with TLS or without: for the shell in `serve.rs`.
//!
//! Owns the socket and, behind the feature `tls`, rustls's state, whose buffers are limited. One
//! task reads and another one writes; neither holds that state while it waits. A client that is
//! refused gets the alert that says why. Doesn't know what the bytes mean.

use std::io::{self, Write as _};
use std::net::TcpStream;

use futures_lite::AsyncReadExt as _;
#[cfg(feature = "tls")]
use futures_lite::FutureExt as _;
use smol::Async;

/// A connection.
pub struct Line {
    stream: Async<TcpStream>,
    #[cfg(feature = "tls")]
    tls: Option<core::cell::RefCell<rustls::ServerConnection>>,
}

impl Line {
    /// A connection without TLS.
    pub const fn plain(stream: Async<TcpStream>) -> Self {
        Self {
            stream,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// A connection with TLS, which shakes hands as it is read and written.
    ///
    /// # Errors
    /// rustls's own.
    #[cfg(feature = "tls")]
    pub fn tls(stream: Async<TcpStream>, config: std::sync::Arc<rustls::ServerConfig>) -> io::Result<Self> {
        let mut connection = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
        connection.set_buffer_limit(Some(OUT_SIZE_MAX));
        Ok(Self { stream, tls: Some(core::cell::RefCell::new(connection)) })
    }

    /// Reads what arrives next; 0 if the relay has closed the connection.
    ///
    /// # Errors
    /// The socket's, or what is wrong with the relay's TLS.
    pub async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            loop {
                let step = step(&mut tls.borrow_mut(), self.stream.get_ref(), into)?;
                match step {
                    Step::Read(size) => return Ok(size),
                    // Yield to other tasks, however much arrives.
                    Step::Again => smol::future::yield_now().await,
                    Step::Wait { wants_write: false } => self.stream.readable().await?,
                    Step::Wait { wants_write: true } => self.stream.readable().or(self.stream.writable()).await?,
                }
            }
        }
        (&self.stream).read(into).await
    }

    /// Writes as much as has room.
    ///
    /// # Errors
    /// `WouldBlock` if there is none, or the socket's own.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let connection = &mut tls.borrow_mut();
            flush(connection, self.stream.get_ref())?;
            let size = connection.writer().write(bytes)?;
            return match flush(connection, self.stream.get_ref()) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                // Before the handshake is done, there is room for little.
                _ if size == 0 => Err(io::ErrorKind::WouldBlock.into()),
                _ => Ok(size),
            };
        }
        self.stream.get_ref().write(bytes)
    }

    /// Sends what was written, as far as TLS holds it.
    ///
    /// # Errors
    /// `WouldBlock` if the socket is full, or the socket's own.
    pub fn flush(&self) -> io::Result<()> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return flush(&mut tls.borrow_mut(), self.stream.get_ref());
        }
        Ok(())
    }

    /// Waits until the socket has room.
    ///
    /// # Errors
    /// The reactor's.
    pub async fn writable(&self) -> io::Result<()> {
        self.stream.writable().await
    }
}

/// Bytes that wait to be sealed or sent, at most.
#[cfg(feature = "tls")]
const OUT_SIZE_MAX: usize = 64 * 1024;

#[cfg(feature = "tls")]
enum Step {
    Read(usize),
    Again,
    Wait { wants_write: bool },
}

/// Takes plaintext, or else reads once from the socket.
#[cfg(feature = "tls")]
fn step(connection: &mut rustls::ServerConnection, mut stream: &TcpStream, into: &mut [u8]) -> io::Result<Step> {
    use std::io::Read as _;
    match connection.reader().read(into) {
        Ok(size) => return Ok(Step::Read(size)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Step::Read(0)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(error),
    }
    // What the handshake has to say first. A full socket is waited for below.
    if let Err(error) = flush(connection, stream)
        && error.kind() != io::ErrorKind::WouldBlock
    {
        return Err(error);
    }
    match connection.read_tls(&mut stream) {
        Ok(0) => return Ok(Step::Read(0)),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Ok(Step::Wait { wants_write: connection.wants_write() });
        }
        Err(error) => return Err(error),
    }
    let processed = connection.process_new_packets();
    // TLS answers to what was read, and says why it refuses it.
    let _ = flush(connection, stream);
    processed.map_err(|error| io::Error::other(format!("TLS failed: {error}")))?;
    Ok(Step::Again)
}

#[cfg(feature = "tls")]
fn flush(connection: &mut rustls::ServerConnection, mut stream: &TcpStream) -> io::Result<()> {
    while connection.wants_write() {
        connection.write_tls(&mut stream)?;
    }
    Ok(())
}
