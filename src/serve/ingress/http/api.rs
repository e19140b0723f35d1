//! Which call of the API a request is.

use axum::http::Method;

/// The calls that are told apart here; the rest passes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::serve) enum Api {
    Completions,
    Chat,
    Responses,
    Messages,
    Embeddings,
    /// Tokens in, tokens out.
    Generate,
    /// Costs an engine nothing: its API server does it.
    Tokenize,
    Models,
    Other,
}

impl Api {
    /// The call at a path.
    pub fn of(method: &Method, path: &str) -> Api {
        match (method, path) {
            (&Method::POST, "/v1/completions") => Api::Completions,
            (&Method::POST, "/v1/chat/completions") => Api::Chat,
            (&Method::POST, "/v1/responses") => Api::Responses,
            (&Method::POST, "/v1/messages") => Api::Messages,
            (&Method::POST, "/v1/embeddings") => Api::Embeddings,
            (&Method::POST, "/inference/v1/generate") => Api::Generate,
            (&Method::POST, "/tokenize" | "/detokenize" | "/v1/messages/count_tokens") => Api::Tokenize,
            (&Method::GET | &Method::HEAD, "/v1/models") => Api::Models,
            _ => Api::Other,
        }
    }

    /// Whether an engine has to compute for it.
    pub fn computes(self) -> bool {
        match self {
            Api::Completions | Api::Chat | Api::Responses | Api::Messages | Api::Embeddings | Api::Generate => true,
            // A path that is not known may well be one that computes; it does if it is sent a prompt.
            Api::Other => true,
            Api::Tokenize | Api::Models => false,
        }
    }

    /// The field that holds the prompt, where it may be token ids.
    pub fn prompt_field(self) -> Option<&'static str> {
        match self {
            Api::Completions => Some("prompt"),
            Api::Embeddings => Some("input"),
            Api::Generate => Some("token_ids"),
            Api::Chat | Api::Responses | Api::Messages | Api::Tokenize | Api::Models | Api::Other => None,
        }
    }
}
