//! Prompts become token ids here too, so that texts and chats can be looked up in the index.
//!
//! A model's folder holds `tokenizer.json` and its chat template (`chat_template.jinja`, or in `tokenizer_config.json`), as on
//! Hugging Face's hub. Tokenizing happens off the async threads and has a deadline, past which the request goes by load; what
//! was begun is finished for the cache's sake. The engine tokenizes for itself: a difference costs a misrouted request.
//!
//! Absent on purpose: fetching anything, `/v1/responses` and `/v1/messages` (their rendering is the server's own),
//! images, templates that ask for the date.

mod segments;
mod template;

use super::ingress::http::api::Api;
use axum::body::Bytes;
use segments::Segments;
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use template::{Template, TemplateError};
use tokio::sync::Semaphore;

/// A request waits no longer than this for its tokens: a prefill that a cache spares is rarely shorter.
const WITHIN: Duration = Duration::from_millis(100);
/// Requests that are tokenized at once, those past their deadline included; further ones go by load.
const AT_ONCE: usize = 32;

/// The tokenizers of a fleet, by model.
pub(super) struct Tokenizers {
    by_model: HashMap<String, Arc<Tokenizer>>,
    at_once: Arc<Semaphore>,
}

/// One model's tokenizer and chat template.
pub(super) struct Tokenizer {
    segments: Segments,
    template: Option<Template>,
}

/// Why a model's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// `tokenizer.json` is no tokenizer that is known here.
    #[error("{path} is not a tokenizer that can be used: {reason}")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// `tokenizer_config.json` is not JSON.
    #[error("{path} is not JSON")]
    Config {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// The chat template is none.
    #[error("the chat template in {folder} cannot be used: {reason}")]
    Template {
        /// Where it is.
        folder: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// Why a prompt has no tokens here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Untokenized {
    /// There is no tokenizer for it, or it is a prompt of a kind that is not tokenized here.
    Unsupported,
    /// It was not done in time, or too many others were being done.
    Late,
}

impl Tokenizers {
    /// Loads each model's.
    pub fn load(configured: &[crate::config::Tokenizer]) -> Result<Self, TokenizerError> {
        let loaded = configured.iter().map(|one| Ok((one.model.clone(), Arc::new(Tokenizer::load(&one.path)?))));
        Ok(Tokenizers { by_model: loaded.collect::<Result<_, _>>()?, at_once: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    /// The token ids of a text, with the special tokens that its model wants.
    pub async fn text(&self, model: &str, text: &str) -> Result<Vec<u32>, Untokenized> {
        let body = serde_json::json!({ "prompt": text }).to_string();
        self.tokens(model, Api::Completions, &Bytes::from(body)).await
    }

    /// The token ids of a body's prompt.
    pub async fn tokens(&self, model: &str, api: Api, body: &Bytes) -> Result<Vec<u32>, Untokenized> {
        let tokenizer = Arc::clone(self.by_model.get(model).ok_or(Untokenized::Unsupported)?);
        let permit = Arc::clone(&self.at_once).try_acquire_owned().map_err(|_| Untokenized::Late)?;
        let body = body.clone();
        let work = tokio::task::spawn_blocking(move || {
            let tokens = tokenizer.tokens(api, &body);
            drop(permit);
            tokens
        });
        match tokio::time::timeout(WITHIN, work).await {
            // A panic of the tokenizer is one request's loss.
            Ok(tokens) => tokens.ok().flatten().ok_or(Untokenized::Unsupported),
            Err(_) => Err(Untokenized::Late),
        }
    }
}

impl Tokenizer {
    fn load(folder: &Path) -> Result<Self, TokenizerError> {
        let path = folder.join("tokenizer.json");
        let segments = Segments::new(&read(&path)?).map_err(|reason| TokenizerError::Tokenizer { path, reason })?;
        let path = folder.join("tokenizer_config.json");
        let config: Value = match read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|source| TokenizerError::Config { path, source })?,
            Err(TokenizerError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Value::Null,
            Err(error) => return Err(error),
        };
        let source = match read(&folder.join("chat_template.jinja")) {
            Ok(text) => Some(String::from_utf8_lossy(&text).into_owned()),
            Err(_) => template::of_config(&config),
        };
        let template = source.map(|source| Template::new(source, &config)).transpose();
        let template = template.map_err(|TemplateError(error)| TokenizerError::Template {
            folder: folder.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Tokenizer { segments, template })
    }

    /// As vLLM does: a completion's text gets the model's special tokens, a chat is what its template says.
    fn tokens(&self, api: Api, body: &[u8]) -> Option<Vec<u32>> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let special = |default| body.get("add_special_tokens").map_or(Some(default), Value::as_bool);
        match api {
            Api::Completions | Api::Embeddings => {
                let field = api.prompt_field()?;
                let text = match body.get(field)? {
                    Value::String(text) => text,
                    Value::Array(batch) => batch.first()?.as_str()?,
                    _ => return None,
                };
                self.segments.encode(text, special(true)?)
            }
            Api::Chat => self.segments.encode(&self.template.as_ref()?.render(&body)?, special(false)?),
            Api::Responses | Api::Messages | Api::Generate | Api::Tokenize | Api::Models | Api::Other => None,
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    std::fs::read(path).map_err(|source| TokenizerError::Read { path: path.to_owned(), source })
}
