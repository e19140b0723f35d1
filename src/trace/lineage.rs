//! Which conversation a record belongs to, and which turn of it is.

use super::record::Record;
use std::collections::HashMap;
use std::time::Duration;

/// Finds each record's place in its conversation, from whatever its format says: its parent, or its session.
///
/// Remembers one entry a record that can be continued, so its memory grows with the trace.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    chats: HashMap<u64, Place>,
    sessions: HashMap<u64, Place>,
    /// The number of the next record and of the next session.
    next_chat: u64,
    next_session: u32,
    /// Records that name a parent which is not in the trace.
    pub(super) missing_parents: u64,
    /// Whether any record said anything.
    pub(super) said: bool,
}

/// A record's place. Records and sessions are numbered from zero, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) chat: u64,
    pub(super) parent: Option<u64>,
    pub(super) session: u32,
    /// From 1.
    pub(super) turn: u32,
    pub(super) at: Duration,
    /// When the parent came.
    pub(super) parent_at: Option<Duration>,
    /// Whether the record says anything of this.
    pub(super) said: bool,
}

impl Lineage {
    /// The place of the next record. A record whose parent is missing begins a conversation.
    pub(super) fn place(&mut self, record: &Record) -> Place {
        let by_parent = record.parent.map(|parent| self.chats.get(&parent).copied());
        self.missing_parents += u64::from(matches!(by_parent, Some(None)));
        let by_session = || record.session.and_then(|session| self.sessions.get(&session).copied());
        let before = by_parent.flatten().or_else(by_session);
        let said = record.chat.is_some() || record.parent.is_some() || record.session.is_some();
        self.said |= said;
        let session = before.map_or(self.next_session, |before| before.session);
        let place = Place {
            chat: self.next_chat,
            parent: before.map(|before| before.chat),
            session,
            turn: before.map_or(1, |before| before.turn + 1),
            at: record.at,
            parent_at: before.map(|before| before.at),
            said,
        };
        self.next_chat += 1;
        self.next_session += u32::from(before.is_none());
        if let Some(chat) = record.chat {
            self.chats.insert(chat, place);
        }
        if let Some(session) = record.session {
            self.sessions.insert(session, place);
        }
        place
    }

    /// Sessions so far.
    pub(super) fn sessions(&self) -> usize {
        self.next_session as usize
    }
}
