//! The configuration's values: addresses, networks, origins, devices, the secret.
//!
//! Owns their types and how each is read from its text. Refuses what can't be used as it stands, and
//! says what is wrong and how to write it; every address is literal, since names would have to be
//! resolved. Knows nothing of keys, lines or files.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// What is wrong with a value, and how to write it.
pub type Wrong = (String, String);

/// Linux's own limit for the path of a Unix socket, its closing zero excluded.
const SOCKET_PATH_SIZE_MAX: usize = 107;
/// The longest `Origin` that is compared.
const ORIGIN_SIZE_MAX: usize = 256;

/// Where the business server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UplinkAddress {
    /// An address and a port.
    Tcp(SocketAddr),
    /// The absolute path of a Unix socket.
    Unix(PathBuf),
}

impl UplinkAddress {
    /// Whether what is sent there stays on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for UplinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The origins that may open a page's WebSocket, besides the relay's own host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Every one.
    Any,
    /// These, as browsers send them.
    Listed(Vec<String>),
}

impl Origins {
    /// Whether this `Origin` header is allowed. Browsers send scheme and host in lower case; others may not.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(listed) => listed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)),
        }
    }
}

/// A network, or one address: the addresses that share `prefix` leading bits.
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

    /// The network's first address: where it is not `address`, bits beyond the prefix were set.
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
    /// A secret of these bytes.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes, for the proofs alone.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is none.
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
    /// Bits a second.
    pub speed: u32,
}

/// Where something listens: a literal address and a port, 0 for any free one.
pub fn listener(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| address_wrong(text, "127.0.0.1:8080"))
}

/// Where metrics are served: the same, with another example.
pub fn metrics_listener(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| address_wrong(text, "127.0.0.1:9400"))
}

/// Where the uplink dials.
pub fn uplink_address(text: &str) -> Result<UplinkAddress, Wrong> {
    if let Some(path) = text.strip_prefix("unix:") {
        return socket(path)
            .map(UplinkAddress::Unix)
            .map_err(|(what, _)| (what, "write \"unix:/run/business.sock\"".to_owned()));
    }
    let address: SocketAddr = text.parse().map_err(|_| address_wrong(text, "127.0.0.1:7400"))?;
    if address.port() == 0 {
        return wrong("port 0 can't be dialled", "write the port that the business server listens on");
    }
    if address.ip().is_unspecified() {
        return wrong(
            "that is where to listen, not where to dial",
            "write the business server's address, such as \"127.0.0.1:7400\"",
        );
    }
    Ok(UplinkAddress::Tcp(address))
}

/// An address, or a network as `address/bits`.
pub fn network(text: &str) -> Result<Network, Wrong> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let Ok(address) = address.parse::<IpAddr>() else {
        return wrong("it is no address and no network", "write \"10.0.0.7\", \"10.0.0.0/8\" or \"fd00::/8\"");
    };
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match bits.map(str::parse::<u8>) {
        None => whole,
        Some(Ok(prefix)) if prefix <= whole => prefix,
        Some(_) => return wrong("the bits behind / are out of range", &format!("write /0 to /{whole}")),
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

/// An `Origin` as browsers send it, or `*`, or `null`.
pub fn origin(text: &str) -> Result<String, Wrong> {
    const FORM: &str =
        "write it as browsers send it: \"https://share.example\", with a port only where it is not the scheme's own";
    if text == "*" || text == "null" {
        return Ok(text.to_owned());
    }
    let Some((scheme, host)) = text.split_once("://") else { return wrong("it has no scheme", FORM) };
    let scheme_good = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.'));
    if !scheme_good && text.bytes().any(|byte| byte.is_ascii_uppercase())
        || host.bytes().any(|byte| byte.is_ascii_uppercase())
    {
        let host = host.split(['/', '?', '#']).next().unwrap_or_default();
        return wrong(
            "browsers send lower case",
            &format!("write {:?}", format!("{scheme}://{host}").to_ascii_lowercase()),
        );
    }
    if let Some(path) = host.find(['/', '?', '#']) {
        let (bare, _) = host.split_at(path);
        return wrong("an origin has no path, not even /", &format!("write \"{scheme}://{bare}\""));
    }
    if (scheme == "https" && host.ends_with(":443")) || (scheme == "http" && host.ends_with(":80")) {
        return wrong("browsers leave out the scheme's own port", FORM);
    }
    if let Some((_, port)) = host.rsplit_once(':')
        && !port.ends_with(']')
        && !port.parse::<u16>().is_ok_and(|port| port > 0)
    {
        return wrong("a port is a number from 1 to 65535", FORM);
    }
    let host_good = !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | b'[' | b']' | b'_'));
    if !scheme_good || !host_good || text.len() > ORIGIN_SIZE_MAX {
        return wrong("it is no origin", FORM);
    }
    Ok(text.to_owned())
}

/// The absolute path of a Unix socket.
pub fn socket(text: &str) -> Result<PathBuf, Wrong> {
    let path = absolute(text, "/run/sharelinkd/console.sock")?;
    if text.len() > SOCKET_PATH_SIZE_MAX {
        return wrong(&format!("a socket's path has at most {SOCKET_PATH_SIZE_MAX} bytes"), "choose a shorter path");
    }
    Ok(path)
}

/// The absolute path of a serial device.
pub fn device(text: &str) -> Result<PathBuf, Wrong> {
    absolute(text, "/dev/ttyS1")
}

fn absolute(text: &str, example: &str) -> Result<PathBuf, Wrong> {
    if !text.starts_with('/') || text.ends_with('/') || text.chars().any(char::is_control) {
        return wrong("it is no absolute path", &format!("write a path such as {example:?}"));
    }
    Ok(Path::new(text).to_owned())
}

fn address_wrong(text: &str, example: &str) -> Wrong {
    let named = text.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok()
            && !host.starts_with('[')
            && host.bytes().any(|byte| byte.is_ascii_alphabetic())
            && !host.contains(':')
    });
    if named {
        let what = "names are not resolved, which would need a thread or stop all pages meanwhile";
        return (what.to_owned(), format!("write the address itself, such as {example:?}"));
    }
    if text.parse::<IpAddr>().is_ok() {
        let port = example.rsplit_once(':').map_or("", |(_, port)| port);
        let bare = if text.contains(':') { format!("[{text}]:{port}") } else { format!("{text}:{port}") };
        // The last part of an IPv6 address may have been meant as the port.
        if let Some((host, port)) = text.rsplit_once(':')
            && host.parse::<Ipv6Addr>().is_ok()
            && port.parse::<u16>().is_ok()
        {
            let meant = format!("[{host}]:{port}");
            return (
                "where is its port?".to_owned(),
                format!("write {meant:?}, or {bare:?} where that is the address"),
            );
        }
        return ("the port is missing".to_owned(), format!("write {bare:?}"));
    }
    if let Some((_, port)) = text.rsplit_once(':')
        && port.parse::<u64>().is_ok_and(|port| port > u64::from(u16::MAX))
    {
        return ("a port is at most 65535".to_owned(), format!("write for example {example:?}"));
    }
    if text.parse::<u16>().is_ok() || text.starts_with(':') {
        return (
            "the address is missing".to_owned(),
            format!("write {example:?}, or \"0.0.0.0:port\" for every IPv4 interface"),
        );
    }
    ("it is no address and port".to_owned(), format!("write {example:?} or \"[::1]:port\""))
}

fn wrong<T>(what: &str, remedy: &str) -> Result<T, Wrong> {
    Err((what.to_owned(), remedy.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        let told = |text: &str| listener(text).unwrap_err().0;
        assert_eq!(told("0.0.0.0:80800"), "a port is at most 65535");
        assert_eq!(told("8080"), "the address is missing");
        assert_eq!(told("127.0.0.1"), "the port is missing");
        assert!(listener("::1:8080").unwrap_err().1.contains("\"[::1]:8080\""));
        assert!(told("localhost:80").starts_with("names are not resolved"));
        assert!(metrics_listener("9400").unwrap_err().1.contains("127.0.0.1:9400"));
        for port in ["99999", "0", "x", ""] {
            assert_eq!(
                origin(&format!("https://a.example:{port}")).unwrap_err().0,
                "a port is a number from 1 to 65535"
            );
        }
        assert!(origin("https://[::1]").is_ok() && origin("https://[::1]:8443").is_ok());
        let origin = origin("https://Share.example/x").unwrap_err();
        assert_eq!(origin.1, "write \"https://share.example\"");
    }

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
        let cases: [(Result<(), Wrong>, &str); 16] = [
            (listener("localhost:80").map(drop), "write the address itself"),
            (listener("127.0.0.1").map(drop), "write \"127.0.0.1:8080\""),
            (listener("::1").map(drop), "write \"[::1]:8080\""),
            (listener("8080").map(drop), "0.0.0.0:port"),
            (listener("").map(drop), "[::1]:port"),
            (uplink_address("unix:run/x").map(drop), "unix:/run/business.sock"),
            (uplink_address("127.0.0.1:0").map(drop), "write the port"),
            (uplink_address("0.0.0.0:7400").map(drop), "write the business server's address"),
            (network("10.0.0.1/8").map(drop), "write \"10.0.0.0/8\" for the network"),
            (network("10.0.0.0/33").map(drop), "/0 to /32"),
            (network("proxy").map(drop), "10.0.0.0/8"),
            (origin("https://share.example/").map(drop), "write \"https://share.example\""),
            (origin("HTTPS://Share.example").map(drop), "write \"https://share.example\""),
            (origin("share.example").map(drop), "https://share.example"),
            (socket("console.sock").map(drop), "/run/sharelinkd/console.sock"),
            (socket(&format!("/{}", "x".repeat(107))).map(drop), "a shorter path"),
        ];
        for (result, remedy) in cases {
            assert!(matches!(&result, Err((_, text)) if text.contains(remedy)), "{result:?} lacks {remedy}");
        }
    }

    #[test]
    fn good_values_print_as_they_are_written() {
        for text in ["127.0.0.1:0", "[::]:80"] {
            assert_eq!(listener(text).map(|address| address.to_string()).as_deref(), Ok(text));
        }
        for text in ["10.0.0.0/8", "::1", "0.0.0.0/0"] {
            assert_eq!(network(text).map(|network| network.to_string()).as_deref(), Ok(text));
        }
        for text in ["unix:/run/b.sock", "10.1.2.3:7400"] {
            assert_eq!(uplink_address(text).map(|address| address.to_string()).as_deref(), Ok(text));
        }
        for text in ["https://a.example:8443", "capacitor://localhost", "null", "http://[::1]:5173"] {
            assert_eq!(origin(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new(b"hunter2".to_vec());
        assert_eq!(format!("{secret:?} {secret}"), "Secret(set, 7 bytes) set, 7 bytes");
    }

    #[test]
    fn what_stays_on_the_machine_is_local() {
        let is_local = |text: &str| uplink_address(text).is_ok_and(|address| address.is_local());
        assert!(
            is_local("127.9.9.9:1") && is_local("[::1]:1") && is_local("[::ffff:127.0.0.1]:1") && is_local("unix:/x")
        );
        assert!(!is_local("10.0.0.1:1"));
    }
}
