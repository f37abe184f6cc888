//! What a look-up found.

use super::path::{TreePath, shorten, shown};
use crate::error::{Code, Error, IoContext, Result};
use crate::sys::fs::SUBVOLUME_ROOT_INO;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, StatxFlags, StatxTimestamp};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// How often, and after which pauses, a file is opened again that a process in the container holds a lease on.
const LEASE_TRIES: u32 = 20;
const LEASE_PAUSE: Duration = Duration::from_millis(50);

/// What kind of thing has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory; also the root of a nested subvolume.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl Kind {
    /// The word for it in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Directory => "directory",
            Kind::Symlink => "symlink",
            Kind::Fifo => "fifo",
            Kind::Socket => "socket",
            Kind::CharDevice => "char_device",
            Kind::BlockDevice => "block_device",
        }
    }

    /// The kind in the mode of a `stat`.
    #[must_use]
    pub fn of_mode(mode: u32) -> Self {
        match FileType::from_raw_mode(mode) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            _ => Kind::File,
        }
    }
}

/// Seconds since 1970, which may be negative, and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Whole seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds after them, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl From<StatxTimestamp> for Time {
    fn from(t: StatxTimestamp) -> Self {
        Time { seconds: t.tv_sec, nanoseconds: t.tv_nsec }
    }
}

/// What `statx` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// Its permissions with set-user-id, set-group-id and sticky bit: twelve bits.
    pub mode: u32,
    /// Its owner on the host.
    pub uid: u32,
    /// Its group on the host.
    pub gid: u32,
    /// Bytes of data; of a symbolic link the length of its target.
    pub size: u64,
    /// Bytes on the disk, without holes.
    pub allocated: u64,
    /// Of its last read, as far as that is kept.
    pub accessed: Time,
    /// Of the last change of its data.
    pub modified: Time,
    /// Of the last change of its data or attributes.
    pub changed: Time,
    /// When it was made.
    pub created: Time,
    /// Its inode number in its subvolume.
    pub inode: u64,
    /// The device, as major and minor number; each subvolume has its own.
    pub device: (u32, u32),
    /// How many names it has.
    pub links: u32,
    /// The major and minor number of a device.
    pub special: (u32, u32),
}

impl Meta {
    /// What is known of an open descriptor, which may be `O_PATH`.
    pub(crate) fn of(fd: BorrowedFd<'_>) -> io::Result<Meta> {
        let s = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
        let mode = u32::from(s.stx_mode);
        Ok(Meta {
            kind: Kind::of_mode(mode),
            mode: mode & 0o7777,
            uid: s.stx_uid,
            gid: s.stx_gid,
            size: s.stx_size,
            allocated: s.stx_blocks.saturating_mul(512),
            accessed: s.stx_atime.into(),
            modified: s.stx_mtime.into(),
            changed: s.stx_ctime.into(),
            created: s.stx_btime.into(),
            inode: s.stx_ino,
            device: (s.stx_dev_major, s.stx_dev_minor),
            links: s.stx_nlink,
            special: (s.stx_rdev_major, s.stx_rdev_minor),
        })
    }
}

/// A name that was looked up: an `O_PATH` descriptor, so it stays the same thing whatever is renamed, and nothing of it is open for reading yet.
#[derive(Debug)]
pub struct Node {
    at: OwnedFd,
    /// As it was when it was looked up.
    pub meta: Meta,
}

impl Node {
    /// What an open descriptor is of.
    pub(crate) fn new(at: OwnedFd) -> io::Result<Self> {
        let meta = Meta::of(at.as_fd())?;
        Ok(Node { at, meta })
    }

    /// Opens it for reading, which must be a regular file. Its time of access stays. `path` is for messages.
    ///
    /// # Errors
    /// `is_a_directory`, `not_a_regular_file`: a link, a FIFO, a socket or a device; `volume_in_use`: a process holds a lease on it and keeps it.
    pub fn open_file(&self, path: &TreePath) -> Result<File> {
        match self.meta.kind {
            Kind::File => {}
            Kind::Directory => return Err(Error::new(Code::IsADirectory, format!("{} is a directory", shorten(&path.shown())))),
            other => {
                let message = format!("{} is a {}, not a file: only regular files are opened", shorten(&path.shown()), other.as_str());
                return Err(Error::new(Code::NotARegularFile, message));
            }
        }
        for _ in 0..LEASE_TRIES {
            // Never waits: a lease in the container would hold up this thread for as long as the kernel lets it.
            match self.reopen(OFlags::RDONLY | OFlags::NOATIME | OFlags::NONBLOCK) {
                Err(Errno::AGAIN) => std::thread::sleep(LEASE_PAUSE),
                r => return Ok(r.io(|| format!("open {}", path.shown()))?.into()),
            }
        }
        Err(Error::new(Code::VolumeInUse, format!("a process in the container holds a lease on {}: try again", shorten(&path.shown()))))
    }

    /// Opens it for listing, which must be a directory. `path` is for messages.
    ///
    /// # Errors
    /// `not_a_directory`.
    pub fn open_directory(&self, path: &TreePath) -> Result<Directory> {
        if self.meta.kind != Kind::Directory {
            return Err(Error::new(Code::NotADirectory, format!("{} is not a directory", shorten(&path.shown()))));
        }
        Ok(Directory(self.reopen(OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME).io(|| format!("open {}", path.shown()))?))
    }

    /// Where a symbolic link leads, unread: it may be relative, and need not exist.
    ///
    /// # Errors
    /// Those of the system call, also if it is no link.
    pub fn target(&self) -> Result<Vec<u8>> {
        let target = rustix::fs::readlinkat(&self.at, "", Vec::new()).io(|| "read a symbolic link")?;
        Ok(target.into_bytes())
    }

    /// The descriptor is of what was checked, so nothing that is renamed meanwhile is opened instead.
    fn reopen(&self, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let shown = format!("/proc/self/fd/{}", self.at.as_raw_fd());
        rustix::fs::open(shown, flags | OFlags::CLOEXEC, Mode::empty())
    }
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.at.as_fd()
    }
}

/// An open directory.
#[derive(Debug)]
pub struct Directory(OwnedFd);

impl Directory {
    /// Calls `each` with every name in it but `.` and `..`, in no order; the first error ends it. Memory: constant.
    ///
    /// # Errors
    /// That of `each`, those of the system call.
    pub fn names(&self, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        for entry in rustix::fs::Dir::read_from(&self.0).io(|| "open a directory")? {
            let entry = match entry {
                // It was removed after it was opened.
                Err(Errno::NOENT) => break,
                e => e.io(|| "read a directory")?,
            };
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => each(name)?,
            }
        }
        self.check_volume()
    }

    /// Fails if it is the root of a volume that has been deleted: such a one looks as if it had become empty, and so does a listing that was under way.
    ///
    /// # Errors
    /// `volume_not_found`.
    pub fn check_volume(&self) -> Result<()> {
        let what = || "look at the root of a volume";
        if Meta::of(self.0.as_fd()).io(what)?.inode != SUBVOLUME_ROOT_INO {
            return Ok(());
        }
        let again = rustix::fs::openat(&self.0, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).io(what)?;
        let mut buffer = [MaybeUninit::uninit(); 1024];
        match RawDir::new(again, &mut buffer).next() {
            Some(Err(Errno::NOENT)) => Err(Error::new(Code::VolumeNotFound, "the snapshot or volume was deleted while it was read")),
            Some(Err(e)) => Err(e).io(what),
            _ => Ok(()),
        }
    }

    /// What `name` in it is, never following a link; `None` if it is gone.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn child(&self, name: &[u8]) -> Result<Option<Node>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.0, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Node::new(fd).io(|| format!("look at {}", shown(name)))?)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Error::io(format!("look at {}", shown(name)), e)),
        }
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The error of a look-up.
pub(super) fn failed(path: &TreePath, e: io::Error) -> Error {
    let shown = shorten(&path.shown());
    match Errno::from_io_error(&e) {
        Some(Errno::NOENT) => Error::new(Code::FileNotFound, format!("there is nothing at {shown}")),
        Some(Errno::LOOP) => Error::new(Code::FileNotFound, format!("there is nothing at {shown}: too many symbolic links on the way, or one of /proc")),
        Some(Errno::NOTDIR) => Error::new(Code::NotADirectory, format!("something on the way to {shown}, or the last name of it, is not a directory")),
        Some(Errno::NAMETOOLONG) => Error::new(Code::InvalidPath, format!("{shown} is too long, or leads through a link that is")),
        _ => Error::io(format!("look up {}", path.shown()), e),
    }
}
