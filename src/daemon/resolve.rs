//! Names to addresses: of the business server by the system's own settings, of interfaces by the
//! kernel.
//!
//! A stub resolver without a thread, since the C library's blocks. It reads `/etc/hosts` and
//! `/etc/resolv.conf` anew and asks anew at each call: nothing is cached, so a TTL means nothing.
//! Owns the sockets, the order of servers and candidates, and all times. Each question has its own
//! socket, and so a random port, and a random id; a connected socket gets datagrams only from the
//! server that was asked. Refuses to look up loopback's own names anywhere (RFC 6761, 6.3). Doesn't
//! know ports or what an address is for.

pub mod query;
mod settings;

use std::fmt;
use std::fs::{self, File};
use std::future::{Future, poll_fn};
use std::io::{self, BufRead, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use smol::{Async, Timer};

use self::query::{ADDRESSES_MAX, Answer, Family, Question};
use self::settings::{Server, Settings};
use super::budget::Budget;
use crate::config::is_loopback_name;

/// The port of name servers.
const PORT: u16 = 53;
/// What is read of `/etc/resolv.conf`, and of `/etc/hosts` (lists that block advertisers are long:
/// this many bytes take about 3 ms).
const SETTINGS_SIZE_MAX: u64 = 64 * 1024;
const HOSTS_SIZE_MAX: u64 = 1024 * 1024;
/// An answer by UDP has at most 512 bytes, since we send no EDNS; some servers send more.
const DATAGRAM_SIZE_MAX: usize = 1232;
/// A longer answer by TCP is refused: this holds 200 addresses. Each record may cost as many steps
/// as a name has labels, for each alias.
const ANSWER_SIZE_MAX: usize = 4 * 1024;
/// Once one family has addresses, the other one has only this time: some servers never answer AAAA.
const GRACE: Duration = Duration::from_millis(500);

/// Where the system's settings are.
#[derive(Clone, Debug)]
pub struct Resolver {
    settings: PathBuf,
    hosts: PathBuf,
    port: u16,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { settings: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into(), port: PORT }
    }
}

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// There is no such name.
    NoName,
    /// The name exists, without an address.
    NoAddress,
    /// No server gave an answer that counts; why not the last one asked.
    Undecided(String),
    /// It took longer than the dial allows.
    Late,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoName => f.write_str("there is no such name"),
            Self::NoAddress => f.write_str("the name has no address"),
            Self::Undecided(why) => f.write_str(why),
            Self::Late => write!(f, "no answer within {} s", relay::RESOLVE_MS_MAX / 1000),
        }
    }
}

impl Resolver {
    /// The addresses of a name, at most 16: of both families in turn, IPv6 first, each in the order
    /// in which they were listed.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
        if is_loopback_name(name) {
            return Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
        }
        let listed = self.listed(name);
        if !listed.is_empty() {
            return Ok(in_turn(listed));
        }
        let late = async {
            Timer::after(Duration::from_millis(relay::RESOLVE_MS_MAX)).await;
            Err(Unresolved::Late)
        };
        smol::future::or(self.look_up(name), late).await
    }

    /// The addresses in `/etc/hosts`. A file that can't be read lists none.
    fn listed(&self, name: &str) -> Vec<IpAddr> {
        let Ok(file) = open(&self.hosts) else { return Vec::new() };
        let lines = BufReader::new(file.take(HOSTS_SIZE_MAX)).split(b'\n').map_while(Result::ok);
        let found = lines.filter_map(|line| settings::host(&String::from_utf8_lossy(&line), name));
        found.take(2 * ADDRESSES_MAX).collect()
    }

    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
        let mut text = Vec::new();
        if let Ok(file) = open(&self.settings) {
            // What was read before an error counts.
            let _ = io::copy(&mut file.take(SETTINGS_SIZE_MAX), &mut text);
        }
        let settings = Settings::parse(&String::from_utf8_lossy(&text));
        let mut verdict = Unresolved::NoName;
        for candidate in settings.candidates(name) {
            match self.look_up_candidate(&settings, &candidate).await {
                Err(Unresolved::NoName) => {}
                Err(Unresolved::NoAddress) => verdict = Unresolved::NoAddress,
                result => return result,
            }
        }
        Err(verdict)
    }

    /// Asks each server in turn until one of them decides.
    async fn look_up_candidate(&self, settings: &Settings, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
        let mut why = String::new();
        for _ in 0..settings.attempts {
            for server in &settings.servers {
                let outcomes = match self.address_of(server) {
                    Ok(address) => both(address, name, settings.timeout).await,
                    Err(error) => [Some(Err(error)), None],
                };
                match decide(outcomes) {
                    Err(Unresolved::Undecided(what)) => why = format!("the name server {} {what}", server.ip),
                    decided => return decided,
                }
            }
        }
        Err(Unresolved::Undecided(why))
    }

    fn address_of(&self, server: &Server) -> io::Result<SocketAddr> {
        Ok(match (server.ip, &server.interface) {
            (IpAddr::V6(ip), Some(interface)) => SocketAddrV6::new(ip, self.port, 0, index_of(interface)?).into(),
            (ip, _) => SocketAddr::from((ip, self.port)),
        })
    }
}

/// The interface's number from the kernel, anew on each call: it changes when the interface is
/// removed and comes back.
///
/// # Errors
/// There is no such interface.
pub fn index_of(interface: &str) -> io::Result<u32> {
    // Written as a number, it is one.
    if let Ok(index) = interface.parse() {
        return Ok(index);
    }
    let socket = socket_with(AddressFamily::INET6, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    name_to_index(&socket, interface).map_err(|error| match error {
        Errno::NODEV => io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {interface}")),
        error => error.into(),
    })
}

/// Opens a regular file. Another one could block.
fn open(path: &Path) -> io::Result<File> {
    if fs::metadata(path)?.is_file() { File::open(path) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// The families in turn, IPv6 first, since it is the one that may be missing or broken without
/// anybody noticing (RFC 8305, 4).
fn in_turn(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (v6, v4): (Vec<IpAddr>, Vec<IpAddr>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let pairs = (0..v6.len().max(v4.len())).flat_map(|at| [v6.get(at), v4.get(at)]);
    pairs.flatten().copied().collect()
}

/// What one question came to; nothing if there was no answer in time.
type Outcome = Option<io::Result<Answer>>;

/// Asks one server for both families at once.
async fn both(server: SocketAddr, name: &str, timeout: Duration) -> [Outcome; 2] {
    let mut asks = [Family::V6, Family::V4].map(|family| Box::pin(ask(server, name, family)));
    let mut outcomes = [None, None];
    let mut end = Timer::after(timeout);
    let mut has_grace = false;
    poll_fn(|context| {
        for (ask, outcome) in asks.iter_mut().zip(&mut outcomes) {
            if outcome.is_none()
                && let Poll::Ready(result) = ask.as_mut().poll(context)
            {
                *outcome = Some(result);
            }
        }
        let is_enough = |outcome: &Outcome| matches!(outcome, Some(Ok(Answer::Addresses(_))));
        if !has_grace && outcomes.iter().any(is_enough) {
            has_grace = true;
            end.set_after(GRACE);
        }
        if outcomes.iter().all(Option::is_some) || Pin::new(&mut end).poll(context).is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
    outcomes
}

fn decide(outcomes: [Outcome; 2]) -> Result<Vec<IpAddr>, Unresolved> {
    let (mut found, mut without, mut why) = (Vec::new(), 0, "did not answer".to_owned());
    // Meant for the whole name; but some servers say it of a family that it lacks (RFC 4074, 4.2).
    let mut is_missing = false;
    for outcome in outcomes {
        match outcome {
            Some(Ok(Answer::Addresses(some))) => found.extend(some),
            Some(Ok(Answer::NoName)) => is_missing = true,
            Some(Ok(Answer::NoAddress)) => without += 1,
            Some(Ok(Answer::Aliases)) => why = "sends aliases that lead nowhere (a circle, or more than 8)".to_owned(),
            Some(Ok(Answer::Failed(0) | Answer::Truncated)) => why = "sends an answer that can't be read".to_owned(),
            Some(Ok(Answer::Failed(2))) => why = "failed (SERVFAIL)".to_owned(),
            Some(Ok(Answer::Failed(5))) => why = "refused to answer (REFUSED)".to_owned(),
            Some(Ok(Answer::Failed(code))) => why = format!("failed (code {code})"),
            Some(Err(error)) => why = format!("can't be asked: {error}"),
            None => {}
        }
    }
    match (found.is_empty(), without) {
        (false, _) => Ok(in_turn(found)),
        (true, _) if is_missing => Err(Unresolved::NoName),
        (true, 2) => Err(Unresolved::NoAddress),
        (true, _) => Err(Unresolved::Undecided(why)),
    }
}

/// Asks one question by UDP, and again by TCP if the answer doesn't fit a datagram.
async fn ask(server: SocketAddr, name: &str, family: Family) -> io::Result<Answer> {
    let id = getrandom::u32().map_err(io::Error::other)? >> 16;
    let question = u16::try_from(id).ok().and_then(|id| Question::new(name, family, id));
    let (question, query) = question
        .and_then(|question| question.encode().map(|query| (question, query)))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it can't be a name"))?;
    let own: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = Async::<UdpSocket>::bind((own, 0))?;
    socket.get_ref().connect(server)?;
    socket.send(&query).await?;
    let mut bytes = [0; DATAGRAM_SIZE_MAX];
    let mut budget = Budget::TURN;
    loop {
        budget.next_read().await;
        let size = socket.recv(&mut bytes).await?;
        budget.take(size);
        match question.parse(bytes.get(..size).unwrap_or_default()) {
            // Not an answer to this question: perhaps a forged one, and the true one follows.
            None => {}
            Some(Answer::Truncated) => return ask_by_tcp(server, &question, &query).await,
            Some(answer) => return Ok(answer),
        }
    }
}

/// Asks by TCP: each message has its size before it (RFC 1035, 4.2.2).
async fn ask_by_tcp(server: SocketAddr, question: &Question, query: &[u8]) -> io::Result<Answer> {
    let mut stream = Async::<TcpStream>::connect(server).await?;
    let size = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&size.to_be_bytes(), query].concat()).await?;
    let mut size = [0; 2];
    read_whole(&mut stream, &mut size).await?;
    let size = usize::from(u16::from_be_bytes(size));
    if size > ANSWER_SIZE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("its answer has {size} bytes")));
    }
    let mut bytes = vec![0; size];
    read_whole(&mut stream, &mut bytes).await?;
    question
        .parse_whole(&bytes)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it answers another question"))
}

async fn read_whole(stream: &mut Async<TcpStream>, mut into: &mut [u8]) -> io::Result<()> {
    let mut budget = Budget::TURN;
    while !into.is_empty() {
        budget.next_step().await;
        let size = stream.read(into).await?;
        if size == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        budget.take(size);
        into = into.get_mut(size..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::{Cell, RefCell};
    use std::net::TcpListener;
    use std::rc::Rc;
    use std::time::Instant;

    use super::query::tests::{A, AAAA, CNAME, Record, labels, reply};
    use super::*;

    impl Resolver {
        /// With the settings in this file, name servers on this port, and no hosts.
        pub fn with(settings: &Path, port: u16) -> Self {
            Self { settings: settings.to_owned(), hosts: "/nowhere/hosts".into(), port }
        }
    }

    /// A file, removed when the test ends.
    pub struct Text(pub PathBuf);

    impl Text {
        pub fn new(name: &str, text: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sharelinkd-{name}-{}", std::process::id()));
            std::fs::write(&path, text).unwrap();
            Self(path)
        }
    }

    impl Drop for Text {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// A name server on a loopback address, by UDP and TCP on the same port.
    pub struct Fake {
        udp: Async<UdpSocket>,
        tcp: Async<TcpListener>,
        /// Datagrams received.
        pub asked: Cell<usize>,
        /// The ids and ports of the questions.
        seen: RefCell<Vec<(u16, u16)>>,
    }

    impl Fake {
        pub fn new(ip: &str, port: u16) -> Self {
            let ip: IpAddr = ip.parse().unwrap();
            // The port must be free for both.
            for _ in 0..100 {
                let udp = Async::<UdpSocket>::bind((ip, port)).unwrap();
                let Ok(tcp) = Async::<TcpListener>::bind(udp.get_ref().local_addr().unwrap()) else { continue };
                return Self { udp, tcp, asked: Cell::new(0), seen: RefCell::default() };
            }
            panic!("no port is free");
        }

        pub fn port(&self) -> u16 {
            self.udp.get_ref().local_addr().unwrap().port()
        }

        /// Answers each datagram with what `answer` makes of it, and each message by TCP with the
        /// one that `whole` makes.
        pub async fn serve<T>(&self, answer: impl Fn(&[u8]) -> Vec<Vec<u8>>, whole: impl Fn(&[u8]) -> Vec<u8>) -> T {
            let datagrams = async {
                let mut bytes = [0; 1500];
                loop {
                    let (size, from) = self.udp.recv_from(&mut bytes).await.unwrap();
                    self.asked.set(self.asked.get() + 1);
                    self.seen.borrow_mut().push((u16::from_be_bytes([bytes[0], bytes[1]]), from.port()));
                    for answer in answer(&bytes[..size]) {
                        let _ = self.udp.send_to(&answer, from).await;
                    }
                }
            };
            let streams = async {
                loop {
                    let (mut stream, _) = self.tcp.accept().await.unwrap();
                    let mut size = [0; 2];
                    stream.read_exact(&mut size).await.unwrap();
                    let mut bytes = vec![0; usize::from(u16::from_be_bytes(size))];
                    stream.read_exact(&mut bytes).await.unwrap();
                    let _ = stream.write_all(&whole(&bytes)).await;
                }
            };
            smol::future::or(datagrams, streams).await
        }
    }

    /// The type that a question asks for.
    fn kind(query: &[u8]) -> u16 {
        u16::from_be_bytes([query[query.len() - 4], query[query.len() - 3]])
    }

    /// The name that it asks for.
    fn name(query: &[u8]) -> String {
        let (mut at, mut out) = (12, String::new());
        while query[at] > 0 {
            let end = at + 1 + usize::from(query[at]);
            out.push_str(std::str::from_utf8(&query[at + 1..end]).unwrap());
            out.push('.');
            at = end;
        }
        out
    }

    /// A server's usual answer: 10.0.0.1 and fd00::1.
    pub fn usual(query: &[u8]) -> Vec<u8> {
        let mut v6 = vec![0; 16];
        (v6[0], v6[15]) = (0xfd, 1);
        let record = match kind(query) {
            A => (A, vec![10, 0, 0, 1]),
            _ => (AAAA, v6),
        };
        reply(query, 0, &[(&name(query), record.0, record.1)])
    }

    /// This IPv4 address for this name, and no other name exists.
    pub fn answers_for(known: &str, ip: [u8; 4], query: &[u8]) -> Vec<u8> {
        match (name(query) == known, kind(query)) {
            (false, _) => reply(query, 3, &[]),
            (true, A) => reply(query, 0, &[(known, A, ip.to_vec())]),
            (true, _) => reply(query, 0, &[]),
        }
    }

    fn ips(texts: &[&str]) -> Result<Vec<IpAddr>, Unresolved> {
        Ok(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn whole(message: &[u8]) -> Vec<u8> {
        [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
    }

    fn nothing_by_tcp(_: &[u8]) -> Vec<u8> {
        Vec::new()
    }

    /// Resolves `b.example` where one name server answers like that.
    fn with(
        test: &str,
        options: &str,
        answer: impl Fn(&[u8]) -> Vec<Vec<u8>>,
        by_tcp: impl Fn(&[u8]) -> Vec<u8>,
    ) -> (Result<Vec<IpAddr>, Unresolved>, usize) {
        let fake = Fake::new("127.0.0.1", 0);
        let settings = Text::new(test, &format!("nameserver 127.0.0.1\n{options}\n"));
        let resolver = Resolver::with(&settings.0, fake.port());
        let found = smol::block_on(smol::future::or(resolver.resolve("b.example"), fake.serve(answer, by_tcp)));
        (found, fake.asked.get())
    }

    #[test]
    fn both_families_are_asked_each_from_its_own_port_under_its_own_id() {
        let fake = Fake::new("127.0.0.1", 0);
        let settings = Text::new("dns-both", "nameserver 127.0.0.1\n");
        let resolver = Resolver::with(&settings.0, fake.port());
        let found = async {
            for _ in 0..8 {
                assert_eq!(resolver.resolve("b.example").await, ips(&["fd00::1", "10.0.0.1"]));
            }
        };
        smol::block_on(smol::future::or(found, fake.serve(|query| vec![usual(query)], nothing_by_tcp)));
        assert_eq!(fake.asked.get(), 16, "nothing is cached");
        let seen = fake.seen.borrow();
        let distinct =
            |of: fn(&(u16, u16)) -> u16| seen.iter().map(of).collect::<std::collections::BTreeSet<_>>().len();
        assert!(distinct(|seen| seen.0) > 12 && distinct(|seen| seen.1) > 12, "{seen:?}");
    }

    #[test]
    fn one_family_is_enough_and_the_other_s_silence_costs_little() {
        let only =
            |wanted: u16| move |query: &[u8]| if kind(query) == wanted { vec![usual(query)] } else { Vec::new() };
        // Without the grace, the whole lookup would be too late.
        let patient = "options timeout:30";
        assert_eq!(with("dns-v4", patient, only(A), nothing_by_tcp), (ips(&["10.0.0.1"]), 2));
        assert_eq!(with("dns-v6", patient, only(AAAA), nothing_by_tcp), (ips(&["fd00::1"]), 2));
        for (wanted, ip) in [(A, "10.0.0.1"), (AAAA, "fd00::1")] {
            let no_name =
                |query: &[u8]| if kind(query) == wanted { vec![usual(query)] } else { vec![reply(query, 3, &[])] };
            assert_eq!(with("dns-no-name", "", no_name, nothing_by_tcp), (ips(&[ip]), 2));
        }
        let empty = |query: &[u8]| if kind(query) == A { vec![usual(query)] } else { vec![reply(query, 0, &[])] };
        assert_eq!(with("dns-no-v6", "", empty, nothing_by_tcp), (ips(&["10.0.0.1"]), 2));
    }

    #[test]
    fn what_does_not_fit_a_datagram_is_asked_by_tcp() {
        let truncated = |query: &[u8]| vec![reply(query, 0x0200, &[])];
        let (found, _) = with("dns-tcp", "", truncated, |query| whole(&usual(query)));
        assert_eq!(found, ips(&["fd00::1", "10.0.0.1"]));
        let many = |query: &[u8]| {
            let records: Vec<Record<'_>> = (1..=100).map(|n| ("b.example", A, vec![10, 0, 1, n])).collect();
            whole(&reply(query, 0, if kind(query) == A { &records } else { &[] }))
        };
        let (found, _) = with("dns-many", "", truncated, many);
        assert_eq!(found.unwrap().len(), ADDRESSES_MAX);
        for (test, by_tcp, why) in [
            ("dns-cut", (|query| whole(&usual(query))[..20].to_vec()) as fn(&[u8]) -> Vec<u8>, "can't be asked"),
            ("dns-long", |_| vec![0xff; 2], "65535 bytes"),
            ("dns-other", |query| whole(&usual(&[&[query[0] ^ 1], &query[1..]].concat())), "another question"),
            ("dns-none", |_| Vec::new(), "can't be asked"),
        ] {
            let (found, _) = with(test, "options attempts:1", truncated, by_tcp);
            assert!(matches!(&found, Err(Unresolved::Undecided(said)) if said.contains(why)), "{test}: {found:?}");
        }
    }

    #[test]
    fn forged_and_garbled_answers_are_passed_over_for_the_true_one() {
        let answers = |query: &[u8]| {
            let mut other_id = usual(query);
            other_id[0] ^= 1;
            let mut other_name = query.to_vec();
            other_name[13] ^= 1;
            let garbage = (0..=255).collect();
            vec![other_id, usual(&other_name), garbage, query.to_vec(), Vec::new(), usual(query)]
        };
        assert_eq!(with("dns-forged", "", answers, nothing_by_tcp), (ips(&["fd00::1", "10.0.0.1"]), 2));
        // Nobody but the server that was asked can answer: here somebody who knows id and port.
        let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
        let fake = Fake::new("127.0.0.1", 0);
        let settings = Text::new("dns-stranger", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
        let resolver = Resolver::with(&settings.0, fake.port());
        let forge = async {
            let mut bytes = [0; 512];
            loop {
                let (size, from) = fake.udp.recv_from(&mut bytes).await.unwrap();
                stranger.send_to(&usual(&bytes[..size]), from).unwrap();
            }
        };
        let found = smol::block_on(smol::future::or(resolver.resolve("b.example"), forge));
        assert_eq!(found, Err(Unresolved::Undecided("the name server 127.0.0.1 did not answer".to_owned())));
    }

    #[test]
    fn a_server_that_decides_nothing_is_passed_over_and_asked_again() {
        let failing = |query: &[u8]| vec![reply(query, 2, &[])];
        let (found, asked) = with("dns-servfail", "options attempts:3", failing, nothing_by_tcp);
        assert_eq!(found, Err(Unresolved::Undecided("the name server 127.0.0.1 failed (SERVFAIL)".to_owned())));
        assert_eq!(asked, 6);
        // The second server, on another address of the same port, knows it.
        for first in ["silent", "refused", "absent", "circle"] {
            let fakes = Rc::new((Fake::new("127.0.0.1", 0), RefCell::new(None)));
            let port = fakes.0.port();
            *fakes.1.borrow_mut() = (first != "absent").then(|| Fake::new("127.0.0.53", port));
            let text = "nameserver 127.0.0.53\nnameserver 127.0.0.1\noptions timeout:1\n";
            let settings = Text::new(&format!("dns-second-{first}"), text);
            let resolver = Resolver::with(&settings.0, port);
            let good = fakes.0.serve(|query| vec![usual(query)], nothing_by_tcp);
            let bad = fakes.1.borrow();
            let answer = |query: &[u8]| match first {
                "refused" => vec![reply(query, 5, &[])],
                "circle" => vec![reply(query, 0, &[(&name(query), CNAME, labels(&name(query)))])],
                _ => Vec::new(),
            };
            let bad = async {
                match bad.as_ref() {
                    Some(bad) => bad.serve(answer, nothing_by_tcp).await,
                    None => std::future::pending().await,
                }
            };
            let found = smol::block_on(smol::future::or(resolver.resolve("b.example"), smol::future::or(good, bad)));
            assert_eq!(found, ips(&["fd00::1", "10.0.0.1"]), "{first}");
        }
    }

    #[test]
    fn a_name_that_is_not_there_is_tried_with_each_suffix_and_then_said_to_be_missing() {
        let asked = RefCell::new(Vec::new());
        let none = |query: &[u8]| {
            if kind(query) == A {
                asked.borrow_mut().push(name(query));
            }
            vec![reply(query, 3, &[])]
        };
        let (found, _) = with("dns-nxdomain", "search one.example two.example\noptions ndots:2", none, nothing_by_tcp);
        assert_eq!(found, Err(Unresolved::NoName));
        assert_eq!(*asked.borrow(), ["b.example.one.example.", "b.example.two.example.", "b.example."]);
        let last = |query: &[u8]| match name(query).as_str() {
            "b.example." => vec![usual(query)],
            _ => vec![reply(query, 3, &[])],
        };
        let (found, _) = with("dns-last", "search one.example\noptions ndots:2", last, nothing_by_tcp);
        assert_eq!(found, ips(&["fd00::1", "10.0.0.1"]));
        let without = |query: &[u8]| vec![reply(query, 0, &[])];
        assert_eq!(with("dns-nodata", "", without, nothing_by_tcp).0, Err(Unresolved::NoAddress));
    }

    #[test]
    fn hosts_come_first_and_loopback_s_names_are_asked_of_nobody() {
        let hosts = Text::new(
            "hosts",
            "127.0.0.1 localhost\n10.9.9.9 b.example alias\nfd00::9 b.example\n10.6.6.6 localhost a.localhost\n",
        );
        let resolver = Resolver { settings: "/nowhere/resolv.conf".into(), hosts: hosts.0.clone(), port: 9 };
        let found = |name: &str| smol::block_on(resolver.resolve(name));
        assert_eq!(found("B.example"), ips(&["fd00::9", "10.9.9.9"]));
        assert_eq!(found("alias"), ips(&["10.9.9.9"]));
        for name in ["localhost", "LOCALHOST.", "a.localhost"] {
            assert_eq!(found(name), ips(&["::1", "127.0.0.1"]), "{name}");
        }
        // Without settings the machine's own server is asked, and nobody is there.
        let refused = found("c.example").unwrap_err().to_string();
        assert!(refused.starts_with("the name server 127.0.0.1 can't be asked: "), "{refused}");
    }

    #[test]
    fn silence_ends_after_the_settings_times_and_a_flood_of_garbage_too() {
        #[expect(clippy::disallowed_methods, reason = "a lower bound of the time that passed")]
        let began = Instant::now();
        let (found, asked) = with("dns-silent", "options timeout:1 attempts:2", |_| Vec::new(), nothing_by_tcp);
        assert_eq!(found, Err(Unresolved::Undecided("the name server 127.0.0.1 did not answer".to_owned())));
        assert_eq!(asked, 4);
        assert!(began.elapsed() >= Duration::from_secs(2));
        let flood = |query: &[u8]| vec![usual(&[&[query[0] ^ 1], &query[1..]].concat()); 200];
        let (found, _) = with("dns-flood", "options timeout:1 attempts:1", flood, nothing_by_tcp);
        assert_eq!(found, Err(Unresolved::Undecided("the name server 127.0.0.1 did not answer".to_owned())));
    }
}
