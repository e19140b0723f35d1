//! Instances in a Kubernetes cluster, watched through its API: the ready endpoints of a service, or the ready pods that a label
//! selector selects.
//!
//! The API is found as `kubectl` finds it: by `KUBECONFIG`, or inside a cluster by the service account. An object that goes out
//! of readiness is gone from the answer, and one that is being deleted is, too: its requests get to end.

use super::{FAILED_MAX, Tell, all_of};
use crate::config::{Kubernetes, Pods};
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

/// The first wait after a failure; each one after it is twice as long.
const FAILED_MIN: Duration = Duration::from_millis(500);
/// Kubernetes puts this label on the slices of a service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Who is behind one object: names and hosts.
type Behind = Vec<(String, String)>;

/// Watches for ever.
pub(super) async fn watch(source: &Kubernetes, tell: &Tell) {
    let mut wait = FAILED_MIN;
    let client = loop {
        match Client::try_default().await {
            Ok(client) => break client,
            Err(error) => tell.say(Err(format!("no way to the API of a cluster: {error}"))).await,
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(FAILED_MAX);
    };
    let namespace = source.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    match &source.pods {
        Pods::Of { service } => {
            let api: Api<EndpointSlice> = Api::namespaced(client, &namespace);
            follow(source, api, &format!("{SERVICE_LABEL}={service}"), endpoints, tell).await;
        }
        Pods::Labelled { selector } => {
            let api: Api<Pod> = Api::namespaced(client, &namespace);
            follow(source, api, selector, pod, tell).await;
        }
    }
}

/// Follows a list of objects, and says who is behind all of them after each change.
async fn follow<K>(source: &Kubernetes, api: Api<K>, selector: &str, behind: fn(&K) -> Behind, tell: &Tell)
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut known: BTreeMap<String, Behind> = BTreeMap::new();
    // A list that begins anew replaces what is known only once it is whole.
    let mut listing: Option<BTreeMap<String, Behind>> = None;
    let mut wait = FAILED_MIN;
    let mut events = watcher::watcher(api, watcher::Config::default().labels(selector)).boxed();
    loop {
        match events.try_next().await {
            Ok(Some(Event::Init)) => listing = Some(BTreeMap::new()),
            Ok(Some(Event::InitApply(object))) => {
                listing.get_or_insert_default().insert(object.name_any(), behind(&object));
            }
            Ok(Some(Event::InitDone)) => {
                known = listing.take().unwrap_or_default();
                wait = FAILED_MIN;
                tell.say(all(source, &known)).await;
            }
            Ok(Some(Event::Apply(object))) => {
                let is = behind(&object);
                if known.insert(object.name_any(), is.clone()).as_ref() != Some(&is) {
                    tell.say(all(source, &known)).await;
                }
                wait = FAILED_MIN;
            }
            Ok(Some(Event::Delete(object))) => {
                known.remove(&object.name_any());
                tell.say(all(source, &known)).await;
            }
            Ok(None) => unreachable!("a watcher begins anew rather than end"),
            Err(error) => {
                tell.say(Err(format!("the API cannot be watched: {error}"))).await;
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(FAILED_MAX);
            }
        }
    }
}

/// Everyone behind these objects, each once: an endpoint may be in two slices while it moves from one to the other.
fn all(source: &Kubernetes, known: &BTreeMap<String, Behind>) -> Result<Vec<crate::config::Instance>, String> {
    let each: BTreeMap<&str, &str> = known.values().flatten().map(|(name, host)| (&**name, &**host)).collect();
    all_of(&source.template, each.into_iter().map(|(name, host)| (name, host, source.port)))
}

/// The ready endpoints of a slice, named by their pods.
fn endpoints(slice: &EndpointSlice) -> Behind {
    // Of kind FQDN nothing can be watched as one instance; there has been none since 1.21.
    if slice.address_type == "FQDN" || slice.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let ready = slice.endpoints.iter().filter(|endpoint| {
        // Not said means ready. One that terminates is not.
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    });
    let named = ready.filter_map(|endpoint| {
        // All addresses of an endpoint are the same pod's.
        let host = endpoint.addresses.first()?;
        let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
        let name = pod.and_then(|pod| pod.name.clone()).unwrap_or_else(|| host.clone());
        Some((name, host.clone()))
    });
    named.collect()
}

/// A pod that is ready and is to stay.
fn pod(pod: &Pod) -> Behind {
    let Some(status) = pod.status.as_ref().filter(|_| pod.metadata.deletion_timestamp.is_none()) else {
        return Vec::new();
    };
    let mut conditions = status.conditions.iter().flatten();
    let is_ready = conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let host = status.pod_ip.as_ref().filter(|_| is_ready);
    host.map(|host| (pod.name_any(), host.clone())).into_iter().collect()
}
