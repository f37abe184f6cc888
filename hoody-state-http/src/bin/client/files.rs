//! `cat`, `ls` and `cp`: files of containers.

use crate::args::{Cat, Cp, Ls};
use crate::context::Context;
use crate::failure::{Failure, Outcome, exit};
use crate::http::segment;
use crate::output::{Column, bytes, rows, table, text, time};
use crate::{copy_in, copy_out, resolve};
use hoody_state::tree::percent_encoded;
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;

const COLUMNS: [Column; 5] = [
    ("MODE", |e| format!("{}{}", kind(e), text(&e["mode"]))),
    ("OWNER", |e| format!("{}:{}", text(&e["uid"]), text(&e["gid"]))),
    ("SIZE", |e| bytes(&e["size"])),
    ("MODIFIED", |e| time(&e["mtime"])),
    ("NAME", name),
];

const VERSION_COLUMNS: [Column; 4] = [
    ("MODIFIED", |v| time(&v["entry"]["mtime"])),
    ("SIZE", |v| bytes(&v["entry"]["size"])),
    ("MODE", |v| text(&v["entry"]["mode"])),
    ("IN", |v| {
        let live = if v["live"] == true { "live " } else { "" };
        format!("{live}{}", if v["snapshots"].as_array().is_some_and(|s| !s.is_empty()) { text(&v["snapshots"]) } else { String::new() })
    }),
];

/// The letter that `ls -l` has for a kind.
fn kind(entry: &Value) -> &'static str {
    match entry["type"].as_str().unwrap_or_default() {
        "directory" => "d",
        "symlink" => "l",
        "fifo" => "p",
        "socket" => "s",
        "char_device" => "c",
        "block_device" => "b",
        _ => "-",
    }
}

fn name(entry: &Value) -> String {
    let name = text(entry.get("name_encoded").unwrap_or(&entry["name"]));
    match (entry["target"].as_str(), entry["mounted"] == true) {
        (Some(to), _) => format!("{name} -> {to}"),
        (None, true) => format!("{name} (mounted when it runs)"),
        (None, false) => name,
    }
}

/// A path in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub container: String,
    /// `None`: the present state.
    pub snapshot: Option<String>,
    /// Begins with `/`.
    pub path: Vec<u8>,
}

impl Place {
    /// Reads `CONTAINER:/PATH` or `CONTAINER:SNAPSHOT:/PATH`; `None` for a path on this machine.
    pub fn parse(arg: &OsStr) -> Option<Self> {
        let arg = arg.as_bytes();
        if arg.starts_with(b"/") || arg.starts_with(b".") {
            return None;
        }
        let colon = arg.windows(2).position(|two| two == b":/")?;
        let (before, path) = (std::str::from_utf8(&arg[..colon]).ok()?, arg[colon + 1..].to_vec());
        let (container, snapshot) = match before.split_once(':') {
            Some((container, snapshot)) => (container, Some(snapshot)),
            None => (before, None),
        };
        if container.is_empty() || snapshot == Some("") {
            return None;
        }
        Some(Place { container: container.to_owned(), snapshot: snapshot.map(str::to_owned), path })
    }

    fn required(arg: &OsStr) -> Outcome<Self> {
        let usage = || format!("{arg:?} is not a path in a container: write CONTAINER:/PATH or CONTAINER:SNAPSHOT:/PATH");
        Self::parse(arg).ok_or_else(|| Failure::new(exit::USAGE, usage()))
    }

    /// The URL of its files, with this query.
    pub fn url(&self, cx: &Context<'_>, query: &str) -> Outcome<String> {
        let id = resolve::container(cx, &self.container)?;
        let state = self.snapshot.as_deref().map_or_else(|| "live".to_owned(), segment);
        Ok(format!("/containers/{id}/snapshots/{state}/files{}{query}", percent_encoded(&self.path)))
    }

    /// Its last name; none for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.path.split(|b| *b == b'/').rfind(|n| !n.is_empty())
    }

    /// A name in it, if it is a directory.
    pub fn join(&self, name: &[u8]) -> Self {
        let dir = self.path.strip_suffix(b"/").unwrap_or(&self.path);
        Place { path: [dir, b"/", name].concat(), ..self.clone() }
    }

    /// What it is, as an entry of a directory; a link is followed with `/` at its end.
    pub fn stat(&self, cx: &Context<'_>) -> Outcome<Value> {
        cx.client.get(&self.url(cx, "?stat=true")?)
    }

    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

/// An answer whose bytes are those of a file.
pub fn open(cx: &Context<'_>, place: &Place) -> Outcome<impl Read + use<>> {
    let answer = cx.client.stream(&place.url(cx, "")?, "*/*", None)?;
    // The listing of a directory has no ranges.
    if answer.headers().get("accept-ranges").is_none() {
        return Err(Failure::new(exit::CONFLICT, format!("{} is a directory", place.shown())));
    }
    Ok(answer.into_body().into_reader())
}

/// Copies what is read as it arrives. The connection ends early if the server could not read the file to its end.
pub fn pump(from: &mut dyn Read, to: &mut dyn Write) -> Outcome<u64> {
    let mut buffer = vec![0; 128 << 10];
    let mut all = 0;
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok(all),
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Failure::other(format!("the file came only in part: {e}"))),
        };
        to.write_all(&buffer[..n])?;
        all += n as u64;
    }
}

/// `cat`: prints files, byte by byte as they are.
pub fn cat(cx: &mut Context<'_>, a: &Cat) -> Outcome {
    for file in &a.files {
        let mut from = open(cx, &Place::required(file)?)?;
        pump(&mut from, cx.out)?;
        cx.out.flush()?;
    }
    Ok(())
}

/// `ls`: lists a directory, or shows what something else is.
pub fn ls(cx: &mut Context<'_>, a: &Ls) -> Outcome {
    let place = Place::required(&a.place)?;
    if a.versions {
        let id = resolve::container(cx, &place.container)?;
        let found = all(cx, &format!("/containers/{id}/versions{}?limit=1000", percent_encoded(&place.path)), "versions")?;
        return cx.print(&Value::Array(found), |d| table(d.as_array().map_or(&[], Vec::as_slice), &VERSION_COLUMNS));
    }
    let entry = place.stat(cx)?;
    let follows = entry["type"] == "symlink" && place.path.ends_with(b"/");
    let entries = if entry["type"] == "directory" || follows { all(cx, &place.url(cx, "?limit=10000")?, "entries")? } else { vec![entry] };
    cx.print(&Value::Array(entries), |d| table(d.as_array().map_or(&[], Vec::as_slice), &COLUMNS))
}

/// All pages of a list with a cursor.
fn all(cx: &Context<'_>, url: &str, key: &str) -> Outcome<Vec<Value>> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = cx.client.get(&format!("{url}{cursor}"))?;
        found.extend(rows(&page, key));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", segment(next)),
            None => return Ok(found),
        }
    }
}

/// `cp`: out of a container, or into one.
pub fn cp(cx: &mut Context<'_>, a: &Cp) -> Outcome {
    match (Place::parse(&a.from), Place::parse(&a.to)) {
        (Some(from), None) => copy_out::run(cx, &from, a),
        (None, Some(to)) => copy_in::run(cx, &to, a),
        (Some(_), Some(_)) => Err(Failure::new(exit::USAGE, "both paths are in containers: copy to this machine first, or use `hoody-state checkout`")),
        (None, None) => Err(Failure::new(exit::USAGE, "neither path is in a container: write CONTAINER:/PATH or CONTAINER:SNAPSHOT:/PATH for one of them")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(s: &str) -> Option<(String, Option<String>, String)> {
        Place::parse(OsStr::new(s)).map(|p| (p.container.clone(), p.snapshot.clone(), p.shown()))
    }

    #[test]
    fn a_path_in_a_container_is_told_from_one_here() {
        let is = |c: &str, s: Option<&str>, p: &str| Some((c.to_owned(), s.map(str::to_owned), p.to_owned()));
        assert_eq!(parse("box:/etc/hosts"), is("box", None, "/etc/hosts"));
        assert_eq!(parse("dev/box:before upgrade:/etc"), is("dev/box", Some("before upgrade"), "/etc"));
        assert_eq!(parse("box:a:b:/x:/y"), is("box", Some("a:b"), "/x:/y"));
        for here in ["/a:/b", "./a:/b", "../a:/b", "file", "a:b", ":/x", "box::/x", "-", ""] {
            assert_eq!(parse(here), None, "{here}");
        }
        let odd = Place::parse(OsStr::from_bytes(b"box:/\xff")).unwrap();
        assert_eq!((odd.path.as_slice(), odd.name()), (&b"/\xff"[..], Some(&b"\xff"[..])));
        assert_eq!(Place::parse(OsStr::new("box:/")).unwrap().name(), None);
        assert_eq!(Place::parse(OsStr::new("box:/a/")).unwrap().join(b"b").path, b"/a/b");
    }
}
