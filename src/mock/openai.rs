//! Requests and answers in vLLM's shapes, as captured from 0.32.0.

use serde::{Deserialize, Serialize};

/// A body of `POST /v1/completions`. Fields that change nothing here (temperature, `ignore_eos`) are passed over.
#[derive(Debug, Deserialize)]
pub(super) struct CompletionRequest {
    pub model: String,
    pub prompt: Prompt,
    pub max_tokens: Option<u32>,
    #[serde(default)]
    pub stream: bool,
    pub stream_options: Option<StreamOptions>,
    pub cache_salt: Option<String>,
    #[serde(default)]
    pub return_token_ids: bool,
}

/// Token ids, or a text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Prompt {
    Tokens(Vec<u32>),
    Text(String),
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamOptions {
    #[serde(default)]
    pub include_usage: bool,
}

/// An answer, or a chunk of one.
#[derive(Debug, Serialize)]
pub(super) struct Completion<'a> {
    pub id: &'a str,
    pub object: &'static str,
    pub created: u64,
    pub model: &'a str,
    pub choices: Vec<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

#[derive(Debug, Serialize)]
pub(super) struct Choice<'a> {
    pub index: u32,
    pub text: String,
    pub logprobs: Option<()>,
    pub finish_reason: Option<&'static str>,
    pub stop_reason: Option<()>,
    pub token_ids: Option<&'a [u32]>,
    pub prompt_token_ids: Option<&'a [u32]>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Usage {
    pub prompt_tokens: u32,
    pub total_tokens: u32,
    pub completion_tokens: u32,
    pub prompt_tokens_details: PromptTokensDetails,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct PromptTokensDetails {
    pub cached_tokens: u32,
}

/// The body of every error.
#[derive(Debug, Serialize)]
pub(super) struct ErrorBody {
    pub error: ErrorInfo,
}

#[derive(Debug, Serialize)]
pub(super) struct ErrorInfo {
    pub message: String,
    pub r#type: &'static str,
    pub param: Option<&'static str>,
    pub code: u16,
}

/// What can be wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestError {
    #[error("{0}")]
    Body(String),
    #[error("The model `{model}` does not exist. Valid aliases: {served}.")]
    Model { model: String, served: String },
    #[error("the prompt is empty")]
    EmptyPrompt,
    #[error("max_tokens must be at least 1, got 0.")]
    NoOutput,
    #[error(
        "This model's maximum context length is {max_model_len} tokens. However, your prompt contains {prompt_tokens} \
         input tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input \
         prompt. (parameter=input_tokens, value={prompt_tokens})"
    )]
    PromptTooLong { max_model_len: u32, prompt_tokens: usize },
    #[error(
        "This model's maximum context length is {max_model_len} tokens. However, you requested {output_tokens} output \
         tokens and your prompt contains {prompt_tokens} input tokens. Please reduce the length of the input prompt or \
         the number of requested output tokens."
    )]
    OutputTooLong { max_model_len: u32, prompt_tokens: usize, output_tokens: u32 },
    #[error("the engine is gone")]
    Engine,
}

impl From<&RequestError> for ErrorBody {
    fn from(error: &RequestError) -> Self {
        let (r#type, param, code) = match error {
            RequestError::Body(_) => ("Bad Request", None, 400),
            RequestError::Model { .. } => ("NotFoundError", Some("model"), 404),
            RequestError::EmptyPrompt => ("BadRequestError", Some("prompt"), 400),
            RequestError::NoOutput | RequestError::OutputTooLong { .. } => ("BadRequestError", Some("max_tokens"), 400),
            RequestError::PromptTooLong { .. } => ("BadRequestError", Some("input_tokens"), 400),
            RequestError::Engine => ("InternalServerError", None, 500),
        };
        ErrorBody { error: ErrorInfo { message: error.to_string(), r#type, param, code } }
    }
}
