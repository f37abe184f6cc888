//! Which files of a tree are databases.

use super::restore::{is_database, with};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How deep a tree of databases is looked at.
pub(super) const DEPTH: usize = 64;

/// The names in a directory, in order; none when it does not exist.
pub(super) fn names(dir: &Path) -> io::Result<BTreeSet<OsString>> {
    match fs::read_dir(dir) {
        Ok(d) => d.map(|e| e.map(|e| e.file_name())).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(e) => Err(e),
    }
}

/// The databases below `root` and what each takes, its log included.
pub(super) fn list(root: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut todo = vec![(root.to_owned(), 0)];
    while let Some((dir, depth)) = todo.pop() {
        for name in names(&dir)? {
            let path = dir.join(name);
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() && depth < DEPTH {
                todo.push((path, depth + 1));
            } else if meta.is_file() && is_database(&path) {
                let more: u64 = ["-wal", "-journal"].iter().filter_map(|s| fs::symlink_metadata(with(&path, s)).ok()).map(|m| m.len()).sum();
                found.push((path, meta.len() + more));
            }
        }
    }
    found.sort();
    Ok(found)
}
