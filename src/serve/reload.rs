//! Reads the configuration again while the router runs, and puts it in force: whole, or not at all.
//!
//! It is read on SIGHUP, and when the file's text changed. The text is compared rather than the time of a change, since a
//! ConfigMap's file is a link that is turned to another folder, and two looks must agree, since a file may be half written.
//!
//! What goes by the configuration is a [`Part`]. All are asked first, and every objection is reported; only when there is none
//! do all of them change.

use super::core::Core;
use super::fleet::reconcile::Wanted;
use super::telemetry::labels::ReloadOutcome;
use super::tokenizer::Tokenizers;
use crate::config::{Config, Origin, Problem, ReadError};
use crate::routing::Fact;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Something that goes by the configuration.
pub(super) trait Part: Send + Sync {
    /// Looks at what is to come, and says every objection. Otherwise it gives the step that puts it in force, which is taken
    /// once no part objects, and cannot fail.
    fn prepare(&self, now: &Config, next: &Config) -> Result<Step, Vec<Problem>>;
}

/// Puts in force what was prepared.
pub(super) type Step = Box<dyn FnOnce() + Send>;

/// Reads the configuration again, on demand.
pub(super) struct Reloader {
    core: Arc<Core>,
    origin: Origin,
    hangups: Signal,
    /// In force.
    config: Config,
    /// The file's text when it was last taken in or refused; `None` where it could not be read.
    seen: Option<String>,
    parts: Vec<Box<dyn Part>>,
}

/// Where the configuration came from, and what asks for another look at it. From here on SIGHUP ends the process no more.
pub struct Watched {
    origin: Origin,
    hangups: Signal,
}

impl Watched {
    /// A file under its environment.
    pub fn new(origin: Origin) -> io::Result<Self> {
        Ok(Watched { origin, hangups: signal(SignalKind::hangup())? })
    }
}

/// How a look went.
enum Look {
    Applied,
    Unchanged,
    Refused(Vec<String>),
}

impl Reloader {
    pub fn new(core: Arc<Core>, watched: Watched, config: Config, parts: Vec<Box<dyn Part>>) -> Self {
        let Watched { origin, hangups } = watched;
        // Whether the file is what it was when the configuration was read is found by the first look.
        Reloader { core, origin, hangups, config, seen: None, parts }
    }

    /// Looks again and again, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        self.seen = self.origin.text().ok();
        // What changed between the start and this look is no news where it says the same.
        if let Some(text) = self.seen.clone()
            && self.origin.parse(&text).ok().as_ref() != Some(&self.config)
        {
            self.take_in(Ok(text));
        }
        // As it was at the last look, where it is not what was seen: it is taken in once two looks agree.
        let mut changing: Option<Result<String, String>> = None;
        loop {
            let poll = self.config.reload.poll;
            let next_look = async {
                match poll {
                    // Half of the time: it takes two looks.
                    Some(poll) => tokio::time::sleep((poll / 2).max(Duration::from_millis(100))).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                hangup = self.hangups.recv() => {
                    if hangup.is_none() {
                        tracing::warn!("SIGHUP is heard no more");
                        stop.cancelled().await;
                        return Ok(());
                    }
                    changing = None;
                    let text = self.origin.text();
                    self.take_in(text);
                }
                () = next_look => {
                    let text = self.origin.text();
                    if text.as_ref().ok() == self.seen.as_ref() {
                        changing = None;
                        continue;
                    }
                    let now = text.as_ref().map(String::clone).map_err(ToString::to_string);
                    if changing.as_ref() == Some(&now) {
                        changing = None;
                        self.take_in(text);
                    } else {
                        changing = Some(now);
                    }
                }
            }
        }
    }

    fn take_in(&mut self, text: Result<String, ReadError>) {
        self.seen = text.as_ref().ok().cloned();
        let look = match text.and_then(|text| self.origin.parse(&text)) {
            Ok(next) if next == self.config => Look::Unchanged,
            Ok(next) => self.put_in_force(next),
            Err(ReadError::Invalid { source, .. }) => {
                Look::Refused(source.problems.iter().map(ToString::to_string).collect())
            }
            Err(error @ ReadError::Read { .. }) => Look::Refused(vec![error.to_string()]),
        };
        let path = self.origin.path().display();
        let (outcome, problems) = match look {
            Look::Applied => {
                tracing::info!(%path, "the configuration was read again and is in force");
                (ReloadOutcome::Applied, Vec::new())
            }
            Look::Unchanged => {
                tracing::info!(%path, "the configuration was read again and says the same");
                (ReloadOutcome::Unchanged, Vec::new())
            }
            Look::Refused(problems) => {
                let all = problems.join("\n  ");
                tracing::error!(%path, "the configuration was read again and is refused; the one before stays:\n  {all}");
                (ReloadOutcome::Refused, problems)
            }
        };
        self.core.reloaded(outcome, problems);
    }

    fn put_in_force(&mut self, next: Config) -> Look {
        let mut problems = self.config.fixed_changes(&next);
        let mut steps = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            match part.prepare(&self.config, &next) {
                Ok(step) => steps.push(step),
                Err(more) => problems.extend(more),
            }
        }
        if !problems.is_empty() {
            return Look::Refused(problems.iter().map(ToString::to_string).collect());
        }
        steps.into_iter().for_each(|step| step());
        self.core.set_settings(next.settings());
        self.config = next;
        Look::Applied
    }
}

/// `[routing]` as far as it may change, `[admission]`, `[http]`, `[logs]`.
pub(super) struct Limits {
    pub core: Arc<Core>,
    pub tokenizers: Arc<Tokenizers>,
}

impl Part for Limits {
    fn prepare(&self, _now: &Config, next: &Config) -> Result<Step, Vec<Problem>> {
        let (core, tokenizers) = (Arc::clone(&self.core), Arc::clone(&self.tokenizers));
        let (rules, admission, http, logs) = (next.routing.rules(), next.admission, next.http, next.logs);
        Ok(Box::new(move || {
            core.admission().set(&admission);
            core.learn(Fact::Ruled { rules }).expect("rules can always change");
            core.metrics().ruled(&core.router().config());
            core.set_limits(http, logs);
            tokenizers.set_within(http.tokenize_max);
        }))
    }
}

/// `[[instances]]` and `[discovery]`.
pub(super) struct Fleet {
    /// Bounded by how often a file is read.
    pub wanted: mpsc::UnboundedSender<Wanted>,
}

impl Part for Fleet {
    fn prepare(&self, _now: &Config, next: &Config) -> Result<Step, Vec<Problem>> {
        let wanted = self.wanted.clone();
        let next = Wanted { instances: next.instances.clone(), discovery: next.discovery.clone() };
        // Nobody takes it where the router stops.
        Ok(Box::new(move || _ = wanted.send(next)))
    }
}
