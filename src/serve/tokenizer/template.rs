//! Chat templates, rendered as Hugging Face's libraries do.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, Error, ErrorKind};
use serde_json::{Map, Value, json};

/// A model's chat template.
pub(super) struct Template {
    environment: Environment<'static>,
    /// `bos_token` and the like, which templates write.
    special_tokens: Map<String, Value>,
    /// Whether it looks into a message's parts; one that does not is given their texts, joined.
    takes_parts: bool,
}

/// A template that is none.
pub(super) struct TemplateError(pub Error);

const NAME: &str = "chat";

/// The template in a `tokenizer_config.json`, where there is one.
pub(super) fn of_config(config: &Value) -> Option<String> {
    match config.get("chat_template")? {
        Value::String(source) => Some(source.clone()),
        Value::Array(named) => {
            let default = named.iter().find(|one| one.get("name").and_then(Value::as_str) == Some("default"))?;
            Some(default.get("template")?.as_str()?.to_owned())
        }
        _ => None,
    }
}

impl Template {
    pub fn new(source: String, config: &Value) -> Result<Self, TemplateError> {
        let takes_parts = ["in message['content']", "in message[\"content\"]", "in message.content", "in content"]
            .iter()
            .any(|loops| source.contains(loops));
        let mut environment = Environment::new();
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true);
        environment.set_syntax(syntax.build().map_err(TemplateError)?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", |message: String| -> Result<minijinja::Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned(NAME, source).map_err(TemplateError)?;
        let special_tokens = ["bos_token", "eos_token", "unk_token", "pad_token"].into_iter().filter_map(|name| {
            let token = config.get(name)?;
            let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
            Some((name.to_owned(), Value::from(text)))
        });
        let special_tokens = special_tokens.collect();
        Ok(Template { environment, special_tokens, takes_parts })
    }

    /// The prompt of a body of `/v1/chat/completions`; `None` where it cannot be known here.
    pub fn render(&self, body: &Value) -> Option<String> {
        if body.get("chat_template").is_some_and(|own| !own.is_null()) {
            return None;
        }
        let flag = |name: &str, default| body.get(name).map_or(Some(default), Value::as_bool);
        if flag("continue_final_message", false)? {
            return None;
        }
        let messages = body.get("messages")?.as_array()?;
        let messages: Vec<Value> = messages.iter().map(|message| self.message(message)).collect::<Option<_>>()?;
        let mut context = self.special_tokens.clone();
        if let Some(Value::Object(more)) = body.get("chat_template_kwargs") {
            context.extend(more.clone());
        }
        context.insert("messages".to_owned(), Value::Array(messages));
        context.insert("add_generation_prompt".to_owned(), json!(flag("add_generation_prompt", true)?));
        for name in ["tools", "documents"] {
            context.insert(name.to_owned(), body.get(name).cloned().unwrap_or(Value::Null));
        }
        self.environment.get_template(NAME).ok()?.render(Serde(Value::Object(context))).ok()
    }

    /// A message as vLLM hands it to a template: parts as it takes them, a tool call's arguments parsed.
    fn message(&self, message: &Value) -> Option<Value> {
        let mut message = message.as_object()?.clone();
        if let Some(Value::Array(parts)) = message.get("content") {
            let text = |part: &Value| match part.get("type")?.as_str()? {
                "text" | "input_text" => Some(part.get("text")?.as_str()?.to_owned()),
                _ => None,
            };
            let texts: Vec<String> = parts.iter().map(text).collect::<Option<_>>()?;
            if !self.takes_parts {
                message.insert("content".to_owned(), Value::String(texts.join("\n")));
            }
        }
        if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
            for call in calls {
                if let Some(Value::String(arguments)) = call.pointer("/function/arguments") {
                    let arguments = serde_json::from_str(arguments).ok()?;
                    *call.pointer_mut("/function/arguments")? = arguments;
                }
            }
        }
        Some(Value::Object(message))
    }
}

/// The built-in filter escapes for HTML, which Hugging Face's does not.
fn tojson(value: &minijinja::Value, indent: Option<minijinja::Value>, options: Kwargs) -> Result<String, Error> {
    // Python's own arguments say what is so here anyhow.
    let _: Option<bool> = options.get("ensure_ascii")?;
    let escaped = minijinja::filters::tojson(value, indent, options)?.to_string();
    let mut plain = String::with_capacity(escaped.len());
    let mut rest = escaped.as_str();
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let escape = &rest[at..];
        let (written, length) = match escape.get(..6) {
            Some("\\u003c") => ("<", 6),
            Some("\\u003e") => (">", 6),
            Some("\\u0026") => ("&", 6),
            Some("\\u0027") => ("'", 6),
            _ => (&escape[..2], 2),
        };
        plain.push_str(written);
        rest = &escape[length..];
    }
    plain.push_str(rest);
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, body: Value, expected: Option<&str>) {
        let config = json!({"bos_token": {"content": "<s>"}, "eos_token": "</s>"});
        let Ok(template) = Template::new(source.to_owned(), &config) else { panic!("{source} is a template") };
        assert_eq!(template.render(&body).as_deref(), expected, "{body}");
    }

    const PLAIN: &str = "{{ bos_token }}{% for message in messages %}\n  [{{ message['role'] }}] {{ message.content.strip() }}\n\
                         {% endfor %}\n{% if add_generation_prompt %}\n[assistant]{% endif %}";

    #[test]
    fn messages_are_rendered_as_transformers_does() {
        let message = json!({"role": "user", "content": " hi "});
        check(PLAIN, json!({"messages": [message]}), Some("<s>  [user] hi\n[assistant]"));
        check(PLAIN, json!({"messages": [message], "add_generation_prompt": false}), Some("<s>  [user] hi\n"));
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        check(PLAIN, json!({"messages": [{"role": "user", "content": parts}]}), Some("<s>  [user] a\nb\n[assistant]"));
    }

    #[test]
    fn what_cannot_be_known_is_none() {
        let image = json!([{"type": "image_url", "image_url": {"url": "x"}}]);
        check(PLAIN, json!({"messages": [{"role": "user", "content": image}]}), None);
        check(PLAIN, json!({"messages": [], "chat_template": "mine"}), None);
        check(PLAIN, json!({"messages": [], "continue_final_message": true}), None);
        check("{{ raise_exception('no') }}", json!({"messages": []}), None);
    }

    #[test]
    fn json_is_written_as_python_does() {
        let tools = json!([{"name": "f", "says": "<a> & 'b' \"c\" \\u003c ż"}]);
        let expected = r#"{"name": "f", "says": "<a> & 'b' \"c\" \\u003c ż"}"#;
        check("{{ tools[0] | tojson }}", json!({"messages": [], "tools": tools}), Some(expected));
    }
}
