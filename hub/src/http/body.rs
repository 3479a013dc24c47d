//! Bodies: how a request's is read, within limits of size, time and memory, and how an answer's is
//! made.
//!
//! Owns the limits on a body's progress: 10 s for each next part, and 1 KiB/s on average; and the
//! room that all bodies have together, and all answers. Refuses other media types than the route's
//! (415), bodies that are too large (413) or too slow (408), and JSON with fields that are not
//! known or come twice, by name (400). Doesn't know what a body means.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Response, StatusCode,
    body::{Body as _, Bytes, Incoming},
    header::{ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderName, HeaderValue},
};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{error::Category, value::RawValue};
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use super::problem::Problem;

/// All bodies of requests under way together, in bytes: half for the small, half for the large.
/// More are refused as busy.
pub const BODIES_SIZE_MAX: usize = 64 << 20;
const ROOM_SIZE: usize = BODIES_SIZE_MAX / 2;
/// A small body, in bytes: as many as one address has connections fit into their room. So who sends
/// large bodies slowly, or many of them, takes no room of others' messages. The large bodies of one
/// caller have half of theirs: the others always find room.
const SMALL_SIZE_MAX: usize = 96 << 10;

/// The next part of a body must come within this time.
const PART_TIME: Duration = Duration::from_secs(10);
/// A body has this time, and what it brings at this rate (bytes a second) beyond it.
const BODY_TIME: Duration = Duration::from_secs(10);
const RATE_MIN: u64 = 1 << 10;

/// The room that the bodies of requests under way have, in KiB: of the small, of the large, and of
/// each caller's large.
pub struct Bodies {
    /// Of each kind, in bytes; half of it is one caller's.
    size: usize,
    small_size_max: usize,
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    by_caller: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// What a body holds: room of its kind, and a large one that of its caller.
pub type Room = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

impl Bodies {
    /// All of it is free.
    pub fn new() -> Self {
        Self::with(ROOM_SIZE, SMALL_SIZE_MAX)
    }

    /// Room of this size, in bytes, in which nothing is small: each caller has half of it.
    pub fn apart(size: usize) -> Self {
        Self::with(size, 0)
    }

    fn with(size: usize, small_size_max: usize) -> Self {
        let [small, large] = [(); 2].map(|()| Arc::new(Semaphore::new(size >> 10)));
        Self { size, small_size_max, small, large, by_caller: Mutex::default() }
    }

    /// Room for a body of this size, in bytes; for one that is larger than all of it, all of it.
    /// `None` if there is none now.
    fn take(&self, caller: &str, size: usize) -> Option<Room> {
        let room = |of: Arc<Semaphore>, size_max| of.try_acquire_many_owned(size_kib(size, size_max)).ok();
        if size <= self.small_size_max {
            return Some((room(Arc::clone(&self.small), self.size)?, None));
        }
        let own = room(self.of_caller(caller), self.caller_size_max())?;
        Some((room(Arc::clone(&self.large), self.size)?, Some(own)))
    }

    /// The same for an answer: it waits for room, for `time` at most.
    ///
    /// # Errors
    /// There is none.
    pub async fn wait(&self, caller: &str, size: usize, time: Duration) -> Result<Room, Problem> {
        let room = |of: Arc<Semaphore>, size_max| of.acquire_many_owned(size_kib(size, size_max));
        let taken = timeout(time, async {
            if size <= self.small_size_max {
                return Ok((room(Arc::clone(&self.small), self.size).await?, None));
            }
            let own = room(self.of_caller(caller), self.caller_size_max()).await?;
            Ok::<Room, AcquireError>((room(Arc::clone(&self.large), self.size).await?, Some(own)))
        });
        let no_room = || Problem::busy("busy", "too many large answers are on their way; send it again");
        taken.await.ok().and_then(Result::ok).ok_or_else(no_room)
    }

    const fn caller_size_max(&self) -> usize {
        self.size / 2
    }

    /// The room of one caller's large bodies.
    fn of_caller(&self, caller: &str) -> Arc<Semaphore> {
        let mut rows = self.by_caller.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever has no large body under way needs no row.
        rows.retain(|_, own| Arc::strong_count(own) > 1);
        let own = rows.entry(caller.to_owned());
        Arc::clone(own.or_insert_with(|| Arc::new(Semaphore::new(self.caller_size_max() >> 10))))
    }

    /// What a caller holds of its share, or waits with, in KiB.
    #[cfg(test)]
    pub fn held_by(&self, caller: &str) -> usize {
        (self.caller_size_max() >> 10) - self.of_caller(caller).available_permits()
    }
}

/// A size in KiB: at most all of the room.
fn size_kib(size: usize, size_max: usize) -> u32 {
    u32::try_from((size / 1024 + 1).min(size_max >> 10)).unwrap_or(u32::MAX)
}

/// A body that was read. It holds its room until it is dropped.
pub struct Received {
    /// The bytes.
    pub bytes: Vec<u8>,
    _room: Room,
}

/// Refuses a request whose body is not of this media type.
pub fn demand_type(headers: &HeaderMap, expected: &str) -> Result<(), Problem> {
    let wrong =
        |detail: String| Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    if headers.contains_key(CONTENT_ENCODING) {
        return wrong("the body has a Content-Encoding: send it as it is".to_owned());
    }
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let (line, other) = (lines.next().and_then(|line| line.to_str().ok()), lines.next());
    match line {
        Some(line) if other.is_none() && is_type(line, expected) => Ok(()),
        _ => wrong(format!("this route takes JSON in UTF-8: send the header \"Content-Type: {expected}\"")),
    }
}

/// Whether a `Content-Type` is this media type, in UTF-8.
pub fn is_type(line: &str, expected: &str) -> bool {
    let mut parts = line.split(';').map(str::trim);
    parts.next().is_some_and(|media| media.eq_ignore_ascii_case(expected))
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
                value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

/// Whether a request has no body.
pub fn is_empty(body: &Incoming) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}

/// Reads a caller's body of at most this size.
pub async fn read(bodies: &Bodies, caller: &str, body: &mut Incoming, size_max: usize) -> Result<Received, Problem> {
    let too_large = || {
        let detail = format!("the body is larger than {size_max} bytes, the maximum of this route: see [limits]");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail).closing()
    };
    let hint = body.size_hint();
    let said = hint.exact().map(|size| usize::try_from(size).unwrap_or(usize::MAX));
    if said.is_some_and(|size| size > size_max) {
        return Err(too_large());
    }
    let Some(room) = bodies.take(caller, said.unwrap_or(size_max)) else {
        return Err(Problem::busy("busy", "too many bodies are on their way; send it again").closing());
    };
    let mut bytes = Vec::with_capacity(said.unwrap_or(0));
    let deadline = sleep(BODY_TIME);
    tokio::pin!(deadline);
    loop {
        let part = tokio::select! {
            part = timeout(PART_TIME, body.frame()) => part.map_err(|_| too_slow())?,
            () = &mut deadline => return Err(too_slow()),
        };
        let Some(part) = part else { return Ok(Received { bytes, _room: room }) };
        let part =
            part.map_err(|error| Problem::bad("broken_body", format!("the body has not come whole: {error}")))?;
        // Trailers mean nothing here.
        let Ok(data) = part.into_data() else { continue };
        if bytes.len() + data.len() > size_max {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
        let earned = Duration::from_millis(data.len() as u64 * 1000 / RATE_MIN);
        let later = deadline.deadline() + earned;
        deadline.as_mut().reset(later);
    }
}

fn too_slow() -> Problem {
    let (part_s, body_s) = (PART_TIME.as_secs(), BODY_TIME.as_secs());
    let detail = format!(
        "the body comes too slowly: its next part has {part_s} s, all of it {body_s} s and 1 s a {RATE_MIN} bytes"
    );
    Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", detail).closing()
}

/// Reads a JSON object: fields that are not known or come twice are refused by name.
pub fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        Category::Data => {
            Problem::bad("invalid_body", format!("the body is not what this route takes: {}", said(&error.to_string())))
        }
        _ => Problem::bad("invalid_json", format!("the body is no JSON: {error}")),
    })
}

/// What serde says, in the words of JSON in place of Rust's. What was sent stands before them.
fn said(error: &str) -> String {
    let (begin, end) = error.split_at(error.rfind(", expected ").unwrap_or(error.len()));
    let mut begin = begin.to_owned();
    for (rust, json) in [("map", "an object"), ("sequence", "an array"), ("unit value", "null")] {
        if begin == format!("invalid type: {rust}") {
            begin = format!("invalid type: {json}");
        }
    }
    let expected = match end.strip_prefix(", expected ").map(|end| end.split_once(" at line ").unwrap_or((end, ""))) {
        Some((what, at)) if what.starts_with("struct ") => format!(", expected an object at line {at}"),
        Some((what, at)) if WHOLE.contains(&what) => format!(", expected a whole number of 0 or more at line {at}"),
        _ => end.to_owned(),
    };
    begin + &expected
}

/// What serde calls a whole number; other numbers are not taken anywhere.
const WHOLE: [&str; 4] = ["a JSON number", "u64", "u32", "u16"];

/// A field that may be any JSON value, `null` included. For `deserialize_with`.
pub fn any_value<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A text where the field is there at all: never `null`. For `deserialize_with`.
pub fn text_if_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// A whole number, which may be written as `7.0`, as some languages do; none where it is `null`.
/// For `deserialize_with`.
pub fn whole<'de, T: TryFrom<u64>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(None) };
    let text = number.to_string();
    let digits = text.strip_suffix(".0").unwrap_or(&text);
    let whole = digits.parse().ok().and_then(|whole: u64| T::try_from(whole).ok());
    whole.map(Some).ok_or_else(|| D::Error::custom(format!("{text} is not a whole number of 0 or more, or too large")))
}

/// What a route answers where nothing went wrong.
#[derive(Debug)]
pub struct Reply {
    status: StatusCode,
    media: &'static str,
    body: Vec<u8>,
    sequence: Option<u64>,
    /// Held until the body was written.
    room: Option<Room>,
}

impl Reply {
    /// A JSON document.
    pub fn json(document: &impl Serialize) -> Result<Self, Problem> {
        let mut body = serde_json::to_vec(document).map_err(|error| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("no answer could be made: {error}"))
        })?;
        // For people at a terminal.
        body.push(b'\n');
        Ok(Self { status: StatusCode::OK, media: "application/json", body, sequence: None, room: None })
    }

    /// A text of this media type.
    pub fn text(media: &'static str, text: String) -> Self {
        Self { status: StatusCode::OK, media, body: text.into_bytes(), sequence: None, room: None }
    }

    /// Done, and nothing to say.
    pub const fn done() -> Self {
        Self { status: StatusCode::NO_CONTENT, media: "application/json", body: Vec::new(), sequence: None, room: None }
    }

    /// With another status.
    pub const fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// With the room in which it was made. What it takes of that is given back once it is written,
    /// the rest now.
    pub fn with_room(mut self, (mut whole, own): Room) -> Self {
        self.body.shrink_to_fit();
        let size = self.body.len();
        let part = |room: &mut OwnedSemaphorePermit| {
            // One that is larger than its room keeps all of it.
            let size_kib = usize::try_from(size_kib(size, ROOM_SIZE)).unwrap_or(usize::MAX);
            room.split(size_kib.min(room.num_permits()))
        };
        let own = own.and_then(|mut own| part(&mut own));
        self.room = part(&mut whole).map(|whole| (whole, own));
        self
    }

    /// With a state's sequence as `ETag`.
    pub const fn with_sequence(mut self, sequence: u64) -> Self {
        self.sequence = Some(sequence);
        self
    }
}

/// The whole answer.
pub fn response(result: Result<Reply, Problem>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let (status, media, body, sequence, room) = match result {
        Ok(Reply { status, media, body, sequence, room }) => (status, media, body, sequence, room),
        Err(problem) => {
            for (name, value) in problem.headers() {
                response.headers_mut().append(name, value.clone());
            }
            let status = problem.status();
            let mut document = serde_json::to_vec(&problem.document()).unwrap_or_default();
            document.push(b'\n');
            (status, "application/problem+json", document, None, None)
        }
    };
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !body.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    }
    if let Some(tag) = sequence.and_then(|sequence| HeaderValue::from_str(&format!("\"{sequence}\"")).ok()) {
        headers.insert(ETAG, tag);
    }
    *response.body_mut() = Full::new(match room {
        Some(room) => Bytes::from_owner(Held { body, _room: room }),
        None => body.into(),
    });
    response
}

/// The bytes of an answer, with their room.
struct Held {
    body: Vec<u8>,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// An answer in plain text.
pub fn text(status: StatusCode, headers: &[(HeaderName, HeaderValue)], text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().extend(headers.iter().cloned());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// 405, with the methods that the path has.
pub fn method_not_allowed(allowed: &str) -> Problem {
    let detail = format!("this path takes {allowed}");
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail);
    match HeaderValue::from_str(allowed) {
        Ok(value) => problem.with(ALLOW, value),
        Err(_) => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_leave_room_for_others_and_for_small_ones() {
        const MIB: usize = 1 << 20;
        const CALLER_SIZE_MAX: usize = ROOM_SIZE / 2;
        let bodies = Bodies::new();
        // A body of 1 MiB less a byte has 1 MiB of room.
        let mut taken: Vec<_> = std::iter::from_fn(|| bodies.take("greedy", MIB - 1)).collect();
        assert_eq!(taken.len(), CALLER_SIZE_MAX / MIB);
        assert!(bodies.take("greedy", 100 << 10).is_none());
        assert!(bodies.take("greedy", SMALL_SIZE_MAX).is_some(), "its own messages too");
        let other = bodies.take("other", MIB - 1).unwrap();
        taken.pop();
        assert!(bodies.take("greedy", MIB - 1).is_some());
        drop((taken, other));
        // Larger than all: it waits for all of the room.
        let all = bodies.take("greedy", usize::MAX - 1).unwrap();
        assert!(bodies.take("greedy", MIB).is_none());
        drop(all);
        assert!(bodies.take("greedy", MIB).is_some());
    }

    #[test]
    fn room_apart_has_a_share_for_each_caller_and_nothing_small() {
        let bodies = Bodies::apart(4 << 20);
        let greedy = [1, 2].map(|_| bodies.take("greedy", (1 << 20) - 1).unwrap());
        assert!(bodies.take("greedy", 1).is_none());
        assert!(bodies.take("other", (1 << 20) - 1).is_some());
        drop(greedy);
        assert!(bodies.take("greedy", 1).is_some());
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_json() {
        #[derive(Debug, Deserialize)]
        struct Said {
            #[serde(default, deserialize_with = "whole")]
            number: Option<u16>,
            plain: Option<u64>,
            flag: Option<bool>,
        }
        for (body, words) in [
            (
                r#"{"number":"7"}"#,
                "invalid type: string \"7\", expected a whole number of 0 or more at line 1 column 13",
            ),
            (r#"{"plain":[]}"#, "invalid type: an array, expected a whole number of 0 or more at line 1 column 9"),
            (r#"{"plain":-1}"#, "invalid value: integer `-1`, expected a whole number of 0 or more at line"),
            (r#"{"number":65536}"#, "65536 is not a whole number of 0 or more, or too large at line 1"),
            (r#"{"number":1.5}"#, "1.5 is not a whole number of 0 or more, or too large at line 1"),
            (r#"{"flag":{}}"#, "invalid type: an object, expected a boolean at line"),
            ("7", "invalid type: integer `7`, expected an object at line 1 column 1"),
            (r#"{"flag":", expected u64"}"#, "string \", expected u64\", expected a boolean at"),
        ] {
            let problem = parse::<Said>(body.as_bytes()).unwrap_err();
            assert!(problem.detail().contains(words), "{body}: {}", problem.detail());
        }
        let Said { number: Some(7), plain: None, flag: None } = parse(br#"{"number":7.0}"#).unwrap() else { panic!() };
    }

    #[test]
    fn an_answer_holds_its_room_until_it_is_written() {
        let answers = Bodies::new();
        let room = answers.take("a", 1 << 20).unwrap();
        let response = response(Reply::json(&"x".repeat(200 << 10)).map(|reply| reply.with_room(room)));
        let taken = || (ROOM_SIZE >> 10) - answers.large.available_permits();
        assert_eq!(taken(), 201, "its own size");
        assert_eq!(answers.held_by("a"), 201);
        drop(response);
        assert_eq!(taken(), 0);
        // Larger than all of it.
        let room = answers.take("a", usize::MAX - 1).unwrap();
        let reply = Reply::json(&"x".repeat(ROOM_SIZE + 1)).unwrap().with_room(room);
        assert_eq!(taken(), ROOM_SIZE >> 10);
        drop(reply);
        assert_eq!(taken(), 0);
    }
}
