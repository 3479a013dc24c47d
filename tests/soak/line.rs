//! A page's bytes on the wire: as they are, or by TLS.
//!
//! Owns the page's keys and its handshake, which waits for nobody: hands are shaken in the load's
//! loop. Doesn't know the socket, or what the bytes mean.

use sharelinkd::bench::tls::{Client, Line as Secured, Shaken, Shaking};
use sharelinkd::config::Pin;

/// What the bytes go through.
#[derive(Default)]
pub enum Line {
    #[default]
    Plain,
    Shaking(Box<Shaking>),
    Secured(Box<Secured>),
}

/// What became of bytes that were read.
pub enum Read {
    /// Plaintext, perhaps none.
    Open,
    /// The same, and hands are shaken: with this key.
    Shaken(Pin),
    /// The relay sends nothing more.
    Closed,
}

impl Line {
    /// A line by TLS, whose hello is appended to `out`; without a client, as they are.
    pub fn begin(client: Option<&Client>, out: &mut Vec<u8>) -> Result<Self, String> {
        Ok(match client {
            Some(client) => Self::Shaking(client.begin(out)?),
            None => Self::Plain,
        })
    }

    pub const fn is_shaking(&self) -> bool {
        matches!(self, Self::Shaking(_))
    }

    /// Appends to `out` what is to be written for these bytes.
    pub fn say(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Plain => out.extend_from_slice(bytes),
            Self::Secured(line) => out.extend(line.seal(bytes)?),
            Self::Shaking(_) => return Err("something was said before hands were shaken".to_owned()),
        }
        Ok(())
    }

    /// Takes what was read; appends plaintext to `plain`, and what is to be written to `out`.
    pub fn take(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<Read, String> {
        let mut keep = |bytes: &[u8]| {
            plain.extend_from_slice(bytes);
            Ok(())
        };
        match std::mem::take(self) {
            Self::Plain => keep(bytes).map(|()| Read::Open),
            Self::Secured(mut line) => {
                let is_open = line.open(bytes, keep)?;
                *self = Self::Secured(line);
                Ok(if is_open { Read::Open } else { Read::Closed })
            }
            Self::Shaking(shaking) => match shaking.take(bytes, out)? {
                Shaken::Not(shaking) => {
                    *self = Self::Shaking(shaking);
                    Ok(Read::Open)
                }
                Shaken::Done(mut line) => {
                    // Tickets may be behind it already.
                    line.open(&mut [], keep)?;
                    let shown = line.shown;
                    *self = Self::Secured(line);
                    Ok(Read::Shaken(shown))
                }
            },
        }
    }
}
