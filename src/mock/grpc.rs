//! vLLM's gRPC services, as far as a router and its tests need them: `vllm.grpc.engine.VllmEngine` of `vllm serve --grpc`, and
//! `vllm.Inference` of the Rust frontend. One socket speaks both, which no real server does.

use super::Settings;
use super::engine::{Command, Commands, Job, Token};
use super::openai::RequestError;
use super::prompt::{Sequence, text_of_tokens, tokens_of_text};
use super::proto::{engine, inference};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// vLLM's defaults where a request does not say how many tokens it wants: `SamplingParams`, and the Rust frontend's.
const MAX_TOKENS: u32 = 16;
const MAX_NEW_TOKENS: u32 = 20;
/// The largest message that is read.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

pub(super) fn routes(settings: Settings, commands: Commands) -> Routes {
    let service = Service { settings, commands };
    let engine = engine::vllm_engine_server::VllmEngineServer::new(service.clone());
    let inference = inference::inference_server::InferenceServer::new(service);
    Routes::new(engine.max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(inference.max_decoding_message_size(MESSAGE_BYTES_MAX))
}

#[derive(Clone)]
struct Service {
    settings: Settings,
    commands: Commands,
}

/// A request under way. Dropping it abandons the request.
struct Call {
    sequence: Sequence,
    tokens: mpsc::Receiver<Token>,
}

impl Service {
    async fn submit(&self, prompt: Vec<u32>, max_tokens: u32, salt: Option<String>) -> Result<Call, RequestError> {
        let Settings { max_model_len, block_size, model, .. } = &self.settings;
        super::http::check(prompt.len(), max_tokens, *max_model_len)?;
        let sequence = Sequence::new(prompt, max_tokens, salt, model, *block_size);
        let (sender, tokens) = mpsc::channel(max_tokens as usize);
        let job = Job { sequence: sequence.clone(), tokens: sender };
        self.commands.send(Command::Submit(job)).await.map_err(|_| RequestError::Engine)?;
        Ok(Call { sequence, tokens })
    }

    async fn infer(&self, request: inference::GenerateRequest) -> Result<Call, Status> {
        use inference::generate_request::Prompt;
        let served = &self.settings.model;
        if request.model != *served {
            return Err(RequestError::Model { model: request.model, served: served.clone() }.into());
        }
        let prompt = match request.prompt {
            Some(Prompt::TokenIds(tokens)) => tokens.ids,
            Some(Prompt::Text(text)) => tokens_of_text(&text),
            None => return Err(Status::invalid_argument("prompt is required")),
        };
        let wanted = request.stopping.map_or(0, |stopping| stopping.max_new_tokens);
        let salt = request.kv.map(|kv| kv.cache_salt).filter(|salt| !salt.is_empty());
        Ok(self.submit(prompt, if wanted == 0 { MAX_NEW_TOKENS } else { wanted }, salt).await?)
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        let message = error.to_string();
        match error {
            RequestError::Model { .. } => Status::not_found(message),
            RequestError::Engine => Status::internal(message),
            RequestError::Body(_)
            | RequestError::EmptyPrompt
            | RequestError::NoOutput
            | RequestError::PromptTooLong { .. }
            | RequestError::OutputTooLong { .. } => Status::invalid_argument(message),
        }
    }
}

impl Call {
    /// The token that was generated as the `generated`th.
    fn token(&self, generated: usize) -> &[u32] {
        &self.sequence.output()[generated - 1..generated]
    }

    /// Waits for the end: prompt tokens that came from the cache.
    async fn ended(&mut self) -> Result<u32, Status> {
        loop {
            match self.tokens.recv().await {
                Some(token) if token.last => return Ok(token.cached_tokens),
                Some(_) => {}
                None => return Err(RequestError::Engine.into()),
            }
        }
    }

    fn complete(&self, output: &[u32], cached_tokens: u32) -> engine::GenerateResponse {
        let complete = engine::GenerateComplete {
            output_ids: output.to_vec(),
            finish_reason: "length".to_owned(),
            prompt_tokens: self.sequence.prompt_tokens,
            completion_tokens: output.len() as u32,
            cached_tokens,
        };
        engine::GenerateResponse { response: Some(engine::generate_response::Response::Complete(complete)) }
    }

    /// A chunk a token; after the last one the end, which tells the last token again, as vLLM does.
    fn engine_messages(&self, generated: usize, token: Token) -> Vec<engine::GenerateResponse> {
        let chunk = engine::GenerateStreamChunk {
            token_ids: self.token(generated).to_vec(),
            prompt_tokens: self.sequence.prompt_tokens,
            completion_tokens: 1,
            cached_tokens: token.cached_tokens,
        };
        let chunk = engine::GenerateResponse { response: Some(engine::generate_response::Response::Chunk(chunk)) };
        let end = token.last.then(|| self.complete(self.token(generated), token.cached_tokens));
        std::iter::once(chunk).chain(end).collect()
    }

    fn outputs(&self, output: &[u32], generated: usize, last: bool) -> inference::SequenceOutput {
        inference::SequenceOutput {
            index: 0,
            text: text_of_tokens(output),
            num_tokens: output.len() as u32,
            token_ids: output.to_vec(),
            finish_info: last
                .then_some(inference::FinishInfo { num_output_tokens: generated as u32, finish_reason: LENGTH }),
        }
    }

    fn prompt_info(&self) -> inference::PromptInfo {
        inference::PromptInfo { num_prompt_tokens: self.sequence.prompt_tokens }
    }

    /// The prompt's length before the first token, and a message a token.
    fn inference_messages(&self, generated: usize, token: Token) -> Vec<inference::GenerateResponse> {
        let about_prompt = || inference::GenerateResponse { prompt_info: Some(self.prompt_info()), outputs: None };
        let outputs = Some(self.outputs(self.token(generated), generated, token.last));
        let about_token = inference::GenerateResponse { prompt_info: None, outputs };
        (generated == 1).then(about_prompt).into_iter().chain([about_token]).collect()
    }
}

/// `FinishInfo.FinishReason.LENGTH`
const LENGTH: u32 = 1;

/// The messages of a streamed answer.
struct Messages<M> {
    /// `None` once its last token, or its failure, was seen.
    call: Option<Call>,
    generated: usize,
    queued: VecDeque<Result<M, Status>>,
    of_token: fn(&Call, usize, Token) -> Vec<M>,
}

impl<M: Unpin> Stream for Messages<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(message) = self.queued.pop_front() {
                return Poll::Ready(Some(message));
            }
            let Some(call) = &mut self.call else {
                return Poll::Ready(None);
            };
            let token = ready!(call.tokens.poll_recv(context));
            self.generated += 1;
            let (generated, of_token) = (self.generated, self.of_token);
            match (token, &self.call) {
                (Some(token), Some(call)) => {
                    let messages = of_token(call, generated, token);
                    self.queued.extend(messages.into_iter().map(Ok));
                }
                _ => self.queued.push_back(Err(RequestError::Engine.into())),
            }
            if token.is_none_or(|token| token.last) {
                self.call = None;
            }
        }
    }
}

type Answers<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

fn stream<M: Unpin + Send + 'static>(call: Call, of_token: fn(&Call, usize, Token) -> Vec<M>) -> Answers<M> {
    Box::pin(Messages { call: Some(call), generated: 0, queued: VecDeque::new(), of_token })
}

#[tonic::async_trait]
impl engine::vllm_engine_server::VllmEngine for Service {
    type GenerateStream = Answers<engine::GenerateResponse>;

    async fn generate(
        &self,
        request: Request<engine::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        use engine::generate_request::Input;
        let request = request.into_inner();
        let prompt = match request.input {
            Some(Input::Tokenized(tokenized)) => tokenized.input_ids,
            Some(Input::Text(text)) => tokens_of_text(&text),
            None => Vec::new(),
        };
        let max_tokens = request.sampling_params.and_then(|params| params.max_tokens).unwrap_or(MAX_TOKENS);
        let mut call = self.submit(prompt, max_tokens, None).await?;
        if request.stream {
            return Ok(Response::new(stream(call, Call::engine_messages)));
        }
        let cached_tokens = call.ended().await?;
        let complete = call.complete(call.sequence.output(), cached_tokens);
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(complete)))))
    }

    async fn embed(&self, request: Request<engine::EmbedRequest>) -> Result<Response<engine::EmbedResponse>, Status> {
        let prompt = request.into_inner().tokenized.unwrap_or_default().input_ids;
        let mut call = self.submit(prompt, 1, None).await?;
        call.ended().await?;
        let prompt_tokens = call.sequence.prompt_tokens;
        Ok(Response::new(engine::EmbedResponse { embedding: vec![1.0], prompt_tokens, embedding_dim: 1 }))
    }

    async fn health_check(
        &self,
        _request: Request<engine::HealthCheckRequest>,
    ) -> Result<Response<engine::HealthCheckResponse>, Status> {
        Ok(Response::new(engine::HealthCheckResponse { healthy: true, message: "Health".to_owned() }))
    }

    async fn abort(&self, _request: Request<engine::AbortRequest>) -> Result<Response<engine::AbortResponse>, Status> {
        Ok(Response::new(engine::AbortResponse {}))
    }

    async fn get_model_info(
        &self,
        _request: Request<engine::GetModelInfoRequest>,
    ) -> Result<Response<engine::GetModelInfoResponse>, Status> {
        let Settings { model, max_model_len, .. } = &self.settings;
        Ok(Response::new(engine::GetModelInfoResponse {
            model_path: model.clone(),
            is_generation: true,
            max_context_length: *max_model_len,
            served_model_name: model.clone(),
        }))
    }

    async fn get_server_info(
        &self,
        _request: Request<engine::GetServerInfoRequest>,
    ) -> Result<Response<engine::GetServerInfoResponse>, Status> {
        Ok(Response::new(engine::GetServerInfoResponse {
            server_type: "vllm-grpc".to_owned(),
            data_parallel_size: 1,
            block_size: self.settings.block_size.tokens() as i32,
        }))
    }
}

#[tonic::async_trait]
impl inference::inference_server::Inference for Service {
    type GenerateStreamStream = Answers<inference::GenerateResponse>;

    async fn generate(
        &self,
        request: Request<inference::GenerateRequest>,
    ) -> Result<Response<inference::GenerateResponse>, Status> {
        let mut call = self.infer(request.into_inner()).await?;
        call.ended().await?;
        let output = call.sequence.output();
        let outputs = Some(call.outputs(output, output.len(), true));
        Ok(Response::new(inference::GenerateResponse { prompt_info: Some(call.prompt_info()), outputs }))
    }

    async fn generate_stream(
        &self,
        request: Request<inference::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStreamStream>, Status> {
        let call = self.infer(request.into_inner()).await?;
        Ok(Response::new(stream(call, Call::inference_messages)))
    }
}
