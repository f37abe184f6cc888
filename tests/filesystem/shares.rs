use super::{attempt, container, eventually, offer, real, say, share, share_with_all};
use hoody_state::Code;
use hoody_state::id::ContainerId;
use hoody_state::model::{NewShare, RestoreOptions, Share, ShareFilter, ShareMode, ShareStatus, ShareUpdate, Verb};
use hoody_state::{Caller, Host};
use hoody_state_workspace::{RealHost, assert_clean, at_rest, project, snapshot};
use std::time::Instant;

fn code(real: &RealHost, c: &ContainerId, line: &str) -> i32 {
    attempt(real, c, line).exit_code
}

#[test]
fn a_share_is_seen_while_both_agree() {
    let real = real("agree");
    let p = project(real.host(), "web");
    let me = Caller::default();
    let (owner, receiver) = (container(&real, &p, "owner", |_| {}), container(&real, &p, "receiver", |_| {}));
    real.sh(&owner, "mkdir /hoody/storage/docs && echo hello > /hoody/storage/docs/f && chown 1000:1000 /hoody/storage/docs/f");
    let s = share(&real, &owner, "/hoody/storage/docs", &receiver, ShareMode::Readonly);
    assert_eq!((s.mount_path.as_str(), s.status), ("/hoody/shares/docs", ShareStatus::Active));
    assert_eq!(real.sh(&receiver, "ls /hoody/shares"), "", "not before it was accepted");
    let began = Instant::now();
    say(&real, &receiver, &s, true);
    println!("accepted in {:?}", began.elapsed());
    assert_eq!(real.sh(&receiver, "cat /hoody/shares/docs/f; stat -c %u:%g /hoody/shares/docs/f"), "hello\n1000:1000\n");
    assert_ne!(code(&real, &receiver, "echo x > /hoody/shares/docs/f"), 0, "read-only for root too");
    assert_ne!(code(&real, &receiver, "mount -o remount,rw /hoody/shares/docs; echo x > /hoody/shares/docs/f"), 0);
    real.host().update_share(&me, &owner, &s.id, ShareUpdate { mode: Some(ShareMode::Readwrite), ..Default::default() }).unwrap();
    real.sh(&receiver, "echo back > /hoody/shares/docs/g");
    assert_eq!(real.sh(&owner, "cat /hoody/storage/docs/g"), "back\n");
    // Each side alone ends it, also in a paused receiver.
    real.host().lifecycle(&me, &receiver, Verb::Pause, None).unwrap();
    real.host().update_share(&me, &owner, &s.id, ShareUpdate { enabled: Some(false), ..Default::default() }).unwrap();
    real.host().lifecycle(&me, &receiver, Verb::Resume, None).unwrap();
    assert_eq!(real.sh(&receiver, "ls /hoody/shares"), "");
    real.host().update_share(&me, &owner, &s.id, ShareUpdate { enabled: Some(true), alias: Some(Some("manual".into())), ..Default::default() }).unwrap();
    assert_eq!(real.sh(&receiver, "ls /hoody/shares"), "manual\n");
    say(&real, &receiver, &s, false);
    assert_eq!(real.sh(&receiver, "ls /hoody/shares"), "");
    say(&real, &receiver, &s, true);
    // It comes with a start too, and goes with its owner.
    real.host().lifecycle(&me, &receiver, Verb::Restart, None).unwrap();
    assert_eq!(real.sh(&receiver, "cat /hoody/shares/manual/f"), "hello\n");
    assert_eq!(real.host().incoming(&receiver).unwrap()[0].mount_path, "/hoody/shares/manual");
    real.host().delete_container(&me, &owner).unwrap();
    eventually("the end of the share", || real.sh(&receiver, "ls /hoody/shares").is_empty());
    assert!(real.host().incoming(&receiver).unwrap().is_empty());
    at_rest(real.host());
    assert_clean(real.host(), "after shares");
}

#[test]
fn a_share_with_a_project_reaches_containers_made_later() {
    let mut real = real("later");
    let (p, q) = (project(real.host(), "p"), project(real.host(), "q"));
    let me = Caller::default();
    let owner = container(&real, &p, "owner", |_| {});
    let before = container(&real, &q, "before", |_| {});
    real.sh(&owner, "mkdir -p /hoody/storage/a/docs /hoody/storage/b/docs; echo a > /hoody/storage/a/docs/f; echo b > /hoody/storage/b/docs/f");
    share_with_all(&real, &owner, "/hoody/storage/a/docs", &q);
    let second = share_with_all(&real, &owner, "/hoody/storage/b/docs", &q);
    let after = container(&real, &q, "after", |_| {});
    for c in [&before, &after] {
        assert_eq!(real.sh(c, "cat /hoody/shares/*/f | sort"), "a\nb\n", "two of one name have two names");
    }
    assert_eq!(real.sh(&owner, "ls /hoody/shares"), "", "the owner does not receive");
    // Also over a restart of the server, while one of them is paused.
    real.host().lifecycle(&me, &after, Verb::Pause, None).unwrap();
    real.stop();
    real.start();
    real.host().delete_share(&me, &second.id).unwrap();
    real.host().lifecycle(&me, &after, Verb::Resume, None).unwrap();
    for c in [&before, &after] {
        assert_eq!(real.sh(c, "cat /hoody/shares/*/f"), "a\n");
    }
    assert_clean(real.host(), "after shares with a project");
}

#[test]
fn a_restore_of_the_owner_shows_receivers_the_restored_content() {
    let real = real("restored");
    let p = project(real.host(), "web");
    let me = Caller::default();
    let (owner, receiver) = (container(&real, &p, "owner", |_| {}), container(&real, &p, "receiver", |_| {}));
    real.sh(&owner, "mkdir /hoody/storage/docs && echo old > /hoody/storage/docs/f");
    snapshot(real.host(), &owner, "s").unwrap();
    real.sh(&owner, "echo new > /hoody/storage/docs/f");
    let s = share(&real, &owner, "/hoody/storage/docs", &receiver, ShareMode::Readwrite);
    say(&real, &receiver, &s, true);
    assert_eq!(real.sh(&receiver, "cat /hoody/shares/docs/f"), "new\n");
    let keep = RestoreOptions { databases: Some(hoody_state::model::DatabasesChoice::Keep), ..Default::default() };
    real.host().restore(&me, &owner, "s", keep).unwrap();
    assert_eq!(real.sh(&receiver, "cat /hoody/shares/docs/f; echo more > /hoody/shares/docs/g"), "old\n");
    assert_eq!(real.sh(&owner, "cat /hoody/storage/docs/g"), "more\n");
    // One of the receiver is nothing to the share.
    snapshot(real.host(), &receiver, "s").unwrap();
    let keep = RestoreOptions { databases: Some(hoody_state::model::DatabasesChoice::Keep), ..Default::default() };
    real.host().restore(&me, &receiver, "s", keep).unwrap();
    assert_eq!(real.sh(&receiver, "cat /hoody/shares/docs/f /hoody/shares/docs/g"), "old\nmore\n");
    assert_clean(real.host(), "after a restore of an owner");
}

#[test]
fn a_share_whose_source_is_missing_fails_until_the_source_exists() {
    let real = real("missing");
    let p = project(real.host(), "web");
    let me = Caller::default();
    let (owner, receiver) = (container(&real, &p, "owner", |_| {}), container(&real, &p, "receiver", |_| {}));
    let s = share(&real, &owner, "/hoody/storage/later", &receiver, ShareMode::Readonly);
    assert_eq!(s.status, ShareStatus::Failed);
    assert!(s.status_message.unwrap().contains("not there"));
    say(&real, &receiver, &share_of(&real, &owner), true);
    assert_eq!(real.sh(&receiver, "ls /hoody/shares"), "");
    real.sh(&owner, "mkdir /hoody/storage/later; ln -s /proc /hoody/storage/proc");
    real.host().lifecycle(&me, &receiver, Verb::Restart, None).unwrap();
    assert_eq!(real.sh(&receiver, "ls /hoody/shares"), "later\n");
    assert_eq!(share_of(&real, &owner).status, ShareStatus::Active);
    // The container's own /proc is not in its volume: an empty directory at most.
    let s = share(&real, &owner, "/hoody/storage/proc", &receiver, ShareMode::Readwrite);
    say(&real, &receiver, &s, true);
    assert_eq!(real.sh(&receiver, "ls /hoody/shares/proc 2>/dev/null; true"), "");
}

fn share_of(real: &RealHost, owner: &ContainerId) -> Share {
    real.host().shares_of(owner, &ShareFilter::default()).unwrap().remove(0)
}

#[test]
fn shared_databases_keep_their_locks() {
    let real = real("shared-db");
    hoody_state_workspace::worker::import(&real);
    let (p, q) = (project(real.host(), "p"), project(real.host(), "q"));
    let image = |n: &mut hoody_state::model::NewContainer| n.container_image = Some("worker".into());
    let (owner, receiver) = (container(&real, &p, "owner", image), container(&real, &q, "receiver", image));
    real.sh(&owner, "mkdir /hoody/databases/app");
    real.sh(&owner, &hoody_state_workspace::worker::line("init /hoody/databases/app/data.db"));
    let s = share(&real, &owner, "/hoody/databases/app", &receiver, ShareMode::Readwrite);
    say(&real, &receiver, &s, true);
    let added: i64 = std::thread::scope(|t| {
        let a = t.spawn(|| real.sh(&owner, &hoody_state_workspace::worker::line("add /hoody/databases/app/data.db 3 2000")));
        let b = t.spawn(|| real.sh(&receiver, &hoody_state_workspace::worker::line("add /hoody/shares/app/data.db 3 2000")));
        [a, b].into_iter().map(|t| hoody_state_workspace::worker::said::<i64>(&t.join().unwrap(), "added")).sum()
    });
    assert_eq!(
        hoody_state_workspace::worker::said::<i64>(&real.sh(&owner, &hoody_state_workspace::worker::line("sum /hoody/databases/app/data.db")), "sum"),
        added
    );
    assert_clean(real.host(), "with shared databases");
}

#[test]
fn an_expired_share_is_deleted() {
    let real = real("expires");
    let p = project(real.host(), "web");
    let (owner, receiver) = (container(&real, &p, "owner", |_| {}), container(&real, &p, "receiver", |_| {}));
    real.sh(&owner, "mkdir /hoody/storage/docs");
    let soon = u64::try_from(hoody_state::jiff::Timestamp::now().as_second()).unwrap() + 2;
    let new = NewShare { target_container_id: Some(receiver.clone()), expires_at: Some(soon), ..offer("/hoody/storage/docs", ShareMode::Readonly) };
    let s = real.host().create_share(&Caller::default(), &owner, new).unwrap();
    say(&real, &receiver, &s, true);
    assert_eq!(real.sh(&receiver, "ls /hoody/shares"), "docs\n");
    eventually("its end", || real.sh(&receiver, "ls /hoody/shares").is_empty());
    assert_eq!(real.host().share(None, &s.id).unwrap_err().code(), Code::ShareNotFound);
    let events = real.host().events(&hoody_state::model::EventFilter { limit: 100, ..Default::default() }).unwrap().0;
    let of = |what: &str| events.iter().filter(|e| e.event_type == format!("storage.share.{what}")).count();
    assert_eq!((of("created"), of("mount_changed"), of("expiring_soon"), of("expired")), (1, 1, 1, 1));
}

#[test]
fn shares_come_back_after_a_restart_of_the_server_and_a_reboot() {
    let mut real = real("share-boot");
    let p = project(real.host(), "web");
    let private = |n: &mut hoody_state::model::NewContainer| n.databases = Some(hoody_state::model::DatabaseScope::Private);
    let (owner, receiver) = (container(&real, &p, "owner", private), container(&real, &p, "receiver", |_| {}));
    real.sh(&owner, "mkdir /hoody/storage/docs /hoody/databases/app; echo d > /hoody/storage/docs/f; echo a > /hoody/databases/app/f");
    for path in ["/hoody/storage/docs", "/hoody/databases/app"] {
        let s = share(&real, &owner, path, &receiver, ShareMode::Readwrite);
        say(&real, &receiver, &s, true);
    }
    let seen = |real: &RealHost| assert_eq!(real.sh(&receiver, "cat /hoody/shares/app/f /hoody/shares/docs/f"), "a\nd\n");
    seen(&real);
    real.stop();
    real.start();
    seen(&real);
    // An owner that does not run shares all the same.
    real.host().lifecycle(&Caller::default(), &owner, Verb::Stop, None).unwrap();
    real.stop();
    Host::unmount(&real.config).unwrap();
    real.start();
    eventually("the start after a reboot", || real.host().container(&receiver).unwrap().status == hoody_state::model::Status::Running);
    seen(&real);
    real.sh(&receiver, "echo more > /hoody/shares/app/g");
    real.host().lifecycle(&Caller::default(), &owner, Verb::Start, None).unwrap();
    assert_eq!(real.sh(&owner, "cat /hoody/databases/app/g"), "more\n");
    seen(&real);
    at_rest(real.host());
    assert_clean(real.host(), "after a reboot with shares");
}
