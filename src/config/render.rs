//! The effective configuration as text, which `check` prints.
//!
//! Owns order and format. The output is a valid configuration file that parses to the same
//! configuration, except for the secret, of which only the size is printed. Refuses nothing.

use std::fmt;
use std::path::PathBuf;

use super::limits::LIMITS;
use super::sections::PAGES_PER_ADDRESS_AUTO;
use super::{CertificateFiles, Config, MinVersion, Origins, Tls, UplinkTls};

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
struct Quoted<'a, T>(&'a T);

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
struct List<'a, T>(&'a [T]);

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
