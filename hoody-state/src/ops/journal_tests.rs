//! Journals of the version before operations were types of their own. What they say is read, and means what it meant.
#![allow(clippy::unwrap_used)]

use super::all::unreadable;
use super::{Operation, create::Create, delete::Delete, lifecycle::Lifecycle, relocate::Move, restore::Restore, snapshot::TakeSnapshot};
use crate::catalog::operations::OpenRow;
use crate::id::OperationId;
use serde_json::{Value, json};

const C: &str = "6b0b59a819d13ddd13f7dc5f";
const P: &str = "6b0b59a819d13ddd13f7dc60";
const S: &str = "6b0b59a819d13ddd13f7dc61";

fn row(intent: &Value) -> OpenRow {
    OpenRow { id: OperationId::generate(), kind: "k".into(), resource_type: "container".into(), resource_id: C.into(), intent: intent.to_string() }
}

fn image() -> Value {
    json!({ "id": P, "name": "debian/13", "alias": "debian/13", "image_name": "debian/13", "size": 0, "files": 1, "source": "import", "is_default": true, "created_at": "2026-11-23T10:05:00Z" })
}

fn kept() -> Value {
    json!({
        "name": "undo-20261123-100500", "alias": null, "created_at": "2026-11-23T10:05:00Z", "last_used_at": null, "expires_at": null, "stateful": false,
        "size": 0, "parent": null, "description": null, "labels": {}, "pinned": null, "consistency": "crash", "generation": 0
    })
}

fn trashed() -> Value {
    json!({
        "id": C, "project": P, "name": "agent", "size": null, "deleted_ms": 1, "expires_ms": 2,
        "content": {
            "ssh_public_key": null, "created_ms": 0, "snapshots": [kept()], "shares": 0,
            "spec": {
                "color": "#000000", "image": "debian/13", "ai": false, "autostart": true, "ramdisk": true, "ramdisk_scope": "container", "env": {}, "comment": null,
                "source": null, "command": [], "cpu": null, "memory_mib": null, "databases": "project", "filesystem": "btrfs", "network": "none"
            },
            "state": {
                "desired": "Stopped", "run": null, "started_ms": null, "head": "before", "since_ms": 0, "origin": 7, "last_used": null, "undo": null, "message": null
            }
        }
    })
}

fn run() -> String {
    crate::id::RunId::generate().to_string()
}

#[test]
fn every_row_of_the_version_before_is_read() {
    let before = [
        json!({ "kind": "create", "container": C, "image": image(), "run": run(), "cloned": false }),
        json!({ "kind": "lifecycle", "container": C, "verb": "force-stop", "run": run() }),
        json!({ "kind": "delete", "container": C }),
        json!({ "kind": "snapshot", "container": C, "row": kept(), "replace": null }),
        json!({ "kind": "delete_snapshot", "container": C, "name": "before" }),
        json!({ "kind": "restore", "container": C, "snapshot": "before", "keep": kept(), "live": 256, "boot": true, "was_running": true, "run": run(), "by": "user" }),
        json!({
            "kind": "restore_files", "container": C, "snapshot": "before", "files": { "paths": ["/etc/hosts"], "paths_encoded": ["/%FF"], "to": "/tmp", "delete_new": true },
            "keep": kept(), "databases_kept": true, "databases_of": P, "by": "user"
        }),
        json!({ "kind": "copy", "container": C, "source": P, "snapshot": "before", "run": run(), "start": true }),
        json!({ "kind": "receive", "container": C, "snapshot": "before", "run": run(), "start": true, "limit": null }),
        json!({ "kind": "sync", "container": C, "force": true, "limit": 1024, "advance": null }),
        json!({ "kind": "move", "container": C, "server": S, "copy": P, "was_running": true, "handing_over": true }),
        json!({ "kind": "import", "image": image() }),
        json!({ "kind": "image_from_snapshot", "image": image(), "container": C, "snapshot": "before" }),
        json!({ "kind": "delete_image", "image": image() }),
        json!({ "kind": "write_file", "container": C, "dir": "etc", "name": "hosts%FF", "inode": 300 }),
        json!({ "kind": "delete_file", "container": C, "dir": "", "name": "srv" }),
        json!({ "kind": "compare_live", "container": C }),
        json!({ "kind": "archive_live", "container": C }),
        json!({ "kind": "reset", "container": C, "to": "branch_point", "start": null, "by": "user" }),
        json!({
            "kind": "promote", "fork": P, "branch_point": { "container_id": P, "snapshot": "before" }, "prefer": null, "container": C, "keep": kept(), "live": 256,
            "boot": true, "was_running": true, "run": run(), "by": "user"
        }),
        json!({ "kind": "recover", "container": C, "row": trashed(), "project": P, "not_recovered": [], "by": "user" }),
        json!({ "kind": "empty_trash", "container": C, "project": P }),
        json!({ "kind": "merge_equal", "project": P, "containers": [C], "min_size": 4096 }),
    ];
    // What no version before had.
    let since = [json!({
        "kind": "scheduled_snapshot", "container": C, "row": kept(),
        "slot": { "container": C, "schedule": "daily", "rule": "UTC 0 @daily", "due_ms": 1, "next_due_ms": 2, "next_start_ms": 3 }
    })];
    assert_eq!(before.len() + since.len(), super::all::ALL.len());
    for intent in before.into_iter().chain(since) {
        assert_eq!(unreadable(&row(&intent)), None, "{intent}");
    }
    assert!(unreadable(&row(&json!({ "kind": "teleport" }))).unwrap().contains("teleport"));
}

#[test]
fn what_a_row_says_is_kept() {
    let key_answer = json!({ "container_id": C });
    let mut kept = kept();
    kept["trigger"] = "restore".into();
    let text = json!({
        "kind": "restore", "container": C, "snapshot": "before", "keep": kept, "live": 256, "boot": true, "was_running": true, "run": run(), "by": "sync",
        "databases": { "how": "exchange", "project": P, "was": 257 }, "discard": true, "told": key_answer
    });
    let restore: Restore = serde_json::from_value(text.clone()).unwrap();
    let mut written: Value = serde_json::to_value(&restore).unwrap();
    written["keep"]["created_at"] = kept["created_at"].clone();
    written["kind"] = "restore".into();
    assert_eq!(written, text, "a version before can read what this one writes");
    assert_eq!((restore.exchange.discard, restore.key_answer.as_ref()), (true, Some(&key_answer)));
    assert_eq!(restore.claim().wants.len(), 2, "the container and the databases that it exchanges");
    let verb: Lifecycle = serde_json::from_value(json!({ "container": C, "verb": "restart", "run": run() })).unwrap();
    assert_eq!((verb.kind(), verb.by.as_str()), ("container.restart", "user"));
    let delete = json!({ "container": C, "trash": { "until": "2026-11-23T10:05:00Z", "most": 3, "shares": 1 } });
    assert_eq!(serde_json::to_value(serde_json::from_value::<Delete>(delete.clone()).unwrap()).unwrap(), delete);
    let plain: Delete = serde_json::from_value(json!({ "container": C })).unwrap();
    assert_eq!(serde_json::to_value(&plain).unwrap(), json!({ "container": C }), "a version before can read the deletion of a container that is not kept");
    let take: TakeSnapshot = serde_json::from_value(json!({ "container": C, "row": kept, "replace": "slot", "keep_replaced": 5 })).unwrap();
    assert_eq!(take.keep_replaced, 5);
    let create: Create = serde_json::from_value(json!({ "container": C, "image": image(), "run": run(), "cloned": true })).unwrap();
    assert_eq!(create.by, "user");
    let moved: Move = serde_json::from_value(json!({ "container": C, "server": S, "copy": P, "was_running": true, "handing_over": false })).unwrap();
    assert!(!moved.given && moved.order.is_none());
}
