//! The first 64 bytes: signature, version, mechanism, role.

use bytes::{Buf, BytesMut};

const LENGTH: usize = 64;
const MECHANISM: std::ops::Range<usize> = 12..32;

/// The greeting that we send: ZMTP 3.1, NULL mechanism.
pub(super) const OURS: [u8; LENGTH] = {
    let mut greeting = [0; LENGTH];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    greeting[11] = 1;
    greeting[12] = b'N';
    greeting[13] = b'U';
    greeting[14] = b'L';
    greeting[15] = b'L';
    greeting
};

/// The ZMTP that a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 3 or later.
    pub major: u8,
    /// Within the major one.
    pub minor: u8,
}

impl Version {
    /// ZMTP 3.0.
    pub const V3_0: Version = Version { major: 3, minor: 0 };

    /// Whether the peer knows PING; one that does not may choke on it.
    pub(super) fn has_heartbeats(self) -> bool {
        self > Version::V3_0
    }
}

/// A peer that cannot be talked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GreetingError {
    /// It does not speak ZMTP at all, or a version before 2.
    #[error("the peer does not speak ZMTP")]
    NotZmtp,
    /// It speaks an old version.
    #[error("the peer speaks ZMTP {0}, and 3.0 is the least")]
    TooOld(u8),
    /// It wants more than the NULL mechanism.
    #[error("the peer wants the mechanism {0:?}, and only NULL is known here")]
    Mechanism(String),
}

/// Takes the peer's greeting out of `buffer`; `None` when it is not all there yet.
pub(super) fn parse(buffer: &mut BytesMut) -> Result<Option<Version>, GreetingError> {
    if buffer.first().is_some_and(|&byte| byte != 0xff) || buffer.get(9).is_some_and(|&byte| byte != 0x7f) {
        return Err(GreetingError::NotZmtp);
    }
    // A version before 3 shows before the rest comes, which from such a peer may be never.
    if let Some(&major) = buffer.get(10)
        && major < 3
    {
        return Err(GreetingError::TooOld(major));
    }
    if buffer.len() < LENGTH {
        return Ok(None);
    }
    let version = Version { major: buffer[10], minor: buffer[11] };
    let mechanism = String::from_utf8_lossy(&buffer[MECHANISM]);
    let mechanism = mechanism.trim_end_matches('\0');
    if mechanism != "NULL" {
        return Err(GreetingError::Mechanism(mechanism.to_owned()));
    }
    buffer.advance(LENGTH);
    Ok(Some(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut [u8; LENGTH]), expected: Result<Option<Version>, GreetingError>) {
        let mut greeting = OURS;
        change(&mut greeting);
        assert_eq!(parse(&mut BytesMut::from(&greeting[..])), expected);
    }

    #[test]
    fn peers_of_version_3_and_later_are_taken() {
        check(|_| {}, Ok(Some(Version { major: 3, minor: 1 })));
        check(|greeting| greeting[11] = 0, Ok(Some(Version::V3_0)));
        check(|greeting| greeting[10] = 4, Ok(Some(Version { major: 4, minor: 1 })));
    }

    #[test]
    fn others_are_refused() {
        check(|greeting| greeting[0] = b'H', Err(GreetingError::NotZmtp));
        check(|greeting| greeting[10] = 2, Err(GreetingError::TooOld(2)));
        check(|greeting| greeting[12..17].copy_from_slice(b"CURVE"), Err(GreetingError::Mechanism("CURVE".to_owned())));
        assert_eq!(parse(&mut BytesMut::from(&b"HTTP/1.1 400 Bad Request"[..])), Err(GreetingError::NotZmtp));
    }

    #[test]
    fn a_part_of_a_greeting_is_waited_for() {
        for length in 0..LENGTH {
            let mut buffer = BytesMut::from(&OURS[..length]);
            assert_eq!(parse(&mut buffer), Ok(None));
            assert_eq!(buffer.len(), length);
        }
    }
}
