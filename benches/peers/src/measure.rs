//! Clocks and the counting allocator. Times are CPU time of the thread that works, so that a busy machine shows less.

use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::time::Duration;

/// mimalloc, counting the bytes asked for and not given back, while [`counting`] is on.
pub struct Counting;

static ON: AtomicBool = AtomicBool::new(false);
static LIVE_BYTES: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call is passed to mimalloc unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { MiMalloc.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        unsafe { MiMalloc.realloc(pointer, layout, size) }
    }
}

#[inline]
fn count(bytes: isize) {
    if ON.load(Ordering::Relaxed) {
        LIVE_BYTES.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Counts from zero while `on`; what was allocated before is not counted, and must not be freed meanwhile.
pub fn counting(on: bool) {
    LIVE_BYTES.store(0, Ordering::Relaxed);
    ON.store(on, Ordering::Relaxed);
}

/// Bytes allocated and not freed since counting began.
pub fn live_bytes() -> isize {
    LIVE_BYTES.load(Ordering::Relaxed)
}

/// CPU time of a thread, by its clock.
pub fn cpu(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    let failed = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(failed, 0, "a thread's clock can be read while it lives");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The calling thread's CPU clock.
pub const THIS_THREAD: libc::clockid_t = libc::CLOCK_THREAD_CPUTIME_ID;

/// CPU time of `work` on this thread.
pub fn cpu_of<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = cpu(THIS_THREAD);
    let result = work();
    (cpu(THIS_THREAD) - start, result)
}

/// The time stamp counter: a few nanoseconds to read, and constant in rate.
#[inline]
pub fn ticks() -> u64 {
    // SAFETY: reads a counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Nanoseconds a tick.
pub fn tick_ns() -> f64 {
    let (start, from) = (std::time::Instant::now(), ticks());
    std::thread::sleep(Duration::from_millis(50));
    start.elapsed().as_nanos() as f64 / (ticks() - from) as f64
}

/// The value at quantile `q` of what is sorted here.
pub fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * q).round() as usize]
}
