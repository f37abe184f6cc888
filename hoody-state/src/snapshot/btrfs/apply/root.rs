//! Prevents new files from inheriting attributes of the root directory.
//!
//! The kernel's stream makes each new file in the root, under a temporary name, and moves it to its place. So it would inherit from the root what the original
//! file did not: a default access list, compression, no copy-on-write. These are removed from the root while a stream is applied, and restored at its end.

use super::flags::{COMPRESSION, NO_COMPRESSION};
use super::{Apply, failed};
use crate::error::Result;
use rustix::fs::{IFlags, OFlags, XattrFlags};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const ATTRIBUTES: [&str; 2] = ["system.posix_acl_default", COMPRESSION];
const FLAGS: IFlags = IFlags::NOCOW.union(IFlags::COMPRESSED).union(NO_COMPRESSION);

/// The attributes that the root must have in the end.
pub(super) struct Inherited {
    attributes: BTreeMap<&'static str, Vec<u8>>,
    /// The removed attributes.
    flags: IFlags,
    /// The flags of the root in the stream.
    sent: Option<u64>,
}

/// Removes the attributes from the root that new files would inherit.
pub(super) fn set_aside(root: BorrowedFd<'_>) -> Result<Inherited> {
    let what = |e: rustix::io::Errno| failed("remove inherited attributes from the root", b"", e);
    let root = readable(root)?;
    let mut attributes = BTreeMap::new();
    for name in ATTRIBUTES {
        let mut value = vec![0; 64 << 10];
        if let Ok(n) = rustix::fs::fgetxattr(&root, name, &mut value) {
            attributes.insert(name, value[..n].to_vec());
        }
    }
    let now = rustix::fs::ioctl_getflags(&root).map_err(what)?;
    if now.intersects(FLAGS) {
        rustix::fs::ioctl_setflags(&root, now - FLAGS).map_err(what)?;
    }
    for name in attributes.keys() {
        match rustix::fs::fremovexattr(&root, *name) {
            // It was removed with the flags.
            Ok(()) | Err(rustix::io::Errno::NODATA) => {}
            Err(e) => return Err(what(e)),
        }
    }
    Ok(Inherited { attributes, flags: now & FLAGS, sent: None })
}

fn readable(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    super::open_beneath(root, b"", OFlags::RDONLY | OFlags::DIRECTORY).map_err(|e| failed("open the root", b"", e))
}

impl Inherited {
    pub(super) fn takes(&self, name: &[u8]) -> bool {
        ATTRIBUTES.iter().any(|a| a.as_bytes() == name)
    }

    pub(super) fn set(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        if let Some(known) = ATTRIBUTES.iter().find(|a| a.as_bytes() == name) {
            self.attributes.insert(known, value.to_vec());
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Result<()> {
        self.attributes.retain(|known, _| known.as_bytes() != name);
        Ok(())
    }

    pub(super) fn set_flags(&mut self, flags: u64) -> Result<()> {
        self.sent = Some(flags);
        Ok(())
    }
}

impl Apply<'_> {
    pub(super) fn restore_inherited(&mut self) -> Result<()> {
        let root = readable(self.target.root)?;
        let Inherited { attributes, flags, sent } = &self.inherited;
        let (attributes, sent) = (attributes.clone(), *sent);
        if !flags.is_empty() && sent.is_none() {
            let now = rustix::fs::ioctl_getflags(&root).map_err(|e| failed("read the flags of", b"", e))?;
            rustix::fs::ioctl_setflags(&root, now | *flags).map_err(|e| failed("set the flags of", b"", e))?;
        }
        for (name, value) in &attributes {
            rustix::fs::fsetxattr(root.as_fd(), OsStr::new(name), value, XattrFlags::empty()).map_err(|e| failed("set an attribute of", name.as_bytes(), e))?;
        }
        sent.map_or(Ok(()), |flags| self.flags(b"", flags))
    }
}
