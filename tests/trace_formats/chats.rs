//! Conversations as text.

use crate::support::{ASSISTANT, Read, file, read, read_trace, with_tokenizer};
use std::time::Duration;
use warmpath::routing::block::ContentHash;
use warmpath::trace::{ChatArrivals, Format, How, Provenance, Trace};

fn tokenized(text: &str, arrivals: ChatArrivals) -> Read {
    read_trace(&Trace::open_as(file(text).path(), How { arrivals, ..with_tokenizer() }).unwrap()).unwrap()
}

#[test]
fn without_a_tokenizer_they_are_known_and_refused() {
    let array =
        r#"[{"id":"QWJhYvA_0","conversations":[{"from":"human","value":"a } \" b"},{"from":"gpt","value":"…"}]}]"#;
    let message = read(array).err().unwrap().to_string();
    assert!(message.contains("ShareGPT (times drawn) holds text") && message.contains("--tokenizer"), "{message}");
}

/// A conversation in two entries, one that begins with an answer, an empty one, and roles of every sort.
const SHAREGPT: &str = r#"[
 {"id":"a_0","conversations":[{"from":"system","value":"Be brief."},{"from":"human","value":"one"},{"from":"gpt","value":"two three"}]},
 {"id":"a_1","conversations":[{"from":"human","value":"four"},{"from":"chatgpt","value":"five"}]},
 {"id":"b_3","conversations":[{"from":"gpt","value":"lost"},{"from":"human","value":"x"},{"from":"gpt","value":"y"}]},
 {"id":"c_0","conversations":[]},
 {"id":"d_0","conversations":[{"from":"user","value":"q"},{"from":"bard","value":"r"},{"from":"narrator","value":"s"},{"from":"human","value":"t"},{"from":"gpt","value":"u"}]}
]"#;

#[test]
fn sharegpt_entries_are_joined_and_broken_ones_left_out() {
    let read = tokenized(SHAREGPT, ChatArrivals { sessions_per_second: 0.001, seed: 1 });
    assert_eq!((read.format, read.provenance), (Format::ShareGpt, Provenance::Real));
    let seen: Vec<_> = read.records.iter().map(|r| (r.prompt_tokens, r.output_tokens, r.turn.unwrap())).collect();
    // Ten bytes and three after them; each message has a token of its own, and so has the answer to come.
    assert_eq!(seen, [(1 + 9 + 1 + 3 + 1, 9, 1), (1 + 9 + 1 + 3 + 1 + 9 + 1 + 4 + 1, 4, 2), (1 + 1 + 1, 1, 1)]);
    assert_eq!((read.tally.dropped_missing_parent, read.tally.dropped_no_prompt), (1, 1));
    let chat: Vec<u32> = [ASSISTANT + 1, u32::from(b'q'), ASSISTANT].to_vec();
    assert_eq!(read.records[2].blocks, [ContentHash::of_tokens(&chat)], "true hashes, the template included");
    let gap = read.records[1].at - read.records[0].at;
    assert_eq!(gap, Duration::from_secs_f64(2.0 / 1.5), "two words are read at 90 a minute");
}

#[test]
fn conversations_begin_as_often_as_asked_and_come_in_order_of_time() {
    let entry = |index: u32| {
        format!(
            r#"{{"id":"e{index}_0","conversations":[{{"from":"human","value":"{index}"}},{{"from":"gpt","value":"{words}"}},{{"from":"human","value":"more"}},{{"from":"gpt","value":"no"}}]}}"#,
            words = "word ".repeat(30)
        )
    };
    let text = format!("[{}]", (0..400).map(entry).collect::<Vec<_>>().join(","));
    let read = tokenized(&text, ChatArrivals { sessions_per_second: 4.0, seed: 3 });
    assert_eq!(read.records.len(), 800);
    assert!(read.records.is_sorted_by_key(|record| record.at));
    let last = read.records.iter().filter(|record| record.turn == Some(1)).map(|record| record.at).max().unwrap();
    assert!((80.0..120.0).contains(&last.as_secs_f64()), "400 at 4 a second in {last:?}");
    assert!(read.records[1..40].iter().any(|record| record.session != read.records[0].session), "they overlap");
    let other = tokenized(&text, ChatArrivals { sessions_per_second: 4.0, seed: 4 });
    assert_ne!(other.records[100].at, read.records[100].at);
}

/// What waits for its turn is bounded, too.
#[test]
fn conversations_that_all_go_on_at_once_are_refused() {
    let long = "a ".repeat(100_000);
    let line = format!(
        r#"{{"conversation_id":"c","model":"m","conversation":[{{"role":"user","content":"{long}"}},{{"role":"assistant","content":"yes"}},{{"role":"user","content":"b"}},{{"role":"assistant","content":"no"}}]}}"#
    );
    let file = file(vec![line; 60].join("\n"));
    let read = |sessions_per_second| {
        let arrivals = ChatArrivals { sessions_per_second, seed: 0 };
        read_trace(&Trace::open_as(file.path(), How { arrivals, ..with_tokenizer() }).unwrap())
    };
    assert_eq!(read(0.01).unwrap().records.len(), 120);
    let said = read(1e6).err().unwrap().to_string();
    assert!(said.contains("are more than can wait; let fewer begin in a second"), "{said}");
}
