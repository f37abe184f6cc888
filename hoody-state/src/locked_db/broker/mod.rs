//! The lock broker: who may lock which bytes of which file, decided so that SQLite never meets `database is locked`.
//!
//! Pure: no I/O, no clock, no threads. Requests and events come in with the time and a [`View`] of the files; answers come out. The idea and the
//! rules (numbered as here in the code): SQLite asks for its locks without waiting, and a refusal is `SQLITE_BUSY`; so a request is *answered late*
//! instead. That alone leaves two orders which no waiting resolves (two readers that both want to write; a snapshot gone stale before
//! the write), so a connection that might write takes the database's **intent** before it reads, and only one has it.
//!
//! 1. *Needs the intent*: on a `-shm`, the first shared READ, and WRITE; on a database in rollback mode, the PENDING read that opens a transaction, and
//!    every write lock; with a hot journal, everybody. On a database in WAL mode nobody.
//! 2. *Refused at once* if somebody is in the way, because SQLite takes it as a hint: exclusive READ marks, CKPT alone, exclusive DMS; write locks on a
//!    database in WAL mode. Everything else waits.
//! 3. *Stale on wake-up*: a READ that waited while the wal-index header changed is refused (SQLite looks again by itself) and its
//!    owner keeps the intent for [`Limits::keep`].
//! 4. *Released* when its owner holds no READ or WRITE (`-shm`), nothing (database), or the file became WAL.
//! 5. *Order*: first come, first served; the intent's holder never queues behind others.
//! 6. *Deadlock*: at each wait a search over all files. A read-phase intent in the cycle is revoked; else a waiter that only waits because it might write after it reads may read; else a waiter that has
//!    written nothing is refused, else the requester.
//! 7. *Readers*: a handle opened read-only needs no intent (nor the `-shm` of a connection that has its database open so). Others lose theirs when they only read for longer than [`Limits::read_phase`] ([`Limits::read_phase_rollback`]) and somebody
//!    waits; they count as readers until they write. Time in which no requests were taken does not count: a request to write may be among them.
//! 8. *Failure*: a wait ends at [`Limits::wait`], but for an ordinary `F_SETLKW`; a wait for oneself is answered at once.
//! 9. *Ordinary locks*: on a file that is not SQLite's, and on bytes that SQLite does not lock, everything is as natively: without waiting a request is
//!    refused at once, and none of this needs or keeps an intent, or counts as a write transaction.
//!
//! **Guarantees**, tested by properties: never two conflicting grants; every request is answered once; no cycle of waits is left; a waiter is
//! bypassed a bounded number of times. **Cost**: a request looks at each owner on that file, and one that waits at each wait that it leads to; time costs nothing
//! for files where nobody waits, and little for who waits already.

mod cycle;
mod file;
mod glance;
mod hold;
mod queries;
mod ranges;
mod request;
pub mod rules;
mod status;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

pub use hold::Waiting;
pub use ranges::{Range, Ranges};
pub use request::{Answer, Cause, Class, Counters, FileId, Limits, LockKind, Owner, Request, Stamp, Task, Tick, Ticket, View, VolumeId};
pub use status::{FileStatus, HolderStatus, WaiterStatus};

use file::{File, Intent, Waiter};
use glance::Glance;
use std::collections::{HashMap, HashSet};

/// A queue is looked through again after this, in microseconds: what a [`View`] shows may change without a request.
const LOOK_AGAIN: Tick = 20_000;
/// The same where somebody is in the way whom the broker does not know, and who does not say when he goes.
const TRY_AGAIN: Tick = 1_000;

/// The broker. See the [module](self).
#[derive(Debug)]
pub struct Broker {
    files: HashMap<FileId, File>,
    limits: Limits,
    counters: Counters,
    /// Where each thread waits.
    waiting: HashMap<u32, (FileId, Ticket)>,
    /// Which thread used a connection; to notice processes that move connections between threads.
    users: HashMap<Owner, u32>,
    migrating: HashSet<u32>,
    /// Volumes whose writes are held, and by how many.
    held_volumes: HashMap<VolumeId, u32>,
    /// They are held for good.
    refuses_held_back: bool,
    /// Requests are not taken just now: who only seems to read may have asked to write.
    deaf: bool,
    /// The files for which time matters; some for which it does no longer may be among them.
    timed: HashSet<FileId>,
    judge: cycle::Judge,
}

impl Broker {
    /// An empty table.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Broker {
            files: HashMap::new(),
            limits,
            counters: Counters::default(),
            waiting: HashMap::new(),
            users: HashMap::new(),
            migrating: HashSet::new(),
            held_volumes: HashMap::new(),
            refuses_held_back: false,
            deaf: false,
            timed: HashSet::new(),
            judge: cycle::Judge::default(),
        }
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Asks for a lock: the answer is in `out`, or comes later from another call.
    pub fn lock(&mut self, now: Tick, view: &dyn View, request: Request, out: &mut Vec<Answer>) {
        let view = &Glance::new(view);
        self.note_user(request.owner, request.task);
        let file = self.files.entry(request.file).or_insert_with(|| File::new(request.class, request.volume));
        file.class = request.class;
        file.volume = request.volume;
        // A thread that acts for a connection is known even if the kernel only tells it with the next request.
        if let Some(held) = file.holders.get_mut(&request.owner) {
            held.task = request.task;
        }
        if let Some(intent) = &mut file.intent
            && intent.owner == request.owner
        {
            intent.task = request.task;
        }
        if rules::disproves_reader(file, &request) && file.disproved.insert(request.owner) {
            self.counters.upgrades_after_revocation += 1;
        }
        if rules::needs_intent(file, &request, view)
            && let Some(ended) = file.ended.remove(&request.owner)
        {
            if now.saturating_sub(ended) <= self.limits.quick {
                file.quick.insert(request.owner)
            } else {
                file.quick.remove(&request.owner)
            };
        }
        let grantable = self.is_grantable(&request, None, view);
        if grantable && self.keep_others_out(&request, view) {
            self.grant(now, &request, now, view, out);
            self.pump(now, view, request.file, out);
            return;
        }
        if grantable && self.may_be_waited_for(&request) {
            self.answer(out, request.ticket, Err(Cause::Conflict), 0);
            self.forget_if_idle(request.file);
            return;
        }
        // Grantable: somebody is in the way whom the broker does not know.
        let in_the_way = grantable || self.files.get(&request.file).is_some_and(|f| f.conflicts(request.owner, request.range, request.kind).next().is_some());
        let refusal = match request.class {
            class if !request.wait && rules::is_ordinary(class, request.range) => Some(Cause::Conflict),
            _ if self.refuses_held_back && self.is_held_back(&request) => Some(Cause::Conflict),
            _ if rules::is_hint(&request, view) && (in_the_way || self.is_held_back(&request)) => Some(Cause::Hint),
            _ => None,
        };
        if let Some(cause) = refusal {
            self.answer(out, request.ticket, Err(cause), 0);
            self.forget_if_idle(request.file);
            return;
        }
        self.enqueue(now, view, request);
        if grantable && let Some(file) = self.files.get_mut(&request.file) {
            file.due = file.due.min(now + TRY_AGAIN);
        }
        self.break_cycles(now, view, request.file, request.ticket, false, out);
    }

    fn enqueue(&mut self, now: Tick, view: &dyn View, request: Request) {
        let stamp = rules::takes_snapshot(&request).then(|| view.stamp(request.file));
        let waiter = Waiter { request, since: now, stamp, bypassed: 0, old: false };
        self.waiting.insert(request.task.tid, (request.file, request.ticket));
        self.counters.waits += 1;
        self.timed.insert(request.file);
        let due = now + LOOK_AGAIN.min(self.limits.doubt).min(self.limits.wait);
        let Some(file) = self.files.get_mut(&request.file) else { return };
        file.due = file.due.min(due);
        if file.heir == Some(request.owner) {
            file.heir = None;
            file.queue.push_front(waiter);
        } else {
            file.queue.push_back(waiter);
        }
    }

    /// Unlocks bytes.
    #[allow(clippy::too_many_arguments)]
    pub fn unlock(&mut self, now: Tick, view: &dyn View, id: FileId, owner: Owner, task: Task, range: Range, out: &mut Vec<Answer>) {
        let view = &Glance::new(view);
        self.note_user(owner, task);
        let Some(file) = self.files.get_mut(&id) else { return };
        let was_writing = file.is_writing(owner);
        file.set(now, owner, Some(task), range, None);
        view.let_others_in(id, range, &file.locks_in(range));
        let ended_write = was_writing && !file.is_writing(owner);
        self.settle(now, view, id, owner);
        if ended_write {
            self.tell_next_early(now, view, id, out);
        }
        self.pump(now, view, id, out);
    }

    /// All locks of an owner on a file go: a descriptor was closed, or the process died.
    pub fn close(&mut self, now: Tick, view: &dyn View, id: FileId, owner: Owner, out: &mut Vec<Answer>) {
        let view = &Glance::new(view);
        self.users.remove(&owner);
        let Some(file) = self.files.get_mut(&id) else { return };
        if let Some(held) = file.holders.remove(&owner) {
            for (range, _) in held.ranges.iter() {
                view.let_others_in(id, range, &file.locks_in(range));
            }
        }
        file.readers.remove(&owner);
        file.guests.remove(&owner);
        file.disproved.remove(&owner);
        file.quick.remove(&owner);
        file.ended.remove(&owner);
        if file.heir == Some(owner) {
            file.heir = None;
        }
        if file.has_intent(owner) {
            file.intent = None;
            self.pass_on(now, id);
        }
        self.pump(now, view, id, out);
    }

    /// Ends a wait from outside (a signal, a park). Nothing happens if it was answered already.
    pub fn cancel(&mut self, now: Tick, view: &dyn View, id: FileId, ticket: Ticket, cause: Cause, out: &mut Vec<Answer>) {
        if self.refuse_waiter(now, id, ticket, cause, out) {
            self.pump(now, &Glance::new(view), id, out);
        }
    }

    /// Ends many waits from outside, as [`cancel`](Self::cancel) ends one; how many of them there still were.
    pub fn cancel_all(&mut self, now: Tick, view: &dyn View, waits: &[(FileId, Ticket)], cause: Cause, out: &mut Vec<Answer>) -> usize {
        let view = &Glance::new(view);
        let (mut ended, mut files) = (0, HashSet::new());
        for (id, ticket) in waits {
            if self.refuse_waiter(now, *id, *ticket, cause, out) {
                ended += 1;
                files.insert(*id);
            }
        }
        // Each queue is gone through once, not once for each.
        for id in files {
            self.pump(now, view, id, out);
        }
        ended
    }

    /// Time passes: kept intents lapse, long readers lose theirs, waits end. Call it at least every few milliseconds while somebody waits.
    pub fn tick(&mut self, now: Tick, view: &dyn View, out: &mut Vec<Answer>) {
        let view = &Glance::new(view);
        let ids: Vec<FileId> = self.timed.iter().copied().collect();
        for id in ids {
            let lapsed = self.lapse(now, view, id);
            if self.files.get(&id).is_some_and(|f| now >= f.due) {
                self.look_through(now, view, id, out);
            } else if lapsed {
                self.pump(now, view, id, out);
            }
            if !self.files.get(&id).is_some_and(File::is_timed) {
                self.timed.remove(&id);
            }
        }
        self.judge(now, view, out);
    }

    /// Notices which waits have become old, and ends those that are over.
    fn look_through(&mut self, now: Tick, view: &dyn View, id: FileId, out: &mut Vec<Answer>) {
        let Some(file) = self.files.get_mut(&id) else { return };
        let (mut due, mut over) = (now + LOOK_AGAIN, Vec::new());
        for w in &mut file.queue {
            let age = now.saturating_sub(w.since);
            if !w.old && age >= self.limits.doubt {
                w.old = true;
                self.judge.wanted = true;
            } else if !w.old {
                due = due.min(w.since + self.limits.doubt);
            }
            if w.request.wait && rules::is_ordinary(w.request.class, w.request.range) {
                continue;
            }
            if age >= self.limits.wait {
                over.push(w.request.ticket);
            } else {
                due = due.min(w.since + self.limits.wait);
            }
        }
        file.due = due;
        for ticket in over {
            self.refuse_waiter(now, id, ticket, Cause::Timeout, out);
        }
        self.pump(now, view, id, out);
    }

    /// While requests are not taken, nobody is held to have only read.
    pub fn set_deaf(&mut self, deaf: bool) {
        self.deaf = deaf;
    }

    /// So long no requests were taken, or the machine was too busy to go on: that time does not count as reading.
    pub fn excuse(&mut self, now: Tick, by: Tick) {
        for intent in self.files.values_mut().filter_map(|f| f.intent.as_mut()) {
            intent.since = (intent.since + by).min(now);
        }
    }

    /// Whether anything happens by time alone.
    #[must_use]
    pub fn needs_ticks(&self) -> bool {
        !self.waiting.is_empty() || self.timed.iter().any(|id| self.files.get(id).is_some_and(File::is_timed))
    }

    /// What ends by time alone; whether anything did.
    fn lapse(&mut self, now: Tick, view: &dyn View, id: FileId) -> bool {
        let Some(file) = self.files.get_mut(&id) else { return false };
        let Some(intent) = file.intent else {
            // Nobody has it and the next in line did not come back.
            return file.heir.take().is_some();
        };
        if let Some(until) = intent.kept_until {
            if now < until {
                return false;
            }
            file.quick.remove(&intent.owner);
            if let Some(i) = &mut file.intent {
                i.kept_until = None;
                // Its turn is over.
                i.turn = 0;
            }
            self.settle(now, view, id, intent.owner);
            return true;
        }
        let phase = if file.class == Class::Database { self.limits.read_phase_rollback } else { self.limits.read_phase };
        if self.deaf || now.saturating_sub(intent.since) < phase || file.is_writing(intent.owner) {
            return false;
        }
        let waited_for = file.heir.is_some() || file.queue.iter().any(|w| rules::needs_intent(file, &w.request, view));
        if waited_for {
            self.revoke(now, id);
        }
        waited_for
    }

    /// Takes the intent from a connection that only reads.
    fn revoke(&mut self, now: Tick, id: FileId) {
        let Some(file) = self.files.get_mut(&id) else { return };
        if let Some(intent) = file.intent.take() {
            file.readers.insert(intent.owner);
            self.counters.revoked += 1;
        }
        self.pass_on(now, id);
    }

    /// Rule 4: lets go of the intent when its owner needs it no longer.
    fn settle(&mut self, now: Tick, view: &dyn View, id: FileId, owner: Owner) {
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

    /// The free intent goes to the one that was told early to look again.
    fn pass_on(&mut self, now: Tick, id: FileId) {
        let keep = self.limits.keep;
        let Some(file) = self.files.get_mut(&id) else { return };
        if file.intent.is_none()
            && let Some(owner) = file.heir.take()
        {
            file.intent = Some(Intent { owner, task: Task::default(), since: now, turn: now, kept_until: Some(now + keep) });
        }
    }

    /// A commit has just made the next waiter's snapshot stale: telling it now lets it look again while the writer ends its transaction.
    fn tell_next_early(&mut self, now: Tick, view: &dyn View, id: FileId, out: &mut Vec<Answer>) {
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

    fn is_grantable(&self, r: &Request, position: Option<usize>, view: &dyn View) -> bool {
        let Some(file) = self.files.get(&r.file) else { return true };
        // What refuses most waiters comes first: all of them are asked again with each change.
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

    /// Keeps those out whom the broker does not know; false if one of them is in the way. Who might write what it is about to read waits for those who write
    /// already: afterwards it would be refused.
    fn keep_others_out(&self, r: &Request, view: &dyn View) -> bool {
        let Some(file) = self.files.get(&r.file) else { return true };
        let writes = match r.class {
            Class::Plain => None,
            Class::Database => Some(rules::RESERVED),
            Class::Shm => Some(rules::WRITE),
        };
        let might_write = r.kind == LockKind::Read && rules::needs_intent(file, r, view);
        !(might_write && writes.is_some_and(|bytes| view.others_hold(r.file, bytes))) && view.keep_others_out(r.file, r.range, r.kind)
    }

    /// Whether users whom the broker does not know might wait for what this one holds: it cannot be left to wait for them.
    fn may_be_waited_for(&self, r: &Request) -> bool {
        let held = self.files.get(&r.file).and_then(|f| f.held(r.owner));
        held.is_some_and(|h| rules::read_bytes(r.class).is_some_and(|bytes| h.ranges.holds(bytes)))
    }

    fn grant(&mut self, now: Tick, r: &Request, since: Tick, view: &dyn View, out: &mut Vec<Answer>) {
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
        // A shared lock taken over an exclusive one may end a write, as in SQLite's way down from EXCLUSIVE.
        self.settle(now, view, r.file, r.owner);
        self.answer(out, r.ticket, Ok(()), now.saturating_sub(since));
    }

    /// Grants what has become possible, in order.
    fn pump(&mut self, now: Tick, view: &dyn View, id: FileId, out: &mut Vec<Answer>) {
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

    fn refuse_waiter(&mut self, now: Tick, id: FileId, ticket: Ticket, cause: Cause, out: &mut Vec<Answer>) -> bool {
        let Some(file) = self.files.get_mut(&id) else { return false };
        let Some(at) = file.position(ticket) else { return false };
        let Some(waiter) = file.queue.remove(at) else { return false };
        file.guests.remove(&waiter.request.owner);
        self.waiting.remove(&waiter.request.task.tid);
        self.answer(out, ticket, Err(cause), now.saturating_sub(waiter.since));
        true
    }

    fn answer(&mut self, out: &mut Vec<Answer>, ticket: Ticket, outcome: Result<(), Cause>, waited: Tick) {
        match outcome {
            Ok(()) if waited == 0 => self.counters.granted += 1,
            Ok(()) => self.counters.granted_late += 1,
            Err(cause) => *self.counters.refused.entry(cause).or_default() += 1,
        }
        self.counters.waited += waited;
        self.counters.longest_wait = self.counters.longest_wait.max(waited);
        out.push(Answer { ticket, outcome, waited });
    }

    fn forget_if_idle(&mut self, id: FileId) {
        if self.files.get(&id).is_some_and(File::is_idle) {
            self.files.remove(&id);
        }
    }

    /// Notices processes whose connections move between threads: there, "the thread that used it last" says little about who will go on.
    fn note_user(&mut self, owner: Owner, task: Task) {
        if task.tid == 0 {
            return;
        }
        let before = self.users.insert(owner, task.tid);
        if task.pid != 0 && before.is_some_and(|b| b != task.tid) {
            self.migrating.insert(task.pid);
        }
    }
}
