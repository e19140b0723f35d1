//! `POST /v1/completions`, at once or as a stream.

use super::Server;
use crate::mock::engine::{Command, Job, Token};
use crate::mock::openai::{Choice, Completion, CompletionRequest, ErrorBody, Prompt, PromptTokensDetails};
use crate::mock::openai::{RequestError, Usage};
use crate::mock::prompt::{Sequence, text_of_tokens, tokens_of_text};
use axum::body::Bytes;
use axum::extract::State;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio_stream::Stream;

/// vLLM's default for completions.
const MAX_TOKENS: u32 = 16;

/// A request under way.
struct Call {
    id: String,
    created: u64,
    model: String,
    sequence: Sequence,
    return_token_ids: bool,
    include_usage: bool,
    tokens: mpsc::Receiver<Token>,
}

pub(super) async fn complete(State(server): State<Arc<Server>>, body: Bytes) -> Result<Response, RequestError> {
    let request: CompletionRequest =
        serde_json::from_slice(&body).map_err(|error| RequestError::Body(format!("1 validation error: {error}")))?;
    let stream = request.stream;
    let call = server.begin(request).await?;
    if stream { Ok(Sse::new(Chunks::of(call)).into_response()) } else { call.whole().await }
}

impl Server {
    async fn begin(&self, request: CompletionRequest) -> Result<Call, RequestError> {
        let settings = &self.settings;
        if request.model != settings.model {
            return Err(RequestError::Model { model: request.model, served: settings.model.clone() });
        }
        let prompt = match request.prompt {
            Prompt::Tokens(tokens) => tokens,
            Prompt::Text(text) => tokens_of_text(&text),
        };
        let output_tokens = request.max_tokens.unwrap_or(MAX_TOKENS);
        check(prompt.len(), output_tokens, settings.max_model_len)?;
        let sequence = Sequence::new(prompt, output_tokens, request.cache_salt, &settings.model, settings.block_size);
        let (sender, tokens) = mpsc::channel(output_tokens as usize);
        let job = Job { sequence: sequence.clone(), tokens: sender };
        self.commands.send(Command::Submit(job)).await.map_err(|_| RequestError::Engine)?;
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        Ok(Call {
            id: format!("cmpl-{number:016x}"),
            created: unix_seconds(),
            model: settings.model.clone(),
            sequence,
            return_token_ids: request.return_token_ids,
            include_usage: request.stream_options.is_some_and(|options| options.include_usage),
            tokens,
        })
    }
}

/// Whether a request fits the model.
pub(in crate::mock) fn check(prompt_tokens: usize, output_tokens: u32, max_model_len: u32) -> Result<(), RequestError> {
    if prompt_tokens == 0 {
        return Err(RequestError::EmptyPrompt);
    }
    if output_tokens == 0 {
        return Err(RequestError::NoOutput);
    }
    if prompt_tokens >= max_model_len as usize {
        return Err(RequestError::PromptTooLong { max_model_len, prompt_tokens });
    }
    if prompt_tokens + output_tokens as usize > max_model_len as usize {
        return Err(RequestError::OutputTooLong { max_model_len, prompt_tokens, output_tokens });
    }
    Ok(())
}

impl Call {
    async fn whole(mut self) -> Result<Response, RequestError> {
        let last = loop {
            match self.tokens.recv().await {
                Some(token) if token.last => break token,
                Some(_) => {}
                None => return Err(RequestError::Engine),
            }
        };
        let output = self.sequence.output();
        let choice = self.choice(output, true, true);
        let usage = self.usage(output.len(), last.cached_tokens);
        Ok(axum::Json(self.answer(vec![choice], Some(usage))).into_response())
    }

    fn chunk(&self, generated: usize, last: bool) -> Event {
        let token = &self.sequence.output()[generated - 1..generated];
        event(&self.answer(vec![self.choice(token, generated == 1, last)], None))
    }

    fn usage_chunk(&self, generated: usize, cached_tokens: u32) -> Event {
        event(&self.answer(Vec::new(), Some(self.usage(generated, cached_tokens))))
    }

    fn answer<'a>(&'a self, choices: Vec<Choice<'a>>, usage: Option<Usage>) -> Completion<'a> {
        let Call { id, created, model, .. } = self;
        Completion { id, object: "text_completion", created: *created, model, choices, usage }
    }

    fn choice<'a>(&'a self, tokens: &'a [u32], first: bool, last: bool) -> Choice<'a> {
        let prompt = &self.sequence.tokens[..self.sequence.prompt_tokens as usize];
        Choice {
            index: 0,
            text: text_of_tokens(tokens),
            logprobs: None,
            finish_reason: last.then_some("length"),
            stop_reason: None,
            token_ids: self.return_token_ids.then_some(tokens),
            prompt_token_ids: (self.return_token_ids && first).then_some(prompt),
        }
    }

    fn usage(&self, generated: usize, cached_tokens: u32) -> Usage {
        let (prompt_tokens, completion_tokens) = (self.sequence.prompt_tokens, generated as u32);
        Usage {
            prompt_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            completion_tokens,
            prompt_tokens_details: PromptTokensDetails { cached_tokens },
        }
    }
}

/// One chunk a token, then the usage if it was asked for, then `[DONE]`. Dropping it abandons the request.
struct Chunks {
    /// `None` once its last token, or its failure, was seen.
    call: Option<Call>,
    generated: usize,
    queued: VecDeque<Event>,
}

impl Chunks {
    fn of(call: Call) -> Self {
        Chunks { call: Some(call), generated: 0, queued: VecDeque::new() }
    }

    fn queue(&mut self, call: &Call, token: Option<Token>) {
        let ended = match token {
            Some(token) => {
                self.generated += 1;
                self.queued.push_back(call.chunk(self.generated, token.last));
                if token.last && call.include_usage {
                    self.queued.push_back(call.usage_chunk(self.generated, token.cached_tokens));
                }
                token.last
            }
            None => {
                self.queued.push_back(event(&ErrorBody::from(&RequestError::Engine)));
                true
            }
        };
        if ended {
            self.queued.push_back(Event::default().data("[DONE]"));
        }
    }
}

impl Stream for Chunks {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.queued.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            let Some(mut call) = self.call.take() else {
                return Poll::Ready(None);
            };
            let polled = call.tokens.poll_recv(context);
            match polled {
                Poll::Pending => {
                    self.call = Some(call);
                    return Poll::Pending;
                }
                Poll::Ready(token) => {
                    self.queue(&call, token);
                    self.call = token.filter(|token| !token.last).map(|_| call);
                }
            }
        }
    }
}

fn event(data: &impl serde::Serialize) -> Event {
    Event::default().data(serde_json::to_string(data).expect("plain data can be written as JSON"))
}

pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
