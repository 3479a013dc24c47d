//! One page of the soak: it connects, behaves well or badly in its own way, leaves, and comes back.
//!
//! Owns the socket and the incomplete frame. `view.rs` checks the frames' contents. Each call
//! returns when the page acts next. It is an error if the relay closes a well-behaved page for
//! misbehaving.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use relay::time::Jitter;
use sharelinkd::bench::tls::Client;
use sharelinkd::config::Pin;
use socket2::{Domain, SockRef, Socket, Type};

use super::business::ROOMS;
use super::line::{Line, Read};
use super::view::{self, Ask, Closed, Notice, Seen, Views};

/// How a page behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Reads everything at once.
    Steady,
    /// The same, and never leaves on its own.
    Resident,
    /// Reads this many bytes each second, in a hot topic.
    Slow(usize),
    /// Reads nothing for a while, then everything, in a hot topic.
    Stopping,
    /// Sends invalid frames.
    Garbage,
    /// Sends its request head at one byte a second.
    HalfHead,
    /// Subscribes to nothing.
    Mute,
    /// Disconnects before the upgrade is answered.
    Hasty,
    /// Sends another HTTP request.
    Web,
}

/// The connection's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Away,
    Connecting,
    /// TLS shakes hands.
    Shaking,
    /// The request head was sent and not answered yet.
    Upgrading,
    Open,
    /// The page began to close the connection.
    Leaving,
}

/// Counters over all pages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub connected: u64,
    pub upgraded: u64,
    pub refused: u64,
    pub left: u64,
    pub subscribed: u64,
    pub resumed: u64,
    pub denied: u64,
    pub ended: u64,
    pub closed_by_relay: u64,
    pub cut: u64,
    pub kicked: u64,
    pub garbage: u64,
    pub silence_ms_max: u64,
    pub seen: Seen,
}

/// What a page shares with the others.
pub struct World<'a> {
    pub relay: SocketAddr,
    /// For pages that connect by TLS.
    pub tls: Option<&'a Client>,
    /// The keys that the relay has shown.
    pub shown: &'a mut Vec<Pin>,
    pub now: Instant,
    pub jitter: &'a mut Jitter,
    pub closed: &'a Closed,
    pub tally: &'a mut Tally,
    pub buffer: &'a mut Vec<u8>,
    pub room: &'a mut Vec<u8>,
    /// Mean duration of a stay, seconds.
    pub stay_s: u64,
    pub is_quiet: bool,
    /// First number of the short-lived links that are current.
    pub brief: u32,
}

/// A page.
pub struct Page {
    pub manner: Manner,
    pub stream: Option<TcpStream>,
    /// Counts its connections.
    pub visit: u32,
    pub views: Views,
    stage: Stage,
    number: u32,
    line: Line,
    carry: Vec<u8>,
    out: Vec<u8>,
    wanted: Vec<Ask>,
    /// Links to subscribe to again, and when.
    again: Vec<(Instant, String)>,
    /// Its positions at the end of the last visit: link, epoch, next message.
    stood: Vec<(String, u64, u64)>,
    next_id: u32,
    leaves_at: Instant,
    heard_at: Instant,
    changed_at: Instant,
    sends_at: Instant,
    stops: bool,
    offences: u32,
}

/// Timeout for the relay, generous for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Residents in hot topics.
const HOT_RESIDENTS: u32 = 16;
/// Interval of a page that acts by timer.
const STEP: Duration = Duration::from_secs(1);

impl Page {
    pub fn new(number: u32, manner: Manner, now: Instant) -> Self {
        let is_fast = matches!(manner, Manner::Steady | Manner::Resident);
        Self {
            manner,
            stream: None,
            visit: 0,
            views: Views::new(is_fast),
            stage: Stage::Away,
            number,
            line: Line::default(),
            carry: Vec::new(),
            out: Vec::new(),
            wanted: Vec::new(),
            again: Vec::new(),
            stood: Vec::new(),
            next_id: 0,
            leaves_at: now,
            heard_at: now,
            changed_at: now,
            sends_at: now,
            stops: false,
            offences: 0,
        }
    }

    /// Whether it reads when its socket is readable, rather than by timer.
    pub fn listens(&self) -> bool {
        !matches!(self.manner, Manner::Slow(_) | Manner::Stopping) || self.stage != Stage::Open
    }

    /// Whether its connection is in progress.
    pub fn connects(&self) -> bool {
        self.stage == Stage::Connecting
    }

    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether it is connected, reads everything, and has no unanswered request.
    pub fn is_settled(&self) -> bool {
        self.is_open() && self.views.is_fast && self.views.asks.is_empty() && self.again.is_empty()
    }

    /// Acts on its timer; returns when it is next due.
    pub fn act(&mut self, world: &mut World<'_>) -> Result<Instant, String> {
        let now = world.now;
        match self.stage {
            Stage::Away if world.is_quiet => return Ok(now + PATIENCE),
            Stage::Away => self.connect(world)?,
            Stage::Connecting | Stage::Shaking | Stage::Upgrading if now > self.changed_at + PATIENCE => {
                return Err(format!("{:?}: no answer to the upgrade within {PATIENCE:?}", self.manner));
            }
            Stage::Leaving if now > self.changed_at + PATIENCE => {
                return Err(format!("{:?}: the closing handshake was not answered within {PATIENCE:?}", self.manner));
            }
            Stage::Connecting | Stage::Shaking | Stage::Upgrading | Stage::Leaving => {
                if self.manner == Manner::HalfHead && self.stage == Stage::Upgrading {
                    self.say(b"x");
                }
            }
            Stage::Open => return self.act_open(world),
        }
        Ok(now + STEP)
    }

    fn act_open(&mut self, world: &mut World<'_>) -> Result<Instant, String> {
        let now = world.now;
        self.flush();
        match self.manner {
            Manner::Slow(size) => self.read(world, size)?,
            Manner::Stopping => {
                // Sometimes longer than the relay tolerates.
                if now > self.changed_at + Duration::from_secs(5 + world.jitter.below(35)) {
                    self.stops = !self.stops;
                    self.changed_at = now;
                }
                if !self.stops {
                    self.read(world, 1 << 20)?;
                }
            }
            Manner::Garbage => self.offend(world),
            _ => {}
        }
        if self.stage != Stage::Open {
            return Ok(now + STEP);
        }
        let due: Vec<_> = self.again.extract_if(.., |again| again.0 <= now).collect();
        for (_, link) in due {
            self.subscribe(&link, None);
        }
        if self.views.is_fast {
            let silence = now.saturating_duration_since(self.heard_at);
            world.tally.silence_ms_max =
                world.tally.silence_ms_max.max(u64::try_from(silence.as_millis()).unwrap_or(u64::MAX));
            if silence > PATIENCE {
                return Err(format!("nothing was received for {silence:?}, not even `alive`"));
            }
        }
        // At the end all stay for the check of the last message, except pages denied for good,
        // which have nothing to wait for.
        let has_nothing = self.views.list.is_empty() && self.views.asks.is_empty() && self.again.is_empty();
        let can_leave = self.manner != Manner::Resident && (!world.is_quiet || has_nothing);
        if can_leave && now >= self.leaves_at {
            return Ok(self.leave(world));
        }
        if self.manner == Manner::Steady && now >= self.sends_at && !world.is_quiet {
            self.sends_at = now + Duration::from_secs(20 + world.jitter.below(80));
            self.chat(world);
        }
        // Pages with errands act each second, the others when something is due.
        if self.listens() && self.again.is_empty() && self.out.is_empty() && self.manner != Manner::Garbage {
            let next = self.leaves_at.min(self.sends_at).min(now + Duration::from_secs(10));
            return Ok(next.max(now + STEP));
        }
        Ok(now + STEP)
    }

    /// Something a page may do besides watching.
    fn chat(&mut self, world: &mut World<'_>) {
        let Some((topic, may_send)) = self.views.list.first().map(|view| (view.topic, view.page_messages)) else {
            return;
        };
        match world.jitter.below(4) {
            0 if may_send => {
                // Some exceed the rate limit.
                for _ in 0..[1, 1, 1, 8][usize::try_from(world.jitter.below(4)).unwrap_or(0)] {
                    let mut id = String::new();
                    if self.views.has_receipts {
                        let (high, low) = (world.jitter.bits(), world.jitter.bits());
                        let digits = format!("{high:016x}{low:016x}");
                        id = format!(r#","id":"{digits}""#);
                        self.views.said.insert(digits);
                    }
                    self.send_text(&format!(r#"{{"type":"send","topic":{topic},"data":"hello of the soak"{id}}}"#));
                }
            }
            1 => self.say_frame(9, b"soak"),
            2 => {
                // The answer is `end`; the page then subscribes to another room.
                self.send_text(&format!(r#"{{"type":"unsubscribe","topic":{topic}}}"#));
            }
            _ => {
                let link = format!("room-{}", 1 + world.jitter.below(u64::from(ROOMS)));
                let has_it = self.views.list.iter().any(|view| view.link == link);
                if !has_it && self.views.list.len() < 2 && self.views.asks.is_empty() {
                    self.subscribe(&link, None);
                }
            }
        }
    }

    fn connect(&mut self, world: &mut World<'_>) -> Result<(), String> {
        let say = |error: std::io::Error| format!("a page's socket: {error}");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(say)?;
        let (high, low) = (1 + self.number / 200 % 50, 1 + self.number % 200);
        let source = Ipv4Addr::from(0x7f00_0000 | high << 8 | low);
        socket.bind(&SocketAddr::from((source, 0)).into()).map_err(say)?;
        if matches!(self.manner, Manner::Slow(_) | Manner::Stopping) {
            socket.set_recv_buffer_size(8_192).map_err(say)?;
        }
        socket.set_tcp_nodelay(true).map_err(say)?;
        socket.set_nonblocking(true).map_err(say)?;
        let _ = socket.connect(&world.relay.into());
        self.stream = Some(socket.into());
        self.visit = self.visit.wrapping_add(1);
        self.views = Views::new(self.views.is_fast);
        self.carry.clear();
        self.out.clear();
        self.again.clear();
        (self.stage, self.changed_at, self.heard_at) = (Stage::Connecting, world.now, world.now);
        (self.next_id, self.stops, self.offences) = (0, false, 0);
        world.tally.connected += 1;
        self.plan(world);
        Ok(())
    }

    /// Chooses the links and the length of the visit.
    fn plan(&mut self, world: &mut World<'_>) {
        let jitter = &mut *world.jitter;
        let mut stay_ms = 1 + jitter.below(2_000 * world.stay_s);
        self.wanted.clear();
        let room = 1 + self.number % ROOMS;
        let want = |link: String, since: Option<(u64, u64)>| Ask { id: 0, link, since };
        let hot = format!("hot-{}", self.number % 4);
        let reads = !matches!(self.manner, Manner::Mute | Manner::Hasty | Manner::Web | Manner::HalfHead);
        if !reads {
            stay_ms += 60_000;
        } else if !self.stood.is_empty() && jitter.below(10) < 7 {
            // Most returning pages resume at their positions.
            let stood = std::mem::take(&mut self.stood);
            self.wanted.extend(stood.into_iter().map(|(link, epoch, next)| want(link, Some((epoch, next)))));
            world.tally.resumed += 1;
        } else if matches!(self.manner, Manner::Slow(_) | Manner::Stopping) {
            self.wanted.push(want(hot, None));
        } else {
            let is_steady = self.manner == Manner::Steady;
            let link = match jitter.below(100) {
                _ if self.manner == Manner::Resident && self.number < HOT_RESIDENTS => hot,
                0..=2 if is_steady => {
                    stay_ms = stay_ms.min(1 + jitter.below(30_000));
                    format!("brief-{}", world.brief + u32::try_from(jitter.below(4)).unwrap_or(0))
                }
                3..=4 => format!("single-{}", 1 + room % 8),
                5 if is_steady => {
                    stay_ms = stay_ms.min(5_000);
                    format!("dead-{}", jitter.below(50))
                }
                6..=15 => format!("also-{room}"),
                _ => format!("room-{room}"),
            };
            self.wanted.push(want(link, None));
            if jitter.below(10) == 0 {
                self.wanted.push(want(format!("room-{}", 1 + (room + 48) % ROOMS), None));
            }
        }
        if matches!(self.manner, Manner::Slow(_) | Manner::Stopping) {
            stay_ms += 60_000;
        }
        self.leaves_at = world.now + Duration::from_millis(stay_ms);
        self.sends_at = world.now + Duration::from_millis(jitter.below(60_000));
    }

    /// The connection attempt has ended.
    pub fn connected(&mut self, world: &mut World<'_>) -> Result<(), String> {
        let Some(stream) = &self.stream else { return Ok(()) };
        if let Ok(Some(error)) | Err(error) = stream.take_error() {
            return Err(format!("a page can't connect: {error}"));
        }
        self.line = Line::begin(world.tls, &mut self.out)?;
        if !self.line.is_shaking() {
            return self.greet(world);
        }
        (self.stage, self.changed_at) = (Stage::Shaking, world.now);
        self.flush();
        if self.manner == Manner::Hasty && world.jitter.below(2) == 0 {
            self.reset();
            self.gone(world, 500, 1_000);
        }
        Ok(())
    }

    /// Sends its request.
    fn greet(&mut self, world: &mut World<'_>) -> Result<(), String> {
        (self.stage, self.changed_at) = (Stage::Upgrading, world.now);
        let host = world.relay;
        let scheme = if world.tls.is_some() { "https" } else { "http" };
        let head = format!(
            "GET /ws HTTP/1.1\r\nHost: {host}\r\nOrigin: {scheme}://{host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: sharelink.v1\r\n\r\n"
        );
        match self.manner {
            Manner::HalfHead => self.say(b"GET /ws HTTP/1.1\r\nX-Half: "),
            Manner::Hasty => {
                let size = usize::try_from(world.jitter.below(head.len() as u64)).unwrap_or(0);
                self.say(head.as_bytes().get(..size).unwrap_or_default());
                self.reset();
                self.gone(world, 500, 1_000);
            }
            Manner::Web => {
                let path = ["/healthz", "/s/room-1", "/sharelink.js", "/nothing"]
                    [usize::try_from(world.jitter.below(4)).unwrap_or(0)];
                self.say(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
            }
            _ => {
                self.say(head.as_bytes());
                for ask in std::mem::take(&mut self.wanted) {
                    self.subscribe(&ask.link, ask.since);
                }
            }
        }
        Ok(())
    }

    fn subscribe(&mut self, link: &str, since: Option<(u64, u64)>) {
        self.next_id += 1;
        let id = self.next_id;
        let since_text = since
            .map_or(String::new(), |(epoch, next)| format!(r#","since":{{"epoch":"{epoch}","next":[0,{next},0,0]}}"#));
        self.views.asks.push(Ask { id, link: link.to_owned(), since });
        self.send_text(&format!(r#"{{"type":"subscribe","id":{id},"link":"{link}"{since_text}}}"#));
    }

    /// Reads at most `size_max` bytes.
    pub fn read(&mut self, world: &mut World<'_>, size_max: usize) -> Result<(), String> {
        let mut left = size_max;
        while left > 0 {
            let Some(stream) = &mut self.stream else { return Ok(()) };
            let room = left.min(world.buffer.len());
            match stream.read(world.buffer.get_mut(..room).unwrap_or_default()) {
                Ok(0) => return self.ended(world),
                Ok(size) => {
                    left -= size;
                    self.heard_at = world.now;
                    let bytes = world.buffer.get_mut(..size).unwrap_or_default();
                    match self.line.take(bytes, &mut self.carry, &mut self.out)? {
                        Read::Open => {}
                        Read::Shaken(pin) => {
                            if !world.shown.contains(&pin) {
                                world.shown.push(pin);
                            }
                            self.greet(world)?;
                        }
                        Read::Closed => {
                            self.take(world)?;
                            return if self.stream.is_some() { self.ended(world) } else { Ok(()) };
                        }
                    }
                    self.flush();
                    self.take(world)?;
                    if size < room {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return self.ended(world),
            }
        }
        Ok(())
    }

    fn take(&mut self, world: &mut World<'_>) -> Result<(), String> {
        if self.stage == Stage::Upgrading && !self.upgraded(world)? {
            return Ok(());
        }
        let mut at = 0;
        let bytes = std::mem::take(&mut self.carry);
        while self.stream.is_some()
            && let Some((opcode, from, to)) = view::frame(bytes.get(at..).unwrap_or_default())?
        {
            let payload = bytes.get(at + from..at + to).unwrap_or_default();
            at += to;
            let notice = self.views.take(opcode, payload, world.closed, &mut world.tally.seen, world.room);
            let notice = notice.map_err(|error| format!("page {} ({:?}): {error}", self.number, self.manner))?;
            self.hear(world, notice)?;
        }
        self.carry = bytes;
        self.carry.drain(..at);
        if self.carry.is_empty() && self.carry.capacity() > 4_096 {
            self.carry = Vec::new();
        }
        Ok(())
    }

    /// Reads the answer to the upgrade; whether the page is open.
    fn upgraded(&mut self, world: &mut World<'_>) -> Result<bool, String> {
        let Some(end) = self.carry.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(false) };
        let head = String::from_utf8_lossy(self.carry.get(..end).unwrap_or_default()).into_owned();
        let status = head.split(' ').nth(1).unwrap_or_default();
        match (self.manner, status) {
            (Manner::Web, "200" | "404") | (Manner::HalfHead, "408" | "400") => {
                self.gone(world, 500, 2_000);
                Ok(false)
            }
            (Manner::Web | Manner::HalfHead, _) => Err(format!("{:?} was answered {head:?}", self.manner)),
            (_, "101") => {
                world.tally.upgraded += 1;
                (self.stage, self.changed_at) = (Stage::Open, world.now);
                self.carry.drain(..end + 4);
                Ok(true)
            }
            (_, "503") => {
                world.tally.refused += 1;
                if !head.contains("Retry-After: ") {
                    return Err(format!("refused without a Retry-After: {head:?}"));
                }
                // Sooner than `Retry-After`, to keep the table full.
                self.gone(world, 500, 4_500);
                Ok(false)
            }
            _ => Err(format!("an upgrade was answered {head:?}")),
        }
    }

    fn hear(&mut self, world: &mut World<'_>, notice: Notice) -> Result<(), String> {
        let soon = |jitter: &mut Jitter| Duration::from_millis(500 + jitter.below(3_000));
        match notice {
            Notice::Nothing => {}
            Notice::Subscribed { .. } => world.tally.subscribed += 1,
            Notice::Denied { retry, .. } => {
                world.tally.denied += 1;
                if self.manner == Manner::Resident || retry.is_some() {
                    let wait =
                        retry.map_or(Duration::from_secs(3), |retry| Duration::from_secs_f64(retry.clamp(0.1, 60.0)));
                    let link = format!("room-{}", 1 + self.number % ROOMS);
                    if !self.views.list.iter().any(|view| view.link == link) {
                        self.again.push((world.now + wait, link));
                    }
                } else if self.views.list.is_empty() && self.views.asks.is_empty() {
                    self.leaves_at = world.now + soon(world.jitter);
                }
            }
            Notice::Ended { link } => {
                world.tally.ended += 1;
                if self.views.list.is_empty() {
                    let is_over = link.starts_with("brief") || world.jitter.below(3) == 0;
                    let again = if is_over { format!("room-{}", 1 + self.number % ROOMS) } else { link };
                    self.again.push((world.now + soon(world.jitter), again));
                }
            }
            Notice::Ping => self.say_frame(10, b""),
            Notice::Close { code, reason } => {
                self.say_frame(8, &code.to_be_bytes());
                return self.closed(world, code, &reason);
            }
        }
        Ok(())
    }

    /// The relay sent a close frame, of its own or as an answer.
    fn closed(&mut self, world: &mut World<'_>, code: u16, reason: &str) -> Result<(), String> {
        let behaves = matches!(self.manner, Manner::Steady | Manner::Resident);
        match code {
            _ if self.stage == Stage::Leaving => world.tally.left += 1,
            1008 if reason == "soak" => world.tally.kicked += 1,
            1012 | 1013 => {
                world.tally.closed_by_relay += 1;
                let retry: Option<f64> = reason.strip_prefix("retry=").and_then(|retry| retry.parse().ok());
                if retry.is_none_or(|retry| !(0.0..3_600.0).contains(&retry)) {
                    return Err(format!("closed with {code} and {reason:?}"));
                }
            }
            _ if behaves => return Err(format!("a well-behaved page was closed with {code}: {reason}")),
            1002 | 1003 | 1007 | 1008 | 1009 => world.tally.garbage += 1,
            _ => return Err(format!("{:?} was closed with {code}: {reason}", self.manner)),
        }
        self.stood();
        // The connection is not read to its end here.
        self.gone(world, 200, 3_000);
        Ok(())
    }

    /// The relay ended the connection without a close frame.
    fn ended(&mut self, world: &mut World<'_>) -> Result<(), String> {
        match (self.manner, self.stage) {
            (Manner::HalfHead | Manner::Web | Manner::Hasty, _) => {}
            (_, Stage::Leaving) => world.tally.left += 1,
            (Manner::Garbage, _) if self.offences > 0 => world.tally.garbage += 1,
            (_, Stage::Shaking | Stage::Upgrading) => {
                return Err(format!("the connection ended while it was {:?}", self.stage));
            }
            _ => world.tally.cut += 1,
        }
        self.stood();
        self.gone(world, 200, 3_000);
        Ok(())
    }

    /// Remembers its position in each topic.
    fn stood(&mut self) {
        self.stood.clear();
        for view in &self.views.list {
            // Not of short-lived links: returning pages would keep them alive.
            if let Some(next) = view.messages.filter(|_| !view.link.starts_with("brief")) {
                self.stood.push((view.link.clone(), view.epoch, next));
            }
        }
    }

    /// Leaves in one of five ways.
    fn leave(&mut self, world: &mut World<'_>) -> Instant {
        self.stood();
        match world.jitter.below(5) {
            0 | 1 if self.views.is_fast => {
                self.say_frame(8, &1000_u16.to_be_bytes());
                (self.stage, self.changed_at) = (Stage::Leaving, world.now);
            }
            2 if self.views.is_fast => {
                if let Some(stream) = &self.stream {
                    let _ = stream.shutdown(Shutdown::Write);
                }
                (self.stage, self.changed_at) = (Stage::Leaving, world.now);
            }
            how => {
                if how == 3 {
                    self.reset();
                }
                world.tally.left += 1;
                self.gone(world, 200, 3_000);
            }
        }
        self.returns_at().unwrap_or(world.now + STEP)
    }

    /// Sends something invalid.
    fn offend(&mut self, world: &mut World<'_>) {
        self.offences += 1;
        match world.jitter.below(8) {
            0 => self.say(b"\x81\x05hello"),
            1 => self.say_frame(3, b"reserved"),
            2 => self.say_frame(2, b"binary"),
            3 => self.send_text("no JSON"),
            4 => self.send_text(r#"{"type":"dance"}"#),
            5 => self.say_frame(1, &[0xff, 0xfe]),
            6 => self.say_frame(1, &[b'x'; 5_000]),
            // An incomplete frame.
            _ => self.say(&[0x81, 0xfe, 0x10, 0x00, 0, 0, 0, 0, b'x']),
        }
    }

    fn reset(&mut self) {
        if let Some(stream) = &self.stream {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Disconnects, to come back after `least_ms` plus a random part of `more_ms`.
    fn gone(&mut self, world: &mut World<'_>, least_ms: u64, more_ms: u64) {
        self.stream = None;
        (self.stage, self.changed_at) =
            (Stage::Away, world.now + Duration::from_millis(least_ms + world.jitter.below(more_ms)));
    }

    /// After a violation: disconnects and forgets its positions.
    pub fn give_up(&mut self, world: &mut World<'_>) {
        self.stood.clear();
        self.gone(world, 3_000, 1_000);
    }

    /// Whether a subscription or a write is pending.
    pub fn has_errands(&self) -> bool {
        !self.again.is_empty() || !self.out.is_empty()
    }

    /// When it comes back, if it is away.
    pub fn returns_at(&self) -> Option<Instant> {
        (self.stage == Stage::Away).then_some(self.changed_at)
    }

    fn send_text(&mut self, text: &str) {
        self.say_frame(1, text.as_bytes());
    }

    /// A frame whose mask is all zero.
    fn say_frame(&mut self, opcode: u8, payload: &[u8]) {
        let mut bytes = vec![0x80 | opcode];
        match u8::try_from(payload.len()).ok().filter(|size| *size < 126) {
            Some(size) => bytes.push(0x80 | size),
            None => {
                bytes.push(0xfe);
                bytes.extend(u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
            }
        }
        bytes.extend([0; 4]);
        bytes.extend(payload);
        self.say(&bytes);
    }

    fn say(&mut self, bytes: &[u8]) {
        if self.line.say(bytes, &mut self.out).is_err() {
            // Shows up in the next read.
            self.reset();
        }
        self.flush();
    }

    /// Writes until the socket is full; the rest stays queued. Errors show up in the next read.
    fn flush(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        while !self.out.is_empty() {
            match stream.write(&self.out) {
                Ok(size) => drop(self.out.drain(..size)),
                Err(_) => break,
            }
        }
        if self.out.is_empty() {
            self.out = Vec::new();
        }
    }
}
