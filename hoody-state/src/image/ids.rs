//! The owners of an archive's files, as the host sees them.

use super::path::shown;
use crate::error::{Code, Error, Result};

/// Ids in one user namespace.
const IDS: i64 = 65_536;

/// An owner as host ids.
///
/// # Errors
/// `image_id_range`.
pub(super) fn shifted(path: &[u8], what: &str, id: i64, id_base: u32) -> Result<u32> {
    u32::try_from(id).ok().filter(|_| id < IDS).and_then(|id| id_base.checked_add(id)).ok_or_else(|| {
        Error::new(
            Code::ImageIdRange,
            format!("{} has the {what} id {id}, but a container has the ids 0 to 65535 only: change its owner in the archive", shown(path)),
        )
    })
}
