//! The lock broker decides which connection may lock which bytes of which file, so that SQLite never meets `database is locked`.
//!
//! It does no I/O, has no clock and starts no threads. Requests and events come in with the time and a [`View`] of the files; answers come out.
//!
//! **Idea.** SQLite asks for its locks without waiting, and a refusal is `SQLITE_BUSY`. The broker does not refuse: it *answers late*. That alone leaves two
//! situations that no waiting resolves: two readers that both want to write, and a snapshot that becomes stale before the write. So a connection that might
//! write takes the **intent** of the database before it reads. Only one connection has the intent.
//!
//! **Rules** (the code refers to them by number).
//!
//! 1. *Needs the intent*: on a `-shm`, the first shared READ, and WRITE; on a database in rollback mode, the PENDING read that opens a transaction, and
//!    every write lock; with a hot journal, every request. On a database in WAL mode none does.
//! 2. *Refused at once* if there is a conflict, because SQLite takes the refusal as a hint: exclusive READ marks, CKPT alone, exclusive DMS; write locks on a
//!    database in WAL mode. Everything else waits.
//! 3. *Stale on wake-up*: a READ that waited while the wal-index header changed is refused (SQLite then reads the header again and retries), and its
//!    owner keeps the intent for [`Limits::keep`].
//! 4. *The intent is released* when its owner holds no READ or WRITE (`-shm`), no lock (database), or the database changed to WAL mode.
//! 5. *Order*: first come, first served. The holder of the intent never queues behind others.
//! 6. *Deadlock*: each new wait starts a search over all files. If it closes a cycle, an intent in it whose holder only reads is revoked; else a waiter that
//!    waits only because it might write after reading may read; else a waiter that has written nothing is refused; else the new request is.
//! 7. *Readers*: a handle opened read-only needs no intent, and neither does the `-shm` of a connection that opened its database read-only. Other connections
//!    lose the intent if they only read for longer than [`Limits::read_phase`] ([`Limits::read_phase_rollback`]) while others wait; they count as readers until
//!    they write. Time in which no requests were received does not count, because one of those requests may be a write.
//! 8. *Failure*: a wait ends at [`Limits::wait`], except for an ordinary `F_SETLKW`. A request that would wait for its own thread is answered at once.
//! 9. *Ordinary locks*: files that are not SQLite's, and bytes that SQLite does not lock, behave as on any file system: a request that does not ask to wait is
//!    refused at once. Such locks neither need nor keep an intent, and do not count as a write transaction.
//!
//! **Guarantees**, checked by property tests: never two conflicting grants; every request is answered exactly once; no cycle of waits remains; a waiter is
//! bypassed a bounded number of times. **Cost**: a request visits each owner on its file, and a request that has to wait also visits each wait that it leads to.
//! Time costs nothing for files without waiters, and little for those with waiters.

mod bytes;
mod cycle;
mod file;
mod glance;
mod grant;
mod hold;
mod intent;
mod queries;
mod ranges;
mod request;
pub mod rules;
mod status;
mod time;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

pub use hold::Waiting;
pub use ranges::{LockKind, Range, Ranges};
pub use request::{Answer, Cause, Class, Counters, FileId, Limits, Owner, Request, Stamp, Task, Tick, Ticket, View, VolumeId};
pub use status::{FileStatus, HolderStatus, WaiterStatus};

use file::{File, Waiter};
use glance::Glance;
use std::collections::{HashMap, HashSet};

/// The time after which a queue is examined again, in microseconds: what a [`View`] shows may change without a request.
const LOOK_AGAIN: Tick = 20_000;
/// The same if a user unknown to the broker holds a conflicting lock: the broker is not notified when it is released.
const TRY_AGAIN: Tick = 1_000;

/// The broker. See the [module](self).
#[derive(Debug)]
pub struct Broker {
    files: HashMap<FileId, File>,
    limits: Limits,
    counters: Counters,
    /// Where each thread waits.
    waiting: HashMap<u32, (FileId, Ticket)>,
    /// Which thread last used a connection, to recognise processes that move connections between threads.
    users: HashMap<Owner, u32>,
    migrating: HashSet<u32>,
    /// Volumes whose writes are held back, and the number of holds on each.
    held_volumes: HashMap<VolumeId, u32>,
    /// Whether they are held for ever, so that requests are refused instead of held back.
    refuses_held_back: bool,
    /// Whether no requests are received at the moment: a connection that seems to only read may have asked to write.
    is_paused: bool,
    /// The files for which time matters. It may contain files for which it no longer does.
    timed: HashSet<FileId>,
    judge: cycle::Judge,
}

impl Broker {
    /// A broker without locks.
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
            is_paused: false,
            timed: HashSet::new(),
            judge: cycle::Judge::default(),
        }
    }

    /// Counts of what happened so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Requests a lock. The answer is put into `out`, now or by a later call.
    pub fn lock(&mut self, now: Tick, view: &dyn View, request: Request, out: &mut Vec<Answer>) {
        let view = &Glance::new(view);
        self.note_user(request.owner, request.task);
        let file = self.files.entry(request.file).or_insert_with(|| File::new(request.class, request.volume));
        file.class = request.class;
        file.volume = request.volume;
        // Remembers the thread that acts for the connection, even if the kernel names it only with the next request.
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
        // If it is grantable, a user unknown to the broker holds a conflicting lock.
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
        view.allow_others(id, range, &file.locks_in(range));
        let ended_write = was_writing && !file.is_writing(owner);
        self.settle(now, view, id, owner);
        if ended_write {
            self.refuse_next_early(now, view, id, out);
        }
        self.pump(now, view, id, out);
    }

    /// Removes all locks of an owner on a file: a descriptor was closed, or the process died.
    pub fn close(&mut self, now: Tick, view: &dyn View, id: FileId, owner: Owner, out: &mut Vec<Answer>) {
        let view = &Glance::new(view);
        self.users.remove(&owner);
        let Some(file) = self.files.get_mut(&id) else { return };
        if let Some(held) = file.holders.remove(&owner) {
            for (range, _) in held.ranges.iter() {
                view.allow_others(id, range, &file.locks_in(range));
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

    /// Ends a wait from outside (a signal, a park). Does nothing if it was answered already.
    pub fn cancel(&mut self, now: Tick, view: &dyn View, id: FileId, ticket: Ticket, cause: Cause, out: &mut Vec<Answer>) {
        if self.refuse_waiter(now, id, ticket, cause, out) {
            self.pump(now, &Glance::new(view), id, out);
        }
    }

    /// Ends many waits from outside, as [`cancel`](Self::cancel) ends one. Returns how many of them still waited.
    pub fn cancel_all(&mut self, now: Tick, view: &dyn View, waits: &[(FileId, Ticket)], cause: Cause, out: &mut Vec<Answer>) -> usize {
        let view = &Glance::new(view);
        let (mut ended, mut files) = (0, HashSet::new());
        for (id, ticket) in waits {
            if self.refuse_waiter(now, *id, *ticket, cause, out) {
                ended += 1;
                files.insert(*id);
            }
        }
        // Each queue is examined once, not once for each wait.
        for id in files {
            self.pump(now, view, id, out);
        }
        ended
    }

    fn forget_if_idle(&mut self, id: FileId) {
        if self.files.get(&id).is_some_and(File::is_idle) {
            self.files.remove(&id);
        }
    }

    /// Recognises processes whose connections move between threads: for those, the thread that used a connection last is not necessarily the one that continues.
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
