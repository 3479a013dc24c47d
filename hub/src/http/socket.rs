//! A WebSocket that brings a stream: from the upgrade of `GET /studio/ws` to its close.
//!
//! Owns the conversation: the first message names the token and the topic, binary ones are the
//! stream's bytes. The hub says `live`, how much it `got`, and before it closes `ended` or what
//! went wrong. Each message is published before the next one is read, so back-pressure is TCP's.
//! Refuses large messages: of at most 4 KiB until the token is known. The stream is `media.rs`'s.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use hub::token;
use hyper::{StatusCode, body::Bytes};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::{Instant, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::CapacityError,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{
    Api, asked,
    auth::{Caller, Scope},
    body,
    media::{self, Ended, Source},
    problem::Problem,
};
use crate::ingest::{Ingest, Told, is_final};

/// The first message must come within this time.
const FIRST_TIME: Duration = Duration::from_secs(5);
/// Its maximum size, in bytes; as much is read from a connection whose token is not known yet.
const FIRST_SIZE_MAX: usize = 4 << 10;
/// What a message may have beyond a chunk of picture: its sound and its boxes, in bytes.
const BEYOND_CHUNK: usize = 64 << 10;
/// The maximum size of a message whatever the configuration says, in bytes.
const MESSAGE_SIZE_MAX: usize = 1 << 20;
/// The read buffer of a connection, in bytes.
const BUFFER_SIZE_MAX: usize = 64 << 10;
/// How often the hub says what it has taken.
const GOT_EVERY: Duration = Duration::from_millis(200);
/// What the hub says must leave in this time.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// After the hub closed, the client has this time to close too.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// The first message.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    token: String,
    topic: String,
}

/// A text after the first message.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    r#type: String,
}

/// Serves a connection that has become a WebSocket. `early` are its first bytes.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(api: &Api, stream: S, early: &Bytes, peer: IpAddr) {
    let mut socket = Socket::open(api, stream, early).await;
    let begun = tokio::select! {
        begun = begin(api, &mut socket) => begun,
        () = api.ended() => Err(media::ending()),
    };
    let result = match begun {
        Ok((_place, caller, mut ingest)) => media::carry(api, &caller, &mut ingest, &mut socket).await,
        Err(problem) => Err(problem),
    };
    if let Err(problem) = &result {
        log::debug!("a studio's connection of {peer} ends: {}", problem.detail());
    }
    socket.end(result).await;
}

/// What the first message asks for, who asks, and the place of its stream.
async fn begin<S: AsyncRead + AsyncWrite + Unpin>(
    api: &Api,
    socket: &mut Socket<S>,
) -> Result<(media::Place, Caller, Ingest), Problem> {
    let First { token, topic } = timeout(FIRST_TIME, socket.first()).await.map_err(|_| {
        let detail = format!("no message came for {} s: send {{\"token\",\"topic\"}} first", FIRST_TIME.as_secs());
        Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", detail)
    })??;
    if !token::is_token(&token) {
        let detail = "this is no token: make one by POST /v1/topics/{topic}/ingest-tokens; a key stays on your server";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "unknown_key", detail));
    }
    let settings = api.settings();
    let caller = Caller::of_secret(api, &settings, &token)?;
    caller.demand(Scope::Ingest)?;
    let topic = asked::topic(&topic)?;
    caller.demand_topic(&topic)?;
    let place = media::place(api, &caller, &topic)?;
    socket.open_wide();
    let ingest = media::ingest(api, topic, &caller, settings.limits);
    Ok((place, caller, ingest))
}

/// The connection.
struct Socket<S> {
    messages: WebSocketStream<Bounded<S>>,
    is_live: bool,
    /// Bytes of the stream that have come.
    got: u64,
    /// Those of which the page knows, and since when.
    said: (u64, Instant),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    async fn open(api: &Api, stream: S, early: &Bytes) -> Self {
        let size_max = (api.settings().limits.chunk_size_max + BEYOND_CHUNK).min(MESSAGE_SIZE_MAX);
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_SIZE_MAX)
            .write_buffer_size(0)
            .max_message_size(Some(size_max))
            .max_frame_size(Some(size_max));
        // What came with the head counts too. A message and its header of at most 14 bytes.
        let left = (FIRST_SIZE_MAX + 14).saturating_sub(early.len());
        let stream = Bounded { stream, left: Some(left) };
        let messages = WebSocketStream::from_partially_read(stream, early.to_vec(), Role::Server, Some(config)).await;
        Self { messages, is_live: false, got: 0, said: (0, Instant::now()) }
    }

    /// The token is known: all messages may come.
    fn open_wide(&mut self) {
        self.messages.get_mut().left = None;
    }

    async fn first(&mut self) -> Result<First, Problem> {
        match self.message().await? {
            Some(Message::Text(text)) if text.len() <= FIRST_SIZE_MAX => body::parse(text.as_bytes()),
            Some(Message::Text(_)) => Err(too_large(FIRST_SIZE_MAX)),
            Some(_) => {
                Err(Problem::bad("invalid_body", "the first message is a text: send {\"token\",\"topic\"} first"))
            }
            None => Err(Problem::bad("broken_body", "the connection ended before its first message")),
        }
    }

    /// The next text or bytes; `None` at the end of the connection.
    async fn message(&mut self) -> Result<Option<Message>, Problem> {
        loop {
            match self.messages.next().await {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => return Ok(Some(message)),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                None | Some(Ok(Message::Close(_))) => return Ok(None),
                Some(Err(Error::Capacity(CapacityError::MessageTooLong { max_size, .. }))) => {
                    return Err(too_large(max_size));
                }
                Some(Err(Error::Io(error))) if error.kind() == io::ErrorKind::QuotaExceeded => {
                    return Err(too_large(FIRST_SIZE_MAX));
                }
                Some(Err(Error::Protocol(error))) => {
                    return Err(Problem::bad("broken_body", format!("this is no WebSocket of RFC 6455: {error}")));
                }
                Some(Err(Error::Utf8(_))) => return Err(Problem::bad("broken_body", "the text is not UTF-8")),
                Some(Err(_)) => return Ok(None),
            }
        }
    }

    async fn say(&mut self, what: &Value) {
        // One that is gone is noticed by the next read.
        let _ = timeout(WRITE_TIME, self.messages.send(Message::text(what.to_string()))).await;
    }

    /// So that the page knows how much is on its way: a phone's network holds seconds of it.
    async fn say_got(&mut self) {
        self.said = (self.got, Instant::now());
        self.say(&json!({ "type": "got", "bytes": self.got })).await;
    }

    /// Says how it ended, and closes.
    async fn end(mut self, result: Result<Ended, Problem>) {
        let (what, code) = match result {
            Ok(ended) => (typed("ended", serde_json::to_value(ended)), CloseCode::Normal),
            Err(problem) => {
                let code = close_code(&problem);
                (typed("error", serde_json::to_value(problem.document())), code)
            }
        };
        self.say(&what).await;
        let frame = CloseFrame { code, reason: "".into() };
        let _ = timeout(WRITE_TIME, self.messages.close(Some(frame))).await;
        self.open_wide();
        // A socket that is closed with unread bytes is reset, and the client loses the answer.
        let _ = timeout(LINGER_TIME, async {
            while let Some(Ok(_)) = self.messages.next().await {}
            let stream = &mut self.messages.get_mut().stream;
            stream.shutdown().await?;
            let mut bytes = [0; 4096];
            while stream.read(&mut bytes).await? > 0 {}
            io::Result::Ok(())
        })
        .await;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Source for Socket<S> {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let message = loop {
            if self.got == self.said.0 {
                break self.message().await?;
            }
            match timeout_at(self.said.1 + GOT_EVERY, self.message()).await {
                Ok(message) => break message?,
                // A page that has dropped groups waits for this.
                Err(_) => self.say_got().await,
            }
        };
        match message {
            Some(Message::Binary(bytes)) => {
                self.got += bytes.len() as u64;
                Ok((!bytes.is_empty()).then_some(bytes))
            }
            Some(Message::Text(text)) => match body::parse::<Said>(text.as_bytes())?.r#type.as_str() {
                "end" => Ok(None),
                _ => Err(Problem::bad("invalid_body", "the type of a text is \"end\"; the stream comes as binary")),
            },
            _ => Ok(None),
        }
    }

    async fn took(&mut self, told: &Told) {
        if !self.is_live && !told.mime.is_empty() {
            self.is_live = true;
            self.say(&json!({ "type": "live", "mime": told.mime })).await;
        }
        if self.said.1.elapsed() >= GOT_EVERY {
            self.say_got().await;
        }
    }
}

/// A document with another `type`.
fn typed(name: &str, document: serde_json::Result<Value>) -> Value {
    let mut document = document.unwrap_or_else(|_| json!({}));
    if let Some(fields) = document.as_object_mut() {
        fields.insert("type".to_owned(), name.into());
    }
    document
}

/// Whether to come back, as WebSockets say it.
fn close_code(problem: &Problem) -> CloseCode {
    match (problem.code(), problem.status()) {
        ("ending", _) => CloseCode::Away,
        (_, StatusCode::PAYLOAD_TOO_LARGE) => CloseCode::Size,
        (code, status) if is_final(status, code) => CloseCode::Policy,
        _ => CloseCode::Again,
    }
}

fn too_large(size_max: usize) -> Problem {
    let detail = format!("a message has at most {size_max} bytes here: send what the encoder writes each 100 ms");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
}

/// A stream that is read up to a limit.
struct Bounded<S> {
    stream: S,
    /// Bytes that may still be read; `None`: all.
    left: Option<usize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(left) = self.left else { return Pin::new(&mut self.stream).poll_read(cx, bytes) };
        if left == 0 {
            return Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()));
        }
        let mut part = [0; 512];
        let size = left.min(part.len()).min(bytes.remaining());
        let mut room = ReadBuf::new(part.get_mut(..size).unwrap_or_default());
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
        self.left = Some(left.saturating_sub(room.filled().len()));
        bytes.put_slice(room.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
