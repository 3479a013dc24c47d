//! A connection's stream, watched for what it does, so that each phase can have its own timeout.
//!
//! Owns the phase: hyper says when a request has come and when its answer is made; the stream
//! itself shows when a head begins, when bytes of an answer leave and when all have left. When the
//! server closes, it first reads what the client has still sent: a socket closed with unread bytes
//! is reset, and the client loses the answer. Decides no timeout; `connection.rs` does.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
};

/// Bytes read after the server closed, before the socket is dropped anyway.
const LINGER_SIZE_MAX: usize = 256 << 10;

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing has come yet.
    Fresh,
    /// A head has begun.
    Head,
    /// A request is under way.
    Serving,
    /// An answer is being written.
    Answering,
    /// The answer is written; the next request has not begun.
    Idle,
    /// The server has closed, and reads what is left.
    Lingering,
}

/// A stream whose phases are known.
pub struct Watched<S> {
    stream: S,
    phase: Arc<watch::Sender<Phase>>,
    lingered_size: usize,
}

impl<S> Watched<S> {
    /// Watches a new connection.
    pub const fn new(stream: S, phase: Arc<watch::Sender<Phase>>) -> Self {
        Self { stream, phase, lingered_size: 0 }
    }

    /// The stream itself, no longer watched.
    pub fn into_inner(self) -> S {
        self.stream
    }

    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = bytes.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, bytes))?;
        if bytes.filled().len() > before && matches!(self.phase(), Phase::Fresh | Phase::Idle) {
            self.phase.send_replace(Phase::Head);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) && self.phase() == Phase::Answering {
            // The client takes bytes: its time begins anew.
            self.phase.send_replace(Phase::Answering);
        }
        written
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if self.phase() == Phase::Answering {
            self.phase.send_replace(Phase::Idle);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.phase() != Phase::Lingering {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.phase.send_replace(Phase::Lingering);
        }
        let mut room = [0; 4096];
        while self.lingered_size < LINGER_SIZE_MAX {
            let mut bytes = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut bytes))?;
            if bytes.filled().is_empty() {
                break;
            }
            self.lingered_size += bytes.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}
