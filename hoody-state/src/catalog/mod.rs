//! The catalog: what the pool's volumes mean. SQLite in the pool's own no-COW directory, so that a pool carries its meaning along.
//!
//! **Guarantees.**
//! 1. A write transaction is all or nothing, also through a kill -9 or a power cut.
//! 2. With [`Durability::Disk`] it is on the disk when `write` returns; with [`Durability::Process`] it survives the death of this process but
//!    perhaps not a power cut: for facts that end with the host's uptime anyway (what runs, what is frozen), and for closing an
//!    operation whose intent, already on the disk, is enough to come to the same result.
//! 3. Reads never wait for writes or for the disk (WAL and a connection of their own).
//! 4. Events written in a transaction are announced after its commit, in the order of the commits, while the catalog is free: a listener may write.

pub(crate) mod authors;
pub(crate) mod containers;
pub(crate) mod events;
pub(crate) mod families;
pub(crate) mod history;
pub(crate) mod idempotency;
pub(crate) mod images;
pub(crate) mod operations;
pub(crate) mod peers;
pub(crate) mod policies;
pub(crate) mod projects;
mod read_only;
pub(crate) mod records;
mod room;
mod schema;
pub(crate) mod shares;
pub(crate) mod snapshots;
pub(crate) mod timeline;
pub(crate) mod tokens;
pub(crate) mod trash;

use crate::error::{Code, Error, Kind, Result};
use crate::event::Bus;
use crate::id::{OperationId, UserId};
use crate::model::Event;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How hard a commit must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// A power cut.
    Disk,
    /// The death of this process.
    Process,
}

/// The value of `boot`, which names the uptime of the machine that runs belong to, when all of them have ended.
pub(crate) const UNMOUNTED: &str = "unmounted";

/// The catalog of one pool.
pub(crate) struct Catalog {
    write: Mutex<Writer>,
    read: Option<Mutex<Connection>>,
    user: UserId,
    pub(crate) bus: Bus,
    /// Set when the pool cannot be written to: what is read and written is a copy, and nobody may write.
    copy: Option<read_only::Copy>,
    /// Where it is; nothing: in memory.
    dir: Option<PathBuf>,
}

struct Writer {
    conn: Connection,
    synchronous: Durability,
}

/// A write transaction, and what it will announce.
pub(crate) struct Tx<'a> {
    pub(crate) conn: &'a Transaction<'a>,
    pub(crate) now: Timestamp,
    /// The operation that this change belongs to, if any: what it records in the history names it and its author.
    pub(crate) operation: Option<OperationId>,
    user: UserId,
    events: Vec<Event>,
}

impl From<rusqlite::Error> for Error {
    fn from(e: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as C;
        let (code, hint) = match e.sqlite_error_code() {
            Some(C::ReadOnly) => (Code::PoolReadOnly, "the pool is read-only: GET /pool says why"),
            Some(C::DiskFull) => (Code::PoolFull, "the pool is full: delete snapshots or grow it"),
            Some(C::DatabaseBusy | C::DatabaseLocked) => (Code::CatalogBusy, "another process writes the catalog: try again"),
            Some(C::DatabaseCorrupt | C::NotADatabase) => (Code::CatalogCorrupt, "the catalog is damaged: stop the server and run `check`"),
            _ => (Code::Catalog, "the catalog refused"),
        };
        Error::new(code, format!("{hint} ({e})")).with_source(e)
    }
}

fn locked<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn ms(t: Timestamp) -> i64 {
    t.as_millisecond()
}

pub(crate) fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A JSON column of ours; unreadable ones are damage.
pub(crate) fn json<T: serde::de::DeserializeOwned>(s: &str, what: &str) -> Result<T> {
    serde_json::from_str(s).map_err(|e| Error::new(Code::CatalogCorrupt, format!("the catalog's {what} cannot be read: {e}")))
}

pub(crate) fn to_json<T: serde::Serialize>(v: &T) -> Result<String> {
    serde_json::to_string(v).map_err(|e| Error::internal(format!("cannot write a row: {e}")))
}

impl Catalog {
    /// Opens or makes the catalog in `dir`.
    ///
    /// What it needs to go on in a pool that is full to the last byte is laid by: a container that fills it must not keep anybody from deleting.
    ///
    /// In a read-only pool it can be read and not written ([`Catalog::is_read_only`]).
    pub(crate) fn open(dir: &Path) -> Result<Catalog> {
        if read_only::is(dir)? {
            let copy = read_only::Copy::of(dir)?;
            return Ok(Catalog { copy: Some(copy.clone()), ..Self::open_in(copy.path())? });
        }
        let catalog = match Self::open_in(dir) {
            Err(e) if room::is_lack_of_it(&e) && room::give_way(dir)? => Self::open_in(dir)?,
            other => other?,
        };
        room::lay_by(dir);
        Ok(Catalog { dir: Some(dir.to_owned()), ..catalog })
    }

    fn open_in(dir: &Path) -> Result<Catalog> {
        let path = dir.join("catalog.sqlite");
        let open = || -> Result<Connection> {
            let c = Connection::open(&path)?;
            c.busy_timeout(Duration::from_secs(10))?;
            c.pragma_update(None, "journal_mode", "WAL")?;
            c.pragma_update(None, "foreign_keys", "OFF")?;
            c.pragma_update(None, "cache_size", -1024)?;
            // The log keeps its room.
            c.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            Ok(c)
        };
        let mut write = open()?;
        write.pragma_update(None, "synchronous", "FULL")?;
        schema::migrate(&mut write)?;
        let read = open()?;
        read.pragma_update(None, "query_only", "ON")?;
        Self::finish(write, Some(read))
    }

    /// A catalog that is gone when dropped.
    pub(crate) fn in_memory() -> Result<Catalog> {
        let mut write = Connection::open_in_memory()?;
        schema::migrate(&mut write)?;
        Self::finish(write, None)
    }

    fn finish(write: Connection, read: Option<Connection>) -> Result<Catalog> {
        write.execute("INSERT OR IGNORE INTO meta(key, value) VALUES('user_id', ?1)", [UserId::generate().as_str()])?;
        let user: String = write.query_row("SELECT value FROM meta WHERE key = 'user_id'", [], |r| r.get(0))?;
        Ok(Catalog {
            write: Mutex::new(Writer { conn: write, synchronous: Durability::Disk }),
            read: read.map(Mutex::new),
            user: user.parse()?,
            bus: Bus::default(),
            copy: None,
            dir: None,
        })
    }

    /// Whether it was opened in a read-only pool.
    pub(crate) fn is_read_only(&self) -> bool {
        self.copy.is_some()
    }

    /// Whose everything is.
    pub(crate) fn user(&self) -> &UserId {
        &self.user
    }

    /// Reads, from one state of the catalog.
    pub(crate) fn read<T>(&self, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        match &self.read {
            Some(read) => {
                let mut c = locked(read);
                let tx = c.transaction_with_behavior(TransactionBehavior::Deferred)?;
                f(&tx)
            }
            None => f(&locked(&self.write).conn),
        }
    }

    /// Changes, all or nothing.
    pub(crate) fn write<T>(&self, durability: Durability, now: Timestamp, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        if self.is_read_only() {
            return Err(read_only::refused());
        }
        self.write_now(durability, now, f).map_err(|e| match &self.dir {
            // SQLite says of a file system that has become read-only whatever failed first.
            Some(dir) if e.kind() == Kind::Internal && read_only::is(dir).unwrap_or(false) => read_only::refused().with_source(e),
            _ => e,
        })
    }

    fn write_now<T>(&self, durability: Durability, now: Timestamp, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        let mut w = locked(&self.write);
        if w.synchronous != durability {
            w.conn.pragma_update(None, "synchronous", if durability == Durability::Disk { "FULL" } else { "NORMAL" })?;
            w.synchronous = durability;
        }
        let tx = w.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut t = Tx { conn: &tx, now, operation: None, user: self.user.clone(), events: Vec::new() };
        let out = f(&mut t)?;
        let events = std::mem::take(&mut t.events);
        tx.commit()?;
        self.bus.enqueue(events);
        // A listener may read and write the catalog.
        drop(w);
        self.bus.announce_queued();
        Ok(out)
    }

    /// Whether a change could be made: it is made and taken back, and nobody sees it.
    pub(crate) fn would<T>(&self, now: Timestamp, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        let mut w = locked(&self.write);
        let tx = w.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let out = f(&mut Tx { conn: &tx, now, operation: None, user: self.user.clone(), events: Vec::new() });
        tx.rollback()?;
        out
    }

    /// A fact about the pool as a whole.
    pub(crate) fn meta(&self, key: &str) -> Result<Option<String>> {
        self.read(|c| Ok(c.query_row("SELECT value FROM meta WHERE key = ?1", [key], |r| r.get(0)).optional()?))
    }
}

impl Tx<'_> {
    /// Sets a fact about the pool as a whole.
    pub(crate) fn set_meta(&mut self, key: &str, value: &str) -> Result<()> {
        self.conn.execute("INSERT INTO meta(key, value) VALUES(?1, ?2) ON CONFLICT(key) DO UPDATE SET value = excluded.value", [key, value])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_failed_write_changes_and_announces_nothing() {
        let c = Catalog::in_memory().unwrap();
        let e = c.write(Durability::Disk, Timestamp::UNIX_EPOCH, |tx| -> Result<()> {
            tx.set_meta("x", "1")?;
            Err(Error::internal("no"))
        });
        assert!(e.is_err());
        assert_eq!(c.meta("x").unwrap(), None);
    }

    fn emit(tx: &mut Tx<'_>, what: &str) -> Result<()> {
        tx.emit(what, "test", "id", None, serde_json::json!({}))
    }

    #[test]
    fn a_listener_may_write_and_everybody_sees_events_in_the_order_of_their_commits() {
        let c = std::sync::Arc::new(Catalog::in_memory().unwrap());
        let (send, receive) = std::sync::mpsc::channel();
        let (listens, seen) = (std::sync::Arc::downgrade(&c), send.clone());
        let _first = c.bus.subscribe(Box::new(move |e| {
            if e.event_type == "asked" {
                let c = listens.upgrade().unwrap();
                c.write(Durability::Process, Timestamp::UNIX_EPOCH, |tx| emit(tx, "answered")).unwrap();
            }
        }));
        let _second = c.bus.subscribe(Box::new(move |e| seen.send((e.seq, e.event_type.clone())).unwrap()));
        for _ in 0..4 {
            let c = std::sync::Arc::clone(&c);
            std::thread::spawn(move || {
                for _ in 0..25 {
                    c.write(Durability::Process, Timestamp::UNIX_EPOCH, |tx| emit(tx, "asked").and_then(|()| emit(tx, "more"))).unwrap();
                }
            });
        }
        let next = || receive.recv_timeout(Duration::from_secs(20)).expect("an event was not announced: a writer hangs");
        let all: Vec<(u64, String)> = (0..300).map(|_| next()).collect();
        assert!(all.windows(2).all(|w| w[0].0 < w[1].0), "out of order: {all:?}");
        assert_eq!(all.iter().filter(|(_, t)| t == "answered").count(), 100);
    }

    #[test]
    fn a_listener_that_panics_keeps_nobody_from_later_events() {
        let c = Catalog::in_memory().unwrap();
        let (send, receive) = std::sync::mpsc::channel();
        let _listens = c.bus.subscribe(Box::new(move |e| {
            assert_ne!(e.event_type, "bad");
            send.send(e.event_type.clone()).unwrap();
        }));
        let write = |what| c.write(Durability::Process, Timestamp::UNIX_EPOCH, |tx| emit(tx, what));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| write("bad"))).is_err());
        write("good").unwrap();
        assert_eq!(receive.try_recv().unwrap(), "good");
    }

    #[test]
    fn two_connections_see_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let a = Catalog::open(dir.path()).unwrap();
        let b = Catalog::open(dir.path()).unwrap();
        a.write(Durability::Process, Timestamp::UNIX_EPOCH, |tx| tx.set_meta("x", "1")).unwrap();
        assert_eq!(b.meta("x").unwrap().as_deref(), Some("1"));
        assert_eq!(a.user(), b.user());
    }
}
