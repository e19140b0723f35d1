//! Prompts become token ids here too, so that texts and chats can be looked up in the index.
//!
//! A model whose tokenizer is not configured has it from the first instance that hands it out (`watch::tokenizer`). A model's
//! folder holds `tokenizer.json` and its chat template (`chat_template.jinja`, or in `tokenizer_config.json`), as on
//! Hugging Face's hub. Tokenizing happens off the async threads and has a deadline, past which the request goes by load; what
//! was begun is finished for the cache's sake. The engine tokenizes for itself: a difference costs a misrouted request.
//!
//! Absent on purpose: images and whatever else is more than text, conversations that only an instance remembers
//! (`previous_response_id`), the models that vLLM renders in code of its own (gpt-oss and the like).

mod chat;
mod conversation;
mod date;
mod files;
mod form;
mod segments;
mod template;
mod texts;
mod value;
mod words;

use super::ingress::http::api::Api;
use super::telemetry::Histogram;
use axum::body::Bytes;
use axum::http::Method;
use chat::{Unknown, get};
use files::Files;
use minijinja::Value;
use parking_lot::RwLock;
use segments::Segments;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use template::{Template, TemplateError};
pub use texts::tokenizer_for_traces;
use tokio::sync::Semaphore;

/// Requests that are tokenized at once, those past their deadline included; further ones go by load.
const AT_ONCE: usize = 32;

/// The tokenizers of a fleet, by model.
pub(super) struct Tokenizers {
    by_model: RwLock<HashMap<String, Arc<Tokenizer>>>,
    /// Held by who fetches one: an archive in memory is enough.
    pub fetching: tokio::sync::Mutex<()>,
    at_once: Arc<Semaphore>,
    within_milliseconds: AtomicU64,
    /// How long requests waited.
    waited: Histogram,
}

/// One model's tokenizer and chat template. The router's own; on its own it tells what a request's prompt comes to.
pub struct Tokenizer {
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
    /// What an engine handed out is no archive of a tokenizer's files.
    #[error("the archive from {from} cannot be used: {reason}")]
    Archive {
        /// Whose it is.
        from: PathBuf,
        /// Why not.
        reason: String,
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
    /// There is no tokenizer for it.
    NoTokenizer,
    /// It is a prompt of a kind that is not tokenized here.
    Unsupported,
    /// It holds more than text.
    MoreThanText,
    /// It was not done in time, or too many others were being done.
    Late,
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Tokenizers {
    /// Loads each model's. No request waits for its tokens longer than `within`.
    /// How long each did is recorded.
    pub fn load(
        configured: &[crate::config::Tokenizer],
        within: Duration,
        waited: Histogram,
    ) -> Result<Self, TokenizerError> {
        let loaded = configured.iter().map(|one| Ok((one.model.clone(), Arc::new(Tokenizer::load(&one.path)?))));
        Ok(Tokenizers {
            by_model: RwLock::new(loaded.collect::<Result<_, _>>()?),
            fetching: tokio::sync::Mutex::default(),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            within_milliseconds: AtomicU64::new(milliseconds(within)),
            waited,
        })
    }

    /// Whether a model's is there.
    pub fn has(&self, model: &str) -> bool {
        self.by_model.read().contains_key(model)
    }

    /// Texts of `model` have tokens from here on.
    pub fn add(&self, model: &str, tokenizer: Tokenizer) {
        self.by_model.write().insert(model.to_owned(), Arc::new(tokenizer));
    }

    /// Requests that come from here on wait this long at most.
    pub fn set_within(&self, within: Duration) {
        self.within_milliseconds.store(milliseconds(within), Ordering::Relaxed);
    }

    /// The token ids of a text, with the special tokens that its model wants.
    pub async fn text(&self, model: &str, text: &str) -> Result<Vec<u32>, Untokenized> {
        let body = serde_json::json!({ "prompt": text }).to_string();
        self.tokens(model, Api::Completions, &Bytes::from(body)).await
    }

    /// The token ids of a body's prompt.
    pub async fn tokens(&self, model: &str, api: Api, body: &Bytes) -> Result<Vec<u32>, Untokenized> {
        let tokenizer = Arc::clone(self.by_model.read().get(model).ok_or(Untokenized::NoTokenizer)?);
        let permit = Arc::clone(&self.at_once).try_acquire_owned().map_err(|_| Untokenized::Late)?;
        let body = body.clone();
        let work = tokio::task::spawn_blocking(move || {
            let tokens = tokenizer.tokens(api, &body);
            drop(permit);
            tokens
        });
        let within = Duration::from_millis(self.within_milliseconds.load(Ordering::Relaxed));
        let began = Instant::now();
        let done = tokio::time::timeout(within, work).await;
        self.waited.record(began.elapsed().as_secs_f64());
        match done {
            // A panic of the tokenizer is one request's loss.
            Ok(Ok(tokens)) => tokens.map_err(|unknown| match unknown {
                Unknown::MoreThanText => Untokenized::MoreThanText,
                Unknown::Other => Untokenized::Unsupported,
            }),
            Ok(Err(_)) => Err(Untokenized::Unsupported),
            Err(_) => Err(Untokenized::Late),
        }
    }
}

impl Tokenizer {
    /// From a folder as on Hugging Face's hub.
    pub fn load(folder: &Path) -> Result<Self, TokenizerError> {
        Self::of(&Files::Folder(folder.to_owned()))
    }

    /// From a zip archive of such a folder's files, which came from `from`.
    pub(super) fn unpack(archive: &[u8], from: &Path) -> Result<Self, TokenizerError> {
        Self::of(&Files::unpack(archive, from)?)
    }

    fn of(files: &Files) -> Result<Self, TokenizerError> {
        let path = |name: &str| files.from().join(name);
        let segments = Segments::new(&files.expect(files::TOKENIZER)?)
            .map_err(|reason| TokenizerError::Tokenizer { path: path(files::TOKENIZER), reason })?;
        let config = match files.read(files::CONFIG)? {
            Some(text) => serde_json::from_slice(&text)
                .map_err(|source| TokenizerError::Config { path: path(files::CONFIG), source })?,
            None => serde_json::Value::Null,
        };
        let source = match files.read(files::TEMPLATE)? {
            Some(text) => Some(String::from_utf8_lossy(&text).into_owned()),
            None => template::of_config(&config),
        };
        let template = source.map(|source| Template::new(source, &config)).transpose();
        let template = template.map_err(|TemplateError(error)| TokenizerError::Template {
            folder: files.from().to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Tokenizer { segments, template })
    }

    /// The token ids of the prompt in a body posted to `path` of the OpenAI API; `None` where they cannot be known here.
    pub fn prompt_tokens(&self, path: &str, body: &[u8]) -> Option<Vec<u32>> {
        self.tokens(Api::of(&Method::POST, path), body).ok()
    }

    /// As vLLM does: a completion's text gets the model's special tokens, a chat is what its template says.
    fn tokens(&self, api: Api, body: &[u8]) -> Result<Vec<u32>, Unknown> {
        let body = value::read(body).map_err(|_| Unknown::Other)?;
        let template = || self.template.as_ref().ok_or(Unknown::Other);
        let chat = match api {
            Api::Completions | Api::Embeddings => return self.text(api, &body),
            Api::Chat => chat::of_chat(&body)?,
            Api::Responses => chat::of_responses(&body)?,
            Api::Messages => chat::of_messages(&body, &template()?.manners)?,
            Api::Generate | Api::Tokenize | Api::Models | Api::Other => return Err(Unknown::Other),
        };
        self.encode(&template()?.render(&chat)?, chat.add_special_tokens)
    }

    fn text(&self, api: Api, body: &Value) -> Result<Vec<u32>, Unknown> {
        let special = chat::flag(body, "add_special_tokens", true)?;
        if get(body, "suffix").is_some() || get(body, "messages").is_some() {
            return Err(Unknown::Other);
        }
        let prompt = api.prompt_field().and_then(|field| get(body, field)).ok_or(Unknown::Other)?;
        let text = match prompt.as_str() {
            Some(_) => prompt,
            // Of several the longest, and of those the first.
            None => {
                let length = |text: &Value| text.as_str().map_or(0, str::len);
                chat::items(&prompt)?.into_iter().rev().max_by_key(length).ok_or(Unknown::Other)?
            }
        };
        self.encode(text.as_str().ok_or(Unknown::Other)?, special)
    }

    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, Unknown> {
        self.segments.encode(text, add_special_tokens).ok_or(Unknown::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// What a real vLLM rendered (tests/real_vllm/goldens.py) is what is rendered here.
    #[test]
    fn token_ids_are_those_of_a_real_vllm() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vllm_render");
        let (mut equal, mut wrong) = (0, Vec::new());
        for folder in ["tools", "parts"] {
            let tokenizer = Tokenizer::load(&data.join(folder)).unwrap();
            // The second time all pieces come from the cache.
            for line in
                std::fs::read(data.join(folder).join("cases.jsonl")).unwrap().split(|&b| b == b'\n').cycle().take(140)
            {
                let Ok(case) = serde_json::from_slice::<Value>(line) else { continue };
                let api = Api::of(&Method::POST, case["path"].as_str().unwrap());
                // Cut out of the line, so that keys keep their order.
                let line = std::str::from_utf8(line).unwrap();
                let body = &line[line.find("\"body\": ").unwrap() + 8..];
                let body = &body[..body.rfind(", \"token_ids\"").or_else(|| body.rfind(", \"refused\"")).unwrap()];
                let tokens = tokenizer.tokens(api, body.as_bytes());
                // What vLLM refuses may come to anything here.
                match case.get("token_ids") {
                    Some(ids) if tokens.as_ref().is_ok_and(|tokens| serde_json::json!(tokens) == *ids) => equal += 1,
                    Some(ids) => {
                        let ids: Vec<u32> =
                            ids.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
                        let ours = tokens.clone().unwrap_or_default();
                        let at = ids.iter().zip(&ours).take_while(|(a, b)| a == b).count();
                        wrong.push(format!(
                            "{folder} {at} of {}: {:?} {:?} {body}",
                            ids.len(),
                            &ids[at..],
                            &ours[at..]
                        ));
                    }
                    None => {}
                }
            }
        }
        assert!(wrong.is_empty(), "{equal} equal, {} not:\n{}", wrong.len(), wrong.join("\n"));
        assert!(equal > 250, "{equal}");
    }
}
