//! A body as the chat that vLLM makes of it, before its template is applied.
//!
//! `/v1/responses` and `/v1/messages` are chats in other words: vLLM turns both into one (0.32: `entrypoints/openai/responses/utils.py`,
//! `entrypoints/anthropic/serving.py`). Objects keep the order of their keys, which templates write out.

mod messages;
mod responses;

pub(super) use messages::{Manners, of_messages};
pub(super) use responses::of_responses;

use super::value::object;
use minijinja::Value;
use minijinja::value::ValueKind;

/// What a template is given.
#[derive(Debug, Default)]
pub(super) struct Chat {
    /// In the order and the form of `/v1/chat/completions`.
    pub messages: Vec<Value>,
    /// Declared functions; `None` where none were declared.
    pub tools: Option<Vec<Value>>,
    /// Everything else that a template can ask for, by name.
    pub variables: Vec<(String, Value)>,
    /// Whether the answer is begun, and not the last message continued.
    pub add_generation_prompt: bool,
    /// Whether the last message is to be continued.
    pub continue_final_message: bool,
    /// Whether special tokens are put around it once more.
    pub add_special_tokens: bool,
}

/// Why a body's prompt cannot be known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// It holds more than text: images, audio, embeddings.
    MoreThanText,
    /// The engine refuses it, or goes by something that is not in the body.
    Other,
}

/// What a template is never given from outside.
const RESERVED: [&str; 5] = ["messages", "tools", "conversation", "chat_template", "tokenize"];

/// The chat of `/v1/chat/completions`.
pub(super) fn of_chat(body: &Value) -> Result<Chat, Unknown> {
    if get(body, "chat_template").is_some() {
        return Err(Unknown::Other);
    }
    let effort = get(body, "reasoning_effort");
    let mut variables = variables(body, effort)?;
    variables.extend(get(body, "documents").map(|documents| ("documents".to_owned(), documents)));
    let tools = match list(body, "tools")? {
        Some(tools) => Some(tools.iter().map(tool).collect::<Result<_, _>>()?),
        None => None,
    };
    let messages = list(body, "messages")?.ok_or(Unknown::Other)?;
    Ok(Chat {
        messages: messages.into_iter().map(with_calls_in_order).collect::<Result<_, _>>()?,
        tools,
        variables,
        add_generation_prompt: flag(body, "add_generation_prompt", true)?,
        continue_final_message: flag(body, "continue_final_message", false)?,
        add_special_tokens: flag(body, "add_special_tokens", false)?,
    })
}

/// `chat_template_kwargs`, and what follows from the effort that is asked for.
fn variables(body: &Value, effort: Option<Value>) -> Result<Vec<(String, Value)>, Unknown> {
    let mut variables = match get(body, "chat_template_kwargs") {
        Some(more) => pairs(&more)?,
        None => Vec::new(),
    };
    if variables.iter().any(|(name, _)| RESERVED.contains(&name.as_str())) {
        return Err(Unknown::Other);
    }
    if let Some(effort) = effort {
        if !variables.iter().any(|(name, _)| name == "enable_thinking") {
            variables.push(("enable_thinking".to_owned(), Value::from(effort.as_str() != Some("none"))));
        }
        variables.push(("reasoning_effort".to_owned(), effort));
    }
    Ok(variables)
}

/// A declared function with the keys that vLLM writes, in its order.
fn tool(declared: &Value) -> Result<Value, Unknown> {
    let function = get(declared, "function").ok_or(Unknown::Other)?;
    let later = get(declared, "defer_loading");
    let known = get(&function, "defer_loading").or_else(|| later.clone());
    let mut tool = vec![("type", Value::from("function")), ("function", declaration(&function, "parameters", known)?)];
    tool.extend(later.map(|later| ("defer_loading", later)));
    Ok(object(tool))
}

/// The inner part of a declared function, whose parameters are in the field `schema`.
fn declaration(function: &Value, schema: &str, defer_loading: Option<Value>) -> Result<Value, Unknown> {
    let mut declaration = vec![
        ("name", Value::from(text(function, "name").ok_or(Unknown::Other)?)),
        ("description", get(function, "description").unwrap_or(Value::from(()))),
        ("parameters", get(function, schema).unwrap_or(Value::from(()))),
    ];
    declaration.extend(get(function, "strict").map(|strict| ("strict", strict)));
    declaration.extend(defer_loading.map(|defer| ("defer_loading", defer)));
    Ok(object(declaration))
}

/// A message of the role `role` with this content.
fn message(role: &str, content: Value) -> Value {
    object([("role", Value::from(role)), ("content", content)])
}

/// A call of a function, as a message of the assistant holds it.
fn call(id: Option<Value>, function: [(&str, Value); 2]) -> Value {
    let id = id.map(|id| ("id", id));
    let rest = [("function", object(function)), ("type", Value::from("function"))];
    object(id.into_iter().chain(rest))
}

/// A message of `/v1/chat/completions` with its calls' keys in the order in which vLLM's types declare them.
fn with_calls_in_order(message: Value) -> Result<Value, Unknown> {
    let Some(calls) = list(&message, "tool_calls")? else { return Ok(message) };
    let in_order = |sent: &Value| {
        let function = get(sent, "function").ok_or(Unknown::Other)?;
        let field = |name| get(&function, name).unwrap_or(Value::from(()));
        Ok(call(get(sent, "id"), [("arguments", field("arguments")), ("name", field("name"))]))
    };
    let calls: Value = calls.iter().map(in_order).collect::<Result<Vec<_>, _>>()?.into_iter().collect();
    let fields = pairs(&message)?.into_iter();
    Ok(object(fields.map(|(key, value)| {
        let value = if key == "tool_calls" { calls.clone() } else { value };
        (key, value)
    })))
}

/// A field that is there and not null.
pub(super) fn get(object: &Value, field: &str) -> Option<Value> {
    let value = object.get_attr(field).ok()?;
    (!value.is_undefined() && !value.is_none()).then_some(value)
}

/// A field that is a text.
pub(super) fn text(object: &Value, field: &str) -> Option<String> {
    Some(get(object, field)?.as_str()?.to_owned())
}

/// The items of a list.
pub(super) fn items(list: &Value) -> Result<Vec<Value>, Unknown> {
    match list.kind() {
        ValueKind::Seq => Ok(list.try_iter().map_err(|_| Unknown::Other)?.collect()),
        _ => Err(Unknown::Other),
    }
}

/// The items of a field that is a list, if it is there.
fn list(object: &Value, field: &str) -> Result<Option<Vec<Value>>, Unknown> {
    get(object, field).map(|list| items(&list)).transpose()
}

/// The keys and values of an object, in order.
pub(super) fn pairs(object: &Value) -> Result<Vec<(String, Value)>, Unknown> {
    if object.kind() != ValueKind::Map {
        return Err(Unknown::Other);
    }
    let keys = object.try_iter().map_err(|_| Unknown::Other)?;
    let pair = |key: Value| Some((key.as_str()?.to_owned(), object.get_item(&key).ok()?));
    keys.map(|key| pair(key).ok_or(Unknown::Other)).collect()
}

/// A field that is a truth value, or its default.
pub(super) fn flag(object: &Value, field: &str, default: bool) -> Result<bool, Unknown> {
    get(object, field).map_or(Ok(default), |flag| bool::try_from(flag).map_err(|_| Unknown::Other))
}
