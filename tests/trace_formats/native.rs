//! Warmpath's own.

use crate::support::{Expected, check, read};
use warmpath::trace::{Format, Provenance, Tally};

#[test]
fn warmpaths_own() {
    let lines = r#"{"warmpath_trace":1,"block_tokens":32,"prefix":{"overlay":{"name":"apps","seed":7}}}
{"at_ns":1500000,"prompt_tokens":40,"output_tokens":2,"blocks":[18446744073709551615,8],"chat":3,"parent":1,"turn":2,"kind":"te\"xt"}"#;
    let records = check(
        read(lines),
        Expected {
            format: Format::Native,
            block_tokens: 32,
            provenance: Provenance::Overlay { name: "apps".to_owned(), seed: 7 },
            records: &[(1, 40, 2, 2, 2)],
            tally: Tally::default(),
        },
    );
    assert_eq!((records[0].chat, records[0].parent), (Some(3), Some(1)));
    assert_eq!(records[0].kind.as_ref().unwrap().name(), "te\"xt");
    let newer = lines.replace("\"warmpath_trace\":1", "\"warmpath_trace\":2");
    assert!(read(newer).err().unwrap().to_string().contains("version 2"));
}
