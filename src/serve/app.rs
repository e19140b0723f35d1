//! The only wiring: bind, say where, run, drain.

use super::admission::Admission;
use super::core::{Core, RegisterError};
use super::fleet::reconcile::{Reconciler, Wanted};
use super::fleet::{self, Fleet};
use super::ingress::listener::Door;
use super::ingress::{admin, grpc, http, observed, traced, vllm};
use super::journal;
use super::proto;
use super::proto::router_server::RouterServer;
use super::recorder::{RecorderError, Recording};
use super::reload::{self, Part, Reloader, Watched};
use super::security::{Secured, SecurityError};
use super::tasks::{TaskError, Tasks};
use super::telemetry::labels::Listener;
use super::tokenizer::{TokenizerError, Tokenizers};
use super::upstream::Upstream;
use crate::config::{Config, Instance, Protocol, Security};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// How long calls under way get to end once the app is told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// A router with its sockets bound, not yet running.
pub struct App {
    config: Config,
    core: Arc<Core>,
    tokenizers: Arc<Tokenizers>,
    secured: Secured,
    grpc: Bound,
    http: Bound,
    admin: Bound,
    watched: Option<Watched>,
}

struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// Why an app could not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// An address could not be listened on.
    #[error("cannot listen on {address} ({setting}): {reason}; stop what uses it, or set another address")]
    Bind {
        /// The setting that names it.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why not. Part of the line rather than a source: what to do comes last.
        reason: io::Error,
    },
    /// The configured fleet does not fit.
    #[error("the configured instances do not fit")]
    Fleet(#[from] RegisterError),
    /// A configured tokenizer cannot be loaded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Certificates or keys cannot be used.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// Requests are to be recorded, and cannot be.
    #[error(transparent)]
    Recorder(#[from] RecorderError),
    /// Requests are to be traced, and cannot be.
    #[error("requests cannot be traced to tracing.endpoint")]
    Tracing(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The protos that were compiled in cannot be served by reflection.
    #[error("the compiled protos cannot be reflected")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A task failed.
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl App {
    /// Binds the configured addresses and makes the router. Nothing is accepted before [`run`](Self::run).
    pub async fn bind(config: Config) -> Result<App, AppError> {
        let recording = Recording::start(config.recorder.as_ref(), config.routing.lease)?;
        let core = Arc::new(Core::new(&config, recording)?);
        if let Some(tracing) = &config.tracing {
            core.trace(tracing)?;
        }
        let waited = core.metrics().tokenize_seconds.clone();
        let tokenizers = Arc::new(Tokenizers::load(&config.tokenizers, config.http.tokenize_max, waited)?);
        let secured = Secured::load(&config, &core)?;
        let grpc = bind("server.listen", config.server.listen).await?;
        let http = bind("server.http_listen", config.server.http_listen).await?;
        let admin = bind("server.admin_listen", config.server.admin_listen).await?;
        Ok(App { config, core, tokenizers, secured, grpc, http, admin, watched: None })
    }

    /// Lets it read its configuration again, from where it came.
    pub fn watching(mut self, watched: Watched) -> App {
        self.watched = Some(watched);
        self
    }

    /// Where the gRPC service listens.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc.address
    }

    /// Where the OpenAI API listens.
    pub fn http_address(&self) -> SocketAddr {
        self.http.address
    }

    /// Where metrics, probes and inspection listen.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address
    }

    /// The router behind it: to look at, or to call without a socket.
    pub fn core(&self) -> Arc<Core> {
        Arc::clone(&self.core)
    }

    /// Serves until `shutdown`, then lets calls under way end. An error is a task that failed.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), AppError> {
        let App { config, core, tokenizers, mut secured, grpc, http, admin, watched } = self;
        tracing::info!(
            grpc = %grpc.address,
            http = %http.address,
            admin = %admin.address,
            instances = core.members().count(),
            policy = %config.routing.policy,
            block_size = config.routing.block_size.tokens(),
            "serving"
        );
        tell_of_tokenizers(&config);
        tell_of_open_admin(&config, admin.address);
        let mut tasks = Tasks::default();
        let stop = tasks.stop_signal();
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<RouterServer<grpc::Service>>().await;
        for service in vllm::services() {
            health.set_service_status(service, ServingStatus::Serving).await;
        }

        let upstream = Upstream::new(Arc::clone(&core), Arc::clone(&secured.upstream), Arc::clone(&secured.api_keys));
        let (fleet, starts) = Fleet::new(&config, &core, &upstream, &tokenizers, stop.clone());
        let forwarded = vllm::routes(vllm::Server {
            core: Arc::clone(&core),
            upstream: Arc::clone(&upstream),
            tokenizers: Arc::clone(&tokenizers),
        });
        let ours = grpc::routes(Arc::clone(&core), Arc::clone(&tokenizers));
        let about_us = Routes::new(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
        let guard = Arc::clone(&secured.guard);
        let door =
            |listener, tls, routes, http2_only| Door { listener, tls, guard: Arc::clone(&guard), routes, http2_only };
        let routes = guard.before(Listener::Grpc, grpc::deadline::layer(ours).merge(forwarded));
        let routes = traced::layer(routes, Arc::clone(&core));
        let about_us = guard.before(Listener::Grpc, grpc::deadline::layer(about_us.prepare().into_axum_router()));
        let routes = about_us.merge(routes);
        let grpc_door = door(Listener::Grpc, secured.grpc.take(), routes, true);
        tasks.spawn("grpc", grpc_door.serve(grpc.listener, stop.clone()));
        let routes = http::routes(Arc::clone(&core), Arc::clone(&upstream), Arc::clone(&tokenizers));
        let routes = observed::layer(guard.before(Listener::Http, routes), Arc::clone(&core));
        let routes = traced::layer(routes, Arc::clone(&core));
        let http_door = door(Listener::Http, secured.http.take(), routes, false);
        tasks.spawn("http", http_door.serve(http.listener, stop.clone()));
        let changes = grpc::deadline::layer(grpc::fleet::routes(Arc::clone(&core), Arc::clone(&fleet)));
        let routes = admin::routes(Arc::clone(&core)).merge(changes);
        let routes = guard.before(Listener::Admin, routes);
        let admin_door = door(Listener::Admin, secured.admin.take(), routes, false);
        tasks.spawn("admin", admin_door.serve(admin.listener, stop.clone()));
        let entry = secured.part();
        tasks.spawn("security", secured.keep(Arc::clone(&core), stop.clone()));
        tasks.spawn("timekeeper", keep_time(Arc::clone(&core), stop.clone()));
        tasks.spawn("queue", Admission::keep_looking(Arc::clone(&core), stop.clone()));
        tasks.spawn("journal", keep_journal(Arc::clone(&core), stop.clone()));
        tasks.spawn("fleet", fleet::keep(starts, stop.clone(), DRAIN_MAX));
        let wanted = Wanted { instances: config.instances.clone(), discovery: config.discovery.clone() };
        let (reconciler, wanted) = Reconciler::new(Arc::clone(&core), fleet, wanted);
        tasks.spawn("reconciler", reconciler.run(stop.clone()));
        if let Some(watched) = watched {
            let limits = reload::Limits { core: Arc::clone(&core), tokenizers };
            let fleet = reload::Fleet { wanted };
            let parts: Vec<Box<dyn Part>> = vec![Box::new(limits), Box::new(entry), Box::new(fleet)];
            let reloader = Reloader::new(Arc::clone(&core), watched, config, parts);
            tasks.spawn("reloader", reloader.run(stop.clone()));
        }

        let failed = tokio::select! {
            () = shutdown => None,
            error = tasks.first_end() => Some(error),
        };
        drain(&core, &health).await;
        let stopped = tasks.stop(DRAIN_MAX).await;
        if let Some(spans) = core.spans() {
            spans.finish().await;
        }
        let recorded = tokio::task::spawn_blocking(move || core.recording().finish()).await;
        recorded.expect("the recorder does not panic");
        if let Some(error) = failed {
            return Err(error.into());
        }
        match stopped {
            // Whoever holds a call open past the limit is cut off: that is what the limit is for.
            Err(late @ TaskError::StillRunning { .. }) => {
                tracing::warn!("{late}");
                Ok(())
            }
            stopped => Ok(stopped?),
        }
    }
}

/// vLLM hands out its tokenizer over gRPC at best, so one that is missing is for the operator to provide.
fn tell_of_tokenizers(config: &Config) {
    let without = |instance: &&Instance| {
        instance.address(Protocol::VllmEngine).is_none()
            && config.tokenizers.iter().all(|one| one.model != instance.model)
    };
    let models: BTreeSet<&str> =
        config.instances.iter().filter(without).map(|instance| instance.model.as_str()).collect();
    for model in models {
        tracing::info!(
            model,
            "no tokenizer: its texts and chats are placed by their bytes, and overlaps are not known; \
             configure [[tokenizers]] with the folder that holds its tokenizer.json"
        );
    }
}

/// What it shows is not for everyone, and nothing here keeps anyone from it.
fn tell_of_open_admin(config: &Config, address: SocketAddr) {
    let Security { tls, keys, .. } = &config.security;
    let asks = keys.operators.are_asked_for() || tls.admin.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if !asks && !address.ip().to_canonical().is_loopback() {
        tracing::warn!(
            %address,
            "the admin listener is open to other machines and asks nobody who they are; set keys.admin_file or \
             tls.admin.client_ca, unless a network policy or a firewall keeps others out"
        );
    }
}

async fn bind(setting: &'static str, address: SocketAddr) -> Result<Bound, AppError> {
    let failed = |reason| AppError::Bind { setting, address, reason };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Bound { listener, address })
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Tells the router that time passes, so that leases run out.
async fn keep_time(core: Arc<Core>, stop: CancellationToken) -> Result<(), Infallible> {
    // A lease is overrun by a tenth, or by a second, at most.
    // As it is at the start: a change makes the overrun no more than a second.
    let lease = core.router().config().lease;
    let mut ticks = tokio::time::interval((lease / 10).clamp(Duration::from_millis(10), Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while let Some(_tick) = stop.run_until_cancelled(ticks.tick()).await {
        core.time_passed();
    }
    Ok(())
}

/// Ends a step of the journal's history again and again.
async fn keep_journal(core: Arc<Core>, stop: CancellationToken) -> Result<(), Infallible> {
    let mut ticks = tokio::time::interval(journal::STEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while let Some(_tick) = stop.run_until_cancelled(ticks.tick()).await {
        core.step();
    }
    Ok(())
}

async fn drain(core: &Core, health: &HealthReporter) {
    tracing::info!(in_flight = core.router().in_flight(), "draining");
    core.drain();
    health.set_not_serving::<RouterServer<grpc::Service>>().await;
    for service in vllm::services().chain([""]) {
        health.set_service_status(service, ServingStatus::NotServing).await;
    }
}
