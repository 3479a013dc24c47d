//! I/O of a connection that is not a page: a request's head, an answer, and whatever the peer sends
//! after the answer.
//!
//! Each loop over the socket takes from a [`Budget`], so that a peer that sends as fast as it is
//! read costs the others nothing. Owns how much is read after an answer, and the timeout of an
//! upgrade's answer. Waits by `poll_readable`: `Async::readable` would leave a list of waiters
//! allocated with the socket. Knows neither the machine nor the requests.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use smol::{Timer, future};

use super::budget::Budget;
use super::head::{self, Response};
use super::heads::Place;
use super::stream::Stream;

/// Timeout for sending an upgrade's answer, which is a few bytes.
const UPGRADE_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes read after an answer, at most: a few more requests, or the start of a body that is
/// ignored. A peer that sends more is cut off.
const LINGER_SIZE_MAX: usize = 64 * 1024;

/// Waits until there is something to read, which may be the end of the stream. Until then the place
/// is a silent one's.
pub async fn first_byte(place: &Place, stream: &Stream) -> io::Result<usize> {
    wait(stream, || place.says_nothing()).await
}

/// Waits until something can be read, the end included.
pub async fn readable(stream: &Stream) -> io::Result<usize> {
    wait(stream, || ()).await
}

async fn wait(stream: &Stream, is_silent: impl Fn()) -> io::Result<usize> {
    let mut budget = Budget::TURN;
    loop {
        budget.next_read().await;
        match stream.peek() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                is_silent();
                poll_fn(|context| stream.poll_readable(context)).await?;
            }
            result => return result,
        }
    }
}

/// Reads until a request head is complete; returns its size and the number of bytes read.
///
/// # Errors
/// The answer to bytes that can't become a head; `None` if the peer is gone.
pub async fn read_head(stream: &Stream, head: &mut [u8]) -> Result<(usize, usize), Option<Response>> {
    read_head_on(stream, head, 0).await
}

/// The same, with the first `filled` bytes there already.
///
/// # Errors
/// As for [`read_head`].
pub async fn read_head_on(
    stream: &Stream,
    head: &mut [u8],
    mut filled: usize,
) -> Result<(usize, usize), Option<Response>> {
    let mut budget = Budget::TURN;
    loop {
        if filled > 0
            && let Some(size) = head::size(head.get(..filled).unwrap_or_default()).map_err(Some)?
        {
            return Ok((size, filled));
        }
        match read(stream, head.get_mut(filled..).unwrap_or_default(), &mut budget).await {
            Ok(0) | Err(_) => return Err(None),
            Ok(size) => filled += size,
        }
    }
}

/// Reads some bytes.
pub async fn read(stream: &Stream, into: &mut [u8], budget: &mut Budget) -> io::Result<usize> {
    read_or_discard(stream, into, budget, false).await
}

async fn read_or_discard(stream: &Stream, into: &mut [u8], budget: &mut Budget, discards: bool) -> io::Result<usize> {
    loop {
        budget.next_read().await;
        let into = budget.clip(into);
        match if discards { stream.discard(into) } else { stream.read(into) } {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|context| stream.poll_readable(context)).await?;
                // Other tasks ran meanwhile.
                *budget = Budget::TURN;
            }
            // A TLS record without data, or a part of one: more may be there.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.inspect(|size| budget.take(*size)),
        }
    }
}

/// Writes some bytes.
async fn write(stream: &Stream, bytes: &[u8], budget: &mut Budget) -> io::Result<usize> {
    loop {
        budget.next_step().await;
        match stream.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|context| stream.poll_writable(context)).await?;
            }
            result => return result,
        }
    }
}

/// Writes a whole answer.
///
/// # Errors
/// The socket's own.
pub async fn write_all(stream: &Stream, bytes: &[u8]) -> io::Result<()> {
    let (mut rest, mut budget) = (bytes, Budget::TURN);
    while !rest.is_empty() {
        let size = write(stream, rest, &mut budget).await?;
        rest = rest.get(size..).unwrap_or_default();
    }
    Ok(())
}

/// Writes an upgrade's answer within its timeout.
///
/// # Errors
/// The socket's own, or a timeout.
pub async fn timely(stream: &Stream, bytes: &[u8]) -> io::Result<()> {
    let late = async {
        Timer::after(UPGRADE_TIME_MAX).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    future::or(write_all(stream, bytes), late).await
}

/// What the peer did after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// It closed its side, or is gone.
    Left,
    /// It sent more than is read.
    TooMuch,
}

/// Shuts down our side, and reads what the peer still sends, up to a limit. The caller sets the
/// timeout.
pub async fn linger(stream: &Stream) -> Behind {
    if stream.end_writing().is_err() {
        return Behind::Left;
    }
    let (mut nowhere, mut budget, mut left) = ([0; 512], Budget::TURN, LINGER_SIZE_MAX);
    while left > 0 {
        match read_or_discard(stream, &mut nowhere, &mut budget, true).await {
            Ok(size @ 1..) => left = left.saturating_sub(size),
            _ => return Behind::Left,
        }
    }
    Behind::TooMuch
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpStream;
    use std::rc::Rc;

    use rustix::io::ioctl_fionread;
    use smol::LocalExecutor;

    use super::super::budget;
    use super::super::stream::tests::pair;
    use super::*;

    fn connected() -> (Rc<Stream>, TcpStream) {
        let (near, peer) = pair();
        (Rc::new(near), peer)
    }

    #[test]
    fn talk_behind_an_answer_takes_no_more_than_a_turn_and_then_rests() {
        let (stream, mut peer) = connected();
        let before = 4 * budget::SIZE as usize;
        peer.write_all(&vec![b'x'; before]).unwrap();
        let waiting = || usize::try_from(ioctl_fionread(&*stream).unwrap()).unwrap();
        while waiting() < before {}
        let executor = LocalExecutor::new();
        let read = Rc::clone(&stream);
        let _lingers = executor.spawn(async move { linger(&read).await });
        assert!(executor.try_tick());
        let taken = before - waiting();
        assert!((1..=budget::SIZE as usize).contains(&taken), "{taken} bytes in a turn");
        assert!(!executor.try_tick(), "it reads on at once");
    }

    #[test]
    fn who_talks_without_end_behind_an_answer_is_cut_off() {
        let (stream, mut peer) = connected();
        let talks = std::thread::spawn(move || {
            let mut size = 0;
            while let Ok(written) = peer.write(&[b'x'; 4096]) {
                size += written;
            }
            size
        });
        smol::block_on(async {
            assert_eq!(linger(&stream).await, Behind::TooMuch);
            drop(stream);
        });
        assert!(talks.join().unwrap() >= LINGER_SIZE_MAX);
    }
}
