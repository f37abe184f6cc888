#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! A copy is what its source is, whatever that holds; what is removed is gone, and nothing else.

use super::attributes::copy_attributes;
use super::copy::Copier;
use super::dir_id::names;
use super::place::{Place, Put};
use super::remove::remove;
use crate::error::{Code, Error, Result};
use crate::pool::testing::LoopPool;
use crate::snapshot::btrfs::random_trees::{Rng, change, data_of, free_all, same, tree};
use btrfs_uapi::subvolume;
use rustix::fs::{IFlags, XattrFlags};
use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Two subvolumes of one pool.
struct Two {
    pool: LoopPool,
}

impl Two {
    fn new() -> Self {
        let two = Two { pool: LoopPool::new() };
        for name in ["from", "to"] {
            two.nest(&two.pool.root(), name);
        }
        two
    }

    fn nest(&self, dir: &Path, name: &str) -> PathBuf {
        subvolume::subvolume_create(File::open(dir).unwrap().as_fd(), &CString::new(name).unwrap(), &[]).unwrap();
        dir.join(name)
    }

    fn from(&self, path: &str) -> PathBuf {
        self.pool.root().join("from").join(path)
    }

    fn to(&self, path: &str) -> PathBuf {
        self.pool.root().join("to").join(path)
    }

    /// Copies `name` of the one tree to `new` in the other.
    fn copy(&self, name: &str, new: &str) -> Result<()> {
        let go_on = || Ok(());
        let root = File::open(self.pool.root()).unwrap();
        self.copy_with(&mut Copier::new(root.as_fd(), &go_on), name, new)
    }

    fn copy_with(&self, copier: &mut Copier<'_>, name: &str, new: &str) -> Result<()> {
        let (from, to) = (File::open(self.from("")).unwrap(), File::open(self.to("")).unwrap());
        let (name, new) = (CString::new(name).unwrap(), CString::new(new).unwrap());
        copier.copy(Place::new(from.as_fd(), &name), Place::new(to.as_fd(), &new))
    }

    fn remove(&self, name: &str) -> Result<()> {
        let (root, to) = (File::open(self.pool.root()).unwrap(), File::open(self.to("")).unwrap());
        remove(root.as_fd(), Place::new(to.as_fd(), &CString::new(name).unwrap()))
    }
}

fn flags(path: &Path) -> IFlags {
    rustix::fs::ioctl_getflags(File::open(path).unwrap()).unwrap()
}

fn set_flags(path: &Path, flags: IFlags) {
    rustix::fs::ioctl_setflags(File::open(path).unwrap(), flags).unwrap();
}

/// The extents of a file: where each begins in the file and on the disk, and of which kind it is. How long is left out: what is reserved beyond the end of a
/// file is not copied.
fn extents(path: &Path) -> Vec<String> {
    let out = std::process::Command::new("filefrag").arg("-v").arg(path).output().expect("filefrag of e2fsprogs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let size = std::fs::metadata(path).unwrap().len();
    let shown = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let begin: u64 = words[1].trim_end_matches('.').parse().unwrap();
        let kind = words[words.len() - 1].replace("last,", "").replace(",eof", "");
        (begin * 4096 < size).then(|| format!("{begin} {} {kind}", words[3]))
    };
    let lines: Vec<String> = text.lines().filter(|l| l.contains("..")).filter_map(shown).collect();
    assert!(!lines.is_empty(), "{path:?}: {text}");
    lines
}

/// An access list: owner, the user 100,007, group, mask, others.
fn access_list() -> Vec<u8> {
    let entry = |tag: u16, rights: u16, id: u32| [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat();
    let all = [entry(1, 6, u32::MAX), entry(2, 4, 100_007), entry(4, 4, u32::MAX), entry(0x10, 6, u32::MAX), entry(0x20, 0, u32::MAX)];
    [2u32.to_le_bytes().to_vec(), all.concat()].concat()
}

#[test]
fn random_trees_are_copied_as_they_are() {
    let two = Two::new();
    std::fs::create_dir(two.from("tree")).unwrap();
    let trees: u64 = std::env::var("HOODY_TREES").ok().map_or(60, |n| n.parse().unwrap());
    for seed in 1..=trees {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let root = two.from("tree");
        for _ in 0..10 + rng.below(60) {
            change(&mut rng, &root);
        }
        // The copy leaves these two flags out, and the source cannot be changed with them.
        free_all(&root);
        // From a snapshot, whose data are all on the disk: where a file has data depends on what is still in memory.
        let (from, pool) = (File::open(two.from("")).unwrap(), File::open(two.pool.root()).unwrap());
        subvolume::snapshot_create(pool.as_fd(), from.as_fd(), c"sealed", true, &[]).unwrap();
        let sealed = File::open(two.pool.root().join("sealed")).unwrap();
        let to = File::open(two.to("")).unwrap();
        let go_on = || Ok(());
        let copied = Copier::new(pool.as_fd(), &go_on).copy(Place::new(sealed.as_fd(), c"tree"), Place::new(to.as_fd(), c"copy"));
        copied.unwrap_or_else(|e| panic!("seed {seed}: {e:?}"));
        println!("seed {seed}");
        let sealed = two.pool.root().join("sealed/tree");
        same(&two.to("copy"), &sealed);
        let (copied, wanted) = (data_of(&two.to("copy")), data_of(&sealed));
        for path in wanted.keys().filter(|p| copied.get(*p) != wanted.get(*p)) {
            // Where data follow directly on reserved space, the kernel takes the space for data in one file and not in another with the same extents.
            assert_eq!(extents(&two.to("copy").join(path)), extents(&sealed.join(path)), "seed {seed}: the holes of {path:?}");
        }
        two.remove("copy").unwrap();
        subvolume::subvolume_delete(pool.as_fd(), c"sealed").unwrap();
        assert_eq!(std::fs::read_dir(two.to("")).unwrap().count(), 0, "seed {seed}");
    }
}

#[test]
fn every_kind_of_file_keeps_what_it_is() {
    let two = Two::new();
    let at = |p: &str| two.from("t").join(p);
    std::fs::create_dir_all(at("dir/deep")).unwrap();
    std::fs::write(at("dir/file"), vec![5; 200_000]).unwrap();
    std::fs::hard_link(at("dir/file"), at("dir/deep/second")).unwrap();
    std::fs::write(two.from("t").join(OsString::from_vec(vec![b'n', 0xff, b'\n'])), b"no UTF-8").unwrap();
    std::fs::write(at(&"x".repeat(255)), b"").unwrap();
    let sparse = File::create(at("sparse")).unwrap();
    sparse.set_len(10 << 20).unwrap();
    sparse.write_all_at(b"far", 9 << 20).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", at("link")).unwrap();
    std::os::unix::fs::lchown(at("link"), Some(100_007), Some(100_008)).unwrap();
    rustix::fs::lsetxattr(at("link"), "trusted.of_a_link", b"kept", XattrFlags::empty()).unwrap();
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o622)).unwrap();
    let device = nix::sys::stat::makedev(300, 70_000);
    nix::sys::stat::mknod(&at("device"), nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::from_bits_truncate(0o666), device).unwrap();
    std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    std::os::unix::fs::chown(at("dir/file"), Some(100_001), Some(100_002)).unwrap();
    std::fs::set_permissions(at("dir/file"), std::fs::Permissions::from_mode(0o6751)).unwrap();
    std::fs::set_permissions(at("dir"), std::fs::Permissions::from_mode(0o3777)).unwrap();
    let capability = [0x01u8, 0, 0, 0x03, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa0, 0x86, 1, 0];
    for (path, name, value) in [
        ("dir", "user.note", &b"kept"[..]),
        ("dir/file", "trusted.overlay.origin", b"kept"),
        ("dir/file", "security.capability", &capability),
        ("sparse", "system.posix_acl_access", &access_list()),
        ("fifo", "system.posix_acl_access", &access_list()),
        ("dir", "system.posix_acl_default", &access_list()),
    ] {
        rustix::fs::setxattr(at(path), name, value, XattrFlags::empty()).unwrap_or_else(|e| panic!("{path} {name}: {e}"));
    }
    two.copy("t", "t").unwrap();
    same(&two.to("t"), &two.from("t"));
    assert_eq!(std::fs::metadata(two.to("t/dir/file")).unwrap().ino(), std::fs::metadata(two.to("t/dir/deep/second")).unwrap().ino());
    assert!(std::fs::metadata(two.to("t/sparse")).unwrap().blocks() < 64, "the hole is one there too");
    assert!(std::fs::symlink_metadata(two.to("t/fifo")).unwrap().file_type().is_fifo());
}

#[test]
fn files_without_copy_on_write_keep_it_and_share_their_data() {
    let two = Two::new();
    std::fs::create_dir(two.from("t")).unwrap();
    set_flags(&two.from("t"), IFlags::NOCOW);
    std::fs::write(two.from("t/inherits"), vec![7; 1 << 20]).unwrap();
    // A plain file in such a directory, and the other way round.
    std::fs::write(two.from("plain"), vec![8; 100_000]).unwrap();
    std::fs::rename(two.from("plain"), two.from("t/plain")).unwrap();
    set_flags(&two.to(""), IFlags::NOCOW);
    File::open(two.from("t/inherits")).unwrap().sync_all().unwrap();
    two.copy("t", "t").unwrap();
    same(&two.to("t"), &two.from("t"));
    for (name, wanted) in [("t", IFlags::NOCOW), ("t/inherits", IFlags::NOCOW), ("t/plain", IFlags::empty())] {
        assert_eq!((flags(&two.to(name)), flags(&two.from(name))), (wanted, wanted), "{name}");
    }
    assert_eq!(extents(&two.to("t/inherits")), extents(&two.from("t/inherits")));
}

#[test]
fn a_copy_inherits_nothing_from_where_it_is_put() {
    let two = Two::new();
    std::fs::create_dir(two.from("t")).unwrap();
    std::fs::write(two.from("t/file"), vec![1; 50_000]).unwrap();
    nix::unistd::mkfifo(&two.from("t/fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    for (name, value) in [("system.posix_acl_default", &access_list()[..]), ("btrfs.compression", b"zstd")] {
        rustix::fs::setxattr(two.to(""), name, value, XattrFlags::empty()).unwrap();
    }
    for name in ["t", "t/file", "t/fifo"] {
        two.copy(name, name.rsplit('/').next().unwrap()).unwrap();
    }
    same(&two.to("t"), &two.from("t"));
    for name in ["file", "fifo"] {
        std::fs::remove_file(two.to("t").join(name)).unwrap();
        std::fs::rename(two.to(name), two.to("t").join(name)).unwrap();
    }
    let from = File::open(two.from("")).unwrap();
    copy_attributes(Place::new(from.as_fd(), c"t"), Place::new(File::open(two.to("")).unwrap().as_fd(), c"t")).unwrap();
    same(&two.to("t"), &two.from("t"));
    assert_eq!(flags(&two.to("t/file")), IFlags::empty());
}

#[test]
fn nested_subvolumes_arrive_as_directories_and_are_removed_with_all_that_is_nested_in_them() {
    let two = Two::new();
    std::fs::create_dir(two.from("t")).unwrap();
    let nested = two.nest(&two.from("t"), "volume");
    let inner = two.nest(&nested, "inner");
    std::fs::write(inner.join("in"), "deep").unwrap();
    subvolume::subvolume_flags_set(File::open(&inner).unwrap().as_fd(), subvolume::SubvolumeFlags::RDONLY).unwrap();
    std::fs::write(nested.join("in"), "one").unwrap();
    std::fs::hard_link(nested.join("in"), nested.join("second")).unwrap();
    two.copy("t", "t").unwrap();
    assert_eq!(std::fs::read(two.to("t/volume/inner/in")).unwrap(), b"deep");
    let links = |p: &str| std::fs::metadata(two.to("t/volume").join(p)).unwrap();
    assert_eq!((links("in").ino(), links("in").nlink()), (links("second").ino(), 2));
    assert_ne!(links("").ino(), 256, "a plain directory");
    two.nest(&two.to("t/volume"), "more");
    let deep = two.nest(&two.to("t/volume/more"), "deeper");
    std::fs::write(deep.join("in"), "x").unwrap();
    subvolume::subvolume_flags_set(File::open(two.to("t/volume/more")).unwrap().as_fd(), subvolume::SubvolumeFlags::RDONLY).unwrap();
    two.remove("t").unwrap();
    assert_eq!(std::fs::read_dir(two.to("")).unwrap().count(), 0);
    two.remove("t").unwrap();
}

#[test]
fn names_copied_one_by_one_keep_their_links() {
    let two = Two::new();
    std::fs::write(two.from("a"), "linked").unwrap();
    std::fs::hard_link(two.from("a"), two.from("b")).unwrap();
    let root = File::open(two.pool.root()).unwrap();
    let go_on = || Ok(());
    let mut copier = Copier::new(root.as_fd(), &go_on);
    two.copy_with(&mut copier, "a", "a").unwrap();
    two.copy_with(&mut copier, "b", "b").unwrap();
    assert_eq!(std::fs::metadata(two.to("a")).unwrap().ino(), std::fs::metadata(two.to("b")).unwrap().ino());
    // What was moved away, or replaced, is no file to link to.
    std::fs::rename(two.to("a"), two.to("c")).unwrap();
    std::fs::write(two.to("a"), "another").unwrap();
    two.copy_with(&mut copier, "b", "d").unwrap();
    assert_eq!(std::fs::read_to_string(two.to("d")).unwrap(), "linked");
    assert_eq!(std::fs::read_to_string(two.to("a")).unwrap(), "another");
}

#[test]
fn attributes_alone_are_copied_to_what_is_there() {
    let two = Two::new();
    for (dir, text) in [(two.from(""), "the source"), (two.to(""), "the target, which is longer")] {
        std::fs::write(dir.join("file"), text).unwrap();
        std::fs::create_dir(dir.join("dir")).unwrap();
        std::fs::write(dir.join("dir/in"), text).unwrap();
        std::os::unix::fs::symlink(text, dir.join("link")).unwrap();
    }
    for name in ["file", "dir", "link"] {
        std::os::unix::fs::lchown(two.from(name), Some(100_003), Some(100_004)).unwrap();
        rustix::fs::lsetxattr(two.to(name), "trusted.goes", b"x", XattrFlags::empty()).unwrap();
        rustix::fs::lsetxattr(two.from(name), "trusted.comes", b"x", XattrFlags::empty()).unwrap();
    }
    std::fs::set_permissions(two.from("file"), std::fs::Permissions::from_mode(0o4711)).unwrap();
    set_flags(&two.from("dir"), IFlags::NODUMP);
    let (from, to) = (File::open(two.from("")).unwrap(), File::open(two.to("")).unwrap());
    let give = |a: &'static CStr, b: &'static CStr| copy_attributes(Place::new(from.as_fd(), a), Place::new(to.as_fd(), b));
    for name in [c"file", c"dir", c"link"] {
        give(name, name).unwrap();
    }
    let (a, b) = (tree(&two.from("")), tree(&two.to("")));
    let attributes = |said: &str| said.split(' ').take(5).map(str::to_owned).collect::<Vec<_>>();
    for name in ["file", "dir", "link"] {
        let (a, b) = (&a[std::ffi::OsStr::new(name)], &b[std::ffi::OsStr::new(name)]);
        assert_eq!(attributes(a), attributes(b), "{name}");
        assert_eq!(a.split('[').next_back(), b.split('[').next_back(), "{name}");
    }
    assert_eq!(flags(&two.to("dir")), IFlags::NODUMP);
    assert_eq!(std::fs::read_to_string(two.to("file")).unwrap(), "the target, which is longer");
    assert_eq!(give(c"file", c"dir").unwrap_err().code(), Code::NotARegularFile);
    assert_eq!(give(c"dir", c"link").unwrap_err().code(), Code::NotADirectory);
}

#[test]
fn depth_is_no_limit() {
    let two = Two::new();
    let mut at = File::open(two.from("")).unwrap();
    let name = c"a-directory-with-a-name-of-some-length-so-that-the-path-is-longer-than-the-kernel-takes";
    for _ in 0..400 {
        rustix::fs::mkdirat(&at, name, rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, name, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap().into();
    }
    rustix::fs::symlinkat("end", &at, "end").unwrap();
    two.copy(name.to_str().unwrap(), "deep").unwrap();
    let mut at = File::open(two.to("deep")).unwrap();
    for _ in 1..400 {
        at = rustix::fs::openat(&at, name, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap().into();
    }
    assert_eq!(rustix::fs::readlinkat(&at, "end", Vec::new()).unwrap().as_c_str(), c"end");
    two.remove("deep").unwrap();
    assert_eq!(std::fs::read_dir(two.to("")).unwrap().count(), 0);
}

#[test]
fn a_link_is_removed_and_not_followed() {
    let two = Two::new();
    std::fs::create_dir(two.from("kept")).unwrap();
    std::fs::write(two.from("kept/file"), "kept").unwrap();
    std::fs::create_dir(two.to("t")).unwrap();
    std::os::unix::fs::symlink(two.from("kept"), two.to("t/out")).unwrap();
    std::os::unix::fs::symlink(two.from("kept"), two.to("out")).unwrap();
    two.remove("t").unwrap();
    two.remove("out").unwrap();
    assert_eq!(std::fs::read_to_string(two.from("kept/file")).unwrap(), "kept");
}

#[test]
fn a_name_is_put_in_one_step_whatever_had_it_before() {
    let two = Two::new();
    let dir = File::open(two.to("")).unwrap();
    let place = |name: &'static CStr| Place::new(dir.as_fd(), name);
    let make = |name: &str, kind: &str| match kind {
        "nothing" => {}
        "file" => std::fs::write(two.to(name), name).unwrap(),
        "empty" => std::fs::create_dir(two.to(name)).unwrap(),
        "directory" => {
            std::fs::create_dir(two.to(name)).unwrap();
            std::fs::write(two.to(name).join("in"), name).unwrap();
        }
        "volume" => drop(two.nest(&two.to(""), name)),
        _ => std::os::unix::fs::symlink("nowhere", two.to(name)).unwrap(),
    };
    for new in ["file", "directory", "link"] {
        for old in ["nothing", "file", "empty", "directory", "link", "volume"] {
            make("new", new);
            make("old", old);
            let is = std::fs::symlink_metadata(two.to("new")).unwrap().ino();
            let put = place(c"new").put(place(c"old")).unwrap_or_else(|e| panic!("{new} over {old}: {e}"));
            assert_eq!(std::fs::symlink_metadata(two.to("old")).unwrap().ino(), is, "{new} over {old}");
            assert_eq!(place(c"new").stat().unwrap().is_some(), put == Put::Exchanged, "{new} over {old}");
            two.remove("new").unwrap();
            two.remove("old").unwrap();
        }
    }
    assert!(names(dir.as_fd()).unwrap().is_empty());
}

#[test]
fn a_copy_ends_when_it_is_told_to() {
    let two = Two::new();
    std::fs::create_dir(two.from("t")).unwrap();
    for n in 0..10 {
        std::fs::write(two.from("t").join(n.to_string()), "x").unwrap();
    }
    let left = std::cell::Cell::new(5);
    let go_on = || {
        left.set(left.get() - 1);
        if left.get() == 0 { Err(Error::new(Code::Cancelled, "enough")) } else { Ok(()) }
    };
    let root = File::open(two.pool.root()).unwrap();
    assert_eq!(two.copy_with(&mut Copier::new(root.as_fd(), &go_on), "t", "t").unwrap_err().code(), Code::Cancelled);
    assert!(!tree(&two.to("t")).is_empty());
    two.remove("t").unwrap();
    assert_eq!(std::fs::read_dir(two.to("")).unwrap().count(), 0);
}
