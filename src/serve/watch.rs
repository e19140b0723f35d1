//! What the router hears from the instances.

pub(super) mod discovery;
pub(super) mod health;
pub mod kv_events;
pub(super) mod load;
pub(super) mod tokenizer;
