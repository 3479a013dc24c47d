//! Addresses: where pages and scrapers connect, where the business server is.
//!
//! Owns their syntax and which of them can work. A listener's address is literal; the business
//! server's may be a name, which is resolved at each dial, and a link-local one has the name of its
//! interface. Refuses what would fail later (a link-local address without its interface, multicast
//! and broadcast, dialling port 0, a name that can't exist), with what to write instead. Knows
//! nothing of keys and lines, resolves nothing and opens no sockets.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::values::{Wrong, socket, wrong};

/// Linux's limit for the name of an interface (`IFNAMSIZ`), without the terminating NUL.
const INTERFACE_SIZE_MAX: usize = 15;

/// Where the business server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UplinkAddress {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A link-local address, a port and the name of the interface. The interface's index is looked
    /// up at each dial.
    LinkLocal(Ipv6Addr, u16, String),
    /// A host's name, in lower case, and a port. Its addresses are looked up at each dial.
    Name(String, u16),
    /// The absolute path of a Unix socket.
    Unix(PathBuf),
}

impl UplinkAddress {
    /// Whether traffic to this address stays on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::LinkLocal(..) => false,
            Self::Name(name, _) => is_loopback_name(name),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for UplinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::LinkLocal(address, port, interface) => write!(f, "[{address}%{interface}]:{port}"),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whether a name means this machine by itself (RFC 6761, 6.3), so that no resolver is asked.
#[must_use]
pub fn is_loopback_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    let last = name.rsplit('.').next().unwrap_or(name);
    last.eq_ignore_ascii_case("localhost")
}

/// Who ranks the entries of `uplink.addresses`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As written.
    Listed,
    /// By a hash of the relay's name, so that many relays with one list spread over its entries.
    Spread,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Listed => "listed",
            Self::Spread => "spread",
        })
    }
}

/// Ranks the entries by rendezvous hashing: highest first by the SHA-256 of the relay's name, a NUL
/// and the entry as written. Each relay prefers every entry equally often, and one that is added or
/// removed moves only the relays that prefer it. The order of the list has no effect.
pub fn spread(relay: &str, entries: &mut [UplinkAddress]) {
    let rank = |entry: &UplinkAddress| -> [u8; 32] { Sha256::digest(format!("{relay}\0{entry}")).into() };
    entries.sort_by_cached_key(|entry| std::cmp::Reverse(rank(entry)));
}

/// Parses the address of a listener: a literal address and a port, 0 for any free one.
pub fn listener(text: &str) -> Result<SocketAddr, Wrong> {
    listener_such_as(text, "127.0.0.1:8080")
}

/// Like [`listener`], with the port of HTTPS in its examples.
pub fn tls_listener(text: &str) -> Result<SocketAddr, Wrong> {
    listener_such_as(text, "0.0.0.0:443")
}

/// Like [`listener`], with the metrics' port in its examples.
pub fn metrics_listener(text: &str) -> Result<SocketAddr, Wrong> {
    listener_such_as(text, "127.0.0.1:9400")
}

fn listener_such_as(text: &str, example: &str) -> Result<SocketAddr, Wrong> {
    let (address, interface) = parse(text, example)?;
    if interface.is_some() {
        // Listeners are bound once, at start. An interface that appears later, or with another
        // index, would be missed.
        let remedy =
            format!("write the interface's number, which `ip link` shows, or listen on \"[::]:{}\"", address.port());
        return wrong("the interface of a listener can't be given by its name", &remedy);
    }
    refuse_groups(address.ip(), "listened on", example)?;
    refuse_wrong_zone(&address, "2")?;
    Ok(address)
}

/// Parses an address that the uplink dials.
pub fn uplink_address(text: &str) -> Result<UplinkAddress, Wrong> {
    const EXAMPLE: &str = "127.0.0.1:7400";
    if let Some(path) = text.strip_prefix("unix:") {
        return socket(path)
            .map(UplinkAddress::Unix)
            .map_err(|(what, _)| (what, "write \"unix:/run/business.sock\"".to_owned()));
    }
    const NO_PORT: (&str, &str) = ("port 0 can't be dialled", "write the port that the business server listens on");
    if let Some((name, port)) = named(text) {
        refuse_impossible_name(name, port)?;
        return if port == 0 {
            wrong(NO_PORT.0, NO_PORT.1)
        } else {
            Ok(UplinkAddress::Name(name.to_ascii_lowercase(), port))
        };
    }
    let (address, interface) = parse(text, EXAMPLE)?;
    if address.port() == 0 {
        return wrong(NO_PORT.0, NO_PORT.1);
    }
    let ip = address.ip().to_canonical();
    if matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 0) || ip.is_unspecified() {
        return wrong(
            "that address can be listened on, but not dialled",
            "write the business server's address, such as \"127.0.0.1:7400\"",
        );
    }
    refuse_groups(ip, "dialled", EXAMPLE)?;
    match (interface, address.ip()) {
        (Some(interface), IpAddr::V6(ip)) if ip.is_unicast_link_local() => {
            Ok(UplinkAddress::LinkLocal(ip, address.port(), interface))
        }
        (Some(_), ip) => needs_no_zone(ip, address.port()),
        (None, _) => refuse_wrong_zone(&address, "eth0").map(|()| UplinkAddress::Tcp(address)),
    }
}

/// Parses an address and a port, and the name of the interface if there is one after `%`.
fn parse(text: &str, example: &str) -> Result<(SocketAddr, Option<String>), Wrong> {
    if let Ok(address) = text.parse() {
        return Ok((address, None));
    }
    let zoned = || {
        let (address, after) = text.strip_prefix('[')?.split_once('%')?;
        let (zone, port) = after.rsplit_once("]:")?;
        Some((address.parse::<Ipv6Addr>().ok()?, zone, port.parse::<u16>().ok()?))
    };
    let Some((address, zone, port)) = zoned() else { return Err(address_wrong(text, example)) };
    let is_interface = (1..=INTERFACE_SIZE_MAX).contains(&zone.len())
        && !matches!(zone, "." | "..")
        && !zone.bytes().all(|byte| byte.is_ascii_digit())
        && zone.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%' | b'[' | b']'));
    if let Some(written) = zone.strip_prefix("25").filter(|_| is_interface) {
        let what = "%25 is the URL encoding of the % before an interface";
        return wrong(what, &format!("write \"[{address}%{written}]:{port}\""));
    }
    if !is_interface {
        return wrong("the part after % is not an interface", &format!("write \"[{address}%eth0]:{port}\""));
    }
    Ok((SocketAddr::from((address, port)), Some(zone.to_owned())))
}

/// Link-local addresses exist on every interface: the kernel refuses one without its interface (the
/// zone of RFC 4007).
fn refuse_wrong_zone(address: &SocketAddr, example: &str) -> Result<(), Wrong> {
    let SocketAddr::V6(address) = address else { return Ok(()) };
    let (ip, port) = (address.ip(), address.port());
    match (ip.is_unicast_link_local(), address.scope_id()) {
        (true, 0) => wrong(
            "a link-local address needs the interface that it is on",
            &format!("write \"[{ip}%{example}]:{port}\", with the interface after %"),
        ),
        (false, 1..) => needs_no_zone((*ip).into(), port),
        _ => Ok(()),
    }
}

fn needs_no_zone<T>(ip: IpAddr, port: u16) -> Result<T, Wrong> {
    wrong("only a link-local address has an interface", &format!("write \"{}\"", SocketAddr::from((ip, port))))
}

/// TCP has no multicast or broadcast.
fn refuse_groups(ip: IpAddr, done: &str, example: &str) -> Result<(), Wrong> {
    let ip = ip.to_canonical();
    let kind = match ip {
        _ if ip.is_multicast() => "a multicast group",
        IpAddr::V4(ip) if ip.is_broadcast() => "the broadcast address",
        _ => return Ok(()),
    };
    wrong(&format!("{kind} can't be {done} by TCP"), &format!("write one machine's address, such as {example:?}"))
}

/// A text of the form `name:port`, where the name has a letter.
fn named(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let is_name = !host.starts_with('[') && !host.contains([':', '/', '%']) && host.contains(char::is_alphabetic);
    is_name.then_some((host, port.parse().ok()?))
}

/// Whether a host can have this name: as RFC 1123 has them, and with underscores, which container
/// networks use.
pub fn is_host_name(name: &str) -> bool {
    let labels = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let is_numeric = labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    labels.len() <= 253 && labels.split('.').all(is_label) && !is_numeric
}

fn refuse_impossible_name(name: &str, port: u16) -> Result<(), Wrong> {
    let example = format!("write a name such as \"business.example:{port}\"");
    if !name.is_ascii() {
        return wrong("a name is written in ASCII", &format!("{example}, an international one as \"xn--...\""));
    }
    if !is_host_name(name) {
        return wrong("it is neither an address nor the name of a host", &example);
    }
    Ok(())
}

fn address_wrong(text: &str, example: &str) -> Wrong {
    if named(text).is_some() {
        let what = "a listener's address can't be a name";
        return (what.to_owned(), format!("write the address itself, such as {example:?}"));
    }
    if text.parse::<IpAddr>().is_ok() {
        let port = example.rsplit_once(':').map_or("", |(_, port)| port);
        let bare = if text.contains(':') { format!("[{text}]:{port}") } else { format!("{text}:{port}") };
        // The last part of an IPv6 address may be meant as the port.
        if let Some((host, port)) = text.rsplit_once(':')
            && host.parse::<Ipv6Addr>().is_ok()
            && port.parse::<u16>().is_ok()
        {
            let meant = format!("[{host}]:{port}");
            return (
                "it is unclear which part is the port".to_owned(),
                format!("write {meant:?}, or {bare:?} if all of it is the address"),
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
    ("it is not an address and port".to_owned(), format!("write {example:?} or \"[::1]:port\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        let error = |text: &str| listener(text).unwrap_err().0;
        assert_eq!(error("0.0.0.0:80800"), "a port is at most 65535");
        assert_eq!(error("8080"), "the address is missing");
        assert_eq!(error("127.0.0.1"), "the port is missing");
        assert!(listener("::1:8080").unwrap_err().1.contains("\"[::1]:8080\""));
        assert_eq!(error("localhost:80"), "a listener's address can't be a name");
        assert!(metrics_listener("9400").unwrap_err().1.contains("127.0.0.1:9400"));
    }

    #[test]
    fn what_could_only_fail_later_is_refused_with_its_remedy() {
        for (text, remedy) in [
            ("[fe80::1]:7400", "write \"[fe80::1%eth0]:7400\""),
            ("[fe80::1%0]:7400", "write \"[fe80::1%eth0]:7400\""),
            ("[fe80::1%]:7400", "write \"[fe80::1%eth0]:7400\""),
            ("[fe80::1%an/interface]:7400", "write \"[fe80::1%eth0]:7400\""),
            ("[fe80::1%a-name-of-16-bytes]:7400", "write \"[fe80::1%eth0]:7400\""),
            ("[2001:db8::1%eth0]:7400", "write \"[2001:db8::1]:7400\""),
            ("[2001:db8::1%2]:7400", "write \"[2001:db8::1]:7400\""),
            ("[fe80::1%eth0]", "or \"[::1]:port\""),
            ("127.0.0.1:0", "write the port"),
            ("[fe80::1%eth0]:0", "write the port"),
            ("0.0.0.0:7400", "write the business server's address"),
            ("0.0.0.1:7400", "write the business server's address"),
            ("[::]:7400", "write the business server's address"),
            ("[::ffff:0.0.0.0]:7400", "write the business server's address"),
            ("224.0.0.1:7400", "write one machine's address"),
            ("[ff02::1]:7400", "write one machine's address"),
            ("[ff02::1%eth0]:7400", "write one machine's address"),
            ("[::ffff:224.0.0.1]:7400", "write one machine's address"),
            ("255.255.255.255:7400", "write one machine's address"),
            ("unix:run/x", "unix:/run/business.sock"),
            ("business.example:0", "write the port"),
            ("bücher.example:7400", "as \"xn--...\""),
            ("a..example:7400", "\"business.example:7400\""),
            ("-a.example:7400", "\"business.example:7400\""),
            ("a-.example:7400", "\"business.example:7400\""),
            ("a b:7400", "\"business.example:7400\""),
            ("a.1:7400", "\"business.example:7400\""),
            ("http://a:7400", "\"127.0.0.1:7400\""),
            ("business.example", "\"127.0.0.1:7400\""),
            ("business.example:", "\"127.0.0.1:7400\""),
            ("business.example:74000", "\"127.0.0.1:7400\""),
        ] {
            let error = uplink_address(text).unwrap_err();
            assert!(error.1.contains(remedy), "{text}: {error:?}");
        }
        for (text, remedy) in [
            ("[fe80::1]:80", "write \"[fe80::1%2]:80\""),
            ("[fe80::1%eth0]:80", "listen on \"[::]:80\""),
            ("[::1%3]:80", "write \"[::1]:80\""),
            ("224.0.0.1:80", "write one machine's address"),
            ("[ff02::1]:80", "write one machine's address"),
            ("255.255.255.255:80", "write one machine's address"),
            ("localhost:80", "write the address itself"),
            ("127.0.0.1", "write \"127.0.0.1:8080\""),
            ("::1", "write \"[::1]:8080\""),
            ("8080", "0.0.0.0:port"),
            ("", "[::1]:port"),
        ] {
            let error = listener(text).unwrap_err();
            assert!(error.1.contains(remedy), "{text}: {error:?}");
            assert!(metrics_listener(text).is_err(), "{text}");
        }
    }

    #[test]
    fn good_addresses_print_as_they_are_written() {
        for text in ["127.0.0.1:0", "[::]:80", "0.0.0.0:80", "[fe80::1%2]:80", "169.254.1.2:80"] {
            assert_eq!(listener(text).map(|address| address.to_string()).as_deref(), Ok(text));
        }
        let addresses = [
            "unix:/run/b.sock",
            "10.1.2.3:7400",
            "[fe80::1%2]:7400",
            "[fe80::1%eth0]:7400",
            "[fe80::1%wg0.7-x]:7400",
            "169.254.1.2:7400",
            "[fd00::1]:7400",
            "business.example:7400",
            "business:7400",
            "b1.internal.:7400",
            "a_container-1:7400",
        ];
        for text in addresses {
            assert_eq!(uplink_address(text).map(|address| address.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn relays_spread_over_the_entries_and_keep_their_place_when_one_goes() {
        let entries: Vec<UplinkAddress> =
            ["10.0.0.1:7400", "10.0.0.2:7400", "unix:/b"].iter().map(|text| uplink_address(text).unwrap()).collect();
        let ranked = |relay: &str, of: &[UplinkAddress]| {
            let mut of = of.to_vec();
            spread(relay, &mut of);
            of
        };
        let mut firsts = [0; 3];
        for relay in 0..3_000 {
            let relay = format!("box-{relay}");
            let all = ranked(&relay, &entries);
            let turned: Vec<_> = entries.iter().rev().cloned().collect();
            assert_eq!(ranked(&relay, &turned), all, "the order of the list counts");
            let left: Vec<_> = all.iter().filter(|entry| **entry != entries[1]).cloned().collect();
            assert_eq!(ranked(&relay, &[entries[0].clone(), entries[2].clone()]), left, "others have moved");
            firsts[entries.iter().position(|entry| *entry == all[0]).unwrap()] += 1;
        }
        assert!(firsts.iter().all(|count| (900..1_100).contains(count)), "{firsts:?}");
        // Frozen: the relays of a fleet run different versions during an update.
        let first = |relay| ranked(relay, &entries)[0].to_string();
        assert_eq!(
            [first("gate-1"), first("gate-2"), first("gate-3"), first("gate-4")],
            ["10.0.0.2:7400", "unix:/b", "unix:/b", "10.0.0.2:7400"]
        );
    }

    #[test]
    fn what_stays_on_the_machine_is_local() {
        let is_local = |text: &str| uplink_address(text).is_ok_and(|address| address.is_local());
        assert!(
            is_local("127.9.9.9:1") && is_local("[::1]:1") && is_local("[::ffff:127.0.0.1]:1") && is_local("unix:/x")
        );
        assert!(!is_local("10.0.0.1:1") && !is_local("[fe80::1%lo]:1"));
        assert!(is_local("localhost:1") && is_local("LOCALHOST.:1") && is_local("a.localhost:1"));
        assert!(!is_local("localhost.example:1") && !is_local("notlocalhost:1"));
        assert_eq!(uplink_address("Business.Example:1").unwrap().to_string(), "business.example:1");
    }
}
