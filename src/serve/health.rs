//! Whether an instance may be given requests, from checks and from what became of requests.
//!
//! Failures in a row open the breaker. Where checks are made a good one closes it again, but not before it has been open
//! for [`OPEN_MIN`]; where none are made that time alone closes it, and the next failure opens it at once.

use crate::routing::{Availability, Time};
use std::time::Duration;

/// How long a breaker stays open at least.
const OPEN_MIN: Duration = Duration::from_secs(10);

/// What is known of one instance's health.
#[derive(Clone, Copy, Debug)]
pub(super) struct Health {
    failures_max: u32,
    checked: bool,
    /// In a row.
    failures: u32,
    /// When requests, rather than checks, last opened the breaker.
    opened_at: Option<Time>,
    resting: bool,
    /// It was asked to end what it has.
    draining: bool,
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// It answers and works.
    Awake,
    /// It answers, but is asleep or paused: requests to it would hang.
    Resting,
    /// It does not answer, or says that it is broken.
    Failed,
}

impl Health {
    pub fn new(failures_max: u32, checked: bool) -> Self {
        Health { failures_max, checked, failures: 0, opened_at: None, resting: false, draining: false }
    }

    /// A check was made.
    pub fn checked(&mut self, now: Time, check: Check) {
        match check {
            Check::Awake | Check::Resting => {
                self.resting = check == Check::Resting;
                if self.opened_at.is_none_or(|opened| now.since(opened) >= OPEN_MIN) {
                    self.close();
                }
            }
            Check::Failed => self.failures = self.failures.saturating_add(1),
        }
    }

    /// A request failed in a way that is the instance's fault.
    pub fn failed(&mut self, now: Time) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.failures_max {
            self.opened_at = Some(now);
        }
    }

    /// A request was answered.
    pub fn succeeded(&mut self) {
        // One that was sent before the breaker opened does not close it.
        if self.failures < self.failures_max {
            self.close();
        }
    }

    /// Whether it is to end what it has and get nothing new.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// Time went by.
    pub fn passed(&mut self, now: Time) {
        if !self.checked && self.opened_at.is_some_and(|opened| now.since(opened) >= OPEN_MIN) {
            self.opened_at = None;
            self.failures = self.failures_max - 1;
        }
    }

    /// Whether failures keep requests from it.
    pub fn is_open(&self) -> bool {
        self.failures >= self.failures_max
    }

    /// What follows from all that.
    pub fn availability(&self) -> Availability {
        match () {
            () if self.is_open() => Availability::Down,
            () if self.resting || self.draining => Availability::Draining,
            () => Availability::Ready,
        }
    }

    fn close(&mut self) {
        self.failures = 0;
        self.opened_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn failures_in_a_row_open_and_a_later_check_closes() {
        let mut health = Health::new(2, true);
        health.failed(at(0));
        health.succeeded();
        health.failed(at(1));
        assert_eq!(health.availability(), Availability::Ready);
        health.failed(at(2));
        assert_eq!(health.availability(), Availability::Down);
        health.succeeded();
        health.passed(at(100));
        health.checked(at(11), Check::Awake);
        assert_eq!(health.availability(), Availability::Down);
        health.checked(at(12), Check::Awake);
        assert_eq!(health.availability(), Availability::Ready);
    }

    #[test]
    fn checks_alone_take_out_and_bring_back_at_once() {
        let mut health = Health::new(2, true);
        health.checked(at(0), Check::Failed);
        health.checked(at(1), Check::Failed);
        assert_eq!(health.availability(), Availability::Down);
        health.checked(at(2), Check::Resting);
        assert_eq!(health.availability(), Availability::Draining);
        health.checked(at(3), Check::Awake);
        assert_eq!(health.availability(), Availability::Ready);
    }

    #[test]
    fn one_that_drains_does_so_however_well_it_is() {
        let mut health = Health::new(1, true);
        health.set_draining(true);
        health.checked(at(0), Check::Awake);
        assert_eq!(health.availability(), Availability::Draining);
        health.checked(at(1), Check::Failed);
        assert_eq!(health.availability(), Availability::Down);
        health.checked(at(2), Check::Awake);
        health.set_draining(false);
        assert_eq!(health.availability(), Availability::Ready);
    }

    #[test]
    fn without_checks_one_request_tries_after_a_while() {
        let mut health = Health::new(3, false);
        (0..3).for_each(|_| health.failed(at(0)));
        health.passed(at(9));
        assert_eq!(health.availability(), Availability::Down);
        health.passed(at(10));
        assert_eq!(health.availability(), Availability::Ready);
        health.failed(at(11));
        assert_eq!(health.availability(), Availability::Down);
    }
}
