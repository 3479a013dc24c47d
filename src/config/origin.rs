//! Origins: which pages may connect, in the form that browsers send (RFC 6454, section 6.2; the URL
//! Standard's host serializing).
//!
//! Owns which entries of `[pages] origins` are valid: exactly what some browser or WebView sends,
//! since origins are compared as text. So `file://`, `app://` and `capacitor://localhost` are
//! accepted. What no browser sends (a path, the scheme's default port, an upper-case host) is
//! refused, with the form that a browser would send. Knows nothing of requests.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::values::{Wrong, wrong};

/// The maximum size of an `Origin`, in bytes.
const ORIGIN_SIZE_MAX: usize = 256;

/// The origins that may open a page's WebSocket, besides the relay's own host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// All origins.
    Any,
    /// Only these, in the form that browsers send.
    Listed(Vec<String>),
}

impl Origins {
    /// Whether this `Origin` header is allowed. Ignores case: browsers send scheme and host in
    /// lower case, but other clients may not.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(listed) => listed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)),
        }
    }
}

const FORM: &str =
    "write it as browsers send it: \"https://share.example\", with a port only if it is not the scheme's default";

/// Parses an `Origin` as browsers send it, or `*`, or `null`.
pub fn origin(text: &str) -> Result<String, Wrong> {
    if text == "*" || text == "null" {
        return Ok(text.to_owned());
    }
    if text.trim() != text {
        return wrong("it has leading or trailing white space", &format!("write {:?}", text.trim()));
    }
    if text.eq_ignore_ascii_case("null") {
        return wrong("browsers send lower case", "write \"null\"");
    }
    if text.len() > ORIGIN_SIZE_MAX {
        return wrong(&format!("it is longer than {ORIGIN_SIZE_MAX} bytes"), FORM);
    }
    if !text.is_ascii() {
        let remedy = "write the host in its ASCII form, which begins with xn--: `location.origin` in the page's console prints it";
        return wrong("browsers send no letters beyond ASCII", remedy);
    }
    let Some((scheme, rest)) = text.split_once("://") else { return wrong("it has no scheme", FORM) };
    let is_web = matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https");
    let (host, path) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
    // Browsers lower-case the host only for http and https; hosts of other schemes, such as an
    // extension's, are sent unchanged.
    let as_sent = if is_web { host.to_ascii_lowercase() } else { host.to_owned() };
    let as_sent = format!("{}://{as_sent}", scheme.to_ascii_lowercase());
    if !as_sent.ends_with(host) || !as_sent.starts_with(scheme) {
        return wrong("browsers send lower case", &format!("write {as_sent:?}"));
    }
    if !path.is_empty() {
        return wrong("an origin has no path, not even /", &format!("write {as_sent:?}"));
    }
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if !is_scheme {
        return wrong("it is not an origin", FORM);
    }
    if host.contains('*') {
        return wrong("an origin has no wildcard", "list every origin, or write only \"*\" for any");
    }
    if host.is_empty() {
        // `file:` and WebViews of apps with a custom scheme send no host.
        return if is_web { wrong("it has no host", FORM) } else { Ok(text.to_owned()) };
    }
    // Colons inside the brackets of an IPv6 address don't introduce a port.
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    if let Some(port) = port {
        let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
        if !is_port {
            return wrong("a port is a number from 1 to 65535", FORM);
        }
        if port.starts_with('0') {
            let port = port.trim_start_matches('0');
            return wrong("browsers send a port without leading zeros", &format!("write \"{scheme}://{name}:{port}\""));
        }
        if matches!((scheme, port), ("https", "443") | ("http", "80")) {
            return wrong("browsers leave out the scheme's default port", &format!("write \"{scheme}://{name}\""));
        }
    }
    let name_as_sent = name_as_sent(name, is_web)?;
    if name_as_sent != name {
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        return wrong("browsers write that address differently", &format!("write \"{scheme}://{name_as_sent}{port}\""));
    }
    Ok(text.to_owned())
}

/// Parses the public URL of the share pages: an http or https origin, with or without a trailing
/// slash.
pub fn public_url(text: &str) -> Result<String, Wrong> {
    let bare = text.strip_suffix('/').unwrap_or(text);
    if !bare.starts_with("https://") && !bare.starts_with("http://") {
        return wrong("it is not an http or https URL", "write \"https://share.example\"");
    }
    origin(bare)
}

/// The host as browsers write it. Host names of schemes other than http and https stay unchanged.
fn name_as_sent(name: &str, is_web: bool) -> Result<String, Wrong> {
    if let Some(address) = name.strip_prefix('[') {
        return match address.strip_suffix(']').map(str::parse::<Ipv6Addr>) {
            Some(Ok(address)) => Ok(format!("[{}]", hexadecimal(address))),
            _ => wrong("it has no IPv6 address between its brackets", "write it as \"https://[2001:db8::7]\""),
        };
    }
    let is_name = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'));
    if !is_name {
        return wrong("it is not an origin", FORM);
    }
    // Browsers take a host that ends in a number as an IPv4 address, or as invalid.
    let last = name.strip_suffix('.').unwrap_or(name).rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) && !last.is_empty() || last.starts_with("0x");
    if is_web && is_number && name.parse::<Ipv4Addr>().is_err() {
        return wrong("it is not an IPv4 address", "write all four numbers, as in \"http://192.0.2.7\"");
    }
    Ok(name.to_owned())
}

/// An IPv6 address as the URL Standard writes it: never with dots, which Rust prints for an
/// embedded IPv4 address.
fn hexadecimal(address: Ipv6Addr) -> String {
    let text = address.to_string();
    let [.., high, low] = address.segments();
    match text.rsplit_once(':') {
        Some((before, behind)) if behind.contains('.') => format!("{before}:{high:x}:{low:x}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_browsers_send_is_taken() {
        for text in [
            "*",
            "null",
            "https://share.example",
            "https://a.example:8443",
            "http://a.example:443",
            "https://xn--r8jz45g.example",
            "https://a.example.",
            "http://localhost",
            "http://localhost:3000",
            "http://127.0.0.1:5173",
            "http://[::1]:5173",
            "https://[2001:db8::7]",
            "https://[::ffff:7f00:1]",
            "file://",
            "app://",
            "app://.",
            "app://obsidian.md",
            "capacitor://localhost",
            "ionic://localhost",
            "tauri://localhost",
            "https://tauri.localhost",
            "chrome-extension://aapbdbdomjkkjkaonfhkkikfgjllcleb",
            "moz-extension://e8f1d8f4-3a0c-4d6f-9b0e-0c6f7e2a5b11",
            "safari-web-extension://E8F1D8F4-3A0C-4D6F-9B0E-0C6F7E2A5B11",
            "android-app://com.example.app",
            "content://com.example.provider",
            "x+y.z-1://host",
        ] {
            assert_eq!(origin(text).as_deref(), Ok(text));
        }
        let listed = Origins::Listed(vec!["file://".into()]);
        assert!(listed.allows("file://") && !listed.allows("null") && !listed.allows("file://x"));
    }

    #[test]
    fn what_no_browser_sends_is_refused_with_what_it_does_send() {
        for (text, what, remedy) in [
            ("", "no scheme", "https://share.example"),
            ("share.example", "no scheme", "https://share.example"),
            ("localhost:3000", "no scheme", "https://share.example"),
            ("NULL", "lower case", "write \"null\""),
            (" https://a.example", "white space", "write \"https://a.example\""),
            ("https://a.example/", "no path", "write \"https://a.example\""),
            ("https://a.example?x", "no path", "write \"https://a.example\""),
            ("https://A.example/x", "lower case", "write \"https://a.example\""),
            ("HTTPS://a.example", "lower case", "write \"https://a.example\""),
            ("FILE://", "lower case", "write \"file://\""),
            ("file:///", "no path", "write \"file://\""),
            ("file:///data/index.html", "no path", "write \"file://\""),
            ("https://a.example:443", "default port", "write \"https://a.example\""),
            ("http://[::1]:80", "default port", "write \"http://[::1]\""),
            ("https://a.example:08443", "without leading zeros", "write \"https://a.example:8443\""),
            ("https://a.example:+8443", "from 1 to 65535", "https://share.example"),
            ("https://a.example:0", "from 1 to 65535", "https://share.example"),
            ("https://a.example:", "from 1 to 65535", "https://share.example"),
            ("https://", "no host", "https://share.example"),
            ("https://:8443", "not an origin", "https://share.example"),
            ("https://me@a.example", "not an origin", "https://share.example"),
            ("https://*.a.example", "no wildcard", "list every origin"),
            ("https://例え.example", "beyond ASCII", "xn--"),
            ("https://a b.example", "not an origin", "https://share.example"),
            ("https://[::1", "no IPv6", "[2001:db8::7]"),
            ("https://[0:0::1]:8443", "differently", "write \"https://[::1]:8443\""),
            ("https://[::ffff:127.0.0.1]", "differently", "write \"https://[::ffff:7f00:1]\""),
            ("http://127.1", "not an IPv4", "all four numbers"),
            ("http://2130706433", "not an IPv4", "all four numbers"),
            ("http://0x7f.1", "not an IPv4", "all four numbers"),
            ("1app://x", "not an origin", "https://share.example"),
            ("://x", "not an origin", "https://share.example"),
        ] {
            let error = origin(text).unwrap_err();
            assert!(error.0.contains(what) && error.1.contains(remedy), "{text:?}: {error:?}");
        }
        assert!(origin(&format!("https://{}", "a".repeat(300))).unwrap_err().0.contains("longer than 256"));
    }
}
