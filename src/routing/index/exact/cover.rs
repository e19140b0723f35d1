//! Who holds which part of a run, rewritten.

use super::ExactIndex;
use super::budget::Budget;
use super::run::{Run, Segment, Segments};
use super::set_id::SetId;

impl ExactIndex {
    /// Replaces the set of the blocks from `from` to `to` of a run by what `set` makes of it, a reference more. The caller
    /// holds the run's lock. `None`, and nothing done, when a budget is used up.
    pub(super) fn change(
        &self,
        run: &Run,
        old: &Segments,
        from: usize,
        to: usize,
        set: impl Fn(SetId) -> Option<SetId>,
        budget: &Budget,
    ) -> Option<Changed> {
        self.change_within(run, old, from, to, set, run.pinned(), budget)
    }

    /// [`change`](Self::change), keeping at least `least` blocks that nobody may hold.
    #[expect(clippy::too_many_arguments, reason = "the parts of one step, in one place")]
    pub(super) fn change_within(
        &self,
        run: &Run,
        old: &Segments,
        from: usize,
        to: usize,
        set: impl Fn(SetId) -> Option<SetId>,
        least: usize,
        budget: &Budget,
    ) -> Option<Changed> {
        let mut draft = Draft { index: self, segments: Segments::new() };
        let mut changed = Changed::default();
        let mut begin = 0;
        for segment in old {
            let end = segment.end as usize;
            let (start, stop) = (begin.max(from), end.min(to));
            if start < stop {
                draft.keep(start, begin, segment.set);
                let Some(new) = set(segment.set) else {
                    draft.drop_all();
                    return None;
                };
                draft.push(stop, new);
                draft.keep(end, stop, segment.set);
                if segment.set == SetId::EMPTY && new != SetId::EMPTY {
                    changed.from_none += stop - start;
                }
                if segment.set != SetId::EMPTY && new == SetId::EMPTY {
                    changed.to_none += stop - start;
                }
            } else {
                draft.keep(end, begin, segment.set);
            }
            begin = end;
        }
        draft.trim(least);
        if draft.segments != *old && !run.set_segments(&draft.segments, &self.words, budget) {
            draft.drop_all();
            return None;
        }
        old.iter().for_each(|segment| self.sets.release(segment.set, &self.words));
        Some(changed)
    }
}

/// Blocks that somebody holds now and nobody did, and the other way round.
#[derive(Default)]
pub(super) struct Changed {
    pub from_none: usize,
    pub to_none: usize,
}

/// Segments to be, each with a reference to its set.
struct Draft<'a> {
    index: &'a ExactIndex,
    segments: Segments,
}

impl Draft<'_> {
    /// A segment up to `end`, with the reference to `set` that comes with it.
    fn push(&mut self, end: usize, set: SetId) {
        match self.segments.last_mut() {
            Some(last) if last.set == set => {
                last.end = end as u32;
                self.index.sets.release(set, &self.index.words);
            }
            Some(_) | None => self.segments.push(Segment { end: end as u32, set }),
        }
    }

    /// A segment from `begin` to `end`, if there is anything to it, with one more reference to `set`.
    fn keep(&mut self, end: usize, begin: usize, set: SetId) {
        if begin < end {
            self.index.sets.retain(set, &self.index.words);
            self.push(end, set);
        }
    }

    /// Cuts off the end that nobody holds, down to what must stay.
    fn trim(&mut self, pinned: usize) {
        if let Some(&last) = self.segments.last()
            && last.set == SetId::EMPTY
        {
            let begin = self.segments.iter().rev().nth(1).map_or(0, |before| before.end);
            let end = begin.max((pinned as u32).min(last.end));
            self.segments.pop();
            if end > begin {
                self.segments.push(Segment { end, set: SetId::EMPTY });
            }
        }
    }

    fn drop_all(self) {
        self.segments.iter().for_each(|segment| self.index.sets.release(segment.set, &self.index.words));
    }
}
