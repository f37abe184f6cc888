//! `container usage`: what a container keeps on disk.

use crate::output::{Column, bytes, table, text};
use serde_json::{Value, json};

const COLUMNS: [Column; 3] = [
    ("SNAPSHOT", |s| if s["alias"].is_string() { text(&s["alias"]) } else { text(&s["name"]) }),
    ("SIZE", |s| bytes(&s["size"])),
    ("FREES", |s| known(&s["frees_bytes"])),
];

/// A figure that is measured in the background.
fn known(v: &Value) -> String {
    if v.is_null() { "not known yet".to_owned() } else { bytes(v) }
}

/// The live volume, its snapshots, and all of them together.
pub fn shown(d: &Value) -> String {
    let mut lines = vec![
        format!("live        {} referenced: {} exclusive, {} shared", bytes(&d["referenced"]), bytes(&d["exclusive"]), bytes(&d["shared"])),
        format!("total       {} beside the image", bytes(&d["total"])),
    ];
    if d["disk"].is_object() {
        let limit = if d["disk"]["limit"].is_null() { "no limit".to_owned() } else { format!("limit {}", bytes(&d["disk"]["limit"])) };
        lines.push(format!("counted     {}, {limit}", bytes(&d["disk"]["used"])));
    }
    let mut out = lines.join("\n") + "\n";
    let mut rows = d["snapshots"].as_array().cloned().unwrap_or_default();
    if rows.is_empty() {
        return out + "no snapshots\n";
    }
    let all = &d["all_snapshots"];
    rows.push(json!({ "name": format!("all {} together", text(&all["count"])), "size": all["size"], "frees_bytes": all["frees_bytes"] }));
    out.push('\n');
    out + &table(&rows, &COLUMNS)
}
