//! Queries that do not change the table, besides [`status`](Broker::status).

use super::{Broker, Class, FileId, LockKind, Owner, Range, Task, file, rules};

impl Broker {
    /// The first lock that conflicts with a request (`F_GETLK`).
    #[must_use]
    pub fn test(&self, file: FileId, owner: Owner, range: Range, kind: LockKind) -> Option<(Owner, Task, Range, LockKind)> {
        self.files.get(&file)?.conflicts(owner, range, kind).min_by_key(|(_, _, r, _)| r.start)
    }

    /// The owner through which a thread uses a database, if that is certain: the one with which it writes, else the only one that it used, else the only one of its
    /// process (`pid` finds the process if it is needed).
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

    /// The holders of locks on a file, each with its node and process.
    pub fn holders_of(&self, file: FileId) -> impl Iterator<Item = (Owner, Task)> + '_ {
        self.files.get(&file).into_iter().flat_map(|f| f.holders.iter().map(|(o, h)| (*o, h.task)))
    }

    /// Whether any owner holds locks on the file that SQLite takes.
    #[must_use]
    pub fn has_sqlite_locks(&self, file: FileId) -> bool {
        self.files.get(&file).is_some_and(|f| f.class != Class::Plain && f.holders.values().any(|h| !h.ordinary))
    }

    /// Whether several threads of a process have used one connection.
    #[must_use]
    pub fn moves_connections(&self, pid: u32) -> bool {
        self.migrating.contains(&pid)
    }
}
