//! Every operation is one file: its intent (what is journalled), what it locks, how it runs, how it is recovered.
//!
//! `all.rs` is the one list of them. An operation is added by its file, a line in that list, and a route.

pub(crate) mod all;
pub(crate) mod archive_live;
pub(crate) mod automatic;
mod branch_point;
pub(crate) mod copied;
pub(crate) mod copy;
mod copy_base;
pub(crate) mod create;
pub(crate) mod dedupe;
pub(crate) mod delete;
pub(crate) mod diff;
pub(crate) mod diff_databases;
mod discarded;
mod event_limits;
mod exchange;
pub(crate) mod exec;
mod file_change;
pub(crate) mod file_delete;
pub(crate) mod file_directory;
pub(crate) mod file_write;
pub(crate) mod fork;
pub(crate) mod handover;
pub(crate) mod image_delete;
pub(crate) mod image_from_snapshot;
pub(crate) mod import;
#[cfg(test)]
mod journal_tests;
pub(crate) mod lifecycle;
pub(crate) mod observed;
pub(crate) mod order;
mod own;
mod persistence;
pub(crate) mod project_delete;
pub(crate) mod promote;
pub(crate) mod prune;
pub(crate) mod receive;
pub(crate) mod received;
pub(crate) mod relocate;
pub(crate) mod reset;
pub(crate) mod restore;
pub(crate) mod restore_files;
mod restore_paths;
mod room;
pub(crate) mod scheduled;
pub(crate) mod scheduled_snapshot;
pub(crate) mod snapshot;
pub(crate) mod snapshot_delete;
pub(crate) mod snapshot_edit;
mod snapshot_row;
pub(crate) mod sync;
pub(crate) mod synced;
pub(crate) mod trash;

use crate::op::{Begun, Claim, Ended, Held, Key, Lane, Operation, Want};
use crate::world::World;

pub(crate) type Op = crate::op::Op<World>;
pub(crate) type Recovery<'a> = crate::op::Recovery<'a, World>;
