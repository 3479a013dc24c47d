//! What a page gets next on a track: the delivery promises of the four tracks.
//!
//! Given a topic's log and a page's place in it, [`ahead`] returns the one next thing to send and
//! the place after it. Owns the rules for late starts, skips and gaps. Read-only: nothing is
//! changed here, and a decision takes effect only once the socket took its first byte.

use super::{
    log::{Kind, Store},
    position::{Cursor, OWED, UNPLACED},
    subscription::Live,
    time::Instant,
    topic::Topic,
};
use wire::Track;

/// The next thing to send on a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ahead {
    /// Nothing yet.
    Nothing,
    /// The cursor's place is now known; continue from there.
    Placed(Cursor),
    /// A gap, from the cursor's sequence up to and including `to`.
    Gap {
        /// The last missed sequence.
        to: u64,
        /// The place after it.
        after: Cursor,
    },
    /// Bytes of the track's log, ending at a frame boundary.
    Frames {
        /// The first byte.
        from: u64,
        /// The end, exclusive.
        to: u64,
        /// The place after them.
        after: Cursor,
        /// The last frame is the one that announces the new epoch.
        passes_epoch: bool,
    },
    /// An init segment, repeated from the log of init segments.
    Init {
        /// The first byte.
        from: u64,
        /// The end, exclusive.
        to: u64,
        /// The place after it.
        after: Cursor,
    },
    /// The new epoch, if the log no longer holds its frame.
    Epoch,
}

/// Returns what a page gets next on a track.
#[must_use]
pub fn ahead(topic: &Topic, store: &Store, live: &Live, track: Track, now: Instant, lag_ms_max: u64) -> Ahead {
    let cursor = live.cursors[track.index()];
    match track {
        Track::Messages if live.behind_epoch => messages_before_epoch(topic, store, cursor),
        _ if live.behind_epoch => Ahead::Nothing,
        Track::State => state(topic, store, cursor),
        Track::Messages => messages(topic, store, cursor),
        Track::Audio | Track::Video => media(topic, store, cursor, track, now, lag_ms_max),
    }
}

/// Where a late page starts on `messages`: at the oldest of the last `replay` messages held.
#[must_use]
pub fn late_messages(topic: &Topic, store: &Store, replay: u16) -> Cursor {
    let log = topic.log(Track::Messages);
    let mut start =
        Cursor { sequence: log.next_sequence(), at: if log.next_sequence() == 0 { UNPLACED } else { log.end() } };
    let mut left = replay;
    for number in log.current().rev() {
        if left == 0 {
            break;
        }
        if let Some(entry) = log.entry(store, number)
            && entry.kind == Kind::Whole
        {
            start = Cursor { sequence: entry.sequence, at: entry.at };
            left -= 1;
        }
    }
    start
}

fn state(topic: &Topic, store: &Store, cursor: Cursor) -> Ahead {
    let log = topic.log(Track::State);
    if cursor.at == log.end() && cursor.sequence == log.next_sequence() {
        return Ahead::Nothing;
    }
    match topic.newest_state(store) {
        Some((_, entry)) if entry.sequence >= cursor.sequence => {
            let after = Cursor { sequence: entry.sequence + 1, at: log.end() };
            Ahead::Frames { from: entry.at, to: log.end(), after, passes_epoch: false }
        }
        _ => Ahead::Nothing,
    }
}

fn messages(topic: &Topic, store: &Store, cursor: Cursor) -> Ahead {
    let log = topic.log(Track::Messages);
    if cursor.is_placed() && cursor.at >= log.start() {
        return stream(topic, Track::Messages, cursor);
    }
    if log.next_sequence() == 0 {
        return Ahead::Nothing;
    }
    // A page whose counter is not set was subscribed before the epoch's first message.
    let sequence = if cursor.sequence == 0 { log.base() } else { cursor.sequence };
    if sequence > log.next_sequence() {
        return Ahead::Nothing;
    }
    if sequence == log.next_sequence() {
        return Ahead::Placed(Cursor { sequence, at: log.end() });
    }
    within(topic, store, log.current(), sequence, Cursor { sequence: log.next_sequence(), at: log.end() })
}

/// What a page gets that is still in the previous epoch: the rest of that epoch's messages or a
/// gap, then the new epoch.
fn messages_before_epoch(topic: &Topic, store: &Store, cursor: Cursor) -> Ahead {
    let log = topic.log(Track::Messages);
    let end = log.next_before();
    let marker = epoch_marker(topic, store);
    if cursor.is_placed() && cursor.at >= log.start() {
        return match marker {
            Some((_, to)) => {
                let after = Cursor { sequence: 0, at: to };
                Ahead::Frames { from: cursor.at, to, after, passes_epoch: true }
            }
            None => Ahead::Epoch,
        };
    }
    let at_marker = marker.map_or(UNPLACED, |(at, _)| at);
    if cursor.sequence != 0 && cursor.sequence < end {
        return within(topic, store, log.before(), cursor.sequence, Cursor { sequence: end, at: at_marker });
    }
    match marker {
        Some((at, _)) => Ahead::Placed(Cursor { sequence: cursor.sequence, at }),
        None => Ahead::Epoch,
    }
}

/// How to get to a published sequence within the entries held of its epoch: its entry, or a gap up
/// to the next entry held, or to `end` if there is none.
fn within(topic: &Topic, store: &Store, held: core::ops::Range<u64>, sequence: u64, end: Cursor) -> Ahead {
    let log = topic.log(Track::Messages);
    if let Some(number) = log.number_within(store, held.clone(), sequence)
        && let Some(entry) = log.entry(store, number)
    {
        if entry.sequence == sequence {
            return Ahead::Placed(Cursor { sequence, at: entry.at });
        }
        // The sequence is inside a gap that the log holds as one entry, or before the epoch's first
        // message.
        let next = log.entry_next(store, number);
        return gap_to(sequence, next, Cursor { sequence: next, at: log.entry_end(store, number) });
    }
    // Overtaken: it goes on with the oldest that is held.
    match log.entry(store, held.start).filter(|_| !held.is_empty()) {
        Some(entry) => gap_to(sequence, entry.sequence, Cursor { sequence: entry.sequence, at: entry.at }),
        None => gap_to(sequence, end.sequence, end),
    }
}

/// The start and end of the frame that announces the current epoch, if it is held.
fn epoch_marker(topic: &Topic, store: &Store) -> Option<(u64, u64)> {
    let log = topic.log(Track::Messages);
    let number = log.epoch_first();
    let entry = log.entry(store, number).filter(|entry| entry.kind == Kind::Epoch)?;
    Some((entry.at, log.entry_end(store, number)))
}

fn media(topic: &Topic, store: &Store, cursor: Cursor, track: Track, now: Instant, lag_ms_max: u64) -> Ahead {
    let log = topic.log(track);
    let newest = topic.newest_group(track);
    if cursor.is_placed() && cursor.at >= log.start() {
        let lags = newest.is_some_and(|group| {
            cursor.sequence < group.sequence && now.since(group.started) >= lag_ms_max && cursor.at < group.at
        });
        if !lags {
            return stream(topic, track, cursor);
        }
    }
    // A starting place from an earlier decision is used as long as the log holds it.
    if !cursor.is_placed() && cursor.at & !OWED >= log.start() {
        let entry = topic.first_start(store, track, cursor.at & !OWED);
        let Some(entry) = entry.filter(|entry| cursor.sequence == 0 || entry.sequence == cursor.sequence) else {
            return Ahead::Nothing;
        };
        let place = Cursor { sequence: entry.sequence, at: entry.at };
        // A page that has been sent nothing yet and would lag there starts with the newest group,
        // without a gap.
        let lags = cursor.sequence == 0
            && topic
                .group(store, track)
                .is_some_and(|group| entry.sequence < group.sequence && now.since(group.started) >= lag_ms_max);
        if !lags && entry.kind == Kind::Init {
            return Ahead::Placed(place);
        }
        if !lags && let Some((number, init)) = topic.init_before(store, track, entry.sequence) {
            let to = topic.init_log(track).entry_end(store, number);
            return Ahead::Init { from: init.at, to, after: place };
        }
    }
    // Otherwise, and if it was overtaken or lags, it continues with the newest group.
    let Some(group) = topic.group(store, track).filter(|group| group.sequence >= cursor.sequence) else {
        return if cursor.is_placed() && cursor.at >= log.start() {
            stream(topic, track, cursor)
        } else {
            Ahead::Nothing
        };
    };
    let lacks_init = !cursor.is_placed() || group.init >= cursor.sequence;
    let after = if lacks_init {
        Cursor::owed(group.sequence, group.at)
    } else {
        Cursor { sequence: group.sequence, at: group.at }
    };
    if cursor.sequence != 0 && cursor.sequence < group.sequence {
        return gap_to(cursor.sequence, group.sequence, after);
    }
    if cursor == after { Ahead::Nothing } else { Ahead::Placed(after) }
}

/// The cursors of a late page that starts on `messages` at a place.
#[must_use]
pub fn late_cursors(topic: &Topic, store: &Store, messages: Cursor) -> [Cursor; 4] {
    let media = |track| Cursor::owed(0, topic.late_media(store, track));
    [Cursor::UNSET, messages, media(Track::Audio), media(Track::Video)]
}

/// The cursors of a page after the notice of a new epoch: it gets everything of that epoch.
#[must_use]
pub fn epoch_cursors(topic: &Topic, messages: Cursor) -> [Cursor; 4] {
    let media = |track| Cursor::owed(0, topic.log(track).epoch_at());
    [Cursor::UNSET, messages, media(Track::Audio), media(Track::Video)]
}

/// Everything from a place in the log to its end.
fn stream(topic: &Topic, track: Track, cursor: Cursor) -> Ahead {
    let log = topic.log(track);
    if cursor.at >= log.end() {
        return Ahead::Nothing;
    }
    let after = Cursor { sequence: topic.behind(track), at: log.end() };
    Ahead::Frames { from: cursor.at, to: log.end(), after, passes_epoch: false }
}

fn gap_to(from: u64, next: u64, after: Cursor) -> Ahead {
    debug_assert!(from < next, "a gap must cover something");
    Ahead::Gap { to: next - 1, after }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{BOARD, OWN, Rig, SHARED, gap, message};
    use wire::{Track, uplink::Part};

    #[test]
    fn a_late_page_gets_the_last_messages_of_its_replay() {
        let mut rig = Rig::up(&BOARD);
        rig.viewer();
        rig.messages(1..=4);
        let late = rig.page();
        rig.subscribe(late, 5, "link");
        assert_eq!(rig.read(late)[1..], [message(3), message(4)]);
    }

    #[test]
    fn a_returning_page_gets_what_it_missed_and_a_gap_for_what_is_gone() {
        let mut rig = Rig::up(&BOARD);
        rig.viewer();
        rig.messages(1..=7);
        let back = rig.page();
        rig.say(back, r#"{"type":"subscribe","id":1,"link":"link","since":{"epoch":"1","next":[0,2,0,0]}}"#);
        assert_eq!(rig.read(back)[1..], [gap("messages", 2, 3), message(4), message(5), message(6), message(7)]);
    }

    #[test]
    fn an_overtaken_page_continues_with_a_gap_and_the_oldest_message() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.messages(1..=1);
        assert_eq!(rig.read(page), [message(1)]);
        rig.messages(2..=9);
        let read = rig.read(page);
        assert_eq!(read[0], gap("messages", 2, 5));
        assert_eq!(read[1..], [message(6), message(7), message(8), message(9)]);
    }

    #[test]
    fn a_page_gets_only_the_newest_state() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        for sequence in 1..=3 {
            rig.publish(7, Track::State, sequence, Part::Whole, b"{}");
        }
        assert_eq!(rig.read(page), [r#"{"type":"state","topic":7,"sequence":3,"data":{}}"#]);
        assert_eq!(rig.read(page), [""; 0]);
    }

    #[test]
    fn a_late_page_begins_media_with_the_init_in_force_at_its_group() {
        let mut rig = Rig::up(&BOARD);
        let first = rig.viewer();
        rig.publish(7, Track::Audio, 1, Part::Init { mime: "a" }, b"i");
        rig.publish(7, Track::Audio, 2, Part::Start, b"s");
        rig.publish(7, Track::Audio, 3, Part::Start, b"s");
        rig.publish(7, Track::Audio, 4, Part::Continue, b"c");
        let late = rig.page();
        rig.subscribe(late, 5, "link");
        assert_eq!(rig.read(late)[1..], ["2 1 1", "2 2 3", "2 3 4"]);
        assert_eq!(rig.read(first).len(), 4);
    }

    #[test]
    fn a_page_that_lags_gets_a_gap_and_the_newest_group() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.publish(7, Track::Video, 1, Part::Init { mime: "v" }, b"i");
        rig.publish(7, Track::Video, 2, Part::Start, b"s");
        assert_eq!(rig.read(page), ["3 1 1", "3 2 2"]);
        rig.publish(7, Track::Video, 3, Part::Continue, b"c");
        rig.publish(7, Track::Video, 4, Part::Start, b"s");
        rig.now = rig.now.after(BOARD.media_lag_ms_max.into());
        assert_eq!(rig.read(page), [gap("video", 3, 3), "3 2 4".to_owned()]);
    }

    #[test]
    fn a_lagging_page_that_was_sent_nothing_gets_no_gap() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        for (sequence, part) in [(1, Part::Init { mime: "v" }), (2, Part::Start), (3, Part::Start)] {
            rig.publish(7, Track::Video, sequence, part, b"x");
        }
        rig.now = rig.now.after(BOARD.media_lag_ms_max.into());
        assert_eq!(rig.read(page), ["3 1 1", "3 2 3"]);
    }

    #[test]
    fn a_new_epoch_follows_the_rest_of_the_old_one() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.messages(1..=2);
        let other = rig.page();
        rig.subscribe(other, 1, "other");
        let request = rig.said().iter().find_map(|said| said.split(' ').nth(1)?.parse().ok());
        rig.accept(request.unwrap(), 7, 2, OWN);
        rig.messages(1..=1);
        let read = rig.read(page);
        let epoch = r#"{"type":"epoch","topic":7,"epoch":"2"}"#.to_owned();
        assert_eq!(read, [message(1), message(2), epoch, message(1)]);
    }

    #[test]
    fn messages_that_no_page_got_before_the_epoch_ended_are_a_gap() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.messages(1..=3);
        let renewed = rig.page();
        rig.subscribe(renewed, 1, "other");
        let request = rig.said().iter().find_map(|said| said.split(' ').nth(1)?.parse().ok());
        rig.accept(request.unwrap(), 7, 2, SHARED);
        rig.messages(1..=5);
        let read = rig.read(page);
        assert_eq!(read[..2], [gap("messages", 1, 3), r#"{"type":"epoch","topic":7,"epoch":"2"}"#.to_owned()]);
        assert_eq!(read[2..], [gap("messages", 1, 1), message(2), message(3), message(4), message(5)]);
    }
}
