//! Nothing outside the memory sum: a relay at full capacity, under attack from all sides at once.
//!
//! The table is full of pages that read nothing, read a byte at a time, or stop in the middle of a frame of
//! their own; others only flood; heads stay half open, the backlog is full, and the uplink publishes the largest
//! chunks on every track as fast as it can. What the process has resident and what the kernel holds for its
//! sockets is compared with what `sharelinkd check` says, term sums by themselves.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sharelinkd::board::{self, Board};
use sharelinkd::wire::Track;
use sharelinkd::wire::uplink::{Grant, Part, ToBusiness, ToRelay};
use socket2::{Domain, Socket, Type};

use crate::world::{Business, Process, connect, next_text};

const PAGES: usize = 1_200;
const HEADS: usize = 64;
const TOPICS: u32 = 4;
/// One each 50 ms, and what it takes to take it.
const SAMPLES: usize = 160;
/// What may wait in the kernel: half of what so many stalled pages would have there.
const KERNEL_SIZE: u64 = 12 << 20;
const LIMITS: &str = "[limits]\npages = 1200\ntopics = 4\nsubscriptions = 4800\nheads = 64\narena_blocks = 6144\nkernel_size = 12582912\n";

/// What the relay takes, bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    process: u64,
    kernel: u64,
    /// The kernel's without its floor for each socket.
    queued: u64,
}

/// The sum of the board as the limits lower it, from the program's own table.
fn promised() -> Taken {
    let board = Board {
        pages_max: 1_200,
        topics_max: TOPICS,
        subscriptions_max: 4_800,
        heads_max: 64,
        blocks_max: 6_144,
        kernel_size_max: KERNEL_SIZE,
        ..board::HOST
    };
    let sum = board::memory_sum(&board);
    // What heads have sent can't be told from what pages have; it is a term of its own.
    let heads = u64::from(board.heads_max) * 2 * u64::from(board.receive_buffer_size);
    Taken { process: sum.process(), kernel: sum.kernel(), queued: KERNEL_SIZE + heads }
}

fn taken(relay: &Process) -> Taken {
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: u64 = line.trim().trim_end_matches(" kB").trim().parse().unwrap();
    let port = format!("sport = :{}", relay.address.port());
    let sockets = Command::new("ss").args(["-tamnHO", &port]).output().unwrap();
    let text = String::from_utf8(sockets.stdout).unwrap();
    // What came (r) and what goes (w), options (o), what came while the socket was held (bl), and its slabs.
    let queued = |line: &str, name: &str| -> u64 {
        let fields = line.split_once("skmem:(").map_or("", |(_, rest)| rest);
        let field = fields.split([',', ')']).find_map(|field| field.strip_prefix(name)?.parse().ok());
        field.unwrap_or(0)
    };
    let queued = text.lines().flat_map(|line| ["r", "w", "o", "bl"].map(|name| queued(line, name))).sum();
    let floor = (text.lines().count() * board::KERNEL_SOCKET_SIZE) as u64;
    Taken { process: resident * 1024, kernel: floor + queued, queued }
}

/// A connection whose own receive buffer holds next to nothing: what is sent to it waits at the relay.
fn narrow(address: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect_timeout(&address.into(), Duration::from_secs(5)).ok()?;
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    Some(stream)
}

fn frame(text: &str) -> Vec<u8> {
    let size = u16::try_from(text.len()).unwrap();
    [&[0x81, 0x80 | 126][..], &size.to_be_bytes(), &[0; 4], text.as_bytes()].concat()
}

/// A page of one of four kinds; none where the relay has no room.
fn page(address: SocketAddr, kind: usize) -> Option<TcpStream> {
    let mut stream = narrow(address)?;
    let mut bytes = format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: sharelink.v1\r\n\r\n"
    )
    .into_bytes();
    for topic in 1..=TOPICS {
        bytes.extend(frame(&format!(r#"{{"type":"subscribe","id":{topic},"link":"attacked-{topic}"}}"#)));
    }
    if kind == 2 {
        // A frame of its own that never ends.
        bytes.extend(&frame(&"x".repeat(4_000))[..3_000]);
    }
    stream.write_all(&bytes).ok()?;
    let mut first = [0; 12];
    stream.read_exact(&mut first).ok()?;
    stream.set_nonblocking(true).unwrap();
    (&first == b"HTTP/1.1 101").then_some(stream)
}

/// The largest that each track takes, round and round, until told to stop; answers what is asked.
fn flood(mut business: Business, stop: &AtomicBool) -> (Business, u64) {
    let data = |size: usize| format!("\"{}\"", "x".repeat(size - 2)).into_bytes();
    let (json, sound, picture) = (data(65_536), vec![1; 131_072], vec![2; 1 << 20]);
    let mut published = 0;
    for round in 1.. {
        for topic in 1..=TOPICS {
            let mut publish = |track, sequence, part, data: &[u8]| {
                business.send(&ToRelay::Publish { topic, track, sequence, part, data });
                published += data.len() as u64;
            };
            publish(Track::State, round, Part::Whole, &json);
            publish(Track::Messages, round, Part::Whole, &json);
            if round == 1 {
                publish(Track::Audio, 1, Part::Init { mime: "audio/webm" }, &json);
                publish(Track::Video, 1, Part::Init { mime: "video/webm" }, &json);
            }
            publish(Track::Audio, round + 1, Part::Start, &sound);
            publish(Track::Video, round + 1, Part::Start, &picture);
        }
        business.attend();
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    (business, published)
}

/// Bytes that a socket takes for a peer that reads nothing, before it says that it takes no more.
fn taken_before_notice(prepare: impl Fn(&Socket)) -> usize {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    prepare(&listener);
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&address.into()).unwrap();
    listener.listen(1).unwrap();
    let _peer = TcpStream::connect(listener.local_addr().unwrap().as_socket().unwrap()).unwrap();
    let stream: TcpStream = listener.accept().unwrap().0.into();
    stream.set_nonblocking(true).unwrap();
    let mut taken = 0;
    // The kernel moves what it took on to the peer for a while.
    for _ in 0..20 {
        while let Ok(size) = (&stream).write(&[0; 1024]) {
            taken += size;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    taken
}

/// The peer here has Linux's usual receive buffer, as a browser has.
#[test]
fn the_kernel_hides_little_of_a_stalled_page_from_the_relay() {
    let plain = taken_before_notice(|_| {});
    let board = board::HOST;
    let ours = taken_before_notice(|socket| {
        socket.set_send_buffer_size(board.send_buffer_size as usize).unwrap();
        socket.set_recv_buffer_size(board.receive_buffer_size as usize).unwrap();
        socket.set_tcp_notsent_lowat(board.notsent_size_max).unwrap();
    });
    println!("a peer that reads nothing: {plain} bytes with Linux's own buffers, {ours} with the board's");
    assert!(ours < plain / 4, "{ours} of {plain}");
}

#[test]
fn the_relay_keeps_to_its_memory_sum_whatever_is_done_to_it() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Process::start_with("bounds", listener.local_addr().unwrap(), LIMITS);
    let address = relay.address;
    let mut business = Business::meet(&listener);

    let mut pages = vec![page(address, 0).unwrap()];
    for topic in 1..=TOPICS {
        let request = business.take(|frame| match frame {
            ToBusiness::Subscribe { request, .. } => Some(*request),
            _ => None,
        });
        let grant = Grant { shared: true, ttl_s: 3600, page_messages: true, replay: 1000 };
        business.send(&ToRelay::Accept { request, topic, epoch: 1, grant });
    }
    pages.extend((1..PAGES).map(|number| page(address, number % 4).expect("the table has room")));
    let heads: Vec<_> = (0..HEADS).filter_map(|_| narrow(address)).collect();
    for mut head in &heads {
        head.write_all(b"GET /ws HTTP/1.1\r\nHost: half\r\nX-Half: ").unwrap();
    }

    let stop = AtomicBool::new(false);
    let mut most = Taken::default();
    let (business, published) = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(business, &stop));
        // A byte at a time from some, subscribe floods from others; who is cut off comes back at once.
        let (pages, stop) = (&mut pages, &stop);
        let pestering = scope.spawn(move || {
            let more = frame(r#"{"type":"subscribe","id":9,"link":"another"}"#);
            let mut returned = 0_u64;
            for number in (0..PAGES).cycle() {
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
                    if let Some(page) = page(address, number % 4) {
                        *stream = page;
                    }
                }
            }
            returned
        });

        for _ in 0..SAMPLES {
            let now = taken(&relay);
            most.process = most.process.max(now.process);
            most.kernel = most.kernel.max(now.kernel);
            most.queued = most.queued.max(now.queued);
            std::thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
        println!("{} pages came back", pestering.join().unwrap());
        flooding.join().unwrap()
    });
    let promised = promised();
    println!("{published} bytes published; at most {most:?} of {promised:?}");
    assert!(published > 100 << 20, "only {published} bytes were published");
    assert!(most.process <= promised.process, "resident: {most:?} of {promised:?}");
    assert!(most.kernel <= promised.kernel, "in the kernel: {most:?} of {promised:?}");
    assert!(most.queued <= promised.queued, "queued in the kernel: {most:?} of {promised:?}");

    // Everybody goes, nothing stays, and a page that behaves is served.
    drop((pages, heads));
    let mut business = business;
    let mut patience = 75;
    let resting = loop {
        std::thread::sleep(Duration::from_millis(200));
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
    assert!(next_text(&mut page).starts_with(r#"{"type":"subscribed","id":1,"#));
}
