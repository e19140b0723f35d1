//! What `overhead.py` measures with, in one file without dependencies: canned upstreams, and a load generator.
//!
//! ```text
//! overhead upstream PORT...                                    four lines of vLLM: one canned answer to every chat
//! overhead load HOST:PORT CONNECTIONS REQUESTS RATE BYTES SEED [distinct]
//! ```
//!
//! The generator sends chats over HTTP/1.1, in a closed loop (rate 0) or at fixed times whether or not earlier answers came in
//! time, and prints what became of them as JSON. Prompts share their first half with one of 64 others, or are distinct.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["upstream", ref ports @ ..] => upstreams(ports),
        ["load", address, connections, requests, rate, bytes, seed, ref more @ ..] => {
            let number = |text: &str| text.parse::<u64>().expect("a whole number");
            let rate = number(rate);
            let plan = Plan {
                requests: number(requests),
                connections: number(connections),
                between: (rate > 0).then(|| Duration::from_nanos(1_000_000_000 / rate)),
                bytes: number(bytes) as usize,
                seed: number(seed),
                distinct: more == ["distinct"],
            };
            load(address, Arc::new(plan))
        }
        _ => panic!("upstream PORT... | load HOST:PORT CONNECTIONS REQUESTS RATE BYTES SEED [distinct]"),
    }
}

const ANSWER: &str = "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"It was.\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":100,\"total_tokens\":102,\"completion_tokens\":2,\"prompt_tokens_details\":{\"cached_tokens\":0}}}";

fn upstreams(ports: &[&str]) -> io::Result<()> {
    let mut threads = Vec::new();
    for port in ports {
        let listener = TcpListener::bind(format!("127.0.0.1:{port}"))?;
        threads.push(std::thread::spawn(move || {
            let served = Arc::new(AtomicU64::new(0));
            for peer in listener.incoming().flatten() {
                let served = Arc::clone(&served);
                std::thread::spawn(move || serve(peer, &served));
            }
        }));
    }
    println!("ready");
    threads.into_iter().for_each(|thread| thread.join().expect("an upstream never ends"));
    Ok(())
}

fn serve(peer: TcpStream, served: &AtomicU64) -> io::Result<()> {
    peer.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(1 << 16, peer.try_clone()?);
    let mut peer = peer;
    let mut body = Vec::new();
    while let Some(line) = message(&mut reader, &mut body)? {
        let path = line.split(' ').nth(1).unwrap_or_default();
        let answer = match path {
            "/v1/chat/completions" => {
                served.fetch_add(1, Ordering::Relaxed);
                ANSWER.to_owned()
            }
            "/served" => served.load(Ordering::Relaxed).to_string(),
            "/v1/models" => "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"owned_by\":\"vllm\",\"root\":\"m\",\"parent\":null,\"max_model_len\":131072}]}".to_owned(),
            // As much as a real one would send: an id for each four bytes.
            "/v1/chat/completions/render" | "/tokenize" => {
                let ids = body.chunks(4).map(|four| (four.iter().map(|&byte| u32::from(byte)).fold(7, |hash, byte| hash * 31 + byte) % 50_000).to_string());
                let ids = ids.collect::<Vec<_>>().join(",");
                format!("{{\"token_ids\":[{ids}],\"tokens\":[{ids}],\"count\":1}}")
            }
            "/health" => String::new(),
            _ => "{\"model_path\":\"m\",\"served_model_name\":\"m\"}".to_owned(),
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", answer.len());
        peer.write_all((head + &answer).as_bytes())?;
    }
    Ok(())
}

/// Reads one request or answer whole; its first line, or `None` at the end.
fn message(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<Option<String>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let (mut length, mut chunked) = (0, false);
    let mut line = String::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
            "transfer-encoding" => chunked = value.trim() == "chunked",
            _ => {}
        }
    }
    body.clear();
    if !chunked {
        body.resize(length, 0);
        reader.read_exact(body)?;
        return Ok(Some(first));
    }
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        let start = body.len();
        body.resize(start + size + 2, 0);
        reader.read_exact(&mut body[start..])?;
        body.truncate(start + size);
        if size == 0 {
            return Ok(Some(first));
        }
    }
}

struct Plan {
    requests: u64,
    connections: u64,
    between: Option<Duration>,
    bytes: usize,
    seed: u64,
    distinct: bool,
}

impl Plan {
    /// A chat's body: a first half that others share, or not, and a second one of its own.
    fn body(&self, number: u64) -> String {
        let words = |seed: u64, bytes: usize| {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut text = String::with_capacity(bytes + 8);
            while text.len() < bytes {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                text += ["once ", "upon ", "a ", "time ", "there ", "was ", "router ", "cache "][(state % 8) as usize];
            }
            text
        };
        let (own, shared) = (self.seed << 32 | number, self.seed << 32 | 1 << 31 | number % 64);
        let first = words(if self.distinct { !own } else { shared }, self.bytes / 2);
        let second = words(own, self.bytes / 2);
        format!("{{\"model\":\"m\",\"max_tokens\":2,\"messages\":[{{\"role\":\"system\",\"content\":\"{first}\"}},{{\"role\":\"user\",\"content\":\"{second}\"}}]}}")
    }
}

fn load(address: &str, plan: Arc<Plan>) -> io::Result<()> {
    let barrier = Arc::new(Barrier::new(plan.connections as usize + 1));
    let next = Arc::new(AtomicU64::new(0));
    let threads = (0..plan.connections).map(|_| {
        let (plan, barrier, next, address) = (Arc::clone(&plan), Arc::clone(&barrier), Arc::clone(&next), address.to_owned());
        std::thread::spawn(move || connection(&address, &plan, &barrier, &next))
    });
    let threads: Vec<_> = threads.collect();
    barrier.wait();
    let began = Instant::now();
    let (mut micros, mut statuses) = (Vec::new(), HashMap::<String, u64>::new());
    for thread in threads {
        for (status, time) in thread.join().expect("no connection panics")? {
            micros.push(time.as_micros() as u64);
            *statuses.entry(status).or_default() += 1;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    micros.sort_unstable();
    let quantile = |share: f64| micros[((micros.len() - 1) as f64 * share) as usize];
    let ok = statuses.get("200").copied().unwrap_or(0);
    println!(
        "{{\"requests\":{},\"ok\":{ok},\"seconds\":{seconds:.3},\"p50\":{},\"p90\":{},\"p99\":{}}}",
        micros.len(), quantile(0.5), quantile(0.9), quantile(0.99),
    );
    Ok(())
}

/// Sends what is next, until nothing is: the status and the time of each, from when it should have been sent.
fn connection(address: &str, plan: &Plan, barrier: &Barrier, next: &AtomicU64) -> io::Result<Vec<(String, Duration)>> {
    let mut peer = TcpStream::connect(address)?;
    peer.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(1 << 16, peer.try_clone()?);
    let (mut answers, mut answer) = (Vec::new(), Vec::new());
    barrier.wait();
    let began = Instant::now();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= plan.requests {
            return Ok(answers);
        }
        let body = plan.body(number);
        let request = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let due = match plan.between {
            Some(between) => {
                let due = began + between.mul_f64(number as f64);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                due
            }
            None => Instant::now(),
        };
        peer.write_all(request.as_bytes())?;
        let line = message(&mut reader, &mut answer)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        answers.push((line.split(' ').nth(1).unwrap_or_default().to_owned(), due.elapsed()));
    }
}
