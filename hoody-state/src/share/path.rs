//! What may be shared: the rules of a source path. Pure.

use super::RECEIVED;
use crate::error::{Code, Error, Result};
use crate::model::mount::SNAPSHOTS;

/// Where the kernel's own trees and the host's are: never shared.
const REFUSED: [&str; 6] = ["/proc", "/sys", "/dev", "/boot", "/run", "/var/run"];

/// Which part of a container a path is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Its own volume.
    Root(String),
    /// Its databases; the path is below them.
    Databases(String),
}

/// Reads a source path: absolute, of `A-Za-z0-9/-_.`, at most 4096 bytes; `//`, `/.` and a `/` at the end are taken away.
///
/// # Errors
/// `invalid_path`: with `..`, of a kernel's tree, of `/ramdisk` (memory is not shared), or below `/hoody/shares` (what was received is not passed on),
/// or below `/hoody/snapshots` (a snapshot may be deleted at any time: what is shared is part of the present state).
pub fn normalise(path: &str) -> Result<String> {
    let refuse = |why: &str| Error::new(Code::InvalidPath, format!("{:?} cannot be shared: {why}", path.chars().take(200).collect::<String>()));
    if !path.starts_with('/') || path.len() > 4096 {
        return Err(refuse("it must be an absolute path of at most 4096 bytes"));
    }
    if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.".contains(&b)) {
        return Err(refuse("only A-Z a-z 0-9 / - _ . may be in it; rename the directory, or share the one above"));
    }
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.contains(&"..") {
        return Err(refuse("it must not hold .."));
    }
    if parts.iter().any(|p| p.len() > 255) {
        return Err(refuse("no name in it may be longer than 255 bytes"));
    }
    let clean = format!("/{}", parts.join("/"));
    if let Some(r) = REFUSED.iter().find(|r| below(&clean, r)) {
        return Err(refuse(&format!("{r} is not the container's own")));
    }
    if below(&clean, "/ramdisk") {
        return Err(refuse("a RAM disk is its container's alone; share a directory of /hoody/storage"));
    }
    if below(&clean, RECEIVED) {
        return Err(refuse("what was received is not passed on; its owner can share it with others"));
    }
    if below(&clean, SNAPSHOTS) {
        return Err(refuse("snapshots are not shared; restore what others need from one, and share that"));
    }
    Ok(clean)
}

/// The part of a container that a normalised path is of.
#[must_use]
pub fn part(clean: &str) -> Part {
    match clean.strip_prefix("/hoody/databases") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Part::Databases(rest.trim_start_matches('/').to_owned()),
        _ => Part::Root(clean.trim_start_matches('/').to_owned()),
    }
}

/// The last part of a path; nothing for `/`.
#[must_use]
pub fn base(clean: &str) -> &str {
    clean.rsplit('/').next().unwrap_or_default()
}

fn below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn good_paths_get_one_form() {
        for (given, clean) in
            [("/a", "/a"), ("//a/./b/", "/a/b"), ("/", "/"), ("/hoody/storage/x-1_.y", "/hoody/storage/x-1_.y"), ("/procx", "/procx"), ("/a/proc", "/a/proc")]
        {
            assert_eq!(normalise(given).unwrap(), clean);
        }
    }

    #[test]
    fn what_is_not_the_containers_own_is_refused() {
        let long = format!("/{}", "a".repeat(256));
        let longer = "/a".repeat(2049);
        for bad in [
            "",
            "a",
            "/a/../b",
            "/..",
            "/a\0",
            "/a b",
            "/ä",
            "/proc",
            "/proc/1",
            "//sys/",
            "/dev/shm",
            "/boot",
            "/run/x",
            "/var/run",
            "/./var//run/x",
            "/ramdisk",
            "/ramdisk/x",
            "/hoody/shares",
            "/hoody/shares/x",
            "/hoody/snapshots",
            "/hoody/snapshots/s/etc",
            &long,
            &longer,
        ] {
            assert_eq!(normalise(bad).unwrap_err().code(), Code::InvalidPath, "{bad:?}");
        }
    }

    #[test]
    fn databases_are_a_part_of_their_own() {
        assert_eq!(part("/hoody/databases"), Part::Databases(String::new()));
        assert_eq!(part("/hoody/databases/a/b"), Part::Databases("a/b".into()));
        assert_eq!(part("/hoody/databasesx"), Part::Root("hoody/databasesx".into()));
        assert_eq!(part("/"), Part::Root(String::new()));
        assert_eq!((base("/a/b"), base("/")), ("b", ""));
    }
}
