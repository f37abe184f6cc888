//! What can be asked of the table without changing it, besides [`status`](Broker::status).

use super::{Broker, Class, FileId, LockKind, Owner, Range, Task, file, rules};

impl Broker {
    /// Who stands in the way of a lock (`F_GETLK`).
    #[must_use]
    pub fn test(&self, file: FileId, owner: Owner, range: Range, kind: LockKind) -> Option<(Owner, Task, Range, LockKind)> {
        self.files.get(&file)?.conflicts(owner, range, kind).min_by_key(|(_, _, r, _)| r.start)
    }

    /// The owner by which a thread uses a database, if there is no doubt: the one by which it writes, else the only one it used, else the only one of its
    /// process (which `pid` looks up when it is needed).
    #[must_use]
    pub fn used_by(&self, file: FileId, tid: u32, pid: &dyn Fn() -> Option<u32>) -> Option<Owner> {
        let file = self.files.get(&file)?;
        let only = |of: &dyn Fn(&file::Held) -> bool| {
            let mut found = file.holders.iter().filter(|(_, h)| of(h)).map(|(o, _)| *o);
            found.next().filter(|_| found.next().is_none())
        };
        let writes = |h: &file::Held| h.task.tid == tid && h.ranges.writes(rules::DATABASE);
        if let Some(owner) = only(&writes).or_else(|| only(&|h| h.task.tid == tid)) {
            return Some(owner);
        }
        if file.holders.values().any(|h| h.task.tid == tid) {
            return None;
        }
        let pid = pid()?;
        only(&|h| h.task.pid == pid)
    }

    /// Who holds locks on a file, by which node, and by which process.
    pub fn holders_of(&self, file: FileId) -> impl Iterator<Item = (Owner, Task)> + '_ {
        self.files.get(&file).into_iter().flat_map(|f| f.holders.iter().map(|(o, h)| (*o, h.task)))
    }

    /// Whether somebody holds locks there that SQLite takes.
    #[must_use]
    pub fn has_sqlite_locks(&self, file: FileId) -> bool {
        self.files.get(&file).is_some_and(|f| f.class != Class::Plain && f.holders.values().any(|h| !h.ordinary))
    }

    /// Whether a process was seen to use a connection by several threads.
    #[must_use]
    pub fn moves_connections(&self, pid: u32) -> bool {
        self.migrating.contains(&pid)
    }
}
