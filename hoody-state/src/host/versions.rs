//! The versions of a file over all snapshots of a container.

use super::Host;
use crate::catalog::{containers, ms, snapshots};
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::{FileVersion, FileVersions};
use crate::name::SnapshotName;
use crate::services::files::version;
use crate::tree::{Kind, Last, Node, TreePath};
use std::collections::HashMap;

/// The most versions in one answer.
const MOST_VERSIONS: usize = 1000;

/// Where a page ended: the newest state that has its last version, and that version.
struct Cursor {
    newest_ms: i64,
    version: String,
}

impl Cursor {
    fn read(text: &str) -> Result<Self> {
        let parts = text.split_once('_').and_then(|(ms, version)| Some(Cursor { newest_ms: ms.parse().ok()?, version: version.to_owned() }));
        parts.ok_or_else(|| Error::new(Code::InvalidPage, "cursor: it is none of this list"))
    }
}

impl Host {
    /// The distinct versions of the file at a path, newest first, in all snapshots and the present state. Links are followed in each of them. A directory is no
    /// version.
    ///
    /// Nothing is read: two files are one version if they have the same inode, time of change and size. Cost: about eight system calls for each snapshot.
    ///
    /// # Errors
    /// `container_not_found`, `file_not_found` (in no state), `not_in_volume`, `files_unsupported`, `invalid_page`.
    pub fn file_versions(&self, id: &ContainerId, path: &TreePath, cursor: Option<&str>, limit: usize) -> Result<FileVersions> {
        if !(1..=MOST_VERSIONS).contains(&limit) {
            return Err(Error::new(Code::InvalidPage, format!("limit {limit} is out of range: it must be 1 to {MOST_VERSIONS}")));
        }
        let cursor = cursor.map(Cursor::read).transpose()?;
        let (row, all) = self.0.catalog.read(|c| Ok((containers::get(c, id)?, snapshots::all(c, id)?)))?;
        let mut found = Found::default();
        let (mut searched, mut without) = (0, 0);
        let states = std::iter::once((i64::MAX, None)).chain(all.iter().map(|s| (ms(s.snapshot.created_at), Some(&s.snapshot.name))));
        for (at, snapshot) in states {
            let node = match self.files().place(&row, snapshot, path).and_then(|place| place.find(Last::Follow)) {
                Ok(node) => Some(node).filter(|n| n.meta.kind != Kind::Directory),
                Err(e) if matches!(e.code(), Code::FileNotFound | Code::NotADirectory) => None,
                // It was deleted meanwhile, or there is nothing live: that state has no versions any more.
                Err(e) if matches!(e.code(), Code::SnapshotNotFound | Code::OperationStateConflict) => continue,
                Err(e) => return Err(e),
            };
            searched += u64::from(snapshot.is_some());
            match node {
                Some(node) => found.add(&node, at, snapshot, || self.files().entry(path, &node))?,
                None => without += u64::from(snapshot.is_some()),
            }
        }
        if found.versions.is_empty() {
            return Err(Error::new(Code::FileNotFound, format!("no state of container {id} has a file at {}", path.shown())));
        }
        let (versions, next_cursor) = found.page(cursor.as_ref(), limit);
        let (path, path_encoded) = (path.shown(), path.encoded());
        Ok(FileVersions { path, path_encoded, snapshots_searched: searched, snapshots_without: without, versions, next_cursor })
    }
}

#[derive(Default)]
struct Found {
    /// Newest first, each with the time of the newest state that has it.
    versions: Vec<(i64, FileVersion)>,
    by_version: HashMap<String, usize>,
}

impl Found {
    /// States come newest first.
    fn add(&mut self, node: &Node, at: i64, snapshot: Option<&SnapshotName>, entry: impl FnOnce() -> Result<crate::model::FileEntry>) -> Result<()> {
        let version = version(&node.meta);
        let index = match self.by_version.get(&version) {
            Some(index) => *index,
            None => {
                self.versions.push((at, FileVersion { version: version.clone(), snapshots: Vec::new(), live: false, entry: entry()? }));
                self.by_version.insert(version, self.versions.len() - 1);
                self.versions.len() - 1
            }
        };
        let (_, found) = &mut self.versions[index];
        match snapshot {
            Some(name) => found.snapshots.push(name.clone()),
            None => found.live = true,
        }
        Ok(())
    }

    fn page(self, cursor: Option<&Cursor>, limit: usize) -> (Vec<FileVersion>, Option<String>) {
        let from = cursor.map_or(0, |c| {
            let last = self.by_version.get(&c.version).map(|i| i + 1);
            // The version has gone with its snapshots: what is older than it comes next.
            last.unwrap_or_else(|| self.versions.partition_point(|(at, _)| *at >= c.newest_ms))
        });
        let more = self.versions.len() > from + limit;
        let page: Vec<_> = self.versions.into_iter().skip(from).take(limit).collect();
        let next = page.last().filter(|_| more).map(|(at, v)| format!("{at}_{}", v.version));
        (page.into_iter().map(|(_, v)| v).collect(), next)
    }
}
