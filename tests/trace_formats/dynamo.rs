//! Dynamo and AIPerf.

use crate::support::{Expected, check, read};
use warmpath::trace::{Format, Provenance, Tally};

#[test]
fn dynamo_rows() {
    let rows = r#"{"request_id": "a", "session_id": "s", "input_tokens": 600, "output_tokens": 5, "hash_ids": ["1", 2], "created_time": 10.5}
{"session_id": "s", "input_length": 1100, "output_length": 5, "hash_ids": [1, 2, 3], "delay": 250}
{"session_id": "t", "input_length": 100, "output_length": 5, "hash_ids": [9], "delay": 250}"#;
    check(
        read(rows),
        Expected {
            format: Format::Dynamo,
            block_tokens: 512,
            provenance: Provenance::Real,
            records: &[(10, 600, 5, 2, 0), (260, 1100, 5, 3, 0)],
            tally: Tally { dropped_bad_time: 1, ..Tally::default() },
        },
    );
    let agentic = r#"{"schema":"dynamo.agentic_mooncake","version":2,"block_size":4,"hash_id_scope":"local","source":{}}
{"request_id":"a","play_id":"p","session_id":"s","model":"m","input_length":6,"output_length":2,"hash_ids":[1,2],"not_before_ms":0,"dependencies":[]}
{"request_id":"b","play_id":"q","session_id":"s","model":"m","input_length":6,"output_length":2,"hash_ids":[1,2],"not_before_ms":7,"dependencies":[]}"#;
    let records = check(
        read(agentic),
        Expected {
            format: Format::Dynamo,
            block_tokens: 4,
            provenance: Provenance::Real,
            records: &[(0, 6, 2, 2, 0), (7, 6, 2, 2, 0)],
            tally: Tally::default(),
        },
    );
    assert_ne!(records[0].blocks, records[1].blocks, "ids are known inside a play only");
    let text = r#"{"text_input": "hello", "output_length": 5, "timestamp": 0}"#;
    assert!(read(text).err().unwrap().to_string().contains("need a tokenizer"));
}

#[test]
fn dynamo_request_traces() {
    let events = r#"{"schema":"dynamo.request.trace.v1","event":{"event_type":"request_end","event_time_unix_ms":1700000000000,"request":{"session_id":"s","output_length":3,"replay":{"trace_block_size":16,"input_length":20,"input_sequence_hashes":[11,12]}}}}
{"schema":"dynamo.request.trace.v1","event":{"event_type":"tool_end","event_time_unix_ms":1700000000500}}
{"schema":"dynamo.request.trace.v1","event_type":"request_end","event_time_unix_ms":1700000001000,"request":{"output_length":3,"replay":{"trace_block_size":16,"input_length":16,"input_sequence_hashes":[11]}}}"#;
    check(
        read(events),
        Expected {
            format: Format::DynamoRequest,
            block_tokens: 16,
            provenance: Provenance::Real,
            records: &[(0, 20, 3, 2, 0), (1000, 16, 3, 1, 0)],
            tally: Tally::default(),
        },
    );
}
