use super::journal::{self, Journalled};
use super::progress::Registered;
use super::recovery;
use super::{Caller, Claim, Engined, Held, Operation, Progress, cancelled};
use crate::catalog::idempotency::IdempotencyKey;
use crate::catalog::{Durability, Tx};
use crate::error::{Code, Error, Result};
use crate::id::{OperationId, ProjectId};
use crate::model::OperationStatus;
use serde::Serialize;
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// An operation under way: its intent is in the journal, its locks are held.
pub(crate) struct Op<W: Engined> {
    pub id: OperationId,
    pub world: W,
    pub progress: Arc<Progress>,
    /// What recovery goes by.
    pub(super) intent: Box<dyn Journalled<W>>,
    key: Option<IdempotencyKey>,
    /// Taken up from the journal: its key, if it has one, is known by the operation's id alone.
    taken_up: bool,
    closed: AtomicBool,
    early: Option<SyncSender<Value>>,
    /// Dropped before `registered`: whoever waits for the end may begin the next change at once.
    pub(super) held: Option<Held>,
    pub(super) also: Vec<Held>,
    pub(super) registered: Registered,
}

impl<W: Engined> Op<W> {
    pub(super) fn new(world: &W, id: OperationId, intent: Box<dyn Journalled<W>>, held: Option<Held>) -> Self {
        let registered = world.engine().registry.add(&id);
        Self::of(world, id, intent, held, registered)
    }

    pub(super) fn of(world: &W, id: OperationId, intent: Box<dyn Journalled<W>>, held: Option<Held>, registered: Registered) -> Self {
        let progress = Arc::clone(&registered.progress);
        Op {
            id,
            world: world.clone(),
            progress,
            intent,
            key: None,
            taken_up: true,
            closed: AtomicBool::new(false),
            early: None,
            held,
            also: Vec::new(),
            registered,
        }
    }

    /// Its locks, for an operation within this one.
    ///
    /// # Errors
    /// None: an operation that runs holds its locks.
    pub(crate) fn held(&self) -> Result<Held> {
        self.held.clone().ok_or_else(|| Error::internal("an operation runs without its locks"))
    }

    /// Takes further locks, which are held until the operation has ended or been recovered. Their keys are of a later kind than those it holds.
    ///
    /// # Errors
    /// `operation_in_progress`.
    pub(crate) fn lock_also(&mut self, claim: Claim, patience: Duration) -> Result<()> {
        self.also.push(self.world.engine().locks.take(claim, patience)?);
        Ok(())
    }

    /// A step is about to be taken.
    ///
    /// # Errors
    /// `operation_cancelled`, and what a test's hook says.
    pub(crate) fn step(&self, name: &'static str) -> Result<()> {
        self.progress.set_step(name);
        if self.progress.must_stop() {
            return Err(cancelled());
        }
        self.world.engine().hook.step(self.intent.kind(), name)
    }

    /// Ends the operation: its result and the end of its journal row are one transaction.
    pub(crate) fn finish<T: Serialize>(&self, durability: Durability, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        self.step("finish")?;
        self.about_to_end(true);
        let ended = self.world.engine().write(durability, |tx| {
            let t = f(tx)?;
            tx.answer_key(self.key.as_ref(), &t)?;
            if self.taken_up {
                tx.answer_key_of(&self.id, &to_value(&t)?)?;
            }
            tx.close_operation(&self.id, OperationStatus::Succeeded, None)?;
            Ok(t)
        });
        match ended {
            Ok(t) => {
                self.closed.store(true, Ordering::Relaxed);
                Ok(t)
            }
            Err(e) => {
                self.about_to_end(false);
                Err(e)
            }
        }
    }

    fn about_to_end(&self, ending: bool) {
        if let Some(h) = &self.held {
            h.ending(ending);
        }
    }

    /// Answers the caller now, and its key, while the rest goes on. For what recovery finds out by the intent and the world.
    pub(crate) fn acknowledge<T: Serialize>(&mut self, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<()> {
        self.step("tell")?;
        let answer = self.world.engine().write(Durability::Process, |tx| {
            let t = f(tx)?;
            tx.answer_key(self.key.as_ref(), &t)?;
            to_value(&t)
        })?;
        self.send_early(answer);
        Ok(())
    }

    /// The same, and writes what has been learnt on the way into the intent.
    pub(crate) fn acknowledge_amended<O, T>(&mut self, durability: Durability, intent: &O, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<()>
    where
        O: Operation<World = W>,
        T: Serialize,
    {
        let key = self.key.clone();
        let answer = self.amend(durability, intent, |tx| {
            let t = f(tx)?;
            tx.answer_key(key.as_ref(), &t)?;
            to_value(&t)
        })?;
        self.send_early(answer);
        Ok(())
    }

    /// Writes what has been learnt on the way into the intent, which may become another operation's: recovery is that one's from then on.
    pub(crate) fn amend<O, T>(&mut self, durability: Durability, intent: &O, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T>
    where
        O: Operation<World = W>,
    {
        self.step("amend")?;
        let t = self.world.engine().write(durability, |tx| {
            let t = f(tx)?;
            journal::amend_in(tx, &self.id, intent)?;
            Ok(t)
        })?;
        self.intent = Box::new(intent.clone());
        Ok(t)
    }

    fn send_early(&mut self, answer: Value) {
        if let Some(early) = self.early.take() {
            let _ = early.send(answer);
        }
    }

    /// What the operation ends with is not the answer to its caller's key: that is given by [`Tx::answer_key_of`].
    pub(crate) fn keep_key_open(&mut self) {
        self.key = None;
        self.taken_up = false;
    }

    /// After an error that stands for a crash: everything stays as it is.
    fn leave(mut self) {
        self.also.drain(..).chain(self.held.take()).for_each(Held::keep);
    }
}

pub(super) fn to_value<T: Serialize>(t: &T) -> Result<Value> {
    serde_json::to_value(t).map_err(|e| Error::internal(format!("cannot write an answer: {e}")))
}

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
        let id = OperationId::generate();
        Begun { op: Op::new(world, id, Box::new(intent.clone()), Some(held)), intent }
    }

    /// Journals it within a change of the catalog.
    pub(crate) fn journal_in(&self, tx: &mut Tx<'_>, project: Option<&ProjectId>) -> Result<()> {
        journal::open_in(tx, &self.op.id, &self.intent, project)
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
            begun.journal_in(tx, project)?;
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
        let closed = op.closed.load(Ordering::Relaxed);
        let error = match ran {
            Ok(t) if closed => return Ok(t),
            Ok(_) => Error::internal(format!("{kind} ended without closing its row of the journal")),
            Err(e) => e,
        };
        if error.code() == Code::Crashed {
            op.leave();
            return Err(error);
        }
        // What fails after the journal was closed (clearing away, a boot whose failure is the answer) undoes nothing.
        if !closed {
            recovery::after_failure(op, &error);
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
        let (id, kind, lane) = (self.op.id.clone(), Operation::kind(&self.intent), Operation::lane(&self.intent));
        let world = self.op.world.clone();
        let job = move || {
            let ran = self.run_here();
            if let Err(e) = &ran {
                tracing::warn!(operation = %id, kind, error = %e, "operation failed");
            }
            let _ = send.send(ran);
        };
        world.engine().workers.run(lane, Box::new(job));
        drop(world);
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

/// Turns a panic into an error, so that it is recovered like any other failure.
pub(super) fn catch<T>(kind: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Error::internal(format!("{kind} panicked ({}): this is a bug of hoody-state, please report it", said.unwrap_or_else(|| "no message".into()))))
    })
}
