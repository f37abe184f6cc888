//! `project …`

use crate::args::Project;
use crate::confirm::confirm;
use crate::context::Context;
use crate::failure::Outcome;
use crate::http::object;
use crate::output::{Column, fields, table, text, time};
use crate::resolve::{self, all_rows};
use serde_json::Value;

const COLUMNS: [Column; 4] =
    [("ID", |p| text(&p["id"])), ("ALIAS", |p| text(&p["alias"])), ("MAX CONTAINERS", |p| text(&p["max_containers"])), ("CREATED", |p| time(&p["created_at"]))];

/// Runs the command.
pub fn run(cx: &mut Context<'_>, command: Project) -> Outcome {
    match command {
        Project::List => {
            let rows = Value::Array(all_rows(cx, "/projects/", "projects")?);
            cx.print(&rows, |d| table(d.as_array().map_or(&[], Vec::as_slice), &COLUMNS))
        }
        Project::Create { alias, color, max_containers } => {
            let body = object([("alias", Some(alias.into())), ("color", color.map(Value::from)), ("max_containers", max_containers.map(Value::from))]);
            let created = cx.client.post("/projects/", &body)?;
            cx.print(&created, fields)
        }
        Project::Show { project } => {
            let id = resolve::project(cx, &project)?;
            let data = cx.client.get(&format!("/projects/{id}"))?;
            cx.print(&data, fields)
        }
        Project::Delete { project, permanently } => {
            let id = resolve::project(cx, &project)?;
            confirm(cx, &format!("delete the project {project} and all its containers"))?;
            let data = cx.client.delete(&format!("/projects/{id}{}", if permanently { "?trash=false" } else { "" }))?;
            cx.say(&data, format!("deleted {project} and {} containers", text(&data["deleted"]["containers"])))
        }
    }
}
