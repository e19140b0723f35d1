//! Maps for what is rare, whose memory counts like all other.

use super::budget::Budget;
use std::collections::HashMap;
use std::hash::Hash;

/// A map that charges what it takes to the budget.
pub(super) struct Side<K, V> {
    map: HashMap<K, V>,
    charged_bytes: usize,
}

impl<K, V> Default for Side<K, V> {
    fn default() -> Self {
        Side { map: HashMap::new(), charged_bytes: 0 }
    }
}

impl<K: Eq + Hash, V> Side<K, V> {
    pub fn get(&self, key: &K) -> Option<&V> {
        if self.map.is_empty() { None } else { self.map.get(key) }
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if self.map.is_empty() { None } else { self.map.get_mut(key) }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.map.iter()
    }

    /// Memory taken, as charged.
    pub fn bytes(&self) -> usize {
        self.charged_bytes
    }

    /// Makes room for `more` entries; `false`, and nothing done, when the budget is used up.
    pub fn reserve(&mut self, more: usize, budget: &Budget) -> bool {
        if self.map.capacity() - self.map.len() >= more {
            return true;
        }
        // The old table is kept until the new one is filled, but only for that moment.
        let wanted = table_bytes::<K, V>((self.map.len() + more).max(self.map.capacity() * 2));
        if !budget.take(wanted - self.charged_bytes.min(wanted)) {
            return false;
        }
        self.map.reserve(more.max((self.map.capacity() * 2).saturating_sub(self.map.len())));
        self.charged_bytes = self.charged_bytes.max(wanted);
        true
    }

    /// Puts an entry in; `false`, and nothing done, when there is no room and the budget is used up.
    pub fn insert(&mut self, key: K, value: V, budget: &Budget) -> bool {
        let fits = self.reserve(1, budget);
        if fits {
            self.map.insert(key, value);
        }
        fits
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        if self.map.is_empty() { None } else { self.map.remove(key) }
    }

    /// Everything, and the memory is given back.
    pub fn take_all(&mut self, budget: &Budget) -> HashMap<K, V> {
        budget.give(std::mem::take(&mut self.charged_bytes));
        std::mem::take(&mut self.map)
    }
}

/// What the standard library's map takes for so many entries: a power of two of slots, an eighth of them free, each with a
/// byte of its own; a group of sixteen such bytes besides.
fn table_bytes<K, V>(entries: usize) -> usize {
    let slots = (entries.max(3) * 8).div_ceil(7).next_power_of_two();
    slots * (size_of::<(K, V)>() + 1) + 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_takes_no_more_than_it_is_charged_and_stops_at_the_budget() {
        let budget = Budget::new(10_000);
        let mut side = Side::<u64, u64>::default();
        let stored = (0..).take_while(|&key| side.insert(key, key, &budget)).count();
        assert!((150..600).contains(&stored), "{stored}");
        assert_eq!(budget.used(), side.bytes());
        assert!(side.bytes() >= side.map.capacity() * 17);
        assert_eq!(side.take_all(&budget).len(), stored);
        assert_eq!((budget.used(), side.bytes()), (0, 0));
    }
}
