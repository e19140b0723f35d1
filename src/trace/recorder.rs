//! Records live requests, anonymously, in files that `replay` reads.
//!
//! [`Recorder::record`] never waits: it puts a request into a queue of limited length, and when that is full it counts the
//! request as dropped and returns. One thread takes requests from the queue, makes them anonymous and writes each as one
//! whole line, so that a killed process leaves complete lines. When a file is large enough, or holds as many distinct
//! blocks or requests as may be remembered, the next one begins, with a new salt: files cannot be linked.
//!
//! Absent on purpose: clocks and dice. The caller says when a request came, and where salts come from.

use super::anonymize::{Anonymizer, Salt};
use super::provenance::Provenance;
use super::record::{Kind, Record};
use super::writer::{Target, Writer};
use crate::routing::block::BlockSize;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Where and how much to record.
#[derive(Clone, Debug)]
pub struct RecorderConfig {
    /// Files go here, as `recording-000001.jsonl` and so on. It must exist.
    pub folder: PathBuf,
    /// Requests that may wait to be written.
    pub queue_max: usize,
    /// A file of more bytes is followed by the next one.
    pub file_bytes_max: u64,
    /// The same of distinct blocks: each is remembered in about 32 bytes while its file is written.
    pub file_blocks_max: usize,
    /// The same of requests: each is remembered, too.
    pub file_requests_max: u64,
}

/// A served request.
#[derive(Clone, Debug)]
pub struct Served {
    /// When it came, by the caller's clock.
    pub at: Duration,
    /// The prompt.
    pub tokens: Arc<[u32]>,
    /// Output length.
    pub output_tokens: u32,
    /// The caller's name for it, to be named as a parent later.
    pub chat: u64,
    /// The request that it continues, if it is known.
    pub parent: Option<u64>,
    /// The service's word for its sort.
    pub kind: Option<Kind>,
}

/// What was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Requests written.
    pub written: u64,
    /// Requests dropped because the queue was full or writing had failed.
    pub dropped: u64,
    /// Files written.
    pub files: u64,
}

/// The recorder's door. Shared freely; recording ends with [`Recorder::finish`].
pub struct Recorder {
    queue: SyncSender<Served>,
    dropped: AtomicU64,
    thread: JoinHandle<io::Result<Recorded>>,
}

impl RecorderConfig {
    /// A hundred megabytes a file, and at most about as much memory.
    pub fn new(folder: PathBuf) -> Self {
        RecorderConfig {
            folder,
            queue_max: 1024,
            file_bytes_max: 100 << 20,
            file_blocks_max: 1 << 20,
            file_requests_max: 1 << 20,
        }
    }
}

impl Recorder {
    /// Begins to record. `salt` draws sixteen bytes from the system's source of chance, once for each file.
    pub fn start(
        config: RecorderConfig,
        salt: impl FnMut() -> io::Result<[u8; 16]> + Send + 'static,
    ) -> io::Result<Recorder> {
        let (queue, requests) = sync_channel(config.queue_max);
        let thread = thread::Builder::new().name("trace-recorder".to_owned()).spawn(move || {
            Recording { config, salt, file: None, number: 0, recorded: Recorded::default() }.run(&requests)
        })?;
        Ok(Recorder { queue, dropped: AtomicU64::new(0), thread })
    }

    /// Records a request, or counts it as dropped; never waits. True when it was taken.
    pub fn record(&self, request: Served) -> bool {
        let taken = self.queue.try_send(request).is_ok();
        if !taken {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Requests dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Writes what still waits, and stops. An error of writing, which ended the recording early, comes out here.
    pub fn finish(self) -> io::Result<Recorded> {
        let Recorder { queue, dropped, thread } = self;
        drop(queue);
        match thread.join() {
            Ok(recorded) => Ok(Recorded { dropped: dropped.into_inner(), ..recorded? }),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// The writing side.
struct Recording<S> {
    config: RecorderConfig,
    salt: S,
    file: Option<Current>,
    /// Of the file that was begun last.
    number: u64,
    recorded: Recorded,
}

/// The file that is being written.
struct Current {
    writer: Writer<Counted>,
    anonymizer: Anonymizer,
    requests: u64,
}

/// A file that knows its size. Not buffered: a line is written when it is complete.
struct Counted {
    file: File,
    bytes: Arc<AtomicU64>,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl<S: FnMut() -> io::Result<[u8; 16]>> Recording<S> {
    fn run(mut self, requests: &Receiver<Served>) -> io::Result<Recorded> {
        let bytes = Arc::new(AtomicU64::new(0));
        for request in requests {
            // An empty prompt or answer is no request to replay.
            if request.tokens.is_empty() || request.output_tokens == 0 {
                continue;
            }
            let current = match &mut self.file {
                Some(current) => current,
                None => {
                    bytes.store(0, Ordering::Relaxed);
                    let begun = self.begin(bytes.clone())?;
                    self.file.insert(begun)
                }
            };
            current.write(&request)?;
            self.recorded.written += 1;
            let full = bytes.load(Ordering::Relaxed) >= self.config.file_bytes_max
                || current.anonymizer.distinct_blocks() >= self.config.file_blocks_max
                || current.requests >= self.config.file_requests_max;
            if full {
                self.file = None;
            }
        }
        Ok(self.recorded)
    }

    /// Begins the next file; earlier recordings are never overwritten.
    fn begin(&mut self, bytes: Arc<AtomicU64>) -> io::Result<Current> {
        let file = loop {
            self.number += 1;
            let path = self.config.folder.join(format!("recording-{:06}.jsonl", self.number));
            match OpenOptions::new().write(true).create_new(true).open(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => break other?,
            }
        };
        let mut salt = (self.salt)()?;
        let anonymizer = Anonymizer::new(Salt::new(salt));
        zeroize::Zeroize::zeroize(&mut salt);
        self.recorded.files += 1;
        let counted = Counted { file, bytes };
        let writer = Writer::new(counted, Target::QwenBailian, BlockSize::DEFAULT, &Provenance::Real)?;
        Ok(Current { writer, anonymizer, requests: 0 })
    }
}

impl Current {
    fn write(&mut self, request: &Served) -> io::Result<()> {
        let record = Record {
            at: request.at,
            prompt_tokens: u32::try_from(request.tokens.len()).unwrap_or(u32::MAX),
            output_tokens: request.output_tokens,
            chat: Some(request.chat),
            parent: request.parent,
            kind: request.kind.clone(),
            ..Record::default()
        };
        let block_tokens = BlockSize::DEFAULT.tokens() as usize;
        let anonymous = self.anonymizer.anonymize_tokens(&record, &request.tokens, block_tokens);
        self.requests += 1;
        self.writer.write(&anonymous)
    }
}
