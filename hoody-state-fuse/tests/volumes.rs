//! What happens to those who have something open when a volume is exchanged or removed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use hoody_state_fuse::mount::{Mount, MountOptions};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::daemon::held_by;

/// A mount with one volume, `v`, on the directory `a`; `b` is another directory.
struct Volumes {
    mount: Mount,
    dir: tempfile::TempDir,
}

impl Volumes {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for d in ["a", "b", "mnt"] {
            fs::create_dir(dir.path().join(d)).unwrap();
        }
        let mount = Mount::volumes(&dir.path().join("mnt"), &MountOptions::default()).expect("mounting needs root and /dev/fuse");
        mount.add_volume(OsStr::new("v"), &dir.path().join("a")).unwrap();
        Volumes { mount, dir }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn rebind(&self, to: &str) {
        self.mount.rebind(OsStr::new("v"), &self.at(to)).unwrap();
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        self.mount.unmount().unwrap();
    }
}

/// A process that has the whole of a file locked until it is killed.
fn locker(path: &Path) -> Child {
    let code = "import fcntl,sys,time\nf=open(sys.argv[1],'r+')\nfcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB)\nprint('held',flush=True)\ntime.sleep(60)";
    held_by(code, path)
}

/// Whether another process can lock the file now.
fn can_lock(path: &Path) -> bool {
    let code = "import fcntl,sys\nfcntl.lockf(open(sys.argv[1],'r+'),fcntl.LOCK_EX|fcntl.LOCK_NB)";
    Command::new("python3").arg("-c").arg(code).arg(path).stderr(Stdio::null()).status().unwrap().success()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Locks were dropped with a rebind, and an inode met again by another backing was another file to the broker: two held the same bytes.
#[test]
fn a_rebind_takes_no_lock_away_from_who_has_the_file_open() {
    let v = Volumes::new();
    fs::write(v.at("a/data"), b"x").unwrap();
    let holder = locker(&v.at("mnt/v/data"));
    v.rebind("b");
    v.rebind("a");
    assert!(!can_lock(&v.at("mnt/v/data")), "it is locked still");
    end(holder);
    assert!(can_lock(&v.at("mnt/v/data")));
}

#[test]
fn a_volume_that_is_removed_and_shown_again_is_locked_still() {
    let v = Volumes::new();
    fs::write(v.at("a/data"), b"x").unwrap();
    let holder = locker(&v.at("mnt/v/data"));
    v.mount.remove_volume(OsStr::new("v")).unwrap();
    v.mount.add_volume(OsStr::new("w"), &v.at("a")).unwrap();
    assert!(!can_lock(&v.at("mnt/w/data")));
    end(holder);
    assert!(can_lock(&v.at("mnt/w/data")));
}

/// Nodes went with their volume while the kernel still knew them, and their numbers came to stand for files of the next.
#[test]
fn what_the_kernel_remembers_of_a_removed_volume_leads_nowhere() {
    let v = Volumes::new();
    fs::create_dir(v.at("a/sub")).unwrap();
    fs::write(v.at("a/sub/secret"), b"of the next").unwrap();
    let old = rustix::fs::open(v.at("mnt/v/sub"), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    v.mount.remove_volume(OsStr::new("v")).unwrap();
    v.mount.add_volume(OsStr::new("w"), &v.at("a")).unwrap();
    assert_eq!(fs::read(v.at("mnt/w/sub/secret")).unwrap(), b"of the next");
    let (before, now) = (rustix::fs::fstat(&old).unwrap().st_ino, rustix::fs::stat(v.at("mnt/w/sub")).unwrap().st_ino);
    assert_ne!(before, now, "a number stands for one file while somebody knows it");
    let through_the_old = rustix::fs::openat(&old, "secret", OFlags::RDONLY, Mode::empty());
    assert_eq!(through_the_old.map(drop), Err(Errno::STALE));
}

/// Attributes were asked of the name, not of what is open: SQLite met an I/O error.
#[test]
fn what_is_open_can_be_looked_at_and_changed_after_a_rebind_and_a_removal() {
    let v = Volumes::new();
    let open = File::options().read(true).write(true).create_new(true).open(v.at("mnt/v/x.db")).unwrap();
    open.set_len(5).unwrap();
    let works = |len: u64, mode: u32| {
        open.set_len(len).unwrap();
        open.set_permissions(fs::Permissions::from_mode(mode)).unwrap();
        let meta = open.metadata().unwrap();
        assert_eq!((meta.len(), meta.permissions().mode() & 0o777), (len, mode));
        open.sync_all().unwrap();
    };
    works(6, 0o600);
    v.rebind("b");
    works(7, 0o640);
    assert!(!v.at("mnt/v/x.db").exists());
    v.mount.remove_volume(OsStr::new("v")).unwrap();
    works(8, 0o644);
    assert_eq!(fs::metadata(v.at("a/x.db")).unwrap().len(), 8, "it is the very file");
}

/// A volume's root kept the first directory open for ever: what a restore replaced took its space until the daemon ended.
#[test]
fn what_a_rebind_replaced_is_not_kept_open() {
    let v = Volumes::new();
    fs::create_dir(v.at("a/sub")).unwrap();
    fs::write(v.at("a/sub/data"), b"x").unwrap();
    assert_eq!(fs::read(v.at("mnt/v/sub/data")).unwrap(), b"x");
    let used = File::open(v.at("mnt/v/sub/data")).unwrap();
    let open = |name: &str| {
        let of = v.at(name).canonicalize().unwrap();
        let links = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|e| fs::read_link(e.path()).ok());
        links.filter(|to| to.starts_with(&of)).collect::<Vec<_>>()
    };
    let soon = |name: &str, what: &str| {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !open(name).is_empty() {
            assert!(std::time::Instant::now() < end, "{what}: {:?} open", open(name));
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    v.rebind("b");
    assert!(!open("a").is_empty(), "somebody has a file of it open");
    drop(used);
    soon("a", "replaced by a rebind");
    fs::write(v.at("mnt/v/new"), b"x").unwrap();
    v.rebind("a");
    soon("b", "replaced by a second");
    v.mount.remove_volume(OsStr::new("v")).unwrap();
    soon("a", "removed");
}
