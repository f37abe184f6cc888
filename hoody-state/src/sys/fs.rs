//! Files and file systems.
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The inode number of every BTRFS subvolume's root directory.
pub(crate) const SUBVOLUME_ROOT_INO: u64 = 256;

/// `FILEID_BTRFS_WITHOUT_PARENT` of linux/exportfs.h.
const FILEID_BTRFS_WITHOUT_PARENT: libc::c_int = 0x4d;

/// A BTRFS file handle: `struct file_handle` followed by the first 20 bytes of `struct btrfs_fid`.
#[repr(C, packed)]
struct BtrfsHandle {
    handle_bytes: libc::c_uint,
    handle_type: libc::c_int,
    objectid: u64,
    root_objectid: u64,
    generation: u32,
}

/// Opens the directory with inode number `ino` of the BTRFS subvolume `root`, on the file system of `mount`, without walking any path:
/// nothing that somebody renames or links in the meantime can lead elsewhere, and no depth is too deep.
/// ESTALE or ENOENT when there is no such directory.
pub(crate) fn open_dir_by_id(mount: BorrowedFd<'_>, root: u64, ino: u64) -> io::Result<OwnedFd> {
    open_by_id(mount, root, ino, libc::O_DIRECTORY)
}

/// The same for a file, to read it without a trace in its time of access. The caller knows that it is a regular file: the type of an inode never changes.
pub(crate) fn open_file_by_id(mount: BorrowedFd<'_>, root: u64, ino: u64) -> io::Result<File> {
    open_by_id(mount, root, ino, libc::O_NOATIME | libc::O_NONBLOCK).map(File::from)
}

fn open_by_id(mount: BorrowedFd<'_>, root: u64, ino: u64, flags: libc::c_int) -> io::Result<OwnedFd> {
    let mut handle = BtrfsHandle { handle_bytes: 20, handle_type: FILEID_BTRFS_WITHOUT_PARENT, objectid: ino, root_objectid: root, generation: 0 };
    // SAFETY: `handle` is laid out as the kernel's struct file_handle with `handle_bytes` bytes behind its header and outlives the call, which
    // only reads it. The descriptor returned is new and ours alone.
    unsafe {
        let fd = libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw mut handle, libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW | flags);
        let fd = Errno::result(fd)?;
        Ok(OwnedFd::from_raw_fd(libc::c_int::try_from(fd).map_err(io::Error::other)?))
    }
}

// FS_IOC_GETFLAGS and FS_IOC_SETFLAGS: declared with a long, yet the kernel reads and writes an int.
nix::ioctl_read_bad!(ioctl_get_flags, nix::request_code_read!(b'f', 1, size_of::<libc::c_long>()), libc::c_int);
nix::ioctl_write_ptr_bad!(ioctl_set_flags, nix::request_code_write!(b'f', 2, size_of::<libc::c_long>()), libc::c_int);

const FS_NOCOW_FL: libc::c_int = 0x0080_0000;

/// Turns copy-on-write off for the files that will be made in the directory `dir`.
pub(crate) fn set_no_cow(dir: &File) -> io::Result<()> {
    let mut flags: libc::c_int = 0;
    // SAFETY: both calls take a pointer to an int, which outlives them.
    unsafe {
        ioctl_get_flags(dir.as_raw_fd(), &raw mut flags)?;
        if flags & FS_NOCOW_FL == 0 {
            flags |= FS_NOCOW_FL;
            ioctl_set_flags(dir.as_raw_fd(), &raw const flags)?;
        }
    }
    Ok(())
}

/// Whether copy-on-write is off for the directory or file.
#[cfg(test)]
pub(crate) fn is_no_cow(file: &File) -> io::Result<bool> {
    let mut flags: libc::c_int = 0;
    // SAFETY: as in `set_no_cow`.
    unsafe { ioctl_get_flags(file.as_raw_fd(), &raw mut flags)? };
    Ok(flags & FS_NOCOW_FL != 0)
}

/// Puts the extended attribute `name`, empty, on an open file or directory, or takes it off. Absent already is no error.
pub(crate) fn set_mark(file: BorrowedFd<'_>, name: &CStr, on: bool) -> io::Result<()> {
    // SAFETY: `name` ends with a NUL and outlives the calls; a value of no bytes is never read.
    let done = unsafe {
        if on { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), std::ptr::null(), 0, 0) } else { libc::fremovexattr(file.as_raw_fd(), name.as_ptr()) }
    };
    match Errno::result(done) {
        Ok(_) => Ok(()),
        Err(Errno::ENODATA) if !on => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Whether an open file or directory has the extended attribute `name`.
pub(crate) fn has_mark(file: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    // SAFETY: `name` ends with a NUL and outlives the call; a size of 0 asks for the length alone and writes nothing.
    match Errno::result(unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), std::ptr::null_mut(), 0) }) {
        Ok(_) => Ok(true),
        Err(Errno::ENODATA) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Opens the directory `name` (bytes, never a link) beneath `dir`.
pub(crate) fn open_dir_at(dir: impl AsFd, path: &(impl nix::NixPath + ?Sized)) -> io::Result<OwnedFd> {
    use nix::fcntl::{OFlag, openat};
    use nix::sys::stat::Mode;
    Ok(openat(dir, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handle_has_the_kernels_size() {
        assert_eq!(size_of::<BtrfsHandle>(), 8 + 20);
    }
}
