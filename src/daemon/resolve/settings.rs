//! The system's resolver settings: `/etc/resolv.conf` and `/etc/hosts` as text (resolv.conf(5),
//! hosts(5)).
//!
//! Owns which settings count and their limits, which are those of the C library. Lines that say
//! nothing to us, or something wrong, are ignored, as everywhere. Reads no file and asks nobody.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::config::is_host_name;

/// Name servers that count, as in the C library.
const SERVERS_MAX: usize = 3;
/// Suffixes that are tried. The C library has had no limit since 2017; here the time of a lookup
/// has one.
const SUFFIXES_MAX: usize = 6;
/// Its limits of the options.
const TIMEOUT_S_MAX: u64 = 30;
const ATTEMPTS_MAX: u32 = 5;
const DOTS_MAX: usize = 15;
/// A name's longest form as text, without the dot at its end (RFC 1035, 2.3.4).
const NAME_SIZE_MAX: usize = 253;

/// A name server; a link-local one names its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its address.
    pub ip: IpAddr,
    /// The interface that it is on, if the address is link-local.
    pub interface: Option<String>,
}

/// How names are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The name servers in their order; at least one.
    pub servers: Vec<Server>,
    /// Timeout of one question to one server.
    pub timeout: Duration,
    /// How often all servers are asked.
    pub attempts: u32,
    suffixes: Vec<String>,
    /// A name with at least this many dots is first tried as it is.
    dots: usize,
}

impl Settings {
    /// Parses `/etc/resolv.conf`. An empty text is that of a machine with its own name server.
    pub fn parse(text: &str) -> Self {
        let mut settings =
            Self { servers: Vec::new(), timeout: Duration::from_secs(5), attempts: 2, suffixes: Vec::new(), dots: 1 };
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if settings.servers.len() < SERVERS_MAX => {
                    settings.servers.extend(words.next().and_then(server));
                }
                // The last of them counts.
                Some("domain" | "search") => {
                    settings.suffixes =
                        words.take(SUFFIXES_MAX).map(|suffix| suffix.trim_end_matches('.').to_owned()).collect();
                }
                Some("options") => words.for_each(|option| settings.set(option)),
                _ => {}
            }
        }
        if settings.servers.is_empty() {
            settings.servers.push(Server { ip: Ipv4Addr::LOCALHOST.into(), interface: None });
        }
        settings
    }

    fn set(&mut self, option: &str) {
        let Some((name, number)) = option.split_once(':') else { return };
        let Ok(number) = number.parse::<u32>() else { return };
        match name {
            "timeout" => self.timeout = Duration::from_secs(u64::from(number).clamp(1, TIMEOUT_S_MAX)),
            "attempts" => self.attempts = number.clamp(1, ATTEMPTS_MAX),
            "ndots" => self.dots = usize::try_from(number).unwrap_or(DOTS_MAX).min(DOTS_MAX),
            _ => {}
        }
    }

    /// The full names that a name may stand for, in the order in which they are tried. One that
    /// ends with a dot stands for itself.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(whole) = name.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let mut candidates: Vec<String> = self
            .suffixes
            .iter()
            .filter(|suffix| is_host_name(suffix))
            .map(|suffix| format!("{name}.{suffix}"))
            .filter(|candidate| candidate.len() <= NAME_SIZE_MAX)
            .collect();
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        let place = if dots >= self.dots { 0 } else { candidates.len() };
        candidates.insert(place, name.to_owned());
        candidates
    }
}

fn server(text: &str) -> Option<Server> {
    let (ip, interface) = text.split_once('%').map_or((text, None), |(ip, interface)| (ip, Some(interface.to_owned())));
    Some(Server { ip: ip.parse().ok()?, interface })
}

/// The address in a line of `/etc/hosts`, if the line has the name.
pub fn host(line: &str, name: &str) -> Option<IpAddr> {
    let line = line.split('#').next().unwrap_or("");
    let mut words = line.split_ascii_whitespace();
    // The interface of a link-local address is for those who dial the address itself.
    let ip: IpAddr = words.next()?.parse().ok()?;
    let name = name.trim_end_matches('.');
    let is_it = words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(name));
    (is_it && !ip.is_unspecified() && !ip.is_multicast()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_c_library_reads_is_read() {
        let text = "# made by dhcp\n; and by hand\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver nonsense\n\
                    nameserver 2001:db8::53 trailing\nnameserver 10.0.0.4\ndomain old.example\nsearch a.example. b.example\n\
                    options timeout:2 attempts:3 ndots:2 rotate edns0 timeout:x\nsortlist 10.0.0.0\n\noptions\nnameserver\n";
        let settings = Settings::parse(text);
        let server = |ip: &str, interface: Option<&str>| Server {
            ip: ip.parse().unwrap(),
            interface: interface.map(str::to_owned),
        };
        assert_eq!(
            settings.servers,
            [server("10.0.0.1", None), server("fe80::1", Some("eth0")), server("2001:db8::53", None)]
        );
        assert_eq!((settings.timeout, settings.attempts), (Duration::from_secs(2), 3));
        assert_eq!(settings.candidates("b"), ["b.a.example", "b.b.example", "b"]);
        assert_eq!(settings.candidates("b.c"), ["b.c.a.example", "b.c.b.example", "b.c"]);
        assert_eq!(settings.candidates("b.c.d"), ["b.c.d", "b.c.d.a.example", "b.c.d.b.example"]);
        assert_eq!(settings.candidates("b."), ["b"]);
    }

    #[test]
    fn nothing_is_a_name_server_of_one_s_own_and_extremes_are_bounded() {
        for text in ["", "search\n", "\u{feff}", "nameserver\n"] {
            let settings = Settings::parse(text);
            assert_eq!(settings.servers, [Server { ip: Ipv4Addr::LOCALHOST.into(), interface: None }], "{text:?}");
            assert_eq!((settings.timeout, settings.attempts), (Duration::from_secs(5), 2));
            assert_eq!(settings.candidates("b.example"), ["b.example"]);
        }
        let settings =
            Settings::parse(&format!("options timeout:0 attempts:99 ndots:99\nsearch {}\n", ["s"; 9].join(" ")));
        assert_eq!((settings.timeout, settings.attempts, settings.dots), (Duration::from_secs(1), 5, 15));
        assert_eq!(settings.candidates("b").len(), 7);
        let long = "x".repeat(250);
        assert_eq!(Settings::parse("search abc.example").candidates(&long), [long]);
    }

    #[test]
    fn a_line_of_hosts_has_an_address_and_names() {
        let is = |line: &str, name: &str| host(line, name).map(|ip| ip.to_string());
        assert_eq!(
            is("10.0.0.9 business business.example # the old one", "business.example.").as_deref(),
            Some("10.0.0.9")
        );
        assert_eq!(is("fd00::9\tBusiness", "bUSINESS").as_deref(), Some("fd00::9"));
        for (line, name) in [
            ("10.0.0.9 other # business", "business"),
            ("# 10.0.0.9 business", "business"),
            ("business 10.0.0.9", "business"),
            ("0.0.0.0 business", "business"),
            ("10.0.0.9", "10.0.0.9"),
            ("", ""),
        ] {
            assert_eq!(is(line, name), None, "{line}");
        }
    }
}
