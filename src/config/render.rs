//! The effective configuration as text, which `check` prints.
//!
//! Owns order and format, and by it which keys differ between two configurations. The output is a
//! valid configuration file that parses to the same configuration, except for the secret, of which
//! only the size is printed. Refuses nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::limits::LIMITS;
use super::sections::PAGES_PER_ADDRESS_AUTO;
use super::{CertificateFiles, Config, MinVersion, Origins, Tls, UplinkTls};

/// The keys whose values differ, such as `pages.origins`: by name alone, since one is the secret.
#[must_use]
pub fn changes(before: &Config, after: &Config) -> Vec<String> {
    let mut keys = differing(&before.to_string(), &after.to_string());
    if before.uplink.secret != after.uplink.secret {
        keys.push("uplink.secret".to_owned());
        keys.sort_unstable();
    }
    keys
}

/// The keys whose values differ between two printed configurations, in order.
#[must_use]
pub fn differing(before: &str, after: &str) -> Vec<String> {
    let (old, new) = (values(before), values(after));
    let differ = |key: &&(&str, &str)| old.get(*key) != new.get(*key);
    let also_new = new.keys().filter(|key| !old.contains_key(*key));
    let keys = old.keys().chain(also_new).filter(differ);
    let mut keys: Vec<String> = keys.map(|(section, key)| format!("{section}.{key}")).collect();
    keys.sort_unstable();
    keys
}

/// The lines of each key of a printed configuration, by section and key, without comments: these
/// say what the files of a certificate hold, and that is no configuration.
fn values(text: &str) -> BTreeMap<(&str, &str), Vec<&str>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let (mut section, mut key) = ("", "");
    for line in text.lines().filter(|line| !line.is_empty() && !line.trim_start().starts_with('#')) {
        if let Some((name, _)) = line.strip_prefix('[').and_then(|line| line.split_once(']')) {
            section = name;
            continue;
        }
        if let (true, Some((name, _))) =
            (line.starts_with(|first: char| first.is_ascii_lowercase()), line.split_once(" = "))
        {
            key = name;
        }
        found.entry((section, key)).or_default().push(line);
    }
    found
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pages, tls, challenge_directory, uplink, console, metrics, log_level, pages_per_address, board } =
            self;
        writeln!(f, "[pages]")?;
        writeln!(f, "listen = {}", List(&pages.listen))?;
        match &pages.origins {
            Origins::Any => writeln!(f, "origins = [\"*\"]")?,
            Origins::Listed(origins) => writeln!(f, "origins = {}", List(origins))?,
        }
        writeln!(f, "require_origin = {}", pages.require_origin)?;
        writeln!(f, "url = {}", Quoted(&pages.url.as_deref().unwrap_or(board::OFF)))?;
        writeln!(f, "trusted_proxies = {}", List(&pages.trusted_proxies))?;
        writeln!(f, "drain_s = {}\nio_uring = {}", pages.drain_s, pages.io_uring)?;

        writeln!(f, "\n[tls]")?;
        match tls {
            Some(tls) => write!(f, "{tls}")?,
            None => writeln!(f, "listen = {}", Quoted(&board::OFF))?,
        }
        match challenge_directory {
            Some(directory) => writeln!(f, "challenge_directory = {}", Quoted(&directory.display()))?,
            None => writeln!(f, "challenge_directory = {}", Quoted(&board::OFF))?,
        }

        writeln!(f, "\n[uplink]\naddresses = {}\norder = \"{}\"", List(&uplink.addresses), uplink.order)?;
        writeln!(f, "# secret: {}", uplink.secret)?;
        writeln!(
            f,
            "plaintext = {}\ndead_after_s = {}\nlinger_s = {}\nname = {}",
            uplink.plaintext,
            uplink.dead_after_s,
            uplink.linger_s,
            Quoted(&uplink.name)
        )?;
        let off = UplinkTls { ca_file: None, pins: Vec::new(), name: None, certificate: None, notes: Vec::new() };
        write!(f, "\n[uplink.tls]\n{}", uplink.tls.as_ref().unwrap_or(&off))?;

        writeln!(f, "\n[console]")?;
        match &console.serial {
            Some(serial) => writeln!(f, "serial = {}\nspeed = {}", Quoted(&serial.device.display()), serial.speed)?,
            None => writeln!(f, "serial = \"off\"")?,
        }
        writeln!(f, "control = {}", console.control)?;
        match &console.socket {
            Some(path) => writeln!(f, "socket = {}", Quoted(&path.display()))?,
            None => writeln!(f, "socket = \"off\"")?,
        }
        match metrics {
            Some(address) => writeln!(f, "\n[metrics]\nlisten = \"{address}\"")?,
            None => writeln!(f, "\n[metrics]\nlisten = \"off\"")?,
        }

        writeln!(f, "\n[limits] # of the board {}", board.name)?;
        match pages_per_address {
            None => writeln!(
                f,
                "pages_per_address = {} # a quarter of pages, while more than three quarters are connected",
                Quoted(&PAGES_PER_ADDRESS_AUTO)
            )?,
            Some(0) => writeln!(f, "pages_per_address = 0 # no limit")?,
            Some(most) => writeln!(f, "pages_per_address = {most}")?,
        }
        let whole = board::by_name(board.name);
        for limit in &LIMITS {
            let value = (limit.of)(board);
            match whole.map(limit.of) {
                Some(most) if most != value => writeln!(f, "{} = {value} # lowered from {most}", limit.key)?,
                _ => writeln!(f, "{} = {value}", limit.key)?,
            }
        }
        writeln!(f, "\n[log]\nlevel = \"{}\"", log_level.as_str().to_ascii_lowercase())
    }
}

impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listen, certificates, min_version, hsts_s, redirect } = self;
        writeln!(f, "listen = {}\ncertificates = [", List(listen))?;
        for CertificateFiles { certificate_file, key_file, about, .. } in certificates {
            if !about.is_empty() {
                writeln!(f, "    # {about}")?;
            }
            let (certificate_file, key_file) = (certificate_file.display(), key_file.display());
            writeln!(
                f,
                "    {{ certificate_file = {}, key_file = {} }},",
                Quoted(&certificate_file),
                Quoted(&key_file)
            )?;
        }
        writeln!(f, "]\nmin_version = {}", Quoted(min_version))?;
        writeln!(f, "hsts_s = {hsts_s}\nredirect = {redirect}")
    }
}

impl fmt::Display for UplinkTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |path: Option<&PathBuf>| path.map_or(String::new(), |path| path.display().to_string());
        let (certificate, key) =
            self.certificate.as_ref().map_or((None, None), |(certificate, key)| (Some(certificate), Some(key)));
        writeln!(f, "ca_file = {}", Quoted(&path(self.ca_file.as_ref())))?;
        writeln!(f, "pin = {}", List(&self.pins))?;
        writeln!(f, "name = {}", Quoted(&self.name.as_deref().unwrap_or("")))?;
        writeln!(f, "certificate_file = {}", Quoted(&path(certificate)))?;
        writeln!(f, "key_file = {}", Quoted(&path(key)))
    }
}

impl fmt::Display for MinVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V12 => "1.2",
            Self::V13 => "1.3",
        })
    }
}

/// A TOML string, with quotes, backslashes and control characters escaped.
pub struct Quoted<'a, T>(
    /// The text, by its `Display`.
    pub &'a T,
);

impl<T: fmt::Display> fmt::Display for Quoted<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for character in self.0.to_string().chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                character if character.is_control() => write!(f, "\\u{:04X}", u32::from(character))?,
                character => write!(f, "{character}")?,
            }
        }
        f.write_str("\"")
    }
}

/// A TOML array of strings.
pub struct List<'a, T>(
    /// The texts, by their `Display`.
    pub &'a [T],
);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, item) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}", Quoted(item))?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Surroundings;
    use super::super::certificate_notes::Report;
    use super::*;

    fn config(text: &str, about: &str) -> Config {
        let report = |_: &Path, _: &Path| Ok(Report { about: about.to_owned(), ..Report::default() });
        let around = Surroundings {
            check_pair: &report,
            check_client_pair: &|_, _| Ok(Vec::new()),
            check_ca: &|_| Ok(Vec::new()),
            ..Surroundings::without_files("box")
        };
        Config::parse(text, &board::HOST, &around).unwrap()
    }

    #[test]
    fn the_keys_that_changed_are_named_and_never_the_secret() {
        const TLS: &str =
            "[tls]\nlisten = \"0.0.0.0:443\"\ncertificates = [{ certificate_file = \"a\", key_file = \"b\" }]\n";
        let with = |keys: &str| format!("{TLS}{keys}\n");
        for (before, after, keys) in [
            ("", "", &[][..]),
            ("[uplink]\nsecret = \"one\"", "[uplink]\nsecret = \"two\"", &["uplink.secret"]),
            ("[uplink]\nsecret = \"one\"", "", &["uplink.secret"]),
            (
                "",
                "[uplink]\nname = \"x\"\nlinger_s = 5\ndead_after_s = 9",
                &["uplink.dead_after_s", "uplink.linger_s", "uplink.name"],
            ),
            ("[pages]\norigins = [\"*\"]", "[pages]\norigins = [\"https://a\"]", &["pages.origins"]),
            ("", "[pages]\nurl = \"https://a\"\ntrusted_proxies = [\"::1\"]", &["pages.trusted_proxies", "pages.url"]),
            ("", "[pages]\ndrain_s = 5\nrequire_origin = true", &["pages.drain_s", "pages.require_origin"]),
            ("", "[limits]\npages_per_address = 5\npages = 7", &["limits.pages", "limits.pages_per_address"]),
            ("", "[log]\nlevel = \"debug\"\n[console]\ncontrol = true", &["console.control", "log.level"]),
            ("", "[uplink.tls]\nca_file = \"ca\"\nname = \"b\"", &["uplink.tls.ca_file", "uplink.tls.name"]),
            ("[console]\nserial = \"off\"", "[console]\nserial = \"/dev/ttyS1\"", &["console.serial", "console.speed"]),
            (
                TLS,
                &with("min_version = \"1.3\"\nhsts_s = 5\nredirect = false"),
                &["tls.hsts_s", "tls.min_version", "tls.redirect"],
            ),
            (TLS, &TLS.replace("\"a\"", "\"c\""), &["tls.certificates"]),
            (TLS, &with("challenge_directory = \"/x\""), &["tls.challenge_directory"]),
        ] {
            let found = changes(&config(before, "old"), &config(after, "renewed"));
            assert_eq!(found, keys, "{before} {after}");
        }
    }
}
