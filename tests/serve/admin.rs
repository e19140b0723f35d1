//! What operators ask over HTTP.

use crate::support::{MODEL, config, eventually, get, instance, mock_config, post, send, start_app, start_mock};
use serde_json::Value;
use std::net::SocketAddr;
use warmpath::serve::Why;
use warmpath::serve::proto::{CompleteRequest, Outcome};

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

/// What a Prometheus reads, series by series; the lines of a histogram count as theirs.
#[tokio::test]
async fn every_series_is_documented_and_typed() {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let app = start_app(config(vec![instance("a", nowhere, None)])).await;
    let (_, page) = get(app.admin, "/metrics").await;
    let document = warmpath::serve::metrics_document();
    let mut described = "";
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            described = help.split(' ').next().unwrap();
            assert!(document.contains(&format!("| `{described}` | ")), "{described} is not documented");
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            assert_eq!(typed.split(' ').next(), Some(described));
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert_eq!(name, described, "{line}");
        }
    }
    app.running.stop().await;
}

#[tokio::test]
async fn requests_are_timed_from_decision_to_end() {
    let mut mock = start_mock(mock_config()).await;
    let mut app = start_app(config(vec![mock.instance("a")])).await;
    mock.subscribed().await;
    let body = serde_json::json!({"model": MODEL, "prompt": [1, 2, 3], "max_tokens": 4, "stream": true});
    assert_eq!(post(app.http, "/v1/completions", &body).await.0, 200);
    eventually("the end", || app.metric("warmpath_request_seconds_count{end=\"finished\"}") == 1.0).await;
    assert_eq!(app.metric("warmpath_request_ttft_seconds_count"), 1.0);
    assert_eq!(app.metric("warmpath_http_responses_total{call=\"completions\",status=\"2xx\"}"), 1.0);
    assert_eq!(app.metric("warmpath_http_first_byte_seconds_count{call=\"completions\"}"), 1.0);
    // By model, too: what an instance serves stands beside what it did.
    assert_eq!(app.metric("warmpath_instance_responses_total{instance=\"a\",status=\"2xx\"}"), 1.0);
    assert_eq!(app.metric(&format!("warmpath_instance_info{{instance=\"a\",model=\"{MODEL}\"}}")), 1.0);
    assert_eq!(app.metric("warmpath_instance_assigned_total{instance=\"a\"}"), 1.0);
    let (ttft, whole) =
        (app.metric("warmpath_request_ttft_seconds_sum"), app.metric("warmpath_request_seconds_sum{end=\"finished\"}"));
    assert!(0.0 < ttft && ttft <= whole, "{ttft} {whole}");

    // Over gRPC it is the caller who tells; what is given up has no first token.
    let routed = app.route(&[1; 40]).await.unwrap();
    let outcome = Outcome::Abandoned.into();
    let report = CompleteRequest { request_id: routed.request_id, outcome, output_tokens: 0 };
    app.client.complete(report).await.unwrap();
    assert_eq!(app.metric("warmpath_request_seconds_count{end=\"abandoned\"}"), 1.0);
    assert_eq!(app.metric("warmpath_request_ttft_seconds_count"), 1.0);

    let (status, _) = post(app.http, "/v1/completions", &serde_json::json!({"model": "x", "prompt": [1]})).await;
    assert_eq!(status, 404);
    assert_eq!(app.metric("warmpath_http_responses_total{call=\"completions\",status=\"4xx\"}"), 1.0);
    app.running.stop().await;
    mock.running.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_process_tells_of_itself() {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let app = start_app(config(vec![instance("a", nowhere, None)])).await;
    let page = get(app.admin, "/metrics").await.1;
    let value = |name: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is missing from\n{page}")).parse::<f64>().unwrap()
    };
    assert!(value("process_cpu_seconds_total") >= 0.0);
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
    assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") < value("process_max_fds"));
    assert!(value("process_threads") >= 1.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let age = now - value("process_start_time_seconds");
    assert!((-2.0..86_400.0).contains(&age), "{age}");
    assert!(page.contains("warmpath_routing_info{policy=\"prefix_cost\",block_size=\"16\"} 1"), "{page}");
    app.running.stop().await;
}

/// The page's files, and what a browser is told that they may do.
#[tokio::test]
async fn the_page_is_there_and_asks_for_nothing_outside() {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let app = start_app(config(vec![instance("a", nowhere, None)])).await;
    let page = get(app.admin, "/ui").await;
    assert_eq!(page.0, 200);
    for path in ["/ui/page.css", "/ui/page.js"] {
        assert!(page.1.contains(path), "{path} is not asked for");
        assert_eq!(get(app.admin, path).await.0, 200, "{path}");
    }
    for text in [page.1, get(app.admin, "/ui/page.css").await.1, get(app.admin, "/ui/page.js").await.1] {
        let outside = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http://") && !outside.contains("https://") && !outside.contains("innerHTML"));
    }
    let request = hyper::Request::get(format!("http://{}/ui", app.admin));
    let response = send(request.body(Default::default()).unwrap()).await;
    let policy = response.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    app.running.stop().await;
}

#[tokio::test]
async fn the_status_tells_decisions_and_what_became_of_them() {
    let mut mock = start_mock(mock_config()).await;
    let mut app = start_app(config(vec![mock.instance("a")])).await;
    mock.subscribed().await;
    let prompt: Vec<u32> = (1..=100).collect();
    let body = serde_json::json!({"model": MODEL, "prompt": prompt, "max_tokens": 4});
    assert_eq!(post(app.http, "/v1/completions", &body).await.0, 200);
    eventually("the mock's blocks", || app.cached_blocks(0) == 6).await;
    app.route(&prompt).await.unwrap();

    let (_, status) = get(app.admin, "/status").await;
    let status: warmpath::serve::Status = serde_json::from_str(&status).unwrap();
    assert_eq!((status.policy.as_str(), status.in_flight, status.index_blocks), ("prefix_cost", 1, 6));
    assert_eq!((status.instances[0].name.as_str(), status.instances[0].assigned), ("a", 2));
    let [second, first] = &status.decisions[..] else { panic!("{:?}", status.decisions) };
    assert_eq!((first.why, first.ended.as_deref()), (Why::Cold, Some("finished")));
    assert!(first.ttft_seconds.is_some_and(|seconds| seconds > 0.0), "{first:?}");
    assert_eq!((second.why, second.overlap_tokens, second.best_overlap_tokens), (Why::Prefix, 96, 96));
    assert_eq!((second.ended.as_deref(), second.ttft_seconds), (None, None));
    assert!(status.settings.contains(&("routing.block_size".to_owned(), "16".to_owned())), "{:?}", status.settings);
    app.running.stop().await;
    mock.running.stop().await;
}
