//! Consoles: files that inits write directly, and whose size is bounded from outside.
//!
//! The file is opened for appending and belongs to the container's root, who may reopen, truncate or extend it. Nothing here trusts
//! its size: reading is bounded by the limit, and the space of the file on the disk is bounded by punching a hole at its start (offsets
//! stay the same, so that writers do not notice). Growth is noticed by inotify, at most once a second (more often only in a flood that
//! passes the limit within that second), and not at all while nothing is written. Where the kernel gives no inotify instance or no watch (other programs of the
//! host's root have used them up), the file is checked once a second instead.

use super::config::ConsolePath;
use crate::error::{IoContext, Result};
use crate::id::ContainerId;
use crate::runtime::Exit;
use crate::units::Bytes;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const QUIET: Duration = Duration::from_secs(1);
const FLOOD: Duration = Duration::from_millis(50);
const MAX_TAIL: u64 = 64 << 20;

/// The consoles of all containers.
pub(super) struct Consoles {
    path: ConsolePath,
    limit: u64,
    owner: u32,
    inotify: Option<Inotify>,
    watched: Mutex<HashMap<ContainerId, Growth>>,
}

/// How the growth of a console is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Growth {
    /// By inotify.
    Notified(WatchDescriptor),
    /// By checking the file regularly.
    Polled,
}

/// Whether inotify is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notify {
    /// Used if the kernel has an instance left.
    IfPossible,
    /// Not used: nothing is watched, or files are checked regularly.
    Never,
}

impl Consoles {
    pub fn new(path: ConsolePath, limit: Bytes, owner: u32, notify: Notify) -> Self {
        let init = || Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK);
        let without = |e: nix::errno::Errno| {
            tracing::warn!(error = %e, "no inotify instance: consoles are checked once a second (raise fs.inotify.max_user_instances)");
        };
        let inotify = if notify == Notify::Never { None } else { init().map_err(without).ok() };
        Consoles { path, limit: limit.0.clamp(8192, MAX_TAIL), owner, inotify, watched: Mutex::default() }
    }

    /// Becomes readable when something was written to a console whose growth the kernel notifies.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<ContainerId, Growth>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, container: &ContainerId) -> PathBuf {
        (self.path)(container)
    }

    /// Opens the console for a new run, whose output is appended to that of the last.
    pub fn open(&self, container: &ContainerId) -> Result<File> {
        let path = self.path(container);
        let open = || OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW).open(&path);
        let mut file = match (open(), path.parent()) {
            (Err(e), Some(dir)) if e.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(dir).io(|| format!("make {}", dir.display()))?;
                open()
            }
            (r, _) => r,
        }
        .io(|| format!("open the console {}", path.display()))?;
        if file.metadata().io(|| format!("read {}", path.display()))?.len() > self.limit {
            file = self.start_over(&path)?;
        }
        std::os::unix::fs::fchown(&file, Some(self.owner), Some(self.owner)).io(|| format!("give {} to the container", path.display()))?;
        Ok(file)
    }

    /// Makes offsets begin at 0 again, so that they never reach the largest that the file system allows. No process writes at this time.
    fn start_over(&self, path: &Path) -> Result<File> {
        let tail = read_tail(path, self.limit / 2)?;
        let next = path.with_extension("console-new");
        let _ = fs::remove_file(&next);
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&next).io(|| format!("make {}", next.display()))?;
        file.write_all(&tail).io(|| format!("write {}", next.display()))?;
        fs::rename(&next, path).io(|| format!("rename to {}", path.display()))?;
        Ok(file)
    }

    /// Bounds the console from now on. Returns whether [`poll`](Self::poll) must be called for that.
    pub fn watch(&self, container: &ContainerId) -> bool {
        let path = self.path(container);
        let growth = match self.inotify.as_ref().map(|i| i.add_watch(&path, AddWatchFlags::IN_MODIFY)) {
            Some(Ok(wd)) => Growth::Notified(wd),
            Some(Err(e)) => {
                tracing::warn!(%container, error = %e, "no inotify watch: the console is checked once a second (raise fs.inotify.max_user_watches)");
                Growth::Polled
            }
            None => Growth::Polled,
        };
        self.watched().insert(container.clone(), growth);
        // Bounds what was written before.
        self.trim(container);
        growth == Growth::Polled
    }

    /// Stops bounding the console.
    pub fn unwatch(&self, container: &ContainerId) {
        self.forget(container);
        self.trim(container);
    }

    fn forget(&self, container: &ContainerId) {
        if let (Some(Growth::Notified(wd)), Some(inotify)) = (self.watched().remove(container), &self.inotify) {
            let _ = inotify.rm_watch(wd);
        }
    }

    /// Bounds the consoles that were written to, and returns for how long to ignore them.
    pub fn ready(&self) -> Duration {
        let mut written = HashSet::new();
        while let Some(Ok(events)) = self.inotify.as_ref().map(Inotify::read_events) {
            written.extend(events.iter().map(|e| Growth::Notified(e.wd)));
        }
        self.trim_those(|growth| written.contains(growth)).unwrap_or(QUIET)
    }

    /// Bounds the consoles whose growth is not notified, and returns when to check again; `None`: there are none.
    pub fn poll(&self) -> Option<Duration> {
        self.trim_those(|growth| *growth == Growth::Polled)
    }

    fn trim_those(&self, which: impl Fn(&Growth) -> bool) -> Option<Duration> {
        let containers: Vec<ContainerId> = self.watched().iter().filter(|(_, growth)| which(growth)).map(|(c, _)| c.clone()).collect();
        let flood = containers.iter().filter(|c| self.trim(c)).count() > 0;
        (!containers.is_empty()).then_some(if flood { FLOOD } else { QUIET })
    }

    /// Punches out what is over the limit; returns whether anything was.
    fn trim(&self, container: &ContainerId) -> bool {
        let path = self.path(container);
        self.try_trim(&path).unwrap_or_else(|e| {
            if e.kind() != ErrorKind::NotFound {
                tracing::warn!(%container, error = %e, "could not bound the console");
            }
            false
        })
    }

    fn try_trim(&self, path: &Path) -> std::io::Result<bool> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK).open(path)?;
        let meta = file.metadata()?;
        if meta.blocks().saturating_mul(512) <= self.limit.saturating_add(64 << 10) && !self.is_over(&file, meta.len())? {
            return Ok(false);
        }
        let punch = |from: i64, len: i64| {
            fallocate(&file, FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE, from, len).map_err(std::io::Error::from)
        };
        let size = i64::try_from(meta.len()).unwrap_or(i64::MAX);
        // Whole blocks, so that at least half of the limit stays.
        let head = (size - (self.limit / 2) as i64).max(0) / 4096 * 4096;
        if head > 0 {
            punch(0, head)?;
        }
        // Space was reserved beyond the end by fallocate. Truncating the file to its own size frees it; a line that is appended at this moment may be lost.
        if file.metadata()?.blocks().saturating_mul(512) > self.limit.saturating_add(64 << 10) {
            file.set_len(file.metadata()?.len())?;
        }
        Ok(head > 0)
    }

    /// On file systems that allocate late, `blocks` lags behind what was written, so the offset of the first data is used.
    fn is_over(&self, mut file: &File, size: u64) -> std::io::Result<bool> {
        if size <= self.limit {
            return Ok(false);
        }
        let from = i64::try_from(size - self.limit).unwrap_or(i64::MAX);
        match nix::unistd::lseek(file, 0, nix::unistd::Whence::SeekData) {
            Ok(first) => Ok(first < from),
            Err(nix::errno::Errno::ENXIO) => Ok(false),
            Err(_) => file.seek(SeekFrom::End(0)).map(|n| n > self.limit),
        }
    }

    /// The last bytes, from the beginning of a line if there is one.
    pub fn tail(&self, container: &ContainerId, last: Option<Bytes>) -> Result<Vec<u8>> {
        let n = last.map_or(self.limit, |b| b.0.min(self.limit));
        let mut tail = read_tail(&self.path(container), n)?;
        let cut = tail.iter().position(|b| *b != 0).unwrap_or(tail.len());
        tail.drain(..cut);
        Ok(tail)
    }

    /// The last lines after the first `from` bytes, for a message: at most [`Exit::LAST_LINES`] bytes, without control characters.
    pub fn last_lines(&self, container: &ContainerId, from: u64) -> String {
        let path = self.path(container);
        let size = fs::symlink_metadata(&path).map_or(0, |m| m.len());
        let n = size.saturating_sub(from).min(Exit::LAST_LINES as u64);
        let tail = if n == 0 { Vec::new() } else { read_tail(&path, n).unwrap_or_default() };
        let text: String = String::from_utf8_lossy(&tail).chars().filter(|c| !c.is_control() || *c == '\n').collect();
        text.trim().to_owned()
    }

    /// Removes the file.
    pub fn remove(&self, container: &ContainerId) -> Result<()> {
        self.forget(container);
        let path = self.path(container);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e).io(|| format!("remove {}", path.display())),
            _ => Ok(()),
        }
    }
}

/// At most the last `n` bytes, beginning with a complete line if something was left out. A missing file is empty.
fn read_tail(path: &Path, n: u64) -> Result<Vec<u8>> {
    let mut file = match OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK).open(path) {
        Ok(f) => f,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).io(|| format!("open {}", path.display())),
    };
    let read = |file: &mut File| -> std::io::Result<Vec<u8>> {
        let size = file.metadata()?.len();
        let from = size.saturating_sub(n);
        let mut out = Vec::new();
        file.seek(SeekFrom::Start(from))?;
        file.take(n).read_to_end(&mut out)?;
        let mut before = [0u8; 1];
        let is_line_start = from == 0 || (file.read_at(&mut before, from - 1)? == 1 && matches!(before[0], b'\n' | 0));
        if !is_line_start
            && let Some(end) = out.iter().position(|b| *b == b'\n')
            && end + 1 < out.len()
        {
            out.drain(..=end);
        }
        Ok(out)
    };
    read(&mut file).io(|| format!("read {}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn consoles(dir: &Path, limit: u64, notify: Notify) -> Consoles {
        let dir = dir.to_path_buf();
        Consoles::new(Arc::new(move |c| dir.join(format!("sub/{c}.log"))), Bytes(limit), 100_000, notify)
    }

    #[test]
    fn what_was_written_is_read_in_whole_lines() {
        let tmp = tempfile::tempdir().unwrap();
        let (k, c) = (consoles(tmp.path(), 1 << 20, Notify::IfPossible), ContainerId::generate());
        assert_eq!(k.tail(&c, None).unwrap(), b"");
        k.open(&c).unwrap().write_all(b"one\ntwo\nthree\n").unwrap();
        k.open(&c).unwrap().write_all(b"four\n").unwrap();
        assert_eq!(k.tail(&c, None).unwrap(), b"one\ntwo\nthree\nfour\n");
        assert_eq!(k.tail(&c, Some(Bytes(13))).unwrap(), b"three\nfour\n");
        assert_eq!(k.tail(&c, Some(Bytes(11))).unwrap(), b"three\nfour\n");
        assert_eq!(k.tail(&c, Some(Bytes(3))).unwrap(), b"ur\n");
        k.remove(&c).unwrap();
        k.remove(&c).unwrap();
    }

    #[test]
    fn a_flood_is_bounded_and_its_end_kept() {
        for (dir, notify) in [("/tmp", Notify::IfPossible), ("/dev/shm", Notify::IfPossible), ("/tmp", Notify::Never)] {
            let tmp = tempfile::tempdir_in(dir).unwrap();
            let (k, c) = (consoles(tmp.path(), 64 << 10, notify), ContainerId::generate());
            let look = || if notify == Notify::Never { k.poll().unwrap() } else { k.ready() };
            assert_eq!(k.poll(), None, "nothing to check");
            let mut f = k.open(&c).unwrap();
            assert_eq!(k.watch(&c), notify == Notify::Never);
            for i in 0..40_000 {
                writeln!(f, "line {i} of many").unwrap();
            }
            assert_eq!(look(), FLOOD);
            f.sync_all().unwrap();
            look();
            let blocks = f.metadata().unwrap().blocks() * 512;
            assert!(blocks <= (64 << 10) + 8192, "{blocks} in {dir}");
            let tail = k.tail(&c, None).unwrap();
            assert!(tail.ends_with(b"line 39999 of many\n"));
            assert!(tail.len() as u64 >= 32 << 10, "{}", tail.len());
            assert!(!tail.contains(&0));
            writeln!(f, "after").unwrap();
            assert!(k.tail(&c, None).unwrap().ends_with(b"of many\nafter\n"));
            // The next run begins small.
            let again = k.open(&c).unwrap();
            assert!(again.metadata().unwrap().len() <= 64 << 10);
            assert!(k.tail(&c, None).unwrap().ends_with(b"after\n"));
            k.unwatch(&c);
            assert_eq!(k.poll(), None, "no longer");
        }
    }

    #[test]
    fn a_container_that_stretches_its_console_harms_itself_alone() {
        let tmp = tempfile::tempdir().unwrap();
        let (k, c) = (consoles(tmp.path(), 64 << 10, Notify::IfPossible), ContainerId::generate());
        let mut f = k.open(&c).unwrap();
        k.watch(&c);
        f.write_all(b"lost\n").unwrap();
        f.set_len(1 << 40).unwrap();
        assert_eq!(k.tail(&c, None).unwrap(), b"");
        f.write_all(b"after\n").unwrap();
        assert_eq!(k.tail(&c, None).unwrap(), b"after\n");
        f.set_len(0).unwrap();
        assert_eq!(k.tail(&c, None).unwrap(), b"");
        // Reserving the host's disk through it does not last.
        fallocate(&f, FallocateFlags::empty(), 0, 8 << 20).unwrap();
        k.ready();
        assert!(f.metadata().unwrap().blocks() * 512 <= 200 << 10, "{}", f.metadata().unwrap().blocks());
        fallocate(&f, FallocateFlags::FALLOC_FL_KEEP_SIZE, 64 << 20, 8 << 20).unwrap();
        k.ready();
        assert!(f.metadata().unwrap().blocks() * 512 <= 200 << 10, "{}", f.metadata().unwrap().blocks());
    }
}
