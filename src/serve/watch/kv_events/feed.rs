//! From one instance's messages to facts about it, in order, and how far it is to be believed.

use super::codec;
use super::order::{Arrival, Order};
use super::replay::ReplayError;
use super::teller::Teller;
use crate::routing::{Fact, InstanceId, Knowledge};
use crate::serve::core::Core;
use crate::serve::members::Member;
use crate::serve::telemetry::instance::InstanceMetrics;
use crate::serve::telemetry::labels::ReplayOutcome;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use twox_hash::XxHash3_64;

/// What one instance publishes, on its way to the router.
///
/// The instance's knowledge is exact while a connection stands and every batch since the cache was last known to be empty
/// has come and could be told; it is degraded otherwise.
pub struct Feed {
    core: Arc<Core>,
    instance: InstanceId,
    member: Arc<Member>,
    order: Order,
    told: Knowledge,
    teller: Teller,
    /// The batch that came last.
    mark: Option<Mark>,
    warned_of_unreadable: bool,
    warned_of_replay: bool,
}

/// A batch that came, told from any other by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub sequence: u64,
    digest: u64,
}

impl Mark {
    pub fn of(sequence: u64, payload: &[u8]) -> Self {
        Mark { sequence, digest: XxHash3_64::oneshot(payload) }
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It was taken in.
    Taken,
    /// Batches before it are missing. It was not taken in: they come first, if they can be had.
    Early,
}

impl Feed {
    /// A feed for an instance that joined with this knowledge: degraded, or approximate where it is not known yet whether it
    /// publishes anything.
    pub fn new(core: Arc<Core>, instance: InstanceId, joined: Knowledge) -> Self {
        Feed {
            teller: Teller::new(Arc::clone(&core), instance),
            member: core.member(instance),
            core,
            instance,
            order: Order::default(),
            told: joined,
            mark: None,
            warned_of_unreadable: false,
            warned_of_replay: false,
        }
    }

    /// The instance's name, for log lines.
    pub fn name(&self) -> &str {
        &self.member.name
    }

    /// The subscription stands.
    pub fn connected(&mut self) {
        if self.told == Knowledge::Approximate {
            // From here on what was guessed no longer counts.
            self.know(Knowledge::Degraded);
        }
        self.order.reconnected();
        self.core.set_connected(self.instance, true);
    }

    /// The subscription is lost: until the next batch proves otherwise, something may be missed.
    pub fn disconnected(&mut self) {
        self.core.set_connected(self.instance, false);
        if self.told != Knowledge::Approximate {
            self.know(Knowledge::Degraded);
        }
    }

    /// It publishes nothing: what it holds is to be guessed.
    pub(super) fn unpublished(&mut self) {
        if self.told != Knowledge::Approximate {
            self.order.restarted();
            self.mark = None;
            self.teller.forget();
            self.know(Knowledge::Approximate);
        }
    }

    /// The batch that came last.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// Takes in a message: topic, sequence number (8 bytes, big-endian), payload. Where what was missed can be replayed,
    /// `replays`, one that comes early is left alone.
    pub(super) fn message(&mut self, frames: &[Bytes], replays: bool) -> Heard {
        let [_topic, sequence, payload] = frames else {
            self.metrics().batches.increment(1);
            self.unreadable(format_args!("{} frames instead of 3", frames.len()));
            return Heard::Taken;
        };
        let Ok(sequence) = <[u8; 8]>::try_from(sequence.as_ref()).map(u64::from_be_bytes) else {
            self.metrics().batches.increment(1);
            self.unreadable(format_args!("a sequence number of {} bytes", sequence.len()));
            return Heard::Taken;
        };
        if replays {
            let mut order = self.order;
            match order.arrived(sequence) {
                Arrival::Gap { .. } | Arrival::Restart { .. } => return Heard::Early,
                Arrival::Next | Arrival::Duplicate => {}
            }
        }
        self.metrics().batches.increment(1);
        if let Some(published) = self.take(sequence, payload) {
            self.metrics().lag.set(published.elapsed().map_or(0.0, |lag| lag.as_secs_f64()));
        }
        self.know_what_is_complete();
        Heard::Taken
    }

    /// Takes in a batch that was published before.
    pub(super) fn replayed(&mut self, sequence: u64, payload: &[u8]) {
        self.metrics().replayed_batches.increment(1);
        self.take(sequence, payload);
    }

    /// The publisher does not have the batch that came last: it is another one, or it went on for too long meanwhile.
    pub(super) fn begin_anew(&mut self, went_on: bool) {
        if went_on {
            self.metrics().gaps.increment(1);
            tracing::warn!(
                instance = self.name(),
                "more cache events are missing than it keeps: its blocks are forgotten"
            );
        } else {
            self.metrics().restarts.increment(1);
            tracing::warn!(instance = self.name(), "it restarted: its blocks are forgotten");
        }
        self.order.restarted();
        self.mark = None;
        self.teller.forget();
    }

    /// All that was published so far was replayed.
    pub(super) fn caught_up(&mut self) {
        self.warned_of_replay = false;
        // Who has published nothing yet has stored nothing yet.
        if self.order.last().is_none() {
            self.teller.begins();
        }
        self.order.replayed();
        self.know_what_is_complete();
        let outcome = if self.teller.is_complete() { ReplayOutcome::Complete } else { ReplayOutcome::Partial };
        self.metrics().replays.of(outcome).increment(1);
    }

    /// No replay could be had, or not to its end.
    pub(super) fn not_caught_up(&mut self, why: &ReplayError) {
        // Once until one can be had again: it is tried every few seconds.
        if !std::mem::replace(&mut self.warned_of_replay, true) {
            tracing::warn!(instance = self.name(), "no replay of cache events: {why}");
        }
        self.metrics().replays.of(ReplayOutcome::Failed).increment(1);
    }

    /// Gives when it was published, by the clock of whoever did.
    fn take(&mut self, sequence: u64, payload: &[u8]) -> Option<SystemTime> {
        match self.order.arrived(sequence) {
            Arrival::Next if sequence == 0 => self.teller.begins(),
            Arrival::Next => {}
            Arrival::Duplicate => return None,
            Arrival::Gap { missed } => self.missed(sequence, missed),
            Arrival::Restart { missed } => self.restarted(sequence, missed),
        }
        self.mark = Some(Mark::of(sequence, payload));
        match codec::decode(payload) {
            Ok(batch) => {
                self.warned_of_unreadable = false;
                self.teller.batch(&batch);
                // What is no time tells nothing.
                let since = Duration::try_from_secs_f64(batch.seconds).ok()?;
                SystemTime::UNIX_EPOCH.checked_add(since)
            }
            Err(error) => {
                let cause = error.source.to_string();
                self.unreadable(format_args!("{error}: {cause}"));
                None
            }
        }
    }

    fn know_what_is_complete(&mut self) {
        let exact = self.teller.is_complete();
        self.know(if exact { Knowledge::Exact } else { Knowledge::Degraded });
    }

    fn missed(&mut self, sequence: u64, missed: u64) {
        self.metrics().gaps.increment(1);
        tracing::warn!(instance = self.name(), sequence, missed, "cache events are missing: its blocks are forgotten");
        self.teller.forget();
    }

    fn restarted(&mut self, sequence: u64, missed: u64) {
        self.metrics().restarts.increment(1);
        tracing::warn!(instance = self.name(), sequence, missed, "it restarted: its blocks are forgotten");
        self.teller.forget();
        if missed == 0 {
            self.teller.begins();
        }
    }

    fn unreadable(&mut self, why: std::fmt::Arguments<'_>) {
        self.metrics().decode_errors.increment(1);
        // Once until one is readable again: a publisher of something else entirely would fill the log.
        if !std::mem::replace(&mut self.warned_of_unreadable, true) {
            tracing::warn!(instance = self.name(), "cache events are unreadable ({why}): its blocks are forgotten");
        }
        self.teller.forget();
        self.know(Knowledge::Degraded);
    }

    fn know(&mut self, knowledge: Knowledge) {
        if self.told != knowledge {
            self.told = knowledge;
            tracing::info!(instance = self.name(), ?knowledge, "what is known of its cache changed");
            self.teller.learn(Fact::Known { instance: self.instance, knowledge });
        }
    }

    fn metrics(&self) -> Arc<InstanceMetrics> {
        self.core.metrics().instance(self.instance.index())
    }
}
