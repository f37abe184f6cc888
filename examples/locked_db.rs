//! Databases of your own, here plain directories: `cargo run --example locked_db`. They pass the suite, and then serve a host on this machine. Needs root.
//!
//! SQLite itself holds the writes: a hold is a write transaction on each database. So a writer waits as long as its own timeout says, and may well find
//! a database locked. The daemon `hoody-state-fuse` is there to do better.

use hoody_state::locked_db::{LockedDb, Quiesced, Status, databases_in, suite};
use hoody_state::{Code, Error, Host, HostConfig, Result};
use rusqlite::Connection;
use std::collections::btree_map::{BTreeMap, Entry};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[derive(Default)]
pub struct PlainDirectories(Mutex<BTreeMap<String, PathBuf>>);

fn no_volume(volume: &str) -> Error {
    Error::new(Code::VolumeNotFound, format!("there is no volume {volume:?}"))
}

fn check(volume: &str, backing: &Path) -> Result<()> {
    let good = !matches!(volume, "" | "." | "..") && !volume.contains('/') && backing.is_dir();
    good.then_some(()).ok_or_else(|| Error::new(Code::BadVolume, format!("{} cannot be served as {volume:?}", backing.display())))
}

impl LockedDb for PlainDirectories {
    fn path(&self, volume: &str) -> PathBuf {
        self.0.lock().unwrap().get(volume).cloned().unwrap_or_default()
    }

    fn add_volume(&self, volume: &str, backing: &Path) -> Result<PathBuf> {
        check(volume, backing)?;
        match self.0.lock().unwrap().entry(volume.to_owned()) {
            Entry::Vacant(free) => Ok(free.insert(backing.to_owned()).clone()),
            Entry::Occupied(_) => Err(Error::new(Code::VolumeExists, format!("there is a volume {volume:?} already"))),
        }
    }

    fn remove_volume(&self, volume: &str) -> Result<()> {
        self.0.lock().unwrap().remove(volume).map(drop).ok_or_else(|| no_volume(volume))
    }

    fn rebind(&self, volume: &str, backing: &Path) -> Result<()> {
        check(volume, backing)?;
        self.0.lock().unwrap().get_mut(volume).map(|old| *old = backing.to_owned()).ok_or_else(|| no_volume(volume))
    }

    fn quiesce(&self, volumes: &[&str], timeout: Duration, lease: Duration) -> Result<Box<dyn Quiesced>> {
        let mut held = Vec::new();
        for volume in volumes {
            let backing = self.0.lock().unwrap().get(*volume).cloned().ok_or_else(|| no_volume(volume))?;
            for database in databases_in(&backing)? {
                let busy = |e| Error::new(Code::DatabasesBusy, format!("a write did not end: {e}"));
                held.push(Connection::open(&database.path).map_err(busy)?);
                held[held.len() - 1].busy_timeout(timeout).map_err(busy)?;
                held[held.len() - 1].execute_batch("BEGIN IMMEDIATE").map_err(busy)?;
            }
        }
        let held = Arc::new(Mutex::new(held));
        let expiring = Arc::downgrade(&held);
        std::thread::spawn(move || {
            std::thread::sleep(lease);
            expiring.upgrade().map(|held| held.lock().unwrap().clear())
        });
        Ok(Box::new(Hold { _held: held, until: Instant::now() + lease }))
    }

    fn status(&self) -> Result<Status> {
        Ok(Status { volumes: self.0.lock().unwrap().clone(), ..Status::default() })
    }
}

/// Ends when it is dropped.
struct Hold {
    _held: Arc<Mutex<Vec<Connection>>>,
    until: Instant,
}

impl Quiesced for Hold {
    fn release(self: Box<Self>) -> Result<bool> {
        Ok(Instant::now() < self.until)
    }
}

impl suite::Harness for PlainDirectories {
    fn databases(&self) -> &dyn LockedDb {
        self
    }
}

pub fn main() -> Result<()> {
    suite::run(&PlainDirectories::default());
    let config = HostConfig::new("/var/tmp/hoody-plain", "/run/hoody-plain");
    let host = Host::builder(&config)?.databases(Arc::new(PlainDirectories::default())).open()?;
    println!("a host with databases in plain directories: {} findings", host.check(false)?.len());
    host.close();
    drop(host);
    Host::unmount(&config)
}
