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

use super::alert::{Alert, WARNING};
use super::keys::Keys;
use super::ledger;
use super::record::{self, Content, Sealer};
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
/// The two alerts that do no harm, as a peer sends them.
const CLOSE_NOTIFY: u8 = Alert::CloseNotify.code();
const USER_CANCELED: u8 = Alert::UserCanceled.code();

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
    /// Nothing more of the peer is opened.
    is_ended: bool,
}

/// The records of one write, with the key expanded once.
pub struct Sealing<'a> {
    channel: &'a Channel,
    sealer: Sealer<'a>,
}

impl Sealing<'_> {
    /// Seals a run of one source into the start of `out`, as the record `ahead` of the next;
    /// returns its size. A record that was begun must be sealed first, and of the same bytes; one
    /// of the channel's own next.
    ///
    /// # Errors
    /// [`Broken`]; then nothing of `out` may be sent.
    pub fn seal(&self, ahead: u64, source: Source, run: &[&[u8]], out: &mut [u8]) -> Result<usize, Broken> {
        let channel = self.channel;
        let content = match source {
            Source::KeyUpdate => Content::Handshake,
            Source::Alert => Content::Alert,
            Source::Control | Source::Outgoing => Content::ApplicationData,
        };
        if channel.is_over || channel.write.sequence().saturating_add(ahead) >= channel.records_max() {
            return Err(Broken);
        }
        let is_begun = channel.begun.is_some() && ahead == 0;
        if content == Content::ApplicationData && channel.own_waits() && !is_begun {
            return Err(Broken);
        }
        let size = self.sealer.seal(ahead, content, run, out).ok_or(Broken)?;
        match channel.begun {
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
        let (begun, alert_due) = (None, None);
        Self { suite, write, read, begun, update_due: false, alert_due, is_over: false, idle: 0, is_ended: false }
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

    /// Whether keys are used up, so that the connection should be closed: ours, which TLS 1.2 can't
    /// update, or the peer's, which it has not updated.
    #[must_use]
    pub const fn is_used_up(&self) -> bool {
        let limit = RECORDS_MAX - RECORDS_SPARE;
        let is_writing = matches!(self.suite.version, Version::Tls12) && self.write.sequence() >= limit;
        matches!(self.suite.aead, Aead::Aes128Gcm) && (is_writing || self.read.sequence() >= limit)
    }

    /// Begins a write.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn sealing(&self) -> Result<Sealing<'_>, Broken> {
        Ok(Sealing { channel: self, sealer: Sealer::new(self.suite, &self.write).ok_or(Broken)? })
    }

    /// Seals one record, as [`Sealing::seal`] does.
    ///
    /// # Errors
    /// [`Broken`]; then nothing of `out` may be sent.
    pub fn seal(&self, ahead: u64, source: Source, run: &[&[u8]], out: &mut [u8]) -> Result<usize, Broken> {
        self.sealing()?.seal(ahead, source, run, out)
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
            None => self.own_waits(),
        }
    }

    /// Whether a record of the channel's own is next. Of application data only a record that was
    /// begun goes before it (RFC 8446, 4.6.3 and 6.2).
    #[must_use]
    pub const fn own_waits(&self) -> bool {
        !self.is_over && (self.update_due || self.alert_due.is_some())
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
            self.alert_due = Some(Alert::CloseNotify.encode());
        }
    }

    /// Nothing more is sealed or opened. For where nobody knows what has left of the last write:
    /// sealed with other content, a record would put two plaintexts under one nonce, and the guard
    /// can't see what it was not told of.
    pub const fn abandon(&mut self) {
        self.begun = None;
        self.is_over = true;
        self.is_ended = true;
    }

    /// Whether nothing more is sealed: our alert is out, a fatal one has come, or the channel was
    /// abandoned.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Sends this alert as soon as no record is begun, and nothing after it.
    pub const fn fail(&mut self, alert: Alert) {
        self.is_ended = true;
        if self.alert_due.is_none() {
            self.alert_due = Some(alert.encode());
        }
    }

    /// Whether the peer has ended its side, or broke the protocol.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Opens a whole record of the peer in place. Behind the end, and after an error, none is
    /// opened.
    ///
    /// # Errors
    /// The alert, which is sent as soon as no record is begun.
    pub fn open(&mut self, record: &mut [u8]) -> Result<Input, Alert> {
        if self.is_ended {
            return Ok(Input::End);
        }
        let opened = self.open_record(record);
        match opened {
            Ok(Input::End) => self.is_ended = true,
            Ok(_) => {}
            Err(alert) => self.fail(alert),
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
                [WARNING, _] if self.suite.version == Version::Tls12 => {}
                [_, USER_CANCELED] if self.suite.version == Version::Tls13 => {}
                [_, _] => {
                    // Nothing is sent behind a fatal alert, by either side (RFC 8446, 6.2).
                    self.abandon();
                    return Ok(Input::End);
                }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::vec::Vec;

    use super::*;

    const SUITES: [Suite; 4] = [
        Suite { version: Version::Tls13, aead: Aead::Aes128Gcm },
        Suite { version: Version::Tls13, aead: Aead::ChaCha20Poly1305 },
        Suite { version: Version::Tls12, aead: Aead::Aes128Gcm },
        Suite { version: Version::Tls12, aead: Aead::ChaCha20Poly1305 },
    ];
    const TLS13: Suite = SUITES[0];
    /// The level of an alert that ends the connection.
    const FATAL: u8 = 2;

    /// A channel, and the keys of its peer: to read what it writes, and to write what it reads.
    struct Ends {
        suite: Suite,
        channel: Channel,
        read: Keys,
        write: Keys,
    }

    impl Ends {
        fn new(suite: Suite) -> Self {
            // Other keys for each: the ledger knows those of all tests.
            static KEYS: AtomicU32 = AtomicU32::new(0);
            let number = KEYS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            let keys = |side| {
                let mut secret = [side; 32];
                secret[..4].copy_from_slice(&number);
                Keys::from_secret(suite, secret)
            };
            Self { suite, channel: Channel::new(suite, keys(0), keys(1)), read: keys(0), write: keys(1) }
        }

        /// A record of the peer.
        fn record(&mut self, content: Content, plain: &[u8]) -> Vec<u8> {
            let mut record = [0; 256];
            let size = record::seal(self.suite, &self.write, 0, content, &[plain], &mut record).unwrap();
            self.write.advance(1);
            record[..size].to_vec()
        }

        fn hear(&mut self, content: Content, plain: &[u8]) -> Result<Input, Alert> {
            let mut record = self.record(content, plain);
            self.channel.open(&mut record)
        }

        /// What the peer reads in these records, which are whole.
        fn opened(&mut self, mut bytes: &[u8]) -> Vec<(Content, Vec<u8>)> {
            let mut opened = Vec::new();
            while let Some(size) = record::size(bytes).unwrap() {
                let mut record = bytes[..size].to_vec();
                let (content, range) = record::open(self.suite, &mut self.read, &mut record).unwrap();
                if content == Content::Handshake {
                    self.read.update(self.suite);
                }
                opened.push((content, record[range].to_vec()));
                bytes = &bytes[size..];
            }
            opened
        }

        /// Sends the channel's own record by a socket that takes `step` bytes at a time.
        fn own(&mut self, step: usize) -> Vec<u8> {
            let mut wire = Vec::new();
            while self.channel.has_own() {
                let mut out = [0; OWN_SIZE_MAX];
                let size = self.channel.own(&mut out).unwrap();
                let rest = &out[self.channel.skip()..size];
                let taken = step.min(rest.len());
                wire.extend(&rest[..taken]);
                self.channel.own_sent(&out[..size], taken);
            }
            wire
        }
    }

    fn seal_all(channel: &Channel, runs: &[&[u8]], source: Source) -> Vec<u8> {
        let mut sealed = Vec::new();
        for (ahead, run) in (0..).zip(runs) {
            let from = sealed.len();
            sealed.resize(from + channel.record_size(run.len()), 0);
            channel.seal(ahead, source, &[run], &mut sealed[from..]).unwrap();
        }
        sealed
    }

    #[test]
    fn a_record_that_is_cut_anywhere_is_sealed_again_and_those_behind_it_may_change() {
        let runs: [&[u8]; 3] = [b"first", b"second, longer", b"3"];
        for suite in SUITES {
            let whole = runs.iter().map(|run| run.len() + suite.overhead()).sum::<usize>();
            for cut in 1..whole {
                let mut ends = Ends::new(suite);
                let sealed = seal_all(&ends.channel, &runs, Source::Outgoing);
                assert_eq!(sealed.len(), whole);
                let Sent { whole, begun } = ends.channel.sent(&sealed, cut, |_| Source::Outgoing);
                let mut wire = sealed[..cut].to_vec();
                let at = runs.iter().scan(0, |at, run| Some(std::mem::replace(at, *at + run.len() as u64)));
                let index = at.take_while(|at| at < &(whole + begun)).count() - usize::from(begun > 0);
                let mut again = Vec::new();
                if begun > 0 {
                    assert_eq!(begun, runs[index].len() as u64);
                    assert_eq!(ends.channel.begun(), Some((Source::Outgoing, begun)));
                    again.push(runs[index]);
                }
                again.push(b"other bytes than before");
                let sealed = seal_all(&ends.channel, &again, Source::Outgoing);
                let rest = &sealed[ends.channel.skip()..];
                wire.extend(rest);
                let sent = ends.channel.sent(&sealed, rest.len(), |_| Source::Outgoing);
                assert_eq!((sent.begun, ends.channel.begun()), (0, None));
                let mut expected: Vec<&[u8]> = runs[..index].to_vec();
                expected.extend(again);
                let opened = ends.opened(&wire);
                let read: Vec<_> = opened.iter().map(|(_, plain)| &plain[..]).collect();
                assert_eq!(read, expected, "{suite:?}, cut after {cut} bytes");
            }
        }
    }

    #[test]
    fn a_begun_record_is_never_sealed_of_other_bytes_or_of_another_source() {
        for suite in SUITES {
            let mut ends = Ends::new(suite);
            let sealed = seal_all(&ends.channel, &[b"begun"], Source::Outgoing);
            assert_eq!(ends.channel.sent(&sealed, 1, |_| Source::Outgoing), Sent { whole: 0, begun: 5 });
            let mut out = [0; 64];
            for (source, run) in [
                (Source::Outgoing, &b"begum"[..]),
                (Source::Outgoing, b"begu"),
                (Source::Outgoing, b"begun!"),
                (Source::Outgoing, b""),
                (Source::Control, b"begun"),
            ] {
                assert_eq!(ends.channel.seal(0, source, &[run], &mut out), Err(Broken), "{source:?} {run:?}");
            }
            // Slices don't matter, and nothing of the channel's own goes before it.
            ends.channel.close();
            assert!(!ends.channel.has_own() && !ends.channel.is_at_rest());
            assert_eq!(ends.channel.seal(0, Source::Outgoing, &[b"be", b"gun"], &mut out), Ok(sealed.len()));
            assert_eq!(out[..sealed.len()], sealed);
            ends.channel.sent(&sealed, sealed.len() - 1, |_| Source::Outgoing);
            assert!(ends.channel.has_own());
        }
    }

    #[test]
    #[should_panic(expected = "two plaintexts were sent")]
    fn the_ledger_finds_a_sequence_that_is_used_twice() {
        let mut ends = Ends::new(TLS13);
        for run in [b"one", b"two"] {
            let sealed = seal_all(&ends.channel, &[run], Source::Outgoing);
            // A bug would be to forget that the record was begun.
            ends.channel.sent(&sealed, 1, |_| Source::Outgoing);
            ends.channel.begun = None;
        }
    }

    #[test]
    fn a_key_update_changes_the_keys_once_it_is_out_as_a_whole_wherever_it_is_cut() {
        for step in 1..40 {
            let mut ends = Ends::new(TLS13);
            let mut wire = seal_all(&ends.channel, &[b"before"], Source::Outgoing);
            ends.channel.sent(&wire.clone(), wire.len(), |_| Source::Outgoing);
            // Several requests are answered by one.
            for _ in 0..3 {
                assert_eq!(ends.hear(Content::Handshake, &[24, 0, 0, 1, 1]), Ok(Input::Nothing));
                ends.write.update(TLS13);
            }
            wire.extend(ends.own(step));
            let behind = seal_all(&ends.channel, &[b"behind"], Source::Outgoing);
            ends.channel.sent(&behind, behind.len(), |_| Source::Outgoing);
            wire.extend(behind);
            let read = ends.opened(&wire);
            let plain: Vec<_> = read.iter().map(|(content, plain)| (*content, &plain[..])).collect();
            assert_eq!(
                plain,
                [
                    (Content::ApplicationData, &b"before"[..]),
                    (Content::Handshake, &[24, 0, 0, 1, 0]),
                    (Content::ApplicationData, b"behind")
                ],
                "in steps of {step}"
            );
            // The peer's own direction has new keys too.
            assert!(matches!(ends.hear(Content::ApplicationData, b"x"), Ok(Input::Data(_))));
        }
    }

    #[test]
    fn our_key_update_becomes_due_before_a_key_is_used_up() {
        for suite in SUITES {
            let mut ends = Ends::new(suite);
            for keys in [&mut ends.channel.write, &mut ends.read] {
                keys.advance(RECORDS_MAX - RECORDS_SPARE - 1);
            }
            let sealed = seal_all(&ends.channel, &[b"x"], Source::Outgoing);
            assert!(!ends.channel.has_own() && !ends.channel.is_used_up());
            ends.channel.sent(&sealed, sealed.len(), |_| Source::Outgoing);
            let is_aes = suite.aead == Aead::Aes128Gcm;
            assert_eq!(ends.channel.has_own(), is_aes && suite.version == Version::Tls13, "{suite:?}");
            assert_eq!(ends.channel.is_used_up(), is_aes && suite.version == Version::Tls12, "{suite:?}");
            let wire = ends.own(7);
            assert_eq!(ends.channel.write.sequence() == 0, !wire.is_empty());
            // Whoever goes on all the same is stopped.
            ends.channel.write.advance(RECORDS_MAX);
            let more = ends.channel.seal(0, Source::Outgoing, &[b"x"], &mut [0; 64]);
            assert_eq!(more.is_err(), is_aes, "{suite:?}");
        }
    }

    #[test]
    fn a_peer_that_never_updates_its_keys_is_used_up_in_time() {
        for suite in SUITES {
            let mut ends = Ends::new(suite);
            for keys in [&mut ends.channel.read, &mut ends.write] {
                keys.advance(RECORDS_MAX - RECORDS_SPARE - 1);
            }
            assert!(!ends.channel.is_used_up());
            assert!(matches!(ends.hear(Content::ApplicationData, b"x"), Ok(Input::Data(_))));
            let is_aes = suite.aead == Aead::Aes128Gcm;
            assert_eq!(ends.channel.is_used_up(), is_aes, "{suite:?}");
            // There is time to close, and the peer may still update.
            assert!(matches!(ends.hear(Content::ApplicationData, b"x"), Ok(Input::Data(_))));
            if suite.version == Version::Tls13 {
                assert_eq!(ends.hear(Content::Handshake, &[24, 0, 0, 1, 0]), Ok(Input::Nothing));
                ends.write.update(suite);
                assert!(!ends.channel.is_used_up());
            }
            for keys in [&mut ends.channel.read, &mut ends.write] {
                keys.advance(RECORDS_MAX - keys.sequence().min(RECORDS_MAX));
            }
            assert_eq!(ends.hear(Content::ApplicationData, b"x").is_err(), is_aes);
        }
    }

    #[test]
    fn no_application_data_goes_before_our_answer_to_a_key_update_except_what_was_begun() {
        for begins in [false, true] {
            let mut ends = Ends::new(TLS13);
            let sealed = seal_all(&ends.channel, &[b"begun"], Source::Outgoing);
            ends.channel.sent(&sealed, usize::from(begins), |_| Source::Outgoing);
            assert_eq!(ends.hear(Content::Handshake, &[24, 0, 0, 1, 1]), Ok(Input::Nothing));
            let seal = |ends: &Ends, ahead| ends.channel.seal(ahead, Source::Outgoing, &[b"begun"], &mut [0; 64]);
            assert_eq!(seal(&ends, 0).is_ok(), begins);
            assert!(ends.channel.own_waits() && ends.channel.has_own() != begins);
            assert_eq!(seal(&ends, 1), Err(Broken), "a record behind it");
            if begins {
                ends.channel.sent(&sealed, sealed.len() - 1, |_| Source::Outgoing);
            }
            assert!(!ends.own(64).is_empty() && seal(&ends, 0).is_ok() && seal(&ends, 1).is_ok());
        }
    }

    #[test]
    fn a_channel_of_which_nobody_knows_what_left_seals_and_opens_nothing() {
        for (suite, begins) in SUITES.into_iter().flat_map(|suite| [(suite, false), (suite, true)]) {
            let mut ends = Ends::new(suite);
            let sealed = seal_all(&ends.channel, &[b"x"], Source::Outgoing);
            ends.channel.sent(&sealed, usize::from(begins), |_| Source::Outgoing);
            ends.channel.abandon();
            ends.channel.close();
            ends.channel.fail(Alert::InternalError);
            assert!(ends.channel.is_over() && !ends.channel.has_own() && !ends.channel.is_at_rest());
            for source in [Source::Outgoing, Source::Control, Source::Alert, Source::KeyUpdate] {
                assert_eq!(ends.channel.seal(0, source, &[b"x"], &mut [0; 64]), Err(Broken));
            }
            assert_eq!(ends.hear(Content::ApplicationData, b"x"), Ok(Input::End));
        }
    }

    #[test]
    fn close_notify_goes_last_and_nothing_behind_it() {
        for suite in SUITES {
            let mut ends = Ends::new(suite);
            let mut wire = seal_all(&ends.channel, &[b"last"], Source::Outgoing);
            ends.channel.sent(&wire.clone(), wire.len(), |_| Source::Outgoing);
            ends.channel.close();
            assert!(!ends.channel.is_at_rest());
            wire.extend(ends.own(3));
            let read = ends.opened(&wire);
            assert_eq!(read[0], (Content::ApplicationData, b"last".to_vec()));
            assert_eq!(read[1..], [(Content::Alert, [WARNING, CLOSE_NOTIFY].to_vec())]);
            assert!(!ends.channel.has_own() && !ends.channel.is_at_rest());
            assert_eq!(ends.channel.seal(0, Source::Outgoing, &[b"more"], &mut [0; 64]), Err(Broken));
        }
    }

    #[test]
    fn what_may_not_come_ends_the_connection_with_its_alert() {
        let update = |request| [24, 0, 0, 1, request];
        for suite in SUITES {
            let is_13 = suite.version == Version::Tls13;
            let hello = if is_13 { Alert::UnexpectedMessage } else { Alert::NoRenegotiation };
            let mut cases = std::vec![
                (Content::Handshake, [1, 0, 0, 1, 0].to_vec(), hello),
                (Content::Alert, [2].to_vec(), Alert::DecodeError),
                (Content::Alert, [2, 0, 0].to_vec(), Alert::DecodeError),
            ];
            if is_13 {
                cases.push((Content::Handshake, update(2).to_vec(), Alert::IllegalParameter));
                cases.push((Content::Handshake, update(0)[..4].to_vec(), Alert::UnexpectedMessage));
                cases.push((Content::Handshake, [update(0), update(0)].concat(), Alert::UnexpectedMessage));
            }
            for (content, plain, alert) in cases {
                let mut ends = Ends::new(suite);
                assert_eq!(ends.hear(content, &plain), Err(alert), "{suite:?} {content:?} {plain:?}");
                let wire = ends.own(64);
                // RFC 5246, 7.2.2: a refused renegotiation is always a warning.
                let level = if alert == Alert::NoRenegotiation { WARNING } else { FATAL };
                assert_eq!(ends.opened(&wire), [(Content::Alert, [level, alert.code()].to_vec())]);
            }
            // A record that was changed on its way.
            let mut ends = Ends::new(suite);
            let mut record = ends.record(Content::ApplicationData, b"hello");
            *record.last_mut().unwrap() ^= 1;
            assert_eq!(ends.channel.open(&mut record), Err(Alert::BadRecordMac));
        }
    }

    #[test]
    fn the_peer_may_end_and_may_not_flood_with_nothing() {
        for suite in SUITES {
            for (end, is_answered) in
                [([WARNING, CLOSE_NOTIFY], true), ([FATAL, CLOSE_NOTIFY], true), ([FATAL, 80], false)]
            {
                let mut ends = Ends::new(suite);
                assert_eq!(ends.hear(Content::Alert, &end), Ok(Input::End));
                ends.channel.close();
                assert_eq!(ends.channel.has_own(), is_answered, "{suite:?} {end:?}");
            }
            // TLS 1.3 ignores the level.
            let is_over = suite.version == Version::Tls12;
            let canceled = Ends::new(suite).hear(Content::Alert, &[FATAL, USER_CANCELED]);
            assert_eq!(canceled, Ok(if is_over { Input::End } else { Input::Nothing }));
            let mut ends = Ends::new(suite);
            let nothing = |ends: &mut Ends| match suite.version {
                Version::Tls13 => {
                    let heard = ends.hear(Content::Handshake, &[24, 0, 0, 1, 0]);
                    ends.write.update(suite);
                    heard
                }
                Version::Tls12 => ends.hear(Content::ApplicationData, b""),
            };
            for _ in 0..3 {
                for _ in 0..IDLE_MAX {
                    assert_eq!(nothing(&mut ends), Ok(Input::Nothing));
                }
                assert!(matches!(ends.hear(Content::ApplicationData, b"x"), Ok(Input::Data(_))));
            }
            for _ in 0..IDLE_MAX {
                assert_eq!(ends.hear(Content::Alert, &[WARNING, USER_CANCELED]), Ok(Input::Nothing));
            }
            assert_eq!(ends.hear(Content::ApplicationData, b""), Err(Alert::UnexpectedMessage));
        }
    }
}
