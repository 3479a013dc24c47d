//! A small CA of one run, for rehearsals: the demo's and the bench's certificates.
//!
//! Owns a key that is never written down, so nobody else can ever issue with it. Files with the
//! keys of issued certificates are their owner's alone, and are removed with the value that holds
//! them. Not for a relay in service: `docs/tls.md` has the commands for those.

use std::fs::{DirBuilder, OpenOptions, remove_dir_all};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::clock::{SOURCE_S, wall_s};
use crate::date::calendar;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

const DAY_S: i64 = 24 * 3_600;
/// How long certificates last: no run is longer, and phones refuse much longer ones.
const VALID_S: i64 = 30 * DAY_S;

/// A CA.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate chain and its key in PEM files.
pub struct Files {
    directory: PathBuf,
    /// The chain.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Authority {
    /// A CA with this common name.
    ///
    /// # Errors
    /// What failed: this program's build has no CA, or the system has no random bytes.
    pub fn new(name: &str) -> Result<Self, String> {
        // A constant of the build: if it is false, rcgen is not linked in.
        if !board::SELECTED.demo {
            return Err(format!("a binary for the board {} can't make certificates", board::SELECTED.name));
        }
        let mut params = params(&[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().map_err(|error| error.to_string())?;
        CertifiedIssuer::self_signed(params, key).map(Self).map_err(|error| error.to_string())
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a server's certificate for these names and addresses. The chain ends with the CA's
    /// own.
    ///
    /// # Errors
    /// What failed: a name that no certificate can have, or a file that can't be written.
    pub fn issue(&self, names: &[String]) -> Result<Files, String> {
        let said = |error: rcgen::Error| error.to_string();
        let mut params = params(names)?;
        params.distinguished_name.push(DnType::CommonName, names.first().map_or("", String::as_str));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(said)?;
        let certificate = params.signed_by(&key, &self.0).map_err(said)?;
        Files::write(&(certificate.pem() + &self.pem()), &key.serialize_pem())
    }
}

/// A certificate for these names that begins yesterday; where the clock was never set, in 1970.
fn params(names: &[String]) -> Result<CertificateParams, String> {
    let mut params = CertificateParams::new(names).map_err(|error| error.to_string())?;
    let day = |seconds: i64| {
        let (year, month, day) = calendar(seconds.div_euclid(DAY_S));
        let number = |number: i64| u8::try_from(number).unwrap_or(1);
        date_time_ymd(i32::try_from(year).unwrap_or(1970), number(month), number(day))
    };
    let now = wall_s();
    params.not_before = day(now.map_or(DAY_S, |now| now - DAY_S));
    params.not_after = day(now.unwrap_or(i64::try_from(SOURCE_S).unwrap_or(0)) + VALID_S);
    Ok(params)
}

impl Files {
    fn write(certificate: &str, key: &str) -> Result<Self, String> {
        let number = getrandom::u64().map_err(|error| error.to_string())?;
        let directory = std::env::temp_dir().join(format!("sharelinkd-{number:016x}"));
        DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        let files = Self { certificate: directory.join("chain.pem"), key: directory.join("key.pem"), directory };
        write_new(&files.certificate, certificate)?;
        write_new(&files.key, key)?;
        Ok(files)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = remove_dir_all(&self.directory);
    }
}

fn write_new(path: &Path, text: &str) -> Result<(), String> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| format!("{}: {error}", path.display()))
}
