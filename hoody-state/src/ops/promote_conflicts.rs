//! The conflicts of a promotion, as the wire shows them.

use super::Outcome;
use crate::diff::merge::{Conflict, Did, Merged};
use crate::error::{Code, Error};
use crate::id::ContainerId;
use crate::model::{Prefer, PromoteConflict, SideChange};
use crate::tree::TreePath;
use serde_json::json;

/// How many conflicts an answer lists.
const LISTED: usize = 100;

fn shown(c: &Conflict, fork_wins: bool) -> PromoteConflict {
    // What is in a volume is a path; only its length may be beyond what a path from outside may have.
    let path = TreePath::new(&c.path).ok();
    let (fork, target) = if fork_wins { (c.winner, c.loser) } else { (c.loser, c.winner) };
    PromoteConflict {
        path: path.as_ref().map_or_else(|| String::from_utf8_lossy(&c.path).into_owned(), TreePath::shown),
        path_encoded: path.and_then(|p| p.encoded()),
        fork: change(fork),
        target: change(target),
    }
}

fn change(did: Did) -> SideChange {
    match did {
        Did::Added => SideChange::Added,
        Did::Replaced => SideChange::Replaced,
        Did::Modified => SideChange::Modified,
        Did::Metadata => SideChange::Metadata,
        Did::Renamed => SideChange::Renamed,
        Did::Deleted => SideChange::Deleted,
        Did::ChangedWithin => SideChange::ChangedWithin,
    }
}

/// What a merge came to.
pub(super) fn outcome(merged: &Merged, prefer: Option<Prefer>) -> Outcome {
    let conflicts = merged.conflicts.iter().take(LISTED).map(|c| shown(c, prefer == Some(Prefer::Fork))).collect();
    Outcome { changes: merged.steps.len() as u64, conflict_count: merged.conflicts.len() as u64, conflicts }
}

/// The error that names the conflicts.
pub(super) fn refused(fork: &ContainerId, target: &ContainerId, merged: &Merged) -> Error {
    let Outcome { conflict_count: total, conflicts, .. } = outcome(merged, None);
    let first = conflicts.first().map_or_else(String::new, |c| format!(", {} first", c.path));
    let message = format!(
        "container {fork} and {target} changed the same differently ({total} times{first}): say prefer: fork or prefer: target, or settle it in one of them; nothing was changed"
    );
    Error::new(Code::PromoteConflicts, message).with_data(json!({ "conflicts": conflicts, "total": total }))
}
