//! The host page's server: one small page, and one WebSocket through which the host controls the
//! room.
//!
//! Owns its sockets and the page's files in `host/`. On loopback there is no authentication;
//! elsewhere page and WebSocket have to show the key of this run ([`Door`]). Refuses requests for a
//! foreign host name (DNS rebinding) and WebSockets from another site's page. Text frames are small
//! JSON commands, binary frames are the recording. [`Stage`] executes them.

use std::{
    borrow::Cow,
    cell::Cell,
    io,
    net::{TcpListener, TcpStream},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use async_tungstenite::{
    WebSocketReceiver, WebSocketSender, WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};
use futures_lite::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, FutureExt as _, StreamExt as _};
use futures_rustls::TlsAcceptor;
use serde_json::json;
use smol::{Async, LocalExecutor, Timer, channel};

use super::reach::Reach;
use super::stage::{Refused, Stage};
use wire::json::Value;

/// The maximum size of a request head, in bytes. Browsers send about 1 KiB.
const HEAD_SIZE_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 48;
/// Timeout for receiving a request and sending its response.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// The maximum number of concurrent connections.
const CONNECTIONS_MAX: u32 = 64;
/// The maximum size of a time slice of a recording: 4 MiB, far more than 250 ms of any camera.
const MESSAGE_SIZE_MAX: usize = 4 * 1024 * 1024;

/// The page's files: path, content type, bytes.
const FILES: [(&str, &str, &[u8]); 4] = [
    ("/", "text/html; charset=utf-8", include_bytes!("host/host.html")),
    ("/host.css", "text/css; charset=utf-8", include_bytes!("host/host.css")),
    ("/host.js", "text/javascript; charset=utf-8", include_bytes!("host/host.js")),
    ("/clip.mp4", "video/mp4", include_bytes!("clip/video.mp4")),
];

/// The refusal of a host page without the key, as the browser shows it.
const NO_KEY: &str = "403 This address lacks the key of the host page: open the one that the demo has printed";

/// How host pages come in.
pub struct Door {
    tls: Option<TlsAcceptor>,
    /// The CA's certificate, PEM, for devices that are to trust it.
    ca: Option<String>,
    /// What a WebSocket's query has to be.
    query: Option<String>,
}

impl Door {
    /// As the pages are reached.
    pub fn new(reach: &Reach) -> Self {
        Self {
            tls: reach.tls.as_ref().map(|tls| TlsAcceptor::from(Arc::clone(&tls.server))),
            ca: reach.tls.as_ref().map(|tls| tls.ca.clone()),
            query: reach.key.as_ref().map(|key| format!("key={key}")),
        }
    }

    /// Schemes of the page and of its WebSocket.
    const fn schemes(&self) -> (&'static str, &'static str) {
        if self.tls.is_some() { ("https", "wss") } else { ("http", "ws") }
    }
}

/// What a connection is read from and written to.
trait Socket: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket for S {}

/// A command from the host page.
enum Command<'a> {
    Say { text: Cow<'a, str> },
    Title { title: Cow<'a, str> },
    End,
    Reopen,
    Live { mime: Cow<'a, str> },
    Stop,
}

/// Parses a text frame of the host page, which is JSON from a browser.
fn command(text: &str) -> Option<Command<'_>> {
    let [kind, text, title, mime] = Value::read(text.as_bytes())?.last(["type", "text", "title", "mime"]);
    fn string(value: Option<Value<'_>>) -> Option<Cow<'_, str>> {
        Some(value?.text()?.resolved())
    }
    match &*kind?.text()?.resolved() {
        "say" => Some(Command::Say { text: string(text)? }),
        "title" => Some(Command::Title { title: string(title)? }),
        "end" => Some(Command::End),
        "reopen" => Some(Command::Reopen),
        "live" => Some(Command::Live { mime: string(mime)? }),
        "stop" => Some(Command::Stop),
        _ => None,
    }
}

/// Serves host pages until dropped.
///
/// # Errors
/// The listener failed.
pub async fn serve(stage: Rc<Stage>, door: Door, listener: Async<TcpListener>) -> io::Result<()> {
    let (open, count) = (Cell::new(0), Cell::new(0));
    let connections = LocalExecutor::new();
    let accepting = async {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                Timer::after(Duration::from_millis(100)).await;
                continue;
            };
            if open.get() >= CONNECTIONS_MAX {
                continue;
            }
            open.set(open.get() + 1);
            count.set(count.get() + 1);
            let (stage, door, open, number) = (&stage, &door, &open, count.get());
            connections
                .spawn(async move {
                    if let Err(error) = connection(stage, door, stream, number).await {
                        log::debug!("host page: {error}");
                    }
                    open.set(open.get() - 1);
                })
                .detach();
        }
    };
    connections.run(accepting).await
}

async fn connection(stage: &Stage, door: &Door, stream: Async<TcpStream>, number: u64) -> io::Result<()> {
    let _ = stream.get_ref().set_nodelay(true);
    match &door.tls {
        Some(tls) => {
            let late = async {
                Timer::after(REQUEST_LIMIT).await;
                Err(io::ErrorKind::TimedOut.into())
            };
            let stream = tls.accept(stream).or(late).await?;
            converse(stage, door, Box::new(stream), number).await
        }
        None => converse(stage, door, stream, number).await,
    }
}

async fn converse(stage: &Stage, door: &Door, mut stream: impl Socket, number: u64) -> io::Result<()> {
    let mut head = vec![0; HEAD_SIZE_MAX];
    let late = async {
        Timer::after(REQUEST_LIMIT).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    let upgraded = answer(door, &mut stream, &mut head).or(late).await?;
    let Some(early) = upgraded else { return Ok(()) };
    let limits = WebSocketConfig::default()
        .read_buffer_size(64 * 1024)
        .write_buffer_size(16 * 1024)
        .max_write_buffer_size(1024 * 1024)
        .max_message_size(Some(MESSAGE_SIZE_MAX))
        .max_frame_size(Some(MESSAGE_SIZE_MAX));
    let socket = WebSocketStream::from_partially_read(stream, early, Role::Server, Some(limits)).await;
    Box::pin(page(stage, socket, number)).await;
    Ok(())
}

/// Reads one request and answers it. For an upgrade, returns the bytes read after the request head.
async fn answer(door: &Door, stream: &mut impl Socket, head: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
    let mut size = 0;
    loop {
        let read = stream.read(head.get_mut(size..).unwrap_or_default()).await?;
        if read == 0 {
            return Ok(None);
        }
        size += read;
        let bytes = head.get(..size).unwrap_or_default();
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let (response, early) = match request.parse(bytes) {
            Ok(httparse::Status::Complete(end)) => match route(door, &request) {
                Answer::File(kind, body, host) => (file(kind, body, &format!("{}://{host}", door.schemes().1)), None),
                Answer::Ca(pem) => (file("application/x-x509-ca-cert", pem.as_bytes(), "'self'"), None),
                Answer::Upgrade(response) => (response, bytes.get(end..).map(<[u8]>::to_vec)),
                Answer::Refuse(status) => (refusal(status), None),
            },
            Ok(httparse::Status::Partial) if size < HEAD_SIZE_MAX => continue,
            Ok(httparse::Status::Partial) => (refusal("431 Request Header Fields Too Large"), None),
            Err(_) => (refusal("400 Bad Request"), None),
        };
        stream.write_all(&response).await?;
        if early.is_none() {
            stream.close().await?;
        }
        return Ok(early);
    }
}

enum Answer<'a> {
    File(&'static str, &'static [u8], String),
    Ca(&'a str),
    Upgrade(Vec<u8>),
    Refuse(&'static str),
}

fn route<'a>(door: &'a Door, request: &httparse::Request<'_, '_>) -> Answer<'a> {
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| core::str::from_utf8(header.value).ok()).unwrap_or("")
    };
    let host = header("host");
    // A foreign name that resolves to 127.0.0.1 (DNS rebinding) must not reach the host page.
    if !is_own_name(host) {
        return Answer::Refuse("421 Misdirected Request");
    }
    if request.method != Some("GET") {
        return Answer::Refuse("405 Method Not Allowed");
    }
    let (path, query) = request.path.map_or(("", ""), |path| path.split_once('?').unwrap_or((path, "")));
    if let ("/ca.crt", Some(ca)) = (path, &door.ca) {
        return Answer::Ca(ca);
    }
    if matches!(path, "/" | "/ws") && door.query.as_ref().is_some_and(|expected| expected != query) {
        return Answer::Refuse(NO_KEY);
    }
    if path != "/ws" {
        let known = FILES.iter().find(|(known, ..)| *known == path);
        return known
            .map_or(Answer::Refuse("404 Not Found"), |(_, kind, body)| Answer::File(kind, body, host.to_owned()));
    }
    if header("origin") != format!("{}://{host}", door.schemes().0) {
        return Answer::Refuse("403 Forbidden");
    }
    let is_upgrade = header("upgrade").eq_ignore_ascii_case("websocket") && header("sec-websocket-version") == "13";
    let key = header("sec-websocket-key");
    if !is_upgrade || key.is_empty() {
        return Answer::Refuse("426 Upgrade Required");
    }
    let accept = derive_accept_key(key.as_bytes());
    Answer::Upgrade(
        format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n")
            .into_bytes(),
    )
}

/// Whether a `Host` header is an IP address or `localhost`.
fn is_own_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<core::net::IpAddr>().is_ok()
}

fn file(kind: &str, body: &[u8], socket: &str) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\
         Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; media-src 'self'; img-src data:; \
         connect-src 'self' {socket}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
         Permissions-Policy: camera=(self), microphone=(self)\r\nReferrer-Policy: no-referrer\r\n\
         X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn refusal(status: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{status}",
        status.len()
    )
    .into_bytes()
}

/// Serves one host page, from its upgrade until it disconnects.
async fn page(stage: &Stage, socket: WebSocketStream<impl Socket>, number: u64) {
    let (mut sender, mut receiver) = socket.split();
    let Some(notes) = stage.watch() else { return };
    let (refusals, refused) = channel::bounded(16);
    let reading = read(stage, &mut receiver, number, &refusals);
    let writing = write(&mut sender, &notes, &refused);
    reading.or(writing).await;
    stage.stop_live(number);
}

async fn read(
    stage: &Stage,
    receiver: &mut WebSocketReceiver<impl Socket>,
    number: u64,
    refusals: &channel::Sender<Refused>,
) {
    while let Some(Ok(message)) = receiver.next().await {
        let result = match message {
            Message::Text(text) => match command(&text) {
                Some(command) => execute(stage, number, command),
                None => {
                    log::warn!("host page: invalid command");
                    return;
                }
            },
            Message::Binary(bytes) => stage.record(number, &bytes),
            Message::Close(_) => return,
            _ => Ok(()),
        };
        if let Err(refusal) = result {
            // If sixteen are queued, the page doesn't read: drop this one.
            let _ = refusals.try_send(refusal);
        }
    }
}

fn execute(stage: &Stage, number: u64, command: Command<'_>) -> Result<(), Refused> {
    match command {
        Command::Say { text } => stage.say(&text),
        Command::Title { title } => stage.set_title(&title),
        Command::End => stage.end(),
        Command::Reopen => {
            stage.reopen();
            Ok(())
        }
        Command::Live { mime } => stage.go_live(number, &mime),
        Command::Stop => {
            stage.stop_live(number);
            Ok(())
        }
    }
}

async fn write(
    sender: &mut WebSocketSender<impl Socket>,
    notes: &channel::Receiver<Rc<str>>,
    refused: &channel::Receiver<Refused>,
) {
    loop {
        let note = async { notes.recv().await.ok().map(|note| note.as_ref().to_owned()) };
        let refusal = async {
            let refusal = refused.recv().await.ok()?;
            Some(json!({ "type": "refused", "reason": refusal.name() }).to_string())
        };
        let Some(text) = refusal.or(note).await else { return };
        if sender.send(Message::text(text)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Door = Door { tls: None, ca: None, query: None };

    fn routed(request: &str) -> Answer<'static> {
        routed_by(&OPEN, request)
    }

    fn routed_by<'a>(door: &'a Door, request: &str) -> Answer<'a> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        assert!(parsed.parse(request.as_bytes()).is_ok_and(|status| status.is_complete()));
        route(door, &parsed)
    }

    #[test]
    fn only_addresses_and_localhost_are_served() {
        for (host, own) in [
            ("127.0.0.1:8081", true),
            ("localhost:8081", true),
            ("[::1]:8081", true),
            ("192.168.1.7", true),
            ("evil.example:8081", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            let answer = routed(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(matches!(answer, Answer::File(..)), own, "{host}");
        }
    }

    #[test]
    fn what_a_browser_sends_is_a_command() {
        assert!(
            matches!(command(r#"{"type":"say","text":"a\ud83d"}"#), Some(Command::Say { text }) if text == "a\u{fffd}")
        );
        assert!(
            matches!(command(r#"{"x":1e400,"type":"title","title":"t"}"#), Some(Command::Title { title }) if title == "t")
        );
        assert!(matches!(command(r#"{"type":"stop"}"#), Some(Command::Stop)));
        for none in ["", "[]", r#"{"type":"say"}"#, r#"{"type":"title","title":5}"#, r#"{"type":"dance"}"#] {
            assert!(command(none).is_none(), "{none}");
        }
    }

    #[test]
    fn a_foreign_page_opens_no_socket() {
        let upgrade = |origin: &str| {
            routed(&format!(
                "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:8081\r\nOrigin: {origin}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ))
        };
        assert!(matches!(upgrade("http://127.0.0.1:8081"), Answer::Upgrade(_)));
        for origin in ["http://evil.example", "http://127.0.0.1:8080", "null", ""] {
            assert!(matches!(upgrade(origin), Answer::Refuse("403 Forbidden")), "{origin}");
        }
    }

    #[test]
    fn where_there_is_a_key_it_opens_the_page_and_the_socket() {
        let door = Door { tls: None, ca: Some("PEM".to_owned()), query: Some("key=7".to_owned()) };
        let asked = |path: &str| {
            routed_by(
                &door,
                &format!(
                    "GET {path} HTTP/1.1\r\nHost: 192.0.2.7:8081\r\nOrigin: http://192.0.2.7:8081\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                ),
            )
        };
        assert!(matches!(asked("/ws?key=7"), Answer::Upgrade(_)) && matches!(asked("/?key=7"), Answer::File(..)));
        for path in ["/ws", "/ws?key=8", "/", "/?key=", "/?key=7&key=8"] {
            assert!(matches!(asked(path), Answer::Refuse(NO_KEY)), "{path}");
        }
        assert!(matches!(asked("/host.css"), Answer::File(..)) && matches!(asked("/ca.crt"), Answer::Ca("PEM")));
        assert!(matches!(routed("GET /ca.crt HTTP/1.1\r\nHost: localhost\r\n\r\n"), Answer::Refuse("404 Not Found")));
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        assert!(matches!(routed("GET /etc HTTP/1.1\r\nHost: localhost\r\n\r\n"), Answer::Refuse("404 Not Found")));
        assert!(matches!(routed("POST / HTTP/1.1\r\nHost: localhost\r\n\r\n"), Answer::Refuse(_)));
        assert!(matches!(
            routed("GET /ws HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n"),
            Answer::Refuse("426 Upgrade Required")
        ));
    }
}
