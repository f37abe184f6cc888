//! The contract of [`SnapshotStore`] as cases that every backend must pass. The author of a backend implements [`Harness`] and writes
//! `hoody_state::snapshot_suite!(make());` in a test module: that makes one `#[test]` for each case, each with a harness of its own. The model is containerd's
//! snapshotter suite.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

mod exclusive;
#[cfg(feature = "btrfs")]
mod files;
mod transfer;
mod volumes;

pub use exclusive::*;
#[cfg(feature = "btrfs")]
pub use files::*;
pub use transfer::*;
pub use volumes::*;

use super::{SnapshotStore, Volume};
use crate::error::Result;
use crate::id::{ContainerId, OperationId};
use crate::name::SnapshotName;

/// A backend under test and a way to its files.
pub trait Harness: Sync {
    /// The backend. Its pool is empty at the start of a case.
    fn store(&self) -> &dyn SnapshotStore;
    /// Writes a file at the path (one name) in a volume.
    fn write(&self, volume: &Volume, path: &str, data: &[u8]) -> Result<()>;
    /// Reads a file, if it exists.
    fn read(&self, volume: &Volume, path: &str) -> Result<Option<Vec<u8>>>;
    /// Removes a file.
    fn remove(&self, volume: &Volume, path: &str) -> Result<()>;
    /// Creates a nested volume `name` in a volume, with one file `in` that contains `data`; `false` if the backend has no nested volumes.
    fn nest(&self, _volume: &Volume, _name: &str, _data: &[u8]) -> Result<bool> {
        Ok(false)
    }
}

/// One test for each case, with the harness that the expression makes.
#[macro_export]
macro_rules! snapshot_suite {
    ($make:expr) => {
        $crate::snapshot_suite! { @ $make;
            a_home_is_made_once
            a_new_volume_is_empty_and_writable
            missing_volumes_are_reported
            existing_volumes_are_not_replaced
            a_snapshot_holds_what_the_source_held
            a_snapshot_never_changes
            a_clone_is_independent
            copies_of_copies_do_not_need_their_sources
            an_id_is_never_used_again
            information_agrees_with_the_calls
            exchange_swaps_two_volumes
            exchange_never_leaves_a_place_empty
            seal_moves_and_makes_read_only
            a_deleted_volume_is_gone
            space_is_free_again_after_a_delete
            list_returns_one_container_or_all
            trash_home_removes_everything_at_once
            recover_home_puts_everything_back
            emptying_the_trash_can_be_repeated
            delta_counts_what_was_written_since
            space_follows_what_is_written
            what_only_one_volume_holds_is_counted
            staging_is_found_and_cleared
            the_store_works_from_many_threads
            nested_volumes_follow_their_volume
            a_thousand_snapshots
        }
    };
    (@ $make:expr; $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                let harness = $make;
                $crate::snapshot::suite::$case(&harness);
            }
        )*
    };
}

/// The same for the cases of [`StagedFiles`](super::StagedFiles), for a store that has files.
#[macro_export]
macro_rules! staged_files_suite {
    ($make:expr) => {
        $crate::snapshot_suite! { @ $make;
            files_are_placed_when_they_are_complete
            files_that_are_not_in_the_source_are_reported
            what_is_staged_is_forgotten_by_settling
        }
    };
}

/// The same for the cases of [`Transferable`](super::Transferable), for a store that gives one.
#[macro_export]
macro_rules! transfer_suite {
    ($make:expr) => {
        $crate::snapshot_suite! { @ $make;
            sent_snapshots_are_received
            only_read_only_volumes_are_sent
            incomplete_streams_leave_nothing
            a_difference_is_seen
        }
    };
}

fn op() -> OperationId {
    OperationId::generate()
}

fn named(c: &ContainerId, name: &str) -> Volume {
    Volume::Snapshot(c.clone(), name.parse::<SnapshotName>().unwrap())
}

fn container(h: &dyn Harness) -> (ContainerId, Volume) {
    let c = ContainerId::generate();
    let live = Volume::Live(c.clone());
    h.store().create_home(&c).unwrap();
    h.store().create(&live).unwrap();
    (c, live)
}

fn holds(h: &dyn Harness, v: &Volume, path: &str, data: &str) {
    let found = h.read(v, path).unwrap();
    assert_eq!(found.as_deref().map(String::from_utf8_lossy).as_deref(), Some(data), "{path} in {v}");
}

fn lacks(h: &dyn Harness, v: &Volume, path: &str) {
    assert_eq!(h.read(v, path).unwrap(), None, "{path} in {v}");
}
