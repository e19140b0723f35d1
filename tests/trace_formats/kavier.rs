//! Kavier, as CSV; as Parquet it is in `parquet`.

use crate::support::{Expected, check, data, read_trace};
use warmpath::routing::block::ContentHash;
use warmpath::trace::{Format, Provenance, Tally, Trace};

#[test]
fn kavier() {
    let records = check(
        read_trace(&Trace::open(data("kavier/kavier-0.5.3_input_example.csv")).unwrap()),
        Expected {
            format: Format::Kavier,
            block_tokens: 16,
            provenance: Provenance::Real,
            // Put in order: the file goes back in time at each session.
            records: &[
                (0, 8, 6, 1, 1),
                (0, 6, 9, 1, 1),
                (0, 5, 7, 1, 1),
                (0, 9, 3, 1, 1),
                (1000, 12, 5, 1, 2),
                (2000, 10, 4, 1, 2),
            ],
            tally: Tally::default(),
        },
    );
    assert_eq!(records[0].blocks[0], ContentHash::of_tokens(&[1, 100, 101, 102, 103, 104, 105, 2]));
    assert_eq!((records[0].session, records[4].session, records[5].session), (Some(0), Some(0), Some(1)));
}

#[test]
fn kavier_with_a_trailing_comma_in_the_heading_or_without_output() {
    let decode = read_trace(&Trace::open(data("kavier/experiment1_input_input_decode_accuracy.csv")).unwrap()).unwrap();
    assert_eq!((decode.format, decode.records.len(), decode.provenance), (Format::Kavier, 11, Provenance::none()));
    let prefill = read_trace(&Trace::open(data("kavier/experiment1_input_input_prefill_accuracy.csv")).unwrap());
    assert_eq!(prefill.unwrap().tally, Tally { dropped_no_output: 9, ..Tally::default() });
}
