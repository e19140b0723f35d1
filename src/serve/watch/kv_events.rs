//! KV cache events: bytes from an instance's ZeroMQ publisher become facts.
//!
//! One direction, no callback: [`zmtp`] yields messages, [`codec`] reads a batch of events from one, [`order`] tells
//! whether a batch is missing before it, `facts` picks what can be told, and [`Feed`] tells it. All but the
//! socket is ordinary code without `await`.
//!
//! Absent on purpose: the publisher's replay socket. What is missed is forgotten until the instance clears its cache or
//! restarts, and the instance's knowledge says so.

pub mod codec;
mod facts;
mod feed;
pub mod order;
mod subscriber;
pub mod zmtp;

pub use feed::Feed;
pub use subscriber::{Limits, subscribe};
