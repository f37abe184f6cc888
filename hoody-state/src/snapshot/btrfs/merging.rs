//! Applies the steps of a merge to a volume: names are moved and removed in it, what is new is copied from the other volume by reflink.
//!
//! The steps come from a comparison of trees, so no directory on the way is a link; a look-up that met one would stay inside the volume all the same.

use super::{BtrfsStore, is_subvolume};
use crate::diff::merge::Step;
use crate::error::{Code, Error, IoContext, Result};
use crate::snapshot::{Mergeable, Volume};
use crate::tree::{Copier, Kind, Last, Place, Root, TreePath, copy_attributes, equal, remove, shown};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

impl Mergeable for BtrfsStore {
    fn equal(&self, a: (&Volume, &[u8]), b: (&Volume, &[u8])) -> Result<bool> {
        let (x, y) = (Root::new(self.existing(a.0)?), Root::new(self.existing(b.0)?));
        equal((&x, &path_of(a.1)?), (&y, &path_of(b.1)?))
    }

    fn apply(&self, steps: &[Step], from: &Volume, to: &Volume, go_on: &dyn Fn() -> Result<()>) -> Result<()> {
        let copier = Copier::new(self.mount(), go_on);
        let (from, to) = (Root::new(self.existing(from)?), Root::new(self.existing(to)?));
        let mut applier = Applier { from, to, pool: self.mount(), copier, hold: None, directories: Vec::new() };
        for step in steps {
            go_on()?;
            applier.step(step).map_err(|e| e.context(format!("take {} over", shown(path_in(step)))))?;
        }
        applier.end()
    }
}

fn path_of(path: &[u8]) -> Result<TreePath> {
    TreePath::new(path).map_err(|e| if path.len() > 4095 { Error::new(Code::PathTooLong, e.message().to_owned()) } else { e })
}

fn c_name(name: &[u8]) -> Result<CString> {
    CString::new(name).map_err(|_| Error::new(Code::InvalidPath, "a name has a NUL"))
}

/// The path that a step is about.
fn path_in(step: &Step) -> &[u8] {
    match step {
        Step::Remove { at: path } | Step::TakeOut { at: path, .. } | Step::Mirror { path } => path,
        Step::PutBack { to, .. } | Step::Create { to, .. } | Step::Link { to, .. } | Step::Set { to, .. } => to,
    }
}

/// A name in a directory that is open.
struct At {
    dir: OwnedFd,
    name: CString,
}

impl At {
    fn of(root: &Root, path: &[u8]) -> Result<Self> {
        let path = path_of(path)?;
        let (dir, name) = root.parent(&path)?;
        // What copies hard links asks the kernel which directory this is, which takes more than `O_PATH`.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(&dir, ".", flags, Mode::empty()).io(|| format!("open the directory of {}", path.shown()))?;
        Ok(At { dir, name: c_name(name)? })
    }

    fn place(&self) -> Place<'_> {
        Place::new(self.dir.as_fd(), &self.name)
    }

    fn remove(&self, flags: AtFlags) -> rustix::io::Result<()> {
        rustix::fs::unlinkat(&self.dir, &self.name, flags)
    }
}

/// Where things are kept that are taken out: a directory in the volume's root.
struct Hold {
    dir: OwnedFd,
    name: CString,
}

struct Applier<'a> {
    from: Root,
    to: Root,
    pool: BorrowedFd<'a>,
    copier: Copier<'a>,
    hold: Option<Hold>,
    /// Directories that were made, to give them their times in the end.
    directories: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Applier<'_> {
    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Remove { at } => self.remove(at),
            Step::TakeOut { at, number } => self.take_out(at, *number),
            Step::PutBack { number, to } => self.put_back(*number, to),
            Step::Create { from, to } => self.create(from, to),
            Step::Link { of, to } => self.link(of, to),
            Step::Set { from, to, content } => self.set(from, to, *content),
            Step::Mirror { path } => self.mirror(path),
        }
    }

    fn remove(&self, at: &[u8]) -> Result<()> {
        let at = At::of(&self.to, at)?;
        let removed = match at.remove(AtFlags::empty()) {
            Err(Errno::ISDIR) => at.remove(AtFlags::REMOVEDIR),
            removed => removed,
        };
        match removed {
            Ok(()) => Ok(()),
            // In a read-only nested volume: it goes with the volume.
            Err(Errno::ROFS) => Ok(()),
            Err(e) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let nested = rustix::fs::openat(&at.dir, &at.name, flags, Mode::empty()).is_ok_and(|d| is_subvolume(d.as_fd()).unwrap_or(false));
                if nested { remove(self.pool, at.place()) } else { Err(e).io(|| format!("remove {:?}", at.name)) }
            }
        }
    }

    fn hold(&mut self) -> Result<BorrowedFd<'_>> {
        if self.hold.is_none() {
            let mut number = 0u32;
            let name = loop {
                let name = c_name(format!(".hoody-merge-{number}").as_bytes())?;
                match rustix::fs::mkdirat(&self.to, &name, Mode::RWXU) {
                    Ok(()) => break name,
                    Err(Errno::EXIST) => number += 1,
                    Err(e) => return Err(e).io(|| "make a directory for what is moved"),
                }
            };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let dir = rustix::fs::openat(&self.to, &name, flags, Mode::empty()).io(|| "open a directory for what is moved")?;
            self.hold = Some(Hold { dir, name });
        }
        self.hold.as_ref().map(|h| h.dir.as_fd()).ok_or_else(|| Error::internal("there is no directory for what is moved"))
    }

    fn take_out(&mut self, at: &[u8], number: usize) -> Result<()> {
        let (at, kept) = (At::of(&self.to, at)?, c_name(number.to_string().as_bytes())?);
        let hold = self.hold()?;
        match rustix::fs::renameat_with(&at.dir, &at.name, hold, &kept, RenameFlags::NOREPLACE) {
            // Out of a nested volume.
            Err(Errno::XDEV) => {
                let hold = hold.try_clone_to_owned().io(|| "keep a directory open")?;
                self.copier.copy(at.place(), Place::new(hold.as_fd(), &kept))?;
                remove(self.pool, at.place())
            }
            moved => moved.io(|| format!("move {:?}", at.name)),
        }
    }

    fn put_back(&mut self, number: usize, to: &[u8]) -> Result<()> {
        let (to, kept) = (At::of(&self.to, to)?, c_name(number.to_string().as_bytes())?);
        let hold = self.hold()?.try_clone_to_owned().io(|| "keep a directory open")?;
        match rustix::fs::renameat_with(&hold, &kept, &to.dir, &to.name, RenameFlags::NOREPLACE) {
            Err(Errno::XDEV) => {
                self.copier.copy(Place::new(hold.as_fd(), &kept), to.place())?;
                remove(self.pool, Place::new(hold.as_fd(), &kept))
            }
            moved => moved.io(|| format!("move {:?} to its place", to.name)),
        }
    }

    fn create(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        let path = path_of(from)?;
        let node = self.from.find(&path, Last::Keep)?;
        let target = At::of(&self.to, to)?;
        if node.meta.kind == Kind::Directory {
            let source = node.open_directory(&path)?;
            self.copier.copy_empty(source.as_fd(), target.place())?;
            self.directories.push((from.to_vec(), to.to_vec()));
            return Ok(());
        }
        self.copier.copy(At::of(&self.from, from)?.place(), target.place())
    }

    fn link(&mut self, of: &[u8], to: &[u8]) -> Result<()> {
        let (of, to) = (At::of(&self.to, of)?, At::of(&self.to, to)?);
        match rustix::fs::linkat(&of.dir, &of.name, &to.dir, &to.name, AtFlags::empty()) {
            // In another nested volume, or with as many names as it can have: then it is a file of its own.
            Err(Errno::XDEV | Errno::MLINK) => Copier::new(self.pool, &|| Ok(())).copy(of.place(), to.place()),
            linked => linked.io(|| format!("link {:?}", to.name)),
        }
    }

    fn set(&mut self, from: &[u8], to: &[u8], content: bool) -> Result<()> {
        if from.is_empty() || to.is_empty() {
            return self.set_root();
        }
        let path = path_of(from)?;
        let node = self.from.find(&path, Last::Keep)?;
        let (source, target) = (At::of(&self.from, from)?, At::of(&self.to, to)?);
        if content && node.meta.kind == Kind::File {
            self.share(&node.open_file(&path)?, &path_of(to)?)?;
        }
        copy_attributes(source.place(), target.place())
    }

    /// The roots have no name: they are given by `.`.
    fn set_root(&self) -> Result<()> {
        let dot = c".";
        copy_attributes(Place::new(self.from.as_fd(), dot), Place::new(self.to.as_fd(), dot))
    }

    /// Makes a file's content that of another. All its names see it.
    fn share(&self, source: &File, to: &TreePath) -> Result<()> {
        let node = self.to.find(to, Last::Keep)?;
        if node.meta.kind != Kind::File {
            return Err(Error::internal(format!("{} is not a file", to.shown())));
        }
        // The descriptor is of what was looked at.
        let name = format!("/proc/self/fd/{}", node.as_fd().as_raw_fd());
        let target = rustix::fs::open(name, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
        let target = File::from(target.io(|| format!("open {}", to.shown()))?);
        let what = || format!("share the data of {}", to.shown());
        target.set_len(0).io(what)?;
        if source.metadata().io(what)?.len() == 0 {
            return Ok(());
        }
        match rustix::fs::ioctl_ficlone(&target, source) {
            // Files with checksums and files without share no extents.
            Err(Errno::INVAL) => std::io::copy(&mut &*source, &mut &target).map(drop).io(what),
            shared => shared.io(what),
        }
    }

    fn mirror(&mut self, path: &[u8]) -> Result<()> {
        let gone = |e: &Error| e.code() == Code::FileNotFound || e.code() == Code::NotADirectory;
        let target = match At::of(&self.to, path) {
            Err(e) if gone(&e) => return Ok(()),
            at => at?,
        };
        remove(self.pool, target.place())?;
        match At::of(&self.from, path) {
            Ok(source) if source.place().stat()?.is_some() => self.copier.copy(source.place(), target.place()),
            Err(e) if !gone(&e) => Err(e),
            _ => Ok(()),
        }
    }

    fn end(self) -> Result<()> {
        for (from, to) in self.directories.iter().rev() {
            copy_attributes(At::of(&self.from, from)?.place(), At::of(&self.to, to)?.place())?;
        }
        if let Some(Hold { name, .. }) = &self.hold {
            remove_empty(&self.to, name)?;
        }
        // What was copied and not shared.
        rustix::fs::syncfs(&self.to).io(|| "write out what was taken over")
    }
}

fn remove_empty(root: &Root, name: &CStr) -> Result<()> {
    rustix::fs::unlinkat(root, name, AtFlags::REMOVEDIR).io(|| "remove the directory for what was moved")
}
