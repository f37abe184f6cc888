#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Disk limits on a real pool. They need root, Linux 6.7, loop devices and btrfs-progs.

use super::*;
use crate::id::ProjectId;
use crate::pool::testing::LoopPool;
use std::io::Write;

struct Counted {
    pool: LoopPool,
    project: ProjectId,
    container: ContainerId,
}

impl Counted {
    fn new(limit: Bytes) -> Self {
        let (pool, project, container) = (LoopPool::new(), ProjectId::generate(), ContainerId::generate());
        let store = pool.store();
        assert_eq!(SnapshotStore::uncounted(&store), None);
        SnapshotStore::limit_project(&store, &project, None).unwrap();
        SnapshotStore::limit_container(&store, &container, &project, Some(limit)).unwrap();
        store.create(&Volume::Live(container.clone())).unwrap();
        Counted { pool, project, container }
    }

    fn live(&self) -> Volume {
        Volume::Live(self.container.clone())
    }

    fn snapshot(&self, name: &str) -> Volume {
        Volume::Snapshot(self.container.clone(), name.parse().unwrap())
    }

    fn used(&self) -> Bytes {
        let store = self.pool.store();
        btrfs_uapi::filesystem::sync(store.mount()).unwrap();
        let (c, p) = (store.container_use(&self.container).unwrap().used, store.project_use(&self.project).unwrap().used);
        assert_eq!(c, p);
        c
    }
}

/// Writes until it is refused; the reason.
fn fill(path: &Path) -> Errno {
    let mut f = match std::fs::File::options().create(true).append(true).open(path) {
        Ok(f) => f,
        Err(e) => return Errno::from_raw(e.raw_os_error().unwrap()),
    };
    loop {
        if let Err(e) = f.write_all(&[0x5a; 1 << 18]).and_then(|()| f.sync_data()) {
            return Errno::from_raw(e.raw_os_error().unwrap());
        }
    }
}

#[test]
fn a_container_at_its_limit_is_refused_and_everything_of_ours_still_works() {
    let t = Counted::new(Bytes::mib(32));
    let store = t.pool.store();
    let at = store.path(&t.live()).unwrap();
    let inside = std::fs::File::open(&at).unwrap();
    subvolume::subvolume_create(inside.as_fd(), c"nested", &[]).unwrap();
    assert_eq!(fill(&at.join("f")), Errno::EDQUOT);
    assert_eq!(fill(&at.join("nested/f")), Errno::EDQUOT, "what is nested counts too");
    assert!(t.used() <= Bytes::mib(32) && t.used() > Bytes::mib(28), "{}", t.used());
    // A snapshot adds next to nothing, and is possible at the limit, nested volumes included; so is a restore.
    let op = OperationId::generate();
    store.snapshot(&t.live(), &t.snapshot("s"), &op).unwrap();
    store.clone_volume(&t.snapshot("s"), &Volume::Next(t.container.clone()), &op).unwrap();
    store.exchange(&t.live(), &Volume::Next(t.container.clone())).unwrap();
    store.seal(&Volume::Next(t.container.clone()), &t.snapshot("undo")).unwrap();
    assert!(t.used() < Bytes::mib(33), "{}", t.used());
    assert_eq!(fill(&at.join("g")), Errno::EDQUOT, "the restored volume has the limit too");
    // Deleting works at the limit, and what nobody refers to any more is free again.
    for v in [t.snapshot("undo"), t.snapshot("s")] {
        store.delete(&v).unwrap();
    }
    drop(inside);
    let gone = store.delete(&t.live()).unwrap();
    for id in gone.volumes {
        store.reclaimed(id, Duration::from_secs(20)).unwrap();
    }
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while t.used() > Bytes::mib(1) {
        assert!(std::time::Instant::now() < end, "{} are still counted", t.used());
        std::thread::sleep(Duration::from_millis(50));
    }
    // And nothing is left of its groups.
    let groups = || btrfs_uapi::quota::qgroup_list(store.mount()).unwrap().qgroups.iter().filter(|g| g.qgroupid >= 256).map(|g| g.qgroupid).collect::<Vec<_>>();
    assert!(!groups().is_empty());
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while !groups().is_empty() {
        SnapshotStore::drop_groups(&store, &[], &[]).unwrap();
        store.sync().unwrap();
        assert!(std::time::Instant::now() < end, "{:x?}", groups());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn limits_change_while_a_container_runs_and_a_project_has_one_too() {
    let t = Counted::new(Bytes::mib(16));
    let store = t.pool.store();
    let at = store.path(&t.live()).unwrap();
    assert_eq!(fill(&at.join("f")), Errno::EDQUOT);
    SnapshotStore::limit_container(&store, &t.container, &t.project, Some(Bytes::mib(32))).unwrap();
    assert_eq!(store.container_use(&t.container).unwrap().limit, Some(Bytes::mib(32)));
    assert_eq!(fill(&at.join("f")), Errno::EDQUOT);
    assert!(t.used() > Bytes::mib(28), "{}", t.used());
    SnapshotStore::limit_project(&store, &t.project, Some(Bytes::mib(48))).unwrap();
    SnapshotStore::limit_container(&store, &t.container, &t.project, None).unwrap();
    assert_eq!(store.container_use(&t.container).unwrap().limit, None);
    assert_eq!(fill(&at.join("f")), Errno::EDQUOT, "of the project");
    assert!(t.used() > Bytes::mib(44), "{}", t.used());
    // Databases count to the project alone.
    store.create(&Volume::Databases(t.project.clone())).unwrap();
    assert_eq!(fill(&store.path(&Volume::Databases(t.project.clone())).unwrap().join("f")), Errno::EDQUOT);
    std::fs::remove_file(at.join("f")).unwrap();
    btrfs_uapi::filesystem::sync(store.mount()).unwrap();
    std::fs::write(at.join("again"), vec![1; 8 << 20]).unwrap();
}

#[test]
fn a_container_at_its_limit_is_deleted_with_what_is_nested_in_it() {
    let t = Counted::new(Bytes::mib(16));
    let store = t.pool.store();
    let at = store.path(&t.live()).unwrap();
    let inside = std::fs::File::open(&at).unwrap();
    subvolume::subvolume_create(inside.as_fd(), c"nested", &[]).unwrap();
    drop(inside);
    assert_eq!(fill(&at.join("f")), Errno::EDQUOT);
    assert_eq!(fill(&at.join("g")), Errno::EDQUOT);
    let op = OperationId::generate();
    store.trash_home(&t.container, &op).unwrap();
    assert_eq!(store.empty_trash(&op, &mut |_, _| {}).unwrap().volumes.len(), 2);
    assert_eq!(store.container_use(&t.container).unwrap().limit, Some(Bytes::mib(16)), "the limit is back");
}
