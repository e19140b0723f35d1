//! RAGPulse.

use crate::support::{Expected, check, read};
use warmpath::routing::block::ContentHash;
use warmpath::trace::{Format, Provenance, Tally};

#[test]
fn ragpulse_has_texts_for_times_and_an_object_for_ids() {
    let lines = r#"{"timestamp":"82","input_length":3112,"output_length":192,"hash_ids":{"sys_prompt":[8302,14332],"passages_ids":[5],"history":[],"web_search":[],"user_input":[26923]},"session_id":"1757476916095-afhw"}
{"timestamp":"80","input_length":3112,"output_length":192,"hash_ids":{"sys_prompt":[8302,14332],"passages_ids":[],"history":[7],"web_search":[],"user_input":[1]},"session_id":"1757476916095-x"}

"#;
    let records = check(
        read(lines),
        Expected {
            format: Format::RagPulse,
            block_tokens: 256,
            provenance: Provenance::Real,
            records: &[(80_000, 3112, 192, 4, 0), (82_000, 3112, 192, 4, 0)],
            tally: Tally::default(),
        },
    );
    assert_eq!(records[1].blocks, [8302, 14332, 5, 26923].map(ContentHash), "in the order of the prompt");
}
