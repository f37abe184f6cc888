//! Checks whether a tree can be booted, and adds the directories that every container needs.

use super::tree::{Existing, Tree};
use crate::error::{Code, Error, IoContext, Result};
use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags};

/// The default command of a container, in order of preference.
const PROGRAMS: [&str; 5] = ["sbin/init", "bin/sh", "usr/bin/sh", "usr/sbin/init", "init"];

/// Directories that are created if missing, with their modes. The first group are mount points and must be real directories.
const MOUNT_POINTS: [(&str, u32); 9] = [
    ("proc", 0o555),
    ("sys", 0o555),
    ("dev", 0o755),
    ("hoody", 0o755),
    ("hoody/storage", 0o755),
    ("hoody/databases", 0o755),
    ("hoody/shares", 0o755),
    ("hoody/snapshots", 0o755),
    ("ramdisk", 0o1777),
];
const USUAL: [(&str, u32); 4] = [("tmp", 0o1777), ("run", 0o755), ("etc", 0o755), ("root", 0o700)];

/// Adds the directories that are missing.
///
/// # Errors
/// `image_no_root` if one of them is not a directory.
pub(super) fn complete(tree: &mut Tree) -> Result<()> {
    for (path, mode) in MOUNT_POINTS {
        directory(tree, path, mode, false)?;
    }
    for (path, mode) in USUAL {
        directory(tree, path, mode, true)?;
    }
    Ok(())
}

fn directory(tree: &mut Tree, path: &str, mode: u32, may_be_link: bool) -> Result<()> {
    let parts: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
    let Some((name, parent)) = parts.split_last() else { return Ok(()) };
    tree.enter(parent)?;
    match tree.existing(name)? {
        Existing::Directory => Ok(()),
        Existing::Other if may_be_link => Ok(()),
        Existing::Other => Err(Error::new(
            Code::ImageNoRoot,
            format!("/{path} of the image is a file or a symlink, but something is mounted there in every container: it must be a directory, or missing"),
        )),
        Existing::Nothing => {
            // `enter` makes it, owned by the container's root.
            let fd = tree.enter(&parts)?;
            fs::fchmod(fd, Mode::from_raw_mode(mode)).io(|| format!("change the mode of /{path}"))
        }
    }
}

/// Checks that there is a program to start.
///
/// # Errors
/// `image_no_root`, which names the programs that were looked for.
pub(super) fn check(tree: &Tree) -> Result<()> {
    for path in PROGRAMS {
        // The kernel resolves symlinks as if the image were `/`: absolute ones and `..` stay within.
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let Ok(fd) = fs::openat2(tree.root(), path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) else { continue };
        let stat = fs::fstat(&fd).io(|| format!("stat /{path} of the image"))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o111 != 0 {
            return Ok(());
        }
    }
    Err(Error::new(
        Code::ImageNoRoot,
        "the archive is not a root file system: it has no executable /sbin/init, /bin/sh, /usr/bin/sh or /init (is the tree in a subdirectory of the archive?)",
    ))
}
