//! A kill before every step of a promotion and of a reset.

use crate::steps::{Round, every_step, on, restored};
use crate::world::World;
use serde_json::json;

pub fn forks(w: &mut World, c: &str) {
    let source = c.to_owned();
    let forked = w.must(&on(c, "POST", "/fork").json(&json!({ "count": 1, "name_prefix": "fork" })));
    let fork = forked["results"][0]["container"]["id"].as_str().unwrap().to_owned();
    w.bring(&fork, "running");
    for (name, prefer) in [("promote", None), ("promote, the fork preferred", Some("fork"))] {
        every_step(w, name, |w, n| {
            w.must(&on(&fork, "POST", "/reset").json(&json!({ "to": "source" })));
            w.write(&fork, &format!("{name} {n}"));
            let (before, fork_before, source, fork) = (w.view(&source).unwrap(), w.view(&fork).unwrap(), source.clone(), fork.clone());
            let request = on(&fork, "POST", "/promote").json(&prefer.map_or(json!({}), |p| json!({ "prefer": p })));
            Round::new(request, move |w, must| {
                restored(w, &source, &before, &format!("{name} {n}"), must);
                assert_eq!(w.view(&fork).unwrap(), fork_before, "the fork stays as it is");
                w.works(&fork);
            })
        });
    }
    every_step(w, "reset", |w, n| {
        w.must(&on(&fork, "POST", "/reset").json(&json!({ "to": "source" })));
        let base = w.view(&fork).unwrap().state;
        w.write(&fork, &format!("to be reset {n}"));
        let (before, fork) = (w.view(&fork).unwrap(), fork.clone());
        Round::new(on(&fork, "POST", "/reset"), move |w, must| restored(w, &fork, &before, &base, must))
    });
}
