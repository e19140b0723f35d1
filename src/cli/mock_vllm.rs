//! `warmpath mock-vllm`.

use super::shutdown;
use crate::mock::{Mock, MockConfig};
use crate::routing::block::BlockSize;
use crate::serve::logs;
use crate::sim::Preset;
use anyhow::{Context, Result};
use std::net::IpAddr;

/// Stand in for one vLLM instance, without a GPU.
///
/// A simulated engine with continuous batching, chunked prefill and vLLM's
/// prefix cache answers /v1/completions (with --grpc-port also vLLM's gRPC
/// calls VllmEngine/Generate and Inference/GenerateStream) at a real engine's
/// pace (or --speed times faster) and publishes its cache events over ZeroMQ as
/// vLLM 0.32 does.
/// What it generates means nothing, and is always the same for the same prompt.
/// A text prompt is one token a byte.
///
/// Example:
///
///   warmpath mock-vllm --port 8000 --kv-events-port 5557 --model m
///   curl http://127.0.0.1:8000/v1/completions --json \
///     '{"model": "m", "prompt": "It was the best of times", "max_tokens": 8}'
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct MockVllm {
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// The HTTP port; 0 takes a free one and logs it.
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// The port of vLLM's gRPC services (VllmEngine and Inference); 0 takes a free one. None when not given.
    #[arg(long)]
    grpc_port: Option<u16>,
    /// The port to publish cache events on; 0 takes a free one and logs it.
    #[arg(long, default_value_t = 5557)]
    kv_events_port: u16,
    /// The port to replay cache events on; 0 takes a free one. No replay when not given.
    #[arg(long)]
    kv_replay_port: Option<u16>,
    /// The events' ZeroMQ topic.
    #[arg(long, default_value = "")]
    topic: String,
    /// The served model's name.
    #[arg(long, default_value = "mock")]
    model: String,
    /// The model and hardware whose pace it keeps: qwen3-32b-h100-tp2, llama3-8b-a100 or llama3-8b-h100.
    #[arg(long, default_value_t)]
    preset: Preset,
    /// Tokens a cache block.
    #[arg(long, default_value_t = BlockSize::DEFAULT.tokens())]
    block_size: u32,
    /// Blocks of cache; what fits beside the preset's weights when not given.
    #[arg(long)]
    blocks: Option<u32>,
    /// Tokens in a prompt and its output together; 32768, or what the cache holds, when not given.
    #[arg(long)]
    max_model_len: Option<u32>,
    /// How many times faster than real time the engine runs.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
}

impl MockVllm {
    pub fn run(self) -> Result<()> {
        logs::start(crate::config::LogFormat::Text)?;
        let config = MockConfig {
            host: self.host,
            port: self.port,
            grpc_port: self.grpc_port,
            kv_events_port: self.kv_events_port,
            kv_replay_port: self.kv_replay_port,
            topic: self.topic,
            model: self.model,
            preset: self.preset,
            block_size: BlockSize::new(self.block_size)?,
            blocks: self.blocks,
            max_model_len: self.max_model_len,
            speed: self.speed,
        };
        let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
        runtime.block_on(async {
            let shutdown = shutdown::requested()?;
            Ok(Mock::bind(config).await?.run(shutdown).await?)
        })
    }
}
