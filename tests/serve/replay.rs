//! What was missed is made good by the publisher's replay socket: at the start, after a gap, after a restart.

use crate::support::{RunningApp, config, eventually, instance, mock_config, prompt, start_app, start_mock};
use bytes::Bytes;
use std::net::SocketAddr;
use tokio::sync::mpsc;
use warmpath::config::Endpoint;
use warmpath::mock::MockConfig;
use warmpath::mock::wire::{self, WireEvent};
use warmpath::routing::Knowledge;
use zeromq::{RouterSocket, Socket, SocketRecv, SocketSend, XPubSocket, ZmqMessage};

fn replaying() -> MockConfig {
    MockConfig { kv_replay_port: Some(0), ..mock_config() }
}

fn count(app: &RunningApp, name: &str) -> f64 {
    app.metric(&format!("warmpath_kv_event_{name}"))
}

#[tokio::test]
async fn who_comes_late_knows_everything_all_the_same() {
    let mock = start_mock(replaying()).await;
    mock.complete(&prompt(1, 100), 1).await;
    mock.complete(&prompt(2, 40), 1).await;
    for _restart_of_the_router in 0..2 {
        let app = start_app(config(vec![mock.instance("only")])).await;
        eventually("the blocks", || app.cached_blocks(0) == 8 && app.knowledge(0) == Knowledge::Exact).await;
        assert_eq!(count(&app, "replays_total{instance=\"only\",outcome=\"complete\"}"), 1.0);
        assert_eq!(count(&app, "replayed_batches_total{instance=\"only\"}"), 2.0);
        app.running.stop().await;
    }
    mock.running.stop().await;
}

#[tokio::test]
async fn an_empty_cache_is_known_exactly_and_so_is_a_publisher_that_restarted() {
    let mut mock = start_mock(replaying()).await;
    let (kv_events, kv_replay) = (mock.kv_events.port(), mock.kv_replay.unwrap().port());
    let app = start_app(config(vec![mock.instance("only")])).await;
    eventually("exact knowledge", || app.knowledge(0) == Knowledge::Exact).await;
    mock.subscribed().await;
    mock.complete(&prompt(1, 100), 1).await;
    eventually("the blocks", || app.cached_blocks(0) == 6).await;
    mock.running.stop().await;
    eventually("degraded knowledge", || app.knowledge(0) == Knowledge::Degraded).await;

    let again = MockConfig { kv_events_port: kv_events, kv_replay_port: Some(kv_replay), ..mock_config() };
    let mock = start_mock(again).await;
    mock.complete(&prompt(2, 40), 1).await;
    eventually("the new blocks", || app.cached_blocks(0) == 2 && app.knowledge(0) == Knowledge::Exact).await;
    assert_eq!(count(&app, "restarts_total{instance=\"only\"}"), 1.0);
    app.running.stop().await;
    mock.running.stop().await;
}

/// A publisher driven by hand, whose replay socket answers with `history` in the layout of vLLM up to 0.24, or since.
struct Publisher {
    live: XPubSocket,
    events: SocketAddr,
    replay: SocketAddr,
    history: mpsc::UnboundedSender<Vec<(u64, Vec<u8>)>>,
}

async fn port(socket: &mut impl Socket) -> SocketAddr {
    let zeromq::Endpoint::Tcp(_, port) = socket.bind("tcp://127.0.0.1:0").await.unwrap() else { panic!("not TCP") };
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Publisher {
    async fn bind(with_topic: bool) -> Self {
        let (mut live, mut router) = (XPubSocket::new(), RouterSocket::new());
        let (events, replay) = (port(&mut live).await, port(&mut router).await);
        let (history, mut histories) = mpsc::unbounded_channel::<Vec<(u64, Vec<u8>)>>();
        tokio::spawn(async move {
            let mut history = Vec::new();
            while let Ok(asked) = router.recv().await {
                while let Ok(newer) = histories.try_recv() {
                    history = newer;
                }
                let frames = asked.into_vec();
                let from = u64::from_be_bytes(frames[2].as_ref().try_into().unwrap());
                let end = (u64::MAX, Vec::new());
                for (sequence, payload) in history.iter().filter(|(sequence, _)| *sequence >= from).chain([&end]) {
                    let mut message = ZmqMessage::from(frames[0].clone());
                    message.push_back(Bytes::new());
                    if with_topic {
                        message.push_back(Bytes::from_static(b"kv-events"));
                    }
                    message.push_back(Bytes::copy_from_slice(&sequence.to_be_bytes()));
                    message.push_back(Bytes::from(payload.clone()));
                    router.send(message).await.unwrap();
                }
            }
        });
        Publisher { live, events, replay, history }
    }

    async fn app(&mut self) -> RunningApp {
        let mut only = instance("only", SocketAddr::from(([127, 0, 0, 1], 1)), Some(self.events));
        only.kv_events.as_mut().unwrap().replay = Some(Endpoint::from(self.replay));
        let app = start_app(config(vec![only])).await;
        self.live.recv().await.unwrap();
        app
    }

    async fn publish(&mut self, (sequence, payload): (u64, Vec<u8>)) {
        let mut message = ZmqMessage::from(Bytes::from_static(b"kv-events"));
        message.push_back(Bytes::copy_from_slice(&sequence.to_be_bytes()));
        message.push_back(Bytes::from(payload));
        self.live.send(message).await.unwrap();
    }
}

/// A batch that stores one block, after the block of the batch before.
fn batch(sequence: u64) -> (u64, Vec<u8>) {
    let tokens = prompt(sequence as u32, 16);
    let stored = WireEvent::Stored {
        block_hashes: vec![sequence + 100],
        parent_block_hash: sequence.checked_sub(1).map(|parent| parent + 100),
        token_ids: &tokens,
        block_size: 16,
        cache_salt: None,
    };
    (sequence, wire::encode(1000.0 + sequence as f64, &[stored]))
}

#[tokio::test]
async fn a_gap_is_filled_in_both_layouts_of_the_answer() {
    for with_topic in [false, true] {
        let mut publisher = Publisher::bind(with_topic).await;
        let app = publisher.app().await;
        publisher.publish(batch(0)).await;
        eventually("the first block", || app.cached_blocks(0) == 1 && app.knowledge(0) == Knowledge::Exact).await;
        publisher.history.send((0..=5).map(batch).collect()).unwrap();
        publisher.publish(batch(5)).await;
        eventually("all blocks", || app.cached_blocks(0) == 6).await;
        // What was replayed and then came live counts once.
        publisher.publish(batch(6)).await;
        eventually("the next block", || app.cached_blocks(0) == 7).await;
        assert_eq!(app.knowledge(0), Knowledge::Exact);
        assert_eq!(count(&app, "gaps_total{instance=\"only\"}"), 0.0);
        app.running.stop().await;
    }
}

#[tokio::test]
async fn what_cannot_be_replayed_is_forgotten_and_said() {
    let mut publisher = Publisher::bind(true).await;
    let app = publisher.app().await;
    publisher.publish(batch(0)).await;
    publisher.publish(batch(1)).await;
    eventually("two blocks", || app.cached_blocks(0) == 2).await;
    // Its buffer begins after what was missed.
    publisher.history.send((7..=9).map(batch).collect()).unwrap();
    publisher.publish(batch(9)).await;
    eventually("the gap", || count(&app, "replays_total{instance=\"only\",outcome=\"partial\"}") == 1.0).await;
    assert_eq!((app.cached_blocks(0), app.knowledge(0)), (0, Knowledge::Degraded));

    // An answer with a hole is no better.
    publisher.history.send([9, 10, 12, 13].map(batch).to_vec()).unwrap();
    publisher.publish(batch(13)).await;
    eventually("the failure", || count(&app, "replays_total{instance=\"only\",outcome=\"failed\"}") == 1.0).await;
    eventually("degraded knowledge", || app.knowledge(0) == Knowledge::Degraded).await;
    app.running.stop().await;
}
