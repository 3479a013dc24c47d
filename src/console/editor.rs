//! The line editor: echo, editing, history. Survives any noise on the line.
//!
//! Takes bytes; returns their echo and, at Enter, the line. Accepts printable ASCII, up to
//! [`LINE_SIZE_MAX`] bytes. Backspace, Ctrl-U (line), Ctrl-W (word), Ctrl-C (cancel) and the arrows
//! up and down work as usual; Tab and other escape sequences do nothing. A line that is too long,
//! or that contains bytes nobody types (noise), is refused: running what is left of it could do
//! something else than was meant. The echo uses only backspaces and blanks, so no terminal is
//! needed. Knows no commands.

use std::collections::VecDeque;

/// Bytes of a line, at most; more are not echoed, and the line is refused.
pub const LINE_SIZE_MAX: usize = 64;
/// Lines kept in the history.
const HISTORY_MAX: usize = 16;

const CTRL_C: u8 = 0x03;
const CTRL_D: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const TAB: u8 = 0x09;
const CTRL_U: u8 = 0x15;
const CTRL_W: u8 = 0x17;
const ESCAPE: u8 = 0x1b;
const DELETE: u8 = 0x7f;

/// Result of a byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// Nothing but its echo.
    Nothing,
    /// A complete line.
    Line(String),
    /// A complete line that must be refused.
    Spoiled(Spoiled),
    /// The line was cancelled (Ctrl-C).
    GivenUp,
    /// Ctrl-D on an empty line: quit.
    Leave,
}

/// Why a line is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoiled {
    /// It has more than [`LINE_SIZE_MAX`] bytes.
    TooLong,
    /// It contains bytes that nobody types.
    Noise,
}

/// State of an escape sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sequence {
    #[default]
    None,
    Escape,
    /// Behind `ESC [` or `ESC O`, until a letter or `~`.
    Parameters,
}

/// The line being typed, and the history.
#[derive(Debug, Default)]
pub struct Editor {
    line: String,
    history: VecDeque<String>,
    /// Index of the recalled line in the history, newest first; none for a new line.
    shown: Option<usize>,
    sequence: Sequence,
    after_return: bool,
    spoiled: Option<Spoiled>,
}

impl Editor {
    /// Takes a byte; its echo goes to `echo`.
    pub fn take(&mut self, byte: u8, echo: &mut Vec<u8>) -> Typed {
        // Enter is CR, LF, or both.
        let is_second = byte == b'\n' && self.after_return;
        self.after_return = byte == b'\r';
        if is_second {
            return Typed::Nothing;
        }
        match self.sequence {
            // A control byte ends any sequence: what came before was noise, and this key counts.
            _ if byte < b' ' => self.sequence = Sequence::None,
            Sequence::Escape => {
                self.sequence = if matches!(byte, b'[' | b'O') { Sequence::Parameters } else { Sequence::None };
                return Typed::Nothing;
            }
            Sequence::Parameters => {
                if (0x40..=0x7e).contains(&byte) {
                    self.sequence = Sequence::None;
                    match byte {
                        b'A' => self.recall(true, echo),
                        b'B' => self.recall(false, echo),
                        _ => {}
                    }
                } else if !(0x20..0x40).contains(&byte) {
                    // The byte is invalid in a sequence: noise.
                    self.sequence = Sequence::None;
                }
                return Typed::Nothing;
            }
            Sequence::None => {}
        }
        match byte {
            b'\r' | b'\n' => {
                echo.extend_from_slice(b"\r\n");
                return self.done();
            }
            CTRL_C => {
                echo.extend_from_slice(b"^C\r\n");
                self.line.clear();
                self.shown = None;
                self.spoiled = None;
                return Typed::GivenUp;
            }
            CTRL_D if self.line.is_empty() => return Typed::Leave,
            BACKSPACE | DELETE => self.erase(1, echo),
            CTRL_U => self.erase(self.line.len(), echo),
            CTRL_W => {
                let kept = self.line.trim_end().rfind(' ').map_or(0, |blank| blank + 1);
                self.erase(self.line.len() - kept, echo);
            }
            ESCAPE => self.sequence = Sequence::Escape,
            b' '..=b'~' if self.line.len() < LINE_SIZE_MAX => {
                self.line.push(char::from(byte));
                echo.push(byte);
            }
            b' '..=b'~' => self.spoiled = Some(Spoiled::TooLong),
            TAB => {}
            // Noise before a line does no harm.
            _ if self.line.is_empty() => {}
            _ => self.spoiled = Some(Spoiled::Noise),
        }
        Typed::Nothing
    }

    fn done(&mut self) -> Typed {
        let line = std::mem::take(&mut self.line);
        self.shown = None;
        if let Some(why) = self.spoiled.take() {
            return Typed::Spoiled(why);
        }
        if !line.trim().is_empty() && self.history.front() != Some(&line) {
            self.history.truncate(HISTORY_MAX - 1);
            self.history.push_front(line.clone());
        }
        Typed::Line(line)
    }

    fn erase(&mut self, count: usize, echo: &mut Vec<u8>) {
        for _ in 0..count {
            if self.line.pop().is_some() {
                echo.extend_from_slice(b"\x08 \x08");
            }
        }
        if self.line.is_empty() {
            self.spoiled = None;
        }
    }

    fn recall(&mut self, older: bool, echo: &mut Vec<u8>) {
        let wanted = match (self.shown, older) {
            (None, true) => Some(0),
            (Some(shown), true) => Some(shown + 1),
            (Some(shown), false) => shown.checked_sub(1),
            (None, false) => return,
        };
        let line = match wanted {
            Some(index) => match self.history.get(index) {
                Some(line) => line.clone(),
                None => return,
            },
            None => String::new(),
        };
        self.erase(self.line.len(), echo);
        echo.extend_from_slice(line.as_bytes());
        self.line = line;
        self.shown = wanted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a screen shows after an echo: its last line, with backspaces applied.
    fn screen(echo: &[u8]) -> String {
        let (mut cells, mut at) = (Vec::new(), 0_usize);
        for &byte in echo {
            match byte {
                BACKSPACE => at = at.saturating_sub(1),
                b'\r' => {}
                b'\n' => (cells, at) = (Vec::new(), 0),
                _ => {
                    cells.truncate(at);
                    cells.push(byte);
                    at += 1;
                }
            }
        }
        String::from_utf8_lossy(&cells).trim_end().to_owned()
    }

    fn typed(editor: &mut Editor, bytes: &[u8]) -> (Vec<Typed>, Vec<u8>) {
        let mut echo = Vec::new();
        let came = bytes.iter().map(|byte| editor.take(*byte, &mut echo)).filter(|typed| *typed != Typed::Nothing);
        (came.collect(), echo)
    }

    fn lines(bytes: &[u8]) -> Vec<Typed> {
        typed(&mut Editor::default(), bytes).0
    }

    fn line(text: &str) -> Typed {
        Typed::Line(text.to_owned())
    }

    #[test]
    fn a_line_that_is_not_what_was_typed_is_not_taken_for_what_is_left_of_it() {
        let long = [b"topics 7".as_slice(), &[b' '; 60], b"9\rstatus\r"].concat();
        assert_eq!(lines(&long), [Typed::Spoiled(Spoiled::TooLong), line("status")]);
        for noise in [0xff, 0x00, 0x1d] {
            assert_eq!(lines(&[b"end 7".as_slice(), &[noise], b"7\r"].concat()), [Typed::Spoiled(Spoiled::Noise)]);
            let (done, noise) = ([line("end 7")], [noise]);
            assert_eq!(lines(&[noise.as_slice(), b"end 7\r"].concat()), done, "it was in front of the line");
            assert_eq!(lines(&[b"e".as_slice(), &noise, b"\x15end 7\r"].concat()), done, "it was taken back");
        }
        assert_eq!(lines(b"st\tatus\x1b[D\r"), [line("status")], "keys that do nothing");
    }

    #[test]
    fn enter_is_any_of_its_three_forms() {
        assert_eq!(lines(b"a\rb\nc\r\nd\r\r\n"), [line("a"), line("b"), line("c"), line("d"), line("")]);
    }

    #[test]
    fn editing_shows_on_the_screen_what_the_line_is() {
        for keys in
            [&b"statsu\x7f\x7fus"[..], b"wrong\x15status", b"status pages\x17\x08", b"\x7f\x08status", b"st\x1b[Catus"]
        {
            let mut editor = Editor::default();
            let (_, echo) = typed(&mut editor, keys);
            assert_eq!(screen(&echo), editor.line.trim_end(), "{keys:?}");
            assert_eq!(editor.line.as_str(), "status", "{keys:?}");
        }
    }

    #[test]
    fn the_arrows_go_through_the_last_commands() {
        let mut editor = Editor::default();
        let _ = typed(&mut editor, b"one\rtwo\rtwo\r");
        let (_, echo) = typed(&mut editor, b"x\x1b[A");
        assert_eq!((editor.line.as_str(), screen(&echo)), ("two", "two".to_owned()));
        let _ = typed(&mut editor, b"\x1bOA");
        assert_eq!(editor.line.as_str(), "one");
        let _ = typed(&mut editor, b"\x1b[A");
        assert_eq!(editor.line.as_str(), "one", "there is nothing before");
        let _ = typed(&mut editor, b"\x1b[B");
        assert_eq!(editor.line.as_str(), "two");
        let _ = typed(&mut editor, b"\x1b[B");
        assert_eq!(editor.line.as_str(), "");
    }

    #[test]
    fn a_line_has_an_end_and_ctrl_c_gives_it_up() {
        let mut editor = Editor::default();
        let (_, echo) = typed(&mut editor, &[b'x'; 500]);
        assert_eq!((editor.line.len(), echo.len()), (LINE_SIZE_MAX, LINE_SIZE_MAX));
        assert_eq!(typed(&mut editor, b"\x03").0, [Typed::GivenUp]);
        assert_eq!(editor.line.as_str(), "");
        assert_eq!(typed(&mut editor, b"\x04").0, [Typed::Leave]);
    }

    #[test]
    fn noise_is_survived_and_screen_and_line_agree() {
        let mut seed = relay::time::Jitter::new(7);
        let mut editor = Editor::default();
        for _ in 0..2_000 {
            let noise: Vec<u8> = (0..seed.below(40)).map(|_| seed.bits().to_le_bytes()[0]).collect();
            let _ = typed(&mut editor, &noise);
            assert!(typed(&mut editor, b"\x03").0.ends_with(&[Typed::GivenUp]), "noise swallows a key");
            let (_, echo) = typed(&mut editor, b"status");
            assert_eq!((editor.line.as_str(), screen(&echo)), ("status", "status".to_owned()));
            assert_eq!(typed(&mut editor, b"\r").0, [line("status")]);
        }
    }
}
