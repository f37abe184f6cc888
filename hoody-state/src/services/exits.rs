//! Runs that ended by themselves: when the init of a container ends, the container is stopped and its status says why.

use crate::catalog::Durability;
use crate::catalog::containers::{self, Desired};
use crate::catalog::records::Records;
use crate::error::Result;
use crate::id::{ContainerId, RunId};
use crate::model::Status;
use crate::runtime::Exit;
use crate::units::Bytes;
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// How runs ended, until the catalog says so.
pub(crate) struct Exits {
    records: Records,
    /// Ends that no transaction has noted yet.
    pending: Mutex<HashMap<ContainerId, (RunId, Exit)>>,
    on_noted: OnceLock<OnNoted>,
}

/// Called after a container was noted to have stopped by itself, and with how it ended.
type OnNoted = Box<dyn Fn(&ContainerId, &Exit) + Send + Sync>;

impl Exits {
    pub(crate) fn new(records: Records) -> Self {
        Exits { records, pending: Mutex::default(), on_noted: OnceLock::new() }
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<ContainerId, (RunId, Exit)>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `f` after each container that was noted to have stopped by itself. Set once.
    pub(crate) fn on_noted(&self, f: impl Fn(&ContainerId, &Exit) + Send + Sync + 'static) {
        let _ = self.on_noted.set(Box::new(f));
    }

    /// A run has ended. Called on the runtime's thread. While an operation has the container locked it may be the cause, and it writes down itself what has
    /// become of the container; what it does not write down is noted when the lock is freed ([`Exits::lock_freed`]).
    pub(crate) fn ended(&self, id: &ContainerId, run: &RunId, exit: Exit, locked: impl FnOnce() -> bool) {
        self.pending().insert(id.clone(), (run.clone(), exit));
        // Asked after the end is pending: a lock that is freed in between finds it.
        if !locked() {
            self.note_or_log(id);
        }
    }

    /// Nobody changes the container any more.
    pub(crate) fn lock_freed(&self, id: &ContainerId) {
        let ended = self.pending().contains_key(id);
        if ended {
            self.note_or_log(id);
        }
    }

    fn note_or_log(&self, id: &ContainerId) {
        if let Err(e) = self.note(id) {
            tracing::error!(container = %id, error = %e, "could not note that init has ended");
        }
    }

    /// If the container's present run is known to have ended, the container becomes stopped, and `status_message`, status log and event say why. To be called
    /// after each start, so that an init that ends before its start is written down is not taken for running.
    pub(crate) fn note(&self, id: &ContainerId) -> Result<()> {
        let ended = self.pending().get(id).cloned();
        let Some((run, exit)) = ended else { return Ok(()) };
        let mut stopped = false;
        let done = self.records.write(Durability::Process, |tx| {
            let Some(r) = containers::find(tx.conn, id)? else { return Ok(true) };
            if r.state.run.as_ref() != Some(&run) {
                return Ok(false);
            }
            if matches!(r.status, Status::Running | Status::Paused) {
                let why = reason(&exit, r.spec.memory_mib.map(Bytes::mib));
                tx.change_container(id, "init", Some(metadata(&exit, &why)), |r| {
                    r.status = Status::Stopped;
                    r.state.message = Some(why.clone());
                    r.state.desired = Desired::Stopped;
                })?;
                stopped = true;
                return Ok(true);
            }
            Ok(false)
        })?;
        if done {
            let mut pending = self.pending();
            // Another run may have ended meanwhile.
            if pending.get(id).is_some_and(|(r, _)| *r == run) {
                pending.remove(id);
            }
        }
        if let (true, Some(f)) = (stopped, self.on_noted.get()) {
            f(id, &exit);
        }
        Ok(())
    }
}

/// What a status log and an event say of the end of a run.
fn metadata(exit: &Exit, why: &str) -> serde_json::Value {
    serde_json::json!({
        "reason": why,
        "exit_code": exit.code,
        "signal": exit.signal.map(signal_name),
        "killed_for_memory": exit.killed_for_memory,
        "console": exit.last_lines,
    })
}

/// Why a run ended that nobody had asked to end, for people. `memory`: the container's limit.
fn reason(exit: &Exit, memory: Option<Bytes>) -> String {
    let used_up = || memory.map_or_else(|| "the host had no memory left".to_owned(), |m| format!("its memory ({m}) was used up"));
    let killed = exit.killed_for_memory;
    let mut why = match (exit.code, exit.signal) {
        (_, Some(nix::libc::SIGKILL)) if killed > 0 => format!("the kernel killed the container's init because {}", used_up()),
        // Nothing in a container can kill its first process.
        (_, Some(nix::libc::SIGKILL)) => {
            "the container's init was killed (SIGKILL) by a process of the host, or by the kernel because the host had no memory left".to_owned()
        }
        (_, Some(signal)) => format!("the container's init was ended by {}", signal_name(signal)),
        (Some(code), None) => format!("the container's init ended with exit code {code}"),
        (None, None) => "the container's init ended; its exit code could not be learnt".to_owned(),
    };
    if killed > 0 && exit.signal != Some(nix::libc::SIGKILL) {
        let processes = if killed == 1 { "a process".to_owned() } else { format!("{killed} processes") };
        why += &format!(", after the kernel had killed {processes} of the container because {}", used_up());
    }
    if !exit.last_lines.is_empty() {
        why += &format!("; the console ends with: {}", exit.last_lines.replace('\n', " | "));
    }
    why
}

fn signal_name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |s| s.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_a_reason() {
        let of = |code: Option<i32>, signal: Option<i32>, killed: u64, last: &str| {
            reason(&Exit { code, signal, killed_for_memory: killed, last_lines: last.into() }, Some(Bytes::mib(16)))
        };
        assert_eq!(of(Some(0), None, 0, ""), "the container's init ended with exit code 0");
        assert_eq!(of(Some(255), None, 0, "a\nb"), "the container's init ended with exit code 255; the console ends with: a | b");
        assert_eq!(of(Some(139), Some(11), 0, ""), "the container's init was ended by SIGSEGV");
        assert_eq!(of(Some(137), Some(9), 1, ""), "the kernel killed the container's init because its memory (16.0 MiB) was used up");
        assert!(of(Some(137), Some(9), 0, "").contains("by a process of the host"));
        let shell = of(Some(137), None, 2, "");
        assert_eq!(
            shell,
            "the container's init ended with exit code 137, after the kernel had killed 2 processes of the container because its memory (16.0 MiB) was used up"
        );
        assert!(of(None, None, 0, "").contains("could not be learnt"));
    }
}
