//! When each instance's engine last ended a step, as far as is told.
//!
//! Tokens come as a step ends, so whoever sees them stream by knows when the next one begins: not before that does the prefill of a
//! request begin. They come some tens of times a second from each instance, so this is told and read without a lock.

use crate::routing::fact::InstanceId;
use crate::routing::time::Time;
use std::sync::atomic::{AtomicU64, Ordering};

/// One time an instance.
#[derive(Debug)]
pub(in crate::routing) struct Steps(Box<[AtomicU64]>);

impl Steps {
    pub fn ended(&self, instance: InstanceId, at: Time) {
        if let Some(last) = self.0.get(instance.index()) {
            last.fetch_max(at.as_nanos(), Ordering::Relaxed);
        }
    }

    /// The origin of time where none was told.
    pub fn last(&self, instance: InstanceId) -> Time {
        self.0.get(instance.index()).map_or(Time::ZERO, |last| Time::from_nanos(last.load(Ordering::Relaxed)))
    }
}

impl Default for Steps {
    fn default() -> Self {
        Steps((0..InstanceId::LIMIT).map(|_| AtomicU64::new(0)).collect())
    }
}
