//! The bytes of a draft: as slices for one `writev`, or as runs for the records of TLS.
//!
//! [`Relay::gather`] collects as much as the kernel is likely to take and ends between two frames,
//! so the kernel mostly takes all of it. [`Relay::run`] collects one run: bytes of one source, as
//! many as fill a record. Slices point into the arena, into the reserve and into the draft's
//! notices: nothing is copied. Knows no socket and no TLS.

use core::ops::Range;

use super::{
    Relay,
    begun::{RUN_SIZE_MAX, Rest},
    draft::{Draft, Lockstep, Segment, What},
    log::Log,
    session::{Half, Pace},
    table::as_usize,
    transmit::Slices,
};

impl Relay {
    /// Collects a draft's bytes as far as `out` has room; returns how many there are.
    pub(super) fn gather_index<'a>(&'a self, page: u32, draft: &'a Draft, out: &mut Slices<'a>) -> u64 {
        if let Some(Lockstep { piece: Some(piece), .. }) = &draft.lockstep
            && out.push(self.store.piece(piece)).is_ok()
        {
            return draft.size;
        }
        let most = self.gather_max(page);
        let mut total = 0;
        for segment in &draft.segments {
            let covered = match segment.what {
                What::Rest => self.gather_rest(page, 0..segment.size, out),
                What::RestOfNotice { from } | What::Notice { from, .. } => {
                    let bytes = draft.notice(from, segment.size);
                    if out.push(bytes).is_ok() { segment.size } else { 0 }
                }
                What::Log { topic, track, is_init, from, to, .. } => {
                    let topic = &self.topics[topic];
                    let log = if is_init { topic.init_log(track) } else { topic.log(track) };
                    let to = if total + segment.size > most { self.gathered_to(log, from, total, most) } else { to };
                    log.slices(&self.store, from, to, out)
                }
            };
            total += covered;
            if covered < segment.size || total >= most {
                break;
            }
        }
        total
    }

    /// Limit for the bytes of one gather, which its last frame may exceed: what the kernel takes
    /// unsent. A page that kept up so far has an empty socket, which takes its whole buffer at once
    /// and saves further calls.
    fn gather_max(&self, page: u32) -> u64 {
        match self.sessions[page].pace {
            Pace::KeepsUp => self.board.send_buffer_size.into(),
            Pace::Newcomer | Pace::CatchesUp => self.board.notsent_size_max.into(),
        }
    }

    /// Collects one run of a draft from its offset `at` on: at most `most` bytes of one source (a
    /// ring, or a notice), which may share a record. A run of a ring ends between two frames,
    /// unless a frame is larger. Returns its size; 0 at the end of what one write should offer.
    pub(super) fn run_index<'a>(
        &'a self,
        page: u32,
        draft: &'a Draft,
        at: u64,
        most: u64,
        out: &mut Slices<'a>,
    ) -> u64 {
        if at > 0 && at >= self.gather_max(page) {
            return 0;
        }
        let most = most.min(self.run_size_max());
        let mut begin = 0;
        for segment in &draft.segments {
            if at < begin + segment.size {
                let from = at - begin;
                return self.run_of(page, draft, segment, from..segment.size.min(from + most), out);
            }
            begin += segment.size;
        }
        0
    }

    /// Collects the bytes of a segment in a range of it; fewer if it would end inside a frame.
    fn run_of<'a>(
        &'a self,
        page: u32,
        draft: &'a Draft,
        segment: &Segment,
        range: Range<u64>,
        out: &mut Slices<'a>,
    ) -> u64 {
        match segment.what {
            What::Rest => self.gather_rest(page, range, out),
            What::RestOfNotice { from } | What::Notice { from, .. } => {
                let bytes = draft.notice(from, segment.size);
                let bytes = bytes.get(as_usize(range.start)..as_usize(range.end)).unwrap_or_default();
                if out.push(bytes).is_ok() { bytes.len() as u64 } else { 0 }
            }
            What::Log { topic, track, is_init, from, .. } => {
                let topic = &self.topics[topic];
                let log = if is_init { topic.init_log(track) } else { topic.log(track) };
                let (begin, mut end) = (from + range.start, from + range.end);
                if range.end < segment.size
                    && let Some(entry) = log.number_at(&self.store, end).and_then(|at| log.entry(&self.store, at))
                    && entry.at > begin
                {
                    end = entry.at;
                }
                log.slices(&self.store, begin, end, out)
            }
        }
    }

    /// Most bytes of one run: a fraction of what a socket keeps unsent, so that a socket which is
    /// writable again takes a whole record.
    fn run_size_max(&self) -> u64 {
        RUN_SIZE_MAX.min(u64::from(self.board.notsent_size_max) / 4)
    }

    /// The end of the frames from an offset on that fit after `total` bytes. A frame that is larger
    /// than the limit goes alone.
    fn gathered_to(&self, log: &Log, from: u64, total: u64, most: u64) -> u64 {
        let Some(number) = log.number_at(&self.store, from + most - total) else { return from };
        match log.entry(&self.store, number) {
            Some(entry) if entry.at > from => entry.at,
            _ if total == 0 => log.entry_end(&self.store, number),
            _ => from,
        }
    }

    /// Collects the bytes of a range of the rest of the frame in progress.
    fn gather_rest<'a>(&'a self, page: u32, range: Range<u64>, out: &mut Slices<'a>) -> u64 {
        let Half::Frame { frame, at, run } = self.sessions[page].half else { return 0 };
        let begin = at - u64::from(run);
        let (from, to) = (begin + range.start, begin + range.end);
        match self.store.begun.rest(frame) {
            Rest::Ring { topic, log } => self.topics[topic].logs[usize::from(log)].slices(&self.store, from, to, out),
            Rest::Kept => self.store.begun.slices(frame, from..to, out),
            Rest::Lost => 0,
        }
    }
}
