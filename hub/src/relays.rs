//! Relays: accepts their connections, with TLS or without, and moves bytes between them and the
//! machine.
//!
//! Owns the sockets. One task serves a relay: it reads, writes and keeps the relay's deadline. It
//! decides nothing: the machine says what is wrong with a relay, and the task closes the
//! connection.

use std::{
    collections::VecDeque,
    future::{pending, poll_fn},
    io,
    mem::take,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use business::RelayId;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::AbortHandle,
    time::{sleep, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::shared::Shared;

/// The size of one read, and about that of one write, in bytes.
pub const READ_SIZE: usize = 16 * 1024;
pub const WRITE_SIZE: usize = 64 * 1024;
/// The wait after an `accept` that failed: file descriptors are short.
const REST: Duration = Duration::from_millis(100);
/// A TLS handshake has this time.
const TLS_TIME: Duration = Duration::from_secs(5);
/// TLS handshakes of a listener under way; with more, the oldest is given up. After it the machine
/// bounds those that have not authenticated yet, in the same way.
pub const HANDSHAKES_MAX: usize = 64;
const GIVEN_UP: &str = "the connection was given up";

/// Accepts relays, for ever. TLS may be replaced; connections keep what they have.
pub async fn serve(shared: Arc<Shared>, listener: TcpListener, tls: watch::Receiver<Option<TlsAcceptor>>) {
    let mut handshakes = Handshakes::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let tls = tls.borrow().clone();
                let has_tls = tls.is_some();
                let task = tokio::spawn(attend(Arc::clone(&shared), stream, tls));
                if has_tls {
                    handshakes.add(task.abort_handle());
                }
            }
            Err(error) => {
                log::warn!("a relay could not be accepted: {error}");
                sleep(REST).await;
            }
        }
    }
}

/// TLS handshakes under way, oldest first.
#[derive(Default)]
struct Handshakes(VecDeque<AbortHandle>);

impl Handshakes {
    fn add(&mut self, handshake: AbortHandle) {
        self.0.retain(|other| !other.is_finished());
        if self.0.len() >= HANDSHAKES_MAX
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
            log::warn!("a relay's TLS handshake was given up: more than {HANDSHAKES_MAX} are under way");
        }
        self.0.push_back(handshake);
    }
}

/// With TLS it ends with the handshake; the relay then has a task of its own.
async fn attend(shared: Arc<Shared>, stream: TcpStream, tls: Option<TlsAcceptor>) {
    // A small frame must not wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    match tls {
        None => converse(&shared, stream).await,
        Some(tls) => match timeout(TLS_TIME, tls.accept(stream)).await {
            Ok(Ok(stream)) => drop(tokio::spawn(async move { converse(&shared, stream).await })),
            Ok(Err(error)) => log::warn!("a relay's TLS handshake failed: {error}"),
            Err(_) => log::warn!("a relay's TLS handshake took more than {} s", TLS_TIME.as_secs()),
        },
    }
}

async fn converse<S: AsyncRead + AsyncWrite>(shared: &Shared, stream: S) {
    let mut random = [0; 12];
    if let Err(error) = getrandom::fill(&mut random) {
        return log::error!("can't get random bytes, so a relay was refused: {error}");
    }
    let (reader, writer) = tokio::io::split(stream);
    let (relay, wakeup) = shared.connect(wire::uplink::marked(random));
    let why = tokio::select! {
        why = read(shared, relay, reader) => why,
        why = write(shared, relay, writer, &wakeup) => why,
        why = watch(shared, relay, &wakeup) => why,
    };
    shared.disconnect(relay, why);
}

async fn read<S: AsyncRead>(shared: &Shared, relay: RelayId, mut reader: ReadHalf<S>) -> String {
    let mut bytes = vec![0; READ_SIZE];
    loop {
        let size = match reader.read(&mut bytes).await {
            Ok(0) => return "it closed the connection".to_owned(),
            Ok(size) => size,
            Err(error) => return error.to_string(),
        };
        let read = bytes.get(..size).unwrap_or_default();
        if !shared.change(|hub, now| hub.received(now, relay, read)) {
            return GIVEN_UP.to_owned();
        }
    }
}

async fn write<S: AsyncWrite>(shared: &Shared, relay: RelayId, mut writer: WriteHalf<S>, wakeup: &Notify) -> String {
    let (mut frames, mut bytes) = (Vec::new(), Vec::new());
    loop {
        if !shared.take(relay, WRITE_SIZE, &mut frames) {
            return GIVEN_UP.to_owned();
        }
        // Not twice its size, as it would grow by itself.
        bytes.reserve_exact(frames.iter().map(|frame: &Arc<[u8]>| frame.len()).sum());
        frames.drain(..).for_each(|frame| bytes.extend_from_slice(&frame));
        if bytes.is_empty() {
            if shared.is_ending() {
                // The relay closes its side when it has read all. Closing this side at once could
                // lose what it has not read: the kernel resets a connection whose own input waits.
                return match writer.shutdown().await {
                    Ok(()) => pending().await,
                    Err(error) => error.to_string(),
                };
            }
            wakeup.notified().await;
        } else if let Err(error) = write_all(shared, relay, &mut writer, &bytes, wakeup).await {
            return error.to_string();
        }
        bytes.clear();
        // The capacity of a large chunk is not kept for ever.
        bytes.shrink_to(4 * WRITE_SIZE);
    }
}

async fn write_all<S: AsyncWrite>(
    shared: &Shared,
    relay: RelayId,
    writer: &mut WriteHalf<S>,
    mut bytes: &[u8],
    wakeup: &Notify,
) -> io::Result<()> {
    let mut had_to_wait = false;
    while !bytes.is_empty() {
        let written = poll_fn(|cx| {
            let written = Pin::new(&mut *writer).poll_write(cx, bytes);
            had_to_wait |= written.is_pending();
            written
        });
        let size = tokio::select! {
            size = written => size?,
            // The machine may have given it up.
            () = wakeup.notified() => match shared.relay_deadline(relay) {
                Some(_) => continue,
                None => return Err(io::Error::other(GIVEN_UP)),
            },
        };
        bytes = bytes.get(size..).unwrap_or_default();
        if size == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        // A full socket takes bytes again, so the relay is alive. One that was not full says
        // nothing: the kernel takes bytes for a relay that is gone, too.
        if take(&mut had_to_wait) {
            shared.took(relay);
        }
    }
    writer.flush().await
}

async fn watch(shared: &Shared, relay: RelayId, wakeup: &Notify) -> String {
    loop {
        let Some(deadline) = shared.relay_deadline(relay) else { return GIVEN_UP.to_owned() };
        sleep_until(deadline.into()).await;
        shared.change(|hub, now| hub.handle_relay_timeout(now.at, relay));
        wakeup.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_of_too_many_handshakes_is_given_up() {
        let mut handshakes = Handshakes::default();
        let done = tokio::spawn(async {});
        handshakes.add(done.abort_handle());
        done.await.unwrap();
        let mut tasks: VecDeque<_> = (0..HANDSHAKES_MAX).map(|_| tokio::spawn(std::future::pending::<()>())).collect();
        tasks.iter().for_each(|task| handshakes.add(task.abort_handle()));
        let last = tokio::spawn(std::future::pending::<()>());
        handshakes.add(last.abort_handle());
        assert!(tasks.pop_front().unwrap().await.unwrap_err().is_cancelled());
        assert!(tasks.iter().all(|task| !task.is_finished()) && !last.is_finished());
        assert_eq!(handshakes.0.len(), HANDSHAKES_MAX);
    }
}
