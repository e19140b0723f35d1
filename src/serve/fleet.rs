//! The one way into the fleet and out of it, for whoever knows of an instance: the configuration, the API, discovery.
//!
//! Who joins is watched from then on: its cache events, its health, its load. Who leaves is given nothing new first, gets
//! time to end what it has, and is forgotten once nobody watches it any more, so that it can join again as if it were new.
//!
//! There are no leases: an instance that dies without a word is found by its checks and stays in the fleet as `down`, until
//! it answers again or whoever brought it takes it out.

pub(super) mod reconcile;

use super::core::{Core, RegisterError};
use super::members::JoinError;
use super::tasks::{TaskError, Tasks};
use super::tokenizer::Tokenizers;
use super::upstream::Upstream;
use super::watch::{health, kv_events, load, tokenizer};
use crate::config::{self, Config, Instance, Protocol};
use crate::routing::{InstanceId, Knowledge};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Who brought an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is configured.
    Config,
    /// Someone registered it.
    Api,
    /// It was discovered.
    Discovery,
}

/// The fleet, to be changed.
pub(super) struct Fleet {
    core: Arc<Core>,
    upstream: Arc<Upstream>,
    tokenizers: Arc<Tokenizers>,
    health: config::Health,
    watch: config::Watch,
    stop: CancellationToken,
    /// Bounded by the fleet: a few for each instance.
    starts: mpsc::UnboundedSender<Start>,
    inside: Mutex<Inside>,
    /// Told when someone is gone for good.
    changed: Notify,
}

/// Who is in, and who looks after them.
#[derive(Default)]
struct Inside {
    members: BTreeMap<InstanceId, Watched>,
    /// Who reads the metrics of a URL, and how many ranks are behind it.
    loads: HashMap<String, (CancellationToken, usize)>,
}

struct Watched {
    instance: Instance,
    origin: Origin,
    stop: CancellationToken,
    /// Ends when nobody watches any more.
    running: mpsc::Receiver<Infallible>,
}

struct Start {
    name: String,
    task: Pin<Box<dyn Future<Output = Result<(), Stopped>> + Send>>,
}

/// A watcher ended although its instance is there.
#[derive(Debug, thiserror::Error)]
#[error("it ended by itself")]
pub(super) struct Stopped;

/// What the tasks of instances are started through.
pub(super) struct Starts(mpsc::UnboundedReceiver<Start>);

/// How often is looked whether an instance that leaves still has requests.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Fleet {
    /// The configured fleet, which joined already; its watchers start when [`keep`] runs.
    pub fn new(
        config: &Config,
        core: &Arc<Core>,
        upstream: &Arc<Upstream>,
        tokenizers: &Arc<Tokenizers>,
        stop: CancellationToken,
    ) -> (Arc<Fleet>, Starts) {
        let (starts, started) = mpsc::unbounded_channel();
        let fleet = Fleet {
            core: Arc::clone(core),
            upstream: Arc::clone(upstream),
            tokenizers: Arc::clone(tokenizers),
            health: config.health,
            watch: config.watch,
            stop,
            starts,
            inside: Mutex::default(),
            changed: Notify::new(),
        };
        let mut inside = fleet.inside.lock();
        for (position, instance) in config.instances.iter().enumerate() {
            let id = InstanceId(u16::try_from(position).expect("the instance joined the fleet under this id"));
            fleet.watch(&mut inside, id, instance, Origin::Config);
        }
        drop(inside);
        (Arc::new(fleet), Starts(started))
    }

    /// Takes an instance in, and watches it from now on. The error says who is in its way.
    pub fn join(&self, instance: &Instance, origin: Origin) -> Result<InstanceId, RegisterError> {
        let mut inside = self.inside.lock();
        if let Some(listened) = listens_at(instance)
            && let Some(other) = inside.members.values().find(|other| listens_at(&other.instance) == Some(listened))
        {
            let (name, endpoint) = (other.instance.name.clone(), listened.to_string());
            return Err(JoinError::ListenTaken { name, endpoint }.into());
        }
        self.upstream.expect(&instance.access)?;
        let id = self.core.join(instance)?;
        self.watch(&mut inside, id, instance, origin);
        tracing::info!(instance = instance.name, url = instance.url, ?origin, "it joined the fleet");
        Ok(id)
    }

    /// The instance ends what it has and gets nothing new, until it leaves or [`resume`](Self::resume)s. `false` where it is
    /// not in the fleet.
    pub fn drain(&self, id: InstanceId) -> bool {
        self.set_draining(id, true)
    }

    /// A draining instance is given requests again. `false` where it is not in the fleet, or about to leave.
    pub fn resume(&self, id: InstanceId) -> bool {
        self.set_draining(id, false)
    }

    /// Takes an instance out: it drains, for `limit` at most, and is forgotten. What it still works on then goes on unwatched;
    /// how many requests that are is returned. `None` where it is not in the fleet, or leaves already.
    ///
    /// Whoever asked may go away: it leaves all the same.
    pub async fn leave(self: &Arc<Self>, id: InstanceId, limit: Duration) -> Option<u32> {
        self.begin_leave(id, limit)?.await.ok()
    }

    /// The same without waiting for it: from here on nobody takes it for one of the fleet, and its name is free.
    fn begin_leave(self: &Arc<Self>, id: InstanceId, limit: Duration) -> Option<oneshot::Receiver<u32>> {
        let mut watched = {
            let mut inside = self.inside.lock();
            self.core.set_draining(id, true);
            let watched = inside.members.remove(&id)?;
            self.core.member(id).set_leaving();
            watched
        };
        let fleet = Arc::clone(self);
        let (left, leaving) = oneshot::channel();
        let name = format!("leave {}", watched.instance.name);
        let task = async move {
            let idle = async {
                while fleet.core.has_work(id) {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            // Both ends of this wait lead to the same: it goes now.
            let _ = fleet.stop.run_until_cancelled(tokio::time::timeout(limit, idle)).await;
            watched.stop.cancel();
            watched.running.recv().await;
            fleet.stop_reading_load(&mut fleet.inside.lock(), &watched.instance);
            let unfinished = fleet.core.router().requests_at(id);
            fleet.core.leave(id);
            tracing::info!(instance = watched.instance.name, unfinished, "it left the fleet");
            fleet.changed.notify_one();
            // Nobody may be waiting any more.
            let _ = left.send(unfinished);
            Ok(())
        };
        self.start(name, task);
        Some(leaving)
    }

    /// An instance stays where it is, and publishes what it caches elsewhere, or otherwise: what is known of its cache is
    /// forgotten, and it is watched anew. Its requests notice nothing.
    fn watch_anew(self: &Arc<Self>, id: InstanceId, instance: &Instance, origin: Origin) {
        let mut inside = self.inside.lock();
        let Some(watched) = inside.members.get_mut(&id) else {
            return;
        };
        // What stands for it meanwhile is watched by nobody.
        let (_, nobody) = mpsc::channel(1);
        let meanwhile = Watched { instance: instance.clone(), origin, stop: self.stop.child_token(), running: nobody };
        let mut before = std::mem::replace(watched, meanwhile);
        drop(inside);
        let (fleet, instance) = (Arc::clone(self), instance.clone());
        self.start(format!("watch anew {}", instance.name), async move {
            before.stop.cancel();
            before.running.recv().await;
            // Held, so that it cannot leave in between.
            let mut inside = fleet.inside.lock();
            if inside.members.contains_key(&id) && !fleet.stop.is_cancelled() {
                fleet.core.set_knowledge_of(id, &instance);
                fleet.stop_reading_load(&mut inside, &before.instance);
                fleet.watch(&mut inside, id, &instance, origin);
                tracing::info!(instance = instance.name, "its cache events are heard otherwise from now on");
            }
            Ok(())
        });
    }

    /// The instances of one origin that are in and do not leave, by id.
    pub fn of(&self, origin: Origin) -> Vec<(InstanceId, Instance)> {
        let inside = self.inside.lock();
        let of_it = inside.members.iter().filter(|(_, watched)| watched.origin == origin);
        of_it.map(|(id, watched)| (*id, watched.instance.clone())).collect()
    }

    /// Who goes by this name, its own or that of all ranks together; those that leave do not.
    pub fn called(&self, name: &str) -> Vec<InstanceId> {
        let inside = self.inside.lock();
        inside.members.keys().copied().filter(|&id| self.core.member(id).is_called(name)).collect()
    }

    fn set_draining(&self, id: InstanceId, draining: bool) -> bool {
        // Held, so that one who leaves stays draining.
        let inside = self.inside.lock();
        let is_in = inside.members.contains_key(&id);
        if is_in {
            self.core.set_draining(id, draining);
        }
        is_in
    }

    fn watch(&self, inside: &mut Inside, id: InstanceId, instance: &Instance, origin: Origin) {
        let stop = self.stop.child_token();
        let (alive, running) = mpsc::channel(1);
        if let Some(interval) = self.health.interval {
            let task = health::watch(Arc::clone(&self.core), Arc::clone(&self.upstream), id, interval, stop.clone());
            self.start_watcher(format!("health {}", instance.name), task, &stop, Some(alive.clone()));
        }
        if let Some((source, joined)) = self.event_source(instance, id) {
            let feed = kv_events::Feed::new(Arc::clone(&self.core), id, joined);
            let task = kv_events::subscribe(feed, source, kv_events::Limits::default(), stop.clone());
            self.start_watcher(format!("kv_events {}", instance.name), task, &stop, Some(alive.clone()));
        }
        if instance.address(Protocol::VllmEngine).is_some() && !self.tokenizers.has(&instance.model) {
            let (upstream, tokenizers) = (Arc::clone(&self.upstream), Arc::clone(&self.tokenizers));
            let task = tokenizer::fetch(upstream, tokenizers, id, instance.clone(), stop.clone());
            self.start_watcher(format!("tokenizer {}", instance.name), task, &stop, Some(alive));
        }
        self.read_load(inside, instance);
        inside.members.insert(id, Watched { instance: instance.clone(), origin, stop, running });
    }

    /// Ranks behind one URL are read together.
    fn read_load(&self, inside: &mut Inside, instance: &Instance) {
        let Some(intervals) = self.watch.load.filter(|_| instance.address(Protocol::OpenAi).is_some()) else {
            return;
        };
        if let Some((_, ranks)) = inside.loads.get_mut(&instance.url) {
            *ranks += 1;
            return;
        }
        let stop = self.stop.child_token();
        let url = instance.url.clone();
        let task =
            load::watch(Arc::clone(&self.core), Arc::clone(&self.upstream), url.clone(), intervals, stop.clone());
        self.start_watcher(format!("load {url}"), task, &stop, None);
        inside.loads.insert(url, (stop, 1));
    }

    fn stop_reading_load(&self, inside: &mut Inside, instance: &Instance) {
        let Some((stop, ranks)) = inside.loads.get_mut(&instance.url) else {
            return;
        };
        *ranks -= 1;
        if *ranks == 0 {
            stop.cancel();
            inside.loads.remove(&instance.url);
        }
    }

    /// Where an instance's cache events come from, if from anywhere, and what is known of its cache until they do.
    fn event_source(&self, instance: &Instance, id: InstanceId) -> Option<(kv_events::Source, Knowledge)> {
        match &instance.kv_events {
            Some(source) => Some((kv_events::Source::Configured(source.clone()), Knowledge::Degraded)),
            None if self.watch.discover_kv_events && instance.address(Protocol::OpenAi).is_some() => {
                let (upstream, core) = (Arc::clone(&self.upstream), Arc::clone(&self.core));
                Some((kv_events::Source::Asked { upstream, core, instance: id }, Knowledge::Approximate))
            }
            None => None,
        }
    }

    fn start_watcher(
        &self,
        name: String,
        task: impl Future<Output = Result<(), Infallible>> + Send + 'static,
        stop: &CancellationToken,
        alive: Option<mpsc::Sender<Infallible>>,
    ) {
        let stop = stop.clone();
        self.start(name, async move {
            let ended = task.await;
            drop(alive);
            match ended {
                Ok(()) if stop.is_cancelled() => Ok(()),
                Ok(()) => Err(Stopped),
            }
        });
    }

    fn start(&self, name: String, task: impl Future<Output = Result<(), Stopped>> + Send + 'static) {
        // Nobody listens once the app stops, and nothing needs to be started then.
        let _ = self.starts.send(Start { name, task: Box::pin(task) });
    }
}

/// Runs the tasks of instances until `stop`; one that fails ends it.
pub(super) async fn keep(starts: Starts, stop: CancellationToken, limit: Duration) -> Result<(), TaskError> {
    let Starts(mut starts) = starts;
    let mut tasks = Tasks::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(Start { name, task }) = starts.recv() => tasks.spawn(name, task),
            ended = tasks.next_end() => ended?,
        }
    }
    tasks.stop(limit).await
}

fn listens_at(instance: &Instance) -> Option<&config::Endpoint> {
    instance.kv_events.as_ref().filter(|events| events.listens).map(|events| &events.endpoint)
}
