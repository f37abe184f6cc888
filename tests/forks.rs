//! Forks on a real pool: what a promotion takes over, and the space that a hundred of them leave. Needs root, BTRFS, a loop device, runc and a static busybox.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use hoody_state::id::ContainerId;
use hoody_state::model::{DiffLine, DiffMethod, DiffRequest, ForkRequest, NewSnapshot, Prefer, PromoteRequest, ResetRequest, ResetTo, Status};
use hoody_state::units::Bytes;
use hoody_state::{Caller, Code, Host};
use hoody_state_workspace::{RealHost, assert_clean, at_rest, container, project};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

fn forked(host: &Host, source: &ContainerId, count: u32, start: bool) -> Vec<ContainerId> {
    let request = ForkRequest { count: Some(count), start: Some(start), name_prefix: Some("try".into()), ..Default::default() };
    let forked = host.fork_container(&Caller::default(), source, &request).unwrap();
    let forks = forked.results.iter().map(|r| r.container.as_ref().unwrap_or_else(|| panic!("{r:?}")).id.clone()).collect();
    at_rest(host);
    forks
}

fn promote(host: &Host, fork: &ContainerId, prefer: Option<Prefer>) -> hoody_state::Result<hoody_state::model::Promoted> {
    let caller = Caller { wait: Duration::from_secs(60), ..Caller::default() };
    host.promote_container(&caller, fork, &PromoteRequest { into: None, prefer })
}

#[test]
fn the_work_of_a_fork_is_in_its_source_that_runs_and_worked_on() {
    let real = RealHost::new("promote");
    let p = project(real.host(), "web");
    let source = container(real.host(), &p, "agent").unwrap();
    real.sh(&source, "mkdir -p /srv/app/lib /srv/old && echo 1 > /srv/app/main && echo 1 > /srv/app/lib/a && echo 1 > /srv/old/x && echo 1 > /srv/gone && echo 0123 > /etc/machine-id");
    let fork = forked(real.host(), &source, 1, true)[0].clone();
    real.sh(
        &fork,
        "mv /srv/app /srv/program && echo 2 > /srv/program/main && rm /srv/gone && mkdir /srv/new && echo 2 > /srv/new/file && chmod 4750 /srv/new/file",
    );
    real.sh(
        &fork,
        "ln /srv/new/file /srv/new/link && ln -s file /srv/new/symlink && mkfifo /srv/new/fifo && echo mine > /etc/machine-id && mv /srv/old/x /srv/new/x",
    );
    real.sh(&source, "echo 3 > /srv/app/lib/a && echo 3 > /srv/app/lib/b && echo 3 > /srv/old/y");
    let done = promote(real.host(), &fork, None).unwrap();
    assert_eq!(real.host().container(&source).unwrap().status, Status::Running);
    assert_eq!(real.sh(&source, "cat /srv/program/main /srv/program/lib/a /srv/program/lib/b /srv/old/y /srv/new/file /srv/new/x"), "2\n3\n3\n3\n2\n1\n");
    assert_eq!(real.sh(&source, "ls /srv"), "new\nold\nprogram\n");
    assert_eq!(real.sh(&source, "cat /etc/machine-id"), "0123\n", "the machine is the source's own");
    let live = real.live(&source);
    let meta = |path: &str| std::fs::symlink_metadata(live.join(path)).unwrap();
    let file = meta("srv/new/file");
    assert_eq!((file.ino(), file.nlink(), file.mode() & 0o7777), (meta("srv/new/link").ino(), 2, 0o4750));
    assert_eq!(std::fs::read_link(live.join("srv/new/symlink")).unwrap().to_str(), Some("file"));
    assert!(live.read_dir().unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().starts_with(".hoody")), "nothing of the merge itself is left");
    assert_eq!(real.sh(&fork, "cat /srv/program/main"), "2\n", "the fork goes on");
    assert_clean(real.host(), "promoted");
    println!("{} changes taken over: {:?}", done.changes.unwrap(), done.message);
    real.host().undo(&Caller::default(), &source).unwrap();
    assert_eq!(real.sh(&source, "cat /srv/app/main /srv/app/lib/a /srv/gone"), "1\n3\n1\n");
    // Both change one file: refused, then as is said.
    real.sh(&source, "echo 4 > /srv/app/main");
    let e = promote(real.host(), &fork, None).unwrap_err();
    assert_eq!((e.code(), e.data().unwrap()["conflicts"][0]["path"].as_str()), (Code::PromoteConflicts, Some("/srv/program/main")));
    assert_eq!(real.sh(&source, "cat /srv/app/main"), "4\n");
    promote(real.host(), &fork, Some(Prefer::Fork)).unwrap();
    assert_eq!(real.sh(&source, "cat /srv/program/main /srv/program/lib/a /etc/machine-id"), "2\n3\n0123\n");
    let again = promote(real.host(), &fork, Some(Prefer::Fork)).unwrap();
    assert_eq!((again.changes, again.undo), (Some(0), None), "the fork has not changed since");
    assert_clean(real.host(), "preferred");
    let back = real.host().reset_container(&Caller { wait: Duration::from_secs(60), ..Caller::default() }, &fork, &ResetRequest::default()).unwrap();
    assert_eq!(real.sh(&fork, "cat /srv/app/main"), "1\n");
    assert!(back.undo.is_some());
    assert_clean(real.host(), "reset");
}

/// What differs between a snapshot and the present state, and how that was found out.
fn changed(host: &Host, id: &ContainerId, since: &str) -> (DiffMethod, Vec<String>) {
    let request = DiffRequest { to: "live".into(), walk: true, ..Default::default() };
    let mut lines = Vec::new();
    let summary = host.diff(id, since, &request, &|| false, &mut |line| {
        if let DiffLine::Record(r) = line {
            lines.push(format!("{} {}", serde_json::to_value(r.kind).unwrap().as_str().unwrap(), r.path));
        }
        Ok(())
    });
    (summary.unwrap().method, lines)
}

/// The list of snapshots says what a state grew from. It must be true when the volumes between are gone.
#[test]
fn a_diff_is_right_after_a_promotion_or_reset_whose_volumes_are_gone() {
    let real = RealHost::new("lines");
    let (host, me) = (real.host(), Caller::default());
    let p = project(host, "web");
    let source = container(host, &p, "agent").unwrap();
    let write = |c: &ContainerId, name: &str, text: &str| std::fs::write(real.live(c).join("root").join(name), text).unwrap();
    host.create_snapshot(&me, &source, NewSnapshot { alias: Some("base".into()), ..Default::default() }).unwrap();
    let forks = forked(host, &source, 2, false);
    write(&forks[0], "a", "fork");
    hoody_state_workspace::snapshot(host, &forks[1], "own").unwrap();
    // After the fork has written: a comparison that begins here would miss it.
    write(&source, "b", "source");
    host.create_snapshot(&me, &source, NewSnapshot { alias: Some("later".into()), ..Default::default() }).unwrap();
    promote(host, &forks[0], Some(Prefer::Fork)).unwrap();
    host.delete_container(&me, &forks[0]).unwrap();
    at_rest(host);
    let (method, lines) = changed(host, &source, "later");
    assert_eq!(lines, ["added /root/a"], "{method:?}");

    write(&forks[1], "c", "fork");
    host.create_snapshot(&me, &forks[1], NewSnapshot { alias: Some("mine".into()), ..Default::default() }).unwrap();
    let to_source = ResetRequest { to: Some(ResetTo::Source), ..Default::default() };
    host.reset_container(&Caller { wait: Duration::from_secs(60), ..me.clone() }, &forks[1], &to_source).unwrap();
    for s in host.snapshots(&source).unwrap().snapshots {
        host.delete_snapshot(&me, &source, s.name.as_str()).unwrap();
    }
    at_rest(host);
    let (method, lines) = changed(host, &forks[1], "mine");
    assert_eq!(lines, ["added /root/a", "added /root/b", "deleted /root/c"], "{method:?}");
    assert_clean(host, "after diffs");
}

/// Bytes in use, once nothing is being reclaimed any more, as `GET /pool` shows them.
fn used(host: &Host) -> Bytes {
    let end = Instant::now() + Duration::from_secs(120);
    while !host.pool().unwrap().reclaiming.is_empty() {
        assert!(Instant::now() < end, "space is not reclaimed: {:?}", host.pool().unwrap().reclaiming);
        std::thread::sleep(Duration::from_millis(50));
    }
    // What was written is allocated, and what was deleted is free, after a commit.
    let _ = std::process::Command::new("sync").status();
    host.pool().unwrap().used
}

#[test]
fn a_hundred_forks_one_promoted_and_the_others_deleted_leave_what_the_one_changed() {
    const EACH: usize = 2 << 20;
    const SLACK: u64 = 2 << 20;
    let real = RealHost::new("hundred");
    let host = real.host();
    let p = project(host, "web");
    let source = container(host, &p, "agent").unwrap();
    let before = used(host);
    let forks = forked(host, &source, 100, false);
    let mut random = std::fs::File::open("/dev/urandom").unwrap();
    for fork in &forks {
        let mut data = vec![0; EACH];
        random.read_exact(&mut data).unwrap();
        std::fs::write(real.live(fork).join("work"), &data).unwrap();
    }
    let full = used(host);
    assert!(full.0 > before.0 + 100 * EACH as u64, "a hundred forks have written: {before} before, {full} now");
    let best = &forks[41];
    promote(host, best, None).unwrap();
    for fork in forks.iter().filter(|f| *f != best) {
        host.delete_container(&Caller::default(), fork).unwrap();
    }
    at_rest(host);
    let after = used(host);
    let grown = after.0.saturating_sub(before.0);
    println!("in use: {before} before, {full} with a hundred forks, {after} after one was promoted and 99 deleted: {} more", Bytes(grown));
    assert!(grown >= EACH as u64 && grown <= EACH as u64 + SLACK, "{} more than before, where {} were changed", Bytes(grown), Bytes(EACH as u64));
    assert_eq!(std::fs::read(real.live(&source).join("work")).unwrap(), std::fs::read(real.live(best).join("work")).unwrap());
    // What was taken over counts as written since the source's last snapshot.
    assert!(host.usage(&source).unwrap().live.exclusive.0 >= EACH as u64);
    host.delete_container(&Caller::default(), best).unwrap();
    at_rest(host);
    let last = used(host);
    assert!(last.0.saturating_sub(before.0) >= EACH as u64 && last.0 <= after.0, "{last}");
    assert_clean(host, "a hundred forks");
}
