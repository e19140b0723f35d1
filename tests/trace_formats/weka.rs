//! Weka.

use crate::support::{Expected, check, read, read_trace};
use warmpath::trace::{Format, Provenance, Tally, Trace};

const WEKA: &str = r#"{
  "id": "session-1", "models": ["m"], "block_size": 64, "hash_id_scope": "local", "tool_tokens": 1, "system_tokens": 2,
  "requests": [
    {"t": 0.0, "type": "n", "model": "m", "in": 130, "out": 4, "hash_ids": [1, 2]},
    {"t": 9.5, "type": "s", "model": "m", "in": 200, "out": 4, "hash_ids": [1, 2, 3]},
    {"t": 3.0, "type": "subagent", "requests": [{"t": 4.0, "type": "n", "in": 70, "out": 1, "hash_ids": [9]}]}
  ]
}"#;

#[test]
fn weka_sessions_in_a_file_or_a_folder() {
    let records = check(
        read(WEKA),
        Expected {
            format: Format::Weka,
            block_tokens: 64,
            provenance: Provenance::Real,
            records: &[(0, 130, 4, 2, 1), (4000, 70, 1, 1, 2), (9500, 200, 4, 3, 3)],
            tally: Tally::default(),
        },
    );
    assert_eq!(records[0].blocks, records[2].blocks[..2]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.json"), WEKA).unwrap();
    std::fs::write(folder.path().join("b.json"), WEKA.replace("session-1", "session-2").replace('\n', "")).unwrap();
    std::fs::write(folder.path().join("notes.txt"), "not a session").unwrap();
    let both = read_trace(&Trace::open(folder.path()).unwrap()).unwrap();
    assert_eq!((both.records.len(), both.records[5].at.as_millis()), (6, 19_000), "end to end");
    assert_ne!(both.records[0].blocks[0], both.records[3].blocks[0], "ids are known inside a session only");
}
