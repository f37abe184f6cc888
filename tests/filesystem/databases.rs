use super::{container, real};
use hoody_state::Caller;
use hoody_state::Code;
use hoody_state::id::ContainerId;
use hoody_state::locked_db::fuse::FuseLockedDb;
use hoody_state::locked_db::{FileLocks, LockedDb};
use hoody_state::model::{Consistency, DatabaseScope, DatabasesChoice, NewContainer, RestoreOptions, Verb};
use hoody_state_workspace::worker::{import, line, said};
use hoody_state_workspace::{RealHost, assert_clean, project, snapshot};
use std::time::{Duration, Instant};

/// The pid of a host's daemon.
pub fn daemon_of(real: &RealHost) -> i32 {
    let socket = real.config.run.join("databases.sock");
    for e in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = e.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let line = std::fs::read(e.path().join("cmdline")).unwrap_or_default();
        if line.split(|b| *b == 0).any(|a| a == socket.as_os_str().as_encoded_bytes()) {
            return pid;
        }
    }
    panic!("no daemon with {}", socket.display());
}

fn worker(n: &mut NewContainer) {
    n.container_image = Some("worker".into());
}

/// How long writers write: `WRITERS_MS=60000` for a long run.
fn millis() -> u64 {
    std::env::var("WRITERS_MS").ok().and_then(|n| n.parse().ok()).unwrap_or(4000)
}

#[test]
fn two_containers_write_two_databases_while_snapshots_are_taken() {
    let real = real("writers");
    import(&real);
    let p = project(real.host(), "web");
    let (a, b) = (container(&real, &p, "a", worker), container(&real, &p, "b", worker));
    // One with a log, one with a rollback journal, which would be hot in a snapshot of the wrong moment.
    real.sh(&a, &line("init /hoody/databases/wal.db"));
    real.sh(&a, &line("init-delete /hoody/databases/journal.db"));
    let mut taken = Vec::new();
    let end = Instant::now() + Duration::from_millis(millis()).saturating_sub(Duration::from_secs(1));
    let added: Vec<i64> = std::thread::scope(|s| {
        let real = &real;
        let write = |c: &ContainerId, db: &str| real.sh(c, &line(&format!("add /hoody/databases/{db} 8 {}", millis())));
        let threads = ["wal.db", "journal.db"].map(|db| [&a, &b].map(|c| s.spawn(move || write(c, db))));
        while Instant::now() < end {
            taken.push(snapshot(real.host(), &a, &format!("s{}", taken.len())).unwrap());
            std::thread::sleep(Duration::from_millis(100));
        }
        threads.into_iter().map(|t| t.into_iter().map(|t| said::<i64>(&t.join().unwrap(), "added")).sum()).collect()
    });
    for (db, added) in ["wal.db", "journal.db"].iter().zip(&added) {
        assert_eq!(said::<i64>(&real.sh(&b, &line(&format!("sum /hoody/databases/{db}"))), "sum"), *added, "nothing is lost");
        let mut last = 0;
        for s in &taken {
            assert_eq!(s.consistency, Consistency::DatabasesQuiesced, "{s:?}");
            // Opened as it lies there: a log that needs nothing, no hot journal, and time goes on.
            let file = real.config.run.join("pool/containers").join(a.as_str()).join("databases").join(s.name.as_str()).join(db);
            assert!(!file.with_file_name(format!("{db}-journal")).exists(), "a hot journal in {s:?}");
            let n = counter_in(&file);
            assert!(n >= last && n <= *added, "{n} after {last}");
            last = n;
        }
        println!("{db}: {added} transactions of 16 writers, {} snapshots", taken.len());
    }
    let shown = real.host().snapshot_detail(&a, "s0", Duration::ZERO).unwrap().snapshot.databases.unwrap();
    assert_eq!(shown.iter().map(|d| d.path.as_str()).collect::<Vec<_>>(), ["/hoody/databases/journal.db", "/hoody/databases/wal.db"]);
    assert!(shown[0].size.0 > 100_000);
    assert_clean(real.host(), "after snapshots under write");
}

/// What a database in a snapshot counts, sound as it lies there with its log or its journal.
fn counter_in(file: &std::path::Path) -> i64 {
    let copy = tempfile::tempdir().unwrap();
    for suffix in ["", "-wal", "-journal"] {
        let from = format!("{}{suffix}", file.display());
        if std::path::Path::new(&from).exists() {
            std::fs::copy(from, copy.path().join(format!("data.db{suffix}"))).unwrap();
        }
    }
    let c = rusqlite::Connection::open(copy.path().join("data.db")).unwrap();
    assert_eq!(c.query_row("PRAGMA integrity_check", [], |r| r.get::<_, String>(0)).unwrap(), "ok");
    c.query_row("SELECT n FROM counter", [], |r| r.get(0)).unwrap()
}

#[test]
fn a_database_that_another_container_uses_is_reverted_in_one_step() {
    let real = real("revert");
    import(&real);
    let p = project(real.host(), "web");
    let me = Caller::default();
    let (a, b) = (container(&real, &p, "a", worker), container(&real, &p, "b", worker));
    real.sh(&a, &line("init /hoody/databases/data.db"));
    real.sh(&a, "echo old > /hoody/databases/plain");
    real.sh(&a, &line("add /hoody/databases/data.db 1 200"));
    let old: i64 = said(&real.sh(&a, &line("sum /hoody/databases/data.db")), "sum");
    snapshot(real.host(), &a, "s").unwrap();
    real.sh(&b, &line("add /hoody/databases/data.db 1 300"));
    let new: i64 = said(&real.sh(&b, &line("sum /hoody/databases/data.db")), "sum");
    assert_ne!(old, new);
    real.sh(&b, "echo new > /hoody/databases/plain; echo extra > /hoody/databases/extra");
    let e = real.host().restore(&me, &a, "s", RestoreOptions::default()).unwrap_err();
    assert_eq!(e.code(), Code::DatabasesShared);
    assert!(e.message().contains('b') && e.data().unwrap()["containers"][0]["id"] == b.as_str(), "{e}");
    let options = |d| RestoreOptions { databases: Some(d), ..Default::default() };
    real.host().restore(&me, &a, "s", options(DatabasesChoice::Keep)).unwrap();
    assert_eq!(said::<i64>(&real.sh(&b, &line("sum /hoody/databases/data.db")), "sum"), new, "kept");
    // Somebody has it open all the while, and goes on writing afterwards.
    let seen = std::thread::scope(|s| {
        let watching = s.spawn(|| real.sh(&b, &line(&format!("watch /hoody/databases/data.db {old}"))));
        std::thread::sleep(Duration::from_millis(300));
        real.host().restore(&me, &a, "s", options(DatabasesChoice::Revert)).unwrap();
        watching.join().unwrap()
    });
    assert!(seen.contains(&format!("seen {new},{old}")) || seen.contains(&format!("seen {old}")), "{seen}");
    for c in [&a, &b] {
        assert_eq!(said::<i64>(&real.sh(c, &line("sum /hoody/databases/data.db")), "sum"), old, "{c}");
        assert_eq!(real.sh(c, "cat /hoody/databases/plain; ls /hoody/databases/extra 2>/dev/null; true"), "old\n");
    }
    // The undo takes the databases along too.
    let undo = real.host().container_detail(&a).unwrap().lineage.snapshot.unwrap();
    assert_eq!(undo.as_str(), "s");
    let kept = real.host().snapshots(&a).unwrap().snapshots.into_iter().find(|s| s.name.as_str().starts_with("undo-")).unwrap();
    real.host().restore(&me, &a, kept.name.as_str(), options(DatabasesChoice::Revert)).unwrap();
    assert_eq!(said::<i64>(&real.sh(&b, &line("sum /hoody/databases/data.db")), "sum"), new);
    assert_eq!(real.sh(&b, "cat /hoody/databases/plain /hoody/databases/extra"), "new\nextra\n");
    // Writers in the middle of it meet no error: they would have ended with it.
    std::thread::scope(|s| {
        let writing = s.spawn(|| real.sh(&b, &line("add /hoody/databases/data.db 8 3000")));
        for _ in 0..4 {
            real.host().restore(&me, &a, "s", options(DatabasesChoice::Revert)).unwrap();
        }
        assert!(said::<i64>(&writing.join().unwrap(), "added") > 0);
    });
    assert!(said::<i64>(&real.sh(&b, &line("sum /hoody/databases/data.db")), "sum") >= old, "sound");
    assert_clean(real.host(), "after reverts");
}

#[test]
fn databases_of_paused_stopped_and_idle_containers_are_quiesced_too() {
    let real = real("quiet");
    import(&real);
    let p = project(real.host(), "web");
    let me = Caller::default();
    for scope in [DatabaseScope::Project, DatabaseScope::Private] {
        let c = container(&real, &p, &format!("{scope:?}").to_lowercase(), |n| {
            worker(n);
            n.databases = Some(scope);
        });
        let quiet = |name: &str| assert_eq!(snapshot(real.host(), &c, name).unwrap().consistency, Consistency::DatabasesQuiesced, "{scope:?} {name}");
        quiet("idle");
        real.sh(&c, &line("init /hoody/databases/data.db"));
        real.host().lifecycle(&me, &c, Verb::Pause, None).unwrap();
        quiet("paused");
        real.host().lifecycle(&me, &c, Verb::Resume, None).unwrap();
        real.host().lifecycle(&me, &c, Verb::ForceStop, None).unwrap();
        quiet("stopped");
        let shown = real.host().snapshot_detail(&c, "stopped", Duration::ZERO).unwrap().snapshot.databases.unwrap();
        assert_eq!(shown.iter().map(|d| d.path.as_str()).collect::<Vec<_>>(), ["/hoody/databases/data.db"]);
    }
    assert_clean(real.host(), "after quiet snapshots");
}

/// To look for a share's directory once took what they had open from everybody who used the owner's private databases.
#[test]
fn shares_and_restarts_do_not_close_private_databases_in_use() {
    let real = real("undisturbed");
    import(&real);
    let p = project(real.host(), "web");
    let me = Caller::default();
    let private = |n: &mut NewContainer| {
        worker(n);
        n.databases = Some(DatabaseScope::Private);
    };
    let (owner, receiver) = (container(&real, &p, "owner", private), container(&real, &p, "receiver", worker));
    real.sh(&owner, "mkdir /hoody/databases/app");
    real.sh(&owner, &line("init /hoody/databases/app/data.db"));
    let s = super::share(&real, &owner, "/hoody/databases/app", &receiver, hoody_state::model::ShareMode::Readwrite);
    super::say(&real, &receiver, &s, true);
    let added: i64 = std::thread::scope(|t| {
        let real = &real;
        let writer = |(c, d)| t.spawn(move || real.sh(c, &line(&format!("add {d}/data.db 2 2500"))));
        let writers = [(&owner, "/hoody/databases/app"), (&receiver, "/hoody/shares/app")].map(writer);
        for i in 0..8 {
            // Each looks for the directory anew.
            let update = hoody_state::model::ShareUpdate { description: Some(Some(i.to_string())), ..Default::default() };
            real.host().update_share(&me, &owner, &s.id, update).unwrap();
            std::thread::sleep(Duration::from_millis(150));
        }
        writers.into_iter().map(|w| said::<i64>(&w.join().unwrap(), "added")).sum()
    });
    // A restart of the owner is nothing to its receivers.
    let added = std::thread::scope(|t| {
        let writer = t.spawn(|| real.sh(&receiver, &line("add /hoody/shares/app/data.db 2 2500")));
        for _ in 0..2 {
            real.host().lifecycle(&me, &owner, Verb::Restart, Some(Duration::ZERO)).unwrap();
        }
        added + said::<i64>(&writer.join().unwrap(), "added")
    });
    assert_eq!(said::<i64>(&real.sh(&owner, &line("sum /hoody/databases/app/data.db")), "sum"), added);
    // A restore is: who comes then sees the restored ones.
    snapshot(real.host(), &owner, "s").unwrap();
    real.sh(&receiver, &line("add /hoody/shares/app/data.db 1 200"));
    real.host().restore(&me, &owner, "s", RestoreOptions::default()).unwrap();
    for (c, d) in [(&owner, "/hoody/databases/app"), (&receiver, "/hoody/shares/app")] {
        assert_eq!(said::<i64>(&real.sh(c, &line(&format!("sum {d}/data.db"))), "sum"), added, "{d}");
    }
    assert_clean(real.host(), "after shared private databases");
}

/// Nobody can end the transaction of a container that stands still: the snapshot is taken all the same, says so, and SQLite rolls back what is half in it.
#[test]
fn a_snapshot_of_a_container_paused_in_a_transaction_says_crash_and_recovers() {
    let real = real("half");
    import(&real);
    let p = project(real.host(), "web");
    let me = Caller::default();
    for (name, scope, init) in [("journal", DatabaseScope::Project, "init-delete"), ("log", DatabaseScope::Private, "init")] {
        let c = container(&real, &p, name, |n| {
            worker(n);
            n.databases = Some(scope);
        });
        let db = format!("/hoody/databases/{name}.db");
        real.sh(&c, &line(&format!("{init} {db}")));
        std::thread::scope(|t| {
            let held = t.spawn(|| real.sh(&c, &line(&format!("hold {db} 1500"))));
            let broker = FuseLockedDb::new(&real.config.run.join("databases.sock"), &real.config.run.join("databases"));
            let writes = |f: &FileLocks| f.name.contains(name) && f.holders.iter().any(|h| h.locks.contains("write"));
            let holds = || broker.status().unwrap().files.iter().any(writes);
            super::eventually("the transaction", holds);
            std::thread::sleep(Duration::from_millis(200));
            real.host().lifecycle(&me, &c, Verb::Pause, None).unwrap();
            assert_eq!(snapshot(real.host(), &c, "half").unwrap().consistency, Consistency::Crash, "{name}");
            real.host().lifecycle(&me, &c, Verb::Resume, None).unwrap();
            held.join().unwrap();
        });
        let home = real.config.run.join("pool/containers").join(c.as_str());
        let file = match scope {
            DatabaseScope::Project => home.join("databases/half").join(format!("{name}.db")),
            DatabaseScope::Private => home.join("snapshots/half").join(&db[1..]),
        };
        assert_eq!(counter_in(&file), 0, "{name}: nothing of the transaction is in it");
        assert_eq!(said::<i64>(&real.sh(&c, &line(&format!("sum {db}"))), "sum"), 1, "{name}: the transaction itself went on");
        assert_eq!(snapshot(real.host(), &c, "whole").unwrap().consistency, Consistency::DatabasesQuiesced);
    }
    assert_clean(real.host(), "after snapshots of paused containers");
}

#[test]
fn a_revert_restores_everything_and_not_only_what_looks_changed() {
    let real = real("revert-all");
    import(&real);
    let p = project(real.host(), "web");
    let (a, b) = (container(&real, &p, "a", worker), container(&real, &p, "b", worker));
    // What `cp -p` and package managers leave: the same size and the same time.
    let stamp = "touch -d '2020-01-01 00:00:00'";
    real.sh(
        &a,
        &format!("cd /hoody/databases; printf old! > code; {stamp} code; mkfifo -m 640 pipe; echo one > x; ln x y; mkdir dir; echo in > dir/file; {stamp} dir"),
    );
    real.sh(&a, &line("init /hoody/databases/data.db"));
    snapshot(real.host(), &a, "s").unwrap();
    real.sh(&b, &format!("cd /hoody/databases; printf new! > code; {stamp} code; rm pipe y; echo two > x; echo one > y; ln y z; echo more > dir/more; chmod 600 dir/file data.db"));
    real.sh(&b, &line("add /hoody/databases/data.db 1 300"));
    let options = RestoreOptions { databases: Some(DatabasesChoice::Revert), ..Default::default() };
    real.host().restore(&Caller::default(), &a, "s", options).unwrap();
    let seen = real.sh(&b, "cd /hoody/databases; cat code; ls; cat x y; stat -c '%h %a' x y pipe; stat -c %F pipe; ls dir; stat -c %Y code dir; stat -c %a dir/file data.db; test x -ef y && echo linked");
    assert_eq!(seen, "old!code\ndata.db\ndir\npipe\nx\ny\none\none\n2 644\n2 644\n1 640\nfifo\nfile\n1577836800\n1577836800\n644\n644\nlinked\n", "{seen}");
    assert_eq!(said::<i64>(&real.sh(&b, &line("sum /hoody/databases/data.db")), "sum"), 0);
    assert_clean(real.host(), "after a revert");
}
