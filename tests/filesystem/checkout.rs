//! Single files of a snapshot, restored into real containers that run.

use super::{attempt, container, real};
use hoody_state::id::ContainerId;
use hoody_state::model::{DatabaseScope, DatabasesChoice, FilesRestored, NewContainer, NewSnapshot, RestoreFiles, Verb};
use hoody_state::{Caller, Code, Result};
use hoody_state_workspace::http::Served;
use hoody_state_workspace::worker::{import, line, said};
use hoody_state_workspace::{RealHost, assert_clean, project, snapshot};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn me() -> Caller {
    Caller::default()
}

fn paths(paths: &[&str]) -> RestoreFiles {
    RestoreFiles { paths: paths.iter().map(|p| (*p).to_owned()).collect(), ..Default::default() }
}

fn restore(real: &RealHost, c: &ContainerId, files: RestoreFiles) -> Result<FilesRestored> {
    real.host().restore_files(&me(), c, "s", files)
}

/// Nothing of a restore is left in the container's volume.
fn nothing_left(real: &RealHost, c: &ContainerId) {
    let left: Vec<_> = std::fs::read_dir(real.live(c)).unwrap().map(|e| e.unwrap().file_name()).filter(|n| n.to_string_lossy().starts_with(".hoody")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_clean(real.host(), "after a restore of files");
}

#[test]
fn files_come_back_into_a_container_that_runs_and_undo_brings_back_what_they_overwrote() {
    let real = real("checkout");
    let p = project(real.host(), "web");
    let c = container(&real, &p, "agent", |_| {});
    real.sh(&c, "mkdir -p /srv/d; echo one > /srv/a; echo one > /srv/d/b; ln /srv/a /srv/d/linked; chmod 4755 /srv/a; echo one > /srv/stays");
    snapshot(real.host(), &c, "s").unwrap();
    real.sh(&c, "echo two > /srv/a; rm -r /srv/d; mkdir /srv/d; echo two > /srv/d/new; echo two > /srv/stays");
    let init = real.sh(&c, "cut -d' ' -f22 /proc/1/stat");
    let done = restore(&real, &c, paths(&["/srv/a", "/srv/d", "/nowhere/x"])).unwrap();
    assert_eq!(done.restored.iter().map(|r| r.path.as_str()).collect::<Vec<_>>(), ["/srv/a", "/srv/d"]);
    assert_eq!((done.failed.len(), done.failed[0].path.as_str(), done.failed[0].code.as_str()), (1, "/nowhere/x", "file_not_found"));
    assert_eq!(real.sh(&c, "cat /srv/a /srv/d/b /srv/d/linked /srv/d/new /srv/stays; stat -c %a /srv/a"), "one\none\none\ntwo\ntwo\n4755\n");
    assert_eq!(real.sh(&c, "cut -d' ' -f22 /proc/1/stat"), init, "it was not restarted");
    let live = |path: &str| std::fs::metadata(real.live(&c).join(path)).unwrap();
    assert_eq!(live("srv/a").ino(), live("srv/d/linked").ino());
    assert_eq!(live("srv/a").uid(), live("srv").uid(), "the root of the container");
    nothing_left(&real, &c);
    // Restoring the same from the undo snapshot brings that back, names that were new too.
    let undo = done.undo.unwrap();
    assert!(real.host().snapshot_detail(&c, undo.as_str(), Duration::ZERO).unwrap().snapshot.expires_at.is_some());
    let back = real.host().restore_files(&me(), &c, undo.as_str(), RestoreFiles { delete_new: true, ..paths(&["/srv/a", "/srv/d"]) }).unwrap();
    assert!(back.failed.is_empty());
    assert_eq!(real.sh(&c, "cat /srv/a; ls /srv/d"), "two\nnew\n");
    // And so does an undo of the whole.
    restore(&real, &c, paths(&["/srv/a"])).unwrap();
    real.host().undo(&me(), &c).unwrap();
    assert_eq!(real.sh(&c, "cat /srv/a; ls /srv/d"), "two\nnew\n");
    nothing_left(&real, &c);
}

#[test]
fn what_is_refused_changes_nothing() {
    let real = real("checkout-refused");
    let p = project(real.host(), "web");
    let c = container(&real, &p, "agent", |_| {});
    real.sh(&c, "mkdir -p /srv/d /opt; echo one > /srv/a; echo one > /opt/a");
    snapshot(real.host(), &c, "s").unwrap();
    real.sh(&c, "echo two > /srv/a");
    let to = |dir: &str, files: &[&str]| RestoreFiles { to: Some(dir.into()), ..paths(files) };
    for (what, files, code) in [
        ("a name that is not there", paths(&["/nowhere"]), Code::FileNotFound),
        ("beneath a file", paths(&["/srv/a/b"]), Code::NotADirectory),
        ("no path", paths(&[]), Code::ValidationError),
        ("dots", paths(&["/srv/../etc"]), Code::InvalidPath),
        ("an empty name", paths(&["/srv//a"]), Code::InvalidPath),
        ("a bad encoding", RestoreFiles { paths_encoded: vec!["/srv/%zz".into()], ..Default::default() }, Code::InvalidPath),
        ("all of it", paths(&["/"]), Code::InvalidPath),
        ("what has the databases in it", paths(&["/hoody"]), Code::InvalidPath),
        ("a mount", paths(&["/proc/1"]), Code::NotInVolume),
        ("the RAM disk", paths(&["/ramdisk"]), Code::NotInVolume),
        ("a share", paths(&["/hoody/shares/x"]), Code::NotInVolume),
        ("to nowhere", to("/nowhere", &["/srv/a"]), Code::FileNotFound),
        ("into a file", to("/srv/a", &["/srv/d"]), Code::NotADirectory),
        ("into the databases", to("/hoody/databases", &["/srv/a"]), Code::InvalidPath),
        ("one name for two", to("/srv/d", &["/srv/a", "/opt/a"]), Code::ValidationError),
        ("too many", paths(&(0..1001).map(|i| format!("/x{i}")).collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>()), Code::ValidationError),
    ] {
        let e = restore(&real, &c, files).expect_err(what);
        assert_eq!(e.code(), code, "{what}: {e}");
    }
    assert_eq!(real.host().restore_files(&me(), &c, "nowhere", paths(&["/srv/a"])).unwrap_err().code(), Code::SnapshotNotFound);
    assert_eq!(real.sh(&c, "cat /srv/a"), "two\n");
    assert_eq!(real.host().snapshots(&c).unwrap().snapshots.len(), 1, "no undo snapshot of nothing");
    nothing_left(&real, &c);
}

#[test]
fn hostile_containers_lead_nowhere_and_two_restores_at_once_both_end_well() {
    let real = real("checkout-races");
    let p = project(real.host(), "web");
    let c = container(&real, &p, "agent", |_| {});
    real.sh(&c, "mkdir -p /srv/d /srv/e; echo one > /srv/d/a; echo one > /srv/e/a");
    snapshot(real.host(), &c, "s").unwrap();
    let canary = real.dir.join("canary");
    std::fs::create_dir(&canary).unwrap();
    std::fs::write(canary.join("a"), "canary").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        // The directory is a link to the host's directory half of the time, and the restored files are replaced by links and directories.
        s.spawn(|| {
            let swap = format!(
                "mv /srv/d /srv/was 2>/dev/null; ln -s {0} /srv/d; rm -f /srv/d; mv /srv/was /srv/d 2>/dev/null; rm -rf /srv/e/a; ln -s {0}/a /srv/e/a; rm -rf /srv/e/a; mkdir -p /srv/e/a/b; mv /.hoody-restore-* /hidden",
                canary.display()
            );
            while !stop.load(Ordering::Relaxed) {
                attempt(&real, &c, &format!("for i in 1 2 3 4 5 6 7 8 9 10; do {swap}; done 2>/dev/null"));
            }
        });
        let restores: Vec<_> = (0..2)
            .map(|_| {
                s.spawn(|| {
                    let end = Instant::now() + Duration::from_secs(4);
                    let mut restored = 0;
                    while Instant::now() < end {
                        match restore(&real, &c, paths(&["/srv/d/a", "/srv/d", "/srv/e", "/srv/e/a"])) {
                            Ok(done) => restored += done.restored.len(),
                            Err(e) => assert!(matches!(e.code(), Code::FileNotFound | Code::NotADirectory | Code::VolumeInUse), "{e:?}"),
                        }
                    }
                    restored
                })
            })
            .collect();
        let restored: Vec<usize> = restores.into_iter().map(|r| r.join().unwrap()).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(restored.iter().all(|n| *n > 0), "{restored:?}");
    });
    assert_eq!(std::fs::read_to_string(canary.join("a")).unwrap(), "canary");
    assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 1);
    real.sh(&c, "rm -rf /srv/d");
    let done = restore(&real, &c, paths(&["/srv/d", "/srv/e"])).unwrap();
    assert!(done.failed.is_empty(), "{done:?}");
    assert_eq!(real.sh(&c, "cat /srv/d/a /srv/e/a; ls -A / | grep hidden; true"), "one\none\n");
    nothing_left(&real, &c);
}

#[test]
fn a_database_is_restored_alone_while_it_is_written() {
    let real = real("checkout-db");
    import(&real);
    let p = project(real.host(), "web");
    for scope in [DatabaseScope::Project, DatabaseScope::Private] {
        let new = |n: &mut NewContainer| {
            n.container_image = Some("worker".into());
            n.databases = Some(scope);
        };
        let c = container(&real, &p, &format!("{scope:?}").to_lowercase(), new);
        let sum = |db: &str| said::<i64>(&real.sh(&c, &line(&format!("sum /hoody/databases/{db}"))), "sum");
        for db in ["a.db", "b.db"] {
            real.sh(&c, &line(&format!("init /hoody/databases/{db}")));
            real.sh(&c, &line(&format!("add /hoody/databases/{db} 1 200")));
        }
        real.sh(&c, "mkdir -p /hoody/databases/d; echo one > /hoody/databases/d/plain");
        let old = sum("a.db");
        snapshot(real.host(), &c, "s").unwrap();
        real.sh(&c, "echo two > /hoody/databases/d/plain; echo two > /hoody/databases/d/new");
        for db in ["a.db", "b.db"] {
            real.sh(&c, &line(&format!("add /hoody/databases/{db} 1 200")));
        }
        let other = sum("b.db");
        // Somebody has it open, and sees the one content and then the other.
        let seen = std::thread::scope(|s| {
            let watching = s.spawn(|| real.sh(&c, &line(&format!("watch /hoody/databases/a.db {old}"))));
            std::thread::sleep(Duration::from_millis(300));
            let done = restore(&real, &c, paths(&["/hoody/databases/a.db", "/hoody/databases/d", "/hoody/databases/nowhere"])).unwrap();
            assert_eq!((done.restored.len(), done.failed[0].code.as_str()), (2, "file_not_found"), "{done:?}");
            watching.join().unwrap()
        });
        assert!(seen.contains(&old.to_string()), "{scope:?}: {seen}");
        assert_eq!((sum("a.db"), sum("b.db")), (old, other), "{scope:?}: that one alone");
        assert_eq!(real.sh(&c, "cat /hoody/databases/d/plain /hoody/databases/d/new"), "one\ntwo\n");
        // Writers in the middle of it meet no error: they would have ended with it.
        std::thread::scope(|s| {
            let writing = s.spawn(|| real.sh(&c, &line("add /hoody/databases/a.db 4 2000")));
            for _ in 0..4 {
                restore(&real, &c, paths(&["/hoody/databases/a.db"])).unwrap();
            }
            assert!(said::<i64>(&writing.join().unwrap(), "added") > 0);
        });
        assert!(sum("a.db") >= old, "sound");
        let e = restore(&real, &c, paths(&["/hoody/databases/a.db-wal"])).map(|d| d.failed[0].code.clone());
        assert!(e.as_ref().is_ok_and(|c| c == "invalid_path" || c == "file_not_found"), "{e:?}");
        // A link to it is no way past the daemon.
        real.sh(&c, "ln -s /hoody/databases /srv/db");
        snapshot(real.host(), &c, "t").unwrap();
        let done = real.host().restore_files(&me(), &c, "t", paths(&["/srv/db/a.db"]));
        assert!(matches!(done.as_ref().unwrap_err().code(), Code::InvalidPath | Code::FileNotFound), "{done:?}");
        // Stopped, it is served for the restore.
        real.host().lifecycle(&me(), &c, Verb::ForceStop, None).unwrap();
        assert!(restore(&real, &c, paths(&["/hoody/databases/a.db"])).unwrap().failed.is_empty());
        real.host().lifecycle(&me(), &c, Verb::Start, None).unwrap();
        assert_eq!(sum("a.db"), old);
        nothing_left(&real, &c);
        if scope == DatabaseScope::Project {
            // Others use them too: only if that is said.
            let other = container(&real, &p, "other", new);
            let count = real.host().snapshots(&c).unwrap().snapshots.len();
            real.sh(&other, &line("add /hoody/databases/a.db 1 50"));
            let theirs = sum("a.db");
            let refused = restore(&real, &c, paths(&["/hoody/databases/a.db"])).unwrap_err();
            assert_eq!((refused.code(), sum("a.db")), (Code::DatabasesShared, theirs), "{refused}");
            assert!(refused.message().contains("other") && real.host().snapshots(&c).unwrap().snapshots.len() == count, "{refused}");
            let keep = RestoreFiles { databases: Some(DatabasesChoice::Keep), ..paths(&["/hoody/databases/a.db"]) };
            assert_eq!(restore(&real, &c, keep).unwrap_err().code(), Code::ValidationError);
            let revert = RestoreFiles { databases: Some(DatabasesChoice::Revert), ..paths(&["/hoody/databases/a.db"]) };
            assert!(restore(&real, &c, revert).unwrap().failed.is_empty());
            assert_eq!(sum("a.db"), old);
            real.host().delete_container(&me(), &other).unwrap();
        }
    }
}

#[test]
fn paths_of_any_bytes_of_stopped_and_paused_containers_and_of_nested_subvolumes() {
    let real = real("checkout-odd");
    let p = project(real.host(), "web");
    let c = container(&real, &p, "agent", |_| {});
    real.sh(&c, r#"mkdir /srv/n; printf one > "$(printf '/srv/\377\nx')""#);
    let name = real.live(&c).join("srv/volume");
    let made = std::process::Command::new("btrfs").args(["subvolume", "create"]).arg(&name).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    std::fs::write(name.join("in"), "one").unwrap();
    real.host().create_snapshot(&me(), &c, NewSnapshot { alias: Some("s".into()), ..Default::default() }).unwrap();
    for verb in [Verb::Pause, Verb::Stop] {
        real.sh(&c, r#"printf two > "$(printf '/srv/\377\nx')""#);
        std::fs::write(name.join("in"), "two").unwrap();
        real.host().lifecycle(&me(), &c, verb, None).unwrap();
        let files = RestoreFiles { paths_encoded: vec!["/srv/%FF%0Ax".into()], ..paths(&["/srv/volume/in"]) };
        let done = restore(&real, &c, files).unwrap();
        assert_eq!((done.restored.len(), done.restored[1].path_encoded.as_deref()), (2, Some("/srv/%FF%0Ax")), "{done:?}");
        assert_eq!(std::fs::read_to_string(name.join("in")).unwrap(), "one");
        nothing_left(&real, &c);
        real.host().lifecycle(&me(), &c, if verb == Verb::Pause { Verb::Resume } else { Verb::Start }, None).unwrap();
        assert_eq!(real.sh(&c, r#"cat "$(printf '/srv/\377\nx')""#), "one");
    }
}

#[test]
fn the_status_says_whether_all_some_or_none_were_restored() {
    let real = real("checkout-http");
    let p = project(real.host(), "web");
    let c = container(&real, &p, "agent", |_| {});
    real.sh(&c, "mkdir -p /srv; echo one > /srv/a");
    snapshot(real.host(), &c, "s").unwrap();
    let served = Served::new(real.host().clone(), &real.dir.join("checkout.sock"));
    let mut client = served.client();
    let mut call = |body: &str| client.call("POST", &format!("/containers/{c}/snapshots/s/restore-files"), Some(body));
    let (status, all) = call(r#"{"paths": ["/srv/a"]}"#);
    assert_eq!((status, &all["data"]["restored"][0]["path"], &all["data"]["failed"]), (200, &"/srv/a".into(), &serde_json::json!([])));
    assert!(all["data"]["undo"].as_str().unwrap().starts_with("undo-"));
    let (status, some) = call(r#"{"paths": ["/srv/a", "/srv/b"]}"#);
    assert_eq!((status, &some["data"]["failed"][0]["code"], &some["data"]["restored"][0]["path"]), (207, &"file_not_found".into(), &"/srv/a".into()));
    let (status, none) = call(r#"{"paths": ["/srv/b", "/proc/1"]}"#);
    assert_eq!((status, &none["code"], &none["data"]["failed"][1]["code"]), (404, &"file_not_found".into(), &"not_in_volume".into()));
    assert!(none["message"].as_str().unwrap().contains("/proc/1"), "{none}");
}

/// What a restore needs is no more than a few blocks, but a pool may have none left.
#[test]
fn a_full_disk_is_a_clear_failure_and_nothing_is_half_done() {
    let real = real("checkout-full");
    let p = project(real.host(), "web");
    let c = container(&real, &p, "agent", |n| n.disk = Some(Some(hoody_state::units::Bytes::mib(64))));
    real.sh(&c, "mkdir -p /srv/d; echo one > /srv/a; for i in 1 2 3 4; do echo one > /srv/d/$i; done");
    snapshot(real.host(), &c, "s").unwrap();
    real.sh(&c, "echo two > /srv/a; for i in 1 2 3 4; do echo two > /srv/d/$i; done; dd if=/dev/zero of=/full bs=1M 2>/dev/null; sync; true");
    let before = real.sh(&c, "cat /srv/a /srv/d/*");
    match restore(&real, &c, paths(&["/srv/a", "/srv/d"])) {
        Ok(done) => {
            // A few blocks may be left: then each path is as it was, or as it was in the snapshot.
            assert!(done.failed.iter().all(|f| f.code == "disk_limit_reached"), "{done:?}");
            let restored = |path: &str| done.restored.iter().any(|r| r.path == path);
            assert_eq!(real.sh(&c, "cat /srv/a"), if restored("/srv/a") { "one\n" } else { "two\n" });
            assert_eq!(real.sh(&c, "cat /srv/d/*"), if restored("/srv/d") { "one\n".repeat(4) } else { "two\n".repeat(4) });
        }
        Err(e) => {
            assert_eq!(e.code(), Code::DiskLimitReached, "{e:?}");
            assert_eq!(real.sh(&c, "cat /srv/a /srv/d/*"), before);
        }
    }
    nothing_left(&real, &c);
    real.sh(&c, "rm /full; sync");
    assert!(restore(&real, &c, paths(&["/srv/a", "/srv/d"])).unwrap().failed.is_empty());
}
