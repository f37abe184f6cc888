use super::caller::Caller;
use super::engine::Engined;
use super::journal::{Entry, Journalled};
use super::lock::{Claim, Held};
use super::operation::Operation;
use super::pending::{after_failure, catch};
use super::recovery::Recovery;
use super::running::Op;
use super::taken::Taken;
use crate::catalog::operations::NewRow;
use crate::catalog::{Durability, Tx};
use crate::error::{Code, Error, Result};
use crate::id::{OperationId, ProjectId};
use serde_json::Value;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// An operation that has been journalled and is to run.
pub(crate) struct Begun<O: Operation> {
    pub op: Op<O::World>,
    pub(super) intent: O,
}

/// How far an operation came while its caller waited.
pub(crate) enum Ended<A> {
    Done(A),
    /// It goes on. The early answer is there if the operation gives one.
    Running(Option<A>),
    /// It failed after its caller had been answered.
    Failed(Error),
}

impl<O: Operation> Begun<O> {
    /// An operation that [`Begun::journal_in`] has still to journal.
    pub(crate) fn planned(world: &O::World, held: Held, intent: O) -> Self {
        let taken = Taken::new(world, OperationId::generate(), Some(held));
        Begun { op: Op::of(taken, Box::new(intent.clone())), intent }
    }

    /// Journals it within a change of the catalog.
    pub(crate) fn journal_in(&self, tx: &mut Tx<'_>, project: Option<&ProjectId>) -> Result<()> {
        self.journal_by(tx, project, None)
    }

    fn journal_by(&self, tx: &mut Tx<'_>, project: Option<&ProjectId>, author: Option<&str>) -> Result<()> {
        let (resource_type, resource) = Operation::resource(&self.intent);
        let row = NewRow { id: &self.op.id, kind: Operation::kind(&self.intent), resource_type, resource, project, intent: &text(&self.intent)?, author };
        tx.open_operation(&row)
    }

    /// Journals an intent. `with` goes into the same transaction.
    pub(crate) fn journal(
        world: &O::World,
        caller: &Caller,
        held: Held,
        durability: Durability,
        intent: O,
        project: Option<&ProjectId>,
        with: impl FnOnce(&mut Tx<'_>) -> Result<()>,
    ) -> Result<Self> {
        let engine = world.engine();
        engine.hook.step(Operation::kind(&intent), "intent")?;
        let mut begun = Self::planned(world, held, intent);
        engine.write(durability, |tx| {
            tx.claim_key(caller.idempotency.as_ref(), Some(&begun.op.id))?;
            begun.journal_by(tx, project, Some(caller.author()))?;
            tx.operation = Some(begun.op.id.clone());
            with(tx)
        })?;
        begun.op.key.clone_from(&caller.idempotency);
        begun.op.taken_up = false;
        Ok(begun)
    }

    /// Takes its steps on this thread. If one fails, recovery finishes or undoes it just as after a crash; the error is the caller's either way.
    pub(crate) fn run_here(self) -> Result<O::Answer> {
        self.run_with(|intent, op| intent.run(op))
    }

    /// The same for an operation whose steps need what no journal can hold: an input that is read once.
    pub(crate) fn run_with(self, run: impl FnOnce(O, &mut Op<O::World>) -> Result<O::Answer>) -> Result<O::Answer> {
        let Begun { mut op, intent } = self;
        let kind = Operation::kind(&intent);
        let ran = catch(kind, || run(intent, &mut op));
        let closed = op.is_closed();
        let error = match ran {
            Ok(t) if closed => return Ok(t),
            Ok(_) => Error::internal(format!("{kind} ended without closing its row of the journal")),
            Err(e) => e,
        };
        if error.code() == Code::Crashed {
            op.taken.leave();
            return Err(error);
        }
        // What fails after the journal was closed (clearing away, a boot whose failure is the answer) undoes nothing.
        if !closed {
            after_failure(op, &error);
        }
        Err(error)
    }

    /// The same for work that follows from something the caller has been granted already: what keeps it from being done now is tried again by recovery.
    ///
    /// # Errors
    /// Only what stands for a crash.
    pub(crate) fn run_here_or_later(self) -> Result<()> {
        let (id, kind) = (self.op.id.clone(), Operation::kind(&self.intent));
        match self.run_here() {
            Err(e) if e.code() == Code::Crashed => Err(e),
            Err(e) => {
                tracing::warn!(operation = %id, kind, error = %e, "not done yet; trying again");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// What it is to do.
    pub(crate) fn intent(&self) -> &O {
        &self.intent
    }

    /// The same in the background. Returns when it has ended, or has been acknowledged and `wait` is over; one that does not acknowledge is waited for up to `wait`.
    ///
    /// # Errors
    /// Why it failed, unless its caller had been answered before.
    pub(crate) fn in_background(mut self, wait: Duration) -> Result<Ended<O::Answer>> {
        let began = Instant::now();
        let (send_early, early) = sync_channel(1);
        self.op.early = Some(send_early);
        let (send, result) = sync_channel(1);
        self.enqueue(move |ran| drop(send.send(ran)));
        let acknowledged = if O::ACKNOWLEDGES { early.recv().ok() } else { None };
        let left = if O::ACKNOWLEDGES && acknowledged.is_none() { Duration::MAX } else { wait.saturating_sub(began.elapsed()) };
        match (wait_for(&result, left), acknowledged) {
            (Some(Ok(Ok(t))), _) => Ok(Ended::Done(t)),
            (Some(Ok(Err(e))), Some(_)) if e.code() != Code::Crashed => Ok(Ended::Failed(e)),
            (Some(Ok(Err(e))), _) => Err(e),
            (None, Some(answer)) => Ok(Ended::Running(Some(serde_json::from_value(answer).map_err(|e| Error::internal(e.to_string()))?))),
            (None, None) => Ok(Ended::Running(None)),
            (Some(Err(())), _) => Err(Error::new(Code::Interrupted, "the server is stopping: its next start goes on with this operation")),
        }
    }

    /// Runs it on one of its lane's threads. `ended` gets the result there.
    fn enqueue(self, ended: impl FnOnce(Result<O::Answer>) + Send + 'static) {
        let (id, kind, lane) = (self.op.id.clone(), Operation::kind(&self.intent), Operation::lane(&self.intent));
        let world = self.op.world.clone();
        let job = move || {
            let ran = self.run_here();
            if let Err(e) = &ran {
                tracing::warn!(operation = %id, kind, error = %e, "operation failed");
            }
            ended(ran);
        };
        world.engine().workers.run(lane, Box::new(job));
    }
}

/// An intent as the journal has it: its fields and its tag.
pub(super) fn text<O: Operation>(intent: &O) -> Result<String> {
    let mut value = serde_json::to_value(intent).map_err(|e| Error::internal(format!("cannot write an intent: {e}")))?;
    let Value::Object(fields) = &mut value else { return Err(Error::internal("an intent is not an object")) };
    fields.insert("kind".into(), O::TAG.into());
    Ok(value.to_string())
}

impl<W: Engined> Entry<W> {
    /// The entry of one kind of operation in the list of all.
    pub(crate) const fn of<O: Operation<World = W>>() -> Self {
        Entry { tag: O::TAG, read: read::<O> }
    }
}

fn read<O: Operation>(intent: Value) -> Result<Box<dyn Journalled<O::World>>> {
    let intent: O = serde_json::from_value(intent).map_err(|e| Error::internal(format!("the intent of an operation cannot be read: {e}")))?;
    Ok(Box::new(intent))
}

impl<O: Operation> Journalled<O::World> for O {
    fn kind(&self) -> &'static str {
        Operation::kind(self)
    }

    fn claim(&self) -> Claim {
        Operation::claim(self)
    }

    fn keeps_locks(&self) -> bool {
        Operation::keeps_locks(self)
    }

    fn continues(&self, world: &O::World) -> Result<bool> {
        Operation::continues(self, world)
    }

    fn recover(&self, recovery: &Recovery<'_, O::World>) -> Result<()> {
        Operation::recover(self, recovery)
    }

    fn text(&self) -> Result<String> {
        text(self)
    }

    fn boxed(&self) -> Box<dyn Journalled<O::World>> {
        Box::new(self.clone())
    }

    fn run_on(&self, taken: Taken<O::World>) -> Result<()> {
        Begun { op: Op::of(taken, Journalled::boxed(self)), intent: self.clone() }.enqueue(drop);
        Ok(())
    }
}

/// The result, or nothing when the time is over; an error when there will be none.
fn wait_for<T>(result: &Receiver<T>, left: Duration) -> Option<Result<T, ()>> {
    if left == Duration::MAX {
        return Some(result.recv().map_err(drop));
    }
    match result.recv_timeout(left) {
        Ok(t) => Some(Ok(t)),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(Err(())),
    }
}
