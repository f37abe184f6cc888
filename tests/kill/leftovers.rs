//! What is on the machine and in the pool, beside what `check` looks at.

use hoody_state::mountinfo;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Mounts, loop devices and processes that have to do with a directory.
pub fn of_machine(dir: &Path) -> Vec<String> {
    let shown = dir.display().to_string();
    let mut found = Vec::new();
    let mounts = mountinfo::of_this_process().unwrap();
    found.extend(mounts.iter().filter(|m| m.at.starts_with(dir)).map(|m| format!("mount {} {m:?}", m.at.display())));
    for e in std::fs::read_dir("/sys/block").unwrap().flatten() {
        if let Ok(file) = std::fs::read_to_string(e.path().join("loop/backing_file"))
            && file.starts_with(&shown)
        {
            found.push(format!("loop {}", e.file_name().to_string_lossy()));
        }
    }
    found.extend(processes(dir).into_iter().map(|(pid, line)| format!("process {pid}: {line}")));
    found
}

/// Processes that name a directory in their command line, dead ones left out.
pub fn processes(dir: &Path) -> Vec<(u32, String)> {
    let shown = dir.display().to_string();
    let all = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    all.filter_map(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(&shown).then_some((pid, line))
    })
    .collect()
}

/// Every subvolume of a pool by its path.
pub fn subvolumes(pool: &Path) -> BTreeSet<String> {
    let out = std::process::Command::new("btrfs").args(["subvolume", "list"]).arg(pool).output().unwrap();
    assert!(out.status.success(), "btrfs subvolume list: {}", String::from_utf8_lossy(&out.stderr));
    let out = String::from_utf8(out.stdout).unwrap();
    // The barrier is part of the pool, and of nothing in it.
    out.lines().filter_map(|l| l.split(" path ").nth(1)).filter(|path| !path.starts_with("barrier/")).map(str::to_owned).collect()
}

/// What a pool's cgroups hold.
#[derive(Debug, Default)]
pub struct Group {
    pub processes: Vec<u32>,
    pub frozen: bool,
}

/// The containers' cgroups below `hoody/<pool>`, all hierarchies taken together.
pub fn cgroups(pool: &str) -> BTreeMap<String, Group> {
    let mut found: BTreeMap<String, Group> = BTreeMap::new();
    for mount in mountinfo::of_this_process().unwrap().iter().filter(|m| m.kind.starts_with("cgroup")) {
        let Ok(entries) = std::fs::read_dir(mount.at.join("hoody").join(pool)) else { continue };
        for e in entries.flatten().filter(|e| e.path().is_dir()) {
            let g = found.entry(e.file_name().into_string().unwrap()).or_default();
            g.frozen |= says(&e.path().join("cgroup.freeze"), "1") || says(&e.path().join("freezer.state"), "FR");
            let below = std::fs::read_dir(e.path()).into_iter().flatten().flatten().map(|b| b.path());
            for dir in below.chain([e.path()]) {
                let procs = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
                g.processes.extend(procs.lines().filter_map(|p| p.parse::<u32>().ok()));
            }
        }
    }
    found
}

fn says(file: &Path, beginning: &str) -> bool {
    std::fs::read_to_string(file).is_ok_and(|s| s.starts_with(beginning))
}

/// The names in a directory; none if it is not there.
pub fn names(dir: &Path) -> BTreeSet<String> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}
