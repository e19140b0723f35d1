//! LLMServingSim.

use crate::support::{Expected, check, data, read, read_trace};
use warmpath::trace::{Format, Provenance, Tally, Trace};

#[test]
fn llmservingsim_requests_and_sessions() {
    let example = read_trace(&Trace::open(data("llmservingsim/example_trace.jsonl")).unwrap()).unwrap();
    assert_eq!((example.format, example.records.len()), (Format::LlmServingSim, 10));
    assert_eq!((example.provenance, example.tally.miscounted_ids), (Provenance::Real, 0));
    let real = read_trace(&Trace::open(data("llmservingsim/sharegpt-qwen3-32b-first3.jsonl")).unwrap()).unwrap();
    assert_eq!((real.records[0].prompt_tokens, real.records[0].blocks.len()), (2361, 148));
    let mixed = r#"{"session_id": "s", "arrival_time_ns": 1000000, "sub_requests": [{"input_toks": 9, "output_toks": 2, "tool_duration_ns": 5000000}, {"input_toks": 20, "output_toks": 2, "tool_duration_ns": 0}]}
{"input_toks": 17, "output_toks": 2, "arrival_time_ns": 2000000}"#;
    check(
        read(mixed),
        Expected {
            format: Format::LlmServingSim,
            block_tokens: 16,
            provenance: Provenance::none(),
            records: &[(1, 9, 2, 1, 1), (2, 17, 2, 2, 0), (6, 20, 2, 2, 2)],
            tally: Tally::default(),
        },
    );
}
