//! The configuration's values: networks, devices, the secret. For addresses see `address.rs`, for
//! origins `origin.rs`.
//!
//! Owns their types and how each is parsed. Refuses values that can't work, with what is wrong and
//! how to write it instead. Knows nothing of keys and lines.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::file::{self, NoText};

/// An error in a value or in a file that it names: what is wrong, and the remedy.
pub type Wrong = (String, String);

/// Linux's limit for the path of a Unix socket (`sun_path`), without the terminating NUL.
const SOCKET_PATH_SIZE_MAX: usize = 107;

/// A network or a single address: all addresses that share the first `prefix` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether an address is in the network. An IPv4 address mapped into IPv6 is the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                u32::from(network) & mask == u32::from(address) & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                u128::from(network) & mask == u128::from(address) & mask
            }
            _ => false,
        }
    }

    /// The network's first address. Differs from `address` if that has bits set beyond the prefix.
    fn base(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => IpAddr::from(
                (u32::from(address) & u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)).to_be_bytes(),
            ),
            IpAddr::V6(address) => IpAddr::from(
                (u128::from(address) & u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0)).to_be_bytes(),
            ),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.address.is_ipv4() { 32 } else { 128 };
        if self.prefix == whole { write!(f, "{}", self.address) } else { write!(f, "{}/{}", self.address, self.prefix) }
    }
}

/// The secret shared with the business server. Its bytes are never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps the bytes of a secret.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes, only for computing the handshake's proofs.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the secret is empty, that is, not set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() { f.write_str("empty") } else { write!(f, "set, {} bytes", self.0.len()) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({self})")
    }
}

/// The engineer's serial line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serial {
    /// The device, an absolute path.
    pub device: PathBuf,
    /// Bits per second.
    pub speed: u32,
}

/// Parses a secret file: one line of text. A byte order mark and the line ending come from the
/// editor and are not part of the secret.
pub fn secret(bytes: &[u8]) -> Result<Secret, Wrong> {
    const REMEDY: &str = "write the secret alone into it, on one line";
    let text = file::text(bytes).map_err(|NoText { what, remedy, .. }| (what.to_owned(), remedy.to_owned()))?;
    let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        return wrong("is empty", "write the secret into it, on one line");
    }
    if line.trim().is_empty() {
        return wrong("has only white space", "write the secret into it, on one line");
    }
    if line.contains('\n') {
        return wrong("has several lines", REMEDY);
    }
    // They are invisible in an editor, and the business server's secret will not have them.
    if line.contains(|c: char| c.is_control() || c == '\u{feff}') {
        return wrong("has control characters", REMEDY);
    }
    Ok(Secret::new(line.as_bytes().to_vec()))
}

/// Parses an address, or a network as `address/bits`.
pub fn network(text: &str) -> Result<Network, Wrong> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let Ok(address) = address.parse::<IpAddr>() else {
        return wrong("it is neither an address nor a network", "write \"10.0.0.7\", \"10.0.0.0/8\" or \"fd00::/8\"");
    };
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match bits.map(str::parse::<u8>) {
        None => whole,
        Some(Ok(prefix)) if prefix <= whole => prefix,
        Some(_) => return wrong("the prefix length after / is out of range", &format!("write /0 to /{whole}")),
    };
    let network = Network { address, prefix };
    let base = network.base();
    if base != address {
        return wrong(
            "it has bits set beyond its prefix",
            &format!("write \"{base}/{prefix}\" for the network, or \"{address}\" for the one address"),
        );
    }
    Ok(network)
}

/// Parses the absolute path of a Unix socket.
pub fn socket(text: &str) -> Result<PathBuf, Wrong> {
    let path = absolute(text, "/run/sharelinkd/console.sock")?;
    if text.len() > SOCKET_PATH_SIZE_MAX {
        return wrong(&format!("a socket path has at most {SOCKET_PATH_SIZE_MAX} bytes"), "choose a shorter path");
    }
    Ok(path)
}

/// Parses the absolute path of a serial device.
pub fn device(text: &str) -> Result<PathBuf, Wrong> {
    absolute(text, "/dev/ttyS1")
}

/// Parses the absolute path of the directory of ACME challenges.
pub fn directory(text: &str) -> Result<PathBuf, Wrong> {
    absolute(text, "/var/lib/acme")
}

fn absolute(text: &str, example: &str) -> Result<PathBuf, Wrong> {
    if !text.starts_with('/') || text.ends_with('/') || text.chars().any(char::is_control) {
        return wrong("it is not an absolute path", &format!("write a path such as {example:?}"));
    }
    Ok(Path::new(text).to_owned())
}

/// The error for a wrong value.
pub fn wrong<T>(what: &str, remedy: &str) -> Result<T, Wrong> {
    Err((what.to_owned(), remedy.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_shares_their_prefix() {
        let contains = |network_text: &str, address: &str| match (network(network_text), address.parse()) {
            (Ok(network), Ok(address)) => network.contains(address),
            other => panic!("{other:?}"),
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.0.0.7", "10.0.0.7") && !contains("10.0.0.7", "10.0.0.6"));
        assert!(contains("0.0.0.0/0", "8.8.8.8") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("::/0", "::1") && contains("fd00::/8", "fd12::1") && !contains("fd00::/8", "fe80::1"));
        assert!(contains("127.0.0.0/8", "::ffff:127.0.0.1"));
    }

    #[test]
    fn wrong_values_say_how_to_write_them() {
        let cases: [(Result<(), Wrong>, &str); 5] = [
            (network("10.0.0.1/8").map(drop), "write \"10.0.0.0/8\" for the network"),
            (network("10.0.0.0/33").map(drop), "/0 to /32"),
            (network("proxy").map(drop), "10.0.0.0/8"),
            (socket("console.sock").map(drop), "/run/sharelinkd/console.sock"),
            (socket(&format!("/{}", "x".repeat(107))).map(drop), "a shorter path"),
        ];
        for (result, remedy) in cases {
            assert!(matches!(&result, Err((_, text)) if text.contains(remedy)), "{result:?} lacks {remedy}");
        }
    }

    #[test]
    fn good_values_print_as_they_are_written() {
        for text in ["10.0.0.0/8", "::1", "0.0.0.0/0"] {
            assert_eq!(network(text).map(|network| network.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new(b"hunter2".to_vec());
        assert_eq!(format!("{secret:?} {secret}"), "Secret(set, 7 bytes) set, 7 bytes");
    }

    #[test]
    fn a_secret_is_one_line_of_text_whatever_an_editor_puts_around_it() {
        for good in ["hunter2", "hunter2\n", "hunter2\r\n", "\u{feff}hunter2\r\n", "\u{feff}hunter2"] {
            assert_eq!(secret(good.as_bytes()).unwrap().bytes(), b"hunter2", "{good:?}");
        }
        assert_eq!(secret(" pass wörd ".as_bytes()).unwrap().bytes(), " pass wörd ".as_bytes());
        let cases: [(&[u8], &str); 13] = [
            (b"", "is empty"),
            (b"\r\n", "is empty"),
            ("\u{feff}\n".as_bytes(), "is empty"),
            (b" \t\n", "only white space"),
            ("\u{3000}".as_bytes(), "only white space"),
            (b"a\nb\n", "several lines"),
            (b"a\n\n", "several lines"),
            (b"a\rb", "control characters"),
            ("a\u{feff}b".as_bytes(), "control characters"),
            (b"a\0b", "NUL"),
            (b"\xff\xfea\0", "UTF-16"),
            (b"\xfe\xff\0a", "UTF-16"),
            (b"a\xff", "not UTF-8"),
        ];
        for (bytes, word) in cases {
            let (what, remedy) = secret(bytes).unwrap_err();
            assert!(what.contains(word) && !remedy.is_empty(), "{bytes:?}: {what}");
        }
    }
}
