//! HTTP for operators: metrics, probes, what the router knows, and a page that shows it.

use super::ui;
use crate::routing::Availability;
use crate::serve::core::Core;
use crate::serve::status::{Instance, Status};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use std::sync::Arc;

/// `/metrics`, `/healthz`, `/readyz`, `/instances`, `/status` and `/ui` over a core.
pub(in crate::serve) fn routes(core: Arc<Core>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/instances", get(instances))
        .route("/status", get(status))
        .merge(ui::routes())
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

async fn instances(State(core): State<Arc<Core>>) -> Json<Vec<Instance>> {
    Json(core.instances().iter().map(|state| Instance::of(&core, state)).collect())
}

async fn status(State(core): State<Arc<Core>>) -> Json<Status> {
    Json(Status::of(&core))
}
