//! A kill before every step of copies and syncs on one host.

use crate::steps::{Round, every_step, on, runs};
use crate::world::World;
use serde_json::json;

/// The container of this name, if there is one.
fn named(w: &World, name: &str) -> Option<String> {
    let all = w.get("/containers?limit=100")["containers"].as_array().unwrap().clone();
    all.iter().find(|c| c["name"] == name).map(|c| c["id"].as_str().unwrap().to_owned())
}

pub fn copies(w: &mut World, c: &str) {
    let id = c.to_owned();
    every_step(w, "container copy", |w, n| {
        // The last one's goes, so that the pool does not fill with copies.
        if let Some(old) = named(w, &format!("copy-{}", n - 1)) {
            w.send(&on(&old, "DELETE", ""), None).unwrap();
        }
        let project = w.get(&format!("/containers/{id}"))["project_id"].as_str().unwrap().to_owned();
        let (before, name) = (w.view(&id).unwrap(), format!("copy-{n}"));
        let request = on(&id, "POST", "/copy").json(&json!({ "target_project_id": project, "name": name, "source_snapshot": "first" }));
        let id = id.clone();
        Round::new(request, move |w, must| {
            assert_eq!(w.view(&id).unwrap(), before, "the source is as it was");
            match named(w, &name) {
                None => assert!(!must, "a copy that was acknowledged is lost"),
                Some(copy) => {
                    let now = runs(w, &copy);
                    assert_eq!((&now.state, &now.snapshots), (&before.snapshots["first"].1, &before.snapshots));
                }
            }
        })
    });
    let last = w.get("/containers?limit=100")["containers"].as_array().unwrap().iter().find(|x| x["source_container_id"] == c).cloned().unwrap();
    let copy = last["id"].as_str().unwrap().to_owned();
    every_step(w, "container sync", |w, n| {
        w.write(&id, &format!("source {n}"));
        w.write(&copy, &format!("own {n}"));
        let (before, copy, wanted) = (w.view(&copy).unwrap(), copy.clone(), format!("source {n}"));
        Round::new(on(&copy, "POST", "/sync"), move |w, must| {
            let now = runs(w, &copy);
            if now.state == wanted {
                let kept = now.new_since(&before).into_iter().filter(|s| s.1 == before.state).count();
                assert_eq!(kept, 1, "what it had changed is kept: {now:?}");
            } else {
                assert!(!must, "a sync that was acknowledged is lost: {now:?}");
                assert_eq!(now.state, before.state, "neither the one state nor the other");
            }
        })
    });
}
