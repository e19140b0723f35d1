//! Names for blocks that were given a place.

use super::{Before, Placed};
use crate::routing::block::EngineHash;
use crate::routing::fact::{InstanceId, Tier};
use crate::routing::index::exact::names::{Slot, Sought};
use crate::routing::index::exact::place::{Copies, Name, Place};
use crate::routing::index::exact::{AHEAD, Alias, ExactIndex, Member};

impl ExactIndex {
    /// Names blocks that were given a place, one more copy of each.
    pub(super) fn name(
        &self,
        instance: InstanceId,
        member: &mut Member,
        tier: Tier,
        names: &[EngineHash],
        mut placed: Placed,
    ) {
        // Those whose entries are being fetched, in a ring.
        let mut sought = [Sought::default(); AHEAD.next_power_of_two()];
        for (to, &name) in sought.iter_mut().zip(&names[..names.len().min(AHEAD)]) {
            *to = member.names.seek(Name::of(name));
        }
        for at in 0..names.len() {
            let here = sought[at % sought.len()];
            if let Some(&ahead) = names.get(at + AHEAD) {
                sought[(at + AHEAD) % sought.len()] = member.names.seek(Name::of(ahead));
            }
            let offset = placed.offset + at;
            let plain = placed.before.is_empty()
                && member.names.insert_at_home(here, Place::new(placed.run, offset), Copies::one(tier));
            if !plain {
                self.name_one(instance, member, tier, here.name(), offset, &mut placed);
            }
        }
    }

    fn name_one(
        &self,
        instance: InstanceId,
        member: &mut Member,
        tier: Tier,
        name: Name,
        offset: usize,
        placed: &mut Placed,
    ) {
        let place = Place::new(placed.run, offset);
        let vacancy = match member.names.locate(name) {
            Err(vacancy) => vacancy,
            Ok(slot) if member.names.get(slot).0 == place => return self.add_copy(member, tier, slot),
            Ok(slot) => {
                // The name moved to another block: what it meant before is gone, and its removal was not heard. Of the blocks
                // that are still to be named here it stays written that the instance holds them.
                let (end, run) = (placed.offset + placed.blocks, placed.run);
                let to_be_named = |old: Place| old.run() == run && offset < old.offset() && old.offset() < end;
                let spare = |old: Place, left: Tier| left == tier && to_be_named(old);
                let (old, left) = self.forget_name(instance, member, slot, spare);
                if to_be_named(old) {
                    let before = held_before(&placed.before, old.offset()) & !left;
                    placed.before.insert(0, (old.offset(), old.offset() + 1, before));
                }
                member.names.locate(name).expect_err("it was forgotten just now")
            }
        };
        member.names.insert(vacancy, place, Copies::one(tier), &self.forgetting);
        let before = held_before(&placed.before, offset);
        if before != 0 {
            // The block goes by another name too. Until now it had one, for every tier that held it.
            if member.aliases.get(&place).is_none() {
                let holding = Tier::ALL.map(|tier| u32::from(before >> tier as u8 & 1));
                member.aliases.insert(place, Alias { names: 1, holding }, &self.forgetting);
            }
            let alias = member.aliases.get_mut(&place).expect("it is there, or was put there just now");
            alias.names += 1;
            alias.holding[tier as usize] += 1;
            member.surplus_names += 1;
        }
    }

    fn add_copy(&self, member: &mut Member, tier: Tier, slot: Slot) {
        let place = member.names.get(slot).0;
        let copies = member.copies_mut(slot, &self.forgetting);
        copies[tier as usize] += 1;
        if copies[tier as usize] == 1
            && let Some(alias) = member.aliases.get_mut(&place)
        {
            alias.holding[tier as usize] += 1;
        }
    }
}

/// The tiers, as bits, in which the block at `offset` was held before.
fn held_before(before: &Before, offset: usize) -> u8 {
    before.iter().find(|&&(from, to, _)| (from..to).contains(&offset)).map_or(0, |&(_, _, tiers)| tiers)
}
