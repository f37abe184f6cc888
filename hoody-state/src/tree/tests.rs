#![allow(clippy::unwrap_used)]
use super::*;
use crate::error::Code;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

fn volume() -> (TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("secret"), "of the host").unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("etc/sub")).unwrap();
    fs::write(root.join("etc/hosts"), "hosts").unwrap();
    let opened = File::open(&root).unwrap();
    (dir, Root::new(opened.into()))
}

fn path(p: &str) -> TreePath {
    TreePath::new(p.as_bytes()).unwrap()
}

fn read(root: &Root, p: &str) -> Result<String, Code> {
    let path = path(p);
    let mut text = String::new();
    let mut file = root.find(&path, Last::Follow).and_then(|n| n.open_file(&path)).map_err(|e| e.code())?;
    file.read_to_string(&mut text).unwrap();
    Ok(text)
}

#[test]
fn links_are_followed_inside_the_volume_alone() {
    let (dir, root) = volume();
    let at = dir.path().join("root");
    for (link, to) in [("abs", "/etc/hosts"), ("up", "../../../etc/hosts"), ("out", "../secret"), ("host", dir.path().join("secret").to_str().unwrap())] {
        symlink(to, at.join(link)).unwrap();
    }
    symlink("loop", at.join("loop")).unwrap();
    symlink("/etc", at.join("dir")).unwrap();
    for inside in ["etc/hosts", "abs", "up", "dir/hosts"] {
        assert_eq!(read(&root, inside).unwrap(), "hosts", "{inside}");
    }
    for outside in ["out", "host", "loop", "nothing", "etc/nothing"] {
        assert_eq!(read(&root, outside).unwrap_err(), Code::FileNotFound, "{outside}");
    }
    let link = root.find(&path("out"), Last::Keep).unwrap();
    assert_eq!((link.meta.kind, link.target().unwrap()), (Kind::Symlink, b"../secret".to_vec()));
    assert_eq!(link.open_file(&path("out")).unwrap_err().code(), Code::NotARegularFile);
}

#[test]
fn what_is_not_a_file_is_not_opened_as_one() {
    let (dir, root) = volume();
    nix::unistd::mkfifo(&dir.path().join("root/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("root/socket")).unwrap();
    // Whoever opens a FIFO waits for its other end: this would never return.
    assert_eq!(read(&root, "fifo").unwrap_err(), Code::NotARegularFile);
    assert_eq!(read(&root, "socket").unwrap_err(), Code::NotARegularFile);
    assert_eq!(read(&root, "etc").unwrap_err(), Code::IsADirectory);
    assert_eq!(read(&root, "").unwrap_err(), Code::IsADirectory);
    assert_eq!(read(&root, "etc/hosts/x").unwrap_err(), Code::NotADirectory);
    let hosts = root.find(&path("etc/hosts"), Last::Follow).unwrap();
    assert_eq!(hosts.open_directory(&path("etc/hosts")).unwrap_err().code(), Code::NotADirectory);
    assert_eq!(root.find(&path("fifo"), Last::Keep).unwrap().meta.kind, Kind::Fifo);
}

#[test]
fn what_was_found_stays_what_it_is() {
    let (dir, root) = volume();
    let at = dir.path().join("root");
    let node = root.find(&path("etc/hosts"), Last::Follow).unwrap();
    fs::remove_file(at.join("etc/hosts")).unwrap();
    symlink(dir.path().join("secret"), at.join("etc/hosts")).unwrap();
    let mut text = String::new();
    node.open_file(&path("etc/hosts")).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hosts");
    fs::remove_dir_all(&at).unwrap();
    assert_eq!(root.find(&path("etc"), Last::Follow).unwrap_err().code(), Code::FileNotFound);
}

#[test]
fn a_link_that_is_swapped_all_the_time_never_leads_out() {
    let (dir, root) = volume();
    let at = dir.path().join("root");
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/hosts"), "of the host").unwrap();
    symlink("../outside", at.join("bad")).unwrap();
    fs::create_dir(at.join("door")).unwrap();
    fs::write(at.join("door/hosts"), "hosts").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let here = File::open(&at).unwrap();
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(&here, "bad", &here, "door", rustix::fs::RenameFlags::EXCHANGE).unwrap();
            }
        });
        let mut found = 0;
        for _ in 0..5_000 {
            match read(&root, "door/hosts") {
                Ok(text) => {
                    assert_eq!(text, "hosts");
                    found += 1;
                }
                Err(code) => assert_eq!(code, Code::FileNotFound),
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(found > 0);
    });
}

#[test]
fn directories_are_listed_with_what_is_in_them() {
    let (dir, root) = volume();
    let odd = std::ffi::OsStr::new("new\nline");
    fs::write(dir.path().join("root/etc").join(odd), "x").unwrap();
    let etc = root.find(&path("etc"), Last::Follow).unwrap().open_directory(&path("etc")).unwrap();
    let mut names = Vec::new();
    etc.names(&mut |n| {
        names.push(n.to_vec());
        Ok(())
    })
    .unwrap();
    names.sort();
    assert_eq!(names, [b"hosts".to_vec(), b"new\nline".to_vec(), b"sub".to_vec()]);
    let hosts = etc.child(b"hosts").unwrap().unwrap().meta;
    let real = fs::metadata(dir.path().join("root/etc/hosts")).unwrap();
    assert_eq!((hosts.kind, hosts.size, hosts.inode, hosts.mode), (Kind::File, 5, real.ino(), real.mode() & 0o7777));
    assert_eq!((hosts.modified.seconds, i64::from(hosts.modified.nanoseconds)), (real.mtime(), real.mtime_nsec()));
    assert!(etc.child(b"gone").unwrap().is_none());
    let (parent, name) = root.parent(&path("etc/new")).map(|(fd, n)| (fd, n.to_vec())).unwrap();
    assert_eq!(name, b"new");
    assert!(Path::new(&format!("/proc/self/fd/{}/hosts", std::os::fd::AsRawFd::as_raw_fd(&parent))).exists());
    assert_eq!(root.parent(&TreePath::root()).unwrap_err().code(), Code::InvalidPath);
}

#[test]
fn more_names_of_attributes_than_the_kernel_lists_are_an_error_that_says_so() {
    let pool = crate::pool::testing::LoopPool::new();
    let file = pool.root().join("file");
    fs::write(&file, "x").unwrap();
    for n in 0..300 {
        rustix::fs::setxattr(&file, format!("user.{n:0>240}"), b"", rustix::fs::XattrFlags::empty()).unwrap();
    }
    let root = Root::new(File::open(pool.root()).unwrap().into());
    let node = root.find(&path("file"), Last::Keep).unwrap();
    let archive = Archive::of(&node, &path("file"), View { id_base: 0 }, None);
    assert_eq!(archive.err().map(|e| e.code()), Some(Code::TooManyAttributes));
}
