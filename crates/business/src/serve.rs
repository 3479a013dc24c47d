//! The shell: a business server on sockets, on one thread of a smol executor.
//!
//! Usage: create a [`Server`], [`open`](Server::open) topics, [`allow`](Server::allow) links, run
//! [`serve`](Server::serve), and publish. Events of relays and pages are received from
//! [`events`](Server::events). Every other call is short and never waits. Owns the listener's
//! tasks, three for each relay: one reads, one writes, one handles timeouts; the first to end ends
//! the connection.

use core::{cell::RefCell, time::Duration};
use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    time::Instant,
};

use futures_lite::FutureExt as _;
use smol::{Async, LocalExecutor, Timer, channel};
use wire::{
    Track,
    page::MessageId,
    uplink::{Grant, Part, marked},
};

use super::line::Line;
use super::{Business, Ended, Event, Links, NotOpen, PublishError, RelayId, Settings, Topic};

/// The capacity of the event queue; more events are dropped.
const EVENTS_MAX: usize = 1024;
/// Frames are gathered into one write of at least this size, in bytes, if there are enough.
const WRITE_SIZE: usize = 64 * 1024;
/// The size of the read buffer, in bytes; relays send little.
const READ_SIZE: usize = 16 * 1024;
/// A placeholder: the machine has already reported why.
const GIVEN_UP: &str = "it was given up";
/// The pause after a failed accept, so that the loop doesn't spin.
const REST: Duration = Duration::from_millis(100);

/// A business server that knows its links in advance.
pub struct Server {
    business: RefCell<Business>,
    links: RefCell<Links>,
    /// The reason for denying an unknown link (at most 256 bytes).
    unknown_link: String,
    events: (channel::Sender<Event>, channel::Receiver<Event>),
    /// Wakes each relay's writer.
    wakeups: RefCell<BTreeMap<RelayId, channel::Sender<()>>>,
    start: Instant,
}

impl Server {
    /// A business server without topics and links. `unknown_link` is the reason shown to viewers of
    /// an unknown link.
    #[must_use]
    pub fn new(settings: Settings, unknown_link: &str) -> Rc<Self> {
        Rc::new(Self {
            business: RefCell::new(Business::new(settings)),
            links: RefCell::default(),
            unknown_link: unknown_link.to_owned(),
            events: channel::bounded(EVENTS_MAX),
            wakeups: RefCell::default(),
            start: now(),
        })
    }

    /// Accepts relays until dropped, which ends every connection.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn serve(self: Rc<Self>, listener: Async<TcpListener>) -> io::Result<()> {
        self.accept(listener, |stream| Ok(Line::plain(stream))).await
    }

    /// The same with TLS; see [`tls::config`](super::tls::config).
    ///
    /// # Errors
    /// The listener failed.
    #[cfg(feature = "tls")]
    pub async fn serve_tls(
        self: Rc<Self>,
        listener: Async<TcpListener>,
        config: std::sync::Arc<rustls::ServerConfig>,
    ) -> io::Result<()> {
        self.accept(listener, |stream| Line::tls(stream, std::sync::Arc::clone(&config))).await
    }

    async fn accept(
        self: Rc<Self>,
        listener: Async<TcpListener>,
        line: impl Fn(Async<TcpStream>) -> io::Result<Line>,
    ) -> io::Result<()> {
        let connections = LocalExecutor::new();
        let accepting = async {
            loop {
                match listener.accept().await {
                    Ok((stream, address)) => {
                        // A small frame must not wait for the acknowledgement of the previous one.
                        let _ = stream.get_ref().set_nodelay(true);
                        match line(stream) {
                            Ok(line) => connections.spawn(Rc::clone(&self).attend(line, address)).detach(),
                            Err(error) => log::warn!("business server: a relay could not be accepted: {error}"),
                        }
                    }
                    // Out of file descriptors, or the peer disconnected before it was accepted:
                    // continue.
                    Err(error) => {
                        log::warn!("business server: a relay could not be accepted: {error}");
                        Timer::after(REST).await;
                    }
                }
            }
        };
        connections.run(accepting).await
    }

    /// The events of relays and pages. Each event goes to one receiver; if the queue is full, new
    /// events are dropped.
    #[must_use]
    pub fn events(&self) -> channel::Receiver<Event> {
        self.events.1.clone()
    }

    /// See [`Business::set_secrets`].
    pub fn set_secrets(&self, secrets: Vec<Vec<u8>>) {
        self.change(|business| business.set_secrets(secrets));
    }

    /// See [`Business::open`].
    #[must_use]
    pub fn open(&self, topic: u32, epoch: u64) -> bool {
        self.change(|business| business.open(topic, epoch))
    }

    /// See [`Links::allow`].
    #[must_use]
    pub fn allow(&self, link: &str, topic: u32, grant: Grant) -> bool {
        self.links.borrow_mut().allow(link, topic, grant)
    }

    /// Revokes a share link: ends the subscriptions made with it, and denies it from now on.
    pub fn revoke(&self, link: &str, reason: &str) {
        self.links.borrow_mut().forget(link);
        self.change(|business| business.revoke(link, reason));
    }

    /// See [`Business::publish`].
    ///
    /// # Errors
    /// See [`PublishError`]; nothing was sent.
    pub fn publish(&self, topic: u32, track: Track, part: Part<'_>, data: &[u8]) -> Result<u64, PublishError> {
        self.change(|business| business.publish(topic, track, part, data))
    }

    /// See [`Business::end`].
    pub fn end(&self, topic: u32, reason: &str) {
        self.change(|business| business.end(topic, reason));
    }

    /// See [`Business::forget`].
    pub fn forget(&self, topic: u32, reason: &str) {
        self.change(|business| business.forget(topic, reason));
    }

    /// See [`Business::kick`].
    pub fn kick(&self, relay: RelayId, page: u32, reason: &str) {
        self.change(|business| business.kick(relay, page, reason));
    }

    /// See [`Business::confirm`].
    pub fn confirm(&self, topic: u32, id: &MessageId) {
        self.change(|business| business.confirm(topic, id));
    }

    /// See [`Business::forget_message`].
    pub fn forget_message(&self, topic: u32, id: &MessageId) {
        self.change(|business| business.forget_message(topic, id));
    }

    /// Reads an open topic. `read` must not call the server.
    pub fn with_topic<R>(&self, topic: u32, read: impl FnOnce(&Topic) -> R) -> Option<R> {
        self.business.borrow().topic(topic).map(read)
    }

    /// The number of pages of a topic, over all relays.
    #[must_use]
    pub fn audience(&self, topic: u32) -> u64 {
        self.business.borrow().audience(topic)
    }

    /// The number of authenticated relays.
    #[must_use]
    pub fn relays(&self) -> usize {
        self.business.borrow().relays()
    }

    /// Changes the machine, then drains it: answers requests, forwards events, wakes writers.
    fn change<R>(&self, change: impl FnOnce(&mut Business) -> R) -> R {
        let mut business = self.business.borrow_mut();
        let result = change(&mut business);
        while let Some(event) = business.poll_event() {
            if let Event::Asked { relay, request, link, since, .. } = &event {
                let found = self.links.borrow().find(link);
                let answer = found.map_or(Err(NotOpen::Unknown), |row| business.accept(*relay, *request, row, *since));
                match answer {
                    Ok(()) => {}
                    Err(NotOpen::Ended(reason)) => business.deny(*relay, *request, &reason),
                    Err(NotOpen::Unknown) => business.deny(*relay, *request, &self.unknown_link),
                }
            }
            match &event {
                Event::RelayUp { name, .. } => log::info!("business server: relay {name:?} connected"),
                Event::RelayDown { name, why, .. } if name.is_empty() => {
                    log::warn!("business server: rejected a connection: {why}");
                }
                Event::RelayDown { name, why, .. } => log::info!("business server: relay {name:?} is gone: {why}"),
                _ => {}
            }
            // If nobody receives events, they are dropped, page messages first; relays are served
            // in any case. Connections that never authenticated are not reported.
            let is_lesser = matches!(event, Event::PageMessage { .. }) && self.events.0.len() >= EVENTS_MAX / 2;
            let is_stranger = matches!(&event, Event::RelayDown { name, .. } if name.is_empty());
            let message = match &event {
                Event::PageMessage { topic, id, .. } => id.map(|id| (*topic, id)),
                _ => None,
            };
            let is_told = is_stranger || (!is_lesser && self.events.0.try_send(event).is_ok());
            if let (false, Some((topic, id))) = (is_told, message) {
                business.forget_message(topic, &id);
            }
        }
        let wakeups = self.wakeups.borrow();
        while let Some(ready) = business.poll_ready() {
            let _ = wakeups.get(&ready).map(|wakeup| wakeup.try_send(()));
        }
        result
    }

    /// Serves one relay's connection until it ends.
    async fn attend(self: Rc<Self>, line: Line, address: SocketAddr) {
        let mut random = [0; 12];
        if let Err(error) = getrandom::fill(&mut random) {
            return log::error!("business server: can't get random bytes, so a relay was refused: {error}");
        }
        let relay = self.business.borrow_mut().connect(self.now(), marked(random));
        let (wakeup, woken) = channel::bounded(1);
        self.wakeups.borrow_mut().insert(relay, wakeup);
        // Also runs if the future of `serve` is dropped.
        let _leaves = Leaves { server: &self, relay };
        log::debug!("business server: connection {relay} from {address}");
        // Wakes the writer for the challenge.
        self.change(|_| ());
        let ended = self.read(relay, &line).or(self.write(relay, &line, &woken)).or(self.watch(relay)).await;
        self.change(|business| business.disconnect(relay, Ended::Closed(ended)));
    }

    async fn read(&self, relay: RelayId, line: &Line) -> String {
        let mut bytes = vec![0; READ_SIZE];
        loop {
            let size = match line.read(&mut bytes).await {
                Ok(0) => return "it closed the connection".to_owned(),
                Ok(size) => size,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return error.to_string(),
            };
            let now = self.now();
            if !self.change(|business| business.received(now, relay, bytes.get(..size).unwrap_or_default())) {
                return GIVEN_UP.to_owned();
            }
            // Yield to other tasks between reads.
            smol::future::yield_now().await;
        }
    }

    async fn write(&self, relay: RelayId, line: &Line, woken: &channel::Receiver<()>) -> String {
        let (mut frames, mut bytes) = (Vec::new(), Vec::new());
        loop {
            if !self.business.borrow_mut().take(relay, WRITE_SIZE, &mut frames) {
                return GIVEN_UP.to_owned();
            }
            frames.drain(..).for_each(|frame| bytes.extend_from_slice(&frame));
            if bytes.is_empty() {
                let _ = woken.recv().await;
            } else if let Err(why) = self.write_all(relay, line, &bytes, woken).await {
                return why;
            }
            bytes.clear();
            // Don't keep the capacity of a large chunk forever.
            bytes.shrink_to(4 * WRITE_SIZE);
        }
    }

    async fn write_all(
        &self,
        relay: RelayId,
        line: &Line,
        mut bytes: &[u8],
        woken: &channel::Receiver<()>,
    ) -> Result<(), String> {
        let mut had_to_wait = false;
        loop {
            let written = if bytes.is_empty() { line.flush().map(|()| 0) } else { line.write(bytes) };
            match written {
                Ok(_) if bytes.is_empty() => return Ok(()),
                Ok(size) => {
                    bytes = bytes.get(size..).unwrap_or_default();
                    if core::mem::take(&mut had_to_wait) {
                        let now = self.now();
                        self.business.borrow_mut().took(now, relay);
                    }
                    // Yield to other tasks, however much is pending.
                    smol::future::yield_now().await;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    had_to_wait = true;
                    let is_writable = async { line.writable().await.map_err(|error| error.to_string()) };
                    // The relay may have been disconnected by the machine.
                    let is_woken = async {
                        let _ = woken.recv().await;
                        Ok(())
                    };
                    is_writable.or(is_woken).await?;
                    if self.business.borrow().deadline(relay).is_none() {
                        return Err(GIVEN_UP.to_owned());
                    }
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    async fn watch(&self, relay: RelayId) -> String {
        loop {
            let Some(deadline) = self.business.borrow().deadline(relay) else { return GIVEN_UP.to_owned() };
            match self.start.checked_add(deadline) {
                Some(at) => drop(Timer::at(at).await),
                None => drop(Timer::never().await),
            }
            let now = self.now();
            self.change(|business| business.handle_timeout(now, relay));
        }
    }

    /// The time since the start.
    fn now(&self) -> Duration {
        now().duration_since(self.start)
    }
}

/// Removes the connection when dropped, however it ends.
struct Leaves<'a> {
    server: &'a Server,
    relay: RelayId,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.server.wakeups.borrow_mut().remove(&self.relay);
        // Does nothing if it has already ended.
        self.server
            .change(|business| business.disconnect(self.relay, Ended::Closed("the server has stopped".to_owned())));
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock of the shell")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::{Limits, Times};
    use wire::uplink::{
        Deframer, Incoming, PageInfo, ToBusiness, ToRelay, VERSION, business_proof, encode, relay_proof,
    };

    const GRANT: Grant = Grant { shared: true, ttl_s: 60, page_messages: true, replay: 2 };
    const SECRET: &[u8] = b"s3cret";

    /// A relay played by the test.
    struct Peer {
        stream: Async<TcpStream>,
        deframer: Deframer,
    }

    impl Peer {
        /// Connects and completes the handshake; checks the server's proof.
        async fn join(address: SocketAddr) -> Self {
            Self::join_with(address, SECRET).await.unwrap()
        }

        /// The same with this secret; `None` if the server closes the connection.
        async fn join_with(address: SocketAddr, secret: &[u8]) -> Option<Self> {
            let stream = Async::<TcpStream>::connect(address).await.unwrap();
            let mut peer = Self { stream, deframer: Deframer::new(1 << 20) };
            let challenge = peer.reads(|frame| match frame {
                ToRelay::Challenge { version: VERSION, nonce } => *nonce,
                other => panic!("{other:?}"),
            });
            let challenge = challenge.await.unwrap();
            let nonce = [7; 16];
            let proof = relay_proof(secret, &challenge, &nonce);
            peer.sends(&ToBusiness::Hello { version: VERSION, relay: "by hand", nonce, proof }).await;
            let own = business_proof(secret, &nonce, &challenge);
            let is_right = |frame: &ToRelay<'_>| matches!(frame, ToRelay::Welcome { proof, .. } if *proof == own);
            assert!(peer.reads(is_right).await?, "the server's proof is of another secret");
            Some(peer)
        }

        async fn sends(&self, frame: &ToBusiness<'_>) {
            let mut bytes = [0; 1024];
            let size = encode(frame, &mut bytes).unwrap();
            (&self.stream).write_all(&bytes[..size]).await.unwrap();
        }

        async fn requests(&self, request: u32, link: &str) {
            self.sends(&ToBusiness::Subscribe { request, link, since: None, page: PageInfo::default() }).await;
        }

        /// The next frame, or `None` if the connection ends.
        async fn reads<R>(&mut self, read: impl FnOnce(&ToRelay<'_>) -> R) -> Option<R> {
            loop {
                if let Some(Incoming::Frame(frame)) = self.deframer.next_frame().unwrap() {
                    return Some(read(&frame));
                }
                match (&self.stream).read(self.deframer.space()).await {
                    Ok(size @ 1..) => self.deframer.filled(size),
                    _ => return None,
                }
            }
        }

        /// The next frame's name, with the sequence of a publication.
        async fn name(&mut self) -> String {
            let name = self.reads(|frame| match frame {
                ToRelay::Publish { sequence, .. } => format!("Publish {sequence}"),
                ToRelay::Deny { reason, .. } => format!("Deny {reason}"),
                frame => frame.name().to_owned(),
            });
            name.await.unwrap_or_else(|| "closed".to_owned())
        }
    }

    /// Runs a server with one topic while `test` plays relays.
    fn with_server<F: Future<Output = ()>>(settings: Settings, test: impl FnOnce(Rc<Server>, SocketAddr) -> F) {
        with_served(settings, async |server, listener| server.serve(listener).await, test);
    }

    fn with_served<F: Future<Output = ()>>(
        settings: Settings,
        serve: impl AsyncFnOnce(Rc<Server>, Async<TcpListener>) -> io::Result<()>,
        test: impl FnOnce(Rc<Server>, SocketAddr) -> F,
    ) {
        let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
        let address = listener.get_ref().local_addr().unwrap();
        let server = Server::new(Settings { secrets: vec![SECRET.to_vec()], ..settings }, "no such link");
        assert!(server.open(5, 70));
        assert!(server.allow("good", 5, GRANT) && !server.allow("no link", 5, GRANT));
        let served = Rc::clone(&server);
        let serve = async {
            serve(served, listener).await.unwrap();
        };
        let late = async {
            Timer::after(Duration::from_secs(20)).await;
            panic!("the test hangs");
        };
        smol::block_on(test(Rc::clone(&server), address).or(serve).or(late));
    }

    #[test]
    fn a_relay_is_served_from_its_first_byte_to_its_last() {
        with_server(Settings::default(), |server, address| async move {
            let events = server.events();
            let mut relay = Peer::join(address).await;
            relay.requests(1, "good").await;
            assert_eq!(relay.name().await, "Accept");
            assert_eq!(server.publish(5, Track::Messages, Part::Whole, b"1"), Ok(1));
            assert_eq!(relay.name().await, "Publish 1");
            relay.requests(2, "bad").await;
            assert_eq!(relay.name().await, "Deny no such link");
            server.end(5, "over");
            assert_eq!(relay.name().await, "End");
            relay.requests(3, "good").await;
            assert_eq!(relay.name().await, "Deny over");
            server.revoke("good", "");
            assert_eq!(relay.name().await, "Revoke");
            relay.requests(4, "good").await;
            assert_eq!(relay.name().await, "Deny no such link");
            drop(relay);
            while !matches!(events.recv().await.unwrap(), Event::RelayDown { .. }) {}
            assert!(server.relays() == 0 && server.wakeups.borrow().is_empty());
        });
    }

    #[test]
    fn relays_change_to_the_next_secret_one_after_the_other_and_nobody_is_cut_off() {
        with_server(Settings::default(), |server, address| async move {
            let next: &[u8] = b"the next one";
            server.set_secrets(vec![SECRET.to_vec(), next.to_vec()]);
            let mut old = Peer::join(address).await;
            let mut new = Peer::join_with(address, next).await.unwrap();
            for other in [&b"a third one"[..], b""] {
                assert!(Peer::join_with(address, other).await.is_none());
            }
            assert_eq!(server.relays(), 2);
            server.set_secrets(vec![next.to_vec()]);
            for relay in [&mut old, &mut new] {
                relay.requests(1, "good").await;
                assert_eq!(relay.name().await, "Accept", "a relay that is connected stays");
            }
            assert!(Peer::join_with(address, SECRET).await.is_none());
            assert!(Peer::join_with(address, next).await.is_some());
            server.set_secrets(Vec::new());
            assert!(Peer::join_with(address, next).await.is_none() && Peer::join_with(address, b"").await.is_none());
        });
    }

    #[test]
    fn a_relay_that_does_not_read_costs_nobody_anything_and_goes_on_with_what_is_new() {
        let settings =
            Settings { limits: Limits { media_size_max: 2 << 20, ..Limits::default() }, ..Settings::default() };
        with_server(settings, |server, address| async move {
            let (mut slow, mut quick) = (Peer::join(address).await, Peer::join(address).await);
            for relay in [&mut slow, &mut quick] {
                relay.requests(1, "good").await;
                assert_eq!(relay.name().await, "Accept");
            }
            server.publish(5, Track::Video, Part::Init { mime: "video/x" }, b"").unwrap();
            assert_eq!(quick.name().await, "Publish 1");
            let chunk = vec![0; 512 * 1024];
            for sequence in 2..=100 {
                server.publish(5, Track::Video, Part::Start, &chunk).unwrap();
                assert_eq!(quick.name().await, format!("Publish {sequence}"));
            }
            let mut seen = vec![slow.name().await];
            while seen.last().is_none_or(|last| last != "Publish 100") {
                seen.push(slow.name().await);
            }
            assert!((4..60).contains(&seen.len()), "{seen:?}");
        });
    }

    #[test]
    fn a_server_that_stops_has_no_relays_and_may_serve_again() {
        let server = Server::new(Settings { secrets: vec![SECRET.to_vec()], ..Settings::default() }, "");
        for _ in 0..2 {
            let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
            let address = listener.get_ref().local_addr().unwrap();
            let join = async {
                let _relay = Peer::join(address).await;
                assert_eq!(server.relays(), 1);
            };
            let serve = async {
                Rc::clone(&server).serve(listener).await.unwrap();
            };
            smol::block_on(join.or(serve));
            assert!(server.relays() == 0 && server.wakeups.borrow().is_empty());
        }
    }

    #[test]
    fn a_silent_relay_is_given_up() {
        let times = Times {
            handshake: Duration::from_millis(100),
            ping_after: Duration::from_millis(50),
            dead_after: Duration::from_millis(400),
        };
        with_server(Settings { times, ..Settings::default() }, |server, address| async move {
            let mut mute = Async::<TcpStream>::connect(address).await.unwrap();
            let mut relay = Peer::join(address).await;
            assert_eq!(relay.name().await, "Ping");
            while relay.name().await == "Ping" {}
            assert_eq!(server.relays(), 0);
            let mut challenge = Vec::new();
            mute.read_to_end(&mut challenge).await.unwrap();
            assert!(!challenge.is_empty(), "and then nothing, but the end");
        });
    }

    /// Relays with TLS, played by rustls on threads of their own.
    #[cfg(feature = "tls")]
    mod with_tls {
        use std::io::{Read as _, Write as _};
        use std::path::{Path, PathBuf};
        use std::process::Command;
        use std::sync::Arc;

        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};

        use super::*;

        /// A directory with a CA, a server's certificate and a relay's, removed when dropped.
        struct Folder(PathBuf);

        impl Folder {
            fn new(test: &str) -> Self {
                let folder =
                    Self(std::env::temp_dir().join(format!("sharelinkd-business-{test}-{}", std::process::id())));
                // A killed process with this number may have left it.
                let _ = std::fs::remove_dir_all(&folder.0);
                std::fs::create_dir(&folder.0).unwrap();
                let ec = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
                for ca in ["ca", "other"] {
                    folder.openssl(&format!("req -x509 {ec} -keyout {ca}.key -out {ca}.pem -days 9 -subj /CN={ca}"));
                }
                std::fs::write(
                    folder.0.join("extensions"),
                    "basicConstraints=CA:FALSE\nsubjectAltName=DNS:b.example\n",
                )
                .unwrap();
                for (name, ca) in [("business", "ca"), ("box", "ca"), ("stranger", "other")] {
                    folder.openssl(&format!("req -new {ec} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
                    folder.openssl(&format!(
                        "x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -days 9 -extfile extensions -out {name}.pem"
                    ));
                }
                folder
            }

            fn openssl(&self, line: &str) {
                let done = Command::new("openssl").current_dir(&self.0).args(line.split(' ')).output().unwrap();
                assert!(done.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&done.stderr));
            }

            fn text(&self, file: &str) -> Vec<u8> {
                std::fs::read(self.0.join(file)).unwrap()
            }

            fn server(&self) -> Arc<rustls::ServerConfig> {
                let text = |file| self.text(file);
                crate::tls::config(&text("business.pem"), &text("business.key"), Some(&text("ca.pem"))).unwrap()
            }
        }

        impl Drop for Folder {
            fn drop(&mut self) {
                let _ = std::fs::remove_dir_all(&self.0);
            }
        }

        /// A relay that blocks, with this certificate.
        struct Peer {
            stream: rustls::StreamOwned<rustls::ClientConnection, TcpStream>,
            deframer: Deframer,
        }

        impl Peer {
            fn new(folder: &Path, certificate: Option<&str>, address: SocketAddr) -> Self {
                let file = |name: &str| folder.join(name);
                let mut roots = rustls::RootCertStore::empty();
                roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
                let config =
                    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                        .with_safe_default_protocol_versions()
                        .unwrap()
                        .with_root_certificates(roots);
                let config = match certificate {
                    Some(name) => {
                        let chain = vec![CertificateDer::from_pem_file(file(&format!("{name}.pem"))).unwrap()];
                        let key = PrivateKeyDer::from_pem_file(file(&format!("{name}.key"))).unwrap();
                        config.with_client_auth_cert(chain, key).unwrap()
                    }
                    None => config.with_no_client_auth(),
                };
                let name = "b.example".try_into().unwrap();
                let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
                let stream = rustls::StreamOwned::new(connection, TcpStream::connect(address).unwrap());
                Self { stream, deframer: Deframer::new(1 << 20) }
            }

            fn reads<R>(&mut self, read: impl FnOnce(&ToRelay<'_>) -> R) -> io::Result<R> {
                loop {
                    if let Some(Incoming::Frame(frame)) = self.deframer.next_frame().unwrap() {
                        return Ok(read(&frame));
                    }
                    match self.stream.read(self.deframer.space())? {
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        size => self.deframer.filled(size),
                    }
                }
            }

            fn sends(&mut self, frame: &ToBusiness<'_>) {
                let mut bytes = [0; 1024];
                let size = encode(frame, &mut bytes).unwrap();
                self.stream.write_all(&bytes[..size]).unwrap();
            }

            /// The handshake inside TLS.
            fn join(&mut self) -> io::Result<()> {
                let challenge = self.reads(|frame| match frame {
                    ToRelay::Challenge { nonce, .. } => *nonce,
                    other => panic!("{other:?}"),
                })?;
                let proof = relay_proof(SECRET, &challenge, &[7; 16]);
                self.sends(&ToBusiness::Hello { version: VERSION, relay: "by hand", nonce: [7; 16], proof });
                self.reads(|frame| assert!(matches!(frame, ToRelay::Welcome { .. })))
            }
        }

        #[test]
        fn a_relay_with_a_certificate_of_the_ca_is_served_and_no_other() {
            let folder = Folder::new("served");
            let config = folder.server();
            let path = folder.0.clone();
            with_served(
                Settings::default(),
                async |server, listener| server.serve_tls(listener, config).await,
                |server, address| async move {
                    let refused = smol::unblock({
                        let path = path.clone();
                        move || {
                            [None, Some("stranger")]
                                .map(|own| Peer::new(&path, own, address).join().unwrap_err().to_string())
                        }
                    });
                    let [missing, stranger] = refused.await;
                    assert!(
                        missing.contains("CertificateRequired") && stranger.contains("UnknownCA"),
                        "{missing}, {stranger}"
                    );
                    assert_eq!(server.relays(), 0);
                    let peer = smol::unblock(move || {
                        let mut peer = Peer::new(&path, Some("box"), address);
                        peer.join().unwrap();
                        peer.sends(&ToBusiness::Subscribe {
                            request: 1,
                            link: "good",
                            since: None,
                            page: PageInfo::default(),
                        });
                        peer.reads(|frame| assert!(matches!(frame, ToRelay::Accept { request: 1, .. }))).unwrap();
                        peer
                    });
                    let mut peer = peer.await;
                    assert_eq!(server.relays(), 1);
                    // More than all buffers on the way hold, in one direction; then the other one.
                    let data = format!("\"{}\"", "x".repeat(20_000));
                    let publish = async {
                        for sequence in 1..=400 {
                            assert_eq!(server.publish(5, Track::State, Part::Whole, data.as_bytes()), Ok(sequence));
                            smol::future::yield_now().await;
                        }
                    };
                    let read = smol::unblock(move || {
                        let mut last = 0;
                        while last < 400 {
                            let next = peer.reads(|frame| match frame {
                                ToRelay::Publish { sequence, data, .. } => (*sequence, data.len()),
                                other => panic!("{other:?}"),
                            });
                            let (sequence, size) = next.unwrap();
                            assert!(sequence > last && size == 20_002);
                            last = sequence;
                        }
                        peer.sends(&ToBusiness::Ping { nonce: 9 });
                        peer.reads(|frame| assert!(matches!(frame, ToRelay::Pong { nonce: 9 }))).unwrap();
                        peer.stream.conn.send_close_notify();
                        peer.stream.flush().unwrap();
                        peer
                    });
                    let (_, peer) = smol::future::zip(publish, read).await;
                    while server.relays() > 0 {
                        Timer::after(Duration::from_millis(5)).await;
                    }
                    drop(peer);
                },
            );
        }

        #[test]
        fn what_is_no_certificate_or_key_is_refused() {
            let folder = Folder::new("refused");
            let [chain, key, ca, other] =
                ["business.pem", "business.key", "ca.pem", "box.key"].map(|file| folder.text(file));
            assert!(crate::tls::config(&chain, &key, None).is_ok());
            assert!(crate::tls::config(&chain, &other, None).is_err(), "another's key");
            assert!(crate::tls::config(&key, &key, None).is_err() && crate::tls::config(&chain, &chain, None).is_err());
            assert!(
                crate::tls::config(&chain, &key, Some(b"")).is_err()
                    && crate::tls::config(&chain, &key, Some(&ca)).is_ok()
            );
        }
    }
}
