//! `sharelink-hub push TOPIC`: picture and sound from standard input to a hub, for as long as they
//! come.
//!
//! Owns the connection. Where it breaks, the next one begins with the stream's header and the next
//! group, so viewers miss a second or two and the encoder notices nothing: its output is read on
//! and dropped meanwhile, since what is live can't wait. Gives up where the hub refuses for good.
//! Knows no codecs: the hub says what it doesn't take.

use std::{io, thread, time::Duration};

use http_body_util::channel::{Channel, Sender};
use hyper::{Method, StatusCode, body::Bytes};
use media::{Piece, Splitter};
use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{
    client::{self, CALL_TIME, Failure, Target, Way},
    ingest::{is_final, remedy},
};

/// Pieces that were read and not sent yet: the encoder waits while there are more.
const READ_MAX: usize = 8;
/// The wait before another attempt: the first, and the longest.
const WAIT: Duration = Duration::from_millis(300);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Sends standard input to a topic until it ends.
///
/// # Errors
/// The hub refuses for good, or the input can't be split.
pub fn push(target: &Target, topic: &str) -> Result<String, Failure> {
    let way = Way::to(target, &format!("/v1/topics/{}/media", client::encoded(topic)))?;
    // The key must stand in a header, now and at each attempt.
    way.request(&Method::PUT).body(()).map_err(|_| client::no_key())?;
    client::runtime()?.block_on(async {
        let mut input = Input::open(io::stdin());
        let mut wait = WAIT;
        loop {
            let sent = input.sent;
            let attempted = attempt(&way, &mut input).await;
            // The hub's word on an input that broke off says less.
            if let Some(Some(error)) = &input.ended {
                return Err(Failure::Refused(format!("standard input: {error}")));
            }
            let why = match attempted {
                Ok((status, answer)) if status.is_success() => return Ok(summary(topic, &answer)),
                Ok((status, answer)) => match client::refused(status, &answer) {
                    refused if is_final(status, answer["code"].as_str().unwrap_or_default()) => return Err(refused),
                    refused => refused,
                },
                Err(why) => way.unreachable(&why),
            };
            wait = if input.sent > sent { WAIT } else { (wait * 2).min(WAIT_MAX) };
            if input.ended.is_none() {
                eprintln!("sharelink-hub: {why}; trying again");
                input.drop_for(wait).await;
            }
            if let Some(ended) = &input.ended {
                return Err(ended.clone().map_or(why, |error| Failure::Refused(format!("standard input: {error}"))));
            }
        }
    })
}

/// One connection, from the stream's header on.
async fn attempt(way: &Way, input: &mut Input) -> Result<(StatusCode, Value), String> {
    let (mut sender, body) = Channel::new(1);
    let request = way.request(&Method::PUT).body(body).map_err(|error| error.to_string())?;
    let exchange = way.exchange(request);
    tokio::pin!(exchange);
    let answered = tokio::select! {
        answered = &mut exchange => answered?,
        is_taken = input.send_to(&mut sender) => {
            drop(sender);
            if !is_taken {
                return Err(format!("it took nothing for {} s", CALL_TIME.as_secs()));
            }
            let answered = timeout(CALL_TIME, exchange).await;
            answered.map_err(|_| format!("no answer within {} s", CALL_TIME.as_secs()))??
        }
    };
    let (status, body) = answered;
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}

fn summary(topic: &str, answer: &Value) -> String {
    let mime = answer["mime"].as_str().unwrap_or_default();
    format!("the input has ended: {} chunks of {mime} went to {topic}\n", answer["chunks"])
}

/// The pieces of standard input.
struct Input {
    pieces: mpsc::Receiver<Result<Piece, String>>,
    init: Option<Bytes>,
    /// Chunks that were handed to a connection.
    sent: u64,
    /// The input is over; with an error it is none that can be split.
    ended: Option<Option<String>>,
}

impl Input {
    /// Reads in a thread of its own: a read of standard input can't be given up.
    fn open(mut from: impl io::Read + Send + 'static) -> Self {
        let (pieces, receiver) = mpsc::channel(READ_MAX);
        thread::spawn(move || {
            let mut splitter = Splitter::default();
            let (mut bytes, mut ready) = (vec![0; 64 << 10], Vec::new());
            loop {
                let size = match from.read(&mut bytes) {
                    Ok(0) => return,
                    Ok(size) => size,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return drop(pieces.blocking_send(Err(error.to_string()))),
                };
                let split = splitter.push(bytes.get(..size).unwrap_or_default(), &mut ready);
                for piece in ready.drain(..) {
                    if pieces.blocking_send(Ok(piece)).is_err() {
                        return;
                    }
                }
                if let Err(error) = split {
                    return drop(pieces.blocking_send(Err(remedy(error))));
                }
            }
        });
        Self { pieces: receiver, init: None, sent: 0, ended: None }
    }

    /// The next piece; `None` if there are no more.
    async fn next(&mut self) -> Option<Piece> {
        match self.pieces.recv().await {
            Some(Ok(Piece::Init(init))) => {
                self.init = Some(init.clone().into());
                Some(Piece::Init(init))
            }
            Some(Ok(piece)) => Some(piece),
            Some(Err(error)) => {
                self.ended = Some(Some(error));
                None
            }
            None => {
                self.ended.get_or_insert(None);
                None
            }
        }
    }

    /// Sends all that comes, from a header and a group's start on, until the input ends or the
    /// connection does. `false` if the hub takes nothing any more.
    async fn send_to(&mut self, sender: &mut Sender<Bytes>) -> bool {
        let mut is_in_group = false;
        if let Some(init) = self.init.clone()
            && !sends(sender, init).await
        {
            return false;
        }
        while let Some(piece) = self.next().await {
            match piece {
                Piece::Continue(_) if !is_in_group => continue,
                Piece::Start(_) => is_in_group = true,
                _ => {}
            }
            if !sends(sender, piece.into_bytes().into()).await {
                return false;
            }
            self.sent += 1;
        }
        true
    }

    /// Drops what comes for this time.
    async fn drop_for(&mut self, time: Duration) {
        let end = sleep(time);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                _ = self.next(), if self.ended.is_none() => {}
            }
        }
    }
}

/// Hands bytes to a connection. `false` if it takes none for long; one that is broken says so
/// itself.
async fn sends(sender: &mut Sender<Bytes>, bytes: Bytes) -> bool {
    match timeout(CALL_TIME, sender.send_data(bytes)).await {
        Ok(Ok(())) => true,
        Ok(Err(_)) => std::future::pending().await,
        Err(_) => false,
    }
}
