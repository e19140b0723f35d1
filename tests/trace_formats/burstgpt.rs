//! BurstGPT.

use crate::support::{Expected, check, data, read, read_trace};
use warmpath::trace::{Format, Provenance, Tally, Trace};

#[test]
fn burstgpt_of_both_editions_has_its_columns_by_name() {
    let first = read_trace(&Trace::open(data("burstgpt/BurstGPT_1.head30.csv")).unwrap()).unwrap();
    assert_eq!((first.format, first.records.len()), (Format::BurstGpt, 29));
    assert_eq!(first.tally.dropped_no_prompt, 1, "a failed request");
    assert_eq!((first.records[1].at.as_secs(), first.records[1].prompt_tokens), (40, 1087), "counted from the first");
    assert_eq!(first.records[0].session, None);
    let third = read_trace(&Trace::open(data("burstgpt/BurstGPT_3.head4.csv")).unwrap()).unwrap();
    assert_eq!((third.records.len(), third.records[3].at.as_secs(), third.records[3].output_tokens), (4, 144, 178));
    assert!(third.records.iter().all(|record| record.session.is_some()));
    assert_eq!(third.records[0].kind.as_ref().unwrap().name(), "Conversation log");
    let api = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\r\n\
               19440110.0,,43,GPT-4,906,446,1352,API log\r\n19440111.5,,1,GPT-4,9,0,9,API log\r\n";
    check(
        read(api),
        Expected {
            format: Format::BurstGpt,
            block_tokens: 16,
            provenance: Provenance::none(),
            records: &[(0, 906, 446, 57, 0)],
            tally: Tally { dropped_no_output: 1, ..Tally::default() },
        },
    );
}
