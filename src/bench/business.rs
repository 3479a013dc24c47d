//! The bench's business server: one relay, one link, one topic, and publications as fast as they are wanted.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use wire::Track;
use wire::uplink::{
    Deframer, Grant, HEAD_SIZE_MAX, LENGTH_SIZE, Part, ToBusiness, ToRelay, VERSION, business_proof,
    decode_to_business, encode,
};

/// The link that every page asks for.
pub const LINK: &str = "bench";
/// The topic that it shows.
const TOPIC: u32 = 1;

/// The uplink, as the business server sees it.
pub struct Business {
    stream: TcpStream,
    deframer: Deframer,
    out: Vec<u8>,
    /// Pages that the relay told last.
    pub audience: u32,
}

impl Business {
    /// Waits for the relay and shakes hands.
    pub fn meet(listener: &TcpListener) -> Result<Self, String> {
        let say = |error: std::io::Error| format!("uplink: {error}");
        let (stream, _) = listener.accept().map_err(say)?;
        stream.set_nodelay(true).map_err(say)?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(say)?;
        let mut business = Self { stream, deframer: Deframer::new(HEAD_SIZE_MAX), out: Vec::new(), audience: 0 };
        let challenge = [1; 16];
        business.push(&ToRelay::Challenge { version: VERSION, nonce: challenge }, 0);
        business.flush()?;
        let mut hello = None;
        while hello.is_none() {
            business.read(|frame| {
                if let ToBusiness::Hello { nonce, .. } = frame {
                    hello = Some(*nonce);
                }
            })?;
        }
        let proof = business_proof(b"", &hello.unwrap_or_default(), &challenge);
        business.push(&ToRelay::Welcome { version: VERSION, proof }, 0);
        business.flush()?;
        business.stream.set_read_timeout(None).map_err(say)?;
        business.stream.set_nonblocking(true).map_err(say)?;
        Ok(business)
    }

    /// Adds a publication to what is sent with the next [`flush`](Self::flush).
    pub fn publish(&mut self, track: Track, sequence: u64, part: Part<'_>, data: &[u8]) {
        self.push(&ToRelay::Publish { topic: TOPIC, track, sequence, part, data }, data.len());
    }

    /// Sends what was added, all of it.
    pub fn flush(&mut self) -> Result<(), String> {
        let mut rest = &self.out[..];
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(size) => rest = rest.get(size..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => return Err(format!("uplink: {error}")),
            }
        }
        self.out.clear();
        Ok(())
    }

    /// Answers what the relay asks; nothing where it asks nothing.
    pub fn answer(&mut self) -> Result<(), String> {
        let mut answers = Vec::new();
        let mut audience = self.audience;
        self.read(|frame| match frame {
            ToBusiness::Subscribe { request, .. } => {
                let grant = Grant { shared: true, ttl_s: 86_400, page_messages: true, replay: 0 };
                answers.push(ToRelay::Accept { request: *request, topic: TOPIC, epoch: 1, grant });
            }
            ToBusiness::Ping { nonce } => answers.push(ToRelay::Pong { nonce: *nonce }),
            ToBusiness::Audience { pages, .. } => audience = *pages,
            _ => {}
        })?;
        self.audience = audience;
        for answer in answers {
            self.push(&answer, 0);
        }
        self.flush()
    }

    fn push(&mut self, frame: &ToRelay<'_>, data_size: usize) {
        let from = self.out.len();
        self.out.resize(from + LENGTH_SIZE + HEAD_SIZE_MAX + data_size, 0);
        let size = self.out.get_mut(from..).and_then(|room| encode(frame, room)).unwrap_or(0);
        self.out.truncate(from + size);
    }

    fn read(&mut self, mut each: impl FnMut(&ToBusiness<'_>)) -> Result<(), String> {
        match self.stream.read(self.deframer.space()) {
            Ok(0) => return Err("the relay closed the uplink".into()),
            Ok(size) => self.deframer.filled(size),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(format!("uplink: {error}")),
        }
        while let Some(body) = self.deframer.next_body().map_err(|error| error.to_string())? {
            each(&decode_to_business(body).map_err(|(byte, fault)| format!("uplink, byte {byte}: {fault:?}"))?);
        }
        Ok(())
    }
}
