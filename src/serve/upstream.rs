//! Requests on their way to instances, and answers on their way back.
//!
//! A request is sent again, to another instance, only where the first one did not take it (no connection, or 503) and so
//! nothing was sent to the client; a call without side effects (GET, HEAD) also where the connection broke. Retries have a
//! budget for all requests together, so that a fleet in trouble is not given twice the work.
//!
//! A long generation is no error, and who has enough of it hangs up: an answer has time limits only where they are configured,
//! one for its beginning and one for silence in it.
//!
//! An instance is shown the key that is configured for it, and the client's own only where that is configured.

mod answer;
mod api_keys;
mod budget;
pub(super) mod grpc;
mod grpc_relay;
mod headers;
mod observer;
mod relay;

use super::admission::{Booked, Refused, Shed};
use super::core::{Core, Room};
use super::ingress::guard::Entered;
use super::ingress::http::api::Api;
use super::ingress::http::responses::Makers;
use super::ingress::traced::Traced;
use super::members::Member;
use super::telemetry::labels::{Failure, StatusClass};
use super::ticket::Ticket;
use super::tls::{ClientTls, Connector};
use crate::config::{InstanceAccess, Protocol};
use crate::routing::admission::Ask;
use crate::routing::{Decision, InstanceId, RequestId, RouteError};
use answer::Answer;
pub use api_keys::ApiKeyError;
pub(super) use api_keys::ApiKeys;
pub(crate) use api_keys::key as api_key;
use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::response::Response;
use budget::Budget;
use grpc_relay::GrpcRelay;
pub(super) use headers::ClientHeaders;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use relay::Relay;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// Long enough for any connection inside a data centre; a client is waiting.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Servers close idle connections after some seconds (vLLM: 5), and a request on its way then is lost.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// A connection whose other end is gone without a word is found out while requests are on it.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_MAX: Duration = Duration::from_secs(5);
/// What an instance may take to answer a question of ours, and how long that answer may be.
const ANSWER_MAX: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// The way to all instances.
pub(super) struct Upstream {
    core: Arc<Core>,
    client: Client<Connector, Full<Bytes>>,
    /// HTTP/2 only, one connection to each instance: what gRPC goes over.
    grpc: Client<Connector, Full<Bytes>>,
    api_keys: Arc<ApiKeys>,
    budget: Budget,
    makers: Arc<Makers>,
}

/// A request as it came.
pub(super) struct Forward<'a> {
    /// Method, path, headers.
    pub head: &'a Parts,
    /// The body, sent as it is.
    pub body: Bytes,
    /// What it speaks.
    pub protocol: Protocol,
    /// When its client has enough of waiting, where it says so.
    pub deadline: Option<Instant>,
}

/// Decides where a request goes.
pub(super) trait Place {
    /// An instance that is none of `except`.
    fn place(&self, except: &[InstanceId], room: Room) -> Result<Placed, RouteError>;

    /// How it waits for room, holding so many bytes meanwhile; `None` where it costs an engine nothing.
    fn ask(&self, bytes: usize) -> Option<Ask>;
}

/// Where a request goes.
pub(super) struct Placed {
    /// The instance.
    pub instance: InstanceId,
    /// What is known of its prompt there.
    pub decision: Option<Decision>,
    /// Its reservation.
    pub ticket: Option<Ticket>,
}

impl Booked for Placed {
    fn request(&self) -> Option<RequestId> {
        self.ticket.as_ref().map(Ticket::request)
    }
}

/// Why no instance answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForwardError {
    /// There is nowhere to send it.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// Whoever may be asked is saturated.
    #[error(transparent)]
    Shed(#[from] Shed),
    /// It waited for room when the router was told to stop.
    #[error("the router is stopping")]
    Stopping,
    /// Whoever was asked did not answer.
    #[error("the instance could not be reached, or did not answer")]
    Unreachable,
    /// Whoever was asked took longer than it may.
    #[error("the instance did not answer in time")]
    Late,
}

impl From<Refused> for ForwardError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Route(error) => ForwardError::Route(error),
            Refused::Shed(shed) => ForwardError::Shed(shed),
            Refused::Stopping => ForwardError::Stopping,
        }
    }
}

/// How much of an answer to a call of our own is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerLimits {
    pub bytes: usize,
    pub time: Duration,
}

impl AnswerLimits {
    /// For what an instance has at hand.
    pub const SHORT: AnswerLimits = AnswerLimits { bytes: ANSWER_BYTES_MAX, time: ANSWER_MAX };
}

/// Why a call of our own has no answer.
pub(super) enum CallError {
    /// The instance did not answer.
    Forward(ForwardError),
    /// It answered with more than was asked for.
    TooLong,
    /// It answered with a status other than OK.
    Refused(Status),
}

/// How one attempt went.
enum Attempt {
    Answered(hyper::Response<Incoming>),
    /// It may be sent elsewhere; what to answer if it cannot be.
    NotTaken(Option<hyper::Response<Incoming>>),
    Broken,
    Late,
}

/// What the head of an answer says about the instance.
enum Verdict {
    Fine,
    /// It did not take the request.
    Unavailable,
    /// Something is wrong with it.
    Failed,
}

impl Verdict {
    fn of(protocol: Protocol, response: &hyper::Response<Incoming>) -> Self {
        let status = response.status();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return Verdict::Unavailable;
        }
        match protocol {
            Protocol::OpenAi if status.is_server_error() => Verdict::Failed,
            Protocol::OpenAi => Verdict::Fine,
            // Whoever answers gRPC otherwise does not speak it.
            Protocol::VllmEngine | Protocol::Inference if status != StatusCode::OK => Verdict::Failed,
            Protocol::VllmEngine | Protocol::Inference => match grpc::code(response.headers()) {
                Some(Code::Unavailable) => Verdict::Unavailable,
                Some(code) if grpc::is_fault(code) => Verdict::Failed,
                Some(_) | None => Verdict::Fine,
            },
        }
    }
}

impl Upstream {
    pub fn new(core: Arc<Core>, tls: Arc<ClientTls>, api_keys: Arc<ApiKeys>) -> Arc<Self> {
        let names = Arc::clone(&core);
        let connector = Connector::new(tls, CONNECT_MAX, Arc::new(move |uri: &Uri| server_name(&names, uri)));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .build(connector.clone());
        let grpc = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .http2_only(true)
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(Some(PING_EVERY))
            .http2_keep_alive_timeout(PING_MAX)
            .build(connector.http2());
        Arc::new(Upstream { core, client, grpc, api_keys, budget: Budget::default(), makers: Arc::default() })
    }

    /// Who made which response.
    pub fn makers(&self) -> &Makers {
        &self.makers
    }

    /// Sends a request where it is placed, elsewhere if it must, and gives the answer as it begins.
    pub async fn forward(&self, forward: &Forward<'_>, place: &impl Place) -> Result<Response, ForwardError> {
        self.budget.earn();
        let mut tried = Vec::new();
        let mut placed = self.admit(forward, place).await?;
        loop {
            let instance = placed.instance;
            // Held on to while it is asked, so that its place stays its own.
            let member = self.core.member(instance);
            if let Some(Traced(span)) = traced(forward).filter(|Traced(span)| span.is_sampled()) {
                let policy = self.core.router().config().policy.name();
                span.placed(&member.name, policy, placed.decision.as_ref(), tried.len() + 1);
            }
            match self.attempt(forward, instance).await {
                Attempt::Answered(response) => return Ok(self.respond(forward, placed, member, response)),
                Attempt::Broken => return Err(ForwardError::Unreachable),
                Attempt::Late => return Err(ForwardError::Late),
                Attempt::NotTaken(response) => {
                    let Placed { decision, ticket, .. } = placed;
                    drop(ticket);
                    let refused = response.map(|response| (Placed { instance, decision, ticket: None }, response));
                    tried.push(instance);
                    let is_last = tried.len() > self.core.http().retries_max as usize || !self.budget.spend();
                    // It was admitted once, and its first booking is given back: it does not wait again.
                    let elsewhere = if is_last { None } else { place.place(&tried, Room::Made).ok() };
                    placed = match elsewhere {
                        Some(elsewhere) => elsewhere,
                        // Nobody else is left, so the client gets what the last one said.
                        None => {
                            return match refused {
                                Some((placed, response)) => Ok(self.respond(forward, placed, member, response)),
                                None => Err(ForwardError::Unreachable),
                            };
                        }
                    };
                    self.core.metrics().instance(instance.index()).retries.increment(1);
                }
            }
        }
    }

    /// Places a request for the first time: when there is room.
    async fn admit(&self, forward: &Forward<'_>, place: &impl Place) -> Result<Placed, ForwardError> {
        match place.ask(forward.body.len()) {
            None => Ok(place.place(&[], Room::Made)?),
            Some(ask) => {
                let place = |room| place.place(&[], room);
                Ok(self.core.admission().place(&self.core, ask, forward.deadline, place).await?)
            }
        }
    }

    /// Asks an instance something of our own: status and body.
    pub async fn get(
        &self,
        instance: InstanceId,
        path: &str,
        authorization: Option<&HeaderValue>,
    ) -> Result<(u16, Bytes), ForwardError> {
        let member = self.core.member(instance);
        let address = member.address(Protocol::OpenAi).ok_or(ForwardError::Unreachable)?;
        let mut request = Request::get(format!("{address}{path}"));
        if let Some(key) = self.api_key(instance).as_ref().or(authorization) {
            request = request.header(header::AUTHORIZATION, key);
        }
        let request = request.body(Full::default()).map_err(|_| ForwardError::Unreachable)?;
        let answer = async {
            let response = self.client.request(request).await.map_err(|_| ForwardError::Unreachable)?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok((status, body.map_err(|_| ForwardError::Unreachable)?.to_bytes()))
        };
        tokio::time::timeout(ANSWER_MAX, answer).await.unwrap_or(Err(ForwardError::Unreachable))
    }

    /// Asks an instance something of our own and hands over the body as it comes: status. What it hands over may be cut off.
    pub async fn read(
        &self,
        instance: InstanceId,
        path: &str,
        mut chunk: impl FnMut(&[u8]),
    ) -> Result<u16, ForwardError> {
        let member = self.core.member(instance);
        let address = member.address(Protocol::OpenAi).ok_or(ForwardError::Unreachable)?;
        let mut request = Request::get(format!("{address}{path}"));
        if let Some(key) = self.api_key(instance) {
            request = request.header(header::AUTHORIZATION, key);
        }
        let request = request.body(Full::default()).map_err(|_| ForwardError::Unreachable)?;
        let answer = async {
            let response = self.client.request(request).await.map_err(|_| ForwardError::Unreachable)?;
            let status = response.status().as_u16();
            let mut body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|_| ForwardError::Unreachable)?;
                frame.data_ref().into_iter().for_each(|bytes| chunk(bytes));
            }
            Ok(status)
        };
        tokio::time::timeout(ANSWER_MAX, answer).await.unwrap_or(Err(ForwardError::Unreachable))
    }

    /// Calls a method of an instance that takes one message: the messages of its answer, in their frames.
    pub async fn call(
        &self,
        instance: InstanceId,
        protocol: Protocol,
        path: &str,
        headers: ClientHeaders,
        body: Bytes,
        limits: AnswerLimits,
    ) -> Result<Bytes, CallError> {
        let unreachable = || CallError::Forward(ForwardError::Unreachable);
        let member = self.core.member(instance);
        let address = member.address(protocol).ok_or_else(unreachable)?;
        let mut request = Request::post(format!("{address}{path}")).body(Full::new(body)).map_err(|_| unreachable())?;
        *request.headers_mut() = headers::to_instance(&headers, None, self.api_key(instance));
        request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let answer = async {
            let (head, body) = self.grpc.request(request).await.map_err(|_| unreachable())?.into_parts();
            let body = Limited::new(body, limits.bytes)
                .collect()
                .await
                .map_err(|error| if error.is::<LengthLimitError>() { CallError::TooLong } else { unreachable() })?;
            let status = Status::from_header_map(&head.headers).or_else(|| Status::from_header_map(body.trailers()?));
            match status {
                Some(status) if status.code() == Code::Ok => Ok(body.to_bytes()),
                Some(status) => Err(CallError::Refused(status)),
                None => Err(unreachable()),
            }
        };
        tokio::time::timeout(limits.time, answer).await.unwrap_or_else(|_| Err(unreachable()))
    }

    /// What it is shown, whoever asks.
    /// Reads the key for an instance that is about to join.
    pub fn expect(&self, access: &InstanceAccess) -> Result<(), ApiKeyError> {
        self.api_keys.add(access)
    }

    fn api_key(&self, instance: InstanceId) -> Option<HeaderValue> {
        self.api_keys.of(&self.core.member(instance).access)
    }

    async fn attempt(&self, forward: &Forward<'_>, instance: InstanceId) -> Attempt {
        let Some(request) = self.request(forward, instance) else {
            return Attempt::Broken;
        };
        let metrics = self.core.metrics().instance(instance.index());
        let failures = &metrics.failures;
        let client = match forward.protocol {
            Protocol::OpenAi => &self.client,
            Protocol::VllmEngine | Protocol::Inference => &self.grpc,
        };
        let answer = client.request(request);
        let answer = match self.core.http().head_max {
            Some(head) => match tokio::time::timeout(head, answer).await {
                Ok(answer) => answer,
                Err(_) => {
                    // It may be doing it all the same.
                    failures.of(Failure::Late).increment(1);
                    self.core.failed_at(instance);
                    return Attempt::Late;
                }
            },
            None => answer.await,
        };
        match answer {
            Ok(response) => match Verdict::of(forward.protocol, &response) {
                Verdict::Unavailable => {
                    // It says so when it has too much to do: no reason to take it out.
                    failures.of(Failure::Unavailable).increment(1);
                    Attempt::NotTaken(Some(response))
                }
                Verdict::Failed => {
                    failures.of(Failure::Status).increment(1);
                    self.core.failed_at(instance);
                    Attempt::Answered(response)
                }
                Verdict::Fine => {
                    self.core.succeeded_at(instance);
                    Attempt::Answered(response)
                }
            },
            Err(error) => {
                self.core.failed_at(instance);
                let name = &self.core.member(instance).name;
                tracing::debug!(instance = name, error = &error as &dyn std::error::Error, "a request failed");
                if error.is_connect() {
                    failures.of(Failure::Connect).increment(1);
                    return Attempt::NotTaken(None);
                }
                failures.of(Failure::Send).increment(1);
                match forward.head.method {
                    Method::GET | Method::HEAD => Attempt::NotTaken(None),
                    _ => Attempt::Broken,
                }
            }
        }
    }

    /// `None` for a path that cannot be appended to a base URL, and for an instance that does not speak the protocol.
    fn request(&self, forward: &Forward<'_>, instance: InstanceId) -> Option<Request<Full<Bytes>>> {
        let member = self.core.member(instance);
        let path = forward.head.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri: Uri = format!("{}{path}", member.address(forward.protocol)?).parse().ok()?;
        let rank = member.data_parallel_rank;
        let mut headers = headers::to_instance(&ClientHeaders::of(forward.head), rank, self.api_key(instance));
        if let (Some(spans), Some(Traced(span))) = (self.core.spans(), traced(forward)) {
            spans.inject(span, &mut headers);
        }
        let body = match forward.protocol {
            Protocol::OpenAi => forward.body.clone(),
            Protocol::VllmEngine | Protocol::Inference => {
                headers.insert(header::TE, HeaderValue::from_static("trailers"));
                grpc::pinned(forward.protocol, &forward.head.uri, &forward.body, rank)
            }
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = forward.head.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Some(request)
    }

    fn respond(
        &self,
        forward: &Forward<'_>,
        placed: Placed,
        member: Arc<Member>,
        response: hyper::Response<Incoming>,
    ) -> Response {
        let (head, body) = response.into_parts();
        if forward.protocol == Protocol::OpenAi {
            let metrics = self.core.metrics().instance(placed.instance.index());
            metrics.responses.of(StatusClass::of(head.status.as_u16())).increment(1);
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = head.status;
        *response.headers_mut() = headers::to_client(&head.headers, &member.name, placed.decision.as_ref());
        let entered = Entered::of(&forward.head.extensions).clone();
        let silence_max = self.core.http().idle_max;
        let answer = Answer::new(Arc::clone(&self.core), placed, member, body, silence_max, entered);
        let answer = answer.traced(traced(forward).cloned());
        *response.body_mut() = match forward.protocol {
            Protocol::OpenAi => {
                let api = Api::of(&forward.head.method, forward.head.uri.path());
                Body::new(Relay::new(answer, api, &head, &self.makers))
            }
            Protocol::VllmEngine | Protocol::Inference => {
                Body::new(GrpcRelay::new(answer, forward.protocol, forward.deadline, &head))
            }
        };
        response
    }
}

/// The name that the certificate of the instance at a URL must have, where its section says.
fn server_name(core: &Core, uri: &Uri) -> Option<String> {
    let is_there = |address: Option<&str>| {
        let authority = address.and_then(|address| address.split_once("://")).map(|(_, authority)| authority);
        authority == uri.authority().map(|authority| authority.as_str())
    };
    core.members().find_map(|(_, member)| {
        let is_it = Protocol::ALL.iter().any(|&protocol| is_there(member.address(protocol)));
        member.access.server_name.clone().filter(|_| is_it)
    })
}

fn traced<'a>(forward: &'a Forward<'_>) -> Option<&'a Traced> {
    forward.head.extensions.get()
}
