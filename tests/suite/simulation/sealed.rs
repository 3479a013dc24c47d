//! A page behind TLS: the relay's own record layer and its order of records (`tls::writing`) on a
//! socket that takes any number of bytes, and a peer that opens the records.

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

use tls::channel::{Channel, Input, OWN_SIZE_MAX, Source};
use tls::keys::Keys;
use tls::record::{self, Content};
use tls::suite::{Aead, Suite, Version};
use tls::writing::{self, SCRATCH_SIZE_MIN};

use relay::Relay;
use relay::begun::RUN_SIZE_MAX;
use relay::draft::Draft;
use relay::session::Session;
use relay::table::Id;
use relay::time::Jitter;
use relay::transmit::{Progress, Slices};

use super::ensure;
use super::page::Page;

/// A pong with three bytes: what a page's ping puts into the control slot.
const PONG: [u8; 5] = [0x8a, 3, b'a', b'b', b'c'];
/// A key update that asks for ours.
const UPDATE: [u8; 5] = [24, 0, 0, 1, 1];

static KEYS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_SIZE_MIN]);
}

/// Both ends of one page's TLS.
pub struct Sealed {
    suite: Suite,
    channel: Channel,
    /// The peer's keys to open and to seal.
    peer_read: Keys,
    peer_write: Keys,
    /// What has come out of the socket: less than a whole record.
    wire: Vec<u8>,
    control: Vec<u8>,
    /// The plaintext of the record that was begun.
    begun: Vec<u8>,
    pub resealed: u64,
}

/// What one write did.
pub struct Wrote {
    pub progress: Progress,
    /// Whether the socket took everything offered.
    pub is_whole: bool,
    /// The frames' bytes in the records that arrived as a whole.
    pub plain: Vec<u8>,
    /// What was sealed, record by record.
    pub runs: Vec<Vec<u8>>,
}

impl Sealed {
    pub fn new(rng: &mut Jitter) -> Self {
        let suites = [
            (Version::Tls13, Aead::Aes128Gcm),
            (Version::Tls13, Aead::ChaCha20Poly1305),
            (Version::Tls12, Aead::Aes128Gcm),
            (Version::Tls12, Aead::ChaCha20Poly1305),
        ];
        let (version, aead) = suites[rng.below(4) as usize];
        let suite = Suite { version, aead };
        // Never the same twice in this process: seeds run again, and the ledger knows all keys.
        let secret = || {
            let mut secret = [0; 32];
            secret[..8].copy_from_slice(&KEYS.fetch_add(1, Ordering::Relaxed).to_be_bytes());
            secret
        };
        let (ours, theirs) = (secret(), secret());
        let keys = |secret| Keys::from_secret(suite, secret);
        Self {
            suite,
            channel: Channel::new(suite, keys(ours), keys(theirs)),
            peer_read: keys(ours),
            peer_write: keys(theirs),
            wire: Vec::new(),
            control: Vec::new(),
            begun: Vec::new(),
            resealed: 0,
        }
    }

    /// Whether a record with frames was begun: then the relay is inside one, as it sees it.
    pub fn is_inside(&self) -> bool {
        matches!(self.channel.begun(), Some((Source::Outgoing, _)))
    }

    /// The size of what must be kept for this page if its ring passes: the frame that it is inside,
    /// `most` if the header doesn't show it, or its record. Another page may have begun a longer
    /// record that ends in the same place: at most `run_max`.
    pub fn kept_size(&self, page: &Page, most: u64, run_max: u64) -> u64 {
        let inside = page.half_frame(most).max(page.half_frame_with(&self.begun, most));
        if self.is_inside() { inside.max(run_max) } else { inside }
    }

    /// The peer sends a ping or a key update.
    pub fn disturb(&mut self, rng: &mut Jitter) -> Result<(), String> {
        if self.control.len() < 2 * PONG.len() && rng.below(4) == 0 {
            self.control.extend(PONG);
        }
        if self.suite.version == Version::Tls13 && rng.below(8) == 0 {
            let mut record = [0; OWN_SIZE_MAX];
            let size = record::seal(self.suite, &self.peer_write, 0, Content::Handshake, &[&UPDATE], &mut record);
            self.peer_write.update(self.suite);
            let record = record.get_mut(..size.unwrap_or(0)).unwrap_or_default();
            ensure!(self.channel.open(record) == Ok(Input::Nothing), "a key update was refused");
        }
        Ok(())
    }

    /// One write, of which the socket takes what `take` says of what is offered.
    pub fn write(
        &mut self,
        relay: &Relay,
        id: Id<Session>,
        draft: &Draft,
        mut take: impl FnMut(u64) -> u64,
    ) -> Result<Wrote, String> {
        let control = if draft.is_between_frames() { &self.control[..] } else { &[] };
        // What is sealed, record by record; of the channel's own nothing.
        let begun = self.channel.begun();
        let mut runs: Vec<Vec<u8>> = match begun {
            Some((Source::Outgoing, _)) => Vec::new(),
            Some((Source::Control, size)) => {
                [&control[..size as usize], &control[size as usize..]].map(Vec::from).into()
            }
            _ => vec![control.to_vec()],
        };
        runs.retain(|run| !run.is_empty());
        let (mut wire, mut slices) = (Vec::new(), Slices::new());
        let mut planned = 0;
        let next = |at, most, seal: &mut dyn FnMut(&[&[u8]])| {
            slices.clear();
            let size = relay.run(id, draft, at, most, &mut slices);
            if size > 0 {
                runs.push(slices.concat());
                seal(&slices);
            }
            planned += size;
            size
        };
        let send = |bytes: &[u8]| {
            let taken = take(bytes.len() as u64) as usize;
            wire.extend_from_slice(&bytes[..taken]);
            Ok::<_, Infallible>(taken)
        };
        let had_own = self.channel.own_waits();
        let written = SCRATCH
            .with_borrow_mut(|scratch| writing::write(&mut self.channel, control, RUN_SIZE_MAX, scratch, send, next));
        let written = written.map_err(|failed| format!("page {id}: a record was not sealed: {failed:?}"))?;
        let is_stopped = self.channel.has_own() || had_own && matches!(begun, Some((Source::Control, _)));
        ensure!(draft.is_empty() || planned > 0 || is_stopped, "page {id} has a plan without a run");
        if matches!(begun, Some((Source::Control | Source::Outgoing, _))) {
            self.resealed += 1;
            ensure!(runs.first() == Some(&self.begun), "page {id}: a record was begun with other bytes");
        }
        let mut plain = Vec::new();
        self.receive(&wire, &mut plain)?;
        let mut left = written.control + written.size - written.begun;
        let behind = runs.iter().find(|run| {
            let is_whole = left >= run.len() as u64;
            left -= if is_whole { run.len() as u64 } else { 0 };
            !is_whole
        });
        let is_begun = matches!(self.channel.begun(), Some((Source::Control | Source::Outgoing, _)));
        self.begun = behind.filter(|_| is_begun).cloned().unwrap_or_default();
        self.control.drain(..written.control as usize);
        let progress = Progress { size: written.size, begun: written.begun, socket: written.socket };
        Ok(Wrote { progress, is_whole: written.is_whole, plain, runs })
    }

    /// The peer opens the whole records.
    fn receive(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), String> {
        self.wire.extend_from_slice(bytes);
        while let Some(size) = record::size(&self.wire).map_err(|alert| alert.to_string())?
            && size <= self.wire.len()
        {
            let mut record: Vec<u8> = self.wire.drain(..size).collect();
            let opened = record::open(self.suite, &mut self.peer_read, &mut record);
            let (content, range) = opened.map_err(|alert| format!("the peer can't open a record: {alert}"))?;
            match content {
                Content::ApplicationData => plain.extend(&record[range]),
                Content::Handshake => self.peer_read.update(self.suite),
                _ => return Err(format!("a record of {content:?}")),
            }
        }
        Ok(())
    }
}
