//! How browsers reach the demo's two pages: from this machine, or from phones beside it.
//!
//! Owns the address that is listened on and the one that is shown, the certificate of this run and
//! its CA, the host page's key, and QR codes. Beyond loopback the host page has a key, since it
//! controls the room. Doesn't know what the pages are.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

use qrcodegen::{QrCode, QrCodeEcc};

use crate::authority::{Authority, Files};

/// Light modules around a code, of four that the standard asks for: cameras do with two.
const QUIET: i32 = 2;
/// Columns between two codes.
const GAP: usize = 4;

/// How the pages are reached.
pub struct Reach {
    /// Where they listen.
    pub ip: IpAddr,
    /// The address in links.
    shown: IpAddr,
    /// TLS, if they have it.
    pub tls: Option<Secure>,
    /// What a host page has to show.
    pub key: Option<String>,
}

/// The certificate of this run.
pub struct Secure {
    /// Chain and key, for the relay.
    pub files: Files,
    /// For the host page's server.
    pub server: Arc<rustls::ServerConfig>,
    /// The CA's certificate, PEM.
    pub ca: String,
}

impl Reach {
    /// Listens on this address, or on loopback.
    ///
    /// # Errors
    /// What failed: there is no network, or no certificate can be made.
    pub fn new(listen: Option<IpAddr>, is_secure: bool) -> Result<Self, String> {
        let ip = listen.unwrap_or(Ipv4Addr::LOCALHOST.into());
        let shown = if ip.is_unspecified() { own_address(ip)? } else { ip };
        let tls = is_secure.then(|| Secure::new(shown)).transpose()?;
        let key = (!ip.is_loopback()).then(super::secret).transpose()?.map(|secret| secret[..KEY_SIZE].to_owned());
        Ok(Self { ip, shown, tls, key })
    }

    /// `http` or `https`.
    pub const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// The address of a page at this port, with this path.
    pub fn link(&self, port: u16, path: &str) -> String {
        format!("{}://{}{path}", self.scheme(), SocketAddr::from((self.shown, port)))
    }

    /// Whether other machines can reach the pages.
    pub const fn is_public(&self) -> bool {
        !self.ip.is_loopback()
    }
}

/// Digits of the key: 64 bits.
const KEY_SIZE: usize = 16;

impl Secure {
    fn new(shown: IpAddr) -> Result<Self, String> {
        let authority = Authority::new("sharelinkd demo")?;
        let files = authority.issue(&[shown.to_string(), "localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let text = |path| fs::read(path).map_err(|error| error.to_string());
        let server = business::tls::config(&text(&files.certificate)?, &text(&files.key)?, None);
        Ok(Self { files, server: server.map_err(|error| error.to_string())?, ca: authority.pem() })
    }
}

/// The address of this machine that its packets to the world have. Sends none.
fn own_address(any: IpAddr) -> Result<IpAddr, String> {
    // Addresses of the documentation (RFC 5737, RFC 3849).
    let elsewhere: IpAddr = match any {
        IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    let socket = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((elsewhere, 9)).map(|()| socket));
    let own = socket.and_then(|socket| socket.local_addr()).map(|address| address.ip());
    own.map_err(|error| {
        format!("this machine's address in its network can't be found ({error}); name it: --listen ADDRESS")
    })
}

/// QR codes of these texts beside each other, each under its title; `None` if one is too long.
/// `has_colours` is black on white, whatever the terminal's own colours are.
pub fn codes(titled: &[(&str, &str)], has_colours: bool) -> Option<String> {
    let codes: Vec<(&str, QrCode)> = titled
        .iter()
        .map(|(title, text)| Some((*title, QrCode::encode_text(text, QrCodeEcc::Low).ok()?)))
        .collect::<Option<_>>()?;
    let width = |code: &QrCode| usize::try_from(code.size() + 2 * QUIET).unwrap_or_default();
    let mut out = String::new();
    for (title, code) in &codes {
        let _ = write!(out, "  {title:<0$}", width(code) + GAP - 2);
    }
    let out = out.trim_end().to_owned() + "\n";
    let tallest = codes.iter().map(|(_, code)| code.size()).max()?;
    let (begin, end) = if has_colours { ("\x1b[30;107m", "\x1b[0m") } else { ("", "") };
    // Two rows of modules are one of text.
    let rows = (-QUIET..tallest + QUIET).step_by(2).map(|y| {
        let of = |code: &QrCode| {
            if y >= code.size() + QUIET {
                return " ".repeat(width(code));
            }
            let row = (-QUIET..code.size() + QUIET).map(|x| match (code.get_module(x, y), code.get_module(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
            format!("{begin}{}{end}", row.collect::<String>())
        };
        codes.iter().map(|(_, code)| of(code)).collect::<Vec<_>>().join(&" ".repeat(GAP))
    });
    Some(out + &rows.map(|row| row + "\n").collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_beyond_loopback_the_host_page_has_a_key() {
        let here = Reach::new(None, false).unwrap();
        assert!(here.key.is_none() && !here.is_public());
        assert_eq!(here.link(8080, "/s/demo"), "http://127.0.0.1:8080/s/demo");
        let there = Reach::new(Some("192.0.2.7".parse().unwrap()), true).unwrap();
        assert!(there.is_public() && there.key.as_ref().is_some_and(|key| key.len() == KEY_SIZE));
        assert_eq!(there.link(8080, "/s/demo"), "https://192.0.2.7:8080/s/demo");
        let v6 = Reach::new(Some("2001:db8::7".parse().unwrap()), false).unwrap();
        assert_eq!(v6.link(8081, "/"), "http://[2001:db8::7]:8081/");
        let tls = there.tls.unwrap();
        let shown = std::process::Command::new("openssl")
            .args(["x509", "-noout", "-ext", "subjectAltName", "-checkend", "2500000", "-in"])
            .arg(&tls.files.certificate)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.status.success() && text.contains("IP Address:192.0.2.7, DNS:localhost"), "{text}");
        let mode = |path: &std::path::Path| std::os::unix::fs::MetadataExt::mode(&fs::metadata(path).unwrap()) & 0o777;
        assert_eq!((mode(&tls.files.key), mode(tls.files.key.parent().unwrap())), (0o600, 0o700));
        let key = tls.files.key.clone();
        drop(tls);
        assert!(!key.exists(), "the key goes with the demo");
    }

    #[test]
    fn a_code_is_what_a_camera_reads() {
        let text = codes(&[("a title", "https://192.0.2.7:8080/s/demo"), ("b", "x")], false).unwrap();
        let rows: Vec<Vec<char>> = text.lines().skip(1).map(|row| row.chars().collect()).collect();
        assert!(text.starts_with("  a title"));
        // The first is of version 2, 25 modules wide, the second of version 1 with 21.
        assert_eq!((rows.len(), rows[0].len()), (15, 25 + 4 + GAP + 21 + 4));
        let code = QrCode::encode_text("https://192.0.2.7:8080/s/demo", QrCodeEcc::Low).unwrap();
        for y in 0..25 {
            for x in 0..25 {
                let found = rows[(y + 2) / 2][x + 2];
                let is_dark = if y % 2 == 0 { matches!(found, '█' | '▀') } else { matches!(found, '█' | '▄') };
                let (x, y) = (i32::try_from(x).unwrap(), i32::try_from(y).unwrap());
                assert_eq!(is_dark, code.get_module(x, y), "{x} {y}");
            }
        }
        assert!(codes(&[("", &"x".repeat(3_000))], true).is_none());
        assert_eq!(codes(&[("", "x")], true).unwrap().matches("\x1b[30;107m").count(), 13);
    }
}
