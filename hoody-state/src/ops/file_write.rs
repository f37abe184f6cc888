//! Writes one file of a live volume: what was there before is replaced in one step, by something complete and on the disk.
//!
//! The content is received into a file without a name, and no lock is held meanwhile. Then the container's lock is taken, so that its volume is not exchanged,
//! and everything is looked up again: the content lands where the path leads at that moment, if need be as a copy by reflink in another volume. A new file gets
//! its name at once. One that replaces another has a second name for the instant before: recovery removes it.

use super::file_change::{Target, changeable_container, check_condition, encoded_parts, files, temporary};
use super::{Begun, Claim, Op, Operation, Recovery, Want};
use crate::catalog::Durability;
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::{FileWritten, WriteOptions};
use crate::op::Caller;
use crate::tree::{Kind, Last, Node, Ownership, Staged, TreePath, sync_directory};
use crate::units::Bytes;
use crate::world::World;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::AsFd;

/// The permissions of a new file.
const NEW_MODE: u32 = 0o644;
/// After how many bytes the pool's free space is looked at again.
const LOOK_BYTES: u64 = 32 << 20;
/// How much is read at once.
const PIECE: usize = 128 << 10;
/// How often it is tried to replace what appears and disappears under the name.
const TRIES: u32 = 16;

/// The intent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WriteFile {
    pub container: ContainerId,
    /// The path of the directory, percent-encoded.
    pub dir: String,
    /// The name in it, percent-encoded.
    pub name: String,
    /// The inode of the new file: whatever has the name and this inode is the new one.
    pub inode: u64,
}

impl Operation for WriteFile {
    type World = World;
    type Answer = FileWritten;
    const TAG: &'static str = "write_file";

    fn kind(&self) -> &'static str {
        "file.write"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    fn claim(&self) -> Claim {
        claim(&self.container)
    }

    /// All that is left to do is to remove a name that no other operation has.
    fn keeps_locks(&self) -> bool {
        false
    }

    fn run(self, _: &mut Op) -> Result<FileWritten> {
        Err(Error::internal("a file is written with its content"))
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        let Some(target) = Target::again(r.world, &self.container, &self.dir, &self.name)? else { return r.undone(|_| Ok(())) };
        let temporary = temporary(r.id)?;
        crate::tree::remove(target.root.as_fd(), target.beside(&temporary))?;
        let done = target.node()?.is_some_and(|n| n.meta.inode == self.inode);
        sync_directory(target.dir())?;
        if done { r.finished(|_| Ok(())) } else { r.undone(|_| Ok(())) }
    }
}

pub(super) fn claim(container: &ContainerId) -> Claim {
    Claim::short("file.write", vec![Want::container(container)])
}

/// See [`crate::Host::write_file`].
pub(crate) fn write(world: &World, caller: &Caller, id: &ContainerId, path: &TreePath, options: &WriteOptions, body: &mut dyn Read) -> Result<FileWritten> {
    if options.mode.is_some_and(|m| m > 0o7777) {
        return Err(Error::new(Code::ValidationError, "mode: it must be twelve bits, 0 to 7777 in octal"));
    }
    for (field, given) in [("uid", options.uid), ("gid", options.gid)] {
        given.map_or(Ok(0), |n| files(world).on_host(field, n))?;
    }
    // What can be refused is refused before the content has come.
    let row = changeable_container(world, id)?;
    drop(world.engine.lock(caller, claim(id))?);
    let root = files(world).writable(&row, path)?;
    let beside = nearest(&root, path, options.parents)?;
    match Target::find(world, &row, path) {
        Ok(target) => {
            let now = target.node()?;
            replaceable(path, now.as_ref())?;
            check_condition(&options.condition, path, now.as_ref())?;
        }
        Err(e) if e.code() == Code::FileNotFound && options.parents => check_condition(&options.condition, path, None)?,
        Err(e) => return Err(e),
    }
    super::room::check_in(world, caller, &row.project)?;
    let mut staged = Staged::beside(beside.as_fd())?;
    receive(world, &mut staged, options.length, body)?;
    staged.sync()?;
    commit(world, caller, id, path, options, staged)
}

/// The directory of `path`, or the nearest one above it that exists, if those that are missing may be made.
fn nearest(root: &crate::tree::Root, path: &TreePath, parents: bool) -> Result<Node> {
    let mut at = path.clone();
    while let Some((above, _)) = at.split() {
        match root.find(&above, Last::Follow) {
            Ok(node) if node.meta.kind == Kind::Directory => return Ok(node),
            Ok(_) => return Err(Error::new(Code::NotADirectory, format!("{} is not a directory", above.shown()))),
            Err(e) if e.code() == Code::FileNotFound && parents => at = above,
            Err(e) if e.code() == Code::FileNotFound => {
                return Err(e.context(format!("{} cannot be written (with `parents` its directory is made)", path.shown())));
            }
            Err(e) => return Err(e),
        }
    }
    root.find(&TreePath::root(), Last::Follow)
}

/// Refuses to replace what is no plain file.
fn replaceable(path: &TreePath, now: Option<&Node>) -> Result<()> {
    let message = |what: &str| format!("{} is a {what}: only a regular file is replaced by a file", path.shown());
    match now.map(|n| n.meta.kind) {
        None | Some(Kind::File) => Ok(()),
        Some(Kind::Directory) => Err(Error::new(Code::IsADirectory, message("directory"))),
        Some(other) => Err(Error::new(Code::NotARegularFile, message(other.as_str()))),
    }
}

/// What the pool has above its reserve.
fn room(world: &World) -> Result<Bytes> {
    world.limits.check_space()?;
    let space = world.store.space()?;
    Ok(space.free - crate::model::space::reserve(space.total))
}

fn receive(world: &World, staged: &mut Staged, length: Option<u64>, body: &mut dyn Read) -> Result<()> {
    let full = |room: Bytes| {
        Error::new(Code::PoolFull, format!("the file needs more than the {room} that the pool has left above its reserve; nothing is kept of it"))
    };
    let mut left = room(world)?;
    if length.is_some_and(|n| n > left.0) {
        return Err(full(left));
    }
    let (mut piece, mut since) = (vec![0; PIECE], 0);
    loop {
        let n = match body.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::new(Code::ValidationError, format!("body: {e}; nothing is kept of the file")).with_source(e)),
        };
        since += n as u64;
        if since >= LOOK_BYTES {
            (left, since) = (room(world)?, 0);
        }
        if n as u64 > left.0 {
            return Err(full(left));
        }
        left = Bytes(left.0 - n as u64);
        staged.write_all(&piece[..n]).map_err(|e| Error::io("write a file of a container", e))?;
    }
}

/// Gives the content its name, under the container's lock.
fn commit(world: &World, caller: &Caller, id: &ContainerId, path: &TreePath, options: &WriteOptions, staged: Staged) -> Result<FileWritten> {
    let held = world.engine.lock(caller, claim(id))?;
    let row = changeable_container(world, id)?;
    if options.parents {
        make_parents(world, &files(world).writable(&row, path)?, path)?;
    }
    let target = Target::find(world, &row, path)?;
    let staged = staged.moved_beside(target.dir())?;
    let (dir, name) = encoded_parts(path)?;
    let intent = WriteFile { container: id.clone(), dir, name, inode: staged.meta()?.inode };
    let begun = Begun::journal(world, caller, held, Durability::Process, intent, Some(&row.project), |_| Ok(()))?;
    begun.run_with(|_, op| put(op, &target, path, options, staged))
}

fn put(op: &mut Op, target: &Target, path: &TreePath, options: &WriteOptions, staged: Staged) -> Result<FileWritten> {
    let temporary = temporary(&op.id)?;
    for _ in 0..TRIES {
        let now = target.node()?;
        replaceable(path, now.as_ref())?;
        check_condition(&options.condition, path, now.as_ref())?;
        set_attributes(&op.world, &staged, options, now.as_ref())?;
        if !name_it(op, target, &staged, now.is_some(), &temporary)? {
            continue;
        }
        op.step("sync")?;
        sync_directory(target.dir())?;
        let files = files(&op.world);
        let entry = files.entry(path, &staged.into_node()?)?;
        let written = FileWritten { path: path.shown(), path_encoded: path.encoded(), created: now.is_none(), entry };
        return op.finish(Durability::Process, |_| Ok(written));
    }
    Err(Error::new(Code::VolumeInUse, format!("{} keeps appearing and disappearing while it is written: try again", path.shown())))
}

/// Owner, mode and attributes; durable.
fn set_attributes(world: &World, staged: &Staged, options: &WriteOptions, now: Option<&Node>) -> Result<()> {
    let owner = |field, given: Option<u32>, before: Option<u32>| match (given, before) {
        (Some(id), _) => files(world).on_host(field, id),
        (None, Some(before)) => Ok(before),
        (None, None) => Ok(world.id_base),
    };
    if let Some(before) = now {
        staged.take_attributes_of(before)?;
    }
    let before = now.map(|n| n.meta);
    staged.own(Ownership {
        uid: owner("uid", options.uid, before.map(|m| m.uid))?,
        gid: owner("gid", options.gid, before.map(|m| m.gid))?,
        mode: options.mode.or(before.map(|m| m.mode)).unwrap_or(NEW_MODE),
    })?;
    staged.sync()
}

/// False if another one had the name, or none had it, by then.
fn name_it(op: &mut Op, target: &Target, staged: &Staged, replaces: bool, temporary: &CString) -> Result<bool> {
    op.step("link")?;
    if !replaces {
        return staged.link(target.place());
    }
    staged.link(target.beside(temporary))?;
    op.step("rename")?;
    match rustix::fs::renameat(target.dir(), temporary, target.dir(), target.place().name) {
        Ok(()) => Ok(true),
        Err(Errno::ISDIR) => Err(Error::new(Code::IsADirectory, "a directory was made at this path meanwhile; nothing was changed")),
        Err(e) => Err(Error::io("replace a file of a container", e)),
    }
}

/// Makes the directories that are missing above `path`. They belong to the container's root.
pub(super) fn make_parents(world: &World, root: &crate::tree::Root, path: &TreePath) -> Result<()> {
    let mut missing = Vec::new();
    let mut at = path.clone();
    while let Some((above, _)) = at.split() {
        match root.find(&above, Last::Follow) {
            Ok(_) => break,
            Err(e) if e.code() == Code::FileNotFound => missing.push(above.clone()),
            Err(e) => return Err(e),
        }
        at = above;
    }
    for dir in missing.iter().rev() {
        let target = {
            let (parent, name) = root.parent(dir)?;
            crate::services::files::check_reached(root, parent.as_fd(), name)?;
            (parent, name.to_vec())
        };
        make_directory(world, target.0.as_fd(), &target.1)?;
    }
    Ok(())
}

pub(super) fn make_directory(world: &World, parent: std::os::fd::BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let what = || format!("make the directory {}", crate::tree::shown(name));
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(e) => return Err(Error::io(what(), e)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(|e| Error::io(what(), e))?;
    // What a process of the container has put there meanwhile does not belong to the host's root.
    if rustix::fs::fstat(&made).is_ok_and(|s| s.st_uid == 0) {
        let (uid, gid) = (Uid::from_raw(world.id_base), Gid::from_raw(world.id_base));
        rustix::fs::chownat(&made, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH).map_err(|e| Error::io(what(), e))?;
    }
    rustix::fs::fsync(&made).map_err(|e| Error::io(what(), e))?;
    sync_directory(parent)
}
