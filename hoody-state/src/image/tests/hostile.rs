//! What must be refused, and what must not.

use super::*;
use crate::Code;
use crate::error::Kind;
use std::cell::Cell;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

fn refused(what: &str, tar: &[u8], code: Code) {
    let place = Place::new();
    let e = place.import(tar).expect_err(what);
    assert_eq!(e.code(), code, "{what}: {e}");
    place.assert_canary();
}

fn taken(tar: &[u8]) -> (Place, ImportReport) {
    let place = Place::new();
    let report = place.import(tar).unwrap();
    place.assert_canary();
    (place, report)
}

/// Headers of one entry that add up, each of them within bounds.
#[test]
fn headers_that_would_take_much_memory_are_refused() {
    let b = Archive::bootable;
    let value = vec![b'v'; 500 << 10];
    let add = |a: Archive, n: usize| (0..n).fold(a, |a, i| a.pax(&[(format!("SCHILY.xattr.user.k{i}").as_str(), &value)]));
    refused("attributes over several headers", &add(b(), 3).file("x", b"").end(), Code::ImageHeaderTooLarge);
    refused("one large header", &b().pax(&[("comment", &value), ("c", &value), ("d", &value)]).file("x", b"").end(), Code::ImageHeaderTooLarge);
    let small = |n: usize| (0..n).fold(b(), |a, i| a.pax(&[(format!("SCHILY.xattr.user.k{i}").as_str(), b"v")]));
    refused("a thousand small ones", &small(1001).file("x", b"").end(), Code::ImageHeaderTooLarge);
    let offsets = |n: usize| b"23 GNU.sparse.offset=1\n".repeat(n);
    let mut holes = b();
    for _ in 0..5 {
        holes = holes.raw(b'x', b"h", b"", &offsets(40_000), |_| {});
    }
    refused("a map of holes over several headers", &holes.file("x", b"").end(), Code::ImageHeaderTooLarge);
    let global = [format!("{} SCHILY.xattr.user.g=", value.len() + 28).as_bytes(), &value[..], b"\n"].concat();
    refused("what all entries have in common", &b().raw(b'g', b"g", b"", &global, |_| {}).file("x", b"").end(), Code::ImageHeaderTooLarge);
    let name = vec![b'n'; 9 << 10];
    refused("a long name", &b().raw(b'L', b"@LongLink", b"", &name, |_| {}).file("x", b"").end(), Code::ImageHeaderTooLarge);
    // Headers that say the same thing again and again take no memory.
    let again = (0..2000).fold(b(), |a, _| a.pax(&[("SCHILY.acl.access", b"x"), ("path", b"x")]));
    taken(&again.file("x", b"").end());
}

#[test]
fn unsafe_archives_are_refused() {
    let b = Archive::bootable;
    let up = |n: &str| b().file(n, b"x").end();
    let cases: Vec<(&str, Vec<u8>, Code)> = vec![
        ("absolute", up("/etc/passwd"), Code::ImagePathUnsafe),
        ("dotdot", up("../canary/file"), Code::ImagePathUnsafe),
        ("dotdot inside", up("bin/../../canary/file"), Code::ImagePathUnsafe),
        ("dotdot alone", b().entry(b'5', "..", "").end(), Code::ImagePathUnsafe),
        ("empty name", b().entry(b'0', "", "").end(), Code::ImagePathUnsafe),
        ("root as a file", b().file(".", b"x").end(), Code::ImagePathUnsafe),
        ("NUL in a pax path", b().pax(&[("path", b"a\0b")]).file("x", b"").end(), Code::ImagePathUnsafe),
        ("long name", b().pax(&[("path", &[b'n'; 256])]).file("x", b"").end(), Code::ImagePathUnsafe),
        ("deep", b().pax(&[("path", &b"d/".repeat(300))]).entry(b'5', "x", "").end(), Code::ImagePathUnsafe),
        ("through a symlink to /", b().entry(b'2', "l", "/").file("l/canary", b"x").end(), Code::ImagePathUnsafe),
        ("through a symlink up", b().entry(b'2', "l", "../canary").file("l/file", b"x").end(), Code::ImagePathUnsafe),
        ("through a symlink within", b().entry(b'2', "l", "bin").file("l/file", b"x").end(), Code::ImagePathUnsafe),
        ("directory through a symlink", b().entry(b'2', "l", "../canary").entry(b'5', "l/d", "").end(), Code::ImagePathUnsafe),
        ("whiteout through a symlink", b().entry(b'2', "l", "../canary").file("l/.wh.file", b"").end(), Code::ImagePathUnsafe),
        ("opaque through a symlink", b().entry(b'2', "l", "../canary").file("l/.wh..wh..opq", b"").end(), Code::ImagePathUnsafe),
        ("parent is a file", b().file("bin/sh/x", b"").end(), Code::ImagePathUnsafe),
        ("parent is a device", b().entry(b'3', "n", "").file("n/x", b"").end(), Code::ImagePathUnsafe),
        ("hard link out", b().entry(b'1', "x", "../canary/file").end(), Code::ImageLinkUnsafe),
        ("hard link absolute", b().entry(b'1', "x", "/etc/passwd").end(), Code::ImageLinkUnsafe),
        ("hard link through a symlink", b().entry(b'2', "l", "../canary").entry(b'1', "x", "l/file").end(), Code::ImageLinkUnsafe),
        ("hard link to nothing", b().entry(b'1', "x", "later").file("later", b"").end(), Code::ImageLinkUnsafe),
        ("hard link to a directory", b().entry(b'1', "x", "bin").end(), Code::ImageLinkUnsafe),
        ("hard link to the root", b().entry(b'1', "x", "./").end(), Code::ImageLinkUnsafe),
        ("symlink without a target", b().entry(b'2', "x", "").end(), Code::ImageLinkUnsafe),
        ("file over directory", b().file("bin", b"x").end(), Code::ImageEntryConflict),
        ("symlink over directory", b().entry(b'2', "bin", "x").end(), Code::ImageEntryConflict),
        ("uid", b().raw(b'0', b"x", b"", b"", |h| h.set_uid(65_536)).end(), Code::ImageIdRange),
        ("gid", b().raw(b'0', b"x", b"", b"", |h| h.set_gid(4_294_967_295)).end(), Code::ImageIdRange),
        ("negative uid", b().pax(&[("uid", b"-1")]).file("x", b"").end(), Code::ImageIdRange),
        ("device number", b().raw(b'3', b"x", b"", b"", |h| h.set_device_major(4096).unwrap()).end(), Code::ImageCorrupt),
        ("xattr too large", b().pax(&[("SCHILY.xattr.user.k", &[b'v'; 4000])]).file("x", b"").end(), Code::ImageXattr),
        ("proc is a symlink", b().entry(b'2', "proc", "/").end(), Code::ImageNoRoot),
        ("hoody is a symlink", b().entry(b'2', "hoody", "../canary").end(), Code::ImageNoRoot),
        ("nothing to start", Archive::default().file("a", b"").end(), Code::ImageNoRoot),
        ("sh points out", Archive::default().entry(b'2', "bin/sh", "../../../../../bin/sh").end(), Code::ImageNoRoot),
        ("sh points to itself", Archive::default().entry(b'2', "bin/sh", "sh").end(), Code::ImageNoRoot),
        ("sh is a directory", Archive::default().entry(b'5', "bin/sh", "").end(), Code::ImageNoRoot),
        ("sh cannot be executed", Archive::default().raw(b'0', b"bin/sh", b"", b"", |h| h.set_mode(0o644)).end(), Code::ImageNoRoot),
        ("empty archive", Archive::default().end(), Code::ImageNoRoot),
        ("in a subdirectory", Archive::default().file("rootfs/bin/sh", b"").end(), Code::ImageNoRoot),
    ];
    for (what, tar, code) in cases {
        refused(what, &tar, code);
        refused(what, &gzip(&tar), code);
    }
}

#[test]
fn broken_archives_are_refused() {
    let good = Archive::bootable().end();
    let mut sum = good.clone();
    sum[1024] = b'x';
    let cases: Vec<(&str, Vec<u8>, Code)> = vec![
        ("empty", vec![], Code::ImageFormat),
        ("text", b"hello".to_vec(), Code::ImageFormat),
        ("long text", b"hello ".repeat(1000), Code::ImageFormat),
        ("text in gzip", gzip(&b"hello ".repeat(1000)), Code::ImageFormat),
        ("nothing in gzip", gzip(b""), Code::ImageFormat),
        ("bzip2", b"BZh91AY".to_vec(), Code::ImageFormat),
        ("xz", b"\xfd7zXZ\0".to_vec(), Code::ImageFormat),
        ("zip", b"PK\x03\x04".to_vec(), Code::ImageFormat),
        ("no end mark", good[..1024].to_vec(), Code::ImageCorrupt),
        ("second header", sum, Code::ImageCorrupt),
        ("cut in data", Archive::default().file("bin/sh", &[0; 2000]).end()[..1500].to_vec(), Code::ImageCorrupt),
        ("pax without an entry", Archive::bootable().pax(&[("path", b"x")]).end(), Code::ImageCorrupt),
        ("pax too large", Archive::bootable().raw(b'x', b"p", b"", b"", |h| h.set_size(1 << 30)).end(), Code::ImageHeaderTooLarge),
        ("name too large", Archive::bootable().raw(b'L', b"p", b"", b"", |h| h.set_size(1 << 40)).end(), Code::ImageHeaderTooLarge),
        ("size without data", Archive::bootable().raw(b'0', b"p", b"", b"", |h| h.set_size(1 << 40)).end(), Code::ImageCorrupt),
        ("pax size without data", Archive::bootable().pax(&[("size", b"9999999999")]).file("p", b"").end(), Code::ImageCorrupt),
        ("sparse map backwards", sparse("GNU.sparse.map", b"10,5,0,5", b"0123456789"), Code::ImageCorrupt),
        ("sparse map beyond the file", sparse("GNU.sparse.map", b"100,10", b"0123456789"), Code::ImageCorrupt),
        ("sparse map overflows", sparse("GNU.sparse.map", b"18446744073709551615,10", b"0123456789"), Code::ImageCorrupt),
        ("sparse map of more data", sparse("GNU.sparse.map", b"0,20", b"0123456789"), Code::ImageCorrupt),
        ("sparse map in data is junk", sparse("GNU.sparse.major", b"1", &[b'x'; 512]), Code::ImageCorrupt),
        ("sparse map in data is endless", sparse("GNU.sparse.major", b"1", &b"9999999999\n".repeat(100)), Code::ImageCorrupt),
        (
            "sparse file too large",
            Archive::bootable().pax(&[("GNU.sparse.size", b"18446744073709551615"), ("GNU.sparse.map", b"")]).file("s", b"").end(),
            Code::ImageCorrupt,
        ),
    ];
    for (what, tar, code) in cases {
        refused(what, &tar, code);
    }
}

fn sparse(key: &str, value: &[u8], data: &[u8]) -> Vec<u8> {
    Archive::bootable().pax(&[("GNU.sparse.realsize", b"50"), (key, value)]).file("s", data).end()
}

#[test]
fn bombs_stop_at_the_limit() {
    for tar in [gzip(&Archive::bootable().file("zeros", &vec![0; 80 << 20]).end()), zst(&Archive::bootable().file("zeros", &vec![0; 80 << 20]).end())] {
        let e = Place::new().import(&tar).unwrap_err();
        assert_eq!((e.kind(), e.code()), (Kind::TooLarge, Code::ImageTooLarge));
    }
    // Endless bytes after the end mark as well.
    let mut tail = Archive::bootable().end();
    tail.resize(80 << 20, 7);
    assert_eq!(Place::new().import(&gzip(&tail)).unwrap_err().code(), Code::ImageTooLarge);
}

#[test]
fn members_frames_and_what_follows() {
    let tar = Archive::bootable().file("big", &b"0123456789".repeat(10_000)).end();
    let (a, b) = tar.split_at(3000);
    let skippable = [b"\x50\x2a\x4d\x18\x04\0\0\0skip".as_slice(), &zst(a), &zst(b)].concat();
    for stream in [tar.clone(), gzip(&tar), zst(&tar), [gzip(a), gzip(b)].concat(), [zst(a), zst(b)].concat(), skippable] {
        let (place, report) = taken(&stream);
        assert_eq!(std::fs::metadata(place.root().join("big")).unwrap().len(), 100_000);
        assert_eq!((report.files, report.bytes.0, report.skipped.len()), (2, 100_002, 0));
        let garbage = [stream.as_slice(), b"garbage"].concat();
        taken(&garbage);
    }
    let (_, report) = taken(&[tar.as_slice(), b"garbage"].concat());
    assert_eq!(report.skipped, ["bytes after the archive's end mark: \"7 bytes\""]);
    // A checksum after the end mark is looked at too.
    for mut z in [gzip(&tar), zst(&tar)] {
        z.truncate(z.len() - 1);
        refused("cut trailer", &z, Code::ImageCorrupt);
    }
}

#[test]
fn later_entries_replace_and_whiteouts_remove() {
    let tar = Archive::bootable()
        .file("etc/a", b"old")
        .file("etc/b", b"b")
        .entry(b'5', "opt/x", "")
        .file("opt/x/y", b"y")
        .entry(b'2', "link", "../canary/file")
        .file("etc/a", b"new")
        .file("link", b"now a file")
        .entry(b'2', "dirlink", "../canary")
        .entry(b'5', "dirlink", "")
        .file("dirlink/in", b"x")
        .file("etc/.wh.b", b"")
        .file(".wh.opt", b"")
        .file("srv/one", b"1")
        .file("srv/.wh..wh..opq", b"")
        .file("srv/two", b"2")
        .file("gone", b"")
        .raw(b'3', b"gone", b"", b"", |h| {
            h.set_device_major(0).unwrap();
            h.set_device_minor(0).unwrap();
        })
        .file(".wh...", b"")
        .file(".wh..wh.plnk", b"")
        .file(".wh.never-there", b"")
        .end();
    let (place, report) = taken(&tar);
    let root = place.root();
    assert_eq!(std::fs::read(root.join("etc/a")).unwrap(), b"new");
    assert!(std::fs::symlink_metadata(root.join("link")).unwrap().is_file());
    assert_eq!(std::fs::read(root.join("dirlink/in")).unwrap(), b"x");
    for gone in ["etc/b", "opt", "srv/one", "gone", "etc/.wh.b"] {
        assert!(!root.join(gone).exists(), "{gone}");
    }
    assert_eq!(std::fs::read(root.join("srv/two")).unwrap(), b"2");
    assert_eq!(report.skipped.len(), 1, "{:?}", report.skipped);
}

#[test]
fn a_whiteout_of_a_directory_follows_no_symlink_in_it() {
    let tar = Archive::bootable().entry(b'2', "d/l", "../../canary").entry(b'2', "e", "../canary").file(".wh.d", b"").file(".wh.e", b"").end();
    let (place, _) = taken(&tar);
    assert!(std::fs::symlink_metadata(place.root().join("d")).is_err());
    assert!(std::fs::symlink_metadata(place.root().join("e")).is_err());
}

#[test]
fn owners_modes_links_and_nodes() {
    let cap = [&0x0200_0001u32.to_le_bytes()[..], &[0x20; 16]].concat();
    let tar = Archive::bootable()
        .raw(b'0', b"bin/su", b"", b"su", |h| {
            h.set_mode(0o6755);
            h.set_uid(65_534);
            h.set_gid(65_535);
        })
        .pax(&[
            ("SCHILY.xattr.security.capability", &cap),
            ("SCHILY.xattr.user.note", b"hi"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("mtime", b"1600000000.123456789"),
        ])
        .file("bin/ping", b"ping")
        .entry(b'1', "bin/ping6", "./bin/ping")
        .entry(b'2', "abs", "/etc/../../x")
        .entry(b'1', "abs2", "abs")
        .entry(b'1', "abs2", "abs2")
        .entry(b'6', "fifo", "")
        .entry(b'4', "disk", "")
        .raw(b'5', b"./", b"", b"", |h| h.set_mode(0o751))
        .raw(b'5', b"late", b"", b"", |h| h.set_mtime(5))
        .file("late/child", b"")
        .file("other", b"")
        .file("late/again", b"")
        .pax(&[("SCHILY.xattr.user.large", &[b'v'; 3940 - 10])])
        .file("large-attribute", b"")
        .entry(b'V', "label", "")
        .end();
    let (place, report) = taken(&tar);
    let meta = |p: &str| std::fs::symlink_metadata(place.root().join(p)).unwrap();
    let su = meta("bin/su");
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid()), (0o6755, BASE + 65_534, BASE + 65_535));
    let ping = meta("bin/ping");
    assert_eq!((ping.nlink(), ping.mtime(), ping.mtime_nsec(), ping.uid()), (2, 1_600_000_000, 123_456_789, BASE));
    let mut value = [0u8; 64];
    let n = rustix::fs::getxattr(place.root().join("bin/ping"), "security.capability", &mut value).unwrap();
    assert_eq!(&value[..n], [&0x0300_0001u32.to_le_bytes()[..], &[0x20; 16], &BASE.to_le_bytes()].concat());
    let n = rustix::fs::getxattr(place.root().join("bin/ping"), "user.note", &mut value).unwrap();
    assert_eq!(&value[..n], b"hi");
    assert_eq!(std::fs::read_link(place.root().join("abs2")).unwrap().to_str(), Some("/etc/../../x"));
    assert!(meta("fifo").file_type().is_fifo());
    assert!(meta("disk").file_type().is_block_device() && meta("disk").rdev() == rustix::fs::makedev(1, 3));
    assert_eq!(meta("late").mtime(), 5);
    assert_eq!((meta("").mode() & 0o7777, meta("").uid(), meta("").mtime()), (0o751, BASE, 1_700_000_000));
    for (dir, mode) in
        [("tmp", 0o1777), ("proc", 0o555), ("hoody/shares", 0o755), ("hoody/snapshots", 0o755), ("ramdisk", 0o1777), ("root", 0o700), ("bin", 0o755)]
    {
        assert_eq!((meta(dir).mode() & 0o7777, meta(dir).uid(), meta(dir).gid()), (mode, BASE, BASE), "{dir}");
    }
    assert_eq!(report.skipped.len(), 2, "{:?}", report.skipped);
}

#[test]
fn nothing_inherits_an_acl_that_the_archive_does_not_have() {
    let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &7u16.to_le_bytes(), &id.to_le_bytes()].concat();
    let acl =
        |id: u32| [&2u32.to_le_bytes()[..], &entry(1, u32::MAX), &entry(2, id), &entry(4, u32::MAX), &entry(0x10, u32::MAX), &entry(0x20, u32::MAX)].concat();
    let given = acl(1000);
    let tar = Archive::bootable()
        .pax(&[("SCHILY.xattr.system.posix_acl_default", &given), ("SCHILY.xattr.system.posix_acl_access", &given)])
        .entry(b'5', "d", "")
        .file("d/f", b"")
        .entry(b'5', "d/e", "")
        .file("d/implicit/f", b"")
        .end();
    let (place, report) = taken(&tar);
    assert_eq!(report.skipped, Vec::<String>::new());
    let get = |path: &str, name: &str| {
        let mut value = [0u8; 256];
        rustix::fs::getxattr(place.root().join(path), name, &mut value).map(|n| value[..n].to_vec())
    };
    for name in ["system.posix_acl_default", "system.posix_acl_access"] {
        assert_eq!(get("d", name).unwrap(), acl(BASE + 1000), "{name}");
        for path in ["d/f", "d/e", "d/implicit", "d/implicit/f"] {
            assert!(get(path, name).is_err(), "{path} {name}");
        }
    }
    assert_eq!(std::fs::metadata(place.root().join("d/f")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_program_behind_symlinks_counts() {
    let merged = Archive::default().entry(b'2', "bin", "/usr/bin").entry(b'2', "usr/bin/sh", "../../../../opt/busybox").file("opt/busybox", b"").end();
    taken(&merged);
    taken(&Archive::default().file("init", b"").end());
}

#[test]
fn cancelling_and_errors_of_the_reader_come_out_as_they_are() {
    let tar = Archive::bootable().file("big", &vec![1; 1 << 20]).end();
    let place = Place::new();
    let calls = Cell::new(0);
    let cancelled = || {
        calls.set(calls.get() + 1);
        calls.get() > 5
    };
    let seen = Cell::new(Bytes(0));
    let e = import(tar.as_slice(), &place.root(), &ImportOptions { cancelled: &cancelled, progress: &|b| seen.set(b), ..options() }).unwrap_err();
    assert_eq!(e.kind(), Kind::Cancelled);
    assert!(seen.get().0 > 0);

    struct Failing(u32);
    impl std::io::Read for Failing {
        fn read(&mut self, b: &mut [u8]) -> std::io::Result<usize> {
            self.0 += 1;
            if self.0 == 1 {
                let tar = Archive::bootable().0;
                b[..tar.len()].copy_from_slice(&tar);
                return Ok(tar.len());
            }
            Err(std::io::Error::from_raw_os_error(104))
        }
    }
    let e = import(Failing(0), &Place::new().root(), &options()).unwrap_err();
    assert_eq!(e.kind(), Kind::Io, "{e}");
    let place = Place::new();
    std::fs::write(place.root().join("x"), "").unwrap();
    assert_eq!(place.import(&tar).unwrap_err().code(), Code::ImageRootNotEmpty);
    let place = Place::new();
    std::fs::remove_dir(place.root()).unwrap();
    symlink("canary", place.root()).unwrap();
    assert!(place.import(&tar).is_err());
    place.assert_canary();
}
