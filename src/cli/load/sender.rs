//! Sends requests when they are due, whatever became of those before: an open loop.

use super::Load;
use super::completion::{Body, Completion, complete};
use crate::cli::reach::Http;
use crate::replay::{Answered, Workload};
use crate::trace::{Record, Trace, prompt};
use anyhow::{Context, Result, ensure};
use hyper::Uri;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

pub(super) struct Sender<'a> {
    args: &'a Load,
    http: Http,
    key: Option<HeaderValue>,
    url: Arc<str>,
}

/// What became of all requests.
#[derive(Default)]
pub(super) struct Outcome {
    pub answered: Vec<Answered>,
    /// How often each thing went wrong.
    failures: BTreeMap<String, u64>,
    /// Left out for the length of their prompts.
    too_long: u64,
    /// Under way or yet to come when it was told to stop.
    dropped: u64,
}

/// Kinds of failure that are told apart; all others are one more.
const FAILURES_MAX: usize = 16;

type Reply = Result<Answered>;

impl<'a> Sender<'a> {
    pub fn new(args: &'a Load) -> Result<Self> {
        let url = format!("{}/v1/completions", args.url.trim_end_matches('/'));
        let parsed: Uri = url.parse().with_context(|| format!("{:?} is not a URL", args.url))?;
        ensure!(
            matches!(parsed.scheme_str(), Some("http" | "https")),
            "{:?} is not an http:// or https:// URL",
            args.url
        );
        Ok(Sender { args, http: args.reach.http()?, key: args.reach.key()?, url: url.into() })
    }

    /// Sends the whole trace, or what is due until `stop`, and waits for the answers.
    pub async fn send(&self, trace: &Trace, workload: &Workload, stop: impl Future<Output = ()>) -> Result<Outcome> {
        let bar = ProgressBar::new(workload.requests()).with_style(style());
        let mut stop = pin!(stop);
        let (mut outcome, mut under_way) = (Outcome::default(), JoinSet::new());
        let room = Arc::new(Semaphore::new(self.args.in_flight_max as usize));
        let start = Instant::now();
        let mut stopped = false;
        let mut seen = 0;
        for (record, arrival) in trace.records()?.zip(workload.arrivals(self.args.time_scale, self.args.seed)) {
            let record = record?;
            seen += 1;
            if self.args.prompt_tokens_max.is_some_and(|most| record.prompt_tokens > most) {
                outcome.too_long += 1;
                bar.inc(1);
                continue;
            }
            let after_start = Duration::from_nanos(arrival.at.as_nanos());
            let due = start + after_start;
            let permit = async {
                sleep_until(due).await;
                room.clone().acquire_owned().await
            };
            let permit = tokio::select! {
                biased;
                () = &mut stop => {
                    stopped = true;
                    seen -= 1;
                    break;
                }
                permit = permit => permit.context("the semaphore is never closed")?,
            };
            let request = self.request(&record, trace, start, due)?;
            under_way.spawn(async move {
                let reply = request.await;
                drop(permit);
                reply
            });
            while let Some(reply) = under_way.try_join_next() {
                outcome.take(reply, &bar);
            }
            bar.set_message(format!("{} in flight, {} failed", under_way.len(), outcome.failed()));
        }
        while !stopped && !under_way.is_empty() {
            tokio::select! {
                biased;
                () = &mut stop => stopped = true,
                Some(reply) = under_way.join_next() => outcome.take(reply, &bar),
            }
            bar.set_message(format!("{} in flight, {} failed", under_way.len(), outcome.failed()));
        }
        outcome.dropped = under_way.len() as u64 + workload.requests() - seen;
        under_way.shutdown().await;
        bar.finish_and_clear();
        Ok(outcome)
    }

    fn request(
        &self,
        record: &Record,
        trace: &Trace,
        start: Instant,
        due: Instant,
    ) -> Result<impl Future<Output = Reply> + Send + use<>> {
        let mut tokens = prompt::tokens(record, trace.block_size());
        tokens.iter_mut().for_each(|token| *token %= self.args.vocabulary);
        let output_tokens = record.output_tokens.min(self.args.output_tokens_max.unwrap_or(u32::MAX)).max(1);
        let body: Bytes = serde_json::to_vec(&Body::new(&self.args.model, &tokens, output_tokens))?.into();
        let (http, key, url) = (self.http.clone(), self.key.clone(), self.url.clone());
        let longest = Duration::from_secs(self.args.timeout);
        Ok(async move {
            let late = due.elapsed();
            let answer = timeout(longest, complete(&http, &url, key, body)).await;
            let answer = answer.with_context(|| format!("it did not answer within {longest:?}"))??;
            Ok(answered(answer, due - start, due, late))
        })
    }
}

fn answered(answer: Completion, after_start: Duration, due: Instant, late: Duration) -> Answered {
    let Completion { first_token, last_token, prompt_tokens, output_tokens, cached_tokens, instance } = answer;
    let [first_token, finished] = [first_token, last_token].map(|at| at.duration_since(due));
    Answered { due: after_start, late, first_token, finished, prompt_tokens, output_tokens, cached_tokens, instance }
}

impl Outcome {
    fn take(&mut self, reply: Result<Reply, JoinError>, bar: &ProgressBar) {
        bar.inc(1);
        match reply {
            Ok(Ok(answered)) => self.answered.push(answered),
            Ok(Err(error)) => self.fail(format!("{error:#}")),
            Err(error) => self.fail(error.to_string()),
        }
    }

    fn fail(&mut self, why: String) {
        let known = self.failures.contains_key(&why) || self.failures.len() < FAILURES_MAX;
        *self.failures.entry(if known { why } else { "something else".to_owned() }).or_default() += 1;
    }

    /// Requests that were sent and not answered.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// What a reader of the figures must know, a line each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> =
            self.failures.iter().map(|(why, count)| format!("{count} requests failed: {why}")).collect();
        if self.too_long > 0 {
            notes.push(format!("{} requests were left out: their prompts are too long", self.too_long));
        }
        if self.dropped > 0 {
            notes.push(format!("stopped: {} requests were under way or yet to come", self.dropped));
        }
        let late = self.answered.iter().map(|answer| answer.late).max().unwrap_or_default();
        if late > Duration::from_millis(100) {
            notes.push(format!(
                "requests were sent up to {:.1} s late: --in-flight-max, or too busy a machine",
                late.as_secs_f64()
            ));
        }
        let silent = self.answered.iter().filter(|answer| answer.cached_tokens.is_none()).count();
        if silent > 0 {
            notes.push(format!("{silent} answers do not say how much was cached; hit ratios are of the others"));
        }
        notes
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} requests  {msg}  {elapsed}, {eta} to go")
        .expect("the template is well-formed")
}
