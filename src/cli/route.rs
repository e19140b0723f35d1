//! `warmpath route`.

use super::client::Client;
use super::instances::knowledge;
use super::reach::Reach;
use crate::serve::proto::{Barred, ExplainResponse, RouteRequest, Wait};
use anyhow::{Context, Result};
use serde_json::json;
use std::io::Write;
use std::time::Instant;

/// Ask a running router where a prompt should go.
///
/// Prints the chosen instance and how much of the prompt it has cached. The load that the decision booked is given back
/// at once, unless --send sends the prompt there and waits for the answer.
///
/// Example:
///
///   warmpath route --model mock --token-ids "$(seq -s, 1 4000)" --send
///   warmpath route --model mock --token-ids "$(seq -s, 1 4000)" --explain
///   warmpath route --model mock --text "Once upon a time" --allow vllm-0,vllm-1
///
/// With --explain: what every instance has cached, has to do and would cost, or
/// why it may not take the prompt; the chosen one is marked by *. Nothing is
/// booked.
///
/// With --send, instances at https:// are trusted by the same authorities; none is
/// shown the key.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Route {
    /// The router's gRPC address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9000")]
    router: String,
    /// The model to be served by.
    #[arg(long)]
    model: String,
    /// The prompt's token ids, separated by commas.
    #[arg(long, value_name = "ID,…", value_delimiter = ',', required_unless_present = "text")]
    token_ids: Vec<u32>,
    /// The prompt as a text, without a chat template.
    #[arg(long, conflicts_with = "token_ids")]
    text: Option<String>,
    /// The LoRA adapter to use.
    #[arg(long, value_name = "NAME")]
    lora: Option<String>,
    /// Share cached blocks only with prompts of the same salt.
    #[arg(long, value_name = "SALT")]
    cache_salt: Option<String>,
    /// How urgent it is while requests wait for room: lower is earlier, 0 is
    /// ordinary.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// The conversation that it belongs to.
    #[arg(long, value_name = "NAME")]
    session: Option<String>,
    /// The instances that may take it, separated by commas; all where none is
    /// named.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    allow: Vec<String>,
    /// Send the prompt to the chosen instance, too, and tell what it found cached.
    #[arg(long)]
    send: bool,
    /// Tokens to generate with --send.
    #[arg(long, value_name = "N", default_value_t = 16, requires = "send")]
    max_tokens: u32,
    /// Tell why instead: every instance, as it is weighed.
    #[arg(long, conflicts_with = "send")]
    explain: bool,
    /// With --explain: print JSON, an instance a line.
    #[arg(long, requires = "explain")]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

impl Route {
    pub fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
        runtime.block_on(self.route())
    }

    async fn route(self) -> Result<()> {
        let mut client = Client::connect(&self.router, &self.reach).await?;
        let request = RouteRequest {
            model: self.model,
            token_ids: self.token_ids,
            text: self.text,
            lora: self.lora,
            cache_salt: self.cache_salt,
            session_id: self.session,
            allowed_instances: self.allow,
            priority: self.priority,
        };
        if self.explain {
            return explain(&client.explain(request).await?, self.json);
        }
        let mut out = std::io::stdout().lock();
        let began = Instant::now();
        let (routed, answered) = if self.send {
            let answer = client.complete(request, self.max_tokens).await?;
            let first_token = answer.first_token.into_std().duration_since(began);
            (answer.routed, Some((answer.cached_tokens, first_token)))
        } else {
            let routed = client.route(request).await?;
            client.abandon(&routed).await?;
            (routed, None)
        };
        writeln!(
            out,
            "{} at {}: {}{} of {} prompt tokens cached there, {} at most anywhere; first token expected in {:.3} s",
            routed.instance,
            routed.url,
            if routed.is_estimated { "about " } else { "" },
            routed.overlap_tokens,
            routed.prompt_tokens,
            routed.best_overlap_tokens,
            routed.expected_ttft_seconds
        )?;
        if let Some((cached_tokens, first_token)) = answered {
            let seconds = first_token.as_secs_f64();
            writeln!(out, "answered: {cached_tokens} prompt tokens from its cache, first token after {seconds:.3} s")?;
        }
        Ok(())
    }
}

fn explain(explained: &ExplainResponse, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if !json {
        let about = if explained.is_estimated { "about " } else { "" };
        let first = match (explained.wait(), explained.room_in_seconds) {
            (Wait::Unspecified, _) => String::new(),
            (Wait::Saturated, _) => ", once one of them has room".to_owned(),
            (Wait::Held, room_in) => format!(", held for some {:.3} s first", room_in.unwrap_or_default()),
        };
        writeln!(out, "{about}{} prompt tokens, by {}{first}:", explained.prompt_tokens, explained.policy)?;
    }
    for one in &explained.instances {
        let chosen = one.name == explained.chosen;
        let barred = match one.barred() {
            Barred::Unspecified => None,
            Barred::Down => Some("down"),
            Barred::Draining => Some("draining"),
            Barred::NotAllowed => Some("not allowed"),
        };
        let load = one.load.unwrap_or_default();
        if json {
            let line = json!({
                "instance": one.name, "chosen": chosen, "barred": barred, "overlap_tokens": one.overlap_tokens,
                "cost": one.cost, "prefill_seconds": one.prefill_seconds, "knowledge": knowledge(one.knowledge()),
                "prefill_requests": load.prefill_requests, "prefill_wait_seconds": load.prefill_wait_seconds,
                "decode_requests": load.decode_requests,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let weighed = match (barred, one.cost, one.prefill_seconds) {
            (Some(barred), _, _) => format!("may not take it: {barred}"),
            (None, Some(cost), _) => format!("cost {cost:.4}"),
            (None, None, Some(seconds)) => format!("prefill {seconds:.3} s"),
            (None, None, None) => String::new(),
        };
        writeln!(
            out,
            "{} {}: {} tokens cached ({}), {} in prefill for {:.3} s, {} in decode; {weighed}",
            if chosen { '*' } else { ' ' },
            one.name,
            one.overlap_tokens,
            knowledge(one.knowledge()),
            load.prefill_requests,
            load.prefill_wait_seconds,
            load.decode_requests,
        )?;
    }
    Ok(())
}
