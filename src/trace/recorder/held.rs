//! Requests between their arrival and the file, in order of arrival.

use super::{Arrival, Recorded};
use crate::routing::block::{BlockSize, ContentHash};
use crate::trace::record::Kind;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::Duration;

pub(super) const BLOCK_TOKENS: usize = BlockSize::DEFAULT.tokens() as usize;

/// What is held. Bounded in bytes.
pub(super) struct Held {
    requests: VecDeque<Request>,
    /// The number of the first of `requests` since the start.
    first: u64,
    /// The number of the next one to be hashed.
    next_hash: u64,
    /// The number of each request that has not ended, by its name.
    running: HashMap<u64, u64>,
    bytes: usize,
    bytes_max: usize,
    wait_max: Duration,
    /// When the latest came.
    last_at: Duration,
    counts: Recorded,
    /// Nothing more is to come.
    pub(super) closing: bool,
    /// Writing has failed.
    broken: bool,
    pub(super) error: Option<io::Error>,
}

/// One of them.
pub(super) struct Request {
    name: u64,
    pub(super) at: Duration,
    namespace: u64,
    prompt: Prompt,
    pub(super) prompt_tokens: u32,
    pub(super) session: Option<u64>,
    pub(super) kind: Option<Kind>,
    pub(super) end: Option<End>,
}

enum Prompt {
    Tokens(Box<[u32]>),
    /// The thread has them.
    Away,
    Blocks(Vec<ContentHash>),
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Well { at: Duration, output_tokens: u32 },
    Badly,
}

/// What the thread is to do next.
pub(super) enum Step {
    Hash { position: u64, namespace: u64, tokens: Box<[u32]> },
    Write(Request),
    Wait,
    Stop,
}

impl Request {
    /// What a request takes beside its prompt.
    const BYTES: usize = size_of::<Request>() + 2 * size_of::<(u64, u64)>();

    fn bytes(&self) -> usize {
        let prompt = match &self.prompt {
            Prompt::Tokens(tokens) => size_of_val(&**tokens),
            Prompt::Away => self.prompt_tokens as usize * size_of::<u32>(),
            Prompt::Blocks(blocks) => size_of_val(blocks.as_slice()),
        };
        Request::BYTES + prompt
    }

    /// Its blocks, once they are known.
    pub(super) fn blocks(&self) -> &[ContentHash] {
        match &self.prompt {
            Prompt::Blocks(blocks) => blocks,
            Prompt::Tokens(_) | Prompt::Away => &[],
        }
    }
}

impl Held {
    pub(super) fn new(bytes_max: usize, wait_max: Duration) -> Self {
        Held {
            requests: VecDeque::new(),
            first: 0,
            next_hash: 0,
            running: HashMap::new(),
            bytes: 0,
            bytes_max,
            wait_max,
            last_at: Duration::ZERO,
            counts: Recorded::default(),
            closing: false,
            broken: false,
            error: None,
        }
    }

    /// True when it was taken.
    pub(super) fn arrived(&mut self, name: u64, arrival: &Arrival<'_>, namespace: u64) -> bool {
        let refused = match () {
            () if self.broken || self.closing => Some(&mut self.counts.failed),
            () if arrival.tokens.is_empty() => Some(&mut self.counts.empty),
            () if self.bytes + Request::BYTES + size_of_val(arrival.tokens) > self.bytes_max => {
                Some(&mut self.counts.full)
            }
            () => None,
        };
        if let Some(count) = refused {
            *count += 1;
            return false;
        }
        // Two that come at once may get here in the other order; a trace never goes back.
        self.last_at = self.last_at.max(arrival.at);
        let request = Request {
            name,
            at: self.last_at,
            namespace,
            prompt: Prompt::Tokens(arrival.tokens.into()),
            prompt_tokens: u32::try_from(arrival.tokens.len()).unwrap_or(u32::MAX),
            session: arrival.session,
            kind: arrival.kind.clone(),
            end: None,
        };
        self.bytes += request.bytes();
        self.running.insert(name, self.first + self.requests.len() as u64);
        self.requests.push_back(request);
        true
    }

    pub(super) fn ended(&mut self, name: u64, end: End) {
        if let Some(number) = self.running.remove(&name)
            && let Some(request) = self.requests.get_mut((number - self.first) as usize)
        {
            request.end = Some(end);
        }
    }

    pub(super) fn step(&mut self) -> Step {
        if let Some(request) = self.requests.get_mut((self.next_hash - self.first) as usize)
            && let Prompt::Tokens(tokens) = std::mem::replace(&mut request.prompt, Prompt::Away)
        {
            return Step::Hash { position: self.next_hash, namespace: request.namespace, tokens };
        }
        // All that is held has been hashed.
        while let Some(first) = self.requests.front() {
            match first.end {
                Some(End::Well { output_tokens: 1.., .. }) if !self.broken => {
                    return match self.pop() {
                        Some(request) => Step::Write(request),
                        None => unreachable!("it is the front one"),
                    };
                }
                Some(End::Well { output_tokens: 1.., .. }) => self.counts.failed += 1,
                Some(End::Well { .. }) => self.counts.empty += 1,
                Some(End::Badly) => self.counts.unfinished += 1,
                None if self.closing => self.counts.unfinished += 1,
                None if self.bytes > self.bytes_max / 2 || self.last_at.saturating_sub(first.at) > self.wait_max => {
                    self.counts.late += 1;
                }
                None => return Step::Wait,
            }
            self.pop();
        }
        if self.closing { Step::Stop } else { Step::Wait }
    }

    fn pop(&mut self) -> Option<Request> {
        let request = self.requests.pop_front()?;
        self.first += 1;
        self.next_hash = self.next_hash.max(self.first);
        self.bytes -= request.bytes();
        if request.end.is_none() {
            self.running.remove(&request.name);
        }
        Some(request)
    }

    pub(super) fn hashed(&mut self, number: u64, blocks: Vec<ContentHash>) {
        let request = &mut self.requests[(number - self.first) as usize];
        self.bytes -= request.bytes();
        request.prompt = Prompt::Blocks(blocks);
        self.bytes += request.bytes();
        self.next_hash = number + 1;
    }

    /// One was written to a file, a new one if the result says so, or could not be.
    pub(super) fn written(&mut self, result: io::Result<bool>) {
        match result {
            Ok(new_file) => {
                self.counts.written += 1;
                self.counts.files += u64::from(new_file);
            }
            Err(error) => {
                self.counts.failed += 1;
                (self.broken, self.error) = (true, Some(error));
            }
        }
    }

    pub(super) fn recorded(&self) -> Recorded {
        Recorded { held_bytes: self.bytes as u64, ..self.counts }
    }
}
