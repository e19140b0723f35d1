//! One arena of 64-bit words for what readers follow without a lock: the runs' keys and segments, the sets.
//!
//! An array that is given back is reused at once, perhaps while a reader still looks at it. That is safe because words are
//! atomic and readers go by numbers, not by pointers; it is right because a reader checks, after it has looked, that the
//! version of the run through which it came has not changed. For that, whoever gives an array back changed the version of
//! its run before, and [`Words::take`] fences, so that who sees a word of the new owner also sees that change.
//!
//! Sizes come in classes a quarter of an octave apart. Free neighbours are not joined; a larger array is split only when the
//! budget is used up.

use super::budget::Budget;
use super::chunks::Chunks;
use super::sync::{AtomicU64, Mutex, Ordering, fence};

/// The largest array, in words; a chunk of the arena holds at least one.
pub(super) const ARRAY_WORDS_MAX: usize = 1 << FIRST_LOG2;
const FIRST_LOG2: u32 = 12;
const CLASSES: usize = 48;

/// Even sizes to 16 words, then four to an octave.
const fn class_of(words: usize) -> usize {
    if words <= 16 {
        words.saturating_sub(1) / 2
    } else {
        let octave = (words - 1).ilog2();
        let step = 1 << (octave - 2);
        8 + (octave as usize - 4) * 4 + words.div_ceil(step) - 5
    }
}

const fn class_words(class: usize) -> usize {
    if class < 8 { (class + 1) * 2 } else { (5 + (class - 8) % 4) << ((class - 8) / 4 + 2) }
}

/// An array of words that its owner alone writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Array {
    /// Its first word; even.
    pub at: u32,
    /// Its size in words.
    pub capacity: usize,
}

pub(super) struct Words {
    chunks: Chunks<AtomicU64, FIRST_LOG2>,
    free: Mutex<Free>,
}

struct Free {
    /// The part of the newest chunk that was never used.
    next: u32,
    end: u32,
    /// First free array of each class; its first word names the next one. Zero ends a list.
    heads: [u32; CLASSES],
}

impl Array {
    pub const NONE: Array = Array { at: 0, capacity: 0 };

    /// The capacity as a small number, and back.
    pub fn class(self) -> u8 {
        if self.capacity == 0 { 0 } else { class_of(self.capacity) as u8 + 1 }
    }

    pub fn of_class(at: u32, class: u8) -> Self {
        if class == 0 { Self::NONE } else { Array { at, capacity: class_words(usize::from(class) - 1) } }
    }
}

impl Words {
    pub fn new() -> Self {
        // Word 0 is never given out, so that 0 can mean none; 1 goes with it to keep arrays even.
        Words { chunks: Chunks::new(), free: Mutex::new(Free { next: 0, end: 0, heads: [0; CLASSES] }) }
    }

    #[inline]
    pub fn get(&self, at: u32) -> Option<&AtomicU64> {
        self.chunks.get(at)
    }

    /// `len` words from `at`; `None` only for places that were never in one array.
    #[inline]
    pub fn slice(&self, at: u32, len: usize) -> Option<&[AtomicU64]> {
        self.chunks.slice(at, len)
    }

    /// The first `len` words of an array that is known to exist.
    #[inline]
    pub fn owned(&self, at: u32, len: usize) -> &[AtomicU64] {
        self.chunks.slice(at, len).expect("an array lies in a chunk")
    }

    /// An array of at least `words`, its content arbitrary; `None` when the budget is used up.
    pub fn take(&self, words: usize, budget: &Budget) -> Option<Array> {
        assert!(0 < words && words <= ARRAY_WORDS_MAX, "an array of {words} words fits in no chunk");
        let class = class_of(words);
        let mut free = self.free.lock();
        // Of this class only: free neighbours are not joined, so small arrays shall not use up the large ones while there is
        // other memory.
        let array = match self.pop(&mut free, class, class + 1) {
            Some(array) => array,
            None => match self.bump(&mut free, class, budget) {
                Some(array) => array,
                None => self.pop(&mut free, class, CLASSES)?,
            },
        };
        drop(free);
        // See the module's head: pairs with the fence before a reader checks a version.
        fence(Ordering::Release);
        Some(array)
    }

    /// Takes an array back; `array` must not be used again.
    pub fn give(&self, array: Array) {
        self.push(&mut self.free.lock(), array.at, class_of(array.capacity));
    }

    fn push(&self, free: &mut Free, at: u32, class: usize) {
        self.owned(at, 1)[0].store(u64::from(free.heads[class]), Ordering::Relaxed);
        free.heads[class] = at;
    }

    fn pop(&self, free: &mut Free, class: usize, above: usize) -> Option<Array> {
        let found = (class..above.min(CLASSES)).find(|&class| free.heads[class] != 0)?;
        let at = free.heads[found];
        free.heads[found] = self.owned(at, 1)[0].load(Ordering::Relaxed) as u32;
        let capacity = class_words(class);
        self.push_rest(free, at + capacity as u32, class_words(found) - capacity);
        Some(Array { at, capacity })
    }

    fn bump(&self, free: &mut Free, class: usize, budget: &Budget) -> Option<Array> {
        let capacity = class_words(class);
        if ((free.end - free.next) as usize) < capacity {
            let words = self.chunks.grow(free.end, budget)?;
            let (next, rest) = (free.next, (free.end - free.next) as usize);
            self.push_rest(free, next, rest);
            free.next = free.end.max(2);
            free.end += words as u32;
            if ((free.end - free.next) as usize) < capacity {
                // Only the very first chunk is short of its first words.
                return self.bump(free, class, budget);
            }
        }
        let at = free.next;
        free.next += capacity as u32;
        Some(Array { at, capacity })
    }

    /// Gives `words` from `at` to the free lists, largest piece first.
    fn push_rest(&self, free: &mut Free, mut at: u32, mut words: usize) {
        while words >= 2 {
            let fitting = class_of(words);
            let class = if class_words(fitting) <= words { fitting } else { fitting - 1 };
            self.push(free, at, class);
            at += class_words(class) as u32;
            words -= class_words(class);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_cover_every_size_with_a_quarter_to_spare_at_most() {
        for words in 1..=ARRAY_WORDS_MAX {
            let class = class_of(words);
            assert!(class < CLASSES);
            assert!(class_words(class) >= words && (class == 0 || class_words(class - 1) < words), "{words}");
            assert!(class_words(class) * 4 <= words * 5 + 8, "{words}");
        }
    }

    #[test]
    fn arrays_never_overlap_and_are_reused() {
        let (words, budget) = (Words::new(), Budget::new(1 << 20));
        let mut taken: Vec<Array> = Vec::new();
        for round in 0..20_usize {
            while let Some(array) = words.take(1 + (taken.len() * 37 + round * 11) % 700, &budget) {
                taken.push(array);
            }
            taken.sort_by_key(|array| array.at);
            assert!(taken.windows(2).all(|pair| pair[0].at as usize + pair[0].capacity <= pair[1].at as usize));
            let used: usize = taken.iter().map(|array| array.capacity).sum();
            assert!(used * 8 > budget.limit() / 2, "round {round}: {used} words");
            let (mut kept, mut position) = (Vec::new(), 0);
            for array in taken.drain(..) {
                position += 1;
                if position % 3 == 0 { kept.push(array) } else { words.give(array) }
            }
            taken = kept;
        }
    }
}
