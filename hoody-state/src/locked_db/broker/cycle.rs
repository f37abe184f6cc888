//! Rule 6: no cycle of waits is left.

use super::{Answer, Broker, Cause, Class, FileId, LockKind, Owner, Task, Tick, Ticket, View, rules};
use std::collections::HashSet;

/// One wait of a cycle: who waits, and what it waits for.
#[derive(Debug, Clone, Copy)]
struct Hop {
    file: FileId,
    ticket: Ticket,
    blocker: Owner,
    /// It waits for the intent that `blocker` has, not for a lock.
    by_intent: bool,
}

impl Broker {
    /// Breaks every cycle that the wait `ticket` closes. With `doubtful`, cycles through processes that move connections between threads count too.
    pub(super) fn break_cycles(&mut self, now: Tick, view: &dyn View, file: FileId, ticket: Ticket, doubtful: bool, out: &mut Vec<Answer>) {
        // Each round revokes an intent or answers a waiter, so this ends.
        while let Some(cycle) = self.find_cycle(view, file, ticket, doubtful) {
            if let Some(hop) =
                cycle.iter().find(|h| h.by_intent && self.files.get(&h.file).is_some_and(|f| f.has_intent(h.blocker) && !f.is_writing(h.blocker)))
            {
                let id = hop.file;
                self.revoke(now, id);
                self.pump(now, view, id, out);
                continue;
            }
            let idle = cycle.iter().find(|h| self.task_of(h.file, h.ticket).is_some_and(|t| !self.task_writes(t)));
            let victim = idle.map_or((file, ticket), |h| (h.file, h.ticket));
            let cause = if cycle.len() == 1 { Cause::OwnThread } else { Cause::Deadlock };
            self.refuse_waiter(now, victim.0, victim.1, cause, out);
            self.pump(now, view, victim.0, out);
        }
    }

    fn task_of(&self, file: FileId, ticket: Ticket) -> Option<Task> {
        self.files.get(&file)?.queue.iter().find(|w| w.request.ticket == ticket).map(|w| w.request.task)
    }

    /// Whether a thread is in the middle of changing some database.
    fn task_writes(&self, task: Task) -> bool {
        self.files.values().any(|f| f.class != Class::Plain && f.holders.iter().any(|(o, h)| h.task.tid == task.tid && f.is_writing(*o)))
    }

    fn find_cycle(&self, view: &dyn View, file: FileId, ticket: Ticket, doubtful: bool) -> Option<Vec<Hop>> {
        let start = self.task_of(file, ticket)?.tid;
        let mut path = Vec::new();
        let mut seen = HashSet::new();
        self.search(view, file, ticket, start, doubtful, &mut path, &mut seen).then_some(path)
    }

    #[allow(clippy::too_many_arguments)]
    fn search(&self, view: &dyn View, file: FileId, ticket: Ticket, start: u32, doubtful: bool, path: &mut Vec<Hop>, seen: &mut HashSet<Ticket>) -> bool {
        if !seen.insert(ticket) {
            return false;
        }
        for (blocker, task, by_intent) in self.blockers(view, file, ticket) {
            if task.tid == 0 || (!doubtful && self.migrating.contains(&task.pid)) {
                continue;
            }
            path.push(Hop { file, ticket, blocker, by_intent });
            if task.tid == start {
                return true;
            }
            if let Some((f, t)) = self.waiting.get(&task.tid)
                && self.search(view, *f, *t, start, doubtful, path, seen)
            {
                return true;
            }
            path.pop();
        }
        false
    }

    /// For whom a waiter waits, with the thread that acts for it.
    fn blockers(&self, view: &dyn View, id: FileId, ticket: Ticket) -> Vec<(Owner, Task, bool)> {
        let Some(file) = self.files.get(&id) else { return Vec::new() };
        let Some(at) = file.queue.iter().position(|w| w.request.ticket == ticket) else { return Vec::new() };
        let Some(r) = file.queue.get(at).map(|w| w.request) else { return Vec::new() };
        let mut found: Vec<(Owner, Task, bool)> = file.conflicts(r.owner, r.range, r.kind).map(|(o, t, _, _)| (o, t, false)).collect();
        if file.has_intent(r.owner) {
            return found;
        }
        let needs = rules::needs_intent(file, &r, view);
        if let Some(intent) = file.intent.filter(|_| needs) {
            let task = file.held(intent.owner).map_or(intent.task, |h| h.task);
            found.push((intent.owner, task, true));
        }
        for e in file.queue.iter().take(at).map(|w| &w.request).filter(|e| e.owner != r.owner) {
            let overlap = e.range.overlaps(r.range) && (e.kind == LockKind::Write || r.kind == LockKind::Write);
            if overlap || (needs && rules::needs_intent(file, e, view)) {
                found.push((e.owner, e.task, false));
            }
        }
        found
    }
}
