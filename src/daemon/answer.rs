//! An answer that closes its connection: a status, header lines, a body.
//!
//! Owns how an answer reads on the wire, and the header lines that every one of them has (RFC 9110, RFC 9112). Knows neither
//! sockets nor requests: what is answered with which status is `head.rs`'s and `http.rs`'s. Refuses nothing; a header line
//! is the caller's, who must have checked whatever of it came from outside.

/// What is made for one connection must not be kept by a cache.
pub const NO_STORE: &str = "Cache-Control: no-store\r\n";

/// Every status that is answered with, and its reason phrase.
pub const STATUSES: [(u16, &str); 13] = [
    (101, "Switching Protocols"),
    (200, "OK"),
    (301, "Moved Permanently"),
    (400, "Bad Request"),
    (403, "Forbidden"),
    (404, "Not Found"),
    (405, "Method Not Allowed"),
    (408, "Request Timeout"),
    (414, "URI Too Long"),
    (426, "Upgrade Required"),
    (431, "Request Header Fields Too Large"),
    (503, "Service Unavailable"),
    (505, "HTTP Version Not Supported"),
];

/// An answer that closes its connection.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub code: u16,
    /// The body's MIME type.
    pub kind: &'static str,
    /// Further header lines, each with its end.
    pub headers: String,
    /// What GET brings.
    pub body: std::borrow::Cow<'static, [u8]>,
    /// HEAD was asked for: the body is told of and left out.
    pub is_head: bool,
}

impl Answer {
    /// An answer of plain text.
    #[must_use]
    pub fn plain(code: u16, text: &str) -> Self {
        let (kind, headers) = ("text/plain; charset=utf-8", NO_STORE.to_owned());
        Self { code, kind, headers, body: text.as_bytes().to_vec().into(), is_head: false }
    }

    /// The same with one more header line.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// The body as it is sent.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        if self.is_head { &[] } else { &self.body }
    }

    /// The bytes before the body. `date` is the time as HTTP writes it, where the box knows it.
    #[must_use]
    pub fn head(&self, date: Option<&str>) -> Vec<u8> {
        let reason = STATUSES.iter().find(|(code, _)| *code == self.code).map_or("", |(_, reason)| reason);
        // `Upgrade` is a header line for this connection alone, and Connection must name it (RFC 9110, 7.8).
        let connection = if self.headers.contains("Upgrade: ") { "close, Upgrade" } else { "close" };
        let date = date.map(|date| format!("Date: {date}\r\n")).unwrap_or_default();
        format!(
            "HTTP/1.1 {} {reason}\r\n{date}Content-Type: {}\r\nContent-Length: {}\r\nConnection: {connection}\r\n{}\r\n",
            self.code,
            self.kind,
            self.body.len(),
            self.headers
        )
        .into_bytes()
    }
}
