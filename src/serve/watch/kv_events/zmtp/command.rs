//! Commands: a name and what belongs to it.

use bytes::Buf;
use std::time::Duration;

/// The commands that a subscriber meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// The peer is ready, as a socket of this type.
    Ready { socket_type: String },
    /// The peer refuses.
    Error { reason: String },
    /// The peer asks for a sign of life with this context, and will send something within its time to live.
    Ping { time_to_live: Duration, context: Vec<u8> },
    /// A sign of life.
    Pong,
    /// Anything else, to be passed over.
    Other,
}

/// A command that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It ends in the middle.
    #[error("a command ends in the middle")]
    Short,
    /// A READY without a socket type.
    #[error("the peer's READY names no socket type")]
    NoSocketType,
    /// A PING whose context is longer than the protocol's 16 bytes.
    #[error("a PING has a context of {0} bytes, and 16 are the most")]
    LongContext(usize),
}

const CONTEXT_MAX: usize = 16;

pub(super) fn parse(mut body: &[u8]) -> Result<Command, CommandError> {
    let name = take_short(&mut body)?;
    Ok(match name {
        b"READY" => Command::Ready { socket_type: socket_type(body)? },
        b"ERROR" => Command::Error { reason: String::from_utf8_lossy(take_short(&mut body)?).into_owned() },
        b"PING" => {
            let deciseconds = body.try_get_u16().map_err(|_| CommandError::Short)?;
            if body.len() > CONTEXT_MAX {
                return Err(CommandError::LongContext(body.len()));
            }
            let time_to_live = Duration::from_millis(u64::from(deciseconds) * 100);
            Command::Ping { time_to_live, context: body.to_vec() }
        }
        b"PONG" => Command::Pong,
        _ => Command::Other,
    })
}

/// READY of a socket of this type.
pub(super) fn ready(socket_type: &str) -> Vec<u8> {
    let mut body = named(b"READY");
    body.push(SOCKET_TYPE.len() as u8);
    body.extend_from_slice(SOCKET_TYPE);
    body.extend_from_slice(&(socket_type.len() as u32).to_be_bytes());
    body.extend_from_slice(socket_type.as_bytes());
    body
}

/// PING without a context.
pub(super) fn ping(time_to_live: Duration) -> Vec<u8> {
    let deciseconds = u16::try_from(time_to_live.as_millis() / 100).unwrap_or(u16::MAX);
    let mut body = named(b"PING");
    body.extend_from_slice(&deciseconds.to_be_bytes());
    body
}

/// The answer to a PING.
pub(super) fn pong(context: &[u8]) -> Vec<u8> {
    let mut body = named(b"PONG");
    body.extend_from_slice(context);
    body
}

const SOCKET_TYPE: &[u8] = b"Socket-Type";

fn named(name: &[u8]) -> Vec<u8> {
    [&[name.len() as u8], name].concat()
}

fn socket_type(mut properties: &[u8]) -> Result<String, CommandError> {
    let mut found = None;
    while !properties.is_empty() {
        let name = take_short(&mut properties)?;
        let length = properties.try_get_u32().map_err(|_| CommandError::Short)? as usize;
        let value = properties.split_off(..length).ok_or(CommandError::Short)?;
        if name.eq_ignore_ascii_case(SOCKET_TYPE) {
            found = Some(String::from_utf8_lossy(value).into_owned());
        }
    }
    found.ok_or(CommandError::NoSocketType)
}

/// What a length of one byte announces.
fn take_short<'a>(body: &mut &'a [u8]) -> Result<&'a [u8], CommandError> {
    let length = body.try_get_u8().map_err(|_| CommandError::Short)?;
    body.split_off(..usize::from(length)).ok_or(CommandError::Short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_sent_is_understood() {
        assert_eq!(parse(&ready("SUB")), Ok(Command::Ready { socket_type: "SUB".to_owned() }));
        assert_eq!(parse(&pong(b"context")), Ok(Command::Pong));
        let time_to_live = Duration::from_secs(30);
        assert_eq!(parse(&ping(time_to_live)), Ok(Command::Ping { time_to_live, context: Vec::new() }));
    }

    #[test]
    fn properties_are_found_by_name_whatever_their_case_and_order() {
        let mut body = named(b"READY");
        body.extend_from_slice(b"\x08Identity\x00\x00\x00\x00\x0bsocket-type\x00\x00\x00\x03PUB");
        assert_eq!(parse(&body), Ok(Command::Ready { socket_type: "PUB".to_owned() }));
        assert_eq!(parse(&named(b"READY")), Err(CommandError::NoSocketType));
    }

    #[test]
    fn a_ping_says_how_long_silence_may_last() {
        let command = parse(b"\x04PING\x00\x0fcontext").unwrap();
        assert_eq!(command, Command::Ping { time_to_live: Duration::from_millis(1500), context: b"context".to_vec() });
        assert_eq!(parse(b"\x04PING\x00"), Err(CommandError::Short));
        assert_eq!(parse(&[b"\x04PING\x00\x00".as_slice(), &[0; 17]].concat()), Err(CommandError::LongContext(17)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_command_or_an_error(body in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&body);
        }
    }
}
