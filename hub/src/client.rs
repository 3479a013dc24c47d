//! `sharelink-hub say` and `sharelink-hub status`: a client of the HTTP API.
//!
//! Owns one call: dial, TLS, key, answer, all within one timeout and of bounded size; `push.rs`
//! makes its calls with the same parts. Tells apart
//! wrong arguments, a hub that doesn't answer, and one that refuses. Never prints the key. Follows
//! no redirects, and keeps nothing.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, StatusCode, Uri,
    body::{Body, Bytes},
    client::conn::http1::handshake,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
    http::request::Builder,
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, crypto::ring::default_provider, pki_types::ServerName};
use serde_json::{Value, json};
use sharelinkd::config::{ca, file, values::secret};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::Runtime,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{shared::moment_us, tls};

/// The environment variable that has the key.
pub const KEY_VARIABLE: &str = "SHARELINK_KEY";
/// A call has this time as a whole.
pub const CALL_TIME: Duration = Duration::from_secs(10);
/// The maximum size of an answer, in bytes.
const ANSWER_SIZE_MAX: usize = 1 << 20;
const KEY_SIZE_MAX: u64 = 4096;

/// Which hub, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The API's URL.
    pub api: String,
    /// The file with the key; `None`: it is in the environment.
    pub key_file: Option<PathBuf>,
    /// The CA of the API's certificate; `None`: the system's.
    pub ca_file: Option<PathBuf>,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Say {
    /// The topic.
    pub topic: String,
    /// The text.
    pub text: String,
    /// Who says it.
    pub from: Option<String>,
}

/// Why a call has failed.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The arguments are wrong.
    Usage(String),
    /// The hub doesn't answer.
    Unreachable(String),
    /// It refuses.
    Refused(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(text) | Self::Unreachable(text) | Self::Refused(text)) = self;
        f.write_str(text)
    }
}

/// Publishes a message.
///
/// # Errors
/// Why it was not published, or is not known to be.
pub fn say(target: &Target, say: &Say) -> Result<String, Failure> {
    let mut message = json!({ "text": say.text, "at": moment_us() / 1000 });
    if let (Some(from), Some(fields)) = (&say.from, message.as_object_mut()) {
        fields.insert("from".to_owned(), from.as_str().into());
    }
    let path = format!("/v1/topics/{}/messages", encoded(&say.topic));
    let (_, answer) = call(target, &Method::POST, &path, message.to_string())?;
    Ok(format!("published: message {} of {}\n", answer["sequence"], say.topic))
}

/// Who is connected.
///
/// # Errors
/// Why that is not known; that the engine doesn't answer is one.
pub fn status(target: &Target, is_json: bool) -> Result<String, Failure> {
    let (text, answer) = call(target, &Method::GET, "/v1/fleet", String::new())?;
    if is_json {
        return Ok(format!("{text}\n"));
    }
    let shown = fleet(&answer);
    if answer["engine"]["up"] == Value::Bool(false) { Err(Failure::Refused(shown)) } else { Ok(shown) }
}

/// The fleet as a table.
fn fleet(answer: &Value) -> String {
    let relays = answer["relays"].as_array().map(Vec::as_slice).unwrap_or_default();
    let up = if answer["engine"]["up"] == Value::Bool(false) { "does not answer" } else { "answers" };
    let mut text = format!("engine: {up}\nwatched topics: {}\nrelays: {}\n", answer["topics"], relays.len());
    if !relays.is_empty() {
        text += &format!("{:<32} {:>8} {:>8} {:>10}\n", "relay", "pages", "topics", "up");
    }
    for relay in relays {
        let number = |key: &str| relay[key].as_u64().unwrap_or(0);
        // A relay names itself.
        let name: String = relay["name"].as_str().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
        text += &format!("{name:<32} {:>8} {:>8} {:>8} s\n", number("pages"), number("topics"), number("up_s"));
    }
    text
}

/// A topic's name as a part of a path.
pub fn encoded(topic: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let part = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    topic.bytes().map(part).collect()
}

/// Makes a call; returns the answer as text and as JSON.
fn call(target: &Target, method: &Method, path: &str, body: String) -> Result<(String, Value), Failure> {
    let way = Way::to(target, path)?;
    let request = way.request(method).header(CONTENT_TYPE, "application/json").body(Full::new(Bytes::from(body)));
    let request = request.map_err(|_| no_key())?;
    let (status, body) = runtime()?
        .block_on(async { timeout(CALL_TIME, way.exchange(request)).await })
        .map_err(|_| way.unreachable(&format!("not within {} s", CALL_TIME.as_secs())))?
        .map_err(|error| way.unreachable(&error))?;
    let text = String::from_utf8_lossy(&body).trim().to_owned();
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    if status.is_success() { Ok((text, answer)) } else { Err(refused(status, &answer)) }
}

/// What the hub says in place of a result.
pub fn refused(status: StatusCode, answer: &Value) -> Failure {
    let detail = answer["detail"].as_str().or_else(|| answer["title"].as_str()).unwrap_or("it doesn't say why");
    Failure::Refused(format!("the hub refuses ({status}): {detail}"))
}

/// For a request that could not be made: all of it but the key is this program's own.
pub fn no_key() -> Failure {
    Failure::Usage("the key can't stand in a header: it is not one of `sharelink-hub key`".to_owned())
}

/// The runtime of a command that is a client: one thread.
pub fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::Unreachable(error.to_string()))
}

/// The way to a path of the API: its URL, the key, and TLS.
pub struct Way {
    api: String,
    uri: Uri,
    key: String,
    tls: Option<TlsConnector>,
}

impl Way {
    /// Reads the key and the CA.
    pub fn to(target: &Target, path: &str) -> Result<Self, Failure> {
        let (api, key) = (target.api.clone(), key(target)?);
        let uri: Uri = format!("{}{path}", api.trim_end_matches('/'))
            .parse()
            .map_err(|_| Failure::Usage(format!("{api:?} is not a URL: write --api http://127.0.0.1:8090")))?;
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => Some(connector(target)?),
            _ => return Err(Failure::Usage(format!("{api:?} is neither http: nor https:"))),
        };
        Ok(Self { api, uri, key, tls })
    }

    /// A request, to be given its body.
    pub fn request(&self, method: &Method) -> Builder {
        Request::builder()
            .method(method)
            .uri(self.uri.path())
            .header(HOST, self.uri.authority().map_or("", |authority| authority.as_str()))
            .header(AUTHORIZATION, format!("Bearer {}", self.key))
    }

    /// The hub does not answer.
    pub fn unreachable(&self, why: &str) -> Failure {
        Failure::Unreachable(format!("the hub at {} does not answer: {why}", self.api))
    }

    /// Sends a request on a connection of its own; returns the answer.
    pub async fn exchange<B>(&self, request: Request<B>) -> Result<(StatusCode, Bytes), String>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: std::error::Error + Send + Sync,
    {
        let host = self.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = self.uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let dial = timeout(CALL_TIME, TcpStream::connect((host.as_str(), port))).await;
        let stream = dial.map_err(|_| format!("not within {} s", CALL_TIME.as_secs()))?;
        let stream = stream.map_err(|error| error.to_string())?;
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => converse(stream, request).await,
            Some(tls) => {
                let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
                let stream = tls.connect(name, stream).await.map_err(|error| error.to_string())?;
                converse(stream, request).await
            }
        }
    }
}

fn key(target: &Target) -> Result<String, Failure> {
    let Some(path) = &target.key_file else {
        let key = std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty());
        return key.ok_or_else(|| {
            Failure::Usage(format!(
                "no key: set {KEY_VARIABLE}, which `sharelink-hub dev` prints, or add --key-file FILE"
            ))
        });
    };
    let failed = |why: &str| Failure::Usage(format!("--key-file {} {why}", path.display()));
    let bytes = file::read(path, KEY_SIZE_MAX).map_err(|error| failed(&format!("can't be read: {error}")))?;
    let key = secret(&bytes).map_err(|(what, _)| failed(&what))?;
    Ok(String::from_utf8_lossy(key.bytes()).into_owned())
}

fn connector(target: &Target) -> Result<TlsConnector, Failure> {
    let roots = match &target.ca_file {
        Some(path) => ca::roots(path).map(Arc::new),
        None => tls::system_roots(),
    };
    let roots = roots.map_err(|(what, remedy)| Failure::Usage(format!("{what}; {remedy}")))?;
    let builder =
        ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
}

async fn converse<S, B>(stream: S, request: Request<B>) -> Result<(StatusCode, Bytes), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: std::error::Error + Send + Sync,
{
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_SIZE_MAX).collect().await.map_err(|error| error.to_string())?;
    connection.abort();
    Ok((status, body.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_one_part_of_a_path() {
        assert_eq!(encoded("app/room:7?~x"), "app%2Froom%3A7%3F~x");
    }

    #[test]
    fn the_fleet_is_a_table() {
        let answer = json!({
            "relays": [{ "name": "gate\u{1b}[31m", "pages": 7, "topics": 2, "up_s": 60 }],
            "topics": 2,
            "engine": { "up": true }
        });
        let text = fleet(&answer);
        assert!(text.starts_with("engine: answers\nwatched topics: 2\nrelays: 1\nrelay "), "{text}");
        assert!(text.contains("gate[31m") && text.ends_with("       7        2       60 s\n"), "{text:?}");
        assert!(fleet(&json!({ "engine": { "up": false } })).starts_with("engine: does not answer\n"));
    }
}
