//! Memory and descriptors of the supervisor that lives through it all.

use std::path::PathBuf;
use std::time::Duration;

use crate::support::processes::memory_kib;

const SAMPLES: u32 = 24;
/// What a supervisor may grow by between the first quarter and the last: its rings and allocator settle, nothing adds up.
const GROWTH_KIB: u64 = 4 << 10;
/// Descriptors of clients that are just leaving.
const DESCRIPTORS: usize = 16;

struct Sample {
    after: Duration,
    steps: u64,
    memory_kib: u64,
    descriptors: usize,
}

pub(super) struct Curve {
    every: Duration,
    samples: Vec<Sample>,
}

/// What the descriptors of a process are open for.
pub(super) fn descriptors(pid: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect()
}

impl Curve {
    pub(super) fn new(time: Duration) -> Self {
        Self { every: time / SAMPLES, samples: Vec::new() }
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.samples.last().is_none_or(|last| now >= last.after + self.every)
    }

    pub(super) fn sample(&mut self, after: Duration, pid: &str, steps: u64) {
        let memory_kib = memory_kib(pid.parse().unwrap());
        self.samples.push(Sample { after, steps, memory_kib, descriptors: descriptors(pid).len() });
    }

    pub(super) fn print(&self) {
        println!("{:>8} {:>8} {:>11} {:>12}", "second", "steps", "memory KiB", "descriptors");
        for Sample { after, steps, memory_kib, descriptors } in &self.samples {
            println!("{:>8} {steps:>8} {memory_kib:>11} {descriptors:>12}", after.as_secs());
        }
    }

    /// The least of a quarter is compared: what is more was for a client.
    #[track_caller]
    pub(super) fn is_stable(&self) {
        let quarter = self.samples.len().div_ceil(4);
        let (first, last) = (&self.samples[..quarter], &self.samples[self.samples.len() - quarter..]);
        let memory = |samples: &[Sample]| samples.iter().map(|sample| sample.memory_kib).min().unwrap();
        let descriptors = |samples: &[Sample]| samples.iter().map(|sample| sample.descriptors).min().unwrap();
        assert!(memory(last) <= memory(first) + GROWTH_KIB, "{} → {} KiB", memory(first), memory(last));
        assert!(descriptors(last) <= descriptors(first) + DESCRIPTORS);
    }
}
