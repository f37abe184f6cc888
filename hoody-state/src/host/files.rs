//! Reading files of a container, in a snapshot or as they are now. Nothing is locked: a change never waits for a reader.

use super::{Caller, Host};
use crate::catalog::containers::ContainerRow;
use crate::catalog::{containers, snapshots};
use crate::error::{Code, Error, IoContext, Result};
use crate::id::ContainerId;
use crate::model::{DirectoryListing, DirectoryPage, FileCondition, FileDeleted, FileEntry, FileWritten, LIVE, WriteOptions};
use crate::name::SnapshotName;
use crate::ops::{file_delete, file_directory, file_write};
use crate::services::files::{Files, Place, timestamp};
use crate::tree::{Kind, Last, Node, TreePath, View, percent_encoded};
use jiff::Timestamp;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

/// The most entries of a directory in one answer.
const MOST_ENTRIES: usize = 10_000;

/// What stands at a path.
#[derive(Debug)]
pub enum PathContent {
    /// A regular file, open.
    File(OpenFile),
    /// A page of a directory.
    Directory(DirectoryListing),
}

/// A file that is open for reading. It can be read to its end whatever becomes of its name, its snapshot or its container.
#[derive(Debug)]
pub struct OpenFile {
    /// As it was when it was opened.
    pub entry: FileEntry,
    /// When its data was last changed.
    pub modified: Option<Timestamp>,
    /// The snapshot; `None`: the present state, where it may be changed while it is read.
    pub snapshot: Option<SnapshotName>,
    file: File,
}

impl OpenFile {
    /// Up to `most` bytes from `offset` on; fewer, or none, at the end. Holes are read as zeros.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn read_at(&self, offset: u64, most: usize) -> Result<Vec<u8>> {
        let mut data = vec![0; most];
        let mut filled = 0;
        while filled < most {
            match self.file.read_at(&mut data[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).io(|| "read a file of a container"),
            }
        }
        data.truncate(filled);
        Ok(data)
    }
}

impl Host {
    pub(super) fn files(&self) -> Files<'_> {
        Files { store: &*self.0.store, databases: &self.0.databases, view: View { id_base: self.0.id_base } }
    }

    /// The container, and the snapshot that `at` names by name or alias; none for `live`, which always means the present state.
    pub(super) fn state_of(&self, id: &ContainerId, at: &str) -> Result<(ContainerRow, Option<SnapshotName>)> {
        self.0.catalog.read(|c| {
            let row = containers::get(c, id)?;
            let snapshot = if at == LIVE { None } else { Some(snapshots::get(c, id, at)?.snapshot.name) };
            Ok((row, snapshot))
        })
    }

    /// What stands at a path of a snapshot, or of the present state if `at` is `live`. Links are followed inside the container, to the end. `page` is for
    /// directories.
    ///
    /// # Errors
    /// `container_not_found`, `snapshot_not_found`, `file_not_found`, `not_a_directory`; `not_a_regular_file` for FIFOs, sockets and devices, which are never
    /// opened; `not_in_volume` for what is mounted there; `files_unsupported`; `invalid_page`.
    pub fn open_path(&self, id: &ContainerId, at: &str, path: &TreePath, page: &DirectoryPage) -> Result<PathContent> {
        let (row, snapshot) = self.state_of(id, at)?;
        let place = self.files().place(&row, snapshot.as_ref(), path)?;
        let node = place.find(Last::Follow)?;
        if node.meta.kind == Kind::Directory {
            return self.list(&place, path, snapshot, &node, page).map(PathContent::Directory);
        }
        let file = node.open_file(path)?;
        let entry = self.files().entry(path, &node)?;
        Ok(PathContent::File(OpenFile { entry, modified: timestamp(node.meta.modified), snapshot, file }))
    }

    /// What has a path in a snapshot, or in the present state if `at` is `live`. A link in the last place is shown itself.
    ///
    /// # Errors
    /// As [`Host::open_path`], but nothing is opened, so FIFOs, sockets and devices are shown too.
    pub fn stat_path(&self, id: &ContainerId, at: &str, path: &TreePath) -> Result<FileEntry> {
        let (row, snapshot) = self.state_of(id, at)?;
        let node = self.files().place(&row, snapshot.as_ref(), path)?.find(Last::Keep)?;
        self.files().entry(path, &node)
    }

    /// Writes a file of the present state. It is replaced in one step when `body` has come to its end and everything is on the disk; owner, mode and attributes
    /// stay those of the file that was there. A link in the last place is refused. `body` may come slowly: nothing is locked until it has ended.
    ///
    /// # Errors
    /// `container_not_found`, `file_not_found` (its directory, without `parents`), `not_a_directory`, `is_a_directory`, `not_a_regular_file`, `database_file`,
    /// `not_in_volume`, `precondition_failed`, `pool_full`, `disk_limit_reached`, `operation_state_conflict`, `operation_in_progress`; `validation_error` when
    /// `body` fails. Nothing is kept of the file then.
    pub fn write_file(&self, caller: &Caller, id: &ContainerId, path: &TreePath, options: &WriteOptions, body: &mut dyn Read) -> Result<FileWritten> {
        file_write::write(&self.0, caller, id, path, options, body)
    }

    /// Makes a directory of the present state, for the container's root, with the mode 0755; of `options`, `parents` and `condition` count. One that is there stays as it
    /// is. Durable when it returns.
    ///
    /// # Errors
    /// As [`Host::write_file`]; `not_a_directory` if something else has the path.
    pub fn make_directory(&self, caller: &Caller, id: &ContainerId, path: &TreePath, options: &WriteOptions) -> Result<FileWritten> {
        file_directory::make(&self.0, caller, id, path, options)
    }

    /// Deletes a file of the present state, or with `recursive` a directory with everything in it. It disappears in one step. A link is deleted itself.
    ///
    /// # Errors
    /// As [`Host::write_file`]; `is_a_directory` without `recursive`.
    pub fn delete_file(&self, caller: &Caller, id: &ContainerId, path: &TreePath, recursive: bool, condition: &FileCondition) -> Result<FileDeleted> {
        file_delete::delete(&self.0, caller, id, path, recursive, condition)
    }

    fn list(&self, place: &Place, path: &TreePath, snapshot: Option<SnapshotName>, node: &Node, page: &DirectoryPage) -> Result<DirectoryListing> {
        if !(1..=MOST_ENTRIES).contains(&page.limit) {
            return Err(Error::new(Code::InvalidPage, format!("limit {} is out of range: it must be 1 to {MOST_ENTRIES}", page.limit)));
        }
        let after =
            page.cursor.as_deref().map(|c| TreePath::decode(c).map_err(|_| Error::new(Code::InvalidPage, "cursor: it is none of this list"))).transpose()?;
        let directory = node.open_directory(&place.path)?;
        let names = directory.page(after.as_ref().map(TreePath::as_bytes), page.limit)?;
        let mut entries = Vec::with_capacity(names.names.len());
        for name in &names.names {
            if let Some(child) = directory.child(name)? {
                entries.push(self.files().entry(&path.join(name), &child)?);
            }
        }
        let last = names.names.last().filter(|_| names.more);
        Ok(DirectoryListing { path: path.shown(), path_encoded: path.encoded(), snapshot, entries, next_cursor: last.map(|name| percent_encoded(name)) })
    }
}
