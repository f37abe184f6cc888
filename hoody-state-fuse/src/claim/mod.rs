//! Who serves a directory. A backing is served by one mount of this machine: two know nothing of each other's locks, and commits vanish.
//!
//! | what | how |
//! | --- | --- |
//! | the same directory (by whatever path, bind mount or namespace) | `flock` on the directory itself: the kernel's, by inode; it ends with the daemon, however that ends |
//! | a directory in another one that is served | the registry: each daemon says there what it serves |
//! | who it is that serves it | the registry |
//!
//! A daemon that was unmounted while files are open still holds its claims. It gives them up when its successor asks it to hold the writes of its users
//! (`Ask::Yield`); the successor finds it by the registry.
//!
//! Not seen: a directory by way of overlayfs and its upper directory (two inodes for the kernel); nested directories where the daemons do not see the same `/run`.

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

/// How long a directory may stay locked by a process that is just ending.
const ENDING: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Who serves, as it is told to whoever is refused.
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

    /// Part of the names of its entries in the registry, and of no other's.
    fn mark(&self) -> String {
        format!("-of-{}.{}-", std::process::id(), self.number)
    }
}

/// A directory that is served by this process alone, until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    /// Goes before the lock does: who takes it next lists itself.
    listed: Mutex<Option<Listed>>,
    pub inode: (u64, u64),
    /// The directory; the lock is on this descriptor.
    pub root: Arc<OwnedFd>,
}

/// How a directory that is asked for lies to one that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// It is the same.
    Same,
    /// It lies in the one that is served.
    Inside,
    /// The one that is served lies in it.
    Above,
}

/// Somebody serves a directory already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// The directory that was asked for.
    pub backing: PathBuf,
    /// How it lies to the one that is served.
    pub relation: Relation,
    /// The directory that is served.
    pub served: PathBuf,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// By which process; 0 if that is not known.
    pub pid: u32,
}

impl std::fmt::Display for InUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (backing, served) = (self.backing.display(), self.served.display());
        if self.pid == 0 {
            return write!(f, "{backing} is locked by another process, which did not say where it serves it (`lslocks` lists locks): end that process first");
        }
        match self.relation {
            Relation::Same => write!(f, "{backing} is served already: it is")?,
            Relation::Inside => write!(f, "{backing} lies in {served}, which is")?,
            Relation::Above => write!(f, "{served} lies in {backing} and is")?,
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
    /// It is served.
    InUse(Box<InUse>),
    /// It was served by a daemon that has left its place, in which a write transaction does not end.
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

/// Opens a directory; no link on the way is followed, since volumes may lie where others can put links.
pub(crate) fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(rustix::fs::CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

/// Device and inode.
pub(crate) fn inode(dir: &OwnedFd) -> rustix::io::Result<(u64, u64)> {
    rustix::fs::fstat(dir).map(|s| (s.st_dev, s.st_ino))
}

/// Refuses a directory that this mount has claimed already, if it is served now or lies in what is.
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

/// One attempt to claim a directory.
enum Attempt {
    Claimed(Arc<Claim>),
    /// Somebody has it; who, if that is known.
    Held(Option<(Relation, Box<Entry>)>),
}

impl Claim {
    /// Claims a directory that was [opened](open) by `path`. `served`: what this mount serves already.
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
                // By a process that is just ending; or by none of ours.
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

    /// Where it is now; nowhere once it is deleted.
    fn place(&self) -> Option<Place> {
        let there = rustix::fs::fstat(&*self.root).is_ok_and(|s| s.st_nlink > 0);
        there.then(|| Place::of(&self.root).ok()).flatten()
    }

    /// Another mount may serve it from now on.
    pub fn give_up(&self) {
        // First: who takes it next lists itself.
        *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Err(e) = rustix::fs::flock(&self.root, FlockOperation::Unlock) {
            tracing::warn!("a directory stays locked: {e}");
        }
    }
}
