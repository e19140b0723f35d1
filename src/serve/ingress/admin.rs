//! HTTP for operators: metrics, probes, and what the router knows.

use crate::routing::{Availability, Knowledge};
use crate::serve::core::Core;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use std::sync::Arc;

/// `/metrics`, `/healthz`, `/readyz` and `/instances` over a core.
pub(in crate::serve) fn routes(core: Arc<Core>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/instances", get(instances))
        .with_state(core)
}

async fn metrics(State(core): State<Arc<Core>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], core.render_metrics())
}

/// 200 while some instance takes requests, 503 otherwise and while draining.
async fn ready(State(core): State<Arc<Core>>) -> (StatusCode, &'static str) {
    if core.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    let ready = core.instances().iter().any(|state| state.availability == Availability::Ready);
    if ready { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "no instance is ready\n") }
}

/// One instance, for a human or a script.
#[derive(Serialize)]
struct InstanceView {
    name: String,
    url: String,
    model: String,
    availability: &'static str,
    knowledge: &'static str,
    kv_events_connected: bool,
    cached_blocks: usize,
    prefill_requests: u32,
    prefill_tokens: u64,
    prefill_wait_seconds: f64,
    decode_requests: u32,
    decode_tokens: u64,
    busy_share: f64,
    assigned: u64,
    /// What it says of itself, if it was asked and answered.
    reported: Option<ReportedView>,
    /// Requests that it reported beyond those that were sent there from here.
    foreign_requests: u32,
    /// Where nothing is published: blocks that it is believed to hold at most.
    approximate_blocks_max: Option<usize>,
}

#[derive(Serialize)]
struct ReportedView {
    running: u32,
    waiting: u32,
    cache_usage: f64,
    age_seconds: f64,
}

async fn instances(State(core): State<Arc<Core>>) -> Json<Vec<InstanceView>> {
    let view = |state: crate::routing::InstanceState| {
        let member = core.member(state.instance);
        InstanceView {
            name: member.name.clone(),
            url: member.url.clone(),
            model: state.model.as_ref().to_owned(),
            availability: match state.availability {
                Availability::Ready => "ready",
                Availability::Draining => "draining",
                Availability::Down => "down",
            },
            knowledge: match state.knowledge {
                Knowledge::Exact => "exact",
                Knowledge::Degraded => "degraded",
                Knowledge::Approximate => "approximate",
                Knowledge::Blind => "blind",
            },
            kv_events_connected: member.is_connected(),
            cached_blocks: core.router().cached_blocks(state.instance),
            prefill_requests: state.load.prefill_requests,
            prefill_tokens: state.load.prefill_tokens,
            prefill_wait_seconds: state.load.prefill_wait.as_secs_f64(),
            decode_requests: state.load.decode_requests,
            decode_tokens: state.load.decode_tokens,
            busy_share: state.load.busy_share,
            assigned: state.load.assigned,
            reported: core.load_age(&state).zip(state.load.reported).map(|(age, reported)| ReportedView {
                running: reported.running,
                waiting: reported.waiting,
                cache_usage: reported.cache_usage,
                age_seconds: age.as_secs_f64(),
            }),
            foreign_requests: state.load.foreign_requests,
            approximate_blocks_max: (state.knowledge == Knowledge::Approximate)
                .then(|| core.router().approximate_blocks_max(state.instance)),
        }
    };
    Json(core.instances().into_iter().map(view).collect())
}
