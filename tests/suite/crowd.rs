//! Thousands of pages at once: they are admitted in the order of their arrival, and a flood of
//! publications to all of them does not starve anything else. What a burst overtakes is reported by
//! a gap.
//!
//! Asserts no times, only that what must arrive does so during the flood and within the tests'
//! usual timeout.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_tungstenite::tungstenite::Message;
use sharelinkd::bench::header;
use socket2::{Domain, Socket, Type};
use wire::Track;
use wire::uplink::{Part, ToBusiness, ToRelay};

use crate::world::{
    Business, Folder, PATIENCE, Process, busy_machine, connect, masked, next_text, program, raise_descriptor_limit,
    subscribe, upgrade,
};
use crate::wss;

fn signal(relay: &Process, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &relay.child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

#[test]
fn pages_that_arrive_together_are_admitted_in_order() {
    let _machine = busy_machine();
    raise_descriptor_limit();
    // At most as many as the kernel's backlog holds for a stopped relay.
    let backlog = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    let count = 900.min(backlog);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Process::start("order", listener.local_addr().unwrap());
    let mut business = Business::meet(&listener);
    signal(&relay, "STOP");
    let pages: Vec<_> = (0..count).map(|number| ask(relay.address, number, &format!("crowd-{number}"))).collect();
    signal(&relay, "CONT");
    let mut next = 0;
    while next < count {
        let (request, link, is_whole) = business.take(|frame| match frame {
            ToBusiness::Subscribe { request, link, page, .. } => {
                Some((*request, (*link).to_owned(), page.address.is_empty()))
            }
            _ => None,
        });
        // A link that is denied as a whole is requested once more by the page's name.
        if is_whole {
            assert_eq!(link, format!("crowd-{next}"), "in order of arrival");
            next += 1;
        }
        business.send(&ToRelay::Deny { request, reason: "full house" });
    }
    drop(pages);
}

/// A page that has sent its subscribe without waiting for the answer. Every hundred pages share a
/// source address, as the board limits the rate for each address.
fn ask(address: SocketAddr, number: usize, link: &str) -> TcpStream {
    ask_by(Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap(), address, number, link)
}

/// The same on a given socket.
fn ask_by(socket: Socket, address: SocketAddr, number: usize, link: &str) -> TcpStream {
    let mut page = dial(socket, address, number);
    page.write_all(&first_words(address, link)).unwrap();
    page
}

fn dial(socket: Socket, address: SocketAddr, number: usize) -> TcpStream {
    let from = Ipv4Addr::new(127, 0, 1, u8::try_from(number / 100).unwrap() + 1);
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.into()
}

fn first_words(address: SocketAddr, link: &str) -> Vec<u8> {
    let subscribe = masked(&format!(r#"{{"type":"subscribe","id":1,"link":"{link}"}}"#));
    [upgrade(address).into_bytes(), subscribe].concat()
}

/// Reads from `count` pages in turn until stopped; returns the number of reads with data. A page
/// that can't keep up with the flood is cut off in the middle of a frame, as promised, and
/// reconnects.
fn read_all(address: SocketAddr, count: usize, are_in: &Barrier, stop: &AtomicBool) -> u64 {
    let come = |number| {
        let page = ask(address, number, "flooded");
        page.set_nonblocking(true).unwrap();
        page
    };
    let mut pages: Vec<_> = (0..count).map(come).collect();
    are_in.wait();
    let mut bytes = vec![0; 1 << 16];
    let mut all = 0;
    while !stop.load(Ordering::Relaxed) {
        for (number, page) in pages.iter_mut().enumerate() {
            match page.read(&mut bytes) {
                Ok(1..=usize::MAX) => all += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => *page = come(number),
            }
        }
    }
    all
}

/// Publishes as fast as the relay reads.
fn flood(business: &mut Business, published: &AtomicU64, stop: &AtomicBool) {
    let data = format!("\"{}\"", "x".repeat(500));
    while !stop.load(Ordering::Relaxed) {
        let first = published.load(Ordering::Relaxed) + 1;
        let publication = |sequence| ToRelay::Publish {
            topic: 7,
            track: Track::Messages,
            sequence,
            part: Part::Whole,
            data: data.as_bytes(),
        };
        business.send_all((first..first + 64).map(publication));
        published.fetch_add(64, Ordering::Relaxed);
        business.attend();
    }
}

#[test]
fn a_flood_for_thousands_of_pages_leaves_pings_console_and_newcomers_their_turn() {
    const PAGES: usize = 3_000;
    const ROUNDS: u8 = 10;
    let _machine = busy_machine();
    raise_descriptor_limit();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::new("flood-console");
    let console = folder.0.join("console.sock");
    let sections = format!("[console]\nsocket = {console:?}\n");
    let relay = Process::start_with("flood", listener.local_addr().unwrap(), &sections);
    let mut business = Business::meet(&listener);
    let meet = |business: &mut Business, topic, link| {
        let mut page = connect(relay.address);
        page.send(Message::text(format!(r#"{{"type":"subscribe","id":1,"link":"{link}"}}"#))).unwrap();
        business.accept(topic);
        assert!(next_text(&mut page).contains("subscribed"));
        page
    };
    drop(meet(&mut business, 7, "flooded"));
    let mut asking = meet(&mut business, 8, "quiet");

    let are_in = Barrier::new(2);
    let (published, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Stops the others too if an assertion below fails.
        let _ends = Stop(&stop);
        let reading = scope.spawn(|| read_all(relay.address, PAGES, &are_in, &stop));
        are_in.wait();
        business.take(|frame| match frame {
            ToBusiness::Audience { topic: 7, pages } => (*pages as usize >= PAGES).then_some(()),
            _ => None,
        });
        scope.spawn(|| flood(&mut business, &published, &stop));
        for round in 0..ROUNDS {
            let before = published.load(Ordering::Relaxed);
            asking.send(Message::Ping(vec![round].into())).unwrap();
            while !matches!(asking.read().expect("a pong in time"), Message::Pong(said) if said[..] == [round]) {}
            let status = program().args(["status", "--socket"]).arg(&console).output().unwrap();
            // Slow pages degrade the status, so only this line is checked.
            let said = String::from_utf8(status.stdout).unwrap();
            assert!(said.contains("uplink      up for "), "{said}");
            subscribe(&mut connect(relay.address), "flooded");
            while published.load(Ordering::Relaxed) == before {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reading.join().unwrap() > 0, "the pages got nothing");
    });
}

/// A burst of 618 KB; the ring holds 264 KiB.
const BURST: u64 = 1_030;
const BURST_MESSAGE_SIZE: usize = 600;
/// A burst of the largest messages, 900 KB: a socket is full in the middle of each.
const LARGE_BURST: u64 = 15;
const LARGE_MESSAGE_SIZE: usize = 60_000;

/// Publishes a part of a burst.
fn publish_burst(business: &mut Business, sequences: std::ops::RangeInclusive<u64>, size: usize) {
    let data = format!("\"{}\"", "x".repeat(size - 60));
    let (track, part) = (Track::Messages, Part::Whole);
    business.send_all(sequences.map(|sequence| ToRelay::Publish {
        topic: 7,
        track,
        sequence,
        part,
        data: data.as_bytes(),
    }));
}

/// A page's connection, with TLS or without.
trait Wire: Read {
    fn socket(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Wire for wss::Secured {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

/// A page in a burst: its next message, and whether it was cut off.
struct Reader {
    page: Box<dyn Wire>,
    /// The incomplete frame.
    half: Vec<u8>,
    next: u64,
    gaps: u64,
    is_cut: bool,
}

impl Reader {
    /// Reads what is available, at most `most` bytes.
    fn read(&mut self, most: usize) {
        let mut bytes = vec![0; most];
        let mut left = most;
        while left > 0 && !self.is_cut {
            match self.page.read(&mut bytes[..left]) {
                Ok(size @ 1..) => {
                    self.half.extend_from_slice(&bytes[..size]);
                    left -= size;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                _ => self.is_cut = true,
            }
        }
        self.take_frames();
    }

    /// Each message comes in order, or a gap covers it.
    fn take_frames(&mut self) {
        let mut at = 0;
        while let Some((_, header_size, size)) = header(&self.half[at..]) {
            let Some(payload) = self.half.get(at + header_size..at + header_size + size) else { break };
            at += header_size + size;
            let frame: serde_json::Value = serde_json::from_slice(payload).unwrap_or_default();
            let number = |name: &str| frame[name].as_u64().unwrap();
            match frame["type"].as_str() {
                Some("message") => {
                    assert_eq!(number("sequence"), self.next, "a message out of order");
                    self.next += 1;
                }
                Some("gap") => {
                    assert_eq!(number("from"), self.next, "a gap out of order");
                    self.next = number("to") + 1;
                    self.gaps += 1;
                }
                _ => {}
            }
        }
        self.half.drain(..at);
    }
}

/// Connects and subscribes `count` pages; by TLS if the relay has it.
fn readers(relay: &Process, business: &mut Business, count: usize) -> Vec<Reader> {
    let mut readers = Vec::new();
    for number in 0..count {
        let socket = Socket::new(Domain::for_address(relay.address), Type::STREAM, None).unwrap();
        // A small receive buffer, so that unread data queues at the relay.
        socket.set_recv_buffer_size(16 << 10).unwrap();
        let page: Box<dyn Wire> = if let Some(address) = relay.tls {
            let mut page = wss::shake(dial(socket, address, number), &wss::tls13()).unwrap();
            page.write_all(&first_words(address, "burst")).unwrap();
            Box::new(page)
        } else {
            Box::new(ask_by(socket, relay.address, number, "burst"))
        };
        if number == 0 {
            business.accept(7);
        }
        let mut reader = Reader { page, half: Vec::new(), next: 1, gaps: 0, is_cut: false };
        // The answer to the upgrade, and the confirmation.
        let (mut said, mut byte) = (Vec::new(), [0]);
        reader.page.socket().set_read_timeout(Some(PATIENCE)).unwrap();
        while !said.ends_with(b"}") {
            reader.page.read_exact(&mut byte).unwrap();
            said.push(byte[0]);
        }
        reader.page.socket().set_nonblocking(true).unwrap();
        readers.push(reader);
    }
    readers
}

/// Reads until each page has reached the last message of a burst or was cut off. Returns how many
/// were cut off, and how many of the others got a gap.
fn read_to_the_end(readers: &mut [Reader], last: u64, most: usize) -> (usize, usize) {
    let is_done = |reader: &Reader| reader.is_cut || reader.next > last;
    let rounds_max = 3 * PATIENCE.as_millis() / PACE.as_millis();
    for _ in 0..rounds_max {
        readers.iter_mut().for_each(|reader| reader.read(most));
        if readers.iter().all(is_done) {
            let (cut, whole): (Vec<_>, Vec<_>) = readers.iter().partition(|reader| reader.is_cut);
            return (cut.len(), whole.iter().filter(|reader| reader.gaps > 0).count());
        }
        std::thread::sleep(PACE);
    }
    panic!("pages got neither the end of the burst nor a gap that covers it");
}

/// Interval between two reads of a page, and the bytes of each at 300 KB/s.
const PACE: Duration = Duration::from_millis(20);
const PACE_SIZE: usize = 6_000;

#[test]
fn a_burst_that_pages_cannot_take_is_told_as_a_gap_and_cuts_nobody_off() {
    burst("burst", "");
}

#[test]
fn a_burst_that_pages_by_tls_cannot_take_is_told_as_a_gap_and_cuts_nobody_off() {
    burst("burst-tls", &wss::section());
}

fn burst(name: &str, sections: &str) {
    let _machine = busy_machine();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Process::start_with(name, listener.local_addr().unwrap(), sections);
    let mut business = Business::meet(&listener);
    let mut readers = readers(&relay, &mut business, 100);
    // The page reads steadily, however long the burst takes.
    for tick in 0..25 {
        let part = BURST * tick / 25 + 1..=BURST * (tick + 1) / 25;
        publish_burst(&mut business, part, BURST_MESSAGE_SIZE);
        readers.iter_mut().for_each(|reader| reader.read(PACE_SIZE));
        std::thread::sleep(PACE);
    }
    let (cut, with_gaps) = read_to_the_end(&mut readers, BURST, PACE_SIZE);
    println!("{cut} cut off, {with_gaps} with a gap");
    assert!(cut <= 2, "{cut} of 100 pages were cut off");
    assert!(with_gaps > 0, "the burst overtook no page");
}

#[test]
fn pages_that_read_nothing_during_a_burst_finish_their_frames_and_are_told_the_gap() {
    silence("silence", "");
}

#[test]
fn pages_by_tls_that_read_nothing_during_a_burst_finish_their_records_and_are_told_the_gap() {
    silence("silence-tls", &wss::section());
}

fn silence(name: &str, sections: &str) {
    let _machine = busy_machine();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Process::start_with(name, listener.local_addr().unwrap(), sections);
    let mut business = Business::meet(&listener);
    let mut readers = readers(&relay, &mut business, 100);
    // A page that reads everything shows when the burst is over for the others too.
    let mut quick = connect(relay.address);
    quick.send(Message::text(r#"{"type":"subscribe","id":1,"link":"burst"}"#)).unwrap();
    assert!(next_text(&mut quick).contains("subscribed"));
    for sequence in 1..=LARGE_BURST {
        publish_burst(&mut business, sequence..=sequence, LARGE_MESSAGE_SIZE);
        assert!(next_text(&mut quick).contains(&format!("\"sequence\":{sequence},")));
    }
    let (cut, with_gaps) = read_to_the_end(&mut readers, LARGE_BURST, 1 << 16);
    assert_eq!((cut, with_gaps), (0, 100), "cut off, and with a gap");
}

/// Full handshakes as fast as they can be begun, from one address and from many. Pages, and
/// newcomers by TLS, have their turn all the same.
#[test]
fn a_flood_of_handshakes_leaves_pages_and_newcomers_their_turn() {
    const ROUNDS: u8 = 10;
    let _machine = busy_machine();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Process::start_with("handshakes", listener.local_addr().unwrap(), &wss::section());
    let address = relay.tls.unwrap();
    let mut business = Business::meet(&listener);
    let mut page = wss::connect(address);
    page.send(Message::text(r#"{"type":"subscribe","id":1,"link":"flooded"}"#)).unwrap();
    business.accept(7);
    assert!(next_text(&mut page).contains("subscribed"));
    let mut hello = Vec::new();
    wss::fresh(&wss::tls13()).write_tls(&mut hello).unwrap();
    let (answered, refused, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Stops the others too if an assertion below fails.
        let _ends = Stop(&stop);
        for hosts in [1, 200_u64] {
            let (hello, answered, refused, stop) = (&hello, &answered, &refused, &stop);
            scope.spawn(move || {
                for number in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let from = Ipv4Addr::new(127, 0, 2, u8::try_from(number % hosts).unwrap() + 1);
                    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
                    socket.set_read_timeout(Some(PATIENCE)).unwrap();
                    if socket.connect_timeout(&address.into(), PATIENCE).is_err() {
                        continue;
                    }
                    let mut flooding: TcpStream = socket.into();
                    let is_answered =
                        flooding.write_all(hello).is_ok() && matches!(flooding.read(&mut [0; 4096]), Ok(1..));
                    if is_answered { answered } else { refused }.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while answered.load(Ordering::Relaxed) < 100 {
            std::thread::yield_now();
        }
        for round in 0..ROUNDS {
            let before = answered.load(Ordering::Relaxed);
            publish_burst(&mut business, u64::from(round) + 1..=u64::from(round) + 1, 600);
            assert!(next_text(&mut page).contains(&format!("\"sequence\":{},", round + 1)));
            page.send(Message::Ping(vec![round].into())).unwrap();
            while !matches!(page.read().expect("a pong in time"), Message::Pong(said) if said[..] == [round]) {}
            subscribe(&mut wss::connect(address), "flooded");
            while answered.load(Ordering::Relaxed) == before {
                std::thread::yield_now();
            }
            business.attend();
        }
    });
    println!("{} answered, {} refused", answered.into_inner(), refused.into_inner());
}

/// Stops the other threads when dropped, also in a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
