//! Restoring single files beside the bare calls, in turn and in all orders, medians. `cargo bench --bench restore_files`.
//!
//! Beside it: a reflink and a snapshot; the same with `fsync` of the copy and its directory; and the calls that give the same guarantees as a restore: a synced
//! block of a journal, the snapshot, the reflink, the rename, and a commit of what was renamed.
//! `ROUNDS=40` for more rounds than 20.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use hoody_state::id::ContainerId;
use hoody_state::model::RestoreFiles;
use hoody_state::units::Bytes;
use hoody_state::{Caller, Host};
use hoody_state_workspace::{RealHost, bare_delete, bare_snapshot, container, median, project, snapshot};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

const SIZE: u64 = 1 << 30;

/// A file of random bytes, in extents of the size that a plain copy gives them.
fn large(path: &Path) {
    let (mut random, mut file) = (File::open("/dev/urandom").unwrap(), File::create(path).unwrap());
    let mut block = vec![0; 1 << 20];
    for _ in 0..SIZE >> 20 {
        random.read_exact(&mut block).unwrap();
        file.write_all(&block).unwrap();
    }
    file.sync_all().unwrap();
}

/// A file that is written in place at many spots, as a disk image or a database is: it has many extents.
fn scattered(path: &Path) {
    large(path);
    let file = File::options().write(true).open(path).unwrap();
    for i in 0..4096u64 {
        file.write_all_at(&i.to_le_bytes().repeat(512), i * (SIZE / 4096)).unwrap();
        if i % 64 == 0 {
            file.sync_all().unwrap();
        }
    }
    file.sync_all().unwrap();
}

fn spoil(path: &Path, n: usize) {
    File::options().write(true).open(path).unwrap().write_all_at(&n.to_le_bytes().repeat(512), 4096).unwrap();
}

/// A reflink into a new file.
fn reflink(from: &Path, to: &Path) -> File {
    let (source, target) = (File::open(from).unwrap(), File::create_new(to).unwrap());
    share_all(&target, &source);
    target
}

fn share_all(target: &File, source: &File) {
    use std::os::fd::AsFd;
    btrfs_uapi::send_receive::clone_range(target.as_fd(), source.as_fd(), 0, 0, 0).unwrap();
}

/// Commits the pool, and waits for no data that somebody has written into files.
fn commit(on: &File) {
    use std::os::fd::AsFd;
    let label = btrfs_uapi::filesystem::label_get(on.as_fd()).unwrap();
    btrfs_uapi::filesystem::label_set(on.as_fd(), &label).unwrap();
}

/// A file as the catalog's: its blocks are overwritten in place.
fn journal_in(pool: &Path) -> File {
    let dir = pool.join("bench/journal");
    std::fs::create_dir_all(&dir).unwrap();
    assert!(std::process::Command::new("chattr").arg("+C").arg(&dir).status().unwrap().success());
    let file = File::create(dir.join("file")).unwrap();
    file.write_all_at(&[0; 4096], 0).unwrap();
    file.sync_all().unwrap();
    file
}

struct Stage<'a> {
    real: &'a RealHost,
    host: &'a Host,
    c: ContainerId,
}

impl Stage<'_> {
    /// Medians of a restore, of the bare calls, of the bare calls made durable, and of those that guarantee what a restore does.
    fn measure(&self, name: &str, rounds: usize) -> [f64; 4] {
        let live = self.real.live(&self.c);
        let (file, scratch) = (live.join(name), self.real.config.run.join("pool/bench"));
        let saved = self.real.config.run.join("pool/containers").join(self.c.as_str()).join("snapshots").join("s").join(name);
        let timed = |f: &mut dyn FnMut()| {
            let t = Instant::now();
            f();
            t.elapsed().as_secs_f64() * 1e3
        };
        let restore = || {
            let files = RestoreFiles { paths: vec![format!("/{name}")], ..Default::default() };
            let done = self.host.restore_files(&Caller::default(), &self.c, "s", files).unwrap();
            assert!(done.failed.is_empty());
        };
        let bare = |durable: bool| {
            bare_snapshot(&live, &scratch, "undo", true);
            let new = live.join("new");
            let f = reflink(&saved, &new);
            if durable {
                f.sync_all().unwrap();
            }
            std::fs::rename(&new, &file).unwrap();
            if durable {
                File::open(&live).unwrap().sync_all().unwrap();
            }
        };
        let journal = journal_in(&self.real.config.run.join("pool"));
        let same = || {
            journal.write_all_at(&[1; 4096], 0).unwrap();
            journal.sync_data().unwrap();
            bare_snapshot(&live, &scratch, "undo", true);
            let new = live.join("new");
            drop(reflink(&saved, &new));
            std::fs::rename(&new, &file).unwrap();
            commit(&journal);
        };
        let mut all = [const { Vec::new() }; 4];
        for round in 0..rounds {
            for which in 0..4 {
                let which = (which + round) % 4;
                spoil(&file, round);
                File::open(&file).unwrap().sync_all().unwrap();
                let took = match which {
                    0 => timed(&mut || restore()),
                    1 => timed(&mut || bare(false)),
                    2 => timed(&mut || bare(true)),
                    _ => timed(&mut || same()),
                };
                all[which].push(took);
                if which > 0 {
                    bare_delete(&scratch, "undo");
                }
                for s in self.host.snapshots(&self.c).unwrap().snapshots.iter().filter(|s| s.name.as_str().starts_with("undo-")) {
                    self.host.delete_snapshot(&Caller::default(), &self.c, s.name.as_str()).unwrap();
                }
            }
        }
        all.map(median)
    }
}

fn main() {
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let rounds = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let real = RealHost::sized("bench-restore", Bytes::gib(6));
    let host = real.host();
    let p = project(host, "bench");
    let c = container(host, &p, "box").unwrap();
    let live = real.live(&c);
    std::fs::create_dir_all(real.config.run.join("pool/bench")).unwrap();
    large(&live.join("large"));
    scattered(&live.join("scattered"));
    snapshot(host, &c, "s").unwrap();
    let stage = Stage { real: &real, host, c };
    println!(
        "| what | restore-files | reflink + snapshot | ratio | the same, synced | ratio | calls with the same guarantees | ratio |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
    );
    for (what, name) in [("one file of 1 GiB", "large"), ("the same, written in place at 4,096 spots", "scattered")] {
        let [ours, bare, synced, same] = stage.measure(name, rounds);
        println!("| {what} | {ours:.1} ms | {bare:.1} ms | {:.2} | {synced:.1} ms | {:.2} | {same:.1} ms | {:.2} |", ours / bare, ours / synced, ours / same);
    }
}
