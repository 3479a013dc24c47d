//! The program as a person uses it: commands, messages, exit codes.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use board::Board;

use crate::world::{Folder, Process, config_text, program};

fn run(command: &mut Command) -> Output {
    command.output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn a_wrong_configuration_is_refused_whole_with_file_line_and_remedy() {
    let folder = Folder::new("wrong-config");
    let config = folder.write(
        "wrong.toml",
        "[pages]\nlisten = \"localhost:80\"\norigin = []\n[uplink]\naddresses = [\"192.0.2.1:7400\"]\nsecret = \"\"\n[limits]\npages = 99999999\n",
    );
    for command in ["check", "run"] {
        let output = run(program().args([command, "--config"]).arg(&config));
        assert_eq!(output.status.code(), Some(78), "{command}");
        let said = text(&output.stderr);
        for line in [2, 3, 5, 8] {
            assert!(said.contains(&format!("wrong.toml:{line}:")), "line {line} is not named: {said}");
        }
        assert!(said.contains("origins"), "the nearest key is suggested: {said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_good_configuration_is_shown_with_the_memory_sum_and_without_its_secret() {
    let folder = Folder::new("good-config");
    let config = folder.write("good.toml", &config_text("127.0.0.1:7400".parse().unwrap()));
    let output = run(program().args(["check", "--config"]).arg(&config));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("127.0.0.1:7400") && said.contains("arena") && said.contains("budget"), "{said}");
    assert!(!said.contains(crate::world::SECRET));
}

fn openssl(folder: &Folder, line: &str) {
    let done = run(Command::new("openssl").current_dir(&folder.0).args(line.split(' ')));
    assert!(done.status.success(), "openssl {line}: {}", text(&done.stderr));
}

/// Credentials are copies that don't follow a renewal, so only what is among them is taken from
/// them.
#[test]
fn certificates_are_read_and_matched_beside_the_configuration_or_among_the_credentials() {
    let folder = Folder::new("pairs");
    for name in ["a", "b"] {
        openssl(
            &folder,
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.pem"
            ),
        );
    }
    let check = |key: &str, credentials: Option<&str>| {
        let pair = format!(
            "[tls]\nlisten = \"127.0.0.1:8443\"\ncertificates = [\n {{ certificate_file = \"a.pem\", key_file = \"{key}\" }}]\n"
        );
        let config = folder.write("tls.toml", &pair);
        let mut command = program();
        command.args(["check", "--config"]).arg(&config).env_remove("CREDENTIALS_DIRECTORY");
        let output = run(command.envs(credentials.map(|name| ("CREDENTIALS_DIRECTORY", folder.0.join(name)))));
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let shown = |name: &str| folder.0.join(name).display().to_string();
    let (code, said, errors) = check("a.key", None);
    assert_eq!(code, Some(0), "{errors}");
    assert!(
        said.contains(&format!("{{ certificate_file = {:?}, key_file = {:?} }},", shown("a.pem"), shown("a.key"))),
        "{said}"
    );

    let (code, _, errors) = check("b.key", None);
    assert_eq!(code, Some(78), "{errors}");
    let expected = format!("tls.toml:4: [tls] certificates: key_file {} does not match", shown("b.key"));
    assert!(errors.contains(&expected), "{errors}");

    // The key is a credential, the certificate is not.
    fs::create_dir(folder.0.join("credentials")).unwrap();
    fs::rename(folder.0.join("a.key"), folder.0.join("credentials/a.key")).unwrap();
    let (code, _, errors) = check("a.key", None);
    assert!(code == Some(78) && errors.contains("No such file"), "{errors}");
    let (code, said, errors) = check("a.key", Some("credentials"));
    assert_eq!(code, Some(0), "{errors}");
    assert!(said.contains(&format!("key_file = {:?}", shown("credentials/a.key"))), "{said}");
}

#[test]
fn secrets_and_keys_that_everybody_may_read_are_noted_at_check_and_at_the_start() {
    let folder = Folder::new("exposed");
    openssl(
        &folder,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=a -addext subjectAltName=DNS:a -keyout key.pem -out chain.pem",
    );
    folder.write("secret", "a secret of 16 bytes or more\n");
    fs::set_permissions(&folder.0, Permissions::from_mode(0o755)).unwrap();
    let own = "certificate_file = \"chain.pem\"\nkey_file = \"key.pem\"";
    let inline = "secret = \"a secret of 16 bytes or more\"";
    let tls = "[tls]\nlisten = \"127.0.0.1:0\"\ncertificates = [{ certificate_file = \"chain.pem\", key_file = \"key.pem\" }]\n";
    let uplink =
        |keys: &str| format!("[pages]\nlisten = \"127.0.0.1:0\"\n[uplink]\naddresses = [\"unix:/nowhere\"]\n{keys}\n");
    let by_uplink = format!(
        "[pages]\nlisten = \"127.0.0.1:0\"\n[uplink]\naddresses = [\"business.invalid:7400\"]\n{inline}\n[uplink.tls]\nca_file = \"chain.pem\"\n{own}\n"
    );
    for (config, file, wrong, right, expected) in [
        (uplink(inline), "relay.toml", 0o644, 0o600, "[uplink] secret: "),
        (uplink("secret_file = \"secret\""), "secret", 0o604, 0o640, "[uplink] secret_file: "),
        (uplink("") + tls, "key.pem", 0o644, 0o640, "[tls] certificates: "),
        (uplink("") + tls, "key.pem", 0o602, 0o600, "[tls] certificates: "),
        (by_uplink.clone(), "key.pem", 0o644, 0o640, "[uplink.tls] "),
        (by_uplink, "chain.pem", 0o646, 0o644, "[uplink.tls] "),
    ] {
        let path = folder.write("relay.toml", &config);
        for name in ["relay.toml", "secret", "key.pem"] {
            fs::set_permissions(folder.0.join(name), Permissions::from_mode(0o600)).unwrap();
        }
        for (mode, is_noted) in [(wrong, true), (right, false)] {
            fs::set_permissions(folder.0.join(file), Permissions::from_mode(mode)).unwrap();
            let what = if mode & 2 == 0 { "read" } else { "changed" };
            let note =
                format!("{expected}{} can be {what} by everybody on this machine", folder.0.join(file).display());
            let output = run(program().args(["check", "--config"]).arg(&path));
            let said = text(&output.stdout) + &text(&output.stderr);
            assert_eq!((output.status.code(), said.contains(&note)), (Some(0), is_noted), "{file} {mode:o}: {said}");
            assert_eq!(said.contains("by everybody"), is_noted, "{file} {mode:o}: {said}");
            assert!(!said.contains("a secret of 16"), "{said}");
        }
    }
    fs::set_permissions(folder.0.join("secret"), Permissions::from_mode(0o604)).unwrap();
    let relay = Process::start_as("exposed-start", &uplink(&format!("secret_file = {:?}", folder.0.join("secret"))));
    assert!(relay.log.iter().any(|line| line.contains("secret can be read by everybody")), "{:?}", relay.log);
}

/// With lowered limits the sum is that of the lowered board.
#[test]
fn the_memory_sum_is_logged_at_start() {
    let business = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let lowered = Board { pages_max: 1_234, ..*board::SELECTED };
    for (board, limits) in [(board::SELECTED, ""), (&lowered, "[limits]\npages = 1234\n")] {
        let relay = Process::start_with("sum", business, limits);
        let sum = board::memory_sum(board);
        let [total, process, kernel] = [sum.total(), sum.process(), sum.kernel()].map(board::size_text);
        let told = format!("memory at most {total}: process {process}, kernel {kernel}");
        assert!(relay.log.iter().any(|line| line.contains(&told)), "no {told:?} in {:?}", relay.log);
    }
}

#[test]
fn the_default_configuration_checks_itself() {
    let folder = Folder::new("default-config");
    let default = text(&run(program().arg("config")).stdout);
    let config = folder.write("default.toml", &default);
    let output = run(program().args(["check", "--config"]).arg(&config));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn help_and_version_go_to_standard_output_and_mistakes_to_the_other() {
    for arguments in [&["--help"][..], &["help"], &["run", "--help"], &["--version"]] {
        let output = run(program().args(arguments));
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(text(&output.stdout).contains("sharelinkd"), "{arguments:?}");
        assert!(output.stderr.is_empty(), "{arguments:?}");
    }
    for arguments in [&["rnu"][..], &["run"], &["run", "--confg", "x"], &[]] {
        let output = run(program().args(arguments));
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn an_address_that_is_taken_is_named_with_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::new("taken");
    let address = taken.local_addr().unwrap();
    let config = folder
        .write("taken.toml", &format!("[pages]\nlisten = \"{address}\"\n[uplink]\naddresses = [\"127.0.0.1:1\"]\n"));
    let output = run(program().args(["run", "--config"]).arg(&config));
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains(&address.to_string()) && said.contains("pages.listen"), "{said}");
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let mut child = program().arg("config").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(!text(&output.stderr).contains("panic"));
}

#[test]
fn a_demo_whose_reader_went_away_lives_on_and_ends_in_good_order() {
    let mut command = program();
    command.args(["demo", "--host-port", "0", "--port", "0"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut told = String::new();
    while !told.contains("ready") {
        assert!(said.read_line(&mut told).unwrap() > 0, "the demo does not serve: {told}");
    }
    assert!(Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap().success());
    said.read_to_string(&mut told).unwrap();
    assert!(child.wait().unwrap().success() && !told.contains("panic"), "{told}");
}

#[test]
fn a_demo_has_tls_on_its_uplink_if_it_is_given_the_certificates() {
    let folder = Folder::new("demo-tls");
    let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tls.md")).unwrap();
    let (_, uplink) = manual.split_once("\n## Uplink\n").unwrap();
    let lines = uplink.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let made = Command::new("sh").args(["-ec", lines]).current_dir(&folder.0).output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let demo = || {
        let mut command = program();
        command.args(["demo", "--host-port", "0", "--port", "0", "--uplink-tls"]).arg(&folder.0);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let mut child = demo().spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut told = String::new();
    while !told.contains("A room is live") {
        assert!(said.read_line(&mut told).unwrap() > 0, "the demo does not serve: {told}");
    }
    assert!(Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    for (file, words) in [("box-1.key", "box-1.key can't be read"), ("business.key", "business.key can't be read")] {
        fs::remove_file(folder.0.join(file)).unwrap();
        let refused = demo().output().unwrap();
        assert!(!refused.status.success() && text(&refused.stderr).contains(words), "{}", text(&refused.stderr));
    }
}

#[test]
fn a_failing_output_is_reported() {
    for arguments in [&["config"][..], &["status", "--json", "--socket", "/nowhere"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = program().args(arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(74), "{arguments:?}");
        assert!(text(&output.stderr).contains("standard output: "), "{arguments:?}");
    }
}
