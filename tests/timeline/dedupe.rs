//! Merging equal data of a real pool, from the request to the free space.

use super::frees::{MIB, OnDisk, Pool};
use super::me;
use hoody_state::model::{DedupePool, NewContainer, OperationStatus};
use hoody_state::{Caller, Code};
use hoody_state_workspace::{RealHost, assert_clean, container, fingerprint, project, snapshot};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Writes bytes that no block repeats, a MiB at a time, so that two files of the same bytes need not have the same extents.
fn write(path: &Path, seed: u64, mib: u64) {
    let mut file = File::create(path).unwrap();
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for _ in 0..mib {
        let words = (0..MIB / 8).map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x.to_le_bytes()
        });
        file.write_all(&words.flatten().collect::<Vec<u8>>()).unwrap();
    }
    file.sync_all().unwrap();
}

#[test]
fn an_image_imported_twice_and_a_file_written_twice_take_their_space_once() {
    let pool = OnDisk(RealHost::new("dedupe"));
    let host = pool.host();
    let p = project(host, "web");
    let mut tar = Vec::new();
    hoody_state::image::demo::busybox_rootfs(Path::new("/bin/busybox"), &mut tar).unwrap();
    let image = host.import_image(&me(), "again", &mut &tar[..]).unwrap().size.0;
    let new = NewContainer { name: Some("of-again".into()), container_image: Some("again".into()), ..Default::default() };
    let of_again = host.create_container(&me(), &p, new).unwrap().id;
    let (a, b) = (container(host, &p, "first").unwrap(), container(host, &p, "second").unwrap());
    let live = |c, path: &str| pool.0.live(c).join(path);
    // A snapshot holds what `a` has of this; `b` can give its own up.
    write(&live(&a, "held"), 1, 4);
    write(&live(&b, "held"), 1, 4);
    snapshot(host, &a, "holds").unwrap();
    write(&live(&a, "data"), 2, 64);
    write(&live(&b, "other-name"), 2, 64);
    let (before, free) = (pool.used(), host.pool().unwrap().free.0);
    let files = || (fingerprint(&live(&of_again, "bin")), std::fs::read(live(&a, "data")).unwrap() == std::fs::read(live(&b, "other-name")).unwrap());
    let was = files();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        let guard = StopOnDrop(&stop);
        // Somebody writes meanwhile, beyond the end of the file and in a file of its own.
        s.spawn(|| {
            for n in 0..u64::MAX {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let file = OpenOptions::new().create(true).truncate(false).write(true).open(live(&b, "changing")).unwrap();
                file.write_all_at(&n.to_le_bytes(), n % 256 * 4096).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let at_once = Caller { wait: Duration::ZERO, ..me() };
        let begun = host.dedupe_pool(&at_once, &DedupePool::default()).unwrap();
        if begun.result.is_none() {
            let refused = host.dedupe_pool(&at_once, &DedupePool::default()).unwrap_err();
            assert_eq!(refused.code(), Code::OperationInProgress, "{refused}");
        }
        // It holds no lock of a container.
        snapshot(host, &of_again, "meanwhile").unwrap();
        host.delete_snapshot(&me(), &of_again, "meanwhile").unwrap();
        let ended = host.wait_operation(&begun.operation_id, Duration::from_secs(120)).unwrap();
        assert_eq!(ended.status, OperationStatus::Succeeded, "{:?}", ended.error);
        drop(guard);
    });
    assert!(files() == was && was.1);
    let last = host.last_dedupe(None).unwrap().last.unwrap();
    let gained = last.gained_bytes.0;
    // The snapshot that was taken meanwhile may have held the image for a moment; then the next run gains it.
    let rest = host.dedupe_pool(&me(), &DedupePool::default()).unwrap().result.unwrap().gained_bytes.0;
    let all = 68 * MIB + image / 2;
    assert!(gained >= 68 * MIB && (all..=68 * MIB + image + MIB).contains(&(gained + rest)), "{last:?}, then {rest}; the image has {image}");
    let (back, more) = (before - pool.used(), host.pool().unwrap().free.0 - free);
    assert!(back.abs_diff(gained + rest) < 3 * MIB && more > 60 * MIB, "{gained} and {rest} gained, {back} came back, {more} more are free");
    assert_eq!(host.dedupe_pool(&me(), &DedupePool::default()).unwrap().result.unwrap().gained_bytes.0, 0);
    assert_clean(host, "after merging equal data");
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
