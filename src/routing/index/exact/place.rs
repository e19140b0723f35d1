//! What an instance's name for a block leads to.

use super::run::RunId;
use crate::routing::block::EngineHash;
use crate::routing::fact::Tier;

/// A block's place: a run, and the block's number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub run: u32,
    pub offset: u16,
}

impl Place {
    pub fn new(run: RunId, offset: usize) -> Self {
        Place { run: run.0, offset: offset as u16 }
    }

    pub fn run(self) -> RunId {
        RunId(self.run)
    }

    pub fn offset(self) -> usize {
        usize::from(self.offset)
    }
}

/// What an entry says of its block's copies: one copy in the tier of this number, or, for `Copies::MANY`, see elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copies(pub u8);

impl Copies {
    pub const MANY: Copies = Copies(3);

    /// One copy in a tier.
    pub fn one(tier: Tier) -> Self {
        Copies(tier as u8)
    }
}

/// An engine's name, mixed: 60 bits, so that a table of 32 buckets and more has room for what a bucket's number does not
/// say. Two names that an instance uses at once are confused with odds of `names² / 2^61`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub(super) struct Name(u64);

impl Name {
    /// MurmurHash3's finalizer (Appleby, public domain), which is a permutation.
    #[inline]
    pub fn of(name: EngineHash) -> Self {
        let name = (name.0 ^ name.0 >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let name = (name ^ name >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        Self::from_mixed(name ^ name >> 33)
    }

    /// The mixed form as a number, whose four lowest bits are zero, and back.
    #[inline]
    pub fn mixed(self) -> u64 {
        self.0
    }

    #[inline]
    pub fn from_mixed(mixed: u64) -> Self {
        Name(mixed & !15)
    }
}
