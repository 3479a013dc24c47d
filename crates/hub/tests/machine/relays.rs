//! Relays: secrets, what they get of a topic, what they report, and an engine that is gone.

use hub::call::{Answer, Call};
use hub::{Notice, Settings};
use wire::Track;
use wire::uplink::{Since, ToBusiness, author};

use crate::rig::{Heard, Rig, SECRET, name, number, settings, state};

fn published(heard: &[Heard]) -> Vec<(Track, u64)> {
    let place = |heard: &Heard| match heard {
        Heard::Publish { track, sequence, .. } => Some((*track, *sequence)),
        _ => None,
    };
    heard.iter().filter_map(place).collect()
}

#[test]
fn a_late_relay_gets_the_newest_and_one_that_comes_back_what_it_lacks() {
    let mut rig = Rig::new(settings());
    for at in 0..60 {
        rig.say("room", &at.to_string());
    }
    rig.publish("room", state("a", None));
    rig.publish("room", state("b", None));
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "room");
    let heard = rig.hear(&mut relay);
    let Heard::Accept { epoch, .. } = heard[0] else { panic!("{heard:?}") };
    let expected: Vec<_> = (11..=60).map(|at| (Track::Messages, at)).chain([(Track::State, 2)]).collect();
    assert_eq!(published(&heard), expected);

    let mut back = rig.connect("other", SECRET);
    let since = Since { epoch, next: [3, 59, 0, 0] };
    rig.ask_as(&mut back, "room", Some(since), "");
    assert_eq!(published(&rig.hear(&mut back)), [(Track::Messages, 59), (Track::Messages, 60)]);
    rig.say("room", "new");
    for relay in [&mut relay, &mut back] {
        assert_eq!(published(&rig.hear(relay)), [(Track::Messages, 61)]);
    }
}

#[test]
fn a_secret_is_of_one_relay_and_of_its_workers() {
    let business = business::Settings { secrets: vec![b"a".to_vec(), b"b".to_vec()], ..business::Settings::default() };
    let owners = vec![Some("box-a".to_owned()), Some("box-b".to_owned())];
    let mut rig = Rig::new(Settings { business, owners, ..settings() });
    for (relay, secret, is_good) in
        [("box-a", b"a", true), ("box-a/1", b"a", true), ("box-b", b"a", false), ("box-ab", b"a", false)]
    {
        let relay = rig.connect(relay, secret);
        assert_eq!(rig.has(&relay), is_good);
    }
    assert!(rig.notes.iter().any(|note| note.contains("its secret is that of a relay with another name")));
}

#[test]
fn a_relay_whose_secret_is_removed_is_sent_away_and_no_other() {
    let mut rig = Rig::new(settings());
    rig.hub.set_secrets(rig.now, vec![b"one".to_vec(), b"two".to_vec()], vec![None, None]);
    let (one, two) = (rig.connect("one", b"one"), rig.connect("two", b"two"));
    assert!(rig.has(&one) && rig.has(&two));
    rig.hub.set_secrets(rig.now, vec![b"two".to_vec(), b"three".to_vec()], vec![None, None]);
    assert!(!rig.has(&one) && rig.has(&two));
    rig.hub.set_secrets(rig.now, vec![b"two".to_vec()], vec![Some("another".to_owned())]);
    assert!(!rig.has(&two), "it is another relay's now");
}

#[test]
fn two_relays_of_one_name_are_noted() {
    let mut rig = Rig::new(settings());
    let _first = rig.connect("box", SECRET);
    let _second = rig.connect("box", SECRET);
    assert!(rig.notes.iter().any(|note| note.contains("so is another of that name")), "{:?}", rig.notes);
}

#[test]
fn a_page_message_and_the_audience_are_told() {
    let mut rig = Rig::new(settings());
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "room");
    let topic = number("room");
    rig.tell(&relay, &ToBusiness::Audience { topic, pages: 2 });
    rig.tell(&relay, &ToBusiness::PageMessage { topic, page: 4, data: "hello" });
    rig.pass(1.1);
    let (relay_name, connection) = ("box".to_owned(), relay.id.number());
    let message = Notice::PageMessage {
        topic: name("room"),
        relay: relay_name,
        connection,
        page: 4,
        data: "hello".to_owned(),
        author: author(&[3; 16], &[4; 16], 4),
        id: None,
    };
    let occupied = Notice::Occupied { topic: name("room") };
    let audience = |pages| Notice::Audience { topic: name("room"), pages };
    assert_eq!(rig.notices, [message, occupied, audience(2)]);
    rig.notices.clear();
    // It changes often, and is told every five seconds.
    for pages in 3..40 {
        rig.tell(&relay, &ToBusiness::Audience { topic, pages });
        rig.pass(0.2);
    }
    assert!((1..4).contains(&rig.notices.len()), "{:?}", rig.notices);
    rig.pass(5.1);
    assert_eq!(rig.notices.pop(), Some(audience(39)));
    // A relay that comes back within ten seconds makes no noise.
    rig.notices.clear();
    rig.hub.disconnect(rig.now, relay.id, business::Ended::Closed("gone".to_owned()));
    rig.pass(9.0);
    assert!(!rig.notices.contains(&Notice::Vacated { topic: name("room") }), "{:?}", rig.notices);
    rig.pass(2.0);
    assert!(rig.notices.contains(&Notice::Vacated { topic: name("room") }), "{:?}", rig.notices);
}

#[test]
fn a_page_hears_that_its_message_was_received_once_somebody_has_it() {
    let mut settings = settings();
    settings.business.limits.receipts_max = 9;
    settings.limits.notices_max = 4;
    let mut rig = Rig::new(settings);
    let mut relay = rig.connect_with_receipts("box", SECRET);
    rig.ask(&mut relay, "room");
    rig.hear(&mut relay);
    let send = |id: u8| ToBusiness::Send { topic: number("room"), page: 4, id: [id; 16], data: "hello" };
    rig.tell(&relay, &send(1));
    rig.tell(&relay, &send(1));
    assert_eq!((rig.notices.len(), rig.hear(&mut relay)), (1, vec![]), "once, and nobody has it yet");
    rig.hub.confirm(&name("room"), &[1; 16]);
    assert_eq!(rig.hear(&mut relay), [Heard::Sent { page: 4, id: 1 }]);
    rig.tell(&relay, &send(1));
    assert_eq!((rig.notices.len(), rig.hear(&mut relay)), (1, vec![Heard::Sent { page: 4, id: 1 }]));
    // One of another topic is another one, whatever its id, and says nothing about this one.
    rig.ask(&mut relay, "other");
    rig.hear(&mut relay);
    rig.tell(&relay, &ToBusiness::Send { topic: number("other"), page: 5, id: [1; 16], data: "hello" });
    assert_eq!((rig.notices.len(), rig.hear(&mut relay)), (2, vec![]));
    rig.tell(&relay, &send(1));
    assert_eq!((rig.notices.len(), rig.hear(&mut relay)), (2, vec![Heard::Sent { page: 4, id: 1 }]));
    rig.hub.confirm(&name("other"), &[1; 16]);
    assert_eq!(rig.hear(&mut relay), [Heard::Sent { page: 5, id: 1 }]);
    rig.notices.truncate(1);
    // What has no room is dropped, and may come again.
    rig.holds_notices = true;
    for id in 2..6 {
        rig.tell(&relay, &send(id));
    }
    assert_eq!(rig.hub.notices_dropped(), 2);
    rig.holds_notices = false;
    rig.pass(0.1);
    rig.tell(&relay, &send(5));
    assert_eq!(rig.notices.len(), 4, "{:?}", rig.notices);
}

#[test]
fn a_topic_that_nobody_holds_is_let_go() {
    let mut rig = Rig::new(settings());
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "room");
    rig.tell(&relay, &ToBusiness::Unsubscribe { topic: number("room") });
    rig.pass(62.0);
    let Answer::Fleet(fleet) = rig.call(Call::Fleet) else { panic!() };
    assert_eq!(fleet.topics, 0);
    rig.say("room", "kept");
    rig.ask(&mut relay, "room");
    assert_eq!(published(&rig.hear(&mut relay)), [(Track::Messages, 1)], "the engine has it");
}

#[test]
fn without_the_engine_relays_stay_for_ten_seconds() {
    let mut rig = Rig::new(settings());
    let relay = rig.connect("box", SECRET);
    rig.is_cut = true;
    rig.pass(9.0);
    assert!(rig.has(&relay));
    rig.pass(3.0);
    assert!(!rig.has(&relay));
    let again = rig.connect("box", SECRET);
    assert!(!rig.has(&again), "it tries another hub");
    assert_eq!(rig.publish("room", crate::rig::message("x")), Answer::Unavailable);
    rig.is_cut = false;
    rig.pass(2.0);
    let again = rig.connect("box", SECRET);
    assert!(rig.has(&again));
}

#[test]
fn where_rings_or_topics_are_full_others_go_on() {
    let mut settings = settings();
    settings.business.limits.topics_max = 2;
    settings.limits.rings_size_max = 20_000;
    let mut rig = Rig::new(settings);
    let mut relay = rig.connect("box", SECRET);
    for link in ["a", "b", "c"] {
        rig.ask(&mut relay, link);
    }
    assert_eq!(rig.hear(&mut relay).len(), 2, "c stays unanswered");
    assert!(rig.notes.iter().any(|note| note.contains("too many topics")), "{:?}", rig.notes);
    let big = "x".repeat(9_000);
    let answers: Vec<_> = (0..4).map(|_| rig.publish("a", crate::rig::message(&big))).collect();
    let full = Answer::Refused(hub::engine::Refusal::Full(hub::engine::Room::Rings));
    assert_eq!(answers[2..], [full.clone(), full]);
    assert!(matches!(rig.publish("nobody-watches", crate::rig::message(&big)), Answer::Published { .. }));
}
