//! The diff of two states of a container. What is in it is tested beside the comparison; here the wire.

use crate::errors::{World, world_with};
use crate::support::{Answer, Server};
use hoody_state::host::Settings;
use hoody_state::id::ContainerId;
use hoody_state::snapshot::Volume;
use hoody_state::snapshot::memory::MemoryStore;
use hoody_state_http::limits::Limits;
use serde_json::{Value, json};
use std::sync::Arc;

struct Diffs {
    s: Server,
    store: Arc<MemoryStore>,
    project: String,
    id: String,
}

impl Diffs {
    /// A container whose snapshot `one` has the files `a`, `b/c` and `b/d`, whose snapshot `two` has `b/c` changed, and now `a` is gone.
    fn new() -> Diffs {
        let World { s, store, .. } = world_with(Settings::default(), Limits::default());
        let project = s.project("web");
        let id = s.container(&project, "dev");
        let w = Diffs { s, store, project, id };
        for (path, data) in [("a", "1"), ("b/c", "22"), ("b/d", "333")] {
            w.write(path, data);
        }
        w.snapshot("one");
        w.write("b/c", "changed");
        w.snapshot("two");
        w.store.remove(&w.live(), "a").unwrap();
        w
    }

    fn live(&self) -> Volume {
        Volume::Live(self.id.parse::<ContainerId>().unwrap())
    }

    fn write(&self, path: &str, data: &str) {
        self.store.write(&self.live(), path, data.as_bytes()).unwrap();
    }

    fn snapshot(&self, alias: &str) {
        assert_eq!(self.s.call("POST", &format!("/api/v1/containers/{}/snapshots", self.id), &format!(r#"{{"alias":"{alias}"}}"#)).status, 200);
    }

    fn get(&self, rest: &str) -> Answer {
        self.s.get(&format!("/api/v1/containers/{}/snapshots/{rest}", self.id))
    }

    /// The records, and the summary.
    fn diff(&self, rest: &str) -> (Vec<Value>, Value) {
        let answer = self.get(rest);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")), "{rest}: {}", answer.text());
        let mut lines: Vec<Value> = answer.text().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let summary = lines.pop().unwrap();
        assert_eq!(summary["kind"], "summary");
        (lines, summary)
    }
}

#[test]
fn one_line_for_each_name_and_a_summary_at_the_end() {
    let w = Diffs::new();
    let (lines, summary) = w.diff("one/diff/live");
    assert_eq!(lines, [json!({"kind":"deleted","path":"/a","type":"file","bytes":1}), json!({"kind":"modified","path":"/b/c","type":"file","bytes":7})]);
    assert_eq!((&summary["records"], &summary["method"], &summary["next_cursor"]), (&json!(2), &json!("changes"), &Value::Null));
    assert_eq!(summary["counts"], json!({"added":0,"deleted":1,"modified":1,"renamed":0,"metadata":0,"type_changed":0,"bytes":7}));
    assert_eq!((&summary["from"]["container_id"], &summary["to"]["snapshot"]), (&json!(w.id), &Value::Null));
    let outside: Vec<&str> = summary["not_covered"].as_array().unwrap().iter().map(|n| n["path"].as_str().unwrap()).collect();
    assert!(["/ramdisk", "/hoody/shares", "/proc"].iter().all(|p| outside.contains(p)), "{outside:?}");
    assert_eq!(w.diff("two/diff/one").0[0]["path"], "/b/c");
    assert_eq!(w.diff("one/diff/one").0.len(), 0);
    assert_eq!(w.s.get(&format!("/api/v1/containers/{}/snapshots", w.id)).data()["snapshot_count"], 2, "the temporary snapshot is in no list");
}

#[test]
fn a_path_counts_and_pages() {
    let w = Diffs::new();
    assert_eq!(w.diff("one/diff/live?path=/b").0.len(), 1);
    assert_eq!(w.diff("one/diff/live?path=%62%2Fc").0.len(), 1);
    assert_eq!(w.diff("one/diff/live?path=b%2f%ff").0.len(), 0);
    let (lines, summary) = w.diff("one/diff/live?stat=true");
    let counts = |deleted: u64, modified: u64, bytes: u64| json!({"added":0,"deleted":deleted,"modified":modified,"renamed":0,"metadata":0,"type_changed":0,"bytes":bytes});
    let line = |path: &str, counts: Value| {
        let mut line = counts;
        line["kind"] = "stat".into();
        line["path"] = path.into();
        line
    };
    assert_eq!(lines, [line("/a", counts(1, 0, 0)), line("/b", counts(0, 1, 7))]);
    assert_eq!(summary["counts"], counts(1, 1, 7));
    let (first, summary) = w.diff("one/diff/live?limit=1");
    assert_eq!((first.len(), &first[0]["path"]), (1, &json!("/a")));
    let (rest, end) = w.diff(&format!("one/diff/live?limit=1&cursor={}", summary["next_cursor"].as_str().unwrap()));
    assert_eq!((rest.len(), &rest[0]["path"], &end["next_cursor"]), (1, &json!("/b/c"), &Value::Null));
}

#[test]
fn a_store_without_files_says_that_it_counts_no_rows() {
    let w = Diffs::new();
    w.write("hoody/databases/x.db", "1");
    let (without, summary) = w.diff("two/diff/live?path=/hoody");
    let (lines, with) = w.diff("two/diff/live?path=/hoody&databases=true");
    assert_eq!(lines[..without.len()], without);
    let database = &lines[without.len()];
    assert_eq!(
        (&database["kind"], &database["path"], &database["error"]["code"]),
        (&json!("database"), &json!("/hoody/databases/x.db"), &json!("files_unsupported"))
    );
    assert_eq!((lines.len(), &with["records"]), (without.len() + 1, &summary["records"]), "a database is no record");
    assert_eq!(w.diff("one/diff/two?databases=true").0.len(), 1, "no database differs");
}

#[test]
fn what_is_refused() {
    let w = Diffs::new();
    for (rest, status, code) in [
        ("one/diff/three", 404, "snapshot_not_found"),
        ("three/diff/live", 404, "snapshot_not_found"),
        ("live/diff/one", 400, "validation_error"),
        ("one/diff/live?path=/a/../b", 400, "invalid_path"),
        ("one/diff/live?limit=0", 400, "validation_error"),
        ("one/diff/live?limit=x", 400, "validation_error"),
        ("one/diff/live?cursor=zz", 400, "invalid_page"),
        ("one/diff/live?container=zz", 400, "invalid_id_format"),
        ("one/diff/live?container=65f0c0ffee00000000000001", 404, "container_not_found"),
    ] {
        let answer = w.get(rest);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{rest}");
    }
}

#[test]
fn a_token_reaches_only_its_own_projects_on_both_sides() {
    let w = Diffs::new();
    let other = w.s.project("other");
    let foreign = w.s.container(&other, "dev2");
    assert_eq!(w.diff(&format!("one/diff/live?container={foreign}")).0.len(), 3);
    let reader = w.s.scoped(&w.project, true);
    let stranger = w.s.scoped(&other, false);
    let path = format!("/api/v1/containers/{}/snapshots/one/diff/live", w.id);
    assert_eq!(w.s.with_token(&reader, "GET", &path).send().status, 200, "reading is enough");
    assert_eq!(w.s.with_token(&stranger, "GET", &path).send().status, 404);
    assert_eq!(w.s.with_token(&reader, "GET", &format!("{path}?container={foreign}")).send().status, 404);
}
