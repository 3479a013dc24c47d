//! The uplink's connection: a stream, with or without TLS on it.
//!
//! Both kinds have the same interface. No operation blocks; a read takes from the turn's budget.
//! Doesn't know what the bytes mean.

use std::io;
use std::task::{Context, Poll};

use super::budget::Budget;
use super::stream::Stream;
pub use super::tls::client::{Client, Fault, Filled};

/// A connection.
pub struct Line {
    stream: Stream,
    tls: Option<Box<Client>>,
}

impl Line {
    /// A connection on a connected stream; TLS shakes hands as it is read and written.
    pub fn new(stream: Stream, tls: Option<Client>) -> Self {
        Self { stream, tls: tls.map(Box::new) }
    }

    /// The stream, for what the kernel knows of it.
    pub const fn stream(&self) -> &Stream {
        &self.stream
    }

    /// TLS, if there is any.
    pub fn tls(&self) -> Option<&Client> {
        self.tls.as_deref()
    }

    /// Whether bytes came that [`read`](Self::read) has not returned: a sign of life.
    pub fn take_heard(&mut self) -> bool {
        self.tls.as_mut().is_some_and(|tls| tls.take_heard())
    }

    /// Finds out what there is to read, and leaves it there.
    ///
    /// # Errors
    /// The connection is over.
    pub fn fill(&mut self, budget: &mut Budget) -> Result<Filled, Fault> {
        match &mut self.tls {
            Some(tls) => tls.fill(&self.stream, budget),
            None => match self.stream.peek() {
                Ok(0) => Ok(Filled::Closed),
                Ok(_) => Ok(Filled::Data),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Filled::Nothing),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// Reads what has arrived, or says why there is nothing.
    ///
    /// # Errors
    /// The connection is over.
    pub fn read(&mut self, into: &mut [u8], budget: &mut Budget) -> Result<(Filled, usize), Fault> {
        let into = budget.clip(into);
        let Some(tls) = &mut self.tls else {
            return match self.stream.read(into) {
                Ok(0) => Ok((Filled::Closed, 0)),
                Ok(size) => {
                    budget.take(size);
                    Ok((Filled::Data, size))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((Filled::Nothing, 0)),
                Err(error) => Err(error.into()),
            };
        };
        match tls.fill(&self.stream, budget)? {
            Filled::Data => Ok((Filled::Data, tls.take_plaintext(into)?)),
            filled => Ok((filled, 0)),
        }
    }

    /// Writes as much as has room, which is 0 if there is none.
    ///
    /// # Errors
    /// The socket's.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => match tls.flush(&self.stream)? {
                true => {
                    let size = tls.seal(bytes)?;
                    tls.flush(&self.stream)?;
                    Ok(size)
                }
                false => Ok(0),
            },
            None => match self.stream.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                written => written,
            },
        }
    }

    /// Sends what TLS has ready; returns whether the socket has taken all of it.
    ///
    /// # Errors
    /// The socket's.
    pub fn flush(&mut self) -> io::Result<bool> {
        self.tls.as_mut().map_or(Ok(true), |tls| tls.flush(&self.stream))
    }

    /// Ends our side where TLS wants that said.
    pub fn close(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.close(&self.stream);
        }
    }

    /// As of [`Stream::poll_readable`].
    ///
    /// # Errors
    /// The reactor's.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_readable(context)
    }

    /// As of [`Stream::poll_writable`].
    ///
    /// # Errors
    /// The reactor's.
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_writable(context)
    }
}
