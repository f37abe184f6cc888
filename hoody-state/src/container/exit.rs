use crate::catalog::Durability;
use crate::catalog::containers::Desired;
use crate::error::Result;
use crate::host::Host;
use crate::id::{ContainerId, RunId};
use crate::model::Status;
use crate::runtime::Exit;
use std::sync::PoisonError;

impl Host {
    /// A run has ended. Called on the runtime's thread. While an operation has the container it may be the cause, and says itself what has become of the
    /// container; what it says nothing of is noted when it lets the container go.
    pub(crate) fn exited(&self, id: &ContainerId, run: &RunId, exit: Exit) {
        self.0.exits.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), (run.clone(), exit));
        if self.0.locks.holder(id.as_str()).is_none() {
            self.note_exit_or_log(id);
        }
    }

    fn note_exit_or_log(&self, id: &ContainerId) {
        if let Err(e) = self.note_exit(id) {
            tracing::error!(container = %id, error = %e, "could not note that init has ended");
        }
    }

    /// Nobody changes `thing` any more.
    pub(crate) fn let_go(&self, thing: &str) {
        let ended = self.0.exits.lock().unwrap_or_else(PoisonError::into_inner).keys().find(|c| c.as_str() == thing).cloned();
        if let Some(id) = ended {
            self.note_exit_or_log(&id);
        }
    }

    /// If the container's present run is known to have ended, it is stopped. Asked again after each start, so that an init that ends
    /// before its start is written down is not taken for running.
    pub(crate) fn note_exit(&self, id: &ContainerId) -> Result<()> {
        let ended = self.0.exits.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        let Some((run, exit)) = ended else { return Ok(()) };
        let done = self.write(Durability::Process, |tx| {
            let Some(r) = crate::catalog::containers::find(tx.conn, id)? else { return Ok(true) };
            if r.state.run.as_ref() != Some(&run) {
                return Ok(false);
            }
            if matches!(r.status, Status::Running | Status::Paused) {
                let meta = serde_json::json!({ "exit_code": exit.code });
                tx.change_container(id, "init", Some(meta), |r| {
                    r.status = Status::Stopped;
                    r.state.desired = Desired::Stopped;
                })?;
                return Ok(true);
            }
            Ok(false)
        })?;
        if done {
            self.0.exits.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        }
        Ok(())
    }
}
