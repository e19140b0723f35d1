//! What this process takes of its machine, from `/proc/self`; nothing on systems that have none.

use super::declaration::Metric;
use super::registry::{Gauge, Registry};
use std::fs;

/// The kernel counts CPU time for user space in hundredths of a second, on every architecture (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// The series about the process, in the names that every Prometheus client library gives them.
pub(super) struct Process {
    cpu_seconds: Gauge,
    resident_bytes: Gauge,
    virtual_bytes: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    threads: Gauge,
}

impl Process {
    /// `None` where the system has no `/proc`.
    pub fn new(registry: &Registry) -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let gauge = |metric| registry.gauge(metric, None, None);
        let process = Process {
            cpu_seconds: registry.total(Metric::ProcessCpu),
            resident_bytes: gauge(Metric::ProcessResident),
            virtual_bytes: gauge(Metric::ProcessVirtual),
            open_fds: gauge(Metric::ProcessOpenFds),
            max_fds: gauge(Metric::ProcessMaxFds),
            threads: gauge(Metric::ProcessThreads),
        };
        gauge(Metric::ProcessStart).set(started(&stat).unwrap_or(0.0));
        process.look();
        Some(process)
    }

    /// Reads it all again.
    pub fn look(&self) {
        if let Ok(stat) = fs::read_to_string("/proc/self/stat") {
            let field = |number| field(&stat, number);
            self.cpu_seconds.set((field(14) + field(15)) / TICKS_PER_SECOND);
            self.threads.set(field(20));
        }
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            self.resident_bytes.set(kilobytes(&status, "VmRSS:") * 1024.0);
            self.virtual_bytes.set(kilobytes(&status, "VmSize:") * 1024.0);
        }
        if let Ok(fds) = fs::read_dir("/proc/self/fd") {
            // The one that is open to list them is not ours.
            self.open_fds.set(fds.count().saturating_sub(1) as f64);
        }
        if let Ok(limits) = fs::read_to_string("/proc/self/limits") {
            let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
            let soft = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            self.max_fds.set(soft.unwrap_or(f64::INFINITY));
        }
    }
}

/// A numbered field of `/proc/self/stat` (proc(5)). The second one, the name, may hold spaces and parentheses.
fn field(stat: &str, number: usize) -> f64 {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().nth(number - 3).and_then(|field| field.parse().ok()).unwrap_or(0.0)
}

fn kilobytes(status: &str, key: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

/// When the process started, in seconds since 1970.
fn started(stat: &str) -> Option<f64> {
    let system = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + field(stat, 22) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_after_a_name_with_anything_in_it() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 9 0 12345 1000 200";
        assert_eq!((field(stat, 14), field(stat, 15), field(stat, 20), field(stat, 22)), (250.0, 50.0, 9.0, 12345.0));
        assert_eq!(kilobytes("VmSize:\t  2048 kB\nVmRSS:\t  512 kB\n", "VmRSS:"), 512.0);
    }
}
