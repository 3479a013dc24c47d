//! TLS for pages: a handshake in the place of an HTTP request, then a record layer of our own.
//!
//! ```text
//! listen.rs -> shake (rustls) -> Channel (crates/tls) in Secured -> http.rs -> pages.rs, fanout.rs
//! ```
//!
//! Owns what all of its connections share: certificates, the queue for expensive steps, the rate
//! limit of each address, the places of half records, counts. A handshake that was begun and fails
//! is counted and logged at level debug: on a public port there are many. The uplink's TLS is apart
//! from all that: `client.rs`, `verify.rs`.

pub(super) mod client;
pub(in crate::daemon) mod halves;
pub mod handshake;
mod pacer;
pub mod reload;
pub mod secured;
pub(crate) mod verify;

use std::cell::{Cell, Ref, RefCell};
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use smol::{Timer, future};

use self::halves::Halves;
use self::handshake::{Acceptor, Failed, Kind, Next};
use self::pacer::Pacer;
use self::reload::Certificates;
use self::secured::{Secured, sealed_in_vain};
use super::budget::Budget;
use super::exchange::{first_byte, linger, read};
use super::heads::Place;
use super::response::Response;
use super::stream::Stream;
use super::{Daemon, DaemonError};
use crate::clock::Clock;
use crate::config::{self, MinVersion};
use crate::console::TlsCounts;
use board::Board;
use relay::rate::{Bucket, Rate};
use relay::time::Jitter;
use tls::suite::HEADER_SIZE;

/// All records of the peer in a handshake, in bytes, at most: rustls keeps what is not a whole
/// message yet. A hello with a post-quantum key share has 1.8 KB, and may come twice.
const HANDSHAKE_SIZE_MAX: usize = 8 * 1024;
// A term of the memory sum: rustls keeps it beside a record under way.
const _: () = assert!(2 * HANDSHAKE_SIZE_MAX + board::TLS_RECORD_SIZE_MAX <= board::TLS_HEAD_SIZE);
/// Records of a handshake, at most. Usual ones have two or three.
const RECORDS_MAX: usize = 16;
/// First byte of a record with a hello.
const HANDSHAKE: u8 = 22;

/// TLS for pages.
pub struct Server {
    acceptor: RefCell<Acceptor>,
    /// What the acceptor was made of.
    certificates: RefCell<Certificates>,
    min_version: Cell<MinVersion>,
    pacer: Pacer,
    /// Handshakes by the hash of an address.
    buckets: RefCell<Box<[Bucket]>>,
    rate: Rate,
    seed: u64,
    halves: Rc<Halves>,
    clock: Clock,
    counts: Cell<TlsCounts>,
}

impl Server {
    /// TLS as configured.
    ///
    /// # Errors
    /// A pair of files that was good when the configuration was checked can't be read any more.
    pub fn new(tls: &config::Tls, board: &Board, clock: Clock) -> Result<Self, DaemonError> {
        let certificates = Certificates::of(&tls.certificates).map_err(|wrong| {
            let wrong = wrong.into_iter().map(|(_, (what, remedy))| format!("{what}; {remedy}"));
            DaemonError::Tls(wrong.collect::<Vec<_>>().join("; "))
        })?;
        let refused = |failed: Failed| DaemonError::Tls(failed.to_string());
        let acceptor = Acceptor::new(&certificates.pairs(), tls.min_version, None).map_err(refused)?;
        let buckets = RefCell::new(vec![Bucket::default(); board.addresses_max as usize].into());
        let rate = Rate { burst: board.address_asks_burst, per_s: board.address_asks_per_s };
        let seed = getrandom::u64().map_err(DaemonError::Random)?;
        let halves = Rc::new(Halves::new(board.half_records_max, clock));
        let pacer = Pacer::new().map_err(|error| DaemonError::Tls(error.to_string()))?;
        Ok(Self {
            acceptor: RefCell::new(acceptor),
            certificates: RefCell::new(certificates),
            min_version: Cell::new(tls.min_version),
            pacer,
            buckets,
            rate,
            seed,
            halves,
            clock,
            counts: Cell::default(),
        })
    }

    /// The places of half records.
    pub fn halves(&self) -> &Rc<Halves> {
        &self.halves
    }

    /// Counts since the start.
    pub fn counts(&self) -> TlsCounts {
        TlsCounts {
            half_records: self.halves.count(),
            halves_cut: self.halves.cut(),
            sealed_in_vain: sealed_in_vain(),
            ..self.counts.get()
        }
    }

    /// The certificates in force.
    pub fn certificates(&self) -> Ref<'_, Certificates> {
        self.certificates.borrow()
    }

    fn count(&self, change: impl FnOnce(&mut TlsCounts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    /// Whether a network may begin one more handshake. One that resumes a session counts like
    /// another: it costs nearly as much, a ticket can be used any number of times, and what a hello
    /// says of it may be wrong.
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

/// The pin of a certificate whose key is at hand, as `uplink.tls.pin` has it.
///
/// # Errors
/// The pair can't be used, and the remedy.
pub fn pin(certificate_file: &Path, key_file: &Path) -> Result<config::Pin, config::Wrong> {
    let pair = config::certificates::load(certificate_file, key_file)?;
    verify::pin_of(&pair.end_entity().into()).map_err(|error| {
        (format!("{} can't be used: {error}", certificate_file.display()), "issue another one".to_owned())
    })
}

/// Why no hands were shaken.
enum Unshaken {
    /// The peer speaks HTTP, and gets this response.
    Plain(Response),
    /// Its address has shaken hands too often.
    Limited,
    /// What failed.
    Failed(String),
}

/// The result of a part of the handshake.
type Shaken<T> = Result<T, Unshaken>;

/// Shakes hands on a fresh connection, within the time of a request head. Only the peer's silence
/// counts, not its wait for a turn.
///
/// # Errors
/// The plain response to a peer that speaks HTTP; `None` if the connection is over. If rustls
/// refused what the peer said, it was sent an alert.
pub(in crate::daemon) async fn shake(
    daemon: &Daemon,
    server: &Server,
    place: &Place,
    stream: &Stream,
) -> Result<Box<Secured>, Option<Response>> {
    let mut left = Duration::from_millis(daemon.config.borrow().board.head_ms_max.into());
    let begin = async { first_byte(place, stream).await.map_err(|_| gone()) };
    // A peer that says nothing has begun no handshake.
    match within(&mut left, server.clock, begin).await {
        Ok(1..) => place.head_begins(),
        Ok(0) | Err(_) => return Err(None),
    }
    match exchange(daemon, server, place, stream, left).await {
        Ok((secured, kind)) => {
            server.count(|counts| match kind {
                Kind::Full => counts.full += 1,
                Kind::Resumed => counts.resumed += 1,
            });
            Ok(secured)
        }
        Err(Unshaken::Plain(response)) => Err(Some(response)),
        Err(Unshaken::Limited) => {
            server.count(|counts| counts.limited += 1);
            log::debug!("a TLS handshake was refused: its address makes too many");
            Err(None)
        }
        Err(Unshaken::Failed(why)) => {
            server.count(|counts| counts.failed += 1);
            log::debug!("a TLS handshake failed: {why}");
            Err(None)
        }
    }
}

/// Takes the peer's records, the first of which has begun, until the handshake is done.
async fn exchange(
    daemon: &Daemon,
    server: &Server,
    place: &Place,
    stream: &Stream,
    mut left: Duration,
) -> Shaken<(Box<Secured>, Kind)> {
    let refused = |failed: Failed| Unshaken::Failed(failed.to_string());
    let mut handshake = server.acceptor.borrow().begin().map_err(refused)?;
    let (mut size_left, mut is_admitted) = (HANDSHAKE_SIZE_MAX, false);
    for _ in 0..RECORDS_MAX {
        // Both buffers are gone while the peer is waited for.
        let (mut record, mut out) = (Vec::new(), Vec::new());
        within(&mut left, server.clock, read_record(stream, &mut record, size_left)).await?;
        size_left = size_left.saturating_sub(record.len());
        let turn = match handshake::hello(&record) {
            // A hello, a key of TLS 1.2: what may take a millisecond.
            hello if record.first() == Some(&HANDSHAKE) => {
                let is_resumed = hello == Some(true);
                if hello.is_some() && !is_admitted {
                    is_admitted = place.network().is_none_or(|network| server.admits(network));
                    if !is_admitted {
                        return Err(Unshaken::Limited);
                    }
                }
                place.awaits_turn();
                Some(server.pacer.turn(is_resumed, || daemon.relay.borrow().has_pages_to_serve()).await)
            }
            _ => None,
        };
        let next = handshake.step(&record, &mut out);
        drop(turn);
        let is_sent = out.is_empty() || stream.write(&out).is_ok_and(|size| size == out.len());
        drop((record, out));
        place.awaits_peer(server.clock.now());
        handshake = match next {
            // A fresh socket takes a few kilobytes. One that doesn't is not waited for.
            Ok(_) if !is_sent => return Err(Unshaken::Failed("the socket takes nothing".to_owned())),
            Ok(Next::Record(handshake)) => handshake,
            Ok(Next::Done(secured, kind)) => return Ok((secured, kind)),
            Err(failed) => {
                // Closed at once, the connection could lose the alert.
                let arrives = async {
                    linger(stream).await;
                    Ok(())
                };
                let _ = within(&mut left, server.clock, arrives).await;
                return Err(refused(failed));
            }
        }
    }
    Err(Unshaken::Failed(format!("more than {RECORDS_MAX} records")))
}

/// Runs `work` for at most `left`, and takes its time from that.
async fn within<T>(left: &mut Duration, clock: Clock, work: impl Future<Output = Shaken<T>>) -> Shaken<T> {
    let begun = clock.now();
    let late = async {
        Timer::after(*left).await;
        Err(Unshaken::Failed("it took too long".to_owned()))
    };
    let result = future::or(work, late).await;
    *left = left.saturating_sub(Duration::from_millis(clock.now().since(begun)));
    result
}

fn gone() -> Unshaken {
    Unshaken::Failed("the connection ended".to_owned())
}

/// Reads one whole record of at most `size_max` bytes.
async fn read_record(stream: &Stream, record: &mut Vec<u8>, size_max: usize) -> Shaken<()> {
    let mut budget = Budget::TURN;
    let mut size = HEADER_SIZE;
    while record.len() < size {
        let begin = record.len();
        record.resize(size, 0);
        let more = read(stream, record.get_mut(begin..).unwrap_or_default(), &mut budget).await.map_err(|_| gone())?;
        record.truncate(begin + more);
        if more == 0 {
            return Err(gone());
        }
        if begin == 0 && record.first().is_some_and(u8::is_ascii_uppercase) {
            let response = Response::plain(400, "this port speaks TLS: the address begins with https:\n");
            return Err(Unshaken::Plain(response));
        }
        if let ([.., high, low], HEADER_SIZE) = (record.as_slice(), record.len()) {
            size += usize::from(u16::from_be_bytes([*high, *low]));
            if size > size_max {
                return Err(Unshaken::Failed(format!("more than {HANDSHAKE_SIZE_MAX} bytes")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "../../../tests/suite/anyone.rs"]
mod anyone;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::{self, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use rustix::io::ioctl_fionread;
    use rustls::{ClientConfig, ClientConnection};
    use smol::LocalExecutor;

    use super::super::budget;
    use super::super::connection::Connection;
    use super::super::exchange::readable;
    use super::super::fanout;
    use super::super::heads::Heads;
    use super::super::stream::tests::pair;
    use super::*;
    use crate::config::certificates::tests::Folder;
    use board::HOST;
    use relay::rig::{Rig, message};
    use wire::Track;
    use wire::uplink::{Incoming, Part, ToRelay};

    /// TLS with a fresh certificate. Of each address, `burst` handshakes are accepted, and no more.
    fn server(burst: u32) -> Rc<Server> {
        let folder = Folder::new();
        folder.pair("a", "EC -pkeyopt ec_paramgen_curve:P-256");
        let (certificate_file, key_file) = (folder.path("a.pem"), folder.path("a.key"));
        let certificates = vec![config::CertificateFiles {
            certificate_file,
            key_file,
            line: 1,
            notes: Vec::new(),
            about: String::new(),
        }];
        let (listen, min_version) = (Vec::new(), config::MinVersion::V12);
        let tls = config::Tls { listen, certificates, min_version, hsts_s: 0, redirect: false };
        let board = Board { address_asks_burst: burst, address_asks_per_s: 0, ..HOST };
        Rc::new(Server::new(&tls, &board, Clock::start()).unwrap())
    }

    /// A client with a store for tickets.
    fn client() -> Arc<ClientConfig> {
        Arc::new(anyone::client_of(rustls::DEFAULT_VERSIONS))
    }

    fn connection(client: &Arc<ClientConfig>) -> ClientConnection {
        ClientConnection::new(Arc::clone(client), "a.example".try_into().unwrap()).unwrap()
    }

    /// Shakes hands with a client, which then waits for its ticket; whether that succeeds.
    fn meet(daemon: &Daemon, server: &Server, network: [u8; 4], client: &Arc<ClientConfig>) -> bool {
        let (stream, mut socket) = pair();
        let mut connection = connection(client);
        let talks = std::thread::spawn(move || -> io::Result<()> {
            while connection.is_handshaking() {
                connection.complete_io(&mut socket)?;
            }
            connection.read_tls(&mut socket)?;
            connection.process_new_packets().map_err(io::Error::other)?;
            Ok(())
        });
        let place = Heads::new(1).enter(server.clock.now(), Some(network.into()));
        let is_shaken = smol::block_on(shake(daemon, server, &place, &stream)).is_ok();
        drop(stream);
        assert_eq!(talks.join().unwrap().is_ok(), is_shaken);
        is_shaken
    }

    #[test]
    fn an_address_that_floods_is_limited_alone_whatever_its_hellos_say() {
        let daemon = Daemon::of(Rig::down(&HOST));
        let (server, other) = (server(3), server(3));
        let (flood, bystander) = ([192, 0, 2, 1], [192, 0, 2, 2]);
        // With a ticket of another server, which looks like any other.
        let client_of_both = client();
        assert!(meet(&daemon, &other, flood, &client_of_both));
        assert!(meet(&daemon, &server, flood, &client_of_both));
        // With one of this server, again and again.
        assert!(meet(&daemon, &server, flood, &client_of_both));
        assert!(meet(&daemon, &server, flood, &client_of_both));
        let counts = server.counts();
        assert_eq!((counts.full, counts.resumed, counts.limited), (1, 2, 0));
        assert!(!meet(&daemon, &server, flood, &client_of_both), "resumed");
        assert!(!meet(&daemon, &server, flood, &client()), "full");
        for _ in 0..3 {
            assert!(meet(&daemon, &server, bystander, &client()));
        }
        assert_eq!(server.counts(), TlsCounts { full: 4, resumed: 2, limited: 2, ..TlsCounts::default() });
    }

    #[test]
    fn a_handshake_that_was_begun_and_fails_is_counted_and_nothing_else_is() {
        let daemon = Daemon::of(Rig::down(&HOST));
        let server = server(10);
        for (said, failed, is_answered) in [
            (&b""[..], 0, false),
            (b"GET / HTTP/1.1\r\n\r\n", 0, true),
            (&[HANDSHAKE], 1, false),
            (&[HANDSHAKE, 3, 1, 0, 9, 1, 0], 1, false),
            (&[HANDSHAKE, 3, 1, 0, 4, 1, 0, 0, 0], 1, false),
            (&[HANDSHAKE, 3, 1, 0xff, 0xff], 1, false),
            (&[99, 3, 1, 0, 1, 0], 1, false),
        ] {
            let before = server.counts().failed;
            let (stream, mut peer) = pair();
            peer.write_all(said).unwrap();
            peer.shutdown(std::net::Shutdown::Write).unwrap();
            let place = Heads::new(1).enter(server.clock.now(), None);
            let shaken = smol::block_on(shake(&daemon, &server, &place, &stream));
            assert_eq!(shaken.err().map(|answer| answer.is_some()), Some(is_answered), "{said:?}");
            assert_eq!(server.counts().failed - before, failed, "{said:?}");
        }
        assert_eq!(server.counts(), TlsCounts { failed: 5, ..TlsCounts::default() });
    }

    #[test]
    fn a_hello_without_end_is_not_read_beyond_its_limit() {
        let daemon = Daemon::of(Rig::down(&HOST));
        let server = server(1);
        let (stream, mut peer) = pair();
        // A hello of 64 KB, in records of 1 KiB.
        let record = [&[HANDSHAKE, 3, 1, 4, 0][..], &[1, 0, 0xff, 0xff], &[3; 1020]].concat();
        let behind = [&[HANDSHAKE, 3, 1, 4, 0][..], &[0; 1024]].concat();
        let sent = [record, behind.repeat(15)].concat();
        peer.write_all(&sent).unwrap();
        let waiting = || usize::try_from(ioctl_fionread(&stream).unwrap()).unwrap();
        while waiting() < sent.len() {}
        let place = Heads::new(1).enter(server.clock.now(), None);
        assert!(smol::block_on(shake(&daemon, &server, &place, &stream)).is_err());
        let taken = sent.len() - waiting();
        assert!(taken <= HANDSHAKE_SIZE_MAX + HEADER_SIZE, "{taken} bytes");
    }

    /// Real handshakes, a real fan-out, and a page on a real socket. What arrives during a step is
    /// with the page before the next but one: whatever waits in the queue, the reactor is polled
    /// and others have their turn.
    #[test]
    fn pages_have_their_turn_between_any_two_steps_and_wait_for_no_more_than_one() {
        const HANDSHAKES: usize = 24;
        let mut rig = Rig::up(&HOST);
        let page = rig.viewer();
        while rig.relay.poll_page().is_some() {}
        let daemon = Daemon::of(rig);
        // On Unix sockets, which deliver at once.
        let (near, mut page_peer) = UnixStream::pair().unwrap();
        let connected = Connection::new(page, Stream::new(near).unwrap());
        daemon.connections.borrow_mut().insert(Rc::new(connected));
        let server = server(1000);
        let client = client();
        let executor = Rc::new(LocalExecutor::new());
        let mut peers = Vec::new();
        let mut heads = Heads::new(u32::try_from(HANDSHAKES).unwrap());
        let shakes: Vec<_> = (0..HANDSHAKES)
            .map(|_| {
                let (stream, mut socket) = pair();
                let mut connection = connection(&client);
                connection.write_tls(&mut socket).unwrap();
                while stream.peek().is_err() {}
                peers.push((connection, socket));
                let place = heads.enter(server.clock.now(), None);
                let (daemon, server) = (Rc::clone(&daemon), Rc::clone(&server));
                executor.spawn(async move { shake(&daemon, &server, &place, &stream).await.is_ok() })
            })
            .collect();

        // The business server: each byte is a publication.
        let (near, mut business) = UnixStream::pair().unwrap();
        let near = Stream::new(near).unwrap();
        let published = {
            let daemon = Rc::clone(&daemon);
            executor.spawn(async move {
                for sequence in 10.. {
                    if readable(&near).await.unwrap() == 0 {
                        break;
                    }
                    assert_eq!(near.read(&mut [0]).unwrap(), 1);
                    let data = sequence.to_string();
                    let (track, part) = (Track::Messages, Part::Whole);
                    let frame = ToRelay::Publish { topic: 7, track, sequence, part, data: data.as_bytes() };
                    daemon.step(|relay, now| relay.handle_uplink(now, Incoming::Frame(frame)).unwrap());
                }
            })
        };
        let fanout = executor.spawn(fanout::run(Rc::clone(&daemon)));
        // It sees each step by itself, since it has a turn between any two. With each, a
        // publication arrives.
        let size = message(10).len() + 2;
        let waiting = move |page: &UnixStream| usize::try_from(ioctl_fionread(page).unwrap()).unwrap() / size;
        let steps = Rc::new(RefCell::new(Vec::new()));
        let watch = {
            let (server, steps) = (Rc::clone(&server), Rc::clone(&steps));
            let page_peer = page_peer.try_clone().unwrap();
            executor.spawn(async move {
                let mut last = 0;
                loop {
                    let now = server.pacer.rest_until();
                    if now != last {
                        last = now;
                        steps.borrow_mut().push(waiting(&page_peer));
                        business.write_all(&[1]).unwrap();
                    }
                    future::yield_now().await;
                }
            })
        };
        let finish = std::thread::spawn(move || {
            for (connection, socket) in &mut peers {
                while connection.is_handshaking() {
                    connection.complete_io(socket).unwrap();
                }
            }
            peers
        });
        let all = async {
            for shaken in shakes {
                assert!(shaken.await);
            }
            // The last step is seen too.
            for _ in 0..8 {
                future::yield_now().await;
            }
        };
        smol::block_on(budget::run(&executor, all));
        drop((watch, fanout, published, finish.join().unwrap()));
        let steps = steps.borrow();
        assert_eq!(steps.len(), HANDSHAKES, "two steps without a turn of others between them");
        for (step, served) in steps.iter().enumerate() {
            assert!(*served + 1 >= step, "before step {step} the page had {served} publications");
        }
        let mut said = vec![0; 1 << 16];
        assert!(page_peer.read(&mut said).unwrap() >= (HANDSHAKES - 2) * size);
    }
}
