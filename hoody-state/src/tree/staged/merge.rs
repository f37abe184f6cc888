//! A directory whose content goes into one that is there, name by name; what is there besides stays.
//!
//! What is to be done lies on the disk, so that it can be finished after a crash from wherever it was cut short. For each pair of directories there is one
//! *step*, a directory called `<inode of the target>-<volume of the source>-<inode of the source>`, in the area of the target's subvolume. It holds the copies
//! of the names that go into the target. A copy that has been placed is in the step no more. When all are placed, the target is given the attributes of the
//! source. A copy that must be exchanged with something, because a file is in the place of a directory or the other way round, is moved to a directory
//! `!<inode of the target>-<inode of the copy>` first: afterwards its inode number tells whether the exchange has taken place.

use super::area::make_in;
use crate::error::{Code, Error, IoContext, Result};
use crate::tree::attributes::copy_attributes;
use crate::tree::copy::Copier;
use crate::tree::dir_id::{DirId, names};
use crate::tree::place::Place;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Copies what differs between two directories into steps. `steps` gives the directory of the steps for a subvolume; `taken`: since when, in seconds since
/// 1970, the source does not change; `volumes`: the source's and the target's own. In subvolumes nested in these everything is copied: the one in the target need
/// not be the one in the source, and equal numbers and times say nothing then.
pub(super) fn prepare(
    copier: &mut Copier<'_>,
    pool: BorrowedFd<'_>,
    (source, target): (DirId, DirId),
    (taken, volumes): (i64, (u64, u64)),
    steps: &mut dyn FnMut(u64) -> Result<OwnedFd>,
) -> Result<()> {
    let mut todo = vec![(source, target)];
    while let Some((s, t)) = todo.pop() {
        let source = s.open(pool).io(|| "open a directory of the snapshot")?;
        let target = match t.open(pool) {
            Ok(target) => target,
            Err(e) if is_gone(&e) => return Err(vanished()),
            Err(e) => return Err(Error::io("open a directory of the container", e)),
        };
        let same_volume = (s.volume, t.volume) == volumes;
        let step = make_in(steps(t.volume)?.as_fd(), &name(format!("{}-{}-{}", t.inode, s.volume, s.inode))?)?;
        for n in names(source.as_fd())? {
            let (from, to) = (Place::new(source.as_fd(), &n), Place::new(target.as_fd(), &n));
            let (Some(wanted), present) = (from.stat()?, to.stat()?) else { continue };
            if is_dir(&wanted)
                && present.as_ref().is_some_and(is_dir)
                && let Some(below) = open_dir(target.as_fd(), &n)?
            {
                let above = open_dir(source.as_fd(), &n)?.ok_or_else(|| Error::internal("a directory of a snapshot has gone"))?;
                todo.push((DirId::of(above.as_fd())?, DirId::of(below.as_fd())?));
            } else if !(same_volume && present.is_some_and(|p| is_unchanged(&wanted, &p, taken))) {
                copier.copy(from, Place::new(step.as_fd(), &n))?;
            }
        }
    }
    Ok(())
}

/// Takes the steps in `steps`, which are of the subvolume `volume`. May be repeated after a crash. What could not be done is the first error; everything else is
/// done all the same.
pub(super) fn finish(pool: BorrowedFd<'_>, steps: BorrowedFd<'_>, volume: u64) -> Result<()> {
    let mut failed: Option<Error> = None;
    for step in names(steps)? {
        let done = take(pool, steps, &step, volume);
        if let Err(e) = done {
            failed.get_or_insert(e);
        }
    }
    failed.map_or(Ok(()), Err)
}

fn take(pool: BorrowedFd<'_>, steps: BorrowedFd<'_>, step: &CStr, volume: u64) -> Result<()> {
    let text = step.to_str().unwrap_or_default();
    let (is_exchange, numbers) = match text.strip_prefix('!') {
        Some(numbers) => (true, numbers),
        None => (false, text),
    };
    let numbers: Vec<u64> = numbers.split('-').filter_map(|n| n.parse().ok()).collect();
    let Some(dir) = open_dir(steps, step)? else { return Ok(()) };
    let open = |id: DirId| match id.open(pool) {
        Ok(dir) => Ok(dir),
        Err(e) if is_gone(&e) => Err(vanished()),
        Err(e) => Err(Error::io("open a directory of the container", e)),
    };
    match (is_exchange, numbers.as_slice()) {
        (true, &[target, copy]) => {
            let target = open(DirId { volume, inode: target })?;
            names(dir.as_fd())?.iter().try_for_each(|n| exchange(Place::new(dir.as_fd(), n), Place::new(target.as_fd(), n), copy))
        }
        (false, &[target, source_volume, source]) => {
            let id = DirId { volume, inode: target };
            let target = open(id)?;
            let mut failed: Option<Error> = None;
            for n in names(dir.as_fd())? {
                if let Err(e) = put(steps, Place::new(dir.as_fd(), &n), Place::new(target.as_fd(), &n), id.inode) {
                    failed.get_or_insert(e);
                }
            }
            let source = DirId { volume: source_volume, inode: source }.open(pool).io(|| "open a directory of the snapshot")?;
            // `.` is what is open, wherever it is.
            copy_attributes(Place::new(source.as_fd(), c"."), Place::new(target.as_fd(), c"."))?;
            failed.map_or(Ok(()), Err)
        }
        _ => Err(Error::internal(format!("the step {text:?} of a restore cannot be read"))),
    }
}

/// Puts one copy in its place.
fn put(steps: BorrowedFd<'_>, copy: Place<'_>, to: Place<'_>, target: u64) -> Result<()> {
    let what = || format!("put {:?} in its place", to.name);
    match rustix::fs::renameat(copy.dir, copy.name, to.dir, to.name) {
        Ok(()) => return Ok(()),
        Err(Errno::ISDIR | Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(Errno::NOENT) => return if copy.stat()?.is_some() { Err(vanished()) } else { Ok(()) },
        Err(e) => return Err(e).io(what),
    }
    let Some(stat) = copy.stat()? else { return Ok(()) };
    let aside = make_in(steps, &name(format!("!{target}-{}", stat.st_ino))?)?;
    let moved = Place::new(aside.as_fd(), copy.name);
    rustix::fs::renameat(copy.dir, copy.name, moved.dir, moved.name).io(what)?;
    exchange(moved, to, stat.st_ino)
}

/// Exchanges the copy with the inode number `copy` with what has its name in the container, unless that was done.
fn exchange(from: Place<'_>, to: Place<'_>, copy: u64) -> Result<()> {
    // What is in the container may change at any time.
    for _ in 0..64 {
        if from.stat()?.is_none_or(|s| s.st_ino != copy) {
            return Ok(());
        }
        match from.exchange(to) {
            Ok(()) => return Ok(()),
            Err(Errno::NOENT) => match rustix::fs::renameat_with(from.dir, from.name, to.dir, to.name, rustix::fs::RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Err(vanished()),
                Err(e) => return Err(e).io(|| format!("put {:?} in its place", to.name)),
            },
            Err(e) => return Err(e).io(|| format!("exchange {:?}", to.name)),
        }
    }
    Err(Error::new(Code::VolumeInUse, format!("something in the container keeps changing {:?}: try again", to.name)))
}

/// Whether a name of the container is what it was in the snapshot: nothing was written to it since, and none of its attributes changed. A file with several
/// names is never skipped, so that those which are restored are linked with each other.
fn is_unchanged(wanted: &Stat, present: &Stat, taken: i64) -> bool {
    let same = |s: &Stat| (s.st_ino, s.st_mode, s.st_size, s.st_uid, s.st_gid, s.st_ctime, s.st_ctime_nsec, s.st_mtime, s.st_mtime_nsec, s.st_nlink);
    // A change in the tick of the clock in which the snapshot was taken may have left the same time.
    !is_dir(wanted) && wanted.st_nlink == 1 && same(wanted) == same(present) && wanted.st_ctime < taken - 2
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// A directory of this name; `None` if there is none, or something else has the name.
fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>> {
    match rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(e) => Err(e).io(|| format!("open the directory {name:?}")),
    }
}

pub(super) fn is_gone(e: &std::io::Error) -> bool {
    matches!(e.raw_os_error(), Some(nix::libc::ESTALE | nix::libc::ENOENT | nix::libc::ENOTDIR))
}

pub(super) fn vanished() -> Error {
    Error::new(Code::FileNotFound, "a directory of the container was removed meanwhile: try again")
}

fn name(text: String) -> Result<CString> {
    CString::new(text).map_err(|_| Error::internal("a number contains a NUL"))
}
