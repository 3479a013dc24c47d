//! The order and the timing of the demo's lines: which line is next, and after how long.
//!
//! Owns the position in the scenes of `lines.rs`: every scene is played once before any repeats, in
//! a new random order each time, at the speed at which people type. Pure: the same seed gives the
//! same sequence. Knows no room and no clock, and no host who may speak in between.

use std::time::Duration;

use super::lines::{CHAPTERS, Chapter, Line, SCENES};

/// Scenes between two changes of the room's title.
const SCENES_PER_CHAPTER: usize = 2;
/// The minimum and maximum time between two lines.
const PAUSE_MIN: Duration = Duration::from_millis(1300);
const PAUSE_MAX: Duration = Duration::from_millis(3600);

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cue {
    /// A line is said.
    Line(Line),
    /// The room changes its appearance.
    Chapter(Chapter),
}

/// The endless sequence of cues.
#[derive(Debug)]
pub struct Script {
    seed: u64,
    /// The remaining scenes of this round, the next one last.
    ahead: Vec<usize>,
    scene: &'static [Line],
    last_scene: Option<usize>,
    scenes: usize,
    chapter: usize,
}

impl Script {
    /// A new sequence. Starts with the first scene of `lines.rs` for every seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, ahead: vec![0], scene: &[], last_scene: None, scenes: 1, chapter: 0 }
    }

    /// The room's appearance when it opens.
    #[must_use]
    pub fn opening(&self) -> Chapter {
        CHAPTERS[0]
    }

    /// The next cue, and how long it comes after the last one.
    pub fn next(&mut self) -> (Duration, Cue) {
        let Some((line, rest)) = self.scene.split_first() else {
            self.next_scene();
            if self.scenes.is_multiple_of(SCENES_PER_CHAPTER) {
                self.scenes += 1;
                self.chapter = (self.chapter + 1) % CHAPTERS.len();
                let chapter = CHAPTERS.get(self.chapter).copied().unwrap_or(CHAPTERS[0]);
                return (PAUSE_MIN, Cue::Chapter(chapter));
            }
            self.scenes += 1;
            return self.next();
        };
        self.scene = rest;
        (self.pause(line.2), Cue::Line(*line))
    }

    /// The pause before a line: longer for longer lines, with random variation.
    fn pause(&mut self, text: &str) -> Duration {
        let typing = 45 * text.chars().count() as u64 / if text.is_ascii() { 2 } else { 1 };
        let typed = Duration::from_millis(1000 + typing.min(1400) + self.random(900));
        typed.clamp(PAUSE_MIN, PAUSE_MAX)
    }

    fn next_scene(&mut self) {
        if self.ahead.is_empty() {
            self.ahead = (0..SCENES.len()).filter(|&scene| scene > 0).collect();
            for last in (1..self.ahead.len()).rev() {
                let other = usize::try_from(self.random(last as u64 + 1)).unwrap_or(0);
                self.ahead.swap(last, other);
            }
            // The same scene twice in a row would look mechanical.
            if self.ahead.last().copied() == self.last_scene {
                self.ahead.rotate_left(1);
            }
        }
        self.last_scene = self.ahead.pop();
        self.scene = self.last_scene.and_then(|scene| SCENES.get(scene)).copied().unwrap_or_default();
    }

    /// A number below `end` (xorshift64*; no secrets here).
    fn random(&mut self, end: u64) -> u64 {
        self.seed = self.seed.max(1);
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        (self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::lines::Kind;

    #[test]
    fn every_scene_comes_before_any_comes_again() {
        let mut script = Script::new(42);
        let mut lines = Vec::new();
        let all: usize = SCENES.iter().map(|scene| scene.len()).sum();
        while lines.len() < all {
            if let (_, Cue::Line(line)) = script.next() {
                lines.push(line);
            }
        }
        for line in SCENES.iter().copied().flatten() {
            assert!(lines.contains(line), "{line:?} was never said");
        }
    }

    #[test]
    fn chapters_change_and_pauses_are_bounded() {
        let mut script = Script::new(7);
        let (mut time, mut chapters) = (Duration::ZERO, Vec::new());
        for _ in 0..2000 {
            let (pause, cue) = script.next();
            assert!((PAUSE_MIN..=PAUSE_MAX).contains(&pause));
            time += pause;
            if let Cue::Chapter(chapter) = cue {
                chapters.push((time, chapter));
            }
        }
        assert!(chapters.first().is_some_and(|first| first.0 < Duration::from_secs(45)), "{chapters:?}");
        assert!(chapters.windows(2).all(|pair| pair[0].1 != pair[1].1));
        assert!(chapters.len() > 100, "{}", chapters.len());
    }

    #[test]
    fn the_lines_are_valid() {
        let mut kinds = [0; 4];
        for (from, kind, text) in SCENES.iter().copied().flatten() {
            kinds[*kind as usize] += 1;
            assert_eq!(from.is_empty(), *kind == Kind::Notice, "{text}");
            assert!(!text.is_empty() && text.len() < 300);
        }
        assert!(kinds.iter().all(|&count| count >= 2), "{kinds:?}");
        for (_, _, color) in CHAPTERS {
            assert!(color.len() == 7 && color.starts_with('#') && color.bytes().skip(1).all(|b| b.is_ascii_hexdigit()));
        }
    }
}
