//! What `log` prints, and when a pager and colors are used.
#![allow(clippy::unwrap_used)]

use crate::args::{Cli, Color, LogArgs};
use crate::graph::Graph;
use crate::log::text;
use crate::pager;
use crate::style::{Look, Style};
use clap::Parser;
use serde_json::{Value, json};
use std::ffi::OsString;

fn no_colors() -> Style {
    Style::choose(Color::Never, |_| None, false)
}

/// Entries as `name: parents`, newest first.
fn drawn(history: &[(&str, &[&str])]) -> String {
    let mut graph = Graph::default();
    let mut out = Vec::new();
    for (id, parents) in history {
        let parents: Vec<String> = parents.iter().map(|p| (*p).to_owned()).collect();
        let d = graph.entry(no_colors(), '*', id, &parents);
        out.extend(d.before);
        out.push(format!("{} {id}", d.first));
        out.extend(d.after);
    }
    out.extend(graph.open_end(no_colors()));
    out.join("\n")
}

#[test]
fn a_line_a_fork_and_a_merge_are_drawn() {
    assert_eq!(drawn(&[("c", &["b"]), ("b", &["a"]), ("a", &[])]), "* c\n* b\n* a");
    assert_eq!(drawn(&[("x", &["a"]), ("y", &["a"]), ("a", &[])]), "* x\n| * y\n|/\n* a");
    assert_eq!(drawn(&[("m", &["a", "b"]), ("b", &["r"]), ("a", &["r"]), ("r", &[])]), "* m\n|\\\n| * b\n* | a\n|/\n* r");
    // Three forks of one: the last leans over the others.
    assert_eq!(drawn(&[("x", &["a"]), ("y", &["a"]), ("z", &["a"]), ("a", &[])]), "* x\n| * y\n| | * z\n|/  |\n|__/\n* a");
    // One that is not shown any more is an open end.
    assert_eq!(drawn(&[("c", &["b"]), ("b", &["a"])]), "* c\n* b\n|");
    // A column that is free is used again.
    assert_eq!(drawn(&[("x", &["a"]), ("y", &[]), ("z", &["a"]), ("a", &[])]), "* x\n| * y\n| * z\n|/\n* a");
}

#[test]
fn every_entry_has_a_column_of_its_own_line_in_random_histories() {
    let mut seed = 1u64;
    let mut roll = |n: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % n
    };
    for _ in 0..200 {
        let n = 2 + roll(30);
        let mut graph = Graph::default();
        let mut expected = std::collections::HashSet::new();
        for id in (0..n).rev() {
            let mut parents: Vec<String> = (0..roll(3)).filter(|_| id > 0).map(|_| roll(id).to_string()).collect();
            parents.dedup();
            let d = graph.entry(no_colors(), '*', &id.to_string(), &parents);
            assert_eq!(d.first.matches('*').count(), 1);
            expected.remove(&id.to_string());
            expected.extend(parents);
            for l in d.before.iter().chain(&d.after).chain([&d.rest, &d.first]) {
                assert!(l.chars().all(|c| "*|/\\_ ".contains(c)), "{l:?}");
            }
            let columns = graph.open_end(no_colors()).map_or(0, |l| l.matches('|').count());
            // Several may wait for the same one.
            assert!(columns >= expected.len() && (columns > 0) != expected.is_empty(), "{columns} columns for {expected:?}");
        }
    }
}

fn node(id: &str, kind: &str, parents: &[&str], more: &Value) -> Value {
    let mut n = json!({ "id": id, "kind": kind, "parents": parents, "container_id": "c", "container_name": "box", "created_at": "2026-11-29T01:02:03.000Z", "author": "ann" });
    n.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    n
}

fn timeline() -> Value {
    json!({
        "nodes": [
            node("now-c", "now", &["4"], &json!({ "unsaved_bytes": 2048, "author": null })),
            node("4", "restore", &["2"], &json!({ "snapshot": "one", "overwrote": "3" })),
            node("3", "snapshot", &["2"], &json!({ "snapshot": "undo-1", "size": 4096, "frees_bytes": 4096, "expires_at": "2026-11-30T01:02:03.000Z" })),
            node("2", "snapshot", &["1"], &json!({ "snapshot": "20261129", "alias": "one", "size": 1024, "frees_bytes": 0, "pinned": "release", "description": "a\u{1b}[31mb" })),
            node("1", "fork", &["0"], &json!({ "source": { "container_id": "d", "snapshot": "base" } })),
        ],
        "outside": [{ "id": "0", "kind": null, "parents": [], "created_at": "2026-11-28T00:00:00.000Z", "hidden": true }],
        "next_cursor": null
    })
}

fn args(line: &str) -> LogArgs {
    match Cli::parse_from(line.split(' ')).noun {
        crate::args::Noun::Log(a) => a,
        _ => unreachable!(),
    }
}

#[test]
fn a_timeline_is_text() {
    let expected = "\
@ 2026-11-29 01:02  now  2.0 KiB unsaved
* 2026-11-29 01:02  restored one
| * 2026-11-29 01:02  snapshot undo-1  4.0 KiB, frees 4.0 KiB
|/
* 2026-11-29 01:02  snapshot one  pinned  1.0 KiB
* 2026-11-29 01:02  fork of d at base
o 2026-11-28 00:00  of a project that you may not see
";
    assert_eq!(text(no_colors(), None, &args("hoody-state log box --graph --oneline"), &timeline()), expected);
    let long = text(no_colors(), None, &args("hoody-state log box"), &timeline());
    assert!(long.contains("    by ann, kept before: undo-1\n"), "{long}");
    assert!(long.contains("    by ann, pinned: release\n    a\u{fffd}[31mb\n"), "a description does not steer the terminal: {long}");
    let narrow = text(no_colors(), Some(30), &args("hoody-state log box --graph"), &timeline());
    assert!(narrow.lines().all(|l| l.chars().count() <= 30), "{narrow}");
    let colors = text(Style::choose(Color::Always, |_| None, false), Some(30), &args("hoody-state log box --graph"), &timeline());
    assert!(colors.contains("\u{1b}[33m"));
    assert!(colors.lines().all(|l| console::measure_text_width(l) <= 30), "{colors}");
}

#[test]
fn colors_follow_the_terminal_and_no_color() {
    let painted = |wanted, name: &'static str, value: &'static str, terminal| {
        let env = move |n: &str| (n == name).then(|| OsString::from(value));
        Style::choose(wanted, env, terminal).paint(Look::Name, "x") != "x"
    };
    assert!(painted(Color::Auto, "TERM", "xterm", true));
    assert!(painted(Color::Auto, "NO_COLOR", "", true), "an empty NO_COLOR counts as none");
    assert!(!painted(Color::Auto, "NO_COLOR", "1", true));
    assert!(!painted(Color::Auto, "TERM", "dumb", true));
    assert!(!painted(Color::Auto, "TERM", "xterm", false));
    assert!(painted(Color::Always, "NO_COLOR", "1", false));
    assert!(!painted(Color::Never, "TERM", "xterm", true));
}

#[test]
fn the_pager_is_the_environments() {
    assert_eq!(pager::command(None).as_deref(), Some("less"));
    assert_eq!(pager::command(Some("more -d".into())).as_deref(), Some("more -d"));
    for none in ["", "  ", "cat"] {
        assert_eq!(pager::command(Some(none.into())), None);
    }
    // Not on a terminal: none, whatever the command.
    assert_eq!(pager::wanted(&Cli::parse_from(["hoody-state", "log"])), None);
}

#[test]
fn what_is_longer_than_the_screen_goes_through_the_pager() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shown");
    let pager = || Some((format!("cat > {}", file.display()), 5));
    let mut out = pager::Out::new(pager());
    for n in 0..20 {
        writeln!(out, "line {n}").unwrap();
    }
    out.finish().unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 20);
    std::fs::remove_file(&file).unwrap();
    let mut out = pager::Out::new(pager());
    writeln!(out, "one line").unwrap();
    out.finish().unwrap();
    assert!(!file.exists(), "what fits is printed");
    // One that is left early is no failure.
    let mut out = pager::Out::new(Some(("head -1 > /dev/null".into(), 5)));
    for n in 0..200_000 {
        writeln!(out, "line {n}").unwrap();
    }
    out.finish().unwrap();
}
