//! ShareGPT: a JSON array of conversations as text, without times.
//!
//! A long conversation is cut into entries `id_0`, `id_1`, …; those that follow one another are joined again. One whose
//! beginning is missing, as it begins with an answer, is left out. Some answers are signed by other assistants; what anybody
//! else says ends the conversation. Source: the data set anon8231489123/ShareGPT_Vicuna_unfiltered.

use super::chats::{self, Chats};
use super::fields::{from_json, name_number};
use super::{Batch, DropReason, LineError, Opened, Opening, Parse, Shape, Spec};
use crate::trace::tokenize::{Message, Role};
use serde::Deserialize;
use serde_json::{Map, Value};

pub(super) const SPEC: Spec = Spec {
    name: "ShareGPT (times drawn)",
    description: "ShareGPT (JSON with id, conversations of from and value; needs --tokenizer)",
    shape: Shape::Json(fits),
    time_unit: None,
    sorted: true,
    open,
};

fn fits(fields: &Map<String, Value>) -> bool {
    fields.get("conversations").or(fields.get("conversation")).is_some_and(Value::is_array)
}

fn open(opening: &Opening<'_>) -> Result<Opened, LineError> {
    chats::open(SPEC.name, opening, |chats| Box::new(Parser { chats, whole: None }))
}

struct Parser {
    chats: Chats,
    /// The conversation that is being joined, with its name.
    whole: Option<(String, Vec<Message>)>,
}

#[derive(Deserialize)]
struct Entry {
    id: Option<String>,
    #[serde(alias = "conversation")]
    conversations: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    from: String,
    value: String,
}

impl Parser {
    /// What a joined conversation may hold before it goes on as another one.
    const BYTES_MAX: usize = 4 << 20;

    fn end(&mut self, out: &mut Batch) -> Result<(), LineError> {
        let Some((name, messages)) = self.whole.take() else { return Ok(()) };
        self.chats.conversation(name_number(&name), &messages, None, out)
    }
}

impl Parse for Parser {
    fn parse(&mut self, item: &str, out: &mut Batch) -> Result<(), LineError> {
        let entry: Entry = from_json(SPEC.name, item)?;
        let messages: Vec<Message> = entry
            .conversations
            .into_iter()
            .map_while(|said| Some(Message { role: role(&said.from)?, content: said.value }))
            .collect();
        let id = entry.id.unwrap_or_default();
        let base = id.rsplit_once('_').map_or(id.as_str(), |(base, _)| base);
        if let Some((name, whole)) = &mut self.whole
            && !base.is_empty()
            && name == base
            && whole.iter().map(|message| message.content.len()).sum::<usize>() < Self::BYTES_MAX
        {
            whole.extend(messages);
            return Ok(());
        }
        self.end(out)?;
        if messages.first().is_some_and(|first| first.role == Role::Assistant) {
            out.drop(DropReason::MissingParent);
            return Ok(());
        }
        self.whole = Some((base.to_owned(), messages));
        Ok(())
    }

    fn finish(&mut self, out: &mut Batch) -> Result<(), LineError> {
        self.end(out)?;
        self.chats.finish(out);
        Ok(())
    }
}

fn role(from: &str) -> Option<Role> {
    match from {
        "human" | "user" => Some(Role::User),
        "gpt" | "chatgpt" | "bing" | "bard" | "assistant" => Some(Role::Assistant),
        "system" => Some(Role::System),
        _ => None,
    }
}
