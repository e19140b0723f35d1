//! Where each session went last.
//!
//! Two generations, each of bounded size: when the young one is full it becomes the old one, and what was old is
//! forgotten. A session that is used moves to the young one, so the 65,536 used last are always remembered.

use crate::routing::fact::InstanceId;
use crate::routing::request::SessionKey;
use std::collections::HashMap;

/// A bounded map from session to instance.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    young: HashMap<SessionKey, InstanceId>,
    old: HashMap<SessionKey, InstanceId>,
}

/// Sessions a generation.
const GENERATION_MAX: usize = 1 << 16;

impl Sessions {
    pub fn home(&self, session: SessionKey) -> Option<InstanceId> {
        self.young.get(&session).or_else(|| self.old.get(&session)).copied()
    }

    pub fn settle(&mut self, session: SessionKey, instance: InstanceId) {
        if self.young.len() >= GENERATION_MAX && !self.young.contains_key(&session) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(session, instance);
    }

    pub fn forget(&mut self, instance: InstanceId) {
        self.young.retain(|_, home| *home != instance);
        self.old.retain(|_, home| *home != instance);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered_and_the_memory_is_bounded() {
        let mut sessions = Sessions::default();
        for session in 0..3 * GENERATION_MAX as u64 {
            sessions.settle(SessionKey(session), InstanceId((session % 4) as u16));
        }
        let newest = 3 * GENERATION_MAX as u64 - 1;
        assert_eq!(sessions.home(SessionKey(newest)), Some(InstanceId(3)));
        assert_eq!(sessions.home(SessionKey(newest - GENERATION_MAX as u64 + 1)), Some(InstanceId(0)));
        assert_eq!(sessions.home(SessionKey(0)), None);
        assert!(sessions.young.len() + sessions.old.len() <= 2 * GENERATION_MAX);
        sessions.forget(InstanceId(3));
        assert_eq!(sessions.home(SessionKey(newest)), None);
    }
}
