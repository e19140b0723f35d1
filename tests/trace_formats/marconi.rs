//! Marconi.

use crate::support::{Expected, check, read};
use warmpath::trace::{Format, Provenance, Tally};

#[test]
fn marconi() {
    let tokens = |range: std::ops::Range<u32>| format!("{:?}", range.collect::<Vec<u32>>());
    let (long, short) = (tokens(0..40), tokens(0..20));
    let lines = format!(
        r#"{{"session_id": 0, "turn_id": 0, "ts": 0.0, "num_input_tokens": 20, "num_output_tokens": 3, "input_tokens": {short}, "output_tokens": [7, 8, 9]}}
{{"session_id": 0, "turn_id": 1, "ts": 1.5, "num_input_tokens": 40, "num_output_tokens": 1, "input_tokens": {long}, "output_tokens": [7]}}
{{"session_id": 1, "turn_id": 0, "ts": 1.25, "num_input_tokens": 0, "num_output_tokens": 1, "input_tokens": [], "output_tokens": [7]}}
{{"session_id": 1, "turn_id": 1, "ts": -3, "num_input_tokens": 20, "num_output_tokens": 1, "input_tokens": {short}, "output_tokens": [7]}}"#
    );
    let records = check(
        read(lines),
        Expected {
            format: Format::Marconi,
            block_tokens: 16,
            provenance: Provenance::Real,
            records: &[(0, 20, 3, 2, 1), (1500, 40, 1, 3, 2)],
            tally: Tally { dropped_no_prompt: 1, dropped_bad_time: 1, ..Tally::default() },
        },
    );
    assert_eq!(records[0].blocks[0], records[1].blocks[0], "the full block is shared");
    assert_ne!(records[0].blocks[1], records[1].blocks[1], "the partial one is not");
}
