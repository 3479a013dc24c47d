//! The manual page against the program: commands, options, exit codes, environment variables.
//!
//! Owns the comparison with `--help` and with what the sources read. Whether the page is well
//! formed is checked by `tests/run`, whether it is in the packages by `tests/packages`. Knows no
//! sockets.
#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn page() -> String {
    fs::read_to_string(root().join("docs/sharelink-hub.8.md")).unwrap()
}

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sharelink-hub")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The options in a text.
fn options(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
    words.filter(|word| word.starts_with("--") && word.len() > 2).collect()
}

/// All sources of the program, without their tests.
fn sources(folder: &Path, found: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_stem().is_some_and(|name| name == "tests") {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push_str(text.split("\nmod tests {").next().unwrap());
        }
    }
}

#[test]
fn the_manual_page_is_the_help() {
    let (text, help_of_all) = (page(), help(&["--help"]));
    let listed = help_of_all.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() >= 11, "{names:?}");
    let mut told = help_of_all.clone();
    for name in names {
        assert!(text.contains(&format!("**sharelink-hub {name}**")), "the synopsis lacks {name}");
        assert!(text.contains(&format!("\n**{name}**\n: ")), "{name} is not described");
        told.push_str(&help(&[name, "--help"]));
    }
    // ffmpeg's options have one dash.
    assert_eq!(options(&told), options(&text), "the helps' options, and the manual page's");
    for option in options(&told) {
        assert!(text.contains(&format!("**{option}**")), "{option} has no entry");
    }
    let codes = help_of_all.split("Exit codes:").nth(1).unwrap();
    let codes: BTreeSet<&str> = codes.split([' ', ',', ';', '\n']).filter(|word| word.parse::<u8>().is_ok()).collect();
    assert_eq!(codes.len(), 6, "{codes:?}");
    for code in codes {
        assert!(text.contains(&format!("\n**{code}**\n: ")), "exit code {code}");
    }
}

#[test]
fn the_manual_page_has_what_the_program_reads() {
    let text = page();
    let mut source = String::new();
    sources(&root().join("hub/src"), &mut source);
    // Between `dev` and its child.
    let internal = "SHARELINK_DEV_PARENT";
    let by_name = source.split("env::var").skip(1).filter_map(|rest| rest.split_once("(\"")?.1.split('"').next());
    let by_constant = source.split("_VARIABLE: &str = \"").skip(1).filter_map(|rest| rest.split('"').next());
    let is_name = |name: &&str| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let mut names: BTreeSet<&str> = by_name.chain(by_constant).filter(is_name).collect();
    assert!(names.remove(internal) && names.len() >= 2, "{names:?}");
    // Read by the relay's library for both.
    names.extend(["NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY"]);
    for name in names {
        assert!(text.contains(&format!("**{name}**")), "{name} has no entry");
    }
    // What it names on the system.
    let unit = fs::read_to_string(root().join("systemd/sharelink-hub.service")).unwrap();
    assert!(text.contains("**sharelink-hub.service**") && unit.contains("\nUser=sharelink-hub\n"));
    assert!(text.contains("*/var/lib/sharelink-hub/*") && unit.contains("\nStateDirectory=sharelink-hub\n"));
    assert!(text.contains("*/etc/sharelink-hub/hub.toml*") && unit.contains("--config /etc/sharelink-hub/hub.toml\n"));
    let bundle = source.split("const BUNDLE: &str = \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(text.contains(&format!("*{bundle}*")), "{bundle}");
}
