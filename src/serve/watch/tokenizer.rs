//! A model's tokenizer, fetched once from an instance that hands it out, where none is configured.
//!
//! `vllm serve --grpc` does, by `VllmEngine.GetTokenizer`: a stream of the pieces of a zip archive, the last with its SHA-256.
//! It answers with an error where vLLM was started with a name of Hugging Face's hub rather than with a folder. Nothing that is
//! offered over HTTP holds the vocabulary.

use crate::config::{Instance, Protocol};
use crate::routing::InstanceId;
use crate::serve::protobuf::{Fields, Value};
use crate::serve::tokenizer::{Tokenizer, TokenizerError, Tokenizers};
use crate::serve::upstream::grpc::{GET_TOKENIZER, framed, messages};
use crate::serve::upstream::{AnswerLimits, CallError, ClientHeaders, Upstream};
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The largest that are published take a fifth of this.
const LIMITS: AnswerLimits = AnswerLimits { bytes: 64 << 20, time: Duration::from_secs(60) };
/// How long an instance that does not answer is left alone, at first and at most.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// `GetTokenizerChunk`: `bytes data = 1; string sha256 = 2`. Source: common.proto in smg-grpc-proto 0.4.28.
const DATA_FIELD: u64 = 1;
const SHA256_FIELD: u64 = 2;

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("it does not answer")]
    Unreachable,
    #[error("it answers {code:?}: {message}")]
    Refused { code: tonic::Code, message: String },
    #[error("what it sends is longer than {} bytes", LIMITS.bytes)]
    TooLong,
    #[error("what it sends is not a GetTokenizerChunk")]
    Malformed,
    #[error("what it sends has not the SHA-256 that it says")]
    Checksum,
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// Asks until there is an answer, or until the model has a tokenizer from another instance. Then nothing until `stop`.
pub(in crate::serve) async fn fetch(
    upstream: Arc<Upstream>,
    tokenizers: Arc<Tokenizers>,
    id: InstanceId,
    instance: Instance,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let mut wait = WAIT.0;
    while let Some(fetched) = stop.run_until_cancelled(fetch_once(&upstream, &tokenizers, id, &instance)).await {
        let Err(error) = fetched else { break };
        if !matches!(error, FetchError::Unreachable) {
            tracing::warn!(
                instance = instance.name,
                model = instance.model,
                "no tokenizer from it: {error}; its texts are placed by their bytes, and overlaps are not known; \
                 configure [[tokenizers]] with the folder that holds its tokenizer.json"
            );
            break;
        }
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            break;
        }
        wait = (wait * 2).min(WAIT.1);
    }
    stop.cancelled().await;
    Ok(())
}

async fn fetch_once(
    upstream: &Upstream,
    tokenizers: &Tokenizers,
    id: InstanceId,
    instance: &Instance,
) -> Result<(), FetchError> {
    let _fetching = tokenizers.fetching.lock().await;
    if tokenizers.has(&instance.model) {
        return Ok(());
    }
    let (headers, nothing) = (ClientHeaders::default(), framed(&[]));
    let answer = upstream.call(id, Protocol::VllmEngine, GET_TOKENIZER, headers, nothing, LIMITS).await;
    let answer = answer.map_err(|error| match error {
        CallError::Forward(_) => FetchError::Unreachable,
        CallError::TooLong => FetchError::TooLong,
        // It starts, or goes away.
        CallError::Refused(status) if status.code() == tonic::Code::Unavailable => FetchError::Unreachable,
        CallError::Refused(status) => FetchError::Refused { code: status.code(), message: status.message().to_owned() },
    })?;
    let from = instance.name.clone();
    let unpacked = tokio::task::spawn_blocking(move || {
        let (archive, sha256) = joined(&answer).ok_or(FetchError::Malformed)?;
        if !sha256.eq_ignore_ascii_case(&sha256_of(&archive)) {
            return Err(FetchError::Checksum);
        }
        Ok(Tokenizer::unpack(&archive, Path::new(&from))?)
    });
    let tokenizer = unpacked.await.unwrap_or(Err(FetchError::Malformed))?;
    tokenizers.add(&instance.model, tokenizer);
    tracing::info!(instance = instance.name, model = instance.model, "the model's tokenizer is from this instance");
    Ok(())
}

/// The archive and what its SHA-256 is said to be; `None` where the messages are others.
fn joined(answer: &[u8]) -> Option<(Vec<u8>, String)> {
    let (mut archive, mut sha256) = (Vec::with_capacity(answer.len()), String::new());
    for message in messages(answer) {
        for field in Fields(message?) {
            match field.ok()? {
                (DATA_FIELD, Value::Bytes(data)) => archive.extend_from_slice(data),
                (SHA256_FIELD, Value::Bytes(said)) => sha256 = String::from_utf8(said.to_vec()).ok()?,
                _ => {}
            }
        }
    }
    Some((archive, sha256))
}

fn sha256_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes what is written");
        hex
    })
}
