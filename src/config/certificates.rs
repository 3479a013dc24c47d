//! Loads a certificate chain and its private key from two PEM files, as a pair.
//!
//! Owns what makes a pair good: readable files of bounded size, a chain that begins with the
//! server's own certificate, one unencrypted key that matches it, of a kind that rustls signs with.
//! Refuses everything else, with the remedy; a refused pair changes nothing. No error or note
//! quotes a key. Does not know when to load, and verifies neither names nor dates.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustix::process::geteuid;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use zeroize::{Zeroize as _, Zeroizing};

use super::file;
use super::values::Wrong;

/// The maximum size of either file, in bytes. Chains of 8 certificates are shorter.
const FILE_SIZE_MAX: usize = 64 * 1024;
/// The maximum number of certificates in a chain. Public ones have two or three.
const CHAIN_MAX: usize = 8;
/// The maximum size of a chain, in bytes: each full handshake sends all of it. Together with the
/// parsed key it stays within the memory sum's term for a certificate.
const CHAIN_SIZE_MAX: usize = 12 * 1024;
// The rest is for the parsed key, of RSA-4096 less than 3 KiB, and for what the console shows: its
// names, at most 1 KiB, and why its files can't be used.
const _: () = assert!(CHAIN_SIZE_MAX + 3 * 1024 + 2 * 1024 <= board::CERTIFICATE_SIZE);
// The file, its base64 without line ends, and the bytes in it are there at the same time.
const _: () = assert!(3 * FILE_SIZE_MAX <= board::CERTIFICATE_READ_SIZE);
/// The group that the service belongs to, so that it can read keys (`SupplementaryGroups=`). Not
/// `sharelinkd`: systemd would refuse to allocate a user of that name beside it (`DynamicUser=`).
pub const GROUP: &str = "sharelinkd-tls";

/// A chain and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// What rustls serves with.
    pub certified: Arc<CertifiedKey>,
}

impl Pair {
    /// The certificates (X.509, DER), the server's own first.
    pub fn chain(&self) -> impl Iterator<Item = &[u8]> {
        self.certified.cert.iter().map(AsRef::as_ref)
    }

    /// Whether the other pair has the same certificates, and so the same key.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert
    }

    /// The server's own certificate (X.509, DER).
    #[must_use]
    pub fn end_entity(&self) -> &[u8] {
        self.chain().next().unwrap_or_default()
    }
}

/// Loads a pair.
///
/// # Errors
/// What is wrong, and the remedy; the first of several.
pub fn load(certificate_file: &Path, key_file: &Path) -> Result<Pair, Wrong> {
    let chain = chain(certificate_file)?;
    let mut der = key(key_file)?;
    let key = any_supported_type(&der);
    der.zeroize();
    let key = key.map_err(|_| {
        let what = format!("key_file {} has a key of a kind that is not supported", key_file.display());
        wrong(what, "use an ECDSA key (P-256, which is the fastest, or P-384), or an RSA key of 2048 to 4096 bits")
    })?;
    let certified = CertifiedKey::new(chain, key);
    if certified.keys_match().is_err() {
        return Err(mismatch(&certified, certificate_file, key_file));
    }
    Ok(Pair { certified: Arc::new(certified) })
}

/// Checks the uplink's pair, which few handshakes use and no browser sees; returns remarks.
///
/// # Errors
/// As [`load`].
pub fn check_client(certificate_file: &Path, key_file: &Path) -> Result<Vec<String>, Wrong> {
    load(certificate_file, key_file)?;
    let mut notes = unreadable(&[certificate_file, key_file]);
    notes.extend(exposed(key_file, true, &kept()));
    Ok(notes)
}

/// Remarks on files that root reads and the service can't.
pub fn unreadable(files: &[&Path]) -> Vec<String> {
    if !geteuid().is_root() {
        return Vec::new();
    }
    let unreadable = |path: &&Path| group_id(GROUP).is_some_and(|group| !is_readable(path, group));
    let found = files.iter().copied().filter(unreadable).map(|path| {
        format!(
            "{} can't be read by the group {GROUP}, which the service has: `chgrp {GROUP}` it and `chmod 640`, and the same with 750 for its directories",
            path.display()
        )
    });
    found.collect()
}

/// What everybody on this machine may do with a file and should not: write to it, or also read it
/// if it is a `secret`. `remedy` says how to keep it.
pub fn exposed(path: &Path, is_secret: bool, remedy: &str) -> Option<String> {
    let found = fs::canonicalize(path).ok()?;
    let mode = |path: &Path| fs::metadata(path).map_or(0, |found| found.mode());
    let directories = || found.ancestors().skip(1).map(mode);
    if !directories().all(|mode| mode & 0o1 != 0) {
        return None;
    }
    // Who may write to a directory may put another file there, except if it is sticky as /tmp is.
    let is_written = mode(&found) & 0o2 != 0 || directories().any(|mode| mode & 0o1002 == 0o2);
    let is_read = is_secret && mode(&found) & 0o4 != 0;
    let what = match (is_read, is_written) {
        (true, true) => "read and changed",
        (true, false) => "read",
        (false, true) => "changed",
        (false, false) => return None,
    };
    Some(format!("{} can be {what} by everybody on this machine: {remedy}", path.display()))
}

/// How a key or a CA is kept, as a remedy.
pub fn kept() -> String {
    format!("`chgrp {GROUP}` it and `chmod 640`, and the same with 750 for its directory")
}

/// The certificates of a file, in their order.
fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let bytes = read("certificate_file", path)?;
    let shown = path.display();
    let mut chain = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&bytes) {
        match section.map_err(|_| broken("certificate_file", path))? {
            (SectionKind::Certificate, der) => chain.push(CertificateDer::from(der)),
            (kind, _) if is_key(kind) => return Err(key_among_certificates(path)),
            _ => {}
        }
    }
    if is_encrypted(&bytes) {
        return Err(key_among_certificates(path));
    }
    if chain.is_empty() {
        let what = format!("certificate_file {shown} has no certificate");
        return Err(match bytes.first() {
            Some(0x30) => wrong(
                format!("{what} in PEM"),
                &format!("convert it: openssl x509 -inform der -in {shown} -out chain.pem"),
            ),
            _ => wrong(what, "name the file with -----BEGIN CERTIFICATE-----, such as fullchain.pem"),
        });
    }
    if chain.len() > CHAIN_MAX {
        let what =
            format!("certificate_file {shown} has {} certificates, at most {CHAIN_MAX} are accepted", chain.len());
        return Err(wrong(what, "keep the server's own and the intermediate ones; the root's is not sent"));
    }
    let size: usize = chain.iter().map(|certificate| certificate.len()).sum();
    if size > CHAIN_SIZE_MAX {
        let what =
            format!("certificate_file {shown} has certificates of {size} bytes, at most {CHAIN_SIZE_MAX} are accepted");
        return Err(wrong(what, "keep the server's own and the intermediate ones; the root's is not sent"));
    }
    for (number, certificate) in (1..).zip(&chain) {
        if ParsedCertificate::try_from(certificate).is_err() {
            let what =
                format!("certificate_file {shown}: certificate {number} is not one for a TLS server (X.509 version 3)");
            let remedy = "`openssl x509 -text` shows what it is; one of version 1 was issued without -extfile and subjectAltName";
            return Err(wrong(what, remedy));
        }
    }
    Ok(chain)
}

/// The only key of a file.
fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Wrong> {
    let bytes = Zeroizing::new(read("key_file", path)?);
    let shown = path.display();
    if is_encrypted(&bytes) {
        let what = format!("key_file {shown} is encrypted, and nobody is there to type its passphrase");
        return Err(wrong(what, &format!("decrypt it: openssl pkey -in {shown} -out key.pem")));
    }
    let mut keys = Vec::new();
    let mut has_certificate = false;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&bytes) {
        let (kind, der) = section.map_err(|_| broken("key_file", path))?;
        has_certificate |= kind == SectionKind::Certificate;
        keys.extend(PrivateKeyDer::from_pem(kind, der));
    }
    match (keys.pop(), keys.len()) {
        (Some(key), 0) => Ok(key),
        (Some(_), more) => {
            let what = format!("key_file {shown} has {} keys", more + 1);
            Err(wrong(what, "keep the one that matches the certificate"))
        }
        (None, _) if has_certificate => {
            let what = format!("key_file {shown} has a certificate and no key");
            Err(wrong(what, "name the file with -----BEGIN PRIVATE KEY-----, such as privkey.pem"))
        }
        (None, _) if bytes.first() == Some(&0x30) => {
            let what = format!("key_file {shown} has no key in PEM");
            Err(wrong(what, &format!("convert it: openssl pkey -inform der -in {shown} -out key.pem")))
        }
        (None, _) => {
            let what = format!("key_file {shown} has no private key");
            Err(wrong(what, "name the file with -----BEGIN PRIVATE KEY-----, such as privkey.pem"))
        }
    }
}

/// Why the key is not that of the first certificate.
fn mismatch(certified: &CertifiedKey, certificate_file: &Path, key_file: &Path) -> Wrong {
    let is_of = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], Arc::clone(&certified.key)).keys_match().is_ok()
    };
    let (chain, key) = (certificate_file.display(), key_file.display());
    match certified.cert.iter().position(is_of) {
        Some(index) => wrong(
            format!("key_file {key} matches certificate {} of certificate_file {chain}", index + 1),
            "put that one first, and the intermediate ones below it",
        ),
        None => wrong(
            format!("key_file {key} does not match certificate_file {chain}"),
            "name the key that the certificate was requested with; both files come from the same order",
        ),
    }
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, Wrong> {
    file::read(path, FILE_SIZE_MAX as u64).map_err(|error| {
        let remedy = if error.kind() == ErrorKind::PermissionDenied {
            format!(
                "give {} permission to read it and to search the directories above it; under systemd: `chgrp {GROUP}` and `chmod 640`, as in /etc/sharelinkd/tls",
                user()
            )
        } else {
            let otherwise = "name a file that exists: an absolute path, or one relative to $CREDENTIALS_DIRECTORY or to the configuration";
            file::remedy(error.kind(), otherwise).to_owned()
        };
        (format!("{key} {} can't be read: {error}", path.display()), remedy)
    })
}

/// The user that this process runs as, for people.
fn user() -> String {
    let id = geteuid().as_raw();
    match name_of(id, &fs::read_to_string("/etc/passwd").unwrap_or_default()) {
        Some(name) => format!("the user {name}"),
        None => format!("the user with the ID {id}"),
    }
}

/// The name of a user ID, in the format of `passwd(5)`.
fn name_of(id: u32, passwd: &str) -> Option<String> {
    let mut users = passwd.lines().map(|line| line.split(':'));
    let mut user = users.find(|fields| fields.clone().nth(2) == Some(id.to_string().as_str()))?;
    user.next().map(str::to_owned)
}

/// The ID of a group; `None` if this machine doesn't have it.
fn group_id(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    let mut groups = groups.lines().map(|line| line.split(':'));
    groups.find(|fields| fields.clone().next() == Some(name))?.nth(2)?.parse().ok()
}

/// Whether a member of the group, who owns nothing, can read a file and search the directories to
/// it, links resolved.
fn is_readable(path: &Path, group: u32) -> bool {
    let Ok(path) = fs::canonicalize(path) else { return false };
    let allows = |path: &Path, bit: u32| {
        fs::metadata(path).is_ok_and(|found| {
            let shift = if found.gid() == group { 3 } else { 0 };
            found.mode() >> shift & bit != 0
        })
    };
    allows(&path, 4) && path.ancestors().skip(1).all(|directory| allows(directory, 1))
}

const fn is_key(kind: SectionKind) -> bool {
    matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey)
}

/// Whether there is an encrypted key: in PKCS #8, or in the older form with its header
/// `Proc-Type: 4,ENCRYPTED` (RFC 1421).
fn is_encrypted(bytes: &[u8]) -> bool {
    let has = |word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
    has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"4,ENCRYPTED")
}

fn key_among_certificates(path: &Path) -> Wrong {
    wrong(
        format!("certificate_file {} has a private key in it", path.display()),
        "put the key alone into a file that only the relay can read, and name that as key_file",
    )
}

fn broken(key: &str, path: &Path) -> Wrong {
    wrong(
        format!("{key} {} is damaged: its PEM can't be decoded", path.display()),
        "copy the file again, with its lines -----BEGIN and -----END",
    )
}

fn wrong(what: String, remedy: &str) -> Wrong {
    (what, remedy.to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::{create_dir, remove_dir_all, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::process::Command;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A directory with certificates and keys, made by OpenSSL; removed when the test ends.
    pub struct Folder(PathBuf);

    impl Folder {
        pub fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!("sharelinkd-pairs-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            // A killed process with this number may have left it.
            let _ = remove_dir_all(&path);
            create_dir(&path).unwrap();
            Self(path)
        }

        pub fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        pub fn openssl(&self, line: &str) {
            let done = Command::new("openssl").current_dir(&self.0).args(line.split(' ')).output().unwrap();
            assert!(done.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&done.stderr));
        }

        /// Makes `<name>.key` and the self-signed `<name>.pem`.
        pub fn pair(&self, name: &str, algorithm: &str) {
            self.openssl(&format!("genpkey -algorithm {algorithm} -out {name}.key"));
            self.openssl(&format!(
                "req -x509 -new -key {name}.key -subj /CN={name} -addext subjectAltName=DNS:{name}.example -days 30 -out {name}.pem"
            ));
        }

        /// Writes a file that consists of others.
        pub fn join(&self, name: &str, parts: &[&str]) {
            let parts: Vec<Vec<u8>> = parts.iter().map(|part| fs::read(self.path(part)).unwrap()).collect();
            write(self.path(name), parts.concat()).unwrap();
        }

        pub fn load(&self, certificate: &str, key: &str) -> Result<Pair, Wrong> {
            load(&self.path(certificate), &self.path(key))
        }

        /// What is wrong with a pair, and the remedy, in one line.
        fn wrong(&self, certificate: &str, key: &str) -> String {
            let (what, remedy) = self.load(certificate, key).unwrap_err();
            assert!(what.contains(&self.0.display().to_string()), "{what} names no file");
            format!("{what}; {remedy}").replace(&format!("{}/", self.0.display()), "")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = remove_dir_all(&self.0);
        }
    }

    pub const P256: &str = "EC -pkeyopt ec_paramgen_curve:P-256";

    #[test]
    fn a_pair_is_loaded_in_each_form_of_its_key() {
        let folder = Folder::new();
        folder.pair("a", P256);
        folder.pair("ca", P256);
        folder.openssl("ec -in a.key -out a-sec1.key");
        folder.openssl("x509 -in a.pem -outform der -out a.der");
        folder.join("chain.pem", &["a.pem", "ca.pem"]);
        // `openssl ecparam -genkey` writes the curve in front of the key.
        folder.openssl("ecparam -name prime256v1 -out curve");
        folder.join("a-ecparam.key", &["curve", "a-sec1.key"]);
        // With the text that `openssl x509 -text` puts in front, and with line ends of Windows.
        folder.openssl("x509 -in a.pem -text -out a-text.pem");
        let text = fs::read_to_string(folder.path("a-text.pem")).unwrap();
        write(folder.path("a-text.pem"), text.replace('\n', "\r\n")).unwrap();
        folder.join("both.key", &["a.pem", "a.key"]);
        for (certificate, key, count) in [
            ("a.pem", "a.key", 1),
            ("chain.pem", "a.key", 2),
            ("a.pem", "a-sec1.key", 1),
            ("a.pem", "a-ecparam.key", 1),
            ("a-text.pem", "a.key", 1),
            ("a.pem", "both.key", 1),
        ] {
            let pair = folder.load(certificate, key).unwrap_or_else(|wrong| panic!("{certificate} {key}: {wrong:?}"));
            assert_eq!(pair.certified.cert.len(), count, "{certificate}");
            assert_eq!(pair.end_entity(), fs::read(folder.path("a.der")).unwrap(), "{certificate}");
        }
    }

    #[test]
    fn every_kind_of_key_that_can_sign_is_loaded() {
        let folder = Folder::new();
        for (name, algorithm) in [
            ("p256", P256),
            ("p384", "EC -pkeyopt ec_paramgen_curve:P-384"),
            ("ed", "ed25519"),
            ("rsa", "RSA -pkeyopt rsa_keygen_bits:2048"),
        ] {
            folder.pair(name, algorithm);
            let loaded = folder.load(&format!("{name}.pem"), &format!("{name}.key"));
            assert!(loaded.is_ok(), "{name}: {loaded:?}");
        }
        folder.openssl("rsa -in rsa.key -traditional -out rsa-pkcs1.key");
        assert!(folder.load("rsa.pem", "rsa-pkcs1.key").is_ok());
        for (name, algorithm) in [
            ("p521", "EC -pkeyopt ec_paramgen_curve:P-521"),
            ("short", "RSA -pkeyopt rsa_keygen_bits:1024"),
            ("ed448", "ed448"),
        ] {
            folder.pair(name, algorithm);
            let wrong = folder.wrong(&format!("{name}.pem"), &format!("{name}.key"));
            let expected = format!("key_file {name}.key has a key of a kind that is not supported; use an ECDSA key");
            assert!(wrong.starts_with(&expected), "{wrong}");
        }
    }

    #[test]
    fn a_key_that_is_another_s_is_refused() {
        let folder = Folder::new();
        folder.pair("a", P256);
        folder.pair("b", P256);
        folder.pair("rsa", "RSA -pkeyopt rsa_keygen_bits:2048");
        folder.join("wrong-order.pem", &["b.pem", "a.pem"]);
        for (certificate, key, expected) in [
            ("a.pem", "b.key", "key_file b.key does not match certificate_file a.pem; name the key that"),
            ("a.pem", "rsa.key", "key_file rsa.key does not match certificate_file a.pem; name the key that"),
            (
                "wrong-order.pem",
                "a.key",
                "key_file a.key matches certificate 2 of certificate_file wrong-order.pem; put that one first",
            ),
        ] {
            let wrong = folder.wrong(certificate, key);
            assert!(wrong.starts_with(expected), "{wrong}");
        }
    }

    #[test]
    fn files_that_hold_something_else_are_refused_with_what_to_do() {
        let folder = Folder::new();
        folder.pair("a", P256);
        folder.openssl("pkcs8 -topk8 -in a.key -passout pass:secret -out encrypted.key");
        folder.openssl("ec -in a.key -aes128 -passout pass:secret -out encrypted-old.key");
        folder.openssl("x509 -in a.pem -outform der -out a.der");
        folder.openssl("pkcs8 -topk8 -nocrypt -in a.key -outform der -out a.key.der");
        folder.openssl("req -new -key a.key -subj /CN=a -out a.csr");
        folder.openssl("x509 -req -in a.csr -CA a.pem -CAkey a.key -set_serial 7 -out version-1.pem");
        folder.join("both.pem", &["a.pem", "a.key"]);
        folder.join("both-encrypted.pem", &["a.pem", "encrypted.key"]);
        folder.join("two.key", &["a.key", "a.key"]);
        folder.join("nine.pem", &["a.pem"; 9]);
        folder.join("eight.pem", &["a.pem"; 8]);
        write(folder.path("empty"), "").unwrap();
        let text = fs::read_to_string(folder.path("a.pem")).unwrap();
        write(folder.path("cut.pem"), &text[..text.len() / 2]).unwrap();
        write(folder.path("noise.pem"), text.replacen("MII", "M%I", 1)).unwrap();
        write(folder.path("other.pem"), "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n").unwrap();
        let private = fs::read_to_string(folder.path("a.key")).unwrap();
        write(folder.path("cut.key"), &private[..private.len() / 2]).unwrap();
        let private = private.lines().nth(1).unwrap();
        write(folder.path("large"), vec![b'x'; 65_537]).unwrap();
        // A certificate that is longer than any real chain.
        let names: Vec<String> = (0..600).map(|n| format!("DNS:{n}.a-long-name.example")).collect();
        folder.openssl(&format!(
            "req -x509 -new -key a.key -subj /CN=a -addext subjectAltName={} -out long.pem",
            names.join(",")
        ));
        for (certificate, key, expected) in [
            (
                "none.pem",
                "a.key",
                "certificate_file none.pem can't be read: No such file or directory (os error 2); name a file that exists",
            ),
            ("a.pem", "none.key", "key_file none.key can't be read: No such file"),
            (".", "a.key", "certificate_file . can't be read: it is a directory; name a regular file"),
            ("large", "a.key", "certificate_file large can't be read: it has more than 65536 bytes"),
            (
                "empty",
                "a.key",
                "certificate_file empty has no certificate; name the file with -----BEGIN CERTIFICATE-----",
            ),
            ("a.csr", "a.key", "certificate_file a.csr has no certificate; name the file"),
            (
                "a.der",
                "a.key",
                "certificate_file a.der has no certificate in PEM; convert it: openssl x509 -inform der -in a.der",
            ),
            ("a.key", "a.key", "certificate_file a.key has a private key in it; put the key alone"),
            ("both.pem", "a.key", "certificate_file both.pem has a private key in it"),
            ("both-encrypted.pem", "a.key", "certificate_file both-encrypted.pem has a private key in it"),
            ("cut.pem", "a.key", "certificate_file cut.pem is damaged: its PEM can't be decoded; copy the file again"),
            ("noise.pem", "a.key", "certificate_file noise.pem is damaged"),
            ("other.pem", "a.key", "certificate_file other.pem: certificate 1 is not one for a TLS server"),
            (
                "version-1.pem",
                "a.key",
                "certificate_file version-1.pem: certificate 1 is not one for a TLS server (X.509 version 3); `openssl x509 -text`",
            ),
            ("nine.pem", "a.key", "certificate_file nine.pem has 9 certificates, at most 8 are accepted; keep"),
            ("long.pem", "a.key", "certificate_file long.pem has certificates of"),
            ("a.pem", "empty", "key_file empty has no private key; name the file with -----BEGIN PRIVATE KEY-----"),
            ("a.pem", "a.pem", "key_file a.pem has a certificate and no key; name the file"),
            (
                "a.pem",
                "a.key.der",
                "key_file a.key.der has no key in PEM; convert it: openssl pkey -inform der -in a.key.der",
            ),
            (
                "a.pem",
                "encrypted.key",
                "key_file encrypted.key is encrypted, and nobody is there to type its passphrase; decrypt it: openssl pkey -in encrypted.key",
            ),
            ("a.pem", "encrypted-old.key", "key_file encrypted-old.key is encrypted"),
            ("a.pem", "two.key", "key_file two.key has 2 keys; keep the one"),
            ("a.pem", "cut.key", "key_file cut.key is damaged"),
        ] {
            let wrong = folder.wrong(certificate, key);
            assert!(wrong.starts_with(expected), "{wrong}");
            assert!(!wrong.contains("secret") && !wrong.contains(private), "{wrong}");
        }
        assert_eq!(folder.load("eight.pem", "a.key").unwrap().certified.cert.len(), 8);
    }

    #[test]
    fn the_group_needs_the_file_and_every_directory() {
        let folder = Folder::new();
        create_dir(folder.path("tls")).unwrap();
        let key = folder.path("tls/key");
        write(&key, "").unwrap();
        let group = fs::metadata(&key).unwrap().gid();
        let set = |path: &str, mode| set_permissions(folder.path(path), PermissionsExt::from_mode(mode)).unwrap();
        for (directory, file, by_group, by_others) in [
            (0o750, 0o640, true, false),
            (0o755, 0o644, true, true),
            (0o700, 0o644, false, false),
            (0o755, 0o600, false, false),
            (0o740, 0o640, false, false),
            (0o705, 0o604, false, true),
        ] {
            set("tls", directory);
            set("tls/key", file);
            let found = (is_readable(&key, group), is_readable(&key, group + 1));
            assert_eq!(found, (by_group, by_others), "{directory:o} {file:o}");
        }
        assert!(!is_readable(&folder.path("none"), group));
    }

    #[test]
    fn what_everybody_may_read_or_write_is_noted() {
        let folder = Folder::new();
        create_dir(folder.path("tls")).unwrap();
        let key = folder.path("tls/key");
        write(&key, "").unwrap();
        let set = |path: &str, mode| set_permissions(folder.path(path), PermissionsExt::from_mode(mode)).unwrap();
        for (directory, file, of_secret, of_other) in [
            (0o755, 0o640, None, None),
            (0o755, 0o644, Some("read"), None),
            (0o755, 0o642, Some("changed"), Some("changed")),
            (0o755, 0o666, Some("read and changed"), Some("changed")),
            (0o750, 0o666, None, None),
            (0o751, 0o644, Some("read"), None),
            (0o757, 0o640, Some("changed"), Some("changed")),
            (0o1757, 0o640, None, None),
        ] {
            set("tls", directory);
            set("tls/key", file);
            for (is_secret, expected) in [(true, of_secret), (false, of_other)] {
                let expected = expected
                    .map(|what| format!("{} can be {what} by everybody on this machine: hide it", key.display()));
                assert_eq!(exposed(&key, is_secret, "hide it"), expected, "{directory:o} {file:o}");
            }
        }
        assert_eq!(exposed(&folder.path("none"), true, ""), None);
    }

    #[test]
    fn a_user_is_named_as_the_machine_names_it() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\n";
        assert_eq!(name_of(33, passwd).as_deref(), Some("www-data"));
        assert_eq!(name_of(3, passwd), None);
        assert!(user().starts_with("the user "));
    }
}
