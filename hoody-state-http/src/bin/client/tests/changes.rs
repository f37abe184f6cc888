//! What is asked for, and what is said afterwards: changes of a container, deletions, policies.

use super::{Fake, ID, ok, refused};
use crate::args::Cli;
use crate::failure::exit;
use clap::{CommandFactory, Parser};
use serde_json::{Value, json};

const OTHER: &str = "65f0c0ffee00000000000003";

#[test]
fn each_field_of_an_update_is_sent_and_what_the_server_says_is_printed() {
    // The server says something else than what was asked for: that is printed.
    let now = json!({ "id": ID, "disk": 1_073_741_824_u64, "api_socket": true });
    let none = json!({ "id": ID, "disk": null, "api_socket": false });
    let cases: [(&[&str], Value, &Value, &str); 5] = [
        (&["--api-socket", "false"], json!({ "api_socket": false }), &now, "api_socket true"),
        (&["--api-socket", "true"], json!({ "api_socket": true }), &none, "api_socket false"),
        (&["--disk", "20G"], json!({ "disk": "20G" }), &now, "disk 1.0 GiB"),
        (&["--disk", "none"], json!({ "disk": null }), &none, "no disk limit"),
        (&["--disk", "20G", "--api-socket", "false"], json!({ "disk": "20G", "api_socket": false }), &none, "api_socket false, no disk limit"),
    ];
    let mut sent = std::collections::BTreeSet::new();
    for (flags, body, answer, said) in cases {
        let fake = Fake::new(vec![ok(answer)]);
        let args: Vec<&str> = ["container", "update", ID].iter().chain(flags).copied().collect();
        let (result, out) = fake.call(&args);
        assert_eq!((result, out), (Ok(0), format!("{ID}: {said}\n")), "{flags:?}");
        let asked = &fake.asked()[0];
        assert_eq!(asked.line, format!("PATCH /api/v1/containers/{ID}"));
        assert_eq!(serde_json::from_slice::<Value>(&asked.body).unwrap(), body, "{flags:?}");
        sent.extend(flags.iter().filter_map(|f| f.strip_prefix("--")).map(str::to_owned));
    }
    // An option without a case here may be sent nowhere.
    let mut cli = Cli::command();
    cli.build();
    let update = cli.find_subcommand("container").unwrap().find_subcommand("update").unwrap();
    let own =
        update.get_arguments().filter(|a| !a.is_global_set()).filter_map(|a| a.get_long()).filter(|l| !["help", "version"].contains(l)).map(str::to_owned);
    assert_eq!(own.collect::<std::collections::BTreeSet<_>>(), sent);
}

#[test]
fn a_deletion_says_whether_the_container_can_be_recovered() {
    let gone = || refused(404, "container_not_found");
    let trashed = || ok(&json!({ "id": ID, "expires_at": "2026-12-06T10:00:00.000Z" }));
    let until = format!("deleted; it is in the trash until 2026-12-06 10:00:00Z: recover it with `hoody-state trash recover {ID}`");
    for (answer, flag, said) in [
        (trashed(), None, until.as_str()),
        (refused(404, "trash_not_found"), Some("--permanently"), "deleted for good"),
        (refused(403, "insufficient_permissions"), None, "deleted"),
    ] {
        let fake = Fake::new(vec![ok(&Value::Null), gone(), answer]);
        let args: Vec<&str> = ["container", "delete", ID, "--yes"].into_iter().chain(flag).collect();
        assert_eq!(fake.call(&args), (Ok(0), format!("{ID}: {said}\n")));
        assert_eq!(fake.lines()[0].ends_with("?trash=false"), flag.is_some());
        assert_eq!(fake.lines()[2], format!("GET /api/v1/trash/{ID}"));
    }
    let fake = Fake::new(vec![ok(&Value::Null), refused(404, "trash_not_found")]);
    assert_eq!(fake.call(&["container", "delete", ID, "--yes", "--no-wait"]).1, format!("{ID}: is being deleted\n"));
}

#[test]
fn a_deleted_project_waits_for_its_containers_and_says_where_they_are() {
    let gone = || refused(404, "container_not_found");
    let deleted = |all: &[(&str, &str)]| {
        let items: Vec<Value> = all.iter().map(|(id, name)| json!({ "id": id, "name": name })).collect();
        ok(&json!({ "deleted": { "containers": items.len() }, "deleted_items": { "containers": items } }))
    };
    let fake = Fake::new(vec![
        deleted(&[(ID, "dev"), (OTHER, "old")]),
        ok(&json!({ "status": "deleting" })),
        gone(),
        ok(&json!({ "expires_at": "2026-12-06T10:00:00.000Z" })),
        gone(),
        refused(404, "trash_not_found"),
    ]);
    let (result, out) = fake.call(&["project", "delete", ID, "--yes"]);
    let dev = format!("deleted; it is in the trash until 2026-12-06 10:00:00Z: recover it with `hoody-state trash recover {ID} --project PROJECT`");
    assert_eq!((result, out), (Ok(0), format!("deleted the project {ID} and 2 containers\n  dev: {dev}\n  old: deleted for good\n")));
    assert_eq!(fake.lines()[0], format!("DELETE /api/v1/projects/{ID}?include_deleted_items=true"));
    assert_eq!(fake.lines().len(), 6);
    let fake = Fake::new(vec![deleted(&[(ID, "dev")]), gone(), refused(404, "trash_not_found")]);
    let out = fake.call(&["project", "delete", ID, "--yes", "--permanently"]).1;
    assert_eq!(out, format!("deleted the project {ID} and 1 container\n  dev: deleted for good\n"));
    assert_eq!(fake.lines()[0], format!("DELETE /api/v1/projects/{ID}?include_deleted_items=true&trash=false"));
    assert_eq!(Fake::new(vec![deleted(&[])]).call(&["project", "delete", ID, "--yes"]).1, format!("deleted the project {ID} and no containers\n"));
}

#[test]
fn a_snapshot_without_a_name_is_refused_here() {
    for verb in ["show", "delete", "restore", "unpin", "pin"] {
        let e = Cli::try_parse_from(["hoody-state", "snapshot", verb, "dev", ""]).unwrap_err();
        assert_eq!(e.exit_code(), i32::from(exit::USAGE), "{verb}");
    }
    assert!(Cli::try_parse_from(["hoody-state", "image", "from-snapshot", "x", "dev", ""]).is_err());
}

#[test]
fn the_deletion_of_a_policy_says_what_applies_then() {
    let policy = |from: Value, policy: Value| ok(&json!({ "policy": policy, "inherited_from": from, "next_runs": [], "warnings": [] }));
    let own = || policy(json!("container"), json!({ "timezone": "UTC", "schedules": [], "on": { "stop": true } }));
    let project = || {
        let on = json!({ "before_delete": true, "restore": { "max_age": "3d" }, "stop": { "max_age": "2d" }, "oom": false });
        policy(json!("project"), json!({ "timezone": "UTC", "schedules": [], "on": on }))
    };
    let applies = "policy of the project, times in UTC\n\nat events\n  \
        before_delete  deleted containers: in the trash for 7d\n  \
        restore  undo snapshots: kept for 3d\n  \
        stop  a snapshot: kept for 2d, the newest 5\n";
    let fake = Fake::new(vec![own(), project()]);
    let (result, out) = fake.call(&["policy", "delete", ID, "--yes"]);
    assert_eq!((result, out), (Ok(0), format!("deleted the policy of {ID}; now applies:\n{applies}")));
    let url = format!("/api/v1/containers/{ID}/snapshot-policy");
    assert_eq!(fake.lines(), [format!("GET {url}"), format!("DELETE {url}")]);
    // Without one of its own nothing is deleted, and nobody is asked whether to.
    let fake = Fake::new(vec![project()]);
    let out = fake.call(&["policy", "delete", ID]).1;
    assert_eq!(out, format!("{ID} has no policy of its own: nothing to delete; what applies:\n{applies}"));
    assert_eq!(fake.lines(), [format!("GET {url}")]);
    let out = Fake::new(vec![policy(Value::Null, Value::Null)]).call(&["policy", "delete", "--server"]).1;
    assert!(out.starts_with("the server has no policy of its own: nothing to delete"), "{out}");
}
