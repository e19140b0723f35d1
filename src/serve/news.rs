//! What changes in the fleet, told to whoever watches it, in the order in which it happened.
//!
//! A watcher that does not keep up is told that it missed something and has to begin again: nobody waits for it, and what
//! is kept for all of them together is bounded.

use crate::routing::{Availability, Fact, InstanceId, Knowledge, LearnError};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use tokio::sync::broadcast;

/// Changes that a watcher may be behind.
const BEHIND_MAX: usize = 1024;
/// Watchers at once.
const WATCHERS_MAX: usize = 256;

/// An instance after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stands {
    /// Whether it is given requests.
    pub availability: Availability,
    /// How far the index is to be believed about it.
    pub knowledge: Knowledge,
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It joined.
    Joined(InstanceId, Stands),
    /// It is given requests, or not any more, or more or less is known of it.
    Changed(InstanceId, Stands),
    /// It left.
    Left(InstanceId),
    /// The router stops: nothing comes after this.
    Stopping,
}

/// The fleet as it was last told of.
pub(super) struct News {
    changes: broadcast::Sender<Change>,
    stands: Mutex<BTreeMap<InstanceId, Stands>>,
}

/// Every instance as it stands, by id.
pub(super) type Snapshot = Vec<(InstanceId, Stands)>;

/// There are too many watchers.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{WATCHERS_MAX} watch the fleet already; end one, or ask for Instances now and then")]
pub(super) struct TooMany;

impl News {
    pub fn new() -> Self {
        News { changes: broadcast::Sender::new(BEHIND_MAX), stands: Mutex::default() }
    }

    /// Lets `learn` take in a fact, and tells of what it changed in the fleet.
    pub fn tell<'a>(
        &self,
        fact: Fact<'a>,
        learn: impl FnOnce(Fact<'a>) -> Result<(), LearnError>,
    ) -> Result<(), LearnError> {
        let Some(told) = Told::of(&fact) else {
            return learn(fact);
        };
        // Held while the router learns, so that the order is its order.
        let mut stands = self.stands.lock();
        learn(fact)?;
        let (instance, now) = match told {
            Told::Left(instance) => {
                if stands.remove(&instance).is_some() {
                    self.send(Change::Left(instance));
                }
                return Ok(());
            }
            Told::Joined(instance, knowledge) => (instance, Stands { availability: Availability::Ready, knowledge }),
            Told::Availability(instance, availability) => match stands.get(&instance) {
                Some(before) => (instance, Stands { availability, ..*before }),
                None => return Ok(()),
            },
            Told::Knowledge(instance, knowledge) => match stands.get(&instance) {
                Some(before) => (instance, Stands { knowledge, ..*before }),
                None => return Ok(()),
            },
        };
        match stands.insert(instance, now) {
            None => self.send(Change::Joined(instance, now)),
            Some(before) if before != now => self.send(Change::Changed(instance, now)),
            Some(_) => {}
        }
        Ok(())
    }

    fn send(&self, change: Change) {
        // Nobody may be watching.
        let _ = self.changes.send(change);
    }

    /// The fleet as it stands, and every change from here on.
    pub fn watch(&self) -> Result<(Snapshot, broadcast::Receiver<Change>), TooMany> {
        let stands = self.stands.lock();
        if self.changes.receiver_count() >= WATCHERS_MAX {
            return Err(TooMany);
        }
        Ok((stands.iter().map(|(instance, now)| (*instance, *now)).collect(), self.changes.subscribe()))
    }

    /// Lets all watchers go.
    pub fn stop(&self) {
        let _ = self.changes.send(Change::Stopping);
    }
}

/// What a fact says of the fleet.
enum Told {
    Joined(InstanceId, Knowledge),
    Availability(InstanceId, Availability),
    Knowledge(InstanceId, Knowledge),
    Left(InstanceId),
}

impl Told {
    fn of(fact: &Fact<'_>) -> Option<Self> {
        match fact {
            Fact::Joined { instance, knowledge, .. } => Some(Told::Joined(*instance, *knowledge)),
            Fact::Changed { instance, availability } => Some(Told::Availability(*instance, *availability)),
            Fact::Known { instance, knowledge } => Some(Told::Knowledge(*instance, *knowledge)),
            Fact::Left { instance } => Some(Told::Left(*instance)),
            Fact::Stored { .. }
            | Fact::Copied { .. }
            | Fact::Removed { .. }
            | Fact::GroupStored { .. }
            | Fact::GroupRemoved { .. }
            | Fact::Cleared { .. }
            | Fact::Reported { .. }
            | Fact::Sized { .. }
            | Fact::Delivered { .. }
            | Fact::Stepped { .. }
            | Fact::FirstToken { .. }
            | Fact::Finished { .. }
            | Fact::Abandoned { .. }
            | Fact::TimePassed
            | Fact::Ruled { .. } => None,
        }
    }
}
