//! How an image is imported.

use crate::error::{Code, Error};
use crate::units::Bytes;

/// How to import.
pub struct ImportOptions<'a> {
    /// Added to every owner, so that the files belong to the containers' user namespace.
    pub id_base: u32,
    /// The largest number of bytes of the unpacked archive (headers included); `None`: no limit.
    pub max_bytes: Option<Bytes>,
    /// Asked often; the import ends with [`Code::Cancelled`] soon after it says `true`.
    pub cancelled: &'a dyn Fn() -> bool,
    /// Called often with the number of bytes read from the (compressed) stream.
    pub progress: &'a dyn Fn(Bytes),
}

pub(super) fn cancelled() -> Error {
    Error::new(Code::Cancelled, "the import was cancelled")
}
