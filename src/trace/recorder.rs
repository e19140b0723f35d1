//! Records live requests, anonymously, in files that `replay` reads.
//!
//! How long an answer gets is known when it ends, but a trace is in order of arrival. So a request is held from its arrival
//! until it ended and all that came before it ended or were given up. [`Recorder::arrived`] and [`Recorder::ended`] take a
//! lock for as long as it takes to put something into a queue, and never wait for a file: when what is held takes as much
//! memory as it may, a request is counted as dropped. One thread makes requests anonymous and writes each as one whole line
//! at once, so that a killed process leaves complete lines; tokens are kept only until that thread has hashed them.
//!
//! When a file is large enough, or holds as many distinct blocks or requests as may be remembered, the next one begins, with
//! a new salt: files cannot be linked.
//!
//! Absent on purpose: clocks and dice. The caller says when a request came, and where salts come from.

mod continuation;
mod files;
mod held;

use super::anonymize::Salt;
use super::record::Kind;
use crate::routing::block::Namespace;
use files::Files;
use held::{End, Held, Step};
use parking_lot::{Condvar, Mutex};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Where and how much to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecorderConfig {
    /// Files go here, as `recording-000001.jsonl` and so on. It must exist.
    pub folder: PathBuf,
    /// A file of more bytes is followed by the next one.
    pub file_bytes_max: u64,
    /// The same of distinct blocks: each is remembered in about 64 bytes while its file is written.
    pub file_blocks_max: usize,
    /// The same of requests: each is remembered, too.
    pub file_requests_max: u64,
    /// Recordings in the folder, at most; the oldest is deleted when there would be more.
    pub files_max: usize,
    /// What held requests may take, in bytes. At half of it the oldest that has not ended is given up; at all of it what
    /// comes is dropped.
    pub memory_bytes_max: usize,
    /// A request that has not ended so long after it came is given up, so that those after it can be written.
    pub wait_max: Duration,
}

/// A request that was placed.
#[derive(Clone, Debug)]
pub struct Arrival<'a> {
    /// When it came, by the caller's clock.
    pub at: Duration,
    /// Who may share a cache with it; of this too only a salted hash is kept.
    pub namespace: Namespace<'a>,
    /// The prompt.
    pub tokens: &'a [u32],
    /// The conversation that it belongs to, where that is known; else it is found from prompts.
    pub session: Option<u64>,
    /// The service's word for its sort.
    pub kind: Option<Kind>,
}

/// What became of requests, each counted once, and what there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Written.
    pub written: u64,
    /// Dropped because as much was held as may be.
    pub full: u64,
    /// Given up because they took too long to end.
    pub late: u64,
    /// Left out because they did not end well.
    pub unfinished: u64,
    /// Left out because prompt or output were empty.
    pub empty: u64,
    /// Dropped because writing had failed.
    pub failed: u64,
    /// Files begun.
    pub files: u64,
    /// Bytes that held requests take now.
    pub held_bytes: u64,
}

/// The recorder's door. Recording ends with [`Recorder::finish`].
pub struct Recorder {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    held: Mutex<Held>,
    /// Told when there may be something to do for the thread.
    work: Condvar,
    /// Makes tokens hashes until a file's own salt makes those numbers. Never written, wiped at the end.
    salt: Salt,
}

impl RecorderConfig {
    /// Hundred files of at most a hundred megabytes, 64 MiB of held requests beside as much for the file.
    pub fn new(folder: PathBuf) -> Self {
        RecorderConfig {
            folder,
            file_bytes_max: 100 << 20,
            file_blocks_max: 1 << 20,
            file_requests_max: 1 << 20,
            files_max: 100,
            memory_bytes_max: 64 << 20,
            wait_max: Duration::from_secs(600),
        }
    }
}

impl Recorder {
    /// Begins to record. `salt` draws sixteen bytes from the system's source of chance, now and once for each file.
    ///
    /// A recording that a killed process left is cut after its last whole line. An error is that of the folder.
    pub fn start(
        config: RecorderConfig,
        mut salt: impl FnMut() -> io::Result<[u8; 16]> + Send + 'static,
    ) -> io::Result<Recorder> {
        let held = Held::new(config.memory_bytes_max, config.wait_max);
        let first = Salt::drawn(&mut salt)?;
        let mut files = Files::open(config, Box::new(salt))?;
        let shared = Arc::new(Shared { held: Mutex::new(held), work: Condvar::new(), salt: first });
        let for_thread = Arc::clone(&shared);
        let thread =
            thread::Builder::new().name("trace-recorder".to_owned()).spawn(move || for_thread.run(&mut files))?;
        Ok(Recorder { shared, thread: Mutex::new(Some(thread)) })
    }

    /// A request was placed; `request` is its name until it ends. True when it was taken.
    pub fn arrived(&self, request: u64, arrival: &Arrival<'_>) -> bool {
        let namespace = self.shared.salt.hash_namespace(&arrival.namespace);
        let taken = self.shared.held.lock().arrived(request, arrival, namespace);
        self.shared.work.notify_one();
        taken
    }

    /// A request ended well at that time, with so many tokens of output; unknown names change nothing.
    pub fn ended(&self, request: u64, at: Duration, output_tokens: u32) {
        self.end(request, End::Well { at, output_tokens });
    }

    /// A request ended otherwise.
    pub fn abandoned(&self, request: u64) {
        self.end(request, End::Badly);
    }

    fn end(&self, request: u64, end: End) {
        self.shared.held.lock().ended(request, end);
        self.shared.work.notify_one();
    }

    /// What became of requests so far.
    pub fn recorded(&self) -> Recorded {
        self.shared.held.lock().recorded()
    }

    /// Why writing failed, told once. After that, nothing is recorded.
    pub fn take_error(&self) -> Option<io::Error> {
        self.shared.held.lock().error.take()
    }

    /// Gives up what has not ended, writes the rest, and stops. Nothing is recorded afterwards.
    pub fn finish(&self) -> Recorded {
        self.close();
        if let Some(thread) = self.thread.lock().take()
            && let Err(panic) = thread.join()
        {
            std::panic::resume_unwind(panic);
        }
        self.recorded()
    }

    fn close(&self) {
        self.shared.held.lock().closing = true;
        self.shared.work.notify_one();
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// The thread's work; nothing slow is done under the lock.
    fn run(&self, files: &mut Files) {
        let mut held = self.held.lock();
        loop {
            match held.step() {
                Step::Hash { position, namespace, tokens } => {
                    drop(held);
                    let blocks = tokens.chunks(held::BLOCK_TOKENS).map(|block| self.salt.hash_block(namespace, block));
                    let blocks = blocks.collect();
                    drop(tokens);
                    held = self.held.lock();
                    held.hashed(position, blocks);
                }
                Step::Write(request) => {
                    drop(held);
                    let written = files.write(&request);
                    held = self.held.lock();
                    held.written(written);
                }
                Step::Wait => self.work.wait(&mut held),
                Step::Stop => return,
            }
        }
    }
}
