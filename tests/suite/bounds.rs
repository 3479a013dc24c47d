//! The memory sum holds: a relay at full capacity, attacked from all sides at once.
//!
//! The table is full of pages that read nothing, read a byte at a time, or stop in the middle of a
//! frame of their own; others flood; heads stay half open, the backlog is full, and the uplink
//! publishes the largest chunks on every track as fast as it can. Resident and kernel memory are
//! compared with what `sharelinkd check` prints, term sums separately. The board is `host`,
//! lowered, and `armhf-gateway` as it is built for a box (`board/build armhf-gateway --here`).

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use board::Board;
use sharelinkd::daemon;
use socket2::{Domain, Socket, Type};
use wire::Track;
use wire::uplink::{Grant, Part, ToBusiness, ToRelay};

use crate::world::{
    Business, Process, busy_machine, config_text, connect, masked, next_text, program, raise_descriptor_limit, upgrade,
};

/// One sample every 50 ms: at least this many, and on until enough was published.
const SAMPLES: usize = 160;
const PUBLISHED_MIN: u64 = 100 << 20;
/// Upper limit of samples; no machine needs this many.
const SAMPLES_MAX: usize = 2_400;
/// Then this many samples with few publications: no ring overtakes a page, so that stalled pages
/// stay and hold their queues.
const SAMPLES_CALM: usize = 40;
const CALM: Duration = Duration::from_millis(500);
/// Board `host`, lowered: the kernel limit is half of what this many stalled pages would fill.
const LOWERED: Board = Board {
    pages_max: 1_200,
    topics_max: 4,
    subscriptions_max: 4_800,
    heads_max: 64,
    blocks_max: 6_144,
    kernel_size_max: 12 << 20,
    ..board::HOST
};
const LIMITS: &str = "[limits]\npages = 1200\ntopics = 4\nsubscriptions = 4800\nheads = 64\narena_blocks = 6144\nkernel_size = 12582912\n";
/// An `armhf-gateway` relay's resident memory limit without pages.
const RESTING_SIZE_MAX: u64 = 4 << 20;

/// The relay's memory, bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    process: u64,
    kernel: u64,
    /// The kernel's part without the minimum for each socket.
    queued: u64,
    /// Established connections.
    connections: usize,
}

/// The memory sum of a board, from the program's own table.
fn promised(board: &Board) -> Taken {
    let sum = board::memory_sum(board);
    // The queues of pages, of connections that are not pages yet and of those that wait in the
    // backlog can't be told apart, so all three terms count. On a loaded machine the backlog fills:
    // the relay has not accepted connections that have sent their first bytes already.
    let others = u64::from(board.heads_max + board.backlog_max) * 2 * u64::from(board.receive_buffer_size);
    let connections = (board.pages_max + board.heads_max + board.backlog_max) as usize;
    Taken { process: sum.process(), kernel: sum.kernel(), queued: board.kernel_size_max + others, connections }
}

fn resident(relay: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: u64 = line.trim().trim_end_matches(" kB").trim().parse().unwrap();
    resident * 1024
}

fn taken(relay: &Process) -> Taken {
    let port = format!("sport = :{}", relay.address.port());
    let sockets = Command::new("ss").args(["-tamnHO", &port]).output().unwrap();
    let text = String::from_utf8(sockets.stdout).unwrap();
    // Received (r), written (w), options (o), backlog while the socket was locked (bl), and slabs.
    let queued = |line: &str, name: &str| -> u64 {
        let fields = line.split_once("skmem:(").map_or("", |(_, rest)| rest);
        let field = fields.split([',', ')']).find_map(|field| field.strip_prefix(name)?.parse().ok());
        field.unwrap_or(0)
    };
    let queued = text.lines().flat_map(|line| ["r", "w", "o", "bl"].map(|name| queued(line, name))).sum();
    let floor = (text.lines().count() * board::KERNEL_SOCKET_SIZE) as u64;
    let connections = text.lines().filter(|line| line.starts_with("ESTAB")).count();
    Taken { process: resident(relay), kernel: floor + queued, queued, connections }
}

/// A connection with a tiny receive buffer, so that data for it queues at the relay. Every hundred
/// connections share a source address, as the board limits the rate for each address.
fn narrow(address: SocketAddr, number: usize) -> Option<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    let from = Ipv4Addr::new(127, 0, 1, u8::try_from(number / 100).unwrap() + 1);
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect_timeout(&address.into(), Duration::from_secs(5)).ok()?;
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    Some(stream)
}

/// A page of one of four kinds, with as many subscriptions as the board allows; `None` where the
/// relay has no room.
fn page(address: SocketAddr, board: &Board, number: usize) -> Option<TcpStream> {
    let mut stream = narrow(address, number)?;
    let mut bytes = upgrade(address).into_bytes();
    let (seats, subscriptions) = (board.pages_max as usize, board.subscriptions_max as usize);
    for place in number * subscriptions / seats..(number + 1) * subscriptions / seats {
        let topic = place % board.topics_max as usize + 1;
        bytes.extend(masked(&format!(r#"{{"type":"subscribe","id":{topic},"link":"attacked-{topic}"}}"#)));
    }
    if number % 4 == 2 {
        // An unfinished frame of its own.
        bytes.extend(&masked(&"x".repeat(4_000))[..3_000]);
    }
    stream.write_all(&bytes).ok()?;
    let mut first = [0; 12];
    stream.read_exact(&mut first).ok()?;
    stream.set_nonblocking(true).unwrap();
    (&first == b"HTTP/1.1 101").then_some(stream)
}

/// Publishes the largest frame of each track in turn until stopped, and answers requests.
fn flood(
    mut business: Business,
    board: &Board,
    published: &AtomicU64,
    calm: &AtomicBool,
    stop: &AtomicBool,
) -> Business {
    let data = |size: u32| format!("\"{}\"", "x".repeat(size as usize - 2)).into_bytes();
    let (state, message, init) =
        (data(board.state.data_size_max), data(board.messages.data_size_max), data(board.init.data_size_max));
    let (sound, picture) = (vec![1; board.audio.data_size_max as usize], vec![2; board.video.data_size_max as usize]);
    for round in 1.. {
        for topic in 1..=board.topics_max {
            let mut publish = |track, sequence, part, data: &[u8]| {
                business.send(&ToRelay::Publish { topic, track, sequence, part, data });
                published.fetch_add(data.len() as u64, Ordering::Relaxed);
            };
            publish(Track::State, round, Part::Whole, &state);
            publish(Track::Messages, round, Part::Whole, &message);
            if round == 1 {
                publish(Track::Audio, 1, Part::Init { mime: "audio/webm" }, &init);
                publish(Track::Video, 1, Part::Init { mime: "video/webm" }, &init);
            }
            publish(Track::Audio, round + 1, Part::Start, &sound);
            publish(Track::Video, round + 1, Part::Start, &picture);
        }
        business.attend();
        if calm.load(Ordering::Relaxed) {
            std::thread::sleep(CALM);
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    business
}

/// Bytes that an accepted socket takes for a peer that reads nothing until it blocks: in total, and
/// those that have not reached the peer.
fn taken_before_notice(listener: &TcpListener) -> (usize, usize) {
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
    };
    stream.set_nonblocking(true).unwrap();
    let mut taken = 0;
    // The kernel keeps moving bytes to the peer for a while.
    for _ in 0..20 {
        while let Ok(size) = (&stream).write(&[0; 1024]) {
            taken += size;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let arrived = usize::try_from(rustix::io::ioctl_fionread(&peer).unwrap()).unwrap();
    (taken, taken - arrived)
}

/// The peer here has Linux's default receive buffer, as a browser has. The machine's settings
/// decide how large that and the default send buffer are, so only the relay's own socket is held to
/// the board.
#[test]
fn the_kernel_hides_little_of_a_stalled_page_from_the_relay() {
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let (plain, _) = taken_before_notice(&TcpListener::bind(address).unwrap());
    for board in board::ALL {
        let listener = daemon::listener(address, board).unwrap();
        let (ours, held) = taken_before_notice(listener.get_ref());
        println!(
            "a peer that reads nothing: {plain} bytes with Linux's own buffers, {ours} with those of board {}, of them {held} not the peer's yet",
            board.name
        );
        // Linux doubles the requested size for its own overhead.
        assert!(held <= 2 * board.send_buffer_size as usize, "{held}");
    }
}

#[test]
fn the_relay_keeps_to_its_memory_sum_whatever_is_done_to_it() {
    let _machine = busy_machine();
    attack(program(), &LOWERED, LIMITS);
}

/// The program as it is built for the small box, but for this machine: a release with that board's
/// limits.
fn small_box() -> Command {
    let build = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/board/build"))
        .args(["armhf-gateway", "--here"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&build.stdout);
    assert!(build.status.success(), "{said}{}", String::from_utf8_lossy(&build.stderr));
    let binary = said.lines().find_map(|line| line.split_once(": board armhf-gateway")).unwrap().0;
    Command::new(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(binary))
}

#[test]
fn the_relay_of_a_small_box_rests_small_and_keeps_to_its_memory_sum_under_attack() {
    let _machine = busy_machine();
    // The default configuration without the serial line: the test must not touch this machine's
    // first UART. Its memory is added.
    let resting = Process::start_by(small_box(), "resting", "[console]\nserial = \"off\"\n");
    let size = resident(&resting) + board::CONSOLE_SIZE as u64;
    println!("at rest: {size} bytes resident, a console's included");
    assert!(size <= RESTING_SIZE_MAX, "{size} of {RESTING_SIZE_MAX}");
    drop(resting);
    attack(small_box(), &board::ARMHF_GATEWAY, "[console]\nserial = \"off\"\n");
}

/// Attacks a relay with this board's limits from all sides at once.
fn attack(program: Command, board: &Board, sections: &str) {
    raise_descriptor_limit();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = config_text(listener.local_addr().unwrap()) + sections;
    let relay = Process::start_by(program, &format!("bounds-{}", board.name), &config);
    let address = relay.address;
    let mut business = Business::meet(&listener);

    // The first pages request every topic once; the others share those grants.
    let (seats, topics) = (board.pages_max as usize, board.topics_max as usize);
    let first = (topics * seats).div_ceil(board.subscriptions_max as usize);
    let mut pages: Vec<_> = (0..first).map(|number| page(address, board, number).unwrap()).collect();
    for _ in 0..topics {
        let (request, topic) = business.take(|frame| match frame {
            ToBusiness::Subscribe { request, link, .. } => {
                Some((*request, link.trim_start_matches("attacked-").parse().unwrap()))
            }
            _ => None,
        });
        let grant = Grant { shared: true, ttl_s: 3600, page_messages: true, replay: 1000 };
        business.send(&ToRelay::Accept { request, topic, epoch: 1, grant });
    }
    pages.extend((first..seats).map(|number| page(address, board, number).expect("the table has room")));
    let heads: Vec<_> = (0..board.heads_max as usize).filter_map(|number| narrow(address, number)).collect();
    for mut head in &heads {
        head.write_all(b"GET /ws HTTP/1.1\r\nHost: half\r\nX-Half: ").unwrap();
    }

    let (published, calm, stop) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
    let mut most = Taken::default();
    assert!(taken(&relay).connections >= seats, "the table is full when it begins");
    let mut calm_samples = Vec::new();
    let business = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(business, board, &published, &calm, &stop));
        // Some read a byte at a time, others flood with subscribes; a page that is cut off
        // reconnects at once.
        let (pages, stop) = (&mut pages, &stop);
        let pestering = scope.spawn(move || {
            let more = masked(r#"{"type":"subscribe","id":9,"link":"another"}"#);
            let mut returned = 0_u64;
            for number in (0..seats).cycle() {
                if stop.load(Ordering::Relaxed) {
                    return returned;
                }
                let stream = &mut pages[number];
                let read = match number % 4 {
                    0 => stream.peek(&mut [0]),
                    1 => stream.read(&mut [0]),
                    _ => stream.write(&more),
                };
                if !matches!(&read, Ok(1..)) && !read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
                    returned += 1;
                    if let Some(page) = page(address, board, number) {
                        *stream = page;
                    }
                }
            }
            returned
        });

        let mut sample = || {
            std::thread::sleep(Duration::from_millis(50));
            let now = taken(&relay);
            most.process = most.process.max(now.process);
            most.kernel = most.kernel.max(now.kernel);
            most.queued = most.queued.max(now.queued);
            most.connections = most.connections.max(now.connections);
            now
        };
        for number in 0..SAMPLES_MAX {
            if number >= SAMPLES && published.load(Ordering::Relaxed) > PUBLISHED_MIN {
                break;
            }
            sample();
        }
        calm.store(true, Ordering::Relaxed);
        calm_samples.extend((0..SAMPLES_CALM).map(|_| sample()));
        stop.store(true, Ordering::Relaxed);
        println!("{} pages came back", pestering.join().unwrap());
        flooding.join().unwrap()
    });
    let promised = promised(board);
    let published = published.into_inner();
    let usual = |of: fn(&Taken) -> u64| {
        let mut values: Vec<u64> = calm_samples.iter().map(of).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    let (standing, queued) =
        (usual(|now| now.connections as u64).saturating_sub(heads.len() as u64), usual(|now| now.queued));
    println!(
        "{}: {published} bytes published; at most {most:?} of {promised:?}; when calm {standing} pages that have {queued} in the kernel",
        board.name
    );
    assert!(published > PUBLISHED_MIN, "only {published} bytes were published");
    assert!(most.process <= promised.process, "resident: {most:?} of {promised:?}");
    assert!(most.kernel <= promised.kernel, "in the kernel: {most:?} of {promised:?}");
    assert!(most.queued <= promised.queued, "queued in the kernel: {most:?} of {promised:?}");

    // The relay must also use the memory: one that cuts every page off would satisfy every sum. No
    // page reads here, so only as many remain as the limit has room for, and until the relay knows
    // better it counts what it wrote twice.
    assert!(queued > board.kernel_size_max / 3, "stalled pages are cut off too early: {queued} bytes are queued");
    assert!(standing > seats as u64 / 10, "stalled pages are cut off too early: {standing} of {seats} remain");

    // When all pages have left, nothing remains, and a well-behaved page is served.
    drop((pages, heads));
    let mut business = business;
    let mut patience = 75;
    let resting = loop {
        std::thread::sleep(Duration::from_millis(200));
        business.attend();
        let now = taken(&relay);
        patience -= 1;
        if now.kernel < 1 << 20 || patience == 0 {
            break now;
        }
    };
    assert!(resting.kernel < 1 << 20, "left behind: {resting:?}");
    let mut page = connect(address);
    page.send(r#"{"type":"subscribe","id":1,"link":"attacked-1"}"#.into()).unwrap();
    business.attend();
    let said = next_text(&mut page);
    assert!(said.starts_with(r#"{"type":"subscribed","id":1,"#), "{said}");
}
