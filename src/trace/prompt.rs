//! Token ids for a recorded prompt, whose own were never recorded.

use super::record::Record;
use crate::routing::block::BlockSize;

/// Token ids stay below this, which is within the vocabulary of every model of the last years.
pub const VOCABULARY: u32 = 32_000;

/// A prompt of the recorded length in which equal blocks have equal tokens, and different ones different tokens: whoever
/// caches by token sees the recorded sharing. The same record gives the same tokens everywhere.
pub fn tokens(record: &Record, block_size: BlockSize) -> Vec<u32> {
    let block_tokens = block_size.tokens() as usize;
    // A record with fewer ids than blocks ends in tokens of its own.
    let own = std::iter::repeat(record.at.as_nanos() as u64 ^ u64::MAX);
    let contents = record.blocks.iter().map(|content| content.0).chain(own);
    let block = |content| (0..block_tokens as u64).map(move |position| token(content, position));
    contents.flat_map(block).take(record.prompt_tokens as usize).collect()
}

/// SplitMix64's finaliser over both.
fn token(content: u64, position: u64) -> u32 {
    let value = content.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(position);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((value ^ (value >> 31)) % u64::from(VOCABULARY)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::block::ContentHash;

    #[test]
    fn sharing_is_as_recorded() {
        let record = |prompt_tokens, ids: &[u64]| {
            let blocks = ids.iter().copied().map(ContentHash).collect();
            tokens(&Record { prompt_tokens, output_tokens: 1, blocks, ..Record::default() }, BlockSize::DEFAULT)
        };
        let (a, b, c) = (record(40, &[1, 2, 3]), record(40, &[1, 2, 4]), record(33, &[1, 9, 3]));
        assert_eq!((a.len(), c.len()), (40, 33));
        assert_eq!(a[..32], b[..32]);
        assert_ne!(a[32..], b[32..]);
        assert_eq!(a[..16], c[..16]);
        assert_ne!(a[16..32], c[16..32]);
        assert_eq!(record(40, &[1]).len(), 40);
        assert!(a.iter().all(|&token| token < VOCABULARY));
    }
}
