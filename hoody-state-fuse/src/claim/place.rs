//! The place of a directory: its path, and its position in its file system, which is the same through every bind mount and in every mount namespace.

use super::Relation;
use hoody_state::mountinfo::{self, MountEntry};
use rustix::fs::{AtFlags, StatxFlags};
use std::collections::HashMap;
use std::fs::read_link;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// The place of a directory. It can change: directories can be renamed.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    mount: u64,
    /// The process whose mount namespace the path belongs to.
    of: u32,
}

impl Place {
    /// The place of a directory that this process has open.
    pub fn of(dir: &OwnedFd) -> std::io::Result<Self> {
        Self::seen_by(dir, std::process::id())
    }

    /// The place of a directory that another process has open.
    pub fn seen_by(dir: &OwnedFd, pid: u32) -> std::io::Result<Self> {
        let path = read_link(format!("/proc/self/fd/{}", dir.as_raw_fd()))?;
        let mount = rustix::fs::statx(dir, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id;
        Ok(Place { path, mount, of: pid })
    }

    /// How this relates to `other`; `None` if neither is inside the other.
    pub fn relation(&self, other: &Place, mounts: &mut Mounts) -> Option<Relation> {
        let names = mounts.are_one_namespace(self.of, other.of).then(|| compare(&self.path, &other.path)).flatten();
        if names.is_some() || self.mount == other.mount {
            return names;
        }
        let (a, b) = (mounts.in_its_file_system(self)?, mounts.in_its_file_system(other)?);
        (a.0 == b.0).then(|| compare(&a.1, &b.1)).flatten()
    }
}

fn compare(a: &Path, b: &Path) -> Option<Relation> {
    if a == b {
        Some(Relation::Same)
    } else if a.starts_with(b) {
        Some(Relation::Inside)
    } else if b.starts_with(a) {
        Some(Relation::Above)
    } else {
        None
    }
}

/// The mount tables of processes, each read once.
#[derive(Debug, Default)]
pub(super) struct Mounts(HashMap<u32, Vec<MountEntry>>);

impl Mounts {
    fn are_one_namespace(&self, a: u32, b: u32) -> bool {
        let namespace = |pid| read_link(format!("/proc/{pid}/ns/mnt")).ok();
        a == b || namespace(a).is_some_and(|n| namespace(b) == Some(n))
    }

    /// The file system of a directory, and its path there.
    fn in_its_file_system(&mut self, place: &Place) -> Option<((u64, u64), PathBuf)> {
        let table = self.0.entry(place.of).or_insert_with(|| mountinfo::of_process(place.of).unwrap_or_default());
        let mount = table.iter().find(|m| m.id == place.mount)?;
        let below = place.path.strip_prefix(&mount.at).ok()?;
        Some((mount.device, mount.root.join(below)))
    }
}
