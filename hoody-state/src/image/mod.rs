//! Golden images: read-only root file systems that containers are cloned from.
//!
//! An import streams a tar (plain, gzip or zstd, told by its first bytes) into a new volume, shifting owners by the pool's id base
//! once, so that clones need no id mapping ever again. It refuses what could reach outside the volume or is no root file
//! system; a refused or interrupted import leaves nothing visible.

pub mod import;
pub(crate) mod ops;
