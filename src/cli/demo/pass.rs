//! One policy's turn: the trace at its pace, open loop.

use super::fleet::{Fleet, MODEL};
use crate::cli::client::{Answer, Client};
use crate::cli::reach::Reach;
use crate::replay::{Balance, Summary};
use crate::routing::block::BlockSize;
use crate::routing::policy::PolicyKind;
use crate::serve::proto::RouteRequest;
use crate::trace::{Record, prompt};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// How time runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Multiplies the recorded time between requests.
    pub time_scale: f64,
    /// How many times faster than real time everything runs.
    pub speed: f64,
}

/// What came of a pass.
pub(super) struct Pass {
    pub policy: PolicyKind,
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    /// Seconds of the model's time.
    pub ttft: Summary,
    /// Requests, by instance.
    pub requests: Balance,
    /// Prompt tokens that had to be computed, by instance.
    pub work: Balance,
}

impl Pass {
    pub fn token_hit_ratio(&self) -> f64 {
        self.cached_tokens as f64 / self.prompt_tokens.max(1) as f64
    }
}

struct Timed {
    due: Instant,
    prompt_tokens: u32,
    answer: Answer,
}

/// Sends every record when it is due, whether or not the ones before it were answered, and waits for all answers.
pub(super) async fn run(
    fleet: &Fleet,
    policy: PolicyKind,
    records: &[Record],
    block_tokens: u32,
    pace: Pace,
) -> Result<Pass> {
    let block_size = BlockSize::new(block_tokens)?;
    let client = Client::connect(&format!("http://{}", fleet.router()), &Reach::default()).await?;
    let bar = progress(policy, records.len() as u64);
    let mut sent: JoinSet<Result<Timed>> = JoinSet::new();
    let mut answered = Vec::with_capacity(records.len());
    let begin = Instant::now();
    for record in records {
        let due = begin + record.at.mul_f64(pace.time_scale / pace.speed);
        let tokens = prompt::tokens(record, block_size);
        let request = RouteRequest { model: MODEL.to_owned(), token_ids: tokens, ..RouteRequest::default() };
        let output_tokens = record.output_tokens;
        sleep_until(due).await;
        let (client, prompt_tokens) = (client.clone(), record.prompt_tokens);
        sent.spawn(async move {
            let answer = client.complete(request, output_tokens).await?;
            Ok(Timed { due, prompt_tokens, answer })
        });
        while let Some(done) = sent.try_join_next() {
            answered.push(done.context("a request panicked")??);
            bar.inc(1);
        }
    }
    while let Some(done) = sent.join_next().await {
        answered.push(done.context("a request panicked")??);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(summary(policy, &answered, fleet.instances(), pace))
}

fn summary(policy: PolicyKind, answered: &[Timed], instances: usize, pace: Pace) -> Pass {
    let mut by_instance: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for timed in answered {
        let (requests, work) = by_instance.entry(&timed.answer.routed.instance).or_default();
        *requests += 1.0;
        *work += f64::from(timed.prompt_tokens - timed.answer.cached_tokens);
    }
    let balance = |of: fn(&(f64, f64)) -> f64| {
        let mut amounts: Vec<f64> = by_instance.values().map(of).collect();
        // Those that got nothing.
        amounts.resize(instances, 0.0);
        Balance::of(&amounts)
    };
    let ttft = |timed: &Timed| (timed.answer.first_token - timed.due).mul_f64(pace.speed);
    Pass {
        policy,
        prompt_tokens: answered.iter().map(|timed| u64::from(timed.prompt_tokens)).sum(),
        cached_tokens: answered.iter().map(|timed| u64::from(timed.answer.cached_tokens)).sum(),
        ttft: Summary::of(answered.iter().map(ttft).collect::<Vec<Duration>>()),
        requests: balance(|&(requests, _)| requests),
        work: balance(|&(_, work)| work),
    }
}

fn progress(policy: PolicyKind, requests: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:<14} {wide_bar} {pos}/{len} requests  {elapsed}")
        .expect("the template is well-formed");
    ProgressBar::new(requests).with_style(style).with_prefix(policy.name())
}
