//! `trash …`

use crate::args::Trash;
use crate::confirm::confirm;
use crate::container;
use crate::context::Context;
use crate::failure::{Failure, Outcome, exit};
use crate::http::{object, segment};
use crate::output::{Column, bytes, line, rows, table, text, time};
use crate::resolve::{self, all_rows};
use hoody_state::Code;
use serde_json::Value;

const COLUMNS: [Column; 7] = [
    ("ID", |c| text(&c["id"])),
    ("NAME", |c| text(&c["name"])),
    ("IMAGE", |c| text(&c["container_image"])),
    ("SNAPSHOTS", |c| text(&c["snapshot_count"])),
    ("SIZE", |c| bytes(&c["size"])),
    ("DELETED", |c| time(&c["deleted_at"])),
    ("KEPT UNTIL", |c| time(&c["expires_at"])),
];

/// Runs the command.
pub fn run(cx: &mut Context<'_>, command: Trash) -> Outcome {
    match command {
        Trash::List => {
            let rows = Value::Array(all_rows(cx, "/trash", "containers")?);
            cx.print(&rows, |d| table(d.as_array().map_or(&[], Vec::as_slice), &COLUMNS))
        }
        Trash::Recover { container, name, project } => {
            let id = find(cx, &container)?;
            let project = project.map(|p| resolve::project(cx, &p)).transpose()?;
            let body = object([("name", name.map(Value::from)), ("project_id", project.map(Value::from))]);
            let data = cx.client.post(&format!("/trash/{id}/recover"), &body)?;
            cx.print(&data, |d| {
                let lost: String = rows(d, "not_recovered").iter().map(|l| line(&text(l))).collect();
                format!("{}{lost}", table(std::slice::from_ref(&d["container"]), &container::COLUMNS))
            })
        }
        Trash::Delete { container } => {
            let id = find(cx, &container)?;
            confirm(cx, &format!("delete the container {container} in the trash for good"))?;
            let data = cx.client.delete(&format!("/trash/{id}"))?;
            cx.say(&data, format!("deleted {container} for good"))
        }
    }
}

/// The id of a container in the trash. Several of one name can be there.
fn find(cx: &Context<'_>, wanted: &str) -> Outcome<String> {
    if resolve::is_id(wanted) {
        return Ok(wanted.to_owned());
    }
    let all = all_rows(cx, "/trash", "containers")?;
    let found: Vec<&Value> = all.iter().filter(|c| c["name"] == wanted).collect();
    match found.as_slice() {
        [one] => Ok(text(&one["id"])),
        [] => Err(Failure::new(exit::NOT_FOUND, format!("there is no container {wanted:?} in the trash: see `hoody-state trash list`"))),
        several => {
            let list: Vec<String> = several.iter().map(|c| format!("  {}  deleted {}", text(&c["id"]), time(&c["deleted_at"]))).collect();
            Err(Failure::new(
                exit::CONFLICT,
                format!("{} containers in the trash were called {wanted:?}; say which by id:\n{}", several.len(), list.join("\n")),
            ))
        }
    }
}

/// What became of a container that was deleted.
pub enum End {
    /// It can be recovered until then.
    InTrash(String),
    ForGood,
    /// The deletion goes on in the background.
    Going,
    /// The server does not say: whoever asks has no right to look into the trash, say.
    Unknown,
}

/// What became of a container that was deleted. `early`: its deletion may not have ended yet.
pub fn end_of(cx: &Context<'_>, id: &str, early: bool) -> End {
    match cx.client.get(&format!("/trash/{}", segment(id))) {
        Ok(trashed) if trashed["expires_at"].is_string() => End::InTrash(time(&trashed["expires_at"])),
        Err(f) if f.code.as_deref() == Some(Code::TrashNotFound.as_str()) => {
            if early {
                End::Going
            } else {
                End::ForGood
            }
        }
        _ => End::Unknown,
    }
}

impl End {
    /// As a sentence. `options`: what the command that recovers it needs beside the id.
    pub fn sentence(&self, id: &str, options: &str) -> String {
        match self {
            End::InTrash(until) => format!("deleted; it is in the trash until {until}: recover it with `hoody-state trash recover {id}{options}`"),
            End::ForGood => "deleted for good".to_owned(),
            End::Going => "is being deleted".to_owned(),
            End::Unknown => "deleted".to_owned(),
        }
    }
}
