//! Makes the fleet what the configuration and the sources of [`discovery`] want it to be: joins, changes and leavings are the
//! difference, made anew whenever someone wants something else.
//!
//! A source that fails is believed to want what it wanted last; one that suddenly finds nothing, too, for a while: an empty answer
//! is more often a mistake than the truth, and an empty fleet answers nobody. Instances that were registered through the API
//! are nobody's business here, and whoever is taken out through it stays out until something else is wanted of it.

use super::{Fleet, JoinError, Origin, RegisterError};
use crate::config::{Discovery, Instance, Source};
use crate::routing::InstanceId;
use crate::serve::core::Core;
use crate::serve::status::Found;
use crate::serve::telemetry::labels::{DiscoveryOutcome, Label, SourceKind};
use crate::serve::watch::discovery::{self, Tell, Told};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What the configuration wants.
pub(in crate::serve) struct Wanted {
    pub instances: Vec<Instance>,
    pub discovery: Discovery,
}

/// Makes the fleet what is wanted.
pub(in crate::serve) struct Reconciler {
    core: Arc<Core>,
    fleet: Arc<Fleet>,
    instances: Vec<Instance>,
    discovery: Discovery,
    asked: Vec<Asked>,
    /// Never given twice, so that what a source said that is asked no more is not taken for another's.
    next_number: u64,
    tell: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
    wanted: mpsc::UnboundedReceiver<Wanted>,
    /// Who was brought in and stays, by name.
    joined: BTreeMap<String, Instance>,
    /// Who was taken out by someone else, through the API, and is not brought back before something else is wanted of it.
    dismissed: BTreeMap<String, Instance>,
    /// What could not be had, as it was last told.
    problems: BTreeSet<String>,
}

/// A source, and what it found.
struct Asked {
    number: u64,
    source: Source,
    stop: CancellationToken,
    /// Believed; `None` before its first answer.
    found: Option<Vec<Instance>>,
    at: Instant,
    /// Since when it finds nothing.
    empty_since: Option<Instant>,
    failing: Option<String>,
}

/// What sources may have said that was not looked at yet.
const TOLD_MAX: usize = 64;

impl Reconciler {
    /// Of a fleet that is what `wanted_now` wants, sources aside. The sender tells it to want something else.
    pub fn new(core: Arc<Core>, fleet: Arc<Fleet>, wanted_now: Wanted) -> (Reconciler, mpsc::UnboundedSender<Wanted>) {
        let (tell, told) = mpsc::channel(TOLD_MAX);
        let (want, wanted) = mpsc::unbounded_channel();
        let Wanted { instances, discovery } = wanted_now;
        let joined = instances.iter().map(|instance| (instance.name.clone(), instance.clone())).collect();
        let reconciler = Reconciler {
            core,
            fleet,
            instances,
            discovery,
            asked: Vec::new(),
            next_number: 0,
            tell,
            told,
            wanted,
            joined,
            dismissed: BTreeMap::new(),
            problems: BTreeSet::new(),
        };
        (reconciler, want)
    }

    /// Goes on until `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        self.ask();
        self.reconcile();
        loop {
            let fleet = Arc::clone(&self.fleet);
            let deadline = self.next_deadline();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(Wanted { instances, discovery }) = self.wanted.recv() => {
                    self.instances = instances;
                    self.discovery = discovery;
                    self.ask();
                }
                Some(told) = self.told.recv() => self.hear(told),
                () = fleet.changed.notified() => {}
                () = sleep_until(deadline) => {}
            }
            self.reconcile();
        }
    }

    /// Asks the sources that are configured now, and those no more that are not.
    fn ask(&mut self) {
        let sources = self.discovery.sources.clone();
        self.asked.retain(|asked| {
            let stays = sources.contains(&asked.source);
            if !stays {
                asked.stop.cancel();
            }
            stays
        });
        for source in sources {
            if self.asked.iter().any(|asked| asked.source == source) {
                continue;
            }
            let (number, stop) = (self.next_number, self.fleet.stop.child_token());
            self.next_number += 1;
            let tell = Tell::new(number, self.tell.clone());
            let task = discovery::watch(source.clone(), tell, stop.clone());
            self.fleet.start_watcher(format!("discovery {source}"), task, &stop, None);
            let (at, found) = (Instant::now(), None);
            self.asked.push(Asked { number, source, stop, found, at, empty_since: None, failing: None });
        }
    }

    fn hear(&mut self, told: Told) {
        let Some(asked) = self.asked.iter_mut().find(|asked| asked.number == told.number) else {
            return;
        };
        let name = asked.source.to_string();
        let outcome = match told.found {
            Err(reason) => {
                if asked.failing.as_ref() != Some(&reason) {
                    tracing::warn!(source = name, reason, "it cannot be asked for instances; what it found last stays");
                }
                asked.failing = Some(reason);
                DiscoveryOutcome::Failed
            }
            Ok(found) => {
                if asked.failing.take().is_some() {
                    tracing::info!(source = name, "it can be asked for instances again");
                }
                if found.is_empty() && asked.found.as_ref().is_some_and(|before| !before.is_empty()) {
                    if asked.empty_since.is_none() {
                        let seconds = self.discovery.empty_for.as_secs();
                        tracing::warn!(
                            source = name,
                            seconds,
                            "it suddenly finds no instance; not believed for a while"
                        );
                    }
                    asked.empty_since.get_or_insert_with(Instant::now);
                    DiscoveryOutcome::Empty
                } else {
                    asked.empty_since = None;
                    asked.found = Some(found);
                    asked.at = Instant::now();
                    DiscoveryOutcome::Found
                }
            }
        };
        self.core.metrics().discovery_updates(SourceKind::from(&asked.source), outcome);
    }

    /// When the next empty answer is to be believed.
    fn next_deadline(&self) -> Option<Instant> {
        let since = self.asked.iter().filter_map(|asked| asked.empty_since).min()?;
        Some(since + self.discovery.empty_for)
    }

    fn reconcile(&mut self) {
        for asked in &mut self.asked {
            if asked.empty_since.is_some_and(|since| since.elapsed() >= self.discovery.empty_for) {
                tracing::warn!(source = %asked.source, "it still finds no instance, and is believed");
                asked.found = Some(Vec::new());
                asked.empty_since = None;
            }
        }
        let mut problems = BTreeSet::new();
        let wanted = self.merged(&mut problems);
        let mut present = self.fleet.of(Origin::Config);
        present.extend(self.fleet.of(Origin::Discovery));
        self.find_dismissed(&wanted, &present);
        let mut stay: BTreeSet<&str> = BTreeSet::new();
        for (id, instance) in &present {
            match wanted.get(instance.name.as_str()) {
                Some((wanted, _)) if wanted == instance => _ = stay.insert(&instance.name),
                Some((wanted, origin)) if self.core.member(*id).was(wanted) => {
                    self.fleet.watch_anew(*id, wanted, *origin);
                    stay.insert(&instance.name);
                }
                Some(_) | None => self.leave(*id),
            }
        }
        let mut joining: Vec<&(Instance, Origin)> = wanted.values().collect();
        joining.retain(|(instance, _)| {
            !stay.contains(instance.name.as_str()) && !self.dismissed.contains_key(&instance.name)
        });
        let mut joined: BTreeMap<String, Instance> =
            stay.iter().filter_map(|name| Some(((*name).to_owned(), wanted.get(*name)?.0.clone()))).collect();
        joining.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        for (instance, origin) in joining {
            match self.fleet.join(instance, *origin) {
                Ok(_) => _ = joined.insert(instance.name.clone(), instance.clone()),
                // It is told when it is gone, and then it joins.
                Err(RegisterError::Join(JoinError::Leaving { .. })) => {}
                Err(error) => _ = problems.insert(format!("{:?} cannot join: {error}", instance.name)),
            }
        }
        for problem in problems.difference(&self.problems) {
            tracing::warn!("{problem}");
        }
        self.joined = joined;
        self.problems = problems;
        self.show();
    }

    /// Who was brought in, is wanted as it was, and is not there any more.
    fn find_dismissed(&mut self, wanted: &HashMap<String, (Instance, Origin)>, present: &[(InstanceId, Instance)]) {
        self.dismissed.retain(|name, instance| wanted.get(name).is_some_and(|(wanted, _)| wanted == instance));
        let there: BTreeSet<&str> = present.iter().map(|(_, instance)| instance.name.as_str()).collect();
        for (name, instance) in &self.joined {
            let is_wanted = wanted.get(name).is_some_and(|(wanted, _)| wanted == instance);
            if is_wanted && !there.contains(name.as_str()) {
                tracing::info!(instance = name, "it was taken out and stays out until something else is wanted of it");
                self.dismissed.insert(name.clone(), instance.clone());
            }
        }
    }

    /// Everyone who is wanted, by name; the configuration first, then the sources in their order.
    fn merged(&self, problems: &mut BTreeSet<String>) -> HashMap<String, (Instance, Origin)> {
        let mut wanted: HashMap<String, (Instance, Origin)> = HashMap::new();
        let mut urls: BTreeSet<(String, Option<u32>)> = BTreeSet::new();
        let configured = self.instances.iter().map(|instance| (instance, Origin::Config));
        let found = self.asked.iter().flat_map(|asked| asked.found.iter().flatten());
        for (instance, origin) in configured.chain(found.map(|instance| (instance, Origin::Discovery))) {
            let name = &instance.name;
            if let Some((other, _)) = wanted.get(name) {
                if other != instance {
                    problems.insert(format!("{name:?} is wanted at {} and at {}", other.url, instance.url));
                }
            } else if !urls.insert((instance.url.clone(), instance.data_parallel_rank)) {
                problems.insert(format!("{name:?} is at {}, where another one is", instance.url));
            } else {
                wanted.insert(name.clone(), (instance.clone(), origin));
            }
        }
        wanted
    }

    fn leave(&self, id: InstanceId) {
        // Whoever is gone is told of by `changed`.
        drop(self.fleet.begin_leave(id, self.discovery.drain_max));
    }

    fn show(&self) {
        let found = self.asked.iter().map(|asked| Found {
            source: asked.source.to_string(),
            instances: asked.found.as_ref().map_or(0, Vec::len),
            asked: asked.found.is_some(),
            age_seconds: asked.at.elapsed().as_secs_f64(),
            problem: match (&asked.failing, asked.empty_since) {
                (Some(reason), _) => Some(reason.clone()),
                (None, Some(_)) => {
                    Some("it finds no instance any more; what it found last stays for a while".to_owned())
                }
                (None, None) => None,
            },
        });
        for kind in SourceKind::ALL.iter().copied() {
            let of_kind = || self.asked.iter().filter(move |asked| SourceKind::from(&asked.source) == kind);
            let instances = of_kind().filter_map(|asked| asked.found.as_ref()).map(Vec::len).sum();
            let failing = of_kind().filter(|asked| asked.failing.is_some() || asked.empty_since.is_some()).count();
            self.core.metrics().discovery(kind, instances, failing);
        }
        self.core.set_found(found.collect(), self.problems.iter().cloned().collect());
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
