//! Answers of the engine that come late, or in another order than they were asked for.

use hub::engine::{Bell, Doorbell, Request};
use wire::Track;
use wire::uplink::ToBusiness;

use crate::rig::{Heard, Relay, Rig, SECRET, message, name, number, settings};

fn messages(rig: &mut Rig, relay: &mut Relay) -> Vec<u64> {
    let number = |heard: Heard| match heard {
        Heard::Publish { track: Track::Messages, sequence, .. } => Some(sequence),
        _ => None,
    };
    rig.hear(relay).into_iter().filter_map(number).collect()
}

fn is_read(request: &Request) -> bool {
    matches!(request, Request::Read { track: Track::Messages, .. })
}

fn is_attach(request: &Request) -> bool {
    matches!(request, Request::Attach { .. })
}

#[test]
fn a_read_that_was_made_for_an_earlier_row_is_dropped() {
    let mut rig = Rig::new(settings());
    let mut relay = rig.connect("box", SECRET);
    for text in ["one", "two", "three"] {
        rig.say("room", text);
    }
    rig.ask(&mut relay, "room");
    assert_eq!(messages(&mut rig, &mut relay), [1, 2, 3]);
    rig.is_slow = true;
    rig.publish_elsewhere("room", message("four"));
    // The topic is let go while that is read, and followed anew.
    rig.tell(&relay, &ToBusiness::Unsubscribe { topic: number("room") });
    rig.pass(62.0);
    rig.ask(&mut relay, "room");
    rig.arrives(is_attach);
    let old = rig.arrives(is_read);
    assert!(matches!(old, Request::Read { from: 4, .. }), "{old:?}");
    assert_eq!(messages(&mut rig, &mut relay), [0; 0], "the topic is not loaded");
    rig.arrives(is_read);
    assert_eq!(messages(&mut rig, &mut relay), [1, 2, 3, 4]);
}

#[test]
fn a_doorbell_of_another_epoch_hides_nothing() {
    let mut rig = Rig::new(settings());
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "room");
    rig.say("room", "one");
    let what = Bell::Published(1, Track::Messages, 1000);
    rig.hub.handle_doorbell(Doorbell { topic: name("room"), what });
    rig.pass(0.1);
    rig.publish_elsewhere("room", message("two"));
    assert_eq!(messages(&mut rig, &mut relay), [1, 2]);
}

#[test]
fn a_link_that_was_revoked_while_its_topic_is_loaded_gets_nothing() {
    let mut rig = Rig::new(settings());
    rig.say("room", "one");
    let mut relay = rig.connect("box", SECRET);
    rig.pass(1.1);
    rig.is_slow = true;
    rig.ask(&mut relay, "room");
    // Another hub revoked it. This one hears of it where a new reign begins.
    let revoke = Request::Revoke { link: hub::admission::hash("room"), reason: "gone".into(), ttl_s: 60 };
    let now = rig.moment();
    rig.engine.handle(now, revoke);
    rig.engine.begin_reign(9);
    rig.pass(1.1);
    rig.arrives(|request| *request == Request::Position);
    rig.pass(1.1);
    rig.arrives(|request| *request == Request::Revocations);
    rig.arrives(is_attach);
    rig.arrives(is_read);
    let denied = Heard::Deny { request: 1, reason: "gone".to_owned() };
    assert_eq!(rig.hear(&mut relay), [denied]);
}

#[test]
fn an_answer_that_never_comes_holds_up_nothing_else() {
    let mut rig = Rig::new(settings());
    let mut relay = rig.connect("box", SECRET);
    rig.is_slow = true;
    rig.ask(&mut relay, "stuck");
    rig.ask(&mut relay, "room");
    rig.arrives(|request| matches!(request, Request::Attach { topic, .. } if *topic == name("room")));
    let heard = rig.hear(&mut relay);
    assert!(matches!(heard[..], [Heard::Accept { request: 2, .. }]), "{heard:?}");
}
