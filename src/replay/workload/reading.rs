//! From records, one after another, to a workload: blocks numbered, sessions and outputs found.

use super::{Item, Workload};
use crate::replay::report::{Ideal, TraceSummary};
use crate::routing::SessionKey;
use crate::routing::block::{BlockSize, ContentHash};
use crate::sim::Category;
use crate::trace::{InfiniteCache, Kind, Record};
use std::collections::HashMap;

/// What was read so far.
pub(super) struct Reading {
    block_size: BlockSize,
    cache: InfiniteCache,
    numbers: Numbers,
    sessions: SessionFinder,
    categories: Categories,
    pub items: Vec<Item>,
    contents: Vec<ContentHash>,
    ids: Vec<u32>,
}

impl Reading {
    pub fn new(block_size: BlockSize) -> Self {
        Reading {
            block_size,
            cache: InfiniteCache::new(block_size),
            numbers: Numbers::default(),
            sessions: SessionFinder::default(),
            categories: Categories::default(),
            items: Vec::new(),
            contents: Vec::new(),
            ids: Vec::new(),
        }
    }

    pub fn add(&mut self, record: Record) {
        self.cache.visit(&record);
        let blocks = record.full_blocks(self.block_size);
        let first = self.contents.len();
        self.contents.extend_from_slice(blocks);
        self.numbers.extend(blocks, &mut self.ids);
        let blocks = blocks.len() as u32;
        let (place, before) = self.sessions.find(&record, &self.ids[first..], self.items.len());
        let item = Item {
            at: record.at,
            prompt_tokens: record.prompt_tokens,
            output_tokens: record.output_tokens,
            first,
            blocks,
            output_first: 0,
            output_blocks: 0,
            session: place.session,
            category: self.categories.of(record.kind, record.turn.unwrap_or(place.turn)),
        };
        if let Some(before) = before {
            self.items[before].learn_output(&item, &self.ids, self.block_size);
        }
        self.items.push(item);
    }

    pub fn done(self, trace: TraceSummary, spread_ties: bool) -> Workload {
        let Reading { block_size, cache, items, contents, ids, .. } = self;
        let ideal = Ideal::new(&cache);
        Workload { block_size, items, contents, ids, spread_ties, trace, ideal }.with_reachable()
    }
}

/// Numbers for blocks, each with everything before it.
#[derive(Default)]
struct Numbers {
    known: HashMap<(u32, ContentHash), u32>,
    next: u32,
}

impl Numbers {
    fn extend(&mut self, blocks: &[ContentHash], ids: &mut Vec<u32>) {
        let mut parent = u32::MAX;
        for &content in blocks {
            let next = &mut self.next;
            parent = *self.known.entry((parent, content)).or_insert_with(|| {
                *next += 1;
                *next - 1
            });
            ids.push(parent);
        }
    }
}

/// Finds each request's session: as its format says, by parent or by name; where it says nothing, a prompt that goes on
/// after the whole of an earlier prompt, to its last full block and at least two of them, continues that one's session.
#[derive(Default)]
struct SessionFinder {
    /// By the number of a prompt's last full block.
    ends: HashMap<u32, Place>,
    chats: HashMap<u64, Place>,
    named: HashMap<u64, Place>,
    next: u64,
}

/// A request's session, and which turn of it it is, from 1.
#[derive(Clone, Copy)]
struct Place {
    session: SessionKey,
    turn: u32,
    /// The number of the request.
    item: usize,
}

impl SessionFinder {
    /// The place of the request with this number, and the number of the one that it goes on after.
    fn find(&mut self, record: &Record, ids: &[u32], item: usize) -> (Place, Option<usize>) {
        let says = record.chat.is_some() || record.parent.is_some() || record.session.is_some();
        let before = if says {
            let parent = record.parent.and_then(|parent| self.chats.get(&parent));
            parent.or_else(|| record.session.and_then(|session| self.named.get(&session)))
        } else {
            ids.iter().skip(1).rev().find_map(|id| self.ends.get(id))
        };
        let before = before.copied();
        let place = match before {
            Some(before) => Place { turn: before.turn.saturating_add(1), item, ..before },
            None => {
                self.next += 1;
                Place { session: SessionKey(self.next), turn: 1, item }
            }
        };
        if let Some(chat) = record.chat {
            self.chats.insert(chat, place);
        }
        if let Some(session) = record.session {
            self.named.insert(session, place);
        }
        if let [_, .., last] = ids {
            self.ends.insert(*last, place);
        }
        (place, before.map(|before| before.item))
    }
}

/// Numbers for kinds and turns of requests.
#[derive(Default)]
struct Categories {
    known: HashMap<(Option<Kind>, u32), Category>,
}

impl Categories {
    /// Later turns are alike: the chance of another hardly changes after this one.
    const TURN_MAX: u32 = 8;

    fn of(&mut self, kind: Option<Kind>, turn: u32) -> Category {
        let next = Category(self.known.len() as u32);
        *self.known.entry((kind, turn.min(Self::TURN_MAX))).or_insert(next)
    }
}
