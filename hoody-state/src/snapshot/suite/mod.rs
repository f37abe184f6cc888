//! The contract of [`SnapshotStore`] as cases that every backend must pass. A backend's author implements [`Harness`] and writes
//! `hoody_state::snapshot_suite!(make());` in a test module: one `#[test]` a case, each with a harness of its own. Model: containerd's snapshotter
//! suite.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

mod transfer;
mod volumes;

pub use transfer::*;
pub use volumes::*;

use super::{SnapshotStore, Volume};
use crate::error::Result;
use crate::id::{ContainerId, OperationId};
use crate::name::SnapshotName;

/// A backend under test and a way to its files.
pub trait Harness: Sync {
    /// The backend, its pool empty at the start of a case.
    fn store(&self) -> &dyn SnapshotStore;
    /// Writes a whole file at the path (one name) in a volume.
    fn write(&self, volume: &Volume, path: &str, data: &[u8]) -> Result<()>;
    /// Reads a whole file, if it is there.
    fn read(&self, volume: &Volume, path: &str) -> Result<Option<Vec<u8>>>;
    /// Removes a file.
    fn remove(&self, volume: &Volume, path: &str) -> Result<()>;
    /// Makes a nested volume `name` in a volume, holding the one file `in` with `data`; false where the backend has none.
    fn nest(&self, _volume: &Volume, _name: &str, _data: &[u8]) -> Result<bool> {
        Ok(false)
    }
}

/// One test a case for the harness that the expression makes.
#[macro_export]
macro_rules! snapshot_suite {
    ($make:expr) => {
        $crate::snapshot_suite! { @ $make;
            a_home_is_made_once
            a_new_volume_is_empty_and_writable
            what_is_missing_is_said_to_be
            what_exists_is_not_replaced
            a_snapshot_holds_what_the_source_held
            a_snapshot_never_changes
            a_clone_is_independent
            copies_of_copies_go_on_without_their_sources
            an_id_is_never_used_again
            information_says_what_was_done
            exchange_swaps_two_volumes
            exchange_never_leaves_a_place_empty
            seal_moves_and_makes_read_only
            a_deleted_volume_is_gone
            room_comes_back_after_a_delete
            a_list_is_of_one_container_or_of_all
            a_home_goes_to_the_trash_at_once
            emptying_the_trash_may_be_repeated
            delta_counts_what_was_written_since
            space_follows_what_is_written
            staging_is_found_and_cleared
            containers_do_not_wait_for_each_other
            nested_volumes_go_where_their_volume_goes
            a_thousand_snapshots
            what_is_sent_is_received
            only_what_is_sealed_is_sent
            what_is_received_in_part_is_not_there
            a_difference_is_seen
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
