//! The registry of served directories on this machine: one file for each claim, in a directory that only root can use. The file of a daemon that has ended
//! is ignored, and removed by the next reader.

use super::place::{Mounts, Place};
use super::{Relation, Server};
use hoody_state::Code;
use hoody_state::locked_db::control::{Ask, LONGEST_LINE, Reply, left_socket};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Where the registry can be: the first usable one is used.
const PLACES: [&str; 2] = ["/run/hoody-state-fuse", "/dev/shm/hoody-state-fuse"];
const LOCK: &str = "lock";
/// The registry is locked for milliseconds: a process that holds it for longer is stopped.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How long a daemon may take to answer whether it is mounted.
const PING: Duration = Duration::from_secs(3);
/// How long it may take to yield: open write transactions must end first.
const YIELD: Duration = Duration::from_secs(15);

static NEXT: AtomicU64 = AtomicU64::new(1);

/// An entry of the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub pid: u32,
    pub backing: String,
    pub mountpoint: String,
    control: Option<String>,
    /// The inode of the daemon's process namespace: its process id is only valid there.
    namespace: u64,
    /// The descriptor with which the daemon has it open.
    descriptor: i32,
    device: u64,
    inode: u64,
}

/// A file in the registry. Dropping it removes the file.
#[derive(Debug)]
pub(super) struct Listed(PathBuf);

impl Drop for Listed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |m| m.ino())
}

impl Entry {
    pub fn new(root: &OwnedFd, (device, inode): (u64, u64), backing: &Path, server: &Server) -> Self {
        let text = |p: &Path| p.to_string_lossy().into_owned();
        Entry {
            pid: std::process::id(),
            backing: text(backing),
            mountpoint: text(&server.mountpoint),
            control: server.control.as_deref().map(text),
            namespace: namespace(),
            descriptor: root.as_raw_fd(),
            device,
            inode,
        }
    }

    /// The directory that the daemon has open; `None` if it does not.
    fn open(&self) -> Option<OwnedFd> {
        let path = if self.namespace == namespace() { format!("/proc/{}/fd/{}", self.pid, self.descriptor) } else { self.backing.clone() };
        let dir = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&dir).ok()?;
        if (stat.st_dev, stat.st_ino) != (self.device, self.inode) {
            return None;
        }
        // In another process namespace only the lock shows whether the daemon lives.
        let lives = self.namespace == namespace() || rustix::fs::flock(&dir, FlockOperation::NonBlockingLockShared).is_err();
        lives.then_some(dir)
    }

    /// Whether its daemon is unmounted and has given up its claims. Error: a write transaction is open there and does not end.
    pub fn yields(&self) -> Result<bool, String> {
        let Some(control) = self.control.as_ref().map(PathBuf::from).filter(|_| self.pid != std::process::id()) else { return Ok(false) };
        // Its mount may have been detached by somebody else: the request makes it notice.
        if matches!(self.ask(&control, &Ask::Ping {}, PING), Some(Reply::Done { .. })) {
            return Ok(false);
        }
        match self.ask(&left_socket(&control), &Ask::Yield {}, YIELD) {
            Some(Reply::Done { .. }) => Ok(true),
            Some(Reply::Error { code, message }) if code.parse() == Ok(Code::DatabasesBusy) => Err(message),
            _ => Ok(false),
        }
    }

    /// The answer of exactly this daemon at a socket, if it comes in time.
    fn ask(&self, socket: &Path, ask: &Ask, patience: Duration) -> Option<Reply> {
        let mut stream = UnixStream::connect(socket).ok()?;
        if u32::try_from(getsockopt(&stream, PeerCredentials).ok()?.pid()).ok() != Some(self.pid) {
            return None;
        }
        stream.set_read_timeout(Some(patience)).ok()?;
        stream.set_write_timeout(Some(patience)).ok()?;
        let mut line = serde_json::to_vec(ask).ok()?;
        line.push(b'\n');
        stream.write_all(&line).ok()?;
        let mut reply = String::new();
        BufReader::new(stream).take(LONGEST_LINE).read_line(&mut reply).ok()?;
        serde_json::from_str(&reply).ok()
    }
}

/// The registry, locked for this process while this lives.
pub(super) struct Registry {
    /// `None` if there is no usable directory: then claims are only known by their locks.
    place: Option<(PathBuf, File)>,
}

impl Registry {
    pub fn open() -> io::Result<Self> {
        for place in PLACES.map(Path::new) {
            match usable(place) {
                Ok(()) => {
                    let lock = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(place.join(LOCK))?;
                    take(&lock, place)?;
                    return Ok(Registry { place: Some((place.to_owned(), lock)) });
                }
                Err(e) => tracing::debug!("no registry in {}: {e}", place.display()),
            }
        }
        tracing::warn!("neither {} can be used: claims are not registered, and nested directories are not detected", PLACES.join(" nor "));
        Ok(Registry { place: None })
    }

    /// Adds an entry.
    pub fn list(&self, entry: &Entry, server: &Server) -> Option<Listed> {
        let (place, _) = self.place.as_ref()?;
        let name = format!("{}{}{}", prefix((entry.device, entry.inode)), server.mark(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = place.join(name);
        let text = serde_json::to_vec(entry).ok()?;
        match File::options().write(true).create(true).truncate(true).mode(0o600).open(&path).and_then(|mut f| f.write_all(&text)) {
            Ok(()) => Some(Listed(path)),
            Err(e) => {
                tracing::warn!("{} cannot be written: other daemons will not know who serves {} ({e})", path.display(), entry.backing);
                None
            }
        }
    }

    /// The entry of the daemon that has claimed a directory.
    pub fn holder_of(&self, inode: (u64, u64)) -> Option<Entry> {
        self.read(|name| name.starts_with(&format!("{}-of-", prefix(inode)))).into_iter().find_map(|(path, entry)| alive(&path, entry)).map(|(e, _)| e)
    }

    /// The entry of another mount that serves a directory around `place` or inside it.
    pub fn nested(&self, place: &Place, server: &Server, mounts: &mut Mounts) -> Option<(Relation, Entry)> {
        // What this mount serves is checked elsewhere; what it no longer serves but has open does not matter.
        let mine = server.mark();
        self.read(|name| !name.contains(&mine)).into_iter().find_map(|(path, entry)| {
            let (entry, dir) = alive(&path, entry)?;
            if rustix::fs::fstat(&dir).is_ok_and(|s| s.st_nlink == 0) {
                return None;
            }
            let other = Place::seen_by(&dir, if entry.namespace == namespace() { entry.pid } else { std::process::id() }).ok()?;
            Some((place.relation(&other, mounts)?, entry))
        })
    }

    fn read(&self, wanted: impl Fn(&str) -> bool) -> Vec<(PathBuf, Entry)> {
        let Some((place, _)) = &self.place else { return Vec::new() };
        let files = std::fs::read_dir(place).into_iter().flatten().flatten();
        let entry = |file: std::fs::DirEntry| {
            let entry = file.file_name().to_str().filter(|n| *n != LOCK && wanted(n)).and_then(|_| std::fs::read(file.path()).ok())?;
            Some((file.path(), serde_json::from_slice(&entry).ok()?))
        };
        files.filter_map(entry).collect()
    }
}

fn prefix((device, inode): (u64, u64)) -> String {
    format!("{device:x}-{inode:x}")
}

/// An entry of a living daemon, with its directory. The entry of a dead one is removed.
fn alive(path: &Path, entry: Entry) -> Option<(Entry, OwnedFd)> {
    match entry.open() {
        Some(dir) => Some((entry, dir)),
        None => {
            let _ = std::fs::remove_file(path);
            None
        }
    }
}

/// A directory that only root can use. It is created if it does not exist.
fn usable(place: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(place) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let meta = std::fs::symlink_metadata(place)?;
    if !meta.is_dir() || meta.uid() != 0 || meta.mode() & 0o077 != 0 {
        return Err(io::Error::other("it is not a directory that only root can use"));
    }
    Ok(())
}

fn take(lock: &File, place: &Path) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < end => std::thread::sleep(LOOK_AGAIN),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let m =
                    format!("{} has been locked for {PATIENCE:?}: is a hoody-state-fuse process stopped? Continue it, or end it", place.join(LOCK).display());
                return Err(io::Error::new(io::ErrorKind::TimedOut, m));
            }
            r => return r.map_err(Into::into),
        }
    }
}
