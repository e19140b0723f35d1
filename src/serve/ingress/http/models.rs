//! `GET /v1/models`: what any instance of the fleet serves.
//!
//! Asked of the instances, and kept for [`FRESH`]; whoever asks meanwhile waits for the same answer. An instance that does not
//! answer is left out; when none does, what was known before is told.

use crate::routing::{Availability, InstanceId};
use crate::serve::core::Core;
use crate::serve::upstream::Upstream;
use axum::Json;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long an answer is good for.
const FRESH: Duration = Duration::from_secs(5);
/// Instances asked at once.
const ASKED_AT_ONCE: usize = 16;

/// The models of the fleet.
pub(super) struct Models {
    core: Arc<Core>,
    upstream: Arc<Upstream>,
    known: Mutex<Option<Known>>,
}

struct Known {
    at: Instant,
    by_id: BTreeMap<String, Value>,
}

impl Models {
    pub fn new(core: Arc<Core>, upstream: Arc<Upstream>) -> Self {
        Models { core, upstream, known: Mutex::new(None) }
    }

    /// All models, each once, by name. A key that the client was given for the fleet is shown to the instances.
    pub async fn union(&self, headers: &HeaderMap) -> Response {
        let mut known = self.known.lock().await;
        if known.as_ref().is_none_or(|known| known.at.elapsed() >= FRESH) {
            let by_id = self.ask(headers).await;
            match known.as_mut() {
                Some(known) if by_id.is_empty() => known.at = Instant::now(),
                Some(_) | None => *known = Some(Known { at: Instant::now(), by_id }),
            }
        }
        let data: Vec<&Value> = known.iter().flat_map(|known| known.by_id.values()).collect();
        Json(json!({"object": "list", "data": data})).into_response()
    }

    async fn ask(&self, headers: &HeaderMap) -> BTreeMap<String, Value> {
        let authorization = headers.get(header::AUTHORIZATION);
        let mut states = self.core.instances();
        states.retain(|state| state.availability == Availability::Ready);
        let instances: Vec<InstanceId> = states.iter().map(|state| state.instance).collect();
        let mut by_id = BTreeMap::new();
        for some in instances.chunks(ASKED_AT_ONCE) {
            let mut asked = tokio::task::JoinSet::new();
            for &instance in some {
                let (upstream, authorization) = (Arc::clone(&self.upstream), authorization.cloned());
                asked.spawn(async move { upstream.get(instance, "/v1/models", authorization.as_ref()).await });
            }
            for answer in asked.join_all().await {
                let Ok((200, body)) = answer else { continue };
                let Ok(Value::Object(mut list)) = serde_json::from_slice(&body) else { continue };
                let Some(Value::Array(models)) = list.remove("data") else { continue };
                for model in models {
                    if let Some(id) = model.get("id").and_then(Value::as_str).map(str::to_owned) {
                        by_id.entry(id).or_insert(model);
                    }
                }
            }
        }
        by_id
    }
}
