//! An HTTP response: a status, header lines, a body.
//!
//! Owns the response's wire format and the header lines that every response has (RFC 9110, RFC
//! 9112). Knows neither sockets nor requests: `head.rs` and `http.rs` choose the status. Refuses
//! nothing: the caller must have validated whatever part of a header line came from outside.

/// Keeps caches from storing a response that was made for one connection.
pub const NO_STORE: &str = "Cache-Control: no-store\r\n";

/// Every status in use, with its reason phrase.
pub const STATUSES: [(u16, &str); 15] = [
    (101, "Switching Protocols"),
    (200, "OK"),
    (301, "Moved Permanently"),
    (304, "Not Modified"),
    (308, "Permanent Redirect"),
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

/// A response.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub code: u16,
    /// The body's MIME type.
    pub kind: &'static str,
    /// Further header lines, each with its CRLF.
    pub headers: String,
    /// The body, as a GET gets it.
    pub body: std::borrow::Cow<'static, [u8]>,
    /// The request was a HEAD: `Content-Length` is as for GET, and the body is left out.
    pub is_head: bool,
    /// The connection stays open for another request.
    pub stays: bool,
}

impl Response {
    /// A plain-text response.
    #[must_use]
    pub fn plain(code: u16, text: &str) -> Self {
        let (kind, headers) = ("text/plain; charset=utf-8", NO_STORE.to_owned());
        Self { code, kind, headers, body: text.as_bytes().to_vec().into(), is_head: false, stays: false }
    }

    /// Adds a header line.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// The body to send: empty for a HEAD.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        if self.is_head { &[] } else { &self.body }
    }

    /// The status line and headers. `date` is the time in HTTP's format, if the box knows it.
    #[must_use]
    pub fn head(&self, date: Option<&str>) -> Vec<u8> {
        let reason = STATUSES.iter().find(|(code, _)| *code == self.code).map_or("", |(_, reason)| reason);
        // `Upgrade` is a hop-by-hop header, so `Connection` must name it (RFC 9110, 7.8).
        let connection = match (self.headers.contains("Upgrade: "), self.stays) {
            (true, _) => "Connection: close, Upgrade\r\n",
            (false, false) => "Connection: close\r\n",
            (false, true) => "",
        };
        // A 304 says nothing of the body that the peer has (RFC 9110, 15.4.5).
        let of_body = match self.code {
            304 => String::new(),
            _ => format!("Content-Type: {}\r\nContent-Length: {}\r\n", self.kind, self.body.len()),
        };
        let date = date.map(|date| format!("Date: {date}\r\n")).unwrap_or_default();
        format!("HTTP/1.1 {} {reason}\r\n{date}{of_body}{connection}{}\r\n", self.code, self.headers).into_bytes()
    }
}
