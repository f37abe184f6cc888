use super::engine::Engined;
use super::journal::Journalled;
use super::lock::{Claim, Held};
use super::recovery::to_value;
use super::taken::Taken;
use crate::catalog::idempotency::IdempotencyKey;
use crate::catalog::{Durability, Tx};
use crate::error::{Error, Result};
use crate::id::OperationId;
use crate::model::OperationStatus;
use crate::progress::{Progress, cancelled};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

/// An operation under way: its intent is in the journal, its locks are held.
pub(crate) struct Op<W: Engined> {
    pub id: OperationId,
    pub world: W,
    pub progress: Arc<Progress>,
    /// What recovery goes by.
    pub(super) intent: Box<dyn Journalled<W>>,
    pub(super) key: Option<IdempotencyKey>,
    /// Taken up from the journal: its key, if it has one, is known by the operation's id alone.
    pub(super) taken_up: bool,
    closed: AtomicBool,
    pub(super) early: Option<SyncSender<Value>>,
    pub(super) taken: Taken<W>,
}

impl<W: Engined> Op<W> {
    pub(super) fn of(taken: Taken<W>, intent: Box<dyn Journalled<W>>) -> Self {
        Op {
            id: taken.id.clone(),
            world: taken.world.clone(),
            progress: Arc::clone(&taken.registered.progress),
            intent,
            key: None,
            taken_up: true,
            closed: AtomicBool::new(false),
            early: None,
            taken,
        }
    }

    /// Whether its row of the journal has been closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Its locks, for an operation within this one.
    ///
    /// # Errors
    /// None: an operation that runs holds its locks.
    pub(crate) fn held(&self) -> Result<Held> {
        self.taken.held.clone().ok_or_else(|| Error::internal("an operation runs without its locks"))
    }

    /// Takes further locks, which are held until the operation has ended or been recovered. Their keys are of a later kind than those it holds.
    ///
    /// # Errors
    /// `operation_in_progress`.
    pub(crate) fn lock_also(&mut self, claim: Claim, patience: Duration) -> Result<()> {
        self.taken.also.push(self.world.engine().locks.take(claim, patience)?);
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
            tx.operation = Some(self.id.clone());
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
        if let Some(h) = &self.taken.held {
            h.ending(ending);
        }
    }

    /// Answers the caller now, and its key, while the rest goes on. For what recovery finds out by the intent and the world.
    pub(crate) fn acknowledge<T: Serialize>(&mut self, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<()> {
        self.step("tell")?;
        let answer = self.world.engine().write(Durability::Process, |tx| {
            tx.operation = Some(self.id.clone());
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
        O: Journalled<W>,
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
        O: Journalled<W>,
    {
        self.step("amend")?;
        let text = intent.text()?;
        let t = self.world.engine().write(durability, |tx| {
            tx.operation = Some(self.id.clone());
            let t = f(tx)?;
            tx.amend_operation(&self.id, &text)?;
            Ok(t)
        })?;
        self.intent = intent.boxed();
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
}
