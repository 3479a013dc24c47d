//! The program as a whole: the real binary, its signals, its exit codes, and what it prints.
//!
//! All ports are 0 and read from what the program says. Nothing is timed: each wait has a generous
//! deadline and ends as soon as what it waits for is there.
#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Far beyond what anything here takes.
const PATIENCE: Duration = Duration::from_secs(90);
const PROGRAM: &str = env!("CARGO_BIN_EXE_sharelink-hub");

/// A folder, removed when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sharelink-hub-{name}-{}", std::process::id()));
        // A killed process with this number may have left it.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process whose standard error is read; killed when the test ends.
struct Process {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        Self::of(Command::new(PROGRAM).args(arguments))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines, said: Vec::new() }
    }

    /// Waits for a line with this text on standard error, from where the last wait ended.
    fn line(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(why) => panic!("no {text:?} ({why}): {:#?}", self.said),
            }
        }
    }

    fn stdout(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(self.child.stdout.take().unwrap())
    }

    fn id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).unwrap();
    }

    /// Waits for its end; returns the exit code and the rest of standard error.
    fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Disconnected) => return (status.code(), self.said.join("\n")),
                Err(RecvTimeoutError::Timeout) => panic!("standard error stays open: {:#?}", self.said),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn output(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).env_remove("SHARELINK_KEY").output().unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    let output = output(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The address behind these words in a line.
fn address(line: &str, words: &str) -> SocketAddr {
    let (_, after) = line.split_once(words).unwrap_or_else(|| panic!("{line}"));
    after.split([' ', ',']).next().unwrap().parse().unwrap()
}

/// Whether a process is there. One that nobody has waited for yet is not.
fn is_running(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

/// Waits until a process is gone, and its listeners with it.
fn until_gone(process: Pid) {
    const STEP: Duration = Duration::from_millis(20);
    for _ in 0..PATIENCE.as_millis() / STEP.as_millis() {
        if !is_running(process) {
            return;
        }
        thread::sleep(STEP);
    }
    panic!("process {process:?} is still there");
}

const HUB: &str = "[api]\nlisten = \"127.0.0.1:0\"\n[uplink]\nlisten = \"127.0.0.1:0\"\n";

#[test]
fn it_runs_until_it_is_asked_to_end() {
    let folder = Folder::new("runs");
    let path = folder.write("hub.toml", HUB);
    for signal in [Signal::TERM, Signal::INT] {
        let mut hub = Process::start(&["run", "--config", path.to_str().unwrap()]);
        let ready = hub.line("ready: the API is at ");
        let addresses = [address(&ready, "the API is at "), address(&ready, "relays connect to ")];
        for address in addresses {
            TcpStream::connect(address).unwrap();
        }
        // What would end most programs.
        hub.signal(Signal::USR1);
        hub.line("a signal is ignored");
        hub.signal(signal);
        assert_eq!(hub.end().0, Some(0), "{signal:?}");
    }
}

#[test]
fn what_prevents_the_start_is_told() {
    let folder = Folder::new("start");
    let wrong = folder.write("wrong.toml", "[api]\nlisten = \"here\"\n[hub]\nx = 1\n");
    for command in ["run", "check"] {
        let output = output(&[command, "--config", wrong.to_str().unwrap()]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{stderr}");
        assert!(
            stderr.contains("wrong.toml:2: [api] listen has \"here\"") && stderr.contains("wrong.toml:3: "),
            "{stderr}"
        );
        assert!(stderr.contains("the configuration has 2 errors"), "{stderr}");
    }
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = HUB.replacen("127.0.0.1:0", &held.local_addr().unwrap().to_string(), 1);
    let taken = folder.write("taken.toml", &text);
    let output = output(&["run", "--config", taken.to_str().unwrap()]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && stderr.contains("another program listens there; stop it"), "{stderr}");
    assert_eq!(self::output(&["rnu"]).status.code(), Some(64));
    assert_eq!(self::output(&["status"]).status.code(), Some(64), "no key");
}

#[test]
fn a_reload_takes_what_it_can_and_refuses_what_is_wrong() {
    let folder = Folder::new("reload");
    let text = |more: &str| format!("{HUB}{more}\n");
    let path = folder.write("hub.toml", &text("[log]\nlevel = \"info\""));
    let mut hub = Process::start(&["run", "--config", path.to_str().unwrap()]);
    hub.line("ready: ");
    let mut reload = |text: &str, words: &[&str]| {
        folder.write("hub.toml", text);
        hub.signal(Signal::HUP);
        words.iter().for_each(|word| drop(hub.line(word)));
    };
    reload(&text("[links]\nadmission = \"dev\""), &["for development alone", "reloaded: links.admission changed"]);
    reload(&text("[links]\nadmission = \"dve\""), &["did you mean \"dev\"?", "stays as it was: 1 error(s)"]);
    reload("", &["is empty, but the running configuration is not the default one"]);
    reload(
        &text("[links]\nadmission = \"dev\"\n[limits]\nrelays = 3"),
        &["limits.relays changed: takes effect after a restart", "reloaded: no key changed"],
    );
    reload(
        &text("[log]\nformat = \"json\""),
        &["\"level\":\"info\",\"module\":\"reload\",\"message\":\"reloaded: links.admission, log.format changed\""],
    );
    hub.signal(Signal::TERM);
    assert_eq!(hub.end().0, Some(0));
}

/// A relay: the program's own.
fn relay(folder: &Folder, name: &str, uplink: SocketAddr, secret: &str) -> Process {
    relay_with(folder, name, uplink, secret, "")
}

/// The same, with further sections in its configuration.
fn relay_with(folder: &Folder, name: &str, uplink: SocketAddr, secret: &str, more: &str) -> Process {
    let text = format!(
        "[pages]\nlisten = \"127.0.0.1:0\"\ndrain_s = 1\n[uplink]\naddresses = [\"{uplink}\"]\nname = {name:?}\nsecret = {secret:?}\n\
         [console]\nserial = \"off\"\nsocket = \"off\"\n{more}"
    );
    let path = folder.write(&format!("{name}.toml"), &text);
    let mut command = Command::new(PROGRAM);
    command.arg("dev-relay").arg(path).env("SHARELINK_DEV_PARENT", std::process::id().to_string());
    Process::of(&mut command)
}

#[test]
fn a_relay_whose_secret_is_removed_is_closed() {
    let folder = Folder::new("secrets");
    let secrets = ["a-0123456789abcdef", "b-0123456789abcdef"];
    folder.write("a", secrets[0]);
    folder.write("b", secrets[1]);
    let rows = |rows: &str| format!("{HUB}relays = [{rows}]\n");
    let both = "{ name = \"a\", secret_file = \"a\" }, { name = \"b\", secret_file = \"b\" }";
    let path = folder.write("hub.toml", &rows(both));
    let mut hub = Process::start(&["run", "--config", path.to_str().unwrap()]);
    let uplink = address(&hub.line("ready: "), "relays connect to ");
    let _a = relay(&folder, "a", uplink, secrets[0]);
    hub.line("relay \"a\" is connected");
    let _b = relay(&folder, "b", uplink, secrets[1]);
    hub.line("relay \"b\" is connected");
    // A secret is bound to a name.
    let _other = relay(&folder, "other", uplink, secrets[1]);
    hub.line("another name");
    folder.write("hub.toml", &rows("{ name = \"b\", secret_file = \"b\" }"));
    hub.signal(Signal::HUP);
    hub.line("relay \"a\" is gone");
    hub.line("reloaded: uplink.relays changed");
    assert!(!hub.said.iter().any(|line| line.contains("relay \"b\" is gone")), "{:#?}", hub.said);
    hub.signal(Signal::TERM);
    let (code, said) = hub.end();
    assert_eq!(code, Some(0));
    assert!(secrets.iter().all(|secret| !said.contains(secret)), "{said}");
}

/// Makes `<name>.pem` and `<name>.key` for this name, of the CA `ca`, which is made first.
fn certificate(folder: &Folder, name: &str) {
    let openssl = |line: &str| {
        let done = Command::new("openssl").current_dir(&folder.0).args(line.split(' ')).output().unwrap();
        assert!(done.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&done.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30";
    if !folder.0.join("ca.pem").exists() {
        openssl(&format!("req -x509 {key} -subj /CN=ca -keyout ca.key -out ca.pem"));
    }
    openssl(&format!(
        "req -x509 {key} -subj /CN={name} -addext subjectAltName=DNS:{name} -addext basicConstraints=critical,CA:FALSE \
         -CA ca.pem -CAkey ca.key -keyout {name}.key -out {name}.pem"
    ));
}

#[test]
fn a_relay_connects_by_tls_and_shows_its_certificate() {
    let folder = Folder::new("tls");
    ["hub.example", "box.example"].iter().for_each(|name| certificate(&folder, name));
    let secret = "0123456789abcdef";
    let own = |name: &str| format!("certificate_file = \"{name}.pem\"\nkey_file = \"{name}.key\"\n");
    let hub = format!("{HUB}secret = {secret:?}\n[uplink.tls]\n{}ca_file = \"ca.pem\"\n", own("hub.example"));
    let path = folder.write("hub.toml", &hub);
    let mut hub = Process::start(&["run", "--config", path.to_str().unwrap()]);
    let uplink = address(&hub.line("ready: "), "relays connect to ");
    let tls = |more: &str| format!("[uplink.tls]\nca_file = \"ca.pem\"\nname = \"hub.example\"\n{more}");
    let stranger = relay_with(&folder, "stranger", uplink, secret, &tls(""));
    hub.line("a relay's TLS handshake failed");
    drop(stranger);
    let _box = relay_with(&folder, "box", uplink, secret, &tls(&own("box.example")));
    hub.line("relay \"box\" is connected");
    assert!(!hub.said.iter().any(|line| line.contains("\"stranger\" is connected")), "{:#?}", hub.said);
    // A renewed file is taken without any change in the configuration, and a damaged one changes
    // nothing.
    certificate(&folder, "hub.example");
    hub.signal(Signal::HUP);
    hub.line("certificates and CAs were read again");
    folder.write("hub.example.key", "nothing");
    hub.signal(Signal::HUP);
    hub.line("has no private key");
    hub.line("the configuration stays as it was");
    let _next = relay_with(&folder, "next", uplink, secret, &tls(&own("box.example")));
    hub.line("relay \"next\" is connected");
}

#[test]
fn a_reload_leaves_no_listener_beyond_the_machine_open() {
    let folder = Folder::new("far");
    let far = HUB.replace("127.0.0.1:0", "0.0.0.0:0").replace("[uplink]", "plaintext = true\n[uplink]");
    let path = folder.write("hub.toml", &format!("{far}plaintext = true\nsecret = \"0123456789abcdef\"\n"));
    let mut hub = Process::start(&["run", "--config", path.to_str().unwrap()]);
    let uplink = address(&hub.line("ready: "), "relays connect to ");
    // Good for listeners on loopback, and it would let anybody in at those that are open.
    folder.write("hub.toml", HUB);
    hub.signal(Signal::HUP);
    hub.line("[uplink] stays as it is until a restart");
    hub.line("reloaded: ");
    let near = SocketAddr::from(([127, 0, 0, 1], uplink.port()));
    let _anybody = relay(&folder, "anybody", near, "");
    hub.line("refused a connection of a relay");
}

#[test]
fn what_check_and_key_print_is_a_configuration() {
    let folder = Folder::new("check");
    let check = |name: &str, text: &str| stdout(&["check", "--config", folder.write(name, text).to_str().unwrap()]);
    let first = check("shipped.toml", &stdout(&["config"]));
    assert!(first.contains("# note: [api] keys is empty") && first.contains("# Memory, at most:"), "{first}");
    let second = check("again.toml", &first);
    let tail = |text: &str| text.split_once('\n').unwrap().1.to_owned();
    assert_eq!(tail(&first), tail(&second));
    let made = stdout(&["key", "--name", "a \"shop\"", "--topics", "shop"]);
    let row = made.lines().last().unwrap();
    let key = made.lines().find(|line| line.starts_with("slk_")).unwrap();
    assert_eq!(key.len(), 4 + 43);
    for (wrong, words) in [
        (["--scopes", "publsh"], "did you mean publish?"),
        (["--scopes", ","], "scopes is empty"),
        (["--name", "a\tb"], "is not a name"),
        (["--topics", "shop/"], "before a /, such as \"shop\""),
    ] {
        let refused = output(&[&["key"][..], &wrong].concat());
        let text = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && refused.stdout.is_empty() && text.contains(words), "{wrong:?}: {text}");
    }
    let third = check("key.toml", &format!("[api]\nkeys = [\n{row}\n]\n"));
    assert!(third.contains(row) && !third.contains(key), "{third}");
    folder.write("secret", &stdout(&["secret"]));
    folder.write("hook", &stdout(&["secret", "--webhook"]));
    let text = "[links]\nkeys = [{ id = \"1\", key_file = \"secret\" }]\n[webhook]\nurl = \"http://127.0.0.1:3000\"\nsecret_files = \"hook\"\n";
    let fourth = check("secrets.toml", text);
    assert!(fourth.contains(&format!("secret_files = [\"{}\"]", folder.0.join("hook").display())), "{fourth}");
}

/// Answers one request, and returns it.
fn answer(listener: TcpListener, status: &'static str, body: &'static str) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut request, mut part) = (String::new(), [0; 1024]);
        let is_whole = |text: &str| {
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
            let size = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            text.contains("\r\n\r\n") && body.len() >= size.map_or(0, |size| size.parse().unwrap())
        };
        while !is_whole(&request) {
            let size = stream.read(&mut part).unwrap();
            assert!(size > 0, "{request}");
            request += std::str::from_utf8(&part[..size]).unwrap();
        }
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        request
    })
}

#[test]
fn say_and_status_call_the_api() {
    let folder = Folder::new("client");
    let key = folder.write("key", "slk_from-a-file\n");
    let call = |arguments: &[&str], status: &'static str, body: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = format!("http://{}/", listener.local_addr().unwrap());
        let request = answer(listener, status, body);
        let words = [arguments, &["--api", &api, "--key-file", key.to_str().unwrap()][..]].concat();
        let output = output(&words);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (request.join().unwrap(), output.status.code(), text)
    };
    let (request, code, text) =
        call(&["say", "app/room", "hello \"all\"", "--from", "Ann"], "200 OK", "{\"epoch\":\"1\",\"sequence\":7}");
    assert!(request.starts_with("POST /v1/topics/app%2Froom/messages HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nauthorization: Bearer slk_from-a-file\r\n"), "{request}");
    assert!(request.contains("\r\ncontent-type: application/json\r\n"), "{request}");
    let message: Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((&message["text"], &message["from"]), (&"hello \"all\"".into(), &"Ann".into()));
    assert_eq!((code, text.as_str()), (Some(0), "published: message 7 of app/room\n"));
    let problem = "{\"title\":\"Forbidden\",\"detail\":\"the key lacks the scope read\"}";
    let (_, code, text) = call(&["status"], "403 Forbidden", problem);
    assert!(code == Some(1) && text.contains("the key lacks the scope read") && !text.contains("slk_"), "{text}");
    let fleet = "{\"relays\":[],\"topics\":0,\"engine\":{\"up\":false}}";
    let (_, code, text) = call(&["status"], "200 OK", fleet);
    assert!(code == Some(1) && text.contains("engine: does not answer"), "{text}");
    let (_, code, text) = call(&["status", "--json"], "200 OK", fleet);
    assert_eq!((code, text), (Some(0), format!("{fleet}\n")));
    let key = key.to_str().unwrap();
    // A port that is held, and on which nobody listens.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let api = format!("http://{}", held.local_addr().unwrap());
    let output = output(&["status", "--api", &api, "--key-file", key]);
    assert_eq!(output.status.code(), Some(69));
}

#[test]
fn check_looks_at_the_file_of_revocations_and_makes_none() {
    let folder = Folder::new("looks");
    let path = folder.write("hub.toml", "[topics]\nrevocations_file = \"revoked\"\n");
    let path = path.to_str().unwrap();
    let said = stdout(&["check", "--config", path]);
    assert!(!folder.0.join("revoked").exists());
    assert_eq!(said.contains("# note: checked as root, who may write anywhere"), rustix::process::geteuid().is_root());
    fs::create_dir(folder.0.join("revoked")).unwrap();
    for command in ["check", "run"] {
        let output = output(&[command, "--config", path]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{stderr}");
        assert!(
            stderr.contains("hub.toml:2: [topics] revocations_file: ") && stderr.contains("not a regular file"),
            "{stderr}"
        );
    }
}

#[test]
fn dev_tells_of_both_ports_that_are_taken() {
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = held.each_ref().map(|held| held.local_addr().unwrap().port().to_string());
    let output = output(&["dev", "--port", &ports[0], "--api-port", &ports[1]]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for (port, whose) in ports.iter().zip(["share pages", "API"]) {
        let line =
            format!("sharelink-hub dev: port {port} for the {whose} can't be used: another program listens there");
        assert!(stderr.lines().any(|said| said.starts_with(&line)), "{stderr}");
    }
}

/// `dev --json` with any free ports, and what it has printed.
fn dev() -> (Process, Value) {
    let mut dev = Process::start(&["dev", "--json", "--port", "0", "--api-port", "0"]);
    let mut line = String::new();
    let mut stdout = dev.stdout();
    stdout.read_line(&mut line).unwrap();
    let place =
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}: {:?}", dev.lines.try_recv()));
    // Exactly one line: the end of standard output comes next.
    thread::spawn(move || {
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
    });
    (dev, place)
}

fn place(value: &Value) -> SocketAddr {
    value.as_str().unwrap().trim_start_matches("http://").split('/').next().unwrap().parse().unwrap()
}

#[test]
fn dev_starts_a_hub_and_a_relay_and_ends_both() {
    for signal in [Signal::TERM, Signal::INT] {
        let (dev, told) = dev();
        let keys: Vec<_> = told.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["api", "key", "share", "studio", "topic", "uplink"]);
        assert!(told["key"].as_str().unwrap().starts_with("slk_"));
        let [pages, api] = [&told["share"], &told["api"]].map(place);
        let mut page = TcpStream::connect(pages).unwrap();
        write!(page, "GET /s/demo HTTP/1.1\r\nHost: {pages}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        page.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        TcpStream::connect(api).unwrap();
        let relay = child(&dev);
        dev.signal(signal);
        assert_eq!(dev.end(), (Some(0), String::new()), "{signal:?}");
        // Not by their ports, which another test may have by now.
        assert!(!is_running(relay), "the relay is still there");
    }
}

/// The relay of a `dev`.
fn child(dev: &Process) -> Pid {
    let tasks = fs::read_dir(format!("/proc/{}/task", dev.child.id())).unwrap();
    let children = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("children")).ok());
    let children: String = children.collect();
    Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap()).unwrap()
}

#[test]
fn the_relay_of_dev_never_outlives_it() {
    let (dev, _) = dev();
    let relay = child(&dev);
    assert!(is_running(relay));
    dev.signal(Signal::KILL);
    until_gone(relay);
    let _ = dev.end();
}

#[test]
fn dev_ends_with_its_relay_and_says_why() {
    let (dev, _) = dev();
    kill_process(child(&dev), Signal::KILL).unwrap();
    let (code, said) = dev.end();
    assert!(code == Some(1) && said.contains("the relay has ended (signal: 9 (SIGKILL))"), "{code:?}: {said}");
}

#[test]
fn a_port_that_is_taken_is_told_with_the_option() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    for (options, remedy) in [
        (["--port", &port, "--api-port", "0"], "choose another with --port N"),
        (["--port", "0", "--api-port", &port], "choose another with --api-port N"),
    ] {
        let output = output(&[&["dev"][..], &options].concat());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && stderr.contains(remedy), "{stderr}");
        assert!(output.stdout.is_empty());
    }
    // Nobody else may start the child's command.
    assert!(!output(&["dev-relay", "/nowhere"]).status.success());
    assert!(Path::new(PROGRAM).exists());
}

/// A hub played by a test: it takes one stream after the other.
struct Taker(TcpListener);

impl Taker {
    /// The next connection, behind the head of its request.
    fn accept(&self) -> BufReader<TcpStream> {
        let mut stream = BufReader::new(self.0.accept().unwrap().0);
        stream.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(stream.read_line(&mut head).unwrap(), 0, "{head}");
        }
        assert!(head.starts_with("PUT /v1/topics/app%2Froom/media HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains("\r\nauthorization: bearer slk_x\r\n"), "{head}");
        stream
    }
}

/// The next chunk of a body; empty at its end.
fn chunk(stream: &mut BufReader<TcpStream>) -> Vec<u8> {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    let size = usize::from_str_radix(line.trim(), 16).unwrap_or_else(|_| panic!("{line:?}"));
    let mut bytes = vec![0; size + 2];
    stream.read_exact(&mut bytes).unwrap();
    bytes.truncate(size);
    bytes
}

fn end_with(mut stream: BufReader<TcpStream>, status: &str, body: &str) {
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.get_mut().write_all(text.as_bytes()).unwrap();
}

#[test]
fn push_connects_again_with_the_header_and_goes_on_at_a_keyframe() {
    const RECORDING: &[u8] = include_bytes!("../../crates/media/testdata/h264.mp4");
    let taker = Taker(TcpListener::bind("127.0.0.1:0").unwrap());
    let api = format!("http://{}", taker.0.local_addr().unwrap());
    let mut push = Command::new(PROGRAM);
    push.args(["push", "--api", &api, "app/room"]).env("SHARELINK_KEY", "slk_x");
    let mut push = push.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = push.stdin.take().unwrap();
    // The recording: a header, then fragments of a second each, which begin with a keyframe.
    let place = |from: usize| RECORDING[from..].windows(4).position(|kind| kind == b"moof").map(|at| from + at - 4);
    let starts: Vec<usize> = std::iter::successors(place(0), |start| place(start + 8)).collect();
    let [first, second, third, ..] = starts[..] else { panic!("{starts:?}") };

    input.write_all(&RECORDING[..second]).unwrap();
    let mut taken = taker.accept();
    assert_eq!(chunk(&mut taken).len(), first, "the header");
    assert_eq!(chunk(&mut taken).len(), second - first);
    drop(taken);
    // It notices at the next chunk or at once; until it has connected again it drops what comes.
    let mut taken = taker.accept();
    assert_eq!(chunk(&mut taken).len(), first, "the header again");
    input.write_all(&RECORDING[second..third]).unwrap();
    assert_eq!(chunk(&mut taken).len(), third - second);
    // A hub that restarts, or one whose lease is another's still: it comes back.
    end_with(taken, "503 Service Unavailable", "{\"detail\":\"not now\"}");
    let taken = taker.accept();
    end_with(taken, "409 Conflict", "{\"detail\":\"another stream\",\"code\":\"already_live\"}");
    let mut taken = taker.accept();
    assert_eq!(chunk(&mut taken).len(), first);
    input.write_all(&RECORDING[third..]).unwrap();
    drop(input);
    while !chunk(&mut taken).is_empty() {}
    end_with(taken, "200 OK", "{\"mime\":\"video/mp4\",\"chunks\":3}");
    let output = push.wait_with_output().unwrap();
    let (said, complaints) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{complaints}");
    assert_eq!(said, "the input has ended: 3 chunks of video/mp4 went to app/room\n");
    assert!(complaints.contains("not now; trying again") && !complaints.contains("slk_x"), "{complaints}");
}

#[test]
fn push_gives_up_where_the_hub_refuses_for_good() {
    let taker = Taker(TcpListener::bind("127.0.0.1:0").unwrap());
    let api = format!("http://{}", taker.0.local_addr().unwrap());
    let push = |input: &[u8]| {
        let mut push = Command::new(PROGRAM);
        push.args(["push", "--api", &api, "app/room"]).env("SHARELINK_KEY", "slk_x");
        let mut push = push.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It may end before it has read all.
        let _ = push.stdin.take().unwrap().write_all(input);
        push
    };
    let ended = |push: Child| {
        let output = push.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let refused = push(b"");
    end_with(taker.accept(), "403 Forbidden", "{\"detail\":\"the key lacks the scope \\\"ingest\\\"\"}");
    let (code, said) = ended(refused);
    assert!(code == Some(1) && said.contains("403 Forbidden): the key lacks the scope"), "{said}");
    // What is wrong with the input is said, whatever the hub has said of what it got.
    let recording = include_bytes!("../../crates/media/testdata/h264.mp4");
    for (input, words) in [
        (&b"GIF89a................."[..], "neither WebM nor fragmented MP4: send fragmented MP4"),
        (&[&recording[..], &recording[..]].concat(), "a second header"),
    ] {
        let refused = push(input);
        // It may have ended before it has connected.
        let taker = Taker(taker.0.try_clone().unwrap());
        let answering = thread::spawn(move || {
            let mut taken = taker.accept();
            while !chunk(&mut taken).is_empty() {}
            end_with(taken, "200 OK", "{\"mime\":\"x\",\"groups\":1,\"chunks\":1}");
        });
        let (code, said) = ended(refused);
        assert!(code == Some(1) && said.contains(words), "{said}");
        drop(answering);
    }
    assert_eq!(output(&["push", "--api", &api, "app/room"]).status.code(), Some(64), "no key");
    assert_eq!(output(&["push"]).status.code(), Some(64), "no topic");
}

#[test]
fn a_key_that_no_header_can_hold_is_refused_at_once_and_not_shown() {
    let folder = Folder::new("header");
    // A hub that is never asked.
    let taker = TcpListener::bind("127.0.0.1:0").unwrap();
    let api = format!("http://{}", taker.local_addr().unwrap());
    let file = folder.write("key", "slk_be\u{1}fore\n");
    for command in [&["push", "app/room"][..], &["say", "app/room", "hello"], &["status"]] {
        for (key, words) in [(None, "key has control characters"), (Some("slk_be\nfore"), "can't stand in a header")] {
            let mut program = Command::new(PROGRAM);
            program.args(command).args(["--api", &api]).env_remove("SHARELINK_KEY");
            match key {
                None => program.arg("--key-file").arg(&file),
                Some(key) => program.env("SHARELINK_KEY", key),
            };
            // Its input has ended: one that tries again ends too.
            let output = program.stdin(Stdio::null()).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.code() == Some(64) && said.contains(words), "{command:?}: {said}");
            assert!(!said.contains("slk_be") && !said.contains("trying again"), "{command:?}: {said}");
        }
    }
    taker.set_nonblocking(true).unwrap();
    assert!(taker.accept().is_err(), "it has connected");
}
