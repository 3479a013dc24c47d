//! One relay's connection: the handshake, its frames, its queue, its silence.
//!
//! Owns the socket. Reading, writing and the clock are three futures that race: whichever ends
//! first ends the connection. Refuses a wrong proof, a wrong version, a frame that doesn't decode,
//! a relay that is silent too long or reads too slowly. What the frames mean is [`Business`]'s.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    net::{SocketAddr, TcpStream},
    rc::Rc,
    time::{Duration, Instant},
};

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _};
use smol::{Async, Timer, channel};

use super::{
    business::{Business, Event, queued_size},
    room::Publication,
};
use crate::wire::uplink::{self, Deframer, HEAD_SIZE_MAX, ToBusiness, ToRelay};

/// A relay sends nothing larger than a head; this is the deframer's room for data, which it needs none of.
const DATA_SIZE_MAX: usize = 0;
/// Frames are gathered into one write up to this size: 64 KiB.
const WRITE_SIZE: usize = 64 * 1024;

/// What waits to be written to one relay. Full: the relay is cut off.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: RefCell<VecDeque<Outgoing>>,
    size: Cell<usize>,
    size_max: usize,
    /// Rung whenever the queue stops being empty; closed when the queue overflowed.
    bell: (channel::Sender<()>, channel::Receiver<()>),
    overflow: (channel::Sender<()>, channel::Receiver<()>),
}

#[derive(Debug)]
enum Outgoing {
    /// An encoded frame.
    Frame(Vec<u8>),
    /// Encoded when it is written, so that a thousand queued chunks are shared and not copied.
    Publication(u32, Rc<Publication>),
}

impl Outbox {
    fn new(size_max: usize) -> Self {
        Self {
            queue: RefCell::default(),
            size: Cell::new(0),
            size_max,
            bell: channel::bounded(1),
            overflow: channel::bounded(1),
        }
    }

    /// Queues any frame but a `Publish`.
    pub(super) fn send(&self, frame: &ToRelay<'_>) {
        let mut bytes = vec![0; HEAD_SIZE_MAX];
        let Some(size) = uplink::encode(frame, &mut bytes) else {
            log::error!("business server: a {} frame does not fit", frame.name());
            return;
        };
        bytes.truncate(size);
        self.push(size, Outgoing::Frame(bytes));
    }

    /// Queues a publication.
    pub(super) fn publish(&self, topic: u32, publication: &Rc<Publication>) {
        self.push(queued_size(publication), Outgoing::Publication(topic, Rc::clone(publication)));
    }

    fn push(&self, size: usize, outgoing: Outgoing) {
        if self.size.get() + size > self.size_max {
            self.overflow.0.close();
            return;
        }
        self.size.set(self.size.get() + size);
        self.queue.borrow_mut().push_back(outgoing);
        let _ = self.bell.0.try_send(());
    }

    /// Moves queued frames into `bytes` until it holds [`WRITE_SIZE`] or the queue is empty.
    fn gather(&self, bytes: &mut Vec<u8>) {
        while bytes.len() < WRITE_SIZE {
            let Some(outgoing) = self.queue.borrow_mut().pop_front() else { return };
            match outgoing {
                Outgoing::Frame(frame) => {
                    self.size.set(self.size.get() - frame.len());
                    bytes.extend_from_slice(&frame);
                }
                Outgoing::Publication(topic, publication) => {
                    self.size.set(self.size.get() - queued_size(&publication));
                    append(bytes, topic, &publication);
                }
            }
        }
    }
}

fn append(bytes: &mut Vec<u8>, topic: u32, publication: &Publication) {
    let from = bytes.len();
    bytes.resize(from + HEAD_SIZE_MAX + publication.data.len(), 0);
    let frame = ToRelay::Publish {
        topic,
        track: publication.track,
        sequence: publication.sequence,
        part: publication.kind.as_part(),
        data: &publication.data,
    };
    let size = bytes.get_mut(from..).and_then(|room| uplink::encode(&frame, room));
    bytes.truncate(from + size.unwrap_or(0));
}

/// Serves one relay from its first byte to its last.
pub(super) async fn run(business: Rc<Business>, stream: Async<TcpStream>, address: SocketAddr) {
    // A small frame must not wait for the acknowledgement of the one before it.
    let _ = stream.get_ref().set_nodelay(true);
    let outbox = Rc::new(Outbox::new(business.settings().out_size_max));
    let mut reader = Reader { stream: &stream, deframer: Deframer::new(DATA_SIZE_MAX) };

    let limit = business.settings().handshake;
    let in_time = async {
        Timer::after(limit).await;
        Err(format!("no handshake within {} s", limit.as_secs_f32()))
    };
    let name = match handshake(&business, &mut reader).or(in_time).await {
        Ok(name) => name,
        Err(reason) => {
            log::warn!("business server: {address} is no relay of ours: {reason}");
            return business.tell(Event::RelayDown { relay: String::new(), reason });
        }
    };
    let Some(number) = business.relay_up(&outbox) else {
        log::warn!("business server: relay {name:?} turned away: {} are connected", business.settings().relays_max);
        return business.tell(Event::RelayDown { relay: name, reason: "too many relays".to_owned() });
    };
    log::info!("business server: relay {name:?} connected from {address}");
    business.tell(Event::RelayUp { relay: name.clone() });

    let last_frame = Cell::new(Instant::now());
    let reason = read(&business, number, &outbox, &mut reader, &last_frame)
        .or(write(&outbox, &stream))
        .or(watch(&business, &outbox, &last_frame))
        .await;
    business.relay_down(number);
    log::info!("business server: relay {name:?} is gone: {reason}");
    business.tell(Event::RelayDown { relay: name, reason });
}

/// Challenge, Hello, Welcome; the relay's name.
async fn handshake(business: &Business, reader: &mut Reader<'_>) -> Result<String, String> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| format!("no random bytes: {error}"))?;
    let mut stream = reader.stream;
    send_now(&mut stream, &ToRelay::Challenge { version: uplink::VERSION, nonce }).await?;
    let (name, welcome) = loop {
        if let Some(frame) = reader.next()? {
            break answer(&business.settings().secret, &nonce, &frame)?;
        }
        reader.fill().await?;
    };
    send_now(&mut stream, &ToRelay::Welcome { version: uplink::VERSION, proof: welcome }).await?;
    Ok(name)
}

/// Checks a Hello; the relay's name, and what proves this side to it.
fn answer(secret: &[u8], challenge: &[u8; 16], frame: &ToBusiness<'_>) -> Result<(String, [u8; 32]), String> {
    let ToBusiness::Hello { version, relay, nonce, proof } = frame else {
        return Err("its first frame is not Hello".to_owned());
    };
    if *version != uplink::VERSION {
        return Err(format!("it speaks version {version}, this side {}", uplink::VERSION));
    }
    if !uplink::proofs_equal(proof, &uplink::relay_proof(secret, challenge, nonce)) {
        return Err("its proof is wrong: the secrets differ".to_owned());
    }
    Ok(((*relay).to_owned(), uplink::business_proof(secret, nonce, challenge)))
}

async fn send_now(stream: &mut &Async<TcpStream>, frame: &ToRelay<'_>) -> Result<(), String> {
    let mut bytes = [0; HEAD_SIZE_MAX];
    let size = uplink::encode(frame, &mut bytes).unwrap_or(0);
    stream.write_all(bytes.get(..size).unwrap_or_default()).await.map_err(|error| error.to_string())
}

/// Frames as they come, until the relay goes or breaks the protocol.
async fn read(
    business: &Business,
    relay: u64,
    outbox: &Outbox,
    reader: &mut Reader<'_>,
    last_frame: &Cell<Instant>,
) -> String {
    loop {
        loop {
            match reader.next() {
                Ok(Some(frame)) => {
                    last_frame.set(Instant::now());
                    match frame {
                        ToBusiness::Subscribe { request, link, since, .. } => {
                            business.subscribe(relay, request, link, since)
                        }
                        ToBusiness::Unsubscribe { topic } => business.unsubscribe(relay, topic),
                        ToBusiness::Audience { topic, pages } => business.audience_of(relay, topic, pages),
                        ToBusiness::PageMessage { topic, page, data } => {
                            business.page_message(relay, topic, page, data)
                        }
                        ToBusiness::Ping { nonce } => outbox.send(&ToRelay::Pong { nonce }),
                        ToBusiness::Pong { .. } => {}
                        ToBusiness::Hello { .. } => return "a second Hello".to_owned(),
                    }
                }
                Ok(None) => break,
                Err(reason) => return reason,
            }
        }
        // Between two reads the other tasks have their turn.
        if let Err(reason) = reader.fill().await {
            return reason;
        }
        smol::future::yield_now().await;
    }
}

/// The queue, as the relay takes it.
async fn write(outbox: &Outbox, mut stream: &Async<TcpStream>) -> String {
    let mut bytes = Vec::with_capacity(WRITE_SIZE);
    loop {
        bytes.clear();
        outbox.gather(&mut bytes);
        if bytes.is_empty() {
            if outbox.bell.1.recv().await.is_err() {
                return "closed".to_owned();
            }
        } else if let Err(error) = stream.write_all(&bytes).await {
            return error.to_string();
        }
        // One large chunk must not keep its size for good.
        bytes.shrink_to(4 * WRITE_SIZE);
    }
}

/// Silence and slowness. A ping asks for a sign of life; without any the relay is dead.
async fn watch(business: &Business, outbox: &Outbox, last_frame: &Cell<Instant>) -> String {
    let (ping_after, dead_after) = (business.settings().ping_after, business.settings().dead_after);
    let mut pinged: Option<Instant> = None;
    let mut nonce = 0_u32;
    loop {
        let silent = last_frame.get().elapsed();
        if silent >= dead_after {
            return format!("no frame for {} s", dead_after.as_secs_f32());
        }
        let wait = match pinged {
            _ if silent < ping_after => ping_after - silent,
            Some(at) if at.elapsed() < ping_after => ping_after - at.elapsed(),
            _ => {
                nonce = nonce.wrapping_add(1);
                outbox.send(&ToRelay::Ping { nonce });
                pinged = Some(Instant::now());
                ping_after
            }
        };
        let wait = wait.min(dead_after.saturating_sub(silent)).max(Duration::from_millis(1));
        let slow = async {
            let _ = outbox.overflow.1.recv().await;
            true
        };
        let later = async {
            Timer::after(wait).await;
            false
        };
        if slow.or(later).await {
            return format!("it reads too slowly: more than {} bytes wait", outbox.size_max);
        }
    }
}

/// The reading side: bytes into the deframer, frames out of it.
struct Reader<'a> {
    stream: &'a Async<TcpStream>,
    deframer: Deframer,
}

impl Reader<'_> {
    /// Waits for more bytes.
    async fn fill(&mut self) -> Result<(), String> {
        let mut stream = self.stream;
        match stream.read(self.deframer.space()).await {
            Ok(0) => Err("it closed the connection".to_owned()),
            Ok(size) => {
                self.deframer.filled(size);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The next whole frame, if one is there.
    fn next(&mut self) -> Result<Option<ToBusiness<'_>>, String> {
        match self.deframer.next_body() {
            Ok(None) => Ok(None),
            Ok(Some(body)) => match uplink::decode_to_business(body) {
                Ok(frame) => Ok(Some(frame)),
                Err((byte, fault)) => Err(format!("a frame is wrong at byte {byte}: {fault:?}")),
            },
            Err(error) => Err(error.to_string()),
        }
    }
}
