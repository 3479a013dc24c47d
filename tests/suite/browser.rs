//! The real daemon in a real browser: each test here runs one file of `tests/browser/` under Node.
//!
//! Checks that Node, Chromium and the packages are there, and says how to get what is missing; no
//! test is ever skipped. A script chooses its own ports and profile, and ends by itself. The
//! scripts hold the assertions. With `BROWSER_TLS=1` the pages of all relays but the demo's
//! connect by TLS.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::world::quiet_machine;

/// The oldest Node that has everything the scripts use.
const NODE_MIN: u32 = 20;

#[test]
fn messages_and_titles_are_shown_at_once_and_survive_a_refresh() {
    play_alone("messages");
}

#[test]
fn sound_and_picture_play_without_a_stall() {
    play_alone("playback");
}

#[test]
fn a_camera_goes_live() {
    play_alone("camera");
}

#[test]
fn a_page_catches_up_after_its_relay_was_killed() {
    play_alone("relay");
}

#[test]
fn links_are_denied_with_a_reason_and_the_client_works_elsewhere() {
    play_alone("links");
}

#[test]
fn both_pages_are_accessible_and_obey_their_policy() {
    play_alone("access");
}

/// Waits for half a minute and measures nothing, so it runs beside the others.
#[test]
fn a_room_that_ended_comes_back() {
    play("ending");
}

/// The page client alone, with a fake clock: needs neither daemon nor browser.
#[test]
fn pages_that_lost_their_relay_come_back_each_at_a_time_of_its_own() {
    play("backoff");
}

#[test]
fn media_are_played_as_publishers_send_them_or_the_page_says_that_it_cannot() {
    play_alone("media");
}

#[test]
fn the_oldest_browsers_show_messages_of_every_kind() {
    play_alone("floor");
}

#[test]
fn what_is_optional_in_a_browser_may_be_missing() {
    play_alone("optional");
}

/// The page client alone, with a fake clock: needs neither daemon nor browser.
#[test]
fn silence_is_asked_about_and_what_is_sent_is_known_to_be_sent() {
    play("silence");
}

#[test]
fn a_picture_that_stalls_stays_and_a_dead_line_is_told() {
    play_alone("stalled");
}

#[test]
fn what_a_viewer_types_is_neither_lost_nor_doubled() {
    play_alone("sending");
}

#[test]
fn a_share_page_that_was_cut_is_brought_again() {
    play_alone("cut");
}

#[test]
fn a_relay_that_ends_tls_itself_is_shown_by_https() {
    play_alone("https");
}

#[test]
fn every_script_is_run() {
    let own = include_str!("browser.rs");
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(script) = name.strip_suffix(".test.mjs") {
            let run = [format!("play(\"{script}\")"), format!("play_alone(\"{script}\")")];
            assert!(run.iter().any(|call| own.contains(call)), "no test runs tests/browser/{name}");
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser")
}

/// Runs one script while no other test loads the machine: it measures times in a browser.
fn play_alone(script: &str) {
    let _machine = quiet_machine();
    play(script);
}

/// Runs one script and prints its output: measurements, and on failure the logs of daemon and
/// pages.
fn play(script: &str) {
    assert_ready();
    let output = Command::new("node")
        .arg("--test-reporter=spec")
        .arg(folder().join(format!("{script}.test.mjs")))
        .env("SHARELINKD", env!("CARGO_BIN_EXE_sharelinkd"))
        .env_remove("NODE_TEST_CONTEXT")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    println!("{said}");
    assert!(output.status.success(), "tests/browser/{script}.test.mjs failed; see above for what it printed");
}

/// What a fresh machine may lack, each with its remedy.
fn assert_ready() {
    let version = Command::new("node").arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let major: Option<u32> = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok());
    assert!(
        major.is_some_and(|major| major >= NODE_MIN),
        "the browser tests need Node {NODE_MIN} or later in PATH, and `node --version` says {version:?}: \
         apt-get install nodejs npm"
    );
    let client = folder().join("node_modules/playwright-core/package.json");
    assert!(client.exists(), "{} is missing: npm ci --prefix tests/browser", client.display());
    let browser = std::env::var_os("CHROMIUM").filter(|path| !path.is_empty());
    let browser = browser.map_or_else(|| PathBuf::from("/usr/bin/chromium"), PathBuf::from);
    assert!(
        browser.exists(),
        "{} is missing: apt-get install --no-install-recommends chromium, or name another one by CHROMIUM=/path",
        browser.display()
    );
}
