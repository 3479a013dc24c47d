//! Picture and sound: streams on real sockets, with recordings of a browser.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{ApiKey, DEADLINE, KEY, Server, rest, until};

const MP4: &[u8] = include_bytes!("../../../../crates/media/testdata/h264.mp4");
const WEBM: &[u8] = include_bytes!("../../../../crates/media/testdata/vp8.webm");
const SOUND: &[u8] = include_bytes!("../../../../crates/media/testdata/opus.webm");
const MKV: &[u8] = include_bytes!("../../../../crates/media/testdata/h264.mkv");

/// One request whose body is written bit by bit.
struct Stream(TcpStream);

impl Stream {
    async fn open(server: &Server, topic: &str, authorization: &str) -> Self {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!(
            "PUT /v1/topics/{topic}/media HTTP/1.1\r\nHost: hub\r\nAuthorization: {authorization}\r\n\
             Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        Self(stream)
    }

    /// Sends a chunk. The server may have ended the stream.
    async fn send(&mut self, bytes: &[u8]) {
        let head = format!("{:x}\r\n", bytes.len());
        let _ = self.0.write_all(&[head.as_bytes(), bytes, b"\r\n"].concat()).await;
    }

    /// Waits until the server asks for the body.
    async fn continued(&mut self) {
        let mut said = [0; 25];
        timeout(DEADLINE, self.0.read_exact(&mut said)).await.unwrap().unwrap();
        assert_eq!(&said, b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    /// Ends the body.
    async fn end(mut self) -> (u16, Value) {
        let _ = self.0.write_all(b"0\r\n\r\n").await;
        self.answer().await
    }

    /// The answer, whenever it comes.
    async fn answer(mut self) -> (u16, Value) {
        let (mut said, mut part) = (Vec::new(), [0; 4096]);
        loop {
            let size = timeout(DEADLINE, self.0.read(&mut part)).await.unwrap().unwrap_or(0);
            said.extend(&part[..size]);
            let text = String::from_utf8_lossy(&said).replace("HTTP/1.1 100 Continue\r\n\r\n", "");
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && let Ok(document) = serde_json::from_str(body)
            {
                return (head[9..12].parse().unwrap(), document);
            }
            assert!(size > 0, "no answer: {text:?}");
        }
    }
}

async fn send(server: &Server, topic: &str, recording: &[u8]) -> (u16, Value) {
    let mut stream = Stream::open(server, topic, &format!("Bearer {KEY}")).await;
    for part in recording.chunks(3_000) {
        stream.send(part).await;
    }
    stream.end().await
}

async fn live(server: &Server, topic: &str) -> (bool, bool) {
    let got = server.call("GET", &format!("/v1/topics/{topic}"), "").await.json();
    (got["live"]["video"].as_bool().unwrap(), got["live"]["audio"].as_bool().unwrap())
}

/// Waits until a stream is taken, which ends at once.
async fn gets_in(server: &Server, topic: &str, authorization: &str) {
    until(async || {
        let mut stream = Stream::open(server, topic, authorization).await;
        stream.send(SOUND).await;
        stream.end().await.0 == 200
    })
    .await;
}

#[tokio::test]
async fn a_recording_becomes_an_init_segment_and_groups_under_its_mime_type() {
    let server = Server::start().await;
    for (topic, recording, track, mime) in [
        ("mp4", MP4, "video", "video/mp4; codecs=\"opus,avc1.42C015\""),
        ("webm", WEBM, "video", "video/webm; codecs=\"vp8,opus\""),
        ("sound", SOUND, "audio", "audio/webm; codecs=\"opus\""),
    ] {
        let relay = server.relay("box");
        server.shared.change(|hub, _| {
            let settings = hub::admission::Settings { links: hub::admission::Links::Dev, ..hub.admission().clone() };
            hub.set_admission(settings);
        });
        relay.subscribe(1, topic);
        let (status, ended) = send(&server, topic, recording).await;
        assert_eq!((status, &ended["mime"]), (200, &json!(mime)), "{topic}: {ended}");
        let (groups, chunks) = (ended["groups"].as_u64().unwrap(), ended["chunks"].as_u64().unwrap());
        assert!((3..=4).contains(&groups) && chunks >= groups, "{topic}: {ended}");
        let frames = relay.received();
        let of_track: Vec<&String> = frames.iter().filter(|frame| frame.starts_with(track)).collect();
        let init = format!("{track} Init {{ mime: {mime:?} }} of");
        assert!(of_track[0].starts_with(&init) && of_track[1].contains("Start"), "{topic}: {of_track:?}");
        // A relay that reads late begins at the newest group.
        let is_chunk = |frame: &&String| frame.contains(" Start of ") || frame.contains(" Continue of ");
        assert!(of_track.iter().skip(2).all(is_chunk), "{topic}: {of_track:?}");
    }
}

#[tokio::test]
async fn a_topic_is_live_as_long_as_its_stream() {
    let server = Server::start().await;
    let mut stream = Stream::open(&server, "room", &format!("Bearer {KEY}")).await;
    stream.continued().await;
    for part in MP4.chunks(3_000).take(8) {
        stream.send(part).await;
    }
    until(async || server.call("GET", "/v1/topics/room", "").await.status == 200).await;
    until(async || live(&server, "room").await == (true, false)).await;
    drop(stream);
    until(async || live(&server, "room").await == (false, false)).await;
    let (status, _) = send(&server, "room", MP4).await;
    assert_eq!(status, 200, "another one may follow at once");
    assert_eq!(live(&server, "room").await, (false, false));
}

#[tokio::test]
async fn a_key_or_a_token_opens_it_also_as_a_password() {
    let server = Server::start().await;
    let basic = |password: &str| format!("Basic {}", STANDARD.encode(format!("any:{password}")));
    let made = server.call("POST", "/v1/topics/app%2Froom/ingest-tokens", "{\"ttl_s\":600}").await.json();
    let token = made["token"].as_str().unwrap();
    for authorization in [format!("Bearer {KEY}"), basic("slk_studio"), basic(token), format!("bearer {token}")] {
        let mut stream = Stream::open(&server, "app%2Froom", &authorization).await;
        stream.continued().await;
        stream.send(SOUND).await;
        assert_eq!(stream.end().await.0, 200, "{authorization}");
    }
    // Refused before the body is asked for.
    for (topic, authorization, status, code) in [
        ("room", basic("slk_studio"), 403, "outside_prefix"),
        ("app%2Froom%2F2", basic(token), 403, "outside_prefix"),
        ("room", "Bearer slk_publisher".to_owned(), 403, "missing_scope"),
        ("room", basic("slk_nobody"), 401, "unknown_key"),
        ("room", basic(&format!("{token}x")), 401, "unknown_key"),
        ("room", "Digest x".to_owned(), 401, "unknown_key"),
    ] {
        let (got, document) = Stream::open(&server, topic, &authorization).await.answer().await;
        assert_eq!((got, &document["code"]), (status, &json!(code)), "{authorization}: {document}");
    }
    let text = server.raw(b"PUT /v1/topics/room/media HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 401 ") && text.contains("www-authenticate: Basic realm="), "{text}");
    // A token opens nothing else.
    let other = server.call_as(token, "GET", "/v1/topics/app%2Froom", &[], "").await;
    assert_eq!((other.status.as_u16(), other.problem()["code"].as_str()), (401, Some("unknown_key")));
}

#[tokio::test]
async fn a_token_that_is_revoked_ends_its_stream_and_begins_no_other() {
    let server = Server::start().await;
    let made = server.call("POST", "/v1/topics/room/ingest-tokens", "").await.json();
    let token = made["token"].as_str().unwrap();
    let mut stream = Stream::open(&server, "room", &format!("Bearer {token}")).await;
    stream.send(&MP4[..20_000]).await;
    until(async || server.call("GET", "/v1/topics/room", "").await.status == 200).await;
    let body = json!({ "token": token, "reason": "your time is over" }).to_string();
    let revoked = server.call("POST", "/v1/revoke", &body).await;
    assert!(revoked.status == 200 && revoked.json()["ttl_s"].as_u64().unwrap() > 3600, "{revoked:?}");
    let (status, document) = stream.answer().await;
    assert_eq!(
        (status, &document["code"], &document["reason"]),
        (403, &json!("token_revoked"), &json!("your time is over"))
    );
    // Before the body is asked for.
    assert_eq!(Stream::open(&server, "room", &format!("Bearer {token}")).await.answer().await.0, 403);
    for body in ["{}", &json!({ "token": "slt_x" }).to_string(), &json!({ "token": token, "link": "a" }).to_string()] {
        assert_eq!(server.call("POST", "/v1/revoke", body).await.status, 422, "{body}");
    }
}

#[tokio::test]
async fn one_stream_has_a_track_and_gives_way_to_its_owner_alone() {
    let server = Server::start().await;
    let mut first = Stream::open(&server, "app%2Froom", &format!("Bearer {KEY}")).await;
    first.send(&MP4[..20_000]).await;
    until(async || server.call("GET", "/v1/topics/app%2Froom", "").await.status == 200).await;
    until(async || live(&server, "app%2Froom").await.0).await;
    let mut other = Stream::open(&server, "app%2Froom", "Bearer slk_studio").await;
    other.send(&MP4[..20_000]).await;
    let (status, document) = other.answer().await;
    assert_eq!((status, &document["code"]), (409, &json!("already_live")), "{document}");
    // Sound is another track.
    let mut sound = Stream::open(&server, "app%2Froom", "Bearer slk_studio").await;
    sound.send(SOUND).await;
    assert_eq!(sound.end().await.0, 200);
    // The same key, once the first has sent nothing for a second.
    let mut again = loop {
        let mut again = Stream::open(&server, "app%2Froom", &format!("Bearer {KEY}")).await;
        again.continued().await;
        again.send(&MP4[..20_000]).await;
        let mut byte = [0];
        // Refused at once, or under way.
        if timeout(Duration::from_millis(300), again.0.peek(&mut byte)).await.is_err() {
            break again;
        }
        assert_eq!(again.answer().await.0, 409);
    };
    let (status, document) = first.answer().await;
    assert_eq!((status, &document["code"]), (409, &json!("already_live")), "the first one is over: {document}");
    for part in MP4[20_000..].chunks(8_000) {
        again.send(part).await;
    }
    assert_eq!(again.end().await.0, 200);
}

#[tokio::test]
async fn what_pages_can_not_play_is_refused_with_its_remedy() {
    let server = Server::start().await;
    let mut bare = MP4.to_vec();
    let place = bare.windows(4).position(|kind| kind == b"mvex").unwrap();
    bare[place] = b'x';
    let mut large = MP4.to_vec();
    large.extend([0, 0x20, 0, 0]);
    large.extend(b"moof");
    // What `ffmpeg -f fifo` sends without -flags +global_header.
    let mut empty = MP4.to_vec();
    let place = empty.windows(4).position(|kind| kind == b"avcC").unwrap();
    empty[place] = b'x';
    // What ffmpeg sends without +empty_moov: the first pictures stand in the header.
    let begin = MP4.windows(4).position(|kind| kind == b"moof").unwrap() - 4;
    let first = [&MP4[..begin], &[0, 0, 0, 12][..], b"mdat", &[0; 4]].concat();
    for (what, bytes, said) in [
        ("an image", &b"GIF89a................"[..], "neither WebM nor fragmented MP4: send fragmented MP4"),
        ("no fragments", &bare, "does not begin with fragments: add -movflags +frag_keyframe"),
        ("no fragment at first", &first, "does not begin with fragments: add -movflags +frag_keyframe+empty_moov"),
        ("no configuration", &empty, "lacks a codec's configuration: let the encoder write it there"),
        ("H.264 in Matroska", MKV, "browsers don't play V_MPEG4/ISO/AVC in this container: use H.264 with AAC"),
        ("a huge fragment", &large, "too large: use shorter fragments"),
        ("in the middle", &MP4[2_000..], "neither WebM nor fragmented MP4"),
    ] {
        let (status, document) = send(&server, "room", bytes).await;
        let detail = document["detail"].as_str().unwrap();
        assert!(status == 422 && document["code"] == "invalid_media" && detail.contains(said), "{what}: {document}");
    }
    let (status, document) = send(&server, "room", &MP4[..100]).await;
    assert!(status == 422 && document["detail"].as_str().unwrap().contains("before its header"), "{document}");
}

#[tokio::test]
async fn a_group_or_chunk_that_boxes_would_drop_is_refused_with_its_remedy() {
    let mut settings = super::settings();
    settings.limits.group_size_max = 5_000;
    let server = Server::start_with(super::hub_settings(), hub::memory::Limits::default(), settings).await;
    let (status, document) = send(&server, "room", MP4).await;
    assert!(status == 422 && document["detail"].as_str().unwrap().contains("since the last keyframe"), "{document}");
    let mut settings = super::settings();
    settings.limits.chunk_size_max = 2_000;
    server.set(settings);
    let (status, document) = send(&server, "room", MP4).await;
    assert!(status == 422 && document["detail"].as_str().unwrap().contains("-frag_duration"), "{document}");
}

#[tokio::test]
async fn an_ended_topic_takes_no_stream_and_ends_the_one_it_has() {
    let server = Server::start().await;
    let mut stream = Stream::open(&server, "room", &format!("Bearer {KEY}")).await;
    stream.send(&MP4[..20_000]).await;
    until(async || server.call("GET", "/v1/topics/room", "").await.status == 200).await;
    until(async || live(&server, "room").await.0).await;
    assert_eq!(server.call("DELETE", "/v1/topics/room", "{\"reason\":\"good night\"}").await.status, 204);
    let (status, document) = stream.answer().await;
    assert_eq!((status, &document["code"], &document["reason"]), (409, &json!("topic_ended"), &json!("good night")));
    // Before the body is asked for.
    let (status, document) = Stream::open(&server, "room", &format!("Bearer {KEY}")).await.answer().await;
    assert_eq!((status, &document["code"], &document["reason"]), (409, &json!("topic_ended"), &json!("good night")));
}

#[tokio::test]
async fn a_hub_that_ends_ends_its_streams_at_once() {
    let mut server = Server::start().await;
    let mut stream = Stream::open(&server, "room", &format!("Bearer {KEY}")).await;
    stream.send(&MP4[..20_000]).await;
    until(async || server.call("GET", "/v1/topics/room", "").await.status == 200).await;
    server.end();
    let (status, document) = stream.answer().await;
    assert_eq!((status, &document["code"]), (503, &json!("ending")));
    timeout(DEADLINE, server.ended()).await.unwrap();
}

#[tokio::test]
async fn streams_have_places() {
    let server = Server::start().await;
    let mut streams = Vec::new();
    for number in 0..4 {
        let mut stream = Stream::open(&server, &format!("room-{number}"), &format!("Bearer {KEY}")).await;
        stream.continued().await;
        streams.push(stream);
    }
    let (status, document) = Stream::open(&server, "room-4", &format!("Bearer {KEY}")).await.answer().await;
    assert_eq!((status, &document["code"]), (507, &json!("full")));
    streams.pop();
    gets_in(&server, "room-4", &format!("Bearer {KEY}")).await;
}

#[tokio::test]
async fn a_stream_that_pauses_for_long_is_over() {
    let server = Server::start().await;
    let mut stream = Stream::open(&server, "room", &format!("Bearer {KEY}")).await;
    stream.send(&MP4[..20_000]).await;
    let text = rest(&mut stream.0).await;
    assert!(text.contains("HTTP/1.1 408 ") && text.contains("nothing came for 10 s"), "{text}");
    until(async || live(&server, "room").await == (false, false)).await;
}

#[tokio::test]
async fn one_token_has_few_places_of_its_topic() {
    let server = Server::start_with_streams(8).await;
    let made = server.call("POST", "/v1/topics/room/ingest-tokens", "").await.json();
    let token = format!("Bearer {}", made["token"].as_str().unwrap());
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = Stream::open(&server, "room", &token).await;
        stream.continued().await;
        streams.push(stream);
    }
    let (status, document) = Stream::open(&server, "room", &token).await.answer().await;
    assert_eq!((status, &document["code"]), (429, &json!("too_many_requests")), "{document}");
    // It keeps nobody else out.
    assert_eq!(send(&server, "room", SOUND).await.0, 200);
    streams.pop();
    gets_in(&server, "room", &token).await;
}

#[tokio::test]
async fn a_header_that_drips_is_over() {
    let server = Server::start().await;
    let mut stream = Stream::open(&server, "room", &format!("Bearer {KEY}")).await;
    stream.continued().await;
    for byte in MP4.chunks(1) {
        stream.send(byte).await;
        sleep(Duration::from_millis(500)).await;
        let mut said = [0];
        if timeout(Duration::from_millis(1), stream.0.peek(&mut said)).await.is_ok() {
            break;
        }
    }
    let (status, document) = stream.answer().await;
    assert!(status == 408 && document["detail"].as_str().unwrap().contains("header was not whole"), "{document}");
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let server = Server::start().await;
    let made = server.call("POST", "/v1/topics/room/ingest-tokens", "{\"ttl_s\":3}").await.json();
    let token = format!("Bearer {}", made["token"].as_str().unwrap());
    let mut stream = Stream::open(&server, "room", &token).await;
    stream.continued().await;
    stream.send(&MP4[..20_000]).await;
    let (status, document) = stream.answer().await;
    assert!(status == 401 && document["detail"].as_str().unwrap().contains("time is over"), "{document}");
}

#[tokio::test]
async fn a_stream_ends_with_the_key_that_a_reload_takes_away() {
    let server = Server::start().await;
    // The other keys change their places in the list.
    let reload = |studio: Option<ApiKey>| {
        let mut settings = super::settings();
        settings.keys.retain(|key| key.name != "studio");
        settings.keys.splice(0..0, studio);
        server.set(settings);
    };
    let studio = |scopes, below| Some(super::key("studio", scopes, below));
    let made = server.call("POST", "/v1/topics/app%2Ftoken/ingest-tokens", "").await.json();
    let token = format!("Bearer {}", made["token"].as_str().unwrap());
    let mut others = Vec::new();
    for (topic, authorization) in [("app%2Fall", format!("Bearer {KEY}")), ("app%2Ftoken", token)] {
        others.push((topic, Stream::open(&server, topic, &authorization).await));
    }
    let mut parts = MP4.chunks(MP4.len().div_ceil(5));
    // Without a header the stream is none of the topic's yet.
    for (left, size, status, code) in [
        (None, 8, 401, "unknown_key"),
        (None, 20_000, 401, "unknown_key"),
        (studio("publish", "app"), 20_000, 403, "missing_scope"),
        (studio("ingest", "application"), 20_000, 403, "outside_prefix"),
    ] {
        reload(studio("read ingest", ""));
        let mut stream = Stream::open(&server, "app%2Froom", "Bearer slk_studio").await;
        stream.continued().await;
        stream.send(&MP4[..size]).await;
        if size > 8 {
            until(async || server.call("GET", "/v1/topics/app%2Froom", "").await.status == 200).await;
            until(async || live(&server, "app%2Froom").await.0).await;
        }
        reload(left);
        let (got, document) = stream.answer().await;
        assert_eq!((got, &document["code"]), (status, &json!(code)), "{document}");
        if size > 8 {
            until(async || live(&server, "app%2Froom").await == (false, false)).await;
        }
        let part = parts.next().unwrap();
        for (_, stream) in &mut others {
            stream.send(part).await;
        }
    }
    for (topic, mut stream) in others {
        stream.send(parts.clone().next().unwrap()).await;
        assert_eq!(stream.end().await.0, 200, "{topic}");
    }
}

#[tokio::test]
async fn a_token_that_is_revoked_ends_a_stream_without_a_header_too() {
    let server = Server::start().await;
    let made = server.call("POST", "/v1/topics/room/ingest-tokens", "").await.json();
    let token = made["token"].as_str().unwrap();
    let mut stream = Stream::open(&server, "room", &format!("Bearer {token}")).await;
    stream.continued().await;
    stream.send(&MP4[..8]).await;
    assert_eq!(server.call("POST", "/v1/revoke", &json!({ "token": token }).to_string()).await.status, 200);
    assert_eq!(stream.answer().await.0, 403);
}
