//! A tree as GNU tar writes it, in each of its formats, comes out as it was.

use super::*;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

type Attributes = Vec<(String, Vec<u8>)>;

/// Everything of an entry that an import keeps; owners as the container sees them.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    uid: u32,
    gid: u32,
    rdev: u64,
    nlink: u64,
    size: u64,
    mtime: (i64, i64),
    content: Vec<u8>,
    xattrs: Attributes,
}

fn xattrs(path: &Path) -> Attributes {
    let mut names = vec![0u8; 4096];
    let n = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let mut out: Attributes = names[..n]
        .split(|b| *b == 0)
        .filter(|n| !n.is_empty())
        .map(|name| {
            let mut value = vec![0u8; 4096];
            let n = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(n);
            (String::from_utf8_lossy(name).into_owned(), value)
        })
        .filter(|(n, _)| n.starts_with("user."))
        .collect();
    out.sort();
    out
}

fn seen(root: &Path, base: u32, whole_times: bool) -> BTreeMap<String, Seen> {
    listing(root)
        .into_iter()
        .map(|name| {
            let path = root.join(&name);
            let m = std::fs::symlink_metadata(&path).unwrap();
            let content = if m.is_file() {
                std::fs::read(&path).unwrap()
            } else if m.is_symlink() {
                std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                vec![]
            };
            let size = if m.is_dir() { 0 } else { m.size() };
            let nlink = if m.is_dir() { 0 } else { m.nlink() };
            let nanos = if whole_times { 0 } else { m.mtime_nsec() };
            let seen = Seen {
                mode: m.mode(),
                uid: m.uid() - base,
                gid: m.gid() - base,
                rdev: m.rdev(),
                nlink,
                size,
                mtime: (m.mtime(), nanos),
                content,
                xattrs: if m.is_symlink() { vec![] } else { xattrs(&path) },
            };
            (name, seen)
        })
        .collect()
}

fn make_source(root: &Path) {
    let long = format!("usr/share/{}/{}", "long-directory-name".repeat(6), "long-file-name".repeat(12));
    for dir in [
        "bin",
        "etc/deep/er",
        "usr/lib",
        "var/empty",
        "proc",
        "sys",
        "dev",
        "tmp",
        "run",
        "root",
        "hoody/storage",
        "hoody/databases",
        "hoody/shares",
        "hoody/snapshots",
        "ramdisk",
    ] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::fs::create_dir_all(root.join(&long).parent().unwrap()).unwrap();
    let files: [(&str, &[u8]); 6] = [
        ("bin/sh", b"#!"),
        ("etc/hosts", b"127.0.0.1\n"),
        ("usr/lib/ünïcode name\n.so", b"x"),
        ("empty", b""),
        (&long, b"deep"),
        ("etc/deep/er/512", &[7; 512]),
    ];
    for (name, data) in files {
        std::fs::write(root.join(name), data).unwrap();
    }
    let chmod = |p: &str, m: u32| std::fs::set_permissions(root.join(p), std::fs::Permissions::from_mode(m)).unwrap();
    std::os::unix::fs::chown(root.join("etc/hosts"), Some(1000), Some(65_534)).unwrap();
    chmod("bin/sh", 0o4755);
    chmod("tmp", 0o1777);
    chmod("var/empty", 0o2711);
    std::fs::hard_link(root.join("bin/sh"), root.join("bin/ash")).unwrap();
    symlink("/usr/../lib", root.join("usr/abs")).unwrap();
    symlink("x".repeat(300), root.join("usr/longlink")).unwrap();
    let node = |p: &str, t, d| rustix::fs::mknodat(rustix::fs::CWD, root.join(p), t, rustix::fs::Mode::from_raw_mode(0o640), d).unwrap();
    node("dev/null", rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    node("dev/loop9", rustix::fs::FileType::BlockDevice, rustix::fs::makedev(7, 9));
    node("run/fifo", rustix::fs::FileType::Fifo, 0);
    let f = std::fs::File::create(root.join("sparse")).unwrap();
    f.set_len(8 << 20).unwrap();
    for i in 0..60u64 {
        std::os::unix::fs::FileExt::write_all_at(&f, b"piece", i * 128 * 1024 + 4096).unwrap();
    }
    rustix::fs::setxattr(root.join("etc/hosts"), "user.note", &[0, 10, 61, 255], rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(root.join("etc/deep"), "user.dir", b"d", rustix::fs::XattrFlags::empty()).unwrap();
    for (i, name) in listing(root).iter().rev().enumerate() {
        let t = rustix::fs::Timespec { tv_sec: 1_500_000_000 + i as i64, tv_nsec: 987_654_321 };
        rustix::fs::utimensat(rustix::fs::CWD, root.join(name), &super::super::tree::times(t), rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

#[test]
fn what_gnu_tar_writes_comes_out_as_it_was() {
    let source = tempfile::tempdir().unwrap();
    make_source(source.path());
    for (flags, posix) in
        [(&["--format=posix", "--xattrs", "-S"][..], true), (&["--format=gnu", "-S"], false), (&["--format=posix", "--sparse-version=0.1", "-S"], true)]
    {
        let made = Command::new("tar").args(flags).args(["--numeric-owner", "-b1", "-cf", "-", "-C"]).arg(source.path()).arg(".").output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        assert!(made.stdout.len() < 2 << 20, "the sparse file was archived whole");
        for stream in [made.stdout.clone(), gzip(&made.stdout), zst(&made.stdout)] {
            let place = Place::new();
            let report = place.import(&stream).unwrap();
            let (mut want, got) = (seen(source.path(), 0, !posix), seen(&place.root(), BASE, !posix));
            if !flags.contains(&"--xattrs") {
                want.values_mut().for_each(|s| s.xattrs.clear());
            }
            assert_eq!(want.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>());
            for (name, w) in &want {
                let g = &got[name];
                assert!(w == g, "{flags:?} {name}: {:?} {:?}", (w.mode, w.uid, w.size, w.mtime, &w.xattrs), (g.mode, g.uid, g.size, g.mtime, &g.xattrs));
            }
            let blocks = std::fs::metadata(place.root().join("sparse")).unwrap().blocks();
            assert!(blocks * 512 < 2 << 20, "the sparse file has no holes: {blocks} blocks");
            assert_eq!(report.skipped, Vec::<String>::new());
            place.assert_canary();
        }
    }
}

#[test]
fn the_demo_image_can_be_imported() {
    let busybox = Path::new("/bin/busybox");
    if !busybox.exists() {
        return;
    }
    let mut tar = Vec::new();
    super::super::demo::busybox_rootfs(busybox, &mut tar).unwrap();
    let place = Place::new();
    let report = place.import(&gzip(&tar)).unwrap();
    assert!(report.files > 400 && report.skipped.is_empty(), "{report:?}");
    assert!(place.root().join("usr/bin/sh").exists());
}

#[test]
fn a_tar_that_does_not_speak_of_its_root_leaves_it_to_the_containers_root() {
    use std::os::unix::fs::MetadataExt;
    let mut tar = Vec::new();
    crate::image::demo::busybox_rootfs(std::path::Path::new("/bin/busybox"), &mut tar).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = crate::image::ImportOptions { id_base: 100_000, max_bytes: None, cancelled: &|| false, progress: &|_| {} };
    crate::image::import(&tar[..], dir.path(), &options).unwrap();
    let m = dir.path().metadata().unwrap();
    assert_eq!((m.uid(), m.gid(), m.mode() & 0o7777), (100_000, 100_000, 0o755));
}
