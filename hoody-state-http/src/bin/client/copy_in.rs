//! `cp` into a container.

use crate::args::Cp;
use crate::context::Context;
use crate::failure::{Failure, Outcome, exit};
use crate::files::Place;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn unreadable(path: &Path) -> impl Fn(io::Error) -> Failure {
    move |e| Failure::new(exit::USAGE, format!("cannot read {}: {e}", path.display()))
}

pub fn run(cx: &mut Context<'_>, to: &Place, a: &Cp) -> Outcome {
    if to.snapshot.is_some() {
        return Err(Failure::new(exit::USAGE, "a snapshot never changes: copy to CONTAINER:/PATH"));
    }
    let from = Path::new(&a.from);
    let meta = fs::metadata(from).map_err(unreadable(from))?;
    if meta.is_dir() && !a.recursive {
        return Err(Failure::new(exit::USAGE, format!("{} is a directory: copy it with --recursive", from.display())));
    }
    let to = target(cx, from, to)?;
    if meta.is_dir() { directory(cx, from, &to) } else { file(cx, from, &to, a.parents) }
}

/// Into a directory under its own name.
fn target(cx: &Context<'_>, from: &Path, to: &Place) -> Outcome<Place> {
    let into = to.name().is_none() || to.path.ends_with(b"/") || to.stat(cx).is_ok_and(|e| e["type"] == "directory");
    let name = from.canonicalize().map_err(unreadable(from))?.file_name().map(|n| n.as_bytes().to_owned());
    Ok(match name {
        Some(name) if into => to.join(&name),
        _ => to.clone(),
    })
}

fn file(cx: &Context<'_>, from: &Path, to: &Place, parents: bool) -> Outcome {
    let mut file = fs::File::open(from).map_err(unreadable(from))?;
    let meta = file.metadata().map_err(unreadable(from))?;
    let query = format!("?mode={:04o}{}", meta.permissions().mode() & 0o777, if parents { "&parents=true" } else { "" });
    let length = meta.is_file().then_some(meta.len());
    cx.client.upload(&to.url(cx, &query)?, &mut file, length).map(drop)
}

fn directory(cx: &Context<'_>, from: &Path, to: &Place) -> Outcome {
    let mut left_out = 0_u64;
    let mut open: Vec<(PathBuf, Place)> = vec![(from.to_owned(), to.clone())];
    while let Some((dir, to)) = open.pop() {
        let mut empty = true;
        for entry in fs::read_dir(&dir).map_err(unreadable(&dir))? {
            let entry = entry.map_err(unreadable(&dir))?;
            empty = false;
            let (path, to) = (entry.path(), to.join(entry.file_name().as_bytes()));
            let kind = entry.file_type().map_err(unreadable(&path))?;
            if kind.is_dir() {
                open.push((path, to));
            } else if kind.is_file() {
                file(cx, &path, &to, true)?;
            } else {
                left_out += 1;
            }
        }
        // One with files in it comes into being with the first of them.
        if empty {
            cx.client.upload(&to.url(cx, "?directory=true&parents=true")?, &mut io::empty(), Some(0))?;
        }
    }
    if left_out > 0 {
        writeln!(io::stderr(), "({left_out} links and special files were left out: only files are copied into a container)")?;
    }
    Ok(())
}
