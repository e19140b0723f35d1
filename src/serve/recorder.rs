//! Tells the trace recorder, where there is one, of requests that are placed and of their ends.

use super::telemetry::labels::Recording as Outcome;
use super::telemetry::metrics::Metrics;
use crate::routing::{Decision, Fact, Prompt, Request, Time};
use crate::trace::{Arrival, Recorder, RecorderConfig};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The recorder, or nothing.
#[derive(Default)]
pub(super) struct Recording {
    recorder: Option<Recorder>,
    /// Requests of which no tokens are known.
    untokenized: AtomicU64,
}

/// Requests cannot be recorded.
#[derive(Debug, thiserror::Error)]
#[error("cannot record in {folder} (recorder.folder); it must be a folder that can be written to", folder = folder.display())]
pub struct RecorderError {
    folder: PathBuf,
    source: io::Error,
}

impl Recording {
    /// Begins, if there is anything configured. A request whose `lease` ran out is not waited for.
    pub fn start(config: Option<&RecorderConfig>, lease: Duration) -> Result<Self, RecorderError> {
        let recorder = match config {
            None => None,
            Some(config) => {
                let config = RecorderConfig { wait_max: lease, ..config.clone() };
                let folder = config.folder.clone();
                Some(Recorder::start(config, salt).map_err(|source| RecorderError { folder, source })?)
            }
        };
        Ok(Recording { recorder, untokenized: AtomicU64::new(0) })
    }

    /// A request was placed.
    pub fn placed(&self, request: &Request<'_>, decision: &Decision, at: Time) {
        let Some(recorder) = &self.recorder else { return };
        let Prompt::Tokens(tokens) = request.prompt else {
            self.untokenized.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let session = request.session.map(|session| session.0);
        let arrival = Arrival { at: at.since(Time::ZERO), namespace: request.namespace, tokens, session, kind: None };
        recorder.arrived(decision.request.0, &arrival);
    }

    /// Something was learnt, maybe that a request ended.
    pub fn learnt(&self, fact: &Fact<'_>, at: Time) {
        let Some(recorder) = &self.recorder else { return };
        if let Fact::Finished { request, output_tokens } = *fact {
            recorder.ended(request.0, at.since(Time::ZERO), output_tokens);
        } else if let Fact::Abandoned { request } = *fact {
            recorder.abandoned(request.0);
        }
    }

    /// Says once if writing failed.
    pub fn look(&self) {
        if let Some(error) = self.recorder.as_ref().and_then(Recorder::take_error) {
            tracing::error!(%error, "a recording could not be written: nothing is recorded any more");
        }
    }

    /// Sets what is looked up only when someone asks.
    pub fn totals(&self, metrics: &Metrics) {
        let recorded = self.recorder.as_ref().map(Recorder::recorded).unwrap_or_default();
        for (outcome, count) in [
            (Outcome::Written, recorded.written),
            (Outcome::Full, recorded.full),
            (Outcome::Late, recorded.late),
            (Outcome::Unfinished, recorded.unfinished),
            (Outcome::Empty, recorded.empty),
            (Outcome::Failed, recorded.failed),
            (Outcome::Untokenized, self.untokenized.load(Ordering::Relaxed)),
        ] {
            metrics.recorder_requests.of(outcome).absolute(count);
        }
        metrics.recorder_files.absolute(recorded.files);
        metrics.recorder_held_bytes.set(recorded.held_bytes as f64);
    }

    /// Writes what is held, and stops. It may take as long as that is.
    pub fn finish(&self) {
        if let Some(recorder) = &self.recorder {
            let recorded = recorder.finish();
            self.look();
            tracing::info!(requests = recorded.written, files = recorded.files, "recorded");
        }
    }
}

fn salt() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}
