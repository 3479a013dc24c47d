//! `[tls]`: where web pages connect by TLS, and with which certificates.
//!
//! Owns the section's keys, their defaults and the rules between them: certificates are required to
//! listen, and pointless otherwise. Refuses a pair of files that can't be served with, as the
//! function that it is given finds out. The directory of challenges works without TLS: the first
//! certificate may come through it. Knows no certificates, and reads no file itself.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::certificate_notes::Report;
use super::values::{self, Network};
use super::{CertificateFiles, MinVersion, Surroundings, Tls, address, sections};
use board::{CERTIFICATES_MAX, OFF};
use document::{At, Document};
use tls::names::choose;

/// The longest `max-age` of HSTS, in seconds: two years, what the browsers' preload list asks for.
const HSTS_S_MAX: u64 = 63_072_000;
/// The remedy for a missing or empty list of certificates.
const CERTIFICATES: &str = "add certificates = [{ certificate_file = \"/etc/sharelinkd/tls/fullchain.pem\", key_file = \"/etc/sharelinkd/tls/privkey.pem\" }] below [tls]";

/// One entry of `tls.listen`.
#[derive(Clone, Copy, PartialEq)]
enum Listen {
    Off,
    At(SocketAddr),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => write!(f, "{OFF:?}"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// `[tls]`, except for the directory of challenges; `None` without TLS.
pub fn tls(document: &mut Document<'_>, around: &Surroundings<'_>) -> Option<Tls> {
    for key in ["certificate_file", "key_file"] {
        if let Some(At { line, .. }) = document.contains("tls", key).then(|| document.text("tls", key)).flatten() {
            document.refuse(line, format!("[tls] {key} belongs into a list"), CERTIFICATES);
        }
    }
    let before = document.problem_count();
    let listen = listen(document);
    let certificates = certificates(document, around);
    let is_wrong = document.problem_count() > before;
    let min_version = min_version(document);
    let hsts_s = sections::whole(document, "tls", "hsts_s", 0, HSTS_S_MAX).unwrap_or(0);
    let redirect = document.flag("tls", "redirect").is_none_or(|flag| flag.value);
    if !is_wrong && listen.is_empty() != certificates.is_empty() {
        if certificates.is_empty() {
            document.missing("tls", "certificates", CERTIFICATES.to_owned());
        } else {
            let remedy =
                "add listen = \"0.0.0.0:443\" below [tls], where pages connect by TLS, or remove the certificates";
            document.missing("tls", "listen", remedy.to_owned());
        }
    }
    (!listen.is_empty()).then_some(Tls { listen, certificates, min_version, hsts_s, redirect })
}

/// `[tls] challenge_directory`; `None` if it is off.
pub fn challenge_directory(document: &mut Document<'_>) -> Option<PathBuf> {
    sections::off_or(document, "tls", "challenge_directory", values::directory)
}

/// The addresses; none without TLS.
fn listen(document: &mut Document<'_>) -> Vec<SocketAddr> {
    let read = |text: &str| match text {
        OFF => Ok(Listen::Off),
        text => address::tls_listener(text).map(Listen::At),
    };
    let listed = sections::some(document, "tls", "listen", read).unwrap_or_default();
    if let (Some(off), true) = (listed.iter().find(|listen| listen.value == Listen::Off), listed.len() > 1) {
        document.refuse(
            off.line,
            "[tls] listen has \"off\" and other entries",
            "keep only \"off\", or remove it to listen on the others",
        );
    }
    let address = |At { value, .. }| if let Listen::At(address) = value { Some(address) } else { None };
    listed.into_iter().filter_map(address).collect()
}

/// The pairs of files, each of them checked.
fn certificates(document: &mut Document<'_>, around: &Surroundings<'_>) -> Vec<CertificateFiles> {
    let keys = ["certificate_file", "key_file"];
    let pairs = document.tables("tls", "certificates", keys).unwrap_or_default();
    if let Some(extra) = pairs.get(CERTIFICATES_MAX) {
        document.refuse(
            extra.line,
            format!("[tls] certificates has {} entries", pairs.len()),
            format!("list at most {CERTIFICATES_MAX}; one certificate may have many names"),
        );
        return Vec::new();
    }
    let mut good: Vec<CertificateFiles> = Vec::with_capacity(pairs.len());
    let mut names = Vec::with_capacity(pairs.len());
    for At { line, value } in pairs {
        let wrong = keys.iter().zip(&value).find_map(|(key, file)| Some((key, file_wrong(file)?)));
        if let Some((key, (what, remedy))) = wrong {
            document.refuse(line, format!("[tls] certificates: {key} {what}"), remedy);
            continue;
        }
        let [certificate_file, key_file] = value.map(|file| (around.resolve)(Path::new(&file)));
        if good.iter().any(|earlier| earlier.certificate_file == certificate_file) {
            let what = format!("[tls] certificates has {} twice", certificate_file.display());
            document.refuse(line, what, "keep one of them");
            continue;
        }
        match (around.check_pair)(&certificate_file, &key_file) {
            Ok(Report { notes, names: found, about }) => {
                names.push(found);
                good.push(CertificateFiles { certificate_file, key_file, line, notes, about });
            }
            Err((what, remedy)) => document.refuse(line, format!("[tls] certificates: {what}"), remedy),
        }
    }
    for (index, found) in names.iter().enumerate() {
        let note = shadowed(&good, &names, index, found);
        if let (Some(note), Some(pair)) = (note, good.get_mut(index)) {
            pair.notes.push(note);
        }
    }
    good
}

/// A remark on the names of a certificate for which an earlier one answers.
fn shadowed(pairs: &[CertificateFiles], names: &[Vec<String>], index: usize, found: &[String]) -> Option<String> {
    let answering = |name: &String| {
        Some(choose(names.iter().map(|names| names.iter().map(String::as_str)), name)).filter(|chosen| *chosen != index)
    };
    let mut shadowed = found.iter().filter_map(|name| Some((name, answering(name)?)));
    let (name, chosen) = shadowed.next()?;
    let more = match shadowed.count() {
        0 => String::new(),
        more if more + 1 == found.len() => ", and so do earlier ones for all its other names".to_owned(),
        more => format!(", and so do earlier ones for {more} more of its names"),
    };
    let (file, earlier) = (pairs.get(index)?.certificate_file.display(), pairs.get(chosen)?.certificate_file.display());
    Some(format!("{file} has the name {name}, for which {earlier} answers, which is listed before it{more}"))
}

/// What is wrong with the name of a file, before anything is read.
fn file_wrong(file: &str) -> Option<values::Wrong> {
    const REMEDY: &str =
        "name a file: an absolute path, or one relative to $CREDENTIALS_DIRECTORY or to the directory of this file";
    let what = if file.is_empty() {
        "is empty"
    } else if file.contains(char::is_control) {
        "has control characters"
    } else {
        return None;
    };
    Some((what.to_owned(), REMEDY.to_owned()))
}

fn min_version(document: &mut Document<'_>) -> MinVersion {
    let Some(At { line, value }) = document.text("tls", "min_version") else { return MinVersion::V12 };
    match value.as_str() {
        "1.2" => MinVersion::V12,
        "1.3" => MinVersion::V13,
        _ => {
            let what = format!("[tls] min_version = {value:?} is not a version that can be the lowest one");
            document.refuse(line, what, "write \"1.2\" or \"1.3\"");
            MinVersion::V12
        }
    }
}

impl Tls {
    /// Whether a plain request for a share page, from this peer of the TCP connection, is
    /// redirected to `https:`. Never from loopback or from a trusted proxy: such a proxy ends TLS
    /// itself, and would be redirected to itself for ever.
    #[must_use]
    pub fn redirects(&self, peer: IpAddr, trusted_proxies: &[Network]) -> bool {
        let peer = peer.to_canonical();
        self.redirect && !peer.is_loopback() && !trusted_proxies.iter().any(|network| network.contains(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use board::HOST;
    use document::Problem;

    /// Parses a configuration with only a section `[tls]`, on a machine where the certificates
    /// `good`, `a`, `b` ... exist, each with the key `<name>.key`; `rsa` has a note.
    fn parse(section: &str) -> Result<Config, Vec<String>> {
        let check_pair = |certificate: &Path, key: &Path| {
            let certificate = certificate.display().to_string();
            if key.display().to_string() != format!("{certificate}.key") {
                return Err((format!("{} does not match", key.display()), "write the key's own".to_owned()));
            }
            let notes = if certificate.ends_with("rsa") { vec![format!("{certificate} is slow")] } else { Vec::new() };
            let names = match certificate.rsplit('/').next().unwrap_or_default() {
                "a" => &["a.example", "*.example"][..],
                "b" => &["B.example", "a.example"],
                "c" => &["A.example.", "*.example"],
                "d" => &["b.example", "x.example"],
                _ => &[],
            };
            let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
            Ok(Report { notes, about: names.join(" and "), names })
        };
        let around = Surroundings {
            resolve: &|name| Path::new("/etc/sharelinkd").join(name),
            check_pair: &check_pair,
            ..Surroundings::without_files("box")
        };
        let line = |problem: Problem| format!("{}: {}; {}", problem.line, problem.what, problem.remedy);
        Config::parse(&format!("[tls]\n{section}\n"), &HOST, &around)
            .map_err(|problems| problems.into_iter().map(line).collect())
    }

    fn good(section: &str) -> Config {
        parse(section).unwrap_or_else(|errors| panic!("{section}: {errors:#?}"))
    }

    fn errors(section: &str) -> Vec<String> {
        parse(section).err().unwrap_or_default()
    }

    const PAIR: &str = "certificates = [{ certificate_file = \"good\", key_file = \"good.key\" }]";

    #[test]
    fn tls_is_off_unless_it_is_told_where_to_listen() {
        for section in
            ["", "listen = \"off\"", "listen = \"off\"\ncertificates = []", "min_version = \"1.3\"", "hsts_s = 5"]
        {
            assert_eq!(good(section).tls, None, "{section}");
        }
    }

    #[test]
    fn a_certificate_is_enough_to_listen() {
        let config = good(&format!("listen = \"0.0.0.0:8443\"\n{PAIR}"));
        let tls = config.tls.as_ref().unwrap();
        assert_eq!(
            (tls.listen.as_slice(), tls.min_version, tls.hsts_s, tls.redirect),
            (&["0.0.0.0:8443".parse().unwrap()][..], MinVersion::V12, 0, true)
        );
        let [CertificateFiles { certificate_file, key_file, line, notes, .. }] = &tls.certificates[..] else {
            panic!()
        };
        assert_eq!((certificate_file.as_path(), *line), (Path::new("/etc/sharelinkd/good"), 3));
        assert_eq!((key_file.as_path(), notes.len()), (Path::new("/etc/sharelinkd/good.key"), 0));
        assert_eq!(config.challenge_directory, None);
    }

    #[test]
    fn every_key_is_read() {
        let config = good(
            "listen = [\"0.0.0.0:443\", \"[::]:443\"]\nmin_version = \"1.3\"\nhsts_s = 63072000\nredirect = false\nchallenge_directory = \"/var/lib/acme\"\n[[tls.certificates]]\ncertificate_file = \"/x/a\"\nkey_file = \"/x/a.key\"\n[[tls.certificates]]\ncertificate_file = \"rsa\"\nkey_file = \"rsa.key\"",
        );
        let tls = config.tls.as_ref().unwrap();
        assert_eq!((tls.listen.len(), tls.min_version, tls.hsts_s), (2, MinVersion::V13, 63_072_000));
        assert!(
            !tls.redirect && tls.certificates.len() == 2 && tls.certificates[0].certificate_file == Path::new("/x/a")
        );
        assert_eq!(config.challenge_directory.as_deref(), Some(Path::new("/var/lib/acme")));
        let notes = config.notes();
        assert!(notes.iter().any(|note| note == "[tls] certificates: /etc/sharelinkd/rsa is slow"), "{notes:?}");
        let printed = config.to_string();
        for line in [
            "listen = [\"0.0.0.0:443\", \"[::]:443\"]",
            "{ certificate_file = \"/x/a\", key_file = \"/x/a.key\" }",
            "{ certificate_file = \"/etc/sharelinkd/rsa\", key_file = \"/etc/sharelinkd/rsa.key\" }",
            "min_version = \"1.3\"",
            "hsts_s = 63072000",
            "redirect = false",
            "challenge_directory = \"/var/lib/acme\"",
        ] {
            assert!(printed.contains(line), "{line}: {printed}");
        }
        // What is printed reads back; the lines differ, and the section is not alone.
        let again = printed.replacen("[tls]\n", "", 1);
        let (before, after) = again.split_once("listen = [\"0.0.0.0:443\"").unwrap();
        assert_eq!(parse(&format!("listen = [\"0.0.0.0:443\"{after}\n{before}")), Ok(config));
    }

    #[test]
    fn challenges_need_no_tls() {
        let config = good("challenge_directory = \"/var/lib/acme\"");
        assert_eq!((config.tls.as_ref(), config.challenge_directory.is_some()), (None, true));
        assert!(config.notes().iter().any(|note| note.contains("/var/lib/acme is not a directory")));
        assert_eq!(good("challenge_directory = \"off\"").challenge_directory, None);
        assert!(
            errors("challenge_directory = \"acme\"")[0].contains("write a path such as \"/var/lib/acme\", or \"off\"")
        );
    }

    #[test]
    fn certificates_and_an_address_need_each_other() {
        let both = [
            ("listen = \"0.0.0.0:443\"".to_owned(), "1: [tls] certificates is missing; add certificates = [{"),
            ("listen = \"0.0.0.0:443\"\ncertificates = []".to_owned(), "1: [tls] certificates is missing; add"),
            (PAIR.to_owned(), "1: [tls] listen is missing; add listen = \"0.0.0.0:443\" below [tls]"),
            (format!("listen = \"off\"\n{PAIR}"), "1: [tls] listen is missing; add"),
        ];
        for (section, expected) in both {
            let errors = errors(&section);
            assert!(errors.len() == 1 && errors[0].starts_with(expected), "{section}: {errors:#?}");
        }
        // Not if the other one is wrong itself.
        assert_eq!(errors(&format!("listen = \"x\"\n{PAIR}")).len(), 1);
        assert_eq!(errors("listen = \"0.0.0.0:443\"\ncertificates = [{ certificate_file = \"good\" }]").len(), 1);
    }

    #[test]
    fn every_error_has_its_line_and_remedy() {
        for (section, line, remedy) in [
            ("listen = \"443\"", 2, "write \"0.0.0.0:443\""),
            ("listen = []", 1, "name at least one address"),
            ("listen = [\"off\",\n\"0.0.0.0:443\"]", 2, "keep only \"off\""),
            ("listen = [\"0.0.0.0:443\",\n\"0.0.0.0:443\"]", 3, "keep one of them"),
            ("min_version = \"1.1\"", 2, "write \"1.2\" or \"1.3\""),
            ("min_version = 1.3", 2, "write a string in quotes"),
            ("hsts_s = 63072001", 2, "choose a number from 0 to 63072000"),
            ("redirect = \"yes\"", 2, "write true or false"),
            ("certificate_file = \"good\"", 2, "add certificates = [{"),
            ("cert = \"good\"", 2, "sharelinkd config"),
            ("certificates = [{ certificate_file = \"good\", key_file = \"other\" }]", 2, "write the key's own"),
            ("certificates = [{ certificate_file = \"\", key_file = \"k\" }]", 2, "name a file"),
            ("certificates = [{ certificate_file = \"good\", key_file = \"a\\u0007\" }]", 2, "name a file"),
            ("certificates = [{ certificate = \"good\", key_file = \"good.key\" }]", 2, "write certificate_file"),
            ("certificates = \"good\"", 2, "[{ certificate_file = \"...\", key_file = \"...\" }]"),
            (
                "certificates = [{ certificate_file = \"a\", key_file = \"a.key\" },\n{ certificate_file = \"a\", key_file = \"a.key\" }]",
                3,
                "keep one of them",
            ),
        ] {
            let errors = errors(&format!("{section}\n"));
            assert!(
                errors.iter().any(|text| text.starts_with(&format!("{line}: [tls]"))
                    || text.starts_with(&format!("{line}: unknown key [tls]"))),
                "{section}: {errors:#?}"
            );
            assert!(errors.iter().any(|text| text.contains(remedy)), "{section}: {errors:#?}");
        }
    }

    #[test]
    fn there_are_at_most_eight_certificates() {
        let pairs = |count: usize| {
            let pair = |n| format!("{{ certificate_file = \"c{n}\", key_file = \"c{n}.key\" }}");
            let pairs: Vec<String> = (0..count).map(pair).collect();
            format!("listen = \"0.0.0.0:443\"\ncertificates = [\n{}]", pairs.join(",\n"))
        };
        assert_eq!(good(&pairs(CERTIFICATES_MAX)).tls.unwrap().certificates.len(), CERTIFICATES_MAX);
        let errors = errors(&pairs(CERTIFICATES_MAX + 1));
        assert!(
            errors.len() == 1 && errors[0].starts_with("12: [tls] certificates has 9 entries; list at most 8"),
            "{errors:#?}"
        );
    }

    #[test]
    fn names_for_which_an_earlier_certificate_answers_are_noted() {
        let pairs: Vec<String> = ["a", "b", "c", "d"]
            .iter()
            .map(|name| format!("{{ certificate_file = \"{name}\", key_file = \"{name}.key\" }}"))
            .collect();
        let config = good(&format!("listen = \"0.0.0.0:443\"\ncertificates = [{}]", pairs.join(", ")));
        let notes: Vec<String> =
            config.tls.iter().flat_map(|tls| &tls.certificates).flat_map(|it| it.notes.clone()).collect();
        let said = |at: &str| at.replace('^', "/etc/sharelinkd/");
        assert_eq!(
            notes,
            [
                said("^b has the name a.example, for which ^a answers, which is listed before it"),
                said(
                    "^c has the name A.example., for which ^a answers, which is listed before it, and so do earlier ones for all its other names"
                ),
                // x.example is covered by a's wildcard, and its own exact name goes first.
                said("^d has the name b.example, for which ^b answers, which is listed before it"),
            ]
        );
        let printed = config.to_string();
        assert!(
            printed.contains("    # a.example and *.example\n    { certificate_file = \"/etc/sharelinkd/a\""),
            "{printed}"
        );
    }

    #[test]
    fn listeners_of_tls_collide_with_no_others() {
        let with = |listen: &str, other: &str| errors(&format!("listen = {listen}\n{PAIR}\n{other}"));
        for (listen, other, line, word) in [
            ("\"127.0.0.1:8080\"", "", 1, "[tls] listen and [pages] listen are both 127.0.0.1:8080"),
            (
                "\"0.0.0.0:8080\"",
                "",
                1,
                "[tls] listen has 0.0.0.0:8080 and [pages] listen has 127.0.0.1:8080, which overlap",
            ),
            (
                "[\"0.0.0.0:443\", \"10.0.0.1:443\"]",
                "",
                1,
                "[tls] listen has 0.0.0.0:443 and 10.0.0.1:443, which overlap",
            ),
            ("\"127.0.0.1:9400\"", "[metrics]\nlisten = \"127.0.0.1:9400\"", 4, "are both 127.0.0.1:9400"),
            ("\"0.0.0.0:9400\"", "[metrics]\nlisten = \"127.0.0.1:9400\"", 4, "which overlap"),
            ("\"127.0.0.1:443\"", "[uplink]\naddresses = \"127.0.0.1:443\"", 4, "where this relay itself listens"),
        ] {
            let errors = with(listen, other);
            assert!(
                errors.len() == 1 && errors[0].starts_with(&format!("{line}: ")) && errors[0].contains(word),
                "{listen} {other}: {errors:#?}"
            );
        }
        assert_eq!(
            with("[\"127.0.0.1:0\", \"0.0.0.0:0\", \"[::]:8080\"]", "[metrics]\nlisten = \"127.0.0.1:0\""),
            [""; 0]
        );
        // Sixteen listeners together, since each has a descriptor.
        let addresses =
            |count: u16| (0..count).map(|n| format!("\"127.0.0.1:{}\"", 4000 + n)).collect::<Vec<_>>().join(", ");
        let pages = |count| format!("[pages]\nlisten = [{}]", addresses(count).replace(":4", ":5"));
        assert_eq!(with(&format!("[{}]", addresses(8)), &pages(8)), [""; 0]);
        let errors = with(&format!("[{}]", addresses(8)), &pages(9));
        assert!(errors.len() == 1 && errors[0].contains("17 addresses together; list at most 16"), "{errors:#?}");
    }

    #[test]
    fn nobody_is_redirected_who_may_be_a_proxy() {
        let tls = good(&format!("listen = \"0.0.0.0:443\"\n{PAIR}")).tls.unwrap();
        let trusted = [values::network("10.0.0.0/8").unwrap()];
        for (peer, redirected) in [
            ("192.0.2.1", true),
            ("2001:db8::1", true),
            ("127.0.0.1", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("10.1.2.3", false),
            ("::ffff:10.1.2.3", false),
        ] {
            assert_eq!(tls.redirects(peer.parse().unwrap(), &trusted), redirected, "{peer}");
        }
        assert!(!Tls { redirect: false, ..tls }.redirects("192.0.2.1".parse().unwrap(), &trusted));
    }
}
