//! Which instance made which response: it alone can be asked for it again, cancel it, or go on from it.
//!
//! The last [`KEPT`] are remembered, by the hash of their ids; of an older one any instance is asked.

use crate::routing::InstanceId;
use crate::serve::members::Member;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use twox_hash::XxHash3_64;

/// Responses remembered at least; at most twice as many.
const KEPT: usize = 1 << 16;
const PATH: &str = "/v1/responses/";

/// Makers by the hashes of their responses' ids.
type Generation = HashMap<u64, Weak<Member>>;

/// Responses by the instances that made them.
#[derive(Default)]
pub(in crate::serve) struct Makers {
    /// Whose place was given to another is nobody any more.
    generations: Mutex<(Generation, Generation)>,
}

impl Makers {
    /// A response with this id began at an instance.
    pub fn made(&self, id: &[u8], instance: &Arc<Member>) {
        let (young, old) = &mut *self.generations.lock();
        if young.len() >= KEPT {
            *old = std::mem::take(young);
        }
        young.insert(XxHash3_64::oneshot(id), Arc::downgrade(instance));
    }

    /// Who made it.
    pub fn maker(&self, id: &str) -> Option<InstanceId> {
        let (young, old) = &*self.generations.lock();
        let id = XxHash3_64::oneshot(id.as_bytes());
        let maker = young.get(&id).or_else(|| old.get(&id))?.upgrade()?;
        Some(maker.id)
    }
}

/// The id in a path that is about one response.
pub(super) fn id_in(path: &str) -> Option<&str> {
    path.strip_prefix(PATH)?.split('/').next().filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_and_the_memory_is_bounded() {
        let (makers, maker) = (Makers::default(), Arc::new(Member::example()));
        for number in 0..3 * KEPT {
            makers.made(format!("resp_{number}").as_bytes(), &maker);
        }
        let latest = 3 * KEPT - 1;
        assert_eq!(makers.maker(&format!("resp_{latest}")), Some(maker.id));
        assert!(makers.maker(&format!("resp_{}", latest - KEPT + 1)).is_some());
        assert_eq!(makers.maker("resp_0"), None);
        {
            let (young, old) = &*makers.generations.lock();
            assert!(young.len() + old.len() <= 2 * KEPT);
        }
        drop(maker);
        assert_eq!(makers.maker(&format!("resp_{latest}")), None, "another one may be at its place");
    }

    #[test]
    fn ids_in_paths() {
        assert_eq!(id_in("/v1/responses/resp_1"), Some("resp_1"));
        assert_eq!(id_in("/v1/responses/resp_1/cancel"), Some("resp_1"));
        assert_eq!(id_in("/v1/responses/"), None);
        assert_eq!(id_in("/v1/responses"), None);
    }
}
