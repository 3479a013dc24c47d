//! Publications: frames of the business server for a topic, appended to its log or counted as
//! dropped.
//!
//! Owns the check that this connection has accepted the publication's topic, and the only policy
//! for making room: the longest media log forgets its oldest frames, while `state` and `messages`
//! keep what they are guaranteed. The rules of each track are in `topic.rs`. Drops are counted and
//! reported as events.

use super::{
    Relay,
    event::Event,
    time::Instant,
    topic::{DropReason, Topic},
};
use wire::{Track, uplink::Part};

impl Relay {
    /// Handles a publication.
    pub(super) fn published(
        &mut self,
        now: Instant,
        number: u32,
        track: Track,
        sequence: u64,
        part: Part<'_>,
        data: &[u8],
    ) {
        let Some(row) = self.accepted_topic(number) else { return };
        // Don't evict history for a frame that can't be shown anyway.
        let topic = &self.topics[row];
        if track.is_media()
            && !topic.is_superfluous(track, sequence)
            && topic.fault(&self.board, track, sequence, part, data).is_none()
            && !self.make_room(Topic::blocks_needed(&self.board, part, data.len()))
        {
            let drop = self.topics[row].leave_out(&mut self.store, track, sequence, part, DropReason::Full);
            self.report_drop(number, track, sequence, drop);
            return;
        }
        let topic = &mut self.topics[row];
        let before = (topic.log(track).end(), topic.log(track).next_sequence());
        let result = topic.publish(&mut self.store, &self.board, now, track, sequence, part, data);
        let changed = (topic.log(track).end(), topic.log(track).next_sequence()) != before;
        let is_first = track == Track::Messages && before.1 == 0 && changed;
        let replay_from = if is_first { topic.acceptance.take_replay_from() } else { 0 };
        match result {
            Ok(()) => self.counters.published[track.index()] += 1,
            Err(drop) => self.report_drop(number, track, sequence, drop),
        }
        if sequence < replay_from {
            self.void_claims(row, replay_from);
        }
        if changed {
            self.topics.begin_walk(row);
            if track == Track::State {
                self.previews.add_news();
            }
        }
        if result.is_ok() {
            let topic = &mut self.topics[row];
            topic.probe.offer(track, before.0, now, topic.viewers.len());
        }
    }

    /// Handles a publication whose frame was too large to be read: its bytes were skipped.
    pub(super) fn handle_oversize(&mut self, number: u32, track: Track, sequence: u64, part: Part<'_>, size: usize) {
        let Some(row) = self.accepted_topic(number) else { return };
        let max = super::topic::data_size_max(&self.board, track, part);
        let why = DropReason::TooLarge { size, max };
        let drop = self.topics[row].leave_out(&mut self.store, track, sequence, part, why);
        self.report_drop(number, track, sequence, drop);
        self.topics.begin_walk(row);
    }

    /// The row of a publication's topic, if this connection has accepted it.
    fn accepted_topic(&mut self, number: u32) -> Option<u32> {
        let row = self.topics.find(number).filter(|&row| self.is_accepted(row));
        if row.is_none() {
            self.counters.unknown_topic += 1;
        }
        row
    }

    fn report_drop(&mut self, topic: u32, track: Track, sequence: u64, why: DropReason) {
        match why {
            DropReason::Superfluous => self.counters.superfluous += 1,
            _ => self.counters.dropped += 1,
        }
        if why != DropReason::Superfluous {
            self.events.add(Event::Dropped { topic, track, sequence, why });
        }
    }

    /// Free blocks that are reserved for what `state` and `messages` are guaranteed.
    pub(super) fn kept_blocks(&self) -> u32 {
        let per_topic = self.board.state.blocks_max + self.board.messages.blocks_max;
        let held: u32 = self.topics.iter().map(|(_, topic)| topic.guaranteed_blocks(&self.store)).sum();
        (per_topic * self.board.topics_max).saturating_sub(held)
    }

    /// Frees blocks for media until `blocks` may be taken: `state` and `messages` keep what they
    /// are guaranteed, and the longest media log forgets its oldest frames first.
    fn make_room(&mut self, blocks: u32) -> bool {
        let per_topic = self.board.state.blocks_max + self.board.messages.blocks_max;
        if self.store.free() >= per_topic * self.board.topics_max + blocks {
            return true;
        }
        let kept = self.kept_blocks();
        loop {
            if self.store.free() >= kept + blocks {
                return true;
            }
            let longest = (0..self.topics.end())
                .filter_map(|row| {
                    self.topics.get(row)?.longest_media(&self.store).map(|(blocks, log)| (blocks, row, log))
                })
                .max();
            let Some((_, row, log)) = longest else { return false };
            self.counters.media_shed += 1;
            self.topics[row].logs[log].forget_oldest(&mut self.store);
        }
    }
}
