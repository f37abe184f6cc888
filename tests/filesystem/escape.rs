//! A container that swaps links under the hands of the server, as fast as it can, while what it shares is mounted again and again.

use super::{container, real};
use hoody_state::share::bind::BindShareMount;
use hoody_state::share::{ShareMount, Source};
use hoody_state_workspace::project;
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
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
    std::fs::create_dir_all(base.join("a/b/c")).unwrap();
    std::fs::create_dir_all(live.join("etc/b/c")).unwrap();
    for (to, name) in [("/etc", "l1"), ("../../../../../../../../etc", "l2"), ("/", "l3"), ("/proc/self/root/etc", "l4"), ("/hoody/storage/keep", "l5")] {
        std::os::unix::fs::symlink(to, base.join(name)).unwrap();
    }
    // Everything that is the owner's.
    let device = std::fs::metadata(&live).unwrap().dev();
    let outside: HashSet<(u64, u64)> = ["/", "/etc", "/proc", "/tmp"].iter().map(|p| std::fs::metadata(p).map(|m| (m.dev(), m.ino())).unwrap()).collect();
    let stop = AtomicBool::new(false);
    let (mut opened, mut refused) = (0u64, 0u64);
    std::thread::scope(|s| {
        s.spawn(|| {
            let (a, keep) = (base.join("a"), base.join("keep"));
            while !stop.load(Ordering::Relaxed) {
                for link in ["l1", "l2", "l3", "l4", "l5"] {
                    // In one step: at every instant there is a directory or a link.
                    let (x, y) = (std::fs::File::open(&base).unwrap(), base.join(link));
                    let _ = nix::fcntl::renameat2(&x, "a", &x, link, nix::fcntl::RenameFlags::RENAME_EXCHANGE);
                    let _ = std::fs::rename(&a, &keep);
                    let _ = std::fs::rename(&keep, &a);
                    let _ = nix::fcntl::renameat2(&x, "a", &x, link, nix::fcntl::RenameFlags::RENAME_EXCHANGE);
                    let _ = y;
                }
            }
        });
        let source = Source { root: live.clone(), path: "hoody/storage/a/b/c".into(), read_only: false };
        let up = Source { root: live.clone(), path: "hoody/storage/a".into(), read_only: false };
        for i in 0..attempts() {
            match BindShareMount.open(if i % 2 == 0 { &source } else { &up }) {
                Ok(tree) => {
                    opened += 1;
                    assert_eq!(tree.identity.device, device, "of the owner's volume");
                    assert!(!outside.contains(&(tree.identity.device, tree.identity.inode)));
                }
                Err(_) => refused += 1,
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{opened} opened, {refused} refused, 0 escapes");
    assert!(opened > 0, "the race was never won by the honest path: {refused} refused");
}
