//! `/v1/responses` as a chat.
//!
//! Known where all of it is in the body: not after `previous_response_id`, which only the instance that made that response can
//! look up.

use super::{Chat, Unknown, call, declaration, get, items, list, message, object, text, variables};
use minijinja::Value;
use minijinja::value::ValueKind;

/// The chat of a body.
pub(in crate::serve::tokenizer) fn of_responses(body: &Value) -> Result<Chat, Unknown> {
    if ["previous_response_id", "prompt", "previous_input_messages"].iter().any(|field| get(body, field).is_some()) {
        return Err(Unknown::Other);
    }
    let input = get(body, "input").ok_or(Unknown::Other)?;
    let mut turns = Turns::default();
    if let Some(instructions) = text(body, "instructions").filter(|instructions| !instructions.is_empty()) {
        turns.whole(message("system", Value::from(instructions)));
    }
    let mut continues = false;
    if input.as_str().is_some() {
        turns.whole(message("user", input));
    } else {
        let input = items(&input)?;
        input.iter().try_for_each(|item| turns.item(item))?;
        continues = input.last().is_some_and(is_unfinished);
    }
    let effort = get(body, "reasoning").and_then(|reasoning| get(&reasoning, "effort"));
    Ok(Chat {
        messages: turns.done(),
        tools: tools(body)?,
        variables: variables(body, effort)?,
        add_generation_prompt: !continues,
        continue_final_message: continues,
        // Unlike other chats'.
        add_special_tokens: true,
    })
}

/// An assistant's last message is continued where it says that it was not finished.
fn is_unfinished(item: &Value) -> bool {
    let kind = text(item, "type").unwrap_or_else(|| "message".to_owned());
    let status = text(item, "status");
    ["message", "reasoning"].contains(&kind.as_str())
        && status.is_some_and(|status| ["in_progress", "incomplete"].contains(&status.as_str()))
}

/// Functions only: what the server itself would run is not shown to a template.
fn tools(body: &Value) -> Result<Option<Vec<Value>>, Unknown> {
    let declared = list(body, "tools")?.unwrap_or_default();
    if declared.is_empty() {
        return Ok(None);
    }
    let mut tools = Vec::new();
    for tool in &declared {
        match text(tool, "type").as_deref() {
            Some("function") => {
                let function = declaration(tool, "parameters", get(tool, "defer_loading"))?;
                tools.push(object([("type", Value::from("function")), ("function", function)]));
            }
            Some("custom" | "namespace") | None => return Err(Unknown::Other),
            Some(_) => {}
        }
    }
    Ok(Some(tools))
}

/// Messages in the making: an assistant's thoughts, words and calls are items of their own, and one message.
#[derive(Default)]
struct Turns {
    done: Vec<Value>,
    assistant: Option<Assistant>,
}

#[derive(Default)]
struct Assistant {
    reasoning: Option<Value>,
    content: Option<Value>,
    calls: Vec<Value>,
}

impl Turns {
    /// A message that is complete.
    fn whole(&mut self, message: Value) {
        self.close();
        self.done.push(message);
    }

    fn item(&mut self, item: &Value) -> Result<(), Unknown> {
        let role = text(item, "role");
        match (text(item, "type").as_deref(), role.as_deref()) {
            (Some("function_call"), _) => {
                if get(item, "namespace").is_some() {
                    return Err(Unknown::Other);
                }
                let name = get(item, "name").ok_or(Unknown::Other)?;
                let arguments = get(item, "arguments").ok_or(Unknown::Other)?;
                self.open().calls.push(call(get(item, "call_id"), [("name", name), ("arguments", arguments)]));
            }
            (Some("reasoning"), _) => {
                let thought = Some(Value::from(thought(item)?));
                if self.open().reasoning.is_some() {
                    self.close();
                }
                self.open().reasoning = thought;
            }
            (Some("function_call_output" | "custom_tool_call_output"), _) => {
                let output = get(item, "output").unwrap_or(Value::from(()));
                let id = get(item, "call_id").unwrap_or(Value::from(()));
                self.whole(object([("role", Value::from("tool")), ("content", output), ("tool_call_id", id)]));
            }
            (None | Some("message"), Some("assistant")) => {
                let words = words(item)?;
                if self.open().content.is_some() {
                    self.close();
                }
                self.open().content = Some(words);
            }
            (None | Some("message"), Some(_)) => self.whole(item.clone()),
            _ => return Err(Unknown::Other),
        }
        Ok(())
    }

    fn open(&mut self) -> &mut Assistant {
        self.assistant.get_or_insert_default()
    }

    fn close(&mut self) {
        let Some(Assistant { reasoning, content, calls }) = self.assistant.take() else { return };
        let mut message = vec![("role", Value::from("assistant"))];
        message.extend(content.map(|content| ("content", content)));
        message.extend(reasoning.map(|reasoning| ("reasoning", reasoning)));
        if !calls.is_empty() {
            message.push(("tool_calls", calls.into_iter().collect()));
        }
        self.done.push(object(message));
    }

    fn done(mut self) -> Vec<Value> {
        self.close();
        self.done
    }
}

/// What an assistant said: of several parts the first.
fn words(item: &Value) -> Result<Value, Unknown> {
    let content = get(item, "content").ok_or(Unknown::Other)?;
    match content.kind() {
        ValueKind::String => Ok(content),
        _ => Ok(Value::from(text(items(&content)?.first().ok_or(Unknown::Other)?, "text").ok_or(Unknown::Other)?)),
    }
}

/// What an assistant thought, or its summary.
fn thought(item: &Value) -> Result<String, Unknown> {
    if text(item, "encrypted_content").is_some_and(|secret| !secret.is_empty()) {
        return Err(Unknown::Other);
    }
    for field in ["content", "summary"] {
        if let Some(first) = list(item, field)?.and_then(|parts| parts.into_iter().next()) {
            return text(&first, "text").ok_or(Unknown::Other);
        }
    }
    Ok(String::new())
}
