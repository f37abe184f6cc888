//! The intent of a file: revoking, releasing and passing it on.

use super::file::Intent;
use super::{Answer, Broker, Cause, Class, FileId, Owner, Task, Tick, View, rules};

impl Broker {
    /// Takes the intent from a connection that only reads.
    pub(super) fn revoke(&mut self, now: Tick, id: FileId) {
        let Some(file) = self.files.get_mut(&id) else { return };
        if let Some(intent) = file.intent.take() {
            file.readers.insert(intent.owner);
            self.counters.revoked += 1;
        }
        self.pass_on(now, id);
    }

    /// Rule 4: releases the intent when its owner no longer needs it.
    pub(super) fn settle(&mut self, now: Tick, view: &dyn View, id: FileId, owner: Owner) {
        let Some(file) = self.files.get_mut(&id) else { return };
        let Some(intent) = file.intent.filter(|i| i.owner == owner) else { return };
        let is_wal = file.class == Class::Database && view.is_wal(id);
        if intent.kept_until.is_some() || rules::keeps_intent(file.class, file, owner, is_wal) {
            return;
        }
        file.ended.insert(owner, now);
        let goes_on = file.has_turn_left(owner, now, &self.limits) && file.heir.is_none() && !is_wal;
        if goes_on && let Some(intent) = &mut file.intent {
            intent.kept_until = Some(now + self.limits.quick);
            return;
        }
        file.intent = None;
        self.pass_on(now, id);
    }

    /// Gives a free intent to the owner that was refused early so that it reads the header again.
    pub(super) fn pass_on(&mut self, now: Tick, id: FileId) {
        let keep = self.limits.keep;
        let Some(file) = self.files.get_mut(&id) else { return };
        if file.intent.is_none()
            && let Some(owner) = file.heir.take()
        {
            file.intent = Some(Intent { owner, task: Task::default(), since: now, turn: now, kept_until: Some(now + keep) });
        }
    }

    /// A commit has just made the next waiter's snapshot stale: refusing it now lets it read the header again while the writer ends its transaction.
    pub(super) fn refuse_next_early(&mut self, now: Tick, view: &dyn View, id: FileId, out: &mut Vec<Answer>) {
        let Some(file) = self.files.get(&id) else { return };
        if file.class != Class::Shm || file.heir.is_some() || file.intent.is_none_or(|i| file.has_turn_left(i.owner, now, &self.limits)) {
            return;
        }
        let Some(next) = file.queue.iter().find(|w| rules::needs_intent(file, &w.request, view)) else { return };
        let (ticket, owner) = (next.request.ticket, next.request.owner);
        if next.stamp.is_some_and(|s| s != view.stamp(id))
            && self.refuse_waiter(now, id, ticket, Cause::Stale, out)
            && let Some(file) = self.files.get_mut(&id)
        {
            file.heir = Some(owner);
        }
    }
}
