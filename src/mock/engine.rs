//! The simulated instance on the wall clock.
//!
//! Time in here is model time, `speed` times the wall's. Each step begins exactly where the one before it ended; on every
//! wake-up all steps whose end has passed are run, so a timer that fires a millisecond late delays what is seen, never
//! what happens.

use super::prompt::Sequence;
use super::publisher::Batch;
use super::wire::{self, WireEvent};
use crate::routing::Time;
use crate::sim::{CacheEvent, Instance, InstanceConfig, InstanceStats, Progress, Work};
use bytes::Bytes;
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

/// Requests on their way to the engine, at most; further ones wait.
const COMMANDS_MAX: usize = 1024;
/// Steps run before new requests are looked at, when far behind.
const STEPS_MAX: usize = 256;

/// How the HTTP side speaks to the engine.
pub(super) type Commands = mpsc::Sender<Command>;

/// What the engine can be told.
pub(super) enum Command {
    /// Run a request; it is aborted when the receiver of its tokens goes away.
    Submit(Job),
    /// Tell how things stand.
    Report(oneshot::Sender<Report>),
}

/// A request.
pub(super) struct Job {
    pub sequence: Sequence,
    /// Must have room for every token, so that a slow reader cannot hold up the engine.
    pub tokens: mpsc::Sender<Token>,
}

/// A token was generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// Prompt tokens that came from the cache.
    pub cached_tokens: u32,
    /// It was the last one.
    pub last: bool,
}

/// How an engine stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub running: usize,
    pub waiting: usize,
    pub cache_usage: f64,
    pub stats: InstanceStats,
    pub prompt_tokens: u64,
    pub generated_tokens: u64,
}

/// The engine, to be run.
pub(super) struct Engine {
    instance: Instance,
    commands: mpsc::Receiver<Command>,
    events: Events,
    jobs: HashMap<u64, Job>,
    next_id: u64,
    step_ends: Option<Time>,
    origin: Instant,
    speed: f64,
    prompt_tokens: u64,
    generated_tokens: u64,
    progress: Vec<Progress>,
    changes: Vec<CacheEvent>,
}

/// Cache events on their way out.
struct Events {
    topic: Bytes,
    sequence: u64,
    batches: mpsc::Sender<Batch>,
}

impl Engine {
    pub fn new(config: InstanceConfig, speed: f64, topic: String, batches: mpsc::Sender<Batch>) -> (Self, Commands) {
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let engine = Engine {
            instance: Instance::new(config),
            commands,
            events: Events { topic: Bytes::from(topic), sequence: 0, batches },
            jobs: HashMap::new(),
            next_id: 0,
            step_ends: None,
            origin: Instant::now(),
            speed,
            prompt_tokens: 0,
            generated_tokens: 0,
            progress: Vec::new(),
            changes: Vec::new(),
        };
        (engine, sender)
    }

    /// Runs until nobody can send requests any more.
    pub async fn run(mut self) {
        loop {
            let behind = self.catch_up();
            let due = self.wall(self.step_ends);
            let woken = tokio::select! {
                command = self.commands.recv() => command.map(Some),
                () = tokio::task::yield_now(), if behind => Some(None),
                () = at(due), if !behind => Some(None),
            };
            match woken {
                None => return,
                Some(None) => {}
                Some(Some(command)) => {
                    // What was due before it came happens before it.
                    self.catch_up();
                    self.obey(command);
                    while let Ok(command) = self.commands.try_recv() {
                        self.obey(command);
                    }
                    self.begin_if_idle();
                }
            }
        }
    }

    /// Runs the steps whose end has passed; `true` when some are left.
    fn catch_up(&mut self) -> bool {
        let now = self.now();
        for _ in 0..STEPS_MAX {
            match self.step_ends {
                Some(ends) if ends <= now => self.end_step(ends),
                Some(_) | None => return false,
            }
        }
        true
    }

    fn end_step(&mut self, ends: Time) {
        self.instance.end_step(&mut self.progress, &mut self.changes);
        self.events.publish(&self.changes, &self.jobs, self.instance.config().block_size.tokens());
        self.changes.clear();
        for progress in self.progress.drain(..) {
            self.generated_tokens += 1;
            let token = Token { cached_tokens: progress.cached_tokens, last: progress.finished };
            if let Some(job) = self.jobs.get(&progress.id) {
                // There is room for it, so an error means that nobody reads: seen to below.
                let _ = job.tokens.try_send(token);
            }
            if progress.finished {
                self.jobs.remove(&progress.id);
            }
        }
        self.abort_abandoned();
        self.step_ends = self.instance.begin_step(ends);
    }

    /// To be called between steps, when nothing of them is still to be reported.
    fn abort_abandoned(&mut self) {
        let instance = &mut self.instance;
        self.jobs.retain(|&id, job| {
            let abandoned = job.tokens.is_closed();
            if abandoned {
                instance.abort(id);
            }
            !abandoned
        });
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit(job) => self.submit(job),
            Command::Report(reply) => {
                // Whoever asked may be gone.
                let _ = reply.send(self.report());
            }
        }
    }

    fn submit(&mut self, job: Job) {
        let id = self.next_id;
        self.next_id += 1;
        let sequence = &job.sequence;
        let work = Work {
            id,
            at: self.now(),
            prompt_tokens: sequence.prompt_tokens,
            output_tokens: sequence.output().len() as u32,
            chain: sequence.chain.clone(),
            ..Work::default()
        };
        match self.instance.submit(work) {
            Ok(()) => {
                self.prompt_tokens += u64::from(sequence.prompt_tokens);
                self.jobs.insert(id, job);
            }
            // The model length fits in the cache, so this is a defect here; the client sees its request fail.
            Err(error) => tracing::error!(%error, "a request of a legal length does not fit"),
        }
    }

    fn begin_if_idle(&mut self) {
        if self.step_ends.is_none() {
            self.step_ends = self.instance.begin_step(self.now());
        }
    }

    fn report(&self) -> Report {
        Report {
            running: self.instance.running(),
            waiting: self.instance.waiting(),
            cache_usage: self.instance.cache_usage(),
            stats: self.instance.stats(),
            prompt_tokens: self.prompt_tokens,
            generated_tokens: self.generated_tokens,
        }
    }

    fn now(&self) -> Time {
        Time::from_secs_f64(self.origin.elapsed().as_secs_f64() * self.speed)
    }

    fn wall(&self, time: Option<Time>) -> Option<Instant> {
        time.map(|time| self.origin + Duration::from_secs_f64(time.as_secs_f64() / self.speed))
    }
}

impl Events {
    /// Sends one step's changes as one batch, if there are any.
    fn publish(&mut self, changes: &[CacheEvent], jobs: &HashMap<u64, Job>, block_size: u32) {
        if changes.is_empty() {
            return;
        }
        let events: Vec<WireEvent<'_>> = changes.iter().map(|&change| event(change, jobs, block_size)).collect();
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let payload = Bytes::from(wire::encode(seconds, &events));
        let batch = Batch { topic: self.topic.clone(), sequence: self.sequence, payload };
        self.sequence += 1;
        if self.batches.try_send(batch).is_err() {
            tracing::warn!("a batch of cache events was dropped: a subscriber is too slow");
        }
    }
}

fn event(change: CacheEvent, jobs: &HashMap<u64, Job>, block_size: u32) -> WireEvent<'_> {
    match change {
        CacheEvent::Removed(hash) => WireEvent::Removed { block_hash: hash.0 },
        CacheEvent::Stored { id, first, count } => {
            let sequence = &jobs.get(&id).expect("a job is kept until its last step has been reported").sequence;
            let blocks = first as usize..(first + count) as usize;
            let tokens = (first * block_size) as usize..((first + count) * block_size) as usize;
            WireEvent::Stored {
                parent_block_hash: first.checked_sub(1).map(|parent| sequence.chain[parent as usize].0),
                block_hashes: sequence.chain[blocks].iter().map(|hash| hash.0).collect(),
                token_ids: &sequence.tokens[tokens],
                block_size,
                cache_salt: sequence.cache_salt.as_deref().filter(|_| first == 0),
            }
        }
    }
}

/// Never, for `None`.
async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::block::BlockSize;
    use crate::sim::{Eviction, Preset};

    const PRESET: Preset = Preset::Qwen3_32bH100Tp2;

    fn engine(speed: f64) -> (Engine, Commands, mpsc::Receiver<Batch>) {
        let config = InstanceConfig {
            block_size: BlockSize::DEFAULT,
            blocks: 100,
            sequences_max: PRESET.sequences_max(),
            model: PRESET.step_model(),
            eviction: Eviction::default(),
        };
        let (batches, published) = mpsc::channel(100);
        let (engine, commands) = Engine::new(config, speed, String::new(), batches);
        (engine, commands, published)
    }

    /// How long 200 tokens take on the wall clock.
    async fn wall_time(speed: f64) -> Duration {
        let (engine, commands, _published) = engine(speed);
        let began = Instant::now();
        let running = tokio::spawn(engine.run());
        let sequence = Sequence::new(vec![1; 40], 200, None, "m", BlockSize::DEFAULT);
        let (tokens, mut received) = mpsc::channel(200);
        commands.send(Command::Submit(Job { sequence, tokens })).await.ok().unwrap();
        let mut count = 0;
        while received.recv().await.is_some() {
            count += 1;
        }
        assert_eq!(count, 200);
        drop(commands);
        running.await.unwrap();
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn timers_of_a_millisecond_do_not_stretch_steps() {
        let model_time = wall_time(1.0).await;
        assert!(model_time > Duration::from_millis(200 * 14), "{model_time:?}");
        // At this speed a step takes 14 µs, and every timer is a millisecond or so late.
        let fast = wall_time(1000.0).await;
        assert!(fast < model_time / 1000 + Duration::from_millis(3), "{fast:?} for {model_time:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn each_step_that_changed_the_cache_is_one_batch() {
        let (engine, commands, mut published) = engine(1.0);
        let running = tokio::spawn(engine.run());
        let sequence = Sequence::new(vec![1; 40], 30, None, "m", BlockSize::DEFAULT);
        let (tokens, mut received) = mpsc::channel(30);
        commands.send(Command::Submit(Job { sequence, tokens })).await.ok().unwrap();
        while received.recv().await.is_some() {}
        drop(commands);
        running.await.unwrap();
        // The prompt's 2 blocks at once; then one when token 48 is computed, and one at token 64, of 69.
        let mut sequences = Vec::new();
        while let Some(batch) = published.recv().await {
            sequences.push(batch.sequence);
        }
        assert_eq!(sequences, [0, 1, 2]);
    }
}
