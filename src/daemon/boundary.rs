//! Tracks whether a stream of WebSocket frames is between two messages (RFC 6455, section 5.2).
//!
//! Parses only the frame headers that a page sends and skips the payload. Checks no rule of the RFC
//! (tungstenite does), but alone counts the frames of a message. Because of it an idle page needs
//! no WebSocket state: that is created when bytes arrive and dropped when they complete a message.

/// A position in a stream of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Boundary {
    stage: Stage,
    /// Frames of the unfinished message; 0 between two messages.
    fragments: u32,
    /// The message exceeded its maximum number of frames.
    is_over: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// At the first byte of a frame.
    #[default]
    First,
    /// At the second byte.
    Second,
    /// In the extended length, with `left` bytes of it to come; then the mask, if there is one.
    Length { left: u8, size: u64, mask_size: u8 },
    /// Bytes of mask and payload to come.
    Payload(u64),
}

const FINAL: u8 = 0x80;
const CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;
const MASK_SIZE: u8 = 4;

impl Boundary {
    /// Whether the stream is outside any message and any frame.
    pub fn is_between_messages(self) -> bool {
        self.stage == Stage::First && self.fragments == 0 && !self.is_over
    }

    /// Whether a message exceeded its frame limit. The rest of the stream is then ignored.
    pub fn is_over(self) -> bool {
        self.is_over
    }

    /// Parses further bytes of the stream; a message has at most `fragments_max` frames. Returns
    /// how many bytes precede the first frame over that limit: all of them if there is none.
    pub fn pass(&mut self, bytes: &[u8], fragments_max: u32) -> usize {
        if self.is_over {
            return 0;
        }
        let mut rest = bytes;
        while let Some((&byte, behind)) = rest.split_first() {
            if let Stage::Payload(left) = self.stage {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                rest = rest.get(taken..).unwrap_or_default();
                self.stage = payload(left - taken as u64);
                continue;
            }
            rest = behind;
            self.stage = match self.stage {
                Stage::First => {
                    if byte & CONTROL == 0 {
                        if self.fragments >= fragments_max {
                            self.is_over = true;
                            return bytes.len() - behind.len() - 1;
                        }
                        self.fragments = if byte & FINAL == 0 { self.fragments.saturating_add(1) } else { 0 };
                    }
                    Stage::Second
                }
                Stage::Second => {
                    let mask_size = if byte & MASKED == 0 { 0 } else { MASK_SIZE };
                    match byte & !MASKED {
                        126 => Stage::Length { left: 2, size: 0, mask_size },
                        127 => Stage::Length { left: 8, size: 0, mask_size },
                        size => payload(u64::from(size) + u64::from(mask_size)),
                    }
                }
                Stage::Length { left, size, mask_size } => {
                    let size = size << 8 | u64::from(byte);
                    match left - 1 {
                        0 => payload(size.saturating_add(mask_size.into())),
                        left => Stage::Length { left, size, mask_size },
                    }
                }
                Stage::Payload(_) => self.stage,
            };
        }
        bytes.len()
    }
}

fn payload(size: u64) -> Stage {
    if size == 0 { Stage::First } else { Stage::Payload(size) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, size: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match size {
            0..=125 => frame.push(0x80 | u8::try_from(size).unwrap()),
            126..=65_535 => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(size).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend((size as u64).to_be_bytes());
            }
        }
        frame.extend(vec![0xff; 4 + size]);
        frame
    }

    #[test]
    fn it_is_between_messages_behind_each_whole_one_and_nowhere_else() {
        for size in [0, 1, 125, 126, 65_535, 65_536] {
            let frame = frame(0x81, size);
            for step in [1, 3, 1000] {
                let mut boundary = Boundary::default();
                let mut passed = 0;
                for piece in frame.chunks(step) {
                    assert_eq!(boundary.pass(piece, 1), piece.len());
                    passed += piece.len();
                    assert_eq!(boundary.is_between_messages(), passed == frame.len(), "{passed} of {}", frame.len());
                }
            }
        }
    }

    #[test]
    fn a_message_of_several_frames_ends_with_its_last_whatever_control_frames_come_between() {
        let mut boundary = Boundary::default();
        for (frame, between) in [
            (frame(0x01, 5), false),
            (frame(0x89, 0), false),
            (frame(0x00, 5), false),
            (frame(0x80, 5), true),
            (frame(0x8a, 3), true),
        ] {
            boundary.pass(&frame, 3);
            assert_eq!(boundary.is_between_messages(), between);
        }
    }

    #[test]
    fn a_message_has_as_many_frames_as_it_may_and_what_comes_before_one_more_still_counts() {
        let before =
            [frame(0x01, 5), frame(0x89, 0), frame(0x00, 0), frame(0x80, 0), frame(0x01, 0), frame(0x00, 0)].concat();
        let third = frame(0x00, 0);
        let fourth = frame(0x80, 7);
        for step in [1, 3, 1000] {
            let mut boundary = Boundary::default();
            let stream = [&before[..], &third, &fourth, &frame(0x81, 2)].concat();
            let taken: usize = stream.chunks(step).map(|piece| boundary.pass(piece, 3)).sum();
            assert_eq!(taken, before.len() + third.len(), "in steps of {step}");
            assert!(boundary.is_over() && !boundary.is_between_messages());
        }
        let mut boundary = Boundary::default();
        let endless = frame(0x00, 0).repeat(1_000);
        assert_eq!(boundary.pass(&endless, u32::MAX), endless.len());
        assert!(!boundary.is_over());
    }
}
