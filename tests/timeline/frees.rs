//! What a snapshot's deletion is said to free is what comes back.

use super::{me, of};
use hoody_state::id::ContainerId;
use hoody_state::model::{ForkRequest, NodeKind, Verb};
use hoody_state::name::SnapshotName;
use hoody_state::units::Bytes;
use hoody_state::{Caller, Host};
use hoody_state_workspace::{MemoryWorld, RealHost, assert_clean, at_rest, container, furnish, project, snapshot};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) const WAIT: Duration = Duration::from_secs(20);
pub(crate) const MIB: u64 = 1 << 20;

pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn roll(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn frees(host: &Host, c: &ContainerId, name: &str) -> Option<Bytes> {
    host.snapshot_detail(c, name, WAIT).unwrap().snapshot.frees_bytes
}

fn names(host: &Host, c: &ContainerId) -> Vec<String> {
    host.snapshots(c).unwrap().snapshots.iter().map(|s| s.name.to_string()).collect()
}

fn fork(host: &Host, c: &ContainerId, from: Option<String>, prefix: String) -> ContainerId {
    let request = ForkRequest { count: Some(1), source_snapshot: from, name_prefix: Some(prefix), start: Some(false), ..Default::default() };
    let forked = host.fork_container(&me(), c, &request).unwrap();
    at_rest(host);
    serde_json::to_value(&forked.results[0]).unwrap()["container"]["id"].as_str().unwrap().parse().unwrap()
}

/// A pool on which exactly what comes back can be seen.
pub(crate) trait Pool {
    fn host(&self) -> &Host;
    /// Changes some files of a live volume.
    fn change(&self, c: &ContainerId, dice: &mut Dice);
    /// Bytes of file data, after all that is deleted has come back.
    fn used(&self) -> u64;
    /// How far `used` may be moved by others.
    fn slack(&self) -> u64;
}

/// A random history. Snapshots are deleted one after the other, and what comes back is compared with what was said.
fn history(pool: &impl Pool, first: ContainerId, dice: &mut Dice, steps: u64) {
    let host = pool.host();
    let mut all = vec![first];
    let mut deleted = 0;
    let mut freed = 0;
    let mut together = 0;
    for step in 0..steps {
        let c = all[dice.roll(all.len() as u64) as usize].clone();
        let there = names(host, &c);
        let some = |dice: &mut Dice| there.get(dice.roll(there.len().max(1) as u64) as usize).cloned();
        match dice.roll(10) {
            0..=3 => {
                pool.change(&c, dice);
                snapshot(host, &c, &format!("s{step}")).unwrap();
            }
            4 => {
                if let Some(name) = some(dice) {
                    host.restore(&me(), &c, &name, Default::default()).unwrap();
                }
            }
            5 if all.len() < 3 => all.push(fork(host, &c, some(dice), format!("fork{step}"))),
            6 if all.len() > 1 && dice.roll(3) == 0 => {
                host.delete_container(&me(), &c).unwrap();
                at_rest(host);
                all.retain(|x| *x != c);
            }
            7 if there.len() > 2 => {
                // Several at once, not always neighbours.
                let gone: Vec<SnapshotName> = there.iter().filter(|_| dice.roll(2) == 0).map(|n| n.parse().unwrap()).collect();
                host.frees_together(&c, &gone, WAIT).unwrap();
                pool.change(&c, dice);
                let before = pool.used();
                let said = host.frees_together(&c, &gone, WAIT).unwrap().unwrap_or_else(|| panic!("step {step}: what {gone:?} free together is not known")).0;
                gone.iter().for_each(|name| drop(host.delete_snapshot(&me(), &c, name.as_str()).unwrap()));
                let back = before.saturating_sub(pool.used());
                assert!(back.abs_diff(said) <= pool.slack(), "step {step}: {gone:?} of {c} were said to free {said} bytes together, and {back} came back");
                together += usize::from(said > 0 && gone.len() > 1);
            }
            _ => {
                let Some(name) = some(dice) else { continue };
                // Asked twice, with a change in between that does not belong to an operation: a figure that was right must not be given when it is not.
                frees(host, &c, &name);
                pool.change(&c, dice);
                let before = pool.used();
                let said = frees(host, &c, &name).unwrap_or_else(|| panic!("step {step}: what {name} frees is not known")).0;
                host.delete_snapshot(&me(), &c, &name).unwrap();
                let back = before.saturating_sub(pool.used());
                assert!(back.abs_diff(said) <= pool.slack(), "step {step}: {name} of {c} was said to free {said} bytes, and {back} came back");
                deleted += 1;
                freed += u64::from(said > 0);
            }
        }
    }
    assert!(deleted > steps / 8 && freed > 2, "too little was tried: {deleted} deleted, {freed} of them freed something");
    assert!(together > 1, "too few sets were deleted together: {together}");
    assert_clean(host, "a history of deletions");
}

struct InMemory(MemoryWorld, Host);

impl Pool for InMemory {
    fn host(&self) -> &Host {
        &self.1
    }

    fn change(&self, c: &ContainerId, dice: &mut Dice) {
        for _ in 0..3 {
            let size = 1 + dice.roll(5000) as usize;
            self.0.write(c, &format!("f{}", dice.roll(6)), &"x".repeat(size));
        }
    }

    fn used(&self) -> u64 {
        self.1.pool().unwrap().used.0
    }

    fn slack(&self) -> u64 {
        0
    }
}

#[test]
fn in_memory_exactly_what_was_said_comes_back() {
    for seed in 0..3 {
        let world = MemoryWorld::new();
        let host = world.host();
        let c = container(&host, &furnish(&host), "agent").unwrap();
        history(&InMemory(world, host), c, &mut Dice(seed), 120);
    }
}

pub(crate) struct OnDisk(pub(crate) RealHost);

pub(crate) fn sync(path: &Path) {
    nix::unistd::syncfs(File::open(path).unwrap().as_fd()).unwrap();
}

impl OnDisk {
    fn pool(&self) -> std::path::PathBuf {
        self.0.config.run.join("pool")
    }
}

impl Pool for OnDisk {
    fn host(&self) -> &Host {
        self.0.host()
    }

    fn change(&self, c: &ContainerId, dice: &mut Dice) {
        let live = self.0.live(c);
        for _ in 0..4 {
            let path = live.join(format!("f{}", dice.roll(5)));
            match dice.roll(8) {
                // Whole files, and parts of files: an extent is held as long as any part of it is.
                0..=2 => write(&path, 0, 1 + dice.roll(6), dice),
                3 | 4 => write(&path, dice.roll(6) * MIB, 1 + dice.roll(2), dice),
                5 => drop(std::fs::remove_file(&path)),
                6 => {
                    if let Ok(f) = OpenOptions::new().write(true).open(&path) {
                        f.set_len(dice.roll(4) * MIB).unwrap();
                    }
                }
                // Two files that share their data: deleted together, they count once.
                _ => {
                    if let Ok(from) = File::open(&path) {
                        let to = File::create(live.join(format!("f{}", dice.roll(5)))).unwrap();
                        // SAFETY: FICLONE takes a descriptor of a file that is open.
                        let cloned = unsafe { nix::libc::ioctl(to.as_raw_fd(), nix::libc::FICLONE, from.as_raw_fd()) };
                        assert!(cloned == 0 || path.exists());
                    }
                }
            }
        }
        sync(&live);
    }

    fn used(&self) -> u64 {
        let pool = self.pool();
        let end = Instant::now() + Duration::from_secs(60);
        while !self.host().pool().unwrap().reclaiming.is_empty() {
            assert!(Instant::now() < end, "the space of deleted volumes does not come back");
            std::thread::sleep(Duration::from_millis(20));
        }
        sync(&pool);
        let groups = btrfs_uapi::space::space_info(File::open(&pool).unwrap().as_fd()).unwrap();
        groups.iter().filter(|g| g.flags.contains(btrfs_uapi::space::BlockGroupFlags::DATA)).map(|g| g.used_bytes).sum()
    }

    /// The catalog is in the pool too, and its log grows. What is written is in pieces of 1 MiB.
    fn slack(&self) -> u64 {
        MIB / 2
    }
}

pub(crate) fn write(path: &Path, at: u64, mib: u64, dice: &mut Dice) {
    let f = OpenOptions::new().create(true).truncate(false).write(true).open(path).unwrap();
    let data: Vec<u8> = (0..mib * MIB).map(|n| (n ^ dice.0) as u8).collect();
    f.write_all_at(&data, at).unwrap();
}

#[test]
fn on_disk_what_was_said_comes_back() {
    let real = RealHost::new("timeline-frees");
    let c = container(real.host(), &project(real.host(), "web"), "dev").unwrap();
    real.host().lifecycle(&Caller::default(), &c, Verb::ForceStop, None).unwrap();
    history(&OnDisk(real), c, &mut Dice(7), 110);
}

#[test]
fn a_file_that_only_one_snapshot_has_is_said_to_come_back() {
    let real = RealHost::new("timeline-one");
    let c = container(real.host(), &project(real.host(), "web"), "dev").unwrap();
    let pool = OnDisk(real);
    let (host, live) = (pool.host(), pool.0.live(&c));
    let mut dice = Dice(1);
    snapshot(host, &c, "empty").unwrap();
    write(&live.join("big"), 0, 8, &mut dice);
    snapshot(host, &c, "full").unwrap();
    assert_eq!(frees(host, &c, "full"), Some(Bytes(0)), "the live state has it too");
    std::fs::remove_file(live.join("big")).unwrap();
    sync(&live);
    let said = frees(host, &c, "full").unwrap().0;
    assert!((8 * MIB..9 * MIB).contains(&said), "the running container changes other files too: {said}");
    // A copy of it holds it as well, until that is gone.
    let fork = fork(host, &c, Some("full".into()), "fork".into());
    assert_eq!(frees(host, &c, "full"), Some(Bytes(0)));
    assert_eq!(frees(host, &fork, "full"), Some(Bytes(0)));
    host.delete_container(&me(), &fork).unwrap();
    at_rest(host);
    pool.used();
    let said = frees(host, &c, "full").unwrap();
    assert!(said.0 >= 8 * MIB, "{said}");
    // The routes that show it agree.
    let report = host.usage_with_frees(&c, WAIT).unwrap();
    assert!(report.snapshots.iter().any(|s| s.name.as_str() == "full" && s.frees_bytes.is_some_and(|b| b.0 >= 8 * MIB)));
    let t = of(host, &c);
    let node = t.nodes.iter().find(|n| n.snapshot.as_ref().is_some_and(|s| s.as_str() == "full") && n.kind == Some(NodeKind::Snapshot)).unwrap();
    assert!(node.frees_bytes.is_some_and(|b| b.0 >= 8 * MIB));
    write(&live.join("new"), 0, 3, &mut dice);
    std::thread::sleep(Duration::from_secs(11));
    let now = of(host, &c).nodes[0].clone();
    assert!(now.unsaved_bytes.is_some_and(|b| b.0 >= 3 * MIB), "{now:#?}");
}
