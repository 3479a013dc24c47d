//! The share page's card: the preview of a pasted link.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use wire::Track;
use wire::uplink::{Part, ToRelay};

use crate::world::{Business, PATIENCE, Process, connect, next_text};

fn get(address: SocketAddr, path: &str) -> String {
    get_as(address, path, "")
}

/// The answer to a request with additional header lines.
fn get_as(address: SocketAddr, path: &str, lines: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n{lines}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_link_with_a_live_grant_shows_its_newest_state_and_no_other_link_does() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Process::start("preview", listener.local_addr().unwrap());
    let mut business = Business::meet(&listener);
    let mut page = connect(relay.address);
    page.send(r#"{"type":"subscribe","id":1,"link":"room"}"#.into()).unwrap();
    business.accept(7);
    assert!(next_text(&mut page).contains("subscribed"));
    let (track, part) = (Track::State, Part::Whole);
    let data = r#"{"title":"灯 <b>&\"","cover":"https://pic.example/a.jpg"}"#.as_bytes();
    business.send(&ToRelay::Publish { topic: 7, track, sequence: 1, part, data });
    assert!(next_text(&mut page).contains("state"));
    let answer = get(relay.address, "/s/room");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(answer.contains("<meta property=\"og:title\" content=\"灯 &lt;b&gt;&amp;&quot;\">"), "{answer}");
    assert!(answer.contains("<meta property=\"og:image\" content=\"https://pic.example/a.jpg\">"));
    business.send(&ToRelay::Revoke { link: "room", reason: "taken back" });
    assert!(next_text(&mut page).contains("end"));
    let browser = "Sec-Fetch-Dest: document\r\n";
    assert!(!get_as(relay.address, "/s/room", browser).contains("og:"), "the grant is gone");
}
