//! The bytes of one connection behind TLS: what it reads is opened, what it writes is sealed.
//!
//! A write seals run after run into the thread's one scratch and sends them by one call; what the
//! socket didn't take is forgotten, and sealed again later. A read looks at the socket first and
//! takes a record out of it once the record is there as a whole, so that most connections keep
//! nothing; the rest of a record is kept in a place of [`Halves`]. Owns which records go before
//! which: the channel's own, then the control slot, then the page's. [`Channel`] knows the records.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, recv};

use super::super::sending::send;
use super::halves::{Half, Halves, Part};
use relay::begun::RUN_SIZE_MAX;
use relay::time::Instant;
use relay::transmit::{Progress, Slices};
use tls::channel::{Broken, Channel, Input, OWN_SIZE_MAX, Sent, Source};
use tls::record;
use tls::suite::{HEADER_SIZE, RECORD_SIZE_MAX};

/// The thread's scratch for sealed records. 64 KiB hold a batch of 256 small records. With larger
/// ones a batch has fewer pages; beyond this size that gains little.
pub const SCRATCH_SIZE: usize = 256 * 1024;
/// Sealed bytes of one write to one page, at most: what a socket takes at once.
const WRITE_SIZE_MAX: usize = 64 * 1024;
/// A sealed run, at most.
const RUN_RECORD_SIZE_MAX: usize = 4096;

thread_local! {
    static OUT: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_SIZE].into_boxed_slice());
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

/// One connection's TLS.
#[derive(Debug)]
pub struct Secured {
    channel: RefCell<Channel>,
    /// What can't be handed on yet.
    kept: RefCell<Option<Rc<Half>>>,
    /// Where that has a place; none while the connection has one of its own as an HTTP request.
    halves: RefCell<Option<Rc<Halves>>>,
    /// The peer sends no more.
    is_ended: Cell<bool>,
}

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
        Self {
            channel: RefCell::new(channel),
            kept: RefCell::default(),
            halves: RefCell::default(),
            is_ended: Cell::default(),
        }
    }

    /// From now on the connection is a page's: what it keeps needs a place there. `false` if there
    /// is none for what it keeps already.
    pub fn move_to(&self, halves: &Rc<Halves>) -> bool {
        let kept = self.kept.take().and_then(|half| half.take());
        *self.halves.borrow_mut() = Some(Rc::clone(halves));
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
        let kept = self.kept.borrow();
        kept.as_ref().is_some_and(|half| half.with(|part| !part.plain.is_empty()) == Some(true))
    }

    /// Reads plaintext that has arrived; 0 if the peer sends no more.
    ///
    /// # Errors
    /// `WouldBlock` if no record is there as a whole; `ResourceBusy` if one can't be kept now;
    /// `InvalidData` if it can't be opened, and whatever the socket says.
    pub fn read(&self, socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
        let read = self.read_records(socket, into);
        // A key update that the peer asked for, or the alert that says what was wrong.
        if !matches!(&read, Ok(1..)) && self.channel.borrow().has_own() {
            let _ = with_scratch(|scratch| self.write_own(socket, scratch));
        }
        read
    }

    fn read_records(&self, socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
        while !self.is_ended.get() {
            let kept = self.kept.borrow().clone();
            let size = match kept {
                Some(half) => self.read_kept(socket, &half, into)?,
                None => IN.with_borrow_mut(|scratch| self.read_fresh(socket, scratch, into))?,
            };
            if let Some(size) = size {
                return Ok(size);
            }
        }
        Ok(0)
    }

    /// Reads a record of which nothing was taken out of the socket yet. `None` if it had nothing to
    /// hand on.
    fn read_fresh(&self, socket: BorrowedFd<'_>, scratch: &mut [u8], into: &mut [u8]) -> io::Result<Option<usize>> {
        let there = receive(socket, scratch, RecvFlags::PEEK)?;
        if there == 0 {
            return Ok(Some(0));
        }
        let size = self.size(scratch.get(..there).unwrap_or_default())?;
        let fits = |size: usize| size <= into.len() + self.channel.borrow().suite().overhead() || self.has_room();
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
    fn read_kept(&self, socket: BorrowedFd<'_>, half: &Rc<Half>, into: &mut [u8]) -> io::Result<Option<usize>> {
        let read = half.with(|part| {
            if part.plain.is_empty() {
                // At most a whole record, so that nothing of the next one has to be kept.
                let size = self.size(&part.bytes)?.unwrap_or(HEADER_SIZE);
                let begin = part.bytes.len();
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
            Ok(Input::Nothing) => Ok(None),
            Ok(Input::End) => {
                self.is_ended.set(true);
                Ok(None)
            }
            Err(alert) => Err(self.broken(&alert)),
        }
    }

    fn size(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        record::size(bytes).map_err(|alert| {
            self.channel.borrow_mut().fail(alert);
            self.broken(&alert)
        })
    }

    fn broken(&self, alert: &impl std::fmt::Display) -> io::Error {
        self.is_ended.set(true);
        io::Error::new(io::ErrorKind::InvalidData, alert.to_string())
    }

    fn has_room(&self) -> bool {
        self.halves.borrow().as_ref().is_none_or(|halves| halves.has_room())
    }

    fn keep(&self, part: Part) -> Result<(), Part> {
        let half = match &*self.halves.borrow() {
            Some(halves) => halves.keep(part)?,
            None => Rc::new(Half::new(Instant::default(), part)),
        };
        *self.kept.borrow_mut() = Some(half);
        Ok(())
    }

    fn forget(&self) {
        if let (Some(half), Some(halves)) = (self.kept.take(), &*self.halves.borrow()) {
            halves.leave(&half);
        }
    }

    /// One write: the channel's own records, then the bytes of `control`, then runs that `next`
    /// collects, given their offset and their size at most. Runs are at most [`RUN_SIZE_MAX`].
    ///
    /// # Errors
    /// The socket's own, or `EPROTO` if the connection can only be cut.
    pub fn write<'a>(
        &self,
        socket: BorrowedFd<'_>,
        control: &[u8],
        next: impl FnMut(u64, u64, &mut Slices<'a>) -> u64,
    ) -> Result<Written, Errno> {
        with_scratch(|scratch| {
            if !self.write_own(socket, scratch)? {
                return Ok(Written::default());
            }
            // A record of the page's that was begun goes before a control frame.
            let is_begun = matches!(self.channel.borrow().begun(), Some((Source::Outgoing, _)));
            let control = if is_begun { &[] } else { control };
            let size = self.seal_all(control, next, scratch).map_err(|broken| log_broken(&broken))?;
            let skip = self.channel.borrow().skip();
            let sealed = scratch.get(..size).unwrap_or_default();
            let offered = sealed.get(skip..).unwrap_or_default();
            let taken = send(socket, offered)?;
            let of_control = control.len() as u64;
            let source = |at| if at < of_control { Source::Control } else { Source::Outgoing };
            let Sent { whole, begun } = self.channel.borrow_mut().sent(sealed, taken, source);
            let control = whole.min(of_control);
            let is_of_page = whole >= of_control;
            let size = if is_of_page { whole - control + begun } else { 0 };
            let begun = if is_of_page { begun } else { 0 };
            let progress = Progress { size, begun, socket: taken as u64 };
            Ok(Written { control: small(control), progress, is_whole: taken == offered.len() })
        })
    }

    fn seal_all<'a>(
        &self,
        control: &[u8],
        mut next: impl FnMut(u64, u64, &mut Slices<'a>) -> u64,
        scratch: &mut [u8],
    ) -> Result<usize, Broken> {
        let channel = self.channel.borrow();
        let begun = channel.begun();
        let (mut filled, mut ahead, mut at) = (0, 0, 0);
        while at < control.len() {
            // What was put into the slot behind a begun record goes into the next.
            let size = match begun {
                Some((Source::Control, size)) if at == 0 => small(size),
                _ => control.len() - at,
            };
            let run = control.get(at..at + size).ok_or(Broken)?;
            filled += channel.seal(ahead, Source::Control, &[run], scratch.get_mut(filled..).ok_or(Broken)?)?;
            (at, ahead) = (at + size, ahead + 1);
        }
        let (mut at, mut slices) = (0, Slices::new());
        while filled + RUN_RECORD_SIZE_MAX <= WRITE_SIZE_MAX {
            let most = match begun {
                Some((Source::Outgoing, size)) if at == 0 => size,
                _ => RUN_SIZE_MAX,
            };
            let size = next(at, most, &mut slices);
            if size == 0 {
                break;
            }
            filled += channel.seal(ahead, Source::Outgoing, &slices, scratch.get_mut(filled..).ok_or(Broken)?)?;
            slices.clear();
            (at, ahead) = (at + size, ahead + 1);
        }
        Ok(filled)
    }

    /// Size of the records with these runs.
    pub fn sealed_size(&self, runs: &[&[u8]]) -> usize {
        let overhead = self.channel.borrow().suite().overhead();
        runs.iter().map(|run| run.len() + overhead).sum()
    }

    /// Seals runs of one write that has no other records, for a batch; returns their size.
    ///
    /// # Errors
    /// The connection can only be cut.
    pub fn seal_runs(&self, runs: &[&[u8]], out: &mut [u8]) -> Result<usize, Broken> {
        let channel = self.channel.borrow();
        let (mut filled, mut ahead) = (0, 0);
        for run in runs {
            filled += channel.seal(ahead, Source::Outgoing, &[run], out.get_mut(filled..).ok_or(Broken)?)?;
            ahead += 1;
        }
        Ok(filled)
    }

    /// The socket took a part of such a write.
    pub fn runs_sent(&self, sealed: &[u8], taken: usize) -> Progress {
        let Sent { whole, begun } = self.channel.borrow_mut().sent(sealed, taken, |_| Source::Outgoing);
        Progress { size: whole + begun, begun, socket: taken as u64 }
    }

    /// Sends the channel's own records; `false` if the socket is full before they are out.
    fn write_own(&self, socket: BorrowedFd<'_>, scratch: &mut [u8]) -> Result<bool, Errno> {
        while self.channel.borrow().has_own() {
            let mut channel = self.channel.borrow_mut();
            let out = scratch.get_mut(..OWN_SIZE_MAX).unwrap_or_default();
            let size = channel.own(out).map_err(|broken| log_broken(&broken))?;
            let sealed = out.get(..size).unwrap_or_default();
            let taken = send(socket, sealed.get(channel.skip()..).unwrap_or_default())?;
            if !channel.own_sent(sealed, taken) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends `close_notify`, if the socket takes it now and no record is begun.
    pub fn close(&self, socket: BorrowedFd<'_>) {
        self.channel.borrow_mut().close();
        let _ = with_scratch(|scratch| self.write_own(socket, scratch));
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        self.forget();
    }
}

/// It is a bug that a record can't be sealed as it was begun. Nothing of it was sent.
fn log_broken(broken: &Broken) -> Errno {
    log::error!("a page is cut off: {broken}");
    Errno::PROTO
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
