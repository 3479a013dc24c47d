//! The public conformance suite for WebSockets (Autobahn|Testsuite) against the daemon's own page
//! connection.
//!
//! Tests the product's code: the listener's socket options, the request head and the upgrade, the
//! page's task with its tungstenite settings, the control slot, the frame writer. An echo replaces
//! the machine, with larger limits, since the suite sends messages of 16 MiB. Without Cargo's
//! harness, so that the suite's output is visible and a suite that could not run does not count as
//! passed: `tests/conformance/autobahn.py` does the rest. Over TLS it runs only where a part of
//! that name is given, such as `cargo test --test echo -- over_tls`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]

use std::cell::{Cell, Ref, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use relay::pages::Verdict;
use relay::transmit::Slices;
use sharelinkd::config::certificates;
use sharelinkd::config::{self, Config, Surroundings};
use sharelinkd::daemon::connection::{Connection, Outgoing};
use sharelinkd::daemon::head::{self, Asked, HEAD_SIZE_MAX};
use sharelinkd::daemon::pages::{Behind, begin};
use sharelinkd::daemon::stream::Stream;
use sharelinkd::daemon::tls::handshake::{Acceptor, Next};
use sharelinkd::daemon::{listener, read_head, timely};
use smol::LocalExecutor;
use tls::suite::HEADER_SIZE;
use wire::page::{HEADER_SIZE_MAX, Opcode, header};

const NAME: &str = "the_page_connection_conforms_to_rfc_6455";
const NAME_OVER_TLS: &str = "the_page_connection_conforms_to_rfc_6455_over_tls";

fn main() -> ExitCode {
    // Cargo's arguments: tests are chosen by a part of their name, or only listed.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        println!("{NAME}: test\n{NAME_OVER_TLS}: test");
        return ExitCode::SUCCESS;
    }
    let parts: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let is_chosen = |name: &str| parts.iter().any(|part| name.contains(part.as_str()));
    let runs = [(NAME, false, parts.is_empty() || is_chosen(NAME)), (NAME_OVER_TLS, true, is_chosen(NAME_OVER_TLS))];
    for (name, is_tls, is_chosen) in runs {
        if !is_chosen {
            println!("{name} was not chosen");
        } else if !conforms(is_tls) {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Whether the suite finds nothing.
fn conforms(is_tls: bool) -> bool {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || serve(&tell, is_tls.then(acceptor)));
    let address = told.recv().expect("the echo listens");
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/autobahn.py");
    let scheme = if is_tls { "wss" } else { "ws" };
    let status = Command::new("python3").arg(runner).arg(format!("{scheme}://{address}/ws")).status();
    status.expect("python3 is there").success()
}

/// Handshakes with a certificate that nobody trusts.
fn acceptor() -> Acceptor {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let [certificate, key] = ["echo.pem", "echo.key"].map(|name| folder.join(name));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]);
    openssl.args(["-subj", "/CN=127.0.0.1", "-keyout"]).arg(&key).arg("-out").arg(&certificate);
    let output = openssl.output().expect("openssl is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pair = certificates::load(&certificate, &key).unwrap();
    Acceptor::new(&[pair], config::MinVersion::V12, None).unwrap()
}

/// Accepts pages for as long as the process runs.
fn serve(tell: &mpsc::Sender<SocketAddr>, acceptor: Option<Acceptor>) {
    let acceptor = Rc::new(acceptor);
    let around = Surroundings::without_files("test");
    let config = Config::parse(Config::default_text(), board::SELECTED, &around).unwrap();
    let pages = Rc::new(config.pages);
    let listener = listener("127.0.0.1:0".parse().unwrap(), board::SELECTED).unwrap();
    tell.send(listener.get_ref().local_addr().unwrap()).unwrap();
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        loop {
            listener.readable().await.unwrap();
            if let Ok((stream, address)) = listener.get_ref().accept() {
                let (executor_of_page, pages, acceptor) =
                    (Rc::clone(&executor), Rc::clone(&pages), Rc::clone(&acceptor));
                let begin = async move {
                    let stream = Stream::new(stream).unwrap();
                    let stream = match &*acceptor {
                        Some(acceptor) => shake(acceptor, stream).await,
                        None => Some(stream),
                    };
                    if let Some(stream) = stream {
                        upgrade(executor_of_page, pages, stream, address).await;
                    }
                };
                executor.spawn(begin).detach();
            }
        }
    }));
}

/// The connection by TLS; `None` if the peer is gone.
async fn shake(acceptor: &Acceptor, stream: Stream) -> Option<Stream> {
    let mut handshake = acceptor.begin().unwrap();
    loop {
        let mut record = vec![0; HEADER_SIZE];
        read_all(&stream, &mut record).await?;
        let size = u16::from_be_bytes([record[3], record[4]]);
        record.resize(HEADER_SIZE + usize::from(size), 0);
        read_all(&stream, &mut record[HEADER_SIZE..]).await?;
        let mut out = Vec::new();
        let next = handshake.step(&record, &mut out).unwrap();
        timely(&stream, &out).await.unwrap();
        handshake = match next {
            Next::Record(handshake) => handshake,
            Next::Done(secured, _) => return Some(stream.secure(secured)),
        };
    }
}

async fn read_all(stream: &Stream, into: &mut [u8]) -> Option<()> {
    let mut filled = 0;
    while filled < into.len() {
        match stream.read(&mut into[filled..]) {
            Ok(0) => return None,
            Ok(size) => filled += size,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll_fn(|context| stream.poll_readable(context)).await.unwrap();
            }
            Err(_) => return None,
        }
    }
    Some(())
}

/// Reads the request, answers it, and gives the connection an echo.
async fn upgrade(executor: Rc<LocalExecutor<'static>>, pages: Rc<config::Pages>, stream: Stream, address: SocketAddr) {
    let mut bytes = vec![0; HEAD_SIZE_MAX];
    let Ok((size, filled)) = read_head(&stream, &mut bytes).await else { return };
    match head::read(&bytes[..size], &pages, address.ip()) {
        Asked::Upgrade(upgrade) => {
            timely(&stream, upgrade.response.as_bytes()).await.unwrap();
            let connection = Rc::new(Connection::new((), stream));
            begin(Rc::new(Echo::default()), &executor, connection, bytes[size..filled].to_vec());
        }
        other => panic!("the suite asked for {other:?}"),
    }
}

/// Sends back what a page sends.
#[derive(Default)]
struct Echo {
    /// Complete frames, oldest first.
    frames: RefCell<VecDeque<Vec<u8>>>,
    /// Bytes of the first frame that are sent.
    sent: Cell<usize>,
    is_blocked: Cell<bool>,
    is_leaving: Cell<bool>,
}

impl Echo {
    fn answer(&self, opcode: Opcode, payload: &[u8]) {
        if !self.is_leaving.get() {
            let header = header::<HEADER_SIZE_MAX>(opcode, payload.len());
            self.frames.borrow_mut().push_back([&header[..], payload].concat());
        }
    }

    fn advance(&self, size: u64) {
        let mut frames = self.frames.borrow_mut();
        let mut sent = self.sent.get() + usize::try_from(size).unwrap();
        while let Some(first) = frames.front().filter(|first| first.len() <= sent) {
            sent -= first.len();
            frames.pop_front();
        }
        self.sent.set(sent);
    }
}

impl Behind for Echo {
    type Page = ();
    const MESSAGE_SIZE_MAX: usize = 16 << 20;
    const FRAGMENTS_MAX: u32 = u32::MAX;
    const REST: Duration = Duration::ZERO;

    fn text(&self, (): (), text: &str) {
        self.answer(Opcode::Text, text.as_bytes());
    }

    fn binary(&self, (): (), bytes: &[u8]) {
        self.answer(Opcode::Binary, bytes);
    }

    fn heard(&self, (): ()) {}

    /// As in the machine: a started frame is finished, no new one is started.
    fn used_up(&self, (): ()) {}

    fn leaving(&self, (): ()) {
        self.is_leaving.set(true);
        self.frames.borrow_mut().truncate(usize::from(self.sent.get() > 0));
    }

    fn broken(&self, (): (), _: u16) {
        self.leaving(());
    }

    fn gone(&self, (): ()) {}

    fn verdict(&self, (): ()) -> Verdict {
        Verdict::Serve
    }

    fn is_blocked(&self, (): ()) -> bool {
        self.is_blocked.get()
    }

    fn unblocked(&self, (): ()) {
        self.is_blocked.set(false);
    }

    fn serve(&self, connection: &Connection<()>) {
        loop {
            let waiting = Waiting { frames: self.frames.borrow(), sent: self.sent.get() };
            let is_between_frames = waiting.sent == 0;
            if waiting.frames.is_empty() && !(is_between_frames && connection.has_control()) {
                return;
            }
            let Some(sent) = connection.write(is_between_frames, &waiting) else { return };
            drop(waiting);
            // What a record holds that was begun is offered again.
            self.advance(sent.progress.size - sent.progress.begun);
            if !sent.is_whole {
                self.is_blocked.set(true);
                return;
            }
        }
    }
}

/// What an echo still has to send.
struct Waiting<'a> {
    frames: Ref<'a, VecDeque<Vec<u8>>>,
    sent: usize,
}

impl Outgoing for Waiting<'_> {
    fn gather<'a>(&'a self, out: &mut Slices<'a>) -> u64 {
        let mut size = 0;
        let mut from = self.sent;
        for frame in &*self.frames {
            let rest = &frame[std::mem::take(&mut from)..];
            if out.push(rest).is_err() {
                break;
            }
            size += rest.len() as u64;
        }
        size
    }

    fn run<'a>(&'a self, at: u64, most: u64, out: &mut Slices<'a>) -> u64 {
        let mut skip = self.sent as u64 + at;
        for frame in &*self.frames {
            if let Some(rest) =
                usize::try_from(skip).ok().and_then(|skip| frame.get(skip..)).filter(|rest| !rest.is_empty())
            {
                let run = &rest[..rest.len().min(usize::try_from(most).unwrap())];
                return if out.push(run).is_ok() { run.len() as u64 } else { 0 };
            }
            skip -= frame.len() as u64;
        }
        0
    }
}
