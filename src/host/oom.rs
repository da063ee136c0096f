//! Whether the kernel has killed something for want of memory: what the control group of a process counts.

use std::fs;
use std::path::{Path, PathBuf};

/// The count of a process's control group, from a moment on.
#[derive(Debug, Default)]
pub struct OomKills {
    counter: Option<PathBuf>,
    before: u64,
}

impl OomKills {
    /// From now on, for the control group of a process. `proc` and `cgroup` are `/proc` and `/sys/fs/cgroup`.
    pub fn watch(proc: &Path, cgroup: &Path, pid: i32) -> Self {
        let groups = fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).unwrap_or_default();
        let counter = counters(&groups, cgroup).into_iter().find(|counter| count(counter).is_some());
        let before = counter.as_deref().and_then(count).unwrap_or(0);
        Self { counter, before }
    }

    /// Whether there has been one since then; none where nothing counts them.
    pub fn happened(&self) -> Option<bool> {
        self.counter.as_deref().and_then(count).map(|now| now > self.before)
    }
}

/// Where a process's kills are counted: `memory.events` of version 2 (cgroup-v2.rst), `memory.oom_control` of version 1.
fn counters(groups: &str, cgroup: &Path) -> Vec<PathBuf> {
    let below = |folder: PathBuf, group: &str| folder.join(group.trim_start_matches('/'));
    groups
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (hierarchy, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
            if hierarchy == "0" && controllers.is_empty() {
                return Some(below(cgroup.to_owned(), group).join("memory.events"));
            }
            let memory = controllers.split(',').any(|controller| controller == "memory");
            memory.then(|| below(cgroup.join("memory"), group).join("memory.oom_control"))
        })
        .collect()
}

fn count(counter: &Path) -> Option<u64> {
    let text = fs::read_to_string(counter).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_in_the_group_is_seen_in_both_versions() {
        for (groups, counter) in [
            ("1:name=systemd:/x\n0::/user/vm\n", "cgroup/user/vm/memory.events"),
            ("4:cpu,memory:/user/vm\n0::/\n", "cgroup/memory/user/vm/memory.oom_control"),
        ] {
            let root = tempfile::tempdir().unwrap();
            let (proc, cgroup) = (root.path().join("proc"), root.path().join("cgroup"));
            let counter = root.path().join(counter);
            fs::create_dir_all(proc.join("7")).unwrap();
            fs::create_dir_all(counter.parent().unwrap()).unwrap();
            fs::write(proc.join("7/cgroup"), groups).unwrap();
            fs::write(&counter, "oom 3\noom_kill 1\n").unwrap();
            let kills = OomKills::watch(&proc, &cgroup, 7);
            assert_eq!(kills.happened(), Some(false));
            fs::write(&counter, "oom 4\noom_kill 2\n").unwrap();
            assert_eq!(kills.happened(), Some(true));
            assert_eq!(OomKills::watch(&proc, &cgroup, 8).happened(), None);
        }
    }
}
