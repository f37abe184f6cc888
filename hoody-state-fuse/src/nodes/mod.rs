//! The kinds of files, one module each: read together they are the list of what SQLite touches, and of what this file system does about it.

pub mod database;
pub mod directory;
pub mod journal;
pub mod plain;
pub mod shm;
pub mod special;
pub mod symlink;
pub mod wal;

use std::time::Duration;

/// What a file is to this file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum NodeKind {
    /// See [`directory`].
    Directory,
    /// See [`plain`].
    Plain,
    /// See [`database`].
    Database,
    /// See [`shm`].
    Shm,
    /// See [`wal`].
    Wal,
    /// See [`journal`].
    Journal,
    /// See [`symlink`].
    Symlink,
    /// See [`special`].
    Special,
}

/// How a kind is treated.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// How long the kernel may rely on a name.
    pub entry_ttl: Duration,
    /// How long the kernel may rely on attributes.
    pub attr_ttl: Duration,
    /// The kernel need not tell of a close before the last one.
    pub no_flush: bool,
}

/// Long enough to be for ever, for what only changes through this mount.
pub const LONG: Duration = Duration::from_secs(3600);
/// Always ask.
pub const NEVER: Duration = Duration::ZERO;

impl NodeKind {
    const ALL: [NodeKind; 8] =
        [NodeKind::Directory, NodeKind::Plain, NodeKind::Database, NodeKind::Shm, NodeKind::Wal, NodeKind::Journal, NodeKind::Symlink, NodeKind::Special];

    /// The kind that `kind as u8` stands for.
    pub(crate) fn from_byte(byte: u8) -> Self {
        Self::ALL.into_iter().find(|k| *k as u8 == byte).unwrap_or(NodeKind::Plain)
    }

    /// How this kind is treated.
    #[must_use]
    pub fn policy(self) -> Policy {
        match self {
            NodeKind::Directory => directory::POLICY,
            NodeKind::Plain => plain::POLICY,
            NodeKind::Database => database::POLICY,
            NodeKind::Shm => shm::POLICY,
            NodeKind::Wal => wal::POLICY,
            NodeKind::Journal => journal::POLICY,
            NodeKind::Symlink => symlink::POLICY,
            NodeKind::Special => special::POLICY,
        }
    }
}
