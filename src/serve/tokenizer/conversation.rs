//! Messages as vLLM hands them to a template (0.32: `renderers/chat_utils.py`, `renderers/hf.py`).

use super::chat::{Unknown, get, items, pairs, text};
use super::value::{self, object};
use minijinja::Value;
use minijinja::value::ValueKind;

/// What of a template decides how messages are handed to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// Whether it looks into a message's parts: then even a text comes as a list of one part. If not, parts come as one text.
    pub takes_parts: bool,
    /// Whether it knows the developer's role; otherwise a developer's words are the system's.
    pub knows_developer: bool,
}

const BILLING: &str = "x-anthropic-billing-header";
/// The keys of a part that vLLM knows; others are passed on to a template that takes parts.
const PART_FIELDS: [&str; 18] = [
    "audio_embeds",
    "audio_url",
    "closed",
    "data",
    "file",
    "image_embeds",
    "image_pil",
    "image_url",
    "input_audio",
    "name",
    "prompt_cache_breakpoint",
    "refusal",
    "text",
    "thinking",
    "type",
    "uuid",
    "video_embeds",
    "video_url",
];

/// The conversation that messages make.
pub(super) fn of(messages: &[Value], form: Form) -> Result<Vec<Value>, Unknown> {
    let mut conversation: Vec<Value> = messages.iter().map(|one| message(one, form)).collect::<Result<_, _>>()?;
    let is_by = |role: &'static str| move |one: &Value| text(one, "role").as_deref() == Some(role);
    if !form.knows_developer && conversation.iter().any(is_by("developer")) {
        for one in conversation.iter_mut().filter(|one| is_by("developer")(one)) {
            let kept = pairs(one)?.into_iter().filter(|(key, _)| key != "tools" && key != "role");
            *one = object([("role".to_owned(), Value::from("system"))].into_iter().chain(kept));
        }
        conversation = with_system_first(conversation)?;
    }
    Ok(conversation)
}

fn message(sent: &Value, form: Form) -> Result<Value, Unknown> {
    let role = text(sent, "role").ok_or(Unknown::Other)?;
    let mut content = parts(sent, form.takes_parts, role == "system")?;
    // What a tool answered is a text for every template.
    if role == "tool" && content.kind() == ValueKind::Seq {
        let texts: Vec<String> = items(&content)?.iter().filter_map(|part| text(part, "text")).collect();
        content = Value::from(texts.join("\n"));
    }
    let mut message = vec![("role", Value::from(role.as_str())), ("content", content)];
    match role.as_str() {
        "assistant" => {
            if let Some(calls) = get(sent, "tool_calls") {
                let calls: Vec<Value> = items(&calls)?.iter().map(call).collect::<Result<_, _>>()?;
                if !calls.is_empty() {
                    message.push(("tool_calls", calls.into_iter().collect()));
                }
            }
            if let Some(reasoning) = get(sent, "reasoning") {
                message.push(("reasoning", reasoning.clone()));
                message.push(("reasoning_content", reasoning));
            }
        }
        "tool" => message.extend(get(sent, "tool_call_id").map(|id| ("tool_call_id", id))),
        "developer" => message.push(("tools", get(sent, "tools").unwrap_or(Value::from(())))),
        _ => {}
    }
    message.extend(text(sent, "name").map(|name| ("name", Value::from(name))));
    Ok(object(message))
}

/// A message's content in the form that the template takes.
fn parts(sent: &Value, takes_parts: bool, is_system: bool) -> Result<Value, Unknown> {
    let parts = match get(sent, "content") {
        None => Vec::new(),
        Some(content) if content.as_str().is_some() => vec![content],
        Some(content) => items(&content)?,
    };
    let mut texts = Vec::with_capacity(parts.len());
    for part in &parts {
        let Some((mut words, extra)) = words(part)? else { continue };
        if is_system && words.as_str().is_some_and(|words| words.starts_with(BILLING)) {
            match words.as_str().and_then(|words| words.split_once('\n')) {
                Some((_, rest)) if !rest.is_empty() => words = Value::from(rest),
                _ => continue,
            }
        }
        texts.push((words, extra));
    }
    if takes_parts {
        let part = |(words, extra): (Value, Fields)| {
            let fixed = [("type".to_owned(), Value::from("text")), ("text".to_owned(), words)];
            object(fixed.into_iter().chain(extra))
        };
        return Ok(texts.into_iter().map(part).collect());
    }
    // Long texts are not copied.
    Ok(match <[(Value, Fields); 1]>::try_from(texts) {
        Ok([(only, _)]) => only,
        Err(texts) => {
            let texts: Vec<&str> = texts.iter().filter_map(|(words, _)| words.as_str()).collect();
            Value::from(texts.join("\n"))
        }
    })
}

/// Keys and values, in order.
type Fields = Vec<(String, Value)>;

/// The text of a part, and its keys that are not known.
fn words(part: &Value) -> Result<Option<(Value, Fields)>, Unknown> {
    if part.as_str().is_some() {
        return Ok(Some((part.clone(), Vec::new())));
    }
    let kind = text(part, "type").ok_or(Unknown::Other)?;
    let field = match kind.as_str() {
        "text" | "input_text" | "output_text" => "text",
        "refusal" | "thinking" => kind.as_str(),
        _ => return Err(Unknown::MoreThanText),
    };
    if get(part, "uuid").is_some() {
        return Err(Unknown::Other);
    }
    let extra = pairs(part)?.into_iter().filter(|(key, _)| !PART_FIELDS.contains(&key.as_str())).collect();
    Ok(get(part, field).filter(|words| words.as_str().is_some()).map(|words| (words, extra)))
}

/// A call's arguments are an object for a template; what is not one is none.
fn call(sent: &Value) -> Result<Value, Unknown> {
    let function = get(sent, "function").ok_or(Unknown::Other)?;
    let arguments = get(&function, "arguments");
    let arguments = match arguments.as_ref().and_then(Value::as_str) {
        Some(json) => value::read(json.as_bytes()).ok(),
        None => arguments,
    };
    let arguments = arguments.filter(|arguments| arguments.kind() == ValueKind::Map);
    let arguments = arguments.unwrap_or_else(|| object(Vec::<(&str, Value)>::new()));
    let with = |whole: &Value, key: &str, value: Value| {
        let mut fields = pairs(whole)?;
        match fields.iter_mut().find(|(name, _)| name == key) {
            Some(field) => field.1 = value,
            None => fields.push((key.to_owned(), value)),
        }
        Ok(object(fields))
    };
    with(sent, "function", with(&function, "arguments", arguments)?)
}

/// All system messages as one, at the start.
fn with_system_first(conversation: Vec<Value>) -> Result<Vec<Value>, Unknown> {
    let is_system = |one: &Value| text(one, "role").as_deref() == Some("system");
    let systems = conversation.iter().filter(|one| is_system(one)).count();
    if systems == 0 || (systems == 1 && conversation.first().is_some_and(is_system)) {
        return Ok(conversation);
    }
    let (system, others): (Vec<Value>, Vec<Value>) = conversation.into_iter().partition(is_system);
    let mut words = Vec::new();
    for one in &system {
        let content = get(one, "content").unwrap_or(Value::from(""));
        let said = match content.as_str() {
            Some(text) => text.to_owned(),
            None => items(&content)?.iter().filter_map(|part| text(part, "text")).collect::<Vec<_>>().join("\n"),
        };
        words.extend((!said.is_empty()).then_some(said));
    }
    let merged = object([("role", Value::from("system")), ("content", Value::from(words.join("\n\n")))]);
    Ok(std::iter::once(merged).chain(others).collect())
}
