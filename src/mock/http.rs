//! vLLM's HTTP endpoints, as far as a router and its tests need them.

mod completions;
mod metrics;

pub(super) use completions::check;

use super::Settings;
use super::engine::{Command, Commands, Report};
use super::openai::{ErrorBody, RequestError};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::oneshot;

/// The largest body that is read.
const BODY_BYTES_MAX: usize = 64 << 20;

/// What every handler knows.
pub(super) struct Server {
    settings: Settings,
    commands: Commands,
    requests: AtomicU64,
}

pub(super) fn routes(settings: Settings, commands: Commands) -> Router {
    let server = Arc::new(Server { settings, commands, requests: AtomicU64::new(0) });
    Router::new()
        .route("/health", get(async || StatusCode::OK))
        .route("/v1/models", get(models))
        .route("/v1/completions", post(completions::complete))
        .route("/metrics", get(metrics::render))
        .route("/kv_event_sources", get(kv_event_sources))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(server)
}

impl Server {
    async fn report(&self) -> Result<Report, RequestError> {
        let (reply, report) = oneshot::channel();
        self.commands.send(Command::Report(reply)).await.map_err(|_| RequestError::Engine)?;
        report.await.map_err(|_| RequestError::Engine)
    }
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        let body = ErrorBody::from(&self);
        let status = StatusCode::from_u16(body.error.code).expect("the table has valid codes only");
        (status, Json(body)).into_response()
    }
}

async fn models(State(server): State<Arc<Server>>) -> Json<Value> {
    let Settings { model, max_model_len, .. } = &server.settings;
    Json(json!({
        "object": "list",
        "data": [{
            "id": model,
            "object": "model",
            "created": completions::unix_seconds(),
            "owned_by": "vllm",
            "root": model,
            "parent": null,
            "max_model_len": max_model_len,
            "permission": [],
        }],
    }))
}

async fn kv_event_sources(State(server): State<Arc<Server>>) -> Json<Value> {
    let Settings { kv_events, kv_replay, topic, .. } = &server.settings;
    Json(json!({
        "0": {
            "enable_kv_cache_events": true,
            "publisher": "zmq",
            "endpoint": format!("tcp://*:{}", kv_events.port()),
            "replay_endpoint": kv_replay.map(|replay| format!("tcp://*:{}", replay.port())),
            "buffer_steps": 10000,
            "hwm": 100000,
            "max_queue_size": 100000,
            "topic": topic,
        },
    }))
}
