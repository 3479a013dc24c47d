//! What a delivery costs in countable things: allocations, writes, threads.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::process::Command;
use std::rc::Rc;
use std::sync::mpsc::{self, TryRecvError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use allocation_counter::AllocationInfo;
use async_tungstenite::tungstenite::WebSocket;
use sharelinkd::config::certificate_notes::Report;
use sharelinkd::config::{Config, Surroundings};
use sharelinkd::daemon;
use smol::{LocalExecutor, Timer};
use socket2::{Domain, Socket, Type};
use wire::Track;
use wire::uplink::{Part, ToRelay};

use crate::world::{Business, PATIENCE, Process, config_text, connect, masked, next_text, subscribe, upgrade};
use crate::wss;

const PAGES: usize = 40;
/// Allocations of a page from its connection to its end.
const BLOCKS_PER_PAGE: u64 = 55;

const DATA: &str = r#"{"from":"a","text":"two hundred bytes are the usual size of a message, this one has fewer"}"#;

fn message(sequence: u64) -> ToRelay<'static> {
    message_of(DATA.as_bytes(), sequence)
}

fn message_of(data: &[u8], sequence: u64) -> ToRelay<'_> {
    let (track, part) = (Track::Messages, Part::Whole);
    ToRelay::Publish { topic: 7, track, sequence, part, data }
}

/// Signals from the other thread: warmed up, and done with what is measured.
struct World {
    listener: TcpListener,
    /// Where pages connect; with TLS, by TLS.
    address: mpsc::Receiver<SocketAddr>,
    warm: mpsc::Sender<()>,
    go: mpsc::Receiver<()>,
    done: mpsc::Sender<()>,
}

/// One daemon in this process at a time: the reactor belongs to the process, and one thread may
/// free what another allocated.
static ALONE: Mutex<()> = Mutex::new(());

/// The blocks that async-io's reactor takes in a turn: one for the vector of wakers, and one or two
/// for splitting the tree of timers.
const BLOCKS_PER_TURN: u64 = 3;
/// The same where many wake at once, at most: the vector grows at 1, 5, 9, 17 and 33 wakers, and
/// the tree is split twice, with up to two blocks each time.
const BLOCKS_PER_CROWDED_TURN: u64 = 9;

/// What was allocated, and in how many turns of the reactor.
#[derive(Debug)]
struct Counted {
    blocks: AllocationInfo,
    turns: u64,
}

impl Counted {
    /// The allocations that the reactor's turns don't explain. How many turns there are depends on
    /// the machine: where pages read late, one for each of them.
    fn beyond(&self, blocks_per_turn: u64) -> u64 {
        self.blocks.count_total.saturating_sub(blocks_per_turn * self.turns)
    }
}

/// Runs a future to its end, and counts how often it was polled: once for each turn of the reactor.
fn block_on_counting<T>(turns: &Cell<u64>, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    smol::block_on(poll_fn(|context| {
        turns.set(turns.get() + 1);
        future.as_mut().poll(context)
    }))
}

/// Counts the daemon's allocations between two points of a scenario. The daemon runs in this
/// thread, its pages and its business server in another one, so that all allocations of this thread
/// are the daemon's. What stays is counted a little wrong, in either direction: async-io's own
/// thread wakes tasks now and then, and for every 31 of them allocates a block of the executor's
/// queue (504 bytes) that this thread frees; and it frees blocks of the list of timers (456 bytes)
/// that this thread allocated. Up to 9 and 21 of them were seen.
fn count<T: Send + 'static>(sections: &str, world: impl FnOnce(World) -> T + Send + 'static) -> Counted {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = config_text(listener.local_addr().unwrap()) + sections;
    let around = Surroundings { check_pair: &|_, _| Ok(Report::default()), ..Surroundings::without_files("test") };
    let config = Config::parse(&text, board::SELECTED, &around).unwrap();
    let (tell_address, address) = mpsc::channel();
    let (tell_warm, is_warm) = mpsc::channel();
    let (tell_go, go) = mpsc::channel();
    let (tell_done, is_done) = mpsc::channel();
    let there = World { listener, address, warm: tell_warm, go, done: tell_done };
    let world = std::thread::spawn(move || world(there));

    let executor = Rc::new(LocalExecutor::new());
    let told = Rc::new(Cell::new(None));
    let ready = Rc::clone(&told);
    let serve =
        daemon::serve(Rc::clone(&executor), config, None, move |addresses| ready.set(addresses.last().copied()));
    let _served = executor.spawn(serve);
    let turns = Cell::new(0);
    let until = |channel: &mpsc::Receiver<()>| {
        turns.set(0);
        block_on_counting(
            &turns,
            executor.run(async {
                // A failed scenario sends no more signals; it is joined below.
                while matches!(channel.try_recv(), Err(TryRecvError::Empty)) {
                    // Rarely: a turn of the reactor allocates too.
                    Timer::after(Duration::from_millis(100)).await;
                }
                // By now the daemon has noticed closed connections.
                for _ in 0..3 {
                    Timer::after(Duration::from_millis(50)).await;
                }
            }),
        );
    };
    smol::block_on(executor.run(async {
        while told.get().is_none() {
            Timer::after(Duration::from_millis(1)).await;
        }
    }));
    tell_address.send(told.get().unwrap()).unwrap();
    until(&is_warm);
    let _ = tell_go.send(());
    let blocks = allocation_counter::measure(|| until(&is_done));
    drop(world.join().unwrap());
    Counted { blocks, turns: turns.get() }
}

/// Counts allocations for many publications to forty pages, `burst` of them in each write, after
/// warm-up.
fn count_publications(burst: u64, publications: u64) -> Counted {
    count_publications_of("", connect, DATA.to_owned(), burst, publications)
}

/// The same by TLS, with this data.
fn count_publications_by_tls(data: &str, burst: u64, publications: u64) -> Counted {
    count_publications_of(&wss::section(), wss::connect, data.to_owned(), burst, publications)
}

fn count_publications_of<S: Read + Write + Send + 'static>(
    sections: &str,
    connect: fn(SocketAddr) -> WebSocket<S>,
    data: String,
    burst: u64,
    publications: u64,
) -> Counted {
    let counted = count(sections, move |world| {
        let mut business = Business::meet(&world.listener);
        let address = world.address.recv().unwrap();
        let mut pages: Vec<_> = (0..PAGES).map(|_| connect(address)).collect();
        let (first, rest) = pages.split_first_mut().unwrap();
        first.send(r#"{"type":"subscribe","id":1,"link":"counted"}"#.into()).unwrap();
        business.accept(7);
        assert!(next_text(first).contains("subscribed"));
        rest.iter_mut().for_each(|page| subscribe(page, "counted"));
        let mut next = 1;
        let mut round = |business: &mut Business, pages: &mut [WebSocket<S>]| {
            business.send_all((next..next + burst).map(|sequence| message_of(data.as_bytes(), sequence)));
            for sequence in next..next + burst {
                for page in &mut *pages {
                    assert!(next_text(page).contains(&format!("\"sequence\":{sequence},")));
                }
            }
            next += burst;
        };
        (0..20).for_each(|_| round(&mut business, &mut pages));
        world.warm.send(()).unwrap();
        world.go.recv().unwrap();
        (0..publications / burst).for_each(|_| round(&mut business, &mut pages));
        world.done.send(()).unwrap();
        (business, pages)
    });
    println!("{counted:?} for {publications} publications, {} deliveries", publications * PAGES as u64);
    assert!(counted.blocks.count_current < 50, "{} blocks stayed", counted.blocks.count_current);
    counted
}

/// There are forty deliveries for each publication, and a turn for one or two publications.
#[test]
fn a_delivery_to_a_page_that_keeps_up_allocates_nothing() {
    assert_eq!(count_publications(1, 1_000).beyond(BLOCKS_PER_TURN), 0);
}

/// A burst is a few turns.
#[test]
fn a_publication_allocates_nothing() {
    assert_eq!(count_publications(100, 10_000).beyond(BLOCKS_PER_CROWDED_TURN), 0);
}

/// As without TLS: by one call for all pages, whether a message fills a record or not.
#[test]
fn a_delivery_by_tls_allocates_nothing() {
    for data in [DATA, &large()] {
        assert_eq!(count_publications_by_tls(data, 1, 1_000).beyond(BLOCKS_PER_TURN), 0);
    }
}

/// Bursts larger than a turn of the uplink, so that pages are also written to one at a time.
#[test]
fn a_publication_by_tls_allocates_nothing() {
    assert_eq!(count_publications_by_tls(DATA, 100, 10_000).beyond(BLOCKS_PER_CROWDED_TURN), 0);
    assert_eq!(count_publications_by_tls(&large(), 40, 2_000).beyond(BLOCKS_PER_CROWDED_TURN), 0);
}

/// More than a record holds of it.
fn large() -> String {
    format!("\"{}\"", "x".repeat(4_096))
}

/// A page that reads nothing: its socket is full in the middle of a record, then it is overtaken
/// again and again. What it has not read is in the kernel and in the arena, and nowhere else.
#[test]
fn nothing_is_kept_for_pages_that_stall_by_tls() {
    const BURST: u64 = 20;
    const ROUNDS: u64 = 250;
    let counted = count(&wss::section(), |world| {
        let mut business = Business::meet(&world.listener);
        let address = world.address.recv().unwrap();
        let mut page = wss::connect(address);
        page.send(r#"{"type":"subscribe","id":1,"link":"counted"}"#.into()).unwrap();
        business.accept(7);
        assert!(next_text(&mut page).contains("subscribed"));
        let stalled: Vec<_> = (0..PAGES)
            .map(|_| {
                let mut page = narrow(address);
                page.write_all(upgrade(address).as_bytes()).unwrap();
                page.write_all(&masked(r#"{"type":"subscribe","id":1,"link":"counted"}"#)).unwrap();
                // From here on it reads nothing. Before, its request's buffer may still be there.
                let mut said = Vec::new();
                while !String::from_utf8_lossy(&said).contains("subscribed") {
                    let mut byte = [0];
                    page.read_exact(&mut byte).unwrap();
                    said.extend(byte);
                }
                page
            })
            .collect();
        let (data, mut next) = (large(), 1);
        let mut round = |business: &mut Business| {
            business.send_all((next..next + BURST).map(|sequence| message_of(data.as_bytes(), sequence)));
            next += BURST;
            while !next_text(&mut page).contains(&format!("\"sequence\":{},", next - 1)) {}
            business.attend();
        };
        round(&mut business);
        world.warm.send(()).unwrap();
        world.go.recv().unwrap();
        (0..ROUNDS).for_each(|_| round(&mut business));
        world.done.send(()).unwrap();
        (business, page, stalled)
    });
    println!("{counted:?} while {PAGES} pages stall");
    assert!(counted.blocks.count_current < 50, "{} blocks stayed", counted.blocks.count_current);
    assert!(counted.blocks.bytes_current < 4_096, "{} bytes stayed", counted.blocks.bytes_current);
}

/// A connection by TLS with a tiny receive buffer.
fn narrow(address: SocketAddr) -> wss::Secured {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    wss::shake(socket.into(), &wss::tls13()).unwrap()
}

/// The heap that a number of connections hold, once they have come to a halt.
fn heap_of<T: Send + 'static>(sections: &str, come: fn(SocketAddr) -> T) -> u64 {
    const COUNT: usize = 50;
    let counted = count(sections, move |world| {
        let mut business = Business::meet(&world.listener);
        let address = world.address.recv().unwrap();
        // What grows once has grown.
        drop(taken(address, 2 * COUNT, come));
        assert!(is_taken(address, 0));
        business.attend();
        world.warm.send(()).unwrap();
        world.go.recv().unwrap();
        let all = taken(address, COUNT, come);
        world.done.send(()).unwrap();
        (business, all)
    });
    println!("{counted:?} for {COUNT} connections");
    u64::try_from(counted.blocks.bytes_current).unwrap() / COUNT as u64
}

/// Opens connections, and waits until the relay has read all that they sent. It closes a connection
/// whose request head takes 5 s: if the machine stalled that long, they are opened again.
fn taken<T>(address: SocketAddr, count: usize, come: fn(SocketAddr) -> T) -> Vec<T> {
    for _ in 0..5 {
        let all = (0..count).map(|_| come(address)).collect();
        if is_taken(address, count) {
            return all;
        }
        drop(all);
        assert!(is_taken(address, 0));
    }
    panic!("{count} connections are not taken");
}

/// Waits until the relay has this many connections, and has taken all that they sent.
fn is_taken(address: SocketAddr, count: usize) -> bool {
    const LOOK: Duration = Duration::from_millis(20);
    for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
        let output = Command::new("ss").args(["-tnHO", &format!("sport = :{}", address.port())]).output().unwrap();
        let listed = String::from_utf8(output.stdout).unwrap();
        // State, received and not read, not acknowledged, addresses.
        let rows = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let open: Vec<_> = rows.filter(|row| row[0] == "ESTAB").collect();
        if open.len() == count && open.iter().all(|row| row[1] == "0") {
            return true;
        }
        std::thread::sleep(LOOK);
    }
    false
}

/// A page, not subscribed.
fn idle(address: SocketAddr) -> wss::Secured {
    let mut page = wss::shake(TcpStream::connect(address).unwrap(), &wss::tls13()).unwrap();
    page.write_all(upgrade(address).as_bytes()).unwrap();
    let mut first = [0; 12];
    page.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 101");
    page
}

/// The terms of the memory sum hold what they are for: connections stop after each step of their
/// handshake, behind it, and in the middle of a record.
#[test]
fn the_heap_of_a_tls_connection_is_within_its_terms_wherever_it_stops() {
    // Blocks of async-io's are now and then up to 190 bytes for each page, too many or too few (see
    // `count`): so the least of one and the most of the other, or those in the middle.
    let [plain, by_tls] = [false, true].map(|has_tls| {
        let mut all = [(); 5].map(|()| if has_tls { heap_of(&wss::section(), idle) } else { heap_of("", connect) });
        all.sort_unstable();
        all
    });
    println!("an idle page: {plain:?} bytes of heap, {by_tls:?} by TLS");
    let page_size = board::TLS_PAGE_SIZE as u64;
    assert!(by_tls[0] <= plain[4] + page_size + 16, "{by_tls:?} bytes, {plain:?} without TLS");
    assert!(by_tls[2] > plain[2] + page_size / 2, "a page's box is missing: {by_tls:?}, {plain:?} without TLS");

    let cut_hello = heap_of(&wss::section(), |address| {
        let (mut socket, hello) = (TcpStream::connect(address).unwrap(), hello());
        socket.write_all(&hello[..hello.len() - 1]).unwrap();
        socket
    });
    let long_hello = heap_of(&wss::section(), |address| {
        let mut socket = TcpStream::connect(address).unwrap();
        // All but the last byte of the longest record.
        socket.write_all(&[&[22, 3, 1, 0x1f, 0xfb][..], &[1; 8_186]].concat()).unwrap();
        socket
    });
    let many_records = heap_of(&wss::section(), |address| {
        let mut socket = TcpStream::connect(address).unwrap();
        let first = [&[22, 3, 1, 2, 0, 1, 0, 0x1f, 0x00][..], &[3; 508]].concat();
        let next = [&[22, 3, 1, 2, 0][..], &[3; 512]].concat();
        socket.write_all(&[first, next.repeat(14)].concat()).unwrap();
        socket
    });
    let answered = heap_of(&wss::section(), |address| {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(&hello()).unwrap();
        socket
    });
    let shaken =
        heap_of(&wss::section(), |address| wss::shake(TcpStream::connect(address).unwrap(), &wss::tls13()).unwrap());
    let half_request = heap_of(&wss::section(), |address| {
        let mut page = wss::shake(TcpStream::connect(address).unwrap(), &wss::tls13()).unwrap();
        let record = wss::records(&mut page.conn, &[b'x'; 16_384]);
        page.sock.write_all(&record[..record.len() - 1]).unwrap();
        page
    });
    let term = (board::TLS_HEAD_SIZE + board::HEAD_SIZE) as u64;
    // At least what was sent is there: each was measured in the middle of its step.
    for (what, heap, least) in [
        ("a hello but for a byte", cut_hello, hello().len() as u64 - 1),
        ("the longest hello but for a byte", long_hello, 8_186),
        ("a hello in many records", many_records, 15 * 512),
        ("a handshake that was answered", answered, board::TLS_PAGE_SIZE as u64),
        ("one that is done", shaken, board::TLS_PAGE_SIZE as u64),
        ("half a request", half_request, 16_384),
    ] {
        println!("{what}: {heap} bytes of heap, of {term}");
        assert!((least..=term).contains(&heap), "{what}: {heap} bytes of heap");
    }
    let half = [(); 3].map(|()| {
        heap_of(&wss::section(), |address| {
            let mut page = idle(address);
            let record = wss::records(&mut page.conn, &[b'x'; 16_384]);
            page.sock.write_all(&record[..record.len() - 1]).unwrap();
            page
        })
    });
    let half = half.into_iter().min().unwrap();
    println!("a page in the middle of a record: {half} bytes of heap");
    let term = by_tls[0] + board::TLS_HALF_RECORD_SIZE as u64 + 64;
    assert!((16_384..=term).contains(&half), "{half} bytes of heap");
}

/// The first record of a client.
fn hello() -> Vec<u8> {
    let mut hello = Vec::new();
    wss::fresh(&wss::tls13()).write_tls(&mut hello).unwrap();
    hello
}

/// Counts the allocations of pages that come and go, `rounds` times as many as `come_and_go` runs.
fn count_comings(rounds: usize, come_and_go: fn(SocketAddr)) -> Counted {
    count_comings_of("", connect, rounds, come_and_go)
}

fn count_comings_of<S: Read + Write + Send + 'static>(
    sections: &str,
    connect: fn(SocketAddr) -> WebSocket<S>,
    rounds: usize,
    come_and_go: fn(SocketAddr),
) -> Counted {
    let counted = count(sections, move |world| {
        let mut business = Business::meet(&world.listener);
        let address = world.address.recv().unwrap();
        let mut first = connect(address);
        first.send(r#"{"type":"subscribe","id":1,"link":"counted"}"#.into()).unwrap();
        business.accept(7);
        assert!(next_text(&mut first).contains("subscribed"));
        (0..20).for_each(|_| come_and_go(address));
        world.warm.send(()).unwrap();
        world.go.recv().unwrap();
        (0..rounds).for_each(|_| come_and_go(address));
        world.done.send(()).unwrap();
        (business, first)
    });
    println!("{counted:?} for {rounds} rounds of pages");
    counted
}

/// How many turns of the reactor a page takes varies: 47 to 63 blocks with them were measured.
#[test]
fn a_page_that_comes_and_goes_frees_everything() {
    const COMINGS: usize = 400;
    let counted = count_comings(COMINGS, |address| {
        let mut page = connect(address);
        subscribe(&mut page, "counted");
        page.close(None).unwrap();
        while page.read().is_ok() {}
    });
    assert!(counted.beyond(BLOCKS_PER_TURN) < BLOCKS_PER_PAGE * COMINGS as u64, "{counted:?}");
    // async-io's helper thread frees some of it, which is not counted here: 15 of 17 000 bytes were
    // measured. The soak counts both threads.
    assert!(counted.blocks.count_current < 50, "{} blocks leaked", counted.blocks.count_current);
    assert!(counted.blocks.bytes_current < 65_536, "{} bytes leaked", counted.blocks.bytes_current);
}

#[test]
fn a_page_that_comes_and_goes_by_tls_frees_everything() {
    const COMINGS: usize = 200;
    let counted = count_comings_of(&wss::section(), wss::connect, COMINGS, |address| {
        let mut page = wss::connect(address);
        subscribe(&mut page, "counted");
        page.close(None).unwrap();
        while page.read().is_ok() {}
    });
    assert!(counted.blocks.count_current < 50, "{} blocks leaked", counted.blocks.count_current);
    assert!(counted.blocks.bytes_current < 65_536, "{} bytes leaked", counted.blocks.bytes_current);
}

/// Pages that arrive together share the turns: the rest is their own. Frees are not counted here:
/// async-io's helper thread may free a task's block together with a timer.
#[test]
fn a_page_that_comes_and_goes_allocates_a_fixed_number_of_blocks() {
    const TOGETHER: usize = 40;
    const ROUNDS: usize = 10;
    let counted = count_comings(ROUNDS, |address| {
        let subscribe = masked(r#"{"type":"subscribe","id":1,"link":"counted"}"#);
        let close = [0x88, 0x80, 0, 0, 0, 0];
        let all = [upgrade(address).as_bytes(), &subscribe, &close].concat();
        let pages: Vec<_> = (0..TOGETHER).map(|_| TcpStream::connect(address).unwrap()).collect();
        pages.iter().for_each(|mut page| page.write_all(&all).unwrap());
        for mut page in pages {
            let mut said = Vec::new();
            page.read_to_end(&mut said).unwrap();
            assert!(String::from_utf8_lossy(&said).contains("subscribed"));
        }
    });
    let each = counted.beyond(BLOCKS_PER_CROWDED_TURN) / (ROUNDS * TOGETHER) as u64;
    assert!(each <= BLOCKS_PER_PAGE, "{each} allocations for each page");
}

/// The value of a metric of one relay.
fn metric(relay: &Process, name: &str) -> u64 {
    let place = relay.log.iter().find_map(|line| line.split_once("metrics are served at http://")).unwrap().1;
    let mut scraper = TcpStream::connect(place.trim_end_matches("/metrics")).unwrap();
    scraper.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut said = String::new();
    scraper.read_to_string(&mut said).unwrap();
    let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    line.parse().unwrap()
}

/// Writes to forty pages for bursts of twenty messages.
fn count_writes<S: Read + Write>(name: &str, connect: impl Fn(&Process) -> WebSocket<S>) -> u64 {
    const ROUNDS: u64 = 50;
    const BURST: u64 = 20;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sections = format!("[metrics]\nlisten = \"127.0.0.1:0\"\n{}", wss::section());
    let relay = Process::start_with(name, listener.local_addr().unwrap(), &sections);
    let mut business = Business::meet(&listener);
    let mut pages: Vec<_> = (0..PAGES).map(|_| connect(&relay)).collect();
    let (first, rest) = pages.split_first_mut().unwrap();
    first.send(r#"{"type":"subscribe","id":1,"link":"counted"}"#.into()).unwrap();
    business.accept(7);
    assert!(next_text(first).contains("subscribed"));
    rest.iter_mut().for_each(|page| subscribe(page, "counted"));
    let before = metric(&relay, "sharelinkd_socket_writes_total");
    for round in 0..ROUNDS {
        business.send_all((round * BURST + 1..=(round + 1) * BURST).map(message));
        for page in &mut pages {
            while !next_text(page).contains(&format!("\"sequence\":{},", (round + 1) * BURST)) {}
        }
        business.attend();
    }
    (metric(&relay, "sharelinkd_socket_writes_total") - before) / ROUNDS
}

/// A burst is several records, and one write.
#[test]
fn a_page_by_tls_takes_as_many_writes_as_a_plain_one() {
    let plain = count_writes("writes", |relay| connect(relay.address));
    let by_tls = count_writes("writes-tls", |relay| wss::connect(relay.tls.unwrap()));
    println!("{plain} writes to {PAGES} plain pages for a burst, {by_tls} by TLS");
    // A ping, or a burst that the uplink read in two parts, is one more.
    let most = PAGES as u64 * 5 / 4;
    assert!(plain <= most && by_tls <= most, "{plain} and {by_tls}");
}

#[test]
fn the_steady_daemon_has_its_own_thread_and_the_reactor_s() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Process::start("threads", listener.local_addr().unwrap());
    let mut business = Business::meet(&listener);
    let mut page = connect(relay.address);
    page.send(r#"{"type":"subscribe","id":1,"link":"threads"}"#.into()).unwrap();
    business.accept(7);
    assert!(next_text(&mut page).contains("subscribed"));
    business.send(&message(1));
    assert!(next_text(&mut page).contains("message"));
    assert_eq!(relay.threads(), 2);
}
