//! The mock's HTTP side, held against what vLLM answers.

use crate::support::{MODEL, eventually, get, mock_config, open_post, post, prompt, start_mock};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use warmpath::mock::{Mock, MockConfig, MockError};

#[tokio::test]
async fn a_completion_has_vllms_shape_and_tells_what_was_cached() {
    let mock = start_mock(mock_config()).await;
    let first = mock.complete(&prompt(1, 40), 3).await;
    assert_eq!(first["object"], "text_completion");
    assert_eq!(first["choices"][0]["finish_reason"], "length");
    assert_eq!(first["choices"][0]["text"].as_str().unwrap().len(), 3);
    let usage = json!({"prompt_tokens": 40, "total_tokens": 43, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 0}});
    assert_eq!(first["usage"], usage);
    let second = mock.complete(&prompt(1, 40), 3).await;
    assert_eq!(second["usage"]["prompt_tokens_details"]["cached_tokens"], 32);
    assert_eq!(second["choices"], first["choices"]);

    let text = json!({"model": MODEL, "prompt": "It was the best of times", "seed": 1, "ignore_eos": true});
    let (status, answer) = post(mock.http, "/v1/completions", &text).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        (status, &answer["usage"]["prompt_tokens"], &answer["usage"]["completion_tokens"]),
        (200, &json!(24), &json!(16))
    );
    mock.running.stop().await;
}

#[tokio::test]
async fn a_stream_has_a_chunk_a_token_then_usage_then_done() {
    let mock = start_mock(mock_config()).await;
    let whole = mock.complete(&prompt(1, 40), 4).await;
    let body = json!({
        "model": MODEL, "prompt": prompt(1, 40), "max_tokens": 4, "stream": true,
        "return_token_ids": true, "stream_options": {"include_usage": true},
    });
    let response = open_post(mock.http, "/v1/completions", &body).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let data: Vec<&str> = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
    assert_eq!((data.len(), data[5]), (6, "[DONE]"), "{text}");
    let chunks: Vec<Value> = data[..5].iter().map(|data| serde_json::from_str(data).unwrap()).collect();
    let said: String = chunks[..4].iter().map(|chunk| chunk["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(said, whole["choices"][0]["text"].as_str().unwrap());
    let reasons: Vec<_> = chunks[..4].iter().map(|chunk| chunk["choices"][0]["finish_reason"].as_str()).collect();
    assert_eq!(reasons, [None, None, None, Some("length")]);
    assert_eq!(chunks[0]["choices"][0]["prompt_token_ids"], json!(prompt(1, 40)));
    assert_eq!(chunks[1]["choices"][0]["prompt_token_ids"], Value::Null);
    assert_eq!((&chunks[4]["choices"], &chunks[4]["usage"]["completion_tokens"]), (&json!([]), &json!(4)));
    mock.running.stop().await;
}

#[tokio::test]
async fn refusals_have_vllms_shape() {
    let mock = start_mock(MockConfig { max_model_len: Some(50), ..mock_config() }).await;
    for (body, status, kind, message) in [
        (json!({"model": "x", "prompt": [1]}), 404, "NotFoundError", "The model `x` does not exist. Valid aliases: m."),
        (
            json!({"model": MODEL, "prompt": prompt(1, 60)}),
            400,
            "BadRequestError",
            "This model's maximum context length is 50 tokens. However, your prompt contains 60 input tokens, which exceeds \
             this limit even without any output tokens. Please reduce the length of the input prompt. \
             (parameter=input_tokens, value=60)",
        ),
        (
            json!({"model": MODEL, "prompt": prompt(1, 40), "max_tokens": 11}),
            400,
            "BadRequestError",
            "11 output tokens",
        ),
        (json!({"model": MODEL, "prompt": [], "max_tokens": 1}), 400, "BadRequestError", "empty"),
        (json!({"model": MODEL, "prompt": [1], "max_tokens": 0}), 400, "BadRequestError", "at least 1"),
        (json!({"model": MODEL}), 400, "Bad Request", "prompt"),
        (json!({"model": MODEL, "prompt": [-1]}), 400, "Bad Request", "validation error"),
    ] {
        let (answered, answer) = post(mock.http, "/v1/completions", &body).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(
            (answered, &answer["error"]["code"], answer["error"]["type"].as_str()),
            (status, &json!(status), Some(kind))
        );
        assert!(answer["error"]["message"].as_str().unwrap().contains(message), "{body}: {answer}");
    }
    assert_eq!(mock.complete(&prompt(1, 40), 10).await["usage"]["total_tokens"], 50);
    mock.running.stop().await;
}

#[tokio::test]
async fn what_a_router_asks_is_answered() {
    let mock = start_mock(MockConfig { blocks: Some(100), topic: "kv-events".to_owned(), ..mock_config() }).await;
    assert_eq!(get(mock.http, "/health").await, (200, String::new()));
    let models: Value = serde_json::from_str(&get(mock.http, "/v1/models").await.1).unwrap();
    assert_eq!((&models["data"][0]["id"], &models["data"][0]["max_model_len"]), (&json!(MODEL), &json!(1600)));
    let sources: Value = serde_json::from_str(&get(mock.http, "/kv_event_sources").await.1).unwrap();
    assert_eq!(sources["0"]["endpoint"], format!("tcp://*:{}", mock.kv_events.port()));
    assert_eq!(sources["0"]["topic"], "kv-events");

    mock.complete(&prompt(1, 40), 2).await;
    mock.complete(&prompt(1, 40), 2).await;
    let (_, metrics) = get(mock.http, "/metrics").await;
    for line in [
        "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 0.0",
        "vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 0.0",
        "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.0",
        "vllm:prefix_cache_queries_total{engine=\"0\",model_name=\"m\"} 80.0",
        "vllm:prefix_cache_hits_total{engine=\"0\",model_name=\"m\"} 32.0",
        "vllm:generation_tokens_total{engine=\"0\",model_name=\"m\"} 4.0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing from\n{metrics}");
    }
    assert!(metrics.contains("block_size=\"16\"") && metrics.contains("num_gpu_blocks=\"100\""), "{metrics}");
    mock.running.stop().await;
}

/// The value of one of the mock's metrics.
async fn metric(mock: &crate::support::RunningMock, name: &str) -> f64 {
    let (_, metrics) = get(mock.http, "/metrics").await;
    let line = metrics.lines().find(|line| line.starts_with(&format!("{name}{{"))).expect("the metric is there");
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_client_that_goes_away_aborts_its_request() {
    // Slow enough that 10,000 tokens would take minutes.
    let mock = start_mock(MockConfig { speed: 1.0, ..mock_config() }).await;
    let body = json!({"model": MODEL, "prompt": prompt(1, 40), "max_tokens": 10_000, "stream": true});
    let response = open_post(mock.http, "/v1/completions", &body).await;
    let mut stream = response.into_body();
    stream.frame().await.unwrap().unwrap();
    assert_eq!(metric(&mock, "vllm:num_requests_running").await, 1.0);
    drop(stream);
    let mut running = 1.0;
    for _ in 0..3000 {
        running = metric(&mock, "vllm:num_requests_running").await;
        if running == 0.0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(running, 0.0, "the request still runs");
    mock.running.stop().await;
}

#[tokio::test]
async fn stopping_ends_what_is_under_way_with_an_error() {
    let mock = start_mock(MockConfig { speed: 1.0, ..mock_config() }).await;
    let body = json!({"model": MODEL, "prompt": prompt(1, 40), "max_tokens": 10_000, "stream": true});
    let mut stream = open_post(mock.http, "/v1/completions", &body).await.into_body();
    stream.frame().await.unwrap().unwrap();
    let rest = tokio::spawn(async move { stream.collect().await.unwrap().to_bytes() });
    mock.running.stop().await;
    let rest = String::from_utf8(rest.await.unwrap().to_vec()).unwrap();
    assert!(rest.contains("\"code\":500") && rest.ends_with("data: [DONE]\n\n"), "{rest}");
}

#[tokio::test]
async fn speed_scales_the_wall_clock_and_nothing_else() {
    let slow = start_mock(MockConfig { speed: 20.0, ..mock_config() }).await;
    let began = std::time::Instant::now();
    slow.complete(&prompt(1, 40), 50).await;
    let took = began.elapsed().as_secs_f64();
    // 50 steps of at least 14.2 ms (step time and weights of the default preset), 20 times faster.
    assert!(took > 50.0 * 0.0142 / 20.0, "{took}");
    slow.running.stop().await;
}

#[tokio::test]
async fn what_cannot_run_is_refused() {
    async fn refused(config: MockConfig) -> MockError {
        Mock::bind(config).await.err().expect("it is refused")
    }
    assert!(matches!(refused(MockConfig { speed: 0.0, ..mock_config() }).await, MockError::Speed(_)));
    assert!(matches!(refused(MockConfig { speed: f64::NAN, ..mock_config() }).await, MockError::Speed(_)));
    assert!(matches!(refused(MockConfig { blocks: Some(0), ..mock_config() }).await, MockError::NoBlocks));
    let long = refused(MockConfig { blocks: Some(10), max_model_len: Some(161), ..mock_config() }).await;
    assert_eq!(long.to_string(), "a model length of 161 tokens does not fit in 10 blocks of 16 tokens");

    let mock = start_mock(mock_config()).await;
    let taken = refused(MockConfig { port: mock.http.port(), ..mock_config() }).await;
    assert!(taken.to_string().starts_with(&format!("cannot listen on {} (port): ", mock.http)), "{taken}");
    let taken = refused(MockConfig { kv_events_port: mock.kv_events.port(), ..mock_config() }).await;
    assert!(taken.to_string().contains("(kv-events-port)"), "{taken}");
    mock.running.stop().await;
}

#[tokio::test]
async fn mocks_stand_side_by_side_and_publish_each_its_own() {
    let mocks = [start_mock(mock_config()).await, start_mock(mock_config()).await];
    let config = crate::support::config(vec![mocks[0].instance("a"), mocks[1].instance("b")]);
    let app = crate::support::start_app(config).await;
    for mock in &mocks {
        let mut subscriptions = mock.subscriptions.clone();
        subscriptions.wait_for(|&count| count > 0).await.unwrap();
    }
    mocks[0].complete(&prompt(1, 100), 1).await;
    mocks[1].complete(&prompt(1, 40), 1).await;
    eventually("both caches", || (app.cached_blocks(0), app.cached_blocks(1)) == (6, 2)).await;
    app.running.stop().await;
    for mock in mocks {
        mock.running.stop().await;
    }
}
