//! The gRPC service: `Route` and the reports that follow it, `Explain` and `Watch`. What changes the fleet is [`fleet`].

pub(in crate::serve) mod deadline;
pub(in crate::serve) mod fleet;
mod watch;
mod weighed;

use super::guard::{Entered, spend};
use super::status;
use super::texts::KnownText;
use super::traced::Traced;
use crate::routing::admission::Ask;
use crate::routing::block::Namespace;
use crate::routing::{self, Fact, InstanceId, Request, RequestId, RouteError, SessionKey};
use crate::serve::admission;
use crate::serve::core::Core;
use crate::serve::proto::router_server::{Router, RouterServer};
use crate::serve::proto::{
    Availability, CompleteRequest, CompleteResponse, ExplainResponse, FirstTokenRequest, FirstTokenResponse, Instance,
    InstancesRequest, InstancesResponse, Knowledge, Load, Outcome, RouteRequest, RouteResponse, WatchRequest,
};
use crate::serve::tokenizer::Tokenizers;
use deadline::Deadline;
use std::sync::Arc;
use tonic::{Response, Status};

/// The largest request that is read: a prompt of three million tokens.
const REQUEST_BYTES_MAX: usize = 16 << 20;
/// Names that one request may allow: each is compared with every instance's.
const ALLOWED_MAX: usize = 256;

/// What it works on.
pub(in crate::serve) struct Service {
    core: Arc<Core>,
    tokenizers: Arc<Tokenizers>,
}

/// `warmpath.v1.Router` over a core.
pub(in crate::serve) fn routes(core: Arc<Core>, tokenizers: Arc<Tokenizers>) -> axum::Router {
    let service = RouterServer::new(Service { core, tokenizers }).max_decoding_message_size(REQUEST_BYTES_MAX);
    axum::Router::new().route_service("/warmpath.v1.Router/{method}", service)
}

impl Service {
    fn learn(&self, fact: Fact<'_>) -> Result<(), Status> {
        self.core.learn(fact).map_err(|error| status::of_learn(&error))
    }

    /// What is known of the prompt; of a text its tokens, where it can be made tokens in time.
    async fn known(&self, request: &mut RouteRequest) -> Result<KnownText, Status> {
        let tokens = std::mem::take(&mut request.token_ids);
        match request.text.take() {
            None => Ok(KnownText::Tokens(tokens)),
            Some(text) if text.is_empty() => Ok(KnownText::Tokens(tokens)),
            Some(text) if tokens.is_empty() => {
                Ok(KnownText::of(&self.core, &self.tokenizers, &request.model, &text).await)
            }
            Some(_) => {
                Err(Status::invalid_argument("the prompt is given both as token_ids and as text; send one of them"))
            }
        }
    }

    /// The instances that the request allows; all where it names none.
    fn allowed(&self, request: &RouteRequest) -> Result<Option<Vec<InstanceId>>, Status> {
        let names = &request.allowed_instances;
        if names.is_empty() {
            return Ok(None);
        }
        if names.len() > ALLOWED_MAX {
            return Err(Status::invalid_argument(format!("allowed_instances has more than {ALLOWED_MAX} names")));
        }
        let named = self.core.members().filter(|(_, member)| names.iter().any(|name| member.is_called(name)));
        let allowed: Vec<InstanceId> = named.map(|(instance, _)| instance).collect();
        if allowed.is_empty() {
            return Err(Status::not_found("no instance of the fleet has a name of allowed_instances"));
        }
        Ok(Some(allowed))
    }
}

#[tonic::async_trait]
impl Router for Service {
    async fn route(&self, request: tonic::Request<RouteRequest>) -> Result<Response<RouteResponse>, Status> {
        let (metadata, extensions, mut request) = request.into_parts();
        let headers = metadata.into_headers();
        let deadline = extensions.get().map(|&Deadline(deadline)| deadline.into_std());
        let priority = admission::priority(&headers, request.priority.map(i64::from), &extensions);
        let priority = priority.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let known = self.known(&mut request).await?;
        let allowed = self.allowed(&request)?;
        spend(&self.core, Entered::of(&extensions), &known.prompt())?;
        let asked = placed(&request, &known);
        let tokens = asked.prompt.tokens().ok_or_else(|| status::of_route(&RouteError::PromptTooLong))?;
        let ask = Ask {
            priority,
            caller: admission::caller(&extensions),
            pool: admission::pool(&request.model, None, allowed.as_deref()),
            tokens,
            bytes: tokens as usize * size_of::<u32>(),
        };
        let route = |room| self.core.route_among(&asked, &|instance| is_allowed(&allowed, instance), room);
        let decision = self.core.admission().place(&self.core, ask, deadline, route).await;
        let decision = decision.map_err(|refused| status::of_refused(&refused))?;
        let member = self.core.member(decision.instance);
        if let Some(Traced(span)) = extensions.get::<Traced>().filter(|Traced(span)| span.is_sampled()) {
            span.placed(&member.name, self.core.router().config().policy.name(), Some(&decision), 1);
        }
        Ok(Response::new(RouteResponse {
            request_id: decision.request.0,
            instance: member.name.clone(),
            url: member.url.clone(),
            prompt_tokens: decision.prompt_tokens,
            overlap_tokens: decision.overlap_tokens,
            best_overlap_tokens: decision.best_overlap_tokens,
            expected_ttft_seconds: decision.expected_ttft.as_secs_f64(),
            data_parallel_rank: member.data_parallel_rank,
            is_estimated: known.is_estimated(),
        }))
    }

    async fn explain(&self, request: tonic::Request<RouteRequest>) -> Result<Response<ExplainResponse>, Status> {
        let mut request = request.into_inner();
        let known = self.known(&mut request).await?;
        let allowed = self.allowed(&request)?;
        let explained = self.core.explain(&placed(&request, &known), &|instance| is_allowed(&allowed, instance));
        let explanation = explained.map_err(|error| status::of_route(&error))?;
        Ok(Response::new(weighed::answer(&self.core, &explanation, known.is_estimated())))
    }

    type WatchStream = watch::Changes;

    async fn watch(&self, _request: tonic::Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(watch::watch(Arc::clone(&self.core))?))
    }

    async fn first_token(
        &self,
        request: tonic::Request<FirstTokenRequest>,
    ) -> Result<Response<FirstTokenResponse>, Status> {
        self.learn(Fact::FirstToken { request: RequestId(request.into_inner().request_id) })?;
        Ok(Response::new(FirstTokenResponse {}))
    }

    async fn complete(&self, request: tonic::Request<CompleteRequest>) -> Result<Response<CompleteResponse>, Status> {
        let (_, extensions, report) = request.into_parts();
        let request = RequestId(report.request_id);
        let fact = match Outcome::try_from(report.outcome) {
            Ok(Outcome::Finished) => Fact::Finished { request, output_tokens: report.output_tokens },
            Ok(Outcome::Abandoned) => Fact::Abandoned { request },
            Ok(Outcome::Unspecified) | Err(_) => {
                return Err(Status::invalid_argument("outcome must be OUTCOME_FINISHED or OUTCOME_ABANDONED"));
            }
        };
        self.learn(fact)?;
        Entered::of(&extensions).spend(report.output_tokens);
        Ok(Response::new(CompleteResponse {}))
    }

    async fn instances(
        &self,
        _request: tonic::Request<InstancesRequest>,
    ) -> Result<Response<InstancesResponse>, Status> {
        let instances = self.core.instances().into_iter().map(|state| instance(&self.core, state)).collect();
        Ok(Response::new(InstancesResponse { instances }))
    }
}

fn placed<'a>(request: &'a RouteRequest, known: &'a KnownText) -> Request<'a> {
    let RouteRequest { model, lora, cache_salt, session_id, .. } = request;
    Request {
        namespace: Namespace { model, lora: lora.as_deref(), cache_salt: cache_salt.as_deref() },
        prompt: known.prompt(),
        session: session_id.as_deref().map(SessionKey::of),
    }
}

fn is_allowed(allowed: &Option<Vec<InstanceId>>, instance: InstanceId) -> bool {
    allowed.as_ref().is_none_or(|allowed| allowed.contains(&instance))
}

fn instance(core: &Core, state: routing::InstanceState) -> Instance {
    let member = core.member(state.instance);
    Instance {
        name: member.name.clone(),
        url: member.url.clone(),
        model: state.model.as_ref().to_owned(),
        availability: Availability::from(state.availability).into(),
        knowledge: Knowledge::from(state.knowledge).into(),
        load: Some(state.load.into()),
        cached_blocks: core.router().cached_blocks(state.instance) as u64,
    }
}

impl From<routing::Availability> for Availability {
    fn from(availability: routing::Availability) -> Self {
        match availability {
            routing::Availability::Ready => Availability::Ready,
            routing::Availability::Draining => Availability::Draining,
            routing::Availability::Down => Availability::Down,
        }
    }
}

impl From<routing::Knowledge> for Knowledge {
    fn from(knowledge: routing::Knowledge) -> Self {
        match knowledge {
            routing::Knowledge::Exact => Knowledge::Exact,
            routing::Knowledge::Degraded => Knowledge::Degraded,
            routing::Knowledge::Approximate => Knowledge::Approximate,
            routing::Knowledge::Blind => Knowledge::Blind,
        }
    }
}

impl From<routing::Load> for Load {
    fn from(load: routing::Load) -> Self {
        Load {
            prefill_requests: load.prefill_requests,
            prefill_tokens: load.prefill_tokens,
            prefill_wait_seconds: load.prefill_wait_seconds,
            decode_requests: load.decode_requests,
            decode_tokens: load.decode_tokens,
            busy_share: load.busy_share,
            assigned: load.assigned,
        }
    }
}
