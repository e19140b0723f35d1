//! The file's form as a JSON Schema, made of the types that it is read into.
//!
//! It says less than the checks do: names, types, what is required, some bounds. What it refuses they refuse, too.

use super::{Config, raw};
use serde_json::Value;

impl Config {
    /// A JSON Schema (draft 2020-12) of the file, for editors and pipelines.
    pub fn schema() -> Value {
        let mut schema = Value::from(schemars::schema_for!(raw::Config));
        strip(&mut schema);
        if let Some(object) = schema.as_object_mut() {
            object.insert("title".to_owned(), "warmpath.toml".into());
        }
        schema
    }
}

/// What is optional is left out of a TOML file, where nothing is null.
fn strip(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.retain(|key, value| key != "default" || !value.is_null());
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|one| one != "null");
                if let [only] = &types[..] {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(any)) = object.get_mut("anyOf") {
                any.retain(|one| one.get("type").is_none_or(|kind| kind != "null"));
            }
            object.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
