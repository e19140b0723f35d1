//! Where a request may go, from what was seen in it.

use super::models::Served;
use super::view::{Prompted, Said, View};
use crate::config::Protocol;
use crate::routing::admission::{Ask, CallerKey, Priority};
use crate::routing::block::{BlockSize, ContentHash, Namespace};
use crate::routing::{Decision, InstanceId, Prompt, Request, RouteError, SessionKey};
use crate::serve::admission;
use crate::serve::core::{Core, Room};
use crate::serve::telemetry::labels::{ByLoad, Guess};
use crate::serve::ticket::Ticket;
use crate::serve::upstream::{Place, Placed};
use std::sync::Arc;

/// What is known of a prompt.
pub(super) enum Known {
    /// Its tokens.
    Tokens(Vec<u32>),
    /// The tokens of the longest of several, and the length of all.
    Longest { contents: Vec<ContentHash>, tokens: u32 },
    /// Its bytes, from which is guessed what it shares with others.
    Guessed { contents: Vec<ContentHash>, tokens: u32 },
    /// Its length at best.
    Length { tokens: u32, why: ByLoad },
    /// There is none: it costs an engine nothing, and is not booked.
    Nothing,
}

impl Known {
    /// Of a body that an engine computes for, before any text in it was tokenized.
    pub fn of(view: Option<&View<'_>>, block_size: BlockSize, body_bytes: usize) -> (Self, Option<Guess>) {
        match view.map(|view| &view.prompt) {
            Some(Prompted::Tokens(tokens)) => (Known::Tokens(tokens.clone()), None),
            Some(Prompted::Batch { longest, all }) => {
                (Known::longest(longest, u32::try_from(*all).unwrap_or(u32::MAX), block_size), Some(Guess::Batch))
            }
            Some(Prompted::Text(said)) => (Known::guessed(said, block_size), None),
            Some(Prompted::ByLoad(why)) => (Known::of_bytes(body_bytes, *why), None),
            None => (Known::of_bytes(body_bytes, ByLoad::NoPrompt), None),
        }
    }

    /// Of a text that was tokenized; of several the longest was.
    pub fn tokenized(tokens: Vec<u32>, said: &Said<'_>, block_size: BlockSize) -> (Self, Option<Guess>) {
        if said.is_batch {
            (Known::longest(&tokens, said.tokens(Some(tokens.len())), block_size), Some(Guess::Batch))
        } else {
            (Known::Tokens(tokens), None)
        }
    }

    /// Of a text that is not tokenized.
    fn guessed(said: &Said<'_>, block_size: BlockSize) -> Self {
        Known::Guessed { contents: said.contents(block_size), tokens: said.tokens(None) }
    }

    /// By a rule of thumb: four bytes a token.
    pub fn of_bytes(bytes: usize, why: ByLoad) -> Self {
        Known::Length { tokens: u32::try_from(bytes / 4).unwrap_or(u32::MAX).max(1), why }
    }

    fn longest(tokens: &[u32], all: u32, block_size: BlockSize) -> Self {
        let contents = tokens.chunks_exact(block_size.tokens() as usize).map(ContentHash::of_tokens).collect();
        Known::Longest { contents, tokens: all }
    }

    /// How many tokens its prompts have, as far as that is known; `None` of what has none.
    pub fn tokens(&self) -> Option<u32> {
        match self {
            Known::Tokens(tokens) => Some(u32::try_from(tokens.len()).unwrap_or(u32::MAX)),
            Known::Longest { tokens, .. } | Known::Guessed { tokens, .. } | Known::Length { tokens, .. } => {
                Some(*tokens)
            }
            Known::Nothing => None,
        }
    }

    fn prompt(&self) -> Option<Prompt<'_>> {
        match self {
            Known::Tokens(tokens) => Some(Prompt::Tokens(tokens)),
            Known::Longest { contents, tokens } => Some(Prompt::Blocks { contents, tokens: *tokens }),
            Known::Guessed { contents, tokens } => Some(Prompt::Guessed { contents, tokens: *tokens }),
            Known::Length { tokens, .. } => Some(Prompt::Blocks { contents: &[], tokens: *tokens }),
            Known::Nothing => None,
        }
    }
}

/// Places a request by all that.
pub(super) struct ByView<'a> {
    pub core: &'a Arc<Core>,
    pub served: Served,
    pub cache_salt: Option<&'a str>,
    pub session: Option<SessionKey>,
    pub known: Known,
    /// The instance that holds what the request is about.
    pub home: Option<InstanceId>,
    pub priority: Priority,
    pub caller: CallerKey,
}

impl ByView<'_> {
    /// The instances that have what is asked for, where not all do.
    fn only(&self) -> Option<&[InstanceId]> {
        match (&self.home, &self.served.only) {
            (Some(home), _) => Some(std::slice::from_ref(home)),
            (None, only) => only.as_deref(),
        }
    }

    /// Instances that do not have what is asked for, and those of `except`.
    fn without(&self, except: &[InstanceId]) -> Vec<InstanceId> {
        let mut without = except.to_vec();
        let Some(only) = self.only() else { return without };
        let states = self.core.instances();
        without.extend(states.iter().map(|state| state.instance).filter(|instance| !only.contains(instance)));
        without
    }
}

impl Place for ByView<'_> {
    fn place(&self, except: &[InstanceId], room: Room) -> Result<Placed, RouteError> {
        let except = self.without(except);
        let (Some(model), Some(prompt)) = (self.served.model.as_deref(), self.known.prompt()) else {
            let instance = self.core.least_loaded(self.served.model.as_deref(), &except)?;
            return Ok(Placed { instance, decision: None, ticket: None });
        };
        let namespace = Namespace { model, lora: self.served.lora.as_deref(), cache_salt: self.cache_salt };
        let request = Request { namespace, prompt, session: self.session };
        let may = |instance| self.core.may(instance, Protocol::OpenAi, &except);
        let decision: Decision = self.core.route_among(&request, &may, room)?;
        let ticket = Ticket::new(Arc::clone(self.core), decision.request);
        // An estimate is nobody's business.
        let looked_up = matches!(self.known, Known::Tokens(_));
        Ok(Placed { instance: decision.instance, decision: looked_up.then_some(decision), ticket: Some(ticket) })
    }

    fn ask(&self, bytes: usize) -> Option<Ask> {
        let (model, tokens) = (self.served.model.as_deref()?, self.known.prompt()?.tokens()?);
        let pool = admission::pool(model, Some(Protocol::OpenAi), self.only());
        Some(Ask { priority: self.priority, caller: self.caller, pool, tokens, bytes })
    }
}
