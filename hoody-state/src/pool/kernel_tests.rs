//! What the system calls of `sys` do on a BTRFS file system.

use super::testing::LoopPool;
use crate::sys::fs::{has_mark, is_no_cow, open_dir_by_id, set_mark, set_no_cow};
use nix::libc;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;

#[test]
fn a_directory_is_opened_by_its_number() {
    let pool = LoopPool::new();
    let sub = pool.root().join("some/deep");
    std::fs::create_dir_all(&sub).unwrap();
    let root = File::open(pool.root()).unwrap();
    let fd = open_dir_by_id(root.as_fd(), 5, std::fs::metadata(&sub).unwrap().ino()).unwrap();
    assert_eq!(std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap(), sub);
    let gone = open_dir_by_id(root.as_fd(), 5, 1 << 40).unwrap_err();
    assert!(matches!(gone.raw_os_error(), Some(libc::ESTALE | libc::ENOENT)), "{gone}");
    let not_btrfs = open_dir_by_id(File::open("/proc").unwrap().as_fd(), 5, 256);
    assert!(not_btrfs.is_err());
}

#[test]
fn a_mark_is_put_on_and_taken_off() {
    let pool = LoopPool::new();
    let dir = File::open(pool.root()).unwrap();
    let name = c"trusted.hoody.test";
    assert!(!has_mark(dir.as_fd(), name).unwrap());
    set_mark(dir.as_fd(), name, true).unwrap();
    set_mark(dir.as_fd(), name, true).unwrap();
    assert!(has_mark(dir.as_fd(), name).unwrap());
    set_mark(dir.as_fd(), name, false).unwrap();
    set_mark(dir.as_fd(), name, false).unwrap();
    assert!(!has_mark(dir.as_fd(), name).unwrap());
}

#[test]
fn copy_on_write_is_turned_off() {
    let pool = LoopPool::new();
    let dir = pool.root().join("d");
    std::fs::create_dir(&dir).unwrap();
    let dir_file = File::open(&dir).unwrap();
    assert!(!is_no_cow(&dir_file).unwrap());
    set_no_cow(&dir_file).unwrap();
    set_no_cow(&dir_file).unwrap();
    assert!(is_no_cow(&File::create(dir.join("f")).unwrap()).unwrap());
}
