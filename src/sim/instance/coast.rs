//! Steps that only add a token to each running request, taken at once.
//!
//! While all that run decode within their last blocks and nobody waits, a step tells nobody anything, and the next one takes as
//! long as it did but for contexts that are a token longer. Who need not hear of every token skips to the last such step, and
//! may still come in between. What is told, and when, is the same as step by step.

use super::{Instance, Run};
use crate::routing::Time;
use crate::sim::cost::StepLoad;
use std::time::Duration;

/// The steps that follow the one begun, up to the next that changes something.
pub(super) struct Coast {
    /// When the step that was begun ends.
    begun_ends: Time,
    /// Of the step that was begun.
    load: StepLoad,
    steps: u32,
    busy: Duration,
}

impl Instance {
    /// Goes on after the step just begun, which ends at `end`, for as long as steps only generate. Tells when the last of them
    /// ends; [`end_step`](Self::end_step) then ends them all.
    pub fn coast(&mut self, end: Time) -> Time {
        debug_assert!(self.stepping && self.coast.is_none(), "a step was begun");
        if !self.waiting.is_empty() || !self.events.is_empty() {
            return end;
        }
        let block_tokens = self.config.block_size.tokens();
        let steps = self.running.iter().map(|run| quiet_steps(run, block_tokens)).min().unwrap_or(0);
        if steps == 0 {
            return end;
        }
        let mut coast = Coast { begun_ends: end, load: self.load(), steps: 0, busy: Duration::ZERO };
        self.extend(&mut coast, steps, None);
        let last_ends = coast.begun_ends + coast.busy;
        self.coast = Some(coast);
        last_ends
    }

    /// Somebody comes at `now`: the step that is then under way is the last of those it goes on for. Tells when that one ends;
    /// `None` when it was not to go on at all.
    pub fn interrupt(&mut self, now: Time) -> Option<Time> {
        let mut coast = self.coast.take()?;
        let steps = std::mem::take(&mut coast.steps);
        coast.busy = Duration::ZERO;
        self.extend(&mut coast, steps, Some(now));
        let ends = coast.begun_ends + coast.busy;
        self.coast = Some(coast);
        Some(ends)
    }

    /// When the last step of a coast ended by `now`, to within a fraction of a step; `None` where none did.
    pub(super) fn coasted(&self, coast: &Coast, now: Time) -> Option<Time> {
        if now < coast.begun_ends {
            return None;
        }
        // Each step is longer than the one before by as much.
        let after = |steps: u32| {
            let decode_context = coast.load.decode_context + u64::from(steps * coast.load.sequences);
            self.config.model.duration(&StepLoad { decode_context, ..coast.load }).as_secs_f64()
        };
        let first = after(1);
        let longer = (after(coast.steps.max(1)) - first) / f64::from(coast.steps.max(2) - 1);
        let since = now.seconds_since(coast.begun_ends);
        // The positive solution of `steps · first + longer · steps · (steps − 1) / 2 = since`.
        let linear = first - longer / 2.0;
        let steps = 2.0 * since / (linear + (linear * linear + 2.0 * longer * since).sqrt());
        let steps = steps.floor().min(f64::from(coast.steps));
        let ended = steps * first + longer * steps * (steps - 1.0) / 2.0;
        Some(coast.begun_ends + Duration::from_secs_f64(ended.clamp(0.0, since)))
    }

    /// Counts what the steps after the one begun did; the last of all is still to be ended.
    pub(super) fn catch_up(&mut self) {
        let Some(Coast { steps, busy, .. }) = self.coast.take() else { return };
        self.stats.steps += u64::from(steps);
        self.stats.busy += busy;
        for run in &mut self.running {
            run.computed += steps;
            run.generated += steps;
        }
    }

    /// Takes at most so many more steps, none of which begins after `until`.
    fn extend(&self, coast: &mut Coast, steps: u32, until: Option<Time>) {
        let mut load = coast.load;
        while coast.steps < steps && until.is_none_or(|until| coast.begun_ends + coast.busy <= until) {
            load.decode_context += u64::from(load.sequences);
            coast.busy += self.config.model.duration(&load);
            coast.steps += 1;
        }
    }
}

/// Steps after the one begun in which a request neither ends, nor fills a block, nor needs one; none where the one begun does.
fn quiet_steps(run: &Run, block_tokens: u32) -> u32 {
    let place = run.computed % block_tokens;
    if !run.decoding() || run.scheduled != 1 || place == 0 {
        return 0;
    }
    let until_full = (block_tokens - 1 - place).saturating_sub(1);
    // The step begun adds one, and the last one is to be a step like any other.
    until_full.min(run.work.output_tokens - run.generated - 1)
}
