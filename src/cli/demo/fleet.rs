//! Stand-ins for vLLM and a router in front, in this process but with nothing between them but sockets.

use crate::config::{Config, Instance, InstanceAccess, KvEvents, Watch};
use crate::mock::{Mock, MockConfig, MockError};
use crate::routing::policy::PolicyKind;
use crate::routing::{self, PrefillModel};
use crate::serve::{App, AppError};
use crate::sim::Preset;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The model that the stand-ins claim to serve.
pub(super) const MODEL: &str = "Qwen/Qwen3-32B";

/// A running fleet.
pub(super) struct Fleet {
    router: SocketAddr,
    instances: usize,
    stop: CancellationToken,
    mocks: Vec<JoinHandle<Result<(), MockError>>>,
    app: JoinHandle<Result<(), AppError>>,
}

/// Room for every prompt of the trace, several times.
const KV_TOKENS: u32 = 8_000_000;
/// Longer than any prompt and output of the trace.
const MODEL_TOKENS_MAX: u32 = 200_000;
const SUBSCRIBED_WITHIN: Duration = Duration::from_secs(10);

impl Fleet {
    /// Starts it, and waits until the router is subscribed to every stand-in's events.
    pub async fn start(
        instances: u16,
        policy: PolicyKind,
        preset: Preset,
        prefill: PrefillModel,
        speed: f64,
    ) -> Result<Fleet> {
        let stop = CancellationToken::new();
        let routing = routing::Config { policy, prefill, ..routing::Config::default() };
        let mut config = Config { routing, watch: Watch::default(), ..Config::own(Vec::new()) };
        let (mut mocks, mut subscriptions) = (Vec::new(), Vec::new());
        for number in 1..=instances {
            let mock = Mock::bind(MockConfig {
                port: 0,
                kv_events_port: 0,
                model: MODEL.to_owned(),
                preset,
                blocks: Some(routing.block_size.full_blocks(KV_TOKENS)),
                max_model_len: Some(MODEL_TOKENS_MAX),
                speed,
                ..MockConfig::default()
            });
            let mock = mock.await.context("cannot start a stand-in for vLLM")?;
            let endpoint = mock.kv_events_address().into();
            config.instances.push(Instance {
                name: format!("mock-{number}"),
                url: format!("http://{}", mock.http_address()),
                inference_url: None,
                data_parallel_rank: None,
                model: MODEL.to_owned(),
                kv_events: Some(KvEvents { endpoint, listens: false, replay: None, topic: String::new() }),
                access: InstanceAccess::default(),
            });
            subscriptions.push(mock.subscriptions());
            mocks.push(tokio::spawn(mock.run(stop.clone().cancelled_owned())));
        }
        let app = App::bind(config).await.context("cannot start the router")?;
        let router = app.grpc_address();
        let app = tokio::spawn(app.run(stop.clone().cancelled_owned()));
        for mut subscription in subscriptions {
            timeout(SUBSCRIBED_WITHIN, subscription.wait_for(|&count| count > 0))
                .await
                .context("the router did not subscribe to a stand-in's events in time")?
                .context("a stand-in for vLLM ended at once")?;
        }
        Ok(Fleet { router, instances: usize::from(instances), stop, mocks, app })
    }

    /// Where the router's gRPC service listens.
    pub fn router(&self) -> SocketAddr {
        self.router
    }

    /// How many stand-ins there are.
    pub fn instances(&self) -> usize {
        self.instances
    }

    /// Stops everything, and tells what did not end well.
    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.app.await.context("the router panicked")?.context("the router failed")?;
        for mock in self.mocks {
            mock.await.context("a stand-in for vLLM panicked")?.context("a stand-in for vLLM failed")?;
        }
        Ok(())
    }
}
