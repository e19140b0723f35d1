//! The OpenAI API as clients know it, forwarded to the fleet.
//!
//! A request's body is read whole, looked at through a borrowed [`view`] for what routing needs (model, prompt token ids,
//! salt), and sent on as the very bytes that came. What is not understood here is forwarded all the same: the instance knows
//! best what to answer. Paths that are not known pass through to an instance.
//!
//! A prompt that is a text is made tokens by the model's tokenizer, where one is configured. Where none is, or the prompt is
//! more than text, its bytes tell which prompts begin alike: prompts that do go to the same instance, and nothing is said of
//! overlaps. Of a batch the longest prompt is looked up.
//!
//! Absent on purpose: validation, rewriting. Who may come in is for the guard before it.

pub(in crate::serve) mod api;
mod error;
mod models;
mod place;
pub(in crate::serve) mod responses;
pub(in crate::serve) mod view;

use super::guard::Entered;
use super::listener::is_late;
use crate::config::Protocol;
use crate::routing::SessionKey;
use crate::serve::admission;
use crate::serve::core::Core;
use crate::serve::telemetry::labels::{Answer, ByLoad, Guess, Listener};
use crate::serve::tokenizer::{Tokenizers, Untokenized};
use crate::serve::upstream::{Forward, Upstream};
use api::Api;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Method, header};
use axum::response::{IntoResponse, Response};
use error::Error;
pub(in crate::serve::ingress) use error::answer as error_answer;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use models::Models;
use place::{ByView, Known};
use std::sync::Arc;
use view::{Prompted, View};

/// vLLM's own name for it.
const SESSION: HeaderName = HeaderName::from_static("x-session-id");

/// What every request needs.
struct Server {
    core: Arc<Core>,
    upstream: Arc<Upstream>,
    models: Models,
    tokenizers: Arc<Tokenizers>,
}

/// Every path and method, forwarded.
pub(in crate::serve) fn routes(core: Arc<Core>, upstream: Arc<Upstream>, tokenizers: Arc<Tokenizers>) -> Router {
    let models = Models::new(Arc::clone(&core), Arc::clone(&upstream));
    Router::new().fallback(serve).with_state(Arc::new(Server { core, upstream, models, tokenizers }))
}

async fn serve(State(server): State<Arc<Server>>, request: axum::extract::Request) -> Response {
    let (answer, response) = match server.answer(request).await {
        Ok((answer, response)) => (answer, response),
        Err(error) => {
            if let Some(why) = error.refusal() {
                server.core.metrics().refused(Listener::Http, why);
            }
            (error.answer(), error.into_response())
        }
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
            return Ok((Answer::Models, self.models.union(&head).await));
        }
        let body = self.read(&head.headers, body).await?;
        let view = if head.method == Method::POST { View::of(&body, api) } else { None };
        let view = view.as_ref();
        let model = view.and_then(|view| view.model.as_deref()).filter(|model| !model.is_empty());
        let served = self.models.served(model, &head).await;
        let known = self.known(api, view, served.model.as_deref(), &body).await;
        let entered = Entered::of(&head.extensions);
        if let Some(tokens) = known.tokens() {
            entered.takes(tokens).map_err(|tokens_max| Error::PromptTooLong { tokens, tokens_max })?;
            entered.spend(tokens);
        }
        let made_before = view.and_then(|view| view.previous_response.as_deref());
        let about = made_before.or_else(|| responses::id_in(head.uri.path()));
        let place = ByView {
            priority: admission::priority(&head.headers, view.and_then(|view| view.priority), &head.extensions)?,
            caller: admission::caller(&head.extensions),
            core: &self.core,
            served,
            cache_salt: view.and_then(|view| view.cache_salt.as_deref()).filter(|salt| !salt.is_empty()),
            session: session(&head.headers, view),
            known,
            home: about.and_then(|id| self.upstream.makers().maker(id)),
        };
        let forward = Forward { head: &head, body: body.clone(), protocol: Protocol::OpenAi, deadline: None };
        let response = self.upstream.forward(&forward, &place).await?;
        let answer = if response.status().as_u16() < 400 { Answer::Forwarded } else { Answer::Refused };
        Ok((answer, response))
    }

    async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, Error> {
        let bytes_max = self.core.http().body_bytes_max;
        let too_long = || Error::BodyTooLong { bytes_max };
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length: usize| length > bytes_max) {
            return Err(too_long());
        }
        match Limited::new(body, bytes_max).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(too_long()),
            Err(error) if is_late(&*error) => Err(Error::BodyLate),
            Err(_) => Err(Error::BodyBroken),
        }
    }

    /// What is known of a prompt, and what of that is guessed.
    async fn known(&self, api: Api, view: Option<&View<'_>>, model: Option<&str>, body: &Bytes) -> Known {
        let block_size = self.core.router().block_size();
        let is_passed = view.is_none() && api == Api::Other;
        if !api.computes() || is_passed {
            return Known::Nothing;
        }
        let (known, mut guess) = Known::of(view, block_size, body.len());
        let Some((View { prompt: Prompted::Text(said), .. }, model)) = view.zip(model) else {
            self.count(&known, guess);
            return known;
        };
        let known = match self.tokenizers.tokens(model, api, body).await {
            Ok(tokens) if !tokens.is_empty() => {
                let tokenized = Known::tokenized(tokens, said, block_size);
                guess = tokenized.1;
                tokenized.0
            }
            Err(Untokenized::Late) => Known::of_bytes(body.len(), ByLoad::Late),
            untokenized => {
                guess = Some(match untokenized {
                    Err(Untokenized::NoTokenizer) => Guess::NoTokenizer,
                    Err(Untokenized::MoreThanText) => Guess::Content,
                    Ok(_) | Err(Untokenized::Unsupported | Untokenized::Late) => Guess::Unsupported,
                });
                known
            }
        };
        self.count(&known, guess);
        known
    }

    fn count(&self, known: &Known, guess: Option<Guess>) {
        let metrics = self.core.metrics();
        if let Known::Length { why, .. } = known {
            metrics.by_load.of(*why).increment(1);
        }
        if let Some(guess) = guess {
            metrics.guesses.of(guess).increment(1);
        }
    }
}

/// The conversation that a request belongs to, where it says so.
fn session(headers: &HeaderMap, view: Option<&View<'_>>) -> Option<SessionKey> {
    let header = headers.get(SESSION).and_then(|value| value.to_str().ok());
    let name = header.or_else(|| view?.session.as_deref()).filter(|name| !name.is_empty());
    name.map(SessionKey::of)
}
