//! What a container's policy says of the events that take a snapshot by themselves (`on`).

use crate::catalog::policies;
use crate::error::Result;
use crate::id::ContainerId;
use crate::model::{AutomaticEvent, AutomaticLimits};
use rusqlite::Connection;

/// What the policy of a container says of an event; nothing if it takes no snapshot.
pub(super) fn limits(c: &Connection, id: &ContainerId, event: AutomaticEvent) -> Result<Option<AutomaticLimits>> {
    Ok(policies::effective(c, id)?.and_then(|(policy, _)| policy.on.limits(event)))
}
