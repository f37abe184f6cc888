//! The end of a share: at once for every name, and as far as the kernel lets go for what is open.

use super::{attempt, container, eventually, offer, real, say, share, share_with_all};
use hoody_state::Caller;
use hoody_state::id::ContainerId;
use hoody_state::model::{NewShare, Share, ShareMode, ShareUpdate, Verb};
use hoody_state_workspace::{RealHost, assert_clean, at_rest, project};
use std::sync::atomic::{AtomicBool, Ordering};

/// A process in the receiver that is in the middle of a shared directory, and tries things when it is told to.
fn stander(real: &RealHost, c: &ContainerId, open: &str) {
    let line = format!(
        "cd /hoody/shares/docs && {open} && (while [ ! -e /tmp/go ]; do sleep 0.02; done; cat f > /tmp/read; \
         (echo x > new) 2>/dev/null && echo wrote > /tmp/wrote; cat <&3 > /tmp/held; echo done > /tmp/done) >/dev/null 2>&1 &"
    );
    real.sh(c, &line);
}

#[test]
fn a_process_inside_a_revoked_share_is_reported_and_cannot_write() {
    let real = real("revoke");
    let p = project(real.host(), "web");
    let (owner, receiver) = (container(&real, &p, "owner", |_| {}), container(&real, &p, "receiver", |_| {}));
    real.sh(&owner, "mkdir /hoody/storage/docs; echo hello > /hoody/storage/docs/f");
    let s = share(&real, &owner, "/hoody/storage/docs", &receiver, ShareMode::Readwrite);
    assert!(!say(&real, &receiver, &s, true));
    assert!(!say(&real, &receiver, &s, false), "nobody uses it");
    say(&real, &receiver, &s, true);
    stander(&real, &receiver, "exec 3<f");
    let ended = real.host().update_share(&Caller::default(), &owner, &s.id, ShareUpdate { enabled: Some(false), ..Default::default() }).unwrap();
    assert_eq!(ended.held_by, std::slice::from_ref(&receiver), "what is still open is said");
    assert_eq!(real.sh(&receiver, "ls /hoody/shares; touch /tmp/go"), "");
    eventually("the end of its tries", || attempt(&real, &receiver, "ls /tmp/done").exit_code == 0);
    // This the kernel does not take back; a restart of the receiver does.
    assert_eq!(real.sh(&receiver, "cat /tmp/read /tmp/held; ls /tmp/wrote 2>/dev/null; true"), "hello\nhello\n");
    assert_eq!(real.sh(&owner, "ls /hoody/storage/docs"), "f\n", "nothing was written");
    // A share that becomes read-only is another mount: who stands in the one before is named too.
    real.host().update_share(&Caller::default(), &owner, &s.id, ShareUpdate { enabled: Some(true), ..Default::default() }).unwrap();
    real.sh(&receiver, "rm -f /tmp/go /tmp/done /tmp/wrote");
    stander(&real, &receiver, "exec 3<f");
    let ended = real.host().update_share(&Caller::default(), &owner, &s.id, ShareUpdate { mode: Some(ShareMode::Readonly), ..Default::default() }).unwrap();
    assert_eq!(ended.held_by, std::slice::from_ref(&receiver));
    real.sh(&receiver, "touch /tmp/go");
    eventually("the end of its tries", || attempt(&real, &receiver, "ls /tmp/done").exit_code == 0);
    assert_ne!(attempt(&real, &receiver, "ls /tmp/wrote || echo x > /hoody/shares/docs/new").exit_code, 0);
    real.host().update_share(&Caller::default(), &owner, &s.id, ShareUpdate { mode: Some(ShareMode::Readwrite), ..Default::default() }).unwrap();
    // With a file open for writing the mount stays writable for who has it: docs/filesystem.md says so.
    real.sh(&receiver, "rm -f /tmp/go /tmp/done");
    stander(&real, &receiver, "exec 3<>f");
    assert_eq!(real.host().delete_share(&Caller::default(), &s.id).unwrap(), std::slice::from_ref(&receiver));
    real.host().lifecycle(&Caller::default(), &receiver, Verb::Restart, Some(std::time::Duration::ZERO)).unwrap();
    assert_eq!(real.sh(&receiver, "ls /hoody/shares; ls /proc | grep -c '^[0-9]*$' | xargs test 10 -gt"), "");
    assert_clean(real.host(), "after shares were revoked");
}

#[test]
fn concurrent_changes_of_a_share_leave_the_last_one_in_effect() {
    let real = real("at-once");
    let p = project(real.host(), "web");
    let me = Caller::default();
    let (owner, receiver) = (container(&real, &p, "owner", |_| {}), container(&real, &p, "receiver", |_| {}));
    real.sh(&owner, "mkdir /hoody/storage/a /hoody/storage/b");
    let shares: Vec<Share> = ["a", "b"].map(|n| share(&real, &owner, &format!("/hoody/storage/{n}"), &receiver, ShareMode::Readonly)).to_vec();
    for round in 0..3 {
        std::thread::scope(|t| {
            for s in &shares {
                t.spawn(|| (0..20).for_each(|i| _ = say(&real, &receiver, s, i % 2 == 0)));
                t.spawn(|| {
                    for i in 0..20 {
                        let mode = if i % 2 == 0 { ShareMode::Readwrite } else { ShareMode::Readonly };
                        let change = ShareUpdate { enabled: Some(i % 3 != 0), mode: Some(mode), ..Default::default() };
                        real.host().update_share(&me, &owner, &s.id, change).unwrap();
                    }
                });
            }
            // Shares that come and go, each twice at once: one is made, the other is refused.
            t.spawn(|| {
                for _ in 0..10 {
                    let new = || NewShare { target_project_id: Some(p.clone()), ..offer("/hoody/storage", ShareMode::Readonly) };
                    let made: Vec<_> = std::thread::scope(|u| {
                        let twice = [0, 1].map(|_| u.spawn(|| real.host().create_share(&me, &owner, new())));
                        twice.into_iter().map(|h| h.join().unwrap()).collect()
                    });
                    assert_eq!(made.iter().filter(|m| m.is_ok()).count(), 1, "{made:?}");
                    let id = made.iter().flatten().next().unwrap().id.clone();
                    let gone: Vec<_> =
                        std::thread::scope(|u| [0, 1].map(|_| u.spawn(|| real.host().delete_share(&me, &id))).into_iter().map(|h| h.join().unwrap()).collect());
                    assert_eq!(gone.iter().filter(|g| g.is_ok()).count(), 1, "{gone:?}");
                }
            });
        });
        for s in &shares {
            real.host().update_share(&me, &owner, &s.id, ShareUpdate { enabled: Some(true), ..Default::default() }).unwrap();
            say(&real, &receiver, s, round != 1);
        }
        assert_eq!(real.sh(&receiver, "ls /hoody/shares"), if round == 1 { "" } else { "a\nb\n" });
        assert_clean(real.host(), "after callers at once");
    }
}

/// What is said between a start's look at the shares and the end of that start was once seen by nobody.
#[test]
fn a_share_that_changes_while_its_receiver_starts_is_seen() {
    let real = real("starting");
    let p = project(real.host(), "web");
    let me = Caller::default();
    let (owner, receiver) = (container(&real, &p, "owner", |_| {}), container(&real, &p, "receiver", |_| {}));
    real.sh(&owner, "mkdir /hoody/storage/a");
    let s = share(&real, &owner, "/hoody/storage/a", &receiver, ShareMode::Readonly);
    let mut mount = false;
    for _ in 0..15 {
        let started = AtomicBool::new(false);
        std::thread::scope(|t| {
            t.spawn(|| {
                real.host().lifecycle(&me, &receiver, Verb::Restart, Some(std::time::Duration::ZERO)).unwrap();
                started.store(true, Ordering::SeqCst);
            });
            while !started.load(Ordering::SeqCst) {
                mount = !mount;
                say(&real, &receiver, &s, mount);
            }
        });
        assert_eq!(real.sh(&receiver, "ls /hoody/shares"), if mount { "a\n" } else { "" });
    }
    assert_clean(real.host(), "after starts among changes");
}

#[test]
fn hundreds_of_shares_are_mounted_at_a_start_and_end_with_their_owner() {
    const N: usize = 300;
    let real = real("hundreds");
    let (p, q) = (project(real.host(), "p"), project(real.host(), "q"));
    let me = Caller::default();
    let (owner, receiver) = (container(&real, &p, "owner", |_| {}), container(&real, &q, "receiver", |_| {}));
    // All of one name.
    real.sh(&owner, &format!("i=0; while [ $i -lt {N} ]; do mkdir -p /hoody/storage/d$i/same; echo $i > /hoody/storage/d$i/same/f; i=$((i+1)); done"));
    for i in 0..N {
        share_with_all(&real, &owner, &format!("/hoody/storage/d{i}/same"), &q);
    }
    let count = || real.sh(&receiver, "ls /hoody/shares | wc -l; cat /hoody/shares/*/f | sort -n | uniq | wc -l");
    assert_eq!(count(), format!("{N}\n{N}\n"));
    real.host().lifecycle(&me, &receiver, Verb::Restart, Some(std::time::Duration::ZERO)).unwrap();
    assert_eq!(count(), format!("{N}\n{N}\n"));
    assert_clean(real.host(), "with hundreds of shares");
    real.host().delete_container(&me, &owner).unwrap();
    at_rest(real.host());
    eventually("the end of all of them", || real.sh(&receiver, "ls /hoody/shares").is_empty());
    assert_eq!(real.sh(&receiver, "grep -c /hoody/shares/ /proc/mounts; true"), "0\n");
    assert_clean(real.host(), "after hundreds of shares");
}
