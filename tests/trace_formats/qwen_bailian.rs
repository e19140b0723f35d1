//! Qwen-Bailian.

use crate::support::{Expected, check, read};
use warmpath::trace::{Format, Provenance, Tally};

/// A first row as it is published; a child; one whose parent is not there; failures; a miscount; a type that is escaped; CRLF,
/// blank lines, fields in another order, and no line feed at the end.
#[test]
fn odd_lines() {
    let lines = "\
        {\"chat_id\":0,\"parent_chat_id\":-1,\"timestamp\":0.0,\"input_length\":20,\"output_length\":7,\"type\":\"text\",\"turn\":1,\"hash_ids\":[0,1]}\r\n\r\n\
        {\"chat_id\":1,\"parent_chat_id\":0,\"timestamp\":0.5,\"input_length\":33,\"output_length\":7,\"type\":\"text\",\"turn\":2,\"hash_ids\":[0,2,3]}\n\
        {\"chat_id\":2,\"parent_chat_id\":99,\"timestamp\":0.5,\"input_length\":16,\"output_length\":7,\"type\":\"te\\\"xt\",\"turn\":5,\"hash_ids\":[9]}\n\
        {\"chat_id\":3,\"parent_chat_id\":-1,\"timestamp\":0.501,\"input_length\":16,\"output_length\":0,\"type\":\"text\",\"turn\":1,\"hash_ids\":[9]}\n\
        {\"chat_id\":4,\"parent_chat_id\":-1,\"timestamp\":0.502,\"input_length\":0,\"output_length\":1,\"type\":\"text\",\"turn\":1,\"hash_ids\":[]}\n\
        {\"chat_id\":5,\"parent_chat_id\":-1,\"timestamp\":0.503,\"input_length\":99999999,\"output_length\":1,\"type\":\"text\",\"turn\":1,\"hash_ids\":[]}\n\
        {\"hash_ids\":[4,5,6],\"turn\":1,\"type\":\"file\",\"output_length\":7,\"input_length\":20,\"timestamp\":61.114,\"parent_chat_id\":-1,\"chat_id\":6,\"later\":[{\"x\":[1]}]}";
    let records = check(
        read(lines),
        Expected {
            format: Format::QwenBailian,
            block_tokens: 16,
            provenance: Provenance::Real,
            records: &[(0, 20, 7, 2, 1), (500, 33, 7, 3, 2), (500, 16, 7, 1, 5), (61_114, 20, 7, 2, 1)],
            tally: Tally {
                dropped_no_output: 1,
                dropped_no_prompt: 1,
                dropped_too_long: 1,
                missing_parents: 1,
                miscounted_ids: 1,
                ..Tally::default()
            },
        },
    );
    assert_eq!((records[1].parent, records[2].parent), (Some(0), Some(99)));
    assert_eq!(records[2].kind.as_ref().unwrap().name(), "te\"xt");
}

#[test]
fn one_that_goes_back_in_time_is_damaged() {
    let line = |at: &str| {
        format!(
            r#"{{"chat_id":1,"parent_chat_id":-1,"timestamp":{at},"input_length":1,"output_length":1,"hash_ids":[0]}}"#
        )
    };
    let message = read(format!("{}\n{}", line("2.0"), line("1.5"))).err().unwrap().to_string();
    assert!(message.contains("line 2") && message.contains("earlier"), "{message}");
}
