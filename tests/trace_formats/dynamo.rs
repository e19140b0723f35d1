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
    assert_ne!(records[0].session, records[1].session, "so are sessions");
    let text = r#"{"text_input": "hello", "output_length": 5, "timestamp": 0}"#;
    assert!(read(text).err().unwrap().to_string().contains("need a tokenizer"));
}

/// Sessions of a play share its blocks.
#[test]
fn a_play_has_several_sessions() {
    let agentic = r#"{"schema":"dynamo.agentic_mooncake","version":2,"block_size":4,"hash_id_scope":"local","source":{"format":"f","digest":"d"}}
{"request_id":"a","play_id":"p","session_id":"planner","model":"m","input_tokens":6,"output_tokens":2,"hash_ids":[1,2],"not_before_ms":0.0}
{"request_id":"b","play_id":"p","session_id":"worker","model":"m","input_tokens":6,"output_tokens":2,"hash_ids":[1,2],"not_before_ms":7.5,"dependencies":[{"request_id":"a","trigger":"completion","delay_ms":1.0,"relation":"spawn"}]}"#;
    let records = read(agentic).unwrap().records;
    assert_eq!(records[0].blocks, records[1].blocks);
    assert_ne!(records[0].session, records[1].session);
}

/// As the upstream page "Request Replay Tracing" shows them: with a session and without, in order of their ends.
#[test]
fn dynamo_request_traces() {
    let events = r#"{"schema":"dynamo.request.trace.v1","event_type":"request_end","event_time_unix_ms":1777312801000,"event_source":"dynamo","agent_context":{"session_id":"run-42:researcher","parent_session_id":"run-42:planner"},"request":{"request_id":"a","x_request_id":"c","model":"m","input_tokens":128,"output_tokens":16,"request_received_ms":1777312800500,"total_time_ms":500,"replay":{"trace_block_size":64,"input_length":128,"input_sequence_hashes":[14879255164371896291,274632075616497421]}}}
{"schema":"dynamo.request.trace.v1","event_type":"tool_end","event_time_unix_ms":1777312801500,"session_id":"run-42:researcher","tool":{"tool_call_id":"x","tool_class":"web_search","duration_ms":420.5}}
{"timestamp":7,"event":{"schema":"dynamo.request.trace.v1","event_type":"request_end","event_time_unix_ms":1777312809000,"agent_context":{"session_id":"run-42:researcher"},"request":{"request_id":"b","output_tokens":3,"request_received_ms":1777312800000,"replay":{"trace_block_size":64,"input_length":60,"input_sequence_hashes":[5]}}}}
{"schema":"dynamo.request.trace.v1","event_type":"request_end","event_time_unix_ms":1777312809500,"request":{"request_id":"d","output_tokens":3,"replay":{"trace_block_size":64,"input_length":60,"input_sequence_hashes":[5]}}}"#;
    let records = check(
        read(events),
        Expected {
            format: Format::DynamoRequest,
            block_tokens: 64,
            provenance: Provenance::Real,
            // What came first stands second, and is kept.
            records: &[(0, 60, 3, 1, 0), (500, 128, 16, 2, 0), (9500, 60, 3, 1, 0)],
            tally: Tally::default(),
        },
    );
    let sessions: Vec<_> = records.iter().map(|record| record.session).collect();
    assert!(sessions[0].is_some() && sessions[0] == sessions[1] && sessions[2].is_none(), "{sessions:?}");
}

/// Payloads and tools come first, one of them without a schema; a request was not recorded for replay.
#[test]
fn dynamo_request_traces_may_begin_with_other_events() {
    let before = r#"{"event_type":"request_payload","request_id":"a","request":"anything"}
{"event":"dropped"}
{"schema":"dynamo.request.trace.v1","event_type":"tool_start","event_time_unix_ms":1777312800000,"tool":{"tool_call_id":"x","tool_class":"web_search"}}"#;
    let requests = r#"{"schema":"dynamo.request.trace.v1","event_type":"request_end","event_time_unix_ms":1777312801000,"request":{"request_id":"a","input_tokens":60,"output_tokens":3,"request_received_ms":1777312800500,"replay":{"trace_block_size":64,"input_length":60,"input_sequence_hashes":[5]}}}
{"schema":"dynamo.request.trace.v1","event_type":"request_end","event_time_unix_ms":1777312802000,"request":{"request_id":"b","input_tokens":70,"output_tokens":3,"request_received_ms":1777312800900}}
{"schema":"dynamo.request.trace.v1","event_type":"request_end","event_time_unix_ms":1777312802000,"request":{"request_id":"c","output_tokens":3,"request_received_ms":1777312800900}}"#;
    check(
        read(format!("{before}\n{requests}")),
        Expected {
            format: Format::DynamoRequest,
            block_tokens: 64,
            provenance: Provenance::Real,
            records: &[(0, 60, 3, 1, 0), (400, 70, 3, 0, 0)],
            tally: Tally { dropped_no_prompt: 1, miscounted_ids: 1, ..Tally::default() },
        },
    );
    assert_eq!(read(before).unwrap().records, [], "no request is no damage");
    let mixed = requests.replacen("64", "32", 1).replace("\"input_length\":60,", "\"input_length\":30,");
    let second = requests.lines().next().unwrap();
    let said = read(format!("{mixed}\n{second}")).err().unwrap().to_string();
    assert!(said.contains("blocks of 64 tokens after blocks of 32; split the file"), "{said}");
    let no_request = r#"{"schema":"dynamo.request.trace.v1","event_type":"request_end","event_time_unix_ms":7}"#;
    assert!(read(no_request).err().unwrap().to_string().contains("no request in it"));
}
