//! `diff`: what differs between a snapshot and another state.

use crate::args::Diff;
use crate::context::Context;
use crate::failure::{Failure, Outcome, exit};
use crate::http::segment;
use crate::output::line;
use crate::resolve;
use crate::style::{Look, Style};
use hoody_state::model::{DiffCounts, DiffDatabase, DiffKind, DiffLine, DiffMethod, DiffRecord, DiffStat, DiffSummary, FileType, LIVE};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;

/// What is asked: the new state as the user named it, and a path.
fn rest(args: &[OsString]) -> Outcome<(&str, Option<&OsString>)> {
    let usage = |what: &str| Failure::new(exit::USAGE, format!("{what}: write `diff CONTAINER:SNAPSHOT [SNAPSHOT|CONTAINER:SNAPSHOT|live] [PATH]`"));
    let is_path = |a: &OsString| a.as_bytes().starts_with(b"/");
    match args {
        [] => Ok((LIVE, None)),
        [path] if is_path(path) => Ok((LIVE, Some(path))),
        [b, path @ ..] if !is_path(b) => {
            let b = b.to_str().ok_or_else(|| usage("the name of a snapshot is not UTF-8"))?;
            Ok((b, path.first()))
        }
        _ => Err(usage("the path comes last")),
    }
}

/// Runs the command.
pub fn run(cx: &mut Context<'_>, a: &Diff) -> Outcome {
    let (b, path) = rest(&a.rest)?;
    let (container, old) =
        a.old.split_once(':').ok_or_else(|| Failure::new(exit::USAGE, format!("{:?} names no snapshot: write CONTAINER:SNAPSHOT", a.old)))?;
    let id = resolve::container(cx, container)?;
    let mut query = Vec::new();
    let new = match b.split_once(':') {
        Some((other, new)) => {
            query.push(format!("container={}", resolve::container(cx, other)?));
            new
        }
        None => b,
    };
    query.extend(path.map(|p| format!("path={}", percent_encode(p.as_bytes(), NON_ALPHANUMERIC))));
    for (name, on) in [("stat", a.stat), ("times", a.times), ("walk", a.walk), ("databases", a.databases)] {
        query.extend(on.then(|| format!("{name}=true")));
    }
    let url = format!("/containers/{id}/snapshots/{}/diff/{}?{}", segment(old), segment(new), query.join("&"));
    let answer = cx.client.stream(&url, "application/x-ndjson", None)?;
    let style = cx.style;
    let mut complete = false;
    for text in BufReader::new(answer.into_body().into_reader()).lines() {
        let text = text.map_err(|e| Failure::new(exit::UNREACHABLE, format!("the answer broke off: {e}")))?;
        let parsed: DiffLine = serde_json::from_str(&text).map_err(|e| Failure::other(format!("the server sent a line that is none of a diff: {e}")))?;
        complete = matches!(parsed, DiffLine::Summary(_));
        if cx.json {
            writeln!(cx.out, "{text}")?;
        } else {
            write!(cx.out, "{}", shown(&parsed, style))?;
        }
    }
    if complete { Ok(()) } else { Err(Failure::new(exit::UNREACHABLE, "the answer broke off before its end")) }
}

/// A line of the answer, for people.
pub fn shown(l: &DiffLine, style: Style) -> String {
    match l {
        DiffLine::Record(r) => record(r, style),
        DiffLine::Stat(s) => stat(s),
        DiffLine::Database(d) => database(d),
        DiffLine::Summary(s) => summary(s),
    }
}

/// A name: bytes that are not UTF-8 are shown as escapes.
fn name(path: &str, encoded: Option<&String>, file_type: FileType) -> String {
    let mut name = encoded.map_or(path, String::as_str).to_owned();
    if matches!(file_type, FileType::Directory | FileType::Subvolume) && name != "/" {
        name.push('/');
    }
    name
}

fn record(r: &DiffRecord, style: Style) -> String {
    let sign = match r.kind {
        DiffKind::Added => '+',
        DiffKind::Deleted => '-',
        DiffKind::Modified => 'M',
        DiffKind::Renamed => 'R',
        DiffKind::Metadata => 'm',
        DiffKind::TypeChanged => 'T',
    };
    let mut text = format!("{sign} ");
    match (r.kind, &r.from) {
        (DiffKind::Renamed, Some(from)) => {
            text.push_str(&format!("{} -> ", name(from, r.from_encoded.as_ref(), r.file_type)));
            text.push_str(&name(&r.path, r.path_encoded.as_ref(), r.file_type));
        }
        (DiffKind::TypeChanged, Some(from)) => {
            text.push_str(&format!("{} ({from} -> {})", name(&r.path, r.path_encoded.as_ref(), r.file_type), r.to.unwrap_or(r.file_type).as_str()));
        }
        _ => text.push_str(&name(&r.path, r.path_encoded.as_ref(), r.file_type)),
    }
    let mut notes = Vec::new();
    notes.extend((r.bytes.0 > 0).then(|| r.bytes.to_string()));
    notes.extend((!r.fields.is_empty()).then(|| r.fields.join(", ")));
    notes.extend(r.link_of.as_ref().map(|l| format!("same file as {}", r.link_of_encoded.as_ref().unwrap_or(l))));
    if !notes.is_empty() {
        text.push_str(&format!("  ({})", notes.join("; ")));
    }
    format!("{}\n", style.paint(Look::Change(r.kind), line(&text).trim_end_matches('\n')))
}

fn counts(c: &DiffCounts) -> String {
    let all = [
        (c.added, "added"),
        (c.deleted, "deleted"),
        (c.modified, "modified"),
        (c.renamed, "renamed"),
        (c.metadata, "with other metadata"),
        (c.type_changed, "of another type"),
    ];
    let mut parts: Vec<String> = all.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    parts.extend((c.bytes.0 > 0).then(|| c.bytes.to_string()));
    if parts.is_empty() { "nothing differs".into() } else { parts.join(", ") }
}

fn stat(s: &DiffStat) -> String {
    line(&format!("{}  {}", s.path_encoded.as_ref().unwrap_or(&s.path), counts(&s.counts)))
}

/// A database and, a line each, the tables with another number of rows.
fn database(d: &DiffDatabase) -> String {
    let path = d.path_encoded.as_ref().unwrap_or(&d.path);
    if let Some(e) = &d.error {
        return line(&format!("rows of {path}: not counted: {}", e.message));
    }
    let rows = |n: Option<u64>| n.map_or_else(|| "no table".to_owned(), |n| n.to_string());
    let mut text = line(&format!("rows of {path}: {} tables have as many as before", d.equal_tables));
    for t in &d.tables {
        text.push_str(&line(&format!("    {}: {} -> {}", t.name, rows(t.from), rows(t.to))));
    }
    text
}

fn summary(s: &DiffSummary) -> String {
    let how = match s.method {
        DiffMethod::Changes => "",
        DiffMethod::Scan => "; the inodes of both states were read",
        DiffMethod::Walk => "; both states were read completely",
    };
    let outside: Vec<&str> = s.not_covered.iter().map(|n| n.path.as_str()).collect();
    format!("{}{}", line(&format!("{}{how}", counts(&s.counts))), line(&format!("not covered: {}", outside.join(" "))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::args::Color;

    #[test]
    fn the_arguments_after_the_first_are_a_state_and_a_path() {
        let of = |args: &[&str]| rest(&args.iter().map(OsString::from).collect::<Vec<_>>()).map(|(b, p)| (b.to_owned(), p.cloned()));
        let path = |p: &str| Some(OsString::from(p));
        assert_eq!(of(&[]), Ok(("live".into(), None)));
        assert_eq!(of(&["/etc"]), Ok(("live".into(), path("/etc"))));
        assert_eq!(of(&["after", "/etc"]), Ok(("after".into(), path("/etc"))));
        assert_eq!(of(&["box:after", "etc"]), Ok(("box:after".into(), path("etc"))));
        assert!(of(&["/etc", "after"]).is_err());
    }

    #[test]
    fn each_kind_has_a_sign_and_no_name_reaches_the_terminal_as_it_is() {
        let style = |colors| Style::choose(if colors { Color::Always } else { Color::Never }, |_| None, false);
        let of = |json: &str, colors| shown(&serde_json::from_str(json).unwrap(), style(colors));
        let text = of(r#"{"kind":"renamed","path":"/a\u001b[31m","from":"/b","type":"directory","bytes":0}"#, false);
        assert_eq!(text, "R /b/ -> /a\u{fffd}[31m/\n");
        let text = of(r#"{"kind":"modified","path":"/x","type":"file","bytes":2048,"fields":["mode"],"link_of":"/y"}"#, true);
        assert_eq!(text, "\x1b[33mM /x  (2.0 KiB; mode; same file as /y)\x1b[0m\n");
        let text = of(r#"{"kind":"type_changed","path":"/t","from":"file","to":"symlink","type":"symlink","bytes":0}"#, false);
        assert_eq!(text, "T /t (file -> symlink)\n");
        let text = of(
            r#"{"kind":"database","path":"/hoody/databases/x","tables":[{"name":"a\u001b","from":null,"to":3},{"name":"b","from":1,"to":null}],"equal_tables":2}"#,
            false,
        );
        assert_eq!(text, "rows of /hoody/databases/x: 2 tables have as many as before\n    a\u{fffd}: no table -> 3\n    b: 1 -> no table\n");
    }
}
