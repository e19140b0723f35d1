//! Cache events over real sockets: restarts, gaps, refusals, and what does not fit. The publisher here is the `zeromq`
//! crate's, driven by hand: an implementation of its own.

use crate::support::{RunningApp, config, eventually, instance, mock_config, prompt, soon, start_app, start_mock};
use bytes::Bytes;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use warmpath::config::Config;
use warmpath::mock::MockConfig;
use warmpath::mock::wire::{self, WireEvent};
use warmpath::routing::Knowledge;
use zeromq::{Endpoint, Socket, SocketRecv, SocketSend, XPubSocket, ZmqMessage};

/// A publisher driven by hand.
pub struct Publisher {
    socket: XPubSocket,
    address: SocketAddr,
}

impl Publisher {
    async fn bind() -> Self {
        let mut socket = XPubSocket::new();
        let Endpoint::Tcp(_, port) = socket.bind("tcp://127.0.0.1:0").await.unwrap() else {
            panic!("TCP was asked for")
        };
        Publisher { socket, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// One that connects, as vLLM does where its endpoint names another host.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut socket = XPubSocket::new();
        soon("the connection", socket.connect(&format!("tcp://{address}"))).await.unwrap();
        Publisher { socket, address }
    }

    pub async fn subscribed(&mut self) {
        soon("the subscription", self.socket.recv()).await.unwrap();
    }

    pub async fn send(&mut self, sequence: u64, payload: Vec<u8>) {
        let mut message = ZmqMessage::from(Bytes::from_static(b"kv-events"));
        message.push_back(Bytes::copy_from_slice(&sequence.to_be_bytes()));
        message.push_back(Bytes::from(payload));
        self.socket.send(message).await.unwrap();
    }

    /// One block of tokens under a name, after another one.
    pub async fn store(&mut self, sequence: u64, block: u64, parent: Option<u64>, tokens: &[u32]) {
        let stored = WireEvent::Stored {
            block_hashes: vec![block],
            parent_block_hash: parent,
            token_ids: tokens,
            block_size: tokens.len() as u32,
            cache_salt: None,
        };
        self.send(sequence, wire::encode(1.0, &[stored])).await;
    }
}

async fn subscribed() -> (Publisher, RunningApp) {
    subscribed_with(|_| {}).await
}

/// As [`subscribed`], with a configuration that was changed.
pub async fn subscribed_with(change: impl FnOnce(&mut Config)) -> (Publisher, RunningApp) {
    let mut publisher = Publisher::bind().await;
    let mut config = fed_by(publisher.address);
    change(&mut config);
    let app = start_app(config).await;
    publisher.subscribed().await;
    (publisher, app)
}

fn fed_by(publisher: SocketAddr) -> Config {
    config(vec![instance("only", SocketAddr::from(([127, 0, 0, 1], 1)), Some(publisher))])
}

impl RunningApp {
    async fn batches(&self, count: f64) {
        eventually("the batches", || self.metric("warmpath_kv_event_batches_total{instance=\"only\"}") >= count).await;
    }

    fn count(&self, name: &str) -> f64 {
        self.metric(&format!("warmpath_kv_{name}{{instance=\"only\"}}"))
    }
}

#[tokio::test]
async fn from_the_first_batch_on_knowledge_is_exact() {
    let (mut publisher, app) = subscribed().await;
    assert_eq!(app.knowledge(0), Knowledge::Degraded);
    publisher.store(0, 1, None, &prompt(1, 16)).await;
    publisher.store(1, 2, Some(1), &prompt(2, 16)).await;
    eventually("exact knowledge", || app.knowledge(0) == Knowledge::Exact && app.cached_blocks(0) == 2).await;
    publisher.send(2, wire::encode(1.0, &[WireEvent::Removed { block_hash: 2 }])).await;
    eventually("the removal", || app.cached_blocks(0) == 1).await;
    publisher.send(3, wire::encode(1.0, &[WireEvent::Cleared])).await;
    eventually("the clearing", || app.cached_blocks(0) == 0).await;
    assert_eq!(app.knowledge(0), Knowledge::Exact);
    // Published in 1970, by its own word.
    assert!(app.metric("warmpath_kv_event_lag_seconds{instance=\"only\"}") > 1e9);
    for (kind, count) in [("stored", 2.0), ("removed", 1.0), ("cleared", 1.0)] {
        let series = format!("warmpath_kv_events_total{{instance=\"only\",kind=\"{kind}\"}}");
        assert_eq!(app.metric(&series), count, "{kind}");
    }
    app.running.stop().await;
}

#[tokio::test]
async fn a_gap_forgets_and_degrades_until_the_cache_is_cleared() {
    let (mut publisher, app) = subscribed().await;
    publisher.store(0, 1, None, &prompt(1, 16)).await;
    publisher.store(1, 2, Some(1), &prompt(2, 16)).await;
    eventually("two blocks", || app.cached_blocks(0) == 2).await;

    publisher.store(3, 9, None, &prompt(3, 16)).await;
    eventually("the gap", || app.count("event_gaps_total") == 1.0).await;
    eventually("the block after it", || app.cached_blocks(0) == 1).await;
    assert_eq!(app.knowledge(0), Knowledge::Degraded);

    // What came before the gap is not known any more, so neither is what follows it.
    publisher.store(4, 10, Some(2), &prompt(4, 16)).await;
    app.batches(4.0).await;
    let orphans = "warmpath_kv_event_orphans_total{instance=\"only\",fate=\"kept\"}";
    eventually("the orphan", || app.metric(orphans) == 1.0).await;
    assert_eq!((app.cached_blocks(0), app.knowledge(0)), (1, Knowledge::Degraded));

    publisher.send(5, wire::encode(1.0, &[WireEvent::Cleared])).await;
    eventually("exact knowledge", || app.knowledge(0) == Knowledge::Exact && app.cached_blocks(0) == 0).await;
    app.running.stop().await;
}

#[tokio::test]
async fn who_comes_late_knows_only_what_came_since() {
    let (mut publisher, app) = subscribed().await;
    publisher.store(7, 1, None, &prompt(1, 16)).await;
    eventually("the block", || app.cached_blocks(0) == 1).await;
    assert_eq!((app.knowledge(0), app.count("event_gaps_total")), (Knowledge::Degraded, 1.0));
    app.running.stop().await;
}

#[tokio::test]
async fn what_cannot_be_told_is_counted() {
    let (mut publisher, app) = subscribed().await;
    publisher.store(0, 1, None, &prompt(1, 16)).await;
    publisher.store(1, 2, None, &prompt(2, 32)).await;
    app.batches(2.0).await;
    let skipped = "warmpath_kv_events_skipped_total{instance=\"only\",reason=\"block_size\"}";
    eventually("the other block size", || app.metric(skipped) == 1.0).await;
    eventually("degraded knowledge", || app.knowledge(0) == Knowledge::Degraded).await;
    assert_eq!(app.cached_blocks(0), 1);

    publisher.send(2, b"\x93 this is not a batch".to_vec()).await;
    eventually("the decode error", || app.count("event_decode_errors_total") == 1.0).await;
    eventually("the forgetting", || app.cached_blocks(0) == 0).await;

    // The stream goes on after all that.
    publisher.store(3, 3, None, &prompt(3, 16)).await;
    eventually("the next block", || app.cached_blocks(0) == 1).await;
    app.running.stop().await;
}

#[tokio::test]
async fn only_the_wanted_topic_comes() {
    let mut publisher = Publisher::bind().await;
    let mut config = fed_by(publisher.address);
    config.instances[0].kv_events.as_mut().unwrap().topic = "other".to_owned();
    let app = start_app(config).await;
    publisher.subscribed().await;
    publisher.store(0, 1, None, &prompt(1, 16)).await;
    let mut message = ZmqMessage::from(Bytes::from_static(b"other"));
    message.push_back(Bytes::copy_from_slice(&5u64.to_be_bytes()));
    message.push_back(Bytes::from(wire::encode(1.0, &[])));
    publisher.socket.send(message).await.unwrap();
    eventually("the other topic's batch", || app.count("event_gaps_total") == 1.0).await;
    assert_eq!(app.count("event_batches_total"), 1.0);
    app.running.stop().await;
}

#[tokio::test]
async fn a_restarted_instance_is_forgotten_and_known_again() {
    let mut mock = start_mock(mock_config()).await;
    let app = start_app(config(vec![mock.instance("only")])).await;
    mock.subscribed().await;
    mock.complete(&prompt(1, 100), 1).await;
    eventually("the first run's blocks", || app.cached_blocks(0) == 6).await;
    let again = MockConfig { port: mock.http.port(), kv_events_port: mock.kv_events.port(), ..mock_config() };

    mock.running.stop().await;
    eventually("the loss", || app.count("events_connected") == 0.0).await;
    assert_eq!((app.knowledge(0), app.cached_blocks(0)), (Knowledge::Degraded, 6));

    let mut mock = start_mock(again).await;
    mock.subscribed().await;
    assert_eq!(app.count("events_connected"), 1.0);
    mock.complete(&prompt(2, 40), 1).await;
    eventually("the second run's blocks", || app.cached_blocks(0) == 2).await;
    eventually("exact knowledge", || app.knowledge(0) == Knowledge::Exact).await;
    assert_eq!(app.count("event_restarts_total"), 1.0);
    app.running.stop().await;
    mock.running.stop().await;
}

#[tokio::test]
async fn an_instance_that_is_not_there_yet_is_waited_for() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let absent = SocketAddr::from(([127, 0, 0, 1], port));
    let mut app = start_app(config(vec![instance("only", absent, Some(absent))])).await;
    assert_eq!(app.route(&[1]).await.unwrap().instance, "only");
    assert_eq!((app.count("events_connected"), app.knowledge(0)), (0.0, Knowledge::Degraded));

    let mut mock = start_mock(MockConfig { kv_events_port: port, ..mock_config() }).await;
    mock.subscribed().await;
    mock.complete(&prompt(1, 40), 1).await;
    eventually("the blocks", || app.cached_blocks(0) == 2).await;
    assert_eq!(app.knowledge(0), Knowledge::Exact);
    app.running.stop().await;
    mock.running.stop().await;
}

/// A peer that announces a terabyte loses its connection, and nothing else happens.
#[tokio::test]
async fn a_hostile_publisher_is_hung_up_on_and_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut app = start_app(fed_by(listener.local_addr().unwrap())).await;
    for _ in 0..2 {
        let (mut peer, _) = soon("a connection", listener.accept()).await.unwrap();
        let mut greeting = [0; 64];
        peer.read_exact(&mut greeting).await.unwrap();
        peer.write_all(&greeting).await.unwrap();
        peer.write_all(b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB").await.unwrap();
        peer.write_all(&[&[2][..], &(1u64 << 40).to_be_bytes()].concat()).await.unwrap();
        let mut rest = Vec::new();
        // It may be reset rather than closed; either way it is over.
        let _ = soon("the hang-up", peer.read_to_end(&mut rest)).await;
    }
    assert_eq!(app.route(&[1]).await.unwrap().instance, "only");
    app.running.stop().await;
}
