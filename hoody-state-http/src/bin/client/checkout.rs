//! `checkout`: single files and directories of a snapshot, restored.

use crate::args::Checkout;
use crate::confirm::confirm;
use crate::container::path;
use crate::context::Context;
use crate::failure::{Failure, Outcome, exit};
use crate::files::Place;
use crate::http::{object, segment};
use crate::output::{line, rows, text};
use crate::wait;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A path for the field `name` if it is UTF-8, percent-encoded for the field beside it if not.
fn field(path: &OsStr) -> Result<&str, String> {
    path.to_str().ok_or_else(|| percent_encode(path.as_bytes(), NON_ALPHANUMERIC).to_string())
}

/// The container, the snapshot and the paths that the arguments name: `CONTAINER:SNAPSHOT PATH…`, `CONTAINER:SNAPSHOT:/PATH…`, or `CONTAINER SNAPSHOT PATH…`
/// in the way of `snapshot restore`.
fn chosen(from: &OsStr, rest: &[OsString]) -> Outcome<(String, String, Vec<OsString>)> {
    let usage = |what: &str| Failure::new(exit::USAGE, format!("{what}: write `checkout CONTAINER:SNAPSHOT PATH…`"));
    let (container, snapshot, first, rest) = match Place::parse(from) {
        Some(Place { snapshot: None, .. }) => return Err(usage(&format!("{from:?} names no snapshot"))),
        Some(Place { container, snapshot: Some(snapshot), path }) => (container, snapshot, Some(OsString::from_vec(path)), rest),
        None => {
            let from = from.to_str().ok_or_else(|| usage("a name is not UTF-8"))?;
            match (from.split_once(':'), rest) {
                (Some((container, snapshot)), _) => (container.to_owned(), snapshot.to_owned(), None, rest),
                (None, [snapshot, rest @ ..]) if !snapshot.as_bytes().starts_with(b"/") => {
                    let snapshot = snapshot.to_str().ok_or_else(|| usage("a name is not UTF-8"))?;
                    (from.to_owned(), snapshot.to_owned(), None, rest)
                }
                _ => return Err(usage(&format!("{from:?} names no snapshot"))),
            }
        }
    };
    let paths: Vec<OsString> = first.into_iter().chain(rest.iter().cloned()).collect();
    if paths.is_empty() {
        return Err(usage("no path is named (`snapshot restore` restores everything)"));
    }
    Ok((container, snapshot, paths))
}

/// Runs the command.
pub fn run(cx: &mut Context<'_>, a: &Checkout) -> Outcome {
    let (container, snapshot, paths) = chosen(&a.from, &a.paths)?;
    let (container, snapshot) = (&container, &snapshot);
    let url = path(cx, container, &format!("/snapshots/{}/restore-files", segment(snapshot)))?;
    let what = if paths.len() == 1 { format!("{:?}", paths[0]) } else { format!("{} paths", paths.len()) };
    confirm(cx, &format!("overwrite {what} in the container {container} with what the snapshot {snapshot} has"))?;
    let (mut plain, mut encoded) = (Vec::new(), Vec::new());
    for p in &paths {
        match field(p) {
            Ok(text) => plain.push(text),
            Err(text) => encoded.push(text),
        }
    }
    let to = a.to.as_deref().map(field);
    let body = object([
        ("paths", Some(json!(plain))),
        ("paths_encoded", (!encoded.is_empty()).then(|| json!(encoded))),
        ("to", to.as_ref().and_then(|t| t.as_ref().ok()).map(|t| json!(t))),
        ("to_encoded", to.as_ref().and_then(|t| t.as_ref().err()).map(|t| json!(t))),
        ("delete_new", a.delete_new.then_some(json!(true))),
        ("databases", a.databases.as_ref().map(|d| json!(d))),
    ]);
    let data = cx.client.post(&url, &body)?;
    wait::operation(cx, &data, &a.wait)?;
    let failed = rows(&data, "failed").len();
    cx.print(&data, |d| shown(d, container))?;
    if failed > 0 { Err(Failure::new(exit::OTHER, format!("{failed} of the paths could not be restored"))) } else { Ok(()) }
}

/// One line for each path, then where the state before is.
fn shown(data: &Value, container: &str) -> String {
    let mut out = String::new();
    for p in rows(data, "restored") {
        out.push_str(&line(&format!("restored {}", text(&p["path"]))));
    }
    for p in rows(data, "failed") {
        out.push_str(&line(&format!("failed   {}: {} [{}]", text(&p["path"]), text(&p["message"]), text(&p["code"]))));
    }
    if let Some(undo) = data["undo"].as_str() {
        out.push_str(&line(&format!("the state before is kept as snapshot {undo} (undo all with `hoody-state snapshot undo {container}`)")));
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_named_in_the_way_of_diff_of_cat_and_of_restore() {
        let chosen = |args: &[&str]| {
            let rest: Vec<OsString> = args[1..].iter().map(OsString::from).collect();
            chosen(OsStr::new(args[0]), &rest).map(|(c, s, p)| format!("{c} {s} {p:?}")).map_err(|f| f.message)
        };
        let wanted = Ok(r#"dev before ["/etc/a", "/etc/b"]"#.to_owned());
        assert_eq!(chosen(&["dev:before", "/etc/a", "/etc/b"]), wanted);
        assert_eq!(chosen(&["dev:before:/etc/a", "/etc/b"]), wanted);
        assert_eq!(chosen(&["dev", "before", "/etc/a", "/etc/b"]), wanted);
        assert_eq!(chosen(&["dev:before", "etc/a"]).unwrap(), r#"dev before ["etc/a"]"#);
        for (args, why) in [
            (&["dev"][..], "names no snapshot"),
            (&["dev", "/etc/a"], "names no snapshot"),
            (&["dev:/etc/a"], "names no snapshot"),
            (&["dev:before"], "no path"),
        ] {
            assert!(chosen(args).unwrap_err().contains(why), "{args:?}");
        }
    }
}
