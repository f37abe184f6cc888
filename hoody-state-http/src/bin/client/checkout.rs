//! `checkout`: single files and directories of a snapshot, restored.

use crate::args::Checkout;
use crate::confirm::confirm;
use crate::container::path;
use crate::context::Context;
use crate::failure::{Failure, Outcome, exit};
use crate::http::{object, segment};
use crate::output::{line, rows, text};
use crate::wait;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// A path for the field `name` if it is UTF-8, percent-encoded for the field beside it if not.
fn field(path: &OsStr) -> Result<&str, String> {
    path.to_str().ok_or_else(|| percent_encode(path.as_bytes(), NON_ALPHANUMERIC).to_string())
}

/// Runs the command.
pub fn run(cx: &mut Context<'_>, a: &Checkout) -> Outcome {
    let (container, snapshot) = (&a.one.container, &a.one.snapshot);
    let url = path(cx, container, &format!("/snapshots/{}/restore-files", segment(snapshot)))?;
    let what = if a.paths.len() == 1 { format!("{:?}", a.paths[0]) } else { format!("{} paths", a.paths.len()) };
    confirm(cx, &format!("overwrite {what} in the container {container} with what the snapshot {snapshot} has"))?;
    let (mut plain, mut encoded) = (Vec::new(), Vec::new());
    for p in &a.paths {
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
