//! Keeps one instance's subscription standing: connect, feed, and again.

use super::feed::{Feed, Heard};
use super::replay;
use super::zmtp::{self, Subscription, ZmtpError};
use crate::config::{Endpoint, KvEvents};
use std::convert::Infallible;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// What a subscriber waits for, and takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What the protocol takes.
    pub zmtp: zmtp::Limits,
    /// The first wait after a failed connection; each further one is twice as long.
    pub retry_min: Duration,
    /// The longest wait.
    pub retry_max: Duration,
    /// A replay must have come to its end within this long.
    pub replay: Duration,
    /// After this long without a message the publisher is asked whether one was lost, where it can be asked.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            zmtp: zmtp::Limits::default(),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(5),
            replay: Duration::from_secs(30),
            idle: Duration::from_secs(10),
        }
    }
}

/// Subscribes to a publisher and feeds what it says to the router, again and again, until `stop`.
pub async fn subscribe(
    mut feed: Feed,
    source: KvEvents,
    limits: Limits,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    stop.run_until_cancelled(keep_subscribed(&mut feed, &source, &limits)).await;
    feed.disconnected();
    Ok(())
}

async fn keep_subscribed(feed: &mut Feed, source: &KvEvents, limits: &Limits) {
    let mut retry = limits.retry_min;
    // One line when it goes, one when it is back: a publisher that is away for an hour is not news every five seconds.
    let mut said = false;
    loop {
        let failed = match connect(source, limits).await {
            Ok(subscription) => {
                tracing::info!(instance = feed.name(), endpoint = %source.endpoint, "subscribed to cache events");
                said = false;
                let since = Instant::now();
                feed.connected();
                let failed = relay(feed, subscription, source.replay.as_ref(), limits).await;
                feed.disconnected();
                // A peer that accepts and hangs up at once is no better than one that refuses.
                if since.elapsed() >= limits.retry_max {
                    retry = limits.retry_min;
                }
                failed
            }
            Err(failed) => failed,
        };
        if std::mem::replace(&mut said, true) {
            tracing::debug!(instance = feed.name(), endpoint = %source.endpoint, "still no cache events: {failed}");
        } else {
            tracing::warn!(instance = feed.name(), endpoint = %source.endpoint, "no cache events: {failed}; trying again");
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(limits.retry_max);
    }
}

async fn connect(source: &KvEvents, limits: &Limits) -> Result<Subscription<TcpStream>, ZmtpError> {
    let Endpoint { host, port } = &source.endpoint;
    let stream = match timeout(limits.zmtp.handshake, TcpStream::connect((host.as_str(), *port))).await {
        Ok(stream) => stream?,
        Err(_) => return Err(ZmtpError::HandshakeTimeout(limits.zmtp.handshake)),
    };
    stream.set_nodelay(true)?;
    Subscription::open(stream, source.topic.as_bytes(), limits.zmtp).await
}

/// Feeds messages until the subscription ends; tells why it did.
///
/// What was published before is replayed first, while what is published meanwhile waits in the subscription.
async fn relay(
    feed: &mut Feed,
    mut subscription: Subscription<TcpStream>,
    replay: Option<&Endpoint>,
    limits: &Limits,
) -> ZmtpError {
    let Some(replay) = replay else {
        loop {
            match subscription.next().await {
                Ok(message) => feed.message(&message, false),
                Err(failed) => return failed,
            };
        }
    };
    catch_up(feed, replay, limits).await;
    loop {
        match timeout(limits.idle, subscription.next()).await {
            Ok(Ok(message)) => {
                if feed.message(&message, true) == Heard::Early {
                    catch_up(feed, replay, limits).await;
                    feed.message(&message, false);
                }
            }
            Ok(Err(failed)) => return failed,
            // The last batch of all may be the one that was lost: nothing after it tells.
            Err(_) => catch_up(feed, replay, limits).await,
        }
    }
}

async fn catch_up(feed: &mut Feed, source: &Endpoint, limits: &Limits) {
    if let Err(failed) = replay::catch_up(feed, source, limits.zmtp, limits.replay).await {
        feed.not_caught_up(&failed);
    }
}
