//! The webhook's URL, and to which addresses it may lead.
//!
//! Owns both rules: the form of the URL, and the addresses that are refused after resolution.
//! Link-local and unspecified addresses are never called: the metadata services of clouds live
//! there. In clear, only loopback and private addresses are. No error quotes the URL: its path or
//! its query may hold a secret. Resolves nothing itself.

use std::{fmt, net::IpAddr};

use hyper::{Uri, http::uri::Scheme};

/// Where the webhook is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// `https`.
    pub is_tls: bool,
    /// The host: a name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Host and port as the `Host` header has them.
    pub authority: String,
    /// Path and query.
    pub target: String,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong and how to mend it, without the URL itself.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "the URL can't be read: write it as https://host/path";
        if text.contains('#') {
            return Err("the URL has a fragment, which is never sent: remove everything from # on");
        }
        let uri: Uri = text.parse().map_err(|_| FORM)?;
        let (scheme, authority) = uri.scheme().zip(uri.authority()).ok_or(FORM)?;
        let is_tls = *scheme == Scheme::HTTPS;
        if !is_tls && *scheme != Scheme::HTTP {
            return Err("the URL begins with neither https:// nor http://");
        }
        if authority.as_str().contains('@') {
            return Err("the URL has a user name or a password: remove it, calls are signed instead");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match authority.port_u16() {
            Some(0) => return Err("the URL has the port 0: write the real one"),
            Some(port) => port,
            // With a port that is no number, only the text after the host shows it.
            None if authority.as_str().len() > authority.host().len() => return Err("the URL's port is not a number"),
            None if is_tls => 443,
            None => 80,
        };
        if host.is_empty() {
            return Err(FORM);
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let url = Self { is_tls, host, port, authority: authority.to_string(), target };
        match url.host.parse().ok().and_then(|ip| url.objection(ip)) {
            Some(objection) => Err(objection),
            None => Ok(url),
        }
    }

    /// Why the webhook isn't called at this address; `None` if it is.
    pub fn objection(&self, ip: IpAddr) -> Option<&'static str> {
        let ip = ip.to_canonical();
        let is_refused = match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.octets()[0] == 0 || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_unspecified(),
        };
        if is_refused || ip.is_multicast() {
            return Some(
                "the host has a link-local, unspecified or multicast address, which is never called: write the address of your API, or its name",
            );
        }
        let is_near = match ip {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
        };
        (!self.is_tls && !is_near)
            .then_some("the host has a public address, where http:// would show share links to anybody: use https://")
    }
}

/// Scheme, host and port: what logs may show.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_tls { "https" } else { "http" }, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_a_path() {
        let parse = |text| Url::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
        for (text, is_tls, host, port, authority, target) in [
            ("https://api.example.com/hooks?k=1", true, "api.example.com", 443, "api.example.com", "/hooks?k=1"),
            ("https://api.example.com:8443", true, "api.example.com", 8443, "api.example.com:8443", "/"),
            ("http://localhost:3000/h", false, "localhost", 3000, "localhost:3000", "/h"),
            ("http://[::1]:3000/h", false, "::1", 3000, "[::1]:3000", "/h"),
            ("http://10.0.0.7/h", false, "10.0.0.7", 80, "10.0.0.7", "/h"),
        ] {
            let url = parse(text);
            let said = (url.is_tls, url.host.as_str(), url.port, url.authority.as_str(), url.target.as_str());
            assert_eq!(said, (is_tls, host, port, authority, target));
        }
        assert_eq!(parse("https://api.example.com:8443/s3cret?s3cret").to_string(), "https://api.example.com:8443");
    }

    #[test]
    fn what_is_no_url_or_leads_astray_is_refused_without_a_word_of_it() {
        for bad in [
            "",
            "s3cret",
            "/s3cret",
            "api.example.com/s3cret",
            "ftp://api.example.com/s3cret",
            "https://",
            "https:///s3cret",
            "https://user:s3cret@api.example.com/",
            "https://api.example.com/#s3cret",
            "https://api.example.com:0/s3cret",
            "https://api.example.com:99999/s3cret",
            "https://api.example.com:s3/s3cret",
            "https://api.example.com/a s3cret",
            "http://93.184.215.14/s3cret",
            "http://[2606:2800::1]/s3cret",
            "https://169.254.169.254/s3cret",
            "http://169.254.169.254/s3cret",
            "https://0.0.0.0/s3cret",
            "https://[fe80::1]/s3cret",
            "https://[::]/s3cret",
            "https://[::ffff:169.254.169.254]/s3cret",
        ] {
            let why = Url::parse(bad).unwrap_err();
            assert!(!why.contains("s3"), "{why}");
        }
    }

    #[test]
    fn in_clear_only_near_addresses_are_called() {
        let objects = |url: &str, ip: &str| Url::parse(url).unwrap().objection(ip.parse().unwrap()).is_some();
        for near in
            ["127.0.0.1", "127.9.9.9", "::1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "fd12::1", "::ffff:10.0.0.1"]
        {
            assert!(!objects("http://name/", near) && !objects("https://name/", near), "{near}");
        }
        for public in ["93.184.215.14", "172.32.0.1", "2606:2800::1", "::ffff:8.8.8.8"] {
            assert!(objects("http://name/", public) && !objects("https://name/", public), "{public}");
        }
        for never in [
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "fe80::1",
            "::ffff:169.254.1.1",
            "255.255.255.255",
            "ff02::1",
        ] {
            assert!(objects("http://name/", never) && objects("https://name/", never), "{never}");
        }
    }
}
