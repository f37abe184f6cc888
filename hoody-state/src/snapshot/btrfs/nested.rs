//! Nested volumes: subvolumes inside a volume, at any depth and under any name. They are found, copied, sealed and deleted with it.
//!
//! The container's root creates them, perhaps at this very moment. So names are bytes, every directory is opened by number, and what vanishes between two
//! steps is treated as if it had never existed.

use super::identity::{disown, has_foreign_identity};
use super::keep_times::remove_stub;
use super::{BtrfsStore, has_nested};
use crate::error::{Code, Error, IoContext, Result};
use crate::id::OperationId;
use crate::pool::layout;
use crate::snapshot::Volume;
use crate::sys::fs::{SUBVOLUME_ROOT_INO, has_mark, open_dir_at, open_dir_by_id, set_mark};
use crate::sys::tree_search::{Key, SearchFilter, tree_search};
use crate::units::VolumeId;
use btrfs_uapi::raw::{BTRFS_ROOT_REF_KEY, BTRFS_ROOT_TREE_OBJECTID};
use btrfs_uapi::subvolume::{self, SubvolumeFlags};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;
use std::collections::{HashSet, VecDeque};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The inode number of the empty directory that stands in a snapshot where the source has a nested subvolume.
const STUB_INO: u64 = 2;

/// How often a seal is tried while a program keeps writing identities into the volume.
const SEAL_ROUNDS: u32 = 64;

/// How often a delete is repeated while a program keeps creating subvolumes inside.
const DELETE_ROUNDS: u32 = 16;

/// Marks a nested volume in a snapshot that was read-only in the source too, not only because the snapshot is. `trusted` attributes can
/// be neither read nor set from a user namespace.
const WAS_READ_ONLY: &CStr = c"trusted.hoody.read_only";

/// A nested subvolume: `name` in the directory `dir` of subvolume `parent`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Nested {
    pub(super) id: u64,
    pub(super) parent: u64,
    pub(super) dir: u64,
    pub(super) name: CString,
}

/// The subvolumes directly in `parent`, from one search of the root tree.
fn children(mount: BorrowedFd<'_>, parent: u64) -> Result<Vec<Nested>> {
    let key = |offset| Key { objectid: parent, item_type: BTRFS_ROOT_REF_KEY, offset };
    let filter = SearchFilter { tree_id: u64::from(BTRFS_ROOT_TREE_OBJECTID), start: key(0), end: key(u64::MAX), min_transid: 0, max_transid: u64::MAX };
    let mut found = Vec::new();
    tree_search(mount, &filter, None, |item, data| {
        if item.item_type == BTRFS_ROOT_REF_KEY && item.objectid == parent {
            found.extend(parse_root_ref(data).map(|(dir, name)| Nested { id: item.offset, parent, dir, name }));
        }
        Ok(())
    })
    .io(|| format!("look for subvolumes in subvolume {parent}"))?;
    Ok(found)
}

/// `struct btrfs_root_ref`: directory (8 bytes), sequence (8), length of the name (2), name; little-endian.
fn parse_root_ref(data: &[u8]) -> Option<(u64, CString)> {
    let dir = u64::from_le_bytes(data.get(..8)?.try_into().ok()?);
    let len = u16::from_le_bytes(data.get(16..18)?.try_into().ok()?);
    Some((dir, CString::new(data.get(18..18 + usize::from(len))?).ok()?))
}

/// All subvolumes below `top`, a parent always before its children.
pub(super) fn tree(mount: BorrowedFd<'_>, top: u64) -> Result<Vec<Nested>> {
    let mut seen = HashSet::from([top]);
    let mut found: Vec<Nested> = Vec::new();
    let mut next = Some(top);
    let mut looked = 0;
    while let Some(parent) = next {
        found.extend(children(mount, parent)?.into_iter().filter(|c| seen.insert(c.id)));
        next = found.get(looked).map(|n| n.id);
        looked += 1;
    }
    Ok(found)
}

pub(super) fn id_of(volume: BorrowedFd<'_>) -> Result<u64> {
    btrfs_uapi::inode::lookup_path_rootid(volume).io(|| "ask for a subvolume's id")
}

pub(super) fn open_root(mount: BorrowedFd<'_>, id: u64) -> Result<Option<OwnedFd>> {
    open_dir(mount, id, SUBVOLUME_ROOT_INO)
}

/// A directory of a subvolume; `None` if it no longer exists.
fn open_dir(mount: BorrowedFd<'_>, id: u64, ino: u64) -> Result<Option<OwnedFd>> {
    match open_dir_by_id(mount, id, ino) {
        Ok(fd) => Ok(Some(fd)),
        Err(e) if matches!(e.raw_os_error(), Some(nix::libc::ESTALE | nix::libc::ENOENT | nix::libc::ENOTDIR)) => Ok(None),
        Err(e) => Err(Error::io(format!("open directory {ino} of subvolume {id}"), e)),
    }
}

pub(super) fn is_read_only(volume: BorrowedFd<'_>) -> Result<bool> {
    Ok(subvolume::subvolume_flags_get(volume).io(|| "ask for a subvolume's flags")?.contains(SubvolumeFlags::RDONLY))
}

pub(super) fn set_read_only(volume: BorrowedFd<'_>, on: bool) -> Result<()> {
    let flags = if on { SubvolumeFlags::RDONLY } else { SubvolumeFlags::empty() };
    subvolume::subvolume_flags_set(volume, flags).io(|| "set a subvolume's flags")
}

/// The directory in the subvolume `copy` that holds the stub of `n`, if there is one.
fn stub(mount: BorrowedFd<'_>, copy: u64, n: &Nested) -> Result<Option<OwnedFd>> {
    let Some(dir) = open_dir(mount, copy, n.dir)? else { return Ok(None) };
    let is_stub = fstatat(&dir, n.name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(|s| s.st_ino == STUB_INO);
    Ok(is_stub.then_some(dir))
}

/// Removes the stubs in `copy` that replace what is nested in `source`.
pub(super) fn remove_stubs(mount: BorrowedFd<'_>, source: BorrowedFd<'_>, copy: BorrowedFd<'_>) -> Result<()> {
    if !has_nested(source)? {
        return Ok(());
    }
    let copy = id_of(copy)?;
    for n in children(mount, id_of(source)?)? {
        if let Some(dir) = stub(mount, copy, &n)? {
            remove_stub(dir.as_fd(), &n.name)?;
        }
    }
    Ok(())
}

/// The path of a directory in its subvolume, with a `/` at its end; empty for the root.
pub(super) fn dir_path(mount: BorrowedFd<'_>, volume: u64, ino: u64) -> Result<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    if ino == SUBVOLUME_ROOT_INO {
        return Ok(Vec::new());
    }
    let what = || format!("ask for the path of directory {ino} in subvolume {volume}");
    let dir = open_dir(mount, volume, ino)?.ok_or_else(|| Error::new(Code::VolumeNotFound, "a directory was removed while its volume was read"))?;
    let root = open_root(mount, volume)?.ok_or_else(|| Error::new(Code::VolumeNotFound, "a volume was removed while it was read"))?;
    // Both are spelled by the kernel. A volume that is sent is read-only, so neither path changes.
    let path = |fd: BorrowedFd<'_>| nix::fcntl::readlink(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)).as_str()).io(what);
    let (dir, root) = (path(dir.as_fd())?, path(root.as_fd())?);
    let (dir, root) = (dir.as_bytes(), root.as_bytes());
    let below = dir.strip_prefix(root).and_then(|p| p.strip_prefix(b"/")).ok_or_else(|| Error::internal(what()))?;
    Ok([below, b"/"].concat())
}

/// Whether `copy` has an empty stub where `source` now has a nested subvolume.
pub(super) fn has_stub(mount: BorrowedFd<'_>, source: BorrowedFd<'_>, copy: BorrowedFd<'_>) -> Result<bool> {
    let copy = id_of(copy)?;
    for n in children(mount, id_of(source)?)? {
        if stub(mount, copy, &n)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A subvolume to copy: `source` to `name` in directory `dir`.
struct Job {
    source: OwnedFd,
    dir: OwnedFd,
    name: CString,
    top: bool,
}

/// How to copy a tree.
#[derive(Clone, Copy)]
pub(super) struct Copy {
    pub(super) read_only: bool,
    /// Whether the source is sealed. Everything in a sealed source is read-only, so the mark tells what was read-only before. The flag of the source itself does
    /// not tell this, because a container can set it.
    pub(super) from_sealed: bool,
}

/// Copies `source` and everything nested in it to `name` in `dir`, and seals what must be read-only, children first. A copy has the same inode numbers, so the
/// directory of a nested volume has the same number there. Each copy is created writable, which gives it an identity of its own.
pub(super) fn copy_tree(mount: BorrowedFd<'_>, source: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr, how: Copy) -> Result<()> {
    let Copy { read_only, from_sealed } = how;
    let duplicate = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().io(|| "duplicate a descriptor");
    let mut jobs = VecDeque::from([Job { source: duplicate(source)?, dir: duplicate(dir)?, name: name.to_owned(), top: true }]);
    let mut waiting: VecDeque<(Nested, u64)> = VecDeque::new();
    let mut to_seal: Vec<u64> = Vec::new();
    loop {
        let job = match jobs.pop_front() {
            Some(job) => job,
            None => match waiting.pop_front() {
                Some((n, parent_copy)) => match (open_root(mount, n.id)?, open_dir(mount, parent_copy, n.dir)?) {
                    (Some(source), Some(dir)) => Job { source, dir, name: n.name, top: false },
                    _ => continue,
                },
                None => break,
            },
        };
        let source_id = id_of(job.source.as_fd())?;
        let before = children(mount, source_id)?;
        let made = || subvolume::snapshot_create(job.dir.as_fd(), job.source.as_fd(), &job.name, false, &[]);
        // A directory in a volume has the times it had in the source.
        match if job.top { made() } else { super::keep_times::keeping_times(job.dir.as_fd(), || Ok(made()))? } {
            Ok(()) => {}
            Err(Errno::ENOENT | Errno::ESTALE) if !job.top => continue,
            Err(Errno::ETXTBSY) => {
                return Err(Error::new(
                    Code::ActiveSwapFile,
                    "a nested volume has an active swap file, so no copy can be made of it: switch it off (swapoff) first",
                ));
            }
            Err(e) => return Err(Error::io(format!("copy subvolume {source_id}"), e)),
        }
        let copy = open_dir_at(&job.dir, job.name.as_c_str()).io(|| "open a copy just made")?;
        let copy_id = id_of(copy.as_fd())?;
        for n in before.into_iter().chain(children(mount, source_id)?) {
            if let Some(dir) = stub(mount, copy_id, &n)? {
                remove_stub(dir.as_fd(), &n.name)?;
                waiting.push_back((n, copy_id));
            }
        }
        let mut seal = read_only;
        if !job.top {
            let was = if from_sealed { has_mark(job.source.as_fd(), WAS_READ_ONLY) } else { Ok(is_read_only(job.source.as_fd())?) };
            let was = was.io(|| format!("read the mark of subvolume {source_id}"))?;
            set_mark(copy.as_fd(), WAS_READ_ONLY, was).io(|| format!("mark subvolume {copy_id}"))?;
            seal |= was;
        }
        if seal {
            to_seal.push(copy_id);
        }
    }
    for id in to_seal.into_iter().rev() {
        if let Some(fd) = open_root(mount, id)? {
            set_read_only(fd.as_fd(), true)?;
        }
    }
    Ok(())
}

/// Makes a volume and everything nested in it read-only, children first, each with an identity of its own. May be repeated.
pub(super) fn seal_tree(mount: BorrowedFd<'_>, volume: BorrowedFd<'_>) -> Result<()> {
    if is_read_only(volume)? && !has_foreign_identity(volume)? {
        return Ok(());
    }
    if has_nested(volume)? {
        for n in tree(mount, id_of(volume)?)?.iter().rev() {
            let Some(fd) = open_root(mount, n.id)? else { continue };
            if is_read_only(fd.as_fd())? && !has_mark(fd.as_fd(), WAS_READ_ONLY).unwrap_or(false) {
                // It was read-only before. (Or a first attempt was interrupted; then this errs on the side of caution.)
                set_read_only(fd.as_fd(), false)?;
                set_mark(fd.as_fd(), WAS_READ_ONLY, true).io(|| format!("mark subvolume {}", n.id))?;
            }
            seal(fd.as_fd())?;
        }
    }
    seal(volume)
}

/// Makes one volume read-only, without an identity that a program may have written into it, perhaps at this very moment.
fn seal(volume: BorrowedFd<'_>) -> Result<()> {
    for _ in 0..SEAL_ROUNDS {
        if has_foreign_identity(volume)? {
            set_read_only(volume, false)?;
            disown(volume)?;
        }
        set_read_only(volume, true)?;
        if !has_foreign_identity(volume)? {
            return Ok(());
        }
    }
    Err(Error::new(Code::VolumeInUse, "a foreign identity is being written into a volume while it is made read-only: stop the container and try again"))
}

/// Deletes the subvolume `name` in `dir` and everything nested in it; returns the ids.
pub(super) fn delete_tree(mount: BorrowedFd<'_>, volume: OwnedFd, dir: &OwnedFd, name: &CStr) -> Result<Vec<VolumeId>> {
    let top = id_of(volume.as_fd())?;
    let mut deleted = Vec::new();
    for _ in 0..DELETE_ROUNDS {
        if has_nested(volume.as_fd())? {
            for n in tree(mount, top)?.iter().rev() {
                if delete_nested(mount, n)? {
                    deleted.push(VolumeId(n.id));
                }
            }
        }
        match subvolume::subvolume_delete(dir.as_fd(), name) {
            Ok(()) | Err(Errno::ENOENT) => {
                deleted.push(VolumeId(top));
                return Ok(deleted);
            }
            Err(Errno::ENOTEMPTY) => {}
            Err(e) => return Err(delete_error(top, e)),
        }
    }
    Err(Error::new(Code::VolumeInUse, "subvolumes are being made inside the volume while it is deleted: stop the container and try again"))
}

/// Deletes one nested subvolume that contains no others; `false` if it no longer exists, or contains new ones.
fn delete_nested(mount: BorrowedFd<'_>, n: &Nested) -> Result<bool> {
    let Some(dir) = open_dir(mount, n.parent, n.dir)? else { return Ok(false) };
    let mut outcome = subvolume::subvolume_delete(dir.as_fd(), &n.name);
    if outcome == Err(Errno::EROFS) {
        let Some(parent) = open_root(mount, n.parent)? else { return Ok(false) };
        set_read_only(parent.as_fd(), false)?;
        outcome = subvolume::subvolume_delete(dir.as_fd(), &n.name);
    }
    match outcome {
        Ok(()) => Ok(true),
        // Removed, replaced by something that is not a subvolume, or with new subvolumes in it: left to the next round.
        Err(Errno::ENOENT | Errno::ENOTEMPTY | Errno::ENOTDIR | Errno::EINVAL) => Ok(false),
        Err(e) => Err(delete_error(n.id, e)),
    }
}

fn delete_error(id: u64, e: Errno) -> Error {
    match e {
        Errno::EPERM | Errno::EBUSY => Error::new(
            Code::VolumeInUse,
            format!("subvolume {id} is in use: it is being sent to another host, or has an active swap file; try again when that has ended"),
        )
        .with_source(e),
        e => Error::io(format!("delete subvolume {id}"), e),
    }
}

/// The name `~<op>` beside a volume's place under which a copy is made, and the link to it in the operation's staging directory. No volume's
/// name contains `~`.
pub(super) struct Hidden {
    name: CString,
    op: OperationId,
}

fn pending(op: &OperationId) -> PathBuf {
    Path::new(layout::STAGING).join(op.as_str()).join("pending")
}

impl Hidden {
    /// Chooses the name and writes the link. The link becomes durable with the copy or before it.
    pub(super) fn announce(store: &BtrfsStore, to: &Volume, op: &OperationId) -> Result<Self> {
        let name = format!("~{op}");
        let target = layout::path(to).with_file_name(&name);
        store.make_dir(&Path::new(layout::STAGING).join(op.as_str()))?;
        nix::unistd::symlinkat(&target, &store.root, &pending(op)).io(|| format!("note the copy of operation {op}"))?;
        Ok(Hidden { name: CString::new(name).map_err(|_| Error::internal("an id contains a NUL"))?, op: op.clone() })
    }

    pub(super) fn name(&self) -> &CStr {
        &self.name
    }

    /// Removes the link once the copy is in its place.
    pub(super) fn withdraw(self, store: &BtrfsStore) -> Result<()> {
        super::staging::drop_staging_dir(store, &self.op)
    }
}

/// Deletes the unfinished copy that an operation left, if any.
pub(super) fn delete_pending(store: &BtrfsStore, op: &OperationId) -> Result<Vec<VolumeId>> {
    let target = match nix::fcntl::readlinkat(&store.root, &pending(op)) {
        Ok(t) => PathBuf::from(t),
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(format!("read the note of operation {op}"), e)),
    };
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else { return Ok(Vec::new()) };
    let expected = format!("~{op}");
    let Ok(dir) = open_dir_at(&store.root, parent) else { return Ok(Vec::new()) };
    if name != expected.as_str() {
        return Err(Error::new(Code::StagingForeign, format!("staging/{op}/pending points to {}, which is not ours: remove it", target.display())));
    }
    let name = CString::new(expected).map_err(|_| Error::internal("an id contains a NUL"))?;
    match open_dir_at(&dir, name.as_c_str()) {
        Ok(fd) => delete_tree(store.mount(), fd, &dir, &name),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::io(format!("open the copy of operation {op}"), e)),
    }
}
