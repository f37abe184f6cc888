#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! The contract on a real BTRFS, and what only a hostile root inside a volume brings about.

use super::*;
use crate::pool::testing::LoopPool;
use crate::snapshot::suite::Harness;
use nix::sys::stat::mkdirat;
use std::ffi::CString;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;

pub(super) struct OnLoop {
    pub(super) store: BtrfsStore,
    pool: LoopPool,
}

impl OnLoop {
    pub(super) fn new() -> Self {
        let pool = LoopPool::new();
        OnLoop { store: pool.store(), pool }
    }

    pub(super) fn at(&self, v: &Volume, path: impl AsRef<Path>) -> PathBuf {
        self.store.path(v).unwrap().join(path)
    }

    pub(super) fn container(&self) -> (ContainerId, Volume) {
        let c = ContainerId::generate();
        self.store.create_home(&c).unwrap();
        let live = Volume::Live(c.clone());
        self.store.create(&live).unwrap();
        (c, live)
    }
}

impl Harness for OnLoop {
    fn store(&self) -> &dyn SnapshotStore {
        &self.store
    }
    fn write(&self, volume: &Volume, path: &str, data: &[u8]) -> Result<()> {
        std::fs::write(self.at(volume, path), data).io(|| "write")
    }
    fn read(&self, volume: &Volume, path: &str) -> Result<Option<Vec<u8>>> {
        match std::fs::read(self.at(volume, path)) {
            Ok(data) => Ok(Some(data)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", e)),
        }
    }
    fn remove(&self, volume: &Volume, path: &str) -> Result<()> {
        std::fs::remove_file(self.at(volume, path)).io(|| "remove")
    }
    fn nest(&self, volume: &Volume, name: &str, data: &[u8]) -> Result<bool> {
        let made = nest(&self.at(volume, name));
        std::fs::write(made.join("in"), data).io(|| "write")?;
        Ok(true)
    }
}

crate::snapshot_suite!(OnLoop::new());
crate::transfer_suite!(OnLoop::new());
crate::staged_files_suite!(OnLoop::new());

/// Ends a thread beside the test, even when the test panics.
pub(super) struct StopOnDrop<'a>(pub(super) &'a std::sync::atomic::AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

pub(super) fn op() -> OperationId {
    OperationId::generate()
}

pub(super) fn snap(c: &ContainerId, n: &str) -> Volume {
    Volume::Snapshot(c.clone(), n.parse().unwrap())
}

/// Makes a subvolume at a path, as a tool in the container would.
pub(super) fn nest(path: &Path) -> PathBuf {
    let dir = File::open(path.parent().unwrap()).unwrap();
    subvolume::subvolume_create(dir.as_fd(), &CString::new(path.file_name().unwrap().as_bytes()).unwrap(), &[]).unwrap();
    path.to_owned()
}

fn set_read_only(path: &Path, on: bool) {
    let flags = if on { SubvolumeFlags::RDONLY } else { SubvolumeFlags::empty() };
    subvolume::subvolume_flags_set(File::open(path).unwrap().as_fd(), flags).unwrap();
}

fn is_read_only(path: &Path) -> bool {
    subvolume::subvolume_flags_get(File::open(path).unwrap().as_fd()).unwrap().contains(SubvolumeFlags::RDONLY)
}

#[test]
fn nested_volumes_of_any_name_are_copied_and_deleted() {
    let h = OnLoop::new();
    let (c, live) = h.container();
    let names: Vec<OsString> = vec![
        "a\nb".into(),
        OsString::from_vec(vec![0xff, 0xfe, b'\\', b'1']),
        "x".repeat(255).into(),
        "..x".into(),
        " ".into(),
        "-rf".into(),
        "*".into(),
        OsString::from_vec((1..=255u8).filter(|b| *b != b'/').collect()),
    ];
    for n in &names {
        let made = nest(&h.at(&live, n));
        std::fs::write(made.join("in"), n.as_bytes()).unwrap();
        std::fs::create_dir(made.join("dir")).unwrap();
        let inner = nest(&made.join("dir").join(n));
        std::fs::write(inner.join("in"), b"deep").unwrap();
    }
    let info = h.store.snapshot(&live, &snap(&c, "s"), &op()).unwrap();
    assert_eq!(info.nested as usize, names.len() * 2);
    for n in &names {
        let n: &OsStr = n;
        assert_eq!(std::fs::read(h.at(&snap(&c, "s"), n).join("in")).unwrap(), n.as_bytes());
        assert_eq!(std::fs::read(h.at(&snap(&c, "s"), n).join("dir").join(n).join("in")).unwrap(), b"deep");
        assert!(is_read_only(&h.at(&snap(&c, "s"), n).join("dir").join(n)));
    }
    for v in [live, snap(&c, "s")] {
        assert_eq!(h.store.delete(&v).unwrap().volumes.len(), names.len() * 2 + 1);
    }
}

#[test]
fn nested_volumes_deeper_than_any_path_are_copied_and_deleted() {
    let h = OnLoop::new();
    let (c, live) = h.container();
    let name = CString::new("d".repeat(250)).unwrap();
    let mut at: OwnedFd = File::open(h.at(&live, "")).unwrap().into();
    for depth in 0..40 {
        if depth % 4 == 3 {
            subvolume::subvolume_create(at.as_fd(), &name, &[]).unwrap();
        } else {
            mkdirat(&at, name.as_c_str(), Mode::S_IRWXU).unwrap();
        }
        at = open_dir_at(&at, name.as_c_str()).unwrap();
    }
    drop(at);
    assert_eq!(h.store.snapshot(&live, &snap(&c, "s"), &op()).unwrap().nested, 10);
    assert_eq!(h.store.clone_volume(&snap(&c, "s"), &Volume::Next(c.clone()), &op()).unwrap().nested, 10);
    for v in [live, snap(&c, "s"), Volume::Next(c)] {
        assert_eq!(h.store.delete(&v).unwrap().volumes.len(), 11, "{v}");
    }
}

#[test]
fn a_nested_read_only_volume_stays_so_through_snapshot_and_restore() {
    let h = OnLoop::new();
    let (c, live) = h.container();
    let sealed = nest(&h.at(&live, "sealed"));
    std::fs::write(sealed.join("in"), b"x").unwrap();
    nest(&sealed.join("below"));
    nest(&h.at(&live, "open"));
    set_read_only(&sealed, true);
    let next = Volume::Next(c.clone());
    h.store.snapshot(&live, &snap(&c, "a"), &op()).unwrap();
    h.store.snapshot(&snap(&c, "a"), &snap(&c, "b"), &op()).unwrap();
    h.store.clone_volume(&snap(&c, "b"), &next, &op()).unwrap();
    assert!(is_read_only(&h.at(&snap(&c, "a"), "open")) && is_read_only(&h.at(&snap(&c, "b"), "sealed/below")));
    assert!(is_read_only(&h.at(&next, "sealed")));
    assert!(!is_read_only(&h.at(&next, "open")) && !is_read_only(&h.at(&next, "sealed/below")) && !is_read_only(&h.at(&next, "")));
    // Made writable by its owner: the next copies follow.
    set_read_only(&h.at(&next, "sealed"), false);
    h.store.snapshot(&next, &snap(&c, "c"), &op()).unwrap();
    h.store.delete(&next).unwrap();
    h.store.clone_volume(&snap(&c, "c"), &next, &op()).unwrap();
    assert!(!is_read_only(&h.at(&next, "sealed")));
    for (v, n) in [(live, 4), (snap(&c, "a"), 4), (next, 4)] {
        assert_eq!(h.store.delete(&v).unwrap().volumes.len(), n);
    }
}

#[test]
fn seal_makes_nested_volumes_read_only_and_remembers() {
    let h = OnLoop::new();
    let staging = Volume::Staging(op());
    let image = Volume::Image("x".parse().unwrap());
    h.store.create(&staging).unwrap();
    nest(&h.at(&staging, "open"));
    nest(&h.at(&staging, "sealed"));
    set_read_only(&h.at(&staging, "sealed"), true);
    assert_eq!(h.store.seal(&staging, &image).unwrap().nested, 2);
    assert!(is_read_only(&h.at(&image, "open")) && is_read_only(&h.at(&image, "sealed")));
    let live = Volume::Live(ContainerId::generate());
    h.store.clone_volume(&image, &live, &op()).unwrap();
    assert!(!is_read_only(&h.at(&live, "open")) && is_read_only(&h.at(&live, "sealed")));
    assert_eq!(h.store.list(None).unwrap(), [image, live]);
}

#[test]
fn links_swapped_meanwhile_lead_nowhere() {
    let h = OnLoop::new();
    let (c, live) = h.container();
    let (_, victim) = h.container();
    std::fs::create_dir(h.at(&victim, "dir")).unwrap();
    let precious = nest(&h.at(&victim, "dir/n"));
    std::fs::write(precious.join("in"), b"precious").unwrap();
    std::fs::create_dir(h.at(&live, "dir")).unwrap();
    nest(&h.at(&live, "dir/n"));
    std::os::unix::fs::symlink(h.at(&victim, "dir"), h.at(&live, "link")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        let attacker = threads.spawn(|| {
            let (a, b) = (h.at(&live, "dir"), h.at(&live, "link"));
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                renameat2(nix::fcntl::AT_FDCWD, &a, nix::fcntl::AT_FDCWD, &b, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        let end = StopOnDrop(&stop);
        for i in 0..20 {
            let s = snap(&c, &format!("s{i}"));
            assert_eq!(h.store.snapshot(&live, &s, &op()).unwrap().nested, 1);
            assert_eq!(h.store.delete(&s).unwrap().volumes.len(), 2);
        }
        drop(end);
        attacker.join().unwrap();
    });
    h.store.delete(&live).unwrap();
    assert_eq!(std::fs::read(precious.join("in")).unwrap(), b"precious");
}

#[test]
fn volumes_made_and_removed_meanwhile_do_no_harm() {
    let h = OnLoop::new();
    let (c, live) = h.container();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        let attacker = threads.spawn(|| {
            let dir = File::open(h.at(&live, "")).unwrap();
            let mut i = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let name = CString::new(format!("n{}", i % 7)).unwrap();
                if subvolume::subvolume_create(dir.as_fd(), &name, &[]).is_err() {
                    let _ = subvolume::subvolume_delete(dir.as_fd(), &name);
                }
                i += 1;
            }
        });
        let end = StopOnDrop(&stop);
        for i in 0..30 {
            let s = snap(&c, &format!("s{i}"));
            let info = h.store.snapshot(&live, &s, &op()).unwrap();
            assert!(info.read_only);
            h.store.delete(&s).unwrap();
            assert_eq!(h.store.info(&s).unwrap(), None);
        }
        drop(end);
        attacker.join().unwrap();
    });
    assert_eq!(h.store.list(None).unwrap(), std::slice::from_ref(&live));
    h.store.delete(&live).unwrap();
}

#[test]
fn a_copy_cut_short_is_found_under_its_staging_name() {
    let h = OnLoop::new();
    let (c, live) = h.container();
    nest(&h.at(&live, "n"));
    let o = op();
    let target = snap(&c, "s");
    // What `copy_with_nested` has done when it dies before its last rename.
    let hidden = nested::Hidden::announce(&h.store, &target, &o).unwrap();
    let place = h.store.place_for(&target).unwrap();
    let source = h.store.existing(&live).unwrap();
    nested::copy_tree(h.store.mount(), source.as_fd(), place.dir.as_fd(), hidden.name(), nested::Copy { read_only: true, from_sealed: false }).unwrap();
    drop(hidden);
    assert_eq!(h.store.info(&target).unwrap(), None);
    assert_eq!(h.store.list(None).unwrap(), [live.clone(), Volume::Staging(o.clone())]);
    assert_eq!(h.store.delete(&Volume::Staging(o.clone())).unwrap().volumes.len(), 2);
    assert_eq!(h.store.list(None).unwrap(), std::slice::from_ref(&live));
    // And the operation may simply be done again over what it left.
    let _ = nested::Hidden::announce(&h.store, &target, &o).unwrap();
    nested::copy_tree(
        h.store.mount(),
        source.as_fd(),
        place.dir.as_fd(),
        CString::new(format!("~{o}")).unwrap().as_c_str(),
        nested::Copy { read_only: true, from_sealed: false },
    )
    .unwrap();
    assert_eq!(h.store.snapshot(&live, &target, &o).unwrap().nested, 1);
    assert_eq!(h.store.list(None).unwrap(), [live, target]);
}

#[test]
fn a_home_with_nested_and_half_made_volumes_leaves_nothing() {
    let h = OnLoop::new();
    let (c, live) = h.container();
    let sealed = nest(&h.at(&live, "sealed"));
    nest(&sealed.join("below"));
    set_read_only(&sealed, true);
    h.store.snapshot(&live, &snap(&c, "s"), &op()).unwrap();
    nest(&h.pool.root().join(format!("containers/{c}/snapshots/~{}", op())));
    std::fs::write(h.pool.root().join(format!("containers/{c}/stray")), b"x").unwrap();
    let o = op();
    h.store.trash_home(&c, &o).unwrap();
    let mut last = (0, 0);
    assert_eq!(h.store.empty_trash(&o, &mut |d, t| last = (d, t)).unwrap().volumes.len(), 7);
    assert_eq!(last, (3, 3));
    assert_eq!(std::fs::read_dir(h.pool.root().join("trash")).unwrap().count(), 0);
}

#[test]
fn a_root_that_made_itself_read_only_can_still_be_exchanged() {
    let h = OnLoop::new();
    let (c, live) = h.container();
    let next = Volume::Next(c);
    h.store.create(&next).unwrap();
    set_read_only(&h.at(&live, ""), true);
    h.store.exchange(&live, &next).unwrap();
}

#[test]
fn what_is_in_the_way_is_not_taken_for_a_volume() {
    let h = OnLoop::new();
    let (c, live) = h.container();
    std::fs::create_dir(h.at(&snap(&c, "dir"), "")).unwrap();
    std::os::unix::fs::symlink(h.at(&live, ""), h.at(&snap(&c, "link"), "").with_file_name("link")).unwrap();
    assert_eq!(h.store.info(&snap(&c, "dir")).unwrap_err().code(), Code::NotAVolume);
    assert!(h.store.info(&snap(&c, "link")).is_err());
    assert_eq!(h.store.list(Some(&c)).unwrap(), [live]);
    assert_eq!(BtrfsStore::open(Path::new("/proc")).unwrap_err().code(), Code::PoolForeign);
}

#[test]
fn delta_sees_holes_reflinks_and_overwrites() {
    let h = OnLoop::new();
    let (c, live) = h.container();
    std::fs::write(h.at(&live, "f"), vec![1; 4 << 20]).unwrap();
    let since = h.store.snapshot(&live, &snap(&c, "a"), &op()).unwrap().created;
    // A sparse file has only what was written; a middle part overwritten counts alone.
    let sparse = File::create(h.at(&live, "sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    let f = File::options().write(true).open(h.at(&live, "f")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&f, &[2; 8192], 1 << 20).unwrap();
    assert_eq!(h.store.delta(&live, Some(since)).unwrap(), Bytes(8192));
    // A reflink of new data adds nothing.
    std::fs::write(h.at(&live, "new"), vec![3; 1 << 20]).unwrap();
    let (from, to) = (File::open(h.at(&live, "new")).unwrap(), File::create(h.at(&live, "copy")).unwrap());
    from.sync_all().unwrap();
    btrfs_uapi::reflink::clone_range(from.as_fd(), 0, 1 << 20, to.as_fd(), 0).unwrap();
    assert_eq!(h.store.delta(&live, Some(since)).unwrap(), Bytes(8192 + (1 << 20)));
    // Nested volumes count.
    nest(&h.at(&live, "n"));
    std::fs::write(h.at(&live, "n/x"), vec![4; 1 << 20]).unwrap();
    assert_eq!(h.store.delta(&live, Some(since)).unwrap(), Bytes(8192 + (2 << 20)));
}
