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
pub use ranges::{Range, Ranges};
pub use request::{Answer, Cause, Class, Counters, FileId, Limits, LockKind, Owner, Request, Stamp, Task, Tick, Ticket, View, VolumeId};
pub use status::{FileStatus, HolderStatus, WaiterStatus};

use file::{File, Waiter};
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
