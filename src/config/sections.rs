//! The sections of the configuration file, each parsed into its struct.
//!
//! Owns the keys, their defaults, and the rules between the keys of a section. Refuses every value
//! that doesn't parse, every empty list of addresses or duplicate in one, a secret in two places,
//! and a missing secret where one is required. Errors are collected in the document. For `[limits]`
//! see `limits.rs`, for `[tls]` `tls.rs`. Reads no file itself: it is given a function that reads
//! the secret file.

use std::fmt;
use std::iter;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use log::LevelFilter;

use super::address::{self, Order, UplinkAddress};
use super::file;
use super::origin::{self, Origins};
use super::uplink_tls::uplink_tls;
use super::values::{self, Secret, Serial};
use super::{Config, Console, Pages, Surroundings, Uplink};
use board::{Board, LISTENERS_MAX, OFF, SPEEDS};
use document::{At, Document};
use wire::REASON_SIZE_MAX;

/// The maximum number of uplink addresses, which are tried in order; the same as that of listeners.
const ADDRESSES_MAX: usize = LISTENERS_MAX;
/// The maximum number of origins, and of trusted networks. Each upgrade is compared with all of
/// them.
const LISTED_MAX: usize = 256;

/// `[pages]`.
pub fn pages(document: &mut Document<'_>) -> Pages {
    let listen = some(document, "pages", "listen", address::listener);
    let origins = list(document, "pages", "origins", LISTED_MAX, origin::origin).unwrap_or_default();
    let any = origins.iter().find(|origin| origin.value == "*");
    if let (Some(any), true) = (any, origins.len() > 1) {
        document.refuse(
            any.line,
            "[pages] origins has \"*\" and other entries",
            "keep only \"*\", which allows every origin, or remove it",
        );
    }
    Pages {
        origins: if any.is_some() { Origins::Any } else { Origins::Listed(plain(origins)) },
        listen: listen.map_or_else(listen_default, plain),
        require_origin: document.flag("pages", "require_origin").is_some_and(|flag| flag.value),
        url: off_or(document, "pages", "url", origin::public_url),
        trusted_proxies: plain(
            list(document, "pages", "trusted_proxies", LISTED_MAX, values::network).unwrap_or_default(),
        ),
        drain_s: whole(document, "pages", "drain_s", 1, 600).unwrap_or(10),
        io_uring: document.flag("pages", "io_uring").is_none_or(|flag| flag.value),
    }
}

/// The default of `[pages] listen`.
pub fn listen_default() -> Vec<SocketAddr> {
    vec![SocketAddr::from(([127, 0, 0, 1], 8080))]
}

/// The default of `[uplink] addresses`.
pub fn uplink_default() -> [UplinkAddress; 1] {
    [UplinkAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 7400)))]
}

/// `[uplink]`.
pub fn uplink(document: &mut Document<'_>, around: &Surroundings<'_>) -> Uplink {
    let addresses = some(document, "uplink", "addresses", address::uplink_address)
        .unwrap_or_else(|| uplink_default().map(|value| At { line: 0, value }).into());
    let plaintext = document.flag("uplink", "plaintext").is_some_and(|flag| flag.value);
    let (secret, notes) = secret(document, around);
    let before = document.problem_count();
    let tls = uplink_tls(document, around, &addresses);
    let is_plain = tls.is_none() && document.problem_count() == before;
    for At { line, value } in addresses.iter().filter(|address| !address.value.is_local()) {
        if is_plain && !plaintext {
            document.refuse(
                *line,
                format!("[uplink] addresses has {value}, beyond this machine, and the uplink is not encrypted"),
                "add ca_file or pin below [uplink.tls], or write plaintext = true below [uplink] if a private network or a tunnel protects it",
            );
        }
        if secret.as_ref().is_some_and(Secret::is_empty) {
            document.refuse(
                *line,
                format!("[uplink] addresses has {value}, beyond this machine, and the secret is empty"),
                "set secret or secret_file below [uplink] to the business server's secret",
            );
        }
    }
    let name = document.text("uplink", "name").filter(|name| !name.value.is_empty());
    if let Some(At { line, value }) = &name
        && (value.len() > REASON_SIZE_MAX || value.chars().any(char::is_control))
    {
        let remedy = format!("choose at most {REASON_SIZE_MAX} bytes without control characters");
        let what = if value.len() > REASON_SIZE_MAX {
            format!("[uplink] name has {} bytes", value.len())
        } else {
            "[uplink] name has control characters".to_owned()
        };
        document.refuse(*line, what, remedy);
    }
    let order = order(document);
    let name = name.map_or_else(|| around.hostname.to_owned(), |name| name.value);
    let mut addresses = plain(addresses);
    if order == Order::Spread {
        address::spread(&name, &mut addresses);
    }
    Uplink {
        addresses,
        order,
        secret: secret.unwrap_or_default(),
        tls,
        plaintext,
        dead_after_s: whole(document, "uplink", "dead_after_s", 2, 600).unwrap_or(30),
        linger_s: whole(document, "uplink", "linger_s", 0, 86_400).unwrap_or(30),
        name,
        notes,
    }
}

/// `[uplink] order`.
fn order(document: &mut Document<'_>) -> Order {
    let Some(At { line, value }) = document.text("uplink", "order") else { return Order::Listed };
    match value.as_str() {
        "listed" => Order::Listed,
        "spread" => Order::Spread,
        _ => {
            let remedy = "choose \"listed\" (as written) or \"spread\" (by a hash of the relay's name)";
            document.refuse(line, format!("[uplink] order = {value:?} is not an order"), remedy);
            Order::Listed
        }
    }
}

/// The secret, and remarks on where it is kept; `None` if it is invalid, which the document then
/// reports.
fn secret(document: &mut Document<'_>, around: &Surroundings<'_>) -> (Option<Secret>, Vec<String>) {
    let before = document.problem_count();
    let inline = document.text("uplink", "secret").filter(|secret| !secret.value.is_empty());
    let file = document.text("uplink", "secret_file").filter(|file| !file.value.is_empty());
    if document.problem_count() > before {
        return (None, Vec::new());
    }
    let Some(At { line, value }) = file else {
        let notes = inline.as_ref().and_then(|_| (around.exposed)(None));
        let secret = Secret::new(inline.map_or_else(Vec::new, |secret| secret.value.into_bytes()));
        return (Some(secret), notes.into_iter().map(|note| format!("secret: {note}")).collect());
    };
    if inline.is_some() {
        document.refuse(line, "[uplink] has both secret and secret_file", "keep one of them");
        return (None, Vec::new());
    }
    let read = match (around.read_secret)(Path::new(&value)) {
        Ok(bytes) => values::secret(&bytes),
        Err(cause) => {
            let otherwise = "name a file that the relay may read: an absolute path, or one relative to $CREDENTIALS_DIRECTORY, else to this file";
            Err((format!("can't be read: {cause}"), file::remedy(cause.kind(), otherwise).to_owned()))
        }
    };
    match read {
        Ok(secret) => {
            let notes = (around.exposed)(Some(Path::new(&value)));
            (Some(secret), notes.into_iter().map(|note| format!("secret_file: {note}")).collect())
        }
        Err((what, remedy)) => {
            document.refuse(line, format!("[uplink] secret_file {value:?} {what}"), remedy);
            (None, Vec::new())
        }
    }
}

/// `[console]`. The serial line defaults to the board's.
pub fn console(document: &mut Document<'_>, around: &Surroundings<'_>, board: &Board) -> Console {
    let device = match document.contains("console", "serial") {
        true => off_or(document, "console", "serial", values::device),
        false => board.serial().map(PathBuf::from),
    };
    let speed = document.number("console", "speed", 1, 4_000_000);
    if let Some(At { line, value }) = speed
        && !SPEEDS.iter().any(|speed| u64::from(*speed) == value)
    {
        document.refuse(
            line,
            format!("[console] speed = {value} is not a speed of a serial line"),
            "choose 115200, or the speed of the other end",
        );
    }
    let speed = speed.and_then(|speed| u32::try_from(speed.value).ok()).unwrap_or(board.serial_speed);
    Console {
        serial: device.map(|device| Serial { device, speed }),
        control: document.flag("console", "control").is_some_and(|flag| flag.value),
        socket: if document.contains("console", "socket") {
            off_or(document, "console", "socket", values::socket)
        } else {
            around.runtime_directory.map(|directory| directory.join("console.sock"))
        },
    }
}

/// `[log] level`.
pub fn log_level(document: &mut Document<'_>) -> LevelFilter {
    let Some(At { line, value }) = document.text("log", "level") else { return LevelFilter::Info };
    value.parse().unwrap_or_else(|_| {
        document.refuse(
            line,
            format!("[log] level = {value:?} is not a log level"),
            "choose one of off, error, warn, info, debug, trace",
        );
        LevelFilter::Info
    })
}

/// Refuses listeners that collide, more of them than there are descriptors for, and an uplink to
/// the relay itself.
pub fn refuse_shared_listeners(document: &mut Document<'_>, config: &Config) {
    let (pages, tls) = (&config.pages.listen[..], config.tls.as_ref().map_or(&[][..], |tls| &tls.listen));
    let of = |section, addresses| iter::repeat(section).zip(addresses);
    let all: Vec<(&str, &SocketAddr)> =
        of("pages", pages).chain(of("tls", tls)).chain(of("metrics", config.metrics.as_slice())).collect();
    for (index, &(section, one)) in all.iter().enumerate() {
        for &(other_section, other) in all.iter().skip(index + 1) {
            // The same address twice in one list has been refused already.
            if collide(one, other) && (section, one) != (other_section, other) {
                let line = document.section_line(other_section).unwrap_or(0);
                let (what, remedy) = collision((section, one), (other_section, other));
                document.refuse(line, what, remedy);
            }
        }
    }
    let count = pages.len() + tls.len();
    if count > LISTENERS_MAX && pages.len().max(tls.len()) <= LISTENERS_MAX {
        let line = document.section_line("tls").unwrap_or(0);
        document.refuse(
            line,
            format!("[pages] listen and [tls] listen have {count} addresses together"),
            format!("list at most {LISTENERS_MAX}"),
        );
    }
    let own = config.uplink.addresses.iter().find(|address| match address {
        UplinkAddress::Tcp(address) => pages.contains(address) || tls.contains(address),
        UplinkAddress::LinkLocal(..) | UplinkAddress::Name(..) | UplinkAddress::Unix(_) => false,
    });
    if let Some(own) = own {
        let line = document.section_line("uplink").unwrap_or(0);
        document.refuse(
            line,
            format!("[uplink] addresses has {own}, where this relay itself listens for pages"),
            "write the business server's address and port",
        );
    }
}

/// Whether the kernel would refuse to listen on both.
fn collide(one: &SocketAddr, other: &SocketAddr) -> bool {
    let covers = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && one.is_ipv4() == other.is_ipv4() && covers
}

/// What is wrong with two listeners that collide, and the remedy.
fn collision((section, one): (&str, &SocketAddr), (other_section, other): (&str, &SocketAddr)) -> values::Wrong {
    if section == other_section {
        let remedy = "keep only the wider one, or give them different ports";
        (format!("[{section}] listen has {one} and {other}, which overlap"), remedy.to_owned())
    } else if one == other {
        let what = format!("[{other_section}] listen and [{section}] listen are both {one}");
        (what, format!("give one of them another port: {other_section} must have its own"))
    } else {
        let what = format!("[{other_section}] listen has {other} and [{section}] listen has {one}, which overlap");
        (what, "give them different ports".to_owned())
    }
}

/// Reads a key that is `"off"` (the default, `None`) or a value.
pub fn off_or<T>(
    document: &mut Document<'_>,
    section: &'static str,
    key: &'static str,
    read: impl Fn(&str) -> Result<T, values::Wrong>,
) -> Option<T> {
    let At { line, value } = document.text(section, key)?;
    if value == OFF {
        return None;
    }
    match read(&value) {
        Ok(read) => Some(read),
        Err((what, remedy)) => {
            document.refuse(line, format!("[{section}] {key} has {value:?}: {what}"), format!("{remedy}, or \"off\""));
            None
        }
    }
}

/// Reads a list of values, without those that are invalid; `None` if the key is missing.
pub fn list<T>(
    document: &mut Document<'_>,
    section: &'static str,
    key: &'static str,
    count_max: usize,
    read: impl Fn(&str) -> Result<T, values::Wrong>,
) -> Option<Vec<At<T>>> {
    let texts = document.texts(section, key)?;
    if let Some(extra) = texts.get(count_max) {
        document.refuse(
            extra.line,
            format!("[{section}] {key} has {} entries", texts.len()),
            format!("list at most {count_max}"),
        );
    }
    let mut good = Vec::with_capacity(texts.len());
    for At { line, value } in texts {
        match read(&value) {
            Ok(value) => good.push(At { line, value }),
            Err((what, remedy)) => document.refuse(line, format!("[{section}] {key} has {value:?}: {what}"), remedy),
        }
    }
    Some(good)
}

/// Reads a list of at least one value without duplicates. Port 0 (any free one) may occur
/// repeatedly.
pub fn some<T: PartialEq + fmt::Display>(
    document: &mut Document<'_>,
    section: &'static str,
    key: &'static str,
    read: impl Fn(&str) -> Result<T, values::Wrong>,
) -> Option<Vec<At<T>>> {
    let before = document.problem_count();
    let items = list(document, section, key, ADDRESSES_MAX, read)?;
    for (index, At { line, value }) in items.iter().enumerate() {
        if items.iter().take(index).any(|earlier| earlier.value == *value) && !value.to_string().ends_with(":0") {
            document.refuse(*line, format!("[{section}] {key} has {value} twice"), "keep one of them");
        }
    }
    if items.is_empty() && document.problem_count() == before {
        let line = document.section_line(section).unwrap_or(0);
        document.refuse(
            line,
            format!("[{section}] {key} is an empty list"),
            "name at least one address, or remove the key to use the default",
        );
    }
    Some(items)
}

/// Reads an integer from `least` to `most`, which must fit 32 bits.
pub fn whole(
    document: &mut Document<'_>,
    section: &'static str,
    key: &'static str,
    least: u64,
    most: u64,
) -> Option<u32> {
    document.number(section, key, least, most).and_then(|number| u32::try_from(number.value).ok())
}

/// The value of `[limits] pages_per_address` that selects the relay's own rule, the default.
pub const PAGES_PER_ADDRESS_AUTO: &str = "auto";

/// `[limits] pages_per_address`; `None` for the relay's own rule.
pub fn pages_per_address(document: &mut Document<'_>, board: &Board) -> Option<u32> {
    let most = u64::from(board.pages_max);
    let number = document.number_or(("limits", "pages_per_address"), PAGES_PER_ADDRESS_AUTO, 0, most)?;
    u32::try_from(number.value).ok()
}

/// The values without their lines.
pub fn plain<T>(list: Vec<At<T>>) -> Vec<T> {
    list.into_iter().map(|item| item.value).collect()
}
