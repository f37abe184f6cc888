//! The store of a pool. These methods of [`Pool`] are here because a pool knows nothing of what is kept in it.

use super::BtrfsStore;
use crate::error::Result;
use crate::model::space::{Space, check_space};
#[cfg(test)]
use crate::pool::testing::LoopPool;
use crate::pool::{Pool, PoolConfig};
use crate::snapshot::SnapshotStore;
use crate::units::Bytes;

impl Pool {
    /// What is free in the pool of `config` and beneath it, if it is mounted and the kernel has made it read-only. Takes no lock.
    ///
    /// # Errors
    /// Of the system calls.
    pub fn stuck(config: &PoolConfig) -> Result<Option<Space>> {
        let Some((at, backing)) = Pool::read_only_at(config)? else { return Ok(None) };
        let store = BtrfsStore::open(&at)?;
        let store = match backing {
            Some(backing) => store.with_backing(backing),
            None => store,
        };
        store.space().map(Some)
    }

    /// The volumes of this pool. The store keeps the pool busy: drop it before [`Pool::unmount`].
    ///
    /// # Errors
    /// Of the system calls.
    pub fn store(&self) -> Result<BtrfsStore> {
        let store = BtrfsStore::open(&self.root())?;
        let store = if self.counts_what_is_written()? { store.with_quotas()? } else { store };
        Ok(match self.backing() {
            Some(backing) => store.with_backing(backing.clone()),
            None => store,
        })
    }

    /// How full the pool is. For a sparse image, what is free is no more than what the file system under it has.
    ///
    /// # Errors
    /// Of the system calls.
    pub fn space(&self) -> Result<Space> {
        self.store()?.space()
    }

    /// Refuses a change that needs `needed` bytes when it would eat into the reserve ([`reserve`](crate::model::space::reserve)), before anything is changed.
    ///
    /// # Errors
    /// `pool_full`.
    pub fn space_guard(&self, needed: Bytes) -> Result<()> {
        check_space(&self.space()?, needed)
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
impl LoopPool {
    /// Its volumes.
    #[must_use]
    pub fn store(&self) -> BtrfsStore {
        self.pool().store().expect("the pool's store")
    }
}
