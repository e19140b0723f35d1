//! Conversations as text, without times: what LMSys-Chat-1M and ShareGPT have in common.
//!
//! Each question is a request: its prompt is all that was said up to it, through the model's chat template, so its blocks are
//! true; its output is the answer. Times are drawn: conversations begin at random (Poisson), and the next question comes once
//! the answer has been read, at 90 words a minute, as in Marconi (Pan et al., MLSys 2025). Generation counts as no time.

use super::fields::{lengths, token_blocks};
use super::{Batch, DropReason, LineError, Opened, Opening, Parse, Provenance, Record, block_size};
use crate::routing::block::BlockSize;
use crate::trace::record::Kind;
use crate::trace::tokenize::{Message, Role, Tokenizer};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use std::collections::BTreeMap;
use std::time::Duration;

/// When conversations that have no times begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChatArrivals {
    /// Conversations a second.
    pub sessions_per_second: f64,
    /// What their times are drawn from.
    pub seed: u64,
}

impl Default for ChatArrivals {
    fn default() -> Self {
        ChatArrivals { sessions_per_second: 1.0, seed: 0 }
    }
}

const WORDS_PER_SECOND: f64 = 1.5;

/// Makes records of conversations, in order of time.
pub(super) struct Chats {
    tokenizer: Tokenizer,
    block_size: BlockSize,
    sessions_per_second: f64,
    chance: Pcg64,
    /// When the next conversation begins.
    next: Duration,
    /// Later turns, which others that begin in the meantime go before. As many as there are conversations at a time.
    later: BTreeMap<(Duration, u64), Record>,
    /// Of all these.
    later_blocks: usize,
    /// Requests so far.
    requests: u64,
}

/// A parser of conversations, whatever they are called.
pub(super) fn open(
    format: &'static str,
    opening: &Opening<'_>,
    parser: impl FnOnce(Chats) -> Box<dyn Parse>,
) -> Result<Opened, LineError> {
    let Some(tokenizer) = opening.tokenizer.cloned() else {
        return Err(LineError::NeedsTokenizer { format });
    };
    let block_size = opening.block_size.unwrap_or(block_size(16));
    let ChatArrivals { sessions_per_second, seed } = opening.arrivals;
    let chats = Chats {
        tokenizer,
        block_size,
        sessions_per_second,
        chance: Pcg64::seed_from_u64(seed),
        next: Duration::ZERO,
        later: BTreeMap::new(),
        later_blocks: 0,
        requests: 0,
    };
    Ok(Opened { parser: parser(chats), block_size, provenance: Provenance::Real, header: false })
}

impl Chats {
    /// Four megabytes of them.
    const LATER_BLOCKS_MAX: usize = 1 << 19;

    /// Takes the next conversation. Messages before the first question set the scene; a question without an answer is none.
    pub(super) fn conversation(
        &mut self,
        session: u64,
        messages: &[Message],
        kind: Option<&Kind>,
        out: &mut Batch,
    ) -> Result<(), LineError> {
        let mut at = self.next;
        let mut turn = 0;
        for (said, pair) in (1..).zip(messages.windows(2)) {
            let [question, answer] = pair else { unreachable!("windows of two") };
            if (question.role, answer.role) != (Role::User, Role::Assistant) {
                continue;
            }
            let failed = || LineError::Malformed { reason: "the tokenizer cannot make tokens of it".to_owned() };
            let prompt = self.tokenizer.0.chat(&messages[..said]).ok_or_else(failed)?;
            let output = self.tokenizer.0.text(&answer.content).ok_or_else(failed)?;
            turn += 1;
            match lengths(prompt.len() as i64, output.len() as i64) {
                Ok((prompt_tokens, output_tokens)) => {
                    let record = Record {
                        at,
                        prompt_tokens,
                        output_tokens,
                        blocks: token_blocks(&prompt, self.block_size),
                        session: Some(session),
                        turn: Some(turn),
                        kind: kind.cloned(),
                        ..Record::default()
                    };
                    self.later_blocks += record.blocks.len();
                    self.later.insert((at, self.requests), record);
                    self.requests += 1;
                }
                Err(reason) => out.drop(reason),
            }
            at += Duration::from_secs_f64(answer.content.split_whitespace().count() as f64 / WORDS_PER_SECOND);
        }
        if turn == 0 {
            // Cut off from its beginning, or from its answer.
            out.drop(if messages.is_empty() { DropReason::NoPrompt } else { DropReason::MissingParent });
            return Ok(());
        }
        // Drawn by inversion; nothing that comes later begins before this.
        let gap = -(1.0 - self.chance.random::<f64>()).ln() / self.sessions_per_second;
        self.next += Duration::try_from_secs_f64(gap).unwrap_or(Duration::ZERO);
        let after = self.later.split_off(&(self.next, 0));
        for record in std::mem::replace(&mut self.later, after).into_values() {
            self.later_blocks -= record.blocks.len();
            out.keep(record);
        }
        if self.later_blocks > Self::LATER_BLOCKS_MAX {
            let reason = format!(
                "{} turns of conversations at the same time are more than can wait; let fewer begin in a second",
                self.later.len()
            );
            return Err(LineError::Malformed { reason });
        }
        Ok(())
    }

    /// All have been taken.
    pub(super) fn finish(&mut self, out: &mut Batch) {
        std::mem::take(&mut self.later).into_values().for_each(|record| out.keep(record));
    }
}
