//! The bytes of one connection behind TLS: what it reads is opened, what it writes is sealed.
//!
//! A write seals into the thread's one scratch (`tls::writing`) and sends all by one call; what the
//! socket didn't take is forgotten, and sealed again later. A read looks at the socket first and
//! takes a record out of it once the record is there as a whole, so that most connections keep
//! nothing; the rest of a record is kept in a place of [`Halves`]. [`Channel`] knows the records.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, recv};

use super::super::sending::send;
use super::halves::{Halves, Kept, Part};
use relay::begun::RUN_SIZE_MAX;
use relay::time::Instant;
use relay::transmit::{Progress, Slices};
use tls::channel::{Broken, Channel, Input, Sent, Source};
use tls::record;
use tls::suite::{HEADER_SIZE, RECORD_SIZE_MAX};
use tls::writing::{self, Failed};

/// The thread's scratch for sealed records: a batch for 256 pages with records of 1 KiB. With
/// larger ones a batch has fewer pages.
pub const SCRATCH_SIZE: usize = 256 * 1024;

thread_local! {
    static OUT: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_SIZE].into_boxed_slice());
    /// Sealed bytes beyond those that sockets took.
    static IN_VAIN: Cell<u64> = const { Cell::new(0) };
    static IN: RefCell<Box<[u8]>> = RefCell::new(vec![0; RECORD_SIZE_MAX].into_boxed_slice());
}

/// Works with the thread's scratch for sealed records.
pub fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    OUT.with_borrow_mut(|scratch| work(scratch))
}

/// Gives the scratch up without freeing it, and takes a new one: the kernel may still read from it.
/// Written to again, a record could go out with the bytes of another.
pub fn abandon_scratch() {
    let old = OUT.replace(vec![0; SCRATCH_SIZE].into_boxed_slice());
    Box::leak(old);
}

/// Bytes of records that were sealed beyond those that sockets took, since the thread's start.
pub fn sealed_in_vain() -> u64 {
    IN_VAIN.get()
}

fn add_vain(size: u64) {
    IN_VAIN.set(IN_VAIN.get() + size);
}

/// One connection's TLS.
#[derive(Debug)]
pub struct Secured {
    /// Its records.
    pub channel: RefCell<Channel>,
    /// What can't be handed on yet.
    kept: Shared<Kept>,
    /// Where that has a place; none while the connection has one of its own as an HTTP request.
    halves: Shared<Halves>,
}

/// A pointer that is looked at by copying it: half of the size of a `RefCell`.
#[derive(Default)]
struct Shared<T>(Cell<Option<Rc<T>>>);

impl<T> Shared<T> {
    fn get(&self) -> Option<Rc<T>> {
        let shared = self.0.take();
        self.0.set(shared.clone());
        shared
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.get().is_some() { "some" } else { "none" })
    }
}

// The terms of the memory sum: the box of a page's keys, the scratches, half a record.
const _: () = assert!(size_of::<Secured>() <= board::TLS_PAGE_SIZE);
const _: () = assert!(SCRATCH_SIZE + RECORD_SIZE_MAX <= board::TLS_SCRATCH_SIZE);
const _: () = assert!(RECORD_SIZE_MAX == board::TLS_RECORD_SIZE_MAX);
const _: () = assert!(SCRATCH_SIZE >= writing::SCRATCH_SIZE_MIN);

/// What a write to a socket did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the control slot that are out.
    pub control: usize,
    /// The page's bytes.
    pub progress: Progress,
    /// Whether the socket took everything offered.
    pub is_whole: bool,
}

impl Secured {
    /// TLS with the keys of a handshake.
    pub fn new(channel: Channel) -> Self {
        Self { channel: RefCell::new(channel), kept: Shared(Cell::default()), halves: Shared(Cell::default()) }
    }

    /// From now on the connection is a page's: what it keeps needs a place there. `false` if there
    /// is none for what it keeps already.
    pub fn move_to(&self, halves: &Rc<Halves>) -> bool {
        let kept = self.kept.0.take().and_then(|half| half.take());
        self.halves.0.set(Some(Rc::clone(halves)));
        kept.is_none_or(|part| self.keep(part).is_ok())
    }

    /// Whether the page's bytes may be sealed now, with no record before them.
    pub fn is_at_rest(&self) -> bool {
        self.channel.borrow().is_at_rest()
    }

    /// Whether its keys are used up.
    pub fn is_used_up(&self) -> bool {
        self.channel.borrow().is_used_up()
    }

    /// Whether plaintext is here that was not read.
    pub fn has_plain(&self) -> bool {
        self.kept.get().is_some_and(|half| half.with(|part| !part.plain.is_empty()) == Some(true))
    }

    /// Reads plaintext that has arrived; 0 if the peer sends no more.
    ///
    /// # Errors
    /// `WouldBlock` if nothing has arrived; `Interrupted` if what has arrived had no data to hand
    /// on, so that more may be there; `ResourceBusy` if it can't be kept now; `InvalidData` if it
    /// can't be opened, and whatever the socket says.
    pub fn read(&self, socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
        let read = self.read_record(socket, into);
        // An alert, or a key update that the peer asked for. A page's is written with its bytes.
        let is_due = match &read {
            Ok(1..) => false,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => true,
            _ => self.halves.get().is_none(),
        };
        if is_due && self.has_own() {
            self.write_own(socket);
        }
        read
    }

    fn read_record(&self, socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
        if self.channel.borrow().is_ended() {
            return Ok(0);
        }
        let size = match self.kept.get() {
            Some(half) => self.read_kept(socket, &half, into)?,
            None => IN.with_borrow_mut(|scratch| self.read_fresh(socket, scratch, into))?,
        };
        match size {
            Some(size) => Ok(size),
            None if self.channel.borrow().is_ended() => Ok(0),
            // One record at a time: each takes from the reader's budget.
            None => Err(io::ErrorKind::Interrupted.into()),
        }
    }

    /// Reads a record of which nothing was taken out of the socket yet. `None` if it had nothing to
    /// hand on.
    fn read_fresh(&self, socket: BorrowedFd<'_>, scratch: &mut [u8], into: &mut [u8]) -> io::Result<Option<usize>> {
        let there = receive(socket, scratch, RecvFlags::PEEK)?;
        if there == 0 {
            return Ok(Some(0));
        }
        let size = self.size(scratch.get(..there).unwrap_or_default())?;
        let fits = |size: usize| size <= self.channel.borrow().record_size(into.len()) || self.has_room();
        match size.filter(|size| *size <= there) {
            Some(size) if fits(size) => {
                let record = scratch.get_mut(..size).unwrap_or_default();
                take_out(socket, record)?;
                let Some(plain) = self.open(record)? else { return Ok(None) };
                let plain = record.get(plain).unwrap_or_default();
                let (now, later) = plain.split_at(plain.len().min(into.len()));
                fill(into, now);
                if !later.is_empty() {
                    let part = Part { bytes: later.to_vec(), plain: 0..later.len() };
                    self.keep(part).map_err(|_| io::ErrorKind::ResourceBusy)?;
                }
                Ok(Some(now.len()))
            }
            None if self.has_room() => {
                let begin = scratch.get_mut(..there).unwrap_or_default();
                take_out(socket, begin)?;
                let part = Part { bytes: begin.to_vec(), plain: 0..0 };
                self.keep(part).map_err(|_| io::ErrorKind::ResourceBusy)?;
                Ok(None)
            }
            _ => Err(io::ErrorKind::ResourceBusy.into()),
        }
    }

    /// Goes on with what is kept.
    fn read_kept(&self, socket: BorrowedFd<'_>, half: &Rc<Kept>, into: &mut [u8]) -> io::Result<Option<usize>> {
        let read = half.with(|part| {
            if part.plain.is_empty() {
                // At most a whole record, so that nothing of the next one has to be kept.
                let size = self.size(&part.bytes)?.unwrap_or(HEADER_SIZE);
                let begin = part.bytes.len();
                // No more than that, which is a term of the memory sum.
                part.bytes.reserve_exact(size.saturating_sub(begin));
                part.bytes.resize(size, 0);
                let more = receive(socket, part.bytes.get_mut(begin..).unwrap_or_default(), RecvFlags::empty());
                part.bytes.truncate(begin + more.as_ref().map_or(0, |more| *more));
                if more? == 0 {
                    return Ok(Some(0));
                }
                if self.size(&part.bytes)? != Some(part.bytes.len()) {
                    return Ok(None);
                }
                match self.open(&mut part.bytes)? {
                    Some(plain) => part.plain = plain,
                    None => part.bytes.clear(),
                }
            }
            let plain = part.bytes.get(part.plain.clone()).unwrap_or_default();
            let size = plain.len().min(into.len());
            fill(into, plain.get(..size).unwrap_or_default());
            part.plain.start += size;
            if part.plain.is_empty() {
                part.bytes.clear();
            }
            Ok(Some(size).filter(|size| *size > 0))
        });
        // Another connection took the place, and the beginning of the record with it.
        let read = read.unwrap_or(Err(io::ErrorKind::ConnectionAborted.into()));
        if half.with(|part| part.bytes.is_empty()) != Some(false) {
            self.forget();
        }
        read
    }

    fn open(&self, record: &mut [u8]) -> io::Result<Option<std::ops::Range<usize>>> {
        match self.channel.borrow_mut().open(record) {
            Ok(Input::Data(plain)) => Ok(Some(plain)),
            Ok(Input::Nothing | Input::End) => Ok(None),
            Err(alert) => Err(io::Error::new(io::ErrorKind::InvalidData, alert.to_string())),
        }
    }

    fn size(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        record::size(bytes).map_err(|alert| {
            self.channel.borrow_mut().fail(alert);
            io::Error::new(io::ErrorKind::InvalidData, alert.to_string())
        })
    }

    /// Whether a record of the channel's own waits to be sent.
    pub fn has_own(&self) -> bool {
        self.channel.borrow().has_own()
    }

    fn has_room(&self) -> bool {
        self.halves.get().is_none_or(|halves| halves.has_room())
    }

    fn keep(&self, part: Part) -> Result<(), Part> {
        let half = match self.halves.get() {
            Some(halves) => halves.keep(part)?,
            None => Rc::new(Kept::new(Instant::default(), part)),
        };
        self.kept.0.set(Some(half));
        Ok(())
    }

    fn forget(&self) {
        if let (Some(half), Some(halves)) = (self.kept.0.take(), self.halves.get()) {
            halves.leave(&half);
        }
    }

    /// One write: the channel's own records, then the bytes of `control`, then runs that `next`
    /// collects, given their offset and their size at most. Runs are at most [`RUN_SIZE_MAX`].
    ///
    /// # Errors
    /// The socket's own, `EPIPE` behind an alert or another error, or `EPROTO` if the connection
    /// can only be cut.
    pub fn write<'a>(
        &self,
        socket: BorrowedFd<'_>,
        control: &[u8],
        mut next: impl FnMut(u64, u64, &mut Slices<'a>) -> u64,
    ) -> Result<Written, Errno> {
        let mut slices = Slices::new();
        let next = |at, most, seal: &mut dyn FnMut(&[&[u8]])| {
            slices.clear();
            let size = next(at, most, &mut slices);
            if size > 0 {
                seal(&slices);
            }
            size
        };
        let mut channel = self.channel.borrow_mut();
        let send = |bytes: &[u8]| send(socket, bytes);
        let written = with_scratch(|scratch| writing::write(&mut channel, control, RUN_SIZE_MAX, scratch, send, next));
        let writing::Written { control, size, begun, socket, vain, is_whole } = written.map_err(errno)?;
        add_vain(vain);
        Ok(Written { control: small(control), progress: Progress { size, begun, socket }, is_whole })
    }

    /// Size of the records with these runs.
    pub fn sealed_size(&self, runs: &[&[u8]]) -> usize {
        let channel = self.channel.borrow();
        runs.iter().map(|run| channel.record_size(run.len())).sum()
    }

    /// Seals runs of one write that has no other records, for a batch; returns their size.
    ///
    /// # Errors
    /// The connection can only be cut.
    pub fn seal_runs(&self, runs: &[&[u8]], out: &mut [u8]) -> Result<usize, Broken> {
        let channel = self.channel.borrow();
        let sealing = channel.sealing()?;
        let (mut filled, mut ahead) = (0, 0);
        for run in runs {
            filled += sealing.seal(ahead, Source::Outgoing, &[run], out.get_mut(filled..).ok_or(Broken)?)?;
            ahead += 1;
        }
        Ok(filled)
    }

    /// Nothing more is sealed: the socket failed, or nobody knows what it took.
    pub fn abandon(&self) {
        self.channel.borrow_mut().abandon();
    }

    /// The socket took a part of such a write.
    pub fn runs_sent(&self, sealed: &[u8], taken: usize) -> Progress {
        add_vain((sealed.len() - taken) as u64);
        let Sent { whole, begun } = self.channel.borrow_mut().sent(sealed, taken, |_| Source::Outgoing);
        Progress { size: whole + begun, begun, socket: taken as u64 }
    }

    /// Sends the channel's own records, as far as the socket takes them.
    fn write_own(&self, socket: BorrowedFd<'_>) {
        let mut channel = self.channel.borrow_mut();
        // An error ends the connection where it is read or written to next.
        let _ = with_scratch(|scratch| writing::write_own(&mut channel, scratch, |bytes| send(socket, bytes)));
    }

    /// Sends `close_notify`, if the socket takes it now and no record is begun.
    pub fn close(&self, socket: BorrowedFd<'_>) {
        self.channel.borrow_mut().close();
        self.write_own(socket);
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        self.forget();
    }
}

fn errno(failed: Failed<Errno>) -> Errno {
    match failed {
        Failed::Socket(error) => error,
        Failed::Over => Errno::PIPE,
        Failed::Broken => {
            // Nothing of it was sent.
            log::error!("a page is cut off: {Broken}, which is a bug");
            Errno::PROTO
        }
    }
}

fn receive(socket: BorrowedFd<'_>, into: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    Ok(retry_on_intr(|| recv(socket, &mut *into, flags))?.0)
}

/// Takes bytes out of the socket that were seen there.
fn take_out(socket: BorrowedFd<'_>, seen: &mut [u8]) -> io::Result<()> {
    let size = seen.len();
    let taken = receive(socket, seen, RecvFlags::empty())?;
    if taken == size { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn fill(into: &mut [u8], from: &[u8]) {
    if let Some(into) = into.get_mut(..from.len()) {
        into.copy_from_slice(from);
    }
}

fn small(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

#[cfg(test)]
pub(in crate::daemon) mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::super::stream::Stream;
    use super::super::super::stream::tests::pair;
    use super::*;
    use crate::clock::Clock;
    use std::os::fd::AsFd;
    use tls::keys::Keys;
    use tls::record::Content;
    use tls::suite::{Aead, Suite, Version};

    const SUITE: Suite = Suite { version: Version::Tls13, aead: Aead::ChaCha20Poly1305 };

    /// The other end of a secured stream.
    pub struct Peer {
        pub socket: TcpStream,
        read: Keys,
        write: Keys,
        wire: Vec<u8>,
        /// Bytes of application data so far, and how many came before each key update.
        heard: usize,
        updates: Vec<usize>,
    }

    /// A secured stream and its peer, without a handshake.
    pub fn secured() -> (Stream, Peer) {
        let (near, socket) = pair();
        secure(near, socket)
    }

    /// The same on sockets that are connected already.
    pub fn secure(near: Stream, socket: TcpStream) -> (Stream, Peer) {
        static KEYS: AtomicU32 = AtomicU32::new(0);
        let number = KEYS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let keys = |side| {
            let mut secret = [side; 32];
            secret[..4].copy_from_slice(&number);
            Keys::from_secret(SUITE, secret)
        };
        let near = near.secure(Box::new(Secured::new(Channel::new(SUITE, keys(1), keys(2)))));
        (near, Peer { socket, read: keys(1), write: keys(2), wire: Vec::new(), heard: 0, updates: Vec::new() })
    }

    impl Peer {
        /// A record of the peer.
        pub fn record(&mut self, content: Content, plain: &[u8]) -> Vec<u8> {
            let mut record = vec![0; plain.len() + SUITE.overhead()];
            record::seal(SUITE, &self.write, 0, content, &[plain], &mut record).unwrap();
            if content == Content::Handshake {
                self.write.update(SUITE);
            } else {
                self.write.advance(1);
            }
            record
        }

        /// Sends a record.
        pub fn say(&mut self, plain: &[u8]) {
            let record = self.record(Content::ApplicationData, plain);
            self.socket.write_all(&record).unwrap();
        }

        /// Reads at most `size` bytes from the socket; what the whole records say.
        pub fn hear(&mut self, size: usize) -> Vec<u8> {
            let mut bytes = vec![0; size];
            let size = self.socket.read(&mut bytes).unwrap();
            self.wire.extend(&bytes[..size]);
            let mut said = Vec::new();
            while let Some(size) = record::size(&self.wire).unwrap().filter(|size| *size <= self.wire.len()) {
                let mut record: Vec<u8> = self.wire.drain(..size).collect();
                let (content, plain) = record::open(SUITE, &mut self.read, &mut record).unwrap();
                match content {
                    Content::ApplicationData => {
                        self.heard += plain.len();
                        said.extend(&record[plain]);
                    }
                    Content::Handshake => {
                        self.updates.push(self.heard);
                        self.read.update(SUITE);
                    }
                    content => said.extend(format!("{content:?} {:?}", &record[plain]).bytes()),
                }
            }
            said
        }
    }

    fn is_later(error: &io::Error) -> bool {
        matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
    }

    fn read_once(stream: &Stream, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        loop {
            match stream.read(&mut bytes) {
                Ok(size) => return bytes[..size].to_vec(),
                Err(error) => assert!(is_later(&error), "{error}"),
            }
        }
    }

    #[test]
    fn records_that_come_in_any_pieces_are_read_in_any_pieces() {
        let messages: [&[u8]; 4] = [b"a", &[7; 700], b"", &[9; 16_384]];
        let whole = messages.concat();
        for (piece, into) in [(1, 512), (3, 1), (100, 20_000), (5_000, 512), (40_000, 700)] {
            let (stream, mut peer) = secured();
            let wire: Vec<u8> =
                messages.iter().flat_map(|message| peer.record(Content::ApplicationData, message)).collect();
            let mut read: Vec<u8> = Vec::new();
            let mut pieces = wire.chunks(piece);
            let mut bytes = vec![0; into];
            while read.len() < whole.len() {
                match stream.read(&mut bytes) {
                    Ok(size) => read.extend(&bytes[..size]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if let Some(piece) = pieces.next() {
                            peer.socket.write_all(piece).unwrap();
                        }
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(read == whole, "in pieces of {piece} into {into}");
            assert!(stream.secured().unwrap().kept.get().is_none(), "nothing is kept between two records");
        }
    }

    #[test]
    fn a_record_that_comes_in_two_parts_takes_no_more_than_its_term_of_the_memory_sum() {
        let size = RECORD_SIZE_MAX - 300;
        for first in [1, HEADER_SIZE, size / 2, size - 2] {
            let (stream, mut peer) = secured();
            let record = peer.record(Content::ApplicationData, &vec![7; size - SUITE.overhead()]);
            let kept = || {
                let half = stream.secured().unwrap().kept.get();
                half.and_then(|half| half.with(|part| (part.bytes.len(), part.bytes.capacity()))).unwrap_or_default()
            };
            for end in [first, size - 1] {
                peer.socket.write_all(&record[kept().0..end]).unwrap();
                while kept().0 < end {
                    assert!(is_later(&stream.read(&mut [0; 10]).unwrap_err()));
                }
                // It makes room for what is still to come.
                assert_eq!(stream.read(&mut [0; 10]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
                assert!(kept().1 <= RECORD_SIZE_MAX, "{} bytes for {end} of {size}", kept().1);
            }
        }
    }

    #[test]
    fn a_scratch_that_the_kernel_may_still_read_is_never_written_to_again() {
        let place = || with_scratch(|scratch| (scratch.as_ptr(), scratch.len()));
        let (before, size) = place();
        abandon_scratch();
        // It is leaked, so no later one can be in its place.
        for _ in 0..3 {
            let (after, size_after) = place();
            assert!(size == size_after && (before.addr().abs_diff(after.addr())) >= size);
            abandon_scratch();
        }
    }

    #[test]
    fn the_end_of_the_peer_is_the_end_of_the_stream() {
        let (stream, mut peer) = secured();
        peer.say(b"bye");
        let end = peer.record(Content::Alert, &[1, 0]);
        peer.socket.write_all(&end).unwrap();
        assert_eq!(read_once(&stream, 10), b"bye");
        assert_eq!(read_once(&stream, 10), b"");
        // Without `close_notify`, in the middle of a record.
        let (stream, mut peer) = secured();
        let record = peer.record(Content::ApplicationData, b"half");
        peer.socket.write_all(&record[..9]).unwrap();
        assert_eq!(stream.read(&mut [0; 10]).unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(stream.read(&mut [0; 10]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(peer);
        assert_eq!(read_once(&stream, 10), b"");
    }

    #[test]
    fn a_record_that_was_changed_ends_the_connection_with_an_alert() {
        let (stream, mut peer) = secured();
        let mut record = peer.record(Content::ApplicationData, b"hello");
        record[8] ^= 1;
        peer.socket.write_all(&record).unwrap();
        let error = loop {
            match stream.read(&mut [0; 10]) {
                Err(error) if is_later(&error) => {}
                other => break other.unwrap_err(),
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(String::from_utf8(peer.hear(100)).unwrap(), "Alert [2, 20]");
        assert!(stream.write(b"more").is_err(), "and nothing is sent behind it");
    }

    #[test]
    fn a_peer_that_asks_for_our_key_update_gets_it_at_once() {
        let (stream, mut peer) = secured();
        let update = peer.record(Content::Handshake, &[24, 0, 0, 1, 1]);
        peer.socket.write_all(&update).unwrap();
        peer.say(b"behind");
        assert_eq!(read_once(&stream, 10), b"behind");
        // The update was read before, or with it.
        assert_eq!(stream.read(&mut [0; 10]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(stream.write(b"with new keys").unwrap(), 13);
        assert!(peer.hear(28).is_empty(), "the update alone");
        assert_eq!(peer.hear(1_000), b"with new keys");
    }

    #[test]
    fn an_update_that_is_asked_for_while_a_record_is_begun_comes_right_behind_it() {
        let (stream, mut peer) = secured();
        // Enough for any socket, however often it is offered.
        let bytes = [b'x'; 60_000];
        let (mut sent, mut heard) = (0, 0);
        let begun = loop {
            while let Ok(size) = stream.write(&bytes) {
                sent += size;
            }
            if let Some((_, begun)) = stream.secured().unwrap().channel.borrow().begun() {
                break small(begun);
            }
            heard += peer.hear(1_000).len();
        };
        let update = peer.record(Content::Handshake, &[24, 0, 0, 1, 1]);
        peer.socket.write_all(&update).unwrap();
        while !stream.secured().unwrap().channel.borrow().own_waits() {
            assert!(is_later(&stream.read(&mut [0; 10]).unwrap_err()));
        }
        let expected = sent + begun;
        while heard < expected + 100_000 {
            let _ = stream.write(&bytes);
            heard += peer.hear(50_000).len();
        }
        assert_eq!(peer.updates, [expected]);
    }

    #[test]
    fn a_socket_that_takes_little_gets_every_byte_once_and_nothing_is_kept_of_it() {
        let (stream, mut peer) = secured();
        let all: Vec<u8> = (0..2_000_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let (mut sent, mut read) = (0, Vec::new());
        let mut size = 1;
        while read.len() < all.len() {
            while sent < all.len()
                && let Ok(more) = stream.write(&all[sent..])
            {
                sent += more;
            }
            size = size % 40_000 + 3_333;
            read.extend(peer.hear(size));
        }
        assert!(read == all);
    }

    /// A slow page costs as many sealings as its socket has room for, whatever lies ahead of it.
    #[test]
    fn little_is_sealed_in_vain_for_a_socket_that_takes_little() {
        let (stream, mut peer) = secured();
        let secured = stream.secured().unwrap();
        let bytes = [b'x'; 1 << 16];
        let mut sealed = Vec::new();
        while sealed.len() < 50 {
            let is_begun = secured.channel.borrow().begun().is_some();
            if is_begun {
                // The socket has room for a little more.
                peer.hear(10_000);
            }
            let mut size_of_all = 0;
            let written = secured.write(stream.as_fd(), b"", |at, most, out| {
                let rest = bytes.get(small(at)..).unwrap_or_default();
                let run = &rest[..rest.len().min(small(most))];
                size_of_all += run.len();
                out.push(run).map_or(0, |()| run.len() as u64)
            });
            written.unwrap();
            if is_begun {
                sealed.push(size_of_all);
            }
        }
        assert!(sealed.iter().all(|size| *size <= writing::WRITE_AGAIN_SIZE_MAX), "{sealed:?}");
    }

    #[test]
    fn control_frames_go_between_two_of_the_pages_and_wait_for_a_record_that_was_begun() {
        let (stream, mut peer) = secured();
        let secured = stream.secured().unwrap();
        let bytes = [b'x'; 60_000];
        let run = |at: u64, most: u64, out: &mut Slices<'static>| {
            static BYTES: [u8; 60_000] = [b'x'; 60_000];
            let rest = BYTES.get(small(at)..).unwrap_or_default();
            let run = &rest[..rest.len().min(small(most))];
            out.push(run).map_or(0, |()| run.len() as u64)
        };
        let (mut whole, mut begun) = (0, 0);
        while begun == 0 {
            let written = secured.write(stream.as_fd(), b"", run).unwrap();
            (whole, begun) = (whole + written.progress.size - written.progress.begun, written.progress.begun);
        }
        let mut said = Vec::new();
        let mut control = &b"pong"[..];
        while !control.is_empty() {
            said.extend(peer.hear(100_000));
            let written = secured.write(stream.as_fd(), control, |at, most, out| {
                // Only the rest of the record that was begun.
                if at < begun { run(at, most.min(begun - at), out) } else { 0 }
            });
            let written = written.unwrap();
            if written.progress.size > written.progress.begun {
                whole += written.progress.size - written.progress.begun;
                begun = 0;
            }
            control = &control[written.control..];
        }
        drop(stream);
        while said.len() < small(whole) + 4 {
            said.extend(peer.hear(100_000));
        }
        assert!(said.ends_with(b"pong") && said[..said.len() - 4].iter().all(|byte| *byte == bytes[0]));
    }

    #[test]
    fn pages_that_hold_places_for_half_records_give_them_to_others() {
        let clock = Clock::start();
        let halves = Rc::new(Halves::new(2, clock));
        let ends: Vec<_> = (0..4).map(|_| secured()).collect();
        let records: Vec<_> = ends
            .into_iter()
            .map(|(stream, mut peer)| {
                assert!(stream.secured().unwrap().move_to(&halves));
                let record = peer.record(Content::ApplicationData, b"hello");
                (stream, peer, record)
            })
            .collect();
        let read = |stream: &Stream| stream.read(&mut [0; 10]).map_err(|error| error.kind());
        for (stream, peer, record) in &records {
            (&peer.socket).write_all(&record[..10]).unwrap();
            while stream.peek().is_err() {}
        }
        assert_eq!(
            records.iter().map(|(stream, ..)| read(stream)).collect::<Vec<_>>(),
            [
                Err(io::ErrorKind::Interrupted),
                Err(io::ErrorKind::Interrupted),
                Err(io::ErrorKind::ResourceBusy),
                Err(io::ErrorKind::ResourceBusy),
            ]
        );
        // A record that is there as a whole needs no place.
        (&records[3].1.socket).write_all(&records[3].2[10..]).unwrap();
        assert_eq!(read_once(&records[3].0, 10), b"hello");
        // Once the first has held its place for a second, the third takes it.
        while !halves.has_room() {}
        assert_eq!(read(&records[2].0), Err(io::ErrorKind::Interrupted));
        assert_eq!((halves.count(), halves.cut()), (2, 1));
        (&records[0].1.socket).write_all(&records[0].2[10..]).unwrap();
        while let Err(error) = read(&records[0].0) {
            if error == io::ErrorKind::ConnectionAborted {
                break;
            }
        }
        for at in [1, 2] {
            (&records[at].1.socket).write_all(&records[at].2[10..]).unwrap();
            assert_eq!(read_once(&records[at].0, 10), b"hello");
        }
        drop(records);
        assert_eq!(halves.count(), 0);
    }
}
