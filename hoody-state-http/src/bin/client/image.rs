//! `image …`

use crate::args::{Image, Wait};
use crate::confirm::confirm;
use crate::context::Context;
use crate::failure::{Failure, Outcome, exit};
use crate::http::segment;
use crate::output::{Column, bytes, fields, table, text, time};
use crate::{resolve, wait};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;

const COLUMNS: [Column; 6] = [
    ("NAME", |i| text(i.get("name").unwrap_or(&i["alias"]))),
    ("SIZE", |i| bytes(&i["size"])),
    ("FILES", |i| text(&i["files"])),
    ("DEFAULT", |i| text(&i["is_default"])),
    ("SOURCE", |i| text(&i["source"])),
    ("CREATED", |i| time(&i["created_at"])),
];

/// Runs the command.
pub fn run(cx: &mut Context<'_>, command: Image) -> Outcome {
    match command {
        Image::List => {
            let rows = Value::Array(resolve::all_rows(cx, "/images", "images")?);
            cx.print(&rows, |d| table(d.as_array().map_or(&[], Vec::as_slice), &COLUMNS))
        }
        Image::Show { name } => {
            let data = cx.client.get(&format!("/images/{}", segment(&name)))?;
            cx.print(&data, fields)
        }
        Image::Import { name, file, wait } => import(cx, &name, &file, &wait),
        Image::FromSnapshot { name, one, wait } => {
            let body = json!({ "container_id": resolve::container(cx, &one.container)?, "snapshot": one.snapshot });
            let data = cx.client.post(&format!("/images/{}/from-snapshot", segment(&name)), &body)?;
            done(cx, &name, &data, &wait)
        }
        Image::Delete { name } => {
            confirm(cx, &format!("delete the image {name}"))?;
            let data = cx.client.delete(&format!("/images/{}", segment(&name)))?;
            cx.say(&data, format!("deleted {name}"))
        }
    }
}

fn import(cx: &mut Context<'_>, name: &str, file: &Path, wait: &Wait) -> Outcome {
    let path = format!("/images/{}", segment(name));
    let (mut reader, length): (Box<dyn Read>, Option<u64>) = if file == Path::new("-") {
        (Box::new(std::io::stdin().lock()), None)
    } else {
        let unreadable = |e| Failure::new(exit::USAGE, format!("cannot read {}: {e}", file.display()));
        let f = std::fs::File::open(file).map_err(unreadable)?;
        let meta = f.metadata().map_err(unreadable)?;
        if meta.is_dir() {
            return Err(Failure::new(
                exit::USAGE,
                format!("{} is a directory: pack it with `tar -C {0} -c . | hoody-state image import {name} -`", file.display()),
            ));
        }
        (Box::new(f), meta.is_file().then_some(meta.len()))
    };
    // indicatif shows nothing if stderr is not a terminal.
    let bar = match length {
        Some(n) => ProgressBar::new(n).with_style(style("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}")),
        None => ProgressBar::new_spinner().with_style(style("{spinner} {bytes} {bytes_per_sec}")),
    };
    let sent = cx.client.upload(&path, &mut bar.wrap_read(&mut reader), length);
    bar.finish_and_clear();
    done(cx, name, &sent?, wait)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn done(cx: &mut Context<'_>, name: &str, data: &Value, wait: &Wait) -> Outcome {
    wait::operation(cx, data, wait)?;
    if data.get("name").is_some() { cx.print(data, fields) } else { cx.say(data, format!("created the image {name}")) }
}
