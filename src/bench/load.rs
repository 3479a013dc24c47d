//! The load: all pages in one epoll loop. Their frames are parsed from one shared buffer and
//! checked.
//!
//! Copies nothing except the incomplete frame at the end of a read. Every message's sequence must
//! follow the last one, or a gap notice must cover the difference; otherwise it is counted as lost.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::clock;
use super::histogram::Histogram;
use super::source::{from, source};
use super::tls::{Client, Line, Shaking, sealed};

/// The maximum number of publications in flight, whose send times are recorded.
pub const WINDOW_MAX: usize = 4096;
/// The maximum number of bytes per read.
const BUFFER_SIZE: usize = 256 * 1024;
/// Pages by TLS that share an address: what the smallest board admits at once.
const PAGES_PER_SOURCE: usize = 4;
/// The maximum number of events per wait.
const EVENTS_MAX: usize = 1024;
/// A page's pong: final, empty, masked with zeros.
const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];
/// The bytes before a message's sequence.
const MESSAGE: &[u8] = br#"{"type":"message","topic":1,"sequence":"#;

/// All pages.
pub struct Load {
    epoll: OwnedFd,
    /// For pages by TLS.
    tls: Option<Client>,
    pages: Vec<Page>,
    /// Connections begun so far.
    begun: usize,
    events: Vec<Event>,
    buffer: Vec<u8>,
    /// What the pages have received.
    pub seen: Seen,
}

/// A connection that was begun: by TLS, the hello is sent.
pub struct Begun {
    stream: TcpStream,
    shaking: Option<Box<Shaking>>,
}

struct Page {
    stream: TcpStream,
    tls: Option<Line>,
    input: Input,
    reads: bool,
}

/// What a page has read.
struct Input {
    /// The frame that is not yet whole.
    carry: Vec<u8>,
    /// The sequence that comes next; 0 at first.
    next: u64,
}

/// What the pages have received.
#[derive(Debug)]
pub struct Seen {
    /// Messages and media chunks.
    pub deliveries: u64,
    /// Their size in bytes, with frame headers.
    pub bytes: u64,
    /// Messages lost, duplicated or reordered without a gap notice.
    pub lost: u64,
    /// Sequences covered by gap notices.
    pub gaps: u64,
    /// Other text frames.
    pub notices: u64,
    /// Pings, each of which is answered.
    pub pings: u64,
    /// Latencies from publication to page.
    pub latency: Histogram,
    reached: Vec<u32>,
    sent: Vec<Instant>,
}

impl Seen {
    fn new() -> Self {
        let reached = vec![0; WINDOW_MAX];
        let sent = vec![clock::now(); WINDOW_MAX];
        let latency = Histogram::default();
        Self { deliveries: 0, bytes: 0, lost: 0, gaps: 0, notices: 0, pings: 0, latency, reached, sent }
    }

    /// Records that a publication is sent now.
    pub fn send(&mut self, sequence: u64) {
        self.reached[slot(sequence)] = 0;
        self.sent[slot(sequence)] = clock::now();
    }

    /// The number of pages that a publication has reached.
    #[must_use]
    pub fn reached(&self, sequence: u64) -> u32 {
        self.reached[slot(sequence)]
    }

    fn deliver(&mut self, next: &mut u64, sequence: u64, size: usize, now: Instant) {
        if *next != 0 && sequence != *next {
            self.lost += 1;
        }
        *next = sequence + 1;
        self.deliveries += 1;
        self.bytes += size as u64;
        self.reached[slot(sequence)] += 1;
        let us = now.saturating_duration_since(self.sent[slot(sequence)]).as_micros();
        self.latency.add(u64::try_from(us).unwrap_or(u64::MAX), 1);
    }

    fn frame(&mut self, next: &mut u64, opcode: u8, payload: &[u8], size: usize, now: Instant) {
        match opcode {
            1 if payload.starts_with(MESSAGE) => {
                let sequence = number(payload.get(MESSAGE.len()..).unwrap_or_default());
                self.deliver(next, sequence, size, now);
            }
            1 if payload.starts_with(br#"{"type":"gap""#) => {
                let (from, to) = (field(payload, b"\"from\":"), field(payload, b"\"to\":"));
                if *next != 0 && from != *next {
                    self.lost += 1;
                }
                self.gaps += to + 1 - from;
                *next = to + 1;
            }
            1 => self.notices += 1,
            9 => self.pings += 1,
            // A chunk, with its sequence in bytes 6 to 13. Init segments are repeated, so they are
            // not counted.
            2 if payload.get(1) != Some(&1) => {
                if let Some(sequence) = payload.get(6..14).and_then(|bytes| bytes.try_into().ok()) {
                    self.deliver(next, u64::from_be_bytes(sequence), size, now);
                }
            }
            _ => {}
        }
    }
}

fn slot(sequence: u64) -> usize {
    usize::try_from(sequence % WINDOW_MAX as u64).unwrap_or_default()
}

fn number(digits: &[u8]) -> u64 {
    digits.iter().take_while(|byte| byte.is_ascii_digit()).fold(0, |number, byte| number * 10 + u64::from(byte - b'0'))
}

fn field(payload: &[u8], name: &[u8]) -> u64 {
    let at = payload.windows(name.len()).position(|window| window == name).unwrap_or(payload.len());
    number(payload.get(at + name.len()..).unwrap_or_default())
}

impl Load {
    /// A load without pages, which are to connect by TLS if there is a client for it.
    pub fn new(tls: Option<Client>) -> Result<Self, String> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|error| format!("epoll: {error}"))?;
        Ok(Self {
            epoll,
            tls,
            pages: Vec::new(),
            begun: 0,
            events: Vec::with_capacity(EVENTS_MAX),
            buffer: vec![0; BUFFER_SIZE],
            seen: Seen::new(),
        })
    }

    /// Connects a page. With a link it upgrades and subscribes; without, it is a plain TCP
    /// connection.
    pub fn connect(&mut self, address: SocketAddr, link: Option<&str>) -> Result<(), String> {
        let begun = self.begin(address)?;
        self.finish(begun, address, link)
    }

    /// Begins to connect a page.
    pub fn begin(&mut self, address: SocketAddr) -> Result<Begun, String> {
        let number = self.begun;
        self.begun += 1;
        // The rate of handshakes is limited for each address.
        let source = self.tls.as_ref().map(|_| source(address, number / PAGES_PER_SOURCE));
        let mut stream =
            from(source.flatten(), address, super::PATIENCE).map_err(|error| format!("page {number}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let Some(client) = &self.tls else { return Ok(Begun { stream, shaking: None }) };
        stream.set_read_timeout(Some(super::PATIENCE)).map_err(|error| error.to_string())?;
        let mut hello = Vec::new();
        let shaking = Some(client.begin(&mut hello)?);
        stream.write_all(&hello).map_err(|error| format!("page {number}: {error}"))?;
        Ok(Begun { stream, shaking })
    }

    /// Connects a page that was begun, as [`connect`](Self::connect).
    pub fn finish(&mut self, begun: Begun, address: SocketAddr, link: Option<&str>) -> Result<(), String> {
        let Begun { mut stream, shaking } = begun;
        let mut tls = shaking
            .map(|shaking| shaking.finish(&mut stream))
            .transpose()
            .map_err(|error| format!("page {}: {error}", self.pages.len()))?;
        if let Some(link) = link {
            let request = upgrade(address, link);
            stream.write_all(&sealed(tls.as_mut(), &request)?).map_err(|error| error.to_string())?;
        }
        stream.set_nonblocking(true).map_err(|error| error.to_string())?;
        let carry = if link.is_some() { b"HTTP".to_vec() } else { Vec::new() };
        let data = EventData::new_u64(self.pages.len() as u64);
        epoll::add(&self.epoll, &stream, data, EventFlags::IN).map_err(|error| format!("epoll: {error}"))?;
        self.pages.push(Page { stream, tls, input: Input { carry, next: 0 }, reads: true });
        Ok(())
    }

    /// Makes a page stop reading.
    pub fn stall(&mut self, page: usize) {
        if let Some(page) = self.pages.get_mut(page) {
            page.reads = false;
            let _ = epoll::delete(&self.epoll, &page.stream);
        }
    }

    /// Waits for input for at most `wait`, which must be below one second, and handles it.
    pub fn turn(&mut self, wait: Duration) -> Result<(), String> {
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("epoll: {error}")),
        }
        for event in &self.events {
            let index = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
            let Some(page) = self.pages.get_mut(index) else { continue };
            match page.stream.read(&mut self.buffer) {
                Ok(0) => return Err(format!("page {index} was closed by the relay")),
                Ok(size) => {
                    let pings = self.seen.pings;
                    let bytes = self.buffer.get_mut(..size).unwrap_or_default();
                    let (input, seen) = (&mut page.input, &mut self.seen);
                    match &mut page.tls {
                        Some(tls) => {
                            if !tls.open(bytes, |plain| take(input, plain, seen))? {
                                return Err(format!("page {index} was closed by the relay"));
                            }
                        }
                        None => take(input, bytes, seen)?,
                    }
                    for _ in pings..self.seen.pings {
                        // The relay cuts off pages that don't answer pings.
                        let pong = sealed(page.tls.as_mut(), &PONG)?;
                        page.stream.write_all(&pong).map_err(|error| format!("page {index}: {error}"))?;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("page {index}: {error}")),
            }
        }
        Ok(())
    }

    /// The number of pages that read.
    #[must_use]
    pub fn readers(&self) -> u32 {
        u32::try_from(self.pages.iter().filter(|page| page.reads).count()).unwrap_or(u32::MAX)
    }
}

/// The request head of a page's upgrade, followed by a masked `subscribe` frame (the mask is zero).
pub fn upgrade(relay: SocketAddr, link: &str) -> Vec<u8> {
    let text = format!(r#"{{"type":"subscribe","id":1,"link":"{link}"}}"#);
    let mut bytes = format!(
        "GET /ws HTTP/1.1\r\nHost: {relay}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: sharelink.v1\r\n\r\n"
    )
    .into_bytes();
    bytes.extend([0x81, 0x80 | u8::try_from(text.len()).unwrap_or(125), 0, 0, 0, 0]);
    bytes.extend(text.as_bytes());
    bytes
}

/// Handles the bytes received by a page.
fn take(page: &mut Input, bytes: &[u8], seen: &mut Seen) -> Result<(), String> {
    let now = clock::now();
    if page.carry.is_empty() {
        let used = frames(bytes, &mut page.next, seen, now);
        page.carry.extend_from_slice(bytes.get(used..).unwrap_or_default());
        return Ok(());
    }
    page.carry.extend_from_slice(bytes);
    if page.carry.starts_with(b"HTTPHTTP/1.1") {
        let Some(end) = page.carry.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(()) };
        if !page.carry.starts_with(b"HTTPHTTP/1.1 101") {
            return Err(refusal(page.carry.get(4..).unwrap_or_default()));
        }
        page.carry.drain(..end + 4);
    }
    let used = frames(&page.carry, &mut page.next, seen, now);
    page.carry.drain(..used);
    Ok(())
}

/// The error for a refused upgrade, with the response's status line and text.
fn refusal(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let status = text.lines().next().unwrap_or_default();
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
    format!("the relay refused a page with {status:?}: {body}")
}

/// Handles every complete frame. Returns the number of bytes consumed.
fn frames(bytes: &[u8], next: &mut u64, seen: &mut Seen, now: Instant) -> usize {
    let mut used = 0;
    while let Some((opcode, header, size)) = bytes.get(used..).and_then(header) {
        let Some(payload) = bytes.get(used + header..used + header + size) else { break };
        seen.frame(next, opcode, payload, header + size, now);
        used += header + size;
    }
    used
}

/// An unmasked frame's opcode, header size and payload size; `None` if the header is incomplete.
#[must_use]
pub fn header(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (first, second) = (bytes.first()?, bytes.get(1)?);
    let (header, size) = match second & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        size => (2, usize::from(size)),
    };
    Some((first & 0x0f, header, size))
}
