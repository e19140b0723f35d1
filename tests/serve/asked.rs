//! What instances say of themselves when asked: where they publish, how loaded they are, how much of a prompt was cached.

use crate::support::{
    RunningApp, config, eventually, instance, mock_config, open_post, post, prompt, start_app, start_mock,
};
use serde_json::json;
use std::time::Duration;
use warmpath::config::{Config, LoadIntervals, Watch};
use warmpath::mock::MockConfig;
use warmpath::routing::Knowledge;

/// Everything is asked, and often.
fn asking(mut config: Config) -> Config {
    let load = LoadIntervals { busy: Duration::from_millis(5), idle: Duration::from_millis(20) };
    config.watch = Watch { discover_kv_events: true, load: Some(load) };
    config
}

fn reads(app: &RunningApp, outcome: &str) -> f64 {
    app.metric(&format!("warmpath_load_reads_total{{instance=\"only\",outcome=\"{outcome}\"}}"))
}

#[tokio::test]
async fn publishers_are_found_by_asking_for_them() {
    let mock = start_mock(MockConfig { kv_replay_port: Some(0), topic: "kv".to_owned(), ..mock_config() }).await;
    mock.complete(&prompt(1, 40), 1).await;
    let app = start_app(asking(config(vec![instance("only", mock.http, None)]))).await;
    eventually("the blocks", || app.knowledge(0) == Knowledge::Exact && app.cached_blocks(0) == 2).await;
    let (http, kv_events, kv_replay) = (mock.http, mock.kv_events, mock.kv_replay);
    mock.running.stop().await;
    eventually("degraded knowledge", || app.knowledge(0) == Knowledge::Degraded).await;

    // It is back on other ports.
    let again = MockConfig { port: http.port(), kv_replay_port: Some(0), ..mock_config() };
    let mock = start_mock(again).await;
    assert!(mock.kv_events != kv_events && mock.kv_replay != kv_replay);
    mock.complete(&prompt(2, 100), 1).await;
    eventually("the new blocks", || app.knowledge(0) == Knowledge::Exact && app.cached_blocks(0) == 6).await;
    app.running.stop().await;
    mock.running.stop().await;
}

#[tokio::test]
async fn who_does_not_answer_is_known_by_what_it_was_sent() {
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let app = start_app(asking(config(vec![instance("only", nowhere, None)]))).await;
    eventually("failures", || reads(&app, "failed") >= 2.0).await;
    assert_eq!(app.knowledge(0), Knowledge::Approximate);
    assert_eq!(app.metric("warmpath_load_age_seconds{instance=\"only\"}"), f64::INFINITY);
    app.running.stop().await;
}

#[tokio::test]
async fn reports_tell_of_others_and_of_the_cache() {
    let mock = start_mock(MockConfig { blocks: Some(3000), speed: 1.0, ..mock_config() }).await;
    let mut asked = asking(config(vec![instance("only", mock.http, None)]));
    asked.watch.discover_kv_events = false;
    let app = start_app(asked).await;
    eventually("a report", || reads(&app, "read") >= 1.0).await;
    assert_eq!(app.core.router().approximate_blocks_max(warmpath::routing::InstanceId(0)), 3000);
    assert_eq!(app.core.instances()[0].load.foreign_requests, 0);

    // Someone else's, which will take a minute; and one of ours.
    let body = json!({"model": "m", "prompt": prompt(1, 40), "max_tokens": 4000, "stream": true});
    let others = open_post(mock.http, "/v1/completions", &body).await;
    let ours = open_post(app.http, "/v1/completions", &body).await;
    eventually("someone else's", || app.core.instances()[0].load.foreign_requests == 1).await;
    let running = "warmpath_load_reported_requests{instance=\"only\",state=\"running\"}";
    eventually("both", || app.metric(running) == 2.0 && app.core.instances()[0].load.requests() == 2).await;
    let instances = crate::support::get(app.admin, "/instances").await.1;
    let instances: serde_json::Value = serde_json::from_str(&instances).unwrap();
    assert_eq!((&instances[0]["foreign_requests"], &instances[0]["reported"]["running"]), (&json!(1), &json!(2)));
    assert_eq!(app.metric("warmpath_load_foreign_requests{instance=\"only\"}"), 1.0);
    drop((others, ours));
    eventually("nobody's", || app.core.instances()[0].load.requests() == 0).await;
    app.running.stop().await;
    mock.running.stop().await;
}

#[tokio::test]
async fn what_was_predicted_is_compared_with_what_was_delivered() {
    let mock = start_mock(mock_config()).await;
    let mut app = start_app(config(vec![instance("only", mock.http, None)])).await;
    let verdict =
        |verdict: &str| app.metric(&format!("warmpath_predictions_total{{instance=\"only\",delivered=\"{verdict}\"}}"));
    // Its cache is warm already, as nobody told.
    mock.complete(&prompt(1, 100), 1).await;
    for verdicts in [(0.0, 1.0), (1.0, 1.0)] {
        let body = json!({"model": "m", "prompt": prompt(1, 100), "max_tokens": 1});
        assert_eq!(post(app.http, "/v1/completions", &body).await.0, 200);
        eventually("the comparison", || (verdict("equal"), verdict("more")) == verdicts).await;
    }
    assert_eq!(verdict("less"), 0.0);
    assert_eq!(app.metric("warmpath_predicted_tokens_total{instance=\"only\"}"), 96.0);
    assert_eq!(app.metric("warmpath_delivered_tokens_total{instance=\"only\"}"), 192.0);
    // Of the same two requests; neither the one that never came through here nor this one, whose instance does not say, counts.
    app.route(&prompt(1, 100)).await.unwrap();
    assert_eq!(app.metric("warmpath_compared_prompt_tokens_total{instance=\"only\"}"), 200.0);
    assert_eq!(app.metric("warmpath_compared_best_tokens_total{instance=\"only\"}"), 96.0);
    assert_eq!(app.metric("warmpath_prompt_tokens_total"), 300.0);
    app.running.stop().await;
    mock.running.stop().await;
}

/// Ranks behind one URL share a text of metrics.
#[tokio::test]
async fn ranks_are_told_apart_in_one_text() {
    let mock = start_mock(mock_config()).await;
    let rank = |rank: u32| {
        let mut instance = instance(&format!("only{rank}"), mock.http, None);
        instance.data_parallel_rank = Some(rank);
        instance
    };
    let app = start_app(asking(config(vec![rank(0), rank(1)]))).await;
    let reads = |name: &str, outcome: &str| {
        app.metric(&format!("warmpath_load_reads_total{{instance=\"{name}\",outcome=\"{outcome}\"}}"))
    };
    // The mock has one engine, rank 0.
    eventually("both", || reads("only0", "read") >= 1.0 && reads("only1", "unreadable") >= 1.0).await;
    eventually("events of rank 0", || app.knowledge(0) != Knowledge::Approximate).await;
    assert_eq!((reads("only1", "read"), app.knowledge(1)), (0.0, Knowledge::Approximate));
    app.running.stop().await;
    mock.running.stop().await;
}
