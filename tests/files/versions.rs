//! The versions of a file over all snapshots.

use crate::client::Stage;
use hoody_state::Caller;
use hoody_state::model::{RestoreOptions, Rights};
use hoody_state_workspace::{container, project};
use std::fs;

impl Stage {
    fn versions(&self, path: &str) -> serde_json::Value {
        self.request("GET", &format!("/containers/{}/versions{path}", self.id), &[], b"").data()
    }
}

fn names(version: &serde_json::Value) -> Vec<&str> {
    version["snapshots"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect()
}

#[test]
fn each_version_has_the_snapshots_that_have_it() {
    let s = Stage::new("files-versions");
    let file = s.live.join("etc/versions");
    s.snapshot("none");
    fs::write(&file, "1").unwrap();
    s.snapshot("a");
    s.snapshot("b");
    fs::write(&file, "22").unwrap();
    s.snapshot("c");
    fs::remove_file(&file).unwrap();
    s.snapshot("gone");
    s.real.host().restore(&Caller::default(), &s.id, "a", RestoreOptions::default()).unwrap();
    s.snapshot("again");
    let v = s.versions("/etc/versions");
    let list = v["versions"].as_array().unwrap();
    assert_eq!(list.len(), 2, "{v:#}");
    assert_eq!((names(&list[0]), &list[0]["live"], &list[0]["entry"]["size"]), (vec!["again", "b", "a"], &true.into(), &1.into()));
    assert_eq!((names(&list[1]), &list[1]["live"], &list[1]["entry"]["size"]), (vec!["c"], &false.into(), &2.into()));
    assert_eq!(s.get("c", "/etc/versions").header("etag"), format!("\"{}\"", list[1]["version"].as_str().unwrap()));
    // `none`, `gone` and what the restore kept, which is as `gone`.
    assert_eq!((v["snapshots_searched"].as_u64(), v["snapshots_without"].as_u64()), (Some(7), Some(3)));
    let url = |path: &str| format!("/containers/{}/versions{path}", s.id);
    for (path, code) in [("/etc/nope", "file_not_found"), ("/etc", "file_not_found"), ("/proc/1", "not_in_volume"), ("/../x", "invalid_path")] {
        assert_eq!(s.request("GET", &url(path), &[], b"").code(), code, "{path}");
    }
    for bad in ["limit=0", "limit=1001", "cursor=x"] {
        assert_eq!(s.request("GET", &url(&format!("/etc/versions?{bad}")), &[], b"").code(), "invalid_page", "{bad}");
    }
}

#[test]
fn versions_come_in_pages_although_snapshots_are_deleted_meanwhile() {
    let s = Stage::new("files-versions-pages");
    for i in 0..7 {
        fs::write(s.live.join("etc/f"), "x".repeat(i)).unwrap();
        s.snapshot(&format!("s{i}"));
    }
    fs::write(s.live.join("etc/f"), "live").unwrap();
    let mut sizes = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = s.versions(&format!("/etc/f?limit=3{cursor}"));
        sizes.extend(page["versions"].as_array().unwrap().iter().map(|v| v["entry"]["size"].as_u64().unwrap()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
        // The version that the cursor names goes with its snapshot.
        let last = sizes.last().unwrap();
        s.real.host().delete_snapshot(&Caller::default(), &s.id, &format!("s{last}")).unwrap();
    }
    assert_eq!(sizes, [4, 6, 5, 4, 3, 2, 1, 0], "newest first");
}

#[test]
fn a_token_of_another_project_sees_no_versions() {
    let s = Stage::new("files-versions-rights");
    let other = project(s.real.host(), "other");
    container(s.real.host(), &other, "theirs").unwrap();
    let token = s.real.host().create_token("theirs", Some(vec![other]), Rights::Full).unwrap().1;
    let a = s.request("GET", &format!("/containers/{}/versions/etc/passwd", s.id), &[("Authorization", &format!("Bearer {token}"))], b"");
    assert_eq!((a.status, a.code()), (404, "container_not_found".into()));
}
