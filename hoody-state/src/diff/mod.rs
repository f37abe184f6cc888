//! What differs between two trees: values and decisions, without a file system.
//!
//! **The old tree** is the first of the two that are compared, **the new tree** the second. A [`Record`] is about one *name*.
//!
//! **Which tree a path is in.** `path` is a path in the new tree; of [`Kind::Deleted`], in the old tree. `from` is a path in the old tree. `link_of` is in the tree
//! that `path` is in. Paths are relative to the volume's root, without a `/` at either end; the root itself is empty.
//!
//! **A name** is the object's parent directory (as an object, not as a path) and the name in it. So what is in a renamed directory keeps its names, and has no
//! records unless it changed itself.
//!
//! **Applying** records to a copy of the old tree gives the new tree:
//! 1. Every `Deleted`, and every record with `replaces`, removes what the old tree has at `path`. Every `Renamed` takes what the old tree has at `from` out of
//!    the tree and keeps it. Deeper paths come first, so each directory that is removed is empty by then.
//! 2. In the order of the records: a `Renamed` object is put at `path`; `Added`, `TypeChanged` and `Modified` with `replaces` create an object at `path`.
//! 3. The same kinds with `link_of` are instead made a hard link to that path of the new tree, after all others.
//! 4. `Modified`, and any record with `bytes` or `fields`, sets content and metadata from the new tree.
//!
//! **Order**: by the bytes of `path`. A path may occur twice: first `Deleted` (the old tree's object), then as what the new tree has there. That happens if a
//! directory that was moved brings an object to a path at which another was deleted. In all other cases the two are one record with `replaces`.

pub mod extents;
pub mod flat;
pub mod merge;
pub mod names;
pub mod object;
pub mod options;
pub mod sorter;
#[cfg(feature = "host")]
pub mod wire;

pub use crate::model::FileType;

/// An object of one pool: the same in every snapshot and clone that shares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inode {
    /// The inode number, unique within one volume at one time.
    pub ino: u64,
    /// The transaction in which it was made: tells one that was made later under the same number.
    pub generation: u64,
}

/// Metadata that differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// Permission bits, set-id bits, sticky bit.
    Mode,
    /// The owner.
    Uid,
    /// The group.
    Gid,
    /// The time of the last change of content. Not in the fields of `Modified`, where it goes without saying, and of directories only if times were asked for.
    Mtime,
    /// The time of the last access; only if times were asked for.
    Atime,
    /// The flags that `chattr` sets.
    Flags,
    /// The numbers of a device.
    Device,
    /// The access control list.
    Acl,
    /// The access control list that what is made in the directory gets.
    DefaultAcl,
    /// Another extended attribute: its whole name, such as `user.comment`.
    Xattr(Vec<u8>),
}

/// What happened to a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Only the old tree has it.
    Deleted,
    /// Only the new tree has it.
    Added,
    /// Content or link target differs, or it is another object of the same type (then `replaces` is set).
    Modified,
    /// The object had the name `from` in the old tree. Content and metadata may differ too: see `bytes` and `fields`.
    Renamed {
        /// A path of the old tree.
        from: Vec<u8>,
    },
    /// Only `fields` differ.
    Metadata,
    /// An object of another type has this name.
    TypeChanged {
        /// What it was.
        from: FileType,
        /// What it is.
        to: FileType,
    },
}

/// One name that differs. See the [module](self) for what the paths mean and how records are applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// A path of the new tree; of `Deleted`, of the old tree.
    pub path: Vec<u8>,
    /// What happened.
    pub kind: Kind,
    /// Of the object at `path`.
    pub file_type: FileType,
    /// The object at `path`.
    pub inode: Inode,
    /// Bytes of the new file in extents that the old one does not have at that place. Counted at one name only.
    pub bytes: u64,
    /// Whether content differs. It may with 0 bytes: a file that was cut, or a hole that was made.
    pub content: bool,
    /// Metadata that differ.
    pub fields: Vec<Field>,
    /// Another name of the same object. Of several names one is without: the primary one.
    pub link_of: Option<Vec<u8>>,
    /// What had the name in the old tree, if that is another object, which is not renamed to elsewhere.
    pub replaces: Option<FileType>,
}
