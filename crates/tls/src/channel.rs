//! The record layer of one page's connection: what is sealed, what became of it, and what a record
//! from the peer means.
//!
//! Nothing sealed is kept. A record that the socket took in part is sealed again from the same
//! plaintext under the same sequence, which gives the same bytes, since an AEAD is deterministic.
//! *The guard*: of such a record the [`Channel`] remembers source, length and tag, and refuses to
//! go on unless the new record has the same. So no nonce is ever used for two plaintexts, whatever
//! the caller does. A sequence is used up only when its record is out as a whole; records sealed
//! behind a cut one never left, and may be sealed anew with other content.
//!
//! Owns the keys of both directions, key updates (RFC 8446, 4.6.3), alerts and `close_notify`.
//! Refuses renegotiation, any other handshake message, and floods of records without data. Knows no
//! socket: the caller sends the bytes and reports how many were taken.

use core::fmt;
use core::ops::Range;

use super::keys::Keys;
use super::ledger;
use super::record::{self, Alert, Content};
use super::suite::{Aead, Suite, TAG_SIZE, Version};

/// Records without application data in a row, at most: empty ones, key updates, warnings.
const IDLE_MAX: u8 = 32;
/// Records under one key of AES-GCM, at most. RFC 8446, 5.5 allows 2^24.5 of full size.
const RECORDS_MAX: u64 = 1 << 24;
/// How many records before [`RECORDS_MAX`] our key update becomes due: more than one write has.
const RECORDS_SPARE: u64 = 1 << 12;
/// Size of the largest record that [`Channel::own`] seals, in bytes.
pub const OWN_SIZE_MAX: usize = 64;

/// A handshake message of type `key_update` with one byte (RFC 8446, 4.6.3), up to that byte.
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];
/// The message: `update_not_requested`.
const KEY_UPDATE_MESSAGE: [u8; 5] = [24, 0, 0, 1, 0];
/// `close_notify` of RFC 8446, 6.1.
const CLOSE_NOTIFY: u8 = 0;
/// `user_canceled`, which has no effect (RFC 8446, 6.1).
const USER_CANCELED: u8 = 90;
/// Levels of an alert. TLS 1.3 ignores them.
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// Where a record's plaintext comes from. A record holds bytes of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Our key update.
    KeyUpdate,
    /// Our alert, or `close_notify`.
    Alert,
    /// The control slot: pong and close frames.
    Control,
    /// Publications, notices, an HTTP response.
    Outgoing,
}

/// A record that the socket took in part.
#[derive(Clone, Copy, Debug)]
struct Begun {
    source: Source,
    /// Bytes of plaintext.
    plain: u16,
    /// Bytes of the record that the socket took.
    sent: u16,
    tag: [u8; TAG_SIZE],
}

/// The connection can only be cut: a record could not be sealed, or not with the bytes that it
/// began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record can't be sealed as it was begun")
    }
}

/// What the socket took, in bytes of plaintext.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Of the records that are out as a whole.
    pub whole: u64,
    /// Of the record behind them that is out in part.
    pub begun: u64,
}

/// What a record of the peer was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Application data: the range of the record's buffer that it is in now.
    Data(Range<usize>),
    /// Nothing for the application.
    Nothing,
    /// The peer sends no more: `close_notify`, or a fatal alert.
    End,
}

/// The record layer of one connection after its handshake.
pub struct Channel {
    suite: Suite,
    write: Keys,
    read: Keys,
    begun: Option<Begun>,
    /// Our key update is to be sent.
    update_due: bool,
    /// The alert to send, as its level and description; nothing is sent after it.
    alert_due: Option<[u8; 2]>,
    /// The alert is out.
    is_over: bool,
    /// Records of the peer in a row that had no application data.
    idle: u8,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("suite", &self.suite).field("begun", &self.begun).finish_non_exhaustive()
    }
}

impl Channel {
    /// A channel with the keys that a handshake left.
    #[must_use]
    pub const fn new(suite: Suite, write: Keys, read: Keys) -> Self {
        Self { suite, write, read, begun: None, update_due: false, alert_due: None, is_over: false, idle: 0 }
    }

    /// What was negotiated.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// Size of a record with `plain` bytes of plaintext, in bytes.
    #[must_use]
    pub const fn record_size(&self, plain: usize) -> usize {
        plain + self.suite.overhead()
    }

    /// The source of the record that the socket took in part, and its plaintext's size: the next
    /// record must be that one again.
    #[must_use]
    pub fn begun(&self) -> Option<(Source, u64)> {
        self.begun.map(|begun| (begun.source, begun.plain.into()))
    }

    /// Bytes of the first record that the socket took before, and that are not to be sent again.
    #[must_use]
    pub fn skip(&self) -> usize {
        self.begun.map_or(0, |begun| begun.sent.into())
    }

    /// Whether application data may be sealed now, with nothing of the channel's own before it.
    #[must_use]
    pub const fn is_at_rest(&self) -> bool {
        self.begun.is_none() && !self.has_own() && !self.is_over
    }

    /// Whether the keys are used up and can't be updated (TLS 1.2): the connection should be closed.
    #[must_use]
    pub const fn is_used_up(&self) -> bool {
        let limit = RECORDS_MAX - RECORDS_SPARE;
        matches!((self.suite.version, self.suite.aead), (Version::Tls12, Aead::Aes128Gcm))
            && (self.write.sequence() >= limit || self.read.sequence() >= limit)
    }

    /// Seals a run of one source into the start of `out`, as the record `ahead` of the next;
    /// returns its size. A record that was begun must be sealed first, and of the same bytes.
    ///
    /// # Errors
    /// [`Broken`]; then nothing of `out` may be sent.
    pub fn seal(&self, ahead: u64, source: Source, run: &[&[u8]], out: &mut [u8]) -> Result<usize, Broken> {
        let content = match source {
            Source::KeyUpdate => Content::Handshake,
            Source::Alert => Content::Alert,
            Source::Control | Source::Outgoing => Content::ApplicationData,
        };
        if self.is_over || self.write.sequence().saturating_add(ahead) >= self.records_max() {
            return Err(Broken);
        }
        let size = record::seal(self.suite, &self.write, ahead, content, run, out).ok_or(Broken)?;
        match self.begun {
            Some(begun) if ahead == 0 => {
                let plain: usize = run.iter().map(|slice| slice.len()).sum();
                let is_same = begun.source == source
                    && usize::from(begun.plain) == plain
                    && out.get(..size).map(record::tag) == Some(begun.tag);
                if is_same { Ok(size) } else { Err(Broken) }
            }
            _ => Ok(size),
        }
    }

    const fn records_max(&self) -> u64 {
        match self.suite.aead {
            Aead::Aes128Gcm => RECORDS_MAX,
            Aead::ChaCha20Poly1305 => u64::MAX,
        }
    }

    /// The socket took `taken` bytes of the records in `sealed`, without the [`skip`](Self::skip)
    /// bytes at their start. `source` gives a record's source by the offset of its plaintext among
    /// that of all.
    pub fn sent(&mut self, sealed: &[u8], taken: usize, source: impl Fn(u64) -> Source) -> Sent {
        let mut sent = Sent::default();
        if taken == 0 {
            return sent;
        }
        let mut gone = taken + self.skip();
        self.begun = None;
        let mut rest = sealed;
        while gone > 0
            && let Ok(Some(size)) = record::size(rest)
            && let Some((record, behind)) = rest.split_at_checked(size)
        {
            ledger::record_sent(&self.write, 0, record);
            let plain = record::plain_size(self.suite, size) as u64;
            if gone < size {
                let (plain, sent_size) = (short(plain), short(gone as u64));
                let source = source(sent.whole);
                self.begun = Some(Begun { source, plain, sent: sent_size, tag: record::tag(record) });
                sent.begun = plain.into();
                break;
            }
            self.write.advance(1);
            sent.whole += plain;
            gone -= size;
            rest = behind;
        }
        if self.suite.version == Version::Tls13 && self.write.sequence() >= self.records_max() - RECORDS_SPARE {
            self.update_due = true;
        }
        sent
    }

    /// Whether a record of the channel's own is to be sent now: before anything else.
    #[must_use]
    pub const fn has_own(&self) -> bool {
        match self.begun {
            Some(begun) => matches!(begun.source, Source::KeyUpdate | Source::Alert),
            None => !self.is_over && (self.update_due || self.alert_due.is_some()),
        }
    }

    /// Seals the record of the channel's own that is next into `out`, which has at least
    /// [`OWN_SIZE_MAX`] bytes; returns its size. It is sent alone, and reported to
    /// [`own_sent`](Self::own_sent).
    ///
    /// # Errors
    /// [`Broken`].
    pub fn own(&self, out: &mut [u8]) -> Result<usize, Broken> {
        match (self.own_source(), self.alert_due) {
            (Source::Alert, Some(alert)) => self.seal(0, Source::Alert, &[&alert], out),
            (Source::KeyUpdate, _) => self.seal(0, Source::KeyUpdate, &[&KEY_UPDATE_MESSAGE], out),
            _ => Err(Broken),
        }
    }

    fn own_source(&self) -> Source {
        let next = if self.update_due { Source::KeyUpdate } else { Source::Alert };
        self.begun.map_or(next, |begun| begun.source)
    }

    /// The socket took `taken` bytes of the channel's own record, without the
    /// [`skip`](Self::skip) bytes at its start; whether it is out as a whole.
    pub fn own_sent(&mut self, sealed: &[u8], taken: usize) -> bool {
        let source = self.own_source();
        let is_whole = self.sent(sealed, taken, |_| source).whole > 0;
        match source {
            Source::KeyUpdate if is_whole => {
                // The peer's requests meanwhile are answered by this one.
                self.update_due = false;
                self.write.update(self.suite);
            }
            Source::Alert if is_whole => self.is_over = true,
            _ => {}
        }
        is_whole
    }

    /// Ends our side: `close_notify` is sent as soon as no record is begun. Whatever the caller has
    /// to send goes before it.
    pub const fn close(&mut self) {
        if self.alert_due.is_none() {
            self.alert_due = Some([WARNING, CLOSE_NOTIFY]);
        }
    }

    /// Sends this alert as soon as no record is begun, and nothing after it.
    pub const fn fail(&mut self, alert: Alert) {
        if self.alert_due.is_none() {
            self.alert_due = Some([FATAL, alert.code()]);
        }
    }

    /// Opens a whole record of the peer in place. After `Input::End` or an error none may be opened.
    ///
    /// # Errors
    /// The alert, which is sent as soon as no record is begun.
    pub fn open(&mut self, record: &mut [u8]) -> Result<Input, Alert> {
        let opened = self.open_record(record);
        if let Err(alert) = opened {
            self.fail(alert);
        }
        opened
    }

    fn open_record(&mut self, record: &mut [u8]) -> Result<Input, Alert> {
        if self.read.sequence() >= self.records_max() {
            return Err(Alert::UnexpectedMessage);
        }
        let (content, range) = record::open(self.suite, &mut self.read, record)?;
        let message = record.get(range.clone()).unwrap_or_default();
        match content {
            Content::ApplicationData if !message.is_empty() => {
                self.idle = 0;
                return Ok(Input::Data(range));
            }
            Content::ApplicationData => {}
            Content::Alert => match *message {
                [_, CLOSE_NOTIFY] => return Ok(Input::End),
                [_, USER_CANCELED] => {}
                [WARNING, _] if self.suite.version == Version::Tls12 => {}
                [_, _] => return Ok(Input::End),
                _ => return Err(Alert::DecodeError),
            },
            Content::Handshake if self.suite.version == Version::Tls13 => self.key_update(message)?,
            Content::Handshake => return Err(Alert::NoRenegotiation),
            Content::ChangeCipherSpec => return Err(Alert::UnexpectedMessage),
        }
        self.idle += 1;
        if self.idle > IDLE_MAX { Err(Alert::UnexpectedMessage) } else { Ok(Input::Nothing) }
    }

    /// The only handshake message that may come. It must end its record (RFC 8446, 5.1).
    fn key_update(&mut self, message: &[u8]) -> Result<(), Alert> {
        match message.split_last() {
            Some((request, start)) if start == KEY_UPDATE && *request <= 1 => {
                self.read.update(self.suite);
                self.update_due |= *request == 1;
                Ok(())
            }
            Some((_, start)) if start == KEY_UPDATE => Err(Alert::IllegalParameter),
            _ => Err(Alert::UnexpectedMessage),
        }
    }
}

fn short(size: u64) -> u16 {
    u16::try_from(size).unwrap_or(u16::MAX)
}
