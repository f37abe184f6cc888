//! Claims: a directory is served by only one mount of this machine. Two mounts would not know each other's locks, and commits would be lost.
//!
//! | what | how |
//! | --- | --- |
//! | the same directory (by any path, bind mount or namespace) | `flock` on the directory: it is on the inode, and ends with the daemon |
//! | a directory inside a served one | the registry, where each daemon lists what it serves |
//! | which daemon serves it | the registry |
//!
//! A daemon that was unmounted while files are open still holds its claims. It gives them up when its successor, which finds it through the registry, asks it
//! to hold the writes of its users (`Ask::Yield`).
//!
//! Not detected: a directory that is also reached through overlayfs (the kernel has two inodes for it); nested directories of daemons with different `/run`.

mod place;
mod registry;

use place::{Mounts, Place};
use registry::{Entry, Listed, Registry};
use rustix::fs::{FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long to wait for a process that is just ending to release the directory.
const ENDING: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The mount that serves a directory, as it is named in errors.
#[derive(Debug)]
pub(crate) struct Server {
    pub mountpoint: PathBuf,
    pub control: Option<PathBuf>,
    /// Distinguishes the mounts of one process.
    number: u64,
}

impl Server {
    pub fn new(mountpoint: PathBuf, control: Option<PathBuf>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Server { mountpoint, control, number: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// A unique part of the names of its entries in the registry.
    fn mark(&self) -> String {
        format!("-of-{}.{}-", std::process::id(), self.number)
    }
}

/// A directory that only this process serves, until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    /// Dropped before the lock is released: the next owner adds its own entry.
    listed: Mutex<Option<Listed>>,
    pub inode: (u64, u64),
    /// The directory; the lock is on this descriptor.
    pub root: Arc<OwnedFd>,
}

/// How a requested directory relates to a served one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// They are the same.
    Same,
    /// It is inside the served one.
    Inside,
    /// The served one is inside it.
    Above,
}

/// The directory is already served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// The requested directory.
    pub backing: PathBuf,
    /// How it relates to the served one.
    pub relation: Relation,
    /// The served directory.
    pub served: PathBuf,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// The process that serves it; 0 if unknown.
    pub pid: u32,
}

impl std::fmt::Display for InUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (backing, served) = (self.backing.display(), self.served.display());
        if self.pid == 0 {
            return write!(
                f,
                "{backing} is locked by another process, and it is not known where that serves it (`lslocks` lists locks): end that process first"
            );
        }
        match self.relation {
            Relation::Same => write!(f, "{backing} is already served: it is")?,
            Relation::Inside => write!(f, "{backing} is inside {served}, which is")?,
            Relation::Above => write!(f, "{served} is inside {backing} and is")?,
        }
        let at = self.mountpoint.display();
        write!(
            f,
            " mounted on {at} by process {}; two mounts do not know each other's locks, and commits would be lost: use {at}, or unmount it first",
            self.pid
        )
    }
}

/// Why a directory cannot be claimed.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It is served already.
    InUse(Box<InUse>),
    /// It was served by a daemon that was unmounted, and a write transaction there does not end.
    Busy(String),
    Io(io::Error),
}

impl From<io::Error> for Refused {
    fn from(e: io::Error) -> Self {
        Refused::Io(e)
    }
}

impl From<Errno> for Refused {
    fn from(e: Errno) -> Self {
        Refused::Io(e.into())
    }
}

/// Opens a directory. Symbolic links in the path are not followed: others may be able to create them there.
pub(crate) fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(rustix::fs::CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

/// The device and the inode.
pub(crate) fn inode(dir: &OwnedFd) -> rustix::io::Result<(u64, u64)> {
    rustix::fs::fstat(dir).map(|s| (s.st_dev, s.st_ino))
}

/// Refuses a directory that this mount has claimed already, if it is served now or is inside a served one.
pub(crate) fn refuse_served(path: &Path, claim: &Claim, server: &Server, served: &[(PathBuf, Arc<Claim>)]) -> Result<(), Refused> {
    refuse_nested(path, &Place::of(&claim.root)?, server, served, &mut Mounts::default())
}

fn refuse_nested(path: &Path, place: &Place, server: &Server, served: &[(PathBuf, Arc<Claim>)], mounts: &mut Mounts) -> Result<(), Refused> {
    for (backing, claim) in served {
        if let Some(relation) = claim.place().and_then(|p| place.relation(&p, mounts)) {
            let (backing, served, mountpoint) = (path.to_owned(), backing.clone(), server.mountpoint.clone());
            return Err(Refused::InUse(Box::new(InUse { backing, relation, served, mountpoint, pid: std::process::id() })));
        }
    }
    Ok(())
}

/// The result of an attempt to claim a directory.
enum Attempt {
    Claimed(Arc<Claim>),
    /// Another mount has claimed it: which one, if known.
    Held(Option<(Relation, Box<Entry>)>),
}

impl Claim {
    /// Claims a directory that was [opened](open) with `path`. `served`: the directories that this mount serves already.
    pub fn new(path: &Path, root: OwnedFd, server: &Server, served: &[(PathBuf, Arc<Claim>)]) -> Result<Arc<Self>, Refused> {
        let inode = inode(&root)?;
        let root = Arc::new(root);
        let place = Place::of(&root)?;
        let mut mounts = Mounts::default();
        refuse_nested(path, &place, server, served, &mut mounts)?;
        let in_use = |relation, served: &str, mountpoint: &str, pid| {
            let in_use = InUse { backing: path.to_owned(), relation, served: served.into(), mountpoint: mountpoint.into(), pid };
            Refused::InUse(Box::new(in_use))
        };
        let end = Instant::now() + ENDING;
        let mut asked = false;
        loop {
            match Self::attempt(&root, inode, path, &place, server, &mut mounts)? {
                Attempt::Claimed(claim) => return Ok(claim),
                Attempt::Held(Some((relation, by))) => {
                    if asked || !by.yields().map_err(Refused::Busy)? {
                        return Err(in_use(relation, &by.backing, &by.mountpoint, by.pid));
                    }
                    asked = true;
                }
                // A process that is just ending, or another program.
                Attempt::Held(None) if Instant::now() >= end => return Err(in_use(Relation::Same, "", "", 0)),
                Attempt::Held(None) => std::thread::sleep(LOOK_AGAIN),
            }
        }
    }

    fn attempt(root: &Arc<OwnedFd>, inode: (u64, u64), path: &Path, place: &Place, server: &Server, mounts: &mut Mounts) -> Result<Attempt, Refused> {
        let registry = Registry::open()?;
        match rustix::fs::flock(root, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Attempt::Held(registry.holder_of(inode).map(|e| (Relation::Same, Box::new(e))))),
            Err(e) => return Err(e.into()),
        }
        if let Some((relation, entry)) = registry.nested(place, server, mounts) {
            rustix::fs::flock(root, FlockOperation::Unlock)?;
            return Ok(Attempt::Held(Some((relation, Box::new(entry)))));
        }
        let listed = registry.list(&Entry::new(root, inode, path, server), server);
        Ok(Attempt::Claimed(Arc::new(Claim { listed: Mutex::new(listed), inode, root: root.clone() })))
    }

    /// Its path now; `None` if it was deleted.
    fn place(&self) -> Option<Place> {
        let there = rustix::fs::fstat(&*self.root).is_ok_and(|s| s.st_nlink > 0);
        there.then(|| Place::of(&self.root).ok()).flatten()
    }

    /// Releases the claim, so that another mount can serve the directory.
    pub fn give_up(&self) {
        // The entry first: the next owner adds its own.
        *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Err(e) = rustix::fs::flock(&self.root, FlockOperation::Unlock) {
            tracing::warn!("a directory stays locked: {e}");
        }
    }
}
