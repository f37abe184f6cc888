//! Recovery at work: at once after a failure, at the start for what the journal holds, and again after a pause while it does not succeed.

use super::engine::Engined;
use super::journal::{self, Entry, Journalled};
use super::lock::{Claim, Held, Want};
use super::recovery::Recovery;
use super::running::Op;
use super::taken::Taken;
use crate::catalog::operations::{self, OpenRow};
use crate::error::{Code, Error, Result};
use crate::id::OperationId;
use crate::progress::Registered;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// How soon a recovery that failed is tried again, at first and in the end.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// An operation that has still to be recovered. It keeps no host alive that nobody else uses.
struct Pending<W: Engined> {
    id: OperationId,
    intent: Box<dyn Journalled<W>>,
    /// Why it failed; nothing after a crash.
    error: Option<Error>,
    held: Option<Held>,
    also: Vec<Held>,
    registered: Registered,
    pause: Duration,
}

/// Recovers an operation that failed, now or later.
pub(super) fn after_failure<W: Engined>(op: Op<W>, error: &Error) {
    // The caller has the error itself, with its source.
    let error = Error::new(error.code(), error.message());
    let world = op.world.clone();
    attempt(&world, Pending::of(op.taken, op.intent, Some(error)));
}

impl<W: Engined> Pending<W> {
    fn of(taken: Taken<W>, intent: Box<dyn Journalled<W>>, error: Option<Error>) -> Self {
        let Taken { id, held, also, registered, .. } = taken;
        Pending { id, intent, error, held, also, registered, pause: FIRST_PAUSE }
    }

    /// Tries it again after its pause, which grows.
    fn later(mut self, world: &W) {
        let (pause, weak) = (self.pause, world.downgrade());
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        let work = move || {
            // Without a host nobody is left to recover it for.
            if let Some(world) = W::upgrade(&weak) {
                attempt(&world, self);
            }
        };
        world.engine().retries.later(pause, Box::new(work));
    }

    /// Whether it runs on instead.
    fn recover(&self, world: &W) -> Result<bool> {
        catch(self.intent.kind(), || {
            if self.error.is_none() && self.intent.continues(world)? {
                return Ok(true);
            }
            let recovery = Recovery { id: &self.id, world, error: self.error.as_ref(), progress: &self.registered.progress, held: self.held.as_ref() };
            self.intent.recover(&recovery).map(|()| false)
        })
    }
}

/// One try.
fn attempt<W: Engined>(world: &W, mut p: Pending<W>) {
    let engine = world.engine();
    if p.held.is_none() {
        match engine.locks.take(p.intent.claim(), Duration::ZERO) {
            Ok(held) => p.held = Some(held),
            Err(_) => return p.later(world),
        }
        // The operation may have been ended while nobody held its locks.
        if engine.read(|c| operations::get(c, &p.id)).is_ok_and(|o| o.finished_at.is_some()) {
            return;
        }
    }
    let kind = p.intent.kind();
    match p.recover(world) {
        Ok(false) => {
            drop(p);
            engine.recovered();
        }
        Ok(true) => {
            let Pending { id, intent, held, also, registered, .. } = p;
            if let Err(e) = intent.run_on(Taken { id, world: world.clone(), held, also, registered }) {
                tracing::warn!(kind, error = %e, "an operation of an earlier start cannot run on");
            }
        }
        Err(e) if e.code() == Code::Crashed => p.also.drain(..).chain(p.held.take()).for_each(Held::keep),
        Err(e) => {
            tracing::error!(operation = %p.id, kind, error = %e, "could be neither finished nor undone; trying again in {:?}", p.pause);
            if !p.intent.keeps_locks() {
                p.held = None;
                p.also.clear();
            }
            p.later(world);
        }
    }
}

/// Takes up every open operation that this process does not work on yet: finishes it, undoes it, or runs it on in the background. `all`: the list of all
/// operations.
///
/// # Errors
/// When the journal cannot be read at all. What is wrong with one operation keeps no other from being taken up.
pub(crate) fn take_up_all<W: Engined>(world: &W, all: &[Entry<W>]) -> Result<()> {
    let engine = world.engine();
    for row in engine.read(operations::open)? {
        if engine.registry.get(&row.id).is_none() && !engine.is_set_aside(&row.id) {
            take_up(world, row, all);
        }
    }
    Ok(())
}

fn take_up<W: Engined>(world: &W, row: OpenRow, all: &[Entry<W>]) {
    let engine = world.engine();
    match journal::parse(&row.intent, all) {
        Ok(intent) => {
            let held = engine.locks.take(intent.claim(), Duration::ZERO).ok();
            let is_locked = held.is_some();
            let pending = Pending::of(Taken::new(world, row.id, held), intent, None);
            if is_locked { attempt(world, pending) } else { pending.later(world) }
        }
        Err(e) => {
            tracing::error!(operation = %row.id, kind = row.kind, error = %e, "set aside: what it changes stays locked; `check` says more");
            let held = resource_claim(&row).and_then(|claim| engine.locks.take(claim, Duration::ZERO).ok());
            engine.put_aside(row.id, held);
        }
    }
}

/// What an operation changes of which only the row's own columns can be read.
fn resource_claim(row: &OpenRow) -> Option<Claim> {
    let want = match row.resource_type.as_str() {
        "container" => Want::container(&row.resource_id.parse().ok()?),
        "image" => Want::image(&row.resource_id.parse().ok()?),
        _ => return None,
    };
    Some(Claim::long("operation.unreadable", vec![want]))
}

/// Turns a panic into an error, so that it is recovered like any other failure.
pub(super) fn catch<T>(kind: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Error::internal(format!("{kind} panicked ({}): this is a bug of hoody-state, please report it", said.unwrap_or_else(|| "no message".into()))))
    })
}
