//! `cp` out of a container.

use crate::args::Cp;
use crate::context::Context;
use crate::failure::{Failure, Outcome, exit};
use crate::files::{Place, open, pump};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where a copy of `from` goes: into a directory under its own name.
fn target(from: &Place, to: &Path) -> PathBuf {
    match from.name() {
        Some(name) if to.is_dir() => to.join(OsStr::from_bytes(name)),
        _ => to.to_owned(),
    }
}

pub fn run(cx: &mut Context<'_>, from: &Place, a: &Cp) -> Outcome {
    if a.to == "-" && a.recursive {
        return Err(Failure::new(
            exit::USAGE,
            "a directory cannot be written to standard output: name a directory here, or get an archive over HTTP (?archive=tar)",
        ));
    }
    if a.to == "-" && !a.recursive {
        pump(&mut open(cx, from)?, cx.out)?;
        return Ok(cx.out.flush()?);
    }
    let to = target(from, Path::new(&a.to));
    if a.recursive && is_directory(cx, from)? { directory(cx, from, &to) } else { file(cx, from, &to) }
}

/// Whether it is a directory, or a link to one.
fn is_directory(cx: &Context<'_>, from: &Place) -> Outcome<bool> {
    match from.stat(cx)?["type"].as_str() {
        Some("symlink") => Ok(open(cx, from).is_err_and(|e| e.exit == exit::CONFLICT && e.code.is_none())),
        other => Ok(other == Some("directory")),
    }
}

fn unwritable(to: &Path) -> impl Fn(io::Error) -> Failure {
    move |e| Failure::other(format!("cannot write {}: {e}", to.display()))
}

/// The file gets its name when all of it has come.
fn file(cx: &Context<'_>, from: &Place, to: &Path) -> Outcome {
    let mode = from.stat(cx)?["mode"].as_str().and_then(|m| u32::from_str_radix(m, 8).ok()).unwrap_or(0o644) & 0o777;
    let mut reader = open(cx, from)?;
    let name = to.file_name().ok_or_else(|| Failure::new(exit::USAGE, format!("{} is no name of a file", to.display())))?;
    let mut partial = OsStr::new(".").to_owned();
    partial.push(name.to_string_lossy().chars().take(60).collect::<String>());
    partial.push(format!(".part-{}", std::process::id()));
    let partial = to.with_file_name(partial);
    let mut write = || -> Outcome {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&partial).map_err(unwritable(&partial))?;
        pump(&mut reader, &mut Named { file: &mut file, path: to })?;
        // A link has no mode of its own.
        if mode != 0o777 {
            file.set_permissions(fs::Permissions::from_mode(mode)).map_err(unwritable(to))?;
        }
        fs::rename(&partial, to).map_err(unwritable(to))
    };
    let written = write();
    if written.is_err() {
        // It may not have been made.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Says which file cannot be written: the failure of the output is another one.
struct Named<'a> {
    file: &'a mut fs::File,
    path: &'a Path,
}

impl Write for Named<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.file.write(data).map_err(|e| io::Error::other(format!("{}: {e}", self.path.display())))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Unpacks the archive of a directory. What a container wrote never leads out of `to`.
fn directory(cx: &Context<'_>, from: &Place, to: &Path) -> Outcome {
    let answer = cx.client.stream(&from.url(cx, "?archive=tar")?, "*/*", None)?;
    fs::create_dir_all(to).map_err(unwritable(to))?;
    let mut archive = tar::Archive::new(answer.into_body().into_reader());
    let broken = |e: io::Error| Failure::other(format!("the directory was copied only in part: {e}"));
    let mut left_out = 0_u64;
    // A directory without the right to write is made so when everything is in it.
    let mut directories = Vec::new();
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        match entry.header().entry_type() {
            tar::EntryType::Directory => {
                let (path, mode) = (entry.path_bytes().into_owned(), entry.header().mode().map_err(broken)?);
                if path != b"./" {
                    fs::create_dir_all(inside(to, &path)?).map_err(unwritable(to))?;
                    directories.push((path, mode & 0o777));
                }
            }
            tar::EntryType::Regular | tar::EntryType::Symlink | tar::EntryType::Link => {
                if !entry.unpack_in(to).map_err(broken)? {
                    left_out += 1;
                }
            }
            tar::EntryType::XGlobalHeader => {}
            _ => left_out += 1,
        }
    }
    for (path, mode) in directories.iter().rev() {
        fs::set_permissions(inside(to, path)?, fs::Permissions::from_mode(*mode)).map_err(unwritable(to))?;
    }
    if left_out > 0 {
        writeln!(io::stderr(), "({left_out} FIFOs and devices were left out)")?;
    }
    Ok(())
}

/// A path of the archive beneath `to`: plain names only, and no link on the way.
fn inside(to: &Path, path: &[u8]) -> Outcome<PathBuf> {
    let mut at = to.to_owned();
    for name in path.split(|b| *b == b'/').filter(|n| !n.is_empty() && *n != b".") {
        at.push(OsStr::from_bytes(name));
        if name == b".." || at.is_symlink() {
            return Err(Failure::other(format!("the archive leads out of {}: {}", to.display(), String::from_utf8_lossy(path))));
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_is_made_outside() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/tmp", dir.path().join("link")).unwrap();
        assert_eq!(inside(dir.path(), b"./a/b/").unwrap(), dir.path().join("a/b"));
        assert_eq!(inside(dir.path(), b"/etc/").unwrap(), dir.path().join("etc"));
        assert!(inside(dir.path(), b"./../x/").is_err());
        assert!(inside(dir.path(), b"./link/x/").is_err());
    }
}
