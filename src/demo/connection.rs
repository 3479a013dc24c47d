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
    clock,
    room::Publication,
};
use wire::uplink::{self, Deframer, HEAD_SIZE_MAX, ToBusiness, ToRelay};

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

    let last_frame = Cell::new(clock::now());
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
                    last_frame.set(clock::now());
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
                pinged = Some(clock::now());
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::demo::{
        business::Settings,
        room::{Kind, PublishError},
    };
    use wire::{
        Track,
        uplink::{Grant, Incoming, PageInfo, Part, Since},
    };

    const GRANT: Grant = Grant { shared: true, ttl_s: 60, page_messages: true, replay: 2 };

    /// A relay by hand: what it reads, as text that is easy to compare.
    struct Relay {
        stream: Async<TcpStream>,
        deframer: Deframer,
    }

    impl Relay {
        async fn connect(address: SocketAddr) -> Self {
            Self { stream: Async::<TcpStream>::connect(address).await.unwrap(), deframer: Deframer::new(1 << 20) }
        }

        /// Connects and shakes hands; checks the other side's proof.
        async fn join(address: SocketAddr, secret: &[u8]) -> Self {
            let mut relay = Self::connect(address).await;
            let challenge = relay.challenge().await;
            let nonce = [7; 16];
            let proof = uplink::relay_proof(secret, &challenge, &nonce);
            relay.send(&ToBusiness::Hello { version: 1, relay: "by hand", nonce, proof }).await;
            let proof = uplink::business_proof(secret, &nonce, &challenge);
            let welcome =
                relay.next(|frame| matches!(frame, ToRelay::Welcome { version: 1, proof: own } if *own == proof)).await;
            assert_eq!(welcome, Some(true));
            relay
        }

        async fn challenge(&mut self) -> [u8; 16] {
            let challenge = self.next(|frame| match frame {
                ToRelay::Challenge { version: 1, nonce } => *nonce,
                other => panic!("{other:?}"),
            });
            challenge.await.unwrap()
        }

        async fn send(&self, frame: &ToBusiness<'_>) {
            let mut bytes = [0; HEAD_SIZE_MAX];
            let size = uplink::encode(frame, &mut bytes).unwrap();
            (&self.stream).write_all(bytes.get(..size).unwrap()).await.unwrap();
        }

        /// The next frame, or `None` where the connection ends.
        async fn next<R>(&mut self, read: impl FnOnce(&ToRelay<'_>) -> R) -> Option<R> {
            loop {
                if let Some(Incoming::Frame(frame)) = self.deframer.next_frame().unwrap() {
                    return Some(read(&frame));
                }
                let size = (&self.stream).read(self.deframer.space()).await.unwrap_or(0);
                if size == 0 {
                    return None;
                }
                self.deframer.filled(size);
            }
        }

        async fn text(&mut self) -> String {
            let text = self.next(|frame| match frame {
                ToRelay::Accept { request, topic, epoch, .. } => {
                    format!("accept {request} topic {topic} epoch {epoch}")
                }
                ToRelay::Publish { track, sequence, part, data, .. } => {
                    let part =
                        if let Part::Init { mime } = part { format!("Init({mime})") } else { format!("{part:?}") };
                    format!("{} {sequence} {part} {}", track.name(), String::from_utf8_lossy(data))
                }
                other => format!("{other:?}"),
            });
            text.await.unwrap_or_else(|| "closed".to_owned())
        }

        async fn subscribe(&self, request: u32, link: &str, since: Option<Since>) {
            self.send(&ToBusiness::Subscribe { request, link, since, page: PageInfo::default() }).await;
        }
    }

    /// Runs a business server with one room while `test` plays a relay.
    fn with_server<F: Future<Output = ()>>(settings: Settings, test: impl FnOnce(Rc<Business>, SocketAddr) -> F) {
        let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
        let address = listener.get_ref().local_addr().unwrap();
        let business = Business::new(settings);
        business.open(5, 70);
        business.allow("good", 5, GRANT);
        let server = async {
            Rc::clone(&business).serve(listener).await.unwrap();
        };
        let late = async {
            Timer::after(Duration::from_secs(20)).await;
            panic!("the test hangs");
        };
        smol::block_on(test(Rc::clone(&business), address).or(server).or(late));
    }

    fn secret() -> Settings {
        Settings { secret: b"s3cret".to_vec(), ..Settings::default() }
    }

    #[test]
    fn a_relay_gets_what_a_late_page_needs_and_then_everything() {
        with_server(secret(), |business, address| async move {
            let publish = |track, kind, text: &str| business.publish(5, track, kind, text.into()).unwrap();
            for text in ["1", "2", "3"] {
                publish(Track::Messages, Kind::Whole, text);
                publish(Track::State, Kind::Whole, text);
            }
            publish(Track::Video, Kind::Init("video/x".into()), "i");
            publish(Track::Video, Kind::Start, "a");
            publish(Track::Video, Kind::Start, "b");
            publish(Track::Video, Kind::Continue, "c");
            let mut relay = Relay::join(address, b"s3cret").await;
            relay.subscribe(9, "good", None).await;
            for expected in [
                "accept 9 topic 5 epoch 70",
                "state 3 Whole 3",
                "messages 2 Whole 2",
                "messages 3 Whole 3",
                "video 1 Init(video/x) i",
                "video 3 Start b",
                "video 4 Continue c",
            ] {
                assert_eq!(relay.text().await, expected);
            }
            publish(Track::Messages, Kind::Whole, "4");
            assert_eq!(relay.text().await, "messages 4 Whole 4");

            // A second relay that comes back with its places, and one with a link that leads nowhere.
            let mut other = Relay::join(address, b"s3cret").await;
            other.subscribe(1, "good", Some(Since { epoch: 70, next: [4, 2, 0, 4] })).await;
            for expected in [
                "accept 1 topic 5 epoch 70",
                "messages 2 Whole 2",
                "messages 3 Whole 3",
                "messages 4 Whole 4",
                "video 4 Continue c",
            ] {
                assert_eq!(other.text().await, expected);
            }
            other.subscribe(2, "bad", None).await;
            assert_eq!(other.text().await, "Deny { request: 2, reason: \"there is nothing behind this link\" }");

            relay.send(&ToBusiness::Unsubscribe { topic: 5 }).await;
            relay.send(&ToBusiness::Ping { nonce: 8 }).await;
            assert_eq!(relay.text().await, "Pong { nonce: 8 }");
            publish(Track::Messages, Kind::Whole, "5");
            assert_eq!(other.text().await, "messages 5 Whole 5");
            relay.send(&ToBusiness::Ping { nonce: 9 }).await;
            assert_eq!(relay.text().await, "Pong { nonce: 9 }", "nothing of a room that it gave up");
        });
    }

    #[test]
    fn the_room_ends_and_opens_anew() {
        with_server(secret(), |business, address| async move {
            let mut relay = Relay::join(address, b"s3cret").await;
            relay.subscribe(1, "good", None).await;
            assert_eq!(relay.text().await, "accept 1 topic 5 epoch 70");
            business.end(5, "closed for today");
            assert_eq!(relay.text().await, "End { topic: 5, reason: \"closed for today\" }");
            relay.subscribe(2, "good", None).await;
            assert_eq!(relay.text().await, "Deny { request: 2, reason: \"closed for today\" }");
            assert_eq!(business.publish(5, Track::State, Kind::Whole, vec![b'1']), Err(PublishError::Closed));
            business.open(5, 71);
            relay.subscribe(3, "good", Some(Since { epoch: 70, next: [1, 1, 0, 0] })).await;
            assert_eq!(relay.text().await, "accept 3 topic 5 epoch 71");
            assert_eq!(business.publish(5, Track::State, Kind::Whole, vec![b'1']), Ok(1));
            assert_eq!(relay.text().await, "state 1 Whole 1");
            business.revoke("good", "taken back");
            assert_eq!(relay.text().await, "Revoke { link: \"good\", reason: \"taken back\" }");
            relay.subscribe(4, "good", None).await;
            assert!(relay.text().await.starts_with("Deny { request: 4"));
        });
    }

    #[test]
    fn audiences_add_up_and_leave_with_their_relay() {
        with_server(secret(), |business, address| async move {
            let events = business.events();
            let (mut one, mut two) = (Relay::join(address, b"s3cret").await, Relay::join(address, b"s3cret").await);
            for (relay, pages) in [(&mut one, 3), (&mut two, 4)] {
                relay.subscribe(1, "good", None).await;
                relay.text().await;
                relay.send(&ToBusiness::Audience { topic: 5, pages }).await;
                relay.send(&ToBusiness::Audience { topic: 6, pages: 99 }).await;
                relay.send(&ToBusiness::Ping { nonce: 0 }).await;
                assert_eq!(relay.text().await, "Pong { nonce: 0 }");
            }
            assert_eq!(business.audience(5), 7);
            two.send(&ToBusiness::PageMessage { topic: 5, page: 12, data: "hi" }).await;
            two.send(&ToBusiness::PageMessage { topic: 6, page: 12, data: "not this one" }).await;
            loop {
                if let Event::PageMessage { topic, relay, page, data } = events.recv().await.unwrap() {
                    assert_eq!((topic, page, data.as_str()), (5, 12, "hi"));
                    business.kick(relay, page, "be kind");
                    break;
                }
            }
            assert_eq!(two.text().await, "Kick { page: 12, reason: \"be kind\" }");
            drop(one);
            loop {
                if matches!(events.recv().await.unwrap(), Event::Audience { topic: 5, pages: 4 })
                    && business.relays() == 1
                {
                    break;
                }
            }
        });
    }

    #[test]
    fn a_wrong_proof_a_wrong_version_and_garbage_end_the_connection() {
        with_server(secret(), |business, address| async move {
            for (version, secret) in [(1, b"wrong"), (2, b"s3cre")] {
                let mut relay = Relay::connect(address).await;
                let challenge = relay.challenge().await;
                let proof = uplink::relay_proof(secret, &challenge, &[1; 16]);
                relay.send(&ToBusiness::Hello { version, relay: "x", nonce: [1; 16], proof }).await;
                assert_eq!(relay.text().await, "closed");
            }
            let mut eager = Relay::connect(address).await;
            eager.subscribe(1, "good", None).await;
            eager.challenge().await;
            assert_eq!(eager.text().await, "closed");
            assert_eq!(business.relays(), 0);

            for garbage in [
                &[0, 0, 0, 0][..],
                &[1, 0, 0, 0, 99],
                &[2, 0, 0, 0, 5, 1, 9],
                &[255, 255, 255, 255],
                &[2, 0, 16, 0, 1, 1],
            ] {
                let mut relay = Relay::join(address, b"s3cret").await;
                (&relay.stream).write_all(garbage).await.unwrap();
                if garbage != [2, 0, 0, 0, 5, 1, 9] {
                    assert_eq!(relay.text().await, "closed", "{garbage:?}");
                } else {
                    assert_eq!(relay.text().await, "Pong { nonce: 1 }", "two bytes are a whole Ping");
                }
            }
        });
    }

    #[test]
    fn a_silent_relay_is_pinged_and_then_dropped() {
        let settings = Settings {
            ping_after: Duration::from_millis(60),
            dead_after: Duration::from_millis(200),
            handshake: Duration::from_millis(100),
            ..secret()
        };
        with_server(settings, |business, address| async move {
            let mut relay = Relay::join(address, b"s3cret").await;
            for nonce in 1..8 {
                assert_eq!(relay.text().await, format!("Ping {{ nonce: {nonce} }}"));
                relay.send(&ToBusiness::Pong { nonce }).await;
            }
            let mut pings = 0;
            while relay.text().await.starts_with("Ping") {
                pings += 1;
            }
            assert!((1..=3).contains(&pings), "{pings} pings before it was given up");
            while business.relays() > 0 {
                Timer::after(Duration::from_millis(5)).await;
            }
            let mut mute = Relay::connect(address).await;
            mute.challenge().await;
            assert_eq!(mute.text().await, "closed", "no Hello in time");
        });
    }

    #[test]
    fn a_relay_that_does_not_read_is_cut_off() {
        let settings = Settings { out_size_max: 4 << 20, ..secret() };
        with_server(settings, |business, address| async move {
            let mut relay = Relay::join(address, b"s3cret").await;
            relay.subscribe(1, "good", None).await;
            assert_eq!(relay.text().await, "accept 1 topic 5 epoch 70");
            let chunk = vec![0; 512 * 1024];
            business.publish(5, Track::Video, Kind::Init("video/x".into()), vec![]).unwrap();
            let mut published = 0;
            while business.relays() > 0 {
                business.publish(5, Track::Video, Kind::Start, chunk.clone()).unwrap();
                published += 1;
                Timer::after(Duration::from_millis(2)).await;
            }
            assert!((8..200).contains(&published), "{published}");
        });
    }
}
