//! What a file is besides its name and its content: owner, mode, times, extended attributes (ACLs and capabilities among them) and flags.
//!
//! Read from one descriptor and given to another. A descriptor may be `O_PATH`, so that links, devices and FIFOs are never opened: such a one is named
//! `/proc/self/fd/N`, which leads to exactly the file that it is of and looks up no name.
//!
//! Left out: the times of change and of birth, which the kernel keeps to itself; the flags *immutable* and *append-only*, which no container can set or clear,
//! so a copy with them could not be removed again by its owner; and this program's own marks (`trusted.hoody.*`).

use super::place::Place;
use crate::error::{Code, Error, IoContext, Result};
use rustix::fs::{AtFlags, FileType, Gid, IFlags, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// `FS_NOCOMP_FL`, for which rustix has no name.
const NO_COMPRESSION: IFlags = IFlags::from_bits_retain(0x400);
/// The flags that are copied. Compression is an attribute ([`COMPRESSION`]), which sets its flag.
const FLAGS: IFlags = IFlags::NOCOW.union(NO_COMPRESSION).union(IFlags::SYNC).union(IFlags::NODUMP).union(IFlags::NOATIME).union(IFlags::DIRSYNC);
const COMPRESSION: &[u8] = b"btrfs.compression";
/// This program's own marks.
const OWN: &[u8] = b"trusted.hoody.";
/// The largest value that the kernel takes, and the largest list.
const LARGEST: usize = 64 << 10;

/// What is copied of a file besides its name and its content.
#[derive(Debug, Clone)]
pub(super) struct Attributes {
    pub(super) stat: Stat,
    flags: IFlags,
    named: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// How a descriptor is asked: by itself, or, if it is `O_PATH`, by its name in `/proc`.
#[derive(Clone, Copy)]
pub(super) enum By<'a> {
    Open(BorrowedFd<'a>),
    Path(BorrowedFd<'a>),
}

impl<'a> By<'a> {
    fn fd(self) -> BorrowedFd<'a> {
        match self {
            By::Open(fd) | By::Path(fd) => fd,
        }
    }

    fn name(self) -> String {
        format!("/proc/self/fd/{}", self.fd().as_raw_fd())
    }

    pub(super) fn list(self) -> Result<Vec<Vec<u8>>> {
        let mut size = 1024;
        loop {
            let mut list = vec![0; size];
            let n = match self {
                By::Open(fd) => rustix::fs::flistxattr(fd, &mut list),
                By::Path(_) => rustix::fs::listxattr(self.name(), &mut list),
            };
            match n {
                Ok(n) => return Ok(list[..n].split(|b| *b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect()),
                Err(Errno::RANGE) if size < LARGEST => size = LARGEST,
                Err(Errno::NOTSUP) => return Ok(Vec::new()),
                // The kernel lists none of them then.
                Err(Errno::TOOBIG) => {
                    let message = "the names of a file's extended attributes are longer than the 64 KiB that the kernel can list: remove some of them";
                    return Err(Error::new(Code::TooManyAttributes, message));
                }
                Err(e) => return Err(Error::io("list extended attributes", e)),
            }
        }
    }

    /// `None`: it is gone.
    pub(super) fn get(self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut size = 1024;
        loop {
            let mut value = vec![0; size];
            let n = match self {
                By::Open(fd) => rustix::fs::fgetxattr(fd, name, &mut value),
                By::Path(_) => rustix::fs::getxattr(self.name(), name, &mut value),
            };
            match n {
                Ok(n) => {
                    value.truncate(n);
                    return Ok(Some(value));
                }
                Err(Errno::RANGE) if size < LARGEST => size = LARGEST,
                Err(Errno::NODATA) => return Ok(None),
                Err(e) => return Err(e).io(|| format!("read the extended attribute {:?}", OsStr::from_bytes(name))),
            }
        }
    }

    pub(super) fn set(self, name: &[u8], value: &[u8]) -> Result<()> {
        let set = match self {
            By::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            By::Path(_) => rustix::fs::setxattr(self.name(), name, value, XattrFlags::empty()),
        };
        set.io(|| format!("set the extended attribute {:?}", OsStr::from_bytes(name)))
    }

    fn remove(self, name: &[u8]) -> Result<()> {
        let removed = match self {
            By::Open(fd) => rustix::fs::fremovexattr(fd, name),
            By::Path(_) => rustix::fs::removexattr(self.name(), name),
        };
        match removed {
            Ok(()) | Err(Errno::NODATA) => Ok(()),
            Err(e) => Err(e).io(|| format!("remove the extended attribute {:?}", OsStr::from_bytes(name))),
        }
    }
}

fn is_copied(name: &[u8]) -> bool {
    !name.starts_with(OWN)
}

/// Only these have flags.
fn has_flags(stat: &Stat) -> bool {
    matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Directory)
}

fn flags_of(by: By<'_>, stat: &Stat) -> Result<IFlags> {
    match by {
        By::Open(fd) if has_flags(stat) => rustix::fs::ioctl_getflags(fd).io(|| "read the flags of a file"),
        _ => Ok(IFlags::empty()),
    }
}

impl Attributes {
    /// Whether the extended attributes are the same.
    pub(super) fn same_named(&self, other: &Attributes) -> bool {
        self.named == other.named
    }

    /// Those of an open file.
    pub(super) fn of(by: By<'_>) -> Result<Self> {
        let stat = rustix::fs::fstat(by.fd()).io(|| "look at a file")?;
        let mut named = BTreeMap::new();
        for name in by.list()?.into_iter().filter(|n| is_copied(n)) {
            if let Some(value) = by.get(&name)? {
                named.insert(name, value);
            }
        }
        Ok(Attributes { flags: flags_of(by, &stat)? & FLAGS, stat, named })
    }

    /// Gives a new, empty file or directory the flags and nothing that it inherited from its directory. Data can be shared only after that: a file without
    /// copy-on-write shares none with a file that has it.
    pub(super) fn prepare(&self, by: By<'_>) -> Result<()> {
        let stat = rustix::fs::fstat(by.fd()).io(|| "look at a new file")?;
        let inherited = by.list()?;
        let now = flags_of(by, &stat)?;
        let wanted = (now - FLAGS - IFlags::COMPRESSED) | self.flags;
        if let By::Open(fd) = by
            && wanted != now
            && let Err(e) = rustix::fs::ioctl_setflags(fd, wanted)
        {
            // They say how data are stored and are no part of them. If copy-on-write differs, the data are copied instead of shared.
            tracing::debug!(error = %e, "flags of a file were not set");
        }
        for name in inherited.iter().filter(|n| is_copied(n)) {
            by.remove(name)?;
        }
        Ok(())
    }

    /// Gives everything else, in the order in which one does not undo the other. `by` may have been there before: attributes that are not wanted are removed.
    pub(super) fn give(&self, by: By<'_>) -> Result<()> {
        // A change of owner clears capabilities and the set-id bits, so it comes first.
        self.give_owner(by)?;
        for name in by.list()?.into_iter().filter(|n| is_copied(n) && !self.named.contains_key(n)) {
            by.remove(&name)?;
        }
        for (name, value) in &self.named {
            match by.set(name, value) {
                // A file without copy-on-write has none. Nor has the data changed by it.
                Err(e) if name == COMPRESSION => tracing::debug!(error = %e, "the compression of a file was not set"),
                set => set?,
            }
        }
        if FileType::from_raw_mode(self.stat.st_mode) != FileType::Symlink {
            let mode = Mode::from_raw_mode(self.stat.st_mode & 0o7777);
            let set = match by {
                By::Open(fd) => rustix::fs::fchmod(fd, mode),
                By::Path(_) => rustix::fs::chmod(by.name(), mode),
            };
            set.io(|| "set the mode of a file")?;
        }
        self.give_times(by)
    }

    /// Flags for what was there before; [`Attributes::give`] has the rest. A file that has data keeps copy-on-write as it is.
    fn give_flags(&self, by: By<'_>) -> Result<()> {
        let stat = rustix::fs::fstat(by.fd()).io(|| "look at a file")?;
        let now = flags_of(by, &stat)?;
        let wanted = (now - FLAGS) | self.flags;
        match by {
            By::Open(fd) if wanted != now => rustix::fs::ioctl_setflags(fd, wanted).io(|| "set the flags of a file"),
            _ => Ok(()),
        }
    }

    fn give_owner(&self, by: By<'_>) -> Result<()> {
        let (uid, gid) = (Uid::from_raw(self.stat.st_uid), Gid::from_raw(self.stat.st_gid));
        rustix::fs::chownat(by.fd(), "", Some(uid), Some(gid), AtFlags::EMPTY_PATH).io(|| "set the owner of a file")
    }

    /// The times of last access and modification.
    pub(super) fn give_times(&self, by: By<'_>) -> Result<()> {
        let time = |seconds: i64, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanoseconds).unwrap_or_default() };
        let s = &self.stat;
        let times = Timestamps { last_access: time(s.st_atime, s.st_atime_nsec), last_modification: time(s.st_mtime, s.st_mtime_nsec) };
        rustix::fs::utimensat(by.fd(), "", &times, AtFlags::EMPTY_PATH).io(|| "set the times of a file")
    }
}

/// Gives what is at `to` the attributes of what is at `from`: owner, mode, times, extended attributes and flags. Both are of one kind; attributes that `from`
/// has not are removed. No link is followed, and no device or FIFO is opened.
///
/// # Errors
/// `not_a_regular_file` or `not_a_directory` when they are of two kinds; those of the system calls.
pub fn copy_attributes(from: Place<'_>, to: Place<'_>) -> Result<()> {
    let (from, to) = (Found::at(from)?, Found::at(to)?);
    if from.kind != to.kind {
        let code = if from.kind == FileType::Directory { Code::NotADirectory } else { Code::NotARegularFile };
        return Err(Error::new(code, "attributes are given to something of the same kind only"));
    }
    let attributes = Attributes::of(from.by())?;
    attributes.give_flags(to.by())?;
    attributes.give(to.by())
}

/// What has a name, open if it is a file or a directory.
struct Found {
    fd: OwnedFd,
    kind: FileType,
}

impl Found {
    fn at(place: Place<'_>) -> Result<Self> {
        let what = || format!("look at {:?}", place.name);
        let path = rustix::fs::openat(place.dir, place.name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).io(what)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&path).io(what)?.st_mode);
        if !matches!(kind, FileType::RegularFile | FileType::Directory) {
            return Ok(Found { fd: path, kind });
        }
        // The descriptor is of what was looked at, whatever has the name by now.
        let fd = rustix::fs::open(By::Path(path.as_fd()).name(), OFlags::RDONLY | OFlags::NOATIME | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
        Ok(Found { fd: fd.io(what)?, kind })
    }

    fn by(&self) -> By<'_> {
        match self.kind {
            FileType::RegularFile | FileType::Directory => By::Open(self.fd.as_fd()),
            _ => By::Path(self.fd.as_fd()),
        }
    }
}
