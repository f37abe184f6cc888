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
