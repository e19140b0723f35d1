//! vLLM's own gRPC services as its clients know them, forwarded to the fleet: `vllm.grpc.engine.VllmEngine` and the Rust
//! frontend's `vllm.Inference`.
//!
//! As with the OpenAI API, a message is looked at through a borrowed [`view`] and sent on as the bytes that came; what is not
//! known here survives, metadata and deadlines too. A prompt that is a text is made tokens by the model's tokenizer, where one
//! is configured; else its bytes tell which prompts begin alike. `VllmEngine` names no model: where the instances that speak it serve several, the metadata
//! `x-warmpath-model` does.
//!
//! Absent on purpose: translating one protocol into another, reflection of vLLM's protos, which are an instance's to tell,
//! methods that are about one instance (loads, cache events, sleep, adapters): it is to be asked itself.

mod method;
mod view;

use super::grpc::deadline::timeout;
use super::guard::{Entered, spend};
use super::listener::is_late;
use super::status;
use super::texts::KnownText;
use crate::config::Protocol;
use crate::routing::admission::{Ask, CallerKey, Priority};
use crate::routing::block::Namespace;
use crate::routing::{Availability, InstanceId, Prompt, Request, RouteError, SessionKey};
use crate::serve::admission;
use crate::serve::core::{Core, Room};
use crate::serve::protobuf::{Fields, Value};
use crate::serve::telemetry::labels::{self, Answer, ByLoad, Listener};
use crate::serve::ticket::Ticket;
use crate::serve::tokenizer::Tokenizers;
use crate::serve::upstream::{
    AnswerLimits, CallError, ClientHeaders, Forward, ForwardError, Place, Placed, Upstream, grpc,
};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use method::{Method, SERVICES};
use std::sync::Arc;
use std::time::Instant;
use tonic::{Code, Status};
use view::{Kind, Prompted, View};

/// The metadata that names the model where the message cannot.
const MODEL: &str = "x-warmpath-model";
/// Instances asked at once, where all are.
const ASKED_AT_ONCE: usize = 16;

/// What every call needs.
pub(in crate::serve) struct Server {
    pub core: Arc<Core>,
    pub upstream: Arc<Upstream>,
    pub tokenizers: Arc<Tokenizers>,
}

/// The names of the services.
pub(in crate::serve) fn services() -> impl Iterator<Item = &'static str> {
    SERVICES.into_iter().map(|(service, _)| service)
}

/// Every method of these services.
pub(in crate::serve) fn routes(server: Server) -> Router {
    let paths = services().map(|service| format!("/{service}/{{method}}"));
    let router = paths.fold(Router::new(), |router, path| router.route(&path, axum::routing::post(serve)));
    router.with_state(Arc::new(server))
}

async fn serve(State(server): State<Arc<Server>>, request: axum::extract::Request) -> Response {
    let (answer, response) = match server.answer(request).await {
        Ok(answered) => answered,
        Err((answer, status)) => (answer, status.into_http()),
    };
    server.core.metrics().grpc_answers.of(answer).increment(1);
    response
}

type Refusal = (Answer, Status);

impl Server {
    async fn answer(&self, request: axum::extract::Request) -> Result<(Answer, Response), Refusal> {
        if self.core.is_draining() {
            return Err((Answer::NoneReady, Status::unavailable("the router is stopping")));
        }
        let (head, body) = request.into_parts();
        let deadline = timeout(&head.headers).map(|timeout| Instant::now() + timeout);
        let path = head.uri.path().trim_start_matches('/');
        let (service, name) = path.split_once('/').unwrap_or_default();
        let protocol = SERVICES.iter().find(|(known, _)| *known == service).map(|(_, protocol)| *protocol);
        let (Some(protocol), Some(method)) = (protocol, Method::of(service, name)) else {
            return Err((Answer::Unimplemented, Status::unimplemented(format!("there is no method {path}"))));
        };
        let body = self.read(body).await?;
        let forward = Forward { head: &head, body, protocol, deadline };
        match method {
            Method::Routed(kind) => self.routed(kind, &forward).await,
            Method::Anyone => {
                self.forward(&forward, &Anyone { server: self, protocol, model: named_model(&head) }).await
            }
            Method::Everyone => self.everyone(&forward).await,
            Method::Health => Ok((Answer::Health, self.health(protocol))),
            Method::Nobody => {
                let what = "is about one instance; ask it itself (warmpath.v1.Router/Instances says where it is)";
                Err((Answer::Unimplemented, Status::unimplemented(format!("{path} {what}"))))
            }
        }
    }

    async fn read(&self, body: Body) -> Result<Bytes, Refusal> {
        let bytes_max = self.core.http().body_bytes_max;
        match Limited::new(body, bytes_max).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                self.core.metrics().refused(Listener::Grpc, labels::Refusal::BodyBytes);
                let what = format!("the message is longer than {bytes_max} bytes");
                Err((Answer::BadBody, Status::resource_exhausted(what)))
            }
            Err(error) if is_late(&*error) => {
                Err((Answer::BadBody, Status::deadline_exceeded("the message did not come in time")))
            }
            Err(_) => Err((Answer::BadBody, Status::cancelled("the message did not come whole"))),
        }
    }

    async fn routed(&self, kind: Kind, forward: &Forward<'_>) -> Result<(Answer, Response), Refusal> {
        // What cannot be read is the instance's to refuse.
        let seen = grpc::message(&forward.body).and_then(|message| View::of(kind, message).ok());
        let view = seen.unwrap_or(View { prompt: Prompted::ByLoad(ByLoad::Content), ..View::default() });
        let only;
        let model = match view.model.or(named_model(forward.head)) {
            Some(model) => model,
            None => {
                only = self.core.only_model_of(forward.protocol).ok_or_else(|| self.which_model(forward.protocol))?;
                &*only
            }
        };
        let estimate = of_bytes(forward.body.len());
        let text;
        let (prompt, by_load) = match &view.prompt {
            Prompted::Tokens(tokens) => (Prompt::Tokens(tokens), None),
            Prompted::ByLoad(reason) => (estimate, Some(*reason)),
            Prompted::Missing => (estimate, Some(ByLoad::NoPrompt)),
            Prompted::Text(prompt) => {
                text = KnownText::of(&self.core, &self.tokenizers, model, prompt).await;
                (text.prompt(), None)
            }
        };
        if let Some(reason) = by_load {
            self.core.metrics().by_load.of(reason).increment(1);
        }
        spend(&self.core, Entered::of(&forward.head.extensions), &prompt)
            .map_err(|status| (Answer::BadBody, status))?;
        let namespace = Namespace { model, lora: view.lora, cache_salt: view.cache_salt };
        let session = view.session.map(SessionKey::of);
        let request = Request { namespace, prompt, session };
        let looked_up = matches!(prompt, Prompt::Tokens(_));
        let (headers, extensions) = (&forward.head.headers, &forward.head.extensions);
        let priority = admission::priority(headers, None, extensions);
        let priority = priority.map_err(|error| (Answer::BadBody, Status::invalid_argument(error.to_string())))?;
        let caller = admission::caller(extensions);
        let place =
            Routed { server: self, protocol: forward.protocol, rank: view.rank, request, looked_up, priority, caller };
        self.forward(forward, &place).await
    }

    async fn forward(&self, forward: &Forward<'_>, place: &impl Place) -> Result<(Answer, Response), Refusal> {
        let response = self.upstream.forward(forward, place).await.map_err(refused)?;
        let ok = grpc::code(response.headers()).is_none_or(|code| code == Code::Ok);
        Ok((if ok { Answer::Forwarded } else { Answer::Refused }, response))
    }

    /// Asks all instances. The answer is that of the first one, or the first refusal.
    async fn everyone(&self, forward: &Forward<'_>) -> Result<(Answer, Response), Refusal> {
        let instances: Vec<InstanceId> = self.speaking(forward.protocol).map(|(instance, _)| instance).collect();
        let path = forward.head.uri.path().to_owned();
        let mut answered = None;
        for some in instances.chunks(ASKED_AT_ONCE) {
            let mut asked = tokio::task::JoinSet::new();
            for &instance in some {
                let (upstream, path) = (Arc::clone(&self.upstream), path.clone());
                let (protocol, headers, body) =
                    (forward.protocol, ClientHeaders::of(forward.head), forward.body.clone());
                let limits = AnswerLimits::SHORT;
                asked.spawn(async move { upstream.call(instance, protocol, &path, headers, body, limits).await });
            }
            for answer in asked.join_all().await {
                match answer {
                    Ok(message) => answered = answered.or(Some(message)),
                    Err(CallError::Refused(status)) => return Err((Answer::Refused, status)),
                    Err(CallError::Forward(error)) => return Err(refused(error)),
                    Err(CallError::TooLong) => {
                        let what = "an instance's answer is too long to be held for all of them";
                        return Err((Answer::Refused, Status::resource_exhausted(what)));
                    }
                }
            }
        }
        let message =
            answered.ok_or_else(|| refused(RouteError::NoneReady { model: String::new(), instances: 0 }.into()))?;
        Ok((Answer::Forwarded, ok(message)))
    }

    fn health(&self, protocol: Protocol) -> Response {
        let ready = self.speaking(protocol).any(|(_, availability)| availability == Availability::Ready);
        // HealthCheckResponse { healthy = 1; message = 2 }
        ok(grpc::framed(if ready { b"\x08\x01\x12\x06Health" } else { b"\x12\x14no instance is ready" }))
    }

    /// Who speaks a protocol and is not down.
    fn speaking(&self, protocol: Protocol) -> impl Iterator<Item = (InstanceId, Availability)> {
        let mut states = self.core.instances();
        states.retain(|state| state.availability != Availability::Down && self.core.may(state.instance, protocol, &[]));
        states.into_iter().map(|state| (state.instance, state.availability))
    }

    fn which_model(&self, protocol: Protocol) -> Refusal {
        if self.core.members().all(|(_, member)| member.address(protocol).is_none()) {
            let what = "no instance of this fleet speaks this protocol";
            return (Answer::Unimplemented, Status::unimplemented(what));
        }
        let what = format!("the fleet serves several models; name one in the metadata {MODEL}");
        (Answer::UnknownModel, Status::invalid_argument(what))
    }
}

/// A prompt of which only the length is known, and that by a rule of thumb: a token id takes two bytes.
fn of_bytes(bytes: usize) -> Prompt<'static> {
    Prompt::Blocks { contents: &[], tokens: u32::try_from(bytes / 2).unwrap_or(u32::MAX).max(1) }
}

fn named_model(head: &Parts) -> Option<&str> {
    head.headers.get(MODEL)?.to_str().ok()
}

fn refused(error: ForwardError) -> Refusal {
    let answer = match &error {
        ForwardError::Unreachable | ForwardError::Late => Answer::Unreachable,
        ForwardError::Shed(_) | ForwardError::Route(RouteError::Saturated { .. } | RouteError::Held { .. }) => {
            Answer::Shed
        }
        ForwardError::Stopping => Answer::NoneReady,
        ForwardError::Route(RouteError::UnknownModel { .. }) => Answer::UnknownModel,
        ForwardError::Route(RouteError::NoneReady { .. } | RouteError::TooManyInFlight { .. }) => Answer::NoneReady,
        ForwardError::Route(RouteError::EmptyPrompt | RouteError::PromptTooLong) => Answer::BadBody,
    };
    (answer, status::of_forward(&error))
}

/// An answer of ours.
fn ok(frame: Bytes) -> Response {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let trailers = std::future::ready(Some(Ok::<_, std::convert::Infallible>(trailers)));
    let mut response = Response::new(Body::new(http_body_util::Full::new(frame).with_trailers(trailers)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A call with a prompt.
struct Routed<'a> {
    server: &'a Server,
    protocol: Protocol,
    rank: Option<u32>,
    request: Request<'a>,
    /// Its tokens are known.
    looked_up: bool,
    priority: Priority,
    caller: CallerKey,
}

impl Routed<'_> {
    fn has_rank(&self, instance: InstanceId) -> bool {
        let own = self.server.core.member(instance).data_parallel_rank;
        // Where ranks are not told apart, an instance sees to the rank itself.
        self.rank.is_none_or(|rank| own.is_none_or(|own| own == rank))
    }
}

impl Place for Routed<'_> {
    fn place(&self, except: &[InstanceId], room: Room) -> Result<Placed, RouteError> {
        let core = &self.server.core;
        let may = |instance| self.has_rank(instance) && core.may(instance, self.protocol, except);
        let decision = core.route_among(&self.request, &may, room)?;
        let ticket = Ticket::new(Arc::clone(core), decision.request);
        // An estimate is nobody's business.
        let decision_told = self.looked_up.then_some(decision);
        Ok(Placed { instance: decision.instance, decision: decision_told, ticket: Some(ticket) })
    }

    fn ask(&self, bytes: usize) -> Option<Ask> {
        let members = || self.server.core.members().map(|(instance, _)| instance);
        let only: Option<Vec<InstanceId>> =
            self.rank.map(|_| members().filter(|&instance| self.has_rank(instance)).collect());
        let pool = admission::pool(self.request.namespace.model, Some(self.protocol), only.as_deref());
        let tokens = self.request.prompt.tokens()?;
        Some(Ask { priority: self.priority, caller: self.caller, pool, tokens, bytes })
    }
}

/// A call that any instance can answer, and that costs its engine nothing.
struct Anyone<'a> {
    server: &'a Server,
    protocol: Protocol,
    model: Option<&'a str>,
}

impl Place for Anyone<'_> {
    fn ask(&self, _bytes: usize) -> Option<Ask> {
        None
    }

    fn place(&self, except: &[InstanceId], _room: Room) -> Result<Placed, RouteError> {
        let core = &self.server.core;
        let may = |instance| core.may(instance, self.protocol, except);
        let instance = core.least_loaded_among(self.model, &may)?;
        Ok(Placed { instance, decision: None, ticket: None })
    }
}

/// Whether an instance's own health check says that it is well.
pub(in crate::serve) fn is_healthy(message: &[u8]) -> bool {
    let message = grpc::message(message).unwrap_or_default();
    Fields(message).any(|field| matches!(field, Ok((1, Value::Varint(healthy))) if healthy != 0))
}
