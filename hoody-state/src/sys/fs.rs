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
    let mut handle = BtrfsHandle { handle_bytes: 20, handle_type: FILEID_BTRFS_WITHOUT_PARENT, objectid: ino, root_objectid: root, generation: 0 };
    // SAFETY: `handle` is laid out as the kernel's struct file_handle with `handle_bytes` bytes behind its header and outlives the call, which
    // only reads it. The descriptor returned is new and ours alone.
    unsafe {
        let fd = libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw mut handle,
            libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC | libc::O_NOFOLLOW,
        );
        let fd = Errno::result(fd)?;
        Ok(OwnedFd::from_raw_fd(libc::c_int::try_from(fd).map_err(io::Error::other)?))
    }
}

nix::ioctl_read_bad!(ioctl_loop_get_status64, 0x4C05, LoopInfo64);
nix::ioctl_write_ptr_bad!(ioctl_loop_configure, 0x4C0A, LoopConfig);
// FS_IOC_GETFLAGS and FS_IOC_SETFLAGS: declared with a long, yet the kernel reads and writes an int.
nix::ioctl_read_bad!(ioctl_get_flags, nix::request_code_read!(b'f', 1, size_of::<libc::c_long>()), libc::c_int);
nix::ioctl_write_ptr_bad!(ioctl_set_flags, nix::request_code_write!(b'f', 2, size_of::<libc::c_long>()), libc::c_int);

const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const EMPTY_LOOP: LoopInfo64 = LoopInfo64 {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    sizelimit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// Attaches `backing` to the free loop device `device` in one step (`LOOP_CONFIGURE`, Linux 5.8): direct I/O where the backing file can (the
/// kernel falls back by itself), and detached by the kernel as soon as nobody has the device open or mounted, so that no crash leaks one.
/// EBUSY when another process took the device first.
pub(crate) fn loop_configure(device: BorrowedFd<'_>, backing: BorrowedFd<'_>, block_size: u32) -> io::Result<()> {
    let fd = u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?;
    let info = LoopInfo64 { flags: LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO, ..EMPTY_LOOP };
    let config = LoopConfig { fd, block_size, info, reserved: [0; 8] };
    // SAFETY: `config` has the layout of struct loop_config, is fully initialised and outlives the call, which only reads it.
    unsafe { ioctl_loop_configure(device.as_raw_fd(), &raw const config)? };
    Ok(())
}

/// The device and inode numbers of the file behind a loop device. ENXIO when there is none.
pub(crate) fn loop_backing(device: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let mut info = EMPTY_LOOP;
    // SAFETY: `info` has the layout of struct loop_info64 and outlives the call, which writes no more than that.
    unsafe { ioctl_loop_get_status64(device.as_raw_fd(), &raw mut info)? };
    Ok((info.device, info.inode))
}

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
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::pool::testing::LoopPool;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<BtrfsHandle>(), 8 + 20);
        assert_eq!(size_of::<LoopInfo64>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }

    #[test]
    fn a_directory_is_opened_by_its_number() {
        let pool = LoopPool::new();
        let sub = pool.root().join("some/deep");
        std::fs::create_dir_all(&sub).unwrap();
        let root = File::open(pool.root()).unwrap();
        let fd = open_dir_by_id(root.as_fd(), 5, std::fs::metadata(&sub).unwrap().ino()).unwrap();
        assert_eq!(std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap(), sub);
        let gone = open_dir_by_id(root.as_fd(), 5, 1 << 40).unwrap_err();
        assert!(matches!(gone.raw_os_error(), Some(libc::ESTALE | libc::ENOENT)), "{gone}");
        let not_btrfs = open_dir_by_id(File::open("/proc").unwrap().as_fd(), 5, 256);
        assert!(not_btrfs.is_err());
    }

    #[test]
    fn a_mark_is_put_on_and_taken_off() {
        let pool = LoopPool::new();
        let dir = File::open(pool.root()).unwrap();
        let name = c"trusted.hoody.test";
        assert!(!has_mark(dir.as_fd(), name).unwrap());
        set_mark(dir.as_fd(), name, true).unwrap();
        set_mark(dir.as_fd(), name, true).unwrap();
        assert!(has_mark(dir.as_fd(), name).unwrap());
        set_mark(dir.as_fd(), name, false).unwrap();
        set_mark(dir.as_fd(), name, false).unwrap();
        assert!(!has_mark(dir.as_fd(), name).unwrap());
    }

    #[test]
    fn copy_on_write_is_turned_off() {
        let pool = LoopPool::new();
        let dir = pool.root().join("d");
        std::fs::create_dir(&dir).unwrap();
        let dir_file = File::open(&dir).unwrap();
        assert!(!is_no_cow(&dir_file).unwrap());
        set_no_cow(&dir_file).unwrap();
        set_no_cow(&dir_file).unwrap();
        assert!(is_no_cow(&File::create(dir.join("f")).unwrap()).unwrap());
    }

    #[test]
    fn a_loop_device_names_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let image = File::options().create(true).truncate(true).read(true).write(true).open(dir.path().join("i")).unwrap();
        image.set_len(16 << 20).unwrap();
        let device = crate::pool::testing::attach_free(&image);
        let meta = image.metadata().unwrap();
        assert_eq!(loop_backing(device.as_fd()).unwrap(), (meta.dev(), meta.ino()));
        let again = loop_configure(device.as_fd(), image.as_fd(), 4096).unwrap_err();
        assert_eq!(again.raw_os_error(), Some(libc::EBUSY));
    }
}
