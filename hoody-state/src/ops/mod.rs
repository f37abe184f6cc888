//! Every operation is one file: its intent (what is journalled), what it locks, how it runs, how it is recovered.
//!
//! [`ALL`] is the one list of them. An operation is added by its file, a line in that list, and a route.

pub(crate) mod copied;
pub(crate) mod copy;
pub(crate) mod create;
pub(crate) mod delete;
mod discarded;
pub(crate) mod fork;
pub(crate) mod handover;
pub(crate) mod image_delete;
pub(crate) mod image_from_snapshot;
pub(crate) mod import;
pub(crate) mod lifecycle;
pub(crate) mod observed;
pub(crate) mod order;
mod persistence;
pub(crate) mod project_delete;
pub(crate) mod receive;
pub(crate) mod received;
pub(crate) mod relocate;
pub(crate) mod restore;
pub(crate) mod snapshot;
pub(crate) mod snapshot_delete;
pub(crate) mod snapshot_edit;
pub(crate) mod sync;
pub(crate) mod synced;

use crate::catalog::operations::OpenRow;
use crate::op::{Begun, Claim, Ended, Entry, Held, Key, Lane, Operation, Want};
use crate::world::World;

pub(crate) type Op = crate::op::Op<World>;
pub(crate) type Recovery<'a> = crate::op::Recovery<'a, World>;

/// All operations.
pub(crate) static ALL: [Entry<World>; 13] = [
    Entry::of::<create::Create>(),
    Entry::of::<lifecycle::Lifecycle>(),
    Entry::of::<delete::Delete>(),
    Entry::of::<snapshot::TakeSnapshot>(),
    Entry::of::<snapshot_delete::DeleteSnapshot>(),
    Entry::of::<restore::Restore>(),
    Entry::of::<copy::Copy>(),
    Entry::of::<receive::Receive>(),
    Entry::of::<sync::Sync>(),
    Entry::of::<relocate::Move>(),
    Entry::of::<import::Import>(),
    Entry::of::<image_from_snapshot::ImageFromSnapshot>(),
    Entry::of::<image_delete::DeleteImage>(),
];

/// Why a row of the journal cannot be read, if it cannot.
pub(crate) fn unreadable(row: &OpenRow) -> Option<String> {
    crate::op::unreadable(&row.intent, &ALL)
}
