//! Who goes next, where every instance has as much as it should be given.
//!
//! An instance is [saturated](Saturation) by tokens: by prefill that was booked there and not done, or by KV blocks in use
//! while requests wait for room. A request that finds all its instances so waits in a [`Queue`], which is fair between callers
//! and between priorities, and bounded. There, too, waits who is [held](Refusal::Held) for a moment, because whoever would get it
//! has enough to do: placed later, it finds out more, and those that take least go first.
//!
//! Absent on purpose: waiting itself, deadlines, clocks. Time is an argument, and whoever holds a [`Ticket`] may leave.

mod line;
mod queue;

pub use line::QUANTUM_TOKENS;
pub use queue::{Ask, Displaced, Full, LOOK_EVERY, Limits, PATIENCE, Queue, Queued, Refusal, Ticket, Waited};

use super::fleet::Load;
use twox_hash::XxHash3_64;

/// When an instance has as much as it should be given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Saturation {
    /// Uncached prompt tokens that wait there for their prefill; without it any number may.
    pub prefill_tokens_max: Option<u64>,
    /// The share of its KV blocks in use, while requests wait there for some; without it all may be.
    pub kv_usage_max: Option<f64>,
}

impl Saturation {
    /// Whether an instance with this load is given nothing more.
    ///
    /// An instance whose blocks are in use but where nobody waits for any takes what comes: it knows best whether it fits, and
    /// with requests of its own to go on with it is never idle for what is held back here.
    pub fn is_reached(&self, load: &Load) -> bool {
        let prefill = self.prefill_tokens_max.is_some_and(|max| load.prefill_tokens >= max);
        let blocks = |max| load.recent.is_some_and(|said| said.waiting > 0 && said.cache_usage >= max);
        prefill || self.kv_usage_max.is_some_and(blocks)
    }
}

/// Classes of requests. While all of them wait, each is given tokens by its weight, so none starves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Someone looks at the screen.
    High,
    /// Whatever says nothing.
    #[default]
    Normal,
    /// Can wait.
    Low,
}

impl Priority {
    /// All of them, most urgent first.
    pub const ALL: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

    /// Of vLLM's number, where lower is earlier and what says nothing is 0.
    pub fn of(number: i64) -> Self {
        match number {
            ..0 => Priority::High,
            0 => Priority::Normal,
            1.. => Priority::Low,
        }
    }

    /// The class of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.name() == name)
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Priority::High => "high",
            Priority::Normal => "normal",
            Priority::Low => "low",
        }
    }

    /// Its share of what is admitted while all classes wait, beside those of the others.
    pub fn weight(self) -> u64 {
        match self {
            Priority::High => 16,
            Priority::Normal => 4,
            Priority::Low => 1,
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub fn position(self) -> usize {
        self as usize
    }
}

/// Who asks, among whom room is shared fairly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerKey(pub u64);

impl CallerKey {
    /// The caller of this name.
    pub fn of(name: &str) -> Self {
        CallerKey(XxHash3_64::oneshot(name.as_bytes()))
    }
}

/// Which instances may take a request: requests of one pool find room together, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey(pub u64);
