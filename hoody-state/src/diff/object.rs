//! An object of a tree as it was read, and what differs between two of them. Pure.

use super::extents::Extent;
use super::{Field, FileType, Inode};

/// Seconds and nanoseconds.
pub type Time = (i64, u32);

/// A name: the parent directory's inode number, and the name in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The directory.
    pub parent: u64,
    /// 1 to 255 bytes.
    pub name: Vec<u8>,
}

/// An entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirEntry {
    /// Its number, which no other entry of the directory has at the same time.
    pub index: u64,
    /// The inode that it leads to; `None`: a subvolume.
    pub ino: Option<u64>,
    /// The length of its name in bytes.
    pub len: usize,
}

/// What a tree says of one inode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Object {
    /// The inode number.
    pub ino: u64,
    /// The transaction in which it was made.
    pub generation: u64,
    /// When it was made.
    pub made: Time,
    /// Bytes; of a directory, twice the sum of the lengths of the names in it.
    pub size: u64,
    /// Type and permissions, as in stat(2).
    pub mode: u32,
    /// The owner, as it is on the disk.
    pub uid: u32,
    /// The group, as it is on the disk.
    pub gid: u32,
    /// The number of its names.
    pub links: u32,
    /// Of a device.
    pub device: u64,
    /// The flags that the file system keeps.
    pub flags: u64,
    /// The last access.
    pub atime: Time,
    /// The last change of content.
    pub mtime: Time,
    /// All its names, sorted.
    pub names: Vec<Name>,
    /// Extended attributes by name, sorted.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where its content is, in order; the first of them if `more_extents`.
    pub extents: Vec<Extent>,
    /// Whether there are more extents than were read.
    pub more_extents: bool,
    /// The entries of a directory in the order of their numbers; none if `more_entries`.
    pub entries: Vec<DirEntry>,
    /// Whether there may be entries that were not read.
    pub more_entries: bool,
}

/// The flags that somebody sets (`chattr`), not those that the file system sets by itself: `NODATASUM` 1, `NODATACOW` 2, `READONLY` 4, `SYNC` 32,
/// `IMMUTABLE` 64, `APPEND` 128, `NODUMP` 256, `NOATIME` 512, `DIRSYNC` 1024, `COMPRESS` 2048. `NOCOMPRESS` 8 is set for data that do not compress.
const SET_BY_SOMEBODY: u64 = 2 | 32 | 64 | 128 | 256 | 512 | 1024 | 2048;

/// Marks of this program on volumes; no container can set them.
const OWN_MARKS: &[u8] = b"trusted.hoody.";

impl Object {
    /// What kind of object it is.
    #[must_use]
    pub fn file_type(&self) -> FileType {
        match self.mode & 0o170_000 {
            0o040_000 => FileType::Directory,
            0o120_000 => FileType::Symlink,
            0o010_000 => FileType::Fifo,
            0o140_000 => FileType::Socket,
            0o020_000 => FileType::CharDevice,
            0o060_000 => FileType::BlockDevice,
            _ => FileType::File,
        }
    }

    /// Its identity.
    #[must_use]
    pub fn inode(&self) -> Inode {
        Inode { ino: self.ino, generation: self.generation }
    }

    /// Whether `other`, read from another tree that shares history with this one's, is the same object. Two volumes may each make an inode of one number in
    /// one transaction: the time to the nanosecond and the type tell them apart.
    #[must_use]
    pub fn is_same(&self, other: &Object) -> bool {
        (self.ino, self.generation, self.made) == (other.ino, other.generation, other.made) && self.file_type() == other.file_type()
    }

    /// Whether it has data of its own to compare.
    #[must_use]
    pub fn has_content(&self) -> bool {
        matches!(self.file_type(), FileType::File | FileType::Symlink)
    }
}

/// Which metadata of `new` differ from those of `old`. Times of directories, and accesses, only with `times`.
#[must_use]
pub fn fields(old: &Object, new: &Object, times: bool) -> Vec<Field> {
    let mut found = Vec::new();
    let mut note = |differs: bool, field: Field| {
        if differs {
            found.push(field);
        }
    };
    note((old.mode ^ new.mode) & 0o7777 != 0, Field::Mode);
    note(old.uid != new.uid, Field::Uid);
    note(old.gid != new.gid, Field::Gid);
    note(old.mtime != new.mtime && (times || new.file_type() != FileType::Directory), Field::Mtime);
    note(times && old.atime != new.atime, Field::Atime);
    note((old.flags ^ new.flags) & SET_BY_SOMEBODY != 0, Field::Flags);
    note(old.device != new.device && matches!(new.file_type(), FileType::CharDevice | FileType::BlockDevice), Field::Device);
    for name in differing(&old.xattrs, &new.xattrs) {
        note(
            !name.starts_with(OWN_MARKS),
            match name {
                b"system.posix_acl_access" => Field::Acl,
                b"system.posix_acl_default" => Field::DefaultAcl,
                other => Field::Xattr(other.to_vec()),
            },
        );
    }
    found
}

/// The names whose values differ or that only one of two sorted lists has.
fn differing<'a>(old: &'a [(Vec<u8>, Vec<u8>)], new: &'a [(Vec<u8>, Vec<u8>)]) -> Vec<&'a [u8]> {
    let (mut i, mut j) = (0, 0);
    let mut found = Vec::new();
    loop {
        let (name, step) = match (old.get(i), new.get(j)) {
            (None, None) => return found,
            (Some(a), Some(b)) if a == b => (None, (1, 1)),
            (Some(a), Some(b)) if a.0 == b.0 => (Some(&a.0), (1, 1)),
            (Some(a), Some(b)) if a.0 < b.0 => (Some(&a.0), (1, 0)),
            (Some(a), None) => (Some(&a.0), (1, 0)),
            (_, Some(b)) => (Some(&b.0), (0, 1)),
        };
        found.extend(name.map(Vec::as_slice));
        (i, j) = (i + step.0, j + step.1);
    }
}
