//! Sends an answer and watches it arrive: how long that may take, and how a connection ends.
//!
//! An answer is limited by its progress, not by its total time. A connection keeps its HTTP place
//! until its answer has arrived and the peer has closed, or, over TLS, sends its next request.
//! Doesn't know what an answer says.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use smol::{Timer, future};
use socket2::SockRef;

use super::exchange::{Behind, linger, readable, write_all};
use super::heads::{PROGRESS_PER_S, Place};
use super::response::Response;
use super::socket_queues;
use super::stream::Stream;
use crate::clock::{self, Clock};

/// An answer is given up if less than [`PROGRESS_PER_S`] arrives over this time. So a peer that
/// takes nothing doesn't keep its place, and one on a slow line gets the whole answer, however long
/// it takes.
const STALLED_MS_MAX: u64 = 10_000;
/// How long a connection is still read once its answer has arrived. Closing it earlier would answer
/// further bytes with a reset, and some systems then discard what the program has not read yet.
const LINGER_TIME_MAX: Duration = Duration::from_secs(10);
/// Poll interval of an answer's progress; it doubles from the shortest, since most answers arrive
/// at once.
const LOOK_TIME_MIN: Duration = Duration::from_millis(25);
const LOOK_TIME_MAX: Duration = Duration::from_secs(1);
/// How long an answered TLS connection waits for its next request. Meanwhile its place is the first
/// to be given to another.
const IDLE_TIME_MAX: Duration = Duration::from_secs(5);

/// Closes a connection that was answered. Once the answer has arrived, a close without a reset
/// leaves nothing of ours in the kernel, and a reset could make the peer discard what it has not
/// read yet.
pub fn end(place: &Place, stream: Stream) {
    if place.is_answered() {
        let _ = stream.end_writing();
        let _ = SockRef::from(&stream).set_linger(None);
    }
    drop(stream);
}

/// Sends an answer, and waits until it has arrived and the peer has closed, within the limits.
pub async fn send(clock: &Clock, place: &Place, stream: &Stream, answer: &Response) {
    finish(clock, place, stream, &answer.head(clock::date().as_deref()), answer.body()).await;
}

/// Sends the last bytes of a connection, and waits until they and those before have arrived.
pub async fn finish(clock: &Clock, place: &Place, stream: &Stream, head: &[u8], body: &[u8]) {
    let arrival = Arrival::of(stream, (head.len() + body.len()) as u64);
    let is_left = Cell::new(false);
    let write = async {
        if write_all(stream, head).await.is_ok() && write_all(stream, body).await.is_ok() {
            arrival.is_written.set(true);
            if linger(stream).await == Behind::TooMuch {
                return;
            }
            // A peer may close its side first and still wait for the whole answer. Once both sides
            // are closed, the kernel reports no progress any more.
            is_left.set(true);
            if matches!(arrival.acknowledged(), Ok(Some(bytes)) if !arrival.has_arrived(bytes)) {
                future::pending::<()>().await;
            }
            place.answer_arrived();
        }
    };
    let watch = async {
        if arrival.watch(clock, place).await && !is_left.get() {
            Timer::after(LINGER_TIME_MAX).await;
        }
    };
    future::or(write, watch).await;
}

/// Sends an answer, and waits for the next request within the limits, or for none if its beginning
/// `is_here`. `false` if there is none.
pub async fn send_and_stay(clock: &Clock, place: &Place, stream: &Stream, answer: &Response, is_here: bool) -> bool {
    let (head, body) = (answer.head(clock::date().as_deref()), answer.body());
    let arrival = Arrival::of(stream, (head.len() + body.len()) as u64);
    let talk = async {
        let is_sent = write_all(stream, &head).await.is_ok() && write_all(stream, body).await.is_ok();
        arrival.is_written.set(true);
        is_sent && (is_here || readable(stream).await.is_ok())
    };
    let watch = async {
        if arrival.watch(clock, place).await {
            Timer::after(IDLE_TIME_MAX).await;
        }
        false
    };
    future::or(talk, watch).await
}

/// How much of an answer has arrived.
struct Arrival<'a> {
    stream: &'a Stream,
    /// The answer's size. With TLS it is not known how many bytes carry it.
    size: u64,
    /// Bytes that were acknowledged before it: with TLS, of the handshake and of earlier answers.
    before: u64,
    is_written: Cell<bool>,
}

impl<'a> Arrival<'a> {
    fn of(stream: &'a Stream, size: u64) -> Self {
        let before = stream.secured().and_then(|_| socket_queues::acknowledged(stream).ok().flatten()).unwrap_or(0);
        Self { stream, size, before, is_written: Cell::new(false) }
    }

    /// Bytes that were acknowledged since; `None` if the connection is over.
    ///
    /// # Errors
    /// The kernel doesn't report it.
    fn acknowledged(&self) -> io::Result<Option<u64>> {
        let all = socket_queues::acknowledged(self.stream)?;
        Ok(all.map(|all| all.saturating_sub(self.before)))
    }

    /// Whether the whole answer has arrived, given what was acknowledged: our FIN counts as a byte.
    /// With TLS, once the kernel has nothing left.
    fn has_arrived(&self, acknowledged: u64) -> bool {
        match self.stream.secured() {
            None => acknowledged > self.size,
            Some(_) => self.is_written.get() && socket_queues::untaken(self.stream).is_none_or(|left| left == 0),
        }
    }

    /// Waits while the answer makes progress; `true` once it has arrived.
    async fn watch(&self, clock: &Clock, place: &Place) -> bool {
        let since = clock.now();
        let (mut arrived, mut until, mut wait) = (0, since.after(STALLED_MS_MAX), LOOK_TIME_MIN);
        place.answer_arrives(since, arrived);
        loop {
            Timer::after(wait).await;
            wait = (wait * 2).min(LOOK_TIME_MAX);
            let now = clock.now();
            let newest = match self.acknowledged() {
                Ok(Some(newest)) => newest,
                Ok(None) => return false,
                // The kernel doesn't report progress: wait as long as the minimum progress would
                // take.
                Err(_) if now.since(since) < STALLED_MS_MAX + self.size * 1000 / PROGRESS_PER_S => continue,
                Err(_) => return false,
            };
            if self.has_arrived(newest) {
                place.answer_arrived();
                return true;
            }
            // TCP_USER_TIMEOUT counts from the first window probe, and ignores what is acknowledged
            // after it.
            if arrived == 0 {
                let _ = SockRef::from(self.stream).set_tcp_user_timeout(None);
            }
            // Each byte that arrives extends the deadline, up to the full timeout from now.
            let bought = until.after(newest.saturating_sub(arrived).saturating_mul(1000) / PROGRESS_PER_S);
            until = bought.min(now.after(STALLED_MS_MAX));
            arrived = newest;
            place.answer_arrives(since, arrived);
            if now >= until {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tls::secured::tests::secured;
    use super::*;

    #[test]
    fn an_earlier_answer_of_the_connection_is_no_progress_of_this_one() {
        let (stream, mut peer) = secured();
        for size in [10_000, 3] {
            let arrival = Arrival::of(&stream, size as u64);
            assert_eq!(arrival.acknowledged().unwrap(), Some(0));
            assert_eq!(stream.write(&vec![b'x'; size]).unwrap(), size);
            let mut heard = 0;
            while heard < size {
                heard += peer.hear(16_384).len();
            }
            // The peer's kernel acknowledges a moment after it has the bytes.
            let acknowledged = loop {
                match arrival.acknowledged().unwrap().unwrap() {
                    all if all > size as u64 => break all,
                    _ => std::thread::yield_now(),
                }
            };
            assert!(acknowledged < size as u64 + 100, "{acknowledged} of {size}");
        }
    }
}
