//! Pusher's door: a request of Pusher's server libraries, from its head to its answer.
//!
//! Owns the order of what is checked (the client's requests under way, the signature, then the
//! body) and what several publications of one request are: looked at together, so that one topic
//! that has ended refuses all of them, then published in their order up to the first that is
//! refused. Refusals are plain text, which is what these libraries show. What a request means says
//! `pusher.rs`; limits and places are the API's.

use std::{collections::HashSet, net::IpAddr, time::Duration};

use http_body_util::Full;
use hub::{
    Name,
    call::{Answer, Call},
    engine::{Append, Part, Refusal as Ended},
};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, HeaderName, HeaderValue},
    http::request::Parts,
};
use tokio::time::sleep;
use wire::Track;

use super::{
    Api, answers, auth,
    body::{self, Reply},
    places,
    problem::{Problem, shortened},
    pusher::{self, Head, Publication, Refusal},
};
use crate::shared::Shared;

/// All publications of a request have this time together. After it, whether the one that was under
/// way is published is not known.
const PUBLISH_TIME: Duration = Duration::from_secs(30);

/// The app among the callers whose bodies are bounded; no key has this name.
const CALLER: &str = "[pusher]";

/// An answer that is not 200.
struct Refused {
    status: StatusCode,
    text: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { status: problem.status(), text: problem.detail().to_owned(), headers: problem.headers().to_vec() }
    }
}

impl From<Refusal> for Refused {
    fn from(Refusal { status, text }: Refusal) -> Self {
        let headers = if status == 405 { vec![(ALLOW, HeaderValue::from_static("POST"))] } else { Vec::new() };
        Self { status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), text: shortened(text), headers }
    }
}

/// Whether a path is one of Pusher's API.
pub fn is_here(path: &str) -> bool {
    path.starts_with("/apps/") || path.starts_with("/users/")
}

/// Answers a request of Pusher's API.
pub async fn answer(api: &Api, peer: IpAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, mut body) = request.into_parts();
    match attend(api, peer, &head, &mut body).await {
        // As these libraries know it, to the byte.
        Ok(()) => body::response(Ok(Reply::text("application/json", "{}".to_owned()))),
        Err(Refused { status, text, headers }) => body::text(status, &headers, text),
    }
}

async fn attend(api: &Api, peer: IpAddr, head: &Parts, body: &mut Incoming) -> Result<(), Refused> {
    auth::refuse_other_sites(&head.headers)?;
    let settings = api.settings();
    let Some(app) = &settings.pusher else {
        let text = "this hub has no app for Pusher's libraries: set app_id, key and secret_file below [pusher]";
        return Err(Refusal { status: 404, text: text.to_owned() }.into());
    };
    let _place = places::of_request(api, &settings, &head.headers, peer)?;
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    let now_s = api.shared.moment().unix_us / 1_000_000;
    let signed = pusher::verify(app, &Head { method: head.method.as_str(), path, query }, now_s)?;
    body::demand_type(&head.headers, "application/json")?;
    let received = body::read(&api.bodies, CALLER, body, settings.limits.batch_size_max).await?;
    let publications = signed.read(&received.bytes, settings.limits.json_size_max)?;
    publish(&api.shared, publications).await
}

async fn publish(shared: &Shared, publications: Vec<Publication>) -> Result<(), Refused> {
    let count = publications.len();
    let deadline = sleep(PUBLISH_TIME);
    tokio::pin!(deadline);
    if count > 1 {
        tokio::select! {
            looked = look(shared, &publications) => looked?,
            () = &mut deadline => return Err(unanswered()),
        }
    }
    for (done, Publication { topic, data }) in publications.into_iter().enumerate() {
        let append =
            Append { track: Track::Messages, part: Part::Whole, data, key: None, replaces: None, stream: None };
        let answer = tokio::select! {
            answer = answers::call(shared, Call::Publish { topic: topic.clone(), append }) => answer,
            () = &mut deadline => Answer::Unavailable,
        };
        if !matches!(answer, Answer::Published { .. }) {
            return Err(refused(answer, &topic, done, count));
        }
    }
    Ok(())
}

/// Looks whether each topic takes publications, before the first one is published.
async fn look(shared: &Shared, publications: &[Publication]) -> Result<(), Refused> {
    let mut seen = HashSet::new();
    for topic in publications.iter().map(|publication| &publication.topic) {
        if !seen.insert(topic) {
            continue;
        }
        let answer = match answers::call(shared, Call::Topic { topic: topic.clone() }).await {
            // The first publication opens it.
            Answer::Missing => continue,
            Answer::Topic(view) => match view.attached.ended {
                Some(reason) => Answer::Refused(Ended::Ended(reason)),
                None => continue,
            },
            other => other,
        };
        if answer == Answer::Unavailable {
            return Err(unanswered());
        }
        let problem = answers::problem(answer, "");
        let text = format!("nothing was published: {:?}: {}", topic.as_str(), problem.detail());
        return Err(Refused { text, ..problem.into() });
    }
    Ok(())
}

/// The engine was silent before anything was published.
fn unanswered() -> Refused {
    let text = "nothing was published: the engine does not answer; send it again".to_owned();
    Refused { text, ..answers::problem(Answer::Unavailable, "").into() }
}

/// Why publication number `done` of `count` failed; those before it are published.
fn refused(answer: Answer, topic: &Name, done: usize, count: usize) -> Refused {
    let topic = topic.as_str();
    let problem = answers::problem(answer, "there is no such topic");
    let is_unknown = problem.status() == StatusCode::SERVICE_UNAVAILABLE;
    let why = match is_unknown {
        true => "the engine does not answer, and whether this was published is not known",
        false => problem.detail(),
    };
    let text = if count == 1 {
        format!("{topic:?}: {why}")
    } else if done == 0 && !is_unknown {
        format!("nothing was published: {topic:?}: {why}")
    } else {
        format!(
            "published: the first {done} of {count}, in the order of the request; then {topic:?}: {why}; what comes after it was not published: send again what is missing alone"
        )
    };
    // Sent again as a whole, what is published would come twice.
    let headers = if done == 0 { problem.headers().to_vec() } else { Vec::new() };
    Refused { status: problem.status(), text, headers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_not_sent_back_whole() {
        let refusal = Refusal { status: 400, text: "x".repeat(1 << 20) };
        assert!(Refused::from(refusal).text.len() < 2000);
    }

    #[test]
    fn an_engine_that_is_silent_is_told_with_what_is_known() {
        let topic = Name::new("c").unwrap();
        for (done, count, begin, may_be_sent_again) in [
            (0, 1, "\"c\": the engine does not answer, and whether", true),
            (0, 3, "published: the first 0 of 3, in the order of the request; then \"c\": the engine", true),
            (2, 3, "published: the first 2 of 3, in the order of the request; then \"c\": the engine", false),
        ] {
            let Refused { status, text, headers } = refused(Answer::Unavailable, &topic, done, count);
            assert!(status == 503 && text.starts_with(begin), "{text}");
            assert!(!text.contains("idempotency"), "these libraries have no key: {text}");
            assert_eq!(headers.iter().any(|(name, _)| name == "retry-after"), may_be_sent_again);
        }
        let Refused { status, text, headers } = unanswered();
        assert!(status == 503 && text.starts_with("nothing was published") && headers.len() == 1, "{text}");
    }
}
