//! What cached blocks are worth, by where they are.

use super::fact::{InstanceId, Tier};
use super::index::Overlaps;

/// What a cached block in each tier spares of a computed one: 1 is all, 0 nothing. From 0 to 1, and no more in a worse tier.
///
/// The defaults are those of the vLLM Router's `kv_aware` policy for host memory and disk (0.8 and 0.3); llm-d's scorer has
/// 0.8 for host memory too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TierWeights {
    /// In the GPU's memory.
    pub gpu: f64,
    /// In the host's memory.
    pub cpu: f64,
    /// On a disk or further away.
    pub storage: f64,
}

impl Default for TierWeights {
    fn default() -> Self {
        TierWeights { gpu: 1.0, cpu: 0.8, storage: 0.3 }
    }
}

impl TierWeights {
    /// What `overlaps` is worth at `instance`, in computed tokens, rounded down.
    pub(super) fn tokens(&self, overlaps: &Overlaps, instance: InstanceId, block_tokens: u32) -> u32 {
        if overlaps.gpu_only() && self.gpu == 1.0 {
            return overlaps.blocks(instance) * block_tokens;
        }
        let blocks = overlaps.by_tier(instance);
        let worth = |tier: Tier| {
            let weight = match tier {
                Tier::Gpu => self.gpu,
                Tier::Cpu => self.cpu,
                Tier::Storage => self.storage,
            };
            f64::from(blocks[tier as usize]) * weight
        };
        (Tier::ALL.into_iter().map(worth).sum::<f64>() * f64::from(block_tokens)) as u32
    }
}
