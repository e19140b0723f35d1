//! Tasks with a name, a stop signal and a result that someone reads.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::time::Duration;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// The tasks of one app. Dropping it aborts those that still run.
#[derive(Default)]
pub(super) struct Tasks {
    stop: CancellationToken,
    running: JoinSet<Result<(), Source>>,
    names: HashMap<Id, String>,
}

type Source = Box<dyn Error + Send + Sync>;

/// A task did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// It ended although nobody told it to stop.
    #[error("task {task:?} ended by itself")]
    EndedEarly {
        /// Which.
        task: String,
    },
    /// It failed.
    #[error("task {task:?} failed")]
    Failed {
        /// Which.
        task: String,
        /// Why.
        source: Source,
    },
    /// It panicked.
    #[error("task {task:?} panicked")]
    Panicked {
        /// Which.
        task: String,
        /// Where it was caught.
        source: JoinError,
    },
    /// Some did not stop in time, and were aborted.
    #[error("{tasks} did not stop within {limit:?}")]
    StillRunning {
        /// Their names.
        tasks: String,
        /// How long they were given.
        limit: Duration,
    },
}

impl Tasks {
    /// Told to everyone when it is time to stop.
    pub fn stop_signal(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task. It is to end soon after the stop signal, and not before.
    pub fn spawn<E>(&mut self, name: impl Into<String>, task: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Error + Send + Sync + 'static,
    {
        let handle = self.running.spawn(async move { task.await.map_err(Source::from) });
        self.names.insert(handle.id(), name.into());
    }

    /// Waits for the first task to end, which none should before it is told to.
    pub async fn first_end(&mut self) -> TaskError {
        match self.running.join_next_with_id().await {
            Some(ended) => {
                let (task, result) = self.name(ended);
                result.err().unwrap_or(TaskError::EndedEarly { task })
            }
            None => std::future::pending().await,
        }
    }

    /// Waits for the next task to end, where ending is no failure.
    pub async fn next_end(&mut self) -> Result<(), TaskError> {
        match self.running.join_next_with_id().await {
            Some(ended) => self.name(ended).1,
            None => std::future::pending().await,
        }
    }

    /// Tells all tasks to stop and waits for them, `limit` at most; the first failure is returned.
    pub async fn stop(mut self, limit: Duration) -> Result<(), TaskError> {
        self.stop.cancel();
        let mut outcome = Ok(());
        let all = async {
            while let Some(ended) = self.running.join_next_with_id().await {
                let (_, result) = self.name(ended);
                outcome = std::mem::replace(&mut outcome, Ok(())).and(result);
            }
        };
        if tokio::time::timeout(limit, all).await.is_err() {
            let mut names: Vec<String> = self.names.into_values().collect();
            names.sort();
            return Err(TaskError::StillRunning { tasks: names.join(", "), limit });
        }
        outcome
    }

    fn name(&mut self, ended: Result<(Id, Result<(), Source>), JoinError>) -> (String, Result<(), TaskError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let task = self.names.remove(&id).expect("every task was named when it was spawned");
        let result = match ended {
            Ok((_, Ok(()))) => Ok(()),
            Ok((_, Err(source))) => Err(TaskError::Failed { task: task.clone(), source }),
            Err(source) => Err(TaskError::Panicked { task: task.clone(), source }),
        };
        (task, result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn failing() -> io::Result<()> {
        Err(io::Error::other("broken"))
    }

    #[tokio::test]
    async fn an_end_before_the_stop_signal_is_told_by_name() {
        let mut tasks = Tasks::default();
        tasks.spawn("quitter", async { io::Result::Ok(()) });
        assert_eq!(tasks.first_end().await.to_string(), "task \"quitter\" ended by itself");

        let mut tasks = Tasks::default();
        tasks.spawn("failing", async { failing() });
        let error = tasks.first_end().await;
        assert_eq!(error.to_string(), "task \"failing\" failed");
        assert_eq!(error.source().unwrap().to_string(), "broken");

        let mut tasks = Tasks::default();
        tasks.spawn("panicking", async { if failing().is_err() { panic!("told to") } else { failing() } });
        assert!(matches!(tasks.first_end().await, TaskError::Panicked { task, .. } if task == "panicking"));
    }

    #[tokio::test]
    async fn stopping_waits_and_reads_every_result() {
        let mut tasks = Tasks::default();
        for name in ["a", "b"] {
            let stop = tasks.stop_signal();
            tasks.spawn(name, async move {
                stop.cancelled().await;
                if name == "b" { failing() } else { Ok(()) }
            });
        }
        let error = tasks.stop(Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(error.to_string(), "task \"b\" failed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_named_and_aborted() {
        let mut tasks = Tasks::default();
        tasks.spawn("deaf", std::future::pending::<io::Result<()>>());
        let error = tasks.stop(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error.to_string(), "deaf did not stop within 1s");
    }
}
