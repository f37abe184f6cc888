//! Comparisons of snapshots on a loop-device BTRFS image. `cargo bench --bench diff`.
//!
//! A tree of 100,000 files in 1,000 directories. Each row runs at least 20 times; the memory is the most that the process had during the first run of a row, less
//! what it had before. The last rows are the kernel's part alone: one thread that searches both trees for the items that a comparison of 20,000 changes needs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use btrfs_uapi::tree_search::{Key, SearchFilter, SearchHeader, tree_search_v2};
use criterion::Criterion;
use hoody_state::diff::options::Options;
use hoody_state::id::{ContainerId, OperationId};
use hoody_state::model::DiffRequest;
use hoody_state::snapshot::btrfs::BtrfsStore;
use hoody_state::snapshot::{SnapshotStore, Volume, VolumePair};
use hoody_state_workspace::{RealHost, container, project};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

const DIRS: usize = 1000;
const FILES: usize = 100;

fn file(live: &Path, n: usize) -> std::path::PathBuf {
    live.join(format!("srv/tree/d{}/e{}/f{}", n / FILES / 100, n / FILES, n % FILES))
}

fn make_tree(live: &Path) {
    for d in 0..DIRS {
        std::fs::create_dir_all(file(live, d * FILES).parent().unwrap()).unwrap();
        for f in 0..FILES {
            std::fs::write(file(live, d * FILES + f), format!("file {f} of {d}")).unwrap();
        }
    }
    // And as many in one directory.
    std::fs::create_dir(live.join("srv/flat")).unwrap();
    for f in 0..DIRS * FILES {
        std::fs::write(live.join(format!("srv/flat/f{f}")), "x").unwrap();
    }
}

/// 20,000 changes: as many written, renamed, deleted and created.
fn change_many(live: &Path) {
    for (i, n) in (0..DIRS * FILES).step_by(5).enumerate() {
        let at = file(live, n);
        match i % 4 {
            0 => std::fs::write(&at, "changed").unwrap(),
            1 => std::fs::rename(&at, at.with_extension("moved")).unwrap(),
            2 => std::fs::remove_file(&at).unwrap(),
            _ => std::fs::write(at.with_extension("new"), "new").unwrap(),
        }
    }
}

/// A line of the memory that the process has, in KiB.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|l| l.strip_prefix(line)).unwrap().trim().trim_end_matches(" kB").parse().unwrap()
}

/// How much more memory than before the process has at most during `f`, in KiB.
fn peak(f: impl FnOnce()) -> u64 {
    let before = memory("VmRSS:");
    // Sets the peak to what is now.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    f();
    memory("VmHWM:").saturating_sub(before)
}

/// Searches a tree for the items of inodes in a range, in blocks younger than `since`; how many there are.
fn search(root: &Path, (first, last): (u64, u64), since: u64) -> u64 {
    let open = std::fs::File::open(root).unwrap();
    let key = |objectid, item_type, offset| Key { objectid, item_type, offset };
    let filter = SearchFilter {
        tree_id: btrfs_uapi::inode::lookup_path_rootid(open.as_fd()).unwrap(),
        start: key(first, 0, 0),
        end: key(last, u32::MAX, u64::MAX),
        min_transid: since,
        max_transid: u64::MAX,
    };
    let mut n = 0;
    let count = |_: &SearchHeader, _: &[u8]| {
        n += 1;
        Ok(())
    };
    tree_search_v2(open.as_fd(), filter, Some(256 << 10), count).unwrap();
    n
}

fn compare(store: &BtrfsStore, old: &Volume, new: &Volume) -> u64 {
    let mut n = 0;
    let pair = VolumePair { old: Some(old), new: Some(new), prefix: b"", ancestor: None, small: false };
    let mut sink = |_| {
        n += 1;
        Ok(ControlFlow::Continue(()))
    };
    store.compare(&[pair], &Options::default(), &mut sink).unwrap();
    n
}

fn main() {
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let real = RealHost::new("diff");
    let host = real.host();
    let p = project(host, "bench");
    let c: ContainerId = container(host, &p, "dev").unwrap();
    let live = real.live(&c);
    let store = BtrfsStore::open(&real.config.run.join("pool")).unwrap();
    let mut cr = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500)).configure_from_args();
    let take = |name: &str| {
        let volume = Volume::Snapshot(c.clone(), name.parse().unwrap());
        store.snapshot(&Volume::Live(c.clone()), &volume, &OperationId::generate()).unwrap();
        volume
    };
    make_tree(&live);
    let base = take("s0");
    std::fs::write(file(&live, 54_321), "changed").unwrap();
    let one = take("s1");
    std::fs::write(live.join("srv/flat/another"), "x").unwrap();
    let added = take("s2");
    std::fs::remove_file(live.join("srv/flat/f777")).unwrap();
    let removed = take("s3");
    change_many(&live);
    let many = take("s4");
    let rows = [
        ("one of 100,000 files written", &base, &one, 1),
        ("one file created beside 100,000 in one directory", &one, &added, 1),
        ("one of 100,000 files in one directory deleted", &added, &removed, 1),
        ("20,000 of 100,000 changed", &removed, &many, 20_000),
        ("20,000 of 100,000 changed, the other way", &many, &removed, 20_000),
    ];
    for (what, old, new, expected) in rows {
        let grown = peak(|| assert_eq!(compare(&store, old, new), expected, "{what}"));
        println!("{what}: {expected} records, at most {grown} KiB more memory");
        cr.bench_function(what, |b| b.iter(|| compare(&store, old, new)));
    }
    let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(live.join(name)).unwrap());
    // The tree was made before the large directory.
    let files = (inode("srv/tree"), inode("srv/flat") - 1);
    let since = store.info(&removed).unwrap().unwrap().created.0 + 1;
    let [old, new] = [&removed, &many].map(|v| store.path(v).unwrap());
    println!("bare searches: {} items of the old tree, {} of the new one", search(&old, files, 0), search(&new, (256, u64::MAX - 255), since));
    cr.bench_function("bare searches of both trees, one thread", |b| b.iter(|| search(&old, files, 0) + search(&new, (256, u64::MAX - 255), since)));
    // With the temporary snapshot, the journal and the deletion, as a caller of the library has it.
    let before = host.create_snapshot(&hoody_state::Caller::default(), &c, Default::default()).unwrap().snapshot;
    std::fs::write(file(&live, 54_321), "changed again").unwrap();
    let request = DiffRequest { to: "live".into(), ..DiffRequest::default() };
    cr.bench_function("one of 100,000 files written, with the present state", |b| {
        b.iter(|| {
            let summary = host.diff(&c, before.name.as_str(), &request, &|| false, &mut |_| Ok(())).unwrap();
            assert_eq!(summary.records, 1);
        });
    });
    cr.final_summary();
}
