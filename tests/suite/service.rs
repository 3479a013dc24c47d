//! The relay under a service manager: notifications, passed sockets, and the shipped units.
//!
//! The manager is simulated: a datagram socket for notifications, and a listener that outlives the
//! relays. `tests/run` has systemd itself check the units.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use board::HOST;

use sharelinkd::config::certificates::GROUP;

use crate::world::{Business, Folder, PATIENCE, config_text, connect, free_address, subscribe};

/// The notification socket of a service manager.
struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    fn at(name: String) -> Self {
        let address = match name.strip_prefix('@') {
            Some(name) => UnixAddress::from_abstract_name(name).unwrap(),
            None => UnixAddress::from_pathname(&name).unwrap(),
        };
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, name }
    }

    fn in_folder(folder: &Folder) -> Self {
        Self::at(folder.0.join("notify").to_str().unwrap().to_owned())
    }

    /// The next notification.
    fn hear(&self) -> String {
        let mut text = [0; 1024];
        let size = self.socket.recv(&mut text).expect("the relay sends a notification in time");
        String::from_utf8(text[..size].to_vec()).unwrap()
    }

    /// The next notification that contains `word`.
    fn hear_of(&self, word: &str) -> String {
        let end = now() + PATIENCE;
        loop {
            let text = self.hear();
            if text.contains(word) {
                return text;
            }
            assert!(now() < end, "no {word} in time; the last message was {text:?}");
        }
    }
}

/// A relay, killed when dropped.
struct Relay(Child);

impl Relay {
    /// Ends it with SIGTERM; its exit code.
    fn end(mut self) -> Option<i32> {
        signal(&self.0, "TERM");
        self.0.wait().unwrap().code()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "a service manager waits in real time")]
fn now() -> Instant {
    Instant::now()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap().success());
}

/// A relay that is passed these sockets under these names, as in `sd_listen_fds(3)`.
fn activated(config: &Path, sockets: &[&OwnedFd], names: &str) -> Command {
    // A shell knows its own process number, and moves the sockets to descriptors 3 and up.
    let moves = ["", "3<&0 </dev/null", "4<&1 3<&0 </dev/null >/dev/null"][sockets.len()];
    let script = format!("export LISTEN_PID=$$ LISTEN_FDS={}; exec {moves}; exec \"$0\" \"$@\"", sockets.len());
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_sharelinkd"), "run", "--config"]).arg(config);
    command.env("LISTEN_FDNAMES", names).stderr(Stdio::null());
    let passed = |socket: &OwnedFd| Stdio::from(socket.try_clone().unwrap());
    if let Some(socket) = sockets.first() {
        command.stdin(passed(socket));
    }
    if let Some(socket) = sockets.get(1) {
        command.stdout(passed(socket));
    }
    command
}

fn start(mut command: Command, manager: &Manager) -> Relay {
    let relay = Relay(command.env("NOTIFY_SOCKET", &manager.name).spawn().unwrap());
    manager.hear_of("READY=1");
    relay
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn the_service_manager_gets_the_relays_status() {
    let folder = Folder::new("told");
    let business = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free_address();
    let text = config_text(business.local_addr().unwrap()).replace("127.0.0.1:0", &address.to_string());
    let config = folder.write("relay.toml", &text);
    let abstract_name = format!("@sharelinkd-test-{}", std::process::id());
    for manager in [Manager::in_folder(&folder), Manager::at(abstract_name)] {
        let mut command = crate::world::program();
        command.args(["run", "--config"]).arg(&config).stderr(Stdio::null());
        command.env("NOTIFY_SOCKET", &manager.name);
        let relay = Relay(command.spawn().unwrap());
        let first = manager.hear();
        assert!(first.starts_with("READY=1\nSTATUS=0 of 10000 pages, 0 topics; uplink "), "{first}");
        assert!(first.contains("; memory ") && first.contains(" MiB"), "{first}");
        assert!(get(address, "/healthz").unwrap().ends_with("ok"), "ready means that it serves");

        let mut business = Business::meet(&business);
        manager.hear_of("STATUS=0 of 10000 pages, 0 topics; uplink up (127.0.0.1:");
        let mut page = connect(address);
        let asks = thread::spawn(move || {
            subscribe(&mut page, "link");
            page
        });
        business.accept(7);
        let page = asks.join().unwrap();
        manager.hear_of("STATUS=1 of 10000 pages, 1 topics; uplink up");

        signal(&relay.0, "HUP");
        let reloading = manager.hear_of("RELOADING=1");
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let uptime_s: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let (_, us) = reloading.split_once("\nMONOTONIC_USEC=").expect(&reloading);
        let us: f64 = us.parse().unwrap();
        // The monotonic clock stops while a machine is suspended; the uptime does not.
        assert!(us > 0.0 && us / 1e6 < uptime_s + 1.0, "{us} of {uptime_s} s");
        assert!(manager.hear_of("=1").starts_with("READY=1\nSTATUS=1 of 10000"));

        signal(&relay.0, "TERM");
        let stopping = manager.hear_of("STOPPING=1");
        assert_eq!(stopping, "STOPPING=1\nEXTEND_TIMEOUT_USEC=15000000", "the drain's ten seconds, and five");
        drop(page);
        assert_eq!(relay.end(), Some(0));
    }
}

#[test]
fn an_unchanged_status_is_not_repeated() {
    let folder = Folder::new("unchanged");
    let manager = Manager::in_folder(&folder);
    let config =
        folder.write("relay.toml", "[pages]\nlisten = \"127.0.0.1:0\"\n[uplink]\naddresses = [\"unix:/nowhere\"]\n");
    let mut command = crate::world::program();
    command.args(["run", "--config"]).arg(config).stderr(Stdio::null());
    let _relay = start(command, &manager);
    let begun = now();
    let mut said = Vec::new();
    manager.socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut text = [0; 1024];
    while begun.elapsed() < Duration::from_secs(8) {
        if let Ok(size) = manager.socket.recv(&mut text) {
            said.push(String::from_utf8_lossy(&text[..size]).into_owned());
        }
    }
    // The uplink is `down` or dialling: one line every two seconds at most.
    assert!(said.len() <= 5, "{said:?}");
    assert!(said.windows(2).all(|pair| pair[0] != pair[1]), "{said:?}");
}

#[test]
fn only_the_watched_process_feeds_the_watchdog() {
    /// A watchdog message is due every quarter of this; no machine stalls for the other three.
    const LIMIT: Duration = Duration::from_secs(4);
    let folder = Folder::new("watchdog");
    let config =
        folder.write("relay.toml", "[pages]\nlisten = \"127.0.0.1:0\"\n[uplink]\naddresses = [\"unix:/nowhere\"]\n");
    let start = |whose: &str, manager: &Manager| {
        let script = format!("export WATCHDOG_PID={whose}; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_sharelinkd"), "run", "--config"]).arg(&config);
        command.env("WATCHDOG_USEC", LIMIT.as_micros().to_string()).stderr(Stdio::null());
        start(command, manager)
    };
    let manager = |name| Manager::at(format!("@sharelinkd-test-watchdog-{}-{name}", std::process::id()));
    let (own, others) = (manager("own"), manager("others"));
    let _of_another = start("1", &others);
    let _watched = start("$$", &own);
    // Within the watchdog's limit there is time for three more messages after the first.
    let mut signs = vec![now()];
    let mut text = [0; 1024];
    while signs.len() < 5 {
        own.socket.set_read_timeout(Some(LIMIT)).unwrap();
        let size = own.socket.recv(&mut text).unwrap_or_else(|error| panic!("no watchdog message in time: {error}"));
        if &text[..size] == b"WATCHDOG=1" {
            signs.push(now());
        }
        let silence = signs[signs.len() - 1].elapsed();
        assert!(silence < LIMIT, "no watchdog message for {silence:?}");
    }
    let longest = signs.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest < LIMIT, "{signs:?}");
    others.socket.set_nonblocking(true).unwrap();
    while let Ok(size) = others.socket.recv(&mut text) {
        assert_ne!(&text[..size], b"WATCHDOG=1", "another process is watched");
    }
}

#[test]
fn a_restart_refuses_no_connection() {
    let folder = Folder::new("restart");
    let manager = Manager::in_folder(&folder);
    // `pages.listen` differs from the passed socket's address, and has no effect.
    let config =
        folder.write("relay.toml", "[pages]\nlisten = \"127.0.0.1:1\"\n[uplink]\naddresses = [\"unix:/nowhere\"]\n");
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let held = OwnedFd::from(held);
    let is_over = Arc::new(AtomicBool::new(false));
    let comers: Vec<_> = (0..3)
        .map(|_| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || {
                let mut count = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let begun = now();
                    match get(address, "/healthz") {
                        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => count += 1,
                        // A client that stalls before its request until the head's timeout is
                        // sent away.
                        answer => {
                            let refused = answer.as_ref().err().map(std::io::Error::kind);
                            let is_refused = refused == Some(std::io::ErrorKind::ConnectionRefused);
                            let is_slow = begun.elapsed() > Duration::from_millis(900);
                            assert!(is_slow && !is_refused, "{answer:?} after {:?}", begun.elapsed());
                        }
                    }
                }
                count
            })
        })
        .collect();
    let mut relay = start(activated(&config, &[&held], "http"), &manager);
    for _ in 0..5 {
        // A page with a subscription, so that there is something to drain.
        let mut page = connect(address);
        let told = thread::spawn(move || while page.read().is_ok() {});
        thread::sleep(Duration::from_millis(200));
        assert_eq!(relay.end(), Some(0));
        told.join().unwrap();
        // The next relay has not started yet.
        thread::sleep(Duration::from_millis(200));
        relay = start(activated(&config, &[&held], "http"), &manager);
    }
    is_over.store(true, Ordering::Relaxed);
    let counts: Vec<u32> = comers.into_iter().map(|comer| comer.join().expect("no client was refused")).collect();
    assert!(counts.iter().all(|count| *count > 5), "{counts:?}");
    drop(relay);
}

#[test]
fn both_sockets_are_taken_by_their_names() {
    let folder = Folder::new("names");
    let manager = Manager::in_folder(&folder);
    let config = folder.write("relay.toml", "[uplink]\naddresses = [\"unix:/nowhere\"]\n");
    let pages = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = pages.local_addr().unwrap();
    let path = folder.0.join("console.sock");
    let console = OwnedFd::from(UnixListener::bind(&path).unwrap());
    let relay = start(activated(&config, &[&console, &OwnedFd::from(pages)], "console:http"), &manager);
    let status = crate::world::program().args(["status", "--socket"]).arg(&path).output().unwrap();
    assert_eq!(status.status.code(), Some(1), "degraded: no business server is connected");
    assert!(String::from_utf8(status.stdout).unwrap().contains("[U1]"));
    assert!(get(address, "/healthz").unwrap().ends_with("ok"));
    assert_eq!(relay.end(), Some(0));
    assert!(path.exists(), "only the service manager removes its socket");
}

/// A configuration with TLS, whose own address is taken by nobody, in this folder.
fn tls_text(folder: &Folder) -> String {
    let line = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -addext subjectAltName=DNS:localhost -keyout key.pem -out chain.pem";
    let made = Command::new("openssl").current_dir(&folder.0).args(line.split(' ')).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let pair = "certificates = [{ certificate_file = \"chain.pem\", key_file = \"key.pem\" }]";
    format!("[tls]\nlisten = \"127.0.0.1:1\"\n{pair}\n[uplink]\naddresses = [\"unix:/nowhere\"]\n")
}

#[test]
fn pages_by_tls_come_to_the_socket_of_that_name() {
    let folder = Folder::new("tls-socket");
    let manager = Manager::in_folder(&folder);
    let config = folder.write("relay.toml", &tls_text(&folder));
    let listeners = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let [plain, tls] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
    let [plain_socket, tls_socket] = listeners.map(OwnedFd::from);
    let mut command = activated(&config, &[&tls_socket, &plain_socket], "tls:http");
    command.stderr(fs::File::create(folder.0.join("log")).unwrap());
    let mut relay = start(command, &manager);
    for _ in 0..2 {
        assert!(get(plain, "/healthz").unwrap().ends_with("ok"));
        let said = Command::new("openssl")
            .args(["s_client", "-quiet", "-verify_return_error", "-verify_hostname", "localhost", "-CAfile"])
            .arg(folder.0.join("chain.pem"))
            .args(["-connect", &tls.to_string()])
            .stdin(request(&folder))
            .stderr(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with("ok"), "{said}");
        // The next relay gets the same sockets: what came meanwhile has waited.
        assert_eq!(relay.end(), Some(0));
        relay = start(activated(&config, &[&tls_socket, &plain_socket], "sharelinkd-tls.socket:http"), &manager);
    }
    let log = fs::read_to_string(folder.0.join("log")).unwrap();
    let told = format!(
        "pages connect by TLS to {tls}, where the service manager listens (ListenStream= in sharelinkd-tls.socket); tls.listen = 127.0.0.1:1 has no effect"
    );
    assert!(log.contains(&told), "{log}");
}

/// A request as a file, for a program's input.
fn request(folder: &Folder) -> fs::File {
    fs::File::open(folder.write("request", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
        .unwrap()
}

#[test]
fn a_socket_for_tls_that_is_off_keeps_no_page_from_the_other_one() {
    let folder = Folder::new("tls-off");
    let manager = Manager::in_folder(&folder);
    let console = folder.0.join("console.sock");
    let off = format!("[console]\nsocket = {console:?}\n[uplink]\naddresses = [\"unix:/nowhere\"]\n");
    let config = folder.write("relay.toml", &off);
    let listeners = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let [plain, held] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
    let [plain_socket, tls_socket] = listeners.map(OwnedFd::from);
    let mut command = activated(&config, &[&tls_socket, &plain_socket], "tls:http");
    command.stderr(fs::File::create(folder.0.join("log")).unwrap());
    let relay = start(command, &manager);
    assert!(get(plain, "/healthz").unwrap().ends_with("ok"));
    let status = crate::world::program().args(["status", "--socket"]).arg(&console).output().unwrap();
    let status = String::from_utf8(status.stdout).unwrap().split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    let told = format!("[C7] the service manager listens at {held} for pages by TLS, which is off: set tls.listen, or");
    assert!(status.contains(&told), "{status}");
    let log = fs::read_to_string(folder.0.join("log")).unwrap();
    let told = format!("nobody serves {held}, where the service manager listens for pages by TLS");
    assert!(log.contains(&told) && log.contains("disable --now sharelinkd-tls.socket"), "{log}");
    // The relay has closed it: nobody listens once the service manager doesn't either.
    drop(tls_socket);
    assert_eq!(TcpStream::connect(held).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(relay.end(), Some(0));
}

#[test]
fn unsuitable_sockets_are_refused() {
    let folder = Folder::new("no-sockets");
    let config = folder.write("relay.toml", "[uplink]\naddresses = [\"unix:/nowhere\"]\n");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = OwnedFd::from(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let datagrams = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    let unix = OwnedFd::from(UnixListener::bind(folder.0.join("unix")).unwrap());
    let tcp = OwnedFd::from(listener);
    for (socket, name, told) in [
        (&datagrams, "http", "not a TCP socket"),
        (&unix, "http", "not a TCP socket"),
        (&unix, "tls", "not a TCP socket"),
        (&connected, "tls", "is not listening"),
        (&unix, "sharelinkd-tls.socket", "not a TCP socket"),
        (&connected, "http", "is not listening"),
        (&tcp, "console", "not a Unix stream socket"),
        (&tcp, "httpd", "FileDescriptorName= must be http, tls or console"),
    ] {
        let output = activated(&config, &[socket], name).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(said.contains(told) && said.contains("sharelinkd.socket"), "{name}: {said}");
    }
}

#[test]
fn a_difference_between_unit_and_configuration_is_logged() {
    let folder = Folder::new("differ");
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let held = OwnedFd::from(held);
    for (listen, level) in
        [(String::new(), Some("INFO")), ("127.0.0.1:9".to_owned(), Some("WARN")), (address.to_string(), None)]
    {
        let line = if listen.is_empty() { String::new() } else { format!("[pages]\nlisten = \"{listen}\"\n") };
        let config = folder.write("relay.toml", &format!("{line}[uplink]\naddresses = [\"unix:/nowhere\"]\n"));
        let manager = Manager::at(format!("@sharelinkd-test-differ-{}-{level:?}", std::process::id()));
        let mut command = activated(&config, &[&held], "http");
        command.stderr(fs::File::create(folder.0.join("log")).unwrap());
        let relay = start(command, &manager);
        folder.write("relay.toml", "[pages]\nlisten = \"127.0.0.1:10\"\n[uplink]\naddresses = [\"unix:/nowhere\"]\n");
        signal(&relay.0, "HUP");
        manager.hear_of("RELOADING=1");
        manager.hear_of("READY=1");
        assert_eq!(relay.end(), Some(0));
        let log = fs::read_to_string(folder.0.join("log")).unwrap();
        assert!(log.contains("pages.listen changed, but has no effect"), "{log}");
        let found = log.lines().find(|line| line.contains("where the service manager listens"));
        assert_eq!(found.is_some(), level.is_some(), "{listen}: {log}");
        if let (Some(found), Some(level)) = (found, level) {
            assert!(found.contains(level) && found.contains(&format!("pages connect to {address}")), "{found}");
        }
    }
}

/// The values of a unit by key; of a repeated key the last.
fn unit(name: &str) -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name);
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn the_figures_in_the_unit_are_the_board_hosts() {
    let unit = unit("sharelinkd.service");
    let drop_in = board::drop_in(&HOST, None);
    let figures: Vec<(&str, &str)> =
        drop_in.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')).collect();
    assert_eq!(figures.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["MemoryMax", "TasksMax", "LimitNOFILE"]);
    for (key, value) in figures {
        assert_eq!(unit.get(key).map(String::as_str), Some(value), "{key}");
    }
}

#[test]
fn the_program_prints_the_drop_in_of_each_board() {
    for board in board::ALL {
        let output = crate::world::program().args(["drop-in", "--board", board.name]).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.contains(&format!("\nMemoryMax={}\n", board.memory_budget)), "{printed}");
        assert!(printed.contains(&format!("\nLimitNOFILE={}\n", board::descriptors(board))), "{printed}");
    }
    let output = crate::world::program().args(["drop-in", "--board", "toaster"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let folder = Folder::new("drop-in");
    let config = folder.write("relay.toml", "[console]\nserial = \"/dev/ttymxc1\"\n");
    let output = crate::world::program().args(["drop-in", "--config"]).arg(config).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("\nDeviceAllow=/dev/ttymxc1 rw\n"), "{printed}");
}

#[test]
fn the_units_agree_with_the_program() {
    let service = unit("sharelinkd.service");
    let (pages, console) = (unit("sharelinkd.socket"), unit("sharelinkd-console.socket"));
    assert_eq!(pages["ListenStream"], "127.0.0.1:8080", "pages.listen's default");
    assert_eq!(console["ListenStream"], sharelinkd::terminal::SOCKET);
    assert_eq!((&*pages["FileDescriptorName"], &*console["FileDescriptorName"]), ("http", "console"));
    let tls = unit("sharelinkd-tls.socket");
    assert_eq!((&*tls["FileDescriptorName"], &*tls["Service"]), ("tls", "sharelinkd.service"));
    assert!(tls["WantedBy"].contains("sharelinkd.service"), "a restart of the relay must start the socket before it");
    assert!(service["SupplementaryGroups"].split(' ').any(|group| group == GROUP), "who may read the keys");
    for script in ["debian/postinst", "install.sh"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(script)).unwrap();
        assert!(text.contains(&format!("\ngroup={GROUP}\n")), "{script} makes the group");
    }
    let stop_s: u32 = service["TimeoutStopSec"].parse().unwrap();
    assert!(stop_s > 10, "pages.drain_s's default");
    // A crash loop is restarted for ever: it never reaches the start limit.
    let number = |key: &str| service[key].parse::<u32>().unwrap();
    assert!(number("RestartSec") * number("StartLimitBurst") > number("StartLimitIntervalSec"));
}

/// Runs `systemd/line` with this program and configuration, on a machine where process `prompt`
/// owns the line. Returns its exit code, its output, and its systemctl commands.
fn line(folder: &Folder, words: &[&str], prompt: Option<u32>) -> (Option<i32>, String, String) {
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/line")).unwrap();
    let text = source
        .replace("/usr/bin/sharelinkd", env!("CARGO_BIN_EXE_sharelinkd"))
        .replace("/run/sharelinkd", folder.0.to_str().unwrap())
        .replace("/etc/sharelinkd/sharelinkd.toml", folder.0.join("relay.toml").to_str().unwrap());
    let script = folder.write("line", &text);
    let asked = folder.write("asked", "");
    // A shell function rather than a program: a file just written can't be executed while another
    // test's child still holds its write descriptor (ETXTBSY).
    let systemctl = r#"systemctl() {
        echo "$*" >>"$TEST_ASKED"
        case "$*" in
        *is-active*) [ "$TEST_PROMPT" != 0 ] ;;
        *MainPID*) echo "$TEST_PROMPT" ;;
        esac
    }
    . "$0""#;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", systemctl]).arg(script).args(words);
    shell.env("TEST_ASKED", &asked).env("TEST_PROMPT", prompt.unwrap_or(0).to_string());
    let output = shell.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said, fs::read_to_string(asked).unwrap())
}

#[test]
fn a_prompt_is_kept_off_while_the_relay_runs_and_no_longer() {
    let folder = Folder::new("line");
    let kept_off = || folder.0.join("line-ttyNone7").exists();
    for (config, takes) in [("serial = \"/dev/ttyNone7\"", true), ("serial = \"off\"", false), ("nonsense = 1", false)]
    {
        folder.write("relay.toml", &format!("[console]\n{config}\n"));
        line(&folder, &["take"], None);
        assert_eq!(kept_off(), takes, "{config}: an invalid configuration locks no user out");
        let (_, _, asked) = line(&folder, &["release"], None);
        assert!(!kept_off() && asked == "start --no-block getty.target\n", "{asked}");
    }
    let prompt = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/serial-getty.conf")).unwrap();
    assert!(prompt.contains("\nConditionPathExists=!/run/sharelinkd/line-%I\n"));
}

#[test]
fn the_console_takes_the_line_of_a_prompt_and_leaves_that_of_a_login() {
    let folder = Folder::new("line-taken");
    folder.write("relay.toml", "[console]\nserial = \"/dev/ttyNone7\"\n");
    // A process is named after its program file.
    std::os::unix::fs::symlink("/bin/sleep", folder.0.join("agetty")).unwrap();
    for (program, login) in [(folder.0.join("agetty"), false), ("/bin/sleep".into(), true)] {
        let mut process = std::process::Command::new(program).arg("60").spawn().unwrap();
        let (code, said, asked) = line(&folder, &["take"], Some(process.id()));
        process.kill().unwrap();
        process.wait().unwrap();
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(said.contains("somebody is logged in on /dev/ttyNone7"), login, "{said}");
        assert_eq!(asked.contains("stop serial-getty@ttyNone7.service"), !login, "{asked}");
    }
}

#[test]
fn a_relay_does_without_huge_pages() {
    let relay = crate::world::Process::start_as("huge-pages", "");
    let status = fs::read_to_string(format!("/proc/{}/status", relay.child.id())).unwrap();
    // From Linux 6.0 on; before, nothing reports it.
    if let Some(line) = status.lines().find(|line| line.starts_with("THP_enabled:")) {
        assert!(line.ends_with('0'), "{line}: with huge pages for all, the first row of each table takes 2 MiB");
    }
}
