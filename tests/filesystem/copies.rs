//! What copies and syncs do with the project's databases.

use super::{container, eventually, real};
use hoody_state::Caller;
use hoody_state::id::ContainerId;
use hoody_state::model::{CopyRequest, DatabaseScope, Status, SyncRequest};
use hoody_state_workspace::worker::{import, line, said};
use hoody_state_workspace::{RealHost, assert_clean, project, snapshot};

fn copy(real: &RealHost, c: &ContainerId, to: &hoody_state::id::ProjectId, name: &str) -> hoody_state::model::Container {
    let request = CopyRequest { target_project_id: Some(to.to_string()), name: Some(name.into()), ..Default::default() };
    let made = real.host().copy_container(&Caller::default(), c, request).unwrap();
    eventually("a copy that runs", || real.host().container(&made.id).is_ok_and(|c| c.status == Status::Running && c.operation_id.is_none()));
    real.host().container(&made.id).unwrap()
}

fn sum(real: &RealHost, c: &ContainerId) -> i64 {
    said(&real.sh(c, &line("sum /hoody/databases/data.db")), "sum")
}

#[test]
fn a_copy_into_a_project_without_databases_copies_them() {
    let real = real("copy-db");
    import(&real);
    let (p, q) = (project(real.host(), "p"), project(real.host(), "q"));
    let worker = |n: &mut hoody_state::model::NewContainer| n.container_image = Some("worker".into());
    let c = container(&real, &p, "source", worker);
    real.sh(&c, &line("init /hoody/databases/data.db"));
    real.sh(&c, &line("add /hoody/databases/data.db 2 300"));
    let before = sum(&real, &c);
    snapshot(real.host(), &c, "first").unwrap();
    // Another project: it gets them. The same project: both see the same ones.
    let there = copy(&real, &c, &q, "there");
    let here = copy(&real, &c, &p, "here");
    assert_eq!((sum(&real, &there.id), there.status_message), (before, None));
    real.sh(&c, &line("add /hoody/databases/data.db 2 300"));
    let after = sum(&real, &c);
    assert!(after > before);
    assert_eq!((sum(&real, &here.id), sum(&real, &there.id)), (after, before), "the other project has its own");
    // A project that has databases keeps them, and says so.
    let again = copy(&real, &c, &q, "again");
    assert_eq!(sum(&real, &again.id), before);
    assert!(again.status_message.unwrap().contains("databases of its own"));
    real.host().delete_container(&Caller::default(), &again.id).unwrap();
    eventually("a deleted copy", || real.host().container(&again.id).is_err());
    // A sync takes the databases of the copy that brought them along.
    real.host().sync_container(&Caller::default(), &there.id, &SyncRequest::default()).unwrap();
    eventually("a synced copy", || real.host().container(&there.id).is_ok_and(|c| c.status == Status::Running && c.operation_id.is_none()));
    assert_eq!(sum(&real, &there.id), after);
    assert_clean(real.host(), "copies with databases");
}

#[test]
fn private_databases_go_with_their_container() {
    let real = real("copy-private-db");
    import(&real);
    let p = project(real.host(), "p");
    let c = container(&real, &p, "source", |n| {
        n.container_image = Some("worker".into());
        n.databases = Some(DatabaseScope::Private);
    });
    real.sh(&c, &line("init /hoody/databases/data.db"));
    real.sh(&c, &line("add /hoody/databases/data.db 2 300"));
    let before = sum(&real, &c);
    let there = copy(&real, &c, &p, "there").id;
    real.sh(&there, &line("add /hoody/databases/data.db 1 200"));
    assert!(sum(&real, &there) > before);
    assert_eq!(sum(&real, &c), before);
    assert_clean(real.host(), "a copy with private databases");
}
