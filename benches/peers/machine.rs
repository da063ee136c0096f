//! The machine that all this was measured on.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

/// For the report: figures of different machines cannot be compared, their ratios can.
pub(crate) fn description() -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = field(&cpuinfo, "model name").or_else(|| field(&cpuinfo, "CPU part"));
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = field(&meminfo, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({
        "processor": model, "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_bytes": memory.map(|kib| kib * 1024), "kernel": kernel.trim(),
        "qemu": version("qemu-system-x86_64"), "libvirt": version("virsh"), "rust": version("rustc"),
    })
}

fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.split(':').next().map(str::trim) == Some(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The first line of `--version`; none for a program that is not installed.
fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}
