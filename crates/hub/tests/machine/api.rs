//! Calls of the API, and what relays see of them.

use hub::call::{Answer, Call};
use hub::engine::Refusal;
use hub::memory::Limits;
use wire::Track;
use wire::uplink::ToBusiness;

use crate::rig::{Heard, Rig, SECRET, keyed, message, name, number, settings, state};

fn texts(heard: &[Heard]) -> Vec<String> {
    let text = |heard: &Heard| match heard {
        Heard::Publish { track: Track::Messages, sequence, data, .. } => {
            Some(format!("{sequence} {}", String::from_utf8_lossy(data)))
        }
        _ => None,
    };
    heard.iter().filter_map(text).collect()
}

#[test]
fn a_message_that_is_taken_down_is_gone_for_late_pages_and_told_to_others() {
    let mut rig = Rig::new(settings());
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "room");
    for text in ["one", "two", "three"] {
        rig.say("room", text);
    }
    rig.hear(&mut relay);
    let answer = rig.call(Call::Remove { topic: name("room"), sequence: 2 });
    assert!(matches!(answer, Answer::Published { sequence: 4, .. }), "{answer:?}");
    let removed = r#"{"kind":"removed","sequence":2}"#;
    assert_eq!(texts(&rig.hear(&mut relay)), [format!("4 {removed}")]);
    let mut late = rig.connect("late", SECRET);
    rig.ask(&mut late, "room");
    let expected = [r#"1 "one""#.to_owned(), format!("2 {removed}"), r#"3 "three""#.to_owned(), format!("4 {removed}")];
    assert_eq!(texts(&rig.hear(&mut late)), expected);
    let Answer::Messages { entries, .. } = rig.call(Call::Messages { topic: name("room"), from: 2, count_max: 1 })
    else {
        panic!()
    };
    assert_eq!(entries[0].data[..], *removed.as_bytes(), "in the engine too");
    assert_eq!(rig.call(Call::Remove { topic: name("room"), sequence: 9 }), Answer::Missing);
    rig.call(Call::End { topic: name("room"), reason: "closed".into() });
    assert_eq!(rig.call(Call::Remove { topic: name("room"), sequence: 3 }), Answer::Done, "nobody is there to be told");
    rig.call(Call::Open { topic: name("room") });
    let Answer::Messages { entries, .. } = rig.call(Call::Messages { topic: name("room"), from: 3, count_max: 1 })
    else {
        panic!()
    };
    assert_eq!(entries[0].data[..], *br#"{"kind":"removed","sequence":3}"#);
    assert_eq!(rig.call(Call::Remove { topic: name("nowhere"), sequence: 1 }), Answer::Missing);
}

#[test]
fn a_message_that_is_taken_down_twice_is_told_once() {
    let mut rig = Rig::new(settings());
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "room");
    for text in ["one", "two"] {
        rig.say("room", text);
    }
    let remove = |sequence| Call::Remove { topic: name("room"), sequence };
    let place = |answer| match answer {
        Answer::Published { sequence, is_repeated, .. } => (sequence, is_repeated),
        other => panic!("{other:?}"),
    };
    assert_eq!(place(rig.call(remove(1))), (3, false));
    assert_eq!(place(rig.call(remove(2))), (4, false), "another one");
    rig.hear(&mut relay);
    assert_eq!(place(rig.call(remove(1))), (3, true));
    assert_eq!(rig.hear(&mut relay), []);
    // What says so may be taken down itself; then nobody was told.
    rig.call(remove(3));
    assert_eq!(place(rig.call(remove(1))), (6, false));
}

#[test]
fn a_message_that_the_history_has_lost_is_taken_down_once_too() {
    let mut rig = Rig::with(settings(), Limits { messages_max: 2, ..Limits::default() });
    for text in ["one", "two", "three"] {
        rig.say("room", text);
    }
    let mut remove = || match rig.call(Call::Remove { topic: name("room"), sequence: 1 }) {
        Answer::Published { sequence, is_repeated, .. } => (sequence, is_repeated),
        other => panic!("{other:?}"),
    };
    assert_eq!([remove(), remove()], [(4, false), (4, true)]);
}

#[test]
fn an_ended_topic_takes_nothing_until_it_is_opened_in_the_same_epoch() {
    let mut rig = Rig::new(settings());
    let mut relay = rig.connect("box", SECRET);
    rig.say("room", "one");
    rig.ask(&mut relay, "room");
    rig.hear(&mut relay);
    assert_eq!(rig.call(Call::End { topic: name("room"), reason: "closed".into() }), Answer::Done);
    assert_eq!(rig.hear(&mut relay), [Heard::End { reason: "closed".to_owned() }]);
    rig.ask(&mut relay, "room");
    assert_eq!(rig.hear(&mut relay), [Heard::Deny { request: 2, reason: "closed".to_owned() }]);
    assert_eq!(rig.publish("room", message("x")), Answer::Refused(Refusal::Ended("closed".into())));
    assert_eq!(rig.call(Call::Open { topic: name("room") }), Answer::Done);
    assert_eq!(rig.say("room", "two"), 2);
    rig.ask(&mut relay, "room");
    assert_eq!(texts(&rig.hear(&mut relay)), [r#"1 "one""#, r#"2 "two""#]);
}

#[test]
fn a_repeated_key_is_published_once() {
    let mut rig = Rig::new(settings());
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "room");
    let first = rig.publish("room", keyed("x", "k"));
    let again = rig.publish("room", keyed("x", "k"));
    assert!(matches!(first, Answer::Published { sequence: 1, is_repeated: false, .. }));
    assert!(matches!(again, Answer::Published { sequence: 1, is_repeated: true, .. }));
    assert_eq!(texts(&rig.hear(&mut relay)).len(), 1);
    assert_eq!(rig.hub.counters().published, 1);
}

#[test]
fn a_topic_is_shown_with_its_state_and_its_audience() {
    let mut rig = Rig::new(settings());
    assert_eq!(rig.call(Call::Topic { topic: name("room") }), Answer::Missing);
    rig.publish("room", state("title", None));
    rig.say("room", "hello");
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "room");
    rig.tell(&relay, &ToBusiness::Audience { topic: number("room"), pages: 3 });
    let Answer::Topic(view) = rig.call(Call::Topic { topic: name("room") }) else { panic!() };
    assert_eq!(view.attached.next, [2, 2, 1, 1]);
    assert_eq!(view.state.unwrap().data[..], *b"\"title\"");
    assert_eq!(view.audience, [("box".to_owned(), 3)]);
}

#[test]
fn a_page_is_kicked_by_relay_connection_and_number() {
    let mut rig = Rig::new(settings());
    let mut relay = rig.connect("box", SECRET);
    let connection = relay.id.number();
    let kick =
        |relay: &str, connection| Call::Kick { relay: relay.to_owned(), connection, page: 5, reason: "spam".into() };
    assert_eq!(rig.call(kick("box", connection)), Answer::Done);
    assert_eq!(rig.hear(&mut relay), [Heard::Kick { page: 5 }]);
    assert_eq!(rig.call(kick("other", connection)), Answer::Missing);
    assert_eq!(rig.call(kick("box", connection + 1)), Answer::Missing);
}

#[test]
fn the_fleet_shows_its_relays() {
    let mut rig = Rig::new(settings());
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "a");
    rig.ask(&mut relay, "b");
    rig.tell(&relay, &ToBusiness::Audience { topic: number("a"), pages: 3 });
    rig.tell(&relay, &ToBusiness::Audience { topic: number("b"), pages: 1 });
    rig.pass(7.0);
    let Answer::Fleet(fleet) = rig.call(Call::Fleet) else { panic!() };
    let row = &fleet.relays[0];
    assert_eq!((&*row.name, row.connection, row.up_s, row.pages, row.topics), ("box", relay.id.number(), 7, 4, 2));
    assert!(fleet.engine_up && fleet.topics == 2);
}

#[test]
fn streams_are_told_as_they_begin_and_end_once_each() {
    use hub::Notice;
    use hub::engine::{Lease, StreamId};
    let mut rig = Rig::new(settings());
    let (topic, track, token) = (name("room"), Track::Video, hub::admission::hash("slt_token"));
    let call = |stream, begins| Call::Lease {
        topic: topic.clone(),
        track,
        lease: Lease { stream: StreamId(stream), owner: [stream as u8; 32] },
        begins,
        token: (stream == 2).then_some(token),
    };
    let release = |stream| Call::Release { topic: topic.clone(), track, stream: StreamId(stream) };
    let started = || Notice::StreamStarted { topic: topic.clone(), track };
    let ended = || Notice::StreamEnded { topic: topic.clone(), track };
    assert_eq!((rig.call(call(1, true)), rig.call(call(1, false))), (Answer::Done, Answer::Done));
    assert_eq!(rig.call(call(2, true)), Answer::Refused(Refusal::Leased));
    assert_eq!(rig.call(release(2)), Answer::Done, "it has nothing");
    assert_eq!(rig.notices.split_off(0), [started()]);
    assert_eq!((rig.call(release(1)), rig.call(release(1))), (Answer::Done, Answer::Done));
    assert_eq!(rig.notices.split_off(0), [ended()]);
    // A token that is revoked ends its stream at the next word.
    assert_eq!(rig.call(call(2, true)), Answer::Done);
    let link = "slt_token".to_owned();
    assert_eq!(rig.call(Call::Revoke { link, reason: "enough".into(), ttl_s: 60 }), Answer::Done);
    assert_eq!(rig.call(call(2, false)), Answer::Revoked("enough".into()));
    assert_eq!(rig.call(release(2)), Answer::Done, "nothing is left of it");
    assert_eq!(rig.notices.split_off(0), [started(), ended()]);
    // So does the end of the topic.
    assert_eq!(rig.call(call(2, true)), Answer::Revoked("enough".into()));
    rig.pass(6.0);
    assert_eq!(rig.call(call(3, true)), Answer::Done);
    rig.call(Call::End { topic: topic.clone(), reason: "over".into() });
    assert_eq!(rig.call(call(3, false)), Answer::Refused(Refusal::Ended("over".into())));
    assert_eq!(rig.call(release(3)), Answer::Done, "nothing is left of it");
    assert_eq!(rig.notices.split_off(0), [started(), ended()]);
}

#[test]
fn where_a_stream_takes_over_from_another_the_topic_stays_live() {
    use hub::Notice;
    use hub::engine::{Lease, StreamId};
    let mut limits = settings();
    limits.limits.calls_max = 1;
    let mut rig = Rig::new(limits);
    let (topic, track) = (name("room"), Track::Video);
    let call = |stream, begins| {
        let lease = Lease { stream: StreamId(stream), owner: [7; 32] };
        Call::Lease { topic: topic.clone(), track, lease, begins, token: None }
    };
    let release = |stream| Call::Release { topic: topic.clone(), track, stream: StreamId(stream) };
    assert_eq!(rig.call(call(1, true)), Answer::Done);
    rig.pass(2.0);
    assert_eq!(rig.call(call(2, true)), Answer::Done, "the first one was quiet");
    assert_eq!(rig.call(call(1, false)), Answer::Refused(Refusal::Leased));
    assert_eq!(rig.call(release(1)), Answer::Done);
    let started = Notice::StreamStarted { topic: topic.clone(), track };
    assert_eq!(rig.notices.split_off(0), [started.clone(), started]);
    assert_eq!((rig.call(release(2)), rig.call(release(1))), (Answer::Done, Answer::Done));
    assert_eq!(rig.notices.split_off(0), [Notice::StreamEnded { topic: topic.clone(), track }]);
}
