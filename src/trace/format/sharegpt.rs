//! ShareGPT: a JSON array of conversations as text, without times.
//!
//! Lengths and blocks need the tokens, and tokens need a tokenizer. None is built in, and none is guessed: the file is
//! recognised, and refused with what to do. Source: the dataset anon8231489123/ShareGPT_Vicuna_unfiltered.

use super::{LineError, Opened, Opening, Shape, Spec};
use serde_json::{Map, Value};

pub(super) const SPEC: Spec = Spec {
    name: "ShareGPT",
    description: "ShareGPT (recognised, but text needs a tokenizer)",
    shape: Shape::Json(fits),
    time_unit: None,
    sorted: true,
    open,
};

fn fits(fields: &Map<String, Value>) -> bool {
    fields.get("conversations").or(fields.get("conversation")).is_some_and(Value::is_array)
}

fn open(_: &Opening<'_>) -> Result<Opened, LineError> {
    Err(LineError::NeedsTokenizer { format: SPEC.name })
}
