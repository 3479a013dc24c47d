//! Parses an HTTP/1 request: the request line, the header lines, and the MUSTs of RFC 9110 and RFC
//! 9112 about them.
//!
//! Owns the refusal of what is not HTTP (400, 414, 431, 505), the requested host, the decoding of a
//! path, and lists that span several header lines. Header values are bytes. One that can't be read
//! is still present, and is refused by the code that needs it. Knows no paths, no socket and no
//! clock: `head.rs` routes the request.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use httparse::{Error, Header, Status};

use super::response::Response;

/// How a hello of TLS begins: a record of its handshake, of major version 3.
const TLS_HELLO: &[u8] = &[22, 3];
/// Bytes of a request head, at most: 8 KiB, as in common servers. One cookie alone may have 4096
/// bytes (RFC 6265, 6.1), and in-app browsers send many other header lines. Each head that is being
/// read has a buffer of this size.
pub const HEAD_SIZE_MAX: usize = 8192;
/// Header lines of a request, at most: 100, as in common servers. Browsers behind two proxies send
/// about 40.
pub const HEADERS_MAX: usize = 100;

/// Room for a request's header lines.
pub type Lines<'b> = [Header<'b>; HEADERS_MAX];

/// A request that follows HTTP's own rules.
#[derive(Debug)]
pub struct Request<'b, 'h> {
    /// The method as sent: methods are case-sensitive.
    pub method: &'b str,
    /// The path as sent, percent-encoding included.
    pub spelled: &'b str,
    /// The query, with its question mark; empty without one.
    pub query: &'b str,
    /// The requested host, with its port; `None` if the request names none.
    pub host: Option<&'b str>,
    /// HTTP/1.0, which has no upgrade.
    pub is_old: bool,
    /// A body follows; it is not read.
    pub has_body: bool,
    lines: &'h [Header<'b>],
}

/// The size of the head at the start of `bytes`; `None` if it is incomplete.
///
/// # Errors
/// The answer to bytes that can't become a head of at most [`HEAD_SIZE_MAX`] bytes.
pub fn size(bytes: &[u8]) -> Result<Option<usize>, Response> {
    match split(bytes, &mut [httparse::EMPTY_HEADER; HEADERS_MAX])? {
        Some((size, ..)) => Ok(Some(size)),
        None if bytes.len() < HEAD_SIZE_MAX => Ok(None),
        None if bytes.trim_ascii_start().contains(&b'\n') => Err(too_large()),
        None => Err(Response::plain(414, &format!("a request head is at most {HEAD_SIZE_MAX} bytes\n"))),
    }
}

/// Whether the bytes, which may be invalid or incomplete, begin as a HEAD: then the answer must
/// have no body (RFC 9110, 9.3.2).
#[must_use]
pub fn begins_as_head(bytes: &[u8]) -> bool {
    let line = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).and_then(|at| bytes.get(at..));
    line.is_some_and(|line| line.starts_with(b"HEAD "))
}

fn too_large() -> Response {
    Response::plain(431, &format!("a request head is at most {HEAD_SIZE_MAX} bytes and {HEADERS_MAX} header lines\n"))
}

fn wrong(what: &str) -> Response {
    Response::plain(400, &format!("not an HTTP request: {what}\n"))
}

/// Method, target, and whether it is HTTP/1.0.
type RequestLine<'b> = (&'b str, &'b str, bool);
type Split<'b, 'h> = (usize, RequestLine<'b>, &'h [Header<'b>]);

/// Splits a head into its parts; `None` if it is incomplete.
fn split<'b, 'h>(bytes: &'b [u8], lines: &'h mut Lines<'b>) -> Result<Option<Split<'b, 'h>>, Response> {
    let mut rest = bytes;
    // Empty lines before the request line are skipped (RFC 9112, 2.2).
    while let Some(behind) = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")) {
        rest = behind;
    }
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
        // Refuse early what can't become a request line: TLS and other protocols.
        line(rest)?;
        return Ok(None);
    };
    let (first, behind) = rest.split_at(end);
    let first = request_line(line(first)?)?;
    let behind = behind.get(1..).unwrap_or_default();
    match httparse::parse_headers(behind, lines) {
        Ok(Status::Complete((size, lines))) => Ok(Some((bytes.len() - behind.len() + size, first, lines))),
        Ok(Status::Partial) => Ok(None),
        Err(Error::TooManyHeaders) => Err(too_large()),
        Err(error) => Err(wrong(&error.to_string())),
    }
}

/// A line's text, without the CR at its end.
fn line(bytes: &[u8]) -> Result<&str, Response> {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let is_plain = bytes.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let is_tls = bytes.starts_with(TLS_HELLO);
    let what = if is_tls { "it is a TLS handshake" } else { "invalid bytes in the request line" };
    std::str::from_utf8(bytes).ok().filter(|_| is_plain).ok_or_else(|| wrong(what))
}

fn request_line(line: &str) -> Result<RequestLine<'_>, Response> {
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(wrong("a request line is a method, a target and a version"));
    };
    if method.is_empty() || !method.bytes().all(is_token) || target.is_empty() {
        return Err(wrong("a method is a token, and a target is not empty"));
    }
    match version.strip_prefix("HTTP/").map(str::as_bytes) {
        // A later minor version is treated as 1.1 (RFC 9110, 2.5).
        Some([b'1', b'.', minor @ b'0'..=b'9']) => Ok((method, target, *minor == b'0')),
        Some([b'0'..=b'9', b'.', b'0'..=b'9']) => {
            Err(Response::plain(505, "only HTTP/1.1 and HTTP/1.0 are supported\n"))
        }
        _ => Err(wrong("the version must be HTTP/1.1")),
    }
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

impl<'b, 'h> Request<'b, 'h> {
    /// Parses a complete head.
    ///
    /// # Errors
    /// The answer to a request that breaks a MUST of HTTP.
    pub fn parse(head: &'b [u8], lines: &'h mut Lines<'b>) -> Result<Self, Response> {
        let Some((_, (method, target, is_old), lines)) = split(head, lines)? else {
            return Err(wrong("it is incomplete"));
        };
        let mut request = Self { method, spelled: target, query: "", host: None, is_old, has_body: false, lines };
        request.host = request.own_host()?;
        request.has_body = request.has_body()?;
        request.take_apart(target)?;
        Ok(request)
    }

    /// The values of all header lines with this name, in order.
    pub fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = &'b [u8]> {
        let lines = self.lines.iter().filter(move |line| line.name.eq_ignore_ascii_case(name));
        lines.map(|line| line.value.trim_ascii())
    }

    /// The members of a list: header lines of one name form one list, and empty members don't count
    /// (RFC 9110, 5.3 and 5.6.1).
    pub fn members(&self, name: &str) -> impl DoubleEndedIterator<Item = &'b [u8]> {
        let members = self.values(name).flat_map(|value| value.split(|byte| *byte == b','));
        members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
    }

    /// Whether a list contains a word, in any case.
    pub fn lists(&self, name: &str, word: &str) -> bool {
        self.members(name).any(|member| member.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// The value of a header that may occur once.
    ///
    /// # Errors
    /// The answer to several lines.
    pub fn only(&self, name: &str) -> Result<Option<&'b [u8]>, Response> {
        let mut values = self.values(name);
        let value = values.next();
        if values.next().is_some() { Err(wrong(&format!("{name} occurs more than once"))) } else { Ok(value) }
    }

    /// The path with each unreserved character percent-decoded (RFC 3986, 6.2.2.2).
    pub fn path(&self) -> Cow<'b, str> {
        plain(self.spelled)
    }

    /// The value of `Host`.
    fn own_host(&self) -> Result<Option<&'b str>, Response> {
        let Some(host) = self.only("Host")? else {
            return if self.is_old { Ok(None) } else { Err(wrong("it has no Host")) };
        };
        let host = std::str::from_utf8(host).ok().filter(|host| is_authority(host));
        host.map(Some).ok_or_else(|| wrong("its Host is not a valid host"))
    }

    /// Whether a body follows. It is not read, but an ambiguous length is refused (RFC 9112, 6.3).
    fn has_body(&self) -> Result<bool, Response> {
        let lengths = self.values("Content-Length").flat_map(|value| value.split(|byte| *byte == b','));
        let mut lengths = lengths.map(|length| number(length.trim_ascii()));
        let length = lengths.next();
        if length == Some(None) || lengths.any(|other| Some(other) != length) {
            return Err(wrong("its Content-Length is not a single number"));
        }
        if self.values("Transfer-Encoding").next().is_none() {
            return Ok(length.flatten().is_some_and(|digits| !digits.is_empty()));
        }
        let coding = self.members("Transfer-Encoding").next_back().unwrap_or_default();
        if self.is_old || length.is_some() || !coding.eq_ignore_ascii_case(b"chunked") {
            return Err(wrong("its Transfer-Encoding is invalid"));
        }
        Ok(true)
    }

    /// Parses a target in one of its four forms (RFC 9112, 3.2).
    fn take_apart(&mut self, target: &'b str) -> Result<(), Response> {
        let mut rest = target.split('#').next().unwrap_or_default();
        let is_for_others = target == "*" && self.method == "OPTIONS" || self.method == "CONNECT";
        if !rest.starts_with('/') && !is_for_others {
            let (scheme, behind) = rest.split_once("://").ok_or_else(|| wrong("its target is not a path"))?;
            let end = behind.find(['/', '?']).unwrap_or(behind.len());
            let (host, behind) = behind.split_at(end);
            let is_ours = ["http", "https", "ws", "wss"].iter().any(|ours| scheme.eq_ignore_ascii_case(ours));
            if !is_ours || host.is_empty() || host.starts_with(':') || !is_authority(host) {
                return Err(wrong("its target is not an HTTP URL"));
            }
            // It overrides `Host`.
            (self.host, rest) = (Some(host), behind);
        }
        let (path, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
        (self.spelled, self.query) = (if path.is_empty() { "/" } else { path }, query);
        Ok(())
    }
}

/// The digits of a number of any size, without leading zeros; `None` if it is not a number.
fn number(digits: &[u8]) -> Option<&[u8]> {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    digits.get(zeros..).filter(|_| is_number)
}

/// Whether a text is a host, with or without a port (RFC 3986, 3.2.2). The name may be empty.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rfind(']') {
        Some(end) => text.split_at(end + 1),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_port =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
    let is_host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').is_some_and(|it| it.parse::<Ipv6Addr>().is_ok() || is_future(it)),
        None => is_name(host.as_bytes()),
    };
    is_host && is_port
}

/// Whether the text is an address of a future version (`IPvFuture`).
fn is_future(address: &str) -> bool {
    let Some((version, behind)) = address.strip_prefix(['v', 'V']).and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let is_own =
        |byte: u8| is_unreserved(byte) || matches!(byte, b'!' | b'$' | b'&' | b'\''..=b',' | b':' | b';' | b'=');
    !version.is_empty()
        && version.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !behind.is_empty()
        && behind.bytes().all(is_own)
}

/// Whether the bytes are a registered name: unreserved characters, sub-delimiters, and
/// percent-encoded bytes.
fn is_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let Some((first, behind)) = rest.split_first() {
        rest = match (first, behind) {
            (b'%', [high, low, behind @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => behind,
            (b'!' | b'$' | b'&' | b'\''..=b',' | b';' | b'=', _) => behind,
            (byte, _) if is_unreserved(*byte) => behind,
            _ => return false,
        };
    }
    true
}

/// Whether a host, with or without a port, is safe to write into a header line: letters, digits,
/// hyphens, underscores and dots. A host from a request must pass this before it is written
/// anywhere.
#[must_use]
pub fn is_plain_host(host: &str) -> bool {
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let is_label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    name.split('.').all(is_label) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn plain(path: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, behind) = rest.split_at(at);
        out.push_str(before);
        let byte = behind.get(1..3).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|byte| is_unreserved(*byte));
        let size = match byte {
            Some(byte) => {
                out.push(char::from(byte));
                3
            }
            None => {
                out.push('%');
                1
            }
        };
        rest = behind.get(size..).unwrap_or_default();
    }
    if out.is_empty() { Cow::Borrowed(path) } else { Cow::Owned(out + rest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_with_what_needs_no_encoding_as_itself() {
        for (spelled, path) in [
            ("/s/room", "/s/room"),
            ("/s/%72oom%7E7%2d%2E", "/s/room~7-."),
            ("%73", "s"),
            ("/s/a%2Fb%20c", "/s/a%2Fb%20c"),
            ("/s/%2572", "/s/%2572"),
            ("/%+1%-1%1%", "/%+1%-1%1%"),
            ("/%7%7E%", "/%7~%"),
        ] {
            assert_eq!(plain(spelled), path);
        }
    }

    #[test]
    fn a_host_is_one_and_only_a_plain_one_is_written_again() {
        for (host, is_host, is_written) in [
            ("share.example", true, true),
            ("share.example:8443", true, true),
            ("a_b.example", true, true),
            ("192.0.2.7:80", true, true),
            ("[2001:db8::7]:80", true, false),
            ("[v1.fe80::a+en1]:80", true, false),
            ("[v.a]", false, false),
            ("[v1.]", false, false),
            ("[x1.a]", false, false),
            ("", true, false),
            ("a.example.", true, false),
            ("a%20b", true, false),
            ("a;b", true, false),
            ("*", true, false),
            ("a:", true, false),
            ("a:0", true, false),
            ("a:65536", true, false),
            ("a:b", false, false),
            ("a b", false, false),
            ("a@b", false, false),
            ("a/b", false, false),
            ("a:1:2", false, false),
            ("[::1", false, false),
            ("[::1]80", false, false),
            ("x[::1]", false, false),
            ("a%2", false, false),
            ("\u{e9}.example", false, false),
        ] {
            assert_eq!((is_authority(host), is_plain_host(host)), (is_host, is_written), "{host:?}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused_as_soon_as_it_can_be() {
        for bytes in [&b"\x16\x03\x01"[..], b"GET /\x00", b"GET /\xe9", b"G\rE", b"one\n", b"GET  / HTTP/1.1\r\n"] {
            assert_eq!(size(bytes).unwrap_err().code, 400, "{bytes:?}");
        }
        for bytes in
            [&b""[..], b"\r", b"\r\n\n", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\nHost", b"GET / HTTP/1.1\r\n\r"]
        {
            assert_eq!(size(bytes).unwrap(), None, "{bytes:?}");
        }
        assert_eq!(size(b"\r\nGET / HTTP/1.1\r\n\r\nmore").unwrap(), Some(20));
        assert_eq!(size(&[b'x'; HEAD_SIZE_MAX]).unwrap_err().code, 414);
        let long = [&b"GET / HTTP/1.1\r\nX: "[..], &[b'x'; HEAD_SIZE_MAX]].concat();
        assert_eq!(size(long.get(..HEAD_SIZE_MAX).unwrap()).unwrap_err().code, 431);
        assert_eq!(size(long.get(..HEAD_SIZE_MAX - 1).unwrap()).unwrap(), None);
    }
}
