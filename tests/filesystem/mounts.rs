use super::{container, eventually, real};
use hoody_state::model::{DatabaseScope, RestoreOptions, Status, Verb};
use hoody_state::{Caller, Host};
use hoody_state_workspace::{assert_clean, at_rest, project, snapshot};

#[test]
fn a_container_has_its_five_paths() {
    let real = real("paths");
    let p = project(real.host(), "web");
    let c = container(&real, &p, "dev", |_| {});
    let mounts = real.sh(&c, "grep -E ' /(hoody/[a-z]+|ramdisk) ' /proc/mounts | cut -d' ' -f2,3 | sort");
    assert_eq!(mounts, "/hoody/databases fuse\n/hoody/shares tmpfs\n/hoody/snapshots btrfs\n/ramdisk tmpfs\n");
    assert_eq!(real.sh(&c, "stat -c '%u:%g %a' /hoody/storage /hoody/databases /ramdisk"), "0:0 755\n0:0 755\n0:0 1777\n");
    let shown: Vec<String> = real.host().container_detail(&c).unwrap().mounts.into_iter().map(|m| m.path).collect();
    assert_eq!(shown, ["/hoody/storage", "/hoody/databases", "/ramdisk", "/hoody/snapshots"]);
    real.sh(&c, "for d in /hoody/storage /hoody/databases /ramdisk; do echo x > $d/f; done");
    let e = real
        .host()
        .exec(
            &c,
            &hoody_state::runtime::ExecSpec {
                command: ["/bin/sh", "-c", "mkdir /hoody/shares/x; umount /hoody/databases; mount -o remount,rw /hoody/shares"].map(String::from).to_vec(),
                output_limit: 4096,
                ..Default::default()
            },
        )
        .unwrap();
    assert_ne!(e.exit_code, 0, "what is shared and mounted is not the container's to change");
    assert_clean(real.host(), "with all mounts");
}

#[test]
fn each_path_survives_what_it_should() {
    let mut real = real("survives");
    let p = project(real.host(), "web");
    let me = Caller::default();
    let c = container(&real, &p, "dev", |_| {});
    let private = container(&real, &p, "private", |n| n.databases = Some(DatabaseScope::Private));
    let write = |real: &hoody_state_workspace::RealHost, text: &str| {
        for c in [&c, &private] {
            real.sh(c, &format!("for d in /hoody/storage /hoody/databases /ramdisk; do echo {text} > $d/f; done"));
        }
    };
    let read =
        |real: &hoody_state_workspace::RealHost, c| real.sh(c, "cat /hoody/storage/f /hoody/databases/f /ramdisk/f 2>/dev/null; true").replace('\n', " ");
    write(&real, "one");
    real.host().lifecycle(&me, &c, Verb::Restart, None).unwrap();
    assert_eq!(read(&real, &c), "one one one ", "a restart keeps everything");
    let s = snapshot(real.host(), &c, "s").unwrap();
    assert_eq!(s.consistency, hoody_state::model::Consistency::DatabasesQuiesced);
    snapshot(real.host(), &private, "s").unwrap();
    write(&real, "two");
    for c in [&c, &private] {
        real.host().restore(&me, c, "s", RestoreOptions::default()).unwrap();
        assert_eq!(read(&real, c), "one one two ", "a restore takes back the disk and the databases, not the memory");
    }
    for c in [&c, &private] {
        real.host().undo(&me, c).unwrap();
        assert_eq!(read(&real, c), "two two two ", "and an undo brings both back");
    }
    assert_clean(real.host(), "after restores with databases");
    // A restart of the server.
    real.stop();
    real.start();
    assert_eq!(read(&real, &c), "two two two ");
    // A reboot.
    real.stop();
    Host::unmount(&real.config).unwrap();
    assert!(!hoody_state::mountinfo::of_this_process().unwrap().iter().any(|m| m.at.starts_with(&real.config.run)));
    real.start();
    for c in [&c, &private] {
        eventually("the start after a reboot", || real.host().container(c).unwrap().status == Status::Running);
        assert_eq!(read(&real, c), "two two ", "only the memory is gone");
    }
    at_rest(real.host());
    assert_clean(real.host(), "after a reboot");
    for c in [&c, &private] {
        real.host().delete_container(&me, c).unwrap();
    }
    at_rest(real.host());
    real.host().delete_project(&me, &p, false).unwrap();
    assert_clean(real.host(), "after everything was deleted");
    assert!(std::fs::read_dir(real.config.run.join("pool/projects")).unwrap().next().is_none(), "the project's databases are gone");
}

#[test]
fn projects_do_not_see_each_others_databases() {
    let real = real("isolated");
    let (p, q) = (project(real.host(), "p"), project(real.host(), "q"));
    let (a, b, other) = (container(&real, &p, "a", |_| {}), container(&real, &p, "b", |_| {}), container(&real, &q, "other", |_| {}));
    real.sh(&a, "echo secret > /hoody/databases/f; ln -s /hoody/databases/.. /hoody/databases/up; ln -s ../../../../.. /hoody/databases/out");
    assert_eq!(real.sh(&b, "cat /hoody/databases/f"), "secret\n", "one project, the same files");
    assert_eq!(
        real.sh(&other, "ls -A /hoody/databases /hoody/databases/.."),
        "/hoody/databases:\n\n/hoody/databases/..:\ndatabases\nshares\nsnapshots\nstorage\n"
    );
    assert_eq!(real.sh(&a, "ls /hoody/databases/up; ls -d /hoody/databases/out/etc"), "databases\nshares\nsnapshots\nstorage\n/hoody/databases/out/etc\n");
    // Not by a link between mounts either.
    assert_ne!(
        real.host()
            .exec(
                &a,
                &hoody_state::runtime::ExecSpec {
                    command: ["ln", "/hoody/databases/f", "/hoody/storage/f"].map(String::from).to_vec(),
                    output_limit: 4096,
                    ..Default::default()
                }
            )
            .unwrap()
            .exit_code,
        0
    );
}

#[test]
fn a_link_made_by_a_container_never_leads_a_mount_into_a_host_directory() {
    let real = real("planted");
    let p = project(real.host(), "web");
    let me = Caller::default();
    for scope in [DatabaseScope::Project, DatabaseScope::Private] {
        let name = format!("{scope:?}").to_lowercase();
        let c = container(&real, &p, &name, |n| n.databases = Some(scope));
        real.host().lifecycle(&me, &c, Verb::ForceStop, None).unwrap();
        // As its own root may do it, by a rename of what is above.
        let live = real.live(&c);
        std::fs::rename(live.join("hoody"), live.join("old")).unwrap();
        std::os::unix::fs::symlink("/etc", live.join("hoody")).unwrap();
        let before: Vec<_> = std::fs::read_dir("/etc").unwrap().map(|e| e.unwrap().file_name()).collect();
        let started = real.host().lifecycle(&me, &c, Verb::Start, None);
        assert_eq!(std::fs::read_dir("/etc").unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>(), before, "nothing of the host is touched");
        if started.is_ok() {
            assert_eq!(real.sh(&c, "cat /hoody/hostname"), real.sh(&c, "cat /etc/hostname"), "the link leads to the container's own");
        }
    }
}

#[test]
fn a_killed_daemon_is_started_again_and_its_mounts_work_in_running_containers() {
    let real = real("daemon");
    let p = project(real.host(), "web");
    let c = container(&real, &p, "dev", |_| {});
    let private = container(&real, &p, "private", |n| n.databases = Some(DatabaseScope::Private));
    let paused = container(&real, &p, "paused", |_| {});
    real.host().lifecycle(&Caller::default(), &paused, Verb::Pause, None).unwrap();
    for c in [&c, &private] {
        real.sh(c, "echo kept > /hoody/databases/f");
    }
    let init = real.sh(&c, "cut -d' ' -f22 /proc/1/stat");
    for _ in 0..3 {
        let pid = super::databases::daemon_of(&real);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        let good = |c| {
            real.host()
                .exec(
                    c,
                    &hoody_state::runtime::ExecSpec {
                        command: ["cat", "/hoody/databases/f"].map(String::from).to_vec(),
                        output_limit: 99,
                        ..Default::default()
                    },
                )
                .unwrap()
                .stdout
                == b"kept\n"
        };
        eventually("a good mount in a running container", || good(&c) && good(&private));
    }
    real.host().lifecycle(&Caller::default(), &paused, Verb::Resume, None).unwrap();
    assert_eq!(real.sh(&paused, "cat /hoody/databases/f"), "kept\n");
    assert_eq!(real.sh(&c, "cut -d' ' -f22 /proc/1/stat"), init, "the container was not touched");
    assert_clean(real.host(), "after the daemon was killed");
}

#[test]
fn a_server_that_starts_after_its_daemon_was_killed_repairs_the_mounts() {
    let mut real = real("both");
    let p = project(real.host(), "web");
    let c = container(&real, &p, "dev", |_| {});
    real.sh(&c, "echo kept > /hoody/databases/f");
    real.stop();
    let pid = super::databases::daemon_of(&real);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("the end of the daemon", || !std::path::Path::new(&format!("/proc/{pid}/exe")).exists());
    real.start();
    assert_eq!(real.sh(&c, "cat /hoody/databases/f"), "kept\n");
    assert_clean(real.host(), "after both ended");
}

#[test]
fn a_check_beside_a_running_server_knows_all_mounts() {
    let real = real("checked");
    let p = project(real.host(), "web");
    let me = Caller::default();
    let (owner, receiver) = (container(&real, &p, "owner", |_| {}), container(&real, &p, "receiver", |_| {}));
    real.sh(&owner, "mkdir /hoody/storage/docs");
    let new = serde_json::json!({ "source_path": "/hoody/storage/docs", "mode": "readonly", "target_project_id": p });
    real.host().create_share(&me, &owner, serde_json::from_value(new).unwrap()).unwrap();
    assert_eq!(real.sh(&receiver, "ls /hoody/shares"), "docs\n");
    let check = || Host::check_pool(&real.config, false).unwrap();
    assert_eq!(check(), []);
    // A container that has lost its databases.
    let pid = super::isolation::pid_of_init(&real, &owner).to_string();
    let done = std::process::Command::new("nsenter").args(["-t", &pid, "-m", "umount", "-l", "/hoody/databases"]).status().unwrap();
    assert!(done.success());
    assert_eq!(check().iter().map(|f| f.code.as_str()).collect::<Vec<_>>(), ["databases_stale"]);
    real.host().lifecycle(&me, &owner, Verb::Restart, None).unwrap();
    assert_eq!(check(), []);
    // Something that nobody asked for.
    let stray = real.config.run.join("ramdisks/65f0c0ffee00000000000000");
    std::fs::create_dir(&stray).unwrap();
    nix::mount::mount(Some("x"), &stray, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
    assert_eq!(check().iter().map(|f| f.code.as_str()).collect::<Vec<_>>(), ["orphan_ramdisk"]);
    assert!(Host::check_pool(&real.config, true).unwrap()[0].repaired);
    assert_eq!(check(), []);
}

/// A start that met the daemon's death once failed, or ran with the mount of the dead one.
#[test]
fn a_container_starts_although_the_daemon_is_killed_meanwhile() {
    let real = real("midway");
    let p = project(real.host(), "web");
    let me = Caller::default();
    let (owner, c) = (container(&real, &p, "owner", |n| n.databases = Some(DatabaseScope::Private)), container(&real, &p, "dev", |_| {}));
    real.sh(&owner, "mkdir /hoody/databases/app; echo app > /hoody/databases/app/f");
    real.sh(&c, "echo kept > /hoody/databases/f");
    super::share_with_all(&real, &owner, "/hoody/databases/app", &p);
    for i in 0..6 {
        std::thread::scope(|t| {
            let start = t.spawn(|| real.host().lifecycle(&me, &c, Verb::Restart, Some(std::time::Duration::ZERO)));
            std::thread::sleep(std::time::Duration::from_millis(25 * i));
            let pid = super::databases::daemon_of(&real);
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
            start.join().unwrap().unwrap();
        });
        let good = || super::attempt(&real, &c, "cat /hoody/databases/f /hoody/shares/app/f").stdout == b"kept\napp\n";
        eventually("good mounts after a start", good);
    }
    assert_eq!(real.sh(&owner, "cat /hoody/databases/app/f"), "app\n");
    assert_clean(real.host(), "after starts without a daemon");
}
