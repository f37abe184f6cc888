//! The backends in `examples/`, which use the public API alone, pass the suites of their traits and serve a host.
#![allow(clippy::unwrap_used, dead_code)]

#[path = "../examples/locked_db.rs"]
mod locked_db;
#[path = "../examples/runtime.rs"]
mod runtime;
#[path = "../examples/share_mount.rs"]
mod share_mount;

#[test]
fn a_runtime_of_ones_own() {
    runtime::main().unwrap();
    std::fs::remove_dir_all("/var/tmp/hoody-rows").unwrap();
}

#[test]
fn share_mounts_of_ones_own() {
    share_mount::main().unwrap();
    std::fs::remove_dir_all("/var/tmp/hoody-table").unwrap();
}

#[test]
fn databases_of_ones_own() {
    locked_db::main().unwrap();
    std::fs::remove_dir_all("/var/tmp/hoody-plain").unwrap();
}

/// On this machine, with all other parts the machine's own: BTRFS, control groups, mounts.
mod on_this_machine {
    use super::{locked_db, runtime, share_mount};
    use hoody_state::model::{NewContainer, NewSnapshot, RestoreOptions, Status, Verb};
    use hoody_state::share::{Receiver, ShareMount};
    use hoody_state::{Caller, Code};
    use hoody_state_workspace::{RealHost, assert_clean, at_rest, project};
    use std::sync::Arc;

    #[test]
    fn a_runtime_of_ones_own_runs_containers_over_real_volumes() {
        let runs = Arc::new(runtime::RowRuntime::default());
        let mut real = RealHost::built("own-runtime", |_| {}, move |b| b.runtime(runs.clone()));
        let me = Caller::default();
        let p = project(real.host(), "web");
        let c = real.host().create_container(&me, &p, NewContainer::default()).unwrap().id;
        let kept = NewSnapshot { alias: Some("before".into()), ..Default::default() };
        real.host().create_snapshot(&me, &c, kept).unwrap();
        std::fs::write(real.live(&c).join("etc/passwd"), "ruined").unwrap();
        real.host().restore(&me, &c, "before", RestoreOptions::default()).unwrap();
        at_rest(real.host());
        assert_ne!(std::fs::read_to_string(real.live(&c).join("etc/passwd")).unwrap(), "ruined");
        real.stop();
        real.start();
        assert_eq!(real.host().container(&c).unwrap().status, Status::Running, "the next host adopts what the runtime runs");
        real.host().lifecycle(&me, &c, Verb::Stop, None).unwrap();
        assert_clean(real.host(), "over a runtime of one's own");
    }

    #[test]
    fn databases_of_ones_own_are_what_a_container_sees() {
        let databases = Arc::new(locked_db::PlainDirectories::default());
        let real = RealHost::built("own-databases", |_| {}, move |b| b.databases(databases.clone()));
        let me = Caller::default();
        let p = project(real.host(), "web");
        let [a, b] =
            ["one", "two"].map(|name| real.host().create_container(&me, &p, NewContainer { name: Some(name.into()), ..Default::default() }).unwrap().id);
        real.sh(&a, "echo one > /hoody/databases/note");
        assert_eq!(real.sh(&b, "cat /hoody/databases/note"), "one\n", "the containers of a project see the same directory");
        real.host().create_snapshot(&me, &a, NewSnapshot { alias: Some("before".into()), ..Default::default() }).unwrap();
        assert_clean(real.host(), "over databases of one's own");
    }

    #[test]
    fn share_mounts_of_ones_own_are_given_to_a_host() {
        let table = Arc::new(share_mount::Table::default());
        let given = table.clone();
        let real = RealHost::built("own-shares", |_| {}, move |b| b.shares(given.clone()));
        let me = Caller::default();
        let p = project(real.host(), "web");
        let [owner, receiver] =
            ["one", "two"].map(|name| real.host().create_container(&me, &p, NewContainer { name: Some(name.into()), ..Default::default() }).unwrap().id);
        let new = serde_json::json!({ "source_path": "/etc", "target_project_id": p, "mode": "readonly" });
        let share = real.host().create_share(&me, &owner, serde_json::from_value(new).unwrap()).unwrap();
        let seen = || table.attached(&Receiver { container: receiver.clone(), pid: 0 }).unwrap().len();
        assert_eq!(seen(), 1);
        real.host().delete_share(&me, &share.id).unwrap();
        assert_eq!(seen(), 0);
        assert_eq!(real.host().share(None, &share.id).unwrap_err().code(), Code::ShareNotFound);
        assert_clean(real.host(), "over share mounts of one's own");
    }
}

#[test]
fn each_is_shorter_than_100_lines() {
    for name in ["locked_db", "runtime", "share_mount"] {
        let text = std::fs::read_to_string(format!("{}/examples/{name}.rs", env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert!(text.lines().count() < 100, "{name}: {}", text.lines().count());
    }
}
