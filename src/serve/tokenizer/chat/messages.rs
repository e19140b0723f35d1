//! `/v1/messages`, Anthropic's API, as a chat.

use super::{Chat, Unknown, call, declaration, get, items, list, message, object, text, variables};
use minijinja::Value;
use minijinja::value::ValueKind;

/// What of a template decides how a body becomes a chat.
#[derive(Clone, Debug)]
pub(in crate::serve::tokenizer) struct Manners {
    /// Whether system messages must come first, so that later ones are moved there.
    pub system_first: bool,
    /// The effort that stands for thinking being disabled.
    pub disabled_effort: &'static str,
}

/// Clients send this with every request, each time different; vLLM leaves it out.
const BILLING: &str = "x-anthropic-billing-header";

/// The chat of a body.
pub(in crate::serve::tokenizer) fn of_messages(body: &Value, manners: &Manners) -> Result<Chat, Unknown> {
    let sent = list(body, "messages")?.ok_or(Unknown::Other)?;
    let mut messages = Vec::new();
    let mut system = get(body, "system").map_or(Ok(String::new()), |system| words(&system))?;
    if manners.system_first {
        for inline in sent.iter().filter(|one| is_system(one)) {
            system += &words(&get(inline, "content").ok_or(Unknown::Other)?)?;
        }
    }
    if !system.is_empty() {
        messages.push(message("system", Value::from(system)));
    }
    for one in &sent {
        if !is_system(one) {
            turn(one, &mut messages)?;
        } else if !manners.system_first {
            let words = words(&get(one, "content").ok_or(Unknown::Other)?)?;
            messages.extend((!words.is_empty()).then(|| message("system", Value::from(words))));
        }
    }
    let disabled = get(body, "thinking").and_then(|thinking| text(&thinking, "type")).is_some_and(|t| t == "disabled");
    let effort = match disabled {
        true => Some(Value::from(manners.disabled_effort)),
        false => get(body, "output_config").and_then(|config| get(&config, "effort")),
    };
    let tools = list(body, "tools")?.map(|tools| tools.iter().map(tool).collect()).transpose()?;
    let variables = variables(body, effort)?;
    Ok(Chat { messages, tools, variables, add_generation_prompt: true, ..Chat::default() })
}

fn is_system(message: &Value) -> bool {
    text(message, "role").as_deref() == Some("system")
}

/// The texts of a system prompt, which is a text or blocks of text.
fn words(content: &Value) -> Result<String, Unknown> {
    let mut words = String::new();
    let mut add = |text: &str| {
        if !text.starts_with(BILLING) {
            words += text;
        }
    };
    match content.as_str() {
        Some(text) => add(text),
        None => {
            for block in items(content)? {
                match text(&block, "type").as_deref() {
                    Some("text") => add(&text(&block, "text").unwrap_or_default()),
                    _ => return Err(Unknown::Other),
                }
            }
        }
    }
    Ok(words)
}

/// One message, which may become several: what a tool answered comes in a user's message, and is a message of its own.
fn turn(sent: &Value, messages: &mut Vec<Value>) -> Result<(), Unknown> {
    let role = text(sent, "role").ok_or(Unknown::Other)?;
    let content = get(sent, "content").ok_or(Unknown::Other)?;
    if content.as_str().is_some() {
        messages.push(message(&role, content));
        return Ok(());
    }
    let (mut parts, mut calls, mut thoughts) = (Vec::new(), Vec::new(), None::<String>);
    for block in items(&content)? {
        match (text(&block, "type").ok_or(Unknown::Other)?.as_str(), role.as_str()) {
            ("text", _) => {
                if let Some(words) = text(&block, "text").filter(|words| !words.is_empty()) {
                    parts.push(object([("type", Value::from("text")), ("text", Value::from(words))]));
                }
            }
            ("thinking", _) => {
                if let Some(thought) = text(&block, "thinking") {
                    *thoughts.get_or_insert_default() += &thought;
                }
            }
            ("redacted_thinking" | "tool_reference", _) => {}
            ("tool_use", _) => {
                let input = get(&block, "input").filter(Value::is_true);
                let input = input.unwrap_or_else(|| object(Vec::<(&str, Value)>::new()));
                let name = get(&block, "name").unwrap_or(Value::from(""));
                calls.push(call(get(&block, "id"), [("arguments", input), ("name", name)]));
            }
            ("tool_result", "user") => messages.push(answer(&block)?),
            ("image", _) => return Err(Unknown::MoreThanText),
            _ => return Err(Unknown::Other),
        }
    }
    let mut turn = vec![("role", Value::from(role.as_str()))];
    let has_content = !parts.is_empty();
    match <[Value; 1]>::try_from(parts) {
        Ok([only]) => turn.extend(get(&only, "text").map(|text| ("content", text))),
        Err(parts) if has_content => turn.push(("content", parts.into_iter().collect())),
        Err(_) => {}
    }
    turn.extend(thoughts.map(|thoughts| ("reasoning", Value::from(thoughts))));
    if !calls.is_empty() {
        turn.push(("tool_calls", calls.into_iter().collect()));
    }
    if has_content || role != "user" {
        messages.push(object(turn));
    }
    Ok(())
}

/// What a tool answered.
fn answer(block: &Value) -> Result<Value, Unknown> {
    let content = get(block, "content").unwrap_or(Value::from(""));
    let words = match content.kind() {
        ValueKind::String => content,
        _ => {
            let mut texts = Vec::new();
            for part in items(&content)? {
                match text(&part, "type").as_deref() {
                    Some("text") => texts.push(text(&part, "text").unwrap_or_default()),
                    Some("image") => return Err(Unknown::MoreThanText),
                    _ => return Err(Unknown::Other),
                }
            }
            Value::from(texts.join("\n"))
        }
    };
    let id = get(block, "tool_use_id").unwrap_or(Value::from(""));
    Ok(object([("role", Value::from("tool")), ("content", words), ("tool_call_id", id)]))
}

/// A declared tool as a function; a schema without a type is one of an object.
fn tool(declared: &Value) -> Result<Value, Unknown> {
    let schema = get(declared, "input_schema").ok_or(Unknown::Other)?;
    let mut schema = super::pairs(&schema)?;
    if !schema.iter().any(|(key, _)| key == "type") {
        schema.push(("type".to_owned(), Value::from("object")));
    }
    let mut with_schema = super::pairs(declared)?;
    with_schema.retain(|(key, _)| key != "input_schema");
    with_schema.push(("input_schema".to_owned(), object(schema)));
    let function = declaration(&object(with_schema), "input_schema", get(declared, "defer_loading"))?;
    Ok(object([("type", Value::from("function")), ("function", function)]))
}
