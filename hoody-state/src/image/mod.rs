//! Golden images: read-only root file systems that containers are cloned from.
//!
//! An import streams a tar (plain, gzip or zstd, told by its first bytes) into a new volume, shifting owners by the pool's id base
//! once, so that clones need no id mapping ever again. It refuses what could reach outside the volume or is no root file
//! system; a refused or interrupted import leaves nothing visible.
//!
//! | file | what |
//! | --- | --- |
//! | [`mod@import`] | the one call, its options and its report |
//! | `format` | which compression, and undoing it |
//! | `members` | the tar format: headers and data, in constant memory |
//! | `pax` | the extended headers of POSIX tars |
//! | `path` | which names are safe |
//! | `tree` | directories beneath the root, opened without ever following a symlink |
//! | `entry` | one member onto the disk |
//! | `xattr` | which extended attributes are kept, and with whose ids |
//! | `rootfs` | whether the result can be booted, and the directories every container needs |
//! | [`demo`] | a small root file system made here, for trying things out |

pub mod demo;
mod entry;
mod format;
mod ids;
pub mod import;
mod members;
mod options;
mod path;
mod pax;
mod rootfs;
mod skipped;
#[cfg(test)]
mod tests;
mod tree;
mod xattr;

pub use import::{ImportReport, import};
pub use options::ImportOptions;
