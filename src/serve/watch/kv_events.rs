//! KV cache events: bytes from an instance's ZeroMQ publisher become facts.
//!
//! One direction, no callback: [`zmtp`] yields messages, [`codec`] reads a batch of events from one, [`Feed`] asks [`order`]
//! whether a batch is missing before it, `facts` picks what can be told, and as what, and `teller` tells it. All but the socket is
//! ordinary code without `await`.
//!
//! What was missed is asked for again (`replay`) where the publisher has a replay socket. Where it has none, or has thrown it
//! away, the instance's blocks are forgotten until it clears its cache or restarts, and its knowledge says so.
//! Stored blocks whose parent is not known are kept aside (`orphans`), within a bound, and fall into place once it comes.
//!
//! Models with several cache groups: the index holds one group of attention over the whole prompt, and the router is told what
//! the others hold besides.

pub mod codec;
mod facts;
mod feed;
pub mod order;
mod orphans;
mod replay;
mod source;
mod subscriber;
mod teller;
pub mod zmtp;

pub use feed::Feed;
pub(in crate::serve) use source::Source;
pub use subscriber::Limits;
pub(in crate::serve) use subscriber::subscribe;
