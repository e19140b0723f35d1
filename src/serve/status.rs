//! Everything that the operator's page and `warmpath top` show, in one answer.

use super::core::Core;
use super::journal::{self, Entry, Step, Verdict, Why};
use super::telemetry::labels::{End, Label};
use super::telemetry::metrics::Progress;
use crate::routing::admission::Priority;
use crate::routing::{Availability, InstanceState, Knowledge};
use serde::{Deserialize, Serialize};

/// The router as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Which Warmpath this is.
    pub version: String,
    /// The policy in force, with what was tuned.
    pub policy: String,
    /// Seconds since it started.
    pub uptime_seconds: f64,
    /// Whether it is stopping.
    pub draining: bool,
    /// Is it routing well, and if not, why?
    pub verdict: Verdict,
    /// Requests placed and not ended.
    pub in_flight: usize,
    /// Who waits for an instance to have room.
    pub queue: Queue,
    /// Distinct blocks in the index.
    pub index_blocks: usize,
    /// Memory that the index takes.
    pub index_bytes: usize,
    /// Memory that the index may take.
    pub index_bytes_max: usize,
    /// The fleet, by id.
    pub instances: Vec<Instance>,
    /// Seconds from one step of the history to the next.
    pub step_seconds: u64,
    /// The last hour, earliest first.
    pub history: Vec<Step>,
    /// The last decisions, latest first.
    pub decisions: Vec<Placed>,
    /// The configuration in force: where, and what. Secrets are not in it.
    pub settings: Vec<(String, String)>,
    /// How it went when the configuration was last read again, if it was.
    #[serde(default)]
    pub reload: Option<Reloaded>,
    /// Who is asked for instances, and what they found.
    #[serde(default)]
    pub sources: Vec<Found>,
    /// What of the wanted fleet could not be had.
    #[serde(default)]
    pub fleet_problems: Vec<String>,
}

/// The configuration was read again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reloaded {
    /// `applied`, `unchanged` or `refused`.
    pub outcome: String,
    /// Seconds since then.
    pub age_seconds: f64,
    /// Why it was refused, if it was: everything that is wrong with it.
    pub problems: Vec<String>,
}

/// A source of instances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Which.
    pub source: String,
    /// How many it found, as far as it is believed.
    pub instances: usize,
    /// Whether it ever answered.
    pub asked: bool,
    /// Seconds since it found these.
    pub age_seconds: f64,
    /// Why it is not believed, or cannot be asked, if so.
    pub problem: Option<String>,
}

/// Requests that wait: because all instances that may take them are saturated, or because they are held for a moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// Requests of high, normal and low priority.
    pub requests: [usize; 3],
    /// Of these, how many are held.
    pub held: usize,
    /// Their prompt tokens.
    pub tokens: u64,
    /// How long the one that waits longest has waited.
    pub longest_seconds: f64,
    /// Requests refused so far because they could not wait, or not that long.
    pub shed: u64,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// What it is called.
    pub name: String,
    /// Its base URL.
    pub url: String,
    /// What it serves.
    pub model: String,
    /// `ready`, `draining` or `down`.
    pub availability: String,
    /// How far the index is to be believed: `exact`, `degraded`, `approximate` or `blind`.
    pub knowledge: String,
    /// Whether its cache events are subscribed to.
    pub kv_events_connected: bool,
    /// Distinct blocks that it is believed to hold.
    pub cached_blocks: usize,
    /// Requests waiting for their first token.
    pub prefill_requests: u32,
    /// Uncached prompt tokens that they wait for.
    pub prefill_tokens: u64,
    /// Estimated time until a new request's prefill would begin.
    pub prefill_wait_seconds: f64,
    /// Requests past their first token.
    pub decode_requests: u32,
    /// Prompt tokens that they attend to.
    pub decode_tokens: u64,
    /// The share of the last minute for which it was given prefill work.
    pub busy_share: f64,
    /// Requests that it was ever given.
    pub assigned: u64,
    /// Whether it has as much as it should be given.
    pub saturated: bool,
    /// What it says of itself, if it was asked and answered.
    pub reported: Option<ReportedLoad>,
    /// Requests that it reported beyond those that were sent there from here.
    pub foreign_requests: u32,
    /// Where nothing is published: blocks that it is believed to hold at most.
    pub approximate_blocks_max: Option<usize>,
}

/// An instance's load by its own word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportedLoad {
    /// Requests that it works on.
    pub running: u32,
    /// Requests that wait there.
    pub waiting: u32,
    /// The share of its KV blocks that running requests use, from 0 to 1.
    pub cache_usage: f64,
    /// Seconds since it said so.
    pub age_seconds: f64,
}

/// One of the last decisions, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placed {
    /// Its number.
    pub request: u64,
    /// Seconds since it was made.
    pub age_seconds: f64,
    /// Where the request went.
    pub instance: String,
    /// Prompt length; a guess where the prompt was not looked up.
    pub prompt_tokens: u32,
    /// Cached there, as far as the index knew.
    pub overlap_tokens: u32,
    /// Cached where most of it is.
    pub best_overlap_tokens: u32,
    /// Why it went there.
    pub why: Why,
    /// How long it waited before it was placed, if it did.
    pub waited_seconds: Option<f64>,
    /// Whether it was held then, rather than without room anywhere.
    pub was_held: bool,
    /// When the first token was expected.
    pub expected_ttft_seconds: f64,
    /// When it came, if it did.
    pub ttft_seconds: Option<f64>,
    /// `finished` or `abandoned`, once it is over.
    pub ended: Option<String>,
}

impl Status {
    pub(super) fn of(core: &Core) -> Status {
        let (index, states, history) = (core.router().index_stats(), core.instances(), core.journal().steps());
        let knowledge: Vec<Knowledge> = states.iter().map(|state| state.knowledge).collect();
        let config = core.router().config();
        let (sources, fleet_problems) = core.found();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            policy: config.policy_spec().without_hold().to_string(),
            uptime_seconds: core.now().as_secs_f64(),
            draining: core.is_draining(),
            verdict: Verdict::of(core.journal(), &knowledge),
            in_flight: core.router().in_flight(),
            queue: Queue::of(core),
            index_blocks: index.blocks,
            index_bytes: index.bytes,
            index_bytes_max: config.index_bytes_max,
            instances: states.iter().map(|state| Instance::of(core, state)).collect(),
            step_seconds: journal::STEP.as_secs(),
            history,
            decisions: core.journal().decisions().iter().map(|entry| Placed::of(core, entry)).collect(),
            settings: core.settings(),
            reload: core.last_reload(),
            sources,
            fleet_problems,
        }
    }
}

impl Queue {
    fn of(core: &Core) -> Queue {
        let queued = Priority::ALL.map(|priority| core.admission().queued(priority));
        Queue {
            requests: queued.map(|class| class.requests),
            held: queued.iter().map(|class| class.held).sum(),
            tokens: queued.iter().map(|class| class.tokens).sum(),
            longest_seconds: core.admission().longest_wait(core).as_secs_f64(),
            shed: core.metrics().shed_so_far(),
        }
    }
}

impl Instance {
    pub(super) fn of(core: &Core, state: &InstanceState) -> Instance {
        let (member, load) = (core.member(state.instance), &state.load);
        Instance {
            name: member.name.clone(),
            url: member.url.clone(),
            model: state.model.as_ref().to_owned(),
            availability: spell_availability(state.availability).to_owned(),
            knowledge: spell_knowledge(state.knowledge).to_owned(),
            kv_events_connected: member.is_connected(),
            cached_blocks: core.router().cached_blocks(state.instance),
            prefill_requests: load.prefill_requests,
            prefill_tokens: load.prefill_tokens,
            prefill_wait_seconds: load.prefill_wait_seconds,
            decode_requests: load.decode_requests,
            decode_tokens: load.decode_tokens,
            busy_share: load.busy_share,
            assigned: load.assigned,
            saturated: core.router().is_saturated(load),
            reported: core.load_age(state).zip(load.reported).map(|(age, reported)| ReportedLoad {
                running: reported.running,
                waiting: reported.waiting,
                cache_usage: reported.cache_usage,
                age_seconds: age.as_secs_f64(),
            }),
            foreign_requests: load.foreign_requests,
            approximate_blocks_max: (state.knowledge == Knowledge::Approximate)
                .then(|| core.router().approximate_blocks_max(state.instance)),
        }
    }
}

impl Placed {
    fn of(core: &Core, entry: &Entry) -> Placed {
        let Entry { decision, member, at, why, waited, ttft, ended } = entry;
        let ended = ended.and_then(|progress| match progress {
            Progress::FirstToken => None,
            Progress::Ended(end @ (End::Finished | End::Abandoned)) => Some(end.name().to_owned()),
        });
        Placed {
            request: decision.request.0,
            age_seconds: core.now().seconds_since(*at),
            instance: member.name.clone(),
            prompt_tokens: decision.prompt_tokens,
            overlap_tokens: decision.overlap_tokens,
            best_overlap_tokens: decision.best_overlap_tokens,
            why: *why,
            waited_seconds: waited.map(|waited| waited.time.as_secs_f64()),
            was_held: waited.is_some_and(|waited| waited.was_held),
            expected_ttft_seconds: decision.expected_ttft.as_secs_f64(),
            ttft_seconds: *ttft,
            ended,
        }
    }
}

fn spell_availability(availability: Availability) -> &'static str {
    match availability {
        Availability::Ready => "ready",
        Availability::Draining => "draining",
        Availability::Down => "down",
    }
}

fn spell_knowledge(knowledge: Knowledge) -> &'static str {
    match knowledge {
        Knowledge::Exact => "exact",
        Knowledge::Degraded => "degraded",
        Knowledge::Approximate => "approximate",
        Knowledge::Blind => "blind",
    }
}
