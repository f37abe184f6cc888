//! Extended attributes, including ACLs.

use super::{Core, fail};
use crate::caller::may_not_keep_setgid;
use crate::recognise::proc_path;
use fuser::{ReplyXattr, Request};
use rustix::fs::{Mode, XattrFlags};
use rustix::io::Errno;
use std::ffi::OsStr;

/// The limit of the kernel for a value and for a list.
const MOST: usize = 64 * 1024;
const ACCESS_ACL: &str = "system.posix_acl_access";
/// The size of the first attempt.
const FEW: usize = 256;

/// Replies with a value, or only with its size if the caller asked for that.
pub(super) fn send(reply: ReplyXattr, size: u32, value: Result<Vec<u8>, Errno>) {
    match value {
        Err(e) => reply.error(fail(e)),
        Ok(v) if size == 0 => reply.size(u32::try_from(v.len()).unwrap_or(u32::MAX)),
        Ok(v) if v.len() > size as usize => reply.error(fuser::Errno::ERANGE),
        Ok(v) => reply.data(&v),
    }
}

impl Core {
    fn xattr_path(&self, id: u64) -> Result<(std::sync::Arc<std::os::fd::OwnedFd>, String), Errno> {
        if !self.single && id == 1 {
            return Err(Errno::OPNOTSUPP);
        }
        let path = self.table.node(id)?.path()?;
        let name = proc_path(&path);
        Ok((path, name))
    }

    pub(super) fn getxattr(&self, id: u64, name: &OsStr) -> Result<Vec<u8>, Errno> {
        let (_open, path) = self.xattr_path(id)?;
        // Most are small or do not exist, and the kernel asks for one before the first write of each transaction.
        let mut few = [0; FEW];
        match rustix::fs::getxattr(&path, name, &mut few[..]) {
            Err(Errno::RANGE) => {}
            n => return n.map(|n| few.into_iter().take(n).collect()),
        }
        let mut value = vec![0; MOST];
        let n = rustix::fs::getxattr(path, name, &mut value[..])?;
        value.truncate(n);
        Ok(value)
    }

    pub(super) fn listxattr(&self, id: u64) -> Result<Vec<u8>, Errno> {
        let (_open, path) = self.xattr_path(id)?;
        let mut list = vec![0; MOST];
        let n = rustix::fs::listxattr(path, &mut list[..])?;
        list.truncate(n);
        Ok(list)
    }

    pub(super) fn setxattr(&self, req: &Request, id: u64, name: &OsStr, value: &[u8], flags: i32) -> Result<(), Errno> {
        let (open, path) = self.xattr_path(id)?;
        #[allow(clippy::cast_sign_loss)]
        rustix::fs::setxattr(&path, name, value, XattrFlags::from_bits_truncate(flags as u32))?;
        if name != ACCESS_ACL {
            return Ok(());
        }
        // This process keeps the set-group-id bit of the backing file; natively a caller outside the group of the file loses it.
        let stat = rustix::fs::fstat(&*open)?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        if mode.contains(Mode::SGID) && may_not_keep_setgid(req.pid(), req.gid(), stat.st_gid) {
            rustix::fs::chmod(path, mode - Mode::SGID)?;
        }
        Ok(())
    }

    pub(super) fn removexattr(&self, id: u64, name: &OsStr) -> Result<(), Errno> {
        let (_open, path) = self.xattr_path(id)?;
        rustix::fs::removexattr(path, name)
    }
}
