//! Who is behind the ids of the fleet: names, addresses, health.
//!
//! An instance may join and leave while requests are on their way, so a place is given to another instance only when the one
//! before has left for [`REST`] and nobody speaks of it any more: whoever holds an id can say whose it was. One that comes back
//! as it was gets its place back.

use super::health::Health;
use crate::config::{self, Protocol};
use crate::routing::{InstanceId, Time};
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

/// How long a place stays the last one's who left it: longer than anything is still said of him that nobody holds.
pub(super) const REST: Duration = Duration::from_secs(3600);

/// An instance that this router knows, or knew.
#[derive(Debug)]
pub struct Member {
    /// Its place.
    pub(super) id: InstanceId,
    /// Its name.
    pub name: String,
    /// Its base URL.
    pub url: String,
    /// The model that it serves.
    pub model: String,
    /// Which of the data-parallel ranks behind that URL it is, where there are several.
    pub data_parallel_rank: Option<u32>,
    /// How it is reached, where not as all are.
    pub(super) access: config::InstanceAccess,
    /// Where it speaks each protocol, by position.
    addresses: [Option<String>; Protocol::ALL.len()],
    section: String,
    joined: AtomicBool,
    /// It ends what it has, and its name is free.
    leaving: AtomicBool,
    connected: AtomicBool,
    pub(super) health: Mutex<Health>,
    /// When it left and was forgotten; `None` while it is in the fleet, and for good where not all of it could be forgotten.
    gone: Mutex<Option<Time>>,
}

/// All of them, by id.
pub(super) struct Members {
    places: Box<[RwLock<Option<Arc<Member>>>]>,
    /// Which protocols the one at a place speaks, a bit for each: asked of every instance for every request.
    speaks: Box<[AtomicU8]>,
    taken: AtomicUsize,
    /// For each protocol, the one model that everyone who speaks it serves.
    only: RwLock<[Option<Arc<str>>; Protocol::ALL.len()]>,
    /// Held while someone joins or leaves.
    change: Mutex<()>,
}

/// Why an instance cannot join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Another one has its name.
    #[error("an instance is called {name:?} already")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// Another one is behind its URL.
    #[error("instance {name:?} is at {url} already")]
    UrlTaken {
        /// Who.
        name: String,
        /// The URL.
        url: String,
    },
    /// Another one's cache events are listened for there.
    #[error(
        "the cache events of {name:?} are listened for at {endpoint} already; give each instance a port of its own"
    )]
    ListenTaken {
        /// Who.
        name: String,
        /// Where.
        endpoint: String,
    },
    /// It was in the fleet, and is not gone yet.
    #[error("{name:?} has not ended yet what it was given before it left")]
    Leaving {
        /// Its name.
        name: String,
    },
    /// There is no place left.
    #[error(
        "each of the {} places for instances is taken, or was left within the last {} s; try again later, or restart the router",
        InstanceId::LIMIT,
        REST.as_secs()
    )]
    Full,
}

impl Member {
    /// Whether its cache events are subscribed to at the moment.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Where it speaks a protocol, as `http://host:port`.
    pub fn address(&self, protocol: Protocol) -> Option<&str> {
        self.addresses[protocol as usize].as_deref()
    }

    /// Whether it is in the fleet.
    pub fn has_joined(&self) -> bool {
        self.joined.load(Ordering::Relaxed)
    }

    /// Whether it goes by this name: its own, or that of all ranks together.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.section == name
    }

    pub(super) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }

    fn new(id: InstanceId, instance: &config::Instance, health: Health) -> Self {
        Member {
            id,
            name: instance.name.clone(),
            url: instance.url.clone(),
            model: instance.model.clone(),
            data_parallel_rank: instance.data_parallel_rank,
            access: instance.access.clone(),
            addresses: Protocol::ALL.map(|protocol| instance.address(protocol)),
            section: instance.section().to_owned(),
            joined: AtomicBool::new(true),
            leaving: AtomicBool::new(false),
            connected: AtomicBool::new(false),
            health: Mutex::new(health),
            gone: Mutex::new(None),
        }
    }

    /// Somebody.
    #[cfg(test)]
    pub(super) fn example() -> Self {
        Member::new(InstanceId(0), &tests::instance("a"), Health::new(3, false))
    }

    /// From here on another one may have its name and its URL.
    pub(super) fn set_leaving(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether it is this instance, whatever it publishes and where.
    pub(super) fn was(&self, instance: &config::Instance) -> bool {
        let addresses = Protocol::ALL.iter().all(|&at| self.address(at) == instance.address(at).as_deref());
        (&self.name, &self.model) == (&instance.name, &instance.model)
            && self.data_parallel_rank == instance.data_parallel_rank
            && self.access == instance.access
            && addresses
    }
}

impl Members {
    pub fn new() -> Self {
        Self::of(InstanceId::LIMIT)
    }

    fn of(places: usize) -> Self {
        Members {
            places: (0..places).map(|_| RwLock::default()).collect(),
            speaks: (0..places).map(|_| AtomicU8::new(0)).collect(),
            taken: AtomicUsize::new(0),
            only: RwLock::default(),
            change: Mutex::new(()),
        }
    }

    /// Gives an instance its place: its old one, one that rested long enough, or a new one.
    pub fn join(&self, instance: &config::Instance, health: Health, now: Time) -> Result<InstanceId, JoinError> {
        let _change = self.change.lock();
        for (_, other) in self.joined() {
            if other.leaving.load(Ordering::Relaxed) {
                if other.was(instance) {
                    return Err(JoinError::Leaving { name: instance.name.clone() });
                }
                continue;
            }
            if other.name == instance.name {
                return Err(JoinError::NameTaken { name: instance.name.clone() });
            }
            if (&other.url, other.data_parallel_rank) == (&instance.url, instance.data_parallel_rank) {
                return Err(JoinError::UrlTaken { name: other.name.clone(), url: other.url.clone() });
            }
        }
        let back = self.all().find(|(_, member)| member.was(instance));
        let id = match back {
            Some((id, member)) => {
                *member.gone.lock() = None;
                *member.health.lock() = health;
                member.set_connected(false);
                member.leaving.store(false, Ordering::Relaxed);
                member.joined.store(true, Ordering::Relaxed);
                id
            }
            None => {
                let taken = self.taken.load(Ordering::Relaxed);
                let id = self.rested(now).or_else(|| (taken < self.places.len()).then(|| id(taken)));
                let id = id.ok_or(JoinError::Full)?;
                let member = Member::new(id, instance, health);
                let speaks = Protocol::ALL.iter().filter(|&&protocol| member.address(protocol).is_some());
                let speaks = speaks.fold(0, |bits, &protocol| bits | bit(protocol));
                self.speaks[id.index()].store(speaks, Ordering::Relaxed);
                *self.places[id.index()].write() = Some(Arc::new(member));
                self.taken.store(taken.max(id.index() + 1), Ordering::Release);
                id
            }
        };
        self.look_for_only_models();
        Ok(id)
    }

    /// The instance is in the fleet no more. `false` when it was not.
    pub fn leave(&self, instance: InstanceId) -> bool {
        let _change = self.change.lock();
        let was = self.get(instance).joined.swap(false, Ordering::Relaxed);
        self.look_for_only_models();
        was
    }

    /// All that was known of one who left is forgotten: from here on its place rests.
    pub fn forgotten(&self, instance: InstanceId, now: Time) {
        let _change = self.change.lock();
        let member = self.get(instance);
        if !member.has_joined() {
            *member.gone.lock() = Some(now);
        }
    }

    /// The one at an id that was given to an instance. Whoever goes on speaking of it for long holds on to this, so that its place
    /// stays its own.
    pub fn get(&self, instance: InstanceId) -> Arc<Member> {
        self.places[instance.index()].read().clone().expect("an id is given with its place")
    }

    /// Whether an instance speaks a protocol.
    pub fn speaks(&self, instance: InstanceId, protocol: Protocol) -> bool {
        self.speaks[instance.index()].load(Ordering::Relaxed) & bit(protocol) != 0
    }

    /// Everyone who is in the fleet, by id.
    pub fn joined(&self) -> impl Iterator<Item = (InstanceId, Arc<Member>)> {
        self.all().filter(|(_, member)| member.has_joined())
    }

    /// The model of all who speak a protocol, where it is one.
    pub fn only_model(&self, protocol: Protocol) -> Option<Arc<str>> {
        self.only.read()[protocol as usize].clone()
    }

    fn all(&self) -> impl Iterator<Item = (InstanceId, Arc<Member>)> {
        let taken = &self.places[..self.taken.load(Ordering::Acquire)];
        taken.iter().enumerate().filter_map(|(position, place)| Some((id(position), place.read().clone()?)))
    }

    /// The place of who is gone longest, if that is long enough, and nobody holds on to it: its own place does, and this.
    fn rested(&self, now: Time) -> Option<InstanceId> {
        let rested = self.all().filter_map(|(id, member)| {
            let gone = (*member.gone.lock())?;
            (now.since(gone) >= REST && Arc::strong_count(&member) == 2).then_some((gone, id))
        });
        rested.min().map(|(_, id)| id)
    }

    fn look_for_only_models(&self) {
        for protocol in Protocol::ALL {
            let mut speak = self.joined().filter(|(_, member)| member.address(protocol).is_some());
            let only = speak.next().filter(|(_, first)| speak.all(|(_, other)| other.model == first.model));
            self.only.write()[protocol as usize] = only.map(|(_, member)| Arc::from(&*member.model));
        }
    }
}

fn bit(protocol: Protocol) -> u8 {
    1 << protocol as u8
}

fn id(position: usize) -> InstanceId {
    InstanceId(u16::try_from(position).expect("there are fewer places than ids"))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn instance(name: &str) -> config::Instance {
        config::Instance {
            name: name.to_owned(),
            url: format!("http://{name}"),
            inference_url: None,
            data_parallel_rank: None,
            model: "m".to_owned(),
            kv_events: None,
            access: config::InstanceAccess::default(),
        }
    }

    fn join(members: &Members, name: &str, now: Time) -> Result<InstanceId, JoinError> {
        members.join(&instance(name), Health::new(3, false), now)
    }

    fn leave(members: &Members, id: InstanceId, now: Time) {
        assert!(members.leave(id));
        members.forgotten(id, now);
    }

    const LATER: Duration = Duration::from_secs(REST.as_secs() + 1);

    #[test]
    fn a_place_is_given_away_when_it_has_rested_and_nobody_speaks_of_who_had_it() {
        let (members, start) = (Members::new(), Time::ZERO);
        let [a, b] = ["a", "b"].map(|name| join(&members, name, start).unwrap());
        leave(&members, a, start);
        leave(&members, b, start + Duration::from_secs(1));
        // Too early.
        let c = join(&members, "c", start + Duration::from_secs(9)).unwrap();
        assert_eq!(c, InstanceId(2));
        // Somebody still speaks of it: the next one, then.
        let held = members.get(a);
        let d = join(&members, "d", start + LATER).unwrap();
        assert_eq!((d, members.get(d).name.as_str(), held.name.as_str()), (b, "d", "a"));
        drop(held);
        assert_eq!(join(&members, "e", start + LATER).unwrap(), a);
        // It was not forgotten whole, so its place stays its own.
        assert!(members.leave(c));
        assert_eq!(join(&members, "f", start + LATER * 3).unwrap(), InstanceId(3));
        assert_eq!(members.joined().map(|(_, member)| member.name.clone()).collect::<Vec<_>>(), ["e", "d", "f"]);
    }

    #[test]
    fn one_that_comes_back_has_its_place_and_who_is_in_keeps_it() {
        let (members, start) = (Members::new(), Time::ZERO);
        let [a, b] = ["a", "b"].map(|name| join(&members, name, start).unwrap());
        leave(&members, a, start);
        assert_eq!(join(&members, "a", start + LATER).unwrap(), a);
        leave(&members, b, start);
        // It left before, but is in again.
        assert_eq!(join(&members, "c", start + LATER * 2).unwrap(), b);
        assert_eq!(join(&members, "d", start + LATER * 2).unwrap(), InstanceId(2));
    }

    #[test]
    fn more_join_in_its_life_than_there_are_places() {
        const PLACES: usize = 8;
        let members = Members::of(PLACES);
        let mut now = Time::ZERO;
        for number in 0..3 * PLACES {
            if number % PLACES == 0 {
                now = now + LATER;
            }
            let id = join(&members, &number.to_string(), now).unwrap();
            leave(&members, id, now);
        }
        let full = join(&members, "one more", now).unwrap_err();
        assert!(matches!(full, JoinError::Full) && full.to_string().contains("within the last 3600 s"), "{full}");
        assert!(join(&members, "one more", now + LATER).is_ok());
    }
}
