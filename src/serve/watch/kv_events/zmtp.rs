//! A ZeroMQ client: ZMTP 3.1 and 3.0, NULL mechanism, SUB and DEALER sockets, over any byte stream.
//!
//! Our own because it has to be bounded: what a peer announces is checked before anything is allocated for it, so a hostile
//! length is an error of this connection and nothing else. Heartbeats are answered, and sent to peers that speak 3.1, so
//! that a peer that froze is noticed. Sources: <https://rfc.zeromq.org/spec/23/> and <https://rfc.zeromq.org/spec/37/>.
//!
//! Absent on purpose: encryption, other socket types, reconnecting.

mod command;
mod frame;
mod greeting;

pub use command::CommandError;
pub use frame::{Frame, FrameError};
pub use greeting::{GreetingError, Version};

use bytes::{Bytes, BytesMut};
use command::Command;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

/// What a subscription takes, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in one frame, and in one message.
    pub message_bytes: usize,
    /// Frames in one message.
    pub frames: usize,
    /// From the first byte to a standing subscription.
    pub handshake: Duration,
    /// Between our PINGs to a peer that speaks 3.1; it is given up after three of these without a byte from it.
    pub heartbeat: Duration,
}

impl Default for Limits {
    /// 64 MiB and 16 frames are far beyond what vLLM sends: a batch of a million new tokens takes 5 MB.
    fn default() -> Self {
        Limits {
            message_bytes: 64 << 20,
            frames: 16,
            handshake: Duration::from_secs(5),
            heartbeat: Duration::from_secs(10),
        }
    }
}

/// Why a subscription ended, or never stood.
#[derive(Debug, thiserror::Error)]
pub enum ZmtpError {
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The peer closed the stream.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer did not finish the handshake in time.
    #[error("the peer did not finish the ZMTP handshake within {0:?}")]
    HandshakeTimeout(Duration),
    /// The peer does not speak a ZMTP that we do.
    #[error(transparent)]
    Greeting(#[from] GreetingError),
    /// The peer sent a frame that cannot be.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer sent a command that cannot be.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The peer is a socket of a type that does not go with ours.
    #[error("the peer is a {peer} socket, which does not go with a {ours} socket")]
    SocketType {
        /// What it is.
        peer: String,
        /// What we are.
        ours: &'static str,
    },
    /// The peer refused.
    #[error("the peer refused: {0}")]
    Refused(String),
    /// A message has more frames than are taken.
    #[error("a message has more than {0} frames")]
    TooManyFrames(usize),
    /// A message has more bytes than are taken.
    #[error("a message has more than {0} bytes")]
    MessageTooLarge(usize),
    /// Nothing came for too long.
    #[error("the peer was silent for {0:?}")]
    Silent(Duration),
}

/// A standing subscription: a SUB socket.
pub struct Subscription<S>(Connection<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Subscription<S> {
    /// Shakes hands as a SUB socket and subscribes to every message whose first frame starts with `topic`.
    pub async fn open(stream: S, topic: &[u8], limits: Limits) -> Result<Self, ZmtpError> {
        // As a message, which peers of both versions take; 3.1 has a command for it, which 3.0 does not know.
        let subscribe = frame::message(&[&[1], topic].concat());
        Ok(Subscription(Connection::open(stream, "SUB", &["PUB", "XPUB"], &subscribe, limits).await?))
    }

    /// The next message, as its frames. After an error the subscription is over.
    ///
    /// Dropping the future loses nothing of what was received.
    pub async fn next(&mut self) -> Result<Vec<Bytes>, ZmtpError> {
        self.0.next().await
    }
}

/// A DEALER socket: asks a ROUTER, which may answer a question many times.
pub struct Dealer<S>(Connection<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Dealer<S> {
    /// Shakes hands as a DEALER socket.
    pub async fn open(stream: S, limits: Limits) -> Result<Self, ZmtpError> {
        Ok(Dealer(Connection::open(stream, "DEALER", &["ROUTER"], &[], limits).await?))
    }

    /// Sends a message of these frames, at least one.
    pub async fn send(&mut self, frames: &[&[u8]]) -> Result<(), ZmtpError> {
        self.0.send(&frame::multipart(frames)).await
    }

    /// The next message, as its frames. After an error the connection is over.
    pub async fn next(&mut self) -> Result<Vec<Bytes>, ZmtpError> {
        self.0.next().await
    }
}

/// A standing connection, whatever the sockets at its ends.
struct Connection<S> {
    stream: S,
    limits: Limits,
    version: Version,
    buffer: BytesMut,
    /// The frames of a message whose last one has not come.
    partial: Vec<Bytes>,
    partial_bytes: usize,
    heard_at: Instant,
    pinged_at: Instant,
    /// How long the peer may be silent by its own word; it says so in its PINGs.
    time_to_live: Option<Duration>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Shakes hands as a socket of type `ours` with one of `theirs`, and sends the bytes of `first`.
    async fn open(
        stream: S,
        ours: &'static str,
        theirs: &[&str],
        first: &[u8],
        limits: Limits,
    ) -> Result<Self, ZmtpError> {
        let now = Instant::now();
        let mut connection = Connection {
            stream,
            limits,
            version: Version::V3_0,
            buffer: BytesMut::new(),
            partial: Vec::new(),
            partial_bytes: 0,
            heard_at: now,
            pinged_at: now,
            time_to_live: None,
        };
        match timeout(limits.handshake, connection.shake_hands(ours, theirs)).await {
            Ok(shaken) => shaken?,
            Err(_) => return Err(ZmtpError::HandshakeTimeout(limits.handshake)),
        }
        connection.send(first).await?;
        Ok(connection)
    }

    async fn next(&mut self) -> Result<Vec<Bytes>, ZmtpError> {
        loop {
            while let Some(frame) = frame::parse(&mut self.buffer, self.limits.message_bytes)? {
                match frame {
                    Frame::Command(body) => self.command(body).await?,
                    Frame::Message { body, more } => {
                        if let Some(message) = self.assemble(body, more)? {
                            return Ok(message);
                        }
                    }
                }
            }
            self.receive_or_ping().await?;
        }
    }

    async fn shake_hands(&mut self, ours: &'static str, theirs: &[&str]) -> Result<(), ZmtpError> {
        self.send(&greeting::OURS).await?;
        self.version = loop {
            if let Some(version) = greeting::parse(&mut self.buffer)? {
                break version;
            }
            self.receive().await?;
        };
        self.send(&frame::command(&command::ready(ours))).await?;
        loop {
            match frame::parse(&mut self.buffer, self.limits.message_bytes)? {
                Some(Frame::Command(body)) => match command::parse(&body)? {
                    Command::Ready { socket_type } => {
                        return match theirs.contains(&socket_type.as_str()) {
                            true => Ok(()),
                            false => Err(ZmtpError::SocketType { peer: socket_type, ours }),
                        };
                    }
                    Command::Error { reason } => return Err(ZmtpError::Refused(reason)),
                    Command::Ping { .. } | Command::Pong | Command::Other => {}
                },
                Some(Frame::Message { .. }) => return Err(FrameError::Unexpected.into()),
                None => self.receive().await?,
            }
        }
    }

    async fn command(&mut self, body: Bytes) -> Result<(), ZmtpError> {
        match command::parse(&body)? {
            Command::Ping { time_to_live, context } => {
                self.time_to_live = (!time_to_live.is_zero()).then_some(time_to_live);
                self.send(&frame::command(&command::pong(&context))).await
            }
            Command::Error { reason } => Err(ZmtpError::Refused(reason)),
            Command::Pong | Command::Ready { .. } | Command::Other => Ok(()),
        }
    }

    fn assemble(&mut self, body: Bytes, more: bool) -> Result<Option<Vec<Bytes>>, ZmtpError> {
        if self.partial.len() == self.limits.frames {
            return Err(ZmtpError::TooManyFrames(self.limits.frames));
        }
        self.partial_bytes += body.len();
        if self.partial_bytes > self.limits.message_bytes {
            return Err(ZmtpError::MessageTooLarge(self.limits.message_bytes));
        }
        self.partial.push(body);
        if more {
            return Ok(None);
        }
        self.partial_bytes = 0;
        Ok(Some(std::mem::take(&mut self.partial)))
    }

    /// Waits for bytes, for the time to ping, or for the peer to have been silent for too long.
    async fn receive_or_ping(&mut self) -> Result<(), ZmtpError> {
        let pings = self.version.has_heartbeats();
        let own = pings.then_some(self.limits.heartbeat * 3);
        let silence_max = [own, self.time_to_live].into_iter().flatten().min();
        let silent_at = silence_max.map(|max| self.heard_at + max);
        let ping_at = pings.then(|| self.heard_at.max(self.pinged_at) + self.limits.heartbeat);
        tokio::select! {
            biased;
            received = receive(&mut self.stream, &mut self.buffer) => {
                self.heard_at = Instant::now();
                received
            }
            () = at(silent_at) => Err(ZmtpError::Silent(silence_max.unwrap_or_default())),
            () = at(ping_at) => {
                self.pinged_at = Instant::now();
                self.send(&frame::command(&command::ping(self.limits.heartbeat * 3))).await
            }
        }
    }

    async fn receive(&mut self) -> Result<(), ZmtpError> {
        receive(&mut self.stream, &mut self.buffer).await
    }

    /// What we send is tiny, so a peer that does not take it at once takes nothing at all.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), ZmtpError> {
        match timeout(self.limits.handshake, self.stream.write_all(bytes)).await {
            Ok(written) => Ok(written?),
            Err(_) => Err(ZmtpError::Silent(self.limits.handshake)),
        }
    }
}

async fn receive(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> Result<(), ZmtpError> {
    buffer.reserve(16 << 10);
    match stream.read_buf(buffer).await? {
        0 => Err(ZmtpError::Closed),
        _ => Ok(()),
    }
}

/// Never, for `None`.
async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
