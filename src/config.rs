//! The configuration: one TOML file, checked whole before anything starts.
//!
//! Owns the meaning of every key, its default, and what must hold between keys. Gives a typed
//! [`Config`] with the board as lowered by `[limits]`, or *every* error at once, each with its line,
//! what is wrong and how to mend it. Refuses what it doesn't know. Never prints the secret. Reads two
//! files (itself and the secret's) and resolves no names: a resolver would need a thread or block.
//! Knows nothing of sockets, of the machine, or of what is done with a value.

mod address;
mod file;
mod limits;
mod origin;
mod render;
mod sections;
mod values;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use log::LevelFilter;
use rustix::system::uname;

pub use address::UplinkAddress;
use board::Board;
pub use document::nearest;
use document::{Document, Problem, line_of};
use file::NoText;
pub use limits::LIMITS;
pub use origin::Origins;
pub use sections::{PAGES_PER_ADDRESS_AUTO, listen_default};
pub use values::{Network, Secret, Serial};

/// A configuration file has at most so many bytes: the term "events and configuration" of the memory sum relies on it.
pub const FILE_SIZE_MAX: u64 = 64 * 1024;
/// A secret file has at most so many bytes.
pub const SECRET_SIZE_MAX: u64 = 4096;
/// The whole configuration, typed and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[pages]`: where pages connect, and which may.
    pub pages: Pages,
    /// `[uplink]`: the business server.
    pub uplink: Uplink,
    /// `[console]`: the engineer's ways in.
    pub console: Console,
    /// `[metrics] listen`: where Prometheus scrapes; `None` is off.
    pub metrics: Option<SocketAddr>,
    /// `[log] level`.
    pub log_level: LevelFilter,
    /// `[limits] pages_per_address`: pages from one address (of IPv6: /64) at the same time; 0 is no limit. `None` is a
    /// quarter of the table, while that is above three quarters full.
    pub pages_per_address: Option<u32>,
    /// The board with its limits as lowered by `[limits]`.
    pub board: Board,
}

/// Where pages connect, and which may.
#[derive(Clone, Debug, PartialEq)]
pub struct Pages {
    /// At least one; port 0 takes any free one.
    pub listen: Vec<SocketAddr>,
    /// Allowed `Origin` headers besides the relay's own host.
    pub origins: Origins,
    /// Whether a request without an `Origin` (no browser) is refused.
    pub require_origin: bool,
    /// Where pages are found from outside, without a slash at its end: for the cards of links. `None`: nobody said.
    pub url: Option<String>,
    /// Proxies whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<Network>,
    /// Seconds that a drain may take, before the process ends with pages left.
    pub drain_s: u32,
    /// Whether many pages are written to by one call, where the kernel has it.
    pub io_uring: bool,
}

/// The business server, and how to reach it.
#[derive(Clone, Debug, PartialEq)]
pub struct Uplink {
    /// At least one; tried in this order.
    pub addresses: Vec<UplinkAddress>,
    /// Shared with the business server; empty only where every address is loopback or a Unix socket.
    pub secret: Secret,
    /// TCP beyond loopback is wanted although nothing protects it.
    pub plaintext: bool,
    /// Seconds that a topic stays warm after its last page left.
    pub linger_s: u32,
    /// The relay's name in `Hello`, at most 256 bytes.
    pub name: String,
}

/// The engineer's ways in.
#[derive(Clone, Debug, PartialEq)]
pub struct Console {
    /// The serial line; `None` is off.
    pub serial: Option<Serial>,
    /// Whether the console may change things, or only look.
    pub control: bool,
    /// The Unix socket of `sharelinkd console`; `None` is off.
    pub socket: Option<PathBuf>,
}

/// One thing wrong with a configuration: prints as one line that names file, line and remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Counted from 1; 0 where the file as a whole is meant.
    pub line: u32,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
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

/// What a configuration depends on besides its text, so that reading it can be tested.
pub struct Surroundings<'a> {
    /// The bytes of `secret_file`, as it was named.
    pub read_secret: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    /// The machine's name: the relay's, unless it is given one.
    pub hostname: &'a str,
    /// The directory that the service manager made for sockets: the console's is there, unless it is told otherwise.
    pub runtime_directory: Option<&'a Path>,
}

impl Config {
    /// Reads and checks a file for a relay that was built for `board`.
    ///
    /// A `secret_file` that is not absolute is looked for in `$CREDENTIALS_DIRECTORY` (systemd's `LoadCredential`) where
    /// that is set, else beside the configuration. The console's socket is `console.sock` in `$RUNTIME_DIRECTORY` (systemd's
    /// `RuntimeDirectory`) where that is set and nothing else is said.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of lines.
    pub fn load(path: &Path, board: &Board) -> Result<Self, Vec<ConfigError>> {
        Self::load_over(path, board, None)
    }

    /// Reads and checks it again, for a relay that runs with `running`.
    ///
    /// # Errors
    /// Everything that is wrong; besides, a file with nothing in it where that would change anything: an editor leaves such a
    /// one for a moment, and the defaults are not what was meant.
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
                "name a file that is there and that the relay may read; `sharelinkd config` prints one to start from";
            vec![error(0, format!("can't be read: {cause}"), file::remedy(cause.kind(), otherwise))]
        })?;
        let text = file::text(&bytes).map_err(|NoText { at, what, remedy }| {
            vec![error(at.map_or(0, |at| line_of(&bytes, at)), what.to_owned(), remedy)]
        })?;
        let home = std::env::var_os("CREDENTIALS_DIRECTORY")
            .map_or_else(|| path.parent().unwrap_or(Path::new("")).to_owned(), PathBuf::from);
        let read_secret = |name: &Path| {
            let name = home.join(name);
            file::read(&name, SECRET_SIZE_MAX)
                .map_err(|cause| io::Error::new(cause.kind(), format!("{}: {cause}", name.display())))
        };
        let runtime_directory = std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from);
        let around = Surroundings {
            read_secret: &read_secret,
            hostname: &hostname(),
            runtime_directory: runtime_directory.as_deref(),
        };
        let config = Self::parse(text, board, &around).map_err(|problems| {
            let error = |Problem { line, what, remedy }| error(line, what, &remedy);
            problems.into_iter().map(error).collect::<Vec<_>>()
        })?;
        let says_nothing = |line: &str| line.is_empty() || line.starts_with('[') && line.ends_with(']');
        if text.lines().all(|line| says_nothing(line.trim())) && running.is_some_and(|running| *running != config) {
            let remedy = "write the whole configuration into it and reload again; where all defaults are meant, a comment in it says so";
            return Err(vec![error(
                0,
                "has nothing in it, and the relay runs with more than the defaults".into(),
                remedy,
            )]);
        }
        Ok(config)
    }

    /// The configuration of this text.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of lines.
    pub fn parse(text: &str, board: &Board, around: &Surroundings<'_>) -> Result<Self, Vec<Problem>> {
        let mut document = Document::parse(text);
        let config = Self {
            pages: sections::pages(&mut document),
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

    /// What an empty file says for a relay that was built for `board`.
    ///
    /// # Errors
    /// None that a board which built has: its limits are within themselves.
    pub fn of_defaults(board: &Board) -> Result<Self, Vec<ConfigError>> {
        let around = Surroundings {
            read_secret: &|_| Err(io::ErrorKind::NotFound.into()),
            hostname: "",
            runtime_directory: None,
        };
        Self::parse("", board, &around).map_err(|problems| {
            let error = |Problem { line, what, remedy }| ConfigError { file: PathBuf::new(), line, what, remedy };
            problems.into_iter().map(error).collect()
        })
    }

    /// The configuration as shipped: every key with its default, commented.
    #[must_use]
    pub const fn default_text() -> &'static str {
        include_str!("../systemd/sharelinkd.toml")
    }

    /// What an operator should know of a good configuration, a line for each: to be logged at start and told by
    /// `check`.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.uplink.addresses == sections::uplink_default() && self.uplink.secret.is_empty() {
            let address = &self.uplink.addresses[0];
            notes.push(format!("[uplink] is as shipped: the business server is looked for at {address}, without a secret; left to configure: addresses and secret_file"));
        }
        if let Some(Serial { device, .. }) = &self.console.serial
            && std::fs::metadata(device).is_ok_and(|found| !found.file_type().is_char_device())
        {
            notes.push(format!("[console] serial: {} is no device, so there is no console on it", device.display()));
        }
        if let Some(address) = self.metrics.filter(|address| !address.ip().to_canonical().is_loopback()) {
            notes.push(format!(
                "[metrics] listen is {address}, beyond this machine: whoever reaches it reads the figures, unencrypted"
            ));
        }
        let size = self.uplink.secret.bytes().len();
        if size < SECRET_SIZE_GOOD && self.uplink.addresses.iter().any(|address| !address.is_local()) {
            notes.push(format!("[uplink] the secret has {size} bytes and goes beyond this machine: {SECRET_SIZE_GOOD} random ones can't be guessed"));
        }
        notes
    }
}

/// A secret of fewer bytes may be guessed by whoever saw a handshake.
const SECRET_SIZE_GOOD: usize = 16;

/// The machine's name, or the program's where the machine has none. Asked of the kernel: in the unit's sandbox `/proc` has
/// processes alone.
fn hostname() -> String {
    let name = uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() || name == "(none)" { "sharelinkd".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use board::HOST;

    fn parse(text: &str) -> Result<Config, Vec<String>> {
        let read_secret = |path: &Path| match path.to_str() {
            Some("good") => Ok(b"from a file\r\n".to_vec()),
            Some("empty") => Ok(b"\n".to_vec()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        let around = Surroundings { read_secret: &read_secret, hostname: "box", runtime_directory: None };
        let told = |problem: Problem| format!("{}: {}; {}", problem.line, problem.what, problem.remedy);
        Config::parse(text, &HOST, &around).map_err(|problems| problems.into_iter().map(told).collect())
    }

    fn problems(text: &str) -> Vec<String> {
        parse(text).err().unwrap_or_default()
    }

    #[test]
    fn nothing_at_all_is_the_default() {
        let config = parse("").unwrap_or_else(|told| panic!("{told:?}"));
        assert_eq!(config.pages.listen, ["127.0.0.1:8080".parse().unwrap_or_else(|_| panic!())]);
        assert_eq!(config.uplink.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1:7400"]);
        assert_eq!(
            (config.uplink.linger_s, config.uplink.name.as_str(), config.log_level),
            (30, "box", LevelFilter::Info)
        );
        assert_eq!((config.board, config.pages_per_address), (HOST, None));
        assert!(matches!(&config.notes()[..], [note] if note.contains("left to configure")), "{:?}", config.notes());
        for set in ["secret = \"0123456789abcdef\"", "addresses = [\"127.0.0.1:7401\"]"] {
            let config = parse(&format!("[uplink]\n{set}\n")).unwrap_or_else(|told| panic!("{told:?}"));
            assert_eq!(config.notes(), [""; 0], "{set}");
        }
    }

    #[test]
    fn the_console_s_socket_is_where_the_service_manager_made_room_for_it_unless_it_is_told_otherwise() {
        let read_secret = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
        let directory = Some(Path::new("/run/sharelinkd"));
        let around = Surroundings { read_secret: &read_secret, hostname: "box", runtime_directory: directory };
        for (text, socket) in [
            ("", Some("/run/sharelinkd/console.sock")),
            ("[console]\nsocket = \"off\"\n", None),
            ("[console]\nsocket = \"/run/other.sock\"\n", Some("/run/other.sock")),
        ] {
            let config = Config::parse(text, &HOST, &around).unwrap_or_else(|told| panic!("{told:?}"));
            assert_eq!(config.console.socket.as_deref(), socket.map(Path::new), "{text:?}");
        }
    }

    #[test]
    fn a_console_on_what_is_no_device_is_noted() {
        let notes = |device: &str| {
            let text = format!("[uplink]\nsecret = \"0123456789abcdef\"\n[console]\nserial = {device:?}\n");
            parse(&text).unwrap_or_else(|told| panic!("{told:?}")).notes()
        };
        assert!(matches!(&notes("/proc/self/status")[..], [note] if note.contains("is no device")));
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
        let config = parse(text).unwrap_or_else(|told| panic!("{told:?}"));
        assert_eq!(config.uplink.secret.bytes(), b"hunter2");
        assert_eq!(config.board.pages_max, 7);
        assert_eq!(config.notes().len(), 1, "a short secret: {:?}", config.notes());
        let open = parse("[uplink]\naddresses = [\"unix:/b\"]\n[metrics]\nlisten = \"[::]:9400\"")
            .unwrap_or_else(|told| panic!("{told:?}"));
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
    fn every_error_is_told_not_only_the_first() {
        let text = "[pages]\nlisten = \"localhost:80\"\norigins = [\"*\", \"https://a.example\"]\nlisten_on = 1\n[uplink]\naddresses = []\n\
                    plaintext = 1\nlinger_s = 90000\n[console]\nspeed = 12345\nserial = \"ttyS1\"\n[metrics]\nlisten = 9400\n\
                    [limits]\npages = 10001\n[log]\nlevel = \"loud\"\n[tls]\ncert = \"x\"\n";
        let told = problems(text);
        let lines: Vec<&str> = told.iter().filter_map(|text| text.split(':').next()).collect();
        assert_eq!(lines, ["2", "3", "4", "5", "7", "8", "10", "11", "13", "15", "17", "18"], "{told:#?}");
    }

    #[test]
    fn an_uplink_beyond_the_machine_needs_a_secret_and_consent() {
        let told = problems("[uplink]\naddresses = [\"127.0.0.1:7400\",\n\"10.0.0.9:7400\"]\n");
        assert_eq!(told.len(), 2, "{told:#?}");
        assert!(
            told.iter().all(|text| text.starts_with("3: [uplink] addresses has 10.0.0.9:7400, beyond this machine")),
            "{told:#?}"
        );
        assert!(
            told.iter().any(|text| text.contains("plaintext = true"))
                && told.iter().any(|text| text.contains("set secret or secret_file"))
        );
        assert!(parse("[uplink]\naddresses = \"10.0.0.9:7400\"\nplaintext = true\nsecret = \"x\"").is_ok());
        assert!(parse("[uplink]\naddresses = \"unix:/run/b.sock\"").is_ok());
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
        // A secret that is missing for an error of its own is not also called empty.
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
            let told = problems(&format!("[uplink]\n{text}\n"));
            assert!(!told.is_empty() && !told.concat().contains("hunter2"), "{told:?}");
        }
    }

    #[test]
    fn listeners_don_t_collide() {
        assert_eq!(problems("[pages]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:1\"]").len(), 1);
        assert!(problems("[pages]\nlisten = [\"127.0.0.1:0\", \"127.0.0.1:0\"]").is_empty());
        assert_eq!(problems("[metrics]\nlisten = \"127.0.0.1:8080\"").len(), 1);
    }

    #[test]
    fn a_file_that_is_not_there_or_not_text_is_told_by_its_name() {
        let told = |path: &Path| {
            Config::load(path, &HOST)
                .err()
                .map(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())
                .unwrap_or_default()
        };
        let missing = told(Path::new("/nowhere/x.toml"));
        assert!(missing.len() == 1 && missing[0].starts_with("/nowhere/x.toml: can't be read: "), "{missing:?}");
        assert!(told(Path::new("/"))[0].contains("can't be read: it is a directory; name a regular file"));
        assert!(told(Path::new("/dev/zero"))[0].contains("can't be read: it is a device; name a regular file"));
        let path = std::env::temp_dir().join(format!("sharelinkd-config-{}.toml", std::process::id()));
        let write = std::fs::write(&path, b"[pages]\n\nx = \"\xff\"\n");
        let binary = told(&path);
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
