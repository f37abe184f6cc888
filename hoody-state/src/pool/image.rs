//! The loop device under an image.

use crate::error::{Error, IoContext, Kind, Result};
use crate::sys::fs::{loop_backing, loop_configure};
use loopdev::{LoopControl, LoopDevice};
use nix::libc;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The block size of the loop device: that of the file system on it, and of the disks for which direct I/O must be aligned.
pub(super) const BLOCK: u32 = 4096;

/// How often another process may snatch the free device that the kernel named.
const TRIES: u32 = 64;

/// How long detaching waits for others to let go.
const PATIENCE: Duration = Duration::from_secs(10);

/// A loop device, held open: the kernel detaches it when nobody has it open or mounted.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) device: PathBuf,
    pub(super) file: File,
}

/// The loop device of an image, if it has one.
pub(super) fn find(image: &Path) -> Result<Option<Attached>> {
    Ok(all(image)?.into_iter().next())
}

/// How many loop devices an image has.
pub(super) fn devices(image: &Path) -> Result<usize> {
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
        if loop_backing(file.as_fd()).is_ok_and(|b| b == (meta.dev(), meta.ino())) {
            found.push(Attached { device, file });
        }
    }
    Ok(found)
}

/// The loop device of an image: the one it has, or a new one.
pub(super) fn attach(image: &Path) -> Result<Attached> {
    if let Some(found) = find(image)? {
        return Ok(found);
    }
    let backing = File::options().read(true).write(true).open(image).io(|| format!("open {}", image.display()))?;
    attach_file(&backing).map_err(|e| e.context(format!("attach {}", image.display())))
}

/// Attaches an open file to a free loop device.
pub(super) fn attach_file(backing: &File) -> Result<Attached> {
    let none =
        |e| Error::new(Kind::Unavailable, "loop_unavailable", format!("no loop device can be had ({e}): load the module loop, and run as root")).with_source(e);
    let control = LoopControl::open().map_err(none)?;
    let mut last = None;
    for _ in 0..TRIES {
        let device = match control.next_free() {
            Ok(d) => d.path().ok_or_else(|| Error::internal("a loop device without a name"))?,
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => continue,
            Err(e) => return Err(none(e)),
        };
        let file = File::options().read(true).write(true).open(&device).map_err(none)?;
        match loop_configure(file.as_fd(), backing.as_fd(), BLOCK) {
            Ok(()) => return Ok(Attached { device, file }),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => last = Some(e),
            Err(e) => return Err(Error::io(format!("set up {}", device.display()), e)),
        }
    }
    Err(none(last.unwrap_or_else(|| std::io::ErrorKind::ResourceBusy.into())))
}

/// Detaches the image's loop device, if it still has one, and waits until it is gone: whoever looks for a loop device of its own (as
/// [`find`] does) holds every device for a moment.
pub(super) fn detach(image: &Path) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while let Some(found) = find(image)? {
        let device = LoopDevice::open(&found.device).io(|| format!("open {}", found.device.display()))?;
        drop(found.file);
        match device.detach() {
            Err(e) if e.raw_os_error() != Some(libc::ENXIO) => return Err(Error::io(format!("detach {}", image.display()), e)),
            _ => {}
        }
        drop(device);
        if Instant::now() >= end {
            let message = format!("{} is still attached to {}: something has that device open or mounted", image.display(), found.device.display());
            return Err(Error::new(Kind::Busy, "pool_busy", message));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
