#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Names of a snapshot that go into a volume in use: what is there afterwards, and after a crash.

mod nested;

use super::area::Area;
use super::{Options, Staged, settle};
use crate::error::{Code, Error, Result};
use crate::pool::testing::LoopPool;
use crate::snapshot::btrfs::random_trees::{Rng, change, free_all, same, tree};
use crate::tree::{Root, TreePath};
use btrfs_uapi::subvolume;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

const ID: &str = "0123456789abcdef0123456789abcdef";

/// A volume `live` and, once it is taken, its snapshot `snap`.
struct World {
    pool: LoopPool,
}

impl World {
    fn new() -> Self {
        let w = World { pool: LoopPool::new() };
        w.nest(&w.pool.root(), "live");
        w
    }

    fn nest(&self, dir: &Path, name: &str) -> PathBuf {
        subvolume::subvolume_create(File::open(dir).unwrap().as_fd(), &CString::new(name).unwrap(), &[]).unwrap();
        dir.join(name)
    }

    fn live(&self, path: impl AsRef<Path>) -> PathBuf {
        self.pool.root().join("live").join(path)
    }

    fn snap(&self, path: impl AsRef<Path>) -> PathBuf {
        self.pool.root().join("snap").join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.live(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.live(path)).ok()
    }

    fn take(&self) {
        let (pool, live) = (File::open(self.pool.root()).unwrap(), File::open(self.live("")).unwrap());
        subvolume::snapshot_create(pool.as_fd(), live.as_fd(), c"snap", true, &[]).unwrap();
    }

    fn root(&self, name: &str) -> Root {
        Root::new(File::open(self.pool.root().join(name)).unwrap().into())
    }

    /// Stages paths and lets `then` go on.
    fn staged<T>(&self, options: Options, paths: &[&str], then: impl FnOnce(&mut Staged<'_>, Vec<Result<usize>>) -> T) -> T {
        let pool = File::open(self.pool.root()).unwrap();
        let allow = |place: &TreePath| if place.as_bytes().starts_with(b"forbidden") { Err(Error::new(Code::NotInVolume, "no")) } else { Ok(()) };
        let go_on = || Ok(());
        let mut staged = Staged::begin(pool.as_fd(), (self.root("snap"), self.root("live")), ID, options, &allow, &go_on, Box::new(|| Ok(()))).unwrap();
        let results = paths.iter().map(|p| staged.stage(&TreePath::new(p.as_bytes()).unwrap())).collect();
        then(&mut staged, results)
    }

    fn restore(&self, options: Options, paths: &[&str]) -> Vec<Result<()>> {
        let done = self.staged(options, paths, |staged, results| results.into_iter().map(|n| staged.place(n?)).collect());
        self.settle();
        done
    }

    /// All paths are restored.
    fn restored(&self, options: Options, paths: &[&str]) {
        for (done, path) in self.restore(options, paths).into_iter().zip(paths) {
            done.unwrap_or_else(|e| panic!("{path}: {e:?}"));
        }
    }

    fn settle(&self) {
        let pool = File::open(self.pool.root()).unwrap();
        settle(pool.as_fd(), &self.root("live"), ID).unwrap();
        for path in tree(&self.live("")).keys() {
            assert!(!path.as_bytes().starts_with(b".hoody") && !path.to_string_lossy().contains("/.hoody"), "left over: {path:?}");
        }
    }
}

fn options() -> Options {
    Options::default()
}

fn delete_new() -> Options {
    Options { delete_new: true, ..options() }
}

fn inode(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).unwrap().ino()
}

#[test]
fn a_file_comes_back_and_nothing_else_changes() {
    let w = World::new();
    w.write("etc/hosts", "as it was");
    w.write("etc/other", "other");
    std::fs::set_permissions(w.live("etc/hosts"), std::fs::Permissions::from_mode(0o4711)).unwrap();
    w.take();
    w.write("etc/hosts", "ruined");
    w.write("etc/new", "new");
    std::fs::set_permissions(w.live("etc/hosts"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let open = File::open(w.live("etc/hosts")).unwrap();
    w.restored(options(), &["/etc/hosts"]);
    assert_eq!(std::fs::read_to_string(w.live("etc/hosts")).unwrap(), "as it was");
    assert_eq!(std::fs::metadata(w.live("etc/hosts")).unwrap().permissions().mode() & 0o7777, 0o4711);
    assert_eq!((w.read("etc/new").as_deref(), w.read("etc/other").as_deref()), (Some("new"), Some("other")));
    assert_eq!(std::io::read_to_string(open).unwrap(), "ruined", "what was open stays open");
}

#[test]
fn a_directory_takes_the_content_and_keeps_what_is_new() {
    let w = World::new();
    for name in ["d/same", "d/changed", "d/gone", "d/sub/gone", "d/file-then-dir", "d/dir-then-file/in", "d/link-target"] {
        w.write(name, "old");
    }
    std::os::unix::fs::symlink("old", w.live("d/link")).unwrap();
    std::fs::hard_link(w.live("d/changed"), w.live("d/sub/second")).unwrap();
    std::fs::set_permissions(w.live("d/sub"), std::fs::Permissions::from_mode(0o2750)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    w.take();
    let (directory, untouched) = (inode(&w.live("d/sub")), inode(&w.live("d/same")));
    w.write("d/changed", "new");
    w.write("d/new", "new");
    w.write("d/sub/new", "new");
    std::fs::set_permissions(w.live("d/sub"), std::fs::Permissions::from_mode(0o700)).unwrap();
    for gone in ["d/gone", "d/sub/gone", "d/file-then-dir", "d/link"] {
        std::fs::remove_file(w.live(gone)).unwrap();
    }
    std::fs::remove_dir_all(w.live("d/dir-then-file")).unwrap();
    w.write("d/file-then-dir/in/deep", "new");
    w.write("d/dir-then-file", "new");
    std::os::unix::fs::symlink("/etc", w.live("d/link")).unwrap();
    // Long before the snapshot was taken: what looks the same is the same.
    w.restored(Options { taken: i64::MAX, ..options() }, &["/d"]);
    let mut wanted = tree(&w.snap("d"));
    let mut now = tree(&w.live("d"));
    for kept in ["new", "sub/new"] {
        assert!(now.remove(std::ffi::OsStr::new(kept)).is_some(), "{kept} did not stay");
    }
    assert_eq!(now.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    // The number of its entries is not what a directory is compared by.
    for (path, said) in &mut wanted {
        assert_eq!(now.get(path), Some(&*said), "{path:?}");
    }
    assert_eq!(inode(&w.live("d/sub")), directory, "a directory stays the same one");
    assert_eq!(inode(&w.live("d/same")), untouched, "what did not change stays the same file");
    assert_eq!(inode(&w.live("d/changed")), inode(&w.live("d/sub/second")));
}

#[test]
fn without_new_names_a_directory_is_what_it_was() {
    let w = World::new();
    w.write("d/a", "old");
    w.write("d/sub/b", "old");
    w.write("e", "old");
    w.take();
    w.write("d/a", "new");
    w.write("d/new/new", "new");
    w.write("new/new", "new");
    w.write("new-file", "new");
    w.restored(delete_new(), &["/d", "/new", "/new-file"]);
    same(&w.live("d"), &w.snap("d"));
    assert!(!w.live("new").exists() && !w.live("new-file").exists());
    let e = w.restore(delete_new(), &["/nowhere"]).remove(0).unwrap_err();
    assert_eq!(e.code(), Code::FileNotFound);
    let e = w.restore(options(), &["/new"]).remove(0).unwrap_err();
    assert_eq!(e.code(), Code::FileNotFound);
}

#[test]
fn missing_directories_are_made_as_they_were() {
    let w = World::new();
    w.write("a/b/c/file", "old");
    w.write("a/b/c/other", "old");
    w.write("a/b/x", "old");
    std::fs::set_permissions(w.live("a/b"), std::fs::Permissions::from_mode(0o711)).unwrap();
    w.take();
    std::fs::remove_dir_all(w.live("a/b")).unwrap();
    w.restored(options(), &["/a/b/c/file"]);
    assert_eq!(w.read("a/b/c/file").as_deref(), Some("old"));
    let all = tree(&w.live("a/b"));
    let was = tree(&w.snap("a/b"));
    assert_eq!(all.len(), 3, "nothing but the path: {all:?}");
    for path in ["", "c", "c/file"] {
        assert_eq!(all.get(std::ffi::OsStr::new(path)), was.get(std::ffi::OsStr::new(path)), "{path}");
    }
    std::fs::remove_dir_all(w.live("a")).unwrap();
    w.restored(options(), &["/a/b/x", "/a/b/c"]);
    assert_eq!((w.read("a/b/x").is_some(), w.read("a/b/c/other").is_some()), (true, true));
}

#[test]
fn into_another_directory() {
    let w = World::new();
    w.write("etc/hosts", "old");
    w.write("etc/d/in", "old");
    w.take();
    w.write("etc/hosts", "new");
    w.write("was/d/kept", "kept");
    let to = |path: &str| Options { to: Some(TreePath::new(path.as_bytes()).unwrap()), ..options() };
    w.restored(to("/was"), &["/etc/hosts", "/etc/d"]);
    assert_eq!((w.read("was/hosts").as_deref(), w.read("etc/hosts").as_deref()), (Some("old"), Some("new")));
    assert_eq!((w.read("was/d/in").as_deref(), w.read("was/d/kept").as_deref()), (Some("old"), Some("kept")));
    for (dir, code) in [("/nowhere", Code::FileNotFound), ("/etc/hosts", Code::NotADirectory), ("/forbidden", Code::FileNotFound)] {
        assert_eq!(w.restore(to(dir), &["/etc/hosts"]).remove(0).unwrap_err().code(), code, "{dir}");
    }
}

#[test]
fn links_lead_nowhere_else() {
    let w = World::new();
    let outside = w.nest(&w.pool.root(), "outside");
    std::fs::write(outside.join("file"), "outside").unwrap();
    w.write("d/file", "old");
    w.write("real/file", "old");
    w.take();
    w.write("real/file", "new");
    std::fs::remove_dir_all(w.live("d")).unwrap();
    std::os::unix::fs::symlink(&outside, w.live("d")).unwrap();
    // The link leads to a place in the container, which does not exist there.
    assert_eq!(w.restore(options(), &["/d/file"]).remove(0).unwrap_err().code(), Code::NotADirectory);
    assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "outside");
    // The last name is taken as it is.
    w.restored(options(), &["/d"]);
    assert!(std::fs::symlink_metadata(w.live("d")).unwrap().is_dir());
    // Within the container a link is followed.
    std::os::unix::fs::symlink("/real", w.live("way")).unwrap();
    std::os::unix::fs::symlink("/forbidden", w.live("way-out")).unwrap();
    std::fs::create_dir(w.live("forbidden")).unwrap();
    let pool = File::open(w.pool.root()).unwrap();
    subvolume::subvolume_delete(pool.as_fd(), c"snap").unwrap();
    w.take();
    w.write("real/file", "newer");
    w.restored(options(), &["/way/file"]);
    assert_eq!(w.read("real/file").as_deref(), Some("new"));
    assert_eq!(
        w.restore(Options { to: Some(TreePath::new(b"way-out").unwrap()), ..options() }, &["/way/file"]).remove(0).unwrap_err().code(),
        Code::NotInVolume
    );
}

#[test]
fn a_directory_that_is_exchanged_for_a_link_meanwhile_leads_nowhere() {
    let w = World::new();
    w.write("d/file", "old");
    w.write("m/file", "old");
    w.take();
    w.write("d/file", "new");
    w.write("m/file", "new");
    let outside = w.nest(&w.pool.root(), "outside");
    std::fs::write(outside.join("file"), "outside").unwrap();
    let done = w.staged(options(), &["/d/file", "/m"], |staged, results| {
        for name in ["d", "m"] {
            std::fs::rename(w.live(name), w.live(format!("{name}-moved"))).unwrap();
            std::os::unix::fs::symlink(&outside, w.live(name)).unwrap();
        }
        results.into_iter().map(|n| staged.place(n.unwrap())).collect::<Vec<_>>()
    });
    w.settle();
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "outside");
    assert_eq!((w.read("d-moved/file").as_deref(), w.read("m-moved/file").as_deref()), (Some("old"), Some("old")));
}

#[test]
fn a_directory_that_vanishes_is_a_failure_of_its_path_alone() {
    let w = World::new();
    for name in ["a/file", "b/file", "m/file"] {
        w.write(name, "old");
    }
    w.take();
    for name in ["a/file", "b/file", "m/file"] {
        w.write(name, "new");
    }
    let done = w.staged(options(), &["/a/file", "/b/file", "/m"], |staged, results| {
        std::fs::remove_dir_all(w.live("a")).unwrap();
        std::fs::remove_dir_all(w.live("m")).unwrap();
        results.into_iter().map(|n| staged.place(n.unwrap())).collect::<Vec<_>>()
    });
    w.settle();
    assert_eq!(done[0].as_ref().unwrap_err().code(), Code::FileNotFound);
    assert_eq!(done[2].as_ref().unwrap_err().code(), Code::FileNotFound);
    assert!(done[1].is_ok());
    assert_eq!((w.read("a/file"), w.read("b/file").as_deref(), w.read("m/file")), (None, Some("old"), None));
}

#[test]
fn what_was_staged_and_not_placed_leaves_nothing() {
    let w = World::new();
    w.write("d/file", "old");
    w.write("file", "old");
    w.take();
    w.write("d/file", "new");
    w.write("file", "new");
    let before = tree(&w.live("d"));
    w.staged(options(), &["/file", "/d"], |_, results| assert!(results.iter().all(Result::is_ok)));
    w.settle();
    assert_eq!((w.read("file").as_deref(), tree(&w.live("d"))), (Some("new"), before));
    w.settle();
}

/// The steps of a merge, cut short after each of its renames: what is on the disk then is what a crash leaves.
#[test]
fn a_merge_that_has_begun_is_finished_after_a_crash() {
    let w = World::new();
    let volume = w.nest(&w.live(""), "nested");
    for name in ["d/a", "d/b", "d/sub/c", "d/dir/in"] {
        w.write(name, "old");
    }
    std::fs::write(volume.join("f"), "old").unwrap();
    w.take();
    // A snapshot has no nested volumes of its own here, so the nested one takes from a directory of the snapshot.
    for name in ["d/a", "d/b", "d/sub/c"] {
        w.write(name, "new");
    }
    std::fs::remove_dir_all(w.live("d/dir")).unwrap();
    w.write("d/dir", "a file by now");
    w.write("d/new", "kept");
    for placed in 0..3 {
        let pool = File::open(w.pool.root()).unwrap();
        w.staged(options(), &["/d"], |_, results| {
            assert!(results.iter().all(Result::is_ok));
            let area = w.live(format!(".hoody-restore-{ID}"));
            std::fs::rename(area.join("0"), area.join("begun-0")).unwrap();
            // So many names are placed already; an exchange, too.
            let steps: Vec<PathBuf> = std::fs::read_dir(area.join("begun-0")).unwrap().map(|e| e.unwrap().path()).collect();
            let step = steps.iter().find(|s| s.join("a").exists()).unwrap();
            if placed > 0 {
                std::fs::rename(step.join("a"), w.live("d/a")).unwrap();
            }
            if placed > 1 {
                let target = step.file_name().unwrap().to_str().unwrap().split('-').next().unwrap().to_owned();
                let aside = area.join("begun-0").join(format!("!{target}-{}", inode(&step.join("dir"))));
                std::fs::create_dir(&aside).unwrap();
                std::fs::rename(step.join("dir"), aside.join("dir")).unwrap();
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, aside.join("dir"), rustix::fs::CWD, w.live("d/dir"), exchange).unwrap();
            }
        });
        settle(pool.as_fd(), &w.root("live"), ID).unwrap();
        w.settle();
        for name in ["d/a", "d/b", "d/sub/c", "d/dir/in"] {
            assert_eq!(w.read(name).as_deref(), Some("old"), "{name}, {placed} placed");
        }
        assert_eq!(w.read("d/new").as_deref(), Some("kept"));
        w.write("d/a", "new");
        std::fs::remove_dir_all(w.live("d/dir")).unwrap();
        w.write("d/dir", "a file by now");
    }
}

#[test]
fn nested_subvolumes_of_the_container_are_restored_into() {
    let w = World::new();
    w.write("d/volume/in", "old");
    w.write("d/volume/sub/in", "old");
    w.write("d/file", "old");
    w.take();
    std::fs::remove_dir_all(w.live("d/volume")).unwrap();
    let volume = w.nest(&w.live("d"), "volume");
    std::fs::write(volume.join("in"), "new").unwrap();
    std::fs::write(volume.join("kept"), "kept").unwrap();
    w.restored(options(), &["/d"]);
    assert_eq!((w.read("d/volume/in").as_deref(), w.read("d/volume/sub/in").as_deref()), (Some("old"), Some("old")));
    assert_eq!((w.read("d/volume/kept").as_deref(), inode(&volume)), (Some("kept"), 256));
    std::fs::write(volume.join("in"), "new").unwrap();
    w.restored(options(), &["/d/volume/in"]);
    assert_eq!(w.read("d/volume/in").as_deref(), Some("old"));
    std::fs::write(volume.join("in"), "new").unwrap();
    // A crash finds what waits in the nested volume.
    w.staged(options(), &["/d/volume/in", "/d"], |_, results| assert!(results.iter().all(Result::is_ok)));
    w.settle();
    assert_eq!(w.read("d/volume/in").as_deref(), Some("new"));
    w.restored(delete_new(), &["/d"]);
    same(&w.live("d"), &w.snap("d"));
    let read_only = w.nest(&w.live("d"), "ro");
    std::fs::write(read_only.join("in"), "new").unwrap();
    subvolume::subvolume_flags_set(File::open(&read_only).unwrap().as_fd(), subvolume::SubvolumeFlags::RDONLY).unwrap();
    let to = Options { to: Some(TreePath::new(b"d/ro").unwrap()), ..options() };
    assert_eq!(w.restore(to, &["/d/file"]).remove(0).unwrap_err().code(), Code::VolumeReadOnly);
}

#[test]
fn names_of_any_bytes_and_all_at_once() {
    let w = World::new();
    let odd = OsString::from_vec(vec![b'n', 0xff, b'\n', b' ', b'%']);
    let long = OsString::from("x".repeat(255));
    for name in [&odd, &long, &OsString::from("new"), &OsString::from("old"), &OsString::from("!1-2")] {
        std::fs::write(w.live(name), "old").unwrap();
        std::fs::create_dir_all(w.live("d").join(name)).unwrap();
        std::fs::write(w.live("d").join(name).join(name), "old").unwrap();
    }
    w.take();
    for name in [&odd, &long, &OsString::from("new"), &OsString::from("old"), &OsString::from("!1-2")] {
        std::fs::write(w.live(name), "new").unwrap();
        std::fs::write(w.live("d").join(name).join(name), "new").unwrap();
    }
    let pool = File::open(w.pool.root()).unwrap();
    let (allow, go_on) = (|_: &TreePath| Ok(()), || Ok(()));
    let mut staged = Staged::begin(pool.as_fd(), (w.root("snap"), w.root("live")), ID, options(), &allow, &go_on, Box::new(|| Ok(()))).unwrap();
    let paths: Vec<TreePath> = [&odd, &long]
        .iter()
        .map(|n| TreePath::new(n.as_bytes()).unwrap())
        .chain([b"new" as &[u8], b"old", b"!1-2", b"d"].map(|n| TreePath::new(n).unwrap()))
        .collect();
    let numbers: Vec<usize> = paths.iter().map(|p| staged.stage(p).unwrap()).collect();
    numbers.into_iter().for_each(|n| staged.place(n).unwrap());
    drop(staged);
    w.settle();
    for (path, said) in tree(&w.snap("")) {
        if !path.is_empty() {
            assert_eq!(tree(&w.live("")).get(&path), Some(&said), "{path:?}");
        }
    }
}

#[test]
fn the_area_is_found_under_any_name_and_nothing_else_is_taken_for_it() {
    let w = World::new();
    w.write("file", "old");
    w.take();
    w.write("file", "new");
    let area = w.live(format!(".hoody-restore-{ID}"));
    w.staged(options(), &["/file"], |_, results| assert!(results.iter().all(Result::is_ok)));
    // The container's root renames it, and puts something of its own in its place.
    std::fs::rename(&area, w.live("hidden")).unwrap();
    std::fs::create_dir_all(area.join("precious")).unwrap();
    std::os::unix::fs::chown(&area, Some(100_000), Some(100_000)).unwrap();
    let pool = File::open(w.pool.root()).unwrap();
    settle(pool.as_fd(), &w.root("live"), ID).unwrap();
    assert!(!w.live("hidden").exists() && area.join("precious").exists());
    // Nor is a directory with another mark.
    std::fs::remove_dir_all(&area).unwrap();
    Area::make(File::open(w.live("")).unwrap().into(), "another").unwrap();
    settle(pool.as_fd(), &w.root("live"), ID).unwrap();
    assert!(w.live(".hoody-restore-another").exists());
    settle(pool.as_fd(), &w.root("live"), "another").unwrap();
    assert!(!w.live(".hoody-restore-another").exists());
}

#[test]
fn random_trees_are_restored() {
    let w = World::new();
    let trees: u64 = std::env::var("HOODY_TREES").ok().map_or(25, |n| n.parse().unwrap());
    for seed in 1..=trees {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        std::fs::create_dir(w.live("t")).unwrap();
        for _ in 0..60 {
            change(&mut rng, &w.live("t"));
        }
        free_all(&w.live("t"));
        w.take();
        for _ in 0..40 {
            change(&mut rng, &w.live("t"));
        }
        free_all(&w.live("t"));
        let before = tree(&w.live("t"));
        println!("seed {seed}");
        w.restored(options(), &["/t"]);
        let (wanted, now) = (tree(&w.snap("t")), tree(&w.live("t")));
        for (path, said) in &wanted {
            assert_eq!(now.get(path), Some(said), "seed {seed}: {path:?}");
        }
        for path in before.keys().filter(|p| !wanted.contains_key(*p)) {
            let in_the_way = path.to_string_lossy().contains('/') && !now.contains_key(path);
            let gone_with_its_directory =
                Path::new(path).ancestors().skip(1).any(|d| !d.as_os_str().is_empty() && wanted.get(d.as_os_str()).is_some_and(|s| !s.starts_with("4")));
            assert!(now.contains_key(path) || (in_the_way && gone_with_its_directory), "seed {seed}: {path:?} did not stay");
        }
        w.restored(delete_new(), &["/t"]);
        same(&w.live("t"), &w.snap("t"));
        std::fs::remove_dir_all(w.live("t")).unwrap();
        subvolume::subvolume_delete(File::open(w.pool.root()).unwrap().as_fd(), c"snap").unwrap();
    }
}
