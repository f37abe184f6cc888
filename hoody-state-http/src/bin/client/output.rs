//! Output as text: tables and fields.

use hoody_state::units::Bytes;
use serde_json::Value;

/// A column: its heading, and its text for a row.
pub type Column = (&'static str, fn(&Value) -> String);

/// Text without control characters: a terminal would obey them.
pub fn plain(s: &str) -> String {
    s.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A line of text.
pub fn line(s: &str) -> String {
    format!("{}\n", plain(s))
}

/// A value as text; a missing or empty one is `-`.
pub fn text(v: &Value) -> String {
    match v {
        Value::Null => "-".to_owned(),
        Value::String(s) if s.is_empty() => "-".to_owned(),
        Value::String(s) => s.clone(),
        Value::Bool(b) => if *b { "yes" } else { "no" }.to_owned(),
        Value::Array(a) if a.is_empty() => "-".to_owned(),
        Value::Array(a) if a.iter().all(Value::is_string) => a.iter().map(text).collect::<Vec<_>>().join(" "),
        Value::Object(o) if o.is_empty() => "-".to_owned(),
        other => other.to_string(),
    }
}

/// A number of bytes with a unit.
pub fn bytes(v: &Value) -> String {
    v.as_u64().map_or_else(|| text(v), |n| Bytes(n).to_string())
}

/// A time without its fraction of a second.
pub fn time(v: &Value) -> String {
    let s = text(v);
    match s.split_once('.') {
        Some((head, tail)) if tail.ends_with('Z') => format!("{}Z", head.replace('T', " ")),
        _ => s,
    }
}

/// The rows of a list: `data[key]`, or the data itself.
pub fn rows(data: &Value, key: &str) -> Vec<Value> {
    data.get(key).unwrap_or(data).as_array().cloned().unwrap_or_default()
}

/// A table with headings.
pub fn table(rows: &[Value], columns: &[Column]) -> String {
    let mut lines: Vec<Vec<String>> = vec![columns.iter().map(|(h, _)| (*h).to_owned()).collect()];
    lines.extend(rows.iter().map(|r| columns.iter().map(|(_, f)| plain(&f(r))).collect()));
    let width = |i: usize| lines.iter().filter_map(|l| l.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut out = String::new();
    for l in &lines {
        let padded: Vec<String> = l.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}")).collect();
        out.push_str(padded.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// Names of fields that count bytes, in whatever object.
const BYTES: [&str; 12] =
    ["size", "referenced", "exclusive", "shared", "total", "used", "free", "reserve", "beneath_free", "offered", "reserved", "reserve_ahead"];

/// The fields of an object, one line each. Fields of inner objects are indented.
pub fn fields(data: &Value) -> String {
    fn write(data: &Value, indent: usize, out: &mut String) {
        let Some(object) = data.as_object() else { return };
        let width = object.keys().map(|k| k.chars().count()).max().unwrap_or(0);
        for (key, value) in object {
            let shown = match value {
                Value::Object(o) if !o.is_empty() => {
                    out.push_str(&format!("{:indent$}{}\n", "", plain(key)));
                    write(value, indent + 2, out);
                    continue;
                }
                v if key.ends_with("_at") || key == "since" => time(v),
                // Next to a limit it is a count, not bytes.
                v if key == "used" && object.contains_key("limit") => text(v),
                v if BYTES.contains(&key.as_str()) => bytes(v),
                v => text(v),
            };
            out.push_str(format!("{:indent$}{:<width$}  {}", "", plain(key), plain(&shown)).trim_end());
            out.push('\n');
        }
    }
    let mut out = String::new();
    write(data, 0, &mut out);
    out
}
