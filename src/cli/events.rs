//! The server-sent events of a completion that is streamed.

use anyhow::{Context, Result, ensure};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

/// The events of one answer.
pub(super) struct Events {
    body: Incoming,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were given out.
    read: usize,
}

/// An event's length, at most.
const BYTES_MAX: usize = 16 << 20;

impl Events {
    /// Those of a body.
    pub fn of(body: Incoming) -> Self {
        Events { body, buffer: Vec::new(), read: 0 }
    }

    /// The next one's data; `None` at `[DONE]`.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        loop {
            while let Some(length) = self.buffer[self.read..].iter().position(|&byte| byte == b'\n') {
                let line = &self.buffer[self.read..self.read + length];
                self.read += length + 1;
                match line.strip_prefix(b"data: ").map(<[u8]>::trim_ascii_end) {
                    Some(b"[DONE]") => return Ok(None),
                    Some(json) => return Ok(Some(serde_json::from_slice(json)?)),
                    // The blank line between events.
                    None => {}
                }
            }
            self.buffer.drain(..std::mem::take(&mut self.read));
            ensure!(self.buffer.len() < BYTES_MAX, "its answer has an event of more than {BYTES_MAX} bytes");
            let frame = self.body.frame().await.context("its answer ended early")??;
            self.buffer.extend(frame.into_data().unwrap_or_default());
        }
    }
}
