//! When a request that could be placed is held instead: who is placed cannot be overtaken any more, nor go elsewhere.
//!
//! An engine takes requests in only as a step begins. So none is placed sooner than shortly before that. And all that begin with a
//! step have their first tokens when it ends: who joins others makes each of them wait for as long as its own prefill takes, and who
//! does not join them waits for one step more, with all who come behind. The lesser of the two is done.

use super::policy::{Candidate, View};
use super::time::duration;
use std::time::Duration;

/// How much may be before a request that is placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    /// Until the step under way ends, in full steps of that instance.
    pub steps: f64,
}

/// How long a request is held at most, by however much it would still have to wait.
pub const HOLD_MAX: Duration = Duration::from_secs(10);

/// The next step is full with this many full steps of prefill.
const FULL: f64 = 1.0;

impl Hold {
    /// After how long there is room, by estimate, for a request that has waited so long; `None` where there is.
    pub fn room_in(&self, view: &View<'_>, chosen: &Candidate, waited: Duration) -> Option<Duration> {
        let wait_max = chosen.full_step_seconds * self.steps_max(view, chosen);
        let over = chosen.load.prefill_wait_seconds - wait_max;
        (over > 0.0 && waited < HOLD_MAX).then(|| duration(over).min(HOLD_MAX - waited))
    }

    fn steps_max(&self, view: &View<'_>, chosen: &Candidate) -> f64 {
        let load = &chosen.load;
        let joining = f64::from(load.unbegun_requests) * chosen.prefill_seconds;
        // What decodes add to a step is no loss to those behind: it is to be done sooner or later.
        let step_more = chosen.empty_step_seconds + view.decode_step_seconds / load.idle_share();
        match load.unbegun_requests {
            0 => self.steps,
            _ if joining <= step_more => self.steps.max(FULL),
            _ => 0.0,
        }
    }
}
