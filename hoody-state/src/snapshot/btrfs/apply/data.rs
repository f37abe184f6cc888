//! What a stream does to the data of regular files: writes, shared extents, holes, reserved space.

use super::{Apply, LOOK_BYTES, failed, hostile, must_be_regular, open_beneath, shown, split};
use crate::error::{Error, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use rustix::fs::{FallocateFlags, OFlags};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use uuid::Uuid;

/// How much is copied at a time if extents cannot be shared.
const PIECE: u64 = 1 << 20;

/// Refuses a range that no file can have.
fn check_range(offset: u64, len: u64) -> Result<()> {
    match offset.checked_add(len).map(i64::try_from) {
        Some(Ok(_)) => Ok(()),
        _ => Err(hostile("an offset beyond all files")),
    }
}

impl Apply<'_> {
    pub(super) fn write(&mut self, path: &[u8], offset: u64, data: &[u8]) -> Result<()> {
        self.bytes += data.len() as u64;
        check_range(offset, data.len() as u64)?;
        self.open(path)?.write_all_at(data, offset).map_err(|e| Error::io(format!("write {:?}", shown(path)), e))
    }

    /// Makes a hole, or reserves space. Modes that move the rest of a file are refused: BTRFS does not have them.
    pub(super) fn fallocate(&mut self, path: &[u8], mode: u32, offset: u64, len: u64) -> Result<()> {
        check_range(offset, len)?;
        let flags = FallocateFlags::from_bits_retain(mode);
        let hole = flags == FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let reserved = flags - FallocateFlags::KEEP_SIZE;
        if !hole && !reserved.is_empty() && reserved != FallocateFlags::ZERO_RANGE {
            return Err(hostile(format!("fallocate of {:?} with mode {mode:#x}", shown(path))));
        }
        if !hole {
            // One command can reserve any amount, so the space is checked before, not after.
            (self.target.room)(len)?;
        }
        rustix::fs::fallocate(self.open(path)?, flags, offset, len).map_err(|e| failed("make a hole in, or reserve space for,", path, e))
    }

    pub(super) fn clone_range(&mut self, path: &[u8], offset: u64, len: u64, from: Uuid, from_path: &[u8], from_offset: u64) -> Result<()> {
        let root = match self.target.base {
            _ if from == self.own => self.target.root,
            Some((root, uuid)) if uuid == from => root,
            _ => return Err(hostile(format!("it takes data from volume {from}, which is not its base"))),
        };
        check_range(offset, len)?;
        check_range(from_offset, len)?;
        let (parent, name) = split(from_path)?;
        let dir = open_beneath(root, parent, OFlags::PATH | OFlags::DIRECTORY).map_err(|e| failed("open directory", parent, e))?;
        let name = CString::new(name).map_err(|_| hostile("a name with a NUL"))?;
        must_be_regular(dir.as_fd(), &name, from_path)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let source = nix::fcntl::openat(&dir, name.as_c_str(), flags, Mode::empty()).map_err(|e| failed("open", from_path, e))?;
        let target = self.open(path)?;
        match btrfs_uapi::send_receive::clone_range(target.as_fd(), source.as_fd(), from_offset, len, offset) {
            Ok(()) => Ok(()),
            // Files with checksums and files without (`chattr +C`) share no extents. The flag may differ from the source here: see `flags`.
            Err(Errno::EINVAL) => self.copy_range(path, &File::from(source), from_offset, len, offset),
            Err(e) => Err(failed("share data with", path, e)),
        }
    }

    fn copy_range(&mut self, path: &[u8], source: &File, from: u64, len: u64, to: u64) -> Result<()> {
        let size = source.metadata().map_err(|e| Error::io("read the length of a file whose data are copied", e))?.len();
        if from.checked_add(len).is_none_or(|end| end > size) {
            return Err(hostile(format!("it takes data from beyond the end of a file, for {:?}", shown(path))));
        }
        let mut buffer = vec![0; usize::try_from(len.min(PIECE)).unwrap_or_default()];
        let mut done = 0;
        while done < len {
            if self.bytes >= LOOK_BYTES {
                self.bytes = 0;
                (self.target.room)(0)?;
            }
            let piece = usize::try_from((len - done).min(PIECE)).unwrap_or_default();
            source.read_exact_at(&mut buffer[..piece], from + done).map_err(|e| Error::io("read data that cannot be shared", e))?;
            self.write(path, to + done, &buffer[..piece])?;
            done += piece as u64;
        }
        Ok(())
    }
}
