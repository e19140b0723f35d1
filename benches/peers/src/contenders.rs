//! The indexes under test behind one trait. What an index is given is prepared in its own types beforehand, so that
//! only its own work is timed, and each is used by the fastest public door that its documentation or benches use.

mod crtc;
mod kv_index;
mod positional;
mod radix;
mod warmpath;

pub use self::kv_index::Chain;
pub use crtc::Crtc;
pub use positional::Positional;
pub use radix::Radix;
pub use warmpath::Warmpath;

use crate::workload::{Removed, Stored};
use std::time::Duration;

/// An index, and how to drive it.
pub trait Contender {
    /// What an event looks like to it.
    type Event;
    /// What a query looks like to it.
    type Query: ?Sized + ToOwned<Owned: Default + Send + Sync>;

    fn name() -> &'static str;
    fn new(instances: u16) -> Self;
    fn stored(&self, stored: &Stored) -> Self::Event;
    fn removed(&self, removed: &Removed) -> Self::Event;
    /// Applies events in order; returns the CPU time that took on the thread that did it.
    fn apply(&mut self, events: Vec<Self::Event>) -> Duration;
    /// A query made of content hashes, in place in a buffer that is reused.
    fn query(contents: &[u64], query: &mut <Self::Query as ToOwned>::Owned);
    /// The longest contiguous prefix of every instance, kept in whatever form it comes.
    fn find(&mut self, query: &<Self::Query as ToOwned>::Owned);
    /// The same from tokens, in blocks of 16.
    fn find_tokens(&mut self, tokens: &[u32]);
    /// Of what was found last: the instance with the longest prefix, and its blocks.
    fn best(&self) -> (u32, u32);
    /// What another thread may look up with while this one applies events; `None` where that cannot be.
    fn reader(&self) -> Option<Box<dyn FnMut(&<Self::Query as ToOwned>::Owned) + Send>>;
    /// The hash of a block's content by its own hash function, for events whose tokens will be asked for.
    fn content_of(tokens: &[u32]) -> u64;
}
