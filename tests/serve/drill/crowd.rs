//! Clients that ask again and again, and know what they are to be told.

use crate::support::{MODEL, post, prompt};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// Different prompts.
const PROMPTS: u32 = 8;
const PROMPT_TOKENS: u32 = 96;
const OUTPUT_TOKENS: u32 = 12;

/// What clients were told so far, by status; 0 is a connection that broke or was refused.
pub type Told = BTreeMap<u16, usize>;

/// Clients at work.
pub struct Crowd {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: JoinSet<Told>,
}

fn body(seed: u32, stream: bool) -> Value {
    let prompt = prompt(seed, PROMPT_TOKENS);
    json!({"model": MODEL, "prompt": prompt, "max_tokens": OUTPUT_TOKENS, "stream": stream})
}

fn said(answer: &[u8]) -> String {
    let answer: Value =
        serde_json::from_slice(answer).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(answer)));
    answer["choices"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {answer}")).to_owned()
}

/// What a stream says, and whether it says that this is all. One that broke off says so before it ends, as vLLM's own do.
fn streamed(answer: &[u8]) -> (String, bool) {
    let answer = String::from_utf8_lossy(answer);
    let events = answer.lines().filter_map(|line| line.strip_prefix("data: "));
    let chunks: Vec<Value> = events.filter_map(|event| serde_json::from_str(event).ok()).collect();
    let text = chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str()).collect();
    let broke_off = chunks.iter().any(|chunk| chunk.get("error").is_some());
    (text, answer.contains("data: [DONE]") && !broke_off)
}

impl Crowd {
    /// So many clients at `router`. What is right is what `instance` says while nobody disturbs it.
    pub async fn gather(clients: u32, router: SocketAddr, instance: SocketAddr) -> Crowd {
        let mut right = Vec::new();
        for seed in 0..PROMPTS {
            let (status, answer) = post(instance, "/v1/completions", &body(seed, false)).await;
            assert_eq!(status, 200, "{answer}");
            right.push(said(answer.as_bytes()));
        }
        let (stop, answered, right) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(right));
        let mut crowd = Crowd { stop, answered, clients: JoinSet::new() };
        for number in 0..clients {
            let (stop, answered, right) = (Arc::clone(&crowd.stop), Arc::clone(&crowd.answered), Arc::clone(&right));
            crowd.clients.spawn(async move {
                let client = Client::builder(TokioExecutor::new()).build_http();
                let mut told = Told::new();
                let mut seed = number;
                while !stop.load(Ordering::Relaxed) {
                    seed = (seed + 1) % PROMPTS;
                    let status = ask(&client, router, seed, number % 2 == 0, &right[seed as usize]).await;
                    *told.entry(status).or_default() += 1;
                    answered.fetch_add(usize::from(status == 200), Ordering::Relaxed);
                    if status != 200 {
                        // Nobody hammers at a closed door.
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
                told
            });
        }
        crowd
    }

    /// Waits until so many more were answered.
    pub async fn answered(&self, more: usize) {
        let enough = self.answered.load(Ordering::Relaxed) + more;
        crate::support::eventually("answers", || self.answered.load(Ordering::Relaxed) >= enough).await;
    }

    /// Lets them end what they have, and says what they were told. A wrong answer is a panic of its client.
    pub async fn disperse(mut self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        let mut told = Told::new();
        while let Some(one) = self.clients.join_next().await {
            for (status, times) in one.expect("no client was told wrong") {
                *told.entry(status).or_default() += times;
            }
        }
        told
    }
}

/// The status; of a stream that broke off 0. A whole answer must be right, and a broken one right as far as it goes.
async fn ask(
    client: &Client<HttpConnector, Full<Bytes>>,
    router: SocketAddr,
    seed: u32,
    stream: bool,
    right: &str,
) -> u16 {
    let request = hyper::Request::post(format!("http://{router}/v1/completions"));
    let request = request.body(Full::new(Bytes::from(body(seed, stream).to_string()))).expect("it is a request");
    let Ok(response) = client.request(request).await else { return 0 };
    let status = response.status().as_u16();
    let retry_after = response.headers().contains_key("retry-after");
    let mut body = response.into_body();
    let (mut answer, mut is_whole) = (Vec::new(), true);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => answer.extend_from_slice(frame.data_ref().map_or(&[][..], |bytes| bytes)),
            Err(_) => {
                is_whole = false;
                break;
            }
        }
    }
    match status {
        200 if stream => {
            let (text, is_done) = streamed(&answer);
            assert!(right.starts_with(&text), "{text:?} is not the beginning of {right:?}");
            assert!(!is_done || text == right, "{text:?} ends before {right:?}");
            // What breaks off has to look broken off.
            assert!(is_done || !is_whole || text.len() < right.len());
            if is_done { 200 } else { 0 }
        }
        200 if is_whole => {
            assert_eq!(said(&answer), right);
            200
        }
        200 => 0,
        429 | 503 => {
            assert!(retry_after, "{status} does not say when to come back");
            status
        }
        status => status,
    }
}
