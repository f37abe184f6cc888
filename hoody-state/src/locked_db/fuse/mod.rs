//! The daemon `hoody-state-fuse`, by its control socket.

pub mod daemon;

use super::contract::{LockedDb, Quiesced, RESTORE_PATIENCE, not_found};
use super::control::{Ask, Client, Reply};
use super::restore::{below, restore_below};
use super::status::Status;
use crate::error::Result;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A [`LockedDb`] served by a daemon.
#[derive(Debug, Clone)]
pub struct FuseLockedDb {
    socket: PathBuf,
    mountpoint: PathBuf,
}

impl FuseLockedDb {
    /// Of the daemon that listens on `socket` and serves volumes below `mountpoint`. Connects with each call.
    #[must_use]
    pub fn new(socket: &Path, mountpoint: &Path) -> Self {
        FuseLockedDb { socket: socket.to_owned(), mountpoint: mountpoint.to_owned() }
    }

    fn ask(&self, ask: &Ask) -> Result<Reply> {
        Client::connect(&self.socket)?.ask(ask)
    }
}

impl LockedDb for FuseLockedDb {
    fn path(&self, volume: &str) -> PathBuf {
        self.mountpoint.join(volume)
    }

    fn add_volume(&self, volume: &str, backing: &Path) -> Result<PathBuf> {
        self.ask(&Ask::AddVolume { volume: volume.to_owned(), backing: backing.to_owned() })?;
        Ok(self.mountpoint.join(volume))
    }

    fn remove_volume(&self, volume: &str) -> Result<()> {
        self.ask(&Ask::RemoveVolume { volume: volume.to_owned() }).map(drop)
    }

    fn rebind(&self, volume: &str, backing: &Path) -> Result<()> {
        self.ask(&Ask::Rebind { volume: volume.to_owned(), backing: backing.to_owned() }).map(drop)
    }

    fn quiesce(&self, volumes: &[&str], timeout: Duration, lease: Duration) -> Result<Box<dyn Quiesced>> {
        let mut client = Client::connect(&self.socket)?;
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        client.ask(&Ask::Quiesce { volumes: volumes.iter().map(|v| (*v).to_owned()).collect(), timeout_ms: ms(timeout), lease_ms: ms(lease) })?;
        Ok(Box::new(Hold(client)))
    }

    fn restore_database(&self, volume: &str, from: &Path, to: &Path) -> Result<()> {
        // What is there is looked at where it shows: who holds and who waits is not needed for it.
        Client::connect(&self.socket)?.ping()?;
        let at = if volume.is_empty() { self.mountpoint.clone() } else { below(&self.mountpoint, Path::new(volume))? };
        if volume.contains('/') || !at.is_dir() {
            return Err(not_found(volume));
        }
        restore_below(&at, from, to, RESTORE_PATIENCE)
    }

    fn park(&self, pids: &[i32]) -> Result<usize> {
        match self.ask(&Ask::Park { pids: pids.to_vec() })? {
            Reply::Parked { count } => Ok(count),
            _ => Ok(0),
        }
    }

    fn status(&self) -> Result<Status> {
        match self.ask(&Ask::Status {})? {
            Reply::Status(s) => Ok(*s),
            _ => Ok(Status::default()),
        }
    }

    fn take_down(&self) -> Result<()> {
        daemon::take_down(&self.socket, &self.mountpoint)
    }
}

/// Held as long as the connection is open.
struct Hold(Client);

impl Quiesced for Hold {
    fn release(mut self: Box<Self>) -> Result<bool> {
        match self.0.ask(&Ask::Release {})? {
            Reply::Released { throughout } => Ok(throughout),
            _ => Ok(false),
        }
    }
}
