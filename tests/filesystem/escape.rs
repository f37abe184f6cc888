//! A container that swaps links under the hands of the server, as fast as it can, while what it shares is mounted again and again.
//! `ESCAPE_ATTEMPTS=100000 cargo test --test filesystem no_swap` is the full count.

use super::{container, real};
use hoody_state::Code;
use hoody_state::share::bind::BindShareMount;
use hoody_state::share::{ShareMount, Source};
use hoody_state_workspace::project;
use nix::fcntl::{RenameFlags, renameat2};
use std::collections::HashMap;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

/// As many as the issue asks for when told to; fewer in CI.
fn attempts() -> u64 {
    std::env::var("ESCAPE_ATTEMPTS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000)
}

#[test]
fn no_swap_of_links_leads_a_share_out_of_its_owner() {
    let real = real("escape");
    let p = project(real.host(), "web");
    let owner = container(&real, &p, "owner", |_| {});
    let live = real.live(&owner);
    let base = live.join("hoody/storage");
    for dir in ["hoody/storage/a/b/c", "etc/b/c", "hoody/databases/b/c"] {
        std::fs::create_dir_all(live.join(dir)).unwrap();
    }
    let links = [
        ("/etc", "l1"),
        ("../../../../../../../../etc", "l2"),
        ("/", "l3"),
        ("/proc/self/root/etc", "l4"),
        ("/hoody/storage/keep", "l5"),
        ("/hoody/databases", "l6"),
        ("../..", "l7"),
    ];
    for (to, name) in links {
        symlink(to, base.join(name)).unwrap();
    }
    // Of the owner's volume, and not of what it sees in another way: everything else is an escape.
    let device = std::fs::metadata(&live).unwrap().dev();
    let inode = |p: &str| std::fs::metadata(live.join(p)).unwrap().ino();
    let closed: Vec<u64> = ["hoody/databases", "hoody/databases/b", "hoody/databases/b/c"].map(inode).to_vec();
    let stop = AtomicBool::new(false);
    let (mut opened, mut refused) = (HashMap::<u64, u64>::new(), HashMap::<Code, u64>::new());
    std::thread::scope(|s| {
        s.spawn(|| {
            let (a, keep) = (base.join("a"), base.join("keep"));
            let dir = std::fs::File::open(&base).unwrap();
            while !stop.load(Ordering::Relaxed) {
                for (_, link) in links {
                    // In one step: at every instant there is a directory or a link.
                    let _ = renameat2(&dir, "a", &dir, link, RenameFlags::RENAME_EXCHANGE);
                    let _ = renameat2(&dir, "a", &dir, link, RenameFlags::RENAME_EXCHANGE);
                    let _ = std::fs::rename(&a, &keep);
                    let _ = std::fs::rename(&keep, &a);
                }
            }
        });
        let databases = vec!["hoody/databases".into()];
        let source =
            |path: &str| Source { root: live.clone(), path: path.into(), read_only: false, not_above: databases.clone(), not_within: databases.clone() };
        let sources = [source("hoody/storage/a/b/c"), source("hoody/storage/a")];
        for i in 0..attempts() {
            match BindShareMount.open(&sources[i as usize % 2]) {
                Ok(tree) => {
                    *opened.entry(tree.identity.inode).or_default() += 1;
                    assert_eq!(tree.identity.device, device, "of the owner's volume");
                    assert!(!closed.contains(&tree.identity.inode), "beside the lock broker");
                }
                Err(e) => *refused.entry(e.code()).or_default() += 1,
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{} attempts: opened {} ({} directories of the owner), refused {refused:?}, 0 escapes", attempts(), opened.values().sum::<u64>(), opened.len());
    assert!(opened.len() > 1, "the race was never on: {opened:?}, {refused:?}");
}
