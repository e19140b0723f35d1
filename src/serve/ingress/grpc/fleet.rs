//! The gRPC service that changes the fleet.
//!
//! Whoever may register an instance is sent prompts, so only callers on this machine are answered, and only by gRPC's content
//! type over HTTP/2: no web page can send that to a port that it picks without asking first, which is not answered.

use crate::config::{Invalid, Named};
use crate::routing::{InstanceId, LearnError};
use crate::serve::core::{Core, RegisterError};
use crate::serve::fleet::{Fleet, Origin};
use crate::serve::ingress::guard::is_grpc;
use crate::serve::members::JoinError;
use crate::serve::proto::fleet_server::{Fleet as FleetService, FleetServer};
use crate::serve::proto::{
    DeregisterRequest, DeregisterResponse, DrainRequest, DrainResponse, RegisterInstanceRequest,
    RegisterInstanceResponse,
};
use axum::extract::{ConnectInfo, Request};
use axum::http::Version;
use axum::middleware::{self, Next};
use axum::response::Response as HttpResponse;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Response, Status};

/// How long a leaving instance's requests may take where nobody says.
const WAIT: u32 = 60;
const WAIT_MAX: u32 = 3600;

/// The largest request that is read.
const REQUEST_BYTES_MAX: usize = 64 << 10;

struct Service {
    core: Arc<Core>,
    fleet: Arc<Fleet>,
}

/// `warmpath.v1.Fleet`, for callers on this machine.
pub(in crate::serve) fn routes(core: Arc<Core>, fleet: Arc<Fleet>) -> axum::Router {
    let service = FleetServer::new(Service { core, fleet }).max_decoding_message_size(REQUEST_BYTES_MAX);
    let routes = axum::Router::new().route_service("/warmpath.v1.Fleet/{method}", service);
    routes.route_layer(middleware::from_fn(from_here))
}

async fn from_here(ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request, next: Next) -> HttpResponse {
    let is_grpc = request.version() == Version::HTTP_2 && is_grpc(request.headers());
    if !peer.ip().to_canonical().is_loopback() || !is_grpc {
        let what = "the fleet is changed from the router's own machine only: call 127.0.0.1 there";
        return Status::permission_denied(what).into_http();
    }
    next.run(request).await
}

impl Service {
    fn called(&self, name: &str) -> Result<Vec<InstanceId>, Status> {
        let called = self.fleet.called(name);
        if called.is_empty() {
            return Err(Status::not_found(format!(
                "no instance of the fleet is called {name:?}, or it leaves already"
            )));
        }
        Ok(called)
    }
}

#[tonic::async_trait]
impl FleetService for Service {
    async fn register_instance(
        &self,
        request: tonic::Request<RegisterInstanceRequest>,
    ) -> Result<Response<RegisterInstanceResponse>, Status> {
        let request = request.into_inner();
        let named = Named {
            name: request.name,
            url: request.url,
            model: request.model,
            inference_url: request.inference_url,
            data_parallel_ranks: request.data_parallel_ranks,
            kv_events_endpoint: request.kv_events_endpoint,
            kv_events_replay_endpoint: request.kv_events_replay_endpoint,
            kv_events_topic: request.kv_events_topic,
        };
        let instances = named.check().map_err(|invalid| of_invalid(&invalid))?;
        let mut joined = Vec::with_capacity(instances.len());
        for instance in &instances {
            match self.fleet.join(instance, Origin::Api) {
                Ok(id) => joined.push(id),
                Err(error) => {
                    // All ranks or none.
                    for id in joined {
                        self.fleet.leave(id, Duration::ZERO).await;
                    }
                    return Err(of_register(&error));
                }
            }
        }
        let instances = instances.into_iter().map(|instance| instance.name).collect();
        Ok(Response::new(RegisterInstanceResponse { instances }))
    }

    async fn drain(&self, request: tonic::Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        let DrainRequest { instance, resume } = request.into_inner();
        let mut in_flight = 0u32;
        for id in self.called(&instance)? {
            let _ = if resume { self.fleet.resume(id) } else { self.fleet.drain(id) };
            in_flight += self.core.router().requests_at(id);
        }
        Ok(Response::new(DrainResponse { in_flight }))
    }

    async fn deregister(
        &self,
        request: tonic::Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterResponse>, Status> {
        let DeregisterRequest { instance, wait_seconds_max } = request.into_inner();
        let limit = Duration::from_secs(wait_seconds_max.unwrap_or(WAIT).min(WAIT_MAX).into());
        let called = self.called(&instance)?;
        called.iter().for_each(|&id| _ = self.fleet.drain(id));
        let mut unfinished = 0;
        for leaving in called.into_iter().map(|id| self.fleet.leave(id, limit)).collect::<Vec<_>>() {
            unfinished += leaving.await.unwrap_or(0);
        }
        Ok(Response::new(DeregisterResponse { unfinished }))
    }
}

fn of_invalid(invalid: &Invalid) -> Status {
    let problems: Vec<String> = invalid.problems.iter().map(ToString::to_string).collect();
    Status::invalid_argument(problems.join("; "))
}

fn of_register(error: &RegisterError) -> Status {
    match error {
        RegisterError::Join(JoinError::Full) => Status::resource_exhausted(error.to_string()),
        RegisterError::Join(
            JoinError::NameTaken { .. }
            | JoinError::UrlTaken { .. }
            | JoinError::ListenTaken { .. }
            | JoinError::Leaving { .. },
        ) => Status::already_exists(error.to_string()),
        RegisterError::ApiKey(_) => Status::failed_precondition(error.to_string()),
        RegisterError::Learn(LearnError::Index(_)) => Status::resource_exhausted(error.to_string()),
        RegisterError::Learn(
            LearnError::AlreadyJoined { .. }
            | LearnError::OutOfRange { .. }
            | LearnError::UnknownInstance { .. }
            | LearnError::UnknownRequest { .. },
        ) => {
            tracing::error!(%error, "an instance with a place of its own was not taken in");
            Status::internal("internal error")
        }
    }
}
