//! The one clock that a live router reads.

use crate::routing::Time;
use std::time::Instant;

/// Time since this clock was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Clock { origin: Instant::now() }
    }

    /// How long ago it started; never goes back, and lasts 584 years.
    pub fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }
}
