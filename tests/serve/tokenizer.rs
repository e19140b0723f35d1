//! Texts and chats, made tokens by the router. The tokenizer here is the mock's own: one token a byte.

use crate::support::{MODEL, config, eventually, instance, mock_config, open_post, post, start_app, start_mock};
use axum::Router;
use serde_json::{Value, json};
use std::path::Path;
use tokio::net::TcpListener;
use warmpath::config::{Config, Tokenizer};
use warmpath::serve::App;

/// A byte-level BPE without merges; the id of a byte is the byte. `<|end|>` is 256.
fn byte_tokenizer() -> Value {
    let mut vocabulary = serde_json::Map::new();
    let mut unprintable = 256;
    for byte in 0..=255u32 {
        // GPT-2's table: printable bytes stand for themselves, the others are moved up in order.
        let is_plain = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let shown = if is_plain { byte } else { unprintable };
        unprintable += u32::from(!is_plain);
        vocabulary.insert(char::from_u32(shown).unwrap().to_string(), json!(byte));
    }
    json!({
        "version": "1.0",
        "added_tokens": [{
            "id": 256, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    })
}

fn write(folder: &Path) {
    std::fs::write(folder.join("tokenizer.json"), byte_tokenizer().to_string()).unwrap();
    let template = "{% for message in messages %}{{ message.role }}:{{ message.content }}<|end|>{% endfor %}>";
    std::fs::write(folder.join("tokenizer_config.json"), json!({"chat_template": template}).to_string()).unwrap();
}

fn with_tokenizer(mut config: Config, folder: &Path) -> Config {
    config.tokenizers.push(Tokenizer { model: MODEL.to_owned(), path: folder.to_owned() });
    config
}

#[tokio::test]
async fn a_text_goes_where_it_is_cached() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let (mut first, mut second) = (start_mock(mock_config()).await, start_mock(mock_config()).await);
    let fleet = config(vec![first.instance("first"), second.instance("second")]);
    let app = start_app(with_tokenizer(fleet, folder.path())).await;
    first.subscribed().await;
    second.subscribed().await;
    let text = "It was the best of times, żółć 🦀, it was the worst of times".repeat(2);
    let body = json!({"model": MODEL, "prompt": text, "max_tokens": 2});
    assert_eq!(post(second.http, "/v1/completions", &body).await.0, 200);
    let blocks = text.len() / 16;
    eventually("the blocks", || app.cached_blocks(1) == blocks).await;

    let response = open_post(app.http, "/v1/completions", &body).await;
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("x-warmpath-instance"), "second");
    assert_eq!(header("x-warmpath-prompt-tokens"), text.len().to_string());
    assert_eq!(header("x-warmpath-overlap-tokens"), (blocks * 16).to_string());
    assert_eq!(app.metric("warmpath_guessed_lookups_total{why=\"no_tokenizer\"}"), 0.0);
    assert_eq!(app.metric("warmpath_tokenize_seconds_count"), 1.0);
    app.running.stop().await;
    first.running.stop().await;
    second.running.stop().await;
}

#[tokio::test]
async fn a_chat_is_what_its_template_says() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(async || "{}")).await });
    let app = start_app(with_tokenizer(config(vec![instance("only", address, None)]), folder.path())).await;
    // "user:żółć<|end|>>": the special token is one.
    for (body, tokens) in [
        (json!({"model": MODEL, "messages": [{"role": "user", "content": "żółć"}]}), Some("15")),
        (json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}), Some("8")),
        (json!({"model": MODEL, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), None),
    ] {
        let response = open_post(app.http, "/v1/chat/completions", &body).await;
        let said = response.headers().get("x-warmpath-prompt-tokens").map(|tokens| tokens.to_str().unwrap());
        assert_eq!(said, tokens, "{body}");
    }
    assert_eq!(app.metric("warmpath_guessed_lookups_total{why=\"content\"}"), 1.0);
    app.running.stop().await;
}

#[tokio::test]
async fn a_text_that_takes_too_long_goes_by_load() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let mock = start_mock(mock_config()).await;
    let mut fleet = with_tokenizer(config(vec![mock.instance("only")]), folder.path());
    fleet.http.tokenize_max = std::time::Duration::from_millis(1);
    let app = start_app(fleet).await;
    // Longer than a millisecond on any machine, and than the mock takes: what it answers does not matter here.
    let body = json!({"model": MODEL, "prompt": "It was the best of times. ".repeat(20_000), "max_tokens": 1});
    let response = open_post(app.http, "/v1/completions", &body).await;
    assert!(response.headers().get("x-warmpath-overlap-tokens").is_none());
    assert_eq!(response.headers()["x-warmpath-instance"], "only");
    assert_eq!(app.metric("warmpath_routed_by_load_total{reason=\"late\"}"), 1.0);
    app.running.stop().await;
    mock.running.stop().await;
}

#[tokio::test]
async fn of_several_texts_the_longest_is_looked_up_and_nothing_is_said() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let (mut first, mut second) = (start_mock(mock_config()).await, start_mock(mock_config()).await);
    let fleet = config(vec![first.instance("first"), second.instance("second")]);
    let app = start_app(with_tokenizer(fleet, folder.path())).await;
    first.subscribed().await;
    second.subscribed().await;
    let text = "It was the worst of times, it was the best of times".repeat(4);
    let body = json!({"model": MODEL, "prompt": text, "max_tokens": 1});
    assert_eq!(post(second.http, "/v1/completions", &body).await.0, 200);
    eventually("the blocks", || app.cached_blocks(1) == text.len() / 16).await;
    let body = json!({"model": MODEL, "prompt": ["short", text], "max_tokens": 1});
    let response = open_post(app.http, "/v1/completions", &body).await;
    assert_eq!(response.headers()["x-warmpath-instance"], "second");
    assert!(response.headers().get("x-warmpath-overlap-tokens").is_none());
    assert_eq!(app.metric("warmpath_guessed_lookups_total{why=\"batch\"}"), 1.0);
    app.running.stop().await;
    first.running.stop().await;
    second.running.stop().await;
}

#[tokio::test]
async fn what_is_no_tokenizer_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let refused = async || {
        let fleet = with_tokenizer(config(vec![instance("only", nowhere, None)]), folder.path());
        App::bind(fleet).await.err().expect("it is refused").to_string()
    };
    assert!(refused().await.starts_with("cannot read "));
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert!(refused().await.contains("tokenizer.json is not a tokenizer that can be used"));
    write(folder.path());
    std::fs::write(folder.path().join("chat_template.jinja"), "{% if %}").unwrap();
    assert!(refused().await.starts_with("the chat template in "));
}
