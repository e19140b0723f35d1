//! Records that are a little out of order, put in order.

use super::record::Record;
use super::tally::{DropReason, Tally};
use std::collections::VecDeque;
use std::time::Duration;

/// Holds some records back, so that one that comes late can still go first. What comes later than that is left out and
/// counted: nothing earlier may follow what has already gone out.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// In order of time, of equal times in order of arrival. Nearly all records come in order and go to the back.
    held: VecDeque<Record>,
    held_blocks: usize,
    last: Duration,
}

impl Order {
    const RECORDS_MAX: usize = 4096;
    /// 2 MiB of block hashes.
    const BLOCKS_MAX: usize = 1 << 18;

    /// Takes the next record of the file.
    pub(super) fn push(&mut self, record: Record, tally: &mut Tally) {
        if record.at < self.last {
            return tally.drop(DropReason::BadTime);
        }
        self.held_blocks += record.blocks.len();
        if self.held.back().is_none_or(|latest| latest.at <= record.at) {
            self.held.push_back(record);
        } else {
            let place = self.held.partition_point(|held| held.at <= record.at);
            self.held.insert(place, record);
        }
    }

    /// The earliest record, once enough are held to be sure, or, at the `end` of the file, any.
    pub(super) fn pop(&mut self, end: bool) -> Option<Record> {
        let full = self.held.len() > Self::RECORDS_MAX || self.held_blocks > Self::BLOCKS_MAX;
        if !full && !end {
            return None;
        }
        let record = self.held.pop_front()?;
        self.last = record.at;
        self.held_blocks -= record.blocks.len();
        Some(record)
    }
}
