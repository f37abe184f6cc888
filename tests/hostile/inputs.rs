//! Words and numbers that are none.

use super::me;
use hoody_state::Code;
use hoody_state::id::{ContainerId, OperationId, ProjectId};
use hoody_state::model::EnvironmentChange;
use hoody_state::model::{ContainerUpdate, NewContainer, NewSnapshot, ProjectInput, RestoreOptions, Verb};
use hoody_state::runtime::ExecSpec;
use hoody_state_workspace::{MemoryWorld, container, furnish, refused, snapshot};
use std::collections::BTreeMap;

#[test]
fn malformed_and_unknown_ids_get_different_errors() {
    let long = "a".repeat(10_000);
    for bad in [
        "",
        "x",
        "0123456789ABCDEF01234567",
        "0123456789abcdef0123456",
        "0123456789abcdef012345678",
        "../../../../etc/passwd0",
        "é123456789abcdef0123456",
        &long,
    ] {
        assert_eq!(bad.parse::<ContainerId>().unwrap_err().code(), Code::InvalidIdFormat, "{bad}");
        assert_eq!(bad.parse::<ProjectId>().unwrap_err().code(), Code::InvalidIdFormat, "{bad}");
        let e = bad.parse::<OperationId>().unwrap_err();
        assert!(e.code() == Code::InvalidIdFormat && e.message().len() < 300, "{e}");
    }
}

#[test]
fn unknown_ids_and_names_are_not_found() {
    let w = MemoryWorld::new();
    let h = w.host();
    let p = furnish(&h);
    let c = container(&h, &p, "dev").unwrap();
    snapshot(&h, &c, "s").unwrap();
    let no: ContainerId = "0123456789abcdef01234567".parse().unwrap();
    let nobody: ProjectId = "0123456789abcdef01234567".parse().unwrap();
    let gone = Code::ContainerNotFound;
    refused(&h, gone, || h.container(&no));
    refused(&h, gone, || h.container_detail(&no));
    refused(&h, gone, || h.snapshots(&no));
    refused(&h, gone, || h.stats(&no));
    refused(&h, gone, || h.usage(&no));
    refused(&h, gone, || h.console(&no, None));
    refused(&h, gone, || h.exec(&no, &ExecSpec { command: vec!["/bin/sh".into()], ..Default::default() }));
    refused(&h, gone, || h.create_snapshot(&me(), &no, NewSnapshot::default()));
    refused(&h, gone, || h.restore(&me(), &no, "s", RestoreOptions::default()));
    refused(&h, gone, || h.undo(&me(), &no));
    refused(&h, gone, || h.delete_snapshot(&me(), &no, "s"));
    refused(&h, gone, || h.rename_snapshot(&me(), &no, "s", None));
    refused(&h, gone, || h.pin_snapshot(&me(), &no, "s", None));
    refused(&h, gone, || h.delete_container(&me(), &no));
    refused(&h, gone, || h.update_container(&me(), &no, ContainerUpdate::default()));
    refused(&h, gone, || h.set_environment(&me(), &no, EnvironmentChange::Remove("A".into())));
    refused(&h, gone, || h.image_from_snapshot(&me(), "x", &no, "s"));
    for v in [Verb::Start, Verb::Stop, Verb::ForceStop, Verb::Restart, Verb::Pause, Verb::Resume] {
        refused(&h, gone, || h.lifecycle(&me(), &no, v, None));
    }
    let long = "s".repeat(100_000);
    for name in ["", "no", "S", "s ", "../s", "s/../s", "s\0", "%73", "日本", &long] {
        refused(&h, Code::SnapshotNotFound, || h.snapshot(&c, name));
        refused(&h, Code::SnapshotNotFound, || h.restore(&me(), &c, name, RestoreOptions::default()));
        refused(&h, Code::SnapshotNotFound, || h.delete_snapshot(&me(), &c, name));
        refused(&h, Code::SnapshotNotFound, || h.rename_snapshot(&me(), &c, name, None));
        refused(&h, Code::SnapshotNotFound, || h.pin_snapshot(&me(), &c, name, Some("why".into())));
        refused(&h, Code::SnapshotNotFound, || h.image_from_snapshot(&me(), "x", &c, name));
        refused(&h, Code::ImageNotFound, || h.delete_image(&me(), name));
    }
    refused(&h, Code::ProjectNotFound, || container(&h, &nobody, "abc"));
    refused(&h, Code::ProjectNotFound, || h.delete_project(&me(), &nobody, true));
    refused(&h, Code::ProjectNotFound, || h.update_project(&me(), &nobody, ProjectInput::default()));
    refused(&h, Code::NothingToUndo, || h.undo(&me(), &c));
    refused(&h, Code::ImageNotFound, || h.create_container(&me(), &p, NewContainer { container_image: Some("../x".into()), ..Default::default() }));
    refused(&h, Code::UnknownServer, || h.create_container(&me(), &p, NewContainer { server_id: Some(no.to_string()), ..Default::default() }));
    refused(&h, Code::InvalidIdFormat, || h.create_container(&me(), &p, NewContainer { server_id: Some("x".into()), ..Default::default() }));
    refused(&h, Code::EnvironmentVariableNotFound, || h.set_environment(&me(), &c, EnvironmentChange::Remove("A".into())));
}

#[test]
fn snapshots_with_bad_names_and_numbers_are_refused() {
    let w = MemoryWorld::new();
    let h = w.host();
    let c = container(&h, &furnish(&h), "dev").unwrap();
    snapshot(&h, &c, "s").unwrap();
    for alias in ["", "a\nb", "\u{7f}", "\0", &"é".repeat(101)] {
        let alias = Some(alias.to_owned());
        refused(&h, Code::InvalidAlias, || h.create_snapshot(&me(), &c, NewSnapshot { alias: alias.clone(), ..Default::default() }));
        refused(&h, Code::InvalidAlias, || h.rename_snapshot(&me(), &c, "s", alias.clone()));
        refused(&h, Code::InvalidAlias, || h.restore(&me(), &c, "s", RestoreOptions { keep_current: alias.clone(), ..Default::default() }));
    }
    for expiry in ["0", "0.5", "-1", "3651", "1e3", "1.0", "18446744073709551615"] {
        let expiry = Some(serde_json::from_str(expiry).unwrap());
        refused(&h, Code::InvalidExpiry, || h.create_snapshot(&me(), &c, NewSnapshot { expiry, ..Default::default() }));
    }
    refused(&h, Code::InvalidExpiry, || h.set_snapshot_expiry(&me(), &c, "s", Some(hoody_state::jiff::Timestamp::UNIX_EPOCH)));
    refused(&h, Code::ValidationError, || h.create_snapshot(&me(), &c, NewSnapshot { description: Some("x".repeat(16_001)), ..Default::default() }));
    let labels: BTreeMap<String, String> = (0..65).map(|i| (i.to_string(), String::new())).collect();
    refused(&h, Code::ValidationError, || h.create_snapshot(&me(), &c, NewSnapshot { labels: Some(labels), ..Default::default() }));
    refused(&h, Code::ValidationError, || h.pin_snapshot(&me(), &c, "s", Some("x".repeat(1001))));
    refused(&h, Code::AliasInUse, || snapshot(&h, &c, "s"));
    refused(&h, Code::AliasInUse, || h.restore(&me(), &c, "s", RestoreOptions { keep_current: Some("s".into()), ..Default::default() }));
    // The longest that are good.
    let longest = "é".repeat(100);
    let new = NewSnapshot { alias: Some(longest.clone()), expiry: Some(3650.into()), ..Default::default() };
    let s = h.create_snapshot(&me(), &c, new).unwrap().snapshot;
    assert!(s.name.as_str().starts_with("snap-"));
    h.restore(&me(), &c, &longest, RestoreOptions::default()).unwrap();
}

#[test]
fn containers_projects_and_images_with_bad_names_are_refused() {
    let w = MemoryWorld::new();
    let h = w.host();
    let p = furnish(&h);
    let c = container(&h, &p, "dev").unwrap();
    for name in ["", "ab", "a b", "a/b", "..", "a\0b", "äöü", &"x".repeat(101)] {
        refused(&h, Code::InvalidContainerName, || container(&h, &p, name));
    }
    refused(&h, Code::InvalidContainerName, || h.update_container(&me(), &c, ContainerUpdate { name: Some("a b".into()), ..Default::default() }));
    refused(&h, Code::ContainerNameInUse, || container(&h, &p, "dev"));
    let env = |k: &str, v: &str| Some(BTreeMap::from([(k.to_owned(), v.to_owned())]));
    let bad = [
        NewContainer { environment_vars: env("1A", "x"), ..Default::default() },
        NewContainer { environment_vars: env("A=B", "x"), ..Default::default() },
        NewContainer { environment_vars: env("A", ""), ..Default::default() },
        NewContainer { environment_vars: env("A", "x\0y"), ..Default::default() },
        NewContainer { environment_vars: env("A", &"x".repeat(4097)), ..Default::default() },
        NewContainer { comment: Some("x".repeat(16_001)), ..Default::default() },
        NewContainer { command: Some(vec![]), ..Default::default() },
        NewContainer { command: Some(vec!["a\0".into()]), ..Default::default() },
        NewContainer { cpu: Some(f64::NAN), ..Default::default() },
        NewContainer { cpu: Some(-1.0), ..Default::default() },
        NewContainer { memory: Some(0), ..Default::default() },
        NewContainer { memory: Some(u64::MAX), ..Default::default() },
    ];
    for new in bad {
        refused(&h, Code::ValidationError, || h.create_container(&me(), &p, new));
    }
    refused(&h, Code::InvalidColorFormat, || h.create_container(&me(), &p, NewContainer { color: Some("#é12".into()), ..Default::default() }));
    for alias in ["", " ", "a\nb", &"x".repeat(101)] {
        refused(&h, Code::InvalidAliasFormat, || h.create_project(&me(), ProjectInput { alias: Some(alias.into()), ..Default::default() }));
    }
    refused(&h, Code::DuplicateAlias, || h.create_project(&me(), ProjectInput { alias: Some("p".into()), ..Default::default() }));
    let quota = ProjectInput { alias: Some("q".into()), max_containers: Some(Some(-1)), ..Default::default() };
    refused(&h, Code::InvalidQuotaValue, || h.create_project(&me(), quota));
    for name in ["", "..", "../x", "/x", "x/", "a//b", "a b", "a\0", "日本", &"x".repeat(101)] {
        refused(&h, Code::InvalidImageName, || h.import_image(&me(), name, &mut &hoody_state_workspace::tiny_image()[..]));
    }
    refused(&h, Code::ReservedImageName, || h.import_image(&me(), "public", &mut &[][..]));
    refused(&h, Code::ImageExists, || h.import_image(&me(), "tiny", &mut &[][..]));
    refused(&h, Code::ValidationError, || h.exec(&c, &ExecSpec::default()));
    refused(&h, Code::ValidationError, || h.exec(&c, &ExecSpec { command: vec!["a\0".into()], ..Default::default() }));
}
