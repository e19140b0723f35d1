//! KV cache events: bytes from an instance's ZeroMQ publisher become facts.
//!
//! One direction, no callback: [`zmtp`] yields messages, [`codec`] reads a batch of events from one, [`order`] tells
//! whether a batch is missing before it, `facts` picks what can be told, and [`Feed`] tells it. All but the
//! socket is ordinary code without `await`.
//!
//! What was missed is asked for again (`replay`) where the publisher has a replay socket. Where it has none, or has thrown it
//! away, the instance's blocks are forgotten until it clears its cache or restarts, and its knowledge says so.
//!
//! Absent on purpose: blocks whose parent is not known are not kept aside; after a replay there are none.

pub mod codec;
mod facts;
mod feed;
pub mod order;
mod replay;
mod subscriber;
pub mod zmtp;

pub use feed::Feed;
pub use subscriber::{Limits, subscribe};
