//! The locks and atomics of the index in one place, so that a build with `--cfg shuttle` runs them under a randomised
//! scheduler (`tests/index_shuttle.rs`).

#[cfg(not(shuttle))]
pub(super) use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(not(shuttle))]
pub(super) use parking_lot::{Mutex, MutexGuard};

#[cfg(shuttle)]
pub(super) use shuttle::sync::{
    MutexGuard,
    atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};

/// Waits a moment for another thread to finish a few stores.
#[cfg(not(shuttle))]
pub(super) fn pause(tries: u32) {
    // A writer that was descheduled in the middle of its stores needs the processor more than we do.
    if tries % 64 == 63 { std::thread::yield_now() } else { std::hint::spin_loop() }
}

#[cfg(shuttle)]
pub(super) fn pause(_tries: u32) {
    shuttle::thread::yield_now();
}

/// `parking_lot`'s door over shuttle's mutex.
#[cfg(shuttle)]
#[derive(Default)]
pub(super) struct Mutex<T>(shuttle::sync::Mutex<T>);

#[cfg(shuttle)]
impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Mutex(shuttle::sync::Mutex::new(value))
    }
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("no test panics with a lock held")
    }
}
