//! Certificates that change under a running relay, as a CA's client and an operator change them.
//!
//! A real daemon, certificates by OpenSSL, and two clients: rustls, and OpenSSL's. What the look
//! once a minute sees is tested in `src/daemon/tls/reload.rs`; here one test waits for it, and
//! otherwise a reload comes by SIGHUP or from the console, which reads all files anew.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_tungstenite::tungstenite::client::IntoClientRequest;
use async_tungstenite::tungstenite::{Message, WebSocket, client};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};
use sha2::{Digest as _, Sha256};
use wire::Track;
use wire::uplink::{Part, ToRelay};

use crate::anyone::client_of;
use crate::world::{Business, Folder, PATIENCE, SECRET, program};

const P256: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
type Line = StreamOwned<ClientConnection, TcpStream>;

/// A browser: it keeps its tickets.
struct Browser(Arc<ClientConfig>);

impl Browser {
    fn new(versions: &[&'static rustls::SupportedProtocolVersion]) -> Self {
        Self(Arc::new(client_of(versions)))
    }

    /// Connects, and asks for `/healthz`; the whole answer, so that tickets have come too.
    fn get(&self, address: SocketAddr, name: &str) -> std::io::Result<(Line, String)> {
        let mut line = self.connect(address, name)?;
        line.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        line.read_to_string(&mut answer)?;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        Ok((line, answer))
    }

    fn connect(&self, address: SocketAddr, name: &str) -> std::io::Result<Line> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut line = StreamOwned::new(ClientConnection::new(Arc::clone(&self.0), name).unwrap(), stream);
        while line.conn.is_handshaking() {
            line.conn.complete_io(&mut line.sock)?;
        }
        Ok(line)
    }
}

/// The SHA-256 of the certificate that a fresh browser is shown for a name.
fn shown(address: SocketAddr, name: &str) -> String {
    let (line, _) = Browser::new(&[&TLS13, &TLS12]).get(address, name).unwrap();
    hex(line.conn.peer_certificates().unwrap()[0].as_ref())
}

/// The same by OpenSSL, with this version.
fn shown_to_openssl(address: SocketAddr, version: &str) -> String {
    let script = format!(
        "openssl s_client -{version} -connect {address} </dev/null 2>/dev/null | openssl x509 -outform der | openssl dgst -sha256 -r"
    );
    let said = Command::new("sh").args(["-c", &script]).output().unwrap();
    String::from_utf8(said.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn openssl(folder: &Folder, at: Option<&str>, line: &str) {
    let mut command = Command::new("openssl");
    command.args(line.split(' ')).current_dir(&folder.0);
    if let Some(at) = at {
        fake_clock(&mut command, at);
    }
    let done = command.output().unwrap();
    assert!(done.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Lets libfaketime make of a program's clock what `at` says. The program `faketime` fails where a
/// killed process with its own number has left a semaphore; the library does not mind.
fn fake_clock(command: &mut Command, at: &str) {
    let mut found = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let library = |folder: PathBuf| Some(folder.join("faketime/libfaketime.so.1")).filter(|path| path.exists());
    let library = found.find_map(library).expect("libfaketime is missing: install the package faketime");
    command.env("LD_PRELOAD", library).env("FAKETIME", at).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
}

/// Makes `<name>.key` and the self-signed `<name>.pem`, for `<name>.example`; its fingerprint.
/// `at`: what faketime makes of the clock.
fn pair(folder: &Folder, name: &str, at: Option<&str>) -> String {
    let names = format!("-subj /CN={name} -addext subjectAltName=DNS:{name}.example");
    openssl(folder, at, &format!("req -x509 {P256} {names} -days 30 -keyout {name}.key -out {name}.pem"));
    openssl(folder, None, &format!("x509 -in {name}.pem -outform der -out {name}.der"));
    hex(&fs::read(folder.0.join(format!("{name}.der"))).unwrap())
}

/// A text without its line breaks, which come where the screen ends.
fn words(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// Puts a file into the place of another, as every good client does: renamed, never half there.
fn install(folder: &Folder, from: &str, to: &str) {
    fs::copy(folder.0.join(from), folder.0.join("new")).unwrap();
    fs::rename(folder.0.join("new"), folder.0.join(to)).unwrap();
}

/// A relay with TLS, its console and its metrics.
struct Relay {
    child: Child,
    log: PathBuf,
    console: PathBuf,
    config: PathBuf,
    tls: SocketAddr,
    metrics: SocketAddr,
}

impl Relay {
    fn start(folder: &Folder, tls: &str, uplink: &str) -> Self {
        Self::start_by(program(), folder, tls, uplink)
    }

    fn start_by(mut program: Command, folder: &Folder, tls: &str, uplink: &str) -> Self {
        let (log, console) = (folder.0.join("log"), folder.0.join("console.sock"));
        let config = folder.write("relay.toml", &Self::text(folder, tls, uplink));
        program.args(["run", "--config"]).arg(&config).stderr(fs::File::create(&log).unwrap()).stdout(Stdio::null());
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut relay = Self { child: program.spawn().unwrap(), log, console, config, tls: any, metrics: any };
        relay.tls = relay.logged(", by TLS to ", 0).parse().unwrap();
        relay.metrics = relay.logged("metrics are served at http://", 0).trim_end_matches("/metrics").parse().unwrap();
        relay
    }

    fn text(folder: &Folder, tls: &str, uplink: &str) -> String {
        let socket = folder.0.join("console.sock");
        format!(
            "[pages]\nlisten = \"127.0.0.1:0\"\n[tls]\nlisten = \"127.0.0.1:0\"\n{tls}\n[uplink]\naddresses = [\"{uplink}\"]\nsecret = \"{SECRET}\"\n\
             [console]\ncontrol = true\nsocket = {socket:?}\n[metrics]\nlisten = \"127.0.0.1:0\"\n"
        )
    }

    /// Writes another configuration.
    fn configure(&self, folder: &Folder, tls: &str) {
        fs::write(&self.config, Self::text(folder, tls, "unix:/nowhere")).unwrap();
    }

    /// Its log, in whole lines.
    fn log(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap();
        log.rsplit_once('\n').map_or("", |(whole, _)| whole).to_owned()
    }

    /// Waits for another line in the log than the first `skipped` with this in it; what comes
    /// behind it.
    fn logged(&self, what: &str, skipped: usize) -> String {
        for _ in 0..PATIENCE.as_millis() / 10 {
            if let Some((_, behind)) = self.log().lines().filter_map(|line| line.split_once(what)).nth(skipped) {
                return behind.to_owned();
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("no {what:?} in {}", self.log());
    }

    fn console(&self, words: &[&str]) -> String {
        let output = program().args(["console", "--socket"]).arg(&self.console).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// The codes of its conditions, without that of the business server, which isn't there.
    fn codes(&self) -> Vec<String> {
        let status: serde_json::Value = serde_json::from_str(&self.console(&["json"])).unwrap();
        let codes = status["conditions"].as_array().unwrap().iter().map(|it| it["code"].as_str().unwrap().to_owned());
        codes.filter(|code| code != "U1").collect()
    }

    /// The value of a metric.
    fn metric(&self, row: &str) -> Option<i64> {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.lines().find_map(|line| line.strip_prefix(row)?.strip_prefix(' ')?.parse().ok())
    }

    /// Sends SIGHUP, and waits until the log has its end.
    fn hang_up(&self, end: &str) {
        let before = self.log().matches(end).count();
        assert!(Command::new("kill").args(["-s", "HUP", &self.child.id().to_string()]).status().unwrap().success());
        self.logged(end, before);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const LIVE: &str = "certificates = [{ certificate_file = \"live.pem\", key_file = \"live.key\" }]";

#[test]
fn a_renewed_certificate_is_in_the_next_handshake_and_nobody_is_cut_off() {
    let folder = Folder::new("renewed");
    let (old, new) = (pair(&folder, "old", None), pair(&folder, "new", None));
    install(&folder, "old.pem", "live.pem");
    install(&folder, "old.key", "live.key");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Relay::start(&folder, LIVE, &listener.local_addr().unwrap().to_string());
    let mut business = Business::meet(&listener);

    // A page, and a browser with a ticket.
    let browser = Browser::new(&[&TLS13]);
    let (line, _) = browser.get(relay.tls, "old.example").unwrap();
    assert_eq!(hex(line.conn.peer_certificates().unwrap()[0].as_ref()), old);
    let mut request = format!("wss://{}/ws", relay.tls).into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", "sharelink.v1".parse().unwrap());
    let (mut page, _) = client(request, browser.connect(relay.tls, "old.example").unwrap()).unwrap();
    page.send(Message::text(r#"{"type":"subscribe","id":1,"link":"a-link"}"#)).unwrap();
    business.accept(7);
    let publish = |business: &mut Business, sequence| {
        let data = format!("{{\"n\":{sequence}}}");
        business.send(&ToRelay::Publish {
            topic: 7,
            track: Track::Messages,
            sequence,
            part: Part::Whole,
            data: data.as_bytes(),
        });
    };
    publish(&mut business, 1);
    until(&mut page, "\"n\":1");

    install(&folder, "new.pem", "live.pem");
    install(&folder, "new.key", "live.key");
    relay.hang_up("configuration reloaded");

    assert_eq!(shown(relay.tls, "old.example"), new);
    for version in ["tls1_2", "tls1_3"] {
        assert_eq!(shown_to_openssl(relay.tls, version), new, "{version}");
    }
    publish(&mut business, 2);
    until(&mut page, "\"n\":2");
    let (line, _) = browser.get(relay.tls, "old.example").unwrap();
    assert_eq!(line.conn.handshake_kind(), Some(HandshakeKind::Resumed), "tickets go on");
    let said = relay.console(&["tls"]);
    assert!(said.contains(&format!("SHA-256       {new}\n")) && said.contains("names         new.example\n"), "{said}");
    assert!(said.contains("reloads       1 good, 0 failed\n"), "{said}");
    assert_eq!(relay.metric("sharelinkd_tls_reloads_total{result=\"good\"}"), Some(1));
    assert!(relay.metric("sharelinkd_tls_handshakes_total{kind=\"resumed\"}") >= Some(1));
    let left_s = relay.metric("sharelinkd_tls_certificate_expiry_seconds{certificate=\"1\"}").unwrap();
    assert!((29 * 86_400..=30 * 86_400).contains(&left_s), "{left_s}");
    assert!(relay.console(&["status"]).contains("\ntls         1 certificate at 127.0.0.1:"));
}

/// Reads until a text with this in it.
fn until(page: &mut WebSocket<Line>, what: &str) {
    loop {
        match page.read().expect("a frame in time") {
            Message::Text(text) if text.contains(what) => return,
            Message::Close(_) => panic!("closed"),
            _ => {}
        }
    }
}

#[test]
fn the_files_are_looked_at_without_being_asked() {
    let folder = Folder::new("unasked");
    let (old, new) = (pair(&folder, "old", None), pair(&folder, "new", None));
    install(&folder, "old.pem", "live.pem");
    install(&folder, "old.key", "live.key");
    let relay = Relay::start(&folder, LIVE, "unix:/nowhere");
    assert_eq!(shown(relay.tls, "x.example"), old);
    install(&folder, "new.pem", "live.pem");
    install(&folder, "new.key", "live.key");
    // Once a minute. Between the two files a look may find half of it, and then the next takes it.
    for _ in 0..2 * 60 {
        if relay.log().contains("has changed and is in use now") {
            break;
        }
        thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(shown(relay.tls, "x.example"), new);
}

#[test]
fn links_are_followed_as_certbot_and_others_swap_them() {
    let folder = Folder::new("links");
    let (old, new) = (pair(&folder, "old", None), pair(&folder, "new", None));
    fs::create_dir(folder.0.join("live")).unwrap();
    let point = |name: &str| {
        for ending in ["pem", "key"] {
            symlink(format!("../{name}.{ending}"), folder.0.join("new")).unwrap();
            fs::rename(folder.0.join("new"), folder.0.join("live").join(ending)).unwrap();
        }
    };
    point("old");
    let live = "certificates = [{ certificate_file = \"live/pem\", key_file = \"live/key\" }]";
    let relay = Relay::start(&folder, live, "unix:/nowhere");
    assert_eq!(shown(relay.tls, "x.example"), old);
    point("new");
    relay.hang_up("configuration reloaded");
    assert_eq!(shown(relay.tls, "x.example"), new);
}

#[test]
fn a_pair_that_does_not_match_leaves_the_previous_one_and_a_condition_until_it_does() {
    let folder = Folder::new("mismatch");
    let (old, new) = (pair(&folder, "old", None), pair(&folder, "new", None));
    install(&folder, "old.pem", "live.pem");
    install(&folder, "old.key", "live.key");
    let relay = Relay::start(&folder, LIVE, "unix:/nowhere");
    assert_eq!(relay.codes(), [""; 0]);

    install(&folder, "new.key", "live.key");
    let said = words(&relay.console(&["reload"]));
    assert!(said.contains("does not match certificate_file") && said.contains("[E8]"), "{said}");
    assert_eq!(relay.codes(), ["C3"]);
    let status = words(&relay.console(&["status"]));
    assert!(status.contains("live.key does not match certificate_file"), "{status}");
    assert_eq!(shown(relay.tls, "x.example"), old);
    assert_eq!(relay.metric("sharelinkd_condition{code=\"C3\"}"), Some(1));
    assert_eq!(relay.metric("sharelinkd_tls_reloads_total{result=\"failed\"}"), Some(1));
    relay.hang_up("the previous certificate stays in use");

    install(&folder, "new.pem", "live.pem");
    assert!(relay.console(&["reload"]).contains("configuration reloaded"));
    assert_eq!(relay.codes(), [""; 0]);
    assert_eq!(shown(relay.tls, "x.example"), new);
}

/// Nothing of a configuration with an error is taken, but a renewal doesn't wait for it.
#[test]
fn a_renewal_does_not_wait_until_the_configuration_is_good() {
    let folder = Folder::new("other-error");
    let (old, new) = (pair(&folder, "old", None), pair(&folder, "new", None));
    install(&folder, "old.pem", "live.pem");
    install(&folder, "old.key", "live.key");
    let relay = Relay::start(&folder, LIVE, "unix:/nowhere");
    assert_eq!(shown(relay.tls, "x.example"), old);
    relay.configure(&folder, &format!("min_version = \"1.3\"\nhsts_s = \"long\"\n{LIVE}"));
    install(&folder, "new.pem", "live.pem");
    install(&folder, "new.key", "live.key");
    assert!(relay.console(&["reload"]).contains("[E8]"));
    assert_eq!(shown(relay.tls, "x.example"), new);
    assert_eq!(shown_to_openssl(relay.tls, "tls1_2"), new, "the rest stays");
}

#[test]
fn the_section_changes_without_a_restart_except_for_where_it_listens() {
    let folder = Folder::new("section");
    let (old, new) = (pair(&folder, "old", None), pair(&folder, "new", None));
    let one = "certificates = [{ certificate_file = \"old.pem\", key_file = \"old.key\" }]";
    let relay = Relay::start(&folder, one, "unix:/nowhere");
    assert_eq!((shown(relay.tls, "old.example"), shown(relay.tls, "new.example")), (old.clone(), old.clone()));
    assert_eq!(shown_to_openssl(relay.tls, "tls1_2"), old);
    let answer = Browser::new(&[&TLS13]).get(relay.tls, "old.example").unwrap().1.to_ascii_lowercase();
    assert!(!answer.contains("strict-transport-security"), "{answer}");

    let two = "min_version = \"1.3\"\nhsts_s = 500\ncertificates = [{ certificate_file = \"old.pem\", key_file = \"old.key\" }, { certificate_file = \"new.pem\", key_file = \"new.key\" }]";
    relay.configure(&folder, two);
    let text = fs::read_to_string(&relay.config).unwrap();
    fs::write(&relay.config, text.replacen("[tls]\nlisten = \"127.0.0.1:0\"", "[tls]\nlisten = \"127.0.0.1:1\"", 1))
        .unwrap();
    let said = relay.console(&["reload"]);
    assert_eq!(said, "tls.listen changed: takes effect after a restart\nconfiguration reloaded\n");
    assert_eq!((shown(relay.tls, "old.example"), shown(relay.tls, "new.example")), (old, new));
    assert_eq!(shown_to_openssl(relay.tls, "tls1_2"), hex(b""), "1.2 is refused now");
    let answer = Browser::new(&[&TLS13]).get(relay.tls, "old.example").unwrap().1.to_ascii_lowercase();
    assert!(answer.contains("strict-transport-security: max-age=500"), "{answer}");
    assert!(relay.metric("sharelinkd_tls_certificate_expiry_seconds{certificate=\"2\"}").is_some());
}

#[test]
fn an_end_that_is_near_is_a_condition_and_a_clock_that_was_never_set_is_another() {
    let folder = Folder::new("ends");
    for (at, code) in
        [("-24d", Some("C4")), ("-29d", Some("C2")), ("-40d", Some("C1")), ("+5d", Some("C1")), ("-1d", None)]
    {
        pair(&folder, "live", Some(at));
        let relay = Relay::start(&folder, LIVE, "unix:/nowhere");
        assert_eq!(relay.codes(), Vec::from_iter(code), "{at}");
        let left_s = relay.metric("sharelinkd_tls_certificate_expiry_seconds{certificate=\"1\"}").unwrap();
        assert_eq!(left_s < 0, at == "-40d", "{at}: {left_s}");
        assert_eq!(relay.log().contains("[tls] certificates: "), code.is_some(), "{at}: a note at the start");
    }
    // A box whose battery is dead, with a certificate of today.
    pair(&folder, "live", None);
    let mut command = program();
    fake_clock(&mut command, "@1970-01-02 00:00:00");
    let relay = Relay::start_by(command, &folder, LIVE, "unix:/nowhere");
    assert_eq!(relay.codes(), ["C5"]);
    assert_eq!(relay.metric("sharelinkd_tls_certificate_expiry_seconds{certificate=\"1\"}"), None);
    let said = words(&relay.console(&["tls"]));
    assert!(said.contains("; may have expired: the clock was never set SHA-256"), "{said}");
}

#[test]
fn check_says_what_an_operator_should_know_of_each_certificate() {
    let folder = Folder::new("check");
    pair(&folder, "one", None);
    pair(&folder, "two", None);
    openssl(
        &folder,
        None,
        "req -new -key two.key -subj /CN=leaf -addext subjectAltName=DNS:one.example,DNS:*.two.example -out leaf.csr",
    );
    openssl(
        &folder,
        None,
        "x509 -req -in leaf.csr -CA one.pem -CAkey one.key -set_serial 7 -days 30 -copy_extensions copy -out leaf.pem",
    );
    let pairs = "certificates = [{ certificate_file = \"one.pem\", key_file = \"one.key\" }, { certificate_file = \"leaf.pem\", key_file = \"two.key\" }]";
    let config = folder.write("relay.toml", &Relay::text(&folder, pairs, "unix:/nowhere"));
    let output = program().args(["check", "--config"]).arg(&config).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let shown = |name: &str| folder.0.join(name).display().to_string();
    for expected in [
        "    # one.example; ECDSA P-256; valid 20".to_owned(),
        "    # one.example, *.two.example; ECDSA P-256; valid 20".to_owned(),
        format!("# note: [tls] certificates: {} has only the server's own certificate", shown("leaf.pem")),
        format!(
            "# note: [tls] certificates: {} has the name one.example, for which {} answers, which is listed before it\n",
            shown("leaf.pem"),
            shown("one.pem")
        ),
    ] {
        assert!(said.contains(&expected), "{expected}: {said}");
    }
    // What is printed is a configuration again.
    let again = folder.write("again.toml", &said.replace("# secret: ", "secret_file = \"none\" # "));
    let output = program().args(["check", "--config"]).arg(&again).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!errors.contains("[tls]"), "{errors}");
}
