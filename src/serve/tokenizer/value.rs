//! A body as values that a template can be given.
//!
//! They are the template engine's own, but for objects of few fields, which most of a chat's are: those are lists to be looked
//! through. With maps, where each look hashes a name, a long chat that is known takes an eighth longer.

use minijinja::Value;
use minijinja::value::{Enumerator, Object, ObjectRepr};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::sync::Arc;

/// An object of more fields is the template engine's own, which finds them by hash.
const FIELDS_MAX: usize = 16;

/// An object of few fields, in order.
#[derive(Debug)]
struct Fields(Vec<(Value, Value)>);

impl Object for Fields {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.0.iter().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(name, _)| name.clone()).collect())
    }
}

/// The object of these fields. Of two that are called the same, the last value, in the place of the first.
pub(super) fn object<N: Into<Value>, V: Into<Value>>(fields: impl IntoIterator<Item = (N, V)>) -> Value {
    let mut few: Vec<(Value, Value)> = Vec::new();
    let mut fields = fields.into_iter();
    while let Some((name, value)) = fields.next() {
        let (name, value): (Value, Value) = (name.into(), value.into());
        match few.iter().position(|(other, _)| *other == name) {
            Some(at) => few[at].1 = value,
            None if few.len() == FIELDS_MAX => {
                let rest = fields.map(|(name, value)| (name.into(), value.into()));
                return Value::from_pairs(few.into_iter().chain([(name, value)]).chain(rest));
            }
            None => few.push((name, value)),
        }
    }
    Value::from_object(Fields(few))
}

/// A value out of JSON.
pub(super) fn read(json: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(json).map(|Read(value)| value)
}

struct Read(Value);

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Read)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::from(()))
    }

    fn visit_bool<E>(self, it: bool) -> Result<Value, E> {
        Ok(Value::from(it))
    }

    fn visit_i64<E>(self, it: i64) -> Result<Value, E> {
        Ok(Value::from(it))
    }

    fn visit_u64<E>(self, it: u64) -> Result<Value, E> {
        Ok(Value::from(it))
    }

    fn visit_f64<E>(self, it: f64) -> Result<Value, E> {
        Ok(Value::from(it))
    }

    fn visit_str<E>(self, it: &str) -> Result<Value, E> {
        Ok(Value::from(it))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Read(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::from(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut failed = None;
        let next = || match fields.next_entry::<Read, Read>() {
            Ok(field) => field.map(|(Read(name), Read(value))| (name, value)),
            Err(error) => {
                failed = Some(error);
                None
            }
        };
        let object = object(std::iter::from_fn(next));
        failed.map_or(Ok(object), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(json: &str) -> String {
        read(json.as_bytes()).unwrap().to_string()
    }

    #[test]
    fn an_object_of_few_fields_is_as_one_of_many() {
        for fields in [1, FIELDS_MAX, FIELDS_MAX + 1, 100] {
            let json: Vec<String> =
                (0..fields).map(|at| format!("\"z{}\": [{at}, null, 0.5, -1, \"a\"]", at * 7 % 101)).collect();
            // One name comes twice.
            let json = format!("{{{}, \"z0\": true}}", json.join(", "));
            let ours = read(json.as_bytes()).unwrap();
            let theirs: Value = serde_json::from_str(&json).unwrap();
            assert_eq!((ours.to_string(), ours.len()), (theirs.to_string(), Some(fields)));
            assert!(ours == theirs, "{json}");
            assert!(theirs == ours, "{json}");
            assert_eq!(ours.get_attr("z0").unwrap(), Value::from(true));
            assert!(
                ours.get_attr("z").unwrap().is_undefined() && ours.get_item(&Value::from(1)).unwrap().is_undefined()
            );
        }
        assert_eq!(shown("{}"), "{}");
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for wrong in ["", "{", "{\"a\": }", "{\"a\": [1, {\"b\": tru}]}", "{\"a\": \"\\ud800\"}", "{} {}"] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(read(b"{\"a\": \"\xff\"}").is_err());
    }
}
