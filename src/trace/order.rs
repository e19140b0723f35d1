//! Records that are a little out of order, put in order.

use super::record::Record;
use super::tally::{DropReason, Tally};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Holds some records back, so that one that comes late can still go first. What comes later than that is left out and
/// counted: nothing earlier may follow what has already gone out.
#[derive(Debug, Default)]
pub(super) struct Order {
    held: BinaryHeap<Reverse<Held>>,
    held_blocks: usize,
    arrivals: u64,
    last: Duration,
}

#[derive(Debug)]
struct Held {
    at: Duration,
    arrival: u64,
    record: Record,
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
        self.held.push(Reverse(Held { at: record.at, arrival: self.arrivals, record }));
        self.arrivals += 1;
    }

    /// The earliest record, once enough are held to be sure, or, at the `end` of the file, any.
    pub(super) fn pop(&mut self, end: bool) -> Option<Record> {
        let full = self.held.len() > Self::RECORDS_MAX || self.held_blocks > Self::BLOCKS_MAX;
        if !full && !end {
            return None;
        }
        let Reverse(held) = self.held.pop()?;
        self.last = held.at;
        self.held_blocks -= held.record.blocks.len();
        Some(held.record)
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.arrival).cmp(&(other.at, other.arrival))
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Held {}
