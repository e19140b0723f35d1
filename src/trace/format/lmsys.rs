//! LMSys-Chat-1M: one conversation a row, as text, without times; Parquet, or the same fields as JSON lines.
//!
//! The model that answered becomes the kind. Source: the data set lmsys/lmsys-chat-1m (its own licence, no redistribution);
//! Zheng et al., "LMSYS-Chat-1M", 2023.

use super::chats::{self, Chats};
use super::fields::{from_json, name_number};
use super::{Batch, LineError, Opened, Opening, Parse, Shape, Spec};
use crate::trace::record::Kinds;
use crate::trace::tokenize::{Message, Role};
use serde::Deserialize;
use serde_json::{Map, Value};

pub(super) const SPEC: Spec = Spec {
    name: "LMSys-Chat-1M (times drawn)",
    description: "LMSys-Chat-1M (Parquet or JSON lines with conversation_id, conversation; needs --tokenizer)",
    shape: Shape::Json(fits),
    time_unit: None,
    sorted: true,
    open,
};

fn fits(fields: &Map<String, Value>) -> bool {
    fields.contains_key("conversation_id") && fields.get("conversation").is_some_and(Value::is_array)
}

fn open(opening: &Opening<'_>) -> Result<Opened, LineError> {
    chats::open(SPEC.name, opening, |chats| Box::new(Parser { chats, kinds: Kinds::default() }))
}

struct Parser {
    chats: Chats,
    kinds: Kinds,
}

#[derive(Deserialize)]
struct Line {
    conversation_id: String,
    model: Option<String>,
    conversation: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    role: Role,
    content: String,
}

impl Parse for Parser {
    fn parse(&mut self, item: &str, out: &mut Batch) -> Result<(), LineError> {
        let line: Line = from_json(SPEC.name, item)?;
        let kind = line.model.as_deref().map(|model| self.kinds.get(model));
        let said = line.conversation.into_iter().map(|said| Message { role: said.role, content: said.content });
        let messages: Vec<Message> = said.collect();
        self.chats.conversation(name_number(&line.conversation_id), &messages, kind.as_ref(), out)
    }

    fn finish(&mut self, out: &mut Batch) -> Result<(), LineError> {
        self.chats.finish(out);
        Ok(())
    }
}
