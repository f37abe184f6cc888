//! Writes one member of the archive to the disk.
//!
//! The order matters: contents, then the owner (which clears set-id bits and capabilities), then the mode, then extended
//! attributes, then the times.

use super::ids::shifted;
use super::members::{Member, Members, Sparse, Type};
use super::path::{Whiteout, components, shown, unsafe_path, whiteout};
use super::skipped::Skipped;
use super::tree::{self, Existing, Tree, times};
use super::xattr;
use crate::error::{Code, Error, IoContext, Result};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Writes members into a tree and counts them.
pub(super) struct Writer {
    pub(super) tree: Tree,
    pub(super) skipped: Skipped,
    pub(super) files: u64,
    pub(super) bytes: u64,
    id_base: u32,
    /// Whether some directory has a default ACL, which files without an ACL in the archive must not inherit.
    inherits: bool,
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn open(root: &Path, id_base: u32) -> Result<Self> {
        let tree = Tree::open(root, id_base)?;
        Ok(Writer { tree, skipped: Skipped::default(), files: 0, bytes: 0, id_base, inherits: false, buffer: vec![0; 128 << 10] })
    }

    /// Writes one member, reading its data from `members`.
    pub(super) fn write<R: Read>(&mut self, m: &Member, members: &mut Members<R>) -> Result<()> {
        if let Type::Other(t) = m.kind {
            self.skipped.add(&format!("entry of type {:?}", char::from(t)), &m.path);
            return Ok(());
        }
        let parts = components(&m.path)?;
        for key in &m.ignored {
            self.skipped.add(&format!("header {key}"), &m.path);
        }
        shifted(&m.path, "user", m.uid, self.id_base)?;
        shifted(&m.path, "group", m.gid, self.id_base)?;
        let Some((name, parent)) = parts.split_last() else {
            return if m.kind == Type::Directory { self.directory(m, &[]) } else { Err(unsafe_path(&m.path, "the root can only be a directory")) };
        };
        if self.whiteout(m, parent, name)? {
            return Ok(());
        }
        self.files += 1;
        if m.kind == Type::Directory {
            return self.directory(m, &parts);
        }
        if m.kind == Type::HardLink {
            return self.hard_link(m, parent, name);
        }
        self.tree.enter(parent)?;
        self.make_way(m, name)?;
        match m.kind {
            Type::Symlink => self.symlink(m, parent, name),
            Type::File => self.file(m, parent, name, members),
            _ => self.node(m, parent, name),
        }
    }

    /// Whether the member is a whiteout. If so, removes what it names.
    fn whiteout(&mut self, m: &Member, parent: &[&[u8]], name: &[u8]) -> Result<bool> {
        let overlay = m.kind == Type::Char && m.device == (0, 0);
        let target = match whiteout(name) {
            Whiteout::No if overlay => name,
            Whiteout::No => return Ok(false),
            Whiteout::Name(n) => n,
            Whiteout::Opaque => {
                self.tree.enter(parent)?;
                self.tree.empty()?;
                return Ok(true);
            }
            Whiteout::Other => {
                self.skipped.add("bookkeeping of a union file system", &m.path);
                return Ok(true);
            }
        };
        self.tree.enter(parent)?;
        self.tree.remove(target)?;
        Ok(true)
    }

    /// Removes what exists under the name of a member that is not a directory.
    fn make_way(&self, m: &Member, name: &[u8]) -> Result<()> {
        match self.tree.existing(name)? {
            Existing::Nothing => Ok(()),
            Existing::Other => self.tree.remove(name),
            Existing::Directory => Err(Error::new(
                Code::ImageEntryConflict,
                format!("the archive has {} as a directory first and as something else later: make it again without one of the two", shown(&m.path)),
            )),
        }
    }

    fn directory(&mut self, m: &Member, parts: &[&[u8]]) -> Result<()> {
        if let Some((name, parent)) = parts.split_last() {
            self.tree.enter(parent)?;
            if self.tree.existing(name)? == Existing::Other {
                self.tree.remove(name)?;
            }
        }
        let fd = self.tree.enter(parts)?.try_clone_to_owned().io(|| format!("open {}", shown(&m.path)))?;
        self.set_attributes(&fd, m)?;
        self.tree.set_mtime(m.mtime);
        Ok(())
    }

    fn file<R: Read>(&mut self, m: &Member, parent: &[&[u8]], name: &[u8], members: &mut Members<R>) -> Result<()> {
        let dir = self.tree.enter(parent)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(dir, name, flags, Mode::from_raw_mode(0o600)).io(|| format!("create {}", shown(&m.path)))?;
        match &m.sparse {
            Some(s) => self.sparse(m, &fd, s, members)?,
            None => {
                self.copy(m, &fd, 0, u64::MAX, members)?;
            }
        }
        self.set_attributes(&fd, m)?;
        fs::futimens(&fd, &times(m.mtime)).io(|| format!("change the times of {}", shown(&m.path)))
    }

    fn sparse<R: Read>(&mut self, m: &Member, fd: &OwnedFd, s: &Sparse, members: &mut Members<R>) -> Result<()> {
        fs::ftruncate(fd, s.size).map_err(|e| match e {
            Errno::FBIG | Errno::INVAL => {
                Error::new(Code::ImageCorrupt, format!("{} has a size of {} bytes in the archive, more than a file can have", shown(&m.path), s.size))
            }
            e => Error::io(format!("set the size of {}", shown(&m.path)), e),
        })?;
        for (at, len) in &s.pieces {
            self.copy(m, fd, *at, *len, members)?;
        }
        Ok(())
    }

    /// Copies up to `len` bytes of the member's data to `at`.
    fn copy<R: Read>(&mut self, m: &Member, fd: &OwnedFd, mut at: u64, mut len: u64, members: &mut Members<R>) -> Result<()> {
        while len > 0 {
            let want = self.buffer.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            let got = members.read(&mut self.buffer[..want])?;
            if got == 0 {
                break;
            }
            let mut data = &self.buffer[..got];
            while !data.is_empty() {
                let n = rustix::io::pwrite(fd, data, at).io(|| format!("write {}", shown(&m.path)))?;
                if n == 0 {
                    return Err(Error::io(format!("write {}", shown(&m.path)), std::io::ErrorKind::WriteZero));
                }
                at += n as u64;
                data = &data[n..];
            }
            len -= got as u64;
            self.bytes += got as u64;
        }
        Ok(())
    }

    fn symlink(&mut self, m: &Member, parent: &[&[u8]], name: &[u8]) -> Result<()> {
        if m.link.is_empty() || m.link.contains(&0) {
            return Err(Error::new(Code::ImageLinkUnsafe, format!("the symlink {} has no target, or one with a NUL", shown(&m.path))));
        }
        let dir = self.tree.enter(parent)?;
        // The target is stored as it is, absolute or with `..`: nothing here follows it.
        fs::symlinkat(m.link.as_slice(), dir, name).map_err(|e| match e {
            Errno::NAMETOOLONG => {
                Error::new(Code::ImageLinkUnsafe, format!("the symlink {} has a target of {} bytes, too long to be kept", shown(&m.path), m.link.len()))
            }
            e => Error::io(format!("make the symlink {}", shown(&m.path)), e),
        })?;
        self.dress_by_name(m, name)
    }

    fn node(&mut self, m: &Member, parent: &[&[u8]], name: &[u8]) -> Result<()> {
        let (major, minor) = m.device;
        let in_range = |n: u64, most: u32| u32::try_from(n).ok().filter(|n| *n < most);
        // The kernel keeps 12 bits of major and 20 of minor.
        let (Some(major), Some(minor)) = (in_range(major, 1 << 12), in_range(minor, 1 << 20)) else {
            return Err(Error::new(
                Code::ImageCorrupt,
                format!("{} is the device {major}:{minor} in the archive, and such a device cannot exist", shown(&m.path)),
            ));
        };
        let kind = match m.kind {
            Type::Char => FileType::CharacterDevice,
            Type::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let dir = self.tree.enter(parent)?;
        fs::mknodat(dir, name, kind, Mode::from_raw_mode(0o600), fs::makedev(major, minor)).io(|| format!("make the node {}", shown(&m.path)))?;
        self.dress_by_name(m, name)
    }

    fn hard_link(&mut self, m: &Member, parent: &[&[u8]], name: &[u8]) -> Result<()> {
        let refuse =
            |why: &str| Error::new(Code::ImageLinkUnsafe, format!("{} is a hard link to {}, {why}; the image was refused", shown(&m.path), shown(&m.link)));
        let target = components(&m.link).map_err(|e| refuse("which is outside the image or not a path").with_source(e))?;
        let Some((target_name, target_parent)) = target.split_last() else { return Err(refuse("the root")) };
        if target_parent == parent && target_name == &name {
            return Ok(());
        }
        let from = self.tree.look_up(target_parent)?.ok_or_else(|| refuse("whose directory does not exist (yet) or is behind a symlink"))?;
        match fs::statat(&from, *target_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(s) if FileType::from_raw_mode(s.st_mode) == FileType::Directory => return Err(refuse("a directory")),
            Ok(_) => {}
            Err(Errno::NOENT) => return Err(refuse("which does not exist (yet)")),
            Err(e) => return Err(Error::io(format!("stat {}", shown(&m.link)), e)),
        }
        self.tree.enter(parent)?;
        self.make_way(m, name)?;
        let dir = self.tree.enter(parent)?;
        // Without AT_SYMLINK_FOLLOW a link to a symlink is one more name of the symlink.
        fs::linkat(&from, *target_name, dir, name, AtFlags::empty()).io(|| format!("link {} to {}", shown(&m.path), shown(&m.link)))
    }

    fn owner(&self, m: &Member) -> (Option<fs::Uid>, Option<fs::Gid>) {
        // Both were checked by `write`.
        self.tree.owner(u32::try_from(m.uid).unwrap_or(0), u32::try_from(m.gid).unwrap_or(0))
    }

    /// Owner, mode and attributes of a file or directory.
    fn set_attributes(&mut self, fd: &OwnedFd, m: &Member) -> Result<()> {
        let (uid, gid) = self.owner(m);
        fs::fchown(fd, uid, gid).io(|| format!("change the owner of {}", shown(&m.path)))?;
        if self.inherits {
            tree::disinherit(fd).io(|| format!("remove the inherited ACL of {}", shown(&m.path)))?;
        }
        fs::fchmod(fd, Mode::from_raw_mode(m.mode)).io(|| format!("change the mode of {}", shown(&m.path)))?;
        for (name, value) in &m.xattrs {
            let Some(value) = xattr::translate(&m.path, name, value, true, self.id_base)? else {
                self.skipped.add(&format!("extended attribute {}", shown(name)), &m.path);
                continue;
            };
            if xattr::is_default_acl(name) {
                if m.kind != Type::Directory {
                    continue;
                }
                self.inherits = true;
            }
            fs::fsetxattr(fd.as_fd(), name.as_slice(), &value, XattrFlags::empty()).map_err(|e| attribute(e, m, name))?;
        }
        Ok(())
    }

    /// The same for a member that cannot be opened: a symlink, a FIFO, a device.
    fn dress_by_name(&mut self, m: &Member, name: &[u8]) -> Result<()> {
        let (uid, gid) = self.owner(m);
        let what = |what: &str| format!("change the {what} of {}", shown(&m.path));
        let path = self.tree.proc_path(name);
        let dir = self.tree.current();
        fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).io(|| what("owner"))?;
        if m.kind != Type::Symlink {
            // We created the node a moment ago and it is not a symlink: nothing is followed.
            fs::chmodat(dir, name, Mode::from_raw_mode(m.mode), AtFlags::empty()).io(|| what("mode"))?;
        }
        for (key, value) in &m.xattrs {
            // Symlinks have no ACLs.
            match xattr::translate(&m.path, key, value, false, self.id_base)?.filter(|_| m.kind != Type::Symlink && !xattr::is_default_acl(key)) {
                Some(value) => fs::lsetxattr(&path, key.as_slice(), &value, XattrFlags::empty()).map_err(|e| attribute(e, m, key))?,
                None => self.skipped.add(&format!("extended attribute {}", shown(key)), &m.path),
            }
        }
        fs::utimensat(self.tree.current(), name, &times(m.mtime), AtFlags::SYMLINK_NOFOLLOW).io(|| what("times"))
    }
}

fn attribute(e: Errno, m: &Member, name: &[u8]) -> Error {
    let what = format!("set the extended attribute {} of {}", shown(name), shown(&m.path));
    match e {
        // The value does not fit into one leaf, or is not valid. A full pool is noticed by the next write as well.
        Errno::TOOBIG | Errno::RANGE | Errno::INVAL => Error::new(Code::ImageXattr, format!("{what}: {e}")).with_source(std::io::Error::from(e)),
        e => Error::io(what, e),
    }
}
