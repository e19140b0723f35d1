//! Counts and times every answer of the OpenAI API, whoever gives it.

use super::http::api::Api;
use crate::serve::core::Core;
use crate::serve::telemetry::labels::Call;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use std::sync::Arc;
use std::time::Instant;

/// These routes, observed.
pub(in crate::serve) fn layer(routes: Router, core: Arc<Core>) -> Router {
    routes.layer(from_fn_with_state(core, observe))
}

async fn observe(State(core): State<Arc<Core>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let call = Call::from(Api::of(request.method(), request.uri().path()));
    let response = next.run(request).await;
    core.metrics().responded(call, response.status().as_u16(), began.elapsed().as_secs_f64());
    response
}
