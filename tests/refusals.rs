//! A refusal changes nothing: for each operation and each reason it can be refused for, the catalog and the pool are afterwards what they were before.
//! `tests/hostile/inputs.rs` has the same for what is wrong with a request by itself; here are the reasons that lie in the state of the host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use hoody_state::id::ContainerId;
use hoody_state::model::{
    CopyRequest, ForkRequest, MoveRequest, NewContainer, NewShare, NewSnapshot, OnAliasConflict, ProjectInput, RestoreFiles, RestoreOptions, Rights, ShareMode,
    SyncRequest, Verb,
};
use hoody_state::snapshot::SnapshotStore;
use hoody_state::transfer::memory::MemoryNet;
use hoody_state::units::Bytes;
use hoody_state::{Caller, Code, Host, Result};
use hoody_state_workspace::{MemoryWorld, acquaint, assert_clean, container, furnish, picture, project, snapshot};
use rusqlite::types::ValueRef;
use std::time::{Duration, Instant};

const B: &str = "https://b";

fn me() -> Caller {
    Caller::default()
}

/// Two servers, each with a container `agent` (with the snapshots `s` and `pinned`), and a full project.
struct Stage {
    a: MemoryWorld,
    b: MemoryWorld,
    here: Host,
    there: Host,
    agent: ContainerId,
    project: String,
    full: String,
}

impl Stage {
    fn new() -> Self {
        let net = MemoryNet::new();
        let (a, b) = (MemoryWorld::on(&net, "a"), MemoryWorld::on(&net, "b"));
        let (here, there) = (a.host(), b.host());
        acquaint(&here, "https://a", &there, B);
        let p = furnish(&here);
        let q = furnish(&there);
        let agent = container(&here, &p, "agent").unwrap();
        container(&here, &p, "other").unwrap();
        container(&there, &q, "standby").unwrap();
        for name in ["s", "pinned"] {
            a.write(&agent, "state", name);
            snapshot(&here, &agent, name).unwrap();
        }
        here.pin_snapshot(&me(), &agent, "pinned", Some("kept for the audit".into())).unwrap();
        let full = project(&here, "full");
        let limit = ProjectInput { max_containers: Some(Some(1)), ..Default::default() };
        here.update_project(&me(), &full, limit).unwrap();
        container(&here, &full, "only").unwrap();
        Stage { a, b, here, there, agent, project: p.to_string(), full: full.to_string() }
    }

    /// All that is durable on both servers: each row of each table, and each volume with what is in it.
    fn state(&self) -> String {
        let mut all = String::new();
        for (world, host) in [(&self.a, &self.here), (&self.b, &self.there)] {
            settle(host);
            let catalog = rusqlite::Connection::open(world.catalog_file()).unwrap();
            let tables: Vec<String> = {
                let mut s = catalog.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'sqlite_sequence' ORDER BY name").unwrap();
                s.query_map([], |r| r.get(0)).unwrap().map(std::result::Result::unwrap).collect()
            };
            for table in tables {
                let mut s = catalog.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2")).unwrap();
                let columns = s.column_count();
                let mut rows = s.query([]).unwrap();
                while let Some(row) = rows.next().unwrap() {
                    let cells: Vec<String> = (0..columns).map(|i| shown(row.get_ref(i).unwrap())).collect();
                    all += &format!("{table}: {}\n", cells.join(" | "));
                }
            }
            for v in world.store.list(None).unwrap() {
                all += &format!("{v:?} {:?} {:?}\n", world.store.info(&v).unwrap(), world.store.content(&v).unwrap());
            }
        }
        all
    }

    fn refused<T: std::fmt::Debug>(&self, what: &str, code: Code, f: impl FnOnce() -> Result<T>) {
        let (before, seen) = (self.state(), picture(&self.here));
        let e = f().expect_err(what);
        assert_eq!(e.code(), code, "{what}: {e}");
        let (after, now) = (self.state(), picture(&self.here));
        let new: Vec<&str> = after.lines().filter(|l| !before.contains(l)).collect();
        let gone: Vec<&str> = before.lines().filter(|l| !after.contains(l)).collect();
        assert!(new.is_empty() && gone.is_empty() && seen == now, "{what}: {code} has changed\n- {}\n+ {}", gone.join("\n- "), new.join("\n+ "));
        for host in [&self.here, &self.there] {
            assert_clean(host, what);
        }
    }

    fn copy(&self) -> CopyRequest {
        CopyRequest { target_project_id: Some(self.project.clone()), name: Some("fresh-name".into()), ..Default::default() }
    }

    fn far(&self) -> CopyRequest {
        CopyRequest { target_server_id: Some(self.b.server.id.to_string()), ..self.copy() }
    }
}

fn shown(v: ValueRef<'_>) -> String {
    match v {
        ValueRef::Null => "null".into(),
        ValueRef::Integer(i) => i.to_string(),
        ValueRef::Real(r) => r.to_string(),
        ValueRef::Text(t) | ValueRef::Blob(t) => String::from_utf8_lossy(t).into_owned(),
    }
}

/// Waits until nothing is under way.
fn settle(host: &Host) {
    let end = Instant::now() + Duration::from_secs(20);
    let page = hoody_state::model::PageRequest { limit: 100, ..hoody_state::model::PageRequest::first() };
    while host.operations(&page).unwrap().rows.iter().any(|o| o.finished_at.is_none()) {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn copies_and_forks_that_are_refused_leave_nothing() {
    let s = Stage::new();
    let copy = |request: CopyRequest| s.here.copy_container(&me(), &s.agent, request);
    s.refused("a name that is taken", Code::ContainerNameInUse, || copy(CopyRequest { name: Some("other".into()), ..s.copy() }));
    s.refused("a full project", Code::ProjectContainerLimit, || copy(CopyRequest { target_project_id: Some(s.full.clone()), ..s.copy() }));
    s.refused("no such project", Code::ProjectNotFound, || copy(CopyRequest { target_project_id: Some("65f0c0ffee000000000000aa".into()), ..s.copy() }));
    s.refused("no such snapshot", Code::SnapshotNotFound, || copy(CopyRequest { source_snapshot: Some("nowhere".into()), ..s.copy() }));
    let p = s.project.parse().unwrap();
    let key = NewContainer { name: Some("keyed".into()), ssh_public_key: Some("ssh-ed25519 AAAA".into()), ..Default::default() };
    s.here.create_container(&me(), &p, key).unwrap();
    s.refused("a key that is taken", Code::SshPublicKeyInUse, || copy(CopyRequest { ssh_public_key: Some("ssh-ed25519 AAAA".into()), ..s.copy() }));
    for n in 1..=2 {
        container(&s.here, &p, &format!("try-{n}")).unwrap();
    }
    let fork = ForkRequest { count: Some(2), name_prefix: Some("try".into()), ..Default::default() };
    s.refused("forks whose names are all taken", Code::ContainerNameInUse, || s.here.fork_container(&me(), &s.agent, &fork));
    let fork = ForkRequest { source_snapshot: Some("nowhere".into()), ..fork };
    s.refused("forks of no snapshot", Code::SnapshotNotFound, || s.here.fork_container(&me(), &s.agent, &fork));
    s.a.store.set_capacity(Bytes(1));
    s.refused("a full pool", Code::PoolFull, || copy(s.copy()));
    s.refused("a full pool", Code::PoolFull, || s.here.fork_container(&me(), &s.agent, &ForkRequest { count: Some(2), ..Default::default() }));
}

#[test]
fn copies_to_another_server_and_moves_that_are_refused_leave_nothing_on_either_side() {
    let s = Stage::new();
    let copy = |request: CopyRequest| s.here.copy_container(&me(), &s.agent, request);
    let to = |name: &str| MoveRequest { target_server_id: Some(s.b.server.id.to_string()), name: Some(name.into()), ..Default::default() };
    let moved = |request: &MoveRequest| s.here.move_container(&me(), &s.agent, request);
    let q = s.there.projects(&hoody_state::model::PageRequest::first(), None).unwrap().rows[0].id.clone();
    let into = |name: &str| CopyRequest { target_project_id: Some(q.to_string()), name: Some(name.into()), ..s.far() };
    s.refused("a name that is taken there", Code::ContainerNameInUse, || copy(into("standby")));
    let taken = MoveRequest { target_project_id: Some(q.to_string()), ..to("standby") };
    s.refused("a move to a name that is taken there", Code::ContainerNameInUse, || moved(&taken));
    s.refused("no such snapshot", Code::SnapshotNotFound, || copy(CopyRequest { source_snapshot: Some("nowhere".into()), ..into("x-1") }));
    s.refused("a project that is nowhere", Code::ProjectNotFound, || {
        copy(CopyRequest { target_project_id: Some("65f0c0ffee000000000000aa".into()), ..s.far() })
    });
    s.refused("an unknown server", Code::UnknownServer, || copy(CopyRequest { target_server_id: Some("65f0c0ffee000000000000bb".into()), ..s.far() }));
    let limit = ProjectInput { max_containers: Some(Some(1)), ..Default::default() };
    s.there.update_project(&me(), &q, limit).unwrap();
    s.refused("a full project there", Code::ProjectContainerLimit, || copy(into("x-2")));
    s.refused("a move into a full project", Code::ProjectContainerLimit, || moved(&MoveRequest { target_project_id: Some(q.to_string()), ..to("x-3") }));
    s.b.store.set_capacity(Bytes(1));
    s.refused("a full pool there", Code::PoolFull, || copy(s.far()));
    s.refused("a move into a full pool", Code::PoolFull, || moved(&to("x-4")));
    s.b.store.set_capacity(Bytes::gib(1));
    s.here.lifecycle(&me(), &s.agent, Verb::Pause, None).unwrap();
    s.refused("a move of a paused container", Code::OperationStateConflict, || moved(&to("x-5")));
    s.here.lifecycle(&me(), &s.agent, Verb::Resume, None).unwrap();
    // The target does not take the token any more.
    s.there.tokens().unwrap().iter().for_each(|t| s.there.revoke_token(t.id.as_str()).unwrap());
    s.refused("a token that is not taken", Code::PeerRefused, || copy(s.far()));
    s.refused("a move with a token that is not taken", Code::PeerRefused, || moved(&to("x-6")));
    let wrong = s.there.create_token("of nobody", None, Rights::ReadOnly).unwrap().0;
    s.refused("a token for people", Code::InsufficientPermissions, || s.there.answer_peer(&wrong, hoody_state::transfer::Request::Hello { from: None }));
}

#[test]
fn changes_of_containers_snapshots_images_shares_and_projects_that_are_refused_leave_nothing() {
    let s = Stage::new();
    let (h, c) = (&s.here, &s.agent);
    let p = s.project.parse().unwrap();
    s.refused("a name that is taken", Code::ContainerNameInUse, || container(h, &p, "other"));
    s.refused("a full project", Code::ProjectContainerLimit, || container(h, &s.full.parse().unwrap(), "one-more"));
    s.refused("an alias that is taken", Code::AliasInUse, || snapshot(h, c, "s"));
    let replace = NewSnapshot { alias: Some("pinned".into()), on_alias_conflict: OnAliasConflict::Replace, ..Default::default() };
    s.refused("replacing what is pinned", Code::SnapshotPinned, || h.create_snapshot(&me(), c, replace));
    s.refused("deleting what is pinned", Code::SnapshotPinned, || h.delete_snapshot(&me(), c, "pinned"));
    s.refused("renaming to what is taken", Code::AliasInUse, || h.rename_snapshot(&me(), c, "s", Some("pinned".into())));
    s.refused("deleting a container with a pinned snapshot", Code::SnapshotPinned, || h.delete_container(&me(), c));
    s.refused("deleting its project", Code::SnapshotPinned, || h.delete_project(&me(), &p, true));
    let keep = RestoreOptions { keep_current: Some("pinned".into()), ..Default::default() };
    s.refused("keeping under what is taken", Code::AliasInUse, || h.restore(&me(), c, "s", keep));
    let files = |path: &str| RestoreFiles { paths: vec![path.into()], ..Default::default() };
    s.refused("files of no snapshot", Code::SnapshotNotFound, || h.restore_files(&me(), c, "nowhere", files("/state")));
    s.refused("files of no container", Code::ContainerNotFound, || h.restore_files(&me(), &"65f0c0ffee000000000000aa".parse().unwrap(), "s", files("/state")));
    s.refused("a path with dots", Code::InvalidPath, || h.restore_files(&me(), c, "s", files("/a/../b")));
    s.refused("what is mounted", Code::NotInVolume, || h.restore_files(&me(), c, "s", RestoreFiles { to: Some("/ramdisk".into()), ..files("/state") }));
    s.refused("nothing to undo", Code::NothingToUndo, || h.undo(&me(), c));
    s.refused("an image that exists", Code::ImageExists, || h.image_from_snapshot(&me(), "tiny", c, "s"));
    s.refused("a sync of what is no copy", Code::NotACopy, || h.sync_container(&me(), c, &SyncRequest::default()));
    let share = |to: &str| NewShare {
        source_path: "/data".into(),
        target_container_id: Some(to.parse().unwrap()),
        target_project_id: None,
        mode: ShareMode::Readonly,
        alias: None,
        label: None,
        description: None,
        enabled: None,
        expires_at: None,
    };
    s.refused("a share with nobody", Code::ContainerNotFound, || h.create_share(&me(), c, share("65f0c0ffee000000000000aa")));
    s.refused("a share with itself", Code::SelfShare, || h.create_share(&me(), c, share(c.as_str())));
    s.refused("resuming what is not paused", Code::OperationStateConflict, || h.lifecycle(&me(), c, Verb::Resume, None));
    s.a.store.set_capacity(Bytes(1));
    s.refused("a snapshot in a full pool", Code::PoolFull, || snapshot(h, c, "new"));
    s.refused("files in a full pool", Code::PoolFull, || h.restore_files(&me(), c, "s", files("/state")));
    s.refused("a restore in a full pool", Code::PoolFull, || h.restore(&me(), c, "s", RestoreOptions::default()));
    s.refused("a container in a full pool", Code::PoolFull, || container(h, &p, "new"));
    s.refused("an image in a full pool", Code::PoolFull, || h.image_from_snapshot(&me(), "new", c, "s"));
}

#[test]
fn what_is_refused_while_another_change_is_under_way_leaves_nothing() {
    let s = Stage::new();
    s.a.write(&s.agent, "big", &"x".repeat(20_000));
    let far = CopyRequest { rate_limit: Some(Bytes(20)), ..s.far() };
    let copy = s.here.copy_container(&me(), &s.agent, far).unwrap().id;
    let op = s.there.container(&copy).unwrap().operation_id.unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while s.there.operation(&op).unwrap().sent.unwrap_or(0) == 0 {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(2));
    }
    let (h, c) = (&s.there, &copy);
    let before = picture(h);
    let pictures = |v: &serde_json::Value| (v["snapshots"].clone(), v["projects"].clone(), v["images"].clone(), v["operations"].clone());
    for (what, e) in [
        ("a snapshot", h.create_snapshot(&me(), c, NewSnapshot::default()).map(drop)),
        ("a restore", h.restore(&me(), c, "s", RestoreOptions::default()).map(drop)),
        ("a start", h.lifecycle(&me(), c, Verb::Start, None).map(drop)),
        ("a delete", h.delete_container(&me(), c)),
        ("a sync", h.sync_container(&me(), c, &SyncRequest::default()).map(drop)),
        ("a copy", h.copy_container(&me(), c, CopyRequest { target_project_id: Some(s.project.clone()), ..Default::default() }).map(drop)),
    ] {
        let e = e.expect_err(what);
        let codes = [Code::OperationInProgress, Code::SnapshotOperationInProgress, Code::OperationStateConflict, Code::SnapshotNotFound];
        assert!(codes.contains(&e.code()), "{what}: {e}");
    }
    assert_eq!(pictures(&picture(h)), pictures(&before));
    h.cancel_operation(&op).unwrap();
    settle(h);
    assert_clean(h, "after the copy was cancelled");
}
