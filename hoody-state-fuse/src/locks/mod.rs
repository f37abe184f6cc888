//! The lock service: I/O, time and threads around the pure broker of `hoody_state::locked_db`.
//!
//! A request is answered by calling its `answer` once, now or later, from the thread that made it possible, and never while the table is locked.
//! Lock order: the table's mutex is the only lock; a file's class and name, and the bell of the ticker are leaves.
//!
//! `explored` compiles this a second time with an explorer of schedules, which replaces `super::threads`.

mod hold;
mod look;
mod mirror;
mod responsiveness;
mod signals;
mod ticker;

pub use hold::{Held, Unquiet};
pub use hoody_state::locked_db::broker::{Class, Limits};
pub use mirror::{Mirror, keep_with};
pub use responsiveness::Busy;
pub(crate) use signals::process_of;

use crate::descriptors::Taken;
use crate::recognise::Content;

use super::threads::{Clock, Condvar, Mutex, MutexGuard};
use hoody_state::locked_db::broker::{self, Broker, Cause, Counters, FileId, FileStatus, LockKind, Owner, Range, Request, Task, Tick, Ticket, VolumeId, rules};
use look::Look;
use nix::libc::{EAGAIN, EDEADLK, EINTR, ESTALE, F_RDLCK, F_UNLCK, F_WRLCK};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use ticker::Bell;

/// A backing inode that locks are taken on. All its FUSE nodes share it.
#[derive(Debug)]
pub struct LockedFile {
    /// Its number in the broker.
    pub id: FileId,
    /// The volume through which it was looked up last: the files of a volume are quiesced together.
    pub volume: AtomicU64,
    /// Its kind now: a plain file may become a database.
    pub class: Mutex<Class>,
    /// A descriptor of the backing file, to read headers with positional reads.
    pub fd: OwnedFd,
    /// Where it was last looked up: the directory and its name there, to find its journal.
    pub place: Mutex<Option<(Arc<OwnedFd>, OsString)>>,
    /// Whether locks were taken on it that are not SQLite's and belong to the process.
    pub has_ordinary_locks: AtomicBool,
    /// Counts its descriptor.
    pub(crate) _taken: Option<Taken>,
    /// The locks on the backing file.
    pub mirror: Mirror,
}

impl LockedFile {
    /// Its kind now.
    #[must_use]
    pub fn class(&self) -> Class {
        *self.class.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes it a database, or the `-shm` of one.
    pub fn set_class(&self, class: Class) {
        *self.class.lock().unwrap_or_else(PoisonError::into_inner) = class;
    }

    /// Notes where it was looked up.
    pub fn set_place(&self, directory: Arc<OwnedFd>, name: OsString) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some((directory, name));
    }
}

/// A lock request of the kernel.
#[derive(Debug, Clone, Copy)]
pub struct LockCall {
    /// The FUSE node.
    pub node: u64,
    /// The open file handle.
    pub fh: u64,
    /// The lock owner: a process (POSIX) or an open file description (OFD).
    pub lock_owner: u64,
    /// The calling thread.
    pub tid: u32,
    /// The calling process; 0 if unknown (unlock).
    pub pid: u32,
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive.
    pub end: u64,
    /// `F_RDLCK`, `F_WRLCK`, `F_UNLCK`.
    pub kind: i32,
    /// Whether the caller asks to wait (`F_SETLKW`).
    pub wait: bool,
    /// Whether the handle was opened read-only.
    pub read_only: bool,
    /// Whether SQLite's locks belong to the connection (the handle) that takes them, and not to the process.
    pub apart: bool,
}

/// The owner of the locks of a handle. The top bit distinguishes handles from nodes.
const fn by_handle(lock_owner: u64, fh: u64) -> Owner {
    Owner { lock_owner, node: fh | 1 << 63 }
}

/// The handle of an owner.
fn handle_of(owner: Owner) -> Option<u64> {
    (owner.node >> 63 == 1).then_some(owner.node & !(1 << 63))
}

impl LockCall {
    /// The owner of a lock: the process, as natively, for ordinary locks; the connection for SQLite's.
    fn owner(&self, class: Class) -> Owner {
        let connection = self.apart && !rules::is_ordinary(class, self.range());
        if connection { by_handle(self.lock_owner, self.fh) } else { self.process() }
    }

    fn process(&self) -> Owner {
        Owner { lock_owner: self.lock_owner, node: self.node }
    }

    fn task(&self) -> Task {
        Task { tid: self.tid, pid: self.pid }
    }

    fn range(&self) -> Range {
        Range::new(self.start, self.end.max(self.start))
    }

    fn lock_kind(&self) -> LockKind {
        if self.kind == F_WRLCK { LockKind::Write } else { LockKind::Read }
    }
}

/// The answer to a lock request: `Err` carries an errno.
pub type Answer = Box<dyn FnOnce(Result<(), i32>) + Send>;

/// An answer and its content.
type Ready = (Answer, Result<(), i32>);

/// A conflicting lock, for `F_GETLK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// First byte of the lock.
    pub start: u64,
    /// Last byte, inclusive.
    pub end: u64,
    /// `F_RDLCK` or `F_WRLCK`.
    pub kind: i32,
    /// The holder's process.
    pub pid: u32,
}

/// The service. Its thread ends when it is dropped.
pub struct LockService {
    table: Mutex<Table>,
    /// Notified when a write transaction in a held volume may have ended.
    quiet: Condvar,
    /// Wakes the ticker.
    bell: Arc<Bell>,
    loops: responsiveness::Loops,
    clock: Clock,
}

impl std::fmt::Debug for LockService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LockService").finish_non_exhaustive()
    }
}

struct Table {
    broker: Broker,
    parked: HashMap<Ticket, (Answer, Class)>,
    files: HashMap<FileId, Weak<LockedFile>>,
    sweep_at: usize,
    /// The owners that took locks through a handle: they lose them when it is released.
    takers: HashMap<(FileId, u64), HashSet<Owner>>,
    next_ticket: Ticket,
    leases: HashMap<u64, (Tick, Vec<VolumeId>)>,
    quiescers: u32,
    /// Whether the ticker is awake. Otherwise it must be woken when a wait begins.
    ticking: bool,
}

impl LockService {
    /// A service with an empty table.
    #[must_use]
    pub fn new(limits: Limits) -> Arc<Self> {
        let service = Self::without_time(limits);
        ticker::start(&service);
        service
    }

    /// The same, but no time passes for it.
    pub(super) fn without_time(limits: Limits) -> Arc<Self> {
        Arc::new(LockService {
            table: Mutex::new(Table {
                broker: Broker::new(limits),
                parked: HashMap::new(),
                files: HashMap::new(),
                sweep_at: 64,
                takers: HashMap::new(),
                next_ticket: 1,
                leases: HashMap::new(),
                quiescers: 0,
                ticking: false,
            }),
            quiet: Condvar::new(),
            bell: Arc::default(),
            loops: responsiveness::Loops::default(),
            clock: Clock::new(),
        })
    }

    fn now(&self) -> Tick {
        self.clock.now()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // The broker never panics on input. If it did, continuing with its table is better than failing every lock for ever.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the table, then sends the answers that follow from it.
    fn change<T>(&self, f: impl FnOnce(&mut Broker, &Look<'_>, Tick, &mut Vec<broker::Answer>) -> T) -> T {
        let now = self.now();
        let mut table = self.lock();
        let (value, ready) = self.change_locked(&mut table, now, f);
        drop(table);
        deliver(ready);
        value
    }

    fn change_locked<T>(&self, table: &mut Table, now: Tick, f: impl FnOnce(&mut Broker, &Look<'_>, Tick, &mut Vec<broker::Answer>) -> T) -> (T, Vec<Ready>) {
        let mut out = Vec::new();
        let Table { broker, files, .. } = &mut *table;
        let value = f(broker, &Look::new(files), now, &mut out);
        let ready = out
            .into_iter()
            .filter_map(|a| {
                let (answer, class) = table.parked.remove(&a.ticket)?;
                Some((answer, a.outcome.map_err(|cause| errno(cause, class))))
            })
            .collect();
        if table.quiescers > 0 {
            self.quiet.notify_all();
        }
        (value, ready)
    }

    /// `F_SETLK`, `F_SETLKW`: `answer` is called once, now or later.
    pub fn setlk(&self, file: &Arc<LockedFile>, call: LockCall, answer: Answer) {
        let (task, range) = (call.task(), call.range());
        if call.kind == F_UNLCK {
            self.unlock(file, &call);
            answer(Ok(()));
            return;
        }
        look::notice_database(file, range);
        let class = file.class();
        let owner = call.owner(class);
        if owner == call.process() {
            file.has_ordinary_locks.store(true, Ordering::Relaxed);
        }
        let now = self.now();
        let mut table = self.lock();
        let ticket = table.next_ticket;
        table.next_ticket += 1;
        table.know(file);
        table.takers.entry((file.id, call.fh)).or_default().insert(owner);
        // Refused as on an ordinary file, with the same error.
        let refused_as = if rules::is_ordinary(class, range) { Class::Plain } else { class };
        table.parked.insert(ticket, (answer, refused_as));
        let request = Request {
            ticket,
            file: file.id,
            class,
            volume: file.volume.load(Ordering::Relaxed),
            owner,
            task,
            range,
            kind: call.lock_kind(),
            wait: call.wait,
            read_only: call.read_only,
        };
        let ((), ready) = self.change_locked(&mut table, now, |broker, look, now, out| broker.lock(now, look, request, out));
        let asleep = table.broker.needs_ticks() && !table.ticking;
        drop(table);
        deliver(ready);
        if asleep {
            self.bell.ring();
        }
    }

    fn unlock(&self, file: &LockedFile, call: &LockCall) {
        let (task, range) = (call.task(), call.range());
        let connection = if call.apart { by_handle(call.lock_owner, call.fh) } else { call.process() };
        self.change(|broker, look, now, out| {
            if range == rules::WRITE && file.class() == Class::Shm {
                let me = Owner { lock_owner: u64::MAX, node: u64::MAX };
                let nobody_holds = |at| broker.test(file.id, me, at, LockKind::Write).is_none();
                look::move_read_mark(file, |at| nobody_holds(at) && file.keep_others_out(at, LockKind::Write));
            }
            broker.unlock(now, look, file.id, connection, task, range, out);
            // SQLite unlocks all of a database, and so do others that have locked it.
            if connection != call.process() && file.has_ordinary_locks.load(Ordering::Relaxed) {
                broker.unlock(now, look, file.id, call.process(), task, range, out);
            }
        });
    }

    /// Whether a file is a database now, judged by its content; an empty one if it was known as one. It becomes an ordinary file when it has another header,
    /// unless SQLite's locks are held on it.
    #[must_use]
    pub fn is_database(&self, file: &LockedFile) -> bool {
        let was = file.class() == Class::Database;
        match crate::recognise::content(&file.fd) {
            Content::Database => file.class() != Class::Shm,
            Content::Empty => was,
            Content::Other => {
                let stays = was && self.lock().broker.has_sqlite_locks(file.id);
                if was && !stays {
                    file.set_class(Class::Plain);
                }
                stays
            }
        }
    }

    /// `F_GETLK`.
    #[must_use]
    pub fn getlk(&self, file: &Arc<LockedFile>, call: &LockCall) -> Option<Conflict> {
        let table = self.lock();
        let Some((_, task, range, kind)) = table.broker.test(file.id, call.owner(file.class()), call.range(), call.lock_kind()) else {
            return file.in_the_way(call.range(), call.lock_kind());
        };
        Some(Conflict { start: range.start, end: range.end, kind: if kind == LockKind::Write { F_WRLCK } else { F_RDLCK }, pid: task.pid })
    }

    /// Handles the close of a descriptor by the process `lock_owner` (FLUSH): the locks of its connection are released, and all ordinary locks of the process on
    /// that node.
    pub fn flush(&self, file: &Arc<LockedFile>, node: u64, fh: u64, lock_owner: u64) {
        let (connection, process) = (by_handle(lock_owner, fh), Owner { lock_owner, node });
        let ordinary = file.has_ordinary_locks.load(Ordering::Relaxed);
        let now = self.now();
        let mut table = self.lock();
        // The process may lock again through another handle before this one is released.
        if let Some(owners) = table.takers.get_mut(&(file.id, fh)) {
            owners.remove(&connection);
        }
        if ordinary {
            for (_, owners) in table.takers.iter_mut().filter(|((id, _), _)| *id == file.id) {
                owners.remove(&process);
            }
        }
        let ((), ready) = self.change_locked(&mut table, now, |broker, look, now, out| {
            broker.close(now, look, file.id, connection, out);
            if ordinary {
                broker.close(now, look, file.id, process, out);
            }
        });
        drop(table);
        deliver(ready);
    }

    /// Handles the close of the last descriptor of a handle (RELEASE): locks taken through it are released.
    pub fn release(&self, file: &Arc<LockedFile>, fh: u64) {
        let now = self.now();
        let mut table = self.lock();
        let owners = table.takers.remove(&(file.id, fh)).unwrap_or_default();
        if owners.is_empty() {
            return;
        }
        let ((), ready) = self.change_locked(&mut table, now, |broker, look, now, out| {
            for owner in owners {
                broker.close(now, look, file.id, owner, out);
            }
        });
        drop(table);
        deliver(ready);
    }

    /// The connection (its handle) with which a thread uses a database, if that is certain.
    #[must_use]
    pub fn connection_of(&self, file: &Arc<LockedFile>, tid: u32) -> Option<u64> {
        let owner = self.lock().broker.used_by(file.id, tid, &|| signals::process_of(tid))?;
        handle_of(owner)
    }

    /// The connections with which the process of a thread holds locks on a file. Empty if its threads share connections: then a thread does not identify one.
    #[must_use]
    pub fn connections_of_process(&self, file: &LockedFile, tid: u32) -> Option<Vec<u64>> {
        let pid = signals::process_of(tid)?;
        let table = self.lock();
        let mine = table.broker.holders_of(file.id).filter(|(_, task)| task.pid == pid).filter_map(|(owner, _)| handle_of(owner));
        (!table.broker.moves_connections(pid)).then(|| mine.collect())
    }

    /// Ends the waits of the threads that `of` selects: the kernel is freezing them, and they ask again when they are thawed. Returns how many waits ended.
    pub fn park(&self, of: &dyn Fn(u32) -> bool) -> usize {
        self.change(|broker, look, now, out| {
            let waits = broker.waiting_of(of);
            broker.cancel_all(now, look, &waits, Cause::Parked, out)
        })
    }

    /// From now on held writes are refused instead of waiting: they are held for good.
    pub fn refuse_held_back(&self) {
        self.change(|broker, look, now, out| broker.refuse_held_back(now, look, out));
    }

    /// Refuses the waiting requests of a volume whose backing is removed. Locks stay as long as files are open: others may have them open too.
    pub fn forget_volume(&self, volume: VolumeId) {
        self.change(|broker, _, now, out| broker.forget_volume(now, volume, out));
    }

    /// The holders and waiters, and counters.
    #[must_use]
    pub fn status(&self) -> (Vec<(FileStatus, Option<OsString>)>, Counters) {
        let now = self.now();
        let table = self.lock();
        let name = |id| {
            let file = table.files.get(&id)?.upgrade()?;
            let place = file.place.lock().unwrap_or_else(PoisonError::into_inner);
            place.as_ref().map(|(_, n)| n.clone())
        };
        let files = table.broker.status(now).into_iter().map(|f| (f.clone(), name(f.file))).collect();
        (files, table.broker.counters().clone())
    }
}

impl Drop for LockService {
    fn drop(&mut self) {
        // Wakes the ticker, which ends because the service is gone.
        self.bell.ring();
    }
}

impl Table {
    /// Remembers a file, so that the broker can read it. Dropped files are removed now and then.
    fn know(&mut self, file: &Arc<LockedFile>) {
        self.files.entry(file.id).or_insert_with(|| Arc::downgrade(file));
        if self.files.len() > self.sweep_at {
            self.files.retain(|_, f| f.strong_count() > 0);
            self.sweep_at = (self.files.len() * 2).max(64);
        }
    }
}

fn deliver(ready: Vec<Ready>) {
    for (answer, outcome) in ready {
        answer(outcome);
    }
}

/// SQLite treats EAGAIN as busy, and any other failure of a lock on a `-shm` too.
fn errno(cause: Cause, class: Class) -> i32 {
    match cause {
        Cause::Deadlock | Cause::OwnThread if class == Class::Plain => EDEADLK,
        // The kernel freezes the task, and sends the request again afterwards (`fuse_setlk`: "locking is restartable").
        Cause::Interrupted | Cause::Parked => EINTR,
        Cause::Gone => ESTALE,
        _ => EAGAIN,
    }
}
