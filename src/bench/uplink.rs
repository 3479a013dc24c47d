//! The bench's business server: one relay, one link, one topic, publications on demand.
//!
//! `crates/business` has the protocol; this file owns the socket, which is non-blocking.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use business::{Business, Event, Limits, RelayId, Settings};
use wire::Track;
use wire::uplink::{Grant, Part};

use super::{clock, load::WINDOW_MAX};

/// The link that every page subscribes to.
pub const LINK: &str = "bench";
/// The link's topic.
const TOPIC: u32 = 1;
/// No replay for late pages.
const GRANT: Grant = Grant { shared: true, ttl_s: 86_400, page_messages: true, replay: 0 };
/// The maximum number of slices per write.
const SLICES_MAX: usize = 64;

/// The uplink, as the business server sees it.
pub struct Uplink {
    business: Business,
    relay: RelayId,
    stream: TcpStream,
    frames: Vec<Arc<[u8]>>,
    start: Instant,
    is_up: bool,
}

impl Uplink {
    /// Waits for the relay and completes the handshake.
    pub fn meet(listener: &TcpListener) -> Result<Self, String> {
        let say = |error: std::io::Error| format!("uplink: {error}");
        let (stream, _) = listener.accept().map_err(say)?;
        stream.set_nodelay(true).map_err(say)?;
        stream.set_nonblocking(true).map_err(say)?;
        // The next flush sends what was published; the limits must hold everything in flight until
        // then.
        let limits = Limits {
            messages_max: WINDOW_MAX,
            messages_size_max: usize::MAX,
            media_size_max: usize::MAX,
            ..Limits::default()
        };
        let mut business = Business::new(Settings { limits, ..Settings::default() });
        business.open(TOPIC, 1);
        let start = clock::now();
        let relay = business.connect(start.elapsed(), [1; 16]);
        let mut uplink = Self { business, relay, stream, frames: Vec::new(), start, is_up: false };
        while !uplink.is_up {
            uplink.attend()?;
            std::thread::yield_now();
        }
        Ok(uplink)
    }

    /// Queues a publication for the next [`flush`](Self::flush).
    pub fn publish(&mut self, track: Track, part: Part<'_>, data: &[u8]) -> Result<(), String> {
        self.business.publish(TOPIC, track, part, data).map(|_| ()).map_err(|error| error.to_string())
    }

    /// Sends everything queued for the relay.
    pub fn flush(&mut self) -> Result<(), String> {
        self.business.take(self.relay, usize::MAX, &mut self.frames);
        let mut slices: Vec<_> = self.frames.iter().map(|frame| IoSlice::new(frame)).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            let some = rest.len().min(SLICES_MAX);
            match self.stream.write_vectored(&rest[..some]) {
                Ok(size) => IoSlice::advance_slices(&mut rest, size),
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => return Err(format!("uplink: {error}")),
            }
        }
        self.frames.clear();
        Ok(())
    }

    /// Reads and answers the relay's frames, if there are any.
    pub fn attend(&mut self) -> Result<(), String> {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => return Err("the relay closed the uplink".into()),
            Ok(size) => {
                let bytes = bytes.get(..size).unwrap_or_default();
                self.business.received(self.start.elapsed(), self.relay, bytes);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(format!("uplink: {error}")),
        }
        while let Some(event) = self.business.poll_event() {
            match event {
                Event::RelayUp { .. } => self.is_up = true,
                Event::RelayDown { why, .. } => return Err(format!("uplink: {why}")),
                // Can't fail: the only topic is open.
                Event::Asked { request, since, .. } => {
                    drop(self.business.accept(self.relay, request, (TOPIC, GRANT), since));
                }
                _ => {}
            }
        }
        while self.business.poll_ready().is_some() {}
        self.flush()
    }
}
