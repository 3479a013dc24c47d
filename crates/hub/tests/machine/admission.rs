//! Who may watch: by the webhook, by signed links, in `dev`; herds, failures, revocations.

use hub::admission::{self, Links, Verdict};
use hub::call::{Answer, Call};
use hub::engine::Request;
use hub::link::{LinkKey, Signed, sign};
use hub::rate::Rate;
use hub::{Name, Settings};
use wire::uplink::Grant;

use crate::rig::{GRANT, Heard, Rig, SECRET, name, number, settings, webhook};

fn accept(topic: &str) -> Verdict {
    Verdict::Accept(name(topic), GRANT)
}

fn with(change: impl FnOnce(&mut admission::Settings)) -> Settings {
    let mut settings = webhook();
    change(&mut settings.admission);
    settings
}

fn granted(heard: &[Heard]) -> Vec<(u32, Grant)> {
    let grant = |heard: &Heard| match heard {
        Heard::Accept { request, grant, .. } => Some((*request, *grant)),
        _ => None,
    };
    heard.iter().filter_map(grant).collect()
}

#[test]
fn a_herd_on_one_link_is_one_call() {
    let mut rig = Rig::new(webhook());
    let mut relays: Vec<_> = (0..5).map(|at| rig.connect(&format!("box-{at}"), SECRET)).collect();
    for relay in &mut relays {
        for _ in 0..20 {
            rig.ask(relay, "viral");
        }
    }
    assert_eq!(rig.questions.len(), 1);
    assert_eq!(rig.verdict(accept("room")), "viral");
    for relay in &mut relays {
        let heard = rig.hear(relay);
        assert_eq!(granted(&heard).len(), 20);
        assert!(matches!(heard[0], Heard::Accept { topic, .. } if topic == number("room")));
    }
    let asked = rig.hub.counters();
    assert_eq!((asked.subscribes, asked.accepted), (1, 100));
}

#[test]
fn nobody_is_asked_about_what_is_no_link() {
    let mut rig = Rig::new(webhook());
    let mut relay = rig.connect("box", SECRET);
    for text in ["", "a b", "a/b", "a\n", "\u{fc}"] {
        rig.ask(&mut relay, text);
        assert!(matches!(rig.hear(&mut relay)[..], [Heard::Deny { .. }]), "{text:?}");
    }
    assert!(rig.questions.is_empty());
}

#[test]
fn a_grant_is_remembered_with_the_time_that_is_left_and_refreshed_in_its_last_fifth() {
    let mut rig = Rig::new(webhook());
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "l");
    rig.verdict(accept("room"));
    rig.pass(30.0);
    rig.ask(&mut relay, "l");
    assert_eq!(granted(&rig.hear(&mut relay)), [(1, GRANT), (2, Grant { ttl_s: 70, ..GRANT })]);
    assert!(rig.questions.is_empty());
    rig.pass(51.0);
    rig.ask(&mut relay, "l");
    rig.ask(&mut relay, "l");
    assert_eq!(granted(&rig.hear(&mut relay)).len(), 2, "they are answered at once");
    assert_eq!(rig.questions.len(), 1, "and one call refreshes the grant");
    rig.verdict(accept("room"));
    rig.ask(&mut relay, "l");
    assert_eq!(granted(&rig.hear(&mut relay)), [(5, GRANT)]);
}

#[test]
fn a_grant_for_one_page_is_asked_for_each() {
    let mut rig = Rig::new(webhook());
    let mut relay = rig.connect("box", SECRET);
    let own = Grant { shared: false, ..GRANT };
    for (at, address) in ["10.0.0.1", "10.0.0.2", "10.0.0.1"].into_iter().enumerate() {
        rig.ask_as(&mut relay, "l", None, address);
        let page = rig.questions[0].1.page.clone();
        assert_eq!(page.map(|page| page.0.to_string()).as_deref(), Some(address));
        rig.verdict(Verdict::Accept(name("room"), own));
        assert_eq!(granted(&rig.hear(&mut relay)).len(), 1, "{at}");
    }
}

#[test]
fn a_denial_is_remembered_for_ten_seconds() {
    let mut rig = Rig::new(webhook());
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "l");
    rig.verdict(Verdict::Deny("not yours".into()));
    rig.ask(&mut relay, "l");
    let denied = |request| Heard::Deny { request, reason: "not yours".to_owned() };
    assert_eq!(rig.hear(&mut relay), [denied(1), denied(2)]);
    assert!(rig.questions.is_empty());
    rig.pass(10.1);
    rig.ask(&mut relay, "l");
    assert_eq!(rig.questions.len(), 1);
}

#[test]
fn no_answer_is_no_denial_and_is_asked_again_while_somebody_waits() {
    let mut rig = Rig::new(webhook());
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "l");
    rig.verdict(Verdict::NoAnswer);
    assert_eq!((rig.hear(&mut relay), rig.questions.len()), (vec![], 0), "not at once");
    rig.pass(1.1);
    assert_eq!(rig.questions.len(), 1);
    rig.verdict(accept("room"));
    assert_eq!(granted(&rig.hear(&mut relay)).len(), 1);

    rig.ask(&mut relay, "m");
    rig.verdict(Verdict::NoAnswer);
    for _ in 0..30 {
        rig.pass(1.0);
        while !rig.questions.is_empty() {
            rig.verdict(Verdict::NoAnswer);
        }
    }
    let calls = rig.hub.counters().subscribes;
    assert!((5..14).contains(&calls), "{calls} calls: after 10 s nobody waits any more");
    assert_eq!(rig.hear(&mut relay), []);
}

#[test]
fn a_webhook_that_fails_rests_and_one_call_tries_it_again() {
    let mut rig = Rig::new(with(|admission| admission.failures_max = 3));
    let mut relay = rig.connect("box", SECRET);
    for at in 0..40 {
        rig.ask(&mut relay, &format!("l{at}"));
    }
    assert_eq!(rig.questions.len(), 32, "as many calls as may be under way");
    while !rig.questions.is_empty() {
        rig.verdict(Verdict::NoAnswer);
    }
    assert!(rig.hub.webhook_rests());
    rig.pass(4.9);
    assert_eq!(rig.questions.len(), 0, "it rests");
    rig.pass(0.2);
    assert_eq!(rig.questions.len(), 1, "one call looks whether it answers again");
    rig.verdict(Verdict::Deny("no".into()));
    assert!(!rig.hub.webhook_rests() && rig.questions.len() == 32, "a denial is an answer: all others are made");
}

#[test]
fn unknown_links_have_a_rate_for_each_relay() {
    let mut rig = Rig::new(with(|admission| admission.unknown = Rate { burst: 10, per_s: 5 }));
    let (mut guesser, mut other) = (rig.connect("guesser", SECRET), rig.connect("other", SECRET));
    for at in 0..50 {
        rig.ask(&mut guesser, &format!("guess-{at}"));
    }
    assert_eq!(rig.questions.len(), 10);
    rig.ask(&mut other, "good");
    assert_eq!(rig.questions.len(), 11, "another relay has its own");
    rig.pass(1.0);
    for at in 50..100 {
        rig.ask(&mut guesser, &format!("guess-{at}"));
    }
    assert_eq!(rig.questions.len(), 16);
    assert_eq!(rig.hear(&mut guesser), [], "the others stay unanswered");
}

#[test]
fn what_waits_is_bounded_and_renewals_come_first() {
    let mut rig = Rig::new(with(|admission| {
        (admission.calls_max, admission.queued_max, admission.waiting_max) = (1, 3, 4);
    }));
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "old");
    rig.verdict(accept("room"));
    rig.pass(101.0);
    for at in 0..5 {
        rig.ask(&mut relay, &format!("new-{at}"));
    }
    assert_eq!(rig.questions.len(), 1, "one call at a time");
    rig.ask(&mut relay, "old");
    assert_eq!(rig.verdict(Verdict::Deny("no".into())), "new-0");
    rig.ask(&mut relay, "old");
    let mut order = Vec::new();
    while !rig.questions.is_empty() {
        order.push(rig.verdict(Verdict::Deny("no".into())));
    }
    assert_eq!(order, ["new-1", "old", "new-2"], "the queue was full for the other newcomers; the renewal overtook");
}

#[test]
fn a_signed_link_says_what_it_shows_until_its_end() {
    let key = LinkKey { id: 1, key: vec![9; 32] };
    let mut settings = with(|admission| (admission.links, admission.keys) = (Links::Signed, vec![key.clone()]));
    settings.admission.ttl_s = 300;
    let mut rig = Rig::new(settings);
    let mut relay = rig.connect("box", SECRET);
    let end_s = (rig.moment().unix_us / 1_000_000) as u32 + 400;
    let signed = Signed { topic: name("room"), shared: false, page_messages: true, replay: 7, end_s };
    let link = sign(&key, &signed, [1, 2, 3, 4]);
    let grant = Grant { shared: false, ttl_s: 300, page_messages: true, replay: 7 };
    rig.ask(&mut relay, &link);
    rig.pass(250.0);
    rig.ask(&mut relay, &link);
    assert_eq!(granted(&rig.hear(&mut relay)), [(1, grant), (2, Grant { ttl_s: 150, ..grant })]);
    rig.pass(150.0);
    rig.ask(&mut relay, &link);
    rig.ask(&mut relay, "guessed");
    let heard = rig.hear(&mut relay);
    let denied = |request, reason: &str| Heard::Deny { request, reason: reason.to_owned() };
    assert_eq!(heard, [denied(3, "this link has expired"), denied(4, "there is no such link")]);
    assert!(rig.questions.is_empty());
}

#[test]
fn in_dev_a_link_is_the_name_of_its_topic() {
    let mut rig = Rig::new(settings());
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "room-7");
    rig.ask(&mut relay, &"x".repeat(65));
    let heard = rig.hear(&mut relay);
    assert!(matches!(heard[0], Heard::Accept { topic, .. } if topic == number("room-7")));
    assert!(matches!(heard[1], Heard::Deny { .. }), "{heard:?}");
}

#[test]
fn a_revoked_link_is_out_also_where_the_webhook_answers_late() {
    let mut rig = Rig::new(webhook());
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "l");
    rig.verdict(accept("room"));
    rig.ask(&mut relay, "late");
    rig.hear(&mut relay);
    for link in ["l", "late"] {
        let call = Call::Revoke { link: link.to_owned(), reason: "gone".into(), ttl_s: 60 };
        assert_eq!(rig.call(call), Answer::Done);
    }
    let heard = rig.hear(&mut relay);
    assert!(heard.contains(&Heard::Revoke { link: "l".to_owned() }), "{heard:?}");
    assert!(heard.contains(&Heard::Deny { request: 2, reason: "gone".to_owned() }), "{heard:?}");
    rig.verdict(accept("room"));
    rig.ask(&mut relay, "l");
    rig.ask(&mut relay, "late");
    let denied = |request| Heard::Deny { request, reason: "gone".to_owned() };
    assert_eq!(rig.hear(&mut relay), [denied(3), denied(4)]);
    rig.pass(61.0);
    rig.ask(&mut relay, "late");
    assert_eq!(rig.questions.len(), 1, "the revocation is over: the webhook says what holds now");
}

#[test]
fn a_new_hub_knows_what_was_revoked_and_an_engine_that_lost_it_gets_it_back() {
    let mut rig = Rig::new(webhook());
    let revoke = Call::Revoke { link: "l".to_owned(), reason: "gone".into(), ttl_s: 600 };
    assert_eq!(rig.call(revoke), Answer::Done);
    rig.hub = hub::Hub::new(webhook());
    rig.pass(1.1);
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "l");
    assert_eq!(rig.hear(&mut relay), [Heard::Deny { request: 1, reason: "gone".to_owned() }]);

    rig.engine = hub::Memory::new(hub::memory::Limits::default(), 8);
    rig.pass(3.0);
    rig.hub = hub::Hub::new(webhook());
    rig.pass(1.1);
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "l");
    assert_eq!(rig.hear(&mut relay), [Heard::Deny { request: 1, reason: "gone".to_owned() }]);
}

#[test]
fn an_engine_without_room_for_revocations_that_it_had_lost_is_told_of() {
    let mut rig = Rig::new(webhook());
    for link in ["a", "b", "c"] {
        let revoke = Call::Revoke { link: link.to_owned(), reason: "gone".into(), ttl_s: 600 };
        assert_eq!(rig.call(revoke), Answer::Done);
    }
    let limits = |revocations_max| hub::memory::Limits { revocations_max, ..hub::memory::Limits::default() };
    rig.pass(1.1);
    // It is known to be another one at the second tick, and asked at the third.
    rig.engine = hub::Memory::new(limits(1), 8);
    rig.pass(2.4);
    let is_told = |note: &&String| note.contains("nobody is admitted: raise [limits] revocations");
    assert_eq!(rig.notes.iter().filter(is_told).count(), 1, "{:?}", rig.notes);
    rig.pass(5.0);
    assert_eq!(rig.notes.iter().filter(is_told).count(), 1, "not each second: {:?}", rig.notes);
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "d");
    assert_eq!((rig.hear(&mut relay), rig.questions.len()), (Vec::new(), 0));
    // With room, everybody comes in again.
    rig.engine = hub::Memory::new(limits(9), 9);
    rig.pass(3.0);
    rig.ask(&mut relay, "d");
    assert_eq!(rig.questions.len(), 1);
    rig.engine = hub::Memory::new(limits(1), 10);
    rig.pass(3.0);
    assert_eq!(rig.notes.iter().filter(is_told).count(), 2, "it is another time: {:?}", rig.notes);
}

#[test]
fn nobody_is_admitted_before_the_engine_took_back_what_it_had_lost() {
    let mut rig = Rig::new(webhook());
    for link in ["a", "b"] {
        let revoke = Call::Revoke { link: link.to_owned(), reason: "gone".into(), ttl_s: 600 };
        assert_eq!(rig.call(revoke), Answer::Done);
    }
    let mut relay = rig.connect("box", SECRET);
    rig.pass(1.1);
    let is_restore = |request: &Request| matches!(request, Request::Revoke { .. });
    let restores = |rig: &Rig| rig.held.iter().filter(|(_, request, _)| is_restore(request)).count();
    rig.engine = hub::Memory::new(hub::memory::Limits::default(), 8);
    rig.pass(1.0);
    rig.is_slow = true;
    rig.pass(1.0);
    rig.arrives(|request| *request == Request::Revocations);
    rig.arrives(is_restore);
    // The other one has no answer, and is not sent again.
    for _ in 0..3 {
        rig.arrives(|request| *request == Request::Position);
        rig.pass(1.0);
    }
    rig.ask(&mut relay, "d");
    assert_eq!((restores(&rig), rig.questions.len(), rig.hear(&mut relay)), (1, 0, Vec::new()));
    // What the process before has taken is not known to the next one.
    rig.arrives(|request| *request == Request::Position);
    rig.engine = hub::Memory::new(hub::memory::Limits::default(), 9);
    rig.pass(1.0);
    rig.arrives(|request| *request == Request::Position);
    rig.arrives(is_restore);
    rig.ask(&mut relay, "d");
    assert_eq!(rig.questions.len(), 0);
    rig.pass(1.0);
    rig.arrives(|request| *request == Request::Revocations);
    for link in ["a", "b"] {
        rig.ask(&mut relay, link);
        assert_eq!((rig.questions.len(), rig.hear(&mut relay)), (0, Vec::new()));
        rig.arrives(is_restore);
    }
    rig.ask(&mut relay, "d");
    assert_eq!((restores(&rig), rig.questions.len()), (0, 1));
}

#[test]
fn nobody_is_admitted_before_the_engine_said_what_was_revoked() {
    let mut rig = Rig::new(settings());
    rig.hub = hub::Hub::new(settings());
    rig.is_slow = true;
    rig.pass(0.2);
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "room");
    assert!(!rig.held.iter().any(|(_, request, _)| matches!(request, Request::Attach { .. })), "{:?}", rig.held);
    rig.arrives(|request| *request == Request::Revocations);
    rig.is_slow = false;
    rig.ask(&mut relay, "room");
    assert_eq!(granted(&rig.hear(&mut relay)).len(), 1);
}

#[test]
fn a_revocation_lasts_as_long_as_the_longest_that_anybody_asked_for() {
    let mut rig = Rig::new(settings());
    let revoke = Call::Revoke { link: "l".to_owned(), reason: "gone".into(), ttl_s: 600 };
    assert_eq!(rig.call(revoke), Answer::Done);
    rig.pass(1.1);
    // An engine that knows an earlier one alone.
    rig.engine = hub::Memory::new(hub::memory::Limits::default(), 8);
    let shorter = Request::Revoke { link: admission::hash("l"), reason: "gone".into(), ttl_s: 60 };
    let now = rig.moment();
    rig.engine.handle(now, shorter);
    rig.pass(120.0);
    let mut relay = rig.connect("box", SECRET);
    rig.ask(&mut relay, "l");
    assert_eq!(rig.hear(&mut relay), [Heard::Deny { request: 1, reason: "gone".to_owned() }]);
}

#[test]
fn two_topics_with_one_number_are_never_mixed() {
    // Found by search, with the rig's key.
    let [shown, other] = ["twin/104559", "twin/128253"];
    assert_eq!(number(shown), number(other));
    let mut rig = Rig::new(settings());
    let mut relay = rig.connect("box", SECRET);
    let link = |topic: &str| topic.replace('/', "~");
    let mut settings = webhook();
    settings.limits.calls_max = 10;
    rig.hub = hub::Hub::new(settings);
    rig.pass(1.1);
    relay = {
        drop(relay);
        rig.connect("box", SECRET)
    };
    rig.ask(&mut relay, &link(shown));
    rig.verdict(Verdict::Accept(Name::new(shown).unwrap(), GRANT));
    rig.ask(&mut relay, &link(other));
    rig.verdict(Verdict::Accept(Name::new(other).unwrap(), GRANT));
    rig.say(other, "secret");
    rig.say(shown, "open");
    let heard = rig.hear(&mut relay);
    assert!(matches!(&heard[1], Heard::Deny { request: 2, reason } if reason.contains("has its number")), "{heard:?}");
    assert!(!heard.iter().any(|heard| matches!(heard, Heard::Publish { data, .. } if data.starts_with(b"\"secret"))));
    assert!(rig.notes.iter().any(|note| note.contains(shown) && note.contains(other)), "{:?}", rig.notes);
}
