//! The volumes of a mount: adding, removing and exchanging them.

use super::{Mount, MountError};
use crate::claim::{self, Claim, Refused, Server};
use crate::volume::{Backing, Unusable, Volume};
use fuser::INodeNo;
use rustix::fs::{OFlags, RawDir};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};

impl Mount {
    /// The volumes: name (empty for a single directory), number, and a path of the backing. A backing that the mount covers is named by a descriptor of this process.
    #[must_use]
    pub fn list_volumes(&self) -> Vec<(OsString, u64, PathBuf)> {
        let volumes = self.core.volumes.read().unwrap_or_else(PoisonError::into_inner);
        let path_of = |b: &Backing| {
            let covered = b.path == self.mountpoint;
            if covered { PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), b.root.as_raw_fd())) } else { b.path.clone() }
        };
        volumes.values().map(|v| (v.name.clone(), v.id, path_of(&v.backing()))).collect()
    }

    fn volume(&self, name: &OsStr) -> Result<Arc<Volume>, MountError> {
        let volumes = self.core.volumes.read().unwrap_or_else(PoisonError::into_inner);
        volumes.get(name).cloned().ok_or_else(|| MountError::NoVolume(name.to_owned()))
    }

    /// The number of a volume, for `LockService::quiesce`.
    ///
    /// # Errors
    /// No such volume.
    pub fn volume_id(&self, name: &OsStr) -> Result<u64, MountError> {
        self.volume(name).map(|v| v.id)
    }

    /// Opens a directory to serve as the volume `name`, and claims it unless this mount has claimed it already.
    fn backing(&self, name: &OsStr, path: &Path) -> Result<Arc<Backing>, MountError> {
        let unusable = |source: std::io::Error| MountError::Backing { path: path.to_owned(), source };
        refuse_nested(path, &self.mountpoint)?;
        let root = claim::open(path).map_err(|e| unusable(e.into()))?;
        let inode = claim::inode(&root).map_err(|e| unusable(e.into()))?;
        let volumes = self.core.volumes.read().unwrap_or_else(PoisonError::into_inner);
        let served: Vec<(PathBuf, Arc<Claim>)> = volumes
            .values()
            // A volume can be rebound to its own directory, or to one inside or around it.
            .filter(|v| v.name != name)
            .filter_map(|v| Some((v.backing().path.clone(), v.backing().claim.clone()?)))
            .collect();
        drop(volumes);
        // One claim at a time: two claims of the same directory would conflict.
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        // BTRFS gives the number of a deleted subvolume to the next one at once, while the deleted one is still open here.
        let own = claims.get(&inode).and_then(Weak::upgrade).filter(|c| claim::inode(&c.root).is_ok_and(|now| now == inode));
        let claim = match own {
            Some(own) => {
                claim::refuse_served(path, &own, &self.server, &served).map_err(|e| refused(path, e))?;
                own
            }
            None => claimed(path, root, &self.server, &served)?,
        };
        claims.retain(|_, c| c.strong_count() > 0);
        claims.insert(inode, Arc::downgrade(&claim));
        drop(claims);
        Backing::claimed(path, claim).map_err(|e| unusable_backing(path, e))
    }

    /// Gives up the directories so that a successor can serve them. The mount is unmounted, and writes through open files are held.
    pub(crate) fn give_up_claims(&self) {
        let claims: Vec<Arc<Claim>> = self.claims.lock().unwrap_or_else(PoisonError::into_inner).values().filter_map(Weak::upgrade).collect();
        claims.iter().for_each(|c| c.give_up());
    }

    /// Adds a volume. It appears under its name at once.
    ///
    /// # Errors
    /// The name is taken or not a file name; the backing is not a directory.
    pub fn add_volume(&self, name: &OsStr, backing: &Path) -> Result<(), MountError> {
        let plain = !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && !name.as_bytes().contains(&b'/');
        if self.core.single {
            return Err(MountError::SingleDirectory);
        }
        if !plain {
            return Err(MountError::VolumeName(name.to_owned()));
        }
        let taken = || MountError::VolumeExists(name.to_owned());
        if self.volume(name).is_ok() {
            return Err(taken());
        }
        let backing = match self.backing(name, backing) {
            // Another request has added it meanwhile, and its claim is what was met.
            Err(_) if self.volume(name).is_ok() => return Err(taken()),
            other => other?,
        };
        let id = self.next_volume.fetch_add(1, Ordering::Relaxed);
        // The number of the root's node differs from all inode numbers.
        let volume = Volume::new(name.to_owned(), id, 1 << 61 | id << 1 | 1, backing);
        let mut volumes = self.core.volumes.write().unwrap_or_else(PoisonError::into_inner);
        if volumes.contains_key(name) {
            return Err(taken());
        }
        self.core.table.add_root(&volume);
        volumes.insert(name.to_owned(), volume);
        drop(volumes);
        self.forget_name(INodeNo(1), name);
        Ok(())
    }

    /// Removes a volume. Open files can still be read, written and locked through their descriptors; waiting lock requests end.
    ///
    /// # Errors
    /// No such volume.
    pub fn remove_volume(&self, name: &OsStr) -> Result<(), MountError> {
        let volume = self.volume(name)?;
        self.core.volumes.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        let names = names(&volume.backing());
        self.core.locks.forget_volume(volume.id);
        self.core.table.remove_volume(&volume);
        for n in names {
            self.forget_name(INodeNo(volume.root_node), &n);
        }
        self.forget_names_below(&volume.backing());
        self.forget_name(INodeNo(1), name);
        Ok(())
    }

    /// Exchanges the directory that backs a volume: from the next look-up on, everybody sees `backing`. Open files of the old one stay open; their names are
    /// stale (ESTALE).
    ///
    /// # Errors
    /// No such volume; the backing is not a directory.
    pub fn rebind(&self, name: &OsStr, backing: &Path) -> Result<(), MountError> {
        let volume = self.volume(name)?;
        let backing = self.backing(name, backing)?;
        let mut stale = names(&backing);
        let old = volume.exchange(backing);
        stale.extend(names(&old));
        self.core.locks.forget_volume(volume.id);
        for n in stale {
            self.forget_name(INodeNo(volume.root_node), &n);
        }
        self.forget_names_below(&old);
        if let Err(e) = self.notifier.inval_inode(INodeNo(volume.root_node), 0, 0) {
            tracing::warn!("the kernel keeps attributes of {}: {e}", name.display());
        }
        Ok(())
    }

    /// Makes the kernel forget all names below a backing, including those in use, so that it keeps nothing of the backing open after their last use.
    fn forget_names_below(&self, backing: &Arc<Backing>) {
        for (parent, name) in self.core.table.names_of(backing) {
            self.forget_name(INodeNo(parent), &name);
        }
    }

    fn forget_name(&self, parent: INodeNo, name: &OsStr) {
        if let Err(e) = self.notifier.inval_entry(parent, name) {
            tracing::debug!("the kernel keeps the name {}: {e}", name.display());
        }
    }
}

/// The names in the root of a backing.
fn names(backing: &Backing) -> BTreeSet<OsString> {
    let mut names = BTreeSet::new();
    let Ok(dir) = crate::recognise::reopen(&backing.root, OFlags::RDONLY | OFlags::DIRECTORY) else { return names };
    let mut buffer = [MaybeUninit::<u8>::uninit(); 32 * 1024];
    let mut entries = RawDir::new(&dir, &mut buffer);
    while let Some(Ok(e)) = entries.next() {
        names.insert(OsString::from_vec(e.file_name().to_bytes().to_vec()));
    }
    names
}

pub(super) fn unusable_backing(path: &Path, why: Unusable) -> MountError {
    match why {
        Unusable::Full => MountError::Full,
        Unusable::Io(source) => MountError::Backing { path: path.to_owned(), source },
    }
}

pub(super) fn refuse_nested(backing: &Path, mountpoint: &Path) -> Result<(), MountError> {
    if backing.starts_with(mountpoint) || mountpoint.starts_with(backing) {
        return Err(MountError::Nested { backing: backing.to_owned(), mountpoint: mountpoint.to_owned() });
    }
    Ok(())
}

fn refused(path: &Path, why: Refused) -> MountError {
    match why {
        Refused::InUse(in_use) => MountError::BackingInUse(in_use),
        Refused::Busy(message) => MountError::Busy(message),
        Refused::Io(source) => MountError::Backing { path: path.to_owned(), source },
    }
}

pub(super) fn claimed(path: &Path, root: OwnedFd, server: &Server, served: &[(PathBuf, Arc<Claim>)]) -> Result<Arc<Claim>, MountError> {
    Claim::new(path, root, server, served).map_err(|e| refused(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoody_state::Code;

    /// "4096 directories are served already" was taken for a name that is taken.
    #[test]
    fn each_failure_has_its_code() {
        let io = || std::io::Error::from_raw_os_error(nix::libc::EIO);
        let at = || PathBuf::from("/there is no volume/already");
        let all = [
            (unusable_backing(&at(), Unusable::Full), Code::DatabasesFull),
            (unusable_backing(&at(), Unusable::Io(io())), Code::BadVolume),
            (MountError::NoVolume("already".into()), Code::VolumeNotFound),
            (MountError::VolumeExists("v".into()), Code::VolumeExists),
            (MountError::VolumeName("..".into()), Code::BadVolume),
            (MountError::SingleDirectory, Code::BadVolume),
            (MountError::Nested { backing: at(), mountpoint: at() }, Code::BadVolume),
            (MountError::Busy("already".into()), Code::DatabasesBusy),
            (MountError::Kernel { path: at(), source: io() }, Code::DatabasesFailed),
        ];
        for (e, code) in all {
            assert_eq!(e.code(), code, "{e}");
        }
    }
}
