//! The list of all operations.

use super::archive_live::ArchiveLive;
use super::copy::Copy;
use super::create::Create;
use super::dedupe::MergeEqual;
use super::delete::Delete;
use super::diff::CompareLive;
use super::file_delete::DeleteFile;
use super::file_write::WriteFile;
use super::image_delete::DeleteImage;
use super::image_from_snapshot::ImageFromSnapshot;
use super::import::Import;
use super::lifecycle::Lifecycle;
use super::promote::Promote;
use super::receive::Receive;
use super::relocate::Move;
use super::reset::Reset;
use super::restore::Restore;
use super::restore_files::BringFiles;
use super::scheduled_snapshot::ScheduledSnapshot;
use super::snapshot::TakeSnapshot;
use super::snapshot_delete::DeleteSnapshot;
use super::sync::Sync;
use super::trash::{EmptyTrash, Recover};
use crate::catalog::operations::OpenRow;
use crate::op::Entry;
use crate::world::World;

/// All operations. The journal is read by it.
pub(crate) static ALL: [Entry<World>; 24] = [
    Entry::of::<Create>(),
    Entry::of::<Lifecycle>(),
    Entry::of::<Delete>(),
    Entry::of::<TakeSnapshot>(),
    Entry::of::<DeleteSnapshot>(),
    Entry::of::<Restore>(),
    Entry::of::<BringFiles>(),
    Entry::of::<Copy>(),
    Entry::of::<Receive>(),
    Entry::of::<Sync>(),
    Entry::of::<Move>(),
    Entry::of::<Import>(),
    Entry::of::<ImageFromSnapshot>(),
    Entry::of::<DeleteImage>(),
    Entry::of::<WriteFile>(),
    Entry::of::<DeleteFile>(),
    Entry::of::<CompareLive>(),
    Entry::of::<ArchiveLive>(),
    Entry::of::<Reset>(),
    Entry::of::<Promote>(),
    Entry::of::<Recover>(),
    Entry::of::<EmptyTrash>(),
    Entry::of::<MergeEqual>(),
    Entry::of::<ScheduledSnapshot>(),
];

/// Why a row of the journal cannot be read, if it cannot.
pub(crate) fn unreadable(row: &OpenRow) -> Option<String> {
    crate::op::unreadable(&row.intent, &ALL)
}
