//! Finds instances. Each kind of source says again and again whom it found, all of them at once; what follows from it is for the
//! [reconciler](crate::serve::fleet::reconcile) to see to.

mod dns;
mod file;
#[cfg(feature = "kubernetes")]
mod kubernetes;

use crate::config::{Instance, Source};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What a source said.
pub(in crate::serve) struct Told {
    /// Which source.
    pub number: u64,
    /// Everyone whom it found, or why it could not be asked.
    pub found: Result<Vec<Instance>, String>,
}

/// How a source says it.
pub(in crate::serve) struct Tell {
    number: u64,
    to: mpsc::Sender<Told>,
}

/// The longest wait after failures.
const FAILED_MAX: Duration = Duration::from_secs(30);

impl Tell {
    pub fn new(number: u64, to: mpsc::Sender<Told>) -> Self {
        Tell { number, to }
    }

    async fn say(&self, found: Result<Vec<Instance>, String>) {
        // Nobody listens once the router stops.
        let _ = self.to.send(Told { number: self.number, found }).await;
    }
}

/// Asks a source again and again, until `stop`.
pub(in crate::serve) async fn watch(source: Source, tell: Tell, stop: CancellationToken) -> Result<(), Infallible> {
    let task = async {
        match source {
            Source::File { path, poll } => file::watch(&path, poll, &tell).await,
            Source::Dns(dns) => dns::watch(&dns, &tell).await,
            #[cfg(feature = "kubernetes")]
            Source::Kubernetes(kubernetes) => kubernetes::watch(&kubernetes, &tell).await,
            #[cfg(not(feature = "kubernetes"))]
            Source::Kubernetes(_) => unreachable!("the configuration's check refuses it"),
        }
    };
    // It ends by `stop` alone: each of them goes on for ever.
    let _ = stop.run_until_cancelled(task).await;
    Ok(())
}

/// Everyone at these addresses; an address that makes no instance is an error that says which.
fn all_of<'a>(
    template: &crate::config::Template,
    found: impl IntoIterator<Item = (&'a str, &'a str, u16)>,
) -> Result<Vec<Instance>, String> {
    let mut instances = Vec::new();
    for (name, host, port) in found {
        let made = template.instances(name, host, port).map_err(|invalid| format!("{name}: {invalid}"))?;
        instances.extend(made);
    }
    Ok(instances)
}
