//! Keeps one instance's subscription standing: connect, feed, and again.

use super::feed::{Feed, Heard};
use super::replay;
use super::source::{NoSource, Source};
use super::zmtp::{self, Subscription, ZmtpError};
use crate::config::{Endpoint, KvEvents};
use std::convert::Infallible;
use std::io;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
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
    /// An instance that publishes nothing is asked again after this long.
    pub ask_again: Duration,
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
            ask_again: Duration::from_secs(60),
            idle: Duration::from_secs(10),
        }
    }
}

/// Subscribes to a publisher and feeds what it says to the router, again and again, until `stop`.
pub(in crate::serve) async fn subscribe(
    mut feed: Feed,
    source: Source,
    limits: Limits,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    stop.run_until_cancelled(keep_subscribed(&mut feed, &source, &limits)).await;
    feed.disconnected();
    Ok(())
}

/// Why there is no subscription.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    NoSource(#[from] NoSource),
    #[error(transparent)]
    Zmtp(#[from] ZmtpError),
    #[error("cannot listen: {0}")]
    Listen(io::Error),
    #[error("another publisher connected")]
    Replaced,
}

async fn keep_subscribed(feed: &mut Feed, source: &Source, limits: &Limits) {
    let mut retry = limits.retry_min;
    let mut door = Door::default();
    // One line when it goes, one when it is back: a publisher that is away for an hour is not news every five seconds.
    let mut said = false;
    loop {
        let mut since = None;
        let failed = match session(feed, source, &mut door, limits, &mut since).await {
            // Whoever connects next is let in at once.
            Failed::Replaced => continue,
            failed => failed,
        };
        // A peer that accepts and hangs up at once is no better than one that refuses.
        if since.is_some_and(|since: Instant| since.elapsed() >= limits.retry_max) {
            retry = limits.retry_min;
        }
        let none = matches!(failed, Failed::NoSource(NoSource::None(_)));
        if std::mem::replace(&mut said, since.is_none()) {
            tracing::debug!(instance = feed.name(), "still no cache events: {failed}");
        } else if none {
            tracing::info!(
                instance = feed.name(),
                "no cache events: {failed}; what it was sent is believed to be cached"
            );
        } else {
            tracing::warn!(instance = feed.name(), "no cache events: {failed}; trying again");
        }
        if none {
            feed.unpublished();
        }
        tokio::time::sleep(if none { limits.ask_again } else { retry }).await;
        retry = (retry * 2).min(limits.retry_max);
    }
}

/// One subscription, from its beginning to its end; tells why it ended. `since` is when it stood.
async fn session(
    feed: &mut Feed,
    source: &Source,
    door: &mut Door,
    limits: &Limits,
    since: &mut Option<Instant>,
) -> Failed {
    let stands = async {
        let source = source.find().await?;
        let stream = if source.listens { door.next(&source.endpoint).await? } else { dial(&source, limits).await? };
        stream.set_nodelay(true).map_err(ZmtpError::from)?;
        Ok((Subscription::open(stream, source.topic.as_bytes(), limits.zmtp).await?, source))
    };
    let (subscription, source) = match stands.await {
        Ok(stands) => stands,
        Err(failed) => return failed,
    };
    tracing::info!(instance = feed.name(), endpoint = %source.endpoint, "subscribed to cache events");
    *since = Some(Instant::now());
    feed.connected();
    let failed = tokio::select! {
        failed = relay(feed, subscription, source.replay.as_ref(), limits) => failed.into(),
        () = door.knock() => Failed::Replaced,
    };
    feed.disconnected();
    failed
}

async fn dial(source: &KvEvents, limits: &Limits) -> Result<TcpStream, Failed> {
    let Endpoint { host, port } = &source.endpoint;
    match timeout(limits.zmtp.handshake, TcpStream::connect((host.as_str(), *port))).await {
        Ok(stream) => Ok(stream.map_err(ZmtpError::from)?),
        Err(_) => Err(ZmtpError::HandshakeTimeout(limits.zmtp.handshake).into()),
    }
}

/// Where a publisher that connects to us is let in. One at a time: who comes while another one's connection stands takes its
/// place, for that one may have died without a word.
#[derive(Default)]
struct Door {
    listener: Option<TcpListener>,
    waiting: Option<TcpStream>,
}

impl Door {
    /// The next publisher to come.
    async fn next(&mut self, endpoint: &Endpoint) -> Result<TcpStream, Failed> {
        if let Some(waiting) = self.waiting.take() {
            return Ok(waiting);
        }
        let listener = match &mut self.listener {
            Some(listener) => listener,
            none => {
                let address = (endpoint.host.as_str(), endpoint.port);
                none.insert(TcpListener::bind(address).await.map_err(Failed::Listen)?)
            }
        };
        let (stream, _) = listener.accept().await.map_err(ZmtpError::from)?;
        Ok(stream)
    }

    /// Ends when another one comes; never where nobody is listened for.
    async fn knock(&mut self) {
        match &self.listener {
            Some(listener) => loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        self.waiting = Some(stream);
                        return;
                    }
                    // Of one who went away before being let in; or there are no descriptors left, which takes time.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            },
            None => std::future::pending().await,
        }
    }
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
