//! What anonymous traces keep, and what they do not.

use proptest::prelude::*;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use warmpath::routing::block::{BlockSize, ContentHash};
use warmpath::trace::{
    Anonymizer, Format, Kind, Provenance, Record, Recorder, RecorderConfig, Salt, Served, Target, Trace, Writer,
};

fn shared(one: &Record, other: &Record) -> usize {
    one.blocks.iter().zip(&other.blocks).take_while(|(a, b)| a == b).count()
}

/// Requests that share prefixes, with ids, names and times that are easy to recognise.
fn records(prompts: &[Vec<u64>]) -> Vec<Record> {
    const RECOGNISABLE: u64 = 7_777_000_000;
    let record = |(index, prompt): (u64, &Vec<u64>)| Record {
        at: Duration::from_secs(RECOGNISABLE + index),
        prompt_tokens: prompt.len() as u32 * 16,
        output_tokens: 9,
        blocks: prompt.iter().map(|id| ContentHash(RECOGNISABLE + id)).collect(),
        chat: Some(RECOGNISABLE + index),
        parent: (index % 3 != 0).then(|| RECOGNISABLE + index - 1),
        ..Record::default()
    };
    (0..).zip(prompts).map(record).collect()
}

/// All numbers in a text.
fn numbers(text: &str) -> HashSet<u64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

proptest! {
    #[test]
    fn sharing_is_kept_and_nothing_else(
        prompts in prop::collection::vec(prop::collection::vec(0..4_u64, 1..8), 1..20),
        salt in any::<[u8; 16]>(),
    ) {
        let before = records(&prompts);
        let mut anonymizer = Anonymizer::new(Salt::new(salt));
        let after: Vec<Record> = before.iter().map(|record| anonymizer.anonymize(record)).collect();
        for (index, (one, one_before)) in after.iter().zip(&before).enumerate() {
            prop_assert_eq!(one.chat, Some(index as u64));
            prop_assert_eq!(one.parent, (index % 3 != 0).then(|| index as u64 - 1));
            prop_assert_eq!(one.at, Duration::from_secs(index as u64));
            for (other, other_before) in after.iter().zip(&before) {
                prop_assert_eq!(shared(one, other), shared(one_before, other_before));
            }
        }
        // Numbered by first appearance: the salt leaves no trace.
        let mut highest = None;
        for block in after.iter().flat_map(|record| &record.blocks) {
            prop_assert!(Some(block.0) <= highest.map_or(Some(0), |highest: u64| Some(highest + 1)));
            highest = highest.max(Some(block.0));
        }
        for target in Target::ALL {
            let mut writer = Writer::new(Vec::new(), target, BlockSize::DEFAULT, &Provenance::Real).unwrap();
            after.iter().for_each(|record| writer.write(record).unwrap());
            let text = String::from_utf8(writer.finish().unwrap()).unwrap();
            let found = numbers(&text);
            for record in &before {
                let originals = record.blocks.iter().map(|block| block.0).chain(record.chat);
                for original in originals {
                    prop_assert!(!found.contains(&original), "{original} is in the output");
                }
            }
        }
    }
}

fn served(index: u64, tokens: Vec<u32>) -> Served {
    Served {
        at: Duration::from_secs(1_000_000 + index),
        tokens: tokens.into(),
        output_tokens: 5,
        chat: 5_000_000 + index,
        parent: (index > 0).then(|| 5_000_000 + index - 1),
        kind: Some(Kind::new("chat")),
    }
}

fn fixed_salt() -> impl FnMut() -> std::io::Result<[u8; 16]> + Send {
    let mut drawn = 0;
    move || {
        drawn += 1;
        Ok([drawn; 16])
    }
}

#[test]
fn what_is_recorded_can_be_replayed_and_says_nothing_of_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(RecorderConfig::new(folder.path().into()), fixed_salt()).unwrap();
    let token = |position: u32| 900_000 + position;
    assert!(recorder.record(served(0, (0..40).map(token).collect())));
    assert!(recorder.record(served(1, (0..50).map(token).collect())));
    assert!(recorder.record(served(2, vec![])), "taken, but no request to replay");
    let recorded = recorder.finish().unwrap();
    assert_eq!((recorded.written, recorded.dropped, recorded.files), (2, 0, 1));
    let path = folder.path().join("recording-000001.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let found = numbers(&text);
    assert!((0..50).all(|position| !found.contains(&u64::from(token(position)))), "{text}");
    let trace = Trace::open(path).unwrap();
    assert_eq!(trace.format(), Format::QwenBailian);
    let records: Vec<Record> = trace.records().unwrap().map(Result::unwrap).collect();
    assert_eq!((records[0].at, records[1].at), (Duration::ZERO, Duration::from_secs(1)));
    assert_eq!((records[1].parent, records[1].turn), (Some(0), Some(2)));
    assert_eq!(shared(&records[0], &records[1]), 2, "both full blocks of the first");
}

#[test]
fn files_are_followed_by_others_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let config = RecorderConfig { file_requests_max: 2, ..RecorderConfig::new(folder.path().into()) };
        let recorder = Recorder::start(config, fixed_salt()).unwrap();
        for index in 0..5 {
            assert!(recorder.record(served(index, vec![1; 20])));
        }
        assert_eq!(recorder.finish().unwrap().files, 3);
    }
    let rows = |number: u32| {
        let path = folder.path().join(format!("recording-{number:06}.jsonl"));
        Trace::open(path).unwrap().records().unwrap().map(Result::unwrap).count()
    };
    assert_eq!((1..=6).map(rows).collect::<Vec<_>>(), [2, 2, 1, 2, 2, 1]);
}

/// The salt of the first file is not drawn before the test says so, and the queue holds one request: of three, one is
/// being written, one waits, and one is dropped.
#[test]
fn a_full_queue_drops_and_counts_and_does_not_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (open, closed) = std::sync::mpsc::channel::<()>();
    let (reached, at_salt) = std::sync::mpsc::channel::<()>();
    let salt = move || {
        let _ = reached.send(());
        let _ = closed.recv();
        Ok([1; 16])
    };
    let config = RecorderConfig { queue_max: 1, ..RecorderConfig::new(folder.path().into()) };
    let recorder = Arc::new(Recorder::start(config, salt).unwrap());
    assert!(recorder.record(served(0, vec![1; 20])));
    at_salt.recv().unwrap();
    assert!(recorder.record(served(1, vec![1; 20])));
    assert!(!recorder.record(served(2, vec![1; 20])));
    assert_eq!(recorder.dropped(), 1);
    drop(open);
    let recorded = Arc::into_inner(recorder).unwrap().finish().unwrap();
    assert_eq!((recorded.written, recorded.dropped), (2, 1));
}

/// A process that is killed leaves complete lines: what is on disk at any time ends with a line feed.
#[test]
fn lines_are_whole_before_the_recorder_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(RecorderConfig::new(folder.path().into()), fixed_salt()).unwrap();
    let path = folder.path().join("recording-000001.jsonl");
    for index in 0..200 {
        let _ = recorder.record(served(index, vec![index as u32; 4000]));
        let text = std::fs::read(&path).unwrap_or_default();
        assert!(text.is_empty() || text.ends_with(b"}\n"));
    }
    recorder.finish().unwrap();
}

#[test]
fn an_error_of_writing_comes_out_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let recorder = Recorder::start(RecorderConfig::new(missing), fixed_salt()).unwrap();
    let _ = recorder.record(served(0, vec![1; 20]));
    assert_eq!(recorder.finish().unwrap_err().kind(), std::io::ErrorKind::NotFound);
}
