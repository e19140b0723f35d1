//! Chat templates, rendered as Hugging Face's libraries do.

use super::chat::{Chat, Manners, Unknown, get, items, pairs, text};
use super::conversation::{self, Form};
use super::value::object;
use super::{date, form};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value};
use std::time::SystemTime;

/// A model's chat template.
pub(super) struct Template {
    environment: Environment<'static>,
    /// `bos_token` and the like, which templates write.
    special_tokens: Vec<(String, Value)>,
    form: Form,
    /// What decides how `/v1/messages` becomes a chat.
    pub manners: Manners,
}

/// A template that is none.
pub(super) struct TemplateError(pub Error);

const NAME: &str = "chat";
/// Put where a message is to be continued, found again in what was rendered, and cut off there.
const CONTINUE_HERE: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// The template in a `tokenizer_config.json`, where there is one.
pub(super) fn of_config(config: &serde_json::Value) -> Option<String> {
    use serde_json::Value;
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
    pub fn new(source: String, config: &serde_json::Value) -> Result<Self, TemplateError> {
        let knows_developer = source.contains("\"developer\"") || source.contains("'developer'");
        let form = Form { takes_parts: form::takes_parts(&source), knows_developer };
        let special_tokens = ["bos_token", "eos_token", "unk_token", "pad_token"].into_iter().filter_map(|name| {
            let token = config.get(name)?;
            let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
            Some((name.to_owned(), Value::from(text)))
        });
        let manners = Manners { system_first: false, disabled_effort: "none" };
        let environment = environment(source)?;
        let mut template = Template { environment, special_tokens: special_tokens.collect(), form, manners };
        template.manners = template.find_manners();
        Ok(template)
    }

    /// The prompt of a chat.
    pub fn render(&self, chat: &Chat) -> Result<String, Unknown> {
        if chat.continue_final_message && chat.add_generation_prompt {
            return Err(Unknown::Other);
        }
        let mut messages = conversation::of(&chat.messages, self.form)?;
        if chat.continue_final_message {
            let last = messages.last_mut().ok_or(Unknown::Other)?;
            *last = to_be_continued(last)?;
        }
        let mut context = vec![("documents".to_owned(), Value::from(()))];
        context.extend(self.special_tokens.iter().cloned());
        context.extend(chat.variables.iter().cloned());
        let tools = chat.tools.as_ref().map_or(Value::from(()), |tools| tools.iter().cloned().collect());
        context.push(("messages".to_owned(), messages.into_iter().collect()));
        context.push(("tools".to_owned(), tools));
        context.push(("add_generation_prompt".to_owned(), Value::from(chat.add_generation_prompt)));
        let template = self.environment.get_template(NAME).map_err(|_| Unknown::Other)?;
        let rendered = template.render(object(context)).map_err(|_| Unknown::Other)?;
        if !chat.continue_final_message {
            return Ok(rendered);
        }
        // A template that trims its messages trimmed the mark's own space as well, and what stood before it is trimmed too.
        let at = rendered.rfind(CONTINUE_HERE.trim_end()).ok_or(Unknown::Other)?;
        let kept = &rendered[..at];
        Ok(if rendered[at..].starts_with(CONTINUE_HERE) { kept } else { kept.trim_end() }.to_owned())
    }

    /// As vLLM finds them: by trying.
    fn find_manners(&self) -> Manners {
        let says = |role: &str| object([("role", role), ("content", "t")]);
        let inline = ["system", "user", "system", "user"].map(says).to_vec();
        let system_first = self.render(&Chat { messages: inline, ..Chat::default() }).is_err();
        let with_effort = |effort: &str| {
            let variables = vec![
                ("enable_thinking".to_owned(), Value::from(effort != "none")),
                ("reasoning_effort".to_owned(), Value::from(effort)),
            ];
            let messages = vec![object([("role", "user"), ("content", "Hi")])];
            self.render(&Chat { messages, variables, add_generation_prompt: true, ..Chat::default() })
        };
        let disabled_effort = match with_effort("none") {
            Ok(none)
                if ["low", "medium", "high", "xhigh", "max"].iter().all(|one| with_effort(one) != Ok(none.clone())) =>
            {
                "none"
            }
            Ok(_) | Err(_) => "low",
        };
        Manners { system_first, disabled_effort }
    }
}

fn environment(source: String) -> Result<Environment<'static>, TemplateError> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    environment.set_syntax(syntax.build().map_err(TemplateError)?);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", tojson);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |format: String| -> Result<String, Error> {
        let unknown = || Error::new(ErrorKind::InvalidOperation, "a date format that is not known here");
        date::strftime(SystemTime::now(), &format).ok_or_else(unknown)
    });
    environment.add_template_owned(NAME, source).map_err(TemplateError)?;
    Ok(environment)
}

/// A message with the mark at the end of its last text.
fn to_be_continued(message: &Value) -> Result<Value, Unknown> {
    let marked = |text: &str| Value::from(format!("{text}{CONTINUE_HERE}"));
    let content = get(message, "content").ok_or(Unknown::Other)?;
    let content = match content.as_str() {
        Some(text) => marked(text),
        None => {
            let mut parts = items(&content)?;
            let last = parts.iter_mut().rev().find(|part| text(part, "text").is_some()).ok_or(Unknown::Other)?;
            let words = text(last, "text").unwrap_or_default();
            *last = with(last, "text", marked(&words))?;
            parts.into_iter().collect()
        }
    };
    with(message, "content", content)
}

/// An object with one of its fields replaced.
fn with(whole: &Value, key: &str, value: Value) -> Result<Value, Unknown> {
    let kept =
        pairs(whole)?.into_iter().map(|(name, old)| if name == key { (name, value.clone()) } else { (name, old) });
    Ok(object(kept.collect::<Vec<_>>()))
}

/// The built-in filter escapes for HTML, which Hugging Face's does not.
fn tojson(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<String, Error> {
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
    use super::super::chat::of_chat;
    use super::*;
    use serde_json::json;

    fn check(source: &str, body: serde_json::Value, expected: Option<&str>) {
        let config = json!({"bos_token": {"content": "<s>"}, "eos_token": "</s>"});
        let Ok(template) = Template::new(source.to_owned(), &config) else { panic!("{source} is a template") };
        let body_read: Value = serde_json::from_str(&body.to_string()).unwrap();
        let rendered = of_chat(&body_read).and_then(|chat| template.render(&chat));
        assert_eq!(rendered.as_deref().ok(), expected, "{body}");
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
        let tools = json!([{"function": {"name": "f", "description": "<a> & 'b' \"c\" \\u003c ż"}}]);
        let expected = r#"{"name": "f", "description": "<a> & 'b' \"c\" \\u003c ż", "parameters": null}"#;
        check("{{ tools[0].function | tojson }}", json!({"messages": [], "tools": tools}), Some(expected));
    }
}
