//! One stream of picture or sound: from the bytes of an encoder to the publications of a topic.
//!
//! Owns the way of a stream: its track, its lease, its chunks, its end. [`media`] splits the bytes;
//! each piece is published before the next one is looked at, so that an engine which is slow slows
//! the encoder and nothing is held. Refuses what the smallest box would drop, and says how to set
//! the encoder. Doesn't know where the bytes come from: `http/media.rs` and `http/socket.rs` do.

use std::sync::Arc;

use hub::{
    Name,
    call::{Answer, Call},
    engine::{Append, Lease, LinkHash, Part, Refusal},
};
use hyper::StatusCode;
use media::{MediaError, Piece, Splitter, codecs, mp4};
use wire::Track;

use crate::shared::Shared;

/// The largest init segment, and the largest chunk of sound, in bytes: what the smallest box takes.
pub const INIT_SIZE_MAX: usize = 32 << 10;
pub const SOUND_SIZE_MAX: usize = 64 << 10;

/// The limits of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A chunk of picture, in bytes.
    pub chunk_size_max: usize,
    /// A group of them, in bytes.
    pub group_size_max: usize,
}

/// Why a stream ended before its end.
#[derive(Debug)]
pub enum Fault {
    /// The bytes are no stream that pages can play: what is wrong, and the remedy.
    Media(String),
    /// The machine's answer.
    Answer(Answer),
    /// The token's time is over.
    Expired,
}

/// A token that a stream came by.
#[derive(Clone, Copy, Debug)]
pub struct Token {
    /// Its hash, by which it is revoked.
    pub hash: LinkHash,
    /// Its end, in seconds since 1970.
    pub end_s: u32,
}

/// What came of a stream.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Its MIME type, once it is known.
    pub mime: String,
    /// Groups that began.
    pub groups: u64,
    /// Chunks that were published.
    pub chunks: u64,
}

/// A stream. Dropped, it gives its track back.
pub struct Ingest {
    shared: Arc<Shared>,
    topic: Name,
    lease: Lease,
    token: Option<Token>,
    limits: Limits,
    splitter: Splitter,
    pieces: Vec<Piece>,
    /// Once the init segment has come.
    track: Option<Track>,
    group_size: usize,
    is_reordered: bool,
    told: Told,
}

impl Ingest {
    /// A stream to this topic, by a key or token with this hash.
    pub fn new(shared: Arc<Shared>, topic: Name, owner: LinkHash, token: Option<Token>, limits: Limits) -> Self {
        let lease = Lease { stream: shared.new_stream(), owner };
        let (splitter, pieces) = (Splitter::default(), Vec::new());
        Self {
            shared,
            topic,
            lease,
            token,
            limits,
            splitter,
            pieces,
            track: None,
            group_size: 0,
            is_reordered: false,
            told: Told::default(),
        }
    }

    /// Whether a stream may begin, before anything of it has come. [`push`](Self::push) asks again.
    ///
    /// # Errors
    /// The token was revoked, or the topic has ended.
    pub async fn may_begin(&self) -> Result<(), Fault> {
        self.may_go_on()?;
        let token = self.token.as_ref();
        if let Some(reason) = token.and_then(|it| self.shared.read(|hub, _, now| hub.revoked_by(now, &it.hash))) {
            return Err(Fault::Answer(Answer::Revoked(reason)));
        }
        match self.shared.call(Call::Topic { topic: self.topic.clone() }).await {
            Answer::Topic(view) => match view.attached.ended {
                Some(reason) => Err(Fault::Answer(Answer::Refused(Refusal::Ended(reason)))),
                None => Ok(()),
            },
            // The stream itself opens a topic, and finds out why the engine doesn't answer.
            _ => Ok(()),
        }
    }

    fn may_go_on(&self) -> Result<(), Fault> {
        let now_s = self.shared.moment().unix_us / 1_000_000;
        let is_over = self.token.is_some_and(|token| u64::from(token.end_s) <= now_s);
        if is_over { Err(Fault::Expired) } else { Ok(()) }
    }

    /// Where it goes.
    pub const fn topic(&self) -> &Name {
        &self.topic
    }

    /// What came so far.
    pub const fn told(&self) -> &Told {
        &self.told
    }

    /// Takes the next bytes: publishes each piece that they complete.
    ///
    /// # Errors
    /// The stream is over.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut pieces = core::mem::take(&mut self.pieces);
        let split = self.splitter.push(bytes, &mut pieces);
        // What came before the fault is good.
        for piece in pieces.drain(..) {
            self.publish(piece).await?;
        }
        self.pieces = pieces;
        split.map_err(|error| Fault::Media(remedy(error)))
    }

    /// Keeps the lease, once a second.
    ///
    /// # Errors
    /// Another stream has the track, the token was revoked or has ended, or the topic has.
    pub async fn keep(&self) -> Result<(), Fault> {
        let Some(track) = self.track else { return self.may_begin().await };
        self.may_go_on()?;
        let (topic, lease, token) = (self.topic.clone(), self.lease, self.token.map(|token| token.hash));
        match self.shared.call(Call::Lease { topic, track, lease, begins: false, token }).await {
            // An engine that does not answer may have kept it.
            Answer::Done | Answer::Busy | Answer::Unavailable => Ok(()),
            answer => Err(Fault::Answer(answer)),
        }
    }

    async fn publish(&mut self, piece: Piece) -> Result<(), Fault> {
        let (part, data) = match piece {
            Piece::Init(init) => (self.begin(&init).await?, init),
            Piece::Start(chunk) => {
                self.group_size = 0;
                self.told.groups += 1;
                (Part::Start, chunk)
            }
            Piece::Continue(chunk) => (Part::Continue, chunk),
        };
        let Some(track) = self.track else { return Ok(()) };
        let is_chunk = part == Part::Start || part == Part::Continue;
        if is_chunk {
            self.look_at(track, &data)?;
        }
        let (topic, stream) = (self.topic.clone(), Some(self.lease.stream));
        let append = Append { track, part, data: data.into(), key: None, replaces: None, stream };
        match self.shared.call(Call::Publish { topic, append }).await {
            Answer::Published { .. } => {
                self.told.chunks += u64::from(is_chunk);
                Ok(())
            }
            answer => Err(Fault::Answer(answer)),
        }
    }

    /// Takes the track that the init segment is for.
    async fn begin(&mut self, init: &[u8]) -> Result<Part, Fault> {
        if init.len() > INIT_SIZE_MAX {
            let size = init.len();
            return Err(Fault::Media(format!(
                "the stream's header has {size} bytes, at most {INIT_SIZE_MAX} are taken: send no pictures or \
                 attachments in it"
            )));
        }
        let mime = codecs::mime(init).map_err(|error| Fault::Media(remedy(error)))?;
        let track = if self.splitter.has_video() == Some(true) { Track::Video } else { Track::Audio };
        let (topic, lease, token) = (self.topic.clone(), self.lease, self.token.map(|token| token.hash));
        // From here on it is given back, whatever becomes of the answer.
        self.track = Some(track);
        match self.shared.call(Call::Lease { topic, track, lease, begins: true, token }).await {
            Answer::Done => {}
            answer => return Err(Fault::Answer(answer)),
        }
        log::info!("{}: {} begins, {mime}", self.topic, track.name());
        self.told.mime.clone_from(&mime);
        Ok(Part::Init { mime: mime.into() })
    }

    fn look_at(&mut self, track: Track, chunk: &[u8]) -> Result<(), Fault> {
        let size_max = if track == Track::Audio { SOUND_SIZE_MAX } else { self.limits.chunk_size_max };
        if chunk.len() > size_max {
            return Err(Fault::Media(format!(
                "a chunk has {} bytes, at most {size_max} are taken: use shorter fragments (ffmpeg: -frag_duration \
                 200000) or a lower bitrate",
                chunk.len()
            )));
        }
        self.group_size += chunk.len();
        let group_size_max = self.limits.group_size_max;
        if self.group_size > group_size_max {
            return Err(Fault::Media(format!(
                "more than {group_size_max} bytes came since the last keyframe: send a keyframe each second or two \
                 (ffmpeg: -g 30 at 30 pictures a second) or a lower bitrate"
            )));
        }
        if !self.is_reordered && mp4::is_reordered(chunk).unwrap_or_default() {
            self.is_reordered = true;
            log::warn!(
                "{}: the stream has B-frames, which viewers see later than need be: turn them off (ffmpeg: -bf 0 or \
                 -tune zerolatency)",
                self.topic
            );
        }
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let Some(track) = self.track else { return };
        let Told { mime, groups, chunks } = &self.told;
        if !mime.is_empty() {
            log::info!("{}: {} has ended after {groups} groups, {chunks} chunks", self.topic, track.name());
        }
        self.shared.tell(Call::Release { topic: self.topic.clone(), track, stream: self.lease.stream });
    }
}

/// Whether another attempt would be in vain after a problem with this status and code. Another
/// stream's lease runs out, and a hub that is busy or restarts comes back.
pub fn is_final(status: StatusCode, code: &str) -> bool {
    status.is_client_error()
        && !matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
        && code != "already_live"
}

/// What is wrong with a stream, and how to set the encoder.
pub fn remedy(error: MediaError) -> String {
    let remedy = match error {
        MediaError::UnknownFormat => {
            "send fragmented MP4 (ffmpeg: -f mp4 -movflags +frag_keyframe+empty_moov+default_base_moof) or WebM (ffmpeg: -f webm)"
        }
        MediaError::NotFragmented => "add -movflags +frag_keyframe+empty_moov+default_base_moof to ffmpeg's options",
        MediaError::FileOffsets => "add +default_base_moof to ffmpeg's -movflags",
        MediaError::NoConfiguration => "let the encoder write it there (ffmpeg: -flags +global_header, and -f mp4)",
        MediaError::TooLarge => "use shorter fragments (ffmpeg: -frag_duration 200000) or a lower bitrate",
        MediaError::Codec(_) => {
            "use H.264 with AAC or Opus in MP4 (ffmpeg: -c:v libx264 -c:a aac), or VP8 or VP9 with Opus in WebM"
        }
        MediaError::Malformed(_) => {
            "send what an encoder writes as fragmented MP4 (ffmpeg: -f mp4 -movflags \
             +frag_keyframe+empty_moov+default_base_moof) or WebM, from its beginning and unchanged"
        }
    };
    format!("{error}: {remedy}")
}
