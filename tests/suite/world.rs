//! The environment of a relay under test: a business server and pages, simple and blocking, on real
//! sockets.
//!
//! Every wait ends after [`PATIENCE`] and fails its test.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use async_tungstenite::tungstenite::client::IntoClientRequest;
use async_tungstenite::tungstenite::handshake::client::Request;
use async_tungstenite::tungstenite::{Message, WebSocket, client};
use wire::uplink::{
    Deframer, Grant, ToBusiness, ToRelay, VERSION, business_proof, decode_to_business, encode, relay_proof,
};

/// Timeout of every wait.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The uplink's secret in every test.
pub const SECRET: &str = "a secret of the tests";

/// Write-locked by a test that measures time, read-locked by one that keeps a core busy for a
/// second or more: measurements must not depend on what the harness runs in its other thread.
static MACHINE: RwLock<()> = RwLock::new(());

/// Locks the machine for a test that measures time: no other test loads it until this is dropped.
pub fn quiet_machine() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Locks the machine for a test that loads it: never while another test measures time.
pub fn busy_machine() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// An address for a program that must know its port beforehand. The port is below the kernel's
/// ephemeral range and above the scripts' ports, so that nothing else takes it meanwhile.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = 32_000 + u16::try_from(std::process::id() % 64).unwrap() * 8;
    let mut ports = std::iter::repeat_with(|| begin + NEXT.fetch_add(1, Ordering::Relaxed)).take(200);
    let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    SocketAddr::from(([127, 0, 0, 1], free.expect("a free port")))
}

/// Raises the soft descriptor limit to the hard one: thousands of pages need a descriptor each.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// A page's text frame, with a mask of zeros.
pub fn masked(text: &str) -> Vec<u8> {
    let size = u16::try_from(text.len()).unwrap();
    [&[0x81, 0x80 | 126][..], &size.to_be_bytes(), &[0; 4], text.as_bytes()].concat()
}

/// A business server with one connected relay.
pub struct Business {
    stream: TcpStream,
    deframer: Deframer,
    out: Vec<u8>,
}

impl Business {
    /// Accepts a relay and completes the handshake.
    pub fn meet(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut business = Self { stream, deframer: Deframer::new(64 * 1024), out: vec![0; 2 << 20] };
        let challenge = [7; 16];
        business.send(&ToRelay::Challenge { version: VERSION, nonce: challenge });
        let nonce = business.take(|frame| match frame {
            ToBusiness::Hello { nonce, proof, .. } => {
                assert_eq!(*proof, relay_proof(SECRET.as_bytes(), &challenge, nonce), "the relay's proof");
                Some(*nonce)
            }
            _ => None,
        });
        let proof = business_proof(SECRET.as_bytes(), &nonce, &challenge);
        business.send(&ToRelay::Welcome { version: VERSION, proof });
        business
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &ToRelay<'_>) {
        let size = encode(frame, &mut self.out).expect("the frame fits");
        self.stream.write_all(&self.out[..size]).unwrap();
    }

    /// Sends several frames by one write.
    pub fn send_all<'a>(&mut self, frames: impl Iterator<Item = ToRelay<'a>>) {
        let mut end = 0;
        for frame in frames {
            end += encode(&frame, &mut self.out[end..]).expect("the frames fit");
        }
        self.stream.write_all(&self.out[..end]).unwrap();
    }

    /// Waits for the first frame for which `wanted` returns a value; skips others.
    pub fn take<T>(&mut self, mut wanted: impl FnMut(&ToBusiness<'_>) -> Option<T>) -> T {
        loop {
            while let Some(body) = self.deframer.next_body().unwrap() {
                if let Some(value) = wanted(&decode_to_business(body).unwrap()) {
                    return value;
                }
            }
            let size = self.stream.read(self.deframer.space()).expect("the relay sends something in time");
            assert!(size > 0, "the relay closed the uplink");
            self.deframer.filled(size);
        }
    }

    /// Reads what the relay has sent, without waiting; answers pings, and returns the requests.
    pub fn attend(&mut self) -> Vec<u32> {
        self.stream.set_nonblocking(true).unwrap();
        let read = self.stream.read(self.deframer.space());
        self.stream.set_nonblocking(false).unwrap();
        let Ok(size) = read else { return Vec::new() };
        self.deframer.filled(size);
        let (mut nonces, mut requests) = (Vec::new(), Vec::new());
        while let Some(body) = self.deframer.next_body().unwrap() {
            match decode_to_business(body).unwrap() {
                ToBusiness::Ping { nonce } => nonces.push(nonce),
                ToBusiness::Subscribe { request, .. } => requests.push(request),
                _ => {}
            }
        }
        for nonce in nonces {
            self.send(&ToRelay::Pong { nonce });
        }
        requests
    }

    /// Answers a `Subscribe` with a shared grant.
    pub fn grant(&mut self, request: u32, topic: u32) {
        let grant = Grant { shared: true, ttl_s: 3600, page_messages: true, replay: 50 };
        self.send(&ToRelay::Accept { request, topic, epoch: 1, grant });
    }

    /// Answers the next `Subscribe` with a shared grant.
    pub fn accept(&mut self, topic: u32) {
        let request = self.take(|frame| match frame {
            ToBusiness::Subscribe { request, .. } => Some(*request),
            _ => None,
        });
        self.grant(request, topic);
    }
}

/// A page.
pub type Page = WebSocket<TcpStream>;

/// A request for a page's connection.
pub fn upgrade_request(scheme: &str, address: SocketAddr) -> Request {
    let mut request = format!("{scheme}://{address}/ws").into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", "sharelink.v1".parse().unwrap());
    request
}

/// Connects a page.
pub fn connect(address: SocketAddr) -> Page {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    client(upgrade_request("ws", address), stream).expect("the upgrade").0
}

/// A page's upgrade request, for tests that write their own frames.
pub fn upgrade(address: SocketAddr) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: sharelink.v1\r\n\r\n"
    )
}

/// The page's next text frame.
pub fn next_text<S: Read + Write>(page: &mut WebSocket<S>) -> String {
    loop {
        match page.read().expect("a frame in time") {
            Message::Text(text) => return text.to_string(),
            Message::Ping(_) | Message::Pong(_) | Message::Binary(_) => {}
            other => panic!("{other:?} came where text was expected"),
        }
    }
}

/// Subscribes a page and reads its confirmation.
pub fn subscribe<S: Read + Write>(page: &mut WebSocket<S>, link: &str) {
    page.send(Message::text(format!(r#"{{"type":"subscribe","id":1,"link":"{link}"}}"#))).unwrap();
    let answer = next_text(page);
    assert!(answer.starts_with(r#"{"type":"subscribed","id":1,"#), "{answer}");
}

/// A temporary folder, removed when dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    /// An empty folder.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sharelinkd-test-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a file into it.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The built program.
pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sharelinkd"))
}

/// A relay in a process of its own, killed when dropped.
pub struct Process {
    pub child: Child,
    pub address: SocketAddr,
    /// Where pages connect by TLS, if they may.
    pub tls: Option<SocketAddr>,
    /// Its log until it was ready.
    pub log: Vec<String>,
    _folder: Folder,
}

impl Process {
    /// Starts a relay for a business server and waits until it is ready.
    pub fn start(name: &str, business: SocketAddr) -> Self {
        Self::start_with(name, business, "")
    }

    /// The same with further sections in its configuration.
    pub fn start_with(name: &str, business: SocketAddr, sections: &str) -> Self {
        Self::start_as(name, &(config_text(business) + sections))
    }

    /// Starts a relay with this configuration; without a `[pages]` section, pages connect to any
    /// free port.
    pub fn start_as(name: &str, config: &str) -> Self {
        Self::start_by(program(), name, config)
    }

    /// The same with another build of the program.
    pub fn start_by(mut program: Command, name: &str, config: &str) -> Self {
        let listen = if config.contains("[pages]") { "" } else { "[pages]\nlisten = \"127.0.0.1:0\"\n" };
        let folder = Folder::new(name);
        let config = folder.write("relay.toml", &format!("{listen}{config}"));
        let mut child =
            program.args(["run", "--config"]).arg(&config).stderr(Stdio::piped()).spawn().expect("the relay starts");
        let log = child.stderr.take().unwrap();
        let (address, tls, log) = ready_addresses(log);
        Self { child, address, tls, log, _folder: folder }
    }

    /// Threads of the process.
    pub fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The configuration of a relay under test, on any free port.
pub fn config_text(business: SocketAddr) -> String {
    format!("[pages]\nlisten = \"127.0.0.1:0\"\n[uplink]\naddresses = [\"{business}\"]\nsecret = \"{SECRET}\"\n")
}

/// Reads the log until the relay reports where pages connect, by TCP alone and by TLS, and drains
/// the rest in a thread.
fn ready_addresses(log: impl Read + Send + 'static) -> (SocketAddr, Option<SocketAddr>, Vec<String>) {
    use std::io::{BufRead, BufReader};
    let mut lines = BufReader::new(log).lines();
    let mut said = Vec::new();
    let (address, tls) = loop {
        let line = lines.next().expect("the relay is ready before its log ends").unwrap();
        if let Some((_, addresses)) = line.split_once("ready: pages connect to ") {
            break match addresses.split_once(", by TLS to ") {
                Some((address, tls)) => (address.parse().unwrap(), Some(tls.parse().unwrap())),
                None => (addresses.parse().unwrap(), None),
            };
        }
        said.push(line);
    };
    std::thread::spawn(move || lines.for_each(drop));
    (address, tls, said)
}
