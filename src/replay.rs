//! Compares: the same trace through the same fleet under several policies.
//!
//! A replay is not a model of the router: the requests of a [`Trace`](crate::trace::Trace) go through the
//! [`Router`](crate::routing::Router) that serves, to a [`Cluster`](crate::sim::Cluster) that is simulated. What comes out
//! is an [`Outcome`] for each policy and a [`Report`] of all, beside the best that any cache could do. The same
//! experiment gives the same bytes.

mod advice;
mod experiment;
mod measured;
mod outcome;
mod report;
mod study;
mod timeline;
mod workload;

pub use advice::{Advice, advise};
pub use experiment::{Experiment, Fleet, ReplayError, Setup};
pub use measured::{Answered, Endpoint};
pub use outcome::{Balance, Outcome, Slo, Summary};
pub use report::{FleetSummary, Ideal, Report, TraceSummary, ruled_table};
pub use study::{
    CAPACITY_POLICY, Cell, Figure, Ledger, LedgerError, Loads, Scenario, Standing, Study, StudyReport, Versus,
};
pub use workload::{Alone, Workload};
