//! What the router hears from the instances.

pub mod kv_events;
