//! The demo's room: publishes the script's lines, the clip, and what the host does.
//!
//! Owns the room's state (title, open or closed), the clip's schedule and the recording of a live
//! host. Connects the pure parts ([`Script`], [`Player`], [`Splitter`]) to the business [`Server`]
//! in three endless tasks: talk, play and listen. Each action of the host is one short call. Knows
//! no sockets.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use serde_json::{Value, json};
use smol::{Timer, channel};

use super::{
    clip::{self, Player},
    clock, hex,
    lines::{Chapter, HOST, Kind},
    script::{Cue, Script},
    watchers::{Note, Watchers},
};
use business::{Event, cut, serve::Server};
use media::{MediaError, Piece, Splitter};
use wire::{
    MIME_SIZE_MAX, Track,
    uplink::{Author, Grant, Part},
};

/// The share link of the demo, and the number of its room.
pub const LINK: &str = "demo";
const TOPIC: u32 = 1;
/// The number of messages replayed to a late page: a screen or two.
const REPLAY: u16 = 50;
/// Lets the relay admit pages for five minutes before it must renew the grant.
const GRANT: Grant = Grant { shared: true, ttl_s: 300, page_messages: true, replay: REPLAY };
/// The maximum sizes of a host's message and of a title, in bytes: what a share page displays well.
const TEXT_SIZE_MAX: usize = 2000;
const TITLE_SIZE_MAX: usize = 200;
/// If the process was suspended for longer than this, the clip's schedule is shifted by the delay.
const LATE_MAX: Duration = Duration::from_secs(2);

/// Why a command of the host was refused. The page has a text for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The room is closed.
    Closed,
    /// Another host page is live.
    Busy,
    /// The text is empty.
    Empty,
    /// Share pages can't play recordings of this type.
    Unplayable,
    /// The recording can't be split. Live has ended.
    Broken(MediaError),
    /// A chunk of the recording is too large to publish. Live has ended.
    TooLarge,
}

impl Refused {
    /// Its name in the host page's protocol.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Busy => "busy",
            Self::Empty => "empty",
            Self::Unplayable => "unplayable",
            Self::Broken(_) => "broken",
            Self::TooLarge => "too-large",
        }
    }
}

/// The demo's room.
pub struct Stage {
    business: Rc<Server>,
    shown: RefCell<Shown>,
    live: RefCell<Option<Live>>,
    /// Whether the current init segments are the clip's, so that its chunks may follow.
    clip_on_air: Cell<bool>,
    /// Signals that the clip may play again.
    clip_bell: (channel::Sender<()>, channel::Receiver<()>),
    clip: [clip::Loop; 2],
    watchers: Watchers,
    share: String,
}

/// The room's state, as shown on its pages.
struct Shown {
    open: bool,
    title: String,
    /// The host has set the title: the script does not change it until the room is reopened.
    titled_by_host: bool,
    chapter: Chapter,
    epoch: u64,
}

struct Live {
    /// The host page that is live.
    watcher: u64,
    mime: String,
    splitter: Splitter,
    /// The init segment, held back until the first group: without chunks, a player would show
    /// nothing.
    init: Option<Vec<u8>>,
    /// The track it is published on; known once it is on air.
    track: Option<Track>,
}

impl Stage {
    /// Opens the room on a business server that serves nothing else. `share` is the URL of the
    /// share page, shown on the host page.
    ///
    /// # Errors
    /// The clip in the repository is damaged.
    pub fn new(business: Rc<Server>, share: String) -> Result<Rc<Self>, MediaError> {
        let chapter = Script::new(1).opening();
        let stage = Rc::new(Self {
            shown: RefCell::new(Shown { open: false, title: String::new(), titled_by_host: false, chapter, epoch: 0 }),
            live: RefCell::new(None),
            clip_on_air: Cell::new(false),
            clip_bell: channel::bounded(1),
            clip: clip::tracks()?,
            watchers: Watchers::default(),
            share,
            business,
        });
        // Can't fail: `LINK` is a valid link.
        let _ = stage.business.allow(LINK, TOPIC, GRANT);
        stage.reopen();
        Ok(stage)
    }

    /// Adds a host page. Returns its queue of notes, with the current room and newest messages, or
    /// `None` if there are too many pages.
    pub fn watch(&self) -> Option<channel::Receiver<Note>> {
        let messages = self.business.with_topic(TOPIC, |topic| {
            let kept = topic.track(Track::Messages).kept();
            let older = kept.len().saturating_sub(usize::from(REPLAY));
            let newest = kept.skip(older).filter_map(|message| serde_json::from_slice(message.data()).ok());
            newest.map(|data| message_note(&data)).collect()
        });
        let messages: Vec<_> = messages.unwrap_or_default();
        self.watchers.add([self.snapshot()].into_iter().chain(messages))
    }

    /// Sends a message from the host.
    ///
    /// # Errors
    /// The room is closed, or the text is empty.
    pub fn say(&self, text: &str) -> Result<(), Refused> {
        let text = cut(text.trim(), TEXT_SIZE_MAX);
        if text.is_empty() {
            return Err(Refused::Empty);
        }
        self.message(HOST, Kind::Text, text)
    }

    /// Sets the room's title.
    ///
    /// # Errors
    /// The room is closed, or the title is empty.
    pub fn set_title(&self, title: &str) -> Result<(), Refused> {
        let title = cut(title.trim(), TITLE_SIZE_MAX);
        if title.is_empty() {
            return Err(Refused::Empty);
        }
        let mut shown = self.shown.borrow_mut();
        if !shown.open {
            return Err(Refused::Closed);
        }
        shown.title = title.to_owned();
        shown.titled_by_host = true;
        drop(shown);
        self.show();
        Ok(())
    }

    /// Closes the room: ends live, stops the clip, and lets nobody in.
    ///
    /// # Errors
    /// The room is closed.
    pub fn end(&self) -> Result<(), Refused> {
        if !self.shown.borrow().open {
            return Err(Refused::Closed);
        }
        self.shown.borrow_mut().open = false;
        *self.live.borrow_mut() = None;
        self.clip_on_air.set(false);
        self.business.end(TOPIC, "主人关了灯，今晚先到这里。The host has closed the room for now.");
        self.note_room();
        Ok(())
    }

    /// Reopens the room, in a new epoch and empty.
    pub fn reopen(&self) {
        let mut shown = self.shown.borrow_mut();
        if shown.open {
            return;
        }
        // The time, but at least one more than the last epoch: two openings may be in the same
        // millisecond.
        shown.epoch = clock::now_ms().max(shown.epoch + 1);
        shown.open = true;
        shown.titled_by_host = false;
        shown.chapter.0.clone_into(&mut shown.title);
        // Can't fail: there is only one topic.
        let _ = self.business.open(TOPIC, shown.epoch);
        drop(shown);
        self.clip_on_air.set(false);
        let _ = self.clip_bell.0.try_send(());
        self.show();
    }

    /// Starts live from a host page, with a recording of this MIME type. The clip plays until the
    /// recording's first group.
    ///
    /// # Errors
    /// The room is closed, another page is live, or share pages can't play it.
    pub fn go_live(&self, watcher: u64, mime: &str) -> Result<(), Refused> {
        if !self.shown.borrow().open {
            return Err(Refused::Closed);
        }
        let mut live = self.live.borrow_mut();
        if live.as_ref().is_some_and(|live| live.watcher != watcher) {
            return Err(Refused::Busy);
        }
        let playable =
            ["video/mp4", "video/webm", "audio/mp4", "audio/webm"].iter().any(|known| mime.starts_with(known));
        if !playable || mime.len() > MIME_SIZE_MAX || !mime.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            return Err(Refused::Unplayable);
        }
        *live = Some(Live { watcher, mime: mime.to_owned(), splitter: Splitter::default(), init: None, track: None });
        drop(live);
        self.note_room();
        Ok(())
    }

    /// Takes the next bytes of the recording. Drops them if the page isn't live any more: they were
    /// in flight when live ended.
    ///
    /// # Errors
    /// The recording can't be published. Live has ended, and the clip resumes.
    pub fn record(&self, watcher: u64, bytes: &[u8]) -> Result<(), Refused> {
        let mut live = self.live.borrow_mut();
        let Some(running) = live.as_mut().filter(|live| live.watcher == watcher) else { return Ok(()) };
        let mut pieces = Vec::new();
        let split = running.splitter.push(bytes, &mut pieces).map_err(Refused::Broken);
        let before = running.track;
        let aired = pieces.into_iter().try_for_each(|piece| self.air(running, piece));
        let begins = running.track != before;
        drop(live);
        if begins {
            self.note_room();
        }
        let result = aired.and(split);
        if let Err(refused) = result {
            log::warn!("demo: the host page's recording can't be published: {refused:?}");
            self.stop_live(watcher);
        }
        result
    }

    /// Ends live and resumes the clip. Does nothing if this page isn't live.
    pub fn stop_live(&self, watcher: u64) {
        let mut live = self.live.borrow_mut();
        if live.as_ref().is_some_and(|live| live.watcher == watcher) {
            *live = None;
            drop(live);
            self.clip_on_air.set(false);
            let _ = self.clip_bell.0.try_send(());
            self.note_room();
        }
    }

    /// Publishes the script's lines. Never returns.
    pub async fn talk(&self) {
        let mut script = Script::new(clock::now_ms());
        loop {
            let (pause, cue) = script.next();
            Timer::after(pause).await;
            match cue {
                Cue::Line((from, kind, text)) => {
                    let _ = self.message(from, kind, text);
                }
                Cue::Chapter(chapter) => {
                    let mut shown = self.shown.borrow_mut();
                    shown.chapter = chapter;
                    if !shown.titled_by_host {
                        chapter.0.clone_into(&mut shown.title);
                    }
                    drop(shown);
                    self.show();
                }
            }
        }
    }

    /// Plays the clip whenever nothing else is on air. Returns only if the clip fails.
    pub async fn play(&self) {
        let mut player = Player::new(self.clip.clone());
        let mut origin = clock::now();
        loop {
            let stopped =
                !self.shown.borrow().open || self.live.borrow().as_ref().is_some_and(|live| live.track.is_some());
            if stopped {
                let _ = self.clip_bell.1.recv().await;
                continue;
            }
            if !self.clip_on_air.get() {
                // A group that began within the last 100 ms will do.
                player.skip_to(origin.elapsed().saturating_sub(Duration::from_millis(100)));
                for track in player.tracks() {
                    self.publish(track.track, Part::Init { mime: track.mime }, track.init);
                }
                self.clip_on_air.set(true);
            }
            // Chunks have absolute times, so that delays don't add up. Time lost in a suspend is
            // not caught up.
            let at = origin + player.due();
            if let Some(late) = clock::now().checked_duration_since(at).filter(|late| *late > LATE_MAX) {
                origin += late;
            }
            Timer::at(at).await;
            // The host may have gone live in the meantime.
            if self.clip_on_air.get() {
                match player.take() {
                    Ok(due) => self.publish(due.track, due.part, &due.data),
                    Err(error) => return log::error!("demo: the clip has stopped: {error}"),
                }
            }
        }
    }

    /// Handles the events of relays and pages. Never returns.
    pub async fn listen(&self) {
        let events = self.business.events();
        while let Ok(event) = events.recv().await {
            match event {
                Event::Audience { .. } => self.show(),
                Event::PageMessage { topic, page, data, author, id, .. } => {
                    let (from, text) = (format!("guest #{page}"), data.trim());
                    let is_taken = text.is_empty() || self.message_by(Some(author), &from, Kind::Text, text).is_ok();
                    let answer = if is_taken { Server::confirm } else { Server::forget_message };
                    id.iter().for_each(|id| answer(&self.business, topic, id));
                }
                Event::RelayUp { .. } | Event::RelayDown { .. } => self.note_room(),
                Event::Asked { .. } | Event::Unsubscribed { .. } | Event::Pong { .. } => {}
            }
        }
    }

    /// Publishes one piece of the host's recording; the init segment together with the first group.
    fn air(&self, live: &mut Live, piece: Piece) -> Result<(), Refused> {
        let (part, bytes) = match piece {
            Piece::Init(init) => {
                live.init = Some(init);
                return Ok(());
            }
            Piece::Start(bytes) => (Part::Start, bytes),
            Piece::Continue(bytes) => (Part::Continue, bytes),
        };
        let put = |track, part: Part<'_>, bytes: &[u8]| {
            let published = self.business.publish(TOPIC, track, part, bytes);
            published.map(|_| ()).map_err(|_| Refused::TooLarge)
        };
        if let Some(init) = live.init.take() {
            let own = if live.splitter.has_video() == Some(false) { Track::Audio } else { Track::Video };
            live.track = Some(own);
            self.clip_on_air.set(false);
            // A new init segment ends the current group, so that late pages don't start with the
            // clip's last second.
            for other in self.clip.iter().filter(|clip| clip.track != own) {
                self.publish(other.track, Part::Init { mime: other.mime }, other.init);
            }
            put(own, Part::Init { mime: &live.mime }, &init)?;
        }
        live.track.map_or(Ok(()), |track| put(track, part, &bytes))
    }

    fn message(&self, from: &str, kind: Kind, text: &str) -> Result<(), Refused> {
        self.message_by(None, from, kind, text)
    }

    /// Publishes a message; one of a page names it as the author, so that the page knows its own.
    fn message_by(&self, author: Option<Author>, from: &str, kind: Kind, text: &str) -> Result<(), Refused> {
        if !self.shown.borrow().open {
            return Err(Refused::Closed);
        }
        let mut message = json!({ "text": text, "at": clock::now_ms(), "kind": kind.name() });
        if let Some(fields) = message.as_object_mut() {
            if !from.is_empty() {
                fields.insert("from".to_owned(), from.into());
            }
            if let Some(author) = author {
                fields.insert("author".to_owned(), hex(&author).into());
            }
        }
        self.publish(Track::Messages, Part::Whole, message.to_string().as_bytes());
        self.watchers.send(&message_note(&message));
        Ok(())
    }

    /// Publishes the room's state, and notifies the host pages.
    fn show(&self) {
        let shown = self.shown.borrow();
        if shown.open {
            let (_, description, color) = shown.chapter;
            let state = json!({
                "title": shown.title, "description": description, "color": color, "host": HOST,
                "audience": self.business.audience(TOPIC),
            });
            drop(shown);
            self.publish(Track::State, Part::Whole, state.to_string().as_bytes());
        }
        self.note_room();
    }

    fn publish(&self, track: Track, part: Part<'_>, data: &[u8]) {
        if let Err(error) = self.business.publish(TOPIC, track, part, data) {
            log::error!("demo: a publication on {} was refused: {error}", track.name());
        }
    }

    fn note_room(&self) {
        self.watchers.send(&self.snapshot());
    }

    fn snapshot(&self) -> Note {
        let shown = self.shown.borrow();
        let live = self.live.borrow();
        let (_, description, color) = shown.chapter;
        let note = json!({
            "type": "room", "open": shown.open, "title": shown.title, "description": description, "color": color,
            "host": HOST, "audience": self.business.audience(TOPIC), "relays": self.business.relays(),
            "live": live.is_some(), "on_air": live.as_ref().is_some_and(|live| live.track.is_some()),
            "share": self.share, "epoch": shown.epoch.to_string(),
        });
        note.to_string().into()
    }
}

fn message_note(message: &Value) -> Note {
    json!({ "type": "message", "data": message }).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use business::Settings;
    use wire::uplink::{ToRelay, decode_to_relay};

    const RECORDING: &[u8] = include_bytes!("../../crates/media/testdata/vp8.webm");
    const MIME: &str = "video/webm;codecs=vp8,opus";

    fn stage() -> (Rc<Server>, Rc<Stage>) {
        let business = Server::new(Settings::default(), "");
        let stage = Stage::new(Rc::clone(&business), "http://127.0.0.1/s/demo".to_owned()).unwrap();
        (business, stage)
    }

    /// What the business server keeps of a track: sequence, part, MIME type, data.
    fn kept(business: &Server, track: Track) -> Vec<(u64, String, String, Vec<u8>)> {
        let read = |frame: &[u8]| match decode_to_relay(&frame[4..]) {
            Ok(ToRelay::Publish { sequence, part, data, .. }) => {
                let (name, mime) = match part {
                    Part::Init { mime } => ("Init".to_owned(), mime),
                    part => (format!("{part:?}"), ""),
                };
                (sequence, name, mime.to_owned(), data.to_vec())
            }
            other => panic!("{other:?}"),
        };
        let kept = business.with_topic(TOPIC, |topic| {
            let track = topic.track(track);
            track.init().into_iter().chain(track.kept()).map(|publication| read(publication.frame())).collect()
        });
        kept.unwrap_or_default()
    }

    fn state(business: &Server) -> Value {
        serde_json::from_slice(&kept(business, Track::State)[0].3).unwrap()
    }

    fn mimes(business: &Server) -> Vec<String> {
        let all = [Track::Audio, Track::Video].into_iter().flat_map(|track| kept(business, track));
        all.filter(|(_, part, ..)| part == "Init").map(|(_, _, mime, _)| mime).collect()
    }

    /// Lets the room's tasks run for a while.
    fn run(stage: &Stage, time: Duration) {
        use futures_lite::FutureExt as _;
        let over = async {
            Timer::after(time).await;
        };
        smol::block_on(stage.play().or(stage.talk()).or(stage.listen()).or(over));
    }

    #[test]
    fn the_room_runs_by_itself() {
        let (business, stage) = stage();
        run(&stage, Duration::from_millis(3800));
        assert!(!kept(&business, Track::Messages).is_empty());
        assert_eq!(mimes(&business), ["audio/mp4; codecs=\"mp4a.40.2\"", "video/mp4; codecs=\"avc1.4d4015\""]);
        assert!(kept(&business, Track::Video).len() > 1 && kept(&business, Track::Audio).len() > 1);
        let state = state(&business);
        for key in ["title", "description", "color", "host", "audience"] {
            assert!(state.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn going_live_replaces_the_clip_and_stopping_brings_it_back() {
        let (business, stage) = stage();
        run(&stage, Duration::from_millis(300));
        stage.go_live(1, MIME).unwrap();
        assert_eq!(stage.go_live(2, MIME), Err(Refused::Busy));
        assert!(kept(&business, Track::Audio).len() > 1, "the clip plays until the recording's init came");
        for slice in RECORDING.chunks(3000) {
            stage.record(1, slice).unwrap();
            stage.record(2, slice).unwrap();
        }
        assert_eq!(mimes(&business), ["audio/mp4; codecs=\"mp4a.40.2\"", MIME]);
        assert_eq!(kept(&business, Track::Audio).len(), 1, "its group of sound has ended");
        let video = kept(&business, Track::Video);
        assert!(video.len() > 1 && video[1].1 == "Start");
        let before = video.last().unwrap().0;
        run(&stage, Duration::from_millis(300));
        assert_eq!(kept(&business, Track::Video).last().unwrap().0, before, "the clip waits");
        stage.stop_live(2);
        stage.stop_live(1);
        run(&stage, Duration::from_millis(1200));
        assert_eq!(mimes(&business), ["audio/mp4; codecs=\"mp4a.40.2\"", "video/mp4; codecs=\"avc1.4d4015\""]);
        assert!(kept(&business, Track::Video).len() > 1);
    }

    #[test]
    fn an_invalid_recording_only_ends_live() {
        let (_, stage) = stage();
        assert_eq!(stage.go_live(1, "text/html"), Err(Refused::Unplayable));
        assert_eq!(stage.go_live(1, "video/x-matroska;codecs=avc1"), Err(Refused::Unplayable));
        stage.go_live(1, MIME).unwrap();
        assert_eq!(stage.record(1, b"not a recording"), Err(Refused::Broken(MediaError::UnknownFormat)));
        assert!(stage.live.borrow().is_none());
        assert_eq!(stage.record(1, b"still in flight"), Ok(()));
        stage.go_live(2, MIME).unwrap();
    }

    #[test]
    fn the_host_s_title_stays_until_the_room_is_reopened() {
        let (business, stage) = stage();
        let opening = state(&business);
        stage.set_title("  我的房间 ").unwrap();
        assert_eq!(state(&business).get("title").unwrap(), "我的房间");
        assert_eq!(stage.set_title("  "), Err(Refused::Empty));
        stage.say("hello").unwrap();
        let epoch = stage.shown.borrow().epoch;
        stage.end().unwrap();
        assert_eq!(
            (stage.end(), stage.say("x"), stage.set_title("x")),
            (Err(Refused::Closed), Err(Refused::Closed), Err(Refused::Closed))
        );
        stage.reopen();
        assert!(stage.shown.borrow().epoch > epoch);
        assert_eq!(state(&business).get("title"), opening.get("title"));
        assert!(kept(&business, Track::Messages).is_empty(), "nothing of the old room");
    }

    #[test]
    fn a_host_page_gets_the_room_and_the_newest_messages() {
        let (_, stage) = stage();
        stage.say("one").unwrap();
        let notes = stage.watch().unwrap();
        stage.say("two").unwrap();
        let mut texts = Vec::new();
        while let Ok(note) = notes.try_recv() {
            let note: Value = serde_json::from_str(&note).unwrap();
            texts.push(note.pointer("/data/text").or(note.get("share")).unwrap().clone());
        }
        assert_eq!(texts, ["http://127.0.0.1/s/demo", "one", "two"]);
    }
}
