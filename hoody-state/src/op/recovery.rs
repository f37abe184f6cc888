//! What a crash or a failure left is finished or undone: at once, at the next start, and again after a pause while it does not succeed.

use super::journal::{self, Journalled};
use super::progress::Registered;
use super::run::{Op, catch, to_value};
use super::{Claim, Engined, Held, Progress, Want};
use crate::catalog::operations::{self, OpenRow};
use crate::catalog::{Durability, Tx};
use crate::error::{Code, Error, Kind, Result};
use crate::id::OperationId;
use crate::model::OperationStatus;
use serde::Serialize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How soon a recovery that failed is tried again, at first and in the end.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// An operation that is being finished or undone.
pub(crate) struct Recovery<'a, W> {
    pub id: &'a OperationId,
    pub world: &'a W,
    /// Why it failed; nothing after a crash.
    pub error: Option<&'a Error>,
    pub progress: &'a Progress,
    held: Option<&'a Held>,
}

impl<W: Engined> Recovery<'_, W> {
    /// Closes an operation that was finished after all.
    pub(crate) fn finished<T: Serialize>(&self, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<()> {
        self.close(|tx| {
            let answer = to_value(&f(tx)?)?;
            tx.answer_key_of(self.id, &answer)?;
            tx.close_operation(self.id, OperationStatus::Succeeded, None)
        })
    }

    /// Closes an operation of which nothing is left.
    pub(crate) fn undone(&self, f: impl FnOnce(&mut Tx<'_>) -> Result<()>) -> Result<()> {
        let interrupted = Error::new(Code::Interrupted, "the server ended in the middle of it; what it had begun was undone");
        let error = self.error.unwrap_or(&interrupted);
        let status = if error.kind() == Kind::Cancelled { OperationStatus::Cancelled } else { OperationStatus::Failed };
        self.close(|tx| {
            f(tx)?;
            tx.free_key_of(self.id)?;
            tx.close_operation(self.id, status, Some(error))
        })
    }

    /// Its locks, for an operation that follows from this one.
    ///
    /// # Errors
    /// None: recovery holds the locks of what it recovers.
    pub(crate) fn held(&self) -> Result<Held> {
        self.held.cloned().ok_or_else(|| Error::internal("an operation is recovered without its locks"))
    }

    fn close(&self, f: impl FnOnce(&mut Tx<'_>) -> Result<()>) -> Result<()> {
        self.held.inspect(|h| h.ending(true));
        let closed = self.world.engine().write(Durability::Disk, f);
        if closed.is_err() {
            self.held.inspect(|h| h.ending(false));
        }
        closed
    }
}

/// An operation whose recovery has not succeeded yet.
struct Pending<W: Engined> {
    id: OperationId,
    intent: Box<dyn Journalled<W>>,
    error: Option<Error>,
    held: Option<Held>,
    also: Vec<Held>,
    registered: Registered,
    /// It keeps no host alive that nobody else uses.
    world: W::Weak,
    pause: Duration,
    due: Instant,
}

/// Recovers an operation that failed, now or later.
pub(super) fn after_failure<W: Engined>(op: Op<W>, error: &Error) {
    let world = op.world.clone();
    // The caller has the error itself, with its source.
    let error = Error::new(error.code(), error.message());
    attempt(&world, Pending::of(op, Some(error)));
}

impl<W: Engined> Pending<W> {
    fn of(op: Op<W>, error: Option<Error>) -> Self {
        let Op { id, world, intent, held, also, registered, .. } = op;
        Pending { id, intent, error, held, also, registered, world: world.downgrade(), pause: FIRST_PAUSE, due: Instant::now() }
    }
}

/// One try.
fn attempt<W: Engined>(world: &W, mut p: Pending<W>) {
    let engine = world.engine();
    if p.held.is_none() {
        match engine.locks.take(p.intent.claim(), Duration::ZERO) {
            Ok(held) => p.held = Some(held),
            Err(_) => return engine.retries.later(p),
        }
        // Somebody else may have had it done.
        match engine.read(|c| operations::get(c, &p.id)) {
            Ok(o) if o.finished_at.is_some() => return,
            _ => {}
        }
    }
    let kind = p.intent.kind();
    let recovered = catch(kind, || {
        if p.error.is_none() && p.intent.continues(world)? {
            return Ok(false);
        }
        p.intent.recover(&Recovery { id: &p.id, world, error: p.error.as_ref(), progress: &p.registered.progress, held: p.held.as_ref() })?;
        Ok(true)
    });
    match recovered {
        Ok(true) => {
            drop(p);
            // It may have journalled what follows from it.
            if let Err(e) = take_up_all(world) {
                tracing::error!(error = %e, "cannot read the journal");
            }
        }
        Ok(false) => {
            let Pending { id, intent, held, registered, .. } = p;
            let op = Op::of(world, id, intent.boxed(), held, registered);
            if let Err(e) = intent.run_on(op) {
                tracing::warn!(kind, error = %e, "an operation of an earlier start cannot run on");
            }
        }
        Err(e) if e.code() == Code::Crashed => {
            p.also.drain(..).chain(p.held.take()).for_each(Held::keep);
        }
        Err(e) => {
            tracing::error!(operation = %p.id, kind, error = %e, "could be neither finished nor undone; trying again in {:?}", p.pause);
            if !p.intent.keeps_locks() {
                p.held = None;
                p.also.clear();
            }
            engine.retries.later(p);
        }
    }
}

/// Takes up every open operation that this process does not work on yet: finishes it, undoes it, or runs it on in the background.
///
/// # Errors
/// When the journal cannot be read at all. What is wrong with one operation keeps no other from being taken up.
pub(crate) fn take_up_all<W: Engined>(world: &W) -> Result<()> {
    let engine = world.engine();
    let rows = engine.read(operations::open)?;
    for row in rows {
        if engine.registry.get(&row.id).is_some() || engine.is_set_aside(&row.id) {
            continue;
        }
        take_up(world, row);
    }
    Ok(())
}

fn take_up<W: Engined>(world: &W, row: OpenRow) {
    let engine = world.engine();
    match journal::parse(&row.intent, engine.all) {
        Ok(intent) => {
            let held = engine.locks.take(intent.claim(), Duration::ZERO).ok();
            let op = Op::new(world, row.id, intent, held);
            let mut pending = Pending::of(op, None);
            if pending.held.is_some() {
                attempt(world, pending);
            } else {
                pending.due = Instant::now() + pending.pause;
                engine.retries.later(pending);
            }
        }
        Err(e) => {
            tracing::error!(operation = %row.id, kind = row.kind, error = %e, "set aside: what it changes stays locked; `check` says more");
            let held = resource_lock(&row).and_then(|claim| engine.locks.take(claim, Duration::ZERO).ok());
            engine.put_aside(row.id, held);
        }
    }
}

/// What an operation changes of which only the row's own columns can be read.
fn resource_lock(row: &OpenRow) -> Option<Claim> {
    let want = match row.resource_type.as_str() {
        "container" => Want::container(&row.resource_id.parse().ok()?),
        "image" => Want::image(&row.resource_id.parse().ok()?),
        _ => return None,
    };
    Some(Claim::long("operation.unreadable", vec![want]))
}

/// What waits for another try.
pub(crate) struct Retries<W: Engined>(Arc<Shared<W>>);

struct Shared<W: Engined> {
    queue: Mutex<Queue<W>>,
    changed: Condvar,
}

struct Queue<W: Engined> {
    pending: Vec<Pending<W>>,
    thread: bool,
    closed: bool,
}

impl<W: Engined> Default for Retries<W> {
    fn default() -> Self {
        let queue = Mutex::new(Queue { pending: Vec::new(), thread: false, closed: false });
        Retries(Arc::new(Shared { queue, changed: Condvar::new() }))
    }
}

impl<W: Engined> Retries<W> {
    /// Tries it again after its pause, which grows.
    fn later(&self, mut p: Pending<W>) {
        p.due = Instant::now() + p.pause;
        p.pause = (p.pause * 2).min(LONGEST_PAUSE);
        let mut queue = self.0.queue();
        if queue.closed {
            return;
        }
        queue.pending.push(p);
        if !queue.thread {
            let shared = Arc::clone(&self.0);
            queue.thread = std::thread::Builder::new().name("recovery".into()).spawn(move || shared.work()).is_ok();
        }
        drop(queue);
        self.0.changed.notify_all();
    }

    /// Tries no more: the next start does.
    pub(super) fn close(&self) {
        let pending = {
            let mut queue = self.0.queue();
            queue.closed = true;
            std::mem::take(&mut queue.pending)
        };
        self.0.changed.notify_all();
        drop(pending);
    }
}

impl<W: Engined> Drop for Retries<W> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<W: Engined> Shared<W> {
    fn queue(&self) -> MutexGuard<'_, Queue<W>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(p) = self.next() {
            // Without a host nobody is left to recover it for.
            if let Some(world) = W::upgrade(&p.world) {
                attempt(&world, p);
            }
        }
    }

    /// The next one that is due, waited for; nothing when there is none: the thread ends.
    fn next(&self) -> Option<Pending<W>> {
        let mut queue = self.queue();
        loop {
            let first = (0..queue.pending.len()).min_by_key(|&i| queue.pending[i].due);
            let Some(first) = first.filter(|_| !queue.closed) else {
                queue.thread = false;
                return None;
            };
            let left = queue.pending[first].due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(queue.pending.swap_remove(first));
            }
            queue = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
