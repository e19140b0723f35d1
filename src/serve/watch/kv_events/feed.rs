//! From one instance's messages to facts about it, and how far it is to be believed.

use super::codec::{self, Batch, Event};
use super::facts;
use super::order::{Arrival, Order};
use super::replay::ReplayError;
use crate::routing::index::IndexError;
use crate::routing::{Content, Fact, InstanceId, Knowledge, LearnError, Tier};
use crate::serve::core::Core;
use crate::serve::telemetry::labels::{EventKind, ReplayOutcome, SkipReason};
use crate::serve::telemetry::metrics::InstanceMetrics;
use bytes::Bytes;
use std::sync::Arc;
use twox_hash::XxHash3_64;

/// What one instance publishes, on its way to the router.
///
/// The instance's knowledge is exact while a connection stands and every batch since the cache was last known to be empty
/// has come and could be told; it is degraded otherwise.
pub struct Feed {
    core: Arc<Core>,
    instance: InstanceId,
    order: Order,
    told: Knowledge,
    /// Whether everything that the cache holds was told.
    complete: bool,
    /// The batch that came last.
    mark: Option<Mark>,
    /// It has cache groups besides one of full attention. A hit needs every group, and only the first is in the index, so
    /// its blocks are never all that matters.
    is_hybrid: bool,
    warned_of_block_size: bool,
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
    /// A feed for an instance that joined with [`Knowledge::Degraded`].
    pub fn new(core: Arc<Core>, instance: InstanceId) -> Self {
        Feed {
            core,
            instance,
            order: Order::default(),
            told: Knowledge::Degraded,
            complete: false,
            mark: None,
            is_hybrid: false,
            warned_of_block_size: false,
            warned_of_unreadable: false,
            warned_of_replay: false,
        }
    }

    /// The instance's name, for log lines.
    pub fn name(&self) -> &str {
        &self.core.member(self.instance).name
    }

    /// The subscription stands.
    pub fn connected(&mut self) {
        self.order.reconnected();
        self.core.set_connected(self.instance, true);
    }

    /// The subscription is lost: until the next batch proves otherwise, something may be missed.
    pub fn disconnected(&mut self) {
        self.core.set_connected(self.instance, false);
        self.know(Knowledge::Degraded);
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
        self.take(sequence, payload);
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
        self.forget();
    }

    /// All that was published so far was replayed.
    pub(super) fn caught_up(&mut self) {
        self.warned_of_replay = false;
        // Who has published nothing yet has stored nothing yet.
        self.complete |= self.order.last().is_none();
        self.order.replayed();
        self.know_what_is_complete();
        let outcome = if self.complete { ReplayOutcome::Complete } else { ReplayOutcome::Partial };
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

    fn take(&mut self, sequence: u64, payload: &[u8]) {
        match self.order.arrived(sequence) {
            Arrival::Next => self.complete |= sequence == 0,
            Arrival::Duplicate => return,
            Arrival::Gap { missed } => self.missed(sequence, missed),
            Arrival::Restart { missed } => self.restarted(sequence, missed),
        }
        self.mark = Some(Mark::of(sequence, payload));
        match codec::decode(payload) {
            Ok(batch) => {
                self.warned_of_unreadable = false;
                self.batch(&batch);
            }
            Err(error) => {
                let cause = error.source.to_string();
                self.unreadable(format_args!("{error}: {cause}"));
            }
        }
    }

    fn know_what_is_complete(&mut self) {
        let exact = self.complete && !self.is_hybrid;
        self.know(if exact { Knowledge::Exact } else { Knowledge::Degraded });
    }

    fn batch(&mut self, batch: &Batch<'_>) {
        for event in &batch.events {
            let told = match event {
                Event::Stored(stored) => self.stored(stored).map(|()| EventKind::Stored),
                Event::Removed(removed) => self.removed(removed).map(|()| EventKind::Removed),
                Event::Cleared => Ok(self.cleared()),
                Event::Unknown => Err(SkipReason::Unknown),
            };
            match told {
                Ok(kind) => self.metrics().events.of(kind).increment(1),
                Err(reason) => self.metrics().skipped.of(reason).increment(1),
            }
        }
    }

    fn stored(&mut self, stored: &codec::Stored<'_>) -> Result<(), SkipReason> {
        match facts::parent(stored, self.core.router().config().block_size) {
            Ok(parent) => {
                let content = Content::Tokens(&stored.tokens);
                self.learn(Fact::Stored {
                    instance: self.instance,
                    tier: Tier::Gpu,
                    parent,
                    blocks: &stored.blocks,
                    content,
                });
                Ok(())
            }
            Err(reason) => {
                self.left_out(reason, stored.block_size);
                Err(reason)
            }
        }
    }

    fn removed(&mut self, removed: &codec::Removed<'_>) -> Result<(), SkipReason> {
        facts::place(&removed.place)?;
        self.learn(Fact::Removed { instance: self.instance, tier: Tier::Gpu, blocks: &removed.blocks });
        Ok(())
    }

    /// The cache is known to be empty, so from here on everything is known.
    fn cleared(&mut self) -> EventKind {
        self.forget();
        self.complete = true;
        EventKind::Cleared
    }

    /// Blocks that belong in the index were left out of it.
    fn left_out(&mut self, reason: SkipReason, block_size: u32) {
        match reason {
            SkipReason::Medium | SkipReason::Unknown => {}
            SkipReason::Group | SkipReason::Attention => self.is_hybrid = true,
            SkipReason::Content => self.complete = false,
            SkipReason::BlockSize => {
                self.complete = false;
                if !std::mem::replace(&mut self.warned_of_block_size, true) {
                    let configured = self.core.router().config().block_size.tokens();
                    tracing::warn!(
                        instance = self.name(),
                        "it caches blocks of {block_size} tokens and the router counts in {configured}, so its cache \
                         cannot be seen; set routing.block_size = {block_size}"
                    );
                }
            }
        }
    }

    fn missed(&mut self, sequence: u64, missed: u64) {
        self.metrics().gaps.increment(1);
        tracing::warn!(instance = self.name(), sequence, missed, "cache events are missing: its blocks are forgotten");
        self.forget();
    }

    fn restarted(&mut self, sequence: u64, missed: u64) {
        self.metrics().restarts.increment(1);
        tracing::warn!(instance = self.name(), sequence, missed, "it restarted: its blocks are forgotten");
        self.forget();
        self.complete = missed == 0;
    }

    fn unreadable(&mut self, why: std::fmt::Arguments<'_>) {
        self.metrics().decode_errors.increment(1);
        // Once until one is readable again: a publisher of something else entirely would fill the log.
        if !std::mem::replace(&mut self.warned_of_unreadable, true) {
            tracing::warn!(instance = self.name(), "cache events are unreadable ({why}): its blocks are forgotten");
        }
        self.forget();
        self.know(Knowledge::Degraded);
    }

    fn forget(&mut self) {
        self.complete = false;
        self.learn(Fact::Cleared { instance: self.instance });
    }

    fn know(&mut self, knowledge: Knowledge) {
        if self.told != knowledge {
            self.told = knowledge;
            tracing::info!(instance = self.name(), ?knowledge, "what is known of its cache changed");
            self.learn(Fact::Known { instance: self.instance, knowledge });
        }
    }

    /// What does not fit was counted on the way; here it only lowers what is known.
    fn learn(&mut self, fact: Fact<'_>) {
        let Err(error) = self.core.learn(fact) else {
            return;
        };
        tracing::debug!(instance = self.name(), %error, "a cache event does not fit");
        match error {
            LearnError::Index(IndexError::UnknownParent { blocks, .. }) => {
                self.metrics().orphans.increment(blocks as u64);
                self.complete = false;
            }
            LearnError::Index(
                IndexError::UnknownBlocks { .. }
                | IndexError::Mismatch { .. }
                | IndexError::Full { .. }
                | IndexError::UnknownInstance { .. },
            ) => self.complete = false,
            LearnError::AlreadyJoined { .. }
            | LearnError::OutOfRange { .. }
            | LearnError::UnknownInstance { .. }
            | LearnError::UnknownRequest { .. } => self.complete = false,
        }
    }

    fn metrics(&self) -> &InstanceMetrics {
        self.core.metrics().instance(self.instance.index())
    }
}
