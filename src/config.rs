//! The configuration: one TOML file, validated completely before anything starts.
//!
//! Owns the meaning and default of every key, and the rules between keys. Returns a typed
//! [`Config`] whose board has the limits of `[limits]` applied, or *all* errors at once, each with
//! its line and a remedy. Refuses unknown keys. Never prints the secret. Reads files (the
//! configuration, the secret, certificates and their keys) and resolves no host names: that is done
//! at each dial. Knows nothing of sockets or the machine, or of how a value is used.

pub mod address;
pub mod ca;
pub mod certificate_notes;
pub mod certificates;
pub mod file;
mod limits;
pub mod origin;
pub mod render;
pub mod sections;
mod surroundings;
mod tls;
mod uplink_tls;
pub mod values;

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use log::LevelFilter;

pub use address::{Order, UplinkAddress, is_host_name, is_loopback_name};
use board::Board;
pub use document::nearest;
use document::{Document, Problem, line_of};
use file::NoText;
pub use limits::LIMITS;
pub use origin::Origins;
pub use render::changes;
pub use sections::{PAGES_PER_ADDRESS_AUTO, listen_default};
pub use surroundings::{Checked, Surroundings, with_surroundings};
pub use uplink_tls::Pin;
pub use values::{Network, Secret, Serial, Wrong};

/// The maximum size of a configuration file, in bytes. The term "events and configuration" of the
/// memory sum relies on it.
pub const FILE_SIZE_MAX: u64 = 64 * 1024;
/// The maximum size of a secret file, in bytes.
pub const SECRET_SIZE_MAX: u64 = 4096;
/// The complete configuration, typed and validated.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[pages]`: where pages connect, and which ones are allowed to.
    pub pages: Pages,
    /// `[tls]`: where pages connect by TLS; `None` is off.
    pub tls: Option<Tls>,
    /// `[tls] challenge_directory`: the plain listeners serve its files below
    /// `/.well-known/acme-challenge/`, whether or not TLS is on. `None` is off.
    pub challenge_directory: Option<PathBuf>,
    /// `[uplink]`: the business server.
    pub uplink: Uplink,
    /// `[console]`: how an engineer reaches the console.
    pub console: Console,
    /// `[metrics] listen`: where Prometheus scrapes; `None` is off.
    pub metrics: Option<SocketAddr>,
    /// `[log] level`.
    pub log_level: LevelFilter,
    /// `[limits] pages_per_address`: concurrent pages from one address (IPv6: one /64); 0 is no
    /// limit. With `None`, an address may hold a quarter of the table, enforced only while the
    /// table is more than three quarters full.
    pub pages_per_address: Option<u32>,
    /// The board, with the limits that `[limits]` lowers.
    pub board: Board,
}

/// Where pages connect, and which ones are allowed to.
#[derive(Clone, Debug, PartialEq)]
pub struct Pages {
    /// At least one; port 0 takes any free one.
    pub listen: Vec<SocketAddr>,
    /// Allowed `Origin` headers besides the relay's own host.
    pub origins: Origins,
    /// Whether a request without an `Origin` (no browser) is refused.
    pub require_origin: bool,
    /// The public URL of the share pages, without a trailing slash; used in link preview cards.
    /// `None` if not configured.
    pub url: Option<String>,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<Network>,
    /// Timeout of a drain, in seconds. After it the process exits even if pages are still
    /// connected.
    pub drain_s: u32,
    /// Whether to use io_uring, where the kernel has it, to write to many pages in one call.
    pub io_uring: bool,
}

/// Where pages connect by TLS, and with which certificates.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// At least one; port 0 takes any free one.
    pub listen: Vec<SocketAddr>,
    /// 1 to [`board::CERTIFICATES_MAX`]. The first is for pages that ask for no name, or for
    /// another one.
    pub certificates: Vec<CertificateFiles>,
    /// The lowest version of TLS that is accepted.
    pub min_version: MinVersion,
    /// `max-age` of the header `Strict-Transport-Security`, in seconds; 0 sends none.
    pub hsts_s: u32,
    /// Whether plain requests for share pages get 308 to `https:`; see [`Tls::redirects`].
    pub redirect: bool,
}

/// A certificate chain and its key: two PEM files, which were read and matched when the
/// configuration was parsed.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The chain: the server's own certificate, then the intermediate ones.
    pub certificate_file: PathBuf,
    /// The private key of the first certificate.
    pub key_file: PathBuf,
    /// The line in the configuration, from 1.
    pub line: u32,
    /// Remarks of the check that an operator should know, one line each.
    pub notes: Vec<String>,
    /// Names, key and dates in one line, for people.
    pub about: String,
}

/// Where a pair was configured, and what its files held at that time, makes no other
/// configuration.
impl PartialEq for CertificateFiles {
    fn eq(&self, other: &Self) -> bool {
        self.certificate_file == other.certificate_file && self.key_file == other.key_file
    }
}

/// The lowest version of TLS that is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2 and 1.3.
    V12,
    /// TLS 1.3 alone.
    V13,
}

/// The business server, and how to reach it.
#[derive(Clone, Debug, PartialEq)]
pub struct Uplink {
    /// The entries: at least one; tried in this order, which `order` decided.
    pub addresses: Vec<UplinkAddress>,
    /// Who ranks the entries.
    pub order: Order,
    /// Shared with the business server; empty only where every address is loopback or a Unix
    /// socket.
    pub secret: Secret,
    /// TLS on the uplink; `None` is off.
    pub tls: Option<UplinkTls>,
    /// Whether TCP beyond loopback is allowed, although the uplink is not encrypted.
    pub plaintext: bool,
    /// Seconds without a sign of life of the business server after which the uplink is dead.
    pub dead_after_s: u32,
    /// Seconds for which a topic stays subscribed after its last page left.
    pub linger_s: u32,
    /// The relay's name in `Hello`, at most 256 bytes.
    pub name: String,
    /// Remarks on where the secret is kept.
    pub notes: Vec<String>,
}

/// How the business server is authenticated, and how it can authenticate the relay: by a CA, by
/// pins, or by both at once.
#[derive(Clone, Debug, PartialEq)]
pub struct UplinkTls {
    /// The CA that the server's certificate must be from: one or more certificates, PEM.
    pub ca_file: Option<PathBuf>,
    /// The keys that the server may have; any key if there are none.
    pub pins: Vec<Pin>,
    /// The name that the CA must vouch for; `None`: that of the entry.
    pub name: Option<String>,
    /// The relay's own certificate chain and its key, PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Remarks on the files.
    pub notes: Vec<String>,
}

/// How an engineer reaches the console.
#[derive(Clone, Debug, PartialEq)]
pub struct Console {
    /// The serial line; `None` is off.
    pub serial: Option<Serial>,
    /// Whether the console may change things; if not, it is read-only.
    pub control: bool,
    /// The Unix socket of `sharelinkd console`; `None` is off.
    pub socket: Option<PathBuf>,
}

/// One error in a configuration. Prints as one line with file, line and remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The path of the file, as given.
    pub file: PathBuf,
    /// The line number, from 1; 0 for an error of the file as a whole.
    pub line: u32,
    /// What is wrong.
    pub what: String,
    /// How to fix it.
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}; {}", self.what, self.remedy)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads and validates a file, for a relay built for `board`.
    ///
    /// A relative `secret_file` is looked up in `$CREDENTIALS_DIRECTORY` (systemd's
    /// `LoadCredential`) if that is set, otherwise in the directory of the configuration; a
    /// relative path of a certificate or key in the former if it exists there, otherwise in the
    /// latter, since credentials are copies that don't follow a renewal. If `$RUNTIME_DIRECTORY`
    /// (systemd's `RuntimeDirectory`) is set, the console's socket defaults to `console.sock` in
    /// it.
    ///
    /// # Errors
    /// All errors, in the order of lines.
    pub fn load(path: &Path, board: &Board) -> Result<Self, Vec<ConfigError>> {
        Self::load_over(path, board, None)
    }

    /// Reads and validates the file for a reload, in a relay that runs with `running`.
    ///
    /// # Errors
    /// All errors. An empty file is an error too, if it would change anything: an editor may leave
    /// an empty file for an instant while saving, and its user did not mean the defaults.
    pub fn load_again(path: &Path, board: &Board, running: &Self) -> Result<Self, Vec<ConfigError>> {
        Self::load_over(path, board, Some(running))
    }

    fn load_over(path: &Path, board: &Board, running: Option<&Self>) -> Result<Self, Vec<ConfigError>> {
        let error = |line, what: String, remedy: &str| ConfigError {
            file: path.to_owned(),
            line,
            what,
            remedy: remedy.to_owned(),
        };
        let bytes = file::read(path, FILE_SIZE_MAX).map_err(|cause| {
            let otherwise =
                "name a file that exists and that the relay may read; `sharelinkd config` prints one to start from";
            vec![error(0, format!("can't be read: {cause}"), file::remedy(cause.kind(), otherwise))]
        })?;
        let text = file::text(&bytes).map_err(|NoText { at, what, remedy }| {
            vec![error(at.map_or(0, |at| line_of(&bytes, at)), what.to_owned(), remedy)]
        })?;
        let config = with_surroundings(path, |around| Self::parse(text, board, around)).map_err(|problems| {
            let error = |Problem { line, what, remedy }| error(line, what, &remedy);
            problems.into_iter().map(error).collect::<Vec<_>>()
        })?;
        let sets_nothing = |line: &str| line.is_empty() || line.starts_with('[') && line.ends_with(']');
        if text.lines().all(|line| sets_nothing(line.trim())) && running.is_some_and(|running| *running != config) {
            let remedy =
                "write the complete configuration and reload again; to use only defaults, put a comment into the file";
            return Err(vec![error(
                0,
                "is empty, but the running configuration is not the default one".into(),
                remedy,
            )]);
        }
        Ok(config)
    }

    /// Parses and validates the text of a configuration.
    ///
    /// # Errors
    /// All errors, in the order of lines.
    pub fn parse(text: &str, board: &Board, around: &Surroundings<'_>) -> Result<Self, Vec<Problem>> {
        let mut document = Document::parse(text);
        let config = Self {
            pages: sections::pages(&mut document),
            tls: tls::tls(&mut document, around),
            challenge_directory: tls::challenge_directory(&mut document),
            uplink: sections::uplink(&mut document, around),
            console: sections::console(&mut document, around, board),
            metrics: sections::off_or(&mut document, "metrics", "listen", address::metrics_listener),
            log_level: sections::log_level(&mut document),
            pages_per_address: sections::pages_per_address(&mut document, board),
            board: limits::lowered(&mut document, board),
        };
        sections::refuse_shared_listeners(&mut document, &config);
        let problems = document.finish();
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// The default configuration of a relay built for `board`: that of an empty file.
    ///
    /// # Errors
    /// None for a board that passed its build, which has checked its limits.
    pub fn of_defaults(board: &Board) -> Result<Self, Vec<ConfigError>> {
        Self::parse("", board, &Surroundings::without_files("")).map_err(|problems| {
            let error = |Problem { line, what, remedy }| ConfigError { file: PathBuf::new(), line, what, remedy };
            problems.into_iter().map(error).collect()
        })
    }

    /// The configuration as shipped: every key with its default, commented.
    #[must_use]
    pub const fn default_text() -> &'static str {
        include_str!("../systemd/sharelinkd.toml")
    }

    /// Remarks on a valid configuration that an operator should know, one line each. Logged at
    /// start, printed by `check`.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.uplink.addresses == sections::uplink_default() && self.uplink.secret.is_empty() {
            let address = &self.uplink.addresses[0];
            notes.push(format!("[uplink] has only defaults: the business server is expected at {address}, without a secret; still to configure: addresses and secret_file"));
        }
        if let Some(Serial { device, .. }) = &self.console.serial
            && std::fs::metadata(device).is_ok_and(|found| !found.file_type().is_char_device())
        {
            notes.push(format!("[console] serial: {} is not a character device: no console on it", device.display()));
        }
        if let Some(address) = self.metrics.filter(|address| !address.ip().to_canonical().is_loopback()) {
            notes.push(format!(
                "[metrics] listen is {address}, beyond this machine: anyone who can connect reads the metrics, unencrypted"
            ));
        }
        let pairs = self.tls.iter().flat_map(|tls| &tls.certificates);
        notes.extend(pairs.flat_map(|pair| &pair.notes).map(|note| format!("[tls] certificates: {note}")));
        if let Some(directory) = self.challenge_directory.as_ref().filter(|directory| !directory.is_dir()) {
            notes.push(format!(
                "[tls] challenge_directory: {} is not a directory, or can't be seen: no challenge is answered",
                directory.display()
            ));
        }
        notes.extend(self.uplink.tls.iter().flat_map(|tls| &tls.notes).map(|note| format!("[uplink.tls] {note}")));
        if self.uplink.tls.is_some() && self.uplink.plaintext {
            notes.push("[uplink] plaintext = true has no effect: [uplink.tls] encrypts the uplink".to_owned());
        }
        notes.extend(self.uplink.notes.iter().map(|note| format!("[uplink] {note}")));
        let size = self.uplink.secret.bytes().len();
        let is_plain = self.uplink.tls.is_none();
        if size < SECRET_SIZE_GOOD && is_plain && self.uplink.addresses.iter().any(|address| !address.is_local()) {
            notes.push(format!("[uplink] the secret has only {size} bytes, and an uplink beyond this machine relies on it: use at least {SECRET_SIZE_GOOD} random bytes"));
        }
        notes
    }
}

/// A shorter secret, in bytes, may be guessed offline by someone who recorded a handshake.
const SECRET_SIZE_GOOD: usize = 16;

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use board::HOST;

    fn parse(text: &str) -> Result<Config, Vec<String>> {
        let read_secret = |path: &Path| match path.to_str() {
            Some("good") => Ok(b"from a file\r\n".to_vec()),
            Some("empty") => Ok(b"\n".to_vec()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        let around = Surroundings { read_secret: &read_secret, ..Surroundings::without_files("box") };
        let line = |problem: Problem| format!("{}: {}; {}", problem.line, problem.what, problem.remedy);
        Config::parse(text, &HOST, &around).map_err(|problems| problems.into_iter().map(line).collect())
    }

    fn problems(text: &str) -> Vec<String> {
        parse(text).err().unwrap_or_default()
    }

    #[test]
    fn nothing_at_all_is_the_default() {
        let config = parse("").unwrap_or_else(|errors| panic!("{errors:?}"));
        assert_eq!(config.pages.listen, ["127.0.0.1:8080".parse().unwrap_or_else(|_| panic!())]);
        assert_eq!(config.uplink.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1:7400"]);
        assert_eq!(
            (config.uplink.linger_s, config.uplink.name.as_str(), config.log_level),
            (30, "box", LevelFilter::Info)
        );
        assert_eq!((config.board, config.pages_per_address), (HOST, None));
        assert!(matches!(&config.notes()[..], [note] if note.contains("still to configure")), "{:?}", config.notes());
        for set in ["secret = \"0123456789abcdef\"", "addresses = [\"127.0.0.1:7401\"]"] {
            let config = parse(&format!("[uplink]\n{set}\n")).unwrap_or_else(|errors| panic!("{errors:?}"));
            assert_eq!(config.notes(), [""; 0], "{set}");
        }
    }

    #[test]
    fn the_console_s_socket_is_in_the_runtime_directory_by_default() {
        let runtime_directory = Some(Path::new("/run/sharelinkd"));
        let around = Surroundings { runtime_directory, ..Surroundings::without_files("box") };
        for (text, socket) in [
            ("", Some("/run/sharelinkd/console.sock")),
            ("[console]\nsocket = \"off\"\n", None),
            ("[console]\nsocket = \"/run/other.sock\"\n", Some("/run/other.sock")),
        ] {
            let config = Config::parse(text, &HOST, &around).unwrap_or_else(|errors| panic!("{errors:?}"));
            assert_eq!(config.console.socket.as_deref(), socket.map(Path::new), "{text:?}");
        }
    }

    #[test]
    fn a_console_on_something_other_than_a_device_is_noted() {
        let notes = |device: &str| {
            let text = format!("[uplink]\nsecret = \"0123456789abcdef\"\n[console]\nserial = {device:?}\n");
            parse(&text).unwrap_or_else(|errors| panic!("{errors:?}")).notes()
        };
        assert!(matches!(&notes("/proc/self/status")[..], [note] if note.contains("is not a character device")));
        assert_eq!(notes("/dev/ttyUSB-that-comes-later"), [""; 0]);
        assert_eq!(notes("/dev/null"), [""; 0]);
    }

    #[test]
    fn the_file_as_shipped_is_the_default_commented_or_not() {
        let uncommented: Vec<&str> = Config::default_text()
            .lines()
            .map(|line| {
                line.strip_prefix('#')
                    .filter(|rest| rest.starts_with(|first: char| first.is_ascii_lowercase()))
                    .unwrap_or(line)
            })
            .collect();
        assert!(uncommented.iter().filter(|line| line.contains(" = ") && !line.starts_with('#')).count() >= 16);
        assert_eq!(parse(Config::default_text()), parse(""));
        assert_eq!(parse(&uncommented.join("\n")), parse(""));
    }

    #[test]
    fn the_file_as_shipped_names_every_limit() {
        for limit in &limits::LIMITS {
            assert!(Config::default_text().contains(limit.key), "{}", limit.key);
        }
    }

    #[test]
    fn what_is_printed_reads_back_and_keeps_the_secret() {
        let text = r#"
            [pages]
            listen = ["127.0.0.1:0", "[::1]:8081"]
            origins = ["https://share.example"]
            trusted_proxies = ["10.0.0.0/8"]
            [uplink]
            addresses = ["10.0.0.9:7400", "unix:/run/b.sock"]
            secret = "hunter2"
            plaintext = true
            name = "gate \"7\" \\ 門"
            [console]
            serial = "/dev/ttyS1"
            speed = 9600
            socket = "/run/x.sock"
            [metrics]
            listen = "127.0.0.1:9400"
            [limits]
            pages = 7
            pages_per_address = 3
            [log]
            level = "debug"
        "#;
        let config = parse(text).unwrap_or_else(|errors| panic!("{errors:?}"));
        assert_eq!(config.uplink.secret.bytes(), b"hunter2");
        assert_eq!(config.board.pages_max, 7);
        assert_eq!(config.notes().len(), 1, "a short secret: {:?}", config.notes());
        let open = parse("[uplink]\naddresses = [\"unix:/b\"]\n[metrics]\nlisten = \"[::]:9400\"")
            .unwrap_or_else(|errors| panic!("{errors:?}"));
        assert!(open.notes()[0].contains("beyond this machine"), "{:?}", open.notes());
        let printed = config.to_string();
        assert!(
            printed.contains("# secret: set, 7 bytes") && printed.contains("pages = 7 # lowered from 10000"),
            "{printed}"
        );
        assert!(!printed.contains("hunter2") && !format!("{config:?}").contains("hunter2"));
        let again = printed.replace("# secret: set, 7 bytes", "secret = \"hunter2\"");
        assert_eq!(parse(&again), Ok(config));
    }

    #[test]
    fn every_error_is_reported_not_only_the_first() {
        let text = "[pages]\nlisten = \"localhost:80\"\norigins = [\"*\", \"https://a.example\"]\nlisten_on = 1\n[uplink]\naddresses = []\n\
                    plaintext = 1\nlinger_s = 90000\n[console]\nspeed = 12345\nserial = \"ttyS1\"\n[metrics]\nlisten = 9400\n\
                    [limits]\npages = 10001\n[log]\nlevel = \"loud\"\n[tsl]\nmin_version = \"1.3\"\n";
        let errors = problems(text);
        let lines: Vec<&str> = errors.iter().filter_map(|text| text.split(':').next()).collect();
        assert_eq!(lines, ["2", "3", "4", "5", "7", "8", "10", "11", "13", "15", "17", "18"], "{errors:#?}");
    }

    #[test]
    fn an_uplink_beyond_the_machine_needs_a_secret_and_consent() {
        let errors = problems("[uplink]\naddresses = [\"127.0.0.1:7400\",\n\"10.0.0.9:7400\"]\n");
        assert_eq!(errors.len(), 2, "{errors:#?}");
        assert!(
            errors.iter().all(|text| text.starts_with("3: [uplink] addresses has 10.0.0.9:7400, beyond this machine")),
            "{errors:#?}"
        );
        assert!(
            errors.iter().any(|text| text.contains("plaintext = true"))
                && errors.iter().any(|text| text.contains("set secret or secret_file"))
        );
        assert!(parse("[uplink]\naddresses = \"10.0.0.9:7400\"\nplaintext = true\nsecret = \"x\"").is_ok());
        assert!(parse("[uplink]\naddresses = \"unix:/run/b.sock\"").is_ok());
    }

    #[test]
    fn a_spread_list_is_ranked_by_the_relay_s_name_and_reads_back() {
        let text = |name: &str, order: &str| {
            format!(
                "[uplink]\naddresses = [\"unix:/1\", \"unix:/2\", \"unix:/3\"]\nname = {name:?}\norder = {order:?}\n"
            )
        };
        let order = |name: &str, order: &str| {
            let config = parse(&text(name, order)).unwrap_or_else(|errors| panic!("{errors:?}"));
            assert_eq!(parse(&config.to_string()).as_ref(), Ok(&config));
            config.uplink.addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(order("a", "listed"), ["unix:/1", "unix:/2", "unix:/3"]);
        let firsts: std::collections::BTreeSet<_> =
            ('a'..'m').map(|name| order(&name.to_string(), "spread").remove(0)).collect();
        assert_eq!(firsts.len(), 3, "{firsts:?}");
        assert!(problems(&text("a", "random"))[0].contains("[uplink] order = \"random\" is not an order"));
    }

    #[test]
    fn the_time_of_a_dead_uplink_is_2_to_600_s() {
        for good in [2, 30, 600] {
            let config =
                parse(&format!("[uplink]\ndead_after_s = {good}\n")).unwrap_or_else(|errors| panic!("{errors:?}"));
            assert_eq!(config.uplink.dead_after_s, good);
        }
        for wrong in ["1", "601", "0", "2.5"] {
            assert_eq!(problems(&format!("[uplink]\ndead_after_s = {wrong}\n")).len(), 1, "{wrong}");
        }
    }

    #[test]
    fn the_secret_comes_from_one_place() {
        let from_file = parse("[uplink]\nsecret_file = \"good\"").map(|config| config.uplink.secret.bytes().to_vec());
        assert_eq!(from_file, Ok(b"from a file".to_vec()));
        assert!(
            problems("[uplink]\nsecret = \"hunter2\"\nsecret_file = \"good\"")[0]
                .starts_with("3: [uplink] has both secret and secret_file")
        );
        assert!(problems("[uplink]\nsecret_file = \"empty\"")[0].contains("is empty"));
        assert!(problems("[uplink]\nsecret_file = \"none\"")[0].contains("can't be read"));
        // If the secret is missing because of its own error, it is not reported as empty too.
        assert_eq!(problems("[uplink]\naddresses = \"10.0.0.9:1\"\nplaintext = true\nsecret = 5").len(), 1);
    }

    #[test]
    fn no_error_quotes_the_secret() {
        for text in [
            "secret = \"hunter2",
            "secret = hunter2",
            "secret = [\"hunter2\"]",
            "secrt = \"hunter2\"",
            "secret = \"hunter2\"\nsecret = \"hunter2\"",
        ] {
            let errors = problems(&format!("[uplink]\n{text}\n"));
            assert!(!errors.is_empty() && !errors.concat().contains("hunter2"), "{errors:?}");
        }
    }

    #[test]
    fn listeners_don_t_collide() {
        assert_eq!(problems("[pages]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:1\"]").len(), 1);
        assert!(problems("[pages]\nlisten = [\"127.0.0.1:0\", \"127.0.0.1:0\"]").is_empty());
        assert_eq!(problems("[metrics]\nlisten = \"127.0.0.1:8080\"").len(), 1);
    }

    #[test]
    fn the_error_of_a_missing_or_binary_file_names_it() {
        let errors = |path: &Path| {
            Config::load(path, &HOST)
                .err()
                .map(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())
                .unwrap_or_default()
        };
        let missing = errors(Path::new("/nowhere/x.toml"));
        assert!(missing.len() == 1 && missing[0].starts_with("/nowhere/x.toml: can't be read: "), "{missing:?}");
        assert!(errors(Path::new("/"))[0].contains("can't be read: it is a directory; name a regular file"));
        assert!(errors(Path::new("/dev/zero"))[0].contains("can't be read: it is a device; name a regular file"));
        let path = std::env::temp_dir().join(format!("sharelinkd-config-{}.toml", std::process::id()));
        let write = std::fs::write(&path, b"[pages]\n\nx = \"\xff\"\n");
        let binary = errors(&path);
        let _ = std::fs::remove_file(&path);
        assert!(write.is_ok() && binary.len() == 1 && binary[0].contains(".toml:3: is not UTF-8"), "{binary:?}");
    }

    #[test]
    fn the_contract_s_own_example_is_good() {
        let text = r#"
            [pages]
            listen = "127.0.0.1:8080"
            origins = ["https://share.example"]
            trusted_proxies = []
            [uplink]
            addresses = ["127.0.0.1:7400"]
            secret = ""
            plaintext = false
            linger_s = 30
            [console]
            serial = "off"
            socket = "off"
            [metrics]
            listen = "off"
            [limits]
            [log]
            level = "info"
        "#;
        assert_eq!(problems(text), [""; 0]);
    }

    #[test]
    fn broken_texts_give_problems_and_never_a_panic() {
        let text = "[pages]\nlisten = [\"127.0.0.1:80\", 'x']\norigins = \"*\"\n[limits]\npages = 0x10\n[[log]]\nlevel.x = {a=1}\n";
        for (at, _) in text.char_indices() {
            for noise in ["", "[", "]", "\"", "'''", "=", ".", ",", "{", "\n", "\0", "é", "#", "1e9"] {
                let (before, after) = text.split_at(at);
                let _ = parse(&format!("{before}{noise}{after}"));
                let _ = parse(&format!("{before}{noise}"));
            }
        }
    }
}
