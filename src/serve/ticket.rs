//! A placed request's reservation, given back whatever happens to the request.

use super::core::Core;
use crate::routing::{Fact, RequestId};
use std::sync::Arc;

/// One reservation. Dropping it says that the request was abandoned, so that load cannot leak.
pub(super) struct Ticket {
    core: Arc<Core>,
    request: RequestId,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Prefill,
    Decode,
    Ended,
}

impl Ticket {
    /// The ticket of a request that was just placed.
    pub fn new(core: Arc<Core>, request: RequestId) -> Self {
        Ticket { core, request, stage: Stage::Prefill }
    }

    /// The request that it is for.
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// The first token came; further calls change nothing.
    pub fn first_token(&mut self) {
        if self.stage == Stage::Prefill {
            self.stage = Stage::Decode;
            self.tell(Fact::FirstToken { request: self.request });
        }
    }

    /// The instance said how many prompt tokens came from its cache.
    pub fn delivered(&self, cached_tokens: u32) {
        self.tell(Fact::Delivered { request: self.request, cached_tokens });
    }

    /// The request ended well.
    pub fn finish(mut self, output_tokens: u32) {
        self.stage = Stage::Ended;
        self.tell(Fact::Finished { request: self.request, output_tokens });
    }

    /// Its lease may have run out, or its instance may have left, in the meantime: then there is nothing to give back.
    fn tell(&self, fact: Fact<'_>) {
        if let Err(error) = self.core.learn(fact) {
            tracing::debug!(%error, "a reservation was gone already");
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.stage != Stage::Ended {
            self.tell(Fact::Abandoned { request: self.request });
        }
    }
}
