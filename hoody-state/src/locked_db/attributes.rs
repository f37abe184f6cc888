//! Owner, mode, extended attributes, ACLs and times of a file, given to another.

use crate::error::{IoContext, Result};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, XattrFlags, lgetxattr, llistxattr, lremovexattr, lsetxattr, utimensat};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Whether the time of modification is given too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    /// Yes.
    Give,
    /// No: it is changed after this, or it says something else (that of a database).
    Leave,
}

/// Gives `to` the attributes of `from`. `seen` is `to`, where it is looked at: what is as it should be is not written. No link is followed.
pub(super) fn give_attributes(from: &Path, seen: &Path, to: &Path, times: Times) -> Result<()> {
    (|| -> io::Result<()> {
        let (x, y) = (std::fs::symlink_metadata(from)?, std::fs::symlink_metadata(seen)?);
        let moved = (x.uid(), x.gid()) != (y.uid(), y.gid());
        if moved {
            std::os::unix::fs::lchown(to, Some(x.uid()), Some(x.gid()))?;
        }
        give_xattrs(from, seen, to)?;
        // After these: a new owner takes set-id bits off, and an ACL sets the bits of the group.
        let changed = moved || std::fs::symlink_metadata(seen)?.permissions() != x.permissions();
        if changed && !x.is_symlink() {
            std::fs::set_permissions(to, x.permissions())?;
        }
        if times == Times::Give && modified(&x) != modified(&y) {
            give_time(to, &x)?;
        }
        Ok(())
    })()
    .io(|| format!("give {} its owner, mode and attributes", to.display()))
}

fn modified(m: &Metadata) -> (i64, i64) {
    (m.mtime(), m.mtime_nsec())
}

fn give_time(to: &Path, x: &Metadata) -> io::Result<()> {
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access: omit, last_modification: Timespec { tv_sec: x.mtime(), tv_nsec: x.mtime_nsec() } };
    Ok(utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn give_xattrs(from: &Path, seen: &Path, to: &Path) -> io::Result<()> {
    let (wanted, present) = (xattrs(from)?, xattrs(seen)?);
    for name in present.keys().filter(|n| !wanted.contains_key(*n)) {
        match lremovexattr(to, name) {
            Err(e) if e != Errno::NODATA => return Err(e.into()),
            _ => {}
        }
    }
    for (name, value) in wanted.iter().filter(|(n, v)| present.get(*n) != Some(*v)) {
        lsetxattr(to, name, value, XattrFlags::empty())?;
    }
    Ok(())
}

/// All extended attributes, ACLs among them.
fn xattrs(path: &Path) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    // The kernel's own limit on a list and on a value.
    let mut list = vec![0; 64 << 10];
    let n = match llistxattr(path, &mut list[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        n => n?,
    };
    let mut found = BTreeMap::new();
    for name in list[..n].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let name = OsStr::from_bytes(name);
        let mut value = vec![0; 64 << 10];
        match lgetxattr(path, name, &mut value[..]) {
            Ok(n) => {
                value.truncate(n);
                found.insert(name.to_owned(), value);
            }
            // It went meanwhile.
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(found)
}
