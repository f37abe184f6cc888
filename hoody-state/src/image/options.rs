//! How an image is imported.

use crate::error::{Code, Error};
use crate::units::Bytes;

/// How to import.
pub struct ImportOptions<'a> {
    /// Added to every owner, so that the files belong to the containers' user namespace.
    pub id_base: u32,
    /// The most bytes the archive may have when unpacked (headers included); no limit without it.
    pub max_bytes: Option<Bytes>,
    /// Asked often; the import ends with [`Code::Cancelled`] soon after it says `true`.
    pub cancelled: &'a dyn Fn() -> bool,
    /// Told often how many bytes of the (compressed) stream have been read.
    pub progress: &'a dyn Fn(Bytes),
}

pub(super) fn cancelled() -> Error {
    Error::new(Code::Cancelled, "the import was cancelled")
}
