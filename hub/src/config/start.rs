//! What the start needs of this machine besides the configuration's own files: looked at before,
//! without changing anything.
//!
//! Owns the questions whether the file of revocations can be written and whether there are CAs for
//! the webhook, and finds the line of a key. Refuses what `run` would refuse. Asks as the user whom
//! this process has, so the answer for another user may be another one. Dials nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use document::Problem;
use rustix::fs::{Access, access};
use sharelinkd::config::Wrong;

use super::Config;

/// Why a hub with this configuration would not start here.
pub fn refuse(config: &Config, text: &str, roots: impl FnOnce() -> Result<(), Wrong>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut refuse = |section, key, (what, remedy): Wrong| {
        problems.push(Problem { line: line(text, section, key), what: format!("[{section}] {what}"), remedy });
    };
    if config.has_system_roots()
        && let Err((what, remedy)) = roots()
    {
        refuse("webhook", "url", (format!("url begins with https:, and {what}"), remedy));
    }
    if let Some(Err((what, remedy))) = config.revocations_file.as_deref().map(revocations) {
        refuse("topics", "revocations_file", (format!("revocations_file: {what}"), remedy));
    }
    problems
}

/// Whether the file can be read, and written anew beside itself.
fn revocations(path: &Path) -> Result<(), Wrong> {
    const OWN: &str = "let the hub's user own it; `check` looks as the user who runs it";
    let wrong = |what: String, remedy: &str| Err((what, remedy.to_owned()));
    // The file is made at the start, but not its directory.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !directory.is_dir() {
        let what = format!("there is no directory {}", directory.display());
        return wrong(what, "make it, and let the hub's user own it");
    }
    // To read too: what changes in it is waited for until it is on the disk.
    if let Err(error) = access(directory, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        return wrong(format!("nothing can be written to the directory {}: {error}", directory.display()), OWN);
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    for (file, wanted) in [(path.to_owned(), Access::READ_OK), (PathBuf::from(beside), Access::WRITE_OK)] {
        let Ok(found) = fs::metadata(&file) else { continue };
        if !found.is_file() {
            return wrong(format!("{} is not a regular file", file.display()), "name another file");
        }
        if let Err(error) = access(&file, wanted) {
            return wrong(format!("{} can't be opened: {error}", file.display()), OWN);
        }
    }
    Ok(())
}

/// The line of a key, from 1; 0 if it is not found.
pub fn line(text: &str, section: &str, key: &str) -> u32 {
    let mut current = "";
    for (number, line) in (1..).zip(text.lines().map(str::trim_start)) {
        if let Some((name, _)) = line.strip_prefix('[').and_then(|line| line.split_once(']')) {
            current = name.trim();
        }
        let is_key = line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='));
        if is_key && current == section {
            return number;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rustix::process::geteuid;
    use sharelinkd::config::Surroundings;

    use super::{super::Webhook, *};

    #[test]
    fn a_file_of_revocations_that_cannot_be_written_is_found_without_a_trace() {
        let folder = std::env::temp_dir().join(format!("sharelink-hub-start-{}", std::process::id()));
        // A killed process with this number may have left it.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        let said = |path: &Path| {
            let text = format!("[log]\n[topics]\nrevocations_file = {:?}\n", path.to_str().unwrap());
            let config = Config::parse(&text, &Surroundings::without_files("box")).unwrap();
            let problems = refuse(&config, &text, || Ok(()));
            assert!(problems.iter().all(|problem| problem.line == 3), "{problems:?}");
            problems.into_iter().map(|problem| problem.what).collect::<String>()
        };
        let file = folder.join("revoked");
        assert_eq!(said(&file), "");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing is made");
        fs::write(&file, "").unwrap();
        assert_eq!(said(&file), "");
        assert!(said(&file.join("below")).contains("there is no directory"));
        assert!(said(&folder).ends_with("is not a regular file"));
        assert!(said(Path::new("/dev/null")).ends_with("is not a regular file"));
        fs::create_dir(folder.join("revoked.new")).unwrap();
        assert!(said(&file).ends_with("revoked.new is not a regular file"));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).unwrap();
        let told = said(&folder.join("other"));
        // Root may write everywhere.
        assert_eq!(told.contains("nothing can be written to the directory"), !geteuid().is_root(), "{told}");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_webhook_by_https_needs_the_cas_of_the_system() {
        let with = |url: &str| {
            let config = Config::parse("", &Surroundings::without_files("box")).unwrap();
            let webhook = Webhook {
                url: url.to_owned(),
                secrets: Vec::new(),
                timeout_s: 3,
                calls_max: 1,
                events: true,
                ca_file: None,
            };
            let config = Config { webhook: Some(webhook), ..config };
            let text = format!("[webhook]\nurl = {url:?}\n");
            refuse(&config, &text, || Err(("there are none".to_owned(), "install them".to_owned())))
        };
        let problems = with("https://api.example");
        let said = problems.iter().map(|it| (it.line, it.what.as_str(), it.remedy.as_str())).collect::<Vec<_>>();
        assert_eq!(said, [(2, "[webhook] url begins with https:, and there are none", "install them")]);
        assert!(with("http://127.0.0.1").is_empty());
    }

    #[test]
    fn the_line_of_a_key_is_that_in_its_section() {
        let text = "[api]\nlisten = 1\n[uplink]\n# listen = 2\n  listen=3\nlistened = 4\n";
        assert_eq!(
            [line(text, "api", "listen"), line(text, "uplink", "listen"), line(text, "log", "listen")],
            [2, 5, 0]
        );
    }
}
