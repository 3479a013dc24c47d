//! The build script: puts the time of the source into the binary, the floor of the clock for
//! certificates (`src/daemon/tls/verify.rs`), and compresses the page's files (`build/assets.rs`).
//!
//! The time is `SOURCE_DATE_EPOCH`, else the commit's, else that of the newest entry in Debian's
//! changelog, which a tarball has too. Never that of the build: builds are reproducible.

#[path = "build/assets.rs"]
mod assets;

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build");
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from).unwrap_or_default();
    if let Err(error) = assets::write(&out) {
        println!("cargo::error={error}");
    }
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={CHANGELOG}");
    // A later commit on the same branch doesn't rebuild everything: an older time is only a lower
    // floor. `board/build` sets SOURCE_DATE_EPOCH.
    if std::path::Path::new(".git/HEAD").exists() {
        println!("cargo::rerun-if-changed=.git/HEAD");
    }
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    let time = [given, of_command("git", &["log", "-1", "--format=%ct"]), of_changelog()]
        .into_iter()
        .flatten()
        .find_map(|text| text.trim().parse::<u64>().ok());
    match time {
        Some(time) => println!("cargo::rustc-env=SHARELINKD_SOURCE_TIME={time}"),
        None => println!("cargo::error=the time of the source is unknown: set SOURCE_DATE_EPOCH"),
    }
}

const CHANGELOG: &str = "systemd/debian/changelog";

fn of_changelog() -> Option<String> {
    let text = std::fs::read_to_string(CHANGELOG).ok()?;
    let line = text.lines().find(|line| line.starts_with(" -- "))?;
    let (_, date) = line.split_once(">  ")?;
    of_command("date", &["-d", date, "+%s"])
}

fn of_command(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok()).flatten()
}
