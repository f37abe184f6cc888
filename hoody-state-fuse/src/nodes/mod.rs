//! The kinds of files, one module each: what SQLite uses each for, and how this file system treats it.

pub mod database;
pub mod directory;
pub mod journal;
pub mod plain;
pub mod shm;
pub mod special;
pub mod symlink;
pub mod wal;

use std::time::Duration;

/// The kind of a file.
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
    /// Whether the kernel need not report a close before the last one.
    pub no_flush: bool,
}

/// Practically for ever, for what only changes through this mount.
pub const LONG: Duration = Duration::from_secs(3600);
/// Not at all: always ask.
pub const NEVER: Duration = Duration::ZERO;

impl NodeKind {
    const ALL: [NodeKind; 8] =
        [NodeKind::Directory, NodeKind::Plain, NodeKind::Database, NodeKind::Shm, NodeKind::Wal, NodeKind::Journal, NodeKind::Symlink, NodeKind::Special];

    /// The kind with this number (`kind as u8`).
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
