//! Thousands of pages at once: they are let in in the order in which they came, and a flood of publications for all of them
//! leaves everybody else a turn.
//!
//! No times are asserted: what has to come must come while the flood goes on, and within the patience of every other test.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_tungstenite::tungstenite::Message;
use sharelinkd::wire::Track;
use sharelinkd::wire::uplink::{Part, ToBusiness, ToRelay};
use socket2::{Domain, Socket, Type};

use crate::world::{
    Business, Folder, Process, busy_machine, connect, masked, next_text, program, raise_descriptor_limit, subscribe,
    upgrade,
};

fn signal(relay: &Process, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &relay.child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

#[test]
fn who_comes_in_the_same_moment_is_let_in_in_order() {
    let _machine = busy_machine();
    raise_descriptor_limit();
    // As many as the kernel keeps for a relay that does not look.
    let backlog = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    let count = 900.min(backlog);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Process::start("order", listener.local_addr().unwrap());
    let mut business = Business::meet(&listener);
    signal(&relay, "STOP");
    let pages: Vec<_> = (0..count).map(|number| ask(relay.address, number, &format!("crowd-{number}"))).collect();
    signal(&relay, "CONT");
    for number in 0..count {
        let (request, link) = business.take(|frame| match frame {
            ToBusiness::Subscribe { request, link, .. } => Some((*request, (*link).to_owned())),
            _ => None,
        });
        assert_eq!(link, format!("crowd-{number}"), "the one that came next");
        business.send(&ToRelay::Deny { request, reason: "full house" });
    }
    drop(pages);
}

/// A page that has asked for a link, and was not waited for. Each hundred come from an address of their own, as the board limits
/// how fast one address asks.
fn ask(address: SocketAddr, number: usize, link: &str) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    let from = Ipv4Addr::new(127, 0, 1, u8::try_from(number / 100).unwrap() + 1);
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut page: TcpStream = socket.into();
    let subscribe = masked(&format!(r#"{{"type":"subscribe","id":1,"link":"{link}"}}"#));
    page.write_all(&[upgrade(address).into_bytes(), subscribe].concat()).unwrap();
    page
}

/// Reads what comes to so many pages, round and round, until told to stop; how often something came. Who can't keep up with the flood
/// is cut off in the middle of a frame, as promised, and comes back.
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

/// Publishes as fast as the relay takes it.
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
        // Whatever fails below, the others are to end too.
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
            // That pages are slow is told, and is no health.
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

/// Tells others to stop when it goes, also in a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
