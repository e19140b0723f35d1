//! The gRPC service: `Route` and the reports that follow it.

use super::status;
use crate::routing::block::Namespace;
use crate::routing::{self, Fact, Prompt, Request, RequestId, SessionKey};
use crate::serve::core::Core;
use crate::serve::proto::router_server::Router;
use crate::serve::proto::{
    Availability, CompleteRequest, CompleteResponse, FirstTokenRequest, FirstTokenResponse, Instance, InstancesRequest,
    InstancesResponse, Knowledge, Load, Outcome, RouteRequest, RouteResponse,
};
use std::sync::Arc;
use tonic::{Response, Status};

/// The largest request that is read: a prompt of three million tokens.
pub(in crate::serve) const REQUEST_BYTES_MAX: usize = 16 << 20;

/// `warmpath.v1.Router` over a core.
pub(in crate::serve) struct Service {
    core: Arc<Core>,
}

impl Service {
    pub fn new(core: Arc<Core>) -> Self {
        Service { core }
    }

    fn learn(&self, fact: Fact<'_>) -> Result<(), Status> {
        self.core.learn(fact).map_err(|error| status::of_learn(&error))
    }
}

#[tonic::async_trait]
impl Router for Service {
    async fn route(&self, request: tonic::Request<RouteRequest>) -> Result<Response<RouteResponse>, Status> {
        let RouteRequest { model, token_ids, lora, cache_salt, session_id } = request.into_inner();
        let namespace = Namespace { model: &model, lora: lora.as_deref(), cache_salt: cache_salt.as_deref() };
        let session = session_id.as_deref().map(SessionKey::of);
        let request = Request { namespace, prompt: Prompt::Tokens(&token_ids), session };
        let decision = self.core.route(&request).map_err(|error| status::of_route(&error))?;
        let member = self.core.member(decision.instance);
        Ok(Response::new(RouteResponse {
            request_id: decision.request.0,
            instance: member.name.clone(),
            url: member.url.clone(),
            prompt_tokens: decision.prompt_tokens,
            overlap_tokens: decision.overlap_tokens,
            best_overlap_tokens: decision.best_overlap_tokens,
            expected_ttft_seconds: decision.expected_ttft.as_secs_f64(),
        }))
    }

    async fn first_token(
        &self,
        request: tonic::Request<FirstTokenRequest>,
    ) -> Result<Response<FirstTokenResponse>, Status> {
        self.learn(Fact::FirstToken { request: RequestId(request.into_inner().request_id) })?;
        Ok(Response::new(FirstTokenResponse {}))
    }

    async fn complete(&self, request: tonic::Request<CompleteRequest>) -> Result<Response<CompleteResponse>, Status> {
        let report = request.into_inner();
        let request = RequestId(report.request_id);
        let fact = match Outcome::try_from(report.outcome) {
            Ok(Outcome::Finished) => Fact::Finished { request, output_tokens: report.output_tokens },
            Ok(Outcome::Abandoned) => Fact::Abandoned { request },
            Ok(Outcome::Unspecified) | Err(_) => {
                return Err(Status::invalid_argument("outcome must be OUTCOME_FINISHED or OUTCOME_ABANDONED"));
            }
        };
        self.learn(fact)?;
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

fn instance(core: &Core, state: routing::InstanceState) -> Instance {
    let member = core.member(state.instance);
    let load = state.load;
    Instance {
        name: member.name.clone(),
        url: member.url.clone(),
        model: state.model.as_ref().to_owned(),
        availability: match state.availability {
            routing::Availability::Ready => Availability::Ready,
            routing::Availability::Draining => Availability::Draining,
            routing::Availability::Down => Availability::Down,
        }
        .into(),
        knowledge: match state.knowledge {
            routing::Knowledge::Exact => Knowledge::Exact,
            routing::Knowledge::Degraded => Knowledge::Degraded,
            routing::Knowledge::Approximate => Knowledge::Approximate,
            routing::Knowledge::Blind => Knowledge::Blind,
        }
        .into(),
        load: Some(Load {
            prefill_requests: load.prefill_requests,
            prefill_tokens: load.prefill_tokens,
            prefill_wait_seconds: load.prefill_wait.as_secs_f64(),
            decode_requests: load.decode_requests,
            decode_tokens: load.decode_tokens,
            busy_share: load.busy_share,
            assigned: load.assigned,
        }),
        cached_blocks: core.router().cached_blocks(state.instance) as u64,
    }
}
