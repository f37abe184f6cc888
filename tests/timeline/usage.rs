//! What a container is said to use is what the file system says.

use super::frees::{Dice, MIB, OnDisk, Pool, WAIT, sync, write};
use super::me;
use hoody_state::model::Verb;
use hoody_state::name::SnapshotName;
use hoody_state::{Caller, Host};
use hoody_state_workspace::{MemoryWorld, RealHost, container, furnish, project, snapshot};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Total and exclusive bytes by `btrfs filesystem du`.
fn du(path: &Path) -> (u64, u64) {
    let out = Command::new("btrfs").args(["filesystem", "du", "--raw", "-s"]).arg(path).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let mut words = text.lines().last().unwrap().split_whitespace().map(|w| w.parse::<u64>().unwrap_or(0));
    (words.next().unwrap(), words.next().unwrap())
}

fn names(host: &Host, c: &hoody_state::id::ContainerId) -> Vec<SnapshotName> {
    host.snapshots(c).unwrap().snapshots.into_iter().map(|s| s.name).collect()
}

#[test]
fn usage_is_what_btrfs_says_and_all_snapshots_together_free_what_comes_back() {
    let real = RealHost::new("timeline-usage");
    let c = container(real.host(), &project(real.host(), "web"), "dev").unwrap();
    real.host().lifecycle(&Caller::default(), &c, Verb::ForceStop, None).unwrap();
    let pool = OnDisk(real);
    let (host, live) = (pool.host(), pool.0.live(&c));
    let mut dice = Dice(3);
    for n in 0..4 {
        // `kept` stays; `passing` is in two snapshots and nowhere else; `own` is in one.
        write(&live.join(format!("kept{n}")), 0, 1, &mut dice);
        write(&live.join(format!("passing{n}")), 0, 2, &mut dice);
        write(&live.join("own"), 0, 3, &mut dice);
        if n > 1 {
            std::fs::remove_file(live.join(format!("passing{}", n - 2))).unwrap();
        }
        snapshot(host, &c, &format!("s{n}")).unwrap();
    }
    write(&live.join("new"), 0, 5, &mut dice);
    std::fs::remove_file(live.join("own")).unwrap();
    std::fs::remove_file(live.join("passing2")).unwrap();
    sync(&live);
    let usage = host.usage_with_frees(&c, WAIT).unwrap();
    let (total, exclusive) = du(&live);
    assert!(usage.live.referenced.0.abs_diff(total) < MIB / 4, "{} referenced, btrfs says {total}", usage.live.referenced);
    assert!(usage.live.exclusive.0.abs_diff(exclusive) < MIB / 4, "{} exclusive, btrfs says {exclusive}", usage.live.exclusive);
    assert_eq!(usage.live.referenced - usage.live.exclusive, usage.live.shared);
    let all = usage.all_snapshots;
    assert_eq!((all.count, all.size), (4, usage.snapshots.iter().map(|s| s.size).sum()));
    let said = all.frees_bytes.expect("what all free together").0;
    let each: u64 = usage.snapshots.iter().map(|s| s.frees_bytes.expect("what each frees").0).sum();
    assert!(said >= each + 4 * MIB, "files that two snapshots share come back only with both: {said} together, {each} one by one");
    let before = pool.used();
    for name in names(host, &c) {
        host.delete_snapshot(&me(), &c, name.as_str()).unwrap();
    }
    let back = before - pool.used();
    assert!(back.abs_diff(said) < MIB / 2, "{said} said, {back} came back");
    let none = host.usage_with_frees(&c, WAIT).unwrap().all_snapshots;
    assert_eq!((none.count, none.frees_bytes.map(|b| b.0)), (0, Some(0)));
}

#[test]
fn what_is_known_of_older_snapshots_stays_known_when_another_is_taken_or_deleted() {
    let world = MemoryWorld::new();
    let host = world.host();
    let c = container(&host, &furnish(&host), "agent").unwrap();
    for n in 0..20 {
        world.write(&c, "f", &"x".repeat(n + 1));
        snapshot(&host, &c, &format!("s{n:02}")).unwrap();
    }
    let known = |wait| host.usage_with_frees(&c, wait).unwrap().snapshots.iter().filter(|s| s.frees_bytes.is_some()).count();
    assert_eq!(known(WAIT), 20);
    world.write(&c, "f", "another");
    snapshot(&host, &c, "s20").unwrap();
    assert!(known(Duration::ZERO) >= 19, "a new snapshot makes only itself and the one before unknown");
    assert_eq!(known(WAIT), 21);
    host.delete_snapshot(&me(), &c, "s10").unwrap();
    assert!(known(Duration::ZERO) >= 18, "a deleted snapshot makes only those beside it unknown");
    assert_eq!(known(WAIT), 20);
    // A restore copies a snapshot: nothing is certain any more until it is measured again.
    host.restore(&me(), &c, "s05", Default::default()).unwrap();
    let s05 = host.usage_with_frees(&c, WAIT).unwrap().snapshots.into_iter().find(|s| s.alias.as_ref().is_some_and(|a| a.as_str() == "s05")).unwrap();
    assert_eq!(s05.frees_bytes.map(|b| b.0), Some(0), "the live state has it too");
}

#[test]
fn a_set_with_a_snapshot_that_does_not_exist_is_not_known() {
    let host = Host::in_memory().unwrap();
    let c = container(&host, &furnish(&host), "agent").unwrap();
    let gone: SnapshotName = "gone".parse().unwrap();
    assert_eq!(host.frees_together(&c, &[gone], Duration::from_millis(200)).unwrap(), None);
    assert_eq!(host.frees_together(&c, &[], WAIT).unwrap().map(|b| b.0), Some(0));
}
