//! Who is behind the ids of the fleet: names, addresses, health.
//!
//! An instance may join and leave while requests are on their way, so a place is never given to another instance: whoever
//! holds an id can always say whose it was. One that comes back as it was gets its place back.

use super::health::Health;
use crate::config::{self, Protocol};
use crate::routing::InstanceId;
use parking_lot::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// An instance that this router knows, or knew.
#[derive(Debug)]
pub struct Member {
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
}

/// All of them, by id.
pub(super) struct Members {
    places: Box<[OnceLock<Box<Member>>]>,
    taken: AtomicUsize,
    /// For each protocol, who stands for the one model that everyone who speaks it serves; [`NOBODY`] else.
    only: [AtomicUsize; Protocol::ALL.len()],
    /// Held while someone joins or leaves.
    change: Mutex<()>,
}

const NOBODY: usize = usize::MAX;

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
    #[error("this router has known {} different instances and has no place for another; restart it", InstanceId::LIMIT)]
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

    fn new(instance: &config::Instance, health: Health) -> Self {
        Member {
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
        }
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
        Members {
            places: (0..InstanceId::LIMIT).map(|_| OnceLock::new()).collect(),
            taken: AtomicUsize::new(0),
            only: [const { AtomicUsize::new(NOBODY) }; Protocol::ALL.len()],
            change: Mutex::new(()),
        }
    }

    /// Gives an instance its place.
    pub fn join(&self, instance: &config::Instance, health: Health) -> Result<InstanceId, JoinError> {
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
                *member.health.lock() = health;
                member.set_connected(false);
                member.leaving.store(false, Ordering::Relaxed);
                member.joined.store(true, Ordering::Relaxed);
                id
            }
            None => {
                let taken = self.taken.load(Ordering::Relaxed);
                let place = self.places.get(taken).ok_or(JoinError::Full)?;
                place.get_or_init(|| Box::new(Member::new(instance, health)));
                self.taken.store(taken + 1, Ordering::Release);
                id(taken)
            }
        };
        self.look_for_only_models();
        Ok(id)
    }

    /// The instance is in the fleet no more; its place stays its own. `false` when it was not.
    pub fn leave(&self, instance: InstanceId) -> bool {
        let _change = self.change.lock();
        let was = self.get(instance).joined.swap(false, Ordering::Relaxed);
        self.look_for_only_models();
        was
    }

    /// The one at an id that was given to an instance.
    pub fn get(&self, instance: InstanceId) -> &Member {
        self.places[instance.index()].get().expect("an id is given with its place")
    }

    /// Everyone who is in the fleet, by id.
    pub fn joined(&self) -> impl Iterator<Item = (InstanceId, &Member)> {
        self.all().filter(|(_, member)| member.has_joined())
    }

    /// The model of all who speak a protocol, where it is one.
    pub fn only_model(&self, protocol: Protocol) -> Option<&str> {
        let place = self.places.get(self.only[protocol as usize].load(Ordering::Relaxed))?;
        place.get().map(|member| &*member.model)
    }

    fn all(&self) -> impl Iterator<Item = (InstanceId, &Member)> {
        let taken = &self.places[..self.taken.load(Ordering::Acquire)];
        taken.iter().enumerate().filter_map(|(position, place)| Some((id(position), &**place.get()?)))
    }

    fn look_for_only_models(&self) {
        for protocol in Protocol::ALL {
            let mut speak = self.joined().filter(|(_, member)| member.address(protocol).is_some());
            let only = speak.next().filter(|(_, first)| speak.all(|(_, other)| other.model == first.model));
            self.only[protocol as usize].store(only.map_or(NOBODY, |(id, _)| id.index()), Ordering::Relaxed);
        }
    }
}

fn id(position: usize) -> InstanceId {
    InstanceId(u16::try_from(position).expect("there are fewer places than ids"))
}
