//! Who may come in: asks for a key, where keys are configured, and holds its owner to what the key may.
//!
//! Stands before the routes of all listeners: clients' keys open the OpenAI and the gRPC listener, operators' keys the admin
//! listener. What is in force is behind one handle and can be replaced while requests are under way: they keep what they were let
//! in by, and a key that stays keeps its account.
//!
//! Absent on purpose: what a key may see. Who is let in may ask for any model.

mod bucket;
mod keys;
mod refused;

use super::caller::Caller;
use crate::config::{KeyLine, Limits, Quota};
use crate::routing::Prompt;
use crate::routing::admission::Priority;
use crate::serve::core::Core;
use crate::serve::telemetry::labels::{Listener, Refusal};
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{Extensions, HeaderMap, HeaderName, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::body::{Frame, SizeHint};
use keys::{Account, Key, KeyRing, Permit};
use parking_lot::RwLock;
use refused::Refused;
use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;

/// Where clients of Anthropic's API have their key.
pub(in crate::serve) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Who only asks whether this is alive, or ready, has no key. It is answered here, and says nothing of the fleet.
const PROBES: &str = "/grpc.health.v1.Health/";
const ADMIN_PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// The keys and limits in force.
pub(in crate::serve) struct Guard {
    core: Arc<Core>,
    in_force: RwLock<Arc<InForce>>,
}

/// Keys as they are kept; `None` where nobody is asked for one.
pub(in crate::serve) struct Lines {
    /// Of the OpenAI and the gRPC listener.
    pub clients: Option<Vec<KeyLine>>,
    /// Of the admin listener.
    pub operators: Option<Vec<KeyLine>>,
}

/// What is asked of a request.
struct InForce {
    /// Clients'; `None` where nobody is asked for one.
    keys: Option<KeyRing>,
    /// Operators', the same.
    operators: Option<KeyRing>,
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
        let in_force = Arc::new(InForce { keys: None, operators: None, limits, forward: true });
        Arc::new(Guard { core, in_force: RwLock::new(in_force) })
    }

    /// From now on only these keys open, a client's within its line's quota, or else within this one; `None`: nobody is asked.
    pub fn replace_keys(&self, Lines { clients, operators }: &Lines, quota: Quota, forward: bool) {
        let mut in_force = self.in_force.write();
        let keys = clients.as_ref().map(|lines| KeyRing::new(lines, quota, in_force.keys.as_ref()));
        let before = in_force.operators.as_ref();
        let operators = operators.as_ref().map(|lines| KeyRing::new(lines, Quota::default(), before));
        // Where nobody is asked for a key, what looks like one is for the instances.
        let forward = forward || keys.is_none();
        *in_force = Arc::new(InForce { keys, operators, limits: in_force.limits, forward });
    }

    /// From now on these limits hold: for connections those that come, for requests all.
    pub fn replace_limits(&self, limits: Limits) {
        let mut in_force = self.in_force.write();
        let InForce { keys, operators, forward, .. } = &**in_force;
        let (keys, operators) = (keys.clone(), operators.clone());
        *in_force = Arc::new(InForce { keys, operators, limits, forward: *forward });
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
        let admitted = in_force.admit(listener, &request);
        let Admitted { caller, entered, permit, priority } = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => {
                self.refused(listener, refused.why);
                return refused.answer(listener, is_grpc(request.headers()));
            }
        };
        request.extensions_mut().insert(caller.clone());
        request.extensions_mut().insert(entered);
        if let Some(priority) = priority {
            request.extensions_mut().insert(priority);
        }
        let mut response = next.run(request).await;
        // For whoever stands before this and logs what became of it.
        response.extensions_mut().insert(caller);
        match permit {
            Some(permit) => response.map(|body| Body::new(Held { body, _permit: permit })),
            None => response,
        }
    }
}

/// Who came in, by what.
struct Admitted {
    caller: Caller,
    entered: Entered,
    permit: Option<Permit>,
    /// Of what does not say how urgent it is.
    priority: Option<Priority>,
}

impl InForce {
    fn admit(self: &Arc<Self>, listener: Listener, request: &Request) -> Result<Admitted, Refused> {
        let Limits { headers_max, header_bytes_max, .. } = self.limits;
        let headers = request.headers();
        if headers.len() > headers_max || bytes(headers) > header_bytes_max {
            return Err(Refused::now(Refusal::Headers));
        }
        let path = request.uri().path();
        let (keys, is_probe) = match listener {
            Listener::Grpc | Listener::Http => (&self.keys, path.starts_with(PROBES)),
            Listener::Admin => (&self.operators, ADMIN_PROBES.contains(&path)),
        };
        let Some(keys) = keys.as_ref().filter(|_| !is_probe) else {
            // Whoever showed a certificate of an authority of ours has its name.
            let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
            let entered = Entered { in_force: Arc::clone(self), account: None };
            return Ok(Admitted { caller, entered, permit: None, priority: None });
        };
        let key = shown(listener, headers).ok_or(Refused::now(Refusal::KeyMissing))?;
        let Key { account, priority, .. } = keys.find(&key).ok_or(Refused::now(Refusal::KeyUnknown))?;
        let permit = account.enter().inspect_err(|refused| {
            tracing::debug!(caller = %account.name(), why = ?refused.why, "a request is refused");
        })?;
        let caller = Caller { name: Arc::clone(account.name()) };
        let entered = Entered { in_force: Arc::clone(self), account: Some(Arc::clone(account)) };
        Ok(Admitted { caller, entered, permit, priority: *priority })
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

/// The key that a request shows: `Authorization: Bearer` before `x-api-key`. To operators' browsers, which have neither, it is the
/// password of `Authorization: Basic`, whoever the user is.
fn shown(listener: Listener, headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| {
        if let Some(key) = after(value.as_bytes(), b"bearer ") {
            return Some(Cow::Borrowed(key));
        }
        let basic = after(value.as_bytes(), b"basic ").filter(|_| listener == Listener::Admin)?;
        let pair = BASE64_STANDARD.decode(basic).ok()?;
        // RFC 7617: the user has no colon, the password may.
        let colon = pair.iter().position(|&byte| byte == b':')?;
        Some(Cow::Owned(pair[colon + 1..].to_vec()))
    });
    authorization.or_else(|| headers.get(API_KEY).map(|key| Cow::Borrowed(key.as_bytes().trim_ascii())))
}

/// What follows a scheme, in whatever case it is written.
fn after<'a>(value: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = value.split_at_checked(scheme.len())?;
    found.eq_ignore_ascii_case(scheme).then(|| rest.trim_ascii())
}

/// Whether what is asked is asked by gRPC, and so must be answered by it.
pub(in crate::serve) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
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
