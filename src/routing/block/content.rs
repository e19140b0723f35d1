//! The hash of a block's own tokens.

use super::fold;

/// The hash of one block's content, regardless of what stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash(pub u64);

impl ContentHash {
    /// The content hash of a block of tokens: the mixing of wyhash and XXH3 (two words, each with its own constant, multiplied
    /// and folded), 16 tokens at a time.
    #[inline]
    pub fn of_tokens(tokens: &[u32]) -> Self {
        match tokens.try_into() {
            Ok(stripe) => Self::of_stripe(stripe),
            Err(_) => Self::of_stripes(tokens),
        }
    }

    /// The content hashes of the blocks of `block_tokens` tokens that `tokens` fill, appended to `hashes`.
    pub(in crate::routing) fn append_of_blocks(tokens: &[u32], block_tokens: usize, hashes: &mut Vec<ContentHash>) {
        if block_tokens == STRIPE_TOKENS {
            // The usual size, with nothing to decide in between, so that several blocks are in flight at once.
            hashes.extend(tokens.as_chunks().0.iter().map(Self::of_stripe));
        } else {
            hashes.extend(tokens.chunks_exact(block_tokens).map(Self::of_stripes));
        }
    }

    /// [`of_tokens`](Self::of_tokens) for 16 tokens.
    #[inline]
    fn of_stripe(stripe: &[u32; STRIPE_TOKENS]) -> Self {
        ContentHash(fold(CONTENT_SEED ^ STRIPE_TOKENS as u64 ^ stripe_sum(stripe), CONTENT_SEED))
    }

    fn of_stripes(tokens: &[u32]) -> Self {
        let stripes = tokens.chunks_exact(STRIPE_TOKENS);
        let rest = stripes.remainder();
        let mut hash = CONTENT_SEED ^ tokens.len() as u64;
        for stripe in stripes {
            let stripe: &[u32; STRIPE_TOKENS] = stripe.try_into().expect("a stripe has its length");
            hash = fold(hash ^ stripe_sum(stripe), CONTENT_SEED);
        }
        if !rest.is_empty() {
            let mut padded = [0; STRIPE_TOKENS];
            padded[..rest.len()].copy_from_slice(rest);
            hash = fold(hash ^ stripe_sum(&padded), CONTENT_SEED);
        }
        ContentHash(hash)
    }
}

const CONTENT_SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const STRIPE_TOKENS: usize = 16;
/// One constant for each word of a stripe: digits of the fractional part of pi.
const STRIPE_KEYS: [u64; STRIPE_TOKENS / 2] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
    0xbe54_66cf_34e9_0c6c,
    0xc0ac_29b7_c97c_50dd,
    0x3f84_d5b5_b547_0917,
];

/// Four products that do not wait for one another; blocks in a row keep several in flight.
#[inline]
fn stripe_sum(stripe: &[u32; STRIPE_TOKENS]) -> u64 {
    let word = |at: usize| u64::from(stripe[2 * at]) | u64::from(stripe[2 * at + 1]) << 32;
    let product = |at: usize| {
        let wide = u128::from(word(at) ^ STRIPE_KEYS[at]) * u128::from(word(at + 1) ^ STRIPE_KEYS[at + 1]);
        (wide as u64) ^ ((wide >> 64) as u64)
    };
    product(0).wrapping_add(product(2)).wrapping_add(product(4)).wrapping_add(product(6))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a fair coin would: a token's bit that changes changes each of the hash's with odds near a half, whatever the tokens.
    #[test]
    fn every_bit_of_a_token_may_change_every_bit_of_the_hash() {
        const BLOCKS: u32 = 512;
        for (at, bit) in (0..STRIPE_TOKENS).flat_map(|at| (0..18).map(move |bit| (at, bit))) {
            let mut flips = [0_u32; 64];
            for block in 0..BLOCKS {
                // Small and in order, as token ids are; every other block says one thing again and again.
                let mut tokens: Vec<u32> =
                    (0..16).map(|token| if block % 2 == 0 { block } else { block * 16 + token }).collect();
                let before = ContentHash::of_tokens(&tokens).0;
                tokens[at] ^= 1 << bit;
                let changed = before ^ ContentHash::of_tokens(&tokens).0;
                flips.iter_mut().enumerate().for_each(|(to, flips)| *flips += (changed >> to & 1) as u32);
            }
            let fair = BLOCKS / 8..BLOCKS * 7 / 8;
            assert!(flips.iter().all(|flips| fair.contains(flips)), "token {at} bit {bit}: {flips:?}");
        }
    }

    #[test]
    fn every_token_and_the_length_matter_to_the_content() {
        let mut seen = std::collections::HashSet::new();
        for len in [1, 2, 4, 8, 16, 32, 64, 512] {
            let tokens: Vec<u32> = (0..len).collect();
            assert!(seen.insert(ContentHash::of_tokens(&tokens)));
            assert!(seen.insert(ContentHash::of_tokens(&vec![7; len as usize])));
            for at in 0..len as usize {
                let mut changed = tokens.clone();
                changed[at] += 1000;
                assert!(seen.insert(ContentHash::of_tokens(&changed)), "token {at} of {len}");
            }
        }
    }
}
