//! What one page is sent next: planned, and committed as far as the socket took it.
//!
//! [`Relay::plan`] reads a session's flags and cursors and fills a [`Draft`] in order of priority:
//! the rest of a frame in progress, notices, then messages, state, audio, video. `gather.rs` turns
//! it into slices. [`Relay::wrote`] moves the cursors. A segment is committed with its first byte,
//! and over TLS a record with its first byte: what is in progress is finished or the connection is
//! cut, so nothing is half decided. Only notices are copied. Pages in lockstep with the previous
//! one are planned and committed by comparing and setting their cursors.

use core::cell::Cell;

use heapless::Vec;

use super::{
    Relay,
    begun::{Ends, Rest},
    cursor::{Ahead, ahead, epoch_cursors},
    draft::{Draft, Effect, Lockstep, Segment, What},
    log::Kind,
    negotiated::{ANY, DOWN, NOBODY},
    notice::OwnNotice,
    position::Cursor,
    session::{Half, Pace},
    subscription::{Live, Stage},
    texts::Reason,
    time::Instant,
    topic::{init_log_index, log_track},
    traffic::Share,
};
use wire::Track;

/// Most slices in one `writev`. A block is one slice, so this is 256 KiB with blocks of 4 KiB.
pub const SLICES_MAX: usize = 64;

/// The slices for one `writev`.
pub type Slices<'a> = Vec<&'a [u8], SLICES_MAX>;

/// What a socket took of a draft.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the draft, from its start, that count as sent: they have left, or are part of a
    /// record that has begun to leave.
    pub size: u64,
    /// The last of them that are in a record of which the socket took only a part. The page's next
    /// draft begins with them, as one run of the same bytes. 0 without TLS.
    pub begun: u64,
    /// Bytes that the kernel got, control frames included: with TLS, the records'.
    pub socket: u64,
}

impl Progress {
    /// Without TLS: the socket took `size` bytes.
    #[must_use]
    pub const fn plain(size: u64) -> Self {
        Self { size, begun: 0, socket: size }
    }
}

impl Relay {
    /// Lists what to send to a page next.
    pub(super) fn plan_index(&self, page: u32, draft: &mut Draft) {
        let steady = self.steady(page);
        if steady.is_some_and(|live| draft.is_repeated(live)) {
            return;
        }
        draft.clear();
        Planning { relay: self, draft }.page(page);
        if let Some(live) = steady {
            draft.lockstep = self.lockstep(live, draft);
        }
    }

    /// Whether the previous page's draft, which is one piece of the store, is also this page's.
    pub(super) fn is_in_lockstep_index(&self, page: u32, draft: &Draft) -> bool {
        draft.piece().is_some() && self.steady(page).is_some_and(|live| draft.is_repeated(live))
    }

    /// The subscription of a page that has only one, which is live, and only publications to send.
    fn steady(&self, page: u32) -> Option<&Live> {
        let session = &self.sessions[page];
        let is_plain = matches!(session.half, Half::None)
            && !session.is_cut()
            && session.closing().is_none()
            && !session.ping_due
            && session.error.is_none()
            && session.refused.is_none()
            && session.receipts.is_empty()
            && !session.alive_asked
            && self.knows_uplink(session.known_uplink)
            && session.pace == Pace::KeepsUp;
        let row = if is_plain { self.subscriptions.only(&session.chain)? } else { return None };
        row.live().filter(|live| !live.unconfirmed && !live.behind_epoch)
    }

    /// Whether a page that knows this of the uplink knows its state, and who it is there.
    fn knows_uplink(&self, known: u32) -> bool {
        let told = self.uplink.told();
        known == told || (known == ANY && told != DOWN)
    }

    /// What a steady page's draft means for all pages at the same place.
    fn lockstep(&self, live: &Live, draft: &Draft) -> Option<Lockstep> {
        let mut lockstep = Lockstep {
            topic: live.topic(),
            before: live.cursors,
            after: live.cursors,
            deliveries: [0; 4],
            superseded: 0,
            share: Share::default(),
            tally: Cell::new(0),
            piece: None,
        };
        if let [Segment { what: What::Log { topic, track, from, to, .. }, .. }] = draft.segments[..] {
            lockstep.piece = self.topics[topic].log(track).piece(&self.store, from, to);
        }
        for segment in &draft.segments {
            let What::Log { topic, track, is_init: false, from, to, after, passes_epoch: false, .. } = segment.what
            else {
                return None;
            };
            lockstep.share.sent[track.index()] += segment.size;
            let place = live.cursors[track.index()].or_at(from);
            let age_ms = self.topics[topic].probe.age_ms(track, place, to, draft.now);
            lockstep.share.age_ms = lockstep.share.age_ms.or(age_ms);
            let before = live.cursors[track.index()].sequence;
            let behind = after.sequence.saturating_sub(before);
            if track == Track::State {
                lockstep.deliveries[track.index()] = 1;
                lockstep.superseded = if before == 0 { 0 } else { behind.saturating_sub(1) };
            } else if before == 0 || self.topics[topic].log(track).is_special_since(from) {
                return None;
            } else {
                lockstep.deliveries[track.index()] = behind;
            }
            lockstep.after[track.index()] = after;
        }
        (!draft.is_empty() && !draft.is_shortened).then_some(lockstep)
    }

    /// The socket took a part of a draft that matches the page as it is now.
    pub(super) fn wrote_index(&mut self, page: u32, draft: &Draft, took: Progress) {
        // Control frames count too: a page may ask for many, and read none.
        self.sessions.count_written(page, took.socket);
        if took.size == 0 {
            return;
        }
        let now = draft.now;
        let session = &mut self.sessions[page];
        session.wrote(now);
        // What is sent again was counted before.
        self.counters.bytes_sent += took.size.saturating_sub(draft.run);
        self.counters.writes += 1;
        let is_all = took.size == draft.size && took.begun == 0;
        if let Some(lockstep) = &draft.lockstep
            && is_all
        {
            self.wrote_lockstep(page, lockstep, now);
            return;
        }
        let mut left = took.size;
        for segment in &draft.segments {
            if left == 0 {
                break;
            }
            let taken = left.min(segment.size);
            left -= taken;
            // A run is of one source, so that of the last segment.
            let begun = if left == 0 { took.begun } else { 0 };
            let is_whole = taken == segment.size;
            match segment.what {
                What::Rest | What::RestOfNotice { .. } => self.commit_rest(now, page, taken, begun, is_whole),
                What::Notice { notice, effect, .. } => {
                    if !is_whole || begun > 0 {
                        // The effect may release the reason, which the rest of the notice still
                        // needs.
                        notice.reason().map(|reason| self.reasons.retain_reason(reason));
                        self.sessions[page].half = Half::Notice { notice, sent: short(taken), run: short(begun) };
                    }
                    self.commit_notice(now, page, effect);
                }
                What::Log { .. } => {
                    let what = if draft.lockstep.is_some() {
                        segment.what.of(self.sessions[page].chain.first())
                    } else {
                        segment.what
                    };
                    self.commit_frames(now, page, what, taken, begun, is_whole);
                }
            }
        }
        let session = &mut self.sessions[page];
        if is_all && !draft.is_shortened && session.pace == Pace::CatchesUp {
            session.pace = Pace::KeepsUp;
        }
    }

    fn wrote_lockstep(&mut self, page: u32, lockstep: &Lockstep, now: Instant) {
        let session = &mut self.sessions[page];
        session.notified(now);
        let subscription = session.chain.first();
        for (count, more) in self.counters.deliveries.iter_mut().zip(lockstep.deliveries) {
            *count += more;
        }
        self.counters.superseded += lockstep.superseded;
        self.tally.add_lockstep(lockstep.share, &lockstep.tally);
        if let Some(live) = self.subscriptions.live_mut(subscription) {
            live.cursors = lockstep.after;
        }
    }

    fn commit_rest(&mut self, now: Instant, page: u32, taken: u64, begun: u64, whole: bool) {
        let half = &mut self.sessions[page].half;
        let progress = taken.saturating_sub(half.run());
        match half {
            Half::None => {}
            Half::Notice { sent, run, .. } => (*sent, *run) = (*sent + short(progress), short(begun)),
            Half::Frame { frame, at, run } => {
                (*at, *run) = (*at + progress, short(begun));
                let (_, log) = self.store.begun.end(*frame);
                self.tally.add_bytes(log_track(log), progress);
                self.store.begun.touch(*frame, now.stamp());
            }
        }
        if whole && begun == 0 {
            self.drop_half(page);
        }
    }

    /// Drops the frame in progress: it is finished, or the page is gone.
    pub(super) fn drop_half(&mut self, page: u32) {
        match core::mem::replace(&mut self.sessions[page].half, Half::None) {
            Half::None => {}
            Half::Notice { notice, .. } => {
                if let Some(reason) = notice.reason() {
                    self.reasons.release_reason(reason);
                }
            }
            Half::Frame { frame, .. } => match self.store.begun.rest(frame) {
                Rest::Ring { topic, log } => self.topics[topic].logs[usize::from(log)].leave(&mut self.store, frame),
                Rest::Kept | Rest::Lost => self.store.begun.leave(&mut Ends::none(), frame),
            },
        }
    }

    fn commit_notice(&mut self, now: Instant, page: u32, effect: Effect) {
        let session = &mut self.sessions[page];
        if !matches!(effect, Effect::Ping) {
            session.notified(now);
        }
        match effect {
            Effect::Subscribed { subscription, known } => {
                if let Some(live) = self.subscriptions.live_mut(subscription) {
                    live.unconfirmed = false;
                }
                session.known_uplink = known;
            }
            Effect::Over { subscription } => self.forget_subscription(subscription),
            Effect::Gap { subscription, track, after, missed } => {
                self.counters.gaps[track.index()] += 1;
                self.counters.missed[track.index()] += missed;
                if let Some(live) = self.subscriptions.live_mut(subscription) {
                    live.cursors[track.index()] = after;
                }
            }
            Effect::Epoch { subscription } => {
                self.pass_epoch(subscription, Cursor::UNSET);
            }
            Effect::Uplink { known } => session.known_uplink = known,
            Effect::Receipt => self.sessions.pop_receipt(page),
            Effect::Error => session.error = None,
            Effect::Refused => session.refused = None,
            Effect::Ping => session.pinged(now),
            Effect::AliveAsked => session.alive_asked = false,
            Effect::Alive => {}
        }
    }

    fn commit_frames(&mut self, now: Instant, page: u32, what: What, taken: u64, run: u64, whole: bool) {
        let What::Log { subscription, topic: row, track, is_init, from, to, after, passes_epoch } = what else {
            return;
        };
        self.tally.add_bytes(track, taken);
        let session = &mut self.sessions[page];
        session.notified(now);
        let is_timed = session.pace == Pace::KeepsUp && !is_init;
        let topic = &self.topics[row];
        let log = if is_init { topic.init_log(track) } else { topic.log(track) };
        let before = self.subscriptions[subscription].live().map_or(after, |live| live.cursors[track.index()]);
        let mut place = after;
        let mut passed = passes_epoch;
        let mut begun = None;
        let stop = from + taken;
        if !whole && let Some(number) = log.number_at(&self.store, stop) {
            // The socket stopped inside this entry, or just before it.
            let entry = log.entry(&self.store, number);
            let (begin, end) = (entry.map_or(stop, |entry| entry.at), log.entry_end(&self.store, number));
            let next = if stop == begin { number } else { number + 1 };
            if stop > begin {
                begun = Some(end);
            }
            if !is_init && end < to || stop == begin {
                // The frames after it were not begun.
                let at = if stop == begin { begin } else { end };
                let sequence = log.entry(&self.store, next).map_or(topic.behind(track), |entry| entry.sequence);
                place = Cursor { sequence, at };
                passed = false;
            }
        }
        if run > 0 && begun.is_none() {
            begun = Some(stop);
        }
        if is_timed && let Some(age_ms) = topic.probe.age_ms(track, before.or_at(from), stop, now) {
            self.tally.add_age(age_ms);
        }
        if is_init {
            self.counters.inits_repeated += 1;
        } else {
            let end = if place.is_placed() { place.at } else { to };
            self.count_deliveries(row, track, from, end, before, place);
        }
        if let Some(end) = begun {
            let log = if is_init { init_log_index(track) } else { track.index() };
            let name = (row, u8::try_from(log).unwrap_or_default());
            match self.topics[row].logs[log].enter(&mut self.store, name, stop - run, end, now.stamp()) {
                Some(frame) => self.sessions[page].half = Half::Frame { frame, at: stop, run: short(run) },
                None => self.cut(page),
            }
        }
        if passed {
            self.pass_epoch(subscription, place);
        } else if let Some(live) = self.subscriptions.live_mut(subscription) {
            live.cursors[track.index()] = place;
        }
    }

    fn count_deliveries(&mut self, row: u32, track: Track, from: u64, to: u64, before: Cursor, after: Cursor) {
        let log = self.topics[row].log(track);
        let counters = &mut self.counters;
        if track == Track::State {
            counters.deliveries[track.index()] += 1;
            if before.sequence != 0 {
                counters.superseded += after.sequence.saturating_sub(before.sequence + 1);
            }
            return;
        }
        if before.sequence != 0 && !log.is_special_since(from) {
            counters.deliveries[track.index()] += after.sequence - before.sequence;
            return;
        }
        let Some(mut number) = log.number_at(&self.store, from) else { return };
        while let Some(entry) = log.entry(&self.store, number) {
            if entry.at >= to {
                break;
            }
            match entry.kind {
                Kind::Gap => {
                    counters.gaps[track.index()] += 1;
                    counters.missed[track.index()] += log.entry_next(&self.store, number) - entry.sequence;
                }
                Kind::Epoch => {}
                Kind::Whole | Kind::Init | Kind::Start | Kind::Continue => counters.deliveries[track.index()] += 1,
            }
            number += 1;
        }
    }

    /// The page has been sent the new epoch: its messages continue from here, and everything
    /// else starts over.
    fn pass_epoch(&mut self, subscription: u32, messages: Cursor) {
        if let Some(live) = self.subscriptions.live_mut(subscription) {
            live.behind_epoch = false;
            live.cursors = epoch_cursors(&self.topics[live.topic()], messages);
        }
    }
}

/// A size of a notice or of a run, which are small.
fn short(size: u64) -> u16 {
    u16::try_from(size).unwrap_or(u16::MAX)
}

/// A draft that is being filled.
struct Planning<'a> {
    relay: &'a Relay,
    draft: &'a mut Draft,
}

impl Planning<'_> {
    fn page(&mut self, page: u32) {
        let relay = self.relay;
        let session = &relay.sessions[page];
        self.draft.is_between_frames = session.half == Half::None;
        self.draft.run = session.half.run();
        self.draft.is_closing = session.closing().is_some() && session.half == Half::None;
        if session.is_cut() {
            self.draft.is_cut = true;
            return;
        }
        if !self.rest(session.half) || session.closing().is_some() || !self.notices(page) {
            return;
        }
        // Order of priority. The newest message matters most, then state, then sound, then picture.
        for track in [Track::Messages, Track::State, Track::Audio, Track::Video] {
            for (subscription, row) in relay.subscriptions.of(&session.chain) {
                if let Some(live) = row.live() {
                    self.track(subscription, live, track);
                }
            }
        }
        // What arrived before the uplink was lost goes before the notice that it is down, and what
        // arrives once it is up again goes after the notice that it is up.
        let has_subscription = session.chain.wanted() > 0;
        if has_subscription && relay.uplink.told() == DOWN && session.known_uplink != DOWN {
            self.notice(OwnNotice::Uplink { standing: None }, Effect::Uplink { known: DOWN });
        }
        if session.alive_due && self.draft.is_empty() {
            self.notice(OwnNotice::Alive, Effect::Alive);
        }
    }

    /// Adds the rest of the frame in progress; `false` if nothing may follow it.
    fn rest(&mut self, half: Half) -> bool {
        match half {
            Half::None => true,
            Half::Notice { notice, sent, run } => {
                let frame = notice.encode(&self.relay.reasons);
                let rest = frame.get(usize::from(sent - run)..).unwrap_or_default();
                // It is the first segment of the draft, so there is room.
                self.draft.notices.extend_from_slice(rest).is_ok()
                    && self.push(rest.len() as u64, What::RestOfNotice { from: 0 })
            }
            Half::Frame { frame, at, run } => {
                self.draft.is_cut = self.relay.store.begun.rest(frame) == Rest::Lost;
                let size = self.relay.store.begun.end(frame).0 - at + u64::from(run);
                !self.draft.is_cut && self.push(size, What::Rest)
            }
        }
    }

    /// Adds everything besides publications; `false` if not all of it found room, since what
    /// follows a notice must not overtake it.
    fn notices(&mut self, page: u32) -> bool {
        let relay = self.relay;
        let session = &relay.sessions[page];
        let mut all = !session.ping_due || self.notice(OwnNotice::Ping, Effect::Ping);
        let has_subscription = session.chain.wanted() > 0;
        let (mut known, told) = (session.known_uplink, relay.uplink.told());
        // The end of a topic goes before its new beginning, in whichever order the page subscribed.
        for (subscription, row) in relay.subscriptions.of(&session.chain) {
            if all && let Stage::Over { topic, reason, retry_ms } = *row.stage() {
                let notice = match topic {
                    Some(topic) => OwnNotice::End { topic, reason },
                    None => OwnNotice::Denied { id: row.id(), reason, retry_ms },
                };
                all = self.notice(notice, Effect::Over { subscription });
            }
        }
        for (subscription, row) in relay.subscriptions.of(&session.chain) {
            if all && let Some(live) = row.live().filter(|live| live.unconfirmed) {
                let topic = &relay.topics[live.topic()];
                let page_messages = relay.links[row.link()].grant().page_messages;
                let (id, topic, epoch) = (row.id(), topic.number(), topic.epoch());
                let standing = relay.uplink.standing(session.number());
                let notice = OwnNotice::Subscribed { id, topic, epoch, page_messages, standing };
                // It says who the page is on this connection, but not whether the uplink is up.
                let after = match (known, told) {
                    (DOWN, _) => DOWN,
                    (_, DOWN) => NOBODY,
                    _ => told,
                };
                all = self.notice(notice, Effect::Subscribed { subscription, known: after });
                known = if all { after } else { known };
            }
        }
        if all && let Some(id) = session.refused {
            let reason = Reason::Own("the relay has no room for more subscriptions now");
            let retry_ms = Some(relay.refused_retry_ms(session));
            all = self.notice(OwnNotice::Denied { id, reason, retry_ms }, Effect::Refused);
        }
        for (id, receipt) in relay.sessions.receipts().of(&session.receipts) {
            all = all && self.notice(OwnNotice::Receipt { id, receipt }, Effect::Receipt);
        }
        if all && let Some(reason) = session.error {
            all = self.notice(OwnNotice::Error { reason }, Effect::Error);
        }
        if all && session.alive_asked {
            all = self.notice(OwnNotice::Alive, Effect::AliveAsked);
        }
        if all && has_subscription && told != DOWN && !relay.knows_uplink(known) {
            let standing = Some(relay.uplink.standing(session.number()));
            all = self.notice(OwnNotice::Uplink { standing }, Effect::Uplink { known: told });
        }
        all
    }

    fn track(&mut self, subscription: u32, live: &Live, track: Track) {
        let relay = self.relay;
        let topic = &relay.topics[live.topic()];
        let cursor = live.cursors[track.index()];
        // Most of the time, most pages have seen everything.
        if cursor.at == topic.log(track).end() && !live.behind_epoch {
            return;
        }
        if live.unconfirmed && !self.is_confirmed(subscription) {
            return;
        }
        let mut live = *live;
        for _ in 0..STEPS_MAX {
            let place = &mut live.cursors[track.index()];
            let before = *place;
            match ahead(topic, &relay.store, &live, track, self.draft.now, relay.board.media_lag_ms_max.into()) {
                Ahead::Nothing => return,
                Ahead::Placed(cursor) => live.cursors[track.index()] = cursor,
                Ahead::Gap { to, after } => {
                    let from = if before.sequence == 0 { topic.log(track).base() } else { before.sequence };
                    let effect = Effect::Gap { subscription, track, after, missed: to + 1 - from };
                    if !self.notice(OwnNotice::Gap { topic: topic.number(), track, from, to }, effect) {
                        return;
                    }
                    live.cursors[track.index()] = after;
                }
                Ahead::Epoch => {
                    self.notice(
                        OwnNotice::Epoch { topic: topic.number(), epoch: topic.epoch() },
                        Effect::Epoch { subscription },
                    );
                    self.draft.is_shortened = true;
                    return;
                }
                Ahead::Frames { from, to, after, passes_epoch } => {
                    let is_init = false;
                    let what =
                        What::Log { subscription, topic: live.topic(), track, is_init, from, to, after, passes_epoch };
                    self.push(to - from, what);
                    // What follows the epoch is planned once the page has passed it.
                    self.draft.is_shortened |= passes_epoch;
                    return;
                }
                Ahead::Init { from, to, after } => {
                    let (is_init, passes_epoch) = (true, false);
                    let what =
                        What::Log { subscription, topic: live.topic(), track, is_init, from, to, after, passes_epoch };
                    if !self.push(to - from, what) {
                        return;
                    }
                    live.cursors[track.index()] = after;
                }
            }
        }
    }

    /// Whether this draft confirms a subscription.
    fn is_confirmed(&self, subscription: u32) -> bool {
        self.draft.segments.iter().any(|segment| {
            matches!(segment.what, What::Notice { effect: Effect::Subscribed { subscription: s, .. }, .. } if s == subscription)
        })
    }

    fn notice(&mut self, notice: OwnNotice, effect: Effect) -> bool {
        let frame = notice.encode(&self.relay.reasons);
        let from = self.draft.notices.len();
        if self.draft.segments.is_full() || self.draft.notices.extend_from_slice(&frame).is_err() {
            self.draft.is_shortened = true;
            return false;
        }
        self.push(frame.len() as u64, What::Notice { from, notice, effect })
    }

    fn push(&mut self, size: u64, what: What) -> bool {
        if size == 0 {
            return true;
        }
        let pushed = self.draft.segments.push(Segment { size, what }).is_ok();
        if pushed {
            self.draft.size += size;
        }
        self.draft.is_shortened |= !pushed;
        pushed
    }
}

/// Most steps for one track in one plan: a gap, a place, an init, a place, the frames, and one
/// spare.
const STEPS_MAX: usize = 6;

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::super::rig::{BOARD, Rig, frames, gap, message};
    use super::super::{session::Session, table::Id};
    use board::Board;
    use wire::{
        Track,
        uplink::{Part, ToRelay},
    };

    #[test]
    fn a_page_that_reads_byte_by_byte_gets_the_same_bytes() {
        let mut rig = Rig::up(&BOARD);
        let (quick, slow) = (rig.viewer(), rig.page());
        rig.subscribe(slow, 1, "link");
        rig.read(slow);
        rig.messages(1..=3);
        let all = rig.take(quick, u64::MAX);
        let mut bytes = Vec::new();
        while bytes.len() < all.len() {
            bytes.extend(rig.take(slow, 1));
        }
        assert_eq!(bytes, all);
        assert!(rig.relay.is_between_frames(slow));
    }

    #[test]
    fn a_frame_that_was_cut_is_finished_before_anything_else() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.messages(1..=1);
        let mut bytes = rig.take(page, 5);
        assert!(!rig.relay.is_between_frames(page));
        rig.say(page, "garbage");
        rig.messages(2..=2);
        bytes.extend(rig.take(page, u64::MAX));
        let read = frames(&bytes);
        assert_eq!(read[0], message(1));
        assert!(read[1].contains("error"));
        assert_eq!(read[2], message(2));
    }

    #[test]
    fn pages_that_are_overtaken_inside_a_frame_finish_it_and_get_the_gap() {
        let mut rig = Rig::up(&BOARD);
        let pages = rig.three_viewers();
        rig.messages(1..=1);
        // The second page lacks most of the frame, and the third enters it last.
        let mut bytes = [30, 5, 17].map(|_| Vec::new());
        for (at, size) in [30, 5, 17].into_iter().enumerate() {
            bytes[at] = rig.take(pages[at], size);
        }
        rig.messages(2..=9);
        rig.relay.check();
        assert_eq!((rig.relay.overtaken().kept, rig.relay.overtaken().lost), (1, 0));
        for (page, mut bytes) in pages.into_iter().zip(bytes) {
            // Byte by byte, so that every position in the copy is tested.
            while !rig.relay.is_between_frames(page) {
                bytes.extend(rig.take(page, 1));
            }
            let mut read = frames(&bytes);
            read.extend(rig.read(page));
            assert_eq!(read[..2], [message(1), gap("messages", 2, 5)]);
            assert_eq!(read[2..], [message(6), message(7), message(8), message(9)]);
        }
        assert_eq!((rig.relay.in_use().begun_frames, rig.relay.in_use().kept_blocks), (0, 0));
    }

    #[test]
    fn where_no_room_is_left_for_a_frame_the_page_without_progress_for_the_longest_is_cut() {
        let mut rig = Rig::up(&BOARD);
        let pages = rig.three_viewers();
        // Each page is inside a frame of its own, which takes three blocks of six.
        let data = format!("\"{}\"", "x".repeat(110));
        for (at, page) in (1..).zip(pages) {
            rig.publish(7, Track::Messages, at, Part::Whole, data.as_bytes());
            for page in &pages[usize::try_from(at).unwrap()..] {
                rig.read(*page);
            }
            rig.take(page, 3);
            rig.now = rig.now.after(1_000);
        }
        rig.messages(4..=9);
        assert_eq!((rig.relay.overtaken().kept, rig.relay.overtaken().lost), (3, 1));
        rig.relay.check();
        rig.relay.plan(pages[0], &mut rig.draft);
        assert!(rig.draft.is_cut() && rig.draft.is_empty());
        for page in &pages[1..] {
            rig.relay.plan(*page, &mut rig.draft);
            assert!(!rig.draft.is_cut() && !rig.draft.is_empty());
        }
        rig.relay.handle_page_closed(rig.now, pages[0]);
        rig.relay.check();
    }

    #[test]
    fn a_frame_of_a_topic_that_ends_is_finished_and_the_topic_is_gone() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.messages(1..=1);
        let mut bytes = rig.take(page, 5);
        rig.tell(ToRelay::End { topic: 7, reason: "over" });
        assert_eq!(rig.relay.in_use().topics, 0);
        assert_eq!(rig.relay.in_use().blocks, 0);
        bytes.extend(rig.take(page, u64::MAX));
        let read = frames(&bytes);
        assert_eq!(read[0], message(1));
        assert!(read[1].contains("over"), "{read:?}");
    }

    #[test]
    fn every_half_notice_is_finished_with_the_same_bytes_however_many_pages_stop_inside_one() {
        let mut rig = Rig::up(&Board { pages_max: 40, subscriptions_max: 40, ..BOARD });
        let pages: Vec<_> = (0..40).map(|_| rig.page()).collect();
        let whole = {
            rig.say(pages[0], "garbage");
            rig.take(pages[0], u64::MAX)
        };
        let mut halves = Vec::new();
        for page in &pages[1..] {
            rig.say(*page, "garbage");
            halves.push(rig.take(*page, 3));
        }
        for (page, mut bytes) in pages[1..].iter().zip(halves) {
            bytes.extend(rig.take(*page, 1));
            bytes.extend(rig.take(*page, u64::MAX));
            assert_eq!(bytes, whole);
        }
    }

    #[test]
    fn half_a_notice_keeps_its_reason() {
        let mut rig = Rig::up(&Board { reasons_max: 1, ..BOARD });
        let page = rig.viewer();
        rig.tell(ToRelay::End { topic: 7, reason: "the very end" });
        let mut bytes = rig.take(page, 3);
        // Meanwhile another reason finds no room.
        let other = rig.page();
        rig.subscribe(other, 1, "link");
        let request =
            rig.said().iter().find_map(|said| said.strip_prefix("Subscribe ")?.split(' ').next()?.parse().ok());
        rig.tell(ToRelay::Deny { request: request.unwrap(), reason: "something else" });
        assert!(!rig.read(other)[0].contains("something else"));
        bytes.extend(rig.take(page, u64::MAX));
        assert!(frames(&bytes)[0].contains("the very end"));
        rig.relay.check();
    }

    /// What a page reads whose socket takes `size` bytes of records at a time.
    fn read_records(rig: &mut Rig, page: Id<Session>, begun: &mut (Vec<u8>, usize), size: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..10_000 {
            bytes.extend(rig.take_records(page, begun, size));
            rig.relay.plan(page, &mut rig.draft);
            if rig.draft.is_empty() {
                return bytes;
            }
        }
        panic!("a page is sent records without end");
    }

    #[test]
    fn records_that_a_socket_cuts_anywhere_are_made_of_the_same_bytes_again() {
        let mut rig = Rig::up(&Board { notsent_size_max: 400, pages_max: 40, subscriptions_max: 40, ..BOARD });
        let quick = rig.viewer();
        let pages: Vec<_> = (1..40).map(|_| rig.page()).collect();
        for page in &pages {
            rig.subscribe(*page, 1, "link");
        }
        rig.messages(1..=2);
        rig.publish(7, Track::State, 1, Part::Whole, format!("\"{}\"", "x".repeat(110)).as_bytes());
        rig.publish(7, Track::Video, 1, Part::Init { mime: "v" }, &[b'i'; 90]);
        rig.publish(7, Track::Video, 2, Part::Start, &[b's'; 190]);
        let all = rig.take(quick, u64::MAX);
        for (size, page) in (1..).zip(pages) {
            let bytes = read_records(&mut rig, page, &mut Default::default(), size);
            assert!(bytes.ends_with(&all), "in steps of {size}");
            assert!(rig.relay.is_between_frames(page));
        }
        assert_eq!((rig.relay.in_use().begun_frames, rig.relay.in_use().kept_blocks), (0, 0));
    }

    #[test]
    fn a_page_that_is_overtaken_inside_a_record_finishes_it_and_gets_the_gap() {
        for taken in 1..150 {
            let mut rig = Rig::up(&Board { notsent_size_max: 600, ..BOARD });
            let (page, mut begun) = (rig.viewer(), Default::default());
            // One record holds two messages.
            rig.messages(1..=2);
            let mut bytes = rig.take_records(page, &mut begun, taken);
            rig.messages(3..=10);
            bytes.extend(read_records(&mut rig, page, &mut begun, 7));
            let read = frames(&bytes);
            assert_eq!(read[..3], [message(1), message(2), gap("messages", 3, 6)], "after {taken} bytes");
            assert_eq!(read[3..], [7, 8, 9, 10].map(message));
            assert_eq!((rig.relay.in_use().begun_frames, rig.relay.in_use().kept_blocks), (0, 0));
        }
    }

    #[test]
    fn what_a_begun_record_holds_arrives_after_the_end_that_came_meanwhile() {
        for end in [ToRelay::End { topic: 7, reason: "over" }, ToRelay::Revoke { link: "link", reason: "over" }] {
            let mut rig = Rig::up(&Board { notsent_size_max: 600, ..BOARD });
            let (page, mut begun) = (rig.viewer(), Default::default());
            rig.messages(1..=2);
            let mut bytes = rig.take_records(page, &mut begun, 1);
            rig.messages(3..=3);
            rig.tell(end);
            bytes.extend(read_records(&mut rig, page, &mut begun, usize::MAX));
            let read = frames(&bytes);
            assert_eq!(read[..2], [message(1), message(2)]);
            assert!(read[2].contains("over") && read.len() == 3, "{read:?}");
        }
    }

    #[test]
    fn a_frame_before_an_older_one_in_the_list_is_kept_too_when_its_ring_passes() {
        let mut rig = Rig::up(&Board { notsent_size_max: 1_200, ..BOARD });
        let pages = rig.three_viewers();
        let mut begun: [(Vec<u8>, usize); 3] = Default::default();
        let mut bytes = [const { Vec::new() }; 3];
        // The first begins a record of one message, the second one of three, which begins before
        // it.
        rig.messages(1..=2);
        bytes[0] = rig.take_records(pages[0], &mut begun[0], 62 + 22);
        rig.messages(3..=3);
        for at in [1, 2] {
            bytes[at] = rig.take_records(pages[at], &mut begun[at], 1);
        }
        rig.messages(4..=12);
        for (at, page) in pages.into_iter().enumerate() {
            let rest = read_records(&mut rig, page, &mut begun[at], usize::MAX);
            bytes[at].extend(rest);
            let read = frames(&bytes[at]);
            assert_eq!(read[..2], [message(1), message(2)]);
            assert_eq!(read.last(), Some(&message(12)));
        }
        assert_eq!((rig.relay.in_use().begun_frames, rig.relay.in_use().kept_blocks), (0, 0));
    }

    #[test]
    fn one_gather_ends_between_frames_and_a_larger_frame_goes_alone() {
        let mut rig = Rig::up(&Board { notsent_size_max: 150, ..BOARD });
        let page = rig.viewer();
        rig.relay.blocked(page);
        rig.messages(1..=4);
        rig.publish(7, Track::Video, 1, Part::Init { mime: "v" }, &[b'i'; 90]);
        rig.publish(7, Track::Video, 2, Part::Start, &[b's'; 190]);
        rig.publish(7, Track::Video, 3, Part::Continue, b"c");
        let mut sizes = Vec::new();
        let mut read = Vec::new();
        loop {
            let bytes = rig.take(page, u64::MAX);
            if bytes.is_empty() {
                break;
            }
            assert!(rig.relay.is_between_frames(page));
            sizes.push(bytes.len());
            read.extend(frames(&bytes));
        }
        let expected = [message(1), message(2), message(3), message(4)].map(String::from);
        assert_eq!(read[..4], expected);
        assert_eq!(read[4..], ["3 1 1", "3 2 2", "3 3 3"]);
        assert!(sizes.iter().all(|size| *size <= 150 || *size == 190 + 18), "{sizes:?}");
        // A page that kept up so far takes as much as its socket buffer holds.
        rig.messages(5..=8);
        assert_eq!(frames(&rig.take(page, u64::MAX)).len(), 4);
    }

    #[test]
    fn messages_go_before_state_before_audio_before_video() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        for track in [Track::Video, Track::Audio] {
            rig.publish(7, track, 1, Part::Init { mime: "m" }, b"i");
            rig.publish(7, track, 2, Part::Start, b"s");
        }
        rig.publish(7, Track::State, 1, Part::Whole, b"{}");
        rig.messages(1..=1);
        let read = rig.read(page);
        assert_eq!(read[0], message(1));
        assert!(read[1].contains("state"));
        assert_eq!(read[2..], ["2 1 1", "2 2 2", "3 1 1", "3 2 2"]);
    }

    #[test]
    fn pages_in_lockstep_are_sent_the_same_whatever_other_pages_come_between() {
        let mut rig = Rig::up(&BOARD);
        let pages = [rig.viewer(), rig.page(), rig.page(), rig.page()];
        for page in pages {
            rig.subscribe(page, 1, "link");
            rig.read(page);
        }
        rig.messages(1..=1);
        for page in pages {
            rig.read(page);
        }
        rig.messages(2..=3);
        rig.publish(7, Track::State, 1, Part::Whole, b"{}");
        // The second takes half of it, and the third has an error of its own to send.
        rig.say(pages[2], "garbage");
        let delivered = rig.relay.counters().deliveries;
        rig.draft.begin(rig.now);
        let whole = rig.take_in_lockstep(pages[0], u64::MAX);
        assert!(rig.draft.lockstep.is_some());
        let mut halves = rig.take_in_lockstep(pages[1], 9);
        let own = rig.take_in_lockstep(pages[2], u64::MAX);
        assert!(rig.draft.lockstep.is_none());
        assert_eq!(rig.take_in_lockstep(pages[3], u64::MAX), whole);
        halves.extend(rig.take_in_lockstep(pages[1], u64::MAX));
        assert_eq!(halves, whole);
        assert_eq!(frames(&own)[1..], frames(&whole)[..]);
        assert_eq!(frames(&whole)[..2], [message(2), message(3)]);
        for page in pages {
            assert!(rig.take_in_lockstep(page, u64::MAX).is_empty());
        }
        let counted = rig.relay.counters().deliveries;
        assert_eq!([counted[0] - delivered[0], counted[1] - delivered[1]], [4, 8]);
    }
}
