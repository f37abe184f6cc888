//! A kill before every step of every kind of operation.
//!
//! Each round makes a stage, arms the server to die before its Nth step, sends one request, starts the server again, and looks. Then the request is
//! sent once more with the same Idempotency-Key: it must come to what one alone would have. When the server outlives the request, its steps
//! are through.

use crate::server::Request;
use crate::world::{View, World, image, new_container};
use serde_json::json;

/// Looks whether the world is as it must be; told whether the change must have been made.
pub type Verify = Box<dyn Fn(&World, bool)>;

/// What one round is about. `verify` is told whether the change must have been made, or may have been made or not.
pub struct Round {
    request: Request,
    verify: Verify,
}

impl Round {
    pub fn new(request: Request, verify: impl Fn(&World, bool) + 'static) -> Self {
        Round { request, verify: Box::new(verify) }
    }
}

/// Kills before each step of what `stage` asks for; tells the steps.
pub fn every_step(w: &mut World, name: &str, stage: impl Fn(&World, usize) -> Round) {
    let mut names = Vec::new();
    for n in 1.. {
        assert!(n < 40, "{name} has no end of steps: {names:?}");
        let round = stage(w, n);
        assert!(w.settle());
        let key = format!("{}-{n}", name.replace(' ', "-"));
        std::fs::write(w.server.arm(), format!("{n}\n")).unwrap();
        let answer = w.send(&round.request, Some(&key));
        let survived = w.settle();
        let taken = std::fs::read_to_string(w.server.arm()).unwrap();
        std::fs::remove_file(w.server.arm()).unwrap();
        names = taken.lines().skip(1).map(str::to_owned).collect();
        let when = format!("{name}, killed before step {n} ({})", names.last().map_or("none", String::as_str));
        println!("{}", if survived { format!("{name}: {} steps: {}", n - 1, names.join(" ")) } else { when.clone() });
        if let Some(a) = &answer {
            assert!(a.status < 300, "{when}: {} {}\n{}", a.status, a.data, w.server.log_tail());
        }
        assert!(answer.is_some() || !survived, "{when}: no answer from a server that lives");
        if !survived {
            w.server.kill();
            w.server.start();
        }
        w.sound();
        (round.verify)(w, answer.is_some());
        let again = w.send(&round.request, Some(&key)).unwrap();
        // A DELETE and an import take no key: that nothing is left to do is no error of theirs.
        let done = matches!((round.request.method, again.data["code"].as_str()), ("DELETE", Some(c)) if c.ends_with("_not_found"))
            || again.data["code"] == "image_exists";
        assert!(again.status < 300 || done, "{when}, asked again with its key: {} {}\n{}", again.status, again.data, w.server.log_tail());
        w.sound();
        (round.verify)(w, true);
        if survived {
            assert!(n > 2, "{name} has {} steps: too few to be journalled", n - 1);
            return;
        }
    }
}

pub fn on(c: &str, method: &'static str, rest: &str) -> Request {
    Request::new(method, format!("/containers/{c}{rest}"))
}

/// The snapshots of `before` are as they were, but for those named.
fn others_untouched(before: &View, now: &View, but: &[&str]) {
    for (name, s) in before.snapshots.iter().filter(|(n, _)| !but.contains(&n.as_str())) {
        assert_eq!(now.snapshots.get(name), Some(s), "snapshot {name}");
    }
}

pub fn runs(w: &World, c: &str) -> View {
    let now = w.view(c).expect("the container is there");
    assert_eq!(now.status, "running", "it ran before");
    w.works(c);
    now
}

pub fn snapshots(w: &mut World, c: &str) {
    let id = c.to_owned();
    every_step(w, "snapshot create", |w, n| {
        w.write(&id, &format!("present {n}"));
        let (before, id) = (w.view(&id).unwrap(), id.clone());
        let request = on(&id, "POST", "/snapshots").json(&json!({ "alias": format!("a{n}") }));
        Round::new(request, move |w, must| {
            let now = runs(w, &id);
            let new = now.new_since(&before);
            assert!(new.len() <= 1 && (!must || new.len() == 1), "{new:?}");
            assert!(new.iter().all(|s| **s == (Some(format!("a{n}")), format!("present {n}"))), "{new:?}");
            assert_eq!(now.state, before.state);
            others_untouched(&before, &now, &[]);
        })
    });
    w.snapshot(c, "r");
    every_step(w, "snapshot create that replaces", |w, n| {
        w.write(&id, &format!("replaced {n}"));
        let (before, id) = (w.view(&id).unwrap(), id.clone());
        let old = before.snapshots.iter().find(|(_, s)| s.0.as_deref() == Some("r")).unwrap().0.clone();
        let request = on(&id, "POST", "/snapshots").json(&json!({ "alias": "r", "on_alias_conflict": "replace" }));
        Round::new(request, move |w, must| {
            let now = runs(w, &id);
            let holders: Vec<_> = now.snapshots.values().filter(|s| s.0.as_deref() == Some("r")).collect();
            assert_eq!(holders.len(), 1, "exactly one has the alias: {now:?}");
            let is_new = holders[0].1 == format!("replaced {n}");
            assert!(is_new || !must && *holders[0] == before.snapshots[&old], "{holders:?}");
            assert_eq!(now.snapshots.contains_key(&old), !is_new);
            others_untouched(&before, &now, &[&old]);
        })
    });
    every_step(w, "snapshot delete", |w, n| {
        w.write(&id, &format!("doomed {n}"));
        let doomed = w.snapshot(&id, &format!("d{n}"));
        let (before, id) = (w.view(&id).unwrap(), id.clone());
        Round::new(on(&id, "DELETE", &format!("/snapshots/{doomed}")), move |w, must| {
            let now = runs(w, &id);
            assert!(!must || !now.snapshots.contains_key(&doomed), "a deleted snapshot is back");
            others_untouched(&before, &now, &[&doomed]);
        })
    });
}

/// A restore or an undo of a container that is in `status`: the live content is `old` or `new`, and if `new`, the state before is kept.
pub fn restored(w: &World, c: &str, before: &View, new: &str, must: bool) {
    let now = w.view(c).expect("the container is there");
    let kept = now.new_since(before);
    if now.state == new {
        assert_eq!(kept.len(), 1, "the state before is kept once: {kept:?}");
        assert_eq!(kept[0].1, before.state);
    } else {
        assert!(!must, "an acknowledged restore is lost");
        assert_eq!(now.state, before.state, "neither the one state nor the other");
        assert!(kept.is_empty(), "{kept:?}");
    }
    match (before.status.as_str(), now.status.as_str()) {
        ("stopped", "stopped") => {}
        ("paused", "paused") => assert!(!must && now.state == before.state),
        ("running" | "paused", "running") => w.works(c),
        (before, now) => panic!("{before} before and {now} now"),
    }
    others_untouched(before, &now, &[]);
}

pub fn restores(w: &mut World, c: &str) {
    let id = c.to_owned();
    w.write(c, "base");
    let base = w.snapshot(c, "base");
    for status in ["running", "stopped", "paused"] {
        every_step(w, &format!("restore {status}"), |w, n| {
            w.bring(&id, status);
            w.write(&id, &format!("ruined {status} {n}"));
            let (before, id) = (w.view(&id).unwrap(), id.clone());
            Round::new(on(&id, "PUT", &format!("/snapshots/{base}")), move |w, must| restored(w, &id, &before, "base", must))
        });
    }
    every_step(w, "undo", |w, n| {
        w.bring(&id, "running");
        w.write(&id, &format!("to come back {n}"));
        w.must(&on(&id, "PUT", &format!("/snapshots/{base}")));
        w.write(&id, &format!("after {n}"));
        let (before, id) = (w.view(&id).unwrap(), id.clone());
        Round::new(on(&id, "POST", "/undo"), move |w, must| restored(w, &id, &before, &format!("to come back {n}"), must))
    });
}

/// Restores of single files: a file, a directory whose content goes into one that is there, one that is replaced as a whole, and one that was removed.
pub fn restored_files(w: &mut World, c: &str) {
    let id = c.to_owned();
    let write = |w: &World, path: &str, text: &str| {
        let path = w.home(&id).join("live").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    w.bring(c, "running");
    w.write(c, "base");
    for path in ["merged/a", "merged/sub/b", "whole/a", "gone/deep/a"] {
        write(w, path, "base");
    }
    let base = w.snapshot(c, "files");
    for (name, delete_new) in [("files", false), ("files, without new ones", true)] {
        let body = json!({ "paths": ["/state", "/merged", "/whole", "/gone/deep/a"], "delete_new": delete_new });
        every_step(w, &format!("restore of {name}"), |w, n| {
            let ruined = format!("ruined {n}");
            w.write(&id, &ruined);
            for path in ["merged/a", "merged/sub/b", "merged/new", "whole/a", "whole/new"] {
                write(w, path, &ruined);
            }
            std::fs::remove_dir_all(w.home(&id).join("live/gone")).unwrap();
            let (id, before, init) = (id.clone(), w.view(&id).unwrap(), w.init_of(&id));
            Round::new(on(&id, "POST", &format!("/snapshots/{base}/restore-files")).json(&body), move |w, must| {
                let now = runs(w, &id);
                assert_eq!(w.init_of(&id), init, "it runs on");
                let read = |path: &str| std::fs::read_to_string(w.home(&id).join("live").join(path)).ok();
                let of = |path: &str| match read(path) {
                    Some(text) if text == "base" => true,
                    Some(text) if text == ruined => false,
                    None if path.starts_with("gone") => false,
                    other => panic!("{path}: {other:?} is neither state"),
                };
                let restored = ["state", "merged/a", "whole/a", "gone/deep/a"].map(of);
                assert_eq!(of("merged/sub/b"), restored[1], "a directory is restored as a whole or not at all");
                assert_eq!(read("merged/new").is_none(), delete_new && restored[1]);
                assert_eq!(read("whole/new").is_none(), delete_new && restored[2]);
                assert!(!must || restored.iter().all(|r| *r), "an acknowledged restore is lost: {restored:?}");
                if restored.iter().any(|r| *r) {
                    let kept = now.new_since(&before);
                    assert!(kept.iter().any(|k| k.1 == before.state), "the state before is kept: {kept:?}");
                }
                let left = std::fs::read_dir(w.home(&id).join("live")).unwrap().flatten().find(|e| e.file_name().to_string_lossy().starts_with(".hoody"));
                assert!(left.is_none(), "{left:?}");
                others_untouched(&before, &now, &[]);
            })
        });
    }
}

/// The databases of a project, through their mount.
fn databases(w: &World, project: &str) -> std::path::PathBuf {
    w.server.run().join("databases").join(format!("project-{project}"))
}

fn set_databases(w: &World, project: &str, value: &str) {
    let dir = databases(w, project);
    std::fs::write(dir.join("plain"), value).unwrap();
    let c = rusqlite::Connection::open(dir.join("data.db")).unwrap();
    c.pragma_update(None, "journal_mode", "WAL").unwrap();
    c.execute_batch("CREATE TABLE IF NOT EXISTS t(x TEXT); DELETE FROM t").unwrap();
    c.execute("INSERT INTO t VALUES(?1)", [value]).unwrap();
}

/// What plain file and database say.
fn databases_say(dir: &std::path::Path) -> (String, String) {
    let c = rusqlite::Connection::open(dir.join("data.db")).unwrap();
    (std::fs::read_to_string(dir.join("plain")).unwrap(), c.query_row("SELECT x FROM t", [], |r| r.get(0)).unwrap())
}

/// Snapshots and restores of containers with databases: alone on them, and with another.
pub fn with_databases(w: &mut World) {
    for (alias, containers, body) in [("solo", 1, json!({})), ("pair", 2, json!({ "databases": "revert" }))] {
        let project = w.must(&Request::new("POST", "/projects").json(&json!({ "alias": alias })))["id"].as_str().unwrap().to_owned();
        let ids: Vec<String> = (0..containers).map(|i| w.create_in(&project, &new_container(&format!("{alias}{i}")))).collect();
        let id = ids[0].clone();
        w.write(&id, "base");
        set_databases(w, &project, "base");
        let base = w.snapshot(&id, "base");
        every_step(w, &format!("snapshot of {alias}"), |w, n| {
            w.write(&id, &format!("taken {n}"));
            set_databases(w, &project, &format!("taken {n}"));
            let (id, before) = (id.clone(), w.view(&id).unwrap());
            Round::new(on(&id, "POST", "/snapshots").json(&json!({ "alias": format!("{alias}-{n}") })), move |w, must| {
                let now = w.view(&id).unwrap();
                let new: Vec<_> = now.snapshots.keys().filter(|s| !before.snapshots.contains_key(*s)).collect();
                assert!(new.len() <= 1 && (!must || new.len() == 1));
                for name in new {
                    // Opening a database with a log writes: on a copy.
                    let copy = tempfile::tempdir().unwrap();
                    for e in std::fs::read_dir(w.home(&id).join("databases").join(name)).unwrap().flatten() {
                        std::fs::copy(e.path(), copy.path().join(e.file_name())).unwrap();
                    }
                    let (plain, row) = databases_say(copy.path());
                    assert_eq!((&plain, &row), (&now.snapshots[name].1, &now.snapshots[name].1), "one moment");
                }
            })
        });
        every_step(w, &format!("restore of {alias}"), |w, n| {
            w.bring(&id, "running");
            w.write(&id, &format!("ruined {n}"));
            set_databases(w, &project, &format!("ruined {n}"));
            let (id, project) = (id.clone(), project.clone());
            Round::new(on(&id, "PUT", &format!("/snapshots/{base}")).json(&body), move |w, must| {
                let state = runs(w, &id).state;
                assert!(state == "base" || (!must && state == format!("ruined {n}")), "{state}");
                assert_eq!(databases_say(&databases(w, &project)), (state.clone(), state), "the disk and the databases are of one state");
            })
        });
        for id in ids {
            w.must(&Request::new("DELETE", format!("/containers/{id}")));
        }
        assert!(w.settle());
        w.must(&Request::new("DELETE", format!("/projects/{project}")));
        w.sound();
    }
}

pub fn lifecycle(w: &mut World, c: &str) {
    let id = c.to_owned();
    let cases: [(&str, &str, &[&str], &str); 7] = [
        ("start", "stopped", &["stopped", "running"], "running"),
        ("stop", "running", &["running", "stopped"], "stopped"),
        ("force-stop", "paused", &["running", "paused", "stopped"], "stopped"),
        ("restart", "running", &["running"], "running"),
        ("restart", "paused", &["running", "paused"], "running"),
        ("pause", "running", &["running", "paused"], "paused"),
        ("resume", "paused", &["running", "paused"], "running"),
    ];
    for (verb, from, legal, to) in cases {
        every_step(w, &format!("{verb} {from}"), |w, _| {
            w.bring(&id, from);
            let init = (from != "stopped").then(|| w.init_of(&id));
            let (before, id) = (w.view(&id).unwrap(), id.clone());
            Round::new(w.verb(&id, verb), move |w, must| {
                let now = w.view(&id).unwrap();
                assert!(if must { now.status == to } else { legal.contains(&now.status.as_str()) }, "{} after {verb} of {from}", now.status);
                if now.status == "running" {
                    w.works(&id);
                }
                match verb {
                    "restart" if must => assert_ne!(Some(w.init_of(&id)), init, "a restart that restarted nothing"),
                    "pause" | "resume" => assert_eq!(Some(w.init_of(&id)), init, "it runs on where it was"),
                    _ => {}
                }
                assert_eq!((&now.state, &now.snapshots), (&before.state, &before.snapshots));
            })
        });
    }
    w.bring(c, "running");
}

fn named(w: &World, name: &str) -> Vec<String> {
    let all = w.get("/containers?limit=100");
    let found = all["containers"].as_array().unwrap().iter().filter(|c| c["name"] == *name);
    found.map(|c| c["id"].as_str().unwrap().to_owned()).collect()
}

pub fn containers(w: &mut World) {
    every_step(w, "container create", |w, n| {
        for old in named(w, &format!("new-{}", n - 1)) {
            w.must(&on(&old, "DELETE", ""));
        }
        let request = Request::new("POST", format!("/projects/{}/containers", w.project)).json(&new_container(&format!("new-{n}")));
        Round::new(request, move |w, must| {
            let found = named(w, &format!("new-{n}"));
            assert!(found.len() <= 1 && (!must || found.len() == 1), "{found:?}");
            if let Some(c) = found.first() {
                assert_eq!(w.status(c).as_deref(), Some("running"));
                w.write(c, "new");
                w.works(c);
            }
        })
    });
    let gone = |w: &World, c: &str, must: bool| match w.view(c) {
        None => assert!(!w.home(c).exists()),
        Some(now) => {
            assert!(!must, "a deleted container is back");
            assert_eq!(now.status, "running");
            w.works(c);
        }
    };
    every_step(w, "container delete", |w, n| {
        let c = w.create(&new_container(&format!("doomed-{n}")));
        w.write(&c, "doomed");
        w.snapshot(&c, "s");
        Round::new(on(&c, "DELETE", ""), move |w, must| gone(w, &c, must))
    });
    every_step(w, "project delete", |w, n| {
        let p = w.must(&Request::new("POST", "/projects").json(&json!({ "alias": format!("doomed-{n}") })))["id"].as_str().unwrap().to_owned();
        let both = ["one", "two"].map(|name| {
            let new = Request::new("POST", format!("/projects/{p}/containers")).json(&new_container(name));
            w.must(&new)["id"].as_str().unwrap().to_owned()
        });
        for c in &both {
            w.bring(c, "running");
            w.write(c, "doomed");
        }
        Round::new(Request::new("DELETE", format!("/projects/{p}")), move |w, must| {
            let left = both.iter().filter(|c| w.status(c).is_some()).count();
            assert!(left == 0 || left == 2, "all or nothing");
            both.iter().for_each(|c| gone(w, c, must));
        })
    });
}

pub fn images(w: &mut World, c: &str) {
    let there = |w: &World, name: &str| w.send(&Request::new("GET", format!("/images/{name}")), None).unwrap().status == 200;
    let tar = image();
    every_step(w, "image import", |_, n| {
        let mut request = Request::new("PUT", format!("/images/imported-{n}"));
        request.body.clone_from(&tar);
        Round::new(request, move |w, must| assert!(!must || there(w, &format!("imported-{n}"))))
    });
    let (id, snapshot) = (c.to_owned(), w.snapshot(c, "for-images"));
    every_step(w, "image from snapshot", |_, n| {
        let body = json!({ "container_id": id, "snapshot": snapshot });
        let request = Request::new("POST", format!("/images/copied-{n}/from-snapshot")).json(&body);
        Round::new(request, move |w, must| assert!(!must || there(w, &format!("copied-{n}"))))
    });
    every_step(w, "image delete", |_, n| {
        Round::new(Request::new("DELETE", format!("/images/imported-{n}")), move |w, must| assert!(!must || !there(w, &format!("imported-{n}"))))
    });
}
