//! Loads the certificates of a CA from a PEM file: those that the business server's certificate may
//! be from.
//!
//! Owns what such a file may hold: one or more certificates, of bounded size. Refuses everything
//! else, with the remedy. There are no public roots. Does not know whose certificates are verified
//! with them.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{PemObject, SectionKind};

use super::certificates::{exposed, kept, unreadable};
use super::file::{self, read as contents};
use super::values::{Wrong, wrong};
use crate::certificate::{Nearness, Summary};
use crate::clock::wall_s;

/// The maximum size of the file, in bytes.
const FILE_SIZE_MAX: u64 = 64 * 1024;
/// The maximum number of certificates: during a rotation there are two.
const COUNT_MAX: usize = 8;
/// Their maximum size together, in bytes; the memory sum's term "uplink TLS" relies on it.
const SIZE_MAX: usize = 16 * 1024;

/// The certificates as roots.
///
/// # Errors
/// What is wrong, and the remedy.
pub fn roots(path: &Path) -> Result<RootCertStore, Wrong> {
    const PEM: &str = "name the file with -----BEGIN CERTIFICATE-----, such as ca.pem";
    let shown = path.display();
    let bytes = contents(path, FILE_SIZE_MAX).map_err(|cause| {
        let otherwise =
            "name a file that exists: an absolute path, or one relative to $CREDENTIALS_DIRECTORY or to this file";
        (format!("ca_file {shown} can't be read: {cause}"), file::remedy(cause.kind(), otherwise).to_owned())
    })?;
    let mut roots = RootCertStore::empty();
    let mut size = 0;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&bytes) {
        let Ok((kind, der)) = section else {
            return wrong(&format!("ca_file {shown} has broken PEM"), PEM);
        };
        if kind != SectionKind::Certificate {
            continue;
        }
        size += der.len();
        if roots.add(CertificateDer::from(der)).is_err() {
            let what = format!("ca_file {shown}: certificate {} can't be read as one of X.509", roots.len() + 1);
            return wrong(&what, "`openssl x509 -text` shows what it is");
        }
    }
    if roots.is_empty() {
        return wrong(&format!("ca_file {shown} has no certificate"), PEM);
    }
    if roots.len() > COUNT_MAX || size > SIZE_MAX {
        return wrong(
            &format!("ca_file {shown} has {} certificates of {size} bytes", roots.len()),
            &format!("keep the business server's CA: at most {COUNT_MAX} certificates of {SIZE_MAX} bytes together"),
        );
    }
    Ok(roots)
}

/// Loads the certificates for their errors alone, as a configuration is checked.
///
/// # Errors
/// As [`roots`].
pub fn check(path: &Path) -> Result<Vec<String>, Wrong> {
    roots(path)?;
    let mut notes = unreadable(&[path]);
    notes.extend(exposed(path, false, &kept()));
    let bytes = contents(path, FILE_SIZE_MAX).unwrap_or_default();
    let certificates = CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok);
    for (number, certificate) in (1..).zip(certificates) {
        let Ok(summary) = Summary::of([certificate.as_ref()].into_iter()) else { continue };
        let now_s = wall_s();
        if summary.nearness(now_s) != Nearness::Far {
            let (shown, validity) = (path.display(), summary.validity(now_s));
            notes.push(format!(
                "certificate {number} of ca_file {shown} {validity}; put the next one beside it, on both sides"
            ));
        }
    }
    Ok(notes)
}
