//! One completion, streamed, with the times of its tokens.

use crate::cli::events::Events;
use crate::cli::reach::Http;
use anyhow::{Context, Result, bail, ensure};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use hyper::{Request, Response, header};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// An answer that came to its end.
pub(super) struct Completion {
    pub first_token: Instant,
    pub last_token: Instant,
    pub prompt_tokens: u32,
    pub output_tokens: u32,
    /// If it says.
    pub cached_tokens: Option<u32>,
    /// Which instance answered, if a router says.
    pub instance: Option<String>,
}

/// A body that asks for exactly `max_tokens` tokens.
#[derive(Serialize)]
pub(super) struct Body<'a> {
    model: &'a str,
    prompt: &'a [u32],
    max_tokens: u32,
    ignore_eos: bool,
    temperature: f32,
    stream: bool,
    stream_options: StreamOptions,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<IgnoredAny>,
    usage: Option<Usage>,
    error: Option<serde_json::Value>,
}

#[derive(Clone, Copy, Deserialize)]
struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    prompt_tokens_details: Option<Details>,
}

#[derive(Clone, Copy, Deserialize)]
struct Details {
    cached_tokens: Option<u32>,
}

impl<'a> Body<'a> {
    pub fn new(model: &'a str, prompt: &'a [u32], max_tokens: u32) -> Self {
        let stream_options = StreamOptions { include_usage: true };
        Body { model, prompt, max_tokens, ignore_eos: true, temperature: 0.0, stream: true, stream_options }
    }
}

/// Sends a body and reads its answer to the end.
pub(super) async fn complete(http: &Http, url: &str, key: Option<HeaderValue>, body: Bytes) -> Result<Completion> {
    let mut request = Request::post(url).header(header::CONTENT_TYPE, "application/json").body(Full::new(body))?;
    if let Some(key) = key {
        request.headers_mut().insert(header::AUTHORIZATION, key);
    }
    let response = http.request(request).await.context("it cannot be reached")?;
    ensure!(response.status().is_success(), "it answered {}", response.status());
    let instance = instance(&response);
    let mut events = Events::of(response.into_body());
    let (mut first, mut last, mut usage) = (None, None, None::<Usage>);
    while let Some(chunk) = events.next::<Chunk>().await? {
        if let Some(error) = chunk.error {
            bail!("its answer broke off: {error}");
        }
        if !chunk.choices.is_empty() {
            let now = Instant::now();
            first.get_or_insert(now);
            last = Some(now);
        }
        usage = chunk.usage.or(usage);
    }
    let (Some(first_token), Some(last_token)) = (first, last) else { bail!("its answer has no tokens") };
    let usage = usage.context("its answer does not tell its usage")?;
    Ok(Completion {
        first_token,
        last_token,
        prompt_tokens: usage.prompt_tokens,
        output_tokens: usage.completion_tokens,
        cached_tokens: usage.prompt_tokens_details.and_then(|details| details.cached_tokens),
        instance,
    })
}

fn instance<B>(response: &Response<B>) -> Option<String> {
    Some(response.headers().get("x-warmpath-instance")?.to_str().ok()?.to_owned())
}
