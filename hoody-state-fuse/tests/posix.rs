//! An ordinary directory tree: the same operations, natively and mounted, with the same outcomes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use hoody_state_fuse::mount::{Mount, MountError, MountOptions};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, RenameFlags, SeekFrom};
use std::ffi::{OsStr, OsString};
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use support::{Mounted, both, is_mounted};

/// The outcome of each operation.
#[derive(Default)]
struct Diary(Vec<String>);

impl Diary {
    fn note<T: Debug, E: Into<std::io::Error>>(&mut self, what: &str, result: Result<T, E>) {
        let said = match result.map_err(Into::into) {
            Ok(v) => format!("{v:?}"),
            Err(e) => format!("errno {:?}", e.raw_os_error()),
        };
        self.0.push(format!("{what}: {said}"));
    }

    fn meta(&mut self, path: &Path) {
        let seen = fs::symlink_metadata(path).map(|m| (format!("{:o}", m.mode()), m.len(), m.nlink(), m.uid(), m.gid(), m.mtime(), m.rdev(), m.blocks()));
        self.note(&format!("meta {}", path.file_name().unwrap().display()), seen);
    }
}

fn run(dir: &Path, sh: &str, uid: u32, gid: u32) -> Result<(i32, String), std::io::Error> {
    let out = Command::new("/bin/sh").arg("-c").arg(sh).current_dir(dir).uid(uid).gid(gid).output()?;
    Ok((out.status.code().unwrap_or(-1), String::from_utf8_lossy(&out.stdout).into_owned()))
}

/// Does the same operations in a directory and notes the outcome of each.
fn tour(d: &Path) -> Vec<String> {
    let mut diary = Diary::default();
    for part in [files, links_and_renames, directories, names, attributes_and_special_files, extended_attributes, other_users, statfs] {
        part(d, &mut diary);
    }
    diary.0
}

fn files(d: &Path, n: &mut Diary) {
    let p = |s: &str| d.join(s);
    n.note("write", fs::write(p("a"), b"hello"));
    n.note("read", fs::read(p("a")));
    let f = OpenOptions::new().read(true).write(true).open(p("a")).unwrap();
    n.note("write at", f.write_at(b"far", 1 << 20));
    n.note("data", rustix::fs::seek(&f, SeekFrom::Data(8192)));
    n.note("hole", rustix::fs::seek(&f, SeekFrom::Hole(0)));
    n.note("no data", rustix::fs::seek(&f, SeekFrom::Data(2 << 20)));
    n.note("fallocate", rustix::fs::fallocate(&f, FallocateFlags::KEEP_SIZE, 2 << 20, 65536));
    n.note("punch", rustix::fs::fallocate(&f, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 4096));
    n.note("punched", fs::read(p("a")).map(|b| (b.len(), b.first().copied())));
    n.note("truncate", f.set_len(3));
    n.note("sync", f.sync_all());
    n.note("datasync", f.sync_data());
    drop(f);
    n.note("truncated", fs::read(p("a")));
    n.note("append", OpenOptions::new().append(true).open(p("a")).and_then(|mut f| f.write_all(b"++").and_then(|()| f.write_all(b"--"))));
    n.note("appended", fs::read(p("a")).map(|b| String::from_utf8_lossy(&b).into_owned()));
    n.note("copy", fs::copy(p("a"), p("copy")));
    n.note("read only", OpenOptions::new().read(true).open(p("a")).and_then(|f| f.write_at(b"x", 0)));
    n.note("exclusive", OpenOptions::new().write(true).create_new(true).open(p("a")).map(drop));
    n.note("no follow", {
        std::os::unix::fs::symlink("a", p("link")).unwrap();
        OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(p("link")).map(drop)
    });
    n.note("directory as file", OpenOptions::new().write(true).open(d).map(drop));
}

fn links_and_renames(d: &Path, n: &mut Diary) {
    let p = |s: &str| d.join(s);
    n.note("link", fs::hard_link(p("a"), p("b")));
    n.meta(&p("a"));
    n.note("same", Ok::<_, std::io::Error>(fs::metadata(p("a")).unwrap().ino() == fs::metadata(p("b")).unwrap().ino()));
    n.note("rename", fs::rename(p("b"), p("c")));
    n.note("gone", fs::metadata(p("b")).map(drop));
    let dirfd = File::open(d).unwrap();
    n.note("noreplace", rustix::fs::renameat_with(&dirfd, "a", &dirfd, "copy", RenameFlags::NOREPLACE));
    n.note("exchange", rustix::fs::renameat_with(&dirfd, "copy", &dirfd, "link", RenameFlags::EXCHANGE));
    n.note("exchanged", fs::read_link(p("copy")));
    n.note("unlink", fs::remove_file(p("c")));
    n.meta(&p("a"));
    let open = File::open(p("a")).unwrap();
    n.note("unlink open", fs::remove_file(p("a")));
    n.note("still there", {
        let mut s = String::new();
        (&open).read_to_string(&mut s).map(|_| s)
    });
    n.note("its links", open.metadata().map(|m| m.nlink()));
}

fn directories(d: &Path, n: &mut Diary) {
    let p = |s: &str| d.join(s);
    n.note("mkdir", fs::create_dir(p("dir")));
    n.note("mkdir again", fs::create_dir(p("dir")));
    n.note("inner", fs::write(p("dir/x"), b"1"));
    n.note("not empty", fs::remove_dir(p("dir")));
    n.note("not a directory", fs::read_dir(p("link")).map(drop));
    n.note("into itself", fs::rename(p("dir"), p("dir/sub")));
    n.note("rmdir", fs::remove_file(p("dir/x")).and_then(|()| fs::remove_dir(p("dir"))));
}

fn names(d: &Path, n: &mut Diary) {
    let long = OsString::from_vec(vec![b'n'; 255]);
    n.note("255 bytes", fs::write(d.join(&long), b"").and_then(|()| fs::remove_file(d.join(&long))));
    n.note("256 bytes", fs::write(d.join(OsString::from_vec(vec![b'n'; 256])), b""));
    n.note("not UTF-8", fs::write(d.join(OsStr::from_bytes(b"\xff\xfe\n")), b"z").and_then(|()| fs::read(d.join(OsStr::from_bytes(b"\xff\xfe\n")))));
}

fn attributes_and_special_files(d: &Path, n: &mut Diary) {
    let p = |s: &str| d.join(s);
    let dirfd = File::open(d).unwrap();
    fs::write(p("m"), b"").unwrap();
    for mode in [0o600, 0o4755, 0o2755, 0o1777] {
        n.note("chmod", fs::set_permissions(p("m"), fs::Permissions::from_mode(mode)));
        n.note("mode", fs::metadata(p("m")).map(|m| m.mode()));
    }
    n.note(
        "times",
        rustix::fs::utimensat(
            &dirfd,
            "m",
            &rustix::fs::Timestamps {
                last_access: rustix::fs::Timespec { tv_sec: 5, tv_nsec: 6 },
                last_modification: rustix::fs::Timespec { tv_sec: -3, tv_nsec: 7 },
            },
            AtFlags::empty(),
        ),
    );
    n.note("times seen", fs::metadata(p("m")).map(|m| (m.atime(), m.atime_nsec(), m.mtime(), m.mtime_nsec())));
    n.note("chown", std::os::unix::fs::chown(p("m"), Some(1000), Some(1001)));
    n.meta(&p("m"));
    n.note("fifo", rustix::fs::mknodat(&dirfd, "fifo", rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o640), 0));
    n.note("device", rustix::fs::mknodat(&dirfd, "null", rustix::fs::FileType::CharacterDevice, Mode::from_raw_mode(0o666), rustix::fs::makedev(1, 3)));
    n.meta(&p("null"));
}

fn extended_attributes(d: &Path, n: &mut Diary) {
    let p = |s: &str| d.join(s);
    n.note("setxattr", rustix::fs::setxattr(p("m"), "user.k", b"value", rustix::fs::XattrFlags::CREATE));
    n.note("again", rustix::fs::setxattr(p("m"), "user.k", b"value", rustix::fs::XattrFlags::CREATE));
    let mut small = [0; 2];
    n.note("small", rustix::fs::getxattr(p("m"), "user.k", &mut small[..]));
    n.note("size", rustix::fs::getxattr(p("m"), "user.k", &mut [0_u8; 0][..]));
    n.note("list", {
        let mut l = [0_u8; 100];
        rustix::fs::listxattr(p("m"), &mut l[..]).map(|k| l[..k].to_vec())
    });
    n.note("remove", rustix::fs::removexattr(p("m"), "user.k"));
    n.note("none", rustix::fs::getxattr(p("m"), "user.k", &mut [0_u8; 10][..]));
}

/// As other users: sticky directories, setgid, permissions, umask.
fn other_users(d: &Path, n: &mut Diary) {
    let p = |s: &str| d.join(s);
    fs::create_dir(p("sticky")).unwrap();
    fs::set_permissions(p("sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::create_dir(p("team")).unwrap();
    std::os::unix::fs::chown(p("team"), None, Some(4242)).unwrap();
    fs::set_permissions(p("team"), fs::Permissions::from_mode(0o2777)).unwrap();
    n.note("as 1000", run(&p("sticky"), "umask 027; echo x > f; mkdir k; stat -c '%a %u %g' f k", 1000, 1000));
    n.note("sticky", run(&p("sticky"), "rm -f f; mv f g; echo y > f; cat f; echo $?", 1001, 1001));
    n.note("setgid", run(&p("team"), "umask 022; echo x > f; mkdir k; ln -s f l; stat -c '%a %u %g' f k l", 1000, 1000));
    fs::write(p("secret"), b"s").unwrap();
    fs::set_permissions(p("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    n.note("secret", run(d, "cat secret; echo $?; chmod 777 secret; echo $?; echo > new; echo $?", 1000, 1000));
    fs::write(p("suid"), b"s").unwrap();
    fs::set_permissions(p("suid"), fs::Permissions::from_mode(0o6777)).unwrap();
    n.note("suid", run(d, "echo more >> suid; stat -c %a suid", 1000, 1000));
}

fn statfs(d: &Path, n: &mut Diary) {
    n.note("statfs", rustix::fs::statvfs(d).map(|s| (s.f_namemax, s.f_bsize)));
}

#[test]
fn the_same_operations_end_the_same_natively_and_mounted() {
    for options in both() {
        let m = Mounted::new(&options);
        let native = tempfile::tempdir().unwrap();
        fs::set_permissions(native.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(m.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (expected, got) = (tour(native.path()), tour(&m.at()));
        for (e, g) in expected.iter().zip(&got) {
            // Times of making differ; the directory's own are not compared.
            if e.starts_with("meta") && e != g {
                let without_time = |s: &str| s.split(", ").enumerate().filter(|(i, _)| *i != 5).map(|(_, v)| v.to_owned()).collect::<Vec<_>>();
                assert_eq!(without_time(e), without_time(g), "passthrough: {}", options.passthrough);
            } else {
                assert_eq!(e, g, "passthrough: {}", options.passthrough);
            }
        }
        assert_eq!(expected.len(), got.len());
    }
}

#[test]
fn an_unnamed_temporary_file_is_refused_as_on_file_systems_that_have_none() {
    let m = Mounted::new(&MountOptions::default());
    let made = rustix::fs::open(m.at(), OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR);
    assert_eq!(made.err(), Some(rustix::io::Errno::OPNOTSUPP), "`fuser` does not know FUSE_TMPFILE: programs fall back to a name");
}

#[test]
fn a_large_directory_is_listed_whole_and_once() {
    let m = Mounted::new(&MountOptions::default());
    for n in 0..20_000 {
        fs::write(m.back().join(format!("file-{n}")), b"").unwrap();
    }
    let mut names: Vec<_> = fs::read_dir(m.at()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 20_000);
}

#[test]
fn a_file_replaced_by_a_symlink_meanwhile_never_leads_out() {
    let m = Mounted::new(&MountOptions::default());
    let outside = m.dir.path().join("outside");
    fs::write(&outside, b"secret").unwrap();
    let at = m.at();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // Behind the mount's back, as nobody should: the worst there is.
                let _ = fs::remove_file(m.back().join("f"));
                let _ = fs::write(m.back().join("f"), b"inside");
                let _ = fs::remove_file(m.back().join("f"));
                let _ = std::os::unix::fs::symlink(&outside, m.back().join("f"));
            }
        });
        for _ in 0..2_000 {
            let flags = nix::libc::O_NOFOLLOW;
            if let Ok(mut f) = OpenOptions::new().read(true).custom_flags(flags).open(at.join("f")) {
                let mut text = String::new();
                let _ = f.read_to_string(&mut text);
                assert_ne!(text, "secret");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// Each name that was ever looked at kept a descriptor until there were no more, for anybody.
#[test]
fn more_names_than_there_are_descriptors_for_can_be_looked_at() {
    const MOST: usize = 100;
    let m = Mounted::new(&MountOptions { most_nodes: Some(MOST), ..MountOptions::default() });
    for i in 0..3000 {
        fs::write(m.back().join(i.to_string()), b"x").unwrap();
    }
    let open = File::open(m.at().join("7")).unwrap();
    for i in 0..3000 {
        assert_eq!(fs::metadata(m.at().join(i.to_string())).unwrap().len(), 1);
    }
    let began = std::time::Instant::now();
    while m.mount.nodes() > MOST {
        assert!(began.elapsed() < std::time::Duration::from_secs(10), "{} nodes are kept", m.mount.nodes());
        std::thread::sleep(std::time::Duration::from_millis(20));
        // Whoever looks next has more of them forgotten.
        let _ = fs::metadata(m.at().join(format!("{:?}", began.elapsed())));
    }
    assert_eq!(open.metadata().unwrap().len(), 1, "what is open is kept");
    fs::write(m.at().join("7"), b"new").unwrap();
    assert_eq!(open.metadata().unwrap().len(), 3);
}

#[test]
fn bad_places_are_refused_by_name() {
    let m = Mounted::new(&MountOptions::default());
    let o = MountOptions::default();
    let fails = |b: &Path, at: &Path| Mount::single(b, at, &o).unwrap_err();
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(fails(&m.back(), &m.at()), MountError::InUse(_)));
    assert!(matches!(fails(Path::new("/nonexistent"), empty.path()), MountError::Backing { .. }));
    assert!(matches!(fails(Path::new("/etc/passwd"), empty.path()), MountError::Backing { .. }));
    assert!(matches!(fails(empty.path(), Path::new("/nonexistent")), MountError::Mountpoint { .. }));
    fs::create_dir(empty.path().join("in")).unwrap();
    assert!(matches!(fails(empty.path(), &empty.path().join("in")), MountError::Nested { .. }));
    assert!(matches!(fails(&empty.path().join("in"), empty.path()), MountError::Nested { .. }));
}

#[test]
fn volumes_come_go_and_change_and_do_not_reach_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let p = |s: &str| dir.path().join(s);
    for s in ["a", "b", "a2", "mnt"] {
        fs::create_dir(p(s)).unwrap();
    }
    fs::write(p("a/one"), b"old").unwrap();
    fs::write(p("a2/one"), b"restored").unwrap();
    fs::write(p("a2/new"), b"n").unwrap();
    let mount = Mount::volumes(&p("mnt"), &MountOptions::default()).unwrap();
    assert!(fs::write(p("mnt/x"), b"").is_err(), "the root holds volumes only");
    mount.add_volume(OsStr::new("va"), &p("a")).unwrap();
    mount.add_volume(OsStr::new("vb"), &p("b")).unwrap();
    assert!(mount.add_volume(OsStr::new("va"), &p("b")).is_err());
    for bad in ["", "..", "x/y"] {
        assert!(mount.add_volume(OsStr::new(bad), &p("b")).is_err());
    }
    let mut names: Vec<_> = fs::read_dir(p("mnt")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["va", "vb"]);
    let code = |r: std::io::Result<()>| r.unwrap_err().raw_os_error();
    assert_eq!(code(fs::rename(p("mnt/va/one"), p("mnt/vb/one"))), Some(nix::libc::EXDEV));
    assert_eq!(code(fs::hard_link(p("mnt/va/one"), p("mnt/vb/one"))), Some(nix::libc::EXDEV));

    let open = File::open(p("mnt/va/one")).unwrap();
    assert!(!p("mnt/va/new").exists());
    mount.rebind(OsStr::new("va"), &p("a2")).unwrap();
    assert_eq!(fs::read(p("mnt/va/one")).unwrap(), b"restored");
    assert_eq!(fs::read(p("mnt/va/new")).unwrap(), b"n", "what was known to be absent is looked for again");
    let mut old = String::new();
    (&open).read_to_string(&mut old).unwrap();
    assert_eq!(old, "old", "what is open stays");
    fs::write(p("mnt/va/two"), b"2").unwrap();
    assert_eq!(fs::read(p("a2/two")).unwrap(), b"2");
    assert!(!p("a/two").exists());

    mount.remove_volume(OsStr::new("vb")).unwrap();
    assert!(!p("mnt/vb").exists());
    assert!(mount.remove_volume(OsStr::new("vb")).is_err());
    drop(open);
    mount.unmount().unwrap();
    assert!(!is_mounted(&p("mnt")));
}

/// `chattr` and `lsattr`, natively and mounted.
#[test]
fn flags_of_files_and_directories_are_kept_by_the_backing() {
    for options in both() {
        let m = Mounted::new(&options);
        fs::write(m.at().join("f"), b"x").unwrap();
        fs::write(m.at().join("data.db"), b"").unwrap();
        fs::create_dir(m.at().join("d")).unwrap();
        let list = |at: &Path, name: &str| {
            let out = Command::new("lsattr").arg("-d").arg(name).current_dir(at).output().expect("lsattr");
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap()
        };
        let change = |change: &str, name: &str| Command::new("chattr").args([change, name]).current_dir(m.at()).output().expect("chattr");
        for name in ["f", "data.db", "d"] {
            assert_eq!(list(&m.at(), name), list(&m.back(), name));
            let done = change("+dA", name);
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            let seen = list(&m.at(), name);
            let letters = seen.split(' ').next().unwrap();
            assert!(letters.contains('d') && letters.contains('A'), "{seen}");
            assert_eq!(seen, list(&m.back(), name));
        }
        assert!(change("+i", "f").status.success());
        assert_eq!(fs::remove_file(m.at().join("f")).unwrap_err().raw_os_error(), Some(nix::libc::EPERM));
        assert_eq!(OpenOptions::new().write(true).open(m.at().join("f")).unwrap_err().raw_os_error(), Some(nix::libc::EPERM));
        assert!(change("-i", "f").status.success());
        fs::write(m.at().join("f"), b"y").unwrap();
        // What would need rights in the backing's file system that only this daemon has.
        assert!(!change("+j", "f").status.success());
        let other = Command::new("chattr").args(["+d", "f"]).current_dir(m.at()).uid(12345).output().unwrap();
        assert!(!other.status.success(), "it is somebody else's file");
        assert_eq!(list(&m.at(), "f"), list(&m.back(), "f"));
    }
}
