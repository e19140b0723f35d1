//! How far reading a trace has come: bytes of the file, where its size is known, and requests. How far making one has, too.

use super::input::name;
use crate::trace::Records;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use std::cell::Cell;
use std::path::Path;

/// A bar on the terminal, or nothing where there is none.
pub struct Progress {
    bar: ProgressBar,
    requests: Cell<u64>,
    read: Box<dyn Fn() -> u64>,
}

const EVERY: u64 = 1024;

impl Progress {
    /// Nothing is shown: somebody else shows something.
    pub fn hidden() -> Self {
        Progress { bar: ProgressBar::hidden(), requests: Cell::new(0), read: Box::new(|| 0) }
    }

    /// A bar for a trace that is being read.
    pub fn of(path: &Path, records: &Records) -> Self {
        Progress::of_all(name(path), &[records])
    }

    /// One bar for several that are read at once.
    pub fn of_all(title: String, all: &[&Records]) -> Self {
        let (bar, template) = match all.iter().map(|records| records.bytes_total()).sum() {
            Some(total) => (
                ProgressBar::new(total),
                "{msg}  {bar:30} {decimal_bytes} of {decimal_total_bytes}  {decimal_bytes_per_sec}  {prefix} requests  {eta} to go",
            ),
            None => (ProgressBar::new_spinner(), "{spinner} {msg}  {decimal_bytes}  {prefix} requests  {elapsed}"),
        };
        let bar = bar.with_style(ProgressStyle::with_template(template).expect("the template is well-formed"));
        bar.set_message(title);
        let read: Vec<_> = all.iter().map(|records| records.bytes_read()).collect();
        Progress { bar, requests: Cell::new(0), read: Box::new(move || read.iter().map(|read| read()).sum()) }
    }

    /// A bar for what is done once there are so many of it, such as `seconds` or `requests`.
    pub fn counted(title: String, total: u64, unit: &str) -> Self {
        let template = format!("{{msg}}  {{bar:30}} {{human_pos}} of {{human_len}} {unit}  {{eta}} to go");
        let style = ProgressStyle::with_template(&template).expect("the template is well-formed");
        let bar = ProgressBar::new(total).with_style(style).with_message(title);
        Progress { bar, requests: Cell::new(0), read: Box::new(|| 0) }
    }

    /// There are so many now.
    pub fn reached(&self, count: u64) {
        self.bar.set_position(count);
    }

    /// Requests have passed.
    pub fn passed(&self, requests: u64) {
        let before = self.requests.get();
        self.requests.set(before + requests);
        if before / EVERY != (before + requests) / EVERY {
            self.bar.set_prefix(HumanCount(before + requests).to_string());
            self.bar.set_position((self.read)());
        }
    }

    /// All have; the bar goes away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
