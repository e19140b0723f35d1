//! Requests that share a timestamp, spread out.

use super::error::TraceError;
use super::record::Record;
use std::collections::VecDeque;
use std::time::Duration;

/// Spreads records of equal time evenly up to the next time that occurs.
///
/// Traces round their clocks, Mooncake's to three seconds; replayed as written, the rounding would arrive as bursts that
/// never were. The last group is spread over as long as the group before it. Order is kept.
pub struct SpreadTies<I> {
    records: I,
    /// Of one time, spread and ready to go.
    ready: VecDeque<Record>,
    /// The first record of the next group, or what ended the stream.
    next: Option<Result<Record, TraceError>>,
    gap: Duration,
}

impl<I: Iterator<Item = Result<Record, TraceError>>> SpreadTies<I> {
    /// Spreads `records`, which must be in order of time.
    pub fn new(mut records: I) -> Self {
        let next = records.next();
        SpreadTies { records, ready: VecDeque::new(), next, gap: Duration::ZERO }
    }

    fn gather(&mut self, first: Record) {
        let at = first.at;
        self.ready.push_back(first);
        self.next = loop {
            match self.records.next() {
                Some(Ok(record)) if record.at == at => self.ready.push_back(record),
                other => break other,
            }
        };
        if let Some(Ok(later)) = &self.next {
            self.gap = later.at - at;
        }
        let count = self.ready.len() as u32;
        for (position, record) in self.ready.iter_mut().enumerate() {
            record.at += self.gap * position as u32 / count;
        }
    }
}

impl<I: Iterator<Item = Result<Record, TraceError>>> Iterator for SpreadTies<I> {
    type Item = Result<Record, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() {
            match self.next.take()? {
                Ok(first) => self.gather(first),
                Err(error) => return Some(Err(error)),
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(times_ms: &[u64]) -> Vec<u64> {
        let record = |&ms: &u64| {
            Ok(Record { at: Duration::from_millis(ms), prompt_tokens: 1, output_tokens: 1, ..Record::default() })
        };
        SpreadTies::new(times_ms.iter().map(record)).map(|record| record.unwrap().at.as_millis() as u64).collect()
    }

    #[test]
    fn ties_fill_the_time_to_the_next_record() {
        assert_eq!(spread(&[0, 0, 0, 3000, 6000, 6000]), [0, 1000, 2000, 3000, 6000, 7500]);
        assert_eq!(spread(&[5, 5]), [5, 5]);
        assert_eq!(spread(&[]), [] as [u64; 0]);
    }

    #[test]
    fn an_error_comes_out_after_what_was_read_before_it() {
        let record =
            |ms| Ok(Record { at: Duration::from_millis(ms), prompt_tokens: 1, output_tokens: 1, ..Record::default() });
        let records = [record(1), record(1), Err(TraceError::Empty { path: "x".into() })];
        let out: Vec<bool> = SpreadTies::new(records.into_iter()).map(|record| record.is_ok()).collect();
        assert_eq!(out, [true, true, false]);
    }
}
