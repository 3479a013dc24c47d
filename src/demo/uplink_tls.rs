//! TLS on the demo's uplink, with the files that `docs/tls.md` makes: a rehearsal of business
//! server and box before they are two machines.
//!
//! Owns the names of the files in the directory. Refuses one without the business server's
//! certificate, and files that can't be used. The relay gets it as a configuration, like any other.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::daemon::tls;

/// The business server's side, and the relay's.
pub struct UplinkTls {
    /// What the business server serves with.
    pub server: Arc<rustls::ServerConfig>,
    /// `[uplink.tls]` as text: the business server's key as a pin, and the relay's certificate.
    pub section: String,
}

/// Loads `business.pem` and `business.key`. If there is a `ca.pem`, the business server demands a
/// certificate that is from it, and the relay shows `box-1.pem` with `box-1.key`.
///
/// # Errors
/// Which file can't be used, and why.
pub fn load(directory: &Path) -> Result<UplinkTls, String> {
    let (certificate, key) = (directory.join("business.pem"), directory.join("business.key"));
    let pin = tls::pin(&certificate, &key).map_err(|(what, remedy)| format!("{what}; {remedy}"))?;
    let clients = Some(directory.join("ca.pem")).filter(|file| file.exists());
    let text = |file: PathBuf| std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()));
    let ca = clients.clone().map(text).transpose()?;
    let server = business::tls::config(&text(certificate)?, &text(key)?, ca.as_deref());
    let server = server.map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut section = format!("[uplink.tls]\npin = \"{pin}\"\n");
    if clients.is_some() {
        for (key, file) in [("certificate_file", "box-1.pem"), ("key_file", "box-1.key")] {
            section += &format!("{key} = {:?}\n", directory.join(file).display().to_string());
        }
    }
    Ok(UplinkTls { server, section })
}
