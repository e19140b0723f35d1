//! Vidur.

use crate::support::{Expected, check, read};
use warmpath::trace::{Format, Provenance, Tally};

#[test]
fn vidur() {
    check(
        read("arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,4808,10\n0.5,3180.0,8\n1.5,0,8\n"),
        Expected {
            format: Format::Vidur,
            block_tokens: 16,
            provenance: Provenance::none(),
            records: &[(0, 4808, 10, 301, 0), (500, 3180, 8, 199, 0)],
            tally: Tally { dropped_no_prompt: 1, ..Tally::default() },
        },
    );
}
