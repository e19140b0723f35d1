//! Who may come in, and how much is taken from them: through the sockets, with certificates made here.

mod commands;
mod keys;
mod operators;
mod settings;
mod slow;
pub(crate) mod tls;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use warmpath::config::{Config, Instance, key_line};

use crate::support::{RunningApp, config, instance, soon};

/// The headers of every request that an instance was sent.
pub(crate) type Seen = Arc<Mutex<Vec<HeaderMap>>>;

/// An instance that keeps the headers that it is sent, and answers with the body.
pub(crate) async fn echo() -> (Instance, Seen) {
    async fn keep(State(seen): State<Seen>, headers: HeaderMap, body: Bytes) -> Bytes {
        seen.lock().unwrap().push(headers);
        body
    }
    let seen = Seen::default();
    let routes = Router::new().fallback(keep).layer(axum::extract::DefaultBodyLimit::disable());
    let routes = routes.with_state(Arc::clone(&seen));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (instance("a", address, None), seen)
}

/// The line of a key, with what it may.
pub(crate) fn line(name: &str, key: &str, quota: &str) -> String {
    format!("{} {quota}", key_line(name, &Sha256::digest(key).into()))
}

/// A router whose clients need one of these keys.
fn with_keys(instances: Vec<Instance>, lines: &[String]) -> Config {
    let mut config = config(instances);
    config.security.keys.clients.lines = Some(lines.join("\n"));
    config
}

/// What is counted of refusals at the OpenAI listener for a reason.
fn refusals(app: &RunningApp, reason: &str) -> f64 {
    refusals_at(app, "http", reason)
}

fn refusals_at(app: &RunningApp, listener: &str, reason: &str) -> f64 {
    app.metric(&format!("warmpath_refusals_total{{listener=\"{listener}\",reason=\"{reason}\"}}"))
}

/// Sends a completion with these headers: status, headers, body.
async fn complete(app: &RunningApp, headers: &[(&str, &str)], body: &Value) -> (StatusCode, HeaderMap, String) {
    let mut request = hyper::Request::post(format!("http://{}/v1/completions", app.http));
    for &(name, value) in headers {
        request = request.header(name, value);
    }
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = request.body(Full::new(Bytes::from(body.to_string()))).unwrap();
    let (head, body) = soon("a response", client.request(request)).await.unwrap().into_parts();
    let body = soon("a body", body.collect()).await.unwrap().to_bytes();
    (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
}
