//! Decides: which instance a request goes to.
//!
//! [`Router`] is the whole of it, behind two doors: [`Router::route`] answers, [`Router::learn`] remembers. Everything
//! else here is what a decision needs: the [`index`] of who caches what, the fleet and its load, the [`policy`].
//!
//! Absent on purpose: sockets, clocks, threads, dice. Time and seed are arguments, so the simulator runs this very code.

pub mod admission;
pub mod block;
pub mod index;
pub mod policy;

mod decision;
mod error;
mod fact;
mod fleet;
mod groups;
mod hold;
mod prefill;
mod request;
mod router;
mod rules;
mod tiers;
mod time;

pub use decision::{Decision, Explanation, RequestId, Unasked};
pub use error::{LearnError, RouteError};
pub use fact::{Availability, Content, Fact, InstanceId, Knowledge, Parent, Tier};
pub use fleet::{InstanceState, Load, Reported};
pub use hold::HOLD_MAX;
pub use prefill::PrefillModel;
pub use request::{Prompt, Request, SessionKey, guessed_block};
pub use router::{Config, Router};
pub use rules::Rules;
pub use tiers::TierWeights;
pub use time::Time;
