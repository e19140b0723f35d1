//! The OpenAI API as clients know it, forwarded to the fleet.
//!
//! A request's body is read whole, looked at through a borrowed [`view`] for what routing needs (model, prompt token ids,
//! salt), and sent on as the very bytes that came. What is not understood here is forwarded all the same: the instance knows
//! best what to answer. Paths that are not known pass through to an instance.
//!
//! A prompt that is a text is made tokens by the model's tokenizer, where one is configured.
//!
//! Absent on purpose: validation, rewriting, authentication, sticking to the instance that stored a response.

pub(in crate::serve) mod api;
mod error;
mod models;
pub(in crate::serve) mod view;

use crate::config::Protocol;
use crate::routing::block::Namespace;
use crate::routing::{Decision, InstanceId, Prompt, Request, RouteError};
use crate::serve::core::Core;
use crate::serve::telemetry::labels::{Answer, ByLoad};
use crate::serve::ticket::Ticket;
use crate::serve::tokenizer::{Tokenizers, Untokenized};
use crate::serve::upstream::{Forward, Place, Placed, Upstream};
use api::Api;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use error::Error;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use models::Models;
use std::sync::Arc;
use view::{Prompted, View};

/// What every request needs.
struct Server {
    core: Arc<Core>,
    upstream: Arc<Upstream>,
    models: Models,
    tokenizers: Arc<Tokenizers>,
    body_bytes_max: usize,
}

/// Every path and method, forwarded.
pub(in crate::serve) fn routes(
    core: Arc<Core>,
    upstream: Arc<Upstream>,
    tokenizers: Arc<Tokenizers>,
    body_bytes_max: usize,
) -> Router {
    let models = Models::new(Arc::clone(&core), Arc::clone(&upstream));
    Router::new().fallback(serve).with_state(Arc::new(Server { core, upstream, models, tokenizers, body_bytes_max }))
}

async fn serve(State(server): State<Arc<Server>>, request: axum::extract::Request) -> Response {
    let (answer, response) = match server.answer(request).await {
        Ok((answer, response)) => (answer, response),
        Err(error) => (error.answer(), error.into_response()),
    };
    server.core.metrics().answers.of(answer).increment(1);
    response
}

impl Server {
    async fn answer(&self, request: axum::extract::Request) -> Result<(Answer, Response), Error> {
        if self.core.is_draining() {
            return Err(Error::Draining);
        }
        let (head, body) = request.into_parts();
        let api = Api::of(&head.method, head.uri.path());
        if api == Api::Models {
            return Ok((Answer::Models, self.models.union(&head.headers).await));
        }
        let body = self.read(&head.headers, body).await?;
        let view = if head.method == Method::POST { View::of(&body, api) } else { None };
        let (mut place, mut by_load) = self.place(api, view.as_ref(), body.len());
        let tokens;
        if let (Some(ByLoad::Text), Some(model)) = (by_load, place.model) {
            match self.tokenizers.tokens(model, api, &body).await {
                Ok(some) if !some.is_empty() => {
                    tokens = some;
                    (place.prompt, by_load) = (Some(Prompt::Tokens(&tokens)), None);
                }
                Ok(_) | Err(Untokenized::Unsupported) => {}
                Err(Untokenized::Late) => by_load = Some(ByLoad::Late),
            }
        }
        if let Some(reason) = by_load {
            self.core.metrics().by_load.of(reason).increment(1);
        }
        let forward = Forward { head: &head, body: body.clone(), protocol: Protocol::OpenAi, deadline: None };
        let response = self.upstream.forward(&forward, &place).await?;
        let answer = if response.status().as_u16() < 400 { Answer::Forwarded } else { Answer::Refused };
        Ok((answer, response))
    }

    async fn read(&self, headers: &axum::http::HeaderMap, body: Body) -> Result<Bytes, Error> {
        let too_long = || Error::BodyTooLong { bytes_max: self.body_bytes_max };
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length: usize| length > self.body_bytes_max) {
            return Err(too_long());
        }
        match Limited::new(body, self.body_bytes_max).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(too_long()),
            Err(_) => Err(Error::BodyBroken),
        }
    }

    /// How a request is to be placed, and why by load alone if so.
    fn place<'a>(&'a self, api: Api, view: Option<&'a View<'a>>, body_bytes: usize) -> (ByView<'a>, Option<ByLoad>) {
        let model = view.and_then(|view| view.model.as_deref()).filter(|model| !model.is_empty());
        let model = model.or_else(|| self.core.only_model());
        let cache_salt = view.and_then(|view| view.cache_salt.as_deref()).filter(|salt| !salt.is_empty());
        let (prompt, by_load) = match view.map(|view| &view.prompt) {
            _ if !api.computes() => (None, None),
            None if api == Api::Other => (None, None),
            Some(Prompted::Tokens(tokens)) => (Some(Prompt::Tokens(tokens)), None),
            Some(Prompted::ByLoad(reason)) => (Some(of_bytes(body_bytes)), Some(*reason)),
            None => (Some(of_bytes(body_bytes)), Some(ByLoad::NoPrompt)),
        };
        (ByView { core: &self.core, model, cache_salt, prompt }, by_load)
    }
}

/// A prompt of which only the length is known, and that by a rule of thumb: four bytes a token.
fn of_bytes(bytes: usize) -> Prompt<'static> {
    Prompt::Blocks { contents: &[], tokens: u32::try_from(bytes / 4).unwrap_or(u32::MAX).max(1) }
}

/// Where a request may go, from what was seen in it.
struct ByView<'a> {
    core: &'a Arc<Core>,
    model: Option<&'a str>,
    cache_salt: Option<&'a str>,
    /// `None` for what costs an engine nothing, and is not booked.
    prompt: Option<Prompt<'a>>,
}

impl Place for ByView<'_> {
    fn place(&self, except: &[InstanceId]) -> Result<Placed, RouteError> {
        let (Some(model), Some(prompt)) = (self.model, self.prompt) else {
            let instance = self.core.least_loaded(self.model, except)?;
            return Ok(Placed { instance, decision: None, ticket: None });
        };
        let namespace = Namespace { model, lora: None, cache_salt: self.cache_salt };
        let decision: Decision = self.core.route_except(&Request { namespace, prompt, session: None }, except)?;
        let ticket = Ticket::new(Arc::clone(self.core), decision.request);
        // An estimate of the length is nobody's business.
        let looked_up = matches!(prompt, Prompt::Tokens(_));
        Ok(Placed { instance: decision.instance, decision: looked_up.then_some(decision), ticket: Some(ticket) })
    }
}
