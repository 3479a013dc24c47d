//! The company's API, played by a test: each call is handed to the test, which answers it with any
//! bytes, or with none.
//!
//! Speaks HTTP by hand, so that it can break it. Owns one listener on loopback. Doesn't check
//! signatures.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

/// Whatever does not come in this time, never comes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What is done with a call.
pub enum Reply {
    /// These bytes, and the connection stays open.
    Bytes(Vec<u8>),
    /// These bytes, and then the end of the connection.
    Last(Vec<u8>),
    /// These bytes, and then these, a few at a time.
    Drip(Vec<u8>, Vec<u8>),
    /// Nothing, and the connection stays open until the client closes it.
    Silence,
}

/// A call.
pub struct Call {
    /// Which connection it came on, from 0.
    pub connection: usize,
    pub method: String,
    pub target: String,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    reply: oneshot::Sender<Reply>,
}

impl Call {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn link(&self) -> String {
        self.json()["data"]["link"].as_str().unwrap().to_owned()
    }

    pub fn reply(self, reply: Reply) {
        // The client may have given up.
        let _ = self.reply.send(reply);
    }

    pub fn status(self, status: &str) {
        self.reply(Reply::Bytes(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").into_bytes()));
    }

    pub fn answer(self, body: &str) {
        self.reply(Reply::Bytes(ok(body)));
    }

    pub fn accept(self, topic: &str) {
        self.answer(&format!(r#"{{"accept":true,"topic":"{topic}","page_messages":true}}"#));
    }
}

/// An answer with 200.
pub fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// The server.
pub struct Server {
    pub port: u16,
    calls: mpsc::UnboundedReceiver<Call>,
}

impl Server {
    pub async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, calls) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (sender, tls) = (sender.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => attend(connection, stream, sender).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                attend(connection, stream, sender).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, calls }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook?k=s3cret", self.port)
    }

    /// The next call.
    pub async fn call(&mut self) -> Call {
        timeout(PATIENCE, self.calls.recv()).await.expect("the webhook was not called").unwrap()
    }

    /// Whether a call is there already.
    pub fn is_called(&mut self) -> bool {
        !self.calls.is_empty()
    }
}

async fn attend<S: AsyncRead + AsyncWrite + Unpin>(
    connection: usize,
    mut stream: S,
    calls: mpsc::UnboundedSender<Call>,
) {
    let mut bytes = Vec::new();
    loop {
        let Some((head, size)) = request(&mut stream, &mut bytes).await else { return };
        let (reply, replied) = oneshot::channel();
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap().split(' ');
        let [method, target] = [(); 2].map(|()| first.next().unwrap().to_owned());
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let body = bytes.drain(..size).collect();
        if calls.send(Call { connection, method, target, headers, body, reply }).is_err() {
            return;
        }
        match replied.await {
            Ok(Reply::Bytes(bytes)) => drop(stream.write_all(&bytes).await),
            Ok(Reply::Last(bytes)) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Ok(Reply::Drip(first, bytes)) => {
                let _ = stream.write_all(&first).await;
                for part in bytes.chunks(3) {
                    if stream.write_all(part).await.is_err() {
                        return;
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            }
            Ok(Reply::Silence) => {
                let _ = stream.read_to_end(&mut Vec::new()).await;
                return;
            }
            Err(_) => return,
        }
    }
}

/// Reads a head, which is returned, and the body behind it, whose size is returned.
async fn request<S: AsyncRead + Unpin>(stream: &mut S, bytes: &mut Vec<u8>) -> Option<(String, usize)> {
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        more(stream, bytes).await?;
    };
    let head = String::from_utf8(bytes.drain(..end + 4).collect()).unwrap();
    let size = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    while bytes.len() < size {
        more(stream, bytes).await?;
    }
    Some((head.trim_end().to_owned(), size))
}

async fn more<S: AsyncRead + Unpin>(stream: &mut S, bytes: &mut Vec<u8>) -> Option<()> {
    let mut part = [0; 4096];
    let size = stream.read(&mut part).await.ok().filter(|size| *size > 0)?;
    bytes.extend_from_slice(&part[..size]);
    Some(())
}
