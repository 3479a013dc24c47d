//! One write to one connection: which records go out, in which order, and what became of them.
//!
//! A record that was begun goes before all others. Then the channel's own, then the control slot,
//! then the caller's runs. Everything is sealed into the caller's scratch and handed to the socket
//! at once; what the socket doesn't take is forgotten. The socket is a function, so that the
//! simulation writes by this code too. Doesn't know what control slot and runs say.

use crate::channel::{Broken, Channel, OWN_SIZE_MAX, Sent, Source};

/// Sealed bytes of one write, at most: what a socket takes at once.
const WRITE_SIZE_MAX: usize = 64 * 1024;
/// The same for a socket that was full in the middle of a record: then it takes about
/// `TCP_NOTSENT_LOWAT`, and the rest is sealed in vain.
pub const WRITE_AGAIN_SIZE_MAX: usize = 16 * 1024;
/// Size of a scratch that holds whatever one write seals, in bytes.
pub const SCRATCH_SIZE_MIN: usize = WRITE_SIZE_MAX;

/// What a write did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the control slot that are out.
    pub control: u64,
    /// The runs' bytes: of records that are out as a whole, and of the one that was begun.
    pub size: u64,
    /// Of these, those of the record that was begun.
    pub begun: u64,
    /// Bytes that the socket took.
    pub socket: u64,
    /// Sealed bytes beyond those that the socket took: it took none of them, or had them before.
    pub vain: u64,
    /// Whether the socket took everything offered.
    pub is_whole: bool,
}

/// Why nothing more can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed<E> {
    /// A record can't be sealed as it was begun.
    Broken,
    /// An alert is out, or the channel was abandoned.
    Over,
    /// The socket failed, and nobody knows what it took.
    Socket(E),
}

impl<E> From<Broken> for Failed<E> {
    fn from(_: Broken) -> Self {
        Self::Broken
    }
}

/// Writes. `next` is given the offset of a run, its size at most, and a function that seals its
/// slices; it returns the run's size, 0 if there is no more. A record that was begun is asked for
/// by its size, and must have the same bytes. A run has at most `run_max` bytes. `send` returns how
/// many bytes the socket took. `scratch` has at least [`SCRATCH_SIZE_MIN`] bytes.
///
/// # Errors
/// Nothing more can be sent; after an error of the socket the channel is abandoned.
pub fn write<E>(
    channel: &mut Channel,
    control: &[u8],
    run_max: u64,
    scratch: &mut [u8],
    mut send: impl FnMut(&[u8]) -> Result<usize, E>,
    next: impl FnMut(u64, u64, &mut dyn FnMut(&[&[u8]])) -> u64,
) -> Result<Written, Failed<E>> {
    let (is_out, own) = write_own(channel, scratch, &mut send)?;
    if !is_out {
        return Ok(Written { socket: own, ..Written::default() });
    }
    if channel.is_over() {
        return Err(Failed::Over);
    }
    // A run's record that was begun goes before a control frame.
    let is_begun = matches!(channel.begun(), Some((Source::Outgoing, _)));
    let control = if is_begun { &[] } else { control };
    let size = seal_all(channel, control, run_max, scratch, next)?;
    let sealed = scratch.get(..size).unwrap_or_default();
    let offered = sealed.get(channel.skip()..).unwrap_or_default();
    let taken = sent_to(channel, offered, &mut send)?;
    let of_control = control.len() as u64;
    let source = |at| if at < of_control { Source::Control } else { Source::Outgoing };
    let Sent { whole, begun } = channel.sent(sealed, taken, source);
    let vain = (sealed.len() - taken) as u64;
    let is_taken = taken == offered.len();
    // One of the channel's own may have waited for the end of a record that was begun.
    let (is_whole, behind) = if is_taken { write_own(channel, scratch, &mut send)? } else { (false, 0) };
    let (size, begun) = match whole.checked_sub(of_control) {
        Some(of_runs) => (of_runs + begun, begun),
        None => (0, 0),
    };
    Ok(Written { control: whole.min(of_control), size, begun, socket: own + taken as u64 + behind, vain, is_whole })
}

/// Sends the channel's own records; whether they are out, and the bytes that the socket took.
///
/// # Errors
/// As for [`write`].
pub fn write_own<E>(
    channel: &mut Channel,
    scratch: &mut [u8],
    mut send: impl FnMut(&[u8]) -> Result<usize, E>,
) -> Result<(bool, u64), Failed<E>> {
    let mut all = 0;
    while channel.has_own() {
        let out = scratch.get_mut(..OWN_SIZE_MAX).unwrap_or_default();
        let size = channel.own(out)?;
        let sealed = out.get(..size).unwrap_or_default();
        let taken = sent_to(channel, sealed.get(channel.skip()..).unwrap_or_default(), &mut send)?;
        all += taken as u64;
        if !channel.own_sent(sealed, taken) {
            return Ok((false, all));
        }
    }
    Ok((true, all))
}

fn sent_to<E>(
    channel: &mut Channel,
    bytes: &[u8],
    send: &mut impl FnMut(&[u8]) -> Result<usize, E>,
) -> Result<usize, Failed<E>> {
    send(bytes).map_err(|error| {
        channel.abandon();
        Failed::Socket(error)
    })
}

/// Seals the records of one write; returns their size.
fn seal_all(
    channel: &Channel,
    control: &[u8],
    run_max: u64,
    scratch: &mut [u8],
    mut next: impl FnMut(u64, u64, &mut dyn FnMut(&[&[u8]])) -> u64,
) -> Result<usize, Broken> {
    let sealing = channel.sealing()?;
    let begun = channel.begun();
    let records_max = if channel.own_waits() { 1 } else { u64::MAX };
    let (mut filled, mut ahead, mut at) = (0, 0, 0);
    while at < control.len() && ahead < records_max {
        // What was put into the slot behind a begun record goes into the next.
        let size = match begun {
            Some((Source::Control, size)) if at == 0 => small(size),
            _ => control.len() - at,
        };
        let run = control.get(at..at + size).ok_or(Broken)?;
        filled += sealing.seal(ahead, Source::Control, &[run], scratch.get_mut(filled..).ok_or(Broken)?)?;
        (at, ahead) = (at + size, ahead + 1);
    }
    let size_max = if begun.is_some() { WRITE_AGAIN_SIZE_MAX } else { WRITE_SIZE_MAX };
    let record_size_max = channel.record_size(small(run_max));
    let mut at = 0;
    while filled + record_size_max <= size_max && ahead < records_max {
        let most = match begun {
            Some((Source::Outgoing, size)) if at == 0 => size,
            _ => run_max,
        };
        let mut sealed = Err(Broken);
        let size = next(at, most, &mut |run| {
            let out = scratch.get_mut(filled..).unwrap_or_default();
            sealed = sealing.seal(ahead, Source::Outgoing, run, out);
        });
        if size == 0 {
            break;
        }
        filled += sealed?;
        (at, ahead) = (at + size, ahead + 1);
    }
    Ok(filled)
}

fn small(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}
