//! Granting and refusing requests.

use super::file::Intent;
use super::{Answer, Broker, Cause, Class, FileId, LockKind, Request, TRY_AGAIN, Tick, Ticket, View, rules};

impl Broker {
    pub(super) fn is_grantable(&self, r: &Request, position: Option<usize>, view: &dyn View) -> bool {
        let Some(file) = self.files.get(&r.file) else { return true };
        // The check that refuses most waiters comes first, because each change examines all of them again.
        let has_intent = file.has_intent(r.owner);
        let needs = !has_intent && rules::needs_intent(file, r, view);
        if needs && (file.intent.is_some() || file.heir.is_some_and(|h| h != r.owner)) {
            return false;
        }
        if file.conflicts(r.owner, r.range, r.kind).next().is_some() || self.is_held_back(r) {
            return false;
        }
        let ahead = position.unwrap_or(file.queue.len());
        has_intent
            || !file.queue.iter().take(ahead).any(|e| {
                let e = &e.request;
                e.owner != r.owner
                    && ((e.range.overlaps(r.range) && (e.kind == LockKind::Write || r.kind == LockKind::Write))
                        || (needs && rules::needs_intent(file, e, view)))
            })
    }

    /// Keeps users that the broker does not know from taking conflicting locks; `false` if one of them already holds one. A connection that might write what it is
    /// about to read waits for unknown writers first, because afterwards it would be refused.
    pub(super) fn keep_others_out(&self, r: &Request, view: &dyn View) -> bool {
        let Some(file) = self.files.get(&r.file) else { return true };
        let writes = match r.class {
            Class::Plain => None,
            Class::Database => Some(rules::RESERVED),
            Class::Shm => Some(rules::WRITE),
        };
        let might_write = r.kind == LockKind::Read && rules::needs_intent(file, r, view);
        !(might_write && writes.is_some_and(|bytes| view.others_hold(r.file, bytes))) && view.keep_others_out(r.file, r.range, r.kind)
    }

    /// Whether users that the broker does not know might wait for a lock of this owner. Then it must not wait for them.
    pub(super) fn may_be_waited_for(&self, r: &Request) -> bool {
        let held = self.files.get(&r.file).and_then(|f| f.held(r.owner));
        held.is_some_and(|h| super::bytes::read_bytes(r.class).is_some_and(|bytes| h.ranges.holds(bytes)))
    }

    pub(super) fn grant(&mut self, now: Tick, r: &Request, since: Tick, view: &dyn View, out: &mut Vec<Answer>) {
        if let Some(file) = self.files.get_mut(&r.file) {
            if rules::needs_intent(file, r, view) && !file.has_intent(r.owner) {
                file.intent = Some(Intent { owner: r.owner, task: r.task, since: now, turn: now, kept_until: None });
                if file.heir == Some(r.owner) {
                    file.heir = None;
                }
            }
            if let Some(intent) = &mut file.intent
                && intent.owner == r.owner
                && intent.kept_until.take().is_some()
            {
                intent.since = now;
            }
            if rules::begins_write(r) && (file.readers.remove(&r.owner) | file.guests.remove(&r.owner)) {
                self.counters.upgrades_after_revocation += 1;
            }
            file.set(now, r.owner, Some(r.task), r.range, Some(r.kind));
            if rules::is_ordinary(r.class, r.range)
                && let Some(held) = file.holders.get_mut(&r.owner)
            {
                held.ordinary = true;
            }
        }
        // A shared lock that replaces an exclusive one may end a write, as when SQLite goes from EXCLUSIVE to SHARED.
        self.settle(now, view, r.file, r.owner);
        self.answer(out, r.ticket, Ok(()), now.saturating_sub(since));
    }

    /// Grants the waiting requests that have become grantable, in order.
    pub(super) fn pump(&mut self, now: Tick, view: &dyn View, id: FileId, out: &mut Vec<Answer>) {
        let mut at = 0;
        while let Some(waiter) = self.files.get(&id).and_then(|f| f.queue.get(at)) {
            if !self.is_grantable(&waiter.request, Some(at), view) {
                at += 1;
                continue;
            }
            let (request, since, stamp) = (waiter.request, waiter.since, waiter.stamp);
            let is_stale = stamp.is_some_and(|s| s != view.stamp(id));
            if !is_stale && !self.keep_others_out(&request, view) {
                if let Some(file) = self.files.get_mut(&id) {
                    file.due = file.due.min(now + TRY_AGAIN);
                }
                at += 1;
                continue;
            }
            let Some(file) = self.files.get_mut(&id) else { break };
            file.queue.remove(at);
            for earlier in file.queue.iter_mut().take(at) {
                earlier.bypassed += 1;
            }
            self.waiting.remove(&request.task.tid);
            if is_stale {
                if rules::needs_intent(file, &request, view) {
                    let kept_until = Some(now + self.limits.keep);
                    file.intent = Some(Intent { owner: request.owner, task: request.task, since: now, turn: now, kept_until });
                }
                file.guests.remove(&request.owner);
                self.answer(out, request.ticket, Err(Cause::Stale), now.saturating_sub(since));
            } else {
                self.grant(now, &request, since, view, out);
            }
            at = 0;
        }
        self.forget_if_idle(id);
    }

    pub(super) fn refuse_waiter(&mut self, now: Tick, id: FileId, ticket: Ticket, cause: Cause, out: &mut Vec<Answer>) -> bool {
        let Some(file) = self.files.get_mut(&id) else { return false };
        let Some(at) = file.position(ticket) else { return false };
        let Some(waiter) = file.queue.remove(at) else { return false };
        file.guests.remove(&waiter.request.owner);
        self.waiting.remove(&waiter.request.task.tid);
        self.answer(out, ticket, Err(cause), now.saturating_sub(waiter.since));
        true
    }

    pub(super) fn answer(&mut self, out: &mut Vec<Answer>, ticket: Ticket, outcome: Result<(), Cause>, waited: Tick) {
        match outcome {
            Ok(()) if waited == 0 => self.counters.granted += 1,
            Ok(()) => self.counters.granted_late += 1,
            Err(cause) => *self.counters.refused.entry(cause).or_default() += 1,
        }
        self.counters.waited += waited;
        self.counters.longest_wait = self.counters.longest_wait.max(waited);
        out.push(Answer { ticket, outcome, waited });
    }
}
