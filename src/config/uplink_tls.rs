//! `[uplink.tls]`: how the business server is authenticated, and how it can authenticate the relay.
//!
//! Owns the section's keys and the rules between them: a CA or a pin turns TLS on, nothing else has
//! a meaning without; a CA needs a name to verify, which an entry that is a name brings itself.
//! Refuses files that can't be used, as the functions that it is given find out. Empty values count
//! as absent. Knows no certificates, and reads no file itself.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::address::{UplinkAddress, is_host_name};
use super::values::{Wrong, wrong};
use super::{Surroundings, UplinkTls};
use document::{At, Document};

/// Pins at most: the key in use and the next ones.
const PINS_MAX: usize = 4;
const SECTION: &str = "uplink.tls";

/// The SHA-256 of a public key (X.509's `SubjectPublicKeyInfo`, DER). Prints as `openssl dgst`
/// does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pin(pub [u8; 32]);

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

/// `[uplink.tls]`; `None` without TLS. `addresses` are those of `[uplink]`.
pub fn uplink_tls(
    document: &mut Document<'_>,
    around: &Surroundings<'_>,
    addresses: &[At<UplinkAddress>],
) -> Option<UplinkTls> {
    let before = document.problem_count();
    let ca_file = file(document, around, "ca_file");
    let pins = pins(document);
    let name = name(document);
    let certificate_file = file(document, around, "certificate_file");
    let key_file = file(document, around, "key_file");
    if document.problem_count() > before {
        return None;
    }
    if ca_file.is_none() && pins.is_empty() {
        let pointless = [
            ("name", line_of(&name)),
            ("certificate_file", line_of(&certificate_file)),
            ("key_file", line_of(&key_file)),
        ];
        for (key, line) in pointless.into_iter().filter_map(|(key, line)| Some((key, line?))) {
            document.refuse(
                line,
                format!("[{SECTION}] {key} is set, but nothing turns TLS on"),
                "add ca_file or pin below [uplink.tls], which says whom to trust, or remove the key",
            );
        }
        return None;
    }
    let literal = addresses.iter().find(|address| !matches!(address.value, UplinkAddress::Name(..)));
    if let (Some(At { line, .. }), None, Some(At { value: address, .. })) = (&ca_file, &name, literal) {
        document.refuse(
            *line,
            format!("[{SECTION}] ca_file without name: {address} is an address, and a CA vouches for names"),
            "add name = \"...\" below [uplink.tls], as it stands in the server's certificate, or write names into addresses",
        );
    }
    let notes = check_ca(document, around, ca_file.as_ref());
    let (certificate, pair_notes) = pair(document, around, certificate_file, key_file);
    Some(UplinkTls {
        ca_file: ca_file.map(|file| file.value),
        pins,
        name: name.map(|name| name.value),
        certificate,
        notes: [notes, pair_notes].concat(),
    })
}

const fn line_of<T>(item: &Option<At<T>>) -> Option<u32> {
    match item {
        Some(item) => Some(item.line),
        None => None,
    }
}

/// The path of a file; none if the key is missing or empty.
fn file(document: &mut Document<'_>, around: &Surroundings<'_>, key: &'static str) -> Option<At<PathBuf>> {
    let At { line, value } = document.text(SECTION, key).filter(|file| !file.value.is_empty())?;
    if value.contains(char::is_control) {
        document.refuse(
            line,
            format!("[{SECTION}] {key} has control characters"),
            "name a file: an absolute path, or one relative to $CREDENTIALS_DIRECTORY or to the directory of this file",
        );
        return None;
    }
    Some(At { line, value: (around.resolve)(Path::new(&value)) })
}

fn check_ca(document: &mut Document<'_>, around: &Surroundings<'_>, file: Option<&At<PathBuf>>) -> Vec<String> {
    let Some(At { line, value }) = file else { return Vec::new() };
    (around.check_ca)(value).unwrap_or_else(|(what, remedy)| {
        document.refuse(*line, format!("[{SECTION}] {what}"), remedy);
        Vec::new()
    })
}

/// The relay's own certificate, and remarks on it.
fn pair(
    document: &mut Document<'_>,
    around: &Surroundings<'_>,
    certificate_file: Option<At<PathBuf>>,
    key_file: Option<At<PathBuf>>,
) -> (Option<(PathBuf, PathBuf)>, Vec<String>) {
    let (certificate_file, key_file) = match (certificate_file, key_file) {
        (Some(certificate_file), Some(key_file)) => (certificate_file, key_file),
        (None, None) => return (None, Vec::new()),
        (Some(At { line, .. }), None) => {
            document.refuse(
                line,
                format!("[{SECTION}] certificate_file without key_file"),
                "add key_file below [uplink.tls]",
            );
            return (None, Vec::new());
        }
        (None, Some(At { line, .. })) => {
            document.refuse(
                line,
                format!("[{SECTION}] key_file without certificate_file"),
                "add certificate_file below [uplink.tls]",
            );
            return (None, Vec::new());
        }
    };
    match (around.check_client_pair)(&certificate_file.value, &key_file.value) {
        Ok(notes) => (Some((certificate_file.value, key_file.value)), notes),
        Err((what, remedy)) => {
            document.refuse(certificate_file.line, format!("[{SECTION}] {what}"), remedy);
            (None, Vec::new())
        }
    }
}

fn name(document: &mut Document<'_>) -> Option<At<String>> {
    let At { line, value } = document.text(SECTION, "name").filter(|name| !name.value.is_empty())?;
    if !is_host_name(&value) && value.parse::<IpAddr>().is_err() {
        document.refuse(
            line,
            format!("[{SECTION}] name = {value:?} is neither a name nor an address that a certificate can have"),
            "write a name such as \"business.example\", without a port, as `openssl x509 -ext subjectAltName` shows it",
        );
        return None;
    }
    Some(At { line, value })
}

fn pins(document: &mut Document<'_>) -> Vec<Pin> {
    let texts = document.texts(SECTION, "pin").unwrap_or_default();
    if let Some(extra) = texts.get(PINS_MAX) {
        let what = format!("[{SECTION}] pin has {} entries", texts.len());
        document.refuse(extra.line, what, format!("list at most {PINS_MAX}: the key in use and the next ones"));
    }
    let mut pins = Vec::new();
    for At { line, value } in texts.into_iter().filter(|text| !text.value.is_empty()) {
        match pin(&value) {
            Ok(pin) => pins.push(pin),
            Err((what, remedy)) => document.refuse(line, format!("[{SECTION}] pin has {value:?}: {what}"), remedy),
        }
    }
    pins
}

/// Parses a pin: hexadecimal with or without colons, or base64, as `openssl` prints it; curl's
/// `sha256//` may stand before it.
fn pin(text: &str) -> Result<Pin, Wrong> {
    let bare = text.strip_prefix("sha256//").unwrap_or(text);
    let hex: String = bare.chars().filter(|letter| *letter != ':').collect();
    let bytes = match hex.len() {
        64 => from_hex(&hex),
        _ => from_base64(bare),
    };
    let bytes: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.map_or_else(
        || {
            wrong(
                "it is not a SHA-256 (64 hexadecimal digits, or 44 characters of base64)",
                "write what this prints: openssl pkey -in server.key -pubout -outform der | openssl dgst -sha256",
            )
        },
        |bytes| Ok(Pin(bytes)),
    )
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|letter| letter.to_digit(16)).collect();
    digits?.chunks(2).map(|pair| u8::try_from(pair.first()? << 4 | pair.get(1)?).ok()).collect()
}

/// Base64 (RFC 4648, 4 and 5), with or without padding.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut size) = (Vec::new(), 0_u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 & 0xffff | u32::from(value);
        size += 6;
        if size >= 8 {
            size -= 8;
            out.push(u8::try_from(bits >> size & 0xff).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use board::HOST;
    use document::Problem;

    const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    /// Parses `[uplink]` with `addresses` and a secret, and `[uplink.tls]`, on a machine where the
    /// CA `ca` and the certificate `own` with the key `own.key` exist.
    fn parse(addresses: &str, section: &str) -> Result<Config, Vec<String>> {
        let around = Surroundings {
            resolve: &|name| Path::new("/etc/sharelinkd").join(name),
            check_ca: &|file| match file.ends_with("ca") {
                true => Ok(vec!["the CA is old".to_owned()]),
                false => Err((format!("ca_file {} is none", file.display()), "name another".to_owned())),
            },
            check_client_pair: &|certificate, key| match (certificate.ends_with("own"), key.ends_with("own.key")) {
                (true, true) => Ok(Vec::new()),
                _ => Err(("key_file does not match".to_owned(), "name its own".to_owned())),
            },
            ..Surroundings::without_files("box")
        };
        let text =
            format!("[uplink]\naddresses = {addresses}\nsecret = \"0123456789abcdef\"\n[uplink.tls]\n{section}\n");
        let line = |problem: Problem| format!("{}: {}; {}", problem.line, problem.what, problem.remedy);
        Config::parse(&text, &HOST, &around).map_err(|problems| problems.into_iter().map(line).collect())
    }

    fn good(addresses: &str, section: &str) -> Config {
        parse(addresses, section).unwrap_or_else(|errors| panic!("{section}: {errors:#?}"))
    }

    fn errors(addresses: &str, section: &str) -> Vec<String> {
        parse(addresses, section).err().unwrap_or_default()
    }

    #[test]
    fn a_ca_or_a_pin_turns_it_on_and_then_no_consent_is_needed() {
        let far = "[\"10.0.0.9:7400\", \"business.example:7400\"]";
        assert!(errors(far, "")[0].contains("and the uplink is not encrypted; add ca_file or pin below [uplink.tls]"));
        assert_eq!(good("\"127.0.0.1:7400\"", "ca_file = \"\"\npin = []\nname = \"\"").uplink.tls, None);
        let config = good(far, &format!("pin = {HEX:?}"));
        let tls = config.uplink.tls.as_ref().unwrap();
        assert_eq!((tls.pins.len(), tls.ca_file.as_ref(), config.uplink.plaintext), (1, None, false));
        assert_eq!(tls.pins[0].to_string(), HEX);
        let config = good(
            far,
            "ca_file = \"ca\"\nname = \"business.example\"\ncertificate_file = \"own\"\nkey_file = \"own.key\"",
        );
        let tls = config.uplink.tls.as_ref().unwrap();
        assert_eq!(tls.ca_file.as_deref(), Some(Path::new("/etc/sharelinkd/ca")));
        assert_eq!(tls.certificate.as_ref().unwrap().1, Path::new("/etc/sharelinkd/own.key"));
        assert_eq!(tls.notes, ["the CA is old"]);
        assert!(config.notes().iter().any(|note| note == "[uplink.tls] the CA is old"), "{:?}", config.notes());
    }

    #[test]
    fn what_is_printed_reads_back() {
        let section = format!(
            "ca_file = \"ca\"\nname = \"10.0.0.9\"\ncertificate_file = \"own\"\nkey_file = \"own.key\"\npin = [{HEX:?}, \"{}\"]",
            "ff".repeat(32)
        );
        let config = good("\"10.0.0.9:7400\"", &section);
        let printed = config.to_string();
        let (_, after) = printed.split_once("[uplink.tls]\n").unwrap();
        let again = after.split("\n[").next().unwrap();
        assert_eq!(parse("\"10.0.0.9:7400\"", again).map(|config| config.uplink.tls), Ok(config.uplink.tls.clone()));
        let off = good("\"127.0.0.1:7400\"", "").to_string();
        assert!(off.contains("[uplink.tls]\nca_file = \"\"\npin = []\nname = \"\"\n"), "{off}");
    }

    #[test]
    fn a_ca_needs_a_name_to_verify_unless_every_entry_is_one() {
        assert!(parse("\"business.example:7400\"", "ca_file = \"ca\"").is_ok());
        for addresses in
            ["\"10.0.0.9:7400\"", "[\"business.example:7400\", \"unix:/run/b\"]", "\"[fe80::1%eth0]:7400\""]
        {
            let errors = errors(addresses, "ca_file = \"ca\"");
            assert!(errors.len() == 1 && errors[0].starts_with("5: [uplink.tls] ca_file without name"), "{errors:#?}");
            assert!(parse(addresses, "ca_file = \"ca\"\nname = \"b.example\"").is_ok(), "{addresses}");
            assert!(parse(addresses, &format!("pin = {HEX:?}")).is_ok(), "{addresses}");
        }
    }

    #[test]
    fn pins_are_taken_as_openssl_prints_them() {
        let bytes: Vec<u8> = (0..32).map(|at| at * 8 + 5).collect();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let colons = bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
        let base64 = "BQ0VHSUtNT1FTVVdZW11fYWNlZ2lrbW9xc3V3eXt9f0=";
        for text in [hex.as_str(), &colons, base64, base64.trim_end_matches('='), &format!("sha256//{base64}")] {
            assert_eq!(pin(text).map(|pin| pin.0.to_vec()), Ok(bytes.clone()), "{text}");
        }
        for wrong in ["", "abc", &hex[1..], &base64[1..], &format!("{hex}00"), &hex.replace('5', "g"), "sha256//"] {
            assert!(pin(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_error_has_its_line_and_remedy() {
        for (section, line, remedy) in [
            ("name = \"b.example\"", 5, "add ca_file or pin"),
            ("certificate_file = \"own\"\nkey_file = \"own.key\"", 6, "add ca_file or pin"),
            ("ca_file = \"other\"\nname = \"b\"", 5, "name another"),
            ("ca_file = \"a\\u0007\"", 5, "name a file"),
            ("ca_file = [\"ca\"]", 5, "write a string in quotes"),
            ("pin = \"xyz\"", 5, "openssl dgst -sha256"),
            ("ca_file = \"ca\"\nname = \"b.example:7400\"", 6, "without a port"),
            ("ca_file = \"ca\"\nname = \"*.example\"", 6, "without a port"),
            ("ca_file = \"ca\"\nname = \"b\"\ncertificate_file = \"own\"", 7, "add key_file"),
            ("ca_file = \"ca\"\nname = \"b\"\nkey_file = \"own.key\"", 7, "add certificate_file"),
            ("ca_file = \"ca\"\nname = \"b\"\ncertificate_file = \"own\"\nkey_file = \"ca\"", 7, "name its own"),
            ("pin = [\"\", \"\", \"\", \"\", \"\"]", 5, "at most 4"),
            ("key_fil = \"own\"", 5, "did you mean key_file?"),
        ] {
            let errors = errors("\"127.0.0.1:7400\"", section);
            assert!(errors.iter().any(|text| text.starts_with(&format!("{line}: "))), "{section}: {errors:#?}");
            assert!(errors.iter().any(|text| text.contains(remedy)), "{section}: {errors:#?}");
        }
        // An error in the section is not also taken for a missing section.
        assert_eq!(errors("\"10.0.0.9:7400\"", "pin = \"xyz\"").len(), 1);
    }
}
