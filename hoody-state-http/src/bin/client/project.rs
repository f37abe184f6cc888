//! `project …`

use crate::args::Project;
use crate::confirm::confirm;
use crate::context::Context;
use crate::failure::Outcome;
use crate::http::object;
use crate::output::{Column, fields, line, rows, table, text, time};
use crate::resolve::{self, all_rows};
use crate::{trash, wait};
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
        Project::Delete { project, permanently, wait } => {
            let id = resolve::project(cx, &project)?;
            confirm(cx, &format!("delete the project {project} and all its containers"))?;
            let query = if permanently { "&trash=false" } else { "" };
            let data = cx.client.delete(&format!("/projects/{id}?include_deleted_items=true{query}"))?;
            let containers = data.pointer("/deleted_items/containers").map_or_else(Vec::new, |c| rows(c, ""));
            let mut ends = String::new();
            for c in &containers {
                let (id, name) = (text(&c["id"]), text(&c["name"]));
                wait::gone(cx, &id, &name, &wait)?;
                // Its project is gone: it needs another one.
                ends.push_str(&line(&format!("  {name}: {}", trash::end_of(cx, &id, wait.no_wait).sentence(&id, " --project PROJECT"))));
            }
            cx.print(&data, |_| format!("{}{ends}", line(&format!("deleted the project {project} and {}", counted(containers.len())))))
        }
    }
}

fn counted(containers: usize) -> String {
    match containers {
        0 => "no containers".to_owned(),
        1 => "1 container".to_owned(),
        n => format!("{n} containers"),
    }
}
