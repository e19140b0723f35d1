//! Who may come in: asks for a key, where keys are configured, and holds its owner to what the key may.
//!
//! Stands before the routes of the OpenAI and the gRPC listener. What is in force is behind one handle and can be replaced while
//! requests are under way: they keep what they were let in by, and a key that stays keeps its account.
//!
//! Absent on purpose: what a key may see. Who is let in may ask for any model.

mod bucket;
mod keys;
mod refused;

use super::caller::Caller;
use crate::config::{KeyLine, Limits, Quota};
use crate::routing::Prompt;
use crate::serve::core::Core;
use crate::serve::telemetry::labels::{Listener, Refusal};
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{Extensions, HeaderMap, HeaderName, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use keys::{Account, KeyRing, Permit};
use parking_lot::RwLock;
use refused::Refused;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;

/// Where clients of Anthropic's API have their key.
pub(in crate::serve) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Who only asks whether this is alive has no key. It is answered here, and says nothing of the fleet.
const PROBES: &str = "/grpc.health.v1.Health/";

/// The keys and limits in force.
pub(in crate::serve) struct Guard {
    core: Arc<Core>,
    in_force: RwLock<Arc<InForce>>,
}

/// What is asked of a request.
struct InForce {
    /// `None` where nobody is asked for one.
    keys: Option<KeyRing>,
    limits: Limits,
    /// Whether clients' keys are for the instances.
    forward: bool,
}

/// A request that was let in, and by what.
#[derive(Clone)]
pub(in crate::serve) struct Entered {
    in_force: Arc<InForce>,
    /// Whose tokens are counted; nobody's where no keys are asked for.
    account: Option<Arc<Account>>,
}

impl Entered {
    /// Of a request behind the guard.
    pub fn of(extensions: &Extensions) -> &Entered {
        extensions.get().expect("the guard stands before every route that asks")
    }

    /// Whether a prompt of so many tokens is taken; if not, how many are.
    pub fn takes(&self, tokens: u32) -> Result<(), u32> {
        let tokens_max = self.in_force.limits.prompt_tokens_max;
        if tokens <= tokens_max { Ok(()) } else { Err(tokens_max) }
    }

    /// Counts tokens, of a prompt or of an answer.
    pub fn spend(&self, tokens: u32) {
        if let Some(account) = &self.account {
            account.spend(tokens);
        }
    }

    /// Whether an instance may see the client's key.
    pub fn forwards_key(&self) -> bool {
        self.in_force.forward
    }
}

impl Guard {
    /// Lets everyone in within these limits, until it knows keys.
    pub fn new(core: Arc<Core>, limits: Limits) -> Arc<Self> {
        let in_force = Arc::new(InForce { keys: None, limits, forward: true });
        Arc::new(Guard { core, in_force: RwLock::new(in_force) })
    }

    /// From now on only these keys open, each within its line's quota, or else within this one; `None`: nobody is asked.
    pub fn replace_keys(&self, lines: Option<&[KeyLine]>, quota: Quota, forward: bool) {
        let mut in_force = self.in_force.write();
        let keys = lines.map(|lines| KeyRing::new(lines, quota, in_force.keys.as_ref()));
        // Where nobody is asked for a key, what looks like one is for the instances.
        let forward = forward || keys.is_none();
        *in_force = Arc::new(InForce { keys, limits: in_force.limits, forward });
    }

    /// From now on these limits hold: for connections those that come, for requests all.
    pub fn replace_limits(&self, limits: Limits) {
        let mut in_force = self.in_force.write();
        let InForce { keys, forward, .. } = &**in_force;
        *in_force = Arc::new(InForce { keys: keys.clone(), limits, forward: *forward });
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.in_force.read().limits
    }

    /// Counts a refusal.
    pub fn refused(&self, listener: Listener, why: Refusal) {
        self.core.metrics().refused(listener, why);
    }

    /// These routes, for those who may come in.
    pub fn before(self: &Arc<Self>, listener: Listener, routes: Router) -> Router {
        let guard = Arc::clone(self);
        routes.layer(from_fn(move |request, next| {
            let guard = Arc::clone(&guard);
            async move { guard.admit(listener, request, next).await }
        }))
    }

    async fn admit(&self, listener: Listener, mut request: Request, next: Next) -> Response {
        let in_force = Arc::clone(&self.in_force.read());
        let admitted = in_force.admit(&request);
        let (caller, entered, permit) = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => {
                self.refused(listener, refused.why);
                return refused.answer(listener);
            }
        };
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(entered);
        let response = next.run(request).await;
        match permit {
            Some(permit) => response.map(|body| Body::new(Held { body, _permit: permit })),
            None => response,
        }
    }
}

impl InForce {
    fn admit(self: &Arc<Self>, request: &Request) -> Result<(Caller, Entered, Option<Permit>), Refused> {
        let Limits { headers_max, header_bytes_max, .. } = self.limits;
        let headers = request.headers();
        if headers.len() > headers_max || bytes(headers) > header_bytes_max {
            return Err(Refused::now(Refusal::Headers));
        }
        let entered = |account| Entered { in_force: Arc::clone(self), account };
        let Some(keys) = &self.keys else {
            return Ok((Caller::default(), entered(None), None));
        };
        if request.uri().path().starts_with(PROBES) {
            return Ok((Caller::default(), entered(None), None));
        }
        let key = shown(headers).ok_or(Refused::now(Refusal::KeyMissing))?;
        let account = keys.find(key).ok_or(Refused::now(Refusal::KeyUnknown))?;
        let permit = account.enter().inspect_err(|refused| {
            tracing::debug!(caller = %account.name(), why = ?refused.why, "a request is refused");
        })?;
        Ok((Caller { name: Arc::clone(account.name()) }, entered(Some(Arc::clone(account))), permit))
    }
}

/// Counts a prompt that came over gRPC, unless it is longer than is taken.
pub(in crate::serve) fn spend(core: &Core, entered: &Entered, prompt: &Prompt<'_>) -> Result<(), Status> {
    // What has more tokens than can be counted is the router's to refuse.
    let tokens = prompt.tokens().unwrap_or(u32::MAX);
    entered.takes(tokens).map_err(|tokens_max| {
        core.metrics().refused(Listener::Grpc, Refusal::PromptTokens);
        Status::invalid_argument(format!("the prompt has {tokens} tokens, and no more than {tokens_max} are taken"))
    })?;
    entered.spend(tokens);
    Ok(())
}

/// The key that a request shows: `Authorization: Bearer` before `x-api-key`.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(b"bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
    });
    authorization.or_else(|| headers.get(API_KEY).map(|key| key.as_bytes().trim_ascii()))
}

/// As HTTP/2 counts them (RFC 9113, 6.5.2).
fn bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

/// An answer whose request counts as under way until it is over.
struct Held {
    body: Body,
    _permit: Permit,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
