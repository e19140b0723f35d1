//! Mooncake.

use crate::support::{data, read_trace};
use warmpath::routing::block::BlockSize;
use warmpath::trace::{Format, InfiniteCache, Trace};

#[test]
fn mooncake_tool_and_agent_slice() {
    let slice = read_trace(&Trace::open(data("mooncake/toolagent_arxiv_slice_93rows.jsonl")).unwrap()).unwrap();
    assert_eq!((slice.format, slice.records.len(), slice.tally.miscounted_ids), (Format::Mooncake, 93, 0));
    let mut cache = InfiniteCache::new(BlockSize::new(512).unwrap());
    slice.records.iter().for_each(|record| cache.visit(record));
    assert_eq!((cache.reuse().blocks, cache.distinct_blocks()), (1449, 937));
    assert_eq!(format!("{:.3} {:.3}", cache.reuse().block_hit_ratio(), cache.reuse().token_hit_ratio()), "0.353 0.366");
}
