//! Deleting many volumes, and waiting until their space is free.

use super::staging::remove_empty_dir;
use super::{BtrfsStore, is_subvolume, nested};
use crate::error::{Error, IoContext, Result};
use crate::id::OperationId;
use crate::pool::layout;
use crate::snapshot::Deleted;
use crate::sys::fs::open_dir_at;
use crate::sys::tree_search::{Key, SearchFilter, tree_search};
use crate::units::VolumeId;
use btrfs_uapi::raw::{BTRFS_ROOT_ITEM_KEY, BTRFS_ROOT_TREE_OBJECTID};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often the kernel's cleaner is woken while it is waited for: it stops when it finds no more work, and a commit wakes it.
const WAKE: Duration = Duration::from_millis(500);

/// Deletes all homes in the trash of `op`.
pub(super) fn empty_trash(store: &BtrfsStore, op: &OperationId, progress: &mut dyn FnMut(u64, u64)) -> Result<Deleted> {
    let path = Path::new(layout::TRASH).join(op.as_str());
    let dir = match open_dir_at(&store.root, &path) {
        Ok(dir) => dir,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Deleted::default()),
        Err(e) => return Err(Error::io(format!("open {}", store.path.join(&path).display()), e)),
    };
    let mut work = Work { mount: store.mount(), done: 0, total: 0, deleted: Deleted::default(), progress };
    work.total = work.count(&dir)?;
    work.clear(&dir)?;
    let deleted = work.deleted;
    remove_empty_dir(store, &path)?;
    Ok(deleted)
}

struct Work<'a> {
    mount: BorrowedFd<'a>,
    done: u64,
    total: u64,
    deleted: Deleted,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Work<'_> {
    /// The number of volumes below a directory of the pool, not counting nested ones.
    fn count(&self, dir: &OwnedFd) -> Result<u64> {
        let mut n = 0;
        for name in entries(dir)? {
            if let Some(fd) = directory(dir, &name)? {
                n += if is_subvolume(fd.as_fd()).io(|| "stat the trash")? { 1 } else { self.count(&fd)? };
            }
        }
        Ok(n)
    }

    fn clear(&mut self, dir: &OwnedFd) -> Result<()> {
        for name in entries(dir)? {
            let Some(fd) = directory(dir, &name)? else {
                unlinkat(dir, name.as_c_str(), UnlinkatFlags::NoRemoveDir).io(|| "remove a file from the trash")?;
                continue;
            };
            if is_subvolume(fd.as_fd()).io(|| "stat the trash")? {
                self.deleted.volumes.extend(nested::delete_tree(self.mount, fd, dir, &name)?);
                self.done += 1;
                (self.progress)(self.done, self.total);
            } else {
                self.clear(&fd)?;
                unlinkat(dir, name.as_c_str(), UnlinkatFlags::RemoveDir).io(|| "remove a directory from the trash")?;
            }
        }
        Ok(())
    }
}

fn directory(dir: &OwnedFd, name: &CStr) -> Result<Option<OwnedFd>> {
    match open_dir_at(dir, name) {
        Ok(fd) => Ok(Some(fd)),
        Err(e) if matches!(e.raw_os_error(), Some(nix::libc::ENOTDIR | nix::libc::ELOOP)) => Ok(None),
        Err(e) => Err(Error::io("open a directory of the trash", e)),
    }
}

fn entries(dir: &OwnedFd) -> Result<Vec<CString>> {
    let again = open_dir_at(dir, c".").io(|| "open a directory of the trash")?;
    let mut names = Vec::new();
    for entry in nix::dir::Dir::from_fd(again).io(|| "read a directory of the trash")?.iter() {
        let name = entry.io(|| "read a directory of the trash")?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether the root tree still has the subvolume, in use or waiting for the cleaner.
fn is_stored(mount: BorrowedFd<'_>, id: u64) -> Result<bool> {
    let key = |offset| Key { objectid: id, item_type: BTRFS_ROOT_ITEM_KEY, offset };
    let filter = SearchFilter { tree_id: u64::from(BTRFS_ROOT_TREE_OBJECTID), start: key(0), end: key(u64::MAX), min_transid: 0, max_transid: u64::MAX };
    let mut found = false;
    tree_search(mount, &filter, None, |item, _| {
        found |= item.item_type == BTRFS_ROOT_ITEM_KEY && item.objectid == id;
        Ok(())
    })
    .io(|| format!("look for subvolume {id}"))?;
    Ok(found)
}

/// Waits for the cleaner, at most `timeout`. The kernel's own wait (`SUBVOL_SYNC_WAIT`, Linux 6.13) can only be ended by a signal, so the root
/// tree is asked instead, which also works on older kernels. For a volume that was not deleted it returns `false` at once.
pub(super) fn reclaimed(mount: BorrowedFd<'_>, volume: VolumeId, timeout: Duration) -> Result<bool> {
    let end = Instant::now().checked_add(timeout);
    let commit = || btrfs_uapi::filesystem::sync(mount).io(|| "commit the pool");
    // A deleted subvolume can no longer be opened, although it is still stored.
    if nested::open_root(mount, volume.0)?.is_some() {
        return Ok(false);
    }
    if !is_stored(mount, volume.0)? {
        return Ok(true);
    }
    let mut pause = Duration::from_millis(1);
    let mut woken: Option<Instant> = None;
    loop {
        let left = end.map_or(Duration::MAX, |e| e.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Ok(false);
        }
        if woken.is_none_or(|w| w.elapsed() >= WAKE) {
            commit()?;
            woken = Some(Instant::now());
        }
        if !is_stored(mount, volume.0)? {
            // Its blocks stay pinned until the transaction that freed them is committed.
            commit()?;
            return Ok(true);
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
