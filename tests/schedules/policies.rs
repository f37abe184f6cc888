//! Policies: setting and inheriting them.

use super::*;
use hoody_state::Code;
use hoody_state::model::{CopyRequest, PolicyLevel, PolicyTarget};
use hoody_state_workspace::{assert_clean, at_rest, refused};

fn policy(name: &str, cron: &str) -> SnapshotPolicy {
    SnapshotPolicy { schedules: vec![schedule(name, cron, last(5))], ..Default::default() }
}

#[test]
fn the_nearest_policy_applies_and_new_containers_inherit_it() {
    let s = Stage::new();
    let me = Caller::default();
    let (of_project, of_container) = (PolicyTarget::Project(s.project.clone()), s.target());
    let answer = s.host.snapshot_policy(&of_container).unwrap();
    assert_eq!((answer.policy, answer.inherited_from, answer.next_runs.len()), (None, None, 0));
    s.host.set_snapshot_policy(&me, &PolicyTarget::Server, &policy("server", "@hourly")).unwrap();
    s.pass(HOUR);
    s.host.set_snapshot_policy(&me, &of_project, &policy("project", "@hourly")).unwrap();
    let later = container(&s.host, &s.project, "later").unwrap();
    s.pass(HOUR);
    s.host.set_snapshot_policy(&me, &of_container, &policy("own", "@hourly")).unwrap();
    s.pass(HOUR);
    let names = |c: &ContainerId| taken(&s.host, c).into_iter().map(|s| s.schedule.unwrap()).collect::<Vec<_>>();
    assert_eq!(names(&s.container), ["server", "project", "own"]);
    assert_eq!(names(&later), ["project", "project"]);
    let from = |t: &PolicyTarget| s.host.snapshot_policy(t).unwrap().inherited_from.unwrap();
    assert_eq!((from(&of_container), from(&PolicyTarget::Container(later.clone()))), (PolicyLevel::Container, PolicyLevel::Project));
    // An empty policy switches an inherited one off.
    s.host.set_snapshot_policy(&me, &of_container, &SnapshotPolicy::default()).unwrap();
    s.pass(HOUR);
    assert_eq!((names(&s.container).len(), names(&later).len()), (3, 3));
    let answer = s.host.delete_snapshot_policy(&me, &of_container).unwrap();
    assert_eq!(answer.inherited_from, Some(PolicyLevel::Project));
    s.host.delete_snapshot_policy(&me, &of_project).unwrap();
    s.pass(HOUR);
    assert_eq!(names(&s.container), ["server", "project", "own", "server"]);
    s.host.delete_snapshot_policy(&me, &PolicyTarget::Server).unwrap();
    assert_eq!(s.host.schedule_counts().unwrap().next_due, None, "no schedule is left");
    s.pass(DAY);
    assert_eq!(names(&s.container).len(), 4);
    assert_eq!(s.events("container.snapshot_policy.updated").len(), 2);
    assert_eq!((s.events("project.snapshot_policy.deleted").len(), s.events("server.snapshot_policy.updated").len()), (1, 1));
}

#[test]
fn a_policy_that_is_wrong_or_for_nothing_is_refused_and_changes_nothing() {
    let s = Stage::new();
    s.schedules(&[("hourly", "@hourly", last(5))]);
    let set = |t: &PolicyTarget, p: &SnapshotPolicy| s.host.set_snapshot_policy(&Caller::default(), t, p);
    for bad in
        [policy("never", "0 0 30 2 *"), policy("UPPER", "@daily"), policy("x", "nonsense"), SnapshotPolicy { timezone: "Mars".into(), ..Default::default() }]
    {
        refused(&s.host, Code::ValidationError, || set(&s.target(), &bad));
    }
    let nobody = PolicyTarget::Container(ContainerId::generate());
    refused(&s.host, Code::ContainerNotFound, || set(&nobody, &policy("a", "@daily")));
    refused(&s.host, Code::ContainerNotFound, || s.host.snapshot_policy(&nobody));
    refused(&s.host, Code::ProjectNotFound, || s.host.delete_snapshot_policy(&Caller::default(), &PolicyTarget::Project(ProjectId::generate())));
    s.pass(HOUR);
    assert_eq!(s.times("hourly").len(), 1, "the policy before goes on");
}

#[test]
fn setting_the_same_policy_again_puts_off_no_run_and_another_time_begins_anew() {
    let s = Stage::new();
    s.schedules(&[("daily", "0 12 * * *", last(5)), ("gone", "@hourly", last(5))]);
    let due = || s.host.snapshot_policy(&s.target()).unwrap().next_runs.into_iter().map(|r| (r.schedule, r.at.to_string())).collect::<Vec<_>>();
    assert_eq!(due(), [("gone".into(), "2026-11-02T11:00:00Z".into()), ("daily".into(), "2026-11-02T12:00:00Z".to_owned())]);
    s.clock.advance(3 * HOUR);
    s.schedules(&[("daily", "0 12 * * *", last(9))]);
    assert_eq!(due(), [("daily".into(), "2026-11-02T12:00:00Z".to_owned())], "it is due, and stays so");
    s.host.run_due_schedules().unwrap();
    assert_eq!(s.times("daily"), ["11-02T12:00"]);
    s.schedules(&[("daily", "0 11 * * *", last(9))]);
    assert_eq!(due(), [("daily".into(), "2026-11-03T11:00:00Z".to_owned())], "a new time has no run in the past");
}

#[test]
fn deleted_containers_and_projects_leave_no_policy() {
    let s = Stage::new();
    let me = Caller::default();
    s.schedules(&[("hourly", "@hourly", last(5))]);
    s.host.set_snapshot_policy(&me, &PolicyTarget::Project(s.project.clone()), &policy("project", "@hourly")).unwrap();
    s.host.delete_container(&me, &s.container).unwrap();
    assert_eq!(s.host.schedule_counts().unwrap().next_due, None, "from the moment of the deletion");
    at_rest(&s.host);
    s.host.delete_project(&me, &s.project, false).unwrap();
    at_rest(&s.host);
    s.pass(DAY);
    let catalog = rusqlite::Connection::open(s.world.catalog_file()).unwrap();
    for table in ["policies", "schedules"] {
        let n: u64 = catalog.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0)).unwrap();
        assert_eq!(n, 0, "{table}");
    }
    assert_clean(&s.host, "without policies");
}

#[test]
fn a_copy_inherits_from_its_project_and_removes_no_snapshot_that_came_with_it() {
    let s = Stage::new();
    s.host.set_snapshot_policy(&Caller::default(), &PolicyTarget::Project(s.project.clone()), &policy("hourly", "@hourly")).unwrap();
    s.schedules(&[("hourly", "@hourly", last(9))]);
    for _ in 0..8 {
        s.pass(HOUR);
    }
    let request = CopyRequest { target_project_id: Some(s.project.to_string()), name: Some("copy".into()), ..Default::default() };
    let copy = s.host.copy_container(&Caller::default(), &s.container, request).unwrap().id;
    at_rest(&s.host);
    for _ in 0..7 {
        s.pass(HOUR);
    }
    assert_eq!(taken(&s.host, &copy).len(), 5, "its own: the project's policy keeps five");
    let came = s.host.snapshots(&copy).unwrap().snapshots.into_iter().filter(|s| s.trigger == Trigger::Copy && s.schedule.is_some()).count();
    assert_eq!(came, 8, "what came with it is not its schedule's");
}

#[test]
fn a_container_of_the_trash_comes_back_with_its_own_policy_and_without_runs_to_make_up_for() {
    let s = Stage::new();
    let me = Caller::default();
    s.host.set_snapshot_policy(&me, &PolicyTarget::Project(s.project.clone()), &policy("project", "@hourly")).unwrap();
    let mut own = policy("own", "@hourly");
    own.on.before_delete = Some(hoody_state::model::Automatic::Switch(true));
    s.set(&own);
    s.pass(HOUR);
    s.host.delete_container(&me, &s.container).unwrap();
    at_rest(&s.host);
    s.pass(2 * DAY);
    assert!(s.events("container.snapshot.schedule_failed").is_empty(), "nothing runs in the trash");
    let elsewhere = hoody_state_workspace::project(&s.host, "elsewhere");
    let request = hoody_state::model::RecoverRequest { project_id: Some(elsewhere), ..Default::default() };
    s.host.recover_trashed(&me, &s.container, request).unwrap();
    let answer = s.host.snapshot_policy(&s.target()).unwrap();
    assert_eq!((answer.policy, answer.inherited_from), (Some(own), Some(PolicyLevel::Container)));
    s.host.run_due_schedules().unwrap();
    assert_eq!(s.times("own"), ["11-02T11:00"]);
    s.pass(HOUR);
    assert_eq!(s.times("own"), ["11-02T11:00", "11-04T12:00"]);
    assert_eq!(s.taken()[1].missed, None);
    // One that is deleted for good leaves none.
    s.host.delete_container(&me, &s.container).unwrap();
    at_rest(&s.host);
    s.host.delete_trashed(&me, &s.container).unwrap();
    at_rest(&s.host);
    let catalog = rusqlite::Connection::open(s.world.catalog_file()).unwrap();
    let left: u64 = catalog.query_row("SELECT count(*) FROM policies WHERE scope = 'container'", [], |r| r.get(0)).unwrap();
    assert_eq!(left, 0);
    assert_clean(&s.host, "without the trash");
}
