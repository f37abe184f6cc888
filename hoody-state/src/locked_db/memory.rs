//! In memory, for tests of what stands above: a volume shows at its backing, and a hold is a write transaction on each database that is there.

use super::contract::{LockedDb, Quiesced, RestartListener, databases_in, not_found};
use super::status::Status;
use crate::error::{Code, Error, Result};
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

#[derive(Default)]
struct State {
    volumes: BTreeMap<String, PathBuf>,
    holds: Vec<Weak<Held>>,
}

/// A [`LockedDb`] without a daemon. A database that is made while a hold is alive is not held.
#[derive(Default, Clone)]
pub struct MemoryLockedDb {
    state: Arc<Mutex<State>>,
    on_restart: Arc<OnceLock<RestartListener>>,
}

/// Connections that each hold the write transaction of a database; none once the hold has ended.
struct Held {
    connections: Mutex<Vec<Connection>>,
    until: Instant,
}

impl Held {
    /// Whether it was held until now.
    fn end(&self) -> bool {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Instant::now() < self.until
    }
}

impl std::fmt::Debug for MemoryLockedDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryLockedDb").field("volumes", &self.state().volumes).finish_non_exhaustive()
    }
}

impl MemoryLockedDb {
    /// Without volumes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many holds are alive.
    #[must_use]
    pub fn holds(&self) -> usize {
        let now = Instant::now();
        self.state().holds.iter().filter_map(Weak::upgrade).filter(|h| now < h.until).count()
    }

    /// As a daemon that dies and is started again: no volume is served any more, and the listener is called.
    pub fn restart(&self) {
        let holds = {
            let mut state = self.state();
            state.volumes.clear();
            std::mem::take(&mut state.holds)
        };
        for h in holds.iter().filter_map(Weak::upgrade) {
            h.end();
        }
        if let Some(f) = self.on_restart.get() {
            f();
        }
    }
}

fn directory(backing: &Path) -> Result<()> {
    if backing.is_dir() {
        return Ok(());
    }
    Err(Error::new(Code::BadVolume, format!("{} is no directory: a volume needs one", backing.display())))
}

/// The write transaction of a database, once whoever has it has ended it.
fn hold(database: &Path, timeout: Duration) -> Result<Connection> {
    let busy = |e: rusqlite::Error| Error::new(Code::DatabasesBusy, format!("a write transaction on {} did not end: {e}", database.display()));
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(busy)?;
    connection.busy_timeout(timeout).map_err(busy)?;
    connection.execute_batch("BEGIN IMMEDIATE").map_err(busy)?;
    Ok(connection)
}

impl LockedDb for MemoryLockedDb {
    fn path(&self, volume: &str) -> PathBuf {
        self.state().volumes.get(volume).cloned().unwrap_or_default()
    }

    fn add_volume(&self, volume: &str, backing: &Path) -> Result<PathBuf> {
        directory(backing)?;
        if volume.is_empty() || volume.contains('/') || volume == "." || volume == ".." {
            return Err(Error::new(Code::BadVolume, format!("a volume cannot be called {volume:?}")));
        }
        let mut state = self.state();
        if state.volumes.contains_key(volume) {
            return Err(Error::new(Code::VolumeExists, format!("there is a volume {volume:?} already")));
        }
        state.volumes.insert(volume.to_owned(), backing.to_owned());
        Ok(backing.to_owned())
    }

    fn remove_volume(&self, volume: &str) -> Result<()> {
        self.state().volumes.remove(volume).map(drop).ok_or_else(|| not_found(volume))
    }

    fn rebind(&self, volume: &str, backing: &Path) -> Result<()> {
        directory(backing)?;
        let mut state = self.state();
        let current = state.volumes.get_mut(volume).ok_or_else(|| not_found(volume))?;
        backing.clone_into(current);
        Ok(())
    }

    fn quiesce(&self, volumes: &[&str], timeout: Duration, lease: Duration) -> Result<Box<dyn Quiesced>> {
        let backings: Vec<PathBuf> = {
            let state = self.state();
            volumes.iter().map(|v| state.volumes.get(*v).cloned().ok_or_else(|| not_found(v))).collect::<Result<_>>()?
        };
        let mut connections = Vec::new();
        for backing in &backings {
            for database in databases_in(backing)? {
                connections.push(hold(&database.path, timeout)?);
            }
        }
        let held = Arc::new(Held { connections: Mutex::new(connections), until: Instant::now() + lease });
        let expiring = Arc::downgrade(&held);
        let timer = std::thread::Builder::new().name("lease".into()).spawn(move || {
            std::thread::sleep(lease);
            expiring.upgrade().map(|h| h.end())
        });
        timer.map_err(|e| Error::io("start the thread that ends a hold", e))?;
        self.state().holds.push(Arc::downgrade(&held));
        Ok(Box::new(Hold(held)))
    }

    fn status(&self) -> Result<Status> {
        Ok(Status { volumes: self.state().volumes.clone(), ..Status::default() })
    }

    fn set_restart_listener(&self, listener: RestartListener) {
        // The first one stays.
        let _ = self.on_restart.set(listener);
    }
}

struct Hold(Arc<Held>);

impl Quiesced for Hold {
    fn release(self: Box<Self>) -> Result<bool> {
        Ok(self.0.end())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Fixture(MemoryLockedDb);

    impl super::super::suite::Harness for Fixture {
        fn databases(&self) -> &dyn LockedDb {
            &self.0
        }
    }

    #[test]
    fn contract() {
        super::super::suite::run(&Fixture(MemoryLockedDb::new()));
    }

    #[test]
    fn a_restart_ends_holds_and_volumes_and_is_announced() {
        let db = MemoryLockedDb::new();
        let (tell, told) = std::sync::mpsc::channel();
        let tell = Mutex::new(tell);
        db.set_restart_listener(Box::new(move || tell.lock().unwrap().send(()).unwrap()));
        let dir = tempfile::tempdir().unwrap();
        db.add_volume("v", dir.path()).unwrap();
        let hold = db.quiesce(&["v"], Duration::ZERO, Duration::from_secs(60)).unwrap();
        assert_eq!(db.holds(), 1);
        db.restart();
        told.try_recv().unwrap();
        assert_eq!((db.holds(), db.status().unwrap().volumes.len()), (0, 0));
        drop(hold);
    }
}
