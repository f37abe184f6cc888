//! Applies one send stream to one volume, and to nothing else.
//!
//! **Confined.** Every directory is opened beneath the volume's root with no link followed (`openat2`), every last component is taken as it is, files are
//! written only if they are regular, and extents are shared only with the volume itself and its base. So whatever a stream contains, nothing outside the
//! volume is read or written. No other user reaches the volume meanwhile: it is in a directory that only root may enter.
//!
//! **Bounded.** Commands have a bounded size; the pool's free space is checked as data arrive; endless attributes of one file are refused.

mod data;
mod flags;
mod root;

use super::stream::{Command, StreamReader, Time};
use crate::error::{Code, Error, Result};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::libc;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, ftruncate, linkat, unlinkat};
use rustix::fs::{Mode as RMode, OFlags, ResolveFlags, XattrFlags};
use std::collections::{HashMap, HashSet};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use uuid::Uuid;

/// Directories kept open: a stream walks a tree directory by directory.
const OPEN_DIRS: usize = 128;
/// The most attributes on one path in a row. A file has a handful; an honest stream never has more than this.
const XATTRS_IN_A_ROW: u32 = 10_000;
/// How many bytes of data, or commands, may arrive between two checks of the pool's free space.
const LOOK_BYTES: u64 = 32 << 20;
const LOOK_COMMANDS: u64 = 50_000;

/// The error for a stream that does what no honest stream does.
fn hostile(what: impl std::fmt::Display) -> Error {
    Error::new(Code::StreamRefused, format!("the stream from the other server was refused: {what}; nothing of it was kept"))
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(200)]).into_owned()
}

/// What a stream says about its volume.
pub(super) struct Applied {
    /// The identity of the volume that was sent.
    pub uuid: Uuid,
    /// The sender's transaction.
    pub transid: u64,
}

/// What a stream is applied to.
pub(super) struct Target<'a> {
    /// The root of a writable volume: empty, or a copy of `base`.
    pub root: BorrowedFd<'a>,
    /// The root of the volume it is a copy of, and its identity.
    pub base: Option<(BorrowedFd<'a>, Uuid)>,
    /// Names in the sender's root that look like the kernel's temporary names but are not.
    pub keep: &'a [Vec<u8>],
    /// Checks that there is space for this many more bytes; an error ends the stream.
    pub room: &'a dyn Fn(u64) -> Result<()>,
}

/// Whether a name is of the form that the kernel gives to what it is about to move or remove: `o257-9-0`.
pub(super) fn is_passing(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b"o") else { return false };
    let mut numbers = 0;
    rest.split(|b| *b == b'-').all(|n| {
        numbers += 1;
        !n.is_empty() && n.iter().all(u8::is_ascii_digit)
    }) && numbers == 3
}

/// Applies a stream up to its end. What was applied before an error stays: the caller deletes the volume.
///
/// # Errors
/// `stream_corrupt`, `stream_refused`, `transfer_cut`, `pool_full`, those of system calls.
pub(super) fn apply(input: impl Read, target: &Target<'_>) -> Result<Applied> {
    let mut reader = StreamReader::new(input)?;
    let applied = match (reader.next()?, target.base) {
        (Command::Subvol { uuid, transid }, None) => Applied { uuid, transid },
        (Command::Snapshot { uuid, transid, base }, Some((_, expected))) if base == expected => Applied { uuid, transid },
        (Command::Snapshot { base, .. }, Some((_, expected))) => return Err(hostile(format!("it changes volume {base}, not {expected} as agreed"))),
        _ => return Err(hostile("it does not begin with the volume that was agreed on")),
    };
    let mut apply = Apply {
        target,
        own: applied.uuid,
        dirs: HashMap::new(),
        file: None,
        root_times: times_of(target.root)?,
        inherited: root::set_aside(target.root)?,
        passing: HashSet::new(),
        xattrs: (Vec::new(), 0),
        bytes: 0,
        commands: 0,
    };
    loop {
        match reader.next()? {
            Command::End => {
                apply.clear_passing()?;
                apply.restore_inherited()?;
                apply.settle_root()?;
                return Ok(applied);
            }
            command => apply.one(&command)?,
        }
    }
}

struct Apply<'a> {
    target: &'a Target<'a>,
    own: Uuid,
    dirs: HashMap<Vec<u8>, Rc<OwnedFd>>,
    /// The file written last: a stream writes one after the other.
    file: Option<(Vec<u8>, File)>,
    /// The final times of the root.
    root_times: (Time, Time),
    /// What new files would inherit from the root.
    inherited: root::Inherited,
    /// What the kernel's stream has moved aside and not yet removed.
    passing: HashSet<Vec<u8>>,
    xattrs: (Vec<u8>, u32),
    bytes: u64,
    commands: u64,
}

/// A name in an open directory; for the root itself, `.` in it.
struct Spot {
    dir: Rc<OwnedFd>,
    name: CString,
}

fn split(path: &[u8]) -> Result<(&[u8], &[u8])> {
    let bad = |c: &[u8]| c.is_empty() || c == b"." || c == b".." || c.contains(&0);
    if path.split(|b| *b == b'/').any(bad) {
        return Err(hostile(format!("path {:?}", shown(path))));
    }
    Ok(match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    })
}

pub(super) fn open_beneath(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let path = if path.is_empty() { b"." } else { path };
    rustix::fs::openat2(root, OsStr::from_bytes(path), flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, RMode::empty(), resolve)
}

impl Apply<'_> {
    fn one(&mut self, command: &Command<'_>) -> Result<()> {
        self.commands += 1;
        if self.bytes >= LOOK_BYTES || self.commands >= LOOK_COMMANDS {
            (self.bytes, self.commands) = (0, 0);
            (self.target.room)(0)?;
        }
        match command {
            Command::Write { path, offset, data } => self.write(path, *offset, data),
            Command::Utimes { path, atime, mtime } => self.utimes(path, *atime, *mtime),
            Command::Mkfile { path } => self.mkfile(path),
            Command::Mkdir { path } => self.at(path, "make directory", |s| mkdirat(&*s.dir, s.name.as_c_str(), Mode::S_IRWXU)),
            Command::Mkfifo { path } => self.mknod(path, libc::S_IFIFO | 0o600, 0),
            Command::Mksock { path } => self.mknod(path, libc::S_IFSOCK | 0o600, 0),
            Command::Mknod { path, mode, rdev } => self.mknod(path, *mode, *rdev),
            Command::Symlink { path, target } => self.at(path, "make link", |s| nix::unistd::symlinkat(OsStr::from_bytes(target), &*s.dir, s.name.as_c_str())),
            Command::Rename { path, to } => self.rename(path, to),
            Command::Link { path, target } => {
                let from = self.spot(target)?;
                self.at(path, "link", |to| linkat(&*from.dir, from.name.as_c_str(), &*to.dir, to.name.as_c_str(), AtFlags::empty()))
            }
            Command::Unlink { path } => {
                self.close_below(path);
                self.passing.remove(*path);
                self.at(path, "remove", |s| unlinkat(&*s.dir, s.name.as_c_str(), UnlinkatFlags::NoRemoveDir))
            }
            Command::Rmdir { path } => {
                self.close_below(path);
                self.passing.remove(*path);
                self.at(path, "remove directory", |s| unlinkat(&*s.dir, s.name.as_c_str(), UnlinkatFlags::RemoveDir))
            }
            Command::SetXattr { path: [], name, value } if self.inherited.takes(name) => self.inherited.set(name, value),
            Command::RemoveXattr { path: [], name } if self.inherited.takes(name) => self.inherited.remove(name),
            Command::Flags { path: [], flags } => self.inherited.set_flags(*flags),
            Command::SetXattr { path, name, value } => self.set_xattr(path, name, value),
            Command::RemoveXattr { path, name } => {
                let (at, name) = (self.shown_path(path)?, OsStr::from_bytes(name).to_owned());
                match rustix::fs::lremovexattr(&at, &name) {
                    Ok(()) | Err(rustix::io::Errno::NODATA) => Ok(()),
                    Err(e) => Err(failed("remove an attribute of", path, e)),
                }
            }
            Command::Clone { path, offset, len, from, from_path, from_offset } => self.clone_range(path, *offset, *len, *from, from_path, *from_offset),
            Command::Truncate { path, size } => {
                let size = i64::try_from(*size).map_err(|_| hostile("a size beyond all files"))?;
                let file = self.open(path)?;
                ftruncate(file, size).map_err(|e| failed("truncate", path, e))
            }
            Command::Chmod { path, mode } => self.chmod(path, *mode),
            Command::Chown { path, uid, gid } => {
                let (uid, gid) = (Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)));
                self.at(path, "change the owner of", |s| nix::unistd::fchownat(&*s.dir, s.name.as_c_str(), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW))
            }
            Command::Fallocate { path, mode, offset, len } => self.fallocate(path, *mode, *offset, *len),
            Command::Flags { path, flags } => self.flags(path, *flags),
            Command::Extent => Ok(()),
            Command::Subvol { .. } | Command::Snapshot { .. } | Command::End => Err(hostile("a second volume in one stream")),
        }
    }

    fn dir(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>> {
        if let Some(dir) = self.dirs.get(path) {
            return Ok(Rc::clone(dir));
        }
        let fd = open_beneath(self.target.root, path, OFlags::PATH | OFlags::DIRECTORY).map_err(|e| failed("open directory", path, e))?;
        if self.dirs.len() >= OPEN_DIRS {
            self.dirs.clear();
        }
        let fd = Rc::new(fd);
        self.dirs.insert(path.to_owned(), Rc::clone(&fd));
        Ok(fd)
    }

    fn spot(&mut self, path: &[u8]) -> Result<Spot> {
        if path.is_empty() {
            return Ok(Spot { dir: self.dir(b"")?, name: c".".to_owned() });
        }
        let (parent, name) = split(path)?;
        Ok(Spot { dir: self.dir(parent)?, name: CString::new(name).map_err(|_| hostile("a name with a NUL"))? })
    }

    fn at(&mut self, path: &[u8], what: &str, f: impl FnOnce(&Spot) -> nix::Result<()>) -> Result<()> {
        f(&self.spot(path)?).map_err(|e| failed(what, path, e))
    }

    /// A path for calls that set attributes, which take no directory descriptor.
    fn shown_path(&mut self, path: &[u8]) -> Result<std::path::PathBuf> {
        let s = self.spot(path)?;
        Ok(std::path::PathBuf::from(format!("/proc/self/fd/{}", s.dir.as_raw_fd())).join(OsStr::from_bytes(s.name.as_bytes())))
    }

    /// Closes what is open at or below a path that is about to refer to something else.
    fn close_below(&mut self, path: &[u8]) {
        let below = |p: &[u8]| p.starts_with(path) && (p.len() == path.len() || p[path.len()] == b'/');
        self.dirs.retain(|p, _| !below(p));
        if self.file.as_ref().is_some_and(|(p, _)| below(p)) {
            self.file = None;
        }
    }

    /// The regular file at `path`, open for writing.
    fn open(&mut self, path: &[u8]) -> Result<&File> {
        if self.file.as_ref().is_none_or(|(p, _)| p != path) {
            let s = self.spot(path)?;
            must_be_regular(s.dir.as_fd(), &s.name, path)?;
            let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
            let fd = nix::fcntl::openat(&*s.dir, s.name.as_c_str(), flags, Mode::empty()).map_err(|e| failed("open", path, e))?;
            self.file = Some((path.to_owned(), File::from(fd)));
        }
        self.file.as_ref().map(|(_, f)| f).ok_or_else(|| Error::internal("a file that was just opened is not open"))
    }

    fn mkfile(&mut self, path: &[u8]) -> Result<()> {
        let s = self.spot(path)?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::openat(&*s.dir, s.name.as_c_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|e| failed("make file", path, e))?;
        self.file = Some((path.to_owned(), File::from(fd)));
        Ok(())
    }

    fn mknod(&mut self, path: &[u8], mode: u32, rdev: u64) -> Result<()> {
        let kind = SFlag::from_bits_truncate(mode & libc::S_IFMT);
        if !matches!(kind, SFlag::S_IFCHR | SFlag::S_IFBLK | SFlag::S_IFIFO | SFlag::S_IFSOCK) {
            return Err(hostile(format!("a node of mode {mode:o}")));
        }
        // The kernel sends its own packing of the numbers (`new_encode_dev`).
        let (major, minor) = ((rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00));
        let device = nix::sys::stat::makedev(major, minor);
        self.at(path, "make node", |s| mknodat(&*s.dir, s.name.as_c_str(), kind, Mode::from_bits_truncate(mode), device))
    }

    fn rename(&mut self, path: &[u8], to: &[u8]) -> Result<()> {
        // A new file is made under a number and renamed at once: it may stay open under its new name.
        let open = self.file.take().filter(|(p, _)| p == path);
        self.close_below(path);
        self.close_below(to);
        let from = self.spot(path)?;
        self.at(to, "rename to", |s| nix::fcntl::renameat(&*from.dir, from.name.as_c_str(), &*s.dir, s.name.as_c_str()))?;
        self.file = open.map(|(_, f)| (to.to_owned(), f));
        self.passing.remove(path);
        if is_passing(to) {
            self.passing.insert(to.to_owned());
        }
        Ok(())
    }

    /// A deleted directory is moved aside and removed once it is empty. The kernel (6.18) never considers one empty that had a nested volume, and leaves it under
    /// its temporary name: it is removed here. It has no files.
    fn clear_passing(&mut self) -> Result<()> {
        self.dirs.clear();
        for name in std::mem::take(&mut self.passing).iter().filter(|n| !self.target.keep.contains(n)) {
            let name = CString::new(&name[..]).map_err(|_| hostile("a name with a NUL"))?;
            super::keep_times::keeping_times(self.target.root, || remove_dirs(self.target.root, &name, 0))?;
        }
        Ok(())
    }

    fn set_xattr(&mut self, path: &[u8], name: &[u8], value: &[u8]) -> Result<()> {
        if self.xattrs.0 != path {
            self.xattrs = (path.to_owned(), 0);
        }
        self.xattrs.1 += 1;
        if self.xattrs.1 > XATTRS_IN_A_ROW {
            return Err(hostile(format!("more than {XATTRS_IN_A_ROW} attributes of {:?}", shown(path))));
        }
        self.bytes += (name.len() + value.len()) as u64;
        let at = self.shown_path(path)?;
        rustix::fs::lsetxattr(&at, OsStr::from_bytes(name), value, XattrFlags::empty()).map_err(|e| failed("set an attribute of", path, e))
    }

    fn chmod(&mut self, path: &[u8], mode: u32) -> Result<()> {
        let mode = Mode::from_bits_truncate(mode);
        let s = self.spot(path)?;
        // The call follows links, and no honest stream has the mode of a link.
        if fstatat(&*s.dir, s.name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(|st| st.st_mode & libc::S_IFMT == libc::S_IFLNK) {
            return Err(hostile(format!("a mode for the link {:?}", shown(path))));
        }
        fchmodat(&*s.dir, s.name.as_c_str(), mode, FchmodatFlags::FollowSymlink).map_err(|e| failed("change the mode of", path, e))
    }

    /// New things are created in the root and moved from there, which changes its times. The stream has them only if those of the source changed.
    fn settle_root(&mut self) -> Result<()> {
        let (atime, mtime) = self.root_times;
        self.utimes(b"", atime, mtime)
    }

    fn utimes(&mut self, path: &[u8], atime: Time, mtime: Time) -> Result<()> {
        if path.is_empty() {
            self.root_times = (atime, mtime);
        }
        let spec = |t: Time| TimeSpec::new(t.0, i64::from(t.1));
        self.at(path, "set the times of", |s| utimensat(&*s.dir, s.name.as_c_str(), &spec(atime), &spec(mtime), UtimensatFlags::NoFollowSymlink))
    }
}

fn times_of(fd: BorrowedFd<'_>) -> Result<(Time, Time)> {
    let s = nix::sys::stat::fstat(fd).map_err(|e| failed("look at", b"", e))?;
    let part = |n: i64| u32::try_from(n).unwrap_or(0);
    Ok(((s.st_atime, part(s.st_atime_nsec)), (s.st_mtime, part(s.st_mtime_nsec))))
}

fn must_be_regular(dir: BorrowedFd<'_>, name: &CString, path: &[u8]) -> Result<()> {
    let s = fstatat(dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|e| failed("look at", path, e))?;
    if s.st_mode & libc::S_IFMT == libc::S_IFREG { Ok(()) } else { Err(hostile(format!("{:?} is written like a file but is not one", shown(path)))) }
}

/// The error for a failed call. If a correct stream cannot cause it, it is the fault of the stream.
fn failed(what: &str, path: &[u8], e: impl Into<std::io::Error>) -> Error {
    let e: std::io::Error = e.into();
    match e.raw_os_error().map(Errno::from_raw) {
        Some(
            Errno::ELOOP
            | Errno::EXDEV
            | Errno::ENOENT
            | Errno::EEXIST
            | Errno::ENOTDIR
            | Errno::EISDIR
            | Errno::EINVAL
            | Errno::ENAMETOOLONG
            | Errno::ENOTEMPTY,
        ) => hostile(format!("cannot {what} {:?}: {e}", shown(path))).with_source(e),
        _ => Error::io(format!("{what} {:?}", shown(path)), e),
    }
}

/// Removes a directory and the directories in it; a file in it is an error.
fn remove_dirs(parent: BorrowedFd<'_>, name: &CString, depth: u32) -> Result<()> {
    let what = || failed("remove the directory left at", name.as_bytes(), Errno::ENOTEMPTY);
    let Ok(dir) = crate::sys::fs::open_dir_at(parent, name.as_c_str()) else { return Ok(()) };
    if depth > 256 {
        return Err(what());
    }
    let mut open = nix::dir::Dir::from_fd(dir.try_clone().map_err(|e| failed("open", name.as_bytes(), e))?).map_err(|e| failed("read", name.as_bytes(), e))?;
    let inside: Vec<CString> = open.iter().filter_map(|e| e.ok().map(|e| e.file_name().to_owned())).filter(|n| !matches!(n.to_bytes(), b"." | b"..")).collect();
    for n in inside {
        remove_dirs(dir.as_fd(), &n, depth + 1)?;
    }
    unlinkat(parent, name.as_c_str(), UnlinkatFlags::RemoveDir).map_err(|_| what())
}
