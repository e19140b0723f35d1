//! Frames: a flags byte, a length of one or eight bytes, a body.

use bytes::{Buf, Bytes, BytesMut};

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// A whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Part of a message.
    Message {
        /// What it holds.
        body: Bytes,
        /// Whether the message goes on.
        more: bool,
    },
    /// A command, to be parsed.
    Command(Bytes),
}

/// A frame that cannot be, or that is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Flags that no ZMTP 3 frame has.
    #[error("a frame has the impossible flags {0:#04x}")]
    Flags(u8),
    /// It is longer than is taken.
    #[error("a frame of {announced} bytes was announced, {max} are taken")]
    TooLarge {
        /// What the peer said.
        announced: u64,
        /// The limit.
        max: usize,
    },
    /// A message where a command is due.
    #[error("a message came before the handshake was done")]
    Unexpected,
}

/// Takes the first frame out of `buffer`; `None` when it is not all there yet.
///
/// The length is checked before anything is done for it, and memory grows only as bytes really come.
pub(super) fn parse(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<Frame>, FrameError> {
    let Some(&flags) = buffer.first() else {
        return Ok(None);
    };
    let (more, long, command) = (flags & MORE != 0, flags & LONG != 0, flags & COMMAND != 0);
    if flags & !(MORE | LONG | COMMAND) != 0 || (command && more) {
        return Err(FrameError::Flags(flags));
    }
    let header = if long { 9 } else { 2 };
    if buffer.len() < header {
        return Ok(None);
    }
    let mut after_flags = &buffer[1..];
    let announced = if long { after_flags.get_u64() } else { u64::from(after_flags.get_u8()) };
    let length = usize::try_from(announced)
        .ok()
        .filter(|&length| length <= bytes_max)
        .ok_or(FrameError::TooLarge { announced, max: bytes_max })?;
    if buffer.len() - header < length {
        return Ok(None);
    }
    buffer.advance(header);
    let body = buffer.split_to(length).freeze();
    Ok(Some(if command { Frame::Command(body) } else { Frame::Message { body, more } }))
}

/// A message of one frame.
pub(super) fn message(body: &[u8]) -> Vec<u8> {
    encode(0, body)
}

/// A message of several frames.
pub(super) fn multipart(bodies: &[&[u8]]) -> Vec<u8> {
    let last = bodies.len().saturating_sub(1);
    bodies.iter().enumerate().flat_map(|(at, body)| encode(if at < last { MORE } else { 0 }, body)).collect()
}

/// A command.
pub(super) fn command(body: &[u8]) -> Vec<u8> {
    encode(COMMAND, body)
}

fn encode(flags: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = match u8::try_from(body.len()) {
        Ok(length) => vec![flags, length],
        Err(_) => [&[flags | LONG][..], &(body.len() as u64).to_be_bytes()].concat(),
    };
    frame.extend_from_slice(body);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8], bytes_max: usize) -> Result<Vec<Frame>, FrameError> {
        let mut buffer = BytesMut::from(bytes);
        let mut frames = Vec::new();
        while let Some(frame) = parse(&mut buffer, bytes_max)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn a_hostile_length_is_an_error_before_anything_is_there() {
        let huge = [&[LONG][..], &(1u64 << 40).to_be_bytes()].concat();
        assert_eq!(all(&huge, 1 << 20), Err(FrameError::TooLarge { announced: 1 << 40, max: 1 << 20 }));
        let widest = [&[LONG][..], &u64::MAX.to_be_bytes()].concat();
        assert!(all(&widest, usize::MAX).is_ok_and(|frames| frames.is_empty()) || all(&widest, 1 << 20).is_err());
    }

    #[test]
    fn impossible_flags_are_errors() {
        assert_eq!(all(&[0x08, 0], 10), Err(FrameError::Flags(0x08)));
        assert_eq!(all(&[COMMAND | MORE, 0], 10), Err(FrameError::Flags(0x05)));
    }

    #[test]
    fn the_frames_of_a_message_are_told_to_go_on() {
        let frames = all(&multipart(&[b"", b"a"]), 10).unwrap();
        let frame = |body, more| Frame::Message { body: Bytes::from_static(body), more };
        assert_eq!(frames, [frame(b"", true), frame(b"a", false)]);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed_however_it_is_cut(
            bodies in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..600)), 0..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes: Vec<u8> = bodies
                .iter()
                .flat_map(|(is_command, body)| if *is_command { command(body) } else { message(body) })
                .collect();
            let expected: Vec<Frame> = bodies
                .into_iter()
                .map(|(is_command, body)| {
                    let body = Bytes::from(body);
                    if is_command { Frame::Command(body) } else { Frame::Message { body, more: false } }
                })
                .collect();
            let (first, second) = bytes.split_at(cut.index(bytes.len() + 1));
            let mut buffer = BytesMut::new();
            let mut frames = Vec::new();
            for part in [first, second] {
                buffer.extend_from_slice(part);
                while let Some(frame) = parse(&mut buffer, 1000)? {
                    frames.push(frame);
                }
            }
            prop_assert_eq!(frames, expected);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn any_bytes_are_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = all(&bytes, 100);
        }
    }
}
