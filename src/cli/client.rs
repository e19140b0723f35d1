//! What a client of the routing service does: ask where, send there, say how it went.

use super::events::Events;
use super::reach::{Http, Reach, Routers};
use crate::serve::proto::router_client::RouterClient;
use crate::serve::proto::{CompleteRequest, ExplainResponse, FirstTokenRequest, Outcome, RouteRequest, RouteResponse};
use anyhow::{Context, Result, anyhow, bail, ensure};
use http_body_util::Full;
use hyper::body::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A client with connections to the router and to the instances.
#[derive(Clone)]
pub(super) struct Client {
    router: RouterClient<Routers>,
    http: Http,
}

/// A request that was answered.
pub(super) struct Answer {
    /// What the router said.
    pub routed: RouteResponse,
    /// When its first token came.
    pub first_token: Instant,
    /// Prompt tokens that it took from its cache, by its own word.
    pub cached_tokens: u32,
}

#[derive(Serialize)]
struct CompletionRequest<'a> {
    model: &'a str,
    prompt: Prompt<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_salt: Option<&'a str>,
    max_tokens: u32,
    ignore_eos: bool,
    stream: bool,
    stream_options: StreamOptions,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Prompt<'a> {
    Tokens(&'a [u32]),
    Text(&'a str),
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Deserialize)]
struct Chunk {
    choices: Vec<IgnoredAny>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens_details: PromptTokensDetails,
}

#[derive(Deserialize)]
struct PromptTokensDetails {
    cached_tokens: u32,
}

impl Client {
    /// Connects to a router at `http://host:port` or `https://host:port`; to instances when they are needed.
    pub async fn connect(url: &str, reach: &Reach) -> Result<Client> {
        let router = RouterClient::new(reach.grpc(url).await?);
        Ok(Client { router, http: reach.http_to_instances()? })
    }

    /// Asks where a prompt should go. Its load is booked there until [`abandon`](Self::abandon)ed.
    pub async fn route(&mut self, request: RouteRequest) -> Result<RouteResponse> {
        Ok(self.router.route(request).await.map_err(refused)?.into_inner())
    }

    /// Asks why a prompt would go where it would go. Nothing is booked.
    pub async fn explain(&mut self, request: RouteRequest) -> Result<ExplainResponse> {
        Ok(self.router.explain(request).await.map_err(refused)?.into_inner())
    }

    /// Gives a booking back.
    pub async fn abandon(&mut self, routed: &RouteResponse) -> Result<()> {
        self.end(routed, Outcome::Abandoned, 0).await
    }

    /// Routes a prompt, sends it where it was routed, and reads the answer to its end.
    pub async fn complete(mut self, request: RouteRequest, output_tokens: u32) -> Result<Answer> {
        let body = serde_json::to_vec(&CompletionRequest {
            // An adapter is asked for as a model.
            model: request.lora.as_ref().unwrap_or(&request.model),
            prompt: match &request.text {
                Some(text) => Prompt::Text(text),
                None => Prompt::Tokens(&request.token_ids),
            },
            cache_salt: request.cache_salt.as_deref(),
            max_tokens: output_tokens,
            ignore_eos: true,
            stream: true,
            stream_options: StreamOptions { include_usage: true },
        })?;
        let routed = self.route(request).await?;
        let answered = self.stream(&routed, body.into()).await;
        if answered.is_ok() {
            self.end(&routed, Outcome::Finished, output_tokens).await?;
        } else {
            self.end(&routed, Outcome::Abandoned, 0).await?;
        }
        let failed = || format!("{} at {} failed a request", routed.instance, routed.url);
        let (first_token, cached_tokens) = answered.with_context(failed)?;
        Ok(Answer { routed, first_token, cached_tokens })
    }

    async fn end(&mut self, routed: &RouteResponse, outcome: Outcome, output_tokens: u32) -> Result<()> {
        let request_id = routed.request_id;
        let request = CompleteRequest { request_id, outcome: outcome.into(), output_tokens };
        self.router.complete(request).await.map_err(refused)?;
        Ok(())
    }

    async fn stream(&mut self, routed: &RouteResponse, body: Bytes) -> Result<(Instant, u32)> {
        let mut request = hyper::Request::post(format!("{}/v1/completions", routed.url));
        request = request.header("content-type", "application/json");
        if let Some(rank) = routed.data_parallel_rank {
            request = request.header("x-data-parallel-rank", rank);
        }
        let request = request.body(Full::new(body))?;
        let response = self.http.request(request).await?;
        ensure!(response.status().is_success(), "it answered {}", response.status());
        let mut events = Events::of(response.into_body());
        let (mut first_token, mut cached_tokens) = (None, None);
        while let Some(chunk) = events.next::<Chunk>().await? {
            if first_token.is_none() && !chunk.choices.is_empty() {
                first_token = Some(Instant::now());
                let request_id = routed.request_id;
                self.router.first_token(FirstTokenRequest { request_id }).await?;
            }
            cached_tokens = cached_tokens.or(chunk.usage.map(|usage| usage.prompt_tokens_details.cached_tokens));
        }
        match (first_token, cached_tokens) {
            (Some(first_token), Some(cached_tokens)) => Ok((first_token, cached_tokens)),
            _ => bail!("its answer ended early"),
        }
    }
}

/// What the router said, without the transport's wrapping.
pub(super) fn refused(status: tonic::Status) -> anyhow::Error {
    anyhow!("the router refused: {} ({:?})", status.message(), status.code())
}
