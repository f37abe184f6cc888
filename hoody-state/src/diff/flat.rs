//! The difference of two trees that are flat maps of paths to bytes. Pure.

use super::options::{Options, Sink};
use super::{FileType, Inode, Kind, Record};
use crate::error::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Files by path, with their bytes.
pub type Files = BTreeMap<Vec<u8>, Arc<Vec<u8>>>;

/// Gives the names in which two trees differ to `sink`, in the order of the paths. How many names were looked at.
///
/// # Errors
/// Those of the sink, and `operation_cancelled`.
pub fn compare(old: &Files, new: &Files, options: &Options<'_>, sink: Sink<'_>) -> Result<u64> {
    let paths: BTreeSet<&Vec<u8>> = old.keys().chain(new.keys()).collect();
    for path in paths.iter().filter(|p| options.wants(p)) {
        options.check()?;
        let (kind, bytes) = match (old.get(*path), new.get(*path)) {
            (Some(a), Some(b)) if a == b => continue,
            (Some(_), Some(b)) => (Kind::Modified, b.len()),
            (Some(a), None) => (Kind::Deleted, a.len()),
            (None, b) => (Kind::Added, b.map_or(0, |b| b.len())),
        };
        let record = Record {
            path: (*path).clone(),
            kind,
            file_type: FileType::File,
            inode: inode(path),
            bytes: bytes as u64,
            content: true,
            fields: Vec::new(),
            link_of: None,
            replaces: None,
        };
        if sink(record)?.is_break() {
            break;
        }
    }
    Ok(paths.len() as u64)
}

/// Files have no numbers here: one for each path tells them apart.
fn inode(path: &[u8]) -> Inode {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    Inode { ino: hasher.finish(), generation: 0 }
}
