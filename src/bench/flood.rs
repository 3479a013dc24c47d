//! A flood of TLS handshakes: the same hello again and again, from ever other addresses, as an
//! attacker would send it who spares his own processor.
//!
//! Runs in its own thread, which gives way to the load's. The relay answers each hello with a
//! signature, and then waits for what never comes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::clock;
use super::source::{from, source};
use super::tls::Client;

/// Hellos under way at the same time.
const UNDER_WAY: usize = 32;
/// How long one waits for its answer, at most: the relay may have given its place to another.
const PATIENCE: Duration = Duration::from_millis(500);
/// First byte of a record of a handshake.
const HANDSHAKE: u8 = 22;
/// Bytes of an answer that are read.
const ANSWER_SIZE: usize = 4096;

/// The flood's thread.
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<f64>,
}

impl Flood {
    /// Begins. Only a relay on loopback sees more than one address.
    ///
    /// # Errors
    /// rustls's own.
    pub fn start(relay: SocketAddr, client: &Client) -> Result<Self, String> {
        let mut hello = Vec::new();
        client.begin(&mut hello)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let _ = rustix::process::nice(19);
            let start = clock::now();
            let (mut answered, mut number) = (0.0, 0);
            while !stopped.load(Ordering::Relaxed) {
                let mut begun = Vec::with_capacity(UNDER_WAY);
                for _ in 0..UNDER_WAY {
                    number += 1;
                    begun.extend(greet(relay, number, &hello));
                }
                for mut stream in begun {
                    // The answer comes in one piece, and its first byte says whether it is one.
                    let mut answer = [0; ANSWER_SIZE];
                    answered += f64::from(matches!(stream.read(&mut answer), Ok(1..) if answer[0] == HANDSHAKE));
                }
            }
            answered / start.elapsed().as_secs_f64()
        });
        Ok(Self { stop, thread })
    }

    /// Ends it. Returns how many hellos were answered in a second.
    ///
    /// # Errors
    /// Its thread panicked.
    pub fn end(self) -> Result<f64, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the flood: its thread panicked".to_owned())
    }
}

/// Connects from another address and sends a hello; `None` if the relay has no place.
fn greet(relay: SocketAddr, number: usize, hello: &[u8]) -> Option<TcpStream> {
    let mut stream = from(source(relay, number), relay, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(hello).ok()?;
    Some(stream)
}
