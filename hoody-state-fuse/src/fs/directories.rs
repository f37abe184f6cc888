//! Directory listings. They use the cookies of the backing file system.

use super::Core;
use super::attributes::file_type;
use crate::backing_file::BackingFile;
use crate::recognise::reopen;
use crate::table::Handle;
use fuser::{INodeNo, ReplyDirectory};
use rustix::fs::{OFlags, RawDir, SeekFrom, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;

impl Core {
    pub(super) fn opendir(&self, id: u64) -> Result<u64, Errno> {
        if !self.single && id == 1 {
            return Ok(0);
        }
        let node = self.table.node(id)?;
        let taken = self.take_open(&node)?;
        let file = File::from(reopen(&*node.path()?, OFlags::RDONLY | OFlags::DIRECTORY)?);
        Ok(self.table.add_handle(Handle::new(node, BackingFile::new(file, taken), true, true, false)))
    }

    pub(super) fn readdir(&self, id: u64, fh: u64, offset: u64, reply: &mut ReplyDirectory) -> Result<(), Errno> {
        if !self.single && id == 1 {
            self.list_volumes(offset, reply);
            return Ok(());
        }
        let handle = self.table.handle(fh)?;
        // A pass over a directory continues where it is; the kernel has one reader for each handle.
        rustix::fs::seek(handle.file(), SeekFrom::Start(offset))?;
        let backing = handle.node.backing();
        let here: Stat = rustix::fs::fstat(handle.file())?;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 32 * 1024];
        let mut entries = RawDir::new(handle.file(), &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let ino = if name == b"." || name == b".." { id } else { backing.number(here.st_dev, entry.ino()) };
            if reply.add(INodeNo(ino), entry.next_entry_cookie(), file_type(entry.file_type()), OsStr::from_bytes(name)) {
                break;
            }
        }
        Ok(())
    }

    fn list_volumes(&self, offset: u64, reply: &mut ReplyDirectory) {
        let volumes = self.volumes.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let dots = [(OsStr::new("."), 1), (OsStr::new(".."), 1)];
        let all = dots.into_iter().chain(volumes.values().map(|v| (v.name.as_os_str(), v.root_node)));
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (name, ino)) in all.enumerate().skip(skip) {
            if reply.add(INodeNo(ino), at as u64 + 1, fuser::FileType::Directory, name) {
                break;
            }
        }
    }
}
