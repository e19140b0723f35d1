//! Asks a publisher for what it published before, so that what was missed can be made good.
//!
//! vLLM's ROUTER answers `["", first sequence number]` with every batch that it still has from there on, then an end marker:
//! `["", topic, sequence, payload]` and the sequence number -1, or, up to 0.24, the same without the topic. Whether the
//! publisher is still the one that we heard is told by asking for the last batch once more: its payload holds the time.

use super::feed::{Feed, Mark};
use super::zmtp::{self, Dealer, ZmtpError};
use crate::config::Endpoint;
use bytes::Bytes;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Why a replay could not be had, or not whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplayError {
    #[error(transparent)]
    Zmtp(#[from] ZmtpError),
    #[error("no connection within {0:?}")]
    Connect(Duration),
    #[error("it did not end within {0:?}")]
    TimeOut(Duration),
    #[error("an answer of {0} frames is no batch")]
    Frames(usize),
    #[error("batch {found} came where {expected} was due")]
    NotContiguous { expected: u64, found: u64 },
}

/// What an answer holds.
enum Answer {
    Batch { sequence: u64, payload: Bytes },
    End,
}

/// Brings a feed up to what was published so far. After an error what came before it was taken in.
pub(super) async fn catch_up(
    feed: &mut Feed,
    source: &Endpoint,
    limits: zmtp::Limits,
    within: Duration,
) -> Result<(), ReplayError> {
    let caught_up = async {
        let mut publisher = connect(source, limits).await?;
        if let Some(mark) = feed.mark()
            && go_on(feed, &mut publisher, mark).await?
        {
            return Ok(());
        }
        ask(&mut publisher, 0).await?;
        receive(feed, &mut publisher, None).await
    };
    let outcome = timeout(within, caught_up).await.unwrap_or(Err(ReplayError::TimeOut(within)));
    if outcome.is_ok() {
        feed.caught_up();
    }
    outcome
}

/// Replays what followed the batch that was heard last; `false` when the publisher does not have that batch any more, and
/// all that was known is forgotten.
async fn go_on(feed: &mut Feed, publisher: &mut Dealer<TcpStream>, mark: Mark) -> Result<bool, ReplayError> {
    ask(publisher, mark.sequence).await?;
    let other = match answer(publisher).await? {
        Answer::Batch { sequence, payload } if Mark::of(sequence, &payload) == mark => {
            let next = sequence.checked_add(1);
            receive(feed, publisher, next).await?;
            return Ok(true);
        }
        Answer::Batch { sequence, .. } => Some(sequence),
        Answer::End => None,
    };
    // The rest of this answer is of no use.
    if other.is_some() {
        while let Answer::Batch { .. } = answer(publisher).await? {}
    }
    feed.begin_anew(other.is_some_and(|sequence| sequence > mark.sequence));
    Ok(false)
}

/// Takes in batches up to the end marker. `next` is the first one's number; without it history may begin anywhere.
async fn receive(feed: &mut Feed, publisher: &mut Dealer<TcpStream>, mut next: Option<u64>) -> Result<(), ReplayError> {
    while let Answer::Batch { sequence, payload } = answer(publisher).await? {
        if let Some(expected) = next.filter(|&expected| expected != sequence) {
            return Err(ReplayError::NotContiguous { expected, found: sequence });
        }
        feed.replayed(sequence, &payload);
        next = sequence.checked_add(1);
    }
    Ok(())
}

async fn connect(source: &Endpoint, limits: zmtp::Limits) -> Result<Dealer<TcpStream>, ReplayError> {
    let stream = match timeout(limits.handshake, TcpStream::connect((source.host.as_str(), source.port))).await {
        Ok(stream) => stream.map_err(ZmtpError::from)?,
        Err(_) => return Err(ReplayError::Connect(limits.handshake)),
    };
    stream.set_nodelay(true).map_err(ZmtpError::from)?;
    Ok(Dealer::open(stream, limits).await?)
}

async fn ask(publisher: &mut Dealer<TcpStream>, from: u64) -> Result<(), ReplayError> {
    Ok(publisher.send(&[b"", &from.to_be_bytes()]).await?)
}

/// The sequence number of the end marker: -1.
const END: u64 = u64::MAX;

async fn answer(publisher: &mut Dealer<TcpStream>) -> Result<Answer, ReplayError> {
    let frames = publisher.next().await?;
    let [.., sequence, payload] = frames.as_slice() else {
        return Err(ReplayError::Frames(frames.len()));
    };
    let sequence = <[u8; 8]>::try_from(sequence.as_ref()).map_err(|_| ReplayError::Frames(frames.len()))?;
    Ok(match u64::from_be_bytes(sequence) {
        END => Answer::End,
        sequence => Answer::Batch { sequence, payload: payload.clone() },
    })
}
