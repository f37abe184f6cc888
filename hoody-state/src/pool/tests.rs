#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Pools on real loop devices. They need root, BTRFS and btrfs-progs; each takes down what it made, even when it fails.

use super::testing::{LoopPool, attach_device, clean_up, is_attached, reboot};
use super::*;
use crate::Code;
use crate::Kind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

/// A place for a pool that is not open yet.
struct Place {
    config: PoolConfig,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("hoody-pool-").tempdir().unwrap();
        let mut config = PoolConfig::new(dir.path().join("data"), dir.path().join("run"));
        config.size = Some(Bytes::gib(1));
        Place { config, dir }
    }

    fn image(&self) -> PathBuf {
        self.config.data.join(IMAGE)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        clean_up(&self.config);
    }
}

fn code<T: std::fmt::Debug>(r: Result<T>) -> Code {
    r.unwrap_err().code()
}

#[test]
fn a_new_pool_has_its_record_directories_and_modes() {
    let p = Place::new();
    let mut config = p.config.clone();
    config.id_base = Some(200_000);
    config.server_name = Some("here".into());
    let pool = Pool::open(&config).unwrap();
    let r = pool.record().clone();
    assert_eq!((r.format, r.id_base, r.server_name.as_deref()), (FORMAT, 200_000, Some("here")));
    let pool_dir = File::open(pool.root()).unwrap();
    assert_eq!(btrfs_uapi::filesystem::filesystem_info(std::os::fd::AsFd::as_fd(&pool_dir)).unwrap().uuid, r.pool_id);
    for (dir, mode) in [(".", 0o710), ("containers", 0o710), ("images", 0o700), ("catalog", 0o700), ("projects", 0o700), ("staging", 0o700), ("trash", 0o700)] {
        let meta = std::fs::metadata(pool.root().join(dir)).unwrap();
        assert_eq!(meta.mode() & 0o7777, mode, "{dir}");
        assert_eq!(meta.gid(), if mode == 0o710 { 200_000 } else { 0 }, "{dir}");
    }
    assert!(crate::sys::fs::is_no_cow(&File::create(pool.root().join("catalog/f")).unwrap()).unwrap());
    let options = mount::at(&pool.root()).unwrap().unwrap().options;
    assert!(options.contains("noatime") && options.contains("nodev") && !options.contains("nosuid"), "{options}");
    let c = crate::id::ContainerId::generate();
    crate::snapshot::SnapshotStore::create_home(&pool.store().unwrap(), &c).unwrap();
    let home = std::fs::metadata(pool.root().join("containers").join(c.as_str())).unwrap();
    assert_eq!((home.mode() & 0o7777, home.gid()), (0o710, 200_000));
    assert_eq!(Pool::peek(&p.config).unwrap(), Some(r));
    drop(pool_dir);
    pool.unmount().unwrap();
}

#[test]
fn a_pool_is_found_again_mounted_unmounted_and_after_a_reboot() {
    let p = Place::new();
    let record = Pool::open(&p.config).unwrap().record().clone();
    let file = p.config.mount_point().join("f");
    std::fs::write(&file, b"x").unwrap();
    // A server ended or was killed: the mount still exists and is used as it is.
    let pool = Pool::open(&p.config).unwrap();
    assert_eq!(pool.record(), &record);
    pool.unmount().unwrap();
    assert!(!p.config.run.exists() && !is_attached(&p.image()));
    assert_eq!(Pool::peek(&p.config).unwrap(), None);
    Pool::take_down(&p.config).unwrap();
    drop(Pool::open(&p.config).unwrap());
    reboot(&p.config);
    assert!(!is_attached(&p.image()));
    drop(Pool::open(&p.config).unwrap());
    assert_eq!(std::fs::read(&file).unwrap(), b"x");
    Pool::take_down(&p.config).unwrap();
    assert!(!p.config.run.exists() && !is_attached(&p.image()));
}

#[test]
fn a_leftover_loop_device_is_used_and_removed() {
    let p = Place::new();
    Pool::open(&p.config).unwrap().unmount().unwrap();
    let (device, held) = attach_device(&File::options().read(true).write(true).open(p.image()).unwrap());
    let pool = Pool::open(&p.config).unwrap();
    assert_eq!(mount::at(&pool.root()).unwrap().unwrap().source, device);
    drop(held);
    pool.unmount().unwrap();
    assert!(!is_attached(&p.image()));
}

#[test]
fn the_next_open_recovers_from_a_kill_after_any_step() {
    use Step::*;
    for step in [Locked, Announced, ImageMade, Formatted, Named, Attached, Mounted, LaidOut, Recorded, Ready, DeviceGrown, FileSystemGrown] {
        let p = Place::new();
        let e = open::open(&p.config, &|s| s == step).unwrap_err();
        assert!(e.message().contains("stopped"), "{step:?}: {e}");
        if step == ImageMade {
            // Killed in the middle of mkfs.
            let half = File::options().write(true).open(p.image().with_extension("img.new")).unwrap();
            half.write_all_at(b"!BHRfS_M", 0x10040).unwrap();
        }
        let pool = Pool::open(&p.config).unwrap_or_else(|e| panic!("after {step:?}: {e}"));
        pool.store().unwrap();
        assert_eq!(pool.record().pool_id, Pool::peek(&p.config).unwrap().unwrap().pool_id);
        pool.unmount().unwrap();
        let mut left: Vec<_> = std::fs::read_dir(&p.config.data).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [IMAGE, "pool.lock"], "after {step:?}");
        assert!(!is_attached(&p.image()), "after {step:?}");
    }
}

#[test]
fn the_next_open_finishes_an_interrupted_grow() {
    for step in [Step::ImageGrown, Step::DeviceGrown] {
        let mut p = Place::new();
        drop(Pool::open(&p.config).unwrap());
        p.config.size = Some(Bytes::gib(3));
        open::open(&p.config, &|s| s == step).unwrap_err();
        p.config.size = None;
        let pool = Pool::open(&p.config).unwrap();
        assert_eq!(pool.space().unwrap().total, Bytes::gib(3), "after {step:?}");
    }
}

#[test]
fn a_pool_grows_while_mounted_and_never_shrinks() {
    let mut p = Place::new();
    drop(Pool::open(&p.config).unwrap());
    p.config.size = Some(Bytes::gib(2));
    let pool = Pool::open(&p.config).unwrap();
    assert_eq!(pool.space().unwrap().total, Bytes::gib(2));
    drop(pool);
    p.config.size = Some(Bytes::gib(1));
    assert_eq!(code(Pool::open(&p.config)), Code::PoolShrink);
    p.config.size = Some(Bytes::mib(1));
    assert_eq!(code(Pool::open(&p.config)), Code::PoolTooSmall);
}

#[test]
fn a_data_directory_has_one_server_and_a_machine_may_have_two_pools() {
    let a = LoopPool::new();
    let b = LoopPool::new();
    assert_ne!(a.pool().record().pool_id, b.pool().record().pool_id);
    let mut config = PoolConfig::new(a.pool().data_dir(), a.pool().run_dir());
    assert_eq!(code(Pool::open(&config)), Code::DataInUse);
    assert_eq!(code(Pool::take_down(&config)), Code::DataInUse);
    config.data = a.pool().data_dir().with_file_name("other");
    config.size = Some(Bytes::gib(1));
    assert_eq!(code(Pool::open(&config)), Code::MountPointInUse);
}

#[test]
fn foreign_file_systems_are_refused_and_not_changed() {
    let write = |p: &Place, at: u64, magic: &[u8]| {
        std::fs::create_dir_all(&p.config.data).unwrap();
        let f = File::create(p.image()).unwrap();
        f.set_len(1 << 30).unwrap();
        f.write_all_at(magic, at).unwrap();
    };
    for (at, magic) in [(0x438, &b"\x53\xef"[..]), (0, b"XFSB"), (510, b"\x55\xaa"), (70_000, b"?")] {
        let p = Place::new();
        write(&p, at, magic);
        assert_eq!(code(Pool::open(&p.config)), Code::PoolForeign);
        assert!(!p.config.mount_point().exists());
    }
    // A foreign BTRFS, on an image and on a device.
    let p = Place::new();
    write(&p, 0, b"");
    assert!(Command::new("mkfs.btrfs").args(["-q", "-f"]).arg(p.image()).status().unwrap().success(), "this test needs mkfs.btrfs");
    let before = sum(&p.image());
    assert_eq!(code(Pool::open(&p.config)), Code::PoolForeign);
    let (device, held) = attach_device(&File::options().read(true).write(true).open(p.image()).unwrap());
    let mut on_device = PoolConfig::new(p.dir.path().join("data2"), p.dir.path().join("run2"));
    on_device.device = Some(device);
    assert_eq!(code(Pool::open(&on_device)), Code::PoolForeign);
    drop(held);
    assert_eq!(mount::at(&p.config.mount_point()).unwrap(), None);
    assert_eq!(sum(&p.image()), before, "not one byte was changed");
}

/// The superblocks and the start of an image; whatever mounts a file system for writing changes them.
fn sum(image: &Path) -> Vec<u8> {
    let mut start = vec![0; 8 << 20];
    File::open(image).unwrap().read_exact_at(&mut start, 0).unwrap();
    start
}

#[test]
fn an_empty_device_becomes_a_pool() {
    let p = Place::new();
    let backing = p.dir.path().join("disk");
    let file = File::options().create(true).truncate(true).read(true).write(true).open(&backing).unwrap();
    file.set_len(1 << 30).unwrap();
    let (device, _held) = attach_device(&file);
    let mut config = p.config.clone();
    config.device = Some(device);
    assert_eq!(code(Pool::open(&config)), Code::PoolSizeOfDevice);
    config.size = None;
    for step in [Step::Announced, Step::Formatted, Step::Mounted] {
        open::open(&config, &|s| s == step).unwrap_err();
    }
    let pool = Pool::open(&config).unwrap();
    let id = pool.record().pool_id;
    pool.unmount().unwrap();
    let pool = Pool::open(&config).unwrap();
    assert_eq!(pool.record().pool_id, id);
    pool.unmount().unwrap();
    config.device = Some(backing);
    assert_eq!(code(Pool::open(&config)), Code::NotADevice);
}

#[test]
fn the_record_decides_whether_a_pool_is_opened() {
    let mut p = Place::new();
    drop(Pool::open(&p.config).unwrap());
    p.config.id_base = Some(300_000);
    assert_eq!(code(Pool::open(&p.config)), Code::IdBaseMismatch);
    p.config.id_base = Some(DEFAULT_ID_BASE);
    p.config.server_name = Some("new".into());
    assert_eq!(Pool::open(&p.config).unwrap().record().server_name.as_deref(), Some("new"));
    let path = p.config.mount_point().join(layout::RECORD);
    std::fs::write(&path, br#"{"format": 2}"#).unwrap();
    assert_eq!(code(Pool::open(&p.config)), Code::PoolTooNew);
    reboot(&p.config);
    assert_eq!(code(Pool::open(&p.config)), Code::PoolTooNew);
    assert_eq!(mount::at(&p.config.mount_point()).unwrap(), None, "nothing is left mounted");
}

#[test]
fn a_busy_pool_is_not_unmounted() {
    let p = Place::new();
    let pool = Pool::open(&p.config).unwrap();
    let held = File::open(pool.root()).unwrap();
    assert_eq!(code(pool.unmount()), Code::PoolBusy);
    drop(held);
    Pool::take_down(&p.config).unwrap();
}

#[test]
fn a_change_that_would_fill_the_pool_is_refused_before_it_begins() {
    let pool = LoopPool::new();
    pool.pool().space_guard(Bytes::mib(100)).unwrap();
    let e = pool.pool().space_guard(Bytes::gib(2)).unwrap_err();
    assert_eq!((e.kind(), e.code()), (Kind::NoSpace, Code::PoolFull));
    assert_eq!(crate::model::space::reserve(Bytes::gib(1)), Bytes::mib(64));
    assert_eq!(crate::model::space::reserve(Bytes::gib(1000)), Bytes::gib(1));
}

#[test]
fn directories_above_the_run_directory_let_containers_through() {
    let mut pool = LoopPool::new();
    pool.close();
    clean_up(pool.config());
    let deep = pool.config().run.join("made/by/us");
    pool.config().run = deep.clone();
    pool.open();
    let mode = std::os::unix::fs::PermissionsExt::mode(&deep.parent().unwrap().metadata().unwrap().permissions());
    assert_eq!(mode & 0o001, 0o001);
}

#[test]
fn a_run_directory_that_containers_cannot_reach_is_refused() {
    let mut pool = LoopPool::new();
    pool.close();
    clean_up(pool.config());
    let closed = pool.config().run.join("closed");
    std::fs::create_dir_all(&closed).unwrap();
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    pool.config().run = closed.join("run");
    let e = Pool::open(pool.config()).unwrap_err();
    assert_eq!(e.code(), Code::RunNotPassable, "{e}");
}

#[test]
fn stray_mounts_and_loop_devices_are_found() {
    let mut pool = LoopPool::new();
    let config = pool.config().clone();
    assert_eq!(Pool::look_at_mounts(&config, &[]).unwrap(), Vec::<String>::new());
    let stray = config.run.join("stray");
    std::fs::create_dir(&stray).unwrap();
    nix::mount::mount(Some("none"), &stray, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=1m")).unwrap();
    let second = super::testing::attach_free(&File::options().read(true).write(true).open(config.data.join("pool.img")).unwrap());
    let wrong = Pool::look_at_mounts(&config, &[]).unwrap();
    nix::mount::umount(&stray).unwrap();
    drop(second);
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(wrong[0].contains("stray") && wrong[1].contains("2 loop devices"), "{wrong:?}");
}

#[test]
fn a_mounted_pool_is_not_mounted_a_second_time_under_another_run_directory() {
    let mut pool = LoopPool::new();
    let first = pool.config().clone();
    assert_eq!(Pool::mounted_run(&first).unwrap(), Some(std::fs::canonicalize(&first.run).unwrap()));
    pool.close();
    let other = PoolConfig { run: first.run.join("other"), ..first.clone() };
    let e = Pool::open(&other).unwrap_err();
    assert_eq!(e.code(), Code::PoolMountedElsewhere);
    assert!(e.message().contains(&*first.run.to_string_lossy()), "{e}");
    pool.open();
}
