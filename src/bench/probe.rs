//! A page connected before the others: it sends a ping every 10 ms and times the pong.
//!
//! Its latency is that of any page whose turn comes after those of arriving pages. Runs in its own
//! thread.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::clock;
use super::histogram::Histogram;
use super::load::{header, upgrade};
use super::tls::{Client, Line, sealed};
use super::uplink::LINK;

/// The interval of its pings.
const PERIOD: Duration = Duration::from_millis(10);
/// A page's ping: final, empty, masked with zeros.
const PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];
/// A notice's opcode.
const TEXT: u8 = 1;
/// The pong to it.
const PONG: [u8; 2] = [0x8a, 0];

/// The probe's thread.
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Histogram, String>>,
}

impl Probe {
    /// Connects, by TLS if there is a client for it, subscribes, and starts pinging.
    pub fn start(relay: SocketAddr, tls: Option<&Client>) -> Result<Self, String> {
        let say = |error: std::io::Error| format!("the probe: {error}");
        let mut stream = TcpStream::connect(relay).map_err(say)?;
        stream.set_nodelay(true).map_err(say)?;
        stream.set_read_timeout(Some(super::PATIENCE)).map_err(say)?;
        let line = tls.map(|client| client.shake(&mut stream)).transpose()?;
        let mut page = Page { stream, line, seen: Vec::new() };
        page.send(&upgrade(relay, LINK))?;
        // The response head, followed by the `subscribed` notice.
        while !page.seen.windows(12).any(|window| window == b"\"subscribed\"") || !page.seen.ends_with(b"}") {
            page.receive()?;
        }
        page.seen.clear();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut times = Histogram::default();
            while !stopped.load(Ordering::Relaxed) {
                let start = clock::now();
                page.send(&PING)?;
                page.skip_notices();
                while page.seen.len() < PONG.len() || page.is_notice() {
                    page.receive()?;
                    page.skip_notices();
                }
                if !page.seen.starts_with(&PONG) {
                    return Err(format!("the probe: received {:02x?} instead of a pong", page.seen));
                }
                // A notice may be behind it.
                page.seen.drain(..PONG.len());
                times.add(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX), 1);
                std::thread::sleep(PERIOD);
            }
            Ok(times)
        });
        Ok(Self { stop, thread })
    }

    /// Ends it, and returns its latencies.
    pub fn end(self) -> Result<Histogram, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the probe: its thread panicked".to_owned())?
    }
}

/// The probe's connection.
struct Page {
    stream: TcpStream,
    line: Option<Line>,
    /// What it has read and not yet looked at.
    seen: Vec<u8>,
}

impl Page {
    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let bytes = sealed(self.line.as_mut(), bytes)?;
        self.stream.write_all(&bytes).map_err(|error| format!("the probe: {error}"))
    }

    /// Whether a notice, such as `alive`, is what has come.
    fn is_notice(&self) -> bool {
        header(&self.seen).is_some_and(|(opcode, ..)| opcode == TEXT)
    }

    /// Takes away whole notices.
    fn skip_notices(&mut self) {
        while let Some((TEXT, before, size)) = header(&self.seen)
            && before + size <= self.seen.len()
        {
            self.seen.drain(..before + size);
        }
    }

    fn receive(&mut self) -> Result<(), String> {
        let mut bytes = [0; 1024];
        let size = self.stream.read(&mut bytes).map_err(|error| format!("the probe: {error}"))?;
        let (bytes, seen) = (&mut bytes[..size], &mut self.seen);
        let mut take = |bytes: &[u8]| {
            seen.extend_from_slice(bytes);
            Ok(())
        };
        match &mut self.line {
            _ if size == 0 => Err("the probe: the relay closed it".into()),
            Some(line) => line.open(bytes, take).map(drop),
            None => take(bytes),
        }
    }
}
