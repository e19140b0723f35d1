//! The files of a recording: begun, filled, followed by others, and the oldest deleted.

use super::RecorderConfig;
use super::continuation::Conversations;
use super::held::{End, Request};
use crate::routing::block::BlockSize;
use crate::trace::anonymize::{Anonymizer, Salt};
use crate::trace::provenance::Provenance;
use crate::trace::record::Record;
use crate::trace::writer::{Target, Writer};
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

type DrawSalt = Box<dyn FnMut() -> io::Result<[u8; 16]> + Send>;

pub(super) struct Files {
    config: RecorderConfig,
    salt: DrawSalt,
    current: Option<Current>,
    /// Those that are there, the oldest first.
    numbers: VecDeque<u64>,
}

/// The file that is being written.
struct Current {
    writer: Writer<Counted>,
    anonymizer: Anonymizer,
    conversations: Conversations,
    requests: u64,
}

/// A file that knows its size. Not buffered: a line is written when it is complete. Locked, so that another recorder that
/// starts in this folder knows that somebody is still writing.
struct Counted {
    file: File,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Files {
    pub(super) fn open(config: RecorderConfig, salt: DrawSalt) -> io::Result<Self> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&config.folder)? {
            numbers.extend(entry?.file_name().to_str().and_then(number));
        }
        numbers.sort_unstable();
        let files = Files { config, salt, current: None, numbers: numbers.into() };
        if let Some(&last) = files.numbers.back() {
            files.mend(last)?;
        }
        Ok(files)
    }

    /// Writes a request that ended well; true when that began a new file.
    pub(super) fn write(&mut self, request: &Request) -> io::Result<bool> {
        let new = self.current.is_none();
        let current = match &mut self.current {
            Some(current) => current,
            None => {
                let begun = self.begin()?;
                self.current.insert(begun)
            }
        };
        current.write(request)?;
        let full = current.writer.get_ref().bytes >= self.config.file_bytes_max
            || current.anonymizer.distinct_blocks() >= self.config.file_blocks_max
            || current.requests >= self.config.file_requests_max;
        if full {
            self.current = None;
        }
        Ok(new)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.config.folder.join(format!("recording-{number:06}.jsonl"))
    }

    /// Begins the next file; earlier recordings are never overwritten, but the oldest beyond the limit are deleted.
    fn begin(&mut self) -> io::Result<Current> {
        let anonymizer = Anonymizer::new(Salt::drawn(&mut self.salt)?);
        let mut number = self.numbers.back().map_or(1, |last| last + 1);
        let file = loop {
            match OpenOptions::new().write(true).create_new(true).open(self.path(number)) {
                // Of another recorder in this folder.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                other => break other?,
            }
        };
        // Where there are no locks, two recorders must not share a folder.
        let _ = file.try_lock();
        self.numbers.push_back(number);
        while self.numbers.len() > self.config.files_max.max(1)
            && let Some(oldest) = self.numbers.pop_front()
        {
            match fs::remove_file(self.path(oldest)) {
                // Somebody took it away: that is what it is for.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        let counted = Counted { file, bytes: 0 };
        let writer = Writer::new(counted, Target::QwenBailian, BlockSize::DEFAULT, &Provenance::Real)?;
        Ok(Current { writer, anonymizer, conversations: Conversations::default(), requests: 0 })
    }

    /// Cuts what a killed process may have left after the last whole line.
    fn mend(&self, number: u64) -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).write(true).open(self.path(number))?;
        if file.try_lock().is_err() {
            return Ok(());
        }
        let mut end = file.seek(SeekFrom::End(0))?;
        let mut buffer = [0; 1 << 12];
        while end > 0 {
            let start = end.saturating_sub(buffer.len() as u64);
            let piece = &mut buffer[..(end - start) as usize];
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(piece)?;
            if let Some(at) = piece.iter().rposition(|&byte| byte == b'\n') {
                end = start + at as u64 + 1;
                break;
            }
            end = start;
        }
        file.set_len(end)
    }
}

/// The number in the name of a recording.
fn number(name: &str) -> Option<u64> {
    name.strip_prefix("recording-")?.strip_suffix(".jsonl")?.parse().ok()
}

impl Current {
    fn write(&mut self, request: &Request) -> io::Result<()> {
        let output_tokens = match request.end {
            Some(End::Well { output_tokens, .. }) => output_tokens,
            Some(End::Badly) | None => return Ok(()),
        };
        let chat = self.requests;
        // What a client says of its conversations goes before what prompts tell.
        let parent = if request.session.is_some() { None } else { self.conversations.place(chat, request) };
        let record = Record {
            at: request.at,
            prompt_tokens: request.prompt_tokens,
            output_tokens,
            blocks: request.blocks().to_vec(),
            chat: Some(chat),
            parent,
            session: request.session,
            turn: None,
            kind: request.kind.clone(),
        };
        self.requests += 1;
        self.writer.write(&self.anonymizer.anonymize(&record))
    }
}
