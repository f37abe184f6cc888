//! The table of docs/filesystem.md: each figure beside what it is measured against, in turn and in both orders, medians. `cargo bench --bench filesystem`;
//! `ONLY=shares` (writers, twenty, revert, ramdisk, shares, many) for one part. What is a yes or no is in `tests/filesystem/`.
//!
//! Needs root, BTRFS, FUSE, a loop device, runc and a static busybox.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use hoody_state::id::{ContainerId, ProjectId};
use hoody_state::model::{DatabaseScope, DatabasesChoice, NewContainer, NewShare, NewSnapshot, RestoreOptions, ShareMode, ShareUpdate, ShareWord, Verb};
use hoody_state::{Caller, Host};
use hoody_state_workspace::worker::{import, line, play, said};
use hoody_state_workspace::{RealHost, bare_delete, bare_snapshot, median, ms, project};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const ROUNDS: usize = 30;

fn row(what: &str, figure: &str, beside: &str, target: &str) {
    println!("| {what} | {figure} | {beside} | {target} |");
}

fn worst(v: &[f64]) -> f64 {
    v.iter().copied().fold(0.0, f64::max)
}

fn container(host: &Host, p: &ProjectId, name: &str, f: impl FnOnce(&mut NewContainer)) -> ContainerId {
    let mut new = NewContainer { name: Some(name.into()), ..Default::default() };
    f(&mut new);
    host.create_container(&Caller::default(), p, new).unwrap().id
}

fn worker(n: &mut NewContainer) {
    n.container_image = Some("worker".into());
}

/// What the library says while it works.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Heard {
    fn write(&mut self, b: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(b);
        Ok(b.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Heard {
    /// How long databases were held, in ms.
    fn held(&self) -> Vec<f64> {
        let text = String::from_utf8_lossy(&std::mem::take(&mut *self.0.lock().unwrap())).into_owned();
        text.lines().filter_map(|l| l.split("held_us=").nth(1)?.split(' ').next()?.parse::<f64>().ok()).map(|us| us / 1e3).collect()
    }
}

/// Two containers, eight writers each, one database, nobody patient; a snapshot every 100 ms.
fn writers(real: &RealHost) {
    let p = project(real.host(), "writers");
    let (a, b) = (container(real.host(), &p, "one", worker), container(real.host(), &p, "two", worker));
    real.sh(&a, &line("init /hoody/databases/data.db"));
    let (mut taken, mut quiet) = (0, 0);
    let added: i64 = std::thread::scope(|s| {
        let threads: Vec<_> = [&a, &a, &b, &b].into_iter().map(|c| s.spawn(|| real.sh(c, &line("add /hoody/databases/data.db 4 10000")))).collect();
        let end = Instant::now() + Duration::from_secs(9);
        while Instant::now() < end {
            let s = real.host().create_snapshot(&Caller::default(), &a, NewSnapshot::default()).unwrap().snapshot;
            taken += 1;
            quiet += usize::from(s.consistency == hoody_state::model::Consistency::DatabasesQuiesced);
            std::thread::sleep(Duration::from_millis(100));
        }
        threads.into_iter().map(|t| said::<i64>(&t.join().unwrap(), "added")).sum()
    });
    let sum: i64 = said(&real.sh(&b, &line("sum /hoody/databases/data.db")), "sum");
    row(
        "two containers, 8 writers each, one database, busy_timeout 0, a snapshot every 100 ms, 10 s",
        &format!("0 errors, {added} transactions, sum {sum}"),
        &format!("{quiet} of {taken} snapshots with no transaction half done"),
        "0 errors, sums exact",
    );
    assert_eq!(added, sum);
}

/// A snapshot with 20 databases under write, one of a container without under the same load, and the bare ioctl.
fn twenty(real: &RealHost, heard: &Heard) {
    let p = project(real.host(), "twenty");
    let busy = container(real.host(), &p, "busy", worker);
    let alone = container(real.host(), &p, "alone", |n| n.databases = Some(DatabaseScope::Private));
    for i in 0..20 {
        real.sh(&busy, &line(&format!("init /hoody/databases/d{i}.db")));
    }
    let scratch = real.config.run.join("pool/bench");
    std::fs::create_dir_all(&scratch).unwrap();
    let (mut with, mut without, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    let snap = |c: &ContainerId| drop(real.host().create_snapshot(&Caller::default(), c, NewSnapshot::default()).unwrap());
    heard.held();
    let mut held = Vec::new();
    std::thread::scope(|s| {
        let load: Vec<_> = (0..20)
            .map(|i| {
                let busy = &busy;
                s.spawn(move || real.sh(busy, &line(&format!("add /hoody/databases/d{i}.db 1 15000"))))
            })
            .collect();
        std::thread::sleep(Duration::from_secs(2));
        for i in 0..ROUNDS {
            for k in 0..3 {
                std::thread::sleep(Duration::from_millis(20));
                match (i + k) % 3 {
                    0 => {
                        heard.held();
                        with.push(ms(|| snap(&busy)));
                        held.extend(heard.held());
                    }
                    1 => without.push(ms(|| snap(&alone))),
                    _ => bare.push(ms(|| bare_snapshot(&real.live(&alone), &scratch, &format!("b{i}"), true))),
                }
            }
        }
        load.into_iter().for_each(|l| drop(l.join().unwrap()));
    });
    (0..ROUNDS).for_each(|i| bare_delete(&scratch, &format!("b{i}")));
    std::fs::remove_dir(&scratch).unwrap();
    let most = worst(&held);
    let (w, o, b) = (median(with), median(without), median(bare));
    let beside = format!("without databases, same load {o:.1} ms: {:.2} x; the ioctl alone {b:.1} ms", w / o);
    row("snapshot with 20 databases under write", &format!("{w:.1} ms"), &beside, "<= 2 x");
    let over = held.iter().filter(|h| **h > 20.0).count();
    let beside = format!("{most:.1} ms at most, {over} of {} over 20", held.len());
    row("… for which writers are held", &format!("{:.1} ms", median(held)), &beside, "<= 20 ms");
}

/// A restore that takes back a database of 100 KiB which another container writes, beside one that leaves it alone.
fn revert(real: &RealHost) {
    let p = project(real.host(), "revert");
    let (mine, other) = (container(real.host(), &p, "mine", worker), container(real.host(), &p, "other", worker));
    real.sh(&mine, &line("init /hoody/databases/data.db"));
    let me = Caller::default();
    let taken = real.host().create_snapshot(&me, &mine, NewSnapshot::default()).unwrap().snapshot;
    let restore = |d| {
        let options = RestoreOptions { databases: Some(d), ..Default::default() };
        ms(|| drop(real.host().restore(&me, &mine, taken.name.as_str(), options).unwrap()))
    };
    let (mut reverted, mut kept) = (Vec::new(), Vec::new());
    std::thread::scope(|s| {
        let load = s.spawn(|| real.sh(&other, &line("add /hoody/databases/data.db 4 20000")));
        for i in 0..20 {
            for first in [i % 2 == 0, i % 2 != 0] {
                if first { reverted.push(restore(DatabasesChoice::Revert)) } else { kept.push(restore(DatabasesChoice::Keep)) }
            }
        }
        // It would have ended with the first error.
        let done: u64 = said(&load.join().unwrap(), "added");
        assert!(done > 0);
    });
    let (r, k) = (median(reverted), median(kept));
    row(
        "restore that reverts a database which a second container writes",
        &format!("{r:.0} ms, 0 errors there"),
        &format!("with databases kept {k:.0} ms: {:.2} x", r / k),
        "0 errors",
    );
}

/// The RAM disk beside the container's own /dev/shm, a bare tmpfs, by one program in turn.
fn ramdisk(real: &RealHost) {
    let p = project(real.host(), "memory");
    let c = container(real.host(), &p, "ram", worker);
    let mut all: [Vec<(f64, f64, f64)>; 2] = Default::default();
    for i in 0..20 {
        for k in 0..2 {
            let which = (i + k) % 2;
            let out = real.sh(&c, &line(&format!("disk {} 48 3", ["/ramdisk", "/dev/shm"][which])));
            all[which].push((said(&out, "write"), said(&out, "read"), said(&out, "small")));
        }
    }
    beside_a_floor(&all, "/ramdisk", "a bare tmpfs", "< 1 us, >= 0.98");
}

/// Rows of what was measured in turn, ours first: the ratio is the median of those of neighbours in time, so that what else the machine does is in both.
fn beside_a_floor(all: &[Vec<(f64, f64, f64)>; 2], what: &str, floor: &str, target: &str) {
    let of = |i: usize, f: fn(&(f64, f64, f64)) -> f64| median(all[i].iter().map(f).collect());
    let ratio = |f: fn(&(f64, f64, f64)) -> f64| median(all[0].iter().zip(&all[1]).map(|(a, b)| f(a) / f(b)).collect());
    for (how, f) in [("write", (|x| x.0) as fn(&(f64, f64, f64)) -> f64), ("read", |x| x.1)] {
        let beside = format!("{floor} {:.1} GiB/s: {:.2} x", of(1, f), ratio(f));
        row(&format!("{what}, {how} in 1 MiB blocks"), &format!("{:.1} GiB/s", of(0, f)), &beside, ">= 0.98");
    }
    let small = |x: &(f64, f64, f64)| x.2;
    let beside = format!("{floor} {:.2} us: {:.2} x as fast", of(1, small), 1.0 / ratio(small));
    row(&format!("{what}, write of 512 bytes anywhere"), &format!("{:.2} us", of(0, small)), &beside, target);
}

fn offer(real: &RealHost, owner: &ContainerId, path: &str, target: Result<&ContainerId, &ProjectId>) -> hoody_state::id::ShareId {
    let new = NewShare {
        source_path: path.into(),
        mode: ShareMode::Readwrite,
        target_container_id: target.ok().cloned(),
        target_project_id: target.err().cloned(),
        alias: None,
        label: None,
        description: None,
        enabled: None,
        expires_at: None,
    };
    real.host().create_share(&Caller::default(), owner, new).unwrap().id
}

/// Accepting and revoking, and what a share costs.
fn shares(real: &RealHost) {
    let p = project(real.host(), "sharing");
    let (owner, receiver) = (container(real.host(), &p, "owner", worker), container(real.host(), &p, "receiver", worker));
    real.sh(&owner, "mkdir /hoody/storage/docs");
    let id = offer(real, &owner, "/hoody/storage/docs", Ok(&receiver));
    let say = |mount| drop(real.host().set_share_mount(&Caller::default(), &receiver, &id, ShareWord { mount }).unwrap());
    let me = Caller::default();
    let enable = |enabled| drop(real.host().update_share(&me, &owner, &id, ShareUpdate { enabled: Some(enabled), ..Default::default() }).unwrap());
    // The floor: a durable write of the catalog's disk, a bind and an unbind.
    let on = real.dir.join("bare");
    std::fs::create_dir(&on).unwrap();
    let from = real.live(&owner).join("hoody/storage/docs");
    let journal = real.config.run.join("pool/bench-journal");
    let bare_write = || {
        use std::io::Write;
        let mut f = std::fs::File::options().create(true).append(true).open(&journal).unwrap();
        f.write_all(&[0; 4096]).unwrap();
        f.sync_all().unwrap();
    };
    let bare = |mount: bool| {
        bare_write();
        if mount {
            nix::mount::mount(Some(&from), &on, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>).unwrap();
        } else {
            nix::mount::umount2(&on, nix::mount::MntFlags::MNT_DETACH).unwrap();
        }
    };
    let (mut yes, mut no, mut off, mut bind, mut unbind) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for i in 0..ROUNDS {
        let ours = |yes: &mut Vec<f64>, no: &mut Vec<f64>| {
            yes.push(ms(|| say(true)));
            assert_eq!(real.host().container_detail(&receiver).unwrap().mounts.iter().filter(|m| m.kind == "share").count(), 1, "visible");
            no.push(ms(|| say(false)));
        };
        if i % 2 == 0 {
            ours(&mut yes, &mut no);
        }
        bind.push(ms(|| bare(true)));
        unbind.push(ms(|| bare(false)));
        if i % 2 != 0 {
            ours(&mut yes, &mut no);
        }
        say(true);
        off.push(ms(|| enable(false)));
        enable(true);
        say(false);
    }
    std::fs::remove_dir(&on).unwrap();
    std::fs::remove_file(&journal).unwrap();
    let (b, u) = (median(bind), median(unbind));
    let beside =
        |v: &[f64], bare: f64| format!("{:.1} ms at most; a synced 4 KiB and a bind or unbind {bare:.1} ms: {:.1} x", worst(v), median(v.to_vec()) / bare);
    row("accept of a share until it is visible in the running receiver", &format!("{:.1} ms", median(yes.clone())), &beside(&yes, b), "<= 10 ms");
    row("the receiver's no", &format!("{:.1} ms", median(no.clone())), &beside(&no, u), "<= 10 ms");
    row("the owner's switch", &format!("{:.1} ms", median(off.clone())), &beside(&off, u), "<= 10 ms");
    say(true);
    let mut all: [Vec<(f64, f64, f64)>; 2] = Default::default();
    for i in 0..100 {
        for k in 0..2 {
            let which = (i + k) % 2;
            let (c, dir) = [(&receiver, "/hoody/shares/docs"), (&owner, "/hoody/storage/docs")][which];
            let out = real.sh(c, &line(&format!("disk {dir} 48 1")));
            all[which].push((said(&out, "write"), said(&out, "read"), said(&out, "small")));
        }
    }
    beside_a_floor(&all, "share", "the owner's own directory", ">= 0.98");
}

/// The start of a container, alone and among 100 with 500 shares for each.
fn many(real: &RealHost) {
    let (p, q) = (project(real.host(), "offers"), project(real.host(), "receives"));
    let me = Caller::default();
    let starts = |c: &ContainerId| {
        let mut v = Vec::new();
        for _ in 0..20 {
            real.host().lifecycle(&me, c, Verb::ForceStop, None).unwrap();
            v.push(ms(|| drop(real.host().lifecycle(&me, c, Verb::Start, None).unwrap())));
        }
        median(v)
    };
    let first = container(real.host(), &q, "first", |_| {});
    let before = starts(&first);
    let owner = container(real.host(), &p, "owner", |_| {});
    real.sh(&owner, "i=0; while [ $i -lt 500 ]; do mkdir /hoody/storage/d$i; i=$((i+1)); done");
    for i in 0..500 {
        offer(real, &owner, &format!("/hoody/storage/d{i}"), Err(&q));
    }
    let among = starts(&first);
    for i in 1..100 {
        container(real.host(), &q, &format!("c{i:02}"), |_| {});
    }
    let after = starts(&first);
    row("start of a container, alone and without shares", &format!("{before:.0} ms"), "", "");
    row("… with 500 shares", &format!("{among:.0} ms"), &format!("{:.2} x", among / before), "");
    row("… with 500 shares, 99 others running with as many", &format!("{after:.0} ms"), &format!("{:.2} x", after / before), "<= 2 x");
    let mut more = Vec::new();
    for i in 0..20 {
        real.sh(&owner, &format!("mkdir /hoody/storage/more{i}"));
        more.push(ms(|| drop(offer(real, &owner, &format!("/hoody/storage/more{i}"), Err(&q)))));
    }
    row("one share more, until 100 running containers see it", &format!("{:.0} ms", median(more.clone())), &format!("{:.0} ms at most", worst(&more)), "");
}

fn main() {
    // In a container this very program is the load.
    if play() {
        return;
    }
    // `cargo test --benches` only looks whether it builds and starts.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let heard = Heard::default();
    let writer = heard.clone();
    tracing_subscriber::fmt().with_ansi(false).with_env_filter("hoody_state::container::databases=debug").with_writer(move || writer.clone()).init();
    let daemon = hoody_state_workspace::programs::daemon();
    let real = RealHost::with_databases("filesystem", daemon);
    import(&real);
    println!("| what | median | beside it | target |\n| --- | --- | --- | --- |");
    let only = std::env::var("ONLY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only.contains(name);
    if wanted("writers") {
        writers(&real);
    }
    if wanted("twenty") {
        twenty(&real, &heard);
    }
    if wanted("revert") {
        revert(&real);
    }
    if wanted("ramdisk") {
        ramdisk(&real);
    }
    if wanted("shares") {
        shares(&real);
    }
    if wanted("many") {
        many(&real);
    }
}
