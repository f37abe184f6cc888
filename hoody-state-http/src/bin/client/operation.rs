//! `operation …`

use crate::args::Operation;
use crate::context::Context;
use crate::failure::Outcome;
use crate::http::segment;
use crate::output::{Column, fields, rows, table, text, time};
use serde_json::Value;

const COLUMNS: [Column; 6] = [
    ("ID", |o| text(&o["id"])),
    ("KIND", |o| text(&o["kind"])),
    ("RESOURCE", |o| format!("{} {}", text(&o["resource_type"]), text(&o["resource_id"]))),
    ("STATUS", |o| text(&o["status"])),
    ("PROGRESS", progress),
    ("STARTED", |o| time(&o["created_at"])),
];

fn progress(o: &Value) -> String {
    match (o["done"].as_u64(), o["total"].as_u64()) {
        (Some(d), Some(t)) if t > 0 => format!("{} %", d.saturating_mul(100) / t),
        (Some(d), _) => d.to_string(),
        _ => text(&o["step"]),
    }
}

/// Runs the command.
pub fn run(cx: &mut Context<'_>, command: Operation) -> Outcome {
    match command {
        Operation::List => {
            // The newest hundred.
            let data = cx.client.get("/operations?limit=100")?;
            cx.print(&data, |d| table(&rows(d, "operations"), &COLUMNS))
        }
        Operation::Show { id } => {
            let data = cx.client.get(&format!("/operations/{}", segment(&id)))?;
            cx.print(&data, fields)
        }
        Operation::Cancel { id } => {
            let data = cx.client.delete(&format!("/operations/{}", segment(&id)))?;
            cx.say(&data, format!("cancelling {id}"))
        }
    }
}
