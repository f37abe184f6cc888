//! Writing and deleting files of the present state.

use crate::client::{Stage, head, rest};
use hoody_state::model::{ContainerUpdate, NewSnapshot, RestoreOptions, Rights};
use hoody_state::units::Bytes;
use hoody_state::{Caller, Code};
use hoody_state_workspace::{RealHost, assert_clean, container, project};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

impl Stage {
    pub fn put(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> crate::client::Answer {
        self.request("PUT", &self.url("live", path), headers, body)
    }

    pub fn delete(&self, path: &str) -> crate::client::Answer {
        self.request("DELETE", &self.url("live", path), &[], b"")
    }
}

/// Names that an operation gives to what it has not finished.
pub fn leftovers(root: &Path) -> Vec<String> {
    let out = std::process::Command::new("find").arg(root).args(["-name", ".hoody-*"]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_new_file_is_roots_and_a_replaced_one_keeps_what_it_was() {
    let s = Stage::new("files-put");
    let base = fs::metadata(&s.live).unwrap().uid();
    let a = s.put("/etc/new", &[], b"one");
    assert_eq!((a.status, &a.data()["created"]), (201, &true.into()), "{}", a.text());
    let meta = fs::metadata(s.live.join("etc/new")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (base, base, 0o644));
    assert_eq!(s.real.sh(&s.id, "cat /etc/new; stat -c %u:%g /etc/new"), "one0:0\n", "the running container sees it");

    let file = s.live.join("etc/new");
    chown(&file, Some(base + 5), Some(base + 6)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4750)).unwrap();
    let acl =
        [2u32.to_le_bytes().to_vec(), entry(1, 7, u32::MAX), entry(2, 4, base + 9), entry(4, 5, u32::MAX), entry(0x10, 5, u32::MAX), entry(0x20, 0, u32::MAX)]
            .concat();
    set_xattr(&file, "system.posix_acl_access", &acl);
    set_xattr(&file, "user.kept", b"v");
    let other_name = s.live.join("etc/hard");
    fs::hard_link(&file, &other_name).unwrap();
    let a = s.put("/etc/new", &[], b"two");
    assert_eq!((a.status, &a.data()["created"]), (200, &false.into()));
    let meta = fs::metadata(&file).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777, meta.nlink()), (base + 5, base + 6, 0o4750, 1));
    assert_eq!((xattr(&file, "user.kept"), xattr(&file, "system.posix_acl_access")), (b"v".to_vec(), acl));
    assert_eq!((fs::read(&file).unwrap(), fs::read(&other_name).unwrap()), (b"two".to_vec(), b"one".to_vec()), "another name keeps the old file");

    let a = s.put("/etc/own?mode=0700&uid=1000&gid=7", &[], b"");
    assert_eq!((&a.data()["entry"]["mode"], &a.data()["entry"]["uid"], &a.data()["entry"]["gid"]), (&"0700".into(), &1000.into(), &7.into()));
    for bad in ["mode=8", "mode=10000", "mode=rwx", "uid=65536", "gid=-1"] {
        assert_eq!(s.put(&format!("/etc/own?{bad}"), &[], b"").status, 400, "{bad}");
    }
    assert_eq!(s.put("/srv/a/b/c", &[], b"x").code(), "file_not_found");
    assert_eq!(s.put("/srv/a/b/c%FF?parents=true", &[], b"x").status, 201);
    let dir = fs::metadata(s.live.join("srv/a/b")).unwrap();
    assert_eq!((dir.uid(), dir.mode() & 0o7777), (base, 0o755));
    assert_eq!(s.get("live", "/srv/a/b/c%ff").text(), "x");
    let large: Vec<u8> = (0..5_000_000u32).map(|i| (i % 253) as u8).collect();
    s.put("/srv/large", &[], &large).data();
    assert_eq!(s.get("live", "/srv/large").body, large);
    assert_eq!(leftovers(&s.live), Vec::<String>::new());
    assert_clean(s.real.host(), "after writing");
}

fn entry(tag: u16, permissions: u16, id: u32) -> Vec<u8> {
    [tag.to_le_bytes().as_slice(), &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
}

pub fn set_xattr(file: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(file, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

pub fn xattr(file: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 4096];
    let n = rustix::fs::getxattr(file, name, &mut value).unwrap();
    value.truncate(n);
    value
}

#[test]
fn conditions_decide_and_of_two_writers_one_wins() {
    let s = Stage::new("files-conditions");
    assert_eq!(s.put("/etc/c", &[("If-Match", "*")], b"x").code(), "precondition_failed");
    assert_eq!(s.put("/etc/c", &[("If-None-Match", "*")], b"x").status, 201);
    let a = s.put("/etc/c", &[("If-None-Match", "*")], b"y");
    assert_eq!((a.status, a.code()), (412, "precondition_failed".into()));
    let tag = s.get("live", "/etc/c").header("etag").to_owned();
    let results: Vec<u16> = std::thread::scope(|t| {
        let all: Vec<_> = (0..8).map(|i| (i, &s, &tag)).map(|(i, s, tag)| t.spawn(move || s.put("/etc/c", &[("If-Match", tag)], &[b'0' + i]).status)).collect();
        all.into_iter().map(|h| h.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|r| **r == 200).count(), 1, "{results:?}");
    assert!(results.iter().all(|r| [200, 412].contains(r)), "{results:?}");
    assert_eq!(s.request("DELETE", &s.url("live", "/etc/c"), &[("If-Match", &tag)], b"").code(), "precondition_failed");
    let now = s.get("live", "/etc/c").header("etag").to_owned();
    assert_eq!(s.request("DELETE", &s.url("live", "/etc/c"), &[("If-Match", &now)], b"").status, 200);
    assert_eq!(s.get("live", "/etc/c").code(), "file_not_found");
}

#[test]
fn what_is_no_plain_file_is_neither_written_nor_deleted_by_mistake() {
    let s = Stage::new("files-refused");
    let at = s.live.join("srv");
    fs::create_dir_all(at.join("dir/sub")).unwrap();
    fs::write(at.join("file"), "x").unwrap();
    fs::write(at.join("dir/sub/f"), "x").unwrap();
    nix::unistd::mkfifo(&at.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (link, to) in [("link", "file"), ("db", "/hoody/databases"), ("ram", "/ramdisk"), ("out", "../../../../tmp")] {
        symlink(to, at.join(link)).unwrap();
    }
    s.snapshot("one");
    for (path, code) in [
        ("/srv/dir", "is_a_directory"),
        ("/srv/fifo", "not_a_regular_file"),
        ("/srv/link", "not_a_regular_file"),
        ("/srv/file/x", "not_a_directory"),
        ("/srv/../x", "invalid_path"),
        ("/hoody/databases/x.db", "database_file"),
        ("/srv/db/x.db", "database_file"),
        ("/hoody", "database_file"),
        ("/proc/x", "not_in_volume"),
        ("/ramdisk/x", "not_in_volume"),
        ("/srv/ram/x", "not_in_volume"),
        ("/dev", "not_in_volume"),
    ] {
        assert_eq!(s.put(path, &[], b"y").code(), code, "PUT {path}");
    }
    for (path, code) in [
        ("/srv/dir", "is_a_directory"),
        ("/nope", "file_not_found"),
        ("/srv/file/x", "not_a_directory"),
        ("/hoody?recursive=true", "database_file"),
        ("/hoody/databases?recursive=true", "database_file"),
        ("/srv/db/x", "database_file"),
        ("/dev?recursive=true", "not_in_volume"),
    ] {
        assert_eq!(s.delete(path).code(), code, "DELETE {path}");
    }
    assert_eq!(s.request("PUT", &s.url("one", "/srv/file"), &[], b"y").code(), "volume_read_only");
    assert_eq!(s.request("DELETE", &s.url("one", "/srv/file"), &[], b"").code(), "volume_read_only");
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "x");
    // The link, not what it leads to.
    assert_eq!(s.delete("/srv/link").data()["entry"]["type"], "symlink");
    assert_eq!(s.delete("/srv/out").status, 200);
    assert_eq!(s.delete("/srv/fifo").status, 200);
    assert!(at.join("file").exists() && Path::new("/tmp").exists());
    assert_eq!(s.delete("/srv/dir?recursive=true").data()["entry"]["type"], "directory");
    assert_eq!((at.join("dir").exists(), leftovers(&s.live)), (false, vec![]));
    assert_clean(s.real.host(), "after refusals");
}

#[test]
fn a_swapped_link_never_leads_a_write_or_a_deletion_out() {
    let s = Stage::new("files-swap");
    let outside = s.real.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "untouched").unwrap();
    let at = s.live.join("srv");
    fs::create_dir_all(at.join("door")).unwrap();
    symlink("../".repeat(30) + outside.to_str().unwrap().trim_start_matches('/'), at.join("bad")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|t| {
        t.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::fs::rename(at.join("door"), at.join("tmp")).unwrap();
                std::fs::rename(at.join("bad"), at.join("door")).unwrap();
                std::fs::rename(at.join("door"), at.join("bad")).unwrap();
                std::fs::rename(at.join("tmp"), at.join("door")).unwrap();
            }
        });
        let mut written = 0;
        for i in 0..150 {
            written += u32::from((200..300).contains(&s.put("/srv/door/victim", &[], format!("{i}").as_bytes()).status));
            s.delete("/srv/door/victim");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(written > 0);
    });
    assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "untouched");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(leftovers(&s.live), Vec::<String>::new());
}

#[test]
fn a_full_disk_refuses_and_leaves_nothing() {
    let s = Stage::over(RealHost::sized("files-full", Bytes::mib(512)));
    fs::write(s.live.join("etc/kept"), "before").unwrap();
    let before = s.real.host().pool().unwrap().used;
    // What is announced is refused before anything comes.
    let mut stream = s.connect();
    write!(stream.get_mut(), "PUT /api/v1{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9000000000\r\n\r\n", s.url("live", "/etc/kept"))
        .unwrap();
    assert_eq!(head(&mut stream).0, 507);
    // What is not is refused as it comes.
    let mut stream = s.connect();
    write!(stream.get_mut(), "PUT /api/v1{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n", s.url("live", "/etc/kept"))
        .unwrap();
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..600 {
        let sent = write!(stream.get_mut(), "{:x}\r\n", piece.len())
            .and_then(|()| stream.get_mut().write_all(&piece))
            .and_then(|()| stream.get_mut().write_all(b"\r\n"));
        if sent.is_err() {
            break;
        }
    }
    assert_eq!(head(&mut stream).0, 507);
    assert_eq!(fs::read_to_string(s.live.join("etc/kept")).unwrap(), "before");
    assert_eq!(leftovers(&s.live), Vec::<String>::new());
    let freed = (0..100).any(|_| {
        // Space comes back with a commit of the file system.
        nix::unistd::syncfs(File::open(&s.live).unwrap()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        s.real.host().pool().unwrap().used.0 < before.0 + (16 << 20)
    });
    assert!(freed, "the space of what was refused comes back");
}

#[test]
fn the_disk_limit_of_the_container_counts() {
    let s = Stage::new("files-quota");
    if s.real.host().pool().unwrap().quotas != "simple" {
        panic!("this kernel has no simple quotas: {:?}", s.real.host().pool().unwrap().quotas_reason);
    }
    let limit = ContainerUpdate { disk: Some(Some(Bytes::mib(32))), ..Default::default() };
    s.real.host().update_container(&Caller::default(), &s.id, limit).unwrap();
    let a = s.put("/srv/large?parents=true", &[], &vec![7; 48 << 20]);
    assert_eq!((a.status, a.code()), (507, Code::DiskLimitReached.to_string()), "{}", a.text());
    assert!(!s.live.join("srv/large").exists());
    assert_eq!(leftovers(&s.live), Vec::<String>::new());
}

#[test]
fn a_client_that_leaves_leaves_nothing_behind() {
    let s = Stage::new("files-leaves");
    fs::write(s.live.join("etc/kept"), "before").unwrap();
    let mut stream = s.connect();
    write!(stream.get_mut(), "PUT /api/v1{} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nonly this", s.url("live", "/etc/kept")).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    drop(stream);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(fs::read_to_string(s.live.join("etc/kept")).unwrap(), "before");
    assert_eq!(leftovers(&s.live), Vec::<String>::new());
    s.real.host().force_stop_and_delete(&s.id);
    assert_clean(s.real.host(), "after a client left");
}

trait Ends {
    fn force_stop_and_delete(&self, id: &hoody_state::id::ContainerId);
}

impl Ends for hoody_state::Host {
    fn force_stop_and_delete(&self, id: &hoody_state::id::ContainerId) {
        self.delete_container(&Caller::default(), id).unwrap();
        hoody_state_workspace::at_rest(self);
    }
}

/// Begins a PUT, does something in the middle of its body, and ends it.
fn put_around(s: &Stage, path: &str, between: impl FnOnce()) -> (u16, String) {
    let mut stream = s.connect();
    write!(stream.get_mut(), "PUT /api/v1{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10\r\n\r\nfirst", s.url("live", path)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    between();
    stream.get_mut().write_all(b"again").unwrap();
    let (status, headers) = head(&mut stream);
    let (body, _) = rest(&mut stream, "PUT", status, &headers);
    (status, String::from_utf8(body).unwrap())
}

#[test]
fn a_write_during_a_restore_lands_in_what_was_restored() {
    let s = Stage::new("files-exchange");
    s.snapshot("one");
    let restored = || {
        s.real.host().restore(&Caller::default(), &s.id, "one", RestoreOptions::default()).unwrap();
    };
    let (status, text) = put_around(&s, "/etc/f", restored);
    assert_eq!(status, 201, "{text}");
    assert_eq!(fs::read_to_string(s.live.join("etc/f")).unwrap(), "firstagain");
    assert_eq!(s.real.sh(&s.id, "cat /etc/f"), "firstagain");
    let undo = s.real.host().snapshots(&s.id).unwrap().snapshots.into_iter().find(|x| x.name.as_str() != "one").unwrap();
    assert_eq!(s.get(undo.name.as_str(), "/etc/f").code(), "file_not_found", "not in what was live before");

    let (status, text) = put_around(&s, "/etc/g", || s.real.host().force_stop_and_delete(&s.id));
    assert!([404, 409].contains(&status), "{status} {text}");
    assert_clean(s.real.host(), "after a deletion during a write");
}

#[test]
fn a_write_waits_for_nobody_while_its_body_comes() {
    let s = Stage::new("files-slow");
    let (status, _) = put_around(&s, "/etc/f", || {
        let quick = Caller { patience: std::time::Duration::ZERO, ..Caller::default() };
        s.real.host().create_snapshot(&quick, &s.id, NewSnapshot::default()).unwrap();
        assert_eq!(s.put("/etc/other", &[], b"x").status, 201);
    });
    assert_eq!(status, 201);
}

#[test]
fn only_a_full_token_of_the_project_writes() {
    let s = Stage::new("files-write-rights");
    let other = project(s.real.host(), "other");
    container(s.real.host(), &other, "theirs").unwrap();
    let token = |p, rights, name| s.real.host().create_token(name, Some(vec![p]), rights).unwrap().1;
    let tokens = [
        (token(s.project.clone(), Rights::Full, "full"), 201, 200),
        (token(s.project.clone(), Rights::ReadOnly, "reads"), 403, 403),
        (token(other, Rights::Full, "theirs"), 404, 404),
    ];
    for (i, (token, put, delete)) in tokens.iter().enumerate().rev() {
        let auth = format!("Bearer {token}");
        let auth = [("Authorization", auth.as_str())];
        assert_eq!(s.put("/etc/f", &auth, b"x").status, *put, "{i}");
        assert_eq!(s.request("DELETE", &s.url("live", "/etc/f"), &auth, b"").status, *delete, "{i}");
    }
}

#[test]
fn a_file_is_written_into_a_nested_subvolume() {
    let s = Stage::new("files-nested");
    let dir = File::open(&s.live).unwrap();
    btrfs_uapi::subvolume::subvolume_create(std::os::fd::AsFd::as_fd(&dir), c"nested", &[]).unwrap();
    assert_eq!(s.put("/nested/f", &[], b"x").status, 201);
    assert_eq!(s.put("/nested/f", &[], b"yy").status, 200);
    s.snapshot("one");
    assert_eq!(s.get("one", "/nested/f").text(), "yy");
    assert_eq!(s.delete("/nested?recursive=true").status, 200);
    assert!(!s.live.join("nested").exists());
}
