//! What a configuration depends on besides its text: files, the host name, the environment.
//!
//! Owns where relative paths are looked up. Injected into the parser, so that tests need no files.
//! Doesn't know what the files are for.

use std::io;
use std::path::{Path, PathBuf};

use rustix::system::uname;

use super::certificate_notes::{self, Report};
use super::values::Wrong;
use super::{SECRET_SIZE_MAX, ca, certificates, file};

/// The result of checking a pair of files: remarks on it, or what is wrong and the remedy.
pub type Checked = Result<Vec<String>, Wrong>;

/// What a configuration depends on besides its text. Injected, so that tests need no files.
pub struct Surroundings<'a> {
    /// Reads `secret_file`, given its configured path.
    pub read_secret: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    /// A remark if everybody may read where the secret is: in this configured file, or in the
    /// configuration itself.
    pub exposed: &'a dyn Fn(Option<&Path>) -> Option<String>,
    /// The path of a certificate's or a key's file, given its configured path.
    pub resolve: &'a dyn Fn(&Path) -> PathBuf,
    /// Reads a certificate chain and its key, given their resolved paths.
    pub check_pair: &'a dyn Fn(&Path, &Path) -> Result<Report, Wrong>,
    /// Reads the relay's own, which the business server gets to see.
    pub check_client_pair: &'a dyn Fn(&Path, &Path) -> Checked,
    /// Reads the certificates of a CA, given the file's resolved path.
    pub check_ca: &'a dyn Fn(&Path) -> Checked,
    /// The host name: the default of `[uplink] name`.
    pub hostname: &'a str,
    /// The runtime directory created by the service manager: by default the console's socket is
    /// there.
    pub runtime_directory: Option<&'a Path>,
}

impl<'a> Surroundings<'a> {
    /// Surroundings without any file.
    #[must_use]
    pub fn without_files(hostname: &'a str) -> Self {
        Self {
            read_secret: &|_| Err(io::ErrorKind::NotFound.into()),
            exposed: &|_| None,
            resolve: &|name| name.to_owned(),
            check_pair: &|certificate, _| Err(does_not_exist(certificate)),
            check_client_pair: &|certificate, _| Err(does_not_exist(certificate)),
            check_ca: &|file| Err(does_not_exist(file)),
            hostname,
            runtime_directory: None,
        }
    }
}

fn does_not_exist(file: &Path) -> Wrong {
    (format!("{} does not exist", file.display()), "remove it".to_owned())
}

/// Calls `parse` with the surroundings of a configuration file at this path. [`Config::load`] says
/// where relative paths are looked up.
pub fn with_surroundings<T>(path: &Path, parse: impl FnOnce(&Surroundings<'_>) -> T) -> T {
    let directory = path.parent().unwrap_or(Path::new(""));
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let home = credentials.as_deref().unwrap_or(directory);
    let resolve = |name: &Path| {
        let credential = credentials.as_ref().map(|credentials| credentials.join(name));
        let found = credential.filter(|file| file.exists()).unwrap_or_else(|| directory.join(name));
        // The daemon opens it again and again; `check` prints it.
        std::path::absolute(&found).unwrap_or(found)
    };
    let read_secret = |name: &Path| {
        let name = home.join(name);
        file::read(&name, SECRET_SIZE_MAX)
            .map_err(|cause| io::Error::new(cause.kind(), format!("{}: {cause}", name.display())))
    };
    let exposed = |name: Option<&Path>| match name {
        Some(name) => certificates::exposed(&home.join(name), true, "`chmod 600` it, or 640 with the program's group"),
        None => {
            certificates::exposed(path, true, "write the secret into a file of its own, and name that by secret_file")
        }
    };
    let runtime_directory = std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from);
    let around = Surroundings {
        read_secret: &read_secret,
        exposed: &exposed,
        resolve: &resolve,
        check_pair: &certificate_notes::check,
        check_client_pair: &certificates::check_client,
        check_ca: &ca::check,
        hostname: &hostname(),
        runtime_directory: runtime_directory.as_deref(),
    };
    parse(&around)
}

/// The host name, or the program's name if the host has none. From `uname`, not from `/proc`: the
/// unit's sandbox shows only processes there.
fn hostname() -> String {
    let name = uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() || name == "(none)" { "sharelinkd".to_owned() } else { name }
}
