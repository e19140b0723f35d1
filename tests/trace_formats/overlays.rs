//! Prefix structure for traces that have none.

use crate::support::{data, file, read_trace};
use warmpath::routing::block::BlockSize;
use warmpath::trace::{How, InfiniteCache, Overlay, Provenance, Record, Trace};

fn hit_ratio(overlay: Overlay) -> (f64, Provenance, Vec<Record>) {
    let how = How { overlay, ..How::default() };
    let read = read_trace(&Trace::open_as(data("azure/AzureLLMInferenceTrace_conv.csv.gz"), how).unwrap()).unwrap();
    let mut cache = InfiniteCache::new(BlockSize::DEFAULT);
    read.records.iter().for_each(|record| cache.visit(record));
    (cache.reuse().block_hit_ratio(), read.provenance, read.records)
}

#[test]
fn overlays_share_what_they_say_and_say_what_they_are() {
    let (none, provenance, plain) = hit_ratio(Overlay::None);
    assert_eq!((none, provenance.to_string().as_str()), (0.0, "overlay(none, 0)"));
    for ratio in [0.2, 0.4, 0.6] {
        let (reached, provenance, _) = hit_ratio(Overlay::Target { ratio, seed: 3 });
        assert!((reached - ratio).abs() < 0.005, "{reached} instead of {ratio}");
        assert_eq!(provenance.to_string(), format!("overlay(target {ratio}, 3)"));
    }
    let (apps, provenance, records) = hit_ratio(Overlay::Apps { seed: 1 });
    assert!((0.1..0.55).contains(&apps), "{apps}");
    assert_eq!(provenance.to_string(), "overlay(apps, 1)");
    assert_eq!(records, hit_ratio(Overlay::Apps { seed: 1 }).2, "the same seed gives the same blocks");
    assert_ne!(records, hit_ratio(Overlay::Apps { seed: 2 }).2);
    let (sessions, _, records) = hit_ratio(Overlay::Sessions { seed: 1 });
    assert!(sessions > 0.05, "{sessions}");
    let later = records.iter().filter(|record| record.turn > Some(1)).count();
    assert!(later > 1000, "{later} requests continue others");
    let lengths =
        |records: &[Record]| records.iter().map(|r| (r.at, r.prompt_tokens, r.output_tokens)).collect::<Vec<_>>();
    assert_eq!(lengths(&plain), lengths(&records), "lengths and times are left as they were");
}

#[test]
fn recorded_conversations_imply_what_they_share() {
    let heading = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n";
    let rows = "0,s,1,GPT-4,100,50,150,Conversation log\n60,s,1,GPT-4,160,50,210,Conversation log\n\
                70,t,1,GPT-4,160,50,210,Conversation log\n90,s,1,GPT-4,30,50,80,Conversation log\n";
    let file = file(format!("{heading}{rows}"));
    let how = How { overlay: Overlay::Inferred, ..How::default() };
    let read = read_trace(&Trace::open_as(file.path(), how).unwrap()).unwrap();
    assert_eq!(read.provenance, Provenance::Inferred);
    let [first, second, other, short] = read.records.as_slice() else { panic!("four records") };
    assert_eq!(second.blocks[..6], first.blocks[..6], "all full blocks of the prompt before");
    assert_ne!(second.blocks[6], first.blocks[6]);
    assert!(other.blocks.iter().chain(&short.blocks).all(|block| !first.blocks.contains(block)));
}

#[test]
fn no_overlay_is_laid_over_a_structure() {
    let how = How { overlay: Overlay::Apps { seed: 0 }, ..How::default() };
    let error = Trace::open_as(data("mooncake/toolagent_arxiv_slice_93rows.jsonl"), how).unwrap_err().to_string();
    assert!(error.contains("has a prefix structure of its own (real)"), "{error}");
}
