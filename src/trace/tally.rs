//! What was read, and what was left out and why.

use serde::Serialize;

/// What was read and what was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Records that came out.
    pub records: u64,
    /// Left out because the prompt was empty.
    pub dropped_no_prompt: u64,
    /// Left out because there was no output: the request failed.
    pub dropped_no_output: u64,
    /// Left out because the time was unreadable, or too much out of order to be put in order.
    pub dropped_bad_time: u64,
    /// Left out because prompt or output were longer than [`Tally::TOKENS_MAX`].
    pub dropped_too_long: u64,
    /// Left out because what they continue is not in the trace, and so not their prompt.
    pub dropped_missing_parent: u64,
    /// Records that name a parent which is not in the trace before them; they count as first turns.
    pub missing_parents: u64,
    /// Records whose number of block ids is not that of the blocks their prompt touches.
    pub miscounted_ids: u64,
}

/// Why a well-formed line is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DropReason {
    NoPrompt,
    NoOutput,
    BadTime,
    TooLong,
    MissingParent,
}

impl Tally {
    /// Eight times the longest context any model takes; longer ones are damage, and blocks would be made for them.
    pub const TOKENS_MAX: u32 = 1 << 24;

    pub(super) fn drop(&mut self, reason: DropReason) {
        *match reason {
            DropReason::NoPrompt => &mut self.dropped_no_prompt,
            DropReason::NoOutput => &mut self.dropped_no_output,
            DropReason::BadTime => &mut self.dropped_bad_time,
            DropReason::TooLong => &mut self.dropped_too_long,
            DropReason::MissingParent => &mut self.dropped_missing_parent,
        } += 1;
    }

    /// One line for each reason that left something out, or that is odd.
    pub fn lines(&self) -> Vec<String> {
        let left_out = [
            (self.dropped_no_prompt, "left out: empty prompt"),
            (self.dropped_no_output, "left out: no output (failed requests)"),
            (self.dropped_bad_time, "left out: time unreadable or out of order"),
            (self.dropped_too_long, "left out: longer than any context"),
            (self.dropped_missing_parent, "left out: they continue what is not in the trace"),
            (self.missing_parents, "kept as first turns: their parent is not in the trace"),
            (self.miscounted_ids, "kept, but with more or fewer block ids than their prompt has blocks"),
        ];
        let said = left_out.into_iter().filter(|&(count, _)| count > 0);
        said.map(|(count, what)| format!("{count} records {what}")).collect()
    }
}
