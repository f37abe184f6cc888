//! How full a pool is, and what must stay free in it.

use crate::error::{Code, Error, Result};
use crate::units::Bytes;

/// What is left to the file system beneath for others; the pool does not take its last bytes.
pub(crate) const LEFT_BENEATH: u64 = 128 << 20;

/// How full the pool is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// Of the file system.
    pub total: Bytes,
    /// Data and metadata in use.
    pub used: Bytes,
    /// What can still be written for certain.
    pub free: Bytes,
    /// Whether nothing can be written at all: the kernel makes a file system read-only that it could not write to.
    pub read_only: bool,
    /// Of the image under it, if it is on one.
    pub image: Option<ImageSpace>,
}

/// The figures of an image and of what is beneath it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImageSpace {
    /// The length of the image: what the pool may grow to.
    pub size: Bytes,
    /// What is offered to BTRFS now.
    pub offered: Bytes,
    /// What the image takes from the file system beneath.
    pub reserved: Bytes,
    /// What that file system has left.
    pub beneath_free: Bytes,
}

impl ImageSpace {
    /// What can be written in addition to `used`, if BTRFS has room for `free` in the image.
    #[must_use]
    pub fn certain(&self, used: Bytes, free: Bytes) -> Bytes {
        let beneath = (self.reserved - used) + (self.beneath_free - Bytes(LEFT_BENEATH));
        (free + (self.size - self.offered)).min(beneath)
    }

    /// What is offered and not reserved.
    #[must_use]
    pub fn unreserved(&self) -> Bytes {
        self.offered - self.reserved
    }
}

/// What a container or a project has written and not deleted, in all its volumes and snapshots, and what it may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiskUse {
    /// Data and metadata. Of what others refer to as well, each writer counts its own.
    pub used: Bytes,
    /// Beyond this, its writes fail with EDQUOT. Null: no limit.
    pub limit: Option<Bytes>,
}

/// What is kept free for what must always be possible (deleting, the catalog, containers' last writes): a fiftieth of the pool, at
/// least 64 MiB, at most 1 GiB.
#[must_use]
pub fn reserve(total: Bytes) -> Bytes {
    Bytes(total.0 / 50).clamp(Bytes::mib(64), Bytes::gib(1))
}

/// Refuses a change that needs `needed` bytes when it would eat into the reserve ([`reserve`]).
///
/// # Errors
/// `pool_full`.
pub fn check_space(space: &Space, needed: Bytes) -> Result<()> {
    let reserve = reserve(space.total);
    if space.free >= needed + reserve {
        return Ok(());
    }
    let message = format!(
        "the pool is full: {needed} needed, {} free of {}, of which {reserve} are kept in reserve; delete snapshots or containers, or grow the pool",
        space.free, space.total
    );
    Err(Error::new(Code::PoolFull, message).with_data(serde_json::json!({"needed": needed, "free": space.free, "total": space.total, "reserve": reserve})))
}
