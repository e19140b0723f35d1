//! Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, SODA 2018): each key has its own order of the
//! instances, and goes to the first in it that has no more than `load_factor` times its even share of requests.
//!
//! The order is by rendezvous hashing (Thaler, Ravishankar 1998) instead of a ring: as stable when the fleet changes, and
//! nothing has to be kept. The key is the first 256 tokens, as in SMG's `prefix_hash`, or the session; requests
//! that have no such key take any instance. The factor 1.25 is SMG's default.

use super::{Parameter, Policy, View, mix};

/// What is hashed.
pub(super) enum Key {
    Prefix,
    Session,
}

pub(super) struct BoundedHash {
    key: Key,
    load_factor: f64,
}

impl BoundedHash {
    pub fn of(key: Key) -> Self {
        BoundedHash { key, load_factor: 1.25 }
    }
}

impl Policy for BoundedHash {
    fn choose(&self, view: &View<'_>) -> usize {
        let key = match self.key {
            Key::Prefix => view.head,
            Key::Session => view.session.map(|session| session.0),
        };
        let key = key.unwrap_or_else(|| mix(view.sequence));
        let requests: u32 = view.candidates.iter().map(|candidate| candidate.load.requests()).sum();
        let share = f64::from(requests + 1) / view.candidates.len() as f64;
        let limit = (share * self.load_factor).ceil();
        let fits = |position: &usize| f64::from(view.candidates[*position].load.requests() + 1) <= limit;
        let rank = |position: &usize| mix(key ^ mix(u64::from(view.candidates[*position].instance.0)));
        let positions = 0..view.candidates.len();
        // A factor under 1 may leave nobody within the limit.
        let first = positions.clone().filter(fits).min_by_key(rank);
        first.or_else(|| positions.min_by_key(rank)).expect("a view has a candidate")
    }

    fn parameters(&mut self) -> Vec<Parameter<'_>> {
        vec![Parameter::new("load_factor", "requests an instance may have, of its even share", &mut self.load_factor)]
    }
}
