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
use super::load::upgrade;
use super::uplink::LINK;

/// The interval of its pings.
const PERIOD: Duration = Duration::from_millis(10);
/// A page's ping: final, empty, masked with zeros.
const PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];
/// The pong to it.
const PONG: [u8; 2] = [0x8a, 0];

/// The probe's thread.
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Histogram, String>>,
}

impl Probe {
    /// Connects, subscribes, and starts pinging.
    pub fn start(relay: SocketAddr) -> Result<Self, String> {
        let say = |error: std::io::Error| format!("the probe: {error}");
        let mut stream = TcpStream::connect(relay).map_err(say)?;
        stream.set_nodelay(true).map_err(say)?;
        stream.set_read_timeout(Some(super::PATIENCE)).map_err(say)?;
        stream.write_all(&upgrade(relay, LINK)).map_err(say)?;
        // The response head, followed by the `subscribed` notice.
        let mut seen = Vec::new();
        while !seen.windows(12).any(|window| window == b"\"subscribed\"") || !seen.ends_with(b"}") {
            let mut bytes = [0; 1024];
            match stream.read(&mut bytes).map_err(say)? {
                0 => return Err("the probe: the relay closed it".into()),
                size => seen.extend_from_slice(bytes.get(..size).unwrap_or_default()),
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut times = Histogram::default();
            while !stopped.load(Ordering::Relaxed) {
                let start = clock::now();
                stream.write_all(&PING).map_err(say)?;
                let mut pong = [0; 2];
                stream.read_exact(&mut pong).map_err(say)?;
                if pong != PONG {
                    return Err(format!("the probe: received {pong:02x?} instead of a pong"));
                }
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
