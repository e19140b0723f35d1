//! Traces made of traces: round trips, parts, merges.

use proptest::prelude::*;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Duration;
use warmpath::routing::block::{BlockSize, ContentHash};
use warmpath::trace::{
    Format, How, InfiniteCache, Kind, Merge, Provenance, Record, Records, Slice, Target, Trace, Writer, scaled,
};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn written(records: &[Record], target: Target, from: BlockSize, provenance: &Provenance) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), target, from, provenance).unwrap();
    records.iter().for_each(|record| writer.write(record).unwrap());
    writer.finish().unwrap()
}

fn stream(bytes: Vec<u8>) -> Records {
    Records::of_stream(Path::new("pipe"), Box::new(Cursor::new(bytes)), &How::default()).unwrap()
}

fn all(records: impl Iterator<Item = Result<Record, warmpath::trace::TraceError>>) -> Vec<Record> {
    records.collect::<Result<_, _>>().unwrap()
}

/// How many blocks two prompts have in common at their start.
fn shared(one: &Record, other: &Record) -> usize {
    one.blocks.iter().zip(&other.blocks).take_while(|(a, b)| a == b).count()
}

fn records(lengths: Vec<(u32, u64)>) -> Vec<Record> {
    let mut at = Duration::ZERO;
    let record = |(index, (tokens, variant)): (usize, (u32, u64))| {
        at += Duration::from_millis(variant * 7);
        let blocks = 0..u64::from(tokens.div_ceil(16));
        Record {
            at,
            prompt_tokens: tokens,
            output_tokens: 3,
            // Ids beyond 2^53, which careless JSON would round; prompts of one variant share their start.
            blocks: blocks.map(|place| ContentHash(u64::MAX - place / (variant + 1) - (variant << 40))).collect(),
            chat: Some(index as u64 * 10),
            parent: (index > 0 && variant % 2 == 0).then(|| (index as u64 - 1) * 10),
            session: None,
            turn: None,
            kind: Some(Kind::new("te\"xt")),
        }
    };
    lengths.into_iter().enumerate().map(record).collect()
}

proptest! {
    #[test]
    fn the_native_form_loses_nothing(lengths in prop::collection::vec((1..200_u32, 0..4_u64), 1..20)) {
        let records = records(lengths);
        let provenance = Provenance::Overlay { name: "apps".to_owned(), seed: 3 };
        let mut read = stream(written(&records, Target::Native, BlockSize::DEFAULT, &provenance));
        prop_assert_eq!((read.format(), read.provenance()), (Format::Native, &provenance));
        prop_assert_eq!(all(read.by_ref()), records);
    }

    #[test]
    fn qwen_bailian_keeps_lengths_times_parents_and_what_is_shared(lengths in prop::collection::vec((1..200_u32, 0..4_u64), 1..20)) {
        let records = records(lengths);
        let mut read = stream(written(&records, Target::QwenBailian, BlockSize::DEFAULT, &Provenance::Real));
        prop_assert_eq!(read.format(), Format::QwenBailian);
        let back = all(read.by_ref());
        prop_assert_eq!(read.tally().miscounted_ids, 0);
        for (index, (one, before)) in back.iter().zip(&records).enumerate() {
            prop_assert_eq!((one.at, one.prompt_tokens, one.output_tokens), (before.at, before.prompt_tokens, before.output_tokens));
            prop_assert_eq!(one.chat, Some(index as u64));
            prop_assert_eq!(one.parent, before.parent.map(|parent| parent / 10));
            prop_assert_eq!(&one.kind, &before.kind);
            for (other, other_before) in back.iter().zip(&records) {
                prop_assert_eq!(shared(one, other), shared(before, other_before));
            }
        }
    }

    /// Of 512-token blocks, as many are shared as are made of shared 16-token blocks only.
    #[test]
    fn larger_blocks_share_what_all_their_parts_share(lengths in prop::collection::vec((1..3000_u32, 0..3_u64), 1..8)) {
        let records = records(lengths);
        let mut read = stream(written(&records, Target::Mooncake, BlockSize::DEFAULT, &Provenance::Real));
        let back = all(read.by_ref());
        prop_assert_eq!((read.format(), read.tally().miscounted_ids), (Format::Mooncake, 0));
        for (one, before) in back.iter().zip(&records) {
            for (other, other_before) in back.iter().zip(&records) {
                let small = shared(before, other_before);
                let same = before.blocks == other_before.blocks;
                prop_assert_eq!(shared(one, other), if same { one.blocks.len() } else { small / 32 });
            }
        }
    }
}

#[test]
fn mooncake_to_qwen_bailian_keeps_the_ideal_ratio_of_tokens() {
    let trace = Trace::open(data("mooncake/toolagent_arxiv_slice_93rows.jsonl")).unwrap();
    let before = all(trace.records().unwrap());
    let bytes = written(&before, Target::QwenBailian, trace.block_size(), trace.provenance());
    let back = all(stream(bytes));
    let ratio = |records: &[Record], size: BlockSize| {
        let mut cache = InfiniteCache::new(size);
        records.iter().for_each(|record| cache.visit(record));
        cache.reuse().token_hit_ratio()
    };
    let (old, new) = (ratio(&before, trace.block_size()), ratio(&back, BlockSize::DEFAULT));
    assert!((old - new).abs() < 1e-3, "{old} became {new}");
    // And there again.
    let there = written(&before, Target::Mooncake, trace.block_size(), trace.provenance());
    let again = all(stream(there));
    assert_eq!(ratio(&again, trace.block_size()), old);
}

#[test]
fn blocks_that_are_missing_become_new_ones() {
    // As Weka: no id for the partial last block.
    let record = |at| Record {
        at: Duration::from_secs(at),
        prompt_tokens: 40,
        output_tokens: 1,
        blocks: vec![ContentHash(5), ContentHash(6)],
        ..Record::default()
    };
    let bytes = written(&[record(0), record(1)], Target::QwenBailian, BlockSize::DEFAULT, &Provenance::Real);
    let back = all(stream(bytes));
    assert_eq!((back[0].blocks.len(), shared(&back[0], &back[1])), (3, 2));
}

#[test]
fn a_slice_begins_at_zero_and_ends_before_its_end() {
    let trace = Trace::open(data("mooncake/conversation_trace.jsonl.gz")).unwrap();
    let time = Duration::from_secs(600)..Duration::from_secs(1200);
    let whole = all(trace.records().unwrap());
    let slice = all(Slice::new(trace.records().unwrap(), time.clone()));
    assert_eq!(slice.len(), whole.iter().filter(|record| time.contains(&record.at)).count());
    assert!(slice.iter().all(|record| record.at < Duration::from_secs(600)));
    let faster = scaled(slice[slice.len() - 1].clone(), 0.5);
    assert_eq!(faster.at * 2, slice[slice.len() - 1].at);
}

#[test]
fn merged_traces_share_nothing_and_stay_in_order() {
    let open = || Trace::open(data("mooncake/toolagent_arxiv_slice_93rows.jsonl")).unwrap().records().unwrap();
    let alone = all(open());
    let merged = Merge::new(vec![open(), open()]).unwrap();
    assert_eq!(merged.provenance(), &Provenance::Real);
    let both = all(merged);
    assert_eq!(both.len(), 2 * alone.len());
    assert!(both.windows(2).all(|pair| pair[0].at <= pair[1].at));
    let count = |records: &[Record]| {
        let mut cache = InfiniteCache::new(BlockSize::new(512).unwrap());
        records.iter().for_each(|record| cache.visit(record));
        (cache.distinct_blocks(), cache.reuse().hit_blocks)
    };
    let ((blocks, hits), both) = (count(&alone), count(&both));
    assert_eq!(both, (2 * blocks, 2 * hits));
    let sixteen = Trace::open(data("qwen_bailian/thinking_first_row.jsonl")).unwrap().records().unwrap();
    let error = Merge::new(vec![open(), sixteen]).err().unwrap().to_string();
    assert_eq!(error, "cannot merge blocks of 512 tokens and of 16; convert one of the traces first");
}

#[test]
fn a_file_beside_a_trace_says_where_its_structure_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.jsonl");
    let record = Record { prompt_tokens: 1, output_tokens: 1, blocks: vec![ContentHash(1)], ..Record::default() };
    std::fs::write(&path, written(&[record], Target::QwenBailian, BlockSize::DEFAULT, &Provenance::Inferred)).unwrap();
    assert_eq!(Trace::open(&path).unwrap().provenance(), &Provenance::Real);
    std::fs::write(warmpath::trace::sidecar(&path), r#"{"prefix": "inferred", "generator": "x"}"#).unwrap();
    let trace = Trace::open(&path).unwrap();
    assert_eq!(trace.provenance(), &Provenance::Inferred);
    assert_eq!(trace.records().unwrap().provenance(), &Provenance::Inferred);
}
