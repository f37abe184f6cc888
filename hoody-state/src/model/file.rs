//! Files of a container, as the wire shows them.

use crate::name::SnapshotName;
use serde::{Deserialize, Serialize};

/// The word for the present state of a container, where the name of a snapshot could stand.
pub const LIVE: &str = "live";

/// A name in a container, and what has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileEntry {
    /// Its name in its directory; bytes that are not UTF-8 are replaced by U+FFFD. Of the root: `/`.
    pub name: String,
    /// The name percent-encoded, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_encoded: Option<String>,
    /// `file`, `directory`, `symlink`, `fifo`, `socket`, `char_device` or `block_device`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes of data; of a symbolic link the length of its target.
    pub size: u64,
    /// Bytes on the disk, without holes; what is shared with snapshots counts too.
    pub allocated: u64,
    /// Permissions in octal, with set-user-id, set-group-id and sticky bit: `0644`.
    pub mode: String,
    /// The owner, as the container sees it; 65534 for one that it does not have.
    pub uid: u32,
    /// The group, as the container sees it.
    pub gid: u32,
    /// When its data was last changed, in RFC 3339 with nanoseconds; null for a time that RFC 3339 does not have.
    pub mtime: Option<String>,
    /// How many names it has.
    pub links: u32,
    /// Where a symbolic link leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The target percent-encoded, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_encoded: Option<String>,
    /// Major and minor number of a device: `1:3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Something is mounted there in the running container, which no volume and no snapshot has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mounted: bool,
    /// The same for as long as neither its data nor its attributes change, in all snapshots of a container: the `ETag` of a file.
    pub version: String,
}

/// A page of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DirectoryListing {
    /// The directory, as it was asked for.
    pub path: String,
    /// The path percent-encoded, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_encoded: Option<String>,
    /// The snapshot; null: the present state.
    pub snapshot: Option<SnapshotName>,
    /// Sorted by the bytes of their names.
    pub entries: Vec<FileEntry>,
    /// For the next page, as `cursor`; null: this was the last.
    pub next_cursor: Option<String>,
}

/// Which part of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryPage {
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// 1–10,000.
    pub limit: usize,
}

/// One version of a file, and where it is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileVersion {
    /// What tells it from the others: the same for as long as neither data nor attributes change.
    pub version: String,
    /// The snapshots that have it, newest first.
    pub snapshots: Vec<SnapshotName>,
    /// Whether the present state has it too.
    pub live: bool,
    /// As in a directory.
    pub entry: FileEntry,
}

/// The versions of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileVersions {
    /// The path.
    pub path: String,
    /// The path percent-encoded, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_encoded: Option<String>,
    /// How many snapshots were looked at, all pages together.
    pub snapshots_searched: u64,
    /// How many of them have nothing at this path.
    pub snapshots_without: u64,
    /// Newest first, by the newest state that has them.
    pub versions: Vec<FileVersion>,
    /// For the next page, as `cursor`; null: this was the last.
    pub next_cursor: Option<String>,
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileWritten {
    /// Its path.
    pub path: String,
    /// The path percent-encoded, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_encoded: Option<String>,
    /// Whether there was nothing at this path before.
    pub created: bool,
    /// As it is now.
    pub entry: FileEntry,
}

/// What was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileDeleted {
    /// Its path.
    pub path: String,
    /// The path percent-encoded, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_encoded: Option<String>,
    /// What it was.
    pub entry: FileEntry,
}

/// Which file a change of a file is meant for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileCondition {
    /// Only if the file is one of these versions, or, for `*`, if there is one.
    pub if_match: Option<Vec<String>>,
    /// Only if there is nothing at the path.
    pub if_none: bool,
}

/// How a file is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Its permissions, twelve bits; `None`: those of the file that is replaced, else 0644.
    pub mode: Option<u32>,
    /// Its owner as the container sees it; `None`: that of the file that is replaced, else root.
    pub uid: Option<u32>,
    /// The same for its group.
    pub gid: Option<u32>,
    /// Make the directories that are missing above it, for the container's root, with the mode 0755.
    pub parents: bool,
    /// Which file it replaces.
    pub condition: FileCondition,
    /// How many bytes will come, if that is known: what does not fit is refused before.
    pub length: Option<u64>,
}
