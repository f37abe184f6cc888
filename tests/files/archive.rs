//! Directories as archives.

use crate::client::{Stage, head};
use crate::write::set_xattr;
use hoody_state::Caller;
use hoody_state::model::NewContainer;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::Command;

/// Everything that an archive keeps. Owners are those of the container.
fn furnish(s: &Stage) {
    let base = fs::metadata(&s.live).unwrap().uid();
    let at = s.live.join("srv/tree");
    fs::create_dir_all(at.join("sub/deep")).unwrap();
    fs::write(at.join("file"), "data").unwrap();
    set_xattr(&at.join("file"), "user.note", b"a=b\n\0c");
    let entry = |tag: u16, p: u16, id: u32| [tag.to_le_bytes().as_slice(), &p.to_le_bytes(), &id.to_le_bytes()].concat();
    let acl =
        [2u32.to_le_bytes().to_vec(), entry(1, 7, u32::MAX), entry(2, 6, base + 9), entry(4, 5, u32::MAX), entry(0x10, 7, u32::MAX), entry(0x20, 1, u32::MAX)]
            .concat();
    set_xattr(&at.join("sub"), "system.posix_acl_default", &acl);
    fs::hard_link(at.join("file"), at.join("sub/another name")).unwrap();
    for name in [b"new\nline".as_slice(), b"bytes-\xff", &[b'l'; 255]] {
        fs::write(at.join("sub/deep").join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::write(at.join("empty"), "").unwrap();
    let sparse = fs::File::create(at.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 1 << 20).unwrap();
    fs::write(at.join("block"), vec![3; 1024]).unwrap();
    let long = "../".repeat(60) + "somewhere";
    symlink(&long, at.join("long link")).unwrap();
    nix::unistd::mkfifo(&at.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    nix::sys::stat::mknod(&at.join("device"), nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::S_IRUSR, nix::sys::stat::makedev(1, 5)).unwrap();
    nix::sys::stat::mknod(&at.join("socket"), nix::sys::stat::SFlag::S_IFSOCK, nix::sys::stat::Mode::S_IRUSR, 0).unwrap();
    assert!(Command::new("chown").args(["-hR", &format!("{base}:{base}")]).arg(&at).status().unwrap().success());
    chown(at.join("file"), Some(base + 1000), Some(base + 1001)).unwrap();
    fs::set_permissions(at.join("file"), fs::Permissions::from_mode(0o4751)).unwrap();
    lchown(at.join("long link"), Some(base + 3), Some(base + 3)).unwrap();
    let old = std::time::UNIX_EPOCH - std::time::Duration::from_millis(1500);
    fs::File::open(at.join("empty")).unwrap().set_modified(old).unwrap();
}

fn xattr(file: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    let n = rustix::fs::getxattr(file, name, &mut value).ok()?;
    value.truncate(n);
    Some(value)
}

#[test]
fn gnu_tar_unpacks_what_was_packed() {
    let s = Stage::new("files-tar");
    furnish(&s);
    s.snapshot("one");
    // On a file system with extended attributes.
    let to = s.live.join("srv/unpacked");
    for (format, option) in [("tar", ""), ("tar.zst", "--zstd")] {
        let a = s.get("one", &format!("/srv/tree?archive={format}"));
        assert_eq!((a.status, a.complete), (200, true), "{}", a.text());
        assert_eq!(a.header("content-disposition"), format!("attachment; filename*=UTF-8''tree%2E{}", format.replace('.', "%2E")));
        let tar = s.real.dir.join("out.tar");
        fs::write(&tar, &a.body).unwrap();
        fs::create_dir(&to).unwrap();
        let mut command = Command::new("tar");
        command.args(["-x", "--numeric-owner", "-p", "--xattrs", "--xattrs-include=*", "-f"]).arg(&tar).arg("-C").arg(&to);
        if !option.is_empty() {
            command.arg(option);
        }
        let out = command.output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success() && said.lines().all(|l| l.contains("implausibly old time stamp")), "{said}");
        compare(&s.live.join("srv/tree"), &to, fs::metadata(&s.live).unwrap().uid());
        fs::remove_dir_all(&to).unwrap();
    }
    let a = s.get("one", "/srv/tree?archive=tar");
    assert!(String::from_utf8_lossy(&a.body).contains("left out: 1 sockets"), "what is left out is counted");
    assert_eq!(a.body, s.get("one", "/srv/tree?archive=tar").body, "the same snapshot gives the same bytes");
    assert_eq!(s.get("one", "/srv/tree?archive=zip").code(), "validation_error");
    assert_eq!(s.get("one", "/srv/tree/fifo?archive=tar").code(), "not_a_regular_file");
    assert_eq!(s.get("one", "/srv/nope?archive=tar").code(), "file_not_found");
    let h = s.request("HEAD", &s.url("one", "/srv/tree?archive=tar"), &[], b"");
    assert_eq!((h.status, h.header("content-type")), (200, "application/x-tar"));
    let one = s.get("live", "/srv/tree/file?archive=tar");
    assert!(one.body.starts_with(b"././@PaxHeader") && one.body.windows(5).any(|w| w == b"file\0"), "a single file has its name");
}

/// Compares trees whose owners differ by `base`, and sockets, which only the first may have.
fn compare(a: &Path, b: &Path, base: u32) {
    let names = |dir: &Path| {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap()).filter(|e| !e.file_type().unwrap().is_socket()).map(|e| e.file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(a), names(b), "{}", a.display());
    for name in names(a) {
        let (a, b) = (a.join(&name), b.join(&name));
        let (x, y) = (fs::symlink_metadata(&a).unwrap(), fs::symlink_metadata(&b).unwrap());
        let of = |m: &fs::Metadata, base: u32| (m.mode(), m.uid() - base, m.gid() - base, m.nlink(), m.rdev(), if m.is_dir() { 0 } else { m.size() });
        assert_eq!(of(&x, base), of(&y, 0), "{}", a.display());
        if !x.is_symlink() {
            assert_eq!((x.mtime(), x.mtime_nsec()), (y.mtime(), y.mtime_nsec()), "{}", a.display());
            assert_eq!(xattr(&a, "user.note"), xattr(&b, "user.note"));
            let acl = |p: &Path| xattr(p, "system.posix_acl_default").map(|v| u32::from_le_bytes(v[16..20].try_into().unwrap()));
            assert_eq!(acl(&a).map(|id| id - base), acl(&b), "{}", a.display());
        }
        if x.is_file() {
            assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
        } else if x.is_symlink() {
            assert_eq!(fs::read_link(&a).unwrap(), fs::read_link(&b).unwrap());
        } else if x.is_dir() {
            compare(&a, &b, base);
        }
    }
}

#[test]
fn an_archive_of_a_root_is_an_image() {
    let s = Stage::new("files-image");
    furnish(&s);
    s.snapshot("one");
    let host = s.real.host();
    let a = s.get("one", "?archive=tar.zst");
    assert!(a.complete);
    host.import_image(&Caller::default(), "again", &mut &a.body[..]).unwrap();
    let options = NewContainer { name: Some("copy".into()), container_image: Some("again".into()), ..Default::default() };
    let copy = host.create_container(&Caller::default(), &s.project, options).unwrap().id;
    let base = fs::metadata(&s.live).unwrap().uid();
    let (of, to) = (s.live.join("srv/tree"), s.real.live(&copy).join("srv/tree"));
    // Both owners are on the host here.
    let same = |name: &str| {
        let (x, y) = (fs::symlink_metadata(of.join(name)).unwrap(), fs::symlink_metadata(to.join(name)).unwrap());
        assert_eq!(
            (x.mode(), x.uid(), x.gid(), x.nlink(), x.mtime(), x.mtime_nsec()),
            (y.mode(), y.uid(), y.gid(), y.nlink(), y.mtime(), y.mtime_nsec()),
            "{name}"
        );
        assert!(x.uid() >= base);
    };
    for name in ["file", "sub", "sub/another name", "fifo", "device", "empty", "sparse"] {
        same(name);
    }
    assert_eq!(xattr(&of.join("file"), "user.note"), xattr(&to.join("file"), "user.note"));
    assert_eq!(xattr(&of.join("sub"), "system.posix_acl_default"), xattr(&to.join("sub"), "system.posix_acl_default"));
    assert_eq!(fs::read(of.join("sparse")).unwrap(), fs::read(to.join("sparse")).unwrap());
    assert_eq!(fs::read(of.join(OsStr::from_bytes(b"sub/deep/bytes-\xff"))).unwrap(), fs::read(to.join(OsStr::from_bytes(b"sub/deep/bytes-\xff"))).unwrap());
    assert_eq!(s.real.sh(&copy, "cat /srv/tree/file"), "data", "it boots");
}

#[test]
fn a_client_that_leaves_ends_the_work() {
    let s = Stage::new("files-tar-leave");
    fs::write(s.live.join("srv-large"), vec![7; 64 << 20]).unwrap();
    let used = || {
        let answer = s.request("GET", "/pool", &[], b"").data();
        answer["server"]["under_way"]["downloads"]["used"].as_u64().unwrap()
    };
    let mut stream = s.send("GET", &s.url("live", "?archive=tar"), &[], b"");
    assert_eq!(head(&mut stream).0, 200);
    let mut some = vec![0; 10_000];
    stream.read_exact(&mut some).unwrap();
    assert_eq!(used(), 1);
    drop(stream);
    let ended = (0..50).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        used() == 0
    });
    assert!(ended, "the archive is still being made");
    none_staged(&s);
}

/// The temporary snapshots of archives are deleted.
fn none_staged(s: &Stage) {
    let staging = s.real.config.run.join("pool/staging");
    let count = || fs::read_dir(&staging).map_or(0, |names| names.count());
    let gone = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        count() == 0
    });
    assert!(gone, "{} temporary snapshots are left", count());
    assert_eq!(s.real.host().snapshots(&s.id).unwrap().snapshot_count, 0, "and none was ever in the list");
}

#[test]
fn an_archive_of_the_present_state_has_every_file_once_while_they_are_renamed() {
    const FILES: usize = 600;
    let s = Stage::new("files-tar-renames");
    let at = s.live.join("srv/many");
    for d in ["a", "b"] {
        fs::create_dir_all(at.join(d)).unwrap();
    }
    for n in 0..FILES {
        fs::write(at.join(format!("a/{n}")), n.to_string()).unwrap();
    }
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut round = 0usize;
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                let (from, to) = if (round / FILES).is_multiple_of(2) { ("a", "b") } else { ("b", "a") };
                let n = round % FILES;
                fs::rename(at.join(format!("{from}/{n}")), at.join(format!("{to}/{n}"))).unwrap();
                round += 1;
            }
        });
        for round in 0..8 {
            let answer = s.get("live", "/srv/many?archive=tar");
            let file = s.real.dir.join("many.tar");
            fs::write(&file, &answer.body).unwrap();
            let list = Command::new("tar").arg("-tf").arg(&file).output().unwrap();
            let mut names: Vec<usize> =
                String::from_utf8(list.stdout).unwrap().lines().filter(|l| !l.ends_with('/')).map(|l| l.rsplit('/').next().unwrap().parse().unwrap()).collect();
            names.sort_unstable();
            if names != (0..FILES).collect::<Vec<_>>() {
                ended.store(true, std::sync::atomic::Ordering::Relaxed);
                panic!("archive {round} has {} of {FILES} files", names.len());
            }
        }
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    none_staged(&s);
}

#[test]
fn an_archive_of_a_deleted_snapshot_is_complete_or_cut() {
    let s = Stage::new("files-tar-deleted");
    furnish(&s);
    fs::write(s.live.join("aaa-large"), vec![7; 32 << 20]).unwrap();
    s.snapshot("one");
    for (path, always) in [("/srv/tree?archive=tar", true), ("?archive=tar", false)] {
        s.snapshot("two");
        let all = s.get("two", path).body;
        let mut stream = s.send("GET", &s.url("two", path), &[], b"");
        let (status, headers) = head(&mut stream);
        s.real.host().delete_snapshot(&Caller::default(), &s.id, "two").unwrap();
        let (body, complete) = crate::client::rest(&mut stream, "GET", status, &headers);
        // The kernel takes the names out of the root of a deleted subvolume: an archive that needs them is cut, and never short without that.
        assert!(if complete { body == all } else { !always && body.len() < all.len() }, "{path}: {} of {} bytes", body.len(), all.len());
    }
}
