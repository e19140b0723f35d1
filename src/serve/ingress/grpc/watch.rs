//! `Watch`: the fleet, and what changes in it.

use crate::routing::InstanceId;
use crate::serve::core::Core;
use crate::serve::news::{self, Stands};
use crate::serve::proto::{Availability, Change, Knowledge, WatchResponse};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::Stream;
use tonic::Status;

/// What a watcher reads.
pub(in crate::serve) type Changes = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

pub(super) fn watch(core: Arc<Core>) -> Result<Changes, Status> {
    let (snapshot, changes) = core.news().watch().map_err(|error| Status::resource_exhausted(error.to_string()))?;
    let joined = snapshot.into_iter().map(|(instance, now)| told(&core, Change::Joined, instance, Some(now)));
    let end = WatchResponse { change: Change::SnapshotEnd.into(), ..WatchResponse::default() };
    let first: VecDeque<WatchResponse> = joined.chain([end]).collect();
    let watcher = Watcher { core, first, changes };
    Ok(Box::pin(futures_util::stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        Some(match watcher.next().await {
            Ok(change) => (Ok(change), Some(watcher)),
            Err(ended) => (Err(ended), None),
        })
    })))
}

struct Watcher {
    core: Arc<Core>,
    first: VecDeque<WatchResponse>,
    changes: Receiver<news::Change>,
}

impl Watcher {
    async fn next(&mut self) -> Result<WatchResponse, Status> {
        if let Some(first) = self.first.pop_front() {
            return Ok(first);
        }
        match self.changes.recv().await {
            Ok(news::Change::Joined(instance, now)) => Ok(told(&self.core, Change::Joined, instance, Some(now))),
            Ok(news::Change::Changed(instance, now)) => Ok(told(&self.core, Change::State, instance, Some(now))),
            Ok(news::Change::Left(instance)) => Ok(told(&self.core, Change::Left, instance, None)),
            Ok(news::Change::Stopping) | Err(RecvError::Closed) => Err(Status::unavailable("the router is stopping")),
            Err(RecvError::Lagged(missed)) => {
                self.core.metrics().watchers_lost.increment(1);
                Err(Status::aborted(format!("this watcher is too slow and missed {missed} changes; watch again")))
            }
        }
    }
}

fn told(core: &Core, change: Change, instance: InstanceId, now: Option<Stands>) -> WatchResponse {
    let member = core.member(instance);
    WatchResponse {
        change: change.into(),
        instance: member.name.clone(),
        url: member.url.clone(),
        model: member.model.clone(),
        availability: now.map_or(Availability::Unspecified, |now| now.availability.into()).into(),
        knowledge: now.map_or(Knowledge::Unspecified, |now| now.knowledge.into()).into(),
    }
}
