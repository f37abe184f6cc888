use crate::id::ContainerId;
use crate::name::SnapshotName;
use crate::units::Bytes;
use serde::{Deserialize, Serialize};

/// What happened to a name between two trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DiffKind {
    /// Only the old tree has it.
    Deleted,
    /// Only the new tree has it.
    Added,
    /// The content of the file, or the target of the link, differs.
    Modified,
    /// The same object had another name in the old tree: `from`.
    Renamed,
    /// The content is the same; an owner, the mode, a time or an attribute differs: `fields`.
    Metadata,
    /// An object of another type has this name: `from` and `to` are the types.
    TypeChanged,
}

/// The type of an object in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A UNIX socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A subvolume nested in the volume.
    Subvolume,
}

impl FileType {
    /// Its word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FileType::File => "file",
            FileType::Directory => "directory",
            FileType::Symlink => "symlink",
            FileType::Fifo => "fifo",
            FileType::Socket => "socket",
            FileType::CharDevice => "char_device",
            FileType::BlockDevice => "block_device",
            FileType::Subvolume => "subvolume",
        }
    }
}

/// One name that differs: one line of the answer to a diff. Paths are absolute, as the container sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiffRecord {
    /// What happened.
    pub kind: DiffKind,
    /// The name in the new tree; of `deleted`, in the old tree. Bytes that are not UTF-8 are shown as U+FFFD.
    pub path: String,
    /// The bytes of `path`, percent-encoded, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_encoded: Option<String>,
    /// Of `renamed`: the name in the old tree. Of `type_changed`: the old type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The bytes of `from`, percent-encoded, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_encoded: Option<String>,
    /// Of `type_changed`: the new type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<FileType>,
    /// The type; of `deleted`, what it was.
    #[serde(rename = "type")]
    pub file_type: FileType,
    /// Bytes of the new file in extents that the old file does not have at that place. 0 for a further name of a file that another record counts.
    pub bytes: Bytes,
    /// What else differs: `mode`, `uid`, `gid`, `mtime`, `atime`, `flags`, `acl`, `default_acl`, `xattr:NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// Another name of the same object, in the same tree as `path`. Of several names of one object, one is without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_of: Option<String>,
    /// The bytes of `link_of`, percent-encoded, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_of_encoded: Option<String>,
    /// The type of what had this name in the old tree, if that is another object, and is gone from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<FileType>,
}

/// What to compare a snapshot with, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiffRequest {
    /// The new tree: a snapshot by name or alias, or `live`.
    pub to: String,
    /// The container that the new tree is of; `None`: the same.
    pub to_container: Option<ContainerId>,
    /// Only what is at or beneath this path, or was moved from there. Bytes, relative to the root; empty: everything.
    pub path: Vec<u8>,
    /// Counts by the first directory instead of records.
    pub stat: bool,
    /// Also changes of directories' times, and of times of access.
    pub times: bool,
    /// Read both trees completely if what changed cannot be told otherwise.
    pub walk: bool,
    /// Also how many rows the tables of the databases have that differ.
    pub databases: bool,
    /// At most so many records.
    pub limit: Option<u64>,
    /// `next_cursor` of the answer before.
    pub cursor: Option<String>,
}

/// One of the two trees of a diff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiffSide {
    /// The container.
    pub container_id: ContainerId,
    /// The canonical name of the snapshot; null: the present state.
    pub snapshot: Option<SnapshotName>,
}

/// How many names differ, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiffCounts {
    /// Names that only the new tree has.
    pub added: u64,
    /// Names that only the old tree has.
    pub deleted: u64,
    /// Names with other content.
    pub modified: u64,
    /// Names of objects that had another.
    pub renamed: u64,
    /// Names of which only metadata differ.
    pub metadata: u64,
    /// Names with an object of another type.
    pub type_changed: u64,
    /// Bytes in changed extents.
    pub bytes: Bytes,
}

impl DiffCounts {
    /// Counts one record.
    pub fn add(&mut self, record: &DiffRecord) {
        *match record.kind {
            DiffKind::Added => &mut self.added,
            DiffKind::Deleted => &mut self.deleted,
            DiffKind::Modified => &mut self.modified,
            DiffKind::Renamed => &mut self.renamed,
            DiffKind::Metadata => &mut self.metadata,
            DiffKind::TypeChanged => &mut self.type_changed,
        } += 1;
        if record.kind != DiffKind::Deleted {
            self.bytes = self.bytes + record.bytes;
        }
    }

    /// All names.
    #[must_use]
    pub fn names(&self) -> u64 {
        self.added + self.deleted + self.modified + self.renamed + self.metadata + self.type_changed
    }
}

/// The word `stat`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StatWord {
    /// The only value.
    #[default]
    Stat,
}

/// What differs in one directory: a line of the answer to a diff with `stat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiffStat {
    /// `stat`.
    pub kind: StatWord,
    /// The first name beneath the path that was asked for, with all that is beneath it.
    pub path: String,
    /// The bytes of `path`, percent-encoded, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_encoded: Option<String>,
    /// How many names.
    #[serde(flatten)]
    pub counts: DiffCounts,
}

/// The word `database`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DatabaseWord {
    /// The only value.
    #[default]
    Database,
}

/// A table with another number of rows, or that only one of the trees has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TableRows {
    /// The table.
    pub name: String,
    /// Its rows in the old tree; null: it is not there.
    pub from: Option<u64>,
    /// Its rows in the new tree; null: it is not there.
    pub to: Option<u64>,
}

/// Why the rows of a database were not counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DatabaseError {
    /// The code of the error.
    pub code: String,
    /// For people.
    pub message: String,
}

/// An SQLite database that differs: a line of the answer to a diff with `databases`. Rows are counted, not compared: a table whose rows were only changed
/// counts as equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiffDatabase {
    /// `database`.
    pub kind: DatabaseWord,
    /// Its name in the new tree; if it is deleted, in the old tree.
    pub path: String,
    /// The bytes of `path`, percent-encoded, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_encoded: Option<String>,
    /// The tables with another number of rows, by name. Virtual tables and those of SQLite itself are not counted.
    pub tables: Vec<TableRows>,
    /// How many tables have the same number of rows in both.
    pub equal_tables: u64,
    /// Set if it could not be read in one of the trees: then nothing is known of its tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<DatabaseError>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// How two trees were compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DiffMethod {
    /// Only what changed since the two parted was read.
    Changes,
    /// They share history, but when they parted is not known any more: the inodes of both were read.
    Scan,
    /// They share no history: both were read, and files at one path compared byte by byte.
    Walk,
}

/// Something that a container sees and no diff covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NotCovered {
    /// Where.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// The word `summary`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SummaryWord {
    /// The only value.
    #[default]
    Summary,
}

/// The last line of the answer to a diff. An answer without it is not complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiffSummary {
    /// `summary`.
    pub kind: SummaryWord,
    /// The old tree.
    pub from: DiffSide,
    /// The new tree.
    pub to: DiffSide,
    /// How they were compared.
    pub method: DiffMethod,
    /// How many inodes were looked at.
    pub inodes: u64,
    /// How many records came before this line, or were counted in the lines before it.
    pub records: u64,
    /// Of these records.
    pub counts: DiffCounts,
    /// Where to go on; null: these were the last.
    pub next_cursor: Option<String>,
    /// With `databases`: databases that have no line, because there are more than 100.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub databases_left_out: u64,
    /// What is in no snapshot, so that no change there is shown.
    pub not_covered: Vec<NotCovered>,
}

/// A line of the answer to a diff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum DiffLine {
    /// The last line.
    Summary(DiffSummary),
    /// With `stat`.
    Stat(DiffStat),
    /// With `databases`.
    Database(DiffDatabase),
    /// A name that differs.
    Record(DiffRecord),
}
