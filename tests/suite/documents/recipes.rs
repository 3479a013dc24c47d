//! The recipes of `docs/tls.md` that need no CA in the network, run as they are written: OpenSSL's
//! lines for a private CA, for the uplink and for a pin, and the hook that certbot and lego call.
//!
//! Each runs in a folder of its own, by `sh` and the real `openssl`; the program checks the result.
//! Of the shipped hook only the directory and the group are others here.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

use super::{blocks, read};
use crate::world::Folder;

/// The only block of the document, in this language, that has these words.
fn block(language: &str, words: &str) -> String {
    let text = read("docs/tls.md");
    let found: Vec<_> = blocks(&text, language).into_iter().filter(|block| block.contains(words)).collect();
    let [block] = found[..] else { panic!("docs/tls.md has {} blocks with {words:?}", found.len()) };
    block.to_owned()
}

/// Runs lines as a person would paste them, except that the first failure ends them.
fn paste(folder: &Path, lines: &str) -> Output {
    Command::new("sh").args(["-euc", lines]).current_dir(folder).output().unwrap()
}

fn said(folder: &Path, lines: &str) -> String {
    let done = paste(folder, lines);
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{lines}\n{errors}");
    String::from_utf8(done.stdout).unwrap()
}

/// The notes of `sharelinkd check`, without those about a group that the test can't join.
fn notes(config: &Path) -> Vec<String> {
    let output = crate::world::program().args(["check", "--config"]).arg(config).output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let about_tls = |line: &&str| line.contains("[tls] ") || line.contains("[uplink.tls] ");
    text.lines().filter(about_tls).filter(|line| !line.contains("by the group")).map(str::to_owned).collect()
}

const TLS: &str = "[tls]\nlisten = \"127.0.0.1:0\"\ncertificates = [{ certificate_file = \"fullchain.pem\", key_file = \"privkey.pem\" }]\n";

#[test]
fn the_private_ca_is_as_the_document_says() {
    let folder = Folder::new("recipe-ca");
    let recipe = block("sh", "pages-ca.key");
    assert!(said(&folder.0, &recipe).ends_with("box.pem: OK\n"));
    assert_eq!(notes(&folder.write("relay.toml", TLS)), [""; 0]);
    for key in ["pages-ca.key", "privkey.pem"] {
        assert_eq!(fs::metadata(folder.0.join(key)).unwrap().mode() & 0o77, 0, "{key} is for nobody else");
    }
    for (name, is_valid) in
        [("-verify_hostname box.lan", true), ("-verify_ip 192.168.1.20", true), ("-verify_hostname x.lan", false)]
    {
        let line = format!("openssl verify -CAfile pages-ca.pem -purpose sslserver {name} fullchain.pem");
        assert_eq!(paste(&folder.0, &line).status.success(), is_valid, "{name}");
    }
    // By the CA's constraints its key is worth nothing for other names.
    let (_, again) = recipe.split_once("# The box's key and certificate.\n").unwrap();
    for name in ["DNS:bank.example", "IP:192.168.1.21"] {
        let lines = format!("ec='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'\nnames={name}\n{again}");
        let done = paste(&folder.0, &lines);
        let why = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success() && why.contains("permitted subtree violation"), "{name}: {why}");
    }
    // "Repeat the lines": a further certificate from the same CA.
    let lines = format!("ec='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'\nnames=DNS:box.lan\n{again}");
    assert!(said(&folder.0, &lines).ends_with("box.pem: OK\n"));
    assert_eq!(notes(&folder.0.join("relay.toml")), [""; 0]);
}

#[test]
fn the_uplinks_certificates_are_as_the_document_says() {
    let folder = Folder::new("recipe-uplink");
    said(&folder.0, &block("sh", "# The CA. ca.key stays here."));
    for (name, purpose) in [("business", "sslserver -verify_hostname business.example"), ("box-1", "sslclient")] {
        said(&folder.0, &format!("openssl verify -CAfile ca.pem -purpose {purpose} {name}.pem"));
    }
    let other = paste(&folder.0, "openssl verify -CAfile ca.pem -purpose sslserver box-1.pem");
    assert!(!other.status.success(), "a box can't be the business server");
    fs::create_dir(folder.0.join("tls")).unwrap();
    said(&folder.0, "cp ca.pem box-1.pem box-1.key tls; echo a secret of the tests >secret; chmod 600 secret");
    let config = block("toml", "certificate_file = \"tls/box-1.pem\"");
    assert_eq!(notes(&folder.write("relay.toml", &config)), [""; 0]);
}

#[test]
fn the_pin_is_what_the_documents_last_line_prints() {
    let folder = Folder::new("recipe-pin");
    let printed = said(&folder.0, &block("sh", "openssl dgst -sha256"));
    let pin = printed.trim().rsplit(' ').next().unwrap();
    let config = format!(
        "[uplink]\naddresses = [\"business.example:7400\"]\nsecret = \"a secret of the tests\"\n[uplink.tls]\npin = \"{pin}\"\n"
    );
    assert_eq!(notes(&folder.write("relay.toml", &config)), [""; 0]);
    assert_eq!(pin.len(), 64, "{printed}");
}

#[test]
fn the_hook_copies_what_certbot_and_lego_name_whole_or_not_at_all() {
    let folder = Folder::new("recipe-hook");
    let (live, tls) = (folder.0.join("live"), folder.0.join("tls"));
    fs::create_dir(&live).unwrap();
    fs::create_dir(&tls).unwrap();
    let group = said(&folder.0, "id -gn");
    let shipped = read("systemd/acme-deploy");
    let hook = shipped
        .replace("directory=/etc/sharelinkd/tls\n", &format!("directory={}\n", tls.display()))
        .replace("group=sharelinkd-tls\n", &format!("group={group}"));
    assert_eq!(hook.lines().zip(shipped.lines()).filter(|(here, there)| here != there).count(), 2);
    let hook = folder.write("acme-deploy", &hook);
    fs::set_permissions(&hook, Permissions::from_mode(0o755)).unwrap();
    let make = || {
        said(&folder.0, &block("sh", "pages-ca.key"));
        said(&folder.0, "mv fullchain.pem privkey.pem live");
        ["fullchain.pem", "privkey.pem"].map(|name| fs::read(live.join(name)).unwrap())
    };
    let run = |variables: &[(&str, &Path)], arguments: &[&str]| {
        let done = Command::new(&hook).args(arguments).envs(variables.iter().copied()).output().unwrap();
        let printed = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
        (done.status.success(), printed)
    };
    let held = |prefix: &str| {
        ["fullchain.pem", "privkey.pem"].map(|name| fs::read(tls.join(format!("{prefix}{name}"))).unwrap())
    };
    let (chain, key) = (live.join("fullchain.pem"), live.join("privkey.pem"));
    for (variables, arguments, prefix) in [
        (&[("RENEWED_LINEAGE", live.as_path())][..], &[][..], ""),
        (&[("LEGO_CERT_PATH", &chain), ("LEGO_CERT_KEY_PATH", &key)], &[], ""),
        (&[("LEGO_HOOK_CERT_PATH", &chain), ("LEGO_HOOK_CERT_KEY_PATH", &key)], &["other"], "other-"),
    ] {
        let made = make();
        assert_eq!(run(variables, arguments), (true, String::new()), "{variables:?}");
        assert_eq!(held(prefix), made, "{variables:?}");
        for name in ["fullchain.pem", "privkey.pem"] {
            let mode = fs::metadata(tls.join(format!("{prefix}{name}"))).unwrap().mode();
            assert_eq!(mode & 0o7777, 0o640, "{name}");
        }
    }
    let config = tls.join("relay.toml");
    fs::write(&config, TLS).unwrap();
    assert_eq!(notes(&config), [""; 0]);
    let before = held("");
    make();
    fs::remove_file(&key).unwrap();
    for variables in [&[("RENEWED_LINEAGE", live.as_path())][..], &[("LEGO_CERT_PATH", &chain)], &[]] {
        let (is_done, printed) = run(variables, &[]);
        assert!(!is_done && !printed.is_empty(), "{variables:?}");
        assert_eq!(held(""), before, "half a pair was put in place: {variables:?}");
    }
}
