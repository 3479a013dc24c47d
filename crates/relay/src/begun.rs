//! Partly sent frames, and the copies kept of them once their ring has overwritten them.
//!
//! Once part of a frame is sent, WebSocket allows only to finish it or to cut the connection. Pages
//! of one burst stop inside the same few frames, so [`Begun`] has one row for each such frame,
//! shared by its pages. Before the ring overwrites such a frame, the bytes from the lowest offset
//! needed are copied into the reserve, once for all pages, which finish the frame from there and
//! then get a `gap`. A row's bytes never change while the row exists. If the reserve is full, the
//! frame whose pages made no progress for the longest time is evicted and they are cut. Never
//! grows. Doesn't know pages, only how many are inside a frame; the rings call it (`log.rs`).

use alloc::vec;

use heapless::Vec;

use super::{
    reserve::Reserve,
    table::{NONE, Table},
    time::Stamp,
};

/// A frame that some pages are inside: they were sent a part of it. Over TLS it may begin with
/// frames before it that are in the same record.
#[derive(Debug)]
struct Frame {
    /// The lowest offset in the ring that a page still needs.
    from: u64,
    /// The frame's end.
    end: u64,
    /// The ring: the topic's row, and the index of the log in the topic.
    topic: u32,
    log: u8,
    place: Place,
    /// How many pages are inside.
    pages: u32,
    /// When a page last entered it or made progress in it.
    touched: Stamp,
    /// The neighbours in the list: in the ring's list, ordered by end, or in the list of kept
    /// frames, ordered by `touched`.
    older: u32,
    newer: u32,
}

/// Where a frame's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the ring.
    Ring,
    /// In the reserve, starting at this block.
    Kept(u32),
    /// Nowhere: the reserve had no room.
    Lost,
}

/// Where the rest of a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// In its ring.
    Ring {
        /// The topic's row.
        topic: u32,
        /// The index of the log in the topic.
        log: u8,
    },
    /// In the reserve.
    Kept,
    /// Nowhere: the connection has to be cut.
    Lost,
}

/// Most bytes that go into one record over TLS: with its overhead it fills a block of 4 KiB.
pub const RUN_SIZE_MAX: u64 = 4096 - 32;

/// The two ends of a list of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    oldest: u32,
    newest: u32,
}

impl Ends {
    /// An empty list.
    #[must_use]
    pub const fn none() -> Self {
        Self { oldest: NONE, newest: NONE }
    }
}

/// The frames that pages are inside.
#[derive(Debug)]
pub struct Begun {
    frames: Table<Frame>,
    /// Frames in the reserve, those without progress for the longest time first.
    kept: Ends,
    reserve: Reserve,
    counts: Counts,
}

/// Counts of overtaken frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames that were kept in the reserve.
    pub kept: u64,
    /// Frames that were lost because the reserve was full: their pages are cut.
    pub lost: u64,
}

impl Begun {
    /// The size of one row, bytes.
    pub const ROW_SIZE: usize = Table::<Frame>::ROW_SIZE;

    /// Room for as many frames as there are pages, and a reserve of `blocks_max` blocks for those
    /// that are overtaken.
    #[must_use]
    pub fn new(pages_max: u32, block_size: u32, blocks_max: u32) -> Self {
        Self {
            frames: Table::new(pages_max),
            kept: Ends::none(),
            reserve: Reserve::new(block_size, blocks_max),
            counts: Counts::default(),
        }
    }

    /// A page stopped inside a frame of a ring; `from` is the first byte that it lacks, and `ring`
    /// the ring's list. Returns the frame's row. `None` only if the table is full, which can't
    /// happen: it has a row for each page, and a page is inside one frame at a time.
    pub fn enter(&mut self, ring: &mut Ends, (topic, log): (u32, u8), from: u64, end: u64, now: Stamp) -> Option<u32> {
        // Nearly all pages are inside the newest few frames.
        let mut older = ring.newest;
        while let Some(frame) = self.frames.get_mut(older).filter(|frame| frame.end >= end) {
            if frame.end == end {
                frame.from = frame.from.min(from);
                frame.touched = now;
                frame.pages += 1;
                return Some(older);
            }
            older = frame.older;
        }
        let (place, pages) = (Place::Ring, 1);
        let row = Frame { from, end, topic, log, place, pages, touched: now, older: NONE, newer: NONE };
        let frame = self.frames.insert(row).ok()?;
        link(&mut self.frames, ring, older, frame);
        Some(frame)
    }

    /// A page made progress in its frame.
    pub fn touch(&mut self, frame: u32, now: Stamp) {
        let Some(row) = self.frames.get_mut(frame) else { return };
        row.touched = now;
        if let Place::Kept(_) = row.place {
            unlink(&mut self.frames, &mut self.kept, frame);
            self.insert_kept(frame);
        }
    }

    /// A page finished its frame or is gone. `ring` is the list of the ring that
    /// [`rest`](Self::rest) returns; it is not used if the frame is no longer in a ring.
    pub fn leave(&mut self, ring: &mut Ends, frame: u32) {
        let Some(row) = self.frames.get_mut(frame) else { return };
        row.pages -= 1;
        if row.pages > 0 {
            return;
        }
        match row.place {
            Place::Ring => unlink(&mut self.frames, ring, frame),
            Place::Kept(first) => {
                unlink(&mut self.frames, &mut self.kept, frame);
                self.reserve.give_back(first);
            }
            Place::Lost => {}
        }
        self.frames.remove(frame);
    }

    /// Where the rest of a frame is.
    #[must_use]
    pub fn rest(&self, frame: u32) -> Rest {
        match self.frames.get(frame) {
            Some(Frame { place: Place::Ring, topic, log, .. }) => Rest::Ring { topic: *topic, log: *log },
            Some(Frame { place: Place::Kept(_), .. }) => Rest::Kept,
            Some(Frame { place: Place::Lost, .. }) | None => Rest::Lost,
        }
    }

    /// A frame's end, and the index of its log in the topic.
    #[must_use]
    pub fn end(&self, frame: u32) -> (u64, u8) {
        self.frames.get(frame).map_or((0, 0), |row| (row.end, row.log))
    }

    /// The oldest frame that the ring is about to overwrite by forgetting what is before `start`,
    /// and the range of its bytes that are needed.
    #[must_use]
    pub fn overtaken(&self, ring: &Ends, start: u64) -> Option<(u32, core::ops::Range<u64>)> {
        let mut at = ring.oldest;
        while let Some(row) = self.frames.get(at) {
            if row.from < start {
                return Some((at, row.from..row.end));
            }
            // The list is ordered by end. A frame begins before an older one by less than a run.
            if row.end >= start + RUN_SIZE_MAX {
                return None;
            }
            at = row.newer;
        }
        None
    }

    /// Moves an overtaken frame from its ring's list into the reserve; it is lost if no room can be
    /// made there.
    pub fn keep<'a>(&mut self, ring: &mut Ends, frame: u32, bytes: impl Iterator<Item = &'a [u8]>) {
        unlink(&mut self.frames, ring, frame);
        let Some(row) = self.frames.get(frame) else { return };
        let (size, touched) = (row.end - row.from, row.touched);
        let place = match self.make_room(size, touched).then(|| self.reserve.take(size, bytes)).flatten() {
            Some(first) => Place::Kept(first),
            None => Place::Lost,
        };
        if let Some(row) = self.frames.get_mut(frame) {
            row.place = place;
        }
        if place == Place::Lost {
            self.counts.lost += 1;
        } else {
            self.counts.kept += 1;
            self.insert_kept(frame);
        }
    }

    /// The bytes of a kept frame between two offsets of its ring, as slices for one `writev`; stops
    /// when `out` is full. Returns how many bytes were added.
    pub fn slices<'a, const N: usize>(
        &'a self,
        frame: u32,
        range: core::ops::Range<u64>,
        out: &mut Vec<&'a [u8], N>,
    ) -> u64 {
        match self.frames.get(frame) {
            Some(&Frame { place: Place::Kept(first), from, .. }) => {
                self.reserve.slices(first, range.start - from, range.end - from, out)
            }
            _ => 0,
        }
    }

    /// The counts of overtaken frames that were kept and lost.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// How many frames there are now, and the highest number so far.
    #[must_use]
    pub const fn len(&self) -> (u32, u32) {
        (self.frames.len(), self.frames.len_highest())
    }

    /// How many blocks of the reserve are in use, and the highest number so far.
    #[must_use]
    pub const fn kept_blocks(&self) -> (u32, u32) {
        (self.reserve.used(), self.reserve.used_highest())
    }

    /// Frees blocks for `size` bytes by evicting frames without progress since before `touched`. If
    /// that can't free enough, nothing is evicted.
    fn make_room(&mut self, size: u64, touched: Stamp) -> bool {
        let needed = self.reserve.blocks(size);
        let mut room = u64::from(self.reserve.free());
        let mut behind = self.kept.oldest;
        while room < needed {
            let Some(row) = self.frames.get(behind).filter(|row| row.touched < touched) else { return false };
            room += self.reserve.blocks(row.end - row.from);
            behind = row.newer;
        }
        while self.kept.oldest != behind && u64::from(self.reserve.free()) < needed {
            let frame = self.kept.oldest;
            unlink(&mut self.frames, &mut self.kept, frame);
            let Some(row) = self.frames.get_mut(frame) else { return false };
            if let Place::Kept(first) = core::mem::replace(&mut row.place, Place::Lost) {
                self.reserve.give_back(first);
                self.counts.lost += 1;
            }
        }
        true
    }

    /// Inserts a frame into the list of kept frames, ordered by `touched`: nearly always at the
    /// newest end.
    fn insert_kept(&mut self, frame: u32) {
        let touched = self.frames.get(frame).map(|row| row.touched);
        let mut older = self.kept.newest;
        while let Some(row) = self.frames.get(older).filter(|row| Some(row.touched) > touched) {
            older = row.older;
        }
        link(&mut self.frames, &mut self.kept, older, frame);
    }

    /// Checks that nothing exceeds the board.
    ///
    /// # Panics
    /// If something does.
    pub fn check_size(&self, pages_max: u32) {
        self.frames.check_size("begun frames", pages_max);
        self.reserve.check_size();
    }

    /// Checks rows, lists and blocks: for tests. `pages` are the pages inside a frame, as its row
    /// and the run that they are sent again, up to their next byte; `rings` are the lists of all
    /// logs with the range that each log holds.
    ///
    /// # Panics
    /// If an invariant is violated.
    pub fn check(&self, pages: &[(u32, core::ops::Range<u64>)], rings: &[((u32, u8), Ends, core::ops::Range<u64>)]) {
        let mut listed = vec![0; self.frames.end() as usize];
        for &(name, ends, ref held) in rings {
            let mut end = 0;
            for frame in self.walk(ends) {
                let row = &self.frames[frame];
                assert_eq!((row.topic, row.log), name, "begun frame {frame} is in another ring's list");
                assert_eq!(row.place, Place::Ring, "begun frame {frame} is in a ring's list and was overtaken");
                assert!(row.end > end, "ring {name:?}: begun frame {frame} is out of order");
                assert!(
                    held.start <= row.from && row.end <= held.end,
                    "NAME: ring {name:?} forgot begun frame {frame}"
                );
                listed[frame as usize] += 1;
                end = row.end;
            }
        }
        let (mut touched, mut used) = (Stamp::default(), 0);
        for frame in self.walk(self.kept) {
            let row = &self.frames[frame];
            assert!(
                matches!(row.place, Place::Kept(_)),
                "begun frame {frame} is in the list of kept frames and isn't kept"
            );
            assert!(row.touched >= touched, "kept frame {frame} is out of order");
            used += self.reserve.blocks(row.end - row.from);
            listed[frame as usize] += 1;
            touched = row.touched;
        }
        assert_eq!(u64::from(self.reserve.used()), used, "BOUND: blocks of the reserve were lost");
        for (frame, row) in self.frames.iter() {
            let inside = pages.iter().filter(|(at, _)| *at == frame);
            assert_eq!(row.pages as usize, inside.clone().count(), "begun frame {frame} counts its pages wrongly");
            assert!(row.pages > 0, "begun frame {frame} has no pages");
            let is_inside = |(_, run): &(u32, core::ops::Range<u64>)| {
                row.from <= run.start && run.end <= row.end && run.start < row.end
            };
            assert!(inside.clone().all(is_inside), "a page is outside its begun frame {frame}");
            let lists = if row.place == Place::Lost { 0 } else { 1 };
            assert_eq!(listed[frame as usize], lists, "begun frame {frame} is in the wrong number of lists");
        }
        for (frame, _) in pages {
            assert!(self.frames.get(*frame).is_some(), "NAME: a page is inside begun frame {frame}, which is gone");
        }
        self.reserve.check();
    }

    fn walk(&self, ends: Ends) -> alloc::vec::Vec<u32> {
        let (mut seen, mut last) = (alloc::vec::Vec::new(), NONE);
        let mut at = ends.oldest;
        while at != NONE {
            let Some(row) = self.frames.get(at) else { panic!("NAME: begun frame {at} is in a list and is gone") };
            assert_eq!(row.older, last, "begun frame {at} is chained backwards to another");
            assert!(seen.len() < self.frames.len() as usize, "a list of begun frames never ends");
            seen.push(at);
            (last, at) = (at, row.newer);
        }
        assert_eq!(ends.newest, last, "a list of begun frames ends elsewhere");
        seen
    }
}

/// Inserts a frame into a list after another one, or as the oldest.
fn link(frames: &mut Table<Frame>, ends: &mut Ends, older: u32, frame: u32) {
    let newer = match frames.get_mut(older) {
        Some(row) => core::mem::replace(&mut row.newer, frame),
        None => core::mem::replace(&mut ends.oldest, frame),
    };
    match frames.get_mut(newer) {
        Some(row) => row.older = frame,
        None => ends.newest = frame,
    }
    if let Some(row) = frames.get_mut(frame) {
        (row.older, row.newer) = (older, newer);
    }
}

/// Removes a frame from a list.
fn unlink(frames: &mut Table<Frame>, ends: &mut Ends, frame: u32) {
    let Some(row) = frames.get_mut(frame) else { return };
    let (older, newer) = (row.older, row.newer);
    (row.older, row.newer) = (NONE, NONE);
    match frames.get_mut(older) {
        Some(row) => row.newer = newer,
        None => ends.oldest = newer,
    }
    match frames.get_mut(newer) {
        Some(row) => row.older = older,
        None => ends.newest = older,
    }
}

#[cfg(test)]
mod tests {
    use super::super::time::Instant;
    use super::*;

    const BLOCK: u32 = 16;

    fn stamp(ms: u64) -> Stamp {
        Instant(ms).stamp()
    }

    /// A frame of `size` bytes that a page entered at `ms` and that is overtaken at once.
    fn kept(begun: &mut Begun, ring: &mut Ends, from: u64, size: usize, ms: u64) -> u32 {
        let frame = begun.enter(ring, (0, 1), from, from + size as u64, stamp(ms)).unwrap();
        let bytes: alloc::vec::Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
        assert_eq!(begun.overtaken(ring, from + 1), Some((frame, from..from + size as u64)));
        begun.keep(ring, frame, bytes.chunks(7));
        frame
    }

    fn read(begun: &Begun, frame: u32, at: u64) -> alloc::vec::Vec<u8> {
        let mut out = Vec::<&[u8], 64>::new();
        let end = begun.end(frame).0;
        begun.slices(frame, at..end, &mut out);
        out.iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn pages_inside_one_frame_share_a_row_and_a_copy_from_the_lowest_offset() {
        let (mut begun, mut ring) = (Begun::new(8, BLOCK, 4), Ends::none());
        let first = begun.enter(&mut ring, (3, 1), 120, 150, stamp(100)).unwrap();
        let later = begun.enter(&mut ring, (3, 1), 160, 200, stamp(200)).unwrap();
        assert_eq!(begun.enter(&mut ring, (3, 1), 110, 150, stamp(300)), Some(first));
        let held = ((3, 1), ring, 100..300);
        begun.check(&[(first, 120..120), (later, 160..160), (first, 110..110)], &[held]);
        assert_eq!(begun.overtaken(&ring, 110), None);
        let (frame, needed) = begun.overtaken(&ring, 150).unwrap();
        assert_eq!((frame, needed.clone()), (first, 110..150));
        let bytes: alloc::vec::Vec<u8> = needed.map(|at| u8::try_from(at).unwrap()).collect();
        begun.keep(&mut ring, first, bytes.chunks(9));
        begun.check(&[(first, 120..120), (later, 160..160), (first, 110..110)], &[((3, 1), ring, 150..300)]);
        assert_eq!((begun.rest(first), begun.rest(later)), (Rest::Kept, Rest::Ring { topic: 3, log: 1 }));
        for at in 110..150 {
            assert_eq!(read(&begun, first, at), bytes[usize::try_from(at - 110).unwrap()..]);
        }
        for frame in [first, first, later] {
            begun.leave(&mut ring, frame);
        }
        begun.check(&[], &[((3, 1), Ends::none(), 0..0)]);
        assert_eq!((ring, begun.len().0, begun.kept_blocks()), (Ends::none(), 0, (0, 3)));
    }

    #[test]
    fn a_full_reserve_evicts_the_frames_without_progress_for_the_longest_time() {
        let (mut begun, mut ring) = (Begun::new(8, BLOCK, 4), Ends::none());
        let first = kept(&mut begun, &mut ring, 0, 20, 100);
        let second = kept(&mut begun, &mut ring, 100, 20, 200);
        begun.touch(first, stamp(300));
        let third = kept(&mut begun, &mut ring, 200, 10, 400);
        assert_eq!([first, second, third].map(|frame| begun.rest(frame)), [Rest::Kept, Rest::Lost, Rest::Kept]);
        // The slowest frame evicts no other, and nothing is evicted in vain.
        let late = kept(&mut begun, &mut ring, 300, 20, 300);
        let large = kept(&mut begun, &mut ring, 400, 5 * BLOCK as usize, 900);
        assert_eq!(
            [first, third, late, large].map(|frame| begun.rest(frame)),
            [Rest::Kept, Rest::Kept, Rest::Lost, Rest::Lost]
        );
        assert_eq!(begun.counts(), Counts { kept: 3, lost: 3 });
        let pages = [(first, 5..5), (second, 105..105), (third, 205..205), (late, 305..305), (large, 405..405)];
        begun.check(&pages, &[]);
        for frame in [first, second, third, late, large] {
            begun.leave(&mut ring, frame);
        }
        begun.check(&[], &[]);
    }
}
