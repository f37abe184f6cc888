//! How many rows the tables of a database have. The database was written in a container, so nothing in it is trusted.
//!
//! What is opened is a private copy of the database and its write-ahead log, never a file that a container or a snapshot has. Of its schema only tables are
//! used: views and triggers are switched off, virtual tables are left out, no extension can be loaded and no other file attached. Time, tables and the length
//! of what is read are limited.

use crate::error::{Code, Error, Result};
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// At most so many tables of one database are counted.
pub(crate) const TABLES: usize = 1000;
/// The longest name of a table, in bytes.
const NAME: usize = 512;
/// The longest text in a schema, in bytes.
const TEXT: i32 = 1_000_000;
/// How often the time is looked at.
const TICK: Duration = Duration::from_millis(20);

/// The rows of each table by its name. Virtual tables and those of SQLite itself are left out. `stop` is asked now and then; `true` ends the work.
///
/// # Errors
/// `not_a_database`: SQLite cannot read it; `diff_too_large`: more than [`TABLES`], or a name of more than 512 bytes; `request_timeout`: not done at `until`;
/// `operation_cancelled`: `stop` said so.
pub(crate) fn rows(copy: &Path, until: Instant, stop: &(dyn Fn() -> bool + Sync)) -> Result<BTreeMap<String, u64>> {
    let c = open(copy).map_err(unreadable)?;
    let interrupt = c.get_interrupt_handle();
    let (done, ended) = sync_channel::<()>(0);
    let counted = std::thread::scope(|s| {
        s.spawn(move || {
            // An interrupt ends the statement that runs, not the next one, so it is said until the work has ended.
            while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                if Instant::now() >= until || stop() {
                    interrupt.interrupt();
                }
            }
        });
        let counted = count(&c, until, stop);
        drop(done);
        counted
    });
    match counted {
        Err(_) if stop() => Err(Error::new(Code::OperationCancelled, "nobody waits for the counts any more")),
        Err(_) if Instant::now() >= until => Err(too_long()),
        counted => counted,
    }
}

pub(crate) fn too_long() -> Error {
    Error::new(Code::RequestTimeout, "counting the rows of the databases took too long")
}

fn unreadable(e: rusqlite::Error) -> Error {
    let why = match e.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "it is not a database",
        Some(ErrorCode::DatabaseCorrupt) => "it is damaged",
        Some(ErrorCode::TooBig) => "it has a schema of more than 1 MB in one piece",
        _ => "SQLite cannot count its rows",
    };
    // SQLite's own message may hold text of the database: it is kept as the source only.
    Error::new(Code::NotADatabase, why).with_source(e)
}

fn open(copy: &Path) -> rusqlite::Result<Connection> {
    // The copy is written only to go through its log.
    let c = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW)?;
    for (what, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, false),
        (DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true),
    ] {
        c.set_db_config(what, on)?;
    }
    c.set_limit(Limit::SQLITE_LIMIT_LENGTH, TEXT)?;
    c.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, TEXT)?;
    c.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    Ok(c)
}

fn count(c: &Connection, until: Instant, stop: &(dyn Fn() -> bool + Sync)) -> Result<BTreeMap<String, u64>> {
    // The index of the log is kept in memory, not in a file beside it.
    c.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON; PRAGMA query_only = ON")
        .map_err(unreadable)?;
    let mut rows = BTreeMap::new();
    for name in names(c).map_err(unreadable)? {
        if rows.len() >= TABLES || name.len() > NAME {
            return Err(Error::new(Code::DiffTooLarge, format!("it has more than {TABLES} tables, or the name of one is longer than {NAME} bytes")));
        }
        if stop() || Instant::now() >= until {
            return Err(too_long());
        }
        let quoted = name.replace('"', "\"\"");
        let n = c.query_row(&format!("SELECT count(*) FROM main.\"{quoted}\""), [], |r| r.get::<_, u64>(0)).map_err(unreadable)?;
        rows.insert(name, n);
    }
    Ok(rows)
}

/// The names of the tables: one more than are counted, each cut after one byte more than a name may have.
fn names(c: &Connection) -> rusqlite::Result<Vec<String>> {
    let list = format!(
        "SELECT substr(name, 1, {}) FROM main.sqlite_schema WHERE type = 'table' AND rootpage > 0 AND sql NOT LIKE 'CREATE VIRTUAL%' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' LIMIT {}",
        NAME + 1,
        TABLES + 1
    );
    c.prepare(&list)?.query_map([], |r| r.get(0))?.collect()
}
