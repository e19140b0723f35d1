//! The ZeroMQ socket that cache events leave by.

use super::MockError;
use bytes::Bytes;
use std::net::SocketAddr;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use zeromq::{Endpoint, Socket, SocketEvent, SocketRecv, SocketSend, XPubSocket, ZmqError, ZmqMessage};

/// Batches that wait for a slow subscriber, at most; further ones are dropped, as vLLM's high-water mark does.
const BATCHES_MAX: usize = 100_000;

/// A batch as it goes out: topic, sequence number, payload.
pub(super) struct Batch {
    pub topic: Bytes,
    pub sequence: u64,
    pub payload: Bytes,
}

/// An XPUB socket: on the wire a PUB socket, but it tells us who subscribes.
pub(super) struct Publisher {
    socket: XPubSocket,
    address: SocketAddr,
    hang_up: Box<dyn FnOnce() + Send>,
    batches: mpsc::Receiver<Batch>,
    subscriptions: watch::Sender<u64>,
}

impl Publisher {
    pub async fn bind(address: SocketAddr) -> Result<(Self, mpsc::Sender<Batch>), MockError> {
        let failed = |reason| MockError::KvEvents { address, reason };
        let mut socket = XPubSocket::new();
        let hang_up = hang_up(&mut socket);
        let Endpoint::Tcp(_, port) = socket.bind(&format!("tcp://{address}")).await.map_err(failed)? else {
            return Err(failed(ZmqError::Other("not a TCP endpoint")));
        };
        let (sender, batches) = mpsc::channel(BATCHES_MAX);
        let address = SocketAddr::new(address.ip(), port);
        let publisher = Publisher { socket, address, hang_up, batches, subscriptions: watch::Sender::new(0) };
        Ok((publisher, sender))
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
            }
        }
    }

    async fn send(&mut self, batch: Batch) {
        let mut message = ZmqMessage::from(batch.topic);
        message.push_back(Bytes::copy_from_slice(&batch.sequence.to_be_bytes()));
        message.push_back(batch.payload);
        if let Err(error) = self.socket.send(message).await {
            tracing::warn!(%error, "a batch of cache events was not sent");
        }
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
