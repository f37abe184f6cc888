//! Shares end at a time of day, which is announced beforehand.

use super::component::Shares;
use super::offers::{announce, owner_project};
use crate::catalog::{Durability, shares};
use crate::error::Result;
use crate::model::Share;
use std::time::Duration;

/// How long before its end a share's is announced, in seconds.
const NOTICE: i64 = 3600;
/// When a share that could not be deleted or announced is tried again.
const AGAIN: Duration = Duration::from_secs(5);

impl Shares {
    /// Deletes shares whose time is over and announces those whose end is near; when there is something to do again. One that fails keeps no other from it.
    ///
    /// # Errors
    /// That the catalog cannot be read.
    pub(crate) fn expire(&self) -> Result<Option<Duration>> {
        let now = self.seconds();
        let ((due, next), (ending, next_notice)) = self.records.read(|c| Ok((shares::expired(c, now)?, shares::ending(c, now + NOTICE)?)))?;
        let mut failed = false;
        let mut each = |what: &str, s: &Share, done: Result<()>| {
            if let Err(e) = &done {
                tracing::warn!(share = %s.id, error = %e, "{what}; trying again");
                failed = true;
            }
            done.is_ok()
        };
        for s in &due {
            let deleted = self.records.write(Durability::Disk, |tx| {
                tx.delete_share(&s.id)?;
                announce(tx, "expired", s, owner_project(tx, s)?.as_ref())
            });
            if each("could not delete a share that has expired", s, deleted) {
                tracing::info!(share = %s.id, "a share has expired");
            }
            // Nobody sees it any more, deleted or not.
            self.ended(std::slice::from_ref(s));
        }
        for mut s in ending.into_iter().filter(|s| !due.iter().any(|d| d.id == s.id)) {
            s.expiry_notified = true;
            let announced = self.records.write(Durability::Process, |tx| {
                tx.put_share(&s)?;
                announce(tx, "expiring_soon", &s, owner_project(tx, &s)?.as_ref())
            });
            each("could not announce the end of a share", &s, announced);
        }
        let until = next.into_iter().chain(next_notice.map(|at| at - NOTICE)).min();
        let until = until.map(|at| Duration::from_secs(u64::try_from((at - now).max(1)).unwrap_or(1)));
        Ok(until.into_iter().chain(failed.then_some(AGAIN)).min())
    }
}
