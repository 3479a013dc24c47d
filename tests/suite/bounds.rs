//! The memory sum holds: a relay at full capacity, attacked from all sides at once.
//!
//! The table is full of pages that read nothing, read a byte at a time, or stop in the middle of a
//! frame of their own; others flood; heads stay half open, the backlog is full, and the uplink
//! publishes the largest chunks on every track as fast as it can. Resident and kernel memory are
//! compared with what `sharelinkd check` prints, term sums separately. The board is `host`,
//! lowered, and `armhf-gateway` as it is built for a box (`board/build armhf-gateway --here`).

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use board::Board;
use sharelinkd::daemon;
use wire::Track;
use wire::uplink::{Grant, Part, ToBusiness, ToRelay};

use crate::attackers::{Attacker, Target, stop_somewhere};
use crate::world::{Business, Process, busy_machine, config_text, connect, next_text, program, raise_descriptor_limit};
use crate::wss;

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
/// An `armhf-gateway` relay's memory limit without pages: its program and what it allocates.
const RESTING_SIZE_MAX: u64 = 4 << 20;
/// The limit of an ARM program, bytes (`board/build`).
const BINARY_SIZE_MAX: u64 = 2_359_296;

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
fn promised(board: &Board, is_tls: bool) -> Taken {
    let sum = board::memory_sum(board);
    // The queues of pages, of connections that are not pages yet and of those that wait in the
    // backlog can't be told apart, so all three terms count. On a loaded machine the backlog fills:
    // the relay has not accepted connections that have sent their first bytes already.
    // With TLS, a connection that is not a page yet has something to read too.
    let others = u64::from(board.heads_max + board.backlog_max) * 2 * u64::from(board.receive_buffer_size)
        + if is_tls { u64::from(board.heads_max) * 2 * u64::from(board.send_buffer_size) } else { 0 };
    let connections = (board.pages_max + board.heads_max + board.backlog_max) as usize;
    Taken { process: sum.process(), kernel: sum.kernel(), queued: board.kernel_size_max + others, connections }
}

fn resident(relay: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: u64 = line.trim().trim_end_matches(" kB").trim().parse().unwrap();
    resident * 1024
}

/// What the process allocated and wrote. How much of its program is resident besides depends on the
/// machine's page cache: 200 KB more or less from run to run.
fn anonymous(relay: &Process) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", relay.child.id())).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    let size: u64 = line.trim().trim_end_matches(" kB").trim().parse().unwrap();
    size * 1024
}

fn taken(relay: &Process) -> Taken {
    let tls = relay.tls.unwrap_or(relay.address);
    let ports = format!("sport = :{} or sport = :{}", relay.address.port(), tls.port());
    let sockets = Command::new("ss").args(["-tamnHO", &ports]).output().unwrap();
    let text = String::from_utf8(sockets.stdout).unwrap();
    // What is left of a connection that we ended first has no socket any more.
    let lines = || text.lines().filter(|line| !line.starts_with("TIME-WAIT"));
    // Received (r), written (w), options (o), backlog while the socket was locked (bl), and slabs.
    let queued = |line: &str, name: &str| -> u64 {
        let fields = line.split_once("skmem:(").map_or("", |(_, rest)| rest);
        let field = fields.split([',', ')']).find_map(|field| field.strip_prefix(name)?.parse().ok());
        field.unwrap_or(0)
    };
    let queued = lines().flat_map(|line| ["r", "w", "o", "bl"].map(|name| queued(line, name))).sum();
    let floor = (lines().count() * board::KERNEL_SOCKET_SIZE) as u64;
    let connections = lines().filter(|line| line.starts_with("ESTAB")).count();
    Taken { process: resident(relay), kernel: floor + queued, queued, connections }
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
    attack(program(), &LOWERED, LIMITS, false);
}

#[test]
fn the_relay_keeps_to_its_memory_sum_by_tls_whatever_is_done_to_it() {
    let _machine = busy_machine();
    attack(program(), &LOWERED, LIMITS, true);
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
    let size = anonymous(&resting) + board::CONSOLE_SIZE as u64 + BINARY_SIZE_MAX;
    println!("at rest: {size} bytes, a console's and the whole program included");
    assert!(size <= RESTING_SIZE_MAX, "{size} of {RESTING_SIZE_MAX}");
    drop(resting);
    for is_tls in [false, true] {
        attack(small_box(), &board::ARMHF_GATEWAY, "[console]\nserial = \"off\"\n", is_tls);
    }
}

/// Attacks a relay with this board's limits from all sides at once.
fn attack(program: Command, board: &Board, sections: &str, is_tls: bool) {
    raise_descriptor_limit();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tls = if is_tls { wss::section() } else { String::new() };
    let config = config_text(listener.local_addr().unwrap()) + sections + &tls;
    let relay = Process::start_by(program, &format!("bounds-{}-{is_tls}", board.name), &config);
    let target = Target { address: relay.tls.unwrap_or(relay.address), is_tls };
    let mut business = Business::meet(&listener);

    // The first pages request every topic once; the others share those grants.
    let (seats, topics) = (board.pages_max as usize, board.topics_max as usize);
    let first = (topics * seats).div_ceil(board.subscriptions_max as usize);
    let mut pages: Vec<_> = (0..first).map(|number| Attacker::page(target, board, number).unwrap()).collect();
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
    pages.extend((first..seats).map(|number| Attacker::page(target, board, number).expect("the table has room")));
    let heads_max = board.heads_max as usize;
    let mut heads: VecDeque<_> = (0..heads_max).filter_map(|number| stop_somewhere(target, number)).collect();

    let (published, calm, stop) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
    let mut most = Taken::default();
    assert!(taken(&relay).connections >= seats, "the table is full when it begins");
    let mut calm_samples = Vec::new();
    let business = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(business, board, &published, &calm, &stop));
        // Some read a byte at a time, others flood with subscribes; a page that is cut off
        // reconnects at once.
        let (pages, heads, stop) = (&mut pages, &mut heads, &stop);
        let pestering = scope.spawn(move || {
            let mut returned = 0_u64;
            for number in (0..seats).cycle() {
                if stop.load(Ordering::Relaxed) {
                    return returned;
                }
                if !pages[number].pester(number) {
                    returned += 1;
                    if let Some(page) = Attacker::page(target, board, number) {
                        pages[number] = page;
                    }
                }
            }
            returned
        });
        // With TLS, handshakes of every kind keep coming.
        let knocking = scope.spawn(move || {
            let mut knocks = 0_u64;
            for number in 0.. {
                if stop.load(Ordering::Relaxed) || !is_tls {
                    break;
                }
                heads.extend(stop_somewhere(target, number));
                if heads.len() > heads_max {
                    heads.pop_front();
                }
                knocks += 1;
            }
            knocks
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
        println!("{} pages came back, {} others came", pestering.join().unwrap(), knocking.join().unwrap());
        flooding.join().unwrap()
    });
    let promised = promised(board, is_tls);
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
    let subscribe = r#"{"type":"subscribe","id":1,"link":"attacked-1"}"#;
    let said = AtomicBool::new(false);
    let said = std::thread::scope(|scope| {
        // The relay has the grant still, or asks for it again: the topic's linger may be over.
        scope.spawn(|| {
            // Not for ever: a page that fails says nothing here.
            for _ in 0..12_000 {
                if said.load(Ordering::Relaxed) {
                    return;
                }
                for request in business.attend() {
                    business.grant(request, 1);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let text = if is_tls {
            let mut page = wss::connect(target.address);
            page.send(subscribe.into()).unwrap();
            next_text(&mut page)
        } else {
            let mut page = connect(target.address);
            page.send(subscribe.into()).unwrap();
            next_text(&mut page)
        };
        said.store(true, Ordering::Relaxed);
        text
    });
    assert!(said.starts_with(r#"{"type":"subscribed","id":1,"#), "{said}");
}
