//! Names of a snapshot that go into a volume in use, in two stages: copied to where nobody sees them, then put in their places.
//!
//! **Guarantee.** While a path is staged, nothing of the container changes. A file, a link, a directory that is new or replaced as a whole ([`Options::delete_new`])
//! is put in its place by one rename: whoever looks sees the old one or the new one. A directory whose content goes into one that is there (`merge`) is placed
//! name by name, each by one rename; once that has begun, a crash does not leave it half done: [`settle`] finishes it. What the container has open stays open.
//!
//! **Places.** The directory of a name is looked up once, with the volume's root as `/`, and known by its inode number from then on. A link that is put in the
//! way later leads nowhere. A directory that is moved meanwhile takes what is restored along; one that is removed makes that path fail.
//!
//! **Left over** after a crash: an area of its own in each subvolume that something is restored into, which [`settle`] finds and removes.
//!
//! Cost: as for a [`Copier`] for what differs; nothing of the size of files.

mod area;
mod merge;
#[cfg(test)]
mod tests;

use super::attributes::copy_attributes;
use super::copy::Copier;
use super::dir_id::DirId;
use super::path::TreePath;
use super::place::Place;
use super::remove::remove;
use super::root::{Last, Root};
use crate::error::{Code, Error, IoContext, Result};
use area::{Area, make_in};
use merge::{is_gone, vanished};
use rustix::fs::{FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// What a unit is called while it waits.
const NEW: &CStr = c"new";
/// What was removed is called that.
const OLD: &CStr = c"old";
/// In the area of the volume itself: the subvolumes that have an area too.
const VOLUMES: &CStr = c"volumes";
/// Before the number of a path whose merge has begun.
const BEGUN: &str = "begun-";

/// How names are restored.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Into this directory of the container, under their own names; absent: to where they were.
    pub to: Option<TreePath>,
    /// Names that are not in the snapshot are deleted: directories are replaced as a whole, and a path that is not in it is removed.
    pub delete_new: bool,
    /// When the snapshot was taken, in seconds since 1970.
    pub taken: i64,
}

/// Refuses a place of the container, given as an absolute path without links, that nothing can be restored to.
pub type Allow<'a> = &'a dyn Fn(&TreePath) -> Result<()>;

/// Sees to it that no power cut keeps what is changed after this call and loses what was changed before it.
pub type Barrier<'a> = Box<dyn Fn() -> Result<()> + 'a>;

/// A path that is staged.
enum Ready {
    /// A copy that takes a name in one step.
    Unit { target: DirId, name: CString },
    /// The same for a name that nothing has: directories that are missing, with the path in them.
    Chain { target: DirId, name: CString, path: TreePath },
    /// A name that goes.
    Removal { target: DirId, name: CString },
    /// Steps of [`merge`].
    Merge,
}

/// Names on their way into a volume.
pub struct Staged<'a> {
    pool: BorrowedFd<'a>,
    from: Root,
    into: Root,
    top: u64,
    id: String,
    options: Options,
    allow: Allow<'a>,
    copier: Copier<'a>,
    barrier: Barrier<'a>,
    areas: BTreeMap<u64, Area>,
    ready: Vec<Ready>,
}

impl<'a> Staged<'a> {
    /// Makes the area in the volume `into`. `id`: letters and digits by which [`settle`] finds it. `go_on` is asked before each name that is copied.
    /// `barrier` is called between the copies and their placement: no name may lead to a copy that a power cut takes away.
    ///
    /// # Errors
    /// `pool_full`, `disk_limit_reached`; those of the system calls.
    pub fn begin(
        pool: BorrowedFd<'a>,
        (from, into): (Root, Root),
        id: &str,
        options: Options,
        allow: Allow<'a>,
        go_on: &'a dyn Fn() -> Result<()>,
        barrier: Barrier<'a>,
    ) -> Result<Self> {
        let top = DirId::of(into.as_fd())?.volume;
        let copier = Copier::new(pool, go_on);
        let mut staged = Staged { pool, from, into, top, id: id.to_owned(), options, allow, copier, barrier, areas: BTreeMap::new(), ready: Vec::new() };
        staged.area(top)?;
        Ok(staged)
    }

    /// Copies what is to be at `path`. Nothing is seen of it yet. Returns its number, for [`Staged::place`].
    ///
    /// # Errors
    /// `file_not_found` when the snapshot has no such path, or the container no directory for it; `not_a_directory`; `invalid_path` for the root and for what
    /// `allow` refuses; `volume_read_only` for a read-only subvolume; `pool_full`, `disk_limit_reached`; what `go_on` says.
    pub fn stage(&mut self, path: &TreePath) -> Result<usize> {
        let number = self.ready.len();
        match self.stage_as(number, path) {
            Ok(ready) => {
                self.ready.push(ready);
                Ok(number)
            }
            Err(e) => {
                // What was copied so far goes now, for the sake of its space; what cannot be removed goes with the area.
                let name = number_of(number)?;
                for area in self.areas.values() {
                    if let Err(e) = remove(self.pool, Place::new(area.dir(), &name)) {
                        tracing::debug!(error = %e, "what was staged of a path that failed is removed later");
                    }
                }
                Err(e)
            }
        }
    }

    fn stage_as(&mut self, number: usize, path: &TreePath) -> Result<Ready> {
        let (_, name) = path.split().ok_or_else(|| Error::new(Code::InvalidPath, "/ cannot be restored by its path: restore the snapshot"))?;
        let name = CString::new(name).map_err(|_| Error::internal("a path contains a NUL"))?;
        let source = self.source(path)?;
        let (target, missing) = self.target(path)?;
        let id = DirId::of(target.as_fd())?;
        self.check_place(&target, missing.first().map_or(name.to_bytes(), |m| m.to_bytes()))?;
        if let Some(first) = missing.first()
            && Place::new(target.as_fd(), first).stat()?.is_some()
        {
            return Err(Error::new(Code::NotADirectory, format!("{} leads through a link that leads nowhere: restore or remove the link first", path.shown())));
        }
        let present = Place::new(target.as_fd(), &name).stat()?.filter(|_| missing.is_empty());
        let Some(source) = source else {
            // Nothing in the snapshot has this path.
            return match present {
                Some(_) if self.options.delete_new && self.options.to.is_none() => {
                    self.area(id.volume)?;
                    Ok(Ready::Removal { target: id, name })
                }
                _ => Err(Error::new(Code::FileNotFound, format!("there is nothing at {} in the snapshot", path.shown()))),
            };
        };
        let from = Place::new(source.as_fd(), &name);
        let directory = |mode| FileType::from_raw_mode(mode) == FileType::Directory;
        let both = from.stat()?.is_some_and(|s| directory(s.st_mode)) && present.is_some_and(|s| directory(s.st_mode));
        let number = number_of(number)?;
        if both && !self.options.delete_new {
            self.merge(&number, from, target.as_fd(), &name)?;
            return Ok(Ready::Merge);
        }
        let place = self.area(id.volume)?.child(&number)?;
        if let Some((first, rest)) = missing.split_first() {
            self.with_directories(path, first, rest, from, place.as_fd())?;
            return Ok(Ready::Chain { target: id, name: first.clone(), path: path.clone() });
        }
        self.copier.copy(from, Place::new(place.as_fd(), NEW))?;
        Ok(Ready::Unit { target: id, name })
    }

    /// The directory of a path in the snapshot, if the path is there.
    fn source(&self, path: &TreePath) -> Result<Option<OwnedFd>> {
        let dir = match self.from.parent(path) {
            Ok((dir, _)) => dir,
            Err(e) if e.code() == Code::FileNotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let dir = open_again(dir.as_fd())?;
        let found = self.from.find(path, Last::Keep);
        match found {
            Ok(_) => Ok(Some(dir)),
            Err(e) if e.code() == Code::FileNotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The directory that a path goes into, and the names of directories that are missing between that and the path.
    fn target(&self, path: &TreePath) -> Result<(OwnedFd, Vec<CString>)> {
        if let Some(to) = &self.options.to {
            let found = self.into.find(to, Last::Follow).and_then(|found| found.open_directory(to));
            let found = found.map_err(|e| e.context("the directory to restore into"))?;
            return Ok((open_again(found.as_fd())?, Vec::new()));
        }
        let mut missing = Vec::new();
        let mut at = path.split().map(|(dir, _)| dir).unwrap_or_default();
        loop {
            match self.into.find(&at, Last::Follow).and_then(|found| found.open_directory(&at)) {
                Ok(found) => return Ok((open_again(found.as_fd())?, missing)),
                Err(e) if e.code() == Code::FileNotFound => {}
                Err(e) => return Err(e),
            }
            let (above, name) = at.split().ok_or_else(vanished)?;
            missing.insert(0, CString::new(name).map_err(|_| Error::internal("a path contains a NUL"))?);
            at = above;
        }
    }

    /// Refuses what is not on the container's disk, wherever a path led.
    fn check_place(&self, dir: &OwnedFd, name: &[u8]) -> Result<()> {
        let shown = |fd: BorrowedFd<'_>| {
            let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
            std::fs::read_link(link).io(|| "ask for the path of a directory")
        };
        let (root, dir) = (shown(self.into.as_fd())?, shown(dir.as_fd())?);
        let Ok(below) = dir.strip_prefix(&root) else { return Err(vanished()) };
        let place = below.join(std::ffi::OsStr::from_bytes(name));
        (self.allow)(&TreePath::new(place.as_os_str().as_bytes())?)
    }

    /// Stages a path whose directories are missing: they are made as they are in the snapshot, with nothing else in them.
    fn with_directories(&mut self, path: &TreePath, first: &CStr, rest: &[CString], from: Place<'_>, place: BorrowedFd<'_>) -> Result<()> {
        // From the path's own directory up, as many as are missing.
        let mut chain = Vec::new();
        let mut at = path.split().map(|(dir, _)| dir).unwrap_or_default();
        for _ in 0..=rest.len() {
            chain.insert(0, at.clone());
            at = at.split().map(|(dir, _)| dir).unwrap_or_default();
        }
        let mut made: Vec<(OwnedFd, OwnedFd)> = Vec::new();
        for (dir, name) in chain.iter().zip(std::iter::once(first).chain(rest.iter().map(CString::as_c_str))) {
            let found = self.from.find(dir, Last::Keep)?;
            let source = found.open_directory(dir).map_err(|e| e.context("the container lacks the directory of this path: restore the link to it first"))?;
            let source = open_again(source.as_fd())?;
            let place = match made.last() {
                None => Place::new(place, NEW),
                Some((_, above)) => Place::new(above.as_fd(), name),
            };
            let new = self.copier.copy_empty(source.as_fd(), place)?;
            made.push((source, new));
        }
        let Some((_, dir)) = made.last() else { return Err(vanished()) };
        self.copier.copy(from, Place::new(dir.as_fd(), from.name))?;
        // What was made in them has changed their times.
        made.iter().rev().try_for_each(|(source, new)| copy_attributes(Place::new(source.as_fd(), c"."), Place::new(new.as_fd(), c".")))
    }

    fn merge(&mut self, number: &CStr, from: Place<'_>, target: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        let pair = (directory(from.dir, from.name)?, directory(target, name)?);
        let (Some(source), Some(target)) = (pair.0, pair.1) else { return Err(vanished()) };
        // The area of the volume itself says that the merge has begun, wherever its steps are.
        self.area(self.top)?.child(number)?;
        let ids = (DirId::of(source.as_fd())?, DirId::of(target.as_fd())?);
        let volumes = (DirId::of(self.from.as_fd())?.volume, self.top);
        let Staged { pool, into, top, id, copier, areas, options, .. } = self;
        let mut steps = |volume| area_of(areas, *pool, into, *top, id, volume)?.child(number);
        merge::prepare(copier, *pool, ids, (options.taken, volumes), &mut steps)
    }

    fn area(&mut self, volume: u64) -> Result<&Area> {
        area_of(&mut self.areas, self.pool, &self.into, self.top, &self.id, volume)
    }

    /// Puts a staged path in its place.
    ///
    /// # Errors
    /// `file_not_found` when its directory was removed meanwhile; those of the system calls. Of a path that is placed in one step nothing has changed then.
    pub fn place(&mut self, number: usize) -> Result<()> {
        // Directories that are missing may be made by another path, or by the container.
        for _ in 0..16 {
            match self.try_place(number)? {
                None => return Ok(()),
                Some(path) => {
                    let name = number_of(number)?;
                    for area in self.areas.values() {
                        remove(self.pool, Place::new(area.dir(), &name))?;
                    }
                    let ready = self.stage_as(number, &path)?;
                    if let Some(was) = self.ready.get_mut(number) {
                        *was = ready;
                    }
                }
            }
        }
        Err(Error::new(Code::VolumeInUse, "something in the container keeps making and removing a directory: try again"))
    }

    /// The path if it must be staged again.
    fn try_place(&mut self, number: usize) -> Result<Option<TreePath>> {
        let name = number_of(number)?;
        if let Some(Ready::Merge) = self.ready.get(number) {
            return self.place_merge(number, &name).map(|()| None);
        }
        (self.barrier)()?;
        let done = match self.ready.get(number) {
            None | Some(Ready::Merge) => return Err(Error::internal("a path that was not staged cannot be placed")),
            Some(Ready::Unit { target, name: to }) => {
                let (waiting, dir) = self.pair(*target, &name)?;
                Place::new(waiting.as_fd(), NEW).put(Place::new(dir.as_fd(), to)).map(drop).map_err(|e| not_placed(to, e))
            }
            Some(Ready::Chain { target, name: to, path }) => {
                let (waiting, dir) = self.pair(*target, &name)?;
                match rustix::fs::renameat_with(&waiting, NEW, &dir, to, RenameFlags::NOREPLACE) {
                    Err(Errno::EXIST) => return Ok(Some(path.clone())),
                    done => done.map_err(|e| not_placed(to, e)),
                }
            }
            Some(Ready::Removal { target, name: gone }) => {
                let (waiting, dir) = self.pair(*target, &name)?;
                match rustix::fs::renameat_with(&dir, gone, &waiting, OLD, RenameFlags::NOREPLACE) {
                    Ok(()) | Err(Errno::NOENT) => Ok(()),
                    Err(e) => Err(not_placed(gone, e)),
                }
            }
        };
        done.map(|()| None)
    }

    /// The directory in which a path waits, and the directory that it goes into.
    fn pair(&self, target: DirId, number: &CStr) -> Result<(OwnedFd, OwnedFd)> {
        let area = self.areas.get(&target.volume).ok_or_else(|| Error::internal("the area of a staged path is missing"))?.child(number)?;
        match target.open(self.pool) {
            Ok(dir) => Ok((area, dir)),
            Err(e) if is_gone(&e) => Err(vanished()),
            Err(e) => Err(Error::io("open a directory of the container", e)),
        }
    }

    fn place_merge(&mut self, number: usize, name: &CStr) -> Result<()> {
        let begun = CString::new(format!("{BEGUN}{number}")).map_err(|_| Error::internal("a number contains a NUL"))?;
        let top = self.area(self.top)?;
        rustix::fs::renameat(top.dir(), name, top.dir(), &begun).io(|| "begin to put a directory in its place")?;
        // It is finished after a power cut if any of it took place.
        (self.barrier)()?;
        finish_merge(self.pool, self.top, &self.areas, name, &begun)?;
        // It is done: nothing of it is to be finished again.
        let pool = self.pool;
        remove(pool, Place::new(self.area(self.top)?.dir(), &begun))
    }
}

fn finish_merge(pool: BorrowedFd<'_>, top: u64, areas: &BTreeMap<u64, Area>, number: &CStr, begun: &CStr) -> Result<()> {
    let mut failed: Option<Error> = None;
    for (volume, area) in areas {
        let name = if *volume == top { begun } else { number };
        if let Some(steps) = area.open(name)?
            && let Err(e) = merge::finish(pool, steps.as_fd(), *volume)
        {
            failed.get_or_insert(e);
        }
    }
    failed.map_or(Ok(()), |e| Err(e.context("not everything could be put in its place")))
}

fn area_of<'m>(areas: &'m mut BTreeMap<u64, Area>, pool: BorrowedFd<'_>, into: &Root, top: u64, id: &str, volume: u64) -> Result<&'m Area> {
    if !areas.contains_key(&volume) {
        let root = if volume == top {
            open_again(into.as_fd())?
        } else {
            // Noted first, so that it is found.
            let text = CString::new(volume.to_string()).map_err(|_| Error::internal("a number contains a NUL"))?;
            let noted = areas.get(&top).ok_or_else(|| Error::internal("the area of the volume itself is missing"))?.child(VOLUMES)?;
            make_in(noted.as_fd(), &text)?;
            DirId { volume, inode: 0 }.volume_root().open(pool).io(|| "open a nested subvolume")?
        };
        areas.insert(volume, Area::make(root, id)?);
    }
    areas.get(&volume).ok_or_else(|| Error::internal("an area that was just made is missing"))
}

fn area_in(pool: BorrowedFd<'_>, volume: u64, id: &str) -> Result<Option<Area>> {
    match (DirId { volume, inode: 0 }).volume_root().open(pool) {
        Ok(root) => Area::find(root, id),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(Error::io("open a subvolume", e)),
    }
}

/// Finishes the merges that have begun under `id` in the volume `into`, and removes everything else that waits. May be repeated, and does nothing if there is
/// nothing. `pool` is any directory of its file system.
///
/// # Errors
/// `volume_in_use` when something in the container keeps changing what is to be removed; those of the system calls. A merge that could not be finished is only
/// logged: what is in its way would be in its way again.
pub fn settle(pool: BorrowedFd<'_>, into: &Root, id: &str) -> Result<()> {
    let top = DirId::of(into.as_fd())?.volume;
    let Some(first) = Area::find(open_again(into.as_fd())?, id)? else { return Ok(()) };
    let mut areas = BTreeMap::new();
    if let Some(noted) = first.open(VOLUMES)? {
        for name in super::dir_id::names(noted.as_fd())? {
            if let Some(volume) = name.to_str().ok().and_then(|n| n.parse().ok())
                && let Some(area) = area_in(pool, volume, id)?
            {
                areas.insert(volume, area);
            }
        }
    }
    let begun = super::dir_id::names(first.dir())?;
    areas.insert(top, first);
    for begun in begun {
        let Some(number) = begun.to_str().ok().and_then(|n| n.strip_prefix(BEGUN)).and_then(|n| n.parse().ok()) else { continue };
        if let Err(e) = finish_merge(pool, top, &areas, &number_of(number)?, &begun) {
            tracing::error!(error = %e, "a directory was restored in part");
        }
    }
    // The volume's own last: it says where the others are.
    let own = areas.remove(&top);
    areas.into_values().chain(own).try_for_each(|area| area.clear(pool))
}

fn not_placed(name: &CStr, e: Errno) -> Error {
    match e {
        Errno::NOENT => vanished(),
        Errno::AGAIN => Error::new(Code::VolumeInUse, format!("something in the container keeps changing {name:?}: try again")),
        e => Error::io(format!("put {name:?} in its place"), e),
    }
}

fn number_of(number: usize) -> Result<CString> {
    CString::new(number.to_string()).map_err(|_| Error::internal("a number contains a NUL"))
}

/// Opens a directory for reading whose descriptor may be `O_PATH`.
fn open_again(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, c".", flags, Mode::empty()).io(|| "open a directory")
}

/// The directory of this name, not following a link.
fn directory(dir: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(e) => Err(e).io(|| format!("open the directory {name:?}")),
    }
}
