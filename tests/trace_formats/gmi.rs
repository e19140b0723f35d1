//! GMI.

use crate::support::{Expected, check, read};
use warmpath::trace::{Format, Provenance, Tally};

#[test]
fn gmi_counts_nanoseconds_in_a_text() {
    let lines = r#"{"timestamp":"1753694362340138614","input_length":2288,"output_length":9,"hash_ids":[2843241808,5]}
{"timestamp":"1753694363340138614","input_length":2288,"output_length":9,"hash_ids":[2843241808,6,7]}"#;
    check(
        read(lines),
        Expected {
            format: Format::Gmi,
            block_tokens: 32,
            provenance: Provenance::Real,
            records: &[(0, 2288, 9, 2, 0), (1000, 2288, 9, 3, 0)],
            tally: Tally::default(),
        },
    );
}
