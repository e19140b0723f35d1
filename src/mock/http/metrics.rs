//! `/metrics`, in vLLM's names.

use super::Server;
use crate::mock::engine::Report;
use crate::mock::openai::RequestError;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use std::fmt::Write;
use std::sync::Arc;

pub(super) async fn render(State(server): State<Arc<Server>>) -> Result<impl IntoResponse, RequestError> {
    let report = server.report().await?;
    let text = text(&server, &report);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=1.0.0; charset=utf-8")], text))
}

fn text(server: &Server, report: &Report) -> String {
    let settings = &server.settings;
    let labels = format!("engine=\"0\",model_name=\"{}\"", escape(&settings.model));
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, value: f64| {
        write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{{labels}}} {value:?}\n")
            .expect("a string takes everything");
    };
    let gauge = "gauge";
    let counter = "counter";
    let stats = &report.stats;
    let running = report.running as f64;
    family("vllm:num_requests_running", gauge, "Number of requests in model execution batches.", running);
    let waiting = report.waiting as f64;
    family("vllm:num_requests_waiting", gauge, "Number of requests waiting to be processed.", waiting);
    let usage = report.cache_usage;
    family("vllm:kv_cache_usage_perc", gauge, "KV-cache usage. 1 means 100 percent usage.", usage);
    let queried = stats.queried_tokens as f64;
    family("vllm:prefix_cache_queries_total", counter, "Prefix cache queries, in queried tokens.", queried);
    let hits = stats.hit_tokens as f64;
    family("vllm:prefix_cache_hits_total", counter, "Prefix cache hits, in cached tokens.", hits);
    let preemptions = stats.preemptions as f64;
    family("vllm:num_preemptions_total", counter, "Cumulative number of preemptions.", preemptions);
    let prompt = report.prompt_tokens as f64;
    family("vllm:prompt_tokens_total", counter, "Number of prefill tokens processed.", prompt);
    let generated = report.generated_tokens as f64;
    family("vllm:generation_tokens_total", counter, "Number of generation tokens processed.", generated);
    let (block_size, blocks) = (settings.block_size.tokens(), settings.blocks);
    let name = "vllm:cache_config_info";
    writeln!(
        text,
        "# HELP {name} Information of the LLMEngine CacheConfig\n# TYPE {name} gauge\n\
         {name}{{block_size=\"{block_size}\",enable_prefix_caching=\"True\",engine=\"0\",\
         kv_cache_size_tokens=\"{}\",num_gpu_blocks=\"{blocks}\"}} 1.0",
        u64::from(block_size) * u64::from(blocks)
    )
    .expect("a string takes everything");
    text
}

/// A label's value, as the text format wants it.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
