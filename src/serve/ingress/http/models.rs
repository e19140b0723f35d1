//! `GET /v1/models`: what any instance of the fleet serves, and who serves a name that is no configured model: an adapter
//! (which names its `parent`), or another name of the model itself.
//!
//! Asked of the instances, and kept for [`FRESH`]; whoever asks meanwhile waits for the same answer. An instance that does not
//! answer is left out; when none does, what was known before is told.

use crate::config::Protocol;
use crate::routing::{Availability, InstanceId};
use crate::serve::core::Core;
use crate::serve::ingress::guard::Entered;
use crate::serve::upstream::Upstream;
use axum::Json;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
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
    by_id: BTreeMap<String, Listed>,
}

/// A name, as the instances that list it do.
struct Listed {
    /// As the first one describes it.
    shown: Value,
    /// The configured model of the first one.
    model: Arc<str>,
    instances: Vec<InstanceId>,
}

/// Who serves what is asked for.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// The configured model; `None` where nothing is asked for and the fleet has several.
    pub model: Option<Arc<str>>,
    /// The adapter.
    pub lora: Option<String>,
    /// The instances that list it, where not all of that model need to.
    pub only: Option<Vec<InstanceId>>,
}

impl Models {
    pub fn new(core: Arc<Core>, upstream: Arc<Upstream>) -> Self {
        Models { core, upstream, known: Mutex::new(None) }
    }

    /// All models, each once, by name. A key that the client was given for the fleet is shown to the instances.
    pub async fn union(&self, head: &Parts) -> Response {
        let known = self.fresh(head).await;
        let data: Vec<&Value> = known.iter().flat_map(|known| known.by_id.values().map(|one| &one.shown)).collect();
        Json(json!({"object": "list", "data": data})).into_response()
    }

    /// Who serves a name. The instances are asked only for one that is not configured.
    pub async fn served(&self, name: Option<&str>, head: &Parts) -> Served {
        let Some(name) = name else {
            return Served { model: self.core.only_model(), ..Served::default() };
        };
        let unknown = || Served { model: Some(Arc::from(name)), ..Served::default() };
        if self.core.serves(name) {
            return unknown();
        }
        let known = self.fresh(head).await;
        let Some(listed) = known.as_ref().and_then(|known| known.by_id.get(name)) else { return unknown() };
        let is_adapter = listed.shown.get("parent").is_some_and(|parent| !parent.is_null());
        Served {
            model: Some(Arc::clone(&listed.model)),
            lora: is_adapter.then(|| name.to_owned()),
            only: Some(listed.instances.clone()),
        }
    }

    async fn fresh(&self, head: &Parts) -> MutexGuard<'_, Option<Known>> {
        let mut known = self.known.lock().await;
        if known.as_ref().is_none_or(|known| known.at.elapsed() >= FRESH) {
            let by_id = self.ask(head).await;
            match known.as_mut() {
                Some(known) if by_id.is_empty() => known.at = Instant::now(),
                Some(_) | None => *known = Some(Known { at: Instant::now(), by_id }),
            }
        }
        known
    }

    async fn ask(&self, head: &Parts) -> BTreeMap<String, Listed> {
        let authorization =
            head.headers.get(header::AUTHORIZATION).filter(|_| Entered::of(&head.extensions).forwards_key());
        let mut states = self.core.instances();
        states.retain(|state| {
            state.availability == Availability::Ready && self.core.may(state.instance, Protocol::OpenAi, &[])
        });
        let mut by_id = BTreeMap::<String, Listed>::new();
        for some in states.chunks(ASKED_AT_ONCE) {
            let mut asked = tokio::task::JoinSet::new();
            for state in some {
                let (upstream, authorization) = (Arc::clone(&self.upstream), authorization.cloned());
                let state = state.clone();
                asked.spawn(async move {
                    (upstream.get(state.instance, "/v1/models", authorization.as_ref()).await, state)
                });
            }
            let mut answers = asked.join_all().await;
            answers.sort_by_key(|(_, state)| state.instance);
            for (answer, state) in answers {
                let Ok((200, body)) = answer else { continue };
                let Ok(Value::Object(mut list)) = serde_json::from_slice(&body) else { continue };
                let Some(Value::Array(models)) = list.remove("data") else { continue };
                for model in models {
                    let Some(id) = model.get("id").and_then(Value::as_str).map(str::to_owned) else { continue };
                    let first = || Listed { shown: model, model: Arc::clone(&state.model), instances: Vec::new() };
                    let listed = by_id.entry(id).or_insert_with(first);
                    if listed.model == state.model {
                        listed.instances.push(state.instance);
                    }
                }
            }
        }
        by_id
    }
}
