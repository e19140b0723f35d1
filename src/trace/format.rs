//! The formats that can be read, each in a file of its own.

mod mooncake;
mod qwen_bailian;

use super::error::LineError;
use super::record::Record;
use crate::routing::block::{BlockSize, ContentHash};
use serde::Deserialize;
use serde_json::Number;
use std::fmt;
use std::time::Duration;

/// How a trace is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Alibaba's anonymised Qwen serving traces.
    QwenBailian,
    /// The Mooncake traces of Kimi.
    Mooncake,
}

/// What a trace counts time in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds, with or without a fraction.
    Seconds,
    /// Milliseconds, whole.
    Milliseconds,
}

/// What a line holds.
#[derive(Debug)]
pub(super) enum Parsed {
    Record {
        record: Record,
        /// The number of ids is not that of the blocks that the prompt touches.
        miscounted: bool,
    },
    Dropped(DropReason),
}

/// Why a well-formed line is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DropReason {
    NoPrompt,
    NoOutput,
}

/// The fields that both formats share; others are not needed and not checked.
#[derive(Debug, Deserialize)]
struct Line {
    timestamp: Number,
    input_length: i64,
    output_length: i64,
    hash_ids: Vec<u64>,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 2] = [Format::QwenBailian, Format::Mooncake];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Format::QwenBailian => qwen_bailian::NAME,
            Format::Mooncake => mooncake::NAME,
        }
    }

    /// Its name and how to know it.
    pub const fn description(self) -> &'static str {
        match self {
            Format::QwenBailian => qwen_bailian::DESCRIPTION,
            Format::Mooncake => mooncake::DESCRIPTION,
        }
    }

    /// Tokens in each of its blocks.
    pub const fn block_size(self) -> BlockSize {
        match self {
            Format::QwenBailian => qwen_bailian::BLOCK_SIZE,
            Format::Mooncake => mooncake::BLOCK_SIZE,
        }
    }

    /// What it counts time in.
    pub const fn time_unit(self) -> TimeUnit {
        match self {
            Format::QwenBailian => TimeUnit::Seconds,
            Format::Mooncake => TimeUnit::Milliseconds,
        }
    }

    /// The format whose first record is `line`, or what the line is like instead.
    pub(super) fn detect(line: &str) -> Result<Format, String> {
        let fields = match serde_json::from_str::<serde_json::Value>(line) {
            Ok(serde_json::Value::Object(fields)) => fields,
            Ok(_) => return Err("is JSON, but not an object".to_owned()),
            Err(error) if error.is_eof() => return Err("is cut off in the middle of a JSON object".to_owned()),
            Err(_) => return Err("is not JSON".to_owned()),
        };
        let has = |names: &[&str]| names.iter().all(|name| fields.contains_key(*name));
        if has(qwen_bailian::FIELDS) {
            Ok(Format::QwenBailian)
        } else if has(mooncake::FIELDS) {
            Ok(Format::Mooncake)
        } else {
            let names: Vec<&str> = fields.keys().map(String::as_str).take(12).collect();
            Err(format!("has the fields {}", names.join(", ")))
        }
    }

    pub(super) fn parse(self, line: &str, unit: TimeUnit) -> Result<Parsed, LineError> {
        let line: Line = serde_json::from_str(line).map_err(|error| match error.is_eof() {
            true => LineError::Truncated,
            false => LineError::Malformed { reason: format!("not a {} record: {}", self.name(), without_line(&error)) },
        })?;
        let at = unit.duration(&line.timestamp)?;
        let Some(prompt_tokens) = tokens("input_length", line.input_length)? else {
            return Ok(Parsed::Dropped(DropReason::NoPrompt));
        };
        let Some(output_tokens) = tokens("output_length", line.output_length)? else {
            return Ok(Parsed::Dropped(DropReason::NoOutput));
        };
        let miscounted = self.check_ids(line.hash_ids.len(), prompt_tokens)?;
        let mut blocks: Vec<ContentHash> = line.hash_ids.into_iter().map(ContentHash).collect();
        blocks.truncate(self.block_size().touched_blocks(prompt_tokens) as usize);
        let record = Record { at, prompt_tokens, output_tokens, blocks };
        Ok(Parsed::Record { record, miscounted })
    }

    /// Whether the ids are miscounted; an error when they are those of another format's blocks.
    fn check_ids(self, ids: usize, prompt_tokens: u32) -> Result<bool, LineError> {
        let touched = |format: Format| format.block_size().touched_blocks(prompt_tokens) as usize;
        if ids == touched(self) {
            return Ok(false);
        }
        match Format::ALL.into_iter().find(|&other| ids == touched(other)) {
            Some(other) => Err(LineError::BlockSize {
                ids,
                tokens: prompt_tokens,
                block_size: self.block_size().tokens(),
                looks_like: other.block_size().tokens(),
                format: self,
            }),
            None => Ok(true),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TimeUnit {
    /// A month: longer than any published trace, shorter than two hours of milliseconds read as seconds.
    const SECONDS_MAX: f64 = 31.0 * 86_400.0;

    fn duration(self, timestamp: &Number) -> Result<Duration, LineError> {
        let value = timestamp.as_f64().unwrap_or(f64::NAN);
        let wrong = |why, other: TimeUnit| {
            let (other, other_flag) = match other {
                TimeUnit::Seconds => ("seconds", "s"),
                TimeUnit::Milliseconds => ("milliseconds", "ms"),
            };
            Err(LineError::TimeUnit { timestamp: timestamp.to_string(), why, other, other_flag })
        };
        if !value.is_finite() || value < 0.0 {
            return Err(LineError::Malformed {
                reason: format!("timestamp {timestamp} is not a time since the start"),
            });
        }
        match self {
            TimeUnit::Seconds if value > Self::SECONDS_MAX => {
                wrong("is more than a month after the start, in seconds", TimeUnit::Milliseconds)
            }
            TimeUnit::Milliseconds if value.fract() != 0.0 => {
                wrong("is not a whole number of milliseconds", TimeUnit::Seconds)
            }
            // Through whole microseconds, so that 0.123 s is 123 ms exactly.
            TimeUnit::Seconds => Ok(Duration::from_micros((value * 1e6).round() as u64)),
            TimeUnit::Milliseconds => Ok(Duration::from_millis(value as u64)),
        }
    }
}

/// What the parser says, with the column; it sees one line at a time, so its line number would mislead.
fn without_line(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let said = message.rsplit_once(" at line ").map_or(message.as_str(), |(said, _)| said);
    format!("{said} at column {}", error.column())
}

/// A token count; `None` when it is zero or less, which published traces use for failed requests.
fn tokens(field: &str, count: i64) -> Result<Option<u32>, LineError> {
    match u32::try_from(count) {
        Ok(0) => Ok(None),
        Ok(count) => Ok(Some(count)),
        Err(_) if count < 0 => Ok(None),
        Err(_) => Err(LineError::Malformed { reason: format!("{field} {count} is more than a prompt can have") }),
    }
}
