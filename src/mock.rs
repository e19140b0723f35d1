//! Stands in for vLLM: a [simulated instance](crate::sim::Instance) on the wall clock, behind real sockets.
//!
//! It answers `/v1/completions`, and vLLM's gRPC calls, in vLLM's shapes at the pace that the simulation says, keeps a prefix cache with vLLM's
//! rules, and publishes what it caches over ZeroMQ in vLLM's wire format. What it generates is a function of the prompt.
//! Its block hashes are its own, as a real engine's are: nobody may rely on their being the router's.
//!
//! Absent on purpose: tokenizers and chat templates (a text prompt is its bytes), adapters.

mod engine;
mod grpc;
mod http;
mod openai;
mod prompt;
mod publisher;
pub mod wire;

/// The wire types of `proto/vllm`, with clients and servers.
#[allow(missing_docs, reason = "generated; they are vLLM's")]
pub mod proto {
    /// `vllm.grpc.engine`, of `vllm serve --grpc`.
    pub mod engine {
        tonic::include_proto!("vllm.grpc.engine");
    }
    /// `vllm`, of the Rust frontend.
    pub mod inference {
        tonic::include_proto!("vllm");
    }
}

use crate::routing::block::BlockSize;
use crate::sim::{Eviction, InstanceConfig, Preset};
use engine::Engine;
use publisher::Publisher;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use zeromq::ZmqError;

/// What a mock is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct MockConfig {
    /// The address to listen on, for all sockets.
    pub host: IpAddr,
    /// HTTP; 0 takes a free port.
    pub port: u16,
    /// vLLM's gRPC services; 0 takes a free port. None when not given.
    pub grpc_port: Option<u16>,
    /// KV cache events; 0 takes a free port.
    pub kv_events_port: u16,
    /// Replay of the events that were published before; 0 takes a free port. No replay when not given.
    pub kv_replay_port: Option<u16>,
    /// The events' topic.
    pub topic: String,
    /// The served model's name.
    pub model: String,
    /// Step times and limits: a model on its hardware.
    pub preset: Preset,
    /// Tokens a block.
    pub block_size: BlockSize,
    /// Blocks of KV cache; what fits beside the preset's weights when not given.
    pub blocks: Option<u32>,
    /// Tokens in a prompt and its output together, at most; 32,768 or what the cache holds when not given.
    pub max_model_len: Option<u32>,
    /// How many times faster than the wall clock the engine runs.
    pub speed: f64,
}

impl Default for MockConfig {
    /// vLLM's ports and block size, on loopback.
    fn default() -> Self {
        MockConfig {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8000,
            grpc_port: None,
            kv_events_port: 5557,
            kv_replay_port: None,
            topic: String::new(),
            model: "mock".to_owned(),
            preset: Preset::default(),
            block_size: BlockSize::DEFAULT,
            blocks: None,
            max_model_len: None,
            speed: 1.0,
        }
    }
}

/// Why a mock could not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum MockError {
    /// The speed is not a positive number.
    #[error("speed {0} is not a positive number")]
    Speed(f64),
    /// There is no cache.
    #[error("an instance needs at least one block")]
    NoBlocks,
    /// The longest request would not fit in the cache.
    #[error("a model length of {max_model_len} tokens does not fit in {blocks} blocks of {block_size} tokens")]
    ModelLength {
        /// What was asked for; at least two tokens are needed.
        max_model_len: u32,
        /// Blocks in the cache.
        blocks: u32,
        /// Tokens a block.
        block_size: u32,
    },
    /// The HTTP address could not be listened on.
    #[error("cannot listen on {address} (port): {reason}; stop what uses it, or choose another port")]
    Http {
        /// The address.
        address: SocketAddr,
        /// Why not.
        reason: io::Error,
    },
    /// The events' address could not be listened on.
    #[error("cannot listen on {address} (kv-events-port): {reason}; stop what uses it, or choose another port")]
    KvEvents {
        /// The address.
        address: SocketAddr,
        /// Why not.
        reason: ZmqError,
    },
    /// The gRPC address could not be listened on.
    #[error("cannot listen on {address} (grpc-port): {reason}; stop what uses it, or choose another port")]
    Grpc {
        /// The address.
        address: SocketAddr,
        /// Why not.
        reason: io::Error,
    },
    /// The gRPC server failed.
    #[error("the gRPC server failed")]
    GrpcServer(#[source] tonic::transport::Error),
    /// The HTTP server failed.
    #[error("the HTTP server failed")]
    Server(#[source] io::Error),
}

/// What was derived from a config, and checked.
#[derive(Clone, Debug)]
struct Settings {
    model: String,
    block_size: BlockSize,
    blocks: u32,
    max_model_len: u32,
    kv_events: SocketAddr,
    kv_replay: Option<SocketAddr>,
    topic: String,
}

/// A mock with its sockets bound, not yet running.
pub struct Mock {
    settings: Settings,
    listener: TcpListener,
    http: SocketAddr,
    grpc: Option<Bound>,
    engine: Engine,
    publisher: Publisher,
    commands: engine::Commands,
}

struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

async fn listen(address: SocketAddr) -> io::Result<Bound> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok(Bound { listener, address })
}

impl Mock {
    /// Binds all sockets. Nothing is answered before [`run`](Self::run).
    pub async fn bind(config: MockConfig) -> Result<Mock, MockError> {
        let blocks = config.blocks.unwrap_or_else(|| config.block_size.full_blocks(config.preset.kv_tokens()));
        let max_model_len = check(&config, blocks)?;
        let address = SocketAddr::new(config.host, config.port);
        let http = listen(address).await.map_err(|reason| MockError::Http { address, reason })?;
        let grpc = match config.grpc_port.map(|port| SocketAddr::new(config.host, port)) {
            Some(address) => Some(listen(address).await.map_err(|reason| MockError::Grpc { address, reason })?),
            None => None,
        };
        let (publisher, batches) = Publisher::bind(config.host, config.kv_events_port, config.kv_replay_port).await?;
        let instance = InstanceConfig {
            block_size: config.block_size,
            blocks,
            sequences_max: config.preset.sequences_max(),
            model: config.preset.step_model(),
            eviction: Eviction::default(),
        };
        let (engine, commands) = Engine::new(instance, config.speed, config.topic.clone(), batches);
        let settings = Settings {
            model: config.model,
            block_size: config.block_size,
            blocks,
            max_model_len,
            kv_events: publisher.address(),
            kv_replay: publisher.replay_address(),
            topic: config.topic,
        };
        let Bound { listener, address: http } = http;
        Ok(Mock { settings, listener, http, grpc, engine, publisher, commands })
    }

    /// Where HTTP is answered.
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// Where gRPC is answered, if it is.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc.as_ref().map(|grpc| grpc.address)
    }

    /// Where cache events are published.
    pub fn kv_events_address(&self) -> SocketAddr {
        self.settings.kv_events
    }

    /// Where they are replayed, if they are.
    pub fn kv_replay_address(&self) -> Option<SocketAddr> {
        self.settings.kv_replay
    }

    /// How many subscriptions to the cache events have come so far: whoever waits for it to grow misses no event after.
    pub fn subscriptions(&self) -> watch::Receiver<u64> {
        self.publisher.subscriptions()
    }

    /// Serves until `shutdown`. Like vLLM, it then stops at once: requests under way fail.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), MockError> {
        let Mock { settings, listener, http, grpc, engine, publisher, commands } = self;
        let grpc_address = grpc.as_ref().map(|grpc| tracing::field::display(grpc.address));
        tracing::info!(%http, grpc = grpc_address, kv_events = %settings.kv_events, model = settings.model, "standing in for vLLM");
        let stop = CancellationToken::new();
        let grpc = async {
            let Some(Bound { listener, .. }) = grpc else {
                return Ok(());
            };
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let routes = grpc::routes(settings.clone(), commands.clone());
            let server = Server::builder()
                .add_routes(routes)
                .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
            tokio::select! {
                served = server => served.map_err(MockError::GrpcServer),
                () = drained(&stop) => Ok(()),
            }
        };
        let server = axum::serve(listener, http::routes(settings.clone(), commands.clone()))
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        let until_shutdown = async {
            shutdown.await;
            stop.cancel();
        };
        let server = async {
            let served = tokio::select! {
                served = server => served,
                () = drained(&stop) => Ok(()),
            };
            stop.cancel();
            served.map_err(MockError::Server)
        };
        // The engine goes first, which ends every response under way, and so lets the server end.
        let engine = stop.run_until_cancelled(engine.run());
        let publisher = publisher.run(stop.clone());
        let (served, grpc, _, (), ()) = tokio::join!(server, grpc, engine, publisher, async {
            stop.run_until_cancelled(until_shutdown).await;
        });
        served.and(grpc)
    }
}

/// Long enough after `stop` for every response to have failed, unless its client does not read.
async fn drained(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
}

/// The model length, once everything that can be wrong is known not to be.
fn check(config: &MockConfig, blocks: u32) -> Result<u32, MockError> {
    /// vLLM takes it from the model; this is that of Qwen3 without rope scaling.
    const MODEL_LENGTH: u32 = 32_768;
    if !(config.speed.is_finite() && config.speed > 0.0) {
        return Err(MockError::Speed(config.speed));
    }
    if blocks == 0 {
        return Err(MockError::NoBlocks);
    }
    let block_size = config.block_size.tokens();
    let pool_tokens = blocks.saturating_mul(block_size);
    let max_model_len = config.max_model_len.unwrap_or(MODEL_LENGTH.min(pool_tokens));
    if max_model_len < 2 || max_model_len > pool_tokens {
        return Err(MockError::ModelLength { max_model_len, blocks, block_size });
    }
    Ok(max_model_len)
}
