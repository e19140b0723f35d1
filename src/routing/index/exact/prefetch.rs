//! The one unsafe line of the index: a hint to the processor.
//!
//! Without it, that is with plain loads of a group of entries before they are used, a store takes half as long again: a load
//! that misses holds up all that comes after it, a hint does not.

/// Starts to fetch the cache lines of `items`, which are about to be used.
#[inline(always)]
#[allow(unsafe_code)]
pub(super) fn prefetch<T>(items: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = std::ptr::from_ref(items).cast::<i8>();
        for line in (0..size_of::<T>()).step_by(64) {
            // SAFETY: a prefetch reads and writes nothing that a program could see and never faults; the address lies in
            // `items` besides.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(line)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = items;
}
