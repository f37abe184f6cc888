#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Pools on a small file system that others fill as well. They need root, BTRFS and btrfs-progs.

use super::testing::clean_up;
use super::*;
use crate::snapshot::{SnapshotStore, Volume};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A tmpfs with a pool's data directory in it.
struct Small {
    config: PoolConfig,
    dir: tempfile::TempDir,
}

impl Small {
    fn new(beneath: Bytes, size: Bytes, reserve: Reserve) -> Self {
        let dir = tempfile::Builder::new().prefix("hoody-pool-").tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let options = format!("size={}", beneath.0);
        nix::mount::mount(Some("tmpfs"), &data, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options.as_str())).expect("a tmpfs (this test needs root)");
        let mut config = PoolConfig::new(data, dir.path().join("run"));
        (config.size, config.reserve) = (Some(size), Some(reserve));
        Small { config, dir }
    }

    fn open(&self) -> Pool {
        Pool::open(&self.config).unwrap()
    }

    /// Fills the file system beneath up to the last byte, as another program may.
    fn fill_beneath(&self) -> PathBuf {
        let path = self.config.data.join("others");
        write_until_full(&path);
        path
    }

    fn image(&self) -> std::fs::Metadata {
        std::fs::metadata(self.config.data.join(IMAGE)).unwrap()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        clean_up(&self.config);
        let _ = nix::mount::umount2(&self.dir.path().join("data"), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Writes until there is no space, and waits for the disk; returns how much was written.
fn write_until_full(path: &Path) -> u64 {
    let mut f = File::options().create(true).append(true).open(path).unwrap();
    let block = vec![0xa5; 4 << 20];
    let mut written = 0;
    let e = loop {
        match f.write_all(&block).and_then(|()| f.sync_data()) {
            Ok(()) => written += block.len() as u64,
            Err(e) => break e,
        }
    };
    assert!(matches!(e.raw_os_error(), Some(nix::libc::ENOSPC | nix::libc::EIO | nix::libc::EROFS)), "{e}");
    written
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `f` while the reserve is adjusted regularly, as a server does.
fn tended<T>(pool: &Pool, f: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                pool.tend().unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        // Also when `f` panics.
        let _end = End(&over);
        f()
    })
}

fn until(what: &str, f: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(40);
    while !f() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_full_disk_beneath_leaves_the_pool_writable() {
    let p = Small::new(Bytes::mib(900), Bytes::gib(4), Reserve::Ahead(Bytes::mib(128)));
    let pool = p.open();
    let held = File::open(pool.root()).unwrap();
    let offered = pool.space().unwrap().image.unwrap();
    assert!(offered.offered <= Bytes::mib(300) && offered.unreserved() < Bytes::mib(1), "{offered:?}");
    let (store, c) = (pool.store().unwrap(), crate::id::ContainerId::generate());
    store.create(&Volume::Live(c.clone())).unwrap();
    // A container writes more than there is.
    let file = pool.root().join("images/fill");
    let written = tended(&pool, || write_until_full(&file));
    assert!(written > 500 << 20, "it grew with its use: {written}");
    let full = pool.space().unwrap();
    assert!(!full.read_only, "{full:?}");
    assert_eq!(full.image.unwrap().unreserved(), Bytes(0), "{full:?}");
    assert_eq!(pool.space_guard(Bytes(0)).unwrap_err().code(), crate::Code::PoolFull);
    // And another program takes the rest beneath. Every offered byte can still be written.
    let others = p.fill_beneath();
    std::fs::remove_file(&file).unwrap();
    btrfs_uapi::filesystem::sync(std::os::fd::AsFd::as_fd(&held)).unwrap();
    until("the room of a deleted file does not come back", || pool.space().unwrap().used < Bytes::mib(32));
    let again = tended(&pool, || write_until_full(&file));
    // Released space is reserved again, except for what other programs keep.
    assert!(again > written - (192 << 20), "{again} of {written}");
    assert!(!pool.space().unwrap().read_only);
    std::fs::remove_file(&file).unwrap();
    std::fs::remove_file(others).unwrap();
    store.delete(&Volume::Live(c)).unwrap();
    drop((store, held));
    pool.unmount().unwrap();
}

#[test]
fn without_a_reserve_a_full_disk_makes_the_pool_read_only_and_this_is_reported() {
    let p = Small::new(Bytes::mib(400), Bytes::gib(2), Reserve::None);
    let pool = p.open();
    write_until_full(&pool.root().join("images/fill"));
    until("the kernel leaves it writable", || pool.space().unwrap().read_only);
}

#[test]
fn a_full_reserve_takes_the_whole_image_at_once_and_keeps_it() {
    let p = Small::new(Bytes::gib(1), Bytes::mib(512), Reserve::Full);
    let pool = p.open();
    let i = pool.space().unwrap().image.unwrap();
    assert_eq!((i.size, i.offered, i.unreserved()), (Bytes::mib(512), Bytes::mib(512), Bytes(0)));
    let file = pool.root().join("images/fill");
    write_until_full(&file);
    std::fs::remove_file(&file).unwrap();
    drop(pool);
    // Opening it without a server changes nothing.
    Pool::open(&PoolConfig { reserve: None, size: None, ..p.config.clone() }).unwrap();
    let pool = p.open();
    assert_eq!(pool.tend().unwrap(), Tended::Nothing);
    assert_eq!(pool.space().unwrap().image.unwrap(), i);
}

#[test]
fn a_sparse_pool_of_an_earlier_version_gets_its_reserve() {
    let mut p = Small::new(Bytes::gib(1), Bytes::gib(3), Reserve::None);
    let pool = p.open();
    let file = pool.root().join("images/data");
    std::fs::write(&file, vec![7; 100 << 20]).unwrap();
    assert!(p.image().blocks() * 512 < 300 << 20);
    drop(pool);
    p.config.reserve = Some(Reserve::Ahead(Bytes::mib(200)));
    let pool = p.open();
    let i = pool.space().unwrap().image.unwrap();
    assert!(i.size == Bytes::gib(3) && i.offered < Bytes::mib(600) && i.unreserved() == Bytes(0), "{i:?}");
    assert_eq!(std::fs::read(&file).unwrap(), vec![7; 100 << 20]);
    // And back.
    drop(pool);
    p.config.reserve = Some(Reserve::None);
    assert_eq!(p.open().space().unwrap().image.unwrap().offered, Bytes::gib(3));
}
