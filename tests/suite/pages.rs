//! Pages on real sockets: tungstenite's own frames beside the relay's.

use std::net::TcpListener;
use std::time::Duration;

use async_tungstenite::tungstenite::Message;

use crate::world::{Business, Process, connect, next_text};

/// tungstenite queues the pong; it goes out through the control slot without a frame of the relay's
/// own.
#[test]
fn a_ping_is_answered_at_once_however_quiet_the_page_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Process::start("pings", listener.local_addr().unwrap());
    let mut business = Business::meet(&listener);
    let mut page = connect(relay.address);
    page.send(r#"{"type":"subscribe","id":1,"link":"pings"}"#.into()).unwrap();
    business.accept(7);
    assert!(next_text(&mut page).contains("subscribed"));
    // Well before the relay's next frame, 15 s after the last one, which would flush it.
    page.get_ref().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for number in 0..100_u8 {
        page.send(Message::Ping(vec![number].into())).unwrap();
        match page.read().expect("a pong by itself") {
            Message::Pong(said) => assert_eq!(said[..], [number]),
            other => panic!("{other:?} came in place of a pong"),
        }
        std::thread::sleep(Duration::from_millis(u64::from(number % 7)));
    }
}
