//! Usage, and merging equal data.

use super::{Fake, ID, ok};
use serde_json::{Value, json};

#[test]
fn usage_is_a_table_with_what_each_snapshot_frees() {
    let usage = json!({
        "referenced": 10_485_760, "exclusive": 1_048_576, "shared": 9_437_184, "total": 4_194_304, "disk": { "used": 2048, "limit": null },
        "snapshots": [
            { "name": "s-20261123-100500", "alias": "before", "size": 2_097_152, "frees_bytes": 4096 },
            { "name": "s-20261124-100500", "alias": null, "size": 1_048_576, "frees_bytes": null },
        ],
        "all_snapshots": { "count": 2, "size": 3_145_728, "frees_bytes": 3_145_728 },
    });
    let fake = Fake::new(vec![ok(&usage)]);
    let (result, out) = fake.call(&["container", "usage", ID]);
    assert_eq!(result, Ok(0));
    assert!(out.contains("10.0 MiB referenced: 1.0 MiB exclusive, 9.0 MiB shared") && out.contains("counted     2.0 KiB, no limit"), "{out}");
    let rows: Vec<Vec<&str>> = out.lines().skip(4).map(|l| l.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect()).collect();
    let want: [&[&str]; 4] = [
        &["SNAPSHOT", "SIZE", "FREES"],
        &["before", "2.0 MiB", "4.0 KiB"],
        &["s-20261124-100500", "1.0 MiB", "not known yet"],
        &["all 2 together", "3.0 MiB", "3.0 MiB"],
    ];
    assert_eq!(rows, want);
    assert!(fake.asked()[0].head.contains("prefer: wait=10"));
    let none = json!({ "referenced": 0, "exclusive": 0, "shared": 0, "total": 0, "disk": null, "snapshots": [], "all_snapshots": { "count": 0, "size": 0, "frees_bytes": 0 } });
    let out = Fake::new(vec![ok(&none)]).call(&["container", "usage", ID]).1;
    assert!(out.ends_with("no snapshots\n") && !out.contains("counted"), "{out}");
}

#[test]
fn merging_equal_data_waits_and_says_what_was_gained() {
    let result = json!({ "operation_id": "abc", "gained_bytes": 1_288_490_189_u64, "held_bytes": 0, "finished_at": "2026-11-23T10:05:00Z" });
    let fake = Fake::new(vec![
        ok(&json!({ "operation_id": "abc", "result": null })),
        ok(&json!({ "status": "running", "done": 5, "total": 10 })),
        ok(&json!({ "status": "succeeded" })),
        ok(&json!({ "last": result })),
    ]);
    let (ended, out) = fake.call(&["pool", "dedupe", "--project", ID, "-c", ID, "--min-size", "1M"]);
    assert_eq!((ended, out.as_str()), (Ok(0), "gained 1.2 GiB\n"));
    let asked = fake.asked();
    assert_eq!(serde_json::from_slice::<Value>(&asked[0].body).unwrap(), json!({ "project_id": ID, "containers": [ID], "min_size": "1M" }));
    assert_eq!(fake.lines(), ["POST /api/v1/pool/dedupe", "GET /api/v1/operations/abc", "GET /api/v1/operations/abc", "GET /api/v1/pool/dedupe"]);
    // It may have ended already, with data that a snapshot holds.
    let mut held = result.clone();
    held["held_bytes"] = 4096.into();
    let out = Fake::new(vec![ok(&json!({ "operation_id": "abc", "result": held }))]).call(&["pool", "dedupe"]).1;
    assert_eq!(out, "gained 1.2 GiB; 4.0 KiB of equal data are held by snapshots or others\n");
    let out = Fake::new(vec![ok(&json!({ "operation_id": "abc", "result": null }))]).call(&["pool", "dedupe", "--no-wait"]).1;
    assert!(out.contains("hoody-state operation show abc"), "{out}");
    let failed = ok(&json!({ "status": "failed", "error": { "code": "interrupted", "message": "the server stopped" } }));
    let e = Fake::new(vec![ok(&json!({ "operation_id": "abc", "result": null })), failed]).call(&["pool", "dedupe"]).0.unwrap_err();
    assert!(e.message.contains("the server stopped"), "{e}");
}
