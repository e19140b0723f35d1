//! A set of lanes as a number, and what it says by itself.

use crate::routing::fact::{InstanceId, Tier};

/// One instance's cache in one tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane(u32);

impl Lane {
    pub fn new(instance: InstanceId, tier: Tier) -> Self {
        Lane((tier as u32) << LIMIT_LOG2 | u32::from(instance.0))
    }

    /// The lane of this number.
    pub fn at(number: usize) -> Self {
        Lane(number as u32)
    }

    /// Its word in a bitmap of lanes.
    #[inline]
    pub fn word(self) -> usize {
        self.0 as usize / 64
    }

    #[inline]
    pub fn bit(self) -> u64 {
        1 << (self.0 % 64)
    }
}

const LIMIT_LOG2: u32 = InstanceId::LIMIT.ilog2();
const _: () = assert!(InstanceId::LIMIT.is_power_of_two());

/// A set of lanes in 52 bits. Up to three lanes of any tier and up to four of GPUs are spelled out, ascending; of more it is
/// the place of their bitmap. A set that can be spelled out has one id, and only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetId(u64);

/// Bits of a [`SetId`]; those above are free for who stores it.
pub(super) const SET_BITS: u32 = 52;
const KIND_SHIFT: u32 = SET_BITS - 2;
/// Three places of 15 bits from the lowest on: 1 and the lane, or 0.
const KIND_THREE: u64 = 1;
const THREE_BITS: u32 = 15;
/// Four places of 12 bits: instances, whose lanes are those of their GPUs.
const KIND_FOUR: u64 = 2;
const FOUR_BITS: u32 = 12;
const _: () = assert!(LIMIT_LOG2 <= FOUR_BITS && LIMIT_LOG2 + 2 < THREE_BITS);

/// The lanes that an id spells out, ascending.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Few {
    lanes: [Lane; 4],
    len: usize,
}

impl Few {
    #[inline]
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes[..self.len]
    }

    /// These and one that is not among them; `None` if it does not fit.
    pub fn and(&self, lane: Lane) -> Option<SetId> {
        let mut more = *self;
        *more.lanes.get_mut(self.len)? = lane;
        more.len += 1;
        more.lanes[..more.len].sort_unstable();
        SetId::of_few(more.lanes())
    }

    /// These but for one.
    pub fn but(&self, lane: Lane) -> SetId {
        let mut fewer = Few::default();
        for &other in self.lanes().iter().filter(|&&other| other != lane) {
            fewer.lanes[fewer.len] = other;
            fewer.len += 1;
        }
        SetId::of_few(fewer.lanes()).expect("a part of what is spelled out can be")
    }
}

/// What a [`SetId`] says.
pub(super) enum Shape {
    Few(Few),
    /// Where the bitmap is.
    Bitmap(u32),
}

impl SetId {
    pub const EMPTY: SetId = SetId(0);

    #[inline]
    pub fn single(lane: Lane) -> SetId {
        SetId(KIND_THREE << KIND_SHIFT | 1 << (THREE_BITS - 1) | u64::from(lane.0))
    }

    /// The set whose bitmap is at `at`, which is not 0.
    pub fn of_bitmap(at: u32) -> SetId {
        SetId(u64::from(at))
    }

    /// The set of some lanes, ascending, if it can be spelled out.
    pub fn of_few(lanes: &[Lane]) -> Option<SetId> {
        let each = lanes.iter().zip(0_u32..).map(|(lane, at)| (u64::from(lane.0), at));
        match lanes {
            [] => Some(Self::EMPTY),
            [_] | [_, _] | [_, _, _] => {
                let place = |(lane, at): (u64, u32)| (lane | 1 << (THREE_BITS - 1)) << (at * THREE_BITS);
                Some(SetId(each.map(place).fold(KIND_THREE << KIND_SHIFT, |id, place| id | place)))
            }
            [_, _, _, last] if last.0 >> LIMIT_LOG2 == Tier::Gpu as u32 => {
                let place = |(lane, at): (u64, u32)| lane << (at * FOUR_BITS);
                Some(SetId(each.map(place).fold(KIND_FOUR << KIND_SHIFT, |id, place| id | place)))
            }
            _ => None,
        }
    }

    #[inline]
    pub fn shape(self) -> Shape {
        match self.0 >> KIND_SHIFT & 3 {
            KIND_THREE => {
                let place = |at: u32| (self.0 >> (at * THREE_BITS)) as u32;
                let len = (0..3).map(|at| (place(at) >> (THREE_BITS - 1) & 1) as usize).sum();
                let lane = |at: u32| Lane(place(at) & ((1 << (THREE_BITS - 1)) - 1));
                Shape::Few(Few { lanes: [lane(0), lane(1), lane(2), Lane(0)], len })
            }
            KIND_FOUR => {
                let lane = |at: u32| Lane((self.0 >> (at * FOUR_BITS)) as u32 & ((1 << FOUR_BITS) - 1));
                Shape::Few(Few { lanes: [lane(0), lane(1), lane(2), lane(3)], len: 4 })
            }
            _ if self.0 == 0 => Shape::Few(Few::default()),
            _ => Shape::Bitmap(self.0 as u32),
        }
    }

    /// As a number of [`SET_BITS`] bits, and back.
    #[inline]
    pub fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    pub fn from_bits(bits: u64) -> Self {
        SetId(bits & ((1 << SET_BITS) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spelled_out_is_read_back_and_nothing_else_is() {
        let lane = |instance: u16, tier: Tier| Lane::new(InstanceId(instance), tier);
        let lanes = [lane(0, Tier::Gpu), lane(4095, Tier::Gpu), lane(0, Tier::Cpu), lane(4095, Tier::Storage)];
        let gpus = [0, 1, 64, 4095].map(|instance| lane(instance, Tier::Gpu));
        for all in [lanes, gpus] {
            for mask in 0..16_usize {
                let some: Vec<Lane> = (0..4).filter(|at| mask >> at & 1 == 1).map(|at| all[at]).collect();
                let Some(id) = SetId::of_few(&some) else {
                    assert!(mask == 15 && all == lanes, "{some:?}");
                    continue;
                };
                let Shape::Few(few) = SetId::from_bits(id.bits()).shape() else { panic!("{some:?} is few") };
                assert_eq!(few.lanes(), some);
                for &lane in &some {
                    assert_eq!(SetId::of_few(&some), few.but(lane).and_again(lane));
                }
            }
        }
        assert_eq!(SetId::of_few(&gpus[1..2]), Some(SetId::single(gpus[1])));
        assert!(matches!(SetId::of_bitmap(77).shape(), Shape::Bitmap(77)));
    }

    impl SetId {
        fn and_again(self, lane: Lane) -> Option<SetId> {
            match self.shape() {
                Shape::Few(few) => few.and(lane),
                Shape::Bitmap(_) => None,
            }
        }
    }
}
