//! Whether a template looks into a message's parts, found in its source as vLLM finds it (0.32: `renderers/hf.py`): it loops
//! over a message's content, over a variable called `content`, or, in a macro, over what is given a message's content.

/// Whether it does.
pub(super) fn takes_parts(source: &str) -> bool {
    let statements = statements(source);
    let messages = message_names(&statements);
    let is_content = |expression: &str| {
        messages.iter().any(|name| {
            let of = expression.strip_prefix(name.as_str());
            of.is_some_and(|rest| [".content", "['content']", "[\"content\"]"].contains(&rest))
        })
    };
    let mut macro_parameters: Option<Vec<String>> = None;
    for statement in &statements {
        if let Some(head) = statement.strip_prefix("macro ") {
            macro_parameters = Some(given_content(source, head, is_content));
        } else if statement.starts_with("endmacro") {
            macro_parameters = None;
        } else if let Some((_, over)) = for_loop(statement) {
            let over_content = match &macro_parameters {
                Some(parameters) => parameters.contains(&over),
                None => over == "content",
            };
            if over_content || is_content(&over) {
                return true;
            }
        }
    }
    false
}

/// What stands in `{% … %}`, one after another.
fn statements(source: &str) -> Vec<&str> {
    let blocks = source.split("{%").skip(1);
    let inner = blocks.filter_map(|block| Some(block.split_once("%}")?.0));
    inner.map(|inner| inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim()).collect()
}

/// What a message goes by in the loops over all of them.
fn message_names(statements: &[&str]) -> Vec<String> {
    let mut lists = vec!["messages".to_owned()];
    let mut at = 0;
    while at < lists.len() {
        for statement in statements {
            let assigned = statement.strip_prefix("set ").and_then(|assignment| assignment.split_once('='));
            if let Some((name, value)) = assigned
                && bare(value) == lists[at]
                && !lists.iter().any(|known| known == name.trim())
            {
                lists.push(name.trim().to_owned());
            }
        }
        at += 1;
    }
    let loops = statements.iter().filter_map(|statement| for_loop(statement));
    loops.filter(|(_, over)| lists.contains(over)).map(|(name, _)| name).collect()
}

/// The variable of a loop, and what it loops over.
fn for_loop(statement: &str) -> Option<(String, String)> {
    let (name, over) = statement.strip_prefix("for ")?.split_once(" in ")?;
    let over = over.split(" if ").next()?;
    Some((name.trim().to_owned(), bare(over.trim_end_matches("recursive"))))
}

/// An expression without its filters and its slice.
fn bare(expression: &str) -> String {
    let expression = expression.split('|').next().unwrap_or_default().trim();
    match expression.rfind('[') {
        Some(at) if expression.ends_with(']') && expression[at..].contains(':') => expression[..at].trim().to_owned(),
        _ => expression.to_owned(),
    }
}

/// The parameters of a macro that are given a message's content where it is called.
fn given_content(source: &str, head: &str, is_content: impl Fn(&str) -> bool) -> Vec<String> {
    let Some((name, parameters)) = head.split_once('(') else { return Vec::new() };
    let parameters = parameters.trim_end_matches(')').split(',');
    let parameters: Vec<&str> = parameters.map(|one| one.split('=').next().unwrap_or_default().trim()).collect();
    let mut given = Vec::new();
    for call in source.split(&format!("{}(", name.trim())).skip(1) {
        for (at, argument) in call.split(')').next().unwrap_or_default().split(',').enumerate() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (Some(name.trim()), value),
                None => (parameters.get(at).copied(), argument),
            };
            if let (Some(name), true) = (name, is_content(&bare(value))) {
                given.push(name.to_owned());
            }
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_over_content_are_told_from_others() {
        for (source, expected) in [
            ("{% for m in messages %}{{ m.content }}{% endfor %}", false),
            ("{%- for m in messages -%}{%- for p in m['content'] -%}", true),
            ("{% for m in messages[1:] %}{% for p in m.content | reverse %}", true),
            ("{% set l = messages[1:] %}{% for m in l %}{% for p in m.content if p.text %}", true),
            ("{% for m in messages %}{% if '</think>' in m.content %}{% set content = m.content %}", false),
            ("{% for m in messages %}{% set content = m.content %}{% for p in content %}", true),
            ("{% for m in messages %}{% for call in m.tool_calls %}", false),
            (
                "{% macro show(c, n) %}{% for p in c %}{% endfor %}{% endmacro %}{% for m in messages %}{{ show(m.content, 1) }}",
                true,
            ),
            (
                "{% macro show(c) %}{% for p in c %}{% endfor %}{% endmacro %}{% for m in messages %}{{ show(m.tools) }}",
                false,
            ),
            ("{% macro show(content) %}{% for p in content %}{% endfor %}{% endmacro %}", false),
        ] {
            assert_eq!(takes_parts(source), expected, "{source}");
        }
    }
}
