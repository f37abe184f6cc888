//! Loop devices: a file as a block device. Everything here is about a file (an *image*) and the devices that have it behind them.
#![allow(unsafe_code)]

use crate::error::{Code, Error, IoContext, Result};
use nix::libc;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The block size of the loop device: that of the file system on it, and of the disks for which direct I/O must be aligned.
pub(crate) const BLOCK: u32 = 4096;

/// How often another process may snatch the free device that the kernel named.
const TRIES: u32 = 64;

/// How long detaching waits for others to close the device.
const PATIENCE: Duration = Duration::from_secs(10);

nix::ioctl_none_bad!(ioctl_loop_clr_fd, 0x4C01);
nix::ioctl_none_bad!(ioctl_loop_set_capacity, 0x4C07);
nix::ioctl_none_bad!(ioctl_loop_ctl_get_free, 0x4C82);
nix::ioctl_read_bad!(ioctl_loop_get_status64, 0x4C05, LoopInfo64);
nix::ioctl_write_ptr_bad!(ioctl_loop_configure, 0x4C0A, LoopConfig);

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
fn configure(device: BorrowedFd<'_>, backing: BorrowedFd<'_>, block_size: u32) -> io::Result<()> {
    let fd = u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?;
    let info = LoopInfo64 { flags: LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO, ..EMPTY_LOOP };
    let config = LoopConfig { fd, block_size, info, reserved: [0; 8] };
    // SAFETY: `config` has the layout of struct loop_config, is fully initialised and outlives the call, which only reads it.
    unsafe { ioctl_loop_configure(device.as_raw_fd(), &raw const config)? };
    Ok(())
}

/// The device and inode numbers of the file behind a loop device. ENXIO when there is none.
fn backing_of(device: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let mut info = EMPTY_LOOP;
    // SAFETY: `info` has the layout of struct loop_info64 and outlives the call, which writes no more than that.
    unsafe { ioctl_loop_get_status64(device.as_raw_fd(), &raw mut info)? };
    Ok((info.device, info.inode))
}

/// A loop device, held open: the kernel detaches it when nobody has it open or mounted.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) device: PathBuf,
    pub(crate) file: File,
}

impl Attached {
    /// Lets the device know that its image has become `length` bytes long. Nothing happens if it has that size already.
    pub(crate) fn grow_to(&self, length: u64) -> Result<()> {
        let now = (&self.file).seek(SeekFrom::End(0)).io(|| "ask for the loop device's size")?;
        if now < length {
            // SAFETY: the request takes no argument.
            unsafe { ioctl_loop_set_capacity(self.file.as_raw_fd()) }.io(|| format!("grow {}", self.device.display()))?;
        }
        Ok(())
    }
}

/// The number of a device that nothing is attached to; another process may take it first. The kernel makes one if none is left.
fn next_free(control: &File) -> io::Result<i32> {
    // SAFETY: the request takes no argument.
    Ok(unsafe { ioctl_loop_ctl_get_free(control.as_raw_fd())? })
}

/// Detaches what is behind a device, as soon as nobody has it open. ENXIO when there is nothing.
fn clear(device: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the request takes no argument.
    unsafe { ioctl_loop_clr_fd(device.as_raw_fd())? };
    Ok(())
}

/// The loop device of an image, if it has one.
pub(crate) fn find(image: &Path) -> Result<Option<Attached>> {
    Ok(all(image)?.into_iter().next())
}

/// How many loop devices an image has.
pub(crate) fn devices(image: &Path) -> Result<usize> {
    Ok(all(image)?.len())
}

/// The loop devices of an image. Compares the file itself, not its name.
fn all(image: &Path) -> Result<Vec<Attached>> {
    let mut found = Vec::new();
    let meta = match std::fs::metadata(image) {
        Ok(m) => m,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(e) => return Err(Error::io(format!("stat {}", image.display()), e)),
    };
    for entry in std::fs::read_dir("/sys/block").io(|| "read /sys/block")? {
        let entry = entry.io(|| "read /sys/block")?;
        if !entry.path().join("loop/backing_file").exists() {
            continue;
        }
        let device = Path::new("/dev").join(entry.file_name());
        // It may be detached, or taken away, while we look.
        let Ok(file) = File::options().read(true).write(true).open(&device) else { continue };
        if backing_of(file.as_fd()).is_ok_and(|b| b == (meta.dev(), meta.ino())) {
            found.push(Attached { device, file });
        }
    }
    Ok(found)
}

/// The loop device of an image: the one it has, or a new one.
pub(crate) fn attach(image: &Path) -> Result<Attached> {
    if let Some(found) = find(image)? {
        return Ok(found);
    }
    let backing = File::options().read(true).write(true).open(image).io(|| format!("open {}", image.display()))?;
    attach_file(&backing).map_err(|e| e.context(format!("attach {}", image.display())))
}

/// Attaches an open file to a free loop device.
pub(crate) fn attach_file(backing: &File) -> Result<Attached> {
    let none = |e| Error::new(Code::LoopUnavailable, format!("no loop device can be had ({e}): load the module loop, and run as root")).with_source(e);
    let control = File::options().read(true).write(true).open("/dev/loop-control").map_err(none)?;
    let mut last = None;
    for _ in 0..TRIES {
        let device = match next_free(&control) {
            Ok(number) => PathBuf::from(format!("/dev/loop{number}")),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => continue,
            Err(e) => return Err(none(e)),
        };
        let file = File::options().read(true).write(true).open(&device).map_err(none)?;
        match configure(file.as_fd(), backing.as_fd(), BLOCK) {
            Ok(()) => return Ok(Attached { device, file }),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => last = Some(e),
            Err(e) => return Err(Error::io(format!("set up {}", device.display()), e)),
        }
    }
    Err(none(last.unwrap_or_else(|| std::io::ErrorKind::ResourceBusy.into())))
}

/// Detaches the image's loop device, if it still has one, and waits until it is gone: whoever looks for a loop device of its own (as
/// [`find`] does) holds every device for a moment.
pub(crate) fn detach(image: &Path) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while let Some(found) = find(image)? {
        match clear(found.file.as_fd()) {
            Err(e) if e.raw_os_error() != Some(libc::ENXIO) => return Err(Error::io(format!("detach {}", image.display()), e)),
            _ => {}
        }
        drop(found.file);
        if Instant::now() >= end {
            let message = format!("{} is still attached to {}: something has that device open or mounted", image.display(), found.device.display());
            return Err(Error::new(Code::PoolBusy, message));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<LoopInfo64>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }

    #[test]
    fn a_device_follows_its_file_and_is_detached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("i");
        let image = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        image.set_len(16 << 20).unwrap();
        assert!(find(&path).unwrap().is_none());
        let attached = attach(&path).unwrap();
        assert_eq!(attach(&path).unwrap().device, attached.device, "the one it has");
        assert_eq!(devices(&path).unwrap(), 1);
        image.set_len(20 << 20).unwrap();
        let length = || (&attached.file).seek(SeekFrom::End(0)).unwrap();
        assert_eq!(length(), 16 << 20);
        attached.grow_to(20 << 20).unwrap();
        assert_eq!(length(), 20 << 20);
        drop(attached);
        detach(&path).unwrap();
        assert!(find(&path).unwrap().is_none());
        detach(&path).unwrap();
    }

    #[test]
    fn a_loop_device_names_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let image = File::options().create(true).truncate(true).read(true).write(true).open(dir.path().join("i")).unwrap();
        image.set_len(16 << 20).unwrap();
        let device = attach_file(&image).unwrap().file;
        let meta = image.metadata().unwrap();
        assert_eq!(backing_of(device.as_fd()).unwrap(), (meta.dev(), meta.ino()));
        let again = configure(device.as_fd(), image.as_fd(), 4096).unwrap_err();
        assert_eq!(again.raw_os_error(), Some(libc::EBUSY));
    }
}
