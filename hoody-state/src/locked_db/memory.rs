//! Volumes without a mount: each shows as its own backing directory, SQLite's locks are the kernel's. For tests of what is built on top.

use super::restore::restore_below;
use super::{LockedDb, Quiesced, Status};
use crate::error::{Code, Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
struct State {
    volumes: BTreeMap<String, PathBuf>,
    /// Holds by number: until when.
    holds: HashMap<u64, Instant>,
    next: u64,
}

/// A [`LockedDb`] that serves nothing and remembers everything.
#[derive(Debug, Default, Clone)]
pub struct MemoryLockedDb(Arc<Mutex<State>>);

impl MemoryLockedDb {
    /// Without volumes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn backing(&self, volume: &str) -> Result<PathBuf> {
        self.state().volumes.get(volume).cloned().ok_or_else(|| not_found(volume))
    }

    /// How many holds are alive.
    #[must_use]
    pub fn holds(&self) -> usize {
        let now = Instant::now();
        self.state().holds.values().filter(|until| **until > now).count()
    }
}

pub(super) fn not_found(volume: &str) -> Error {
    Error::new(Code::VolumeNotFound, format!("there is no volume {volume:?}"))
}

fn directory(backing: &Path) -> Result<()> {
    if backing.is_dir() {
        return Ok(());
    }
    Err(Error::new(Code::BadVolume, format!("{} is no directory: a volume needs one", backing.display())))
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

    fn quiesce(&self, volumes: &[&str], _timeout: Duration, lease: Duration) -> Result<Box<dyn Quiesced>> {
        let mut state = self.state();
        for v in volumes {
            if !state.volumes.contains_key(*v) {
                return Err(not_found(v));
            }
        }
        state.next += 1;
        let id = state.next;
        state.holds.insert(id, Instant::now() + lease);
        Ok(Box::new(Hold { of: self.clone(), id }))
    }

    fn restore_database(&self, volume: &str, from: &Path, to: &Path) -> Result<()> {
        restore_below(&self.backing(volume)?, from, to, Duration::from_secs(30))
    }

    fn park(&self, _pids: &[i32]) -> Result<usize> {
        Ok(0)
    }

    fn status(&self) -> Result<Status> {
        Ok(Status { volumes: self.state().volumes.clone(), ..Status::default() })
    }
}

struct Hold {
    of: MemoryLockedDb,
    id: u64,
}

impl Quiesced for Hold {
    fn release(self: Box<Self>) -> Result<bool> {
        let until = self.of.state().holds.remove(&self.id);
        Ok(until.is_some_and(|u| Instant::now() < u))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.of.state().holds.remove(&self.id);
    }
}
