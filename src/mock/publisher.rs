//! The ZeroMQ sockets that cache events leave by: as they happen, and once more for whoever asks.

use super::MockError;
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::net::SocketAddr;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use zeromq::{
    Endpoint, RouterSocket, Socket, SocketEvent, SocketRecv, SocketSend, XPubSocket, ZmqError, ZmqMessage, ZmqResult,
};

/// Batches that wait for a slow subscriber, at most; further ones are dropped, as vLLM's high-water mark does.
const BATCHES_MAX: usize = 100_000;

/// Batches kept for replay: vLLM's `buffer_steps`.
const KEPT_MAX: usize = 10_000;

/// A batch as it goes out: topic, sequence number, payload.
#[derive(Clone)]
pub(super) struct Batch {
    pub topic: Bytes,
    pub sequence: u64,
    pub payload: Bytes,
}

/// An XPUB socket: on the wire a PUB socket, but it tells us who subscribes.
pub(super) struct Publisher {
    socket: XPubSocket,
    address: SocketAddr,
    replay: Option<(RouterSocket, SocketAddr)>,
    kept: VecDeque<Batch>,
    hang_up: Box<dyn FnOnce() + Send>,
    batches: mpsc::Receiver<Batch>,
    subscriptions: watch::Sender<u64>,
}

impl Publisher {
    pub async fn bind(
        host: IpAddr,
        port: u16,
        replay_port: Option<u16>,
    ) -> Result<(Self, mpsc::Sender<Batch>), MockError> {
        let mut socket = XPubSocket::new();
        let hang_up = hang_up(&mut socket);
        let address = listen(&mut socket, SocketAddr::new(host, port)).await?;
        let replay = match replay_port {
            Some(port) => {
                let mut router = RouterSocket::new();
                let address = listen(&mut router, SocketAddr::new(host, port)).await?;
                Some((router, address))
            }
            None => None,
        };
        let (sender, batches) = mpsc::channel(BATCHES_MAX);
        let (subscriptions, kept) = (watch::Sender::new(0), VecDeque::new());
        Ok((Publisher { socket, address, replay, kept, hang_up, batches, subscriptions }, sender))
    }

    pub fn replay_address(&self) -> Option<SocketAddr> {
        self.replay.as_ref().map(|(_, address)| *address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn subscriptions(&self) -> watch::Receiver<u64> {
        self.subscriptions.subscribe()
    }

    /// Publishes until `stop`, then hangs up.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.publish()).await;
        for error in self.socket.close().await {
            tracing::debug!(%error, "the publisher did not close well");
        }
        (self.hang_up)();
    }

    async fn publish(&mut self) {
        loop {
            tokio::select! {
                // Subscriptions first: one that came before a batch must not miss it.
                biased;
                heard = self.socket.recv() => match heard {
                    Ok(message) if message.get(0).is_some_and(|frame| frame.first() == Some(&1)) => {
                        self.subscriptions.send_modify(|subscriptions| *subscriptions += 1);
                    }
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "a subscriber went away"),
                },
                batch = self.batches.recv() => match batch {
                    Some(batch) => self.send(batch).await,
                    None => return,
                },
                asked = ask(&mut self.replay) => self.answer(asked).await,
            }
        }
    }

    /// Every batch from the one that is asked for, then the end marker; anything but `[identity, "", number]` is ignored.
    async fn answer(&mut self, asked: ZmqResult<ZmqMessage>) {
        let (Ok(asked), Some((router, _))) = (asked, &mut self.replay) else {
            return;
        };
        let frames = asked.into_vec();
        let [identity, _, from] = frames.as_slice() else {
            return;
        };
        let Ok(from) = <[u8; 8]>::try_from(from.as_ref()).map(u64::from_be_bytes) else {
            return;
        };
        let end = Batch { topic: Bytes::new(), sequence: u64::MAX, payload: Bytes::new() };
        for batch in self.kept.iter().filter(|batch| batch.sequence >= from).chain([&end]) {
            let mut message = ZmqMessage::from(identity.clone());
            message.push_back(Bytes::new());
            message.push_back(batch.topic.clone());
            message.push_back(Bytes::copy_from_slice(&batch.sequence.to_be_bytes()));
            message.push_back(batch.payload.clone());
            if let Err(error) = router.send(message).await {
                return tracing::debug!(%error, "who asked for a replay went away");
            }
        }
    }

    async fn send(&mut self, batch: Batch) {
        if self.replay.is_some() {
            if self.kept.len() == KEPT_MAX {
                self.kept.pop_front();
            }
            self.kept.push_back(batch.clone());
        }
        let mut message = ZmqMessage::from(batch.topic);
        message.push_back(Bytes::copy_from_slice(&batch.sequence.to_be_bytes()));
        message.push_back(batch.payload);
        if let Err(error) = self.socket.send(message).await {
            tracing::warn!(%error, "a batch of cache events was not sent");
        }
    }
}

async fn listen(socket: &mut impl Socket, address: SocketAddr) -> Result<SocketAddr, MockError> {
    let failed = |reason| MockError::KvEvents { address, reason };
    match socket.bind(&format!("tcp://{address}")).await.map_err(failed)? {
        Endpoint::Tcp(_, port) => Ok(SocketAddr::new(address.ip(), port)),
        _ => Err(failed(ZmqError::Other("not a TCP endpoint"))),
    }
}

/// Never, where nothing is replayed.
async fn ask(replay: &mut Option<(RouterSocket, SocketAddr)>) -> ZmqResult<ZmqMessage> {
    match replay {
        Some((router, _)) => router.recv().await,
        None => std::future::pending().await,
    }
}

/// What closes the connections of everyone who connects from now on, the first thousand at least.
///
/// The socket's own end forgets those that it reads from (zeromq 0.7.0), and a subscriber would go on waiting for a
/// publisher that is gone.
fn hang_up(socket: &mut XPubSocket) -> Box<dyn FnOnce() + Send> {
    let (mut events, backend) = (socket.monitor(), socket.backend());
    Box::new(move || {
        while let Ok(event) = events.try_recv() {
            if let SocketEvent::Accepted(_, peer) = event {
                backend.peer_disconnected(&peer);
            }
        }
    })
}
