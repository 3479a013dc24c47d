//! An HTTP/1.1 client for one URL.
//!
//! Owns the connections: a few are kept for the next call. A call has a fixed time, from the
//! look-up to the last byte of the answer, and an answer has a maximum size. Redirects are never
//! followed: they are answers like others. A kept connection that the server has closed in the
//! meantime is replaced once. Refuses addresses as `url.rs` says. Doesn't know what is sent, or
//! what an answer means.

use std::{
    error::Error,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, StatusCode,
    body::{Body as _, Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    sync::Semaphore,
    task::JoinHandle,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::TlsConnector;

use super::url::Url;

/// The body of an answer, in bytes, at most: what `subscribe` needs is below 1 KiB.
pub const BODY_SIZE_MAX: usize = 64 * 1024;
/// The head of an answer, in bytes, at most.
const HEAD_SIZE_MAX: usize = 16 * 1024;
/// Connections that are kept for the next calls.
pub const KEPT_MAX: usize = 16;
/// A connection is not used again after this time: a firewall on the way may have forgotten it, and
/// then a call would wait in vain.
const KEPT_TIME: Duration = Duration::from_secs(15);
/// Look-ups of the host at once. Each holds a thread, also after its call has given up.
const LOOKUPS_MAX: usize = 4;
/// Addresses that are tried.
const ADDRESSES_MAX: usize = 4;

type Request1 = Request<Full<Bytes>>;

/// The client.
#[derive(Debug)]
pub struct Client {
    url: Url,
    tls: Option<Tls>,
    /// A call's time.
    limit: Duration,
    kept: Mutex<Vec<(Duration, Connection)>>,
    lookups: Semaphore,
}

struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body, or why it wasn't read to its end.
    pub body: Result<Vec<u8>, Failure>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// The call's time was over, while this was done.
    Time(Duration, &'static str),
    /// The host has no address.
    Lookup(io::Error),
    /// The host's addresses are refused.
    Refused(&'static str),
    /// No address takes a connection.
    Dial(SocketAddr, io::Error),
    /// The TLS handshake failed.
    Tls(io::Error),
    /// The connection ended before the answer did.
    Ended(hyper::Error),
    /// What came is not HTTP.
    Http(hyper::Error),
    /// The answer is too large.
    Size,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(limit, what) => write!(f, "it took more than {} s, {what}", limit.as_secs_f64()),
            Self::Lookup(error) => write!(f, "its host has no address: {error}"),
            Self::Refused(why) => f.write_str(why),
            Self::Dial(address, error) => write!(f, "it can't be reached at {address}: {error}"),
            Self::Tls(error) => {
                write!(f, "its TLS handshake failed: {error}; webhook.ca_file names the CA if it is your own")
            }
            Self::Ended(error) | Self::Http(error) => {
                write!(f, "its answer can't be read: {error}")?;
                error.source().map_or(Ok(()), |source| write!(f, ": {source}"))
            }
            Self::Size => write!(f, "its answer has more than {} KiB", BODY_SIZE_MAX / 1024),
        }
    }
}

/// A connection, and the task that moves its bytes. They end together.
#[derive(Debug)]
struct Connection {
    requests: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// A client without connections.
    ///
    /// # Errors
    /// What is wrong with the URL or the roots.
    pub fn new(url: Url, roots: &Arc<RootCertStore>, limit: Duration) -> Result<Self, String> {
        let tls = if url.is_tls { Some(Tls::new(&url.host, roots)?) } else { None };
        Ok(Self { url, tls, limit, kept: Mutex::default(), lookups: Semaphore::new(LOOKUPS_MAX) })
    }

    /// The URL that is called.
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Posts a body of JSON, with more headers.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn post(&self, now: Duration, headers: &[(&str, &str)], body: Bytes) -> Result<Answer, Failure> {
        let mut request = Request::post(&self.url.target)
            .header("host", &self.url.authority)
            .header("user-agent", concat!("sharelink-hub/", env!("CARGO_PKG_VERSION")))
            .header("content-type", "application/json")
            .header("accept", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let Ok(request) = request.body(Full::new(body)) else {
            return Err(Failure::Refused("the URL can't be put into a request"));
        };
        let mut time = Time { limit: self.limit, over: Box::pin(sleep(self.limit)) };
        if let Some(kept) = self.take(now) {
            match self.exchange(now, kept, request.clone(), &mut time).await {
                Err(Failure::Ended(_)) => {}
                done => return done,
            }
        }
        let new = Box::pin(self.dial(&mut time)).await?;
        self.exchange(now, new, request, &mut time).await
    }

    fn take(&self, now: Duration) -> Option<Connection> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(since, kept)| now < since.saturating_add(KEPT_TIME) && !kept.requests.is_closed());
        kept.pop().map(|(_, connection)| connection)
    }

    fn keep(&self, now: Duration, connection: Connection) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX && !connection.requests.is_closed() {
            kept.push((now, connection));
        }
    }

    async fn exchange(
        &self,
        now: Duration,
        mut connection: Connection,
        request: Request1,
        time: &mut Time,
    ) -> Result<Answer, Failure> {
        const WAITING: &str = "waiting for its answer";
        time.within(WAITING, connection.requests.ready()).await?.map_err(Failure::of)?;
        let answer = time.within(WAITING, connection.requests.send_request(request)).await?.map_err(Failure::of)?;
        let status = answer.status();
        let body = read(answer.into_body(), time).await;
        if body.is_ok() {
            self.keep(now, connection);
        }
        Ok(Answer { status, body })
    }

    async fn dial(&self, time: &mut Time) -> Result<Connection, Failure> {
        let addresses = time.within("looking up its host", self.addresses()).await??;
        let each = self.limit / u32::try_from(addresses.len()).unwrap_or(1).max(1);
        let mut failure = Failure::Refused("its host has no address");
        for address in addresses {
            let dialled = time.within("connecting", timeout(each, TcpStream::connect(address))).await?;
            match dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => return self.begin(stream, time).await,
                Err(error) => failure = Failure::Dial(address, error),
            }
        }
        Err(failure)
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, Failure> {
        // It is never closed, so there is always a permit in the end.
        let _permit = self.lookups.acquire().await;
        let found = lookup_host((self.url.host.as_str(), self.url.port)).await.map_err(Failure::Lookup)?;
        let (good, bad): (Vec<_>, Vec<_>) =
            found.partition(|address: &SocketAddr| self.url.objection(address.ip()).is_none());
        match bad.first().and_then(|address| self.url.objection(address.ip())) {
            Some(objection) if good.is_empty() => Err(Failure::Refused(objection)),
            _ => Ok(good.into_iter().take(ADDRESSES_MAX).collect()),
        }
    }

    async fn begin(&self, stream: TcpStream, time: &mut Time) -> Result<Connection, Failure> {
        // A request must not wait for the acknowledgement of its own first part.
        let _ = stream.set_nodelay(true);
        let Some(Tls { connector, name }) = &self.tls else { return open(stream).await };
        let handshake = connector.connect(name.clone(), stream);
        open(time.within("in the TLS handshake", handshake).await?.map_err(Failure::Tls)?).await
    }
}

impl Tls {
    fn new(host: &str, roots: &Arc<RootCertStore>) -> Result<Self, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| "the URL's host is no name".to_owned())?;
        if roots.is_empty() {
            return Err("https needs the certificate of a CA: install ca-certificates, or name a file".to_owned());
        }
        let provider = Arc::new(ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = versions.map_err(|error| error.to_string())?.with_root_certificates(Arc::clone(roots));
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

async fn open<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Result<Connection, Failure> {
    let mut builder = http1::Builder::new();
    builder.max_header_size(HEAD_SIZE_MAX).max_buf_size(BODY_SIZE_MAX);
    let (requests, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(Failure::of)?;
    let task = tokio::spawn(async move {
        // What went wrong, the call gets too.
        let _ = connection.await;
    });
    Ok(Connection { requests, task })
}

async fn read(mut body: Incoming, time: &mut Time) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    if body.size_hint().lower() > BODY_SIZE_MAX as u64 {
        return Err(Failure::Size);
    }
    while let Some(frame) = time.within("reading its answer", body.frame()).await? {
        // Trailers say nothing.
        let Ok(data) = frame.map_err(Failure::of)?.into_data() else { continue };
        if bytes.len() + data.len() > BODY_SIZE_MAX {
            return Err(Failure::Size);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

impl Failure {
    fn of(error: hyper::Error) -> Self {
        let is_end = error.is_canceled() || error.is_closed() || error.is_incomplete_message();
        let is_socket = error.source().is_some_and(|source| source.is::<io::Error>());
        if is_end || is_socket { Self::Ended(error) } else { Self::Http(error) }
    }
}

/// What is left of a call's time.
struct Time {
    limit: Duration,
    over: Pin<Box<Sleep>>,
}

impl Time {
    async fn within<F: Future>(&mut self, what: &'static str, work: F) -> Result<F::Output, Failure> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = &mut self.over => Err(Failure::Time(self.limit, what)),
        }
    }
}
