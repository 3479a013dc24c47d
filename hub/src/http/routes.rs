//! The table of routes, and the way of a request through it.
//!
//! Owns the order of what is checked: the site of a browser's page, the path (404), the method
//! (405), the client's requests under way (429), the key (401), its scope (403) and its topics
//! (403); then the route reads its query, its headers and its body. What each route does is in the
//! file of its group. `docs/openapi.yaml` has the same table; a test compares them. What Pusher's
//! server libraries call is not in it: `apps.rs` answers that.

use std::net::IpAddr;

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    http::request::Parts,
};

use super::{
    Api,
    asked::{self, Asked},
    auth::{self, Caller, Scope},
    batch,
    body::{self, Reply},
    figures, fleet, links, media, messages, places,
    problem::Problem,
    state, target, tokens, topics,
};

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Publish a message.
    PostMessage,
    /// List the messages that are kept.
    GetMessages,
    /// Take a message down.
    DeleteMessage,
    /// Publish a state.
    PutState,
    /// Show the newest state.
    GetState,
    /// One body to many topics.
    Publish,
    /// Many operations.
    Batch,
    /// Show a topic.
    GetTopic,
    /// List topics.
    GetTopics,
    /// Send picture or sound.
    Media,
    /// Make a token for that.
    IngestToken,
    /// End a topic.
    EndTopic,
    /// Open it again.
    OpenTopic,
    /// Make a link.
    MakeLink,
    /// Revoke one.
    Revoke,
    /// Close a page.
    Kick,
    /// Show who is connected.
    Fleet,
    /// Show what is counted.
    Metrics,
    /// Whether the hub works.
    Health,
}

/// A path with its methods.
pub type Route = (&'static str, &'static [(Method, Operation)]);

/// All routes. `HEAD` is `GET` without a body.
pub const ROUTES: &[Route] = &[
    ("/healthz", &[(Method::GET, Operation::Health)]),
    ("/metrics", &[(Method::GET, Operation::Metrics)]),
    ("/v1/batch", &[(Method::POST, Operation::Batch)]),
    ("/v1/fleet", &[(Method::GET, Operation::Fleet)]),
    ("/v1/kick", &[(Method::POST, Operation::Kick)]),
    ("/v1/links", &[(Method::POST, Operation::MakeLink)]),
    ("/v1/publish", &[(Method::POST, Operation::Publish)]),
    ("/v1/revoke", &[(Method::POST, Operation::Revoke)]),
    ("/v1/topics", &[(Method::GET, Operation::GetTopics)]),
    ("/v1/topics/{topic}", &[(Method::GET, Operation::GetTopic), (Method::DELETE, Operation::EndTopic)]),
    ("/v1/topics/{topic}/ingest-tokens", &[(Method::POST, Operation::IngestToken)]),
    ("/v1/topics/{topic}/media", &[(Method::POST, Operation::Media), (Method::PUT, Operation::Media)]),
    ("/v1/topics/{topic}/messages", &[(Method::GET, Operation::GetMessages), (Method::POST, Operation::PostMessage)]),
    ("/v1/topics/{topic}/messages/{sequence}", &[(Method::DELETE, Operation::DeleteMessage)]),
    ("/v1/topics/{topic}/open", &[(Method::POST, Operation::OpenTopic)]),
    ("/v1/topics/{topic}/state", &[(Method::GET, Operation::GetState), (Method::PUT, Operation::PutState)]),
];

impl Operation {
    /// Whether the answer is about all relays.
    const fn is_of_fleet(self) -> bool {
        matches!(self, Self::Fleet | Self::Metrics)
    }

    /// Whether another answer may be large: also a state's, which has a row for each relay until it
    /// is made.
    const fn makes_much(self) -> bool {
        matches!(self, Self::GetMessages | Self::GetState | Self::GetTopic | Self::GetTopics)
    }

    /// The scope that it demands. A batch demands that of each of its operations.
    const fn scope(self) -> Option<Scope> {
        match self {
            Self::PostMessage | Self::DeleteMessage | Self::PutState | Self::Publish | Self::MakeLink => {
                Some(Scope::Publish)
            }
            Self::GetMessages | Self::GetState | Self::GetTopic | Self::GetTopics | Self::Fleet | Self::Metrics => {
                Some(Scope::Read)
            }
            Self::EndTopic | Self::OpenTopic | Self::Revoke | Self::Kick => Some(Scope::Admin),
            Self::Media | Self::IngestToken => Some(Scope::Ingest),
            Self::Batch | Self::Health => None,
        }
    }
}

/// Answers a request.
pub async fn answer(api: &Api, peer: IpAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
    body::response(attend(api, peer, request).await)
}

async fn attend(api: &Api, peer: IpAddr, request: Request<Incoming>) -> Result<Reply, Problem> {
    let (head, body) = request.into_parts();
    auth::refuse_other_sites(&head.headers)?;
    let segments = target::segments(head.uri.path())?;
    let (methods, topic, sequence) = find(&segments)?;
    let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
    let Some((_, operation)) = methods.iter().find(|(known, _)| known == method) else {
        return Err(body::method_not_allowed(&allowed(methods)));
    };
    if *operation == Operation::Health {
        let [] = target::parameters(head.uri.query(), [])?;
        return fleet::health(api);
    }
    let stream = (*operation == Operation::Media).then(|| media::Sender::of(api, peer, &head.headers, topic));
    let answered = serve(api, peer, *operation, (topic, sequence), head, body).await;
    if let (Some(stream), Err(problem)) = (stream, &answered) {
        stream.tell(problem);
    }
    answered
}

async fn serve(
    api: &Api,
    peer: IpAddr,
    operation: Operation,
    (topic, sequence): (Option<&str>, Option<&str>),
    head: Parts,
    body: Incoming,
) -> Result<Reply, Problem> {
    let settings = api.settings();
    let limits = settings.limits;
    let _place = places::of_request(api, &settings, &head.headers, peer)?;
    let caller = match operation {
        Operation::Media => Caller::of_stream(api, &settings, &head.headers),
        _ => Caller::of(&settings, &head.headers),
    }?;
    if let Some(scope) = operation.scope() {
        caller.demand(scope)?;
    }
    let topic = topic.map(asked::topic).transpose()?;
    if let Some(topic) = &topic {
        caller.demand_topic(topic)?;
    }
    let sequence = sequence.map(str::to_owned);
    let query = head.uri.query().map(str::to_owned);
    // What an answer is made of, until it is made. A batch knows what its own needs.
    // Who watches over the hub doesn't wait for lists that nobody reads.
    let room = match operation {
        _ if operation.is_of_fleet() => Some((&api.fleets, limits.fleet_size_max)),
        _ if operation.makes_much() => Some((&api.answers, limits.answer_size_max)),
        _ => None,
    };
    let room = match room {
        Some((of, size)) => Some(of.wait(caller.name(), size, limits.room_time).await?),
        None => None,
    };
    let mut asked = Asked { api, caller, limits, topic, sequence, query, headers: head.headers, body };
    let reply = match operation {
        Operation::PostMessage => messages::post(&mut asked).await,
        Operation::GetMessages => messages::list(&mut asked).await,
        Operation::DeleteMessage => messages::remove(&mut asked).await,
        Operation::PutState => state::put(&mut asked).await,
        Operation::GetState => state::show(&mut asked).await,
        Operation::Publish => batch::publish(&mut asked).await,
        Operation::Batch => batch::batch(&mut asked).await,
        Operation::GetTopic => topics::show(&mut asked).await,
        Operation::GetTopics => topics::list(&mut asked).await,
        Operation::Media => media::receive(&mut asked).await,
        Operation::IngestToken => tokens::make(&mut asked).await,
        Operation::EndTopic => topics::end(&mut asked).await,
        Operation::OpenTopic => topics::open(&mut asked).await,
        Operation::MakeLink => links::make(&mut asked).await,
        Operation::Revoke => links::revoke(&mut asked).await,
        Operation::Kick => links::kick(&mut asked).await,
        Operation::Fleet => fleet::show(&mut asked).await,
        Operation::Metrics => figures::show(&mut asked).await,
        Operation::Health => fleet::health(api),
    }?;
    Ok(match room {
        Some(room) => reply.with_room(room),
        None => reply,
    })
}

/// The methods of a path, and what stands in it for the topic and the sequence.
type Found<'a> = (&'static [(Method, Operation)], Option<&'a str>, Option<&'a str>);

fn find(segments: &[String]) -> Result<Found<'_>, Problem> {
    let is_there = |(pattern, methods): &Route| -> Option<Found<'_>> {
        let (mut topic, mut sequence) = (None, None);
        let mut parts = pattern.split('/').skip(1);
        for segment in segments {
            match parts.next()? {
                "{topic}" => topic = Some(segment.as_str()),
                "{sequence}" if !segment.is_empty() => sequence = Some(segment.as_str()),
                part if part == segment => {}
                _ => return None,
            }
        }
        parts.next().is_none().then_some((*methods, topic, sequence))
    };
    ROUTES.iter().find_map(is_there).ok_or_else(|| {
        let detail = match segments {
            // In `/v1/topics/x/` as in `/v1/topics/`.
            [_, .., last] if last.is_empty() => "there is no such path: leave out the / at its end",
            _ => "there is no such path; in a path, write a / of a topic's name as %2F",
        };
        Problem::new(StatusCode::NOT_FOUND, "no_such_route", detail)
    })
}

fn allowed(methods: &[(Method, Operation)]) -> String {
    let mut names: Vec<&str> = methods.iter().map(|(method, _)| method.as_str()).collect();
    if names.contains(&"GET") {
        names.push("HEAD");
    }
    names.join(", ")
}
