//! Sticky sessions: where the session's last request went; a new session goes to the least loaded.
//!
//! As in production-stack's `session`, SMG's `manual` and vLLM Router's `sticky_least_loaded`. A request without a session
//! is a session of its own.

use super::{Policy, View, smallest};

pub(super) struct Session;

impl Policy for Session {
    fn choose(&self, view: &View<'_>) -> usize {
        let home = view.home.and_then(|home| view.position_of(home));
        home.unwrap_or_else(|| smallest(view, |a, b| a.load.order().cmp(&b.load.order())))
    }
}
