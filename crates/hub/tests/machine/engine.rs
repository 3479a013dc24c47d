//! The engine `memory`, asked directly: its bounds, times, and what is kept.

use std::time::Duration;

use hub::engine::{Part, Refusal, Reply, Request, Room, Seen};
use hub::memory::Limits;
use hub::{Memory, Moment};
use wire::Track;

use crate::rig::{keyed, message, name, state};

const DAY: u64 = 24 * 3600;

struct Engine(Memory, u64);

impl Engine {
    fn new(limits: Limits) -> Self {
        Self(Memory::new(limits, 1), 0)
    }

    fn ask(&mut self, request: Request) -> Reply {
        let now = Moment { at: Duration::from_secs(self.1), unix_us: 1_000_000_000_000_000 + self.1 * 1_000_000 };
        self.0.handle(now, request)
    }

    fn append(&mut self, topic: &str, append: hub::engine::Append) -> Reply {
        self.ask(Request::Append { topic: name(topic), append, seen: Seen::default() })
    }

    fn media(&mut self, part: Part, size: usize) -> Reply {
        let data = vec![7; size].into();
        self.append("t", hub::engine::Append { track: Track::Video, part, data, ..message("") })
    }

    fn kept(&mut self, track: Track) -> Vec<u64> {
        let request = Request::Read { topic: name("t"), track, from: 0, count_max: 10_000 };
        match self.ask(request) {
            Reply::Entries { entries, .. } => entries.iter().map(|entry| entry.sequence).collect(),
            Reply::Refused(Refusal::Missing) => Vec::new(),
            other => panic!("{other:?}"),
        }
    }
}

fn full(room: Room) -> Reply {
    Reply::Refused(Refusal::Full(room))
}

fn sequence(reply: &Reply) -> u64 {
    match reply {
        Reply::Appended { sequence, .. } => *sequence,
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_are_kept_by_number_and_by_size() {
    let mut engine = Engine::new(Limits { messages_max: 3, ..Limits::default() });
    (0..5).for_each(|_| drop(engine.append("t", message("x"))));
    assert_eq!(engine.kept(Track::Messages), [3, 4, 5]);
    let mut engine = Engine::new(Limits { messages_size_max: 600, ..Limits::default() });
    (0..5).for_each(|_| drop(engine.append("t", message(&"x".repeat(150)))));
    assert_eq!(engine.kept(Track::Messages), [4, 5]);
    engine.append("t", message(&"x".repeat(5_000)));
    assert_eq!(engine.kept(Track::Messages), [6], "the newest is kept, whatever its size");
}

#[test]
fn media_are_kept_from_the_group_before_the_running_one() {
    let init = Part::Init { mime: "video/mp4".into() };
    let mut engine = Engine::new(Limits::default());
    assert!(matches!(engine.media(Part::Start, 10), Reply::Refused(_)), "no init segment yet");
    for part in [init.clone(), Part::Start, Part::Continue, Part::Start, Part::Continue, Part::Start] {
        engine.media(part, 10);
    }
    assert_eq!(engine.kept(Track::Video), [1, 4, 5, 6], "the init segment, then two groups");
    engine.media(init, 10);
    assert_eq!(engine.kept(Track::Video), [7]);
    assert!(matches!(engine.media(Part::Continue, 10), Reply::Refused(_)), "a new group has to start");
    engine.media(Part::Start, 10);
    engine.1 = 181;
    assert_eq!(engine.kept(Track::Video), [0; 0], "after three minutes without a chunk");
}

#[test]
fn what_is_full_says_so_and_changes_nothing() {
    let mut engine = Engine::new(Limits { topics_max: 2, ..Limits::default() });
    sequence(&engine.append("a", message("x")));
    sequence(&engine.append("b", message("x")));
    assert_eq!(engine.append("c", message("x")), full(Room::Topics));
    assert_eq!(sequence(&engine.append("a", message("x"))), 2);

    let mut engine = Engine::new(Limits { size_max: 20_000, ..Limits::default() });
    let mut count = 0;
    while let Reply::Appended { .. } = engine.append(&format!("t{count}"), message("x")) {
        count += 1;
    }
    assert_eq!((engine.append("new", message("x")), engine.0.topic_count()), (full(Room::Memory), count));
    assert!(engine.0.size() <= 20_000 && count > 10, "{count} topics");

    let mut engine = Engine::new(Limits { keys_max: 1, ..Limits::default() });
    sequence(&engine.append("t", keyed("x", "one")));
    assert_eq!(engine.append("t", keyed("y", "two")), full(Room::Keys));
    assert_eq!(sequence(&engine.append("t", message("x"))), 2, "without a key it is taken");

    let mut engine = Engine::new(Limits { revocations_max: 1, ..Limits::default() });
    let revoke = |link: u8| Request::Revoke { link: [link; 32], reason: "r".into(), ttl_s: 60 };
    assert_eq!((engine.ask(revoke(1)), engine.ask(revoke(2))), (Reply::Done, full(Room::Revocations)));
    assert_eq!(engine.ask(revoke(1)), Reply::Done, "the same one again");
    engine.1 = 61;
    assert_eq!(engine.ask(revoke(2)), Reply::Done, "the first one is over");
}

#[test]
fn the_memory_is_counted_exactly_and_comes_back() {
    let mut engine = Engine::new(Limits::default());
    let empty = engine.0.size();
    for round in 0..50 {
        engine.append("t", keyed(&"x".repeat(round), &round.to_string()));
        engine.append("t", state(&"y".repeat(100 * round), None));
        engine.media(if round % 5 == 0 { Part::Init { mime: "m".into() } } else { Part::Start }, 1000);
        engine.ask(Request::Remove { topic: name("t"), sequence: 3, tombstone: b"{}"[..].into() });
    }
    assert!(engine.0.size() > empty + 5_000);
    engine.ask(Request::End { topic: name("t"), reason: "r".into() });
    engine.1 = 2 * DAY;
    engine.ask(Request::Position);
    assert_eq!((engine.0.size(), engine.0.topic_count()), (empty, 0));
}

#[test]
fn a_topic_in_use_does_not_expire_and_an_expired_one_begins_a_new_epoch() {
    let mut engine = Engine::new(Limits::default());
    let epoch = |reply| match reply {
        Reply::Attached(Some(attached)) => attached.epoch,
        other => panic!("{other:?}"),
    };
    sequence(&engine.append("t", message("x")));
    let first = epoch(engine.ask(Request::Look { topic: name("t") }));
    for _ in 0..3 {
        engine.1 += DAY - 1;
        assert_eq!(epoch(engine.ask(Request::Attach { topic: name("t"), seen: Seen::default() })), first);
    }
    engine.1 += DAY;
    assert_eq!(engine.ask(Request::Look { topic: name("t") }), Reply::Attached(None));
    assert!(epoch(engine.ask(Request::Attach { topic: name("t"), seen: Seen::default() })) > first);
}

#[test]
fn a_key_publishes_once_for_five_minutes() {
    let mut engine = Engine::new(Limits::default());
    let first = engine.append("t", keyed("x", "k"));
    assert_eq!(sequence(&first), 1);
    let again = engine.append("t", keyed("x", "k"));
    assert!(matches!(again, Reply::Appended { sequence: 1, is_repeated: true, .. }), "{again:?}");
    assert_eq!(engine.append("t", keyed("other", "k")), Reply::Refused(Refusal::KeyReused));
    assert_eq!(sequence(&engine.append("u", keyed("x", "k"))), 1, "another topic has its own keys");
    engine.1 = 300;
    assert_eq!(sequence(&engine.append("t", keyed("x", "k"))), 2, "the key is forgotten");
}

#[test]
fn a_state_is_replaced_if_it_is_still_the_same() {
    let mut engine = Engine::new(Limits::default());
    assert_eq!(engine.append("t", state("a", Some(3))), Reply::Refused(Refusal::Replaced(0)));
    assert_eq!(engine.0.topic_count(), 0, "and no topic was opened for it");
    assert_eq!(sequence(&engine.append("t", state("a", Some(0)))), 1);
    assert_eq!(engine.append("t", state("b", Some(0))), Reply::Refused(Refusal::Replaced(1)));
    assert_eq!(sequence(&engine.append("t", state("b", Some(1)))), 2);
}

#[test]
fn topics_are_listed_by_name_below_a_prefix() {
    let mut engine = Engine::new(Limits::default());
    for topic in ["b/2", "a", "b", "b/1", "bc", "c"] {
        engine.append(topic, message("x"));
    }
    engine.ask(Request::End { topic: name("b/1"), reason: "r".into() });
    let mut list = |after: &str, prefix: &str, count_max| match engine.ask(Request::List {
        after: after.to_owned(),
        prefix: prefix.to_owned(),
        count_max,
    }) {
        Reply::Topics(rows) => rows.iter().map(|(name, ended)| format!("{name} {ended}")).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(list("", "", 2), ["a false", "b false"]);
    assert_eq!(list("b", "", 9), ["b/1 true", "b/2 false", "bc false", "c false"]);
    assert_eq!(list("", "b", 9), ["b false", "b/1 true", "b/2 false"], "not bc");
    assert_eq!(list("a", "b/", 1), ["b/1 true"]);
    assert_eq!(list("b/1", "b/", 9), ["b/2 false"]);
    assert_eq!((list("c", "b", 9), list("", "no name", 9)), (vec![], vec![]));
}

#[test]
fn a_media_track_has_one_stream_at_a_time() {
    use hub::engine::{Lease, StreamId};
    let mut engine = Engine::new(Limits::default());
    let lease = |engine: &mut Engine, stream: u64, owner: u8, begins: bool| {
        let lease = Lease { stream: StreamId(stream), owner: [owner; 32] };
        engine.ask(Request::Lease { topic: name("t"), track: Track::Video, lease, begins })
    };
    let init = |engine: &mut Engine, stream: u64| {
        let part = Part::Init { mime: "video/mp4".into() };
        let stream = Some(StreamId(stream));
        engine.append("t", hub::engine::Append { track: Track::Video, part, stream, ..message("") })
    };
    let live = |engine: &mut Engine| match engine.ask(Request::Look { topic: name("t") }) {
        Reply::Attached(Some(attached)) => attached.is_live[1],
        other => panic!("{other:?}"),
    };
    let leased = Reply::Refused(Refusal::Leased);
    assert_eq!(init(&mut engine, 1), leased, "without a lease");
    assert_eq!(lease(&mut engine, 1, b'a', true), Reply::Done);
    assert_eq!((sequence(&init(&mut engine, 1)), live(&mut engine)), (1, true));
    assert_eq!(lease(&mut engine, 2, b'b', true), leased, "another's");
    assert_eq!(lease(&mut engine, 3, b'a', true), leased, "its owner's, while it sends");
    engine.1 += 1;
    assert_eq!(lease(&mut engine, 2, b'b', true), leased, "another's, whatever it sends");
    assert_eq!(lease(&mut engine, 3, b'a', true), Reply::Done, "it was quiet for a second");
    assert_eq!(init(&mut engine, 1), leased, "the first is over");
    engine.1 += 2;
    assert_eq!(lease(&mut engine, 1, b'a', false), leased, "and does not take it back");
    assert_eq!(sequence(&init(&mut engine, 3)), 2);
    // Without a word it runs out, and is anybody's; who was quiet goes on if nobody came.
    engine.1 += 5;
    assert!(!live(&mut engine));
    assert_eq!(sequence(&init(&mut engine, 3)), 3);
    assert!(live(&mut engine));
    engine.1 += 5;
    assert_eq!(lease(&mut engine, 2, b'b', true), Reply::Done);
    // Asked for again, it holds without a chunk.
    (0..3).for_each(|_| {
        engine.1 += 4;
        assert_eq!(lease(&mut engine, 2, b'b', false), Reply::Done);
    });
    assert!(live(&mut engine));
    engine.ask(Request::Release { topic: name("t"), track: Track::Video, stream: StreamId(3) });
    assert!(live(&mut engine), "given back by another");
    engine.ask(Request::Release { topic: name("t"), track: Track::Video, stream: StreamId(2) });
    assert!(!live(&mut engine));
    assert_eq!(lease(&mut engine, 3, b'a', false), leased, "what is gone is not kept");
    assert_eq!(lease(&mut engine, 4, b'c', true), Reply::Done, "at once");
    // Sound is a track of its own; messages have no stream.
    let other = Lease { stream: StreamId(5), owner: [0; 32] };
    let ask = |track| Request::Lease { topic: name("t"), track, lease: other, begins: true };
    assert_eq!(engine.ask(ask(Track::Audio)), Reply::Done);
    assert!(matches!(engine.ask(ask(Track::Messages)), Reply::Refused(Refusal::Publication(_))));
    engine.ask(Request::End { topic: name("t"), reason: "over".into() });
    assert_eq!(lease(&mut engine, 4, b'c', false), Reply::Refused(Refusal::Ended("over".into())));
}
