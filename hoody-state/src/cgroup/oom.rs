//! Counts the processes that the kernel killed because a container's memory was used up.

use super::tree::{CgroupTree, children};
use crate::id::ContainerId;
use std::path::Path;

impl CgroupTree {
    /// How many processes of the container the kernel has killed for lack of memory since its group was made. 0 where the kernel does not count them.
    #[must_use]
    pub fn killed_for_memory(&self, container: &ContainerId) -> u64 {
        if let Some(dir) = self.v2_dir(container).filter(|_| self.layout().v2_has("memory")) {
            // Includes kills in groups below it.
            return counted(&dir.join("memory.events"));
        }
        // v1 counts only in the group of the process itself, not above.
        self.v1_dir("memory", container).map_or(0, |dir| {
            let below = children(&dir).unwrap_or_default();
            below.iter().chain([&dir]).map(|d| counted(&d.join("memory.oom_control"))).sum()
        })
    }
}

fn counted(file: &Path) -> u64 {
    std::fs::read_to_string(file).ok().and_then(|text| parse(&text)).unwrap_or(0)
}

fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_versions_say_it_by_the_same_key() {
        assert_eq!(super::parse("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(super::parse("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"), Some(5));
        assert_eq!(super::parse("oom_kill_disable 1\n"), None);
    }
}
