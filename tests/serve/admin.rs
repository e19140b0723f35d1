//! What operators ask over HTTP.

use crate::support::{config, get, instance, start_app};
use serde_json::Value;
use std::net::SocketAddr;

#[tokio::test]
async fn metrics_probes_and_instances_are_there() {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut app = start_app(config(vec![instance("a", nowhere, None)])).await;
    app.route(&[1; 40]).await.unwrap();

    assert_eq!(get(app.admin, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(get(app.admin, "/readyz").await, (200, "ok\n".to_owned()));
    let (status, metrics) = get(app.admin, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "warmpath_requests_in_flight 1",
        "warmpath_prompt_tokens_total 40",
        "warmpath_instance_knowledge{instance=\"a\",state=\"approximate\"} 1",
        "warmpath_kv_events_connected{instance=\"a\"} 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing from\n{metrics}");
    }
    let (status, instances) = get(app.admin, "/instances").await;
    let instances: Value = serde_json::from_str(&instances).unwrap();
    assert_eq!(status, 200);
    let one = &instances[0];
    assert_eq!((one["name"].as_str(), one["knowledge"].as_str()), (Some("a"), Some("approximate")));
    assert_eq!((one["prefill_requests"].as_u64(), one["prefill_tokens"].as_u64()), (Some(1), Some(40)));
    app.running.stop().await;
}

#[tokio::test]
async fn without_a_ready_instance_the_router_is_not_ready() {
    use warmpath::routing::{Availability, Fact, InstanceId};
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let app = start_app(config(vec![instance("a", nowhere, None)])).await;
    app.core.learn(Fact::Changed { instance: InstanceId(0), availability: Availability::Down }).unwrap();
    assert_eq!(get(app.admin, "/readyz").await, (503, "no instance is ready\n".to_owned()));
    assert_eq!(get(app.admin, "/healthz").await.0, 200);
    app.running.stop().await;
}
