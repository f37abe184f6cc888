//! Golden images: read-only root file systems that containers are cloned from.
//!
//! An import streams a tar (plain, gzip or zstd, recognised by its first bytes) into a new volume. It shifts owners by the pool's id base, so that clones need no
//! id mapping. It refuses archives that could reach outside the volume or that are not a root file system. A refused or interrupted import leaves nothing visible.
//!
//! | file | what |
//! | --- | --- |
//! | [`mod@import`] | the one call, its options and its report |
//! | `format` | recognises the compression and decompresses |
//! | `members` | the tar format: headers and data, in constant memory |
//! | `pax` | the extended headers of POSIX tars |
//! | `path` | checks that names are safe |
//! | `tree` | directories beneath the root, opened without ever following a symlink |
//! | `entry` | writes one member to the disk |
//! | `xattr` | which extended attributes are kept, and with whose ids |
//! | `rootfs` | whether the result can be booted, and the directories every container needs |
//! | [`demo`] | makes a small root file system for demonstrations |

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
