//! The places of volumes: names in open directories of the pool.

use super::{BtrfsStore, is_subvolume, not_found};
use crate::error::{Code, Error, IoContext, Result};
use crate::pool::layout;
use crate::snapshot::{SnapshotStore, Volume};
use crate::sys::fs::{SUBVOLUME_ROOT_INO, open_dir_at};
use nix::errno::Errno;
use nix::sys::stat::{Mode, mkdirat};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The place of a volume, which may or may not exist: a name in an open directory.
pub(super) struct Place {
    pub dir: OwnedFd,
    pub name: CString,
}

impl BtrfsStore {
    /// The place of a volume; `None` if its directory does not exist.
    pub(super) fn place(&self, v: &Volume) -> Result<Option<Place>> {
        let path = layout::path(v);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::internal(format!("{v:?} has no place")));
        };
        match open_dir_at(&self.root, parent) {
            Ok(dir) => Ok(Some(Place { dir, name: CString::new(name.as_bytes()).map_err(|_| Error::internal("a volume's name contains a NUL"))? })),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(format!("open {}", self.path.join(parent).display()), e)),
        }
    }

    /// The place of a volume that is about to be created; creates the directories above it.
    pub(super) fn place_for(&self, v: &Volume) -> Result<Place> {
        match v {
            Volume::Live(c) | Volume::Next(c) | Volume::Snapshot(c, _) | Volume::NextDatabases(c) => self.create_home(c)?,
            Volume::SnapshotDatabases(c, _) => {
                self.create_home(c)?;
                self.make_dir(&Path::new(layout::CONTAINERS).join(c.as_str()).join(layout::DATABASES))?;
            }
            Volume::Databases(p) => self.make_dir(&Path::new(layout::PROJECTS).join(p.as_str()))?,
            Volume::Staging(o) => self.make_dir(&Path::new(layout::STAGING).join(o.as_str()))?,
            Volume::Image(_) => {}
        }
        self.place(v)?.ok_or_else(|| Error::new(Code::PoolIncomplete, format!("the directory for {v} is missing from the pool: open the pool again")))
    }

    pub(super) fn make_dir(&self, path: &Path) -> Result<()> {
        match mkdirat(&self.root, path, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(e) => Err(Error::io(format!("make directory {}", self.path.join(path).display()), e)),
        }
    }

    pub(super) fn find(&self, v: &Volume) -> Result<Option<OwnedFd>> {
        let Some(place) = self.place(v)? else { return Ok(None) };
        let fd = match open_dir_at(&place.dir, place.name.as_c_str()) {
            Ok(fd) => fd,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(format!("open {v}"), e)),
        };
        if !is_subvolume(fd.as_fd()).io(|| format!("stat {v}"))? {
            return Err(Error::new(Code::NotAVolume, format!("{} is not a BTRFS subvolume: move it elsewhere", self.shown(v))));
        }
        Ok(Some(fd))
    }

    pub(super) fn existing(&self, v: &Volume) -> Result<OwnedFd> {
        self.find(v)?.ok_or_else(|| not_found(v))
    }

    pub(super) fn shown(&self, v: &Volume) -> String {
        self.path.join(layout::path(v)).display().to_string()
    }

    /// The names in a directory of the pool; none if it does not exist.
    pub(super) fn names(&self, dir: &Path) -> Result<Vec<String>> {
        let what = || format!("read directory {}", self.path.join(dir).display());
        let fd = match open_dir_at(&self.root, dir) {
            Ok(fd) => fd,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io(what(), e)),
        };
        let mut names = Vec::new();
        for entry in nix::dir::Dir::from_fd(fd).io(what)?.iter() {
            let entry = match entry {
                // The directory was removed after it was opened.
                Err(Errno::ENOENT) => break,
                e => e.io(what)?,
            };
            if let Ok(name) = entry.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    pub(super) fn is_volume(&self, v: &Volume) -> bool {
        nix::sys::stat::fstatat(&self.root, &layout::path(v), nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|s| s.st_ino == SUBVOLUME_ROOT_INO && s.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR)
    }
}
