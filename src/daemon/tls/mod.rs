//! TLS for pages: a handshake in the place of an HTTP request, then a record layer of our own.
//!
//! ```text
//! listen.rs -> shake (rustls) -> Channel (crates/tls) in Secured -> http.rs -> pages.rs, fanout.rs
//! ```
//!
//! Owns what all of its connections share: certificates, the queue for expensive steps, the rate
//! limit of each address, the places of half records, counts. A handshake that fails is counted and
//! logged at level debug: on a public port there are many.

pub mod certificates;
pub(in crate::daemon) mod halves;
pub mod handshake;
mod pacer;
pub mod secured;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use smol::{Timer, future};

use self::certificates::Pair;
use self::halves::Halves;
use self::handshake::{Acceptor, Failed, Kind, Next};
use self::pacer::Pacer;
use self::secured::Secured;
use super::budget::Budget;
use super::clock::Clock;
use super::exchange::{first_byte, linger, read};
use super::heads::Place;
use super::response::Response;
use super::stream::Stream;
use super::{Daemon, DaemonError};
use crate::config;
use board::Board;
use relay::rate::{Bucket, Rate};
use relay::time::Jitter;
use tls::suite::HEADER_SIZE;

/// A record of a handshake, in bytes, at most: a hello with a post-quantum key share has 1.8 KB.
const RECORD_SIZE_MAX: usize = 8 * 1024;
/// Records of a handshake, at most. Usual ones have two or three.
const RECORDS_MAX: usize = 16;
/// First byte of a record with a hello.
const HANDSHAKE: u8 = 22;

/// TLS for pages.
pub struct Server {
    acceptor: RefCell<Acceptor>,
    pacer: Pacer,
    /// Full handshakes by the hash of an address.
    buckets: RefCell<Box<[Bucket]>>,
    rate: Rate,
    seed: u64,
    halves: Rc<Halves>,
    clock: Clock,
    counts: Cell<Counts>,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handshakes with a signature.
    pub full: u64,
    /// Handshakes by a ticket.
    pub resumed: u64,
    /// Handshakes that failed.
    pub failed: u64,
    /// Full handshakes refused by the rate limit of their address.
    pub limited: u64,
    /// Connections cut because others needed the place of their half record.
    pub halves_cut: u64,
}

impl Server {
    /// TLS as configured.
    ///
    /// # Errors
    /// A pair of files that was good when the configuration was checked can't be read any more.
    pub fn new(tls: &config::Tls, board: &Board, clock: Clock) -> Result<Self, DaemonError> {
        let acceptor = RefCell::new(Acceptor::new(&pairs(tls)?, tls.min_version, None).map_err(refused)?);
        let buckets = RefCell::new(vec![Bucket::default(); board.addresses_max as usize].into());
        let rate = Rate { burst: board.address_asks_burst, per_s: board.address_asks_per_s };
        let seed = getrandom::u64().map_err(DaemonError::Random)?;
        let halves = Rc::new(Halves::new(board.half_records_max, clock));
        Ok(Self { acceptor, pacer: Pacer::default(), buckets, rate, seed, halves, clock, counts: Cell::default() })
    }

    /// Takes other certificates, or new ones out of the same files, from the next handshake on.
    /// Open connections keep their keys, and tickets stay good.
    ///
    /// # Errors
    /// They can't be used; those before stay.
    pub fn replace(&self, tls: &config::Tls) -> Result<(), DaemonError> {
        let pairs = pairs(tls)?;
        let acceptor = Acceptor::new(&pairs, tls.min_version, Some(&self.acceptor.borrow())).map_err(refused)?;
        *self.acceptor.borrow_mut() = acceptor;
        Ok(())
    }

    /// The places of half records.
    pub fn halves(&self) -> &Rc<Halves> {
        &self.halves
    }

    /// Counts since the start.
    pub fn counts(&self) -> Counts {
        Counts { halves_cut: self.halves.cut(), ..self.counts.get() }
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    /// Whether a network may begin one more full handshake.
    fn admits(&self, network: IpAddr) -> bool {
        let bits = match network {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => u64::try_from(address.to_bits() >> 64).unwrap_or(u64::MAX),
        };
        let mut buckets = self.buckets.borrow_mut();
        let index = Jitter::new(self.seed ^ bits).below(buckets.len() as u64);
        let bucket = usize::try_from(index).ok().and_then(|index| buckets.get_mut(index));
        bucket.is_none_or(|bucket| bucket.take(self.rate, self.clock.now()))
    }
}

fn pairs(tls: &config::Tls) -> Result<Vec<Pair>, DaemonError> {
    let load = |files: &config::CertificateFiles| certificates::load(&files.certificate_file, &files.key_file);
    let pairs: Result<_, _> = tls.certificates.iter().map(load).collect();
    pairs.map_err(|(what, remedy)| DaemonError::Tls(format!("{what}; {remedy}")))
}

fn refused(failed: Failed) -> DaemonError {
    DaemonError::Tls(failed.to_string())
}

/// Shakes hands on a fresh connection, within the time of a request head. Only the peer's silence
/// counts, not its wait for a turn.
///
/// # Errors
/// The plain response to a peer that speaks HTTP; `None` if the connection is over. A peer that
/// speaks TLS was sent an alert.
pub(in crate::daemon) async fn shake(
    daemon: &Daemon,
    server: &Server,
    place: &Place,
    stream: &Stream,
) -> Result<Secured, Option<Response>> {
    let mut left = Duration::from_millis(daemon.config.borrow().board.head_ms_max.into());
    let begin = async {
        first_byte(place, stream).await.map_err(|_| None)?;
        place.head_begins();
        Ok(())
    };
    within(&mut left, server.clock, begin).await?;
    let mut handshake = server.acceptor.borrow().begin().map_err(|_| None)?;
    let (mut record, mut out) = (Vec::new(), Vec::new());
    for _ in 0..RECORDS_MAX {
        record.clear();
        within(&mut left, server.clock, read_record(stream, &mut record)).await?;
        let turn = match handshake::hello(&record) {
            // A fresh hello, a key of TLS 1.2: what may take a millisecond.
            hello if record.first() == Some(&HANDSHAKE) => {
                let is_resumed = hello == Some(true);
                if hello == Some(false) && place.network().is_some_and(|network| !server.admits(network)) {
                    server.count(|counts| counts.limited += 1);
                    return Err(None);
                }
                place.awaits_turn();
                Some(server.pacer.turn(is_resumed, || daemon.relay.borrow().has_pages_to_serve()).await)
            }
            _ => None,
        };
        let next = handshake.step(&record, &mut out);
        drop(turn);
        let is_sent = stream.write(&out).is_ok_and(|size| size == out.len());
        out.clear();
        place.awaits_peer(server.clock.now());
        handshake = match next {
            // A fresh socket takes a few kilobytes. One that doesn't is not waited for.
            Ok(Next::Record(handshake)) if is_sent => handshake,
            Ok(Next::Done(channel, kind)) if is_sent => {
                server.count(|counts| match kind {
                    Kind::Full => counts.full += 1,
                    Kind::Resumed => counts.resumed += 1,
                });
                return Ok(Secured::new(*channel));
            }
            Ok(_) => break,
            Err(failed) => {
                log::debug!("a TLS handshake failed: {failed}");
                break;
            }
        }
    }
    server.count(|counts| counts.failed += 1);
    // Closed at once, the connection could lose the alert.
    let gone = async {
        linger(stream).await;
        Err(None)
    };
    within(&mut left, server.clock, gone).await
}

/// The result of a part of the handshake.
type Shaken<T> = Result<T, Option<Response>>;

/// Runs `work` for at most `left`, and takes its time from that.
async fn within<T>(left: &mut Duration, clock: Clock, work: impl Future<Output = Shaken<T>>) -> Shaken<T> {
    let begun = clock.now();
    let late = async {
        Timer::after(*left).await;
        Err(None)
    };
    let result = future::or(work, late).await;
    *left = left.saturating_sub(Duration::from_millis(clock.now().since(begun)));
    result
}

/// Reads one whole record.
async fn read_record(stream: &Stream, record: &mut Vec<u8>) -> Shaken<()> {
    let mut budget = Budget::TURN;
    let mut size = HEADER_SIZE;
    while record.len() < size {
        let begin = record.len();
        record.resize(size, 0);
        let more = read(stream, record.get_mut(begin..).unwrap_or_default(), &mut budget).await.map_err(|_| None)?;
        record.truncate(begin + more);
        if more == 0 {
            return Err(None);
        }
        if begin == 0 && record.first().is_some_and(u8::is_ascii_uppercase) {
            return Err(Some(Response::plain(400, "this port speaks TLS: the address begins with https:\n")));
        }
        if let ([.., high, low], HEADER_SIZE) = (record.as_slice(), record.len()) {
            size += usize::from(u16::from_be_bytes([*high, *low]));
            if size > RECORD_SIZE_MAX {
                return Err(None);
            }
        }
    }
    Ok(())
}
