//! The ZeroMQ subscriber against a peer that is played byte by byte, on paused time.

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;
use warmpath::serve::kv_events::zmtp::{FrameError, Limits, Subscription, ZmtpError};

const GREETING: [u8; 64] = {
    let mut greeting = [0; 64];
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
const READY: &[u8] = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB";
const SUB_READY: &[u8] = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB";

/// Shakes hands as a publisher of ZMTP 3.`minor`.
async fn greet(peer: &mut DuplexStream, minor: u8) {
    let mut greeting = GREETING;
    greeting[11] = minor;
    peer.write_all(&greeting).await.unwrap();
    expect(peer, &GREETING).await;
    peer.write_all(READY).await.unwrap();
    expect(peer, SUB_READY).await;
    expect(peer, b"\x00\x03\x01kv").await;
}

async fn expect(peer: &mut DuplexStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    peer.read_exact(&mut read).await.unwrap();
    assert_eq!(read, bytes);
}

async fn subscribed(minor: u8) -> (Subscription<DuplexStream>, DuplexStream) {
    let (ours, mut peer) = duplex(1 << 16);
    let (subscription, ()) = tokio::join!(Subscription::open(ours, b"kv", LIMITS), greet(&mut peer, minor));
    (subscription.unwrap(), peer)
}

const LIMITS: Limits =
    Limits { message_bytes: 1 << 10, frames: 3, handshake: Duration::from_secs(5), heartbeat: Duration::from_secs(10) };

#[tokio::test(start_paused = true)]
async fn messages_come_whole_from_peers_of_both_versions() {
    for minor in [0, 1] {
        let (mut subscription, mut peer) = subscribed(minor).await;
        peer.write_all(b"\x01\x02kv\x03\x00\x00\x00\x00\x00\x00\x00\x01A\x00\x00").await.unwrap();
        let message = subscription.next().await.unwrap();
        assert_eq!(message, [&b"kv"[..], b"A", b""]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_with_its_context() {
    let (mut subscription, mut peer) = subscribed(0).await;
    peer.write_all(b"\x04\x0a\x04PING\x00\x00abc").await.unwrap();
    peer.write_all(b"\x00\x01x").await.unwrap();
    assert_eq!(subscription.next().await.unwrap(), [&b"x"[..]]);
    expect(&mut peer, b"\x04\x08\x04PONGabc").await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_froze_is_noticed() {
    // By our own PINGs, when it speaks 3.1...
    let (mut subscription, mut peer) = subscribed(1).await;
    let began = Instant::now();
    let silent = subscription.next().await.unwrap_err();
    assert!(matches!(silent, ZmtpError::Silent(limit) if limit == LIMITS.heartbeat * 3), "{silent}");
    assert_eq!(began.elapsed(), LIMITS.heartbeat * 3);
    expect(&mut peer, b"\x04\x07\x04PING\x01\x2c").await;
    expect(&mut peer, b"\x04\x07\x04PING\x01\x2c").await;

    // ... and by its own word, when it sent PINGs before it froze.
    let (mut subscription, mut peer) = subscribed(0).await;
    peer.write_all(b"\x04\x07\x04PING\x00\x0f").await.unwrap();
    let began = Instant::now();
    let silent = subscription.next().await.unwrap_err();
    assert!(matches!(silent, ZmtpError::Silent(limit) if limit == Duration::from_millis(1500)), "{silent}");
    assert_eq!(began.elapsed(), Duration::from_millis(1500));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_pings_is_kept() {
    let (mut subscription, mut peer) = subscribed(1).await;
    let answering = async {
        for _ in 0..20 {
            expect(&mut peer, b"\x04\x07\x04PING\x01\x2c").await;
            peer.write_all(b"\x04\x05\x04PONG").await.unwrap();
        }
        peer.write_all(b"\x00\x01x").await.unwrap();
    };
    let (message, ()) = tokio::join!(subscription.next(), answering);
    assert_eq!(message.unwrap(), [&b"x"[..]]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_of_3_0_without_pings_may_be_silent_for_ever() {
    let (mut subscription, _peer) = subscribed(0).await;
    let day = Duration::from_secs(86_400);
    assert!(tokio::time::timeout(day, subscription.next()).await.is_err(), "it is still waited for");
}

#[tokio::test(start_paused = true)]
async fn more_than_is_taken_is_an_error() {
    let (mut subscription, mut peer) = subscribed(1).await;
    peer.write_all(&[&[2][..], &(1u64 << 40).to_be_bytes()].concat()).await.unwrap();
    let error = subscription.next().await.unwrap_err();
    assert!(
        matches!(error, ZmtpError::Frame(FrameError::TooLarge { announced, .. }) if announced == 1 << 40),
        "{error}"
    );

    let (mut subscription, mut peer) = subscribed(1).await;
    peer.write_all(b"\x01\x00\x01\x00\x01\x00\x00\x00").await.unwrap();
    assert!(matches!(subscription.next().await, Err(ZmtpError::TooManyFrames(3))));

    let (mut subscription, mut peer) = subscribed(1).await;
    let half = [&[3][..], &600u64.to_be_bytes(), &[0; 600]].concat();
    peer.write_all(&[half.clone(), half].concat()).await.unwrap();
    assert!(matches!(subscription.next().await, Err(ZmtpError::MessageTooLarge(1024))));
}

#[tokio::test(start_paused = true)]
async fn peers_that_are_no_publishers_are_refused() {
    async fn refused(bytes: &[u8]) -> ZmtpError {
        let (ours, mut peer) = duplex(1 << 16);
        peer.write_all(bytes).await.unwrap();
        Subscription::open(ours, b"kv", LIMITS).await.err().expect("it is refused")
    }
    let subscriber = refused(&[&GREETING[..], SUB_READY].concat()).await;
    assert_eq!(subscriber.to_string(), "the peer is a SUB socket, which does not go with a SUB socket");
    let refusing = refused(&[&GREETING[..], b"\x04\x0a\x05ERROR\x03no!"].concat()).await;
    assert_eq!(refusing.to_string(), "the peer refused: no!");
    let web = refused(b"HTTP/1.1 400 Bad Request\r\n").await;
    assert_eq!(web.to_string(), "the peer does not speak ZMTP");
    let silent = refused(&GREETING[..10]).await;
    assert!(matches!(silent, ZmtpError::HandshakeTimeout(_)), "{silent}");
    let early = refused(&[&GREETING[..], b"\x00\x01x"].concat()).await;
    assert!(matches!(early, ZmtpError::Frame(FrameError::Unexpected)), "{early}");
}

/// Dropping `next` in the middle of a message must lose nothing: the subscriber is polled beside a stop signal.
#[tokio::test(start_paused = true)]
async fn a_dropped_wait_loses_nothing() {
    let (mut subscription, mut peer) = subscribed(0).await;
    for &byte in b"\x01\x02kv\x00\x03end" {
        assert!(tokio::time::timeout(Duration::from_millis(1), subscription.next()).await.is_err());
        peer.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(subscription.next().await.unwrap(), [&b"kv"[..], b"end"]);
}
